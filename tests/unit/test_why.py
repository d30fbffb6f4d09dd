"""Why a task does not run: the sentence for every case, from situations made by hand."""

from __future__ import annotations

import dataclasses
import os
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from lib import activity, files, frame, ids, procs, runs, state, verify, waits, why, yamlio
from lib.errors import UsageError
from lib.plan import Plan, Role, Task
from lib.situation import Situation
from lib.state import Attempt, TaskState
from tests.unit.test_board import plan_of

NOW, MONOTONIC = 1_800_000_000.0, 50_000.0
CHAIN = {"a": [], "b": ["a"], "c": ["b"]}


class Made:
    """A situation under construction, with real run folders below it."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.runs_dir = folder / "runs"
        self.runs_dir.mkdir()
        self.tasks = {task_id: TaskState() for task_id in plan.tasks}
        self.header: dict[str, object] = {"max_parallel": 2, "pid": 4711}
        self.situation = Situation(plan, self.header, self.tasks, str(self.runs_dir), is_run=True)
        self._locks: list[int] = []

    def put(self, task_id: str, where: str, reason: str = "", until: float = 0.0) -> None:
        entry = self.tasks[task_id]
        entry.state, entry.why = where, reason
        entry.until = in_seconds(until) if until else ""

    def attempt(self, unit: str, result: str, agent: str = "claude", **fields: object) -> Attempt:
        """One more attempt of a unit, whose run is `run_UNIT_NUMBER`."""
        entry = self.tasks[unit.partition("@")[0]]
        run = f"run_{unit}_{len(entry.attempts) + 1}"
        made: Attempt = {"unit": unit, "run": run, "agent": agent, "result": result}
        made.update({"started": in_seconds(-100), **fields})
        entry.attempts.append(made)
        return made

    def run(
        self,
        unit: str,
        *,
        age: float = 60,
        silent: float = 1,
        held: bool = True,
        noted: bool = True,
        clocks: Mapping[str, object] | None = None,
        **record: object,
    ) -> Path:
        """A run under way, begun `age` seconds ago, whose last output is `silent` seconds old.

        With `noted` its supervisor has noted a long silence, as it does unless a tool call is open.
        """
        task_id = unit.partition("@")[0]
        attempt = self.attempt(unit, "running", started=in_seconds(-age))
        if self.tasks[task_id].state == state.PENDING:
            self.put(task_id, state.RUNNING)
        folder = self.runs_dir / str(attempt["run"])
        folder.mkdir()
        fields: dict[str, object] = {
            "status": "running",
            "start_time": in_seconds(-age),
            **record,
            **(clocks or {}),
        }
        limit = record.get("idle_timeout")
        mark = min(300.0, limit / 3) if isinstance(limit, int) else 300.0
        if noted and silent > mark and "silent_since" not in fields:
            fields["silent_since"] = in_seconds(-silent)
        (folder / runs.RECORD).write_text(yamlio.dump({"run_id": folder.name, **fields}))
        (folder / runs.STDOUT).write_text("said\n")
        os.utime(folder / runs.STDOUT, (NOW, NOW - silent))
        if held:
            lock = files.open_lock(str(folder / runs.LOCK))
            assert files.try_lock(lock)
            self._locks.append(lock)
        return folder

    def close(self) -> None:
        for lock in self._locks:
            os.close(lock)

    def why(self, task_id: str) -> str:
        return why.sentence(self.situation, task_id)


Make = Callable[[Plan], Made]


def in_seconds(offset: float) -> str:
    return ids.rfc3339(int((NOW + offset) * 1e9))


def changed(plan: Plan, **fields: dict[str, object]) -> Plan:
    """The plan with fields of some of its tasks replaced."""

    def task(old: Task) -> Task:
        return dataclasses.replace(old, **fields.get(old.id, {}))  # type: ignore[arg-type]

    stages = [
        dataclasses.replace(stage, tasks=tuple(map(task, stage.tasks))) for stage in plan.stages
    ]
    return dataclasses.replace(plan, stages=tuple(stages))


def review_plan() -> Plan:
    plan = changed(plan_of((True, {"gate": []})), gate={"role": "review", "agent": None})
    role = Role(name="review", agents=("claude", "gemini", "codex"), alternate=False, quorum=2)
    return dataclasses.replace(plan, roles={"review": role})


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a situation of a plan, in a folder of its own; the clocks stand still."""
    clock = types.SimpleNamespace(time=lambda: NOW, monotonic=lambda: MONOTONIC)
    for module in (activity, waits, frame):
        monkeypatch.setattr(module, "time", clock)
    made: list[Made] = []

    def make_one(plan: Plan) -> Made:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Made(folder, plan))
        return made[-1]

    yield make_one
    for one in made:
        one.close()


# -- settled tasks


def test_of_a_done_task_it_says_who_did_it_when_and_in_which_run(make: Make) -> None:
    made = make(plan_of((True, {"a": []})))
    made.attempt("a", "failed", "codex")
    made.attempt("a", "done", "claude", ended="2026-02-23T20:48:59.5Z")
    made.put("a", state.DONE)

    assert made.why("a") == "is done: claude finished it at 2026-02-23 20:48:59Z (run_a_2)"


def test_of_a_failed_task_it_gives_the_reason_and_where_to_look(make: Make) -> None:
    made = make(plan_of((True, {"a": []})))
    made.attempt("a", "failed")
    made.attempt("a", "failed")
    made.put("a", state.FAILED, "it \x1b[2Jbroke\nbadly")

    look = f"look with: bin/show-run run_a_2 --runs-dir {made.runs_dir}"
    expected = f"failed after 2 attempts: it ␛broke badly; {look}"
    assert made.why("a") == expected
    made.situation.is_run = False
    assert made.why("a") == f"{expected}; start the plan again to retry it"


def test_the_place_of_a_run_is_not_said_where_a_script_looks_by_itself(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(plan_of((True, {"a": []})))
    made.attempt("a", "failed")
    made.put("a", state.FAILED, "it broke")
    monkeypatch.setenv("JRUN_RUNS_DIR", str(made.runs_dir))

    assert made.why("a") == "failed: it broke; look with: bin/show-run run_a_1"


def test_a_block_is_led_back_to_the_task_that_failed(make: Make) -> None:
    made = make(plan_of((True, CHAIN)))
    made.put("a", state.FAILED, "it broke")
    made.put("b", state.BLOCKED, "needs a, which did not succeed")
    made.put("c", state.BLOCKED, "needs b, which did not succeed")

    assert made.why("b") == "is blocked: it needs a, which failed: it broke"
    assert made.why("c") == "is blocked: it needs b, and through it a, which failed: it broke"


# -- tasks under way


def test_of_a_running_task_it_says_who_for_how_long_and_when_it_last_spoke(
    make: Make,
) -> None:
    made = make(plan_of((True, {"a": []})))
    made.run("a", age=200, silent=20, timeout=3600, idle_timeout=900)

    expected = "is running: claude, for 3 min of at most 60 min, last output 20 s ago (run_a_1)"
    assert made.why("a") == expected


def test_silence_is_told_from_the_soft_mark_on_with_its_limit(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": []})))
    made.run("a", age=1300, silent=840, timeout=7200, idle_timeout=1800)
    made.run("b", age=1300, silent=295, idle_timeout=1800)

    expected = (
        "has been silent for 14 min; its limit is 30 min (claude, running for 21 min, run_a_1)"
    )
    assert made.why("a") == expected
    assert made.why("b").startswith("is running: claude, for 21 min, last output 4 min ago")


def test_a_short_limit_makes_the_soft_mark_shorter_and_no_limit_is_said(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": [], "c": []})))
    made.run("a", silent=21, idle_timeout=60)
    made.run("b", age=1000, silent=301)
    made.run("c", age=1000, silent=81, idle_timeout=60)

    assert "silent for 21 s; its limit is 60 s" in made.why("a")
    assert "silent for 5 min; it has no limit" in made.why("b")
    assert "its limit is 60 s, 4 times that during a tool call" in made.why("c")


def test_the_silence_during_a_tool_call_is_mentioned_later(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": []})))
    made.run("a", age=1000, silent=79, idle_timeout=60, noted=False)
    made.run("b", age=1000, silent=81, idle_timeout=60, noted=False)

    assert made.why("a").startswith("is running: claude, for 16 min, last output 79 s ago")
    assert "silent for 81 s; its limit is 60 s, 4 times that during a tool call" in made.why("b")


def test_what_its_supervisor_noted_of_the_silence_counts(make: Make) -> None:
    made = make(plan_of((True, {"a": []})))
    made.run("a", age=7000, silent=5000, idle_timeout=900, silent_since=in_seconds(-360))

    assert "silent for 6 min" in made.why("a")  # the rest of it the machine has slept


def test_a_note_of_silence_is_void_once_the_agent_has_spoken_again(make: Make) -> None:
    """As a supervisor leaves it that was killed: nobody takes the note away."""
    made = make(plan_of((True, {"a": []})))
    made.run("a", age=7000, silent=50, idle_timeout=900, silent_since=in_seconds(-400))

    assert "last output 50 s ago" in made.why("a")


def test_time_in_which_the_machine_slept_is_no_silence(make: Make) -> None:
    made = make(plan_of((True, {"a": []})))
    here = {key: procs.machine()[key] for key in ("boot_id", "host", "pid_namespace")}
    awake = {"monotonic_start": MONOTONIC - 100, **here}
    made.run("a", age=5000, silent=4990, idle_timeout=900, clocks=awake, noted=False)

    assert made.why("a").startswith("is running: claude, for 100 s, last output ")


def test_a_run_that_has_just_ended_is_not_said_to_run(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": []})))
    made.run("a", held=False, status="completed")
    made.run("b", held=False)  # killed, and nobody has recorded it yet

    for name in "ab":
        expected = f"has just ended (claude, run_{name}_1), and the plan is about to look at it"
        assert made.why(name) == expected


def test_of_a_task_under_verification_it_names_the_check(make: Make) -> None:
    plan = plan_of((True, {"a": []}))
    plan = changed(plan, a={"verify": ("true", "make test"), "verify_timeout": 600.0})
    made = make(plan)
    folder = made.run("a", held=False, status="completed")
    made.tasks["a"].attempts[0]["ended"] = in_seconds(-12)
    made.put("a", state.VERIFYING)

    assert made.why("a") == "is being verified for 12 s: 2 checks (limit 10 min, run_a_1)"
    (folder / verify.REPORT).write_text("$ true\nfine\n$ make test\n")
    assert made.why("a") == "is being verified for 12 s: make test (limit 10 min, run_a_1)"


# -- tasks that wait


def test_it_says_what_the_task_that_is_waited_for_does(make: Make) -> None:
    made = make(plan_of((True, CHAIN)))
    made.run("a", age=1300, silent=840, idle_timeout=1800)

    silent = "a, which has been silent for 14 min; its limit is 30 min"
    assert made.why("b").startswith(f"waits for {silent}")
    assert made.why("c").startswith(f"waits for b, and through it for {silent}")


def test_of_several_the_one_with_most_to_say_is_named(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": [], "c": [], "d": ["a", "b", "c"]})))
    made.run("a")
    made.run("b", age=1300, silent=840, idle_timeout=1800)

    assert made.why("d").startswith("waits for b (and 2 more), which has been silent for 14 min")


def test_the_end_of_a_stage_is_waited_for_by_what_is_left_in_it(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": ["a"], "x": []}), (True, {"c": [], "d": ["c"]})))
    made.put("x", state.DONE)
    made.run("a")

    for name in "cd":
        text = made.why(name)
        assert text.startswith("waits for the end of stage stage0 (2 of 3 tasks are left); a is r")
    assert made.why("b").startswith("waits for a, which is running")


def test_a_stage_without_a_barrier_is_not_waited_for(make: Make) -> None:
    made = make(plan_of((False, {"a": []}), (True, {"b": []})))
    made.run("a")

    assert made.why("b") == "is about to start"


def test_an_exclusive_thing_is_waited_for_by_its_name_and_holder(make: Make) -> None:
    plan = plan_of((True, {"a": [], "b": []}))
    made = make(changed(plan, a={"exclusive": "db"}, b={"exclusive": "db"}))
    made.run("a")

    assert made.why("b").startswith("waits for `exclusive: db`, held by a, which is running")


def test_a_free_slot_is_waited_for_with_how_many_others(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": [], "c": [], "d": [], "e": ["c"], "f": []})))
    made.run("a")
    made.run("b")

    assert made.why("c") == "waits for a free slot: 2 of 2 run, and 2 more wait for one"
    made.put("f", state.DONE)
    assert made.why("c") == "waits for a free slot: 2 of 2 run, and 1 more waits for one"
    made.put("d", state.DONE)
    assert made.why("c") == "waits for a free slot: 2 of 2 run"
    assert made.why("e").startswith("waits for c, which waits for a free slot")


def test_a_back_off_is_counted_down_and_over_once_it_has_passed(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": ["a"]})))
    made.attempt("a", "failed")
    made.put("a", state.PENDING, "tried again after: it broke", until=19.5)

    assert made.why("a") == "is tried again in 20 s, after: it broke"
    assert made.why("b") == "waits for a, which is tried again in 20 s, after: it broke"
    made.put("a", state.PENDING, "tried again after: it broke", until=-1)
    assert made.why("a") == "is about to start (tried again after: it broke)"


def test_starts_that_are_spread_are_said_to_be(make: Make) -> None:
    plan = dataclasses.replace(plan_of((True, {"a": []})), start_interval=0.2)
    task = dataclasses.replace(plan.tasks["a"], agent="claude")
    stage = dataclasses.replace(plan.stages[0], tasks=(task,))

    assert make(plan).why("a") == "is about to start"  # the shell waits for nobody
    paced = make(dataclasses.replace(plan, stages=(stage,)))
    expected = "is about to start; starts of one agent are at least 0.2 s apart"
    assert paced.why("a") == expected


def test_a_full_disk_holds_what_is_ready_and_nothing_else(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": ["a"], "c": []})))
    made.run("c")
    made.header["held"] = "disk is short: 3 MB free in /r; free some"

    held = "waits: nothing new starts: disk is short: 3 MB free in /r; free some"
    assert made.why("a") == held
    assert made.why("b") == f"waits for a, which {held}"
    assert made.why("c").startswith("is running")


# -- plans that start nothing any more


def test_a_critical_failure_is_why_the_rest_is_not_started(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": [], "c": []})))
    made.put("a", state.FAILED, "it broke")
    made.run("b")
    made.header["closing"] = "nothing new starts: a failed; waiting for 1 running"

    how = "start the plan again to go on when it has ended"
    assert made.why("c") == f"is not started: a failed, and nothing new starts; {how}"
    assert made.why("b").startswith("is running")


def test_an_interrupt_is_told_from_a_failure(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": []})))
    made.put("a", state.FAILED, "it broke")
    for told in (
        "interrupted: nothing new starts, waiting for 1",
        "stopping 1 running: interrupted",
    ):
        made.header["closing"] = told

        assert made.why("b").startswith("is not started: the plan was interrupted, and nothing new")


@pytest.mark.parametrize(
    "told",
    ["nothing new starts: interrupted failed; none runs", "stopping 1 running: interrupted failed"],
)
def test_a_task_may_be_called_interrupted(make: Make, told: str) -> None:
    made = make(plan_of((True, {"interrupted": [], "b": []})))
    made.put("interrupted", state.FAILED, "it broke")
    made.header["closing"] = told

    assert made.why("b").startswith("is not started: interrupted failed, and nothing new starts")


def test_a_task_waits_for_a_quota_and_others_for_it(make: Make) -> None:
    made = make(plan_of((True, CHAIN)))
    waits = "waits for claude's quota, which resets at 09:12Z"
    made.put("a", state.WAITING, waits, until=72 * 60)
    made.header["held"] = "disk is short"

    assert made.why("a") == f"{waits} (in 72 min)"
    assert made.why("b") == f"waits for a, which {waits} (in 72 min)"
    made.put("a", state.WAITING, "waits for claude's quota, which c tries first")
    assert made.why("a") == "waits for claude's quota, which c tries first"


def test_a_task_that_still_waits_for_a_quota_when_its_plan_ends(make: Make) -> None:
    made = make(plan_of((True, CHAIN)))
    made.put("a", state.WAITING, "waits for claude's quota, which resets at 09:12Z", until=72 * 60)
    made.attempt("a", "quota")
    made.situation.is_run = False
    cause = "claude's quota is used up until 2027-01-15 09:13Z"
    made.header.update(closing=f"stopped: {cause}; start the plan again then", exit_code=75)
    made.header["ended"] = "2026-02-23T20:48:59.5Z"

    assert made.why("a") == (
        "waits for claude's quota, which resets at 09:12Z (in 72 min): the plan is not running: "
        f"it ended at 2026-02-23 20:48:59Z with exit code 75 ({cause}); "
        "start the plan again to go on"
    )


def test_a_judge_waits_for_its_quota_while_another_one_judges(make: Make) -> None:
    made = make(review_plan())
    made.attempt("gate@claude", "quota", why="usage limit reached")

    assert made.why("gate@claude") == "waits for the quota of claude: usage limit reached"


def test_a_task_outside_the_scope_is_not_part_of_this_start(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": []})))
    made.header["scope"] = ["a"]

    expected = "is not part of this start of the plan, which is for 1 of 2 tasks"
    assert made.why("b") == expected
    made.situation.is_run = False
    assert made.why("b").startswith("was not part of the last start: the plan is not running: ")


def test_a_plan_that_has_ended_is_said_to_have(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": []})))
    made.put("a", state.FAILED, "it broke")
    made.situation.is_run = False
    made.header.update(closing="nothing new starts: a failed; none runs", exit_code=1)
    made.header["ended"] = "2026-02-23T20:48:59.5Z"

    assert made.why("b") == (
        "has not been started: the plan is not running: it ended at 2026-02-23 20:48:59Z "
        "with exit code 1 (a failed); start the plan again to go on"
    )


def test_a_plan_whose_process_was_killed_is_said_to_be_gone(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": [], "c": []})))
    made.situation.is_run = False
    made.run("a")
    made.run("b", held=False, status="completed")

    gone = "the plan is not running: the process that ran it (pid 4711) is gone"
    assert made.why("c") == f"has not been started: {gone}; start the plan again to go on"
    assert made.why("a") == (
        "still runs as run_a_1 (claude) though the plan does not; "
        "start the plan again and it is taken over"
    )
    assert made.why("b").startswith(f"has ended as run_b_1, and was not judged yet: {gone}")


def test_the_moment_between_two_starts_is_not_mistaken_for_either(make: Make) -> None:
    made = make(plan_of((True, {"a": []})))
    made.header.update(ended="2026-02-23T20:48:59.5Z", closing="interrupted: nothing new starts")

    assert made.why("a") == "is not started: the plan has just ended, or is being started again"


def test_a_check_that_was_stopped_does_not_run(make: Make) -> None:
    made = make(plan_of((True, {"a": []})))
    made.run("a", held=False, status="completed")
    made.put("a", state.PENDING, "stopped while it was verified")
    made.header["closing"] = "stopping 1 running: interrupted"

    assert made.why("a").startswith("is not tried again: the plan was interrupted")


def test_a_state_without_its_attempt_is_no_reason_to_fail(make: Make) -> None:
    made = make(plan_of((True, {"a": [], "b": ["a"]})))
    made.put("a", state.RUNNING)

    assert made.why("b") == "waits for a, which is about to start"


# -- reviews


def test_of_a_review_each_judge_is_told(make: Make) -> None:
    made = make(review_plan())
    made.attempt("gate@claude", "done", ended=in_seconds(-5), verdict="APPROVE")
    made.attempt("gate@codex", "failed", why="it broke")
    made.run("gate@gemini", silent=2)

    text = made.why("gate")

    assert text.startswith(
        "is under review, 2 approvals are needed: 1 judge is done (gate@claude approved); "
        "gate@codex failed so far; gate@gemini is running: claude, for 60 s"
    )
    assert made.why("gate@claude") == "is done: gate@claude approved (run_gate@claude_1)"
    assert made.why("gate@gemini").startswith("is running: claude, for 60 s")
    assert made.why("gate@codex").startswith("failed: it broke; is part of gate, which is under")


def test_what_voided_judges_said_does_not_count(make: Make) -> None:
    made = make(review_plan())
    made.attempt("gate@claude", "void", verdict="REJECT")
    made.run("gate@claude")
    made.run("gate@gemini")

    expected = "is under review, 2 approvals are needed: gate@claude (and 1 more) is running"
    assert made.why("gate").startswith(expected)


def test_a_review_that_passed_names_its_judges(make: Make) -> None:
    made = make(review_plan())
    for name in ("claude", "gemini"):
        ended = "2026-02-23T20:48:59.5Z"
        made.attempt(f"gate@{name}", "done", name, ended=ended, verdict="APPROVE")
    made.put("gate", state.DONE)

    assert made.why("gate") == (
        "is done: the review passed at 2026-02-23 20:48:59Z "
        "(gate@claude approved, gate@gemini approved)"
    )


# -- and what is not there


def test_an_unknown_task_is_refused_with_those_that_are_meant(make: Make) -> None:
    made = make(plan_of((True, {"infra-storage": [], "infra-config": [], "z": []})))

    with pytest.raises(UsageError, match=r"no task infra-strage in /p.yaml; did you mean infra-s"):
        made.why("infra-strage")
    with pytest.raises(UsageError, match=r"did you mean infra-config\?"):
        made.why("CONFIG")
    with pytest.raises(UsageError, match=r"no task q\?. in /p.yaml; --dry-run lists them"):
        made.why("q?\x07")
    with pytest.raises(UsageError, match="no task z@claude"):
        made.why("z@claude")


def test_no_sentence_holds_a_token_or_a_control_character(make: Make) -> None:
    secret = "ghp_" + "0123456789abcdef" * 2
    made = make(plan_of((True, {"a": [], "b": []})))
    made.put("a", state.FAILED, f"\x9b31m{secret}")
    made.put("b", state.BLOCKED, f"{secret}\x07")

    for name in "ab":
        assert secret not in made.why(name)
        assert made.why(name).isprintable()


def test_a_chain_of_thousands_is_followed_to_its_end(make: Make) -> None:
    names = [f"t{number}" for number in range(5000)]
    needs = {name: names[max(0, n - 1) : n] for n, name in enumerate(names)}
    made = make(plan_of((True, needs), (True, {"last": []})))
    made.run("t0")

    explainer = why.Explainer(made.situation)

    for name in (names[-1], names[2500]):
        assert "and through it for t0, which is running" in explainer.sentence(name)
    assert "(5000 of 5000 tasks are left); t0 is running" in explainer.sentence("last")
