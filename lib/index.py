"""One view of the runs, tasks, plans and buses below a root, kept current for what has changed.

`refresh` looks at the times of folders, at the records of runs that have not
ended, and at the outputs of those that live.  A run that has ended is read
once.  Nothing is ever written, and nothing is kept open.  What is shown comes
from where the folders lie, so a root may be moved, copied, mounted elsewhere,
or be one that the original wrote; folders may come and go meanwhile.

The time of a folder tells whether something was made, removed or renamed in
it, but not within one tick of the file system's clock: a folder that changed
a moment ago is listed once more.
"""

from __future__ import annotations

import gc
import os
import time

from lib import files, ids, loop_record, paths, runs, state, tasks, yamlio
from lib.errors import UserError
from lib.index_entries import BusEntry, Changes, PlanEntry, RunEntry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from lib.bus import Message

Key = tuple[str, str]  # project, task

TASK_MARKS = frozenset(
    [tasks.PROMPT, tasks.CONFIG, tasks.LOOP, tasks.DONE, "runs", paths.BUS_NAMES[0]]
)
FRESH_NS = ids.NANOSECONDS  # so long after a change a folder may change again unseen
SETTLED_SECONDS = 60.0  # from when on a task at rest is looked at less often


class _Folder:
    """A folder as it was listed last: {name: (inode, is it a folder, is it a regular file)}.

    `gone` and `new` are the names that the last listing missed and found; one
    that stands for something else now is among both.
    """

    __slots__ = ("_seen", "gone", "items", "mtime_ns", "new", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.items: dict[str, tuple[int, bool, bool]] = {}
        self.gone: list[str] = []
        self.new: list[str] = []
        self.mtime_ns = 0
        self._seen: object = None

    def look(self) -> bool:
        """True when it was listed anew; a folder that is gone is an empty one."""
        try:
            status = os.stat(self.path)
        except OSError:
            had, self.gone, self.new = bool(self.items), list(self.items), []
            self.items, self._seen = {}, None
            return had
        seen = (status.st_ino, status.st_mtime_ns)
        if seen == self._seen:
            return False
        is_fresh = time.time_ns() - status.st_mtime_ns < FRESH_NS
        self._list()
        self.mtime_ns = status.st_mtime_ns
        self._seen = None if is_fresh else seen
        return True

    def has_changed(self) -> bool:
        """Whether `look` would list it anew."""
        try:
            status = os.stat(self.path)
        except OSError:
            return bool(self.items)
        return (status.st_ino, status.st_mtime_ns) != self._seen

    def _list(self) -> None:
        """Cheap for a folder of thousands of which one is new."""
        old, items, new = self.items, {}, []
        replaced = []
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    name = entry.name
                    item = (entry.inode(), entry.is_dir(follow_symlinks=False),
                            entry.is_file(follow_symlinks=False))  # fmt: skip
                    known = old.get(name)
                    if known != item:
                        new.append(name)
                        if known is not None:
                            replaced.append(name)
                    items[name] = item
        except OSError:
            items, new, replaced = {}, [], []
        is_whole = len(items) - len(new) == len(old) - len(replaced)
        self.gone = replaced if is_whole else [*(old.keys() - items.keys()), *replaced]
        self.items, self.new = items, new

    def has_file(self, name: str) -> bool:
        return self.items.get(name, (0, False, False))[2]

    def is_shown(self, name: str) -> bool:
        """Whether that is a folder in it that is not hidden."""
        return self.items[name][1] and not name.startswith(".")

    def new_folders(self) -> list[str]:
        return [name for name in self.new if self.is_shown(name)]


class TaskEntry:
    """A task: its folder where it has one, its runs (newest first), and how it stands.

    `status` is that of the newest run with a record, as the original lists
    it; without one `done`, `blocked` or `-`.  `loop` is what TASK-LOOP.yaml
    says, None for a task that no loop of ours has worked on, and
    `loop_is_live` whether that loop is at work.  `last_ns` is when something
    last happened to the task, 0 when that is not known.
    """

    __slots__ = (
        "_config", "_folder", "_loop_seen", "blocked_by", "bus", "depends_on",
        "done", "last_ns", "loop", "loop_is_live", "next_look", "path", "project", "runs",
        "runs_folder", "status", "task",
    )  # fmt: skip

    def __init__(self, project: str, task: str, path: str = "") -> None:
        self.project = project
        self.task = task
        self.path = path  # of its folder; "" for one that is known from flat runs alone
        self.runs: list[RunEntry] = []
        self.status = "-"
        self.done = False
        self.depends_on: list[str] = []
        self.blocked_by: list[str] = []
        self.loop: dict[str, object] | None = None
        self.loop_is_live = False
        self.last_ns = 0
        self.bus: BusEntry | None = None
        self.next_look = 0.0
        self._folder = _Folder(path)
        self.runs_folder = _Folder(f"{path}/runs")
        self._config: object = None
        self._loop_seen: object = None

    @property
    def key(self) -> Key:
        return self.project, self.task

    @property
    def is_live(self) -> bool:
        return self.loop_is_live or any(entry.is_live for entry in self.runs)

    @property
    def loop_state(self) -> str:
        """The state in TASK-LOOP.yaml; "" without one."""
        return str(self.loop.get("state") or "") if self.loop else ""

    def look(self) -> bool:
        """Look at what lies in its folder but for the runs; True when that says something new."""
        is_listed = self._folder.look()
        before = (self.done, self.loop_is_live, self.depends_on, self.loop)
        if is_listed:
            self.done = self._folder.has_file(tasks.DONE)
        if self._folder.has_file(tasks.LOOP) or self.loop is not None:
            self._look_at_loop()
        if self._folder.has_file(tasks.CONFIG) or self.depends_on:
            self._look_at_config()  # written in place, by the original or by hand: no folder tells
        if self.loop is not None:
            self.loop_is_live = self.loop_state not in loop_record.ENDED and _is_locked(
                f"{self.path}/{loop_record.LOCK}"
            )
        return before != (self.done, self.loop_is_live, self.depends_on, self.loop)

    def is_task(self) -> bool:
        return not TASK_MARKS.isdisjoint(self._folder.items)

    def has_file(self, name: str) -> bool:
        """Whether there is a regular file of that name in its folder."""
        return self._folder.has_file(name)

    def has_folder(self, name: str) -> bool:
        return self._folder.items.get(name, (0, False, False))[1]

    def has_news_of_runs(self) -> bool:
        """Whether a run may have come or gone since `look`, by one look at one folder."""
        return (self.runs_folder if self.has_folder("runs") else self._folder).has_changed()

    def _look_at_loop(self) -> None:
        path = f"{self.path}/{tasks.LOOP}"
        seen = files.signature(path) if self._folder.has_file(tasks.LOOP) else None
        if seen != self._loop_seen:
            self._loop_seen = seen
            self.loop = None if seen is None else _mapping(path)
            self.loop_is_live = False

    def _look_at_config(self) -> None:
        task = tasks.Task(self.path)
        seen = files.signature(task.file(tasks.CONFIG))
        if seen != self._config:
            self._config = seen
            try:
                self.depends_on = tasks.dependencies(task)
            except UserError:
                self.depends_on = []  # a damaged one keeps nobody from looking; a start is told

    def judge(self, index: Index) -> bool:
        """Work out what hangs on its runs and on other tasks; True when that is new."""
        before = (self.status, self.blocked_by, self.last_ns)
        self.blocked_by = [
            item for item in self.depends_on if not index.is_ready(self.project, item)
        ]
        self.status = self._status()
        newest = self.runs[0] if self.runs else None
        ended = (newest.ended_ns or newest.started_ns) if newest else 0
        self.last_ns = max(ended, 0 if newest else self._folder.mtime_ns)
        return before != (self.status, self.blocked_by, self.last_ns)

    def _status(self) -> str:
        for entry in self.runs:
            if entry.run.record or entry.is_live:
                return entry.state.status
        if self.done:
            return "done"
        if self.blocked_by:
            return "blocked"
        return runs.UNKNOWN if any(entry.run.problem for entry in self.runs) else "-"

    def is_ready(self) -> bool:
        """Whether tasks that depend on it may start: DONE, or as the original has it.

        That is, of records as they stand: none says running, and the one of
        the greatest id says completed.  A task of a loop of ours needs DONE.
        """
        if self.done or self.loop is not None:
            return self.done
        records = [entry.run for entry in self.runs if entry.is_done is not None]
        statuses = {run.run_id: run.text("status") for run in records if run.record}
        if not statuses or runs.RUNNING in statuses.values():
            return False
        return statuses[max(statuses)] == runs.COMPLETED


class Index:
    """Runs by path, tasks by (project, task), plans by project and buses by path.

    `rest_seconds` is how late a change may be seen in a task at which nobody
    works and nothing has changed for a minute: with thousands of them, looking
    at each in every refresh is what costs.  With 0 everything is looked at.
    `only` names the folders of the runs folder that are looked at; None: all.
    """

    def __init__(
        self,
        runs_dir: str,
        *,
        bus_path: str = "",
        rest_seconds: float = 0.0,
        only: Collection[str] | None = None,
    ) -> None:
        self.runs_dir = runs_dir
        self._only = only
        self.runs: dict[str, RunEntry] = {}
        self.tasks: dict[Key, TaskEntry] = {}
        self.plans: dict[str, PlanEntry] = {}
        self.buses: dict[str, BusEntry] = {}
        self.rest_seconds = rest_seconds
        self._root = _Folder(runs_dir)
        self._projects: dict[str, _Folder] = {}
        self._folders: dict[str, dict[str, TaskEntry]] = {}  # what lies in a project's, task or not
        self._open: dict[str, RunEntry] = {}  # runs that have no final record
        self._keys: dict[str, Key] = {}  # under which task a run stands
        self._wide_buses: set[str] = set()  # paths of those that are no task's
        self._unsorted: set[Key] = set()
        self._dirty: set[Key] = set()
        self._changes = Changes()
        self._now = 0.0
        self.listings = 0  # grows when a folder was listed anew
        self._add_bus(bus_path or os.path.join(os.path.dirname(runs_dir), paths.BUS_NAME), "", "")

    def refresh(self) -> Changes:
        """Take in what has changed since the last call, and say what that is."""
        self._changes = Changes()
        self._now = time.monotonic()
        was_enabled = gc.isenabled()
        gc.disable()  # so many new records at once, and none is garbage: it would only walk them
        try:
            self._look_at_root()
            for project in list(self._projects):
                self._look_at_project(project)
            for entry in list(self._open.values()):
                self._look_at_run(entry)
            self._look_at_buses()
            self._judge_tasks()
        finally:
            if was_enabled:
                gc.enable()
        return self._changes

    def notice(self, path: str) -> None:
        """Have the next refresh look at the task of that folder, however long it is at rest."""
        if path == self.runs_dir:
            return  # always looked at, and so are the projects
        project, _, rest = path.removeprefix(f"{self.runs_dir}/").partition("/")
        entry = self._folders.get(project, {}).get(rest.partition("/")[0])
        if entry is not None:
            entry.next_look = 0.0

    def notice_all(self) -> None:
        """Have the next refresh look at every task."""
        for members in self._folders.values():
            for entry in members.values():
                entry.next_look = 0.0

    def notice_runs(self) -> None:
        """Have the next refresh look at each task at rest in which a run has come or gone.

        For who waits for runs where nothing tells of them: it costs less than half of looking
        at all tasks, but far more than letting them rest.
        """
        for members in self._folders.values():
            for entry in members.values():
                if entry.next_look and entry.has_news_of_runs():
                    entry.next_look = 0.0

    def folders(self) -> Iterator[str]:
        """Every folder in which something may come about that a refresh takes in."""
        yield self.runs_dir
        for project, members in self._folders.items():
            yield self._projects[project].path
            for entry in members.values():
                yield entry.path
                if entry.runs_folder.items or entry.has_folder("runs"):
                    yield entry.runs_folder.path
        for path, run in self._open.items():
            if run.is_live or not run.run.record:
                yield path

    def key_of(self, path: str) -> Key:
        """Under which project and task a run stands; ("", "") for one that is not known."""
        return self._keys.get(path, ("", ""))

    def is_ready(self, project: str, task: str) -> bool:
        """Whether what depends on that task may start; unknown tasks are not."""
        entry = self.tasks.get((project, task))
        return entry is not None and bool(entry.path) and entry.is_ready()

    def projects(self) -> list[str]:
        """The names of the folders below the root that are no runs: projects, and what else."""
        return list(self._projects)

    def file_of_project(self, project: str, name: str) -> str:
        """The path of a regular file in a project's folder; "" where there is none."""
        folder = self._projects.get(project)
        return f"{folder.path}/{name}" if folder is not None and folder.has_file(name) else ""

    def live(self) -> list[RunEntry]:
        """The runs that live, the newest first."""
        found = [entry for entry in self._open.values() if entry.is_live]
        return sorted(found, key=RunEntry.order, reverse=True)

    def newest(self, count: int) -> list[RunEntry]:
        """The runs that started last, the newest first."""
        import heapq

        starts = heapq.nlargest(count, [entry.started_ns for entry in self.runs.values()])
        if not starts:
            return []
        found = [entry for entry in self.runs.values() if entry.started_ns >= starts[-1]]
        return sorted(found, key=RunEntry.order, reverse=True)[:count]

    def messages(self, count: int) -> list[Message]:
        """The newest messages of all buses, the oldest of them first."""
        found: list[tuple[int, Message]] = []
        for bus in sorted(self.buses.values(), key=lambda bus: bus.changed_ns, reverse=True):
            if len(found) >= count and bus.changed_ns + files.CLOCK_NS < found[-count][0]:
                break  # nothing in it is newer than the oldest of these
            bus.read()
            found += [(ids.parse_rfc3339(item.ts) or 0, item) for item in bus.messages[-count:]]
            found.sort(key=lambda pair: pair[0])
        return [item for _, item in found[-count:]] if count > 0 else []

    # -- folders

    def _look_at_root(self) -> None:
        if not self._root.look():
            return
        self.listings += 1
        for name in self._root.gone:
            if name in self._projects:
                self._drop_project(name)
            else:
                self._drop_run(self._path(name))
        for name in self._root.new_folders():
            if self._only is not None and name not in self._only:
                continue
            if runs.is_run_name(name):
                self._add_run(self._path(name), None)
            else:
                self._projects[name] = _Folder(self._path(name))
                self._folders[name] = {}

    def _drop_project(self, project: str) -> None:
        del self._projects[project]
        for entry in self._folders.pop(project).values():
            self._drop_folder(entry)
        self._drop_bus(self._path(project, paths.BUS_NAMES[1]))
        self._drop_plan(project)

    def _drop_plan(self, project: str) -> None:
        if self.plans.pop(project, None):
            self._changes.plans.add(project)

    def _path(self, *names: str) -> str:
        return "/".join((self.runs_dir, *names))

    def _look_at_project(self, project: str) -> None:
        folder = self._projects[project]
        if folder.look():
            self.listings += 1
            self._list_project(project, folder)
        for entry in list(self._folders[project].values()):
            if entry.next_look <= self._now:
                self._look_at_folder(entry)
        plan = self.plans.get(project)
        if plan is not None and plan.look():
            self._changes.plans.add(project)

    def _list_project(self, project: str, folder: _Folder) -> None:
        members = self._folders[project]
        for name in folder.gone:
            if name in members:
                self._drop_folder(members.pop(name))
        for name in folder.new_folders():
            members[name] = TaskEntry(project, name, f"{folder.path}/{name}")
        self._keep_bus(folder, paths.BUS_NAMES[1], project, "")
        if not folder.has_file(state.STATE_NAME):
            self._drop_plan(project)
        elif project not in self.plans:
            self.plans[project] = PlanEntry(self.runs_dir, project)

    def _look_at_folder(self, entry: TaskEntry) -> None:
        has_changed = entry.look()
        if not entry.is_task():
            if self.tasks.get(entry.key) is entry:
                self._drop_folder(entry)
                self._folders[entry.project][entry.task] = TaskEntry(*entry.key, entry.path)
            return
        if self.tasks.get(entry.key) is not entry:
            self._take_in(entry)
            has_changed = True
        self._keep_bus(entry._folder, paths.BUS_NAMES[0], *entry.key)
        entry.bus = self.buses.get(f"{entry.path}/{paths.BUS_NAMES[0]}")
        if entry.bus is not None and entry.bus.look():
            self._changes.buses.add(entry.bus.path)
        folder = entry.runs_folder
        if folder.look():
            self.listings += 1
            for name in folder.gone:
                self._drop_run(f"{folder.path}/{name}")
            for name in folder.new_folders():
                self._add_run(f"{folder.path}/{name}", entry)
        if has_changed:
            self._touch(entry.key)
            for run in entry.runs:
                if run.is_done is not None and run.set_done(entry.done):
                    self._changes.runs.add(run.path)
        elif self.rest_seconds and not entry.is_live:
            changed_ns = max(entry.last_ns, entry._folder.mtime_ns)
            changed_ns = max(changed_ns, entry.bus.changed_ns if entry.bus else 0)
            if time.time_ns() - changed_ns > SETTLED_SECONDS * ids.NANOSECONDS:
                entry.next_look = self._now + self.rest_seconds

    def _take_in(self, entry: TaskEntry) -> None:
        """A task known from flat runs has got a folder, or a folder turns out to be a task."""
        known = self.tasks.get(entry.key)
        if known is not None:
            entry.runs = known.runs
            self._unsorted.add(entry.key)
        self.tasks[entry.key] = entry

    def _drop_folder(self, entry: TaskEntry) -> None:
        key = entry.key
        self._drop_bus(f"{entry.path}/{paths.BUS_NAMES[0]}")
        for name in entry.runs_folder.items:
            self._drop_run(f"{entry.runs_folder.path}/{name}")
        if self.tasks.get(key) is entry:
            del self.tasks[key]
            self._touch(key)
            if entry.runs:  # flat ones
                rest = self.tasks[key] = TaskEntry(*key)
                rest.runs = entry.runs

    # -- runs

    def _add_run(self, path: str, owner: TaskEntry | None) -> None:
        """Take in a run: a flat one, or one in the folder of the task `owner`."""
        entry = RunEntry(path, owner.done if owner else None)
        if not entry.run.record and not os.path.isdir(path):
            return  # gone again
        self.runs[path] = entry
        if not entry.is_final:
            self._open[path] = entry
        self._file(entry, owner.key if owner else None)
        self._changes.runs.add(path)

    def _file(self, entry: RunEntry, owner: Key | None = None) -> None:
        """Put a run under its task: that in whose folder it lies, else the recorded one."""
        key = owner or (entry.project, entry.task)
        self._keys[entry.path] = key
        if not all(key):
            return  # before it has a record
        task = self.tasks.get(key)
        if task is None:
            task = self.tasks[key] = TaskEntry(*key)
        task.runs.append(entry)
        self._unsorted.add(key)
        self._touch(key)

    def _unfile(self, path: str) -> None:
        key = self._keys.pop(path)
        task = self.tasks.get(key)
        if task is None:
            return
        task.runs = [entry for entry in task.runs if entry.path != path]
        self._touch(key)
        if not task.runs and not task.path:
            del self.tasks[key]

    def _drop_run(self, path: str) -> None:
        if path in self.runs:
            self._unfile(path)
            del self.runs[path]
            self._open.pop(path, None)
            self._changes.runs.add(path)

    def _look_at_run(self, entry: RunEntry) -> None:
        key, started_ns = self._keys[entry.path], entry.started_ns
        if not entry.look():
            return
        self._changes.runs.add(entry.path)
        if entry.is_final:
            del self._open[entry.path]
        is_flat = entry.is_done is None
        if is_flat and key != (entry.project, entry.task):
            self._unfile(entry.path)
            self._file(entry)
        elif entry.started_ns != started_ns:
            self._unsorted.add(key)
        self._touch(key)

    # -- buses

    def _keep_bus(self, folder: _Folder, name: str, project: str, task: str) -> None:
        path = f"{folder.path}/{name}"
        if name not in folder.items:
            self._drop_bus(path)
        elif path not in self.buses:
            self._add_bus(path, project, task)

    def _add_bus(self, path: str, project: str, task: str) -> None:
        self.buses[path] = BusEntry(path, project, task)
        if not task:
            self._wide_buses.add(path)

    def _drop_bus(self, path: str) -> None:
        if self.buses.pop(path, None):
            self._wide_buses.discard(path)
            self._changes.buses.add(path)

    def _look_at_buses(self) -> None:
        """Those of the root and of projects; a task's is looked at with its task."""
        for path in self._wide_buses:
            if self.buses[path].look():
                self._changes.buses.add(path)

    # -- tasks

    def _touch(self, key: Key) -> None:
        if all(key):  # a run without a record stands under no task
            self._dirty.add(key)
            self._changes.tasks.add(key)

    def _judge_tasks(self) -> None:
        for key in self._unsorted & self.tasks.keys():
            self.tasks[key].runs.sort(key=RunEntry.order, reverse=True)
        self._unsorted.clear()
        dirty, self._dirty = self._dirty, set()
        projects = {project for project, _ in dirty}
        for key in dirty & self.tasks.keys():
            self.tasks[key].judge(self)
        for key, task in self.tasks.items():  # what waits for one of these
            if task.depends_on and key[0] in projects and task.judge(self):
                self._changes.tasks.add(key)


def _is_locked(path: str) -> bool:
    try:
        return files.is_locked(path)
    except OSError:
        return False


def _mapping(path: str) -> dict[str, object]:
    """A small YAML file of a task folder; {} for one that is missing or cannot be read."""
    try:
        text = files.read_regular(path, 1 << 20).decode("utf-8", "replace")
        return yamlio.load_mapping(text, source=path)
    except (UserError, OSError):
        return {}
