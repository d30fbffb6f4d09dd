"""bin/clean-runs: it removes what is old and over, and nothing that anything still needs."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from lib import bus, cleaning, ids, runs
from lib.state import PlanState, TaskState
from tests.agent_runs import Place
from tests.helpers import PYTHON, ROOT, clean_environment, run_script, wait_until
from tests.plan_root import PlanRoot, sh
from tests.stored_root import RUNNING, StoredRoot, held, snapshot, write_record

SAMPLE = ROOT / "tests" / "data" / "storage" / "go-storage-sample.tar.gz"


@pytest.fixture
def store(tmp_path: Path) -> StoredRoot:
    return StoredRoot(tmp_path / "root")


def clean(
    store: StoredRoot, *options: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return run_script("bin/clean-runs", *options, "--root", store.path, env=env)


def cleaned(store: StoredRoot, *options: str) -> list[str]:
    done = clean(store, "--yes", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (store.runs_dir / cleaning.TRASH).exists()
    return done.stdout.split("\n")[:-1]


def names(store: StoredRoot) -> set[str]:
    return {os.path.basename(path) for path in runs.folders(str(store.runs_dir))}


def now_minus(days: float) -> str:
    return ids.rfc3339(time.time_ns() - int(days * 86400 * 10**9))


# -- what goes


def test_without_yes_nothing_changes_and_all_of_it_is_told(store: StoredRoot) -> None:
    task = store.task("done", project="p")
    (task / "DONE").touch()
    os.utime(task / "DONE", (1, 1))
    store.run(task)
    flat = store.run()
    (flat / runs.STDOUT).write_bytes(b"x" * 3000)
    (task / "TASK-MESSAGE-BUS.md").write_bytes(b"y" * 3000)
    store.settle()
    before = snapshot(store.path)
    done = clean(store, "--delete-done-tasks", "--rotate-bus", "--bus-max-size", "1KB")
    assert done.returncode == 0
    assert snapshot(store.path) == before
    lines = done.stdout.split("\n")
    assert sum(line.startswith("would remove run ") for line in lines) == 2
    assert sum(line.startswith("would remove task p/done ") for line in lines) == 1
    assert lines[-2].startswith("would free ")
    assert "2 runs, 1 task" in lines[-2]
    assert done.stderr == "clean-runs: nothing was removed; --yes does it\n"


def test_old_runs_go_and_young_ones_stay(store: StoredRoot) -> None:
    store.run(end_time=now_minus(8))
    young = store.run(end_time=now_minus(6))
    older = store.run(end_time=now_minus(2), task_id="other")
    store.run(store.task("inside"), end_time=now_minus(30))
    lines = cleaned(store)
    assert names(store) == {young.name, older.name}
    assert lines[-1].startswith("freed ")
    assert "2 runs" in lines[-1]
    assert "kept: 2 too young" in lines[-1]
    cleaned(store, "--older-than", "3d")
    assert names(store) == {older.name}


def test_a_run_is_as_old_as_its_end(store: StoredRoot) -> None:
    long = store.run(start_time=now_minus(30), end_time=now_minus(1))
    cleaned(store)
    assert names(store) == {long.name}


def test_what_is_to_be_kept_on_request_is_kept(store: StoredRoot) -> None:
    task = store.task("many")
    folders = [store.run(task, task_id="many") for _ in range(4)]
    failed = store.run(task_id="flat", status="failed", exit_code=2)
    other = store.run(project_id="else")
    cleaned(store, "--keep-failed", "--keep", "2", "--project", "demo", "--task", "many")
    assert names(store) == {folders[2].name, folders[3].name, failed.name, other.name}
    cleaned(store, "--keep-failed", "--project", "demo")
    assert names(store) == {failed.name, other.name}
    cleaned(store)
    assert names(store) == set()
    log = (store.runs_dir / cleaning.LOG).read_text().split("\n")[:-1]
    assert len(log) == 6
    assert cleaning.removed(str(store.runs_dir)) == {
        *(folder.name for folder in folders), failed.name, other.name,
    }  # fmt: skip


def test_what_an_agent_made_read_only_and_linked_elsewhere_goes_alone(store: StoredRoot) -> None:
    folder = store.run()
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").touch()
    treasure = store.path / "treasure"
    treasure.mkdir()
    (treasure / "gold").touch()
    (folder / "deep" / "link").symlink_to(treasure)
    (folder / "deep" / "er").chmod(0o500)
    (folder / "deep").chmod(0o500)
    cleaned(store)
    assert names(store) == set()
    assert (treasure / "gold").exists()


# -- what stays


def test_what_is_alive_unreadable_or_unknown_is_never_touched(store: StoredRoot) -> None:
    live = store.run(**RUNNING)
    broken = store.run()
    (broken / runs.RECORD).write_text("status: [completed")
    away = store.run(**RUNNING, host="elsewhere", pid=1)
    stale = store.run(store.task("original"), **RUNNING, pid=2**22 + 7, pgid=2**22 + 7)
    timeless = store.run(end_time=ids.ZERO_TIME)
    empty = store.runs_dir / "run_20260101-130000-5"
    empty.mkdir()
    odd = store.run(status="sleeping")
    (store.runs_dir / "demo" / "waiting" / "runs" / "20260101-1200000000-1-1").mkdir(parents=True)
    parent = store.run(**RUNNING)
    child = store.run(parent_run_id=parent.name)
    before = snapshot(store.path)
    with held(live / runs.LOCK), held(parent / runs.LOCK):
        done = clean(store, "--yes", "--older-than", "0s", "--delete-done-tasks")
    assert done.returncode == 0, done.stderr
    for lock in (live / runs.LOCK, parent / runs.LOCK):
        lock.unlink()
    after = snapshot(store.path)
    assert {path for path in before if before[path][1:] != after.get(path, ())[1:]} == set()
    kept = dict(line.removeprefix("kept ").split(": ", 1) for line in done.stdout.split("\n")[:-2])
    assert "cannot be read" in kept[broken.name]
    assert "elsewhere" in kept[away.name]
    assert "bin/stop-run" in kept[stale.name]
    assert "when it ended" in kept[timeless.name]
    assert "sleeping" in kept[odd.name]
    assert kept[child.name] == "the run that started it is alive"
    assert "never started" in kept[empty.name] or "not recorded" in kept[empty.name]
    assert "kept: 2 alive, 8 for the reasons above" in done.stdout
    cleaned(store)
    assert not child.exists()


def plan_with(store: StoredRoot, **attempts: dict[str, object]) -> PlanState:
    plan = PlanState(str(store.runs_dir), "demo")
    plan.lock()
    for task_id, attempt in attempts.items():
        task = plan.tasks[task_id] = TaskState()
        task.state = str(attempt.pop("state"))
        task.attempts = [attempt]
    plan.finish()
    plan.close()
    return plan


def test_what_a_plan_goes_on_with_is_kept(store: StoredRoot) -> None:
    open_, verdict, done, failed = (store.run(task_id=f"t{n}") for n in range(4))
    plan = plan_with(
        store,
        t0={"state": "verifying", "run": open_.name, "result": "running"},
        t1={"state": "failed", "run": verdict.name, "result": "done", "verdict": "approve"},
        t2={"state": "done", "run": done.name, "result": "done"},
        t3={"state": "failed", "run": failed.name, "result": "failed"},
    )
    with held(Path(plan.folder) / "PLAN.lock"):
        cleaned(store)
        assert len(names(store)) == 4
    lines = cleaned(store)
    assert names(store) == {open_.name, verdict.name}
    assert f"kept {verdict.name}: the plan demo goes on with it" in lines
    Path(plan.path).write_text("tasks: [")
    cleaned(store)
    assert len(names(store)) == 2


def test_a_plan_whose_runs_were_removed_goes_on_and_its_storage_is_clean(root: PlanRoot) -> None:
    root.plan(sh("a", "echo a"), sh("b", "test -e go", depends_on=["a"]))
    assert root.run().returncode == 1
    gone = root.run_folder("a")
    done = run_script("bin/clean-runs", "--yes", "--older-than", "0s", "--root", root.path)
    assert done.returncode == 0, done.stderr
    assert not gone.exists()
    (root.work / "go").touch()
    assert root.run().returncode == 0
    assert root.states() == {"a": "done", "b": "done"}
    assert len(root.attempts("a")) == 1, "it was not done again"
    checked = run_script("bin/check-storage", root.path)
    assert checked.returncode == 0, checked.stdout


def loop(task: Path, **fields: object) -> None:
    lines = [f"{key}: {value}\n" for key, value in {"version": 1, **fields}.items()]
    (task / "TASK-LOOP.yaml").write_text("".join([*lines, "attempts: []\n"]))


def test_what_a_loop_goes_on_with_is_kept(store: StoredRoot) -> None:
    task = store.task("loop")
    first, second = (store.run(task, task_id="loop") for _ in range(2))
    loop(task, state="restarting")
    cleaned(store)
    assert names(store) == {first.name, second.name}
    loop(task, state="failed")
    lines = cleaned(store)
    assert f"kept {second.name}: run-task goes on from it" in lines
    assert names(store) == {second.name}
    loop(task, state="done")
    cleaned(store)
    assert names(store) == set()


def test_the_run_that_lets_another_task_start_is_kept(store: StoredRoot) -> None:
    first = store.task("first")
    old, new = (store.run(first, task_id="first") for _ in range(2))
    store.task("second", depends_on=["first"])
    lines = cleaned(store)
    assert names(store) == {new.name}
    assert old.name in cleaning.removed(str(store.runs_dir))
    assert f"kept {new.name}: it tells second that this task has completed" in lines


def test_done_tasks_go_when_they_are_old_empty_and_nobody_waits_for_them(
    store: StoredRoot,
) -> None:
    old, young, needed, full, alive = (
        store.task(name) for name in ("old", "young", "needed", "full", "alive")
    )
    for task in (old, young, needed, full, alive):
        (task / "DONE").touch()
        if task is not young:
            os.utime(task / "DONE", (1, 1))
    store.run(old, task_id="old")
    stays = store.run(full, task_id="full", end_time=now_minus(1))
    store.task("waits", depends_on=["needed"])
    loop(alive, state="waiting-children")
    with held(alive / "LOOP.lock"):
        cleaned(store, "--delete-done-tasks")
    left = {path.name for path in (store.runs_dir / "demo").iterdir()}
    assert left == {"young", "needed", "full", "alive", "waits"}
    assert stays.exists()


# -- crashes and others at work


def test_killed_between_two_runs_it_leaves_whole_ones_and_the_next_one_tidies_up(
    store: StoredRoot,
) -> None:
    for _ in range(3):
        (store.run() / runs.STDOUT).write_text("x")
    killed = clean(store, "--yes", env={"CONDUCTOR_FAULT": "kill:run-discarded:2"})
    assert killed.returncode == -signal.SIGKILL
    assert len(names(store)) == 1
    trashed = list((store.runs_dir / cleaning.TRASH).iterdir())
    [left] = [store.runs_dir / name for name in names(store)]
    assert len(trashed) == 2, "none is taken apart before all are out of the way"
    for folder in (left, *trashed):
        assert {path.name for path in folder.iterdir()} == {runs.RECORD, runs.STDOUT}
    cleaned(store)
    assert names(store) == set()


def test_it_repairs_first_and_then_judges(place: Place) -> None:
    place.script("exit 5")
    place.run("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": "kill:run-agent-ended"})
    run = place.only_run()
    wait_until(lambda: runs.state(runs.read(run.path)).holder == "", what="its end")
    looked = run_script("bin/clean-runs", "--older-than", "0s", "--root", place.root)
    assert f"kept {run.run_id}: its end is not recorded" in looked.stdout
    done = run_script("bin/clean-runs", "--older-than", "0s", "--yes", "--root", place.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert place.all_runs() == [], done.stdout
    assert run_script("bin/check-storage", place.root).returncode == 0


def test_a_run_whose_end_is_not_settled_is_kept(store: StoredRoot) -> None:
    folder = store.run()
    (store.runs_dir / runs.ACTIVE).mkdir()
    (store.runs_dir / runs.ACTIVE / folder.name).touch()
    shown = clean(store)
    assert f"kept {folder.name}: its end is not recorded whole" in shown.stdout
    assert "would remove" not in shown.stdout
    assert cleaned(store)[0].startswith(f"remove run {folder.name} "), "it repairs that first"


def test_a_task_whose_loop_begins_meanwhile_is_left_alone(store: StoredRoot) -> None:
    task = store.task("t")
    (task / "DONE").touch()
    item = cleaning.Item(cleaning.TASK, str(task), "", 0)
    with held(task / "LOOP.lock"):
        assert cleaning.carry_out(item, str(store.runs_dir)) == "its loop is at work"
    store.run(task)
    assert cleaning.carry_out(item, str(store.runs_dir)) == "some of its runs stay"
    (task / "DONE").unlink()
    cleaned(store)
    assert cleaning.carry_out(item, str(store.runs_dir)) == "it is not done any more"
    assert task.exists()


def test_a_run_that_is_taken_up_meanwhile_is_left_alone(store: StoredRoot) -> None:
    folder = store.run()
    item = cleaning.Item(cleaning.RUN, str(folder), "", 0)
    with held(folder / runs.LOCK):
        assert cleaning.carry_out(item, str(store.runs_dir)) == "somebody is at work on it"
    (store.runs_dir / runs.ACTIVE).mkdir()
    (store.runs_dir / runs.ACTIVE / folder.name).touch()
    assert cleaning.carry_out(item, str(store.runs_dir)) == "somebody is at work on it"
    (store.runs_dir / runs.ACTIVE / folder.name).unlink()
    write_record(folder, **RUNNING)
    assert cleaning.carry_out(item, str(store.runs_dir)) == "its record has changed"
    assert folder.exists()


def test_a_root_of_the_original_is_cleaned_by_the_same_rules(tmp_path: Path) -> None:
    store = StoredRoot(tmp_path / "root")
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(store.runs_dir, filter="data")
    for folder in runs.folders(str(store.runs_dir)):
        run = runs.read(folder)
        if run.text("status") in ("completed", "failed"):
            write_record(Path(folder), **{**run.record, "end_time": now_minus(9)})
    cleaned(store, "--keep-failed", "--keep", "1")
    assert names(store) == {
        "20261122-1948330000-17843-1",  # the newest of smoke
        "20261122-1948330000-17853-1", "20261122-1948330000-17863-1",  # failed
        "20261122-1948330000-17920-1", "20261122-1948340000-17933-2",
        "20261122-1950190000-22164-2",  # not begun
        "20261122-1950190000-22164-3",
        "20261122-1951100000-22164-4",  # its record says running
    }  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        ["--keep", "-1"],
        ["--bus-max-size", "big"],
        ["--older-than", "week"],
        ["--bus-max-size", "1XB"],
    ],
)
def test_wrong_usage_is_told(store: StoredRoot, options: list[str]) -> None:
    done = clean(store, *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


# -- buses


def test_a_bus_that_has_grown_goes_on_in_a_new_file_below_the_same_heading(
    store: StoredRoot,
) -> None:
    path = store.path / "MESSAGE-BUS.md"
    path.write_text("# Our bus\n\nRead me.\n")
    path.chmod(0o640)
    for n in range(30):
        bus.append(str(path), body=f"{n} {'x' * 100}", durable=False)
    small = store.task("small") / "TASK-MESSAGE-BUS.md"
    bus.append(str(small), body="x", durable=False)
    old = path.read_bytes()
    lines = cleaned(store, "--rotate-bus", "--bus-max-size", "4KB")
    assert lines[0].startswith(f"rotate bus {path} ")
    [archive] = store.path.glob("MESSAGE-BUS.md.*.archived")
    assert archive.read_bytes() == old
    assert path.read_text() == "# Our bus\n\nRead me."
    assert path.stat().st_mode & 0o777 == 0o640
    bus.append(str(path), body="after", durable=False)
    assert path.read_text().startswith("# Our bus\n\nRead me.\n")
    assert [m.body for m in bus.read(str(path))] == ["after"]
    assert [m.body[:2].strip() for m in bus.read(str(archive))] == [str(n) for n in range(30)]
    assert not list((store.runs_dir / "demo" / "small").glob("*.archived"))


def test_a_bus_whose_rotation_was_killed_is_rotated_once(store: StoredRoot) -> None:
    path = store.path / "MESSAGE-BUS.md"
    bus.append(str(path), body="x" * 3000, durable=False)
    options = ("--yes", "--rotate-bus", "--bus-max-size", "1KB")
    killed = clean(store, *options, env={"CONDUCTOR_FAULT": "kill:bus-archived"})
    assert killed.returncode == -signal.SIGKILL
    assert [m.body for m in bus.read(str(path))] == ["x" * 3000]
    bus.append(str(path), body="meanwhile", durable=False)
    assert clean(store, *options).returncode == 0
    [archive] = store.path.glob("*.archived")
    assert [m.body[:9] for m in bus.read(str(archive))] == ["x" * 9, "meanwhile"]
    assert list(bus.read(str(path))) == []


WRITER = """
n = 0
while not os.path.exists(sys.argv[3]):
    bus.append(sys.argv[2], body=f"{sys.argv[4]}-{n} " + "x" * 200, durable=False)
    n += 1
print(n)
"""
ROTATOR = """
def refuse(*_):
    raise PermissionError(1, "no second names here")
if sys.argv[4] == "no links":
    os.link = refuse
n = 0
while n < 5 and not os.path.exists(sys.argv[3]):
    n += bus.rotate(sys.argv[2], 1000) is not None
print(n)
"""


@pytest.mark.parametrize("links", ["links", "no links"])
def test_concurrent_writers_lose_no_message_to_rotations(store: StoredRoot, links: str) -> None:
    path, stop = str(store.path / "MESSAGE-BUS.md"), store.path / "stop"

    def start(code: str, argument: str) -> subprocess.Popen[bytes]:
        text = "import os, sys; sys.path.insert(0, sys.argv[1]); from lib import bus" + code
        words = [*PYTHON, "-c", text, str(ROOT), path, str(stop), argument]
        return subprocess.Popen(words, env=clean_environment(), stdout=subprocess.PIPE)

    def output(process: subprocess.Popen[bytes]) -> int:
        return int(process.communicate(timeout=60)[0])

    writers = [start(WRITER, str(number)) for number in range(3)]
    rotators = [start(ROTATOR, links) for _ in range(2)]
    try:
        rotations = sum(map(output, rotators))
    finally:
        stop.touch()
    counts = [output(writer) for writer in writers]
    files_of_it = [path, *map(str, store.path.glob("*.archived"))]
    assert (rotations, len(files_of_it)) == (10, 11)
    bodies = [m.body.split()[0] for name in files_of_it for m in bus.read(name)]
    assert sorted(bodies) == sorted(
        f"{writer}-{n}" for writer, count in enumerate(counts) for n in range(count)
    )


@pytest.mark.parametrize("options", [[], ["--yes"]])
def test_a_token_of_the_configuration_of_a_run_is_not_shown(
    store: StoredRoot, options: list[str]
) -> None:
    config = store.path / "config.yaml"
    config.write_text("agents:\n  claude:\n    token: quite-ordinary-words-only\n")
    store.run(task_id="quite-ordinary-words-only", config=str(config))
    store.run(name="run_20260101-120000-1-quite-ordinary-words-only")

    done = clean(store, *options)

    assert done.returncode == 0
    assert "[REDACTED]" in done.stdout
    assert "ordinary" not in done.stdout + done.stderr
