"""What a run tells of itself while it goes on: in its cwd.txt, on its bus, in its supervisor.log."""

from __future__ import annotations

from lib import files, ids, redact, runs
from lib.errors import UserError

STDERR_LINES = 50


def note(run: runs.Run, pairs: dict[str, str]) -> None:
    """Append KEY=VALUE lines to the run's cwd.txt."""
    lines = [f"{key}={value}".replace("\n", "\\n") for key, value in pairs.items()]
    files.append_line(run.file(runs.CWD), redact.text("\n".join(lines)))


def try_note(run: runs.Run, key: str, value: str) -> None:
    """Append KEY=VALUE to cwd.txt; the run goes on whatever the agent has made of that file."""
    try:
        note(run, {key: value})
    except OSError as error:
        log(run, f"{key} could not be noted in {runs.CWD}: {error}")


def note_once(run: runs.Run, key: str, value: str) -> None:
    """The same, unless an earlier supervisor has done that."""
    try:
        text = run.read_text(runs.CWD, 1 << 20)
    except OSError:
        text = ""
    if f"\n{key}=" not in f"\n{text}":
        try_note(run, key, value)


def post(run: runs.Run, kind: str, body: str, durable: bool = True) -> None:
    """A message about the run on its bus.

    A bus that cannot be written must not cost an agent's work: the error goes
    into the run folder instead.
    """
    path = run.text("bus")
    if not path:
        return
    project, task = run.text("project_id"), run.text("task_id")
    from lib import bus

    try:
        bus.append(
            path,
            type_=kind,
            body=body,
            project=project,
            task=task,
            run=run.run_id,
            durable=durable,
        )
    except (UserError, OSError) as error:
        log(run, f"{kind} could not be posted to {path}: {error}")


def log(run: runs.Run, text: str) -> None:
    """A line in the run's supervisor.log, which exists only when something went wrong."""
    try:
        files.append_line(run.file("supervisor.log"), f"{ids.rfc3339()} {redact.one_line(text)}")
    except OSError:
        pass


def announce(run: runs.Run) -> None:
    """RUN_START on the bus."""
    names = (runs.PROMPT, runs.STDOUT, runs.STDERR, runs.OUTPUT)
    rows = [f"{name.partition('.')[0].removeprefix('agent-')}: {run.file(name)}" for name in names]
    body = "\n".join(["run started", f"run_dir: {run.path}", *rows])
    post(run, "RUN_START", body, durable=False)  # RUN_STOP makes both of them so


def announce_end(run: runs.Run) -> None:
    """RUN_STOP or RUN_CRASH on the bus; the latter begins with the line that `grep '^ERROR '` finds."""
    where = [f"run_dir: {run.path}", f"output: {run.file(runs.OUTPUT)}"]
    if run.text("status") == runs.COMPLETED:
        code = run.text("exit_code")
        post(run, "RUN_STOP", "\n".join([f"run stopped with code {code}", *where]))
        return
    first = (
        f"{failure_word(run)} task={run.text('task_id')} agent={run.agent} "
        f"exit={run.text('exit_code')} run={run.run_id}: {run.text('error_summary')}"
    )
    lines = stderr_tail(run)
    tail = ["", f"## stderr (last {STDERR_LINES} lines)", *[f"    {line}" for line in lines]]
    post(run, "RUN_CRASH", "\n".join([first, *where, *(tail if lines else [])]))


def failure_word(run: runs.Run) -> str:
    """ERROR, the one line of a task's failure; RETRY for a run that has failed and is tried again.

    A plan's run that never began is no failure, nor is one that met the limit of its provider.
    """
    is_none = run.text("error_summary") == runs.NEVER_STARTED or run.text("error_class") == "quota"
    again = is_none and run.text("attempt_token")
    return "RETRY" if again or run.record.get("will_retry") is True else "ERROR"


def stderr_tail(run: runs.Run, count: int = STDERR_LINES) -> list[str]:
    """The last lines of the agent's stderr, redacted and harmless; none of what is no file."""
    from lib import shown

    try:
        lines = shown.tail(run.file(runs.STDERR), count)
    except (UserError, OSError):
        return []
    return [line[: redact.LINE_LIMIT] for line in lines]


def was_announced(run: runs.Run, *types: str) -> bool:
    """Whether one of these messages about the run is among the last of its bus."""
    from lib import bus

    path = run.text("bus")
    try:
        recent = bus.last(path, 2000)
    except (UserError, OSError):
        return True
    return any(message.run_id == run.run_id and message.type in types for message in recent)
