"""The state of a plan: a YAML file and its journal, held by one process.

`runs/PROJECT/PLAN-STATE.yaml` says of each task where it stands and which
runs it had.  An attempt is noted here, with a token that its run-info
repeats, before its agent is started: after a crash the run folder tells what
became of it, and nothing is started twice.

While a plan runs, every change is one append to `PLAN-STATE.journal`, so that
its cost does not grow with the plan; the YAML is replaced whole about twice a
second (of a large plan: when the journal has outgrown it) and is complete and
current at rest, when there is no journal.  The YAML's key `journal` and the
journal's first line carry one number: a journal with a smaller one was
already taken into the YAML, and is nothing any more.
"""

from __future__ import annotations

import os

from lib import faults, files, ids, paths, procs, yamlio
from lib.errors import LockTimeoutError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STATE_NAME = "PLAN-STATE.yaml"
JOURNAL_NAME = "PLAN-STATE.journal"
LOCK_NAME = "PLAN.lock"
LOG_NAME = "plan.log"

PENDING, BLOCKED, WAITING = "pending", "blocked", "waiting"
RUNNING, VERIFYING = "running", "verifying"
DONE, FAILED, SKIPPED = "done", "failed", "skipped"
QUOTA = "quota"  # the result of an attempt that met the limit of its provider
ENDED = (DONE, FAILED, SKIPPED, BLOCKED)

SMALL_BYTES = 256 * 1024  # a state up to that size is replaced whole at every `settle`
# Signals to the process that holds the lock: start nothing more; and stop what runs.  Of Ctrl-C
# the second means more than the first, of these each means the same however often it comes.
CLOSE, STOP = procs.SIGUSR1, procs.SIGUSR2
_MAX_BYTES = 1 << 30
_LINE_BYTES = 1024  # of the lock file
_LARGE_BYTES = 64 * 1024  # from where on importing json pays when a state is read
READ_TRIES = 100  # of a reader whose files are replaced under its hands
_CURE = "mend it, or start over with --fresh (finished runs stay in the runs folder)"

# unit, run, agent, started, token, result (running, done, failed, quota, void), instead_of for a
# stand-in; later ended, exit_code, seconds, why, note, verdict, and where the run tells them
# input_tokens, output_tokens, cost_usd
Attempt = dict[str, object]


class TaskState:
    """Where a task stands; `why` is one sentence, `attempts` its runs, oldest first.

    `until` is the moment (RFC 3339) before which a task that waits is not
    tried again; "" for one that waits for no time.
    """

    __slots__ = ("_line", "attempts", "digest", "prompt_sha256", "state", "until", "why")

    def __init__(self) -> None:
        self.state = PENDING
        self.why = ""
        self.until = ""
        self.attempts: list[Attempt] = []
        self.prompt_sha256 = ""
        self.digest = ""  # of what makes the task's work what it is
        self._line = ""

    def changed(self) -> None:
        """Forget the text that was written of it; call after every change."""
        self._line = ""

    def tries(self) -> int:
        """How many attempts count: not those that met the limit of a provider."""
        return sum(item.get("result") != QUOTA for item in self.attempts)

    def line(self) -> str:
        """All of it on one line, as YAML that is JSON too."""
        if not self._line:
            value: dict[str, object] = {"state": self.state, "why": self.why}
            if self.until:
                value["until"] = self.until
            value["prompt_sha256"] = self.prompt_sha256
            value["digest"] = self.digest
            value["attempts"] = self.attempts
            self._line = yamlio.scalar(value)
        return self._line


class PlanState:
    """The state file of one project, locked for as long as this object is open."""

    def __init__(self, runs_dir: str, project: str) -> None:
        self.folder = os.path.join(runs_dir, project)
        self.path = os.path.join(self.folder, STATE_NAME)
        self.journal_path = os.path.join(self.folder, JOURNAL_NAME)
        self.project = project
        self.header: dict[str, object] = {}
        self.tasks: dict[str, TaskState] = {}
        self._lock = -1
        self._number = 0  # of the journal that continues the YAML
        self._journal = -1
        self._journal_bytes = self._yaml_bytes = 0
        self._noted_header: dict[str, object] = {}

    def lock(self) -> None:
        """Take the lock; UserError when another process runs this plan."""
        paths.make_folder(self.folder, 0o700)
        self._lock = files.open_lock(os.path.join(self.folder, LOCK_NAME))
        try:
            files.lock(self._lock, 1.0, "the plan")
        except LockTimeoutError:
            holder = _noted_holder(self._lock)
            self.close()
            raise UserError(
                f"the plan of project {self.project} is already run by {holder}; "
                "--attach shows it; wait for it, or stop that process"
            ) from None
        self.sign_lock()
        files.remove_temporaries(self.folder)

    def sign_lock(self) -> None:
        """Write into the lock file which process this is: who stops the plan signals that one."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, procs.own_line().encode(), 0)

    def load(self) -> None:
        """Read what an earlier start left; UserError when it is damaged."""
        if os.path.exists(self.path):
            self.header, self.tasks, self._number = _read(self.path)

    def close(self) -> None:
        """Let go of the lock; the state is as `settle` or the last `save` left it."""
        self._close_journal()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def set_aside(self) -> str | None:
        """Move the state out of the way for a fresh start; returns where to."""
        if not os.path.exists(self.path):
            return None
        try:
            self.load()
            self.replace()  # with what only the journal says
        except (UserError, OSError):
            pass  # a damaged one is kept as it is
        stem = os.path.join(self.folder, f"PLAN-STATE.{ids.stamp(os.stat(self.path).st_mtime)}")
        aside, number = f"{stem}.yaml", 1
        while os.path.exists(aside):
            number += 1
            aside = f"{stem}.{number}.yaml"
        files.remove(self.journal_path)  # first: without its YAML it might be taken for another's
        os.rename(self.path, aside)
        self._close_journal()
        self.header, self.tasks = {}, {}
        return aside

    def save(self, changed: Iterable[str]) -> None:
        """Note the named tasks, and the header where it has changed, durably.

        OSError leaves the files as they were; save the same tasks again then.
        """
        lines = [
            f'{{"task": {yamlio.scalar(task_id)}, "is": {self.tasks[task_id].line()}}}\n'
            for task_id in changed
        ]
        if self.header != self._noted_header:
            lines.append(f'{{"header": {yamlio.scalar(self.header)}}}\n')
        if not lines:
            return
        if self._journal < 0:
            self.replace()
            return
        faults.point("state-save")
        self._append("".join(lines).encode())
        self._noted_header = dict(self.header)
        faults.point("state-saved")

    def _append(self, data: bytes) -> None:
        try:
            files.write_all(self._journal, data)
            faults.point("journal-written")
            files.sync(self._journal)
        except OSError:
            os.ftruncate(self._journal, self._journal_bytes)  # half a line must not stay
            raise
        self._journal_bytes += len(data)

    def settle(self) -> None:
        """Take the journal into the YAML, unless that would cost too much yet."""
        if self._journal_bytes > 64 and (
            self._yaml_bytes < SMALL_BYTES or self._journal_bytes > self._yaml_bytes
        ):
            self.replace()

    def replace(self) -> None:
        """Write the whole state as YAML, durably, and begin a new journal.

        `complete` at the YAML's end tells a whole file from a cut one.
        """
        self._number += 1
        header = {**self.header, "updated": ids.rfc3339(), "journal": self._number}
        head = yamlio.dump({"version": 1, "project": self.project, **header})
        lines = [f"  {yamlio.quote(name)}: {task.line()}\n" for name, task in self.tasks.items()]
        body = "tasks:\n" + "".join(lines) if lines else "tasks: {}\n"
        data = (head + body + "complete: true\n").encode()
        files.replace_file(self.path, data, 0o600)
        self._yaml_bytes = len(data)
        self._noted_header = dict(self.header)
        faults.point("state-replaced")
        try:
            self._begin_journal()
        except OSError:
            self._close_journal()  # what is saved next replaces the YAML again
            raise

    def _begin_journal(self) -> None:
        is_new = self._journal < 0
        if is_new:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._journal = files.open_regular(self.journal_path, flags)
        # What is in it is in the YAML now, which a reader looks at again.
        os.ftruncate(self._journal, 0)
        self._journal_bytes = 0
        self._append(b'{"journal": %d}\n' % self._number)
        if is_new:  # what is saved from here on hangs on its name, too
            files.sync_folder(self.folder)

    def _close_journal(self) -> None:
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1

    def finish(self) -> None:
        """Leave the YAML whole and current, and no journal."""
        self.replace()
        self._close_journal()
        files.remove(self.journal_path)


def read(path: str) -> dict[str, TaskState]:
    """The tasks of a state file and its journal, without its lock; UserError for a damaged one."""
    return _read(path)[1]


def read_whole(path: str) -> tuple[dict[str, object], dict[str, TaskState]]:
    """Header and tasks, like `read`."""
    header, tasks, _ = _read(path)
    return header, tasks


def apply_lines(
    text: str, header: dict[str, object], tasks: dict[str, TaskState]
) -> dict[str, object] | None:
    """Take further lines of the journal into `tasks`; the header then, None for a line unread."""
    import json

    try:
        entries = [json.loads(line) for line in text.split("\n") if line]
    except (ValueError, RecursionError):
        return None
    return _apply([entry for entry in entries if isinstance(entry, dict)], header, tasks)


def _read(path: str) -> tuple[dict[str, object], dict[str, TaskState], int]:
    """Header, tasks and the journal's number, of one moment though their owner may be at work."""
    for _ in range(READ_TRIES):
        before = os.stat(path)
        header, tasks = _read_yaml(path)
        number, lines = _read_journal(os.path.join(os.path.dirname(path), JOURNAL_NAME))
        after = os.stat(path)
        if (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns):
            continue  # and the journal was begun anew: what was read does not belong together
        current = header.pop("journal", 0)
        if lines and number == current:
            header = _apply(lines, header, tasks)
        for key in ("version", "project", "updated", "complete"):
            header.pop(key, None)
        return header, tasks, current if isinstance(current, int) else 0
    raise UserError(f"{path} changes faster than it can be read; try again")


def _read_yaml(path: str) -> tuple[dict[str, object], dict[str, TaskState]]:
    text = _text_of(path)
    try:
        data = _read_lines(text, path) if len(text) > _LARGE_BYTES else None
        if data is None:
            data = yamlio.load_mapping(text, source=path)
    except UserError as error:
        raise UserError(f"damaged plan state: {error}; {_CURE}") from None
    tasks = data.pop("tasks", None)
    if not isinstance(tasks, dict) or data.get("complete") is not True:
        raise UserError(f"damaged plan state: {path}: it is not whole; {_CURE}")
    return data, {str(task_id): _task_state(value) for task_id, value in tasks.items()}


def _text_of(path: str) -> str:
    """The text of a state file; UserError for a FIFO or folder in its place."""
    try:
        return files.read_regular(path, _MAX_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"damaged plan state: {path}: {error.strerror}; {_CURE}") from None


def _read_lines(text: str, path: str) -> dict[str, object] | None:
    """A state as `replace` writes it, a task a line: some times faster than reading YAML.

    None for one that somebody has edited.
    """
    import json

    head, begin, rest = text.partition("\ntasks:\n")
    body, end, tail = rest.rpartition("\ncomplete: true\n")
    if not (begin and end) or tail:
        return None
    tasks: dict[str, object] = {}
    for line in body.split("\n"):
        try:
            tasks.update(json.loads(f"{{{line}}}"))
        except (ValueError, RecursionError):
            return None
    return {**yamlio.load_mapping(head, source=path), "tasks": tasks, "complete": True}


def _read_journal(path: str) -> tuple[int, list[dict[str, object]]]:
    """The number in its first line, and the entries after it; (0, []) where there is none.

    A last line that was cut off was never acknowledged, and is no entry.
    """
    try:
        text = _text_of(path)
    except FileNotFoundError:
        return 0, []
    import json

    entries: list[dict[str, object]] = []
    lines = text.split("\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            if number == len(lines):
                break  # as a power cut can leave it
            raise UserError(f"damaged plan state: {path}:{number}: it cannot be read; {_CURE}")
        entries.append(entry)
    first = entries[0].get("journal") if entries else 0
    return (first, entries[1:]) if isinstance(first, int) else (0, [])


def _apply(
    entries: list[dict[str, object]], header: dict[str, object], tasks: dict[str, TaskState]
) -> dict[str, object]:
    for entry in entries:
        replaced = entry.get("header")
        if isinstance(replaced, dict):
            header = replaced
        elif "task" in entry:
            tasks[str(entry["task"])] = _task_state(entry.get("is"))
    return header


def is_run(folder: str) -> bool:
    """Whether some process runs the plan whose state is in that folder."""
    try:
        return files.is_locked(os.path.join(folder, LOCK_NAME))
    except OSError:
        return False  # what stands in its place is no lock: whoever starts the plan is told


def holder(folder: str) -> procs.Process | None:
    """The process that runs the plan whose state is in that folder; None where nobody does.

    Also where it cannot be known: on another machine, or in the moment in which
    one process hands the plan to another.
    """
    if not is_run(folder):
        return None
    try:
        line = files.read_regular(os.path.join(folder, LOCK_NAME), _LINE_BYTES)
    except OSError:
        return None
    return procs.of_line(line.decode("utf-8", "replace"))


def _noted_holder(lock: int) -> str:
    """Who holds the plan; the kernel tells who took the lock, which --detach has left to another."""
    process = procs.of_line(os.pread(lock, _LINE_BYTES, 0).decode("utf-8", "replace"))
    if process is not None:
        return f"pid {process.pid}{files.command_of(str(process.pid))}"
    return files.lock_holder(lock) or "another process"


def _task_state(value: object) -> TaskState:
    task = TaskState()
    if not isinstance(value, dict):
        return task
    task.state = str(value.get("state") or PENDING)
    task.why = str(value.get("why") or "")
    task.until = str(value.get("until") or "")
    task.prompt_sha256 = str(value.get("prompt_sha256") or "")
    task.digest = str(value.get("digest") or "")
    attempts = value.get("attempts")
    if isinstance(attempts, list):
        task.attempts = [_attempt(item) for item in attempts if isinstance(item, dict)]
    return task


def _attempt(item: Mapping[object, object]) -> Attempt:
    return {str(key): value for key, value in item.items()}
