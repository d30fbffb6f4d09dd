"""A small server that forks supervisors: a plan's runs start fast, and outlive the plan.

A supervisor forked from the orchestrator itself would carry its command line
(`pkill -f run-all-tasks` would hit every run) and its memory; one that is
executed anew costs an interpreter's start.  So the orchestrator executes one
spawner, in a session of its own, and that forks supervisors.  Nothing hangs on
the spawner afterwards: killed, it is simply started again.

A supervisor holds one run at a time.  After a run that left nothing behind it
waits for another one, since a fork of Python costs more than the rest of a
short run: its pages are copied one by one as they are touched.  It ends with
the orchestrator, whose end of its socket then closes.

On a socket a message is 8 bytes of length and a marshalled dict, and with its
first bytes come descriptors.  The spawner gets {"type": …} and a supervisor's
end of a new socket.  A supervisor gets an order, the run's lock, which the
orchestrator already holds, and the write end of a pipe whose end tells that
the supervisor is done with the run; it sends a byte when it is free again.
"""

from __future__ import annotations

import _signal
import gc
import marshal
import os
import select
import socket
import sys

from lib import (
    agents,
    bus,
    faults,
    files,
    notices,
    procs,
    recovery,
    redact,
    runner,
    runs,
    supervisor,
)
from lib.errors import UserError

PROCESS_NAME = "conductor-supervisor"  # what `ps` and `pgrep -f` show
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from lib.spawner import main; main()"
_LENGTH_BYTES = 8
SEND_SECONDS = 10.0  # for an order, to a supervisor or spawner that may be stopped
RUNS_EACH = 100  # runs of one supervisor at most: what a run leaves in its memory goes with it


def interpreter() -> list[str]:
    """The command line that starts an interpreter such as this one."""
    flags = ["-S"] if sys.flags.no_site else []
    return [sys.executable, *flags, *(["-E"] if sys.flags.ignore_environment else [])]


class Spawner:
    """The orchestrator's end."""

    def __init__(self, toolkit: str) -> None:
        self._toolkit = toolkit
        self._socket: socket.socket | None = None
        self._supervisors: dict[int, socket.socket] = {}  # by descriptor
        self._free: list[socket.socket] = []  # those of them that wait for a run
        self._poller = select.poll()

    def start(self, path: str, lock: int, order: dict[str, object]) -> int:
        """Have the run in the folder `path` supervised; `lock` is handed over and closed here.

        `order` is {"request": …} to start it or {"adopt": True} for one that
        runs already.  Returns a descriptor that reports end of file when the
        run has no supervisor any more, however that came.
        """
        try:
            read_end, write_end = os.pipe()
        except OSError:
            os.close(lock)
            raise
        try:
            self._give({"run": path, **order}, [lock, write_end])
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
            os.close(lock)
        return read_end

    def _give(self, order: dict[str, object], descriptors: list[int]) -> None:
        payload = marshal.dumps(order)
        while (waiting := self._next_free()) is not None:
            try:
                _send(waiting, payload, descriptors)
                return
            except OSError:  # it was killed: nothing of this order was begun
                self._forget(waiting)
        _send(self._fork(_type_of(order)), payload, descriptors)

    def _next_free(self) -> socket.socket | None:
        """A supervisor that waits for a run; those that have ended are forgotten."""
        if not self._free:
            for fd, _ in self._poller.poll(0):
                told = self._supervisors[fd]
                try:
                    is_free = told.recv(1) != b""
                except OSError:
                    is_free = False
                if is_free:
                    self._free.append(told)
                else:
                    self._forget(told)
        return self._free.pop() if self._free else None

    def _forget(self, gone: socket.socket) -> None:
        self._poller.unregister(gone)
        del self._supervisors[gone.fileno()]
        gone.close()

    def _fork(self, type_name: str) -> socket.socket:
        """The socket of a new supervisor."""
        ours, theirs = socket.socketpair()
        ours.settimeout(SEND_SECONDS)
        request = marshal.dumps({"type": type_name})
        try:
            self._ask_spawner(request, theirs)
        except OSError:  # it was killed: it forked nothing for this
            self._close_spawner()
            self._ask_spawner(request, theirs)
        finally:
            theirs.close()
        self._supervisors[ours.fileno()] = ours
        self._poller.register(ours, select.POLLIN | select.POLLHUP)
        return ours

    def _ask_spawner(self, request: bytes, theirs: socket.socket) -> None:
        if self._socket is None:
            self._socket = self._launch()
        _send(self._socket, request, [theirs.fileno()])

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
        ours.settimeout(SEND_SECONDS)
        return ours

    def close(self) -> None:
        """Let the spawner end, and each supervisor after the run that it holds."""
        self._close_spawner()
        self._free.clear()
        for held in list(self._supervisors.values()):
            self._forget(held)

    def _close_spawner(self) -> None:
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
    _warm_up("")
    while True:
        request, descriptors = _receive(connection, 1)
        if request is None:
            return
        _warm_up(str(request["type"]))
        faults.point("spawner-fork")
        if os.fork() == 0:
            connection.close()
            _serve(socket.socket(fileno=descriptors[0]))
            os._exit(0)
        os.close(descriptors[0])


_warm: set[str] = set()


def _warm_up(type_name: str) -> None:
    """Load once, here, what every supervisor needs: a fork then has it for nothing."""
    if type_name in _warm:
        return
    _warm.add(type_name)
    try:
        import _ctypes  # noqa: F401 - for become_subreaper
    except ImportError:
        pass
    procs.machine()
    redact.text(bus.TASK_BUS)  # which collects the tokens of the environment
    if type_name:
        try:
            agents.load(type_name).reader({})
        except UserError:
            pass  # the supervisor says so in its run
    gc.collect()
    gc.freeze()  # what is never touched is never copied after a fork


def _type_of(order: dict[str, object]) -> str:
    request = order.get("request")
    return str(request.get("type") or "") if isinstance(request, dict) else ""


# -- messages


def _send(connection: socket.socket, payload: bytes, descriptors: list[int]) -> None:
    header = len(payload).to_bytes(_LENGTH_BYTES, "big")
    socket.send_fds(connection, [header], descriptors)
    connection.sendall(payload)


def _receive(connection: socket.socket, count: int) -> tuple[dict[str, object] | None, list[int]]:
    """A message and its `count` descriptors; None when the other end is closed."""
    try:
        header, descriptors, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, count)
        for descriptor in descriptors:  # they come without close-on-exec: no agent may have them
            os.set_inheritable(descriptor, False)
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


# -- a supervisor


def _write_pid(path: str) -> None:
    if not path:
        return
    # Not by rename: a killed supervisor would leave the temporary file in the runs folder,
    # where nobody could tell whether its writer still lives.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, b"%d\n" % os.getpid())
    finally:
        os.close(fd)


def _serve(connection: socket.socket) -> None:
    """The life of a supervisor: one run after the other, as long as each of them ends cleanly."""
    os.setsid()
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    inherited = dict(os.environ)  # in which every look at a value decodes it anew
    for _ in range(RUNS_EACH):
        faults.enter_part("supervisor")
        order, descriptors = _receive(connection, 2)
        if order is None:
            return
        lock, done = descriptors
        run = runs.Run(str(order["run"]), {})
        if not (_supervise(run, lock, order, inherited) and supervisor.let_go(run)):
            return
        try:
            connection.send(b"\n")  # first: who is told of the end finds it free
        except OSError:
            return
        os.close(done)


def _supervise(
    run: runs.Run, lock: int, order: dict[str, object], inherited: dict[str, str]
) -> bool:
    """Hold one run to its end; False when that went wrong."""
    tokens = order.get("tokens")
    redact.add_tokens(tokens if isinstance(tokens, list) else ())
    pid_file = str(order.get("pid_file") or "")  # of a plan's task; a loop's has its lock
    try:
        if order.get("adopt"):
            _write_pid(pid_file)
            _adopt(run, lock)
        else:
            request = order["request"]
            assert isinstance(request, dict)
            # Who reads the pid may signal it at once: not before signals are caught.
            runner.start(
                run,
                lock,
                runner.Request(**request),
                on_start=lambda _pid: _write_pid(pid_file),
                detached=True,
                inherited=inherited,
            )
        return True
    except (UserError, OSError) as error:
        notices.log(run, str(error))
    except Exception:  # noqa: BLE001 - a bug of ours: say where, the run is repaired by others
        import traceback

        notices.log(run, traceback.format_exc())
    finally:
        if pid_file:
            files.remove(pid_file)
    return False


def _adopt(run: runs.Run, lock: int) -> None:
    found = runs.read(run.path)
    if found.text("status") == runs.RUNNING:
        recovery.adopt(found, lock, detached=True).run_to_end()
    else:  # it was ended while the lock was waited for
        os.close(lock)
