"""A runs folder made by hand, for tests of what reads and cleans it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lib import files, ids, procs, runs, yamlio

LONG_AGO = 1_700_000_000 * ids.NANOSECONDS
NOON = 1_767_268_800  # 2026-01-01T12:00:00Z
THIS_MACHINE: dict[str, Any] = dict(procs.machine())
RUNNING: dict[str, Any] = {"status": "running", "exit_code": -1, "end_time": ids.ZERO_TIME}


class StoredRoot:
    """A runs folder in the making; whatever was made is old, so that folders have settled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs_dir = path / "runs"
        self.runs_dir.mkdir(parents=True)
        self._made = 0

    def run(self, parent: Path | None = None, name: str = "", **fields: object) -> Path:
        """A run that completed on 2026-01-01, flat or in the task folder `parent`."""
        self._made += 1
        stamp = ids.stamp(NOON + self._made)
        where = parent / "runs" if parent else self.runs_dir
        name = name or (f"{stamp}0000-7-{self._made}" if parent else f"run_{stamp}-{self._made}")
        folder = where / name
        folder.mkdir(parents=True)
        start = ids.rfc3339((NOON + self._made) * 10**9)
        write_record(folder, **{"start_time": start, **fields})
        self.settle()
        return folder

    def task(self, task: str, project: str = "demo", **config: object) -> Path:
        folder = self.runs_dir / project / task
        folder.mkdir(parents=True)
        (folder / "TASK.md").write_text("Do it.\n")
        if config:
            (folder / "TASK-CONFIG.yaml").write_text(yamlio.dump(config))
        self.settle()
        return folder

    def settle(self) -> None:
        for folder, _, _ in os.walk(self.runs_dir):
            os.utime(folder, ns=(LONG_AGO, LONG_AGO + os.stat(folder).st_mtime_ns % 10**9))


def write_record(folder: Path, **fields: object) -> None:
    record: dict[str, object] = {
        "version": 1, "run_id": folder.name, "project_id": "demo", "task_id": "build",
        "agent": "shell", "pid": 0, "pgid": 0, "start_time": ids.rfc3339(NOON * 10**9),
        "end_time": ids.rfc3339((NOON + 99) * 10**9), "exit_code": 0, "status": "completed",
        "agent_version": "", **fields,
    }  # fmt: skip
    files.replace_file(str(folder / runs.RECORD), yamlio.dump(record).encode(), durable=False)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """As long as it lasts, the lock file is locked: a run of that lock has a supervisor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that a writer could change."""
    return {
        str(path): (
            path.lstat().st_mtime_ns, path.lstat().st_mode, path.lstat().st_size,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    }  # fmt: skip
