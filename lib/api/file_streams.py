"""The files of a run as they grow, for a page that shows them; they end with the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lib import listing, runs
from lib.api import lookup, sse
from lib.api.exchange import Answer, Request
from lib.api.file_tail import Tail, parse_place
from lib.api.route import TEXT, Query, Route, ref

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.index_entries import RunEntry

MOST_BYTES = 8 << 20  # of a file that a client gets which did not ask for all
END_SECONDS = 0.5  # so late at most it is noticed that the run has ended
PEEK_SECONDS = 0.25  # so long the rest of a line is waited for
COMMENT = b":\n\n"  # goes out at once, and tells later whether the client is still there

Encode = Callable[[str, str, str], bytes]  # a piece, the place before it, and that behind it


def stream_file(service: Service, request: Request) -> Answer:
    params = request.params
    entry = lookup.run_of(service, params["run"], params["project"], params["task"])
    _, on_disk = lookup.file_of(request)
    with_ids = request.query.get("resume", "") == "1"
    place = parse_place(sse.last_event_id(request)) if with_ids else None
    growth = Growth(service, entry, on_disk)
    if place is not None:
        growth.tail = growth.tail_from(place)
    elif request.query.get("from") != "start":
        growth.begin_near_end(MOST_BYTES)
    events = growth.events(lambda text, _, behind: sse.event(text, id=behind if with_ids else ""))
    return sse.answer(events, buffering_header=False, release=growth.close)


class Growth:
    """One file of a run for one client, until the run has ended."""

    def __init__(self, service: Service, entry: RunEntry, name: str) -> None:
        self._service = service
        self._path = entry.path
        self._name = name
        lookup.check_inside(service, entry.path)
        listing.know_tokens([entry.run])
        self.file = entry.run.file(name)
        self.tail = self.tail_from((0, 0))
        self._note = ""
        self._signal = service.hub.follow(self.file)

    def tail_from(self, place: tuple[int, int]) -> Tail:
        return Tail(self.file, place, keeps_place=self._name == runs.TRANSCRIPT)

    def begin_near_end(self, most_bytes: int) -> None:
        try:
            left_out = self.tail.begin_near_end(most_bytes)
        except OSError:
            return  # the stream will tell
        if left_out:
            self._note = f"… {left_out} bytes left out: this is the end of a large file …\n"

    def events(self, encode: Encode) -> Iterator[bytes]:
        """A comment at once, then each piece as `encode` makes it, then how the run ended."""
        yield COMMENT
        before = self.tail.place
        try:
            for text in self._pieces():
                if text:
                    yield encode(text, before, self.tail.place)
                    before = self.tail.place
                else:
                    yield COMMENT
        except OSError as error:
            yield sse.event(f"cannot read the file: {error.strerror}", "error")
            return
        if not self._service.hub.closing:
            yield sse.event(self._end(), "done")

    def _pieces(self) -> Iterator[str]:
        """All of the file; "" now and then while nothing comes."""
        if self._note:
            yield self._note
        limit = self._next_comment()
        looked = -1  # the count of the signal at which all was read
        while not self._service.hub.closing:
            count = self._signal.count  # before the look: what comes later is another count
            end = self._end()
            text = self.tail.take() if end or count != looked else ""
            if not text and end:
                if text := self.tail.finish():
                    yield text
                return
            if not text and count != looked:
                looked = count
                if self._signal.wait(count, PEEK_SECONDS) == count:
                    text = self.tail.peek()
            elif not text:
                self._signal.wait(count, END_SECONDS)
            if text or time.monotonic() >= limit:
                yield text
                limit = self._next_comment()

    def _next_comment(self) -> float:
        return time.monotonic() + self._service.settings.heartbeat_seconds

    def _end(self) -> str:
        """`run completed` and the like; "" for a run that has not ended, or not even begun."""
        standing = self._service.hub.known.get(self._path)
        if standing is None:
            with self._service.view.current() as index:
                return "" if self._path in index.runs else "run removed"
        has_ended = not standing.is_live and standing.status != runs.RUNNING
        return f"run {standing.status}" if has_ended else ""

    def close(self) -> None:
        self._service.hub.leave(self.file)


ROUTES = (
    Route(
        "GET",
        "/api/projects/{project}/tasks/{task}/runs/{run}/stream",
        stream_file,
        "A file of a run as it grows: unnamed events whose data, one after the other, are the file.",
        answers={
            200: ("Text in pieces, then `done` with how the run ended, or `error`.", TEXT),
            403: ("A link leads out of the storage.", ref("Error")),
            404: ("There is no such run or file.", ref("Error")),
            409: ("Several runs have that id.", ref("Error")),
        },
        query=(
            Query("name", "stdout (when left out), stderr, prompt, output.md or transcript.md."),
            Query("from", "`start`: all of it, also where it is larger than 8 MiB."),
            Query("resume", "`1`: events have ids, and Last-Event-ID is heeded."),
            Query("last_event_id", "With `resume`, instead of the header."),
        ),
        kind=sse.KIND,
    ),
)
