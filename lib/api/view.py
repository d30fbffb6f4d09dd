"""The index of the server, for all its threads: current, locked while it is read, and counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager

from lib import redact
from lib.index import Index
from lib.index_entries import Changes

FRESH_SECONDS = 0.1  # so old may be what an answer tells
REST_SECONDS = 5.0  # how late a change in a task at rest is seen where nothing tells of it
_KEPT_ANSWERS = 64


class View:
    """The runs, tasks, plans and buses of a runs folder.

    `with view.current() as index:` gives an index at most FRESH_SECONDS old,
    which no other thread changes meanwhile: take out what you need, and write
    to no client inside.  `count` grows with each refresh that found a change;
    there were `refreshes`, which took `refresh_seconds` in all.
    """

    def __init__(self, runs_dir: str, bus_path: str = "") -> None:
        self.runs_dir = runs_dir
        self.count = 0
        self.refreshes, self.refresh_seconds = 0, 0.0
        self.lock = threading.RLock()
        self._index = Index(runs_dir, bus_path=bus_path, rest_seconds=REST_SECONDS)
        self._fresh_until = 0.0
        self._answers: dict[Hashable, tuple[tuple[int, int], bytes]] = {}
        self._listeners: list[Callable[[Changes], None]] = []

    @contextmanager
    def current(self, *, now: bool = False) -> Iterator[Index]:
        """The index; with `now` not a moment old, for what may have been made just before."""
        with self.lock:
            if now or time.monotonic() >= self._fresh_until:
                self.refresh()
            yield self._index

    def refresh(self) -> Changes:
        """Take in what has changed, and say what that is."""
        with self.lock:
            began = time.monotonic()
            changes = self._index.refresh()
            ended = time.monotonic()
            self.refreshes += 1
            self.refresh_seconds += ended - began
            self._fresh_until = ended + FRESH_SECONDS
            if changes:
                self.count += 1
                for tell in self._listeners:
                    tell(changes)
            return changes

    def listen(self, tell: Callable[[Changes], None]) -> None:
        """Call `tell` with what every refresh finds, whoever asked for it; under the view's lock."""
        with self.lock:
            self._listeners.append(tell)

    def notice(self, folders: Iterable[str]) -> None:
        """Something has changed in these folders: the next look takes it in."""
        with self.lock:
            for path in folders:
                self._index.notice(path)
            self._fresh_until = 0.0

    def notice_runs(self) -> None:
        """The next look takes in the runs that have come or gone in tasks at rest, too."""
        with self.lock:
            self._index.notice_runs()

    def rest(self, seconds: float) -> None:
        """So late may a change in a task at rest be seen of which nothing tells."""
        with self.lock:
            self._index.rest_seconds = seconds

    def answer(self, key: Hashable, make: Callable[[Index], bytes]) -> bytes:
        """What `make` makes of the index, made again when something has changed since.

        Also when a token has become known that it might show.
        """
        with self.current() as index:
            moment = self.count, redact.added()
            known = self._answers.get(key)
            if known is None or known[0] != moment:
                if len(self._answers) >= _KEPT_ANSWERS:
                    self._answers.clear()
                known = self._answers[key] = (moment, make(index))
            return known[1]
