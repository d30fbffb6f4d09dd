"""Runs a plan: starts what is ready, watches what runs, records every step, goes on after a crash.

One loop around one poll.  The truth is on disk: an attempt is in the plan's
state before its agent starts, the run folder tells how it ended, and whoever
starts this again takes up from both.  Runs have supervisors of their own, so
killing the scheduler ends no agent.
"""

from __future__ import annotations

import _signal
import hashlib
import os
import random
import select
import time
from collections.abc import Callable

from lib import (
    agents,
    blockers,
    bus,
    faults,
    files,
    ids,
    paths,
    procs,
    prompts,
    runner,
    runs,
    state,
    supervisor,
    verify,
)
from lib.config import Config
from lib.errors import EXIT_FAILED, EXIT_OK, LockTimeoutError, UserError
from lib.plan import Plan, Task, depends
from lib.spawner import Spawner
from lib.state import Attempt, PlanState, TaskState

EXIT_INTERRUPTED = 130
HELD_POLL_SECONDS = 0.1  # a run that an earlier start began: its lock is looked at that often
VIEW_SECONDS = 0.5
RETRY_SECONDS = 1.0  # before the first retry; doubled for each further one
RETRY_LIMIT_SECONDS = 60.0
JITTER = 0.5  # up to that share of start_interval is added at random
STOP_PATIENCE_SECONDS = 20.0  # beyond the grace, before a supervisor that will not end is killed


class Settings:
    """How a plan is run this time."""

    def __init__(
        self,
        *,
        root: str,
        runs_dir: str,
        bus_path: str,
        max_parallel: int,
        keep_going: bool = False,
        parent: str = "",
    ) -> None:
        self.root = root
        self.runs_dir = runs_dir
        self.bus_path = bus_path
        self.max_parallel = max_parallel
        self.keep_going = keep_going
        self.parent = parent


class Unit:
    """One line of runs: an ordinary task has one, a review has one for each of its agents."""

    __slots__ = (
        "agents", "check", "failures", "fd", "held", "name", "outcome", "retry_at", "run",
        "started", "task", "told", "turn", "verdict",
    )  # fmt: skip

    def __init__(self, task: Task, name: str, choices: tuple[str, ...]) -> None:
        self.task = task
        self.name = name
        self.agents = choices  # in order of preference
        self.turn = 0  # which of them works now
        self.failures = 0  # attempts that failed since this start of the plan
        self.retry_at = 0.0
        self.run: runs.Run | None = None
        self.fd = -1  # reports the end of the run's supervisor
        self.held = False  # somebody else's supervisor has the run: watch its lock
        self.check: verify.Check | None = None
        self.started = 0.0
        self.outcome = ""  # "", DONE or FAILED
        self.verdict = ""
        self.told = False  # its supervisor has been asked to stop

    @property
    def agent(self) -> str:
        return self.agents[self.turn % len(self.agents)]

    @property
    def is_active(self) -> bool:
        return self.run is not None


class Scheduler:
    """A plan under way.  `on_event(text)` gets a line for everything worth telling."""

    def __init__(
        self,
        plan: Plan,
        assigned: dict[str, tuple[str, ...]],
        plan_state: PlanState,
        settings: Settings,
        config: Config,
        spawner: Spawner,
        *,
        scope: frozenset[str],
        on_event: Callable[[str], None],
        on_tick: Callable[[Scheduler], None],
    ) -> None:
        self.plan = plan
        self.state = plan_state
        self.settings = settings
        self.config = config
        self.spawner = spawner
        self.scope = scope
        self.on_event = on_event
        self.on_tick = on_tick
        self.links = depends(plan)
        self.units: dict[str, list[Unit]] = {}
        self.active: dict[str, Unit] = {}  # by name, in the order of their start
        self.ready: dict[str, Unit] = {}  # an ordered set: what only waits for a slot or a time
        self.failed_task = ""  # the critical task whose failure lets nothing new start
        self.interrupts = 0
        self.began = time.monotonic()
        self._prompts: dict[str, prompts.Generated] = {}
        self._poller = select.poll()
        self._by_fd: dict[int, Unit] = {}
        self._dirty = False
        self._open_needs: dict[str, int] = {}
        self._stage_open = [0] * len(plan.stages)
        self._last_start: dict[str, float] = {}
        self._exclusive: dict[str, str] = {}
        self._resolved: dict[str, tuple[str, dict[str, object], str | None]] = {}
        self._stop_deadline = 0.0
        self._next_tick = 0.0
        self._space_checked = 0.0
        self._space_problem = ""
        for task in plan.tasks.values():
            self.units[task.id] = _units(task, assigned[task.id], plan.quorum_of(task))

    # -- what others ask ----------------------------------------------------

    def count(self, *wanted: str) -> int:
        """How many tasks of this start's scope are in one of these states."""
        return sum(self.state.tasks[task_id].state in wanted for task_id in self.scope)

    def attempts_of(self, task_id: str) -> list[Attempt]:
        return self.state.tasks[task_id].attempts

    # -- the loop -------------------------------------------------------------

    def run(self) -> int:
        """Run the plan to its end; the exit code of `run-all-tasks.py`."""
        wakeup = self._catch_signals()
        try:
            self._begin()
            while self.active or self._may_start():
                self._start_ready()
                self._save()
                self._wait(wakeup)
            self._finish()
        finally:
            self._release_signals()
        if self.interrupts and self.count(state.DONE) < len(self.scope):
            return EXIT_INTERRUPTED
        return EXIT_OK if self.count(state.DONE) == len(self.scope) else EXIT_FAILED

    def _may_start(self) -> bool:
        return bool(self.ready) and not self._is_closing()

    def _is_closing(self) -> bool:
        return bool(self.interrupts or self.failed_task)

    def _wait(self, wakeup: int) -> None:
        for fd, _ in self._poller.poll(self._patience() * 1000):
            if fd == wakeup:
                self._answer_signals()
            elif fd in self._by_fd:
                self._on_end(self._by_fd[fd])
        for unit in list(self.active.values()):
            if unit.check is not None:
                self._watch_check(unit)
            elif unit.held and unit.run is not None and not runs.is_held(unit.run):
                self._on_end(unit)
        if self._stop_deadline and time.monotonic() > self._stop_deadline:
            self._kill_supervisors()
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + VIEW_SECONDS
            if self._stop_deadline:
                self._signal_all()  # one that had not recorded itself yet missed the first
            self.on_tick(self)

    def _patience(self) -> float:
        """Seconds until something is due without being asked."""
        now = time.monotonic()
        due = [self._next_tick - now]
        if any(unit.held or unit.check for unit in self.active.values()):
            due.append(HELD_POLL_SECONDS)
        if self._may_start() and len(self.active) < self.settings.max_parallel:
            due += [unit.retry_at - now for unit in self.ready.values() if unit.retry_at > now]
            due += [self._pace_until(unit) - now for unit in _first(self.ready, 32)]
        return max(0.001, min(due))

    # -- beginning ------------------------------------------------------------

    def _begin(self) -> None:
        """Take over what an earlier start left, and find what can start now."""
        settings = self.settings
        supervisor.repair_all(settings.runs_dir)
        generated = prompts.generate(
            self.plan,
            root=settings.root,
            bus_path=settings.bus_path,
            bin_dir=os.path.join(paths.TOOLKIT, "bin"),
            runs_dir=settings.runs_dir,
        )
        self._prompts = {prompt.task_id: prompt for prompt in generated}
        kept = [prompt.task_id for prompt in generated if prompt.state == prompts.KEPT]
        if kept:
            self.on_event(f"prompts edited by hand, used as they are: {', '.join(kept)}")
        self._merge_state()
        self._count_needs()
        for task_id in self.plan.tasks:
            self._recover(task_id)
        for task_id in self.plan.tasks:
            self._release(task_id)
        done = self.count(state.DONE)
        text = f"plan {self.plan.project}: {len(self.scope)} tasks"
        if done or self.active:
            text += f", {done} done before, {len(self.active)} still running"
        self._tell("INFO", text)
        self._dirty = True

    def _merge_state(self) -> None:
        tasks: dict[str, TaskState] = {}
        old = self.state.tasks
        changed = []
        for task in self.plan.tasks.values():
            entry = old.get(task.id, TaskState())
            prompt = self._prompts[task.id]
            digest = _digest(task, prompt.sha256)
            if entry.state == state.DONE and entry.digest and entry.digest != digest:
                changed.append(task.id)
            if entry.state != state.DONE:
                entry.digest, entry.prompt_sha256 = digest, prompt.sha256
                entry.state, entry.why = state.PENDING, ""
            entry.changed()
            tasks[task.id] = entry
        forgotten = [task_id for task_id in old if task_id not in tasks]
        if changed:
            self.on_event(f"changed since they were done, kept as done: {', '.join(changed)}")
        if forgotten:
            self.on_event(f"no longer in the plan: {', '.join(forgotten)}")
        self.state.tasks = tasks
        self.state.header = {
            "plan": self.plan.path,
            "plan_sha256": self.plan.sha256,
            "started": self.state.header.get("started") or ids.rfc3339(),
            "bus": self.settings.bus_path,
        }

    def _recover(self, task_id: str) -> None:
        """Learn from the run folders what became of the attempts that an earlier start began."""
        entry = self.state.tasks[task_id]
        if entry.state == state.DONE:
            return
        by_name = {unit.name: unit for unit in self.units[task_id]}
        for attempt in list(entry.attempts):
            unit = by_name.get(str(attempt.get("unit")))
            if unit is None:
                continue
            if attempt.get("result") == "done":
                self._recover_done(unit, attempt)
            elif attempt.get("result") == "running":
                self._recover_running(unit, attempt)
        if any(unit.is_active for unit in self.units[task_id]):
            self._set(task_id, state.RUNNING)
        self._conclude(task_id)

    def _recover_done(self, unit: Unit, attempt: Attempt) -> None:
        """One agent of a review had already judged."""
        unit.outcome = state.DONE
        unit.verdict = str(attempt.get("verdict") or "")

    def _recover_running(self, unit: Unit, attempt: Attempt) -> None:
        path = os.path.join(self.settings.runs_dir, str(attempt.get("run")))
        run = runs.read(path)
        is_ours = run.text("attempt_token") == attempt.get("token") or runs.is_held(run)
        if not os.path.isdir(path) or not is_ours:
            # Noted, and killed before the agent was started: it did not happen.
            self.state.tasks[unit.task.id].attempts.remove(attempt)
            self._mark(unit.task.id)
            return
        unit.run = run
        unit.started = time.monotonic()
        self.active[unit.name] = unit
        if runs.is_held(run):
            unit.held = True
        elif runs.state(run).status == runs.RUNNING:
            self._adopt(unit)
        else:
            supervisor.repair(path)
            self._on_end(unit)
        if unit.is_active:
            self.on_event(f"{unit.name} still runs as {run.run_id}: taken over")

    def _adopt(self, unit: Unit) -> None:
        """Give a supervisor to a run whose own was killed."""
        run = unit.run
        assert run is not None
        lock = files.open_lock(run.file(runs.LOCK))
        try:
            files.lock(lock, runs.RUN_LOCK_SECONDS, f"the run {run.run_id}")
        except LockTimeoutError:
            os.close(lock)
            unit.held = True  # somebody else was quicker
            return
        self._watch_run(unit, self.spawner.start(run, lock, {"adopt": True, **self._marks(unit)}))

    def _count_needs(self) -> None:
        tasks = self.state.tasks
        for task_id, needs in self.links.needs.items():
            self._open_needs[task_id] = sum(tasks[need].state != state.DONE for need in needs)
            if task_id in self.scope and tasks[task_id].state != state.DONE:
                self._stage_open[self.links.stage_of[task_id]] += 1

    # -- starting ---------------------------------------------------------------

    def _release(self, task_id: str) -> None:
        """Put a task among the ready ones if nothing holds it back any more."""
        if task_id not in self.scope or self.state.tasks[task_id].state != state.PENDING:
            return
        gate = self.links.gate[self.links.stage_of[task_id]]
        if self._open_needs[task_id] or not self._gate_is_open(gate):
            return
        for unit in self.units[task_id]:
            if not unit.outcome and not unit.is_active:
                self.ready[unit.name] = unit

    def _gate_is_open(self, gate: int) -> bool:
        while gate >= 0:
            if self._stage_open[gate]:
                return False
            gate = self.links.gate[gate]
        return True

    def _start_ready(self) -> None:
        """Start what is ready, up to the cap: note all attempts, save once, then spawn."""
        if self._is_closing() or not self.ready or self._is_disk_short():
            return
        starting: list[Unit] = []
        now = time.monotonic()
        for unit in list(self.ready.values()):
            if len(self.active) + len(starting) >= self.settings.max_parallel:
                break
            if unit.retry_at > now or self._pace_until(unit) > now or self._is_excluded(unit):
                continue
            del self.ready[unit.name]
            self._claim(unit, now)
            starting.append(unit)
        begun = [(unit, *self._note_attempt(unit)) for unit in starting]
        if begun:
            self._save()
        for unit, lock, attempt in begun:
            self._spawn(unit, lock, attempt)

    def _claim(self, unit: Unit, now: float) -> None:
        if unit.task.exclusive:
            self._exclusive[unit.task.exclusive] = unit.name
        interval = self.plan.start_interval
        pace = interval * (1 + random.random() * JITTER)  # noqa: S311 - it only spreads starts
        self._last_start[self._resolve(unit.agent)[0]] = now + pace

    def _pace_until(self, unit: Unit) -> float:
        """When the next start of this kind of agent is due."""
        type_name = self._resolve(unit.agent)[0]
        if not self.plan.start_interval or not agents.load(type_name).PACED:
            return 0.0
        return self._last_start.get(type_name, 0.0)

    def _is_excluded(self, unit: Unit) -> bool:
        holder = self._exclusive.get(unit.task.exclusive or "")
        return holder is not None and holder != unit.name

    def _is_disk_short(self) -> bool:
        now = time.monotonic()
        if now - self._space_checked > 1.0:
            self._space_checked = now
            try:
                runner.check_space(self.settings.runs_dir)
                problem = ""
            except UserError as error:
                problem = str(error)
            if problem and not self._space_problem:
                self._tell("ERROR", f"nothing new starts: {problem}")
            self._space_problem = problem
        return bool(self._space_problem)

    def _resolve(self, agent: str) -> tuple[str, dict[str, object], str | None]:
        if agent not in self._resolved:
            self._resolved[agent] = runner.resolve_agent(self.config, agent)
        return self._resolved[agent]

    def _note_attempt(self, unit: Unit) -> tuple[int, Attempt]:
        faults.point("attempt-before-allocate")
        run, lock = runs.allocate(self.settings.runs_dir, unit.name)
        unit.run = run
        unit.started = time.monotonic()
        unit.check = None
        attempt: Attempt = {
            "unit": unit.name,
            "run": run.run_id,
            "agent": unit.agent,
            "started": ids.rfc3339(),
            "token": os.urandom(8).hex(),
            "result": "running",
        }
        self.state.tasks[unit.task.id].attempts.append(attempt)
        self._set(unit.task.id, state.RUNNING)
        self.active[unit.name] = unit
        faults.point("attempt-noted")
        return lock, attempt

    def _spawn(self, unit: Unit, lock: int, attempt: Attempt) -> None:
        faults.point("attempt-before-spawn")
        task, run = unit.task, unit.run
        assert run is not None
        type_name, options, executable = self._resolve(unit.agent)
        attempts = self.state.tasks[task.id].attempts
        mine = [item for item in attempts if item["unit"] == unit.name]
        try:
            with open(self._prompts[task.id].path, "rb") as file:
                prompt = file.read()
            request = runner.Request(
                agent=unit.agent,
                type=type_name,
                options=options,
                executable=executable,
                cwd=task.cwd,
                prompt=runner.check_prompt(prompt, self._prompts[task.id].path),
                project=self.plan.project,
                task=unit.name,
                parent=self.settings.parent,
                previous=mine[-2]["run"] if len(mine) > 1 else "",
                bus=self.settings.bus_path,
                timeout=task.timeout,
                idle_timeout=task.idle_timeout,
                env=task.env,
                attempt=len(mine),
                token=attempt["token"],
                final=unit.failures >= task.retries,
            )
        except (UserError, OSError) as error:
            os.close(lock)
            supervisor.repair(run.path)
            self._end_attempt(unit, str(error))
            return
        order: dict[str, object] = {"request": request.as_dict(), **self._marks(unit)}
        self._watch_run(unit, self.spawner.start(run, lock, order))
        faults.point("attempt-spawned")
        number = f", attempt {len(mine)}" if len(mine) > 1 else ""
        self.on_event(f"started   {unit.name} ({unit.agent}{number})")

    def _marks(self, unit: Unit) -> dict[str, object]:
        return {"pid_file": self._pid_file(unit)}

    def _pid_file(self, unit: Unit) -> str:
        return os.path.join(self.settings.runs_dir, f"{unit.name}.pid")

    def _watch_run(self, unit: Unit, fd: int) -> None:
        unit.fd = fd
        unit.held = False
        self._by_fd[fd] = unit
        self._poller.register(fd, select.POLLIN | select.POLLHUP)

    # -- ends ---------------------------------------------------------------------

    def _on_end(self, unit: Unit) -> None:
        """The supervisor of a unit's run has ended; the run itself perhaps has not."""
        if unit.fd >= 0:
            self._poller.unregister(unit.fd)
            del self._by_fd[unit.fd]
            os.close(unit.fd)
            unit.fd = -1
        unit.held = False
        assert unit.run is not None
        path = unit.run.path
        unit.run = runs.read(path)
        if unit.run.text("status") not in (runs.COMPLETED, runs.FAILED):
            now = runs.state(unit.run)
            if now.holder == "supervisor":
                unit.held = True
                return
            if now.status == runs.RUNNING:
                self.on_event(
                    f"{unit.name}: its supervisor was killed, its agent lives: taken over"
                )
                self._adopt(unit)
                return
            supervisor.repair(path)
            unit.run = runs.read(path)
        elif os.path.exists(unit.run.file(runs.LOCK)):
            supervisor.repair(path)  # killed between its record and its last message
        self._judge(unit)

    def _judge(self, unit: Unit) -> None:
        run = unit.run
        assert run is not None
        attempt = self._attempt(unit)
        attempt["ended"] = run.text("end_time")
        attempt["exit_code"] = run.record.get("exit_code", -1)
        if run.text("status") != runs.COMPLETED:
            reason = run.text("error_summary") or "failed"
            if reason == runs.NEVER_STARTED:
                self._forget_attempt(unit)
            else:
                self._end_attempt(unit, reason)
            return
        if not unit.task.verify:
            self._end_attempt(unit, verify.unmet_expectation(unit.task, run))
            return
        self._set(unit.task.id, state.VERIFYING)
        self._save()
        faults.point("verify-begin")
        files.remove(run.file(verify.REPORT))
        environment = {**os.environ, **unit.task.env, "JRUN_ID": run.run_id}
        environment["JRUN_RUN_FOLDER"] = run.path
        unit.check = verify.Check(unit.task, run, environment)

    def _watch_check(self, unit: Unit) -> None:
        check = unit.check
        assert check is not None
        assert unit.run is not None
        check.poll()
        if check.ended:
            unit.check = None
            self._end_attempt(unit, check.reason or verify.unmet_expectation(unit.task, unit.run))

    def _forget_attempt(self, unit: Unit) -> None:
        """An attempt whose agent never ran does not count: it goes back in the queue."""
        self.state.tasks[unit.task.id].attempts.remove(self._attempt(unit))
        self._free(unit)
        self._set(unit.task.id, state.PENDING)
        unit.retry_at = time.monotonic() + RETRY_SECONDS
        self.ready[unit.name] = unit

    def _end_attempt(self, unit: Unit, reason: str) -> None:
        """Settle an attempt: `reason` says why it failed, "" that it succeeded."""
        run = unit.run
        assert run is not None
        attempt = self._attempt(unit)
        attempt.setdefault("ended", ids.rfc3339())
        if not reason:
            attempt["result"] = "done"
            quorum = self.plan.quorum_of(unit.task)
            if quorum:
                unit.verdict = attempt["verdict"] = verify.verdict(run)
            self._free(unit)
            unit.outcome = state.DONE
            self._mark(unit.task.id)
            self.on_event(f"succeeded {unit.name} ({_seconds(unit.started)})")
            self._conclude(unit.task.id)
            return
        attempt["result"] = "failed"
        attempt["why"] = supervisor.one_line(reason)
        if self.interrupts > 1:  # stopped, not failed: the next start tries it again
            self._free(unit)
            self._set(unit.task.id, state.PENDING, str(attempt["why"]))
            self.on_event(f"stopped   {unit.name}")
            return
        if run.text("status") == runs.COMPLETED:  # the agent said it was done
            self._tell(
                "ERROR",
                f"ERROR task={unit.name} agent={unit.agent} exit={run.text('exit_code')} "
                f"run={run.run_id}: {supervisor.one_line(reason)}",
            )
        self._free(unit)
        unit.failures += 1
        if unit.failures <= unit.task.retries and not self._is_closing():
            delay = min(RETRY_LIMIT_SECONDS, RETRY_SECONDS * 2 ** (unit.failures - 1))
            unit.retry_at = time.monotonic() + delay
            self._set(unit.task.id, state.PENDING, f"tried again after: {attempt['why']}")
            self.on_event(f"failed    {unit.name}: {attempt['why']}; tried again in {delay:g} s")
            self.ready[unit.name] = unit
            return
        self._fail(unit, str(attempt["why"]), run)

    def _fail(self, unit: Unit, reason: str, run: runs.Run | None = None) -> None:
        unit.outcome = state.FAILED
        self._mark(unit.task.id)
        self.on_event(f"FAILED    {unit.name}: {reason}")
        blockers.add(self.settings.root, self.plan.project, unit.name, unit.agent, reason, run)
        self.state.tasks[unit.task.id].why = reason
        self._conclude(unit.task.id)

    def _free(self, unit: Unit) -> None:
        self.active.pop(unit.name, None)
        if unit.task.exclusive and self._exclusive.get(unit.task.exclusive) == unit.name:
            del self._exclusive[unit.task.exclusive]
        files.remove(self._pid_file(unit))
        unit.run = None

    def _attempt(self, unit: Unit) -> Attempt:
        assert unit.run is not None
        for attempt in reversed(self.state.tasks[unit.task.id].attempts):
            if attempt["run"] == unit.run.run_id:
                return attempt
        raise KeyError(unit.run.run_id)

    def _conclude(self, task_id: str) -> None:
        """Settle a task whose units have all come to their end."""
        task, units = self.plan.tasks[task_id], self.units[task_id]
        if self.state.tasks[task_id].state in state.ENDED or not all(u.outcome for u in units):
            return
        quorum = self.plan.quorum_of(task)
        reason = ""
        if quorum:
            reason = self._count_verdicts(task_id, quorum)
        elif any(unit.outcome == state.FAILED for unit in units):
            reason = self.state.tasks[task_id].why or "failed"
        if not reason:
            self._set(task_id, state.DONE)
            faults.point("task-done")
            self._close_task(task_id)
            return
        self._set(task_id, state.FAILED, reason)
        self._block_dependents(task_id)
        self._close_task(task_id)
        if task.critical and not self.settings.keep_going and not self.failed_task:
            self.failed_task = task_id
            if self.active:
                self.on_event(
                    f"nothing new starts: {task_id} failed; waiting for {len(self.active)} running"
                )

    def _count_verdicts(self, task_id: str, quorum: int) -> str:
        """Post the verdicts of a review; why it did not pass, or ""."""
        units = self.units[task_id]
        approvals = sum(unit.verdict == "APPROVE" for unit in units)
        rejections = [unit.name for unit in units if unit.verdict == "REJECT"]
        rows = [f"{unit.name}: {unit.verdict or 'no verdict'}" for unit in units]
        folder = self.settings.runs_dir
        rows += [f"see {folder}/{item['run']}/output.md" for item in self.attempts_of(task_id)]
        passed = approvals >= quorum and not rejections
        word = "passed" if passed else "not passed"
        self._post("REVIEW", f"review {task_id} {word}\n" + "\n".join(rows), task_id)
        if passed:
            return ""
        if rejections:
            return f"rejected by {', '.join(rejections)}"
        return f"{approvals} of {quorum} approvals"

    def _block_dependents(self, task_id: str) -> None:
        queue = [task_id]
        while queue:
            failed = queue.pop()
            for waiting in self.links.needed_by[failed]:
                if self.state.tasks[waiting].state == state.PENDING and waiting in self.scope:
                    self._set(waiting, state.BLOCKED, f"needs {failed}, which did not succeed")
                    self._leave_stage(waiting)
                    queue.append(waiting)

    def _close_task(self, task_id: str) -> None:
        if self.state.tasks[task_id].state == state.DONE:
            for waiting in self.links.needed_by[task_id]:
                self._open_needs[waiting] -= 1
                self._release(waiting)
        self._leave_stage(task_id)

    def _leave_stage(self, task_id: str) -> None:
        stage = self.links.stage_of[task_id]
        self._stage_open[stage] -= 1
        if self._stage_open[stage] == 0:
            self._tell("PROGRESS", f"stage {self.plan.stages[stage].id} ended")
            for later in range(stage + 1, len(self.plan.stages)):
                for task in self.plan.stages[later].tasks:
                    self._release(task.id)
                if self.plan.stages[later].barrier and self._stage_open[later]:
                    break

    # -- signals --------------------------------------------------------------------

    def _catch_signals(self) -> int:
        self._wakeup, self._wakeup_write = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._wakeup_write, False)
        self._old_wakeup = _signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        self._signals: list[int] = []
        wanted = {_signal.SIGINT, _signal.SIGTERM, _signal.SIGCHLD}
        self._old_handlers = {n: _signal.signal(n, self._on_signal) for n in wanted}
        # A closed terminal ends the display, not the plan.
        self._old_handlers[_signal.SIGHUP] = _signal.signal(_signal.SIGHUP, _signal.SIG_IGN)
        self._poller.register(self._wakeup, select.POLLIN)
        return self._wakeup

    def _on_signal(self, number: int, _frame: object) -> None:
        if number != _signal.SIGCHLD:
            self._signals.append(number)

    def _release_signals(self) -> None:
        for number, handler in self._old_handlers.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._wakeup)
        os.close(self._wakeup_write)

    def _answer_signals(self) -> None:
        try:
            os.read(self._wakeup, 512)
        except BlockingIOError:
            pass
        while self._signals:
            self._signals.pop(0)
            self.interrupts += 1
            if self.interrupts == 1:
                text = f"interrupted: nothing new starts, waiting for {len(self.active)} running"
                self.on_event(f"{text}; once more to stop them")
            else:
                self._stop_running()

    def _stop_running(self) -> None:
        self.on_event(f"stopping {len(self.active)} running")
        for unit in self.active.values():
            unit.told = False
        self._signal_all()
        patience = supervisor.stop_grace() + STOP_PATIENCE_SECONDS
        self._stop_deadline = time.monotonic() + patience

    def _signal_all(self) -> None:
        """SIGTERM to every supervisor that has not had it; a check that runs is ended."""
        for unit in list(self.active.values()):
            if unit.check is not None:
                unit.check.end()
                unit.check = None
                self._end_attempt(unit, "stopped while its checks ran")
            elif not unit.told:
                unit.told = self._signal_supervisor(unit, procs.SIGTERM)

    def _kill_supervisors(self) -> None:
        self._stop_deadline = 0.0
        for unit in list(self.active.values()):
            self._signal_supervisor(unit, procs.SIGKILL)
            if unit.run is not None:
                supervisor.stop(unit.run.path)

    def _signal_supervisor(self, unit: Unit, number: int) -> bool:
        assert unit.run is not None
        run = runs.read(unit.run.path)
        process = procs.look_up(run.number("supervisor_pid"))
        if process is None or process.start != run.text("supervisor_start"):
            return False
        return procs.send(process, number)

    # -- telling ----------------------------------------------------------------------

    def _set(self, task_id: str, new: str, why: str = "") -> None:
        entry = self.state.tasks[task_id]
        entry.state, entry.why = new, why
        self._mark(task_id)

    def _mark(self, task_id: str) -> None:
        self.state.tasks[task_id].changed()
        self._dirty = True

    def _save(self) -> None:
        if self._dirty:
            self.state.save()
            self._dirty = False

    def _tell(self, kind: str, text: str) -> None:
        self.on_event(text)
        self._post(kind, text)

    def _post(self, kind: str, text: str, task: str = "") -> None:
        try:
            path, project = self.settings.bus_path, self.plan.project
            bus.append(path, type_=kind, body=text, project=project, task=task, run="")
        except (UserError, OSError) as error:
            self.on_event(f"bus: {error}")

    def _finish(self) -> None:
        for task_id in self.scope:
            entry = self.state.tasks[task_id]
            if entry.state == state.PENDING and not entry.why:
                if self.interrupts:
                    entry.why = "not started: interrupted"
                elif self.failed_task:
                    entry.why = f"not started: {self.failed_task} failed"
                entry.changed()
        self._dirty = True
        self._save()
        done, failed = self.count(state.DONE), self.count(state.FAILED)
        rest = len(self.scope) - done - failed
        self._tell(
            "FACT", f"plan {self.plan.project}: {done} done, {failed} failed, {rest} not run"
        )


def _units(task: Task, choices: tuple[str, ...], quorum: int) -> list[Unit]:
    if not quorum:
        return [Unit(task, task.id, choices)]
    # The same agent twice, as with --agent: distinct names, since each names a folder.
    seen: dict[str, int] = {}
    units = []
    for agent in choices:
        seen[agent] = seen.get(agent, 0) + 1
        number = f".{seen[agent]}" if seen[agent] > 1 else ""
        units.append(Unit(task, f"{task.id}@{agent}{number}", (agent,)))
    return units


def _digest(task: Task, prompt_sha256: str) -> str:
    """What makes the task's work what it is: prompt, agent or role, and proof."""
    parts = (prompt_sha256, task.agent, task.role, task.verify, task.expect)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _first(units: dict[str, Unit], count: int) -> list[Unit]:
    found = []
    for unit in units.values():
        found.append(unit)
        if len(found) == count:
            break
    return found


def _seconds(started: float) -> str:
    return f"{time.monotonic() - started:.1f} s"
