"""How much of everything a page holds, so that it stays small however large a plan is."""

from __future__ import annotations

from dataclasses import dataclass

TITLE_LIMIT, PATH_LIMIT, COMMAND_LIMIT = 160, 300, 1000  # characters


@dataclass(frozen=True, slots=True)
class Limits:
    """Most cards, lines and so on; lengths are characters."""

    cards: int  # of tasks, of all plans together
    slim_from: int  # so many cards and more are made of less
    why: int
    name: int
    lines: int  # of the line of time
    bars: int  # of one line
    plans: int  # in the list of a whole root
    details: int  # plans of which all is shown
    problems: int
    rows: int  # runs, tasks, messages: of each


GENEROUS = Limits(
    cards=5000, slim_from=400, why=300, name=128, lines=300, bars=20,
    plans=100, details=8, problems=100, rows=50,
)  # fmt: skip
TIGHT = Limits(
    cards=5000, slim_from=0, why=80, name=64, lines=200, bars=8,
    plans=100, details=4, problems=50, rows=30,
)  # fmt: skip
LEAST = Limits(
    cards=1000, slim_from=0, why=60, name=48, lines=60, bars=4,
    plans=50, details=2, problems=30, rows=20,
)  # fmt: skip
LEVELS = (GENEROUS, TIGHT, LEAST)
GENEROUS_TASKS = 1500  # with more tasks the first level would be too much anyway
MOST_BYTES = 4_500_000
