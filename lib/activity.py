"""What a run is doing at this moment, read from its folder: how long, how silent, at what cost.

The record is read anew only when it was replaced, the transcript only when it
has grown: a live view asks twice a second for each run.
"""

from __future__ import annotations

import os
import time

from lib import files, ids, procs, redact, runs, supervisor
from lib.state import Attempt

TOOL_FACTOR = supervisor.OPEN_TOOL_FACTOR
TAIL_BYTES = 8192
CLOCK_SECONDS = 2.0  # by which clocks may differ without any meaning in it


class Activity:
    """One run as it stands; seconds are those that the machine was awake.

    `silent_seconds` is the time since its last output, and `is_silent` whether
    that is worth a mention.  `has_ended` is what the record says.  Limits of
    0 are none; tokens and cost are None while nobody has told any.
    """

    __slots__ = (
        "agent",
        "cost_usd",
        "elapsed_seconds",
        "has_ended",
        "idle_limit",
        "input_tokens",
        "is_estimated",
        "is_silent",
        "output_tokens",
        "run",
        "silent_seconds",
        "total_limit",
    )

    def __init__(self, attempt: Attempt, run: runs.Run) -> None:
        self.run = run
        self.agent = redact.one_line(str(attempt.get("agent") or "agent"))
        self.has_ended = run.text("status") in runs.ENDED
        self.total_limit = _seconds(run, "timeout") or 0.0
        self.idle_limit = _seconds(run, "idle_timeout") or 0.0
        self.input_tokens = _seconds(run, "input_tokens")
        self.output_tokens = _seconds(run, "output_tokens")
        self.cost_usd = _seconds(run, "cost_usd")
        self.is_estimated = run.record.get("cost_estimated") is True
        now = time.time()
        started = (_moment(run.text("start_time")) or _moment(attempt.get("started"))) or now
        slept = _slept_seconds(run, now - started)
        self.elapsed_seconds = max(0.0, now - started - slept)
        noted, last_output = _moment(run.text("silent_since")), _last_output(run)
        if noted and last_output > noted + CLOCK_SECONDS:
            noted = None  # it has spoken since, and its supervisor is gone
        spoke = max(started, last_output, noted or 0.0)
        self.silent_seconds = max(0.0, min(now - spoke - slept, self.elapsed_seconds))
        if noted and spoke == noted:  # its supervisor measures on a clock that knows of sleep
            self.silent_seconds = max(0.0, min(now - noted, self.elapsed_seconds))
        # Its supervisor knows whether a tool call is open, which may be silent for longer.
        self.is_silent = bool(noted) or self.silent_seconds >= TOOL_FACTOR * self.soft_mark

    @property
    def soft_mark(self) -> float:
        """Seconds of silence from which on it is mentioned."""
        return supervisor.soft_mark(self.idle_limit)


class Watcher:
    """Reads the runs of a plan again and again, and each file only when it has changed."""

    def __init__(self, runs_dir: str) -> None:
        self.runs_dir = runs_dir
        self._records: dict[str, tuple[object, runs.Run]] = {}
        self._lines: dict[str, tuple[object, str]] = {}

    def look(self, attempt: Attempt) -> Activity:
        """What the run of an attempt is doing; one without a record yet has just begun."""
        path = self._path(attempt)
        signature = files.signature(os.path.join(path, runs.RECORD))
        known = self._records.get(path)
        if known is None or known[0] != signature:
            known = self._records[path] = (signature, runs.read(path))
        return Activity(attempt, known[1])

    def last_line(self, attempt: Attempt) -> str:
        """The last line of its transcript that says anything, harmless and redacted."""
        path = os.path.join(self._path(attempt), runs.TRANSCRIPT)
        signature = files.signature(path)
        known = self._lines.get(path)
        if known is None or known[0] != signature:
            known = self._lines[path] = (signature, last_line(path))
        return known[1]

    def forget_all_but(self, attempts: list[Attempt]) -> None:
        """Keep nothing of runs that have ended."""
        paths = {self._path(attempt) for attempt in attempts}
        self._records = {path: kept for path, kept in self._records.items() if path in paths}
        self._lines = {
            path: kept for path, kept in self._lines.items() if os.path.dirname(path) in paths
        }

    def _path(self, attempt: Attempt) -> str:
        # Of a name in a file only the last part: it cannot lead out of the runs folder.
        return os.path.join(self.runs_dir, os.path.basename(str(attempt.get("run") or "-")))


def last_line(path: str) -> str:
    """The last line of a transcript that says anything, harmless and redacted.

    From whole lines only: of one that was cut, redaction might not know a token again.
    """
    try:
        data = files.read_tail(path, TAIL_BYTES)
    except OSError:
        return ""
    if len(data) == TAIL_BYTES:
        data = data[data.find(b"\n") + 1 :] if b"\n" in data else b""
    text = redact.text(data.decode("utf-8", "replace"))
    for line in reversed(text.split("\n")):
        if any(character.isalnum() for character in line):
            return redact.one_line(line)
    return ""


def _last_output(run: runs.Run) -> float:
    """When one of its output files was last written to; 0.0 before there is any."""
    newest = 0.0
    for name in (runs.STDOUT, runs.STDERR):
        try:
            newest = max(newest, os.lstat(run.file(name)).st_mtime)
        except OSError:
            continue
    return newest


def _slept_seconds(run: runs.Run, elapsed: float) -> float:
    """How long the machine slept, or its clock was moved, since the run began."""
    began = _seconds(run, "monotonic_start")
    here = procs.machine()
    if began is None or any(run.text(key) != here[key] for key in ("boot_id", "host")):
        return 0.0
    slept = elapsed - (time.monotonic() - began)
    return slept if abs(slept) > CLOCK_SECONDS else 0.0


def _seconds(run: runs.Run, key: str) -> float | None:
    value = run.record.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e15 else None  # type: ignore[operator, arg-type]


def _moment(text: object) -> float | None:
    nanoseconds = ids.parse_rfc3339(text)
    return None if nanoseconds is None else nanoseconds / ids.NANOSECONDS
