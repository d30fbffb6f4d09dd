"""The agents that are a web service, without one: command lines, events, answers, sentences."""

from __future__ import annotations

import json
import sys
import time
from email.utils import formatdate

import pytest

from lib import yamlio
from lib.agents import (
    _rest,
    _rest_address,
    _rest_answer,
    _rest_http,
    _rest_main,
    _rest_stream,
    base,
    perplexity,
    xai,
)
from lib.errors import EXIT_USAGE, UserError
from tests.agent_streams import (
    WRONG,
    assert_damage_is_survived,
    assert_harmless,
    assert_no_success_before_its_end,
    assert_sound,
    assert_the_same_however_cut,
    changed,
    launch,
    lines_of,
    mutations,
    places,
    read_all,
)
from tests.helpers import ROOT
from tests.rest_service import last, piece, recorded

TEXT = "STUB-ANSWER for What is two plus two?"


def options_of(command: list[str]) -> dict[str, str]:
    assert command[:3] == [sys.executable, "-S", "-E"]
    assert command[3].endswith("/lib/agents/_rest_main.py")
    return dict(zip(command[4::2], command[5::2], strict=True))


def body_of(command: list[str]) -> object:
    return json.loads(options_of(command)["--body"])


# -- command lines


def test_perplexity_is_asked_over_its_agent_api_with_the_low_preset() -> None:
    assert options_of(perplexity.command(launch())) == {
        "--service": "perplexity",
        "--api": "agent",
        "--url": "https://api.perplexity.ai/v1/agent",
        "--body": '{"preset": "low"}',
        "--silence": "120",
    }


def test_xai_is_asked_for_a_current_model_and_given_time_to_reason() -> None:
    assert options_of(xai.command(launch())) == {
        "--service": "xai",
        "--api": "chat",
        "--url": "https://api.x.ai/v1/chat/completions",
        "--body": '{"model": "grok-4.3"}',
        "--silence": "600",
    }


def test_a_model_takes_the_place_of_the_preset_and_may_search() -> None:
    search = [{"type": "web_search"}]
    body = body_of(perplexity.command(launch(model="perplexity/sonar")))
    assert body == {"model": "perplexity/sonar", "tools": search}
    both = launch(model="x/y", options={"preset": "high"})
    assert body_of(perplexity.command(both)) == {"model": "x/y", "preset": "high"}


def test_settings_go_into_the_request_under_the_names_of_each_api() -> None:
    options = {"max_tokens": 50, "parameters": {"temperature": 0.5, "model": "no"}}
    assert body_of(perplexity.command(launch(options=options))) == {
        "preset": "low",
        "max_output_tokens": 50,
        "temperature": 0.5,
        "model": "no",
    }
    chat = perplexity.command(launch(options={**options, "api": "chat", "parameters": {}}))
    assert body_of(chat) == {"model": "sonar-pro", "max_tokens": 50}
    assert options_of(chat)["--url"] == "https://api.perplexity.ai/chat/completions"
    assert options_of(chat)["--api"] == "chat"
    grok = xai.command(launch(model="grok-9", options={"max_tokens": 5, "read_timeout": 1.5}))
    assert body_of(grok) == {"model": "grok-9", "max_completion_tokens": 5}
    assert options_of(grok)["--silence"] == "1.5"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://h", "https://h/v1/chat/completions"),
        ("https://h/", "https://h/v1/chat/completions"),
        ("https://h//", "https://h/v1/chat/completions"),
        ("https://h/v1", "https://h/v1/chat/completions"),
        ("https://h/v1/", "https://h/v1/chat/completions"),
        ("https://h/v1/chat/completions", "https://h/v1/chat/completions"),
        ("https://h/chat/completions/", "https://h/chat/completions"),
        ("https://h/gate/way", "https://h/gate/way/v1/chat/completions"),
        ("https://h/gate/v1", "https://h/gate/v1/chat/completions"),
        ("http://127.0.0.1:8", "http://127.0.0.1:8/v1/chat/completions"),
    ],
)
def test_a_base_url_is_completed_to_the_address_of_the_api(given: str, url: str) -> None:
    assert options_of(xai.command(launch(options={"base_url": given})))["--url"] == url


@pytest.mark.parametrize(
    ("given", "agent", "chat"),
    [
        ("https://h", "https://h/v1/agent", "https://h/chat/completions"),
        ("https://h/v1", "https://h/v1/agent", "https://h/v1/chat/completions"),
        ("https://h/p/v1/agent", "https://h/p/v1/agent", None),
    ],
)
def test_perplexity_has_an_address_for_either_api(given: str, agent: str, chat: str | None) -> None:
    found = perplexity.command(launch(options={"base_url": given}))
    assert options_of(found)["--url"] == agent
    if chat:
        found = perplexity.command(launch(options={"base_url": given, "api": "chat"}))
        assert options_of(found)["--url"] == chat


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"api": "soap"}, "unknown api of a perplexity agent: soap; known: agent, chat"),
        ({"max_tokens": "many"}, "max_tokens: many cannot be; it must be a whole number"),
        ({"max_tokens": True}, "max_tokens: True cannot be; it must be a whole number"),
        ({"max_tokens": 0}, "max_tokens: 0 cannot be; it must be a whole number"),
        ({"read_timeout": "10m"}, "read_timeout: 10m cannot be; it must be seconds"),
        ({"read_timeout": float("nan")}, "read_timeout: nan cannot be; it must be seconds"),
        ({"base_url": 8080}, "base_url: 8080 cannot be; it must be an address"),
        ({"base_url": "https://me:secret@h"}, "base_url must have no user, query or fragment; a"),
        ({"base_url": "https://h/v1?key=secret"}, "base_url must have no user, query or fragment"),
        ({"parameters": ["a"]}, "parameters: ['a'] cannot be; it must be a mapping"),
        ({"parameters": {"a": float("nan")}}, "parameters of perplexity cannot be sent"),
    ],
)
def test_a_setting_that_cannot_be_is_told_before_the_start(
    options: dict[str, object], text: str
) -> None:
    with pytest.raises(UserError) as caught:
        perplexity.command(launch(options=options))
    assert str(caught.value).startswith(text)
    assert "secret" not in str(caught.value)


def test_a_key_never_stands_on_the_command_line_and_nested_sessions_end() -> None:
    for backend in (perplexity, xai):
        asked = launch(options={"token": "pplx-0123456789abcdef"})
        assert "pplx-0123456789abcdef" not in " ".join(backend.command(asked))
        assert backend.environment(asked) == dict.fromkeys(base.NESTED_SESSION_VARIABLES)
        with pytest.raises(UserError, match="must not begin with a dash"):
            backend.command(launch(model="-m"))


def test_the_settings_of_the_example_are_settings() -> None:
    example = yamlio.load(ROOT.joinpath("config.example.yaml").read_text(encoding="utf-8"))
    agents = base.as_dict(base.as_dict(example)["agents"])
    asked = launch(options=base.as_dict(agents["perplexity"]))
    assert body_of(perplexity.command(asked)) == {"preset": "low", "max_output_tokens": 4000}
    grok = base.as_dict(agents["xai"])
    assert body_of(xai.command(launch(model=grok["model"], options=grok))) == {"model": xai.MODEL}


# -- server-sent events


def split(*pieces: bytes) -> list[str]:
    parser = _rest_stream.EventStream()
    found = [event for part in pieces for event in parser.feed(part)]
    return found + parser.finish()


HARD = (
    b": keep-alive\n\n"
    b'data: {"a": "\xc3\xa9\xf0\x9f\x98\x80"}\r\n\r\n'
    b"event: message\nid: 7\nretry: 10\ndata: one\ndata:two\ndata:  three\n\n"
    b"\n\n: \xff\xfe\r\ndata: \xff\xe2\x82!\n\n"
    b"data\n\ndatum: no\n\ndata: \xe2\x80\xa8\rmid\n\n"
    b"data: [DONE]"
)


def test_events_are_the_same_wherever_the_bytes_are_cut() -> None:
    whole = ['{"a": "é😀"}', "one\ntwo\n three", "��!", "", "\u2028\rmid", "[DONE]"]
    assert split(HARD) == whole
    for cut in range(len(HARD) + 1):
        assert split(HARD[:cut], HARD[cut:]) == whole
    assert split(*(HARD[at : at + 1] for at in range(len(HARD)))) == whole


def test_an_event_of_any_length_is_not_held_in_memory() -> None:
    mebibyte = b"x" * (1 << 20)
    with pytest.raises(_rest_stream.AnswerError, match="an event above 8 MiB"):
        split(b"data: ", *[mebibyte] * 9)
    with pytest.raises(_rest_stream.AnswerError, match="an event above 8 MiB"):
        split(*[b"data: " + mebibyte + b"\n"] * 9)
    parser = _rest_stream.EventStream()
    for _ in range(20):  # comments are nothing that is held
        assert parser.feed(b": " + mebibyte + b"\n") == []


# -- answers


def agent(*data: object) -> _rest_answer.AgentAnswer:
    answer = _rest_answer.AgentAnswer()
    for value in data:
        answer.take(value if isinstance(value, str) else json.dumps(value))
    return answer


def chat(*data: object) -> _rest_answer.ChatAnswer:
    answer = _rest_answer.ChatAnswer()
    for value in data:
        answer.take(value if isinstance(value, str) else json.dumps(value))
    return answer


def completed(text: str = "", **more: object) -> dict[str, object]:
    message = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    response = {"status": "completed", "output": [message], **more}
    return {"type": "response.completed", "response": response}


def delta(text: str, item: int = 0) -> dict[str, object]:
    return {"type": "response.output_text.delta", "delta": text, "output_index": item}


def results(*rows: object, **more: object) -> dict[str, object]:
    item = {"type": "search_results", "results": rows, **more}
    return {"type": "response.output_item.done", "item": item}


def test_a_stream_of_the_agent_api_is_read() -> None:
    answer = agent(*split(recorded("perplexity-agent-stream.sse")))
    assert (answer.is_complete, answer.is_over, answer.model) == (True, True, "stub-model")
    assert answer.usage == {
        "input_tokens": 1200,
        "cached_tokens": 400,
        "output_tokens": 34,
        "cost_usd": 0.0054,
    }
    assert answer.queries == ["stub query"]
    assert answer.with_sources() == (
        f"{TEXT}\n\nSources:\n\n"
        "1. Stub source 1: https://example.org/1\n2. Stub source 2: https://example.org/2"
    )


def test_searches_without_end_are_noted_up_to_a_number() -> None:
    answer = _rest_answer.AgentAnswer()
    for number in range(1000):
        queries = [f"query {number}", "the same  one", 7, ""]
        event = {"type": "response.reasoning.search_queries", "queries": queries}
        answer.take(json.dumps(event))
    assert answer.queries[:3] == ["query 0", "the same one", "query 1"]
    assert len(answer.queries) == _rest_answer.MAX_QUERIES
    many = {"type": "response.reasoning.search_queries", "queries": ["x"] * 100_000}
    answer.take(json.dumps(many))
    assert len(answer.queries) == _rest_answer.MAX_QUERIES


def test_a_stream_of_perplexitys_chat_completions_is_read() -> None:
    answer = chat(*split(recorded("perplexity-stream.sse")))
    assert (answer.is_complete, answer.is_over, answer.model) == (True, True, "sonar-pro")
    assert answer.usage == {"input_tokens": 1200, "output_tokens": 34, "cost_usd": 0.01011}
    assert answer.with_sources().endswith("2. Stub source 2: https://example.org/two")


def test_a_stream_of_xai_is_read() -> None:
    answer = chat(*split(recorded("xai-stream.sse")))
    assert (answer.is_complete, answer.model) == (True, "grok-4")
    assert answer.usage == {"input_tokens": 1200, "cached_tokens": 400, "output_tokens": 34}
    assert (answer.with_sources(), answer.sources()) == (TEXT, "")


def test_an_answer_that_does_not_come_as_a_stream_is_read_too() -> None:
    whole = _rest_answer.AgentAnswer()
    assert whole.take_whole(recorded("perplexity-agent-whole.json").decode()) == TEXT
    assert (whole.is_complete, whole.usage["cost_usd"]) == (True, 0.0054)
    other = _rest_answer.ChatAnswer()
    assert other.take_whole(recorded("xai-whole.json").decode()) == TEXT
    assert (other.is_complete, other.is_over) == (True, True)


def test_text_that_is_repeated_so_far_counts_once() -> None:
    def so_far(text: str, **more: object) -> dict[str, object]:
        return {"choices": [{"message": {"content": text}, **more}]}

    answer = chat(so_far("A lock"), so_far("A lock is"), so_far("A lock is", finish_reason="stop"))
    assert (answer.with_sources(), answer.is_complete) == ("A lock is", True)


def test_reasoning_is_not_the_answer_and_is_counted_in_its_tokens() -> None:
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}}]}
    usage = {
        "prompt_tokens": 32,
        "completion_tokens": 9,
        "total_tokens": 135,
        "completion_tokens_details": {"reasoning_tokens": 94},
        "cost_in_usd_ticks": 37756000,
    }
    answer = chat(thought, piece("Yes."), last(usage=usage), "[DONE]")
    assert answer.with_sources() == "Yes."
    assert answer.usage == {"input_tokens": 32, "output_tokens": 103, "cost_usd": 0.0037756}


def test_a_cost_in_another_currency_is_no_cost_in_dollars() -> None:
    cost = {"total_cost": 5, "currency": "EUR"}
    assert "cost_usd" not in agent(completed("x", usage={"cost": cost})).usage


def test_messages_of_the_agent_api_are_paragraphs_and_their_end_has_the_last_word() -> None:
    answer = agent(delta("I se"), delta("arch.", 0), delta("", 1), delta("Found.", 2))
    assert answer.with_sources() == "I search.\n\nFound."
    answer.take(json.dumps(completed("All of it.")))
    assert answer.with_sources() == "All of it."
    assert agent(delta("Kept."), completed()).with_sources() == "Kept."


def test_an_answer_that_was_cut_at_its_limit_says_so() -> None:
    short = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    for answer in (
        agent(delta("A"), {"type": "response.incomplete", "response": short}),
        chat(piece("A"), last("length")),
    ):
        assert answer.is_complete
        assert "max_tokens allows more" in answer.warning


def test_an_end_that_was_not_told_is_none() -> None:
    assert not agent(delta("A"), "[DONE]").is_complete
    assert not chat(piece("A")).is_complete
    assert chat(piece("A"), "[DONE]").is_complete
    assert chat(piece("A"), last()).is_complete
    assert not chat(piece("A"), last()).is_over  # usage may follow


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            {"type": "response.failed", "response": {"error": {"message": "no", "code": "c"}}},
            "no (c)",
        ),
        ({"type": "response.cancelled", "response": {}}, "its answer cancelled: no reason given"),
        ({"type": "response.completed", "response": {"status": "failed"}}, "ended as failed"),
        ({"type": "response.incomplete", "response": {}}, "ended as incomplete"),
        ({"object": "response", "status": "failed", "error": {"message": "no"}}, "failed: no"),
        ({"type": "error", "message": "no", "code": "c"}, "broke off with an error: no (c)"),
        ({"type": "error", "error": {"message": "no", "type": "t"}}, "no (t)"),
        ({"error": {"message": "no"}}, "broke off with an error: no"),
    ],
)
def test_a_failure_that_the_agent_api_tells_of_is_one(event: object, text: str) -> None:
    with pytest.raises(_rest_stream.AnswerError) as caught:
        agent(delta("A"), event)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"error": {"message": "no", "code": 500, "type": "t"}}, "error: no (t)"),
        ({"error": "no", "code": "c"}, "error: no (c)"),
        (last("content_filter"), "ended its answer with content_filter"),
        (last("error"), "ended its answer with error"),
        ("{cut", "an event that is no JSON: {cut"),
        ("[" * 100_000, "an event that is no JSON"),
    ],
)
def test_a_failure_that_chat_completions_tell_of_is_one(event: object, text: str) -> None:
    with pytest.raises(_rest_stream.AnswerError) as caught:
        chat(piece("A"), event)
    assert text in str(caught.value)


def test_an_answer_without_end_is_given_up() -> None:
    with pytest.raises(_rest_stream.AnswerError, match="larger than any that makes sense"):
        chat(*[piece("x" * (1 << 20))] * 3)


def test_a_source_has_the_number_that_the_text_has_for_it() -> None:
    numbered = agent(
        results({"id": 2, "url": "u2"}, {"id": 1, "url": "u1", "title": "T\n1"}),
        results({"id": 3, "url": "u2"}, {"id": 1, "url": "u1"}, {"url": "u3"}, {"url": ""}),
    )
    assert numbered.sources() == "Sources:\n\n1. T 1: u1\n2. u2\n3. u2\n4. u3"
    again = agent(
        results({"id": 1, "url": "a"}), results({"id": 1, "url": "b"}, {"id": 2, "url": "a"})
    )
    assert again.sources() == "Sources:\n\n1. a\n2. b"
    listed = chat({"citations": ["u1", "u2", "u1"]}, {"citations": ["u1", "u2", "u1"]})
    assert listed.sources() == "Sources:\n\n1. u1\n2. u2\n3. u1"


def test_a_verdict_stays_the_last_line() -> None:
    answer = chat({"citations": ["u"]}, piece("Fine.\n\nVERDICT: APPROVE\n"), last())
    assert answer.with_sources() == "Fine.\n\nSources:\n\n1. u\n\nVERDICT: APPROVE"
    assert chat({"citations": ["u"]}, last()).with_sources() == ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("perplexity-agent-stream.sse", _rest_answer.AgentAnswer),
        ("perplexity-stream.sse", _rest_answer.ChatAnswer),
        ("xai-stream.sse", _rest_answer.ChatAnswer),
    ],
)
def test_values_of_the_wrong_type_are_no_answer_or_a_sound_one(
    name: str, kind: type[_rest_answer.Answer]
) -> None:
    data = [event for event in split(recorded(name)) if event != "[DONE]"]
    for number, event in enumerate(map(json.loads, data)):
        for path in places(event):
            for wrong in WRONG:
                answer = kind()
                value = json.dumps(changed(event, path, wrong))
                try:
                    for text in [*data[:number], value, *data[number + 1 :]]:
                        answer.take(text)
                except _rest_stream.AnswerError:
                    continue
                answer.with_sources().encode()
                assert set(answer.usage) <= {
                    *("input_tokens", "cached_tokens", "output_tokens", "cost_usd")
                }


# -- errors and waits


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {"error": {"message": "bad key", "type": "forbidden", "code": 401}},
            "bad key (forbidden)",
        ),
        ({"error": {"message": "bad key", "type": "t", "code": "c"}}, "bad key (c)"),
        ({"code": "c", "error": "bad\nkey"}, "bad key (c)"),
        ({"error": "bad key"}, "bad key"),
        ({"message": "bad key"}, "bad key"),
        ({"detail": "bad key"}, "bad key"),
        ({"error": {"code": "c"}}, "c"),
        ({"error": [1]}, ""),
        ({}, ""),
    ],
)
def test_either_shape_of_an_error_becomes_one_line(body: dict[str, object], text: str) -> None:
    assert _rest_answer.error_text(body) == text


def test_retry_after_is_read_as_a_number_and_as_a_date() -> None:
    assert _rest_http._retry_after("7") == 7
    assert _rest_http._retry_after(" 1.5 ") == 1.5
    assert _rest_http._retry_after("1e999") == 1e7
    soon = _rest_http._retry_after(formatdate(time.time() + 60, usegmt=True))
    assert soon is not None
    assert 50 < soon < 61
    assert _rest_http._retry_after(formatdate(time.time() - 60, usegmt=True)) == 0
    for nonsense in (None, "", "soon", "-1", "nan", "²", "Mon, 99 Foo 2026 99:99:99 GMT"):
        assert _rest_http._retry_after(nonsense) is None


def test_pauses_grow_and_differ_and_are_bounded() -> None:
    for number, least in ((1, 1), (2, 2), (3, 4), (4, 8), (20, 32)):
        found = {_rest_http._pause(number, None) for _ in range(20)}
        assert least <= min(found) <= max(found) <= 1.5 * least
        assert len(found) > 1
    assert 10 <= _rest_http._pause(1, 10.0) <= 11


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://example.org/v1", "would show the key to everybody"),
        ("http://127.0.0.1.example.org", "would show the key to everybody"),
        ("http://127.example.org", "would show the key to everybody"),
        ("ftp://h", "must be https://HOST/PATH"),
        ("h/v1", "must be https://HOST/PATH"),
        ("https:///v1", "must be https://HOST/PATH"),
        ("https://h:port/", "must be https://HOST/PATH"),
        ("https://h\n/v1", "must be https://HOST/PATH"),
        ("https://h /v1", "must be https://HOST/PATH"),
        ("https://[::1", "must be https://HOST/PATH"),
    ],
)
def test_an_address_that_no_key_should_go_to_is_refused(url: str, text: str) -> None:
    with pytest.raises(UserError) as caught:
        _rest_address.Address(url)
    assert text in str(caught.value)
    assert caught.value.exit_code == EXIT_USAGE
    assert "\n" not in str(caught.value)


def test_an_address_on_this_machine_needs_no_tls() -> None:
    for url, place in (
        ("http://127.0.0.1:80/x", "127.0.0.1:80"),
        ("http://localhost:9", "localhost:9"),
        ("http://[::1]:9", "[::1]:9"),
        ("https://h/x", "h:443"),
    ):
        assert _rest_address.Address(url).place == place


def test_the_key_is_masked_wherever_the_pieces_end() -> None:
    key = "pplx-abcabcab"
    text = f"a {key}pplx-abc pplx-abcab{key} pplx-"
    for cut in range(len(text) + 1):
        mask = _rest_main.Mask(key)
        shown = [mask.feed(text[:cut]), mask.feed(text[cut:]), mask.finish()]
        assert "".join(shown) == "a [REDACTED]pplx-abc pplx-abcab[REDACTED] pplx-"
        assert not any(
            key[:9] in part for part in shown if "abc " not in part and "ab[" not in part
        )
    mask = _rest_main.Mask(key)
    assert "".join([mask.feed(letter) for letter in text]) + mask.finish() == (
        "a [REDACTED]pplx-abc pplx-abcab[REDACTED] pplx-"
    )
    assert _rest_main.Mask("abc").feed("abc") == "abc"  # no key is that short


# -- the reader

GOOD = lines_of(
    {"type": "start", "service": "perplexity", "preset": "low"},
    {"type": "wait", "message": "HTTP 429: slow down; try 2 of 5 in 4 s"},
    {"type": "search", "queries": ["file locks", "flock"]},
    {"type": "alive"},
    {"type": "text", "text": "A lock \x1b[3"},
    {"type": "text", "text": "1mis held.\n\nSources"},
    {"type": "result", "status": "success", "text": "A lock is held.", "model": "sonar",
     "usage": {"input_tokens": 9, "cached_tokens": 1, "output_tokens": 4, "cost_usd": 0.25}},
)  # fmt: skip
BAD = lines_of(
    {"type": "start", "service": "xai", "model": "grok-4.3"},
    {"type": "text", "text": "A lo"},
    {"type": "result", "status": "error", "error": "xai: it broke off; try again"},
)


def test_a_person_reads_waits_searches_and_the_text_as_it_comes() -> None:
    outcome, shown = read_all(perplexity.reader(), GOOD)
    assert shown == (
        "▷ perplexity, preset low\n"
        "↻ HTTP 429: slow down; try 2 of 5 in 4 s\n"
        "▶ tool web_search: file locks\n▶ tool web_search: flock\n"
        "\nA lock ␛is held.\n\nSources\n\n"
        "■ done, 9 tokens in (1 cached), 4 out, $0.2500\n"
    )
    assert (outcome.final_text, outcome.success) == ("A lock is held.", True)
    assert (outcome.model, outcome.cost_usd, outcome.tool_calls) == ("sonar", 0.25, 2)
    assert (outcome.input_tokens, outcome.cached_tokens, outcome.output_tokens) == (9, 1, 4)


def test_text_is_shown_before_its_end_has_come() -> None:
    reader = xai.reader()
    assert reader.feed(lines_of({"type": "text", "text": "A lo"})) == "\nA lo"
    assert reader.feed(lines_of({"type": "text", "text": "ck"})) == "ck"


def test_a_failure_is_told_with_what_was_received() -> None:
    outcome, shown = read_all(xai.reader(), BAD)
    assert (outcome.success, outcome.error) == (False, "xai: it broke off; try again")
    assert "\nA lo\n\n■ failed: xai: it broke off; try again\n" in shown
    outcome, shown = read_all(xai.reader(), BAD[: BAD.index(b'{"type": "result"')])
    assert (outcome.success, outcome.error) == (False, "no result event")
    assert shown.endswith("\nA lo\n\n■ ended without a result\n")


@pytest.mark.parametrize("data", [GOOD, BAD])
def test_the_events_are_read_the_same_however_cut_and_damaged(data: bytes) -> None:
    assert_the_same_however_cut(_rest.StreamReader, data)
    assert_no_success_before_its_end(_rest.StreamReader, data)
    assert_damage_is_survived(_rest.StreamReader, data)


def test_values_of_the_wrong_type_leave_the_reader_sound() -> None:
    for changed_events in mutations(GOOD):
        outcome, shown = read_all(_rest.StreamReader(), lines_of(*changed_events))
        assert_sound(outcome)
        assert_harmless(shown)


def test_without_a_key_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XAI_API_KEY", raising=False)
    written: list[bytes] = []
    options = options_of(xai.command(launch()))
    done = _rest_main.Conversation(options, written.append).run("Hello")
    outcome, _ = read_all(xai.reader(), *written)
    assert (done, outcome.error) == (
        EXIT_USAGE,
        "xai: there is no key for it; set XAI_API_KEY, or token_file: of the agent in config.yaml",
    )
