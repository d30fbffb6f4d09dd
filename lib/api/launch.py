"""Starting loops and stopping runs: always as processes of their own, which outlive the server.

A task is started by `bin/run-task --detach`, in a session of its own: when the
short-lived process that this waits for has ended well, the loop holds its lock
and goes on alone.  Stops are `bin/stop-run`: once begun they are carried out,
whatever becomes of the server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, NoReturn

from lib import ids, loop_record, paths, plan_again, redact, tasks
from lib.api.console import tell
from lib.api.exchange import Refusal
from lib.errors import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_PREFLIGHT, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.plan_again import Start
    from lib.tasks import Task

PATIENCE_SECONDS = 60.0  # for run-task to begin; a slow one is not ended, it may have begun
STOP_PATIENCE_SECONDS = 45.0  # for a stop that is waited for, beyond the grace of stop-run
MAX_VALUE_BYTES = 96 << 10  # of a variable: the kernel takes 128 KiB
MAX_VARIABLES_BYTES = 256 << 10  # of all of them, names too: half of what the kernel takes at least
MAX_MESSAGE = 4 << 10
MOST_TOKENS = 100  # secret values in one request, a line of one counts as one
MOST_KNOWN_TOKENS = 200  # of requests: each takes 1.5 ms of the redaction of 8 MiB
_REFUSALS = (EXIT_FAILED, EXIT_USAGE, EXIT_PREFLIGHT)  # of run-all-tasks: a person can mend it
# Of the server alone: neither a loop nor an agent shall have them.
_SERVER_ONLY = (
    "CONDUCTOR_API_KEY", "CONDUCTOR_HOST", "CONDUCTOR_PORT", "CONDUCTOR_DISABLE_TASK_START",
)  # fmt: skip
# By these the toolkit itself finds its way, or the system loads programs.
_RESERVED_PREFIXES = ("JRUN_", "CONDUCTOR_", "LD_", "DYLD_", "PYTHON", "BASH_FUNC_", "GCONV_")
_RESERVED = frozenset(["PATH", "HOME", "SHELL", "ENV", "BASH_ENV", "IFS", "TMPDIR", "TZ"])


class Order:
    """A start that was asked for: all that run-task is told.

    `variables` are for the agent; they may be secret, and are written nowhere.
    An empty agent is that of the earlier start, an empty prompt TASK.md.
    """

    def __init__(
        self,
        project: str,
        task: str,
        run_id: str,
        *,
        agent: str = "",
        prompt: str = "",
        cwd: str = "",
        resume: bool = False,
        variables: dict[str, str] | None = None,
    ) -> None:
        self.project = project
        self.task = task
        self.run_id = run_id
        self.agent = agent
        self.prompt = prompt
        self.cwd = cwd
        self.resume = resume
        self.variables = variables or {}

    @property
    def key(self) -> tuple[str, str]:
        return self.project, self.task


def check_variables(value: object) -> dict[str, str]:
    """The `config` of a request as variables for an agent; Refusal 400 that names what is none."""
    found: dict[str, str] = {}
    for name, text in value.items() if isinstance(value, dict) else ():
        shown = redact.one_line(str(name), 60)
        if not (name.isidentifier() and name.isascii()):
            raise Refusal(400, f"config: {shown!r} cannot be the name of a variable")
        if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            raise Refusal(400, f"config: {shown} cannot be set: the toolkit goes by it")
        if not isinstance(text, str):
            raise Refusal(400, f"config: the value of {shown} is no text")
        if "\0" in text or len(_encoded(text, f"config: {shown}")) > MAX_VALUE_BYTES:
            raise Refusal(400, f"config: the value of {shown} is too long, or holds a NUL")
        found[name] = text
    if sum(len(name) + len(text.encode()) for name, text in found.items()) > MAX_VARIABLES_BYTES:
        raise Refusal(400, f"config: more than {MAX_VARIABLES_BYTES >> 10} KiB in all")
    if len(redact.tokens_in(found)) > MOST_TOKENS:
        raise Refusal(400, f"config: more than {MOST_TOKENS} secret values, or lines of them")
    return found


def _encoded(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Refusal(400, f"{what} holds half a character") from None


class PassingTokens:
    """The secret values of requests that this server takes out of what it shows, the newest of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[str] = []
        self._trials: list[list[str]] = []

    @contextmanager
    def tried(self, variables: dict[str, str]) -> Iterator[Callable[[], None]]:
        """Known for the time of a start, as its agent may show them at once; and on, if that is called.

        So no request that is refused makes the server forget what others have told it.
        """
        tokens = sorted(redact.tokens_in(variables))
        with self._lock:
            self._trials.append(tokens)
            self._make_known()

        def keep() -> None:
            with self._lock:
                older = [token for token in self._kept if token not in tokens]
                self._kept = [*older, *tokens][-MOST_KNOWN_TOKENS:]

        try:
            yield keep
        finally:
            with self._lock:
                self._trials.remove(tokens)
                self._make_known()

    def _make_known(self) -> None:
        tried = [token for tokens in self._trials for token in tokens]
        redact.set_passing_tokens(sorted({*self._kept, *tried}))


_tokens = PassingTokens()  # one, as what is redacted is the same for all of a process
_run_lock = threading.Lock()


def new_run_id() -> str:
    """An id for the first run of a start; no other thread is given the same."""
    with _run_lock:
        return ids.task_run_name(time.time_ns(), os.getpid())


class Launcher:
    """What starts and stops for one server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._stops: dict[str, subprocess.Popen[bytes]] = {}  # by what they stop

    # -- starting

    def start(self, order: Order) -> None:
        """Have the task's loop begin; when this returns it holds the task.

        Refusal 409 where another loop does, 400 for what run-task refuses, 503
        where it cannot begin now.
        """
        words = [*_words(order), "--runs-dir", self._service.runs_dir]
        with _tokens.tried(order.variables) as keep_tokens:
            environment = {**self._environment(), **order.variables}
            process, said = self._spawn("bin/run-task", words, environment, text=order.prompt)
            try:
                code = process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                keep_tokens()
                self._reap_later(process, said)
                text = "the start of the task takes long; look whether it begins"
                raise Refusal(503, text) from None
            message = _message(said)
            if code == 0:
                keep_tokens()
                return
        self._refuse(order, code, message)

    def _refuse(self, order: Order, code: int, message: str) -> NoReturn:
        task = tasks.locate(self._service.runs_dir, order.project, order.task)
        if loop_record.is_held(task):
            raise Refusal(409, "task is already running", task_id=order.task)
        if not order.resume and _is_done(
            task
        ):  # somebody else was quicker: another server, or a person
            raise Refusal(409, "task is done; resume it first", task_id=order.task)
        status = 400 if code in (EXIT_USAGE, EXIT_NOT_FOUND) else 503
        raise Refusal(
            status, message or f"the task could not be started: run-task ended with {code}"
        )

    def start_plan(self, start: Start) -> int:
        """Have a plan begin in the background; the pid of its process, 0 where that is not told.

        When this returns that process holds the plan.  Refusal 409 with what
        run-all-tasks says against it, 503 where it cannot begin now.
        """
        environment = self._environment()
        environment.pop("CONDUCTOR_CONFIG", None)  # of this server; the plan has its own
        environment.update(start.variables)
        words = [*start.words, "--detach", "--json"]
        with tempfile.TemporaryFile() as printed:
            process, said = self._spawn(
                plan_again.SCRIPT, words, environment, cwd=start.cwd, printed=printed
            )
            try:
                code = process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._reap_later(process, said)
                text = "the start of the plan takes long; look whether it begins"
                raise Refusal(503, text) from None
            message = _whole_message(said)
            if code == 0:
                return _pid_of(printed)
        text = message or f"the plan could not be started: {plan_again.SCRIPT} ended with {code}"
        raise Refusal(409 if code in _REFUSALS else 500, text)

    def _environment(self) -> dict[str, str]:
        """That of this server without what is its own; no task is a child of what started it."""
        found = {
            name: value
            for name, value in os.environ.items()
            if name not in _SERVER_ONLY and not name.startswith("JRUN_")
        }
        if self._service.url:
            found["JRUN_CONDUCTOR_URL"] = self._service.url
        if self._service.config.path:
            found["CONDUCTOR_CONFIG"] = self._service.config.path
        return found

    def _spawn(
        self,
        script: str,
        words: list[str],
        environment: dict[str, str],
        *,
        text: str = "",
        cwd: str | None = None,
        printed: IO[bytes] | None = None,
    ) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        """The process, in a session of its own, and the file that it tells its troubles to.

        Files without a name on both sides, no pipes: the death of this server
        cuts nothing off, neither what is read nor who writes.
        """
        command = [sys.executable, "-S", "-E", os.path.join(paths.TOOLKIT, script), *words]
        said: IO[bytes] | None = None
        try:
            said = tempfile.TemporaryFile()
            with tempfile.TemporaryFile() as given:
                given.write(text.encode())
                given.seek(0)
                process = subprocess.Popen(
                    command,
                    stdin=given,
                    stdout=subprocess.DEVNULL if printed is None else printed,
                    stderr=said,
                    env=environment,
                    cwd=cwd,
                    start_new_session=True,
                )
        except OSError as error:
            if said is not None:
                said.close()
            name = os.path.basename(script)
            raise Refusal(503, f"{name} cannot be started: {error.strerror}") from None
        return process, said

    # -- stopping

    def stop_run(self, path: str) -> None:
        """Have a run stopped with all that it started; returns at once."""
        # By its own runs folder: a copied task folder has runs of the same ids.
        self._begin_stop(path, [os.path.basename(path), "--runs-dir", os.path.dirname(path)])

    def stop_task(self, task: Task) -> None:
        """Have a task's loop stopped, and all that runs of it; returns at once."""
        words = ["--project", task.project, "--task", task.task]
        self._begin_stop(task.path, [*words, "--runs-dir", self._service.runs_dir])

    def stops(self, path: str) -> bool:
        """Whether a stop of that run or task is under way."""
        with self._lock:
            return path in self._stops

    def await_stops(self, places: list[str], seconds: float) -> bool:
        """Whether all of these stops have ended in time."""
        limit = time.monotonic() + seconds
        with self._lock:
            waiting = [self._stops[path] for path in places if path in self._stops]
        try:
            for process in waiting:
                process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def _begin_stop(self, place: str, words: list[str]) -> None:
        """One at a time: a second one would take the grace of the first away."""
        with self._lock:
            if place in self._stops:
                return
            process, said = self._spawn("bin/stop-run", words, self._environment())
            self._stops[place] = process
        self._reap_later(process, said, place)

    def _reap_later(
        self, process: subprocess.Popen[bytes], said: IO[bytes], place: str = ""
    ) -> None:
        def reap() -> None:
            code = process.wait()
            with self._lock:
                self._stops.pop(place, None)
            message = _message(said)
            if code:
                tell(message or f"a process ended with {code}")

        threading.Thread(target=reap, name="reaper", daemon=True).start()


def _is_done(task: Task) -> bool:
    try:
        return tasks.is_done(task)
    except UserError:
        return False  # what run-task said tells more


def _words(order: Order) -> list[str]:
    words = ["--project", order.project, "--task", order.task, "--run-id", order.run_id, "--detach"]
    if order.agent:
        words += ["--agent", order.agent]
    if order.prompt:
        words += ["--prompt-file", "/dev/stdin"]
    if order.cwd:
        words += ["--cwd", order.cwd]
    if order.resume:
        words.append("--resume")
    for name in order.variables:
        words += ["--env", name]
    return words


def _message(said: IO[bytes]) -> str:
    """The last line that a script told of its troubles, without its name; closes the file."""
    with said:
        said.seek(0, os.SEEK_END)
        said.seek(max(0, said.tell() - MAX_MESSAGE))
        lines = said.read().decode("utf-8", "replace").strip().split("\n")
    return redact.one_line(lines[-1].partition(": ")[2])


def _whole_message(said: IO[bytes]) -> str:
    """All lines in which a script told of its troubles, as one without its name; closes the file."""
    with said:
        said.seek(0)
        lines = said.read(MAX_MESSAGE).decode("utf-8", "replace").strip().split("\n")
    return redact.one_line("; ".join(line.partition(": ")[2] for line in lines), MAX_MESSAGE)


def _pid_of(printed: IO[bytes]) -> int:
    """The pid in the last line that `run-all-tasks.py --detach --json` prints."""
    printed.seek(0, os.SEEK_END)
    printed.seek(max(0, printed.tell() - MAX_MESSAGE))
    last = printed.read().strip().rpartition(b"\n")[2]
    try:
        told = json.loads(last)
    except (ValueError, RecursionError):
        return 0
    pid = told.get("pid") if isinstance(told, dict) else None
    return pid if isinstance(pid, int) else 0
