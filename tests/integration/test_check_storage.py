"""bin/check-storage on storages that real runs, plans and kills have left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.agent_runs import Place, kill, wait_gone
from tests.helpers import run_script, wait_until
from tests.plan_root import PlanRoot, sh


def check(root: Path, *options: str, env: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Exit code and lines of bin/check-storage; it must not change a thing."""
    before = tree(root)
    done = run_script("bin/check-storage", root, *options, env=env)
    assert tree(root) == before, "looking has changed something"
    assert done.stderr == ""
    return done.returncode, done.stdout.split("\n")[:-1]


def tree(root: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in root.rglob("*")}


def test_what_runs_and_plans_leave_is_clean(root: PlanRoot) -> None:
    judge = {"role": "judging", "prompt": "```sh\necho VERDICT: APPROVE\n```\n"}
    root.plan(
        sh("a", "echo done", verify=["true"]),
        sh("b", "exit 3", critical=False),
        {"id": "r", **judge},
        roles={"judging": {"agents": ["one", "two"], "quorum": 2}},
    )
    root.run("--agent", "shell")

    code, lines = check(root.path)

    assert code == 0, lines
    [summary] = lines
    assert "runs: 4 (0 live)" in summary
    assert "plans: 1" in summary
    assert summary.endswith("violations: 0, to repair: 0, notes: 0")


@pytest.mark.parametrize("portable", [False, True])
def test_a_run_under_way_is_clean_and_counted_as_live(place: Place, portable: bool) -> None:
    env = {"CONDUCTOR_PORTABLE": "1"} if portable else {}
    gate = place.gate()
    place.script(f"read -r _ <'{gate.path}'")
    live = place.start("shell", ".", "prompt.md")
    wait_until(lambda: place.messages(live.run_id, "RUN_START"), what="its start on the bus")

    code, lines = check(place.root, env=env)
    gate.open()
    live.end()

    assert (code, len(lines)) == (0, 1), lines
    assert "runs: 1 (1 live)" in lines[0]
    assert check(place.root, env=env)[0] == 0


@pytest.mark.parametrize("point", ["locked:2", "run-recorded", "run-agent-ended", "run-ended"])
def test_the_rest_of_a_crash_is_to_be_repaired_and_is_clean_afterwards(
    place: Place, point: str
) -> None:
    place.script("exit 5")
    place.run("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": f"kill:{point}"})
    run = place.only_run()
    wait_gone(run.run_id)

    code, lines = check(place.root)

    assert code == 1
    assert lines[0].startswith(f"repair: runs/{run.run_id}: needs repair: "), lines
    assert lines[-1].endswith("violations: 0, to repair: 1, notes: 0"), lines
    cure = f"bin/stop-run {run.run_id}"
    assert cure in lines[0]
    done = run_script(*cure.split(), "--root", place.root, env=place.env)
    assert done.returncode == 0, done.stderr
    assert check(place.root)[0] == 0


@pytest.mark.parametrize("point", ["replace-written", "run-before-spawn", "run-unlocked"])
@pytest.mark.parametrize("repair", ["", "run-ended", "run-announced", "run-unlocked"])
def test_a_repair_that_is_killed_too_is_made_good_by_the_next(
    place: Place, point: str, repair: str
) -> None:
    place.script("true")
    place.run("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": f"kill:{point}"})
    run_id = place.only_run().run_id
    wait_gone(run_id)
    if repair:
        fault = {"CONDUCTOR_FAULT": f"kill:{repair}", "CONDUCTOR_FAULT_IN": "script"}
        run_script("bin/stop-run", run_id, "--root", place.root, env=fault)

    run_script("bin/stop-run", run_id, "--root", place.root)

    assert check(place.root)[0] == 0


@pytest.mark.parametrize("point", ["locked", "run-marked", "run-folder-made", "locked:2"])
@pytest.mark.parametrize("end", ["goes on", "is killed"])
def test_who_makes_a_run_is_not_disturbed_by_repairs_and_not_forgotten_when_killed(
    place: Place, point: str, end: str
) -> None:
    place.script("true")
    process = place.popen("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": f"stop:{point}"})
    os.waitpid(process.pid, os.WUNTRACED)
    for _ in range(2):  # each begins with a repair of what is there
        assert place.run("shell", ".", "prompt.md").returncode == 0
    kill(process.pid, signal.SIGCONT if end == "goes on" else signal.SIGKILL)
    out, _ = process.communicate(timeout=60)

    runs_made = 2
    if end == "goes on":
        assert process.returncode == 0
        assert b"RUN_ID=" in out
        runs_made = 3
    elif point in ("run-folder-made", "locked:2"):
        runs_made = 3  # and one that was never started
    place.act()
    assert len([run for run in place.all_runs() if run.text("task_id") != "act"]) == runs_made
    assert check(place.root)[0] == 0


def test_a_mark_that_came_back_after_the_end_is_taken_away(place: Place) -> None:
    place.script("true")
    place.run("shell", ".", "prompt.md")
    (place.runs_dir / ".active" / place.only_run().run_id).touch()
    assert check(place.root)[0] == 1

    place.act()

    assert check(place.root)[0] == 0


def test_an_agent_that_lost_its_supervisor_is_alive(place: Place) -> None:
    gate = place.gate()
    place.script(f"touch begun; read -r _ <'{gate.path}'")
    live = place.start("shell", ".", "prompt.md")
    wait_until((place.cwd / "begun").exists, what="the agent")
    kill(live.supervisor)
    live.end()

    code, lines = check(place.root)

    assert (code, "(1 live)" in lines[-1]) == (0, True), lines
    gate.open()
    wait_gone(live.run_id)
    assert check(place.root)[0] == 1


@pytest.mark.parametrize("portable", [False, True])
def test_a_process_that_outlives_its_run_is_a_violation(place: Place, portable: bool) -> None:
    env = {"CONDUCTOR_PORTABLE": "1"} if portable else {}
    place.script("true")
    place.run("shell", ".", "prompt.md")
    run = place.only_run()
    sleeper = subprocess.Popen(["sleep", "600"], env={**os.environ, "JRUN_ID": run.run_id})
    try:
        code, lines = check(place.root, env=env)
    finally:
        sleeper.kill()
        sleeper.wait()

    assert code == 1
    assert lines[0].startswith(f"runs/{run.run_id}: process {sleeper.pid} (sleep 600) lives on")
    assert check(place.root, env=env)[0] == 0


def test_what_was_to_live_on_is_no_violation(place: Place) -> None:
    place.script("sleep 600 >/dev/null 2>&1 & echo $! >sleeper")
    place.run("shell", ".", "prompt.md", "--keep-background")
    try:
        assert check(place.root)[0] == 0
    finally:
        kill(int((place.cwd / "sleeper").read_text()))


def test_a_check_at_work_after_its_orchestrator_died_is_told_as_a_note(root: PlanRoot) -> None:
    root.plan(sh("a", "true", verify=["touch checking; while [ ! -e gate ]; do sleep 0.05; done"]))
    plan = root.start()
    wait_until((root.work / "checking").exists, what="the check")
    assert check(root.path)[0] == 0, "a held plan is left alone"
    plan.kill()
    plan.wait()

    code, lines = check(root.path)

    assert code == 0, lines
    assert "start the plan again" in lines[0]
    (root.work / "gate").touch()
    assert root.run().returncode == 0
    root.assert_nothing_left()
    assert check(root.path)[1][-1].endswith("violations: 0, to repair: 0, notes: 0")


def test_an_orchestrator_that_takes_no_notice_is_told(root: PlanRoot) -> None:
    root.plan(sh("a", "while [ ! -e gate ]; do sleep 0.05; done"))
    plan = root.start()
    pid_file = root.runs / "a.pid"
    wait_until(pid_file.exists, what="the agent")
    os.kill(plan.pid, signal.SIGSTOP)
    (root.work / "gate").touch()
    wait_until(lambda: not pid_file.exists(), what="the end of the run")
    try:
        code, lines = check(root.path)
    finally:
        os.kill(plan.pid, signal.SIGCONT)

    assert code == 1
    assert "takes no notice" in lines[0]
    assert plan.wait(60) == 0
    assert check(root.path)[0] == 0


def test_json_says_the_same(place: Place) -> None:
    place.script("exit 5")
    place.run("shell", ".", "prompt.md")
    (place.runs_dir / place.only_run().run_id / "output.md").unlink()

    code, [text] = check(place.root, "--json")

    data = json.loads(text)
    assert (code, data["ok"], data["runs"], data["messages"]) == (1, False, 1, 2)
    [finding] = data["findings"]
    assert finding["kind"] == "violation"
    assert finding["file"] == f"runs/{place.only_run().run_id}/output.md"
    assert "missing" in finding["what"]


def test_roots_are_found_as_by_the_other_scripts(place: Place) -> None:
    place.script("true")
    place.run("shell", ".", "prompt.md")
    root, runs_dir = place.root, place.runs_dir
    ways: list[tuple[list[str], dict[str, str]]] = [
        ([str(root)], {}),
        (["--root", str(root)], {}),
        (["--runs-dir", str(runs_dir)], {}),
        ([str(runs_dir)], {}),
        ([], {"CONDUCTOR_ROOT": str(root)}),
        ([], {"JRUN_RUNS_DIR": str(runs_dir)}),
    ]
    for arguments, env in ways:
        done = run_script("bin/check-storage", *arguments, env=env)
        assert done.returncode == 0, done.stdout
        assert "runs: 1 " in done.stdout


def test_a_wrong_call_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for arguments in (["/no/such"], [str(tmp_path), "--root", str(tmp_path)]):
        done = run_script("bin/check-storage", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
