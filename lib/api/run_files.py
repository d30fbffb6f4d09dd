"""The files of a run as text: what it was told, what it printed, and what it answered.

The original leaves `tail` aside and gives the whole file, and its page shows
that of an ended run as it comes, so ours does not cut at `tail` either.  Only a
file above MAX_BYTES is cut: of that there is the end.
"""

from __future__ import annotations

import os

from lib import files, ids, redact
from lib.api import lookup
from lib.api.exchange import Answer, Refusal, Request, encode
from lib.api.route import Query, Route, ref
from lib.api.service import Service
from lib.api.shapes import Shape

MAX_BYTES = 8 << 20
_PIECE = 1 << 16  # characters


def show_file(service: Service, request: Request) -> Answer:
    params = request.params
    entry = lookup.run_of(service, params["run"], params["project"], params["task"])
    name, on_disk = lookup.file_of(request)
    with service.view.current() as index:
        service.facts.prepare(index)
    return answer(service, entry.run.file(on_disk), name)


def answer(service: Service, path: str, name: str) -> Answer:
    """FileContent of a regular file below the runs folder, as clients know it by `name`.

    Refusal 404 where there is none, 403 where a link on the way leads elsewhere,
    503 while too many ask for large ones.
    """
    lookup.check_inside(service, os.path.dirname(path))
    return Answer(
        service.contents.of((path, name), [path], lambda: encode(_content(path, name)) + b"\n")
    )


def _content(path: str, name: str) -> Shape:
    try:
        fd = files.open_regular(path)
    except OSError:
        raise Refusal(404, f"file not found: {name}") from None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        is_cut = status.st_size > MAX_BYTES
        file.seek(max(0, status.st_size - MAX_BYTES))
        text = file.read(MAX_BYTES).decode("utf-8", "replace")
    shape: Shape = {
        "content": _redacted(redact.behind_gap(text) if is_cut else text),
        "modified": ids.rfc3339(status.st_mtime_ns),
        "name": name,
        "size_bytes": status.st_size,
    }
    return {**shape, "truncated": True} if is_cut else shape


def _redacted(text: str) -> str:
    """In pieces: while one look at megabytes lasts, no other thread does anything."""
    stream = redact.Stream()
    pieces = [stream.feed(text[at : at + _PIECE]) for at in range(0, len(text), _PIECE)]
    return "".join([*pieces, stream.finish()])


ROUTES = (
    Route(
        "GET",
        "/api/projects/{project}/tasks/{task}/runs/{run}/file",
        show_file,
        "A file of a run as text; of one above 8 MiB the end, with `truncated`.",
        query=(
            Query("name", "stdout (when left out), stderr, prompt, output.md or transcript.md."),
            Query("tail", "Has no effect, as with the original: the page sends it."),
        ),
        answers={
            200: ("The file.", ref("FileContent")),
            403: ("A link leads out of the storage.", ref("Error")),
            404: ("There is no such run or file.", ref("Error")),
            409: ("Several runs have that id.", ref("Error")),
        },
    ),
)
