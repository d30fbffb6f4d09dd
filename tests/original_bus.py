"""A small independent model of a reader that goes by delimiters alone (no body_bytes).

It is the line machine of the bus format as the Go tools have it: a header
that is not valid YAML is dropped and the next `---` is tried as a new one.
PyYAML stands for yaml.v3.
"""

from __future__ import annotations

import yaml


def read(data: bytes) -> list[tuple[str, str, str]]:
    """(msg_id, type, body) of each message, as such a reader finds them."""
    found: list[tuple[str, str, str]] = []
    state, header, lines = "seek", {}, [""]
    rows = data.decode("utf-8", "replace").split("\n")
    ends_whole = rows[-1] == ""
    if ends_whole:
        rows.pop()
    for row in rows:
        is_marker = row.rstrip("\r") == "---"
        if state == "seek" and is_marker:
            state, lines = "header", []
        elif state == "header" and is_marker:
            fields = _load("\n".join(lines))
            if fields is not None:
                state, header = "body", fields
            lines = []
        elif state == "body" and is_marker:
            found.append(_message(header, lines))
            state, lines = "header", []
        elif state != "seek":
            lines.append(row)
    if state == "body" and lines and ends_whole:
        found.append(_message(header, lines))
    return found


def _load(text: str) -> dict[str, object] | None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def _message(header: dict[str, object], lines: list[str]) -> tuple[str, str, str]:
    return str(header.get("msg_id", "")), str(header.get("type", "")), "\n".join(lines)
