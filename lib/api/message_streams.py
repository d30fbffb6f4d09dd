"""Streams of messages: those of a project or of a task, from any message on, without an end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from heapq import merge
from typing import TYPE_CHECKING

from lib import ids
from lib.api import bus_log, names, sse
from lib.api.bus_feeds import Feed, Item
from lib.api.bus_log import Place, Walk
from lib.api.buses import Bus, buses_of
from lib.api.exchange import Answer, Refusal, Request
from lib.api.route import FLAG, TEXT, Query, Route, Schema, ref
from lib.bus_parse import Message

if TYPE_CHECKING:
    from lib.api.service import Service

NEWEST = 20  # messages that a client gets when it does not say where to go on
PAUSE_SECONDS = 0.1  # in which one of two buses is looked at while the other is waited for
_SEPARATOR = ";"  # between the ids of two buses


def _stream_by_query(service: Service, request: Request) -> Answer:
    project, task = request.query.get("project_id", ""), request.query.get("task_id", "")
    if not project.strip():
        raise Refusal(400, "project_id is required")
    names.check("project", project)
    return _answer(service, request, project, names.check("task", task) if task.strip() else "")


def _stream(service: Service, request: Request) -> Answer:
    return _answer(service, request, request.params["project"], request.params.get("task", ""))


def _answer(service: Service, request: Request, project: str, task: str) -> Answer:
    stream = Stream(service, project, task)
    return sse.answer(stream.events(sse.last_event_id(request)), release=stream.close)


class Track:
    """One of the buses of a stream: how far its client is."""

    def __init__(self, service: Service, bus: Bus) -> None:
        self.bus = bus
        self.place: Place = bus_log.nowhere()
        self.last_id = ""  # of the last message that was seen, meant or not
        self.seen = 0
        self._newest: list[Message] = []
        self._service = service
        self._walk: Walk | None = None
        self._feed: Feed = service.bus_feeds.follow(bus)
        self.signal = service.hub.follow(bus.path)

    def begin_with_newest(self, count: int) -> list[Message]:
        """The last messages that are meant; the track goes on behind them."""
        if not self.bus.is_reachable():
            return []
        self._newest, self.place = bus_log.newest(self.bus.path, count, self.bus.admits)
        return [message for message in self._newest if self.bus.admits(message)][-count:]

    def stand_before(self, message: Message | None) -> None:
        """Until it is sent that one of the newest comes next; None: all of them are left out."""
        at = len(self._newest) if message is None else self._newest.index(message)
        self.last_id = self._newest[at - 1].msg_id if at else ""
        self._newest = []

    def begin_behind(self, msg_ids: list[str]) -> bool:
        """Go on behind one of these messages; False when none of them is in the bus."""
        if not self.bus.is_reachable():
            return False
        for msg_id in msg_ids:
            place = bus_log.place_behind(self.bus.path, msg_id)
            if place is not None:
                self.place, self.last_id = place, msg_id
                return True
        return False

    def begin_newer_than(self, msg_id: str) -> None:
        if self.bus.is_reachable():
            self.place, self.last_id = bus_log.newer_than(self.bus.path, msg_id)

    def take(self) -> tuple[list[Item], bool]:
        """Some of what is new, meant or not, and whether there is no more for now."""
        self.seen = self.signal.count  # before the look: what comes later is another count
        kept = self._feed.take(self.place, self.seen)
        if kept is not None:
            items, self.place = kept
            self._end_walk()
            return items, True
        if self._walk is None:
            self._walk = Walk(self.bus.path, self.place, self.bus.is_reachable)
        messages, is_end = self._walk.take()
        self.place = self._walk.place
        if is_end:
            self._feed.begin(self.place)
        return [Item(message) for message in messages], is_end

    def _end_walk(self) -> None:
        if self._walk is not None:
            self._walk.close()
            self._walk = None

    def close(self) -> None:
        self._end_walk()
        self._service.hub.leave(self.bus.path)
        self._service.bus_feeds.leave(self.bus)


class Stream:
    """The messages of a project or task, for one client.

    The id of an event is that of its message.  Where two buses have messages
    for it, the id of the last one from the other bus stands behind it, so
    that a client can go on without gaps and repeats in both.
    """

    def __init__(self, service: Service, project: str, task: str) -> None:
        self._service = service
        self._scope = (project, task)
        self._began = time.time()
        self._learn_tokens()
        self._tracks = [Track(service, bus) for bus in buses_of(service, project, task)]

    def events(self, cursor: str) -> Iterator[bytes]:
        """Bytes of whole events: a heartbeat at once, then messages as they come."""
        yield sse.HEARTBEAT
        if first := self._begin([part for part in cursor.split(_SEPARATOR)[:2] if part]):
            yield first
        while not self._service.hub.closing:
            has_more = False
            for track in self._tracks:
                items, is_end = track.take()
                has_more = has_more or not is_end
                if data := self._encode(track, items):
                    yield data
            if not has_more and not self._wait():
                self._learn_tokens()
                self._look_for_root_bus()
                yield sse.HEARTBEAT

    def _learn_tokens(self) -> None:
        """What the runs were started with must not be shown, whoever posts it."""
        with self._service.view.current() as index:
            self._service.facts.prepare(index)

    def _begin(self, msg_ids: list[str]) -> bytes:
        if msg_ids:
            known = [track.begin_behind(msg_ids) for track in self._tracks]
            if any(known):
                for track, is_known in zip(self._tracks, known, strict=True):
                    if not is_known:
                        track.begin_newer_than(msg_ids[0])
                return b""
        return self._newest()

    def _newest(self) -> bytes:
        parts = [
            [(ids.parse_rfc3339(message.ts) or 0, track, message) for message in found]
            for track in self._tracks
            for found in [track.begin_with_newest(NEWEST)]
        ]
        chosen = list(merge(*parts, key=lambda entry: entry[0]))[-NEWEST:]
        for track in self._tracks:
            track.stand_before(next((m for _, t, m in chosen if t is track), None))
        return b"".join([self._encode(track, [Item(m)]) for _, track, m in chosen])

    def _encode(self, track: Track, items: list[Item]) -> bytes:
        others = [_SEPARATOR + t.last_id for t in self._tracks if t is not track and t.last_id]
        rest = "".join(others)
        parts: list[bytes] = []
        for item in items:
            track.last_id = item.msg_id or track.last_id
            if track.bus.admits(item):
                if item.msg_id:
                    parts.append(f"id: {item.msg_id}{rest}\n".encode())
                parts.append(item.event)
        return b"".join(parts)

    def _wait(self) -> bool:
        """True as soon as one of the buses may have something new, False after a while."""
        limit = time.monotonic() + self._service.settings.heartbeat_seconds
        while (left := limit - time.monotonic()) > 0 and not self._service.hub.closing:
            pause = left if len(self._tracks) == 1 else min(left, PAUSE_SECONDS)
            self._tracks[0].signal.wait(self._tracks[0].seen, pause)
            if any(track.signal.count != track.seen for track in self._tracks):
                return True
        return False

    def _look_for_root_bus(self) -> None:
        """Flat runs may have begun to report there since the client came."""
        if len(self._tracks) > 1:
            return
        for bus in buses_of(self._service, *self._scope)[1:]:
            self._tracks.append(Track(self._service, bus))
            self._tracks[-1].begin_newer_than(f"MSG-{ids.stamp(self._began)}")

    def close(self) -> None:
        for track in self._tracks:
            track.close()
        self._tracks.clear()


_LAST_EVENT_ID = Query(
    "last_event_id",
    "The id of the last event that was received, for clients that cannot send the header "
    "Last-Event-ID: all messages behind it follow.",
)
_ANSWERS: dict[int, tuple[str, Schema | None]] = {
    200: ("Events `message` with a MessageEvent, their id, and heartbeats.", TEXT)
}
_ABOUT = "The last 20 messages, or those behind Last-Event-ID, then new ones as they come; without an end."

ROUTES = (
    Route(
        "GET",
        "/api/v1/messages/stream",
        _stream_by_query,
        _ABOUT,
        answers={**_ANSWERS, 400: ("No project was named.", ref("Error"))},
        query=[
            Query("project_id", "The project.", required=True),
            Query("task_id", "The task; without it the bus of the project."),
            _LAST_EVENT_ID,
        ],
        kind=sse.KIND,
    ),
    Route(
        "GET",
        "/api/projects/{project}/messages/stream",
        _stream,
        _ABOUT,
        answers=_ANSWERS,
        query=[_LAST_EVENT_ID],
        kind=sse.KIND,
    ),
    Route(
        "GET",
        "/api/projects/{project}/tasks/{task}/messages/stream",
        _stream,
        _ABOUT,
        answers=_ANSWERS,
        query=[_LAST_EVENT_ID],
        kind=sse.KIND,
    ),
)

_TEXTS: Schema = {"type": "array", "items": TEXT}
SCHEMAS: dict[str, Schema] = {
    "MessageEvent": {
        "type": "object",
        "required": ["msg_id", "timestamp", "body"],
        "properties": {
            **dict.fromkeys(("msg_id", "timestamp", "type", "project_id", "task_id"), TEXT),
            **dict.fromkeys(("run_id", "issue_id", "body"), TEXT),
            "parents": _TEXTS,
            "links": {"type": "array", "items": {"type": "object"}},
            "meta": {"type": "object", "additionalProperties": TEXT},
            "truncated": FLAG,
        },
    }
}
