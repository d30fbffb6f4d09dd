"""What the page hears of: that something has changed, and what live runs have written last.

All clients share it.  What happens is gathered, so that the page asks anew only
so often; an event says what it is about, and not how that stands now.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from lib import redact
from lib.api import sse
from lib.api.exchange import encode
from lib.api.hub import Change, Signal, standing_of
from lib.api.last_lines import LastLines
from lib.index_entries import Changes, RunEntry

if TYPE_CHECKING:
    from lib.api.facts import Facts
    from lib.index import Index, TaskEntry

GATHER_SECONDS = 0.04  # so long after quiet: the end of one run is the start of the next
CHANGE_SECONDS = 0.2  # from one change to the next; with what it takes to find one, 0.25
LINES_SECONDS = 0.25  # from lines to lines
MOST_NAMED = 100  # of each kind in one event
MOST_LIVE = 500  # runs of which lines are told, the newest
KEPT_BLOCKS = 64  # for clients that are behind; with more missing they are told that all may be new

Key = tuple[str, str]


class EventFeed:
    """A member of the hub (lib/api/hub.py), as long as anybody listens."""

    def __init__(self, runs_dir: str, facts: Facts, index: Index) -> None:
        self.clients = 0
        self.signal = Signal()
        self.due = math.inf
        self._runs_dir = runs_dir
        self._facts = facts
        self._lock = threading.Lock()
        self._lines = LastLines()
        self._news = News()
        self._told_live: dict[str, object] = {}  # how the runs that live were told of
        self._told_tasks = {key: _about(task) for key, task in index.tasks.items()}
        self._unread: set[str] | None = set()  # runs whose output may have grown; None: any
        self._next_change = self._next_lines = 0.0
        self._blocks: deque[bytes] = deque(maxlen=KEPT_BLOCKS)
        self._count = 0  # of blocks so far
        facts.prepare(index)  # what is secret in the lines is known from here on
        live = index.live()
        for entry in live:
            self._told_live[entry.path] = _stand(entry)
        self._lines.keep(live[:MOST_LIVE])
        self._lines.changed(None)  # what there is already goes to each client when it comes

    # -- in the thread of the hub

    def reads(self) -> bool:
        """False: where the kernel does not tell, a look as often as at the index will do."""
        return False

    def note(self, found: Changes, index: Index) -> None:
        if not found:
            return
        self._facts.prepare(index)
        live = index.live()
        with self._lock:
            was_quiet = not self._news
            self._note_runs(found, index)
            self._note_tasks(found, index)
            self._news.plans |= found.plans
            self._news.projects |= found.plans
            self._news.buses |= {self._place_of(path) for path in found.buses}
            self._lines.keep(live[:MOST_LIVE])
            if was_quiet and self._news:
                self._next_change = max(self._next_change, time.monotonic() + GATHER_SECONDS)

    def _note_runs(self, found: Changes, index: Index) -> None:
        for path in found.runs:
            entry = index.runs.get(path)
            now = _stand(entry) if entry is not None else None
            if now is not None and now == self._told_live.get(path):
                continue  # it has written something, no more
            self._news.runs.add(os.path.basename(path))
            self._news.projects.add(index.key_of(path)[0])
            if entry is not None and entry.is_live:
                self._told_live[path] = now
            else:
                self._told_live.pop(path, None)

    def _note_tasks(self, found: Changes, index: Index) -> None:
        for key in found.tasks:
            task = index.tasks.get(key)
            now = _about(task) if task is not None else None
            if now == self._told_tasks.get(key):
                continue
            self._news.projects.add(key[0])
            if now is None:
                self._told_tasks.pop(key, None)
            else:
                self._told_tasks[key] = now

    def _place_of(self, path: str) -> Key:
        """Of a bus: its project and task, "" for none; it may be gone already."""
        if not path.startswith(f"{self._runs_dir}/"):
            return "", ""
        parts = os.path.dirname(path).removeprefix(self._runs_dir).split("/")[1:]
        project, task = (*parts, "", "")[:2]
        return project, task

    def take(self, changes: Sequence[Change], looked_ns: int, before_ns: int) -> None:
        """`note` has told it already."""

    def advance(self, touched: Collection[str] | None) -> bool:
        """Send what is due."""
        now = time.monotonic()
        with self._lock:
            if not self._lines:
                self._unread = set()
            elif touched is None:
                self._unread = None
            elif self._unread is not None:
                self._unread.update(touched)
            self._send_changes(now)
            self._send_lines(now)
            self.due = self._when_due()
        return False

    def _when_due(self) -> float:
        due = self._next_change if self._news else math.inf
        return due if self._unread == set() else min(due, self._next_lines)

    def _send_changes(self, now: float) -> None:
        if self._news and now >= self._next_change:
            self._next_change = now + CHANGE_SECONDS
            news, self._news = self._news, News()
            self._send("change", news.shape())

    def _send_lines(self, now: float) -> None:
        if self._unread == set() or now < self._next_lines:
            return
        self._next_lines = now + LINES_SECONDS
        unread, self._unread = self._unread, set()
        found = self._lines.changed(unread)
        if found:
            self._send("lines", found)

    def _send(self, name: str, data: object) -> None:
        self._blocks.append(sse.event(encode(data), name))
        self._count += 1
        self.signal.add()

    # -- for clients

    def begin(self) -> tuple[bytes, int]:
        """The lines of all runs that live, and the place behind which what comes later stands."""
        with self._lock:
            return self._all_lines(), self._count

    def since(self, place: int) -> tuple[bytes, int]:
        """The events behind that place, and the place behind them."""
        with self._lock:
            missing = self._count - place
            if missing > len(self._blocks):
                return _ALL_MAY_BE_NEW + self._all_lines(), self._count
            return b"".join(list(self._blocks)[len(self._blocks) - missing :]), self._count

    def _all_lines(self) -> bytes:
        found = self._lines.all()
        return sse.event(encode(found), "lines") if found else b""


class News:
    """What has changed since the last event: ids of runs and projects, places of buses."""

    def __init__(self) -> None:
        self.runs: set[str] = set()
        self.plans: set[str] = set()
        self.buses: set[Key] = set()
        self.projects: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.runs or self.plans or self.buses or self.projects)

    def shape(self) -> object:
        buses = [{"project_id": project, "task_id": task} for project, task in sorted(self.buses)]
        found: dict[str, list[Any]] = {
            "runs": sorted(self.runs),
            "plans": sorted(self.plans),
            "buses": buses,
            "projects": sorted(self.projects - {""}),
        }
        is_more = any(len(names) > MOST_NAMED for names in found.values())
        cut = {name: names[:MOST_NAMED] for name, names in found.items()}
        return redact.values({**cut, "more": is_more})


_ALL_MAY_BE_NEW = sse.event(
    encode({"runs": [], "plans": [], "buses": [], "projects": [], "more": True}), "change"
)


def _stand(entry: RunEntry) -> object:
    """All of a run but how much it has written; its record is another one when it was read anew."""
    return entry.run, standing_of(entry), entry.state.reason, entry.state.holder


def _about(task: TaskEntry) -> object:
    return task.status, task.done, task.loop, task.loop_is_live, task.blocked_by
