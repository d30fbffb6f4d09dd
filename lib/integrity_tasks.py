"""Is the record of a loop what it should be: its attempts, their order, and what its end has told."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from lib import bus, loop_record, propagation, runs, tasks
from lib.errors import UserError
from lib.integrity_base import ENDED, LIVE, NOTE, VIOLATION, Finding, Seen
from lib.loop_record import Attempt
from lib.tasks import Task

_AGAIN = "start run-task of it again, or stop it with stop-run"
_LOOK = "somebody edited it, or two loops were at work; compare it with the run folders"


@dataclass(slots=True)
class LoopSeen:
    """The record of a loop as it was read, and whether somebody runs it."""

    task: Task
    is_held: bool
    state: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    problem: str = ""

    @property
    def path(self) -> str:
        return self.task.file(tasks.LOOP)


def read_all(runs_dir: str) -> list[LoopSeen]:
    """Every loop below a runs folder; to be called before the runs are looked at."""
    return [
        _read(task) for task in tasks.all_tasks(runs_dir) if os.path.lexists(task.file(tasks.LOOP))
    ]


def _read(task: Task) -> LoopSeen:
    seen = LoopSeen(task, loop_record.is_held(task))
    try:
        fields, seen.attempts = loop_record.read(task)
        seen.state = str(fields.get("state") or "")
    except UserError as error:
        seen.problem = str(error)
    return seen


def examine(
    loops: list[LoopSeen], seen: Mapping[str, Seen], removed: Collection[str] = ()
) -> Iterator[Finding]:
    """What is wrong with the loops; `seen` has the runs by their path.

    `removed` are the ids of those that clean-runs has removed.
    """
    for loop in loops:
        if loop.problem:
            yield Finding(VIOLATION, loop.path, loop.problem, "mend or remove the file")
            continue
        if not loop.is_held and loop.state not in loop_record.ENDED:
            yield Finding(NOTE, loop.path, "its loop has not ended, and nobody runs it", _AGAIN)
        for attempt in loop.attempts:
            name = str(attempt.get("run"))
            run = seen.get(os.path.join(loop.task.runs_dir, name))
            if run is not None or name not in removed:
                yield from _examine_attempt(loop, attempt, run)
        yield from _examine_chain(loop)
        yield from _examine_completions(loop)


def _examine_attempt(loop: LoopSeen, attempt: Attempt, run: Seen | None) -> Iterator[Finding]:
    name = f"attempt {attempt.get('run')}"
    if attempt.get("result") == "running":
        if not loop.is_held:
            yield Finding(
                NOTE, loop.path, f"{name} is not settled, and nobody runs the loop", _AGAIN
            )
    elif run is None:
        cure = "it was removed since; the record still knows how it ended"
        yield Finding(VIOLATION, loop.path, f"{name} has no run folder", cure)
    elif run.condition == LIVE:
        yield Finding(
            VIOLATION, loop.path, f"{name} is settled, and its run is still alive", _AGAIN
        )
    elif run.condition == ENDED:
        yield from _compare(loop, name, attempt, run)


def _compare(loop: LoopSeen, name: str, attempt: Attempt, run: Seen) -> Iterator[Finding]:
    record = runs.read(run.path).record
    never_began = run.reason == runs.NEVER_STARTED and not run.token
    if run.token != str(attempt.get("token") or "") and not never_began:
        yield Finding(VIOLATION, loop.path, f"{name} and its run have different tokens", _LOOK)
    elif record.get("exit_code") != attempt.get("exit_code"):
        told, code = attempt.get("exit_code"), record.get("exit_code")
        what = f"{name} is noted with exit code {told}, its run with {code}"
        yield Finding(VIOLATION, loop.path, what, _LOOK)
    elif (attempt.get("result") == "done") != (run.status == runs.COMPLETED):
        what = f"{name} is noted as {attempt.get('result')}, its run as {run.status}"
        yield Finding(VIOLATION, loop.path, what, _LOOK)


def _examine_chain(loop: LoopSeen) -> Iterator[Finding]:
    """Each attempt once, and no two that follow the same one."""
    names = [str(attempt.get("run")) for attempt in loop.attempts]
    followed: dict[str, str] = {}
    for name in names:
        if names.count(name) > 1:
            yield Finding(VIOLATION, loop.path, f"attempt {name} is noted twice", _LOOK)
        run = runs.read(os.path.join(loop.task.runs_dir, name))
        before = run.text("previous_run_id")
        never_began = run.text("error_summary") == runs.NEVER_STARTED
        if before and not never_began and followed.setdefault(before, name) != name:
            what = f"attempts {followed[before]} and {name} both follow {before}"
            yield Finding(VIOLATION, loop.path, what, _LOOK)


def _examine_completions(loop: LoopSeen) -> Iterator[Finding]:
    """The project was told once of each DONE."""
    told: dict[str, str] = {}
    path = loop.task.project_bus
    for message in bus.read(path) if os.path.lexists(path) else ():
        meta = message.meta
        is_completion = message.type == "FACT" and meta.get("kind") == propagation.KIND
        if not is_completion or meta.get("source_task_id") != loop.task.task:
            continue
        done = meta.get("source_done_mtime", "")
        if done in told:
            what = f"{told[done]} and {message.msg_id} tell of the same {tasks.DONE}"
            cure = "nothing to do: readers may count it twice"
            yield Finding(VIOLATION, path, f"task {loop.task.task}: {what}", cure)
        told.setdefault(done, message.msg_id)
