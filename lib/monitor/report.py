"""The facts of the monitor as one JSON object, for scripts; docs/monitor.md describes it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TypeVar

from lib import ids, listing, redact
from lib.index import TaskEntry
from lib.index_entries import RunEntry
from lib.monitor.facts import Facts, Observer, Problem, RunView
from lib.monitor.plans import PlanView

Item = TypeVar("Item")


def as_dict(facts: Facts, observer: Observer, limit: int) -> dict[str, object]:
    """All that runs, and of what is over the newest `limit` runs, tasks and messages (0 = all)."""
    index = observer.index
    entries = [e for e in index.runs.values() if observer.admits(e.project, e.task)]
    live = {view.key: view for view in facts.live}
    ended = _newest([entry for entry in entries if entry.path not in live], limit, RunEntry.order)
    tasks = [task for task in index.tasks.values() if observer.admits(task.project, task.task)]
    active = [task for task in tasks if task.is_live]
    resting = _newest([task for task in tasks if not task.is_live], limit, _task_age)
    messages = facts.messages if not limit else facts.messages[:limit]
    return {
        "time": ids.rfc3339_of(facts.time),
        "runs_dir": index.runs_dir,
        "problems": [_problem(problem) for problem in facts.problems],
        "runs": [_run(entry, live.get(entry.path)) for entry in _with(live, ended)],
        "runs_left_out": len(entries) - len(live) - len(ended),
        "tasks": [_task(task) for task in [*active, *resting]],
        "tasks_left_out": len(tasks) - len(active) - len(resting),
        "plans": [_plan(plan) for plan in facts.plans],
        "messages": [message.as_dict() for message in messages],
        "cost_usd": facts.cost_usd,
    }


def to_json(value: dict[str, object]) -> str:
    """One line, redacted."""
    return listing.to_json(redact.values(value))


def _with(live: dict[str, RunView], ended: list[RunEntry]) -> list[RunEntry]:
    return [*(view.entry for view in live.values()), *ended]


def _newest(items: list[Item], limit: int, key: Callable[[Item], tuple[int, str]]) -> list[Item]:
    return heapq.nlargest(limit or len(items), items, key=key)


def _task_age(task: TaskEntry) -> tuple[int, str]:
    return task.last_ns, task.task


def _moment(nanoseconds: int | None) -> str | None:
    return ids.rfc3339(nanoseconds) if nanoseconds else None


def _problem(problem: Problem) -> dict[str, object]:
    return {
        "kind": problem.kind,
        "text": problem.text,
        "project": problem.project or None,
        "task": problem.task or None,
        "run": problem.entry.run.run_id if problem.entry else None,
        "time": _moment(problem.when_ns),
    }


def _run(entry: RunEntry, view: RunView | None) -> dict[str, object]:
    fields = listing.as_dict(listing.Row(entry.run))
    now = view.activity if view else None
    fields.update(
        project_id=entry.project,
        task_id=entry.task,
        status=entry.state.status,
        exit_code=listing.known_code(entry.state),
        reason=entry.state.reason,
        alive_by=entry.state.holder,
        elapsed_seconds=round(now.elapsed_seconds if now else entry.run.seconds(), 3),
        idle_seconds=round(now.silent_seconds, 3) if now else None,
        is_silent=now.is_silent if now else False,
        last_line=view.last if view else None,
    )
    return fields


def _task(task: TaskEntry) -> dict[str, object]:
    return {
        "project_id": task.project,
        "task_id": task.task,
        "status": task.status,
        "done": task.done,
        "blocked_by": task.blocked_by,
        "loop": task.loop_state or None,
        "loop_is_live": task.loop_is_live,
        "runs": len(task.runs),
        "newest_run": task.runs[0].run.run_id if task.runs else None,
        "last": _moment(task.last_ns),
    }


def _plan(plan: PlanView) -> dict[str, object]:
    header = {
        key: plan.text(key) or None for key in ("plan", "started", "ended", "closing", "held")
    }
    left = plan.seconds_left()
    return {
        "project_id": plan.project,
        **header,
        "exit_code": plan.entry.header.get("exit_code"),
        "is_run": plan.entry.is_run,
        "problem": plan.entry.problem or None,
        "counts": plan.counts,
        "seconds_left": None if left is None else round(left),
        "tasks": [_plan_task(plan, task_id) for task_id in plan.scope],
    }


def _plan_task(plan: PlanView, task_id: str) -> dict[str, object]:
    entry = plan.task(task_id)
    last = entry.attempts[-1] if entry.attempts else {}
    return {
        "task": task_id,
        "state": entry.state,
        "why": plan.sentence(task_id),
        "until": entry.until or None,
        "attempts": len(entry.attempts),
        "agent": last.get("agent"),
        "run": last.get("run"),
    }
