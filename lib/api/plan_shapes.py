"""Plans as JSON: how each stands, its stages, what waits for what, and what it has used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lib import ids, plan_path, quota, quota_watch, state
from lib.api import plan_tasks, shapes
from lib.api.exchange import encode
from lib.api.facts import join
from lib.api.shapes import Shape
from lib.situation import Situation
from lib.usage import Usage

if TYPE_CHECKING:
    from lib.api.plan_tasks import Links, Part, Parts
    from lib.index import Index
    from lib.index_entries import PlanEntry
    from lib.monitor.plans import PlanView
    from lib.plan import Plan, Stage
    from lib.state import Attempt

RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"
GONE, IDLE, UNREADABLE = "gone", "idle", "unreadable"
STATES = (RUNNING, DONE, FAILED, STOPPED, GONE, IDLE, UNREADABLE)
WAITING, PENDING = "waiting", "pending"
STAGE_STATES = (RUNNING, WAITING, PENDING, FAILED, DONE)
_AT_WORK = (state.RUNNING, state.VERIFYING)
_STUCK = (state.FAILED, state.BLOCKED)
_LEFT = (*_AT_WORK, state.WAITING, state.PENDING)


def summary(entry: PlanEntry) -> Shape:
    """A plan in a list; of one whose state is damaged what was read last."""
    scope = _scope(entry)
    counts = _count(entry, scope)
    used = Usage(_attempts(entry, scope)).fields()
    fields: Shape = {
        "project_id": entry.project,
        "state": state_of(entry),
        "is_run": entry.is_run,
        "counts": counts,
        "total": len(scope),
        "started": plan_tasks.moment(entry.header.get("started")),
        "updated": _updated(entry),
        "ended": None if entry.is_run else plan_tasks.moment(entry.header.get("ended")),
        "exit_code": None if entry.is_run else plan_tasks.whole(entry.header.get("exit_code")),
        **used,
    }
    return shapes.redacted({**fields, **({"problem": entry.problem} if entry.problem else {})})


def state_of(entry: PlanEntry) -> str:
    """One of STATES; `gone` is a plan that nobody runs any more and that did not come to its end."""
    if entry.is_run:
        return RUNNING
    if entry.problem:
        return UNREADABLE
    counts = _count(entry, _scope(entry))
    is_open = any(counts.get(where) for where in _LEFT)
    if is_open and not entry.header.get("ended"):
        return GONE if entry.header.get("started") else IDLE
    if any(counts.get(where) for where in _STUCK):
        return FAILED
    if is_open:
        return STOPPED
    return DONE if counts else IDLE


def detail(index: Index, view: PlanView, parts: Parts, tokens: int) -> bytes:
    """All of a plan; `view` has been refreshed, `parts` are those of the same plan."""
    plan, entry = view.plan, view.entry
    links = plan_tasks.Links(entry, plan, _scope(entry))
    tasks = parts.make(index, view, links, tokens)
    left = view.seconds_left()
    more: Shape = {
        "title": plan.title if plan else "",
        "plan": view.text("plan"),
        "is_plan_known": plan is not None,
        "max_parallel": plan_tasks.whole(entry.header.get("max_parallel")),
        "hold": view.hold(),
        "seconds_left": None if left is None else round(left),
        "stages": _stages(entry, plan, links),
        "critical_path": _critical_path(index, entry, plan),
        "edges": [{"from": need, "to": name} for name in links.ids for need in links.needs(name)],
        "timeline": _timeline(entry, tasks.values()),
        "totals": _totals(entry, links.scope),
        "quota_waits": _quota_waits(entry, links.scope),
    }
    rest = encode({**summary(entry), **shapes.redacted(more)})
    shown = join(part.json(view.sentence(name)) for name, part in tasks.items())
    return rest[:-1] + b',"tasks":' + shown + b"}\n"


# -- stages


def _stages(entry: PlanEntry, plan: Plan | None, links: Links) -> list[Shape]:
    scope = set(links.scope)
    if plan is None:
        only = plan_tasks.stage_without_plan(entry)
        return [_stage(entry, only, only, links.ids, scope, is_open=True)] if only else []
    found: list[Shape] = []
    is_open = True
    for stage in plan.stages:
        names = [task.id for task in stage.tasks]
        shape = _stage(entry, stage.id, stage.title, names, scope, is_open=is_open)
        found.append({**shape, "barrier": stage.barrier})
        is_open = is_open and not (stage.barrier and _has_left(entry, stage, scope))
    return found


def _has_left(entry: PlanEntry, stage: Stage, scope: set[str]) -> bool:
    names = (task.id for task in stage.tasks if task.id in scope)
    return any(_where(entry, name) not in state.ENDED for name in names)


def _stage(
    entry: PlanEntry,
    stage: str,
    title: str,
    names: Sequence[str],
    scope: set[str],
    *,
    is_open: bool,
) -> Shape:
    counts = _count(entry, [name for name in names if name in scope])
    return {
        "id": stage,
        "title": title,
        "barrier": True,
        "is_open": is_open,
        "state": _stage_state(counts),
        "counts": counts,
        "tasks": list(names),
    }


def _stage_state(counts: Mapping[str, int]) -> str:
    """One of STAGE_STATES; a stage of which nothing was chosen is pending."""
    if any(counts.get(where) for where in _AT_WORK):
        return RUNNING
    if counts.get(state.WAITING):
        return WAITING
    if counts.get(state.PENDING) or not counts:
        return PENDING
    return FAILED if any(counts.get(where) for where in _STUCK) else DONE


# -- the whole


def _critical_path(index: Index, entry: PlanEntry, plan: Plan | None) -> list[str]:
    if plan is None:
        return []
    return plan_path.critical_path(
        Situation(plan, entry.header, entry.tasks, index.runs_dir, is_run=entry.is_run)
    )


def _scope(entry: PlanEntry) -> list[str]:
    """The tasks of its last start."""
    chosen = entry.header.get("scope")
    if not isinstance(chosen, list):
        return list(entry.tasks)
    wanted = {str(name) for name in chosen}
    return [name for name in entry.tasks if name in wanted]


def _where(entry: PlanEntry, name: str) -> str:
    return entry.tasks[name].state if name in entry.tasks else state.PENDING


def _count(entry: PlanEntry, names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        where = _where(entry, name)
        counts[where] = counts.get(where, 0) + 1
    return counts


def _attempts(entry: PlanEntry, names: Iterable[str]) -> list[Attempt]:
    return [item for name in names if name in entry.tasks for item in entry.tasks[name].attempts]


def _totals(entry: PlanEntry, scope: Iterable[str]) -> Shape:
    """As the summary of a plan has them."""
    attempts = _attempts(entry, scope)
    used = Usage(attempts)
    return {
        **plan_tasks.use_of(attempts),
        "tokens_text": used.total_sentence(),
        "cost_text": used.cost_sentence(),
    }


def _timeline(entry: PlanEntry, tasks: Iterable[Part]) -> Shape:
    """From the first start to the last end, or to now while the plan is run."""
    found = list(tasks)
    starts = [start for part in found for start in part.starts]
    ends = [end for part in found for end in part.ends]
    if entry.is_run or any(part.is_running for part in found):
        ends = [ids.rfc3339()]
    begun = plan_tasks.moment(entry.header.get("started"))
    return {
        "start": min(starts, default=begun),
        "end": max(ends, default=plan_tasks.moment(entry.header.get("ended")) or begun),
    }


def _quota_waits(entry: PlanEntry, scope: Iterable[str]) -> list[Shape]:
    """The providers whose quota is used up, and the tasks that wait for each."""
    waiting = {
        name: entry.tasks[name].why for name in scope if _where(entry, name) == state.WAITING
    }
    found: list[Shape] = []
    for key, closing in quota.Quotas(entry.header.get(quota_watch.HEADER_KEY)).as_dict().items():
        told = closing if isinstance(closing, dict) else {}
        names = [name for name, why in waiting.items() if f"for {key}'s quota" in why]
        if names or quota.seconds_of(told.get("until")) > time.time():
            found.append(
                {
                    "key": key,
                    "until": plan_tasks.moment(told.get("until")),
                    "reset": plan_tasks.moment(told.get("reset")),
                    "why": str(told.get("why") or ""),
                    "tasks": names,
                }
            )
    return found


def _updated(entry: PlanEntry) -> str | None:
    """When its state was last written."""
    folder = os.path.dirname(entry.path)
    names = (state.STATE_NAME, state.JOURNAL_NAME)
    last = max(_mtime_ns(os.path.join(folder, name)) for name in names)
    return ids.rfc3339(last) if last else None


def _mtime_ns(path: str) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return 0
