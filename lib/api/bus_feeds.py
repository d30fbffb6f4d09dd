"""What the streams of one bus share: each new message is parsed, redacted and encoded once.

There is no thread for it: the first client that wakes reads for all of them.
Only the newest messages are kept.  Who is further behind reads the files on
its own, so a slow client costs no memory and delays nobody.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from lib import ids, redact
from lib.api import sse
from lib.api.bus_log import Place, Walk
from lib.api.buses import Bus
from lib.api.exchange import encode
from lib.bus_parse import Message

KEPT_BYTES = 1 << 20  # of events, for each bus that somebody follows
MAX_BODY = 256 << 10  # characters of a body that a client is sent


class Item:
    """A message as clients get it; `event` lacks its `id:` line, which may name two buses."""

    __slots__ = ("end", "event", "msg_id", "project_id", "task_id")

    def __init__(self, message: Message) -> None:
        self.end = message.end
        self.msg_id = _id_to_send(message.msg_id)
        self.project_id = message.project_id
        self.task_id = message.task_id
        self.event = sse.event(encode(shape(message)), "message")


def shape(message: Message) -> dict[str, object]:
    """The data of an event, redacted; what is empty is left out, parents are ids."""
    fields: dict[str, object] = {
        "msg_id": message.msg_id,
        "timestamp": _time(message.ts),
        "type": message.type,
        "project_id": message.project_id,
        "task_id": message.task_id,
        "run_id": message.run_id,
        "issue_id": message.issue_id,
        "parents": [str(parent.get("msg_id", "")) for parent in message.parents],
        "links": message.links,
        "meta": message.meta,
    }
    shown = redact.values({name: value for name, value in fields.items() if value})
    assert isinstance(shown, dict)
    body = redact.text(message.body)
    if len(body) > MAX_BODY:
        return {**shown, "body": body[:MAX_BODY], "truncated": True}
    return {**shown, "body": body}


def _time(ts: str) -> str:
    """As it was recorded, in UTC; now, where nobody can read that."""
    nanoseconds = ids.parse_rfc3339(ts)
    is_fit = nanoseconds is not None and ts[10] == "T" and ts.endswith("Z")
    return ts if is_fit else ids.rfc3339(nanoseconds)


def _id_to_send(msg_id: str) -> str:
    """ "" for one that no header could bring back, or that is a secret."""
    is_plain = msg_id.isascii() and msg_id.isprintable() and not set(msg_id) & set(" ;")
    return msg_id if is_plain and len(msg_id) <= 200 and redact.text(msg_id) == msg_id else ""


class _Block:
    """Messages that were read at once: all that stands in one file from `before` to `after`."""

    __slots__ = ("after", "before", "items", "read_ns", "size")

    def __init__(self, before: Place, after: Place, items: list[Item]) -> None:
        self.before = before
        self.after = after
        self.items = items
        self.read_ns = time.time_ns()
        self.size = sum(len(item.event) for item in items)

    def behind(self, place: Place) -> list[Item] | None:
        """The items that a reader at `place` has not had; None when it is not within the block."""
        was_missing = place[0] == self.before[0] == 0 and place[1] <= self.read_ns
        if place == self.before or was_missing:
            return self.items
        start = self.before[1] if self.before[0] == self.after[0] else 0
        if place[0] == self.after[0] and start <= place[1] <= self.after[1]:
            return [item for item in self.items if item.end > place[1]]
        return None


class Feed:
    """The newest messages of one bus."""

    def __init__(self, bus: Bus) -> None:
        self.followers = 0
        self._bus = bus
        self._lock = threading.Lock()
        self._walk: Walk | None = None
        self._blocks: deque[_Block] = deque()
        self._size = 0
        self._count = -1

    def take(self, place: Place, count: int) -> tuple[list[Item], Place] | None:
        """What is new behind `place`, and the place behind that; None where it is not kept.

        `count` is that of the signal of the file: once for each the file is read.
        """
        with self._lock:
            if self._walk is None:
                return None
            if count != self._count:
                self._read(self._walk)
                self._count = count
            return self._behind(place)

    def begin(self, place: Place) -> None:
        """Keep what comes behind that place, if nothing is kept yet: a reader is up to date there."""
        with self._lock:
            if self._walk is None:
                self._walk = Walk(self._bus.path, place, self._bus.is_reachable)

    def _read(self, walk: Walk) -> None:
        is_end = False
        while not is_end:
            before = walk.place
            messages, is_end = walk.take()
            if walk.place[0] == before[0] and walk.place[1] < before[1]:
                self._blocks.clear()  # it was cut: what is behind another place now is not known
                self._size = 0
            if messages:
                self._add(_Block(before, walk.place, [Item(message) for message in messages]))
            elif walk.place != before:
                self._add(_Block(before, walk.place, []))

    def _add(self, block: _Block) -> None:
        self._blocks.append(block)
        self._size += block.size
        while self._size > KEPT_BYTES and len(self._blocks) > 1:
            self._size -= self._blocks.popleft().size

    def _behind(self, place: Place) -> tuple[list[Item], Place] | None:
        assert self._walk is not None
        end = self._walk.place
        if place == end or place[0] == end[0] == 0:
            return [], place
        found: list[Item] | None = None
        for block in self._blocks:
            if found is not None:
                found += block.items
            elif (items := block.behind(place)) is not None:
                found = list(items)
        return None if found is None else (found, end)

    def close(self) -> None:
        with self._lock:
            if self._walk is not None:
                self._walk.close()
                self._walk = None


class Feeds:
    """The feeds of the buses that somebody follows now, by path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}

    def follow(self, bus: Bus) -> Feed:
        with self._lock:
            feed = self._feeds.setdefault(bus.path, Feed(bus))
            feed.followers += 1
            return feed

    def leave(self, bus: Bus) -> None:
        with self._lock:
            feed = self._feeds[bus.path]
            feed.followers -= 1
            if not feed.followers:
                del self._feeds[bus.path]
                feed.close()
