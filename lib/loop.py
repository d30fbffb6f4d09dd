"""The loop of one task: an agent is started until the task is DONE, children are waited for.

The loop is one process, and may be killed at any moment: an attempt is in
TASK-LOOP.yaml before its agent starts, the run folder tells how it ended, and
whoever starts the loop again takes up from both.  Runs have supervisors of
their own, so killing the loop ends no agent; it is taken over before anything
else is done, so that no two agents ever work on one task.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable

from lib import (
    children,
    faults,
    ids,
    loop_record,
    procs,
    propagation,
    quota,
    recovery,
    redact,
    retries,
    runner,
    runs,
    sessions,
    task_preamble,
    tasks,
    wakeup,
)
from lib.children import Family
from lib.config import Config
from lib.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_QUOTA,
    EXIT_SIGNAL,
    EXIT_TIMEOUT,
    EXIT_USAGE,
    UserError,
)
from lib.events import Event
from lib.loop_announcer import LoopAnnouncer
from lib.loop_record import Attempt, LoopRecord
from lib.loop_settings import Settings
from lib.loop_watch import Watch
from lib.pacing import Hold
from lib.spawner import Spawner

DEPENDENCY_POLL_SECONDS = 2.0
CHILD_POLL_SECONDS = 1.0
HOLD_POLL_SECONDS = 5.0
MISFIRES = 5  # times in a row that a supervisor may end before its agent began, not counted
MAX_ANSWER_BYTES = 4 << 20  # of the last attempt, in the last event
# Of the failure that an exit code stands for.
ERROR_CLASSES = {
    EXIT_QUOTA: quota.ERROR_CLASS,
    EXIT_USAGE: "bad-request",
    EXIT_NOT_FOUND: "not-installed",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Ended(Exception):  # noqa: N818 - it is no error that a loop ends
    """The loop is over before its task is done: the state, what the script exits with, and why.

    With `stop_runs` what lives of the task is stopped, too.
    """

    def __init__(self, state: str, code: int, why: str, *, stop_runs: bool = False) -> None:
        super().__init__(why)
        self.state = state
        self.code = code
        self.why = why
        self.stop_runs = stop_runs


class Loop:
    """A task's loop; `record` is locked and loaded, `tell` gets a line for each thing that happens.

    `on_event`, where given, gets the events of docs/events.md, and `tell` the rest.
    """

    def __init__(
        self,
        record: LoopRecord,
        settings: Settings,
        config: Config,
        spawner: Spawner,
        tell: Callable[[str], None],
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.record = record
        self.task = record.task
        self.settings = settings
        self.config = config
        self.spawner = spawner
        self.announcer = LoopAnnouncer(self.task, settings.agent, tell, on_event)
        self._family = Family(self.task.runs_dir)
        self._hold = Hold(self.task.path)
        self._watch: Watch | None = None
        self._end: Ended | None = None  # asked for while a run is under way
        self._misfires = self._overloads = 0
        self._pause_seconds = settings.restart_delay  # before the next attempt
        self._quota_until = self._waited = 0.0
        self._new_session = False
        self._warned: set[str] = set()
        self._poller = select.poll()

    # -- the loop -------------------------------------------------------------

    def run(self) -> int:
        """Run it to its end; the exit code of `run-task`."""
        procs.keep_statuses()
        # A closed terminal ends what it shows, not the loop.
        caught = (wakeup.SIGINT, wakeup.SIGTERM)
        self._signals = wakeup.Wakeup(caught, ignored=(wakeup.SIGHUP,))
        self._poller.register(self._signals.fd, select.POLLIN)
        try:
            try:
                self._work()
                return self._complete()
            except Ended as end:
                return self._close(end)
            except UserError as error:
                return self._close(Ended(loop_record.FAILED, error.exit_code, str(error)))
        finally:
            if self._watch is not None:
                self._watch.close()
            self._signals.close()
            self.spawner.close()

    def _work(self) -> None:
        self._begin()
        self._take_over()
        self._await_dependencies()
        while not tasks.is_done(self.task):
            self._await_quota()
            self._refuse_further()
            if not self._attempt():
                continue
            if not tasks.is_done(self.task):
                self._note(loop_record.RESTARTING, self._why_again(), self._pause_seconds)
                self._pause(self._pause_seconds)
        self._await_children()

    def _begin(self) -> None:
        """Note which loop this is: one that goes on counts on, one that begins anew does not."""
        fields, settings = self.record.fields, self.settings
        state = fields.get("state")
        if state in (None, "", *loop_record.ENDED):
            fields["first"] = len(self.record.attempts)
            fields.update(started=ids.rfc3339(), monotonic_start=time.monotonic())
            fields["boot_id"] = procs.machine()["boot_id"]
        for key in ("ended", "exit_code", "until"):
            fields.pop(key, None)
        fields.update(agent=settings.agent, pid=os.getpid(), max_restarts=settings.max_restarts)
        # For a start that names nothing but the task; a moved folder is found where it is then.
        fields["cwd"] = "" if settings.cwd == self.task.path else settings.cwd
        fields["model"] = settings.model or ""
        fields.update(state=loop_record.RUNNING, why="")
        began = fields.get("monotonic_start")
        is_known = isinstance(began, int | float) and not isinstance(began, bool)
        if not is_known or fields.get("boot_id") != procs.machine()["boot_id"]:
            began = time.monotonic()
        limit = settings.timeout
        self._deadline = float(str(began)) + limit if limit else float("inf")
        self.record.save()
        faults.point("loop-begun")

    # -- what an earlier loop left ----------------------------------------------

    def _take_over(self) -> None:
        """Stay with the agent that an earlier loop of this task left at work, to its end."""
        recovery.repair_all(self.task.runs_dir)
        self._find_strays()
        for attempt in list(self.record.attempts):
            if attempt.get("result") != "running":
                continue
            path = os.path.join(self.task.runs_dir, str(attempt.get("run")))
            # First the lock: a run that ended between the two looks has its record then.
            is_held = runs.is_held(runs.Run(path, {}))
            run = runs.read(path)
            is_ours = run.problem or run.text("attempt_token") == attempt.get("token")
            if not is_held and not (is_ours and (run.record or run.problem)):
                # Noted, and killed before its agent was started: it did not happen.
                self._forget(attempt)
                self._save()
                continue
            is_past = not runs.state(run).holder
            if not is_past:
                text = f"{run.run_id} is still at work: taken over"
                self.announcer.report_start(run.run_id, text, None)
            self._stay(attempt, Watch(self.spawner, path, self.announcer.warn), is_past)

    def _forget(self, attempt: Attempt) -> None:
        """Take out one that did not happen; those that this loop counts stay the same."""
        first, at = self.record.fields.get("first"), self.record.attempts.index(attempt)
        if isinstance(first, int) and at < first:
            self.record.fields["first"] = first - 1
        del self.record.attempts[at]

    def _find_strays(self) -> None:
        """Take attempts that live and that no record tells of, since somebody removed it, for ours."""
        known = {str(attempt.get("run")) for attempt in self.record.attempts}
        for run in self._family.living():
            token = run.text("attempt_token")
            if run.run_id in known or not token:
                continue
            began = run.text("start_time")
            attempt: Attempt = {"run": run.run_id, "token": token, "started": began}
            self.record.attempts.append({**attempt, "result": "running"})

    # -- before an attempt ------------------------------------------------------

    def _await_dependencies(self) -> None:
        told: list[str] = []
        while not tasks.is_done(self.task):
            waiting = tasks.blocked_by(self.task)
            if not waiting:
                break
            if waiting != told:
                told = waiting
                text = f"blocked by {', '.join(waiting)}"
                self.announcer.post("PROGRESS", text)
                self._note(loop_record.BLOCKED, text)
            self._pause(DEPENDENCY_POLL_SECONDS)
        else:
            return
        if told:
            self.announcer.post(
                "FACT", f"dependencies satisfied: {', '.join(tasks.dependencies(self.task))}"
            )

    def _await_quota(self) -> None:
        """Wait until a provider whose limit was met may be asked again."""
        left = self._quota_until - time.time()
        if left <= 0:
            return
        self._quota_until = 0.0
        when = ids.rfc3339(time.time_ns() + int(left * 1e9))[:19] + "Z"
        if self._waited + left > self.settings.max_wait:
            why = f"{self.settings.agent} has met the limit of its provider until {when}"
            raise Ended(loop_record.STOPPED, EXIT_QUOTA, f"{why}; start it again then")
        self._waited += left
        text = f"waits for the quota of {self.settings.agent} until {when}"
        self.announcer.post("WARNING", text)
        self._note(loop_record.RESTARTING, text, left)
        self._pause(left)

    def _refuse_further(self) -> None:
        made, most = self._count(), self.settings.max_restarts
        if made >= most:
            attempts = "attempt" if made == 1 else "attempts"
            why = f"restarts exhausted: {made} {attempts} (of {most}), and no {tasks.DONE}"
            last = self.record.attempts[-1] if self.record.attempts else {}
            if last.get("why"):
                why += f"; the last one failed: {last['why']}"
            raise Ended(loop_record.FAILED, EXIT_FAILED, why)

    def _count(self) -> int:
        """How many attempts of this loop count."""
        first = self.record.fields.get("first")
        mine = self.record.attempts[first if isinstance(first, int) else 0 :]
        return sum(attempt.get("result") != "quota" for attempt in mine)

    def _await_space(self) -> None:
        while True:
            is_news = self._hold.look()
            if is_news and self._hold.reason:
                self.announcer.warn(f"nothing starts: {self._hold.reason}")
            if not self._hold.reason:
                return
            if self._hold.is_hopeless():
                raise UserError(self._hold.reason)
            self._note(loop_record.RESTARTING, self._hold.reason, HOLD_POLL_SECONDS)
            self._pause(HOLD_POLL_SECONDS)

    # -- an attempt -------------------------------------------------------------

    def _attempt(self) -> bool:
        """Make one attempt and stay with it; False for one that did not come about."""
        self._await_space()
        who = runner.resolve_agent(self.config, self.settings.agent)
        faults.point("loop-before-allocate")
        previous = self._previous()
        name, self.settings.next_run = self.settings.next_run, ""
        run, lock = runs.allocate(self.task.runs_dir, in_task_folder=True, name=name)
        attempt: Attempt = {
            "run": run.run_id,
            "token": os.urandom(8).hex(),
            "started": ids.rfc3339(),
            "result": "running",
        }
        self.record.attempts.append(attempt)
        self.record.fields.update(state=loop_record.RUNNING, why="")
        self.record.fields.pop("until", None)
        try:
            self.record.save()
        except OSError as error:
            os.close(lock)
            runs.discard(run)
            self.record.attempts.remove(attempt)
            if error.errno not in _FULL:
                raise
            self._hold.note(f"an attempt cannot be recorded: {error.strerror}; free some room")
            return False
        faults.point("loop-noted")
        number = self._count()
        request = self._request(who, attempt, number, previous)
        self._announce_attempt(number, previous)
        faults.point("loop-before-spawn")
        tokens = redact.known_tokens({})  # of the config: the spawner did not read it
        order: dict[str, object] = {"request": request.as_dict(), "tokens": tokens}
        try:
            fd = self.spawner.start(run.path, lock, order)
        except OSError as error:  # no descriptor, no memory: nothing was begun
            self.announcer.warn(
                f"the supervisor of {run.run_id} could not be started: {error.strerror}"
            )
            fd = -1  # what is left of it is repaired, and counts as not begun
        faults.point("loop-spawned")
        self.announcer.report_start(run.run_id, f"attempt {number} started: {run.run_id}", number)
        return self._stay(attempt, Watch(self.spawner, run.path, self.announcer.warn, fd))

    def _announce_attempt(self, number: int, previous: runs.Run | None) -> None:
        most, text = self.settings.max_restarts, f"start of attempt {number}"
        text += f" of at most {most} with {self.settings.agent}"
        if previous is not None and number > 1:
            text += f"; {previous.run_id} ended without {tasks.DONE}"
        self.announcer.post("INFO", text)

    def _request(
        self,
        who: tuple[str, dict[str, object], str | None],
        attempt: Attempt,
        number: int,
        previous: runs.Run | None,
    ) -> runner.Request:
        settings, task = self.settings, self.task
        type_name, options, executable = who
        is_first = previous is None and not self.record.fields.get("reopened")
        before = b"" if is_first else task_preamble.RESTART.encode() + b"\n\n"
        request = runner.Request(
            agent=settings.agent,
            type=type_name,
            options=options,
            executable=executable,
            cwd=settings.cwd,
            prompt=before + settings.prompt.strip() + b"\n",
            project=task.project,
            task=task.task,
            task_folder=task.path,
            parent=settings.parent,
            previous=previous.run_id if previous else "",
            bus=task.bus,
            config=self.config.path,
            timeout=settings.run_timeout,
            idle_timeout=settings.idle_timeout,
            model=settings.model,
            env=settings.env,
            attempt=number,
            token=attempt["token"],
            final=False,  # that no further one follows is said by the loop
        )
        if settings.resume_session and previous is not None and not self._new_session:
            sessions.go_on_with(request, previous)
        return request

    def _previous(self) -> runs.Run | None:
        """The last attempt that has a record; in a folder without any of ours the newest run.

        None follows one that was never started: no agent has seen the task in it.
        """
        names = [str(attempt.get("run")) for attempt in self.record.attempts]
        for name in reversed(names or runs.names_in(self.task.runs_dir)):
            run = runs.read(os.path.join(self.task.runs_dir, name))
            never_began = run.text("error_summary") == runs.NEVER_STARTED
            is_attempt = self.record.attempts or not run.text("parent_run_id")
            if run.record and is_attempt and not never_began:
                return run
        return None

    def _stay(self, attempt: Attempt, watch: Watch, is_past: bool = False) -> bool:
        """Stay with a run until it has ended; False where its agent never began.

        One that `is_past` had ended before this loop began: whoever started
        this one knows why, and wants it to go on.
        """
        self._watch = watch
        is_due = watch.fd < 0
        try:
            while (found := watch.look() if is_due else None) is None:
                is_due = self._poll(watch.patience(), watch) or watch.fd < 0
                if self._end is not None:
                    watch.stop()
        finally:
            self._watch = None
            watch.close()
        faults.point("loop-run-ended")
        return self._settle(attempt, *found, is_past)

    def _settle(self, attempt: Attempt, run: runs.Run, now: runs.State, is_past: bool) -> bool:
        """Note how an attempt ended, and what follows from that; False for one that never began."""
        if now.reason == runs.NEVER_STARTED and self._misfires < MISFIRES:
            self._misfires += 1
            self._forget(attempt)
            self._save()
            self.announcer.warn(f"{run.run_id} was not begun: {now.reason}")
            if self._end is not None:
                raise self._end
            self._pause(self.settings.restart_delay)
            return False
        self._misfires = 0
        if now.status == runs.UNKNOWN:  # it may well run elsewhere: a person has to look
            cure = f"if it is certain that it does not run, remove {redact.one_line(run.path)}"
            raise Ended(loop_record.FAILED, EXIT_FAILED, f"{run.run_id}: {now.reason}; {cure}")
        is_good = now.status == runs.COMPLETED
        attempt["ended"] = run.text("end_time") or ids.rfc3339()
        attempt["exit_code"] = run.record.get("exit_code", -1)
        attempt["result"] = "done" if is_good else "failed"
        if not is_good:
            attempt["why"] = redact.one_line(now.reason or "failed")
        if not is_good and run.text("error_class") == quota.ERROR_CLASS:
            attempt["result"] = "quota"
        self._save()
        faults.point("loop-settled")
        self.announcer.report_end(run, attempt, now)
        self._judge(run, now, is_past)
        return True

    def _judge(self, run: runs.Run, now: runs.State, is_past: bool) -> None:
        """Whether another attempt may follow, and after which pause."""
        is_done = tasks.is_done(self.task)
        if self._end is not None and not (is_done and self._end.code == EXIT_TIMEOUT):
            raise self._end
        self._end = None
        if is_done:
            return
        is_good = now.status == runs.COMPLETED
        if run.record.get("stopped") is True and not is_past:
            why = f"{run.run_id} was {now.reason or 'stopped'}; start run-task again to go on"
            raise Ended(loop_record.STOPPED, EXIT_INTERRUPTED, why)
        error_class = "" if is_good else run.text("error_class")
        if retries.is_futile(error_class) and not is_past:
            raise Ended(loop_record.FAILED, EXIT_FAILED, now.reason)
        self._new_session = error_class == "no-session"
        self._overloads = self._overloads + 1 if error_class == retries.OVERLOAD else 0
        self._pause_seconds = self.settings.restart_delay
        if self._overloads:
            back_off = retries.pause_seconds(retries.OVERLOAD, self._overloads)
            self._pause_seconds = max(self._pause_seconds, back_off)
        if error_class == quota.ERROR_CLASS:
            reset = quota.seconds_of(run.text("reset_time"))
            self._quota_until = quota.next_try(reset, time.time())
        elif not is_good:
            number, code = self._count(), run.text("exit_code")
            where = f"(exit {code}, {run.run_id})"
            self.announcer.post("WARNING", f"attempt {number} failed: {now.reason} {where}")

    def _why_again(self) -> str:
        last = self.record.attempts[-1] if self.record.attempts else {}
        reason = last.get("why") or f"it ended without {tasks.DONE}"
        return f"attempt {self._count()}: {reason}"

    # -- the end ----------------------------------------------------------------

    def _await_children(self) -> None:
        """Wait for the child runs of a task that is done, within bounds; none is stopped."""
        limit = time.monotonic() + self.settings.child_wait
        is_told = False
        while living := self._family.children():
            self._warn_of_unreadable()
            names = ", ".join(run.run_id for run in living)
            if time.monotonic() >= limit:
                spent = f"{self.settings.child_wait:g} s"
                text = f"{len(living)} child runs still live after {spent}, not waited for: {names}"
                self.announcer.post("WARNING", text)
                return
            if not is_told:
                is_told = True
                self.announcer.post("INFO", f"done; waiting for {len(living)} child runs: {names}")
            left = limit - time.monotonic()
            self._note(loop_record.CHILDREN, f"waiting for child runs: {names}", left)
            self._pause(min(CHILD_POLL_SECONDS, left), is_done=True)
        self._warn_of_unreadable()

    def _warn_of_unreadable(self) -> None:
        names = [name for name in self._family.unreadable if name not in self._warned]
        if names and not self._warned:
            self.announcer.post(
                "WARNING", f"cannot tell whether these runs live: {', '.join(names)}"
            )
        self._warned.update(names)

    def _complete(self) -> int:
        """Say once that the task is done, and note it."""
        made = len(self.record.attempts)
        self.announcer.post_once(
            "INFO", f"completed: {tasks.DONE} after {made} runs of {self.settings.agent}"
        )
        faults.point("loop-completed")
        try:
            told = propagation.propagate(self.task)
            faults.point("loop-propagated")
            if told.is_new:
                text = f"completion told to the project as {told.msg_id}; key {told.key}"
                self.announcer.post("FACT", text)
            else:
                self.announcer.post_once(
                    "INFO", f"the project knows of the completion by {told.msg_id}"
                )
        except (UserError, OSError) as error:
            self.announcer.post(
                "ERROR", f"the project could not be told of the completion: {error}"
            )
        self._finish(loop_record.DONE, EXIT_OK, "")
        if not self.announcer.has_events:
            self.announcer.tell(f"task {self.task.task} is done")
        return EXIT_OK

    def _close(self, end: Ended) -> int:
        why = redact.one_line(end.why)
        if end.stop_runs:
            for problem in children.stop_all(self.task.runs_dir):
                self.announcer.warn(problem)
        if end.state == loop_record.FAILED:
            last = self.record.attempts[-1] if self.record.attempts else {}
            head = f"ERROR task={self.task.task} agent={self.settings.agent}"
            head += f" exit={last.get('exit_code', -1)} run={last.get('run', 'none')}"
            self.announcer.post_once("ERROR", f"{head}: {why}")
        else:
            self.announcer.post("INFO", f"the loop ends: {why}")
        faults.point("loop-declared")
        self._finish(end.state, end.code, why)
        if not self.announcer.has_events:  # else the result was the last event
            self.announcer.tell(f"task {self.task.task} {end.state}: {why}")
        return end.code

    def _finish(self, state: str, code: int, why: str) -> None:
        fields = self.record.fields
        # First: killed in between, it goes on with a task that has not ended, and says it again.
        if self.announcer.has_events:
            self.announcer.emit(
                "result", why or f"task {self.task.task} is done", **self._result(state, code, why)
            )
        fields.update(state=state, why=why, ended=ids.rfc3339(), exit_code=code)
        for key in ("until", "monotonic_start", "boot_id"):
            fields.pop(key, None)
        self._save()
        try:
            # Tools of the original would count it among the runs.
            os.rmdir(os.path.join(self.task.runs_dir, runs.ACTIVE))
        except OSError:
            pass  # a run of the task lives

    # -- waiting ----------------------------------------------------------------

    def _pause(self, seconds: float, *, is_done: bool = False) -> None:
        """Wait so long; raises Ended when a signal comes, or the loop's time has run out."""
        limit = time.monotonic() + seconds
        while True:
            left = limit - time.monotonic()
            self._poll(max(0.0, left), is_done=is_done)
            if self._end is not None:
                raise self._end
            if left <= 0:
                return

    def _poll(self, seconds: float, watch: Watch | None = None, *, is_done: bool = False) -> bool:
        """Sleep until a signal comes, or the run's supervisor is done: then True."""
        if watch is not None and watch.fd >= 0:
            self._poller.register(watch.fd, select.POLLIN | select.POLLHUP)
        left = self._deadline - time.monotonic()
        is_bound = not is_done and self._end is None
        bounded = min(seconds, max(0.0, left)) if is_bound else seconds
        bounded = self.announcer.patience(bounded)
        try:
            ready = self._poller.poll(bounded * 1000)
        finally:
            if watch is not None and watch.fd >= 0:
                self._poller.unregister(watch.fd)
        for number in self._signals.take():
            self._on_signal(number)
        if left <= 0 and is_bound and self._end is None:
            spent = f"timed out after {self.settings.timeout:g} s in all; allow more with --timeout"
            self._ask(Ended(loop_record.FAILED, EXIT_TIMEOUT, spent, stop_runs=True))
        return watch is not None and any(fd == watch.fd for fd, _ in ready)

    def _on_signal(self, number: int) -> None:
        name = procs.SIGNAL_NAMES.get(number, str(number))
        code = EXIT_SIGNAL + number
        why = f"stopped by {name}; start run-task again to go on"
        self._ask(Ended(loop_record.STOPPED, code, why, stop_runs=True))

    def _ask(self, end: Ended) -> None:
        """End the loop as soon as the run under way has been stopped."""
        is_again = self._end is not None
        self._end = self._end or end
        if self._watch is not None:
            self.announcer.tell(f"stopping {self._watch.run_id}: {redact.one_line(end.why)}")
            self._watch.stop(once_more=is_again)

    # -- telling ----------------------------------------------------------------

    def _note(self, state: str, why: str, seconds: float = 0.0) -> None:
        """Note what the loop waits for, and until when."""
        fields = self.record.fields
        is_same = fields.get("state") == state and fields.get("why") == redact.one_line(why)
        if is_same:
            return
        fields.update(state=state, why=redact.one_line(why))
        fields.pop("until", None)
        if seconds:
            fields["until"] = ids.rfc3339(time.time_ns() + int(seconds * 1e9))
        self.announcer.emit("waiting", why, state=state, until=fields.get("until"))
        self._save()

    def _save(self) -> None:
        """Write the record down; on a full disk it is written with what comes next."""
        try:
            self.record.save()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.announcer.warn(f"{self.task.file(tasks.LOOP)} cannot be written: {error.strerror}")

    def _result(self, state: str, code: int, why: str) -> dict[str, object]:
        """How the loop has ended: the fields of its last event."""
        attempts = [attempt for attempt in self.record.attempts if attempt.get("run")]
        found: dict[str, object] = {"status": state, "exit_code": code, "why": why or None}
        found.update(
            agent=self.settings.agent, attempts=self._count(), total=self.announcer.total()
        )
        last = None
        if attempts:
            last = runs.read(os.path.join(self.task.runs_dir, str(attempts[-1]["run"])))
        found["run"] = last.run_id if last else None
        if state == loop_record.DONE:
            found["answer"] = _answer(last) or f"Task {self.task.task} is done."
        elif code in ERROR_CLASSES:
            found["error_class"] = ERROR_CLASSES[code]
        elif state == loop_record.FAILED:
            # Of which class its attempts failed says whether it is of use to try again.
            found["error_class"] = (last.text("error_class") if last else "") or "failed"
        if code == EXIT_QUOTA and last is not None:
            found["reset_time"] = last.record.get("reset_time")
        return found


def _answer(run: runs.Run | None) -> str:
    """The answer of a run that has ended; "" for none."""
    try:
        return run.read_text(runs.OUTPUT, MAX_ANSWER_BYTES).strip() if run is not None else ""
    except OSError:  # an agent may have put anything in its place
        return ""
