"""What check-storage finds: nothing in a sound storage, and each thing that is made wrong."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import (
    bus,
    files,
    ids,
    integrity,
    integrity_base,
    loop_record,
    procs,
    propagation,
    runs,
    state,
    tasks,
    yamlio,
)
from lib.integrity_base import NOTE, REPAIR, VIOLATION, Finding
from lib.loop_record import LoopRecord
from lib.state import PlanState, TaskState

SAMPLE = Path(__file__).parent.parent / "data" / "storage" / "go-storage-sample.tar.gz"
NOON = "2026-01-01T12:00:00Z"
TOKEN = "0123456789abcdef"
NOBODY = 2**22 + 1  # above every pid that Linux gives
RUN_A, RUN_B = "run_20260101-120000-1-a", "run_20260101-120000-1-b"


class Storage:
    """A root with a plan of two tasks that are done, by hand; `examine` looks once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"
        self.bus = root / "MESSAGE-BUS.md"
        self.runs.mkdir(parents=True)
        bus.append(str(self.bus), type_="INFO", body="begun")
        for run_id in (RUN_A, RUN_B):
            self.add_run(run_id)
        self.entries = {"a": self.entry("a", RUN_A), "b": self.entry("b", RUN_B)}
        self.save_plan()

    def add_run(self, run_id: str, **fields: object) -> Path:
        """A run that has ended well, with all that belongs to it."""
        path = self.runs / run_id
        path.mkdir(exist_ok=True)
        now = ids.rfc3339()
        self.write_record(path, start_time=now, end_time=now, **fields)
        for name in ("prompt.md", "output.md", "agent-stdout.txt"):
            (path / name).write_text("text\n")
        (path / "cwd.txt").write_text(f"RUN_ID={run_id}\nPID=5\nEXIT_CODE=0\n")
        for kind in ("RUN_START", "RUN_STOP"):
            self.post(run_id, kind)
        return path

    def write_record(self, path: Path, **fields: object) -> None:
        """The record with some keys changed; None takes a key out."""
        present = runs.read(str(path)).record
        record: dict[str, object] = {
            "version": 1, "run_id": path.name, "project_id": "p", "task_id": "a", "agent": "shell",
            "pid": 5, "pgid": 4, "start_time": NOON, "end_time": NOON, "exit_code": 0,
            "status": "completed", "prompt_path": f"{path}/prompt.md", "agent_version": "",
            "attempt_token": TOKEN, "bus": str(self.bus), "supervisor_pid": NOBODY,
            **procs.machine(), **present, **fields,
        }  # fmt: skip
        kept = {key: value for key, value in record.items() if value is not None}
        (path / runs.RECORD).write_text(yamlio.dump(kept))

    def change(self, run_id: str, /, **fields: object) -> None:
        self.write_record(self.runs / run_id, **fields)

    def post(self, run_id: str, kind: str) -> None:
        bus.append(str(self.bus), type_=kind, body="of a run", run=run_id, durable=False)

    def mark(self, run_id: str) -> None:
        (self.runs / runs.ACTIVE).mkdir(exist_ok=True)
        (self.runs / runs.ACTIVE / run_id).touch()

    def entry(self, task_id: str, *run_ids: str) -> TaskState:
        entry = TaskState()
        entry.state = state.DONE
        entry.attempts = [
            {"unit": task_id, "run": run_id, "token": TOKEN, "exit_code": 0, "result": "done"}
            for run_id in run_ids
        ]
        return entry

    def save_plan(self) -> None:
        plan = PlanState(str(self.runs), "p")
        plan.lock()
        plan.header = {"plan": "plan.yaml"}
        plan.tasks = self.entries
        for entry in self.entries.values():
            entry.changed()
        plan.finish()
        plan.close()

    def examine(self) -> list[Finding]:
        place = integrity_base.place_of(str(self.root))
        return integrity.examine(place, settle_seconds=0).findings

    def lines(self, *kinds: str) -> list[str]:
        return [f.line(str(self.root)) for f in self.examine() if not kinds or f.kind in kinds]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "root")


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mtime_ns, data)
    return found


def test_a_sound_storage_is_clean_and_is_not_touched(storage: Storage) -> None:
    before = tree(storage.root)

    assert storage.lines() == []
    assert tree(storage.root) == before


def test_counts_tell_what_was_looked_at(storage: Storage) -> None:
    report = integrity.examine(integrity_base.place_of(str(storage.root)))

    looked = (report.runs, report.live, report.messages, report.buses, report.plans)
    assert looked == (2, 0, 5, 1, 1)


def test_a_storage_that_was_moved_is_as_clean_as_before(storage: Storage, tmp_path: Path) -> None:
    storage.root.rename(tmp_path / "elsewhere")
    storage.root = tmp_path / "elsewhere"

    assert storage.lines() == []


# -- records and run folders: each change is one finding, of that kind, with these words


def fields(**changes: object) -> Callable[[Storage], None]:
    return lambda storage: storage.change(RUN_A, **changes)


def write(name: str, text: str) -> Callable[[Storage], object]:
    return lambda storage: (storage.runs / RUN_A / name).write_text(text)


def remove(name: str) -> Callable[[Storage], None]:
    return lambda storage: (storage.runs / RUN_A / name).unlink()


def failed_silently(storage: Storage) -> None:
    storage.change(RUN_A, status="failed", exit_code=3)
    (storage.runs / RUN_A / "cwd.txt").write_text("EXIT_CODE=3\n")
    storage.entries["a"].attempts[0]["result"] = "failed"
    storage.entries["a"].state = state.FAILED
    storage.save_plan()


RECORDS: dict[str, tuple[Callable[[Storage], object], str]] = {
    "unreadable": (write("run-info.yaml", "version: [\n"), "run-info.yaml"),
    "no time": (fields(end_time=ids.ZERO_TIME), "end_time is no time"),
    "backwards": (fields(start_time="2099-01-01T00:00:00Z"), "end_time is before start_time"),
    "other name": (fields(run_id="run_x"), "run_id is run_x"),
    "key gone": (fields(project_id=None), "project_id is missing"),
    "key of another type": (fields(pid="5"), "pid is missing, or no whole number"),
    "completed with 3": (fields(exit_code=3), "completed with exit code 3"),
    "completed, unknown code": (fields(exit_code=-1), "completed with exit code -1"),
    "failed, no reason": (failed_silently, "no reason is given"),
    "no answer": (remove("output.md"), "output.md: missing"),
    "no prompt": (remove("prompt.md"), "prompt.md: missing"),
    "no cwd.txt": (remove("cwd.txt"), "cwd.txt: missing"),
    "no code": (write("cwd.txt", "PID=5\n"), "0 lines EXIT_CODE="),
    "two codes": (write("cwd.txt", "EXIT_CODE=0\nEXIT_CODE=0\n"), "2 lines EXIT_CODE="),
    "another code": (write("cwd.txt", "PID=5\nEXIT_CODE=4\n"), "EXIT_CODE=4, but the record says"),
    "a lock": (write(runs.LOCK, ""), ".lock: left after the end"),
    "a pid": (write(runs.PID, "5\n"), "pid.txt: left after the end"),
    "a code of the guard": (write(runs.EXIT_CODE, "0\n"), ".exit-code: left after the end"),
    "a temporary": (write(".output.md.7.tmp", "x"), ".output.md.7.tmp: left after the end"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_each_thing_wrong_with_a_run_is_a_violation(storage: Storage, name: str) -> None:
    spoil, text = RECORDS[name]
    spoil(storage)

    lines = storage.lines(VIOLATION)

    assert [line for line in lines if text in line and line.startswith(f"runs/{RUN_A}/")], lines
    assert all(RUN_A in line for line in lines), lines


def test_a_recovered_run_may_be_completed_without_a_known_code(storage: Storage) -> None:
    storage.change(RUN_A, exit_code=-1, recovered=True)
    (storage.runs / RUN_A / "cwd.txt").write_text("EXIT_CODE=-1\n")

    assert storage.lines() == []


def test_a_run_that_never_began_needs_no_prompt_and_no_token(storage: Storage) -> None:
    storage.change(RUN_A, status="failed", exit_code=-1, error_summary=runs.NEVER_STARTED,
                   attempt_token=None)  # fmt: skip
    (storage.runs / RUN_A / "prompt.md").unlink()
    (storage.runs / RUN_A / "cwd.txt").write_text("EXIT_CODE=-1\n")
    storage.entries["a"].attempts[0]["result"] = "failed"
    storage.entries["a"].state = state.FAILED
    storage.save_plan()

    assert storage.lines() == []


# -- what waits for a repair


def test_an_ended_run_whose_record_says_running_waits_for_a_repair(storage: Storage) -> None:
    storage.change(RUN_A, status="running", exit_code=-1, end_time=ids.ZERO_TIME, pid=NOBODY)
    storage.mark(RUN_A)

    [line] = storage.lines(REPAIR)

    assert line.startswith(f"repair: runs/{RUN_A}: needs repair: it has ended")
    assert storage.lines(VIOLATION) == []


def test_without_its_mark_no_repair_will_ever_find_it(storage: Storage) -> None:
    storage.change(RUN_A, status="running", exit_code=-1, end_time=ids.ZERO_TIME, pid=NOBODY)

    [line] = storage.lines(VIOLATION)

    assert "no mark will lead a repair to it" in line


def test_marks_and_allocated_folders_are_told_apart(storage: Storage) -> None:
    (storage.runs / "run_20260101-120000-7").mkdir()
    storage.mark("run_20260101-120000-7")
    storage.mark("run_20260101-120000-8")
    storage.mark(RUN_B)
    (storage.runs / "run_20260101-120000-9").mkdir()

    lines = storage.lines()

    assert [line.split(":")[0] for line in lines] == [
        f"runs/{name}" for name in ("run_20260101-120000-9",)
    ] + ["repair"] * 3
    assert "the mark of a run whose folder is gone" in str(lines)
    assert "what comes after that is not done" in str(lines)
    assert "before it could begin" in str(lines)


def test_a_run_that_is_held_is_alive_and_not_judged(storage: Storage) -> None:
    run, lock = runs.allocate(str(storage.runs), "c")
    try:
        report = integrity.examine(integrity_base.place_of(str(storage.root)))
    finally:
        os.close(lock)

    assert (report.findings, report.live) == ([], 1)
    assert storage.lines(REPAIR) != []
    assert not os.path.exists(run.file(runs.RECORD))


def test_a_living_agent_without_supervisor_needs_its_mark(storage: Storage) -> None:
    me = os.getpid()
    storage.change(RUN_A, status="running", exit_code=-1, end_time=ids.ZERO_TIME, pid=me,
                   agent_start=procs.start_time(me))  # fmt: skip
    assert "no mark will lead a repair to it" in str(storage.lines(VIOLATION))
    storage.mark(RUN_A)

    [line] = storage.lines(VIOLATION)

    assert f"attempt {RUN_A} is settled, and its run is still alive" in line


# -- loops

TRY_A, TRY_B = "20260101-1200000000-1-1", "20260101-1200000000-1-2"


def add_loop(storage: Storage) -> LoopRecord:
    """A task `t` that is done, after two attempts."""
    record = LoopRecord(tasks.locate(str(storage.runs), "p", "t"))
    folder = Path(record.task.runs_dir)
    folder.mkdir(parents=True)
    for name, before in ((TRY_A, None), (TRY_B, TRY_A)):
        path = storage.add_run(name, task_id="t", previous_run_id=before)
        path.rename(folder / name)
        attempt = {"run": name, "token": TOKEN, "result": "done", "exit_code": 0}
        record.attempts.append(attempt)
    record.fields["state"] = loop_record.DONE
    record.save()
    return record


def tell_completion(record: LoopRecord) -> None:
    meta = {"kind": propagation.KIND, "source_task_id": "t", "source_done_mtime": NOON}
    bus.append(record.task.project_bus, type_="FACT", body="done", meta=meta)


def test_a_sound_loop_is_clean(storage: Storage) -> None:
    tell_completion(add_loop(storage))

    assert storage.lines() == []


@pytest.mark.parametrize(
    ("attempt", "text"),
    [
        ({"exit_code": 5}, f"attempt {TRY_A} is noted with exit code 5, its run with 0"),
        ({"token": "other"}, f"attempt {TRY_A} and its run have different tokens"),
        ({"result": "failed"}, f"attempt {TRY_A} is noted as failed, its run as completed"),
        ({"run": "gone"}, "attempt gone has no run folder"),
        ({"run": TRY_B}, f"attempt {TRY_B} is noted twice"),
    ],
)
def test_an_attempt_of_a_loop_that_its_run_contradicts_is_found(
    storage: Storage, attempt: dict[str, object], text: str
) -> None:
    record = add_loop(storage)
    record.attempts[0].update(attempt)
    record.save()

    assert text in str(storage.lines(VIOLATION))


def test_attempts_that_follow_the_same_one_are_found(storage: Storage) -> None:
    record = add_loop(storage)
    path = Path(record.task.runs_dir)
    storage.write_record(path / TRY_A, previous_run_id="x")
    storage.write_record(path / TRY_B, previous_run_id="x")

    [line] = storage.lines(VIOLATION)

    assert f"attempts {TRY_A} and {TRY_B} both follow x" in line


def test_one_that_was_never_started_may_be_followed_by_another(storage: Storage) -> None:
    record = add_loop(storage)
    path = Path(record.task.runs_dir)
    failed = {"status": "failed", "exit_code": -1, "error_summary": runs.NEVER_STARTED}
    storage.write_record(path / TRY_A, previous_run_id="x", **failed)
    storage.write_record(path / TRY_B, previous_run_id="x")
    (path / TRY_A / runs.CWD).write_text("EXIT_CODE=-1\n")
    record.attempts[0].update(result="failed", exit_code=-1)
    record.save()

    assert storage.lines() == []


def test_a_completion_that_was_told_twice_is_found(storage: Storage) -> None:
    record = add_loop(storage)
    tell_completion(record)
    tell_completion(record)

    [line] = storage.lines(VIOLATION)

    assert line.startswith("runs/p/PROJECT-MESSAGE-BUS.md: task t: ")


def test_a_loop_that_nobody_goes_on_with_is_a_note(storage: Storage) -> None:
    record = add_loop(storage)
    record.fields["state"] = loop_record.RUNNING
    record.attempts[1]["result"] = "running"
    record.save()

    assert len(storage.lines(NOTE)) == len(storage.lines()) == 2


def test_the_damaged_record_of_a_loop_is_found(storage: Storage) -> None:
    record = add_loop(storage)
    Path(record.task.file(tasks.LOOP)).write_text("attempts: none\n")

    [line] = storage.lines(VIOLATION)

    assert "its attempts are no list" in line


def test_marks_of_task_folders_are_looked_at(storage: Storage) -> None:
    record = add_loop(storage)
    folder = Path(record.task.runs_dir, runs.ACTIVE)
    folder.mkdir()
    (folder / "20260101-1200000000-1-3").touch()

    [line] = storage.lines(REPAIR)

    assert "the mark of a run whose folder is gone" in line


# -- the bus


def test_a_torn_record_behind_a_fence_is_a_note(storage: Storage) -> None:
    text = storage.bus.read_bytes()
    at = len(text)
    cut = b"\n---\nmsg_id: MSG-20990101-120000-000000001-PID00001-0001\nts: 2099-01-01T"
    storage.bus.write_bytes(text + cut)
    assert "is not finished" in str(storage.lines())

    bus.append(str(storage.bus), type_="INFO", body="next")

    [line] = storage.lines()
    assert line.startswith(f"note: MESSAGE-BUS.md: the record at byte {at + 1} is torn")


def test_two_torn_records_are_two_notes(storage: Storage) -> None:
    for number in (1, 2):
        with storage.bus.open("ab") as file:
            file.write(b"\n---\nmsg_id: MSG-20990101-120000-00000000%d-PID00001-0001\n" % number)
        bus.append(str(storage.bus), type_="INFO", body="next")

    assert len(storage.lines(NOTE)) == len(storage.lines()) == 2


def test_a_record_that_was_cut_without_a_writer_is_a_violation(storage: Storage) -> None:
    bus.append(str(storage.bus), type_="INFO", body="a body that somebody shortens\nby a line")
    bus.append(str(storage.bus), type_="INFO", body="next")
    text = storage.bus.read_bytes()
    storage.bus.write_bytes(text.replace(b"a body that somebody shortens\n", b""))

    [line] = storage.lines(VIOLATION)

    assert "is damaged" in line


def test_ids_that_do_not_grow_or_come_twice_are_violations(storage: Storage) -> None:
    text = storage.bus.read_bytes()
    records = text[text.index(b"---\n") :]
    storage.bus.write_bytes(text + b"\n" + records)

    text_of_all = str(storage.lines(VIOLATION))

    assert "stands there twice" in text_of_all
    assert "is not above MSG-" in text_of_all
    assert "2 RUN_START" in text_of_all
    assert "2 RUN_STOP or RUN_CRASH" in text_of_all


def test_a_run_without_an_end_on_its_bus_is_a_violation(storage: Storage) -> None:
    text = storage.bus.read_text()
    storage.bus.write_text(text.replace("type: RUN_STOP", "type: RUN_STOPPED"))

    assert [line.count("neither RUN_STOP nor RUN_CRASH") for line in storage.lines()] == [1, 1]


def test_a_bus_that_was_down_or_begun_anew_is_not_held_against_a_run(storage: Storage) -> None:
    (storage.runs / RUN_A / "supervisor.log").write_text("RUN_STOP could not be posted to x: full")
    storage.bus.unlink()
    assert storage.lines() == []

    bus.append(str(storage.bus), type_="INFO", body="begun again, after both runs")

    assert storage.lines() == []


def test_what_was_rotated_away_still_counts(storage: Storage) -> None:
    storage.bus.rename(f"{storage.bus}.20260101-120000.archived")
    bus.append(str(storage.bus), type_="INFO", body="begun again")

    assert storage.lines() == []


def test_a_parent_that_is_nowhere_is_a_note(storage: Storage) -> None:
    first = next(bus.read(str(storage.bus))).msg_id
    bus.append(str(storage.bus), type_="INFO", body="answer", parents=[first, "MSG-gone"])

    [line] = storage.lines()

    assert line.startswith("note: ")
    assert "MSG-gone" in line


# -- the plan


def second_attempt(storage: Storage) -> None:
    run_id = "run_20260101-120000-2-a"
    storage.add_run(run_id)
    storage.entries["a"] = storage.entry("a", RUN_A, run_id)


def share_a_run(storage: Storage) -> None:
    storage.entries["b"].attempts[0]["run"] = RUN_A


def change_attempt(**changes: object) -> Callable[[Storage], None]:
    return lambda storage: storage.entries["a"].attempts[0].update(changes)


def fail_the_run(storage: Storage) -> None:
    storage.change(RUN_A, status="failed", exit_code=1, error_summary="broken")
    (storage.runs / RUN_A / "cwd.txt").write_text("EXIT_CODE=1\n")


PLANS: dict[str, tuple[Callable[[Storage], object], str]] = {
    "done twice": (second_attempt, "a was done 2 times"),
    "shared run": (share_a_run, f"run {RUN_A} is an attempt of a and of b"),
    "other token": (change_attempt(token="f" * 16), "different tokens"),
    "no folder": (change_attempt(run="run_20260101-120000-3-a"), "has no run folder"),
    "done without proof": (change_attempt(result="failed"), "task a is done, and no attempt"),
    "done by a failed run": (fail_the_run, "is done, but its run has failed"),
}


@pytest.mark.parametrize("name", PLANS)
def test_each_thing_wrong_with_a_plan_is_a_violation(storage: Storage, name: str) -> None:
    spoil, text = PLANS[name]
    spoil(storage)
    storage.save_plan()

    lines = storage.lines(VIOLATION)

    assert [line for line in lines if text in line and line.startswith("runs/p/PLAN-STATE")], lines
    assert len(lines) == 1, lines


def test_void_attempts_may_come_twice(storage: Storage) -> None:
    second_attempt(storage)
    storage.entries["a"].attempts[0]["result"] = "void"
    storage.save_plan()

    assert storage.lines() == []


def test_a_damaged_state_is_a_violation(storage: Storage) -> None:
    path = storage.runs / "p" / "PLAN-STATE.yaml"
    path.write_text(path.read_text().replace("complete: true", ""))

    [line] = storage.lines(VIOLATION)

    assert "damaged plan state" in line


def test_a_plan_that_nobody_runs_is_to_be_started_again(storage: Storage) -> None:
    storage.entries["a"].attempts[0]["result"] = "running"
    storage.entries["a"].state = state.RUNNING
    storage.save_plan()
    (storage.runs / "a.pid").write_text(f"{NOBODY}\n")

    repair, note = storage.lines()

    assert repair.startswith("repair: runs/a.pid: needs repair: stands for no living run")
    assert "nobody runs the plan; start the plan again" in note


def test_a_plan_that_is_held_must_see_that_its_run_has_ended(storage: Storage) -> None:
    storage.entries["a"].attempts[0]["result"] = "running"
    storage.entries["a"].state = state.RUNNING
    storage.save_plan()
    lock = files.open_lock(str(storage.runs / "p" / "PLAN.lock"))
    files.lock(lock, 1.0, "the plan")
    try:
        [line] = storage.lines()
        (storage.runs / RUN_A / "verify.txt").write_text("$ true\n")
        assert storage.lines() == []
        (storage.runs / RUN_A).rename(storage.root / "away")
        [without] = storage.lines()
    finally:
        os.close(lock)

    assert "takes no notice" in line
    assert "is under way, and has no run folder" in without


def test_a_pid_file_that_stands_for_nothing_is_a_violation(storage: Storage) -> None:
    (storage.runs / "a.pid").write_text(f"{NOBODY}\n")

    assert storage.lines() == ["runs/a.pid: stands for no living run; remove it"]


# -- others' storages, and hostile ones


def test_a_storage_of_the_go_original_gives_no_false_alarm(tmp_path: Path) -> None:
    with tarfile.open(SAMPLE) as sample:
        sample.extractall(tmp_path, filter="data")

    report = integrity.examine(integrity_base.place_of(str(tmp_path)), settle_seconds=0)

    assert report.is_clean, report.findings
    assert report.runs > 5
    assert report.messages > 20
    [note] = report.findings
    assert "its record says running" in note.what


def test_runs_of_the_shell_original_are_runs(storage: Storage) -> None:
    path = storage.runs / "run_20250101-120000-17"
    path.mkdir()
    rows = {"RUN_ID": path.name, "CWD": "/tmp", "AGENT": "codex", "PID": NOBODY, "EXIT_CODE": 1}
    (path / "cwd.txt").write_text("".join(f"{key}={value}\n" for key, value in rows.items()))

    assert storage.lines() == []


def test_hostile_names_and_texts_stay_on_one_harmless_line(storage: Storage) -> None:
    path = storage.runs / "run_20260101-120000-4-\x1b[31m\nx"
    path.mkdir()
    storage.change(RUN_A, run_id="run\n\x1b]0;title\x07")

    for line in storage.lines(VIOLATION):
        assert line.isprintable(), line


def test_what_is_no_file_is_told_and_hangs_nobody(storage: Storage) -> None:
    (storage.runs / RUN_A / "cwd.txt").unlink()
    os.mkfifo(storage.runs / RUN_A / "cwd.txt")
    os.mkfifo(storage.runs / "a.pid")
    storage.bus.unlink()
    os.mkfifo(storage.bus)

    text = str(storage.lines(VIOLATION))

    assert "cwd.txt: cannot be read: not a regular file" in text
    assert "MESSAGE-BUS.md: cannot be read" in text
    assert "runs/a.pid: stands for no living run" in text
