"""A terminal for tests: a pty, and a small emulator that says what stands on its screen.

It knows what the live view uses and what programs print before and after it:
CSI A B C D G H J K m, ?25, ?7, ?1049 and ?2004, wrapping with a pending last
column, wide and combining characters, scrolling.  Anything else is remembered
as unknown.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")


class Screen:
    """The cells of a terminal; `history` are the lines that scrolled out at the top."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.history: list[str] = []
        self.unknown: list[str] = []
        self.wraps = 0  # how often a line went over the right edge
        self.cursor_shown = self.wrapping = True
        self.colour = ""
        self.colours: dict[int, str] = {}  # of each row, the last one that was set in it
        self.x = self.y = 0
        self.is_other = self.marks_pastes = False  # on the screen that full-screen programs use
        self._saved: tuple[list[list[str]], int, int] = ([], 0, 0)
        self._pending = False  # the last column is written, the next character wraps
        self._cells = [self._blank() for _ in range(rows)]
        self._rest = ""

    def _blank(self) -> list[str]:
        return [" "] * self.columns

    @property
    def lines(self) -> list[str]:
        """What can be read, without blanks at the ends."""
        return ["".join(row).rstrip() for row in self._cells]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def everything(self) -> str:
        return "\n".join([*self.history, *self.lines])

    def resize(self, columns: int, rows: int) -> None:
        """As xterm does it: lines are cut, not broken anew; the cursor's line stays visible."""
        while len(self._cells) > rows and self.y < len(self._cells) - 1:
            self._cells.pop()
        while len(self._cells) > rows:
            self.history.append("".join(self._cells.pop(0)).rstrip())
            self.y -= 1
        self.columns, self.rows = columns, rows
        self._cells = [(row + [" "] * columns)[:columns] for row in self._cells]
        self._cells += [self._blank() for _ in range(rows - len(self._cells))]
        self.x, self.y = min(self.x, columns - 1), max(0, self.y)
        self._pending = False

    def feed(self, text: str) -> None:
        text, self._rest = self._rest + text, ""
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                self._character(text[at])
                at += 1
                continue
            match = _CONTROL.match(text, at)
            if match:
                self._control(match.group(1), match.group(2), match.group(3))
                at = match.end()
            elif len(text) - at < 12 and not re.match(r"\x1b\[\??[0-9;]*[^0-9;?]", text[at:]):
                self._rest = text[at:]
                return
            else:
                self.unknown.append(text[at : at + 8])
                at += 1

    def _character(self, character: str) -> None:
        if character == "\n":
            self._line_feed()
        elif character == "\r":
            self.x, self._pending = 0, False
        elif character == "\t":
            self.x = min(self.columns - 1, self.x // 8 * 8 + 8)
        elif character < " " or character == "\x7f":
            self.unknown.append(repr(character))
        else:
            self._print(character)

    def _print(self, character: str) -> None:
        if unicodedata.category(character) in ("Mn", "Me", "Cf"):
            self._cells[self.y][max(0, self.x - 1)] += character
            return
        size = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self._pending or self.x + size > self.columns:
            self.wraps += 1
            if not self.wrapping:
                return
            self.x = 0
            self._line_feed()
        self._pending = False
        self._cells[self.y][self.x] = character
        if size == 2:
            self._cells[self.y][self.x + 1] = ""
        self.colours[self.y] = self.colour
        self.x += size
        if self.x >= self.columns:
            self.x, self._pending = self.columns - 1, True

    def _line_feed(self) -> None:
        self._pending = False
        if self.y < self.rows - 1:
            self.y += 1
            return
        self.history.append("".join(self._cells.pop(0)).rstrip())
        self._cells.append(self._blank())
        self.colours = {row - 1: colour for row, colour in self.colours.items()}

    def _control(self, private: str, numbers: str, letter: str) -> None:
        first = int(numbers.split(";")[0] or 0) if numbers else 0
        if private:
            self._mode(first, letter)
            return
        self._pending = False
        if letter == "A":
            self.y = max(0, self.y - max(1, first))
        elif letter == "H":
            parts = [int(part or 1) for part in numbers.split(";")] if numbers else [1, 1]
            self.y, self.x = parts[0] - 1, (parts[1] if len(parts) > 1 else 1) - 1
        elif letter == "K" and first == 0:
            self._cells[self.y][self.x :] = [" "] * (self.columns - self.x)
        elif letter == "J" and first == 0:
            self._cells[self.y][self.x :] = [" "] * (self.columns - self.x)
            self._cells[self.y + 1 :] = [self._blank() for _ in self._cells[self.y + 1 :]]
        elif letter == "m":
            self.colour = "" if first == 0 else numbers
        else:
            self.unknown.append(f"CSI {numbers}{letter}")

    def _mode(self, number: int, letter: str) -> None:
        if number == 25 and letter in "hl":
            self.cursor_shown = letter == "h"
        elif number == 7 and letter in "hl":
            self.wrapping = letter == "h"
        elif number == 2004 and letter in "hl":
            self.marks_pastes = letter == "h"
        elif number == 1049 and letter in "hl":
            self._change_screen(letter == "h")
        else:
            self.unknown.append(f"CSI ?{number}{letter}")

    def _change_screen(self, to_other: bool) -> None:
        """To the other screen, which is empty, or back to what was there before."""
        if to_other and not self.is_other:
            self._saved = [list(row) for row in self._cells], self.x, self.y
            self._cells = [self._blank() for _ in range(self.rows)]
        elif self.is_other and not to_other:
            cells, self.x, self.y = self._saved
            cells += [self._blank() for _ in range(self.rows - len(cells))]
            self._cells = [(row + self._blank())[: self.columns] for row in cells[-self.rows :]]
            self.x, self.y = min(self.x, self.columns - 1), min(self.y, self.rows - 1)
        self.is_other = to_other


class Terminal:
    """A program in a pty of that size, and the screen that shows what it writes."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        cwd: Path,
        env: Mapping[str, str],
    ) -> None:
        self.screen = Screen(columns, rows)
        self.raw = b""
        self._decoded = 0
        self.master, slave = pty.openpty()
        self.set_size(columns, rows)
        self.settings = termios.tcgetattr(slave)
        # The first terminal that the leader of a session opens becomes its own.
        opening = 'exec <>"$1" >&0 2>&0; shift; exec "$@"'
        self.process = subprocess.Popen(
            ["sh", "-c", opening, "sh", os.ttyname(slave), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
        self._slave = slave

    def set_size(self, columns: int, rows: int) -> None:
        """What the kernel tells of the size; sends SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """As a person drags the window."""
        self.read()
        self.screen.resize(columns, rows)
        self.set_size(columns, rows)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read(self, seconds: float = 0.0) -> None:
        """Show what has been written so far; waits at most so long for the first of it."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            self.raw += data
            text = self.raw.decode("utf-8", "ignore")
            self.screen.feed(text[self._decoded :])
            self._decoded = len(text)
            seconds = 0.0

    def wait_for(
        self, condition: Callable[[Screen], object], what: str, seconds: float = 30
    ) -> None:
        limit = time.monotonic() + seconds
        while not condition(self.screen):
            if time.monotonic() > limit:
                shown = "\n".join(f"|{line}" for line in self.screen.lines)
                raise AssertionError(f"waited in vain for: {what}\n{shown}\n{self.raw[-400:]!r}")
            self.read(0.05)

    def wait(self, seconds: float = 60) -> int:
        """Read on until the program has ended; its exit code."""
        limit = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > limit:
                raise AssertionError(f"it does not end\n{self.screen.text}")
            self.read(0.05)
        self.read()
        return self.process.returncode

    def current_settings(self) -> object:
        """The terminal's modes now, to compare with `settings`."""
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for fd in (self.master, self._slave):
            if fd >= 0:
                try:
                    os.close(fd)
                except OSError:
                    pass
