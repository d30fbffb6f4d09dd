"""What a run belongs to: who started it, what it started, and the runs before and after it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lib import ids, procs, runs
from lib.api import lookup, plan_tasks, shapes
from lib.api.exchange import Answer, Refusal, Request
from lib.api.facts import RunFacts
from lib.api.route import FLAG, NUMBER, TEXT, Query, Route, Schema, ref
from lib.api.run_lines import ON_DISK
from lib.api.schemas import AMOUNT, TIME, listed, or_null, thing
from lib.api.shapes import Shape
from lib.errors import EXIT_SIGNAL
from lib.state import Attempt

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.index import Index
    from lib.index_entries import RunEntry

MOST_CHILDREN = 500
MOST_IN_LINE = 250  # of those above it, of those before, of those after
MOST_LEVELS = 40  # of children: what is nested deeper, JSON readers refuse


class Relatives:
    """All runs, by what leads from one to another."""

    def __init__(self, found: list[RunFacts]) -> None:
        self._by_id: dict[str, list[RunFacts]] = {}
        self._children: dict[str, list[RunFacts]] = {}
        self._next: dict[str, list[RunFacts]] = {}
        for run in found:
            self._by_id.setdefault(run.run_id, []).append(run)
            if run.parent:
                self._children.setdefault(run.parent, []).append(run)
            if run.previous:
                self._next.setdefault(run.previous, []).append(run)

    def get(self, entry: RunEntry) -> RunFacts | None:
        found = self._by_id.get(entry.run.run_id, ())
        return next((run for run in found if run.entry.path == entry.path), None)

    def _find(self, run_id: str, near: RunFacts) -> RunFacts | None:
        """Which of the runs of that id another one means: of its task, its project, or the only."""
        found = self._by_id.get(run_id, [])
        for some in (
            [run for run in found if run.key == near.key],
            [run for run in found if run.key[0] == near.key[0]],
            found,
        ):
            if some:
                return some[0] if len(some) == 1 else None
        return None

    def parents(self, run: RunFacts) -> Iterator[RunFacts]:
        """Who started it, who started that one, and so on."""
        return self._line(run, lambda one: self._find(one.parent, one) if one.parent else None)

    def earlier(self, run: RunFacts) -> Iterator[RunFacts]:
        return self._line(run, lambda one: self._find(one.previous, one) if one.previous else None)

    def later(self, run: RunFacts) -> Iterator[RunFacts]:
        """Those that went on where it ended; of two that did, the first."""

        def following(one: RunFacts) -> RunFacts | None:
            found = self._next.get(one.run_id, ())
            mine = (other for other in found if self._find(one.run_id, other) is one)
            return min(mine, key=lambda other: other.order, default=None)

        return self._line(run, following)

    @staticmethod
    def _line(run: RunFacts, step: Callable[[RunFacts], RunFacts | None]) -> Iterator[RunFacts]:
        seen = {run.entry.path}  # a record may claim anything: also that it is its own parent
        while (following := step(run)) is not None and following.entry.path not in seen:
            seen.add(following.entry.path)
            yield following
            run = following

    def children(self, run: RunFacts) -> list[RunFacts]:
        """The runs that were started inside it, the oldest first."""
        found = self._children.get(run.run_id, ())
        mine = [child for child in found if self._find(run.run_id, child) is run]
        return sorted(mine, key=lambda child: child.order)


class _Family:
    """One run with its relatives; `more` when there are too many to be told of."""

    def __init__(self, relatives: Relatives, run: RunFacts) -> None:
        self._relatives = relatives
        self.run = run
        self.more = False
        self.parents = self._first(relatives.parents(run))[::-1]
        self.chain = [
            *self._first(relatives.earlier(run))[::-1],
            run,
            *self._first(relatives.later(run)),
        ]

    def _first(self, line: Iterator[RunFacts]) -> list[RunFacts]:
        found: list[RunFacts] = []
        for run in line:
            if len(found) == MOST_IN_LINE:
                self.more = True
                break
            found.append(run)
        return found

    def children(self) -> list[Shape]:
        """The links of its children, each with its own; those nearest to it before others."""
        top: list[Shape] = []
        seen = {self.run.entry.path}
        queue = deque([(self.run, top, 0)])
        while queue:
            parent, into, level = queue.popleft()
            for child in self._relatives.children(parent):
                if child.entry.path in seen:
                    continue
                if len(seen) > MOST_CHILDREN or level == MOST_LEVELS:
                    self.more = True
                    break
                seen.add(child.entry.path)
                below: list[Shape] = []
                into.append({**_link(child), "children": below})
                queue.append((child, below, level + 1))
        return top


def _link(run: RunFacts) -> Shape:
    entry, used = run.entry, run.usage
    return {
        "run_id": run.run_id,
        "project_id": run.key[0],
        "task_id": run.key[1],
        "agent": entry.agent,
        "status": entry.state.status,
        "started": plan_tasks.moment(shapes.start_time(entry)),
        "ended": plan_tasks.moment(shapes.end_time(entry)),
        "exit_code": _exit_code(entry),
        "reason": shapes.error_summary(entry) or entry.state.reason,
        "cost_usd": used.cost_usd,
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
    }


def _exit_code(entry: RunEntry) -> int | None:
    code = shapes.exit_code(entry)
    return None if code < 0 else code


def _signal(entry: RunEntry) -> str | None:
    """The signal that it ended by, as far as its exit code tells."""
    code = _exit_code(entry)
    if code is None or entry.state.status == runs.COMPLETED:
        return None
    return procs.SIGNAL_NAMES.get(code - EXIT_SIGNAL)


def show_family(service: Service, request: Request) -> Answer:
    query = request.query
    entry = lookup.run_of(
        service, request.params["run"], query.get("project_id", ""), query.get("task_id", "")
    )
    with service.view.current() as index:
        service.facts.prepare(index)
        relatives = Relatives(service.facts.of_runs(index.tasks.values()))
        run = relatives.get(entry)
        if run is None:
            raise Refusal(404, "run not found")
        return Answer(shapes.redacted(_shape(service, index, _Family(relatives, run))))


def _shape(service: Service, index: Index, family: _Family) -> Shape:
    run = family.run
    entry = run.entry
    children = family.children()
    attempts = _attempts(index, run)
    return {
        "run_id": run.run_id,
        "project_id": run.key[0],
        "task_id": run.key[1],
        "parents": [_link(one) for one in family.parents],
        "chain": [_link(one) for one in family.chain],
        "children": children,
        "more": family.more,
        "attempt": _attempt(attempts, family),
        "plan_task": attempts is not None,
        "files": _files(entry),
        "signal": _signal(entry),
        "exit_code": _exit_code(entry),
        "agent": entry.agent,
        "model": entry.run.text("model") or None,
        "agent_version": entry.run.text("agent_version") or None,
        "reason": shapes.error_summary(entry) or entry.state.reason,
        "quorum": _quorum(service, index, run, attempts or []),
    }


def _files(entry: RunEntry) -> list[Shape]:
    sizes = {name: shapes.size_of(entry.run.file(on_disk)) for name, on_disk in ON_DISK.items()}
    return [{"name": name, "size": size} for name, size in sizes.items() if size is not None]


def _attempts(index: Index, run: RunFacts) -> list[Attempt] | None:
    """Those of its task in the plan of its project; None where there is no such task."""
    project, task = run.key[0], ids.planned_task(run.key[1])
    plan = index.plans.get(project)
    return plan.tasks[task].attempts if plan is not None and task in plan.tasks else None


def _own(attempts: list[Attempt], run: RunFacts) -> Attempt | None:
    return next((item for item in attempts if plan_tasks.run_id(item) == run.run_id), None)


def _attempt(attempts: list[Attempt] | None, family: _Family) -> Shape | None:
    """Which one it is of the attempts of its plan's task so far, or of the runs of its chain."""
    own = _own(attempts or [], family.run)
    if attempts and own is not None:
        same = [item for item in attempts if item.get("unit") == own.get("unit")]
        return {"number": same.index(own) + 1, "of": len(same)}
    if len(family.chain) > 1:
        return {"number": family.chain.index(family.run) + 1, "of": len(family.chain)}
    return None


def _quorum(service: Service, index: Index, run: RunFacts, attempts: list[Attempt]) -> Shape | None:
    """How many approvals its task needs, and what each has said; None where that is no review."""
    view = service.plans.find(index, run.key[0]) if attempts else None
    task = view.plan.tasks.get(ids.planned_task(run.key[1])) if view and view.plan else None
    needed = view.plan.quorum_of(task) if view and view.plan and task else 0
    if not needed:
        return None
    own = _own(attempts, run)
    told = {str(item.get("unit") or ""): item.get("verdict") for item in attempts}
    return {
        "needed": needed,
        "verdict": plan_tasks.text(own.get("verdict")) if own else None,
        "verdicts": {unit: str(verdict) for unit, verdict in told.items() if verdict},
    }


_LINK: dict[str, Schema] = {
    "run_id": TEXT,
    "project_id": TEXT,
    "task_id": TEXT,
    "agent": TEXT,
    "status": TEXT,
    "started": or_null(TIME),
    "ended": or_null(TIME),
    "exit_code": or_null(NUMBER),
    "reason": TEXT,
    "cost_usd": or_null(AMOUNT),
    "input_tokens": or_null(NUMBER),
    "output_tokens": or_null(NUMBER),
}

SCHEMAS: dict[str, Schema] = {
    "RunLink": thing(_LINK),
    "RunTree": thing({**_LINK, "children": listed("RunTree")}),
    "RunFamily": thing(
        {
            "run_id": TEXT,
            "project_id": TEXT,
            "task_id": TEXT,
            "parents": listed("RunLink"),
            "chain": listed("RunLink"),
            "children": listed("RunTree"),
            "more": FLAG,
            "attempt": or_null(thing({"number": NUMBER, "of": NUMBER})),
            "plan_task": FLAG,
            "files": {"type": "array", "items": thing({"name": TEXT, "size": NUMBER})},
            "signal": or_null(TEXT),
            "exit_code": or_null(NUMBER),
            "agent": TEXT,
            "model": or_null(TEXT),
            "agent_version": or_null(TEXT),
            "reason": TEXT,
            "quorum": or_null(
                thing(
                    {
                        "needed": NUMBER,
                        "verdict": or_null(TEXT),
                        "verdicts": {"type": "object", "additionalProperties": TEXT},
                    }
                )
            ),
        }
    ),
}

ROUTES = (
    Route(
        "GET",
        "/api/v1/runs/{run}/family",
        show_family,
        "What a run belongs to: who started it, what it started, and the runs before and after it.",
        answers={
            200: (
                "Parents from the first one down; the chain, with the run, the oldest first; and "
                f"children with theirs, at most {MOST_CHILDREN} in all. `more`: some are left out.",
                ref("RunFamily"),
            ),
            404: ("There is no such run.", ref("Error")),
            409: ("Several runs have that id.", ref("Error")),
        },
        query=(
            Query("project_id", "With task_id: of several runs of that id, that of this task."),
            Query("task_id", "See project_id."),
        ),
    ),
)
