"""clean-runs: remove old runs that have ended, and put large buses aside."""

from __future__ import annotations

import os
import sys

from lib import cleaning, config, listing, recovery, redact
from lib.cleaning import Choice, Item, Wish
from lib.cli import ROOT, RUNS_DIR, Command, Option, Values, run
from lib.errors import EXIT_FAILED, EXIT_OK, UsageError, UserError
from lib.index import Index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

WEEK_SECONDS = 7 * cleaning.DAY_SECONDS

COMMAND = Command(
    "clean-runs",
    "remove old runs that have ended, and rotate large buses",
    about="""\
Shows what it would remove, and removes nothing without --yes.  What is alive,
unreadable, unknown or not recorded to its end is never touched, nor is what a
plan or a loop goes on with, or a task waits for.  Each removed run leaves a
line in removed-runs.log of the runs folder.  A rotated bus goes on in
BUS.YYYYMMDD-HHMMSS.archived beside it, with every message.""",
    options=(
        Option("--yes", help="act"),
        Option(
            "--older-than",
            metavar="TIME",
            kind="seconds",
            default=WEEK_SECONDS,
            help="only what ended so long ago (7d)",
        ),
        Option("--keep-failed", help="keep runs that failed"),
        Option(
            "--keep",
            metavar="N",
            kind="count",
            default=0,
            help="keep the newest N runs of each task",
        ),
        Option("--project", metavar="ID", help="only of this project"),
        Option("--task", metavar="ID", help="only of this task"),
        Option(
            "--delete-done-tasks",
            help="also whole task folders, with everything in them: with a DONE so old, without "
            "runs that stay, and none depends on them",
        ),
        Option("--rotate-bus", help="also put aside buses that have grown large"),
        Option(
            "--bus-max-size",
            metavar="SIZE",
            default="10MB",
            help="what is large: KB, MB, GB (10MB)",
        ),
        ROOT,
        RUNS_DIR,
    ),
    examples=(
        "bin/clean-runs",
        "bin/clean-runs --older-than 30d --keep-failed --yes",
        "bin/clean-runs --project demo --keep 3 --rotate-bus --bus-max-size 50MB --yes",
    ),
    exit_codes="0 shown, or done; 1 something could not be removed; 2 wrong usage",
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(COMMAND, clean_runs, arguments)


def clean_runs(values: Values) -> int:
    wish = _wish(values)
    folder = listing.runs_folder(values.text("root"), values.text("runs_dir"))
    acts = values.flag("yes")
    if acts:
        config.know_tokens()  # a run that is repaired is rendered anew, and redacted here
        recovery.repair_all(folder)
    index = Index(folder)
    index.refresh()
    listing.know_tokens(entry.run for entry in index.runs.values())
    choice = cleaning.choose(index, wish)
    for path, reason in choice.kept:
        if reason not in cleaning.COUNTED:
            _say(f"kept {os.path.basename(path)}: {reason}")
    if acts:
        return _act(choice, folder)
    for item in choice.items:
        _say(f"would {_line(item)}")
    _say(_summary("would free", choice.items, choice))
    if choice.items:
        COMMAND.tell("nothing was removed; --yes does it")
    return EXIT_OK


def _wish(values: Values) -> Wish:
    size = values.text("bus_max_size") or ""
    try:
        limit = cleaning.parse_bytes(size)
    except ValueError:
        raise UsageError(f"--bus-max-size: {size!r} is no size; write 500KB, 10MB or 1GB") from None
    return Wish(
        older_than_seconds=values.seconds("older_than") or 0.0,
        keep_failed=values.flag("keep_failed"),
        keep=values.number("keep") or 0,
        project=values.text("project"),
        task=values.text("task"),
        done_tasks=values.flag("delete_done_tasks"),
        bus_bytes=limit if values.flag("rotate_bus") else None,
    )


def _act(choice: Choice, folder: str) -> int:
    code, done = EXIT_OK, []
    for item in choice.items:
        try:
            why_not = cleaning.carry_out(item, folder)
        except (UserError, OSError) as error:
            why_not, code = str(error), EXIT_FAILED
        if why_not:
            _say(f"kept {os.path.basename(item.path)}: {why_not}")
            continue
        done.append(item)
        _say(_line(item))
    for path in cleaning.empty_trash(folder, done):
        COMMAND.tell(f"cannot be removed whole: {path}; remove it by hand")
        code = EXIT_FAILED
    _say(_summary("freed", done, choice))
    return code


def _line(item: Item) -> str:
    verb = "rotate" if item.kind == cleaning.BUS else "remove"
    return f"{verb} {item.kind} {item.label}  {cleaning.amount(item.size)}"


def _summary(verb: str, items: Sequence[Item], choice: Choice) -> str:
    """`would free 3.4 MB: 12 runs, 1 bus rotated; kept: 3 alive, 40 too young`."""
    counts = [(kind, sum(item.kind == kind for item in items)) for kind in ("run", "task")]
    parts = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts]
    freed = sum(item.size for item in items if item.kind != cleaning.BUS)
    buses = sum(item.kind == cleaning.BUS for item in items)
    if buses:
        parts.append(f"{buses} bus{'' if buses == 1 else 'es'} to rotate")
    kept = [f"{count} {reason}" for reason, count in choice.counts().items()]
    others = len(choice.kept) - sum(choice.counts().values())
    kept += [f"{others} for the reasons above"] if others else []
    tail = f"; kept: {', '.join(kept)}" if kept else ""
    return f"{verb} {cleaning.amount(freed)}: {', '.join(parts)}{tail}"


def _say(text: str) -> None:
    sys.stdout.write(f"{redact.one_line(text)}\n")
