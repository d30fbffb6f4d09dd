"""check-storage: look over everything that is kept, and say what should not be."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from lib import integrity, integrity_base, paths, redact
from lib.cli import RUNS_DIR, Command, Option, Values, run
from lib.errors import EXIT_FAILED, EXIT_OK, UsageError
from lib.integrity_base import NOTE, REPAIR, VIOLATION, Place

COMMAND = Command(
    "check-storage",
    "look for what should not be in runs, buses and plan states",
    about="""\
One line for each finding: FILE: what; what to do.  Without a mark it is a
violation: something that no crash and no kill should ever leave.  `repair:` is
the rest of a crash, which the next command that acts sets right; `note:` is
harmless.  Records, run folders, buses, plan states and the processes of ended
runs are compared with one another.  Writes nothing; a storage in use, and one
of the Go or shell original, can be checked too.""",
    positionals=(("FOLDER", "?", "the root, or a storage root of the Go original (default: $CONDUCTOR_ROOT, else the clone)"),),
    options=(
        Option("--root", metavar="DIR", help="the same as FOLDER"),
        RUNS_DIR,
        Option("--json", help="print one JSON object: findings (kind, file, what, cure), counts, ok"),
    ),
    examples=(
        "bin/check-storage",
        "bin/check-storage /srv/work",
        "bin/check-storage --json | jq -r '.findings[] | .file'",
    ),
    exit_codes="0 clean (notes are), 1 violations or something to repair, 2 wrong usage",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    return run(COMMAND, check_storage, arguments)


def check_storage(values: Values) -> int:
    place = _place(values)
    report = integrity.examine(place)
    if values.flag("json"):
        _print_json(place, report)
    else:
        for finding in report.findings:
            sys.stdout.write(f"{finding.line(place.root)}\n")
        sys.stdout.write(f"{summary(place, report)}\n")
    return EXIT_OK if report.is_clean else EXIT_FAILED


def _place(values: Values) -> Place:
    named = values.text("folder") or values.text("root")
    if values.text("folder") and values.text("root"):
        raise UsageError("FOLDER and --root exclude each other; keep one")
    runs_option = values.text("runs_dir")
    if runs_option is None and (named or not os.environ.get("JRUN_RUNS_DIR")):
        place = integrity_base.place_of(paths.root(named))
    else:
        runs_dir = paths.runs_dir(named, runs_option)
        root = paths.root(named) if named else os.path.dirname(runs_dir)
        place = Place(root, runs_dir, paths.bus_path(root))
    for folder in (place.root, place.runs_dir):
        if not os.path.isdir(folder):
            shown = redact.for_terminal(folder)
            raise UsageError(f"no folder {shown}; name a root that has runs in it")
    return place


def summary(place: Place, report: integrity.Report) -> str:
    """One line: what was looked at, and how much was found."""
    looked = (
        f"runs: {report.runs} ({report.live} live), messages: {report.messages} "
        f"(buses: {report.buses}), plans: {report.plans}"
    )
    kinds = (("violations", VIOLATION), ("to repair", REPAIR), ("notes", NOTE))
    found = ", ".join(f"{name}: {report.count(kind)}" for name, kind in kinds)
    return f"{redact.for_terminal(place.root)}: {looked}; {found}"


def _print_json(place: Place, report: integrity.Report) -> None:
    data = {
        "root": place.root,
        "runs": report.runs,
        "live": report.live,
        "buses": report.buses,
        "messages": report.messages,
        "plans": report.plans,
        "findings": [finding.as_dict(place.root) for finding in report.findings],
        "ok": report.is_clean,
    }
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
