"""A plan on a page: its stages with a card for each task, and its line of time."""

from __future__ import annotations

from lib.status_page import pieces, states, svg
from lib.status_page.html import Element, element
from lib.status_page.layout import Scale
from lib.status_page.records import Bar, Card, Column, Line, PlanPart

MOST_TICKS = 7
LONG_SECONDS = 20 * 3600  # from then on a start is told with its day
MOST_NAMED = 40  # tasks of the critical path that are named
STAR = "◆"  # on the critical path
MARKS = {states.FAILED: "✕", states.QUOTA: "quota", states.STOPPED: "void", states.UNKNOWN: "?"}
LEGEND = "UTC; a full bar succeeded or runs, a hollow one failed, a dashed one met a quota"


def stages(plan: PlanPart, *, is_nested: bool = False) -> Element | None:
    if not plan.columns:
        return None
    kind = f"stages{' slim' if plan.is_slim else ''}{' lone' if len(plan.columns) == 1 else ''}"
    columns = [_column(column, number) for number, column in enumerate(plan.columns, 1)]
    grid = element("div", *columns, class_=kind)
    return grid if is_nested else element("section", pieces.heading("Stages"), grid)


def _column(column: Column, number: int) -> Element:
    parts = [f"{count} {kind}" for kind, count in column.counts.items() if kind != states.DONE]
    done = column.counts.get(states.DONE, 0)
    told = ", ".join([f"{done} of {column.total} done", *parts])
    folded = None
    if column.folded:
        summary = element("summary", svg.sign(states.DONE), f" {len(column.folded)} done")
        folded = element("details", summary, *map(_card, column.folded), class_="slim")
    return element(
        "div",
        element("h3", f"{number} {column.name}", element("small", told)),
        element("div", *map(_card, column.cards), class_="cards"),
        folded,
        pieces.more(column.left_out, "without a card"),
        class_="stage",
    )


def _card(card: Card) -> Element:
    star = element("span", f"{STAR} ", class_="star", title="critical path")
    more = [f"{card.judges} judges"] if card.judges > 1 else []
    more += [f"{card.tries} tries"] if card.tries > 1 else []
    has_run = card.seconds is not None
    used = " ".join(
        text
        for text in (pieces.tokens(card.usage), pieces.cost(card.usage))
        if text != pieces.NOTHING and has_run
    )
    return element(
        "div",
        element("span", star if card.is_critical else None, card.task, class_="task"),
        element("span", card.title, class_="quiet") if card.title else None,
        element(
            "div",
            element("span", svg.sign(card.kind), f" {card.word}", class_="kind"),
            element("span", pieces.lasted(card.seconds)) if has_run else None,
            class_="line",
        ),
        element(
            "div",
            element("span", ", ".join([card.agent, *more])),
            element("span", used) if used else None,
            class_="line quiet",
        )
        if card.agent != "-" or used
        else None,
        element("p", card.why, class_="why") if card.why else None,
        class_=f"card {card.kind}",
    )


# -- the line of time


def timeline(plan: PlanPart, grid_id: str, *, is_nested: bool = False) -> Element | None:
    if not plan.lines:
        return None
    scale = Scale((bar.start, bar.end) for line in plan.lines for bar in line.bars)
    head = element(
        "tr",
        element("th", "task", class_="task", scope="col"),
        element("th", "start", class_="when wide num", scope="col"),
        element("th", "time", class_="took num", scope="col"),
        element("th", svg.axis(scale, MOST_TICKS, grid_id), class_="track", scope="col"),
    )
    first = min(line.start for line in plan.lines)
    last = max(bar.end for line in plan.lines for bar in line.bars)
    is_long = last - first > LONG_SECONDS
    rows = [_time_row(scale, line, grid_id, with_day=is_long) for line in plan.lines]
    table = element("table", element("thead", head), element("tbody", *rows), class_="timeline")
    parts = [
        element("h3" if is_nested else "h2", "Timeline", element("small", LEGEND)),
        _path(plan),
        table,
        pieces.more(plan.lines_left_out, "the longest are shown"),
    ]
    return element("div" if is_nested else "section", *parts)


def _path(plan: PlanPart) -> Element | None:
    if not plan.critical:
        return None
    named = plan.critical[:MOST_NAMED]
    more = len(plan.critical) - len(named)
    chain = " → ".join([*named, *([f"{more} more"] if more else [])])
    return element(
        "p",
        element("span", STAR, class_="star"),
        f" critical path, {pieces.lasted(plan.critical_seconds)} of work, underlined: {chain}",
        class_="quiet small",
    )


def _time_row(scale: Scale, line: Line, grid_id: str, *, with_day: bool) -> Element:
    star = element("span", f"{STAR} ", class_="star", title="critical path")
    left_out = f"; {line.left_out} earlier attempts are not drawn" if line.left_out else ""
    bars = [
        (bar.start, bar.end, bar.kind, f"{_told(bar)}{left_out}", MARKS.get(bar.kind, ""))
        for bar in line.bars
    ]
    return element(
        "tr",
        element(
            "th",
            svg.sign(line.kind),
            " ",
            star if line.is_critical else None,
            line.task,
            class_=f"task {line.kind}",
            title=f"{line.task}: {line.kind}",
            scope="row",
        ),
        element("td", pieces.clock(line.start, with_day=with_day), class_="num wide"),
        element("td", pieces.lasted(line.seconds), class_="num"),
        element("td", svg.row(scale, bars, grid_id, is_critical=line.is_critical), class_="track"),
        class_="critical" if line.is_critical else None,
    )


def _told(bar: Bar) -> str:
    times = f"{pieces.clock(bar.start)} to {pieces.clock(bar.end)}, {pieces.lasted(bar.end - bar.start)}"
    return f"{bar.agent} {bar.kind}: {times}, {bar.run}"
