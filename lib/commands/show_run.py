"""show-run: one run: what it is, how it stands, and the end of what it wrote."""

from __future__ import annotations

import os
import sys
import time

from lib import files, listing, redact, runs, shown, usage
from lib.cli import ROOT, RUNS_DIR, Command, Option, Values, run
from lib.errors import EXIT_FAILED, EXIT_OK, UsageError, UserError
from lib.textual import duration, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_LINES = 10
POLL_SECONDS = 0.1
NAMES = {
    "transcript": runs.TRANSCRIPT,
    "stdout": runs.STDOUT,
    "stderr": runs.STDERR,
    "prompt": runs.PROMPT,
    "output": runs.OUTPUT,
    "record": runs.RECORD,
    "verify": runs.VERIFY,
}
OVERVIEW = (runs.TRANSCRIPT, runs.STDERR, runs.OUTPUT)

COMMAND = Command(
    "show-run",
    "show one run: its state, its record, and the end of what it wrote",
    about="""\
Secrets are redacted, and nothing that a terminal would obey is passed on.
The raw bytes are in the run's folder, which is shown.  Writes nothing.""",
    positionals=(
        ("RUN", "?", "any unique part of a run's id, or its folder (default: the newest run)"),
    ),
    options=(
        Option(
            "-n", metavar="LINES", kind="count", default=DEFAULT_LINES, help="lines (10); 0 = all"
        ),
        Option("-f", "--follow", help="follow the transcript, or --file, until the run has ended"),
        Option("--file", metavar="NAME", help=f"only the end of this file: {', '.join(NAMES)}"),
        Option("--json", help="the record and the state as one JSON object"),
        ROOT,
        RUNS_DIR,
    ),
    examples=(
        "bin/show-run",
        "bin/show-run infra-storage -n 40",
        "bin/show-run 20260223-204859 -f && echo it completed",
        "bin/show-run infra-storage --file output -n 0",
    ),
    exit_codes="0 shown, with -f: the run completed; 1 no such run or file, with -f: the run "
    "did not complete; 2 wrong usage",
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(COMMAND, show_run, arguments)


def show_run(values: Values) -> int:
    name = _file_name(values)
    count = values.number("n") or 0
    follows, as_json = values.flag("follow"), values.flag("json")
    if as_json and (follows or name):
        raise UsageError("--json shows the record alone; leave out -f and --file")
    folder = listing.runs_folder(values.text("root"), values.text("runs_dir"))
    wanted = values.text("run")
    record = listing.newest(folder) if wanted is None else listing.find(folder, wanted)
    row = listing.Row(record)
    listing.know_tokens([row.run])
    if follows:
        return _follow(record, name or runs.TRANSCRIPT, count)
    if as_json:
        fields = listing.as_dict(row)
        fields["children"] = listing.children(folder, row)
        sys.stdout.write(listing.to_json(fields))
    elif name:
        _show_file(record, name, count)
    else:
        _show_overview(folder, row, count)
    return EXIT_OK


def _file_name(values: Values) -> str:
    name = values.text("file")
    if name is None:
        return ""
    if name not in NAMES:
        raise UsageError(f"--file: {name!r} is none of {', '.join(NAMES)}")
    return NAMES[name]


def _say(text: str) -> None:
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


def _show_overview(folder: str, row: listing.Row, count: int) -> None:
    _say("".join(f"{line}\n" for line in table(_facts(folder, row))))
    for name in OVERVIEW:
        path = row.run.file(name)
        _say(f"\n==> {redact.one_line(path)} <==\n")
        try:
            exists = files.size(path) > 0
            if exists:
                _copy(path, count)
            else:
                _say("(empty)\n" if os.path.exists(path) else "(not written)\n")
        except UserError as error:
            _say(f"({error})\n")


def _facts(folder: str, row: listing.Row) -> list[list[str]]:
    """What is known of the run, a [name, value] for each."""
    record, state = row.run, row.state
    code, seconds = listing.known_code(state), listing.elapsed_seconds(row)
    ended, reset = record.time_ns("end_time"), record.time_ns("reset_time")
    is_resumed = record.record.get("resumed") is True
    facts = {
        "run": record.run_id,
        "status": listing.status_mark(state),
        "reason": state.reason,
        "error class": record.text("error_class"),
        "limit until": listing.clock(reset) if reset else "",
        "exit code": "unknown" if code is None else str(code),
        "agent": f"{record.agent} {record.text('agent_version')}",
        "model": record.text("model"),
        "project/task": "/".join(part or "-" for part in listing.place(record)),
        "started": listing.clock(row.started),
        "ended": listing.clock(ended) if ended else "",
        "elapsed": "" if seconds is None else duration(seconds),
        "tokens": _tokens(record),
        "cost": _cost(record),
        "parent": record.text("parent_run_id"),
        "previous": record.text("previous_run_id"),
        "replay of": record.text("replay_of"),
        "wrong on purpose": record.text("replay_fault"),
        "session": record.text("session_id") + (" (resumed)" if is_resumed else ""),
        "note": record.text("too_old"),
        "children": ", ".join(listing.children(folder, row)),
        "cwd": record.text("cwd"),
        "folder": record.path,
    }
    if state.status == runs.RUNNING:
        facts["exit code"] = ""
    shown_facts = {name: redact.one_line(value) for name, value in facts.items()}
    return [[name, value] for name, value in shown_facts.items() if value not in ("", "-")]


def _tokens(record: runs.Run) -> str:
    """`1000 in (400 cached), 10 out`; `-` where neither is known."""
    into, mark, out = listing.tokens(record).partition("/")
    cached = record.number("cached_tokens")
    of_them = f" ({cached} cached)" if cached else ""
    return f"{into} in{of_them}, {out} out" if mark else into


def _cost(record: runs.Run) -> str:
    used = usage.Usage([record.record])
    if used.is_estimated and used.cost_usd is not None:
        return f"{used.cost()} (estimated from list prices)"
    if used.cost_usd is None and not used.without_tokens:
        model = record.text("model")
        return f"unknown: no price of {model}" if model else "unknown: it did not tell its model"
    return used.cost()


def _show_file(record: runs.Run, name: str, count: int) -> None:
    path = record.file(name)
    if name == runs.RECORD and not os.path.lexists(path):
        path = record.file(runs.CWD)  # a run of the shell original
    if not os.path.lexists(path):
        raise UserError(f"{record.run_id} has no {name}; its folder is {record.path}")
    _copy(path, count)


def _copy(path: str, count: int) -> None:
    """Print the last `count` lines of a file, or all of it for 0."""
    if count:
        _say("".join(f"{line}\n" for line in shown.tail(path, count)))
        return
    growing = shown.Growing(path)
    growing.copy(_say)
    rest = growing.finish()
    _say(rest + "\n" if rest else "")


def _follow(record: runs.Run, name: str, count: int) -> int:
    """Print a file as it grows until the run has ended; 0 when it completed."""
    growing = shown.Growing(record.file(name))
    if count:
        lines = growing.begin(count).split("\n")
        _say("\n".join(lines[-count - 1 :]))
    orphaned = False
    while True:
        # First the state: what the run wrote before its end is then all there.
        state = listing.Row(runs.read(record.path)).state
        growing.copy(_say)
        if state.status != runs.RUNNING:
            break
        if state.holder == "agent" and not orphaned:
            orphaned = True
            COMMAND.tell(
                "its supervisor is gone: the agent lives on, and only --file stdout still grows"
            )
        time.sleep(POLL_SECONDS)
    rest = growing.finish()
    _say(rest + "\n" if rest else "")
    if state.status == runs.COMPLETED:
        return EXIT_OK
    COMMAND.tell(f"{record.run_id} {state.status}: {state.reason}")
    return EXIT_FAILED
