"""What a start of a plan can be told: which tasks, what a failure does, where it runs, how it tells."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import runs
from tests.helpers import wait_until
from tests.plan_root import PlanRoot, sh

WAIT = "while [ ! -e go ]; do sleep 0.02; done"


def stages(root: PlanRoot, **scripts: str) -> None:
    """A stage for each task, all of which note that they ran."""
    root.plan(
        stages=[
            {"id": f"s-{name}", "tasks": [sh(name, f"echo {name} >>ran; {script}")]}
            for name, script in scripts.items()
        ]
    )


# -- which tasks


def test_from_and_to_name_the_stages_that_run(root: PlanRoot) -> None:
    stages(root, a="", b="", c="")

    assert root.run("--to-stage", "s-b").returncode == 0
    assert root.lines("ran") == ["a", "b"]
    assert root.states() == {"a": "done", "b": "done", "c": "pending"}
    done = root.run("--from-stage=s-c")

    assert done.returncode == 0, done.stderr
    assert root.lines("ran") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from-stage", "x"], "--from-stage: no stage 'x' in {plan}; it has s-a, s-b"),
        (["--to-stage", "x"], "--to-stage: no stage 'x' in {plan}; it has s-a, s-b"),
        (
            ["--from-stage", "s-b", "--to-stage", "s-a"],
            "--from-stage s-b comes after --to-stage s-a; exchange them",
        ),
        (
            ["--only", "a", "--retry-failed"],
            "--only goes with no other choice of tasks; leave the others out",
        ),
        (["--why", ""], "--why has an empty value; give one, or leave --why out"),
        (["--only", ", "], "--only names no task; give ids, with commas between them"),
        (["--kill", "--keep-going"], "--keep-going and --kill exclude each other; keep one"),
        (["--attach", "--detach"], "--attach and --detach exclude each other; keep one"),
        (["--detach", "--dry-run"], "--dry-run and --detach exclude each other; keep one"),
        (["--retry-failed"], "--retry-failed: nothing has failed; start the plan without it"),
    ],
)
def test_a_choice_that_makes_no_sense_is_one_line_and_starts_nothing(
    root: PlanRoot, options: list[str], message: str
) -> None:
    stages(root, a="", b="")

    done = root.run(*options)

    line = message.format(plan=root.plan_file)
    assert (done.returncode, done.stderr) == (2, f"run-all-tasks.py: {line}\n")
    assert root.lines("ran") == []


def test_a_chosen_stage_whose_needs_are_not_done_is_refused(root: PlanRoot) -> None:
    root.plan(
        stages=[
            {"id": "one", "tasks": [sh("a", "true")]},
            {"id": "two", "tasks": [sh("b", "true", depends_on=["a"])]},
        ]
    )

    done = root.run("--from-stage", "two")

    assert done.returncode == 2
    assert "of the chosen tasks b needs a, which is not done; choose it too" in done.stderr


def test_retry_failed_runs_what_failed_and_what_that_blocked_and_nothing_else(
    root: PlanRoot,
) -> None:
    root.plan(
        sh("a", "echo a >>ran; [ -e mended ]"),
        sh("b", "echo b >>ran", depends_on=["a"]),
        sh("c", "echo c >>ran; [ -e never ]", critical=False),
        sh("d", "echo d >>ran"),
        max_parallel=1,
    )
    assert root.run().returncode == 1
    assert root.states() == {"a": "failed", "b": "blocked", "c": "pending", "d": "pending"}
    (root.work / "mended").touch()

    done = root.run("--retry-failed")

    assert done.returncode == 0, done.stdout
    assert root.lines("ran") == ["a", "a", "b"]
    assert root.states() == {"a": "done", "b": "done", "c": "pending", "d": "pending"}


def test_what_has_changed_since_it_was_done_is_done_again_only_on_request(root: PlanRoot) -> None:
    root.plan(sh("a", "echo a1 >>ran"), sh("b", "echo b >>ran"))
    assert root.run().returncode == 0
    root.plan(sh("a", "echo a2 >>ran"), sh("b", "echo b >>ran"))

    kept = root.run()
    again = root.run("--redo-changed")
    last = root.run("--redo-changed")

    assert "changed since they were done, kept as done: a" in kept.stdout
    assert "changed since they were done, done again: a" in again.stdout
    assert "changed since" not in last.stdout
    assert sorted(root.lines("ran")) == ["a1", "a2", "b"]
    assert [item["result"] for item in root.attempts("a")] == ["void", "done"]


# -- what a failure does


def agents(root: PlanRoot, **programs: str) -> None:
    """Agents of the kind `command`, which run a script of the shell."""
    entries = {
        name: {"type": "command", "command": ["/bin/sh", "-c", f"echo {name} >>ran; {script}"]}
        for name, script in programs.items()
    }
    (root.path / "config.yaml").write_text(json.dumps({"agents": entries}))


def with_role(root: PlanRoot, *names: str, **keys: object) -> None:
    task = {"id": "a", "role": "r", "prompt": "Work.", **keys}
    root.plan(task, sh("b", "true", depends_on=["a"]), roles={"r": {"agents": list(names)}})


CONFIG = ("--config", "config.yaml")


def test_when_an_agent_has_failed_all_its_tries_the_next_of_its_role_takes_over(
    root: PlanRoot,
) -> None:
    agents(root, first="echo no good >&2; exit 3", second="exit 4", third="")
    with_role(root, "first", "second", "third", retries=1)

    done = root.run(*CONFIG)

    assert done.returncode == 0, done.stdout
    assert root.lines("ran") == ["first", "first", "second", "second", "third"]
    decisions = [line for line in root.bus.read_text().split("\n") if "takes over" in line]
    assert decisions == [
        "a: first failed (agent exited with code 3: no good); second takes over",
        "a: second failed (agent exited with code 4); third takes over",
    ]
    row = next(line for line in done.stdout.split("\n") if line.startswith("a  "))
    assert " third (after first, second) " in row
    assert root.bus_lines("ERROR ") == []  # it did not fail
    assert len(root.bus_lines("RETRY ")) == 4
    assert not (root.path / "docs").exists()


def test_a_silent_agent_is_replaced_and_one_that_nobody_replaces_fails_once(
    root: PlanRoot,
) -> None:
    agents(root, first="sleep 60", second="exit 5")
    with_role(root, "first", "second", retries=0, idle_timeout=1)

    done = root.run(*CONFIG)

    assert done.returncode == 1
    assert root.lines("ran") == ["first", "second"]
    [error] = root.bus_lines("ERROR ")
    assert "task=a agent=second exit=5" in error
    [retry] = root.bus_lines("RETRY ")
    assert "silent for 1 s: idle timeout" in retry
    [warning] = [line for line in root.bus.read_text().split("\n") if "silent for 0." in line]
    assert "stopped after 1 s" in warning
    root.assert_nothing_left()


def test_a_task_that_was_stopped_by_hand_is_handed_to_nobody(root: PlanRoot) -> None:
    agents(root, first="kill -TERM $(cat $JRUN_RUNS_DIR/a.pid); sleep 60", second="")
    with_role(root, "first", "second")

    done = root.run(*CONFIG)

    assert done.returncode == 1
    assert root.lines("ran") == ["first"]


def test_after_a_kill_the_agent_that_had_taken_over_goes_on(root: PlanRoot) -> None:
    agents(root, first="exit 1", second=WAIT)
    with_role(root, "first", "second", retries=0)
    process = root.start(*CONFIG)
    wait_until(lambda: root.lines("ran") == ["first", "second"], what="the second agent")
    process.kill()
    process.wait()
    (root.work / "go").touch()

    done = root.run(*CONFIG)

    assert done.returncode == 0, done.stdout
    assert root.lines("ran") == ["first", "second"]
    assert [item["agent"] for item in root.attempts("a")] == ["first", "second"]


def test_kill_stops_what_runs_after_a_critical_failure_and_leaves_it_to_the_next_start(
    root: PlanRoot,
) -> None:
    root.plan(
        sh("a", f"echo a >>ran; {WAIT}"), sh("b", "until [ -e ran ]; do sleep 0.02; done; exit 9")
    )

    done = root.run("--kill")

    assert done.returncode == 1
    assert "stopping 1 running: b failed" in done.stdout
    assert root.states() == {"a": "pending", "b": "failed"}
    assert root.state()["a"]["why"] == "stopped: b failed"
    root.assert_nothing_left()
    (root.work / "go").touch()
    root.plan(sh("a", f"echo a >>ran; {WAIT}"), sh("b", "true"))
    assert root.run().returncode == 0
    assert root.lines("ran") == ["a", "a"]


def test_without_its_state_a_plan_does_not_start_what_still_runs_once_more(
    root: PlanRoot,
) -> None:
    root.plan(sh("a", f"echo a >>ran; {WAIT}"))
    process = root.start()
    wait_until(lambda: root.lines("ran") == ["a"], what="the agent")
    process.kill()
    process.wait()
    for name in ("PLAN-STATE.yaml", "PLAN-STATE.journal"):
        (root.runs / "p" / name).unlink(missing_ok=True)

    done = root.run()

    assert done.returncode == 1
    assert "of the earlier start still runs; stop it: bin/stop-run run_" in done.stderr
    assert root.lines("ran") == ["a"]


def test_a_run_that_another_plan_begins_at_that_moment_is_not_taken_for_its_own(
    root: PlanRoot,
) -> None:
    root.plan(sh("a", "echo a >>ran"))
    root.runs.mkdir(parents=True, exist_ok=True)
    other, lock = runs.allocate(str(root.runs), "b")
    try:
        process = root.start()
        wait_until((root.runs / "p" / "PLAN.lock").exists, what="the plan to begin")
        other.record = {"version": 1, "run_id": other.run_id, "project_id": "q", "task_id": "b",
                        "status": "running", "attempt_token": "t"}  # fmt: skip
        runs.write_record(other, durable=False)
        assert process.wait(60) == 0
    finally:
        runs.discard(other)
        os.close(lock)
    assert root.lines("ran") == ["a"]


@pytest.mark.parametrize("name", ["PLAN-STATE.yaml", "PLAN-STATE.journal", "plan.log"])
def test_a_fifo_in_the_place_of_its_files_holds_nothing_up(root: PlanRoot, name: str) -> None:
    root.plan(sh("a", "echo a >>ran"), sh("b", "exit 1"))
    root.run()
    path = root.runs / "p" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)

    done = root.run()
    why = root.run("--why", "a")

    if name == "plan.log":
        assert (done.returncode, why.returncode) == (1, 0)
        assert root.run("--detach").returncode == 1
    else:
        assert f"damaged plan state: {path}: not a regular file; mend it" in done.stderr
        assert f"damaged plan state: {path}" in why.stderr
    assert root.lines("ran") == ["a"]


# -- where it runs, and how it tells


def test_detached_it_goes_on_alone_and_can_be_attached_to(root: PlanRoot) -> None:
    root.plan(sh("a", f"echo a >>ran; {WAIT}"), sh("b", "true", depends_on=["a"]))

    begun = root.run("--detach")

    assert begun.returncode == 0, begun.stderr
    found = re.search(r"as pid (\d+) and writes to (\S+)", begun.stdout)
    assert found
    pid, log = int(found[1]), Path(found[2])
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/1") == "/dev/null"
    held = root.run()
    assert held.returncode == 1
    assert f"already run by pid {pid}" in held.stderr
    with subprocess.Popen(
        root.command("--attach"), env=root.environment(), stdout=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stdout is not None
        printed = ""
        while "started   a" not in printed:
            printed += watcher.stdout.readline()
        (root.work / "go").touch()
        printed += watcher.stdout.read()
    assert watcher.returncode == 0
    assert "plan p: 2 done, 0 failed, 0 not run" in printed
    assert len(re.findall(r"^b +shell +1 .* done$", printed, re.MULTILINE)) == 1
    assert root.run("--attach").returncode == 0  # it has ended well
    told = log.read_text()
    assert "succeeded b" in told
    assert re.search(r"^b +shell +1 .* done$", told, re.MULTILINE)
    root.assert_nothing_left()


def test_a_detached_plan_can_be_stopped_by_its_pid(root: PlanRoot) -> None:
    root.plan(sh("a", f"echo a >>ran; {WAIT}"))
    begun = json.loads(root.run("--detach", "--json").stdout)
    wait_until(lambda: root.lines("ran") == ["a"], what="the agent")

    log = Path(begun["log"])
    os.kill(begun["pid"], signal.SIGTERM)
    wait_until(lambda: "interrupted" in log.read_text(), what="the first answer")
    os.kill(begun["pid"], signal.SIGTERM)

    wait_until(lambda: not root.processes(), what="the end of the plan")
    assert root.states() == {"a": "pending"}
    root.assert_nothing_left()


@pytest.mark.parametrize("fault", ["missing", "held"])
def test_what_keeps_a_detached_plan_from_starting_is_said_before_it_leaves(
    root: PlanRoot, fault: str
) -> None:
    if fault == "missing":
        root.plan({"id": "a", "agent": "claude", "prompt": "x"})
        done = root.run("--detach", env={"PATH": "/usr/bin:/bin"})
        assert (done.returncode, done.stdout) == (3, "")
        return
    root.plan(sh("a", WAIT))
    process = root.start()
    wait_until((root.runs / "a.pid").exists, what="the first start")
    done = root.run("--detach")
    assert (done.returncode, done.stdout) == (1, "")
    (root.work / "go").touch()
    assert process.wait() == 0


def test_json_is_one_object_a_line_and_ends_with_the_summary(root: PlanRoot) -> None:
    root.plan(
        sh("a", "true", verify=["true"]),
        sh("b", "exit 3", retries=1, critical=False),
        sh("c", "true", depends_on=["b"]),
    )

    done = root.run("--json", env={"CONDUCTOR_AGENT_CLAUDE_TOKEN": "verysecrettoken"})

    rows = [json.loads(line) for line in done.stdout.split("\n") if line]
    kinds = [row["event"] for row in rows]
    assert kinds[0] == "plan-started"
    assert kinds[-2:] == ["plan-ended", "summary"]
    assert {"started", "verifying", "succeeded", "retried", "failed", "stage-ended"} <= set(kinds)
    assert all(row["time"].endswith("Z") and row["text"] for row in rows)
    [failed] = [row for row in rows if row["event"] == "failed"]
    assert (failed["task"], failed["agent"]) == ("b", "shell")
    assert failed["run"] == root.attempts("b")[-1]["run"]
    by_task = {row["task"]: row for row in rows[-1]["tasks"]}
    assert by_task["c"]["why"] == "needs b, which did not succeed"
    assert (by_task["b"]["attempts"], by_task["b"]["state"]) == (2, "failed")
    assert rows[-2]["exit_code"] == done.returncode == 1


def test_the_schedule_and_an_explanation_come_as_json_too(root: PlanRoot) -> None:
    root.plan(sh("a", "true"), sh("b", "true", depends_on=["a"]))

    schedule = json.loads(root.run("--dry-run", "--json").stdout)
    root.run()
    answer = json.loads(root.run("--why", "b", "--json").stdout)

    assert [task["wave"] for task in schedule["stages"][0]["tasks"]] == [1, 2]
    assert schedule["critical_path"] == ["a", "b"]
    assert (answer["task"], answer["state"]) == ("b", "done")
    assert answer["why"]


def test_without_a_plan_the_one_that_runs_is_meant_and_else_the_one_that_ran_last(
    root: PlanRoot,
) -> None:
    other = root.path / "other.yaml"
    root.plan(sh("a", "true"), project="q")
    root.plan_file.rename(other)
    assert root.run(other).returncode == 0
    root.plan(sh("b", WAIT))
    process = root.start()
    wait_until((root.runs / "b.pid").exists, what="the plan p")

    def asked(*arguments: str) -> subprocess.CompletedProcess[str]:
        # In another folder, where the default plan is not ours.
        words = [word for word in root.command("--why", *arguments) if word != str(root.plan_file)]
        return subprocess.run(words, env=root.environment(), capture_output=True, text=True)

    assert asked("b").stdout.startswith("is running: shell")
    assert "no task a" in asked("a").stderr
    (root.work / "go").touch()
    assert process.wait() == 0
    assert asked("b").stdout.startswith("is done")
    assert root.run(other, "--fresh").returncode == 0
    assert asked("a").stdout.startswith("is done")


# -- a disk that fills up


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[PlanRoot]:
    """A root on a file system of 8 MB; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "conductor-test", folder], capture_output=True
    )
    if made.returncode:
        pytest.skip("a file system cannot be mounted here")
    root = PlanRoot(folder / "root")
    root.work = tmp_path / "work"  # what the tasks note is not on that disk
    root.work.mkdir()
    yield root
    root.kill_everything()
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_holds_starts_back_until_there_is_room(
    cramped: PlanRoot,
) -> None:
    root = cramped
    filler = root.path / "filler"
    root.plan(
        sh("a", f"head -c 20000000 /dev/zero >{filler}; echo a >>ran; exit 0"),
        sh("b", "echo b >>ran", depends_on=["a"]),
    )
    process = root.start(env={"CONDUCTOR_MIN_FREE_MB": "0"})
    log = root.runs / "p" / "plan.log"
    wait_until(lambda: root.lines("ran") == ["a"], what="the disk to be full")
    assert process.poll() is None

    filler.unlink()

    assert process.wait(timeout=60) == 0, (root.path / "errors").read_text()
    assert root.lines("ran") == ["a", "b"]
    assert root.states() == {"a": "done", "b": "done"}
    assert log.exists()


def test_below_the_floor_nothing_starts_and_in_the_end_the_plan_says_so(
    cramped: PlanRoot,
) -> None:
    root = cramped
    filler = root.path / "filler"
    root.plan(
        sh("a", f"head -c 6000000 /dev/zero >{filler}; echo a >>ran"),
        sh("b", "echo b >>ran", depends_on=["a"]),
    )
    env = {"CONDUCTOR_MIN_FREE_MB": "3", "CONDUCTOR_HOLD_SECONDS": "0.5"}

    done = root.run(env=env)

    assert done.returncode == 1, done.stderr
    assert root.lines("ran") == ["a"]
    why = str(root.state()["b"]["why"])
    assert why.startswith("not started: disk is short: ")
    assert "nothing new starts: disk is short" in root.bus.read_text()
    filler.unlink()
    assert root.run(env=env).returncode == 0
    assert root.lines("ran") == ["a", "b"]
