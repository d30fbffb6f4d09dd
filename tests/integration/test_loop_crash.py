"""A loop is killed, anywhere: started again, it ends well, and no two agents were ever at work."""

from __future__ import annotations

import signal

import pytest

from tests.helpers import wait_until
from tests.task_root import COUNT, FINISH, TaskRoot

LOOP_POINTS = [
    "bus-before-write",
    "bus-done",
    "bus-locked",
    "bus-written",
    "locked",
    "loop-before-allocate",
    "loop-before-spawn",
    "loop-begun",
    "loop-completed",
    "loop-noted",
    "loop-propagated",
    "loop-run-ended",
    "loop-settled",
    "loop-spawned",
    "replace-before-rename",
    "replace-renamed",
    "replace-written",
    "run-folder-made",
    "run-marked",
]
SUPERVISOR_POINTS = ["run-allocated", "run-recorded", "run-spawned", "run-started", "run-ended"]
ALONE = """\
mkdir "$JRUN_TASK_FOLDER/busy" || echo two >>"$JRUN_TASK_FOLDER/ledger"
echo "$JRUN_ID" >>"$JRUN_TASK_FOLDER/ledger"; sleep 0.1
rmdir "$JRUN_TASK_FOLDER/busy"
"""


def check(root: TaskRoot) -> None:
    """All that must hold of a task that is done, whatever was killed on the way."""
    ledger = (root.folder / "ledger").read_text().split("\n")[:-1]
    assert "two" not in ledger, "two agents were at work at once"
    assert ledger == [attempt["run"] for attempt in root.tries], (
        "an attempt was lost, or made twice"
    )
    assert [attempt["exit_code"] for attempt in root.tries] == [5, 0, 0]
    assert [record["exit_code"] for record in root.try_records()] == [5, 0, 0]
    assert len(root.facts()) == 1
    assert root.loop_record["state"] == "done"
    assert root.error_lines() == []
    root.assert_settled()


def make(root: TaskRoot) -> None:
    root.agent(f"{COUNT} {ALONE} [ $n -lt 3 ] || {FINISH}; [ $n -gt 1 ] || exit 5")


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("point", LOOP_POINTS)
def test_a_loop_that_is_killed_at_any_point_goes_on_where_it_stood(
    tasks_root: TaskRoot, point: str, count: int
) -> None:
    make(tasks_root)
    fault = {"CONDUCTOR_FAULT": f"kill:{point}:{count}", "CONDUCTOR_FAULT_IN": "loop"}

    killed = tasks_root.loop(env=fault)

    assert killed.returncode in (0, -signal.SIGKILL), killed.stdout + killed.stderr
    assert killed.returncode or count > 1, "the point was never reached"
    done = tasks_root.loop()
    assert done.returncode == 0, done.stdout + done.stderr
    check(tasks_root)


@pytest.mark.parametrize("point", ["loop-settled", "loop-spawned", "bus-written"])
def test_a_loop_that_is_killed_again_and_again_comes_to_its_end(
    tasks_root: TaskRoot, point: str
) -> None:
    make(tasks_root)
    fault = {"CONDUCTOR_FAULT": f"kill:{point}:2", "CONDUCTOR_FAULT_IN": "loop"}
    for _ in range(30):
        if tasks_root.loop(env=fault).returncode == 0:
            break
    assert tasks_root.loop().returncode == 0
    check(tasks_root)


@pytest.mark.parametrize("point", SUPERVISOR_POINTS)
def test_so_it_does_when_the_supervisors_are_killed_with_it(
    tasks_root: TaskRoot, point: str
) -> None:
    make(tasks_root)
    once = tasks_root.path / "once"
    fault = {
        "CONDUCTOR_FAULT": f"kill:{point}",
        "CONDUCTOR_FAULT_IN": "supervisor",
        "CONDUCTOR_FAULT_ONCE": str(once),
    }
    loop = tasks_root.begin(env=fault)
    wait_until(once.exists, what="the death of a supervisor")
    loop.kill()
    loop.wait()

    done = tasks_root.loop()
    assert done.returncode == 0, done.stdout + done.stderr
    check(tasks_root)


@pytest.mark.parametrize("point", ["loop-declared", "bus-written:5"])
def test_one_that_fails_says_so_once(tasks_root: TaskRoot, point: str) -> None:
    tasks_root.agent("exit 1")
    fault = {"CONDUCTOR_FAULT": f"kill:{point}", "CONDUCTOR_FAULT_IN": "loop"}
    assert tasks_root.loop("--max-restarts", "2", env=fault).returncode == -signal.SIGKILL
    assert tasks_root.loop("--max-restarts", "2").returncode == 1
    assert len(tasks_root.error_lines()) == 1
    assert len(tasks_root.tries) == 2


def test_one_that_is_killed_while_it_reopens_a_task_can_reopen_it(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f"{COUNT} {FINISH}")
    assert tasks_root.loop().returncode == 0
    fault = {"CONDUCTOR_FAULT": "kill:loop-reopened", "CONDUCTOR_FAULT_IN": "loop"}
    assert tasks_root.run("--resume", env=fault).returncode == -signal.SIGKILL

    assert tasks_root.run("--resume").returncode == 0

    assert (tasks_root.folder / "count").read_text() == "2\n"
