"""Where the lines of a file begin, without keeping that: line ends are counted once, block by block.

Of each block it is known how many lines end before it; what lies inside is looked up in the
file.  A file that grows is counted on; one that was cut, or is another one by now, gets a new
index.  A line ends at "\\n" and nowhere else.
"""

from __future__ import annotations

import os
import threading
from array import array
from bisect import bisect_left

BLOCK_BYTES = 64 << 10  # of a small file; doubled whenever there are too many blocks
MOST_BLOCKS = 16 << 10
KEPT_FILES = 128
MOST_PIECES = 64 << 10  # of which is kept whether they are clean
COUNT_BYTES = 8 << 30  # that one call counts at most
_READ_BYTES = 1 << 20
_NEAR_BYTES = 4096  # within which most lines end
_PROBE_BYTES = 64  # at both ends of what was counted: another text has others there

Identity = tuple[int, int]


class LineIndex:
    """The lines of one file, up to `size`; `ends` are the line ends in it.

    Every method reads from the descriptor that it is given, which is to be of this file.  What is
    cut meanwhile makes an answer wrong, never an error.  Threads may share it.
    """

    def __init__(self, identity: Identity = (0, 0), *, block_bytes: int = BLOCK_BYTES) -> None:
        self.identity = identity
        self.size = 0
        self.ends = 0
        self.clean = CleanPieces()
        self._block_bytes = block_bytes
        self._before = array("Q", [0])  # line ends before each block
        self._head = self._tail = b""
        self._modified_ns = 0
        self._lock = threading.Lock()

    def continues(self, fd: int) -> bool:
        """Whether the file is still the one that was counted, perhaps with more behind it."""
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self.identity:
            return False
        with self._lock:
            if status.st_size == self.size and status.st_mtime_ns != self._modified_ns:
                return False  # written over in its place
            start = self.size - len(self._tail)
            return (
                os.pread(fd, len(self._head), 0) == self._head
                and os.pread(fd, len(self._tail), start) == self._tail
            )

    def count(self, fd: int, most_bytes: int = COUNT_BYTES) -> bool:
        """Count what is new, `most_bytes` of it at most; True when that was all."""
        with self._lock:
            status = os.fstat(fd)
            self._modified_ns = status.st_mtime_ns
            limit = min(status.st_size, self.size + most_bytes)
            before = self.size
            buffer = bytearray(min(_READ_BYTES, max(0, limit - self.size)))
            while self.size < limit:
                view = memoryview(buffer)[: limit - self.size]
                got = (
                    os.preadv(fd, [view], self.size) if _HAS_PREADV else _pread(fd, view, self.size)
                )
                if not got:
                    break
                self._take(buffer, got)
            if self.size != before:
                self._head = self._head or os.pread(fd, min(_PROBE_BYTES, self.size), 0)
                start = max(0, self.size - _PROBE_BYTES)
                self._tail = os.pread(fd, self.size - start, start)
            return self.size >= limit == status.st_size

    def _take(self, buffer: bytearray, got: int) -> None:
        at = 0
        while at < got:
            step = min(got - at, self._block_bytes - self.size % self._block_bytes)
            self.ends += buffer.count(b"\n", at, at + step)
            at += step
            self.size += step
            if self.size % self._block_bytes == 0:
                self._before.append(self.ends)
                if len(self._before) > MOST_BLOCKS:
                    self._before = self._before[::2]
                    self._block_bytes *= 2

    def ends_before(self, fd: int, offset: int) -> int:
        """How many lines end before that byte: the number of the line there, the first being 0."""
        with self._lock:
            return self._ends_before(fd, min(offset, self.size))

    def _ends_before(self, fd: int, offset: int) -> int:
        block = offset // self._block_bytes
        start = block * self._block_bytes
        return self._before[block] + _read(fd, start, offset).count(b"\n")

    def start_of(self, fd: int, number: int) -> int:
        """Where that line begins, the first being 0; behind the last line end where it is none."""
        with self._lock:
            return self._start_of(fd, min(number, self.ends))

    def _start_of(self, fd: int, number: int) -> int:
        if number <= 0:
            return 0
        block = bisect_left(self._before, number) - 1  # the last one before which fewer end
        start = block * self._block_bytes
        data = _read(fd, start, min(start + self._block_bytes, self.size))
        return start + behind_line_end(data, number - self._before[block])

    def start_from(self, fd: int, offset: int) -> int:
        """The first line start at that byte or behind it; where none is known, that of the last."""
        if offset <= 0:
            return 0
        with self._lock:
            offset = min(offset, self.size)
            near = os.pread(fd, min(_NEAR_BYTES, self.size - offset + 1), offset - 1)
            found = near.find(b"\n")
            if found >= 0:
                return offset + found
            return self._start_of(fd, min(self._ends_before(fd, offset - 1) + 1, self.ends))

    def start_before(self, fd: int, offset: int) -> int:
        """The last line start at that byte or before it."""
        with self._lock:
            return self._start_of(fd, self._ends_before(fd, min(max(0, offset), self.size)))


_HAS_PREADV = hasattr(os, "preadv")  # not everywhere, as on older macOS


def _pread(fd: int, view: memoryview, offset: int) -> int:
    data = os.pread(fd, len(view), offset)
    view[: len(data)] = data
    return len(data)


def _read(fd: int, start: int, end: int) -> bytes:
    return os.pread(fd, max(0, end - start), start)


def behind_line_end(data: bytes, number: int) -> int:
    """The place behind that line end, the first being 1; the end of `data` where it has fewer."""
    low, high = 0, len(data)
    while high - low > 1024:  # of a block of empty lines, too
        middle = (low + high) // 2
        count = data.count(b"\n", low, middle)
        if number <= count:
            high = middle
        else:
            number, low = number - count, middle
    for _ in range(number):
        found = data.find(b"\n", low)
        if found < 0:
            return len(data)
        low = found + 1
    return low


class CleanPieces:
    """Which pieces of a file hold no secret: they are as they would be redacted.

    Known as of a `moment`: that of lib/redact, which is another when more is secret.
    """

    def __init__(self) -> None:
        self._moment = -1
        self._flags = bytearray()
        self._lock = threading.Lock()

    def has(self, piece: int, moment: int) -> bool:
        flags = self._flags
        return moment == self._moment and piece < len(flags) and bool(flags[piece])

    def note(self, piece: int, moment: int, *, is_clean: bool) -> None:
        if piece >= MOST_PIECES:
            return
        with self._lock:
            if moment > self._moment:
                self._moment, self._flags = moment, bytearray()
            if moment == self._moment:
                self._flags.extend(bytes(max(0, piece + 1 - len(self._flags))))
                self._flags[piece] = is_clean


class LineIndexes:
    """The indexes of the files that were asked for last."""

    def __init__(self, kept_files: int = KEPT_FILES) -> None:
        self._kept_files = kept_files
        self._known: dict[str, LineIndex] = {}  # by path, what was asked for last, last
        self._lock = threading.Lock()

    def of(self, path: str, fd: int) -> LineIndex:
        """The index of the file at that path, open as `fd`: the known one as far as it goes on."""
        known = self._known.get(path)
        if known is None or not known.continues(fd):  # which may have to wait: not under the lock
            status = os.fstat(fd)
            known = LineIndex((status.st_dev, status.st_ino))
        with self._lock:
            self._known.pop(path, None)
            self._known[path] = known
            while len(self._known) > self._kept_files:
                self._known.pop(next(iter(self._known)))
            return known
