"""Races between those who start, hold, repair and take over a run, each one held at its point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib import files, procs, runs
from tests.agent_runs import Place, check_settled, is_alive, kill, wait_gone
from tests.helpers import PYTHON, ROOT, wait_until
from tests.plan_root import PlanRoot, sh

WAIT = "while [ ! -e gate ]; do sleep 0.05; done"
RAN = 'echo "$JRUN_TASK_ID" >>ran'


# Where few descriptors are open, those of the supervisor have numbers that the guard takes.
CROWDED = 'exec "$@" ' + " ".join(f"{fd}</dev/null" for fd in range(3, 10))


def wait_stopped(process: subprocess.Popen[bytes]) -> None:
    """Until it has come to its fault point, and been stopped there."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def folders(place: Place) -> list[Path]:
    return sorted(path for path in place.runs_dir.glob("run_*") if not path.name.endswith("-act"))


# -- the making of a run folder


@pytest.mark.parametrize("point", ["run-marked", "run-folder-made", "create-opened",
                                   "create-written", "extend-written"])  # fmt: skip
def test_killed_while_its_folder_is_made_a_run_leaves_nothing_undone(
    place: Place, point: str
) -> None:
    place.script("touch started")
    done = place.run("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": f"kill:{point}"})
    assert done.returncode == -signal.SIGKILL
    for path in folders(place):
        wait_gone(path.name)

    place.act()

    assert runs.marked(str(place.runs_dir)) == []
    for path in folders(place):
        assert check_settled(place, path).text("error_summary") == runs.NEVER_STARTED
    assert not (place.cwd / "started").exists()


@pytest.mark.parametrize("point", ["run-recorded", "run-spawned"])
def test_a_run_that_got_no_agent_is_told_under_its_own_name(place: Place, point: str) -> None:
    place.script("touch started")
    place.run("shell", ".", "prompt.md", "--task", "mine", env={"CONDUCTOR_FAULT": f"kill:{point}"})
    [path] = folders(place)
    wait_gone(path.name)

    place.act()

    [crash] = place.messages(path.name, "RUN_CRASH")
    assert (crash.task_id, runs.read(str(path)).text("task_id")) == ("mine", "mine")


@pytest.mark.parametrize("point", ["run-marked", "run-folder-made"])
def test_a_repair_leaves_a_run_alone_that_is_being_made(place: Place, point: str) -> None:
    gate = place.gate()
    place.script(f"touch started; read -r _ <'{gate.path}'")
    process = place.popen("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": f"stop:{point}"})
    wait_stopped(process)
    marks = place.runs_dir / runs.ACTIVE
    [name] = os.listdir(marks)

    place.act()

    assert os.listdir(marks) == [name]
    kill(process.pid, signal.SIGCONT)
    wait_until((place.cwd / "started").exists, what="the agent")
    assert [path.name for path in folders(place)] == os.listdir(marks) == [name]
    kill(process.pid)
    process.communicate(timeout=60)
    gate.open()
    wait_gone(name)
    place.act()
    [path] = folders(place)
    assert check_settled(place, path).number("exit_code") == 0


# -- guard and agent


def test_the_exit_code_has_its_room_before_the_agent_begins(place: Place) -> None:
    gate = place.gate()
    place.script(f"touch started; read -r _ <'{gate.path}'; exit 255")
    live = place.start("shell", ".", "prompt.md")
    wait_until((place.cwd / "started").exists, what="the agent")
    room = os.stat(live.run_dir / runs.EXIT_CODE)
    kill(live.supervisor)
    live.end()
    gate.open()
    wait_gone(live.run_id)

    after = os.stat(live.run_dir / runs.EXIT_CODE)
    assert room.st_size >= len("255\n")
    assert (room.st_ino, room.st_blocks, room.st_size) == (
        after.st_ino, after.st_blocks, after.st_size,
    )  # fmt: skip
    assert runs.exit_code(live.run) == 255


def test_no_agent_is_born_deaf_to_a_signal(place: Place) -> None:
    place.script("grep -E '^Sig(Ign|Blk):' /proc/self/status")
    process = subprocess.Popen(
        [sys.executable, "-c", DEAF, *PYTHON, str(ROOT / "run-agent.py"), "shell", ".",
         "prompt.md", "--root", str(place.root)],
        cwd=place.cwd, env=place.environment(), stdout=subprocess.PIPE,
    )  # fmt: skip
    process.communicate(timeout=60)
    stdout = Path(place.only_run().file(runs.STDOUT)).read_text()
    masks = [int(line.split()[1], 16) for line in stdout.split("\n")[:-1]]
    # The real-time signals that a C library keeps for itself are its own affair.
    assert [mask & 0x7FFFFFFF for mask in masks] == [0, 0]


DEAF = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_an_agent_leads_no_session_of_who_started_it_and_holds_nothing_of_its_supervisor(
    place: Place,
) -> None:
    gate = place.gate()
    place.script(f"touch started; read -r _ <'{gate.path}'")
    crowded = place.program("crowded", f"#!/bin/sh\n{CROWDED}\n")
    live = place.start("shell", ".", "prompt.md", prefix=str(crowded))
    wait_until((place.cwd / "started").exists, what="the agent")
    assert os.getsid(live.agent) == live.guard
    assert os.getsid(live.guard) == os.getpgid(live.guard) == live.guard
    for pid in (live.agent, live.guard):
        held = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        assert str(live.run_dir / runs.LOCK) not in held
    open_pipes = [
        name
        for name in os.listdir(f"/proc/{live.agent}/fd")
        if os.readlink(f"/proc/{live.agent}/fd/{name}").startswith("pipe:")
    ]
    assert open_pipes == []
    gate.open()
    live.end()
    check_settled(place, live.run_dir)


# -- taking over


def test_the_supervisor_that_took_a_run_over_is_the_one_that_is_asked_to_stop_it(
    root: PlanRoot,
) -> None:
    root.plan(sh("a", f"{RAN}; {WAIT}; exit 7"))
    plan = root.start()
    pid_file = root.runs / "a.pid"
    wait_until(lambda: root.lines("ran") and pid_file.exists(), what="the agent")
    first = int(pid_file.read_text())
    os.kill(first, signal.SIGKILL)
    folder = root.run_folder("a")

    def adopter() -> int:
        return runs.read(str(folder)).number("supervisor_pid")

    wait_until(lambda: adopter() != first, what="the supervisor that takes over")
    done = subprocess.run(
        [str(ROOT / "bin" / "stop-run"), folder.name, "--root", str(root.path)],
        env=root.environment(), capture_output=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert plan.wait(60) == 1
    assert "stopped by SIGTERM" in str(root.attempts("a")[0]["why"])
    root.assert_nothing_left()


def test_the_agents_of_a_plan_hold_no_lock_and_their_supervisors_are_each_alone(
    root: PlanRoot,
) -> None:
    root.plan(*(sh(name, f"{RAN}; {WAIT}") for name in "abc"))
    plan = subprocess.Popen(
        ["/bin/sh", "-c", CROWDED, "sh", *root.command()],
        env=root.environment(), cwd=root.path, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    pid_files = [root.runs / f"{name}.pid" for name in "abc"]
    wait_until(lambda: all(path.exists() for path in pid_files), what="three supervisors")
    pids = [int(path.read_text()) for path in pid_files]
    assert [os.getsid(pid) for pid in pids] == pids
    [spawner] = children_of(plan.pid)
    # In the plan's group, Ctrl-Z would stop it, and `kill -CONT` of the plan not let it go on.
    assert os.getsid(spawner) == spawner
    plan.kill()
    plan.wait()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, pids)), what="the end of the supervisors")

    for name in "abc":
        state = runs.state(runs.read(str(root.run_folder(name))))
        assert (state.status, state.holder) == (runs.RUNNING, "agent")
    assert not files.is_locked(str(root.runs / "p" / "PLAN.lock"))

    (root.work / "gate").touch()
    assert root.run().returncode == 0
    assert sorted(root.lines("ran")) == ["a", "b", "c"]
    root.assert_nothing_left()


def children_of(pid: int) -> list[int]:
    return [row.pid for row in procs.table().values() if row.ppid == pid]


def test_a_spawner_that_is_killed_once_costs_a_plan_nothing(root: PlanRoot) -> None:
    root.plan(*(sh(name, RAN) for name in "abc"))
    fault = {
        "CONDUCTOR_FAULT": "kill:spawner-fork",
        "CONDUCTOR_FAULT_IN": "spawner",
        "CONDUCTOR_FAULT_ONCE": str(root.path / "killed"),
    }

    plan = root.start("--max-parallel", "1", env=fault)

    assert plan.wait(60) == 0
    assert (root.path / "killed").exists()
    assert sorted(root.lines("ran")) == ["a", "b", "c"]
    root.assert_nothing_left()


def test_a_plan_begins_by_repairing_single_runs_too(root: PlanRoot) -> None:
    root.plan(sh("a", "true"))
    done = subprocess.run(
        [*PYTHON, str(ROOT / "run-agent.py"), "shell", ".", "--prompt", "```sh\nexit 3\n```",
         "--root", str(root.path)],
        env=root.environment({"CONDUCTOR_FAULT": "kill:run-agent-ended"}), cwd=root.work,
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    [name] = os.listdir(root.runs / runs.ACTIVE)

    assert root.run().returncode == 0

    run = runs.read(str(root.runs / name))
    assert (run.text("status"), run.number("exit_code")) == ("failed", 3)
    root.assert_nothing_left()


# Lets the run end between the first and the second look that a restarted plan takes at it.
BETWEEN = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from lib import runs
from lib.commands import run_all_tasks
looks = []

def between(real):
    def look(*arguments):
        answer = real(*arguments)
        name = os.path.basename(getattr(arguments[0], "path", arguments[0]))
        if name.endswith("-a") and not looks and sys._getframe(1).f_code.co_name == "_recover_attempt":
            looks.append(name)
            os.kill(int(sys.argv[2]), 18)
            limit = time.monotonic() + 30
            while not has_ended(arguments):
                assert time.monotonic() < limit
                time.sleep(0.01)
        return answer
    return look

real_is_held, real_read = runs.is_held, runs.read

def has_ended(arguments):
    run = real_read(getattr(arguments[0], "path", arguments[0]))
    return run.text("status") == "completed" and not real_is_held(run)

runs.is_held, runs.read = between(real_is_held), between(real_read)
sys.exit(run_all_tasks.main(sys.argv[3:]))
"""


def test_a_run_that_ends_while_a_restarted_plan_looks_at_it_is_not_started_again(
    root: PlanRoot,
) -> None:
    root.plan(sh("a", RAN))
    fault = {"CONDUCTOR_FAULT": "stop:run-allocated", "CONDUCTOR_FAULT_IN": "supervisor"}
    plan = root.start(env=fault)

    def stopped() -> list[int]:
        return [
            pid
            for pid in root.processes()
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        ]

    wait_until(stopped, what="the supervisor at its point")
    [pid] = stopped()
    plan.kill()
    plan.wait()

    words = [str(root.plan_file), "--root", str(root.path)]
    again = subprocess.run(
        [*PYTHON, "-c", BETWEEN, str(ROOT), str(pid), *words],
        env=root.environment(), cwd=root.path, capture_output=True, timeout=100,
    )  # fmt: skip

    assert again.returncode == 0, again.stderr
    assert root.lines("ran") == ["a"]
    assert len(root.attempts("a")) == 1
    root.assert_nothing_left()


def test_a_supervisor_that_cannot_be_started_at_all_fails_the_task_in_the_end(
    root: PlanRoot,
) -> None:
    root.plan(sh("a", RAN))
    python = root.path / "python3"
    python.symlink_to(PYTHON[0])
    plan = subprocess.Popen(
        [str(python), *root.command()[1:]],
        env=root.environment({"CONDUCTOR_FAULT": "stop:attempt-before-spawn"}),
        cwd=root.path, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_stopped(plan)
    python.unlink()
    kill(plan.pid, signal.SIGCONT)

    assert plan.wait(60) == 1
    assert "its supervisor could not be started: No such file" in str(root.state()["a"]["why"])
    [error] = root.bus_lines("ERROR ")
    assert "could not be started" in error
    assert root.run().returncode == 0
    assert root.lines("ran") == ["a"]
    root.assert_nothing_left()
