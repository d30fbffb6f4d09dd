"""Proof of success: a task's checks, run in fresh processes after its agent has ended.

`verify:` commands run one after the other in the task's folder; their output
is kept in `verify.txt` of the run folder, without secrets once they have ended
(above 16 MiB it stays as it came).  `expect:` looks at files and at output.md.
Nothing here trusts what the agent said.
"""

from __future__ import annotations

import os
import re
import time

from lib import agents, files, procs, redact, runs, supervisor
from lib.agents import base
from lib.errors import EXIT_SIGNAL
from lib.plan import Task

REPORT = runs.VERIFY
MAX_OUTPUT_BYTES = 16 << 20


class Check:
    """The verify commands of one task, under way; `poll` until `ended`, then see `reason`."""

    def __init__(self, task: Task, run: runs.Run) -> None:
        self.run = run
        self.ended = False
        self.reason = ""  # why it is no pass; "" = passed
        self._task = task
        self._environment = environment(task, run)
        self._commands = list(task.verify)
        self._current = task.verify[0]
        self._pid = 0
        self._limit = 0.0
        self._child_runs = {path for _, _, path in runs.children(run)}  # those of the agent
        try:
            if self._remove_report():  # its orchestrator was killed, and it may still run
                self._clean()
        except OSError as error:
            self._fail(f"could not be run ({error.strerror})")
            return
        self._next()

    @property
    def _report(self) -> str:
        return self.run.file(REPORT)

    def _remove_report(self) -> bool:
        """Take away the report of an earlier check; False when there was none."""
        if os.path.isdir(self._report) and not os.path.islink(self._report):
            os.rename(self._report, f"{self._report}.{time.time_ns()}")  # the agent's own making
            return False
        return files.remove(self._report)

    def _next(self) -> None:
        if not self._commands:
            self._redact_report()
            self.ended = True
            return
        self._current = self._commands.pop(0)
        if not os.path.isdir(self._task.cwd):
            self._fail(f"could not be run (its folder {self._task.cwd} is gone)")
            return
        try:
            self._spawn()
        except OSError as error:
            self._fail(f"could not be run ({error.strerror})")
            return
        timeout = self._task.verify_timeout
        self._limit = time.monotonic() + timeout if timeout else float("inf")

    def _spawn(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        report = files.open_regular(self._report, flags)
        try:
            files.write_all(report, f"$ {self._current}\n".encode())
            script = 'cd "$1" || exit 126; eval "$2"'
            self._pid = os.posix_spawn(
                "/bin/sh",
                ["sh", "-c", script, "verify", self._task.cwd, self._current],
                self._environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, report, 1),
                    (os.POSIX_SPAWN_DUP2, report, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=procs.RESET_SIGNALS,
            )
        finally:
            os.close(report)

    def poll(self) -> None:
        """Take notice of what has ended or run out of time."""
        while not self.ended:
            ended = procs.reap(self._pid)
            if ended is not None and not ended[0]:
                if time.monotonic() < self._limit:
                    return
                self.end()
                limit = f"{self._task.verify_timeout:g} s"
                self._fail(f"was not finished after {limit} (verify_timeout)")
                return
            # The kernel gives the number away only when no process, group or session has
            # it: while no process is found under it, whoever is in that group is ours.
            self._clean(self._pid if procs.look_up(self._pid) is None else 0)
            code = procs.exit_code(ended[1]) if ended is not None else 1
            if code:
                self._fail(f"ended with code {code}{_hint(code)}")
                return
            self._next()

    def _redact_report(self) -> None:
        """Take secrets out of what the commands printed, once nobody writes to it any more."""
        try:
            written = files.read_regular(self._report, MAX_OUTPUT_BYTES + 1)
            text = written.decode("utf-8", "surrogateescape")
            clean = redact.text(text).encode("utf-8", "surrogateescape")
            if len(written) <= MAX_OUTPUT_BYTES and clean != written:
                files.replace_file(self._report, clean, 0o600)
        except OSError:
            pass  # there is none, or no room: it stays as it is, and is shown redacted

    def _fail(self, what: str) -> None:
        shown = " ".join(redact.text(self._current).split())[:200]
        where = f"; see {REPORT} in its run folder" if os.path.exists(self._report) else ""
        self.reason = f"verify {what}: {shown}{where}"
        self._redact_report()
        self.ended = True

    def end(self) -> None:
        """Stop what is running, the whole tree of it."""
        self._stop_child_runs()
        # All at once, and not the shell first: what it started without our environment
        # and in a session of its own is known by its parents alone.
        self._clean(self._pid)
        files.wait_for(lambda: procs.reap(self._pid) != (0, 0), 5.0, 0.01)

    def _stop_child_runs(self) -> None:
        """Have the runs that the check has started stopped by their own supervisors."""
        for pid, start, path in runs.children(self.run):
            process = procs.look_up(pid)
            if path not in self._child_runs and process is not None and process.start == start:
                supervisor.signal_supervisor(path, process, procs.SIGTERM)

    def _clean(self, group: int = 0) -> None:
        """End every process of the check; child runs, the agent's too, have supervisors for that."""

        def find() -> list[procs.Process]:
            return procs.members(self.run.run_id, group, runs.child_supervisors(self.run))

        procs.end_all(find, 0.0)


def _hint(code: int) -> str:
    """What a shell means by an exit code, where it means something."""
    if code in (126, 127):
        return " (not found)" if code == 127 else " (could not be executed)"
    name = procs.SIGNAL_NAMES.get(code - EXIT_SIGNAL, "")
    memory = "; out of memory?" if code - EXIT_SIGNAL == procs.SIGKILL else ""
    return f" ({name}{memory})" if name else ""


def environment(task: Task, run: runs.Run) -> dict[str, str]:
    """What a check finds around it: the run that it is about, and no token.

    A check runs what the agent wrote; a token that it does need is for the
    task's `env:` to give.
    """
    foreign = {
        *agents.all_token_variables(),
        *base.NESTED_SESSION_VARIABLES,
        "JRUN_TASK_FOLDER",  # of the run inside which the plan was started
    }
    result = {
        name: value
        for name, value in os.environ.items()
        if name not in foreign and not name.startswith(("CONDUCTOR_AGENT_", "CONDUCTOR_FAULT"))
    }
    result.update(
        task.env,
        JRUN_PROJECT_ID=run.text("project_id"),
        JRUN_TASK_ID=run.text("task_id"),
        JRUN_ID=run.run_id,
        JRUN_PARENT_ID=run.text("parent_run_id"),
        JRUN_RUNS_DIR=os.path.dirname(run.path),
        JRUN_RUN_FOLDER=run.path,
        JRUN_MESSAGE_BUS=run.text("bus"),
    )
    return result


def unmet_expectation(task: Task, run: runs.Run) -> str:
    """What `expect:` finds missing, in one sentence; "" when all of it holds."""
    for expected in task.expect.files:
        try:
            status = os.stat(expected.path)
        except OSError:
            return f"expected file is missing: {expected.path}"
        # Writing sets both.  An earlier run may have left a file with a time in the future,
        # as out of an archive; the other one nobody can set.
        changed = min(status.st_mtime_ns, status.st_ctime_ns)
        if expected.changed and changed < _began(run, changed):
            return f"expected file was not written by this run: {expected.path}"
    pattern = task.expect.output
    if pattern is not None:
        try:
            output = run.read_text(runs.OUTPUT, MAX_OUTPUT_BYTES)
        except OSError as error:  # a check, or what the agent left behind, may have removed it
            return f"output.md cannot be read: {error.strerror}"
        if not re.search(pattern, output):
            return f"output.md does not match the expected pattern {pattern!r}"
    return ""


def _began(run: runs.Run, changed: int) -> int:
    """The least modification time of what a run wrote, in the grain of a file that has `changed`.

    The prompt is written just before the agent starts, and stamped by the
    same clock, which lags behind `time.time()`.  A file system that keeps
    whole seconds may round down by up to two (FAT).
    """
    try:
        began = os.stat(run.file(runs.PROMPT)).st_mtime_ns
    except OSError:
        began = run.time_ns("start_time") or 0
    return began - 2_000_000_000 if changed % 1_000_000_000 == 0 else began


def verdict(run: runs.Run) -> str:
    """`APPROVE` or `REJECT` as the last line of output.md that is not blank; "" for neither."""
    try:
        lines = files.last_lines(run.file(runs.OUTPUT), 1 << 16)
    except OSError:  # a check has put something else in its place
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    for word in ("APPROVE", "REJECT"):
        if last == f"VERDICT: {word}":
            return word
    return ""
