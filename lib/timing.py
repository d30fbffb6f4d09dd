"""How the output of a run grew: noted while it runs, written once at its end, for a replay.

`timing.txt` has a line `SECONDS STDOUT_BYTES STDERR_BYTES` for each moment at which
more was there, counted from the start of the run; the last one is its end. A run
of less than a second has none.
"""

from __future__ import annotations

Point = tuple[float, int, int]  # seconds since the start, bytes of stdout, bytes of stderr

MOST_POINTS = 2000
SHORTEST_SECONDS = 1.0
_FIRST_GAP_SECONDS = 0.05
_MOST_SECONDS = 3.2e7


class Notes:
    """At which moment of a run there was how much; of a long run only as many moments as fit.

    What came within a gap counts as there at its beginning. The gap is doubled
    whenever there are too many points, so that they stay spread over the whole run.
    """

    def __init__(self, began: float, most: int = MOST_POINTS) -> None:
        self.points: list[Point] = []
        self._began = began  # monotonic, as all moments here
        self._most = most
        self._gap = _FIRST_GAP_SECONDS

    def note(self, now: float, out: int, err: int) -> None:
        """Take the sizes of this moment."""
        if self.points and (out < self.points[-1][1] or err < self.points[-1][2]):
            self.points.clear()  # it was begun anew, with empty files
        self._add(max(0.0, now - self._began), out, err)
        while len(self.points) > self._most:
            self._gap *= 2
            points, self.points = self.points, []
            for point in points:
                self._add(*point)

    def _add(self, seconds: float, out: int, err: int) -> None:
        points = self.points
        if points and seconds - points[-1][0] < self._gap:
            points[-1] = (points[-1][0], out, err)
        elif not points or points[-1][1:] != (out, err):
            points.append((seconds, out, err))

    def text(self, ended: float, out: int, err: int) -> str:
        """The file of a run that ended at that moment with that much; "" where it is too short."""
        seconds = ended - self._began
        if seconds < SHORTEST_SECONDS:
            return ""
        rows = [*self.points, (seconds, out, err)]
        return "".join(f"{at:.3f} {first} {second}\n" for at, first, second in rows)


def parse(text: str) -> list[Point]:
    """The points of a `timing.txt`, whoever wrote it: neither time nor sizes ever go back."""
    points: list[Point] = []
    last: Point = (0.0, 0, 0)
    for line in text.split("\n")[: 2 * MOST_POINTS]:
        point = _point(line)
        if point and all(new >= old for new, old in zip(point, last, strict=True)):
            points.append(point)
            last = point
    return points


def _point(line: str) -> Point | None:
    fields = line.split(" ")
    try:
        seconds, out, err = fields
        at, first, second = float(seconds), int(out), int(err)
    except ValueError:
        return None
    return (at, first, second) if 0 <= at < _MOST_SECONDS else None
