"""Runs found by words: all of them must be in the ids, agent, error or title of a run."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

from lib import redact
from lib.api import names
from lib.api.exchange import Answer, Refusal, Request, encode
from lib.api.facts import answer_page
from lib.api.route import TEXT, Query, Route, Schema, ref
from lib.api.schemas import LIMIT, OFFSET, RUN_SUMMARY_OPTIONAL, RUN_SUMMARY_REQUIRED, page, thing
from lib.api.shapes import Key

if TYPE_CHECKING:
    from lib.api.facts import RunFacts
    from lib.api.service import Service
    from lib.index import Index, TaskEntry

MAX_WORDS = 20


class Wanted:
    """Which runs are asked for; Refusal 400 for what makes no sense."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self.words = query.get("q", "").lower().split()
        if len(self.words) > MAX_WORDS:
            raise Refusal(400, f"q must have at most {MAX_WORDS} words")
        self.project = query.get("project", "")
        self.task = query.get("task", "")
        self._agent = query.get("agent", "")
        self._statuses = query.get("status", "").lower().replace(",", " ").split()
        self._since_ns = names.moment("since", query.get("since", ""))
        self._until_ns = names.moment("until", query.get("until", ""))

    def admits_task(self, entry: TaskEntry) -> bool:
        return self.project in ("", entry.project) and self.task in ("", entry.task)

    def choose(self, found: list[RunFacts], title: str) -> list[RunFacts]:
        """Those of the runs of a task with that title that are asked for.

        Ten thousand runs go through here: what is not asked for costs nothing.
        """
        title = title.lower()
        for word in self.words:
            if word not in title:
                found = [run for run in found if word in run.words]
        if self._statuses:
            found = [run for run in found if run.state.status in self._statuses]
        if self._since_ns is not None:
            found = [run for run in found if run.order[0] >= self._since_ns]
        if self._until_ns is not None:
            found = [run for run in found if run.order[0] <= self._until_ns]
        if self._agent:
            found = [run for run in found if self._agent in _agents(run)]
        return found


def _agents(run: RunFacts) -> tuple[str, str]:
    return run.entry.agent, run.entry.run.text("agent")


def search(service: Service, request: Request) -> Answer:
    limit, offset = names.page_of(request.query)
    wanted = Wanted(request.query)
    with service.view.current() as index:
        service.facts.prepare(index)
        titles: dict[Key, str] = {}
        found = _find(service, index, wanted, titles)
        newest = heapq.nlargest(offset + limit, found, key=attrgetter("order"))
        shown = [_json(run, titles[run.key]) for run in newest[offset:]]
    return answer_page(shown, len(found), limit, offset)


def _json(run: RunFacts, title: str) -> bytes:
    return run.found[:-1] + b"," + encode({"title": title})[1:] if title else run.found


def _find(service: Service, index: Index, wanted: Wanted, titles: dict[Key, str]) -> list[RunFacts]:
    """The runs that are wanted; `titles` gets those of all tasks that were looked at."""
    planned = {project: service.plans.titles(index, project) for project in index.plans}
    found: list[RunFacts] = []
    for entry in index.tasks.values():
        if not wanted.admits_task(entry):
            continue
        known = service.facts.of_task(entry)
        title = planned.get(entry.project, {}).get(entry.task, "")
        title = titles[entry.key] = redact.text(title) if title else known.title(entry)
        found += wanted.choose(known.runs_of(entry.key), title)
    return found


SCHEMAS: dict[str, Schema] = {
    "FoundRun": thing(
        {**RUN_SUMMARY_REQUIRED, "project_id": TEXT, "task_id": TEXT},
        {**RUN_SUMMARY_OPTIONAL, "title": TEXT},
    ),
}

_TIME = "2h (ago), a date, or RFC 3339."

ROUTES = (
    Route(
        "GET",
        "/api/v1/search",
        search,
        "A page of the runs that have all these words, the newest first.",
        query=(
            Query(
                "q",
                "Words, in any case, each of them in the id, project, task, agent, model, error "
                f"or title; none: every run; at most {MAX_WORDS}.",
            ),
            Query("project", "Of this project alone."),
            Query("task", "Of tasks with this id alone."),
            Query("agent", "Of this agent alone, by its name or type."),
            Query("status", "With one of these statuses, separated by commas."),
            Query("since", f"That began then or later: {_TIME}"),
            Query("until", f"That began then or before: {_TIME}"),
            LIMIT,
            OFFSET,
        ),
        answers={
            200: ("The page.", page("FoundRun")),
            400: ("A time is none, or there are too many words.", ref("Error")),
        },
    ),
)
