"""Names and numbers that clients send: which are refused, and what stands in for the others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import unquote

from lib import listing
from lib.api.exchange import Refusal

MAX_LENGTH = 200  # characters of a project, task or run id
DEFAULT_LIMIT, MAX_LIMIT = 50, 500  # elements of a page
_OFF = ("0", "false", "no", "off")
_ON = ("1", "true", "yes", "on")


def check(kind: str, value: str) -> str:
    """`value`, which is to be a `project`, `task` or `run` id; Refusal 400 for what is none.

    Any printable name that can be one part of a path: folders that others made
    may bear names that tools of ours would not give.
    """
    name = f"{kind}_id"
    if not value.strip():
        raise Refusal(400, f"{name} is required")
    # Once more decoded: what reaches another layer decoded twice must be no path there.
    if any(part in text for text in (value, unquote(value)) for part in ("/", "\\", "..")):
        raise Refusal(400, f"{name} must not contain path separators")
    if not (value + unquote(value)).isprintable():
        raise Refusal(400, f"{name} must not contain control characters")
    if value.startswith("."):
        raise Refusal(400, f"{name} must not start with a dot")
    if len(value) > MAX_LENGTH:
        raise Refusal(400, f"{name} is longer than {MAX_LENGTH} characters")
    return value


def whole_number(text: str) -> int | None:
    """The number that is written in ASCII digits, with or without a sign; None for anything else."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        return None
    return int(text)


def page_of(query: Mapping[str, str]) -> tuple[int, int]:
    """(limit, offset) of a page; what makes no sense counts as left out."""
    limit = whole_number(query.get("limit", "")) or 0
    offset = whole_number(query.get("offset", "")) or 0
    return min(limit, MAX_LIMIT) if limit > 0 else DEFAULT_LIMIT, max(0, offset)


def is_on(text: str) -> bool:
    return text.strip().lower() in _ON


def is_off(text: str) -> bool:
    return text.strip().lower() in _OFF


def moment(name: str, text: str) -> int | None:
    """A point in time as ns since 1970: `2h` ago, a date, or RFC 3339; None for "".

    Refusal 400 for anything else.
    """
    if not text:
        return None
    found = listing.parse_since(text, time.time_ns())
    if found is None:
        raise Refusal(400, f"{name} must be a time such as 2h, 2026-02-23 or 2026-02-23T20:48:59Z")
    return found
