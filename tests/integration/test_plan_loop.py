"""Tasks of a plan with `loop: true`: an agent is started until its task is done, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

from lib import bus, propagation, runs, tasks
from tests.helpers import run_script, wait_until
from tests.plan_root import PlanRoot, Record

DONE = 'touch "$JRUN_TASK_FOLDER/DONE"'
ALONE = """\
mkdir "$JRUN_TASK_FOLDER/busy" || echo two >>ledger
echo "$JRUN_ID" >>ledger; {work}
rmdir "$JRUN_TASK_FOLDER/busy"
"""
WAIT = "touch begun; while [ ! -e go ]; do sleep 0.05; done"


def looped(script: str, **keys: object) -> Record:
    """A task of the shell agent that is a loop; n is the number of the attempt."""
    count = "n=$(($(cat n 2>/dev/null || echo 0) + 1)); echo $n >n"
    prompt = f"```sh\n{count}\n{script}\n```\n"
    return {"id": "a", "agent": "shell", "prompt": prompt, "loop": True, **keys}


def folder_of(root: PlanRoot, task: str = "a") -> Path:
    return root.runs / "p" / task


def loop_of(root: PlanRoot, task: str = "a") -> Record:
    data: Record = yaml.safe_load((folder_of(root, task) / "TASK-LOOP.yaml").read_text())
    return data


def inner(root: PlanRoot, task: str = "a") -> list[Record]:
    """run-info.yaml of every attempt of the loop."""
    attempts: list[Record] = loop_of(root, task)["attempts"]  # type: ignore[assignment]
    folder = folder_of(root, task) / "runs"
    texts = [(folder / str(item["run"]) / "run-info.yaml").read_text() for item in attempts]
    return [yaml.safe_load(text) for text in texts]


def facts(root: PlanRoot, task: str = "a") -> int:
    """How often the project was told that the task is done."""
    told = bus.read(tasks.locate(str(root.runs), "p", task).project_bus)
    return sum(message.meta.get("kind") == propagation.KIND for message in told)


def stop(root: PlanRoot, *arguments: str) -> None:
    done = run_script("bin/stop-run", *arguments, "--root", str(root.path), env=root.environment())
    assert done.returncode == 0, done.stdout + done.stderr


def check(root: PlanRoot) -> None:
    """All that must hold once a plan has ended and nothing of it lives."""
    root.assert_nothing_left()
    checked = run_script("bin/check-storage", str(root.path), env=root.environment())
    assert checked.returncode == 0, checked.stdout + checked.stderr


def run_task_pid(root: PlanRoot) -> int:
    return int(str(loop_of(root)["pid"]))


def begun(root: PlanRoot) -> None:
    wait_until((root.work / "begun").exists, what="the agent inside")


def test_an_agent_is_started_until_its_task_is_done(root: PlanRoot) -> None:
    root.plan(
        looped(f"echo I am attempt $n; [ $n -lt 3 ] || {DONE}", expect={"output": "attempt 3"})
    )

    done = root.run()

    assert done.returncode == 0, done.stdout + done.stderr
    assert root.states() == {"a": "done"}
    assert len(root.attempts("a")) == 1
    outer, attempts = root.record("a"), inner(root)
    assert [record["status"] for record in attempts] == ["completed"] * 3
    assert {record["parent_run_id"] for record in attempts} == {outer["run_id"]}
    assert (outer["agent"], outer["agent_name"]) == ("loop", "shell")
    assert (root.run_folder("a") / "output.md").read_text() == "I am attempt 3\n"
    transcript = (root.run_folder("a") / "transcript.md").read_text()
    assert all(str(record["run_id"]) in transcript for record in attempts)
    assert facts(root) == 1
    assert " shell " in next(line for line in done.stdout.split("\n") if line.startswith("a "))
    check(root)


def test_tokens_are_sums_and_are_counted_once(root: PlanRoot) -> None:
    task = {
        "id": "a", "agent": "offline", "loop": True, "max_restarts": 2, "prompt": "x\noffline: not-done\n",
    }  # fmt: skip
    root.plan(task)

    ended = root.run()

    assert ended.returncode == 1
    outer, attempts = root.record("a"), inner(root)
    assert len(attempts) == 2
    for key in ("input_tokens", "output_tokens", "tool_calls"):
        assert outer[key] == sum(int(str(record[key])) for record in attempts), key
    assert f"{outer['input_tokens']}/{outer['output_tokens']}" in ended.stdout
    listed = run_script("bin/list-runs", "--root", str(root.path), env=root.environment())
    total = listed.stdout.strip().split("\n")[-1]
    assert total.startswith(
        f"3 runs: {outer['input_tokens']} tokens in, {outer['output_tokens']} out"
    )
    why = root.why("a")
    assert "restarts exhausted: 2 attempts (of 2), and no DONE" in why
    check(root)


def test_the_offline_agent_rehearses_a_loop(root: PlanRoot) -> None:
    root.plan({"id": "a", "prompt": "Work.", "loop": True})
    done = root.run("--agent", "offline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(inner(root)) == 1
    assert facts(root) == 1
    check(root)


def test_the_next_agent_of_the_role_takes_over_from_a_loop_that_fails(root: PlanRoot) -> None:
    config = root.path / "config.yaml"
    first = {"type": "command", "command": ["sh", "-c", "cat >/dev/null; echo no; exit 3"]}
    second = {"type": "command", "command": ["sh", "-c", f"cat >/dev/null; echo yes; {DONE}"]}
    config.write_text(json.dumps({"agents": {"one": first, "two": second}}))
    role = {"agents": ["one", "two"]}
    root.plan(
        {"id": "a", "role": "two-of-them", "prompt": "Work.", "loop": True, "max_restarts": 2},
        roles={"two-of-them": role},
    )

    done = root.run("--config", config)

    assert done.returncode == 0, done.stdout + done.stderr
    assert [item["agent"] for item in root.attempts("a")] == ["one", "two"]
    assert "restarts exhausted" in str(root.attempts("a")[0]["why"])
    assert [record["agent_name"] for record in inner(root)] == ["one", "one", "two"]
    assert "two (after one)" in done.stdout
    assert facts(root) == 1
    check(root)


def test_checks_that_fail_reopen_the_task(root: PlanRoot) -> None:
    root.plan(looped(DONE, verify=["test $(cat n) -ge 2"], retries=1))

    done = root.run()

    assert done.returncode == 0, done.stdout + done.stderr
    assert [item["result"] for item in root.attempts("a")] == ["failed", "done"]
    assert root.lines("n") == ["2"]
    assert len(inner(root)) == 2
    assert len([path for path in folder_of(root).iterdir() if path.name.startswith("DONE.")]) == 1
    assert facts(root) == 2  # one for each DONE
    check(root)


def test_a_plan_from_the_beginning_reopens_it_too(root: PlanRoot) -> None:
    root.plan(looped(DONE))
    assert root.run().returncode == 0
    assert root.run().returncode == 0
    assert root.lines("n") == ["1"]
    assert root.run("--fresh").returncode == 0
    assert root.lines("n") == ["2"]
    check(root)


def test_a_plan_that_is_killed_takes_the_loop_over(root: PlanRoot) -> None:
    root.plan(looped(ALONE.format(work=WAIT) + f"[ $n -lt 2 ] || {DONE}"))
    plan = root.start()
    begun(root)
    plan.kill()
    plan.wait()

    second = root.start()
    wait_until(lambda: "taken over" in (root.path / "printed").read_text(), what="the taking over")
    (root.work / "go").touch()

    assert second.wait(60) == 0
    assert len(root.attempts("a")) == 1
    assert root.lines("ledger") == [str(record["run_id"]) for record in inner(root)]
    assert len(inner(root)) == 2
    assert facts(root) == 1
    check(root)


@pytest.mark.parametrize(
    "victim", ["run-task", "supervisor", "inner supervisor", "all but the agent"]
)
def test_whoever_is_killed_no_two_agents_are_at_work_at_once(root: PlanRoot, victim: str) -> None:
    root.plan(looped(ALONE.format(work=WAIT) + f"[ $n -lt 2 ] || {DONE}", retries=2))
    plan = root.start()
    begun(root)
    inside = inner(root)[0]
    outer = next(run for run in runs.listing(str(root.runs)) if run.text("agent") == "loop")
    kill = {
        "run-task": [run_task_pid(root)],
        "supervisor": [outer.number("supervisor_pid")],
        "inner supervisor": [int(str(inside["supervisor_pid"]))],
    }
    kill["all but the agent"] = [plan.pid, *[pid for pids in kill.values() for pid in pids]]
    for pid in kill[victim]:
        os.kill(pid, signal.SIGKILL)
    if victim == "all but the agent":
        plan.wait()
        plan = root.start()
    if victim != "supervisor" and "inner" not in victim:
        wait_until(
            lambda: (
                "taken over" in (folder_of(root) / "TASK-LOOP.yaml").read_text()
                or int(str(loop_of(root).get("pid"))) not in kill[victim]
            ),
            what="another loop",
        )
    (root.work / "go").touch()

    assert plan.wait(90) == 0, (root.path / "printed").read_text()
    assert "two" not in root.lines("ledger")
    assert root.lines("ledger") == [str(record["run_id"]) for record in inner(root)]
    assert len(inner(root)) == 2
    assert facts(root) == 1
    check(root)


def test_stopping_the_run_of_the_plan_stops_what_is_inside_with_its_grace(root: PlanRoot) -> None:
    trap = "trap 'sleep 0.3; echo ended in peace >>peace; exit 0' TERM; touch begun"
    root.plan(looped(f"{trap}; while :; do sleep 0.1; done", retries=3))
    plan = root.start()
    begun(root)

    stop(root, next(r.run_id for r in runs.listing(str(root.runs)) if r.text("agent") == "loop"))

    assert plan.wait(60) == 1
    assert root.lines("peace") == ["ended in peace"]
    assert len(root.attempts("a")) == 1  # what a person stops is not tried again
    assert loop_of(root)["state"] == "stopped"
    check(root)


def test_a_loop_that_does_not_obey_is_killed_with_all_it_runs(root: PlanRoot) -> None:
    work = "trap '' TERM; sleep 600 & sleep 600 & touch begun; wait; wait; sleep 600"
    root.plan(looped(work, timeout=2))
    began = root.run(env={"CONDUCTOR_STOP_GRACE": "1"})
    assert began.returncode == 1
    assert "timed out" in root.why("a")
    check(root)


def test_an_agent_that_lost_its_loop_is_stopped_with_the_run_that_took_it_over(
    root: PlanRoot,
) -> None:
    root.plan(looped("touch begun; exec sleep 600", retries=1))
    plan = root.start()
    begun(root)
    first = run_task_pid(root)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: run_task_pid(root) != first, what="another loop")
    [outer] = [run for run in runs.listing(str(root.runs)) if run.text("status") == "running"
               and run.text("agent") == "loop"]  # fmt: skip
    supervisor = outer.number("supervisor_pid")

    os.kill(supervisor, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGTERM)
    os.kill(run_task_pid(root), signal.SIGKILL)
    os.kill(supervisor, signal.SIGCONT)

    assert plan.wait(60) == 1
    assert [record["status"] for record in inner(root)] == ["failed"]
    root.assert_nothing_left()


def test_an_interrupted_plan_goes_on_where_the_loop_stood(root: PlanRoot) -> None:
    root.plan(looped(f"[ $n -gt 1 ] && {{ {DONE}; exit; }}; touch begun; exec sleep 600"))
    plan = root.start()
    begun(root)
    os.kill(plan.pid, signal.SIGINT)
    wait_until(lambda: "interrupted" in (root.path / "printed").read_text(), what="the first")
    os.kill(plan.pid, signal.SIGINT)
    assert plan.wait(60) == 130
    root.assert_nothing_left()

    assert root.run().returncode == 0

    assert [record["status"] for record in inner(root)] == ["failed", "completed"]
    assert facts(root) == 1
    check(root)


def test_stopping_the_task_itself_is_no_failure_that_is_tried_again(root: PlanRoot) -> None:
    root.plan(looped("touch begun; exec sleep 600", retries=3))
    plan = root.start()
    begun(root)
    stop(root, "--project", "p", "--task", "a")
    assert plan.wait(60) == 1
    assert len(root.attempts("a")) == 1
    assert root.record("a")["stopped"] is True
    check(root)


def test_a_quota_that_is_met_inside_closes_the_provider_for_the_plan(root: PlanRoot) -> None:
    folder = root.path / "bin"
    folder.mkdir()
    program = folder / "claude"
    limit = {
        "type": "result", "subtype": "success", "is_error": True, "session_id": "s",
        "result": "Claude AI usage limit reached|RESET",
    }  # fmt: skip
    good = {**limit, "is_error": False, "result": "well"}
    program.write_text(f"""#!{sys.executable}
import os, sys, time
sys.stdin.read()
if not os.path.exists("met"):
    open("met", "w").close()
    print('{json.dumps(limit)}'.replace("RESET", str(int(time.time()) + 5)))
    raise SystemExit(1)
open(os.environ["JRUN_TASK_FOLDER"] + "/DONE", "w").close()
print('{json.dumps(good)}')
""")
    program.chmod(0o755)
    root.plan({"id": "a", "agent": "claude", "prompt": "Work.", "loop": True})
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "CONDUCTOR_QUOTA_MARGIN": "0"}

    done = root.run(env=env)

    assert done.returncode == 0, done.stdout + done.stderr
    assert [item["result"] for item in root.attempts("a")] == ["quota", "done"]
    assert "claude is closed until" in done.stdout
    assert len(inner(root)) == 2
    check(root)


def test_secrets_and_variables_of_a_task_reach_the_agent_and_no_command_line(
    root: PlanRoot,
) -> None:
    config = root.path / "config.yaml"
    script = (
        f"cat >/dev/null; echo $MINE $ANTHROPIC_API_KEY . $OPENAI_API_KEY >seen; echo ok; {DONE}"
    )
    agent = {"type": "command", "command": ["sh", "-c", script]}
    config.write_text(json.dumps({"agents": {"mine": agent}}))
    secret = "sk-ant-0123456789abcdefghij"
    env = {"MINE": "my own", "ANTHROPIC_API_KEY": secret}
    root.plan({"id": "a", "agent": "mine", "prompt": "Work.", "loop": True, "env": env})

    done = root.run("--config", config, env={"OPENAI_API_KEY": "sk-not-for-this-agent-0123456789"})

    assert done.returncode == 0, done.stdout + done.stderr
    assert root.lines("seen") == [f"my own {secret} ."]
    assert secret not in str(root.record("a")["commandline"])
    assert "my own" not in str(root.record("a")["commandline"])


def test_the_events_of_a_loop_are_one_object_a_line(root: PlanRoot) -> None:
    root.plan(looped(f"echo hello; [ $n -lt 2 ] || {DONE}"))
    assert root.run().returncode == 0

    lines = (root.run_folder("a") / "agent-stdout.txt").read_text().split("\n")[:-1]

    told = [json.loads(line) for line in lines]
    kinds = [str(item["event"]) for item in told if item["event"] not in ("note", "waiting")]
    wanted = ["attempt-started", "attempt-ended"] * 2
    assert kinds == ["task", *wanted, "result"]
    assert (told[-1]["status"], told[-1]["attempts"], told[-1]["answer"]) == ("done", 2, "hello")
    assert all(item["time"] and item["text"] for item in told)


@pytest.mark.parametrize("words", [["loop", "."], ["loop"]])
def test_nobody_can_ask_for_the_loop_as_an_agent(root: PlanRoot, words: list[str]) -> None:
    done = run_script(
        "run-agent.py", *words, *["--prompt", "x"], "--root", str(root.path), env=root.environment()
    )
    assert done.returncode == 2
    assert "loop is no agent" in done.stderr
    assert done.stderr.count("\n") == 1
