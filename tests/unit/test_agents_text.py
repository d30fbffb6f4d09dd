"""Text agents: the transcript is harmless, the answer is what came, and neither grows for ever."""

from __future__ import annotations

import random

import pytest

from lib.agents import _render, base


def read(*pieces: bytes) -> tuple[str, base.Outcome]:
    reader = base.TextReader()
    shown = "".join([reader.feed(piece) for piece in pieces])
    return shown + reader.finish(), reader.outcome


def test_plain_text_is_shown_and_is_the_answer() -> None:
    shown, outcome = read("Grüße\n\tzwei Zeilen\n".encode())
    assert shown == outcome.final_text == "Grüße\n\tzwei Zeilen\n"
    assert outcome.success is None
    assert base.TextReader.understood is False


def test_no_output_is_no_answer() -> None:
    assert read()[1].final_text is None
    assert read(b"", b"")[1].final_text is None


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "␛red␛"),
        ("\x1b]0;a title\x07text", "␛text"),
        ("a\x1b", "a␛"),
        ("\x1b[31", "␛"),
        ("\x1b]no end\nnext", "␛\nnext"),
        ("bell\x07 back\x08 nul\x00 del\x7f", "bell␇ back␈ nul␀ del␡"),
        ("10%\r20%\r\nend\r", "10%␍20%\nend␍"),
        ("c1 \x9b31m \x85 \x90", "c1 ␛ \ufffd \ufffd"),
        ("\u202egnp.exe \u2066x\u2069 \u200f", "\ufffdgnp.exe \ufffdx\ufffd \ufffd"),
        ("tab\tand\nline", "tab\tand\nline"),
    ],
)
def test_control_characters_are_made_harmless(raw: str, shown: str) -> None:
    whole, outcome = read(raw.encode())
    assert whole == shown
    assert outcome.final_text == raw
    assert read(*(bytes([byte]) for byte in raw.encode()))[0] == shown


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    assert read(b"a\xffb\xc3")[0] == "a�b�"
    assert read(b"\xc3", b"\xa9")[0] == "é"
    assert read(b"\xed\xa0\x80")[1].final_text == "���"


def test_the_transcript_does_not_depend_on_how_the_bytes_are_cut() -> None:
    chance = random.Random(7)  # noqa: S311 - repeatable damage, no secret
    alphabet = [b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b\\", b"\x07", b"\r", b"\n", b"m", b"3"]
    alphabet += [b";", b"(", b"\\", "é".encode(), b"\xff", b"\xe2\x80", b"\xae", b"x" * 300]
    for _ in range(3000):
        data = b"".join(chance.choices(alphabet, k=chance.randrange(1, 14)))
        whole, outcome = read(data)
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(5)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        shown, again = read(*pieces)
        assert shown == whole, (data, cuts)
        assert again.final_text == outcome.final_text
        assert not [c for c in shown if ord(c) < 32 and c not in "\n\t"]


def test_text_is_shown_as_it_comes_and_only_an_open_sequence_is_held_back() -> None:
    reader = base.TextReader()
    assert reader.feed(b"half a line") == "half a line"
    assert reader.feed(b"\x1b[3") == ""
    assert reader.feed(b"1mred") == ""
    assert reader.feed(b"\nnext") == "␛red\nnext"


@pytest.mark.parametrize("piece", [1 << 20, 1000, 12345])
def test_a_giant_answer_keeps_head_and_tail(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_TEXT_BYTES", 20_000)
    data = b"".join(b"%010d\n" % number for number in range(10_000))
    _, outcome = read(*(data[at : at + piece] for at in range(0, len(data), piece)))
    note = "\n[… 90002 bytes left out …]\n\n"
    assert outcome.final_text == data[:9_999].decode() + note + data[-9_999:].decode()


@pytest.mark.parametrize("size", [9_999, 10_000, 10_001, 15_000, 20_000])
def test_an_answer_within_the_limit_is_whole(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_TEXT_BYTES", 20_000)
    data = ("é" * size).encode()[:size]
    assert read(data[:7], data[7:])[1].final_text == data.decode("utf-8", "replace")


def test_an_answer_without_end_does_not_fill_the_memory() -> None:
    reader = base.TextReader()
    for _ in range(40):
        reader.feed(b"x" * (1 << 20))
    assert len(reader._head) + len(reader._tail) < 10 << 20
    reader.finish()
    assert len(reader.outcome.final_text or "") < base.MAX_TEXT_BYTES + 100


def test_a_line_without_end_is_not_held_back_for_ever() -> None:
    reader = base.TextReader()
    shown = "".join([reader.feed(b"\x1b]" + b"x" * 1000) for _ in range(100)])
    assert "x" * 1000 in shown or "␛" in shown


def test_one_line_is_one_line_of_bounded_length() -> None:
    assert _render.one_line(" a\n\tb c\x07 ") == "a b c␇"
    assert _render.one_line("x" * 1000, 10) == "xxxxxxxxx…"


def test_no_half_of_a_token_survives_a_cut() -> None:
    token = "sk-ant-api03-" + "Ab1" * 20
    for shown in (_render.one_line("x" * 180 + " " + token), _render.shorten(token * 60)):
        assert "Ab1" not in shown


def test_shortening_keeps_what_is_short() -> None:
    text = "\n".join(map(str, range(20)))
    assert _render.shorten(text + "\n") == text
    assert len(_render.shorten("ab\n" * 100_000)) <= 2000
    assert len(_render.shorten(("x" * 999 + "\n") * 20)) <= 2000
    assert len(_render.shorten("\x1b" * 5000)) <= 2000
