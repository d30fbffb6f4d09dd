"""The agents of this machine: which could begin at once, and what the others lack.

Nothing is started and no secret is read: programs are looked for on PATH, as a start does.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from lib import config, doctor_agents, redact, runner
from lib.api.exchange import Answer, Request
from lib.api.route import FLAG, TEXT, Route, Schema, ref
from lib.api.schemas import listed, thing
from lib.api.shapes import Shape
from lib.errors import UserError

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.config import Config

FRESH_SECONDS = 10.0  # so old may be what is told
_NAMELESS = ("command", "replay")  # types that are nothing without settings


class AgentList:
    """What was found last, for all threads."""

    def __init__(self, path: str) -> None:
        self._path = path  # of the config; "" for the one that scripts find
        self._lock = threading.Lock()
        self._known: tuple[list[Shape], str] = ([], "")
        self._fresh_until = 0.0

    def get(self) -> tuple[list[Shape], str]:
        """The agents, and why there are none where the config cannot be used."""
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                self._known = _look(self._path)
                self._fresh_until = time.monotonic() + FRESH_SECONDS
            return self._known


def _look(path: str) -> tuple[list[Shape], str]:
    try:
        settings = config.load(path or None)  # as it is now, as for a start
    except UserError as error:
        return [], redact.one_line(str(error))
    names = doctor_agents.agent_names(settings)
    wanted = [name for name in names if name in settings.agents or name not in _NAMELESS]
    return [_agent(settings, name) for name in wanted], ""


def _agent(settings: Config, name: str) -> Shape:
    problem = _problem(settings, name)
    return {"name": redact.one_line(name, 100), "ready": not problem, "problem": problem}


def _problem(settings: Config, name: str) -> str:
    """Why it could not begin; "" for nothing that can be seen."""
    try:
        kind, options, _ = runner.resolve_agent(settings, name)
        variable = runner.missing_key(kind, options)
    except UserError as error:
        return redact.one_line(str(error).removeprefix(f"{name}: "))
    return f"it has no key; set {variable} and start the server again" if variable else ""


def list_agents(service: Service, request: Request) -> Answer:
    found, problem = service.agents.get()
    can_start = service.settings.may_start_tasks and not problem
    return Answer({"agents": found, "can_start": can_start, "problem": problem})


SCHEMAS: dict[str, Schema] = {
    "Agent": thing({"name": TEXT, "ready": FLAG, "problem": TEXT}),
    "AgentList": thing({"agents": listed("Agent"), "can_start": FLAG, "problem": TEXT}),
}

ROUTES = (
    Route(
        "GET",
        "/api/v1/agents",
        list_agents,
        "The agents that tasks can be started with, and what keeps each from it.",
        answers={
            200: (
                "The agents; `can_start`: whether this server starts any at all; `problem`: why "
                "the config cannot be used, which is where they stand.",
                ref("AgentList"),
            )
        },
    ),
)
