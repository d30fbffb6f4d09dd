"""Runs that another process has started: adopted, repaired and stopped.

A run that lost its supervisor is adopted while its agent lives, and repaired when
nothing of it does. Stopping one may take either.
"""

from __future__ import annotations

import os
import time

from lib import agents, faults, files, ids, notices, procs, runs, supervisor
from lib.agents import base
from lib.errors import EXIT_SIGNAL, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lib.agents.base import Reader

_STOP_PATIENCE_SECONDS = 15.0  # beyond the grace, for what comes after it
_REPAIR_SECONDS = 5.0


def adopt(run: runs.Run, lock: int, detached: bool = False) -> supervisor.Supervisor:
    """A supervisor for a run that another process started; the caller holds its lock."""
    watch = supervisor.Supervisor(run, lock, _reader_of(run), stop_run=stop, detached=detached)
    watch.adopted = True
    if run.text("config"):  # whose tokens this process may not know
        from lib import config

        config.know_tokens(run.text("config"))
    for key in ("pid", "pgid"):  # a record of before its agent has none
        run.record.setdefault(key, 0)
    run.record.update(supervisor_pid=os.getpid(), supervisor_start=procs.own_start())
    faults.point("run-adopted")
    return watch


def _reader_of(run: runs.Run) -> Reader:
    try:
        backend = agents.load(run.text("agent"))
        options: dict[str, object] = {}
        if run.text("output_kind"):
            options["output"] = run.text("output_kind")
        if run.record.get("resumed") is True:
            options.update(resume=True, totals_before=run.record.get("totals_before"))
        for key in ("output_file", "output_file_before"):  # of an agent that answers in a file
            if key in run.record:
                options[key] = run.text(key)
        reader: Reader = backend.reader(options)
    except UserError:
        return base.TextReader()
    return reader


def repair(path: str) -> bool:
    """Record the end of a run that has ended without its supervisor; False when there is nothing to do.

    A run that is held, or whose agent still lives, is left alone.  A record
    of another host or pid namespace is never touched.
    """
    lock_path = os.path.join(path, runs.LOCK)
    if not os.path.exists(lock_path) and runs.read(path).text("status") in runs.ENDED:
        runs.unmark(runs.Run(path, {}))  # the mark is what goes last, after the lock
        return False
    try:
        lock = files.open_lock(lock_path)
    except OSError:
        return False
    try:
        # Once more after a moment: a reader that looks whether the run is
        # held has the lock itself for some microseconds.
        if not files.wait_for(lambda: files.try_lock(lock), 0.001, 0.001):
            return False
        run = runs.read(path)
        if run.problem or runs.is_foreign(run):
            return False
        if run.text("status") in runs.ENDED:
            _complete_marks(run)
            return True
        if "version" not in run.record:  # none yet, or only what cwd.txt tells
            if runs.is_being_made(run):
                return False
            run.record = {**_unused_record(run), **run.record}
        if runs.agent_lives(run) or runs.guard_lives(run):
            return False
        watch = adopt(run, lock)
        lock = -1
        watch.finish_lost()
        return True
    finally:
        if lock >= 0:
            os.close(lock)


def _unused_record(run: runs.Run) -> runs.Record:
    """What can be said of a folder that was allocated and then never used."""
    name, task_folder = run.run_id, runs.task_folder_of(run)
    project, task = os.path.split(task_folder) if task_folder else ("unknown", name)
    return {
        "version": 1,
        "run_id": name,
        "project_id": os.path.basename(project),
        "task_id": task,
        "agent": "",
        "pid": 0,
        "pgid": 0,
        "start_time": runs.time_from_name(name),
        "end_time": ids.ZERO_TIME,
        "exit_code": -1,
        "status": runs.RUNNING,
        "agent_version": "",
    }


def _complete_marks(run: runs.Run) -> None:
    """A run whose supervisor was killed between its record and its last message."""
    notices.note_once(run, "EXIT_CODE", run.text("exit_code"))
    if run.text("bus") and not notices.was_announced(run, "RUN_STOP", "RUN_CRASH"):
        notices.announce_end(run)
    supervisor.clear_marks(run, had_others=True)


def repair_all(runs_dir: str) -> int:
    """Repair every run of a runs folder, and of its task folders, that needs it; says how many did."""
    places = [runs_dir, *(os.path.join(path, "runs") for path in runs.task_folders(runs_dir))]
    return sum(
        _repair_marked(runs.Run(os.path.join(place, name), {}))
        for place in places
        for name in runs.marked(place)
    )


def _repair_marked(run: runs.Run) -> bool:
    """Repair one of many: what is wrong with it must not keep the others from it."""
    try:
        if not os.path.isdir(run.path):
            runs.remove_stale_mark(run)  # of a folder that somebody removed, or nobody made
            return False
        return repair(run.path)
    except (UserError, OSError) as error:
        notices.log(run, f"the run could not be repaired: {error}")
        return False


def find_end(run: runs.Run, now: runs.State) -> tuple[runs.Run, runs.State] | None:
    """The run and its state once it has ended, which is recorded if nobody has; None until then.

    OSError or UserError where that cannot be recorded yet: a full disk.
    """
    fault: UserError | OSError | None = None
    if not now.holder and (now.ended_unrecorded or os.path.exists(run.file(runs.LOCK))):
        try:
            repair(run.path)
        except (UserError, OSError) as error:
            fault = error
        run = runs.read(run.path)
        now = runs.state(run)
    # Whoever else holds it, or repairs it at this moment, will be done with it.
    if not (now.holder or (now.ended_unrecorded and os.path.isdir(run.path))):
        return run, now
    if fault is not None:
        raise fault
    return None


def stop(path: str) -> str:
    """End a run's whole tree and record it; returns "stopped", or "ended" when it already had.

    A living supervisor is asked to do it; a dead one's part is taken over.
    UserError when the run belongs to another host, or cannot be stopped.
    """
    result = "ended"
    limit = time.monotonic() + _REPAIR_SECONDS
    while True:
        run = runs.read(path)
        state = runs.state(run)
        if state.status in runs.ENDED and not state.ended_unrecorded:
            repair(path)
            return result
        if state.status == runs.UNKNOWN or runs.is_foreign(run):
            why = state.reason or f"recorded on {run.text('host')}, in another place than this"
            raise UserError(f"{run.run_id} cannot be stopped from here: {why}")
        if state.holder:
            result = "stopped"
            end = _end_supervisor if state.holder == "supervisor" else _take_over
            end(run)  # its supervisor may have died of it: then the rest is ours
            limit = time.monotonic() + _REPAIR_SECONDS
        elif not repair(path):  # a reader's look at the lock, or its agent just came to life
            if time.monotonic() > limit:
                raise UserError(f"{run.run_id} has ended, and that cannot be recorded in {path}")
            time.sleep(0.02)


def _end_supervisor(run: runs.Run) -> None:
    """Have the run's supervisor stop it; returns when nobody holds the run any more.

    One that does not answer is killed.  A holder that the record does not
    name repairs the run or takes it over, and is waited for.
    """
    patience = supervisor.stop_grace() + _STOP_PATIENCE_SECONDS

    def is_free() -> bool:
        return not runs.is_held(run)

    files.wait_for(lambda: supervisor.supervisor_of(run.path) is not None or is_free(), 2.0, 0.01)
    process = supervisor.supervisor_of(run.path)
    if process is not None:
        # Its own grace may be longer than ours: asked again, it gives up the rest of it.
        for seconds in (supervisor.stop_grace(), _STOP_PATIENCE_SECONDS):
            supervisor.signal_supervisor(run.path, process, procs.SIGTERM)
            if files.wait_for(is_free, seconds, 0.02):
                return
        supervisor.signal_supervisor(run.path, process, procs.SIGKILL)
    os.close(runs.take_lock(run, patience))


def _take_over(run: runs.Run) -> None:
    """Be the supervisor of a run that lost its own, and end it."""
    lock = runs.take_lock(run, supervisor.stop_grace() + _STOP_PATIENCE_SECONDS)
    run = runs.read(run.path)
    if run.text("status") != runs.RUNNING:
        os.close(lock)
        return
    watch = adopt(run, lock)
    watch.stop("stopped by stop-run", EXIT_SIGNAL + procs.SIGTERM)
    watch.run_to_end()
