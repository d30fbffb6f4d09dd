"""Deleting runs, tasks and projects, and cleaning a project of its old runs.

Whatever goes is renamed into the trash first (lib/cleaning.py): a crash leaves
it whole, or gone.  What lives is refused; what a symbolic link leads to is
never touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from lib import cleaning, files, ids, loop_record, redact, runs, state, supervisor, tasks
from lib.api import access, audit, launch, lookup, places
from lib.api.console import tell
from lib.api.exchange import Answer, Refusal, Request
from lib.api.route import FLAG, NUMBER, TEXT, Query, Route, Schema, ref
from lib.api.schemas import thing
from lib.errors import UserError

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.index_entries import RunEntry
    from lib.tasks import Task

DEFAULT_AGE = "168h"
_UNITS = {
    "ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3,
    "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_MAX_SECONDS = 9.2e9  # of a duration of Go
_PATIENCE_SECONDS = 0.3


def _refuse_page(request: Request, what: str) -> None:
    if access.is_from_page(request):
        raise Refusal(403, f"{what} is disabled in the web UI")


# -- a run


def delete_run(service: Service, request: Request) -> Answer:
    params = request.params
    entry = lookup.run_of(service, params["run"], params["project"], params["task"])
    _refuse_page(request, "run deletion")
    lookup.check_inside(service, entry.path)
    run_id = entry.run.run_id
    service.view.refresh()  # it may have ended a moment ago
    if entry.is_live:
        raise Refusal(409, "run is still running", run_id=run_id)
    _record_end(service, entry)
    item = cleaning.Item(cleaning.RUN, entry.path, run_id, 0)
    with places.trash(service):
        why_not = cleaning.carry_out(item, service.runs_dir)
    if why_not:
        raise Refusal(409, f"run cannot be deleted: {why_not}", run_id=run_id)
    service.view.notice([os.path.dirname(os.path.dirname(entry.path))])
    audit.record(service, request, project=params["project"], task=params["task"], run=run_id)
    return Answer(None, 204)


def _record_end(service: Service, entry: RunEntry) -> None:
    """Have the end of a run recorded that lost its supervisor: only those with an end are removed.

    In a process of its own: that reaps whatever child it has.
    """
    if not (entry.state.ended_unrecorded or cleaning.is_marked(entry.path)):
        return
    service.launcher.stop_run(entry.path)
    service.launcher.await_stops([entry.path], launch.STOP_PATIENCE_SECONDS)


# -- a task


def delete_task(service: Service, request: Request) -> Answer:
    project, task_id = request.params["project"], request.params["task"]
    _refuse_page(request, "task deletion")
    with places.lock_of(project, task_id):
        task = places.task_that_is(service, project, task_id)
        _refuse_living(task)
        with places.trash(service):
            _remove_task(service, task)
        service.queue.drop(project, task_id)
    service.view.notice([service.runs_dir])
    audit.record(service, request, project=project, task=task_id)
    return Answer(None, 204)


def _remove_task(service: Service, task: Task) -> None:
    """With the lock of its loop held, so that none begins meanwhile; a run alone may yet begin."""
    try:
        lock = files.open_lock(task.file(loop_record.LOCK))
    except OSError:
        raise Refusal(
            409, "task cannot be deleted: look what is in the place of LOOP.lock"
        ) from None
    try:
        # With patience: who looks whether it is held has it for microseconds.
        if not files.wait_for(lambda: files.try_lock(lock), _PATIENCE_SECONDS, 0.005):
            raise Refusal(409, "task has running runs", task_id=task.task)
        _note_runs(service, task)
        aside = cleaning.discard(task.path, service.runs_dir)
        if _has_living_runs(tasks.Task(aside)):
            text = "task has running runs" + _give_back(aside, task.path)
            raise Refusal(409, text, task_id=task.task)
    finally:
        os.close(lock)


def _refuse_living(task: Task) -> None:
    if _lives(task):
        raise Refusal(409, "task has running runs", task_id=task.task)


def _lives(task: Task) -> bool:
    """Whether its loop or one of its runs is at work."""
    return loop_record.is_held(task) or _has_living_runs(task)


def _has_living_runs(task: Task) -> bool:
    return any(runs.state(run).holder or _may_live(run) for run in _unended(task))


def _unended(task: Task) -> Iterator[runs.Run]:
    return (run for run in _runs_of(task) if run.text("status") not in runs.ENDED)


def _runs_of(task: Task) -> Iterator[runs.Run]:
    for path in _folders(task.runs_dir, runs.names_in(task.runs_dir)):
        yield runs.read(path)


def _folders(where: str, names: Iterable[str]) -> list[str]:
    """The paths of those that are folders, and no links to one."""
    found = [os.path.join(where, name) for name in names]
    return [path for path in found if os.path.isdir(path) and not os.path.islink(path)]


def _may_live(run: runs.Run) -> bool:
    """A run of another machine, which shares the folder, cannot be looked at from here."""
    return bool(run.record) and runs.is_foreign(run)


def _note_runs(service: Service, task: Task) -> None:
    """A run that is missing without a line in the log of removed ones was lost."""
    for run in _runs_of(task):
        cleaning.note_removal(run, service.runs_dir)


# -- a project


def delete_project(service: Service, request: Request) -> Answer:
    project = request.params["project"]
    _refuse_page(request, "project deletion")
    path = places.project_that_is(service, project)
    if project == audit.FOLDER or runs.is_run_name(project):
        raise Refusal(404, "project not found")
    with places.lock_of(project):
        _refuse_plan(path)
        members = _members(path)
        living = [task for task in members if _lives(task)]
        if living and request.query.get("force", "").strip().lower() != "true":
            raise Refusal(409, "project has running runs", project_id=project)
        _stop_all(service, living)
        size = cleaning.size_of(path)
        with places.trash(service):
            _remove_project(service, path, members)
        service.queue.drop(project)
    service.view.notice([service.runs_dir])
    audit.record(service, request, project=project)
    answer = {"project_id": redact.values(project), "freed_bytes": size}
    return Answer({**answer, "deleted_tasks": len(members)})


def _members(path: str) -> list[Task]:
    """Its task folders; one that is a link is no task, and goes as the link that it is."""
    return [tasks.Task(item) for item in _folders(path, files.names(path))]


def _refuse_plan(path: str) -> None:
    """A plan is stopped by who runs it: stopping its runs would only make it start others."""
    if state.is_run(path):
        name = os.path.basename(path)
        raise Refusal(409, "a plan of the project is being run; stop that first", project_id=name)


def _stop_all(service: Service, living: list[Task]) -> None:
    for task in living:
        if loop_record.is_held(task) or ids.is_safe(task.task):
            service.launcher.stop_task(task)
        else:
            for run in _unended(task):
                service.launcher.stop_run(run.path)
    stopped = [task.path for task in living]
    stopped += [run.path for task in living for run in _unended(task)]
    patience = supervisor.stop_grace() + launch.STOP_PATIENCE_SECONDS
    service.launcher.await_stops(stopped, patience)
    if any(_lives(task) for task in living):
        raise Refusal(409, "some runs of the project are still being stopped; try again")


def _remove_project(service: Service, path: str, members: list[Task]) -> None:
    """Renamed, and looked at once more: what began meanwhile gets its folder back."""
    for task in members:
        _note_runs(service, task)
    aside = cleaning.discard(path, service.runs_dir)
    if any(_lives(task) for task in _members(aside)):
        text = "project has running runs" + _give_back(aside, path)
        raise Refusal(409, text, project_id=os.path.basename(path))


def _give_back(aside: str, path: str) -> str:
    """What there is to say of it: "" for what has its place again."""
    place = cleaning.give_back(aside, path)
    if place == path:
        return ""
    name = redact.one_line(os.path.basename(place))
    return f"; its folder was made again just then, and they are in {name} now"


# -- old runs


def clean_project(service: Service, request: Request) -> Answer:
    project, query = request.params["project"], request.query
    _refuse_page(request, "garbage collection")
    seconds = parse_duration(query.get("older_than", "") or DEFAULT_AGE)
    is_trial = query.get("dry_run", "").strip().lower() == "true"
    wish = cleaning.Wish(
        older_than_seconds=seconds,
        keep_failed=query.get("keep_failed", "").strip().lower() == "true",
        project=project,
        measured=False,  # everybody waits for who has the index
    )
    with service.view.current(now=True) as index:
        is_known = any(key[0] == project for key in index.tasks)
        if not is_known and not os.path.isdir(os.path.join(service.runs_dir, project)):
            raise Refusal(404, "project not found")
        chosen = cleaning.choose(index, wish).items
    items = [item for item in chosen if _is_inside(service, item)]
    for item in items:
        item.size = cleaning.size_of(item.path)
    if not is_trial:
        items = _carry_out(service, items)
        service.view.notice({os.path.dirname(os.path.dirname(item.path)) for item in items})
        audit.record(service, request, dict(query), project=project)
    freed = sum(item.size for item in items)
    return Answer({"deleted_runs": len(items), "freed_bytes": freed, "dry_run": is_trial})


def _is_inside(service: Service, item: cleaning.Item) -> bool:
    try:
        lookup.check_inside(service, item.path)
    except Refusal:
        return False
    return item.kind == cleaning.RUN


def _carry_out(service: Service, items: list[cleaning.Item]) -> list[cleaning.Item]:
    """Remove them; what cannot be removed hides nothing of the others."""
    done = []
    with places.trash(service):
        for item in items:
            try:
                if not cleaning.carry_out(item, service.runs_dir):
                    done.append(item)
            except (UserError, OSError) as error:
                tell(f"{item.path} cannot be removed: {error}")
    return done


def parse_duration(text: str) -> float:
    """`168h`, `1h30m`, `1.5s` as seconds, as the original reads it; Refusal 400 for anything else."""
    rest, total = text.strip().removeprefix("+"), 0.0
    if rest == "0":
        return 0.0
    while matched := _PART.match(rest):
        total += float(matched[1]) * _UNITS[matched[2]]
        rest = rest[matched.end() :]
    if rest or not text.strip().strip("+") or total > _MAX_SECONDS:
        raise Refusal(400, "invalid older_than duration; write 168h, 30m or 1h30m")
    return total


_REFUSED = ("This is not done for pages.", ref("Error"))
SCHEMAS: dict[str, Schema] = {
    "ProjectDeleted": thing({"project_id": TEXT, "deleted_tasks": NUMBER, "freed_bytes": NUMBER}),
    "Cleaned": thing({"deleted_runs": NUMBER, "freed_bytes": NUMBER, "dry_run": FLAG}),
}
ROUTES = (
    Route(
        "DELETE",
        "/api/projects/{project}",
        delete_project,
        "Delete the folder of a project with all its tasks.",
        query=[Query("force", "true: stop what runs of it first.")],
        answers={
            200: ("It is gone.", ref("ProjectDeleted")),
            403: _REFUSED,
            404: ("There is no such folder.", ref("Error")),
            409: ("Something of it runs.", ref("Error")),
        },
    ),
    Route(
        "DELETE",
        "/api/projects/{project}/tasks/{task}",
        delete_task,
        "Delete the folder of a task with all its runs.",
        answers={
            204: ("It is gone.", None),
            403: _REFUSED,
            404: ("There is no such folder.", ref("Error")),
            409: ("Something of it runs.", ref("Error")),
        },
    ),
    Route(
        "DELETE",
        "/api/projects/{project}/tasks/{task}/runs/{run}",
        delete_run,
        "Delete a run that has ended.",
        answers={
            204: ("It is gone.", None),
            403: _REFUSED,
            404: ("There is no such run.", ref("Error")),
            409: ("It runs, or how it ended is not known.", ref("Error")),
        },
    ),
    Route(
        "POST",
        "/api/projects/{project}/gc",
        clean_project,
        "Delete the runs of a project that ended long ago and that nothing needs any more.",
        query=[
            Query("older_than", "How long ago, as Go writes durations: 168h when left out."),
            Query("dry_run", "true: only say what would go."),
            Query("keep_failed", "true: keep those that failed."),
        ],
        answers={
            200: ("What went, or would go.", ref("Cleaned")),
            400: ("That is no duration.", ref("Error")),
            403: _REFUSED,
            404: ("There is no such project.", ref("Error")),
        },
    ),
)
