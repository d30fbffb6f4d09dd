"""Plans, search, totals and metrics of the API, on storage that is made by hand."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from lib import files, ids, redact, runs, state
from lib.api import metrics, plan_tasks, totals
from lib.plan import load_plan
from tests.api_app import App, Reply, faults
from tests.stored_root import NOON, RUNNING, THIS_MACHINE, StoredRoot, held, snapshot, write_record

FAILED: dict[str, Any] = {"status": "failed", "exit_code": 3, "error_summary": "The Disk is full"}
SECRET = "ghp_" + "0123456789abcdef" * 2
USED: dict[str, Any] = {"input_tokens": 100, "output_tokens": 7, "cost_usd": 0.25}


@pytest.fixture
def root(tmp_path: Path) -> StoredRoot:
    return StoredRoot(tmp_path / "root")


@pytest.fixture
def app(root: StoredRoot) -> App:
    return App(root.runs_dir)


def ok(app: App, address: str) -> Any:
    """The JSON of an answer that is there and as it is described."""
    reply = app.get(address)
    assert reply.status == 200, (address, reply.status, reply.body[:500])
    assert faults(address, reply) == []
    return reply.json


def refused(app: App, address: str) -> tuple[int, str]:
    reply = app.get(address)
    assert faults(address, reply) == []
    return reply.status, reply.json["error"]["message"]


def found(app: App, query: str) -> list[str]:
    """The ids of the tasks whose runs a search finds, in its order."""
    return [item["task_id"] for item in ok(app, f"/api/v1/search?{query}")["items"]]


def make_task(root: StoredRoot, task: str, *some: dict[str, Any], project: str = "demo") -> Path:
    folder = root.task(task, project)
    for fields in some:
        root.run(folder, project_id=project, task_id=task, **fields)
    return folder


# -- plans


class Stored:
    """A plan file and the state of its project, as if it had been started."""

    def __init__(self, root: StoredRoot, *stages: dict[str, Any], **keys: Any) -> None:
        self.file = root.path / "plan.yaml"
        self.file.write_text(json.dumps({"project": "p", "stages": stages, **keys}))
        self.folder = root.runs_dir / "p"
        self._runs_dir = str(root.runs_dir)
        plan = load_plan(str(self.file))
        self.header: dict[str, object] = {
            "plan": plan.path,
            "plan_sha256": plan.sha256,
            "started": ids.rfc3339(NOON * 10**9),
        }
        self.tasks = {name: state.TaskState() for name in plan.tasks}

    def task(self, name: str, where: str, *attempts: state.Attempt, **keys: str) -> None:
        entry = self.tasks[name]
        entry.state, entry.attempts = where, list(attempts)
        for key, value in keys.items():
            setattr(entry, key, value)

    def write(self) -> None:
        self.folder.mkdir(exist_ok=True)
        kept = state.PlanState(self._runs_dir, "p")
        kept.header, kept.tasks = self.header, self.tasks
        for entry in self.tasks.values():
            entry.changed()
        kept.replace()
        kept.close()
        os.unlink(self.folder / state.JOURNAL_NAME)


def step(name: str, *needs: str, **keys: Any) -> dict[str, Any]:
    who = {} if "role" in keys else {"agent": "shell"}
    return {"id": name, "prompt": "x", "depends_on": list(needs), **who, **keys}


def attempt(name: str, result: str = "done", second: int = 0, **keys: Any) -> state.Attempt:
    start = (NOON + second) * 10**9
    return {
        "unit": name, "run": f"run_{name}", "agent": "shell", "result": result, "exit_code": 0,
        "started": ids.rfc3339(start), "ended": ids.rfc3339(start + 10**10), "seconds": 10.0, **keys,
    }  # fmt: skip


@pytest.fixture
def plan(root: StoredRoot) -> Stored:
    return Stored(
        root,
        {"id": "one", "title": "First", "tasks": [step("a"), step("b", "a", title="The bee")]},
        {"id": "two", "tasks": [step("c", "b")], "barrier": False},
    )


def by_id(app: App, project: str = "p") -> dict[str, Any]:
    return {task["id"]: task for task in ok(app, f"/api/v1/plans/{project}")["tasks"]}


def test_a_plan_is_shown_with_stages_tasks_edges_and_times(app: App, plan: Stored) -> None:
    plan.task("a", state.DONE, attempt("a", **USED))
    plan.task("b", state.FAILED, attempt("b", "failed", 20, exit_code=3), why="exit 3")
    plan.task("c", state.BLOCKED, why="needs b")
    plan.header.update(ended=ids.rfc3339((NOON + 30) * 10**9), exit_code=1, max_parallel=4)
    plan.write()

    shown = ok(app, "/api/v1/plans/p")

    assert (shown["state"], shown["exit_code"], shown["is_plan_known"]) == ("failed", 1, True)
    assert shown["counts"] == {"done": 1, "failed": 1, "blocked": 1}
    stages = [(s["id"], s["title"], s["state"], s["barrier"], s["tasks"]) for s in shown["stages"]]
    assert stages == [
        ("one", "First", "failed", True, ["a", "b"]),
        ("two", "two", "failed", False, ["c"]),
    ]
    assert shown["edges"] == [{"from": "a", "to": "b"}, {"from": "b", "to": "c"}]
    assert shown["timeline"] == {
        "start": ids.rfc3339(NOON * 10**9),
        "end": ids.rfc3339((NOON + 30) * 10**9),
    }
    a, b, c = shown["tasks"]
    assert (a["stage"], a["agents_asked"], a["agents_used"]) == ("one", ["shell"], ["shell"])
    assert (b["title"], b["blocked_by"], b["runs"][0]["exit_code"]) == ("The bee", [], 3)
    assert (c["depends_on"], c["blocked_by"], c["runs"]) == (["b"], ["b"], [])
    assert c["why"].startswith("is blocked: it needs b, which failed: exit 3")
    [listed] = ok(app, "/api/v1/plans")["plans"]
    assert listed == {key: shown[key] for key in listed}


def test_a_task_tells_its_wave_and_a_plan_what_decides_its_end(root: StoredRoot, app: App) -> None:
    first = [step("long"), step("short"), step("tail", "short"), step("odd")]
    plan = Stored(root, {"id": "one", "tasks": first}, {"id": "two", "tasks": [step("last")]})
    plan.write()
    shown = ok(app, "/api/v1/plans/p")
    waves = {task["id"]: task["wave"] for task in shown["tasks"]}
    assert waves == {"long": 0, "short": 0, "tail": 1, "odd": 0, "last": 2}
    assert shown["critical_path"] == ["short", "tail", "last"]  # nothing known: all count alike

    end = ids.rfc3339((NOON + 900) * 10**9)
    plan.task("long", state.DONE, attempt("long", ended=end, seconds=900.0))
    plan.task("short", state.DONE, attempt("short"))
    plan.write()
    assert ok(App(root.runs_dir), "/api/v1/plans/p")["critical_path"] == ["long", "last"]

    plan.header["scope"] = ["short", "tail"]
    plan.write()
    assert ok(App(root.runs_dir), "/api/v1/plans/p")["critical_path"] == ["short", "tail"]

    plan.file.unlink()
    shown = ok(App(root.runs_dir), "/api/v1/plans/p")
    assert shown["critical_path"] == []
    assert {task["wave"] for task in shown["tasks"]} == {None}


def test_what_runs_counts_with_what_it_is_expected_to_take_still(
    root: StoredRoot, app: App
) -> None:
    tasks = [step("known"), step("runs"), step("waits", "known")]
    plan = Stored(root, {"id": "one", "tasks": tasks})
    plan.task("known", state.DONE, attempt("known"))
    open_since = ids.rfc3339(time.time_ns() - 600 * 10**9)
    running = attempt("runs", "running", started=open_since)
    del running["ended"], running["seconds"]
    plan.task("runs", state.RUNNING, running)
    plan.write()
    assert ok(app, "/api/v1/plans/p")["critical_path"] == ["runs"]
    plan.task("known", state.DONE, attempt("known", ended=ids.rfc3339((NOON + 3600) * 10**9)))
    plan.write()
    assert ok(App(root.runs_dir), "/api/v1/plans/p")["critical_path"] == ["known", "waits"]


def test_the_totals_of_a_plan_are_those_of_its_report(app: App, plan: Stored) -> None:
    plan.task("a", state.DONE, attempt("a", "failed"), attempt("a", **USED))
    plan.write()

    totals = ok(app, "/api/v1/plans/p")["totals"]

    assert (totals["cost_usd"], totals["runs_without_cost"], totals["seconds"]) == (0.25, 1, 20.0)
    assert totals["cost_text"] == "cost $0.2500 (unknown for 1 run)"
    assert totals["tokens_text"] == "107 tokens (unknown for 1 run)"


@pytest.mark.parametrize(
    ("wheres", "ended", "expected"),
    [
        (("done", "done", "done"), True, "done"),
        (("done", "done", "done"), False, "done"),
        (("done", "skipped", "done"), True, "done"),
        (("done", "failed", "pending"), True, "failed"),
        (("done", "blocked", "done"), True, "failed"),
        (("done", "waiting", "pending"), True, "stopped"),
        (("done", "running", "pending"), False, "gone"),
        (("pending", "failed", "pending"), False, "gone"),
    ],
)
def test_a_plan_that_nobody_runs_stands_as_its_tasks_and_its_end_tell(
    app: App, plan: Stored, wheres: tuple[str, ...], ended: bool, expected: str
) -> None:
    for name, where in zip("abc", wheres, strict=True):
        plan.task(name, where)
    if ended:
        plan.header["ended"] = ids.rfc3339()
    plan.write()

    [shown] = ok(app, "/api/v1/plans")["plans"]
    assert (shown["state"], shown["is_run"]) == (expected, False)


def test_a_plan_that_is_run_says_so_and_its_time_goes_on(app: App, plan: Stored) -> None:
    plan.task("a", state.RUNNING, attempt("a", "running", ended=None))
    plan.header["pid"] = os.getpid()
    plan.write()
    before = ids.rfc3339()
    with held(plan.folder / state.LOCK_NAME):
        shown = ok(app, "/api/v1/plans/p")

    assert (shown["state"], shown["is_run"], shown["ended"]) == ("running", True, None)
    assert [stage["state"] for stage in shown["stages"]] == ["running", "pending"]
    assert [stage["is_open"] for stage in shown["stages"]] == [True, False]
    assert before <= shown["timeline"]["end"] <= ids.rfc3339()
    assert shown["tasks"][0]["runs"][0]["ended"] is None
    assert shown["tasks"][2]["why"].startswith("waits for the end of stage one (2 of 2 tasks")


def test_tasks_that_were_not_chosen_are_shown_and_not_counted(app: App, plan: Stored) -> None:
    plan.header["scope"] = ["b", "no-such-task"]
    plan.task("a", state.DONE, attempt("a", **USED))
    plan.write()

    shown = ok(app, "/api/v1/plans/p")

    assert (shown["counts"], shown["total"], shown["cost_usd"]) == ({"pending": 1}, 1, None)
    plan.task("b", state.DONE)
    plan.header["ended"] = ids.rfc3339()
    plan.write()
    app.service.view.notice([])
    assert ok(app, "/api/v1/plans/p")["state"] == "done"
    assert samples(app.get("/metrics"))['conductor_plans{state="done"}'] == 1
    assert [task["in_scope"] for task in shown["tasks"]] == [False, True, False]
    assert [stage["counts"] for stage in shown["stages"]] == [{"pending": 1}, {}]
    assert [stage["state"] for stage in shown["stages"]] == ["pending", "pending"]


def test_a_stage_is_closed_as_long_as_a_barrier_before_it_holds(root: StoredRoot, app: App) -> None:
    stages = [{"id": f"s{n}", "tasks": [step(f"t{n}")], "barrier": n != 1} for n in range(4)]
    plan = Stored(root, *stages)

    def open_stages() -> list[bool]:
        plan.write()
        app.service.view.notice([])
        return [stage["is_open"] for stage in ok(app, "/api/v1/plans/p")["stages"]]

    assert open_stages() == [True, False, False, False]
    plan.task("t0", state.DONE)
    assert open_stages() == [True, True, True, False]
    plan.task("t2", state.FAILED)
    assert open_stages() == [True, True, True, True]


def test_only_what_may_still_run_is_blocked_by_something(app: App, plan: Stored) -> None:
    for where in (state.PENDING, state.BLOCKED, state.FAILED, state.SKIPPED, state.DONE):
        plan.task("b", where)
        plan.write()
        app.service.view.notice([])
        expected = ["a"] if where in (state.PENDING, state.BLOCKED) else []
        assert by_id(app)["b"]["blocked_by"] == expected


def test_a_plan_is_told_as_it_is_now(app: App, plan: Stored) -> None:
    plan.write()
    assert by_id(app)["a"]["why"].startswith("has not been started")
    plan.task("a", state.FAILED, attempt("a", "failed"), why="exit 3")
    plan.write()
    app.service.view.notice([])
    assert by_id(app)["a"]["why"].startswith("failed: exit 3")


def test_of_a_plan_only_what_has_changed_is_made_again(
    root: StoredRoot, app: App, plan: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    make = plan_tasks.Part

    def note(made_of: Any, shape: Any, some: Any) -> plan_tasks.Part:
        made.append(shape["id"])
        return make(made_of, shape, some)

    def look() -> list[str]:
        made.clear()
        plan.write()
        app.service.view.notice([str(root.runs_dir / "p")])
        by_id(app)
        return made

    monkeypatch.setattr(plan_tasks, "Part", note)
    assert look() == ["a", "b", "c"]
    assert look() == []
    plan.task("a", state.DONE, attempt("a"))
    assert look() == ["a", "b"]  # which waits for it no more
    run = root.run(name="run_a", project_id="p", task_id="a", **RUNNING)
    assert look() == ["a"]
    write_record(run, project_id="p", task_id="a", run_id="run_a")
    assert look() == ["a"]


def test_a_token_that_becomes_known_is_redacted_in_what_was_shown_before(
    root: StoredRoot, app: App, plan: Stored
) -> None:
    token = "tulips-and-daffodils"
    plan.task("a", state.FAILED, attempt("a", "failed", why=f"no {token}"))
    plan.write()
    assert token in by_id(app)["a"]["runs"][0]["why"]

    config = root.path / "config.yaml"
    config.write_text(f"agents: {{claude: {{type: claude, token: {token}}}}}\n")
    make_task(root, "x", {"config": str(config)})
    app.service.view.notice([])
    assert by_id(app)["a"]["runs"][0]["why"] == f"no {redact.MARK}"


def test_a_review_tells_its_verdicts_and_who_was_asked(root: StoredRoot, app: App) -> None:
    roles = {"judging": {"agents": ["one", "two"], "quorum": 2}}
    plan = Stored(root, {"id": "s", "tasks": [step("r", role="judging")]}, roles=roles)
    plan.task(
        "r", state.FAILED,
        attempt("r@one", verdict="APPROVE", second=5), attempt("r@two", verdict="REJECT"),
        why="rejected by r@two",
    )  # fmt: skip
    plan.write()

    task = by_id(app)["r"]

    assert (task["role"], task["quorum"], task["agents_asked"]) == ("judging", 2, ["one", "two"])
    assert task["verdicts"] == {"r@one": "APPROVE", "r@two": "REJECT"}
    assert [run["unit"] for run in task["runs"]] == ["r@two", "r@one"]


def test_a_run_that_has_no_end_yet_is_told_as_its_record_has_it(
    root: StoredRoot, app: App, plan: Stored
) -> None:
    folder = root.run(name="run_a", project_id="p", task_id="a", **THIS_MACHINE, **RUNNING, **USED)
    plan.task("a", state.RUNNING, attempt("a", "running", ended=None))
    plan.write()
    with held(folder / runs.LOCK):
        [run] = by_id(app)["a"]["runs"]

    assert (run["run_id"], run["status"], run["ended"]) == ("run_a", "running", None)
    assert (run["cost_usd"], run["input_tokens"], run["cached_tokens"]) == (0.25, 100, None)


def test_runs_that_a_loop_has_started_are_shown_and_not_added(
    root: StoredRoot, app: App, plan: Stored
) -> None:
    inner = make_task(root, "a", {"parent_run_id": "run_a", **USED}, {**USED}, project="p")
    plan.task("a", state.DONE, attempt("a", **USED))
    plan.write()

    task = by_id(app)["a"]

    assert [run["kind"] for run in task["runs"]] == ["attempt", "child"]
    assert task["runs"][1]["run_id"] in os.listdir(inner / "runs")
    assert task["cost_usd"] == 0.25


def test_who_waits_for_which_quota_is_told(app: App, plan: Stored) -> None:
    until = ids.rfc3339((int(time.time()) + 3600) * 10**9)
    plan.header["closed"] = {
        "claude": {"until": until, "reset": until, "why": "used up"},
        "old": {"until": ids.rfc3339(NOON * 10**9), "why": "long ago"},
        "odd": 7,
    }
    plan.task(
        "a", state.WAITING, why="waits for claude's quota, which resets at 02:00Z", until=until
    )
    plan.write()

    shown = ok(app, "/api/v1/plans/p")

    assert shown["quota_waits"] == [
        {"key": "claude", "until": until, "reset": until, "why": "used up", "tasks": ["a"]}
    ]
    assert shown["tasks"][0]["until"] == until
    assert shown["stages"][0]["state"] == "waiting"


@pytest.mark.parametrize("change", ["gone", "other", "link", "broken"])
def test_without_its_plan_file_a_plan_is_shown_as_its_state_tells(
    app: App, plan: Stored, change: str
) -> None:
    plan.task("a", state.FAILED, attempt("a", "failed"), why="exit 3")
    plan.write()
    text = plan.file.read_text()
    plan.file.unlink()
    if change == "link":
        (plan.file.parent / "elsewhere").write_text(text)
        plan.file.symlink_to(plan.file.parent / "elsewhere")
    elif change != "gone":
        plan.file.write_text("{" if change == "broken" else text.replace("First", "Another"))

    shown = ok(app, "/api/v1/plans/p")

    assert (shown["is_plan_known"], shown["stages"], shown["edges"]) == (False, [], [])
    assert [task["id"] for task in shown["tasks"]] == ["a", "b", "c"]
    assert shown["tasks"][0]["why"] == "is failed: exit 3"


def test_a_plan_of_prompt_files_has_one_stage_and_one_agent(app: App, plan: Stored) -> None:
    plan.header.update(plan="prompts/*.md", plan_sha256="x", prompts_agent="claude")
    plan.write()

    shown = ok(app, "/api/v1/plans/p")

    assert [(stage["id"], stage["tasks"]) for stage in shown["stages"]] == [
        ("all", ["a", "b", "c"])
    ]
    assert shown["tasks"][0]["agents_asked"] == ["claude"]
    assert shown["tasks"][0]["stage"] == "all"


def test_a_damaged_state_hides_only_itself(root: StoredRoot, app: App, plan: Stored) -> None:
    plan.write()
    (root.runs_dir / "q").mkdir()
    (root.runs_dir / "q" / state.STATE_NAME).write_text("tasks: [broken\n")

    listed = {item["project_id"]: item for item in ok(app, "/api/v1/plans")["plans"]}

    assert (listed["q"]["state"], listed["p"]["state"]) == ("unreadable", "gone")
    assert "damaged plan state" in listed["q"]["problem"]
    assert "problem" not in listed["p"]
    assert "damaged plan state" in ok(app, "/api/v1/plans/q")["problem"]


def test_what_makes_no_sense_in_a_state_is_not_told(app: App, plan: Stored) -> None:
    odd: dict[str, Any] = {
        "unit": 7, "run": "../../etc", "agent": None, "result": "done", "started": "soon",
        "ended": 3, "seconds": "many", "exit_code": "x", "cost_usd": -1, "verdict": [1],
    }  # fmt: skip
    plan.task("a", "a-new-state", odd)
    plan.header.update(started=5, ended={}, exit_code=True, max_parallel="x", scope="a", closed=[3])
    plan.write()

    [run] = by_id(app)["a"]["runs"]

    assert (run["run_id"], run["started"], run["ended"], run["seconds"]) == (
        "etc",
        None,
        None,
        None,
    )
    assert (run["exit_code"], run["cost_usd"]) == (None, None)
    assert ok(app, "/api/v1/plans")["plans"][0]["started"] is None


def test_secrets_of_a_plan_are_redacted(app: App, plan: Stored) -> None:
    plan.task("a", state.FAILED, attempt("a", "failed", why=f"no {SECRET}"), why=f"bad {SECRET}")
    plan.header.update(held=f"because {SECRET}", closed={SECRET: {"until": "9999-01-01T00:00:00Z"}})
    plan.write()

    for address in ("/api/v1/plans", "/api/v1/plans/p"):
        assert SECRET.encode() not in app.get(address).body
    assert redact.MARK in by_id(app)["a"]["why"]


def test_a_project_without_a_plan_has_none(root: StoredRoot, app: App) -> None:
    make_task(root, "t", {})

    assert ok(app, "/api/v1/plans") == {"plans": []}
    assert refused(app, "/api/v1/plans/demo") == (404, "plan not found")


def test_a_plan_goes_and_another_comes(app: App, plan: Stored) -> None:
    plan.write()
    assert len(by_id(app)) == 3
    (plan.folder / state.STATE_NAME).unlink()
    app.service.view.notice([])
    assert refused(app, "/api/v1/plans/p") == (404, "plan not found")
    plan.tasks["a"].state = state.DONE
    plan.write()
    app.service.view.notice([])
    assert by_id(app)["a"]["state"] == "done"


# -- search


def test_a_search_finds_what_has_all_the_words_the_newest_first(root: StoredRoot, app: App) -> None:
    make_task(root, "build", {"agent": "claude"}, {**FAILED, "agent": "codex"})
    make_task(root, "deploy", {**FAILED, "agent": "claude"}, project="other")
    (root.runs_dir / "demo" / "build" / "TASK.md").write_text("\n## Fix the Parser\n\nNow.\n")

    assert found(app, "") == ["deploy", "build", "build"]
    assert found(app, "q=disk") == ["deploy", "build"]
    assert found(app, "q=DISK+claude") == ["deploy"]
    assert found(app, "q=other+deploy") == ["deploy"]
    assert found(app, "q=parser") == ["build", "build"]
    assert found(app, "q=parser+disk") == ["build"]
    assert found(app, "q=parser+nowhere") == []
    assert found(app, "q=disk+is%0Afull") == ["deploy", "build"]
    [item] = ok(app, "/api/v1/search?q=codex")["items"]
    assert (item["project_id"], item["task_id"]) == ("demo", "build")
    assert (item["title"], item["error_summary"]) == ("Fix the Parser", "The Disk is full")
    assert found(app, f"q={item['run_id']}") == ["build"]


def test_a_search_can_be_narrowed(root: StoredRoot, app: App) -> None:
    at = [ids.rfc3339((NOON + second) * 10**9) for second in (1, 2, 3)]
    make_task(root, "x", {"agent": "codex", "agent_name": "mine"}, FAILED)  # seconds 1 and 2
    make_task(root, "y", {}, project="other")

    assert found(app, "project=other") == ["y"]
    assert found(app, "task=x") == ["x", "x"]
    assert found(app, "task=x&project=other") == []
    assert found(app, "agent=codex") == found(app, "agent=mine") == ["x"]
    assert found(app, "agent=min") == []
    assert found(app, "status=failed") == ["x"]
    assert found(app, "status=Failed,running") == ["x"]
    assert found(app, "status=completed") == ["y", "x"]
    assert found(app, f"since={at[1]}") == ["y", "x"]
    assert found(app, f"until={at[1]}") == ["x", "x"]
    assert found(app, f"since={at[1]}&until={at[1]}") == ["x"]
    assert found(app, "since=1h") == []


def test_a_search_is_paged(root: StoredRoot, app: App) -> None:
    make_task(root, "x", *[{"model": f"m{n}"} for n in range(5)])

    first = ok(app, "/api/v1/search?limit=2")
    last = ok(app, "/api/v1/search?limit=2&offset=4")
    beyond = ok(app, "/api/v1/search?limit=2&offset=99")

    assert [item["model"] for item in first["items"]] == ["m4", "m3"]
    assert {key: first[key] for key in first if key != "items"} == {
        "total": 5, "limit": 2, "offset": 0, "has_more": True,
    }  # fmt: skip
    assert ([item["model"] for item in last["items"]], last["has_more"]) == (["m0"], False)
    assert (beyond["items"], beyond["total"], beyond["has_more"]) == ([], 5, False)


@pytest.mark.parametrize("query", ["since=yesterday", "until=nan", "since=-1h", "q=" + "x+" * 21])
def test_a_search_that_makes_no_sense_is_refused(app: App, query: str) -> None:
    assert refused(app, f"/api/v1/search?{query}")[0] == 400


def test_a_search_sees_what_has_changed(root: StoredRoot, app: App) -> None:
    folder = make_task(root, "x", FAILED)
    assert found(app, "q=disk") == ["x"]
    (folder / "TASK.md").write_text("# Paint it\n")
    root.run(folder, task_id="x", model="purple")
    app.service.view.notice([str(folder)])

    assert found(app, "q=purple") == ["x"]
    assert found(app, "q=paint") == ["x", "x"]
    (folder / "TASK.md").write_text("# Rather clean it\n")
    assert (found(app, "q=paint"), found(app, "q=clean")) == ([], ["x", "x"])


def test_a_search_knows_what_plans_call_their_tasks(
    root: StoredRoot, app: App, plan: Stored
) -> None:
    plan.write()
    root.run(project_id="p", task_id="b")
    root.run(project_id="p", task_id="c")

    assert found(app, "q=bee") == ["b"]
    assert ok(app, "/api/v1/search?q=bee")["items"][0]["title"] == "The bee"


def test_a_search_neither_shows_nor_finds_a_secret(root: StoredRoot, app: App) -> None:
    make_task(root, "x", {**FAILED, "error_summary": f"denied {SECRET}"})
    (root.runs_dir / "demo" / "x" / "TASK.md").write_text(f"use {SECRET}\n")

    assert found(app, f"q={SECRET}") == found(app, f"q={SECRET[:-4]}") == []
    assert found(app, "q=denied+use") == ["x"]
    assert SECRET.encode() not in app.get("/api/v1/search").body


def test_a_title_of_a_prompt_that_is_a_link_is_not_read(root: StoredRoot, app: App) -> None:
    folder = make_task(root, "x", {})
    (root.path / "private").write_text("outside\n")
    (folder / "TASK.md").unlink()
    (folder / "TASK.md").symlink_to(root.path / "private")

    assert found(app, "q=outside") == []
    assert "title" not in ok(app, "/api/v1/search")["items"][0]


# -- totals


def test_totals_add_up_and_say_what_is_not_known(root: StoredRoot, app: App) -> None:
    make_task(root, "x", USED, {**USED, **FAILED, "cached_tokens": 5, "cost_estimated": True}, {})

    assert ok(app, "/api/v1/totals") == {
        "runs": {"completed": 2, "failed": 1}, "run_count": 3,
        "input_tokens": 200, "cached_tokens": 5, "output_tokens": 14, "cost_usd": 0.5,
        "cost_estimated": True, "unknown_cost_runs": 1, "unknown_token_runs": 1,
    }  # fmt: skip


def test_of_nothing_all_is_unknown(app: App) -> None:
    total = ok(app, "/api/v1/totals?by=day")
    assert (total["cost_usd"], total["input_tokens"], total["run_count"]) == (None, None, 0)
    assert (total["groups"], total["unknown_cost_runs"]) == ([], 0)


def test_what_a_loop_repeats_of_its_attempts_is_left_out(root: StoredRoot, app: App) -> None:
    loop = {**USED, "includes_children": True, "agent": "loop"}
    make_task(root, "x", loop, USED)
    make_task(root, "alone", loop)  # its attempts have been cleaned away

    total = ok(app, "/api/v1/totals?by=task")

    assert (total["cost_usd"], total["run_count"], total["input_tokens"]) == (0.5, 3, 200)
    assert [(g["key"], g["cost_usd"]) for g in total["groups"]] == [
        ("demo/alone", 0.25),
        ("demo/x", 0.25),
    ]


def test_totals_come_in_groups(root: StoredRoot, app: App) -> None:
    make_task(root, "x", {**USED, "agent": "codex", "model": "m"})
    make_task(root, "y", {**USED, "start_time": "2026-02-03T23:59:59Z"}, {}, project="other")

    def groups(by: str) -> list[tuple[Any, ...]]:
        shown = ok(app, f"/api/v1/totals?by={by}")
        assert shown["by"] == by
        return [(g["key"], g["run_count"], g["cost_usd"]) for g in shown["groups"]]

    assert groups("project") == [("demo", 1, 0.25), ("other", 2, 0.25)]
    assert groups("task") == [("demo/x", 1, 0.25), ("other/y", 2, 0.25)]
    assert groups("agent") == [("codex", 1, 0.25), ("shell", 2, 0.25)]
    assert groups("model") == [("m", 1, 0.25), ("unknown", 2, 0.25)]
    assert groups("day") == [("2026-01-01", 2, 0.25), ("2026-02-03", 1, 0.25)]
    by_task = ok(app, "/api/v1/totals?by=task")["groups"][1]
    assert (by_task["project_id"], by_task["task_id"]) == ("other", "y")


def test_totals_are_of_a_project_and_of_a_time(root: StoredRoot, app: App) -> None:
    make_task(root, "x", USED, {**USED, "start_time": ids.rfc3339()})
    make_task(root, "y", USED, project="other")

    assert ok(app, "/api/v1/totals?project=demo")["run_count"] == 2
    assert ok(app, "/api/v1/totals?project=nobody")["run_count"] == 0
    assert ok(app, "/api/v1/totals?since=1h")["run_count"] == 1
    assert ok(app, "/api/v1/totals?since=2026-01-01&project=demo")["cost_usd"] == 0.5


def test_totals_of_what_is_no_group_or_time_are_refused(app: App) -> None:
    assert refused(app, "/api/v1/totals?by=hour")[0] == 400
    assert refused(app, "/api/v1/totals?since=soon")[0] == 400


def test_figures_that_are_none_are_not_added(root: StoredRoot, app: App) -> None:
    make_task(root, "x", {"input_tokens": -5, "output_tokens": "9", "cost_usd": float("inf")})

    total = ok(app, "/api/v1/totals")
    assert (total["input_tokens"], total["output_tokens"], total["cost_usd"]) == (None, None, None)


# -- metrics


def samples(reply: Reply) -> dict[str, float]:
    """The values by name and labels; each has been declared."""
    assert faults("/metrics", reply) == []
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text, kinds, values = reply.body.decode(), dict[str, str](), dict[str, float]()
    assert text.endswith("\n")
    for line in text.split("\n")[:-1]:
        if line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            name, value = line.rsplit(" ", 1)
            bare = name.partition("{")[0].removesuffix("_sum").removesuffix("_count")
            assert bare in kinds, line
            values[name] = float(value)
    assert kinds["conductor_api_requests_total"] == "counter"
    assert kinds["conductor_active_runs_total"] == "gauge"
    return values


def test_metrics_tell_what_is_stored(root: StoredRoot, app: App, plan: Stored) -> None:
    plan.write()
    make_task(root, "x", {**USED, "cached_tokens": 5}, FAILED, {"status": "odd"})

    found = samples(app.get("/metrics"))

    assert found['conductor_runs{status="completed"}'] == 1
    assert found['conductor_runs{status="failed"}'] == 1
    assert sum(n for name, n in found.items() if name.startswith("conductor_runs{")) == 3
    assert (found["conductor_tasks"], found["conductor_live_runs"]) == (1, 0)
    assert (found['conductor_plans{state="gone"}'], found['conductor_plans{state="done"}']) == (
        1,
        0,
    )
    assert found['conductor_tokens{kind="cached"}'] == 5
    assert (found["conductor_cost_usd"], found["conductor_unknown_cost_runs"]) == (0.25, 2)
    assert found["conductor_index_refresh_seconds_count"] >= 1
    assert found["conductor_resident_memory_bytes"] > 1e6
    assert found["conductor_queued_runs_total"] == 0
    assert found["conductor_uptime_seconds"] >= 0


def test_metrics_sum_up_the_storage_once_for_each_change(
    root: StoredRoot, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may ask for them, and without a key."""
    make_task(root, "x", USED)
    sums: list[object] = []
    count = totals.count

    def counted(*given: Any) -> Any:
        sums.append(given)
        return count(*given)

    monkeypatch.setattr(totals, "count", counted)

    for _ in range(3):
        assert samples(app.get("/metrics"))['conductor_runs{status="completed"}'] == 1
    assert len(sums) == 1
    make_task(root, "y", USED)
    app.service.view.notice([str(root.runs_dir / "demo")])
    for _ in range(3):
        assert samples(app.get("/metrics"))['conductor_runs{status="completed"}'] == 2
    assert len(sums) == 2
    app.service.counters.count_post()
    assert samples(app.get("/metrics"))["conductor_messagebus_appends_total"] == 1
    assert len(sums) == 2


def test_metrics_are_for_everybody_and_name_nobody(root: StoredRoot, app: App) -> None:
    make_task(root, "hush", {"agent": "secretagent", "model": "mm"}, project="hidden")
    body = app.get("/metrics").body
    assert not any(word in body for word in (b"hush", b"hidden", b"secretagent", b'mm"'))


def test_loops_that_ended_since_the_start_are_counted_once(root: StoredRoot, app: App) -> None:
    def end(task: str, where: str, when_ns: int) -> None:
        folder = root.runs_dir / "demo" / task
        folder.mkdir(parents=True, exist_ok=True)
        text = f"state: {where}\nended: {ids.rfc3339(when_ns)}\nattempts: []\n"
        files.replace_file(str(folder / "TASK-LOOP.yaml"), text.encode(), durable=False)
        app.service.view.notice([str(folder)])

    def counted() -> tuple[float, float]:
        found = samples(app.get("/metrics"))
        return found["conductor_completed_runs_total"], found["conductor_failed_runs_total"]

    now = time.time_ns() + 10**9
    end("old", "done", NOON * 10**9)
    end("good", "done", now)
    end("bad", "failed", now)
    end("ended", "stopped", now)
    assert counted() == (1, 1)
    assert counted() == (1, 1)
    end("good", "done", now + 10**9)
    assert counted() == (2, 1)
    (root.runs_dir / "demo" / "good" / "TASK-LOOP.yaml").unlink()
    app.service.view.notice([str(root.runs_dir / "demo" / "good")])
    assert counted() == (2, 1)


def test_requests_are_counted_by_method_and_status() -> None:
    counters = metrics.Counters()
    for method, status in (("GET", 200), ("GET", 200), ("POST", 409), ("X" * 99, 405)):
        counters.count_request(method, status)
    assert counters.requests == {("GET", 200): 2, ("POST", 409): 1, ("other", 405): 1}


@pytest.mark.parametrize("way", ["to its end", "closed", "closed twice", "closed unread", "broken"])
def test_a_stream_counts_as_long_as_it_lasts(way: str) -> None:
    def items() -> Any:
        yield b"a"
        if way == "broken":
            raise OSError

    counters = metrics.Counters()
    stream = counters.watch_stream(items())
    assert counters.streams == 1
    if way == "broken":
        next(stream)
        with pytest.raises(OSError, match=r"^$"):
            next(stream)
    elif way == "to its end":
        assert list(stream) == [b"a"]
    else:
        if way != "closed unread":
            next(stream)
        for _ in range(2 if way == "closed twice" else 1):
            stream.close()  # type: ignore[attr-defined]
    assert counters.streams == 0


def test_labels_are_escaped() -> None:
    assert metrics.escape('a"b\\c\nd') == 'a\\"b\\\\c\\nd'


@pytest.mark.parametrize("is_portable", [True, False])
def test_memory_is_told_in_bytes(is_portable: bool) -> None:
    assert 4 << 20 < metrics.resident_bytes(is_portable=is_portable) < 16 << 30


# -- all of them


def test_nothing_is_written(root: StoredRoot, app: App, plan: Stored) -> None:
    plan.write()
    make_task(root, "x", FAILED)
    before = snapshot(root.path)
    for path in ("v1/plans", "v1/plans/p", "v1/search?q=x", "v1/totals?by=task"):
        ok(app, f"/api/{path}")
    samples(app.get("/metrics"))
    assert snapshot(root.path) == before


def test_one_bad_record_hides_only_itself(root: StoredRoot, app: App) -> None:
    folder = make_task(root, "x", USED, {"model": [1], "agent": {"a": 1}})
    (root.run(folder, task_id="x") / runs.RECORD).write_text("status: [half\n")

    assert len(found(app, "")) == 3
    assert ok(app, "/api/v1/totals?by=agent")["cost_usd"] == 0.25
    samples(app.get("/metrics"))
