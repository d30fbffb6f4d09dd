"""The one place that starts an agent: what it is given, and what is recorded of it.

`prepare` turns what a caller wants into a Request, and finds every mistake
before anything is made.  `start` makes a run of it in a run folder that the
caller allocated and locked, and stays with it to its end (lib/supervisor.py).
"""

from __future__ import annotations

import os
import time

from lib import (
    agents,
    faults,
    files,
    guard,
    ids,
    notices,
    paths,
    procs,
    recovery,
    redact,
    runs,
    supervisor,
)
from lib.agents import base
from lib.errors import EXIT_NOT_FOUND, EXIT_USAGE, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from lib.config import Config

FIRST_CHOICES = ("codex", "claude", "gemini")  # without a config, the first found on PATH
MAX_PROMPT_BYTES = 64 << 20
DEFAULT_FREE_MB = 500
_USAGE_LINES = 200  # with which a program may follow what it has refused
VERSION_SECONDS = 5.0
FIRST_STDERR = "agent-stderr-1.txt"  # of a start that was followed by another one


class Request:
    """All that is needed to start one run; plain data, so that it can go to another process."""

    __slots__ = (
        "agent",
        "attempt",
        "bus",
        "config",
        "cwd",
        "env",
        "executable",
        "final",
        "idle_timeout",
        "keep_background",
        "model",
        "options",
        "parent",
        "previous",
        "project",
        "prompt",
        "resume",
        "session_id",
        "task",
        "task_folder",
        "timeout",
        "token",
        "token_variables",
        "totals_before",
        "type",
    )

    def __init__(self, **values: object) -> None:
        self.agent = str(values.get("agent") or "")  # the name that was asked for
        self.type = str(values.get("type") or self.agent)  # the backend
        self.executable = _text(values.get("executable"))
        self.options = _mapping(values.get("options"))
        self.cwd = str(values.get("cwd") or "")
        self.prompt = _bytes(values.get("prompt"))
        self.project = str(values.get("project") or "default")
        self.task = str(values.get("task") or "default")
        self.task_folder = str(values.get("task_folder") or "")  # in which the run lies, if in any
        self.parent = str(values.get("parent") or "")
        self.previous = str(values.get("previous") or "")
        self.bus = str(values.get("bus") or "")
        self.config = str(values.get("config") or "")  # the file with its settings, and prices
        self.timeout = _seconds(values.get("timeout"))  # 0 = none
        self.idle_timeout = _seconds(values.get("idle_timeout"))
        self.model = _text(values.get("model"))
        self.session_id = _text(values.get("session_id"))
        self.resume = values.get("resume") is True
        totals = values.get("totals_before")  # what its session had used until then
        self.totals_before = totals if isinstance(totals, dict) else None
        self.env = {str(k): str(v) for k, v in _mapping(values.get("env")).items()}
        self.keep_background = values.get("keep_background") is True
        self.attempt = str(values.get("attempt") or "")  # "2": which try of its task this is
        self.final = values.get("final", True) is True  # False: if it fails, it is tried again
        self.token = str(values.get("token") or "")  # repeats what the plan's state noted
        # Of all agents, as the process that read the configuration knows them.
        self.token_variables = _names(values.get("token_variables")) or agents.all_token_variables()

    def as_dict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}


def _text(value: object) -> str | None:
    return str(value) if value else None


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _names(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}


def choose_agent(config: Config, search_path: str | None = None) -> str:
    """The agent for a caller who named none: the config's default, else the first on PATH."""
    default = config.defaults.get("agent")
    if default:
        return str(default)
    for name in FIRST_CHOICES:
        if name in agents.types() and agents.find_executable(name, search_path or _path()):
            return name
    raise UserError(
        f"no agent given and none of {', '.join(FIRST_CHOICES)} is on PATH; "
        "install one, or try: run-agent.py offline",
        EXIT_NOT_FOUND,
    )


def _path() -> str:
    return os.environ.get("PATH", os.defpath)


def resolve_agent(config: Config, name: str) -> tuple[str, dict[str, object], str | None]:
    """(type, settings, executable) of an agent by name.

    UserError with code 2 for an unknown name or a token file without a token,
    127 for a program that is not on PATH (the text names how to install it).
    """
    options = config.entry(name)
    type_name = str(options.get("type") or name)
    if type_name in agents.INTERNAL:
        cure = "write loop: true in a task, or use bin/run-task"
        raise UserError(
            f"{type_name} is no agent, but what plans put around one; {cure}", EXIT_USAGE
        )
    backend = agents.load(type_name)
    config.check_token(name)
    program = agents.executable_name(backend, options)
    if options.get("executable"):
        program = os.path.expanduser(str(options["executable"]))
    if program is None:
        return type_name, options, None
    found = agents.find_executable(program, _path())
    if found is None:
        raise UserError(
            f"{name}: the program {program!r} is not on PATH; "
            f"install it: {agents.install_hint(backend, options)}",
            EXIT_NOT_FOUND,
        )
    return type_name, options, found


def missing_key(type_name: str, options: dict[str, object]) -> str:
    """The variable of the key that an agent is nothing without and has not; "" for all is well."""
    backend = agents.load(type_name)
    if backend.EXECUTABLE is not None or not backend.TOKEN_VARIABLES or type_name == "command":
        return ""
    if options.get("token") or any(map(os.environ.get, backend.TOKEN_VARIABLES)):
        return ""
    return str(backend.TOKEN_VARIABLES[0])


def read_prompt(path: str) -> bytes:
    """The prompt in a file; UserError for one that is missing, no file, empty or not UTF-8."""
    shown = path.replace("\n", "\\n")
    try:
        if os.path.isdir(path):
            raise UserError(f"prompt is a folder: {shown}; name the file in it")
        with open(path, "rb") as file:
            prompt = file.read(MAX_PROMPT_BYTES + 1)
    except FileNotFoundError:
        raise UserError(
            f"no prompt file {shown}; write it, or name another: run-agent.py AGENT CWD PROMPT_FILE"
        ) from None
    except OSError as error:
        raise UserError(f"prompt cannot be read: {shown}: {error.strerror}") from None
    return check_prompt(prompt, shown)


def check_prompt(prompt: bytes, source: str) -> bytes:
    """The prompt, if an agent can be given it; `source` names it in the error."""
    if len(prompt) > MAX_PROMPT_BYTES:
        raise UserError(f"prompt is larger than {MAX_PROMPT_BYTES >> 20} MiB: {source}; shorten it")
    try:
        text = prompt.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"prompt is not UTF-8: {source}: byte {error.start}; convert it, e.g. with iconv"
        ) from None
    if not text.strip():
        raise UserError(f"prompt is empty: {source}; write what the agent shall do")
    return prompt


def check_cwd(path: str) -> str:
    """The working folder as an absolute path; UserError when it is none."""
    folder = os.path.abspath(os.path.expanduser(path))
    if not os.path.isdir(folder):
        shown = folder.replace("\n", "\\n")
        raise UserError(f"working folder {shown} is not a folder; make it, or name another")
    return folder


def check_space(folder: str) -> None:
    """UserError when the disk is too full to start anything ($CONDUCTOR_MIN_FREE_MB, 500)."""
    try:
        floor = int(os.environ.get("CONDUCTOR_MIN_FREE_MB", DEFAULT_FREE_MB))
    except ValueError:
        floor = DEFAULT_FREE_MB
    free = files.free_bytes(folder) >> 20
    if free < floor:
        raise UserError(
            f"disk is short: {free} MB free at {folder}, the floor is {floor} MB; "
            "free some, or lower CONDUCTOR_MIN_FREE_MB"
        )


def launch_of(run: runs.Run, request: Request, *, is_old: bool = False) -> base.Launch:
    """What the backend is told about this run."""
    return base.Launch(
        executable=request.executable,
        prompt_path=run.file(runs.PROMPT),
        run_dir=run.path,
        cwd=request.cwd,
        model=request.model or _text(request.options.get("model")),
        session_id=request.session_id,
        resume=request.resume,
        is_old=is_old,
        options=request.options,
    )


def environment(
    run: runs.Run,
    request: Request,
    backend: ModuleType,
    launch: base.Launch,
    inherited: Mapping[str, str],
) -> dict[str, str]:
    """The agent's environment: ours, the JRUN_* contract, its own token and no other's."""
    options = request.options
    own_tokens = _own_tokens(backend, options)
    result = dict(inherited)
    # Faults are for the process they were planned in, not for child runs; an
    # agent must not take itself for a part of the session it was started in.
    for name in ("CONDUCTOR_FAULT", "JRUN_TASK_FOLDER", *base.NESTED_SESSION_VARIABLES):
        result.pop(name, None)
    for name in request.token_variables:
        if name not in own_tokens:
            result.pop(name, None)
    for name in inherited:
        if base.is_config_token(name):
            result.pop(name, None)
    bin_folder = os.path.join(paths.TOOLKIT, "bin")
    search_path = result.get("PATH", os.defpath)
    if bin_folder not in search_path.split(os.pathsep):
        search_path = bin_folder + os.pathsep + search_path
    result["PATH"] = search_path
    result.update(
        JRUN_PROJECT_ID=request.project,
        JRUN_TASK_ID=request.task,
        JRUN_ID=run.run_id,
        JRUN_PARENT_ID=request.parent,
        JRUN_RUNS_DIR=os.path.dirname(run.path),
        JRUN_RUN_FOLDER=run.path,
        JRUN_MESSAGE_BUS=request.bus,
        **({"JRUN_TASK_FOLDER": request.task_folder} if request.task_folder else {}),
    )
    token = options.get("token")
    if token and own_tokens:
        result[own_tokens[0]] = str(token)
    for changes in (backend.environment(launch), _mapping(options.get("env")), request.env):
        for variable, wanted in changes.items():
            if wanted is None:
                result.pop(variable, None)
            else:
                result[variable] = str(wanted)
    return result


def _own_tokens(backend: ModuleType, options: Mapping[str, object]) -> Sequence[str]:
    if hasattr(backend, "token_variables"):
        named: Sequence[str] = backend.token_variables(options)
        return named
    fixed: Sequence[str] = backend.TOKEN_VARIABLES
    return fixed


def preamble(run: runs.Run, request: Request) -> bytes:
    """What an agent is told about its run, before the prompt."""
    if request.task_folder and request.token:  # an attempt of the task, and not a child run
        from lib import task_preamble

        return task_preamble.text(run, request)
    append = os.path.join(paths.TOOLKIT, "bin", "bus-append")
    lines = [
        *([f"JRUN_TASK_FOLDER={request.task_folder}"] if request.task_folder else []),
        f"JRUN_RUN_FOLDER={run.path}",
        f"JRUN_PROJECT_ID={request.project}",
        f"JRUN_TASK_ID={request.task}",
        f"JRUN_ID={run.run_id}",
        *([f"JRUN_PARENT_ID={request.parent}"] if request.parent else []),
        f"JRUN_MESSAGE_BUS={request.bus}",
        f"Write your final answer to {run.file(runs.OUTPUT)}",
        f'Report progress with: {append} --type PROGRESS "..." (also FACT, DECISION, ERROR)',
    ]
    shown = [line.replace("\n", "\\n") for line in lines]
    return ("\n".join(shown) + "\n\n---\n\n").encode("utf-8", "surrogateescape")


def new_record(run: runs.Run, request: Request) -> runs.Record:
    """The record before the agent starts: all that is known, status running, no pids."""
    record: runs.Record = {
        "version": 1,
        "run_id": run.run_id,
        **({"parent_run_id": request.parent} if request.parent else {}),
        **({"previous_run_id": request.previous} if request.previous else {}),
        "project_id": request.project,
        "task_id": request.task,
        "agent": request.type,
        "process_ownership": "managed",
        "start_time": ids.rfc3339(),
        "end_time": ids.ZERO_TIME,
        "exit_code": -1,
        "status": runs.RUNNING,
        "cwd": request.cwd,
        "prompt_path": run.file(runs.PROMPT),
        "output_path": run.file(runs.OUTPUT),
        "stdout_path": run.file(runs.STDOUT),
        "stderr_path": run.file(runs.STDERR),
        "agent_version": "",
    }
    extra = {
        "agent_name": request.agent if request.agent != request.type else "",
        "model": request.model or request.options.get("model") or "",
        "session_id": request.session_id or "",
        "resumed": request.resume,
        "totals_before": request.totals_before,
        "attempt": request.attempt,
        "attempt_token": request.token,
        "will_retry": not request.final,
        "bus": request.bus,
        "timeout": request.timeout,
        "idle_timeout": request.idle_timeout,
        "keep_background": request.keep_background,
        "output_kind": str(request.options.get("output") or ""),
        "config": request.config,
        "monotonic_start": time.monotonic(),
        "supervisor_pid": os.getpid(),
        "supervisor_start": procs.own_start(),
        **procs.machine(),
    }
    record.update({key: value for key, value in extra.items() if value})
    return record


def start(
    run: runs.Run,
    lock: int,
    request: Request,
    *,
    on_start: Callable[[int], None] | None = None,
    on_text: Callable[[str], None] | None = None,
    detached: bool = False,
    inherited: Mapping[str, str] = os.environ,
) -> int:
    """Run the agent in the folder `run`, whose lock descriptor `lock` is taken over.

    Returns what `run-agent.py` exits with.  `on_start(pid)` is called once the
    agent runs, `on_text` with each new piece of its transcript.  However this
    process ends, the run can be repaired from its folder.
    """
    faults.point("run-allocated")
    run.record = new_record(run, request)
    watch = supervisor.Supervisor(
        run, lock, stop_run=recovery.stop, on_text=on_text, detached=detached
    )
    watch.catch_signals()
    try:
        backend = agents.load(request.type)
        _choose_session(run, request, backend)
        _settle(run, request, backend)
        watch.reader = backend.reader(reader_options(request))
        _note_child(run, request)
        _write_prompt(run, request, backend)
        launch = launch_of(run, request)
        command = backend.command(launch)
        variables = environment(run, request, backend, launch, inherited)
        redact.add_tokens(redact.known_tokens(_changes(variables, inherited)))
        _note_model(run, request, backend, variables)
        run.record["commandline"] = shown = redact.text(_shown_command(command, run, request))
        runs.begin_record(run)
        _note_cwd(run, request, shown)
        faults.point("run-recorded")
        watch.spare_children()
        _spawn(run, request, command, variables, watch)
        watch.prepare()
        pid = watch.take_pid()
    except (UserError, OSError) as error:
        watch.fail(_reason(error), _class_of(error))
        raise
    if pid and on_start is not None:
        try:
            on_start(pid)
        except OSError:
            pass  # the terminal is gone; the run is not
    if _may_be_too_old(request, backend):
        watch.start_again = lambda: _start_again(run, request, backend, inherited, watch)
    watch.let_start()
    return watch.run_to_end()


def _choose_session(run: runs.Run, request: Request, backend: ModuleType) -> None:
    """Name the session before it begins: so it is known, whenever the agent ends."""
    if not request.session_id and agents.chooses_session(backend, request.options):
        run.record["session_id"] = request.session_id = ids.session_id()


def reader_options(request: Request) -> dict[str, object]:
    """What the backend's reader is told."""
    if not request.resume:
        return request.options
    return {**request.options, "resume": True, "totals_before": request.totals_before}


# -- programs that are too old for their stream mode


def _may_be_too_old(request: Request, backend: ModuleType) -> bool:
    # One that has no such mode has no session to resume by it, either.
    has_mode = hasattr(backend, "STREAM_OPTIONS") and not base.wants_text(request.options)
    return has_mode and not request.resume


def _start_again(
    run: runs.Run,
    request: Request,
    backend: ModuleType,
    inherited: Mapping[str, str],
    watch: supervisor.Supervisor,
) -> bool:
    """Start the program that has ended once more, for plain text; False where it was not too old.

    Killed in the midst of this, the run is one whose agent was never started, or one
    that has failed as the first start did: what tells of that goes in the order of
    record, pid, exit code.
    """
    from lib.agents import _too_old

    stderr = "\n".join(notices.stderr_tail(run, _USAGE_LINES))
    # What the user has written stays: a start without it would not be what was asked for.
    own = {w for key in ("args", "unattended") for w in base.words(request.options, key)}
    ours = [option for option in backend.STREAM_OPTIONS if option not in own]
    option = _too_old.refused_option(stderr, ours)
    if not option:
        return False
    before, is_moved = dict(run.record), False
    try:
        request.options = {**request.options, "output": "text"}
        request.session_id = None
        launch = launch_of(run, request, is_old=True)
        command = backend.command(launch)
        variables = environment(run, request, backend, launch, inherited)
        _record_again(run, request, backend, command, variables, option)
        faults.point("run-restarted-as-text")
        body = f"task={request.task} run={run.run_id}: {run.text('too_old')}"
        notices.post(run, "WARNING", body)
        files.remove(run.file(runs.PID))
        files.remove(run.file(runs.EXIT_CODE))
        os.rename(run.file(runs.STDERR), run.file(FIRST_STDERR))  # it tells nothing of what follows
        is_moved = True
        faults.point("run-restart-cleared")
        _spawn(run, request, command, variables, watch)
    except (UserError, OSError) as error:
        run.record = before
        if is_moved:
            os.replace(run.file(FIRST_STDERR), run.file(runs.STDERR))
        notices.log(run, f"it could not be started again: {_reason(error)}")
        return False
    watch.begin_again(backend.reader(request.options))
    watch.take_pid()
    watch.let_start()
    return True


def _record_again(
    run: runs.Run,
    request: Request,
    backend: ModuleType,
    command: list[str],
    variables: Mapping[str, str],
    option: str,
) -> None:
    """Make of the record one of before its agent, with the reason why that begins again."""
    record = run.record
    for key in ("pid", "pgid", "agent_start", "guard_start", "session_id", "silent_since"):
        record.pop(key, None)
    program = request.executable or backend.EXECUTABLE
    record["agent_version"] = version = _version(program, backend.VERSION, variables)
    record["output_kind"] = "text"
    record["commandline"] = shown = redact.text(_shown_command(command, run, request))
    record["too_old"] = redact.one_line(
        f"{request.agent} {version or 'of an unknown version'} at {program} is too old for its "
        f"stream mode (it does not know {option}): it runs as plain text, without tokens and "
        f"cost; update it: {backend.INSTALL}"
    )
    runs.write_record(run, durable=False)
    notices.try_note(run, "CMD", shown)


def _version(program: str, pattern: str, variables: Mapping[str, str]) -> str:
    """What the program says to --version; "" where it does not say it soon."""
    import re
    import subprocess

    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(variables),
            start_new_session=True,
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    found = re.search(pattern, done.stdout[:4096].decode("utf-8", "replace"))
    return redact.for_terminal(found[1]) if found else ""


def _settle(run: runs.Run, request: Request, backend: ModuleType) -> None:
    """Have the backend complete the options for this one run, and note what an adopter needs."""
    if hasattr(backend, "settled"):
        request.options = backend.settled(request.options, run)
        if request.options.get("output"):
            run.record["output_kind"] = str(request.options["output"])


def _note_model(
    run: runs.Run, request: Request, backend: ModuleType, variables: Mapping[str, str]
) -> None:
    """Note what tells the model of an agent whose output does not, and where its token goes."""
    record = run.record
    own_tokens = _own_tokens(backend, request.options)
    if request.options.get("token") and own_tokens:
        record["token_variable"] = own_tokens[0]  # for the cure, should that be refused
    if hasattr(backend, "configured_model"):
        record["agent_home"] = backend.settings_folder(variables)
        record.setdefault("model", backend.model_argument(request.options))
    model = redact.one_line(str(record.pop("model", "")), 100)
    record.update({"model": model} if model else {})


def _note_child(run: runs.Run, request: Request) -> None:
    inside = os.environ.get("JRUN_RUN_FOLDER")
    if inside and request.parent:
        runs.note_child(inside, run)


def _write_prompt(run: runs.Run, request: Request, backend: ModuleType) -> None:
    wanted_preamble = getattr(backend, "PREAMBLE", True) and request.options.get("preamble", True)
    prompt = (preamble(run, request) if wanted_preamble else b"") + request.prompt
    guard.write_new(run.file(runs.PROMPT), prompt)


def _changes(variables: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """What the agent gets that this process has not; the tokens of this one are known."""
    get = inherited.get
    return {name: value for name, value in variables.items() if get(name) != value}


def _class_of(error: UserError | OSError) -> str:
    """A UserError is about what was asked for: starting it again would end the same way."""
    if isinstance(error, OSError):
        return "failed"
    return "not-installed" if error.exit_code == EXIT_NOT_FOUND else "bad-request"


def _reason(error: UserError | OSError) -> str:
    if isinstance(error, OSError):
        return f"could not start: {error.strerror or error}"
    return str(error)


def _shown_command(command: list[str], run: runs.Run, request: Request) -> str:
    clean = [redact.text(word) for word in command]  # before the cut: half a token is not known
    words = [word if len(word) <= 200 else word[:200] + "…" for word in clean]
    return f"{' '.join(words)} < {_stdin_path(run, request)}"


def _stdin_path(run: runs.Run, request: Request) -> str:
    """What the agent reads: its prompt, or nothing where it is given that in another way."""
    backend = agents.load(request.type)
    if hasattr(backend, "stdin") and not backend.stdin(launch_of(run, request)):
        return os.devnull
    return run.file(runs.PROMPT)


def _note_cwd(run: runs.Run, request: Request, shown_command: str) -> None:
    pairs = {
        "RUN_ID": run.run_id,
        "CWD": request.cwd,
        "AGENT": request.agent,
        "CMD": shown_command,
        "PROMPT": run.file(runs.PROMPT),
        "STDOUT": run.file(runs.STDOUT),
        "STDERR": run.file(runs.STDERR),
    }
    notices.note(run, pairs)


def _spawn(
    run: runs.Run,
    request: Request,
    command: list[str],
    variables: Mapping[str, str],
    watch: supervisor.Supervisor,
) -> None:
    """Start the guard, and leave it and the ends of its pipes with the supervisor."""
    prompt = _stdin_path(run, request)
    try:
        watch.guard, watch.pipe, watch.word = guard.start(
            run, prompt, request.cwd, command, variables
        )
    except ValueError as error:  # a NUL in a value, a "=" in a name
        raise UserError(
            f"the command or environment of agent {request.agent} cannot be passed on: {error}; "
            "correct `env` and `command` in the config or the plan"
        ) from None
