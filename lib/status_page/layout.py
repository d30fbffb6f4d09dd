"""Where things stand on a line of time, and in a bar of shares: arithmetic alone.

Times are seconds since 1970, places are percent of the width.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Span = tuple[float, float]  # from when to when

MINUTE, HOUR, DAY = 60, 3600, 86400
STEPS = (
    1, 2, 5, 10, 15, 30,
    MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
    HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
    DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY, 365 * DAY,
)  # fmt: skip
FULL = 100.0
LEAST_WIDTH = 0.4  # of a bar: what took no time is seen, too
GAP_SHARE = 0.2  # a pause that is longer than this share of all work is cut short
CUT_SHARE = 0.05  # and then drawn as wide as this share of it
MOST_GAPS = 8
CROWDED = 0.6  # of the distance that marks have on average: what is nearer has no room


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the axis; `is_day` when its day is another one than that of the mark before."""

    at: float
    seconds: float
    is_day: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """A pause that is drawn shorter than it was."""

    at: float
    width: float
    seconds: float


class Scale:
    """Maps time to places.  Long pauses, in which nothing ran, are cut short."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._pieces = _pieces(_merged(spans))
        self._starts = [piece[0] for piece in self._pieces]
        drawn = [end - start if factor == 1.0 else factor for start, end, factor in self._pieces]
        total = sum(drawn) or 1.0
        self._places = [0.0]
        for width in drawn:
            self._places.append(self._places[-1] + FULL * width / total)

    @property
    def is_empty(self) -> bool:
        return not self._pieces

    def at(self, seconds: float) -> float:
        """The place of a moment; of one outside the nearest end."""
        if not self._pieces:
            return 0.0
        index = max(0, bisect_right(self._starts, seconds) - 1)
        start, end, _ = self._pieces[index]
        share = min(1.0, max(0.0, (seconds - start) / (end - start))) if end > start else 0.0
        here, there = self._places[index], self._places[index + 1]
        return min(FULL, here + share * (there - here))

    def bar(self, start: float, end: float) -> tuple[float, float]:
        """(place, width) of what lasted so long; within the whole, and never too thin to be seen."""
        left = self.at(start)
        width = max(LEAST_WIDTH, self.at(max(start, end)) - left)
        return min(left, FULL - width), width

    def gaps(self) -> list[Gap]:
        return [
            Gap(self._places[index], self._places[index + 1] - self._places[index], end - start)
            for index, (start, end, factor) in enumerate(self._pieces)
            if factor != 1.0
        ]

    def ticks(self, most: int) -> list[Tick]:
        """About `most` marks at round times, and one behind each pause, where there is room."""
        work = [(start, end) for start, end, factor in self._pieces if factor == 1.0]
        length = sum(end - start for start, end in work)
        step = step_of(length, most)
        found: list[Tick] = []
        day = None
        for start, end in work:
            first = -(-start // step) * step
            count = int((end - first) // step) + 1 if end >= first else 0
            moments = [first + number * step for number in range(min(count, most))] or [start]
            for moment in moments:
                at = self.at(moment)
                if not found or at - found[-1].at >= CROWDED * FULL / most:
                    found.append(Tick(at, moment, day is not None and moment // DAY != day))
                    day = moment // DAY
        return found


def step_of(seconds: float, most: int) -> int:
    """The shortest round step by which a time has at most `most` parts."""
    for step in STEPS:
        if seconds / step < most:
            return step
    return STEPS[-1] * (1 + int(seconds / STEPS[-1] / most))


def shares(counts: Mapping[str, int], order: Sequence[str]) -> list[tuple[str, float, float]]:
    """(name, place, width) of each part of a whole, in that order; nothing for what is not there."""
    total = sum(counts.get(name, 0) for name in order)
    found = []
    left = 0.0
    for name in order:
        width = FULL * counts.get(name, 0) / total if total else 0.0
        if width:
            found.append((name, left, width))
        left += width
    return found


def covered(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of these went on."""
    return sum(end - start for start, end in _merged(spans))


def _merged(spans: Iterable[Span]) -> list[Span]:
    """The times at which something ran, without overlaps, in order."""
    found: list[Span] = []
    for start, end in sorted((start, max(start, end)) for start, end in spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _pieces(busy: Sequence[Span]) -> list[tuple[float, float, float]]:
    """(start, end, 1.0) of what is drawn as it was, and (start, end, width) of pauses cut short."""
    work = sum(end - start for start, end in busy)
    least = max(1.0, work)
    pauses = sorted((later[0] - end for (_, end), later in pairwise(busy)))
    floor = max([GAP_SHARE * least, *pauses[-MOST_GAPS - 1 : -MOST_GAPS]])
    pieces: list[tuple[float, float, float]] = []
    for start, end in busy:
        if pieces and start - pieces[-1][1] > floor:
            pieces.append((pieces[-1][1], start, CUT_SHARE * least + 1e-9))
            pieces.append((start, end, 1.0))
        elif pieces:
            pieces[-1] = (pieces[-1][0], end, 1.0)
        else:
            pieces.append((start, end, 1.0))
    return pieces
