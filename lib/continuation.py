"""Going on with a plan: what earlier starts left, laid under the plan as it is now."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass, field

from lib import ids, review, state
from lib.plan import Plan, Task
from lib.prompts import Generated
from lib.settings import Settings
from lib.state import PlanState, TaskState

_OF_ONE_START = ("closing", "held", "ended", "exit_code", "scope", "prompts_agent")


@dataclass(slots=True)
class Found:
    """What a start found changed since the one before."""

    changed: list[str] = field(default_factory=list)  # done, and different since
    forgotten: list[str] = field(default_factory=list)  # no longer in the plan


def merge(
    plan: Plan,
    plan_state: PlanState,
    prompts: dict[str, Generated],
    scope: Collection[str],
    settings: Settings,
) -> Found:
    """Make the state that of this start: what is done stays done, the rest of the scope is open.

    With `settings.redo_changed` what has changed since it was done is open, too.
    """
    found = Found()
    tasks: dict[str, TaskState] = {}
    old = plan_state.tasks
    for task in plan.tasks.values():
        entry = old.get(task.id, TaskState())
        digest = digest_of(task, prompts[task.id].sha256)
        if entry.state == state.DONE and entry.digest != digest:
            found.changed.append(task.id)
            if settings.redo_changed and task.id in scope:
                _void_all(entry)
                entry.state = state.PENDING
        if entry.state != state.DONE and task.id in scope:
            if entry.state == state.FAILED:
                _void_verdicts(entry)
            entry.digest, entry.prompt_sha256 = digest, prompts[task.id].sha256
            entry.state, entry.why, entry.until = state.PENDING, "", ""
        entry.changed()
        tasks[task.id] = entry
    found.forgotten = [task_id for task_id in old if task_id not in tasks]
    plan_state.tasks = tasks
    plan_state.header = _header(plan, plan_state.header, scope, settings)
    return found


def _header(
    plan: Plan, old: dict[str, object], scope: Collection[str], settings: Settings
) -> dict[str, object]:
    header = {key: value for key, value in old.items() if key not in _OF_ONE_START}
    header.update(
        plan=plan.path,
        plan_sha256=plan.sha256,
        started=old.get("started") or ids.rfc3339(),
        root=settings.root,
        runs_dir=settings.runs_dir,
        bus=settings.bus_path,
        pid=os.getpid(),
        max_parallel=settings.max_parallel,
        keep_going=settings.keep_going,
        **settings.manner,
    )
    if settings.prompts_agent:
        header["prompts_agent"] = settings.prompts_agent
    if len(scope) < len(plan.tasks):
        header["scope"] = [task_id for task_id in plan.tasks if task_id in scope]
    return header


def _void_all(entry: TaskState) -> None:
    """What is to be done again was not done; its runs stay on the record."""
    for attempt in entry.attempts:
        if attempt.get("result") == "done":
            attempt["result"] = "void"


def _void_verdicts(entry: TaskState) -> None:
    """A review that failed is held again: after a rejection by all, else by who did not approve."""
    done = [item for item in entry.attempts if item.get("result") == "done"]
    rejected = any(item.get("verdict") == review.REJECT for item in done)
    for attempt in done:
        if rejected or attempt.get("verdict") != review.APPROVE:
            attempt["result"] = "void"


def digest_of(task: Task, prompt_sha256: str) -> str:
    """What makes the task's work what it is: prompt, agent or role, and proof."""
    parts = (prompt_sha256, task.agent, task.role, task.verify, task.expect)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
