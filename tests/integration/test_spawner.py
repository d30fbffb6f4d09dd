"""Supervisors of a plan's runs: one process may hold one run after the other, never two."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import files, procs, runs, supervisor
from lib.runner import Request
from lib.spawner import RUNS_EACH, Spawner
from tests.agent_runs import Gate, check_settled, end_processes, is_alive, kill
from tests.agent_runs import Place as RunPlace
from tests.helpers import ROOT, wait_until


class Place:
    """Runs that are started through a spawner, as a plan starts them."""

    def __init__(self, folder: Path) -> None:
        self.runs = RunPlace(folder)
        self.spawner = Spawner(str(ROOT))
        self.runs.runs_dir.mkdir()
        self.started = 0

    def start(self, script: str, **settings: object) -> tuple[runs.Run, int]:
        """A run of that script, and the descriptor that tells of its end."""
        self.started += 1
        run, lock = runs.allocate(str(self.runs.runs_dir), f"task-{self.started}")
        request = Request(
            agent="shell",
            cwd=str(self.runs.cwd),
            prompt=f"```sh\n{script}\n```\n".encode(),
            bus=str(self.runs.bus),
            **settings,
        )
        pid_file = f"{self.runs.runs_dir}/task-{self.started}.pid"
        order: dict[str, object] = {
            "request": request.as_dict(),
            "pid_file": pid_file,
            "tokens": [],
        }
        return run, self.spawner.start(run.path, lock, order)

    def end(self, run: runs.Run, told: int) -> runs.Run:
        """The run once its supervisor is done with it."""
        wait_for_end(told)
        return check_settled(self.runs, run.path)

    def supervisor(self, script: str = ":", **settings: object) -> int:
        """The process that held a run of that script, which has ended."""
        run = self.end(*self.start(script, **settings))
        assert run.text("status") == "completed", run.record
        return run.number("supervisor_pid")

    def close(self) -> None:
        self.spawner.close()
        self.runs.close()


def wait_for_end(told: int) -> None:
    assert select.select([told], [], [], 30)[0], "the end of the run"
    assert os.read(told, 1) == b""
    os.close(told)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in list(os.environ):
        if name.startswith(("JRUN_", "CONDUCTOR_")):
            monkeypatch.delenv(name)
    place = Place(tmp_path)
    yield place
    place.close()


def test_one_process_supervises_runs_that_follow_each_other(place: Place) -> None:
    first = place.supervisor("echo one")
    assert [place.supervisor("echo next") for _ in range(3)] == [first] * 3
    assert is_alive(first)
    place.spawner.close()
    wait_until(lambda: not is_alive(first), what="the end of a supervisor without an orchestrator")


def test_runs_at_the_same_time_have_supervisors_of_their_own(place: Place) -> None:
    gate = Gate(place.runs.cwd / "gate")
    begun = [place.start(f"read -r _ <'{gate.path}'") for _ in range(2)]
    gate.open(2)
    ended = [place.end(*each) for each in begun]
    gate.close()
    assert len({run.number("supervisor_pid") for run in ended}) == 2


def test_a_supervisor_that_was_killed_while_it_waited_costs_nothing(place: Place) -> None:
    first = place.supervisor()
    kill(first)
    wait_until(lambda: not is_alive(first), what="its end")
    assert place.supervisor("echo on") != first


def test_what_a_run_leaves_running_stays_with_its_own_supervisor(place: Place) -> None:
    run, told = place.start("sleep 600 >/dev/null 2>&1 &", keep_background=True)
    wait_for_end(told)
    first = runs.read(run.path).number("supervisor_pid")
    try:
        assert place.supervisor() != first
    finally:
        end_processes(run.run_id)


def test_a_supervisor_makes_room_for_a_fresh_one_in_the_end(place: Place) -> None:
    pids = [place.supervisor() for _ in range(RUNS_EACH + 1)]
    assert len(set(pids[:-1])) == 1
    assert pids[-1] != pids[0]


def test_a_supervisor_takes_no_other_run_while_one_is_about_to_signal_it(place: Place) -> None:
    gate = Gate(place.runs.cwd / "gate")
    run, told = place.start(f"read -r _ <'{gate.path}'")
    folder = os.open(run.path, os.O_RDONLY)
    assert files.try_lock(folder, shared=True)  # as signal_supervisor holds it
    gate.open()
    pid = place.end(run, told).number("supervisor_pid")
    wait_until(lambda: not is_alive(pid), what="the end of the supervisor")
    os.close(folder)
    gate.close()
    assert place.supervisor() != pid


def test_no_signal_for_a_run_that_has_ended_reaches_its_supervisor(place: Place) -> None:
    run = place.end(*place.start(":"))
    process = supervisor.supervisor_of(run.path)
    assert process is not None
    assert not supervisor.signal_supervisor(run.path, process, signal.SIGKILL)
    assert place.supervisor() == process.pid


def test_the_runs_of_one_supervisor_know_nothing_of_each_other(place: Place) -> None:
    first = place.supervisor("exit 0", env={"ONLY_FIRST": "1"}, timeout=60)
    run = place.end(*place.start('echo "${ONLY_FIRST-unset}"; exit 3'))
    assert run.number("supervisor_pid") == first
    assert (run.number("exit_code"), run.text("timeout")) == (3, "")
    assert Path(run.file(runs.OUTPUT)).read_text() == "unset\n"
    assert procs.look_up(first) is not None
