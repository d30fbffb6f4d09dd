"""A text, or what tells of an error, found in the lines of a file as they are shown: redacted.

What is looked at, and for how long, is the same whatever is looked for: else the time that an
answer takes would tell whether a guess is part of a secret.  So a piece of the file is redacted
first and searched then.  That costs much more than the search, and is remembered: a piece that
holds no secret is searched as it is from then on.
"""

from __future__ import annotations

import os
import re
import time

from lib import redact
from lib.api.line_index import LineIndex, behind_line_end
from lib.api.line_text import Extent, Redaction, first_start

MOST_BYTES = 64 << 20  # that one call looks through
MOST_SECONDS = 0.8
PIECE_BYTES = 64 << 10  # the lines that begin in it are redacted at once
LINE_BYTES = 1 << 20  # of a line are looked through
SHOWN_CHARACTERS = 300  # of a line that is found
_BEFORE = 100  # of them stand before the match

# In lower case.  A field that says there was none is not one, nor is a count of 0.  Of its name
# a little is looked at: in a line of nothing else each match would look through all the others.
_ERROR = re.compile(
    rb"(?<!\b0 )(?<!\bno )(?:errors?|fail(?:ed|ure|ures)|exception|traceback|panic|fatal|killed|abort(?:ed|ing)"
    rb"|segmentation fault|core dumped|out of memory|denied|timed out|command not found)"
    rb"(?![a-z_]{0,40}[\"']?[ ]?[:=][ ]?(?:null|none|false|0\b|\"\"|''|\[\]|\{\}))"
)
_ERROR_SIGNS = (
    b"error", b"fail", b"exception", b"traceback", b"panic", b"fatal", b"killed", b"abort",
    b"segmentation", b"core dumped", b"out of memory", b"denied", b"timed out", b"not found",
)  # fmt: skip


class Wanted:
    """What is looked for: `text` in any case, or with "" what tells of an error."""

    def __init__(self, text: str = "") -> None:
        self._needle = text.lower().encode("utf-8", "replace")
        self._is_ascii = text.isascii()

    def fold(self, data: bytes) -> bytes:
        """As it is looked through; line ends stay."""
        if self._is_ascii:
            return data.lower()
        return data.decode("utf-8", "replace").lower().encode()

    def find(self, folded: bytes, *, last: bool = False) -> int:
        """Where it stands first, or last; -1 for nowhere."""
        if self._needle:
            return folded.rfind(self._needle) if last else folded.find(self._needle)
        if not any(sign in folded for sign in _ERROR_SIGNS):
            return -1
        at = -1
        for match in _ERROR.finditer(folded):
            at = match.start()
            if not last:
                break
        return at


class Found:
    """A line that was found: its number, the first being 1, where it begins, and its text."""

    def __init__(self, line: int, offset: int, text: str) -> None:
        self.line = line
        self.offset = offset
        self.text = text


class Search:
    """Looks through the lines of a file; `next_offset` is where to go on, None when all is done."""

    def __init__(self, fd: int, index: LineIndex, extent: Extent, wanted: Wanted) -> None:
        self.next_offset: int | None = None
        self._fd, self._index, self._extent = fd, index, extent
        self._wanted = wanted
        self._moment = redact.added()  # before anything is redacted
        self._redaction: Redaction | None = None  # of what comes behind the last piece
        self._redacted_to = -1

    def forward(self, offset: int) -> Found | None:
        """The first match in a line that begins at that byte, or behind it."""
        begun, limit = time.monotonic(), MOST_BYTES + offset
        start = self._first_start(offset)
        while start < self._extent.end:
            end = self._first_start((start // PIECE_BYTES + 1) * PIECE_BYTES)
            found = self._look(start, end, last=False)
            if found is not None:
                return found
            start = end
            if start >= limit or time.monotonic() - begun > MOST_SECONDS:
                break
        self.next_offset = start if start < self._extent.end else None
        return None

    def backward(self, offset: int) -> Found | None:
        """The last match in a line that begins before that byte."""
        begun = time.monotonic()
        end = self._first_start(offset)
        limit = end - MOST_BYTES
        while end > 0:
            start = self._index.start_from(self._fd, (end - 1) // PIECE_BYTES * PIECE_BYTES)
            if not start < end:
                start = self._index.start_before(self._fd, end - 1)
            found = self._look(start, end, last=True)
            if found is not None:
                return found
            end = start
            if end <= limit or time.monotonic() - begun > MOST_SECONDS:
                break
        self.next_offset = end or None
        return None

    def _first_start(self, offset: int) -> int:
        return first_start(self._fd, self._index, self._extent, offset)

    def _look(self, start: int, end: int, *, last: bool) -> Found | None:
        data = os.pread(self._fd, min(end - start, PIECE_BYTES + LINE_BYTES), start)
        piece = start // PIECE_BYTES
        in_key = self._redacted_to == start and self._redaction and self._redaction.in_key
        if not in_key and self._index.clean.has(piece, self._moment):
            texts = None
            at, number = self._find(data, last=last)
            if self._redacted_to == start:
                self._redacted_to = end
        else:
            texts = self._redact(data, start, end)
            at, number = self._find("\n".join(texts).encode("utf-8", "replace"), last=last)
        if at < 0:
            return None
        offset = start + behind_line_end(data, number)
        behind = min(end, start + behind_line_end(data, number + 1))
        if texts is None:
            line = os.pread(self._fd, behind - offset, offset)
            text = (Redaction(self._fd, offset).lines(line) or [""])[0]
            if self._find(text.encode("utf-8", "replace"), last=last)[0] < 0:
                # It has been written over since it was clean.
                self._index.clean.note(piece, self._moment, is_clean=False)
                return self._look(start, end, last=last)
        else:
            text = texts[number]
        self.next_offset = offset if last else behind
        return Found(self._index.ends_before(self._fd, offset) + 1, offset, self._excerpt(text))

    def _find(self, data: bytes, *, last: bool) -> tuple[int, int]:
        """Where it stands, and in which line, the first being 0."""
        folded = self._wanted.fold(data)
        at = self._wanted.find(folded, last=last)
        return at, folded.count(b"\n", 0, max(0, at))

    def _redact(self, data: bytes, start: int, end: int) -> list[str]:
        redaction = self._redaction
        if redaction is None or self._redacted_to != start:
            redaction = Redaction(self._fd, start)
        began_in_key = redaction.in_key
        whole, rest = data, b""
        if len(data) < end - start:  # the last line is too long to be read, or the file was cut
            whole, rest = data[: data.rfind(b"\n") + 1], data[data.rfind(b"\n") + 1 :]
        texts = redaction.lines(whole)
        self._redaction, self._redacted_to = redaction, end
        if rest:
            texts.append(redaction.beginning(rest))
            self._redaction = None
        elif self._is_piece(start, end):
            is_clean = not (began_in_key or redaction.in_key) and texts == _plain(whole)
            self._index.clean.note(start // PIECE_BYTES, self._moment, is_clean=is_clean)
        return texts

    def _is_piece(self, start: int, end: int) -> bool:
        """Whether these are all lines that begin in a piece, and will be."""
        border = start // PIECE_BYTES * PIECE_BYTES
        return (
            end < self._extent.end
            and start == self._index.start_from(self._fd, border)
            and end == self._index.start_from(self._fd, border + PIECE_BYTES)
        )

    def _excerpt(self, text: str) -> str:
        if len(text) <= SHOWN_CHARACTERS:
            return text
        folded = self._wanted.fold(text.encode("utf-8", "replace"))
        before = folded[: max(0, self._wanted.find(folded))].decode("utf-8", "replace")
        begin = max(0, min(len(before) - _BEFORE, len(text) - SHOWN_CHARACTERS))
        return text[begin : begin + SHOWN_CHARACTERS]


def _plain(data: bytes) -> list[str]:
    lines = data.decode("utf-8", "replace").removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines] if data else []
