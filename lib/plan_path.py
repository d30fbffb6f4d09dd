"""The chain of tasks that decides when a plan ends, by what they took and by what others take."""

from __future__ import annotations

import time

from lib import estimate, ids, plan_order
from lib.frame import Progress
from lib.situation import Situation
from lib.state import TaskState


def critical_path(situation: Situation) -> list[str]:
    """The tasks of the scope, each waiting for the one before, that take longest together.

    A task that has begun counts from its first start to its last end, with the pauses between
    its attempts; one that has not, what tasks of its kind take, or while nothing is known
    as much as those that have begun.
    """
    plan, scope = situation.plan, set(situation.scope())
    seconds = {name: _taken(entry) for name, entry in situation.tasks.items() if name in scope}
    progress = Progress(situation)
    if progress.sample:
        left = estimate.expected_seconds(
            plan,
            sample=progress.sample,
            running=progress.running,
            waiting=progress.waiting,
        )
    else:
        known = [taken for taken in seconds.values() if taken]
        usual = sum(known) / len(known) if known else 1.0
        left = dict.fromkeys([*progress.running, *progress.waiting], usual)
    for name, more in left.items():
        if name in scope:
            seconds[name] = seconds.get(name, 0.0) + more
    found = plan_order.critical_path(plan, {**dict.fromkeys(plan.tasks, 0.0), **seconds})
    return [name for name in found if seconds.get(name)]


def _taken(entry: TaskState) -> float:
    """From its first start to its last end, or to now while it runs."""
    starts = [ids.parse_rfc3339(item.get("started")) for item in entry.attempts]
    ends = [ids.parse_rfc3339(item.get("ended")) for item in entry.attempts]
    if any(item.get("result") == "running" for item in entry.attempts):
        ends = [time.time_ns()]
    first, last = min(filter(None, starts), default=0), max(filter(None, ends), default=0)
    return max(0.0, (last - first) / ids.NANOSECONDS) if first and last else 0.0
