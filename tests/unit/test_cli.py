"""Options, help, errors and exit codes of every script."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lib import VERSION, redact
from lib.cli import Command, Option, Values, help_text, parse, parse_seconds, run, usage
from lib.errors import EXIT_BUG, UsageError, UserError

COMMAND = Command(
    "do-it",
    "does it",
    about="All about it.",
    options=(
        Option("-n", "--lines", metavar="N", kind="int", default=10, help="how many"),
        Option("--wait", metavar="TIME", kind="seconds", help="how long"),
        Option("--tag", metavar="T", many=True, help="a tag; may be repeated"),
        Option("--keep-all", help="keep all"),
        Option("--from", metavar="FILE", is_optional=True, help="from FILE"),
    ),
    positionals=(("FILE", "1", "the file"), ("MORE", "?", "more")),
    examples=("do-it x",),
)


def parsed(*arguments: str) -> Values:
    return parse(COMMAND, arguments)


def test_defaults_are_fresh_each_time() -> None:
    values = parsed("f")
    assert (values.text("file"), values.text("more"), values.number("lines")) == ("f", None, 10)
    assert (values.seconds("wait"), values.items("tag"), values.flag("keep_all")) == (
        None,
        [],
        False,
    )
    parsed("f", "--tag", "a")
    assert parsed("f").items("tag") == []


def test_an_optional_value_may_be_left_out_before_another_option_and_at_the_end() -> None:
    for arguments in (("f", "--from"), ("--from", "--keep-all", "f"), ("f", "--from", "-n3")):
        assert parsed(*arguments).text("from") == ""
    assert parsed("f", "--from", "x").text("from") == parsed("f", "--from=x").text("from") == "x"
    assert parsed("f").text("from") is None
    assert "--from [FILE] " in help_text(COMMAND)
    with pytest.raises(UsageError):
        parsed("f", "--tag")


@pytest.mark.parametrize(
    "arguments",
    [("-n", "3", "f"), ("-n3", "f"), ("--lines=3", "f"), ("f", "--lines", "3"),
     ("--lines", "9", "f", "-n3")],
)  # fmt: skip
def test_a_value_may_be_joined_or_not_and_the_last_one_counts(arguments: Sequence[str]) -> None:
    values = parsed(*arguments)
    assert (values.number("lines"), values.text("file")) == (3, "f")


def test_repeated_values_are_collected_and_a_double_dash_ends_the_options() -> None:
    values = parsed("--tag", "a", "--tag=b=c", "--", "-n", "--keep-all")
    assert values.items("tag") == ["a", "b=c"]
    assert (values.text("file"), values.text("more")) == ("-n", "--keep-all")
    assert parsed("-").text("file") == "-"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["f", "--lnies", "3"], "unknown option --lnies (did you mean --lines?); see --help"),
        (["f", "-x"], "unknown option -x"),
        (["f", "--lines", "x"], "--lines: 'x' is not a whole number"),
        (["f", "--wait", "soon"], "--wait: 'soon' is not a time such as 90s, 15m or 2h"),
        (["f", "--wait", "nan"], "--wait: 'nan' is not a time"),
        (["f", "--lines"], "--lines needs a value (N); see --help"),
        (["f", "--keep-all=1"], "--keep-all takes no value"),
        ([], "FILE is missing; see --help"),
        (["f", "g", "h"], "unexpected argument 'h'; see --help"),
    ],
)
def test_a_wrong_command_line_is_told(arguments: list[str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(COMMAND, arguments)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("0", 0)],
)
def test_a_time_has_a_unit(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1w", "inf", "1e99", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - what it says is made by the caller
        parse_seconds(text)


def ended(error: BaseException | None = None, arguments: Sequence[str] = ("f",)) -> int:
    def action(_values: Values) -> int:
        if error is not None:
            raise error
        return 4

    return run(COMMAND, action, arguments)


def test_help_and_version_need_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(arguments=["--help"]) == ended(arguments=["--version"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("do-it - does it\n\nusage: do-it [options] FILE [MORE]\n")
    assert "  -n, --lines N" in out
    assert "examples:\n  do-it x\n" in out
    assert out.endswith(f"do-it {VERSION}\n")
    assert usage(COMMAND) == "usage: do-it [options] FILE [MORE]"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (None, 4, ""),
        (UserError("no file x; make it"), 1, "do-it: no file x; make it\n"),
        (UserError("not there", 127), 127, "do-it: not there\n"),
        (UsageError("wrong"), 2, "do-it: wrong\n"),
        (UserError("one\ntwo"), 1, "do-it: one\ndo-it: two\n"),
        (UserError("odd \x1b[31mname"), 1, "do-it: odd ␛name\n"),
        (FileNotFoundError(2, "No such file", "x"), 1, "do-it: No such file: x\n"),
        (KeyError("x\ny"), EXIT_BUG,
         "do-it: bug: KeyError: 'x\\ny'; run it again with --debug to see where\n"),
    ],
)  # fmt: skip
def test_every_error_is_told_in_lines_that_begin_with_the_name(
    error: BaseException | None, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(error) == code
    assert capsys.readouterr() == ("", told)


def test_an_error_does_not_tell_a_token(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redact, "_own", ["secret-token-1"])
    assert ended(UserError("refused: secret-token-1")) == 1
    assert capsys.readouterr().err == "do-it: refused: [REDACTED]\n"


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(KeyError("x"), ["f", "--debug"]) == EXIT_BUG
    assert "Traceback" in capsys.readouterr().err
