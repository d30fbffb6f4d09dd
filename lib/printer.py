"""Writes to the terminal or pipe of the user, and never makes the one who tells wait for it.

A terminal stopped with Ctrl-S, a slow ssh line or a paused `less` blocks
whoever writes to it.  So a thread writes, and only the newest block of live
lines waits for it.  The other ways fail: O_NONBLOCK belongs to the open file,
which the shell and its other programs share; to open the terminal anew is not
always allowed; and that a terminal is ready for a byte does not mean that it
takes a whole frame.  The thread writes what it has begun to its end, so that
no escape sequence is cut in two.
"""

from __future__ import annotations

import _signal
import os
import select
import threading
import time
from collections import deque

from lib.textual import cut, width

Line = tuple[str, str]  # text, and the name of a colour or ""

COLOURS = {"red": "\x1b[31m", "yellow": "\x1b[33m"}
DEFAULT_SIZE = (80, 24)  # of a terminal that does not tell, columns and rows
LIMIT_CHARACTERS = 4 << 20  # of text that waits; what is more is dropped, and that is said
RECENT_LINES = 200  # kept to paint a screen again that has become narrower
PATIENCE_SECONDS = (10.0, 60.0)  # without any progress at the end: of a terminal, of a pipe


class Printer:
    """Text that scrolls, and in a live terminal a block of lines below it.

    `say` and `show` return at once.  The block is redrawn in place, with one
    write for each frame; what the terminal is too slow for is left out.  A
    descriptor that cannot be written to any more is given up, in silence.
    """

    def __init__(self, fd: int, *, live: bool = False, colours: bool = False) -> None:
        self.fd = fd
        self._live = live
        self._colours = colours
        self._change = threading.Condition()
        self._text: list[str] = []
        self._characters = self._dropped = 0
        self._block: list[Line] | None = None  # to be shown; None = as it is
        self._ending = False
        self._dead = False
        self._taken = time.monotonic()  # when the descriptor last took something
        self._thread: threading.Thread | None = None
        # Only the thread touches these:
        self._on_screen: list[Line] = []
        self._recent: deque[str] = deque(maxlen=RECENT_LINES)
        self._is_lost = False  # somebody else may have written below the block
        self._rows = 0  # of the screen at the last frame
        self._has_spilled = False  # lines of a block were pushed out at the top

    def tell_dropped(self, count: int) -> str:
        """The line that stands for lines which were too many; a view may have its own."""
        return f"… {count} lines are not shown here: this was too slow"

    # -- for whoever tells

    def say(self, text: str, colour: str = "") -> None:
        """Print a text above the block; it is ended with a line break if it has none."""
        text = text if text.endswith("\n") else f"{text}\n"
        with self._change:
            if self._dead:
                return
            if self._characters > LIMIT_CHARACTERS:
                self._dropped += text.count("\n")
                return
            self._text.append(self._painted(text[:-1], colour) + "\n" if colour else text)
            self._characters += len(text)
            self._wake()

    def show(self, block: list[Line]) -> None:
        """Have this block below the text from now on; each line is cut to the screen."""
        with self._change:
            if not self._dead:
                self._block = block
                self._wake()

    def lose(self) -> None:
        """Somebody else has written to the terminal: draw the block anew where its cursor is."""
        self._is_lost = True

    @property
    def is_behind(self) -> bool:
        """Whether the block that was shown last is not on the screen yet."""
        return self._block is not None

    def flush(self) -> None:
        """Wait until all is written, as long as anything is taken; no thread is left then."""
        patience = PATIENCE_SECONDS[0 if self._live or os.isatty(self.fd) else 1]
        thread = self._thread
        if thread is None or threading.current_thread() is thread:
            return
        with self._change:
            self._ending = True
            self._taken = time.monotonic()
            self._change.notify_all()
        while thread.is_alive() and time.monotonic() - self._taken < patience:
            thread.join(0.1)
        if thread.is_alive():
            self._dead = True  # its write hangs for good; the process can end all the same
        self._thread, self._ending = None, False

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="printer", daemon=True)
            self._thread.start()
        self._change.notify_all()

    # -- the thread

    def _work(self) -> None:
        # A terminal may be set to stop background processes that write (stty
        # tostop); a plan is not to be stopped by its display.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGTTOU])
        while True:
            with self._change:
                while not (self._text or self._block is not None or self._ending):
                    self._change.wait()
                text, block = "".join(self._text), self._block
                if self._dead or not (text or block is not None):
                    return
                if self._dropped:
                    text += self.tell_dropped(self._dropped) + "\n"
                self._text, self._characters, self._dropped = [], 0, 0
                self._block = None
            try:
                self._write(self._frame(text, block))
            except OSError:  # EPIPE, or EIO of a closed terminal
                self._give_up()
                return

    def _frame(self, text: str, block: list[Line] | None) -> bytes:
        frame = self._compose(text, block) if self._live else text
        return frame.encode("utf-8", "replace")

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                count = os.write(self.fd, view)
            except BlockingIOError:  # somebody has set O_NONBLOCK on what is shared
                poller = select.poll()
                poller.register(self.fd, select.POLLOUT)
                poller.poll()
                continue
            view = view[count:]
            self._taken = time.monotonic()

    def _give_up(self) -> None:
        with self._change:
            self._dead = True
            self._text, self._block = [], None
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, self.fd)
        os.close(null)

    # -- frames

    def _compose(self, text: str, block: list[Line] | None) -> str:
        """One frame: what takes the screen from what it shows to what it is to show."""
        columns, rows = size_of(self.fd)
        wanted = self._on_screen if block is None else block
        self._recent += text.split("\n")[:-1]
        if not self._is_foreground():
            self._on_screen = []
            return text  # the shell owns the line that the cursor is in
        if self._is_lost:
            self._is_lost, self._on_screen = False, []
        fitting = [(cut(line, columns - 1), colour) for line, colour in wanted[: max(0, rows - 1)]]
        if self._needs_repaint(columns, rows):
            above = _last_rows(self._recent, columns, rows - 1 - len(fitting))
            head = "\x1b[H\x1b[J" + "".join(f"{line}\n" for line in above)
        else:
            up = f"\x1b[{len(self._on_screen)}A" if self._on_screen else ""
            head = "\r" + up + (f"\x1b[J{text}" if text else "")
        self._on_screen = fitting
        lines = "".join(f"\r{self._painted(line, colour)}\x1b[K\n" for line, colour in fitting)
        # Without wrapping (?7l) for the case that a character is wider than it should be.
        return f"\x1b[?25l{head}\x1b[?7l{lines}\x1b[J\x1b[?7h\x1b[?25h"

    def _needs_repaint(self, columns: int, rows: int) -> bool:
        """Whether a resize has put old lines where moving up does not reach them.

        How a terminal has broken lines that are too long now, only it knows;
        and what a low screen pushed out, a higher one may take back.
        """
        has_grown, self._rows = rows > self._rows, rows
        if len(self._on_screen) >= rows:
            self._has_spilled = True
        return (has_grown and self._has_spilled) or any(
            width(line) > columns for line, _ in self._on_screen
        )

    def _painted(self, line: str, colour: str) -> str:
        if not (self._colours and colour):
            return line
        return f"{COLOURS[colour]}{line}\x1b[0m"

    def _is_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self.fd) == os.getpgrp()
        except OSError:  # not the controlling terminal: nobody else is told to write there
            return True


def size_of(fd: int) -> tuple[int, int]:
    """Columns and rows of a terminal now; not of $COLUMNS, which does not follow a resize."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return DEFAULT_SIZE
    return (columns or DEFAULT_SIZE[0], rows or DEFAULT_SIZE[1])


def _last_rows(lines: deque[str], columns: int, rows: int) -> list[str]:
    """The last lines that fit into so many rows, broken where the terminal breaks them."""
    shown: list[str] = []
    for line in reversed(lines):
        rows -= max(1, -(-width(line) // max(1, columns)))
        if rows < 0:
            break
        shown.insert(0, line)
    return shown
