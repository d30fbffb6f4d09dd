"""What stays with a run: follows its output, holds its limits, stops it, records its end.

The run belongs to whoever holds the flock on its `.lock`.  That is the
process that started it, or, when that was killed, one that adopts the run:
the agent writes into files and its guard leaves the exit code in a file, so
an adopter finds everything that a supervisor would have seen.  A run whose
processes are all gone is repaired: the same ending, from the same files.

The order of the ending lets it be cut off anywhere: answer and transcript
first, then the record by rename, then the bus, then the marks (`pid.txt`,
`.lock`) that say there is something left to do.
"""

from __future__ import annotations

import os
import select
import time

from lib import agents, bus, faults, files, ids, procs, redact, runs, wakeup
from lib.errors import EXIT_FAILED, EXIT_SIGNAL, EXIT_TIMEOUT, LockTimeoutError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.agents.base import Outcome, Reader

STOP_GRACE_SECONDS = 30.0
OPEN_TOOL_FACTOR = 4  # how much longer an agent may be silent while a tool of its runs
SUBREAPER_AFTER_SECONDS = 0.05  # not earlier: ctypes costs 4 ms, and most short runs leave nothing
TICK_SECONDS = (0.05, 0.25)
CHUNK_BYTES = 1 << 20
OUTPUT_LIMIT_BYTES = 16 << 20
STDERR_LINES = 50
LINE_LIMIT = 500
SIGNAL_NAMES = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 6: "SIGABRT", 9: "SIGKILL", 15: "SIGTERM"}


def stop_grace() -> float:
    """Seconds between SIGTERM and SIGKILL ($CONDUCTOR_STOP_GRACE, 30)."""
    try:
        return max(0.0, float(os.environ["CONDUCTOR_STOP_GRACE"]))
    except (KeyError, ValueError):
        return STOP_GRACE_SECONDS


class Supervisor:
    """Holds one run until it has ended and everything about it is on disk."""

    def __init__(
        self,
        run: runs.Run,
        lock: int,
        reader: Reader,
        *,
        on_text: Callable[[str], None] | None = None,
        detached: bool = False,
    ) -> None:
        self.run = run
        self.lock = lock
        self.reader = reader
        self.on_text = on_text
        self.detached = detached
        self.guard = 0  # the guard's pid while it is this process's child and not reaped
        self.guard_status: int | None = None  # its wait status
        self.agent_status: int | None = None  # of an agent that outlived its guard and came to us
        self.pipe = -1
        self.subreaper = False
        self.stop_reason = ""
        self.stop_code = 0
        self.kill_at: float | None = None
        self.killed = False
        self._stdout = -1
        self._stderr = -1
        self._transcript = -1
        self._redaction = redact.Stream()
        self._sizes = (0, 0)
        self._last_growth = self._started = time.monotonic()

    # -- starting ---------------------------------------------------------

    def take_pid(self, pipe: int) -> int:
        """The agent's pid, recorded; 0 when it could not even begin."""
        self.pipe = pipe
        text = b""
        while not text.endswith(b"\n"):
            part = os.read(pipe, 64)
            if not part:
                break
            text += part
        pid = int(text) if text.endswith(b"\n") else 0
        record = self.run.record
        record["pid"] = pid or self.guard
        record["pgid"] = self.guard
        record["agent_start"] = procs.start_time(pid) if pid else ""
        record["guard_start"] = procs.start_time(self.guard)
        faults.point("run-pid-known")
        runs.write_record(self.run)
        note(self.run, {"PID": str(record["pid"])})
        faults.point("run-started")
        return pid

    def fail(self, reason: str) -> None:
        """Record a run whose agent could not be started."""
        record = self.run.record
        record["pid"] = record["pgid"] = os.getpid()
        try:
            _write_output(self.run, None)
            self._record_end(None, runs.FAILED, reason)
        except OSError:
            pass  # the disk is what failed; the next command that acts repairs the rest

    # -- the run ----------------------------------------------------------

    def run_to_end(self) -> int:
        """Stay with the run to its end; return what `run-agent.py` exits with."""
        ignored = (wakeup.SIGHUP,) if self.detached else ()
        self._signals = wakeup.Wakeup((wakeup.SIGINT, wakeup.SIGTERM, wakeup.SIGHUP), ignored)
        try:
            self._open_files()
            announce(self.run)
            self._watch()
            return self._finish()
        finally:
            self._signals.close()
            self._close_files()

    def _open_files(self) -> None:
        self._stdout = os.open(self.run.file(runs.STDOUT), os.O_RDONLY | os.O_CLOEXEC)
        self._stderr = os.open(self.run.file(runs.STDERR), os.O_RDONLY | os.O_CLOEXEC)
        # Rendered anew from the first byte: what an earlier supervisor had
        # not yet written cannot be known, and the raw output is all there.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._transcript = os.open(self.run.file(runs.TRANSCRIPT), flags, 0o600)

    def _close_files(self) -> None:
        for fd in (self._stdout, self._stderr, self._transcript, self.pipe, self.lock):
            if fd >= 0:
                os.close(fd)
        self._stdout = self._stderr = self._transcript = self.pipe = self.lock = -1

    def _watch(self) -> None:
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
            self._answer_signals()
            self._hold_limits()
            if not self.subreaper and self._age() > SUBREAPER_AFTER_SECONDS:
                self.subreaper = procs.become_subreaper()

    def _age(self) -> float:
        return time.monotonic() - self._started

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

    def _write_transcript(self, text: str) -> None:
        if not text:
            return
        data = text.encode("utf-8", "replace")
        try:
            files.write_all(self._transcript, data)
        except OSError:
            pass  # a full disk: the raw output is what counts, and the record says the rest
        if self.on_text is not None:
            self.on_text(text)

    def _note_session(self) -> None:
        """Put the session into the record at once: a later attempt may want to resume it."""
        self.run.record["session_id"] = self.reader.outcome.session_id
        if self.reader.outcome.model:
            self.run.record["model"] = self.reader.outcome.model
        runs.write_record(self.run, durable=False)

    # -- limits and stopping ----------------------------------------------

    def _answer_signals(self) -> None:
        for number in self._signals.take():
            name = SIGNAL_NAMES.get(number, str(number))
            if self.stop_reason:
                self.kill_at = time.monotonic()  # asked a second time: no more grace
            else:
                self.stop(f"stopped by {name}", EXIT_SIGNAL + number)

    def _hold_limits(self) -> None:
        now = time.monotonic()
        if self.kill_at is not None:
            if now >= self.kill_at:
                self._kill()
            return
        limit, idle = self._limit("timeout"), self._limit("idle_timeout")
        if limit and now - self._began() > limit:
            reason = f"timed out after {_duration(limit)}; allow more with --timeout"
            self.stop(f"{reason}, or make the task smaller", EXIT_TIMEOUT)
            return
        if self.reader.outcome.open_tools > 0:
            idle *= OPEN_TOOL_FACTOR
        if idle and now - self._last_growth > idle:
            reason = f"silent for {_duration(idle)}: idle timeout; see {runs.STDERR}"
            self.stop(f"{reason}, or allow more with --idle-timeout", EXIT_TIMEOUT)

    def _limit(self, key: str) -> float:
        value = self.run.record.get(key)
        return float(value) if isinstance(value, int | float) else 0.0

    def _began(self) -> float:
        """The run's start on this machine's monotonic clock, which stands still in sleep."""
        began = self._limit("monotonic_start")
        same_boot = self.run.text("boot_id") == procs.machine()["boot_id"]
        return began if began and same_boot and began <= self._started else self._started

    def stop(self, reason: str, code: int) -> None:
        """Begin to stop the run: SIGTERM to its group now, SIGKILL to its tree after the grace."""
        self.stop_reason, self.stop_code = reason, code
        self.kill_at = time.monotonic() + stop_grace()
        for pid, start, _ in runs.children(self.run):
            process = procs.look_up(pid)
            if process is not None and process.start == start:
                procs.send(process, procs.SIGTERM)  # they stop their own agents
        if self.guard or runs.guard_lives(self.run):
            procs.send_group(self.run.number("pgid"), procs.SIGTERM)
        else:
            for process in self._members(set()):
                procs.send(process, procs.SIGTERM)

    def _kill(self) -> None:
        """SIGKILL to everything of the run but its guard, which is left to say how it ended."""
        self.kill_at = time.monotonic() + 1.0  # until nothing is left
        guard = self.run.number("pgid")
        spare = {guard} if not self.killed else set()
        self.killed = True
        for pid, start, _ in runs.children(self.run):
            _wait_gone(pid, start, stop_grace() + procs.LEFTOVER_GRACE_SECONDS)
        for process in self._members(spare):
            procs.send(process, procs.SIGKILL)

    def _members(self, spared: set[int]) -> list[procs.Process]:
        spared = spared | runs.child_supervisors(self.run)
        group = self.run.number("pgid") if self._group_is_ours() else 0
        return procs.members(self.run.run_id, group, spared, own_children=self.subreaper)

    def _group_is_ours(self) -> bool:
        """Whether the group number still means this run: its leader was seen by this process,
        or lives, or the agent in it does."""
        return (
            bool(self.guard)
            or self.guard_status is not None
            or runs.guard_lives(self.run)
            or runs.agent_lives(self.run)
        )

    # -- the end ----------------------------------------------------------

    def _finish(self) -> int:
        code = self._exit_code()
        if not self.run.record.get("keep_background"):
            self._end_leftovers()
        faults.point("run-agent-ended")
        self._drain_output()
        status, reason = judge(code, self.reader.outcome, self.reader.understood, self.stop_reason)
        if code not in (None, 0) and not reason:
            reason = _reason_of_code(self.run, code or 0)
        self._add_outcome()
        if code is None and status == runs.COMPLETED:
            self.run.record["recovered"] = True
        if self.stop_reason and status == runs.FAILED:
            reason = self.stop_reason
        _write_output(self.run, self.reader.outcome.final_text)
        faults.point("run-output-written")
        self._record_end(code, status, reason)
        if status == runs.COMPLETED:
            return 0
        if self.stop_reason:
            return self.stop_code
        return code or EXIT_FAILED

    def _exit_code(self) -> int | None:
        """The agent's exit code by the best witness; None when nobody can know it."""
        if self.guard_status is None:  # not our child: it may be writing this very moment
            files.wait_for(lambda: not runs.guard_lives(self.run), 2.0, 0.01)
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
        # Every orphan of the run comes to its subreaper, so one without
        # children has no run left: that spares the look at the process table.
        if self.subreaper and procs.reap() is None:
            return
        grace = 0.0 if self.killed else procs.LEFTOVER_GRACE_SECONDS
        procs.end_all(lambda: self._members(set()), grace)

    def _drain_output(self) -> None:
        while self._pump():
            pass
        self._show(self.reader.finish())
        self._write_transcript(self._redaction.finish())

    def _add_outcome(self) -> None:
        outcome, record = self.reader.outcome, self.run.record
        for key in ("model", "session_id"):
            if getattr(outcome, key):
                record[key] = getattr(outcome, key)
        for key in ("input_tokens", "cached_tokens", "output_tokens", "cost_usd", "turns"):
            if getattr(outcome, key) is not None:
                record[key] = getattr(outcome, key)
        if self.reader.understood:
            record["tool_calls"] = outcome.tool_calls

    def _record_end(self, code: int | None, status: str, reason: str) -> None:
        record = self.run.record
        record["end_time"] = ids.rfc3339()
        record["exit_code"] = -1 if code is None else code
        record["status"] = status
        if reason:
            record["error_summary"] = one_line(reason)
        runs.write_record(self.run)
        faults.point("run-ended")
        note(self.run, {"EXIT_CODE": str(record["exit_code"])})
        announce_end(self.run)
        faults.point("run-announced")
        clear_marks(self.run)


def judge(
    code: int | None, outcome: Outcome, understood: bool, stop_reason: str
) -> tuple[str, str]:
    """(status, reason): whether the run succeeded, from all that is known of it.

    Exit code 0 proves nothing where the output is understood: there must be
    the event of success and an answer.  An unknown exit code is made good by
    those, and by nothing else.
    """
    proven = understood and outcome.success is True and bool(outcome.final_text)
    if stop_reason and not (proven and code == 0):
        return runs.FAILED, stop_reason
    if code is None:
        return (runs.COMPLETED, "") if proven else (runs.FAILED, runs.SUPERVISOR_LOST)
    if code != 0:
        return runs.FAILED, outcome.error or ""
    if understood and not proven:
        return runs.FAILED, outcome.error or "exit code 0, but it ended without a result"
    return runs.COMPLETED, ""


def _reason_of_code(run: runs.Run, code: int) -> str:
    if code > EXIT_SIGNAL and code - EXIT_SIGNAL in SIGNAL_NAMES:
        number = code - EXIT_SIGNAL
        hint = " (out of memory?)" if number == procs.SIGKILL else ""
        return f"ended by {SIGNAL_NAMES[number]}{hint}"
    lines = [line for line in _stderr_lines(run) if line.strip()]
    last = f": {lines[-1].strip()}" if lines else ""
    return f"agent exited with code {code}{last}"


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """`text` as one harmless, redacted line of bounded length."""
    line = " ".join(redact.for_terminal(redact.text(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _duration(seconds: float) -> str:
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:g} min"
    return f"{seconds:g} s"


def _wait_gone(pid: int, start: str, seconds: float) -> None:
    files.wait_for(lambda: not procs.is_alive(pid, start), seconds)


# -- what a run tells others -----------------------------------------------


def note(run: runs.Run, pairs: dict[str, str]) -> None:
    """Append KEY=VALUE lines to the run's cwd.txt."""
    lines = [f"{key}={redact.text(value)}".replace("\n", "\\n") for key, value in pairs.items()]
    files.append_line(run.file(runs.CWD), "\n".join(lines))


def post(run: runs.Run, kind: str, body: str) -> None:
    """A message about the run on its bus.

    A bus that cannot be written must not cost an agent's work: the error goes
    into the run folder instead.
    """
    path = run.text("bus")
    if not path:
        return
    project, task = run.text("project_id"), run.text("task_id")
    try:
        bus.append(path, type_=kind, body=body, project=project, task=task, run=run.run_id)
    except (UserError, OSError) as error:
        log(run, f"{kind} could not be posted to {path}: {error}")


def log(run: runs.Run, text: str) -> None:
    """A line in the run's supervisor.log, which exists only when something went wrong."""
    try:
        files.append_line(run.file("supervisor.log"), f"{ids.rfc3339()} {one_line(text)}")
    except OSError:
        pass


def announce(run: runs.Run) -> None:
    """RUN_START on the bus."""
    names = (runs.PROMPT, runs.STDOUT, runs.STDERR, runs.OUTPUT)
    rows = [f"{name.partition('.')[0].removeprefix('agent-')}: {run.file(name)}" for name in names]
    post(run, "RUN_START", "\n".join(["run started", f"run_dir: {run.path}", *rows]))


def announce_end(run: runs.Run) -> None:
    """RUN_STOP or RUN_CRASH on the bus; the latter begins with the line that `grep '^ERROR '` finds."""
    where = [f"run_dir: {run.path}", f"output: {run.file(runs.OUTPUT)}"]
    if run.text("status") == runs.COMPLETED:
        code = run.text("exit_code")
        post(run, "RUN_STOP", "\n".join([f"run stopped with code {code}", *where]))
        return
    agent = run.text("agent_name") or run.text("agent")
    word = "RETRY" if run.record.get("will_retry") is True else "ERROR"  # a failure is one line
    first = (
        f"{word} task={run.text('task_id')} agent={agent} exit={run.text('exit_code')} "
        f"run={run.run_id}: {run.text('error_summary')}"
    )
    lines = _stderr_lines(run)
    tail = ["", f"## stderr (last {STDERR_LINES} lines)", *[f"    {line}" for line in lines]]
    post(run, "RUN_CRASH", "\n".join([first, *where, *(tail if lines else [])]))


def _stderr_lines(run: runs.Run, count: int = STDERR_LINES) -> list[str]:
    lines = files.last_lines(run.file(runs.STDERR), count)
    return [redact.for_terminal(redact.text(line))[:LINE_LIMIT] for line in lines]


def stderr_tail(run: runs.Run, count: int) -> list[str]:
    """The last lines of the agent's stderr, redacted and harmless."""
    return _stderr_lines(run, count)


def clear_marks(run: runs.Run) -> None:
    """Take away what says that the run has something left to do; its lock is the last."""
    for name in (runs.PID, runs.EXIT_CODE):
        files.remove(run.file(name))
    files.remove_temporaries(run.path)
    runs.unmark(run)
    files.remove(run.file(runs.LOCK))


def _write_output(run: runs.Run, answer: str | None) -> None:
    """Make output.md: the agent's own, else the answer of its stream, else a copy of stdout."""
    path = run.file(runs.OUTPUT)
    own = _own_output(path)
    if own is not None:
        clean = _redacted(own)
        if clean != own:
            files.replace_file(path, clean, 0o600)
        return
    if answer is not None:
        data = answer.encode("utf-8", "replace")
    else:
        with open(run.file(runs.STDOUT), "rb") as file:
            data = file.read(OUTPUT_LIMIT_BYTES)
            if file.read(1):
                data += f"\n\n[cut here: the whole is in {runs.STDOUT}]\n".encode()
    if data and not data.endswith(b"\n"):
        data += b"\n"
    files.replace_file(path, _redacted(data), 0o600)


def _own_output(path: str) -> bytes | None:
    """What the agent itself wrote as output.md; None for nothing, and for a link or a folder."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            data = file.read(OUTPUT_LIMIT_BYTES + 1)
    except OSError:
        return None
    if len(data) > OUTPUT_LIMIT_BYTES:
        data = data[:OUTPUT_LIMIT_BYTES] + b"\n\n[cut here: larger than 16 MiB]\n"
        files.replace_file(path, data, 0o600)
    return data or None


def _redacted(data: bytes) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    return redact.text(text).encode("utf-8", "surrogateescape")


# -- runs that lost their supervisor -----------------------------------------


def adopt(run: runs.Run, lock: int, detached: bool = False) -> Supervisor:
    """A supervisor for a run that another process started; the caller holds its lock."""
    reader = _reader_of(run)
    watch = Supervisor(run, lock, reader, detached=detached)
    if not run.number("pid"):
        pid = runs.agent_pid(run)
        process = procs.look_up(pid)
        if process is not None and runs.agent_lives(run):
            parent = procs.look_up(process.ppid)
            run.record.update(pid=pid, pgid=process.pgid, agent_start=process.start)
            if parent is not None and parent.pid == process.pgid:
                run.record["guard_start"] = parent.start
    me = os.getpid()
    run.record.update(supervisor_pid=me, supervisor_start=procs.start_time(me))
    return watch


def _reader_of(run: runs.Run) -> Reader:
    try:
        backend = agents.load(run.text("agent"))
        reader: Reader = backend.reader({"output": run.text("output_kind") or "text"})
    except UserError:
        from lib.agents import base

        return base.TextReader()
    return reader


def repair(path: str) -> bool:
    """Record the end of a run that has ended without its supervisor; False when there is nothing to do.

    A run that is held, or whose agent still lives, is left alone.  A record
    of another host or pid namespace is never touched.
    """
    try:
        lock = files.open_lock(os.path.join(path, runs.LOCK))
    except OSError:
        return False
    try:
        if not files.try_lock(lock):
            return False
        run = runs.read(path)
        if run.problem or runs.is_foreign(run):
            return False
        if run.text("status") in (runs.COMPLETED, runs.FAILED):
            _complete_marks(run)
            return True
        if not run.record:
            return _write_off(run, lock)
        if runs.agent_lives(run) or runs.guard_lives(run):
            return False
        if not runs.agent_pid(run) and not _claim_pid(run):
            return False
        watch = adopt(run, lock)
        lock = -1
        return _finish_repair(watch)
    finally:
        if lock >= 0:
            os.close(lock)


def _finish_repair(watch: Supervisor) -> bool:
    run = watch.run
    for name in (runs.STDOUT, runs.STDERR):
        if not os.path.exists(run.file(name)):
            files.append_line(run.file(name), "")
    watch._open_files()
    try:
        never = runs.exit_code(run) is None and not run.number("pgid") and not _was_started(run)
        if never:
            _write_output(run, None)
            watch._record_end(None, runs.FAILED, runs.NEVER_STARTED)
        else:
            watch._finish()
    finally:
        watch._close_files()
    return True


def _was_started(run: runs.Run) -> bool:
    return files.size(run.file(runs.PID)) > 0


def _claim_pid(run: runs.Run) -> bool:
    """Make pid.txt before a guard can: then its agent can never start.

    False when the guard was first and its agent is about to run.
    """
    try:
        os.close(os.open(run.file(runs.PID), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        written = files.wait_for(lambda: _was_started(run), 1.0, 0.01)
        return not written or not runs.agent_lives(run)
    return True


def _write_off(run: runs.Run, lock: int) -> bool:
    """A folder that was allocated and never used: record that, so that nobody waits for it."""
    name = run.run_id
    now = ids.rfc3339()
    run.record = {
        "version": 1,
        "run_id": name,
        "project_id": "unknown",
        "task_id": name,
        "agent": "",
        "pid": 0,
        "pgid": 0,
        "start_time": runs.time_from_name(name),
        "end_time": now,
        "exit_code": -1,
        "status": runs.FAILED,
        "error_summary": runs.NEVER_STARTED,
        "agent_version": "",
    }
    runs.write_record(run)
    clear_marks(run)
    os.fstat(lock)
    return True


def _complete_marks(run: runs.Run) -> None:
    """A run whose supervisor was killed between its record and its last message."""
    path = run.text("bus")
    if path and os.path.exists(path) and not _was_announced(run, path):
        announce_end(run)
    clear_marks(run)


def _was_announced(run: runs.Run, path: str) -> bool:
    try:
        recent = bus.last(path, 2000)
    except (UserError, OSError):
        return True
    return any(
        message.run_id == run.run_id and message.type in ("RUN_STOP", "RUN_CRASH")
        for message in recent
    )


def repair_all(runs_dir: str) -> int:
    """Repair every run of a runs folder that needs it; says how many did."""
    return sum(repair(os.path.join(runs_dir, name)) for name in runs.marked(runs_dir))


def stop(path: str) -> str:
    """End a run's whole tree and record it; returns "stopped", or "ended" when it already had.

    A living supervisor is asked to do it; a dead one's part is taken over.
    UserError when the run belongs to another host, or cannot be stopped.
    """
    run = runs.read(path)
    state = runs.state(run)
    if state.status == runs.UNKNOWN:
        raise UserError(f"{run.run_id} cannot be stopped from here: {state.reason}")
    if state.status != runs.RUNNING:
        repair(path)
        return "ended"
    patience = stop_grace() + 15.0
    pid, start = run.number("supervisor_pid"), run.text("supervisor_start")
    process = procs.look_up(pid)
    if state.holder == "supervisor" and process is not None and process.start == start:
        procs.send(process, procs.SIGTERM)
        if files.wait_for(lambda: not runs.is_held(run), patience, 0.02):
            return "stopped"
        procs.send(process, procs.SIGKILL)
    lock = files.open_lock(run.file(runs.LOCK))
    try:
        files.lock(lock, patience, f"the run {run.run_id}")
    except LockTimeoutError:
        os.close(lock)
        raise
    run = runs.read(path)
    if run.text("status") != runs.RUNNING:
        os.close(lock)
        return "ended"
    watch = adopt(run, lock)
    watch.stop("stopped by stop-run", EXIT_SIGNAL + procs.SIGTERM)
    watch.run_to_end()
    return "stopped"
