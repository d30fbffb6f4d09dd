"""The streams of opencode, copilot and qwen: what they tell, however they are cut or damaged."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lib.agents import base, command
from tests.agent_streams import (
    assert_as_recorded,
    assert_damage_is_survived,
    assert_harmless,
    assert_no_success_before_its_end,
    assert_sound,
    assert_the_same_however_cut,
    cases,
    lines_of,
    mutations,
    read_all,
    stream,
)

KINDS = {"opencode": "opencode", "copilot": "copilot", "qwen": "claude", "llm": "text"}
FIRST_RUN = {"input_tokens": 2400, "cached_tokens": 800, "output_tokens": 68}
CASES = [case for cli in KINDS for case in cases(cli)]
STREAMS = [str(case["file"]) for case in CASES if "/text" not in str(case["file"])]


def maker(name: str) -> Callable[[], base.Reader]:
    """What makes a reader of that recorded stream."""
    cli, _, rest = name.partition("/")
    options: dict[str, object] = {"output": "text" if rest.startswith("text") else KINDS[cli]}
    if rest.endswith("-resumed"):
        options.update(resume=True, totals_before=FIRST_RUN)
    return lambda: command.reader(options)


def essence(name: str) -> bytes:
    """The stream without most of what no reader looks at: copilot tells so much of it."""
    if not name.startswith("copilot/"):
        return stream(name)
    events = [json.loads(line) for line in stream(name).split(b"\n") if line]
    seen: list[dict[str, object]] = []
    for event in events:
        data = event.get("data", {})
        for key in ("requestFingerprint", "toolTelemetry", "skills", "transformedContent"):
            data.pop(key, None)
        is_looked_at = str(event["type"]).startswith(("assistant.m", "tool.e", "model.call_f", "s"))
        if event["type"] == "result" or (is_looked_at and data and "parentId" in event):
            seen.append({key: event[key] for key in event if key not in ("id", "parentId")})
    return lines_of(*seen[:4], *seen[-6:])


def read(kind: str, *events: object) -> tuple[base.Outcome, str]:
    return read_all(command.reader({"output": kind}), lines_of(*events))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["file"]))
def test_every_recorded_output_is_read_as_its_index_says(case: dict[str, object]) -> None:
    name = str(case["file"])
    outcome, shown = read_all(maker(name)(), stream(name))
    if name in STREAMS:
        assert_as_recorded(outcome, case)
        assert_sound(outcome)
    else:
        assert outcome.final_text == base.as_dict(case["expect"])["final_text"]
    assert_harmless(shown)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_anywhere_tells_the_same_and_no_success_before_its_end(name: str) -> None:
    assert_the_same_however_cut(maker(name), essence(name))


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_ends_anywhere_before_its_last_event_is_no_success(name: str) -> None:
    assert_no_success_before_its_end(maker(name), essence(name))


@pytest.mark.parametrize("name", STREAMS)
def test_damage_is_survived(name: str) -> None:
    assert_damage_is_survived(maker(name), essence(name))


@pytest.mark.parametrize("name", STREAMS)
def test_values_of_any_type_are_survived(name: str) -> None:
    for events in mutations(essence(name)):
        outcome, shown = read_all(maker(name)(), lines_of(*events))
        assert_sound(outcome)
        assert_harmless(shown)


def test_a_person_reads_texts_tools_and_usage_in_the_transcript() -> None:
    answer = "STUB-ANSWER for What is two plus two? | tool: made-by-agent"
    call = "▶ tool bash: echo made-by-agent > made.txt && cat made.txt\n    made-by-agent\n"
    _, shown = read_all(maker("opencode/json-tool")(), stream("opencode/json-tool"))
    end = "■ done, 2 turns, 2400 tokens in (800 cached), 68 out\n"
    assert shown == f"▷ session ses_dfb1993abffeRR1S9XQRUl63E9\n{call}\n{answer}\n\n{end}"
    _, shown = read_all(maker("copilot/json-tool")(), stream("copilot/json-tool"))
    assert shown.startswith(f"▷ model stub-model\n{call}")
    assert shown.endswith("\n■ done, 2 turns\n")


# -- opencode


def part(kind: str, **fields: object) -> dict[str, object]:
    return {"type": kind, "sessionID": "ses_1", "part": fields}


STEP = part("step_start")
STOP = part("step_finish", reason="stop")
TOOL = part("tool_use", tool="bash", callID="c", state={"status": "error", "error": "no such"})


def test_opencode_answers_with_the_texts_of_its_last_step() -> None:
    first = [
        STEP,
        part("text", text="I will look."),
        TOOL,
        part("step_finish", reason="tool-calls"),
    ]
    last = [STEP, part("text", text="It is"), part("text", text=" \n"), part("text", text="four.")]
    outcome, shown = read("opencode", *first, *last, STOP)
    assert (outcome.final_text, outcome.tool_calls, outcome.turns) == ("It is\n\nfour.", 1, 2)
    assert "\nI will look.\n\n▶ tool bash: \n    ✗ no such\n" in shown


@pytest.mark.parametrize("reason", ["length", "content-filter", None])
def test_opencode_cut_short_is_no_success(reason: str | None) -> None:
    outcome, _ = read("opencode", STEP, part("text", text="It"), part("step_finish", reason=reason))
    assert (outcome.success, outcome.error) == (False, f"its answer was cut short: {reason}")


@pytest.mark.parametrize("reason", ["tool-calls", "unknown"])
def test_opencode_goes_on_after_such_a_step(reason: str) -> None:
    events = [STEP, part("text", text="It"), part("step_finish", reason=reason)]
    outcome, _ = read("opencode", *events)
    assert (outcome.success, outcome.error) == (False, "no step_finish event")
    outcome, _ = read("opencode", *events, STEP, part("text", text="is four."), STOP)
    assert outcome.final_text == "is four."


def test_opencode_that_begins_another_step_has_not_ended() -> None:
    outcome, _ = read("opencode", STEP, part("text", text="It is four."), STOP, STEP)
    assert (outcome.success, outcome.final_text) == (False, None)


def test_an_error_of_opencode_is_not_undone_by_what_follows() -> None:
    error = {"type": "error", "sessionID": "s", "error": {"name": "APIError", "data": {}}}
    whole = [STEP, part("text", text="It is four."), STOP]
    for events in ([error, *whole], [*whole, error]):
        outcome, _ = read("opencode", *events)
        assert (outcome.success, outcome.error) == (False, "APIError")


def test_of_texts_of_opencode_without_end_the_first_are_kept() -> None:
    text = part("text", text="word " * 200_000)
    outcome, _ = read("opencode", *[text] * 10, STOP)
    answer = outcome.final_text or ""
    assert answer.endswith("\n\n[… the rest was left out …]")
    assert len(answer) < base.MAX_TEXT_BYTES + 100
    assert read("opencode", *[text] * 10, STEP, part("text", text="4"), STOP)[0].final_text == "4"


def test_opencode_tells_what_each_step_has_cost() -> None:
    tokens = {"input": 10, "output": 3, "reasoning": 4, "cache": {"read": 5, "write": 6}}
    finish = part("step_finish", reason="stop", tokens=tokens, cost=0.25)
    outcome, _ = read("opencode", part("text", text="4"), finish, finish)
    assert (outcome.input_tokens, outcome.cached_tokens, outcome.output_tokens) == (42, 10, 14)
    assert outcome.cost_usd == 0.5


def test_a_cost_of_nothing_is_not_known() -> None:
    finish = part("step_finish", reason="stop", tokens={"input": 10, "output": 3}, cost=0)
    assert read("opencode", part("text", text="4"), finish)[0].cost_usd is None


# -- copilot


def said(text: str, **more: object) -> dict[str, object]:
    return {"type": "assistant.message", "data": {"content": text, **more}}


DONE = {"type": "result", "sessionId": "s1", "exitCode": 0}


def test_copilot_answers_with_its_last_text() -> None:
    events = [said("I will look."), said("four."), said("", toolRequests=[{}]), DONE]
    outcome, _ = read("copilot", *events)
    assert (outcome.final_text, outcome.session_id) == ("four.", "s1")


def test_what_a_sub_agent_of_copilot_says_is_no_answer() -> None:
    outcome, shown = read("copilot", said("nested", parentToolCallId="t"), DONE)
    assert (outcome.success, outcome.error) == (False, "the answer is empty")
    assert "nested" not in shown


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([said("four."), {**DONE, "exitCode": 1}], "it ended with exit code 1"),
        ([said("four."), {"type": "result"}], base.NO_REASON),
        ([said("four.")], "no result event"),
        ([{"type": "session.error", "data": {"message": "a\nb"}}, {**DONE, "exitCode": 1}], "a b"),
        ([{"type": "session.error", "data": {}}], base.NO_REASON),
    ],
)
def test_copilot_without_an_end_that_is_good_is_no_success(events: object, error: str) -> None:
    assert isinstance(events, list)
    outcome, _ = read("copilot", *events)
    assert (outcome.success, outcome.final_text, outcome.error) == (False, None, error)


def test_a_call_that_copilot_makes_again_is_no_failure() -> None:
    failed = {"type": "model.call_failure", "data": {"statusCode": 429, "errorMessage": "wait"}}
    outcome, shown = read("copilot", failed, said("four."), DONE)
    assert (outcome.success, outcome.fault_status, outcome.note) == (True, None, "wait")
    assert shown.startswith("↻ wait\n")


# -- qwen


def result(**fields: object) -> dict[str, object]:
    return {"type": "result", "subtype": "success", "is_error": False, "result": "4", **fields}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("[API Error: 429 slow down]", 429),
        ("[API Error: Connection error.]", None),
        ("[API Error: ", None),
    ],
)
def test_an_api_error_in_an_event_of_success_is_one(text: str, status: int | None) -> None:
    event = result(result=text, usage={"input_tokens": 0, "output_tokens": 0})
    outcome, _ = read("claude", event)
    assert (outcome.success, outcome.error, outcome.fault_status) == (False, text.strip(), status)


def test_an_answer_about_api_errors_is_an_answer() -> None:
    text = "[API Error: 401] means that the key is wrong"
    outcome, _ = read("claude", result(result=text, usage={"output_tokens": 12}))
    assert outcome.final_text == text


def test_tokens_of_claude_itself_are_read_as_ever() -> None:
    usage = {"input_tokens": 800, "cache_read_input_tokens": 400, "output_tokens": 34}
    outcome, _ = read("claude", result(usage=usage))
    assert (outcome.input_tokens, outcome.cached_tokens) == (1200, 400)


def test_a_resumed_session_of_which_nothing_is_known_has_no_figures() -> None:
    reader = command.reader({"output": "claude", "resume": True, "totals_before": None})
    outcome, _ = read_all(reader, stream("qwen/stream-resumed"))
    assert outcome.success is True
    assert (outcome.input_tokens, outcome.cached_tokens, outcome.output_tokens) == (
        None,
        None,
        None,
    )
    assert (outcome.session_totals or {})["input_tokens"] == 4800
