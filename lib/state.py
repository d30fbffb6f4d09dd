"""The state of a plan: one YAML file, replaced whole at every change, held by one process.

`runs/PROJECT/PLAN-STATE.yaml` says of each task where it stands and which
runs it had.  An attempt is written here, with a token that its run-info
repeats, before its agent is started: after a crash the run folder tells what
became of it, and nothing is started twice.
"""

from __future__ import annotations

import os

from lib import faults, files, ids, paths, yamlio
from lib.errors import LockTimeoutError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

STATE_NAME = "PLAN-STATE.yaml"
LOCK_NAME = "PLAN.lock"
LOG_NAME = "plan.log"

PENDING, BLOCKED, WAITING = "pending", "blocked", "waiting"
RUNNING, VERIFYING = "running", "verifying"
DONE, FAILED, SKIPPED = "done", "failed", "skipped"
ENDED = (DONE, FAILED, SKIPPED, BLOCKED)

Attempt = dict[str, object]  # unit, run, agent, started, token; later ended, exit_code, result, why


class TaskState:
    """Where a task stands; `why` is one sentence, `attempts` its runs, oldest first."""

    __slots__ = ("_line", "attempts", "digest", "prompt_sha256", "state", "why")

    def __init__(self) -> None:
        self.state = PENDING
        self.why = ""
        self.attempts: list[Attempt] = []
        self.prompt_sha256 = ""
        self.digest = ""  # of what makes the task's work what it is
        self._line = ""

    def changed(self) -> None:
        """Forget the text that was written of it; call after every change."""
        self._line = ""

    def line(self, task_id: str) -> str:
        if not self._line:
            value = {
                "state": self.state,
                "why": self.why,
                "prompt_sha256": self.prompt_sha256,
                "digest": self.digest,
                "attempts": self.attempts,
            }
            self._line = f"  {yamlio.quote(task_id)}: {yamlio.scalar(value)}\n"
        return self._line


class PlanState:
    """The state file of one project, locked for as long as this object is open."""

    def __init__(self, runs_dir: str, project: str) -> None:
        self.folder = os.path.join(runs_dir, project)
        self.path = os.path.join(self.folder, STATE_NAME)
        self.project = project
        self.header: dict[str, object] = {}
        self.tasks: dict[str, TaskState] = {}
        self._lock = -1

    def lock(self) -> None:
        """Take the lock; UserError when another process runs this plan."""
        paths.make_folder(self.folder, 0o700)
        self._lock = files.open_lock(os.path.join(self.folder, LOCK_NAME))
        try:
            files.lock(self._lock, 1.0, "the plan")
        except LockTimeoutError:
            holder = files.lock_holder(self._lock) or _noted_holder(self._lock)
            self.close()
            raise UserError(
                f"the plan of project {self.project} is already run by {holder}; "
                "wait for it, or stop that process"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)
        files.remove_temporaries(self.folder)

    def load(self) -> None:
        """Read what an earlier start left; UserError when the file is damaged."""
        if os.path.exists(self.path):
            self.header, self.tasks = _read(self.path)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def set_aside(self) -> str | None:
        """Move the state out of the way for a fresh start; returns where to."""
        if not os.path.exists(self.path):
            return None
        stem = os.path.join(self.folder, f"PLAN-STATE.{ids.stamp(os.stat(self.path).st_mtime)}")
        aside, number = f"{stem}.yaml", 1
        while os.path.exists(aside):
            number += 1
            aside = f"{stem}.{number}.yaml"
        os.rename(self.path, aside)
        self.header, self.tasks = {}, {}
        return aside

    def save(self) -> None:
        """Write the whole state, durably; `complete` at its end tells a whole file from a cut one."""
        self.header["updated"] = ids.rfc3339()
        self.header.pop("complete", None)
        head = yamlio.dump({"version": 1, "project": self.project, **self.header})
        lines = [task.line(task_id) for task_id, task in self.tasks.items()]
        body = "tasks:\n" + "".join(lines) if lines else "tasks: {}\n"
        faults.point("state-save")
        files.replace_file(self.path, (head + body + "complete: true\n").encode(), 0o600)
        faults.point("state-saved")


def read(path: str) -> dict[str, TaskState]:
    """The tasks of a state file, without its lock; UserError for a damaged one."""
    return _read(path)[1]


def _read(path: str) -> tuple[dict[str, object], dict[str, TaskState]]:
    cure = "mend it, or start over with --fresh (finished runs stay in the runs folder)"
    try:
        data = yamlio.load_mapping(files.read_text(path), source=path)
    except UserError as error:
        raise UserError(f"damaged plan state: {error}; {cure}") from None
    tasks = data.pop("tasks", None)
    if not isinstance(tasks, dict) or data.get("complete") is not True:
        raise UserError(f"damaged plan state: {path}: it is not whole; {cure}")
    return data, {str(task_id): _task_state(value) for task_id, value in tasks.items()}


def _noted_holder(lock: int) -> str:
    pid = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
    return f"pid {pid}" if pid.isdigit() else "another process"


def _task_state(value: object) -> TaskState:
    task = TaskState()
    if not isinstance(value, dict):
        return task
    task.state = str(value.get("state") or PENDING)
    task.why = str(value.get("why") or "")
    task.prompt_sha256 = str(value.get("prompt_sha256") or "")
    task.digest = str(value.get("digest") or "")
    attempts = value.get("attempts")
    if isinstance(attempts, list):
        task.attempts = [_attempt(item) for item in attempts if isinstance(item, dict)]
    return task


def _attempt(item: Mapping[object, object]) -> Attempt:
    return {str(key): value for key, value in item.items()}
