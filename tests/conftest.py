"""Fixtures that several files of tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_runs import Place
from tests.plan_root import PlanRoot
from tests.task_root import TaskRoot


def pytest_configure() -> None:
    """Have Ctrl-C mean something to what tests start, also where a shell began them with `&`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[PlanRoot]:
    """A root for a plan; what a failing test left running in it is ended."""
    made = PlanRoot(tmp_path / "root")
    yield made
    made.kill_everything()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place for single runs; what a failing test left running in it is ended."""
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.fixture
def tasks_root(tmp_path: Path) -> Iterator[TaskRoot]:
    """A root for tasks in loops; what a failing test left running in it is ended."""
    made = TaskRoot(tmp_path / "root")
    yield made
    made.close()


@pytest.fixture(params=["native", "portable"])
def either(place: Place, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place on this system's own paths, and on those through `ps`."""
    if request.param == "portable":
        place.env["CONDUCTOR_PORTABLE"] = "1"
        monkeypatch.setenv("CONDUCTOR_PORTABLE", "1")  # for the readers in this process
    return place


@pytest.fixture(params=["told", "portable"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the kernel tells of changes, or files are looked at as where it does not."""
    if request.param == "portable":
        monkeypatch.setenv("CONDUCTOR_PORTABLE", "1")
    return str(request.param)
