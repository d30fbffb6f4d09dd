"""The transcript of a run in pages, and as it grows: a long one is never sent whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lib import files, ids, listing, runs
from lib.api import lookup, names, sse
from lib.api.exchange import Answer, Refusal, Request, encode
from lib.api.file_streams import Growth
from lib.api.file_tail import Page, parse_place
from lib.api.route import FLAG, NUMBER, TEXT, Query, Route, Schema, ref

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.index_entries import RunEntry

MOST_BYTES = 1 << 20  # of a page
LEAST_BYTES = 16 << 10  # longer than a line of a transcript
_NAME = "transcript.md"


def show_transcript(service: Service, request: Request) -> Answer:
    entry = _run_of(service, request)
    lookup.check_inside(service, entry.path)
    listing.know_tokens([entry.run])
    offset, limit = _number(request, "offset", 0), _number(request, "limit", MOST_BYTES)
    has_ended = not entry.is_live and entry.state.status != runs.RUNNING  # before the look
    try:
        fd = files.open_regular(entry.run.file(runs.TRANSCRIPT))
    except OSError:
        raise Refusal(404, f"file not found: {_NAME}") from None
    try:
        modified = ids.rfc3339(os.fstat(fd).st_mtime_ns)
        page = Page(fd, offset, min(max(limit, LEAST_BYTES), MOST_BYTES), is_whole=has_ended)
    finally:
        os.close(fd)
    return Answer(
        {
            "name": _NAME,
            "content": page.text,
            "modified": modified,
            "size_bytes": page.size,
            "offset": page.start,
            "next_offset": page.end,
            "complete": has_ended and page.end >= page.size,
        }
    )


def _run_of(service: Service, request: Request) -> RunEntry:
    project, task = request.query.get("project_id", ""), request.query.get("task_id", "")
    return lookup.run_of(service, request.params["run"], project, task)


def _number(request: Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    number = names.whole_number(text) if text else default
    if number is None:
        raise Refusal(400, f"{name} must be a whole number", **{name: text[:100]})
    return number


def stream_transcript(service: Service, request: Request) -> Answer:
    entry = _run_of(service, request)
    growth = Growth(service, entry, runs.TRANSCRIPT)
    growth.tail = growth.tail_from(parse_place(sse.last_event_id(request)) or (0, 0))
    return sse.answer(growth.events(_text_event), release=growth.close)


def _text_event(text: str, before: str, behind: str) -> bytes:
    data = {
        "text": text,
        "offset": int(before.partition("+")[0]),
        "next_offset": int(behind.partition("+")[0]),
    }
    return sse.event(encode(data), "text", behind)


_REFUSALS: dict[int, tuple[str, Schema | None]] = {
    403: ("A link leads out of the storage.", ref("Error")),
    404: ("There is no such run, or it has no transcript.", ref("Error")),
    409: ("Several runs have that id.", ref("Error")),
}

_WHICH = (
    Query("project_id", "With task_id: of several runs of that id, that of this task."),
    Query("task_id", "See project_id."),
)

ROUTES = (
    Route(
        "GET",
        "/api/v1/runs/{run}/transcript",
        show_transcript,
        "Whole lines of the transcript of a run.",
        answers={
            200: ("A part of it.", ref("TranscriptPage")),
            400: ("A number that is none.", ref("Error")),
            **_REFUSALS,
        },
        query=(
            *_WHICH,
            Query("offset", "Bytes of the file before it; from the end if negative.", NUMBER),
            Query("limit", "Bytes at most, from 16 KiB to 1 MiB, which is the default.", NUMBER),
        ),
    ),
    Route(
        "GET",
        "/api/v1/runs/{run}/transcript/stream",
        stream_transcript,
        "The transcript of a run as it grows, from its beginning or from Last-Event-ID on.",
        answers={
            200: (
                "Events `text` with a TranscriptPiece, whose id leads on behind it; `done` with "
                "how the run ended, or `error`.",
                TEXT,
            ),
            **_REFUSALS,
        },
        query=(
            *_WHICH,
            Query("last_event_id", "Instead of the header; a next_offset of a page does, too."),
        ),
        kind=sse.KIND,
    ),
)

_PLACES: dict[str, Schema] = {"offset": NUMBER, "next_offset": NUMBER}
SCHEMAS: dict[str, Schema] = {
    "TranscriptPage": {
        "type": "object",
        "required": [
            "name", "content", "modified", "size_bytes", "offset", "next_offset", "complete",
        ],
        "properties": {
            **dict.fromkeys(("name", "content", "modified"), TEXT),
            "size_bytes": NUMBER,
            **_PLACES,
            "complete": FLAG,
        },
    },
    "TranscriptPiece": {
        "type": "object",
        "required": ["text", "offset", "next_offset"],
        "properties": {"text": TEXT, **_PLACES},
    },
}  # fmt: skip
