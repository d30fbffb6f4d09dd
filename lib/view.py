"""What a person sees while a plan runs: a live view in a terminal, else lines; or JSON.

Whatever becomes of the terminal, the plan goes on: every event also stands
in `plan.log`, and a display that is slow or gone holds up nothing.
"""

from __future__ import annotations

import _signal
import os
import time

from lib import events, files
from lib.events import Event
from lib.frame import Frame
from lib.printer import Printer, size_of
from lib.situation import Situation

STDOUT = 1
EVENT_COLOURS = {
    events.FAILED: "red",
    events.WARNING: "yellow",
    events.CLOSING: "yellow",
    events.QUOTA_CLOSED: "yellow",
}


class View:
    """Events as timestamped lines, on stdout and in the log."""

    def __init__(self, log_path: str = "", printer: Printer | None = None) -> None:
        self._log_path = log_path  # "" for none
        self._log = -1  # opened by the first event: its folder may have to be made before
        self.printer = printer or Printer(STDOUT)

    def event(self, event: Event) -> None:
        """Tell something that happened."""
        line = event.line()
        moment = time.gmtime(event.time)
        self._write_log(f"{time.strftime('%Y-%m-%d %H:%M:%S', moment)} {line}\n")
        self._show(event, f"{time.strftime('%H:%M:%S', moment)} {line}")

    def _show(self, event: Event, line: str) -> None:
        self.printer.say(line, EVENT_COLOURS.get(event.kind, ""))

    def _write_log(self, line: str) -> None:
        if not self._log_path:
            return
        try:
            if self._log < 0:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                self._log = files.open_regular(self._log_path, flags)
            files.write_all(self._log, line.encode("utf-8", "replace"))
        except OSError:
            pass  # a full disk, or what stands in its place, stops the log and not the plan

    def tick(self, situation: Situation) -> None:
        """Called about twice a second."""

    def text(self, text: str) -> None:
        """Print a text for people, as it is; who detached the plan reads it in the log."""
        self._write_log(text)
        self._show_text(text)

    def _show_text(self, text: str) -> None:
        self.printer.say(text)

    def flush(self) -> None:
        """Wait until what was told is written; no thread is left, as a fork wants it."""
        self.printer.flush()

    def close(self) -> None:
        """Leave the terminal as it was; nothing may be told any more."""
        self.flush()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1


class _JsonPrinter(Printer):
    def tell_dropped(self, count: int) -> str:
        return Event(events.NOTE, super().tell_dropped(count), dropped=count).as_json()


class JsonView(View):
    """Events as JSON objects, one a line; no other text."""

    def __init__(self, log_path: str = "", printer: Printer | None = None) -> None:
        super().__init__(log_path, printer or _JsonPrinter(STDOUT))

    def _show(self, event: Event, line: str) -> None:
        self.printer.say(event.as_json())

    def _show_text(self, text: str) -> None:
        """Nothing: what people are told last is an event, too."""


class LiveView(View):
    """Events scroll by above a block that shows the situation of the moment."""

    def __init__(self, log_path: str = "", printer: Printer | None = None) -> None:
        has_colours = not os.environ.get("NO_COLOR")
        super().__init__(log_path, printer or Printer(STDOUT, live=True, colours=has_colours))
        self._frame = Frame()
        self._old = _signal.getsignal(_signal.SIGCONT)
        # After Ctrl-Z and `fg` the shell's lines stand below the block.
        _signal.signal(_signal.SIGCONT, lambda number, frame: self.printer.lose())

    def tick(self, situation: Situation) -> None:
        if not self.printer.is_behind:
            self.printer.show(self._frame.lines(situation, *size_of(self.printer.fd)))

    def close(self) -> None:
        self.printer.show([])
        super().close()
        _signal.signal(_signal.SIGCONT, self._old)


def make(log_path: str = "", json: bool = False, live: bool = True) -> View:
    """A live view for a terminal that can do it, else plain lines; JSON lines if wanted."""
    if json:
        return JsonView(log_path)
    if live and os.isatty(STDOUT) and os.environ.get("TERM", "dumb") != "dumb":
        return LiveView(log_path)
    return View(log_path)
