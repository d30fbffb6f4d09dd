"""Perplexity and xAI as real processes and real runs, against a service on this machine."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from lib import redact
from lib.agents import _rest_address, _rest_main, base, perplexity, xai
from lib.errors import EXIT_USAGE
from tests.agent_runs import Place, check_settled
from tests.agent_streams import launch, read_all
from tests.helpers import clean_environment, wait_until
from tests.rest_service import (
    GATE,
    RESET,
    STALL,
    Service,
    chunked,
    closed_port,
    events,
    head,
    last,
    piece,
    recorded,
    said,
    stream,
)

KEY = "xai-0123456789abcdefTESTKEY"
TEXT = "STUB-ANSWER for What is two plus two?"
YES = events(piece("Yes."), last()) + b"data: [DONE]\n\n"


class Ended:
    """How a process ended, and what its backend's reader makes of its output."""

    def __init__(self, status: int, stdout: bytes, stderr: str) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        self.outcome, self.transcript = read_all(xai.reader(), stdout)
        self.events = [json.loads(line) for line in stdout.split(b"\n") if line]

    @property
    def text(self) -> str:
        return "".join(event["text"] for event in self.events if event["type"] == "text")


def options(service: Service | str, **more: object) -> dict[str, object]:
    return {"base_url": service if isinstance(service, str) else service.url, **more}


def variables(**more: str) -> dict[str, str]:
    found = clean_environment({"XAI_API_KEY": KEY, "PERPLEXITY_API_KEY": KEY, **more})
    return {k: v for k, v in found.items() if k.lower() not in ("all_proxy", "no_proxy")}


def run(
    service: Service | str,
    backend: ModuleType = xai,
    prompt: str = "Is it?",
    model: str | None = None,
    env: dict[str, str] | None = None,
    **settings: object,
) -> Ended:
    command = backend.command(launch(model=model, options=options(service, **settings)))
    done = subprocess.run(
        command, input=prompt.encode(), capture_output=True, env=env or variables(), timeout=60
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


class Slept(list[float]):
    """What a conversation in this process would have slept."""


def converse(
    monkeypatch: pytest.MonkeyPatch, url: str, backend: ModuleType = xai, **settings: object
) -> tuple[Ended, Slept]:
    monkeypatch.setenv("XAI_API_KEY", KEY)
    monkeypatch.setenv("PERPLEXITY_API_KEY", KEY)
    monkeypatch.setattr(redact, "_own", None)
    command = backend.command(launch(options=options(url, **settings)))
    pairs = dict(zip(command[4::2], command[5::2], strict=True))
    written: list[bytes] = []
    slept = Slept()
    status = _rest_main.Conversation(pairs, written.append, slept.append).run("Is it?")
    return Ended(status, b"".join(written), ""), slept


# -- what is asked, what is answered


def test_perplexity_searches_and_answers_with_its_sources_tokens_and_cost() -> None:
    with Service(stream(recorded("perplexity-agent-stream.sse"))) as service:
        ended = run(service, perplexity, "What is two plus two?\n")
    [asked] = service.asked
    assert (asked.method, asked.path) == ("POST", "/v1/agent")
    assert asked.body == {"preset": "low", "input": "What is two plus two?\n", "stream": True}
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["content-type"] == "application/json"
    outcome = ended.outcome
    sources = (
        "Sources:\n\n1. Stub source 1: https://example.org/1\n"
        "2. Stub source 2: https://example.org/2"
    )
    assert (ended.status, ended.stderr, outcome.error) == (0, "", None)
    assert outcome.final_text == f"{TEXT}\n\n{sources}" == ended.text
    assert (outcome.model, outcome.cost_usd, outcome.tool_calls) == ("stub-model", 0.0054, 1)
    assert (outcome.input_tokens, outcome.cached_tokens, outcome.output_tokens) == (1200, 400, 34)
    assert "▶ tool web_search: stub query\n" in ended.transcript


def test_perplexitys_chat_completions_are_spoken_on_request() -> None:
    with Service(stream(recorded("perplexity-stream.sse"))) as service:
        ended = run(service, perplexity, "Hi", api="chat", max_tokens=9)
    [asked] = service.asked
    assert asked.path == "/chat/completions"
    assert asked.body == {
        "model": "sonar-pro",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
    }
    assert ended.outcome.cost_usd == 0.01011
    assert (ended.outcome.final_text or "").endswith("2. Stub source 2: https://example.org/two")


def test_xai_is_asked_for_the_model_that_was_chosen() -> None:
    with Service(stream(recorded("xai-stream.sse"))) as service:
        ended = run(service, model="grok-9", parameters={"reasoning_effort": "high"})
    [asked] = service.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body["model"] == "grok-9"
    assert asked.body["reasoning_effort"] == "high"
    assert asked.body["messages"] == [{"role": "user", "content": "Is it?"}]
    assert (ended.status, ended.outcome.final_text) == (0, TEXT)
    assert ended.events[0] == {"type": "start", "service": "xai", "model": "grok-9"}
    assert (ended.outcome.model, ended.outcome.cost_usd) == ("grok-4", None)  # as it answered


def test_a_prompt_of_any_characters_arrives_as_it_is() -> None:
    prompt = 'é😀 "quoted" \\ \x01 \u2028 {}\r\n' * 20_000
    with Service(stream(YES)) as service:
        assert run(service, prompt=prompt).status == 0
    assert service.asked[0].body["messages"] == [{"role": "user", "content": prompt}]


@pytest.mark.parametrize("name", ["xai-stream.sse", "perplexity-stream.sse"])
def test_a_stream_in_any_pieces_and_with_any_line_ends_is_the_same_answer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = recorded(name)
    crlf = b": ping\r\n\r\n" + body.replace(b"\n", b"\r\n").replace(
        b"\r\n\r\n", b"\r\n\r\n: \xff\r\n"
    )
    single = [body[at : at + 1] for at in range(len(body))]
    with Service(stream(body), chunked(*single), chunked(body), stream(crlf)) as service:
        answers = [converse(monkeypatch, service.url)[0] for _ in range(4)]
    assert {answer.outcome.final_text for answer in answers} == {answers[0].outcome.final_text}
    assert (answers[0].outcome.final_text or "").startswith(TEXT)
    assert [answer.text for answer in answers] == [answers[0].text] * 4


def test_data_of_several_lines_and_bytes_that_are_no_text_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = b'data: {"choices": [{"delta":\ndata:   {"content": "a\xff\xe2\x82b"},\r\n'
    body += b'data: "finish_reason": "stop"}]}\n\n'
    with Service(stream(body)) as service:
        ended, _ = converse(monkeypatch, service.url)
    assert (ended.status, ended.outcome.final_text) == (0, "a\ufffd\ufffdb")


def test_an_answer_that_does_not_come_as_a_stream_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = [("perplexity-agent-whole.json", perplexity), ("xai-whole.json", xai)]
    for name, backend in kinds:
        with Service(said(200, json.loads(recorded(name)))) as service:
            ended, _ = converse(monkeypatch, service.url, backend)
        assert (ended.status, ended.outcome.error) == (0, None)
        assert (ended.outcome.final_text or "").startswith(TEXT)
        assert ended.text.startswith(TEXT)


def test_usage_behind_the_finish_is_waited_for_and_an_end_without_done_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    good = events(piece("Yes."), last())
    with Service(stream(good + events(usage)), stream(good, RESET)) as service:
        first, _ = converse(monkeypatch, service.url)
        second, _ = converse(monkeypatch, service.url)
    assert (first.status, first.outcome.output_tokens) == (0, 2)
    assert (second.status, second.outcome.final_text) == (0, "Yes.")


def test_an_answer_that_was_cut_at_its_limit_is_one_with_a_warning() -> None:
    with Service(stream(events(piece("Ye"), last("length")))) as service:
        ended = run(service)
    assert (ended.status, ended.outcome.final_text) == (0, "Ye")
    assert "max_tokens allows more" in ended.stderr
    assert "· the answer was cut at its limit of tokens" in ended.transcript


# -- streams that go wrong


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "broke off before its end (the stream ended)"),
        (events({"error": {"message": "overloaded", "type": "t"}}), "an error: overloaded (t)"),
        (events({"error": "overloaded", "code": "c"}), "an error: overloaded (c)"),
        (b'data: {"choices": [{"del', "an event that is no JSON"),
        (b"data: " + b"x" * (9 << 20), "an event above 8 MiB"),
        (events(last("content_filter")), "ended its answer with content_filter"),
    ],
)
def test_a_stream_that_breaks_midway_fails_and_what_came_is_kept(
    body: bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = f"Half of {KEY[:9]}"  # which might have become the key
    with Service(stream(events(piece(half, model="m")) + body)) as service:
        ended, slept = converse(monkeypatch, service.url)
    assert (ended.status, ended.outcome.success, ended.text) == (1, False, half)
    assert text in (ended.outcome.error or "")
    assert (ended.outcome.error or "").startswith("xai: it")
    assert (len(service.asked), slept) == (1, [])  # an answer that has begun is not begun again
    assert ended.outcome.model == "m"


def test_a_connection_that_breaks_midway_fails_and_what_came_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = events(piece("Half"))
    cut = [head(Transfer_Encoding="chunked"), b"%x\r\n%b\r\n" % (len(begun), begun)]
    with Service(cut) as service:
        ended, _ = converse(monkeypatch, service.url)
    assert (ended.status, ended.text) == (1, "Half")
    assert "its answer broke off before its end (IncompleteRead)" in (ended.outcome.error or "")


def test_the_agent_api_is_believed_at_its_end_only(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = {"type": "response.output_text.delta", "delta": "Half"}
    failed = {"type": "response.failed", "response": {"error": {"message": "no", "code": "c"}}}
    with Service(stream(events(begun, failed)), stream(events(begun))) as service:
        first, _ = converse(monkeypatch, service.url, perplexity)
        second, _ = converse(monkeypatch, service.url, perplexity)
    assert first.outcome.error == "perplexity: its answer failed: no (c); try again"
    assert "broke off before its end" in (second.outcome.error or "")
    assert (first.text, second.text) == ("Half", "Half")


def test_an_answer_of_nothing_fails() -> None:
    with Service(stream(events(piece(" \n"), last()))) as service:
        ended = run(service)
    assert ended.status == 1
    assert ended.outcome.error == "xai: its answer is empty; try again, or another model"
    assert ended.stderr == f"{ended.outcome.error}\n"


def test_what_is_no_stream_at_all_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    page = [head(200, "text/html"), b"<html>Please log in to the wifi</html>"]
    with Service(page, [b"SSH-2.0-OpenSSH_9.9\r\n\r\n"]) as service:
        first, _ = converse(monkeypatch, service.url)
        second, _ = converse(monkeypatch, service.url)
    assert "answers with text/html, which is no answer; correct base_url" in str(
        first.outcome.error
    )
    assert "does not speak HTTP" in str(second.outcome.error)


@pytest.mark.parametrize("begun", [b"", head(), head() + events(piece("Half"))])
def test_a_service_that_falls_silent_is_given_up_and_not_asked_again(begun: bytes) -> None:
    with Service([begun, STALL]) as service:
        ended = run(service, read_timeout=0.5)
    assert ended.status == 1
    assert "said nothing for 0.5 s; read_timeout: in config.yaml" in (ended.outcome.error or "")
    assert ended.text == ("Half" if b"Half" in begun else "")
    assert len(service.asked) == 1


def test_an_answer_whose_end_was_told_is_one_though_the_service_falls_silent_then() -> None:
    with Service(stream(events(piece("Yes."), last()), STALL)) as service:
        ended = run(service, read_timeout=0.5)
    assert (ended.status, ended.outcome.final_text) == (0, "Yes.")


def test_a_service_that_reasons_gives_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rest_main, "ALIVE_SECONDS", 0.0)
    thought = events({"choices": [{"delta": {"reasoning_content": "hm"}}]})
    with Service(chunked(b": ping\n\n", thought, YES)) as service:
        ended, _ = converse(monkeypatch, service.url)
    kinds = [event["type"] for event in ended.events]
    assert kinds == ["start", "alive", "alive", "text", "result"]
    assert ended.outcome.final_text == "Yes."


# -- refusals, and being tried again


@pytest.mark.parametrize(
    ("status", "body", "cure"),
    [
        (401, {"error": {"message": "bad key", "type": "forbidden", "code": 401}},
         "HTTP 401: bad key (forbidden); set XAI_API_KEY, or token_file: in config.yaml, to a valid key"),
        (403, {"code": "c", "error": "not yours"}, "HTTP 403: not yours (c); set XAI_API_KEY"),
        (400, {"code": "c", "error": "Incorrect API key provided"}, "set XAI_API_KEY"),
        (400, {"error": {"message": "unknown field x"}},
         "HTTP 400: unknown field x; correct model: grok-4.3, or parameters: in config.yaml"),
        (404, {"error": {"message": "no such model", "code": "c"}},
         "HTTP 404: no such model (c); correct model: grok-4.3, or base_url (http://127.0.0.1:"),
        (402, {"error": "pay"}, "HTTP 402: pay; the account of XAI_API_KEY is out of credit"),
        (429, {"code": "c", "error": "used all available credits"}, "is out of credit or at its limit"),
        (403, {"error": "reached its monthly spending limit"}, "is out of credit or at its limit"),
        (422, {"detail": "bad"}, "HTTP 422: bad; correct model: grok-4.3"),
        (413, "too long", "HTTP 413: \"too long\"; correct model"),
        (418, {}, "HTTP 418: {}; correct model"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_sentence_that_says_what_to_do_and_is_not_tried_again(
    status: int, body: object, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service(said(status, body)) as service:
        ended, slept = converse(monkeypatch, service.url)
    assert ended.status == 1
    assert cure in (ended.outcome.error or "")
    assert (len(service.asked), slept) == (1, [])


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": "bad key"}, "login"),
        (403, {"error": "not yours"}, "login"),
        (400, {"error": "Incorrect API key provided"}, "login"),
        (402, {"error": "pay"}, "quota"),
        (403, {"error": "reached its monthly spending limit"}, "quota"),
        (400, {"error": "unknown field"}, "bad-request"),
        (404, {"error": "no such model"}, "bad-request"),
        (302, {}, "bad-request"),
        (429, {"error": "too many"}, "quota"),
        (500, {"error": "oh"}, "overload"),
        (529, {"error": "overloaded"}, "overload"),
    ],
)
@pytest.mark.parametrize("backend", [xai, perplexity])
def test_the_last_event_tells_the_class_of_a_refusal_and_its_status(
    backend: ModuleType, status: int, body: object, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service(said(status, body)) as service:
        ended, _ = converse(monkeypatch, service.url, backend)
    assert ended.events[-1]["error_class"] == kind
    assert ended.events[-1]["http_status"] == status
    assert "reset" not in ended.events[-1]
    found = backend.failure(base.Ended(code=1, outcome=ended.outcome))
    assert (found.kind, found.reason, found.reset) == (kind, ended.outcome.error, 0.0)


def test_a_limit_is_told_with_the_time_at_which_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.time()
    for status, kind in ((429, "quota"), (503, "overload")):
        with Service(said(status, {"error": "too many"}, Retry_After="7200")) as service:
            ended, _ = converse(monkeypatch, service.url)
        found = xai.failure(base.Ended(code=1, outcome=ended.outcome))
        assert found.kind == kind
        assert before <= found.reset - 7200 <= time.time()


def test_what_is_no_answer_has_its_class_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(*reply: bytes, seconds: float = 60) -> str | None:
        with Service(list(reply)) as service:
            ended, _ = converse(monkeypatch, service.url, read_timeout=seconds)
        return ended.outcome.fault_class

    filtered = events({"choices": [{"delta": {}, "finish_reason": "content_filter"}]})
    assert kind(*stream(filtered)) == "refusal"
    assert kind(*stream(events(piece("Ye")))) == "overload"
    assert kind(*stream(events({"error": {"message": "boom"}}))) == "overload"
    assert kind(*stream(events(last()))) == "failed"
    assert kind(STALL, seconds=0.2) == "silence"
    ended, _ = converse(monkeypatch, f"http://127.0.0.1:{closed_port()}")
    assert ended.outcome.fault_class == "overload"
    for wrong in (run("http://example.org"), run("http://127.0.0.1:1", prompt=" ")):
        assert wrong.outcome.fault_class == "bad-request"
    without = run("http://127.0.0.1:1", env=variables(XAI_API_KEY=""))
    assert (without.status, without.outcome.fault_class) == (EXIT_USAGE, "login")


def test_an_answer_that_comes_before_the_prompt_was_sent_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Service(said(413, {"error": "the prompt is too large"})) as service:
        service.reads_body = False  # it closes, which breaks the sending off
        large = {"user": "x" * (16 << 20)}
        ended, slept = converse(monkeypatch, service.url, parameters=large)
    # What stands behind the status may be lost with the connection.
    assert "HTTP 413: " in (ended.outcome.error or "")
    assert (slept, len(service.asked)) == ([], 1)


def test_a_busy_service_is_asked_again_after_as_long_as_it_says() -> None:
    busy = {"error": {"message": "slow down", "type": "request_rate_limit_exceeded"}}
    with Service(said(429, busy, Retry_After="0"), stream(YES)) as service:
        ended = run(service)
    assert (ended.status, ended.outcome.final_text, len(service.asked)) == (0, "Yes.", 2)
    what = "HTTP 429: slow down (request_rate_limit_exceeded); try 2 of 5 in 0 s"
    assert ended.stderr == f"xai: {what}\n"
    assert f"↻ {what}\n" in ended.transcript
    assert ended.outcome.note == what


def test_pauses_follow_the_service_and_grow_where_it_tells_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    date = "Thu, 01 Jan 2026 00:00:00 GMT"  # has passed
    replies = [said(429, {}, Retry_After="20"), said(500, {}), said(529, {}, Retry_After=date)]
    with Service(*replies, said(503, {}), stream(YES)) as service:
        ended, slept = converse(monkeypatch, service.url)
    assert ended.status == 0
    bounds = [(20, 22), (2, 3), (0, 0), (8, 12)]
    assert all(low <= s <= high for s, (low, high) in zip(slept, bounds, strict=True))


@pytest.mark.parametrize("status", [500, 502, 503, 529])
def test_a_service_that_keeps_failing_is_given_up(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service([head(status, "text/html"), b"<html>Bad gateway</html>"]) as service:
        ended, slept = converse(monkeypatch, service.url)
    assert (ended.status, len(service.asked), len(slept)) == (1, 5, 4)
    error = f"xai: HTTP {status}: Whatever, after 5 tries; try again later"
    assert ended.outcome.error == error


def test_a_limit_that_ends_late_is_told_with_its_time_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Service(said(429, {"error": "too many"}, Retry_After="7200")) as service:
        ended, slept = converse(monkeypatch, service.url)
    error = ended.outcome.error or ""
    assert error.startswith("xai: HTTP 429: too many; it says to try again in 7200 s, at 20")
    assert (len(service.asked), slept) == (1, [])


def test_where_nobody_listens_it_is_tried_some_times(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    ended, slept = converse(monkeypatch, f"http://127.0.0.1:{port}")
    assert (ended.status, len(slept)) == (1, 4)
    assert 15 <= sum(slept) <= 23
    assert ended.outcome.error == (
        f"xai: no connection to 127.0.0.1:{port}: Connection refused, after 5 tries; "
        "check the network, HTTPS_PROXY and base_url"
    )


def test_a_connection_that_ends_without_an_answer_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Service([], [RESET], stream(YES)) as service:
        ended, slept = converse(monkeypatch, service.url)
    assert (ended.status, len(slept), len(service.asked)) == (0, 2, 3)


def test_who_does_not_shake_hands_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rest_address, "CONNECT_SECONDS", 0.1)
    with Service([STALL]) as service:
        ended, slept = converse(monkeypatch, service.url.replace("http:", "https:"))
    assert f"no connection to 127.0.0.1:{service.port}" in (ended.outcome.error or "")
    assert len(slept) == 4


# -- the key


def test_without_a_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with Service(stream(YES)) as service:
        for key in ("", "  \n", "one two", "one\ntwo", "clé"):
            ended = run(service, env=variables(XAI_API_KEY=key))
            assert ended.status == EXIT_USAGE
            assert "set XAI_API_KEY, or token_file: of the agent in config.yaml" in ended.stderr
            assert ended.stderr.count("\n") == 1
        assert run(service, prompt=" \n").outcome.error == (
            "xai: the prompt is empty; write what it shall do"
        )
        for url in ("http://example.org", "no address"):
            ended = run(url)
            assert (ended.status, len(ended.stderr.split("\n"))) == (EXIT_USAGE, 2)
    assert service.asked == []


def test_a_key_with_a_line_end_behind_it_is_that_key() -> None:
    with Service(stream(YES)) as service:
        assert run(service, env=variables(XAI_API_KEY=f"{KEY}\n")).status == 0
    assert service.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_redirect_is_not_followed_for_the_key_would_go_along() -> None:
    with Service(stream(YES)) as other:
        to = f"{other.url}/{KEY}"
        for status in (301, 302, 303, 307, 308):
            with Service([head(status, Location=to)]) as service:
                ended = run(service)
            assert ended.status == 1
            assert f"HTTP {status} leads to {other.url}/[REDACTED]" in ended.stderr
            assert KEY not in ended.stderr + ended.stdout.decode()
    assert other.asked == []


def test_a_key_that_the_service_sends_back_is_in_no_output() -> None:
    key = "opaque-key-of-27-characters"  # of no known pattern
    letters = [piece(letter, model=key) for letter in f"It is {key}, {key[:-1]}."]
    listed: dict[str, object] = {"citations": [f"https://example.org/?key={key}"]}
    replies = [
        stream(events(*letters, last("stop", **listed))),
        stream(events(piece(f"{key[:20]}"), {"error": f"bad key {key}"})),
        said(401, {"error": {"message": f"bad key {key}", "code": key}}),
        said(400, f"no JSON {key}"),
        stream(events(piece("x")) + b"data: {" + key.encode() + b"\n\n"),
    ]
    for reply in replies:
        with Service(reply) as service:
            ended = run(service, env=variables(XAI_API_KEY=key))
        everything = ended.stdout.decode() + ended.stderr + ended.transcript
        assert key not in everything
        assert key not in "".join(event.get("text", "") for event in ended.events)
        assert service.asked[0].headers["authorization"] == f"Bearer {key}"
    with Service(replies[0]) as service:
        ended = run(service, env=variables(XAI_API_KEY=key))
    assert ended.text.startswith("It is [REDACTED], opaque-key-of-27-character.")
    assert ended.outcome.final_text == ended.text


# -- TLS and proxies


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, with its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not here to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *(program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", str(path), "-out", f"{path}.crt", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    with path.open("ab") as file:
        file.write(Path(f"{path}.crt").read_bytes())
    return path


class SecureService(Service):
    """The same, behind TLS."""

    def __init__(self, certificate: Path, *replies: list[bytes]) -> None:
        super().__init__(*replies)
        self.url = self.url.replace("http:", "https:")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)

    def wrap(self, connection: socket.socket) -> socket.socket:
        return self._context.wrap_socket(connection, server_side=True)


def test_a_certificate_that_nobody_vouches_for_gets_no_key(certificate: Path) -> None:
    with SecureService(certificate, list(stream(YES))) as service:
        ended = run(service)
        assert ended.status == 1
        assert f"the certificate of 127.0.0.1:{service.port} is not to be trusted" in ended.stderr
        assert service.asked == []
        trusting = variables(SSL_CERT_FILE=f"{certificate}.crt")
        assert run(service, env=trusting).outcome.final_text == "Yes."


class Proxy:
    """An HTTP proxy that lets connections through to one port, whatever is asked for."""

    def __init__(self, port: int) -> None:
        self.asked: list[bytes] = []
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(30)

    def _serve(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:
            return
        with client, socket.create_connection(("127.0.0.1", self._port)) as service:
            raw = b""
            while not raw.endswith(b"\r\n\r\n"):
                raw += client.recv(1)
            self.asked.append(raw)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pour, args=(service, client), daemon=True)
            back.start()
            _pour(client, service)
            back.join(30)


def _pour(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other end has gone


def test_a_proxy_of_the_environment_is_gone_through_and_sees_no_key(certificate: Path) -> None:
    with SecureService(certificate, list(stream(YES))) as service, Proxy(service.port) as proxy:
        trusting = variables(
            SSL_CERT_FILE=f"{certificate}.crt", HTTPS_PROXY=f"http://me:pa%20ss@{proxy.place}"
        )
        ended = run(service, env=trusting)
        assert (ended.status, ended.outcome.final_text) == (0, "Yes.")
        [asked] = proxy.asked
        assert asked.startswith(f"CONNECT 127.0.0.1:{service.port} HTTP/1".encode())
        assert b"Proxy-Authorization: Basic bWU6cGEgc3M=\r\n" in asked
        assert KEY.encode() not in asked
        past_it = {**trusting, "HTTPS_PROXY": f"127.0.0.1:{closed_port()}", "NO_PROXY": "127.0.0.1"}
        assert run(service, env=past_it).status == 0
        odd = run(service, env={**trusting, "HTTPS_PROXY": "socks5://127.0.0.1:1"})
        assert odd.stderr == "xai: HTTPS_PROXY must be http://host:port; correct it\n"


# -- signals, and whole runs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_without_a_traceback(number: signal.Signals) -> None:
    with Service(stream(events(piece("Half")), STALL)) as service:
        process = subprocess.Popen(
            xai.command(launch(options=options(service))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables(),
        )
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"Is it?")
        process.stdin.close()
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(number)
        out, err = process.stdout.read(), process.stderr.read() if process.stderr else b""
        assert process.wait(30) == -number  # 128 + number to the shell that waits for it
        process.stdout.close()
        if process.stderr:
            process.stderr.close()
    assert b"Half" in lines[1]
    assert (out, err) == (b"", b"")


def test_nobody_who_reads_is_no_traceback() -> None:
    with Service(stream(events(piece("Half")), GATE, YES)) as service:
        process = subprocess.Popen(
            xai.command(launch(options=options(service))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables(),
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"Is it?")
        process.stdin.close()
        process.stdout.readline()
        process.stdout.close()
        service.gate.set()
        err = process.stderr.read().decode()
        assert process.wait(30) == 1
        process.stderr.close()
    assert "Traceback" not in err


@pytest.fixture
def place(place: Place) -> Place:
    """A place with the keys of both services."""
    place.env = {"XAI_API_KEY": KEY, "PERPLEXITY_API_KEY": "another-agents-key-1"}
    return place


def configure(place: Place, text: str) -> None:
    (place.cwd / "config.yaml").write_text(f"agents:\n{text}")


def everything_below(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def test_a_run_records_answer_model_tokens_and_cost(place: Place) -> None:
    (place.cwd / "key").write_text("pplx-key-of-a-file-0123456789\n")
    with Service(stream(recorded("perplexity-agent-stream.sse"))) as service:
        configure(place, f"  perplexity: {{token_file: key, base_url: '{service.url}'}}\n")
        done = place.run("perplexity", ".", "--prompt", "What is two plus two?")
    assert (done.returncode, done.stderr) == (0, "")
    record = check_settled(place, place.only_run().path).record
    assert (record["agent"], record["status"], record["exit_code"]) == (
        "perplexity",
        "completed",
        0,
    )
    assert (record["model"], record["cost_usd"]) == ("stub-model", 0.0054)
    assert (record["input_tokens"], record["cached_tokens"], record["output_tokens"]) == (
        *(1200, 400, 34),
    )
    folder = Path(place.only_run().path)
    assert (folder / "output.md").read_text().startswith(f"{TEXT}\n\nSources:\n\n1. Stub source 1")
    assert (
        folder / "prompt.md"
    ).read_text() == "What is two plus two?"  # and no file of this machine
    [asked] = service.asked
    assert asked.headers["authorization"] == "Bearer pplx-key-of-a-file-0123456789"
    assert "pplx-key-of-a-file" not in everything_below(place.root)


def test_the_transcript_grows_with_the_answer_and_a_stop_keeps_it(place: Place) -> None:
    with Service(stream(events(piece("First line.\nSecond")), STALL)) as service:
        configure(place, f"  xai: {{base_url: '{service.url}'}}\n")
        live = place.start("xai", ".", "--prompt", "Is it?")
        transcript = live.run_dir / "transcript.md"
        wait_until(lambda: "First line.\n" in transcript.read_text(), what="text in the transcript")
        live.signal(signal.SIGTERM)
        code, _, _ = live.end()
    assert code == 143
    run = check_settled(place, live.run_dir)
    assert (run.number("exit_code"), run.text("status")) == (143, "failed")
    assert run.text("error_summary") == "stopped by SIGTERM"
    assert "Second" in transcript.read_text()
    assert service.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in everything_below(place.root)


def test_a_run_that_fails_says_why_in_one_sentence(place: Place) -> None:
    with Service(said(401, {"error": f"Incorrect API key provided: {KEY}"})) as service:
        configure(place, f"  grok: {{type: xai, base_url: '{service.url}', model: grok-9}}\n")
        done = place.run("grok", ".", "--prompt", "Is it?")
    assert done.returncode == 1
    run = check_settled(place, place.only_run().path)
    assert run.text("error_summary").startswith("xai: HTTP 401: Incorrect API key provided")
    assert "set XAI_API_KEY, or token_file: in config.yaml" in run.text("error_summary")
    assert run.text("model") == "grok-9"
    assert KEY not in everything_below(place.root) + done.stdout + done.stderr


def test_a_run_without_a_key_ends_before_anything_is_sent(place: Place) -> None:
    place.env = {}
    done = place.run("xai", ".", "--prompt", "Is it?", "--model", "grok-9")
    assert done.returncode == EXIT_USAGE
    assert place.only_run().text("error_summary").startswith("xai: there is no key for it; set XAI")


def test_the_time_of_a_run_bounds_it(place: Place) -> None:
    with Service([STALL]) as service:
        configure(place, f"  xai: {{base_url: '{service.url}'}}\n")
        done = place.run("xai", ".", "--prompt", "Is it?", "--timeout", "0.5s")
    assert done.returncode == 124
    assert base.NO_REASON not in place.only_run().text("error_summary")
