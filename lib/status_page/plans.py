"""Plans as parts of a page: stages with their cards, and the line of time."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lib import ids, redact, report, waits
from lib.index import Index
from lib.monitor.plans import PlanView
from lib.plan_path import critical_path
from lib.situation import Situation
from lib.state import QUOTA, RUNNING, Attempt, TaskState
from lib.status_page import layout, states
from lib.status_page.limits import PATH_LIMIT, TITLE_LIMIT, Limits
from lib.status_page.records import Bar, Card, Column, Line, PlanPart
from lib.usage import Usage

MANY_CARDS = 40  # of a stage: from then on those that are done are folded away


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when an attempt went on."""

    start: float
    end: float
    attempt: Attempt


class Maker:
    """Makes the parts of plans, with as many cards together as there may be."""

    def __init__(self, index: Index, now: float, limits: Limits) -> None:
        self.index = index
        self.now = now
        self.limits = limits
        self.room = limits.cards

    def row(self, view: PlanView) -> PlanPart:
        """A plan as one row of a list."""
        counts = count(self.index, view)
        kind, word = states.of_plan(view, counts)
        attempts = attempts_of(view)
        started, ended = seconds_of(view.text("started")), seconds_of(view.text("ended"))
        until = self.now if view.entry.is_run else view.changed_ns / ids.NANOSECONDS
        return PlanPart(
            project=redact.one_line(view.project, TITLE_LIMIT),
            title=redact.one_line(view.plan.title, TITLE_LIMIT) if view.plan else "",
            kind=kind,
            word=word,
            why=redact.one_line(_why_not(view), self.limits.why),
            plan_path=redact.one_line(view.text("plan"), PATH_LIMIT),
            counts=counts,
            total=len(view.scope),
            started=started,
            ended=None if view.entry.is_run else ended,
            seconds=max(0.0, until - started) if started else None,
            seconds_left=view.seconds_left(),
            worked_seconds=sum(_worked(item, until) for item in attempts),
            usage=Usage(_figures(self.index, view, attempts)),
        )

    def part(self, view: PlanView) -> PlanPart:
        """All of a plan."""
        details = _Details(self, view)
        part = self.row(view)
        part.columns = details.columns()
        part.lines = details.lines()
        part.lines_left_out = sum(map(bool, details.spans.values())) - len(part.lines)
        part.critical = [redact.one_line(name, self.limits.name) for name in details.critical]
        part.critical_seconds = sum(details.taken.get(name, 0.0) for name in details.critical)
        part.is_slim = details.is_slim
        return part

    def choose(self, view: PlanView) -> set[str]:
        """The tasks that get a card: where there are too many, first those that are not done."""
        scope = view.scope
        if len(scope) > self.room:
            scope = sorted(scope, key=lambda name: states.of_task(view.task(name)) == states.DONE)
        chosen = set(scope[: self.room])
        self.room -= len(chosen)
        return chosen


class _Details:
    """The tasks of one plan; `taken` is how long each that was begun was worked on."""

    def __init__(self, maker: Maker, view: PlanView) -> None:
        self._maker = maker
        self._limits = maker.limits
        self._view = view
        self.spans = {name: self._spans(name) for name in view.scope}
        self.taken = {
            name: layout.covered((span.start, span.end) for span in found)
            for name, found in self.spans.items()
            if found
        }
        self.critical = _critical(view, maker.index.runs_dir)
        self._is_critical = frozenset(self.critical)
        self.is_slim = len(view.scope) >= self._limits.slim_from

    def columns(self) -> list[Column]:
        chosen = self._maker.choose(self._view)
        return [self._column(title, names, chosen) for title, names in _stages(self._view)]

    def _column(self, title: str, names: Sequence[str], chosen: set[str]) -> Column:
        cards = [self._card(name) for name in names if name in chosen]
        is_many = len(cards) > MANY_CARDS
        return Column(
            name=redact.one_line(title, TITLE_LIMIT),
            counts=Counter(self._kind(name) for name in names),
            total=len(names),
            cards=[card for card in cards if not (is_many and card.kind == states.DONE)],
            folded=[card for card in cards if is_many and card.kind == states.DONE],
            left_out=len(names) - len(cards),
        )

    def _kind(self, name: str) -> str:
        return kind_of(self._maker.index, self._view, name)

    def _card(self, name: str) -> Card:
        view, entry, limit = self._view, self._view.task(name), self._limits.name
        task = view.plan.tasks.get(name) if view.plan else None
        title = task.title if task and task.title != name and not self.is_slim else ""
        kind = self._kind(name)
        word = kind if kind in (states.WAITING, states.QUOTA, states.PENDING) else entry.state
        tries = Counter(
            str(item.get("unit")) for item in entry.attempts if item.get("result") != QUOTA
        )
        return Card(
            task=redact.one_line(name, limit),
            title=redact.one_line(title, TITLE_LIMIT),
            kind=kind,
            word=redact.one_line(word, limit),
            agent=redact.one_line(_agent(view, name, entry), limit),
            tries=max(tries.values(), default=0),
            judges=len(tries),
            seconds=self.taken.get(name),
            usage=Usage(_figures(self._maker.index, view, entry.attempts)),
            why=redact.one_line(self._why(name, entry, kind), self._limits.why),
            is_critical=name in self._is_critical,
        )

    def _why(self, name: str, entry: TaskState, kind: str) -> str:
        if kind == states.DONE:
            return str((entry.attempts[-1].get("note") or "") if entry.attempts else "")
        is_settled = kind in (states.FAILED, states.BLOCKED) or not self._view.entry.is_run
        return entry.why if is_settled and entry.why else self._view.sentence(name)

    def _spans(self, name: str) -> list[Span]:
        view = self._view
        last = self._maker.now if view.entry.is_run else view.changed_ns / ids.NANOSECONDS
        found = []
        for item in view.task(name).attempts:
            start = seconds_of(item.get("started"))
            if start is not None:
                end = seconds_of(item.get("ended")) or last
                found.append(Span(start, max(start, end), item))
        return found

    def lines(self) -> list[Line]:
        """In the order in which they began; of too many those that took longest."""
        names = heapq.nlargest(
            self._limits.lines,
            self.taken,
            key=lambda name: (name in self._is_critical, self.taken[name]),
        )
        return sorted(map(self._line, names), key=lambda line: line.start)

    def _line(self, name: str) -> Line:
        spans = self.spans[name]
        drawn = [self._bar(span) for span in spans[-self._limits.bars :]]
        return Line(
            task=redact.one_line(name, self._limits.name),
            kind=self._kind(name),
            seconds=self.taken[name],
            is_critical=name in self._is_critical,
            bars=drawn,
            left_out=len(spans) - len(drawn),
        )

    def _bar(self, span: Span) -> Bar:
        item, limit = span.attempt, self._limits.name
        run = os.path.basename(str(item.get("run") or ""))
        return Bar(
            start=span.start,
            end=span.end,
            kind=self._kind_of_attempt(item),
            run=redact.one_line(run, limit),
            agent=redact.one_line(str(item.get("agent") or ""), limit),
        )

    def _kind_of_attempt(self, item: Attempt) -> str:
        """Of one that nobody has noted the end of, what its run says."""
        result = str(item.get("result") or "")
        if result != RUNNING or self._view.entry.is_run:
            return states.of_run(result)
        run = self._maker.index.runs.get(self._view.path_of(item))
        return states.of_run(run.state.status) if run else states.UNKNOWN


def kind_of(index: Index, view: PlanView, name: str) -> str:
    """How a task stands; one that was at work when the plan was cut off is to be begun again."""
    entry = view.task(name)
    kind = states.of_task(entry, is_run=view.entry.is_run)
    if kind == states.RUNNING and not view.entry.is_run:
        runs = [index.runs.get(view.path_of(item)) for item in waits.running(entry)]
        is_live = any(run is not None and run.is_live for run in runs)
        return states.RUNNING if is_live else states.PENDING
    return kind


def count(index: Index, view: PlanView) -> Counter[str]:
    """The tasks in scope by their kind."""
    return Counter(kind_of(index, view, name) for name in view.scope)


def attempts_of(view: PlanView) -> list[Attempt]:
    """All attempts of the tasks in scope."""
    return [item for name in view.scope for item in view.task(name).attempts]


def _figures(
    index: Index, view: PlanView, attempts: Iterable[Attempt]
) -> Iterator[Mapping[str, object]]:
    """What attempts have used; of one that runs its record knows more."""
    for attempt in attempts:
        run = index.runs.get(view.path_of(attempt)) if attempt.get("result") == RUNNING else None
        yield run.run.record if run else attempt


def seconds_of(moment: object) -> float | None:
    """Seconds since 1970; None for what is no time."""
    nanoseconds = ids.parse_rfc3339(moment)
    return nanoseconds / ids.NANOSECONDS if nanoseconds else None


def _why_not(view: PlanView) -> str:
    """What keeps it from going on, or from being read."""
    if view.entry.problem:
        return view.entry.problem
    if hold := view.hold():
        return f"nothing new starts: {hold}"
    return "" if view.entry.is_run else view.text("closing")


def _stages(view: PlanView) -> list[tuple[str, list[str]]]:
    """(title, its tasks in scope) of each stage; one for all where the plan file is not known."""
    if view.plan is None:
        return [("Tasks", view.scope)] if view.scope else []
    scope = set(view.scope)
    found = [(s.title, [t.id for t in s.tasks if t.id in scope]) for s in view.plan.stages]
    return [(title, names) for title, names in found if names]


def _critical(view: PlanView, runs_dir: str) -> list[str]:
    """The chain of tasks that decides the end; [] where the plan file is not known."""
    if view.plan is None:
        return []
    entry = view.entry
    is_run = entry.is_run
    seen = Situation(view.plan, entry.header, entry.tasks, runs_dir, is_run=is_run)
    return critical_path(seen)


def _agent(view: PlanView, name: str, entry: TaskState) -> str:
    """Who worked on it, else who is to."""
    task = view.plan.tasks.get(name) if view.plan else None
    if entry.attempts or task is None or view.plan is None:
        return report.who(entry)
    return task.agent or " or ".join(view.plan.roles[task.role].agents if task.role else ())


def _worked(attempt: Attempt, until: float) -> float:
    """Seconds that an agent worked; of an attempt that runs those so far."""
    told = attempt.get("seconds")
    if isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told < 1e9:
        return float(told)
    start = seconds_of(attempt.get("started"))
    is_open = attempt.get("result") == RUNNING
    return max(0.0, until - start) if start and is_open else 0.0
