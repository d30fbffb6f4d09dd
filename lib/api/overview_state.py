"""What the first page shows, as JSON: made once for each moment, whoever asks.

It rests on the observer of the monitor (lib/monitor/facts.py), which is told what
the refreshes of the view find.
"""

from __future__ import annotations

import heapq
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from lib import ids, redact
from lib.api import plan_shapes, shapes
from lib.api.exchange import encode
from lib.api.facts import Facts, by_project
from lib.api.shapes import Shape
from lib.index_entries import Changes
from lib.monitor.current import Current
from lib.monitor.facts import Observer, Problem, RunView, first_line
from lib.runs import FAILED
from lib.usage import Usage

if TYPE_CHECKING:
    from lib.api.view import View
    from lib.index import Index, TaskEntry
    from lib.monitor.current import Tally
    from lib.monitor.plans import PlanView

STANDS_SECONDS = 0.5  # so long an answer stands in which time alone changes something
MOST_PROBLEMS, MOST_LIVE, MOST_PLANS, MOST_PROJECTS = 200, 500, 20, 20
MAX_EVENT = 200  # characters of the last message
BAD, WARN = "bad", "warn"


class _Kept(NamedTuple):
    data: bytes
    moment: tuple[int, int]
    made: float


class Overview:
    """To be asked inside `view.current()` only, with `facts` prepared."""

    def __init__(self, view: View, facts: Facts) -> None:
        self._view = view
        self._facts = facts
        self._changes = Changes()  # since the last answer
        self._observer: Observer | None = None
        self._current: Current | None = None
        self._summaries: dict[str, tuple[int, Shape]] = {}  # of plans, as of a count of tokens
        self._kept: _Kept | None = None
        view.listen(self._note)

    def _note(self, changes: Changes) -> None:
        self._changes.add(changes)

    def answer(self, index: Index) -> bytes:
        """All of it, as JSON.

        Never older than what was found last: who is told of a change and asks
        then is told of that.
        """
        now, moment = time.monotonic(), (self._view.count, redact.added())
        kept = self._kept
        if kept is None or kept.moment != moment or now >= kept.made + STANDS_SECONDS:
            data = encode(shapes.redacted(self._make(index))) + b"\n"
            kept = self._kept = _Kept(data, moment, now)
        return kept.data

    def _make(self, index: Index) -> Shape:
        if self._observer is None or self._current is None:
            self._observer, self._current = Observer(index), Current(index)
        changes, self._changes = self._changes, Changes()
        observer = self._observer
        observer.take(changes)
        self._current.take(changes)
        for project in changes.plans:
            self._summaries.pop(project, None)
        live, plans = observer.live(), observer.plans()
        problems = observer.problems(live, plans)
        tally = self._current.tally(plans)
        return {
            "time": ids.rfc3339(),
            **_tally(tally),
            "disk": _disk(index.runs_dir),
            "last_event": _last_event(index),
            "problems": [_problem(problem) for problem in problems[:MOST_PROBLEMS]],
            "problem_total": len(problems),
            "live": [_live(view, observer) for view in live[:MOST_LIVE]],
            "live_total": len(live),
            "plans": [self._plan(plan) for plan in plans[:MOST_PLANS]],
            "plan_total": len(plans),
            **self._projects(index),
        }

    def _plan(self, plan: PlanView) -> Shape:
        tokens = redact.added()
        known = self._summaries.get(plan.project)
        if known is None or known[0] != tokens:
            shape = {
                **plan_shapes.summary(plan.entry),
                "title": plan.plan.title if plan.plan else "",
            }
            known = self._summaries[plan.project] = (tokens, shape)
        left = plan.seconds_left()
        return {**known[1], "seconds_left": None if left is None else round(left)}

    def _projects(self, index: Index) -> Shape:
        rows = [self._project(*item) for item in by_project(index).items()]
        live = [index.key_of(entry.path)[0] for entry in index.live()]
        shown = heapq.nlargest(MOST_PROJECTS, rows)
        return {
            "projects": [{**row.fields(), "live_count": live.count(row.project)} for row in shown],
            "project_total": len(rows),
            "run_total": sum(row.runs for row in rows),
        }

    def _project(self, project: str, members: list[TaskEntry]) -> _Project:
        known = [self._facts.of_task(entry) for entry in members]
        last = max((item.last for item in known), default=(0, ""))
        count = sum(len(item.entries) for item in known)
        failed = sum(bool(item.entries) and item.status == FAILED for item in known)
        return _Project(last, project, len(members), count, failed)


class _Project(NamedTuple):
    """Sorted by when something last happened in it."""

    last: tuple[int, str]
    project: str
    tasks: int
    runs: int
    failed: int

    def fields(self) -> Shape:
        return {
            "id": self.project,
            "task_count": self.tasks,
            "run_count": self.runs,
            "failed_count": self.failed,
            "last_activity": self.last[1] if self.last[0] else None,
        }


def _tally(tally: Tally) -> Shape:
    elapsed, left = tally.elapsed_seconds, tally.seconds_left
    return {
        "counts": tally.counts,
        "total": sum(tally.counts.values()),
        "since": _moment(tally.since_ns),
        "elapsed_seconds": None if elapsed is None else round(elapsed),
        "seconds_left": None if left is None else round(left),
        "usage": tally.usage.fields(),
    }


def _disk(path: str) -> Shape:
    """As `df` tells it to this user; null where nobody can."""
    try:
        status = os.statvfs(path)
    except OSError:
        return {"free_bytes": None, "total_bytes": None}
    size = status.f_frsize
    return {"free_bytes": status.f_bavail * size, "total_bytes": status.f_blocks * size}


def _last_event(index: Index) -> Shape | None:
    """The newest message of all buses."""
    for message in index.messages(1):
        when = ids.parse_rfc3339(message.ts)
        return {
            "time": ids.rfc3339() if when is None else shapes.time_text(message.ts, when),
            "type": redact.one_line(message.type),
            "text": first_line(message)[:MAX_EVENT],
            "project_id": message.project_id or None,
            "task_id": message.task_id or None,
            "run_id": message.run_id or None,
        }
    return None


def _problem(problem: Problem) -> Shape:
    return {
        "kind": problem.kind,
        "severity": BAD if problem.colour == "red" else WARN,
        "text": problem.text,
        "project_id": problem.project,
        "task_id": problem.task,
        "run_id": problem.entry.run.run_id if problem.entry else None,
        "since": _moment(problem.when_ns),
        "command": problem.command,
    }


def _live(view: RunView, observer: Observer) -> Shape:
    entry, now = view.entry, view.activity
    used = Usage([entry.run.record])
    return {
        "run_id": entry.run.run_id,
        "project_id": entry.project,
        "task_id": entry.task,
        "agent": entry.agent,
        "model": entry.run.text("model") or None,
        "status": entry.state.status,
        "started": _moment(entry.started_ns),
        "seconds": round(view.seconds, 1),
        "silent_seconds": round(now.silent_seconds, 1) if now else None,
        "last_line": view.last,
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "cost_usd": None if used.cost_usd is None else round(used.cost_usd, 6),
        "cost_estimated": used.is_estimated,
        "title": _title(observer.plan_of(entry.project), entry.task),
    }


def _title(view: PlanView | None, task: str) -> str:
    """What its plan calls a task, also for one of the reviews of it."""
    plan = view.plan if view else None
    found = plan.tasks.get(ids.planned_task(task)) if plan else None
    return found.title if found else ""


def _moment(nanoseconds: int) -> str | None:
    text = shapes.time_text("", nanoseconds or None)
    return None if text == ids.ZERO_TIME else text
