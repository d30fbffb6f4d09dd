"""Makes a page and puts it where it belongs."""

from __future__ import annotations

import gc
import os

from lib import files
from lib.index import Index
from lib.monitor.facts import Facts, Observer
from lib.situation import Situation
from lib.status_page import model, page
from lib.status_page.limits import GENEROUS_TASKS, LEVELS, MOST_BYTES, Limits

NAME = "status.html"
MODE = 0o600


def path_of(runs_dir: str, project: str = "") -> str:
    """Where the page of a project, or of the whole root, is put unless somebody wants it elsewhere."""
    return os.path.join(runs_dir, project, NAME)


def make(facts: Facts, observer: Observer, project: str = "") -> bytes:
    """The page of a project, or of everything; what is too much for one is left out and counted."""
    was_enabled = gc.isenabled()
    gc.disable()  # so many new elements at once, and none is garbage: it would only walk them
    try:
        count = sum(len(view.scope) for view in facts.plans)
        levels = LEVELS if count <= GENEROUS_TASKS else LEVELS[1:]
        for limits in levels[:-1]:
            data = _render(facts, observer, project, limits)
            if len(data) <= MOST_BYTES:
                return data
        return _render(facts, observer, project, levels[-1])
    finally:
        if was_enabled:
            gc.enable()


def _render(facts: Facts, observer: Observer, project: str, limits: Limits) -> bytes:
    if project:
        return page.render(model.of_project(facts, observer, project, limits))
    return page.render(model.of_root(facts, observer, limits))


def save(path: str, data: bytes) -> None:
    """Replace the page at `path`; whoever reads it meanwhile has the old one or the new one.

    What an agent put in its place, such as a link or a pipe, is replaced and not
    followed.  OSError for a folder, and for one that cannot be written.
    """
    files.replace_file(path, data, MODE, durable=False)


def write_at_end(seen: Situation, bus_path: str) -> str:
    """Write the page of a plan that has ended, by the process that ran it and still holds its lock.

    Returns its path.  Only the runs of the plan are looked at: what it costs
    does not grow with the root.  OSError, UserError.
    """
    runs_dir, project = seen.runs_dir, seen.plan.project
    attempts = [item for entry in seen.tasks.values() for item in entry.attempts]
    names = {project, *(os.path.basename(str(item.get("run") or "")) for item in attempts)}
    index = Index(runs_dir, bus_path=bus_path, only=names)
    observer = Observer(index, project)
    changes = index.refresh()
    if project in index.plans:
        index.plans[project].is_run = False  # it is over: this process alone holds it
    observer.take(changes)
    path = path_of(runs_dir, project)
    save(path, make(observer.facts(), observer, project))
    return path
