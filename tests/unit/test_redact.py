"""What redaction takes out, what it leaves, and what it costs."""

from __future__ import annotations

import json

import pytest

from lib import redact

PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nq83vEjRWeJA=\n-----END RSA PRIVATE KEY-----"
)

SECRETS = [
    "sk-ant-api03-AbCdEf12-34_xyz",
    "sk-proj-abcdefgh12345678",
    "sk-0123456789abcdefghijklmn",
    "ghp_0123456789abcdefghijABCDEFGHIJ",
    "gho_0123456789abcdefghijABCDEFGHIJ",
    "github_pat_11ABCDEFG0123456789_abcdefghijkl",
    "xoxb-123456789012-abcdefghijkl",
    "AIzaSyA0123456789abcdefghijklmnopqrstuv",
    "xai-0123456789abcdefghijklmnop",
    "pplx-0123456789abcdefghijklmnop",
    "AKIAIOSFODNN7EXAMPLE",
    "glpat-0123456789abcdefghij",
    "hf_0123456789abcdefghijABCD",
    "npm_0123456789abcdefghijABCD",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF-_123",
    PEM,
]

HARMLESS = [
    "9fceb02d0ae598e95dc970b74767f19372d61af8",
    "550e8400-e29b-41d4-a716-446655440000",
    "run_20260223-191710-4711-infra-storage",
    "20260223-2048590000-66788-1",
    "MSG-20260223-191710-184887000-PID67946-0001",
    "task-20260101-000001-smoke disk-usage-of-the-runs-folder",
    "sk-learn and sk-learn-based-pipelines-v2",
    "tokens: 1234, max_tokens=4096, total tokens 123456789",
    "key decisions: use flock; the secret: there is none",
    "token = secrets.token_hex(16)",
    "password = os.environ[name]",
    "TOKEN=$GITHUB_TOKEN_2024 api_key=${OPENAI_API_KEY1}",
    "token_file: /home/me/.token2024",
    "the bearer of bad news",
    "half_done npm_config_registry AIza xai- eyJ",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_well_known_token_is_taken_out_and_its_surroundings_stay(secret: str) -> None:
    assert redact.text(f"before {secret} after", []) == "before [REDACTED] after"
    assert redact.text(f'{{"a": "{secret}"}}', []) == '{"a": "[REDACTED]"}'


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_text_stays(text: str) -> None:
    assert redact.text(text, []) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OPENAI_API_KEY=abcd1234efgh5678", "OPENAI_API_KEY=[REDACTED]"),
        ('{"api_key": "Zx9Zx9Zx9Zx9"}', '{"api_key": "[REDACTED]"}'),
        ('{\\"token\\": \\"Zx9Zx9Zx9Zx9\\"}', '{\\"token\\": \\"[REDACTED]\\"}'),
        ("client_secret: 'a1b2c3d4e5f6'\n", "client_secret: '[REDACTED]'\n"),
        ("db_password = hunter2!x", "db_password = [REDACTED]"),
        ("curl --api-key abcd1234EFGH url", "curl --api-key [REDACTED] url"),
        ("Authorization: Bearer abc.def-ghi123", "Authorization: Bearer [REDACTED]"),
        ("token=sk-ant-0123456789&x=1", "token=[REDACTED]&x=1"),
    ],
)
def test_the_value_of_a_secret_name_is_taken_out(text: str, expected: str) -> None:
    assert redact.text(text, []) == expected


def test_a_token_right_behind_a_colour_is_redacted() -> None:
    token = "ghp_" + "0123456789abcdef" * 2
    for head in ("\x1b[31m", "\x1b[1;38;5;196m", "\x1b[K"):
        assert redact.text(f"x {head}{token}\x1b[0m y") == f"x {head}{redact.MARK}\x1b[0m y"
        stream = redact.Stream()
        assert stream.feed(f"{head}{token}\n") == f"{head}{redact.MARK}\n"


def test_known_values_come_from_the_environment_the_longest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redact, "_extra", [])  # what another test has made known
    environ = {
        "MY_TOKEN": "plainwords",
        "LONG_API_KEY": "plainwords-and-more",
        "SHORT_TOKEN": "abc",
        "DEPLOY_KEY": "/home/me/.ssh/id_1",
        "STAGE_KEY": "production",
        "SIGNING_KEY": "k3y-material-x",
        "APP_SECRET": "first line secret\nsecond line secret",
        "HOME": "/home/somebody1",
    }
    tokens = redact.known_tokens(environ)
    assert set(tokens) == {
        "plainwords", "plainwords-and-more", "k3y-material-x", "first line secret",
        "second line secret",
    }  # fmt: skip
    assert tokens == sorted(tokens, key=len, reverse=True)
    assert redact.text("x plainwords-and-more y", tokens) == "x [REDACTED] y"


def test_a_token_of_the_configuration_is_known_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redact, "_extra", [])
    monkeypatch.setattr(redact, "_own", None)
    assert redact.text("a words-only-token b") == "a words-only-token b"
    redact.add_tokens(["words-only-token"])
    assert redact.text("a words-only-token b") == "a [REDACTED] b"


def test_passing_tokens_are_known_until_others_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_extra", [])
    monkeypatch.setattr(redact, "_passing", ())
    monkeypatch.setattr(redact, "_own", None)
    redact.add_tokens(["known-for-good"])
    redact.set_passing_tokens(["first-for-now"])
    moment = redact.added()
    assert redact.text("known-for-good first-for-now") == "[REDACTED] [REDACTED]"
    redact.set_passing_tokens(["first-for-now"])
    assert redact.added() == moment
    redact.set_passing_tokens(["other-for-now"])
    assert redact.added() != moment, "what was redacted before is out of date"
    assert redact.text("known-for-good first-for-now other-for-now") == (
        "[REDACTED] first-for-now [REDACTED]"
    )


def test_a_token_that_another_thread_makes_known_meanwhile_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redact, "_extra", [])
    monkeypatch.setattr(redact, "_own", None)
    escaped = redact._with_escaped

    def slow(tokens: list[str]) -> list[str]:
        redact.add_tokens(["words-only-token"])
        return escaped(tokens)

    monkeypatch.setattr(redact, "_with_escaped", slow)
    redact.text("the tokens are collected")
    monkeypatch.setattr(redact, "_with_escaped", escaped)
    assert redact.text("a words-only-token b") == "a [REDACTED] b"


@pytest.mark.parametrize(
    "token",
    ["pa/th/like+it==", 'qu"ote\\back/s', "t\u00f6ken-\u00fc-word", "smile\U0001f600here", "a\ttab-word", "<a>&-word"],
)  # fmt: skip
def test_a_token_is_known_as_it_stands_in_json_and_in_json_within_that(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redact, "_extra", [])
    monkeypatch.setattr(redact, "_own", None)
    redact.add_tokens([token])
    redact.add_tokens(redact.known_tokens({}))  # what is known does not grow by being passed on
    assert redact.known_tokens({}) == [token]
    plain, escaped = json.dumps({"k": token}, ensure_ascii=False), json.dumps({"k": token})
    slashed = escaped.replace("/", "\\/")
    html = escaped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    for text in (plain, escaped, slashed, html):
        assert redact.text(text) == '{"k": "[REDACTED]"}'
    within = json.dumps({"x": escaped})
    assert redact.text(within) == json.dumps({"x": '{"k": "[REDACTED]"}'})
    stream = redact.Stream()
    assert stream.feed(f"{escaped}\n") + stream.finish() == '{"k": "[REDACTED]"}\n'


def test_a_common_message_needs_no_regular_expressions(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("re would have been imported")

    monkeypatch.setattr(redact, "_token_pattern", refuse)
    monkeypatch.setattr(redact, "_assignment_pattern", refuse)
    for text in (*HARMLESS[:6], "sk-learn", *HARMLESS[7:9]):
        assert redact.text(text, []) == text


@pytest.mark.parametrize(
    "piece",
    ["sk-", "-eyJ", "token=", "-----BEGIN X PRIVATE KEY-----", "bearer ", "authorization: ", "-a",
     "eyJ", "--a-a-token ", "token= sk-ant-1234567 ", "\x1b]", "\x1b[", "ghp_", "a"],
)  # fmt: skip
def test_five_megabytes_of_hostile_text_end(piece: str) -> None:
    # A quadratic pattern would take hours here.
    hostile = piece * (5_000_000 // len(piece))
    redact.text(hostile, [])
    redact.for_terminal(hostile)
    stream = redact.Stream([])
    for start in range(0, 1_000_000, 50_000):
        stream.feed(hostile[start : start + 50_000])
    stream.finish()


@pytest.mark.parametrize("secret", [*SECRETS, "known value"])
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_a_stream_redacts_across_every_border(secret: str, step: int) -> None:
    text = f"one\ntwo {secret} three\n{secret}\nfour"
    stream = redact.Stream(["known value"])
    pieces = [stream.feed(text[start : start + step]) for start in range(0, len(text), step)]
    result = "".join(pieces) + stream.finish()
    for line in secret.split("\n"):
        assert line not in result
    for word in ("one\n", "two ", "three\n", "four"):
        assert word in result


def test_a_stream_passes_other_text_on_unchanged() -> None:
    text = "\n".join(HARMLESS) + "\r\n\nend"
    stream = redact.Stream([])
    assert "".join([stream.feed(c) for c in text]) + stream.finish() == text


def test_a_stream_emits_lines_at_once_and_holds_a_long_line_only_up_to_its_bound() -> None:
    stream = redact.Stream(["x" * 20])
    assert stream.feed("whole line\nhalf") == "whole line\n"
    out = "".join([stream.feed("ab " * 1000) for _ in range(100)])
    assert len(out) > 300_000 - redact.HOLD_LIMIT - 10_000


def test_a_token_at_the_cut_of_a_long_line_does_not_get_out() -> None:
    secret = "ghp_" + "0123456789" * 3
    for shift in range(0, 60, 7):
        stream = redact.Stream(["known-value-of-mine"])
        filler = "w " * ((redact.HOLD_LIMIT - redact.MAX_TOKEN) // 2) + "w" * shift
        text = filler + f" {secret} known-value-of-mine " + "w " * 20_000
        out = "".join([stream.feed(text[i : i + 100]) for i in range(0, len(text), 100)])
        out += stream.finish()
        assert secret[4:] not in out
        assert "known-value" not in out
        assert out.count("[REDACTED]") == 2


def test_a_private_key_without_its_end_hides_only_what_looks_like_key() -> None:
    text = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\nabcd1234=\nplain words follow.\n"
    stream = redact.Stream([])
    assert stream.feed(text) + stream.finish() == "[REDACTED]plain words follow.\n"
    assert "MIIE" not in redact.text(text, [])
    assert redact.text(text, []).endswith("plain words follow.\n")


def test_the_terminal_gets_nothing_to_obey() -> None:
    text = (
        "a\x1b[31mred\x1b]0;title\x07b\x1bc\x9b1mC\x00\r\x08\x7f\u202eabc\u2066\ud800\u0085\tz\r\n"
    )
    shown = redact.for_terminal(text)
    assert shown == "a␛red␛b␛␛C␀␍␈␡\ufffdabc\ufffd\ufffd\ufffd\tz\n"
    assert redact.for_terminal("ünï — 日本 👩‍💻\n\tx") == "ünï — 日本 👩‍💻\n\tx"


def test_an_unfinished_escape_sequence_hides_at_most_its_line() -> None:
    assert redact.for_terminal("\x1b]0;no end\nnext line") == "␛\nnext line"
