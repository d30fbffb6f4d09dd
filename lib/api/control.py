"""Starting, stopping, cancelling and resuming: what people ask for, and processes then do.

Nothing of it hangs on the server: loops and stops are processes of their own
(lib/api/launch.py), and what waits for a free place is in a file (lib/api/root_queue.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lib import cleaning, config, files, ids, loop_control, loop_record, redact, runner, tasks
from lib.api import audit, launch, lookup, names, places, schemas, threads
from lib.api.exchange import Answer, Refusal, Request, text_of
from lib.api.launch import Order
from lib.api.route import FLAG, NUMBER, TEXT, Query, Route, Schema, ref
from lib.api.schemas import TEXTS, thing
from lib.errors import LockTimeoutError, UserError
from lib.loop_record import LoopRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lib.api.service import Service
    from lib.index_entries import RunEntry
    from lib.tasks import Task

MOST_DEPENDENCIES = 1000
MODES = ("", "create", "attach", "resume")
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "project_id": str,
    "task_id": str,
    "agent_type": str,
    "prompt": str,
    "project_root": str,
    "attach_mode": str,
    "config": dict,
    "depends_on": list,
    "thread_parent": dict,
    "thread_message_type": str,
    "process_import": dict,
}
_PATIENCE_SECONDS = 0.3  # for the lock of a loop, which readers take for microseconds


# -- starting


def create_task(service: Service, request: Request) -> Answer:
    refuse_for_monitor(service)
    body = request.json_body(_FIELDS)
    project, task_id = text_of(body, "project_id"), text_of(body, "task_id")
    places.check_ids(project, names.check("task", task_id))
    agent = text_of(body, "agent_type").strip()
    if not agent:
        raise Refusal(400, "agent_type is required")
    prompt = _check_prompt(text_of(body, "prompt"))
    _check_agent(service, agent)
    thread = threads.check(service, body.get("thread_parent"), text_of(body, "thread_message_type"))
    root = text_of(body, "project_root")
    cwd = places.sources(root) if root.strip() else ""
    wanted = _check_dependencies(body.get("depends_on"), task_id)
    mode = text_of(body, "attach_mode").strip()
    if mode not in MODES:
        raise Refusal(400, "attach_mode must be create, attach or resume")
    if "process_import" in body:
        raise Refusal(501, "process_import is not there in this server: it adopts no processes")
    order = Order(
        project,
        task_id,
        launch.new_run_id(),
        agent=agent,
        cwd=cwd,
        resume=mode == "resume",
        variables=launch.check_variables(body.get("config")),
    )
    with places.lock_of(project, task_id):
        position, depends_on = _create(service, order, prompt, wanted, thread)
    if thread is not None:
        threads.tell(service, thread, order, prompt)
    audit.record(service, request, body, project=project, task=task_id, run=order.run_id)
    answer = {**_started(order, position), **({"depends_on": depends_on} if depends_on else {})}
    return Answer(answer, 201)


def _create(
    service: Service,
    order: Order,
    prompt: str,
    wanted: Sequence[str] | None,
    thread: threads.Thread | None,
) -> tuple[int, list[str]]:
    """Make the task where there is none, and start it: (its place in the queue, its dependencies)."""
    task = places.task_to_make(service, order.project, order.task)
    is_new = not os.path.lexists(task.path)
    _refuse_busy(service, task)
    try:
        os.makedirs(task.path, 0o700, exist_ok=True)
        if wanted is not None:
            _set_dependencies(task, wanted)
        order.prompt = _settle_prompt(task, prompt)
        if thread is not None:
            threads.write_link(task, thread)
        position = service.queue.submit(order)
        depends_on = _dependencies(task)
    except Refusal as refusal:
        if is_new and refusal.status in (400, 409):  # else it may have begun
            _take_back(service, task)
        raise
    service.view.notice([task.path])
    return position, depends_on


def _take_back(service: Service, task: Task) -> None:
    """Remove what was made for a start that was refused; what somebody else has begun in it stays."""
    with service.queue.waiting() as keys:  # held: another server may be about to let it wait
        if (task.project, task.task) in keys or not _discard_unused(service, task):
            return
    try:
        os.rmdir(os.path.dirname(task.path))
    except OSError:
        pass  # there is something else in the project
    places.empty_trash(service)  # which may last: nobody waits for the queue meanwhile


def _discard_unused(service: Service, task: Task) -> bool:
    """Whether it went; with the lock of its loop held, so that none begins meanwhile."""
    try:
        lock = files.open_lock(task.file(loop_record.LOCK))
    except OSError:
        return False
    try:
        if not files.try_lock(lock) or files.names(task.runs_dir):
            return False
        cleaning.discard(task.path, service.runs_dir)
        return True
    finally:
        os.close(lock)


def refuse_for_monitor(service: Service) -> None:
    if not service.settings.may_start_tasks:
        raise Refusal(403, "task start is disabled on this server")


def _refuse_busy(service: Service, task: Task) -> None:
    """Refusal 409 for a task that is done, at work or waiting."""
    _refuse_at_work(service, task)
    if _is_done(task):
        raise Refusal(409, "task is done; resume it first", task_id=task.task)


def _refuse_at_work(service: Service, task: Task) -> None:
    _refuse_stopping(service, task)
    if (task.project, task.task) in service.queue.positions():
        raise Refusal(409, "task is already queued", task_id=task.task)
    if loop_record.is_held(task):
        raise Refusal(409, "task is already running", task_id=task.task)


def _refuse_stopping(service: Service, task: Task) -> None:
    """A stop that is under way would end what is begun now, too."""
    if service.launcher.stops(task.path):
        raise Refusal(409, "task is still being stopped; try again", task_id=task.task)


def _is_done(task: Task) -> bool:
    try:
        return tasks.is_done(task)
    except UserError:
        raise Refusal(409, "DONE of the task is a folder, not a mark; remove it") from None


def _started(order: Order, position: int) -> dict[str, object]:
    return {
        "project_id": order.project,
        "task_id": order.task,
        "run_id": order.run_id,
        "status": "queued" if position else "started",
        **({"queue_position": position} if position else {}),
    }


# -- what a start is made of


def _check_agent(service: Service, name: str) -> None:
    try:  # as it is now: agents may have been added since this server began
        settings = config.load(service.config.path or None)
    except UserError as error:
        raise Refusal(503, f"the config cannot be used: {redact.one_line(str(error))}") from None
    try:
        runner.resolve_agent(settings, name)
    except UserError as error:
        raise Refusal(400, redact.one_line(str(error))) from None


def _check_prompt(prompt: str) -> str:
    if not prompt.strip():
        raise Refusal(400, "prompt is required")
    return prompt if prompt.endswith("\n") else prompt + "\n"


def _check_dependencies(value: object, own: str) -> list[str] | None:
    """The ids of the tasks to wait for; None where the request says nothing of them."""
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, str) for item in value):
        raise Refusal(400, "invalid json: depends_on has a value of another type")
    if sum(item.count(",") + 1 for item in value) > MOST_DEPENDENCIES:
        raise Refusal(400, f"depends_on: more than {MOST_DEPENDENCIES} tasks")
    try:
        found = tasks.normalise(value, own)
    except UserError as error:
        raise Refusal(400, _without_option(error)) from None
    for name in found:
        names.check("task", name)
    return found


def _set_dependencies(task: Task, wanted: Sequence[str]) -> None:
    try:
        tasks.set_dependencies(task, wanted)
    except LockTimeoutError:
        raise
    except UserError as error:
        raise Refusal(409, _without_option(error), task_id=task.task) from None


def _without_option(error: UserError) -> str:
    return "depends_on: " + redact.one_line(str(error).removeprefix("--depends-on: "))


def _dependencies(task: Task) -> list[str]:
    try:
        return [str(redact.values(name)) for name in tasks.dependencies(task)]
    except UserError:
        return []


def _settle_prompt(task: Task, prompt: str) -> str:
    """Write TASK.md where there is none; what the loop is to be given beside it, "" for nothing."""
    path = task.file(tasks.PROMPT)
    if not os.path.lexists(path):
        files.replace_file(path, prompt.encode(), 0o600)
        return ""
    try:
        there = runner.read_prompt(path) if os.path.isfile(path) else b""
    except UserError:
        return prompt
    return "" if there.strip() == prompt.encode().strip() else prompt


# -- resuming


def resume_task(service: Service, request: Request) -> Answer:
    project, task_id = request.params["project"], request.params["task"]
    task = places.task_that_is(service, project, task_id)
    answer: dict[str, object] = {"project_id": project, "task_id": task_id, "resumed": True}
    run_id = ""
    if names.is_on(request.query.get("start", "")):
        refuse_for_monitor(service)
        order, position = start_again(service, task)
        answer.update(_started(order, position))
        run_id = order.run_id
    else:
        with places.lock_of(project, task_id):
            _refuse_stopping(service, task)
            if not _is_done(task):
                raise Refusal(400, "task is not done: there is no DONE", task_id=task_id)
            _reopen(task)
        service.view.notice([task.path])
    audit.record(service, request, project=project, task=task_id, run=run_id)
    return Answer({key: redact.values(value) for key, value in answer.items()})


def start_again(service: Service, task: Task, agent: str = "") -> tuple[Order, int]:
    """Start the loop of a task again, done or not: what was ordered, and its place in the queue.

    By the agent of the earlier start, unless one is named.
    """
    places.check_ids(task.project, task.task)
    with places.lock_of(task.project, task.task):
        _refuse_stopping(service, task)
        is_done = _is_done(task)
        order = Order(task.project, task.task, launch.new_run_id(), agent=agent, resume=is_done)
        position = _start_again(service, task, order)
    service.view.notice([task.path])
    return order, position


def _start_again(service: Service, task: Task, order: Order) -> int:
    """Start it: its place in the queue.  One that is refused stays done.

    So run-task itself reopens what it starts; only what waits is reopened here.
    """
    _refuse_at_work(service, task)
    position = service.queue.submit(order)
    if position and order.resume:
        try:
            with service.queue.waiting():  # held: its turn does not come meanwhile
                if order.key in service.queue.positions():
                    _reopen(task)
        except Refusal:
            service.queue.drop(*order.key)
            raise
    return position


def _reopen(task: Task) -> None:
    """Move DONE aside, as run-task --resume does."""
    record = LoopRecord(task)
    try:
        record.lock(_PATIENCE_SECONDS, is_signed=False)
        record.load()
        loop_control.reopen(record, lambda text: None)
    except UserError as error:
        if loop_record.is_held(task):
            text = "the loop of the task is still at work: wait for it, or stop the task"
            raise Refusal(409, text, task_id=task.task) from None
        raise Refusal(409, redact.one_line(str(error))) from None
    finally:
        record.close()


# -- stopping


def stop_v1_run(service: Service, request: Request) -> Answer:
    entry = lookup.run_of(service, request.params["run"])
    _stop_run(service, request, entry)
    return Answer({"status": "stopping"}, 202)


def stop_run_of_task(service: Service, request: Request) -> Answer:
    params = request.params
    entry = lookup.run_of(service, params["run"], params["project"], params["task"])
    _stop_run(service, request, entry)
    return Answer({"run_id": params["run"], "message": "the run is being stopped"}, 202)


def _stop_run(service: Service, request: Request, entry: RunEntry) -> None:
    run_id = entry.run.run_id
    lookup.check_inside(service, entry.path)
    service.view.refresh()  # it may have ended a moment ago
    if _is_external(entry):
        raise Refusal(409, "external run cannot be stopped", run_id=run_id)
    if not entry.is_live:
        is_known = entry.is_final or entry.state.ended_unrecorded
        why = "" if is_known else f": {redact.one_line(entry.state.reason)}"
        text = f"run cannot be stopped from here{why}" if why else "run already finished"
        raise Refusal(409, text, run_id=run_id)
    service.launcher.stop_run(entry.path)
    audit.record(service, request, project=entry.project, task=entry.task, run=run_id)


def _is_external(entry: RunEntry) -> bool:
    return entry.run.text("process_ownership") == "external"


def cancel_task(service: Service, request: Request) -> Answer:
    """DONE first, so that no loop starts anything more, then an end to what runs."""
    project, task_id = _named_task(service, request)
    task = tasks.Task(os.path.join(service.runs_dir, project, task_id))
    with places.lock_of(project, task_id):
        if os.path.isdir(task.path):
            lookup.check_inside(service, task.path)
            _mark_done(task)
        service.queue.drop(project, task_id)
    living = _living_runs(service, project, task_id)
    if loop_record.is_held(task) or any(task.path == _task_path(entry) for entry in living):
        _stop_task(service, task, living)
    for entry in living:
        if _task_path(entry) != task.path:
            service.launcher.stop_run(entry.path)
    service.view.notice([task.path])
    audit.record(service, request, project=project, task=task_id)
    return Answer({"stopped_runs": len(living)}, 202)


def _stop_task(service: Service, task: Task, living: list[RunEntry]) -> None:
    if ids.is_safe(task.project) and ids.is_safe(task.task):
        service.launcher.stop_task(task)
        return
    for entry in living:  # in a folder that the original made: it has no loop of ours
        service.launcher.stop_run(entry.path)


def _task_path(entry: RunEntry) -> str:
    """The task folder that the run lies in; "" for a flat one."""
    return os.path.dirname(os.path.dirname(entry.path)) if entry.is_done is not None else ""


def _named_task(service: Service, request: Request) -> tuple[str, str]:
    task_id, project = request.params["task"], request.query.get("project_id", "")
    if project:
        names.check("project", project)
    with service.view.current(now=True) as index:
        return lookup.task_key(index, task_id, project)


def _living_runs(service: Service, project: str, task_id: str) -> list[RunEntry]:
    """The runs of the task that are at work, and were not started by somebody else."""
    with service.view.current(now=True) as index:
        entry = index.tasks.get((project, task_id))
        found = entry.runs if entry is not None else []
        return [run for run in found if run.is_live and not _is_external(run)]


def _mark_done(task: Task) -> None:
    if _is_done(task):
        return
    try:
        fd = files.open_regular(task.file(tasks.DONE), os.O_WRONLY | os.O_CREAT)
    except OSError as error:
        text = f"DONE of the task cannot be made: {error.strerror}; look what is in its place"
        raise Refusal(409, text, task_id=task.task) from None
    os.close(fd)
    files.sync_folder(task.path)


_START = thing(
    {
        "project_id": TEXT,
        "task_id": TEXT,
        "run_id": TEXT,
        "status": {"type": "string", "enum": ["started", "queued"]},
    },
    {"queue_position": NUMBER, "depends_on": TEXTS},
)
_MAP: Schema = {"type": "object", "additionalProperties": TEXT}
SCHEMAS: dict[str, Schema] = {
    "TaskStart": _START,
    "TaskRequest": schemas.request(
        {"project_id": TEXT, "task_id": TEXT, "agent_type": TEXT, "prompt": TEXT},
        {
            "project_root": TEXT,
            "attach_mode": {"type": "string", "enum": list(MODES)},
            "config": _MAP,
            "depends_on": TEXTS,
            "thread_parent": ref("ThreadParent"),
            "thread_message_type": {"type": "string", "enum": [threads.REQUEST]},
        },
    ),
    "TaskResumed": thing(
        {"project_id": TEXT, "task_id": TEXT, "resumed": FLAG},
        {"run_id": TEXT, "status": TEXT, "queue_position": NUMBER},
    ),
}
_BUSY = "It is done, at work or waiting already, or its dependencies make a circle."
_MONITOR = "Tasks are not started by this server."
_LATER = "It cannot be done now: the disk is short, or something keeps a lock."
ROUTES = (
    Route(
        "POST",
        "/api/v1/tasks",
        create_task,
        "Start an agent on a task, again and again until it is done.",
        body=ref("TaskRequest"),
        answers={
            201: ("It was started, or waits for a free place.", ref("TaskStart")),
            400: ("Something in the request is missing or wrong.", ref("Error")),
            403: (_MONITOR, ref("Error")),
            404: ("The message that is answered does not exist.", ref("Error")),
            409: (_BUSY, ref("Error")),
            501: ("Processes are not adopted.", ref("Error")),
            503: (_LATER, ref("Error")),
        },
    ),
    Route(
        "DELETE",
        "/api/v1/tasks/{task}",
        cancel_task,
        "Cancel a task: mark it as done, and stop what runs of it.",
        query=[Query("project_id", "Its project, where several have such a task.")],
        answers={
            202: ("It is being stopped.", thing({"stopped_runs": NUMBER})),
            404: ("There is no such task.", ref("Error")),
            409: ("Several projects have one, or it cannot be marked.", ref("Error")),
        },
    ),
    Route(
        "POST",
        "/api/v1/runs/{run}/stop",
        stop_v1_run,
        "Stop a run with everything it has started.",
        answers={
            202: ("It is being stopped.", thing({"status": TEXT})),
            404: ("There is no such run.", ref("Error")),
            409: ("It has ended, or is not ours to stop.", ref("Error")),
        },
    ),
    Route(
        "POST",
        "/api/projects/{project}/tasks/{task}/runs/{run}/stop",
        stop_run_of_task,
        "Stop a run with everything it has started.",
        answers={
            202: ("It is being stopped.", thing({"run_id": TEXT, "message": TEXT})),
            404: ("There is no such run.", ref("Error")),
            409: ("It has ended, or is not ours to stop.", ref("Error")),
        },
    ),
    Route(
        "POST",
        "/api/projects/{project}/tasks/{task}/resume",
        resume_task,
        "Reopen a task that is done; with start=1 its loop goes on, too.",
        query=[Query("start", "1: start it again, whether it was done or not.")],
        answers={
            200: ("It is open again.", ref("TaskResumed")),
            400: ("It is not done.", ref("Error")),
            403: (_MONITOR, ref("Error")),
            404: ("There is no such task.", ref("Error")),
            409: (_BUSY, ref("Error")),
            503: (_LATER, ref("Error")),
        },
    ),
)
