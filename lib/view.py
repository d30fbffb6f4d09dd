"""What a person sees while a plan runs: live lines in a terminal, plain ones in a pipe.

Whatever becomes of the terminal, the plan goes on: every event also stands
in `plan.log`, and a display that cannot be written to any more falls silent.
"""

from __future__ import annotations

import os
import shutil
import sys
import time

from lib import files, redact, runs, state
from lib.scheduler import Scheduler
from lib.textual import cut, duration
from lib.unit import Unit

TAIL_BYTES = 4096
BAR_WIDTH = 24


class View:
    """Events as timestamped lines, on stdout and in the log."""

    def __init__(self, log_path: str) -> None:
        self._log_path = log_path
        self._log = -1  # opened by the first event: its folder may have to be made before
        self._alive = True

    def event(self, text: str) -> None:
        """Tell something that happened."""
        line = redact.for_terminal(redact.text(text)).replace("\n", " ")
        stamp = time.strftime("%H:%M:%S", time.gmtime())
        self._write_log(f"{time.strftime('%Y-%m-%d', time.gmtime())} {stamp} {line}\n")
        self._print(f"{stamp} {line}\n")

    def _write_log(self, line: str) -> None:
        try:
            if self._log < 0:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._log = os.open(self._log_path, flags, 0o600)
            files.write_all(self._log, line.encode("utf-8", "replace"))
        except OSError:
            pass  # a full disk stops the log, not the plan

    def tick(self, scheduler: Scheduler) -> None:
        """Called about twice a second."""

    def close(self) -> None:
        """Leave the terminal as it was; nothing may be told any more."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def text(self, text: str) -> None:
        """Print a text as it is."""
        self._print(text)

    def _print(self, text: str) -> None:
        if not self._alive:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (OSError, ValueError):  # EPIPE, or EIO of a closed terminal
            self._alive = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class LiveView(View):
    """Events scroll by above a block with one line for each running task and a bar."""

    def __init__(self, log_path: str) -> None:
        super().__init__(log_path)
        self._height = 0  # lines of the block that is on the screen now

    def event(self, text: str) -> None:
        self._erase()
        super().event(text)

    def text(self, text: str) -> None:
        self._erase()
        super().text(text)

    def close(self) -> None:
        self._erase()
        super().close()

    def tick(self, scheduler: Scheduler) -> None:
        size = shutil.get_terminal_size()
        lines = [_unit_line(unit) for unit in scheduler.active.values()][: max(1, size.lines - 4)]
        lines.append(_bar(scheduler))
        self._erase()
        self._print("".join(cut(line, size.columns - 1) + "\n" for line in lines))
        self._height = len(lines)

    def _erase(self) -> None:
        if self._height:
            self._print(f"\x1b[{self._height}A\r\x1b[J")
            self._height = 0


def _unit_line(unit: Unit) -> str:
    elapsed = duration(time.monotonic() - unit.started)
    if unit.check is not None:
        return f"  {unit.name:<24} {unit.agent:<10} {elapsed:>7}  verifying"
    if unit.run is None:
        return f"  {unit.name}"
    path = unit.run.file(runs.TRANSCRIPT)
    try:
        idle = duration(max(0.0, time.time() - os.stat(path).st_mtime))
        lines = [line.strip() for line in files.last_lines(path, 5, TAIL_BYTES) if line.strip()]
    except OSError:
        idle, lines = "-", []
    last = redact.for_terminal(lines[-1]) if lines else ""
    return f"  {unit.name:<24} {unit.agent:<10} {elapsed:>7} idle {idle:>6}  {last}"


def _bar(scheduler: Scheduler) -> str:
    total = max(1, len(scheduler.board.scope))
    done, failed = (
        scheduler.board.count(state.DONE),
        scheduler.board.count(state.FAILED, state.BLOCKED),
    )
    filled = BAR_WIDTH * (done + failed) // total
    elapsed = duration(time.monotonic() - scheduler.began)
    bar = "#" * filled + "." * (BAR_WIDTH - filled)
    trouble = f", {failed} failed or blocked" if failed else ""
    return f"[{bar}] {done}/{total} done, {len(scheduler.active)} running{trouble}, {elapsed}"


def make(log_path: str) -> View:
    """A live view for a terminal that can do it, else plain lines."""
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveView(log_path)
    return View(log_path)
