"""The head of a request as bytes, taken apart strictly; whatever could be read two ways is refused.

A proxy and a server that read the same bytes differently can be played against
each other, so nothing is mended here: a line ends in CR LF, a header stands on
one line, its length is one plain number.  Source: RFC 9112, sections 2.2, 3, 5 and 6.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from lib.api.exchange import Refusal

HEAD_BYTES = 32 * 1024
HEAD_LINES = 100  # headers
TARGET_BYTES = 8 * 1024

_END = b"\r\n\r\n"
_STRAY = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE = re.compile(rf"({_WORD}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_NAME = re.compile(_WORD)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LENGTH = re.compile(r"[0-9]{1,18}")
# A second one of these would leave open which of them counts.
_ONCE = {
    "host", "content-length", "content-type", "transfer-encoding", "expect",
    "authorization", "x-api-key", "origin", "referer", "last-event-id", "x-request-id",
    "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "x-conductor-client",
}  # fmt: skip


class Head:
    """A request without its body; header names in lower case, texts in Latin-1 as WSGI has them."""

    __slots__ = ("body_bytes", "headers", "method", "target", "version")

    def __init__(self, method: str, target: str, version: str, headers: dict[str, str]) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.body_bytes = _body_bytes(headers)

    @property
    def path(self) -> str:
        """The path with its escapes undone once."""
        return unquote_to_bytes(self.target.partition("?")[0]).decode("latin-1")

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


def find_end(data: bytes | bytearray, checked: int) -> int:
    """Where the body begins, or 0 if the head goes on.

    The first `checked` bytes were seen before.  Refusal as soon as it is plain that
    no good head comes of this, be it TLS, a NUL, a lone CR or LF, or too much of it.
    """
    found = data.find(_END, max(0, checked - len(_END) + 1))
    end = found + len(_END) if found >= 0 else len(data)
    if _STRAY.search(data, max(0, checked - 1), end):
        raise Refusal(400, "malformed request: a control character, or a line not ended by CR LF")
    first = data.find(b"\r\n", 0, end)
    if (first if first >= 0 else end) > TARGET_BYTES + 64:
        raise Refusal(414, f"the address is longer than {TARGET_BYTES} bytes")
    if end > HEAD_BYTES or data.count(b"\r\n", 0, end) > HEAD_LINES + 2:
        raise Refusal(431, f"more than {HEAD_LINES} headers, or {HEAD_BYTES} bytes of them")
    return end if found >= 0 else 0


def parse(data: bytes) -> Head:
    """The head in `data`, which ends with its empty line; Refusal for one that is not sound."""
    first, *lines = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    matched = _LINE.fullmatch(first)
    if matched is None:
        raise Refusal(400, "malformed request line")
    method, target, major, minor = matched.groups()
    if major != "1":
        raise Refusal(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    _check_target(method, target)
    headers = _headers(lines)
    if minor != "0" and "host" not in headers:
        raise Refusal(400, "malformed request: no Host")
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise Refusal(417, "nothing but 100-continue can be expected")
    return Head(method, target, f"HTTP/1.{'0' if minor == '0' else '1'}", headers)


def _check_target(method: str, target: str) -> None:
    if len(target) > TARGET_BYTES:
        raise Refusal(414, f"the address is longer than {TARGET_BYTES} bytes")
    path = target.partition("?")[0]
    if not path.startswith("/") and not (method == "OPTIONS" and target == "*"):
        raise Refusal(400, "malformed request line: the address must be a path")
    if "#" in target or _BAD_ESCAPE.search(path):
        raise Refusal(400, "malformed request line: the address has a wrong escape or a fragment")


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):  # a space before the colon, or a folded line
            raise Refusal(400, "malformed header")
        name, value = name.lower(), value.strip(" \t")
        if "_" in name:
            continue  # WSGI cannot tell X_API_Key from X-API-Key, so only one of them may exist
        if name in headers:
            if name in _ONCE:
                raise Refusal(400, f"malformed request: more than one {name}")
            value = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
        headers[name] = value
    return headers


def _body_bytes(headers: dict[str, str]) -> int:
    length = headers.get("content-length")
    if "transfer-encoding" in headers:
        if length is not None:
            raise Refusal(400, "malformed request: Content-Length and Transfer-Encoding")
        raise Refusal(411, "send the body with a Content-Length, not in chunks")
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise Refusal(400, "malformed request: Content-Length is not a number")
    return int(length)
