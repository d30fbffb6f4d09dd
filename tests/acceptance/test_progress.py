"""A person watches live progress: a plan at work, seen from a terminal from its start to its end."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.helpers import PYTHON, ROOT, wait_until
from tests.plan_root import PlanRoot, sh
from tests.screen import Terminal


@pytest.fixture
def watched(root: PlanRoot) -> Iterator[Terminal]:
    """The monitor in a terminal of 100 columns, for a root in which nothing has run yet."""
    root.runs.mkdir()
    terminal = Terminal(
        [*PYTHON, str(ROOT / "bin" / "monitor"), "--root", str(root.path)],
        columns=100,
        rows=30,
        cwd=root.path,
        env=root.environment({"TERM": "xterm"}),
    )
    yield terminal
    terminal.close()


def until(name: str) -> str:
    return f"while [ ! -e {name} ]; do sleep 0.05; done"


def test_a_person_watches_live_progress(root: PlanRoot, watched: Terminal) -> None:
    def shows(pattern: str, what: str) -> None:
        watched.wait_for(lambda s: re.search(pattern, s.text, re.MULTILINE), what)

    def go(name: str) -> None:
        (root.work / name).touch()

    root.plan(
        sh("build", f"echo compiling; {until('half')}; echo linking; {until('built')}"),
        sh("lint", f"{until('half')}; echo three warnings >&2; exit 1", critical=False),
        sh("test", f"echo testing; {until('tested')}", depends_on=["build"]),
    )
    shows("0 running, 0 runs", "an empty root")

    plan = root.start()
    shows(r"^[> ] p/build +shell +\d+s  idle \d+s +compiling$", "the first line of an agent")
    shows(r"^  p  \[\.+\] 0/3 done, 2 running", "the plan")
    shows(r"^    p/test waits for build, which is running: shell, for \d+ s", "who waits for what")
    shows(r"RUN_START p/build: run started", "the message of its start")

    go("half")
    shows(r"^[> ] p/build .*linking$", "its next line")
    shows(r"^  p/lint failed \d+ s ago: agent exited with code 1: three warnings$", "a failure")
    assert watched.screen.text.index("lint failed") < watched.screen.text.index("-- 2 Runs")

    go("built")
    shows(r"^[> ] p/test .*testing$", "the task that waited")
    shows(r"1/3 done, 1 running, 1 failed, .* left$", "how far it is, and how long it takes")
    watched.type("\n")
    shows(r"^\d+-\d+ of \d+, following  transcript.md  running  run_", "a transcript")
    watched.type("q")

    go("tested")
    shows(r"^\d\d:\d\d:\d\dZ  0 running, 3 runs, 1 problem", "the end")
    shows(r"^  p  \[#+!+\] 2/3 done, 1 failed, ended 20.* with exit code 1$", "its outcome")
    assert plan.wait(60) == 1
    watched.type("q")
    assert watched.wait() == 0
    assert not watched.screen.is_other
    root.assert_nothing_left()


def test_many_may_watch_and_nothing_is_written_by_that(root: PlanRoot, watched: Terminal) -> None:
    root.plan(sh("one", "echo hello"))
    assert root.run().returncode == 0
    watched.wait_for(lambda s: "1/1 done" in s.text, "the plan")
    before = root.tree()
    times = {path: path.lstat().st_mtime_ns for path in root.path.rglob("*")}
    other = Terminal(
        [*PYTHON, str(ROOT / "bin" / "monitor"), "--root", str(root.path)],
        cwd=root.path,
        env=root.environment({"TERM": "xterm"}),
    )
    try:
        other.wait_for(lambda s: "1/1 done" in s.text, "the plan")
        for terminal in (watched, other):
            terminal.type("\n")
            terminal.wait_for(lambda s: "hello" in s.text, "the transcript")
            terminal.type("qq")
            assert terminal.wait() == 0
    finally:
        other.close()
    assert root.tree() == before
    wait_until(lambda: not root.processes(), what="the end of both")
    assert {path: path.lstat().st_mtime_ns for path in root.path.rglob("*")} == times
