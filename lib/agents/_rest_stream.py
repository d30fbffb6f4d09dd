"""Server-sent events out of bytes."""

from __future__ import annotations

from lib.errors import UserError

MAX_EVENT_BYTES = 8 << 20


class AnswerError(Exception):
    """What the service sent is no answer: why, in a few words, and of which class that is."""

    def __init__(self, message: str, kind: str = "overload") -> None:
        super().__init__(message)
        self.kind = kind


class AskError(UserError):
    """No answer, and why: a sentence, its error class, an HTTP status, when a limit ends."""

    def __init__(
        self,
        message: str,
        kind: str,
        *,
        status: int | None = None,
        reset: float | None = None,
        exit_code: int | None = None,
    ) -> None:
        super().__init__(message, exit_code)
        self.kind = kind
        self.status = status
        self.reset = reset


class EventStream:
    """The data of server-sent events, out of bytes that are cut anywhere.

    Source: HTML Living Standard, 9.2.6, but for two things: a lone CR ends no line,
    and an event at the very end counts without the empty line behind it.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of the line that has not ended
        self._data: list[bytes] = []
        self._size = 0  # of both

    def feed(self, piece: bytes) -> list[str]:
        """The events that end in this piece."""
        found: list[str] = []
        first, *others = piece.split(b"\n")
        self._add(first)
        for part in others:
            self._end_line(found)
            self._add(part)
        return found

    def finish(self) -> list[str]:
        """The event that the end of the stream ends, if any."""
        found: list[str] = []
        self._end_line(found)
        self._end_event(found)
        return found

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > MAX_EVENT_BYTES:
            raise AnswerError(f"it sent an event above {MAX_EVENT_BYTES >> 20} MiB")
        if part:
            self._parts.append(part)

    def _end_line(self, found: list[str]) -> None:
        line = b"".join(self._parts).removesuffix(b"\r")
        self._parts.clear()
        if not line:
            self._end_event(found)
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        self._size = sum(map(len, self._data))

    def _end_event(self, found: list[str]) -> None:
        if self._data:
            found.append(b"\n".join(self._data).decode("utf-8", "replace"))
            self._data.clear()
