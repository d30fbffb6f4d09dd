"""The messages of a project or of a task, from its bus."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lib import bus, files, ids, paths, redact
from lib.api import bus_log, buses, names, shapes
from lib.api.bus_feeds import MAX_BODY
from lib.api.exchange import Answer, Refusal, Request, encode
from lib.api.route import Query, Route, ref
from lib.api.service import Service
from lib.api.shapes import Shape
from lib.errors import UserError

if TYPE_CHECKING:
    from lib.bus import Message

MAX_MESSAGES = 5000  # of an answer
RECENT = 500  # of the newest ones, unless so many are asked for
_WITHOUT_MESSAGES = 10  # so many buses may hold text alone
MAX_TOTAL = 32 << 20  # characters of the bodies of an answer


def list_v1_messages(service: Service, request: Request) -> Answer:
    project = names.check("project", request.query.get("project_id", ""))
    task = request.query.get("task_id", "")
    if task:
        names.check("task", task)
    return _answer(service, request, project, task, request.query.get("after", ""))


def list_recent(service: Service, request: Request) -> Answer:
    asked = names.whole_number(request.query.get("limit", "")) or 0
    limit = min(asked, MAX_MESSAGES) if asked > 0 else RECENT
    project = request.query.get("project_id", "")
    if project:
        names.check("project", project)
    with service.view.current() as index:
        service.facts.prepare(index)
    sources = buses.changed_last(service, limit + _WITHOUT_MESSAGES, project)
    places = [source.path for source, _ in sources]
    key = ("recent", limit, project, *places)
    return Answer(service.contents.of(key, places, lambda: _newest(sources, limit)))


def _newest(sources: list[tuple[buses.Bus, int]], limit: int) -> bytes:
    """The newest messages of all these; a bus is not read that has none of them."""
    found: list[tuple[int, Message]] = []
    has_more = False
    for source, changed_ns in sources:
        if len(found) > limit and changed_ns < found[-limit][0]:
            has_more = True
            break
        for message in buses.last([source], limit + 1):
            _settle_place(message, source.path)
            found.append((ids.parse_rfc3339(message.ts) or 0, message))
        found.sort(key=lambda pair: pair[0])
        del found[: -limit - 1]  # there may be thousands of buses
    kept = _within(message for _, message in reversed(found[-limit:]))
    more: Shape = {"has_more": True} if has_more or len(found) > len(kept) else {}
    return encode({"messages": [message_shape(item) for item in kept[::-1]], **more}) + b"\n"


def _settle_place(message: Message, path: str) -> None:
    """Beside messages of other buses it must say where it comes from."""
    project, task = bus.scope_of(path)
    if not message.project_id and path.endswith(paths.BUS_NAMES[:2]):
        message.project_id, message.task_id = project, message.task_id or task


def list_of_project(service: Service, request: Request) -> Answer:
    since = request.query.get("since", "")
    return _answer(service, request, request.params["project"], "", since)


def list_of_task(service: Service, request: Request) -> Answer:
    since = request.query.get("since", "")
    return _answer(service, request, request.params["project"], request.params["task"], since)


def _answer(service: Service, request: Request, project: str, task: str, since: str) -> Answer:
    limit = min(max(0, names.whole_number(request.query.get("limit", "")) or 0), MAX_MESSAGES)
    with service.view.current() as index:
        service.facts.prepare(index)
    sources = buses.buses_of(service, project, task)
    places = [(item.path, item.is_reachable()) for item in sources]
    key = (*places, project, task, since, limit)
    return Answer(
        service.contents.of(key, [path for path, _ in places], lambda: _made(sources, since, limit))
    )


def _made(sources: list[buses.Bus], since: str, limit: int) -> bytes:
    if since:
        found, has_more = _after(sources, since, limit)
    else:
        found = buses.last(sources, (limit or MAX_MESSAGES) + 1)
        has_more = len(found) > (limit or MAX_MESSAGES)
        found = found[-(limit or MAX_MESSAGES) :]
    # Behind a cursor the oldest are kept, so that a client can go on from the last.
    from_oldest = bool(since) and not limit
    kept = _within(found if from_oldest else reversed(found))
    shown = kept if from_oldest else kept[::-1]
    more: Shape = {"has_more": True} if has_more or len(kept) < len(found) else {}
    return encode({"messages": [message_shape(message) for message in shown], **more}) + b"\n"


def _after(sources: list[buses.Bus], since: str, limit: int) -> tuple[list[Message], bool]:
    """Those behind that message: the newest `limit`, without one the oldest MAX_MESSAGES.

    And whether there are others; Refusal 404 where no message has that id.
    """
    if not any(shapes.size_of(item.path) is not None for item in sources):
        return [], False
    try:
        if len(sources) == 1:
            return _behind(sources[0], since, limit)
        found = buses.after(sources, since)
    except (UserError, OSError):
        raise Refusal(404, "message id not found") from None
    return _cut(found, limit)


def _cut(found: list[Message], limit: int) -> tuple[list[Message], bool]:
    if limit:
        return found[-limit:], len(found) > limit
    return found[:MAX_MESSAGES], len(found) > MAX_MESSAGES


def _behind(source: buses.Bus, since: str, limit: int) -> tuple[list[Message], bool]:
    """The same of one bus, of which no more is parsed than must be; UserError for no such id."""
    if not source.is_reachable():
        raise UserError("message id not found")
    near = bus.recent(source.path, bool)  # where a client that polls has its cursor
    if any(message.msg_id == since for message in near):
        near = bus.after_id(near, since, source.path)
        return _cut(near, limit)
    place = bus_log.place_behind(source.path, since)
    if place is None:
        raise UserError("message id not found")
    if limit and place[0] == files.inode(source.path):
        newest = buses.last([source], limit + 1)
        if len(newest) > limit and all(message.msg_id != since for message in newest):
            return newest[-limit:], True  # it is further back
    found: deque[Message] = deque(maxlen=limit or None)
    walk = bus_log.Walk(source.path, place, source.is_reachable)
    seen, is_end = 0, False
    try:
        while not is_end and (limit or seen <= MAX_MESSAGES):
            some, is_end = walk.take()
            found.extend(some)
            seen += len(some)
    finally:
        walk.close()
    most = limit or MAX_MESSAGES
    return list(found)[:most], seen > most


def _within(found: Iterable[Message]) -> list[Message]:
    """The first of them, as many as an answer can hold, and at least one."""
    kept: list[Message] = []
    total = 0
    for message in found:
        total += min(len(message.body), MAX_BODY)
        if kept and total > MAX_TOTAL:
            break
        kept.append(message)
    return kept


def message_shape(message: Message) -> Shape:
    """A message as clients get it, redacted; names of keys that the original gives stand beside."""
    time = shapes.time_text(message.ts, ids.parse_rfc3339(message.ts))
    is_long = len(message.body) > MAX_BODY
    optional: Shape = {
        "task_id": message.task_id,
        "run_id": message.run_id,
        "issue_id": message.issue_id,
        "parents": [_parent(item) for item in message.parents],
        "links": [_link(item) for item in message.links],
        "meta": message.meta,
    }
    return shapes.redacted(
        {
            "msg_id": message.msg_id,
            "timestamp": time,
            "ts": time,
            "type": message.type,
            "project_id": message.project_id,
            **shapes.known(optional),
            "body": redact.before_gap(message.body[:MAX_BODY]) if is_long else message.body,
            **({"truncated": True} if is_long else {}),
        }
    )


def _parent(item: dict[str, object]) -> Shape:
    msg_id, kind, meta = item.get("msg_id") or "", item.get("kind") or "", item.get("meta") or None
    ours = {"msg_id": msg_id, "kind": kind, "meta": meta}
    return {**ours, "MsgID": msg_id, "Kind": kind, "Meta": meta}


def _link(item: dict[str, str]) -> Shape:
    ours = {name: item.get(name) or "" for name in ("url", "label", "kind")}
    return {**ours, "URL": ours["url"], "Label": ours["label"], "Kind": ours["kind"]}


_LIMIT = Query(
    "limit",
    "The newest so many, 5000 at most. Without it all behind the cursor, else the newest 5000; "
    "`has_more` tells that there are others.",
)
_SINCE = "The id of a message: only those behind it."
_ANSWERS = {
    200: ("The messages, the oldest first.", ref("MessageList")),
    404: ("There is no message of that id.", ref("Error")),
}

ROUTES = (
    Route(
        "GET",
        "/api/v1/messages",
        list_v1_messages,
        "The messages of a project, or of one of its tasks.",
        query=(
            Query("project_id", "Of which project.", required=True),
            Query("task_id", "Of which of its tasks."),
            Query("after", _SINCE),
            _LIMIT,
        ),
        answers=_ANSWERS,
    ),
    Route(
        "GET",
        "/api/v1/messages/recent",
        list_recent,
        "The newest messages of all buses, or of those of a project and its tasks.",
        query=(
            Query("project_id", "Only of this project, and of all of its tasks."),
            Query("limit", f"The newest so many, {RECENT} when left out, 5000 at most."),
        ),
        answers={200: _ANSWERS[200]},
    ),
    Route(
        "GET",
        "/api/projects/{project}/messages",
        list_of_project,
        "The messages of a project.",
        query=(Query("since", _SINCE), _LIMIT),
        answers=_ANSWERS,
    ),
    Route(
        "GET",
        "/api/projects/{project}/tasks/{task}/messages",
        list_of_task,
        "The messages of a task.",
        query=(Query("since", _SINCE), _LIMIT),
        answers=_ANSWERS,
    ),
)
