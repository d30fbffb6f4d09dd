"""The state file: what is saved is read back, and nothing half is ever taken for whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import yaml

from lib import files, state
from lib.errors import UserError
from lib.state import PlanState, TaskState

HOSTILE = "a: b # c\n\u2028\t\x85\x00 'it' \"says\" 日本 \udcff {[}]"


def saved(runs_dir: Path) -> PlanState:
    """A state of two tasks, one with an attempt, on disk and not locked."""
    plan_state = PlanState(str(runs_dir), "p")
    plan_state.lock()
    plan_state.header = {"plan": "/some/where/plan.yaml", "plan_sha256": "0" * 64}
    entry = TaskState()
    entry.state, entry.why, entry.digest, entry.prompt_sha256 = "failed", "it broke", "d", "s"
    entry.attempts = [{"unit": "a", "run": "run_1", "exit_code": 3, "result": "failed"}]
    plan_state.tasks = {"a": entry, "b": TaskState()}
    plan_state.finish()
    plan_state.close()
    return plan_state


def as_data(tasks: dict[str, TaskState]) -> dict[str, tuple[object, ...]]:
    return {
        name: (entry.state, entry.why, entry.digest, entry.prompt_sha256, entry.attempts)
        for name, entry in tasks.items()
    }


def test_what_is_saved_is_read_back_by_us_and_by_pyyaml(tmp_path: Path) -> None:
    written = saved(tmp_path)

    again = PlanState(str(tmp_path), "p")
    again.load()

    assert as_data(again.tasks) == as_data(written.tasks)
    data = yaml.safe_load(Path(written.path).read_text())
    assert (data["version"], data["project"], data["complete"]) == (1, "p", True)
    assert data["plan"] == "/some/where/plan.yaml"
    assert data["tasks"]["a"]["attempts"] == written.tasks["a"].attempts


def test_hostile_text_comes_back_or_is_replaced_and_stays_readable(tmp_path: Path) -> None:
    plan_state = saved(tmp_path)
    entry = plan_state.tasks["a"]
    entry.why = HOSTILE
    entry.changed()
    plan_state.header["plan"] = f"/x/{HOSTILE}"
    plan_state.finish()

    [why] = {read.why for read in [state.read(plan_state.path)["a"]]}
    assert why == HOSTILE.replace("\udcff", "\ufffd")
    assert yaml.safe_load(Path(plan_state.path).read_text())["tasks"]["a"]["why"] == why


def test_a_plan_without_tasks_can_be_saved_and_read(tmp_path: Path) -> None:
    plan_state = saved(tmp_path)
    plan_state.tasks = {}
    plan_state.finish()

    assert state.read(plan_state.path) == {}


def test_a_large_state_is_read_like_a_small_one_also_when_a_person_has_edited_it(
    tmp_path: Path,
) -> None:
    plan_state = saved(tmp_path)
    entry = plan_state.tasks["a"]
    plan_state.tasks.update({f"task {n} {HOSTILE}": entry for n in range(1000)})
    plan_state.finish()
    path = Path(plan_state.path)
    wanted = as_data(state.read(str(path)))

    path.write_text(path.read_text().replace("tasks:\n", "# a remark\ntasks: # mine\n"))

    assert len(wanted) == 1002
    assert as_data(state.read(str(path))) == wanted
    path.write_text(path.read_text().replace("complete: true\n", ""))
    with pytest.raises(UserError, match="it is not whole"):
        state.read(str(path))


def test_a_change_is_written_once_it_is_told_of(tmp_path: Path) -> None:
    plan_state = saved(tmp_path)
    entry = plan_state.tasks["b"]
    entry.state = "done"
    entry.changed()
    plan_state.finish()

    assert state.read(plan_state.path)["b"].state == "done"


def started(runs_dir: Path) -> PlanState:
    """The state of a plan under way: locked, with a journal."""
    saved(runs_dir)
    plan_state = PlanState(str(runs_dir), "p")
    plan_state.lock()
    plan_state.load()
    plan_state.replace()
    return plan_state


def change(plan_state: PlanState, name: str, where: str) -> None:
    entry = plan_state.tasks.setdefault(name, TaskState())
    entry.state, entry.until = where, "2026-01-02T03:04:05Z"
    entry.changed()


def test_a_change_is_one_line_of_the_journal_and_part_of_what_is_read(tmp_path: Path) -> None:
    plan_state = started(tmp_path)
    yaml_before = Path(plan_state.path).read_bytes()
    change(plan_state, "b", "done")
    change(plan_state, "new one", "running")
    plan_state.header["closing"] = HOSTILE

    plan_state.save(["b", "new one"])

    assert Path(plan_state.path).read_bytes() == yaml_before
    assert Path(plan_state.journal_path).read_bytes().count(b"\n") == 4  # its number, and ours
    again = PlanState(str(tmp_path), "p")
    again.load()
    assert as_data(again.tasks) == as_data(plan_state.tasks)
    assert again.tasks["new one"].until == "2026-01-02T03:04:05Z"
    assert again.header == {**plan_state.header, "closing": HOSTILE.replace("\udcff", "\ufffd")}
    plan_state.close()


def test_at_rest_the_yaml_says_everything_and_there_is_no_journal(tmp_path: Path) -> None:
    plan_state = started(tmp_path)
    change(plan_state, "b", "done")
    plan_state.save(["b"])

    plan_state.settle()
    settled = yaml.safe_load(Path(plan_state.path).read_text())
    plan_state.finish()
    plan_state.close()

    assert settled["tasks"]["b"]["state"] == "done"
    assert yaml.safe_load(Path(plan_state.path).read_text())["tasks"] == settled["tasks"]
    assert not Path(plan_state.journal_path).exists()


def test_a_line_that_was_cut_off_is_no_entry_and_all_before_it_are(tmp_path: Path) -> None:
    plan_state = started(tmp_path)
    change(plan_state, "a", "done")
    plan_state.save(["a"])
    journal = Path(plan_state.journal_path)
    first = journal.stat().st_size
    change(plan_state, "b", "done")
    plan_state.save(["b"])
    plan_state.close()
    whole = journal.read_bytes()

    for size in range(first, len(whole)):
        journal.write_bytes(whole[:size])
        tasks = state.read(plan_state.path)
        assert (tasks["a"].state, tasks["b"].state) == ("done", "pending"), size
    journal.write_bytes(whole[:first] + b"\0" * (len(whole) - first - 1) + b"\n")
    assert state.read(plan_state.path)["b"].state == "pending"


def test_a_journal_that_the_yaml_has_taken_in_changes_nothing_any_more(tmp_path: Path) -> None:
    plan_state = started(tmp_path)
    change(plan_state, "a", "running")
    plan_state.save(["a"])
    old = Path(plan_state.journal_path).read_bytes()
    change(plan_state, "a", "done")
    plan_state.save(["a"])

    plan_state.replace()
    Path(plan_state.journal_path).write_bytes(old)  # as if killed before it was begun anew
    plan_state.close()

    assert state.read(plan_state.path)["a"].state == "done"


def test_a_journal_with_a_hole_is_refused_with_file_line_and_cure(tmp_path: Path) -> None:
    plan_state = started(tmp_path)
    for where in ("running", "done"):
        change(plan_state, "a", where)
        plan_state.save(["a"])
    plan_state.close()
    journal = Path(plan_state.journal_path)
    lines = journal.read_text().split("\n")
    lines[1] = lines[1][:20]
    journal.write_text("\n".join(lines))

    with pytest.raises(UserError, match=r"journal:2: .*--fresh"):
        state.read(plan_state.path)


def test_a_save_that_the_disk_refuses_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_state = started(tmp_path)
    change(plan_state, "a", "done")

    def full(fd: int, data: bytes) -> None:
        os.write(fd, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(OSError, match="No space"):
        plan_state.save(["a"])
    with pytest.raises(OSError, match="No space"):
        plan_state.replace()
    monkeypatch.undo()
    plan_state.save(["a"])
    change(plan_state, "b", "done")
    plan_state.save(["b"])
    plan_state.close()

    tasks = state.read(plan_state.path)
    assert (tasks["a"].state, tasks["b"].state) == ("done", "done")


def test_a_reader_sees_every_acknowledged_change_while_the_files_are_replaced(
    tmp_path: Path,
) -> None:
    plan_state = started(tmp_path)
    plan_state.tasks["a"].why = "0"
    plan_state.tasks["a"].changed()
    plan_state.replace()
    acknowledged = [0]
    over = threading.Event()
    seen: list[tuple[int, int]] = []

    def read() -> None:
        while not over.is_set():
            floor = acknowledged[0]
            seen.append((floor, int(state.read(plan_state.path)["a"].why)))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 400):
        plan_state.tasks["a"].why = str(number)
        plan_state.tasks["a"].changed()
        plan_state.save(["a"])
        acknowledged[0] = number
        if number % 3 == 0:
            plan_state.settle()
    over.set()
    reader.join()
    plan_state.close()

    assert seen
    assert [pair for pair in seen if pair[1] < pair[0]] == []


def test_a_state_that_is_cut_anywhere_is_refused_with_file_and_cure(tmp_path: Path) -> None:
    path = Path(saved(tmp_path).path)
    whole = path.read_bytes()

    for size in range(len(whole) - 1):  # without its last newline it is still whole
        path.write_bytes(whole[:size])
        plan_state = PlanState(str(tmp_path), "p")
        with pytest.raises(UserError) as caught:
            plan_state.load()
        message = str(caught.value)
        assert str(path) in message, size
        assert "--fresh" in message
        assert "\n" not in message
        assert path.read_bytes() == whole[:size]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00garbage",
        b"tasks: 3\ncomplete: true\n",
        b"tasks: [a]\ncomplete: true\n",
        b"- a\n",
        b"complete: true\n",
        b"tasks: {}\ncomplete: 1\n",
        b"tasks: {a: [}\ncomplete: true\n",
    ],
)
def test_anything_else_under_its_name_is_refused(tmp_path: Path, content: bytes) -> None:
    path = Path(saved(tmp_path).path)
    path.write_bytes(content)

    with pytest.raises(UserError, match="--fresh"):
        state.read(str(path))


def test_entries_of_another_version_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    path = Path(saved(tmp_path).path)
    path.write_text(
        'tasks:\n  a: {"attempts": [1, {"run": "r", "new": 2}]}\n  b: 3\ncomplete: true\n'
    )

    tasks = state.read(str(path))

    assert tasks["a"].attempts == [{"run": "r", "new": 2}]
    assert (tasks["a"].state, tasks["b"].state) == ("pending", "pending")


def test_a_plan_that_is_held_names_its_holder(tmp_path: Path) -> None:
    first = PlanState(str(tmp_path), "p")
    first.lock()
    second = PlanState(str(tmp_path), "p")

    with pytest.raises(UserError, match=f"project p is already run by pid {os.getpid()}"):
        second.lock()
    first.close()
    second.lock()
    second.close()


def test_taking_the_lock_removes_what_a_killed_save_left(tmp_path: Path) -> None:
    folder = Path(saved(tmp_path).folder)
    left = folder / ".PLAN-STATE.yaml.12345.tmp"
    left.write_text("half")

    plan_state = PlanState(str(tmp_path), "p")
    plan_state.lock()
    plan_state.close()

    assert not left.exists()


def test_every_state_set_aside_is_kept(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):  # all within one second
        names.add(saved(tmp_path).set_aside())

    assert len(names) == 3
    assert all(name and Path(name).exists() for name in names)
    assert PlanState(str(tmp_path), "p").set_aside() is None
