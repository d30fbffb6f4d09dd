"""All that is current on one page: how far everything is, what needs somebody, and what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.api import overview_state
from lib.api.exchange import Answer, Request
from lib.api.plans import FIGURES, SUMMARY, USE
from lib.api.route import NUMBER, TEXT, Route, Schema, ref
from lib.api.schemas import AMOUNT, TIME, listed, or_null, thing
from lib.monitor import current, facts

if TYPE_CHECKING:
    from lib.api.service import Service


def show_overview(service: Service, request: Request) -> Answer:
    with service.view.current() as index:
        service.facts.prepare(index)
        return Answer(service.overview.answer(index))


_WHOSE: dict[str, Schema] = {"project_id": TEXT, "task_id": TEXT}
_LEFT = or_null(NUMBER)

SCHEMAS: dict[str, Schema] = {
    "Overview": thing(
        {
            "time": TIME,
            "counts": thing(dict.fromkeys(current.KINDS, NUMBER)),
            "total": NUMBER,
            "since": or_null(TIME),
            "elapsed_seconds": or_null(NUMBER),
            "seconds_left": _LEFT,
            "usage": thing(USE),
            "disk": thing({"free_bytes": or_null(NUMBER), "total_bytes": or_null(NUMBER)}),
            "last_event": or_null(ref("OverviewEvent")),
            "problems": listed("OverviewProblem"),
            "problem_total": NUMBER,
            "live": listed("OverviewRun"),
            "live_total": NUMBER,
            "plans": listed("OverviewPlan"),
            "plan_total": NUMBER,
            "projects": listed("OverviewProject"),
            "project_total": NUMBER,
            "run_total": NUMBER,
        }
    ),
    "OverviewEvent": thing(
        {
            "time": TIME,
            "type": TEXT,
            "text": TEXT,
            "project_id": or_null(TEXT),
            "task_id": or_null(TEXT),
            "run_id": or_null(TEXT),
        }
    ),
    "OverviewProblem": thing(
        {
            "kind": {"type": "string", "enum": list(facts.KINDS)},
            "severity": {"type": "string", "enum": [overview_state.BAD, overview_state.WARN]},
            "text": TEXT,
            **_WHOSE,
            "run_id": or_null(TEXT),
            "since": or_null(TIME),
            "command": TEXT,
        }
    ),
    "OverviewRun": thing(
        {
            "run_id": TEXT,
            **_WHOSE,
            "agent": TEXT,
            "model": or_null(TEXT),
            "status": TEXT,
            "started": or_null(TIME),
            "seconds": AMOUNT,
            "silent_seconds": or_null(AMOUNT),
            "last_line": TEXT,
            **{name: FIGURES[name] for name in FIGURES if name != "cached_tokens"},
            "title": TEXT,
        }
    ),
    "OverviewPlan": thing({**SUMMARY, "title": TEXT, "seconds_left": _LEFT}, {"problem": TEXT}),
    "OverviewProject": thing(
        {
            "id": TEXT,
            "task_count": NUMBER,
            "run_count": NUMBER,
            "live_count": NUMBER,
            "failed_count": NUMBER,
            "last_activity": or_null(TIME),
        }
    ),
}

ROUTES = (
    Route(
        "GET",
        "/api/v1/overview",
        show_overview,
        "All that is current: how far it is, what needs somebody, what runs, plans and projects.",
        answers={200: ("The overview.", ref("Overview"))},
    ),
)
