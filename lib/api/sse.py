"""Server-sent events: how one is written, and what comes around a stream of them.

Source: WHATWG HTML, 9.2 "Server-sent events".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lib.api.exchange import Answer, Request

HEADERS = {"Cache-Control": "no-cache"}
UNBUFFERED = {"X-Accel-Buffering": "no"}  # a proxy in between hands on what comes at once
KIND = "text/event-stream"
HEARTBEAT = b"event: heartbeat\ndata: {}\n\n"


def event(data: str | bytes, name: str = "", id: str = "") -> bytes:  # noqa: A002
    """One event; each line of `data` is a line of its own.

    A carriage return ends a line there, too, so it becomes a line feed.
    """
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    head = (f"id: {_one_line(id)}\n" if id else "") + (
        f"event: {_one_line(name)}\n" if name else ""
    )
    return head.encode("utf-8", "replace") + b"data: " + raw.replace(b"\n", b"\ndata: ") + b"\n\n"


def last_event_id(request: Request) -> str:
    """The id behind which a client goes on: EventSource sends no header at first, so a query does."""
    return (request.header("last-event-id") or request.query.get("last_event_id", "")).strip()


def _one_line(text: str) -> str:
    """A client ignores an id with a NUL in it, and a line break would end the field."""
    return text.translate({10: None, 13: None, 0: None})


class Batches:
    """The bytes of a stream, and what is to be done once when it is over, however it ends.

    Of a generator that was never begun, `close` runs no `finally`.
    """

    def __init__(self, batches: Iterable[bytes], release: Callable[[], object]) -> None:
        self._body = batches
        self._batches = iter(batches)
        self._release: Callable[[], object] | None = release

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._batches)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        close_body = getattr(self._body, "close", None)
        try:
            if close_body is not None:
                close_body()
        finally:
            release, self._release = self._release, None
            if release is not None:
                release()


def answer(
    batches: Iterator[bytes],
    *,
    buffering_header: bool = True,
    release: Callable[[], None] | None = None,
) -> Answer:
    """A stream of events as an answer; `release` is called once when it is over."""
    body = batches if release is None else Batches(batches, release)
    headers = {**HEADERS, **UNBUFFERED} if buffering_header else HEADERS
    return Answer(body, headers=headers, kind=KIND)
