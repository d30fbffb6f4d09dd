"""Shows a plan that another process runs, from the files alone, until that process is done.

Whoever watches takes no lock and writes nothing: any number may look on, and
Ctrl-C ends the looking only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from lib import events, files, shown, situation, state, view, why
from lib.errors import EXIT_FAILED, EXIT_INTERRUPTED, UserError
from lib.events import Event
from lib.plan import Plan
from lib.situation import Situation

FIRST_LINES = 10  # of plan.log that are shown at the beginning
LOOK_SECONDS = 0.5
LOOK_SHARE = 4  # at least that many times what reading the state took
MOST_FAILURES = 20  # looks in a row at which the state cannot be read
TASK, PLAN = "task", "plan"  # the kinds of what --attach --json prints
GONE = "the process that ran the plan is gone; start it again"


def follow(
    plan: Plan,
    runs_dir: str,
    summarize: Callable[[Situation], str],
    *,
    json: bool = False,
) -> int:
    """Show the plan until nobody runs it any more; returns the exit code that it ended with.

    In a terminal that is the live view, else the lines of plan.log; with
    `json` one object for each change of a task or of the header, which
    docs/events.md describes.  At the end comes what `summarize` says.  Of a plan
    that nobody runs it tells how it ended.  1 when the process that ran it
    died; 130 after Ctrl-C.  UserError when it was never started, or its state
    is damaged.
    """
    seen = situation.look(plan, runs_dir)
    display = view.make(json=json)
    try:
        if not seen.is_run:
            display.event(_note(f"nobody runs this plan now: {_last_outcome(seen)}", seen))
            return _recorded_code(seen)
        seen = _watch(seen, display, as_json=json)
        return _tell_end(seen, display, summarize)
    except KeyboardInterrupt:
        text = f"the plan goes on without being watched (pid {seen.text('pid') or 'unknown'})"
        display.event(_note(f"{text}; --attach shows it again", seen))
        return EXIT_INTERRUPTED
    finally:
        display.close()


def _watch(seen: Situation, display: view.View, *, as_json: bool) -> Situation:
    """Show what changes; returns the situation once nobody runs the plan."""
    reader = _Reader(seen)
    teller: _Changes | _Log = _Changes(display) if as_json else _Log(seen, display)
    while True:
        teller.tell(seen)
        display.tick(seen)
        if not seen.is_run:
            teller.finish()
            return seen
        reader.wait()
        seen = reader.look()


def _tell_end(seen: Situation, display: view.View, summarize: Callable[[Situation], str]) -> int:
    if not seen.text("ended"):
        display.event(_note(GONE, seen))
    elif isinstance(display, view.LiveView):  # else it came with the lines of plan.log
        display.text("\n" + summarize(seen))
    return _recorded_code(seen)


def _recorded_code(seen: Situation) -> int:
    """The exit code that the plan ended with; 1 where its process did not come to that."""
    code = seen.header.get("exit_code")
    return code if seen.text("ended") and isinstance(code, int) else EXIT_FAILED


def _note(text: str, seen: Situation) -> Event:
    return Event(events.NOTE, text, project=seen.plan.project)


def _last_outcome(seen: Situation) -> str:
    ended = seen.text("ended")
    done, total = seen.count(state.DONE), len(seen.scope())
    counts = f"{done} of {total} tasks are done"
    if not ended:
        return f"its process ended before it did, {counts}; start it again"
    cause = why.closing_cause(seen)
    because = f" ({cause})" if cause else ""
    code = seen.text("exit_code")
    again = "" if code == "0" else "; start it again to go on"
    return f"it ended at {ended[:19]}Z with exit code {code}{because}, {counts}{again}"


class _Reader:
    """Reads the state again when its files have changed."""

    def __init__(self, seen: Situation) -> None:
        self._seen = seen
        folder = os.path.join(seen.runs_dir, seen.plan.project)
        names = (state.STATE_NAME, state.JOURNAL_NAME)
        self._paths = [os.path.join(folder, name) for name in names]
        self._folder = folder
        self._known: object = None
        self._pause = LOOK_SECONDS
        self._failures = 0

    def wait(self) -> None:
        time.sleep(self._pause)

    def look(self) -> Situation:
        """The situation now; read from the state only when that has changed."""
        # First who runs it: what that process has written before its end is then all read.
        is_run = state.is_run(self._folder)
        files_now = [files.signature(path) for path in self._paths]
        if files_now != self._known and self._read(is_run):
            self._known = files_now
        self._seen.is_run = is_run
        return self._seen

    def _read(self, is_run: bool) -> bool:
        began = time.monotonic()
        try:
            self._seen = situation.look(self._seen.plan, self._seen.runs_dir)
        except (UserError, FileNotFoundError):
            # Somebody starts the plan over, or writes too fast: a few looks later all is well.
            self._failures += 1
            if self._failures > MOST_FAILURES or not is_run:
                raise
            return False
        self._failures = 0
        self._pause = max(LOOK_SECONDS, LOOK_SHARE * (time.monotonic() - began))
        return True


class _Log:
    """The lines of plan.log, as they come."""

    def __init__(self, seen: Situation, display: view.View) -> None:
        path = os.path.join(seen.runs_dir, seen.plan.project, state.LOG_NAME)
        self._growing = shown.Growing(path)
        self._display = display
        self._is_first = True

    def tell(self, seen: Situation) -> None:
        """Show what is new."""
        if self._is_first:
            self._is_first = False
            lines = self._growing.begin(FIRST_LINES).split("\n")
            self._say("\n".join(lines[-FIRST_LINES - 1 :]))
        self._growing.copy(self._say)

    def finish(self) -> None:
        """Show what is left of a line that was never ended."""
        self._say(self._growing.finish())

    def _say(self, text: str) -> None:
        if text:
            self._display.text(text)


class _Changes:
    """An event for each task that stands elsewhere than before, and one for the plan as a whole."""

    def __init__(self, display: view.View) -> None:
        self._display = display
        self._told: dict[str, object] = {}

    def tell(self, seen: Situation) -> None:
        """Show what is new; at first that is everything."""
        explainer = why.Explainer(seen)
        for task_id in seen.scope():
            entry = seen.tasks.get(task_id) or state.TaskState()
            if self._is_news(task_id, (entry.state, entry.why, len(entry.attempts))):
                self._display.event(_task_event(task_id, entry, explainer))
        plan = {key: seen.header.get(key) or None for key in ("closing", "held", "ended")}
        if self._is_news("", tuple(plan.values())):
            plan["exit_code"] = seen.header.get("exit_code")
            said = [f"{key}: {value}" for key, value in plan.items() if value is not None]
            text = f"plan {seen.plan.project}: {'; '.join(said) or 'runs'}"
            self._display.event(Event(PLAN, text, project=seen.plan.project, **plan))

    def _is_news(self, key: str, value: object) -> bool:
        is_news = self._told.get(key) != value
        self._told[key] = value
        return is_news

    def finish(self) -> None:
        """Nothing is kept back."""


def _task_event(task_id: str, entry: state.TaskState, explainer: why.Explainer) -> Event:
    last = entry.attempts[-1] if entry.attempts else {}
    sentence = explainer.sentence(task_id)
    return Event(
        TASK,
        f"{task_id} {sentence}",
        task=task_id,
        state=entry.state,
        why=sentence,
        agent=last.get("agent"),
        run=last.get("run"),
    )
