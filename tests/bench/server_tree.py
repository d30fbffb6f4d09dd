"""A runs folder for the bench of the server: tasks of one project, each with a chain of ended runs."""

from __future__ import annotations

import os
from pathlib import Path

from lib import bus, ids, paths, runs, yamlio
from tests.stored_root import NOON

PROJECT = "bench"
RUNS_OF_A_TASK = 10
FAILS = 7  # every so manieth run
OUTPUT = "".join(f"line {n}: the agent says something of a usual length\n" for n in range(20))


def task_name(number: int) -> str:
    return f"task-20260101-{number:06d}-work"


def write_tree(runs_dir: Path, tasks: int) -> None:
    """Everything in it has been at rest for long, as the greatest part of a real root has."""
    for number in range(tasks):
        folder = runs_dir / PROJECT / task_name(number)
        (folder / "runs").mkdir(parents=True)
        (folder / "TASK.md").write_text("Do it.\n")
        previous = ""
        for turn in range(RUNS_OF_A_TASK):
            previous = _write_run(folder, number * RUNS_OF_A_TASK + turn, previous)
        for path in (folder / "runs", folder):
            os.utime(path, (NOON, NOON))
    write_bus(runs_dir / PROJECT, tasks, paths.BUS_NAMES[1])
    os.utime(runs_dir / PROJECT, (NOON, NOON))


def write_bus(folder: Path, messages: int, name: str = paths.BUS_NAMES[0]) -> Path:
    path = folder / name
    for number in range(messages):
        body = f"{number}: a line of progress\n\n- and a list\n- of two\n" * 3
        bus.append(str(path), type_="PROGRESS", body=body, durable=False, environ={})
    return path


def _write_run(folder: Path, number: int, previous: str) -> str:
    began = NOON + 10 * number
    name = f"{ids.stamp(began)}0000-77-{number}"
    path = folder / "runs" / name
    path.mkdir()
    is_ok = bool(number % FAILS)
    record: dict[str, object] = {
        "version": 1, "run_id": name, "project_id": PROJECT, "task_id": folder.name,
        "agent": "claude", "process_ownership": "managed", "pid": 99999, "pgid": 99999,
        "start_time": ids.rfc3339(began * ids.NANOSECONDS),
        "end_time": ids.rfc3339((began + 9) * ids.NANOSECONDS),
        "exit_code": 0 if is_ok else 1,
        "status": runs.COMPLETED if is_ok else runs.FAILED,
        "cwd": "/src/demo", "commandline": "claude -p", "agent_version": "2.1.50 (Claude Code)",
        "input_tokens": 1000, "output_tokens": 50, "cost_usd": 0.01,
        **({"previous_run_id": previous} if previous else {}),
    }  # fmt: skip
    texts = {
        runs.RECORD: yamlio.dump(record), runs.STDOUT: OUTPUT, runs.STDERR: "",
        runs.PROMPT: "Do it.\n", runs.OUTPUT: "done\n",
    }  # fmt: skip
    for file, text in texts.items():
        (path / file).write_text(text)
    return name
