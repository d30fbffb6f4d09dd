"""What all rows of the bench share: their form, their sizes, and how a command is timed."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BARE = [sys.executable, "-S", "-E"]  # as the scripts are started
NULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("JRUN_", "CONDUCTOR_", "PYTHON"))
}


class NotRunError(Exception):
    """A command of a row did not do what it should: there is nothing to compare."""


class MissingError(Exception):
    """What a row compares with is not installed."""


@dataclass(frozen=True)
class Size:
    """How much is measured; everything about a row but its meaning."""

    starts: int  # rounds of a single command
    batches: int  # rounds of a whole plan or crowd
    tasks: int  # of a plan
    many: int  # tasks of a large plan; ten times as many of a huge one
    messages: int  # of the long bus
    writers: int
    posts: int  # of each writer
    sleepers: int
    nap_seconds: float
    fleet: int  # runs that a monitor watches
    watch_seconds: float
    clients: int  # of a stream of the server
    burst: int  # lines of one write, and messages of a bus that clients follow


FULL = Size(60, 5, 200, 1000, 100_000, 16, 50, 60, 1.0, 500, 10.0, 50, 20_000)
QUICK = Size(2, 1, 6, 8, 1000, 3, 3, 4, 0.1, 20, 0.5, 3, 200)


@dataclass
class Result:
    """Seconds of every round, or what the row's unit is, ours and theirs in pairs."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # printed below the table

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.theirs)

    def spread(self) -> tuple[float, float]:
        rounds = [mine / other for mine, other in zip(self.ours, self.theirs, strict=True)]
        return min(rounds), max(rounds)


@dataclass(frozen=True)
class Row:
    """One line of the table: `measure(size, folder)` works in a folder of its own."""

    name: str
    what: str
    against: str
    bar: float | None
    measure: Callable[[Size, Path], Result]
    unit: str = "ms"


# -- running and timing


def run(command: Sequence[str | Path], **variables: str | Path) -> float:
    """Seconds from the start of a command to its end; its output goes nowhere.

    posix_spawn, since what subprocess adds to both sides (about 1 ms) would
    draw every ratio towards 1.
    """
    words = [os.fspath(word) for word in command]
    environment = {**ENVIRONMENT, **{key: os.fspath(value) for key, value in variables.items()}}
    actions = [(os.POSIX_SPAWN_DUP2, NULL, number) for number in (0, 1, 2)]
    began = time.perf_counter()
    pid = os.posix_spawnp(words[0], words, environment, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise NotRunError(_complaint(words, environment, os.waitstatus_to_exitcode(status)))
    return seconds


def _complaint(words: list[str], environment: dict[str, str], code: int) -> str:
    """Why a command fails, from a second try with its stderr kept."""
    done = subprocess.run(words, env=environment, stdin=NULL, capture_output=True)
    lines = done.stderr.decode(errors="replace").strip().split("\n")
    return f"exit code {code}: {' '.join(words)}: {lines[-1]}"


def interleave(
    rounds: int, ours: Callable[[], float], theirs: Callable[[], float], *, warm_up: bool = True
) -> Result:
    """Both in turn, `rounds` times, after one round that does not count."""
    result = Result()
    if warm_up:
        ours()
        theirs()
    for _ in range(rounds):
        result.ours.append(ours())
        result.theirs.append(theirs())
    return result


def script(name: str, *arguments: str | Path) -> list[str | Path]:
    return [*BARE, ROOT / name, *arguments]


def bare() -> float:
    return run([*BARE, "-c", "pass"])


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise MissingError(f"{program} is not installed")
    return found


def shell_quoted(command: Sequence[str | Path]) -> str:
    return " ".join("'" + os.fspath(word).replace("'", "'\\''") + "'" for word in command)


def processor_seconds(pid: int) -> float:
    """Of a process, in steps of 10 ms; where /proc tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        raise MissingError("/proc is not there") from None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Of a process, in memory now."""
    done = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], stdin=NULL, capture_output=True)
    if not done.stdout.strip():
        raise MissingError("ps does not tell")
    return int(done.stdout) * 1024
