"""Processes: who they are, whether they live, how a whole tree is found and ended.

A pid on disk proves nothing: pids are reused, and mean something else on
another host or in another pid namespace.  A process is therefore named by
pid, start time, boot id, pid namespace and host together.

Linux answers from /proc and signals through pidfds.  Elsewhere (and on Linux
with CONDUCTOR_PORTABLE=1) everything comes from `ps`.
"""

from __future__ import annotations

import os
import sys
import time

from lib import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGPIPE, SIGTERM, SIGXFSZ = 1, 2, 3, 9, 13, 15, 25
SIGUSR1, SIGUSR2, SIGCHLD, SIGCONT = (
    (10, 12, 17, 18) if sys.platform == "linux" else (30, 31, 20, 19)
)
# Of signals that end a process; those that have one number everywhere, and two that do not.
SIGNAL_NAMES = {
    SIGHUP: "SIGHUP",
    SIGINT: "SIGINT",
    SIGQUIT: "SIGQUIT",
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    7 if sys.platform == "linux" else 10: "SIGBUS",
    8: "SIGFPE",
    SIGKILL: "SIGKILL",
    11: "SIGSEGV",
    SIGPIPE: "SIGPIPE",
    14: "SIGALRM",
    SIGTERM: "SIGTERM",
    24: "SIGXCPU",
    SIGXFSZ: "SIGXFSZ",
    31 if sys.platform == "linux" else 12: "SIGSYS",
}
# What a guard traps and Python ignores must be at its default in a new
# process: a shell cannot trap what was ignored when it started (POSIX, trap).
RESET_SIGNALS = (
    *(SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTERM, SIGXFSZ),
    *(SIGUSR1, SIGUSR2, SIGCHLD),
)
LEFTOVER_GRACE_SECONDS = 2.0
_PR_SET_CHILD_SUBREAPER = 36  # Source: prctl(2)

_machine: dict[str, str] | None = None
_own = (0, "")  # pid and start time of this process


class Process:
    """One row of the process table; `start` is the start time in the system's own unit."""

    __slots__ = ("pgid", "pid", "ppid", "session", "start", "zombie")

    def __init__(
        self, pid: int, ppid: int, pgid: int, session: int, start: str, zombie: bool
    ) -> None:
        self.pid = pid
        self.ppid = ppid
        self.pgid = pgid
        self.session = session
        self.start = start
        self.zombie = zombie


def machine() -> dict[str, str]:
    """Where pids of this process mean something: {"host", "boot_id", "pid_namespace"}."""
    global _machine
    if _machine is None:
        namespace = boot = ""
        try:
            namespace = os.readlink("/proc/self/ns/pid")
            boot = files.read_text("/proc/sys/kernel/random/boot_id").strip()
        except OSError:
            if sys.platform == "darwin":
                boot = _output(["sysctl", "-n", "kern.bootsessionuuid"])[0].strip()
        host = os.uname().nodename
        _machine = {"host": host, "boot_id": boot, "pid_namespace": namespace}
    return _machine


def _parse_stat(pid: int, data: bytes) -> Process:
    # The command name in brackets may hold anything, brackets too.  Source: proc_pid_stat(5)
    fields = data[data.rindex(b")") + 2 :].split()
    return Process(
        pid,
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        fields[19].decode(),
        fields[0] in (b"Z", b"X"),
    )


def _read_file(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def look_up(pid: int) -> Process | None:
    """The process of that pid, or None when there is none (a zombie is still one)."""
    if pid <= 0:
        return None
    if files.portable_only():
        rows = _ps_table(["-p", str(pid)])
        return rows.get(pid)
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _parse_stat(pid, os.read(fd, 4096))  # it comes whole
        finally:
            os.close(fd)
    except (OSError, ValueError, IndexError):
        return None


def start_time(pid: int) -> str:
    """When the process started, as the system says it; "" when there is none."""
    process = look_up(pid)
    return process.start if process else ""


def own_start() -> str:
    """When this process started, as `start_time` says it; looked up once."""
    global _own
    if _own[0] != os.getpid():  # a fork has the parent's
        _own = os.getpid(), start_time(os.getpid())
    return _own[1]


def own_line() -> str:
    """A line that names this process; `of_line` finds it again by that, as long as it lives."""
    here = machine()
    return f"{os.getpid()} {own_start()}\t{here['host']}\t{here['pid_namespace']}\n"


def of_line(line: str) -> Process | None:
    """The process that wrote this line by `own_line`; None where it has ended, or is not of here."""
    here = machine()
    who, *place = line.rstrip("\n").split("\t")
    pid, _, start = who.partition(" ")
    if not (pid.isascii() and pid.isdigit()) or place != [here["host"], here["pid_namespace"]]:
        return None
    process = look_up(int(pid[:18]))
    return process if process and process.start == start and not process.zombie else None


def is_alive(pid: int, start: str) -> bool:
    """True while that very process lives; a zombie is dead, a reused pid is another one."""
    process = look_up(pid)
    return process is not None and not process.zombie and (not start or process.start == start)


def table() -> dict[int, Process]:
    """Every process of this pid namespace by pid."""
    if files.portable_only():
        return _ps_table(["-A"])
    rows = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            process = look_up(int(name))
            if process is not None:
                rows[process.pid] = process
    return rows


def _ps_table(selection: list[str]) -> dict[int, Process]:
    # No session here: macOS prints a kernel address for it.
    text, ps = _output(["ps", *selection, "-o", "pid=,ppid=,pgid=,stat=,lstart="])
    rows = {}
    for line in text.split("\n"):
        fields = line.split(None, 4)
        if len(fields) == 5 and fields[0].isdigit():
            pid, ppid, pgid = int(fields[0]), int(fields[1]), int(fields[2])
            rows[pid] = Process(pid, ppid, pgid, 0, fields[4].strip(), fields[3][0] in "ZX")
    rows.pop(ps, None)  # it shows itself
    return rows


def _output(command: list[str]) -> tuple[str, int]:
    """stdout of a short system command ("" when it cannot be had), and the pid it had.

    In the C locale and in UTC: the start times that ps prints are compared
    with those that another process had from it.
    """
    read_end, write_end = os.pipe()
    try:
        pid = os.posix_spawnp(
            command[0],
            command,
            {**os.environ, "LC_ALL": "C", "TZ": "UTC0"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, write_end, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
    except OSError:
        os.close(read_end)
        return "", 0
    finally:
        os.close(write_end)
    with open(read_end, "rb") as pipe:
        data = pipe.read()
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # who ignores SIGCHLD, as the spawner does, has it reaped by the kernel
    return data.decode("utf-8", "replace"), pid


def command_line(pid: int) -> str:
    """The command line that a process was started with; "" when it cannot be had."""
    if files.portable_only():
        return _output(["ps", "-p", str(pid), "-ww", "-o", "command="])[0].strip()
    try:
        return _read_file(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def run_ids(pids: Iterable[int]) -> dict[int, str]:
    """The JRUN_ID in the environment that each process was started with; readable ones only."""
    if files.portable_only():
        return _ps_run_ids(set(pids))
    found = {}
    for pid in pids:
        try:
            environment = b"\0" + _read_file(f"/proc/{pid}/environ")
        except OSError:
            continue  # ended, or somebody else's
        at = environment.find(b"\0JRUN_ID=")
        if at >= 0:
            end = environment.find(b"\0", at + 1)
            found[pid] = environment[at + 9 : end if end > 0 else None].decode("utf-8", "replace")
    return found


def _ps_run_ids(pids: set[int]) -> dict[int, str]:
    """The same from `ps`, which shows the environment behind the command line."""
    show = ["-A", "-E", "-ww"] if sys.platform == "darwin" else ["axeww"]
    found = {}
    for line in _output(["ps", *show, "-o", "pid=,command="])[0].split("\n"):
        number, _, rest = line.strip().partition(" ")
        if number.isdigit() and int(number) in pids:
            at = rest.rfind(" JRUN_ID=")
            if at >= 0:
                found[int(number)] = rest[at + 9 :].split(" ", 1)[0]
    return found


def members(
    run_id: str, group: int, spared: Container[int], own_children: bool = False
) -> list[Process]:
    """Every living process that belongs to a run, except this process and the spared.

    A process belongs when it is in the run's session or process group
    (`group`, 0 = unknown), carries the run's id in its environment, or
    descends from one that does; with `own_children` also what descends from
    this process, for the run's supervisor.  A child run does not belong:
    processes with a JRUN_ID of their own are left out with all below them,
    and so is all below a spared one.
    """
    rows = table()
    ids = run_ids(rows)
    children: dict[int, list[int]] = {}
    for process in rows.values():
        children.setdefault(process.ppid, []).append(process.pid)
    queue = [
        process.pid
        for process in rows.values()
        if (group and group in (process.session, process.pgid)) or ids.get(process.pid) == run_id
    ]
    if own_children:
        queue += children.get(os.getpid(), ())
    ours = set(_above(rows, os.getpid()))
    found: dict[int, Process] = {}
    while queue:
        pid = queue.pop()
        if pid in found or pid in ours or pid in spared or ids.get(pid, run_id) != run_id:
            continue
        found[pid] = rows[pid]
        queue += children.get(pid, ())
    return [process for process in found.values() if not process.zombie]


def _above(rows: Mapping[int, Process], pid: int) -> list[int]:
    """`pid` and its ancestors: a run that stops itself must not end its own stopper."""
    line = []
    while pid in rows and pid not in line:
        line.append(pid)
        pid = rows[pid].ppid
    return line


def send(process: Process, signal_number: int) -> bool:
    """Signal that very process; False when it has ended, even if its pid is in use again."""
    if files.portable_only() or not hasattr(os, "pidfd_open"):
        if not is_alive(process.pid, process.start):
            return False
        try:
            os.kill(process.pid, signal_number)
        except (ProcessLookupError, PermissionError):
            return False
        return True
    import _signal  # the module `signal` costs 5 ms for its enums

    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        # The descriptor now pins the process: a start time that still fits
        # after this line cannot belong to a successor of the same pid.
        if not is_alive(process.pid, process.start):
            return False
        _signal.pidfd_send_signal(fd, signal_number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def send_group(group: int, signal_number: int) -> bool:
    """Signal a process group whose leader is known to be alive or unreaped."""
    if group <= 1:
        return False  # 0 would be the caller's own group
    try:
        os.killpg(group, signal_number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def become_subreaper() -> bool:
    """Make orphans among this process's descendants its children; False where that is not to be had.

    A daemon cannot then leave the run's tree, however it detaches.
    """
    if files.portable_only():
        return False
    try:
        import _ctypes  # what lies below ctypes: importing that costs 4 ms at each start

        this_program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]
        prctl = _ctypes.dlsym(this_program, "prctl")
        done: int = _ctypes.call_cdeclfunction(prctl, (_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    except (ImportError, OSError, AttributeError):
        return False
    return done == 0


def keep_statuses() -> None:
    """See to it that ended children wait to be reaped, whatever this process inherited."""
    import _signal

    _signal.signal(SIGCHLD, _signal.SIG_DFL)


def reap(pid: int = -1) -> tuple[int, int] | None:
    """(pid, wait status) of an ended child, (0, 0) when none has ended yet, None without children."""
    try:
        return os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None


def end_all(find: Finder, grace_seconds: float = LEFTOVER_GRACE_SECONDS) -> int:
    """SIGTERM to what `find()` lists, then SIGKILL to what is left; says how many there were.

    New ones are looked for until none is found: a process may fork while it
    is being ended.
    """
    first = find()
    for process in first:
        send(process, SIGTERM)
        send(process, SIGCONT)  # a stopped one takes it only then
    limit = time.monotonic() + grace_seconds
    rest = first
    while rest and time.monotonic() < limit:
        time.sleep(0.02)
        rest = find()
    rounds = 0
    while rest and rounds < 100:
        for process in rest:
            send(process, SIGKILL)
        time.sleep(0.01)
        rest = find()
        rounds += 1
    return len(first)


def exit_code(status: int) -> int:
    """A wait status as a shell says it: the code, or 128 + the signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


if TYPE_CHECKING:
    from collections.abc import Callable

    Finder = Callable[[], list[Process]]
