"""The tasks of a project, a task with its runs, its TASK.md, and both as the v1 API has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib import redact, runs, tasks
from lib.api import lookup, names, run_files, shapes
from lib.api.exchange import Answer, Refusal, Request
from lib.api.facts import answer_page, join
from lib.api.route import Query, Route, ref
from lib.api.schemas import LIMIT, OFFSET, page, wrapped
from lib.api.service import Service
from lib.api.shapes import Key, Shape

if TYPE_CHECKING:
    from lib.api.facts import TaskFacts
    from lib.index import Index, TaskEntry

_QUEUED = "queued"
_STATES = {"all_finished": "done", "blocked": "blocked", _QUEUED: _QUEUED}
_FILTERS = {
    "running": runs.RUNNING,
    "active": runs.RUNNING,
    "failed": runs.FAILED,
    "blocked": "blocked",
    _QUEUED: _QUEUED,
    "postponed": _QUEUED,
    "partial_failure": "partial_failure",
}


class _Shown:
    """A task, what is known of it, and how it stands with the queue in mind."""

    __slots__ = ("entry", "facts", "position", "status")

    def __init__(self, entry: TaskEntry, facts: TaskFacts, position: int) -> None:
        self.entry = entry
        self.facts = facts
        is_free = not entry.done and not facts.is_running
        self.position = position
        self.status = _QUEUED if position and is_free else facts.status


def _positions(service: Service) -> dict[Key, int]:
    """Of tasks that wait for their turn, from 1 on; to be asked outside of the view's lock."""
    return service.queue.positions()


# -- the project API


def list_tasks(service: Service, request: Request) -> Answer:
    project = request.params["project"]
    limit, offset = names.page_of(request.query)
    positions = _positions(service)
    with service.view.current() as index:
        service.facts.prepare(index)
        found = [
            _Shown(entry, service.facts.of_task(entry), positions.get(key, 0))
            for key, entry in index.tasks.items()
            if key[0] == project
        ]
        words = request.query.get("q", "").lower().split()
        found = [task for task in found if _is_wanted(task, request.query.get("status", ""))]
        found = [task for task in found if _has_all(task.entry.task, words)]
        found.sort(key=lambda task: (task.facts.created[0], task.entry.task), reverse=True)
        shown = [_item_json(task) for task in found[offset : offset + limit]]
    return answer_page(shown, len(found), limit, offset)


def _is_wanted(task: _Shown, status: str) -> bool:
    """What is no name of a status admits every task."""
    wanted = status.strip().lower()
    if wanted in ("done", "all_finished"):
        return task.entry.done
    return wanted not in _FILTERS or task.status == _FILTERS[wanted]


def _has_all(name: str, words: list[str]) -> bool:
    """Whether the name as it is shown, without secrets, has all of these words."""
    shown = redact.text(name).lower() if words else ""
    return all(word in shown for word in words)


def _item_json(task: _Shown) -> bytes:
    return task.facts.json("item", (task.status, task.position), lambda: _item(task))


def _item(task: _Shown) -> Shape:
    entry, facts = task.entry, task.facts
    return shapes.redacted(
        {
            "id": entry.task,
            "project_id": entry.project,
            "status": task.status,
            "last_activity": facts.last[1],
            "done": entry.done,
            "run_count": len(facts.entries),
            "run_counts": facts.counts,
            "depends_on": entry.depends_on or None,
            "blocked_by": entry.blocked_by or None,
            "thread_parent": facts.thread_parent,
            **_ours(task),
            **_last_run(facts),
        }
    )


def _dependencies(entry: TaskEntry) -> Shape:
    return {"depends_on": entry.depends_on, "blocked_by": entry.blocked_by}


def _ours(task: _Shown) -> Shape:
    """The place in the queue, and how a loop of ours stands."""
    shape: Shape = {"live": task.entry.is_live}
    if task.position:
        shape["queue_position"] = task.position
    if task.entry.loop_state:
        shape["loop"] = task.entry.loop_state
    return shape


def _last_run(facts: TaskFacts) -> Shape:
    if not facts.entries:
        return {}
    newest = facts.entries[0]
    sizes = [newest.stdout_size, shapes.size_of(newest.run.file(runs.OUTPUT)) or 0]
    return {
        "last_run_status": newest.state.status,
        "last_run_exit_code": shapes.exit_code(newest),
        "last_run_output_size": max(sizes),
    }


def show_task(service: Service, request: Request) -> Answer:
    key = request.params["project"], request.params["task"]
    with_files = not names.is_off(request.query.get("include_files", ""))
    positions = _positions(service)
    with service.view.current(now=not _is_known(service, key)) as index:
        service.facts.prepare(index)
        entry = _entry_of(index, key)
        task = _Shown(entry, service.facts.of_task(entry), positions.get(key, 0))
        head = _detail(task)
        found = [shapes.summary(run, with_files=with_files) for run in reversed(task.facts.entries)]
    return Answer({**head, "runs": found})


def _is_known(service: Service, key: Key) -> bool:
    """False for one that may have been made a moment ago."""
    with service.view.current() as index:
        return key in index.tasks


def _entry_of(index: Index, key: Key) -> TaskEntry:
    entry = index.tasks.get(key)
    if entry is None:
        raise Refusal(404, "task not found")
    return entry


def _detail(task: _Shown) -> Shape:
    entry, facts = task.entry, task.facts
    state = "running" if facts.is_running else _STATES.get(task.status, "idle")
    optional = {**_dependencies(entry), "thread_parent": facts.thread_parent}
    return shapes.redacted(
        {
            "id": entry.task,
            "project_id": entry.project,
            "status": task.status,
            "last_activity": facts.last[1],
            "created_at": facts.created[1],
            "done": entry.done,
            "state": state,
            **shapes.known(optional),
            **_ours(task),
        }
    )


def show_task_file(service: Service, request: Request) -> Answer:
    name = request.query.get("name", "")
    if name != tasks.PROMPT:
        raise Refusal(404, f"unknown task file: {redact.text(name[:100])}")
    key = request.params["project"], request.params["task"]
    with service.view.current(now=not _is_known(service, key)) as index:
        service.facts.prepare(index)
        path = _entry_of(index, key).path
    if not path:
        raise Refusal(404, f"file not found: {name}")  # known by flat runs alone
    return run_files.answer(service, f"{path}/{tasks.PROMPT}", name)


# -- the v1 API


def list_v1_tasks(service: Service, request: Request) -> Answer:
    positions = _positions(service)

    def make(index: Index) -> bytes:
        service.facts.prepare(index)
        found = [
            _Shown(entry, service.facts.of_task(entry), positions.get(key, 0))
            for key, entry in sorted(index.tasks.items())
        ]
        return b'{"tasks":' + join(map(_v1_json, found)) + b"}\n"

    kept_as = ("v1 tasks", tuple(sorted(positions.items())))
    return Answer(service.view.answer(kept_as, make))


def _v1_json(task: _Shown) -> bytes:
    return task.facts.json("v1", (task.status, task.position), lambda: _v1_task(task))


def _v1_task(task: _Shown) -> Shape:
    entry = task.entry
    status = task.status
    if status not in ("running", "partial_failure", "all_finished", "blocked", _QUEUED):
        status = "idle"
    optional = {"queue_position": task.position, **_dependencies(entry)}
    return shapes.redacted(
        {
            "project_id": entry.project,
            "task_id": entry.task,
            "status": status,
            "last_activity": task.facts.last[1],
            **shapes.known(optional),
        }
    )


def show_v1_task(service: Service, request: Request) -> Answer:
    project = request.query.get("project_id", "")
    if project:
        names.check("project", project)
    positions = _positions(service)
    with service.view.current() as index:
        service.facts.prepare(index)
        entry = index.tasks[lookup.task_key(index, request.params["task"], project)]
        task = _Shown(entry, service.facts.of_task(entry), positions.get(entry.key, 0))
        shown = [shapes.v1_run(entry.key, run) for run in task.facts.entries]
    shown.sort(key=lambda run: str(run["run_id"]))
    return Answer({**_v1_task(task), **({"runs": shown} if shown else {})})


_NO_TASK = ("There is no such task.", ref("Error"))

ROUTES = (
    Route(
        "GET",
        "/api/projects/{project}/tasks",
        list_tasks,
        "A page of the tasks of a project, the newest first; an unknown project has none.",
        query=(
            Query("status", "running, done, failed, blocked, queued or partial_failure."),
            Query("q", "Words, in any case, each of them in the id; none: every task."),
            LIMIT,
            OFFSET,
        ),
        answers={200: ("The page.", page("TaskItem"))},
    ),
    Route(
        "GET",
        "/api/projects/{project}/tasks/{task}",
        show_task,
        "A task with all its runs, the oldest first.",
        query=(Query("include_files", "0, false, no or off: leave out the files of each run."),),
        answers={200: ("The task.", ref("TaskDetail")), 404: _NO_TASK},
    ),
    Route(
        "GET",
        "/api/projects/{project}/tasks/{task}/file",
        show_task_file,
        "The prompt of a task.",
        query=(Query("name", "TASK.md; there is no other."),),
        answers={
            200: ("The file.", ref("FileContent")),
            403: ("A link leads out of the storage.", ref("Error")),
            404: ("There is no such task or file.", ref("Error")),
        },
    ),
    Route(
        "GET",
        "/api/v1/tasks",
        list_v1_tasks,
        "The tasks of all projects, without their runs.",
        answers={200: ("The tasks.", wrapped("tasks", "V1Task"))},
    ),
    Route(
        "GET",
        "/api/v1/tasks/{task}",
        show_v1_task,
        "A task with its runs, by their ids.",
        query=(Query("project_id", "In which project; needed where several have such a task."),),
        answers={
            200: ("The task.", ref("V1Task")),
            404: _NO_TASK,
            409: ("Several projects have such a task.", ref("Error")),
        },
    ),
)
