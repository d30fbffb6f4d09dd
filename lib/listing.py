"""Runs as lists show them: selected, the newest first, and made fit to print.

"Newest" is by start time. The names of run folders tell nearly the same for
less: a run starts when its folder is made, or soon after. So where nothing
but the newest few are wanted, only as many records are read as can matter.
"""

from __future__ import annotations

import os
import time

from lib import config, files, ids, paths, redact, runs, tasks, usage
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

START_DELAY_NS = 60 * ids.NANOSECONDS  # at most so long after its folder was made a run starts
STATUSES = (runs.RUNNING, runs.COMPLETED, runs.FAILED, runs.UNKNOWN)
NOT_STARTED = "it has not begun yet: its task may wait for others"
PROCESS_GONE = "its process is gone, and its record does not say how it ended"
DONE_TELLS = "how it ended is not known; its task is done"
UNSTAMPED = "~"  # sorts above every stamp: a name that tells no time must always be looked at


class Row:
    """A run, when it started (ns since 1970, 0 = unknown), and its state, looked at once."""

    __slots__ = ("_state", "run", "started")

    def __init__(self, run: runs.Run) -> None:
        self.run = run
        started = run.time_ns("start_time")
        if started is None:
            started = ids.parse_rfc3339(runs.time_from_name(run.run_id))
        self.started = started or 0
        self._state: runs.State | None = None

    @property
    def state(self) -> runs.State:
        if self._state is None:
            try:
                self._state = state_of(self.run)
            except OSError as error:  # one odd folder must not hide the others
                self._state = runs.State(runs.UNKNOWN, None, f"its state is hidden: {error}")
        return self._state


def state_of(run: runs.Run, is_done: bool | None = None) -> runs.State:
    """What is true of the run now, where it lies in a task folder as the original judges it.

    There the task's DONE proves what no exit code tells any more, and a
    folder without a record is one that waits for its start.  `is_done` says
    whether there is a DONE, None: look.
    """
    state = runs.state(run)
    task_folder = runs.task_folder_of(run)
    if state.status != runs.FAILED or not task_folder:
        return state
    if not run.record:
        is_ours = os.path.lexists(f"{task_folder}/runs/{runs.ACTIVE}/{run.run_id}")
        return state if is_ours else runs.State(runs.UNKNOWN, None, NOT_STARTED)
    if state.exit_code not in (None, -1) or not runs.was_started(run):
        return state
    if is_done is None:
        is_done = files.is_regular(f"{task_folder}/{tasks.DONE}")
    if is_done:
        reason = run.text("error_summary") or DONE_TELLS
        return runs.State(runs.COMPLETED, 0, reason, ended_unrecorded=state.ended_unrecorded)
    if state.ended_unrecorded and not run.number("supervisor_pid"):
        return runs.State(runs.FAILED, None, PROCESS_GONE, ended_unrecorded=True)
    return state


class Wanted:
    """Which runs are asked for; what is left out admits every run.

    `since` and `until` are the bounds of the start time in ns since 1970.
    """

    __slots__ = ("agent", "parent", "project", "since", "statuses", "task", "until")

    def __init__(
        self,
        *,
        statuses: Sequence[str] = (),
        project: str | None = None,
        task: str | None = None,
        agent: str | None = None,
        parent: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> None:
        self.statuses = statuses
        self.project = project
        self.task = task
        self.agent = agent
        self.parent = parent
        self.since = since
        self.until = until

    def is_everything(self) -> bool:
        return not self.statuses and all(
            getattr(self, name) is None for name in self.__slots__ if name != "statuses"
        )

    def admits_stamp(self, stamp: str) -> bool:
        """False when a folder of that stamp cannot hold a run within the bounds."""
        if stamp == UNSTAMPED:
            return True
        if self.since is not None and stamp < _stamp_before(self.since):
            return False
        return self.until is None or stamp <= ids.stamp(self.until // ids.NANOSECONDS)

    def admits(self, row: Row) -> bool:
        run = row.run
        project, task = place(run)
        return (
            (self.project is None or project == self.project)
            and (self.task is None or task == self.task)
            and (self.agent is None or self.agent in (run.text("agent"), run.text("agent_name")))
            and (self.parent is None or run.text("parent_run_id") == self.parent)
            and (self.since is None or row.started >= self.since)
            and (self.until is None or row.started <= self.until)
            and (not self.statuses or row.state.status in self.statuses)  # last: it costs most
        )


def runs_folder(root_option: str | None, runs_option: str | None) -> str:
    """The runs folder to look into; UserError when one was named and is not there."""
    folder = paths.runs_dir(root_option, runs_option)
    if (root_option or runs_option) and not os.path.isdir(folder):
        raise UserError(
            f"no runs folder {redact.for_terminal(folder)}; "
            "name the root with --root, or the folder itself with --runs-dir"
        )
    return folder


def select(runs_dir: str, wanted: Wanted, limit: int = 0) -> tuple[list[Row], int]:
    """The newest `limit` (0 = all) wanted runs, newest first, and how many more there are."""
    folders = sorted(((_stamp(path), path) for path in runs.folders(runs_dir)), reverse=True)
    if limit and wanted.is_everything():
        rows = _newest(folders, limit)
        return rows, len(folders) - len(rows)
    rows = [Row(runs.read(path)) for stamp, path in folders if wanted.admits_stamp(stamp)]
    rows = _sorted([row for row in rows if wanted.admits(row)])
    shown = rows[:limit] if limit else rows
    return shown, len(rows) - len(shown)


def newest(runs_dir: str) -> runs.Run:
    """The run that started last; UserError when there is none."""
    rows, _ = select(runs_dir, Wanted(), 1)
    if not rows:
        raise UserError(
            f"no runs in {redact.for_terminal(runs_dir)}; start one with run-agent.py, "
            "or name another place with --root or --runs-dir"
        )
    return rows[0].run


def find(runs_dir: str, wanted: str) -> runs.Run:
    """The one run that `wanted` names: any unique part of its id, or the path of its folder."""
    return runs.find(runs_dir, os.path.basename(wanted.rstrip("/")) or wanted)


def children(runs_dir: str, row: Row) -> list[str]:
    """The ids of the runs that were started inside this one, oldest first."""
    end = row.run.time_ns("end_time")
    wanted = Wanted(parent=row.run.run_id, since=row.started or None, until=end)
    rows, _ = select(runs_dir, wanted)
    return [row.run.run_id for row in reversed(rows)]


def _newest(folders: list[tuple[str, str]], limit: int) -> list[Row]:
    rows: list[Row] = []
    floor = ""  # no folder with a stamp below it can hold one of the newest
    for stamp, path in folders:
        if stamp < floor:
            break
        rows.append(Row(runs.read(path)))
        if len(rows) == limit:
            floor = _stamp_before(min(row.started for row in rows))
    return _sorted(rows)[:limit]


def _sorted(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.started, row.run.run_id), reverse=True)


def _stamp(path: str) -> str:
    """The time in a folder's name, as text that sorts."""
    stamp = os.path.basename(path).removeprefix("run_")[:15]
    whole = len(stamp) == 15 and stamp[8] == "-" and (stamp[:8] + stamp[9:]).isdigit()
    return stamp if whole else UNSTAMPED


def _stamp_before(started: int) -> str:
    """The oldest stamp that the folder of a run can bear which started then."""
    return ids.stamp(max(0, started - START_DELAY_NS) // ids.NANOSECONDS)


def parse_since(text: str, now_ns: int) -> int | None:
    """A point in time, ns since 1970: `2h` ago, a date, or RFC 3339; None for anything else."""
    from lib.cli import parse_seconds

    try:
        return now_ns - int(parse_seconds(text) * ids.NANOSECONDS)
    except ValueError:
        pass
    missing = {10: "T00:00:00", 16: ":00"}.get(len(text), "")
    return ids.parse_rfc3339(text + missing)


# -- what is shown of a run


def place(run: runs.Run) -> tuple[str, str]:
    """(project, task) of a run: as recorded, else those of the task folder it lies in."""
    project, task = run.text("project_id"), run.text("task_id")
    parts = run.path.split("/")
    if not (project and task) and not parts[-1].startswith("run_") and parts[-2:-1] == ["runs"]:
        return project or "".join(parts[-4:-3]), task or "".join(parts[-3:-2])
    return project, task


def status_mark(state: runs.State) -> str:
    """The status; `running*` where the agent lives on without its supervisor."""
    return state.status + ("*" if state.holder == "agent" else "")


def known_code(state: runs.State) -> int | None:
    """The exit code; records write -1 for one that is not, or not yet, known."""
    code = state.exit_code
    return None if code is None or code < 0 or state.status == runs.RUNNING else code


def elapsed_seconds(row: Row) -> float | None:
    """From the start to the end, or to now while it runs; None when that is not known."""
    running = row.state.status == runs.RUNNING
    end = time.time_ns() if running else row.run.time_ns("end_time")
    if end is None or not row.started or end < row.started:
        return None
    return (end - row.started) / ids.NANOSECONDS


def clock(nanoseconds: int) -> str:
    """`2026-02-23T20:48:59Z`, or `-` for an unknown time."""
    return ids.rfc3339(nanoseconds)[:19] + "Z" if nanoseconds else "-"


def tokens(run: runs.Run) -> str:
    """`input/output` tokens, `?` for one that is not known, or `-`."""
    return usage.Usage([run.record]).tokens()


def cost(run: runs.Run) -> str:
    """`$0.0123`, `~$0.0123` where it was estimated, or `-`."""
    return usage.Usage([run.record]).cost()


def know_tokens(found: Iterable[runs.Run]) -> None:
    """Have the tokens of the configurations redacted with which these runs were started."""
    config.know_tokens()
    for path in dict.fromkeys(run.text("config") for run in found):
        if path:
            config.know_tokens(path)


def as_dict(row: Row) -> dict[str, object]:
    """The record, redacted, with what is true now: status, exit_code, reason, alive_by, path."""
    state = row.state
    project, task = place(row.run)
    fields = {
        **row.run.record,
        "run_id": row.run.run_id,
        "project_id": project,
        "task_id": task,
        "status": state.status,
        "exit_code": known_code(state),
        "reason": state.reason,
        "alive_by": state.holder,
        "path": row.run.path,
    }
    return {str(redact.values(key)): redact.values(value) for key, value in fields.items()}


def to_json(value: object) -> str:
    """One line of JSON in ASCII, so that nothing in it can reach a terminal as a control."""
    import json

    return json.dumps(value).replace("\x7f", "\\u007f") + "\n"
