"""The monitor on a terminal: its modes, its signals, its keys, and when what is drawn.

However this ends, the terminal is as it was before: after q, Ctrl-C, SIGTERM,
SIGHUP, SIGQUIT, a bug, and while it is stopped with Ctrl-Z.  After kill -9
nobody is there to do it; `reset` does.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
import time
from typing import Any

from lib import paths, redact
from lib.errors import EXIT_OK, EXIT_SIGNAL
from lib.monitor import app as state
from lib.monitor import frame, keys
from lib.monitor.app import App
from lib.monitor.painter import Painter, wants_colours
from lib.printer import size_of
from lib.wakeup import Wakeup

STDIN, STDOUT = 0, 1
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CAUGHT = (*ENDING, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
ESCAPE_SECONDS = 0.05  # in which the rest of a key's sequence comes
READ_SECONDS = 0.2  # between two looks at a file that is being read
BEHIND_SECONDS = 0.05  # until it is tried again whether a slow terminal takes the next screen
LONGEST_SECONDS = 60.0  # that poll is asked to wait; it counts in 32 bits
LOOK_SHARE = 8  # between two looks at least that many times what one took


class Modes:
    """The modes of a terminal: keys one by one and without echo, and back again.

    Ctrl-C, Ctrl-Z, Ctrl-S and Ctrl-Q keep their meaning.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] | None = None

    def enter(self) -> None:
        """Take the terminal; in the background that stops this process until `fg`."""
        try:
            before = termios.tcgetattr(self._fd)
            changed = termios.tcgetattr(self._fd)
            changed[3] &= ~(termios.ICANON | termios.ECHO)
            changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._fd, termios.TCSADRAIN, changed)
        except termios.error as error:
            raise OSError(*error.args) from None
        self._before = before

    def let_go_on(self) -> None:
        """Have a terminal that was stopped with Ctrl-S take output again."""
        if self._is_ours():
            try:
                # Linux undoes with TCOON what TCOOFF did, and not what Ctrl-S did: so both.
                termios.tcflow(self._fd, termios.TCOOFF)
                termios.tcflow(self._fd, termios.TCOON)
            except termios.error:
                pass  # the terminal is gone

    def leave(self) -> None:
        """Put the modes back, if they were taken."""
        before, is_ours = self._before, self._is_ours()
        self._before = None
        if before is not None and is_ours:
            try:
                termios.tcsetattr(self._fd, termios.TCSANOW, before)
            except termios.error:
                pass

    def _is_ours(self) -> bool:
        """Whether the modes were taken and nobody else has the terminal by now.

        In the background a change would stop this process, and be to somebody else's terminal.
        """
        try:
            return self._before is not None and os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return False


class Stopper:
    """Stops a run in a process of its own, which goes on when the monitor ends."""

    def __init__(self, runs_dir: str, run: str) -> None:
        script = os.path.join(paths.TOOLKIT, "bin", "stop-run")
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-E", script, "--runs-dir", runs_dir, "--", run],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def result(self) -> str | None:
        """Its last line once it has ended; None before."""
        if self.process.poll() is None:
            return None
        assert self.process.stdout is not None
        said = self.process.stdout.read().decode("utf-8", "replace").strip()
        self.process.stdout.close()
        return redact.one_line(said.rpartition("\n")[2] or "it has ended")


class Screen:
    """Runs the monitor until somebody ends it."""

    def __init__(self, app: App, interval_seconds: float) -> None:
        self._app = app
        self._interval = interval_seconds
        self._modes = Modes(STDIN)
        self._painter = Painter(STDOUT, colours=wants_colours())
        self._decoder = keys.Decoder()
        self._stoppers: list[Stopper] = []
        self._next_look = self._next_read = 0.0
        self._is_dirty = True
        self._code: int | None = None  # to end with

    def run(self) -> int:
        """Show, look and obey until the end; the exit code.  KeyboardInterrupt for Ctrl-C."""
        self._wakeup = Wakeup(CAUGHT)
        try:
            self._enter()
            self._app.tell(f"reading {self._app.place} …")
            self._draw()
            while self._code is None:
                self._work()
        finally:
            # Nothing interrupts this: the signals stay caught until it is done.
            self._leave()
            self._wakeup.close()
        if self._code == EXIT_SIGNAL + signal.SIGINT:
            raise KeyboardInterrupt
        return self._code

    def _enter(self) -> None:
        self._modes.enter()
        self._painter.lose()

    def _leave(self) -> None:
        self._modes.let_go_on()
        self._painter.leave()
        self._modes.leave()

    # -- one round

    def _work(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._look(now)
        if self._app.pager is not None and now >= self._next_read:
            self._next_read = now + READ_SECONDS
            self._is_dirty |= self._app.read_on()
        self._reap()
        if self._is_dirty and not self._painter.is_behind:
            self._draw()
        self._wait()

    def _look(self, began: float) -> None:
        self._app.look()
        took = time.monotonic() - began
        self._next_look = began + max(self._interval, LOOK_SHARE * took)
        self._is_dirty = True

    def _draw(self) -> None:
        self._is_dirty = False
        if self._app.has_asked_to_redraw:
            self._app.has_asked_to_redraw = False
            self._painter.lose()
        self._painter.show(frame.lines(self._app, *size_of(STDOUT)))

    def _wait(self) -> None:
        until = self._next_look
        if self._app.pager is not None:
            until = min(until, self._next_read)
        now = time.monotonic()
        if self._stoppers:
            until = min(until, now + READ_SECONDS)
        if self._is_dirty:
            until = min(until, now + BEHIND_SECONDS)
        if self._decoder.is_waiting:
            until = min(until, now + ESCAPE_SECONDS)
        left = max(0.0, min(until - now, LONGEST_SECONDS))
        poll = select.poll()
        poll.register(STDIN, select.POLLIN)
        poll.register(self._wakeup.fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(int(left * 1000 + 0.999))}
        self._obey(self._wakeup.take())
        if STDIN in ready and self._code is None:
            self._read_keys()
        elif self._decoder.is_waiting:
            self._press(self._decoder.finish())

    def _read_keys(self) -> None:
        try:
            data = os.read(STDIN, 4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            self._code = EXIT_SIGNAL + signal.SIGHUP
            return
        self._press(self._decoder.feed(data))

    def _press(self, pressed: list[str]) -> None:
        for key in pressed:
            self._is_dirty = True
            wanted = self._app.press(key)
            if wanted is None:
                continue
            action, run = wanted
            if action == state.QUIT:
                self._code = EXIT_OK
                return
            self._stoppers.append(Stopper(self._app.observer.index.runs_dir, run))

    def _reap(self) -> None:
        for stopper in list(self._stoppers):
            said = stopper.result()
            if said is not None:
                self._stoppers.remove(stopper)
                self._app.tell(said, "" if stopper.process.returncode == 0 else "red")
                self._next_look = 0.0
                self._is_dirty = True

    # -- signals

    def _obey(self, numbers: list[int]) -> None:
        ending = [number for number in numbers if number in ENDING]
        if ending:
            self._code = EXIT_SIGNAL + ending[0]
        elif signal.SIGTSTP in numbers:
            self._suspend()
        elif signal.SIGCONT in numbers:  # it was stopped without having been asked
            self._modes.leave()
            self._enter_again()
        self._is_dirty |= bool(numbers)

    def _suspend(self) -> None:
        """Ctrl-Z: give the terminal back, stop, and take it again when the shell says `fg`."""
        self._leave()
        old = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here it goes on.
        signal.signal(signal.SIGTSTP, old)
        ending = [number for number in self._wakeup.take() if number in ENDING]
        if ending:  # `kill %1` of the shell: the terminal is not ours any more
            self._code = EXIT_SIGNAL + ending[0]
        else:
            self._enter_again()

    def _enter_again(self) -> None:
        self._next_look = 0.0
        try:
            self._enter()
        except OSError:  # the terminal went meanwhile
            self._code = EXIT_SIGNAL + signal.SIGHUP
