"""Runs a plan: starts what is ready, watches what runs, records every step, goes on after a crash.

One loop around one poll.  The truth is on disk: an attempt is in the plan's
state before its agent starts, the run folder tells how it ended, and whoever
starts this again takes up from both.  Runs have supervisors of their own, so
killing the scheduler ends no agent.
"""

from __future__ import annotations

import hashlib
import os
import random
import select
import time
from collections.abc import Callable, Iterable

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
    redact,
    runner,
    runs,
    state,
    supervisor,
    verify,
    wakeup,
)
from lib.board import Board
from lib.config import Config
from lib.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, LockTimeoutError, UserError
from lib.plan import Plan, Task
from lib.spawner import Spawner
from lib.state import Attempt, PlanState, TaskState
from lib.unit import Unit, units_of

HELD_POLL_SECONDS = 0.1  # how often the lock of another process's run is looked at
VIEW_SECONDS = 0.5
SPACE_SECONDS = 1.0
RETRY_SECONDS = 1.0  # before the first retry; doubled for each further one
RETRY_LIMIT_SECONDS = 60.0
MISFIRES = 5  # times that a supervisor may end before its agent began, uncounted as attempts
JITTER = 0.5  # up to that share of start_interval is added at random
STOPPED_BY = "stopped by "  # how a run says that somebody ended it, not its own failure
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
        self.parent = parent  # the run inside which the plan was started

    def generate_prompts(self, plan: Plan) -> list[prompts.Generated]:
        """Write the prompt of every task of the plan below the root."""
        return prompts.generate(
            plan,
            root=self.root,
            bus_path=self.bus_path,
            bin_dir=os.path.join(paths.TOOLKIT, "bin"),
            runs_dir=self.runs_dir,
        )


class Scheduler:
    """A plan under way.

    `assigned` names the agents of each task, `scope` the tasks of this start.
    `on_event(text)` gets a line for everything worth telling, `on_tick(self)`
    is called about twice a second.
    """

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
        self.on_event = on_event
        self.on_tick = on_tick
        self.began = time.monotonic()
        self.active: dict[str, Unit] = {}  # by name, in the order of their start
        self.ready: dict[str, Unit] = {}  # what only waits for a slot, or for its time
        self.units = {
            task.id: units_of(task, assigned[task.id], plan.quorum_of(task))
            for task in plan.tasks.values()
        }
        self.interrupts = 0
        for task in plan.tasks.values():  # this process shows their stderr, too
            redact.add_tokens(redact.known_tokens(task.env))
        self._stages = {stage.id: stage for stage in plan.stages}
        self._prompts = self._generate_prompts()
        self._merge_state(scope)
        self.board = Board(plan, plan_state.tasks, scope, settings.keep_going)
        self._poller = select.poll()
        self._by_fd: dict[int, Unit] = {}
        self._next_start: dict[str, float] = {}  # by type of agent
        self._resolved: dict[str, tuple[str, dict[str, object], str | None]] = {}
        self._stage_limits: dict[str, float] = {}  # monotonic; from the first start of its tasks
        self._stop_deadline = self._next_tick = self._space_checked = 0.0
        self._space_problem = ""

    # -- the loop -------------------------------------------------------------

    def run(self, decisions: Iterable[str] = ()) -> int:
        """Run the plan to its end; the exit code of `run-all-tasks.py`."""
        procs.keep_statuses()
        # A closed terminal ends the display, not the plan: SIGHUP is ignored.
        caught = (wakeup.SIGINT, wakeup.SIGTERM, wakeup.SIGCHLD)
        self._signals = wakeup.Wakeup(caught, ignored=(wakeup.SIGHUP,))
        self._poller.register(self._signals.fd, select.POLLIN)
        try:
            for decision in decisions:
                self._tell("DECISION", decision)
            self._begin()
            while self.active or self._may_start():
                self._start_ready()
                self._save()
                self._wait()
            self._finish()
        finally:
            self._signals.close()
            self.spawner.close()
        if self.board.is_complete():
            return EXIT_OK
        return EXIT_INTERRUPTED if self.interrupts else EXIT_FAILED

    def _may_start(self) -> bool:
        return bool(self.ready) and not self._is_closing()

    def _is_closing(self) -> bool:
        return bool(self.interrupts or self.board.failed_task)

    def _wait(self) -> None:
        """Sleep until something happens or is due, and deal with it."""
        for fd, _ in self._poller.poll(self._patience() * 1000):
            if fd in self._by_fd:
                self._on_end(self._by_fd[fd])
        self._answer_signals()
        for unit in list(self.active.values()):
            if unit.check is not None:
                self._watch_check(unit)
            elif unit.held and not files.is_locked(os.path.join(unit.path, runs.LOCK)):
                self._on_end(unit)
        now = time.monotonic()
        if self._stop_deadline and now > self._stop_deadline:
            self._kill_supervisors()
        for stage_id in [name for name, limit in self._stage_limits.items() if now > limit]:
            self._end_stage(stage_id)
        if now >= self._next_tick:
            self._next_tick = now + VIEW_SECONDS
            # One that had not recorded itself yet has missed the first signal.
            self._stop([u for u in self.active.values() if self._stop_deadline or u.stop_reason])
            self.on_tick(self)

    def _patience(self) -> float:
        """Seconds until something is due that nobody will report."""
        now = time.monotonic()
        due = [self._next_tick, *self._stage_limits.values()]
        if any(unit.held or unit.check for unit in self.active.values()):
            due.append(now + HELD_POLL_SECONDS)
        if self._may_start() and len(self.active) < self.settings.max_parallel:
            due += [at for unit in self.ready.values() if (at := self._not_before(unit)) > now]
        return max(0.001, min(due) - now)

    # -- beginning ------------------------------------------------------------

    def _generate_prompts(self) -> dict[str, prompts.Generated]:
        settings = self.settings
        folder = os.path.join(settings.root, "prompts")
        if os.path.isdir(folder):
            files.remove_temporaries(folder)
        generated = settings.generate_prompts(self.plan)
        kept = [prompt.task_id for prompt in generated if prompt.state == prompts.KEPT]
        if kept:
            self.on_event(f"prompts edited by hand, used as they are: {', '.join(kept)}")
        return {prompt.task_id: prompt for prompt in generated}

    def _merge_state(self, scope: frozenset[str]) -> None:
        """Lay the state of earlier starts over the plan as it is now."""
        tasks: dict[str, TaskState] = {}
        old = self.state.tasks
        changed = []
        for task in self.plan.tasks.values():
            entry = old.get(task.id, TaskState())
            prompt = self._prompts[task.id]
            digest = _digest(task, prompt.sha256)
            if entry.state == state.DONE:
                if entry.digest != digest:
                    changed.append(task.id)
            elif task.id in scope:
                if entry.state == state.FAILED:
                    _void_verdicts(entry)
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

    def _begin(self) -> None:
        """Take over what an earlier start left, and find what can start now."""
        supervisor.repair_all(self.settings.runs_dir)
        for task_id in self.plan.tasks:
            if task_id in self.board.scope:
                self._recover(task_id)
        # A task that one recovered success released may itself have been recovered after that.
        self.ready = {n: u for n, u in self.ready.items() if not (u.is_active or u.outcome)}
        self._queue(self.board.released())
        done = self.board.count(state.DONE)
        text = f"plan {self.plan.project}: {len(self.board.scope)} tasks to do"
        if done or self.active:
            text += f", {done} done before, {len(self.active)} still running"
        self._tell("INFO", text)

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
            if attempt.get("result") == "done":  # one agent of a review had judged already
                unit.outcome = state.DONE
                unit.verdict = str(attempt.get("verdict") or "")
            elif attempt.get("result") == "running":
                self._recover_attempt(unit, attempt)
        self._conclude(task_id)

    def _recover_attempt(self, unit: Unit, attempt: Attempt) -> None:
        path = os.path.join(self.settings.runs_dir, str(attempt.get("run")))
        # First the lock: a run that ended between the two looks has its record then.
        is_held = runs.is_held(runs.Run(path, {}))
        run = runs.read(path)
        if not (is_held or (run.record and run.text("attempt_token") == attempt.get("token"))):
            # Noted, and killed before the agent was started: it did not happen.
            self._attempts(unit.task.id).remove(attempt)
            self.board.touch(unit.task.id)
            return
        unit.run = run
        unit.started = time.monotonic()
        self._activate(unit)
        self._on_end(unit)
        if unit.is_active:
            self.on_event(f"{unit.name} still runs as {run.run_id}: taken over")

    def _adopt(self, unit: Unit) -> None:
        """Give a supervisor to a run whose own was killed."""
        lock = files.open_lock(os.path.join(unit.path, runs.LOCK))
        try:
            files.lock(lock, runs.RUN_LOCK_SECONDS, f"the run {os.path.basename(unit.path)}")
        except LockTimeoutError:
            os.close(lock)
            unit.held = True  # somebody else was quicker
            return
        self._watch_run(unit, self.spawner.start(unit.path, lock, self._order(unit, adopt=True)))

    # -- starting ---------------------------------------------------------------

    def _queue(self, released: list[str]) -> None:
        """Put the units of released tasks among the ready ones."""
        for task_id in released:
            for unit in self.units[task_id]:
                if not unit.outcome and not unit.is_active:
                    self.ready[unit.name] = unit

    def _start_ready(self) -> None:
        """Start what is ready, up to the cap: note all attempts, save once, then spawn."""
        if not self._may_start() or self._is_disk_short():
            return
        begun = []
        now = time.monotonic()
        holders = {other.task.exclusive: other.task for other in self.active.values()}
        for unit in list(self.ready.values()):
            if len(self.active) >= self.settings.max_parallel:
                break
            task = unit.task
            is_free = not task.exclusive or holders.get(task.exclusive, task) is task
            if not is_free or self._not_before(unit) > now:
                continue
            holders[task.exclusive] = task
            del self.ready[unit.name]
            self._pace(unit, now)
            begun.append((unit, *self._note_attempt(unit)))
        if begun:
            self._save()
        for unit, lock, attempt in begun:
            self._spawn(unit, lock, attempt)

    def _not_before(self, unit: Unit) -> float:
        """When the unit may start: after its back-off, and not on the heels of its like."""
        type_name = self._resolve(unit.agent)[0]
        if not self.plan.start_interval or not agents.load(type_name).PACED:
            return unit.retry_at
        return max(unit.retry_at, self._next_start.get(type_name, 0.0))

    def _pace(self, unit: Unit, now: float) -> None:
        jitter = 1 + random.random() * JITTER  # noqa: S311 - it only spreads starts
        self._next_start[self._resolve(unit.agent)[0]] = now + self.plan.start_interval * jitter

    def _is_disk_short(self) -> bool:
        now = time.monotonic()
        if now - self._space_checked > SPACE_SECONDS:
            self._space_checked = now
            try:
                runner.check_space(self.settings.runs_dir)
                problem = ""
            except UserError as error:
                problem = str(error)
            if problem and not self._space_problem:
                self._tell("WARNING", f"nothing new starts: {problem}")
            self._space_problem = problem
        return bool(self._space_problem)

    def _resolve(self, agent: str) -> tuple[str, dict[str, object], str | None]:
        if agent not in self._resolved:
            self._resolved[agent] = runner.resolve_agent(self.config, agent)
        return self._resolved[agent]

    def _note_attempt(self, unit: Unit) -> tuple[int, Attempt]:
        faults.point("attempt-before-allocate")
        run, lock = runs.allocate(self.settings.runs_dir, unit.name)
        unit.run, unit.check, unit.started = run, None, time.monotonic()
        attempt: Attempt = {
            "unit": unit.name,
            "run": run.run_id,
            "agent": unit.agent,
            "started": ids.rfc3339(),
            "token": os.urandom(8).hex(),
            "result": "running",
        }
        self._attempts(unit.task.id).append(attempt)
        self.board.set(unit.task.id, state.RUNNING)
        self._activate(unit)
        faults.point("attempt-noted")
        return lock, attempt

    def _activate(self, unit: Unit) -> None:
        self.active[unit.name] = unit
        stage = self._stages[unit.task.stage]
        if stage.timeout:
            self._stage_limits.setdefault(stage.id, unit.started + stage.timeout)

    def _end_stage(self, stage_id: str) -> None:
        """The time of a stage has run out: what runs is stopped, and all of it has failed."""
        stage = self._stages[stage_id]
        self._stage_limits[stage_id] = float("inf")
        why = f"stage {stage_id} has run out of its {stage.timeout:g} s"
        self._tell("ERROR", why)
        for task in stage.tasks:
            units = self.units[task.id]
            running = [unit for unit in units if unit.is_active]
            for unit in units:
                self.ready.pop(unit.name, None)
                unit.stop_reason, unit.told = why, False
                if unit not in running:
                    unit.outcome = unit.outcome or state.FAILED
            if not running and self._is_open(task.id):
                self._queue(self.board.fail(task.id, why))
            self._stop(running)

    def _is_open(self, task_id: str) -> bool:
        return task_id in self.board.scope and self.state.tasks[task_id].state not in state.ENDED

    def _spawn(self, unit: Unit, lock: int, attempt: Attempt) -> None:
        faults.point("attempt-before-spawn")
        attempts = self._attempts(unit.task.id)
        mine = [str(item["run"]) for item in attempts if item["unit"] == unit.name]
        try:
            request = self._request(unit, attempt, mine)
        except (UserError, OSError) as error:  # its prompt has vanished or was spoilt
            os.close(lock)
            supervisor.repair(unit.path)
            unit.run = runs.read(unit.path)
            self._end_attempt(unit, str(error))
            return
        order = self._order(unit, request=request.as_dict())
        self._watch_run(unit, self.spawner.start(unit.path, lock, order))
        faults.point("attempt-spawned")
        number = f", attempt {len(mine)}" if len(mine) > 1 else ""
        self.on_event(f"started   {unit.name} ({unit.agent}{number})")

    def _request(self, unit: Unit, attempt: Attempt, mine: list[str]) -> runner.Request:
        task = unit.task
        type_name, options, executable = self._resolve(unit.agent)
        return runner.Request(
            agent=unit.agent,
            type=type_name,
            options=options,
            executable=executable,
            cwd=task.cwd,
            prompt=runner.read_prompt(self._prompts[task.id].path),
            project=self.plan.project,
            task=unit.name,
            parent=self.settings.parent,
            previous=mine[-2] if len(mine) > 1 else "",
            bus=self.settings.bus_path,
            timeout=task.timeout,
            idle_timeout=task.idle_timeout,
            env=task.env,
            attempt=len(mine),
            token=attempt["token"],
            final=unit.failures >= task.retries,
        )

    def _order(self, unit: Unit, **order: object) -> dict[str, object]:
        tokens = redact.known_tokens({})  # of the config and the plan: the spawner read neither
        return {**order, "pid_file": self._pid_file(unit), "tokens": tokens}

    def _pid_file(self, unit: Unit) -> str:
        return os.path.join(self.settings.runs_dir, f"{unit.name}.pid")

    def _watch_run(self, unit: Unit, fd: int) -> None:
        unit.fd, unit.held = fd, False
        self._by_fd[fd] = unit
        self._poller.register(fd, select.POLLIN | select.POLLHUP)

    # -- ends ---------------------------------------------------------------------

    def _on_end(self, unit: Unit) -> None:
        """Look at a unit's run: its supervisor has ended, or this start found it in the state."""
        if unit.fd >= 0:
            self._poller.unregister(unit.fd)
            del self._by_fd[unit.fd]
            os.close(unit.fd)
            unit.fd = -1
        run = runs.read(unit.path)
        now = runs.state(run)
        if now.holder == "agent":
            self.on_event(f"{unit.name}: its agent lives without a supervisor: taken over")
            self._adopt(unit)
            return
        if not now.holder and (now.ended_unrecorded or os.path.exists(run.file(runs.LOCK))):
            try:
                supervisor.repair(run.path)
            except (UserError, OSError) as error:  # a full disk: looked at again until it is not
                self.on_event(f"{unit.name}: its end cannot be recorded yet: {error}")
            run = runs.read(run.path)
            now = runs.state(run)
        # Whoever else holds it, or repairs it at this moment, will be done with it.
        unit.held = bool(now.holder) or (now.ended_unrecorded and os.path.isdir(run.path))
        if not unit.held:
            unit.run = run
            self._judge(unit, run, now)

    def _judge(self, unit: Unit, run: runs.Run, now: runs.State) -> None:
        attempt = self._attempt(unit)
        attempt["ended"] = run.text("end_time")
        attempt["exit_code"] = run.record.get("exit_code", -1)
        if now.status == runs.UNKNOWN:  # it may well run elsewhere: a person has to look
            self._end_attempt(unit, now.reason, may_retry=False)
        elif now.status != runs.COMPLETED:
            if now.reason == runs.NEVER_STARTED and unit.misfires < MISFIRES:
                self._forget_attempt(unit)
            else:
                self._end_attempt(unit, now.reason or "failed")
        elif unit.task.verify:
            self._begin_check(unit, run)
        else:
            self._end_attempt(unit, verify.unmet_expectation(unit.task, run))

    def _begin_check(self, unit: Unit, run: runs.Run) -> None:
        self.board.set(unit.task.id, state.VERIFYING)
        faults.point("verify-begin")
        unit.check = verify.Check(unit.task, run)

    def _watch_check(self, unit: Unit) -> None:
        check = unit.check
        assert check is not None
        check.poll()
        if check.ended:
            self._end_attempt(unit, check.reason or verify.unmet_expectation(unit.task, check.run))

    def _forget_attempt(self, unit: Unit) -> None:
        """An attempt whose agent never ran does not count: it goes back in the queue."""
        self._attempts(unit.task.id).remove(self._attempt(unit))
        self._free(unit)
        unit.misfires += 1
        self.on_event(f"not begun {unit.name}: its supervisor ended before it could")
        self._retry(unit, RETRY_SECONDS, "")

    def _end_attempt(self, unit: Unit, reason: str, may_retry: bool = True) -> None:
        """Settle an attempt: `reason` says why it failed, "" that it succeeded."""
        attempt, run = self._attempt(unit), unit.run
        assert run is not None
        attempt.setdefault("ended", ids.rfc3339())
        attempt.setdefault("exit_code", -1)
        attempt["result"] = "failed" if reason else "done"
        reason = reason and (unit.stop_reason or reason)
        self._free(unit)
        if not reason:
            if self.plan.quorum_of(unit.task):
                unit.verdict = verify.verdict(run)
                attempt["verdict"] = unit.verdict
            unit.outcome = state.DONE
            self.board.touch(unit.task.id)
            self.on_event(f"succeeded {unit.name} ({time.monotonic() - unit.started:.1f} s)")
            self._conclude(unit.task.id)
            return
        why = redact.one_line(reason)
        attempt["why"] = why
        unit.failures += 1
        if self.interrupts > 1:  # stopped, not failed: the next start tries it again
            self._set_idle(unit.task.id, why)
            self.on_event(f"stopped   {unit.name}")
            return
        is_unwanted = unit.stop_reason or why.startswith(STOPPED_BY)  # by a person
        retries = may_retry and not is_unwanted and unit.failures <= unit.task.retries
        self._post_failure(unit, run, why, "RETRY" if retries else "ERROR")
        if retries:
            delay = min(RETRY_LIMIT_SECONDS, RETRY_SECONDS * 2 ** (unit.failures - 1))
            when = "by the next start" if self._is_closing() else f"in {delay:g} s"
            self.on_event(f"failed    {unit.name}: {why}; tried again {when}")
            self._retry(unit, delay, f"tried again after: {why}")
        else:
            self._fail(unit, why, run)

    def _retry(self, unit: Unit, delay: float, why: str) -> None:
        self._set_idle(unit.task.id, why)
        unit.retry_at = time.monotonic() + delay
        self.ready[unit.name] = unit

    def _set_idle(self, task_id: str, why: str) -> None:
        """Note that a unit of the task does nothing now; another one of a review may well run."""
        others = any(unit.is_active for unit in self.units[task_id])
        self.board.set(task_id, state.RUNNING if others else state.PENDING, why)

    def _post_failure(self, unit: Unit, run: runs.Run, why: str, word: str) -> None:
        """Post the line that `grep '^ERROR '` finds, unless the run's own RUN_CRASH has said it."""
        again = run.record.get("will_retry") is True or why == runs.NEVER_STARTED
        said = "RETRY" if again else "ERROR"
        if run.text("status") == runs.FAILED and run.text("bus") and said == word:
            return
        first = f"{word} task={unit.name} agent={unit.agent} exit={run.text('exit_code') or -1}"
        self._post("ERROR", f"{first} run={run.run_id}: {why}", unit.name)

    def _fail(self, unit: Unit, why: str, run: runs.Run) -> None:
        unit.outcome = state.FAILED
        self.state.tasks[unit.task.id].why = why
        self.on_event(f"FAILED    {unit.name}: {why}")
        self._note_blocker(unit.name, unit.agent, why, run)
        self._conclude(unit.task.id)

    def _note_blocker(self, name: str, agent: str, why: str, run: runs.Run | None) -> None:
        try:
            blockers.add(self.settings.root, self.plan.project, name, agent, why, run)
        except (UserError, OSError) as error:
            self.on_event(f"blockers: {error}")

    def _free(self, unit: Unit) -> None:
        self.active.pop(unit.name, None)
        files.remove(self._pid_file(unit))  # a killed supervisor leaves it
        unit.run = unit.check = None

    def _attempts(self, task_id: str) -> list[Attempt]:
        return self.state.tasks[task_id].attempts

    def _attempt(self, unit: Unit) -> Attempt:
        run_id = os.path.basename(unit.path)
        attempts = self._attempts(unit.task.id)
        return next(item for item in reversed(attempts) if item["run"] == run_id)

    def _conclude(self, task_id: str) -> None:
        """Settle a task whose units have all come to their end."""
        task, units, entry = (
            self.plan.tasks[task_id],
            self.units[task_id],
            self.state.tasks[task_id],
        )
        if entry.state in state.ENDED or not units:
            return
        if not all(unit.outcome for unit in units):
            self._set_idle(task_id, entry.why)
            return
        reason = ""
        if self.plan.quorum_of(task):
            reason = self._count_verdicts(task_id, self.plan.quorum_of(task))
            if reason and all(unit.outcome == state.DONE for unit in units):
                self._post("ERROR", f"ERROR task={task_id} agent=all exit=0: {reason}", task_id)
                self._note_blocker(task_id, "all", reason, None)
        elif units[0].outcome == state.FAILED:
            reason = entry.why or "failed"
        if not reason:
            self._queue(self.board.succeed(task_id))
            faults.point("task-done")
        else:
            was_closing = self._is_closing()
            self._queue(self.board.fail(task_id, reason))
            if self._is_closing() and not was_closing:
                waiting = f"waiting for {len(self.active)} running" if self.active else "none runs"
                self.on_event(f"nothing new starts: {task_id} failed; {waiting}")
        for stage in self.board.ended_stages:
            self._tell("PROGRESS", f"stage {stage} ended")
        self.board.ended_stages.clear()

    def _count_verdicts(self, task_id: str, quorum: int) -> str:
        """Post the verdicts of a review; returns why it did not pass, or ""."""
        units = self.units[task_id]
        approvals = sum(unit.verdict == "APPROVE" for unit in units)
        rejections = [unit.name for unit in units if unit.verdict == "REJECT"]
        latest = {str(item["unit"]): str(item["run"]) for item in self._attempts(task_id)}
        rows = []
        for unit in units:
            folder = os.path.join(self.settings.runs_dir, latest.get(unit.name, ""))
            answer = os.path.join(folder, runs.OUTPUT) if unit.name in latest else "nothing"
            rows.append(f"{unit.name}: {unit.verdict or 'no verdict'}, see {answer}")
        reason = ""
        if rejections:
            reason = f"rejected by {', '.join(rejections)}"
        elif approvals < quorum:
            reason = f"{approvals} of {quorum} approvals"
        head = f"review {task_id}: {reason or 'passed'}"
        self._post("REVIEW", "\n".join([head, *rows]), task_id)
        return reason

    # -- signals --------------------------------------------------------------------

    def _answer_signals(self) -> None:
        for number in self._signals.take():
            if number == wakeup.SIGCHLD:
                continue  # a check has ended, which is looked at after every poll
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
        self._stop(list(self.active.values()))
        patience = supervisor.stop_grace() + STOP_PATIENCE_SECONDS
        self._stop_deadline = time.monotonic() + patience

    def _stop(self, units: list[Unit]) -> None:
        """SIGTERM to every supervisor that has not had it; a check that runs is ended."""
        for unit in units:
            if unit.check is not None and unit.stop_reason:
                unit.check.end()
                self._end_attempt(unit, unit.stop_reason)
            elif unit.check is not None:  # the attempt stays open: the next start checks it again
                unit.check.end()
                self._free(unit)
                self._set_idle(unit.task.id, "stopped while it was verified")
                self.on_event(f"stopped   {unit.name}, while it was verified")
            elif not unit.told:
                unit.told = _signal_supervisor(unit.path, procs.SIGTERM)

    def _kill_supervisors(self) -> None:
        self._stop_deadline = 0.0
        for unit in list(self.active.values()):
            _signal_supervisor(unit.path, procs.SIGKILL)
            try:
                supervisor.stop(unit.path)
            except (UserError, OSError) as error:
                self.on_event(f"{unit.name} could not be stopped: {error}")

    # -- telling ----------------------------------------------------------------------

    def _save(self) -> None:
        if self.board.dirty:
            self.state.save()
            self.board.dirty = False

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
        if self.interrupts:
            self.board.explain_the_rest("not started: interrupted")
        elif self.board.failed_task:
            self.board.explain_the_rest(f"not started: {self.board.failed_task} failed")
        self._save()
        done, failed = self.board.count(state.DONE), self.board.count(state.FAILED)
        rest = len(self.board.scope) - done - failed
        self._tell(
            "FACT", f"plan {self.plan.project}: {done} done, {failed} failed, {rest} not run"
        )


def _signal_supervisor(path: str, number: int) -> bool:
    """Signal the supervisor that a run's record names, if it is still that process."""
    process = supervisor.supervisor_of(path)
    return process is not None and procs.send(process, number)


def _void_verdicts(entry: TaskState) -> None:
    """A review that failed is held again: after a rejection by all, else by who did not approve."""
    done = [item for item in entry.attempts if item.get("result") == "done"]
    rejected = any(item.get("verdict") == "REJECT" for item in done)
    for attempt in done:
        if rejected or attempt.get("verdict") != "APPROVE":
            attempt["result"] = "void"


def _digest(task: Task, prompt_sha256: str) -> str:
    """What makes the task's work what it is: prompt, agent or role, and proof."""
    parts = (prompt_sha256, task.agent, task.role, task.verify, task.expect)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
