"""Where a task's loop says what happens: lines, or events in their place, and the task's bus."""

from __future__ import annotations

import time
from collections.abc import Callable

from lib import bus, redact, runs, usage
from lib.errors import UserError
from lib.events import Event
from lib.loop_record import Attempt
from lib.tasks import Task

ALIVE_SECONDS = 60.0  # after which who asked for events is told that there are none
FIGURES = (
    "model", "input_tokens", "cached_tokens", "output_tokens", "cost_usd", "cost_estimated",
    "tool_calls", "error_class", "reset_time",
)  # fmt: skip
_SAID = 200  # messages of the bus among which what was said before a crash is looked for


class LoopAnnouncer:
    """Gives lines to `tell`, and the events of docs/events.md to `on_event`, where that is wanted.

    No trouble in telling ends a loop.
    """

    def __init__(
        self,
        task: Task,
        agent: str,
        tell: Callable[[str], None],
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.tell = tell
        self._task = task
        self._agent = agent
        self._on_event = on_event
        self._spoke = time.monotonic()  # when the last event was told
        self._ended_runs: list[runs.Run] = []  # attempts whose end this process has seen

    # -- events

    @property
    def has_events(self) -> bool:
        """Whether somebody asked for events."""
        return self._on_event is not None

    def emit(self, kind: str, text: str, **fields: object) -> None:
        """Tell an event to who asked for events; it is no line for people."""
        if self._on_event is not None:
            self._spoke = time.monotonic()
            self._on_event(Event(kind, text, **fields))

    def patience(self, seconds: float) -> float:
        """So long, or until who asked for events is to be told that there are none."""
        if self._on_event is None:
            return seconds
        if time.monotonic() - self._spoke >= ALIVE_SECONDS:
            self.emit("alive", "the loop goes on")
        return min(seconds, ALIVE_SECONDS)

    def _report(self, kind: str, text: str, **fields: object) -> None:
        """Tell an event, or its line to who asked for none."""
        if self._on_event is None:
            self.tell(text)
        else:
            self.emit(kind, text, **fields)

    def report_start(self, run_id: str, text: str, number: int | None) -> None:
        """Tell that an attempt began; None as its number says that an earlier loop began it."""
        self._report("attempt-started", text, attempt=number, run=run_id, agent=self._agent)

    def report_end(self, run: runs.Run, attempt: Attempt, now: runs.State) -> None:
        """Tell the end of an attempt, and what all that have ended in this process used together."""
        text = f"{run.run_id} {now.status}"
        text += f": {now.reason}" if now.status != runs.COMPLETED else ""
        self._ended_runs.append(run)
        fields = {key: run.record.get(key) for key in FIGURES}
        fields["total"] = self.total()
        fields.update(result=attempt["result"], exit_code=attempt["exit_code"])
        fields.update(why=attempt.get("why"), seconds=round(run.seconds(), 3))
        self._report("attempt-ended", text, run=run.run_id, agent=self._agent, **fields)

    def total(self) -> dict[str, object]:
        """What the attempts used whose end was reported."""
        records = [run.record for run in self._ended_runs]
        calls = [value for record in records if isinstance(value := record.get("tool_calls"), int)]
        return {**usage.Usage(records).fields(), "tool_calls": sum(calls) if calls else None}

    # -- the bus

    def warn(self, text: str) -> None:
        """Post a warning."""
        self.post("WARNING", text)

    def post_once(self, type_: str, text: str) -> None:
        """As `post`, unless it was the last of its kind that was said: a crash may lie between."""
        try:
            said = [
                m.body for m in bus.last(self._task.bus, _SAID) if m.type == type_ and not m.run_id
            ]
        except (UserError, OSError):
            said = []
        if said[-1:] == [redact.text(text)]:
            return
        self.post(type_, text)

    def post(self, type_: str, text: str) -> None:
        """A line, and a message of the loop on the task's bus."""
        self.tell(text)
        project, task = self._task.project, self._task.task
        try:
            bus.append(self._task.bus, type_=type_, body=text, project=project, task=task, run="")
        except (UserError, OSError) as error:
            self.tell(f"bus: {error}")
