"""A plan as the monitor shows it: how far it is, how long it takes, and what waits for what."""

from __future__ import annotations

import os
import time

from lib import estimate, files, frame, ids, redact, state, waits, why
from lib.activity import Watcher
from lib.errors import UserError
from lib.index_entries import PlanEntry
from lib.plan import Plan, load_plan
from lib.situation import Situation
from lib.state import Attempt, TaskState

MOST_BYTES = 16 << 20  # of a plan file that is read
RECKON_SECONDS, RECKON_SHARE = 1.0, 100  # as for the live view of a plan: at most 1 % of the time
GONE = "the process that ran it is gone; start it again to go on"
UNSETTLED = (
    state.RUNNING,
    state.VERIFYING,
    state.WAITING,
    state.PENDING,
    state.BLOCKED,
    state.FAILED,
)


class PlanView:
    """A plan of the index, with what only its plan file tells where that can still be read.

    Without the file, or when it is another one by now, there are counts and
    what the state says of each task, but no time left and no `waits for`.
    """

    def __init__(self, entry: PlanEntry, runs_dir: str) -> None:
        self.entry = entry
        self._runs_dir = runs_dir
        self._watcher = Watcher(runs_dir)
        self._signature: object = ""
        self._plan: Plan | None = None
        self._is_read = False  # the plan file, since the last `refresh`
        self._explainer: why.Explainer | None = None
        self._left: float | None = None
        self._next_reckoning = 0.0
        self.scope: list[str] = []
        self.counts: dict[str, int] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in that the state has changed, or that time has passed."""
        self._is_read = False
        self._explainer = None  # it speaks of one moment
        self.scope = self._scope()
        self.counts = {}
        for task_id in self.scope:
            where = self.task(task_id).state
            self.counts[where] = self.counts.get(where, 0) + 1
        self._watcher.forget_all_but([item for _, item in self.running()])

    def _read_plan(self) -> None:
        path = self.text("plan")
        if "\0" in path:
            path = ""  # a state is somebody's file
        signature = (files.signature(path), self.text("plan_sha256")) if path else None
        if signature == self._signature:
            return
        self._signature, self._plan = signature, None
        if not path or not files.is_regular(path) or files.size(path) > MOST_BYTES:
            return
        try:
            plan = load_plan(path)
        except (UserError, OSError):
            return
        if plan.sha256 == self.text("plan_sha256") and plan.project == self.project:
            self._plan = plan

    # -- what it says

    @property
    def project(self) -> str:
        return self.entry.project

    @property
    def plan(self) -> Plan | None:
        """What its plan file says; None where that cannot be read, or is another one by now.

        Read when it is asked for: there may be hundreds of plans that ended long ago.
        """
        if not self._is_read:
            self._is_read = True
            self._read_plan()
        return self._plan

    def text(self, key: str) -> str:
        """What the header says."""
        value = self.entry.header.get(key)
        return "" if value is None else str(value)

    def task(self, task_id: str) -> TaskState:
        return self.entry.tasks.get(task_id) or TaskState()

    def running(self) -> list[tuple[str, Attempt]]:
        """(task id, attempt) of what is under way or being verified."""
        return [
            (task_id, attempt)
            for task_id, entry in self.entry.tasks.items()
            if entry.state in (state.RUNNING, state.VERIFYING)
            for attempt in waits.running(entry)
        ]

    def _scope(self) -> list[str]:
        chosen = self.entry.header.get("scope")
        known = list(self.entry.tasks)  # the plan's, in its order: each start sees to that
        if not isinstance(chosen, list):
            return known
        wanted = {str(task_id) for task_id in chosen}
        return [task_id for task_id in known if task_id in wanted]

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end; one that is neither run nor over was cut off."""
        return bool(self.text("ended")) and not self.entry.is_run

    @property
    def is_cut_off(self) -> bool:
        has_more = any(self.counts.get(where) for where in UNSETTLED[:4])
        return has_more and not (self.entry.is_run or self.text("ended") or self.entry.problem)

    @property
    def changed_ns(self) -> int:
        """When it ended, else when it was last written."""
        for key in ("ended", "updated", "started"):
            if found := ids.parse_rfc3339(self.entry.header.get(key)):
                return found
        return 0

    @property
    def began_ns(self) -> int:
        """When its last start began: its process signed the lock then; else as noted, 0: never."""
        try:
            return os.lstat(f"{os.path.dirname(self.entry.path)}/{state.LOCK_NAME}").st_mtime_ns
        except OSError:
            return ids.parse_rfc3339(self.entry.header.get("started")) or 0

    def unsettled(self) -> list[str]:
        """The tasks that are not done: what runs, what waits, what cannot go on, what failed."""
        order = {where: number for number, where in enumerate(UNSETTLED)}
        found = [task_id for task_id in self.scope if self.task(task_id).state in order]
        return sorted(found, key=lambda task_id: order[self.task(task_id).state])

    def first_waiting(self) -> str:
        """A task that waits, for the one sentence that there is room for; "" when none does."""
        waiting = (state.WAITING, state.PENDING)
        return next((name for name in self.scope if self.task(name).state in waiting), "")

    def sentence(self, task_id: str) -> str:
        """Why that task does not run, or what it is doing; it continues the task's name."""
        if self.plan is not None:
            try:
                return self._explain(task_id)
            except (UserError, OSError):
                pass  # the plan has been changed under a state that goes on
        entry = self.task(task_id)
        reason = f": {entry.why}" if entry.why else ""
        return redact.one_line(f"is {entry.state}{reason}")

    def _explain(self, task_id: str) -> str:
        situation = self._situation()
        assert situation is not None
        if self._explainer is None:
            self._explainer = why.Explainer(situation, self._watcher)
        return self._explainer.sentence(task_id)

    def _situation(self) -> Situation | None:
        plan, entry = self.plan, self.entry
        if plan is None:
            return None
        return Situation(plan, entry.header, entry.tasks, self._runs_dir, is_run=entry.is_run)

    def hold(self) -> str:
        """Why nothing new starts; "" while something may."""
        if not self.entry.is_run:
            return ""
        situation = self._situation()
        cause = why.closing_cause(situation) if situation else self.text("closing")
        return redact.one_line(cause or self.text("held"))

    def seconds_left(self) -> float | None:
        """As far as its ended tasks tell; None for unknown, and for one that nobody runs."""
        now = time.monotonic()
        situation = self._situation() if self.entry.is_run else None
        if situation is None:
            return None
        if now >= self._next_reckoning:
            self._left = frame.time_left(situation)
            took = time.monotonic() - now
            self._next_reckoning = now + max(RECKON_SECONDS, RECKON_SHARE * took)
        return self._left

    def line(self) -> str:
        """`name [####....] 12/34 done, 3 running, about 12 min left`."""
        count = self.counts.get
        done, total = count(state.DONE, 0), len(self.scope)
        stuck = count(state.FAILED, 0) + count(state.BLOCKED, 0)
        active = len(self.running())
        parts = [f"{done}/{total} done"]
        parts += [f"{active} running"] if active else []
        for where in (state.WAITING, state.FAILED, state.BLOCKED):
            parts += [f"{count(where)} {where}"] if count(where) else []
        parts += [self._outlook()]
        text = ", ".join(part for part in parts if part)
        name = redact.one_line(self.project)
        if self.entry.problem:
            return f"{name}  {redact.one_line(self.entry.problem)}"
        return f"{name}  {frame.progress(done, stuck, total)} {text}"

    def _outlook(self) -> str:
        if self.entry.is_run:
            left = self.seconds_left()
            return "" if left is None else f"{estimate.in_words(left)} left"
        if self.is_over:
            when = self.text("ended")
            return f"ended {when[:10]} {when[11:16]}Z with exit code {self.text('exit_code')}"
        return GONE if self.is_cut_off else ""

    def run_of(self, task_id: str) -> str:
        """The folder of the task's newest run; "" before there is one."""
        attempts = self.task(task_id).attempts
        return self.path_of(attempts[-1]) if attempts else ""

    def path_of(self, attempt: Attempt) -> str:
        """The folder of its run; "" for none.  Of a name in a file only the last part counts."""
        name = os.path.basename(str(attempt.get("run") or ""))
        return f"{self._runs_dir}/{name}" if name else ""
