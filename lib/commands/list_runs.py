"""list-runs: the runs of a root, the newest first, each with its true state."""

from __future__ import annotations

import os
import sys
import time

from lib import listing, redact, runs, textual, usage
from lib.cli import ANY_RUNS_DIR, ROOT, Command, Option, Values, run
from lib.errors import UsageError
from lib.textual import duration, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_LIMIT = 50
LEAST_REASON_COLUMNS = 40  # below that, a reason has a line of its own
COLUMNS = (
    "RUN_ID", "STATUS", "EXIT", "AGENT", "PROJECT/TASK", "STARTED", "TIME", "TOKENS", "COST",
    "REASON",
)  # fmt: skip
TASK_STATUSES = ("done", "blocked", "-")  # of tasks without a run, beside those of runs
ORPHANED = (
    "* its supervisor is gone, the agent lives on; its end is recorded by the next command "
    "that acts (run-agent.py, run-all-tasks.py, stop-run)"
)

COMMAND = Command(
    "list-runs",
    "list runs, the newest first, each with its true state",
    about="""\
The state is computed from the record, the run's lock and the process table:
running, completed, failed, or unknown (recorded on another machine, or not
readable).  running* is an agent that lives on without its supervisor.
STARTED is UTC; TOKENS are input/output.  A cost with ~ is an estimate from list
prices; - is unknown.  The last line adds up the runs that are shown, and says
of how many of them something is unknown.  Writes nothing, anywhere.

With --tasks the task folders are listed: the status is that of a task's newest
run; without one it is done, blocked (by the tasks named), or -.""",
    options=(
        Option("--status", metavar="S,...", help="only these: running, completed, failed, unknown"),
        Option("--tasks", help="list the task folders, not the runs"),
        Option("--project", metavar="ID", help="only runs of this project"),
        Option("--task", metavar="ID", help="only runs of this task"),
        Option("--agent", metavar="NAME", help="only runs of this agent"),
        Option(
            "--since",
            metavar="TIME",
            help="only runs that started since: 90s, 15m, 2h, 1d ago; 2026-02-23; "
            "2026-02-23T20:48Z (UTC)",
        ),
        Option(
            "-n",
            metavar="N",
            kind="count",
            default=DEFAULT_LIMIT,
            help="the newest N (50); 0 = all",
        ),
        Option("--all", help="all of them"),
        Option(
            "--json",
            help="one JSON object a line: the record, status, exit_code, reason, "
            "alive_by (supervisor, agent or nothing) and path",
        ),
        ROOT,
        ANY_RUNS_DIR,
    ),
    examples=(
        "bin/list-runs",
        "bin/list-runs --status running,failed --since 2h",
        "bin/list-runs --tasks --project demo",
        "bin/list-runs --json --all | jq -r 'select(.cost_usd > 1) | .run_id'",
        "bin/list-runs --json --all | jq -s '{runs: length, cost: (map(.cost_usd // 0) | add), "
        "unknown: (map(select(.cost_usd == null)) | length)}'",
    ),
    exit_codes="0 listed (also when there is none), 1 failed, 2 wrong usage",
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(COMMAND, list_runs, arguments)


def list_runs(values: Values) -> int:
    wanted = _wanted(values)
    limit = 0 if values.flag("all") else values.number("n") or 0
    folder = listing.runs_folder(values.text("root"), values.text("runs_dir"))
    if values.flag("tasks"):
        return _list_tasks(values, folder, wanted, limit)
    rows, more = listing.select(folder, wanted, limit)
    listing.know_tokens(row.run for row in rows)
    if values.flag("json"):
        for row in rows:
            sys.stdout.write(listing.to_json(listing.as_dict(row)))
    elif rows:
        sys.stdout.write(_text(rows))
    if more:
        COMMAND.tell(f"{more} older runs are not shown; -n {limit + more} or --all shows them")
    elif not rows:
        which = "no runs" if wanted.is_everything() else "no such runs"
        COMMAND.tell(f"{which} in {folder}")
    return 0


def _list_tasks(values: Values, folder: str, wanted: listing.Wanted, limit: int) -> int:
    from lib import task_listing

    if wanted.agent is not None:
        raise UsageError("--agent chooses runs; leave it out with --tasks")
    entries, more = task_listing.select(
        folder,
        project=wanted.project,
        task=wanted.task,
        statuses=wanted.statuses,
        since=wanted.since,
        limit=limit,
    )
    if values.flag("json"):
        for entry in entries:
            sys.stdout.write(listing.to_json(task_listing.as_dict(entry)))
    elif entries:
        rows = [list(task_listing.COLUMNS), *map(task_listing.cells, entries)]
        sys.stdout.write("\n".join(table(rows, _width())) + "\n")
    if more:
        COMMAND.tell(f"{more} older tasks are not shown; -n {limit + more} or --all shows them")
    elif not entries:
        COMMAND.tell(f"no such task folders in {folder}")
    return 0


def _wanted(values: Values) -> listing.Wanted:
    statuses = [word for word in (values.text("status") or "").split(",") if word]
    known = listing.STATUSES + (TASK_STATUSES if values.flag("tasks") else ())
    for word in statuses:
        if word not in known:
            raise UsageError(f"--status: {word!r} is none of {', '.join(known)}")
    if values.text("status") is not None and not statuses:
        raise UsageError(f"--status: name at least one of {', '.join(known)}")
    since = values.text("since")
    bound = None if since is None else listing.parse_since(since, time.time_ns())
    if since is not None and bound is None:
        raise UsageError(
            f"--since: {since!r} is no time; write 2h, 2026-02-23 or 2026-02-23T20:48Z"
        )
    return listing.Wanted(
        statuses=statuses,
        project=values.text("project"),
        task=values.text("task"),
        agent=values.text("agent"),
        since=bound,
    )


def _text(rows: list[listing.Row]) -> str:
    width = _width()
    lines = _table([list(COLUMNS), *[_cells(row) for row in rows]], width)
    if any(row.state.holder == "agent" for row in rows):
        lines += [ORPHANED]
    total = usage.Usage(usage.each_once(row.run.record for row in rows))
    lines += [f"{usage.count_runs(len(rows))}: {total.tokens_sentence()}; {total.cost_sentence()}"]
    return "\n".join(lines) + "\n"


def _width() -> int | None:
    return os.get_terminal_size(1).columns or 80 if sys.stdout.isatty() else None


def _table(rows: list[list[str]], columns: int | None) -> list[str]:
    """The rows in columns; each reason below its run where the terminal has no room beside it."""
    bare = table([row[:-1] for row in rows])
    if columns is None or columns - max(map(textual.width, bare)) >= LEAST_REASON_COLUMNS:
        return table(rows, columns)
    lines = bare[:1]
    for line, row in zip(bare[1:], rows[1:], strict=True):
        lines.append(line)
        if row[-1]:
            lines.append("    " + textual.shorten(row[-1], columns - 4))
    return lines


def _cells(row: listing.Row) -> list[str]:
    record, state = row.run, row.state
    code, seconds = listing.known_code(state), listing.elapsed_seconds(row)
    cells = [
        record.run_id,
        listing.status_mark(state),
        "-" if code is None else str(code),
        record.agent or "-",
        "/".join(part or "-" for part in listing.place(record)),
        listing.clock(row.started),
        "-" if seconds is None else duration(seconds),
        listing.tokens(record),
        listing.cost(record),
        "" if state.status == runs.RUNNING else state.reason,
    ]
    return [redact.one_line(cell) for cell in cells]
