"""A small server that forks supervisors: a plan's runs start fast, and outlive the plan.

A supervisor forked from the orchestrator itself would carry its command line
(`pkill -f run-all-tasks` would hit every run) and its memory; one that is
executed anew costs an interpreter's start.  So the orchestrator executes one
spawner, in a session of its own, and that forks a supervisor for each run.
Nothing hangs on the spawner afterwards: killed, it is simply started again.

On the socket a request is 8 bytes of length and a marshalled dict; with its
first bytes come two descriptors: the run's lock, which the orchestrator
already holds, and the write end of a pipe whose end tells it that the
supervisor has ended.
"""

from __future__ import annotations

import _signal
import gc
import marshal
import os
import socket
import sys

from lib import agents, bus, faults, files, procs, redact, runner, runs, supervisor
from lib.errors import UserError

PROCESS_NAME = "conductor-supervisor"  # what `ps` and `pgrep -f` show
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from lib.spawner import main; main()"
_LENGTH_BYTES = 8


def interpreter() -> list[str]:
    """The command line that starts an interpreter such as this one."""
    flags = ["-S"] if sys.flags.no_site else []
    return [sys.executable, *flags, *(["-E"] if sys.flags.ignore_environment else [])]


class Spawner:
    """The orchestrator's end."""

    def __init__(self, toolkit: str) -> None:
        self._toolkit = toolkit
        self._socket: socket.socket | None = None

    def start(self, path: str, lock: int, order: dict[str, object]) -> int:
        """Have the run in the folder `path` supervised; `lock` is handed over and closed here.

        `order` is {"request": …} to start it or {"adopt": True} for one that
        runs already.  Returns a descriptor that reports end of file when its
        supervisor has ended, however that came.
        """
        read_end, write_end = os.pipe()
        payload = marshal.dumps({"run": path, **order})
        try:
            try:
                self._send(payload, [lock, write_end])
            except OSError:  # it was killed: nothing of this request was begun
                self.close()
                self._send(payload, [lock, write_end])
        finally:
            os.close(write_end)
            os.close(lock)
        return read_end

    def _send(self, payload: bytes, descriptors: list[int]) -> None:
        if self._socket is None:
            self._socket = self._launch()
        header = len(payload).to_bytes(_LENGTH_BYTES, "big")
        socket.send_fds(self._socket, [header], descriptors)
        self._socket.sendall(payload)

    def _launch(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        command = [*interpreter(), "-c", _CODE, self._toolkit, PROCESS_NAME]
        os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, number, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=procs.RESET_SIGNALS,
        )
        theirs.close()
        return ours

    def close(self) -> None:
        """Let the spawner end; the supervisors go on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def main() -> None:
    """The spawner: forks a supervisor for every request, until the socket ends."""
    faults.enter_part("spawner")

    connection = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the kernel reaps the supervisors
    for number in (_signal.SIGINT, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)
    _warm_up({})
    while True:
        order, descriptors = _receive(connection)
        if order is None:
            return
        _warm_up(order)
        faults.point("spawner-fork")
        if os.fork() == 0:
            connection.close()
            os._exit(_supervise(order, descriptors))
        for descriptor in descriptors:
            os.close(descriptor)


_warm: set[str] = set()


def _warm_up(order: dict[str, object]) -> None:
    """Load once, here, what every supervisor needs: a fork then has it for nothing."""
    request = order.get("request")
    name = str(request.get("type") or "") if isinstance(request, dict) else ""
    if name in _warm:
        return
    _warm.add(name)
    try:
        import _ctypes  # noqa: F401 - for become_subreaper
    except ImportError:
        pass
    procs.machine()
    redact.text(bus.TASK_BUS)  # which collects the tokens of the environment
    if name:
        try:
            agents.load(name).reader({})
        except UserError:
            pass  # the supervisor says so in its run
    gc.collect()
    gc.freeze()  # what is never touched is never copied after a fork


def _receive(connection: socket.socket) -> tuple[dict[str, object] | None, list[int]]:
    try:
        header, descriptors, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, 2)
        while header and len(header) < _LENGTH_BYTES:
            header += connection.recv(_LENGTH_BYTES - len(header)) or b"\0" * _LENGTH_BYTES
        if not header:
            return None, []
        wanted = int.from_bytes(header, "big")
        payload = bytearray()
        while len(payload) < wanted:
            part = connection.recv(wanted - len(payload))
            if not part:
                return None, []  # the orchestrator died while it sent; its lock falls free
            payload += part
    except OSError:
        return None, []
    return marshal.loads(payload), descriptors  # noqa: S302 - from our own orchestrator


def _write_pid(path: str) -> None:
    # Not by rename: a killed supervisor would leave the temporary file in the runs folder,
    # where nobody could tell whether its writer still lives.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, b"%d\n" % os.getpid())
    finally:
        os.close(fd)


def _supervise(order: dict[str, object], descriptors: list[int]) -> int:
    """The life of one supervisor, in a process of its own; returns its exit status."""
    faults.enter_part("supervisor")
    lock, done = descriptors
    os.set_inheritable(lock, False)
    os.set_inheritable(done, False)
    os.setsid()
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    tokens = order.get("tokens")
    redact.add_tokens(tokens if isinstance(tokens, list) else ())
    path = str(order["run"])
    pid_file = str(order["pid_file"])
    run = runs.Run(path, {})
    code = 1
    try:
        if order.get("adopt"):
            _write_pid(pid_file)
            run = runs.read(path)
            if (
                run.text("status") == runs.RUNNING
            ):  # else it was ended while the lock was waited for
                code = supervisor.adopt(run, lock, detached=True).run_to_end()
        else:
            request = order["request"]
            assert isinstance(request, dict)
            # Who reads the pid may signal it at once: not before signals are caught.
            code = runner.start(
                run,
                lock,
                runner.Request(**request),
                on_start=lambda _pid: _write_pid(pid_file),
                detached=True,
            )
    except (UserError, OSError) as error:
        supervisor.log(run, str(error))
    except Exception:  # noqa: BLE001 - a bug of ours: say where, the run is repaired by others
        import traceback

        supervisor.log(run, traceback.format_exc())
    finally:
        files.remove(pid_file)
    return code
