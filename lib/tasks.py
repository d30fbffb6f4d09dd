"""Task folders: RUNS_DIR/PROJECT/TASK, what is in them, and what one task waits for.

The layout is that of the original, whose tools read it too: TASK.md is the
prompt, DONE the mark that the work is finished, TASK-CONFIG.yaml names the
tasks of the same project that must be done before.  What only our loop needs
is in TASK-LOOP.yaml (lib/loop_record.py).
"""

from __future__ import annotations

import os
import time

from lib import bus, files, ids, runs, yamlio
from lib.errors import UsageError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROMPT = "TASK.md"
NOTES = "TASK_STATE.md"  # of one attempt for the next; written by agents, read by no code
DONE = "DONE"
CONFIG = "TASK-CONFIG.yaml"
LOOP = "TASK-LOOP.yaml"
_MARKS = (PROMPT, CONFIG, LOOP, "runs")  # any of them makes a folder a task
_MAX_BYTES = 1 << 20
_LOCK_SECONDS = 10.0


class Task:
    """A task folder, whether it exists or not; all of its paths come from the runs folder."""

    __slots__ = ("path", "project", "task")

    def __init__(self, path: str) -> None:
        self.path = path
        self.project = os.path.basename(os.path.dirname(path))
        self.task = os.path.basename(path)

    @property
    def runs_dir(self) -> str:
        return self.file("runs")

    @property
    def bus(self) -> str:
        return self.file(bus.TASK_BUS)

    @property
    def project_bus(self) -> str:
        return os.path.join(os.path.dirname(self.path), bus.PROJECT_BUS)

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"


def locate(runs_dir: str, project: str, task: str) -> Task:
    """The task of these ids; UserError for ids that cannot be names of folders."""
    check_ids(project, task)
    return Task(os.path.join(runs_dir, project, task))


def check_ids(project: str, task: str) -> None:
    """UsageError for a project or task that cannot be the name of a folder of ours."""
    for option, name in (("--project", project), ("--task", task)):
        if not ids.is_safe(name):
            raise UsageError(
                f"{option}: {name[:60]!r} cannot be the name of a folder; "
                "use letters, digits, '.', '_' and '-', at most 128"
            )
    if runs.is_run_name(project):
        raise UsageError(f"--project: {project!r} looks like a run; choose another name")


def generate_id(slug: str = "") -> str:
    """`task-YYYYMMDD-HHMMSS-SLUG`, in the form that the original's tools demand; else random."""
    # Their slug has 3 to 50 characters.
    end = slug[:50].strip("-") if len(slug) >= 3 else ""
    return f"task-{ids.stamp(time.time())}-{end or os.urandom(3).hex()}"


def all_tasks(runs_dir: str) -> Iterator[Task]:
    """Every task below a runs folder, by project and name."""
    for path in runs.task_folders(runs_dir):
        if any(os.path.lexists(f"{path}/{mark}") for mark in _MARKS):
            yield Task(path)


def is_done(task: Task) -> bool:
    """Whether the work is marked as finished; UserError for a folder in place of the mark."""
    path = task.file(DONE)
    if os.path.isdir(path) and not os.path.islink(path):
        raise UserError(f"{path} is a folder, not a mark that the task is done; remove it")
    return files.is_regular(path)


def status(task: Task, newest: str | None, done: bool) -> str:
    """The task's status as lists of the original show it.

    `newest` is the status of its newest run with a readable record, None
    where there is none; `done` whether it has its DONE.
    """
    if newest:
        return newest
    if done:
        return "done"
    try:
        return "blocked" if blocked_by(task) else "-"
    except UserError:
        return "-"


# -- dependencies


def dependencies(task: Task) -> list[str]:
    """The ids of the tasks of its project that must be done before; UserError for a damaged file."""
    path = task.file(CONFIG)
    try:
        text = files.read_regular(path, _MAX_BYTES).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; mend or remove it") from None
    listed = yamlio.load_mapping(text, source=path).get("depends_on") if text.strip() else None
    if listed is None:
        return []
    if not isinstance(listed, list | str):
        raise UserError(f"{path}: depends_on is no list; write depends_on: [TASK, …]")
    names = [listed] if isinstance(listed, str) else [str(item) for item in listed]
    return normalise(names, task.task)


def normalise(names: Iterable[str], own: str) -> list[str]:
    """Task ids split at commas, trimmed, each once, in their order; UsageError for what is none."""
    found: list[str] = []
    for name in [part.strip() for item in names for part in item.split(",")]:
        if not name or name in found:
            continue
        if name == own:
            raise UsageError(f"--depends-on: the task {own} cannot wait for itself; leave it out")
        if "/" in name or "\\" in name or "\0" in name or name in (".", "..") or ".." in name:
            raise UsageError(f"--depends-on: {name[:60]!r} is no task id; name one of the project")
        found.append(name)
    return found


def set_dependencies(task: Task, names: Iterable[str]) -> list[str]:
    """Write down what the task waits for, and return it; UsageError where that closes a circle.

    With none there is no file.  Of two that are set at once, each sees the other.
    """
    wanted = normalise(names, task.task)
    project = os.path.dirname(task.path)
    lock = os.open(project, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        files.lock(lock, _LOCK_SECONDS, f"the dependencies of project {task.project}")
        circle = _find_circle(project, task.task, wanted)
        if circle:
            raise UsageError(
                f"--depends-on: {' -> '.join(circle)} is a circle, none of them could ever start; "
                "take one of them out"
            )
        path = task.file(CONFIG)
        if wanted:
            text = yamlio.dump({"depends_on": wanted}, depth=2)
            files.replace_file(path, text.encode(), 0o600)
        else:
            files.remove(path)
    finally:
        os.close(lock)
    return wanted


def _find_circle(project: str, changed: str, wanted: list[str]) -> list[str]:
    """`[a, b, a]`, found in the order of names; [] where no task waits for itself."""
    needs: dict[str, list[str]] = {}
    for name in {*files.names(project), changed}:
        try:
            needs[name] = dependencies(Task(os.path.join(project, name)))
        except UserError:
            needs[name] = []  # whoever starts that one is told
    needs[changed] = wanted
    # Only what the change leads to: a circle that was there before is not of its making.
    # No recursion: a line of tasks may be longer than Python's stack.
    seen: set[str] = set()
    line: dict[str, Iterator[str]] = {changed: iter(sorted(wanted))}  # each with what is left of it
    while line:
        need = next(next(reversed(line.values())), None)
        if need is None:
            seen.add(line.popitem()[0])
        elif need in line:
            names = list(line)
            return [*names[names.index(need) :], need]
        elif need not in seen:
            line[need] = iter(sorted(needs.get(need, ())))
    return []


def blocked_by(task: Task) -> list[str]:
    """The dependencies that are not done yet, in their order."""
    project = os.path.dirname(task.path)
    names = dependencies(task)
    return [name for name in names if not is_ready(Task(os.path.join(project, name)))]


def is_ready(task: Task) -> bool:
    """Whether what depends on the task may start.

    A task of a loop is ready with its DONE.  Of the original's other folders
    the newest run must be completed, and none be running, as it judges.
    """
    if files.is_regular(task.file(DONE)):
        return True
    if os.path.lexists(task.file(LOOP)):
        return False  # between two of its attempts the newest run may well be completed
    records = [runs.read(f"{task.runs_dir}/{name}") for name in runs.names_in(task.runs_dir)]
    known = [run for run in records if run.record]
    if not known or any(run.text("status") == runs.RUNNING for run in known):
        return False
    return known[-1].text("status") == runs.COMPLETED
