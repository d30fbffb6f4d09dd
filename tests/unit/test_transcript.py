"""Transcripts are for people: no giant line, no giant file, however the text was cut."""

from __future__ import annotations

import random

import pytest

from lib import redact, transcript
from lib.agents import base, claude, xai


def shorten(*pieces: str) -> str:
    shortener = transcript.Shortener()
    return "".join([shortener.feed(piece) for piece in pieces]) + shortener.finish()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "MAX_LINE", 10)
    monkeypatch.setattr(transcript, "MAX_TEXT", 50)
    monkeypatch.setattr(transcript, "MAX_END", 30)


@pytest.mark.parametrize(
    "text", ["", "\n", "a", "a\n", "a\n\nb", "x" * 2000, "x" * 2000 + "\n", "é\n" * 1000]
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert shorten(text) == shorten(*text) == text


def test_a_long_line_is_cut_and_says_by_how_much() -> None:
    assert shorten("x" * 2001 + "\nnext\n") == "x" * 2000 + "… 1 more characters\nnext\n"
    assert shorten("x" * 5000) == "x" * 2000 + "… 3000 more characters"


@pytest.mark.usefixtures("small")
def test_beyond_its_limit_only_a_note_and_at_last_the_end_is_shown() -> None:
    lines = [f"line {n:03}\n" for n in range(100)]
    shortener = transcript.Shortener()
    live = "".join(shortener.feed(line) for line in lines)
    assert live == "".join(lines[:6]) + transcript.NOTE  # the sixth reaches the 50
    end = shortener.finish()
    assert end == "… 819 characters left out …\n" + "".join(lines[-3:])
    assert 9 * 100 == 9 * 6 + 819 + 9 * 3


@pytest.mark.usefixtures("small")
def test_what_ends_at_the_limit_is_whole_and_of_a_short_rest_nothing_is_left_out() -> None:
    assert shorten("x" * 9 + "\n", "y" * 9 + "\n", ("z" * 9 + "\n") * 3) == (
        "x" * 9 + "\n" + "y" * 9 + "\n" + ("z" * 9 + "\n") * 3
    )
    assert (
        shorten(("z" * 9 + "\n") * 5 + "tail\n")
        == ("z" * 9 + "\n") * 5 + transcript.NOTE + "tail\n"
    )


@pytest.mark.usefixtures("small")
def test_the_result_does_not_depend_on_how_the_text_was_cut() -> None:
    chance = random.Random(11)  # noqa: S311 - repeatable, no secret
    for _ in range(3000):
        words = chance.choices(["a", "bc\n", "\n", "x" * 9, "y" * 11, "é"], k=chance.randrange(60))
        text = "".join(words)
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(6)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        assert shorten(*pieces) == shorten(text), (text, cuts)


def test_the_last_word_of_a_flood_is_still_told() -> None:
    reader, stream, shortener = claude.reader(), redact.Stream([]), transcript.Shortener()
    flood = b'{"type":"assistant","message":{"content":[{"type":"text","text":"%s"}]}}\n'
    shown = 0
    for _ in range(20):
        data = flood % (b"many words " * 100_000)
        shown += len(shortener.feed(stream.feed(reader.feed(data))))
    for _ in range(6000):
        data = flood % (b"many words " * 180)
        shown += len(shortener.feed(stream.feed(reader.feed(data))))
    end = b'{"type":"result","subtype":"success","is_error":false,"result":"done"}\n'
    last = shortener.feed(stream.feed(reader.feed(end) + reader.finish()))
    last += shortener.feed(stream.finish()) + shortener.finish()
    assert shown < transcript.MAX_TEXT + 3000
    assert last.startswith("… ")
    assert last.endswith("\ndone\n\n■ done\n")


@pytest.mark.parametrize("over", [-1, 0, 1, 2])
def test_a_line_of_events_is_read_up_to_16_mib_and_not_beyond(over: int) -> None:
    frame = b'{"type":"result","subtype":"success","is_error":false,"result":"%s"}'
    line = frame % (b"x" * (base.MAX_LINE_BYTES + over - len(frame) + 2))
    assert len(line) == base.MAX_LINE_BYTES + over
    reader = claude.reader()
    shown = "".join(
        [reader.feed(line[at : at + 1_000_000]) for at in range(0, len(line), 1_000_000)]
    )
    shown += reader.feed(b"\n") + reader.finish()
    assert reader.outcome.success is (over <= 0)
    assert (f"a line of {len(line)} bytes was skipped" in shown) is (over > 0)
    assert len(shorten(shown)) < 3000


def test_pieces_of_an_answer_that_break_in_a_token_are_joined_before_its_redaction() -> None:
    reader, stream = xai.reader(), redact.Stream(["first-half-second-half"])
    shown = ""
    for piece in ("it is first-", "half-sec", "ond-half indeed\n"):
        event = b'{"type":"text","text":"%s"}\n' % piece.encode().replace(b"\n", b"\\n")
        shown += stream.feed(reader.feed(event))
    shown += stream.feed(reader.finish()) + stream.finish()
    assert "it is [REDACTED] indeed" in shown
    assert "half" not in shown


def test_no_half_of_a_token_survives_where_a_giant_answer_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "MAX_TEXT_BYTES", 20_000)
    token = b"half-a-secret-and-its-other-half"
    for blank in (b" ", b"-"):
        for shift in (0, 10, 20):
            reader = base.TextReader()
            # Twice: across the border of the first half, and of the last.
            fill = (b"w" + blank) * 4992 + b"w" * shift
            reader.feed(fill + token + b"-" * 30_000 + token + fill)
            reader.finish()
            answer = redact.text(reader.outcome.final_text or "", [token.decode()])
            assert "half-a" not in answer
            assert "other-half" not in answer
            assert "bytes left out" in answer
