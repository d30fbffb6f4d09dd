"""What the tests of stream readers share: the recorded streams, and what must hold of any stream."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from lib.agents import base

STREAMS = Path(__file__).resolve().parent / "data" / "agent-streams"


def cases(cli: str) -> list[dict[str, object]]:
    """The recorded streams of one CLI: `file`, `expect` and how they were made."""
    found = json.loads((STREAMS / "index.json").read_text(encoding="utf-8"))
    return [case for case in found if case["cli"] == cli]


def texts() -> list[dict[str, object]]:
    """Recorded outputs that are no stream of events; `expect` for those that have an answer."""
    found: list[dict[str, object]] = json.loads((STREAMS / "text-index.json").read_text("utf-8"))
    return found


def stream(name: str) -> bytes:
    return (STREAMS / f"{name}.stdout").read_bytes()


def read_all(reader: base.Reader, *pieces: bytes) -> tuple[base.Outcome, str]:
    shown = "".join([reader.feed(piece) for piece in pieces])
    return reader.outcome, shown + reader.finish()


def lines_of(*events: object) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def facts(outcome: base.Outcome) -> dict[str, object]:
    return {name: getattr(outcome, name) for name in base.Outcome.__slots__}


def launch(**changes: object) -> base.Launch:
    values: dict[str, object] = {
        "executable": "/opt/agent",
        "prompt_path": "/r/prompt.md",
        "run_dir": "/r",
        "cwd": "/c",
        **changes,
    }
    return base.Launch(**values)  # type: ignore[arg-type]


def assert_harmless(text: str) -> None:
    assert not [c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]
    assert not set(text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    text.encode()


def assert_sound(outcome: base.Outcome) -> None:
    for count in (
        outcome.turns,
        outcome.input_tokens,
        outcome.cached_tokens,
        outcome.output_tokens,
    ):
        assert count is None or (type(count) is int and count >= 0)
    assert outcome.cost_usd is None or (type(outcome.cost_usd) is float and outcome.cost_usd >= 0)
    for text in (outcome.final_text, outcome.error, outcome.session_id, outcome.model):
        assert text is None or text.encode()
    assert (outcome.success is True) is (outcome.final_text is not None)
    assert (outcome.success is True) is (outcome.error is None)


WRONG: list[object] = [
    None,
    True,
    False,
    0,
    -1,
    10**30,
    math.inf,
    math.nan,
    "",
    "\x00\x1b[31m\ud800 x",
    [],
    [None],
    [[[]]],
    {},
    {"": None},
    {"content": {"content": [{}]}},
]


def places(value: object) -> Iterator[list[str | int]]:
    """The path to each value within a JSON value, itself included."""
    yield []
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from ([key, *path] for path in places(inner))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:3]):
            yield from ([index, *path] for path in places(inner))


def changed(event: object, path: list[str | int], value: object) -> object:
    if not path:
        return value
    event = copy.deepcopy(event)
    place: object = event
    for step in path[:-1]:
        place = place[step]  # type: ignore[index]
    place[path[-1]] = value  # type: ignore[index]
    return event


def assert_as_recorded(outcome: base.Outcome, case: dict[str, object]) -> None:
    expected = base.as_dict(case["expect"])
    found = facts(outcome)
    assert {name: found[name] for name in expected} == expected
    assert outcome.success is (expected["error"] is None)
    assert outcome.open_tools == 0


def assert_the_same_however_cut(make: Callable[[], base.Reader], data: bytes) -> None:
    """Cut in two at every byte, and in pieces of some sizes; no success before the last line."""
    whole, shown = read_all(make(), data)
    expected = (facts(whole), shown)
    for cut in range(len(data)):
        reader = make()
        text = reader.feed(data[:cut])
        assert reader.outcome.success is False
        assert reader.outcome.final_text is None
        text += reader.feed(data[cut:]) + reader.finish()
        assert (facts(reader.outcome), text) == expected
    for size in (1, 2, 3, 7, 64):
        outcome, text = read_all(
            make(), *(data[at : at + size] for at in range(0, len(data), size))
        )
        assert (facts(outcome), text) == expected


def assert_no_success_before_its_end(make: Callable[[], base.Reader], data: bytes) -> None:
    for end in range(len(data.rstrip(b"\n"))):
        outcome, shown = read_all(make(), data[:end])
        assert outcome.success is False
        assert outcome.error
        assert_sound(outcome)
        assert_harmless(shown)


def mutations(data: bytes) -> Iterator[list[object]]:
    """The events of a stream, with each value in turn of each wrong type."""
    events = [json.loads(line) for line in data.split(b"\n") if line]
    for number, event in enumerate(events):
        for path in places(event):
            for value in WRONG:
                yield [*events[:number], changed(event, path, value), *events[number + 1 :]]


def assert_damage_is_survived(make: Callable[[], base.Reader], data: bytes) -> None:
    chance = random.Random(4)  # noqa: S311 - repeatable damage, no secret
    for _ in range(100):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 40)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        cuts = sorted(chance.randrange(len(data)) for _ in range(9))
        pieces = [bytes(damaged[a:b]) for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        outcome, shown = read_all(make(), bytes(damaged))
        assert_sound(outcome)
        assert_harmless(shown)
        again, shown_again = read_all(make(), *pieces)
        assert (facts(again), shown_again) == (facts(outcome), shown)
