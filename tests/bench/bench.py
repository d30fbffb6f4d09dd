#!/usr/bin/env python3
"""Measure the toolkit against baselines that run in the same minute; print a Markdown table.

    python3 tests/bench/bench.py [--quick] [--only NAME ...]

Each row is two commands, run in turn (ours, theirs, ours, theirs, ...) after a
warm-up, on the same interpreter, disk and load, so that what disturbs one
disturbs the other.  The ratio is that of the two medians; in brackets stand
the least and the greatest ratio of a single round.  A bar is what the ratio
ought to stay below; a row without one is for information.  A missed bar is
not an error: the exit code is 1 only where something failed to run.
"""

from __future__ import annotations

import argparse
import fcntl
import math
import os
import pty
import re
import select
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.bench.base import (
    BARE,
    ENVIRONMENT,
    FULL,
    NULL,
    QUICK,
    ROOT,
    MissingError,
    NotRunError,
    Result,
    Row,
    Size,
    bare,
    interleave,
    need,
    processor_seconds,
    run,
    script,
    shell_quoted,
)  # fmt: skip
from tests.bench.page_rows import ROWS as PAGE_ROWS
from tests.bench.server_rows import ROWS as SERVER_ROWS

SHELL_ORIGINAL = HERE / "shell_original.sh"


# -- one run


def run_agent_shell(size: Size, folder: Path) -> Result:
    (folder / "prompt.md").write_text("Nothing to do.\n\n```sh\ntrue\n```\n")
    return _run_agent(size, folder, "shell", "")


def run_agent_command(size: Size, folder: Path) -> Result:
    (folder / "prompt.md").write_text("Nothing to do.\n")
    program = shutil.which("true") or "/bin/true"
    return _run_agent(
        size, folder, "nothing", f"agents:\n  nothing: {{type: command, command: [{program}]}}\n"
    )


def _run_agent(size: Size, folder: Path, agent: str, config: str) -> Result:
    (folder / "config.yaml").write_text(config or "agents: {}\n")
    command = script(
        "run-agent.py", "--root", folder, "--config", folder / "config.yaml", agent, folder,
        folder / "prompt.md",
    )  # fmt: skip
    return interleave(size.starts, lambda: run(command), bare)


# -- tasks of a plan


def write_plan(path: Path, tasks: int, block: str) -> None:
    rows = [
        f"      - id: task-{number:04d}\n"
        "        agent: shell\n"
        f"        prompt: |\n          ```sh\n          {block}\n          ```\n"
        for number in range(1, tasks + 1)
    ]
    head = "project: bench\nstages:\n  - id: all\n    tasks:\n"
    path.write_text(head + "".join(rows))


class PlanRuns:
    """Runs plans of `true`, each in a fresh root."""

    def __init__(self, folder: Path, tasks: int, width: int) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = self.root = folder
        self.tasks = tasks
        self.width = width
        self.started = 0
        self.ones: list[float] = []  # a median: one slow start among them must not count
        for count in (1, tasks):
            write_plan(folder / f"plan-{count}.yaml", count, "true")

    def run(self, tasks: int) -> float:
        self.started += 1
        root = self.root = self.folder / f"root-{self.started}"
        root.mkdir()
        plan = self.folder / f"plan-{tasks}.yaml"
        width = ["--max-parallel", str(self.width)]
        seconds = run(script("run-all-tasks.py", plan, "--root", root, *width))
        done = sum(1 for path in (root / "runs").glob("run_*/output.md"))
        if done != tasks:
            raise NotRunError(f"{done} of {tasks} tasks left a record in {root}")
        return seconds

    def per_task(self) -> float:
        """Seconds for one more task: what a plan of one takes, start and all, is taken off."""
        self.ones.append(self.run(1))
        return (self.run(self.tasks) - statistics.median(self.ones)) / (self.tasks - 1)


def plan_wide(size: Size, folder: Path) -> Result:
    return _plan(size, folder, 16)


def plan_narrow(size: Size, folder: Path) -> Result:
    return _plan(size, folder, 1)


def _plan(size: Size, folder: Path, width: int) -> Result:
    bash, xargs = need("bash"), need("xargs")
    plans = PlanRuns(folder, size.tasks, width)
    prompt, numbers = folder / "script.sh", folder / "numbers"
    prompt.write_text("true\n")
    numbers.write_text("".join(f"{number}\n" for number in range(size.tasks)))
    one = shell_quoted([bash, SHELL_ORIGINAL, "sh", folder, prompt])
    line = f"{xargs} -P {width} -I N {one} <{numbers}"

    def original() -> float:
        root = Path(tempfile.mkdtemp(prefix="shell-", dir=folder))
        bus = root / "MESSAGE-BUS.md"
        return run(["sh", "-c", line], RUNS_DIR=root / "runs", MESSAGE_BUS=bus) / size.tasks

    return interleave(size.batches, plans.per_task, original, warm_up=size is FULL)


def plan_and_parallel(size: Size, folder: Path) -> Result:
    """A whole plan, its start included, against the same number of jobs."""
    parallel = need("parallel")
    plans = PlanRuns(folder, size.many, 16)
    numbers = [str(number) for number in range(1, size.many + 1)]

    def theirs() -> float:
        place = Path(tempfile.mkdtemp(prefix="parallel-", dir=folder))
        options: list[str | Path] = [
            "-j16",
            "--joblog",
            place / "job.log",
            "--results",
            place / "results",
        ]
        return run([parallel, *options, "true", ":::", *numbers])

    return interleave(size.batches, lambda: plans.run(size.many), theirs, warm_up=size is FULL)


def plan_huge(size: Size, folder: Path) -> Result:
    """Seconds a task of a plan ten times as large: they must not grow with the plan."""
    huge, large = 10 * size.many, size.many
    plans, fewer = (PlanRuns(folder / str(count), count, 16) for count in (huge, large))
    return interleave(
        max(1, size.batches // 5),
        lambda: plans.run(huge) / huge,
        lambda: fewer.run(large) / large,
        warm_up=False,
    )


def plan_gap(size: Size, folder: Path) -> Result:
    """From the recorded end of each task to the recorded start of the next, one at a time."""
    plans = PlanRuns(folder, size.tasks, 1)
    plans.run(size.tasks)
    records = [path.read_text() for path in (plans.root / "runs").glob("run_*/run-info.yaml")]
    times = sorted((recorded("start_time", text), recorded("end_time", text)) for text in records)
    gaps = [after[0] - before[1] for before, after in pairwise(times)]
    return Result(ours=gaps, theirs=[0.001] * len(gaps))


def recorded(key: str, record: str) -> float:
    found = re.search(rf'^{key}: "(.+)Z"$', record, re.MULTILINE)
    if found is None:
        raise NotRunError(f"a record without {key}")
    return datetime.fromisoformat(found.group(1)[:26]).replace(tzinfo=UTC).timestamp()


# -- the index


_INDEX = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from lib import ids, yamlio
from lib.index import Index

def make(number):
    start = 1767268800 + number
    name = ids.run_name(start, number, "t")
    record = {
        "version": 1, "run_id": name, "project_id": "p", "task_id": f"t{number % 100}",
        "agent": "claude", "pid": 4711, "pgid": 4711, "start_time": ids.rfc3339(start * 10**9),
        "end_time": ids.rfc3339((start + 60) * 10**9), "exit_code": 0, "status": "completed",
        "cwd": sys.argv[2], "agent_version": "2.1.50", "supervisor_pid": 4710, "model": "m",
        **{key: f"{sys.argv[2]}/{name}/{key}" for key in ("prompt_path", "stdout_path", "bus")},
        "session_id": "s", "input_tokens": 1000, "output_tokens": 200, "cost_usd": 0.25,
    }
    os.makedirs(f"{sys.argv[2]}/{name}")
    with open(f"{sys.argv[2]}/{name}/run-info.yaml", "w") as file:
        file.write(yamlio.dump(record))

def seconds():
    began = time.perf_counter()
    index.refresh()
    return time.perf_counter() - began

count = int(sys.argv[3])
if not os.path.isdir(sys.argv[2]):
    for number in range(count):
        make(number)
index = Index(sys.argv[2])
cold = seconds()
make(len(index.runs))
print(cold, seconds())
"""


def _index(size: Size, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds that an index of many runs takes when it is new, and when one run has come."""
    command = [*BARE, "-c", _INDEX, str(ROOT), str(folder / "runs"), str(10 * size.many)]
    cold: list[float] = []
    change: list[float] = []
    for _ in range(size.batches):
        done = subprocess.run(command, env=ENVIRONMENT, stdin=NULL, capture_output=True)
        if done.returncode:
            raise NotRunError(done.stderr.decode(errors="replace").strip().split("\n")[-1])
        for values, word in zip((cold, change), done.stdout.split(), strict=True):
            values.append(float(word))
    return cold, change


def index_cold(size: Size, folder: Path) -> Result:
    cold, _ = _index(size, folder)
    return Result(ours=cold, theirs=[3.0] * len(cold))


def index_change(size: Size, folder: Path) -> Result:
    cold, change = _index(size, folder)
    return Result(ours=change, theirs=cold)


# -- the bus


def bus_append(size: Size, folder: Path) -> Result:
    bus = folder / "MESSAGE-BUS.md"
    command = script("bin/bus-append", "--bus", bus, "--type", "PROGRESS", "half of it is done")
    return interleave(size.starts, lambda: run(command), bare)


def write_bus(path: Path, messages: int) -> None:
    """A bus as the toolkit writes it, through its own writer."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from lib import bus\n"
        "for number in range(int(sys.argv[3])):\n"
        "    body = f'{number}: a line of progress\\n\\n- and a list\\n- of two\\n' * 3\n"
        "    bus.append(sys.argv[2], type_='PROGRESS', body=body, durable=False)\n"
    )
    run([*BARE, "-c", code, ROOT, path, str(messages)])


def bus_tail(size: Size, folder: Path) -> Result:
    long, short = folder / "long.md", folder / "short.md"
    write_bus(long, size.messages)
    write_bus(short, 100)

    def tail(path: Path) -> float:
        return run(script("bin/bus-tail", "-n", "20", path))

    return interleave(size.starts, lambda: tail(long), lambda: tail(short))


def bus_writers(size: Size, folder: Path) -> Result:
    need("flock")
    bus, log = folder / "MESSAGE-BUS.md", folder / "log.txt"
    post = shell_quoted(script("bin/bus-append", "--bus", bus, "a message"))
    ours = _crowd(f"{post} >/dev/null", size)
    locked = '( flock 9; echo "a message" >>"$1" ) 9>>"$1.lock"'
    theirs = _crowd(locked, size)
    total = size.writers * size.posts

    def kept(path: Path, mark: str, seconds: float) -> float:
        found = path.read_text().count(mark)
        path.unlink()
        if found != total:
            raise NotRunError(f"{found} of {total} messages are in {path}")
        return seconds / total

    return interleave(
        size.batches,
        lambda: kept(bus, "\nmsg_id: ", run(["bash", "-c", ours])),
        lambda: kept(log, "a message\n", run(["bash", "-c", theirs, "bash", log])),
        warm_up=size is FULL,
    )


def _crowd(post: str, size: Size) -> str:
    """A script in which `writers` loops post at once, each `posts` times."""
    loop = f"for (( i = 0; i < {size.posts}; i++ )); do {post} || exit; done"
    each = f"for (( w = 0; w < {size.writers}; w++ )); do ( {loop} ) & pids+=($!); done"
    return f'pids=(); {each}; for pid in "${{pids[@]}}"; do wait "$pid" || exit; done'


# -- the cap


def sleepers(size: Size, folder: Path) -> Result:
    plan = folder / "plan.yaml"
    write_plan(plan, size.sleepers, f"sleep {size.nap_seconds:g}")
    ideal = math.ceil(size.sleepers / 16) * size.nap_seconds
    rounds = max(1, size.batches // 2)
    result = Result(theirs=[ideal] * rounds)
    for number in range(rounds):
        root = folder / f"root-{number}"
        root.mkdir()
        command = script("run-all-tasks.py", plan, "--root", root, "--max-parallel", "16")
        result.ours.append(run(command))
    return result


# -- the table

# -- the monitor


def monitor_busy(size: Size, folder: Path) -> Result:
    """Processor time while 16 runs write, over the time that one core has."""
    return _monitor(size, folder, live=16, rate=1000)


def monitor_idle(size: Size, folder: Path) -> Result:
    return _monitor(size, folder, live=0, rate=0)


def _monitor(size: Size, folder: Path, live: int, rate: int) -> Result:
    result = Result()
    (folder / "runs").mkdir()
    words = [sys.executable, HERE / "fleet.py", folder, size.fleet - live, live, rate]
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE) as fleet:
        assert fleet.stdout is not None
        fleet.stdout.readline()
        try:
            for _ in range(size.batches):
                result.ours.append(watched_seconds(folder, size.watch_seconds))
                result.theirs.append(size.watch_seconds)
        finally:
            fleet.kill()
    return result


def watched_seconds(folder: Path, seconds: float) -> float:
    """Processor time of a monitor on a screen of 200x60 in so many seconds, after its start."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
    process = subprocess.Popen(
        ["sh", "-c", 'exec <>"$1" >&0; shift; exec "$@"', "sh", os.ttyname(slave),
         *BARE, str(ROOT / "bin" / "monitor"), "--root", str(folder)],
        env={**ENVIRONMENT, "TERM": "xterm"}, stdin=NULL, stdout=NULL, start_new_session=True,
    )  # fmt: skip
    try:
        _drain(master, 2.0)  # its start
        before = processor_seconds(process.pid)
        _drain(master, seconds)
        used = processor_seconds(process.pid) - before
        os.write(master, b"q")
        _drain(master, 0.2)
        if process.wait(30):
            raise NotRunError(f"the monitor ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)
    return used


def _drain(fd: int, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while (left := limit - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            os.read(fd, 65536)


ROWS = (
    Row("run-agent-shell", "`run-agent.py shell`, `true`", "bare interpreter", 2.5,
        run_agent_shell),
    Row("run-agent-command", "`run-agent.py`, a `command` agent, `/bin/true`",
        "bare interpreter", 2.5, run_agent_command),
    Row("plan-16", "a task of a plan, 16 at once", "the shell original, `xargs -P 16`", 0.8,
        plan_wide),
    Row("plan-1", "a task of a plan, one at a time", "the shell original, one at a time", 0.8,
        plan_narrow),
    Row("parallel", "a plan of 1,000 empty `shell` tasks, 16 at once",
        "GNU parallel `-j16 --joblog --results`", 1.0, plan_and_parallel),
    Row("plan-huge", "a task of a plan of 10,000", "of one of 1,000", 1.5, plan_huge),
    Row("plan-gap", "a task's end to the next one's start", "1 ms", 20.0, plan_gap),
    Row("index-cold", "an index of 10,000 runs, from nothing", "3 s", 1.0, index_cold),
    Row("index-change", "the same, when one run has come", "from nothing", 0.02, index_change),
    Row("bus-append", "`bus-append`", "bare interpreter", 1.6, bus_append),
    Row("bus-tail", "`bus-tail -n 20`, long bus", "the same, 100 messages", 1.5, bus_tail),
    Row("bus-writers", "a message, many writers at once", "bash: `flock`, `echo >>`", None,
        bus_writers),
    Row("sleepers", "a plan of sleepers, 16 at once", "the ideal", None, sleepers),
    Row("monitor-busy", "the monitor, 16 runs at 1,000 lines a second", "one core", 0.15,
        monitor_busy),
    Row("monitor-idle", "the monitor, nothing happening", "one core", 0.01, monitor_idle),
    *SERVER_ROWS,
    *PAGE_ROWS,
)  # fmt: skip


def shown(values: list[float], unit: str) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    if unit != "ms":
        return f"{low:.1f} – {middle:.1f} – {high:.1f} {unit}"
    return " – ".join(f"{value * 1000:.{1 if middle < 1 else 0}f}" for value in (low, middle, high))


def shown_ratio(value: float) -> str:
    return f"{value:.{2 if value >= 0.1 else 4}f}"


def line(row: Row, result: Result) -> str:
    low, high = map(shown_ratio, result.spread())
    verdict = "" if row.bar is None else "kept" if result.ratio <= row.bar else "**missed**"
    bar = "" if row.bar is None else f"{row.bar:g}"
    ratio = f"{shown_ratio(result.ratio)} ({low} – {high})"
    ours, theirs = shown(result.ours, row.unit), shown(result.theirs, row.unit)
    cells = (row.name, row.what, ours, row.against, theirs, ratio, bar, verdict)
    return f"| {' | '.join(cells)} |"


def describe(size: Size, folder: Path) -> Iterator[str]:
    version = ".".join(map(str, sys.version_info[:3]))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    yield f"Python {version}, {os.cpu_count()} cores, load {load}, files in {folder}."
    yield f"Rounds: {size.starts} of single commands, {size.batches} of batches."
    yield (
        f"Sizes: {size.tasks} tasks, {size.many} where it says 1,000; {size.messages} messages; {size.writers} writers of "
        f"{size.posts} messages; {size.sleepers} sleepers of {size.nap_seconds:g} s; {size.clients} clients where it says 50; "
        f"{size.burst} lines or messages where it says 20,000."
    )
    yield ""
    yield "| row | ours | ms: min – median – max | against | ms: min – median – max | ratio | bar | |"
    yield "|---|---|---|---|---|---|---|---|"


def measure(row: Row, size: Size, folder: Path) -> tuple[str, list[str], bool]:
    """The row's line, what is to be said below the table, and whether it ran."""
    folder.mkdir()
    try:
        result = row.measure(size, folder)
    except MissingError as missing:
        return f"| {row.name} | {row.what} | | {row.against} | {missing} | | | |", [], True
    except (NotRunError, OSError) as error:
        text = str(error).replace("|", "\\|").replace("\n", " ")
        return f"| {row.name} | {row.what} | | {row.against} | | | | failed: {text} |", [], False
    return line(row, result), result.notes, True


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Everything lies in it until the end: deleting makes some file systems slow for minutes."""
    folder = Path(tempfile.mkdtemp(prefix="conductor-bench-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def main() -> int:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="see that every row runs; no figures")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=names,
                        help=f"of these rows alone: {', '.join(names)}")  # fmt: skip
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    all_ran = True
    with temporary_folder() as folder:
        print("\n".join(describe(size, folder)))
        below: list[str] = []
        for row in ROWS:
            if row.name in options.only:
                text, notes, ran = measure(row, size, folder / row.name)
                print(text, flush=True)
                below += [f"{row.name}: {note}" for note in notes]
                all_ran = all_ran and ran
        print("\n".join(["", *below] if below else []))
    return 0 if all_ran else 1


if __name__ == "__main__":
    raise SystemExit(main())
