"""bin/watch-tasks: it waits for the end of tasks, whoever works on them, and says how it came."""

from __future__ import annotations

import json
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.helpers import PYTHON, ROOT, clean_environment, run_script, wait_until
from tests.plan_root import PlanRoot, sh
from tests.stored_root import RUNNING, StoredRoot, held, snapshot, write_record
from tests.task_root import FINISH, TaskRoot, kill_loop

SAMPLE = ROOT / "tests" / "data" / "storage" / "go-storage-sample.tar.gz"
Event = dict[str, object]


class Watch:
    """A watch-tasks --json at work."""

    def __init__(self, root: Path, *arguments: str, interval: str = "0.05") -> None:
        script = [*PYTHON, str(ROOT / "bin" / "watch-tasks")]
        self.process = subprocess.Popen(
            [*script, *arguments, "--json", "--interval", interval, "--root", str(root)],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until(self, task: str, status: str) -> Event:
        """The event by which that task got that status."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            event: Event = json.loads(line)
            if (event["task"], event["status"]) == (task, status):
                return event
        raise AssertionError(f"{task} never was {status}: {self.process.communicate()}")

    def end(self) -> tuple[int, list[Event]]:
        """Exit code, and the events that nobody has read yet."""
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()]


def watch(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_script("bin/watch-tasks", *arguments, "--interval", "0.05", "--root", root)


@pytest.fixture
def store(tmp_path: Path) -> StoredRoot:
    return StoredRoot(tmp_path / "root")


def test_tasks_of_a_plan_are_followed_to_their_ends(root: PlanRoot) -> None:
    root.plan(
        sh("a", "while [ ! -e go ]; do sleep 0.02; done"),
        sh("b", "true", depends_on=["a"]),
    )
    plan = root.start()
    wait_until(root.state_file.exists, what="the plan's state")
    with Watch(root.path, "--project", "p", "a", "b") as watching:
        assert watching.until("a", "running")["ended"] is False
        (root.work / "go").touch()
        done = watching.until("a", "done")
        assert (done["before"], done["ended"], done["ok"]) == ("running", True, True)
        assert watching.until("b", "done")["ok"] is True
        assert watching.end() == (0, [])
    assert plan.wait(60) == 0


def test_one_that_failed_and_what_that_blocked_have_ended_badly(root: PlanRoot) -> None:
    root.plan(sh("good", "true"), sh("bad", "exit 3"), sh("after", "true", depends_on=["bad"]))
    root.run("--keep-going")
    before = snapshot(root.runs)
    done = watch(root.path, "--project", "p", "good", "bad", "after")
    assert snapshot(root.runs) == before
    assert (done.returncode, done.stderr) == (1, "")
    told = {line.split()[1]: line for line in done.stdout.split("\n")[:-1]}
    assert " done ended well" in told["good"]
    assert " failed ended badly" in told["bad"]
    assert " blocked ended badly" in told["after"]
    assert watch(root.path, "--project", "p", "good").returncode == 0


def test_a_task_of_a_plan_that_nobody_runs_any_more_has_ended_badly(root: PlanRoot) -> None:
    root.plan(sh("a", "while [ ! -e go ]; do sleep 0.02; done"))
    plan = root.start()
    with_state = root.state_file
    wait_until(with_state.exists, what="the plan's state")
    with Watch(root.path, "--project", "p", "a") as watching:
        watching.until("a", "running")
        plan.send_signal(signal.SIGKILL)
        plan.wait()
        code, events = watching.end()
    assert code == 1
    assert [(event["ended"], event["ok"]) for event in events] == [(False, None), (True, False)]
    assert "nobody runs the plan" in str(events[-1]["why"])
    (root.work / "go").touch()


def test_a_loop_is_waited_for_over_all_its_attempts(tasks_root: TaskRoot) -> None:
    gate = tasks_root.gate()
    tasks_root.agent(f"read -r _ <'{gate.path}'; [ -e second ] && {FINISH}; touch second")
    loop = tasks_root.begin()
    wait_until((tasks_root.folder / "TASK-LOOP.yaml").exists, what="the loop's record")
    with Watch(tasks_root.path, "--project", "p", "t") as watching:
        watching.until("t", "running")
        gate.open()
        gate.open()
        assert watching.until("t", "done")["ok"] in (None, True)
        code, _ = watching.end()
    assert code == 0
    assert loop.wait(60) == 0
    assert len(tasks_root.tries) == 2


def test_a_loop_that_failed_has_ended_badly(tasks_root: TaskRoot) -> None:
    tasks_root.agent("exit 3")
    tasks_root.loop("--max-restarts", "1")
    done = watch(tasks_root.path, "--project", "p", "t")
    assert done.returncode == 1
    assert " failed ended badly" in done.stdout


def test_a_loop_that_was_killed_is_waited_for_while_its_agent_lives(tasks_root: TaskRoot) -> None:
    gate = tasks_root.gate()
    tasks_root.agent(f"touch begun; read -r _ <'{gate.path}'")
    loop = tasks_root.begin()
    wait_until((tasks_root.folder / "begun").exists, what="the agent")
    with Watch(tasks_root.path, "--project", "p", "t") as watching:
        watching.until("t", "running")
        kill_loop(loop)
        assert "its loop is gone" in str(watching.until("t", "running")["why"])
        gate.open()
        code, events = watching.end()
    assert code == 1
    assert (events[-1]["ended"], events[-1]["ok"]) == (True, False)


def test_the_timeout_names_what_has_not_ended(store: StoredRoot) -> None:
    store.task("blocked", depends_on=["never"])
    live = store.run(task_id="flat", **RUNNING)
    over = store.run(task_id="over")
    with held(live / ".lock"):
        done = watch(
            store.path, "--project", "demo", "flat", "blocked", "over", "--timeout", "0.2s"
        )
    assert done.returncode == 124
    assert done.stderr.count("\n") == 1
    assert "flat (running), blocked (blocked)" in done.stderr
    assert "over completed ended well" in done.stdout
    assert over.exists()


def test_flat_runs_and_folders_of_the_original_are_tasks_too(store: StoredRoot) -> None:
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(store.runs_dir, filter="data")
    before = snapshot(store.path)
    ids = [f"task-20260101-00000{n}" for n in ("1-smoke", "3-done", "4-nodone")]
    good = watch(store.path, "--project", "demo", *ids)
    bad = watch(store.path, "--project", "demo", ids[0], "task-20260101-000002-failing")
    assert (good.returncode, bad.returncode) == (0, 1)
    assert snapshot(store.path) == before


def test_a_loop_of_the_original_between_two_runs_has_not_ended(store: StoredRoot) -> None:
    task = store.task("loop")
    first = store.run(task, task_id="loop", **RUNNING)
    # Five looks without anybody at work would be its end: five seconds are enough for the test.
    with Watch(store.path, "--project", "demo", "loop", interval="1") as watching:
        with held(first / ".lock"):
            watching.until("loop", "running")
            write_record(first, task_id="loop")
        assert watching.until("loop", "completed")["ended"] is False
        second = store.run(task, task_id="loop", **RUNNING)
        with held(second / ".lock"):
            watching.until("loop", "running")
            write_record(second, task_id="loop")
            (task / "DONE").touch()
        assert watching.until("loop", "done")["ok"] is True
        assert watching.end() == (0, [])


def test_a_task_that_is_removed_has_ended_badly(store: StoredRoot) -> None:
    task = store.task("gone", depends_on=["never"])
    with Watch(store.path, "--project", "demo", "gone") as watching:
        watching.until("gone", "blocked")
        for path in task.iterdir():
            path.unlink()
        task.rmdir()
        code, [event] = watching.end()
    assert (code, event["status"], event["ok"]) == (1, "gone", False)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--project", "demo", "buidl"], 1, "no task buidl in project demo (did you mean build?)"),
        (["--project", "other", "build"], 1, "no task build in project other"),
        (["build"], 2, "name the project"),
        (["--project", "demo"], 2, "one TASK or more"),
        (["--project", "demo", "build", "--interval", "0"], 2, "--interval"),
    ],
)
def test_what_cannot_be_waited_for_is_said_at_once(
    store: StoredRoot, arguments: list[str], code: int, said: str
) -> None:
    store.run()
    done = run_script("bin/watch-tasks", *arguments, "--root", store.path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert said in done.stderr


def test_hostile_names_and_reasons_reach_no_terminal(store: StoredRoot) -> None:
    name = "bad\x1b[31m\nname"
    store.run(task_id=name, status="failed", exit_code=1, error_summary="why\x1b]0;x\x07")
    done = watch(store.path, "--project", "demo", name)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
