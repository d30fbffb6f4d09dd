"""What an index holds: an entry for each run, task, plan and bus below a root.

An entry knows how to look at its own files again for as little as can be: a
run that has ended is never looked at any more, one that lives costs a stat of
its record and of its three outputs, and its lock.
"""

from __future__ import annotations

import os
import sys
import time

from lib import bus, files, ids, listing, runs, state
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lib.bus import Message

KEPT_MESSAGES = 200  # of each bus
_OUTPUTS = (runs.STDOUT, runs.STDERR, runs.TRANSCRIPT)
_TRIES = 5  # of reading a plan whose state is replaced meanwhile
_Signature = object


class RunEntry:
    """A run: its record, what is true of it, and how its output grows.

    `run.path` and everything else that leads to a file comes from where the
    folder lies; `project` and `task` are as recorded, else those of the
    folder.  `started_ns` is 0 and `ended_ns` None where that is not known.
    """

    __slots__ = (
        "_quiet_since", "_seen", "_sizes", "agent", "ended_ns", "is_done", "project",
        "run", "started_ns", "state", "task",
    )  # fmt: skip

    def __init__(self, path: str, is_done: bool | None) -> None:
        self.is_done = is_done  # of the task folder that it lies in; None for a flat run
        self._seen: _Signature = None
        self._sizes: tuple[int, ...] | None = None
        self._quiet_since = time.monotonic()
        self.run = runs.read(path)
        if not self.is_final:
            self._read_again()
        self._note()

    def _read_again(self) -> None:
        self._seen = _record_signature(self.run)  # before the content, which may be newer
        self.run = runs.read(self.run.path)

    def _note(self) -> None:
        # The keys are the same in all of them: a third of their memory.
        self.run.record = {sys.intern(key): value for key, value in self.run.record.items()}
        row = listing.Row(self.run)
        self.started_ns = row.started
        self._judge()
        self.project, self.task = listing.place(self.run)
        self.agent = self.run.agent

    def _judge(self) -> None:
        self.state = listing.state_of(self.run, self.is_done)
        self.ended_ns = None if self.is_live else self.run.time_ns("end_time")

    @property
    def path(self) -> str:
        return self.run.path

    @property
    def is_live(self) -> bool:
        """Whether its supervisor or its agent lives."""
        return self.state.holder != ""

    @property
    def is_final(self) -> bool:
        """Whether the record says how it ended: nothing about it changes any more."""
        return self.run.text("status") in runs.ENDED

    def order(self) -> tuple[int, str]:
        """The key that sorts runs by their start, the oldest first."""
        return self.started_ns, self.run.run_id

    @property
    def stdout_size(self) -> int:
        return self._known_sizes()[0]

    @property
    def silent_seconds(self) -> float:
        """How long nothing has come from a live run; 0 for one that has ended.

        Counted on a clock that stands still while the machine sleeps.
        """
        if not self.is_live:
            return 0.0
        self._known_sizes()
        return max(0.0, time.monotonic() - self._quiet_since)

    def _known_sizes(self) -> tuple[int, ...]:
        if self._sizes is None:
            self._measure()
        return self._sizes or (0,) * len(_OUTPUTS)

    def _measure(self) -> bool:
        """Stat the outputs; True when one of them has another size than before."""
        sizes, newest = [], self.started_ns
        for name in _OUTPUTS:
            try:
                status = os.lstat(self.run.file(name))
            except OSError:
                sizes.append(0)
                continue
            sizes.append(status.st_size)
            newest = max(newest, status.st_mtime_ns)
        if tuple(sizes) == self._sizes:
            return False
        self._sizes = tuple(sizes)
        quiet_ns = max(0, time.time_ns() - newest) if newest else 0
        self._quiet_since = time.monotonic() - quiet_ns / ids.NANOSECONDS
        return True

    def look(self) -> bool:
        """Look at a run that may have changed; True when it has."""
        before = self._facts()
        was_live = self.is_live
        if _record_signature(self.run) != self._seen:
            self._read_again()
            self._note()
        elif was_live:
            self._judge()
        has_grown = (was_live or self.is_live) and self._measure()
        return has_grown or self._facts() != before

    def set_done(self, is_done: bool) -> bool:
        """Tell whether its task has a DONE now; True when that says something of the run."""
        if is_done == self.is_done:
            return False
        self.is_done = is_done
        before = self._facts()
        self._judge()
        return self._facts() != before

    def _facts(self) -> tuple[object, ...]:
        now = self.state
        return self._seen, now.status, now.exit_code, now.reason, now.holder, self.run.problem


def _record_signature(run: runs.Run) -> _Signature:
    """Also another one when the rights of the record change: it may be readable now."""
    for name in (runs.RECORD, runs.CWD):
        try:
            status = os.lstat(run.file(name))
        except OSError:
            continue
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return None


class PlanEntry:
    """A plan as its state file and journal tell: `header`, `tasks` by id, who runs it.

    `problem` says why the state cannot be read; then header and tasks are
    those that were read last.
    """

    __slots__ = (
        "_journal", "_journal_at", "_yaml", "counts", "header", "is_run", "path", "problem",
        "project", "tasks",
    )  # fmt: skip

    def __init__(self, runs_dir: str, project: str) -> None:
        self.project = project
        self.path = os.path.join(runs_dir, project, state.STATE_NAME)
        self.header: dict[str, object] = {}
        self.tasks: dict[str, state.TaskState] = {}
        self.counts: dict[str, int] = {}  # tasks by state
        self.is_run = False  # some process holds the plan now
        self.problem = ""
        self._yaml: _Signature = ""
        self._journal: _Signature = ""
        self._journal_at = 0  # bytes of the journal that are known

    def look(self) -> bool:
        """Read what has changed; True when something has."""
        before = self.is_run
        self.is_run = state.is_run(os.path.dirname(self.path))
        has_changed = self._look_at_state()
        if has_changed:
            self.counts = {}
            for task in self.tasks.values():
                self.counts[task.state] = self.counts.get(task.state, 0) + 1
        return has_changed or before != self.is_run

    def _beside(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.path), name)

    def _look_at_state(self) -> bool:
        yaml, journal = (
            files.signature(self.path),
            files.signature(self._beside(state.JOURNAL_NAME)),
        )
        if (yaml, journal) == (self._yaml, self._journal):
            return False
        if not self.problem and yaml == self._yaml and self._read_on(yaml):
            self._journal = journal
            return True
        for _ in range(_TRIES):
            self._read_all()
            if yaml == files.signature(self.path):
                break
            yaml = files.signature(self.path)
        self._yaml, self._journal = yaml, journal
        return True

    def _read_all(self) -> None:
        at = files.size(self._beside(state.JOURNAL_NAME))  # what comes later is read again, no harm
        try:
            self.header, self.tasks = state.read_whole(self.path)
            self.problem, self._journal_at = "", at
        except FileNotFoundError:
            self.problem = "its state is gone"
        except (UserError, OSError) as error:
            self.problem = str(error)

    def _read_on(self, yaml: _Signature) -> bool:
        """Take in what the journal of the same YAML has got more; False: read all again."""
        path = self._beside(state.JOURNAL_NAME)
        try:
            data = _read_from(path, self._journal_at)
        except OSError:
            return False
        whole = data[: data.rfind(b"\n") + 1]
        if files.signature(self.path) != yaml:
            return False
        header = state.apply_lines(whole.decode("utf-8", "replace"), self.header, self.tasks)
        if header is None:
            return False
        self.header = header
        self._journal_at += len(whole)
        return True


def _read_from(path: str, offset: int) -> bytes:
    """What a file holds from an offset on; OSError where it is shorter than that."""
    fd = files.open_regular(path)
    try:
        if os.fstat(fd).st_size < offset:
            raise OSError(f"{path} was cut")
        parts = []
        while part := os.pread(fd, 1 << 20, offset):
            parts.append(part)
            offset += len(part)
    finally:
        os.close(fd)
    return b"".join(parts)


class BusEntry:
    """A bus: when it changed, and its newest messages, read when they are asked for.

    No descriptor stays open: a root may have thousands of buses.
    """

    __slots__ = (
        "_end", "_inode", "_read_as", "_seen", "changed_ns", "messages", "path", "problem",
        "project", "size", "task",
    )  # fmt: skip

    def __init__(self, path: str, project: str = "", task: str = "") -> None:
        self.path = path
        self.project = project
        self.task = task
        self.size = 0
        self.changed_ns = 0
        self.problem = ""  # why it cannot be read
        self.messages: list[Message] = []  # the newest, oldest first, as of the last `read`
        self._seen: _Signature = ""
        self._read_as: _Signature = ""
        self._inode = self._end = 0  # of the file that was read, and how far

    def look(self) -> bool:
        """One stat; True when the file is another than before."""
        try:
            status = os.lstat(self.path)
        except OSError:
            seen: _Signature = None
            self.size = 0
        else:
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            self.size, self.changed_ns = status.st_size, status.st_mtime_ns
        has_changed = seen != self._seen
        self._seen = seen
        return has_changed

    def read(self) -> list[Message]:
        """The messages that are new since the last call; at first the newest ones.

        Also across a rotation: what the archived file got after the last
        call is read from there.
        """
        if self._seen == self._read_as:
            return []
        self._read_as = self._seen
        try:
            found = self._read_new()
            self.problem = ""
        except (UserError, OSError) as error:
            found = []
            self.problem = str(error)
        self.messages = [*self.messages, *found][-KEPT_MESSAGES:]
        return found

    def _read_new(self) -> list[Message]:
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return []
        found: list[Message] = []
        if self._inode == status.st_ino and self._end <= status.st_size:
            found = list(bus.read(self.path, self._end))
        else:
            if self._inode and self._inode != status.st_ino:
                found = self._rest_of_archive()
            self._inode, self._end = status.st_ino, 0
            newest = bus.recent(self.path, lambda some: len(some) >= KEPT_MESSAGES)
            self._end = newest[-1].end if newest else 0
            return [*found, *newest[-KEPT_MESSAGES:]]
        if found:
            self._end = found[-1].end
        return found

    def _rest_of_archive(self) -> list[Message]:
        folder, name = os.path.split(self.path)
        for other in reversed(files.names(folder)):
            path = os.path.join(folder, other)
            if other.startswith(f"{name}.") and other.endswith(bus.ARCHIVED):
                try:
                    if os.lstat(path).st_ino == self._inode:
                        return list(bus.read(path, self._end))
                except (UserError, OSError):
                    return []
        return []


class Changes:
    """What a refresh found changed, new or gone: paths of runs, keys of tasks, projects, buses."""

    __slots__ = ("buses", "plans", "runs", "tasks")

    def __init__(self) -> None:
        self.runs: set[str] = set()
        self.tasks: set[tuple[str, str]] = set()
        self.plans: set[str] = set()
        self.buses: set[str] = set()

    def add(self, more: Changes) -> None:
        """Take in what a later refresh found."""
        self.runs |= more.runs
        self.tasks |= more.tasks
        self.plans |= more.plans
        self.buses |= more.buses

    def __bool__(self) -> bool:
        return bool(self.runs or self.tasks or self.plans or self.buses)
