"""How a task stands for somebody who waits for its end, whoever works on it.

A task of a plan stands as the plan's state says, one in a task folder as its
loop says; without a loop of ours, and for flat runs, by its newest run.
"""

from __future__ import annotations

from lib import loop_record, runs, state, tasks
from lib.index import Index, TaskEntry
from lib.index_entries import PlanEntry


class Standing:
    """`status` in a word, `why` in a sentence or "", and whether it has ended, and well.

    `is_idle`: nobody is at work on it. It ends so only if that lasts: between
    two attempts of a loop of the original there is a moment without a run,
    and who starts a plan again needs one.
    """

    __slots__ = ("has_ended", "is_good", "is_idle", "status", "why")

    def __init__(
        self,
        status: str,
        why: str = "",
        *,
        has_ended: bool = False,
        is_good: bool = False,
        is_idle: bool = False,
    ) -> None:
        self.status = status
        self.why = why
        self.has_ended = has_ended
        self.is_good = is_good
        self.is_idle = is_idle


def look(index: Index, project: str, task: str) -> Standing | None:
    """How that task stands by an index that is current; None for one that is not known."""
    plan = index.plans.get(project)
    if plan is not None and task in plan.tasks:
        return _in_plan(plan, task)
    entry = index.tasks.get((project, task))
    if entry is None:
        return None
    if entry.loop is not None:
        return _in_loop(entry, entry.loop)
    return _by_runs(entry)


def known(index: Index, project: str) -> list[str]:
    """The names of the tasks of a project."""
    plan = index.plans.get(project)
    names = {task for owner, task in index.tasks if owner == project}
    return sorted(names | set(plan.tasks if plan else ()))


def _in_plan(plan: PlanEntry, task_id: str) -> Standing:
    task = plan.tasks[task_id]
    if task.state in state.ENDED:
        return Standing(task.state, task.why, has_ended=True, is_good=task.state == state.DONE)
    if plan.is_run:
        return Standing(task.state, task.why)
    return Standing(task.state, "nobody runs the plan; run-all-tasks.py goes on", is_idle=True)


def _in_loop(entry: TaskEntry, loop: dict[str, object]) -> Standing:
    why = str(loop.get("why") or "")
    if entry.loop_is_live:
        return Standing(entry.loop_state or runs.RUNNING, why)
    if entry.loop_state in loop_record.ENDED:
        # One that is held is about to close, or was reopened and has not noted that yet.
        is_open = loop_record.is_held(tasks.Task(entry.path))
        is_good = entry.loop_state == loop_record.DONE
        return Standing(entry.loop_state, why, has_ended=not is_open, is_good=is_good)
    if entry.is_live:
        return Standing(runs.RUNNING, "its loop is gone, its agent lives; run-task goes on")
    if entry.done:
        return Standing("done", "its loop is gone", is_good=True, is_idle=True)
    return Standing(entry.loop_state or "lost", "its loop is gone; run-task goes on", is_idle=True)


def _by_runs(entry: TaskEntry) -> Standing:
    if entry.is_live:
        return Standing(runs.RUNNING)
    newest = entry.runs[0].state if entry.runs else None
    why = newest.reason if newest else ""
    if entry.done:
        return Standing("done", has_ended=True, is_good=True)
    if entry.status not in runs.ENDED:
        waits_for = f"waits for {', '.join(entry.blocked_by)}" if entry.blocked_by else why
        return Standing(entry.status, waits_for)
    is_good = entry.status == runs.COMPLETED
    if entry.path:
        return Standing(entry.status, why, is_good=is_good, is_idle=True)
    return Standing(entry.status, why, has_ended=True, is_good=is_good)
