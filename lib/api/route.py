"""How an endpoint is named and described: by this it is served, and stands in openapi.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lib.api.exchange import Answer, Request

if TYPE_CHECKING:
    from lib.api.service import Service

Schema = Mapping[str, object]  # a JSON schema of OpenAPI 3.1; {"$ref": "#/components/schemas/X"}
Handler = Callable[["Service", Request], Answer]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


class Query:
    """A parameter behind the `?`: what it does, and the schema of its text."""

    def __init__(self, name: str, about: str, schema: Schema = TEXT, *, required: bool = False):
        self.name = name
        self.about = about
        self.schema = schema
        self.required = required


class Route:
    """An endpoint: `path` has its variable parts in braces, each one segment.

    `answers` maps each status that it gives of its own accord to (sentence, schema);
    a schema of None is an answer without a body.  What every endpoint may answer
    (400 for a bad id, 401, 403, 404 of an unknown path, 405, 5xx) is added to
    the description by lib/api/openapi.py.  `kind` is the type of its content.
    `body` is the schema of the request's JSON, which makes it a write.
    """

    def __init__(
        self,
        method: str,
        path: str,
        handler: Handler,
        about: str,
        *,
        answers: Mapping[int, tuple[str, Schema | None]],
        query: Sequence[Query] = (),
        body: Schema | None = None,
        kind: str = "application/json",
        open_to_all: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        self.handler = handler
        self.about = about
        self.answers = answers
        self.query = query
        self.body = body
        self.kind = kind
        self.open_to_all = open_to_all  # answered without the API key
