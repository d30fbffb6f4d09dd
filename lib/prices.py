"""What a run cost at list prices, where its agent tells tokens and no cost.

The table is lib/agents/prices.yaml; `prices:` of a config.yaml, of the same shape,
goes before it:

    gpt-6.1-sol: {input: 2, cached: 0.1, output: 10}   # dollars per million tokens
    my-model*: {input: 0, output: 0}                   # every name that begins like this

A name fits a model of that name, and its editions: gpt-6.1-sol-2026-09-29,
gemini-3.1-pro-preview, claude-opus-5-5[1m]. Another word is another model:
gpt-5.4-mini is not gpt-5.4. The longest name that fits counts.
"""

from __future__ import annotations

import os

from lib import files, yamlio
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Tokens = tuple[int, int, int]  # in (those from a cache among them), from a cache, out

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "agents", "prices.yaml")
KINDS = ("input", "cached", "output")
_NEEDED = ("input", "output")
_MAX_BYTES = 4 << 20
_MOST_DOLLARS = 1e6  # per million tokens: more is a mistake
_EDITIONS = ("latest", "preview", "exp")


def estimate(usage: Mapping[str, Tokens], config: str = "") -> float | None:
    """Dollars for the tokens of each model; None where the price of one is not known.

    `config` is the path of the config.yaml whose prices go first, if any.
    """
    own, shipped = rows_of(config, "prices"), rows_of(TABLE)
    total = 0.0
    for model, tokens in usage.items():
        row = find(own, model) or find(shipped, model)
        if row is None and any(tokens):
            return None
        total += _dollars(row or {}, *tokens)
    return round(total, 6)


def _dollars(row: Mapping[str, float], into: int, cached: int, out: int) -> float:
    cached = min(cached, into)
    dear = row.get("input", 0.0)
    cheap = row.get("cached", dear)
    return ((into - cached) * dear + cached * cheap + out * row.get("output", 0.0)) / 1e6


def find(rows: Mapping[str, Mapping[str, float]], model: str) -> Mapping[str, float] | None:
    """The row for a model: for its name, else for what stands behind its provider's."""
    whole = model.strip().lower()
    for name in dict.fromkeys((whole, whole.rpartition("/")[2])):
        fitting = [key for key in rows if _fits(key.lower(), name)]
        if fitting:
            return rows[max(fitting, key=len)]
    return None


def _fits(key: str, model: str) -> bool:
    if key.endswith("*"):
        return model.startswith(key[:-1])
    return model.startswith(key) and _is_edition(model[len(key) :])


def _is_edition(rest: str) -> bool:
    """Whether what follows a name tells no other model: a date, a number of three digits, preview.

    A short number does: claude-opus-4-1 is not claude-opus-4.
    """
    rest = rest.partition("[")[0]
    if not rest:
        return True
    first, *others = rest[1:].replace("@", "-").replace(":", "-").split("-")
    is_dated = first.isdigit() and len(first) >= 3
    is_named = first in _EDITIONS
    return rest[0] in "-@:" and (is_dated or is_named) and all(w.isdigit() for w in others)


def rows_of(path: str, section: str = "") -> dict[str, dict[str, float]]:
    """The rows of a file, or of a section of it, that can be used; {} where there is none.

    Never an error: the file of a configuration may have gone, or be in the middle of a change.
    """
    if not path:
        return {}
    try:
        text = files.read_regular(path, _MAX_BYTES).decode("utf-8", "replace")
        data = yamlio.load(text, source=path)
    except (UserError, OSError):
        return {}
    if section:
        data = data.get(section) if isinstance(data, dict) else None
    if not isinstance(data, dict):
        return {}
    return {str(name): row for name, row in data.items() if not _row_faults(name, row)}


def faults(rows: object) -> list[tuple[tuple[str | int, ...], str]]:
    """What is wrong with a section `prices:`: (the keys that lead there from it, a sentence)."""
    if rows is None:
        return []
    if not isinstance(rows, dict):
        return [((), "prices must be a mapping: MODEL: {input: 2, cached: 0.2, output: 10}")]
    return [fault for name, row in rows.items() for fault in _row_faults(name, row)]


def _row_faults(name: object, row: object) -> list[tuple[tuple[str | int, ...], str]]:
    key = name if isinstance(name, str | int) else str(name)
    if not isinstance(name, str) or not name.strip("* "):
        return [((key,), f"prices: {name!r} is no name of a model; put it in quotes")]
    if not isinstance(row, dict):
        shape = "{input: 2, cached: 0.2, output: 10}, in dollars per million tokens"
        return [((key,), f"prices: {name} must be a mapping such as {shape}")]
    found: list[tuple[tuple[str | int, ...], str]] = []
    for kind, value in row.items():
        if kind not in KINDS:
            known = ", ".join(KINDS)
            found.append(
                ((key, str(kind)), f"prices: {name}: unknown key {kind!r}; known: {known}")
            )
        elif not _is_price(value):
            found.append(
                ((key, str(kind)), f"prices: {name}: {kind} must be dollars per million tokens")
            )
    return found + [((key,), f"prices: {name} lacks {k}") for k in _lacking(row)]


def _lacking(row: Iterable[object]) -> list[str]:
    present = set(row)
    return [kind for kind in _NEEDED if kind not in present]


def _is_price(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < _MOST_DOLLARS  # type: ignore[operator]
