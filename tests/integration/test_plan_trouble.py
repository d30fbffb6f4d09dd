"""Trouble that comes together: takeovers, time that runs out, other starts, agents that meddle."""

from __future__ import annotations

from tests.agent_runs import kill
from tests.helpers import run_script, wait_until
from tests.plan_root import PlanRoot, sh

WAIT = "while [ ! -e go ]; do sleep 0.02; done"


def test_an_agent_has_no_descriptor_of_its_supervisor(root: PlanRoot) -> None:
    show = (
        "for fd in /proc/self/fd/*; do readlink $fd; done >>fds; readlink /proc/$$/fd/* >>fds; true"
    )
    root.plan(sh("a", show), sh("b", show, depends_on=["a"]), sh("c", show, depends_on=["b"]))

    assert root.run().returncode == 0

    found = [line for line in root.lines("fds") if line.startswith(("socket:", "pipe:"))]
    assert found == []


def test_an_agent_that_locks_its_own_folder_is_stopped_all_the_same(root: PlanRoot) -> None:
    root.plan(
        sh("a", 'exec 9<"$JRUN_RUN_FOLDER"; flock -x 9; echo locked >>ran; exec sleep 600'),
        max_parallel=2,
    )
    plan = root.start()
    wait_until(lambda: root.lines("ran") == ["locked"], what="the agent's lock")
    run = root.run_folder("a").name if root.state_file.exists() else ""

    done = run_script("bin/stop-run", run, "--root", root.path)

    assert done.returncode == 0, done.stderr
    assert plan.wait(60) == 1
    root.assert_nothing_left()


def test_a_run_that_is_taken_over_while_its_stage_is_ended_is_ended_too(root: PlanRoot) -> None:
    deaf = "trap : TERM; echo a >>ran; while :; do sleep 0.05; done"
    root.plan(stages=[{"id": "s", "timeout": "1s", "tasks": [sh("a", deaf)]}])
    plan = root.start(env={"CONDUCTOR_STOP_GRACE": "3"})
    wait_until(lambda: root.lines("ran") == ["a"], what="the agent")
    supervisor = int((root.runs / "a.pid").read_text())
    log = root.runs / "p" / "plan.log"
    wait_until(lambda: "has run out of its 1 s" in log.read_text(), what="the end of the stage")

    kill(supervisor)

    assert plan.wait(60) == 1
    assert root.states() == {"a": "failed"}
    root.assert_nothing_left()


def test_a_stage_that_runs_out_of_time_is_told_for_each_task_and_obeys_kill(
    root: PlanRoot,
) -> None:
    root.plan(
        stages=[
            {
                "id": "s",
                "timeout": "1s",
                "barrier": False,
                "tasks": [sh("a", "sleep 600"), sh("b", "true", depends_on=["a"])],
            },
            {"id": "t", "tasks": [sh("c", "sleep 600")]},
        ],
    )

    done = root.run("--kill")

    assert done.returncode == 1
    assert "nothing new starts: " in done.stdout
    assert root.states() == {"a": "failed", "b": "failed", "c": "pending"}
    assert {line.split()[1] for line in root.bus_lines("ERROR ")} >= {"task=a", "task=b"}
    assert "p/b" in (root.path / "docs" / "dev" / "issues.md").read_text()
    root.assert_nothing_left()


def test_what_runs_from_an_earlier_start_keeps_its_exclusive_name_and_is_settled(
    root: PlanRoot,
) -> None:
    inside = "[ ! -e inside ] || echo both >>ran; touch inside; {}; rm inside; echo {} >>ran"
    root.plan(
        sh("x", inside.format("true", "x"), exclusive="db"),
        sh("y", inside.format(WAIT, "y"), exclusive="db"),
    )
    first = root.start("--only", "y")
    wait_until((root.work / "inside").exists, what="y")
    first.kill()
    first.wait()

    second = root.start("--only", "x")
    printed = root.path / "printed"
    wait_until(lambda: "y still runs" in printed.read_text(), what="y to be taken over")
    (root.work / "go").touch()

    assert second.wait(60) == 0
    assert root.lines("ran") == ["y", "x"]
    assert root.states() == {"x": "done", "y": "done"}
    assert run_script("bin/check-storage", root.path).returncode == 0


def test_a_failure_of_what_is_not_of_this_start_is_left_to_the_next(root: PlanRoot) -> None:
    root.plan(sh("x", "echo x >>ran"), sh("y", f"touch inside; {WAIT}; [ -e good ]"))
    first = root.start("--only", "y")
    wait_until((root.work / "inside").exists, what="y")
    first.kill()
    first.wait()
    second = root.start("--only", "x")
    wait_until(lambda: root.lines("ran") == ["x"], what="x")
    (root.work / "go").touch()

    assert second.wait(60) == 0
    assert root.states() == {"x": "done", "y": "pending"}
    (root.work / "good").touch()
    assert root.run().returncode == 0


def test_an_agent_that_speaks_of_being_stopped_is_tried_again(root: PlanRoot) -> None:
    event = '{"type":"result","subtype":"error","is_error":true,"result":"stopped by SIGTERM"}'
    program = root.path / "claude"
    program.write_text(f"#!/bin/sh\necho x >>ran\necho '{event}'\nexit 1\n")
    program.chmod(0o755)
    root.plan({"id": "a", "agent": "claude", "prompt": "x", "retries": 1})

    done = root.run(env={"PATH": f"{root.path}:/usr/bin:/bin"})

    assert done.returncode == 1
    assert root.lines("ran") == ["x", "x"]
