"""A file of a run as it grows: redacted text in bounded pieces, from any place on.

A place is the offset of a line at which the redaction needs no line before
it, and how many characters of what follows have been given already.  Both are
facts of the file alone, so a client may go on from there after a restart of
the server.  It is written `1234`, or `1234+56`.
"""

from __future__ import annotations

import codecs
import io
import os

from lib import files, redact

PIECE_BYTES = 64 << 10
MARGIN_BYTES = 16 << 10  # read before the first text given: a private key is not longer

Place = tuple[int, int]


def parse_place(text: str) -> Place | None:
    """The place that is written so; None for anything else."""
    offset, plus, count = text.partition("+")
    count = count if plus else "0"
    is_number = all(
        part.isascii() and part.isdigit() and len(part) < 16 for part in (offset, count)
    )
    return (int(offset), int(count)) if is_number else None


class Tail:
    """What a file holds from a place on; it may be missing yet.

    One that is replaced is given to its end, then the new one from its
    beginning.  One that was cut is given from its beginning, unless
    `keeps_place`: a transcript that is rendered anew tells the same again.
    """

    def __init__(self, path: str, place: Place = (0, 0), *, keeps_place: bool = False) -> None:
        self.path = path
        self._keeps_place = keeps_place
        self._inode = 0
        self._restart(*place)

    _device = 0

    def _restart(self, offset: int = 0, skip: int = 0) -> None:
        self._offset = self._anchor = offset
        self._given = 0  # characters behind the anchor that the redaction has let out
        self._skip = skip
        self._early = ""  # given of the unfinished line, which will come once more
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # A carriage return ends a line for a client, and CR LF is not to end two.
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._redaction = redact.Stream()

    @property
    def place(self) -> str:
        """Behind what was given so far."""
        count = self._given + len(self._early)
        return f"{self._anchor}+{count}" if count else str(self._anchor)

    def begin_near_end(self, most_bytes: int) -> int:
        """Begin with a line so far before the end at most; how many bytes are left out."""
        fd = self._open()
        if fd is None:
            return 0
        try:
            status = os.fstat(fd)
            start = status.st_size - most_bytes
            if start <= MARGIN_BYTES:
                return 0
            margin = from_line(os.pread(fd, MARGIN_BYTES, start - MARGIN_BYTES))
        finally:
            os.close(fd)
        self._restart(start - len(margin))
        self._inode, self._device = status.st_ino, status.st_dev
        self._feed(margin)
        return self._anchor

    def take(self) -> str:
        """The next piece, "" at the end of the file; OSError for what is no regular file."""
        fd = self._open()
        if fd is None:
            return ""
        try:
            status = os.fstat(fd)
            is_another = (status.st_ino, status.st_dev) != (self._inode, self._device)
            if is_another and (rest := self._change_file(fd, status)):
                return rest
            if status.st_size < self._offset and not self._keeps_place:
                self._restart()
            while data := os.pread(fd, PIECE_BYTES, self._offset):
                if text := self._feed(data):
                    return text
        finally:
            os.close(fd)
        return ""

    def _open(self) -> int | None:
        try:
            return files.open_regular(self.path)
        except FileNotFoundError:
            return None

    def _change_file(self, fd: int, status: os.stat_result) -> str:
        """What is left of the file before, if there was one."""
        rest = ""
        if self._inode:
            rest = self.finish()
            self._restart()
        elif not _is_place(fd, self._offset):  # it is none of ours, or of another file
            self._restart()
        self._inode, self._device = status.st_ino, status.st_dev
        return rest

    def _feed(self, data: bytes) -> str:
        text = self._redaction.feed(self._decoder.decode(data))
        # The last byte may be half of a line's end.
        end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1
        if end and not self._redaction.in_key:
            self._anchor = self._offset + end
            self._given = len(text) - text.rfind("\n") - 1
        else:
            self._given += len(text)
        self._offset += len(data)
        return self._out(self._without_early(text))

    def _without_early(self, text: str) -> str:
        if not (text and self._early):
            return text
        common = 0
        for mine, theirs in zip(text, self._early, strict=False):
            if mine != theirs:
                break
            common += 1
        self._early = self._early[common:] if common == len(text) else ""
        return text[common:]

    def _out(self, text: str) -> str:
        skip = min(self._skip, len(text))
        self._skip -= skip
        return text[skip:]

    def peek(self) -> str:
        """The whole words of a line that its writer has not finished, as far as they are new."""
        words = self._redaction.peek()
        if not words.startswith(self._early) or len(words) == len(self._early):
            return ""
        new, self._early = words[len(self._early) :], words
        return self._out(new)

    def finish(self) -> str:
        """What was kept back: nothing will follow."""
        text = self._redaction.feed(self._decoder.decode(b"", True)) + self._redaction.finish()
        text = self._without_early(text)
        self._anchor, self._given, self._early = self._offset, 0, ""
        return self._out(text)


def _is_place(fd: int, offset: int) -> bool:
    """Whether a line begins there that no private key goes on in: from elsewhere on, half of a
    secret would not be known as one."""
    if offset == 0:
        return True
    if offset > os.fstat(fd).st_size:
        return False
    start = max(0, offset - MARGIN_BYTES)
    before = os.pread(fd, offset - start, start)
    if before[-1:] not in (b"\n", b"\r"):
        return False
    redaction = redact.Stream()
    redaction.feed((before if start == 0 else from_line(before)).decode("utf-8", "replace"))
    return not redaction.in_key


def from_line(data: bytes) -> bytes:
    """Without the line, or at least the word, that was cut at its beginning."""
    cut = data.find(b"\n") + 1
    return data[cut:] if cut else redact.behind_gap(data.decode("latin-1")).encode("latin-1")


class Page:
    """Whole lines of a file, redacted: `text` is what stands from `start` to `end`, of `size`."""

    def __init__(self, fd: int, offset: int, limit: int, *, is_whole: bool) -> None:
        """About `limit` bytes, from the first line that begins at `offset` or behind it.

        A negative offset counts from the end.  A last line without an end is
        given only if `is_whole`: nobody writes on.
        """
        self.size = os.fstat(fd).st_size
        offset = max(0, self.size + offset) if offset < 0 else min(offset, self.size)
        before = max(0, offset - MARGIN_BYTES)
        data = os.pread(fd, offset - before + limit, before)
        at = offset - before
        if at and data[at - 1] != 0x0A:
            at = data.find(b"\n", at) + 1 or len(data)
        end = max(at, data.rfind(b"\n") + 1)
        if is_whole and before + len(data) >= self.size:
            end = len(data)
        elif end == at and len(data) - at >= limit:  # a giant line: as much of it as can be
            end = at + len(redact.before_gap(data[at:].decode("latin-1")))
        self.start, self.end = before + at, before + end
        redaction = redact.Stream()
        margin = data[:at] if before == 0 else from_line(data[:at])
        redaction.feed(margin.decode("utf-8", "replace"))
        self.text = redaction.feed(data[at:end].decode("utf-8", "replace"))
        self.text += redaction.finish()
