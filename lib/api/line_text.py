"""Lines of a file as text, each redacted in its own place, and pages of them."""

from __future__ import annotations

import os

from lib import redact
from lib.api.file_tail import MARGIN_BYTES, from_line
from lib.api.line_index import LineIndex

CUT_CHARACTERS = 20_000  # of a line are shown
# As much of an endless line as its redaction lets out CUT_CHARACTERS of.
_BEGINNING_BYTES = 4 * (redact.HOLD_LIMIT + redact.MAX_TOKEN)
_PIECE = 1 << 16  # characters: while one look at more lasts, no other thread does anything
_KEY = "PRIVATE KEY-----"  # the one secret of several lines


class Redaction:
    """Redacts lines one behind the other, from the one on that begins at `offset`.

    What stands before it tells whether a private key goes on there.
    """

    def __init__(self, fd: int, offset: int) -> None:
        self._stream = redact.Stream()
        start = max(0, offset - MARGIN_BYTES)
        before = os.pread(fd, offset - start, start)
        text = (from_line(before) if start else before).decode("utf-8", "replace")
        self._stream.feed(text if text.endswith("\n") else f"{text}\n")

    @property
    def in_key(self) -> bool:
        """Whether the next line may belong to a private key."""
        return self._stream.in_key

    def lines(self, data: bytes) -> list[str]:
        """These lines without their ends; nobody writes on at the last one."""
        text = data.decode("utf-8", "replace")
        if not text:
            return []
        lines = text.removesuffix("\n").split("\n")
        if self._stream.in_key or _KEY in text:
            # Of a key one mark is left: only line by line it is known where that belongs.
            found = [self._feed(f"{line}\n").replace("\n", "") for line in lines]
        else:
            found = self._feed(text if text.endswith("\n") else f"{text}\n").split("\n")[:-1]
        return [line.removesuffix("\r") for line in found]

    def beginning(self, data: bytes) -> str:
        """As much as can be told of a line of which more follows; nothing can come behind it."""
        return self._feed(data.decode("utf-8", "replace"))

    def _feed(self, text: str) -> str:
        feed = self._stream.feed
        return "".join([feed(text[at : at + _PIECE]) for at in range(0, len(text), _PIECE)])


class Extent:
    """How far the lines of a file go that can be given: `end` is behind the last of `count`.

    A last line without its end is one of them if `is_whole`: nobody writes on.
    """

    def __init__(self, fd: int, index: LineIndex, *, is_whole: bool) -> None:
        self.size, self.count = index.size, index.ends
        self.end = index.start_of(fd, self.count)
        if is_whole and self.size > self.end:
            self.end = self.size
            self.count += 1


class Lines:
    """Some lines of a file: `texts`, from byte `start` to `end`; `first` is the number of the first.

    `cut` are the places in `texts` of lines that go on.  Made by one of the four functions
    below: about `limit` bytes of whole lines, and one line at least where there is one.
    """

    def __init__(self, fd: int, index: LineIndex, start: int, end: int) -> None:
        self.start, self.end = start, max(start, end)
        self.first = index.ends_before(fd, start) + 1
        self.texts: list[str] = []
        self.cut: list[int] = []
        redaction = Redaction(fd, start)
        if self._is_endless(fd, index):
            beginning = os.pread(fd, _BEGINNING_BYTES, start)
            self._add([redaction.beginning(beginning)])
            self.cut = [0]
            return
        data = os.pread(fd, self.end - start, start)
        if len(data) < self.end - start:  # the file was cut a moment ago
            data = data[: data.rfind(b"\n") + 1]
            self.end = start + len(data)
        self._add(redaction.lines(data))

    def _is_endless(self, fd: int, index: LineIndex) -> bool:
        """Whether it is but one line, too long to be read."""
        if self.end - self.start <= _BEGINNING_BYTES:
            return False
        return not self.start < index.start_from(fd, self.start + 1) < self.end

    def _add(self, texts: list[str]) -> None:
        self.cut = [at for at, text in enumerate(texts) if len(text) > CUT_CHARACTERS]
        self.texts = [text[:CUT_CHARACTERS] for text in texts]


def lines_from(fd: int, index: LineIndex, extent: Extent, offset: int, limit: int) -> Lines:
    """From the first line on that begins at that byte, or behind it."""
    start = first_start(fd, index, extent, offset)
    end = extent.end
    if start + limit < end:
        end = index.start_before(fd, start + limit)
        if end <= start:
            end = first_start(fd, index, extent, start + 1)
    return Lines(fd, index, start, min(end, extent.end))


def lines_from_number(fd: int, index: LineIndex, extent: Extent, number: int, limit: int) -> Lines:
    """From the line of that number on, the first being 1."""
    is_there = number <= extent.count
    start = index.start_of(fd, number - 1) if is_there else extent.end
    return lines_from(fd, index, extent, start, limit)


def lines_before(fd: int, index: LineIndex, extent: Extent, offset: int, limit: int) -> Lines:
    """The last lines that end at that byte, or before it."""
    end = extent.end if offset >= extent.end else index.start_before(fd, offset)
    start = 0
    if end > limit:
        start = index.start_from(fd, end - limit)
        if not end - limit <= start < end:
            start = index.start_before(fd, end - 1)
    return Lines(fd, index, start, end)


def last_lines(fd: int, index: LineIndex, extent: Extent, limit: int) -> Lines:
    return lines_before(fd, index, extent, extent.end, limit)


def first_start(fd: int, index: LineIndex, extent: Extent, offset: int) -> int:
    """The first line start at that byte or behind it; the end of all lines where there is none."""
    found = index.start_from(fd, offset)
    return found if offset <= found <= extent.end else extent.end
