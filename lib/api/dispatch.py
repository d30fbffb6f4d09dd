"""From a request to its answer: who may ask, which handler it is for, and what may go wrong."""

from __future__ import annotations

import errno
import os
import posixpath
import re
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import quote, urlencode

from lib import redact
from lib.api import names, static
from lib.api.console import tell
from lib.api.exchange import Answer, Refusal, Request
from lib.api.route import Route
from lib.api.service import Service
from lib.api.sse import Batches
from lib.errors import LockTimeoutError

METHODS = "GET,POST,DELETE,OPTIONS"
PROJECTS = "/api/projects"
_PLAIN = ("/healthz", "/metrics")  # they refuse in plain text
_SHORT = {  # what the machine has not got just now, or does not let be written
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENFILE,
    errno.EPERM, errno.EIO, errno.ENOTDIR,
}  # fmt: skip
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
# What a page may load: itself.  Its own answers hold nothing that anybody could run.
PAGE_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Node:
    """A part of a path in the tree of all of them."""

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.routes: dict[str, Route] = {}  # by method

    def at(self, part: str) -> _Node:
        if part.startswith("{"):
            self.variable = self.variable or _Node()
            return self.variable
        return self.fixed.setdefault(part, _Node())


class Router:
    """Finds the routes of a path; a fixed part goes before a variable one."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._top = _Node()
        for route in routes:
            node = self._top
            for part in route.path.split("/")[1:]:
                node = node.at(part)
            if route.method in node.routes:
                raise ValueError(f"two routes for {route.method} {route.path}")
            node.routes[route.method] = route

    def find(self, path: str) -> tuple[dict[str, Route], list[str]]:
        """The routes of a path by method, and its variable parts in order; ({}, []) for none."""
        return self._find(self._top, path.split("/")[1:], [])

    def _find(
        self, node: _Node, parts: list[str], values: list[str]
    ) -> tuple[dict[str, Route], list[str]]:
        if not parts:
            return node.routes, values
        first, rest = parts[0], parts[1:]
        if first in node.fixed:
            found = self._find(node.fixed[first], rest, values)
            if found[0]:
                return found
        if first and node.variable is not None:
            return self._find(node.variable, rest, [*values, first])
        return {}, []

    def find_above(self, path: str) -> tuple[dict[str, Route], list[str]]:
        """The task or run whose address a path begins with: what stands behind it says nothing.

        Not for deleting: a misspelt address must not take away what it begins with.
        """
        parts = path.split("/")
        if parts[:3] != ["", "api", "projects"] or parts[4:5] != ["tasks"] or len(parts) < 7:
            return {}, []
        is_run = parts[6] == "runs" and len(parts) > 8
        return self.find("/".join(parts[: 8 if is_run else 6]))


class Application:
    """All of the server but the connections.

    `check` gives the refusal of a request that must not be answered, or None;
    `cors_headers` what a page of another origin needs; `count` is told every
    method and status, and `watch` gets every stream and gives it back.
    """

    def __init__(
        self,
        service: Service,
        routes: Iterable[Route],
        *,
        check: Callable[[Request], Refusal | None] = lambda request: None,
        cors_headers: Callable[[Request], Mapping[str, str]] = lambda request: {},
        count: Callable[[str, int], None] = lambda method, status: None,
        watch: Callable[[Iterable[bytes]], Iterable[bytes]] = lambda stream: stream,
        debug: bool = False,
    ) -> None:
        self.service = service
        self._router = Router(routes)
        self._check = check
        self._cors_headers = cors_headers
        self._count = count
        self._watch = watch
        self._debug = debug

    def answer(self, request: Request) -> Answer:
        """The answer, whatever happens; its headers are complete."""
        request.request_id = request_id(request.header("x-request-id"))
        cors: Mapping[str, str] = {}
        try:
            cors = self._cors_headers(request)
            answer = self._answer(request)
        except Refusal as refusal:
            answer = refusal.answer()
        except LockTimeoutError as error:
            answer = Refusal(503, redact.text(str(error))).answer()
        except Exception as error:  # noqa: BLE001 - the outermost frame: it is told on stderr
            self._tell(request, error)
            answer = _of_fault(error).answer()
        answer.headers.update(cors)
        answer.headers["X-Request-ID"] = request.request_id
        _complete(answer.headers)
        self._count(request.method, answer.status)
        if not isinstance(answer.body, bytes):
            told = _told(answer.body, lambda error: self._tell(request, error))
            answer.body = self._watch(Batches(told, getattr(answer.body, "close", bytes)))
        return answer

    def _answer(self, request: Request) -> Answer:
        if request.method == "OPTIONS":
            return Answer(None, 204)
        refusal = self._check(request)
        if refusal is not None:
            raise refusal
        if "\ufffd" in request.path:
            raise Refusal(400, "the path is not UTF-8")
        clean = clean_path(request.path)
        if clean != request.path:
            query = f"?{urlencode(request.query)}" if request.query else ""
            return static.moved(quote(clean) + query)
        path = request.path
        if path.startswith(PROJECTS + "/"):
            path = path.removesuffix("/")
        routes, values = self._router.find(path)
        if not routes and request.method == "GET":
            routes, values = self._router.find_above(path)
        if routes:
            return self._call(request, routes, values)
        if path.startswith(PROJECTS + "/"):
            raise Refusal(404, "not found")
        return static.answer(request)

    def _call(self, request: Request, routes: Mapping[str, Route], values: list[str]) -> Answer:
        route = routes.get(request.method)
        if route is None:
            return _wrong_method(request.path, ", ".join(sorted({*routes, "OPTIONS"})))
        kinds = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
        for kind, value in zip(kinds, values, strict=True):
            names.check(kind, value)
            request.params[kind] = value
        request.endpoint = route.path
        return route.handler(self.service, request)

    def _tell(self, request: Request, error: BaseException) -> None:
        """One line on stderr, which nothing that a client sent can break or forge."""
        if self._debug:
            traceback.print_exception(error)
        where = f"{request.method} {request.endpoint or request.path}"
        text = f"{request.request_id}: {where}: {type(error).__name__}: {error}"
        tell(text)


def _told(stream: Iterable[bytes], tell: Callable[[BaseException], None]) -> Iterator[bytes]:
    """The stream, which ends where it fails: its head has been sent, so no status can tell it."""
    try:
        yield from stream
    except Exception as error:  # noqa: BLE001 - it is told on stderr
        tell(error)


def _of_fault(error: Exception) -> Refusal:
    if isinstance(error, OSError) and error.errno in _SHORT:
        return Refusal(503, f"it cannot be done now: {error.strerror}")
    return Refusal(500, "internal error")


def request_id(given: str) -> str:
    """The id that the client gave, where it is harmless, else a new one."""
    given = given.strip()
    if _REQUEST_ID.fullmatch(given):
        return given
    return f"req-{time.time_ns()}-{os.urandom(6).hex()}"


def clean_path(path: str) -> str:
    """The path without repeated slashes and without the parts `.` and `..`."""
    if "//" not in path and not {".", ".."} & set(path.split("/")):
        return path
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _complete(headers: dict[str, str]) -> None:
    is_page = headers.get("Content-Type", "").startswith("text/html")
    policy = PAGE_POLICY if is_page else DATA_POLICY
    for name, value in (*HEADERS.items(), ("Content-Security-Policy", policy)):
        headers.setdefault(name, value)


def _wrong_method(path: str, allowed: str) -> Answer:
    if path in _PLAIN:
        return static.wrong_method(allowed)
    answer = Refusal(405, "method not allowed").answer()
    answer.headers["Allow"] = allowed
    return answer
