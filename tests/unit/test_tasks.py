"""Task folders, what they wait for, the record of a loop, and what is told of a task that is done."""

from __future__ import annotations

import os
import shlex
import tarfile
from pathlib import Path

import pytest

from lib import (
    bus,
    files,
    ids,
    loop_record,
    procs,
    propagation,
    quota,
    runs,
    task_preamble,
    tasks,
)
from lib.errors import UsageError, UserError
from lib.loop_record import LoopRecord
from lib.runner import Request
from lib.tasks import Task
from tests.helpers import ROOT

SAMPLE = ROOT / "tests" / "data" / "storage" / "go-storage-sample.tar.gz"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root that the original wrote."""
    folder = tmp_path_factory.mktemp("sample")
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def make(runs_dir: Path, name: str, *needs: str, done: bool = False, loop: bool = True) -> Task:
    task = tasks.locate(str(runs_dir), "p", name)
    os.makedirs(task.path)
    Path(task.file("TASK.md")).write_text("x\n")
    if needs:
        tasks.set_dependencies(task, needs)
    if done:
        Path(task.file("DONE")).touch()
    if loop:
        Path(task.file("TASK-LOOP.yaml")).write_text("attempts: []\n")
    return task


def add_run(task: Task, name: str, status: str, **more: object) -> runs.Run:
    run = runs.Run(f"{task.runs_dir}/{name}", {"run_id": name, "status": status, **more})
    os.makedirs(run.path)
    runs.write_record(run, durable=False)
    return run


# -- names and places


def test_everything_of_a_task_lies_in_its_folder(tmp_path: Path) -> None:
    task = tasks.locate(str(tmp_path), "p", "t")
    assert task.path == f"{tmp_path}/p/t"
    assert (task.project, task.task) == ("p", "t")
    assert task.runs_dir == f"{tmp_path}/p/t/runs"
    assert task.bus == f"{tmp_path}/p/t/TASK-MESSAGE-BUS.md"
    assert task.project_bus == f"{tmp_path}/p/PROJECT-MESSAGE-BUS.md"


@pytest.mark.parametrize(
    ("project", "task"),
    [
        ("p", ".."), ("p", "a/b"), ("p", ""), ("p", ".x"), ("p", "-x"), ("p", "x" * 129),
        ("..", "t"), ("p\n", "t"), ("run_20260101-000000-1", "t"), ("20260101-000000", "t"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_a_folder_of_a_task_is_refused(project: str, task: str) -> None:
    with pytest.raises(UsageError):
        tasks.locate("/r", project, task)


def test_generated_ids_have_the_form_that_the_original_demands() -> None:
    assert tasks.generate_id("write-docs").endswith("-write-docs")
    for slug in ("", "ab", "x" * 60, "a" * 49 + "-b"):
        name = tasks.generate_id(slug)
        word = name.split("-", 3)[3]
        assert name.startswith("task-2")
        assert 3 <= len(word) <= 50
        assert word[0].isalnum()
        assert word[-1].isalnum()


def test_ids_of_runs_in_task_folders_sort_by_time_and_tell_it() -> None:
    moments = [1_771_879_739_123_456_789 + n * 100_000 for n in range(20)]
    names = [ids.task_run_name(moment, 4711) for moment in moments]
    assert names == sorted(names)
    assert len(set(names)) == 20
    assert names[0].startswith("20260223-2048591234-4711-")
    assert runs.time_from_name(names[0]) == "2026-02-23T20:48:59Z"
    assert ids.task_run_name(moments[0], 4711) != names[0]


def test_a_name_that_is_taken_is_not_used_again(tmp_path: Path) -> None:
    found = [runs.allocate(str(tmp_path), in_task_folder=True) for _ in range(5)]
    assert len({run.path for run, _ in found}) == 5
    for _, lock in found:
        os.close(lock)


def test_all_tasks_are_found_and_nothing_else(tmp_path: Path) -> None:
    make(tmp_path, "b")
    make(tmp_path, "a")
    (tmp_path / "p" / "empty").mkdir()
    (tmp_path / "p" / "PLAN-STATE.yaml").touch()
    (tmp_path / "run_20260101-000000-1").mkdir()
    (tmp_path / ".active").mkdir()
    assert [task.task for task in tasks.all_tasks(str(tmp_path))] == ["a", "b"]


def test_runs_of_task_folders_are_found_from_the_root_and_from_the_task(tmp_path: Path) -> None:
    task = make(tmp_path, "t")
    run = add_run(task, "20260223-2048591234-4711-1", "completed")
    os.mkdir(f"{task.runs_dir}/{runs.ACTIVE}")
    assert list(runs.folders(str(tmp_path))) == [run.path]
    assert list(runs.folders(task.runs_dir)) == [run.path]
    assert runs.task_folder_of(run) == task.path
    assert runs.task_folder_of(runs.Run("/r/runs/run_20260101-000000-1", {})) == ""


# -- DONE and status


def test_only_a_file_says_that_a_task_is_done(tmp_path: Path) -> None:
    task = make(tmp_path, "t")
    assert not tasks.is_done(task)
    os.symlink("/etc/hosts", task.file("DONE"))
    assert not tasks.is_done(task)
    os.unlink(task.file("DONE"))
    os.mkdir(task.file("DONE"))
    with pytest.raises(UserError, match="is a folder"):
        tasks.is_done(task)
    os.rmdir(task.file("DONE"))
    Path(task.file("DONE")).touch()
    assert tasks.is_done(task)


def test_the_status_is_that_of_the_newest_run_else_what_the_folder_tells(tmp_path: Path) -> None:
    task, waiting = make(tmp_path, "t"), make(tmp_path, "w", "t")
    assert tasks.status(task, "failed", done=True) == "failed"
    assert tasks.status(task, None, done=True) == "done"
    assert tasks.status(task, None, done=False) == "-"
    assert tasks.status(waiting, None, done=False) == "blocked"


# -- dependencies


def test_dependencies_are_kept_in_order_and_once(tmp_path: Path) -> None:
    task = make(tmp_path, "t")
    assert tasks.dependencies(task) == []
    assert tasks.set_dependencies(task, ["b, a", "", "b", " c "]) == ["b", "a", "c"]
    assert tasks.dependencies(task) == ["b", "a", "c"]
    tasks.set_dependencies(task, [])
    assert not os.path.exists(task.file("TASK-CONFIG.yaml"))


@pytest.mark.parametrize("name", ["t", "a/b", "..", "a..b", "a\\b"])
def test_what_cannot_be_waited_for_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        tasks.set_dependencies(make(tmp_path, "t"), ["good", name])


def test_a_circle_is_named_and_not_written(tmp_path: Path) -> None:
    for name, needs in {"c": ["a"], "b": ["c", "x"]}.items():
        make(tmp_path, name, *needs)
    task = make(tmp_path, "a")
    with pytest.raises(UsageError, match="a -> b -> c -> a is a circle"):
        tasks.set_dependencies(task, ["b"])
    assert tasks.dependencies(task) == []


def test_a_long_line_of_tasks_is_no_circle(tmp_path: Path) -> None:
    length = 1500  # more than Python's stack has frames
    for number in range(length):
        config = Path(make(tmp_path, f"t{number}").file("TASK-CONFIG.yaml"))
        config.write_text(f"depends_on: [t{number + 1}]\n")
    assert tasks.set_dependencies(make(tmp_path, "first"), ["t0"]) == ["t0"]
    with pytest.raises(UsageError, match="is a circle"):
        tasks.set_dependencies(make(tmp_path, f"t{length}"), ["first"])


@pytest.mark.parametrize("text", ["depends_on: 3\n", "depends_on: [a\n", "- a\n"])
def test_a_damaged_list_is_said(tmp_path: Path, text: str) -> None:
    task = make(tmp_path, "t")
    Path(task.file("TASK-CONFIG.yaml")).write_text(text)
    with pytest.raises(UserError, match="TASK-CONFIG"):
        tasks.dependencies(task)


def test_a_task_of_a_loop_is_ready_with_its_done_alone(tmp_path: Path) -> None:
    make(tmp_path, "done", done=True)
    add_run(make(tmp_path, "between"), "20260101-0000000000-1-1", "completed")
    original = make(tmp_path, "original", loop=False)
    add_run(original, "20260101-0000000000-1-1", "failed")
    add_run(original, "20260101-0000010000-1-1", "completed")
    working = make(tmp_path, "working", loop=False)
    add_run(working, "20260101-0000000000-1-1", "running")
    add_run(working, "20260101-0000010000-1-1", "completed")
    names = ["done", "between", "original", "working", "unknown"]
    assert tasks.blocked_by(make(tmp_path, "t", *names)) == ["between", "working", "unknown"]


def test_a_root_of_the_original_is_understood(sample: Path) -> None:
    found = {task.task[21:]: task for task in tasks.all_tasks(str(sample))}
    assert [name for name, task in found.items() if tasks.is_done(task)] == ["done", "quick"]
    assert tasks.blocked_by(found["dep"]) == ["task-20260101-000010-slow"]
    assert [name for name, task in found.items() if not tasks.is_ready(task)] == [
        "failing", "slow", "dep",
    ]  # fmt: skip


# -- the record of a loop


def test_what_a_loop_noted_is_read_back(tmp_path: Path) -> None:
    task = tasks.locate(str(tmp_path), "p", "t")
    record = LoopRecord(task)
    record.lock()
    attempt: loop_record.Attempt = {"run": "r", "token": "0123", "result": "running"}
    record.attempts.append(attempt)
    record.fields.update(state="running", why='a "quoted"\nreason', first=0)
    record.save()
    process = loop_record.holder(task)
    assert process is not None
    assert process.pid == os.getpid()
    record.close()

    fields, attempts = loop_record.read(task)
    assert attempts == [attempt]
    assert fields["why"] == 'a "quoted"\nreason'
    assert fields["pid"] == os.getpid()
    assert (loop_record.is_held(task), loop_record.holder(task)) == (False, None)


def test_a_loop_that_is_held_says_by_whom(tmp_path: Path) -> None:
    task = tasks.locate(str(tmp_path), "p", "t")
    first, second = LoopRecord(task), LoopRecord(task)
    first.lock()
    with pytest.raises(UserError, match=f"already run by pid {os.getpid()} "):
        second.lock(0.0)
    first.close()
    second.lock(0.0)
    second.close()


def test_a_holder_of_another_place_or_time_is_no_process_here(tmp_path: Path) -> None:
    task = tasks.locate(str(tmp_path), "p", "t")
    record = LoopRecord(task)
    record.lock()
    path, here = Path(task.file("LOOP.lock")), procs.machine()
    place = f"{here['host']}\t{here['pid_namespace']}"
    for line in (
        f"{os.getpid()} {procs.own_start()}\telsewhere\t{here['pid_namespace']}",
        f"{os.getpid()} 17\t{place}",
        f"1 {procs.own_start()}\t{place}",
        "garbage",
        "",
    ):
        path.write_text(line + "\n")
        assert loop_record.holder(task) is None
    record.close()


@pytest.mark.parametrize("text", ["", "attempts: 3\n", "attempts: [1]\n", "state: [\n", "x: 1\n"])
def test_a_damaged_record_of_a_loop_is_an_error(tmp_path: Path, text: str) -> None:
    task = make(tmp_path, "t")
    Path(task.file("TASK-LOOP.yaml")).write_text(text)
    with pytest.raises(UserError, match="damaged record of a loop"):
        loop_record.read(task)


def test_a_provider_that_is_closed_is_asked_again_a_margin_after_its_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CONDUCTOR_QUOTA_MARGIN", raising=False)
    assert quota.next_try(1000.0, 500.0) == 1060.0
    assert quota.next_try(1000.0, 5000.0) == 5000.0
    assert quota.next_try(0.0, 5000.0) == 5900.0


# -- telling the project


@pytest.mark.parametrize(("project", "name"), [("web", "quick"), ("demo", "done")])
def test_the_key_of_a_completion_is_that_of_the_original(
    sample: Path, project: str, name: str
) -> None:
    [task] = [task for task in tasks.all_tasks(str(sample)) if task.task.endswith(f"-{name}")]
    [fact] = [m for m in bus.read(task.project_bus) if m.meta.get("source_task_id") == task.task]
    names = [name for name in files.names(task.runs_dir) if name[0] != "."]
    key = propagation.key_of(
        fact.meta["source_done_mtime"],
        int(fact.meta["task_fact_count"]),
        names,
        [],
        [runs.read(f"{task.runs_dir}/{name}") for name in names],
    )
    assert key == fact.meta["propagation_key"]


def test_times_are_written_as_the_original_writes_them() -> None:
    assert propagation.nano_time(1_771_879_739_120_000_000) == "2026-02-23T20:48:59.12Z"
    assert propagation.nano_time(1_771_879_739_000_000_000) == "2026-02-23T20:48:59Z"


def test_a_done_is_told_of_once_and_the_next_one_again(tmp_path: Path) -> None:
    task = make(tmp_path, "t", done=True)
    add_run(task, "20260101-0000000000-1-1", "completed", exit_code=0)
    first = propagation.propagate(task)
    add_run(task, "20260101-0000010000-1-1", "failed", exit_code=1)
    bus.append(task.bus, type_="FACT", body="late")
    again = propagation.propagate(task)
    os.rename(task.project_bus, tmp_path / "rotated")
    from_state = propagation.propagate(task)
    assert (from_state.msg_id, from_state.is_new) == (first.msg_id, False)
    os.rename(tmp_path / "rotated", task.project_bus)
    os.unlink(task.file(propagation.STATE))
    from_bus = propagation.propagate(task)
    os.utime(task.file("DONE"), ns=(1, 1))
    other = propagation.propagate(task)

    told = [first, again, from_bus, other]
    assert [item.is_new for item in told] == [True, False, False, True]
    assert first.msg_id == again.msg_id == from_bus.msg_id != other.msg_id
    facts = list(bus.read(task.project_bus))
    assert [fact.msg_id for fact in facts] == [first.msg_id, other.msg_id]
    assert facts[1].meta["failed_run_count"] == "1"
    assert facts[1].run_id == "20260101-0000010000-1-1"


# -- the preamble


@pytest.mark.parametrize("word", ["plain/a-b.c", "with space", "it's", "", "$HOME", "a;b", "ä"])
def test_a_quoted_word_is_one_word_of_a_shell(word: str) -> None:
    assert shlex.split(task_preamble.quoted(word)) == [word]


def test_a_preamble_names_every_script_by_its_path(tmp_path: Path) -> None:
    task = make(tmp_path, "t")
    run = runs.Run(f"{task.runs_dir}/r", {})
    request = Request(
        agent="fake", project="p", task="t", task_folder=task.path, bus=task.bus, parent="above"
    )
    text = task_preamble.text(run, request).decode()
    assert f"\n    touch {task.path}/DONE\n" in text
    assert "\nJRUN_PARENT_ID=above\n" in text
    assert text.endswith("\n\n---\n\n")
    for script in ("bin/bus-append", "bin/bus-tail", "run-agent.py"):
        assert f"    {ROOT}/{script} " in text
        assert os.access(ROOT / script, os.X_OK)
