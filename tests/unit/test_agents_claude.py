"""The claude backend: its command line, and what its stream tells however it is cut or damaged."""

from __future__ import annotations

import json

import pytest

from lib.agents import base, claude
from lib.errors import UserError
from tests.agent_streams import (
    assert_as_recorded,
    assert_damage_is_survived,
    assert_harmless,
    assert_sound,
    cases,
    facts,
    launch,
    lines_of,
    mutations,
    read_all,
    stream,
)

CASES = cases("claude")
NAMES = [str(case["file"]) for case in CASES]
TYPICAL = [
    "claude/stream-tool-preamble",
    "claude/stream-429-recovers",
    "claude/stream-max-budget",
    "claude/stream-sigterm-tool",
    "claude/v2.1.197-stream-plain",
]


def read(*pieces: bytes) -> tuple[base.Outcome, str]:
    return read_all(claude.reader(), *pieces)


def result(**changes: object) -> bytes:
    event = {"type": "result", "subtype": "success", "is_error": False, "result": "four", **changes}
    return json.dumps(event).encode() + b"\n"


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_recorded_stream_is_read_as_its_index_says(case: dict[str, object]) -> None:
    outcome, _ = read(stream(str(case["file"])))
    assert_as_recorded(outcome, case)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_cut_in_two_anywhere_tells_the_same_and_no_success_before_its_end(
    name: str,
) -> None:
    data = stream(name)
    whole = read(data)
    for cut in range(0, len(data), 1 if name in TYPICAL else 17):
        reader = claude.reader()
        shown = reader.feed(data[:cut])
        assert reader.outcome.success is False
        assert reader.outcome.final_text is None
        shown += reader.feed(data[cut:]) + reader.finish()
        assert (facts(reader.outcome), shown) == (facts(whole[0]), whole[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_ends_anywhere_before_its_result_is_no_success(name: str) -> None:
    data = stream(name).rstrip(b"\n")
    for end in range(len(data)):
        outcome, _ = read(data[:end])
        assert outcome.success is False
        assert outcome.final_text is None
        assert outcome.error


@pytest.mark.parametrize("name", TYPICAL)
def test_a_stream_in_pieces_of_any_size_tells_the_same(name: str) -> None:
    data = stream(name)
    whole = read(data)
    for size in (1, 2, 3, 7, 64, 1000):
        outcome, shown = read(*(data[at : at + size] for at in range(0, len(data), size)))
        assert (facts(outcome), shown) == (facts(whole[0]), whole[1])


def test_the_last_line_needs_no_newline() -> None:
    outcome, _ = read(stream("claude/stream-plain").rstrip(b"\n"))
    assert outcome.success is True


def test_a_person_reads_text_tools_retries_and_usage_in_the_transcript() -> None:
    _, shown = read(stream("claude/stream-tool-preamble"))
    assert shown == (
        "▷ session 100cecf4-f223-4473-80db-6e7929cf9cd6, model claude-opus-5-5\n"
        "\nI will write a file first.\n\n"
        "▶ tool Bash: echo made-by-agent > made.txt && cat made.txt\n"
        "    made-by-agent\n"
        "\nSTUB-ANSWER for What is two plus two? | tool: made-by-agent\n\n"
        "■ done, 2 turns, 2400 tokens in (800 cached), 68 out, $0.0079, 0.6 s\n"
    )
    outcome, shown = read(stream("claude/stream-429-recovers"))
    assert "↻ retry 1/10 after HTTP 429\n" in shown
    assert outcome.note == "retry 2/10 after HTTP 429"
    _, shown = read(stream("claude/stream-sigterm-tool"))
    assert shown.endswith("    ✗ Exit code 137\n■ ended without a result\n")
    _, shown = read(stream("claude/stream-max-budget"))
    assert "■ failed: Reached maximum budget ($0.0001), 1 turn, " in shown


def test_a_tool_call_is_open_until_it_is_answered() -> None:
    lines = stream("claude/stream-tool").split(b"\n")
    reader = claude.reader()
    seen = []
    for line in lines:
        reader.feed(line + b"\n")
        seen.append((reader.outcome.tool_calls, reader.outcome.open_tools))
    assert seen[1:3] == [(1, 1), (1, 0)]


def test_a_call_that_an_earlier_turn_left_open_is_not_open_in_the_next() -> None:
    call = stream("claude/stream-max-budget").split(b"\n")[1] + b"\n"
    other = call.replace(b"toolu_", b"other_")
    assert other != call
    reader = claude.reader()
    reader.feed(call + result() + other)
    assert (reader.outcome.tool_calls, reader.outcome.open_tools) == (2, 1)


def test_a_run_that_ends_with_an_open_call_has_none_open_after_its_result() -> None:
    outcome, _ = read(stream("claude/stream-max-budget"))
    assert (outcome.tool_calls, outcome.open_tools) == (1, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"is_error": True},
        {"is_error": None},
        {"is_error": 0},
        {"is_error": "false"},
        {"subtype": "error_during_execution"},
        {"subtype": None},
        {"result": ""},
        {"result": " \n"},
        {"result": None},
        {"result": ["four"]},
    ],
)
def test_only_a_flawless_result_event_is_a_success(changes: dict[str, object]) -> None:
    assert read(result())[0].success is True

    outcome, _ = read(result(**changes))

    assert outcome.success is False
    assert outcome.final_text is None
    assert outcome.error
    assert "\n" not in outcome.error


def test_the_error_of_several_lines_becomes_one() -> None:
    outcome, _ = read(result(is_error=True, result="API Error:\n  \x1b[31mno\x07 key\tnow"))
    assert outcome.error == "API Error: ␛no␇ key now"


def test_the_last_result_counts_and_costs_add_up() -> None:
    def costing(cost: float) -> dict[str, object]:
        return {"model_usage_since_last_result": {"a": {"costUSD": cost}}, "total_cost_usd": 99}

    outcome, _ = read(result(result="wait", **costing(0.25)), result(result="five", **costing(0.5)))

    assert outcome.final_text == "five"
    assert outcome.cost_usd == 0.75


def test_a_resumed_session_costs_what_this_run_added() -> None:
    since = {"a": {"costUSD": 0.1}, "b": {"costUSD": 0.2}, "c": {"costUSD": "no"}, "d": 7}
    outcome, _ = read(result(model_usage_since_last_result=since, total_cost_usd=5))
    assert outcome.cost_usd == pytest.approx(0.3)


def test_what_a_sub_agent_says_is_neither_the_answer_nor_the_model() -> None:
    def assistant(text: str, parent: str | None, model: str) -> bytes:
        blocks = [
            {"type": "text", "text": text},
            {"type": "tool_use", "id": f"t-{text}", "name": "Read", "input": {"file_path": text}},
        ]
        message = {"model": model, "content": blocks}
        event = {"type": "assistant", "message": message, "parent_tool_use_id": parent}
        return json.dumps(event).encode() + b"\n"

    outcome, shown = read(assistant("mine", None, "big"), assistant("theirs", "t-mine", "small"))

    assert outcome.model == "big"
    assert "\nmine\n" in shown
    assert "\ntheirs\n" not in shown
    assert "▶ sub-agent's tool Read: theirs\n" in shown
    assert (outcome.tool_calls, outcome.open_tools) == (2, 2)


def test_a_long_tool_result_is_shortened_and_says_so() -> None:
    def shown_for(content: object) -> str:
        block = {"type": "tool_result", "tool_use_id": "x", "content": content}
        event = {"type": "user", "message": {"content": [block]}}
        reader = claude.reader()
        return reader.feed(json.dumps(event).encode() + b"\n")

    many = shown_for([{"type": "text", "text": "\n".join(map(str, range(1000)))}])
    assert many.startswith("    0\n    1\n")
    assert many.endswith("    998\n    999\n")
    assert many.count("\n") == 20
    assert "… 981 lines left out …" in many
    wide = shown_for("x" * 1_000_000)
    assert len(wide) < 2100
    assert "characters left out" in wide


@pytest.mark.parametrize(
    "line",
    [
        b"API Error: not JSON at all",
        b"42",
        b"null",
        b'"text"',
        b"[]",
        b"{",
        b'{"type": "result"',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
        b'{"num_turns": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe\x00\x80",
        b'\xef\xbb\xbf{"type":"result"}',
        b"\x00" * 100,
        "\u2028\u2029\x85".encode(),
    ],
    ids=range(15),
)
def test_a_foreign_line_is_a_note_and_changes_nothing(line: bytes) -> None:
    plain = stream("claude/stream-plain")
    outcome, shown = read(line + b"\n" + plain + line + b"\n")
    assert facts(outcome) == facts(read(plain)[0])
    assert len(shown) < 2500
    assert_harmless(shown)


def test_foreign_output_is_shown_and_is_no_success() -> None:
    outcome, shown = read(b"Not logged in \xc2\xb7 Please run /login\n")
    assert shown == "· Not logged in · Please run /login\n■ ended without a result\n"
    assert outcome.success is False


def test_events_of_unknown_kinds_are_passed_over() -> None:
    odd = b'{"type":"rate_limit_event"}\n{"type":["x"]}\n{}\n{"type":"system","subtype":"new"}\n'
    plain = stream("claude/stream-plain")
    assert facts(read(odd + plain)[0]) == facts(read(plain)[0])


def test_line_separators_of_unicode_do_not_cut_a_line() -> None:
    answer = "one\u2028two\u2029three\x85four\x0bfive"
    line = json.dumps({"type": "result", "subtype": "success", "is_error": False, "result": answer})
    raw = json.dumps(json.loads(line), ensure_ascii=False).encode()
    assert read(raw + b"\n")[0].final_text == answer


def test_a_giant_line_is_skipped_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_LINE_BYTES", 10_000)
    plain = stream("claude/stream-plain")
    giant = b'{"type":"x","pad":"' + b"x" * 20_000 + b'"}'
    whole = read(giant + b"\n" + plain + giant)
    assert facts(whole[0]) == facts(read(plain)[0])
    assert whole[1].count(f"· a line of {len(giant)} bytes was skipped\n") == 2
    data = giant + b"\n" + plain + giant
    outcome, shown = read(*(data[at : at + 999] for at in range(0, len(data), 999)))
    assert (facts(outcome), shown) == (facts(whole[0]), whole[1])


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    reader = claude.reader()
    assert isinstance(reader, claude.StreamReader)
    for _ in range(20):
        reader.feed(b"x" * (1 << 20))
    assert sum(map(len, reader._parts)) <= base.MAX_LINE_BYTES
    assert reader.finish().startswith(f"· a line of {20 << 20} bytes was skipped\n")


def test_no_control_character_reaches_the_transcript() -> None:
    nasty = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\u202ee\x00f\rg\ud800h"
    blocks = [
        {"type": "text", "text": nasty},
        {"type": "tool_use", "id": "1", "name": nasty, "input": {nasty: nasty}},
    ]
    answers = [{"type": "tool_result", "tool_use_id": "1", "content": nasty}]
    lines = [
        {"type": "system", "subtype": "init", "model": nasty, "session_id": nasty},
        {"type": "system", "subtype": "api_retry", "error": nasty},
        {"type": "assistant", "message": {"model": nasty, "content": blocks}},
        {"type": "user", "message": {"content": [*answers, {"type": "text", "text": nasty}]}},
        {"type": "result", "is_error": True, "result": nasty},
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    outcome, shown = read(data + nasty.encode("utf-8", "replace") + b"\n")
    assert_harmless(shown)
    for text in (outcome.error, outcome.model, outcome.note):
        assert text
        assert_harmless(text)
        assert "\n" not in text
    assert outcome.session_id is None  # it would stand on a command line one day


def test_the_answer_is_kept_as_it_came_but_for_what_no_file_can_hold() -> None:
    outcome, _ = read(result(result="a\x1b[1mb\ud800"))
    assert outcome.final_text == "a\x1b[1mb?"


@pytest.mark.parametrize("session_id", ["-p", "--help", "a b", "a\nb", "", "é", "x" * 201, 7, None])
def test_a_session_id_that_could_be_an_option_is_not_taken(session_id: object) -> None:
    assert read(result(session_id=session_id))[0].session_id is None


@pytest.mark.parametrize("name", TYPICAL)
def test_a_value_of_any_wrong_type_anywhere_is_survived(name: str) -> None:
    for events in mutations(stream(name)):
        outcome, shown = read(lines_of(*events))
        assert_harmless(shown)
        assert_sound(outcome)
        assert outcome.success is is_flawless(events[-1])


def is_flawless(event: object) -> bool:
    if not isinstance(event, dict) or not isinstance(event.get("result"), str):
        return False
    fine = event["subtype"] == "success" and event["is_error"] is False
    return fine and event["type"] == "result" and event["result"].strip() != ""


def test_damaged_bytes_never_raise_and_do_not_depend_on_how_they_are_cut() -> None:
    data = stream("claude/stream-tool-fails") + stream("claude/stream-partial")
    assert_damage_is_survived(claude.reader, data)


def test_the_command_line_is_the_measured_one() -> None:
    assert claude.command(launch()) == [
        "/opt/agent",
        *["-p", "--input-format", "text", "--output-format", "stream-json", "--verbose"],
        *["--tools", "default", "--permission-mode", "bypassPermissions"],
    ]


def test_a_session_is_chosen_or_resumed() -> None:
    chosen = claude.command(launch(session_id="id-1", model="opus"))
    assert chosen[-4:] == ["--model", "opus", "--session-id", "id-1"]
    assert claude.command(launch(session_id="id-1", resume=True))[-2:] == ["--resume", "id-1"]


def test_a_model_that_looks_like_an_option_is_refused() -> None:
    with pytest.raises(UserError, match="model: --help; it must not begin with a dash"):
        claude.command(launch(model="--help"))


def test_with_a_configured_token_no_other_one_is_sent_beside_it() -> None:
    changes = claude.environment(launch(options={"token": "sk-configured"}))
    other = ("ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
    assert [changes.get(name, "kept") for name in other] == [None, None]
    assert not {*other, "ANTHROPIC_API_KEY"} & set(claude.environment(launch()))


def test_the_environment_hides_the_outer_session_and_keeps_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CLAUDE_CODE_MAX_RETRIES", raising=False)
    changes = claude.environment(launch())
    assert changes["CLAUDECODE"] is None
    assert changes["CLAUDE_CODE_ENTRYPOINT"] is None
    assert changes["DISABLE_TELEMETRY"] == "1"
    assert changes["CLAUDE_CODE_MAX_RETRIES"] == "4"
    assert "IS_SANDBOX" not in changes
    assert "ANTHROPIC_BASE_URL" not in changes


def test_the_users_own_number_of_retries_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAUDE_CODE_MAX_RETRIES", "2")
    assert "CLAUDE_CODE_MAX_RETRIES" not in claude.environment(launch())


@pytest.mark.parametrize(("option", "is_set"), [(True, True), (False, False), ("true", False)])
def test_only_the_owner_of_the_machine_calls_it_a_sandbox(option: object, is_set: bool) -> None:
    changes = claude.environment(launch(options={"sandbox": option}))
    assert (changes.get("IS_SANDBOX") == "1") is is_set


def test_a_base_url_of_the_configuration_is_passed_on() -> None:
    changes = claude.environment(launch(options={"base_url": "http://127.0.0.1:1"}))
    assert changes["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"
