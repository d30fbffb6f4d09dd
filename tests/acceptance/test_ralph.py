"""A task in its loop as its users know it: one agent, children, DONE, a busy bus, and stopping it all."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from lib import runs
from tests.agent_runs import is_alive, processes_of
from tests.helpers import wait_until
from tests.task_root import BUS_APPEND, COUNT, FINISH, RUN_AGENT, TaskRoot, kill_loop


def child(root: TaskRoot, name: str, script: str) -> str:
    """A shell command that starts a child run of that script."""
    path = root.path / f"{name}.md"
    path.write_text(f"```sh\n{script}\n```\n")
    return f"{RUN_AGENT} shell . '{path}' >/dev/null"


def test_one_agent_completes_its_task(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f"echo 'all of it'; {FINISH}")

    done = tasks_root.loop()

    assert done.returncode == 0, done.stdout + done.stderr
    [record] = tasks_root.try_records()
    assert (record["status"], record["exit_code"]) == ("completed", 0)
    [run] = tasks_root.task_runs()
    assert run.read_text("output.md", 99) == "all of it\n"
    kinds = [message.type for message in tasks_root.messages("", tasks_root.task.bus)]
    assert kinds == ["INFO", "RUN_START", "RUN_STOP", "INFO", "FACT"]
    assert len(tasks_root.facts()) == 1
    assert sorted(os.listdir(tasks_root.task.runs_dir)) == [run.run_id], "what the original counts"
    tasks_root.assert_settled()


def test_a_parent_starts_three_children_and_all_complete(tasks_root: TaskRoot) -> None:
    starts = [
        child(tasks_root, name, f'echo {name} >"$JRUN_TASK_FOLDER/{name}.txt"') for name in "abc"
    ]
    tasks_root.agent("\n".join([*[f"{start} &" for start in starts], "wait", FINISH]))

    done = tasks_root.loop("--max-restarts", "1")

    assert done.returncode == 0, done.stdout + done.stderr
    [parent] = tasks_root.tries
    children = tasks_root.children()
    assert [run.text("parent_run_id") for run in children] == [parent["run"]] * 3
    assert [run.text("status") for run in children] == ["completed"] * 3
    assert {os.path.dirname(run.path) for run in children} == {str(tasks_root.folder / "runs")}
    assert sorted(path.stem for path in tasks_root.folder.glob("?.txt")) == ["a", "b", "c"]
    tasks_root.assert_settled()


def test_done_with_children_alive_waits_and_completes_without_a_restart(
    tasks_root: TaskRoot,
) -> None:
    gate = tasks_root.gate()
    start = child(tasks_root, "slow", f"read -r _ <'{gate.path}'; echo late")
    tasks_root.agent(f"{start} &\n{FINISH}")
    loop = tasks_root.begin()
    wait_until(lambda: tasks_root.bodies("INFO")[1:], what="the wait for the child")

    [slow] = tasks_root.children()
    assert tasks_root.bodies("INFO")[1] == f"done; waiting for 1 child runs: {slow.run_id}"
    wait_until(lambda: tasks_root.loop_record["state"] == "waiting-children", what="the state")
    assert tasks_root.facts() == []
    gate.open()

    assert loop.wait(60) == 0
    assert len(tasks_root.tries) == 1
    assert runs.read(slow.path).text("status") == "completed"
    assert tasks_root.bodies("WARNING") == []
    assert len(tasks_root.facts()) == 1
    tasks_root.assert_settled()


def test_children_that_outlive_the_wait_are_named_and_live_on(tasks_root: TaskRoot) -> None:
    gate = tasks_root.gate()
    start = child(tasks_root, "slow", f"read -r _ <'{gate.path}'")
    tasks_root.agent(f"{start} &\n{start} &\n{FINISH}")

    done = tasks_root.loop("--child-wait-timeout", "0.5s")

    assert done.returncode == 0, done.stdout + done.stderr
    [warning] = tasks_root.bodies("WARNING")
    orphans = tasks_root.children()
    assert len(orphans) == 2
    assert all(run.run_id in warning for run in orphans)
    assert [runs.state(run).status for run in orphans] == ["running"] * 2
    assert len(tasks_root.tries) == 1
    assert len(tasks_root.facts()) == 1
    gate.open(2)
    wait_until(lambda: not any(runs.state(run).holder for run in orphans), what="their end")
    assert tasks_root.loop().returncode == 0
    assert len(tasks_root.facts()) == 1, "that they have ended is no second completion"
    tasks_root.assert_settled()


def test_many_writers_on_the_bus_of_a_task_lose_nothing(tasks_root: TaskRoot) -> None:
    writer = (
        "i=0; while [ $i -lt 20 ]; do i=$((i+1)); "
        f'printf "%s\\n---\\nline $i" "$1" | {BUS_APPEND} --type PROGRESS - ; done'
    )
    (tasks_root.path / "writer.sh").write_text(writer)
    start = f"sh '{tasks_root.path}/writer.sh'"
    inside = child(tasks_root, "writing", f"{start} child")
    tasks_root.agent(f"{start} one & {start} two & {inside} & wait; {FINISH}")

    assert tasks_root.loop("--max-restarts", "1").returncode == 0

    found = [m.body for m in tasks_root.messages("PROGRESS", tasks_root.task.bus)]
    wanted = [f"{who}\n---\nline {n}" for who in ("one", "two", "child") for n in range(1, 21)]
    assert sorted(found) == sorted(wanted)
    tasks_root.assert_settled()


# -- three levels deep

# The pids of everything: two levels of agents, tools of each kind at the bottom.
DEAF = 'sh -c \'trap "" TERM; echo $$ >>"$JRUN_TASK_FOLDER/pids"; while :; do sleep 600; done\' &'
DAEMON = (
    '(setsid sh -c \'(sh -c "echo \\$\\$ >>\\"\\$JRUN_TASK_FOLDER/pids\\"; sleep 600" &) ;'
    " exit 0' &)"
)
NOTE = 'echo $$ >>"$JRUN_TASK_FOLDER/pids"'
PIDS = 5  # attempt, child, grandchild, and two tools of the latter


def family(root: TaskRoot, before: str = "") -> None:
    """An agent with a child, which has a child, which has a deaf tool and a daemon."""
    grandchild = child(root, "grandchild", f"{NOTE}\n{DEAF}\n{DAEMON}\nsleep 600")
    middle = child(root, "middle", f"{NOTE}\n{grandchild} &\nwait")
    root.agent(f"{before}{NOTE}\n{middle} &\nwait")
    root.extra_env["CONDUCTOR_STOP_GRACE"] = "0.3"


def by_signal(root: TaskRoot, loop: int) -> None:
    os.kill(loop, signal.SIGTERM)


def by_script(root: TaskRoot, loop: int) -> None:
    stopped = root.stop_task()
    assert stopped.returncode == 0, stopped.stderr


@pytest.mark.parametrize("stop", [by_signal, by_script])
def test_stopping_a_task_ends_three_levels_of_children(
    tasks_root: TaskRoot, stop: Callable[[TaskRoot, int], None]
) -> None:
    family(tasks_root)
    loop = tasks_root.begin()
    pids = tasks_root.pids("pids", PIDS)
    assert all(is_alive(pid) for pid in pids)
    assert len(tasks_root.children()) == 2

    stop(tasks_root, loop.pid)

    assert loop.wait(60) == 143
    tasks_root.assert_dead(pids)
    assert tasks_root.loop_record["state"] == "stopped"
    assert {run.text("status") for run in tasks_root.task_runs()} == {"failed"}
    tasks_root.assert_settled()


def test_agents_that_are_deaf_to_sigterm_and_so_start_their_children_end_with_them(
    tasks_root: TaskRoot,
) -> None:
    deaf = f"trap '' TERM; {NOTE}"  # what a shell ignores, whatever it starts ignores, too
    grandchild = child(tasks_root, "grandchild", f"{deaf}\nwhile :; do sleep 600; done")
    middle = child(tasks_root, "middle", f"{deaf}\n{grandchild} &\nwhile :; do sleep 600; done")
    tasks_root.agent(f"{deaf}\n{middle} &\nwhile :; do sleep 600; done")
    tasks_root.extra_env["CONDUCTOR_STOP_GRACE"] = "0.3"
    loop = tasks_root.begin()
    pids = tasks_root.pids("pids", 3)

    by_script(tasks_root, loop.pid)

    assert loop.wait(60) == 143
    tasks_root.assert_dead(pids)
    # Each was stopped by a supervisor of its own, none of which had to be killed.
    reasons = {runs.state(run).reason for run in tasks_root.task_runs()}
    assert reasons == {"stopped by SIGTERM"}
    tasks_root.assert_settled()


def test_so_it_does_when_loop_and_supervisors_were_killed_before(tasks_root: TaskRoot) -> None:
    family(tasks_root)
    loop = tasks_root.begin()
    pids = tasks_root.pids("pids", PIDS)
    kill_loop(loop)
    for run in tasks_root.task_runs():
        os.kill(run.number("supervisor_pid"), signal.SIGKILL)

    # The daemon has left its session, and with the subreaper every parent it had; its
    # environment still tells whose it is.
    by_script(tasks_root, 0)

    tasks_root.assert_dead(pids)
    tasks_root.assert_settled()


def test_children_of_an_earlier_attempt_are_stopped_too(tasks_root: TaskRoot) -> None:
    orphan = child(tasks_root, "orphan", f"{NOTE}; sleep 600")
    tasks_root.agent(f"{COUNT} [ $n -gt 1 ] || {{ {orphan} & exit 0; }}; {NOTE}; sleep 600")
    loop = tasks_root.begin()
    pids = tasks_root.pids("pids", 2)

    by_signal(tasks_root, loop.pid)

    assert loop.wait(60) == 143
    tasks_root.assert_dead(pids)
    tasks_root.assert_settled()


def test_what_lives_is_shown_as_living_and_no_child_is_swept_up_with_its_parent(
    tasks_root: TaskRoot,
) -> None:
    gate = tasks_root.gate()
    inner = child(tasks_root, "inner", f"{NOTE}\nread -r _ <'{gate.path}'; exit 6")
    middle = child(tasks_root, "middle", f"setsid {inner} &\nexit 0")
    tasks_root.agent(f"setsid {middle} &\n{FINISH}")
    loop = tasks_root.begin()
    pids = tasks_root.pids("pids", 1)

    def ended() -> list[runs.Run]:
        return [run for run in tasks_root.task_runs() if not runs.state(run).holder]

    wait_until(lambda: len(ended()) == 2, what="the end of the attempt and of its child")
    [living] = [run for run in tasks_root.task_runs() if runs.state(run).holder]
    assert runs.state(living).status == "running"
    assert pids[0] in processes_of(living.run_id)
    assert loop.poll() is None, "the grandchild is waited for"
    gate.open()

    assert loop.wait(60) == 0
    assert runs.read(living.path).record["exit_code"] == 6
    tasks_root.assert_settled()


def test_a_child_whose_supervisor_is_killed_is_still_waited_for(tasks_root: TaskRoot) -> None:
    gate = tasks_root.gate()
    start = child(tasks_root, "slow", f"{NOTE}; read -r _ <'{gate.path}'; exit 3")
    tasks_root.agent(f"{start} &\n{FINISH}")
    loop = tasks_root.begin()
    tasks_root.pids("pids", 1)
    wait_until(lambda: tasks_root.bodies("INFO")[1:], what="the wait for the child")
    [slow] = tasks_root.children()
    os.kill(slow.number("supervisor_pid"), signal.SIGKILL)
    wait_until(lambda: runs.state(runs.read(slow.path)).holder == "agent", what="its death")
    gate.open()

    assert loop.wait(60) == 0
    assert runs.read(slow.path).record["exit_code"] == 3, "its guard has left the exit code"
    tasks_root.assert_settled()
