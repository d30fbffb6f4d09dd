"""A fleet for the bench: run folders that have ended, and live ones that write without end.

    python3 tests/bench/fleet.py FOLDER ENDED LIVE LINES_A_SECOND

Prints a line when all is there; the live runs live as long as this process.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from lib import files, ids, procs, runs, yamlio

TICK_SECONDS = 0.05


def make_run(folder: Path, number: int, *, is_live: bool) -> runs.Run:
    began = time.time() - 3600 + number
    name = f"run_{ids.stamp(began)}-{number + 1000}-task-{number}"
    run = runs.Run(str(folder / "runs" / name), {})
    os.makedirs(run.path)
    run.record = {
        "version": 1,
        "run_id": name,
        "project_id": "bench",
        "task_id": f"task-{number}",
        "agent": "shell",
        "start_time": ids.rfc3339(int(began * 1e9)),
        "end_time": ids.ZERO_TIME if is_live else ids.rfc3339(int((began + 60) * 1e9)),
        "exit_code": -1 if is_live else 0,
        "status": runs.RUNNING if is_live else runs.COMPLETED,
        "supervisor_pid": os.getpid(),
        "input_tokens": 1000 + number,
        "output_tokens": number,
        "cost_usd": 0.01,
        **procs.machine(),
    }
    Path(run.file(runs.RECORD)).write_text(yamlio.dump(run.record))
    Path(run.file(runs.STDOUT)).write_text("begin\n")
    Path(run.file(runs.TRANSCRIPT)).write_text("begin\n")
    return run


def main() -> None:
    folder, ended, live, rate = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    for number in range(ended):
        make_run(folder, number, is_live=False)
    outputs, locks = [], []
    for number in range(ended, ended + live):
        run = make_run(folder, number, is_live=True)
        locks.append(runs.take_lock(run))
        paths = [run.file(name) for name in (runs.STDOUT, runs.TRANSCRIPT)]
        outputs += [os.open(path, os.O_WRONLY | os.O_APPEND) for path in paths]
    print("ready", flush=True)
    line = 0
    due = time.monotonic()
    while True:
        count = int(rate * TICK_SECONDS)
        text = "".join(f"line {line + n}: the agent says something of a usual length, and more\n"
                       for n in range(count)).encode()  # fmt: skip
        for fd in outputs if count else []:
            files.write_all(fd, text)
        line += count
        due += TICK_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
