"""What becomes of the tasks of a plan under way: what is ready, what an attempt's end leads to.

No process is started or ended here (lib/scheduler.py does that): units become
ready, active, and settled, attempts are judged, retried, handed over or put
back, and the plan's state, board and bus are told of it.
"""

from __future__ import annotations

import os
import time

from lib import (
    events,
    faults,
    files,
    ids,
    redact,
    retries,
    review,
    runs,
    state,
    verify,
)
from lib.announcer import Announcer
from lib.board import Board
from lib.config import Config
from lib.pacing import Agents, Hold
from lib.plan import Plan
from lib.quota import Closing
from lib.quota_watch import QuotaWatch
from lib.retries import RETRY_SECONDS
from lib.settings import Settings
from lib.stage_clocks import StageClocks
from lib.state import Attempt, PlanState
from lib.unit import Unit, units_of

MISFIRES = 5  # times that a supervisor may end before its agent began, uncounted as attempts


class Course:
    """The units of a plan under way, and how each of them goes."""

    board: Board
    _watch: QuotaWatch

    def __init__(
        self,
        plan: Plan,
        assigned: dict[str, tuple[str, ...]],
        plan_state: PlanState,
        settings: Settings,
        config: Config,
        announcer: Announcer,
    ) -> None:
        self.plan = plan
        self.state = plan_state
        self.settings = settings
        self.announcer = announcer
        self.active: dict[str, Unit] = {}  # by name, in the order of their start
        self.ready: dict[str, Unit] = {}  # what only waits for a slot, or for its time
        self.units = {
            task.id: units_of(task, assigned[task.id], plan.quorum_of(task))
            for task in plan.tasks.values()
        }
        self.interrupts = 0
        self.stopping = ""  # why the running agents are stopped
        self.has_waited_enough = False  # for what is left a quota has to reset first
        self._agents = Agents(config, plan.start_interval)
        self._hold = Hold(settings.runs_dir)
        self._clocks = StageClocks(plan)

    def _take_state(self, scope: frozenset[str]) -> None:
        """Begin with the plan's state as it is now."""
        self.board = Board(self.plan, self.state.tasks, scope, self.settings.keep_going)
        max_wait = self.settings.max_wait
        self._watch = QuotaWatch(self.state.header, self._agents, self.announcer, max_wait)

    def _close_for_failure(self, task_id: str) -> None:
        """Let nothing new start after the failure of a critical task."""
        raise NotImplementedError

    def _is_closing(self) -> bool:
        given_up = self._hold.is_hopeless() and not self.active
        is_over = self.has_waited_enough or given_up
        return bool(self.interrupts or self.board.failed_task or is_over)

    def _close(self, why: str, **fields: object) -> None:
        """Say why nothing new starts from now on."""
        self.state.header["closing"] = why
        self.announcer.tell(events.CLOSING, why, **fields)

    # -- quotas ---------------------------------------------------------------

    def _look_at_quotas(self) -> None:
        """Open what has reset; show who waits; end the plan when that is all, and too long."""
        if not self._watch.was_any:
            return
        now = time.time()
        self._watch.look(now)
        waiting: dict[str, Closing] = {}
        for unit in self.ready.values():
            closing = self._watch.choose(unit, now)
            if closing is not None:
                waiting[unit.name] = closing
        self._show_waiting(waiting, now)
        self._clocks.hold(self._only_waiting(waiting), time.monotonic())
        if self.active or self._is_closing() or len(waiting) < max(1, len(self.ready)):
            self._watch.go_on()
            return
        why = self._watch.wait(waiting.values(), len(waiting), now)
        if why:
            self.has_waited_enough = True
            self._close(why)

    def _show_waiting(self, waiting: dict[str, Closing], now: float) -> None:
        """Have the states of the ready tasks tell whether they wait for a quota, and which opens first."""
        first: dict[str, Closing] = {}
        for name, closing in waiting.items():
            other = first.setdefault(self.ready[name].task.id, closing)
            if closing.until < other.until:
                first[self.ready[name].task.id] = closing
        told = {closing.key: _shown(closing, now) for closing in first.values()}
        free = {unit.task.id for name, unit in self.ready.items() if name not in waiting}
        for task_id in {unit.task.id: None for unit in self.ready.values()}:
            entry = self.state.tasks[task_id]
            if entry.state not in (state.PENDING, state.WAITING):
                continue  # another unit of a review runs
            if task_id in free:
                if entry.state == state.WAITING:
                    self.board.set(task_id, state.PENDING)
            elif (entry.state, entry.why, entry.until) != told[first[task_id].key]:
                self.board.set(task_id, *told[first[task_id].key])

    def _only_waiting(self, waiting: dict[str, Closing]) -> set[str]:
        """The stages in which something waits for a quota, and nothing else happens or could."""
        held = {self.ready[name].task.stage for name in waiting}
        others = [unit for name, unit in self.ready.items() if name not in waiting]
        return held - {unit.task.stage for unit in (*self.active.values(), *others)}

    # -- where a unit stands ------------------------------------------------------

    def _queue(self, released: list[str]) -> None:
        """Put the units of released tasks among the ready ones."""
        for task_id in released:
            for unit in self.units[task_id]:
                if not unit.outcome and not unit.is_active:
                    self.ready[unit.name] = unit

    def _activate(self, unit: Unit) -> None:
        self.active[unit.name] = unit
        self._clocks.start(unit.task.stage, unit.started)
        self._watch.begin(unit, time.time())

    def _free(self, unit: Unit) -> None:
        self.active.pop(unit.name, None)
        self._watch.end(unit)
        files.remove(self._pid_file(unit))  # a killed supervisor leaves it
        unit.run = unit.check = None

    def _retry(self, unit: Unit, delay: float, why: str) -> None:
        until = ids.rfc3339(time.time_ns() + int(delay * 1e9)) if delay else ""
        self._set_idle(unit.task.id, why, until)
        unit.retry_at = time.monotonic() + delay
        self.ready[unit.name] = unit

    def _set_idle(self, task_id: str, why: str, until: str = "") -> None:
        """Note that a unit of the task does nothing now; another one of a review may well run."""
        others = any(unit.is_active for unit in self.units[task_id])
        self.board.set(task_id, state.RUNNING if others else state.PENDING, why, until)

    def _is_open(self, task_id: str) -> bool:
        return task_id in self.board.scope and self.state.tasks[task_id].state not in state.ENDED

    def _attempts(self, task_id: str) -> list[Attempt]:
        return self.state.tasks[task_id].attempts

    def _attempt(self, unit: Unit) -> Attempt:
        run_id = os.path.basename(unit.path)
        attempts = self._attempts(unit.task.id)
        return next(item for item in reversed(attempts) if item["run"] == run_id)

    def _pid_file(self, unit: Unit) -> str:
        return os.path.join(self.settings.runs_dir, f"{unit.name}.pid")

    # -- the ends of attempts -----------------------------------------------------

    def _put_back(self, unit: Unit, run: runs.Run, why: str) -> None:
        """Its provider's quota is used up: no failure, and no try; it waits for the reset."""
        self._attempt(unit).update(result=state.QUOTA, why=why)
        text = f"put back  {unit.name}: {why}"
        self.announcer.tell_of(events.RETRIED, unit, text, why=why)
        self._free(unit)
        self._watch.meet_limit(unit, run, why, time.time())
        if unit.task.id in self.board.scope:
            self._retry(unit, RETRY_SECONDS, f"tried again after: {why}")
        else:  # left by an earlier start, and not of this one
            self._set_idle(unit.task.id, f"tried again after: {why}")

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
        unit.note_failure()
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
        error_class = run.text("error_class")
        has_tries = unit.failures <= unit.task.retries and not retries.is_futile(error_class)
        is_retried = not is_over and has_tries
        is_handed_over = not is_over and not is_retried and bool(unit.next_agent)
        is_final = not (is_retried or is_handed_over)
        self.announcer.post_failure(unit, run, why, "ERROR" if is_final else "RETRY")
        if is_retried:
            delay = retries.pause_seconds(error_class, unit.failures)
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
            unit.give_up_agent()
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

    def _fail(self, unit: Unit, why: str, run: runs.Run) -> None:
        unit.outcome = state.FAILED
        self.state.tasks[unit.task.id].why = why
        self.announcer.note_blocker(unit.name, unit.agent, why, run)
        self._conclude(unit.task.id)

    # -- the ends of tasks --------------------------------------------------------

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


def _shown(closing: Closing, now: float) -> tuple[str, str, str]:
    """State, reason and `until` of a task that waits for a closed provider."""
    until = ids.rfc3339_of(closing.until) if closing.until > now else ""
    return state.WAITING, closing.sentence(now), until
