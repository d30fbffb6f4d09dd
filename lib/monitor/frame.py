"""The monitor's screen as lines: a head, the lists that have something to show, a foot.

Each list gets a share of the rows, and the one with the focus what is left.
"""

from __future__ import annotations

from collections import Counter

from lib import redact
from lib.monitor import app as state
from lib.monitor.app import App
from lib.monitor.facts import KINDS
from lib.monitor.reader import Pager, RunReader
from lib.monitor.text import Row, head_line
from lib.printer import Line
from lib.textual import width

LEAST_ROWS = 9  # below that only the list with the focus is shown
SHARES = (3, 5, 3, 3)  # rows of each list, before one gets more; of 24 rows all have these
KEYS = "h help  q quit  Enter read  s stop  f filter  Tab list"
EMPTY = "(nothing here so far; Tab shows stderr, stdout, output and prompt)"
READER_KEYS = "Esc back  / search  F follow  Tab file  s stop  h help"


def lines(app: App, columns: int, rows: int) -> list[Line]:
    """At most `rows` lines for a screen of that size; whoever shows them cuts them to it."""
    if rows < 2:
        return [_foot(app, columns)][:rows]
    if app.pager is not None:
        body = _page(app.pager, columns, rows - 1)
    else:
        body = _lists(app, columns, rows - 1)
    body = body[: rows - 1] + [("", "")] * (rows - 1 - len(body))
    return [*body, _foot(app, columns)]


def _foot(app: App, columns: int) -> Line:
    if app.stopping is not None:
        return app.question(), "reverse"
    if app.prompt is not None:
        return f"{app.prompt.label}: {redact.one_line(app.prompt.typed)}_", "reverse"
    said, colour = app.notice()
    if said:
        return said, colour
    keys = READER_KEYS if app.pager else KEYS
    if app.filter and not app.pager:
        return f"filter: {redact.one_line(app.filter)} (Esc: none)  {keys}", "yellow"
    return keys, "dim"


# -- the lists


def _lists(app: App, columns: int, rows: int) -> list[Line]:
    app.arrange(columns - 3)  # two for the mark of the selected line, one at the right edge
    body: list[Line] = [(head_line(app.facts, app.place), "bold")]
    panes = _visible(app, rows - 1)
    heights = _heights(app, panes, rows - 1 - len(panes))
    for pane in panes:
        app.heights[pane] = max(1, heights[pane])
        body.append(_title(app, pane, columns))
        body += _rows_of(app, pane, heights[pane])
    return body[:rows]


def _visible(app: App, rows: int) -> list[int]:
    """The lists that are shown: those that are not empty, the one with the focus in any case."""
    if rows < LEAST_ROWS:
        return [app.focus]
    wanted = (state.RUNS, state.MESSAGES, app.focus)
    return [pane for pane in range(len(state.TITLES)) if app.rows[pane] or pane in wanted]


def _heights(app: App, panes: list[int], rows: int) -> dict[int, int]:
    """How many rows each list gets: its share, then what is left to the one with the focus."""
    heights = dict.fromkeys(panes, 0)
    for pane in sorted(panes, key=lambda pane: (pane != app.focus, pane)):
        heights[pane] = max(0, min(len(app.rows[pane]), SHARES[pane], rows))
        rows -= heights[pane]
    by_need = [app.focus, state.RUNS, state.PROBLEMS, state.PLANS, state.MESSAGES]
    for pane in by_need:
        if pane in heights:
            more = min(rows, len(app.rows[pane]) - heights[pane])
            heights[pane] += more
            rows -= more
    return heights


def _title(app: App, pane: int, columns: int) -> Line:
    count = len(app.rows[pane])
    name = f"{pane + 1} {state.TITLES[pane]}"
    text = f"-- {name} ({_summary(app, pane, count)}) "
    line = text + "-" * max(0, columns - 1 - width(text))
    return line, "bold" if pane == app.focus else "dim"


def _summary(app: App, pane: int, count: int) -> str:
    if app.filter:
        return f"{count} shown"
    if pane == state.RUNS:
        live = len(app.facts.live)
        return f"{live} running, {max(0, app.facts.run_count - live)} ended"
    if pane == state.PROBLEMS and count:
        kinds = Counter(problem.kind for problem in app.facts.problems)
        return ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
    if pane == state.PLANS:
        return str(len(app.facts.plans) or "none")
    return str(count or "none")


def _rows_of(app: App, pane: int, height: int) -> list[Line]:
    if height <= 0:
        return []
    rows, number = app.rows[pane], app.numbers[pane]
    top = min(app.tops[pane], number) if pane == app.focus else 0
    top = max(top, number - height + 1) if pane == app.focus else 0
    app.tops[pane] = top = max(0, min(top, len(rows) - height))
    return [
        _line(row, is_selected=pane == app.focus and top + offset == number)
        for offset, row in enumerate(rows[top : top + height])
    ]


def _line(row: Row, *, is_selected: bool) -> Line:
    return (f"> {row.text}", "reverse") if is_selected else (f"  {row.text}", row.colour)


# -- reading


def _page(pager: Pager, columns: int, rows: int) -> list[Line]:
    pager.fit(columns - 1, rows - 1)
    what = pager.title
    if isinstance(pager, RunReader):
        what = f"{pager.file_name}  {pager.entry.state.status}  {pager.title}"
    follows = ", following" if pager.follows else ""
    head = f"{pager.place()}{follows}  {what}"
    if isinstance(pager, RunReader) and (pager.problem or pager.is_empty):
        said = redact.one_line(pager.problem) or EMPTY
        return [(head, "bold"), (said, "yellow" if pager.problem else "dim")]
    return [(head, "bold"), *((text, "yellow" if hit else "") for text, hit in pager.rows())]
