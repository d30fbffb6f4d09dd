"""The two outputs of a run as events of a log stream, line by line.

A place in a run is (s, e): so many lines of stdout and of stderr are behind
the reader.  What line n says hangs on the file alone, not on who reads it, when,
and from where: a reader who begins in the middle first goes over what is
before, since a private key may have begun there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from lib import files, ids, redact, runs
from lib.api.exchange import encode

PIECE_BYTES = 256 << 10  # read at once
PIECE_LINES = 1000  # short ones grow tenfold when they become events
MAX_LINE = PIECE_BYTES  # bytes; what a line has more is left out
CUT = f" [cut: the line is longer than {MAX_LINE >> 10} KiB]"
MARK_BYTES = 4 << 20  # so far apart lie the places from which reading may begin

Place = tuple[int, int]
START: Place = (0, 0)
_STREAMS = ("stdout", "stderr")
_text = json.JSONEncoder(ensure_ascii=False).encode


class _Mark(NamedTuple):
    """Where a line begins outside of a private key, and how many are before it."""

    lines: int
    offset: int


class Output:
    """One of the outputs, read onwards; no descriptor stays open."""

    __slots__ = ("_file", "_inode", "_redaction", "_searched", "lines", "marks", "offset", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines = 0  # complete ones that are behind
        self.offset = 0  # where the next one begins
        self.marks: list[_Mark] = []
        self._searched = 0  # up to there an overlong line has no end
        self._inode = 0
        self._redaction = redact.Stream()

    def take(self) -> list[str]:
        """The next complete lines, redacted, from PIECE_BYTES at most; [] when there is none."""
        fd = self._open()
        if fd < 0:
            return []
        try:
            data = os.pread(fd, PIECE_BYTES, self.offset)
            end = data.rfind(b"\n") + 1
            if end:
                if data.count(b"\n", 0, end) > PIECE_LINES:
                    end = _end_of_line(data, PIECE_LINES)
                found = self._redacted(data[:end])
            elif len(data) < PIECE_BYTES:
                self._searched = self.offset + len(data)
                return []
            elif (end := self._end_of_overlong(fd)) < 0:
                return []
            else:
                found = self._redacted(_cut(data) + b"\n")
        finally:
            os.close(fd)
        self._go_on(end, len(found))
        return found

    def take_unfinished(self) -> list[str]:
        """The line that no line feed ends, as one; for a run that is over."""
        fd = self._open()
        if fd < 0:
            return []
        try:
            data = os.pread(fd, PIECE_BYTES, self.offset)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        if not data or b"\n" in data:
            return []
        found = self._redacted((_cut(data) if len(data) == PIECE_BYTES else data) + b"\n")
        self._go_on(max(size - self.offset, len(data)), 1)
        return found

    def skip(self, lines: int, end: int) -> None:
        """Go over complete lines: until so many are behind, or the next would end behind `end`."""
        fd = self._open()
        if fd < 0:
            return
        try:
            while self.lines < lines and self.offset < end:
                if not self._skip_piece(fd, lines, end):
                    break
        finally:
            os.close(fd)

    def start_at(self, marks: list[_Mark], lines: int) -> None:
        """Begin at the last of these marks that is not behind that line."""
        for mark in reversed(marks):
            if mark.lines <= lines:
                self.lines, self.offset = mark
                return

    def has_more(self) -> bool:
        """Whether there is anything behind what was taken, a complete line or not."""
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        is_same = self._inode in (0, status.st_ino)
        return not is_same or status.st_size != max(self.offset, self._searched)

    def _open(self) -> int:
        """-1 where there is nothing to read; a file that was cut or replaced begins anew."""
        try:
            fd = files.open_regular(self.path)
        except OSError:
            return -1
        status = os.fstat(fd)
        if status.st_size < self.offset or self._inode not in (0, status.st_ino):
            self.lines = self.offset = self._searched = 0
            self.marks.clear()
            self._redaction = redact.Stream()
        self._inode = status.st_ino
        return fd

    def _redacted(self, data: bytes) -> list[str]:
        """One line for each of `data`; what is inside of a private key is redacted as a whole."""
        text = data.decode("utf-8", "replace")
        if not self._redaction.in_key and "PRIVATE KEY-----" not in text:
            rows = redact.text(text).split("\n")
            del rows[-1]
        else:
            rows = [
                self._redaction.feed(f"{row}\n").removesuffix("\n") or (row and redact.MARK)
                for row in text.split("\n")[:-1]
            ]
        return [row.removesuffix("\r") for row in rows]

    def _end_of_overlong(self, fd: int) -> int:
        """How many bytes the line has with its line feed; -1 while that is not there."""
        at = max(self._searched, self.offset + PIECE_BYTES)
        while data := os.pread(fd, 1 << 20, at):
            end = data.find(b"\n")
            if end >= 0:
                return at + end + 1 - self.offset
            at += len(data)
        self._searched = at
        return -1

    def _go_on(self, size: int, lines: int) -> None:
        self.offset += size
        self.lines += lines
        self._searched = 0
        last = self.marks[-1].offset if self.marks else 0
        if self.offset - last >= MARK_BYTES and not self._redaction.in_key:
            self.marks.append(_Mark(self.lines, self.offset))

    def _skip_piece(self, fd: int, lines: int, limit: int) -> bool:
        """Go over the lines of a piece; False when there is none that counts."""
        data = os.pread(fd, min(PIECE_BYTES, limit - self.offset), self.offset)
        end = data.rfind(b"\n") + 1
        if not end:
            return self._skip_overlong(fd, data, limit)
        is_plain = not self._redaction.in_key and b"PRIVATE KEY-----" not in data
        count = data.count(b"\n", 0, end)
        if self.lines + count > lines:
            count = lines - self.lines
            end = _end_of_line(data, count)
        if not is_plain:
            self._redacted(data[:end])
        self._go_on(end, count)
        return True

    def _skip_overlong(self, fd: int, data: bytes, limit: int) -> bool:
        size = self._end_of_overlong(fd) if len(data) == PIECE_BYTES else -1
        if size < 0 or self.offset + size > limit:
            return False
        if self._redaction.in_key or b"PRIVATE KEY-----" in data:
            self._redacted(_cut(data) + b"\n")
        self._go_on(size, 1)
        return True


def _cut(data: bytes) -> bytes:
    """The beginning of an overlong line, without a last word that may be half a token."""
    text = data.decode("utf-8", "replace")
    return (redact.before_gap(text) + CUT).encode()


def _end_of_line(data: bytes, count: int) -> int:
    """Where the first `count` lines end."""
    at = 0
    for _ in range(count):
        at = data.index(b"\n", at) + 1
    return at


@lru_cache(4096)
def whose(run_id: str, project: str, task: str) -> str:
    """The first fields of the data of an event, as JSON without the braces."""
    fields = {"run_id": run_id, "project_id": project, "task_id": task}
    shown = {name: value for name, value in fields.items() if value}
    return encode(redact.values(shown)).decode()[1:-1]


class RunLog:
    """A run's outputs, read onwards by one reader: pieces of events that follow one another."""

    def __init__(self, path: str, project: str, task: str) -> None:
        run = runs.Run(path, {})
        self.path = path
        self.outputs = (Output(run.file(runs.STDOUT)), Output(run.file(runs.STDERR)))
        fields = whose(run.run_id, project, task)
        self._heads = tuple(f'{{{fields},"stream":"{name}","line":' for name in _STREAMS)

    @property
    def place(self) -> Place:
        return self.outputs[0].lines, self.outputs[1].lines

    def sizes(self) -> list[int]:
        """Of the files as they are now, in bytes."""
        return [files.size(output.path) for output in self.outputs]

    def skip_to_end(self, sizes: list[int]) -> None:
        """Go over the complete lines within the first so many bytes of each output."""
        for output, size in zip(self.outputs, sizes, strict=True):
            output.skip(1 << 62, size)

    def skip_to_very_end(self) -> None:
        """Go over all lines, also one without an end, of a run that is over."""
        for output in self.outputs:
            output.skip(1 << 62, 1 << 62)
            output.take_unfinished()

    def start_at(self, place: Place, known: RunLog | None = None) -> None:
        """Go to a place; one behind the end is the end.  `known` is another reader of the run."""
        for number, output in enumerate(self.outputs):
            if known is not None:
                output.start_at(list(known.outputs[number].marks), place[number])
            output.skip(place[number], 1 << 62)
            if output.lines < place[number]:
                output.take_unfinished()  # it was sent as a line when the run was over

    def has_more(self) -> bool:
        return any(output.has_more() for output in self.outputs)

    def take(self, suffix: str, *, unfinished: bool = False) -> bytes:
        """The next events, some of stdout before some of stderr; b"" when there is no more.

        `suffix` goes behind the place in the id of each; `unfinished`: nothing
        but lines without an end, which count in a run that is over.
        """
        return b"".join([self._take(number, suffix, None, unfinished) for number in (0, 1)])

    def rest(self, suffix: str, until: Place | None) -> Iterator[bytes]:
        """All events up to `until`, stdout before stderr; None: of a run that is over, to its end."""
        for number in (0, 1):
            limit = None if until is None else until[number]
            for unfinished in (False, True):
                while data := self._take(number, suffix, limit, unfinished):
                    yield data
            if until is not None and number == 0:
                self.outputs[0].lines = min(self.outputs[0].lines, until[0])

    def _take(self, number: int, suffix: str, limit: int | None, unfinished: bool) -> bytes:
        output = self.outputs[number]
        if limit is not None and output.lines >= limit:
            return b""
        s, e = self.place
        lines = output.take_unfinished() if unfinished else output.take()
        if (s, e)[number] + len(lines) != output.lines:
            s, e = self.place  # it was cut, and begins anew
            s, e = (s - len(lines), e) if number == 0 else (s, e - len(lines))
        if limit is not None and output.lines > limit:
            del lines[limit - output.lines :]
        return self._events(number, lines, (s, e), suffix)

    def _events(self, number: int, lines: list[str], place: Place, suffix: str) -> bytes:
        if not lines:
            return b""
        s, e = place
        middle = f"{suffix}\nevent: log\ndata: {self._heads[number]}"
        tail = f',"timestamp":"{ids.rfc3339()}"}}\n\n'
        before, behind, first = ("s=", f";e={e}", s) if number == 0 else (f"s={s};e=", "", e)
        rows = [
            f"id: {before}{count}{behind}{middle}{_text(row)}{tail}"
            for count, row in enumerate(lines, first + 1)
        ]
        return "".join(rows).encode()
