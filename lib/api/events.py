"""The one stream that the page listens to: what has changed, and what live runs say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lib.api import sse
from lib.api.event_feed import EventFeed
from lib.api.exchange import Answer, Request
from lib.api.route import TEXT, Route

if TYPE_CHECKING:
    from lib.api.service import Service

_NAME = "events"  # of the feed in the hub


def stream_events(service: Service, request: Request) -> Answer:
    hub = service.hub
    feed = hub.join(_NAME, lambda index: EventFeed(service.runs_dir, service.facts, index))
    return sse.answer(_events(service, feed), release=lambda: hub.part(_NAME))


def _events(service: Service, feed: EventFeed) -> Iterator[bytes]:
    """The stream for one client, until the hub closes; a heartbeat comes first, and then regularly.

    From before the head is out: who has seen that is told of what happens afterwards.
    """
    lines, place = feed.begin()
    yield sse.HEARTBEAT + lines
    beat = time.monotonic() + service.settings.heartbeat_seconds
    while not service.hub.closing:
        seen = feed.signal.count
        data, place = feed.since(place)
        if data:
            yield data
        if (left := beat - time.monotonic()) <= 0:
            yield sse.HEARTBEAT
            beat = time.monotonic() + service.settings.heartbeat_seconds
        elif not data:
            feed.signal.wait(seen, left)


_ABOUT = (
    "Events `change`: which runs, plans, buses and projects have changed since the last one, at "
    "most 100 of each (with `more`: others may have, too); `lines`: by run_id the last whole line of "
    "each live run that has written, and the sizes of its files, once for all of them at the "
    "beginning; and heartbeats. A change comes at most every 200 ms, lines every 250 ms. Nothing is "
    "sent again: who connects anew asks anew for what it shows."
)

ROUTES = (
    Route(
        "GET",
        "/api/v1/events",
        stream_events,
        "What has changed, as it happens, and the last lines of the runs that live.",
        answers={200: (_ABOUT, TEXT)},
        kind=sse.KIND,
    ),
)
