"""Proof of success under trouble: hostile, hanging and loud checks, old evidence, kills in between."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.agents import base
from tests.agent_runs import is_alive
from tests.helpers import PYTHON, ROOT, wait_until
from tests.plan_root import PlanRoot, sh

WAIT = "while [ ! -e gate ]; do sleep 0.05; done"
RUN_AGENT = " ".join([*PYTHON, f"'{ROOT / 'run-agent.py'}'"])
# Without our environment nothing but its place in the tree tells whose a process is.
NAMELESS = "env -i sh -c 'echo $$ >>nameless; exec sleep 600' &"
NAMELESS_SESSION = "env -i setsid sh -c 'echo $$ >>nameless; exec sleep 600' &"
BOTH_PATHS = pytest.mark.parametrize("portable", ["", "1"])


def assert_told(root: PlanRoot, task_id: str, reason: str, printed: str) -> None:
    """One failure that everybody is told alike: state, bus, summary, blockers."""
    entry = root.state()[task_id]
    attempt = root.attempts(task_id)[-1]
    assert (entry["state"], attempt["result"], attempt["exit_code"]) == ("failed", "failed", 0)
    assert reason in str(entry["why"])
    assert reason in str(attempt["why"])
    [error] = root.bus_lines("ERROR ")
    assert error.startswith(f"ERROR task={task_id} agent=shell exit=0 run={attempt['run']}: ")
    assert reason in error
    [row] = [line for line in printed.split("\n") if line.startswith(f"{task_id} ")]
    assert "failed: " in row
    assert reason in row
    assert reason in (root.path / "docs" / "dev" / "issues.md").read_text()


def pids(root: PlanRoot, name: str) -> list[int]:
    return [int(line) for line in root.lines(name)]


@pytest.fixture(autouse=True)
def end_the_nameless(root: PlanRoot) -> Iterator[None]:
    """End what a failed test left behind without the mark by which its root finds processes."""
    yield
    for pid in pids(root, "nameless"):
        if is_alive(pid) and b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def wait_dead(root: PlanRoot, name: str) -> None:
    wait_until(
        lambda: not any(map(is_alive, pids(root, name))), what=f"the end of what is in {name}"
    )


# -- what it is told when a check does not pass


@pytest.mark.parametrize(
    ("agent", "check", "reason"),
    [
        ("true", "no-such-program", "verify ended with code 127 (not found): no-such-program;"),
        ("touch plain", "./plain", "verify ended with code 126 (could not be executed): ./plain;"),
        ("true", "kill -9 $$", "verify ended with code 137 (SIGKILL; out of memory?): kill -9 $$;"),
        ("true", "sh -c 'kill -15 $$'", "verify ended with code 143 (SIGTERM): "),
        ("true", "exit 200", "verify ended with code 200: exit 200; see verify.txt in its run"),
        ("true", "sleep 600", "verify was not finished after 0.5 s (verify_timeout): sleep 600;"),
    ],
)
def test_why_a_check_did_not_pass_is_told_everywhere(
    root: PlanRoot, agent: str, check: str, reason: str
) -> None:
    root.plan(sh("a", agent, verify=[check, "touch second"], verify_timeout=0.5))

    done = root.run()

    assert done.returncode == 1
    assert_told(root, "a", reason, done.stdout)
    assert not (root.work / "second").exists()
    assert (root.run_folder("a") / "verify.txt").read_text().startswith(f"$ {check}\n")
    root.assert_nothing_left()


def test_a_check_whose_folder_has_vanished_is_no_pass_and_says_so(root: PlanRoot) -> None:
    (root.work / "here").mkdir()
    root.plan(sh("a", 'rmdir "$PWD"', cwd=str(root.work / "here"), verify=["true"]))

    done = root.run()

    assert done.returncode == 1
    reason = f"verify could not be run (its folder {root.work}/here is gone): true"
    assert_told(root, "a", reason, done.stdout)
    assert "verify.txt" not in str(root.state()["a"]["why"])  # there is none


def test_a_check_that_removes_its_folder_leaves_the_next_one_without(root: PlanRoot) -> None:
    (root.work / "here").mkdir()
    root.plan(sh("a", "true", cwd=str(root.work / "here"), verify=['rmdir "$PWD"', "true"]))

    done = root.run()

    assert done.returncode == 1
    assert_told(root, "a", "here is gone): true; see verify.txt", done.stdout)


def test_a_check_that_removes_the_run_folder_is_a_failure_and_no_more(root: PlanRoot) -> None:
    root.plan(
        sh("a", "true", verify=['rm -rf "$JRUN_RUN_FOLDER"', "true"], critical=False),
        sh("b", "true", depends_on=[]),
    )

    done = root.run()

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert root.states() == {"a": "failed", "b": "done"}
    assert "could not be run (No such file or directory)" in str(root.state()["a"]["why"])


@pytest.mark.parametrize(
    "made",
    [
        'mkdir -p "$JRUN_RUN_FOLDER/verify.txt/x"',
        'mkfifo "$JRUN_RUN_FOLDER/verify.txt"',
        'ln -s /dev/full "$JRUN_RUN_FOLDER/verify.txt"',
        'ln -s "$PWD/victim" "$JRUN_RUN_FOLDER/verify.txt"; echo precious >victim',
    ],
)
def test_what_an_agent_puts_in_the_place_of_the_report_disturbs_nothing(
    root: PlanRoot, made: str
) -> None:
    root.plan(sh("a", made, verify=["echo well"]))

    done = root.run()

    assert done.returncode == 0, done.stdout + done.stderr
    assert (root.run_folder("a") / "verify.txt").read_text() == "$ echo well\nwell\n"
    assert root.lines("victim") in ([], ["precious"])


def test_a_check_may_print_a_hundred_megabytes(root: PlanRoot) -> None:
    loud = "yes 0123456789 | head -c 100000000"
    root.plan(sh("a", "true", verify=[loud, "exit 3"]))

    done = root.run()

    assert done.returncode == 1
    assert_told(root, "a", "verify ended with code 3: exit 3", done.stdout)
    report = root.run_folder("a") / "verify.txt"
    assert report.stat().st_size == 100_000_000 + len(f"$ {loud}\n$ exit 3\n")
    report.unlink()
    others = [path for path in root.path.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in others) < 100_000
    assert len(done.stdout) < 10_000


# -- whole trees


@BOTH_PATHS
def test_what_a_check_leaves_without_our_environment_is_ended_with_it(
    root: PlanRoot, portable: str
) -> None:
    started = "while [ ! -e nameless ]; do sleep 0.02; done"
    root.plan(sh("a", "true", verify=[f"{NAMELESS} {started}"]))

    done = root.run(env={"CONDUCTOR_PORTABLE": portable})

    assert done.returncode == 0, done.stdout
    assert len(pids(root, "nameless")) == 1
    wait_dead(root, "nameless")


@BOTH_PATHS
def test_a_hanging_check_is_ended_with_all_below_it(root: PlanRoot, portable: str) -> None:
    hang = f"{NAMELESS} {NAMELESS_SESSION} setsid sleep 600 & trap '' TERM HUP; sleep 600"
    root.plan(sh("a", "true", verify=[hang], verify_timeout=2))

    done = root.run(env={"CONDUCTOR_PORTABLE": portable})

    assert done.returncode == 1
    assert_told(root, "a", "verify was not finished after 2 s", done.stdout)
    wait_dead(root, "nameless")
    root.assert_nothing_left()


def test_a_check_that_has_stopped_itself_runs_out_of_time_as_any_other(root: PlanRoot) -> None:
    root.plan(sh("a", "true", verify=["kill -STOP $$"], verify_timeout=0.5))

    assert root.run().returncode == 1
    assert "not finished after 0.5 s" in str(root.state()["a"]["why"])
    root.assert_nothing_left()


@BOTH_PATHS
def test_a_check_stopped_by_a_second_interrupt_ends_with_all_below_it(
    root: PlanRoot, portable: str
) -> None:
    hang = f"{NAMELESS} {NAMELESS_SESSION} trap '' TERM HUP; sleep 600"
    root.plan(sh("a", "echo x >>ran", verify=[f"[ -e again ] && exit 0; {hang}"]))
    plan = root.start(env={"CONDUCTOR_PORTABLE": portable})
    wait_until(lambda: len(pids(root, "nameless")) == 2, what="what the check has started")

    plan.send_signal(signal.SIGINT)
    plan.send_signal(signal.SIGTERM)

    assert plan.wait(60) == 130
    wait_dead(root, "nameless")
    root.assert_nothing_left()
    (root.work / "again").touch()
    assert root.run().returncode == 0
    assert root.lines("ran") == ["x"]


def test_killed_while_verifying_the_old_check_is_gone_with_what_it_detached(
    root: PlanRoot,
) -> None:
    detached = "setsid sh -c 'echo $$ >>old; exec sleep 600' & setsid -f sleep 600"
    check = f"[ -e again ] && {{ echo again >>checks; exit 0; }}; {detached}; echo $$ >>old; {WAIT}"
    # A dead one that nobody has reaped yet has no command line any more.
    look = 'for p in $(cat old); do [ -z "$(tr -d "\\0" </proc/$p/cmdline)" ] || echo $p; done'
    first = f"[ ! -e old ] || {{ {look}; }} 2>/dev/null >>alive; echo first >>checks"
    root.plan(sh("a", "echo x >>ran", verify=[first, check]))
    plan = root.start()
    wait_until(lambda: len(root.lines("old")) == 2, what="the check and what it detached")
    plan.kill()
    plan.wait()
    assert all(map(is_alive, pids(root, "old")))
    (root.work / "again").touch()

    done = root.run()

    assert done.returncode == 0, done.stdout
    assert (root.work / "alive").exists()
    assert root.lines("alive") == []  # two checks at once would disturb each other
    assert not any(map(is_alive, pids(root, "old")))
    assert root.lines("checks") == ["first", "first", "again"]
    assert root.lines("ran") == ["x"]
    assert len(root.attempts("a")) == 1
    root.assert_nothing_left()


def test_a_check_does_no_harm_to_a_run_that_the_agent_has_left_running(root: PlanRoot) -> None:
    child = root.work / "child.md"
    child.write_text(f"```sh\necho x >>child; {WAIT}; echo y >>child\n```\n")
    begin = f"{RUN_AGENT} shell . child.md >told & while [ ! -e child ]; do sleep 0.05; done"
    root.plan(sh("a", begin, verify=["setsid sleep 600 & true", "true"]))

    assert root.run().returncode == 0
    [run_id] = [line[7:] for line in root.lines("told") if line.startswith("RUN_ID=")]
    record = root.runs / run_id / "run-info.yaml"
    assert 'status: "running"' in record.read_text()
    (root.work / "gate").touch()
    wait_until(lambda: 'status: "running"' not in record.read_text(), what="the child's end")

    assert 'status: "completed"' in record.read_text()
    assert root.lines("child") == ["x", "y"]
    root.assert_nothing_left()


def test_a_run_that_a_hanging_check_has_started_is_stopped_and_recorded(root: PlanRoot) -> None:
    child = root.work / "child.md"
    child.write_text("```sh\nsetsid sleep 600 & echo x >>child; sleep 600\n```\n")
    root.plan(sh("a", "true", verify=[f"{RUN_AGENT} shell . child.md >told"]))
    plan = root.start()
    wait_until(lambda: root.lines("child"), what="the run that the check started")

    plan.send_signal(signal.SIGINT)
    plan.send_signal(signal.SIGTERM)

    assert plan.wait(60) == 130
    [run_id] = [line[7:] for line in root.lines("told") if line.startswith("RUN_ID=")]
    record = root.runs / run_id / "run-info.yaml"
    wait_until(lambda: 'status: "running"' not in record.read_text(), what="the child's end")
    assert "stopped by SIGTERM" in record.read_text()
    root.assert_nothing_left()


# -- when


def test_interrupted_once_the_check_that_runs_is_waited_for(root: PlanRoot) -> None:
    root.plan(sh("a", "true", verify=[f"echo x >>checks; {WAIT}"]), sh("b", "true"), max_parallel=1)
    plan = root.start()
    wait_until(lambda: root.lines("checks"), what="the check")

    plan.send_signal(signal.SIGINT)
    wait_until(
        lambda: "waiting for 1 running" in (root.path / "printed").read_text(), what="its answer"
    )
    (root.work / "gate").touch()

    assert plan.wait(60) == 130
    assert root.states() == {"a": "done", "b": "pending"}
    assert root.run().returncode == 0
    assert root.lines("checks") == ["x"]


def test_a_check_does_not_run_where_the_agent_has_failed(root: PlanRoot) -> None:
    root.plan(sh("a", "exit 3", verify=["touch checked"]))

    assert root.run().returncode == 1
    assert not (root.work / "checked").exists()
    assert not (root.run_folder("a") / "verify.txt").exists()


def test_what_is_expected_is_looked_at_after_the_checks(root: PlanRoot) -> None:
    root.plan(sh("a", "touch made", verify=["rm made"], expect={"files": ["made"]}))

    done = root.run()

    assert done.returncode == 1
    assert_told(root, "a", f"expected file is missing: {root.work}/made", done.stdout)


# -- evidence of this run alone


def test_a_file_of_an_earlier_attempt_with_a_time_to_come_proves_nothing(root: PlanRoot) -> None:
    script = "[ -e tried ] && exit 0; touch tried; touch -d 2100-01-01 report; exit 1"
    expect = {"files": [{"path": "report", "changed": True}]}
    root.plan(sh("a", script, retries=1, expect=expect))

    done = root.run()

    assert done.returncode == 1
    assert f"file was not written by this run: {root.work}/report" in done.stdout


def test_a_file_that_an_earlier_start_left_proves_nothing_and_a_new_one_does(
    root: PlanRoot,
) -> None:
    script = "[ -e lazy ] && exit 0; echo x >>report; [ -e well ]"
    expect = {"files": [{"path": "report", "changed": True}]}
    root.plan(sh("a", script, expect=expect))
    assert root.run().returncode == 1
    (root.work / "lazy").touch()

    assert root.run().returncode == 1
    assert "was not written by this run" in str(root.state()["a"]["why"])
    (root.work / "lazy").unlink()
    (root.work / "well").touch()
    assert root.run().returncode == 0
    assert len(root.lines("report")) == 2


def test_the_answer_of_an_earlier_attempt_proves_nothing(root: PlanRoot) -> None:
    script = "[ -e tried ] && { echo no; exit 0; }; touch tried; echo OK; exit 1"
    root.plan(sh("a", script, retries=1, expect={"output": "(?m)^OK$"}))

    done = root.run()

    assert done.returncode == 1
    assert "OK" in (root.run_folder("a", 0) / "output.md").read_text()
    assert_told(root, "a", "output.md does not match the expected pattern", done.stdout)


def test_what_a_run_wrote_while_nobody_watched_counts_as_its_own(root: PlanRoot) -> None:
    expect = {"files": [{"path": "report", "changed": True}], "output": "OK"}
    check = ["echo x >>checks"]
    root.plan(
        sh("a", f"echo x >>ran; {WAIT}; echo x >>report; echo OK", verify=check, expect=expect)
    )
    plan = root.start()
    wait_until(lambda: root.lines("ran"), what="the agent")
    plan.kill()
    plan.wait()
    (root.work / "gate").touch()
    wait_until(lambda: not root.processes(), what="the end of the run")

    assert root.run().returncode == 0
    assert (root.lines("ran"), root.lines("checks")) == (["x"], ["x"])


# -- what a check sees


def test_a_check_sees_no_token_but_that_which_its_task_gives(root: PlanRoot) -> None:
    tokens = {name: f"sk-{number:04}-abcdefgh" for number, name in enumerate(VARIABLES)}
    given = {"MY_TOKEN": "given-0123456789", "OPENAI_API_KEY": "given-abcdefghij"}
    (root.path / "config.yaml").write_text(
        json.dumps({"agents": {"claude": {"type": "claude", "token": "sk-of-the-config-0123"}}})
    )
    root.plan(sh("a", "true", verify=["env >seen"], env=given))

    done = root.run(env={**tokens, "CLAUDECODE": "1", "JRUN_TASK_FOLDER": "/elsewhere"})

    assert done.returncode == 0, done.stdout
    seen = dict(line.split("=", 1) for line in root.lines("seen"))
    assert not set(tokens.values()) & set(seen.values())
    assert "sk-of-the-config" not in "".join(seen.values())
    assert seen["MY_TOKEN"] == given["MY_TOKEN"]
    assert seen["OPENAI_API_KEY"] == given["OPENAI_API_KEY"]
    assert not {"CLAUDECODE", "JRUN_TASK_FOLDER"} & set(seen)
    assert seen["JRUN_ID"] == root.attempts("a")[0]["run"]


VARIABLES = [*base.KNOWN_TOKEN_VARIABLES, "CONDUCTOR_AGENT_CLAUDE_TOKEN"]


# -- success without work


def test_a_success_without_a_single_tool_call_is_marked_as_such(
    root: PlanRoot, tmp_path: Path
) -> None:
    search_path = root.claude("All done!")
    root.plan({"id": "a", "agent": "claude", "prompt": "Write it."}, sh("b", "true"))

    done = root.run(env={"PATH": search_path})

    assert done.returncode == 0, done.stdout
    marked = [line for line in done.stdout.split("\n") if "without a tool call" in line]
    assert any(" succeeded a " in line for line in marked)
    assert not any(" succeeded b " in line for line in marked)
    assert root.record("a")["tool_calls"] == 0
    assert "tool_calls" not in root.record("b")  # nobody knows
