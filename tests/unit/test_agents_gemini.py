"""The gemini backend: its command line, its folder, and what its stream tells however it is cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib.agents import base, gemini
from lib.errors import UserError
from tests.agent_streams import (
    assert_as_recorded,
    assert_damage_is_survived,
    assert_harmless,
    assert_no_success_before_its_end,
    assert_sound,
    assert_the_same_however_cut,
    cases,
    facts,
    launch,
    lines_of,
    mutations,
    read_all,
    stream,
)

CASES = cases("gemini")
NAMES = [str(case["file"]) for case in CASES]
TYPICAL = ["gemini/stream-tool", "gemini/stream-max-turns", "gemini/stream-multichunk"]
FLAGS = [
    *["--screen-reader", "true", "--approval-mode", "yolo"],
    *["--output-format", "stream-json"],
]
USE: dict[str, object] = {"type": "tool_use", "tool_name": "grep", "tool_id": "t"}
ANSWERED: dict[str, object] = {"type": "tool_result", "tool_id": "t", "status": "success"}
DONE: dict[str, object] = {"type": "result", "status": "success"}


def read(*pieces: bytes) -> tuple[base.Outcome, str]:
    return read_all(gemini.reader(), *pieces)


def said(text: object) -> dict[str, object]:
    return {"type": "message", "role": "assistant", "content": text, "delta": True}


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_recorded_stream_is_read_as_its_index_says(case: dict[str, object]) -> None:
    outcome, _ = read(stream(str(case["file"])))
    assert_as_recorded(outcome, case)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_cut_anywhere_tells_the_same_and_no_success_before_its_end(name: str) -> None:
    assert_the_same_however_cut(gemini.reader, stream(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_ends_anywhere_before_its_last_event_is_no_success(name: str) -> None:
    assert_no_success_before_its_end(gemini.reader, stream(name))


def test_a_person_reads_texts_tools_and_usage_in_the_transcript() -> None:
    _, shown = read(stream("gemini/stream-tool"))
    assert shown == (
        "▷ session b1a2bdfe-2af3-4aff-ab45-6181e9bcebbd, model auto\n"
        "▶ tool run_shell_command: echo made-by-agent > made.txt && cat made.txt\n"
        "    made-by-agent\n"
        "\nSTUB-ANSWER for What is two plus two? | tool: <untrusted_context>\n"
        "Output: made-by-agent\nProcess Group PGID: 746\n</untrusted_context>\n\n"
        "■ done, 3600 tokens in (1200 cached), 102 out, 0.7 s\n"
    )


def test_pieces_are_joined_into_one_paragraph() -> None:
    _, shown = read(stream("gemini/stream-multichunk"))
    assert "\nSTUB-ANSWER for What is two plus two?\n" in shown


def test_an_escape_sequence_in_two_pieces_reaches_no_terminal() -> None:
    _, shown = read(lines_of(said("a\x1b]0;ti"), said("tle\x07b"), DONE))
    assert "\na␛b\n" in shown


def test_the_answer_is_what_came_after_the_last_tool() -> None:
    before = [said("I will "), said("look."), USE, ANSWERED]
    outcome, shown = read(lines_of(*before, said("It is "), said("four."), DONE))
    assert outcome.final_text == "It is four."
    assert "\nI will look.\n\n▶ tool grep: \n    (nothing)\n\nIt is four.\n" in shown

    outcome, _ = read(lines_of(*before, DONE))
    assert (outcome.success, outcome.error) == (False, "the answer is empty")


@pytest.mark.parametrize("text", ["", " \n", None, ["four"]])
def test_success_without_an_answer_is_none(text: object) -> None:
    outcome, _ = read(lines_of(said(text), DONE))
    assert (outcome.success, outcome.error) == (False, "the answer is empty")


def test_what_the_user_said_is_no_answer_and_not_shown() -> None:
    prompt = {"type": "message", "role": "user", "content": "prompt"}
    outcome, shown = read(lines_of(prompt, DONE))
    assert outcome.success is False
    assert "prompt" not in shown


LOOP = {"type": "error", "severity": "warning", "message": "Loop detected"}


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([LOOP, DONE], "Loop detected"),
        ([LOOP], "Loop detected"),
        ([said("half"), {"type": "result", "status": "error"}], base.NO_REASON),
        ([LOOP, {"type": "result", "status": "error"}], "Loop detected"),
        ([LOOP, {"type": "result", "status": "error", "error": {"message": "a\nb"}}], "a b"),
        ([said("four"), {"type": "result"}], base.NO_REASON),
        ([said("four")], "no result event"),
        ([], "no result event"),
    ],
)
def test_the_best_known_reason_is_the_error(events: list[object], error: str) -> None:
    outcome, _ = read(lines_of(*events))
    assert (outcome.success, outcome.final_text, outcome.error) == (False, None, error)


def test_an_error_that_an_answer_follows_is_a_note() -> None:
    outcome, shown = read(lines_of(said("It"), LOOP, said(" is four"), DONE))
    assert (outcome.success, outcome.note) == (True, "Loop detected")
    assert outcome.final_text == "It is four"
    assert shown.startswith("\nIt\n\n· Loop detected\n\n is four\n\n■ done")


def test_text_that_was_not_finished_is_shown_at_the_end() -> None:
    _, shown = read(lines_of(said("half an "), said("answer")))
    assert shown == "\nhalf an answer\n\n■ ended without a result\n"


def test_a_tool_call_is_open_until_it_is_answered() -> None:
    reader = gemini.reader()
    seen = []
    for event in (USE, ANSWERED, {**USE, "tool_id": "u"}, DONE):
        reader.feed(lines_of(event))
        seen.append((reader.outcome.tool_calls, reader.outcome.open_tools))
    assert seen == [(1, 1), (1, 0), (2, 1), (2, 0)]


def test_a_tool_that_failed_is_marked() -> None:
    error = {"type": "x", "message": "no such file"}
    shown = gemini.reader().feed(lines_of({**ANSWERED, "status": "error", "error": error}))
    assert shown == "    ✗ no such file\n"


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ({"small": {"output_tokens": 9}, "big": {"output_tokens": 10}}, "big"),
        ({"big": {"output_tokens": 10}, "small": {"output_tokens": 9}}, "big"),
        ({"chooser": {"output_tokens": 9}, "other": {"output_tokens": 9}}, "other"),
        ({"idle": {"output_tokens": 0}}, "auto"),
        ({"odd": {"output_tokens": "9"}, "odder": 7}, "auto"),
        ({}, "auto"),
        ([], "auto"),
    ],
)
def test_the_model_is_the_one_that_wrote_the_most(models: object, expected: str) -> None:
    init = {"type": "init", "session_id": "s", "model": "auto"}
    outcome, _ = read(lines_of(init, said("x"), {**DONE, "stats": {"models": models}}))
    assert outcome.model == expected


def test_line_separators_of_unicode_do_not_cut_a_line() -> None:
    answer = "one\u2028two\u2029three\x85four"
    events = [json.dumps(event, ensure_ascii=False).encode() for event in (said(answer), DONE)]
    assert read(b"\n".join(events))[0].final_text == answer


def test_foreign_lines_are_notes_and_unknown_events_nothing() -> None:
    plain = stream("gemini/stream-plain")
    odd = b'Loaded cached credentials.\n[]\n{}\n{"type":["x"]}\n{"type":"new"}\n'
    outcome, shown = read(odd + plain)
    assert facts(outcome) == facts(read(plain)[0])
    assert shown.startswith("· Loaded cached credentials.\n· []\n▷ ")


def test_no_control_character_reaches_the_transcript() -> None:
    nasty = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\u202ee\x00f\rg\ud800h"
    outcome, shown = read(
        lines_of(
            {"type": "init", "session_id": nasty, "model": nasty},
            said(nasty),
            {"type": "tool_use", "tool_name": nasty, "parameters": {nasty: nasty}},
            {"type": "tool_result", "status": "error", "error": {"message": nasty}},
            {"type": "tool_result", "output": nasty},
            {"type": "error", "message": nasty},
            {"type": "result", "status": "error", "error": {"message": nasty}},
        )
    )
    assert_harmless(shown)
    for text in (outcome.error, outcome.model, outcome.note):
        assert text
        assert_harmless(text)
    assert outcome.session_id is None


@pytest.mark.parametrize("name", TYPICAL)
def test_a_value_of_any_wrong_type_anywhere_is_survived(name: str) -> None:
    for events in mutations(stream(name)):
        outcome, shown = read(lines_of(*events))
        assert_harmless(shown)
        assert_sound(outcome)
        assert outcome.success is is_flawless(events)


def is_flawless(events: list[object]) -> bool:
    """Whether it ends with success, and something was said after the last tool."""
    answer = ""
    for event in map(base.as_dict, events):
        if event.get("type") in ("tool_use", "tool_result"):
            answer = ""
        elif event.get("type") == "message" and event.get("role") == "assistant":
            answer += base.as_text(event.get("content"))
    last = base.as_dict(events[-1])
    return (last.get("type"), last.get("status")) == ("result", "success") and answer.strip() != ""


def test_damaged_bytes_never_raise_and_do_not_depend_on_how_they_are_cut() -> None:
    data = stream("gemini/stream-tool-fails") + stream("gemini/stream-multichunk")
    assert_damage_is_survived(gemini.reader, data)


def test_the_command_line_is_the_measured_one(tmp_path: Path) -> None:
    assert gemini.command(launch(run_dir=str(tmp_path))) == ["/opt/agent", *FLAGS]


def test_a_session_is_chosen_or_resumed(tmp_path: Path) -> None:
    here = str(tmp_path)
    chosen = gemini.command(launch(run_dir=here, session_id="id-1", model="gemini-x"))
    assert chosen == ["/opt/agent", *FLAGS, "-m", "gemini-x", "--session-id", "id-1"]
    resumed = gemini.command(launch(run_dir=here, session_id="id-1", resume=True))
    assert resumed == ["/opt/agent", *FLAGS, "--resume", "id-1"]


@pytest.mark.parametrize(
    ("what", "changes"), [("model", {"model": "--help"}), ("session id", {"session_id": "-e"})]
)
def test_a_value_that_looks_like_an_option_is_refused(
    what: str, changes: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"{what}: .*; it must not begin with a dash"):
        gemini.command(launch(run_dir=str(tmp_path), **changes))


def test_its_temporary_files_stay_in_the_run_folder(tmp_path: Path) -> None:
    given = launch(run_dir=str(tmp_path))
    gemini.command(given)
    folder = tmp_path / "tmp"
    assert gemini.environment(given)["TMPDIR"] == str(folder)
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0


def test_the_environment_alone_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gemini.environment(launch(run_dir=""))
    assert list(tmp_path.iterdir()) == []


def test_the_environment_trusts_the_folder_and_keeps_one_process() -> None:
    changes = gemini.environment(launch())
    assert changes["GEMINI_CLI_TRUST_WORKSPACE"] == "true"
    assert changes["GEMINI_CLI_NO_RELAUNCH"] == "1"
    assert changes["CLAUDECODE"] is None
    assert "GOOGLE_GEMINI_BASE_URL" not in changes


def test_a_base_url_of_the_configuration_is_passed_on() -> None:
    changes = gemini.environment(launch(options={"base_url": "http://127.0.0.1:1"}))
    assert changes["GOOGLE_GEMINI_BASE_URL"] == "http://127.0.0.1:1"
