"""The streams of what agents write: of one run, of the runs of a task, and of all runs."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from lib.api import cursors, lookup, sse
from lib.api.cursors import Cursor
from lib.api.exchange import Answer, Refusal, Request
from lib.api.feeds import Feed, Scope, Snapshot, status_event
from lib.api.hub import end_of
from lib.api.route import TEXT, Query, Route, ref
from lib.api.run_logs import START, Place, RunLog

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.index import Index

MOST_STATUSES = 200  # of runs that are over, told when a client comes


def stream_run(service: Service, request: Request) -> Answer:
    entry = lookup.run_of(service, request.params["run"])
    return _answer(service, request, Scope(path=entry.path))


def stream_task(service: Service, request: Request) -> Answer:
    key = (request.params["project"], request.params["task"])
    with service.view.current(now=True) as index:
        is_known = key in index.tasks or _is_folder(os.path.join(service.runs_dir, *key))
    if not is_known:
        raise Refusal(404, "task not found")
    return _answer(service, request, Scope(key=key))


def stream_all(service: Service, request: Request) -> Answer:
    return _answer(service, request, Scope())


def _is_folder(path: str) -> bool:
    parent = os.path.dirname(path)
    return os.path.isdir(path) and not os.path.islink(path) and not os.path.islink(parent)


def _answer(service: Service, request: Request, scope: Scope) -> Answer:
    hub = service.hub
    feed = hub.join(scope, lambda index: Feed(hub, service.runs_dir, scope, index))
    most = service.settings.max_clients_per_run
    if scope.path and feed.clients > most:
        hub.part(scope)
        raise Refusal(429, f"too many clients follow this run: at most {most} may")
    client = Client(service, feed, sse.last_event_id(request))
    return sse.answer(client.events(), release=lambda: hub.part(scope))


class Client:
    """One that follows a feed, behind the event of `last_id`; "": behind all that is written."""

    def __init__(self, service: Service, feed: Feed, last_id: str) -> None:
        self._service = service
        self._feed = feed
        self._last_id = last_id

    def events(self) -> Iterator[bytes]:
        """The stream, until the hub closes; a heartbeat comes first, and brings the headers along."""
        feed, hub = self._feed, self._service.hub
        # From before the head is out: who has seen that gets whatever is written afterwards.
        start = feed.start()
        yield sse.HEARTBEAT
        seq = yield from self._catch_up(start or feed.prepare())
        del start  # it knows of all runs
        while not hub.closing:
            seen = feed.signal.count
            blocks = feed.since(seq)
            if blocks is None:
                seq = yield from self._catch_up(feed.snapshot())
            elif blocks:
                seq += len(blocks)
                self._last_id = blocks[-1].last_id
                yield b"".join([block.data for block in blocks])
            elif feed.signal.wait(seen, self._service.settings.heartbeat_seconds) == seen:
                yield sse.HEARTBEAT

    def _catch_up(self, snapshot: Snapshot) -> Generator[bytes, None, int]:
        """How all runs stand, and what is missing up to the snapshot; the next block after that."""
        cursor = self._feed.cursor_of(self._last_id) if self._last_id else None
        missing = _Missing(self._service, self._feed, cursor, snapshot)
        if statuses := b"".join(missing.statuses()):
            yield statuses
        if cursor is None:
            # Else one that is cut off before the first line would begin at the end again.
            yield sse.event("{}", "heartbeat", snapshot.last_id)
        else:
            yield from missing.of_ended()
            yield from missing.of_others()
        self._last_id = snapshot.last_id
        return snapshot.seq


class _Missing:
    """What a client has not got of what was written before a snapshot.

    First the runs that are over, by when they ended, then those that the feed
    reads on.  At each event the id tells truly what the client has got.
    """

    def __init__(
        self, service: Service, feed: Feed, cursor: Cursor | None, snapshot: Snapshot
    ) -> None:
        self._feed = feed
        self._snapshot = snapshot
        self._cursor = Cursor(dict(cursor.places), cursor.time_ns) if cursor else None
        with service.view.current() as index:
            self._keys = {path: index.key_of(path) for path in snapshot.places}
            self._ended = self._ended_runs(index)
            self._shown = self._shown_runs(index)

    def _ended_runs(self, index: Index) -> list[tuple[bool, int, str]]:
        """(is new, when, path) of runs that are over and of which something may be missing."""
        cursor, found = self._cursor, []
        if cursor is None:
            return []
        for entry in self._feed.scope.entries(index):
            path = entry.path
            known = self._snapshot.known.get(path)
            if known is None or not known.is_over or path in self._snapshot.places:
                continue
            key = self._feed.key_of(path)
            ended_ns = end_of(entry)
            if not cursor.has_whole(key, ended_ns):
                found.append((key not in cursor.places, ended_ns, path))
                self._keys[path] = index.key_of(path)
        return sorted(found)

    def _shown_runs(self, index: Index) -> list[str]:
        """Live runs and the newest others, the oldest first, but for those with missing lines."""
        late = self._late = {path for _, _, path in self._ended} | self._late_places()
        entries = self._feed.scope.entries(index)
        if len(entries) > MOST_STATUSES:
            if self._feed.scope == Scope():
                entries = [*index.newest(MOST_STATUSES), *index.live()]
            else:
                live = [entry for entry in entries if entry.is_live]
                entries = [*entries[:MOST_STATUSES], *live]
        entries = sorted(dict.fromkeys(entries), key=lambda entry: entry.started_ns)
        shown = [e.path for e in entries if e.path in self._snapshot.known and e.path not in late]
        self._keys |= {path: index.key_of(path) for path in shown}
        return shown

    def _late_places(self) -> set[str]:
        """Of the places in the snapshot those of runs that are over, with lines that are missing."""
        known, cursor = self._snapshot.known, self._cursor
        return {
            path
            for path, place in self._snapshot.places.items()
            if cursor is not None and path in known and known[path].is_over
            and cursor.places.get(self._feed.key_of(path), START) != place
        }  # fmt: skip

    def _status(self, path: str) -> bytes:
        return status_event(path, self._keys[path], self._snapshot.known[path])

    def statuses(self) -> list[bytes]:
        return [self._status(path) for path in self._shown]

    def of_ended(self) -> Iterator[bytes]:
        """The rest of each run that is over, and its status."""
        cursor = self._cursor
        assert cursor is not None
        for path in self._snapshot.places:
            cursor.places.setdefault(self._feed.key_of(path), START)
        done: dict[bytes, int] = {}
        for _, ended_ns, path in self._ended:
            yield from self._rest(path, None)
            yield self._status(path)
            done[self._feed.key_of(path)] = ended_ns
            # What ended later is to be sent yet, should the client be cut off before that.
            late_ns = min(ended_ns + cursors.MARGIN_NS, self._snapshot.time_ns)
            cursor.time_ns = max(cursor.time_ns, late_ns)
            self._forget_done(cursor, done)
        cursor.time_ns = max(cursor.time_ns, self._snapshot.time_ns)
        self._forget_done(cursor, done)

    def _forget_done(self, cursor: Cursor, done: dict[bytes, int]) -> None:
        """The time tells of these that the client has them."""
        for key, ended_ns in list(done.items()):
            if ended_ns < cursor.time_ns - cursors.MARGIN_NS:
                del done[key]
                cursor.places.pop(key, None)

    def of_others(self) -> Iterator[bytes]:
        """The rest of each run that the feed reads on, as far as it has read it."""
        for path, place in self._snapshot.places.items():
            yield from self._rest(path, place)
            if path in self._late:
                yield self._status(path)

    def _rest(self, path: str, until: Place | None) -> Iterator[bytes]:
        cursor, key = self._cursor, self._feed.key_of(path)
        assert cursor is not None
        place = cursor.places.get(key, START)
        if place == until:
            return
        log = RunLog(path, *self._keys[path])
        log.start_at(place, self._feed.reader_of(path))
        yield from log.rest("" if self._feed.scope.path else cursor.suffix(key), until)
        cursor.places[key] = log.place if until is None else until


_ABOUT = (
    "Events `log`, one for each line, with an id, and `status` when a run begins, changes or ends. "
    "Without a last id it begins with what is written from now on; with one nothing is left out "
    "and nothing comes twice, also where the server has started anew since."
)
_ONE = "`s=LINES;e=LINES`: so many lines of stdout and of stderr the client has; s=0;e=0 for none."
_MANY = "An id of this stream: it tells the places in all runs."


def _cursor(about: str) -> Query:
    return Query("last_event_id", f"As the header Last-Event-ID. {about}")


ROUTES = (
    Route(
        "GET",
        "/api/v1/runs/stream/all",
        stream_all,
        "The lines of all runs that live, and how runs stand.",
        answers={200: (_ABOUT, TEXT)},
        query=(_cursor(_MANY),),
        kind=sse.KIND,
    ),
    Route(
        "GET",
        "/api/v1/runs/{run}/stream",
        stream_run,
        "The lines of a run, and how it stands.",
        answers={
            200: (_ABOUT, TEXT),
            404: ("There is no such run.", ref("Error")),
            409: ("Several runs have that id.", ref("Error")),
            429: ("Too many clients follow this run.", ref("Error")),
        },
        query=(_cursor(_ONE),),
        kind=sse.KIND,
    ),
    Route(
        "GET",
        "/api/projects/{project}/tasks/{task}/runs/stream",
        stream_task,
        "The lines of the runs of a task that live, and how its runs stand.",
        answers={200: (_ABOUT, TEXT), 404: ("There is no such task.", ref("Error"))},
        query=(_cursor(_MANY),),
        kind=sse.KIND,
    ),
)
