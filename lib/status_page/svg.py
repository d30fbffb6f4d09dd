"""The drawings of a page: a bar of shares, and a line of time with what ran on it.

Places are percent, heights are pixels: a drawing is as wide as there is room.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from lib.status_page import states
from lib.status_page.html import Element, element
from lib.status_page.layout import DAY, FULL, MINUTE, Gap, Scale, Tick, shares
from lib.textual import spoken

ROW_HEIGHT, BAR_HEIGHT, AXIS_HEIGHT, SHARES_HEIGHT = 18, 10, 30, 10
_EDGE = 9.0  # percent from an end within which a label is written towards the middle


def symbols() -> Element:
    """The signs of all kinds, to be drawn anywhere on the page by `sign`."""
    drawn = [
        element("symbol", element("path", d=line), id=f"s-{kind}", viewBox="0 0 16 16")
        for kind, line in states.SIGNS.items()
    ]
    return element("svg", *drawn, width=0, height=0, class_="symbols", aria_hidden="true")


def sign(kind: str) -> Element:
    """The sign of a kind; its word stands beside it."""
    use = element("use", href=f"#s-{kind}")
    return element("svg", use, class_="sign", width=14, height=14, aria_hidden="true")


def share_bar(counts: Mapping[str, int], order: Sequence[str]) -> Element:
    """How a whole is made up; the numbers stand beside it."""
    found = shares(counts, order)
    parts = [
        element("rect", class_=name, x=_percent(left), width=_percent(width), height=SHARES_HEIGHT)
        for name, left, width in found
    ]
    return _drawing(parts, SHARES_HEIGHT, "shares")


def axis(scale: Scale, most: int, grid_id: str) -> Element:
    """The marks of a line of time; it also defines the grid that the rows below repeat."""
    ticks, gaps = scale.ticks(most), scale.gaps()
    step = min((b.seconds - a.seconds for a, b in pairwise(ticks)), default=0)
    labels = [_label(tick, number, step) for number, tick in enumerate(ticks)]
    pauses = [_pause(gap) for gap in gaps]
    lines = [_line(tick.at, "tick") for tick in ticks] + [
        element("rect", class_="gap", x=_percent(gap.at), width=_percent(gap.width), height="100%")
        for gap in gaps
    ]
    grid = element("defs", element("g", *lines, id=grid_id))
    return _drawing([grid, *labels, *pauses], AXIS_HEIGHT, "axis")


def row(
    scale: Scale,
    bars: Sequence[tuple[float, float, str, str, str]],
    grid_id: str,
    *,
    is_critical: bool,
) -> Element:
    """What ran: (start, end, class, what a pointer is told, a mark to put behind it).

    What is on the critical path is underlined.
    """
    parts = [element("use", href=f"#{grid_id}")]
    if is_critical:
        left, width = scale.bar(min(bar[0] for bar in bars), max(bar[1] for bar in bars))
        place = {"x": _percent(left), "width": _percent(width)}
        parts.append(element("rect", class_="critical", y=ROW_HEIGHT - 3, height=2, **place))
    top = (ROW_HEIGHT - BAR_HEIGHT) / 2
    for start, end, kind, told, mark in bars:
        left, width = scale.bar(start, end)
        place = {"x": _percent(left), "width": _percent(width)}
        bar = element("rect", class_=kind, y=top, height=BAR_HEIGHT, **place)
        parts.append(element("g", element("title", told), bar))
        if mark:
            parts.append(_mark(mark, left, left + width, kind))
    return _drawing(parts, ROW_HEIGHT, "row")


def _drawing(parts: Iterable[Element], height: int, kind: str) -> Element:
    return element("svg", *parts, class_=kind, width="100%", height=height, aria_hidden="true")


def _mark(mark: str, left: float, right: float, kind: str) -> Element:
    """Behind the bar, or before one that ends at the edge."""
    is_late = right > FULL - _EDGE / 3
    where = f"{'before' if is_late else 'behind'} {kind}"
    return element("text", mark, class_=where, x=_percent(left if is_late else right), y=13)


def _label(tick: Tick, number: int, step: float) -> Element:
    moment = time.gmtime(tick.seconds)
    pattern = "%H:%M:%S" if 0 < step < MINUTE or tick.seconds % MINUTE else "%H:%M"
    text = time.strftime("%b %d" if step >= DAY else pattern, moment)
    if tick.is_day and step < DAY:
        text = time.strftime("%b %d", moment) if not tick.seconds % DAY else text
    kind = f"{_anchor(tick.at)}{' second' if number % 2 else ''}"
    return element("text", text, class_=kind, x=_percent(tick.at), y=24)


def _pause(gap: Gap) -> Element:
    at = gap.at + gap.width / 2
    return element("text", spoken(gap.seconds), class_=f"pause {_anchor(at)}", x=_percent(at), y=9)


def _anchor(at: float) -> str:
    return "first" if at < _EDGE else "last" if at > FULL - _EDGE else "middle"


def _line(at: float, kind: str) -> Element:
    return element("line", class_=kind, x1=_percent(at), x2=_percent(at), y1=0, y2="100%")


def _percent(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"
