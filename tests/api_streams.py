"""Streams driven without a server: the service, its hub, and a client that loses its connection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib.api.exchange import Answer, Request
from lib.api.route import Route
from lib.api.service import Service, Settings
from lib.config import Config
from tests.api_server import Event

SECONDS = 30.0


@contextmanager
def service_on(runs_dir: Path, heartbeat_seconds: float = 0.3) -> Iterator[Service]:
    """The service with its hub at work; heartbeats come often, so that no test waits for one."""
    service = Service(str(runs_dir), Config(""), Settings(heartbeat_seconds=heartbeat_seconds))
    service.hub.start()
    try:
        yield service
    finally:
        service.hub.close()


def ask(
    service: Service, routes: Iterable[Route], path: str, *, query: str = "", **headers: str
) -> Answer:
    """The answer to a GET of `path`, whose variable parts are those of the first fitting route."""
    fields = dict(part.partition("=")[::2] for part in query.split("&") if part)
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    request = Request("GET", path, query=fields, headers=names)
    for route in routes:
        wanted, given = route.path.split("/"), path.split("/")
        pairs = list(zip(wanted, given, strict=False))
        if len(wanted) == len(given) and all(w == g or w[:1] == "{" for w, g in pairs):
            request.params = {w[1:-1]: g for w, g in pairs if w[:1] == "{"}
            return route.handler(service, request)
    raise AssertionError(f"no route for {path}")


class Client:
    """Reads a stream; `last_id` is that of the last event that has arrived whole."""

    def __init__(self, answer: Answer) -> None:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        self.body: Any = answer.body
        self.events: list[Event] = []  # without heartbeats and comments
        self.heartbeats = 0
        self.last_id = ""
        self.is_over = False
        self._rest = b""

    def read(self, cut: Callable[[bytes], bytes] = bytes) -> None:
        """One piece of the stream, of which `cut` may leave but a part."""
        try:
            piece = next(self.body)
        except StopIteration:
            self.is_over = True
            return
        assert piece
        self._take(cut(piece))

    def read_until(self, is_enough: Callable[[], object]) -> None:
        limit = time.monotonic() + SECONDS
        while not is_enough():
            assert not self.is_over, "the stream has ended"
            assert time.monotonic() < limit, f"in vain, with {len(self.events)} events"
            self.read()

    def read_to_end(self) -> None:
        while not self.is_over:
            self.read()

    def _take(self, piece: bytes) -> None:
        *whole, self._rest = (self._rest + piece).split(b"\n\n")
        for text in whole:
            event = _event(text.decode())
            if event is None:
                continue
            if event.id:
                self.last_id = event.id
            if event.name == "heartbeat":
                assert event.data == "{}"
                self.heartbeats += 1
            else:
                self.events.append(event)

    @property
    def text(self) -> str:
        """The data of all unnamed events, one behind the other."""
        return "".join(event.data for event in self.events if not event.name)

    def json(self, name: str) -> list[Any]:
        return [json.loads(event.data) for event in self.events if event.name == name]

    def leave(self) -> None:
        self.body.close()


def _event(text: str) -> Event | None:
    fields: dict[str, list[str]] = {"id": [""], "event": [""], "data": []}
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        if name:
            fields[name].append(value.removeprefix(" "))
    if not fields["data"]:
        return None
    return Event(fields["id"][-1], fields["event"][-1], "\n".join(fields["data"]))
