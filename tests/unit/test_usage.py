"""Sums of tokens and cost: what is not known is counted, and never taken for nothing."""

from __future__ import annotations

import pytest

from lib.usage import Usage

KNOWN = {"input_tokens": 100, "cached_tokens": 40, "output_tokens": 7, "cost_usd": 0.25}
GUESSED = {"input_tokens": 10, "output_tokens": 1, "cost_usd": 1, "cost_estimated": True}
FREE = {"input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}
UNKNOWN: dict[str, object] = {"model": "m"}


@pytest.mark.parametrize(
    ("records", "tokens", "cost"),
    [
        ([], "-", "-"),
        ([UNKNOWN], "-", "-"),
        ([UNKNOWN, UNKNOWN], "-", "-"),
        ([KNOWN], "100/7", "$0.2500"),
        ([GUESSED], "10/1", "~$1.0000"),
        ([FREE], "0/0", "$0.0000"),
        ([KNOWN, GUESSED], "110/8", "~$1.2500"),
        ([KNOWN, UNKNOWN], "100/7+?", "$0.2500+?"),
        ([{"output_tokens": 5}], "?/5", "-"),
        ([{"input_tokens": "5", "output_tokens": True, "cost_usd": float("nan")}], "-", "-"),
        ([{"input_tokens": -5, "output_tokens": 1e300, "cost_usd": float("inf")}], "-", "-"),
    ],
)
def test_a_cell_tells_what_is_known_and_that_more_is_not(
    records: list[dict[str, object]], tokens: str, cost: str
) -> None:
    used = Usage(records)
    assert (used.tokens(), used.cost()) == (tokens, cost)


def test_a_sentence_says_of_how_many_runs_something_is_unknown() -> None:
    used = Usage([KNOWN, GUESSED, UNKNOWN, {**UNKNOWN, "cost_usd": 2}])
    assert used.tokens_sentence() == "110 tokens in, 8 out (unknown for 2 runs)"
    assert used.total_sentence() == "118 tokens (unknown for 2 runs)"
    assert used.cost_sentence() == "cost ~$3.2500 (unknown for 1 run)"
    assert Usage([UNKNOWN]).tokens_sentence() == Usage([]).total_sentence() == "tokens unknown"
    assert Usage([UNKNOWN]).cost_sentence() == "cost unknown"
    assert Usage([FREE]).cost_sentence() == "cost $0.0000"


def test_the_fields_for_scripts_are_null_for_what_is_not_known() -> None:
    assert Usage([KNOWN, UNKNOWN]).fields() == {
        "input_tokens": 100, "cached_tokens": 40, "output_tokens": 7, "cost_usd": 0.25,
        "cost_estimated": False, "runs_without_tokens": 1, "runs_without_cost": 1,
    }  # fmt: skip
    assert Usage([UNKNOWN]).fields()["cost_usd"] is None
