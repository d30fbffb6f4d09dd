"""The queue of tasks that wait for a free place: at most so many are at work at once.

RUNS_DIR/.conductor/root-queue.yaml holds what waits, in its order.  An entry is
`starting` from before its loop is begun until it is known to have begun, under a
run id that run-task takes once only: a server that dies in between makes the
start again, and nothing is started twice.

A task that waits for others stays in the queue until these are done, so it
takes no place.  What counts as at work: loops that are, and runs in task folders
that lost their loop.  Flat runs and plans have limits of their own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib import bus, faults, files, ids, loop_record, redact, tasks, yamlio
from lib.api.console import tell
from lib.api.exchange import Refusal
from lib.api.launch import Order
from lib.errors import UserError
from lib.index_entries import RunEntry
from lib.tasks import Task

if TYPE_CHECKING:
    from lib.api.service import Service

FOLDER = ".conductor"
NAME = "root-queue.yaml"
LOCK = "root-queue.lock"
LOCK_SECONDS = 60.0  # as long as it may take to start what can be
REST_SECONDS = 0.2  # between two looks, however much changes
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 300.0  # after the first start that failed, and at most
LOOK_SECONDS = 2.0  # how late it is seen at the latest that a place has become free
QUEUED, STARTING, STARTED = "queued", "starting", "started"
PASSING = 503  # the status of what may be otherwise the next time
_MAX_BYTES = 256 << 20
_TEXTS = ("project", "task", "run_id", "agent", "prompt", "cwd", "submitted")

Key = tuple[str, str]


class Entry:
    """An order that waits, or that was begun; of its variables only the names are kept.

    `tries` starts of it have failed for what may pass, the last one at `tried`.
    """

    def __init__(
        self,
        order: Order,
        state: str,
        submitted: str,
        names: list[str] | None = None,
        *,
        tries: int = 0,
        tried: str = "",
    ) -> None:
        self.order = order
        self.state = state
        self.submitted = submitted
        self.tries = tries
        self.tried = tried
        self.names = sorted(order.variables) if names is None else names

    @property
    def is_whole(self) -> bool:
        """False where its variables went with the server that had them."""
        return self.names == sorted(self.order.variables)

    @property
    def is_resting(self) -> bool:
        """Whether it is too early for the next try; a clock that was set back lengthens no pause."""
        pause = min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2 ** (min(self.tries, 20) - 1))
        since_ns = time.time_ns() - (ids.parse_rfc3339(self.tried) or 0)
        return self.tries > 0 and 0 <= since_ns < pause * ids.NANOSECONDS

    def put_off(self) -> None:
        """Let it wait again, for longer each time."""
        self.state = QUEUED
        self.tries += 1
        self.tried = ids.rfc3339()

    def as_dict(self) -> dict[str, object]:
        order = self.order
        return {
            "project": order.project,
            "task": order.task,
            "run_id": order.run_id,
            "state": self.state,
            "submitted": self.submitted,
            **({"tries": self.tries, "tried": self.tried} if self.tries else {}),
            "agent": order.agent,
            "cwd": order.cwd,
            "resume": order.resume,
            "variables": self.names,
            "prompt": order.prompt,
        }


class RootQueue:
    """One for each server; several servers of one root share the file, by its lock."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._known: dict[Key, int] = {}
        self._is_empty = True
        self._signature: object = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def _path(self) -> str:
        return os.path.join(self._service.runs_dir, FOLDER, NAME)

    @property
    def limit(self) -> int:
        """How many tasks may be at work; 0 = any number."""
        return self._service.settings.max_root_tasks

    # -- life

    def start(self) -> None:
        """Go on with what an earlier server left, and from now on whenever a place is free."""
        if self._service.settings.may_start_tasks and self._thread is None:
            self._thread = threading.Thread(target=self._work, name="queue", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Begin nothing more; a start that is under way comes about."""
        self._closing.set()

    def _work(self) -> None:
        changes, seen = self._service.hub.changes, -1
        while not (self._closing.is_set() or self._service.hub.closing):
            try:
                self.positions()
                if not self._is_empty:
                    self.schedule()
            except Exception as error:  # noqa: BLE001 - what waits hangs on this thread: it goes on
                tell(f"the queue of tasks: {type(error).__name__}: {error}")
            seen = changes.wait(seen, LOOK_SECONDS)
            self._closing.wait(REST_SECONDS)

    # -- what is asked of it

    def positions(self) -> dict[Key, int]:
        """The places of the tasks that wait, from 1; reads only."""
        signature = files.signature(self._path)
        if signature != self._signature:
            try:
                self._note(self._read())
            except (UserError, OSError) as error:
                self._known = {}
                tell(f"the queue of tasks cannot be read: {error}")
            self._signature = signature
        return self._known

    def submit(self, order: Order) -> int:
        """Start a task, or let it wait: its place in the queue then, 0 where it was started.

        Refusal of `Launcher.start`, and 409 for one that waits already, or
        would have to with variables.
        """
        if not self.limit:
            self._service.launcher.start(order)
            return 0
        with self._held() as entries:
            self._reconcile(entries)
            if any(entry.order.key == order.key for entry in entries):
                raise Refusal(409, "task is already queued or running", task_id=order.task)
            if order.variables and not self._may_start(order, self._at_work(entries)):
                raise Refusal(
                    409,
                    "no place is free, and a task with `config` cannot wait: its values may be "
                    "secret, and the queue is a file; post it again later, or put them into the "
                    "`env` of the agent in config.yaml",
                )
            if not os.path.isdir(self._task(order).path):  # another server took it back
                raise Refusal(409, "the task was removed just now; post it again")
            entries.append(Entry(order, QUEUED, ids.rfc3339()))
            self._save(entries)
            self._start_some(entries, order)
            return _places(entries).get(order.key, 0)

    def schedule(self) -> None:
        """Start what can be."""
        with self._held() as entries:
            self._reconcile(entries)
            self._start_some(entries)

    def drop(self, project: str, task: str = "") -> None:
        """Forget what waits of a task, or of a project."""
        if not any(key[0] == project and task in ("", key[1]) for key in self.positions()):
            return
        with self._held() as entries:
            entries[:] = [
                entry
                for entry in entries
                if entry.state != QUEUED
                or entry.order.project != project
                or task not in ("", entry.order.task)
            ]
            self._save(entries)

    @contextmanager
    def waiting(self) -> Iterator[set[Key]]:
        """What waits or was begun; no server of this root adds to it before the end of the `with`."""
        with self._held() as entries:
            yield {entry.order.key for entry in entries}

    # -- under the lock

    def _reconcile(self, entries: list[Entry]) -> None:
        """Take out what needs no place any more, and go back to what was begun and did not happen."""
        before, kept = [entry.as_dict() for entry in entries], []
        for entry in entries:
            task = self._task(entry.order)
            is_held = loop_record.is_held(task)
            if entry.state == STARTING and not is_held and not _has_begun(task, entry.order):
                entry.state = QUEUED
            elif entry.state == STARTING:
                entry.state = STARTED
            if entry.state == QUEUED and not entry.is_whole:
                is_due = False
                self._tell_end(entry.order, "its `config` went with the server; post it again")
            elif entry.state == QUEUED:
                is_over = _is_done(task) and not entry.order.resume
                is_due = not is_held and os.path.isdir(task.path) and not is_over
            else:
                is_due = is_held  # its loop has begun: over, when it lets go of its lock
            if is_due:
                kept.append(entry)
        entries[:] = kept
        if [entry.as_dict() for entry in entries] != before:
            self._save(entries)

    def _may_start(self, order: Order, at_work: set[Key]) -> bool:
        """Whether there is room, and all it depends on is done; what is at work needs no more room."""
        has_room = not self.limit or order.key in at_work or len(at_work) < self.limit
        return has_room and not self._waits(order)

    def _at_work(self, entries: list[Entry]) -> set[Key]:
        at_work = {entry.order.key for entry in entries if entry.state != QUEUED}
        with self._service.view.current() as index:
            for key, task in index.tasks.items():
                is_looped = task.loop_is_live and task.loop_state != loop_record.BLOCKED
                is_lost = not task.loop_is_live and any(_is_root_run(run) for run in task.runs)
                if is_looped or is_lost:
                    at_work.add(key)
        return at_work

    def _start_some(self, entries: list[Entry], asked: Order | None = None) -> None:
        """Start as many as there is room for; Refusal where that of `asked` is refused.

        One that fails for what may pass waits on, and so do those behind it for this time.
        """
        waiting = [entry for entry in entries if entry.state == QUEUED and not entry.is_resting]
        at_work, refused = self._at_work(entries) if waiting else set(), None
        is_in_trouble = False
        for entry in waiting:
            if is_in_trouble and entry.order is not asked:
                continue
            if not self._may_start(entry.order, at_work):
                continue
            entry.state = STARTING
            self._save(entries)
            faults.point("queue-starting")
            try:
                self._service.launcher.start(entry.order)
                faults.point("queue-started")
                entry.state = STARTED
                at_work.add(entry.order.key)
            except Refusal as refusal:
                if entry.order is asked:
                    entries.remove(entry)
                    refused = refusal
                elif self._is_under_way(entry.order):
                    entries.remove(entry)
                elif refusal.status == PASSING:
                    entry.put_off()
                    is_in_trouble = True
                    if entry.tries == 1:
                        self._tell_pause(entry.order, str(refusal))
                else:
                    entries.remove(entry)
                    self._tell_end(entry.order, str(refusal))
            self._save(entries)
        if refused is not None:
            raise refused

    def _waits(self, order: Order) -> bool:
        """Whether tasks that it depends on are not done yet."""
        try:
            return bool(tasks.blocked_by(self._task(order)))
        except UserError:
            return False  # a damaged file: run-task tells

    def _is_under_way(self, order: Order) -> bool:
        """Whether somebody was quicker: the child of a server that died, or a person."""
        task = self._task(order)
        return loop_record.is_held(task) or _has_begun(task, order)

    def _task(self, order: Order) -> Task:
        return tasks.locate(self._service.runs_dir, order.project, order.task)

    def _tell_end(self, order: Order, why: str) -> None:
        text = f"it waited in the queue and could not be started: {why}"
        body = f"ERROR task={order.task} agent={order.agent} run={order.run_id}: {text}"
        self._tell(order, "ERROR", body)

    def _tell_pause(self, order: Order, why: str) -> None:
        body = f"run {order.run_id} cannot be started now: {why}; it waits on, and is tried again "
        body += f"after pauses that grow to {LONGEST_PAUSE_SECONDS / 60:g} min"
        self._tell(order, "WARNING", body)

    def _tell(self, order: Order, type_: str, body: str) -> None:
        """Nobody waits for the answer any more: tell the task's own bus."""
        task = self._task(order)
        try:
            bus.append(
                task.bus, type_=type_, body=body, project=task.project, task=task.task, run=""
            )
        except (UserError, OSError) as error:
            tell(f"{body}; nor could that be told: {error}")

    # -- the file

    @contextmanager
    def _held(self) -> Iterator[list[Entry]]:
        folder = os.path.join(self._service.runs_dir, FOLDER)
        with self._lock:
            os.makedirs(folder, 0o700, exist_ok=True)
            fd = files.open_lock(os.path.join(folder, LOCK))
            try:
                files.lock(fd, LOCK_SECONDS, "the queue of tasks")
                yield self._read_to_change()
            finally:
                os.close(fd)

    def _read_to_change(self) -> list[Entry]:
        """Refusal 503 for a file that cannot be read: what waits in it must not be written over."""
        try:
            return self._read()
        except (UserError, OSError) as error:
            why = redact.one_line(str(error))
            text = f"the queue of tasks cannot be read: {why}; mend that file, or move it away"
            raise Refusal(503, text) from None

    def _read(self) -> list[Entry]:
        try:
            text = files.read_regular(self._path, _MAX_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        listed = yamlio.load_mapping(text, source=self._path).get("entries")
        found = [_entry(item) for item in listed] if isinstance(listed, list) else []
        return [entry for entry in found if entry is not None]

    def _save(self, entries: list[Entry]) -> None:
        if entries or os.path.lexists(self._path):
            value = {"version": 1, "entries": [entry.as_dict() for entry in entries]}
            files.replace_file(self._path, yamlio.dump(value, depth=2).encode(), 0o600)
        self._signature = files.signature(self._path)
        self._note(entries)

    def _note(self, entries: list[Entry]) -> None:
        self._known = _places(entries)
        self._is_empty = not entries


def _places(entries: list[Entry]) -> dict[Key, int]:
    waiting = [entry.order.key for entry in entries if entry.state == QUEUED]
    return {key: number for number, key in enumerate(waiting, 1)}


def _entry(item: object) -> Entry | None:
    """What one element of the file says; None for what is no entry of ours."""
    if not isinstance(item, dict):
        return None
    texts = {key: str(item.get(key) or "") for key in _TEXTS}
    project, task, run_id = texts.pop("project"), texts.pop("task"), texts.pop("run_id")
    submitted, state = texts.pop("submitted"), str(item.get("state"))
    try:
        tasks.check_ids(project, task)
    except UserError:
        return None
    if not ids.is_safe(run_id) or state not in (QUEUED, STARTING, STARTED):
        return None
    order = Order(
        project,
        task,
        run_id,
        agent=texts["agent"],
        prompt=texts["prompt"],
        cwd=texts["cwd"],
        resume=item.get("resume") is True,
    )
    listed, tries = item.get("variables"), item.get("tries")
    return Entry(
        order,
        state,
        submitted,
        list(map(str, listed)) if isinstance(listed, list) else [],
        tries=tries if isinstance(tries, int) and tries > 0 else 0,
        tried=str(item.get("tried") or ""),
    )


def _has_begun(task: Task, order: Order) -> bool:
    """Whether a loop of this order has begun, even if it was killed since."""
    if os.path.lexists(os.path.join(task.runs_dir, order.run_id)):
        return True
    try:
        _, attempts = loop_record.read(task)
    except UserError:
        return True  # whoever mends it starts the task
    return any(attempt.get("run") == order.run_id for attempt in attempts)


def _is_done(task: Task) -> bool:
    try:
        return tasks.is_done(task)
    except UserError:
        return False


def _is_root_run(entry: RunEntry) -> bool:
    """Whether an attempt of a task is at work, or what else in its folder no run has started."""
    is_root = entry.run.text("attempt_token") or not entry.run.text("parent_run_id")
    return entry.is_live and entry.is_done is not None and bool(is_root)
