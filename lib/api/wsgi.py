"""A request as WSGI servers give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from lib.api.exchange import MAX_BODY, Request


def request_of(environ: Mapping[str, Any], raw_path: str) -> Request:
    """The request of `environ`; `raw_path` is its PATH_INFO, bytes written as Latin-1."""
    query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True, errors="replace")
    headers = {
        name.removeprefix("HTTP_").replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    return Request(
        environ["REQUEST_METHOD"].upper(),
        raw_path.encode("latin-1").decode("utf-8", "replace"),
        query=dict(query),
        headers=headers,
        read_body=lambda: _read_body(environ),
        remote=environ.get("REMOTE_ADDR", ""),
    )


def _read_body(environ: Mapping[str, Any]) -> bytes:
    length = environ.get("CONTENT_LENGTH", "")
    if not (length.isascii() and length.isdigit()):
        return b""
    data = environ["wsgi.input"].read(min(int(length), MAX_BODY + 1))
    return data if isinstance(data, bytes) else b""
