"""The overview of the API: what is current, what needs somebody, and the command that helps."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lib import bus, files, ids, redact, runs, state, yamlio
from lib.index import Index
from lib.index_entries import Changes
from lib.monitor.facts import Observer
from lib.plan import load_plan
from tests.api_app import App, faults
from tests.stored_root import RUNNING, THIS_MACHINE, StoredRoot, held, snapshot

SECRET = "ghp_" + "0123456789abcdef" * 2
USED: dict[str, Any] = {"input_tokens": 100, "output_tokens": 7, "cost_usd": 0.25}
ZEROS = dict.fromkeys(
    ("done", "running", "waiting", "blocked", "failed", "quota", "pending"), 0
)  # fmt: skip
HOUR = 3600.0


def ago(seconds: float) -> str:
    return ids.rfc3339(time.time_ns() - int(seconds * 1e9))


def ended(seconds_ago: float, **fields: Any) -> dict[str, Any]:
    """A record of a run of 10 s that ended then."""
    return {"start_time": ago(seconds_ago + 10), "end_time": ago(seconds_ago), **fields}


FAILED: dict[str, Any] = {"status": "failed", "exit_code": 3, "error_summary": "The disk is full"}


class Made(StoredRoot):
    """A root with plans, and with runs and locks that this process holds."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.locks = ExitStack()
        self.app = App(self.runs_dir)

    def look(self) -> Any:
        """The overview of this moment, which is as it is described."""
        self.app.service.view.notice([])
        reply = self.app.get("/api/v1/overview")
        assert reply.status == 200, reply.body[:500]
        assert faults("/api/v1/overview", reply) == []
        return reply.json

    def done(self, task: str, seconds_ago: float = HOUR, **fields: Any) -> Path:
        """A task folder with a run that ended."""
        folder = self.runs_dir / "demo" / task
        folder = folder if folder.exists() else self.task(task)
        return self.run(folder, task_id=task, **ended(seconds_ago, **fields))

    def live(self, task: str, **fields: Any) -> Path:
        """A flat run that lives."""
        path = self.run(
            task_id=task, **{**THIS_MACHINE, "supervisor_pid": os.getpid(), **RUNNING,
                             "start_time": ago(60), **fields},
        )  # fmt: skip
        self.locks.enter_context(held(path / runs.LOCK))
        return path

    def loop(self, task: str, where: str, *, is_live: bool = False, **fields: Any) -> None:
        folder = self.runs_dir / "demo" / task
        folder = folder if folder.exists() else self.task(task)
        text = yamlio.dump({"version": 1, "state": where, **fields}, depth=2)
        files.replace_file(str(folder / "TASK-LOOP.yaml"), text.encode(), durable=False)
        if is_live:
            self.locks.enter_context(held(folder / "LOOP.lock"))

    def plan(self, tasks: dict[str, state.TaskState], project: str = "p", **header: Any) -> Path:
        """A plan file and the state of its project; `is_run=True`: somebody runs it."""
        is_run = header.pop("is_run", False)
        file = self.path / f"{project} plan.yaml"
        each = [
            {"id": name, "prompt": "x", "agent": "shell", "title": f"The {name}"} for name in tasks
        ]
        stages = [{"id": "one", "tasks": each}]
        file.write_text(json.dumps({"project": project, "title": "All of it", "stages": stages}))
        loaded = load_plan(str(file))
        kept = state.PlanState(str(self.runs_dir), project)
        os.makedirs(kept.folder, exist_ok=True)
        kept.header = {
            "plan": loaded.path, "plan_sha256": loaded.sha256, "started": ago(100), **header,
        }  # fmt: skip
        kept.tasks = tasks
        kept.replace()
        kept.close()
        if is_run:
            self.locks.enter_context(held(Path(kept.folder) / state.LOCK_NAME))
        return file


def stands(where: str, *attempts: state.Attempt, **fields: Any) -> state.TaskState:
    entry = state.TaskState()
    entry.state, entry.attempts = where, list(attempts)
    for name, value in fields.items():
        setattr(entry, name, value)
    return entry


def attempt(run: str, result: str = "done", **fields: Any) -> state.Attempt:
    return {
        "unit": "a", "run": run, "agent": "shell", "result": result,
        "started": ago(50), "ended": ago(40), **fields,
    }  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.setattr("lib.api.overview_state.STANDS_SECONDS", 0.0)
    made = Made(tmp_path / "the root")
    with made.locks:
        yield made


# -- what is current


def test_an_empty_root_has_an_overview_without_anything(root: Made) -> None:
    before = snapshot(root.path)
    found = root.look()
    assert (found["counts"], found["total"]) == (ZEROS, 0)
    assert [found[key] for key in ("problems", "live", "plans", "projects")] == [[], [], [], []]
    nothing = ("since", "elapsed_seconds", "seconds_left", "last_event")
    assert [found[key] for key in nothing] == [None] * 4
    assert found["usage"]["cost_usd"] is None
    assert found["disk"]["total_bytes"] >= found["disk"]["free_bytes"] > 0
    assert snapshot(root.path) == before


def test_a_runs_folder_that_is_not_there_has_one_too(tmp_path: Path) -> None:
    reply = App(tmp_path / "nowhere").get("/api/v1/overview")
    assert faults("/api/v1/overview", reply) == []
    assert reply.json["disk"] == {"free_bytes": None, "total_bytes": None}
    assert reply.json["run_total"] == 0


def test_each_task_in_the_scope_of_a_plan_counts_as_it_stands(root: Made) -> None:
    tasks = {
        "a": stands("done"), "b": stands("running", attempt("run_b", "running")),
        "c": stands("verifying"), "d": stands("pending"), "e": stands("failed", why="no"),
        "f": stands("blocked"), "g": stands("waiting", why="waits for claude's quota"),
        "h": stands("pending", until=ago(-HOUR)), "i": stands("done"),
    }  # fmt: skip
    root.plan(tasks, is_run=True, scope=list("abcdefgh"))
    found = root.look()
    counts = {"done": 1, "running": 2, "pending": 1, "failed": 1, "blocked": 1, "quota": 1}
    assert found["counts"] == {**counts, "waiting": 1}
    assert found["total"] == 8


def test_what_was_at_work_when_a_plan_was_cut_off_does_not_run(root: Made) -> None:
    root.plan({"a": stands("running", attempt("run_a", "running")), "b": stands("running")})
    root.live("b", project_id="p")
    assert root.look()["counts"] == {**ZEROS, "pending": 1, "running": 1}


def test_a_plan_that_ended_long_ago_is_listed_and_not_counted(root: Made) -> None:
    root.plan({"a": stands("done"), "b": stands("failed")}, ended=ago(25 * HOUR), exit_code=1)
    found = root.look()
    assert (found["total"], found["problems"]) == (0, [])
    [plan] = found["plans"]
    assert (plan["project_id"], plan["state"], plan["title"]) == ("p", "failed", "All of it")


def test_tasks_outside_of_plans_count_while_they_live_and_for_a_day(root: Made) -> None:
    root.done("good")
    root.done("bad", **FAILED)
    root.done("stopped", **FAILED, stopped=True)
    root.done("old", 25 * HOUR, **FAILED)
    root.live("runs")
    root.loop("pauses", "restarting", is_live=True, until=ago(-HOUR))
    attempts = [{"result": "quota"}]
    root.loop("limited", "restarting", is_live=True, until=ago(-HOUR), attempts=attempts)
    root.loop("begins", "running", is_live=True)
    root.done("gave-up", **FAILED)
    root.loop("gave-up", "failed", ended=ago(HOUR))
    root.done("open")
    root.loop("open", "stopped")
    assert root.look()["counts"] == {
        "done": 1, "running": 2, "waiting": 1, "blocked": 0, "failed": 2, "quota": 1, "pending": 2,
    }  # fmt: skip


def test_a_task_of_a_current_plan_counts_once_and_also_a_review_of_it(root: Made) -> None:
    root.plan({"a": stands("running", attempt("x", "running"))}, is_run=True)
    for task in ("a", "a@claude", "a@codex"):
        root.live(task, project_id="p")
    found = root.look()
    assert (found["total"], found["counts"]["running"]) == (1, 1)
    assert [run["title"] for run in found["live"]] == ["The a"] * 3


def test_use_and_time_are_those_of_what_is_current(root: Made) -> None:
    path = root.live("a", project_id="p", **USED)
    tasks = {
        "a": stands("running", attempt("run_1", "failed", **USED), attempt(path.name, "running"))
    }
    root.plan(tasks, is_run=True)
    root.done("other", 2 * HOUR, **USED)
    root.done("other", 30 * HOUR, **USED)  # too long ago
    root.done("silent", HOUR)
    found = root.look()
    used = found["usage"]
    assert (used["input_tokens"], used["output_tokens"], used["cost_usd"]) == (300, 21, 0.75)
    assert (used["runs_without_tokens"], used["runs_without_cost"]) == (1, 1)
    assert 2 * HOUR + 9 < found["elapsed_seconds"] < 2 * HOUR + 100
    assert ids.parse_rfc3339(found["since"]) < time.time_ns() - 2 * HOUR * 1e9  # type: ignore[operator]


def test_a_sum_of_children_is_not_added_to_the_children(root: Made) -> None:
    root.done("t", 3 * HOUR, **USED)
    root.done("t", 2 * HOUR, **USED)
    root.done("t", 1 * HOUR, includes_children=True, input_tokens=200, cost_usd=0.5)
    assert root.look()["usage"]["input_tokens"] == 200


def test_time_stands_still_once_all_has_ended(root: Made) -> None:
    root.done("a", 2 * HOUR)
    root.done("b", HOUR)
    assert root.look()["elapsed_seconds"] == pytest.approx(HOUR + 10, abs=1)


def test_the_share_of_a_task_ends_a_day_after_its_runs(
    root: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.done("a", 2 * HOUR, **USED)
    assert root.look()["total"] == 1
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + int(23 * HOUR * 1e9))
    found = root.look()
    assert (found["total"], found["usage"]["cost_usd"]) == (0, None)


# -- problems


def cures(root: Made) -> list[tuple[str, list[str]]]:
    found = root.look()
    return [(item["kind"], shlex.split(item["command"])) for item in found["problems"]]


def test_each_problem_has_the_command_that_helps(root: Made) -> None:
    place = ["--root", str(root.path)]
    file = root.plan({"a": stands("failed", why="no"), "b": stands("pending")})
    assert cures(root) == [
        ("plan stopped", ["./run-all-tasks.py", str(file), *place]),
        ("failed", ["./run-all-tasks.py", str(file), "--retry-failed", *place]),
    ]
    root.plan({"a": stands("done")}, ended=ago(1), exit_code=0)
    failed = root.done("bad", **FAILED)
    root.done("gave-up", **FAILED)
    root.loop("gave-up", "failed", ended=ago(HOUR))
    root.loop("lost", "running")
    silent = root.live("silent", silent_since=ago(30), stdout_bytes=0)
    assert cures(root) == [
        ("loop gone", ["bin/run-task", "--project", "demo", "--task", "lost", *place]),
        ("silent", ["bin/stop-run", *place, silent.name]),
        ("failed", ["bin/run-task", "--project", "demo", "--task", "gave-up", "--resume", *place]),
        ("failed", ["bin/show-run", *place, failed.name]),
    ]
    severities = {item["kind"]: item["severity"] for item in root.look()["problems"]}
    assert severities == {"loop gone": "bad", "silent": "warn", "failed": "bad"}


def test_a_plan_is_gone_on_with_in_the_manner_of_its_last_start(root: Made) -> None:
    manner: dict[str, Any] = {
        "cwd": str(root.path), "config": "", "root": str(root.path),
        "runs_dir": str(root.runs_dir), "bus": str(root.path / "MESSAGE-BUS.md"),
        "options": {"agent": "offline", "keep_going": True},
    }  # fmt: skip
    file = root.plan({"a": stands("failed")}, ended=ago(1), exit_code=1, **manner)
    [(_, words)] = cures(root)
    assert words[:2] == ["./run-all-tasks.py", str(file)]
    assert {"--agent", "offline", "--keep-going", "--retry-failed"} < set(words)


def test_no_command_starts_a_plan_whose_file_has_vanished(root: Made) -> None:
    run = root.run(task_id="a", project_id="p", **ended(40, **FAILED))
    file = root.plan({"a": stands("failed", attempt(run.name, "failed")), "b": stands("pending")})
    assert root.look()["plans"][0]["title"] == "All of it"
    file.unlink()
    place = ["--root", str(root.path)]
    assert cures(root) == [("plan stopped", []), ("failed", ["bin/show-run", *place, run.name])]


def test_while_a_plan_runs_it_is_not_started_again(root: Made) -> None:
    run = root.run(task_id="a", project_id="p", **ended(40, **FAILED))
    root.plan({"a": stands("failed", attempt(run.name, "failed"))}, is_run=True)
    assert cures(root) == [("failed", ["bin/show-run", "--root", str(root.path), run.name])]


@pytest.mark.parametrize("name", ["a; rm -rf ~", "$(id)", "`id`", "a'b\"c", "-rf", "a b  c"])
def test_a_hostile_name_stays_one_word_of_its_command(root: Made, name: str) -> None:
    root.loop(name, "running")
    [(kind, words)] = cures(root)
    assert kind == "loop gone"
    assert words[words.index("--task") + 1] == name


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\u202eb", SECRET])
def test_a_name_that_cannot_be_shown_as_it_is_gives_no_command(root: Made, name: str) -> None:
    root.loop(name, "running")
    [problem] = root.look()["problems"]
    assert problem["command"] == ""
    assert name not in problem["text"]


def test_a_run_whose_name_looks_like_an_option_stays_a_run(root: Made) -> None:
    folder = root.task("t")
    root.run(folder, name="-x", task_id="t", **ended(HOUR, **FAILED))
    [(_, words)] = cures(root)
    assert words[-2:] == ["--", "-x"]


def test_of_many_problems_the_first_ones_are_told_and_all_are_counted(root: Made) -> None:
    for number in range(203):
        root.loop(f"lost-{number}", "running")
    found = root.look()
    assert (len(found["problems"]), found["problem_total"]) == (200, 203)


# -- what runs, plans, projects


def test_what_runs_is_told_with_its_last_line_and_its_title(root: Made) -> None:
    root.plan({"a": stands("running")}, is_run=True)
    run = root.live("a", project_id="p", agent="claude", model="opus", **USED)
    (run / runs.STDOUT).write_text("one\n\x1b[31mtwo\x1b[0m\n")
    [found] = root.look()["live"]
    assert (found["run_id"], found["agent"], found["model"]) == (run.name, "claude", "opus")
    assert (found["title"], found["status"]) == ("The a", "running")
    assert 59 < found["seconds"] < 120
    assert "two" in found["last_line"]
    assert "\x1b" not in found["last_line"]
    assert (found["input_tokens"], found["cost_usd"], found["cost_estimated"]) == (100, 0.25, False)


def test_plans_that_run_come_first_and_few_are_told(root: Made) -> None:
    for number in range(22):
        root.plan({"a": stands("done")}, f"p{number:02}", ended=ago(1000 - number))
    root.plan({"a": stands("running")}, "old", is_run=True, started=ago(50 * HOUR))
    found = root.look()
    names = [plan["project_id"] for plan in found["plans"]]
    assert (names[0], names[1], len(names), found["plan_total"]) == ("old", "p21", 20, 23)


def test_a_plan_that_changes_is_told_anew(root: Made) -> None:
    root.plan({"a": stands("pending")}, is_run=True)
    first = root.look()
    assert (first["plans"][0]["counts"], first["usage"]["cost_usd"]) == ({"pending": 1}, None)
    root.plan({"a": stands("done", attempt("run_a", **USED))})
    second = root.look()
    assert (second["plans"][0]["counts"], second["usage"]["cost_usd"]) == ({"done": 1}, 0.25)


def test_a_task_that_changes_counts_anew(root: Made) -> None:
    root.done("a", 2 * HOUR, **FAILED)
    assert root.look()["counts"] == {**ZEROS, "failed": 1}
    root.done("a", HOUR, **USED)
    found = root.look()
    assert (found["counts"], found["usage"]["cost_usd"]) == ({**ZEROS, "done": 1}, 0.25)
    (root.runs_dir / "demo" / "a" / "DONE").touch()
    root.loop("a", "failed", ended=ago(1))
    assert root.look()["counts"] == {**ZEROS, "done": 1}


def test_projects_are_told_newest_first_with_how_many_runs(root: Made) -> None:
    root.done("a", HOUR, **FAILED)
    root.done("b", 2 * HOUR, **FAILED)
    root.done("b", HOUR)
    root.live("c")
    root.run(root.task("x", "early"), project_id="early", task_id="x")
    found = root.look()
    first, second = found["projects"]
    assert (first["id"], first["task_count"], first["run_count"]) == ("demo", 3, 4)
    assert (first["live_count"], first["failed_count"]) == (1, 1)
    assert (second["id"], second["live_count"], found["run_total"]) == ("early", 0, 5)
    assert second["last_activity"].startswith("2026-01-01")


def test_the_last_event_is_the_newest_message(root: Made) -> None:
    path = str(root.path / "MESSAGE-BUS.md")
    for body in ("first", f"second {SECRET}\nmore"):
        bus.append(path, type_="FACT", body=body, project="p", task="t", environ={})
    found = root.look()["last_event"]
    assert (found["type"], found["project_id"], found["task_id"]) == ("FACT", "p", "t")
    assert found["run_id"] is None
    assert found["text"].startswith("second ")
    assert SECRET not in found["text"]


# -- how it is made


def test_a_secret_is_taken_out_wherever_it_stands(root: Made) -> None:
    root.done(f"t-{SECRET}", **{**FAILED, "error_summary": f"the key {SECRET} is wrong"})
    run = root.live("t", model=SECRET, agent=SECRET)
    (run / runs.STDOUT).write_text(f"it is {SECRET}\n")
    root.plan({f"x-{SECRET}": stands("failed", why=f"by {SECRET}")}, ended=ago(1), exit_code=1)
    assert SECRET not in json.dumps(root.look())


def test_a_secret_that_becomes_known_later_is_taken_out_of_what_was_kept(
    root: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.api.overview_state.STANDS_SECONDS", 1000.0)
    run = root.live("t")
    (run / runs.STDOUT).write_text("the word is plain-looking-word\n")
    assert "plain-looking-word" in json.dumps(root.look())
    redact.add_tokens(["plain-looking-word"])
    assert "plain-looking-word" not in json.dumps(root.look())


def test_the_last_line_is_read_again_when_a_secret_has_become_known(root: Made) -> None:
    run = root.live("t")
    (run / runs.STDOUT).write_text("the word is another-plain-word\n")
    observer = Observer(Index(str(root.runs_dir)))
    assert [view.last for view in observer.look().live] == ["the word is another-plain-word"]
    redact.add_tokens(["another-plain-word"])
    assert [view.last for view in observer.look().live] == ["the word is [REDACTED]"]


def test_who_asks_is_never_told_less_than_what_was_found_last(
    root: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.api.overview_state.STANDS_SECONDS", 1000.0)
    root.done("a")
    view = root.app.service.view
    first = root.app.get("/api/v1/overview").body
    assert root.app.get("/api/v1/overview").body == first  # kept: time alone has passed
    root.done("b")
    view.notice([])
    with view.current():  # found by somebody else
        pass
    assert root.app.ok("/api/v1/overview")["run_total"] == 2


def test_nobody_but_the_view_refreshes_the_index(
    root: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    refresh, view = Index.refresh, root.app.service.view

    def note(self: Index) -> Changes:
        calls.append("")
        return refresh(self)

    monkeypatch.setattr(Index, "refresh", note)
    for _ in range(3):
        root.done("a")
        root.look()
    assert len(calls) == view.refreshes


def test_runs_that_were_found_before_anybody_asked_are_told(root: Made) -> None:
    root.done("bad", **FAILED)
    root.app.ok("/api/v1/tasks")
    root.done("good")
    root.app.service.view.notice([])
    root.app.ok("/api/v1/tasks")
    assert [item["task_id"] for item in root.look()["problems"]] == ["bad"]


@pytest.mark.parametrize(
    "header",
    [
        {"plan": 7}, {"plan": "relative.yaml"}, {"plan": "/x\0y"}, {"scope": "a"}, {"started": {}},
        {"prompts_agent": "x", "plan": "/no/*.md"}, {"options": {"agent": ["x"]}},
        {"ended": "never", "exit_code": []}, {"closing": {"a": 1}, "held": [1]},
    ],
)  # fmt: skip
def test_a_hostile_header_of_a_plan_spoils_nothing(root: Made, header: dict[str, Any]) -> None:
    root.plan({"a": stands("failed"), "b": stands("running")}, **header)
    assert root.look()["plan_total"] == 1
    root.plan({"a": stands("failed"), "b": stands("running")}, is_run=True, **header)
    root.look()
