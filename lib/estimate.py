"""How long a plan still takes, from how long its tasks have taken: one pure function.

What is left is played through: who may start when, how many at once, what
waits for a whole stage.  Tasks are not all taken for average ones, for the
longest of a stage holds up the next: each gets one of the durations that were
seen, in turn.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from lib import plan_order
from lib.plan import Plan, Task

GOLDEN_RATIO = 0.6180339887498949  # its multiples spread evenly over what was seen
LATE_SHARE = 0.25  # of its age, that a run which outlasted all others is given


class Sample:
    """What the ended tasks took: seconds of the attempts that succeeded, and of all attempts."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {}
        self._everything: list[float] = []
        self._good = self._total = 0.0

    def add(self, task: Task, good_seconds: float, total_seconds: float) -> None:
        """Note a task that is done: its last attempt, and all of them together."""
        self._seen.setdefault(_kind(task), []).append(good_seconds)
        self._everything.append(good_seconds)
        self._good += good_seconds
        self._total += max(good_seconds, total_seconds)

    def __bool__(self) -> bool:
        return bool(self._everything)

    def like(self, task: Task) -> list[float]:
        """The durations of its kind, the shortest first; of all kinds when its own is unknown."""
        return sorted(self._seen.get(_kind(task)) or self._everything)

    @property
    def retry_factor(self) -> float:
        """What failed attempts add: 1.0 when every first one succeeded."""
        return self._total / self._good if self._good > 0 else 1.0


def _kind(task: Task) -> str:
    return f"role {task.role}" if task.role else f"agent {task.agent}"


def seconds_left(
    plan: Plan,
    *,
    sample: Sample,
    running: Mapping[str, float],
    waiting: Mapping[str, float],
    done: Sequence[str],
    width: int,
) -> float | None:
    """The expected time until the last task of a plan has ended; None while nothing is known.

    `running` are the tasks under way and how long already, `waiting` those to
    be started and how long they wait at least; `done` are those that hold up
    nobody any more.  All other tasks stay out of it, with what depends on them.
    """
    if not sample:
        return None
    expected = expected_seconds(plan, sample=sample, running=running, waiting=waiting)
    return _play(plan, expected, running, waiting, done, max(1, width))


def expected_seconds(
    plan: Plan, *, sample: Sample, running: Mapping[str, float], waiting: Iterable[str]
) -> dict[str, float]:
    """What each of these tasks is expected to take from now on, or once it is started.

    The sample must have seen something.
    """
    kinds: dict[str, list[float]] = {}
    expected: dict[str, float] = {}
    for number, task_id in enumerate([*running, *waiting]):
        task = plan.tasks[task_id]
        seen = kinds.get(_kind(task)) or kinds.setdefault(_kind(task), sample.like(task))
        if task_id in running:
            expected[task_id] = _rest(seen, running[task_id])
        else:
            pick = seen[int(number * GOLDEN_RATIO % 1 * len(seen))]
            expected[task_id] = pick * sample.retry_factor
    return expected


def _rest(seen: list[float], age: float) -> float:
    """What a run of this age still needs: as those that took longer, on average."""
    longer = [seconds for seconds in seen if seconds > age]
    return sum(longer) / len(longer) - age if longer else LATE_SHARE * age


def _play(
    plan: Plan,
    expected: Mapping[str, float],
    running: Mapping[str, float],
    waiting: Mapping[str, float],
    done: Sequence[str],
    width: int,
) -> float:
    links = plan_order.depends(plan)
    ended = set(done)
    open_needs = {t: sum(need not in ended for need in links.needs[t]) for t in waiting}
    stage_open = [0] * len(plan.stages)
    for task_id in expected:
        stage_open[links.stage_of[task_id]] += 1
    ready: list[tuple[float, int, str]] = []  # what waits for a time is behind what does not
    behind: list[list[str]] = [[] for _ in plan.stages]  # by the stage that they wait for
    order = {task_id: number for number, task_id in enumerate(plan.tasks)}

    def release(task_id: str) -> None:
        gate = links.gate[links.stage_of[task_id]]
        while gate >= 0 and not stage_open[gate]:
            gate = links.gate[gate]
        if gate >= 0:
            behind[gate].append(task_id)
        elif not open_needs[task_id]:
            heapq.heappush(ready, (waiting[task_id], order[task_id], task_id))

    for task_id in waiting:
        release(task_id)
    clock = 0.0
    under_way = [(expected[task_id], task_id) for task_id in running]
    heapq.heapify(under_way)
    while ready or under_way:
        while ready and len(under_way) < width:
            task_id = heapq.heappop(ready)[-1]
            begin = max(clock, waiting[task_id])
            heapq.heappush(under_way, (begin + expected[task_id], task_id))
        clock, task_id = heapq.heappop(under_way)
        for later in links.needed_by[task_id]:
            if later in open_needs:
                open_needs[later] -= 1
                if not open_needs[later]:
                    release(later)
        stage = links.stage_of[task_id]
        stage_open[stage] -= 1
        if not stage_open[stage]:
            held, behind[stage] = behind[stage], []
            for later in held:
                release(later)
    return clock


def in_words(seconds: float) -> str:
    """`about 12 min`: as exact as a guess may be said."""
    minutes = seconds / 60
    if minutes < 1:
        return "less than a minute"
    if minutes < 20:
        return f"about {minutes:.0f} min"
    if minutes < 120:
        return f"about {5 * round(minutes / 5)} min"
    hours = minutes / 60
    if hours < 10:
        return f"about {round(2 * hours) / 2:g} h"
    return f"about {hours:.0f} h" if hours < 48 else f"about {hours / 24:.0f} days"
