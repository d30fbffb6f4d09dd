"""What clients add: messages on the buses, and projects."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

from lib import bus, files, ids, redact
from lib.api import audit, buses, lookup, names, places, schemas
from lib.api.exchange import Answer, Refusal, Request, text_of
from lib.api.facts import ROOT_MARKER
from lib.api.root_queue import FOLDER
from lib.api.route import TEXT, Route, Schema, ref
from lib.api.schemas import TIME, thing
from lib.errors import LockTimeoutError, UserError

if TYPE_CHECKING:
    from lib.api.service import Service

DEFAULT_TYPE = "USER"
MAX_TYPE = 64  # characters
MAX_ID = 200  # the same, of the id of a message
MOST_PARENTS = 20
_V1_FIELDS: dict[str, type | tuple[type, ...]] = {
    "project_id": str,
    "task_id": str,
    "run_id": str,
    "type": str,
    "body": str,
    "parents": list,
}
_FIELDS: dict[str, type | tuple[type, ...]] = {"type": str, "body": str, "parents": list}
_PROJECT_FIELDS: dict[str, type | tuple[type, ...]] = {"project_id": str, "project_root": str}


# -- messages


def post_v1_message(service: Service, request: Request) -> Answer:
    body = request.json_body(_V1_FIELDS)
    project, task = text_of(body, "project_id"), text_of(body, "task_id")
    names.check("project", project)
    if task:
        names.check("task", task)
    run = text_of(body, "run_id")
    if run:
        names.check("run", run)
    return _post(service, request, body, project, task, run)


def post_to_project(service: Service, request: Request) -> Answer:
    return _post(service, request, request.json_body(_FIELDS), request.params["project"])


def post_to_task(service: Service, request: Request) -> Answer:
    params = request.params
    return _post(service, request, request.json_body(_FIELDS), params["project"], params["task"])


def _post(
    service: Service,
    request: Request,
    body: dict[str, object],
    project: str,
    task: str = "",
    run: str = "",
) -> Answer:
    text = text_of(body, "body")
    if not text.strip():
        raise Refusal(400, "body is required")
    type_ = text_of(body, "type").strip() or DEFAULT_TYPE
    if len(type_) > MAX_TYPE or not type_.isprintable():
        raise Refusal(400, f"type must be one printable word of at most {MAX_TYPE} characters")
    parents = _parents(body.get("parents"))
    path = _bus_path(service, project, task)
    try:
        msg_id = bus.append(
            path, type_=type_, body=text, project=project, task=task, run=run, parents=parents
        )
    except LockTimeoutError:
        raise
    except UserError as error:
        status = 403 if os.path.islink(path) or not os.path.isfile(path) else 503
        raise Refusal(status, redact.one_line(str(error))) from None
    service.counters.count_post()
    service.view.notice([os.path.dirname(path)])
    audit.record(service, request, body, project=project, task=task, run=run, message=msg_id)
    return Answer({"msg_id": msg_id, "timestamp": _time_of(msg_id)}, 201)


def _parents(value: object) -> list[str]:
    """The ids of the messages that are answered, each once; they may be of another bus, or gone."""
    found: list[str] = []
    for item in value if isinstance(value, list) else ():
        if not isinstance(item, str) or not item.strip() or len(item) > MAX_ID:
            raise Refusal(400, f"parents must be ids of messages, of at most {MAX_ID} characters")
        if not item.isprintable():
            raise Refusal(400, "parents must be ids of messages, without control characters")
        if item.strip() not in found:
            found.append(item.strip())
    if len(found) > MOST_PARENTS:
        raise Refusal(400, f"parents: more than {MOST_PARENTS} messages")
    return found


def _bus_path(service: Service, project: str, task: str) -> str:
    """The bus to post to; its folder is made, below the root, for names that may be there."""
    places.refuse_reserved(project)
    path = buses.path_to_post_to(service, project, task)
    folder = os.path.dirname(path)
    if path != buses.own_path(service, project, task):
        return path  # that of the root, which flat runs read
    if os.path.lexists(folder):
        lookup.check_inside(service, folder)
        return path
    os.makedirs(places.folder_to_make(service, project, task), 0o700, exist_ok=True)
    return path


def _time_of(msg_id: str) -> str:
    """When a message was written, by its id."""
    day, clock, fraction = msg_id[4:12], msg_id[13:19], msg_id[20:29]
    date = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return f"{date}T{clock[:2]}:{clock[2:4]}:{clock[4:]}.{fraction}Z"


# -- projects


def create_project(service: Service, request: Request) -> Answer:
    body = request.json_body(_PROJECT_FIELDS)
    project = text_of(body, "project_id")
    places.check_ids(project)
    root = _check_root(service, text_of(body, "project_root"))
    with places.lock_of(project):
        _make_project(service, project, root)
    service.view.notice([service.runs_dir])
    audit.record(service, request, body, project=project)
    shape = {"id": project, "last_activity": ids.ZERO_TIME, "task_count": 0, "project_root": root}
    return Answer({key: redact.values(value) for key, value in shape.items()}, 201)


def _check_root(service: Service, text: str) -> str:
    if not text.strip():
        raise Refusal(400, "project_root is required")
    path = places.sources(text)
    if not path.isprintable():  # its marker is one line
        raise Refusal(400, places.NO_SOURCES)
    top = os.path.realpath(service.runs_dir)
    if os.path.commonpath([os.path.realpath(path), top]) == top:
        raise Refusal(400, "project_root must lie outside of the storage root")
    return path


def _make_project(service: Service, project: str, root: str) -> None:
    """Made beside and renamed: there is never one without its marker."""
    path = os.path.join(service.runs_dir, project)
    with service.view.current(now=True) as index:
        is_known = any(key[0] == project for key in index.tasks)
    if is_known or os.path.lexists(path):
        raise Refusal(409, "project already exists", project_id=project)
    aside = os.path.join(service.runs_dir, FOLDER)
    os.makedirs(aside, 0o700, exist_ok=True)
    made = os.path.join(aside, f"new-{project}.{os.getpid()}.{time.monotonic_ns()}")
    os.mkdir(made, 0o700)
    try:
        files.replace_file(os.path.join(made, ROOT_MARKER), f"{root}\n".encode(), 0o600)
        os.rename(made, path)
    except OSError as error:
        files.remove(os.path.join(made, ROOT_MARKER))
        os.rmdir(made)
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise Refusal(409, "project already exists", project_id=project) from None
    files.sync_folder(service.runs_dir)


_POSTED = thing({"msg_id": TEXT, "timestamp": TIME})
_TYPE: Schema = {"type": "string", "maxLength": MAX_TYPE}
_PARENTS: Schema = {
    "type": "array",
    "items": {"type": "string", "maxLength": MAX_ID},
    "maxItems": MOST_PARENTS,
    "description": "The ids of the messages that this one answers.",
}
SCHEMAS: dict[str, Schema] = {
    "MessagePosted": _POSTED,
    "MessageRequest": schemas.request({"body": TEXT}, {"type": _TYPE, "parents": _PARENTS}),
    "V1MessageRequest": schemas.request(
        {"project_id": TEXT, "body": TEXT},
        {"task_id": TEXT, "run_id": TEXT, "type": _TYPE, "parents": _PARENTS},
    ),
    "ProjectRequest": schemas.request({"project_id": TEXT, "project_root": TEXT}),
}
_ANSWERS: dict[int, tuple[str, Schema | None]] = {
    201: ("It stands on the bus, and on the disk.", ref("MessagePosted")),
    400: ("Something in the request is missing or wrong.", ref("Error")),
    403: ("What is in the place of the bus is no bus.", ref("Error")),
    409: ("A file is in the place of the folder.", ref("Error")),
    503: ("It cannot be written now.", ref("Error")),
}
ROUTES = (
    Route(
        "POST",
        "/api/v1/messages",
        post_v1_message,
        "Post a message on the bus of a project, or of a task of it.",
        body=ref("V1MessageRequest"),
        answers=_ANSWERS,
    ),
    Route(
        "POST",
        "/api/projects/{project}/messages",
        post_to_project,
        "Post a message on the bus of a project.",
        body=ref("MessageRequest"),
        answers=_ANSWERS,
    ),
    Route(
        "POST",
        "/api/projects/{project}/tasks/{task}/messages",
        post_to_task,
        "Post a message on the bus of a task.",
        body=ref("MessageRequest"),
        answers=_ANSWERS,
    ),
    Route(
        "POST",
        "/api/projects",
        create_project,
        "Make a project, and note where its sources lie.",
        body=ref("ProjectRequest"),
        answers={
            201: ("It is there.", ref("ProjectSummary")),
            400: ("Something in the request is missing or wrong.", ref("Error")),
            409: ("There is such a project.", ref("Error")),
        },
    ),
)
