"""A file of a run as a person reads it: wrapped to the screen, followed, searched.

Memory is bounded: of a long file its end is kept.  What comes in is redacted
and harmless already (lib/shown.py).
"""

from __future__ import annotations

import os
from bisect import bisect_left

from lib import redact, runs, shown
from lib.errors import UserError
from lib.index_entries import RunEntry
from lib.textual import cut

FILES = (runs.TRANSCRIPT, runs.STDERR, runs.STDOUT, runs.OUTPUT, runs.PROMPT)
KEPT_LINES, KEPT_CHARACTERS = 10_000, 8 << 20
LINE_LIMIT = 20_000  # characters of one line
BEHIND_BYTES = 4 << 20  # grown more than that since the last look: the end is read, not all of it
CUT_MARK = "… what is older is not shown here"


class Pager:
    """Lines, broken into rows of a screen, and the place at which one reads.

    `top` is the first row on the screen.  While `follows`, that is so chosen
    that the newest row is the last one.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.follows = False
        self.needle = ""
        self.top = 0
        self._first = 0  # number of the oldest line that is kept
        self._lines: list[str] = []
        self._rows: list[tuple[int, str]] = []  # number of the line, and a piece of it
        self._characters = 0
        self._match = -1  # number of the line that was found last
        self._columns = 80
        self._height = 1

    def add(self, lines: list[str]) -> None:
        """Put lines at the end."""
        number = self._first + len(self._lines)
        shortened = [line[:LINE_LIMIT].expandtabs(4) for line in lines[-KEPT_LINES:]]
        self._lines += shortened
        self._characters += sum(map(len, shortened))
        for offset, line in enumerate(shortened):
            self._rows += _broken(number + offset, line, self._columns)
        self._forget()
        self._settle()

    def clear(self) -> None:
        self._lines, self._rows, self.top = [], [], 0
        self._first = self._characters = 0
        self._match = -1

    def _forget(self) -> None:
        """Drop the oldest lines, many at once, for that costs as much as a few."""
        surplus = len(self._lines) - KEPT_LINES
        if surplus <= KEPT_LINES // 4 and self._characters <= KEPT_CHARACTERS:
            return
        surplus = max(surplus, len(self._lines) // 4)
        self._characters -= sum(map(len, self._lines[:surplus]))
        del self._lines[:surplus]
        self._first += surplus
        gone = bisect_left(self._rows, (self._first, ""))
        del self._rows[:gone]
        self.top = max(0, self.top - gone)

    @property
    def is_empty(self) -> bool:
        return not self._lines

    def fit(self, columns: int, height: int) -> None:
        """Take the size of the screen; the line at the top stays there."""
        self._height = max(1, height)
        if columns != self._columns:
            self._columns = max(1, columns)
            at = self._rows[self.top][0] if self.top < len(self._rows) else 0
            self._rows = [
                row
                for number, line in enumerate(self._lines, self._first)
                for row in _broken(number, line, self._columns)
            ]
            self.top = bisect_left(self._rows, (at, ""))
        self._settle()

    def _settle(self) -> None:
        most = max(0, len(self._rows) - self._height)
        self.top = most if self.follows else min(max(0, self.top), most)

    def scroll(self, rows: int) -> None:
        """Move; upwards ends the following, and the end takes it up again by `end` alone."""
        if rows < 0:
            self.follows = False
        self._match = -1
        self.top += rows
        self._settle()

    def page(self, pages: int) -> None:
        self.scroll(pages * max(1, self._height - 1))

    def home(self) -> None:
        self.follows = False
        self.top = 0

    def end(self) -> None:
        self.follows = True
        self._settle()

    def search(self, needle: str) -> bool:
        """Go to the next line with that text, whatever its case; False when there is none."""
        self.needle, self._match = needle.lower(), -1
        return self.next_match(1)

    def next_match(self, direction: int) -> bool:
        """Go to the next match below (1) or above (-1) the line at the top, and around the end."""
        if not self.needle or not self._lines:
            return False
        count = len(self._lines)
        begin = self._match - self._first if self._match >= self._first else self._index_of_top()
        # From where one reads: that line itself only while nothing was found yet.
        for step in range(self._match >= self._first, count + 1):
            index = (begin + direction * step) % count
            if self.needle in self._lines[index].lower():
                self._go_to(self._first + index)
                return True
        return False

    def _index_of_top(self) -> int:
        return self._rows[self.top][0] - self._first if self.top < len(self._rows) else 0

    def _go_to(self, number: int) -> None:
        self.follows = False
        self._match = number
        self.top = bisect_left(self._rows, (number, ""))
        self._settle()

    def rows(self) -> list[tuple[str, bool]]:
        """The rows on the screen, and whether each is of a line that was searched for."""
        shown_rows = self._rows[self.top : self.top + self._height]
        return [(text, self._matches(number)) for number, text in shown_rows]

    def _matches(self, number: int) -> bool:
        return bool(self.needle) and self.needle in self._lines[number - self._first].lower()

    def place(self) -> str:
        """`12-34 of 56`, in rows."""
        last = min(len(self._rows), self.top + self._height)
        return f"{min(self.top + 1, last)}-{last} of {len(self._rows)}"


class RunReader(Pager):
    """A pager that reads on in a file of a run."""

    def __init__(self, entry: RunEntry) -> None:
        super().__init__(redact.one_line(entry.run.run_id))
        self.entry = entry
        self._number = 0
        self._open()

    @property
    def file_name(self) -> str:
        return FILES[self._number]

    def turn(self, step: int) -> None:
        """Read the next file of the run."""
        self._number = (self._number + step) % len(FILES)
        self._open()

    def _open(self) -> None:
        self.clear()
        self.needle = ""
        self.follows = True
        path = self.entry.run.file(self.file_name)
        self._growing = shown.Growing(path)
        self._rest = ""
        self._is_finished = False
        self.problem = ""
        try:
            lines = (self._growing.begin(KEPT_LINES)).split("\n")
        except (UserError, OSError) as error:
            self.problem = str(error)
            return
        self._rest = lines.pop()
        self._size = _size(path)
        if len(lines) > KEPT_LINES or self._size > shown.WINDOW_BYTES[1]:
            lines = [CUT_MARK, *lines[-KEPT_LINES + 1 :]]
        self.add(lines)
        self.read()
        if not self.entry.is_live:
            self.home()

    def read(self) -> bool:
        """Take in what is new; True when there was something."""
        if self.problem or self._is_finished:
            return False
        is_live = self.entry.is_live  # before the content: what came before its end is then there
        before = len(self._lines), self._first
        size = _size(self._growing.path)
        try:
            if size - self._size > BEHIND_BYTES:
                text = self._skip()
            else:
                pieces: list[str] = []
                self._growing.copy(pieces.append)
                text = "".join(pieces)
        except (UserError, OSError) as error:
            self.problem = str(error)
            return True
        self._size = size
        self._take(text)
        if not is_live:
            self._finish()
        return before != (len(self._lines), self._first)

    def _skip(self) -> str:
        self.add([*([self._rest] if self._rest else []), CUT_MARK])
        self._rest = ""
        return self._growing.begin(KEPT_LINES // 2)

    def _take(self, text: str) -> None:
        if not text:
            return
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_LIMIT:
            lines.append(self._rest)
            self._rest = ""
        self.add(lines)

    def _finish(self) -> None:
        """The run has ended: nothing more of an unfinished line will come."""
        self._is_finished = True
        rest = self._rest + self._growing.finish()
        self._rest = ""
        if rest:
            self.add([rest])


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _broken(number: int, line: str, columns: int) -> list[tuple[int, str]]:
    """The rows of a line; no character is cut in two, and each row is as full as it can be."""
    if line.isascii():
        pieces = [line[at : at + columns] for at in range(0, len(line), columns)] or [""]
        return [(number, piece) for piece in pieces]
    rows = []
    while (piece := cut(line, columns)) != line:
        piece = piece or line[:1]  # wider than the screen
        rows.append((number, piece))
        line = line[len(piece) :]
    return [*rows, (number, line)]
