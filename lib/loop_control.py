"""Stopping a task: its loop first, so that it starts nothing more, then all that lives of it.
And reopening one: what marked it as done does not count any more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from lib import children, faults, files, ids, loop_record, procs, supervisor, tasks
from lib.errors import EXIT_SIGNAL, UserError
from lib.loop_record import LoopRecord
from lib.tasks import Task

PATIENCE_SECONDS = 30.0  # beyond the graces of its run, and of the child runs after that
LAST_PATIENCE_SECONDS = 15.0
_POLL_SECONDS = 0.02


def stop(task: Task) -> tuple[bool, list[str]]:
    """(whether there was anything to stop, what could not be stopped); the task stays resumable.

    UserError where the loop is another machine's, or nobody knows whose.
    """
    had_loop = _end_loop(task)
    record = LoopRecord(task)
    record.lock(LAST_PATIENCE_SECONDS)  # and nobody starts the loop again meanwhile
    try:
        living = children.Family(task.runs_dir).living()
        problems = children.stop_all(task.runs_dir) if living else []
        record.load()
        if record.fields and record.fields.get("state") not in loop_record.ENDED:
            code = EXIT_SIGNAL + procs.SIGTERM
            record.fields.update(state=loop_record.STOPPED, why="stopped by stop-run")
            record.fields.update(ended=ids.rfc3339(), exit_code=code)
            record.fields.pop("until", None)
            record.save()
    finally:
        record.close()
    return had_loop or bool(living), problems


def _end_loop(task: Task) -> bool:
    """End the process that runs the loop; False when there is none. Killed only when it does not obey."""
    if not loop_record.is_held(task):
        return False
    graces = 2 * supervisor.stop_grace() + PATIENCE_SECONDS
    steps = ((procs.SIGTERM, graces), (procs.SIGTERM, LAST_PATIENCE_SECONDS), (procs.SIGKILL, 1.0))
    for number, seconds in steps:
        process = _find(task)
        if process is not None:
            procs.send(process, number)
            procs.send(process, procs.SIGCONT)  # one that is stopped takes it only then
        if files.wait_for(lambda: not loop_record.is_held(task), seconds, _POLL_SECONDS):
            return True
    raise UserError(
        f"the loop of task {task.task} does not end; look who holds {task.file('LOOP.lock')}"
    )


def _find(task: Task) -> procs.Process | None:
    """Who holds the loop; a moment after it was taken its process is not noted yet."""
    limit = time.monotonic() + 1.0
    while (found := loop_record.holder(task)) is None and loop_record.is_held(task):
        if time.monotonic() > limit:
            return None
        time.sleep(_POLL_SECONDS)
    return found


def reopen(record: LoopRecord, tell: Callable[[str], None]) -> None:
    """Make a task that is done, or that failed, one that is open; its record is locked and loaded.

    Its DONE is moved aside.
    """
    path = record.task.file(tasks.DONE)
    if tasks.is_done(record.task):
        aside, number = f"{path}.{ids.stamp(time.time())}", 1
        while os.path.lexists(aside):
            number += 1
            aside = f"{path}.{ids.stamp(time.time())}.{number}"
        os.rename(path, aside)
        files.sync_folder(record.task.path)
        tell(f"reopened: {tasks.DONE} is now {os.path.basename(aside)}")
    faults.point("loop-reopened")
    if record.fields.get("state") in (None, *loop_record.ENDED):
        record.fields.update(reopened=ids.rfc3339(), state="")
        record.save()
