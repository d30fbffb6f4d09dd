"""What clean-runs removes, and what it must not.

Only a run whose end is on record goes, and none that anything still needs: a
plan that goes on with it, a loop, a task that waits for it, a parent that
lives.  Removing begins with a rename into `.trash`, so that a crash leaves a
run whole or gone; what it left in there goes the next time.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager

from lib import bus, faults, files, ids, listing, loop_record, runs, state, tasks
from lib.errors import LockTimeoutError
from lib.index import Index, TaskEntry
from lib.index_entries import PlanEntry, RunEntry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TRASH = ".trash"
TRASH_LOCK = ".trash.lock"
TRASH_LOCK_SECONDS = 60.0
LOG = "removed-runs.log"  # a line for each: a run that is missing without one was lost
DAY_SECONDS = 86400.0
RUN, TASK, BUS = "run", "task", "bus"
ALIVE, YOUNG, FAILED, NEWEST = "alive", "too young", "failed", "among the newest of their task"
COUNTED = (ALIVE, YOUNG, FAILED, NEWEST)  # reasons that are counted; each other one is told
_UNITS = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


class Wish:
    """What is to be cleaned; without `project` and `task` everything.

    Not `measured`: the size of a run is 0, as who asks cannot wait for it.
    """

    def __init__(
        self,
        *,
        older_than_seconds: float = 7 * DAY_SECONDS,
        keep_failed: bool = False,
        keep: int = 0,
        project: str | None = None,
        task: str | None = None,
        done_tasks: bool = False,
        bus_bytes: int | None = None,
        measured: bool = True,
    ) -> None:
        self._older_than_ns = int(older_than_seconds * ids.NANOSECONDS)
        self.keep_failed = keep_failed
        self.keep = keep
        self.project = project
        self.task = task
        self.done_tasks = done_tasks
        self.bus_bytes = bus_bytes  # None: rotate no bus
        self.measured = measured

    @property
    def before_ns(self) -> int:
        """What ended by then is old; as of now, when everything has been repaired."""
        return time.time_ns() - self._older_than_ns

    def covers(self, project: str, task: str) -> bool:
        return self.project in (None, project) and self.task in (None, task)


class Item:
    """Something to be removed, or a bus to be rotated; `size` in bytes."""

    __slots__ = ("kind", "label", "path", "size")

    def __init__(self, kind: str, path: str, label: str, size: int) -> None:
        self.kind = kind
        self.path = path
        self.label = label
        self.size = size


class Choice:
    """What a wish comes to: items in the order in which they go, and what is kept and why."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.kept: list[tuple[str, str]] = []  # path, reason

    def counts(self) -> dict[str, int]:
        """How many are kept for each of the reasons that are only counted."""
        found = dict.fromkeys(COUNTED, 0)
        for _, reason in self.kept:
            if reason in found:
                found[reason] += 1
        return {reason: count for reason, count in found.items() if count}


def choose(index: Index, wish: Wish) -> Choice:
    """What of an index that is current can go; reads only."""
    choice = Choice()
    reasons = dict(_needed(index))
    for key, task in sorted(index.tasks.items()):
        if wish.covers(*key):
            _choose_runs(index, task, wish, reasons, choice)
    if wish.project is None and wish.task is None:
        for entry in index.runs.values():
            if not all((entry.project, entry.task)) and entry.is_done is None:
                choice.kept.append((entry.path, _unfit(entry) or "its record names no task"))
    if wish.done_tasks:
        going = {item.path for item in choice.items}
        for key, task in sorted(index.tasks.items()):
            if wish.covers(*key) and task.path and task.done:
                _choose_task(index, task, wish, going, choice)
    if wish.bus_bytes is not None:
        gone = {item.path for item in choice.items}
        for path, found in sorted(index.buses.items()):
            is_large = found.size > wish.bus_bytes and os.path.dirname(path) not in gone
            if is_large and wish.covers(found.project, found.task):
                choice.items.append(Item(BUS, path, path, found.size))
    return choice


def _choose_runs(
    index: Index, task: TaskEntry, wish: Wish, reasons: dict[str, str], choice: Choice
) -> None:
    for rank, entry in enumerate(task.runs):
        reason = _unfit(entry) or reasons.get(entry.path, "") or _unwished(entry, wish, rank)
        if reason:
            choice.kept.append((entry.path, reason))
            continue
        age_days = (time.time_ns() - (entry.ended_ns or 0)) / ids.NANOSECONDS / DAY_SECONDS
        label = f"{entry.run.run_id}  {entry.state.status}  {task.project}/{task.task}"
        size = size_of(entry.path) if wish.measured else 0
        item = Item(RUN, entry.path, f"{label}  {age_days:.0f} d", size)
        choice.items.append(item)


def _unfit(entry: RunEntry) -> str:
    """Why a run cannot be removed whoever wishes it; "" where it can."""
    if entry.is_live:
        return ALIVE
    if entry.run.problem:
        return f"its record cannot be read: {entry.run.problem}"
    if entry.state.status == runs.UNKNOWN:
        return entry.state.reason
    if not entry.is_final:
        return "its end is not recorded; bin/stop-run records it"
    if is_marked(entry.path):
        return "its end is not recorded whole; any command that acts goes on with that"
    if entry.ended_ns is None:
        return "its record does not tell when it ended"
    return ""


def _unwished(entry: RunEntry, wish: Wish, rank: int) -> str:
    if (entry.ended_ns or 0) > wish.before_ns:
        return YOUNG
    if wish.keep_failed and entry.state.status == runs.FAILED:
        return FAILED
    return NEWEST if rank < wish.keep else ""


def is_marked(path: str) -> bool:
    folder, name = os.path.split(path)
    return os.path.lexists(os.path.join(folder, runs.ACTIVE, name))


# -- what is still needed


def _needed(index: Index) -> Iterator[tuple[str, str]]:
    """(path of a run, why it is needed)."""
    live = {entry.run.run_id for entry in index.live()}
    by_id: dict[str, list[str]] = {}  # a copied task folder has the same ids once more
    for path, entry in index.runs.items():
        by_id.setdefault(entry.run.run_id, []).append(path)
        if entry.run.text("parent_run_id") in live:
            yield path, "the run that started it is alive"
        plan = index.plans.get(entry.project)
        if plan is not None and plan.problem:
            yield path, f"the state of its plan cannot be read: {plan.problem}"
    for plan in index.plans.values():
        for run_id in _of_plan(plan):
            for path in by_id.get(run_id, ()):
                yield path, f"the plan {plan.project} goes on with it"
    for task in index.tasks.values():
        yield from _of_task(index, task)


def _of_plan(plan: PlanEntry) -> Iterator[str]:
    """The runs that a plan needs, now or when it is started again.

    Those under way, and of tasks that are to be done again what counts
    already: the verdicts of a review, the part of a task with several agents.
    """
    for task in plan.tasks.values():
        is_settled = task.state in (state.DONE, state.SKIPPED)
        for attempt in task.attempts:
            result = attempt.get("result")
            if plan.is_run or result == "running" or (result == "done" and not is_settled):
                yield str(attempt.get("run"))


def _of_task(index: Index, task: TaskEntry) -> Iterator[tuple[str, str]]:
    own = [entry for entry in task.runs if entry.is_done is not None]
    if not own:
        return
    if task.loop is not None:
        if not task.loop:
            reason = "the record of its task's loop cannot be read"
        elif task.loop_is_live or task.loop_state not in loop_record.ENDED:
            reason = "the loop of its task has not ended"
        elif task.loop_state == loop_record.DONE:
            return
        else:
            yield own[0].path, "run-task goes on from it"
            return
        for entry in own:
            yield entry.path, reason
    elif not task.done:
        waiting = _dependents(index, task)
        if waiting:
            newest = max(own, key=lambda entry: entry.run.run_id)
            yield newest.path, f"it tells {waiting[0]} that this task has completed"


def _dependents(index: Index, task: TaskEntry) -> list[str]:
    """The tasks that depend on this one and are not done."""
    return sorted(
        other.task
        for other in index.tasks.values()
        if other.project == task.project and task.task in other.depends_on and not other.done
    )


def _choose_task(
    index: Index, task: TaskEntry, wish: Wish, going: set[str], choice: Choice
) -> None:
    """A task folder goes when it is done, old, empty of runs, and nobody waits for it."""
    done = os.path.join(task.path, tasks.DONE)
    try:
        is_old = os.lstat(done).st_mtime_ns <= wish.before_ns
    except OSError:
        return
    if task.is_live:
        choice.kept.append((task.path, ALIVE))
    elif not is_old:
        choice.kept.append((task.path, YOUNG))
    elif any(entry.path not in going for entry in task.runs if entry.is_done is not None):
        choice.kept.append((task.path, "some of its runs stay"))
    elif waiting := _dependents(index, task):
        choice.kept.append((task.path, f"{waiting[0]} depends on it and is not done"))
    else:
        size = size_of(task.path) - sum(
            item.size for item in choice.items if item.path.startswith(f"{task.path}/runs/")
        )
        choice.items.append(Item(TASK, task.path, f"{task.project}/{task.task}", max(0, size)))


# -- acting


def carry_out(item: Item, runs_dir: str) -> str:
    """Do it; returns "" or why it was not done. UserError, OSError where it could not be.

    What is removed lies in the trash then: `empty_trash` comes after the last.
    """
    if item.kind == BUS:
        return _rotate(item)
    if item.kind == TASK:
        return _remove_task(item, runs_dir)
    run = runs.read(item.path)
    if not os.path.isdir(item.path):
        return "it is gone"
    if run.text("status") not in runs.ENDED or run.problem:
        return "its record has changed"
    if runs.is_held(run) or is_marked(item.path):
        return "somebody is at work on it"
    note_removal(run, runs_dir)
    discard(item.path, runs_dir)
    return ""


def note_removal(run: runs.Run, runs_dir: str) -> None:
    """Put the run that is about to be removed into the log of those."""
    project, task = listing.place(run)
    words = (ids.rfc3339(), run.run_id, f"{project}/{task}", run.text("status"))
    files.append_line(os.path.join(runs_dir, LOG), " ".join(words).replace("\n", " "))


def removed(runs_dir: str) -> set[str]:
    """The ids of the runs that clean-runs has removed."""
    try:
        text = files.read_regular(os.path.join(runs_dir, LOG), 1 << 30).decode("utf-8", "replace")
    except OSError:
        return set()
    return {words[1] for words in map(str.split, text.split("\n")) if len(words) > 1}


def _remove_task(item: Item, runs_dir: str) -> str:
    """With the lock of its loop held, so that none begins meanwhile."""
    task = tasks.Task(item.path)
    lock = files.open_lock(task.file(loop_record.LOCK))
    try:
        if not files.try_lock(lock):
            return "its loop is at work"
        if runs.names_in(task.runs_dir) or runs.marked(task.runs_dir):
            return "some of its runs stay"
        if not files.is_regular(task.file(tasks.DONE)):
            return "it is not done any more"
        discard(item.path, runs_dir)
    finally:
        os.close(lock)
    return ""


def _rotate(item: Item) -> str:
    try:
        archive = bus.rotate(item.path, item.size - 1)
    except LockTimeoutError as error:
        return str(error)
    return "" if archive else "it is not so large any more"


def discard(path: str, runs_dir: str) -> str:
    """Rename a folder into the trash, and say where it is: it is gone at once, and whole."""
    trash = os.path.join(runs_dir, TRASH)
    os.makedirs(trash, 0o700, exist_ok=True)
    name = f"{_cut(os.path.basename(path), 200)}.{os.getpid()}.{time.monotonic_ns()}"
    os.rename(path, os.path.join(trash, name))
    faults.point("run-discarded")
    return os.path.join(trash, name)


def _cut(name: str, size: int) -> str:
    """At most so many bytes of a name: systems count these, not characters."""
    return os.fsdecode(os.fsencode(name)[:size])


def give_back(aside: str, path: str) -> str:
    """Take what was discarded from `path` out of the trash again, and say where it is.

    Where its place is taken meanwhile, that is beside it: what lives is never left in the trash.
    """
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    try:
        os.rename(aside, path)
        return path
    except OSError:  # an empty folder would have been replaced
        folder, name = os.path.split(path)
        beside = os.path.join(folder, f"{_cut(name, 90)}.kept.{time.time_ns()}")
        os.rename(aside, beside)
        return beside


@contextmanager
def held_trash(runs_dir: str) -> Iterator[None]:
    """Nobody empties the trash meanwhile: what proves to live can be given back.

    LockTimeoutError where somebody empties it for longer than a minute.
    """
    fd = files.open_lock(os.path.join(runs_dir, TRASH_LOCK))
    try:
        files.lock(fd, TRASH_LOCK_SECONDS, "the trash of the runs folder")
        yield
    finally:
        os.close(fd)


def empty_trash(runs_dir: str, items: Iterable[Item]) -> list[str]:
    """Remove what these items and a clean-runs that was killed left there; returns what stays.

    LockTimeoutError as `held_trash` has it.
    """
    if not os.path.isdir(os.path.join(runs_dir, TRASH)):
        return []
    with held_trash(runs_dir):
        return _empty(os.path.join(runs_dir, TRASH), items)


def _empty(trash: str, items: Iterable[Item]) -> list[str]:
    # First the renames must be durable: a power cut must not bring back a run without its files.
    for folder in {trash, *(os.path.dirname(item.path) for item in items)}:
        if os.path.isdir(folder):
            files.sync_folder(folder)
    paths = [os.path.join(trash, name) for name in files.names(trash)]
    left = [path for path in paths if not _remove_tree(path)]
    try:
        os.rmdir(trash)
    except OSError:
        pass  # something stays, or another clean-runs is at work
    return left


def _remove_tree(path: str) -> bool:
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):  # an agent may have taken the rights away
        for folder, _, _ in os.walk(path):
            try:
                os.chmod(folder, 0o700)
            except OSError:
                continue
        shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def size_of(path: str) -> int:
    """Bytes of the files below a folder."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total


def parse_bytes(text: str) -> int:
    """`10MB`, `512KB`, `1.5GB`, `100` in bytes (1 KB = 1024); ValueError for anything else."""
    digits = text.strip().upper().rstrip("KMGB")
    factor = _UNITS.get(text.strip().upper()[len(digits) :])
    number = float(digits)
    if factor is None or not 0 <= number < 1e15:
        raise ValueError(text)
    return int(number * factor)


def amount(size: int) -> str:
    """`512 B`, `3.4 MB`: bytes as people read them."""
    number = float(size)
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1024 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError
