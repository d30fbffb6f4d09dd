"""The server without its connections: a request goes in, its answer comes out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lib.api import routes
from lib.api.dispatch import Application
from lib.api.exchange import Answer
from lib.api.route import Route
from lib.api.service import Service, Settings
from lib.api.wsgi import request_of
from lib.config import Config


class Reply:
    """An answer as a whole; header names in lower case."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.headers.items()}
        assert self.headers["content-type"] != "text/event-stream", (
            "it has no end, and cannot be read as a whole"
        )
        self.body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class App:
    """The handlers on a runs folder; nothing listens, and no thread runs."""

    def __init__(self, runs_dir: Path, some_routes: Iterable[Route] = routes.ROUTES) -> None:
        self.service = Service(str(runs_dir), Config(""), Settings())
        self._application = Application(self.service, some_routes, debug=True)

    def get(self, address: str, **headers: str) -> Reply:
        return self.send("GET", address, **headers)

    def send(self, method: str, address: str, **headers: str) -> Reply:
        path, _, query = address.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "QUERY_STRING": query,
            **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
        }
        raw_path = unquote(path, "latin-1")
        return Reply(self._application.answer(request_of(environ, raw_path)))

    def ok(self, address: str) -> Any:
        """The JSON of an answer that must be there."""
        reply = self.get(address)
        assert reply.status == 200, (address, reply.status, reply.body[:500])
        return reply.json


DESCRIPTION: dict[str, Any] = json.loads(routes.description())


def faults(address: str, reply: Reply) -> list[str]:
    """Where the answer to a GET is not as openapi.json describes it."""
    path = address.partition("?")[0]
    found = [
        path for path in DESCRIPTION["paths"] if _fits(path, unquote(address.partition("?")[0]))
    ]
    assert found, f"{path} is not described"
    answers = DESCRIPTION["paths"][min(found, key=lambda path: path.count("{"))]["get"]["responses"]
    if str(reply.status) not in answers:
        return [f"status {reply.status} is not described"]
    content = answers[str(reply.status)].get("content", {})
    kind = reply.headers["content-type"].partition(";")[0]
    if kind not in content:
        return [f"{kind} is not described for {reply.status}"]
    if kind != "application/json":
        return []
    return list(_faults(content[kind]["schema"], reply.json, "$"))


def _fits(path: str, asked: str) -> bool:
    parts, given = path.split("/"), asked.split("/")
    pairs = zip(parts, given, strict=False)
    return len(parts) == len(given) and all(a.startswith("{") or a == b for a, b in pairs)


_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float),
    "boolean": bool, "null": type(None),
}  # fmt: skip


def _faults(schema: dict[str, Any], value: Any, at: str) -> Iterator[str]:
    """As much of JSON schema as our description uses."""
    if "$ref" in schema:
        schema = DESCRIPTION["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        if all(list(_faults(choice, value, at)) for choice in schema["anyOf"]):
            yield f"{at}: {value!r:.50} is none of those allowed"
        return
    kinds = schema.get("type", [])
    allowed = [_TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    is_flag = isinstance(value, bool) and bool not in allowed
    if allowed and (is_flag or not any(isinstance(value, kind) for kind in allowed)):
        yield f"{at}: {value!r:.50} is no {kinds}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r:.50} is not in {schema['enum']}"
    elif schema.get("format") == "date-time" and not _TIME.fullmatch(value):
        yield f"{at}: {value!r:.50} is no time"
    elif isinstance(value, dict):
        yield from (f"{at}: no {key}" for key in schema.get("required", ()) if key not in value)
        others = schema.get("additionalProperties", {})
        for key, item in value.items():
            inner = schema.get("properties", {}).get(key, others)
            if isinstance(inner, dict) and inner:
                yield from _faults(inner, item, f"{at}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _faults(schema.get("items", {}), item, f"{at}[{number}]")


_TIME = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d(\.\d{1,9})?Z", re.ASCII)
