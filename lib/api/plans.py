"""The plans of the storage: how each stands, and one in full."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lib.api import plan_shapes, plan_tasks
from lib.api.exchange import Answer, Refusal, Request, encode
from lib.api.facts import join
from lib.api.plan_tasks import Parts
from lib.api.route import FLAG, NUMBER, TEXT, Route, Schema, ref
from lib.api.schemas import AMOUNT, COUNTS, TEXTS, TIME, listed, or_null, thing, wrapped
from lib.monitor.plans import PlanView

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.index import Index

ANSWER_SECONDS = 0.5  # so long an answer stands in which time alone changes something
CHEAP_SECONDS, SHARE = 0.02, 10  # what costs more may take up one part of so many of the time


class Plans:
    """The plans of an index with what their files tell; to be used inside `view.current()` only."""

    def __init__(self) -> None:
        self._views: dict[str, PlanView] = {}
        self._parts: dict[str, Parts] = {}
        self._answers: dict[str, _Kept] = {}

    def find(self, index: Index, project: str) -> PlanView | None:
        """The plan of a project, as it is now; None where there is none."""
        entry = index.plans.get(project)
        if entry is None:
            self._views.pop(project, None)
            return None
        view = self._views.get(project)
        if view is None or view.entry is not entry:
            view = self._views[project] = PlanView(entry, index.runs_dir)
        else:
            view.refresh()
        return view

    def titles(self, index: Index, project: str) -> dict[str, str]:
        """What the plan calls its tasks, by their ids, as far as its file can be read."""
        view = self.find(index, project)
        plan = view.plan if view else None
        return {name: task.title for name, task in plan.tasks.items()} if plan else {}

    def answer(self, index: Index, project: str, moment: tuple[int, int]) -> bytes | None:
        """The plan in full as JSON; None where there is no plan.

        `moment` has the counts of the view and of the tokens that are known.  An
        answer that costs much stands for longer: everybody waits while it is made.
        """
        known = self._answers.get(project)
        if known is not None and known.stands(moment):
            return known.data
        began = time.thread_time()
        view = self.find(index, project)
        if view is None:
            self._answers.pop(project, None)
            self._parts.pop(project, None)
            return None
        parts = self._parts.setdefault(project, Parts())
        data = plan_shapes.detail(index, view, parts, moment[1])
        self._answers[project] = _Kept(moment, data, time.thread_time() - began)
        return data


class _Kept:
    """An answer, of when it is, and what it cost."""

    def __init__(self, moment: tuple[int, int], data: bytes, seconds: float) -> None:
        self._moment = moment
        self._made = time.monotonic()
        self._rest_seconds = SHARE * seconds if seconds > CHEAP_SECONDS else 0.0
        self.data = data

    def stands(self, moment: tuple[int, int]) -> bool:
        age = time.monotonic() - self._made
        if moment[1] != self._moment[1]:
            return False
        return age < (ANSWER_SECONDS if moment == self._moment else self._rest_seconds)


def list_plans(service: Service, request: Request) -> Answer:
    def make(index: Index) -> bytes:
        service.facts.prepare(index)
        found = [plan_shapes.summary(entry) for entry in index.plans.values()]
        found.sort(key=lambda plan: str(plan["project_id"]))
        found.sort(key=lambda plan: (plan["is_run"], str(plan["updated"])), reverse=True)
        return b'{"plans":' + join(map(encode, found)) + b"}\n"

    return Answer(service.view.answer("plans", make))


def show_plan(service: Service, request: Request) -> Answer:
    with service.view.current() as index:
        service.facts.prepare(index)
        moment = service.view.count, service.facts.tokens
        data = service.plans.answer(index, request.params["project"], moment)
    if data is None:
        raise Refusal(404, "plan not found")
    return Answer(data)


FIGURES: dict[str, Schema] = {
    "input_tokens": or_null(NUMBER),
    "cached_tokens": or_null(NUMBER),
    "output_tokens": or_null(NUMBER),
    "cost_usd": or_null(AMOUNT),
    "cost_estimated": FLAG,
}
USE: dict[str, Schema] = {
    **FIGURES,
    "runs_without_tokens": NUMBER,
    "runs_without_cost": NUMBER,
}
SUMMARY: dict[str, Schema] = {
    "project_id": TEXT,
    "state": {"type": "string", "enum": list(plan_shapes.STATES)},
    "is_run": FLAG,
    "counts": COUNTS,
    "total": NUMBER,
    "started": or_null(TIME),
    "updated": or_null(TIME),
    "ended": or_null(TIME),
    "exit_code": or_null(NUMBER),
    **USE,
}
_OR_TEXT = or_null(TEXT)

SCHEMAS: dict[str, Schema] = {
    "PlanSummary": thing(SUMMARY, {"problem": TEXT}),
    "Plan": thing(
        {
            **SUMMARY,
            "title": TEXT,
            "plan": TEXT,
            "is_plan_known": FLAG,
            "max_parallel": or_null(NUMBER),
            "hold": TEXT,
            "seconds_left": or_null(NUMBER),
            "stages": listed("PlanStage"),
            "tasks": listed("PlanTask"),
            "critical_path": TEXTS,
            "edges": {"type": "array", "items": thing({"from": TEXT, "to": TEXT})},
            "timeline": thing({"start": or_null(TIME), "end": or_null(TIME)}),
            "totals": thing({"seconds": AMOUNT, **USE, "tokens_text": TEXT, "cost_text": TEXT}),
            "quota_waits": listed("QuotaWait"),
        },
        {"problem": TEXT},
    ),
    "PlanStage": thing(
        {
            "id": TEXT,
            "title": TEXT,
            "barrier": FLAG,
            "is_open": FLAG,
            "state": {"type": "string", "enum": list(plan_shapes.STAGE_STATES)},
            "counts": COUNTS,
            "tasks": TEXTS,
        }
    ),
    "PlanTask": thing(
        {
            "id": TEXT,
            "title": TEXT,
            "stage": TEXT,
            "role": _OR_TEXT,
            "in_scope": FLAG,
            "state": TEXT,
            "why": TEXT,
            "until": or_null(TIME),
            "attempts": NUMBER,
            "agents_asked": TEXTS,
            "agents_used": TEXTS,
            "wave": or_null(NUMBER),
            "depends_on": TEXTS,
            "blocked_by": TEXTS,
            "quorum": NUMBER,
            "verdicts": {"type": "object", "additionalProperties": TEXT},
            "runs": listed("PlanRun"),
            "seconds": AMOUNT,
            **USE,
        }
    ),
    "PlanRun": thing(
        {
            "run_id": TEXT,
            "kind": {"type": "string", "enum": [plan_tasks.ATTEMPT, plan_tasks.CHILD]},
            "unit": TEXT,
            "agent": TEXT,
            "instead_of": _OR_TEXT,
            "result": TEXT,
            "status": _OR_TEXT,
            "started": or_null(TIME),
            "ended": or_null(TIME),
            "seconds": or_null(AMOUNT),
            "exit_code": or_null(NUMBER),
            "verdict": _OR_TEXT,
            "why": _OR_TEXT,
            "note": _OR_TEXT,
            **FIGURES,
        }
    ),
    "QuotaWait": thing(
        {"key": TEXT, "until": or_null(TIME), "reset": or_null(TIME), "why": TEXT, "tasks": TEXTS}
    ),
}

ROUTES = (
    Route(
        "GET",
        "/api/v1/plans",
        list_plans,
        "The plans: those that are run first, then those that changed last.",
        answers={200: ("The plans.", wrapped("plans", "PlanSummary"))},
    ),
    Route(
        "GET",
        "/api/v1/plans/{project}",
        show_plan,
        "A plan in full: stages, tasks and why each stands as it does, runs, and totals.",
        answers={
            200: ("The plan.", ref("Plan")),
            404: ("The project has no plan.", ref("Error")),
        },
    ),
)
