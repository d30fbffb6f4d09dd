"""What a page says, as plain records: bounded and redacted texts, numbers, kinds of `states`.

Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lib.usage import Usage


@dataclass(frozen=True, slots=True)
class Bar:
    """An attempt on the line of time: from when to when, and what it came to."""

    start: float
    end: float
    kind: str
    run: str
    agent: str


@dataclass(frozen=True, slots=True)
class Line:
    """A task on the line of time."""

    task: str
    kind: str
    seconds: float  # of work; of two judges at once the time counts once
    is_critical: bool
    bars: Sequence[Bar]
    left_out: int  # earlier ones

    @property
    def start(self) -> float:
        return min(bar.start for bar in self.bars)


@dataclass(frozen=True, slots=True)
class Card:
    """A task of a plan."""

    task: str
    title: str
    kind: str
    word: str
    agent: str
    tries: int  # of a review those of the judge who needed most
    judges: int  # of a review; 1 for any other task
    seconds: float | None
    usage: Usage
    why: str
    is_critical: bool


@dataclass(frozen=True, slots=True)
class Column:
    """A stage with its cards; `folded` are those that are done, of a large one."""

    name: str
    counts: Mapping[str, int]
    total: int
    cards: Sequence[Card]
    folded: Sequence[Card]
    left_out: int


@dataclass(slots=True)
class PlanPart:
    """A plan; without columns and lines it is one row in a list."""

    project: str
    title: str
    kind: str
    word: str
    why: str  # what keeps it from going on, or from being read
    plan_path: str
    counts: Mapping[str, int]
    total: int
    started: float | None
    ended: float | None
    seconds: float | None  # from its start to its end, or until now
    seconds_left: float | None
    worked_seconds: float
    usage: Usage
    columns: Sequence[Column] = ()
    lines: Sequence[Line] = ()
    lines_left_out: int = 0
    critical: Sequence[str] = ()
    critical_seconds: float = 0.0
    is_slim: bool = False


@dataclass(frozen=True, slots=True)
class ProblemPart:
    kind: str
    is_bad: bool
    text: str
    command: str
    since: float | None


@dataclass(frozen=True, slots=True)
class RunPart:
    name: str
    run: str
    agent: str
    kind: str
    word: str
    started: float | None
    seconds: float
    usage: str
    last: str


@dataclass(frozen=True, slots=True)
class TaskPart:
    """A task folder that is no part of a plan."""

    name: str
    kind: str
    word: str
    why: str
    runs: int
    last: float | None


@dataclass(frozen=True, slots=True)
class MessagePart:
    time: str
    type: str
    who: str
    text: str


@dataclass(slots=True)
class Page:
    """All of it; `plan` is the one that the page is about, None for a whole root."""

    made: float
    place: str
    project: str
    plan: PlanPart | None = None
    plans: list[PlanPart] = field(default_factory=list)
    plan_total: int = 0
    problems: list[ProblemPart] = field(default_factory=list)
    problem_total: int = 0
    live: list[RunPart] = field(default_factory=list)
    live_total: int = 0
    ended: list[RunPart] = field(default_factory=list)
    run_total: int = 0
    tasks: list[TaskPart] = field(default_factory=list)
    task_total: int = 0
    messages: list[MessagePart] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)  # of what is current: at work, or lately
    seconds: float | None = None
    seconds_left: float | None = None
    usage: Usage = field(default_factory=lambda: Usage([]))
