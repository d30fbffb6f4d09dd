"""The projects of the storage: what there is, where their sources lie, and how many runs they have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lib import files, ids, paths, redact, runs
from lib.api import schemas
from lib.api.exchange import Answer, Refusal, Request
from lib.api.facts import ROOT_MARKER, by_project
from lib.api.route import Route, ref
from lib.api.schemas import TEXTS, listed, thing
from lib.api.service import Service
from lib.api.shapes import Shape

if TYPE_CHECKING:
    from lib.api.facts import Facts, TaskFacts
    from lib.index import Index, TaskEntry

MAX_HOME_DIRS = 20


def list_projects(service: Service, request: Request) -> Answer:
    with service.view.current() as index:
        service.facts.prepare(index)
        found = [_summary(service.facts, index, *item) for item in by_project(index).items()]
    found.sort(key=lambda pair: str(pair[1]["id"]))
    found.sort(key=lambda pair: pair[0], reverse=True)
    return Answer({"projects": [summary for _, summary in found]})


def show_project(service: Service, request: Request) -> Answer:
    project = request.params["project"]
    with service.view.current() as index:
        service.facts.prepare(index)
        members = _members(index, project)
        return Answer(_summary(service.facts, index, project, members)[1])


def list_home_dirs(service: Service, request: Request) -> Answer:
    """Those used last are kept where there are too many."""
    with service.view.current() as index:
        service.facts.prepare(index)
        used: dict[str, int] = {}
        for entry in index.tasks.values():
            for cwd, (_, last_ns) in service.facts.of_task(entry).cwds.items():
                used[cwd] = max(last_ns, used.get(cwd, 0))
        for project in index.projects():
            if marked := _marked_root(index, project):
                used.setdefault(marked, 0)
    kept = sorted(used, key=lambda cwd: (-used[cwd], cwd))[:MAX_HOME_DIRS]
    return Answer({"dirs": [redact.values(cwd) for cwd in sorted(kept)]})


def show_stats(service: Service, request: Request) -> Answer:
    project = request.params["project"]
    with service.view.current() as index:
        service.facts.prepare(index)
        members = _members(index, project, needs_task=False)
        return Answer(_stats(service.facts, index, project, members))


def _members(index: Index, project: str, *, needs_task: bool = True) -> list[TaskEntry]:
    """Its tasks; Refusal 404 for a project that there is not."""
    members = [entry for (name, _), entry in index.tasks.items() if name == project]
    is_known = bool(members or index.file_of_project(project, ROOT_MARKER))
    if not is_known and (needs_task or project not in index.projects()):
        raise Refusal(404, "project not found")
    return members


def _summary(
    facts: Facts, index: Index, project: str, members: list[TaskEntry]
) -> tuple[int, Shape]:
    """When something last happened in it, and the object."""
    known = [facts.of_task(entry) for entry in members]
    with_runs = [item for item in known if item.entries]
    last = max((item.last for item in with_runs or known), default=(0, ids.ZERO_TIME))
    cwds = [(first_ns, cwd) for cwd, first_ns in _first_used(with_runs)]
    top = min(cwds)[1] if cwds else _marked_root(index, project)
    shape: Shape = {"id": project, "last_activity": last[1], "task_count": len(with_runs)}
    found = {key: redact.values(value) for key, value in shape.items()}
    return last[0], {**found, **({"project_root": redact.values(top)} if top else {})}


def _first_used(known: list[TaskFacts]) -> Iterator[tuple[str, int]]:
    for item in known:
        for cwd, (first_ns, _) in item.cwds.items():
            yield cwd, first_ns


def _marked_root(index: Index, project: str) -> str:
    path = index.file_of_project(project, ROOT_MARKER)
    if not path:
        return ""
    try:
        return files.read_regular(path, 4096).decode("utf-8", "replace").partition("\n")[0].strip()
    except OSError:
        return ""


def _stats(facts: Facts, index: Index, project: str, members: list[TaskEntry]) -> Shape:
    counts = dict.fromkeys((runs.RUNNING, runs.COMPLETED, runs.FAILED), 0)
    total = 0
    for entry in members:
        total += len(entry.runs)
        for status, number in facts.of_task(entry).counts.items():
            if status in counts:
                counts[status] += number
    sizes = list(_bus_sizes(index, project, members))
    return {
        "project_id": redact.values(project),
        "total_tasks": len(members),
        "total_runs": total,
        **{f"{status}_runs": number for status, number in counts.items()},
        "crashed_runs": total - sum(counts.values()),
        "message_bus_files": len(sizes),
        "message_bus_total_bytes": sum(sizes),
    }


def _bus_sizes(index: Index, project: str, members: list[TaskEntry]) -> Iterator[int]:
    own = index.file_of_project(project, paths.BUS_NAMES[1])
    if own in index.buses:
        yield index.buses[own].size
    for entry in members:
        if entry.bus is not None and entry.has_file(os.path.basename(entry.bus.path)):
            yield entry.bus.size


SCHEMAS = schemas.SCHEMAS

ROUTES = (
    Route(
        "GET",
        "/api/projects",
        list_projects,
        "The projects, the one where something happened last first.",
        answers={200: ("The projects.", thing({"projects": listed("ProjectSummary")}))},
    ),
    Route(
        "GET",
        "/api/projects/home-dirs",
        list_home_dirs,
        "Folders that runs have worked in, at most 20, for forms to propose.",
        answers={200: ("The folders.", thing({"dirs": TEXTS}))},
    ),
    Route(
        "GET",
        "/api/projects/{project}",
        show_project,
        "One project.",
        answers={
            200: ("The project.", ref("ProjectSummary")),
            404: ("There is no such project.", ref("Error")),
        },
    ),
    Route(
        "GET",
        "/api/projects/{project}/stats",
        show_stats,
        "How many tasks, runs and messages a project has.",
        answers={
            200: ("The figures.", ref("ProjectStats")),
            404: ("There is no such project.", ref("Error")),
        },
    ),
)
