"""The endpoints about the server itself: health, version, status, and what is not ported."""

from __future__ import annotations

import os

from lib import VERSION, ids, paths, redact
from lib.api.exchange import Answer, Refusal, Request
from lib.api.route import FLAG, NUMBER, TEXT, Route, Schema, ref
from lib.api.service import Service


def health(service: Service, request: Request) -> Answer:
    return Answer({"status": "ok"})


def healthz(service: Service, request: Request) -> Answer:
    return Answer({"status": "ok", "uptime": duration(service.uptime_seconds())})


def version(service: Service, request: Request) -> Answer:
    return Answer({"version": VERSION})


def status(service: Service, request: Request) -> Answer:
    with service.view.current() as index:
        live = index.live()
    running = [
        {
            "project_id": entry.project,
            "task_id": entry.task,
            "run_id": entry.run.run_id,
            "agent": entry.agent,
            "started": ids.rfc3339(entry.started_ns) if entry.started_ns else ids.ZERO_TIME,
        }
        for entry in reversed(live)
    ]
    return Answer(
        {
            "active_runs_count": len(live),
            "uptime_seconds": service.uptime_seconds(),
            "configured_agents": sorted(service.config.agents),
            "version": VERSION,
            "running_tasks": redact.values(running),
            "may_start_tasks": service.settings.may_start_tasks,
            "command_options": redact.values(_command_options(service.runs_dir)),
        }
    )


def _command_options(runs_dir: str) -> list[str]:
    """By what the scripts of bin/ find this root; nothing for that of the clone."""
    if runs_dir == os.path.join(paths.TOOLKIT, "runs"):
        return []
    return ["--runs-dir", runs_dir]


def self_update(service: Service, request: Request) -> Answer:
    with service.view.current() as index:
        count = len(index.live())
    times = dict.fromkeys(("requested_at", "started_at", "finished_at"), ids.ZERO_TIME)
    return Answer({"state": "idle", **times, "active_runs_now": count})


def start_self_update(service: Service, request: Request) -> Answer:
    raise Refusal(501, "this server does not update itself; update the clone and start it again")


def duration(seconds: float) -> str:
    """Whole seconds as Go writes a duration: `9s`, `1m22s`, `1h0m3s`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _shape(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


SCHEMAS: dict[str, Schema] = {
    "Health": _shape(status={"const": "ok"}),
    "Uptime": _shape(status={"const": "ok"}, uptime=TEXT),
    "Version": _shape(version=TEXT),
    "RunningTask": _shape(project_id=TEXT, task_id=TEXT, run_id=TEXT, agent=TEXT, started=TEXT),
    "Status": _shape(
        active_runs_count=NUMBER,
        uptime_seconds={"type": "number"},
        configured_agents={"type": "array", "items": TEXT},
        version=TEXT,
        running_tasks={"type": "array", "items": ref("RunningTask")},
        may_start_tasks=FLAG,
        command_options={"type": "array", "items": TEXT},
    ),
    "SelfUpdate": _shape(
        state={"const": "idle"},
        requested_at=TEXT,
        started_at=TEXT,
        finished_at=TEXT,
        active_runs_now=NUMBER,
    ),
}

ROUTES: tuple[Route, ...] = (
    Route(
        "GET", "/api/v1/health", health, "Whether the server answers.",
        answers={200: ("It does.", ref("Health"))}, open_to_all=True,
    ),
    Route(
        "GET", "/healthz", healthz, "Whether the server answers, and for how long it has.",
        answers={200: ("It does.", ref("Uptime"))}, open_to_all=True,
    ),
    Route(
        "GET", "/api/v1/version", version, "The version of the toolkit.",
        answers={200: ("The version.", ref("Version"))}, open_to_all=True,
    ),
    Route(
        "GET", "/api/v1/status", status, "The server and the runs that live, oldest first.",
        answers={200: ("The status.", ref("Status"))},
    ),
    Route(
        "GET", "/api/v1/admin/self-update", self_update,
        "The state of a self-update: always idle, as there is none.",
        answers={200: ("The state.", ref("SelfUpdate"))},
    ),
    Route(
        "POST", "/api/v1/admin/self-update", start_self_update, "Not ported.",
        answers={501: ("This server does not update itself.", ref("Error"))},
    ),
)  # fmt: skip
