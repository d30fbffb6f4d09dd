"""What a page says of a project, or of a whole root: the facts of the monitor, bounded and redacted."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from lib import ids, redact
from lib.bus_parse import Message
from lib.index import TaskEntry
from lib.monitor.current import Current
from lib.monitor.facts import RED, Facts, Observer, Problem, RunView, first_line, reason_of
from lib.status_page import states
from lib.status_page.limits import COMMAND_LIMIT, PATH_LIMIT, TITLE_LIMIT, Limits
from lib.status_page.plans import Maker
from lib.status_page.records import MessagePart, Page, ProblemPart, RunPart, TaskPart

DAY_NS = 24 * 3600 * ids.NANOSECONDS


def of_project(facts: Facts, observer: Observer, project: str, limits: Limits) -> Page:
    """A page about one project: its plan, if it has one."""
    page = _page(facts, observer, limits)
    page.project = redact.one_line(project, TITLE_LIMIT)
    maker = Maker(observer.index, facts.time, limits)
    views = [view for view in facts.plans if view.project == project]
    page.plan = maker.part(views[0]) if views else None
    return page


def of_root(facts: Facts, observer: Observer, limits: Limits) -> Page:
    """A page about everything below a root, the newest plans in detail."""
    page = _page(facts, observer, limits)
    maker = Maker(observer.index, facts.time, limits)
    for number, view in enumerate(facts.plans[: limits.plans]):
        has_room = number < limits.details and (len(view.scope) <= maker.room or not number)
        page.plans.append(maker.part(view) if has_room else maker.row(view))
    page.plan_total = len(facts.plans)
    return page


def _page(facts: Facts, observer: Observer, limits: Limits) -> Page:
    index = observer.index
    page = Page(facts.time, redact.one_line(index.runs_dir, PATH_LIMIT), "")
    page.problems = [problem_part(item, limits) for item in facts.problems[: limits.problems]]
    page.problem_total = len(facts.problems)
    page.live = [_run(view) for view in facts.live[: limits.rows]]
    page.live_total = len(facts.live)
    page.ended = [_run(view) for view in facts.ended[: limits.rows]]
    page.run_total = facts.run_count
    page.messages = [_message(item, limits) for item in facts.messages[: limits.rows]]
    others = list(_tasks_outside(observer))
    newest = heapq.nlargest(limits.rows, others, key=lambda task: (task.is_live, task.last_ns))
    page.tasks = [_task(task, limits) for task in newest]
    page.task_total = len(others)
    tally = Current(index).tally(facts.plans)
    page.counts, page.usage = tally.counts, tally.usage
    page.seconds, page.seconds_left = tally.elapsed_seconds, tally.seconds_left
    return page


# -- its parts


def problem_part(problem: Problem, limits: Limits) -> ProblemPart:
    """A problem, with the command that helps where that can be shown as it is."""
    return ProblemPart(
        problem.kind,
        problem.kind in RED,
        redact.one_line(problem.text, max(limits.why, 2 * limits.name)),
        _command(problem.command),
        problem.when_ns / ids.NANOSECONDS if problem.when_ns else None,
    )


def _command(line: str) -> str:
    """A line that is shown is one that may be copied: as it is, or not at all."""
    return line if redact.one_line(line, COMMAND_LIMIT) == line else ""


def _run(view: RunView) -> RunPart:
    status = view.entry.state.status
    is_stopped = view.entry.run.record.get("stopped") is True and not view.entry.is_live
    return RunPart(
        name=redact.one_line(view.name, TITLE_LIMIT),
        run=redact.one_line(view.entry.run.run_id, TITLE_LIMIT),
        agent=redact.one_line(view.agent, 40),
        kind=states.STOPPED if is_stopped else states.of_run(status),
        word="stopped" if is_stopped else "done" if status == "completed" else status,
        started=view.entry.started_ns / ids.NANOSECONDS or None,
        seconds=view.seconds,
        usage=view.usage,
        last=redact.one_line(view.last if view.activity else _end_of(view), TITLE_LIMIT),
    )


def _end_of(view: RunView) -> str:
    return reason_of(view.entry) if view.entry.state.status != "completed" else ""


def _tasks_outside(observer: Observer) -> Iterable[TaskEntry]:
    plans = observer.index.plans
    for (project, name), task in observer.index.tasks.items():
        is_planned = project in plans and ids.planned_task(name) in plans[project].tasks
        if observer.admits(project, name) and not is_planned:
            yield task


def _task(task: TaskEntry, limits: Limits) -> TaskPart:
    kind, word = _standing(task)
    why = str((task.loop or {}).get("why") or "")
    if not why and task.blocked_by:
        why = f"waits for {', '.join(task.blocked_by)}"
    return TaskPart(
        redact.one_line(f"{task.project}/{task.task}", limits.name),
        kind,
        word,
        redact.one_line(why, limits.why),
        len(task.runs),
        task.last_ns / ids.NANOSECONDS or None,
    )


def _standing(task: TaskEntry) -> tuple[str, str]:
    if task.is_live:
        return states.RUNNING, "running"
    if task.done:
        return states.DONE, "done"
    if task.blocked_by and not task.runs:
        return states.BLOCKED, "blocked"
    kind = states.of_run(task.status)
    return kind, {states.DONE: "done", states.PENDING: "not begun"}.get(kind, task.status)


def _message(message: Message, limits: Limits) -> MessagePart:
    who = "/".join(part for part in (message.project_id, message.task_id) if part)
    return MessagePart(
        redact.one_line(message.ts, 40),
        redact.one_line(message.type, 20),
        redact.one_line(who, limits.name),
        redact.one_line(first_line(message), limits.why),
    )
