"""What a task of a plan waits for: other tasks, the end of a stage, something exclusive, a slot.

Made for questions about many tasks of one situation: what is the same for all
of them is found once, and no chain of dependencies is gone through twice.
"""

from __future__ import annotations

import functools
import time

from lib import ids, state
from lib.activity import Watcher
from lib.plan import Stage, Task
from lib.situation import Situation
from lib.state import Attempt, TaskState

# How much a task has to say to those that wait for it, the first most: which one is named.
_TELLING = ("failed", "silent", "waits", "runs", "ready")


class Waits:
    """Who waits for what in one situation."""

    def __init__(self, situation: Situation, watcher: Watcher) -> None:
        self._situation = situation
        self._plan = situation.plan
        self._watcher = watcher
        self.scope = frozenset(situation.scope())
        self.now = time.time()
        self._roots: dict[str, str] = {}
        self._ranks: dict[str, int] = {}
        self._stage_index = {stage.id: n for n, stage in enumerate(self._plan.stages)}

    def entry(self, task_id: str) -> TaskState:
        """Where a task stands; one that the state does not know has not begun."""
        return self._situation.tasks.get(task_id) or TaskState()

    def holder_of(self, task: Task) -> str:
        """The active task that has what this one needs for itself alone; "" for none."""
        holder = self._exclusive.get(task.exclusive or "", "")
        return "" if holder == task.id else holder

    @functools.cached_property
    def _exclusive(self) -> dict[str, str]:
        """Who holds what tasks may only have alone."""
        tasks = self._plan.tasks.values()
        held = [task for task in tasks if task.exclusive and is_active(self.entry(task.id))]
        return {str(task.exclusive): task.id for task in held}

    @functools.cached_property
    def active_units(self) -> int:
        """How many slots are taken."""
        entries = self._situation.tasks.values()
        return sum(len(running(entry)) for entry in entries if is_active(entry))

    @functools.cached_property
    def ready_count(self) -> int:
        """How many tasks wait for nothing but a slot."""
        return sum(self._is_ready(task_id) for task_id in self.scope)

    def _is_ready(self, task_id: str) -> bool:
        task, entry = self._plan.tasks[task_id], self.entry(task_id)
        if entry.state != state.PENDING or seconds_to_wait(entry, self.now):
            return False
        is_held = self.closed_stage(task_id) or self.open_needs(task_id) or self.holder_of(task)
        return not is_held

    # -- other tasks

    def open_needs(self, task_id: str) -> list[str]:
        """The tasks that it names and that are not done."""
        needs = self._plan.tasks[task_id].depends_on
        return [need for need in needs if self.entry(need).state != state.DONE]

    @functools.cached_property
    def _first_closed(self) -> int:
        """The index of the first stage with a barrier that has not ended; all after it wait."""
        for index, stage in enumerate(self._plan.stages):
            if stage.barrier and self._open_tasks(stage):
                return index
        return len(self._plan.stages)

    def closed_stage(self, task_id: str) -> Stage | None:
        """The stage whose end the task waits for."""
        own = self._stage_index[self._plan.tasks[task_id].stage]
        return self._plan.stages[self._first_closed] if self._first_closed < own else None

    def _open_tasks(self, stage: Stage) -> list[str]:
        names = [task.id for task in stage.tasks if task.id in self.scope]
        return [name for name in names if self.entry(name).state not in state.ENDED]

    @functools.cached_property
    def gate(self) -> list[str]:
        """What is left of the first stage that has not ended."""
        stages = self._plan.stages[self._first_closed :]
        return self._open_tasks(stages[0]) if stages else []

    @functools.cached_property
    def gate_root(self) -> tuple[str, str]:
        """As `most_telling`, of what is left of that stage."""
        return self.most_telling(self.gate)

    def most_telling(self, direct: list[str]) -> tuple[str, str]:
        """(one of `direct`, the task behind it that waits for no other and has most to say)."""
        roots = [(first, self._root(first)) for first in direct]
        return min(roots, key=lambda item: self._rank(item[1]))

    def _root(self, task_id: str) -> str:
        """The task behind this one that waits for no other; of several the most telling one."""
        stack = [task_id]
        while stack:
            name = stack[-1]
            needs = [] if self._is_root(name) else self.open_needs(name)
            open_needs = [need for need in needs if need not in self._roots]
            if open_needs:
                stack += open_needs
                continue
            stack.pop()
            if not self._is_root(name) and self.closed_stage(name):
                self._roots[name] = self.gate_root[1]
            else:
                found = [self._roots[need] for need in needs] or [name]
                self._roots[name] = min(found, key=self._rank)
        return self._roots[task_id]

    def _is_root(self, task_id: str) -> bool:
        entry = self.entry(task_id)
        return entry.state in state.ENDED or is_active(entry)

    def _rank(self, task_id: str) -> int:
        if task_id not in self._ranks:
            self._ranks[task_id] = _TELLING.index(self._kind(task_id))
        return self._ranks[task_id]

    def _kind(self, task_id: str) -> str:
        entry = self.entry(task_id)
        if entry.state in state.ENDED:
            return "failed"
        if is_active(entry):
            silent = any(self._is_silent(item) for item in running(entry))
            return "silent" if silent and entry.state == state.RUNNING else "runs"
        is_waiting = entry.state == state.WAITING or seconds_to_wait(entry, self.now)
        return "waits" if is_waiting else "ready"

    def _is_silent(self, attempt: Attempt) -> bool:
        now = self._watcher.look(attempt)
        return now.is_silent and not now.has_ended


def is_active(entry: TaskState) -> bool:
    """Whether something of the task is under way; a check that was stopped is not."""
    return entry.state in (state.RUNNING, state.VERIFYING) and bool(running(entry))


def running(entry: TaskState) -> list[Attempt]:
    """The attempts whose end nobody has noted yet, oldest first."""
    return [item for item in entry.attempts if item.get("result") == "running"]


def seconds_to_wait(entry: TaskState, now: float) -> float:
    """How long a task is not tried again; 0.0 when that is not what it waits for."""
    until = ids.parse_rfc3339(entry.until)
    if entry.state not in (state.PENDING, state.WAITING) or until is None:
        return 0.0
    return max(0.0, until / ids.NANOSECONDS - now)
