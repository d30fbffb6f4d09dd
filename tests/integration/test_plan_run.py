"""Running plans with real processes: order, cap, proof of success, failure, reviews, interruption."""

from __future__ import annotations

import itertools
import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers import PYTHON, ROOT, wait_until
from tests.plan_root import PlanRoot, Record, offline, sh

WAIT = "while [ ! -e gate ]; do sleep 0.05; done"
# Registers itself, notes how many are registered, and waits for the gate.
COUNTED = (
    f"touch alive.$JRUN_TASK_ID; ls | grep -c '^alive' >>counts; {WAIT}; rm alive.$JRUN_TASK_ID"
)


def begun(root: PlanRoot) -> int:
    return len(list(root.work.glob("alive.*")))


def seconds_of(record: Record, key: str) -> str:
    return str(record[key])  # RFC 3339 in UTC with equal digits: it sorts as text


# -- order and cap


def test_a_task_starts_after_what_it_needs_and_after_the_barrier_before_it(root: PlanRoot) -> None:
    root.plan(
        stages=[
            {"id": "one", "tasks": [sh("a", "true"), sh("b", "true", depends_on=["a"])]},
            {"id": "two", "barrier": False, "tasks": [sh("c", "true"), sh("d", "true")]},
            {"id": "three", "tasks": [sh("e", "true", depends_on=["d"])]},
        ]
    )

    done = root.run()

    assert done.returncode == 0, done.stdout + done.stderr
    records = {task_id: root.record(task_id) for task_id in "abcde"}
    for earlier, later in ("ab", "ac", "bc", "bd", "de"):
        ended = seconds_of(records[earlier], "end_time")
        assert ended <= seconds_of(records[later], "start_time"), (earlier, later)
    root.assert_nothing_left()


def test_a_stage_without_a_barrier_does_not_hold_up_the_next(root: PlanRoot) -> None:
    root.plan(
        stages=[
            {"id": "one", "barrier": False, "tasks": [sh("a", WAIT)]},
            {"id": "two", "tasks": [sh("b", "touch gate")]},  # only this lets a end
        ]
    )

    assert root.run().returncode == 0


@pytest.mark.parametrize("cap", [16, 4])
def test_as_many_run_at_once_as_allowed_and_never_one_more(root: PlanRoot, cap: int) -> None:
    root.plan(*[sh(f"t{n}", COUNTED) for n in range(24)])

    plan = root.start(*([] if cap == 16 else ["--max-parallel", "4"]))
    wait_until(lambda: begun(root) == cap, what=f"{cap} tasks at once")
    running = [name for name, state in root.states().items() if state == "running"]
    (root.work / "gate").touch()

    assert plan.wait(60) == 0
    assert len(running) == cap
    assert max(map(int, root.lines("counts"))) == cap
    assert set(root.states().values()) == {"done"}
    root.assert_nothing_left()


def test_exclusive_tasks_never_run_together_and_others_do(root: PlanRoot) -> None:
    script = "[ -e lock ] && echo both >>broken; touch lock; sleep 0.1; rm lock"
    tasks = [sh(f"x{n}", script, exclusive="checkout") for n in range(4)]
    root.plan(*tasks, sh("other", "touch other"))

    assert root.run().returncode == 0
    assert root.lines("broken") == []


def test_an_exclusive_task_that_was_taken_over_still_keeps_others_out(root: PlanRoot) -> None:
    root.plan(
        sh("x1", f"touch lock; {WAIT}; rm lock", exclusive="it"),
        sh("x2", "[ -e lock ] && echo both >>broken; true", exclusive="it"),
    )
    first = root.start()
    wait_until((root.work / "lock").exists, what="the first exclusive task")
    first.kill()
    first.wait()

    second = root.start()
    wait_until(lambda: "taken over" in (root.path / "printed").read_text(), what="the taking over")
    (root.work / "gate").touch()

    assert second.wait(60) == 0
    assert root.lines("broken") == []


def test_starts_of_a_paced_agent_are_spread_and_shell_is_not_held_up(
    root: PlanRoot, tmp_path: Path
) -> None:
    search_path = root.claude("well")
    claude: list[Record] = [
        {"id": f"c{n}", "agent": "claude", "prompt": "Say well."} for n in range(3)
    ]
    root.plan(*claude, *[sh(f"s{n}", "true") for n in range(3)], start_interval=0.4)

    done = root.run(env={"PATH": search_path})

    assert done.returncode == 0, done.stdout + done.stderr
    starts = sorted(yaml_time(root.attempts(f"c{n}")[0]["started"]) for n in range(3))
    assert all(later - earlier >= 0.4 for earlier, later in itertools.pairwise(starts))
    order = [line for line in done.stdout.split("\n") if " started " in line]
    assert sum("shell" in line for line in order[:4]) == 3  # all of them before the second claude


def yaml_time(text: object) -> float:
    clock = str(text)[11:].rstrip("Z").split(":")
    return int(clock[0]) * 3600 + int(clock[1]) * 60 + float(clock[2])


# -- what is recorded


def test_a_running_task_has_a_pid_file_and_killing_that_pid_stops_it_for_good(
    root: PlanRoot,
) -> None:
    root.plan(sh("a", "touch begun; sleep 600"), defaults={"retries": 3})
    plan = root.start()
    pid_file = root.runs / "a.pid"
    wait_until((root.work / "begun").exists, what="the task")

    os.kill(int(pid_file.read_text()), signal.SIGTERM)

    assert plan.wait(60) == 1
    assert not pid_file.exists()
    [attempt] = root.attempts("a")  # who stops a task by hand does not want it tried again
    assert (attempt["result"], attempt["exit_code"]) == ("failed", 143)
    assert "stopped by SIGTERM" in str(attempt["why"])
    assert len(root.bus_lines("ERROR ")) == 1
    root.assert_nothing_left()


def test_the_state_at_rest_tells_everything(root: PlanRoot) -> None:
    root.plan(sh("a", "true"), sh("b", "exit 3", critical=False), sh("c", "true", depends_on=["b"]))

    assert root.run().returncode == 1

    data = yaml.safe_load(root.state_file.read_text())
    assert data["project"] == "p"
    assert data["plan"] == str(root.plan_file)
    assert len(data["plan_sha256"]) == 64
    tasks = data["tasks"]
    assert [tasks[name]["state"] for name in "abc"] == ["done", "failed", "blocked"]
    assert tasks["c"]["why"] == "needs b, which did not succeed"
    for name, code, result in (("a", 0, "done"), ("b", 3, "failed")):
        [attempt] = tasks[name]["attempts"]
        record = root.record(name)
        assert attempt["run"] == record["run_id"]
        assert attempt["token"] == record["attempt_token"]
        assert attempt["agent"] == "shell"
        assert attempt["exit_code"] == record["exit_code"] == code
        assert attempt["result"] == result
        assert attempt["started"] <= record["start_time"] <= attempt["ended"]


def test_prompts_are_generated_once_and_an_edited_one_is_used_as_it_is(root: PlanRoot) -> None:
    root.plan(sh("a", "echo plan >>said"), sh("b", "exit $(cat code)"))
    (root.work / "code").write_text("1")
    assert root.run().returncode == 1
    (root.work / "code").write_text("0")
    prompt = root.path / "prompts" / "b.md"
    prompt.write_text("```sh\necho edited >>said\n```\n")

    done = root.run()

    assert done.returncode == 0
    assert "edited by hand, used as they are: b" in done.stdout
    assert root.lines("said") == ["plan", "edited"]
    assert prompt.read_text() == "```sh\necho edited >>said\n```\n"
    assert "**Task ID**: a" in (root.path / "prompts" / "a.md").read_text()


def test_a_run_of_a_plan_leaves_every_promised_file(root: PlanRoot) -> None:
    root.plan(offline("a"))

    assert root.run(env={"CONDUCTOR_OFFLINE_DELAY": "0"}).returncode == 0

    names = {path.name for path in root.run_folder("a").iterdir()}
    assert names >= {
        "prompt.md",
        "agent-stdout.txt",
        "agent-stderr.txt",
        "transcript.md",
        "output.md",
        "cwd.txt",
        "run-info.yaml",
    }


# -- failure


def test_a_task_that_fails_twice_is_one_error_and_blocks_what_needs_it(root: PlanRoot) -> None:
    root.plan(
        sh("first", "echo x >>first"),
        sh("bad", "echo x >>bad; [ -e mended ] && exit 0; echo oh no >&2; exit 3", retries=1),
        sh("after", "touch after", depends_on=["bad"]),
        sh("later", "touch later", depends_on=["after"]),
    )

    failed = root.run()

    assert failed.returncode == 1
    [error] = root.bus_lines("ERROR ")
    assert error.startswith("ERROR task=bad agent=shell exit=3 run=run_")
    assert "oh no" in error
    assert len(root.bus_lines("RETRY ")) == 1
    assert "EXIT_CODE=3\n" in (root.run_folder("bad") / "cwd.txt").read_text()
    assert root.record("bad")["exit_code"] == 3
    issues = (root.path / "docs" / "dev" / "issues.md").read_text()
    assert issues.count("## ") == 1
    assert "p/bad" in issues
    assert "      oh no\n" in issues
    assert root.states() == {
        "first": "done",
        "bad": "failed",
        "after": "blocked",
        "later": "blocked",
    }
    assert not (root.work / "after").exists()

    again = root.run()
    assert again.returncode == 1
    assert len(root.attempts("bad")) == 4
    assert root.lines("first") == ["x"]

    (root.work / "mended").touch()
    assert root.run().returncode == 0
    assert root.lines("first") == ["x"]
    assert len(root.lines("bad")) == 5
    assert set(root.states().values()) == {"done"}
    assert root.run().returncode == 0
    assert len(root.lines("bad")) == 5
    root.assert_nothing_left()


def test_without_retries_the_first_failure_is_the_last(root: PlanRoot) -> None:
    root.plan(sh("bad", "exit 3"), defaults={"retries": 0})

    assert root.run().returncode == 1
    assert len(root.bus_lines("ERROR ")) == 1
    assert root.bus_lines("RETRY ") == []
    assert len(root.attempts("bad")) == 1


def test_a_critical_failure_starts_nothing_new_and_lets_the_running_end(root: PlanRoot) -> None:
    root.plan(
        sh("slow", f"touch slow; {WAIT}; echo x >>slow"),
        sh("bad", "while [ ! -e slow ]; do sleep 0.05; done; exit 1"),
        sh("new", "touch new", depends_on=["slow"]),
    )
    plan = root.start()
    wait_until(lambda: root.bus_lines("ERROR "), what="the failure")
    (root.work / "gate").touch()

    assert plan.wait(60) == 1
    assert root.states() == {"slow": "done", "bad": "failed", "new": "pending"}
    assert root.state()["new"]["why"] == "not started: bad failed"
    assert root.lines("slow") == ["x"]
    assert not (root.work / "new").exists()


def test_a_retry_that_a_failure_elsewhere_prevents_is_left_to_the_next_start(
    root: PlanRoot,
) -> None:
    root.plan(
        sh("bad", "while [ ! -e flaky ]; do sleep 0.05; done; exit 1"),
        sh("flaky", f"[ -e mended ] && exit 0; touch flaky; {WAIT}; exit 4", retries=1),
    )
    plan = root.start()
    wait_until(lambda: root.bus_lines("ERROR "), what="the failure")
    (root.work / "gate").touch()

    assert plan.wait(60) == 1
    assert root.states() == {"bad": "failed", "flaky": "pending"}
    assert len(root.bus_lines("ERROR ")) == 1
    assert len(root.bus_lines("RETRY ")) == 1


def test_keep_going_runs_all_that_does_not_need_the_failure(root: PlanRoot) -> None:
    root.plan(
        stages=[
            {"id": "one", "tasks": [sh("bad", "exit 1"), sh("a", "true", depends_on=["bad"])]},
            {"id": "two", "tasks": [sh("b", "true"), sh("c", "true", depends_on=["a"])]},
        ]
    )

    assert root.run("--keep-going").returncode == 1
    assert root.states() == {"bad": "failed", "a": "blocked", "b": "done", "c": "blocked"}


def test_the_failure_of_a_task_that_is_not_critical_stops_nothing_else(root: PlanRoot) -> None:
    root.plan(
        stages=[
            {"id": "one", "tasks": [sh("bad", "exit 1", critical=False)]},
            {"id": "two", "tasks": [sh("b", "true")]},
        ]
    )

    assert root.run().returncode == 1
    assert root.states() == {"bad": "failed", "b": "done"}


def test_a_prompt_that_vanishes_before_its_task_starts_is_a_failure_like_any_other(
    root: PlanRoot,
) -> None:
    root.plan(sh("a", f"rm '{root.path}/prompts/b.md'"), sh("b", "touch b", depends_on=["a"]))

    assert root.run().returncode == 1
    assert root.states() == {"a": "done", "b": "failed"}
    [error] = root.bus_lines("ERROR ")
    assert "prompts/b.md" in error
    root.assert_nothing_left()


def test_a_stage_that_runs_out_of_time_has_failed_with_all_its_tasks(root: PlanRoot) -> None:
    late = [
        sh("done", "true"),
        sh("late", "sleep 600", retries=3),
        sh("checked", "true", verify=["sleep 600"]),
        sh("after", "true", depends_on=["late"]),
    ]
    root.plan(
        stages=[
            {"id": "one", "timeout": 1, "tasks": late},
            {"id": "two", "tasks": [sh("next", "true")]},
        ]
    )

    assert root.run().returncode == 1
    states = root.states()
    assert states.pop("done") == "done"
    assert states.pop("next") == "pending"
    assert states.pop("after") in ("failed", "blocked")
    assert set(states.values()) == {"failed"}
    assert root.state()["late"]["why"] == "stage one has run out of its 1 s"
    assert len(root.attempts("late")) == 1
    root.assert_nothing_left()


# -- verify and expect


def test_what_verify_refutes_has_failed_and_its_output_is_kept(root: PlanRoot) -> None:
    root.plan(sh("a", "true", verify=["echo first", "echo second; exit 5", "touch third"]))

    assert root.run().returncode == 1
    report = (root.run_folder("a") / "verify.txt").read_text()
    assert report == "$ echo first\nfirst\n$ echo second; exit 5\nsecond\n"
    assert not (root.work / "third").exists()
    [error] = root.bus_lines("ERROR ")
    assert "verify ended with code 5: echo second; exit 5; see verify.txt" in error
    assert root.record("a")["status"] == "completed"


def test_verify_that_passes_ran_after_the_agent_in_its_folder(root: PlanRoot) -> None:
    root.plan(sh("a", "touch made", verify=["test -f made", f'test "$PWD" = "{root.work}"']))

    assert root.run().returncode == 0


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("no-such-program-here", "(not found)"),
        ("exec /no/such/file", "verify ended with code"),
        ("kill -9 $$", "code 137"),
        ("if", "verify ended with code 2"),
    ],
)
def test_a_check_that_cannot_run_is_no_pass(root: PlanRoot, command: str, reason: str) -> None:
    root.plan(sh("a", "true", verify=[command]))

    assert root.run().returncode == 1
    assert reason in str(root.state()["a"]["why"])


def test_a_check_that_hangs_is_ended_with_all_it_started(root: PlanRoot) -> None:
    hang = "setsid sleep 600 & sleep 600"
    root.plan(sh("a", "true", verify=[hang], verify_timeout=0.3))

    assert root.run().returncode == 1
    assert "verify was not finished after 0.3 s" in str(root.state()["a"]["why"])
    root.assert_nothing_left()


def test_what_a_check_leaves_running_is_ended_with_it(root: PlanRoot) -> None:
    root.plan(sh("a", "true", verify=["setsid sleep 600 & echo well"]))

    assert root.run().returncode == 0
    root.assert_nothing_left()


def test_a_check_sees_its_run_and_no_token(root: PlanRoot) -> None:
    shown = 'test "$JRUN_TASK_ID" = a && test -d "$JRUN_RUN_FOLDER" && test -z "$OPENAI_API_KEY"'
    root.plan(sh("a", "true", verify=[shown]))

    done = root.run(env={"OPENAI_API_KEY": "sk-proj-0123456789abcdef"})
    assert done.returncode == 0, (root.run_folder("a") / "verify.txt").read_text()


def test_a_failed_check_is_retried_with_the_agent(root: PlanRoot) -> None:
    root.plan(sh("a", "echo x >>tries", verify=["test $(wc -l <tries) -ge 2"], retries=1))

    assert root.run().returncode == 0
    assert len(root.bus_lines("RETRY ")) == 1
    assert root.bus_lines("ERROR ") == []


@pytest.mark.parametrize(
    ("script", "expect", "reason"),
    [
        ("true", {"files": ["made"]}, "expected file is missing"),
        ("touch made", {"files": ["made"]}, ""),
        ("true", {"files": [{"path": "old", "changed": True}]}, "not written by this run"),
        ("touch old", {"files": [{"path": "old", "changed": True}]}, ""),
        ("echo no", {"output": "^OK$"}, "does not match the expected pattern"),
        ("echo no; echo OK", {"output": "(?m)^OK$"}, ""),
    ],
)
def test_what_is_expected_must_be_there(
    root: PlanRoot, script: str, expect: Record, reason: str
) -> None:
    (root.work / "old").touch()
    root.plan(sh("a", script, expect=expect))

    assert root.run().returncode == (1 if reason else 0)
    assert reason in str(root.state()["a"]["why"])


def test_what_an_earlier_attempt_wrote_is_no_evidence_for_the_next(root: PlanRoot) -> None:
    root.plan(
        sh(
            "a",
            "[ -e tried ] && exit 0; touch tried report; exit 1",
            retries=1,
            expect={"files": [{"path": "report", "changed": True}]},
        )
    )

    assert root.run().returncode == 1
    assert "not written by this run" in str(root.state()["a"]["why"])


# -- reviews


def review(*by_agent: str, quorum: int = 2) -> dict[str, Record]:
    """A plan's roles and config for a review by so many offline agents."""
    return {"judging": {"agents": list(by_agent), "quorum": quorum}}


def two_reviewers(root: PlanRoot, first: str, second: str, **keys: object) -> None:
    """A review by two configured agents, each of which runs a script of its own."""
    for name, script in (("one", first), ("two", second)):
        program = root.path / f"judge-{name}"
        program.write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
        program.chmod(0o755)
    agents = {
        name: {"type": "command", "command": [str(root.path / f"judge-{name}")]}
        for name in ("one", "two")
    }
    (root.path / "config.yaml").write_text(json.dumps({"agents": agents}))
    task = {"id": "r", "role": "judging", "prompt": "Judge.", **keys}
    root.plan(task, roles=review("one", "two"))


APPROVE, REJECT = "echo VERDICT: APPROVE", "echo VERDICT: REJECT"


def count(script: str, name: str) -> str:
    return f"echo x >>{name}\n{script}"


@pytest.mark.parametrize(
    ("second", "state", "reason"),
    [
        (f"echo Well done.; {APPROVE}; echo; echo", "done", ""),
        (REJECT, "failed", "rejected by r@two"),
        ("echo I do not know", "failed", "1 of 2 approvals"),
        ("echo VERDICT: APPROVE or not", "failed", "1 of 2 approvals"),
        ("exit 3", "failed", "1 of 2 approvals"),
    ],
)
def test_a_review_passes_when_all_approve(
    root: PlanRoot, second: str, state: str, reason: str
) -> None:
    two_reviewers(root, APPROVE, second)

    done = root.run()

    assert done.returncode == (0 if state == "done" else 1), done.stdout + done.stderr
    entry = root.state()["r"]
    assert entry["state"] == state
    assert reason in str(entry["why"])
    text = root.bus.read_text()
    assert f"review r: {reason or 'passed'}\n" in text
    for attempt in root.attempts("r"):
        assert f"{root.runs / str(attempt['run']) / 'output.md'}" in text
    assert len(root.bus_lines("ERROR ")) == (0 if state == "done" else 1)
    root.assert_nothing_left()


def test_both_judges_of_a_review_run_at_the_same_time(root: PlanRoot) -> None:
    meet = "touch here-{0}; while [ ! -e here-{1} ]; do sleep 0.05; done\n" + APPROVE
    two_reviewers(root, meet.format(1, 2), meet.format(2, 1), exclusive="checkout")

    assert root.run().returncode == 0


def test_one_agent_for_all_judges_twice(root: PlanRoot) -> None:
    root.plan(
        {"id": "r", "role": "review", "prompt": "Judge.\n```sh\necho VERDICT: APPROVE\n```\n"}
    )

    done = root.run("--agent", "shell")

    assert done.returncode == 0
    assert {attempt["unit"] for attempt in root.attempts("r")} == {"r@shell", "r@shell.2"}
    assert len({attempt["run"] for attempt in root.attempts("r")}) == 2
    assert "2 separate runs of shell stand in" in root.bus.read_text()


def test_after_a_rejection_all_judge_again(root: PlanRoot) -> None:
    verdict = "[ -e mended ] && echo VERDICT: APPROVE || echo VERDICT: REJECT"
    two_reviewers(root, count(APPROVE, "one"), count(verdict, "two"))
    assert root.run().returncode == 1
    (root.work / "mended").touch()

    assert root.run().returncode == 0
    assert (len(root.lines("one")), len(root.lines("two"))) == (2, 2)
    assert root.run().returncode == 0
    assert (len(root.lines("one")), len(root.lines("two"))) == (2, 2)


def test_after_a_crash_of_one_judge_the_other_is_not_asked_again(root: PlanRoot) -> None:
    two_reviewers(root, count(APPROVE, "one"), count(f"[ -e mended ] || exit 1\n{APPROVE}", "two"))
    assert root.run().returncode == 1
    (root.work / "mended").touch()

    assert root.run().returncode == 0
    assert (len(root.lines("one")), len(root.lines("two"))) == (1, 2)


def test_a_review_resumed_after_one_verdict_runs_the_other_judge_only(root: PlanRoot) -> None:
    two_reviewers(root, count(APPROVE, "one"), count(f"{WAIT}\n{APPROVE}", "two"))
    plan = root.start()
    wait_until(
        lambda: (
            root.lines("two") and any(a.get("verdict") == "APPROVE" for a in root.attempts("r"))
        ),
        what="the first verdict",
    )
    plan.kill()
    plan.wait()
    (root.work / "gate").touch()

    assert root.run().returncode == 0
    assert (len(root.lines("one")), len(root.lines("two"))) == (1, 1)
    assert root.run().returncode == 0


def test_a_review_whose_retry_is_prevented_is_not_left_as_if_it_ran(root: PlanRoot) -> None:
    two_reviewers(root, f"touch one; {WAIT}\n{APPROVE}", "touch two; exit 1", retries=1)
    plan = root.start()
    wait_until(lambda: root.bus_lines("RETRY "), what="the failure of one judge")
    plan.send_signal(signal.SIGINT)
    wait_until(lambda: "interrupted" in (root.path / "printed").read_text(), what="its answer")
    (root.work / "gate").touch()

    assert plan.wait(60) == 130
    assert root.states() == {"r": "pending"}


def test_a_stage_without_time_ends_a_review_that_is_half_done(root: PlanRoot) -> None:
    two_reviewers(root, "sleep 600", APPROVE)
    data = json.loads(root.plan_file.read_text())
    data["stages"][0]["timeout"] = 1
    data["max_parallel"] = 1
    root.plan_file.write_text(json.dumps(data))

    assert root.run().returncode == 1
    assert root.states() == {"r": "failed"}
    assert "r@two: no verdict, see nothing" in root.bus.read_text()
    root.assert_nothing_left()


# -- interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_once_it_waits_for_the_running_and_can_be_taken_up(
    root: PlanRoot, number: signal.Signals
) -> None:
    root.plan(sh("a", f"echo x >>a; {WAIT}"), sh("b", "echo x >>b"), max_parallel=1)
    plan = root.start()
    wait_until(lambda: root.lines("a"), what="the first task")

    plan.send_signal(number)
    wait_until(lambda: "interrupted" in (root.path / "printed").read_text(), what="its answer")
    (root.work / "gate").touch()

    assert plan.wait(60) == 130
    assert root.states() == {"a": "done", "b": "pending"}
    assert root.state()["b"]["why"] == "not started: interrupted"
    assert root.run().returncode == 0
    assert (root.lines("a"), root.lines("b")) == (["x"], ["x"])
    root.assert_nothing_left()


def test_interrupted_twice_it_stops_everything_and_can_be_taken_up(root: PlanRoot) -> None:
    stubborn = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 600' & echo x >>a; sleep 600"
    root.plan(
        sh("a", f"[ -e again ] && exit 0; {stubborn}", retries=2),
        sh("b", "[ -e again ] && exit 0; echo x >>b; sleep 600"),
    )
    plan = root.start(env={"CONDUCTOR_STOP_GRACE": "0.3"})
    wait_until(lambda: root.lines("a") and root.lines("b"), what="both tasks")

    plan.send_signal(signal.SIGINT)
    plan.send_signal(signal.SIGTERM)

    assert plan.wait(60) == 130
    root.assert_nothing_left()
    assert root.states() == {"a": "pending", "b": "pending"}
    assert not (root.path / "docs").exists()
    (root.work / "again").touch()
    assert root.run().returncode == 0


def test_stopped_while_verifying_the_check_is_done_again_and_not_the_agent(root: PlanRoot) -> None:
    root.plan(sh("a", "echo x >>a", verify=[f"echo x >>checks; {WAIT}"]))
    plan = root.start()
    wait_until(lambda: root.lines("checks"), what="the check")

    plan.send_signal(signal.SIGINT)
    plan.send_signal(signal.SIGTERM)
    assert plan.wait(60) == 130
    root.assert_nothing_left()
    (root.work / "gate").touch()

    assert root.run().returncode == 0
    assert (len(root.lines("a")), len(root.lines("checks"))) == (1, 2)


def test_a_hangup_and_a_closed_pipe_do_not_disturb_a_plan(root: PlanRoot) -> None:
    root.plan(sh("a", f"touch begun; {WAIT}"), sh("b", "true", depends_on=["a"]))
    plan = subprocess.Popen(
        root.command(), env=root.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    wait_until((root.work / "begun").exists, what="the task")

    assert plan.stdout is not None
    plan.stdout.close()
    plan.send_signal(signal.SIGHUP)
    (root.work / "gate").touch()

    assert plan.wait(60) == 0
    log = (root.runs / "p" / "plan.log").read_text()
    assert "succeeded b" in log
    assert "2 done, 0 failed" in log


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_plan_runs_with_closed_standard_streams(root: PlanRoot, closed: str) -> None:
    root.plan(sh("a", "cat; echo x >>a", verify=["cat; echo y"]))

    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *root.command()],
        env=root.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

    assert done.returncode == 0, done.stderr.decode()
    assert root.lines("a") == ["x"]
    assert yaml.safe_load(root.state_file.read_text())["complete"] is True
    root.assert_nothing_left()


def test_a_plan_runs_where_sigchld_was_ignored(root: PlanRoot) -> None:
    root.plan(sh("a", "true", verify=["true"]), sh("b", "exit 3", verify=["true"]))
    program = "import os, signal, sys; signal.signal(17, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"

    done = subprocess.run(
        [*PYTHON, "-c", program, *root.command()], env=root.environment(), capture_output=True
    )

    assert done.returncode == 1
    assert root.states() == {"a": "done", "b": "failed"}
    assert root.attempts("b")[0]["exit_code"] == 3


# -- the terminal


def in_terminal(root: PlanRoot) -> tuple[int, int]:
    """Start the plan on a terminal of its own; returns (pid, the terminal's other end)."""
    command, environment = root.command(), root.environment({"TERM": "xterm"})
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.clear()
        os.environ.update(environment)
        os.execv(command[0], command)
    return pid, terminal


def read_all(terminal: int) -> str:
    """What a terminal shows until its program has ended."""
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # EIO: nobody has it open any more
            part = b""
        if not part:
            os.close(terminal)
            return shown.decode()
        shown += part


def test_a_terminal_that_is_closed_ends_the_display_and_not_the_plan(root: PlanRoot) -> None:
    root.plan(sh("a", f"touch begun; {WAIT}"), sh("b", "echo x >>b", depends_on=["a"]))
    pid, terminal = in_terminal(root)
    wait_until((root.work / "begun").exists, what="the task")

    os.close(terminal)  # the kernel hangs up: SIGHUP, then EIO for whoever writes
    (root.work / "gate").touch()

    assert os.waitpid(pid, 0)[1] == 0
    assert root.lines("b") == ["x"]
    assert "2 done, 0 failed" in (root.runs / "p" / "plan.log").read_text()


def test_ctrl_c_in_a_terminal_reaches_the_orchestrator_alone(root: PlanRoot) -> None:
    root.plan(sh("a", f"echo x >>a; {WAIT}; echo y >>a"), sh("b", "true", depends_on=["a"]))
    pid, terminal = in_terminal(root)
    wait_until(lambda: root.lines("a"), what="the task")

    os.write(terminal, b"\x03")
    log = root.runs / "p" / "plan.log"
    wait_until(lambda: "interrupted" in log.read_text(), what="its answer")
    (root.work / "gate").touch()
    read_all(terminal)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert root.lines("a") == ["x", "y"]
    assert root.states() == {"a": "done", "b": "pending"}


def test_in_a_pipe_every_line_of_progress_is_plain_and_stamped(root: PlanRoot) -> None:
    root.plan(sh("a", "true"), sh("b", "exit 1"))

    done = root.run(env={"TERM": "xterm"})

    progress = done.stdout.split("\n\n")[0].split("\n")
    assert "\x1b" not in done.stdout
    assert all(line[2] == line[5] == ":" and line[8] == " " for line in progress)
    log = (root.runs / "p" / "plan.log").read_text().split("\n\n")
    assert [line[11:] for line in log[0].split("\n")] == progress
    assert log[1:] == done.stdout.split("\n\n")[1:]  # the table, for who closed the terminal


# -- names and nesting


def test_no_supervisor_can_be_found_by_the_name_of_the_orchestrator(root: PlanRoot) -> None:
    root.plan(sh("a", f"touch begun; {WAIT}"))
    plan = root.start()
    wait_until((root.work / "begun").exists, what="the task")

    named = [pid for pid, command in root.processes().items() if "run-all-tasks" in command]
    (root.work / "gate").touch()

    assert plan.wait(60) == 0
    assert named == [plan.pid]


def test_a_plan_inside_a_run_has_its_own_root_and_its_runs_are_children(
    root: PlanRoot, tmp_path: Path
) -> None:
    inner = PlanRoot(tmp_path / "inner")
    inner.plan(sh("inside", "true"))
    root.plan(sh("outer", " ".join(f"'{word}'" for word in inner.command())))

    done = root.run()

    assert done.returncode == 0, done.stdout
    assert inner.record("inside")["parent_run_id"] == root.record("outer")["run_id"]
    assert "task_id: inside" in inner.bus.read_text()
    assert "task_id: inside" not in root.bus.read_text()
    assert [path.name for path in root.runs.glob("run_*")] == [root.record("outer")["run_id"]]


def test_the_demo_runs_in_a_fresh_clone_and_leaves_it_clean(tmp_path: Path) -> None:
    clone = tmp_path / "a clone"
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("the tests do not run in a git work tree")
    for name in filter(None, listed.stdout.decode().split("\0")):
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            target.write_bytes((ROOT / name).read_bytes())
            target.chmod((ROOT / name).stat().st_mode)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(clone)]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    demo = PlanRoot(tmp_path / "unused")
    environment = demo.environment({"CONDUCTOR_OFFLINE_DELAY": "0"})

    done = subprocess.run(
        ["make", "demo"], cwd=clone, env=environment, capture_output=True, encoding="utf-8"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n34 done; " in done.stdout
    folders = list((clone / "runs" / ".demo" / "runs").glob("run_*"))
    assert len(folders) == 27 + 7 * 2
    for folder in folders:
        assert (folder / "output.md").stat().st_size > 0
        assert yaml.safe_load((folder / "run-info.yaml").read_text())["status"] == "completed"
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True)
    assert status.stdout == b""
    wait_until(lambda: not demo.processes(), what="the end of the demo")
