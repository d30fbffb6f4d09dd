"""What stays with a run: follows its output, holds its limits, stops it, records its end.

The run belongs to whoever holds the flock on its `.lock`.  That is the
process that started it, or, when that was killed, one that adopts the run
(lib/recovery.py): the agent writes into files and its guard leaves the exit
code in a file, so an adopter finds everything that a supervisor would have
seen.  A run whose processes are all gone is repaired: the same ending, from
the same files.

The order of the ending lets it be cut off anywhere: answer and transcript
first, then the record by rename, then the bus, then the marks (`pid.txt`,
`.lock`, the one in `.active`) that say there is something left to do.
"""

from __future__ import annotations

import errno
import os
import time

from lib import agents, faults, files, ids, judgement, notices, output, procs, redact, runs, wakeup
from lib.agents import base
from lib.errors import EXIT_FAILED, EXIT_SIGNAL, EXIT_TIMEOUT, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Callable

    from lib import timing, transcript
    from lib.agents.base import Reader

STOP_GRACE_SECONDS = 30.0
LOOP_GRACE_SECONDS = 5.0  # more, for a loop to record what it has stopped
OPEN_TOOL_FACTOR = 4  # how much longer an agent may be silent while a tool of its runs
SILENT_SECONDS = 300.0  # of silence that are told of
SILENT_SHARE = 3  # of the idle timeout, if that is less
STALL_SECONDS = 30.0  # between two looks at an agent: this process, or the machine, was stopped
USAGE_SECONDS = 5.0  # between two notes of the tokens used so far
TICK_SECONDS = (0.05, 0.25)
# In the command line of what becomes a child run's supervisor, or a child task's loop.
CHILD_SCRIPTS = ("run-agent.py", "run-task")
CHILD_START_SECONDS = 2.0  # in which it does that
FORK_SECONDS = 0.3  # in which a process that was forked to execute another has done so
CHUNK_BYTES = 1 << 20
EXIT_NOT_EXECUTED = 126  # from here on an exit code is the shell's, or a signal
_FULL_DISK_SECONDS = 10.0


def stop_grace() -> float:
    """Seconds between SIGTERM and SIGKILL ($CONDUCTOR_STOP_GRACE, 30)."""
    try:
        return max(0.0, float(os.environ["CONDUCTOR_STOP_GRACE"]))
    except (KeyError, ValueError):
        return STOP_GRACE_SECONDS


def soft_mark(idle_timeout: float) -> float:
    """Seconds of silence from which on it is told of; `idle_timeout` 0 = none."""
    return min(SILENT_SECONDS, idle_timeout / SILENT_SHARE) if idle_timeout else SILENT_SECONDS


class Supervisor:
    """Holds one run until it has ended and everything about it is on disk."""

    def __init__(
        self,
        run: runs.Run,
        lock: int,
        reader: Reader | None = None,
        *,
        stop_run: Callable[[str], object],
        on_text: Callable[[str], None] | None = None,
        detached: bool = False,
    ) -> None:
        self.run = run
        self.lock = lock
        self.reader = reader or base.TextReader()
        self._stop_run = stop_run  # ends a child run that nobody else will, by its folder
        self.on_text = on_text
        self.detached = detached
        self.adopted = False  # whether another process held the run before
        self.guard = 0  # the guard's pid while it is this process's child and not reaped
        self.guard_status: int | None = None  # its wait status
        self.agent_status: int | None = None  # of an agent that outlived its guard and came to us
        self.pipe = -1  # tells the agent's pid, and the guard's end
        self.word = -1  # lets the agent start
        self.start_again: Callable[[], bool] | None = None  # asked once, of one that is too old
        self.subreaper = False  # and has been since before the agent began
        self._not_ours: set[int] = set()  # children that this process had before
        self.stop_reason = ""
        self.stop_code = 0
        self.stop_class = ""  # of the failure that it is, where the run's limits stopped it
        self.kill_at: float | None = None
        self.killed = False
        self._signals: wakeup.Wakeup | None = None
        self._stdout = self._stderr = self._transcript = -1
        self._redaction = redact.Stream()
        self._shortener: transcript.Shortener | None = None  # while the files are open
        self._sizes = (0, 0)
        self._usage: tuple[object, ...] = ()  # as it was last noted
        self._next_usage = 0.0  # monotonic
        self._timing: timing.Notes | None = None  # while this process watches the agent
        self._ended = 0.0  # monotonic
        self._last_growth = self._started = self._looked = time.monotonic()

    # -- starting ---------------------------------------------------------

    def catch_signals(self) -> None:
        """From here on a signal does not end this process: it stops the run."""
        ignored = (wakeup.SIGHUP,) if self.detached else ()
        self._signals = wakeup.Wakeup((wakeup.SIGINT, wakeup.SIGTERM, wakeup.SIGHUP), ignored)
        # Whoever started this process may have ignored it, which outlives an
        # exec; the kernel would then reap the guard, and nobody learn its status.
        procs.keep_statuses()

    def spare_children(self) -> None:
        """Note the children that this process has before it starts any: a shell's that became it."""
        if procs.reap() is not None:
            me = os.getpid()
            self._not_ours = {row.pid for row in procs.table().values() if row.ppid == me}

    def prepare(self) -> None:
        """What must be so before the agent starts, done while its guard does."""
        self.subreaper = procs.become_subreaper()
        self._open_files()

    def take_pid(self) -> int:
        """The pid that the agent will have, recorded; 0 when it could not even begin."""
        text = self._read_pid()
        pid = int(text) if text.endswith(b"\n") else 0
        pids: runs.Record = {
            "pid": pid or self.guard,
            "pgid": self.guard,
            "agent_start": procs.start_time(pid) if pid else "",
            "guard_start": procs.start_time(self.guard),
        }
        faults.point("run-pid-known")
        try:
            runs.extend_record(self.run, pids)
        except OSError as error:
            notices.log(self.run, f"the record could not be written: {error}")
        notices.try_note(self.run, "PID", self.run.text("pid"))
        return pid

    def _read_pid(self) -> bytes:
        """What the guard tells; it may take its time to enter the working folder (NFS)."""
        import select

        assert self._signals is not None
        poller = select.poll()
        poller.register(self.pipe, select.POLLIN | select.POLLHUP)
        poller.register(self._signals.fd, select.POLLIN)
        text = b""
        while not text.endswith(b"\n"):
            if any(fd == self.pipe for fd, _ in poller.poll(TICK_SECONDS[1] * 1000)):
                part = os.read(self.pipe, 64)
                if not part:
                    break
                text += part
            else:
                self._answer_signals(self._signals.take())
                self._hold_limits()
        return text

    def let_start(self) -> None:
        """Have the guard start the agent, unless the run is to be stopped already."""
        assert self._signals is not None
        self._answer_signals(self._signals.take())
        try:
            if not self.stop_reason:
                os.write(self.word, b"\n")
        except BrokenPipeError:
            pass  # it has ended: the working folder was not to be entered, say
        os.close(self.word)
        self.word = -1
        faults.point("run-started")

    def _save(self) -> None:
        """Put on disk what is known so far; a full disk must not end the watch over an agent."""
        try:
            runs.write_record(self.run, durable=False)
        except OSError as error:
            notices.log(self.run, f"the record could not be written: {error}")

    def fail(self, reason: str, error_class: str) -> None:
        """Record a run whose agent could not be started."""
        record = self.run.record
        record["error_class"] = error_class
        record["pid"] = record["pgid"] = os.getpid()
        try:
            self._open_files()
            output.write(self.run, None)
            self._record_end(None, runs.FAILED, reason)
        except OSError:
            runs.discard(self.run)  # the disk is what failed, and no agent has been in there
        finally:
            self._close_files()

    def finish_lost(self) -> None:
        """Record the end of a run of which no process lives."""
        try:
            self._open_files()
            if runs.was_started(self.run):
                self._finish()
            else:
                output.write(self.run, None)
                self.run.record["error_class"] = "lost"
                self._record_end(None, runs.FAILED, runs.NEVER_STARTED)
        finally:
            self._close_files()

    # -- the run ----------------------------------------------------------

    def run_to_end(self) -> int:
        """Stay with the run to its end; return what `run-agent.py` exits with."""
        try:
            if self._signals is None:
                self.catch_signals()
            if self.guard:
                notices.announce(self.run)
            else:
                self._open_files()
                self._announce_adopted()
            self._watch()
            if self._starts_again():
                self._watch()
            return self._finish()
        finally:
            self._close_files()

    def _announce_adopted(self) -> None:
        """Be found by who wants to stop the run; post RUN_START if nobody has come to that."""
        self._save()
        notices.note_once(self.run, "PID", self.run.text("pid"))
        if not notices.was_announced(self.run, "RUN_START"):
            notices.announce(self.run)

    def _starts_again(self) -> bool:
        """Whether the agent, which ended at once and without a word, has begun anew."""
        start_again, self.start_again = self.start_again, None
        if start_again is None or self.stop_reason or os.fstat(self._stdout).st_size:
            return False
        if not 0 < (self._exit_code() or 0) < EXIT_NOT_EXECUTED:
            return False
        if not self.run.record.get("keep_background"):
            self._end_leftovers()
        return start_again()

    def begin_again(self, reader: Reader) -> None:
        """Forget the agent that has ended: the guard of another one is there."""
        self.reader = reader
        self.guard_status = self.agent_status = None
        for fd in (self._stdout, self._stderr, self._transcript):
            os.close(fd)
        self._stdout = self._stderr = self._transcript = -1
        self._redaction = redact.Stream()
        self._sizes = (0, 0)
        self._last_growth = time.monotonic()
        self._open_files()

    def _open_files(self) -> None:
        if self._stdout >= 0:
            return
        from lib import transcript  # imported while the guard starts

        self._shortener = transcript.Shortener()
        self._stdout = self._open(runs.STDOUT, os.O_RDONLY)
        self._stderr = self._open(runs.STDERR, os.O_RDONLY)
        # Rendered anew from the first byte: what an earlier supervisor had
        # not yet written cannot be known, and the raw output is all there.
        self._transcript = self._open(runs.TRANSCRIPT, os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
        if "too_old" in self.run.record:
            self._show(f"· {self.run.text('too_old')}\n\n")

    def _open(self, name: str, flags: int) -> int:
        """One of the run's files; what an agent put in its place is moved aside."""
        path = self.run.file(name)
        try:
            return files.open_regular(path, flags | os.O_CREAT)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EACCES):
                raise
        os.rename(path, f"{path}.{time.time_ns()}")
        return files.open_regular(path, flags | os.O_CREAT)

    def _close_files(self) -> None:
        ours = (self._stdout, self._stderr, self._transcript, self.pipe, self.word, self.lock)
        for fd in ours:
            if fd >= 0:
                os.close(fd)
        self._stdout = self._stderr = self._transcript = self.pipe = self.word = self.lock = -1
        if self._signals is not None:
            self._signals.close()
            self._signals = None

    def _watch(self) -> None:
        import select  # here, and the bus below: imported while the agent is at work

        from lib import timing

        assert self._signals is not None
        self._timing = timing.Notes(self._began())
        poller = select.poll()
        poller.register(self._signals.fd, select.POLLIN)
        if self.pipe >= 0:
            poller.register(self.pipe, select.POLLIN | select.POLLHUP)
        tick = TICK_SECONDS[0]
        while not self._has_ended():
            ready = poller.poll(tick * 1000)
            if any(fd == self.pipe for fd, _ in ready):
                self._guard_ended(poller)
            grew = self._pump()
            tick = TICK_SECONDS[0] if grew else min(TICK_SECONDS[1], tick * 1.5)
            self._reap_orphans()
            self._answer_signals(self._signals.take())
            self._hold_limits()
            self._note_usage()
        self._ended = time.monotonic()

    def _guard_ended(self, poller: select.poll) -> None:
        """The guard's end of the pipe is closed: it ended, or was killed."""
        poller.unregister(self.pipe)
        os.close(self.pipe)
        self.pipe = -1
        if self.guard:
            _, self.guard_status = os.waitpid(self.guard, 0)
            self.guard = 0

    def _reap_orphans(self) -> None:
        """Reap what came to this process as the run's subreaper; keep the agent's own status."""
        if not (self.guard or self.subreaper):
            return  # a repair in somebody else's process: its children, a plan's checks, are not ours
        while (ended := procs.reap()) is not None and ended[0]:
            pid, status = ended
            if pid == self.guard:
                self.guard, self.guard_status = 0, status
            elif pid == self.run.number("pid"):
                self.agent_status = status

    def _has_ended(self) -> bool:
        if self.guard or self.pipe >= 0:
            return False
        if self.guard_status is not None and os.WIFEXITED(self.guard_status):
            return True  # the guard never ends before the agent, unless it is killed
        return not (runs.agent_lives(self.run) or runs.guard_lives(self.run))

    def _pump(self) -> bool:
        """Render what the agent has written since the last call; True when it wrote anything."""
        out, err = os.fstat(self._stdout).st_size, os.fstat(self._stderr).st_size
        grew = (out, err) != self._sizes
        self._sizes = (out, err)
        if grew:
            self._last_growth = time.monotonic()
            if self._timing is not None:
                self._timing.note(self._last_growth, out, err)
            data = os.read(self._stdout, CHUNK_BYTES)
            had_session = self.reader.outcome.session_id
            self._show(self.reader.feed(data))
            if self.reader.outcome.session_id and not had_session:
                self._note_session()
            if len(data) == CHUNK_BYTES:
                self._sizes = (-1, -1)  # there is more: come back at once
        return grew

    def _show(self, text: str) -> None:
        self._write_transcript(self._redaction.feed(text))

    def _write_transcript(self, text: str, *, is_last: bool = False) -> None:
        if self._shortener is not None:
            text = self._shortener.feed(text) + (self._shortener.finish() if is_last else "")
        if not text:
            return
        data = text.encode("utf-8", "replace")
        try:
            files.write_all(self._transcript, data)
        except OSError:
            pass  # a full disk: the raw output is what counts, and the record says the rest
        try:
            if self.on_text is not None:
                self.on_text(text)
        except OSError:
            self.on_text = None  # nobody listens any more; the run goes on

    def _note_session(self) -> None:
        """Put the session into the record at once: a later attempt may want to resume it."""
        self._add_names()
        self._save()

    def _note_usage(self) -> None:
        """Put tokens and cost so far into the record, now and then, for whoever looks in."""
        outcome = self.reader.outcome
        usage = (outcome.input_tokens, outcome.output_tokens, outcome.cost_usd, outcome.turns)
        if usage != self._usage and time.monotonic() >= self._next_usage:
            self._usage, self._next_usage = usage, time.monotonic() + USAGE_SECONDS
            if any(usage):
                self._add_outcome()
                self._save()

    # -- limits and stopping ----------------------------------------------

    def _answer_signals(self, numbers: list[int]) -> None:
        for number in numbers:
            name = procs.SIGNAL_NAMES.get(number, str(number))
            if self.stop_reason and number == wakeup.SIGHUP:
                continue  # a closing terminal sends it twice: by its shell, and by the kernel
            if self.stop_reason:
                self.kill_at = time.monotonic()  # asked a second time: no more grace
                self._signal_children(0, with_looped=True)
            else:
                self.stop(f"stopped by {name}", EXIT_SIGNAL + number)

    def _hold_limits(self) -> None:
        now = time.monotonic()
        if now - self._looked > STALL_SECONDS:
            self._last_growth = now  # who was stopped for that long has heard nothing in it
        self._looked = now
        if self.kill_at is not None:
            if now >= self.kill_at:
                self._kill()
            return
        limit, idle = self._limit("timeout"), self._limit("idle_timeout")
        if limit and now - self._began() > limit:
            reason = (
                f"timed out after {_duration(limit)}; allow more with {self._option('timeout')}"
            )
            self.stop(f"{reason}, or make the task smaller", EXIT_TIMEOUT, "timeout")
            return
        mark = soft_mark(idle)
        if self.reader.outcome.open_tools > 0:
            idle, mark = idle * OPEN_TOOL_FACTOR, mark * OPEN_TOOL_FACTOR
        silent = now - self._last_growth
        if (silent > mark) != ("silent_since" in self.run.record):
            self._mark_silence(silent if silent > mark else 0.0, idle)
        if idle and silent > idle:
            reason = f"silent for {_duration(idle)}: idle timeout; see {runs.STDERR}"
            more = self._option("idle_timeout")
            self.stop(f"{reason}, or allow more with {more}", EXIT_TIMEOUT, "silence")

    def _option(self, key: str) -> str:
        """Where a limit is set: a run of a plan has it from there."""
        is_planned = self.run.text("attempt_token") and not runs.task_folder_of(self.run)
        return f"{key}: in the plan" if is_planned else f"--{key.replace('_', '-')}"

    def _mark_silence(self, seconds: float, limit: float) -> None:
        """Note since when the agent has said nothing, and tell of it; 0 seconds: it speaks again."""
        record = self.run.record
        if not seconds:
            del record["silent_since"]
            self._save()
            return
        record["silent_since"] = ids.rfc3339(time.time_ns() - int(seconds * 1e9))
        self._save()
        what = f"task={record.get('task_id')} agent={self.run.agent} run={self.run.run_id}"
        then = f"stopped after {_duration(limit)}" if limit else "no limit is set; stop-run ends it"
        spell = _duration(int(seconds) if seconds >= 10 else round(seconds, 1))
        notices.post(self.run, "WARNING", f"{what}: silent for {spell}; {then}")

    def _limit(self, key: str) -> float:
        value = self.run.record.get(key)
        return float(value) if isinstance(value, int | float) else 0.0

    def _began(self) -> float:
        """The run's start on this machine's monotonic clock, which stands still in sleep."""
        began = self._limit("monotonic_start")
        same_boot = self.run.text("boot_id") == procs.machine()["boot_id"]
        return began if began and same_boot and began <= self._started else self._started

    def stop(self, reason: str, code: int, error_class: str = "") -> None:
        """Begin to stop the run: SIGTERM to its group now, SIGKILL to its tree after the grace."""
        self.stop_reason, self.stop_code, self.stop_class = reason, code, error_class
        self.kill_at = time.monotonic() + stop_grace()
        if self._is_loop():
            self.kill_at += LOOP_GRACE_SECONDS
        if self.guard or runs.guard_lives(self.run):
            group = self._group()
            self._signal_children(group)
            procs.send_group(group, procs.SIGTERM)
            procs.send_group(group, procs.SIGCONT)  # a stopped process takes it only then
        else:
            self._signal_children(0)
            for process in self._members(set()):
                procs.send(process, procs.SIGTERM)
                procs.send(process, procs.SIGCONT)
        faults.point("run-stopping")

    def _is_loop(self) -> bool:
        """Whether the agent of this run is the loop of a plan's task."""
        return self.run.record.get("includes_children") is True

    def _signal_children(self, group: int, with_looped: bool = False) -> None:
        """Have the supervisors of child runs stop these, but for those that the group's signal
        reaches, and the attempts of a loop at work, which stops them itself: a second one would
        take their agents' grace away."""
        for pid, start, path in runs.children(self.run):
            process = procs.look_up(pid)
            if process is None or process.start != start or process.pgid == group:
                continue
            if with_looped or not _is_looped(path):
                signal_supervisor(path, process, procs.SIGTERM)

    def _stop_lost_children(self) -> None:
        """Stop the child runs that have lost their supervisors, or the loop that would stop them."""
        left = self._left_by_loop()
        for path in dict.fromkeys([*left, *(path for _, _, path in runs.children(self.run))]):
            child = runs.read(path)
            is_ours = child.text("parent_run_id") == self.run.run_id
            holder = runs.state(child).holder
            is_alone = path in left or (_is_attempt(child) and not _is_looped(path))
            if (holder and is_alone) or (holder == "agent" and is_ours):
                try:
                    self._stop_run(path)
                except (UserError, OSError) as error:
                    notices.log(self.run, f"the child run {path} could not be stopped: {error}")

    def _left_by_loop(self) -> list[str]:
        """What lives of a plan's looped task whose loop, the agent of this run, is gone.

        An earlier run of the plan may have started it: it is no child of this one.
        """
        if not self._is_loop():
            return []
        top, record = os.path.dirname(self.run.path), self.run.record
        task = os.path.join(top, str(record.get("project_id")), str(record.get("task_id")))
        if _has_loop(task):
            return []  # somebody else's, who has it by now
        folder = os.path.join(task, "runs")
        return [os.path.join(folder, name) for name in runs.marked(folder)]

    def _kill(self) -> None:
        """SIGKILL to everything of the run but its guard, which is left to say how it ended."""
        self.kill_at = time.monotonic() + 1.0  # until nothing is left
        guard = self._group()
        spare = {guard} if not self.killed else set()
        self.killed = True
        for process in self._members(spare):
            procs.send(process, procs.SIGKILL)

    def _members(self, spared: set[int]) -> list[procs.Process]:
        spared = spared | self._not_ours | runs.child_supervisors(self.run)
        group = self._group() if self._group_is_ours() else 0
        return procs.members(self.run.run_id, group, spared, own_children=self.subreaper)

    def _group(self) -> int:
        """The group of guard and agent; before their pids are recorded, too."""
        return self.guard or self.run.number("pgid")

    def _group_is_ours(self) -> bool:
        """Whether the group number still means this run: its leader was seen by this process,
        or lives, or the agent in it does."""
        if self.guard or runs.guard_lives(self.run) or runs.agent_lives(self.run):
            return True
        # The kernel gives a number away again when no process has it as its
        # own, its group's or its session's; then somebody else is its leader.
        return self.guard_status is not None and procs.look_up(self.run.number("pgid")) is None

    # -- the end ----------------------------------------------------------

    def _finish(self) -> int:
        code = self._exit_code()
        if self.stop_reason:
            self._stop_lost_children()
        if not self.run.record.get("keep_background"):
            self._end_leftovers()
        faults.point("run-agent-ended")
        if not os.path.isdir(self.run.path):  # an agent can remove its own folder
            os.makedirs(self.run.path, runs.MODE, exist_ok=True)
        self._drain_output()
        self._write_timing()
        outcome, understood = self.reader.outcome, self.reader.understood
        good_codes = runs.success_codes(self.run)
        status = judgement.judge(code, outcome, understood, self.stop_reason, good_codes)
        self._add_outcome()
        self._estimate_cost()
        if code is None and status == runs.COMPLETED:
            self.run.record["recovered"] = True
        reason = self._note_failure(code) if status == runs.FAILED else ""
        self._write_when_possible(code, status, reason)
        if status == runs.COMPLETED:
            return 0
        if self.stop_reason:
            return self.stop_code
        return code or EXIT_FAILED

    def _note_failure(self, code: int | None) -> str:
        """Put into the record of which class the failure is; return the reason."""
        record = self.run.record
        if self.stop_reason and self.stop_code > EXIT_SIGNAL:
            record["stopped"] = True  # by a person, or for one: no failure of its own
            return self.stop_reason
        if self.stop_reason:
            record["error_class"] = self.stop_class
            return self.stop_reason
        if code is None:
            record["error_class"] = "lost"
            # It may have been taken over while its guard was giving up.
            return runs.SUPERVISOR_LOST if runs.was_started(self.run) else runs.NEVER_STARTED
        failure = judgement.failure_of(self.run, code, self.reader.outcome)
        if self.reader.outcome.stopped:
            record["stopped"] = True
            return failure.reason
        record["error_class"] = failure.kind
        if failure.reset:
            record["reset_time"] = ids.rfc3339_of(failure.reset)
        return failure.reason

    def _write_when_possible(self, code: int | None, status: str, reason: str) -> None:
        """Write answer and record; on a full disk try for a while, and leave the rest to repair."""
        limit = time.monotonic() + _FULL_DISK_SECONDS
        while True:
            try:
                output.write(self.run, self.reader.outcome.final_text)
                faults.point("run-output-written")
                self._record_end(code, status, reason)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                is_own = self.guard_status is not None  # a repair makes nobody wait
                if full and is_own and time.monotonic() < limit:
                    time.sleep(0.5)
                    continue
                if not is_own:
                    raise  # this is a repair: whoever began it tells
                text = f"its end cannot be recorded: {error}; mend that, then run any command again"
                self.run.record["error_summary"] = redact.one_line(text)
                notices.log(self.run, text)
            return

    def _exit_code(self) -> int | None:
        """The agent's exit code by the best witness; None when nobody can know it."""
        self._reap_orphans()
        code = runs.exit_code(self.run)
        if code is not None:
            return code
        if self.agent_status is not None:
            return procs.exit_code(self.agent_status)
        if self.guard_status is not None and os.WIFEXITED(self.guard_status):
            return os.WEXITSTATUS(self.guard_status)
        return EXIT_SIGNAL + procs.SIGKILL if self.killed else None

    def _end_leftovers(self) -> None:
        """End what the agent left behind; child runs are not left behind."""
        # Whatever was orphaned came to this process: without children, it
        # need not look at the process table.
        if self.subreaper and procs.reap() is None:
            return
        if not self.stop_reason:
            young_until = time.monotonic() + FORK_SECONDS
            files.wait_for(lambda: self._has_settled(young_until), CHILD_START_SECONDS, 0.02)
        grace = 0.0 if self.killed else procs.LEFTOVER_GRACE_SECONDS
        procs.end_all(lambda: self._members(set()), grace)

    def _has_settled(self, young_until: float) -> bool:
        """False while a process of the run may still become the supervisor of a child run."""
        left = self._members(set())
        if left and time.monotonic() < young_until:
            return False
        lines = [procs.command_line(process.pid) for process in left]
        return not any(script in line for script in CHILD_SCRIPTS for line in lines)

    def _drain_output(self) -> None:
        # Not for as long as it grows: what the agent was allowed to leave
        # behind may write for ever.
        rest = os.fstat(self._stdout).st_size - os.lseek(self._stdout, 0, os.SEEK_CUR)
        while rest > 0 and (data := os.read(self._stdout, min(rest, CHUNK_BYTES))):
            rest -= len(data)
            self._show(self.reader.feed(data))
        self._show(self.reader.finish())
        self._write_transcript(self._redaction.finish(), is_last=True)

    def _write_timing(self) -> None:
        """Leave for a replay how the output grew; a run is no worse without it."""
        if self._timing is None:
            return  # this is a repair: nobody has seen it grow
        sizes = os.fstat(self._stdout).st_size, os.fstat(self._stderr).st_size
        text = self._timing.text(self._ended, *sizes)
        try:
            if text:
                files.replace_file(self.run.file(runs.TIMING), text.encode(), 0o600, durable=False)
        except OSError as error:
            notices.log(self.run, f"{runs.TIMING} could not be written: {error}")

    def _add_outcome(self) -> None:
        outcome, record = self.reader.outcome, self.run.record
        self._add_names()
        for key in ("input_tokens", "cached_tokens", "output_tokens", "cost_usd", "turns"):
            if getattr(outcome, key) is not None:
                record[key] = getattr(outcome, key)
        if outcome.cost_estimated and outcome.cost_usd is not None:
            record["cost_estimated"] = True
        if outcome.session_totals:
            record["session_totals"] = outcome.session_totals
        if self.reader.understood and self.reader.has_tools:
            record["tool_calls"] = outcome.tool_calls

    def _add_names(self) -> None:
        for key in ("model", "session_id"):
            if getattr(self.reader.outcome, key):
                self.run.record[key] = redact.text(getattr(self.reader.outcome, key))

    def _estimate_cost(self) -> None:
        """Put in what the tokens cost at list prices, where the agent told no cost."""
        record = self.run.record
        figures = ("input_tokens", "cached_tokens", "output_tokens")
        into, cached, out = (base.as_count(record.get(key)) for key in figures)
        if "cost_usd" in record or into is None or out is None:
            return
        from lib import prices

        if not self.run.text("model"):
            model = redact.text(_configured_model(self.run))
            record.update({"model": model} if model else {})
        usage = self.reader.outcome.usage_by_model
        usage = usage or {self.run.text("model"): (into, cached or 0, out)}
        cost = prices.estimate(usage, self.run.text("config"))
        if cost is not None:
            record.update(cost_usd=cost, cost_estimated=True)

    def _record_end(self, code: int | None, status: str, reason: str) -> None:
        record = self.run.record
        record.pop("silent_since", None)
        record["end_time"] = ids.rfc3339()
        record["exit_code"] = -1 if code is None else code
        record["status"] = status
        if reason:
            record["error_summary"] = redact.one_line(reason)
        runs.write_record(self.run)
        faults.point("run-ended")
        # Never noted before: that comes after a record with an end, and who finds one leaves it.
        notices.try_note(self.run, "EXIT_CODE", str(record["exit_code"]))
        notices.announce_end(self.run)
        faults.point("run-announced")
        clear_marks(self.run, self.adopted)


def _is_attempt(run: runs.Run) -> bool:
    """Whether the loop of a task has started the run."""
    return bool(runs.task_folder_of(run) and run.text("attempt_token"))


def _is_looped(path: str) -> bool:
    """Whether the run is an attempt of a loop that is at work, and stops it itself."""
    run = runs.read(path)
    return _is_attempt(run) and _has_loop(runs.task_folder_of(run))


def _has_loop(task_folder: str) -> bool:
    try:
        return files.is_locked(os.path.join(task_folder, runs.LOOP_LOCK))
    except OSError:  # an agent may have put anything in its place
        return False


def _configured_model(run: runs.Run) -> str:
    """The model that the settings of its agent name; "" for none, or where they have no place."""
    try:
        look_up = getattr(agents.load(run.text("agent")), "configured_model", None)
    except UserError:  # a repair by another version
        return ""
    folder = run.text("agent_home")
    return look_up(folder) if look_up is not None and folder else ""


def _duration(seconds: float) -> str:
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:g} min"
    return f"{seconds:g} s"


def clear_marks(run: runs.Run, had_others: bool) -> None:
    """Take away what says that the run has something left to do; what leads a repair to it is last.

    Where the run `had_others` before this process, these were killed, and may have been writing.
    """
    for name in (runs.PID, runs.EXIT_CODE):
        files.remove(run.file(name))
    if had_others:
        files.remove_temporaries(run.path)
    files.remove(run.file(runs.LOCK))
    faults.point("run-unlocked")
    runs.unmark(run)


# -- signals for supervisors ----------------------------------------------------


def supervisor_of(path: str) -> procs.Process | None:
    """The living supervisor that the record names now; a starting run names none yet."""
    record = runs.read(path)
    process = procs.look_up(record.number("supervisor_pid"))
    return process if process and process.start == record.text("supervisor_start") else None


def signal_supervisor(path: str, process: procs.Process, number: int) -> bool:
    """Signal the supervisor of a run that has not ended; False when it has.

    A supervisor may hold another run a moment later.  It goes on to that only
    with the folder of the last one locked for itself alone (`let_go`), and not
    at all while somebody is between this look at the record and his signal.
    """
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        try:
            # Refused while its supervisor lets go of it, which it does only after the
            # record has ended, or where an agent holds it: then nobody goes on to another.
            files.try_lock(folder, shared=True)
        except OSError:
            pass  # no locks on folders here: nobody can let go, either
        if runs.read(path).text("status") in runs.ENDED:
            return False
        sent = procs.send(process, number)
        procs.send(process, procs.SIGCONT)  # one that is stopped takes it only then
        return sent
    finally:
        os.close(folder)


def signal_named(path: str, number: int) -> bool:
    """Signal the supervisor that the record of a run names, if it is still that process."""
    process = supervisor_of(path)
    return process is not None and signal_supervisor(path, process, number)


def let_go(run: runs.Run) -> bool:
    """Whether the supervisor of this run, which has ended, can take another one.

    Not with children of the old one left, nor with a signal for it on its way.
    """
    if procs.reap() is not None:
        return False
    try:
        folder = os.open(run.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False  # gone: nobody can be asked
    try:
        return files.try_lock(folder)
    except OSError:
        return False
    finally:
        os.close(folder)
