"""Every endpoint of the server."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from lib.api import (
    agent_list,
    control,
    core,
    events,
    family,
    file_streams,
    flat,
    log_streams,
    login,
    message_streams,
    messages,
    metrics,
    openapi,
    overview,
    plan_control,
    plans,
    posts,
    projects,
    removal,
    run_files,
    run_lines,
    run_pages,
    search,
    task_pages,
    totals,
    transcripts,
)
from lib.api.exchange import Answer, Request, encode
from lib.api.route import Route, Schema

if TYPE_CHECKING:
    from lib.api.service import Service


@cache
def description() -> bytes:
    """The OpenAPI document, as it is sent."""
    return encode(openapi.describe(ROUTES, SCHEMAS)) + b"\n"


def describe(service: Service, request: Request) -> Answer:
    return Answer(description())


_MODULES = (
    core, login, projects, task_pages, run_pages, flat, run_files, run_lines, family, agent_list, messages, log_streams,
    message_streams, file_streams, transcripts, control, plan_control, posts, removal, plans, search, totals,
    metrics, overview, events,
)  # fmt: skip
_SELF = Route(
    "GET", "/api/openapi.json", describe, "This description.",
    answers={200: ("An OpenAPI 3.1 document.", {"type": "object", "required": ["openapi"]})},
)  # fmt: skip
ROUTES: tuple[Route, ...] = (_SELF, *(route for module in _MODULES for route in module.ROUTES))
SCHEMAS: dict[str, Schema] = {
    name: schema for module in _MODULES for name, schema in getattr(module, "SCHEMAS", {}).items()
}
