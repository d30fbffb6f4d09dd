"""How a run is judged, and when it has been silent or at work for too long."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from lib import notices, output, procs, recovery, redact, runs, supervisor
from lib.agents.base import Outcome, TextReader
from lib.judgement import judge
from lib.supervisor import Supervisor


def outcome(**values: object) -> Outcome:
    made = Outcome()
    for name, value in values.items():
        setattr(made, name, value)
    return made


GOOD = {"success": True, "final_text": "the answer"}


@pytest.mark.parametrize(
    ("code", "told", "understood", "stopped", "wanted"),
    [
        (0, {}, False, "", "completed"),
        (0, GOOD, True, "", "completed"),
        (0, {"success": True, "final_text": ""}, True, "", "failed"),
        (0, {"success": False}, True, "", "failed"),
        (3, GOOD, True, "", "failed"),
        (1, {}, False, "", "failed"),
        (None, GOOD, True, "", "completed"),
        (None, {"success": False}, True, "", "failed"),
        (None, {"success": True, "final_text": "x"}, False, "", "failed"),
        (143, {}, False, "stopped by SIGTERM", "failed"),
        (0, {}, False, "timed out", "failed"),
        (0, {"success": False}, True, "timed out", "failed"),
        (0, GOOD, True, "timed out", "completed"),
        (None, GOOD, True, "timed out", "failed"),
    ],
)
def test_success_needs_the_code_and_the_evidence(
    code: int | None, told: dict[str, object], understood: bool, stopped: str, wanted: str
) -> None:
    assert judge(code, outcome(**told), understood, stopped) == wanted


class Stopped(Supervisor):
    """A supervisor that only notes what it would have stopped the run for."""

    def stop(self, reason: str, code: int, error_class: str = "") -> None:
        self.stop_reason, self.stop_code, self.stop_class = reason, code, error_class


def watched(record: Mapping[str, object], *, ran: float = 0, silent: float = 0) -> Stopped:
    watch = Stopped(runs.Run("/nowhere/run_x", dict(record)), -1, stop_run=recovery.stop)
    watch._started = time.monotonic() - ran
    watch._last_growth = time.monotonic() - silent
    return watch


def test_within_its_limits_a_run_is_left_alone() -> None:
    for record in ({}, {"timeout": 100.0, "idle_timeout": 50.0}):
        watch = watched(record, ran=90, silent=40)
        watch._hold_limits()
        assert watch.stop_reason == ""


def test_a_run_beyond_its_time_is_stopped_with_a_sentence() -> None:
    watch = watched({"timeout": 7200.0}, ran=7201)
    watch._hold_limits()
    assert watch.stop_code == 124
    assert watch.stop_reason == (
        "timed out after 120 min; allow more with --timeout, or make the task smaller"
    )


def test_its_time_is_counted_from_its_start_also_by_a_later_supervisor() -> None:
    began = time.monotonic() - 100
    watch = watched({"timeout": 90.0, "monotonic_start": began, **procs.machine()}, ran=1)
    watch._hold_limits()
    assert watch.stop_code == 124


def test_the_clock_of_another_boot_is_not_used() -> None:
    here = {**procs.machine(), "boot_id": "another"}
    watch = watched({"timeout": 90.0, "monotonic_start": time.monotonic() - 100, **here}, ran=1)
    watch._hold_limits()
    assert watch.stop_reason == ""


def test_a_silent_run_is_stopped_but_later_while_a_tool_is_at_work() -> None:
    record = {"idle_timeout": 60.0}
    watch = watched(record, silent=61)
    watch._hold_limits()
    assert watch.stop_reason.startswith("silent for 60 s: idle timeout; see agent-stderr.txt")
    for silent, code in ((61, 0), (239, 0), (241, 124)):
        watch = watched(record, silent=silent)
        watch.reader.outcome.open_tools = 1
        watch._hold_limits()
        assert watch.stop_code == code


def test_output_of_either_kind_keeps_a_run_alive(tmp_path: Path) -> None:
    for name in (runs.STDOUT, runs.STDERR):
        watch = watched({"idle_timeout": 60.0}, silent=61)
        watch.run.path = str(tmp_path)
        watch._open_files()
        try:
            (tmp_path / name).write_bytes(b"more\n")
            assert watch._pump() is True
            watch._hold_limits()
            assert watch.stop_reason == ""
            assert watch._pump() is False
        finally:
            watch._close_files()
            (tmp_path / name).write_bytes(b"")


def test_the_answer_of_a_listener_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    def gone(_text: str) -> None:
        raise OSError(5, "Input/output error")

    watch = Supervisor(
        runs.Run(str(tmp_path), {}), -1, TextReader(), stop_run=recovery.stop, on_text=gone
    )
    watch._open_files()
    try:
        watch._write_transcript("one\n")
        watch._write_transcript("two\n")
    finally:
        watch._close_files()
    assert (tmp_path / "transcript.md").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("text", "grace"), [("1.5", 1.5), ("-3", 0.0), ("soon", 30.0), ("", 30.0), (None, 30.0)]
)
def test_the_grace_comes_from_the_environment(
    text: str | None, grace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONDUCTOR_STOP_GRACE", raising=False)
    if text is not None:
        monkeypatch.setenv("CONDUCTOR_STOP_GRACE", text)
    assert supervisor.stop_grace() == grace


def test_a_reason_is_one_short_harmless_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_own", ["secret-token-1"])
    shown = redact.one_line("bad\n\x1b[31m  thing: secret-token-1 " + "x" * 900)
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert "bad ␛ thing: [REDACTED] x" in shown
    assert len(shown) == redact.LINE_LIMIT


def test_a_value_is_noted_once_and_on_one_line(tmp_path: Path) -> None:
    run = runs.Run(str(tmp_path), {})
    notices.note(run, {"RUN_ID": "x", "CWD": "/a\nEXIT_CODE=9"})
    notices.note_once(run, "EXIT_CODE", "3")
    notices.note_once(run, "EXIT_CODE", "3")
    assert (tmp_path / "cwd.txt").read_text() == "RUN_ID=x\nCWD=/a\\nEXIT_CODE=9\nEXIT_CODE=3\n"


# -- output.md -------------------------------------------------------------------------


def written(tmp_path: Path, answer: str | None, stdout: bytes = b"") -> str:
    (tmp_path / "agent-stdout.txt").write_bytes(stdout)
    output.write(runs.Run(str(tmp_path), {}), answer)
    return (tmp_path / "output.md").read_text()


def test_the_answer_goes_before_stdout_and_the_agent_s_own_file_before_both(
    tmp_path: Path,
) -> None:
    assert written(tmp_path, None) == ""
    assert written(tmp_path, None, b"printed") == "printed\n"
    (tmp_path / "output.md").unlink()
    assert written(tmp_path, "the answer", b"printed") == "the answer\n"
    (tmp_path / "output.md").write_text("mine")
    assert written(tmp_path, "the answer", b"printed") == "mine"


def test_what_is_no_file_is_not_followed_as_the_agent_s_own(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "output.md").symlink_to(outside)
    assert written(tmp_path, "the answer") == "the answer\n"
    assert outside.read_text() == "precious"
    (tmp_path / "output.md").unlink()
    (tmp_path / "output.md").mkdir()
    assert written(tmp_path, "the answer") == "the answer\n"


def test_a_huge_output_is_cut_and_says_where_the_rest_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LIMIT_BYTES", 10)
    text = written(tmp_path, None, b"01234567 9abc")  # not in a word: it may be a token
    assert text == "01234567 \n\n[cut here: the whole is in agent-stdout.txt]\n"
    (tmp_path / "output.md").write_text("0123456\n89abc")
    assert written(tmp_path, None).startswith("0123456\n\n\n[cut here")


@pytest.mark.parametrize(
    ("limits", "open_tools", "silent", "is_marked"),
    [
        ({"idle_timeout": 900}, 0, 290, False),
        ({"idle_timeout": 900}, 0, 310, True),
        ({"idle_timeout": 90}, 0, 29, False),
        ({"idle_timeout": 90}, 0, 31, True),
        ({"idle_timeout": 90}, 1, 119, False),
        ({"idle_timeout": 90}, 1, 121, True),
        ({}, 0, 290, False),
        ({}, 0, 310, True),
    ],
)
def test_silence_is_marked_after_five_minutes_or_a_third_of_what_is_allowed(
    limits: dict[str, object], open_tools: int, silent: float, is_marked: bool, tmp_path: Path
) -> None:
    watch = watched(limits, silent=silent)
    watch.run.path = str(tmp_path)
    watch.reader.outcome.open_tools = open_tools

    watch._hold_limits()

    assert ("silent_since" in watch.run.record) == is_marked
    assert watch.stop_reason == ""


def test_a_supervisor_that_was_stopped_itself_does_not_take_that_for_silence() -> None:
    watch = watched({"idle_timeout": 60.0}, silent=600)
    watch._looked = time.monotonic() - 600
    watch._hold_limits()
    assert watch.stop_reason == ""

    watch._last_growth -= 61
    watch._hold_limits()
    assert watch.stop_reason.startswith("silent for 60 s")
