"""bin/list-runs --tasks: task folders of any root, and how they stand."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.helpers import ROOT, run_script
from tests.stored_root import StoredRoot, snapshot

SAMPLE = ROOT / "tests" / "data" / "storage" / "go-storage-sample.tar.gz"


@pytest.fixture
def store(tmp_path: Path) -> StoredRoot:
    return StoredRoot(tmp_path / "root")


def listed(store: StoredRoot, *options: str) -> subprocess.CompletedProcess[str]:
    return run_script("bin/list-runs", "--tasks", *options, "--root", store.path)


def test_the_tasks_of_the_original_are_listed_and_nothing_is_written(store: StoredRoot) -> None:
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(store.runs_dir, filter="data")
    before = snapshot(store.path)
    done = listed(store)
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(store.path) == before
    head, *rows = [line.split() for line in done.stdout.split("\n")[:-1]]
    assert head == ["PROJECT/TASK", "RUNS", "STATUS", "DONE", "BLOCKED_BY", "LAST"]
    assert rows[:3] == [
        ["web/task-20260101-000010-slow", "2", "failed", "-", "-", "2026-11-22T19:51:10Z"],
        ["web/task-20260101-000012-quick", "1", "completed", "yes", "-", "2026-11-22T19:50:19Z"],
        ["web/task-20260101-000011-dep", "1", "blocked", "-", "task-20260101-000010-slow",
         "2026-11-22T19:50:19Z"],
    ]  # fmt: skip
    assert len(rows) == 7


def test_they_can_be_chosen_counted_and_read_by_machines(store: StoredRoot) -> None:
    for n in range(3):
        task = store.task(f"t{n}", depends_on=["none"] if n == 2 else [])
        if n == 0:
            store.run(task, task_id="t0", status="failed", exit_code=4)
    store.task("other", project="else")
    rows = [json.loads(line) for line in listed(store, "--json").stdout.splitlines()]
    assert {(row["task_id"], row["status"], row["exit_code"]) for row in rows} == {
        ("t0", "failed", 4), ("t1", "-", None), ("t2", "blocked", None), ("other", "-", None),
    }  # fmt: skip
    chosen = listed(store, "--project", "demo", "--status", "blocked,failed", "-n1")
    assert chosen.stdout.count("\n") == 2
    assert "1 older tasks are not shown" in chosen.stderr
    none = listed(store, "--project", "nobody")
    assert (none.returncode, none.stdout) == (0, "")
    assert "no such task folders" in none.stderr


@pytest.mark.parametrize("options", [["--agent", "claude"], ["--status", "odd"]])
def test_wrong_usage_is_told(store: StoredRoot, options: list[str]) -> None:
    done = listed(store, *options)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("option", ["--json", "--all"])
def test_a_token_of_the_configuration_of_a_run_is_not_shown(store: StoredRoot, option: str) -> None:
    config = store.path / "config.yaml"
    config.write_text("agents:\n  claude:\n    token: quite-ordinary-words-only\n")
    store.run(store.task("quite-ordinary-words-only"), config=str(config))

    done = listed(store, option)

    assert (done.returncode, done.stderr) == (0, "")
    assert "[REDACTED]" in done.stdout
    assert "ordinary" not in done.stdout
