"""How the growth of a run's output is noted, thinned out, written and read again."""

from __future__ import annotations

import itertools

import pytest

from lib import timing


def test_a_short_run_leaves_nothing() -> None:
    notes = timing.Notes(100.0)
    notes.note(100.2, 10, 0)
    assert notes.text(100.9, 20, 0) == ""


def test_a_longer_run_tells_when_there_was_how_much_and_when_it_ended() -> None:
    notes = timing.Notes(100.0)
    notes.note(100.25, 10, 0)
    notes.note(101.5, 10, 7)
    text = notes.text(103.0, 20, 7)
    assert text == "0.250 10 0\n1.500 10 7\n3.000 20 7\n"
    assert timing.parse(text) == [(0.25, 10, 0), (1.5, 10, 7), (3.0, 20, 7)]


def test_what_comes_at_once_is_one_point_and_no_growth_is_none() -> None:
    notes = timing.Notes(0.0)
    for number in range(100):
        notes.note(5 + number / 10_000, number, 0)
    notes.note(6.0, 99, 0)
    assert notes.points == [(5.0, 99, 0)]


def test_output_that_is_begun_anew_is_told_from_there() -> None:
    notes = timing.Notes(0.0)
    notes.note(1.0, 0, 50)
    notes.note(2.0, 0, 0)
    notes.note(3.0, 10, 0)
    assert notes.points == [(2.0, 0, 0), (3.0, 10, 0)]


@pytest.mark.parametrize("pause", [0.01, 0.3, 20.0])
def test_the_points_of_a_long_run_are_few_and_spread_over_all_of_it(pause: float) -> None:
    notes = timing.Notes(0.0, most=50)
    for number in range(1, 10_001):
        notes.note(number * pause, number * 10, number)
        assert len(notes.points) <= 50
    whole = 10_000 * pause
    assert len(notes.points) > 15
    assert notes.points[-1][1:] == (100_000, 10_000)
    for (at, out, err), (later, more, also) in itertools.pairwise(notes.points):
        assert at < later < at + whole / 10
        assert (out, err) < (more, also)
    for at, out, _ in notes.points:  # told a little too early, never far off
        assert out / 10 * pause == pytest.approx(at, abs=whole / 10)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x 1 2",
        "1 2",
        "1 2 3 4",
        "nan 5 5",
        "inf 5 5",
        "-1 5 5",
        "1 -5 5",
        "1e300 5 5",
        f"1 {'9' * 5000} 5",
        "1 5.5 5",
        "\x00\x1b[31m 5 5",
    ],
)
def test_a_line_that_makes_no_sense_is_passed_over(line: str) -> None:
    assert timing.parse(f"0.5 1 1\n{line}\n2 3 3\n") == [(0.5, 1, 1), (2.0, 3, 3)]


def test_neither_time_nor_sizes_go_back() -> None:
    assert timing.parse("2 5 5\n1 6 6\n3 4 6\n3 6 4\n3 6 6\n") == [(2.0, 5, 5), (3.0, 6, 6)]


def test_of_a_file_without_end_only_some_lines_are_looked_at() -> None:
    text = "".join(f"{number} {number} 0\n" for number in range(100_000))
    assert len(timing.parse(text)) <= 2 * timing.MOST_POINTS
