"""The state file: what is saved is read back, and nothing half is ever taken for whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from lib import state
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
    plan_state.save()
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
    plan_state.save()

    [why] = {read.why for read in [state.read(plan_state.path)["a"]]}
    assert why == HOSTILE.replace("\udcff", "\ufffd")
    assert yaml.safe_load(Path(plan_state.path).read_text())["tasks"]["a"]["why"] == why


def test_a_plan_without_tasks_can_be_saved_and_read(tmp_path: Path) -> None:
    plan_state = saved(tmp_path)
    plan_state.tasks = {}
    plan_state.save()

    assert state.read(plan_state.path) == {}


def test_a_change_is_written_once_it_is_told_of(tmp_path: Path) -> None:
    plan_state = saved(tmp_path)
    entry = plan_state.tasks["b"]
    entry.state = "done"
    entry.changed()
    plan_state.save()

    assert state.read(plan_state.path)["b"].state == "done"


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
