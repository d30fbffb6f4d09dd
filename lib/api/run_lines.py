"""The files of a run by their lines, however large: some of them, the next match, and all."""

from __future__ import annotations

import codecs
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib import files, listing, redact, runs
from lib.api import line_text, lookup, names
from lib.api.exchange import Answer, Refusal, Request
from lib.api.line_index import LineIndex, LineIndexes
from lib.api.line_search import MOST_BYTES, MOST_SECONDS, Search, Wanted
from lib.api.line_text import CUT_CHARACTERS, Extent, Lines
from lib.api.route import FLAG, NUMBER, TEXT, Query, Route, Schema, ref
from lib.api.schemas import TEXTS, or_null, thing
from lib.api.sse import Batches

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.index_entries import RunEntry

# What clients call a file of a run, and what it is called on disk.
ON_DISK: Mapping[str, str] = {
    "stdout": runs.STDOUT,
    "stderr": runs.STDERR,
    "transcript.md": runs.TRANSCRIPT,
    "output.md": runs.OUTPUT,
    "prompt.md": runs.PROMPT,
    "verify.txt": runs.VERIFY,
    "supervisor.log": "supervisor.log",
}
DEFAULT_BYTES, PAGE_BYTES = 256 << 10, 1 << 20
MOST_CHARACTERS = 1000  # of what is looked for
AT_ONCE = 4  # searches; they keep a core busy
WAIT_SECONDS = 10.0
_PLACES = ("offset", "line", "before", "end")
_PIECE_BYTES = 64 << 10
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


class RunLines:
    """What is kept between requests: where lines are, and how many searches are under way."""

    def __init__(self) -> None:
        self.indexes = LineIndexes()
        self._places = threading.BoundedSemaphore(AT_ONCE)

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Refusal 503 while too many others search."""
        if not self._places.acquire(timeout=WAIT_SECONDS):
            raise Refusal(503, "too many searches are under way; ask again later")
        try:
            yield
        finally:
            self._places.release()


class _File:
    """A file of a run that a client asks for, open; it is the caller's to close."""

    def __init__(self, service: Service, request: Request) -> None:
        query = request.query
        entry = lookup.run_of(
            service, request.params["run"], query.get("project_id", ""), query.get("task_id", "")
        )
        self.name, on_disk = lookup.file_of(request, ON_DISK)
        lookup.check_inside(service, entry.path)
        listing.know_tokens([entry.run])
        self.run_id = entry.run.run_id
        self.is_live = _is_live(entry)  # before the look: what is written after it may be more
        self.path = entry.run.file(on_disk)
        try:
            self.fd = files.open_regular(self.path)
        except OSError:
            raise Refusal(404, f"file not found: {self.name}") from None

    def lines(self, service: Service) -> tuple[LineIndex, Extent]:
        """Its lines, counted; Refusal 503 when that takes too long for one request."""
        index = service.lines.indexes.of(self.path, self.fd)
        if not index.count(self.fd):
            raise Refusal(503, "its lines are still being counted; ask again")
        return index, Extent(self.fd, index, is_whole=not self.is_live)


def _is_live(entry: RunEntry) -> bool:
    return entry.is_live or entry.state.status == runs.RUNNING


@contextmanager
def _opened(service: Service, request: Request) -> Iterator[_File]:
    file = _File(service, request)
    try:
        yield file
    finally:
        os.close(file.fd)


# -- some lines


def show_lines(service: Service, request: Request) -> Answer:
    limit = _number(request.query, "limit", DEFAULT_BYTES, least=1)
    if limit > PAGE_BYTES:
        raise Refusal(400, f"limit must be at most {PAGE_BYTES}")
    place, number = _place(request.query)
    with _opened(service, request) as file:
        index, extent = file.lines(service)
        if place == "end":
            lines = line_text.last_lines(file.fd, index, extent, limit)
        else:
            lines = _READERS[place](file.fd, index, extent, number, limit)
    return Answer(_shape(file, extent, lines))


_READERS = {
    "offset": line_text.lines_from,
    "line": line_text.lines_from_number,
    "before": line_text.lines_before,
}


def _place(query: Mapping[str, str]) -> tuple[str, int]:
    """Which lines are asked for; Refusal 400 for what makes no sense."""
    given = [name for name in _PLACES if query.get(name)]
    if len(given) > 1:
        raise Refusal(400, f"name one of {', '.join(_PLACES)}")
    place = given[0] if given else "offset"
    if place != "end":
        return place, _number(query, place, 0, least=1 if place == "line" else 0)
    if not _flag(query, place):
        return "offset", 0
    return place, 0


def _shape(file: _File, extent: Extent, lines: Lines) -> dict[str, object]:
    return {
        "name": file.name,
        "size": extent.size,
        "offset": lines.start,
        "end": lines.end,
        "first_line": lines.first,
        "line_count": extent.count,
        "is_live": file.is_live,
        "lines": lines.texts,
        "cut": lines.cut,
    }


def _number(query: Mapping[str, str], name: str, default: int, *, least: int = 0) -> int:
    text = query.get(name, "")
    number = names.whole_number(text) if text else default
    if number is None or number < least:
        raise Refusal(400, f"{name} must be a whole number from {least} on", **{name: text[:100]})
    return number


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "")
    if text and not (names.is_on(text) or names.is_off(text)):
        raise Refusal(400, f"{name} must be 0 or 1", **{name: text[:100]})
    return names.is_on(text)


# -- the next match


def find_line(service: Service, request: Request) -> Answer:
    query = request.query
    wanted = _wanted(query)
    is_backward = _flag(query, "backward")
    offset = _number(query, "offset", 0)
    with _opened(service, request) as file, service.lines.searching():
        index, extent = file.lines(service)
        search = Search(file.fd, index, extent, wanted)
        if is_backward:
            found = search.backward(offset if query.get("offset") else extent.size)
        else:
            found = search.forward(offset)
    shown = {"line": found.line, "offset": found.offset, "text": found.text} if found else None
    return Answer({"found": shown, "next": search.next_offset})


def _wanted(query: Mapping[str, str]) -> Wanted:
    text, kind = query.get("q", ""), query.get("kind", "")
    if bool(text) == bool(kind):
        raise Refusal(400, "name what is looked for: either q or kind")
    if kind and kind != "error":
        raise Refusal(400, "kind must be error")
    if len(text) > MOST_CHARACTERS or "\n" in text:
        raise Refusal(400, f"q must be one line of at most {MOST_CHARACTERS} characters")
    return Wanted(text)


# -- all of it


def download(service: Service, request: Request) -> Answer:
    file = _File(service, request)
    body = Batches(_redacted(file), lambda: os.close(file.fd))
    shown = _ODD.sub("_", f"{file.run_id}-{file.name}")
    name = shown if "." in file.name else f"{shown}.txt"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Answer(body, headers=headers, kind="text/plain; charset=utf-8")


def _redacted(file: _File) -> Iterator[bytes]:
    """All that stands in it now; of a live run without the line that its writer is still at."""
    stream = redact.Stream()
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    at, size = 0, os.fstat(file.fd).st_size
    while data := os.pread(file.fd, min(_PIECE_BYTES, size - at), at):
        at += len(data)
        if text := stream.feed(decode(data)):
            yield text.encode()
    if not file.is_live and (rest := stream.feed(decode(b"", True)) + stream.finish()):
        yield rest.encode()


# -- as they are described

_REFUSALS: dict[int, tuple[str, Schema | None]] = {
    403: ("A link leads out of the storage.", ref("Error")),
    404: ("There is no such run, or it has no such file.", ref("Error")),
    409: ("Several runs have that id.", ref("Error")),
}
_BAD = ("A parameter makes no sense.", ref("Error"))
_WHICH = (
    Query("name", f"{', '.join(ON_DISK)}; stdout when left out."),
    Query("project_id", "With task_id: of several runs of that id, that of this task."),
    Query("task_id", "See project_id."),
)

ROUTES = (
    Route(
        "GET",
        "/api/v1/runs/{run}/lines",
        show_lines,
        "Some lines of a file of a run, with their numbers.",
        answers={200: ("Whole lines.", ref("RunLines")), 400: _BAD, **_REFUSALS},
        query=(
            *_WHICH,
            Query("offset", "Those from this byte on: from the next start of a line.", NUMBER),
            Query("line", "Those from this line on, the first being 1.", NUMBER),
            Query("before", "The last ones that end at this byte or before it.", NUMBER),
            Query("end", "`1`: the last ones of all. None of these four: from the beginning."),
            Query(
                "limit",
                f"Bytes of the file, {DEFAULT_BYTES} when left out, at most {PAGE_BYTES}; one "
                "line is given in any case.",
                NUMBER,
            ),
        ),
    ),
    Route(
        "GET",
        "/api/v1/runs/{run}/find",
        find_line,
        "The next line of a file of a run that has a text, or that tells of an error.",
        answers={200: ("What was found.", ref("RunFind")), 400: _BAD, **_REFUSALS},
        query=(
            *_WHICH,
            Query("q", f"The text, in any case, at most {MOST_CHARACTERS} characters."),
            Query("kind", "`error`: instead of a text, what tells of an error."),
            Query("offset", "In lines from this byte on; backward, in those before it.", NUMBER),
            Query("backward", "`1`: the last match before offset, or before the end."),
        ),
    ),
    Route(
        "GET",
        "/api/v1/runs/{run}/raw",
        download,
        "A file of a run to keep, whole and of any size; secrets are taken out.",
        answers={200: ("The file.", TEXT), **_REFUSALS},
        query=_WHICH,
        kind="text/plain",
    ),
)

SCHEMAS: dict[str, Schema] = {
    "RunLines": {
        **thing(
            {
                "name": TEXT,
                "size": NUMBER,
                "offset": NUMBER,
                "end": NUMBER,
                "first_line": NUMBER,
                "line_count": NUMBER,
                "is_live": FLAG,
                "lines": TEXTS,
                "cut": {"type": "array", "items": NUMBER},
            }
        ),
        "description": "Lines without their ends, which stand from byte `offset` to `end`; a last "
        "one without an end is among them when the run has ended. `cut` has the places in `lines` "
        f"of those that go on: {CUT_CHARACTERS} characters of a line are shown.",
    },
    "RunFind": {
        **thing(
            {
                "found": or_null(thing({"line": NUMBER, "offset": NUMBER, "text": TEXT})),
                "next": or_null(NUMBER),
            }
        ),
        "description": "`next` is the offset to ask with for the next match. Nothing found and a "
        f"`next`: not all was looked through, as one call ends after {MOST_BYTES >> 20} MiB or "
        f"{MOST_SECONDS:g} s. Neither: there is none.",
    },
}
