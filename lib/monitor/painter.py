"""Whole screens on a terminal: what differs from the screen before, in one write.

The thread of `Printer` writes, so that a terminal that takes nothing (Ctrl-S,
a slow line) holds up neither the keys nor the looking; only the newest screen
waits for it.
"""

from __future__ import annotations

import os

from lib.printer import Line, Printer, size_of
from lib.textual import cut

# Source: xterm's ctlseqs: 1049 the other screen, 2004 marks around what is pasted, 7 wrapping,
# 25 the cursor.
ENTER = "\x1b[?1049h\x1b[?2004h\x1b[?7l\x1b[?25l\x1b[H\x1b[J"
LEAVE = "\x1b[0m\x1b[?25h\x1b[?7h\x1b[?2004l\x1b[?1049l"
STYLES = {"reverse": "\x1b[7m", "bold": "\x1b[1m", "dim": "\x1b[2m"}  # no colours: always
CURSOR_DOWN = "\x1b[{};1H\x1b[K"


class Painter(Printer):
    """A printer whose block of lines is the whole screen."""

    def __init__(self, fd: int, *, colours: bool) -> None:
        super().__init__(fd, live=True, colours=colours)
        self._is_leaving = False
        # Only the thread touches these:
        self._is_entered = False
        self._shown: list[Line] = []
        self._size = (0, 0)

    def leave(self) -> None:
        """Give the screen back as it was, and wait until that is written.

        `show` enters it again.  Of a terminal that takes nothing the printer's
        patience has an end; what is left then is an odd screen.
        """
        with self._change:
            self._is_leaving = True
        self.show([])
        self.flush()
        self._is_leaving = False

    def _compose(self, text: str, block: list[Line] | None) -> str:
        if not self._is_foreground():
            return ""  # the screen is somebody else's
        columns, rows = size_of(self.fd)
        if self._is_leaving:
            was_entered, self._is_entered, self._shown = self._is_entered, False, []
            # Where there is no other screen, the shell goes on below this one.
            return CURSOR_DOWN.format(rows) + LEAVE if was_entered else ""
        head = ""
        if not self._is_entered:
            head, self._is_entered = ENTER, True
        elif self._is_lost or self._size != (columns, rows):
            head = "\x1b[0m\x1b[H\x1b[J"
        if head:
            self._shown, self._is_lost = [], False
        self._size = columns, rows
        wanted = [(cut(line, columns - 1), style) for line, style in (block or [])[:rows]]
        body = "".join(
            f"\x1b[{number};1H{self._painted(*line)}\x1b[K"
            for number, line in enumerate(wanted, 1)
            if number > len(self._shown) or self._shown[number - 1] != line
        )
        if len(wanted) < len(self._shown):
            body += f"\x1b[{len(wanted) + 1};1H\x1b[J"
        self._shown = wanted
        return head + body

    def _painted(self, line: str, colour: str) -> str:
        if colour in STYLES:
            return f"{STYLES[colour]}{line}\x1b[0m"
        return super()._painted(line, colour)

    def _write(self, data: bytes) -> None:
        if data:
            super()._write(data)


def wants_colours() -> bool:
    return not os.environ.get("NO_COLOR")
