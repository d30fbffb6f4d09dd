"""The run folder: its files, its record, and the true state of a run.

A run is one folder.  `run-info.yaml` in it is the record; it is written by
whoever holds the flock on `.lock` in the same folder: the run's supervisor
while it lives, later whoever repairs the run.  Readers never write: they
compute the true state from the record, the lock, the process table and the
exit code that the guard left.
"""

from __future__ import annotations

import os
import time

from lib import faults, files, ids, procs, yamlio
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = "run-info.yaml"
PROMPT = "prompt.md"
STDOUT = "agent-stdout.txt"
STDERR = "agent-stderr.txt"
TRANSCRIPT = "transcript.md"
OUTPUT = "output.md"
CWD = "cwd.txt"
PID = "pid.txt"
LOCK = ".lock"
LOOP_LOCK = "LOOP.lock"  # in a task folder, held by the process of its loop
EXIT_CODE = ".exit-code"  # written by the guard, with one write
ACTIVE = ".active"  # in the runs folder: a mark for each run that has not ended
TIMING = "timing.txt"  # how its output grew (lib/timing.py)
VERIFY = "verify.txt"  # what the checks of a plan printed
CHILDREN = "children.txt"  # a line for each child run: supervisor's pid, its start, run folder
FILES = (PROMPT, STDOUT, STDERR, TRANSCRIPT, OUTPUT, CWD, RECORD)

RUNNING, COMPLETED, FAILED, UNKNOWN = "running", "completed", "failed", "unknown"
ENDED = (COMPLETED, FAILED)
NEVER_STARTED = "the agent was never started: its supervisor ended before it could"
SUPERVISOR_LOST = "supervisor lost: it and the guard were killed, so the exit code is not known"
RUN_LOCK_SECONDS = 10.0
MODE = 0o700

Record = dict[str, object]


class Run:
    """A run folder and what its record says; `record` is {} while there is none."""

    __slots__ = ("path", "problem", "record")

    def __init__(self, path: str, record: Record, problem: str = "") -> None:
        self.path = path
        self.record = record
        self.problem = problem  # why the record could not be read

    @property
    def run_id(self) -> str:
        return os.path.basename(self.path)

    @property
    def agent(self) -> str:
        """The name that its agent has in the configuration; its type, where it has none."""
        return self.text("agent_name") or self.text("agent")

    def file(self, name: str) -> str:
        """The path of one of the run's files; from the folder, never from the record."""
        return f"{self.path}/{name}"

    def read_text(self, name: str, limit: int) -> str:
        """One of the run's files as text; OSError for anything but a regular file."""
        return files.read_regular(self.file(name), limit).decode("utf-8", "replace")

    def text(self, key: str) -> str:
        value = self.record.get(key)
        return value if isinstance(value, str) else "" if value is None else str(value)

    def number(self, key: str) -> int:
        value = self.record.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    def time_ns(self, key: str) -> int | None:
        return ids.parse_rfc3339(self.record.get(key))

    def seconds(self) -> float:
        """How long the run took, by its record; 0 where that does not tell."""
        start, end = self.time_ns("start_time"), self.time_ns("end_time")
        return max(0.0, (end - start) / 1e9) if start and end else 0.0


class State:
    """What is true of a run now: status, exit code (None = unknown), reason, who keeps it alive.

    `holder` is "supervisor", "agent" (its supervisor is gone) or "" for a run
    that has ended; `ended_unrecorded` is true for one that somebody has yet
    to repair.
    """

    __slots__ = ("ended_unrecorded", "exit_code", "holder", "reason", "status")

    def __init__(
        self,
        status: str,
        exit_code: int | None = None,
        reason: str = "",
        holder: str = "",
        ended_unrecorded: bool = False,
    ) -> None:
        self.status = status
        self.exit_code = exit_code
        self.reason = reason
        self.holder = holder
        self.ended_unrecorded = ended_unrecorded


def allocate(
    runs_dir: str,
    task: str = "",
    patience_seconds: float = 5.0,
    *,
    in_task_folder: bool = False,
    name: str = "",
) -> tuple[Run, int]:
    """A new run folder, mode 0700, and the descriptor that holds its lock.

    The name is taken by `mkdir`, which fails for the second comer; who finds
    it taken waits for the next second.  In a task folder names are of another
    form, and the next one is free at once.  `name` is taken where it is free.
    UserError when the runs folder cannot be written.
    """
    limit = time.monotonic() + patience_seconds
    while True:
        path = os.path.join(runs_dir, name or _new_name(task, in_task_folder))
        name = ""
        run = Run(path, {})
        mark = -1
        try:
            mark = _mark(run)  # first: a folder without a mark would never be repaired
            faults.point("run-marked")
            if mark >= 0:
                os.mkdir(path, MODE)
                faults.point("run-folder-made")
                return run, take_lock(run)
        except FileExistsError:
            unmark(run)  # the run of that name has ended
        except OSError as error:
            if mark >= 0:
                discard(run)
            raise UserError(
                f"cannot make a run folder in {runs_dir}: {error.strerror}; "
                "make it writable, or name another place with --runs-dir"
            ) from None
        finally:
            if mark >= 0:
                os.close(mark)
        if time.monotonic() > limit:
            raise UserError(
                f"cannot make a run folder: {path} is taken; is the clock standing still?"
            )
        now = time.time()
        time.sleep(0 if in_task_folder else int(now) + 1.001 - now)


def _new_name(task: str, in_task_folder: bool) -> str:
    if in_task_folder:
        return ids.task_run_name(time.time_ns(), os.getpid())
    return ids.run_name(time.time(), os.getpid(), task)


def is_run_name(name: str) -> bool:
    """Whether that is the name of a run folder: of a flat one, or of one in a task folder."""
    return name.startswith("run_") or time_from_name(name) != ids.ZERO_TIME


def task_folder_of(run: Run) -> str:
    """The task folder that the run lies in, by its path; "" for a flat run."""
    runs_dir, name = os.path.split(run.path)
    is_inside = os.path.basename(runs_dir) == "runs" and not name.startswith("run_")
    return os.path.dirname(runs_dir) if is_inside else ""


def take_lock(run: Run, seconds: float = RUN_LOCK_SECONDS) -> int:
    """The descriptor that holds the run's lock; LockTimeoutError when others keep it for so long."""
    fd = files.open_lock(run.file(LOCK))
    try:
        files.lock(fd, seconds, f"the run {run.run_id}")
    except UserError:
        os.close(fd)
        raise
    return fd


def _mark(run: Run) -> int:
    """Note in the runs folder that this run has not ended: repair need not read all others.

    Returns a descriptor that holds the flock of the note, -1 where there is
    one already.  As long as that is held, the run is being made: no repair
    writes it off, or takes the note away because the folder is not there yet.
    """
    path = _mark_path(run)
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return -1
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), MODE, exist_ok=True)
        return _mark(run)
    try:
        files.lock(fd, RUN_LOCK_SECONDS, f"the run {run.run_id}")
    except UserError:
        os.close(fd)
        raise
    if files.inode(path) == os.fstat(fd).st_ino:
        return fd
    os.close(fd)  # a repair was quicker, and has removed it
    return _mark(run)


def is_being_made(run: Run) -> bool:
    """True while some process is making the folder of this run."""
    return files.is_locked(_mark_path(run))


def remove_stale_mark(run: Run) -> None:
    """Take away the note of a run that has no folder, and that nobody is making."""
    try:
        fd = files.open_regular(_mark_path(run), os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        if files.try_lock(fd) and not os.path.isdir(run.path):
            unmark(run)
    finally:
        os.close(fd)


def _mark_path(run: Run) -> str:
    folder, name = os.path.split(run.path)
    return os.path.join(folder, ACTIVE, name)


def unmark(run: Run) -> None:
    """Take that note away."""
    files.remove(_mark_path(run))


def discard(run: Run) -> None:
    """Remove a run folder in which nothing came about; what cannot be removed stays."""
    import shutil

    shutil.rmtree(run.path, ignore_errors=True)
    unmark(run)


def marked(runs_dir: str) -> list[str]:
    """The ids of the runs that have not ended, or whose end nobody has recorded yet."""
    return files.names(os.path.join(runs_dir, ACTIVE))


def begin_record(run: Run) -> None:
    """Put the first record into a new run folder; the caller holds the run's lock.

    It has no pids yet: `extend_record` adds them.  (To replace a file costs
    several times what these two writes do.)
    """
    data = yamlio.dump(run.record).encode()
    if not files.create_file(run.file(RECORD), data, 0o600, durable=False):
        write_record(run, durable=False)


def extend_record(run: Run, pids: Record) -> None:
    """Add the pids to a record that has none; not durable."""
    keys = list(run.record)
    at = keys.index("start_time")  # before which the original has them
    run.record = {
        **{key: run.record[key] for key in keys[:at]},
        **pids,
        **{key: run.record[key] for key in keys[at:]},
    }
    if not files.extend_file(run.file(RECORD), yamlio.dump(pids).encode()):
        write_record(run, durable=False)


def write_record(run: Run, durable: bool = True) -> None:
    """Replace the record on disk by `run.record`; the caller holds the run's lock."""
    files.replace_file(run.file(RECORD), yamlio.dump(run.record).encode(), 0o600, durable)


def read(path: str) -> Run:
    """The run in that folder; a record that cannot be read leaves `problem` set."""
    try:
        text = Run(path, {}).read_text(RECORD, 4 << 20)
    except FileNotFoundError:
        return Run(path, _legacy_record(path))
    except OSError as error:
        return Run(path, {}, f"{RECORD}: {error.strerror}")
    if not text:
        return Run(path, {})  # its supervisor is about to write it, or was killed at that
    try:
        record = yamlio.load_flat(text)
        if record is None:
            record = yamlio.load_mapping(text, source=os.path.join(path, RECORD))
    except UserError as error:
        return Run(path, {}, str(error))
    return Run(path, record)


def _legacy_record(path: str) -> Record:
    """What `cwd.txt` alone says of a run of the shell original; {} without it."""
    try:
        text = Run(path, {}).read_text(CWD, 64 * 1024)
    except OSError:
        return {}
    pairs = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
    name = os.path.basename(path)
    record: Record = {
        "run_id": pairs.get("RUN_ID", name),
        "project_id": ids.slug(os.path.basename(pairs.get("CWD", "")) or "unknown"),
        "task_id": name,
        "agent": pairs.get("AGENT", ""),
        "cwd": pairs.get("CWD", ""),
        "commandline": pairs.get("CMD", ""),
        "start_time": time_from_name(name),
        "end_time": ids.ZERO_TIME,
        "exit_code": -1,
        "status": RUNNING,
    }
    try:
        record["pid"] = record["pgid"] = int(pairs.get("PID", "0"))
        code = int(pairs["EXIT_CODE"])
    except (KeyError, ValueError):
        return record
    record["exit_code"] = code
    record["status"] = FAILED if code else COMPLETED
    record["end_time"] = ids.rfc3339(os.stat(os.path.join(path, CWD)).st_mtime_ns)
    return record


def time_from_name(name: str) -> str:
    digits = name.removeprefix("run_")[:15]
    day, _, clock = digits.partition("-")
    if len(day) == 8 and len(clock) == 6 and (day + clock).isdigit():
        return f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z"
    return ids.ZERO_TIME


def listing(runs_dir: str) -> Iterator[Run]:
    """Every run below a runs folder: flat ones and those of task folders; no order."""
    for path in folders(runs_dir):
        yield read(path)


def folders(runs_dir: str) -> Iterator[str]:
    """The paths of all run folders: `runs/run_*` and `runs/PROJECT/TASK/runs/*`.

    Of the runs folder of one task, as a run in it sees it: those of that task.
    """
    for name, path in _subfolders(runs_dir):
        if is_run_name(name):
            yield path
            continue
        if name.startswith("."):
            continue
        for _, task in _subfolders(path):
            for run_name, run_path in _subfolders(os.path.join(task, "runs")):
                if run_name != ACTIVE:
                    yield run_path


def names_in(task_runs_dir: str) -> list[str]:
    """The names of what is in the runs folder of one task, the oldest run first."""
    return [name for name in files.names(task_runs_dir) if name[0] != "."]


def task_folders(runs_dir: str) -> Iterator[str]:
    """The paths of the folders `runs/PROJECT/TASK`, whatever is in them; by name."""
    try:
        # Runs first: there may be very many of them.
        names = [name for name in os.listdir(runs_dir) if not name.startswith(("run_", "."))]
    except OSError:
        return
    for project in sorted(names):
        if not is_run_name(project):
            for task in files.names(os.path.join(runs_dir, project)):
                if task[0] != ".":
                    yield os.path.join(runs_dir, project, task)


def _subfolders(path: str) -> list[tuple[str, str]]:
    try:
        with os.scandir(path) as entries:
            return [(e.name, e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def find(runs_dir: str, wanted: str) -> Run:
    """The one run whose id contains `wanted`; an exact id wins; UserError for none or several."""
    if not wanted:
        raise UserError("no run named; give any unique part of its id")
    matches = [path for path in folders(runs_dir) if wanted in os.path.basename(path)]
    exact = [path for path in matches if os.path.basename(path) == wanted]
    if len(exact or matches) == 1:
        return read((exact or matches)[0])
    if not matches:
        raise UserError(
            f"no run {wanted!r} in {runs_dir}; bin/list-runs --all shows them, "
            "--root names another place"
        )
    names = sorted(os.path.basename(path) for path in matches)
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    raise UserError(f"{wanted!r} names {len(names)} runs: {shown}; give more of the id")


def exit_code(run: Run) -> int | None:
    """The agent's exit code as the guard left it; None while there is none."""
    try:
        text, line_feed, _ = run.read_text(EXIT_CODE, 16).partition("\n")
        return int(text) if line_feed else None
    except (OSError, ValueError):
        return None


def agent_pid(run: Run) -> int:
    """The agent's pid from the record, else from pid.txt; 0 when neither tells."""
    pid = run.number("pid")
    if pid:
        return pid
    try:
        return int(run.read_text(PID, 32))
    except (OSError, ValueError):
        return 0


def was_started(run: Run) -> bool:
    """Whether there is any trace of an agent in a run that has ended."""
    if not run.number("supervisor_pid") and run.record.get("pid"):
        return True  # written by the original, which makes no pid.txt
    traces = any(files.size(run.file(name)) > 0 for name in (PID, STDOUT))
    return traces or exit_code(run) is not None


def is_foreign(run: Run) -> bool:
    """True when the record's pids mean nothing here: another host, or another pid namespace."""
    here = procs.machine()
    return any(run.text(key) and run.text(key) != here[key] for key in ("host", "pid_namespace"))


def agent_lives(run: Run) -> bool:
    """True while the agent itself lives: pid, start time, boot and place all match."""
    pid = agent_pid(run)
    if not pid or is_foreign(run):
        return False
    boot = run.text("boot_id")
    if boot and boot != procs.machine()["boot_id"]:
        return False
    start = run.text("agent_start")
    if start:
        return procs.is_alive(pid, start)
    process = procs.look_up(pid)
    if process is None or process.zombie:
        return False
    # A record from before its supervisor could note the start time, or one of
    # the original: the environment tells whose process that is.
    return procs.run_ids([pid]).get(pid) == run.run_id


def guard_lives(run: Run) -> bool:
    """True while the run's guard lives, which is about to leave the exit code."""
    pid, start = run.number("pgid"), run.text("guard_start")
    boot = run.text("boot_id")
    if not (pid and start) or is_foreign(run) or boot != procs.machine()["boot_id"]:
        return False
    return procs.is_alive(pid, start)


def is_held(run: Run) -> bool:
    """True while a supervisor, or somebody who repairs the run, holds its lock."""
    return files.is_locked(run.file(LOCK))


def state(run: Run) -> State:
    """What is true of the run now; reads only."""
    recorded = run.text("status")
    code = run.record.get("exit_code")
    if recorded in ENDED:
        return State(recorded, code if isinstance(code, int) else None, run.text("error_summary"))
    if run.problem:
        return State(UNKNOWN, None, run.problem)
    if is_held(run) or (not run.record and is_being_made(run)):
        return State(RUNNING, None, "", "supervisor")
    if not run.record:
        return State(FAILED, None, NEVER_STARTED, ended_unrecorded=True)
    if recorded != RUNNING:
        return State(UNKNOWN, None, f"its record says status {recorded!r}")
    if is_foreign(run):
        return State(UNKNOWN, None, f"recorded on {run.text('host')}, in another place than this")
    if agent_lives(run) or guard_lives(run):
        return State(RUNNING, None, "its supervisor is gone", "agent")
    # Between the look at the record and the look at the lock it may have ended.
    again = read(run.path)
    if again.text("status") in ENDED:
        run.record = again.record
        return state(again)
    return _evidence(run)


def _evidence(run: Run) -> State:
    code = exit_code(run)
    if code is None:
        reason = SUPERVISOR_LOST if was_started(run) else NEVER_STARTED
        return State(FAILED, None, reason, ended_unrecorded=True)
    status = COMPLETED if code in success_codes(run) else FAILED
    return State(status, code, "ended without its supervisor", ended_unrecorded=True)


def success_codes(run: Run) -> list[object]:
    """The exit codes with which its agent ends when all is well; its output may tell otherwise."""
    codes = run.record.get("success_codes")
    return codes if isinstance(codes, list) else [0]


def children(run: Run) -> list[tuple[int, str, str]]:
    """(supervisor's pid, its start time, run folder) of the child runs started in this run."""
    try:
        text = run.read_text(CHILDREN, 1 << 20)
    except OSError:
        return []
    rows = []
    for line in text.split("\n"):
        fields = line.split("\t")
        if len(fields) == 3 and fields[0].isdigit():
            path = fields[2].replace("%0A", "\n").replace("%09", "\t").replace("%25", "%")
            rows.append((int(fields[0]), fields[1], path))
    return rows


def note_child(parent_folder: str, run: Run) -> None:
    """Tell the run that this process was started in that it supervises a child run."""
    me = os.getpid()
    folder = run.path.replace("%", "%25").replace("\n", "%0A").replace("\t", "%09")
    line = f"{me}\t{procs.own_start()}\t{folder}"
    try:
        files.append_line(os.path.join(parent_folder, CHILDREN), line)
    except OSError:
        pass  # the parent's folder is gone or read-only: nobody is there to read it


def child_supervisors(run: Run) -> set[int]:
    """Pids of the living supervisors of this run's child runs."""
    return {pid for pid, start, _ in children(run) if procs.is_alive(pid, start)}
