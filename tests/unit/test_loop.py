"""What a loop makes of the end of an attempt; the loops of processes are in tests/integration."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lib import files, ids, loop_record, runs, sessions, tasks
from lib.config import Config
from lib.errors import UserError
from lib.loop import Ended, Loop
from lib.loop_record import LoopRecord
from lib.loop_settings import Settings
from lib.runner import Request
from lib.spawner import Spawner
from tests.helpers import ROOT

TOLD: list[str] = []


def make(folder: Path, **chosen: object) -> Loop:
    """A loop that has not begun; nothing of it is a process."""
    record = LoopRecord(tasks.locate(str(folder), "p", "t"))
    (folder / "p" / "t").mkdir(parents=True)
    settings = Settings(agent="fake", prompt=b"x", cwd=str(folder), **chosen)  # type: ignore[arg-type]
    return Loop(record, settings, Config(), Spawner(str(ROOT)), TOLD.append)


def settle(loop: Loop, *, is_past: bool = False, **record: object) -> loop_record.Attempt:
    """Have the loop settle an attempt whose run has that record."""
    attempt: loop_record.Attempt = {"run": "r", "token": "1", "result": "running"}
    loop.record.attempts.append(attempt)
    fields = {"status": "failed", "exit_code": 1, "end_time": "2026-02-23T20:48:59Z", **record}
    run = runs.Run(f"{loop.task.runs_dir}/r", fields)
    loop._settle(attempt, run, runs.state(run), is_past)
    return attempt


@pytest.mark.parametrize("error_class", ["login", "not-installed", "bad-request"])
def test_what_trying_again_cannot_mend_ends_the_loop(tmp_path: Path, error_class: str) -> None:
    loop = make(tmp_path)
    with pytest.raises(Ended, match="log in first") as caught:
        settle(loop, error_class=error_class, error_summary="log in first")
    assert (caught.value.state, caught.value.code) == ("failed", 1)


def test_but_not_when_it_was_so_before_this_loop_was_started(tmp_path: Path) -> None:
    settle(make(tmp_path), error_class="login", is_past=True)


def test_the_same_holds_of_a_run_that_was_stopped(tmp_path: Path) -> None:
    loop = make(tmp_path)
    settle(loop, stopped=True, is_past=True)
    with pytest.raises(Ended) as caught:
        settle(loop, stopped=True, error_summary="stopped by SIGTERM")
    assert (caught.value.state, caught.value.code) == ("stopped", 130)


def test_an_attempt_that_did_not_happen_makes_no_later_one_uncounted(tmp_path: Path) -> None:
    # stop-run ended a loop that was killed before the agent of its first attempt began.
    loop = make(tmp_path)
    loop.record.attempts.append({"run": "r", "token": "1", "result": "running"})
    loop.record.fields["state"] = loop_record.STOPPED
    loop._begin()
    loop._take_over()
    assert loop.record.attempts == []
    settle(loop)
    assert loop._count() == 1


def test_an_overloaded_service_is_given_time_and_forgotten_when_it_serves(tmp_path: Path) -> None:
    loop = make(tmp_path, restart_delay=0.5)
    pauses = []
    for error_class in ("overload", "overload", "crash", "overload"):
        settle(loop, error_class=error_class)
        pauses.append(loop._pause_seconds)
    assert pauses == [30.0, 60.0, 0.5, 30.0]


def test_a_quota_is_no_attempt_and_is_waited_for(tmp_path: Path) -> None:
    loop = make(tmp_path, max_wait=10.0)
    reset = ids.rfc3339(time.time_ns() + 3600 * ids.NANOSECONDS)

    attempt = settle(loop, error_class="quota", reset_time=reset)

    assert (attempt["result"], loop._count()) == ("quota", 0)
    with pytest.raises(Ended, match="limit of its provider until") as caught:
        loop._await_quota()
    assert (caught.value.state, caught.value.code) == ("stopped", 75)


def test_a_disk_that_stays_full_ends_the_loop_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make(tmp_path)
    loop._await_space()
    monkeypatch.setenv("CONDUCTOR_MIN_FREE_MB", str(1 << 40))
    monkeypatch.setenv("CONDUCTOR_HOLD_SECONDS", "-1")
    with pytest.raises(UserError, match="disk is short"):
        loop._await_space()
    assert TOLD[-1].startswith("nothing starts: disk is short")


def test_a_session_that_is_lost_is_not_asked_for_again(tmp_path: Path) -> None:
    loop = make(tmp_path, resume_session=True)
    settle(loop, error_class="no-session")
    assert loop._new_session
    settle(loop, error_class="crash")
    assert not loop._new_session


def test_a_done_task_needs_no_reason(tmp_path: Path) -> None:
    loop = make(tmp_path)
    Path(loop.task.file("DONE")).touch()
    settle(loop, error_class="login")
    settle(loop, stopped=True)


def test_only_the_same_agent_goes_on_with_a_session(tmp_path: Path) -> None:
    earlier = runs.Run(str(tmp_path), {"agent": "claude", "session_id": "abc"})
    request = Request(agent="claude")
    assert sessions.go_on_with(request, earlier)
    assert (request.session_id, request.resume) == ("abc", True)
    assert not sessions.go_on_with(Request(agent="codex"), earlier)
    assert not sessions.go_on_with(request, runs.Run(str(tmp_path), {"agent": "claude"}))
    shell = runs.Run(str(tmp_path), {"agent": "shell", "session_id": "abc"})
    assert not sessions.go_on_with(Request(agent="shell"), shell)


def test_a_lock_whose_folder_is_moved_away_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make(tmp_path).record
    folder, moved = Path(record.task.path), tmp_path / "moved"
    lock = files.lock

    def lock_late(fd: int, seconds: float, what: str) -> None:
        if not moved.exists():
            folder.rename(moved)
        lock(fd, seconds, what)

    monkeypatch.setattr(files, "lock", lock_late)
    record.lock()
    try:
        assert loop_record.is_held(record.task)
        assert (moved / loop_record.LOCK).exists()
    finally:
        record.close()


def test_an_attempt_does_not_follow_a_run_that_was_never_started(tmp_path: Path) -> None:
    loop = make(tmp_path)
    run, lock = runs.allocate(loop.task.runs_dir, in_task_folder=True)
    run.record = {"status": "failed", "exit_code": -1, "error_summary": runs.NEVER_STARTED}
    runs.write_record(run)
    os.close(lock)
    assert loop._previous() is None
    loop.record.attempts.append({"run": run.run_id})
    assert loop._previous() is None

    run.record["error_summary"] = "exit 5"
    runs.write_record(run)
    assert loop._previous() is not None
