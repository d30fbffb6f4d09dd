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
    agents,
    continuation,
    events,
    faults,
    files,
    ids,
    procs,
    prompts,
    quota,
    recovery,
    redact,
    runner,
    runs,
    state,
    supervisor,
    verify,
    wakeup,
)
from lib.announcer import Announcer
from lib.config import Config
from lib.course import Course
from lib.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_QUOTA,
    UsageError,
    UserError,
)
from lib.events import Event
from lib.plan import Plan
from lib.retries import RETRY_SECONDS
from lib.settings import Settings
from lib.situation import Situation
from lib.spawner import Spawner
from lib.starts import Starts
from lib.state import CLOSE, STOP, Attempt, PlanState
from lib.unit import Unit

HELD_POLL_SECONDS = 0.1  # how often the lock of another process's run is looked at
VIEW_SECONDS = 0.5
# Of a run, that the state repeats.
FIGURES = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd", "cost_estimated")
STOP_PATIENCE_SECONDS = 20.0  # beyond the grace, before a supervisor that will not end is killed
LOOP = agents.INTERNAL[0]  # the type of the run of a task with `loop: true`
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Scheduler(Course):
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
        announcer = Announcer(settings, plan.project, on_event)
        super().__init__(plan, assigned, plan_state, settings, config, announcer)
        self.spawner = spawner
        self.on_tick = on_tick
        for task in plan.tasks.values():  # this process shows their stderr, too
            redact.add_tokens(redact.known_tokens(task.env))
        self._stages = {stage.id: stage for stage in plan.stages}
        self._prompts = self._generate_prompts()
        self._check_prompts(scope)
        self._tell_found(continuation.merge(plan, plan_state, self._prompts, scope, settings))
        self._take_state(scope)
        self._starts = Starts(self.ready, self._agents, self._watch, settings.max_parallel)
        self._poller = select.poll()
        self._by_fd: dict[int, Unit] = {}
        self._stop_deadline = self._next_tick = 0.0

    # -- the loop -------------------------------------------------------------

    def run(self, decisions: Iterable[str] = ()) -> int:
        """Run the plan to its end; the exit code of `run-all-tasks.py`."""
        procs.keep_statuses()
        # A closed terminal ends the display, not the plan: SIGHUP is ignored.
        caught = (wakeup.SIGINT, wakeup.SIGTERM, wakeup.SIGCHLD, CLOSE, STOP)
        self._signals = wakeup.Wakeup(caught, ignored=(wakeup.SIGHUP,))
        wakeup.release((CLOSE, STOP))
        self._poller.register(self._signals.fd, select.POLLIN)
        try:
            for decision in decisions:
                self.announcer.declare("DECISION", events.DECISION, decision)
            self._begin()
            self._answer_signals()  # who was told to stop while it began starts nothing
            while self._goes_on():
                self._start_ready()
                self._save()
                self._wait()
            return self._finish()
        finally:
            wakeup.hold((CLOSE, STOP))  # which nobody answers now: they would end the process
            self._signals.close()
            self.spawner.close()

    def situation(self) -> Situation:
        """What is true of the plan now."""
        return Situation(
            self.plan, self.state.header, self.state.tasks, self.settings.runs_dir, is_run=True
        )

    def _goes_on(self) -> bool:
        self._look_at_quotas()
        return bool(self.active) or self._may_start()

    def _may_start(self) -> bool:
        return bool(self.ready) and not self._is_closing()

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
        for stage_id in self._clocks.take_ended(now):
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
        due = [self._next_tick, self._clocks.next_end()]
        if any(unit.held or unit.check for unit in self.active.values()):
            due.append(now + HELD_POLL_SECONDS)
        if self._may_start():
            clock = time.time()
            due.append(self._starts.next_moment(self.active, now))
            due.append(now + self._watch.next_moment(clock) - clock)
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
        recovery.repair_all(self.settings.runs_dir)
        for task_id, entry in self.state.tasks.items():
            # What is not of this start and runs all the same holds its slot and its `exclusive`.
            is_open = any(attempt.get("result") == "running" for attempt in entry.attempts)
            if task_id in self.board.scope or is_open:
                self._recover(task_id)
        # A task that one recovered success released may itself have been recovered after that.
        for name in [n for n, u in self.ready.items() if u.is_active or u.outcome]:
            del self.ready[name]
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
        stands_in = bool(attempt.get("instead_of"))
        unit.continue_with(str(attempt.get("agent")), stands_in=stands_in)
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
        return self._starts.startable(self.active, time.monotonic(), time.time())

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
        if unit.stand_in_for:
            attempt["instead_of"] = unit.stand_in_for
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

    def _end_stage(self, stage_id: str) -> None:
        """The time of a stage has run out: what runs is stopped, and all of it has failed."""
        stage = self._stages[stage_id]
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

    def _spawn(self, unit: Unit, lock: int, attempt: Attempt) -> None:
        faults.point("attempt-before-spawn")
        mine = [item for item in self._attempts(unit.task.id) if item["unit"] == unit.name]
        previous = str(mine[-2]["run"]) if len(mine) > 1 else ""
        tries = sum(item.get("result") != state.QUOTA for item in mine)
        try:
            request = self._request(unit, attempt, tries, previous)
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
        self._watch.tell_stand_in(unit)
        number = f", attempt {tries}" if tries > 1 else ""
        text = f"started   {unit.name} ({unit.agent}{number})"
        self.announcer.tell_of(events.STARTED, unit, text, attempt=tries)

    def _write_off(self, unit: Unit) -> None:
        """Record the run of an attempt that could not be started; on a full disk the next start does."""
        try:
            recovery.repair(unit.path)
        except (UserError, OSError) as error:
            text = f"{unit.name}: its end cannot be recorded yet: {error}"
            self.announcer.tell_of(events.WARNING, unit, text)
        unit.run = runs.read(unit.path)

    def _request(self, unit: Unit, attempt: Attempt, tries: int, previous: str) -> runner.Request:
        task = unit.task
        type_name, options, executable = self._agents.resolve(unit.agent)
        if task.loop:  # the run is one of the loop, which starts that agent in runs of their own
            type_name, options, executable = LOOP, self._loop_options(unit), None
        return runner.Request(
            agent=unit.agent,
            type=type_name,
            options=options,
            config=self._agents.config_path,
            executable=executable,
            cwd=task.cwd,
            prompt=runner.read_prompt(self._prompts[task.id].path),
            project=self.plan.project,
            task=unit.name,
            parent=self.settings.parent,
            previous=previous,
            bus=self.settings.bus_path,
            timeout=task.timeout,
            idle_timeout=0.0 if task.loop else task.idle_timeout,
            env=task.env,
            attempt=tries,
            token=attempt["token"],
            final=unit.is_last_try,
        )

    def _loop_options(self, unit: Unit) -> dict[str, object]:
        """What lib/agents/loop.py is told of the agent and the limits inside."""
        task = unit.task
        return {
            "project": self.plan.project,
            "task": task.id,
            "agent": unit.agent,
            "runs_dir": self.settings.runs_dir,
            "config": self._agents.config_path,
            "idle_timeout": task.idle_timeout,
            "max_restarts": task.max_restarts,
            "child_wait": task.child_wait,
            "env_names": list(task.env),
            "secrets": agents.all_token_variables(),
        }

    def _order(self, unit: Unit, **order: object) -> dict[str, object]:
        tokens = redact.known_tokens({})  # of the config and the plan: the spawner read neither
        return {**order, "pid_file": self._pid_file(unit), "tokens": tokens}

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
        try:
            found = recovery.find_end(run, now)
        except (UserError, OSError) as error:  # a full disk: looked at again until it is not
            found = None
            if not unit.held:
                text = f"{unit.name}: its end cannot be recorded yet: {error}"
                self.announcer.tell_of(events.WARNING, unit, text)
            unit.retry_at = time.monotonic() + RETRY_SECONDS
            if self.stopping:  # the next start records it
                self._free(unit)
                self._set_idle(unit.task.id, "its end cannot be recorded yet")
                return
        unit.held = found is None
        if found is not None:
            unit.run, now = found
            self._judge(unit, unit.run, now)

    def _judge(self, unit: Unit, run: runs.Run, now: runs.State) -> None:
        attempt = self._attempt(unit)
        attempt["ended"] = run.text("end_time")
        attempt["exit_code"] = run.record.get("exit_code", -1)
        attempt["seconds"] = round(run.seconds(), 3)
        attempt.update({key: run.record[key] for key in FIGURES if key in run.record})
        if now.status == runs.UNKNOWN:  # it may well run elsewhere: a person has to look
            self._end_attempt(unit, now.reason, may_retry=False)
        elif now.status != runs.COMPLETED:
            reason = now.reason or "failed"
            if now.reason == runs.NEVER_STARTED:
                self._misfire(unit, "its supervisor ended before it could", now.reason)
            elif run.text("error_class") == quota.ERROR_CLASS and not unit.stop_reason:
                self._put_back(unit, run, redact.one_line(reason))
            else:
                self._end_attempt(unit, reason)
        else:
            self._watch.succeed(unit)
            if unit.task.verify:
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
            if number == CLOSE and self.interrupts:
                continue
            self.interrupts += 1
            if number == STOP:
                if not self.stopping:  # a second one would take the grace of the first away
                    self._stop_running("interrupted")
            elif self.interrupts == 1:
                text = f"waiting for {len(self.active)} running; once more to stop them"
                self._close(
                    f"interrupted: nothing new starts, {text if self.active else 'none runs'}"
                )
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
                unit.told = supervisor.signal_named(unit.path, procs.SIGTERM)

    def _kill_supervisors(self) -> None:
        """End supervisors that do not stop their runs; those that take over are told to."""
        self._stop_deadline = self._stop_limit()
        for unit in self.active.values():
            if not (self.stopping or unit.stop_reason):
                continue
            if supervisor.signal_named(unit.path, procs.SIGKILL):
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
        elif self.has_waited_enough:
            self.board.explain_the_rest("not started: what it needs waits for a quota")
        elif self._hold.reason:
            self.board.explain_the_rest(f"not started: {self._hold.reason}")
        code = EXIT_INTERRUPTED if self.interrupts else EXIT_FAILED
        if self.has_waited_enough and not self.interrupts:
            code = EXIT_QUOTA
        if self.board.is_complete():
            code = EXIT_OK
        self.state.header.update(ended=ids.rfc3339(), exit_code=code)
        self.state.finish()
        done, failed = self.board.count(state.DONE), self.board.count(state.FAILED)
        waiting = self.board.count(state.WAITING)
        rest = len(self.board.scope) - done - failed
        text = f"plan {self.plan.project}: {done} done, {failed} failed, {rest} not run"
        text += f", {waiting} of them for a quota" if waiting else ""
        counts = {"done": done, "failed": failed, "not_run": rest, "waiting": waiting}
        counts["exit_code"] = code
        self.announcer.declare("FACT", events.PLAN_ENDED, text, **counts)
        return code
