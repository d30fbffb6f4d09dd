"""watch-tasks: wait until the named tasks have ended, and tell how they come along."""

from __future__ import annotations

import sys
import time

from lib import ids, listing, redact, standing
from lib.cli import ANY_RUNS_DIR, ROOT, Command, Option, Values, run, suggestion
from lib.errors import EXIT_FAILED, EXIT_OK, EXIT_TIMEOUT, UsageError, UserError
from lib.index import Index
from lib.standing import Standing
from lib.textual import spoken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_SECONDS = 1800.0
INTERVAL_SECONDS = 2.0
IDLE_LOOKS = 5  # so often a task must be found without anybody at work on it, to have ended so

COMMAND = Command(
    "watch-tasks",
    "wait until tasks have ended",
    about="""\
A task is one of a plan, a task folder, or what runs were recorded under.  Each
change of a task is a line.  A task of a plan or loop that nobody runs any more
has ended, too, unless somebody goes on with it soon.  Writes nothing.""",
    positionals=(("TASK", "*", "ids of tasks of the project"),),
    options=(
        Option("--project", metavar="ID", help="the project of the tasks"),
        Option(
            "--timeout",
            metavar="TIME",
            kind="seconds",
            default=TIMEOUT_SECONDS,
            help="how long to wait (30m)",
        ),
        Option(
            "--interval",
            metavar="TIME",
            kind="seconds",
            default=INTERVAL_SECONDS,
            help="between two looks (2s)",
        ),
        Option(
            "--json",
            help="one JSON object a change: time, task, status, before, why, ended, ok",
        ),
        ROOT,
        ANY_RUNS_DIR,
    ),
    examples=(
        "bin/watch-tasks --project demo build-01 build-02",
        "bin/watch-tasks --project demo import --timeout 2h && echo it is done",
    ),
    exit_codes="0 all ended well; 1 all ended, one or more failed, or no such task; "
    "2 wrong usage; 124 the timeout came first",
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(COMMAND, watch_tasks, arguments)


def watch_tasks(values: Values) -> int:
    names = list(dict.fromkeys(values.items("task")))
    project = values.text("project")
    if project is None or not names:
        raise UsageError("name the project with --project, and one TASK or more; see --help")
    interval = values.seconds("interval") or 0.0
    if not interval:
        raise UsageError("--interval: 0 would never let go of the processor; give 0.1s or more")
    folder = listing.runs_folder(values.text("root"), values.text("runs_dir"))
    watch = _Watch(Index(folder), project, names, as_json=values.flag("json"))
    watch.check_names()
    timeout = values.seconds("timeout") or 0.0
    limit = time.monotonic() + timeout
    while watch.look():
        left = limit - time.monotonic()
        if left <= 0:
            COMMAND.tell(f"after {spoken(timeout)} these have not ended: {watch.open_tasks()}")
            return EXIT_TIMEOUT
        time.sleep(min(interval, left))
    return EXIT_OK if watch.all_good() else EXIT_FAILED


class _Watch:
    """The tasks that are waited for, as they stood at the last look."""

    def __init__(self, index: Index, project: str, names: list[str], *, as_json: bool) -> None:
        self._index = index
        self._project = project
        self._as_json = as_json
        self._now: dict[str, Standing | None] = dict.fromkeys(names)
        self._idle_looks = dict.fromkeys(names, 0)

    def check_names(self) -> None:
        """UserError for a task that nobody knows: to wait for it would be in vain."""
        self._index.refresh()
        for name in self._now:
            if standing.look(self._index, self._project, name) is None:
                near = suggestion(name, standing.known(self._index, self._project))
                raise UserError(
                    f"no task {name} in project {self._project}{near}; "
                    f"list-runs --tasks shows task folders, {self._index.runs_dir} is looked into"
                )

    def look(self) -> bool:
        """Look at those that have not ended, and tell what is new; True while there are any."""
        self._index.refresh()
        for name, before in self._now.items():
            if before is not None and before.has_ended:
                continue
            now = standing.look(self._index, self._project, name)
            now = now or Standing("gone", "its folder was removed", has_ended=True)
            self._idle_looks[name] = self._idle_looks[name] + 1 if now.is_idle else 0
            now.has_ended = now.has_ended or self._idle_looks[name] >= IDLE_LOOKS
            if before is None or _facts(before) != _facts(now):
                self._report(name, before, now)
            self._now[name] = now
        sys.stdout.flush()
        return not all(now is not None and now.has_ended for now in self._now.values())

    def _report(self, name: str, before: Standing | None, now: Standing) -> None:
        if self._as_json:
            fields = {
                "time": ids.rfc3339(),
                "task": name,
                "status": now.status,
                "before": before.status if before else None,
                "why": redact.text(now.why),
                "ended": now.has_ended,
                "ok": now.is_good if now.has_ended else None,
            }
            sys.stdout.write(listing.to_json(fields))
            return
        change = f"{before.status} -> " if before and before.status != now.status else ""
        why = f"  {now.why}" if now.why else ""
        end = "" if not now.has_ended else "  ended well" if now.is_good else "  ended badly"
        clock = ids.rfc3339()[11:19]
        sys.stdout.write(
            f"{redact.one_line(f'{clock}Z  {name}  {change}{now.status}{end}{why}')}\n"
        )

    def open_tasks(self) -> str:
        rows = [(name, now) for name, now in self._now.items() if now and not now.has_ended]
        return ", ".join(f"{name} ({now.status})" for name, now in rows)

    def all_good(self) -> bool:
        return all(now is not None and now.is_good for now in self._now.values())


def _facts(standing_now: Standing) -> tuple[object, ...]:
    return standing_now.status, standing_now.why, standing_now.has_ended
