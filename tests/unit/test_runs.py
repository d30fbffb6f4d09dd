"""Run folders without a process: records, states, selection, and what is shown of them."""

from __future__ import annotations

import json
import os
import random
import tarfile
from pathlib import Path

import pytest

from lib import files, ids, listing, procs, runs, shown, textual, yamlio
from lib.errors import UserError

SAMPLE = Path(__file__).parent.parent / "data" / "storage" / "go-storage-sample.tar.gz"
SECRET = "sk-ant-api03-abcdefghijklmnop"
NOON = 1_767_268_800  # 2026-01-01T12:00:00Z


def make_run(folder: Path, name: str, **fields: object) -> Path:
    """A run folder with a record; a key set to None is left out."""
    path = folder / name
    path.mkdir(parents=True)
    record: dict[str, object] = {
        "version": 1,
        "run_id": name,
        "project_id": "demo",
        "task_id": "build",
        "agent": "shell",
        "pid": 0,
        "pgid": 0,
        "start_time": runs.time_from_name(name),
        "end_time": ids.ZERO_TIME,
        "exit_code": -1,
        "status": "running",
        **procs.machine(),
        **fields,
    }
    kept = {key: value for key, value in record.items() if value is not None}
    (path / runs.RECORD).write_text(yamlio.dump(kept))
    return path


def state_of(path: Path) -> runs.State:
    return runs.state(runs.read(str(path)))


def names_of(rows: list[listing.Row]) -> list[str]:
    return [row.run.run_id for row in rows]


def stamp(seconds: float) -> str:
    return f"run_{ids.stamp(seconds)}"


# -- the record before the agent starts


@pytest.mark.parametrize("filling", ["", "x" * 5000])
def test_a_record_begins_without_pids_and_then_has_them(tmp_path: Path, filling: str) -> None:
    run, lock = runs.allocate(str(tmp_path))
    run.record = {"version": 1, "agent": "shell", "start_time": "now", "cwd": filling}
    runs.begin_record(run)
    assert runs.read(run.path).record == run.record
    runs.extend_record(run, {"pid": 5, "pgid": 4})
    os.close(lock)
    assert runs.read(run.path).record == run.record
    assert list(run.record) == ["version", "agent", "pid", "pgid", "start_time", "cwd"]


def test_an_empty_record_is_one_that_is_still_to_come(tmp_path: Path) -> None:
    run, lock = runs.allocate(str(tmp_path))
    Path(run.file(runs.RECORD)).touch()
    assert state_of(Path(run.path)).holder == "supervisor"
    os.close(lock)
    state = state_of(Path(run.path))
    assert (state.status, state.reason) == (runs.FAILED, runs.NEVER_STARTED)


# -- the true state


def test_a_held_lock_means_running_even_without_a_record(tmp_path: Path) -> None:
    run, lock = runs.allocate(str(tmp_path), "build")
    try:
        state = state_of(Path(run.path))
        assert (state.status, state.holder) == (runs.RUNNING, "supervisor")
    finally:
        os.close(lock)
    state = state_of(Path(run.path))
    assert (state.status, state.reason) == (runs.FAILED, runs.NEVER_STARTED)


def test_a_living_agent_means_running_by_the_agent(tmp_path: Path) -> None:
    me = os.getpid()
    path = make_run(tmp_path, "run_20260101-120000-1", pid=me, agent_start=procs.start_time(me))

    state = state_of(path)

    assert (state.status, state.holder) == (runs.RUNNING, "agent")


@pytest.mark.parametrize(
    "wrong", [{"agent_start": "1"}, {"boot_id": "another"}], ids=["reused pid", "earlier boot"]
)
def test_a_pid_alone_does_not_make_a_run_live(tmp_path: Path, wrong: dict[str, str]) -> None:
    me = os.getpid()
    fields: dict[str, object] = {"pid": me, "agent_start": procs.start_time(me), **wrong}
    path = make_run(tmp_path, "run_20260101-120000-1", **fields)

    state = state_of(path)

    assert (state.status, state.exit_code) == (runs.FAILED, None)
    assert state.reason == runs.SUPERVISOR_LOST
    assert state.ended_unrecorded


@pytest.mark.parametrize("key", ["host", "pid_namespace"])
def test_a_record_of_another_place_is_unknown(tmp_path: Path, key: str) -> None:
    me = os.getpid()
    fields: dict[str, object] = {"pid": me, "agent_start": procs.start_time(me), key: "elsewhere"}
    path = make_run(tmp_path, "run_20260101-120000-1", **fields)

    state = state_of(path)

    assert (state.status, state.holder) == (runs.UNKNOWN, "")


@pytest.mark.parametrize(("code", "status"), [(0, runs.COMPLETED), (3, runs.FAILED)])
def test_the_code_that_the_guard_left_decides(tmp_path: Path, code: int, status: str) -> None:
    path = make_run(tmp_path, "run_20260101-120000-1", pid=2**22 + 1, agent_start="1")
    (path / runs.EXIT_CODE).write_text(f"{code}\n")

    state = state_of(path)

    assert (state.status, state.exit_code, state.ended_unrecorded) == (status, code, True)


def test_half_an_exit_code_is_none(tmp_path: Path) -> None:
    path = make_run(tmp_path, "run_20260101-120000-1", pid=2**22 + 1, agent_start="1")
    (path / runs.EXIT_CODE).write_text("1")  # of 137

    assert state_of(path).exit_code is None


# -- records of others


def test_a_run_of_the_shell_original_is_read_from_cwd_txt(tmp_path: Path) -> None:
    path = tmp_path / "run_20260101-120000-77"
    path.mkdir()
    lines = ["RUN_ID=run_20260101-120000-77", "CWD=/src/My App", "AGENT=codex", "PID=77"]
    (path / runs.CWD).write_text("\n".join([*lines, "EXIT_CODE=3", ""]))

    row = listing.Row(runs.read(str(path)))

    assert listing.place(row.run) == ("my-app", "run_20260101-120000-77")
    assert (row.state.status, listing.known_code(row.state)) == (runs.FAILED, 3)
    assert row.started == NOON * ids.NANOSECONDS


def test_the_storage_of_the_original_is_listed_under_its_projects(tmp_path: Path) -> None:
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(tmp_path, filter="data")

    rows, more = listing.select(str(tmp_path), listing.Wanted())

    assert (len(rows), more) == (12, 0)
    assert {listing.place(row.run)[0] for row in rows} == {"demo", "web"}
    by_name = {row.run.run_id: row for row in rows}
    failing = by_name["20261122-1948330000-17853-1"]
    assert (failing.state.status, listing.known_code(failing.state)) == (runs.FAILED, 3)
    without_record = by_name["20261122-1950190000-22164-2"]
    assert listing.place(without_record.run) == ("web", "task-20260101-000011-dep")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\0",
        b"status: [unclosed",
        b"- a\n- list\n",
        b"a: 1\na: 2\n",
        b"pid: " + b"9" * 5000,
    ],
    ids=["no text", "no YAML", "no mapping", "a key twice", "an endless number"],
)
def test_an_unreadable_record_is_unknown_and_hides_no_other(tmp_path: Path, content: bytes) -> None:
    make_run(tmp_path, "run_20260101-120000-1", status="completed", exit_code=0)
    bad = make_run(tmp_path, "run_20260101-120001-2")
    (bad / runs.RECORD).write_bytes(content)

    rows, _ = listing.select(str(tmp_path), listing.Wanted())

    assert [row.state.status for row in rows] == [runs.UNKNOWN, runs.COMPLETED]
    assert rows[0].state.reason


def test_an_odd_lock_file_makes_one_run_unknown(tmp_path: Path) -> None:
    path = make_run(tmp_path, "run_20260101-120000-1")
    (path / runs.LOCK).symlink_to(runs.LOCK)

    rows, _ = listing.select(str(tmp_path), listing.Wanted())

    assert [row.state.status for row in rows] == [runs.UNKNOWN]


# -- finding one


def test_any_unique_part_of_an_id_finds_the_run(tmp_path: Path) -> None:
    make_run(tmp_path, "run_20260101-120000-1")
    make_run(tmp_path, "run_20260101-120000-1-build")

    assert listing.find(str(tmp_path), "build").run_id == "run_20260101-120000-1-build"
    exact = listing.find(str(tmp_path), "run_20260101-120000-1")
    assert exact.run_id == "run_20260101-120000-1"
    by_path = listing.find(str(tmp_path), f"{tmp_path}/run_20260101-120000-1-build/")
    assert by_path.run_id == "run_20260101-120000-1-build"


def test_an_ambiguous_and_an_unknown_part_are_one_line_each(tmp_path: Path) -> None:
    for n in range(5):
        make_run(tmp_path, f"run_20260101-120000-{n}")

    with pytest.raises(UserError, match="names 5 runs"):
        listing.find(str(tmp_path), "120000")
    with pytest.raises(UserError, match="no run 'nothing'"):
        listing.find(str(tmp_path), "nothing")


# -- selecting


def test_newest_is_by_start_time_and_not_by_name(tmp_path: Path) -> None:
    slow = ids.rfc3339((NOON + 40) * ids.NANOSECONDS)
    make_run(tmp_path, f"{stamp(NOON)}-1", start_time=slow)
    make_run(tmp_path, f"{stamp(NOON + 30)}-2")
    make_run(tmp_path / "p" / "t" / "runs", f"{ids.stamp(NOON + 35)}1234-9-1")

    rows, more = listing.select(str(tmp_path), listing.Wanted(), 2)

    assert names_of(rows) == [f"{stamp(NOON)}-1", f"{ids.stamp(NOON + 35)}1234-9-1"]
    assert more == 1
    assert listing.newest(str(tmp_path)).run_id == f"{stamp(NOON)}-1"


@pytest.mark.parametrize("seed", range(5))
def test_a_few_of_many_are_the_same_as_the_head_of_all(tmp_path: Path, seed: int) -> None:
    """Reading only as much as a limit needs must never leave out a newer run."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for n in range(60):
        made = NOON + chance.randrange(600)
        began = made * ids.NANOSECONDS + chance.randrange(listing.START_DELAY_NS)
        name = f"{stamp(made)}-{n}" if n % 10 else f"run_by-hand-{n}"
        make_run(tmp_path, name, start_time=ids.rfc3339(began))
    everything, _ = listing.select(str(tmp_path), listing.Wanted())

    for limit in (1, 5, 59, 60, 100):
        rows, more = listing.select(str(tmp_path), listing.Wanted(), limit)
        assert names_of(rows) == names_of(everything)[:limit]
        assert more == max(0, 60 - limit)


def test_a_limit_reads_few_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(300):
        (tmp_path / f"{stamp(NOON + 10 * n)}-{n}").mkdir()
    read_paths = []

    def counting_read(path: str) -> runs.Run:
        read_paths.append(path)
        return runs.Run(path, {})

    monkeypatch.setattr(runs, "read", counting_read)
    rows, more = listing.select(str(tmp_path), listing.Wanted(), 10)

    assert (len(rows), more) == (10, 290)
    assert len(read_paths) < 20


def test_every_filter_admits_only_its_own(tmp_path: Path) -> None:
    make_run(tmp_path, f"{stamp(NOON)}-1", project_id="other", status="completed")
    make_run(tmp_path, f"{stamp(NOON + 1)}-2", task_id="lint", status="failed")
    make_run(tmp_path, f"{stamp(NOON + 2)}-3", agent_name="shell-2", parent_run_id="p")

    def chosen(wanted: listing.Wanted) -> list[str]:
        rows, _ = listing.select(str(tmp_path), wanted)
        return [name[-1] for name in names_of(rows)]

    after = (NOON + 1) * ids.NANOSECONDS
    assert chosen(listing.Wanted(project="other")) == ["1"]
    assert chosen(listing.Wanted(task="lint")) == ["2"]
    assert chosen(listing.Wanted(agent="shell-2")) == ["3"]
    assert chosen(listing.Wanted(agent="shell")) == ["3", "2", "1"]
    assert chosen(listing.Wanted(parent="p")) == ["3"]
    assert chosen(listing.Wanted(statuses=["failed", "completed"])) == ["3", "2", "1"]
    assert chosen(listing.Wanted(statuses=["completed"])) == ["1"]
    assert chosen(listing.Wanted(since=after)) == ["3", "2"]
    assert chosen(listing.Wanted(until=after)) == ["2", "1"]


def test_since_takes_durations_dates_and_times() -> None:
    now = NOON * ids.NANOSECONDS
    assert listing.parse_since("2h", now) == (NOON - 7200) * ids.NANOSECONDS
    assert listing.parse_since("2026-01-01", now) == (NOON - 43200) * ids.NANOSECONDS
    assert listing.parse_since("2026-01-01T12:00", now) == now
    assert listing.parse_since("2026-01-01T13:00:00+01:00", now) == now
    assert listing.parse_since("yesterday", now) is None


def test_a_named_folder_that_is_missing_is_an_error_and_a_default_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_ROOT", str(tmp_path))
    monkeypatch.delenv("JRUN_RUNS_DIR", raising=False)

    assert listing.runs_folder(None, None) == str(tmp_path / "runs")
    with pytest.raises(UserError, match="no runs folder"):
        listing.runs_folder(str(tmp_path), None)


# -- what is shown of a run


def test_json_of_a_run_is_redacted_valid_and_without_controls(tmp_path: Path) -> None:
    fields = {"commandline": f"tool --token {SECRET}\x7f", "cost_usd": float("nan")}
    make_run(tmp_path, "run_20260101-120000-1", status="failed", **fields)
    (row,) = listing.select(str(tmp_path), listing.Wanted())[0]

    line = listing.to_json(listing.as_dict(row))

    assert SECRET not in line
    assert line.removesuffix("\n").isprintable()
    loaded = json.loads(line)
    assert (loaded["status"], loaded["exit_code"], loaded["cost_usd"]) == ("failed", None, None)
    assert (loaded["path"], loaded["alive_by"]) == (str(tmp_path / "run_20260101-120000-1"), "")


def test_numbers_are_shown_only_where_they_are_known() -> None:
    empty = runs.Run("/x", {})
    known = runs.Run("/x", {"input_tokens": 5, "output_tokens": 7, "cost_usd": 0.5})
    assert (listing.tokens(empty), listing.cost(empty)) == ("-", "-")
    assert (listing.tokens(known), listing.cost(known)) == ("5/7", "$0.5000")
    assert listing.cost(runs.Run("/x", {"cost_usd": float("inf")})) == "-"
    assert listing.known_code(runs.State(runs.FAILED, -1)) is None
    assert listing.clock(0) == "-"


# -- what is shown of a file


def test_a_tail_is_the_last_lines_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("".join(f"line {n}\n" for n in range(50_000)) + "unfinished")

    assert shown.tail(str(path), 3) == ["line 49998", "line 49999", "unfinished"]
    assert len(shown.tail(str(path), 60_000)) == 50_001
    assert shown.tail(str(tmp_path / "missing"), 3) == []


def test_a_tail_shows_no_part_of_a_secret_that_begins_before_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    filler = "word\n" * 30_000
    key = "\n".join(["-----BEGIN RSA PRIVATE KEY-----", *["QUJD" * 16] * 40])
    path.write_text(f"{filler}{key}\n-----END RSA PRIVATE KEY-----\nlast {SECRET}\n")

    text = "\n".join(shown.tail(str(path), 20))

    assert "QUJD" not in text
    assert SECRET not in text
    assert "last [REDACTED]" in text


def test_the_end_of_one_endless_line_is_shown_without_half_a_token(tmp_path: Path) -> None:
    path = tmp_path / "file"
    size = shown.WINDOW_BYTES[1]
    tail = SECRET.encode() + b" " + b"x " * (size // 2)
    path.write_bytes(b"y " * 1000 + tail[: size + 10])  # the window begins within the token

    text = "".join(shown.tail(str(path), 5))

    assert "abcdef" not in text
    assert "klmnop" not in text
    assert text.endswith("x x ")


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.mkdir()

    with pytest.raises(UserError, match="is not shown"):
        shown.tail(str(path), 3)


def test_a_growing_file_is_redacted_across_its_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    growing = shown.Growing(str(path))
    pieces: list[str] = []
    growing.copy(pieces.append)  # not there yet
    for part in (b"a\xc3", b"\xa9 " + SECRET[:12].encode(), SECRET[12:].encode() + b"\n", b"rest"):
        with path.open("ab") as file:
            file.write(part)
        growing.copy(pieces.append)

    assert "".join(pieces) == "a\u00e9 [REDACTED]\n"
    assert growing.finish() == "rest"


def test_a_replaced_file_is_shown_anew_and_a_cut_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one\ntwo\n")
    growing = shown.Growing(str(path))
    pieces: list[str] = []
    growing.copy(pieces.append)
    path.write_text("one\n")  # cut: rendered anew
    growing.copy(pieces.append)
    path.write_text("one\ntwo\nthree\n")
    growing.copy(pieces.append)
    assert "".join(pieces) == "one\ntwo\nthree\n"

    files.replace_file(str(path), b"another\n")
    growing.copy(pieces.append)

    assert "".join(pieces) == "one\ntwo\nthree\nanother\n"


# -- text in columns


def test_a_table_shortens_its_last_column_alone() -> None:
    rows = [["id", "why"], ["\u4e2d\u6587", "x" * 50]]
    assert textual.table(rows, 20) == ["id    why", "\u4e2d\u6587  " + "x" * 13 + "…"]
    assert textual.table(rows)[1].endswith("x" * 50)
    assert textual.table([]) == []


def test_what_is_cut_fits() -> None:
    for text in ("plain text", "e\u0301e\u0301e\u0301", "\u4e2d\u6587\u4e2d", "a\u4e2db"):
        for columns in range(6):
            assert textual.width(textual.cut(text, columns)) <= columns
        assert textual.cut(text, 100) == text


def test_durations_stay_short() -> None:
    assert [textual.duration(n) for n in (4.21, 187, 7500)] == ["4.2s", "3m07s", "2h05m"]
