"""run-task: start an agent on one task again and again, until the task is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from lib import (
    agents,
    config,
    faults,
    files,
    ids,
    loop_control,
    loop_record,
    paths,
    quota,
    recovery,
    redact,
    runner,
    runs,
    tasks,
    thread_link,
)
from lib.cli import ROOT, Command, Option, Values, parse_variables, run, say
from lib.errors import EXIT_OK, UsageError, UserError
from lib.events import Event
from lib.loop import ERROR_CLASSES, Loop
from lib.loop_record import LoopRecord
from lib.loop_settings import Settings
from lib.spawner import Spawner
from lib.tasks import Task

COMMAND = Command(
    "run-task",
    "start an agent again and again until its task is done",
    about="""\
Works in RUNS_DIR/PROJECT/TASK/: TASK.md is the prompt, TASK-MESSAGE-BUS.md the
bus, runs/ has a folder for each attempt and for each child run.  The agent is
started again until it has made the file DONE; then its child runs are waited
for, and the project's bus is told once.  Start it again after anything: an
agent that is still at work is taken over, attempts are counted on; agent,
working folder and model are those of the earlier start.  Ctrl-C and SIGTERM
stop the agent and all it started; a closed terminal changes nothing.""",
    options=(
        Option("--project", metavar="ID", help="project (default: $JRUN_PROJECT_ID)"),
        Option("--task", metavar="ID", help="task (default: a new one, task-YYYYMMDD-HHMMSS-NAME)"),
        Option("--agent", metavar="NAME", help="the agent (default: that of the earlier start, the config's, else the first of codex, claude, gemini on PATH)"),
        Option("--prompt", metavar="TEXT", help="what is to be done (default: what TASK.md says)"),
        Option("--prompt-file", metavar="FILE", help="the same, from a file"),
        Option("--cwd", metavar="DIR", help="the agent's working folder (default: the task folder)"),
        Option("--depends-on", metavar="TASK,…", many=True, help="start only when these tasks of the project are done; kept in the task folder; may be repeated"),
        Option("--max-restarts", metavar="N", kind="int", default=100, help="at most N attempts (default: 100)"),
        Option("--restart-delay", metavar="TIME", kind="seconds", default=1.0, help="pause before the next attempt (default: 1s)"),
        Option("--child-wait-timeout", metavar="TIME", kind="seconds", default=300.0, help="with DONE, wait at most that long for child runs (default: 300s)"),
        Option("--timeout", metavar="TIME", kind="seconds", default=0.0, help="give up after that long in all, and stop what runs: 8h; 0 = never"),
        Option("--run-timeout", metavar="TIME", kind="seconds", help="stop an attempt after that long"),
        Option("--idle-timeout", metavar="TIME", kind="seconds", help="stop an attempt when it has been silent for that long"),
        Option("--max-wait", metavar="TIME", kind="seconds", help="wait at most that long for a quota (default: 6h)"),
        Option("--no-wait", help="do not wait for a quota: exit 75"),
        Option("--resume", help="reopen a task that is done or has failed; its DONE is moved aside"),
        Option("--resume-ended", help="the same, but go on with one that was stopped, or whose loop was killed"),
        Option("--resume-session", help="let the next attempt go on with the agent's session, where its program can"),
        Option("--run-id", metavar="ID", help="the id of the next attempt, in the form of those in runs/; refused once it has been used: whoever is not sure that a start came about can make it again"),
        Option("--detach", help="once it has begun, go on in the background and write to loop.log of the task folder"),
        Option("--model", metavar="NAME", help="the model, where the agent lets one choose"),
        Option("--env", metavar="KEY=VALUE", many=True, help="set a variable for the agent; KEY alone hands on the one of this process; may be repeated"),
        Option("--json", help="print events instead, one JSON object a line: docs/events.md"),
        ROOT,
        Option("--runs-dir", metavar="DIR", help="the runs folder, or a storage root of the original (default: ROOT/runs)"),
        Option("--config", metavar="FILE", help="the config (default: $CONDUCTOR_CONFIG, ./config.yaml, …)"),
    ),
    examples=(
        "bin/run-task --project shop --task task-20260223-204500-cart --agent claude --prompt-file cart.md --cwd ~/shop",
        "bin/run-task --project shop --task task-20260223-204500-cart        # after anything: go on",
        "bin/run-task --project shop --prompt 'Say hello' --agent offline",
        "bin/run-task --project shop --task deploy --depends-on build,docs --prompt-file deploy.md --detach",
    ),
    exit_codes="0 the task is done; 1 all attempts are used up, or it failed; 2 wrong usage, or a "
    "config that cannot be used; 75 stopped for a quota; 124 timed out; 127 the agent's program is "
    "not on PATH; 130 its run was stopped; 128+N stopped by signal N",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    faults.enter_part("loop")
    return run(COMMAND, run_task, arguments)


def run_task(values: Values) -> int:
    if not values.flag("json"):
        return _run_task(values)
    try:
        return _run_task(values)
    except UserError as error:
        code, why = error.exit_code, redact.one_line(str(error))
        kind = ERROR_CLASSES.get(code, "failed")
        _print(Event("result", why, status="failed", exit_code=code, why=why, error_class=kind))
        raise


def _run_task(values: Values) -> int:
    _refuse_contradictions(values)
    tell = _note if values.flag("json") else _tell
    runs_dir = _runs_dir(values)
    given = _given_prompt(values)
    task = _task(values, runs_dir)
    configuration = config.load(values.text("config"))
    known, _ = loop_record.read(task)  # what an earlier loop of the task was given
    agent = values.text("agent") or str(known.get("agent") or "")
    agent = agent or runner.choose_agent(configuration)
    type_name, _, _ = runner.resolve_agent(configuration, agent)
    if given is None and not os.path.isfile(task.file(tasks.PROMPT)):
        raise UsageError(
            f"no prompt: there is no {tasks.PROMPT} in {redact.for_terminal(task.path)}; "
            "add --prompt TEXT or --prompt-file FILE"
        )
    wanted_cwd = values.text("cwd") or str(known.get("cwd") or "")
    cwd = runner.check_cwd(wanted_cwd) if wanted_cwd else task.path
    environment = {**_config_of(configuration), **parse_variables(_variables(values))}
    redact.add_tokens(redact.known_tokens(environment))  # this process tells what its agents say
    paths.make_folder(runs_dir)
    runner.check_space(runs_dir)
    record = LoopRecord(task)
    record.lock()
    try:
        record.load()
        record.fields["pid"] = os.getpid()
        if values.flag("json"):
            _print(
                Event("task", f"task {task.task} in {task.path}", task=task.task, path=task.path)
            )
        else:
            say(f"TASK_ID={task.task}\nTASK_DIR={redact.for_terminal(task.path)}\n")
        _refuse_used(record, values.text("run_id") or "")
        prompt = _settle_prompt(task, given, tell)
        _check_prompt(type_name, task, prompt)
        if values.is_given("depends_on"):
            tasks.set_dependencies(task, values.items("depends_on"))
        if values.flag("resume") or (values.flag("resume_ended") and _has_ended(record)):
            loop_control.reopen(record, tell)
        if values.text("run_id") and tasks.is_done(task):
            raise UserError("the task is done, so that the run would not begin; use --resume")
        recovery.repair_all(runs_dir)
        if values.flag("detach") and not _detach(record):
            return EXIT_OK
        _note_child_task(task)
        settings = Settings(
            agent=agent,
            prompt=prompt,
            cwd=cwd,
            max_restarts=values.number("max_restarts") or 0,
            restart_delay=values.seconds("restart_delay") or 0.0,
            child_wait=values.seconds("child_wait_timeout") or 0.0,
            timeout=values.seconds("timeout") or 0.0,
            run_timeout=configuration.limit("timeout", values.seconds("run_timeout")),
            idle_timeout=configuration.limit("idle_timeout", values.seconds("idle_timeout")),
            max_wait=quota.max_wait(values.seconds("max_wait"), values.flag("no_wait")),
            model=values.text("model") or str(known.get("model") or "") or None,
            parent=os.environ.get("JRUN_ID") or thread_link.read(task).get("run_id", ""),
            env=environment,
            resume_session=values.flag("resume_session"),
            next_run=values.text("run_id") or "",
        )
        on_event = _print if values.flag("json") else None
        spawner = Spawner(paths.TOOLKIT)
        return Loop(record, settings, configuration, spawner, tell, on_event).run()
    finally:
        record.close()


def _refuse_contradictions(values: Values) -> None:
    for one, other in (("prompt", "prompt_file"), ("max_wait", "no_wait")):
        if values.is_given(one) and values.is_given(other):
            names = [f"--{name.replace('_', '-')}" for name in (one, other)]
            raise UsageError(f"{names[0]} and {names[1]} exclude each other; keep one")
    most = values.number("max_restarts")
    if most is not None and most < 0:
        raise UsageError(f"--max-restarts: {most} is below 0")
    parse_variables(_variables(values))
    run_id = values.text("run_id")
    if run_id is not None and not (ids.is_safe(run_id) and run_id[:8].isdigit()):
        raise UsageError(f"--run-id: {run_id[:60]!r} is not of the form YYYYMMDD-HHMMSSffff-PID-N")
    if values.flag("json") and values.flag("detach"):
        raise UsageError("--json and --detach exclude each other; keep one")


def _variables(values: Values) -> list[str]:
    """What --env sets, with the values of this process's own where only a name is given."""
    own = os.environ
    items = values.items("env")
    return [f"{item}={own[item]}" if "=" not in item and item in own else item for item in items]


def _runs_dir(values: Values) -> str:
    """Where the project's folder lies; inside a run of a task, where that task's project does."""
    folder = os.environ.get("JRUN_TASK_FOLDER")
    if folder and not values.text("root") and not values.text("runs_dir"):
        return os.path.dirname(os.path.dirname(os.path.abspath(folder)))
    return paths.runs_dir(values.text("root"), values.text("runs_dir"))


def _task(values: Values, runs_dir: str) -> Task:
    project = values.text("project") or os.environ.get("JRUN_PROJECT_ID")
    if not project:
        raise UsageError("--project is missing; name the project that the task belongs to")
    name = values.text("task")
    if name is None and values.flag("resume"):
        raise UsageError("--resume needs --task, the one to reopen")
    if name is None:
        source = values.text("prompt_file")
        stem = os.path.basename(source).rpartition(".")[0] if source else ""
        name = tasks.generate_id(ids.slug(stem) if stem else "")
    task = tasks.locate(runs_dir, project, name)
    if values.flag("resume") and not os.path.isdir(task.path):
        raise UserError(f"no task {name} in project {project}; leave --resume out to begin it")
    return task


# -- the prompt


def _given_prompt(values: Values) -> bytes | None:
    text, path = values.text("prompt"), values.text("prompt_file")
    if path is not None:
        return runner.read_prompt(os.path.expanduser(path))
    if text is None:
        return None
    return runner.check_prompt(text.encode("utf-8", "surrogateescape"), "--prompt")


def _settle_prompt(task: Task, given: bytes | None, tell: Callable[[str], None]) -> bytes:
    """What the agent shall do; TASK.md is written where there is none, and never replaced."""
    path = task.file(tasks.PROMPT)
    if os.path.lexists(path) and not os.path.isfile(path):  # a FIFO would be read for ever
        raise UserError(f"{redact.for_terminal(path)} is no file that can be read; remove it")
    if given is None:
        return runner.read_prompt(path)
    if not os.path.lexists(path):
        files.replace_file(path, given.strip() + b"\n", 0o600)
    elif runner.read_prompt(path).strip() != given.strip():
        tell(f"{tasks.PROMPT} says something else and is kept; this loop goes by the given prompt")
    return given


def _check_prompt(type_name: str, task: Task, prompt: bytes) -> None:
    """UsageError for a prompt that the agent can do nothing with: before a hundred attempts at it."""
    check = getattr(agents.load(type_name), "check_prompt", None)
    if check is None:
        return
    path = task.file(f".prompt.{os.getpid()}.tmp")
    files.replace_file(path, prompt, 0o600, durable=False)
    try:
        check(path)
    except UserError as error:
        text = str(error).replace(path, task.file(tasks.PROMPT))
        raise UsageError(text) from None
    finally:
        files.remove(path)


# -- beginning


def _config_of(settings: config.Config) -> dict[str, str]:
    """For the agent's own calls of run-agent.py: the agents it is told of are those of this config."""
    return {"CONDUCTOR_CONFIG": settings.path} if settings.path else {}


def _has_ended(record: LoopRecord) -> bool:
    """Whether the loop has come to an end by itself, or the task is done without one."""
    state = record.fields.get("state")
    has_stopped = state in (loop_record.DONE, loop_record.FAILED)
    return has_stopped or (not state and tasks.is_done(record.task))


def _refuse_used(record: LoopRecord, run_id: str) -> None:
    """So that a start whose outcome nobody saw can be made again, and comes about once."""
    is_noted = any(attempt.get("run") == run_id for attempt in record.attempts)
    if run_id and (is_noted or os.path.lexists(os.path.join(record.task.runs_dir, run_id))):
        raise UserError(f"the run {run_id} has begun already; leave --run-id out to go on")


def _note_child_task(task: Task) -> None:
    """Inside a run: be found by who stops that, and not be taken for what its agent left behind."""
    inside = os.environ.get("JRUN_RUN_FOLDER")
    if not inside or not os.environ.get("JRUN_ID"):
        return
    if runs.read(inside).number("pid") != os.getpid():  # the agent itself is no child of its run
        runs.note_child(inside, runs.Run(task.path, {}))


def _detach(record: LoopRecord) -> bool:
    """Go on in a process of its own session; False in the one that the terminal waits for."""
    sys.stdout.flush()
    path = record.task.file(loop_record.LOG)
    # Opened here, so that what keeps it from being written is said now.
    log = files.open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    pid = os.fork()
    if pid:
        stop = f"stop-run --project {record.task.project} --task {record.task.task}"
        say(
            f"PID={pid}\nthe loop goes on as pid {pid} and writes to {redact.for_terminal(path)}; "
            f"stop it: {stop}\n"
        )
        return False
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    record.sign()
    return True


# -- telling


def _note(text: str) -> None:
    _print(Event("note", text))


def _print(event: Event) -> None:
    say(event.as_json() + "\n")


def _tell(text: str) -> None:
    line = redact.for_terminal(redact.text(text)).replace("\n", " ")
    say(f"{ids.rfc3339()[11:19]} {line}\n")
