"""Runs a plan: starts what is ready, watches what runs, records every step, goes on after a crash.

One loop around one poll.  The truth is on disk: an attempt is in the plan's
state before its agent starts, the run folder tells how it ended, and whoever
starts this again takes up from both.  Runs have supervisors of their own, so
killing the scheduler ends no agent.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterable

from lib import (
    continuation,
    events,
    faults,
    files,
    ids,
    procs,
    prompts,
    redact,
    review,
    runner,
    runs,
    state,
    supervisor,
    verify,
    wakeup,
)
from lib.announcer import Announcer
from lib.board import Board
from lib.config import Config
from lib.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, UsageError, UserError
from lib.events import Event
from lib.pacing import Agents, Hold
from lib.plan import Plan
from lib.settings import Settings
from lib.situation import Situation
from lib.spawner import Spawner
from lib.state import Attempt, PlanState
from lib.unit import Unit, units_of

HELD_POLL_SECONDS = 0.1  # how often the lock of another process's run is looked at
VIEW_SECONDS = 0.5
RETRY_SECONDS = 1.0  # before the first retry; doubled for each further one
RETRY_LIMIT_SECONDS = 60.0
MISFIRES = 5  # times that a supervisor may end before its agent began, uncounted as attempts
FIGURES = ("input_tokens", "output_tokens", "cost_usd")  # of a run that the state repeats
STOP_PATIENCE_SECONDS = 20.0  # beyond the grace, before a supervisor that will not end is killed
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Scheduler:
    """A plan under way.

    `assigned` names the agents of each task, `scope` the tasks of this start.
    `on_event` gets everything worth telling, `on_tick` the situation about
    twice a second.
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
        on_event: Callable[[Event], None],
        on_tick: Callable[[Situation], None],
    ) -> None:
        self.plan = plan
        self.state = plan_state
        self.settings = settings
        self.spawner = spawner
        self.announcer = Announcer(settings, plan.project, on_event)
        self.on_tick = on_tick
        self.active: dict[str, Unit] = {}  # by name, in the order of their start
        self.ready: dict[str, Unit] = {}  # what only waits for a slot, or for its time
        self.units = {
            task.id: units_of(task, assigned[task.id], plan.quorum_of(task))
            for task in plan.tasks.values()
        }
        self.interrupts = 0
        self.stopping = ""  # why the running agents are stopped
        for task in plan.tasks.values():  # this process shows their stderr, too
            redact.add_tokens(redact.known_tokens(task.env))
        self._stages = {stage.id: stage for stage in plan.stages}
        self._agents = Agents(config, plan.start_interval)
        self._hold = Hold(settings.runs_dir)
        self._prompts = self._generate_prompts()
        self._check_prompts(scope)
        self._tell_found(continuation.merge(plan, plan_state, self._prompts, scope, settings))
        self.board = Board(plan, plan_state.tasks, scope, settings.keep_going)
        self._poller = select.poll()
        self._by_fd: dict[int, Unit] = {}
        self._stage_limits: dict[str, float] = {}  # monotonic; from the first start of its tasks
        self._stop_deadline = self._next_tick = 0.0

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
                self.announcer.declare("DECISION", events.DECISION, decision)
            self._begin()
            while self.active or self._may_start():
                self._start_ready()
                self._save()
                self._wait()
            return self._finish()
        finally:
            self._signals.close()
            self.spawner.close()

    def situation(self) -> Situation:
        """What is true of the plan now."""
        return Situation(
            self.plan, self.state.header, self.state.tasks, self.settings.runs_dir, is_run=True
        )

    def _may_start(self) -> bool:
        return bool(self.ready) and not self._is_closing()

    def _is_closing(self) -> bool:
        given_up = self._hold.is_hopeless() and not self.active
        return bool(self.interrupts or self.board.failed_task or given_up)

    def _close(self, why: str, **fields: object) -> None:
        """Say why nothing new starts from now on."""
        self.state.header["closing"] = why
        self.announcer.tell(events.CLOSING, why, **fields)

    def _wait(self) -> None:
        """Sleep until something happens or is due, and deal with it."""
        for fd, _ in self._poller.poll(self._patience() * 1000):
            if fd in self._by_fd:
                self._on_end(self._by_fd[fd])
        self._answer_signals()
        for unit in list(self.active.values()):
            if unit.check is not None:
                self._watch_check(unit)
            elif (
                unit.held
                and unit.run is not None
                and time.monotonic() >= unit.retry_at
                and not runs.is_held(unit.run)
            ):
                self._on_end(unit)
        now = time.monotonic()
        if self._stop_deadline and now > self._stop_deadline:
            self._kill_supervisors()
        for stage_id in [name for name, limit in self._stage_limits.items() if now > limit]:
            self._end_stage(stage_id)
        if now >= self._next_tick:
            self._tick(now)

    def _tick(self, now: float) -> None:
        self._next_tick = now + VIEW_SECONDS
        # One that had not recorded itself yet has missed the first signal.
        self._stop([u for u in self.active.values() if self.stopping or u.stop_reason])
        if self._hold.reason:
            self._is_held()  # also while nothing is ready: it may have room again by now
        if self._save():
            try:
                self.state.settle()
            except OSError as error:
                self._hold_for(error)
        self.on_tick(self.situation())

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
            text = f"prompts edited by hand, used as they are: {', '.join(kept)}"
            self.announcer.tell(events.NOTE, text, tasks=kept)
        return {prompt.task_id: prompt for prompt in generated}

    def _check_prompts(self, scope: frozenset[str]) -> None:
        """UsageError, with all of them, for prompts that their agents can do nothing with."""
        faults = []
        for task in self.plan.tasks.values():
            entry = self.state.tasks.get(task.id)
            if task.id not in scope or (entry is not None and entry.state == state.DONE):
                continue
            fault = self._agents.prompt_fault(self.units[task.id][0].agent, self._prompts[task.id])
            if fault:
                faults.append(f"{self.plan.path}:{task.line}: task {task.id}: {fault}")
        if faults:
            raise UsageError("\n".join(faults))

    def _tell_found(self, found: continuation.Found) -> None:
        if found.changed:
            text = "changed since they were done, "
            text += "done again" if self.settings.redo_changed else "kept as done"
            text += f": {', '.join(found.changed)}"
            self.announcer.tell(events.NOTE, text, tasks=found.changed)
        if found.forgotten:
            text = f"no longer in the plan: {', '.join(found.forgotten)}"
            self.announcer.tell(events.NOTE, text, tasks=found.forgotten)

    def _begin(self) -> None:
        """Take over what an earlier start left, and find what can start now."""
        supervisor.repair_all(self.settings.runs_dir)
        for task_id, entry in self.state.tasks.items():
            # What is not of this start and runs all the same holds its slot and its `exclusive`.
            is_open = any(attempt.get("result") == "running" for attempt in entry.attempts)
            if task_id in self.board.scope or is_open:
                self._recover(task_id)
        # A task that one recovered success released may itself have been recovered after that.
        self.ready = {n: u for n, u in self.ready.items() if not (u.is_active or u.outcome)}
        self._queue(self.board.released())
        done, count = self.board.count(state.DONE), len(self.board.scope)
        text = f"plan {self.plan.project}: {count} tasks to do"
        if done or self.active:
            text += f", {done} done before, {len(self.active)} still running"
        counts = {"tasks": count, "done": done, "running": len(self.active)}
        self.announcer.declare("INFO", events.PLAN_STARTED, text, **counts)

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
        if not any(unit.is_active for unit in self.units[task_id]):
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
        unit.continue_with(str(attempt.get("agent")))
        unit.run = run
        unit.started = time.monotonic()
        self._activate(unit)
        self._on_end(unit)
        if unit.is_active:
            self.board.set(unit.task.id, state.VERIFYING if unit.check else state.RUNNING)
            text = f"{unit.name} still runs as {run.run_id}: taken over"
            self.announcer.tell_of(events.TAKEN_OVER, unit, text)

    def _adopt(self, unit: Unit) -> None:
        """Give a supervisor to a run whose own was killed."""
        unit.held = True  # by somebody who was quicker, or until it can be tried again
        unit.retry_at = time.monotonic() + RETRY_SECONDS
        try:
            lock = files.open_lock(os.path.join(unit.path, runs.LOCK))
            if not files.try_lock(lock):
                os.close(lock)
                return
            fd = self.spawner.start(unit.path, lock, self._order(unit, adopt=True))
        except OSError as error:
            text = f"{unit.name}: it cannot be taken over yet: {error.strerror}"
            self.announcer.tell_of(events.WARNING, unit, text)
            return
        self._watch_run(unit, fd)

    # -- starting ---------------------------------------------------------------

    def _queue(self, released: list[str]) -> None:
        """Put the units of released tasks among the ready ones."""
        for task_id in released:
            for unit in self.units[task_id]:
                if not unit.outcome and not unit.is_active:
                    self.ready[unit.name] = unit

    def _start_ready(self) -> None:
        """Start what is ready, up to the cap: note all attempts, save once, then spawn."""
        if not self._may_start() or self._is_held():
            return
        begun: list[tuple[Unit, int, Attempt]] = []
        for unit in self._startable():
            try:
                noted = self._note_attempt(unit)
            except (UserError, OSError) as error:
                self._hold_for(error)
                break
            del self.ready[unit.name]
            self._agents.started(unit.agent, time.monotonic())
            begun.append((unit, *noted))
        if begun and not self._save():
            for unit, lock, attempt in begun:
                self._take_back(unit, lock, attempt)
            return
        for unit, lock, attempt in begun:
            self._spawn(unit, lock, attempt)

    def _startable(self) -> list[Unit]:
        """The ready units that may start now, as many as there are slots."""
        found: list[Unit] = []
        slots = self.settings.max_parallel - len(self.active)
        now = time.monotonic()
        paced: set[str] = set()
        holders = {other.task.exclusive: other.task for other in self.active.values()}
        for unit in self.ready.values():
            if len(found) >= slots:
                break
            task = unit.task
            is_free = not task.exclusive or holders.get(task.exclusive, task) is task
            if (
                not is_free
                or self._not_before(unit) > now
                or self._agents.kind(unit.agent) in paced
            ):
                continue
            holders[task.exclusive] = task
            paced.add(self._agents.kind(unit.agent) or unit.name)
            found.append(unit)
        return found

    def _not_before(self, unit: Unit) -> float:
        """When the unit may start: after its back-off, and not on the heels of its like."""
        return max(unit.retry_at, self._agents.not_before(unit.agent))

    def _is_held(self) -> bool:
        """Whether the disk is too full to start anything; says so when that changes."""
        if self._hold.look():
            self._tell_hold()
        return bool(self._hold.reason)

    def _hold_for(self, error: Exception) -> None:
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        if self._hold.note(f"a start cannot be recorded: {text}; free some room"):
            self._tell_hold()

    def _tell_hold(self) -> None:
        reason = self._hold.reason
        text = f"nothing new starts: {reason}" if reason else "starts go on: there is room again"
        self.state.header["held"] = reason
        self.announcer.declare("WARNING" if reason else "INFO", events.WARNING, text)

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

    def _take_back(self, unit: Unit, lock: int, attempt: Attempt) -> None:
        """Undo what was noted of an attempt that could not be saved: no agent was started."""
        runs.discard(runs.Run(unit.path, {}))
        os.close(lock)
        self._attempts(unit.task.id).remove(attempt)
        self._free(unit)
        self._set_idle(unit.task.id, "")
        self.ready[unit.name] = unit

    def _activate(self, unit: Unit) -> None:
        self.active[unit.name] = unit
        stage = self._stages[unit.task.stage]
        if stage.timeout:
            self._stage_limits.setdefault(stage.id, unit.started + stage.timeout)

    def _end_stage(self, stage_id: str) -> None:
        """The time of a stage has run out: what runs is stopped, and all of it has failed."""
        stage = self._stages[stage_id]
        self._stage_limits[stage_id] = float("inf")
        if not any(self._is_open(task.id) for task in stage.tasks):
            return  # it ended in time; others have run since
        why = f"stage {stage_id} has run out of its {stage.timeout:g} s"
        self.announcer.declare("ERROR", events.WARNING, why, stage=stage_id)
        for task in stage.tasks:
            units = self.units[task.id]
            running = [unit for unit in units if unit.is_active]
            for unit in units:
                self.ready.pop(unit.name, None)
                unit.stop_reason, unit.told = why, False
                if unit not in running:
                    unit.outcome = unit.outcome or state.FAILED
            if not running and self._is_open(task.id):
                self.announcer.declare_failure(task.id, "none", -1, why)
                self._settle(task.id, why)
            self._stop(running)
        self._stop_deadline = self._stop_limit()

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
            self._write_off(unit)
            self._end_attempt(unit, str(error))
            return
        try:
            fd = self.spawner.start(unit.path, lock, self._order(unit, request=request.as_dict()))
        except OSError as error:  # no descriptor, no memory: nothing was begun
            self._write_off(unit)
            self._misfire(unit, f"its supervisor could not be started: {error.strerror}")
            return
        self._watch_run(unit, fd)
        faults.point("attempt-spawned")
        number = f", attempt {len(mine)}" if len(mine) > 1 else ""
        text = f"started   {unit.name} ({unit.agent}{number})"
        self.announcer.tell_of(events.STARTED, unit, text, attempt=len(mine))

    def _write_off(self, unit: Unit) -> None:
        """Record the run of an attempt that could not be started; on a full disk the next start does."""
        try:
            supervisor.repair(unit.path)
        except (UserError, OSError) as error:
            text = f"{unit.name}: its end cannot be recorded yet: {error}"
            self.announcer.tell_of(events.WARNING, unit, text)
        unit.run = runs.read(unit.path)

    def _request(self, unit: Unit, attempt: Attempt, mine: list[str]) -> runner.Request:
        task = unit.task
        type_name, options, executable = self._agents.resolve(unit.agent)
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
            final=unit.is_last_try,
        )

    def _order(self, unit: Unit, **order: object) -> dict[str, object]:
        tokens = redact.known_tokens({})  # of the config and the plan: the spawner read neither
        return {**order, "pid_file": self._pid_file(unit), "tokens": tokens}

    def _pid_file(self, unit: Unit) -> str:
        return os.path.join(self.settings.runs_dir, f"{unit.name}.pid")

    def _watch_run(self, unit: Unit, fd: int) -> None:
        unit.fd, unit.held, unit.told = fd, False, False
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
            if not unit.held:
                text = f"{unit.name}: its agent lives without a supervisor: taken over"
                self.announcer.tell_of(events.TAKEN_OVER, unit, text)
            self._adopt(unit)
            return
        if not now.holder and (now.ended_unrecorded or os.path.exists(run.file(runs.LOCK))):
            try:
                supervisor.repair(run.path)
            except (UserError, OSError) as error:  # a full disk: looked at again until it is not
                if not unit.held:
                    text = f"{unit.name}: its end cannot be recorded yet: {error}"
                    self.announcer.tell_of(events.WARNING, unit, text)
                unit.retry_at = time.monotonic() + RETRY_SECONDS
                if self.stopping:  # the next start records it
                    self._free(unit)
                    self._set_idle(unit.task.id, "its end cannot be recorded yet")
                    return
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
        attempt["seconds"] = round(run.seconds(), 3)
        attempt.update({key: run.record[key] for key in FIGURES if key in run.record})
        if now.status == runs.UNKNOWN:  # it may well run elsewhere: a person has to look
            self._end_attempt(unit, now.reason, may_retry=False)
        elif now.status != runs.COMPLETED:
            if now.reason == runs.NEVER_STARTED:
                self._misfire(unit, "its supervisor ended before it could", now.reason)
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
        self.announcer.tell_of(events.VERIFYING, unit, f"verifying {unit.name}")

    def _watch_check(self, unit: Unit) -> None:
        check = unit.check
        assert check is not None
        check.poll()
        if check.ended:
            self._end_attempt(unit, check.reason or verify.unmet_expectation(unit.task, check.run))

    def _misfire(self, unit: Unit, why: str, reason: str = "") -> None:
        """An attempt whose agent never ran does not count, unless that goes on and on."""
        if unit.misfires < MISFIRES and not unit.stop_reason:
            self._forget_attempt(unit, why)
        else:
            self._end_attempt(unit, reason or why)

    def _forget_attempt(self, unit: Unit, why: str) -> None:
        """Put it back in the queue as if it had not been tried."""
        self._attempts(unit.task.id).remove(self._attempt(unit))
        self.announcer.tell_of(events.RETRIED, unit, f"not begun {unit.name}: {why}")
        self._free(unit)
        unit.misfires += 1
        self._retry(unit, RETRY_SECONDS, "")

    def _end_attempt(self, unit: Unit, reason: str, may_retry: bool = True) -> None:
        """Settle an attempt: `reason` says why it failed, "" that it succeeded."""
        attempt, run = self._attempt(unit), unit.run
        assert run is not None
        attempt.setdefault("ended", ids.rfc3339())
        attempt.setdefault("exit_code", -1)
        attempt["result"] = "failed" if reason else "done"
        if not reason:
            self._succeed(unit, attempt, run)
            return
        why = redact.one_line(unit.stop_reason or reason)
        attempt["why"] = why
        unit.failures += 1
        if (
            self.stopping and not unit.stop_reason
        ):  # stopped, not failed: the next start tries it again
            self.announcer.tell_of(events.STOPPED, unit, f"stopped   {unit.name}")
            self._free(unit)
            self._set_idle(unit.task.id, f"stopped: {self.stopping}")
            return
        if unit.task.id not in self.board.scope:  # left by an earlier start, and not of this one
            text = f"failed    {unit.name}: {why}; it is not of this start, the next one tries it"
            self.announcer.tell_of(events.RETRIED, unit, text, why=why)
            self._free(unit)
            self._set_idle(unit.task.id, f"tried again after: {why}")
            return
        is_unwanted = unit.stop_reason or run.record.get("stopped") is True  # by a person
        is_over = is_unwanted or not may_retry
        is_retried = not is_over and unit.failures <= unit.task.retries
        is_handed_over = not is_over and not is_retried and bool(unit.next_agent)
        is_final = not (is_retried or is_handed_over)
        self.announcer.post_failure(unit, run, why, "ERROR" if is_final else "RETRY")
        if is_retried:
            delay = min(RETRY_LIMIT_SECONDS, RETRY_SECONDS * 2 ** (unit.failures - 1))
            when = "by the next start" if self._is_closing() else f"in {delay:g} s"
            text = f"failed    {unit.name}: {why}; tried again {when}"
            self.announcer.tell_of(events.RETRIED, unit, text, why=why, delay_seconds=delay)
            self._free(unit)
            self._retry(unit, delay, f"tried again after: {why}")
        elif is_handed_over:
            text = f"{unit.name}: {unit.agent} failed ({why}); {unit.next_agent} takes over"
            named = {"task": unit.task.id, "unit": unit.name, "run": run.run_id, "why": why}
            who = {"agent": unit.next_agent, "instead_of": unit.agent}
            self.announcer.declare("DECISION", events.FALLBACK, text, **named, **who)
            self._free(unit)
            unit.fall_back()
            self._retry(unit, RETRY_SECONDS, f"{unit.agent} takes over after: {why}")
        else:
            self.announcer.tell_of(events.FAILED, unit, f"FAILED    {unit.name}: {why}", why=why)
            self._free(unit)
            self._fail(unit, why, run)

    def _succeed(self, unit: Unit, attempt: Attempt, run: runs.Run) -> None:
        if self.plan.quorum_of(unit.task):
            unit.verdict = attempt["verdict"] = verify.verdict(run)
        seconds = run.seconds()
        text = f"succeeded {unit.name} ({seconds:.1f} s)"
        if run.record.get("tool_calls") == 0:
            attempt["note"] = "without a tool call"
            text += ", without a tool call: look whether it did anything"
        self.announcer.tell_of(events.SUCCEEDED, unit, text, seconds=round(seconds, 3))
        self._free(unit)
        unit.outcome = state.DONE
        self.board.touch(unit.task.id)
        self._conclude(unit.task.id)

    def _retry(self, unit: Unit, delay: float, why: str) -> None:
        until = ids.rfc3339(time.time_ns() + int(delay * 1e9)) if delay else ""
        self._set_idle(unit.task.id, why, until)
        unit.retry_at = time.monotonic() + delay
        self.ready[unit.name] = unit

    def _set_idle(self, task_id: str, why: str, until: str = "") -> None:
        """Note that a unit of the task does nothing now; another one of a review may well run."""
        others = any(unit.is_active for unit in self.units[task_id])
        self.board.set(task_id, state.RUNNING if others else state.PENDING, why, until)

    def _fail(self, unit: Unit, why: str, run: runs.Run) -> None:
        unit.outcome = state.FAILED
        self.state.tasks[unit.task.id].why = why
        self.announcer.note_blocker(unit.name, unit.agent, why, run)
        self._conclude(unit.task.id)

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
        units, entry = self.units[task_id], self.state.tasks[task_id]
        if entry.state in state.ENDED or not units:
            return
        if not all(unit.outcome for unit in units):
            self._set_idle(task_id, entry.why, entry.until)
            return
        reason = ""
        if self.plan.quorum_of(self.plan.tasks[task_id]):
            reason = self._judge_review(task_id)
        elif units[0].outcome == state.FAILED:
            reason = entry.why or "failed"
        self._settle(task_id, reason)

    def _settle(self, task_id: str, reason: str) -> None:
        """Note that a task is done, or why it has failed, and what follows from that."""
        if not reason:
            self._queue(self.board.succeed(task_id))
            faults.point("task-done")
        else:
            self._queue(self.board.fail(task_id, reason))
            if self.board.failed_task == task_id:
                self._close_for_failure(task_id)
        for stage in self.board.ended_stages:
            self.announcer.declare(
                "PROGRESS", events.STAGE_ENDED, f"stage {stage} ended", stage=stage
            )
        self.board.ended_stages.clear()

    def _judge_review(self, task_id: str) -> str:
        """Post the verdicts of a review; returns why it did not pass, or ""."""
        units = self.units[task_id]
        reason = review.objection(units, self.plan.quorum_of(self.plan.tasks[task_id]))
        attempts, runs_dir = self._attempts(task_id), self.settings.runs_dir
        self.announcer.post(
            "REVIEW", review.report(task_id, units, attempts, reason, runs_dir), task_id
        )
        is_rejected = any(unit.verdict == review.REJECT for unit in units)
        if reason and (is_rejected or all(unit.outcome == state.DONE for unit in units)):
            self.announcer.declare_failure(task_id, "all", 0, reason)
        return reason

    # -- closing and stopping ---------------------------------------------------------

    def _close_for_failure(self, task_id: str) -> None:
        waiting = f"waiting for {len(self.active)} running" if self.active else "none runs"
        self._close(f"nothing new starts: {task_id} failed; {waiting}", task=task_id)
        if self.settings.kill and self.active:
            self._stop_running(f"{task_id} failed")

    def _answer_signals(self) -> None:
        for number in self._signals.take():
            if number == wakeup.SIGCHLD:
                continue  # a check has ended, which is looked at after every poll
            self.interrupts += 1
            if self.interrupts == 1:
                text = f"interrupted: nothing new starts, waiting for {len(self.active)} running"
                self._close(f"{text}; once more to stop them")
            else:
                self._stop_running("interrupted")

    def _stop_running(self, why: str) -> None:
        self.stopping = why
        self._close(f"stopping {len(self.active)} running: {why}")
        for unit in self.active.values():
            unit.told = False
        self._stop(list(self.active.values()))
        self._stop_deadline = self._stop_limit()

    def _stop_limit(self) -> float:
        return time.monotonic() + supervisor.stop_grace() + STOP_PATIENCE_SECONDS

    def _stop(self, units: list[Unit]) -> None:
        """SIGTERM to every supervisor that has not had it; a check that runs is ended."""
        for unit in units:
            if unit.check is not None and unit.stop_reason:
                unit.check.end()
                self._end_attempt(unit, unit.stop_reason)
            elif unit.check is not None:  # the attempt stays open: the next start checks it again
                unit.check.end()
                text = f"stopped   {unit.name}, while it was verified"
                self.announcer.tell_of(events.STOPPED, unit, text)
                self._free(unit)
                self._set_idle(unit.task.id, "stopped while it was verified")
            elif not unit.told:
                unit.told = _signal_supervisor(unit.path, procs.SIGTERM)

    def _kill_supervisors(self) -> None:
        """End supervisors that do not stop their runs; those that take over are told to."""
        self._stop_deadline = self._stop_limit()
        for unit in self.active.values():
            if not (self.stopping or unit.stop_reason):
                continue
            if _signal_supervisor(unit.path, procs.SIGKILL):
                text = f"{unit.name}: its supervisor did not stop it in time, and was killed"
                self.announcer.tell_of(events.WARNING, unit, text)
            unit.told = False

    # -- saving and the end -----------------------------------------------------------

    def _save(self) -> bool:
        """Write down what has changed; False, and nothing new starts, while the disk is full."""
        try:
            self.state.save(self.board.changed)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._hold_for(error)
            return False
        self.board.changed.clear()
        return True

    def _finish(self) -> int:
        if self.interrupts:
            self.board.explain_the_rest("not started: interrupted")
        elif self.board.failed_task:
            self.board.explain_the_rest(f"not started: {self.board.failed_task} failed")
        elif self._hold.reason:
            self.board.explain_the_rest(f"not started: {self._hold.reason}")
        code = EXIT_INTERRUPTED if self.interrupts else EXIT_FAILED
        if self.board.is_complete():
            code = EXIT_OK
        self.state.header.update(ended=ids.rfc3339(), exit_code=code)
        self.state.finish()
        done, failed = self.board.count(state.DONE), self.board.count(state.FAILED)
        rest = len(self.board.scope) - done - failed
        text = f"plan {self.plan.project}: {done} done, {failed} failed, {rest} not run"
        counts = {"done": done, "failed": failed, "not_run": rest, "exit_code": code}
        self.announcer.declare("FACT", events.PLAN_ENDED, text, **counts)
        return code


def _signal_supervisor(path: str, number: int) -> bool:
    """Signal the supervisor that a run's record names, if it is still that process."""
    process = supervisor.supervisor_of(path)
    return process is not None and supervisor.signal_supervisor(path, process, number)
