"""run-agent.py: run one agent once, in a run folder of its own, and record everything."""

from __future__ import annotations

import os
import sys

from lib import config, faults, ids, paths, recovery, redact, runner, runs
from lib.cli import RUNS_DIR, Command, Option, Values, parse_variables, run, say
from lib.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMMAND = Command(
    "run-agent.py",
    "run one agent once and record everything about it",
    about="""\
Makes runs/run_YYYYMMDD-HHMMSS-PID/ (UTC), starts AGENT in CWD in a session of
its own with PROMPT_FILE on its stdin, waits, and exits with the agent's exit
code.  Prints RUN_ID=, RUN_DIR= and PID=, one per line.  Follow a run with
tail -f RUN_DIR/transcript.md.  SIGINT, SIGTERM and SIGHUP end the agent and
all it started: SIGTERM first, SIGKILL after $CONDUCTOR_STOP_GRACE (30) s.""",
    positionals=(
        ("AGENT", "?", "claude, codex, gemini, perplexity, xai, opencode, copilot, qwen, llm, offline, shell, or a name from the config (default: the "
         "config's, else the first of codex, claude, gemini on PATH)"),
        ("CWD", "?", "the agent's working folder (default: the current one)"),
        ("PROMPT_FILE", "?", "what the agent shall do (default: prompt.md in CWD)"),
    ),
    options=(
        Option("--prompt", metavar="TEXT", help="the prompt itself, in place of PROMPT_FILE"),
        Option("--project", metavar="ID", help="project (default: $JRUN_PROJECT_ID, else CWD's name)"),
        Option("--task", metavar="ID", help="task; also ends the run folder's name"),
        Option("--parent", metavar="RUN_ID", help="the run this one belongs to (default: $JRUN_ID)"),
        Option("--previous", metavar="RUN_ID", help="the attempt before this one"),
        Option("--timeout", metavar="TIME", kind="seconds", help="stop it after that long: 90s, 15m, 2h; 0 = never"),
        Option("--idle-timeout", metavar="TIME", kind="seconds", help="stop it when it has been silent for that long"),
        Option("--model", metavar="NAME", help="the model, where the agent lets one choose"),
        Option("--resume", metavar="RUN", help="go on with the session of that run (a part of its id); AGENT and CWD default to its"),
        Option("--replay", metavar="RUN", help="play a recorded run again, for no tokens: a part of its id, or its folder"),
        Option("--speed", metavar="N", help="with --replay: N times as fast (default: 1); 0 = without waiting"),
        Option("--root", metavar="DIR", help="where runs/ and MESSAGE-BUS.md are (default: $CONDUCTOR_ROOT, else the clone)"),
        RUNS_DIR,
        Option("--bus", metavar="FILE", help="the bus for RUN_START and RUN_STOP (default: $JRUN_MESSAGE_BUS, else ROOT's)"),
        Option("--config", metavar="FILE", help="the config (default: $CONDUCTOR_CONFIG, ./config.yaml, …)"),
        Option("--env", metavar="KEY=VALUE", many=True, help="set a variable for the agent; may be repeated"),
        Option("--keep-background", help="let processes that the agent leaves behind live on"),
        Option("--follow", help="print the transcript while it grows"),
        Option("--json", help="print the record as one JSON object at the end, and nothing else"),
    ),
    examples=(
        "./run-agent.py claude . prompt.md",
        "./run-agent.py offline . --prompt 'Say hello' --follow",
        "./run-agent.py shell /tmp/work steps.md --timeout 10m --task build",
        "./run-agent.py --resume 20260223-204859 --prompt 'Now write the tests'",
        "./run-agent.py --replay infra-storage --speed 10 --follow",
    ),
    exit_codes="the agent's own; 1 it said 0 but did not succeed, or no prompt; 2 wrong usage or "
    "unknown agent; 127 its program is not on PATH; 124 timed out; 128+N ended by signal N",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    faults.enter_part("supervisor")
    return run(COMMAND, run_agent, arguments)


def run_agent(values: Values) -> int:
    settings = config.load(values.text("config"))
    earlier = _earlier(values)
    recording = _recording(values)
    name = values.text("agent") or _default_agent(settings, recording, earlier)
    if recording:
        settings.put(name, _replayed(values, recording))
    type_name, options, executable = runner.resolve_agent(settings, name)
    cwd = runner.check_cwd(values.text("cwd") or (earlier.text("cwd") if earlier else "") or ".")
    prompt = _recorded_prompt(values, recording) or _prompt(values, cwd)
    runs_dir = paths.runs_dir(values.text("root"), values.text("runs_dir"))
    task_folder = _task_folder(runs_dir)
    task = values.text("task")
    request = runner.Request(
        agent=name,
        type=type_name,
        options=options,
        config=settings.path,
        executable=executable,
        cwd=cwd,
        prompt=prompt,
        project=_project(values, cwd),
        task=_safe("--task", task) if task else _default_task(values, recording),
        task_folder=task_folder,
        parent=values.text("parent") or os.environ.get("JRUN_ID"),
        previous=earlier.run_id if earlier else values.text("previous"),
        bus=paths.bus_path(values.text("root"), values.text("bus")),
        timeout=settings.limit("timeout", values.seconds("timeout")),
        idle_timeout=settings.limit("idle_timeout", values.seconds("idle_timeout")),
        model=values.text("model"),
        env=parse_variables(values.items("env")),
        keep_background=values.flag("keep_background"),
    )
    gate = _resume(values, request, earlier) if earlier else -1
    paths.make_folder(runs_dir)
    runner.check_space(runs_dir)
    recovery.repair_all(runs_dir)
    record, lock = runs.allocate(runs_dir, task or "", in_task_folder=bool(task_folder))
    as_json = values.flag("json")
    if not as_json:
        say(f"RUN_ID={record.run_id}\nRUN_DIR={redact.for_terminal(record.path)}\n")

    def begin(pid: int) -> None:
        if gate >= 0:
            os.close(gate)  # it is recorded: another --resume sees it
        if not as_json:
            say(f"PID={pid}\n")

    code = runner.start(
        record,
        lock,
        request,
        on_start=begin,
        on_text=_follower() if values.flag("follow") and not as_json else None,
    )
    if as_json:
        import json

        say(json.dumps(record.record, ensure_ascii=False) + "\n")
    elif code and record.text("error_summary"):
        try:
            sys.stderr.write(f"{COMMAND.name}: {record.text('error_summary')}\n")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody listens; the code still tells
    return code


def _task_folder(runs_dir: str) -> str:
    """The task folder that a child run is recorded in; "" for a run in no task."""
    folder = os.environ.get("JRUN_TASK_FOLDER")
    is_there = folder and os.path.abspath(os.path.join(folder, "runs")) == runs_dir
    return str(folder) if is_there else ""


def _follower() -> Callable[[str], None]:
    return lambda text: say(redact.for_terminal(text))


def _prompt(values: Values, cwd: str) -> bytes:
    text = values.text("prompt")
    if text is None:
        return runner.read_prompt(values.text("prompt_file") or os.path.join(cwd, "prompt.md"))
    if values.text("prompt_file"):
        raise UsageError("--prompt and PROMPT_FILE exclude each other; keep one")
    return runner.check_prompt(text.encode("utf-8", "surrogateescape"), "--prompt")


def _project(values: Values, cwd: str) -> str:
    given = values.text("project")
    if given:
        return _safe("--project", given)
    return os.environ.get("JRUN_PROJECT_ID") or ids.slug(os.path.basename(cwd))


def _earlier(values: Values) -> runs.Run | None:
    """The run that --resume names; None without it."""
    wanted = values.text("resume")
    if wanted is None:
        return None
    for other in ("replay", "previous"):
        if values.text(other) is not None:
            raise UsageError(f"--resume and --{other} exclude each other; keep one")
    if values.text("prompt") is None and values.text("prompt_file") is None:
        raise UsageError("--resume needs a prompt of its own: add --prompt TEXT, or PROMPT_FILE")
    from lib import sessions

    return sessions.find(_runs_folder(values), wanted)


def _resume(values: Values, request: runner.Request, earlier: runs.Run) -> int:
    """Make the request one to go on with the session of the earlier run; returns the lock on it."""
    from lib import sessions

    sessions.check(earlier, request.agent, request.type, request.options, request.cwd)
    gate = sessions.lock(_runs_folder(values))
    request.resume = True
    request.session_id = earlier.text("session_id")
    request.totals_before = sessions.totals_of(_runs_folder(values), earlier)
    return gate


def _runs_folder(values: Values) -> str:
    from lib import listing

    return listing.runs_folder(values.text("root"), values.text("runs_dir"))


def _default_agent(
    settings: config.Config, recording: runs.Run | None, earlier: runs.Run | None
) -> str:
    if recording:
        return "replay"
    if earlier:
        return earlier.agent
    return runner.choose_agent(settings)


def _recording(values: Values) -> runs.Run | None:
    """The run that --replay names; None without it."""
    wanted = values.text("replay")
    if wanted is None:
        if values.text("speed") is not None:
            raise UsageError("--speed belongs to --replay, which is missing")
        return None
    from lib import listing
    from lib.agents import replay

    folder = os.path.abspath(os.path.expanduser(wanted))
    if not replay.is_run_folder(folder):
        folder = listing.find(_runs_folder(values), wanted).path
    return replay.find_recording({"recording": folder}, "", "")


def _replayed(values: Values, recording: runs.Run) -> dict[str, object]:
    from lib.agents import replay

    options = replay.options_of(recording.path, values.text("speed"))
    return {**options, "preamble": not _recorded_prompt(values, recording)}


def _recorded_prompt(values: Values, recording: runs.Run | None) -> bytes:
    """What the recorded agent was given; b"" where another prompt is named, or it is lost."""
    if recording is None or values.text("prompt") or values.text("prompt_file"):
        return b""
    try:
        return recording.read_text(runs.PROMPT, runner.MAX_PROMPT_BYTES).encode()
    except OSError:
        return b""


def _default_task(values: Values, recording: runs.Run | None) -> str:
    recorded = recording.text("task_id") if recording else ""
    inherited = os.environ.get("JRUN_TASK_ID")
    return inherited or (recorded if ids.is_safe(recorded) else _stem(values))


def _stem(values: Values) -> str:
    name = os.path.basename(values.text("prompt_file") or "prompt.md")
    return ids.slug(name.rpartition(".")[0] or name)


def _safe(option: str, value: str) -> str:
    if not ids.is_safe(value):
        raise UsageError(
            f"{option}: {redact.for_terminal(value)!r} cannot be an id; "
            "use letters, digits, '.', '_' and '-', at most 128"
        )
    return value
