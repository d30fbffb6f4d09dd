"""A task that answers a message of another task's run: what is checked, and what both are told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lib import bus, tasks, thread_link
from lib.api import lookup, names
from lib.api.console import tell as tell_operator
from lib.api.exchange import Refusal
from lib.api.launch import Order
from lib.errors import UserError

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.bus import Message
    from lib.tasks import Task

ANSWERED = ("QUESTION", "FACT")  # types of messages that a task may answer
REQUEST = "USER_REQUEST"
KIND = "thread_answer"
_PREFIX = "thread_parent"


class Thread:
    """The message that is answered: the ids of where it stands, and its type."""

    def __init__(self, parent: dict[str, str]) -> None:
        self.parent = parent

    def link(self, order: Order) -> dict[str, str]:
        """What both messages about the answer carry."""
        child = {"project_id": order.project, "task_id": order.task, "run_id": order.run_id}
        return {
            **{f"{_PREFIX}_{key}": value for key, value in self.parent.items()},
            **{f"thread_child_{key}": value for key, value in child.items()},
        }


def check(service: Service, value: object, message_type: str) -> Thread | None:
    """What a request says of its thread, once that is sure; None for a task of its own."""
    if message_type and not isinstance(value, dict):
        raise Refusal(400, "thread_message_type requires thread_parent")
    if not isinstance(value, dict):
        return None
    parent = {key: _id_of(value, key) for key in thread_link.KEYS}
    for key in value:
        if key.lower() not in (*thread_link.KEYS, "message_type"):
            raise Refusal(400, f'invalid json: unknown field "{_PREFIX}.{key[:100]}"')
    if message_type not in ("", REQUEST):
        raise Refusal(400, f"thread_message_type must be {REQUEST}")
    message = _find(service, parent)
    if message.type not in ANSWERED:
        text = f"a message of type {message.type[:60]} cannot be answered by a task"
        raise Refusal(409, text, allowed_parent_types=",".join(ANSWERED))
    return Thread({**parent, "message_type": message.type})


def _id_of(value: dict[str, object], key: str) -> str:
    given = next((item for name, item in value.items() if name.lower() == key), "")
    if not isinstance(given, str):
        raise Refusal(400, f"invalid json: {_PREFIX}.{key} has a value of another type")
    try:
        return names.check(key.removesuffix("_id"), given.strip())
    except Refusal as refusal:
        raise Refusal(400, f"{_PREFIX}.{refusal}") from None


def _find(service: Service, parent: dict[str, str]) -> Message:
    """The message on the bus of its task; Refusal where it is not what the request says."""
    task = tasks.Task(os.path.join(service.runs_dir, parent["project_id"], parent["task_id"]))
    if not os.path.isdir(task.path):
        raise Refusal(404, "parent task not found")
    lookup.check_inside(service, task.path)
    wanted = parent["message_id"]
    try:
        found = bus.recent(task.bus, lambda some: any(m.msg_id == wanted for m in some))
    except (UserError, OSError):
        found = []
    message = next((m for m in reversed(found) if m.msg_id == wanted), None)
    if message is None:
        raise Refusal(404, "parent message not found")
    for key, what in (("project_id", "project"), ("task_id", "task")):
        if getattr(message, key) != parent[key]:
            raise Refusal(400, f"{_PREFIX}.{key} is not the {what} of the message")
    if not message.run_id:
        raise Refusal(400, "the parent message belongs to no run")
    if message.run_id != parent["run_id"]:
        raise Refusal(400, f"{_PREFIX}.run_id is not the run of the message")
    return message


def write_link(task: Task, thread: Thread) -> None:
    """Note in the task folder whom it answers: its runs have that run as their parent."""
    thread_link.write(task, thread.parent)


def tell(service: Service, thread: Thread, order: Order, prompt: str) -> None:
    """Put the answer on the bus of the new task, and a notice of it on that of the message.

    After the start, which is not undone by a bus that cannot be written.
    """
    parent, link = thread.parent, thread.link(order)
    source = {key: parent[key] for key in ("project_id", "task_id", "run_id")}
    parents = [{"msg_id": parent["message_id"], "kind": KIND, "meta": source}]
    child = tasks.locate(service.runs_dir, order.project, order.task)
    origin = os.path.join(service.runs_dir, parent["project_id"], parent["task_id"])
    try:
        msg_id = bus.append(
            child.bus,
            type_=REQUEST,
            body=prompt,
            project=order.project,
            task=order.task,
            run=order.run_id,
            parents=parents,
            meta={**link, "thread_direction": "child_task"},
        )
        bus.append(
            tasks.Task(origin).bus,
            type_=REQUEST,
            body=f"answered by the task {order.task} of project {order.project}",
            project=parent["project_id"],
            task=parent["task_id"],
            run=parent["run_id"],
            parents=parents,
            meta={
                **link,
                "thread_direction": "source_task",
                "thread_child_message_id": msg_id,
                "thread_source_message_id": parent["message_id"],
            },
        )
    except (UserError, OSError) as error:
        tell_operator(f"the thread of task {order.task} could not be told: {error}")
