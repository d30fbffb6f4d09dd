"""Pieces that the parts of a page share: badges, tables, and numbers as people read them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lib.status_page import svg
from lib.status_page.html import Element, element
from lib.textual import amount, duration
from lib.usage import AND_MORE, ESTIMATED, Usage

NOTHING = "–"


def heading(text: str, more: str = "") -> Element:
    return element("h2", text, element("small", more) if more else None)


def badge(kind: str, word: str) -> Element:
    return element("span", svg.sign(kind), element("span", word), class_=f"badge {kind}")


def more(number: int, how: str) -> Element | None:
    return element("p", f"and {number} more ({how})", class_="quiet small") if number > 0 else None


def table(
    kind: str, names: Sequence[str], rows: Sequence[Element], numbers: Sequence[int] = ()
) -> Element:
    cells = [
        element("th", name, scope="col", class_="num" if number in numbers else None)
        for number, name in enumerate(names)
    ]
    head = element("thead", element("tr", *cells))
    return element("table", head, element("tbody", *rows), class_=kind)


def lasted(seconds: float | None) -> str:
    return NOTHING if seconds is None else duration(seconds)


def clock(seconds: float, *, with_day: bool = False) -> str:
    return time.strftime("%b %d %H:%M" if with_day else "%H:%M:%S", time.gmtime(seconds))


def moment(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def tokens(usage: Usage) -> str:
    if usage.input_tokens is None and usage.output_tokens is None:
        return NOTHING
    both = (usage.input_tokens, usage.output_tokens)
    text = " / ".join("?" if number is None else amount(number) for number in both)
    return text + (AND_MORE if usage.without_tokens and usage.runs > 1 else "")


def cost(usage: Usage) -> str:
    if usage.cost_usd is None:
        return NOTHING
    digits = 4 if 0 < usage.cost_usd < 0.1 else 2
    rest = AND_MORE if usage.without_cost and usage.runs > 1 else ""
    return f"{ESTIMATED if usage.is_estimated else ''}${usage.cost_usd:.{digits}f}{rest}"
