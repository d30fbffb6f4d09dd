"""The runs of a task, one run in full, and both as the v1 API has them."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from lib import redact, runs
from lib.api import lookup, names, shapes
from lib.api.exchange import Answer, Refusal, Request, encode
from lib.api.facts import answer_page, join
from lib.api.route import Route, ref
from lib.api.schemas import LIMIT, OFFSET, page, wrapped
from lib.api.service import Service
from lib.api.shapes import Key

if TYPE_CHECKING:
    from lib.index import Index
    from lib.index_entries import RunEntry

_MAX_RECORD = 4 << 20  # bytes


def list_runs(service: Service, request: Request) -> Answer:
    key = request.params["project"], request.params["task"]
    limit, offset = names.page_of(request.query)
    with service.view.current() as index:
        service.facts.prepare(index)
        entry = index.tasks.get(key)
        found = service.facts.of_task(entry).entries if entry is not None else []
        if not found:
            raise Refusal(404, "task not found")
        shown = found[offset : offset + limit]
        items = [encode(shapes.summary(run, with_files=True)) for run in shown]
    return answer_page(items, len(found), limit, offset)


def show_run(service: Service, request: Request) -> Answer:
    key = request.params["project"], request.params["task"]
    entry = _shown_run(service, request.params["run"], *key)
    with service.view.current() as index:
        service.facts.prepare(index)
        return Answer(shapes.detail(key, entry, _children(index, key, entry)))


def _shown_run(service: Service, run_id: str, project: str = "", task: str = "") -> RunEntry:
    entry = lookup.run_of(service, run_id, project, task)
    if not shapes.is_shown(entry):
        raise Refusal(404, "run not found")
    return entry


def _children(index: Index, key: Key, entry: RunEntry) -> list[str]:
    """The ids of the runs of its project that were started inside this one, the oldest first."""
    name = entry.run.run_id
    found = [
        run
        for (project, _), task in index.tasks.items()
        if project == key[0]
        for run in task.runs
        if run.run.record.get("parent_run_id") == name
    ]
    found.sort(key=lambda run: (run.started_ns, run.run.run_id))
    return [run.run.run_id for run in found]


# -- the v1 API


def list_v1_runs(service: Service, request: Request) -> Answer:
    def make(index: Index) -> bytes:
        service.facts.prepare(index)
        found = service.facts.of_runs(index.tasks.values())
        found.sort(key=attrgetter("run_id"))
        return b'{"runs":' + join(run.v1 for run in found) + b"}\n"

    return Answer(service.view.answer("v1 runs", make))


def show_v1_run(service: Service, request: Request) -> Answer:
    entry = _shown_run(service, request.params["run"])
    with service.view.current() as index:
        service.facts.prepare(index)
        return Answer(shapes.v1_run(_key_of(index, entry), entry))


def _key_of(index: Index, entry: RunEntry) -> Key:
    """Under which project and task the run is listed: in whose folder it lies, else the recorded."""
    task_folder = runs.task_folder_of(entry.run)
    project, _, task = task_folder.removeprefix(f"{index.runs_dir}/").partition("/")
    return (project, task) if task_folder and task else (entry.project, entry.task)


def show_record(service: Service, request: Request) -> Answer:
    """The record as it is on disk, but for secrets."""
    entry = lookup.run_of(service, request.params["run"])
    with service.view.current() as index:
        service.facts.prepare(index)
    lookup.check_inside(service, entry.path)
    try:
        text = entry.run.read_text(runs.RECORD, _MAX_RECORD)
    except OSError:
        raise Refusal(404, "run info not found") from None
    return Answer(redact.text(text).encode("utf-8", "replace"), kind="application/x-yaml")


_NO_RUN = ("There is no such run.", ref("Error"))
_SEVERAL = ("Several runs have that id.", ref("Error"))

ROUTES = (
    Route(
        "GET",
        "/api/projects/{project}/tasks/{task}/runs",
        list_runs,
        "A page of the runs of a task, the newest first.",
        query=(LIMIT, OFFSET),
        answers={
            200: ("The page.", page("RunSummary")),
            404: ("There is no such task, or it has no runs.", ref("Error")),
        },
    ),
    Route(
        "GET",
        "/api/projects/{project}/tasks/{task}/runs/{run}",
        show_run,
        "All that is known of a run.",
        answers={200: ("The run.", ref("RunDetail")), 404: _NO_RUN, 409: _SEVERAL},
    ),
    Route(
        "GET",
        "/api/v1/runs",
        list_v1_runs,
        "All runs, by their ids.",
        answers={200: ("The runs.", wrapped("runs", "V1Run"))},
    ),
    Route(
        "GET",
        "/api/v1/runs/{run}",
        show_v1_run,
        "A run by its id alone.",
        answers={200: ("The run.", ref("V1Run")), 404: _NO_RUN, 409: _SEVERAL},
    ),
    Route(
        "GET",
        "/api/v1/runs/{run}/info",
        show_record,
        "The record of a run as it is on disk, but for secrets.",
        answers={
            200: ("run-info.yaml: a mapping, unless it is damaged.", {}),
            403: ("A link leads out of the storage.", ref("Error")),
            404: _NO_RUN,
            409: _SEVERAL,
        },
        kind="application/x-yaml",
    ),
)
