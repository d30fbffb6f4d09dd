"""Where a client is in log streams, as it stands in the id of an event.

Of one run that is `s=LINES;e=LINES`: so many of stdout and of stderr it has.
A stream of many runs puts behind that a vector of all of them, so that the
last id alone tells what is missing, also to a server that was started since:

    ;v=BASE64( key of the event's own run, time, (key, lines, lines) of each other )

A run that ended MARGIN_NS or more before that time, and has no place in it,
was sent as a whole; any other without a place is still to be sent from its
beginning.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from lib import ids
from lib.api.run_logs import Place

MARGIN_NS = 30 * ids.NANOSECONDS  # so late it may become known that a run has ended
KEY_BYTES = 6
_TIME_BYTES = 8
_MAX_LINES = 1 << 62
_FIELD = re.compile(r"(s|stdout|out|e|stderr|err)\s*[=:]\s*([0-9]{1,18})", re.ASCII)
_NAMES = {"s": 0, "stdout": 0, "out": 0, "e": 1, "stderr": 1, "err": 1}
Vector = dict[bytes, Place]


@lru_cache(1 << 15)
def key_of(runs_dir: str, path: str) -> bytes:
    """What stands for a run; the same wherever its root lies."""
    name = path.removeprefix(f"{runs_dir}/")
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def place_of(text: str) -> Place | None:
    """The place in an id, as the original reads it; a number alone counts for both outputs."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text), int(text)
    places: list[int] = [0, 0]
    is_known = False
    for part in re.split("[;,|]", text):
        if found := _FIELD.fullmatch(part.strip()):
            places[_NAMES[found[1]]] = int(found[2])
            is_known = True
    return (places[0], places[1]) if is_known else None


class Cursor:
    """The places of a client in the runs of a stream, and as of when (ns since 1970)."""

    __slots__ = ("places", "time_ns")

    def __init__(self, places: Vector, time_ns: int) -> None:
        self.places = places
        self.time_ns = time_ns

    def has_whole(self, key: bytes, ended_ns: int) -> bool:
        """Whether the client has a run without a place in it, which ended then."""
        return key not in self.places and ended_ns < self.time_ns - MARGIN_NS

    def suffix(self, own: bytes) -> str:
        """For the ids of events of one run, as long as no other run's are sent."""
        return suffix(own, self.time_ns, self.places.items())


def suffix(own: bytes, time_ns: int, places: Iterable[tuple[bytes, Place]]) -> str:
    parts = [own, max(0, time_ns).to_bytes(_TIME_BYTES, "big")]
    for key, (s, e) in places:
        if key != own:
            parts += [key, _packed(s), _packed(e)]
    return f";v={base64.urlsafe_b64encode(b''.join(parts)).decode().rstrip('=')}"


def read(text: str) -> Cursor | None:
    """The cursor in an id of a stream of many runs; None for anything else."""
    place = place_of(text)
    _, mark, encoded = text.strip().rpartition(";v=")
    if place is None or not mark:
        return None
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
        return _unpacked(data, place)
    except (binascii.Error, ValueError, IndexError):
        return None


def _unpacked(data: bytes, place: Place) -> Cursor:
    at = KEY_BYTES + _TIME_BYTES
    if len(data) < at:
        raise ValueError("too short")
    time_ns = int.from_bytes(data[KEY_BYTES:at], "big")
    places: Vector = {}
    while at < len(data):
        key = data[at : at + KEY_BYTES]
        s, at = _number(data, at + KEY_BYTES)
        e, at = _number(data, at)
        places[key] = (s, e)
    places[data[:KEY_BYTES]] = place
    return Cursor(places, time_ns)


def _packed(number: int) -> bytes:
    """Seven bits in a byte, the lowest first; the highest bit says that there are more."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def _number(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if number > _MAX_LINES or shift > 63:
            raise ValueError("too large")
