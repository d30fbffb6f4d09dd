"""Is the state of a plan true: of its attempts, their runs, and what runs now."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from lib import files, integrity_runs, runs, state, verify
from lib.errors import UserError
from lib.integrity_base import ENDED, LIVE, NOTE, REPAIR, VIOLATION, Finding, Seen
from lib.state import Attempt, TaskState

_AGAIN = "start the plan again: it goes on there"
_LOOK = "look at the run folder, and at the state's attempts of that task"


@dataclass(slots=True)
class PlanSeen:
    """The state of one plan, as it was before anything else was looked at."""

    path: str
    is_held: bool
    tasks: dict[str, TaskState] = field(default_factory=dict)
    problem: str = ""

    def attempts(self) -> Iterator[tuple[str, Attempt]]:
        for task_id, entry in self.tasks.items():
            for attempt in entry.attempts:
                yield task_id, attempt


def read_all(runs_dir: str) -> list[PlanSeen]:
    """Every plan of a runs folder; a state that cannot be read has its `problem`."""
    found = []
    for name in sorted(os.listdir(runs_dir)):
        path = os.path.join(runs_dir, name, state.STATE_NAME)
        if os.path.lexists(path):
            found.append(_read(path))
    return found


def _read(path: str) -> PlanSeen:
    lock = os.path.join(os.path.dirname(path), state.LOCK_NAME)
    plan = PlanSeen(path, files.is_locked(lock))
    try:
        plan.tasks = state.read(path)
    except (UserError, OSError) as error:
        plan.problem = str(error)
    plan.is_held = plan.is_held or files.is_locked(lock)
    return plan


def open_runs(plans: list[PlanSeen]) -> set[str]:
    """The runs of attempts that are not settled: their checks may be at work."""
    return {_run_of(item) for plan in plans for _, item in plan.attempts() if _is_open(item)}


def _run_of(attempt: Attempt) -> str:
    return str(attempt.get("run") or "")


def _is_open(attempt: Attempt) -> bool:
    return attempt.get("result") == "running"


def _is_done(attempt: Attempt) -> bool:
    return attempt.get("result") == "done"


def examine(
    plans: list[PlanSeen], seen: Mapping[str, Seen], removed: Collection[str] = ()
) -> Iterator[Finding]:
    """What is wrong with the states; `seen` has the flat runs by their id.

    `removed` are the ids of those that clean-runs has removed.
    """
    owners: dict[str, str] = {}
    for plan in plans:
        if plan.problem:
            yield Finding(VIOLATION, plan.path, plan.problem.removeprefix(f"{plan.path}: "), _AGAIN)
        for task_id, attempt in plan.attempts():
            run_id = _run_of(attempt)
            if run_id in owners:
                what = f"run {run_id} is an attempt of {owners[run_id]} and of {task_id}"
                yield Finding(VIOLATION, plan.path, what, _LOOK)
            owners[run_id] = task_id
            if run_id in seen or run_id not in removed or _is_open(attempt):
                yield from _examine_attempt(plan, task_id, attempt, seen.get(run_id))
        for task_id, entry in plan.tasks.items():
            yield from _examine_task(plan, task_id, entry)


def _examine_attempt(
    plan: PlanSeen, task_id: str, attempt: Attempt, run: Seen | None
) -> Iterator[Finding]:
    run_id = _run_of(attempt)
    name = f"task {task_id}: attempt {run_id}"
    if _is_open(attempt):
        yield from _examine_open(plan, name, run)
    elif run is None:
        cure = "it was removed since; the state still knows how it ended"
        yield Finding(VIOLATION, plan.path, f"{name} has no run folder", cure)
    elif run.condition == LIVE:
        what = f"{name} is settled, and its run is still alive"
        yield Finding(VIOLATION, plan.path, what, f"bin/stop-run {run_id}, then start it again")
    elif run.condition == ENDED and not _is_of(run, attempt):
        what = f"{name} and its run's record have different tokens"
        yield Finding(VIOLATION, plan.path, what, _LOOK)
    elif run.condition == ENDED and _is_done(attempt) and run.status != runs.COMPLETED:
        what = f"{name} is done, but its run has {run.status}"
        yield Finding(VIOLATION, plan.path, what, _LOOK)


def _is_of(run: Seen, attempt: Attempt) -> bool:
    never_began = run.reason == runs.NEVER_STARTED and not run.token
    return never_began or run.token == str(attempt.get("token") or "")


def _examine_open(plan: PlanSeen, name: str, run: Seen | None) -> Iterator[Finding]:
    if not plan.is_held:
        yield Finding(NOTE, plan.path, f"{name} is not settled, and nobody runs the plan", _AGAIN)
    elif run is None:
        what = f"{name} is under way, and has no run folder"
        yield Finding(VIOLATION, plan.path, what, "stop the plan, then start it again")
    elif run.condition == ENDED and not _has_checks(run):
        what = f"{name} has ended, and who runs the plan takes no notice"
        cure = "it may be stopped (SIGSTOP) or stuck: continue it, or kill it and start it again"
        yield Finding(VIOLATION, plan.path, what, cure)


def _has_checks(run: Seen) -> bool:
    return os.path.exists(os.path.join(run.path, verify.REPORT))


def _examine_task(plan: PlanSeen, task_id: str, entry: TaskState) -> Iterator[Finding]:
    done = [str(item.get("unit")) for item in entry.attempts if _is_done(item)]
    for unit in sorted(set(done)):
        if done.count(unit) > 1:
            what = f"{unit} was done {done.count(unit)} times: it was paid for again"
            yield Finding(VIOLATION, plan.path, what, _LOOK)
    if entry.state == state.DONE and not done:
        what = f"task {task_id} is done, and no attempt of it is"
        yield Finding(VIOLATION, plan.path, what, _LOOK)


def examine_pid_files(
    runs_dir: str, plans: list[PlanSeen], seen: Mapping[str, Seen]
) -> Iterator[Finding]:
    """`runs/TASK.pid` stands for a living run of that task, and names its supervisor."""
    supervisors = {run.supervisor_pid for run in seen.values() if run.condition != ENDED}
    waiting = {
        str(item.get("unit")): plan
        for plan in plans
        for _, item in plan.attempts()
        if _is_open(item)
    }
    for name in sorted(os.listdir(runs_dir)):
        path = os.path.join(runs_dir, name)
        if not name.endswith(".pid") or integrity_runs.pid_in(path) in supervisors:
            continue
        plan = waiting.get(name.removesuffix(".pid"))
        what = "stands for no living run"
        if plan is not None and not plan.is_held:
            yield Finding(REPAIR, path, f"needs repair: {what}", _AGAIN)
        else:
            yield Finding(VIOLATION, path, what, "remove it")
