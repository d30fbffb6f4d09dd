"""What is current: how the tasks stand that are at work now or were lately, and what they used.

That are the tasks in scope of each plan that is run, or has changed within a
day, and all others of which a run, or the loop, lives, or whose newest run
ended within a day.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from lib import ids, loop_record, runs, state, usage, waits
from lib.index import Index, TaskEntry
from lib.index_entries import Changes, RunEntry
from lib.monitor.facts import LATELY_NS
from lib.monitor.plans import PlanView
from lib.usage import Usage

DONE, RUNNING, WAITING, BLOCKED = "done", "running", "waiting", "blocked"
FAILED, QUOTA, PENDING = "failed", "quota", "pending"
KINDS = (DONE, RUNNING, WAITING, BLOCKED, FAILED, QUOTA, PENDING)
_OF_STATE = {
    state.DONE: DONE, state.SKIPPED: DONE, state.RUNNING: RUNNING, state.VERIFYING: RUNNING,
    state.WAITING: QUOTA, state.BLOCKED: BLOCKED, state.FAILED: FAILED, state.PENDING: PENDING,
}  # fmt: skip

_NEVER = 1 << 63

Key = tuple[str, str]  # project, task


class Tally:
    """Tasks by how they stand, what their runs used, and since when, ns since 1970.

    `since_ns` is 0 for nothing; `elapsed_seconds` goes up to now while something
    lives, else to the last end.  `seconds_left` is None while it is not known of
    each plan that is run.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(KINDS, 0)
        self.usage = Usage([])
        self.since_ns = 0
        self.elapsed_seconds: float | None = None
        self.seconds_left: float | None = None


class Current:
    """Makes the tally, again and again; what a task at rest has used is summed up once.

    `take` is told all that refreshes of the index find.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._shares: dict[Key, _Share] = {}
        self._plan_uses: dict[str, Usage] = {}

    def take(self, changes: Changes) -> None:
        for key in changes.tasks:
            self._shares.pop(key, None)
        for project in changes.plans:
            self._plan_uses.pop(project, None)

    def tally(self, plans: Iterable[PlanView]) -> Tally:
        """Of this moment; `plans` are all that there are."""
        now_ns = time.time_ns()
        found, spans, parts = Tally(), _Spans(now_ns), list[Usage]()
        live = {
            key for entry in self._index.live() for key in _names_of(self._index.key_of(entry.path))
        }
        chosen = {
            plan.project: plan
            for plan in plans
            if plan.entry.is_run or plan.changed_ns > now_ns - LATELY_NS
        }
        for plan in chosen.values():
            self._add_plan(found, plan, live)
            parts.append(self._use_of_plan(plan))
            spans.add(plan.began_ns, 0 if plan.entry.is_run else plan.changed_ns)
        for key, task in self._index.tasks.items():
            share = self._shares.get(key)
            if share is None or share.expires_ns <= now_ns:
                share = self._shares[key] = _Share(task, now_ns)
            if share.standing and not _is_of_plan(key, chosen.get(key[0])):
                found.counts[share.standing] += 1
                parts.append(share.usage)
                spans.add(share.since_ns, share.until_ns)
        found.usage = usage.together(parts)
        found.since_ns, found.elapsed_seconds = spans.since_ns, spans.seconds()
        found.seconds_left = _seconds_left(chosen.values())
        return found

    def _add_plan(self, found: Tally, plan: PlanView, live: Collection[Key]) -> None:
        now = time.time()
        for task_id in plan.scope:
            entry = plan.task(task_id)
            where = _OF_STATE.get(entry.state, PENDING)
            if where == RUNNING and not plan.entry.is_run and (plan.project, task_id) not in live:
                where = PENDING  # it was at work when the plan was cut off
            if where == PENDING and plan.entry.is_run and waits.seconds_to_wait(entry, now) > 0:
                where = WAITING
            found.counts[where] += 1

    def _use_of_plan(self, plan: PlanView) -> Usage:
        """What is at work tells in its record what the plan notes at the end."""
        known = self._plan_uses.get(plan.project)
        if known is None:
            entries = [plan.task(task_id) for task_id in plan.scope]
            ended = [
                item for entry in entries for item in entry.attempts
                if item.get("result") != "running"
            ]  # fmt: skip
            known = self._plan_uses[plan.project] = Usage(ended)
        at_work = [self._index.runs.get(plan.path_of(item)) for _, item in plan.running()]
        return usage.together(
            [known, Usage(entry.run.record if entry else {} for entry in at_work)]
        )


class _Share:
    """What a task outside of plans adds; good until it changes, or until `expires_ns`.

    `standing` is "" for a task that is not current.  Of its runs those count
    that live, or ended within a day; `until_ns` is 0 as long as it is at work.
    """

    __slots__ = ("expires_ns", "since_ns", "standing", "until_ns", "usage")

    def __init__(self, task: TaskEntry, now_ns: int) -> None:
        early_ns = now_ns - LATELY_NS
        is_live = any(entry.is_live for entry in task.runs)
        is_at_work = is_live or task.loop_is_live
        is_current = is_at_work or (bool(task.runs) and _ended(task.runs[0]) > early_ns)
        self.standing = _standing(task, is_live=is_live) if is_current else ""
        found = [run for run in task.runs if is_current and (run.is_live or _ended(run) > early_ns)]
        ends = [_ended(run) for run in found if not run.is_live]
        self.usage = Usage(usage.each_once(run.run.record for run in found))
        self.since_ns = min((run.started_ns for run in found if run.started_ns), default=0)
        self.until_ns = 0 if is_at_work else max(ends, default=0)
        self.expires_ns = min(ends) + LATELY_NS if ends else _NEVER


class _Spans:
    """From the first beginning to the last end."""

    def __init__(self, now_ns: int) -> None:
        self.since_ns = self._until_ns = 0
        self._now_ns = now_ns

    def add(self, since_ns: int, until_ns: int) -> None:
        """`until_ns` is 0 for what goes on; a time that has not come yet is none."""
        if 0 < since_ns <= self._now_ns:
            self.since_ns = min(self.since_ns or since_ns, since_ns)
        self._until_ns = max(self._until_ns, min(until_ns or self._now_ns, self._now_ns))

    def seconds(self) -> float | None:
        if not self.since_ns:
            return None
        return max(0, self._until_ns - self.since_ns) / ids.NANOSECONDS


def _names_of(key: Key) -> tuple[Key, Key]:
    """The task itself, and the one whose review it may be."""
    return key, (key[0], ids.planned_task(key[1]))


def _ended(entry: RunEntry) -> int:
    return entry.ended_ns or entry.started_ns


def _is_of_plan(key: Key, plan: PlanView | None) -> bool:
    return plan is not None and any(name in plan.entry.tasks for _, name in _names_of(key))


def _standing(task: TaskEntry, *, is_live: bool) -> str:
    """One of KINDS; what somebody has stopped, or lost, is to be begun again."""
    if is_live:
        return RUNNING
    if task.done:
        return DONE
    where = task.loop_state
    if task.loop is not None and _waits_for_quota(task.loop, where):
        return QUOTA
    if task.loop_is_live:
        return RUNNING if where == loop_record.RUNNING else WAITING
    if task.loop is not None:
        return FAILED if where == loop_record.FAILED else PENDING
    newest = task.runs[0]
    if newest.state.status == runs.COMPLETED:
        return DONE
    is_stopped = newest.run.record.get("stopped") is True
    return FAILED if newest.state.status == runs.FAILED and not is_stopped else PENDING


def _waits_for_quota(loop: dict[str, object], where: str) -> bool:
    attempts = loop.get("attempts")
    last = attempts[-1] if isinstance(attempts, list) and attempts else None
    is_met = isinstance(last, dict) and last.get("result") == state.QUOTA
    return is_met and where in (loop_record.RESTARTING, loop_record.STOPPED)


def _seconds_left(plans: Iterable[PlanView]) -> float | None:
    left = [plan.seconds_left() for plan in plans if plan.entry.is_run]
    known = [seconds for seconds in left if seconds is not None]
    return max(known) if known and len(known) == len(left) else None
