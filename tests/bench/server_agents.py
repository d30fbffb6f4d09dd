"""Agents for the bench of the server: live runs in one process, which write what they are told.

    python3 tests/bench/server_agents.py RUNS_DIR AGENTS

Says `ready`, then answers each line of stdin with one of JSON:

    write RATE SECONDS   every agent, so many lines a second: how many were written
    burst LINES          one agent, with one write: how many
    begin COUNT          new runs, one after another: when each began, by its id; those of
                         the last time end
    change SECONDS       the record of one run is replaced again and again: how often
    post BUS COUNT       messages, one after another: how many

A line and a message say when they were written: `t=NANOSECONDS;`.  The runs live
until stdin ends.
"""

from __future__ import annotations

import heapq
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from lib import bus, ids
from tests.bench.server_tree import PROJECT, task_name
from tests.log_fleet import LiveRun
from tests.stored_root import RUNNING

PAUSE_SECONDS = 0.15  # between two runs that begin, and between two messages
CHANGES_A_SECOND = 20
TEXT = "the agent says something of a usual length, and more"


def stamped(text: str = TEXT) -> str:
    return f"t={time.time_ns()}; {text}"


def sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


class Agents:
    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.live: list[LiveRun] = []
        self.lately: list[LiveRun] = []  # begun by `begin`
        self.made = 0

    def begin_one(self, task: str) -> tuple[str, int]:
        """A live run with a line of output; its id, and when its folder was about to be made."""
        self.made += 1
        name = f"{ids.stamp(time.time())}0000-{os.getpid()}-{self.made}"
        folder = self.runs_dir / PROJECT / task
        began = time.time_ns()
        (folder / "runs" / name).mkdir(parents=True)
        run = LiveRun(folder / "runs" / name)
        run.write_record(project_id=PROJECT, task_id=task, **RUNNING)
        run.write_raw("stdout", b"begin\n")
        self.live.append(run)
        return name, began

    def begin(self, count: str) -> dict[str, int]:
        """In turn in a task that there is, and in a new one."""
        kept, found = len(self.live), {}
        for run in self.lately:
            task = run.path.parent.parent.name
            run.write_record(project_id=PROJECT, task_id=task, end_time=ids.rfc3339())
            run.close()
        for number in range(int(count)):
            known, new = task_name(number // 2), f"task-20260102-{number:06d}-new"
            name, began = self.begin_one(new if number % 2 else known)
            found[name] = began
            time.sleep(PAUSE_SECONDS)
        self.lately, self.live = self.live[kept:], self.live[:kept]
        return found

    def write(self, rate: str, seconds: str) -> int:
        """Each agent at moments of its own, a line and a write each time."""
        period, count = 1 / float(rate), len(self.live)
        began = time.monotonic()
        due = [(began + period * n / count, n) for n in range(count)]
        written = 0
        while due[0][0] < began + float(seconds):
            moment, number = due[0]
            sleep_until(moment)
            self.live[number].write_raw("stdout", f"{stamped()}\n".encode())
            heapq.heapreplace(due, (moment + period, number))
            written += 1
        return written

    def burst(self, lines: str) -> int:
        text = stamped()
        self.live[0].write_raw("stdout", f"{text}\n".encode() * int(lines))
        return int(lines)

    def change(self, seconds: str) -> int:
        began, count = time.monotonic(), 0
        while time.monotonic() < began + float(seconds):
            count += 1
            run = self.live[0]
            task = run.path.parent.parent.name
            run.write_record(project_id=PROJECT, task_id=task, input_tokens=count, **RUNNING)
            sleep_until(began + count / CHANGES_A_SECOND)
        return count

    def post(self, path: str, count: str) -> int:
        for _ in range(int(count)):
            bus.append(path, type_="PROGRESS", body=stamped(), durable=False, environ={})
            time.sleep(PAUSE_SECONDS)
        return int(count)


def main() -> None:
    agents = Agents(Path(sys.argv[1]))
    for number in range(int(sys.argv[2])):
        agents.begin_one(task_name(number))
    print("ready", flush=True)
    work: dict[str, Callable[..., object]] = {"write": agents.write, "burst": agents.burst, "begin": agents.begin,
            "change": agents.change, "post": agents.post}  # fmt: skip
    for line in sys.stdin:
        name, *words = line.split()
        print(json.dumps(work[name](*words)), flush=True)


if __name__ == "__main__":
    main()
