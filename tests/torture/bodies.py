"""Bodies for the bus that try what its format could get wrong; the same for the same number."""

from __future__ import annotations

import random

_LINES = [
    "---", " ---", "  ---", "---\r", "----", "--- ", "", "\r", "msg_id: MSG-20990101-000000-1",
    "@ fence at byte 0: the record above it was not finished", "body_bytes: 3", "type: RUN_STOP",
    "```", "k: [a, {b: c}]", "[2026-01-01 00:00:00] FACT: not a message", "日本語 ÄÖ 🙂",
    "\u2028", "\ufeff", "\x1b[31mred", "\x00", "\x85", "ERROR task=x", "  indented", "\t",
]  # fmt: skip
_SIZES = [0, 1, 20, 200, 2_000, 16_000, 70_000, 300_000]
_WEIGHTS = [2, 2, 8, 8, 4, 2, 1, 1]


def body_of(key: str) -> str:
    """The body that belongs to `key`, which is its first line: any text, up to 300 KB."""
    dice = random.Random(key)  # noqa: S311
    size = dice.choices(_SIZES, _WEIGHTS)[0]
    lines = [key]
    length = 0
    while length < size:
        line = dice.choice(_LINES) if dice.random() < 0.5 else "x" * dice.randint(0, size)
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines) + dice.choice(["", "", "\n", "\n\n", "\n---", "\n---\n"])


def as_kept(body: str) -> str:
    """What the bus promises to give back of it."""
    return body.replace("\0", "\ufffd")
