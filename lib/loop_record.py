"""TASK-LOOP.yaml and LOOP.lock: what is known of the loop of a task, and who runs it.

An attempt is noted, with a token that its run-info repeats, before its agent
is started: whoever starts the loop again after a crash knows which runs were
its own.  LOOP.lock is held by the loop's process as long as that lives; the
line in it tells which one, but only the lock says that it does.
"""

from __future__ import annotations

import os

from lib import files, paths, procs, runs, yamlio
from lib.errors import LockTimeoutError, UserError
from lib.tasks import LOOP, Task

LOCK = runs.LOOP_LOCK
LOG = "loop.log"  # what a detached loop tells
LOCK_SECONDS = 1.0
_MAX_BYTES = 16 << 20

BLOCKED, RUNNING, RESTARTING, CHILDREN = "blocked", "running", "restarting", "waiting-children"
DONE, FAILED, STOPPED = "done", "failed", "stopped"
ENDED = (DONE, FAILED, STOPPED)

# Results of an attempt: "running" until its end is noted, "done" for an agent that ended well
# (which may leave the task undone), "failed", "quota" for one that only met a limit.
Attempt = dict[str, object]


class LoopRecord:
    """The record of one task's loop, locked for as long as this object is open.

    `fields` are state, why, until, agent, cwd ("" for the task folder), model,
    pid, started, reopened, ended, exit_code, max_restarts, and first: how
    many attempts there had been when this loop began to count.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.fields: dict[str, object] = {}
        self.attempts: list[Attempt] = []
        self._lock = -1

    def lock(self, seconds: float = LOCK_SECONDS, *, is_signed: bool = True) -> None:
        """Take the lock; UserError that says who has it.

        Who stops the task ends the process that signed.  One that is more than
        a loop, and lets go at once, does not sign.
        """
        task = self.task
        try:
            while not self._take(seconds):
                self.close()
        except LockTimeoutError:
            process = holder(task)
            who = f"pid {process.pid}{files.command_of(str(process.pid))}" if process else ""
            who = who or files.lock_holder(self._lock) or "another process"
            self.close()
            raise UserError(
                f"the loop of task {task.task} is already run by {who}; wait for it, or stop it: "
                f"stop-run --project {task.project} --task {task.task}"
            ) from None
        if is_signed:
            self.sign()
        else:
            os.ftruncate(self._lock, 0)  # whoever signed has gone
        files.remove_temporaries(task.path)

    def _take(self, seconds: float) -> bool:
        """False where the file was moved away with its folder, by clean-runs, before it was ours."""
        paths.make_folder(self.task.path, 0o700)
        path = self.task.file(LOCK)
        try:
            self._lock = files.open_lock(path)
        except FileNotFoundError:
            return False
        files.lock(self._lock, seconds, "the loop")
        return files.inode(path) == os.fstat(self._lock).st_ino

    def sign(self) -> None:
        """Write into the lock file which process this is."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, procs.own_line().encode(), 0)
        self.fields["pid"] = os.getpid()

    def load(self) -> None:
        """Read what an earlier loop left; UserError when it is damaged."""
        self.fields, self.attempts = read(self.task)

    def save(self) -> None:
        """Replace the file, durably."""
        head = {"version": 1, "project": self.task.project, "task": self.task.task}
        value = {**head, **self.fields, "attempts": self.attempts}
        files.replace_file(self.task.file(LOOP), yamlio.dump(value, depth=2).encode(), 0o600)

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def read(task: Task) -> tuple[dict[str, object], list[Attempt]]:
    """Fields and attempts, without the lock; nothing of a task that never had a loop.

    UserError for a damaged file.
    """
    path = task.file(LOOP)
    try:
        text = files.read_regular(path, _MAX_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from None
    try:
        fields = {str(key): value for key, value in yamlio.load_mapping(text, source=path).items()}
    except UserError as error:
        raise _damaged(path, str(error)) from None
    listed = fields.pop("attempts", None)
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise _damaged(path, "its attempts are no list")
    for key in ("version", "project", "task"):
        fields.pop(key, None)
    return fields, [{str(key): value for key, value in item.items()} for item in listed]


def _damaged(path: str, why: str) -> UserError:
    cure = "mend it, or remove it (runs are kept, and one that lives is taken over)"
    return UserError(f"damaged record of a loop: {path}: {why}; {cure}")


def is_held(task: Task) -> bool:
    """Whether some process runs the task's loop now."""
    return os.path.isfile(task.file(LOCK)) and files.is_locked(task.file(LOCK))


def holder(task: Task) -> procs.Process | None:
    """The process that runs the task's loop; None where there is none, or it cannot be known."""
    if not is_held(task):
        return None
    try:
        line = files.read_regular(task.file(LOCK), 1024).decode("utf-8", "replace")
    except OSError:
        return None
    return procs.of_line(line)
