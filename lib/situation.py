"""What is true of a plan at this moment, for whoever looks: its own process, or another one.

Everything that shows or explains a plan works on a Situation.  The process
that runs the plan makes it from what it holds in memory, any other one from
the files.
"""

from __future__ import annotations

import os

from lib import state
from lib.errors import UserError
from lib.plan import Plan
from lib.state import Attempt, PlanState, TaskState


class Situation:
    """A plan, the state of its tasks, and who runs it.

    `header` is that of the state file: plan (its path, or with prompts_agent the
    pattern of its prompts), plan_sha256, started, pid, max_parallel, keep_going,
    scope (list of task ids, absent = all), closing and held (sentences: why
    nothing new starts), closed (providers whose quota is used up: until, reset,
    why), ended and exit_code once the plan is over.  How it was started last, to
    do that again (lib/plan_again.py): root, runs_dir, bus, cwd, config (path, "" for none),
    options (those of plan_again.KEPT that were given, by name).
    """

    def __init__(
        self,
        plan: Plan,
        header: dict[str, object],
        tasks: dict[str, TaskState],
        runs_dir: str,
        *,
        is_run: bool,
    ) -> None:
        self.plan = plan
        self.header = header
        self.tasks = tasks
        self.runs_dir = runs_dir
        self.is_run = is_run  # some process runs the plan now

    def text(self, key: str) -> str:
        value = self.header.get(key)
        return "" if value is None else str(value)

    def scope(self) -> list[str]:
        """The tasks of this start of the plan, in plan order."""
        chosen = self.header.get("scope")
        if not isinstance(chosen, list):
            return list(self.plan.tasks)
        wanted = {str(task_id) for task_id in chosen}
        return [task_id for task_id in self.plan.tasks if task_id in wanted]

    def running(self) -> list[tuple[str, Attempt]]:
        """(task id, attempt) of every run that is under way or being verified, oldest first."""
        found = [
            (task_id, attempt)
            for task_id, entry in self.tasks.items()
            if entry.state in (state.RUNNING, state.VERIFYING)
            for attempt in entry.attempts
            if attempt.get("result") == "running"
        ]
        return sorted(found, key=lambda item: str(item[1].get("started")))

    def count(self, *wanted: str) -> int:
        """How many tasks of the scope are in one of these states."""
        return sum(
            task_id in self.tasks and self.tasks[task_id].state in wanted
            for task_id in self.scope()
        )


def look(plan: Plan, runs_dir: str) -> Situation:
    """The situation as the files tell it; writes nothing.

    UserError when the plan was never started there, or its state is damaged.
    """
    plan_state = PlanState(runs_dir, plan.project)
    if not os.path.exists(plan_state.path):
        raise UserError(
            f"the plan of project {plan.project} was never started in {runs_dir}; "
            "start it, or name its --root"
        )
    plan_state.load()
    is_run = state.is_run(plan_state.folder)
    return Situation(plan, plan_state.header, plan_state.tasks, runs_dir, is_run=is_run)
