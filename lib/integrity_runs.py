"""Is a run folder what it should be: its record, its files, its marks."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from lib import files, ids, runs
from lib.integrity_base import ENDED, LIVE, NOTE, OPEN, REPAIR, VIOLATION, Finding, Seen, bus_of

LOG = "supervisor.log"
_KEYS: dict[str, type] = {
    "version": int, "run_id": str, "project_id": str, "task_id": str, "agent": str, "pid": int,
    "pgid": int, "start_time": str, "end_time": str, "exit_code": int, "status": str,
    "agent_version": str,
}  # fmt: skip
_LOOK = "look at the folder; bin/show-run shows what there is"


def examine(path: str, is_marked: bool) -> tuple[Seen, list[Finding]]:
    """What a run folder holds, and what is wrong with it; a run under way is not judged."""
    if runs.is_held(runs.Run(path, {})):
        return Seen(path, LIVE, is_ours=True, supervisor_pid=_supervisor(path)), []
    run = runs.read(path)
    if run.problem:
        cure = "mend or remove the record; until then the run is shown as unknown"
        return Seen(path, OPEN), [_wrong(run, runs.RECORD, run.problem, cure)]
    if not run.record:
        return Seen(path, OPEN, is_ours=is_marked), _without_record(run, is_marked)
    seen = _seen(run)
    state = runs.state(run)
    if state.holder:
        seen.condition = LIVE
        return seen, list(_unmarked(run, seen, is_marked))
    if state.status == runs.UNKNOWN:
        return seen, [Finding(NOTE, path, state.reason, "ask there, where it was recorded")]
    if state.ended_unrecorded:
        return seen, [_unrecorded(run, seen, is_marked)]
    seen.condition = ENDED
    unfinished = _unfinished(run, seen, is_marked)
    if unfinished is not None:
        seen.condition = OPEN
        return seen, [unfinished]
    if runs.RECORD not in _names(path):
        return seen, []  # the shell original's: what it wrote is all there is to know
    return seen, list(_examine_end(run, seen))


def _supervisor(path: str) -> int:
    return runs.read(path).number("supervisor_pid")


def _seen(run: runs.Run) -> Seen:
    return Seen(
        run.path,
        OPEN,
        is_ours=run.number("supervisor_pid") > 0,
        status=run.text("status"),
        reason=run.text("error_summary"),
        token=run.text("attempt_token"),
        supervisor_pid=run.number("supervisor_pid"),
        bus=bus_of(run),
        ended_ns=run.time_ns("end_time") or 0,
        keeps_background=run.record.get("keep_background") is True,
        was_silenced="could not be posted" in _log_of(run),
    )


def _log_of(run: runs.Run) -> str:
    try:
        return run.read_text(LOG, 1 << 20)
    except OSError:
        return ""


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _wrong(run: runs.Run, name: str, what: str, cure: str = _LOOK) -> Finding:
    return Finding(VIOLATION, run.file(name) if name else run.path, what, cure)


# -- runs that have not ended properly ------------------------------------------


def _repair_cure(run: runs.Run) -> str:
    return f"any command that acts repairs it, such as bin/stop-run {run.run_id}"


def _without_record(run: runs.Run, is_marked: bool) -> list[Finding]:
    if is_marked:
        what = "needs repair: it was allocated, and its supervisor ended before it could begin"
        return [Finding(REPAIR, run.path, what, _repair_cure(run))]
    if not run.run_id.startswith("run_"):
        return []  # of a task folder: the original makes one before it waits for what it needs
    what = "no record, and no mark by which a repair would find it"
    return [_wrong(run, "", what, _stop_cure(run))]


def _stop_cure(run: runs.Run) -> str:
    return f"bin/stop-run {run.run_id} records its end"


def _unmarked(run: runs.Run, seen: Seen, is_marked: bool) -> Iterator[Finding]:
    if seen.is_ours and not is_marked:
        what = "its agent lives without a supervisor, and no mark will lead a repair to it"
        yield _wrong(run, "", what, "bin/stop-run ends and records it")


def _unrecorded(run: runs.Run, seen: Seen, is_marked: bool) -> Finding:
    if not seen.is_ours:
        what = "its record says running, and no process of it lives here"
        return Finding(NOTE, run.path, what, _stop_cure(run))
    what = "needs repair: it has ended, and its record does not say so"
    if is_marked:
        return Finding(REPAIR, run.path, what, _repair_cure(run))
    return _wrong(run, "", f"{what}; no mark will lead a repair to it", _stop_cure(run))


def _unfinished(run: runs.Run, seen: Seen, is_marked: bool) -> Finding | None:
    """Of a run with a final record: the marks that say there is something left to do."""
    if is_marked:
        what = "needs repair: its end is recorded, what comes after that is not done"
        return Finding(REPAIR, run.path, what, _repair_cure(run))
    if seen.is_ours and runs.LOCK in _names(run.path):
        return _wrong(run, runs.LOCK, "left after the end", _stop_cure(run))
    return None


# -- runs that have ended -----------------------------------------------------------


def _examine_end(run: runs.Run, seen: Seen) -> Iterator[Finding]:
    began, ended = run.time_ns("start_time"), run.time_ns("end_time")
    if began is not None and ended is not None and ended < began:
        cure = "the clock was set back meanwhile; nothing to do"
        yield _wrong(run, runs.RECORD, "end_time is before start_time", cure)
    if seen.is_ours:
        yield from _examine_keys(run)
        yield from _examine_code(run)
        yield from _examine_files(run, seen)


def _examine_keys(run: runs.Run) -> Iterator[Finding]:
    for key, kind in _KEYS.items():
        value = run.record.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            yield _wrong(run, runs.RECORD, f"{key} is missing, or no {_KIND_NAMES[kind]}")
    if run.text("run_id") != run.run_id:
        cure = "rename the folder back, or correct the record"
        yield _wrong(run, runs.RECORD, f"run_id is {run.text('run_id')}, not the folder's", cure)
    for key in ("start_time", "end_time"):
        if ids.parse_rfc3339(run.record.get(key)) is None:
            yield _wrong(run, runs.RECORD, f"{key} is no time, though the run has ended")


_KIND_NAMES = {int: "whole number", str: "text"}


def _examine_code(run: runs.Run) -> Iterator[Finding]:
    """Completed is a code of success, or none and made good by other evidence; failed has a reason."""
    code = run.record.get("exit_code")
    if run.text("status") == runs.COMPLETED:
        recovered = code == -1 and run.record.get("recovered") is True
        if code not in runs.success_codes(run) and not recovered:
            yield _wrong(run, runs.RECORD, f"completed with exit code {code}")
    elif not run.text("error_summary"):
        yield _wrong(run, runs.RECORD, f"failed with exit code {code}, and no reason is given")


def _examine_files(run: runs.Run, seen: Seen) -> Iterator[Finding]:
    names = _names(run.path)
    had_prompt = seen.reason != runs.NEVER_STARTED and run.number("pid") != seen.supervisor_pid
    wanted = (runs.OUTPUT, runs.CWD, *((runs.PROMPT,) if had_prompt else ()))
    for name in wanted:
        if name not in names:
            yield _wrong(run, name, "missing after the end", "it was removed since, or never made")
    for name in names:
        if name in (runs.PID, runs.EXIT_CODE) or (name[0] == "." and name.endswith(".tmp")):
            yield _wrong(run, name, "left after the end", "remove it")
    if runs.CWD in names:
        yield from _examine_cwd(run)


def _examine_cwd(run: runs.Run) -> Iterator[Finding]:
    try:
        text = run.read_text(runs.CWD, 1 << 20)
    except OSError as error:
        yield _wrong(run, runs.CWD, f"cannot be read: {error.strerror}")
        return
    codes = [line[10:] for line in text.split("\n") if line.startswith("EXIT_CODE=")]
    if len(codes) != 1:
        yield _wrong(run, runs.CWD, f"{len(codes)} lines EXIT_CODE=, not one")
    elif codes[0] != run.text("exit_code"):
        what = f"EXIT_CODE={codes[0]}, but the record says {run.text('exit_code')}"
        yield _wrong(run, runs.CWD, what)


def examine_marks(runs_dir: str, names: Collection[str]) -> Iterator[Finding]:
    """Marks of runs that are not there."""
    for name in names:
        if not os.path.isdir(os.path.join(runs_dir, name)):
            path = os.path.join(runs_dir, runs.ACTIVE, name)
            what = "needs repair: the mark of a run whose folder is gone"
            yield Finding(REPAIR, path, what, "any command that acts removes it")


def pid_in(path: str) -> int:
    """The pid in a file such as `TASK.pid`; 0 where there is none."""
    try:
        with open(files.open_regular(path), "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return 0
