"""What tokens cost at list prices: which row counts, what is unknown, what a table may say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib import agents, prices, yamlio
from lib.agents import codex, gemini

ROWS = {
    "gpt-5": {"input": 1.0, "cached": 0.5, "output": 10.0},
    "gpt-5-mini": {"input": 0.1, "output": 1.0},
    "claude-opus-4": {"input": 15.0, "output": 75.0},
    "sonar": {"input": 1.0, "output": 1.0},
    "perplexity/sonar": {"input": 0.25, "output": 2.5},
    "local*": {"input": 0.0, "output": 0.0},
    "local-big*": {"input": 7.0, "output": 7.0},
}


@pytest.mark.parametrize(
    ("model", "row"),
    [
        ("gpt-5", "gpt-5"),
        ("GPT-5 ", "gpt-5"),
        ("gpt-5-2025-08-07", "gpt-5"),
        ("gpt-5-20250807", "gpt-5"),
        ("gpt-5-001", "gpt-5"),
        ("gpt-5-preview", "gpt-5"),
        ("gpt-5-preview-05-06", "gpt-5"),
        ("gpt-5-latest", "gpt-5"),
        ("gpt-5@20250807", "gpt-5"),
        ("gpt-5[1m]", "gpt-5"),
        ("openai/gpt-5", "gpt-5"),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("perplexity/sonar", "perplexity/sonar"),
        ("sonar", "sonar"),
        ("local-anything", "local*"),
        ("local-big-one", "local-big*"),
        ("gpt-5-pro", None),
        ("gpt-5.4", None),
        ("gpt-50", None),
        ("gpt", None),
        ("claude-opus-4-1", None),
        ("claude-opus-4-1-20250805", None),
        ("gpt-5-preview-tts", None),
        ("auto", None),
        ("", None),
    ],
)
def test_a_name_fits_its_model_and_the_editions_of_it(model: str, row: str | None) -> None:
    assert prices.find(ROWS, model) == (ROWS[row] if row else None)


def own(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return str(path)


def test_what_came_from_a_cache_costs_less(tmp_path: Path) -> None:
    config = own(tmp_path, "prices:\n  m: {input: 2, cached: 0.2, output: 10}\n")
    dollars = prices.estimate({"m": (1_000_000, 400_000, 100_000)}, config)
    assert dollars == 2.28  # 0.6 of 2, 0.4 of 0.2, 0.1 of 10
    assert prices.estimate({"m": (10, 50, 0)}, config) == 0.000002  # more cached than there is
    without = own(tmp_path, "prices:\n  m: {input: 2, output: 10}\n")
    assert prices.estimate({"m": (1_000_000, 400_000, 0)}, without) == 2


def test_of_several_models_each_has_its_price_and_one_unknown_makes_all_unknown(
    tmp_path: Path,
) -> None:
    config = own(tmp_path, "prices:\n  a: {input: 1, output: 1}\n  b: {input: 2, output: 2}\n")
    assert prices.estimate({"a": (1_000_000, 0, 0), "b": (0, 0, 1_000_000)}, config) == 3
    assert prices.estimate({"a": (1_000_000, 0, 0), "c": (0, 0, 1)}, config) is None
    assert prices.estimate({"a": (1_000_000, 0, 0), "c": (0, 0, 0)}, config) == 1
    assert prices.estimate({"": (5, 0, 5)}, config) is None


def test_prices_of_the_user_go_before_those_that_come_along(tmp_path: Path) -> None:
    model = next(iter(prices.rows_of(prices.TABLE)))
    assert prices.estimate({model: (1_000_000, 0, 0)})
    config = own(tmp_path, f"prices:\n  {model[:3]}*: {{input: 123, output: 0}}\n")
    assert prices.estimate({model: (1_000_000, 0, 0)}, config) == 123


@pytest.mark.parametrize(
    "text",
    [
        "prices: 5\n",
        "prices: [a]\n",
        "- 1\n",
        "a: [\n",
        "",
        "prices:\n  m: {input: x, output: 1}\n",
    ],
)
def test_a_file_that_is_spoilt_has_no_prices_and_harms_nothing(tmp_path: Path, text: str) -> None:
    config = own(tmp_path, text)
    assert prices.estimate({"m": (1, 0, 1)}, config) is None
    os.unlink(config)
    assert prices.estimate({"m": (1, 0, 1)}, config) is None
    os.mkfifo(config)  # which nobody waits for
    assert prices.estimate({"m": (1, 0, 1)}, config) is None


def test_the_table_that_comes_along_is_valid_and_tells_its_sources() -> None:
    text = Path(prices.TABLE).read_text()
    rows = yamlio.load(text)
    assert isinstance(rows, dict)
    assert prices.faults(rows) == []
    assert prices.rows_of(prices.TABLE) == rows
    for row in rows.values():
        assert row.get("cached", 0) <= row["input"] <= row["output"]
    groups = [group for group in text.split("\n\n")[1:] if group.strip()]
    assert all("Source: " in group and "# " in group.split("\n")[0] for group in groups)
    assert prices.find(rows, "gpt-6.1-sol")
    assert prices.find(rows, "gemini-3.1-pro-preview")


@pytest.mark.parametrize(
    ("rows", "keys", "text"),
    [
        ([1], (), "must be a mapping"),
        ({"m": 5}, ("m",), "m must be a mapping"),
        ({5: {"input": 1, "output": 1}}, (5,), "no name of a model"),
        ({"*": {"input": 1, "output": 1}}, ("*",), "no name of a model"),
        ({"m": {"input": 1}}, ("m",), "lacks output"),
        ({"m": {"input": 1, "output": 1, "inptu": 3}}, ("m", "inptu"), "unknown key 'inptu'"),
        ({"m": {"input": "1", "output": 1}}, ("m", "input"), "input must be dollars"),
        ({"m": {"input": True, "output": 1}}, ("m", "input"), "input must be dollars"),
        ({"m": {"input": -1, "output": 1}}, ("m", "input"), "input must be dollars"),
        ({"m": {"input": float("nan"), "output": 1}}, ("m", "input"), "input must be dollars"),
        ({"m": {"input": 1, "output": 1e9}}, ("m", "output"), "output must be dollars"),
    ],
)
def test_each_fault_of_a_table_is_told_with_its_place(
    rows: object, keys: tuple[object, ...], text: str
) -> None:
    [(place, sentence)] = prices.faults(rows)
    assert place == keys
    assert text in sentence


def test_a_good_table_has_no_fault() -> None:
    assert prices.faults(None) == prices.faults({}) == []
    assert prices.faults({"m*": {"input": 0, "cached": 0.5, "output": 2}}) == []


# -- who tells the model


@pytest.mark.parametrize(
    ("args", "model"),
    [
        ([], ""),
        (["-m", "gpt-5"], "gpt-5"),
        (["--model", "gpt-5"], "gpt-5"),
        (["--model=gpt-5"], "gpt-5"),
        (["-c", 'model="gpt-5"'], "gpt-5"),
        (["-c", "model_reasoning_effort=high"], ""),
        (["-m"], ""),
    ],
)
def test_codex_is_known_to_use_the_model_of_its_arguments(args: list[str], model: str) -> None:
    assert codex.model_argument({"args": args}) == model


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ('model = "gpt-5"\n', "gpt-5"),
        ('model = "a"\nprofile = "p"\n[profiles.p]\nmodel = "b"\n', "b"),
        ('model = "a"\nprofile = "p"\n[profiles.q]\nmodel = "b"\n', "a"),
        ('profile = ["p"]\nmodel = 5\n', ""),
        ("model = \n", ""),
        ("\0", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_codex_has_its_model_from_its_settings_if_these_can_be_read(
    tmp_path: Path, text: str | None, model: str
) -> None:
    if text is not None:
        (tmp_path / "config.toml").write_text(text)
    assert codex.configured_model(str(tmp_path)) == model


def test_only_backends_that_know_a_settings_folder_are_asked_for_a_model() -> None:
    for name in agents.types():
        backend = agents.load(name)
        has = [
            hasattr(backend, x) for x in ("configured_model", "model_argument", "settings_folder")
        ]
        assert len(set(has)) == 1


def test_gemini_tells_the_tokens_of_each_model_and_counts_thinking_as_output() -> None:
    figures = b'{"total_tokens":150,"input_tokens":100,"output_tokens":20,"cached":40}'
    reader = gemini.reader()
    reader.feed(
        b'{"type":"message","role":"assistant","content":"x"}\n{"type":"result","status":"success",'
        b'"stats":{"total_tokens":300,"input_tokens":200,"output_tokens":40,"cached":80,'
        b'"models":{"small":' + figures + b',"big":' + figures + b"}}}\n"
    )
    reader.finish()
    assert reader.outcome.output_tokens == 100
    assert reader.outcome.usage_by_model == {"small": (100, 40, 50), "big": (100, 40, 50)}
