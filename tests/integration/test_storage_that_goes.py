"""The runs folder goes away under the server, or is no folder any more: it says so, and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api_server import Server
from tests.helpers import wait_until
from tests.stored_root import StoredRoot

LISTS = (
    "/api/projects", "/api/projects/home-dirs", "/api/projects/demo/tasks", "/api/v1/runs",
    "/api/projects/demo/runs/flat", "/api/v1/tasks", "/api/v1/status", "/api/v1/plans",
    "/api/v1/search?q=x", "/api/v1/totals", "/metrics",
)  # fmt: skip
WRITES: tuple[tuple[str, dict[str, str]], ...] = (
    ("/api/projects/demo/messages", {"body": "x"}),
    ("/api/projects", {"project_id": "new", "project_root": "/"}),
    (
        "/api/v1/tasks",
        {"project_id": "demo", "task_id": "t", "agent_type": "offline", "prompt": "x"},
    ),
)


@pytest.fixture
def root(tmp_path: Path) -> StoredRoot:
    stored = StoredRoot(tmp_path / "root")
    stored.run(stored.task("task-20260101-000000-a"))
    return stored


@pytest.fixture
def server(root: StoredRoot) -> Iterator[Server]:
    with Server(root.path) as made:
        assert made.get("/api/v1/runs").json["runs"]
        yield made
        assert made.process.poll() is None


def test_lists_are_empty_while_the_runs_folder_is_away_and_whole_when_it_is_back(
    root: StoredRoot, server: Server
) -> None:
    away = root.runs_dir.with_name("away")
    root.runs_dir.rename(away)
    assert [server.get(path).status for path in LISTS] == [200] * len(LISTS)
    wait_until(lambda: server.get("/api/v1/runs").json["runs"] == [], what="the end of the runs")
    assert not root.runs_dir.exists(), "reading made it again"
    away.rename(root.runs_dir)
    wait_until(lambda: server.get("/api/v1/runs").json["runs"], what="their return")


def test_what_cannot_be_written_is_refused_for_now_and_says_why(
    root: StoredRoot, server: Server
) -> None:
    root.runs_dir.rename(root.runs_dir.with_name("away"))
    root.runs_dir.write_text("a file\n")
    assert [server.get(path).status for path in LISTS] == [200] * len(LISTS)
    for path, body in WRITES:
        reply = server.send("POST", path, json=body)
        assert (reply.status, reply.error[0]) == (503, "UNAVAILABLE"), path
        assert "Not a directory" in reply.error[1], path
    assert root.runs_dir.read_text() == "a file\n"
