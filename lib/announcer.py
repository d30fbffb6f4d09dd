"""Where a plan says what happens: the screen and log, the bus, and the list of blockers."""

from __future__ import annotations

from collections.abc import Callable

from lib import blockers, bus, events, notices, runs
from lib.errors import UserError
from lib.events import Event
from lib.settings import Settings
from lib.unit import Unit


class Announcer:
    """Tells events to `on_event`, and posts for `project`; no trouble in telling ends a plan."""

    def __init__(self, settings: Settings, project: str, on_event: Callable[[Event], None]) -> None:
        self._settings = settings
        self._project = project
        self._on_event = on_event

    def tell(self, kind: str, text: str, **fields: object) -> None:
        """An event for whoever watches."""
        self._on_event(Event(kind, text, **fields))

    def tell_of(self, kind: str, unit: Unit, text: str, **fields: object) -> None:
        """An event about a unit; the text is put behind its name."""
        named = {"task": unit.task.id, "unit": unit.name, "agent": unit.agent}
        if unit.run is not None:
            named["run"] = unit.run.run_id
        self.tell(kind, text, **named, **fields)

    def declare(self, type_: str, kind: str, text: str, **fields: object) -> None:
        """An event that is posted to the bus as well, as a message of that type."""
        self.tell(kind, text, **fields)
        self.post(type_, text, str(fields.get("task") or ""))

    def post(self, type_: str, text: str, task: str = "") -> None:
        """A message on the plan's bus."""
        path = self._settings.bus_path
        try:
            bus.append(path, type_=type_, body=text, project=self._project, task=task, run="")
        except (UserError, OSError) as error:
            self.tell(events.WARNING, f"bus: {error}")

    def post_failure(self, unit: Unit, run: runs.Run, why: str, word: str) -> None:
        """Post the line that `grep '^ERROR '` finds, unless the run's own RUN_CRASH has said it."""
        is_told = run.text("status") == runs.FAILED and run.text("bus")
        if is_told and notices.failure_word(run) == word:
            return
        first = f"{word} task={unit.name} agent={unit.agent} exit={run.text('exit_code') or -1}"
        self.post("ERROR", f"{first} run={run.run_id}: {why}", unit.name)

    def declare_failure(self, task_id: str, agent: str, code: int, why: str) -> None:
        """A task that failed without one run of its own that could tell of it."""
        self.post("ERROR", f"ERROR task={task_id} agent={agent} exit={code}: {why}", task_id)
        self.note_blocker(task_id, agent, why, None)
        self.tell(events.FAILED, f"FAILED    {task_id}: {why}", task=task_id, why=why)

    def note_blocker(self, name: str, agent: str, why: str, run: runs.Run | None) -> None:
        """An entry in the list of what stopped tasks."""
        try:
            blockers.add(self._settings.root, self._project, name, agent, why, run)
        except (UserError, OSError) as error:
            self.tell(events.WARNING, f"blockers: {error}")
