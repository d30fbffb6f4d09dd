"""Which tasks of a plan a start is about: all of them, or what the user chose."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lib import state
from lib.errors import UsageError
from lib.plan import Plan
from lib.state import TaskState


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user asked for; empty = everything."""

    only: tuple[str, ...] = ()
    from_stage: str = ""
    to_stage: str = ""
    retry_failed: bool = False


def choose(plan: Plan, choice: Choice, runs_dir: str) -> frozenset[str]:
    """The ids of the chosen tasks; UsageError for a name that the plan does not have."""
    if choice.only and (choice.from_stage or choice.to_stage or choice.retry_failed):
        raise UsageError("--only goes with no other choice of tasks; leave the others out")
    if choice.only:
        return _only(plan, choice.only)
    chosen = _stages(plan, choice.from_stage, choice.to_stage)
    if choice.retry_failed:
        chosen &= _failed(plan, runs_dir)
        if not chosen:
            raise UsageError("--retry-failed: nothing has failed; start the plan without it")
    return chosen


def _only(plan: Plan, wanted: Collection[str]) -> frozenset[str]:
    unknown = [name for name in wanted if name not in plan.tasks]
    if unknown:
        raise UsageError(f"--only: no task {unknown[0]!r} in {plan.path}; --dry-run lists them")
    return frozenset(wanted)


def _stages(plan: Plan, first: str, last: str) -> frozenset[str]:
    names = [stage.id for stage in plan.stages]
    for option, name in (("--from-stage", first), ("--to-stage", last)):
        if name and name not in names:
            raise UsageError(
                f"{option}: no stage {name!r} in {plan.path}; it has {', '.join(names)}"
            )
    begin = names.index(first) if first else 0
    end = names.index(last) if last else len(names) - 1
    if begin > end:
        raise UsageError(f"--from-stage {first} comes after --to-stage {last}; exchange them")
    return frozenset(task.id for stage in plan.stages[begin : end + 1] for task in stage.tasks)


def _failed(plan: Plan, runs_dir: str) -> frozenset[str]:
    """What failed at the last start, and what could not start because of that."""
    path = os.path.join(runs_dir, plan.project, state.STATE_NAME)
    if not os.path.exists(path):
        return frozenset()
    wanted = (state.FAILED, state.BLOCKED)
    return frozenset(name for name, entry in state.read(path).items() if entry.state in wanted)


def check_needs(plan: Plan, scope: Collection[str], tasks: Mapping[str, TaskState]) -> None:
    """UsageError when a chosen task needs one that is neither chosen nor done."""
    for task_id in plan.tasks:
        for need in plan.tasks[task_id].depends_on if task_id in scope else ():
            is_done = need in tasks and tasks[need].state == state.DONE
            if need not in scope and not is_done:
                raise UsageError(
                    f"of the chosen tasks {task_id} needs {need}, which is not done; choose it too"
                )
