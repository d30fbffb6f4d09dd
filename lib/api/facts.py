"""What lists show of runs and tasks, worked out and put into JSON once for each change.

Ten thousand runs are asked for again and again, and hardly one of them changes
in between: what was made of a task stands until the index finds that the task
or one of its runs has changed, and what was made of a run until it is judged
anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from lib import config, files, redact, runs, tasks, thread_link
from lib.api import shapes
from lib.api.exchange import Answer, encode
from lib.api.shapes import Key, Shape
from lib.usage import Usage

if TYPE_CHECKING:
    from lib.api.view import View
    from lib.index import Index, TaskEntry
    from lib.index_entries import Changes, RunEntry

ROOT_MARKER = "PROJECT-ROOT.txt"  # notes where the sources of a project lie
_MAX_CONFIGS = 100  # configurations whose tokens are looked up; a record may name any file
_TITLE_BYTES, _MAX_TITLE = 4096, 200  # of a prompt that are read, and characters of its title
_KEPT_DIRS = 20  # working folders that are told of a task


class RunFacts:
    """A run for lists: its JSON as they have it, what it hangs on, and how recent it is."""

    __slots__ = ("_flat", "_found", "_usage", "_v1", "_words", "activity_ns", "entry",
                 "is_active", "is_sum", "key", "order", "parent", "previous", "run_id", "state", "task")  # fmt: skip

    def __init__(self, key: Key, entry: RunEntry) -> None:
        self.key = key
        self.entry = entry
        self._flat = self._v1 = self._found = b""
        self._usage: Usage | None = None
        self._words = ""
        self.state = entry.state
        self.run_id = entry.run.run_id
        self.task = key[1]
        self.order = entry.started_ns, self.run_id
        self.activity_ns = max(entry.started_ns, entry.ended_ns or 0)
        self.is_active = entry.state.status == runs.RUNNING
        self.parent = entry.run.text("parent_run_id")
        self.previous = entry.run.text("previous_run_id")
        self.is_sum = entry.run.record.get("includes_children") is True  # that of a loop itself

    @property
    def flat(self) -> bytes:
        if not self._flat:
            self._flat = encode(shapes.flat_run(self.key, self.entry))
        return self._flat

    @property
    def v1(self) -> bytes:
        if not self._v1:
            self._v1 = encode(shapes.v1_run(self.key, self.entry))
        return self._v1

    @property
    def found(self) -> bytes:
        """As a search shows it, but for the title of its task."""
        if not self._found:
            self._found = encode(shapes.found_run(self.key, self.entry))
        return self._found

    @property
    def usage(self) -> Usage:
        """Tokens and cost, as far as its record tells them."""
        if self._usage is None:
            self._usage = Usage([self.entry.run.record])
        return self._usage

    @property
    def words(self) -> str:
        """What a search looks through: redacted, in lower case, a line for each text."""
        if not self._words:
            self._words = "\n".join(shapes.words(self.key, self.entry)).lower()
        return self._words


class TaskFacts:
    """A task for lists; `entries` are the runs that can be shown, the newest first.

    `last` and `created` are times, as ns since 1970 and as text.
    """

    __slots__ = ("_before", "_has_link", "_listed", "_made", "_prompt_ns", "_title", "_titled_as", "counts",
                 "created", "cwds", "entries", "last", "status", "thread_parent")  # fmt: skip

    def __init__(self, entry: TaskEntry, runs_dir: str, before: TaskFacts | None) -> None:
        self.entries = [run for run in entry.runs if shapes.is_shown(run)]
        self._before = {} if before is None else before.known_by_path()
        self._listed: list[RunFacts] = []
        self._made: dict[str, tuple[object, bytes]] = {}
        self._prompt_ns = self._look_at_prompt(entry)
        self._title = ""
        self._titled_as: object = None  # of the prompt that the title is from
        self.counts: dict[str, int] = {}
        for run in self.entries:
            self.counts[run.state.status] = self.counts.get(run.state.status, 0) + 1
        self.status = self._status(entry)
        self._set_times()
        self.cwds = _working_folders(self.entries, runs_dir)
        self._has_link = entry.has_file(thread_link.NAME)
        self.thread_parent = _thread_parent(entry) if self._has_link else None

    def _set_times(self) -> None:
        if not self.entries:
            written = shapes.time_text("", self._prompt_ns or None)
            self.last = self.created = (self._prompt_ns, written)
            return
        self.last = shapes.activity(max(self.entries, key=_activity_ns))
        first = self.entries[-1]
        self.created = first.started_ns, shapes.start_time(first)

    def _status(self, entry: TaskEntry) -> str:
        """As the original's project API says it, but for the queue."""
        if self.counts.get(runs.RUNNING):
            return "partial_failure" if self.counts.get(runs.FAILED) else runs.RUNNING
        if entry.done:
            return "all_finished"
        if self.entries:
            return self.entries[0].state.status
        return "blocked" if entry.blocked_by else "-"

    def _look_at_prompt(self, entry: TaskEntry) -> int:
        """When the prompt was written, which is all that is known of a task without runs."""
        if self.entries:
            return 0
        try:
            return os.lstat(f"{entry.path}/{tasks.PROMPT}").st_mtime_ns
        except OSError:
            return 0

    def known_by_path(self) -> dict[str, RunFacts]:
        if not self._listed:
            return self._before
        return {run.path: known for run, known in zip(self.entries, self._listed, strict=True)}

    def is_current(self, entry: TaskEntry) -> bool:
        """Whether what the index does not tell of is as it was."""
        return self._has_link == entry.has_file(thread_link.NAME) and (
            bool(self.entries) or self._prompt_ns == self._look_at_prompt(entry)
        )

    @property
    def is_running(self) -> bool:
        return runs.RUNNING in self.counts

    def runs_of(self, key: Key) -> list[RunFacts]:
        """What is known of each run that can be shown, the newest first."""
        if len(self._listed) != len(self.entries):
            self._listed = [self._known_of(key, entry) for entry in self.entries]
        return self._listed

    def _known_of(self, key: Key, entry: RunEntry) -> RunFacts:
        known = self._before.get(entry.path)
        if known is not None and known.state is entry.state:  # made anew with each judgement
            return known
        return RunFacts(key, entry)

    def title(self, entry: TaskEntry) -> str:
        """The first line of its prompt that says something, redacted; "" where there is none."""
        path = f"{entry.path}/{tasks.PROMPT}"
        seen = files.signature(path) if entry.has_file(tasks.PROMPT) else None
        if seen != self._titled_as:
            self._titled_as, self._title = seen, _first_line(path)
        return self._title

    def json(self, name: str, made_of: object, make: Callable[[], Shape]) -> bytes:
        """What `make` makes, as JSON; made again only when `made_of` or the task has changed."""
        known = self._made.get(name)
        if known is None or known[0] != made_of:
            known = self._made[name] = (made_of, encode(make()))
        return known[1]


class Facts:
    """Those of all runs and tasks of an index; to be used inside `view.current()` only."""

    def __init__(self, view: View) -> None:
        self._runs_dir = view.runs_dir
        self.tokens = 0  # grows when there are perhaps more to redact
        self._changed: set[Key] = set()
        self._tasks: dict[Key, TaskFacts] = {}
        self._old: dict[Key, TaskFacts] = {}  # of tasks that have changed since
        self._configs: dict[str, object] = {"": None}
        view.listen(self._note)

    def _note(self, changes: Changes) -> None:
        self._changed |= changes.tasks

    def prepare(self, index: Index) -> None:
        """Take in which tasks have changed; before anything else is asked.

        The tokens of the configurations with which their runs were started are
        redacted from here on; what was made before one was known is forgotten.
        """
        changed, self._changed = self._changed, set()
        for key in changed:
            facts = self._tasks.pop(key, None)
            if facts is not None and key in index.tasks:
                self._old[key] = facts
        if self._know_tokens(index, changed):
            self.tokens += 1
            self._tasks.clear()
            self._old.clear()

    def _know_tokens(self, index: Index, changed: set[Key]) -> bool:
        """True when there are perhaps more tokens than before."""
        for key in changed & index.tasks.keys():
            for entry in index.tasks[key].runs:
                path = entry.run.record.get("config")
                if isinstance(path, str) and len(self._configs) < _MAX_CONFIGS:
                    self._configs.setdefault(path, None)
        is_new = False
        for path, known in self._configs.items():
            seen = files.signature(path) or 0 if path else 0
            if seen != known:
                self._configs[path] = seen
                config.know_tokens(path)
                is_new = True
        return is_new

    def of_task(self, entry: TaskEntry) -> TaskFacts:
        known = self._tasks.get(entry.key)
        if known is None or not known.is_current(entry):
            before = known or self._old.pop(entry.key, None)
            known = TaskFacts(entry, self._runs_dir, before)
            self._tasks[entry.key] = known
        return known

    def of_runs(self, entries: Iterable[TaskEntry]) -> list[RunFacts]:
        """What is known of the runs of these tasks that can be shown, each task's together."""
        found: list[RunFacts] = []
        for entry in entries:
            found += self.of_task(entry).runs_of(entry.key)
        return found


def by_project(index: Index) -> dict[str, list[TaskEntry]]:
    """Those that have a task, or a note of where their sources lie."""
    found: dict[str, list[TaskEntry]] = {}
    for (project, _), entry in index.tasks.items():
        found.setdefault(project, []).append(entry)
    for project in index.projects():
        if project not in found and index.file_of_project(project, ROOT_MARKER):
            found[project] = []
    return found


def _first_line(path: str) -> str:
    try:
        text = files.read_regular(path, _TITLE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    # Whole lines only: of a token that was cut, redaction would know nothing.
    whole = text if len(text.encode()) < _TITLE_BYTES else text[: text.rfind("\n") + 1]
    lines = (line.strip("# \t\r") for line in whole.split("\n"))
    return redact.one_line(next((line for line in lines if line), ""), _MAX_TITLE)


def _activity_ns(entry: RunEntry) -> int:
    return entry.started_ns if entry.ended_ns is None else entry.ended_ns


def join(fragments: Iterable[bytes]) -> bytes:
    """A JSON list of them."""
    return b"[" + b",".join(fragments) + b"]"


def answer_page(items: Iterable[bytes], total: int, limit: int, offset: int) -> Answer:
    """At most `limit` elements of `total`, those behind the first `offset`, as JSON each."""
    rest: Shape = {
        "total": total,
        "limit": limit,
        "offset": offset,
        "has_more": offset + limit < total,
    }
    return Answer(b'{"items":' + join(items) + b"," + encode(rest)[1:] + b"\n")


def outside_folder(record: Mapping[str, object], runs_dir: str) -> str:
    """The folder that a run worked in, where that is none of the storage; else ""."""
    cwd, prompt = record.get("cwd"), record.get("prompt_path")
    if not isinstance(cwd, str) or not os.path.isabs(cwd):
        return ""
    roots = [runs_dir]
    if isinstance(prompt, str):  # the storage may have been moved since
        place = "/".join(str(record.get(name)) for name in ("project_id", "task_id"))
        roots.append(prompt.partition(f"/{place}/runs/")[0])
    return "" if any(f"{cwd}/".startswith(f"{root}/") for root in roots if root) else cwd


def _working_folders(found: list[RunEntry], runs_dir: str) -> dict[str, tuple[int, int]]:
    """By folder when the first and the last run in it began, ns since 1970."""
    folders: dict[str, tuple[int, int]] = {}
    for run in found:  # the newest first
        cwd = outside_folder(run.run.record, runs_dir)
        if cwd and (cwd in folders or len(folders) < _KEPT_DIRS):
            folders[cwd] = (run.started_ns, folders.get(cwd, (0, run.started_ns))[1])
    return folders


def _thread_parent(entry: TaskEntry) -> Shape | None:
    """The message of another task that this one answers."""
    return shapes.redacted({**thread_link.read(tasks.Task(entry.path))}) or None
