"""A request and its answer as handlers see them, and a refusal as clients see it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

from lib.errors import UserError

MAX_BODY = 1 << 20  # bytes of a request's body
CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "TIMEOUT",
    409: "CONFLICT",
    411: "LENGTH_REQUIRED",
    414: "URI_TOO_LONG",
    415: "UNSUPPORTED_MEDIA_TYPE",
    417: "EXPECTATION_FAILED",
    429: "TOO_MANY_REQUESTS",
    431: "HEADERS_TOO_LARGE",
    500: "INTERNAL",
    501: "NOT_IMPLEMENTED",
    503: "UNAVAILABLE",
    505: "VERSION_NOT_SUPPORTED",
}


class Refusal(UserError):  # noqa: N818 - it is an answer, no fault of ours
    """An answer that is an error: status, a sentence, and details by name."""

    def __init__(self, status: int, message: str, **details: str) -> None:
        super().__init__(message)
        self.status = status
        self.details = details

    def answer(self) -> Answer:
        error: dict[str, object] = {"code": CODES[self.status], "message": str(self)}
        if self.details:
            error["details"] = dict(self.details)
        return Answer({"error": error}, self.status)


class Request:
    """What a client asks for; names of headers and of queries in any case and once.

    `params` are the variable parts of the path, `read_body` gives at most
    MAX_BODY + 1 bytes and may be called once.
    """

    def __init__(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        read_body: Callable[[], bytes] = bytes,
        remote: str = "",
        request_id: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.query = dict(query or {})
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}
        self.params: dict[str, str] = {}
        self.endpoint = ""  # the template of the path, such as /api/v1/runs/{run}
        self.remote = remote
        self.request_id = request_id
        self._read_body = read_body

    def header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")

    def json_body(self, fields: Mapping[str, type | tuple[type, ...]]) -> dict[str, object]:
        """The one JSON object of the body, its keys in any case; Refusal for anything else.

        `fields` are the keys it may have and the types of their values; null counts as left out.
        """
        kind = self.header("content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "the body must be JSON; send Content-Type: application/json")
        data = self._read_body()
        if len(data) > MAX_BODY:
            raise Refusal(400, f"invalid json: more than {MAX_BODY} bytes")
        try:
            value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"invalid json: {_short(error)}") from None
        if not isinstance(value, dict):
            raise Refusal(400, "invalid json: not an object")
        return _checked(value, fields)


def text_of(body: Mapping[str, object], key: str) -> str:
    """The text of a field of a body, "" where it is left out; Refusal 400 for what is no UTF-8."""
    value = body.get(key)
    text = value if isinstance(value, str) else ""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal(400, f"invalid json: {key} holds half a character") from None
    return text


class Answer:
    """Status, body and headers: `body` is a JSON value, bytes, or an iterable of bytes.

    An iterable with a `close` has it called when the client has gone.
    """

    def __init__(
        self,
        body: object = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        kind: str = "application/json",
    ) -> None:
        self.status = status
        self.headers = {"Content-Type": kind, **(headers or {})}
        if body is None and status == 204:
            del self.headers["Content-Type"]
            body = b""
        self.body: bytes | Iterable[bytes] = (
            encode(body) + b"\n" if isinstance(body, dict | list | None) else body  # type: ignore[assignment]
        )


def encode(value: object) -> bytes:
    """Compact JSON on one line; halves of characters, which UTF-8 has no word for, become `?`."""
    return _to_text(value).encode("utf-8", "replace")


# One for all: to make an encoder costs as much as to encode a small object.
_to_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _short(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _checked(
    value: dict[str, object], fields: Mapping[str, type | tuple[type, ...]]
) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, item in value.items():
        name = key.lower()
        if name not in fields:
            raise Refusal(400, f'invalid json: unknown field "{key[:100]}"')
        if item is None:
            continue
        kinds = fields[name]
        if not isinstance(item, kinds) or (isinstance(item, bool) and kinds is int):
            raise Refusal(400, f"invalid json: {name} has a value of another type")
        found[name] = item
    return found
