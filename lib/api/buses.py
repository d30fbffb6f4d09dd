"""Which files make up the bus of a project or a task: the place of each kind of message.

Tasks in folders have buses of their own, as the original has them.  Flat
runs and plans report on the bus of the root, each message with the ids of
its project and task; there only these are meant.
"""

from __future__ import annotations

import heapq
import os
from typing import TYPE_CHECKING, Protocol

from lib import bus, files, ids, paths
from lib.api import bus_log
from lib.errors import UserError

if TYPE_CHECKING:
    from lib.api.bus_log import Place
    from lib.api.service import Service
    from lib.bus import Message
    from lib.index import Index


class Scoped(Protocol):
    """What names the project and task it is meant for."""

    project_id: str
    task_id: str


class Bus:
    """A bus file, which may be missing yet, and which of its messages are meant."""

    __slots__ = ("path", "project", "task", "top")

    def __init__(self, path: str, project: str = "", task: str = "", top: str = "") -> None:
        self.path = path
        self.project = project  # "" = all messages
        self.task = task
        self.top = top  # no link below this folder is followed

    def admits(self, message: Scoped) -> bool:
        if not self.project:
            return True
        project = message.project_id or bus.scope_of(self.path)[0]
        return project == self.project and self.task in ("", message.task_id)

    def is_reachable(self) -> bool:
        """False where a folder on the way is a link: then it counts as missing."""
        folder = os.path.dirname(self.path)
        return not self.top or os.path.realpath(folder) == os.path.realpath(self.top) + (
            folder.removeprefix(self.top)
        )


def buses_of(service: Service, project: str, task: str = "") -> list[Bus]:
    """The bus at its own place, then that of the root where it counts.

    It counts where flat runs or a plan belong to the project or task, and
    where there is no folder that tells otherwise.
    """
    own = Bus(own_path(service, project, task), top=service.runs_dir)
    with service.view.current() as index:
        if not _uses_root(index, service.runs_dir, project, task):
            return [own]
        return [own, Bus(root_path(index), project, task)]


def changed_last(service: Service, most: int, project: str = "") -> list[tuple[Bus, int]]:
    """The buses that changed last, and until when (ns since 1970): none has a newer message.

    All that there are, or those of a project and of its tasks.
    """
    with service.view.current() as index:
        root = root_path(index)
        counts = not project or _uses_root(index, service.runs_dir, project, "")
        found = [
            entry
            for entry in index.buses.values()
            if entry.size and (counts if entry.path == root else project in ("", entry.project))
        ]
    newest = heapq.nlargest(most, found, key=lambda entry: entry.changed_ns)
    return [
        (
            Bus(root, project) if entry.path == root else Bus(entry.path, top=service.runs_dir),
            entry.changed_ns + files.CLOCK_NS,
        )
        for entry in newest
    ]


def own_path(service: Service, project: str, task: str = "") -> str:
    """The bus in the folder of the project, or of the task."""
    if task:
        return os.path.join(service.runs_dir, project, task, paths.BUS_NAMES[0])
    return os.path.join(service.runs_dir, project, paths.BUS_NAMES[1])


def path_to_post_to(service: Service, project: str, task: str = "") -> str:
    """The own place, but for what is known by flat runs alone: these read the root's."""
    own = own_path(service, project, task)
    with service.view.current() as index:
        if not os.path.isdir(os.path.dirname(own)) and _is_flat(index, project, task):
            return root_path(index)
    return own


def root_path(index: Index) -> str:
    return next(entry.path for entry in index.buses.values() if not entry.project)


def last(buses: list[Bus], count: int) -> list[Message]:
    """The newest `count` messages of them all, the oldest first; a bus that cannot be read is empty."""
    found = _merged([_recent(item, count) for item in buses])
    return found[-count:] if count > 0 else []


def after(buses: list[Bus], msg_id: str) -> list[Message]:
    """Those behind that message, the oldest first; UserError when it is in none of them.

    In the other bus, behind what came before it by the time in its id.
    """
    reachable = [item for item in buses if item.is_reachable()]
    places = [bus_log.place_behind(item.path, msg_id) for item in reachable]
    if not any(places):
        raise UserError("message id not found")
    return _merged([_behind(*pair, msg_id) for pair in zip(reachable, places, strict=True)])


def _behind(item: Bus, place: Place | None, msg_id: str) -> list[Message]:
    if place is None:
        return _recent(item, 0, newer_than=msg_id)
    return [m for m in bus_log.behind(item.path, place, item.is_reachable) if item.admits(m)]


def _recent(item: Bus, count: int, newer_than: str = "") -> list[Message]:
    def enough(found: list[Message]) -> bool:
        if newer_than:
            return bool(found) and found[0].msg_id <= newer_than
        return len(found) >= count and sum(map(item.admits, found)) >= count

    try:
        found = bus.recent(item.path, enough) if item.is_reachable() else []
    except (UserError, OSError):
        return []
    return [m for m in found if item.admits(m) and (not newer_than or m.msg_id > newer_than)]


def _merged(parts: list[list[Message]]) -> list[Message]:
    if len(parts) == 1:
        return parts[0]
    return list(heapq.merge(*parts, key=lambda message: ids.parse_rfc3339(message.ts) or 0))


def _uses_root(index: Index, runs_dir: str, project: str, task: str) -> bool:
    if not os.path.isdir(os.path.join(runs_dir, project, task)):
        return True
    return _is_flat(index, project, task)


def _is_flat(index: Index, project: str, task: str) -> bool:
    """Whether flat runs or a plan belong to it."""
    if task:
        return _has_flat_runs(index, (project, task))
    return project in index.plans or any(
        _has_flat_runs(index, key) for key in index.tasks if key[0] == project
    )


def _has_flat_runs(index: Index, key: tuple[str, str]) -> bool:
    entry = index.tasks.get(key)
    return entry is not None and any(run.is_done is None for run in entry.runs)
