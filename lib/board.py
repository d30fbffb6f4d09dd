"""Where every task of a plan stands, and what may start next: pure bookkeeping.

No process, no clock, no file.  The board is told how tasks end; it says which
are released (all they need is done, and the barrier before them is open),
which are blocked for good, and when a stage has ended.
"""

from __future__ import annotations

from collections.abc import Collection

from lib import state
from lib.plan import Plan, depends
from lib.state import TaskState


class Board:
    """The tasks of one start of a plan; `tasks` is the plan's state and changes with it."""

    def __init__(
        self, plan: Plan, tasks: dict[str, TaskState], scope: Collection[str], keep_going: bool
    ) -> None:
        self.plan = plan
        self.tasks = tasks
        self.scope = frozenset(scope)
        self.keep_going = keep_going
        self.failed_task = ""  # the critical task whose failure lets nothing new start
        self.changed: set[str] = set()  # tasks whose change has not been saved
        self.ended_stages: list[str] = []  # to be told, and then cleared, by the caller
        self._links = depends(plan)
        self._open_needs = {
            task_id: sum(tasks[need].state != state.DONE for need in needs)
            for task_id, needs in self._links.needs.items()
        }
        self._stage_open = [0] * len(plan.stages)
        for task_id in self.scope:
            if tasks[task_id].state != state.DONE:
                self._stage_open[self._links.stage_of[task_id]] += 1

    def count(self, *wanted: str) -> int:
        """How many tasks of the scope are in one of these states."""
        return sum(self.tasks[task_id].state in wanted for task_id in self.scope)

    def is_complete(self) -> bool:
        return self.count(state.DONE) == len(self.scope)

    def set(self, task_id: str, new: str, why: str = "", until: str = "") -> None:
        """Note where a task stands now, why in one sentence, and until when if that is known."""
        entry = self.tasks[task_id]
        entry.state, entry.why, entry.until = new, why, until
        self.touch(task_id)

    def touch(self, task_id: str) -> None:
        """Say that something about a task has changed."""
        self.tasks[task_id].changed()
        self.changed.add(task_id)

    def released(self) -> list[str]:
        """Every task that may start, in plan order."""
        return [task_id for task_id in self.plan.tasks if self._is_released(task_id)]

    def _is_released(self, task_id: str) -> bool:
        if task_id not in self.scope or self.tasks[task_id].state != state.PENDING:
            return False
        gate = self._links.gate[self._links.stage_of[task_id]]
        return not self._open_needs[task_id] and self._is_open(gate)

    def _is_open(self, gate: int) -> bool:
        """Whether the stage `gate`, and every barrier before it, has ended."""
        while gate >= 0:
            if self._stage_open[gate]:
                return False
            gate = self._links.gate[gate]
        return True

    def succeed(self, task_id: str) -> list[str]:
        """A task is done; returns the tasks that this releases, in plan order."""
        self.set(task_id, state.DONE)
        released = []
        for waiting in self._links.needed_by[task_id]:
            self._open_needs[waiting] -= 1
            if self._is_released(waiting):
                released.append(waiting)
        return released + self._leave_stage(task_id)

    def fail(self, task_id: str, why: str) -> list[str]:
        """A task has failed for good; what depends on it is blocked.

        Returns what the end of its stage releases, if that is a matter of time
        alone: a task that is not critical, or `keep_going`.
        """
        self.set(task_id, state.FAILED, why)
        released = self._leave_stage(task_id)
        for blocked, needed in self._dependents(task_id):
            self.set(blocked, state.BLOCKED, f"needs {needed}, which did not succeed")
            released += self._leave_stage(blocked)
        if self.plan.tasks[task_id].critical and not self.keep_going:
            self.failed_task = self.failed_task or task_id
        return [name for name in released if self._is_released(name)]

    def _dependents(self, task_id: str) -> list[tuple[str, str]]:
        """(task, what it needs) for all that cannot start any more, each once."""
        found: dict[str, str] = {}
        queue = [task_id]
        while queue:
            needed = queue.pop()
            for waiting in self._links.needed_by[needed]:
                in_reach = waiting in self.scope and self.tasks[waiting].state == state.PENDING
                if in_reach and waiting not in found:
                    found[waiting] = needed
                    queue.append(waiting)
        return list(found.items())

    def _leave_stage(self, task_id: str) -> list[str]:
        if task_id not in self.scope:
            return []
        index = self._links.stage_of[task_id]
        self._stage_open[index] -= 1
        if self._stage_open[index]:
            return []
        self.ended_stages.append(self.plan.stages[index].id)
        if not self.plan.stages[index].barrier:
            return []
        released = []
        for later in range(index + 1, len(self.plan.stages)):
            stage = self.plan.stages[later]
            released += [task.id for task in stage.tasks if self._is_released(task.id)]
            if stage.barrier and self._stage_open[later]:
                break
        return released

    def explain_the_rest(self, why: str) -> None:
        """Give every task that was never started its reason."""
        for task_id in self.scope:
            entry = self.tasks[task_id]
            if entry.state == state.PENDING and not entry.why:
                self.set(task_id, state.PENDING, why)
