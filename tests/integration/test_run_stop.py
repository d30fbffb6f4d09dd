"""Stopping a run: by signals, by limits, whole, and nothing but the run."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import recovery, runs
from tests.agent_runs import (
    Gate,
    Live,
    Place,
    check_settled,
    is_alive,
    kill,
    processes_of,
    wait_gone,
)
from tests.helpers import PYTHON, ROOT, clean_environment, wait_until

SHORT_GRACE = {"CONDUCTOR_STOP_GRACE": "0.3"}
LONG_GRACE = {"CONDUCTOR_STOP_GRACE": "600"}

# Every way in which a tool may escape: a session of its own, a daemon whose
# parents are gone, deafness to SIGTERM, a stopped process.
TREE = """
setsid sh -c 'echo $$ >>tree; while :; do sleep 600; done' &
(setsid sh -c '(sh -c "echo \\$\\$ >>tree; sleep 600" &) ; exit 0' &)
sh -c 'trap "" TERM; echo $$ >>tree; while :; do sleep 600; done' &
setsid sh -c 'echo $$ >>tree; kill -STOP $$; sleep 600' &
while [ "$(wc -l <tree)" -lt 4 ]; do sleep 0.01; done
touch ready
"""


@pytest.fixture
def place(place: Place) -> Place:
    """A place where tools can note that they live."""
    (place.cwd / "tree").touch()
    return place


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process that has nothing to do with any run."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process.pid
    process.kill()
    process.wait()


def wait_ready(place: Place) -> None:
    wait_until((place.cwd / "ready").exists, what="the agent and its tools")


def start(place: Place, script: str, *arguments: str, env: dict[str, str] | None = None) -> Live:
    place.script(script)
    live = place.start("shell", ".", "prompt.md", *arguments, env=env or SHORT_GRACE)
    wait_ready(place)
    return live


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_whole_tree_and_nothing_else(
    either: Place, bystander: int, number: signal.Signals
) -> None:
    live = start(either, TREE + "sleep 600")
    tree = [int(pid) for pid in (either.cwd / "tree").read_text().split()]
    assert len(tree) == 4
    assert all(is_alive(pid) for pid in tree)
    live.signal(number)
    code, _, err = live.end()
    run = check_settled(either, live.run_dir)

    assert code == 128 + number
    assert (run.text("status"), run.number("exit_code")) == ("failed", 143)
    assert run.text("error_summary") == f"stopped by {number.name}"
    assert err == f"run-agent.py: stopped by {number.name}\n"
    assert not [pid for pid in tree if is_alive(pid)]
    assert is_alive(bystander)


def test_an_agent_that_ignores_sigterm_is_killed_after_the_grace(either: Place) -> None:
    live = start(either, "trap '' TERM; touch ready; while :; do sleep 600; done")
    live.signal(signal.SIGTERM)
    assert live.end()[0] == 143
    assert check_settled(either, live.run_dir).number("exit_code") == 137


def test_a_stopped_agent_takes_the_signal_at_once(place: Place) -> None:
    live = start(place, "touch ready; kill -STOP $$; sleep 600", env=LONG_GRACE)
    live.signal(signal.SIGTERM)
    assert live.end()[0] == 143
    assert check_settled(place, live.run_dir).number("exit_code") == 143


def test_an_agent_may_use_the_grace_and_its_code_is_kept(place: Place) -> None:
    live = start(place, "trap 'echo saved; exit 21' TERM; touch ready; while :; do sleep 0.02; done",
                 env=LONG_GRACE)  # fmt: skip
    live.signal(signal.SIGTERM)
    assert live.end()[0] == 143
    run = check_settled(place, live.run_dir)
    assert (run.text("status"), run.number("exit_code")) == ("failed", 21)
    assert Path(run.file("output.md")).read_text() == "saved\n"


def test_an_agent_that_ends_with_0_when_stopped_has_failed_all_the_same(place: Place) -> None:
    live = start(place, "trap 'exit 0' TERM; touch ready; while :; do sleep 0.02; done")
    live.signal(signal.SIGINT)
    assert live.end()[0] == 130
    run = check_settled(place, live.run_dir)
    assert (run.text("status"), run.number("exit_code")) == ("failed", 0)
    assert run.text("error_summary") == "stopped by SIGINT"


def test_a_second_signal_ends_the_grace(place: Place) -> None:
    live = start(
        place, "trap 'touch told' TERM; touch ready; while :; do sleep 0.02; done", env=LONG_GRACE
    )
    live.signal(signal.SIGTERM)
    wait_until((place.cwd / "told").exists, what="the first signal to reach the agent")
    live.signal(signal.SIGTERM)
    assert live.end()[0] == 143
    assert check_settled(place, live.run_dir).number("exit_code") == 137


def test_under_nohup_a_hang_up_is_ignored(place: Place) -> None:
    gate = place.gate()
    place.script(f"touch ready; read -r _ <'{gate.path}'; exit 5")
    live = place.start("shell", ".", "prompt.md", prefix="nohup")
    wait_ready(place)
    live.signal(signal.SIGHUP)
    gate.open()
    assert live.end()[0] == 5
    assert check_settled(place, live.run_dir).number("exit_code") == 5


def test_a_signal_before_the_agent_has_started_is_not_lost(place: Place) -> None:
    place.script("touch started; sleep 600")
    process = place.popen("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": "stop:run-spawned"})
    os.waitpid(process.pid, os.WUNTRACED)
    kill(process.pid, signal.SIGTERM)
    kill(process.pid, signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 143
    run = check_settled(place, place.only_run().path)
    assert run.text("error_summary") == "stopped by SIGTERM"
    assert not (place.cwd / "started").exists()


def test_a_run_that_has_ended_can_be_stopped_again(place: Place) -> None:
    place.script("exit 3")
    place.run("shell", ".", "prompt.md")
    run = place.only_run()
    assert recovery.stop(run.path) == "ended"
    assert check_settled(place, run.path).number("exit_code") == 3


def test_without_its_supervisor_a_run_is_stopped_by_who_asks(place: Place) -> None:
    live = start(place, TREE + "sleep 600")
    kill(live.supervisor)
    live.end()
    done = subprocess.run(
        [str(ROOT / "bin" / "stop-run"), live.run_id, "--root", str(place.root)],
        env=place.environment(SHORT_GRACE), capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = check_settled(place, live.run_dir)
    assert (run.text("status"), run.number("exit_code")) == ("failed", 143)


def test_what_looks_for_processes_does_not_find_itself() -> None:
    """A run that is stopped from within: `ps` then is of its group, and new at each look."""
    code = "from lib import procs; import os; print(procs.members('run_x', os.getpgrp(), ()))"
    done = subprocess.run(
        [*PYTHON, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        env=clean_environment({"CONDUCTOR_PORTABLE": "1", "JRUN_ID": "run_x"}),
        capture_output=True, start_new_session=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"[]\n", b"")


# -- child runs ------------------------------------------------------------------------


def start_family(place: Place, how: str, env: dict[str, str]) -> tuple[Live, runs.Run, Gate]:
    """A run, and a child run whose agent, when told to end, does so at the gate."""
    gate = place.gate()
    saving = f"touch told; read -r _ <{gate.path.name}; echo child saved; exit 7"
    place.script(f"trap '{saving}' TERM; touch ready; while :; do sleep 0.02; done", "child.md")
    place.script(f"{how} '{ROOT}/run-agent.py' shell . child.md >/dev/null 2>&1 & wait; sleep 600")
    live = place.start("shell", ".", "prompt.md", env=env)
    wait_ready(place)
    [child] = [run for run in place.all_runs() if run.text("parent_run_id")]
    return live, child, gate


@pytest.mark.parametrize("how", ["", "setsid -w", "nohup"])
def test_stopping_a_run_stops_its_child_runs_with_all_their_grace(place: Place, how: str) -> None:
    live, child, gate = start_family(place, how, LONG_GRACE)
    live.signal(signal.SIGTERM)
    wait_until((place.cwd / "told").exists, what="the signal to reach the child's agent")
    live.end()
    gate.open()
    wait_until(lambda: runs.read(child.path).text("status") != "running", what="the child's end")
    wait_until(lambda: not os.path.exists(child.file(runs.LOCK)), what="the child's marks to go")
    run = check_settled(place, child.path)
    assert run.number("exit_code") == 7
    assert Path(run.file("output.md")).read_text() == "child saved\n"
    check_settled(place, live.run_dir)


def test_a_child_run_without_supervisor_is_stopped_with_its_parent(place: Place) -> None:
    live, child, _ = start_family(place, "setsid", SHORT_GRACE)
    kill(child.number("supervisor_pid"))
    wait_until(lambda: not runs.is_held(child), what="the end of the child's supervisor")
    assert processes_of(child.run_id)
    live.signal(signal.SIGTERM)
    live.end()
    wait_gone(child.run_id)
    check_settled(place, child.path)
    check_settled(place, live.run_dir)


# -- limits ----------------------------------------------------------------------------


def test_a_run_that_takes_too_long_is_stopped_and_says_so(either: Place) -> None:
    either.script("echo begun; sleep 600")
    done = either.run("shell", ".", "prompt.md", "--timeout", "0.3", env=SHORT_GRACE)
    run = check_settled(either, either.only_run().path)
    reason = "timed out after 0.3 s; allow more with --timeout, or make the task smaller"
    assert (done.returncode, done.stderr) == (124, f"run-agent.py: {reason}\n")
    assert (run.text("status"), run.number("exit_code")) == ("failed", 143)
    assert run.text("error_summary") == reason
    assert Path(run.file("output.md")).read_text() == "begun\n"
    [crash] = place_messages(either, run)
    assert crash.startswith(f"ERROR task=prompt agent=shell exit=143 run={run.run_id}: timed out")


def place_messages(place: Place, run: runs.Run) -> list[str]:
    return [message.body for message in place.messages(run.run_id, "RUN_CRASH")]


def test_a_silent_run_is_stopped_and_says_so(either: Place) -> None:
    either.script("echo begun; sleep 600")
    done = either.run("shell", ".", "prompt.md", "--idle-timeout", "0.3", env=SHORT_GRACE)
    run = check_settled(either, either.only_run().path)
    reason = (
        "silent for 0.3 s: idle timeout; see agent-stderr.txt, or allow more with --idle-timeout"
    )
    assert (done.returncode, done.stderr) == (124, f"run-agent.py: {reason}\n")
    assert run.text("error_summary") == reason


def test_silence_is_marked_long_before_it_is_ended_until_the_agent_speaks_again(
    place: Place,
) -> None:
    gate = place.gate()
    place.script(f"read -r _ <{gate.path}; echo spoken; read -r _ <{gate.path}")
    live = place.start("shell", ".", "prompt.md", "--idle-timeout", "9", env=SHORT_GRACE)

    wait_until(lambda: bool(place.only_run().text("silent_since")), what="the mark")
    gate.open()
    wait_until(lambda: not place.only_run().text("silent_since"), what="the end of the mark")
    gate.open()

    assert live.end()[0] == 0
    [warning] = place.messages(place.only_run().run_id, "WARNING")
    assert ": silent for 3" in warning.body
    assert warning.body.endswith(" s; stopped after 9 s")


def test_limits_may_stand_in_the_config(place: Place) -> None:
    config = place.folder / "config.yaml"
    config.write_text("defaults: {timeout: 0.2s}\n")
    place.script("sleep 600")
    done = place.run("shell", ".", "prompt.md", "--config", config, env=SHORT_GRACE)
    assert done.returncode == 124, done.stderr
    place.run("shell", ".", "--prompt", "```sh\n:\n```", "--config", config, "--timeout", "0")
    assert sorted(run.text("status") for run in place.all_runs()) == ["completed", "failed"]
