"""The commands that the user's guide shows do what it says, in a root made by a real plan."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import bus
from tests.helpers import PYTHON, ROOT, wait_until
from tests.plan_root import PlanRoot, sh
from tests.screen import Terminal

GATE = "while [ ! -e gate ]; do sleep 0.05; done"


@pytest.fixture
def worked(root: PlanRoot) -> PlanRoot:
    """A root in which a plan has ended: two tasks done, one failed."""
    root.plan(
        sh("infra-storage", "echo all stored; echo a warning >&2"),
        sh("infra-config", "echo configured"),
        sh("agent-codex", "echo it begins; echo cannot connect >&2; exit 3", critical=False),
    )
    assert root.run().returncode == 1
    return root


def shell(root: PlanRoot, command: str) -> str:
    """What a command line prints in the root, as a person types it."""
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=root.path,
        env=root.environment({"LC_ALL": "C.UTF-8"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_ls_lt_shows_the_newest_runs_with_their_tasks(worked: PlanRoot) -> None:
    listed = shell(worked, "ls -lt runs/ | head -20")
    assert (
        len(
            re.findall(
                r" run_\d{8}-\d{6}-\d+-(infra-storage|infra-config|agent-codex)$",
                listed,
                re.MULTILINE,
            )
        )
        == 3
    )
    assert len(re.findall(r"run_", shell(worked, "ls -la runs/"))) == 3


@pytest.fixture
def terminal(root: PlanRoot) -> Iterator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for one in made:
        one.close()


@pytest.mark.skipif(shutil.which("watch") is None, reason="watch is not installed")
def test_watch_shows_runs_and_pid_files_while_a_plan_works(
    root: PlanRoot, terminal: list[Terminal]
) -> None:
    root.plan(sh("infra-storage", GATE))
    plan = root.start()
    wait_until(lambda: "started   infra-storage" in root.log(), what="the start")
    env = root.environment({"TERM": "xterm", "LC_ALL": "C.UTF-8"})
    words = ["watch", "-n", "5", "ls -lt runs/ | head -20"]
    terminal.append(Terminal(words, columns=120, cwd=root.path, env=env))
    terminal[0].wait_for(
        lambda s: b"-infra-storage" in terminal[0].raw and b"infra-storage.pid" in terminal[0].raw,
        "the run, and its pid file",
    )
    (root.work / "gate").touch()
    assert plan.wait(60) == 0


def test_tail_f_shows_messages_as_they_come(worked: PlanRoot, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with seen.open("wb") as out:
        tail = subprocess.Popen(["tail", "-f", "MESSAGE-BUS.md"], cwd=worked.path, stdout=out)
    try:
        wait_until(lambda: b"1 failed" in seen.read_bytes(), what="what is there")
        bus.append(str(worked.bus), body="a new message", type_="FACT")
        wait_until(
            lambda: seen.read_bytes().endswith(b"a new message\n\n"[:-1]), what="what is new"
        )
    finally:
        tail.terminate()
        tail.wait()


def test_cat_shows_what_one_run_printed(worked: PlanRoot) -> None:
    run = worked.run_folder("agent-codex").name
    assert shell(worked, f"cat runs/{run}/agent-stdout.txt") == "it begins\n"
    assert shell(worked, f"cat runs/{run}/agent-stderr.txt") == "cannot connect\n"


def test_completed_runs_can_be_counted(worked: PlanRoot) -> None:
    count = int(shell(worked, 'ls runs/ | grep -v ".pid" | wc -l'))
    assert count == 3 + 1  # and the folder of the plan's state
    assert shell(worked, "ls runs/ | grep -c '^run_'") == "3\n"


def test_grep_finds_each_failure_once(worked: PlanRoot) -> None:
    found = shell(worked, 'grep "ERROR" MESSAGE-BUS.md | tail -20').split("\n")[:-1]
    about = [line for line in found if "task=agent-codex" in line]
    assert len(about) == 1
    assert about[0].startswith("ERROR task=agent-codex agent=shell exit=3 run=run_")
    assert not [line for line in found if "infra-" in line]


def test_blockers_are_in_their_log(worked: PlanRoot) -> None:
    text = shell(worked, "cat docs/dev/issues.md")
    assert "agent-codex" in text
    assert "cannot connect" in text


def test_one_task_is_found_by_its_name(worked: PlanRoot) -> None:
    [line] = shell(worked, "ls -lt runs/ | grep infra-storage").split("\n")[:-1]
    assert line.endswith(worked.run_folder("infra-storage").name)


def test_all_outputs_and_prompts_are_read_with_one_pattern(worked: PlanRoot) -> None:
    assert sorted(shell(worked, "cat runs/run_*/agent-stdout.txt").split("\n")[:-1]) == [
        "all stored", "configured", "it begins",
    ]  # fmt: skip
    assert "a warning" in shell(worked, "cat runs/run_*/agent-stderr.txt")
    assert shell(worked, "cat runs/run_*/prompt.md").count("```sh") == 3


def test_one_task_is_run_again_by_hand(worked: PlanRoot) -> None:
    [prompt] = list((worked.path / "prompts").rglob("infra-config.md"))
    script = " ".join([*PYTHON, str(ROOT / "run-agent.py")])
    command = f"{script} --root . shell work {prompt.relative_to(worked.path)}"
    printed = shell(worked, command)
    assert re.search(r"^RUN_ID=run_\d{8}-\d{6}-\d+$", printed, re.MULTILINE)
    assert shell(worked, "cat $(ls -dt runs/run_* | head -1)/agent-stdout.txt") == "configured\n"
