"""monitor: all agents of a root at a glance: on the screen, as text, as JSON, or line by line."""

from __future__ import annotations

import os
import sys
import time

from lib import config, listing, paths
from lib.cli import ANY_RUNS_DIR, ROOT, Command, Option, Values, run
from lib.errors import EXIT_OK, UsageError
from lib.index import Index
from lib.monitor import follow, report, text
from lib.monitor.facts import Observer
from lib.printer import size_of
from lib.textual import cut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STDIN, STDOUT = 0, 1
DEFAULT_LIMIT = 20
DEFAULT_SECONDS, LEAST_SECONDS = 1.0, 0.1
REST_SECONDS = 5.0  # how late a change is seen in a task that has been at rest
COLOURS = {"red": "\x1b[31m", "yellow": "\x1b[33m", "bold": "\x1b[1m", "dim": "\x1b[2m"}

COMMAND = Command(
    "monitor",
    "watch all agents: problems, runs, plans, messages",
    about="""\
Full-screen in a terminal: what failed lately, is silent or waits comes first.
1 2 3 4 or Tab choose a list, up and down a line, Enter reads a transcript, s
stops a run (and asks first), f filters, h shows all keys, q quits.  Nothing that
runs is touched by looking, and nothing is written.  Where there is no terminal,
or TERM=dumb, it is --once.  Should a terminal stay odd after kill -9: reset""",
    options=(
        Option("--once", help="print everything as text, once"),
        Option("--json", help="print everything as one JSON object (docs/monitor.md)"),
        Option("--follow", help="print the new lines of all agents, each behind its run"),
        Option("--project", metavar="ID", help="only this project"),
        Option("--task", metavar="ID", help="only this task"),
        Option(
            "--interval",
            metavar="TIME",
            kind="seconds",
            help="look that often (1s); with --json: an object each time",
        ),
        Option(
            "-n",
            metavar="N",
            kind="count",
            default=DEFAULT_LIMIT,
            help="for --once and --json: of what is over the newest N (20); 0 = all",
        ),
        ROOT,
        ANY_RUNS_DIR,
    ),
    examples=(
        "bin/monitor",
        "bin/monitor --follow --project demo | grep -i error",
        "bin/monitor --json | jq -r '.problems[].text'",
    ),
    exit_codes="0 shown, or ended with q; 1 no such folder; 2 wrong usage; 128+N ended by signal N",
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(COMMAND, monitor, arguments)


def monitor(values: Values) -> int:
    modes = [name for name in ("once", "json", "follow") if values.flag(name)]
    if len(modes) > 1:
        raise UsageError(f"--{modes[0]} and --{modes[1]}: choose one; see --help")
    limit = values.number("n") or 0
    interval = values.seconds("interval")
    if interval is not None and interval < LEAST_SECONDS:
        raise UsageError(f"--interval: at least {LEAST_SECONDS:g} s; see --help")
    config.know_tokens()  # what other processes' agents print is shown
    root, runs_option = values.text("root"), values.text("runs_dir")
    folder = listing.runs_folder(root, runs_option)
    is_full_screen = not modes and _is_terminal()
    is_lasting = is_full_screen or bool(interval) or values.flag("follow")
    index = Index(
        folder,
        bus_path="" if runs_option else paths.bus_path(root),
        rest_seconds=REST_SECONDS if is_lasting else 0.0,
    )
    observer = Observer(index, values.text("project") or "", values.text("task") or "")
    if values.flag("follow"):
        return follow.follow(observer, interval or DEFAULT_SECONDS)
    if values.flag("json"):
        return _print_json(observer, limit, interval)
    if not is_full_screen:
        return _print_once(observer, limit)
    from lib.monitor.app import App
    from lib.monitor.screen import Screen

    return Screen(App(observer, folder), interval or DEFAULT_SECONDS).run()


def _is_terminal() -> bool:
    is_able = os.environ.get("TERM", "dumb") not in ("", "dumb")
    return is_able and os.isatty(STDIN) and os.isatty(STDOUT)


def _print_json(observer: Observer, limit: int, interval: float | None) -> int:
    while True:
        facts = observer.look()
        sys.stdout.write(report.to_json(report.as_dict(facts, observer, limit)))
        sys.stdout.flush()
        if interval is None:
            return EXIT_OK
        time.sleep(interval)


def _print_once(observer: Observer, limit: int) -> int:
    is_terminal = os.isatty(STDOUT)
    columns = size_of(STDOUT)[0] if is_terminal else text.WIDE
    facts = observer.look()
    colours = COLOURS if is_terminal and _has_colours() else {}
    for line, style in text.once(facts, observer.index.runs_dir, limit, columns - 3):
        begin = colours.get(style, "")
        shown = cut(line, columns - 1)
        sys.stdout.write(f"{begin}{shown}{chr(27) + '[0m' if begin else ''}\n")
    return EXIT_OK


def _has_colours() -> bool:
    return os.environ.get("TERM", "dumb") not in ("", "dumb") and not os.environ.get("NO_COLOR")
