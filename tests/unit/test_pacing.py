"""What holds a start back: the pace of an agent CLI, and a disk that is full."""

from __future__ import annotations

import time

import pytest

from lib import files
from lib.config import Config
from lib.pacing import FAULT_SECONDS, Agents, Hold

MB = 1 << 20


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A disk whose free space the test sets; the floor is 500 MB."""
    monkeypatch.delenv("CONDUCTOR_MIN_FREE_MB", raising=False)
    monkeypatch.delenv("CONDUCTOR_HOLD_SECONDS", raising=False)
    room = {"free": 1000 * MB}
    monkeypatch.setattr(files, "free_bytes", lambda path: room["free"])
    return room


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    now = {"now": 1000.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["now"])
    return now


def test_a_start_is_held_while_the_disk_is_short(
    disk: dict[str, int], clock: dict[str, float]
) -> None:
    hold = Hold("/runs")
    assert not hold.look()

    disk["free"] = 100 * MB
    assert hold.look()
    assert "100 MB free at /runs, the floor is 500 MB" in hold.reason
    assert not hold.look()  # no news
    disk["free"] = 600 * MB

    assert hold.look()
    assert hold.reason == ""


def test_a_write_that_failed_is_tried_again_after_a_pause(
    disk: dict[str, int], clock: dict[str, float]
) -> None:
    hold = Hold("/runs")
    assert hold.note("no room for it")

    clock["now"] += FAULT_SECONDS / 2
    assert not hold.look()
    assert hold.reason == "no room for it"
    clock["now"] += FAULT_SECONDS

    assert hold.look()
    assert hold.reason == ""


def test_a_hold_of_an_hour_is_hopeless_also_when_it_was_let_go_for_a_moment(
    disk: dict[str, int], clock: dict[str, float]
) -> None:
    hold = Hold("/runs")
    for _ in range(359):  # a quota: the disk has room, every write fails
        hold.note("quota exceeded")
        assert not hold.is_hopeless()
        clock["now"] += FAULT_SECONDS
        hold.look()
        assert not hold.is_hopeless()
    hold.note("quota exceeded")
    clock["now"] += 20
    assert hold.is_hopeless()

    clock["now"] += FAULT_SECONDS
    hold.look()
    clock["now"] += 2 * FAULT_SECONDS
    hold.note("quota exceeded")
    assert not hold.is_hopeless()  # it was well for a while: counted anew


def test_only_paced_agents_wait_for_the_one_before(clock: dict[str, float]) -> None:
    agents = Agents(Config(), 5.0)

    agents.started("shell", clock["now"])
    agents.started("gone", clock["now"])

    assert agents.not_before("shell") == 0.0
    assert agents.kind("shell") == ""
    assert agents.not_before("gone") == 0.0  # its start will say that nobody knows it


def test_an_agent_of_the_same_type_waits_for_the_interval_and_some_jitter(
    clock: dict[str, float],
) -> None:
    entry = {"type": "command", "command": ["true"]}
    config = Config()
    config.agents = {"one": dict(entry), "two": dict(entry)}
    agents = Agents(config, 5.0)

    agents.started("one", 100.0)

    assert 105.0 <= agents.not_before("two") <= 107.5
    assert Agents(config, 0.0).kind("one") == ""
