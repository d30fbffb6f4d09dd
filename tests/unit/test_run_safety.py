"""Nothing is signalled, judged or repaired that is not surely the run's own: checks one by one."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib import files, ids, procs, recovery, runs, spawner, supervisor
from lib.commands import run_all_tasks
from lib.errors import UserError
from lib.scheduler import Scheduler
from lib.unit import Unit
from tests.helpers import wait_until
from tests.unit.test_runs import make_run

NAME = "run_20260101-120000-1"


@pytest.fixture(params=["native", "portable"])
def bystander(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session, and has nothing to do with any run."""
    if request.param == "portable":
        monkeypatch.setenv("CONDUCTOR_PORTABLE", "1")
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def is_untouched(process: subprocess.Popen[bytes]) -> bool:
    """Whether no signal has come to it: a stopped one would not show that it was signalled."""
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        return True
    return False


# -- who is signalled


def test_a_signal_reaches_no_successor_of_a_pid(bystander: subprocess.Popen[bytes]) -> None:
    row = procs.look_up(bystander.pid)
    assert row is not None
    earlier = procs.Process(row.pid, row.ppid, row.pgid, row.session, "another start", False)

    assert procs.send(earlier, procs.SIGTERM) is False

    assert is_untouched(bystander)
    assert procs.send(row, procs.SIGTERM) is True
    assert bystander.wait(20) < 0


def test_no_group_is_that_of_the_caller() -> None:
    assert procs.send_group(0, 0) is False  # signal 0 harms nobody
    assert procs.send_group(1, 0) is False


def test_a_supervisor_is_the_process_that_the_record_names_and_no_later_one(tmp_path: Path) -> None:
    me = os.getpid()
    named = {"supervisor_pid": me, "supervisor_start": procs.start_time(me)}
    found = supervisor.supervisor_of(str(make_run(tmp_path, NAME, **named)))
    assert found is not None
    assert found.pid == me

    named["supervisor_start"] = "another start"
    other = make_run(tmp_path, "run_20260101-120000-2", **named)
    assert supervisor.supervisor_of(str(other)) is None


def test_who_signals_a_supervisor_holds_the_folder_of_its_run_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bystander: subprocess.Popen[bytes]
) -> None:
    run = runs.read(str(make_run(tmp_path, NAME)))
    process = procs.look_up(bystander.pid)
    assert process is not None
    could_let_go: list[bool] = []

    def send(_process: procs.Process, _number: int) -> bool:
        folder = os.open(run.path, os.O_RDONLY)
        could_let_go.append(files.try_lock(folder))
        os.close(folder)
        return True

    monkeypatch.setattr(procs, "send", send)
    assert supervisor.signal_supervisor(run.path, process, procs.SIGTERM) is True

    assert set(could_let_go) == {False}


def lost(tmp_path: Path, bystander: subprocess.Popen[bytes]) -> supervisor.Supervisor:
    """The adopted supervisor of a run whose guard's number now is the bystander's."""
    fields = {"pid": 2**22 + 1, "agent_start": "1", "pgid": bystander.pid, "guard_start": "1"}
    run = runs.read(str(make_run(tmp_path, NAME, **fields)))
    return recovery.adopt(run, files.open_lock(run.file(runs.LOCK)))


def test_stopping_a_run_signals_no_group_that_has_its_number_by_now(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    watch = lost(tmp_path, bystander)

    watch.stop("stopped by a test", 143)

    assert is_untouched(bystander)
    watch._kill()
    assert is_untouched(bystander)
    watch._close_files()


def test_the_number_of_a_reaped_guard_is_the_runs_until_it_is_used_again(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    watch = lost(tmp_path, bystander)
    watch.guard_status = 0
    assert watch._group_is_ours() is False
    watch.run.record["pgid"] = 2**22 + 1
    assert watch._group_is_ours() is True
    watch._close_files()


def test_a_child_run_is_stopped_only_through_the_supervisor_that_was_noted(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    watch = lost(tmp_path, bystander)
    line = f"{bystander.pid}\tanother start\t{tmp_path}\n"
    (tmp_path / NAME / runs.CHILDREN).write_text(line)

    watch._signal_children(0)

    assert is_untouched(bystander)
    assert runs.child_supervisors(watch.run) == set()
    watch._close_files()


class Told(supervisor.Supervisor):
    """A supervisor to which a signal has come."""

    def stop(self, reason: str, code: int, error_class: str = "") -> None:
        self.stop_reason, self.stop_code, self.stop_class = reason, code, error_class


def test_a_run_that_is_stopped_at_the_last_moment_before_its_agent_has_none(
    tmp_path: Path,
) -> None:
    watch = Told(runs.Run(str(tmp_path), {}), -1, stop_run=recovery.stop)
    watch._signals = SimpleNamespace(take=lambda: [procs.SIGTERM])  # type: ignore[assignment]
    word_end, watch.word = os.pipe()

    watch.let_start()

    assert os.read(word_end, 1) == b""  # its end: the guard gives up
    assert watch.stop_reason == "stopped by SIGTERM"
    os.close(word_end)


# -- the folder


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_taken_name_is_left_with_its_mark_and_the_next_second_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_ended: bool
) -> None:
    moments = [1_767_268_800.0]
    monkeypatch.setattr(time, "time", lambda: moments[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: moments.append(moments.pop() + seconds))
    first, lock = runs.allocate(str(tmp_path), "same")
    os.close(lock)
    if has_ended:
        assert recovery.repair(first.path) is True
    second, lock = runs.allocate(str(tmp_path), "same")
    os.close(lock)

    assert second.run_id.startswith("run_20260101-120001-")
    assert (first.run_id in runs.marked(str(tmp_path))) is not has_ended


def test_a_mark_that_was_removed_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.lock
    marks = tmp_path / runs.ACTIVE

    def lock(fd: int, *arguments: object) -> None:
        if removed:
            (marks / removed.pop()).unlink()  # a repair found no folder for it
        real(fd, *arguments)  # type: ignore[arg-type]

    removed = [ids.run_name(1_767_268_800.0, os.getpid(), "")]
    monkeypatch.setattr(time, "time", lambda: 1_767_268_800.0)
    monkeypatch.setattr(files, "lock", lock)
    run, fd = runs.allocate(str(tmp_path))

    assert removed == []
    assert runs.marked(str(tmp_path)) == [run.run_id]
    os.close(fd)


def test_a_run_is_locked_from_its_first_moment(tmp_path: Path) -> None:
    _, lock = runs.allocate(str(tmp_path))
    [name] = runs.marked(str(tmp_path))
    assert files.is_locked(str(tmp_path / name / runs.LOCK))
    assert os.get_inheritable(lock) is False
    os.close(lock)


# -- reading


def test_a_run_that_ends_between_two_looks_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(tmp_path, NAME, pid=2**22 + 1, agent_start="1")
    run = runs.read(str(path))

    def is_held(_run: runs.Run) -> bool:
        ended = {**run.record, "status": "completed", "exit_code": 0, "end_time": ids.rfc3339()}
        runs.write_record(runs.Run(str(path), ended))
        return False

    monkeypatch.setattr(runs, "is_held", is_held)
    state = runs.state(run)

    assert (state.status, state.exit_code, state.ended_unrecorded) == (runs.COMPLETED, 0, False)


@pytest.mark.parametrize("key", ["host", "pid_namespace"])
def test_pids_of_another_place_are_not_looked_up_in_this_one(tmp_path: Path, key: str) -> None:
    me, start = os.getpid(), procs.start_time(os.getpid())
    alive = {"pid": me, "agent_start": start, "pgid": me, "guard_start": start}
    here = runs.read(str(make_run(tmp_path, NAME, **alive)))
    assert (runs.agent_lives(here), runs.guard_lives(here)) == (True, True)

    there = runs.Run(here.path, {**here.record, key: "elsewhere"})

    assert (runs.agent_lives(there), runs.guard_lives(there)) == (False, False)


def test_without_a_start_time_a_pid_is_the_agents_by_its_environment_alone(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    stranger = runs.read(str(make_run(tmp_path, NAME, pid=bystander.pid)))
    assert runs.agent_lives(stranger) is False

    agent = subprocess.Popen(["sleep", "600"], env={**os.environ, "JRUN_ID": NAME})
    try:
        own = runs.Run(stranger.path, {**stranger.record, "pid": agent.pid})
        wait_until(lambda: runs.agent_lives(own), what="the agent to be known by its run")
    finally:
        agent.kill()
        agent.wait()


def test_a_record_that_cannot_be_read_is_left_to_a_person(tmp_path: Path) -> None:
    path = make_run(tmp_path, NAME)
    (path / runs.RECORD).write_bytes(b"status: [unclosed")

    assert recovery.repair(str(path)) is False

    assert (path / runs.RECORD).read_bytes() == b"status: [unclosed"


# -- repairing


def test_a_held_run_is_not_repaired(tmp_path: Path) -> None:
    run, lock = runs.allocate(str(tmp_path))

    assert recovery.repair(run.path) is False

    assert os.listdir(run.path) == [runs.LOCK]
    os.close(lock)
    assert recovery.repair(run.path) is True


def test_a_run_whose_guard_has_yet_to_leave_the_code_is_neither_judged_nor_repaired(
    tmp_path: Path,
) -> None:
    me = os.getpid()
    guard = {"pgid": me, "guard_start": procs.start_time(me)}
    path = make_run(tmp_path, NAME, pid=2**22 + 1, agent_start="1", **guard)
    (path / runs.PID).write_text(f"{2**22 + 1}\n")

    state = runs.state(runs.read(str(path)))

    assert (state.status, state.holder) == (runs.RUNNING, "agent")
    assert recovery.repair(str(path)) is False
    assert runs.read(str(path)).text("status") == runs.RUNNING


@pytest.mark.parametrize("key", ["host", "pid_namespace"])
def test_a_run_of_another_place_is_neither_repaired_nor_stopped(tmp_path: Path, key: str) -> None:
    path = make_run(tmp_path, NAME, pid=2**22 + 1, agent_start="1", **{key: "elsewhere"})
    before = (path / runs.RECORD).read_bytes()

    assert recovery.repair(str(path)) is False
    with pytest.raises(UserError, match="cannot be stopped from here"):
        recovery.stop(str(path))

    assert (path / runs.RECORD).read_bytes() == before


def test_who_waited_for_the_lock_of_a_run_that_ended_meanwhile_leaves_it(tmp_path: Path) -> None:
    path = make_run(tmp_path, NAME, status="completed", exit_code=0)
    before = (path / runs.RECORD).read_bytes()

    recovery._take_over(runs.Run(str(path), {"run_id": NAME, "status": "running"}))

    assert (path / runs.RECORD).read_bytes() == before


# -- a plan


def test_a_run_that_somebody_else_took_over_first_is_left_to_him(tmp_path: Path) -> None:
    path = make_run(tmp_path, NAME)
    lock = files.open_lock(str(path / runs.LOCK))
    assert files.try_lock(lock)
    unit = SimpleNamespace(path=str(path), held=False)
    orders: list[object] = []
    plan = SimpleNamespace(
        spawner=SimpleNamespace(start=lambda *order: orders.append(order)),
        _watch_run=lambda *_: None,
        _order=lambda *_, **__: {},
    )

    Scheduler._adopt(plan, unit)  # type: ignore[arg-type]

    assert (unit.held, orders) == (True, [])
    os.close(lock)


def test_an_attempt_that_could_not_be_saved_is_taken_back_and_gets_no_agent() -> None:
    unit = SimpleNamespace(name="a", agent="shell")
    attempt: dict[str, object] = {}
    done: list[str] = []
    plan = SimpleNamespace(
        ready={"a": unit},
        _may_start=lambda: True,
        _is_held=lambda: False,
        _startable=lambda: [unit],
        _note_attempt=lambda _unit: (-1, attempt),
        _agents=SimpleNamespace(started=lambda *_: None),
        _save=lambda: False,
        _take_back=lambda *_: done.append("taken back"),
        _spawn=lambda *_: done.append("spawned"),
    )

    Scheduler._start_ready(plan)  # type: ignore[arg-type]

    assert done == ["taken back"]


@pytest.mark.parametrize("token", ["", "another"])
def test_a_run_without_the_token_of_its_attempt_is_not_that_attempt(
    tmp_path: Path, token: str
) -> None:
    make_run(tmp_path, NAME, status="completed", exit_code=0, attempt_token=token)
    attempt: dict[str, object] = {"run": NAME, "token": "right", "result": "running"}
    attempts = [attempt]
    plan = SimpleNamespace(
        settings=SimpleNamespace(runs_dir=str(tmp_path)),
        board=SimpleNamespace(touch=lambda _task: None),
        _attempts=lambda _task: attempts,
    )
    unit: Unit = SimpleNamespace(  # type: ignore[assignment]
        task=SimpleNamespace(id="a"),
        continue_with=lambda _agent: pytest.fail("the run was taken for the attempt"),
    )

    Scheduler._recover_attempt(plan, unit, attempt)  # type: ignore[arg-type]

    assert attempts == []


def test_a_start_that_finds_another_one_under_way_waits_for_it(tmp_path: Path) -> None:
    lock = str(tmp_path / run_all_tasks.START_LOCK_NAME)
    with run_all_tasks._one_start_at_a_time(str(tmp_path)):
        assert files.is_locked(lock)
    assert not files.is_locked(lock)


def test_an_order_that_was_cut_off_is_none() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall((100).to_bytes(8, "big") + b"half of it")
        assert spawner._receive(theirs, 1) == (None, [])
