"""What runs cost, from their streams or from list prices, and what is shown of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import runs
from tests.agent_runs import Place
from tests.helpers import ROOT, run_script
from tests.plan_root import PlanRoot, sh

STREAMS = ROOT / "tests" / "data" / "agent-streams"
PRICES = {"gpt-test": {"input": 1000, "cached": 100, "output": 10000}}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    (made.cwd / "prompt.md").write_text("Do it.\n")
    made.env["CODEX_HOME"] = str(tmp_path / "codex")
    made.env["HOME"] = str(tmp_path)
    yield made
    made.close()


def codex(place: Place, usage: str = "", waits: bool = False) -> None:
    """A `codex` that answers with this usage."""
    usage = usage or '{"input_tokens":1000,"cached_input_tokens":400,"output_tokens":10}'
    events = [
        '{"type":"thread.started","thread_id":"t-1"}',
        '{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"Hello"}}',
        f'{{"type":"turn.completed","usage":{usage}}}',
    ]
    pause = "touch ready; while [ ! -e go ]; do sleep 0.02; done\n" if waits else ""
    lines = "".join(f"echo '{event}'\n" for event in events)
    place.program("codex", f"#!/bin/sh\ncat >/dev/null\n{pause}{lines}")


def config(place: Place, **agents: object) -> None:
    path = place.folder / "mine.yaml"
    path.write_text(json.dumps({"prices": PRICES, "agents": agents}) + "\n")
    place.env["CONDUCTOR_CONFIG"] = str(path)


def figures(run: runs.Run) -> tuple[object, object, object]:
    return tuple(run.record.get(key) for key in ("model", "cost_usd", "cost_estimated"))  # type: ignore[return-value]


COST = (600 * 1000 + 400 * 100 + 10 * 10000) / 1e6


@pytest.mark.parametrize("told_by", ["option", "setting", "arguments", "settings file"])
def test_codex_costs_what_its_model_costs_whoever_named_that(place: Place, told_by: str) -> None:
    codex(place)
    settings: dict[str, dict[str, object]] = {
        "setting": {"model": "gpt-test"},
        "arguments": {"args": ["-m", "gpt-test"]},
    }
    config(place, codex=settings.get(told_by, {}))
    if told_by == "settings file":
        (place.folder / "codex").mkdir()
        (place.folder / "codex" / "config.toml").write_text('model = "gpt-test"\n')

    done = place.run("codex", ".", *(["--model", "gpt-test"] if told_by == "option" else []))

    assert done.returncode == 0, done.stderr
    assert figures(place.only_run()) == ("gpt-test", COST, True)


@pytest.mark.parametrize(
    ("model", "usage"),
    [("", ""), ("gpt-of-nobody", ""), ("gpt-test", '{"output_tokens":10}'), ("gpt-test", "{}")],
)
def test_what_is_not_known_costs_nobody_knows_what(place: Place, model: str, usage: str) -> None:
    codex(place, usage)
    config(place)

    done = place.run("codex", ".", *(["--model", model] if model else []))

    assert done.returncode == 0, done.stderr
    run = place.only_run()
    assert figures(run) == (model or None, None, None)
    shown = run_script("bin/show-run", "--root", place.root).stdout
    costs = [line.split(maxsplit=1)[1] for line in shown.split("\n") if line.startswith("cost ")]
    told = {"": "its model", "gpt-of-nobody": "no price of gpt-of-nobody"}.get(model)
    assert bool(costs) is bool(told)
    assert not told or (told in costs[0] and costs[0].startswith("unknown: "))
    listed = run_script("bin/list-runs", "--root", place.root).stdout
    assert listed.split("\n")[-2].endswith("; cost unknown")


def test_gemini_costs_what_each_of_its_models_costs(place: Place) -> None:
    stream = STREAMS / "gemini" / "stream-plain.stdout"
    result = next(json.loads(x) for x in stream.read_text().split("\n") if '"type":"result"' in x)
    models = result["stats"]["models"]
    prices = {
        name: {"input": number, "output": 10 * number} for number, name in enumerate(models, 1)
    }
    path = place.folder / "mine.yaml"
    path.write_text(json.dumps({"prices": prices}) + "\n")
    place.env["CONDUCTOR_CONFIG"] = str(path)
    place.program("gemini", f"#!/bin/sh\ncat >/dev/null\ncat {stream}\n")

    done = place.run("gemini", ".")

    assert done.returncode == 0, done.stderr
    expected = sum(
        (used["input_tokens"] * number + used["output_tokens"] * 10 * number) / 1e6
        for number, used in enumerate(models.values(), 1)
    )
    assert len(models) > 1
    assert figures(place.only_run())[1:] == (round(expected, 6), True)


def test_what_a_stream_tells_of_the_cost_is_taken_before_any_price(place: Place) -> None:
    stream = STREAMS / "claude" / "stream-plain.stdout"
    told = json.loads(stream.read_text().strip().split("\n")[-1])
    place.program("claude", f"#!/bin/sh\ncat >/dev/null\ncat {stream}\n")
    config(place)

    place.run("claude", ".")

    record = place.only_run().record
    models = told.get("model_usage_since_last_result") or told["modelUsage"]
    assert record["cost_usd"] == pytest.approx(sum(m["costUSD"] for m in models.values()))
    assert "cost_estimated" not in record


@pytest.mark.parametrize("told_by", ["option", "settings file"])
def test_a_repair_finds_model_and_prices_without_having_been_told_of_them(
    place: Place, told_by: str
) -> None:
    codex(place, waits=True)
    config(place)
    (place.folder / "codex").mkdir()
    (place.folder / "codex" / "config.toml").write_text('model = "gpt-test"\n')
    live = place.start("codex", ".", *(["--model", "gpt-test"] if told_by == "option" else []))
    place.end_without_supervisor(live)
    for name in ("CONDUCTOR_CONFIG", "CODEX_HOME"):
        place.env.pop(name)

    place.act()

    assert figures(live.run) == ("gpt-test", COST, True)


def test_a_list_ends_with_its_totals_and_says_what_they_lack(place: Place) -> None:
    codex(place)
    config(place)
    place.script("true", "steps.md")
    place.run("codex", ".", "--model", "gpt-test")
    place.run("codex", ".")
    place.run("shell", ".", "steps.md")

    listed = run_script("bin/list-runs", "--root", place.root).stdout.split("\n")
    rows = run_script("bin/list-runs", "--json", "--root", place.root).stdout.split("\n")[:-1]
    shown = run_script("bin/show-run", place.all_runs()[0].run_id, "--root", place.root).stdout

    assert listed[-2] == "3 runs: 2000 tokens in, 20 out; cost ~$0.7400 (unknown for 1 run)"
    assert [row.split()[7:9] for row in listed[1:4]] == [
        ["0/0", "$0.0000"],
        ["1000/10", "-"],
        ["1000/10", "~$0.7400"],
    ]
    assert [json.loads(row).get("cost_usd") for row in rows] == [0.0, None, COST]
    assert "tokens        1000 in (400 cached), 10 out\n" in shown
    assert "cost          ~$0.7400 (estimated from list prices)\n" in shown


def test_the_totals_of_a_plan_say_for_how_many_runs_they_do_not_count(
    place: Place, tmp_path: Path
) -> None:
    root = PlanRoot(tmp_path / "plan")
    codex(place)
    config(
        place,
        priced={"type": "codex", "model": "gpt-test"},
        unpriced={"type": "codex", "model": "gpt-of-nobody"},
    )
    root.plan(
        {"id": "a", "agent": "priced", "prompt": "Do it.\n"},
        {"id": "b", "agent": "unpriced", "prompt": "Do it.\n"},
        sh("c", "true"),
        start_interval=0,
    )

    done = root.run(env=place.environment())
    again = root.run("--json", "--fresh", env=place.environment())

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {
        line.split()[0]: line.split()[4:6]
        for line in done.stdout.split("\n")
        if line[:2] in ("a ", "b ", "c ")
    }
    assert rows == {"a": ["1000/10", "~$0.7400"], "b": ["1000/10", "-"], "c": ["0/0", "$0.0000"]}
    assert "2020 tokens, cost ~$0.7400 (unknown for 1 run)\n" in done.stdout
    summary = json.loads(again.stdout.strip().split("\n")[-1])
    assert summary["event"] == "summary"
    assert (summary["cost_usd"], summary["cost_estimated"]) == (COST, True)
    assert (summary["runs_without_tokens"], summary["runs_without_cost"]) == (0, 1)
    assert (summary["cached_tokens"], summary["input_tokens"]) == (800, 2000)
