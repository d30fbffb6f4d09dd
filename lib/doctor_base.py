"""What all checks of the doctor share: a check, and how another program is asked something."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import textwrap
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib import agents, procs, redact
from lib.agents import base

OK, NOTE, FAIL = "ok", "note", "FAIL"
VERSION_SECONDS = 10.0
MAX_FILE_BYTES = 16 << 20  # that a program may write while it tells its version
MAX_TEXT = 2000  # characters of a field of a check
WIDTH = 80  # columns


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; every text is redacted, one line, and safe to print."""

    name: str
    state: str  # OK, NOTE or FAIL
    text: str
    cure: str = ""  # a command or a sentence

    def __post_init__(self) -> None:
        for field in ("name", "text", "cure"):
            object.__setattr__(self, field, redact.one_line(getattr(self, field), MAX_TEXT))

    def lines(self) -> str:
        """As it is printed: what was found, and below it the cure, wrapped between words."""
        shown = _wrapped(f"{self.state:<4}  {self.name}: {self.text}", "")
        if self.cure:
            shown += _wrapped(f"cure: {self.cure}", " " * 6)
        return "".join(f"{line}\n" for line in shown)

    def as_dict(self) -> dict[str, str]:
        return {"name": self.name, "state": self.state, "text": self.text, "cure": self.cure}


def _wrapped(text: str, indentation: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indentation,
        subsequent_indent=" " * (6 + len(indentation) // 3),
        break_long_words=False,  # a path, a command: to be copied whole
        break_on_hyphens=False,
    )


def from_error(name: str, state: str, error: Exception) -> Check:
    """The check that an error stands for: "what: which; how to mend it"."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Check(name, state, f"{where}{error.strerror or error}")
    text, _, cure = str(error).partition("; ")
    return Check(name, state, text, cure.removeprefix("install it: "))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program printed; `fault` is why it did not end well, "" when it did."""

    stdout: str
    stderr: str
    fault: str = ""
    is_broken: bool = False  # it ran and failed, or could not run: not merely slow


def without_tokens(environ: Mapping[str, str]) -> dict[str, str]:
    unwanted = {*agents.all_token_variables(), *base.NESTED_SESSION_VARIABLES}
    return {
        name: value
        for name, value in environ.items()
        if name not in unwanted and not name.startswith("CONDUCTOR_AGENT_")
    }


def output_of(
    command: Sequence[str], environment: Mapping[str, str], seconds: float, cwd: str = "/"
) -> Answer:
    """Run a command in a session of its own for at most so long; nothing of it lives on.

    Its output goes to files of bounded size: a pipe could be held open by what it leaves
    behind.
    """
    mark = f"doctor-{uuid.uuid4().hex}"  # by which a process is known that left the session
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        fault, is_broken = "", False
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env={**environment, "JRUN_ID": mark},
                start_new_session=True,
                preexec_fn=_limit_files,  # noqa: PLW1509 - there is no thread here
            )
        except OSError as error:
            return Answer("", "", f"cannot be started: {error.strerror}", is_broken=True)
        try:
            fault = _ending(process.wait(seconds))
            is_broken = bool(fault)
        except subprocess.TimeoutExpired:
            fault = f"did not answer within {seconds:g} s"
        finally:
            _end_all(process, mark)
        return Answer(_beginning(stdout.fileno()), _beginning(stderr.fileno()), fault, is_broken)


def _limit_files() -> None:
    """In the child: one that prints without end must not fill the disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = MAX_FILE_BYTES if hard == resource.RLIM_INFINITY else min(MAX_FILE_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by signal {-status} ({signal.strsignal(-status) or '?'})"
    return f"ended with {status}" if status else ""


def _beginning(fd: int) -> str:
    return os.pread(fd, 64 << 10, 0).decode("utf-8", "replace")


def _end_all(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill the process, its group and whatever carries its mark, and reap the process."""
    # Also when the leader has been reaped: its number is not given away while the group
    # has members, and an empty group is not found.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    procs.end_all(lambda: procs.members(mark, 0, ()), grace_seconds=0)
