"""The index: right about what is there, cheap to keep current, and never a writer."""

from __future__ import annotations

import json
import os
import random
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lib import bus, ids, listing, runs
from lib.index import Index, TaskEntry
from lib.state import PlanState, TaskState
from tests.stored_root import (
    LONG_AGO,
    RUNNING,
    THIS_MACHINE,
    StoredRoot,
    held,
    snapshot,
    write_record,
)

SAMPLE = Path(__file__).parent.parent / "data" / "storage" / "go-storage-sample.tar.gz"


def index_of(root: StoredRoot, **options: float) -> Index:
    index = Index(str(root.runs_dir), **options)  # type: ignore[arg-type]
    index.refresh()
    return index


@pytest.fixture
def root(tmp_path: Path) -> StoredRoot:
    return StoredRoot(tmp_path / "root")


@contextmanager
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths of all files that are opened and folders that are listed meanwhile."""
    seen: list[str] = []
    really_open, really_list = os.open, os.scandir

    def note_open(path: str, *arguments: int, **options: int) -> int:
        seen.append(str(path))
        return really_open(path, *arguments, **options)

    def note_list(path: str) -> os.ScandirIterator[str]:  # type: ignore[name-defined]
        seen.append(str(path))
        return really_list(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", note_open)
        patch.setattr(os, "scandir", note_list)
        yield seen


def task_of(index: Index, task: str, project: str = "demo") -> TaskEntry:
    return index.tasks[project, task]


# -- what the original wrote


def unpack(folder: Path) -> Path:
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_a_root_of_the_original_is_listed_by_its_rules(tmp_path: Path) -> None:
    index = Index(str(unpack(tmp_path / "store")))
    index.refresh()
    shown = {
        key[1][18:]: (len(task.runs), task.status, task.done, task.blocked_by)
        for key, task in index.tasks.items()
    }
    assert shown == {
        "01-smoke": (3, "completed", False, []),
        "02-failing": (2, "failed", False, []),
        "03-done": (1, "completed", True, []),
        "04-nodone": (2, "completed", False, []),
        "10-slow": (2, "failed", False, []),  # its record says running, and nobody lives
        "11-dep": (1, "blocked", False, ["task-20260101-000010-slow"]),
        "12-quick": (1, "completed", True, []),
    }
    stale = task_of(index, "task-20260101-000010-slow", "web").runs[0]
    assert (stale.state.reason, listing.known_code(stale.state)) == (listing.PROCESS_GONE, None)
    failing = task_of(index, "task-20260101-000002-failing").runs
    assert [listing.known_code(entry.state) for entry in failing] == [1, 3]
    chain = task_of(index, "task-20260101-000004-nodone").runs
    assert chain[0].run.text("previous_run_id") == chain[1].run.run_id
    waiting = task_of(index, "task-20260101-000011-dep", "web").runs[0]
    assert (waiting.state.status, waiting.is_live) == (runs.UNKNOWN, False)
    assert (waiting.project, waiting.task) == ("web", "task-20260101-000011-dep")


def test_the_messages_of_the_original_are_all_there(tmp_path: Path) -> None:
    store = unpack(tmp_path / "store")
    index = Index(str(store))
    index.refresh()
    posted = {str(path): path.read_bytes().count(b"\nmsg_id: ") for path in store.rglob("*-BUS.md")}
    assert len(posted) == 9
    assert {path: len(entry.read()) for path, entry in index.buses.items() if entry.size} == posted
    newest = index.messages(3)
    assert [(m.type, m.body) for m in newest][-1] == ("RUN_START", newest[-1].body)
    assert [m.ts for m in newest] == sorted(m.ts for m in newest)


def test_not_one_byte_or_time_of_what_is_looked_at_changes(tmp_path: Path) -> None:
    store = unpack(tmp_path / "store")
    before = snapshot(store)
    index = Index(str(store))
    index.refresh()
    index.messages(100)
    assert sum(entry.stdout_size for entry in index.runs.values()) > 0
    index.refresh()
    assert snapshot(store) == before


def test_a_root_that_was_moved_is_read_where_it_lies_now(tmp_path: Path) -> None:
    old = unpack(tmp_path / "old" / "store")
    old.rename(tmp_path / "new")
    index = Index(str(tmp_path / "new"))
    index.refresh()
    quick = task_of(index, "task-20260101-000012-quick", "web")
    assert quick.runs[0].run.text("stdout_path").startswith("/home/u/run-store/")
    assert quick.runs[0].path.startswith(str(tmp_path / "new"))
    assert quick.runs[0].stdout_size == os.path.getsize(quick.runs[0].run.file(runs.STDOUT)) > 0
    assert quick.bus is not None
    assert quick.bus.path.startswith(str(tmp_path / "new"))


@pytest.mark.parametrize(
    ("recorded", "healed"),
    [
        ({**RUNNING, "pid": 2**22 + 5, "pgid": 2**22 + 5}, True),
        ({"status": "failed", "exit_code": -1, "pid": 7}, True),
        ({"status": "failed", "exit_code": 3, "pid": 7}, False),
    ],
    ids=["its process is gone", "killed by a signal", "it told why"],
)
def test_done_proves_what_no_exit_code_tells(
    root: StoredRoot, recorded: dict[str, Any], healed: bool
) -> None:
    task = root.task("loop")
    path = str(root.run(task, **recorded))
    index = index_of(root)
    assert index.runs[path].state.status == runs.FAILED

    (task / "DONE").touch()
    changes = index.refresh()
    state = index.runs[path].state
    assert (state.status, state.exit_code) == ((runs.COMPLETED, 0) if healed else ("failed", 3))
    assert (path in changes.runs) == healed
    assert ("demo", "loop") in changes.tasks
    assert listing.Row(runs.read(path)).state.status == state.status

    (task / "DONE").unlink()
    index.refresh()
    assert index.runs[path].state.status == runs.FAILED


def test_a_done_that_is_no_file_proves_nothing(root: StoredRoot) -> None:
    task = root.task("loop")
    (task / "DONE").mkdir()
    assert not task_of(index_of(root), "loop").done


# -- what a refresh costs


def many(root: StoredRoot) -> list[Path]:
    for n in range(8):
        task = root.task(f"task-{n}")
        for _ in range(3):
            root.run(task, task_id=f"task-{n}")
    return [root.run(task_id=f"flat-{n % 5}") for n in range(30)]


def test_where_nothing_changed_no_file_is_opened_and_no_folder_listed(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(root)
    index = index_of(root)
    assert (len(index.runs), len(index.tasks)) == (54, 13)
    with opened(monkeypatch) as seen:
        assert not index.refresh()
    assert seen == []


def test_a_new_run_costs_its_own_folder_and_nothing_else(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(root)
    index = index_of(root)
    task = root.runs_dir / "demo" / "task-3"
    path = str(root.run(task, task_id="task-3"))
    with opened(monkeypatch) as seen:
        changes = index.refresh()
    assert seen == [f"{task}/runs", f"{path}/{runs.RECORD}"]
    assert changes.runs == {path}
    assert changes.tasks == {("demo", "task-3")}
    assert not changes.plans | changes.buses
    assert task_of(index, "task-3").runs[0].path == path


def test_a_live_run_costs_its_lock_and_an_ended_one_nothing(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(root)
    live = root.run(**RUNNING, supervisor_pid=1, **THIS_MACHINE)
    with held(live / runs.LOCK):
        index = index_of(root)
        entry = index.runs[str(live)]
        assert [item.path for item in index.live()] == [str(live)]
        with opened(monkeypatch) as seen:
            assert not index.refresh()
        assert seen == [str(live / runs.LOCK)]

        (live / runs.STDOUT).write_text("something\n")
        assert index.refresh().runs == {str(live)}
        assert entry.stdout_size == 10
        assert entry.silent_seconds < 60

        write_record(live, **RUNNING, session_id="abc")
        assert index.refresh().runs == {str(live)}
        assert entry.run.text("session_id") == "abc"
    write_record(live, exit_code=4, status="failed", error_summary="so it goes")
    assert index.refresh().tasks == {("demo", "build")}
    assert (entry.state.status, entry.state.exit_code, entry.is_live) == ("failed", 4, False)
    assert (index.live(), entry.silent_seconds) == ([], 0)
    with opened(monkeypatch) as seen:
        assert not index.refresh()
    assert seen == []


def test_a_live_run_is_silent_since_its_last_output(root: StoredRoot) -> None:
    live = root.run(**RUNNING)
    (live / runs.STDOUT).write_text("x")
    then = os.stat(live / runs.STDOUT).st_mtime_ns - 500 * 10**9
    os.utime(live / runs.STDOUT, ns=(then, then))
    with held(live / runs.LOCK):
        assert 499 < index_of(root).runs[str(live)].silent_seconds < 600


def test_a_folder_that_changed_a_moment_ago_is_listed_once_more(root: StoredRoot) -> None:
    index = index_of(root)
    path = root.runs_dir / "run_20260101-120000-1"
    path.mkdir()
    stamp = os.stat(root.runs_dir).st_mtime_ns
    write_record(path)
    index.refresh()
    other = root.runs_dir / "run_20260101-120000-2"
    other.mkdir()
    write_record(other)
    os.utime(root.runs_dir, ns=(stamp, stamp))  # both within one tick of the clock
    index.refresh()
    assert set(index.runs) == {str(path), str(other)}


def test_a_task_at_rest_is_looked_at_less_often(root: StoredRoot) -> None:
    task = root.task("idle")
    path = task / "TASK-MESSAGE-BUS.md"
    bus.append(str(path), body="old", durable=False)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    root.run(task, task_id="idle")
    index = index_of(root, rest_seconds=3600)
    index.refresh()  # finds it quiet
    bus.append(str(path), body="new", durable=False)
    (task / "DONE").touch()
    assert not index.refresh()
    task_of(index, "idle").next_look = 0
    changes = index.refresh()
    assert (changes.tasks, changes.buses) == ({("demo", "idle")}, {str(path)})
    assert task_of(index, "idle").next_look == 0, "it is at rest no more"


# -- what comes and goes


def test_what_is_removed_is_gone_and_said_to_be(root: StoredRoot) -> None:
    task = root.task("old")
    inside, flat = root.run(task, task_id="old"), root.run(task_id="flat")
    (task / "TASK-MESSAGE-BUS.md").touch()
    root.settle()
    index = index_of(root)
    shutil.rmtree(flat)
    shutil.rmtree(root.runs_dir / "demo")
    changes = index.refresh()
    assert changes.runs == {str(inside), str(flat)}
    assert changes.tasks == {("demo", "old"), ("demo", "flat")}
    assert changes.buses == {str(task / "TASK-MESSAGE-BUS.md")}
    assert (index.runs, index.tasks, list(index.plans)) == ({}, {}, [])
    assert not index.refresh()


def test_folders_that_vanish_while_they_are_read_do_no_harm(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = many(root)
    really_read = runs.read

    def read_and_remove(path: str) -> runs.Run:
        run = really_read(path)
        for folder in folders[::2]:
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(root.runs_dir / "demo" / "task-5", ignore_errors=True)
        return run

    monkeypatch.setattr(runs, "read", read_and_remove)
    index = index_of(root)
    index.refresh()
    assert set(map(str, folders[1::2])) < set(index.runs)
    assert not set(map(str, folders[2::2])) & set(index.runs)
    assert ("demo", "task-5") not in index.tasks
    shutil.rmtree(root.runs_dir)
    index.refresh()
    assert (index.runs, index.tasks) == ({}, {})


def test_a_run_stands_under_its_task_from_when_its_record_names_it(root: StoredRoot) -> None:
    folder = root.runs_dir / "run_20260101-120000-1"
    folder.mkdir()
    with held(folder / runs.LOCK):
        index = index_of(root)
        assert [entry.state.status for entry in index.runs.values()] == [runs.RUNNING]
        assert index.tasks == {}
        write_record(folder, **RUNNING)
        index.refresh()
        assert [entry.path for entry in task_of(index, "build").runs] == [str(folder)]


def test_a_task_known_from_flat_runs_gets_its_folder_and_loses_it_again(root: StoredRoot) -> None:
    flat = root.run(task_id="both")
    index = index_of(root)
    assert task_of(index, "both").path == ""
    inside = root.run(root.task("both"), task_id="both")
    index.refresh()
    assert [entry.path for entry in task_of(index, "both").runs] == [str(inside), str(flat)]
    assert task_of(index, "both").path == str(root.runs_dir / "demo" / "both")
    shutil.rmtree(root.runs_dir / "demo")
    index.refresh()
    assert [entry.path for entry in task_of(index, "both").runs] == [str(flat)]
    assert task_of(index, "both").path == ""


def test_a_run_folder_that_was_replaced_by_another_is_read_again(root: StoredRoot) -> None:
    path = root.run()
    index = index_of(root)
    spare = root.run(status="failed", exit_code=2)
    shutil.rmtree(path)
    spare.rename(path)
    index.refresh()
    assert [entry.state.exit_code for entry in index.runs.values()] == [2]


# -- what is odd


def test_a_record_that_cannot_be_read_is_unknown_until_it_is_mended(root: StoredRoot) -> None:
    broken = root.run(task_id="t")
    (broken / runs.RECORD).write_text("status: [unclosed")
    fine = root.run(task_id="t")
    index = index_of(root)
    assert index.runs[str(broken)].state.status == runs.UNKNOWN
    assert index.runs[str(fine)].state.status == runs.COMPLETED
    assert not index.refresh()
    write_record(broken)
    assert index.refresh().runs == {str(broken)}
    assert index.runs[str(broken)].state.status == runs.COMPLETED


def test_a_run_of_another_machine_is_unknown(root: StoredRoot) -> None:
    away = root.run(**RUNNING, pid=1, host="elsewhere")
    index = index_of(root)
    assert index.runs[str(away)].state.status == runs.UNKNOWN
    assert task_of(index, "build").status == runs.UNKNOWN
    write_record(away, host="elsewhere")
    index.refresh()
    assert index.runs[str(away)].state.status == runs.COMPLETED


def test_names_and_files_that_nobody_expects_are_survived(root: StoredRoot) -> None:
    odd = root.task("line\nfeed \x1b[31m")
    root.run(odd, project_id="", task_id="")
    bad = os.path.join(os.fsencode(root.runs_dir), b"demo", b"\xff\xfe")
    os.makedirs(os.path.join(bad, b"runs", b"\xfd"))
    fifo = root.run()
    (fifo / runs.RECORD).unlink()
    os.mkfifo(fifo / runs.RECORD)
    (root.runs_dir / "demo" / "linked").symlink_to(odd)
    (root.runs_dir / "demo" / "around").symlink_to(root.runs_dir)
    (root.runs_dir / ".hidden" / "x" / "runs" / "y").mkdir(parents=True)
    (root.runs_dir / "run_a_file").touch()
    (odd / "TASK-CONFIG.yaml").mkdir()
    (odd / "TASK-LOOP.yaml").write_text("a: [")
    (odd / "TASK-MESSAGE-BUS.md").symlink_to("/dev/zero")
    index = index_of(root)
    assert {task for _, task in index.tasks} == {"line\nfeed \x1b[31m", "\udcff\udcfe"}
    assert task_of(index, "line\nfeed \x1b[31m").loop == {}
    assert index.runs[str(fifo)].state.status == runs.UNKNOWN
    assert index.messages(5) == []
    assert len(index.runs) == 3


def test_folders_of_a_project_that_are_no_tasks_are_none(root: StoredRoot) -> None:
    (root.runs_dir / "demo" / "notes").mkdir(parents=True)
    index = index_of(root)
    assert index.tasks == {}
    (root.runs_dir / "demo" / "notes" / "TASK.md").touch()
    assert index.refresh().tasks == {("demo", "notes")}


# -- dependencies and loops


def test_a_task_is_blocked_until_what_it_depends_on_has_completed(root: StoredRoot) -> None:
    task = root.task("second", depends_on=["first, gone", "first"])
    index = index_of(root)
    assert task_of(index, "second").blocked_by == ["first", "gone"]
    assert task_of(index, "second").status == "blocked"

    first = root.task("first")
    index.refresh()
    assert task_of(index, "second").blocked_by == ["first", "gone"]
    root.run(first, task_id="first")
    assert ("demo", "second") in index.refresh().tasks
    assert task_of(index, "second").blocked_by == ["gone"]

    (task / "TASK-CONFIG.yaml").write_text("depends_on: [first]\n")  # in place
    assert index.refresh().tasks == {("demo", "second")}
    assert (task_of(index, "second").blocked_by, task_of(index, "second").status) == ([], "-")
    (task / "TASK-CONFIG.yaml").unlink()
    root.run(first, task_id="first", status="failed", exit_code=1)
    index.refresh()
    assert (task_of(index, "second").depends_on, index.is_ready("demo", "first")) == ([], False)


def test_what_a_loop_works_on_is_ready_when_it_is_done_and_not_before(root: StoredRoot) -> None:
    task = root.task("first")
    root.run(task, task_id="first")
    (task / "TASK-LOOP.yaml").write_text("version: 1\nstate: running\n")
    index = index_of(root)
    assert (index.is_ready("demo", "first"), task_of(index, "first").loop_state) == (
        False,
        "running",
    )
    (task / "DONE").touch()
    index.refresh()
    assert index.is_ready("demo", "first")


def test_a_loop_is_live_while_its_lock_is_held(root: StoredRoot) -> None:
    task = root.task("first")
    (task / "TASK-LOOP.yaml").write_text("version: 1\nstate: running\n")
    index = index_of(root)
    assert not task_of(index, "first").is_live
    with held(task / "LOOP.lock"):
        assert index.refresh().tasks == {("demo", "first")}
        assert task_of(index, "first").is_live
    assert index.refresh().tasks == {("demo", "first")}
    assert not task_of(index, "first").is_live


# -- plans


def plan_of(root: StoredRoot, count: int = 3) -> PlanState:
    plan = PlanState(str(root.runs_dir), "demo")
    plan.lock()
    plan.header = {"started": ids.rfc3339(), "pid": os.getpid()}
    plan.tasks = {f"t{n}": TaskState() for n in range(count)}
    plan.save([])
    return plan


def set_state(plan: PlanState, task_id: str, value: str, why: str = "") -> None:
    plan.tasks[task_id].state, plan.tasks[task_id].why = value, why
    plan.tasks[task_id].changed()
    plan.save([task_id])


def test_a_plan_is_followed_by_its_journal_alone(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(root)
    index = index_of(root)
    entry = index.plans["demo"]
    assert (entry.is_run, entry.counts) == (True, {"pending": 3})
    root.settle()
    index.refresh()
    for number, task_id in enumerate(plan.tasks):
        set_state(plan, task_id, "running", f"number {number}")
        with opened(monkeypatch) as seen:
            assert index.refresh().plans == {"demo"}
        assert sorted(os.path.basename(path) for path in seen) == [
            "PLAN-STATE.journal",
            "PLAN.lock",
        ]
        assert (entry.tasks[task_id].state, entry.tasks[task_id].why) == (
            "running",
            f"number {number}",
        )
    plan.settle()
    set_state(plan, "t1", "done")
    index.refresh()
    assert entry.counts == {"running": 2, "done": 1}
    plan.finish()
    plan.close()
    assert index.refresh().plans == {"demo"}
    assert (entry.is_run, entry.counts) == (False, {"running": 2, "done": 1})
    assert not index.refresh()


def test_a_damaged_plan_is_told_and_what_was_known_is_kept(root: StoredRoot) -> None:
    plan = plan_of(root)
    plan.finish()
    plan.close()
    index = index_of(root)
    good = Path(plan.path).read_bytes()
    Path(plan.path).write_text("tasks: [")
    assert index.refresh().plans == {"demo"}
    assert "damaged plan state" in index.plans["demo"].problem
    assert index.plans["demo"].counts == {"pending": 3}
    Path(plan.path).write_bytes(good)
    index.refresh()
    assert index.plans["demo"].problem == ""
    shutil.rmtree(root.runs_dir / "demo")
    assert index.refresh().plans == {"demo"}
    assert index.plans == {}


# -- buses


def test_new_messages_of_a_bus_are_read_from_where_it_was_read_to(root: StoredRoot) -> None:
    task = root.task("talk")
    path = str(task / "TASK-MESSAGE-BUS.md")
    bus.append(path, body="one", durable=False)
    index = index_of(root)
    entry = index.buses[path]
    assert [m.body for m in entry.read()] == ["one"]
    assert entry.read() == []
    bus.append(path, body="two", durable=False)
    bus.append(path, body="three", durable=False)
    assert index.refresh().buses == {path}
    assert [m.body for m in entry.read()] == ["two", "three"]
    assert [m.body for m in entry.messages] == ["one", "two", "three"]
    assert [m.body for m in index.messages(2)] == ["two", "three"]


def test_no_message_is_missed_when_a_bus_is_rotated(root: StoredRoot) -> None:
    path = str(root.task("talk") / "TASK-MESSAGE-BUS.md")
    bus.append(path, body="one", durable=False)
    index = index_of(root)
    entry = index.buses[path]
    entry.read()
    bus.append(path, body="late", durable=False)
    os.rename(path, f"{path}.20260101-120000.archived")
    bus.append(path, body="new", durable=False)
    index.refresh()
    assert [m.body for m in entry.read()] == ["late", "new"]
    assert [m.body for m in entry.messages] == ["one", "late", "new"]


def test_the_bus_of_the_root_is_there_from_its_first_message_on(root: StoredRoot) -> None:
    index = index_of(root)
    path = str(root.path / "MESSAGE-BUS.md")
    bus.append(path, body="hello", durable=False)
    assert index.refresh().buses == {path}
    assert [m.body for m in index.messages(9)] == ["hello"]


# -- kept current, or read anew: the same


def facts(index: Index) -> dict[str, object]:
    """All that an index tells, but for what only time changes."""
    return {
        "runs": {
            path: (entry.project, entry.task, entry.state.status, entry.state.exit_code,
                   entry.started_ns, entry.ended_ns, entry.run.record, entry.stdout_size)
            for path, entry in index.runs.items()
        },
        "tasks": {
            key: (entry.path, entry.status, entry.done, entry.blocked_by, entry.depends_on,
                  entry.loop, [run.path for run in entry.runs])
            for key, entry in index.tasks.items()
        },
        "plans": {name: (plan.counts, plan.header) for name, plan in index.plans.items()},
        "buses": {path: bus.size for path, bus in index.buses.items()},
    }  # fmt: skip


class Chaos:
    """Changes of a root, one at a time, chosen by chance."""

    def __init__(self, root: StoredRoot, chance: random.Random) -> None:
        self.root = root
        self.chance = chance
        self.tasks: list[Path] = []

    def step(self) -> str:
        action = self.chance.choice(
            [self.add_run, self.add_run, self.add_run, self.add_task, self.change_record,
             self.remove, self.toggle_done, self.depend, self.post, self.note_loop, self.plan]
        )  # fmt: skip
        action()
        self.root.settle()
        return action.__name__

    def _folders(self) -> list[Path]:
        return sorted(map(Path, runs.folders(str(self.root.runs_dir))))

    def _task(self) -> Path:
        existing = [path for path in self.tasks if path.is_dir()]
        return self.chance.choice(existing) if existing else self.add_task()

    def add_task(self) -> Path:
        name = f"t{self.chance.randrange(6)}"
        folder = self.root.runs_dir / self.chance.choice(["demo", "other"]) / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "TASK.md").touch()
        self.tasks.append(folder)
        return folder

    def add_run(self) -> None:
        parent = self._task() if self.chance.random() < 0.6 else None
        fields = self.chance.choice([{}, RUNNING, {"status": "failed", "exit_code": -1, "pid": 9}])
        self.root.run(parent, task_id=f"t{self.chance.randrange(6)}", **fields)

    def change_record(self) -> None:
        """Of a run that has not ended; the record of one that has is never written again."""
        for folder in self._folders():
            if runs.read(str(folder)).text("status") == "running":
                ends = self.chance.choice([{}, {"status": "failed", "exit_code": 3}, RUNNING])
                write_record(folder, task_id=f"t{self.chance.randrange(6)}", turns=7, **ends)
                return

    def remove(self) -> None:
        candidates = [*self._folders(), *[path for path in self.tasks if path.is_dir()]]
        if candidates:
            shutil.rmtree(self.chance.choice(candidates))

    def toggle_done(self) -> None:
        done = self._task() / "DONE"
        done.unlink() if done.exists() else done.touch()

    def depend(self) -> None:
        task = self._task()
        names = [f"t{self.chance.randrange(6)}" for _ in range(2)]
        wanted = [name for name in names if name != task.name]
        (task / "TASK-CONFIG.yaml").write_text(f"depends_on: {json.dumps(wanted)}\n")

    def post(self) -> None:
        bus.append(str(self._task() / "TASK-MESSAGE-BUS.md"), body="hello", durable=False)

    def note_loop(self) -> None:
        (self._task() / "TASK-LOOP.yaml").write_text(f"state: {self.chance.choice('abc')}\n")

    def plan(self) -> None:
        plan = PlanState(str(self.root.runs_dir), "demo")
        plan.lock()
        plan.load()
        plan.tasks[f"t{self.chance.randrange(6)}"] = TaskState()
        plan.finish()
        plan.close()


@pytest.mark.parametrize("seed", [0, 1, 2, 16, 47])
def test_an_index_that_was_kept_current_tells_what_a_new_one_does(
    root: StoredRoot, seed: int
) -> None:
    chaos = Chaos(root, random.Random(seed))  # noqa: S311
    index = index_of(root)
    done = []
    for _ in range(60):
        done.append(chaos.step())
        before = facts(index)
        changes = index.refresh()
        now = facts(index)
        assert now == facts(index_of(root)), done
        for kind, said in (("runs", changes.runs), ("tasks", changes.tasks)):
            old, new = before[kind], now[kind]
            assert isinstance(old, dict)
            assert isinstance(new, dict)
            changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
            assert changed <= said, (kind, done)
