"""The description of the whole API as OpenAPI 3.1, made from the routes themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lib import VERSION
from lib.api.route import TEXT, Route, Schema, ref

ERROR_SCHEMAS: dict[str, Schema] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {
                    "code": TEXT,
                    "message": TEXT,
                    "details": {"type": "object", "additionalProperties": TEXT},
                },
            }
        },
    },
    "Unauthorized": {
        "type": "object",
        "required": ["error", "message"],
        "properties": {"error": {"const": "unauthorized"}, "message": TEXT},
    },
}
_SECURITY_SCHEMES: dict[str, object] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The API key."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "conductor_PORT",
        "description": "Set by a one-time link; its name ends with the port of the server.",
    },
}
_SECURITY: list[dict[str, list[str]]] = [
    {},
    {"bearer": []},
    {"key": []},
    {"session": []},
]  # {}: a server without a key
_GENERAL = {
    400: "The request, or an id in it, is malformed, or its body is larger than 1 MiB.",
    403: "A foreign Host or Origin, or an action that a page may not ask for.",
    405: "Another method than this path knows; the header Allow names them.",
    408: "The request took too long to arrive.",
    414: "The address is too long.",
    431: "The headers are too long, or too many.",
    500: "A fault of the server; its cause is in the server's log, under the request id.",
    503: "The server has too many connections, or ends.",
}
_OF_WRITES = {
    411: "A body without Content-Length.",
    415: "A body of another type than application/json.",
}
_PLAIN_405 = ("/healthz", "/metrics")
_ID: Schema = {
    "type": "string",
    "description": "As our tools give them; folders of others may have other printable names.",
    "minLength": 1,
    "maxLength": 200,
    "pattern": "^[A-Za-z0-9_@-][A-Za-z0-9_@-]*([.][A-Za-z0-9_@-]+)*$",
}


def describe(routes: Iterable[Route], schemas: Mapping[str, Schema]) -> dict[str, object]:
    """The whole document, as JSON values."""
    by_path: dict[str, dict[str, object]] = {}
    for route in routes:
        by_path.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Conductor Loop",
            "version": VERSION,
            "description": "Runs, tasks, plans and message buses of one root; see docs/server.md.",
        },
        "servers": [{"url": "/"}],
        "paths": by_path,
        "components": {
            "schemas": {**ERROR_SCHEMAS, **schemas},
            "securitySchemes": _SECURITY_SCHEMES,
            "headers": {"X-Request-ID": {"description": "Of the request.", "schema": TEXT}},
        },
    }


def _operation(route: Route) -> dict[str, object]:
    operation: dict[str, object] = {
        "operationId": _name(route),
        "summary": route.about,
        "parameters": _parameters(route),
        "responses": _responses(route),
        "security": [] if route.open_to_all else _SECURITY,
    }
    if route.body is not None:
        content = {"application/json": {"schema": route.body}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _name(route: Route) -> str:
    """The method and the path as one word: unique, as these are."""
    words = [part.strip("{}") for part in route.path.split("/") if part]
    return "_".join([route.method.lower(), *words]).replace("-", "_").replace(".", "_")


def parameter_names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _parameters(route: Route) -> list[object]:
    found: list[object] = [
        {"name": name, "in": "path", "required": True, "schema": _ID}
        for name in parameter_names(route.path)
    ]
    found += [
        {
            "name": query.name,
            "in": "query",
            "description": query.about,
            "required": query.required,
            "schema": query.schema,
        }
        for query in route.query
    ]
    if route.kind == "text/event-stream":
        about = "The id of the last event that was seen: the stream goes on behind it."
        found.append(
            {"name": "Last-Event-ID", "in": "header", "description": about, "schema": TEXT}
        )
    return found


def _responses(route: Route) -> dict[str, object]:
    answers: dict[int, object] = {
        status: _answer(about, "application/json", ref("Error"))
        for status, about in _general(route).items()
    }
    if route.path in _PLAIN_405:
        answers[405] = _answer(_GENERAL[405], "text/plain", TEXT)
    if not route.open_to_all:
        answers[401] = _answer("The API key is missing.", "application/json", ref("Unauthorized"))
    if "{" in route.path:
        about = "The path has repeated slashes, or parts that are . or ..; Location is without."
        answers[301] = _answer(about, "text/html", TEXT)
    for status, (about, schema) in route.answers.items():
        is_error = status >= 400 and schema is not TEXT
        kind = "application/json" if is_error else route.kind
        answers[status] = _answer(about, kind, ref("Error") if is_error else schema)
    return {str(status): answers[status] for status in sorted(answers)}


def _general(route: Route) -> dict[int, str]:
    found = dict(_GENERAL)
    if "{" in route.path:
        found[404] = "There is no such thing."
    if route.body is not None or route.method != "GET":
        found |= _OF_WRITES
    return found


def _answer(about: str, kind: str, schema: Schema | None) -> dict[str, object]:
    answer: dict[str, object] = {
        "description": about,
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
    }
    if schema is not None:
        answer["content"] = {kind: {"schema": schema}}
    return answer
