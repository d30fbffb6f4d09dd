"""report: how a plan, or a whole root, stands, as one HTML file that needs nothing else."""

from __future__ import annotations

import os
import stat
import sys

from lib import config, listing, paths
from lib.cli import ANY_RUNS_DIR, ROOT, Command, Option, Values, run, suggestion
from lib.errors import EXIT_OK, UserError
from lib.index import Index
from lib.monitor.facts import Observer
from lib.status_page import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STDOUT = "-"
MOST_NAMED = 5  # projects that are named where another one was asked for

COMMAND = Command(
    "report",
    "write a page that shows how a plan, or everything, stands",
    about="""\
Writes one HTML file, status.html: problems first, with the command that helps,
then stages and tasks, the time that each took, runs and messages.  The file
holds all that it needs, and no script: open it, mail it, keep it with a build.
It says how things stood when it was made; run-all-tasks.py makes that of its
plan whenever the plan ends.""",
    positionals=(("PROJECT", "?", "the project of a plan or of tasks (default: the whole root)"),),
    options=(
        Option(
            "-o",
            "--output",
            metavar="FILE",
            help="where to write it; - is stdout (default: runs/PROJECT/status.html, "
            "or runs/status.html)",
        ),
        ROOT,
        ANY_RUNS_DIR,
    ),
    examples=(
        "bin/report",
        "bin/report demo",
        "bin/report demo --output - | mail -a 'Content-Type: text/html' -s demo me@example.com",
    ),
    exit_codes="0 written, 1 no such project or it cannot be written, 2 wrong usage",
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(COMMAND, report, arguments)


def report(values: Values) -> int:
    config.know_tokens()  # what other processes' agents print is shown
    root, runs_option = values.text("root"), values.text("runs_dir")
    folder = listing.runs_folder(root, runs_option)
    project = values.text("project") or ""
    index = Index(folder, bus_path="" if runs_option else paths.bus_path(root))
    observer = Observer(index, project)
    facts = observer.look()
    if project:
        _refuse_unknown(index, project)
    data = store.make(facts, observer, project)
    target = values.text("output")
    if target == STDOUT:
        sys.stdout.buffer.write(data)
        return EXIT_OK
    if target is not None:
        _write_to(target, data)
    else:
        target = _default_path(index, project)
        store.save(target, data)
    sys.stdout.write(f"{target}\n")
    return EXIT_OK


def _refuse_unknown(index: Index, project: str) -> None:
    known = {key[0] for key in index.tasks} | set(index.plans)
    if project in known:
        return
    names = sorted(known)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    there = f"there are {', '.join(names[:MOST_NAMED])}{more}" if names else "there is none yet"
    near = suggestion(project, names)
    raise UserError(f"no project {project} in {index.runs_dir}{near}; {there}")


def _default_path(index: Index, project: str) -> str:
    if project and project not in index.projects():  # its runs lie flat, and it has no folder
        raise UserError(f"project {project} has no folder in {index.runs_dir}; name an --output")
    return store.path_of(index.runs_dir, project)


def _write_to(target: str, data: bytes) -> None:
    """Where somebody wants it: through a link, and into a pipe or a device, too."""
    path = os.path.realpath(os.path.expanduser(target))
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise UserError(f"{target} is a folder; name a file in it")
    if stat.S_ISREG(mode):
        store.save(path, data)
        return
    with open(path, "wb") as file:
        file.write(data)
