"""What all checks of the doctor share: a check, and how another program is asked something."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib import redact
from lib.agents import base

OK, NOTE, FAIL = "ok", "note", "FAIL"
VERSION_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; every text is redacted, one line, and safe to print."""

    name: str
    state: str  # OK, NOTE or FAIL
    text: str
    cure: str = ""  # a command or a sentence

    def __post_init__(self) -> None:
        for field in ("name", "text", "cure"):
            harmless = redact.for_terminal(redact.text(getattr(self, field)))
            object.__setattr__(self, field, " ".join(harmless.split()))

    def line(self) -> str:
        return f"{self.state:<4}  {self.name}: {self.text}{'; ' if self.cure else ''}{self.cure}"

    def as_dict(self) -> dict[str, str]:
        return {"name": self.name, "state": self.state, "text": self.text, "cure": self.cure}


def from_error(name: str, state: str, error: Exception) -> Check:
    """The check that an error stands for: "what: which; how to mend it"."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Check(name, state, f"{where}{error.strerror or error}")
    text, _, cure = str(error).partition("; ")
    return Check(name, state, text, cure)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program printed; `fault` is why it did not end well, "" when it did."""

    stdout: str
    stderr: str
    fault: str = ""
    is_broken: bool = False  # it ran and failed, or could not run: not merely slow


def without_tokens(environ: Mapping[str, str]) -> dict[str, str]:
    unwanted = {*base.KNOWN_TOKEN_VARIABLES, *base.NESTED_SESSION_VARIABLES}
    return {
        name: value
        for name, value in environ.items()
        if name not in unwanted and not name.startswith("CONDUCTOR_AGENT_")
    }


def output_of(
    command: Sequence[str], environment: Mapping[str, str], seconds: float, cwd: str = "/"
) -> Answer:
    """Run a command in a session of its own for at most so long; nothing of it lives on.

    Its output goes to files: a pipe could be held open by what it leaves behind.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        fault, is_broken = "", False
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            return Answer("", "", f"cannot be started: {error.strerror}", is_broken=True)
        try:
            if process.wait(seconds):
                fault, is_broken = f"ended with {process.returncode}", True
        except subprocess.TimeoutExpired:
            fault = f"did not answer within {seconds:g} s"
        finally:
            _end_group(process)
        return Answer(_beginning(stdout.fileno()), _beginning(stderr.fileno()), fault, is_broken)


def _beginning(fd: int) -> str:
    return os.pread(fd, 64 << 10, 0).decode("utf-8", "replace")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the group that a process leads, and reap the process."""
    # Also when the leader has been reaped: its number is not given away while the group
    # has members, and an empty group is not found.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
