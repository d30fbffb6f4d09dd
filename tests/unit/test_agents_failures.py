"""Why a run failed: each recorded failure has its class, and a sentence that names the cure."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from lib import agents, ids, judgement, redact, runs
from lib.agents import _failure, _reset, _rest, base
from tests.agent_streams import STREAMS, cases, facts, lines_of, read_all, stream, texts

HOUR, DAY = 3600.0, 86400.0
LOGINS = {
    "claude": "set ANTHROPIC_API_KEY, or run claude and type /login",
    "codex": "run codex login, or set CODEX_API_KEY",
    "gemini": "set GEMINI_API_KEY",
}
TEXTS = [case for case in texts() if case["exit_code"]]
STREAMED = [case for cli in LOGINS for case in cases(cli) if case["exit_code"]]

# Of every recorded failure: its class, and words of the cause and of the cure.
EXPECTED: dict[str, tuple[str, ...]] = {
    "claude/stream-401": ("login", "invalid API key", LOGINS["claude"]),
    "claude/stream-401-noretry": ("login", "invalid API key", LOGINS["claude"]),
    "claude/stream-429": ("quota", "rate limited", "use another agent"),
    "claude/stream-404-model": ("bad-request", "(no-such-model)", "correct model:"),
    "claude/stream-nokey": ("login", "claude is not logged in: ", LOGINS["claude"]),
    "claude/stream-max-budget": ("bad-request", "limit of cost", "$0.0001", "args:"),
    "claude/stream-sigterm": ("crash", "ended by SIGTERM", "start it again"),
    "claude/stream-sigterm-tool": ("crash", "ended by SIGTERM", "start it again"),
    "claude/text-401": ("login", "invalid API key", LOGINS["claude"]),
    "claude/text-429": ("quota", "rate limited", "use another agent"),
    "claude/text-refused": ("overload", "Connection refused", "check the network"),
    "claude/text-nokey": ("login", "claude is not logged in: ", LOGINS["claude"]),
    "claude/text-empty": ("bad-request", "empty prompt"),
    "claude/text-root-refused": ("bad-request", "as root", "sandbox: true in config.yaml"),
    "claude/text-max-turns": ("bad-request", "limit of turns", "args:"),
    "claude/text-max-budget": ("bad-request", "limit of cost", "args:"),
    "claude/json-401": ("login", "invalid API key", LOGINS["claude"]),
    "codex/json-401": ("login", "invalid API key", LOGINS["codex"]),
    "codex/json-400": ("bad-request", "(stub: bad request)", "model:"),
    "codex/json-429": ("quota", "429 Too Many Requests", "use another agent"),
    "codex/json-500": ("overload", "high demand", "start it again later"),
    "codex/json-provider-nokey": ("login", "`STUB_KEY`", "config.toml"),
    "codex/json-sigterm": ("crash", "ended by SIGTERM"),
    "codex/text-401": ("login", "invalid API key", LOGINS["codex"]),
    "codex/text-empty": ("bad-request", "empty prompt"),
    "codex/text-not-a-repo": ("bad-request", "trusted directory", "unattended:"),
    "codex/text-missing-cwd": ("bad-request", "No such file", "working folder"),
    "gemini/stream-401": ("login", "(stub: invalid API key)", LOGINS["gemini"]),
    "gemini/stream-400": ("bad-request", "(stub: bad request)", "model:"),
    "gemini/stream-500": ("overload", "(stub: internal error)", "start it again later"),
    "gemini/stream-max-turns": ("bad-request", "limit of turns", "maxSessionTurns"),
    "gemini/text-401": ("login", "(stub: invalid API key)", LOGINS["gemini"]),
    "gemini/text-empty": ("bad-request", "empty prompt"),
    "gemini/text-untrusted": ("bad-request", "trusted directory", "GEMINI_CLI_TRUST_WORKSPACE"),
    "gemini/text-nokey": ("login", "GEMINI_API_KEY environment", LOGINS["gemini"]),
    "gemini/json-401": ("login", "(stub: invalid API key)", LOGINS["gemini"]),
}


def kept_stderr(name: str) -> str:
    path = STREAMS / f"{name}.stderr"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def ended(
    agent: str,
    code: int | None = 1,
    stdout: bytes | str = b"",
    stderr: str = "",
    *,
    is_text: bool = False,
    at: float = 0.0,
    **told: object,
) -> base.Ended:
    data = stdout.encode() if isinstance(stdout, str) else stdout
    reader = base.TextReader() if is_text else agents.load(agent).reader({})
    outcome, _ = read_all(reader, data)
    for name, value in told.items():
        setattr(outcome, name, value)
    options = {"output": "text"} if is_text else {}
    text = data.decode("utf-8", "replace")
    return base.Ended(
        code=code, outcome=outcome, stdout=text, stderr=stderr, options=options, agent=agent, at=at
    )


def failure(agent: str, *arguments: object, **more: object) -> base.Failure:
    found: base.Failure = agents.load(agent).failure(ended(agent, *arguments, **more))  # type: ignore[arg-type]
    assert found.kind in base.ERROR_CLASSES
    assert found.reason
    return found


def told_by(agent: str, message: str, **more: object) -> base.Failure:
    """The failure that the agent tells of in its last event, or, without a stream, on stderr."""
    streams = {
        "claude": {"type": "result", "subtype": "success", "is_error": True, "result": message},
        "codex": {"type": "turn.failed", "error": {"message": message}},
        "gemini": {"type": "result", "status": "error", "error": {"message": message}},
    }
    if agent in streams:
        return failure(agent, 1, lines_of(streams[agent]), **more)
    return failure(agent, 1, b"", message, is_text=True, **more)


# -- the recorded failures


def test_every_recorded_failure_has_its_expectation() -> None:
    names = {str(case["file"]) for case in [*STREAMED, *TEXTS]}
    assert names == set(EXPECTED)


@pytest.mark.parametrize("case", [*STREAMED, *TEXTS], ids=lambda case: str(case["file"]))
def test_a_recorded_failure_is_of_its_class_and_names_its_cure(case: dict[str, object]) -> None:
    name, cli, code = str(case["file"]), str(case["cli"]), int(str(case["exit_code"]))
    found = failure(
        cli,
        128 - code if code < 0 else code,
        stream(name),
        kept_stderr(name),
        is_text=case in TEXTS,
    )
    kind, *words = EXPECTED[name]
    assert found.kind == kind, found.reason
    assert [word for word in words if word not in found.reason] == []
    assert "\n" not in found.reason
    assert len(found.reason) < 500
    assert found.reset == 0.0


@pytest.mark.parametrize("case", STREAMED, ids=lambda case: str(case["file"]))
def test_wherever_its_output_is_cut_off_a_failure_is_a_failure_of_some_class(
    case: dict[str, object],
) -> None:
    name, cli = str(case["file"]), str(case["cli"])
    data, chance = stream(name), random.Random(name)  # noqa: S311 - repeatable
    for end in [chance.randrange(len(data)) for _ in range(60)]:
        found = failure(cli, 1, data[:end], kept_stderr(name)[: end // 2])
        assert "\n" not in found.reason


# -- when a limit ends

NOW = 1_795_413_600.0  # 2026-11-23T06:00:00Z


def told(text: str, at: float = NOW, now: float = NOW) -> str:
    """The time in a text, said at 06:00 on Monday 23 November 2026 UTC, in short."""
    found = _reset.told(text, at, now)
    return ids.rfc3339(int(found * 1e9))[5:16] if found else ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("try again in 5 days 22 hours 11 minutes.", 5 * DAY + 22 * HOUR + 660),
        ("or try again in 3 days 4 hours 5 minutes", 3 * DAY + 4 * HOUR + 300),
        ("Try again in 1 hour, 2 minutes and 3 seconds", HOUR + 123),
        ("Please try again in 34.337s. Visit", 34.337),
        ("Please try again in 6m0s.", 360),
        ("try again in 28ms.", 0.028),
        ("try again in less than a minute.", 60),
        ("Please retry in 34.07488s.", 34.07488),
        ("Your quota will reset after 8h44m7s.", 8 * HOUR + 44 * 60 + 7),
        ("Your quota will reset after 2h13m", 2 * HOUR + 13 * 60),
        ('"retryDelay": "34s"', 34),
        (r"\"retryDelay\":\"34.5s\"", 34.5),
        ('{"type":"usage_limit_reached","resets_in_seconds":13872}', 13872),
        ('{"resets_at":1795414600,"resets_in_seconds":1000}', 1000),
        ("Claude AI usage limit reached|1795417200", 3600),
        ("Claude AI usage limit reached|1795417200000", 3600),
        ("quotaResetTimeStamp: 2026-11-24T07:06:58Z", 25 * HOUR + 418),
    ],
)
def test_a_duration_or_a_moment_is_understood(text: str, seconds: float) -> None:
    assert _reset.told(text, NOW, NOW) == pytest.approx(NOW + seconds, abs=0.001)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You've hit your limit · resets 3am (UTC)", "11-24T03:00"),
        ("You've hit your session limit · resets 3:30pm (UTC)", "11-23T15:30"),
        ("5-hour limit reached ∙ resets 12am (UTC)", "11-24T00:00"),
        ("resets 12pm (UTC)", "11-23T12:00"),
        ("You've hit your limit · resets Nov 26, 11am (UTC)", "11-26T11:00"),
        ("Resets Nov 25 at 12pm (UTC)", "11-25T12:00"),
        ("resets at 5:55am (UTC)", ""),  # five minutes ago: it has just ended
        ("resets at 5am (UTC)", "11-24T05:00"),
        ("resets Nov 22, 11am (UTC)", ""),
        ("resets Dec 1, 5am (UTC)", "12-01T05:00"),
        ("resets Dec 2, 5am (UTC)", ""),  # nine days
        ("resets Jan 2, 5am (UTC)", ""),
        ("try again at Aug 27, 2026, 7:38 AM (UTC)", ""),
    ],
)
def test_a_time_of_day_is_the_next_one_in_its_zone(text: str, expected: str) -> None:
    assert told(text) == expected


def in_zones() -> None:
    import zoneinfo

    if "Europe/Rome" not in zoneinfo.available_timezones():
        pytest.skip("this machine knows no time zones")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resets 4:50am (Europe/Rome)", "11-24T03:50"),
        ("resets 7:50am (Europe/Rome)", "11-23T06:50"),
        ("resets Nov 25 at 12pm (Asia/Singapore)", "11-25T04:00"),
        ("resets 11pm (America/Los_Angeles)", "11-23T07:00"),
    ],
)
def test_the_zone_that_is_named_counts(text: str, expected: str) -> None:
    in_zones()
    assert told(text) == expected


def test_without_a_zone_it_is_that_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    in_zones()
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert told("or try again at 3:51 PM.") == "11-23T20:51"
        assert told("or try again at Nov 25th, 2026 8:19 PM.") == "11-26T01:19"
        assert told("5-hour limit reached ∙ resets 3pm") == "11-23T20:00"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_night_in_which_clocks_change_has_another_length() -> None:
    in_zones()
    at = ids.parse_rfc3339("2026-10-24T21:00:00Z")
    assert at
    # 23:00 in Rome; at 3:00 the clocks go back to 2:00.
    assert told("resets 4am (Europe/Rome)", at / 1e9, at / 1e9) == "10-25T03:00"


def test_in_december_a_day_of_january_is_of_next_year() -> None:
    at = ids.parse_rfc3339("2026-12-30T06:00:00Z")
    assert at
    assert told("resets Jan 2, 5am (UTC)", at / 1e9, at / 1e9) == "01-02T05:00"


@pytest.mark.parametrize(
    "text",
    [
        *("resets 3 times", "resets 25:00", "resets 13pm (UTC)", "resets 3:75pm (UTC)"),
        *("resets 3pm (Mars/Base)", "resets 3pm (../../etc/passwd)", "resets 3pm (Europe)"),
        *("resets Feb 31, 3pm (UTC)", "try again in 40 days", "try again in 0 seconds"),
        *("limit reached|0000000001", "limit reached|99999999999999", "limit reached|1795413599"),
        *("resets_in_seconds: 999999999", "again in " + "9" * 400 + "s", "try again later"),
        *("resets at 10 de jul. de 2026, 11:52", "resets 3pm (\0)", "resets 3pm (é)", ""),
        *("again in 5 parsecs", "resets Nov 99 at 3pm", "reset 9999-99-99T99:99:99Z"),
    ],
)
def test_nonsense_is_no_time(text: str) -> None:
    assert _reset.told(text, NOW, NOW) == 0.0


def test_a_time_is_never_past_and_counts_from_when_it_was_said() -> None:
    assert _reset.told("try again in 5 minutes", NOW - 600, NOW) == 0.0
    assert _reset.told("try again in 5 minutes", NOW - 60, NOW) == NOW + 240
    assert told("resets 3am (UTC)", NOW - DAY, NOW) == ""


def test_no_text_whatever_is_an_error() -> None:
    chance = random.Random(5)  # noqa: S311 - repeatable
    parts = [
        "resets ",
        "try again in ",
        "at ",
        "Nov ",
        "3",
        "31",
        ":",
        "99",
        "pm",
        " (",
        ")",
        "UTC",
    ]
    parts += [
        "Europe/Rome",
        "|",
        "1795417200",
        " days",
        "ms",
        "\n",
        "\0",
        "é",
        ",",
        "2026",
        "T",
        "Z",
    ]
    for _ in range(3000):
        text = "".join(chance.choices(parts, k=chance.randrange(1, 12)))
        found = _reset.told(text, NOW, NOW)
        assert found == 0.0 or NOW < found <= NOW + _reset.MAX_SECONDS


# -- quotas


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ("claude", "Claude AI usage limit reached|{epoch}"),
        ("codex", "You've hit your usage limit. Upgrade to Pro (https://x.y/pricing) or try again in 1 hour."),
        ("codex", '{"error":{"type":"usage_limit_reached","message":"The usage limit has been reached","resets_at":{epoch}}}'),
        ("codex", "stream disconnected before completion: Rate limit reached for gpt-5 on tokens per min (TPM): Limit 1, Used 1. Please try again in 1h0m0s. Visit https://x.y to learn more."),
        ("gemini", '[API Error: [{"error":{"code":429,"message":"You have exhausted your capacity on this model. Your quota will reset after 1h0m0s.","status":"RESOURCE_EXHAUSTED"}}]]'),
        ("gemini", "You exceeded your current quota, please check your plan and billing details. Please retry in 3600.0s."),
        ("command", "error: rate limit exceeded, retry after 60 minutes"),
    ],
)  # fmt: skip
def test_a_limit_is_a_quota_with_the_time_at_which_it_ends(agent: str, message: str) -> None:
    now = time.time()
    message = message.replace("{epoch}", str(int(now) + 3600))
    found = told_by(agent, message, at=now)
    assert found.kind == "quota"
    assert found.reset == pytest.approx(now + 3600, abs=2)
    until = ids.rfc3339(int(found.reset) * 10**9)[:19]
    assert f": wait until {until}Z, or use another agent or account" in found.reason


@pytest.mark.parametrize(
    ("agent", "message", "cure"),
    [
        ("claude", "You've hit your session limit · resets whenever", "another agent or account"),
        ("claude", "Credit balance is too low", "see to the account"),
        ("codex", "You've hit your usage limit. Try again later.", "another agent or account"),
        ("codex", "You exceeded your current quota, please check your plan and billing details.", "see to the account"),
        ("gemini", "Resource has been exhausted (e.g. check quota).", "another agent or account"),
    ],
)  # fmt: skip
def test_a_limit_without_an_end_names_another_way(agent: str, message: str, cure: str) -> None:
    found = told_by(agent, message)
    assert (found.kind, found.reset) == ("quota", 0.0)
    assert cure in found.reason


def test_the_event_of_a_login_tells_exactly_when_its_limit_ends() -> None:
    now = int(time.time())
    info = {"status": "rejected", "resetsAt": now + 7200, "rateLimitType": "five_hour"}
    limit = {"type": "rate_limit_event", "rate_limit_info": info}
    allowed = {"type": "rate_limit_event", "rate_limit_info": {**info, "status": "allowed"}}
    message = "You've hit your limit · resets 3am (UTC)"
    result = {"type": "result", "subtype": "success", "is_error": True, "result": message}
    assert failure("claude", 1, lines_of(limit, result)).reset == now + 7200
    assert failure("claude", 1, lines_of(limit, allowed, result)).reset != now + 7200
    assert failure("claude", 0, lines_of(limit)).reset == 0.0


# -- other classes


@pytest.mark.parametrize(
    ("agent", "message", "kind", "cure"),
    [
        ("claude", "API Error: 529 Overloaded", "overload", "later"),
        ("claude", "API Error: 503 upstream", "overload", "later"),
        ("claude", "OAuth token has expired", "login", LOGINS["claude"]),
        ("claude", "Invalid API key · Fix external API key", "login", LOGINS["claude"]),
        ("claude", "API Error: Claude Code is unable to respond to this request, which appears to violate our Usage Policy", "refusal", "word the prompt"),
        ("claude", "Prompt is too long", "bad-request", "shorten the prompt"),
        ("codex", "Your access token could not be refreshed. Please log out and sign in again.", "login", LOGINS["codex"]),
        ("codex", "Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "refusal", "word the prompt"),
        ("codex", "Your input exceeds the context window of this model.", "bad-request", "shorten the prompt"),
        ("codex", "The 'x' model is not supported when using Codex with a ChatGPT account.", "bad-request", "model:"),
        ("codex", "unexpected status 404 Not Found: nothing", "bad-request", "base_url:"),
        ("codex", "unexpected status 422 Unprocessable", "bad-request", "prompt"),
        ("codex", "error sending request for url (https://x.y/v1)", "overload", "check the network"),
        ("gemini", '{"error":{"code":400,"message":"API key not valid. Please pass a valid API key."}}', "login", LOGINS["gemini"]),
        ("gemini", '{"error":{"code":429,"message":"No capacity available for model x on the server","status":"RESOURCE_EXHAUSTED"}}', "overload", "later"),
        ("gemini", '{"error":{"code":403,"message":"denied","status":"PERMISSION_DENIED"}}', "login", LOGINS["gemini"]),
        ("gemini", "exception TypeError: fetch failed sending request", "overload", "check the network"),
        ("command", "Error: 401 Unauthorized", "login", "token:"),
        ("command", "HTTP 500: boom", "overload", "later"),
    ],
)  # fmt: skip
def test_the_words_of_the_programs_are_known(
    agent: str, message: str, kind: str, cure: str
) -> None:
    found = told_by(agent, message)
    assert found.kind == kind, found.reason
    assert cure in found.reason


@pytest.mark.parametrize(
    ("agent", "code", "stderr"),
    [
        ("claude", 1, "No conversation found with session ID: 1b33765d"),
        ("codex", 1, "Error: thread/resume: thread/resume failed: no rollout found for thread id 1 (code -32600)"),
        ("gemini", 42, 'Error resuming session: Invalid session identifier "99".\n  Use --list-sessions to see available sessions.'),
    ],
)  # fmt: skip
def test_a_session_that_is_not_there_is_told(agent: str, code: int, stderr: str) -> None:
    found = failure(agent, code, b"", stderr)
    assert found.kind == "no-session"
    assert found.reason.endswith("start it without --resume")


@pytest.mark.parametrize(
    ("agent", "code", "stderr", "kind", "cure"),
    [
        ("claude", 1, "error: unknown option '--session-id'", "too-old", "update it: npm"),
        ("claude", 1, "error: option '--output-format <format>' argument 'stream-json' is invalid. Allowed choices are text, json.", "too-old", "update it: npm"),
        ("claude", 1, "error: option '--permission-mode <mode>' argument 'wrong' is invalid. Allowed choices are plan.", "too-old", "or correct args: and unattended: of the agent"),
        ("claude", 1, "error: unknown option '--max-turnz'", "bad-request", "args:"),
        ("codex", 2, "error: unexpected argument '--json' found\n\n  tip: to pass '--json' as a value, use '-- --json'\n\nUsage: codex exec [PROMPT]\n", "too-old", "update it: npm"),
        ("codex", 2, "error: unexpected argument '--jsonl' found\n\nUsage: codex", "bad-request", "args:"),
        ("gemini", 1, "Usage: gemini [options]\n\nOptions:\n  -m, --model  Model  [string]\n\nUnknown arguments: output-format, outputFormat", "too-old", "update it: npm"),
        ("command", 2, "tool: error: unrecognized arguments: --auto", "bad-request", "command:"),
    ],
)  # fmt: skip
def test_an_option_of_ours_is_too_new_and_one_of_the_user_is_wrong(
    agent: str, code: int, stderr: str, kind: str, cure: str
) -> None:
    found = failure(agent, code, b"", stderr, is_text=agent == "command")
    assert (found.kind, cure in found.reason) == (kind, True), found.reason


@pytest.mark.parametrize("agent", [*LOGINS, "command"])
def test_a_program_that_vanished_or_cannot_be_executed_is_not_installed(agent: str) -> None:
    is_text = agent == "command"
    for code, line in (
        (127, "sh: 1: exec: /opt/agent: not found"),
        (126, "sh: 1: exec: /opt/agent: Permission denied"),
        (127, "/usr/bin/env: 'node': No such file or directory"),
    ):
        found = failure(agent, code, b"", f"{line}\n", is_text=is_text)
        assert found.kind == "not-installed"
        assert line in found.reason
        assert agents.load(agent).INSTALL in found.reason
    found = failure(agent, 127, b"a long answer\n" * 9, "sh: x: not found", is_text=is_text)
    assert found.kind == "failed"


def test_a_working_folder_that_vanished_is_told_as_such() -> None:
    for agent in ("claude", "shell"):
        found = failure(agent, 126, b"", "sh: 1: cd: can't cd to /gone\n")
        assert found.kind == "bad-request"
        assert "its working folder cannot be entered" in found.reason


@pytest.mark.parametrize(
    ("agent", "code", "stderr", "words"),
    [
        ("claude", 137, "", "ended by SIGKILL (out of memory?): start fewer at once"),
        ("shell", 139, "", "ended by SIGSEGV"),
        ("gemini", 134, "FATAL ERROR: Reached heap limit\nJavaScript heap out of memory", "NODE_OPTIONS"),
        ("codex", 101, "thread 'main' panicked at src/main.rs:1:2:\nboom", "panicked at src/main.rs"),
        ("gemini", 1, "file:///x/a.js:1\nnode:internal/modules/run_main:1\n    at a (b:1:2)\n\nNode.js v18.1.0", "crashed"),
        ("claude", 1, "panic(main thread): Segmentation fault at address 0x0", "crashed"),
    ],
)  # fmt: skip
def test_a_crash_is_a_crash(agent: str, code: int, stderr: str, words: str) -> None:
    found = failure(agent, code, b"", stderr)
    assert found.kind == "crash"
    assert words in found.reason


def test_an_exit_code_of_gemini_that_is_a_status_is_no_signal() -> None:
    assert failure("gemini", 173).kind == "quota"
    assert failure("gemini", 145).kind == "login"
    assert failure("gemini", 247).kind == "overload"
    assert failure("gemini", 148).kind == "bad-request"
    assert failure("gemini", 41).kind == "login"


def test_a_stream_that_told_its_end_is_believed_whatever_is_on_stderr() -> None:
    noise = "HTTP 429: rate limit\nNot logged in\npanicked at x\n"
    result = {"type": "result", "subtype": "success", "is_error": True, "result": "it is broken"}
    found = failure("claude", 1, lines_of(result), noise)
    assert (found.kind, found.reason) == ("failed", "claude failed: it is broken")


def test_what_an_agent_said_in_a_text_answer_is_not_taken_for_its_own_failure() -> None:
    answer = "The server answers with 429: rate limit.\nPlease run /login\n" * 5
    assert failure("claude", 3, answer, is_text=True).reason == "agent exited with code 3"
    transcript = f"OpenAI Codex v0.169.0\nuser\n{answer}codex\n{answer}"
    assert failure("codex", 1, "", transcript, is_text=True).kind == "failed"


def test_a_script_may_say_what_it_likes() -> None:
    found = failure("shell", 3, b"", "HTTP 401: api key not valid\nrate limit\n")
    assert (found.kind, found.reason) == ("failed", "agent exited with code 3: rate limit")
    assert failure("shell", 127, b"", "foo: not found").kind == "failed"
    assert failure("shell", 7).reason == "agent exited with code 7"


def test_success_without_an_answer_is_told() -> None:
    empty = {"type": "result", "subtype": "success", "is_error": False, "result": " "}
    assert "empty answer" in failure("claude", 0, lines_of(empty)).reason
    assert "ended without a result" in failure("claude", 0).reason


def test_the_last_line_of_stderr_tells_of_an_unknown_failure() -> None:
    found = failure(
        "claude", 9, b"", "one\n2026-11-22T19:58:22.7Z ERROR: two\n\n    at x (y:1:2)\n"
    )
    assert (found.kind, found.reason) == ("failed", "agent exited with code 9: two")


@pytest.mark.parametrize("agent", sorted(agents.types()))
def test_hostile_words_stay_one_harmless_line(agent: str) -> None:
    nasty = "not logged in \x1b]0;x\x07\x1b[2J\u202e\x00\r 401 \ud800" + "x" * 70_000
    for text in (nasty, nasty[::-1], "[" * 70_000, '"message":"' * 7000, "429 " * 20_000):
        found = failure(agent, 1, b"", text)
        assert "\n" not in found.reason
        assert found.reason.isprintable()
        assert len(found.reason) < 500


def test_a_key_in_what_is_said_is_redacted() -> None:
    key = "sk-ant-" + "A1b2C3d4" * 6
    assert key not in told_by("claude", f"Invalid API key {key}").reason


def test_a_key_at_the_border_of_what_is_looked_at_is_redacted_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = "none of the usual kinds 0123456789"
    monkeypatch.setenv("XAI_API_KEY", key)
    monkeypatch.setattr(redact, "_own", None)
    line = 'x" ' * 1320 + f'"message": "{key} is refused"'
    assert line.index(key) < _failure.MAX_LINE < line.index(key) + len(key)
    assert "usual" not in failure("claude", 1, b"", line).reason


def test_notices_that_gemini_prints_in_every_run_are_not_its_reason() -> None:
    stderr = "the disk is gone\nYOLO mode is enabled.\nRipgrep is not available.\n"
    assert failure("gemini", 9, b"", stderr).reason.endswith(": the disk is gone")


# -- web services


def rest(**event: object) -> base.Outcome:
    return read_all(_rest.StreamReader(), lines_of({"type": "result", "status": "error", **event}))[
        0
    ]


@pytest.mark.parametrize("agent", ["xai", "perplexity"])
def test_a_web_service_is_not_guessed_at(agent: str) -> None:
    reset = time.time() + 60
    outcome = rest(
        error="xai: HTTP 429: x; wait", error_class="quota", http_status=429, reset=reset
    )
    found: base.Failure = agents.load(agent).failure(
        base.Ended(code=1, outcome=outcome, agent=agent)
    )
    assert (found.kind, found.reason, found.reset) == ("quota", "xai: HTTP 429: x; wait", reset)
    assert facts(outcome)["fault_status"] == 429


def test_a_web_service_whose_process_died_is_read_as_any_program() -> None:
    assert failure("xai", 137).kind == "crash"
    odd = rest(error="HTTP 401: no", error_class=["x"], http_status="401", reset=-1)
    found: base.Failure = agents.load("xai").failure(base.Ended(code=1, outcome=odd, agent="xai"))
    assert found.kind == "login"
    assert "XAI_API_KEY" in found.reason


# -- what the supervisor makes of it


def failed(folder: Path, stdout: bytes, stderr: bytes, **record: object) -> runs.Run:
    (folder / runs.STDOUT).write_bytes(stdout)
    (folder / runs.STDERR).write_bytes(stderr)
    return runs.Run(str(folder), record)


def test_the_supervisor_asks_the_backend_with_the_end_of_both_files(tmp_path: Path) -> None:
    filler = b"x" * 70_000 + b"\n"
    run = failed(tmp_path, filler, filler + b"Not logged in\n", agent="command", agent_name="mine")
    found = judgement.failure_of(run, 1, base.Outcome())
    assert found.kind == "login"
    assert found.reason.startswith("mine is not logged in: ")


@pytest.mark.parametrize("agent", ["claude", "codex", "gemini", "command"])
@pytest.mark.parametrize("word", ["", "x" * 70_000])
@pytest.mark.parametrize("end", ['"}]}}\n', ""])
def test_an_event_that_is_too_long_to_be_seen_whole_is_not_taken_for_words_of_the_program(
    tmp_path: Path, agent: str, word: str, end: str
) -> None:
    said = b"API Error: 429 You've hit your usage limit. Try again in 2 hours. " * 1500
    event = b'{"type":"user","message":{"content":[{"content":"' + said + word.encode()
    run = failed(tmp_path, event + b" usage limit" + end.encode(), b"", agent=agent)
    assert judgement.failure_of(run, 1, base.Outcome()).kind == "failed"


def test_a_failed_tool_call_is_no_end_of_the_stream(tmp_path: Path) -> None:
    event = b'{"type":"user","content":[{"content":"usage limit reached","is_error":true}]}\n'
    run = failed(tmp_path, b"x" * 70_000 + b"\n" + event, b"", agent="claude")
    assert judgement.failure_of(run, 1, base.Outcome()).kind == "failed"


def test_a_duration_counts_from_when_the_agent_wrote_last(tmp_path: Path) -> None:
    run = failed(tmp_path, b"", b"ERROR: usage limit. Try again in 2 hours.\n", agent="codex")
    hour_ago = time.time() - HOUR
    for name in (runs.STDOUT, runs.STDERR):
        os.utime(run.file(name), (hour_ago, hour_ago))
    found = judgement.failure_of(run, 1, base.Outcome())
    assert found.reset == pytest.approx(hour_ago + 2 * HOUR, abs=1)


def test_the_supervisor_needs_neither_files_nor_a_known_backend(tmp_path: Path) -> None:
    run = runs.Run(str(tmp_path / "gone"), {"agent": "retired"})
    found = judgement.failure_of(run, 5, base.Outcome())
    assert (found.kind, found.reason) == ("failed", "agent exited with code 5")


def test_every_backend_reads_its_failures_in_one_place() -> None:
    missing = [name for name in agents.types() if not hasattr(agents.load(name), "failure")]
    assert missing == []


def test_no_class_is_without_words() -> None:
    assert set(_failure._HEADS) | {"timeout", "silence", "lost"} == set(base.ERROR_CLASSES)
