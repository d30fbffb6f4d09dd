"""What must wait for what: barriers, dependencies, waves and the critical path.

A barrier between two stages of thousands of tasks stands for millions of
pairs.  It is therefore kept as one number for each stage, never as sets of
ids; every function here takes time and memory in proportion to the tasks and
the `depends_on` entries, and none recurses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lib.plan_records import Plan


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The order of a plan in a form made for a scheduler.

    A task may start when every task of `needs[id]` is done and the stage
    `gate[stage_of[id]]` (unless that is -1) is done as a whole.  A gate is the
    nearest earlier stage with a barrier; the barriers before it are implied,
    since its own tasks could not have started without them.
    """

    needs: dict[str, tuple[str, ...]]  # the tasks that a task names
    needed_by: dict[str, tuple[str, ...]]  # the same edges from the other end, in plan order
    stage_of: dict[str, int]  # index in plan.stages
    gate: tuple[int, ...]  # for each stage the index of the stage to wait for, or -1


def depends(plan: Plan) -> Dependencies:
    """Who waits for whom in a plan."""
    needs: dict[str, tuple[str, ...]] = {}
    needed_by: dict[str, list[str]] = {task_id: [] for task_id in plan.tasks}
    stage_of: dict[str, int] = {}
    gate: list[int] = []
    nearest = -1
    for index, stage in enumerate(plan.stages):
        gate.append(nearest)
        if stage.barrier:
            nearest = index
        for task in stage.tasks:
            stage_of[task.id] = index
            needs[task.id] = task.depends_on
            for needed in task.depends_on:
                needed_by[needed].append(task.id)
    by = {task_id: tuple(waiting) for task_id, waiting in needed_by.items()}
    return Dependencies(needs, by, stage_of, tuple(gate))


def requirements(plan: Plan, task_id: str) -> frozenset[str]:
    """The tasks that must be done before this one may start: those it names, and
    all tasks of the earlier stages with a barrier.

    Not what these need in turn.  The set is as large as the stages before: for
    many tasks use `depends`.
    """
    task = plan.tasks[task_id]
    required = set(task.depends_on)
    for stage in plan.stages:
        if stage.id == task.stage:
            break
        if stage.barrier:
            required.update(other.id for other in stage.tasks)
    return frozenset(required)


def waves(plan: Plan) -> list[list[str]]:
    """The tasks by the earliest wave in which each can start, in plan order within a wave.

    Wave 0 waits for nothing; every other wave waits for something of the one before it.
    """
    links = depends(plan)
    wave_of: dict[str, int] = {}
    last_wave = [-1] * len(plan.stages)  # of each stage
    for task_id in _in_order(plan, links):
        stage = links.stage_of[task_id]
        before = [wave_of[needed] for needed in links.needs[task_id]]
        if links.gate[stage] >= 0:
            before.append(last_wave[links.gate[stage]])
        wave_of[task_id] = max(before, default=-1) + 1
        last_wave[stage] = max(last_wave[stage], wave_of[task_id])
    found: list[list[str]] = [[] for _ in range(max(wave_of.values(), default=-1) + 1)]
    for task_id in plan.tasks:
        found[wave_of[task_id]].append(task_id)
    return found


def critical_path(plan: Plan, seconds: Mapping[str, float] | None = None) -> list[str]:
    """The chain of tasks, each waiting for the one before, that takes longest.

    `seconds` are the expected times; without them, and for a task that is not
    in them, every task counts 1.  Of equal chains the first in the plan.
    """
    links = depends(plan)
    finish: dict[str, float] = {}
    previous: dict[str, str | None] = {}
    slowest: list[str | None] = [None] * len(plan.stages)  # the last to finish in each stage
    for task_id in _in_order(plan, links):
        stage = links.stage_of[task_id]
        before: list[str | None] = [*links.needs[task_id]]
        if links.gate[stage] >= 0:
            before.append(slowest[links.gate[stage]])
        last = max((name for name in before if name), key=finish.__getitem__, default=None)
        cost = 1.0 if seconds is None else seconds.get(task_id, 1.0)
        finish[task_id] = cost + (finish[last] if last else 0.0)
        previous[task_id] = last
        leader = slowest[stage]
        if leader is None or finish[task_id] > finish[leader]:
            slowest[stage] = task_id
    step = max(plan.tasks, key=finish.__getitem__, default=None)
    path: list[str] = []
    while step is not None:
        path.append(step)
        step = previous[step]
    return path[::-1]


def _in_order(plan: Plan, links: Dependencies) -> Iterator[str]:
    """Every task after all that it waits for: stage by stage, since none names a later stage."""
    for index, stage in enumerate(plan.stages):
        open_needs = {
            task.id: sum(links.stage_of[needed] == index for needed in task.depends_on)
            for task in stage.tasks
        }
        ready = deque(task.id for task in stage.tasks if not open_needs[task.id])
        while ready:
            task_id = ready.popleft()
            yield task_id
            for waiting in links.needed_by[task_id]:
                if waiting in open_needs:
                    open_needs[waiting] -= 1
                    if not open_needs[waiting]:
                        ready.append(waiting)


def cycles(needs: Mapping[str, tuple[str, ...]], most: int) -> list[list[str]]:
    """Up to `most` cycles, each as its tasks in the order of waiting, the first one again at the
    end; without the waiting that closes each of all cycles there would be none.

    `needs` must have every name that it mentions as a key.
    """
    found: list[list[str]] = []
    finished: set[str] = set()
    for start in needs:
        if start in finished:
            continue
        path = {start: None}  # a dict as an ordered set: the way from `start` to here
        open_edges = [iter(needs[start])]
        while open_edges:
            following = next(open_edges[-1], None)
            if following is None:
                open_edges.pop()
                finished.add(path.popitem()[0])
            elif following in path:
                names = list(path)
                found.append([*names[names.index(following) :], following])
                if len(found) == most:
                    return found
            elif following not in finished:
                path[following] = None
                open_edges.append(iter(needs[following]))
    return found
