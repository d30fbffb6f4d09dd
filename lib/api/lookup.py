"""Which run an id means, and whether its folder is still where the index found it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lib import redact
from lib.api.exchange import Refusal, Request
from lib.api.shapes import RUN_FILES, Key

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.index import Index
    from lib.index_entries import RunEntry


_ON_DISK = {name: on_disk for name, _, on_disk in RUN_FILES}


def file_of(request: Request, on_disk: Mapping[str, str] = _ON_DISK) -> tuple[str, str]:
    """The file of a run that is asked for: its name for clients, and on disk; Refusal 404 for none."""
    name = request.query.get("name") or "stdout"
    if name not in on_disk:
        raise Refusal(404, f"unknown file: {redact.text(name[:100])}")
    return name, on_disk[name]


def run_of(service: Service, run_id: str, project: str = "", task: str = "") -> RunEntry:
    """The run of that id: anywhere, or in that task when both are named.

    Refusal 404 for none, 409 for several.  The entry goes on changing with the
    run; its files are found by `entry.run.file(name)`.
    """
    found = _find(service, run_id, project, task, now=False)
    if not found:  # it may have been made a moment ago
        found = _find(service, run_id, project, task, now=True)
    if not found:
        raise Refusal(404, "run not found")
    if len(found) > 1:
        raise Refusal(409, "duplicate run_id: several runs have it; name project and task")
    return found[0]


def task_key(index: Index, task: str, project: str = "") -> Key:
    """The project and id of the only task of that id; Refusal 404 for none, 409 for several."""
    found = [key for key in index.tasks if key[1] == task and project in ("", key[0])]
    if not found:
        raise Refusal(404, "task not found")
    if len(found) > 1:
        text = "several projects have a task of that id; name one with project_id"
        raise Refusal(409, text, task_id=task)
    return found[0]


def check_inside(service: Service, path: str) -> str:
    """`path`; Refusal 403 when a link on the way leads out of the runs folder."""
    top = os.path.realpath(service.runs_dir)
    if os.path.realpath(path) != top + path.removeprefix(service.runs_dir):
        raise Refusal(403, "path is outside of the root")
    return path


def _find(service: Service, run_id: str, project: str, task: str, *, now: bool) -> list[RunEntry]:
    with service.view.current(now=now) as index:
        if project and task:
            entry = index.tasks.get((project, task))
            return [run for run in entry.runs if run.run.run_id == run_id] if entry else []
        return _anywhere(index, run_id)


def _anywhere(index: Index, run_id: str) -> list[RunEntry]:
    end = f"/{run_id}"
    return [run for path, run in index.runs.items() if path.endswith(end)]
