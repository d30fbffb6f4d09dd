"""Folders that a request is about to write to: named so that ours can be there, and inside the root."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib import cleaning, tasks
from lib.api import audit, lookup, names
from lib.api.console import tell
from lib.api.exchange import Refusal
from lib.errors import UserError
from lib.tasks import Task

if TYPE_CHECKING:
    from lib.api.service import Service

NO_SOURCES = "project_root does not exist, or is no folder"
_RESERVED = (audit.FOLDER,)
_locks = [threading.Lock() for _ in range(32)]


def lock_of(project: str, task: str = "") -> threading.Lock:
    """Held by who makes, starts or removes that task: one at a time in this server."""
    return _locks[hash((project, task)) % len(_locks)]


@contextmanager
def trash(service: Service) -> Iterator[None]:
    """What is put into the trash meanwhile is removed at the end.

    Nobody else empties it before: what proves to live is taken out of it again.
    """
    with cleaning.held_trash(service.runs_dir):
        yield
    empty_trash(service)


def empty_trash(service: Service) -> None:
    """Trouble is told: what lies there is gone for everybody, and goes the next time."""
    try:
        for path in cleaning.empty_trash(service.runs_dir, ()):
            tell(f"cannot be removed whole: {path}; remove it by hand")
    except (UserError, OSError) as error:
        tell(f"the trash cannot be emptied: {error}")


def check_ids(project: str, task: str = "") -> None:
    """Refusal 400 for names that could be folders, but not those of tasks that run-task works on."""
    names.check("project", project)
    if task:
        names.check("task", task)
    try:
        tasks.check_ids(project, task or "task")
    except UserError as error:
        text = str(error).replace("--project", "project_id", 1).replace("--task", "task_id", 1)
        raise Refusal(400, text) from None
    refuse_reserved(project)


def refuse_reserved(project: str) -> None:
    if project in _RESERVED:
        raise Refusal(400, f"project_id: {project} is a name that the server uses itself")


def folder_to_make(service: Service, project: str, task: str = "") -> str:
    """The path of the project's or task's folder; what is there already is a folder inside."""
    check_ids(project, task)
    path = os.path.join(service.runs_dir, project)
    for folder in (path, os.path.join(path, task)) if task else (path,):
        if os.path.lexists(folder):
            _check_folder(service, folder)
    return os.path.join(path, task) if task else path


def task_to_make(service: Service, project: str, task: str) -> Task:
    """The task of these ids, whether it exists or not."""
    return Task(folder_to_make(service, project, task))


def task_that_is(service: Service, project: str, task: str) -> Task:
    """The task in the folder of these ids; Refusal 404 where there is none."""
    path = os.path.join(service.runs_dir, project, task)
    if not os.path.isdir(path):
        raise Refusal(404, "task not found")
    _check_folder(service, path)
    return Task(path)


def project_that_is(service: Service, project: str) -> str:
    """The folder of the project; Refusal 404 where there is none."""
    path = os.path.join(service.runs_dir, project)
    if not os.path.isdir(path):
        raise Refusal(404, "project not found")
    _check_folder(service, path)
    return path


def sources(text: str) -> str:
    """The folder of sources that a request names, as an absolute path; Refusal 400 for none."""
    path = os.path.expanduser(text.strip())
    if not os.path.isabs(path):
        raise Refusal(400, "project_root must be an absolute path")
    if not os.path.isdir(path):
        raise Refusal(400, NO_SOURCES)
    return os.path.abspath(path)


def _check_folder(service: Service, path: str) -> None:
    lookup.check_inside(service, path)
    if not os.path.isdir(path):
        raise Refusal(409, f"{os.path.basename(path)} is a file, not a folder")
