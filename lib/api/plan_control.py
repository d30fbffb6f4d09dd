"""Starting and stopping plans, and doing again what a run did.

A plan that is started here is a `run-all-tasks.py --detach` in a session of its
own, in the manner of its last start (lib/plan_again.py).  A stop is one signal to
the process that its lock names: what it begins needs no server.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from lib import files, ids, loop_record, plan_again, procs, redact, runs, state, tasks
from lib.api import audit, control, lookup, places, schemas
from lib.api.exchange import Answer, Refusal, Request
from lib.api.route import FLAG, NUMBER, TEXT, Route, Schema, ref
from lib.api.schemas import TEXTS, thing
from lib.errors import UserError
from lib.monitor.cures import Cures
from lib.monitor.plans import MOST_BYTES
from lib.plan import Plan, PlanError, load_plan

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.index_entries import RunEntry

MOST_CHOSEN = 1000  # tasks of a start
HOLDER_SECONDS = 5.0  # in which a plan that begins has its lock signed
_POLL_SECONDS = 0.02
_START_FIELDS: dict[str, type | tuple[type, ...]] = {"retry_failed": bool, "only": list}
_STOP_FIELDS: dict[str, type | tuple[type, ...]] = {"now": bool}
_CHANGED = (
    "the plan file has changed since the last start: what is done stays done, "
    "new tasks are added, and those it no longer has are forgotten"
)

Header = dict[str, object]


# -- starting


def start_plan(service: Service, request: Request) -> Answer:
    control.refuse_for_monitor(service)
    project = request.params["project"]
    body = request.json_body(_START_FIELDS)
    only, retry_failed = _chosen(body.get("only")), body.get("retry_failed") is True
    if only and retry_failed:
        raise Refusal(400, "only and retry_failed exclude each other; leave one out")
    answer = _start(service, project, only, retry_failed=retry_failed)
    audit.record(service, request, body, project=project)
    return _accepted(answer)


def _chosen(value: object) -> list[str]:
    found = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
    if isinstance(value, list) and len(found) < len(value):
        raise Refusal(400, "invalid json: only has a value of another type")
    if len(found) > MOST_CHOSEN:
        raise Refusal(400, f"only: more than {MOST_CHOSEN} tasks")
    return list(dict.fromkeys(found))


def _start(
    service: Service, project: str, only: list[str], *, retry_failed: bool = False
) -> dict[str, object]:
    """Have the plan of a project begin; the answer for it."""
    folder = _folder(service, project)
    with places.lock_of(project):
        if state.is_run(folder):
            text = "the plan is run already; wait for its end, or stop it first"
            raise Refusal(409, text, project_id=project)
        header, known = _read(folder)
        plan = _plan_of(header, project)
        known = plan.tasks if plan else known
        unknown = [name for name in only if name not in known or not ids.is_safe(name)]
        if unknown:
            raise Refusal(400, f"only: the plan has no task {redact.one_line(unknown[0], 100)}")
        try:
            start = plan_again.start(
                header, service.runs_dir, known, only=only, retry_failed=retry_failed
            )
        except UserError as error:
            raise _by_hand(service, header, str(error)) from None
        if not os.path.isdir(start.cwd):
            text = f"the folder that the plan was started in is gone: {start.cwd}"
            raise _by_hand(service, header, text)
        pid = service.launcher.start_plan(start)
    service.view.notice([folder])
    is_changed = plan is not None and plan.sha256 != header.get("plan_sha256")
    return {
        "project_id": project,
        "command": start.line(),
        **({"pid": pid} if pid else {}),
        **({"note": _CHANGED} if is_changed else {}),
    }


def _folder(service: Service, project: str) -> str:
    """The folder of the state of a project's plan; Refusal 404 where it has none."""
    folder = os.path.join(service.runs_dir, project)
    path = os.path.join(folder, state.STATE_NAME)
    if not os.path.lexists(path):
        raise Refusal(404, "plan not found")
    lookup.check_inside(service, path)
    return folder


def _read(folder: str) -> tuple[Header, Collection[str]]:
    """The header of the state, and the ids of its tasks."""
    try:
        header, known = state.read_whole(os.path.join(folder, state.STATE_NAME))
    except FileNotFoundError:
        raise Refusal(404, "plan not found") from None
    except UserError as error:
        raise Refusal(409, redact.one_line(str(error))) from None
    return header, known


def _plan_of(header: Header, project: str) -> Plan | None:
    """What the plan file says now, None for a plan of prompts; Refusal 409 for what is not that plan."""
    path = str(header.get("plan") or "")
    if header.get("prompts_agent"):
        name = ids.slug(os.path.basename(str(header.get("cwd") or "")))
        if name != project:
            raise Refusal(409, f"in the folder of its start the prompts are the project {name}")
        return None
    shown = redact.one_line(path)
    if not os.path.isfile(path):
        raise Refusal(409, f"the plan file is gone: {shown}; put it back, or start another plan")
    if files.size(path) > MOST_BYTES:
        raise Refusal(409, f"the plan file is too large: {shown}; start it in a terminal")
    try:
        plan = load_plan(path)
    except PlanError as error:
        more = f"; and {len(error.faults) - 1} more" if len(error.faults) > 1 else ""
        raise Refusal(409, redact.one_line(error.faults[0]) + more) from None
    if plan.project != project:
        text = f"the plan file is that of another project now, {plan.project}: {shown}"
        raise Refusal(409, text)
    return plan


def _by_hand(service: Service, header: Header, why: str) -> Refusal:
    """The refusal of a plan that cannot be started in the manner of its last start."""
    path, agent = str(header.get("plan") or "PLAN"), str(header.get("prompts_agent") or "")
    words = ["--prompts", path, "--agent", agent] if agent else [path]
    root, name = os.path.split(service.runs_dir)
    place = ["--root", root] if name == "runs" else []
    command = shlex.join([f"./{plan_again.SCRIPT}", *words, *place])
    text = redact.one_line(f"{why}; start it in a terminal once", 1000)
    return Refusal(409, text, command=redact.one_line(command, 1000))


def _accepted(answer: dict[str, object]) -> Answer:
    return Answer({key: redact.values(value) for key, value in answer.items()}, 202)


# -- stopping


def stop_plan(service: Service, request: Request) -> Answer:
    project = request.params["project"]
    body = request.json_body(_STOP_FIELDS)
    folder = _folder(service, project)
    is_now = body.get("now") is True
    pid = _signal(folder, state.STOP if is_now else state.CLOSE)
    service.view.notice([folder])
    audit.record(service, request, body, project=project)
    command = f"kill -{'USR2' if is_now else 'USR1'} {pid}"
    return _accepted({"project_id": project, "command": command, "pid": pid})


def _signal(folder: str, number: int) -> int:
    """Send it to the process that runs the plan: its pid.  Refusal 409 where nobody does.

    A plan that begins may be handed to another process meanwhile, which hands on
    what came before that; what came after it is sent once more.
    """
    limit = time.monotonic() + HOLDER_SECONDS
    sent = 0
    while state.is_run(folder):
        process = state.holder(folder)
        if process is not None and process.pid == sent:
            return sent
        if process is not None and procs.send(process, number):
            procs.send(process, procs.SIGCONT)  # one that is stopped takes it only then
            sent = process.pid
        elif time.monotonic() > limit and sent:
            return sent
        elif time.monotonic() > limit:
            text = "it cannot be known which process runs the plan; stop it where it was started"
            raise Refusal(409, text)
        else:
            time.sleep(_POLL_SECONDS)
    if not sent:
        raise Refusal(409, "the plan is not run", project_id=os.path.basename(folder))
    return sent


# -- again


def retry_run(service: Service, request: Request) -> Answer:
    control.refuse_for_monitor(service)
    request.json_body({})
    entry = lookup.run_of(service, request.params["run"])
    lookup.check_inside(service, entry.path)
    service.view.refresh()  # it may have ended a moment ago
    project, task = _place(entry)
    if entry.is_live:
        raise Refusal(409, "the run is still at work; stop it first", run_id=entry.run.run_id)
    where = _where_in_plan(service, project, task)
    if where == state.DONE:
        text = (
            "in its plan the task is done, and stays so unless its prompt, agent or checks change"
        )
        raise Refusal(409, text, task_id=task)
    if where:
        answer = {**_start(service, project, [task]), "task_id": task}
    elif entry.is_done is not None:
        answer = _start_loop(service, entry, project, task)
    else:
        raise _no_loop(service, entry)
    run_id = str(answer.get("run_id") or "")
    audit.record(service, request, project=project, task=task, run=run_id)
    return _accepted(answer)


def _place(entry: RunEntry) -> tuple[str, str]:
    """Project and task: those of the folder that it lies in, else of the plan that it would be of."""
    if entry.is_done is None:
        return entry.project, ids.planned_task(entry.task)
    task = tasks.Task(runs.task_folder_of(entry.run))
    return task.project, task.task


def _where_in_plan(service: Service, project: str, task: str) -> str:
    """How the task stands in the plan of its project; "" where that has no such task."""
    with service.view.current(now=True) as index:
        plan = index.plans.get(project)
        return plan.tasks[task].state if plan is not None and task in plan.tasks else ""


def _start_loop(service: Service, entry: RunEntry, project: str, name: str) -> dict[str, object]:
    """The loop of the task again, by its agent; one that had no loop is done by that of the run."""
    task = places.task_that_is(service, project, name)
    try:
        known = loop_record.read(task)[0].get("agent")
    except UserError as error:
        raise Refusal(409, redact.one_line(str(error))) from None
    order, position = control.start_again(service, task, "" if known else entry.agent)
    options = ["--resume"] if order.resume else []
    return {
        "project_id": project,
        "task_id": name,
        "run_id": order.run_id,
        "command": Cures(service.runs_dir).task(project, name, *options),
        **({"queue_position": position} if position else {}),
    }


def _no_loop(service: Service, entry: RunEntry) -> Refusal:
    """A single run was given its prompt by somebody; the command does the same."""
    run = entry.run
    words = ["./run-agent.py", entry.agent, run.text("cwd") or ".", run.file(runs.PROMPT)]
    words += ["--project", entry.project, "--task", entry.task, "--previous", run.run_id]
    command = shlex.join([*words, "--runs-dir", service.runs_dir])
    text = "the run belongs to no plan and no task folder; start it again in a terminal"
    return Refusal(409, text, run_id=run.run_id, command=redact.one_line(command, 1000))


_BEGUN = thing({"project_id": TEXT, "command": TEXT}, {"pid": NUMBER, "note": TEXT})
SCHEMAS: dict[str, Schema] = {
    "PlanStart": _BEGUN,
    "PlanStartRequest": schemas.request({}, {"retry_failed": FLAG, "only": TEXTS}),
    "PlanStopped": thing({"project_id": TEXT, "command": TEXT, "pid": NUMBER}),
    "PlanStopRequest": schemas.request({}, {"now": FLAG}),
    "RunRetried": thing(
        {"project_id": TEXT, "task_id": TEXT, "command": TEXT},
        {"run_id": TEXT, "queue_position": NUMBER, "pid": NUMBER, "note": TEXT},
    ),
    "RunRetryRequest": schemas.request({}),
}
_MONITOR = "Nothing is started by this server."
_LATER = "It cannot be done now: the disk is short, or something keeps a lock."
ROUTES = (
    Route(
        "POST",
        "/api/v1/plans/{project}/start",
        start_plan,
        "Start a plan that is not run, in the manner of its last start.",
        body=ref("PlanStartRequest"),
        answers={
            202: ("It has begun, in a process of its own.", ref("PlanStart")),
            400: ("Something in the request is wrong, such as an unknown task.", ref("Error")),
            403: (_MONITOR, ref("Error")),
            404: ("The project has no plan.", ref("Error")),
            409: ("It is run already, or cannot begin; its message tells why.", ref("Error")),
            503: (_LATER, ref("Error")),
        },
    ),
    Route(
        "POST",
        "/api/v1/plans/{project}/stop",
        stop_plan,
        "Have a plan start nothing more and wait for its agents, or stop these, too.",
        body=ref("PlanStopRequest"),
        answers={
            202: ("It has been told.", ref("PlanStopped")),
            404: ("The project has no plan.", ref("Error")),
            409: ("It is not run, or by a process that is not known.", ref("Error")),
        },
    ),
    Route(
        "POST",
        "/api/v1/runs/{run}/retry",
        retry_run,
        "Do again what a run did: its task of a plan, or the loop of its task folder.",
        body=ref("RunRetryRequest"),
        answers={
            202: ("It was started, or waits for a free place.", ref("RunRetried")),
            400: ("Its task cannot be started as it is.", ref("Error")),
            403: (_MONITOR, ref("Error")),
            404: ("There is no such run, or its task is gone.", ref("Error")),
            409: ("It is at work, done in its plan, or its plan is run.", ref("Error")),
            503: (_LATER, ref("Error")),
        },
    ),
)
