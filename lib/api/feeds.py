"""A feed: the events of the runs of one scope, made once for all clients that follow it.

The thread of the hub reads what the runs write, and appends ready events in
blocks.  A client that is in step takes the blocks as they are.  Only so many
bytes of them are kept: one that is behind, or comes back with a cursor, reads
the files itself up to a snapshot of the feed, and then is in step.  So nothing
is ever left out, and a slow client costs nobody anything.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from lib import redact
from lib.api import cursors, sse
from lib.api.cursors import MARGIN_NS, Cursor
from lib.api.exchange import encode
from lib.api.hub import Change, Hub, Signal, Standing, end_of, standing_of
from lib.api.run_logs import START, Place, RunLog, whose
from lib.api.shapes import Key
from lib.index import Index
from lib.index_entries import Changes, RunEntry

KEPT_BYTES = 64 << 20  # of blocks, in all feeds
FEWEST_FEEDS = 8  # among which that is divided
BATCH_BYTES = 256 << 10  # sent at once
PIECES = 4  # read of one run before it is the turn of the next
NO_RUN = bytes(cursors.KEY_BYTES)


class Scope(NamedTuple):
    """Which runs a feed is of: one, those of a task, or all; also its name."""

    path: str = ""
    key: Key = ("", "")

    def wants(self, path: str, key: Key) -> bool:
        if self.path:
            return path == self.path
        return self.key in (("", ""), key)

    def entries(self, index: Index) -> list[RunEntry]:
        if self.path:
            entry = index.runs.get(self.path)
            return [entry] if entry is not None else []
        if self.key != ("", ""):
            task = index.tasks.get(self.key)
            return list(task.runs) if task is not None else []
        return list(index.runs.values())


class Block(NamedTuple):
    """Events that are sent one after another, and the id of a client that has got them."""

    data: bytes
    last_id: str


class Snapshot(NamedTuple):
    """What a client has that got all blocks before the `seq`-th, and the id that says so."""

    seq: int
    places: Mapping[str, Place]
    known: Mapping[str, Standing]
    time_ns: int
    last_id: str


def status_event(path: str, key: Key, now: Standing) -> bytes:
    stands = encode({"status": redact.text(now.status), "exit_code": now.exit_code})
    fields = whose(path.rpartition("/")[2], *key).encode()
    return sse.event(b"{%b,%b" % (fields, stands[1:]), "status")


class Feed:
    """See the text at the top.  Made and counted by `Hub.join`."""

    due = math.inf  # it reads when something happens

    def __init__(self, hub: Hub, runs_dir: str, scope: Scope, index: Index) -> None:
        self.scope = scope
        self.clients = 0
        self.signal = Signal()
        self._hub = hub
        self._runs_dir = runs_dir
        self._lock = threading.Lock()
        self._blocks: deque[Block] = deque()
        self._first = 0  # number of the first block that is kept
        self._bytes = 0
        self._news = 0  # blocks of which nobody has been told yet
        self._time_ns = hub.looked_ns
        self._logs: dict[str, RunLog] = {}  # of runs that may write more
        self._places: dict[str, Place] = {}  # of those, and of the ones that ended a moment ago
        self._ended: dict[str, int] = {}  # when those ended
        self._hungry: set[str] = set()  # runs that have more to read
        self._ending: dict[str, Change] = {}  # runs that are over, and are read to their end
        self._counting = threading.Lock()
        self._uncounted: list[tuple[RunLog, list[int] | None]] = []
        self._start: Snapshot | None = None  # as soon as those are counted
        self._begin(index)

    def _begin(self, index: Index) -> None:
        """Find what is written already, which is not sent."""
        for entry in self.scope.entries(index):
            standing = standing_of(entry)
            if not (standing.is_over or self._follows(standing)):
                continue
            log = RunLog(entry.path, *index.key_of(entry.path))
            if not standing.is_over:
                self._logs[entry.path] = log
                self._uncounted.append((log, log.sizes()))
            elif (entry.ended_ns or entry.started_ns) >= self._time_ns - MARGIN_NS:
                self._ended[entry.path] = end_of(entry)
                self._uncounted.append((log, None))

    def _follows(self, now: Standing) -> bool:
        """Of many runs those that live; of one whatever may come, as on another machine."""
        return now.is_live or (bool(self.scope.path) and not now.is_over)

    # -- in the thread of the hub

    def note(self, found: Changes, index: Index) -> None:
        """How runs stand is all that counts: `take` tells that."""

    def reads(self) -> bool:
        return bool(self._logs)

    def take(self, changes: Sequence[Change], looked_ns: int, before_ns: int) -> None:
        """Take in which runs have changed; see Member."""
        with self._lock:
            self._time_ns = looked_ns
            for change in changes:
                if change.now is None:
                    self._forget(change.path)
                elif self.scope.wants(change.path, change.key):
                    self._take(change, change.now, before_ns)
            for path, ended_ns in list(self._ended.items()):
                if ended_ns < looked_ns - MARGIN_NS and path not in self._logs:
                    del self._ended[path]
                    self._places.pop(path, None)

    def _forget(self, path: str) -> None:
        for known in (self._logs, self._places, self._ended, self._ending):
            known.pop(path, None)
        self._hungry.discard(path)

    def _take(self, change: Change, now: Standing, before_ns: int) -> None:
        path = change.path
        is_new = path not in self._logs and path not in self._places
        if now.is_over and path in self._logs:
            self._ending[path] = change
        elif now.is_over and is_new and change.before is None and (
            change.ended_ns >= before_ns - MARGIN_NS
        ):  # fmt: skip
            self._attach(path, change.key)
            self._ending[path] = change
        else:
            self._ending.pop(path, None)
            self._append(status_event(path, change.key, now))
            if self._follows(now) and path not in self._logs:
                self._attach(path, change.key)

    def _attach(self, path: str, key: Key) -> None:
        """Read a run from its first byte; one that has come back to life from where it was."""
        log = self._logs[path] = RunLog(path, *key)
        if place := self._places.get(path):
            log.start_at(place)
        self._places[path] = log.place
        self._ended.pop(path, None)
        self._hungry.add(path)

    def advance(self, touched: Collection[str] | None) -> bool:
        """Read on; see Member."""
        if self._start is not None:
            for path in self._due(touched):
                if self._read_on(path, self._logs[path]):
                    self._hungry.add(path)
                else:
                    self._hungry.discard(path)
        news, self._news = self._news, 0
        if news:
            self.signal.add(news)
        return bool(self._hungry)

    def _due(self, touched: Collection[str] | None) -> list[str]:
        if touched is not None:
            return [p for p in self._logs if p in touched or p in self._hungry or p in self._ending]
        due = [p for p, log in self._logs.items() if p in self._ending or log.has_more()]
        self._hungry.intersection_update(due)
        return due

    def _read_on(self, path: str, log: RunLog) -> bool:
        """Read some of a run; True when there is more."""
        for _ in range(PIECES):
            if not self._add_lines(path, log, unfinished=False):
                break
        else:
            return True
        change = self._ending.get(path)
        if change is not None and change.now is not None:
            self._add_lines(path, log, unfinished=True)
            with self._lock:
                self._append(status_event(path, change.key, change.now))
                del self._logs[path], self._ending[path]
                self._ended[path] = change.ended_ns
        return False

    def _add_lines(self, path: str, log: RunLog, *, unfinished: bool) -> bool:
        key = cursors.key_of(self._runs_dir, path)
        suffix = self._suffix(key)
        data = log.take(suffix, unfinished=unfinished)
        with self._lock:
            self._places[path] = log.place
            if data:
                self._append(data, log.place, suffix)
        return bool(data)

    def _suffix(self, own: bytes) -> str:
        if self.scope.path:
            return ""
        places = self._places.items()
        return cursors.suffix(
            own,
            self._time_ns,
            [(cursors.key_of(self._runs_dir, path), place) for path, place in places],
        )

    def _append(self, data: bytes, place: Place | None = None, suffix: str = "") -> None:
        last_id = self._id() if place is None else f"s={place[0]};e={place[1]}{suffix}"
        self._blocks.append(Block(data, last_id))
        self._bytes += len(data)
        self._news += 1
        limit = KEPT_BYTES // max(FEWEST_FEEDS, self._hub.members)
        while self._bytes > limit and len(self._blocks) > 1:
            self._bytes -= len(self._blocks.popleft().data)
            self._first += 1

    def _id(self) -> str:
        """That of a client that has got all there is now."""
        if self.scope.path:
            s, e = self._places.get(self.scope.path, START)
            return f"s={s};e={e}"
        return f"s=0;e=0{self._suffix(NO_RUN)}"

    # -- for clients

    def start(self) -> Snapshot | None:
        """Where a client that comes now is in step; None as long as only `prepare` can tell."""
        return None if self._start is None else self.snapshot()

    def prepare(self) -> Snapshot:
        """Where all are in step who came before the lines were counted that were written already.

        The first of them counts for all, which takes its time: the place is that
        from when the first one joined, so what was written since then comes.
        """
        with self._counting:
            if self._start is None:
                for log, sizes in self._uncounted:
                    if sizes is not None:
                        log.skip_to_end(sizes)
                    else:
                        log.skip_to_very_end()
                self._start = self._begin_at_counted()
                self._hub.wake()
            return self._start

    def _begin_at_counted(self) -> Snapshot:
        with self._hub.lock, self._lock:
            for log, _ in self._uncounted:
                if log.path in self._logs:
                    # In place of the one that begins at the first byte, of a run that was over
                    # and of which the hub has heard only since, or that lives again.
                    self._logs[log.path] = log
                elif log.path not in self._ended:
                    continue
                self._places[log.path] = log.place
            self._uncounted.clear()
            return self._snapshot()

    def snapshot(self) -> Snapshot:
        """Where a client is in step from now on."""
        with self._hub.lock, self._lock:
            return self._snapshot()

    def _snapshot(self) -> Snapshot:
        seq = self._first + len(self._blocks)
        known, own = self._hub.known, self.scope.path
        known = {path: known[path] for path in (own,) if path in known} if own else dict(known)
        return Snapshot(seq, dict(self._places), known, self._time_ns, self._id())

    def since(self, seq: int) -> list[Block] | None:
        """Some of the blocks from the `seq`-th on; None when that is not kept any more."""
        with self._lock:
            at = seq - self._first
            if at < 0:
                return None
            found: list[Block] = []
            size = 0
            while at < len(self._blocks) and size < BATCH_BYTES:
                found.append(self._blocks[at])
                size += len(found[-1].data)
                at += 1
            return found

    def cursor_of(self, last_id: str) -> Cursor | None:
        """Where a client is that has got the event of that id; None where it does not tell."""
        if not self.scope.path:
            return cursors.read(last_id)
        place = cursors.place_of(last_id)
        return None if place is None else Cursor({self.key_of(self.scope.path): place}, 0)

    def key_of(self, path: str) -> bytes:
        return cursors.key_of(self._runs_dir, path)

    def reader_of(self, path: str) -> RunLog | None:
        """Who knows where the lines of a run lie."""
        return self._logs.get(path)
