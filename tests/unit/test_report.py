"""What a plan says before and after it runs: the schedule, the table, the totals."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib import blockers, report, runs, state
from lib.plan import Plan, Stage
from lib.settings import Settings
from lib.situation import Situation
from lib.state import Attempt, TaskState
from tests.unit.test_board import plan_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        root=str(tmp_path),
        runs_dir=str(tmp_path / "runs"),
        bus_path=str(tmp_path / "MESSAGE-BUS.md"),
        max_parallel=16,
    )


def attempt(run_id: str, seconds: float = 5.0, **figures: object) -> Attempt:
    """An attempt whose run took so long."""
    return {"unit": "a", "run": run_id, "agent": "claude", "seconds": seconds, **figures}


def situation(plan: Plan, **entries: tuple[str, str, list[Attempt]]) -> Situation:
    tasks = {task_id: TaskState() for task_id in plan.tasks}
    for task_id, (where, why, attempts) in entries.items():
        tasks[task_id].state, tasks[task_id].why = where, why
        tasks[task_id].attempts = attempts
    return Situation(plan, {}, tasks, "", is_run=True)


def table(seen: Situation, settings: Settings) -> str:
    return report.Summary(seen, settings).table()


def test_the_summary_adds_up_time_tokens_and_cost_over_all_attempts(settings: Settings) -> None:
    plan = plan_of((True, {"a": [], "b": []}))
    first = attempt("r1", 65, input_tokens=100, output_tokens=7, cost_usd=0.25)
    second = attempt("r2", 5, input_tokens=10, output_tokens=1, cost_usd=1)
    seen = situation(plan, a=(state.DONE, "", [first, second]))

    lines = table(seen, settings).split("\n")

    assert lines[1].split() == ["a", "claude", "2", "1m10s", "110/8", "$1.2500", "done"]
    assert lines[2].split() == ["b", "-", "-", "-", "-", "-", "not", "run"]
    assert "1 done, 1 pending; agents worked 1m10s, 118 tokens, cost $1.2500" in lines


def test_what_is_not_known_is_not_made_up(settings: Settings) -> None:
    plan = plan_of((True, {"a": []}))
    gone: Attempt = {"unit": "a", "run": "removed-by-hand", "agent": "shell"}
    seen = situation(plan, a=(state.FAILED, "it broke", [gone]))

    text = table(seen, settings)

    assert "cost unknown" in text
    assert text.split("\n")[1].split()[3:] == ["0.0s", "-", "-", "failed:", "it", "broke"]
    assert f"blockers  {Path(settings.root) / blockers.NAME}" in text


def test_the_summary_obeys_no_control_character(settings: Settings) -> None:
    plan = plan_of((True, {"a": []}))
    seen = situation(plan, a=(state.FAILED, "evil \x1b[2J\nsecond line", []))
    settings.root = "/new\nline\x1b"

    text = table(seen, settings)

    assert "\x1b" not in text
    assert len(text.split("\n")) == len(table(situation(plan), settings).split("\n")) + 1


def test_what_was_not_run_or_not_done_is_said_once_and_plainly(settings: Settings) -> None:
    plan = plan_of((True, {"a": [], "b": []}))
    failed = attempt("run_1", result="failed")
    seen = situation(
        plan,
        a=(state.PENDING, "not started: x failed", []),
        b=(state.PENDING, "tried again after: it broke", [failed]),
    )

    rows = table(seen, settings).split("\n")
    assert rows[1].endswith("  not run: x failed")
    assert rows[2].endswith("  not done, tried again by the next start: it broke")


def test_only_tasks_of_the_scope_are_listed(settings: Settings) -> None:
    plan = plan_of((True, {"a": [], "b": []}))
    seen = situation(plan)
    seen.header["scope"] = ["b"]

    text = table(seen, settings)

    assert [line.split()[0] for line in text.split("\n")[1:3] if line] == ["b"]


def test_the_summary_names_who_did_it_and_who_failed_before(settings: Settings) -> None:
    plan = plan_of((True, {"a": []}))
    tries: list[Attempt] = [
        {"unit": "a", "run": "r1", "agent": "codex", "result": "failed"},
        {
            "unit": "a",
            "run": "r2",
            "agent": "claude",
            "result": "done",
            "note": "without a tool call",
        },
    ]
    seen = situation(plan, a=(state.DONE, "", tries))

    row = table(seen, settings).split("\n")[1]

    assert " claude (after codex) " in row
    assert row.endswith("done, without a tool call")
    told = report.Summary(seen, settings).fields()
    assert told["tasks"] == [
        {
            "task": "a", "state": "done", "why": "", "agents": ["claude"], "attempts": 2,
            "seconds": 0, "input_tokens": None, "cached_tokens": None, "output_tokens": None,
            "cost_usd": None, "cost_estimated": False,
            "runs_without_tokens": 2, "runs_without_cost": 2,
        }
    ]  # fmt: skip


def test_what_met_a_limit_is_no_try_and_who_stood_in_is_named(settings: Settings) -> None:
    plan = plan_of((True, {"a": [], "b": [], "c": []}))
    limit: Attempt = {"unit": "a", "run": "r1", "agent": "codex", "result": "quota"}
    stand_in: Attempt = {"unit": "a", "run": "r2", "agent": "claude", "result": "done"}
    spared: Attempt = {**stand_in, "run": "r3", "instead_of": "codex"}
    waits = "waits for codex's quota, which resets at 02:00Z"
    seen = situation(
        plan,
        a=(state.DONE, "", [limit, {**stand_in, "instead_of": "codex"}]),
        b=(state.DONE, "", [spared]),
        c=(state.WAITING, waits, [limit]),
    )

    rows = table(seen, settings).split("\n")[1:4]

    assert [" ".join(row.split()[1:5]) for row in rows[:2]] == [
        "claude (after codex) 1",
        "claude (for codex) 1",
    ]
    assert rows[2].split()[:3] == ["c", "codex", "-"]
    assert rows[2].endswith(f"  {waits}")
    assert "2 done, 1 waiting; " in table(seen, settings)


def test_the_schedule_shows_waves_agents_needs_and_what_is_done() -> None:
    plan = plan_of((True, {"a": [], "b": ["a"]}), (False, {"c": []}))
    agents = {"a": ("claude", "codex"), "b": (), "c": ("shell",)}

    text = report.schedule(plan, agents, {"a"}, {"a", "b"}, 4)

    rows = [line.split() for line in text.split("\n") if line.startswith("  ")]
    assert rows == [
        ["done", "a", "claude"],
        ["wave", "2", "b", "none", "after", "a"],
        ["not", "now", "c", "shell"],
    ]
    assert "stage stage1: stage1 (no barrier)" in text
    assert "3 tasks in 3 waves, the widest has 1; at most 4 at once" in text
    assert "critical path (3 tasks): a -> b -> c" in text


def test_a_plan_without_tasks_has_a_schedule_too() -> None:
    empty = Stage(id="s", title="s", barrier=True, timeout=0.0, tasks=(), line=1)
    plan = Plan(
        path="/p",
        sha256="",
        project="p",
        title="p",
        max_parallel=1,
        start_interval=0.0,
        roles={},
        stages=(empty,),
    )

    assert "0 tasks in 0 waves, the widest has 0" in report.schedule(plan, {}, set(), (), 1)


def test_a_plan_of_one_task_has_one_wave() -> None:
    text = report.schedule(plan_of((True, {"a": []})), {}, set(), {"a"}, 1)
    assert "\n1 task in 1 wave, the widest has 1" in text
    assert text.endswith("\ncritical path (1 task): a\n")


def test_a_blocker_is_appended_below_a_header_that_stands_once(tmp_path: Path) -> None:
    run = runs.Run(str(tmp_path / "run_1"), {})
    Path(run.path).mkdir()
    Path(run.file(runs.STDERR)).write_text("".join(f"line {n}\n" for n in range(100)))

    blockers.add(str(tmp_path), "p", "a", "claude", "it broke", run)
    blockers.add(str(tmp_path), "p", "b", "codex", "it broke too", None)

    text = (tmp_path / blockers.NAME).read_text()
    assert text.startswith("# Blockers\n")
    assert text.count("# Blockers\n") == 1
    assert text.count("\n## ") == 2
    assert "\n      line 99\n" in text
    assert "line 79\n" not in text
    assert "- reason: it broke too\n" in text
