"""Lists and pages of the API: right about runs and tasks, and as cheap as little has changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lib import ids, runs
from lib.api import facts
from tests.api_app import App
from tests.stored_root import NOON, RUNNING, THIS_MACHINE, StoredRoot, held, write_record

LIVE: dict[str, Any] = {**RUNNING, **THIS_MACHINE, "supervisor_pid": os.getpid()}


@pytest.fixture
def root(tmp_path: Path) -> StoredRoot:
    return StoredRoot(tmp_path / "root")


def app_of(root: StoredRoot) -> App:
    return App(root.runs_dir)


def items(app: App, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = app.ok(f"/api/projects/demo/tasks{query}")["items"]
    return found


def task_ids(app: App, query: str = "") -> list[str]:
    return [item["id"] for item in items(app, query)]


def make_task(root: StoredRoot, task: str, *found: dict[str, Any], **config: Any) -> Path:
    folder = root.task(task, **config)
    for fields in found:
        root.run(folder, task_id=task, **fields)
    return folder


FAILED: dict[str, Any] = {"status": "failed", "exit_code": 3}


@pytest.mark.parametrize(("offset", "has_more"), [(0, True), (2, True), (3, False), (9, False)])
def test_a_page_tells_whether_more_follows(offset: int, has_more: bool) -> None:
    data = facts.answer_page([b"1", b"2"], 5, 2, offset).body
    assert isinstance(data, bytes)
    assert json.loads(data) == {
        "items": [1, 2], "total": 5, "limit": 2, "offset": offset, "has_more": has_more,
    }  # fmt: skip


# -- how tasks stand


def test_a_task_stands_as_its_runs_and_its_folder_tell(root: StoredRoot) -> None:
    make_task(root, "fresh")
    make_task(root, "waits", depends_on=["fresh"])
    make_task(root, "passed", FAILED, {})
    make_task(root, "broke", {}, FAILED)
    (make_task(root, "over", FAILED) / "DONE").touch()
    for task in ("lives", "limps"):
        folder = make_task(root, task, *([FAILED] if task == "limps" else []))
        root.run(folder, name=f"2026010112000{task == 'limps':d}0000-9-9", task_id=task, **LIVE)
    locks = [str(path) for path in root.runs_dir.glob("demo/*/runs/*-9-9")]
    with held(Path(locks[0]) / runs.LOCK), held(Path(locks[1]) / runs.LOCK):
        app = app_of(root)
        found = {item["id"]: item for item in items(app)}
        states = {
            task: app.ok(f"/api/projects/demo/tasks/{task}")["state"] for task in sorted(found)
        }
        v1 = {task["task_id"]: task["status"] for task in app.ok("/api/v1/tasks")["tasks"]}
    assert {task: item["status"] for task, item in found.items()} == {
        "fresh": "-", "waits": "blocked", "passed": "completed", "broke": "failed",
        "over": "all_finished", "lives": "running", "limps": "partial_failure",
    }  # fmt: skip
    assert states == {
        "fresh": "idle", "waits": "blocked", "passed": "idle", "broke": "idle",
        "over": "done", "lives": "running", "limps": "running",
    }  # fmt: skip
    assert v1 == {
        "fresh": "idle", "waits": "blocked", "passed": "idle", "broke": "idle",
        "over": "all_finished", "lives": "running", "limps": "partial_failure",
    }  # fmt: skip
    assert found["limps"]["run_counts"] == {"running": 1, "failed": 1}
    assert found["waits"]["blocked_by"] == ["fresh"]


def test_a_task_in_the_queue_tells_its_place(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_task(root, "fresh")
    make_task(root, "other")
    app = app_of(root)
    assert [item["status"] for item in items(app)] == ["-", "-"]
    monkeypatch.setattr(app.service.queue, "positions", lambda: {("demo", "fresh"): 2})
    found = {item["id"]: item for item in items(app)}
    assert (found["fresh"]["status"], found["fresh"]["queue_position"]) == ("queued", 2)
    assert "queue_position" not in found["other"]
    detail = app.ok("/api/projects/demo/tasks/fresh")
    assert (detail["status"], detail["state"], detail["queue_position"]) == ("queued", "queued", 2)
    assert app.ok("/api/v1/tasks/fresh")["status"] == "queued"
    assert task_ids(app, "?status=queued") == ["fresh"]


def test_tasks_are_filtered_by_status_and_cut_into_pages(root: StoredRoot) -> None:
    for number in range(3):
        make_task(root, f"ok-{number}", {})
    make_task(root, "broke", FAILED)
    (make_task(root, "over", {}) / "DONE").touch()
    app = app_of(root)
    assert task_ids(app) == ["over", "broke", "ok-2", "ok-1", "ok-0"]
    assert task_ids(app, "?status=failed") == ["broke"]
    assert task_ids(app, "?status=DONE") == ["over"]
    assert task_ids(app, "?status=completed") == task_ids(app)
    assert task_ids(app, "?q=OK%201") == ["ok-1"]
    assert task_ids(app, "?q=o&status=failed") == ["broke"]
    page = app.ok("/api/projects/demo/tasks?limit=2&offset=1")
    assert [item["id"] for item in page["items"]] == ["broke", "ok-2"]
    assert (page["total"], page["limit"], page["offset"], page["has_more"]) == (5, 2, 1, True)
    assert app.ok("/api/projects/demo/tasks?offset=9")["items"] == []


def test_a_task_of_two_projects_is_found_by_naming_one(root: StoredRoot) -> None:
    root.task("build", "one")
    root.task("build", "two")
    app = app_of(root)
    reply = app.get("/api/v1/tasks/build")
    assert (reply.status, reply.json["error"]["details"]) == (409, {"task_id": "build"})
    assert app.ok("/api/v1/tasks/build?project_id=two")["project_id"] == "two"
    assert app.get("/api/v1/tasks/build?project_id=a%2Fb").status == 400
    assert app.get("/api/v1/tasks/none").status == 404


def test_a_task_tells_which_message_it_answers(root: StoredRoot) -> None:
    folder = make_task(root, "answer")
    app = app_of(root)
    assert items(app)[0]["thread_parent"] is None
    link = folder / "TASK-THREAD-LINK.yaml"
    link.write_text(
        "parent_project_id: demo\nparent_task_id: ask\nparent_run_id: r1\nparent_message_id: MSG-1\n"
    )
    parent = {"project_id": "demo", "task_id": "ask", "run_id": "r1", "message_id": "MSG-1"}
    app.service.view.refresh()
    assert items(app)[0]["thread_parent"] == parent
    assert app.ok("/api/projects/demo/tasks/answer")["thread_parent"] == parent
    link.write_text("parent_project_id: demo\n")
    assert items(app_of(root))[0]["thread_parent"] is None


# -- runs


def test_a_run_that_lives_has_no_end_and_a_dead_one_says_why(root: StoredRoot) -> None:
    folder = make_task(root, "build")
    lives = root.run(folder, task_id="build", **LIVE)
    dead = root.run(folder, task_id="build", **{**LIVE, "supervisor_pid": 2**22 - 7})
    with held(lives / runs.LOCK):
        app = app_of(root)
        detail = app.ok("/api/projects/demo/tasks/build")
        v1 = {run["run_id"]: run for run in app.ok("/api/v1/runs")["runs"]}
    first, second = detail["runs"]
    assert (first["id"], first["status"], first["exit_code"]) == (lives.name, "running", -1)
    assert "end_time" not in first
    assert v1[lives.name]["end_time"] == ids.ZERO_TIME
    assert (second["id"], second["status"], second["exit_code"]) == (dead.name, "failed", -1)
    assert second["error_summary"] == runs.NEVER_STARTED
    assert detail["status"] == "partial_failure"


def test_a_run_in_full_has_what_the_page_and_the_tools_of_the_original_look_for(
    root: StoredRoot,
) -> None:
    folder = make_task(root, "build")
    run = root.run(
        folder, task_id="build", cwd="/src/app", commandline="claude -p", pid=7, pgid=7,
        input_tokens=12, cost_usd=0.5, model="opus", agent="claude",
    )  # fmt: skip
    child = root.run(folder, task_id="build", parent_run_id=run.name)
    for name in ("agent-stdout.txt", "output.md", "transcript.md"):
        (run / name).write_text("text")
    (run / "prompt.md").symlink_to(run / "output.md")
    app = app_of(root)
    shown = app.ok(f"/api/projects/demo/tasks/build/runs/{run.name}")
    expected = {
        "id": run.name, "run_id": run.name, "project_id": "demo", "task_id": "build",
        "cwd": "/src/app", "pid": 7, "pgid": 7, "commandline": "claude -p", "version": 1,
        "input_tokens": 12, "cost_usd": 0.5, "model": "opus", "children": [child.name],
        "path": str(run),
    }  # fmt: skip
    assert {key: shown[key] for key in expected} == expected
    assert [(file["name"], file["size"]) for file in shown["files"]] == [
        ("output.md", 4), ("stdout", 4), ("transcript.md", 4),
    ]  # fmt: skip
    detail = app.ok("/api/projects/demo/tasks/build")
    assert [item["run_id"] for item in detail["runs"]] == [run.name, child.name]
    assert app.get("/api/projects/demo/tasks/other/runs/" + run.name).status == 404


def test_a_folder_that_waits_for_its_run_is_no_run_yet(root: StoredRoot) -> None:
    folder = make_task(root, "build")
    (folder / "runs" / "20260101-1200000000-7-1").mkdir(parents=True)
    app = app_of(root)
    assert app.ok("/api/projects/demo/tasks/build")["runs"] == []
    assert app.ok("/api/v1/runs") == {"runs": []}
    assert app.get("/api/v1/runs/20260101-1200000000-7-1").status == 404
    assert app.get("/api/projects/demo/tasks/build/runs/20260101-1200000000-7-1").status == 404
    assert app.get("/api/projects/demo/tasks/build/runs").status == 404
    assert app.ok("/api/projects/demo/stats")["crashed_runs"] == 1


def test_flat_runs_stand_under_their_recorded_project_and_task(root: StoredRoot) -> None:
    run = root.run(project_id="plan", task_id="build", **FAILED)
    app = app_of(root)
    assert [project["id"] for project in app.ok("/api/projects")["projects"]] == ["plan"]
    assert app.ok("/api/projects/plan/stats")["total_runs"] == 1
    page = app.ok("/api/projects/plan/tasks")["items"]
    assert [(item["id"], item["status"], item["run_count"]) for item in page] == [
        ("build", "failed", 1)
    ]
    address = f"/api/projects/plan/tasks/build/runs/{run.name}"
    assert app.ok(address)["exit_code"] == 3
    assert app.ok("/api/projects/plan/runs/flat")["runs"][0]["id"] == run.name
    assert app.ok("/api/v1/tasks/build")["runs"][0]["run_id"] == run.name
    assert app.get("/api/projects/plan/tasks/build/file?name=TASK.md").status == 404
    record = app.get(f"/api/v1/runs/{run.name}/info")
    assert record.headers["content-type"] == "application/x-yaml"
    assert record.body == (run / "run-info.yaml").read_bytes()


def test_times_are_those_of_the_record_or_put_right(root: StoredRoot) -> None:
    folder = make_task(root, "build")
    times = {
        "2026-01-01T12:00:00.5Z": "2026-01-01T12:00:00.5Z",
        "2026-01-01T14:00:01+02:00": "2026-01-01T12:00:01.000000000Z",
        "2026-01-01 12:00:02": "2026-01-01T12:00:02.000000000Z",
        "2999-12-31T23:59:59Z": "2999-12-31T23:59:59Z",
    }
    for written in times:
        root.run(folder, task_id="build", start_time=written, end_time=written)
    found = app_of(root).ok("/api/projects/demo/runs/flat")["runs"]
    assert [run["start_time"] for run in found] == list(times.values())
    assert [run["end_time"] for run in found] == list(times.values())


@pytest.mark.parametrize("written", ["", "soon", "0000-01-01T00:00:00Z", "-999-01-01T00:00:00Z"])
def test_a_time_that_is_none_is_the_zero_time(root: StoredRoot, written: str) -> None:
    folder = make_task(root, "build")
    root.run(folder, name="odd", task_id="build", start_time=written, end_time=written)
    run = app_of(root).ok("/api/v1/runs")["runs"][0]
    assert (run["start_time"], run["end_time"]) == (ids.ZERO_TIME, ids.ZERO_TIME)


# -- projects


def test_projects_are_those_with_tasks_or_a_marker(root: StoredRoot) -> None:
    make_task(root, "build", {"cwd": "/src/app"})
    make_task(root, "test", {"cwd": "/src/other"})
    root.task("waits", "later")
    (root.runs_dir / "marked").mkdir()
    (root.runs_dir / "marked" / "PROJECT-ROOT.txt").write_text("/src/marked\n")
    (root.runs_dir / "_audit").mkdir()
    app = app_of(root)
    found = {project["id"]: project for project in app.ok("/api/projects")["projects"]}
    assert sorted(found) == ["demo", "later", "marked"]
    assert found["demo"]["project_root"] == "/src/app"
    assert (found["marked"]["project_root"], found["marked"]["task_count"]) == ("/src/marked", 0)
    assert found["marked"] == app.ok("/api/projects/marked")
    assert app.ok("/api/projects/home-dirs")["dirs"] == ["/src/app", "/src/marked", "/src/other"]
    assert app.get("/api/projects/_audit").status == 404
    assert app.ok("/api/projects/_audit/stats")["total_tasks"] == 0


def test_a_folder_inside_the_storage_is_no_source_folder(root: StoredRoot) -> None:
    inside = str(root.runs_dir / "demo" / "build")
    moved = "/old/store/demo/build"
    prompt = f"{moved}/runs/r/prompt.md"
    make_task(root, "build", {"cwd": inside}, {"cwd": moved, "prompt_path": prompt})
    app = app_of(root)
    assert "project_root" not in app.ok("/api/projects/demo")
    assert app.ok("/api/projects/home-dirs") == {"dirs": []}


def test_a_project_is_as_old_as_its_last_run(root: StoredRoot) -> None:
    make_task(root, "waits")  # its TASK.md is of today
    assert app_of(root).ok("/api/projects/demo")["last_activity"] > "2026-11"
    make_task(root, "build", {})
    ended = ids.rfc3339((NOON + 99) * 10**9)
    assert app_of(root).ok("/api/projects/demo")["last_activity"] == ended


# -- files


def test_a_folder_that_is_replaced_by_a_link_is_not_read(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_task(root, "build", {})
    run = next((folder / "runs").iterdir())
    (run / runs.STDOUT).write_text("text")
    app = app_of(root)
    monkeypatch.setattr("lib.api.view.FRESH_SECONDS", 3600.0)
    address = f"/api/projects/demo/tasks/build/runs/{run.name}/file"
    assert app.ok(address)["content"] == "text"
    folder.rename(root.path / "elsewhere")
    folder.symlink_to(root.path / "elsewhere")
    for asked in (
        address,
        f"/api/v1/runs/{run.name}/info",
        "/api/projects/demo/tasks/build/file?name=TASK.md",
    ):
        assert app.get(asked).status == 403, asked


def test_a_huge_file_is_cut_to_its_end(root: StoredRoot) -> None:
    run = root.run(make_task(root, "build"), task_id="build")
    text = "".join(f"line {number:07d}\n" for number in range(1_000_000))
    (run / "agent-stdout.txt").write_text(text)
    shown = app_of(root).ok(f"/api/projects/demo/tasks/build/runs/{run.name}/file?tail=1500")
    assert shown["truncated"] is True
    assert shown["size_bytes"] == 13_000_000
    assert shown["content"].startswith("line ")
    assert shown["content"].endswith("line 0999999\n")
    assert 8_000_000 < len(shown["content"]) <= 8 << 20


# -- what is kept of them


def test_what_changes_is_seen_and_what_does_not_is_not_looked_at(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        make_task(root, f"task-{number}", {}, {})
    lives = root.run(make_task(root, "build"), task_id="build", **LIVE)
    app = app_of(root)
    addresses = [
        "/api/projects", "/api/projects/home-dirs", "/api/projects/demo",
        "/api/projects/demo/stats", "/api/projects/demo/tasks", "/api/projects/demo/runs/flat",
        "/api/projects/demo/runs/flat?active_only=1", "/api/v1/runs", "/api/v1/tasks",
        "/api/projects/demo/runs/flat?active_only=1&selected_task_id=task-3&selected_task_limit=1",
    ]  # fmt: skip
    with held(lives / runs.LOCK):
        before = [app.ok(address) for address in addresses]
        looked: list[str] = []
        really = os.lstat

        def note(path: str) -> os.stat_result:
            looked.append(str(path))
            return really(path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "lstat", note)
            patch.setattr("lib.api.view.FRESH_SECONDS", 3600.0)
            app.service.view.refresh()
            looked.clear()
            assert [app.ok(address) for address in addresses] == before
        assert [path for path in looked if "/runs/2026" in path and lives.name not in path] == []
    write_record(lives, task_id="build", start_time=ids.rfc3339((NOON + 50) * 10**9), exit_code=5,
                 status="failed")  # fmt: skip
    app.service.view.refresh()
    detail = app.ok("/api/projects/demo/tasks/build")
    assert (detail["status"], detail["runs"][0]["exit_code"]) == ("failed", 5)
    assert {run["id"]: run for run in app.ok(addresses[5])["runs"]}[lives.name]["exit_code"] == 5
    assert app.ok("/api/projects/demo/stats")["failed_runs"] == 1
    assert len(app.ok("/api/v1/runs")["runs"]) == 41


def test_a_task_that_was_made_a_moment_ago_is_found(root: StoredRoot) -> None:
    app = app_of(root)
    assert app.ok("/api/projects/demo/tasks")["items"] == []
    run = root.run(make_task(root, "build"), task_id="build")
    assert app.ok(f"/api/projects/demo/tasks/build/runs/{run.name}")["id"] == run.name
    make_task(root, "next")
    assert app.ok("/api/projects/demo/tasks/next")["runs"] == []
    assert app.ok("/api/projects/demo/tasks/next/file?name=TASK.md")["content"] == "Do it.\n"
