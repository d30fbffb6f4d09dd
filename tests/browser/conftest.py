"""A real Chromium, the server on a real root, and agents that say what a test tells them to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.agent_runs import Place
from tests.api_server import Server
from tests.browser.fleet import Fleet, environment
from tests.browser.page import KEY, NEEDED, Page, Talker, start_browser
from tests.helpers import wait_until


def _lack() -> str:
    """Why there can be no browser tests here, or ""."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "no selenium; run make setup"
    for name in NEEDED:
        if shutil.which(name) is None:
            return f"no {name} on PATH; on Debian: apt-get install chromium chromium-driver"
    return ""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One for all tests of this process; it ends with all of its processes."""
    if lack := _lack():
        if os.environ.get("CONDUCTOR_BROWSER_TESTS") == "1":
            pytest.fail(f"CONDUCTOR_BROWSER_TESTS=1, but {lack}")
        pytest.skip(lack)
    profile = tmp_path_factory.mktemp("profile")
    driver = start_browser(profile)
    try:
        yield Page(driver)
    finally:
        driver.quit()
        wait_until(lambda: not _processes_with(str(profile)), what="the end of the browser")


def _processes_with(word: str) -> list[str]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if word in command:
            found.append(command)
    return found


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The browser as new: no cookie, a usual window, nothing in its console."""
    browser.reset()
    yield browser
    browser.leave()


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    with Server(place.root) as made:
        yield made


@pytest.fixture
def guarded(place: Place) -> Iterator[Server]:
    """A server that asks for a key."""
    with Server(place.root, env={"CONDUCTOR_API_KEY": KEY}) as made:
        yield made


@pytest.fixture
def talkers(place: Place) -> Iterator[Talkers]:
    with Talkers(place) as made:
        yield made


class Talkers:
    """Starts real runs of the shell agent that print what they are told to."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stack = ExitStack()

    def __enter__(self) -> Talkers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, project: str = "demo", task: str = "build") -> Talker:
        talker = Talker(self._place, project, task)
        self._stack.callback(talker.close)
        return talker


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One for all tests of this process, which only look at it."""
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        made.begin()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def fleet_server(fleet: Fleet) -> Iterator[Server]:
    with Server(fleet.root, env=environment(fleet)) as made:
        yield made
