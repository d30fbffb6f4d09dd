"""Times, run names, message ids and slugs: how they are made and read.

Everything here is UTC, and every id sorts by time as plain text.
"""

from __future__ import annotations

import os
import time

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
NANOSECONDS = 1_000_000_000
ZERO_TIME = "0001-01-01T00:00:00Z"  # how a record says "not yet"

_message_counter = 0
_run_counter = 0


def stamp(seconds: float) -> str:
    """`YYYYMMDD-HHMMSS` of a time in seconds since 1970."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds))


def rfc3339(nanoseconds: int | None = None) -> str:
    """`2026-02-23T20:48:59.123456789Z` of a time since 1970, by default now."""
    if nanoseconds is None:
        nanoseconds = time.time_ns()
    seconds, fraction = divmod(nanoseconds, NANOSECONDS)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def rfc3339_of(seconds: float) -> str:
    """The same of a time in seconds since 1970."""
    return rfc3339(int(seconds * NANOSECONDS))


def parse_rfc3339(text: object) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time; None for the zero time and for anything else."""
    if not isinstance(text, str) or len(text) < 19 or text.startswith("0001-"):
        return None
    try:
        year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
        hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    except ValueError:
        return None
    if not (1 <= month <= 12 and 1 <= day <= 31 and text[10] in "T " and text[13] == ":"):
        return None
    rest, fraction = text[19:], ""
    if rest.startswith("."):
        digits = 1
        while digits < len(rest) and rest[digits] in "0123456789":
            digits += 1
        fraction, rest = rest[1:digits], rest[digits:]
    offset = _zone_seconds(rest)
    if offset is None:
        return None
    days = _days_from_civil(year, month, day)
    seconds = days * 86400 + hour * 3600 + minute * 60 + second - offset
    return seconds * NANOSECONDS + int((fraction + "000000000")[:9])


def _zone_seconds(zone: str) -> int | None:
    if zone in ("Z", "z", ""):
        return 0
    if len(zone) == 6 and zone[0] in "+-" and zone[3] == ":":
        try:
            seconds = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        except ValueError:
            return None
        return seconds if zone[0] == "+" else -seconds
    return None


def _days_from_civil(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the Gregorian calendar (datetime costs 2 ms to import)."""
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return (
        era * 146097
        + year_of_era * 365
        + year_of_era // 4
        - year_of_era // 100
        + (day_of_year - 719468)
    )


def message_id(nanoseconds: int) -> str:
    """A new bus message id for that moment; unique within this process."""
    global _message_counter
    _message_counter += 1
    seconds, fraction = divmod(nanoseconds, NANOSECONDS)
    return (
        f"MSG-{stamp(seconds)}-{fraction:09d}"
        f"-PID{os.getpid() % 100000:05d}-{_message_counter % 10000:04d}"
    )


def session_id() -> str:
    """A new random UUID, by which an agent's session can be named before it begins.

    Source: RFC 9562, version 4.
    """
    octets = bytearray(os.urandom(16))
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    digits = octets.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def run_name(seconds: float, pid: int, task: str = "") -> str:
    """`run_YYYYMMDD-HHMMSS-PID`, with `-task` behind it when one was named."""
    name = f"run_{stamp(seconds)}-{pid}"
    return f"{name}-{task}" if task else name


def task_run_name(nanoseconds: int, pid: int) -> str:
    """`YYYYMMDD-HHMMSSffff-PID-SEQ`, of a run in a task folder; ffff are 1/10000 s.

    Unique within this process, and in the order of time as plain text.
    """
    global _run_counter
    _run_counter += 1
    seconds, fraction = divmod(nanoseconds, NANOSECONDS)
    return f"{stamp(seconds)}{fraction // 100_000:04d}-{pid}-{_run_counter}"


def slug(text: str) -> str:
    """`My App` -> `my-app`: lower-case letters, digits and single dashes; never empty."""
    characters = [c if c in _LOWER else "-" for c in text.lower()]
    words = [word for word in "".join(characters).split("-") if word]
    return "-".join(words)[:64].rstrip("-") or "default"


def planned_task(name: str) -> str:
    """The task of a plan by the task id of a run of it: each run of a review is `task@agent`."""
    return name.partition("@")[0]


def is_safe(name: str) -> bool:
    """True for a name that can be one path component and part of an id everywhere."""
    return 0 < len(name) <= 128 and name[0] not in ".-" and all(c in _SAFE for c in name)
