"""The runs of a project in one list, from which the page builds its tree.

The page asks every second or so, for the runs that live and for those of the
task it shows; added are the runs without which the tree would have no roots:
who started them, what they follow on, and what they started.  The rules are
those of the original.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

from lib.api import names
from lib.api.exchange import Answer, Refusal, Request
from lib.api.facts import RunFacts, join
from lib.api.route import Query, Route, ref
from lib.api.schemas import wrapped
from lib.api.service import Service

if TYPE_CHECKING:
    from lib.index import Index

MAX_SELECTED = 200


def list_flat(service: Service, request: Request) -> Answer:
    query = request.query
    only_active = names.is_on(query.get("active_only", ""))
    selected = query.get("selected_task_id", "")
    if selected:
        names.check("selected_task", selected)
    limit = _limit_of(query.get("selected_task_limit", ""))
    project = request.params["project"]

    def make(index: Index) -> bytes:
        service.facts.prepare(index)
        members = [entry for (name, _), entry in index.tasks.items() if name == project]
        found = service.facts.of_runs(members)
        if only_active or selected:
            found = Selection(found).choose(selected=selected, limit=limit, only_active=only_active)
        found.sort(key=attrgetter("order"))
        return b'{"runs":' + join(run.flat for run in found) + b"}\n"

    if selected:
        with service.view.current() as index:
            return Answer(make(index))
    return Answer(service.view.answer(("flat", project, only_active), make))


def _limit_of(text: str) -> int:
    """How many runs of the selected task are wanted, 0 for all; Refusal 400 for no number."""
    number = names.whole_number(text) if text else 0
    if number is None or number < 0:
        raise Refusal(
            400,
            "invalid selected_task_limit",
            selected_task_limit="must be a non-negative integer",
        )
    return min(number, MAX_SELECTED)


class Selection:
    """Chooses among the runs of a project."""

    def __init__(self, found: list[RunFacts]) -> None:
        self.runs = found
        self.by_id = {run.run_id: run for run in found}
        self.started: dict[str, list[RunFacts]] = {}  # by the run that started them
        for run in found:
            if run.parent:
                self.started.setdefault(run.parent, []).append(run)

    def choose(self, *, selected: str, limit: int, only_active: bool) -> list[RunFacts]:
        of_task = [run for run in self.runs if run.task == selected] if selected else []
        if limit:
            of_task = sorted(of_task, key=_recency, reverse=True)[:limit]
        chosen = {run.run_id for run in of_task}
        if only_active:
            chosen.update(run.run_id for run in self.runs if run.is_active)
        is_idle = only_active and not selected and not chosen
        if selected and limit:
            chosen |= self._anchors_of(of_task, chosen)
        elif only_active and not selected:
            if is_idle:
                chosen.update(run.run_id for run in self._latest(self.runs))
            chosen |= self._anchors(chosen)
        seeds = set(chosen)
        self._add_ancestors(chosen)
        self._add_descendants(chosen, seeds, is_idle)
        return [run for run in self.runs if run.run_id in chosen]

    # -- anchors: the runs by which a task hangs on another one

    def _is_anchor(self, run: RunFacts) -> bool:
        parent = self.by_id.get(run.parent)
        return parent is not None and parent.task != run.task

    def _anchored(self, chosen: Iterable[str]) -> set[str]:
        """The tasks of which an anchor is among the chosen runs."""
        known = (self.by_id[name] for name in chosen)
        return {run.task for run in known if self._is_anchor(run)}

    def _anchors(self, chosen: set[str]) -> set[str]:
        """The latest anchor of each task that has one, but none among the chosen."""
        has_one = self._anchored(chosen)
        started = (run for runs in self.started.values() for run in runs)
        anchors = [run for run in started if run.task not in has_one and self._is_anchor(run)]
        return {run.run_id for run in self._latest(anchors)}

    def _anchors_of(self, of_task: list[RunFacts], chosen: set[str]) -> set[str]:
        """An anchor for each task on the way up from these runs that has none among the chosen."""
        ancestry = {run.run_id for run in of_task}
        self._add_ancestors(ancestry)
        has_one = self._anchored(chosen)
        met: dict[str, int] = {}  # task: when something last happened in it, on the way up
        for name in ancestry:
            run = self.by_id[name]
            met[run.task] = max(run.activity_ns, met.get(run.task, 0))
        found: set[str] = set()
        for task in met.keys() - has_one:
            anchors = [run for run in self.runs if run.task == task and self._is_anchor(run)]
            near = [run for run in anchors if run.run_id in ancestry]
            before = [run for run in anchors if run.activity_ns <= met[task]]
            found.update(run.run_id for run in self._latest(near or before or anchors))
        return found

    def _latest(self, found: Iterable[RunFacts]) -> list[RunFacts]:
        """The latest run of each task."""
        latest: dict[str, RunFacts] = {}
        for run in found:
            known = latest.get(run.task)
            if known is None or _recency(run) > _recency(known):
                latest[run.task] = run
        return list(latest.values())

    # -- what hangs on what

    def _add_ancestors(self, chosen: set[str], *, of_task_alone: bool = False) -> None:
        """Add what these runs follow on and were started by, and so on upwards.

        With `of_task_alone` only what they follow on.
        """
        queue = [self.by_id[name] for name in chosen]
        while queue:
            run = queue.pop()
            for name in (run.previous,) if of_task_alone else (run.previous, run.parent):
                above = self.by_id.get(name) if name and name not in chosen else None
                if above is not None:
                    chosen.add(name)
                    queue.append(above)

    def _add_descendants(self, chosen: set[str], seeds: set[str], is_idle: bool) -> None:
        """Add what the seeds, and the runs that they follow on, have started, and so on."""
        if not self.started:
            return
        tops = set(seeds)
        self._add_ancestors(tops, of_task_alone=True)
        queue = list(tops)
        seen = set(tops)
        while queue:
            above = self.by_id[queue.pop()]
            for run in self.started.get(above.run_id, ()):
                is_leaf = run.task == above.task and run.run_id not in self.started
                if run.run_id in seen or (is_idle and is_leaf):
                    continue
                seen.add(run.run_id)
                chosen.add(run.run_id)
                queue.append(run.run_id)


def _recency(run: RunFacts) -> tuple[int, tuple[int, str]]:
    return run.activity_ns, run.order


ROUTES = (
    Route(
        "GET",
        "/api/projects/{project}/runs/flat",
        list_flat,
        "The runs of a project by their start; an unknown project has none.",
        query=(
            Query(
                "active_only",
                "1, true, yes or on: those that live, or the last of each task, and what they "
                "hang on.",
            ),
            Query("selected_task_id", "Also the runs of this task, and what they hang on."),
            Query("selected_task_limit", "Of those the latest so many, 200 at most; 0: all."),
        ),
        answers={
            200: ("The runs.", wrapped("runs", "FlatRun")),
            400: ("selected_task_limit is no number.", ref("Error")),
        },
    ),
)
