"""Runs whose processes are killed: whatever ends, and when, the next command makes it whole."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from lib import procs, recovery, runs
from tests.agent_runs import (
    CAPTURES,
    Place,
    check_settled,
    is_alive,
    kill,
    processes_of,
    wait_gone,
)
from tests.helpers import ROOT, wait_until

BEFORE_THE_AGENT = [
    "locked:2", "run-allocated", "create-opened", "create-written", "run-recorded",
    "run-before-spawn", "run-spawned", "run-pid-known", "extend-written",
]  # fmt: skip
AFTER_ITS_START = [
    "run-started", "run-agent-ended", "create-opened:2", "create-written:2", "run-output-written",
    "replace-written", "replace-before-rename", "replace-renamed", "run-ended", "bus-locked:2",
    "bus-written:2", "run-announced",
]  # fmt: skip
RESULT = "stream-plain.stdout"


def run_killed_at(place: Place, point: str) -> runs.Run:
    """The run of a run-agent.py that was killed there; its agent has ended by itself."""
    place.script("echo started >>started; echo the answer; exit 5")
    done = place.run("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": f"kill:{point}"})
    assert done.returncode == -signal.SIGKILL, f"{point} was not reached: {done.stderr}"
    run = place.only_run()
    wait_gone(run.run_id)
    return run


# -- the supervisor, at every point of the core ----------------------------------------


@pytest.mark.parametrize("point", BEFORE_THE_AGENT)
def test_killed_before_the_agent_a_run_is_written_off(place: Place, point: str) -> None:
    run = run_killed_at(place, point)
    state = runs.state(runs.read(run.path))
    assert (state.status, state.reason) == (runs.FAILED, runs.NEVER_STARTED)
    place.act()
    run = check_settled(place, run.path)
    assert (run.text("status"), run.number("exit_code")) == ("failed", -1)
    assert run.text("error_summary") == runs.NEVER_STARTED
    assert not (place.cwd / "started").exists()


@pytest.mark.parametrize("point", AFTER_ITS_START)
def test_killed_after_the_start_nothing_of_the_run_is_lost(place: Place, point: str) -> None:
    run = run_killed_at(place, point)
    state = runs.state(runs.read(run.path))
    assert (state.status, state.exit_code) == (runs.FAILED, 5)
    place.act()
    run = check_settled(place, run.path)
    assert (run.text("status"), run.number("exit_code")) == ("failed", 5)
    assert run.text("error_summary") == "agent exited with code 5"
    for name in ("output.md", "transcript.md", "agent-stdout.txt"):
        assert Path(run.file(name)).read_text() == "the answer\n"
    assert f"PID={run.number('pid')}\n" in Path(run.file("cwd.txt")).read_text()
    assert (place.cwd / "started").read_text() == "started\n"
    place.act()
    check_settled(place, run.path)


# -- who is killed, while the agent works -----------------------------------------------


@pytest.mark.parametrize("victims", ["supervisor", "guard", "supervisor guard", "agent",
                                     "agent supervisor", "guard agent"])  # fmt: skip
def test_whoever_is_killed_the_run_gets_its_true_end(either: Place, victims: str) -> None:
    gate = either.gate()
    either.script(f"echo before; read -r _ <'{gate.path}'; echo after; exit 3")
    live = either.start("shell", ".", "prompt.md")
    stdout = live.run_dir / "agent-stdout.txt"
    wait_until(lambda: stdout.read_text() == "before\n", what="the agent's first word")
    pids = {"supervisor": live.supervisor, "guard": live.guard, "agent": live.agent}
    for name in victims.split():
        kill(pids[name])
        # A guard that is about to die may still take its agent's code with it.
        wait_until(lambda pid=pids[name]: not is_alive(pid), what=f"the end of the {name}")  # type: ignore[misc]
    if "agent" not in victims and "supervisor" in victims:
        wait_until(lambda: not runs.is_held(live.run), what="the end of the supervisor")
        state = runs.state(live.run)
        assert (state.status, state.holder) == (runs.RUNNING, "agent")
        either.act()  # which leaves a run alone whose agent lives
        assert live.run.text("status") == "running"
    if "agent" not in victims:
        gate.open()
    code, _, _ = live.end()
    wait_gone(live.run_id)
    either.act()
    run = check_settled(either, live.run_dir)

    is_portable = "CONDUCTOR_PORTABLE" in either.env
    known = {
        "supervisor": 3,
        "guard": -1 if is_portable else 3,
        "supervisor guard": -1,
        "agent": 137,
        "agent supervisor": 137,
        "guard agent": -1 if is_portable else 137,
    }[victims]
    assert run.number("exit_code") == known
    assert run.text("status") == "failed"
    assert (run.text("error_summary") == runs.SUPERVISOR_LOST) == (known == -1)
    if "supervisor" not in victims:
        assert code == (known if known > 0 else 1)
    text = "before\n" if "agent" in victims else "before\nafter\n"
    if "agent" not in victims:
        assert Path(run.file("output.md")).read_text() == text
        assert Path(run.file("transcript.md")).read_text() == text


def test_with_all_witnesses_dead_a_success_in_the_stream_is_believed(either: Place) -> None:
    gate = either.gate()
    capture = CAPTURES / RESULT
    either.program("claude", f"#!/bin/sh\ncat '{capture}'\nread -r _ <'{gate.path}'\n")
    live = either.start("claude", ".", "--prompt", "go")
    stdout = live.run_dir / "agent-stdout.txt"
    wait_until(lambda: stdout.stat().st_size == capture.stat().st_size, what="the whole stream")
    for pid in (live.supervisor, live.guard, live.agent):
        kill(pid)
    live.end()
    wait_gone(live.run_id)
    either.act()
    run = check_settled(either, live.run_dir)
    assert (run.text("status"), run.number("exit_code")) == ("completed", -1)
    assert run.record["recovered"] is True
    assert Path(run.file("output.md")).read_text().startswith("STUB-ANSWER")
    assert run.record["session_id"]


def test_a_kill_at_any_moment_leaves_nothing_undone(place: Place) -> None:
    seed = time.time_ns() % 10**6
    chance = random.Random(seed)  # noqa: S311 - nothing secret hangs on it
    place.script("echo one; sleep 0.02; echo two; exit 0")
    for round_number in range(10):
        what = f"seed {seed}, round {round_number}"
        process = place.popen("shell", ".", "prompt.md", "--task", f"round-{round_number}")
        time.sleep(chance.uniform(0.01, 0.12))  # the moment is what is tried, not what is awaited
        victim = chance.choice(["supervisor", "guard", "agent"])
        run = next(
            (r for r in place.all_runs() if r.run_id.endswith(f"round-{round_number}")), None
        )
        pid = 0 if run is None else {"guard": run.number("pgid"), "agent": run.number("pid")}.get(
            victim, 0
        )  # fmt: skip
        kill(pid or process.pid)
        process.communicate(timeout=60)
        if run is not None:
            wait_gone(run.run_id)
        place.act()
        for found in place.all_runs():
            settled = check_settled(place, found.path)
            if settled.number("exit_code") == 0:
                assert Path(settled.file("output.md")).read_text() in ("one\ntwo\n", ""), what


def test_runs_at_all_stages_are_repaired_at_once_and_one_broken_one_hinders_none(
    place: Place,
) -> None:
    place.script("exit 2")
    for point in ("run-recorded", "run-ended", "run-agent-ended"):
        place.run(
            "shell", ".", "prompt.md", "--task", point, env={"CONDUCTOR_FAULT": f"kill:{point}"}
        )
    killed = place.all_runs()
    broken = next(run for run in killed if run.run_id.endswith("run-agent-ended"))
    Path(broken.file("pid.txt")).unlink()
    Path(broken.file("pid.txt")).mkdir()
    gone = place.runs_dir / ".active" / "run_20200101-000000-1"
    gone.touch()
    for run in killed:
        wait_gone(run.run_id)
    place.act()
    assert not gone.exists()
    for run in killed:
        if run.path != broken.path:
            check_settled(place, run.path)
    assert "could not be repaired" in Path(broken.file("supervisor.log")).read_text()


# -- an agent must not start once its run was written off ----------------------------------


def test_an_agent_held_back_never_starts_after_its_run_was_written_off(place: Place) -> None:
    place.script("touch started")
    process = place.popen("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": "stop:run-spawned"})
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    [guard] = [row.pid for row in procs.table().values() if row.ppid == process.pid]
    kill(guard, signal.SIGSTOP)
    kill(process.pid)
    process.communicate()
    run = place.only_run()
    place.act()
    assert runs.read(run.path).text("error_summary") == runs.NEVER_STARTED

    os.killpg(guard, signal.SIGCONT)
    wait_gone(run.run_id)
    assert not (place.cwd / "started").exists()
    check_settled(place, run.path)


def test_an_agent_does_not_start_before_its_pid_is_recorded_and_printed(place: Place) -> None:
    place.script("touch started")
    process = place.popen("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": "stop:run-pid-known"})
    os.waitpid(process.pid, os.WUNTRACED)
    run = place.only_run()
    assert run.number("pid") == 0
    assert int(Path(run.file("pid.txt")).read_text()) in processes_of(run.run_id)
    assert not (place.cwd / "started").exists()
    kill(process.pid, signal.SIGCONT)
    assert process.communicate(timeout=60)[0].count(b"PID=") == 1
    assert (place.cwd / "started").exists()
    check_settled(place, run.path)


# -- readers ---------------------------------------------------------------------------------


def test_readers_change_nothing_and_tell_the_state_of_every_stage(place: Place) -> None:
    gate = place.gate()
    place.script(f"touch started; read -r _ <'{gate.path}'; exit 0")
    live = place.start("shell", ".", "prompt.md")
    wait_until((place.cwd / "started").exists, what="the agent's start")

    def look() -> tuple[str, str]:
        before = sorted((p.name, p.stat().st_mtime_ns) for p in live.run_dir.iterdir())
        state = runs.state(live.run)
        assert before == sorted((p.name, p.stat().st_mtime_ns) for p in live.run_dir.iterdir())
        return state.status, state.holder

    assert look() == ("running", "supervisor")
    kill(live.supervisor)
    live.end()
    assert look() == ("running", "agent")
    gate.open()
    wait_gone(live.run_id)
    assert look() == ("completed", "")
    assert live.run.text("status") == "running"
    assert recovery.repair(str(live.run_dir)) is True
    assert look() == ("completed", "")
    assert recovery.repair(str(live.run_dir)) is False
    check_settled(place, live.run_dir)


def test_a_reused_pid_does_not_keep_a_run_alive(place: Place) -> None:
    run = run_killed_at(place, "run-agent-ended")
    bystander = os.getpid()
    text = Path(run.file("run-info.yaml")).read_text()
    Path(run.file("run-info.yaml")).write_text(
        text.replace(f"pid: {run.number('pid')}\n", f"pid: {bystander}\n", 1)
    )
    assert runs.state(runs.read(run.path)).status == "failed"
    place.act()
    assert runs.read(run.path).text("status") == "failed"
    assert is_alive(bystander)


def test_a_record_of_another_host_is_neither_judged_nor_repaired(place: Place) -> None:
    run = run_killed_at(place, "run-agent-ended")
    record = Path(run.file("run-info.yaml"))
    host = runs.read(run.path).text("host")
    record.write_text(record.read_text().replace(f'host: "{host}"', 'host: "elsewhere"'))
    before = record.read_bytes()
    state = runs.state(runs.read(run.path))
    assert state.status == "unknown"
    assert "elsewhere" in state.reason
    place.act()
    assert record.read_bytes() == before
    assert recovery.repair(run.path) is False


def test_a_child_run_whose_parent_dies_goes_on(place: Place) -> None:
    gate = place.gate()
    place.script(f"read -r _ <'{gate.path}'; echo child", "child.md")
    place.script(f"'{ROOT}/run-agent.py' shell . child.md >/dev/null; echo parent")
    live = place.start("shell", ".", "prompt.md")
    wait_until(lambda: any(r.number("pid") for r in place.all_runs() if r.text("parent_run_id")),
               what="the child run")  # fmt: skip
    kill(live.supervisor)
    live.end()
    gate.open()
    wait_gone(live.run_id)
    place.act()
    parent, child = (r for r in sorted(place.all_runs(), key=lambda r: "parent_run_id" in r.record)
                     if not r.run_id.endswith("-act"))  # fmt: skip
    for run, text in ((parent, "parent\n"), (child, "child\n")):
        assert check_settled(place, run.path).number("exit_code") == 0
        assert Path(run.file("output.md")).read_text() == text
