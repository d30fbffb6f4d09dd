"""What a page calls how things stand: one word and one sign for each, whoever says it."""

from __future__ import annotations

import time

from lib import runs, state, waits
from lib.errors import EXIT_INTERRUPTED, EXIT_QUOTA
from lib.monitor.plans import PlanView
from lib.state import TaskState

DONE, RUNNING, WAITING, QUOTA = "done", "running", "waiting", "quota"
BLOCKED, FAILED, PENDING, STOPPED, UNKNOWN = "blocked", "failed", "pending", "stopped", "unknown"
COUNTED = (DONE, RUNNING, WAITING, QUOTA, BLOCKED, FAILED, PENDING)  # in this order
KINDS = (*COUNTED, STOPPED, UNKNOWN)

# The line that draws the sign of a kind, in a square of 16.
SIGNS = {
    DONE: "M3 8.5 6.5 12 13 4.5",
    RUNNING: "M5 3.5v9l7.5-4.5z",
    WAITING: "M8 4v4.5l3 1.5M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13",
    QUOTA: "M2 8h12M8 2v12M3.8 3.8l8.4 8.4",
    BLOCKED: "M3.5 3.5l9 9M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13",
    FAILED: "M4 4l8 8M12 4l-8 8",
    PENDING: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11",
    STOPPED: "M4 4h8v8H4z",
    UNKNOWN: "M5.5 6a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .8-1 1.7M8 13v.2",
}
_OF_TASKS = {
    state.DONE: DONE,
    state.RUNNING: RUNNING,
    state.VERIFYING: RUNNING,
    state.WAITING: QUOTA,
    state.BLOCKED: BLOCKED,
    state.FAILED: FAILED,
    state.PENDING: PENDING,
    state.SKIPPED: STOPPED,
}
_OF_RUNS = {
    runs.COMPLETED: DONE,
    runs.RUNNING: RUNNING,
    runs.FAILED: FAILED,
    runs.UNKNOWN: UNKNOWN,
    "running": RUNNING,
    "done": DONE,
    "blocked": BLOCKED,
    "-": PENDING,
    state.QUOTA: QUOTA,
    "void": STOPPED,
}
_LEFT = (RUNNING, WAITING, QUOTA, PENDING)


def of_task(entry: TaskState, *, is_run: bool = False) -> str:
    """The kind of a task of a plan; one that is tried again later waits, if somebody runs the plan."""
    kind = _OF_TASKS.get(entry.state, UNKNOWN)
    waits_on = is_run and kind == PENDING and waits.seconds_to_wait(entry, time.time()) > 0
    return WAITING if waits_on else kind


def of_run(status: str) -> str:
    """The kind of a run, of an attempt, or of a task folder, by its status."""
    return _OF_RUNS.get(status, UNKNOWN)


def of_plan(view: PlanView, counts: dict[str, int]) -> tuple[str, str]:
    """(kind, word) of a plan as a whole."""
    if view.entry.is_run:
        return RUNNING, "running"
    if view.entry.problem:
        return UNKNOWN, "unreadable"
    if view.is_cut_off:
        return FAILED, "cut off"
    if counts.get(FAILED) or counts.get(BLOCKED):
        return FAILED, "failed"
    if any(counts.get(kind) for kind in _LEFT):
        return _of_unfinished(view.text("exit_code"))
    return (DONE, "done") if counts.get(DONE) else (PENDING, "not begun")


def _of_unfinished(code: str) -> tuple[str, str]:
    if code == str(EXIT_QUOTA):
        return QUOTA, "waits for a quota"
    return STOPPED, "interrupted" if code == str(EXIT_INTERRUPTED) else "stopped"
