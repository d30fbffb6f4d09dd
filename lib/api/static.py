"""The files of the page: what lies in web/static, and nothing else."""

from __future__ import annotations

import html
import os
import time
from email.utils import formatdate, parsedate_to_datetime

from lib import files, paths
from lib.api.exchange import Answer, Request

FOLDER = os.path.join(paths.TOOLKIT, "web", "static")
INDEX = "index.html"
# A file with another ending is not served: an editor's backup, a map of the source.
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_MAX_BYTES = 16 << 20


def answer(request: Request, folder: str = FOLDER) -> Answer:
    """The file that the path of the request names, at / as at /ui/; 404 in plain text."""
    path = request.path
    if path == "/ui":
        return moved("/ui/")
    if path.endswith("/" + INDEX):
        return moved("./")
    name = path.removeprefix("/ui/") if path.startswith("/ui/") else path.removeprefix("/")
    found = _read(folder, name or INDEX)
    if found is None:
        return not_found()
    if request.method not in ("GET", "HEAD"):
        return wrong_method("GET, HEAD")
    data, kind, changed = found
    headers = {"Last-Modified": formatdate(changed, usegmt=True), "Cache-Control": "no-cache"}
    if _is_known(request.header("if-modified-since"), changed):
        return Answer(b"", 304, headers, kind=kind)
    return Answer(data, headers=headers, kind=kind)


def moved(location: str) -> Answer:
    text = f'<a href="{html.escape(location)}">Moved Permanently</a>.\n\n'
    headers = {"Location": location}
    return Answer(text.encode(), 301, headers, kind="text/html; charset=utf-8")


def not_found() -> Answer:
    return Answer(b"404 page not found\n", 404, kind="text/plain; charset=utf-8")


def wrong_method(allowed: str) -> Answer:
    headers = {"Allow": allowed}
    return Answer(b"method not allowed\n", 405, headers, kind="text/plain; charset=utf-8")


def _read(folder: str, name: str) -> tuple[bytes, str, int] | None:
    """(content, type, seconds since 1970 of its change) of a file below `folder`."""
    kind = KINDS.get(os.path.splitext(name)[1])
    if kind is None or "\0" in name or any(part[:1] in ("", ".") for part in name.split("/")):
        return None
    path = os.path.join(folder, name)
    try:
        if os.path.realpath(path) != os.path.join(os.path.realpath(folder), name):
            return None  # a link on the way may lead anywhere
        data = files.read_regular(path, _MAX_BYTES)
        return data, kind, int(os.stat(path).st_mtime)
    except (OSError, UnicodeError):
        return None


def _is_known(since: str, changed: int) -> bool:
    """Whether the client has what was changed then; a date of the future tells nothing."""
    try:
        return changed <= parsedate_to_datetime(since).timestamp() <= time.time() + 1
    except (ValueError, TypeError, OverflowError):
        return False
