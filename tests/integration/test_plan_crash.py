"""Any process of a running plan is killed, anywhere: started again, it finishes, and nothing ran twice."""

from __future__ import annotations

import os
import random
import re
import signal

import pytest

from tests.agent_runs import is_alive
from tests.helpers import wait_until
from tests.plan_root import PlanRoot, Record, sh

ORCHESTRATOR_POINTS = [
    "attempt-before-allocate",
    "attempt-before-spawn",
    "attempt-noted",
    "attempt-spawned",
    "bus-before-write",
    "bus-done",
    "bus-locked",
    "bus-written",
    "locked",
    "replace-before-rename",
    "replace-renamed",
    "replace-written",
    "state-save",
    "state-saved",
    "task-done",
    "verify-begin",
]
SUPERVISOR_POINTS = [
    "bus-done",
    "bus-locked",
    "bus-written",
    "locked",
    "replace-before-rename",
    "replace-renamed",
    "replace-written",
    "run-agent-ended",
    "run-allocated",
    "run-announced",
    "run-before-spawn",
    "run-ended",
    "run-output-written",
    "run-pid-known",
    "run-recorded",
    "run-spawned",
    "run-started",
]

RAN = 'echo "$JRUN_TASK_ID" >>ran'
SLOW = f"{RAN}; sleep 0.2; exit"


def fleet() -> list[Record]:
    """Tasks of every kind, small; each notes that it ran."""
    judge = {"role": "judging", "prompt": f"```sh\n{RAN}; echo VERDICT: APPROVE\n```\n"}
    return [
        {"id": "one", "tasks": [sh("a", SLOW), sh("b", RAN, verify=["sleep 0.05"])]},
        {"id": "two", "tasks": [sh("c", SLOW), {"id": "r", **judge}, sh("d", RAN)]},
    ]


UNITS = ["a", "b", "c", "d", "r@shell", "r@shell.2"]


ARGUMENTS = ("--agent", "shell")  # two judges of one name


def make_plan(root: PlanRoot) -> None:
    root.plan(stages=fleet(), roles={"judging": {"agents": ["one", "two"], "quorum": 2}})


def finish(root: PlanRoot) -> None:
    """Start the plan once more, undisturbed; it must end well, each task having run once."""
    done = root.run(*ARGUMENTS)

    assert done.returncode == 0, done.stdout + done.stderr
    assert set(root.states().values()) == {"done"}
    assert sorted(root.lines("ran")) == UNITS
    for task_id in "abcdr":
        for attempt in root.attempts(task_id):
            assert attempt["exit_code"] == 0
            info = (root.runs / str(attempt["run"]) / "run-info.yaml").read_text()
            assert f'attempt_token: "{attempt["token"]}"' in info
    assert len(re.findall(r"(?m)^type: RUN_STOP$", root.bus.read_text())) == len(UNITS)
    assert root.bus_lines("ERROR ") == []
    root.assert_nothing_left()


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("point", ORCHESTRATOR_POINTS)
def test_an_orchestrator_killed_at_any_point_goes_on_where_it_stood(
    root: PlanRoot, point: str, count: int
) -> None:
    make_plan(root)
    fault = {"CONDUCTOR_FAULT": f"kill:{point}:{count}", "CONDUCTOR_FAULT_IN": "orchestrator"}

    killed = root.run(*ARGUMENTS, env=fault)

    assert killed.returncode in (0, -signal.SIGKILL), killed.stdout + killed.stderr
    assert killed.returncode or count > 1, "the point was never reached"
    finish(root)


@pytest.mark.parametrize("point", SUPERVISOR_POINTS)
def test_supervisors_that_are_all_killed_at_one_point_lose_nothing(
    root: PlanRoot, point: str
) -> None:
    make_plan(root)
    fault = {"CONDUCTOR_FAULT": f"kill:{point}", "CONDUCTOR_FAULT_IN": "supervisor"}
    plan = root.start(*ARGUMENTS, env=fault)
    printed = root.path / "printed"

    def has_suffered() -> bool:
        text = printed.read_text()
        return plan.poll() is not None or "not begun" in text or text.count("taken over") > 2

    wait_until(has_suffered, what="a sign of the killed supervisors")
    plan.kill()
    plan.wait()
    finish(root)


@pytest.mark.parametrize("count", [1, 4])
def test_a_spawner_that_is_killed_is_started_again(root: PlanRoot, count: int) -> None:
    make_plan(root)
    # Each new spawner dies at its own `count`-th request: with 1, none ever forks.
    fault = {"CONDUCTOR_FAULT": f"kill:spawner-fork:{count}", "CONDUCTOR_FAULT_IN": "spawner"}
    plan = root.start(*ARGUMENTS, env=fault)
    printed = root.path / "printed"
    wait_until(
        lambda: plan.poll() is not None or "not begun" in printed.read_text(), what="a dead spawner"
    )
    if count == 1:
        plan.kill()

    # One task may meet a dying spawner each time, and is then given up until the next start.
    assert plan.wait(60) in ((0, 1) if count > 1 else (-signal.SIGKILL,))
    finish(root)


def test_a_supervisor_that_can_never_begin_fails_the_task_in_the_end(root: PlanRoot) -> None:
    root.plan(sh("a", RAN))
    fault = {"CONDUCTOR_FAULT": "kill:run-allocated", "CONDUCTOR_FAULT_IN": "supervisor"}

    done = root.run(env=fault)

    assert done.returncode == 1
    assert "never started" in str(root.state()["a"]["why"])
    assert len(root.bus_lines("ERROR ")) == 1
    assert root.run().returncode == 0
    root.assert_nothing_left()


def test_a_live_agent_is_taken_over_with_its_exit_code(root: PlanRoot) -> None:
    wait = "while [ ! -e gate ]; do sleep 0.05; done"
    root.plan(sh("a", f"{RAN}; {wait}; exit 7"), sh("b", f"{RAN}; {wait}"))
    plan = root.start()
    wait_until(lambda: len(root.lines("ran")) == 2, what="both agents")
    plan.kill()
    plan.wait()
    wait_until((root.runs / "a.pid").exists, what="the supervisor of a")
    os.kill(int((root.runs / "a.pid").read_text()), signal.SIGKILL)  # of b the supervisor lives

    again = root.start()
    printed = root.path / "printed"
    wait_until(lambda: printed.read_text().count("taken over") >= 2, what="both taken over")
    (root.work / "gate").touch()

    assert again.wait(60) == 1
    assert root.states() == {"a": "failed", "b": "done"}
    assert root.attempts("a")[0]["exit_code"] == 7
    assert sorted(root.lines("ran")) == ["a", "b"]
    root.assert_nothing_left()


def test_an_agent_that_ends_while_nobody_watches_is_still_told_apart(root: PlanRoot) -> None:
    wait = "while [ ! -e gate ]; do sleep 0.05; done"
    root.plan(sh("a", f"{RAN}; {wait}; exit 7"), sh("b", f"{RAN}; {wait}"))
    plan = root.start()
    wait_until(lambda: len(root.lines("ran")) == 2, what="both agents")
    supervisors = [root.runs / "a.pid", root.runs / "b.pid"]
    wait_until(lambda: all(path.exists() for path in supervisors), what="their supervisors")
    plan.kill()
    plan.wait()
    for path in supervisors:
        os.kill(int(path.read_text()), signal.SIGKILL)
    (root.work / "gate").touch()
    wait_until(lambda: not root.processes(), what="the end of the agents")

    assert root.run().returncode == 1
    assert root.states() == {"a": "failed", "b": "done"}
    assert root.attempts("a")[0]["exit_code"] == 7
    assert sorted(root.lines("ran")) == ["a", "b"]
    root.assert_nothing_left()


def test_without_guard_and_supervisor_the_code_is_unknown_and_the_task_is_tried_again(
    root: PlanRoot,
) -> None:
    root.plan(sh("a", f"{RAN}; [ -e gate ] || sleep 600"), defaults={"retries": 1})
    plan = root.start()
    wait_until(lambda: root.lines("ran") and (root.runs / "a.pid").exists(), what="the agent")
    record = root.record("a")
    (root.work / "gate").touch()
    os.kill(int((root.runs / "a.pid").read_text()), signal.SIGKILL)
    os.kill(int(str(record["pgid"])), signal.SIGKILL)
    os.kill(int(str(record["pid"])), signal.SIGKILL)

    assert plan.wait(60) == 0
    first, second = root.attempts("a")
    assert (first["exit_code"], first["result"]) == (-1, "failed")
    assert "supervisor lost" in str(first["why"])
    assert second["result"] == "done"
    root.assert_nothing_left()


def test_a_guard_that_is_killed_takes_neither_the_agent_nor_its_exit_code_along(
    root: PlanRoot,
) -> None:
    root.plan(sh("a", f"{RAN}; while [ ! -e gate ]; do sleep 0.05; done; exit 7"))
    plan = root.start()
    wait_until(lambda: root.lines("ran"), what="the agent")
    os.kill(int(str(root.record("a")["pgid"])), signal.SIGKILL)
    (root.work / "gate").touch()

    assert plan.wait(60) == 1
    assert root.attempts("a")[0]["exit_code"] == 7
    assert root.lines("ran") == ["a"]
    root.assert_nothing_left()


def test_the_repair_of_one_run_does_not_take_away_the_result_of_anothers_check(
    root: PlanRoot,
) -> None:
    wait = "while [ ! -e gate ]; do sleep 0.05; done"
    root.plan(sh("a", RAN, verify=[f"echo $$ >>checks; {wait}"]), sh("b", f"{RAN}; {wait}"))
    plan = root.start()
    wait_until(lambda: root.lines("checks") and len(root.lines("ran")) == 2, what="check and agent")
    wait_until((root.runs / "b.pid").exists, what="the supervisor of b")
    os.kill(plan.pid, signal.SIGSTOP)
    os.kill(int((root.runs / "b.pid").read_text()), signal.SIGKILL)
    (root.work / "gate").touch()
    record = root.record("b")
    ended = {int(root.lines("checks")[0]), int(str(record["pid"])), int(str(record["pgid"]))}
    wait_until(lambda: not any(map(is_alive, ended)), what="the end of agent and check")
    os.kill(plan.pid, signal.SIGCONT)

    assert plan.wait(60) == 0
    assert sorted(root.lines("ran")) == ["a", "b"]
    root.assert_nothing_left()


def test_killed_while_verifying_the_check_runs_again_alone(root: PlanRoot) -> None:
    wait = "while [ ! -e gate ]; do sleep 0.05; done"
    root.plan(sh("a", RAN, verify=[f"echo $$ >>checks; {wait}"]))
    plan = root.start()
    wait_until(lambda: root.lines("checks"), what="the check")
    plan.kill()
    plan.wait()

    again = root.start()
    wait_until(lambda: len(root.lines("checks")) == 2, what="the second check")
    first = int(root.lines("checks")[0])
    assert first not in root.processes()  # two at once would disturb each other
    (root.work / "gate").touch()

    assert again.wait(60) == 0
    assert root.lines("ran") == ["a"]
    root.assert_nothing_left()


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_again_and_again_a_plan_comes_to_its_end(
    root: PlanRoot, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311
    make_plan(root)
    printed = root.path / "printed"
    for _ in range(12):
        plan = root.start(*ARGUMENTS)
        # So many lines of progress, or bytes on the bus, from now: a moment without a clock.
        lines = printed.read_text().count("\n") + dice.randint(0, 6)
        wait_until(
            lambda: plan.poll() is not None or printed.read_text().count("\n") >= lines,  # noqa: B023
            what="progress",
        )
        victims = [
            pid
            for pid, command in root.processes().items()
            if "conductor-supervisor" in command and dice.random() < 0.3
        ]
        for pid in [*victims, plan.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if plan.wait() == 0:
            break
    finish(root)
