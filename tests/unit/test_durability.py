"""The power fails at every moment: what was promised is there, and nothing half is taken for whole."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from lib import bus, files, output, recovery, runs, state, supervisor
from lib.state import PlanState
from tests.power_cut import Disk

# -- one file


def test_a_file_is_the_old_one_or_the_new_one_and_the_new_one_once_it_was_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    disk = Disk(monkeypatch, tmp_path)

    files.replace_file(str(path), b"new")
    disk.promise("new")

    for cut in disk.each():
        allowed = (b"new",) if cut.promised else (b"old", b"new")
        assert cut.tree[path] in allowed, cut.after


def test_without_a_promise_a_file_is_whole_all_the_same_for_who_only_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    disk = Disk(monkeypatch, tmp_path)
    seen: list[bytes] = []
    real = os.write

    def write(fd: int, data: bytes) -> int:
        count = real(fd, data)
        seen.append(path.read_bytes())
        return count

    monkeypatch.setattr(os, "write", write)
    files.replace_file(str(path), b"new", durable=False)

    assert seen == [b"old"]
    assert not [call for call in disk.calls if call.startswith("sync")]
    assert disk.calls[-1].endswith(" file")
    assert disk.calls[-1].startswith("rename .file.")


@pytest.mark.parametrize("refused", [False, True])
def test_where_the_system_can_flush_the_drive_too_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    asked: list[object] = []

    def control(_fd: int, what: int) -> int:
        asked.append(what)
        if refused:
            raise OSError(errno.ENOTSUP, "Operation not supported")
        return 0

    monkeypatch.setattr(files, "_F_FULLFSYNC", 51)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda _fd: asked.append("fsync"))
    files.sync_folder(str(tmp_path))

    assert asked == ([51, "fsync"] if refused else [51])


# -- the bus


def test_a_message_whose_id_was_returned_survives_and_before_that_nothing_of_it_harms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "MESSAGE-BUS.md"
    disk = Disk(monkeypatch, tmp_path)
    promised: tuple[str, ...] = ()
    for body in ("the first makes the file", "the second"):
        bus.append(str(path), body=body)
        promised += (body,)
        disk.promise(promised)
    monkeypatch.undo()

    for number, cut in enumerate(disk.each()):
        folder = cut.restore(tmp_path, tmp_path / "cuts" / str(number))
        there = folder / path.name
        bus.append(str(there), body="after it")
        bodies = [message.body for message in bus.read(str(there))]
        assert bodies[-1] == "after it"
        assert tuple(bodies[: len(cut.promised or ())]) == (cut.promised or ()), cut.after


def test_a_message_is_one_write_and_the_lock_is_free_while_the_disk_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "MESSAGE-BUS.md"
    bus.append(str(path), body="first")
    disk = Disk(monkeypatch, tmp_path)
    free: list[bool] = []
    real = files.sync

    def sync(fd: int) -> None:
        free.append(not files.is_locked(str(path)))
        real(fd)

    monkeypatch.setattr(files, "sync", sync)
    bus.append(str(path), body="x" * 300_000)

    assert disk.calls == ["write MESSAGE-BUS.md", "sync MESSAGE-BUS.md"]
    assert free == [True]


# -- the plan's state


def number_of(folder: Path) -> int:
    """How far a state got that counts in a task's `why`; -1 without one."""
    path = folder / state.STATE_NAME
    return int(state.read(str(path))["a"].why) if path.exists() else -1


def test_every_change_of_a_plan_that_was_saved_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_state = PlanState(str(tmp_path), "p")
    plan_state.lock()
    folder = tmp_path / "p"
    disk = Disk(monkeypatch, folder, ignored=(state.LOCK_NAME,))
    entry = plan_state.tasks["a"] = state.TaskState()

    def change(number: int) -> None:
        entry.why = str(number)
        entry.changed()

    change(0)
    plan_state.replace()
    disk.promise(0)
    for number in range(1, 7):
        change(number)
        plan_state.save(["a"])
        disk.promise(number)
        if number % 2 == 0:
            plan_state.settle()
            disk.promise(number)
    plan_state.finish()
    disk.promise(6)
    plan_state.close()
    monkeypatch.undo()

    for count, cut in enumerate(disk.each()):
        left = cut.restore(folder, tmp_path / "cuts" / str(count))
        least = -1 if cut.promised is None else cut.promised
        assert least <= number_of(left) <= 6, cut.after


def test_a_state_that_is_set_aside_leaves_no_journal_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_state = PlanState(str(tmp_path), "p")
    plan_state.lock()
    plan_state.tasks["a"] = state.TaskState()
    plan_state.replace()
    disk = Disk(monkeypatch, tmp_path / "p", ignored=(state.LOCK_NAME,))

    aside = plan_state.set_aside()

    assert aside is not None
    plan_state.close()
    assert disk.calls[-2:] == [
        f"unlink {state.JOURNAL_NAME}", f"rename {state.STATE_NAME} {os.path.basename(aside)}",
    ]  # fmt: skip


def test_what_is_saved_after_a_journal_could_not_be_begun_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_state = PlanState(str(tmp_path), "p")
    plan_state.lock()
    entry = plan_state.tasks["a"] = state.TaskState()
    entry.why = "0"
    plan_state.replace()
    real = files.write_all

    def full(fd: int, data: bytes) -> None:
        if fd == plan_state._journal:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd, data)

    with monkeypatch.context() as context:
        context.setattr(files, "write_all", full)
        with pytest.raises(OSError, match="No space"):
            plan_state.replace()
    entry.why = "1"
    entry.changed()
    plan_state.save(["a"])

    assert number_of(tmp_path / "p") == 1
    plan_state.close()


def test_a_reader_that_looks_while_yaml_and_journal_are_replaced_takes_both_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_state = PlanState(str(tmp_path), "p")
    plan_state.lock()
    entry = plan_state.tasks["a"] = state.TaskState()
    entry.why = "0"
    plan_state.replace()
    entry.why = "1"
    entry.changed()
    plan_state.save(["a"])
    real = state._read_journal
    moments = [plan_state.replace]

    def read_journal(path: str) -> tuple[int, list[dict[str, object]]]:
        if moments:
            moments.pop()()  # the YAML has been read, and the journal not yet
        return real(path)

    monkeypatch.setattr(state, "_read_journal", read_journal)
    assert number_of(tmp_path / "p") == 1
    plan_state.close()


# -- the end of a run


@pytest.mark.parametrize("writer", ["supervisor", "agent"])
def test_a_run_whose_end_is_told_has_its_record_and_its_answer_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    run, lock = runs.allocate(str(tmp_path / "runs"))
    run.record = {"run_id": run.run_id, "task_id": "t", "status": "running", "agent": "shell"}
    run.record["bus"] = str(tmp_path / "MESSAGE-BUS.md")
    runs.write_record(run)
    folder = Path(run.path)
    disk = Disk(monkeypatch, tmp_path, folder, tmp_path / "runs" / runs.ACTIVE,
                ignored=(runs.LOCK, runs.CWD))  # fmt: skip
    watch = supervisor.Supervisor(run, lock, stop_run=recovery.stop)
    if writer == "agent":
        fd = os.open(run.file(runs.OUTPUT), os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, b"the answer\n")
        os.close(fd)

    output.write(run, "the answer")
    watch._record_end(0, runs.COMPLETED, "")
    disk.promise(True)
    watch._close_files()
    monkeypatch.undo()

    mark = tmp_path / "runs" / runs.ACTIVE / run.run_id
    for number, cut in enumerate(disk.each()):
        there = cut.restore(tmp_path, tmp_path / "cuts" / str(number))
        left = runs.read(str(there / folder.relative_to(tmp_path)))
        is_final = left.text("status") == runs.COMPLETED
        assert is_final or left.text("status") == runs.RUNNING, (cut.after, left.problem)
        told = b"RUN_STOP" in cut.tree.get(tmp_path / "MESSAGE-BUS.md", b"")
        if cut.promised or told or mark not in cut.tree:
            assert is_final, cut.after
        if is_final:
            assert cut.tree[folder / runs.OUTPUT] == b"the answer\n", cut.after


def test_what_leads_a_repair_to_a_run_is_taken_away_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lock = runs.allocate(str(tmp_path))
    for name in (runs.PID, runs.EXIT_CODE, ".run-info.yaml.1.tmp"):
        (Path(run.path) / name).touch()
    os.close(lock)
    disk = Disk(monkeypatch, Path(run.path), tmp_path / runs.ACTIVE)

    assert recovery.repair(run.path) is True

    record = max(n for n, call in enumerate(disk.calls) if call.startswith("rename "))
    gone = [call for call in disk.calls[record:] if call.startswith("unlink ")]
    assert set(gone[:-2]) == {f"unlink {name}" for name in (runs.PID, runs.EXIT_CODE)} | {
        "unlink .run-info.yaml.1.tmp"
    }
    assert gone[-2:] == [f"unlink {runs.LOCK}", f"unlink {run.run_id}"]


@pytest.mark.parametrize("first", ["output", "record"])
def test_an_end_that_a_full_disk_refuses_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    run, lock = runs.allocate(str(tmp_path))
    run.record = {"run_id": run.run_id, "status": "running"}
    refused = [runs.OUTPUT if first == "output" else runs.RECORD]
    real = os.open

    def full(path: str, flags: int, *arguments: int) -> int:
        if flags & os.O_CREAT and any(name in str(path) for name in refused):
            refused.clear()
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *arguments)

    monkeypatch.setattr(os, "open", full)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    watch = supervisor.Supervisor(run, lock, stop_run=recovery.stop)
    watch.guard_status = 0

    watch._write_when_possible(0, runs.COMPLETED, "")

    watch._close_files()
    assert refused == []
    assert runs.read(run.path).text("status") == runs.COMPLETED
    assert (Path(run.path) / runs.OUTPUT).exists()
