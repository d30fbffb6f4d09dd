"""The live view of a real plan, on terminals: their sizes, their ways to be slow, and their ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from lib.textual import width
from tests.helpers import wait_until
from tests.plan_root import PlanRoot, sh
from tests.plan_terminals import SECRET, UNTIL_GATE, Start, busy_tasks, terminals
from tests.screen import Screen, Terminal


@pytest.fixture
def start(root: PlanRoot) -> Iterator[Start]:
    """Starts the plan of the root, or another command, in a terminal of its own."""
    with terminals(root, root.command) as start_one:
        yield start_one


def busy_plan(root: PlanRoot) -> None:
    """Two agents at work, one of which says odd things; one that failed, and one that waits for it."""
    blocked = sh("blocked", "true", depends_on=["broken"], critical=False)
    root.plan(*busy_tasks("exit 3", blocked))


def is_busy(screen: Screen) -> bool:
    """The whole of the busy plan is on the screen, at any width from 40 columns on."""
    return shows_busy(screen.text)


def shows_busy(text: str) -> bool:
    return (
        "broken failed: agent exited with" in text
        and re.search(r"^again is tried again in ", text, re.MULTILINE) is not None
        and re.search(r"^odd +.*你好 ", text, re.MULTILINE) is not None
        and "1/6 done, 2 running, 1 failed" in text
    )


def assert_calm(terminal: Terminal) -> None:
    """The terminal is as it was before: cursor, colours, wrapping, modes."""
    screen = terminal.screen
    assert (screen.cursor_shown, screen.wrapping, screen.colour) == (True, True, "")
    assert screen.unknown == []
    assert terminal.current_settings() == terminal.settings


def assert_tidy(screen: Screen) -> None:
    """One block, at the bottom of what is shown, and none of an earlier moment."""
    bars = [line for line in screen.lines if re.search(r"\d+/6 done", line)]
    assert len(bars) == 1, screen.text
    shown = [line for line in screen.lines if line]
    assert shown[-1] == bars[0]
    assert all(width(line) < screen.columns for line in shown[-3:])


def test_the_live_view_at_80_columns(root: PlanRoot, start: Start) -> None:
    busy_plan(root)
    terminal = start()

    terminal.wait_for(is_busy, "the block")
    assert_tidy(terminal.screen)
    text = terminal.screen.text
    assert re.search(r"^other-task +shell +\d+s  idle \d+s", text, re.MULTILINE)
    bar = r"\[###!!!!!!!\.{10}\] 1/6 done, 2 running, 1 failed, 1 blocked"
    assert re.search(bar, text)
    assert SECRET not in terminal.screen.everything()
    assert "[REDACTED]" in text
    assert "succeeded quick" in terminal.screen.everything()
    colours = {line: terminal.screen.colours.get(n) for n, line in enumerate(terminal.screen.lines)}
    assert next(c for line, c in colours.items() if line.startswith("broken failed")) == "31"

    (root.work / "gate").touch()
    assert terminal.wait() == 1
    assert terminal.screen.wraps == 0 or "wraps" not in terminal.screen.text
    everything = terminal.screen.everything()
    assert not re.search(r"^\[#.*done, \d running", everything, re.MULTILINE)  # the block is gone
    assert re.search(r"^TASK +AGENT", everything, re.MULTILINE)
    assert_calm(terminal)
    root.assert_nothing_left()


def test_it_follows_the_size_of_the_terminal(root: PlanRoot, start: Start) -> None:
    busy_plan(root)
    terminal = start()
    terminal.wait_for(is_busy, "the block")

    terminal.resize(40, 12)
    terminal.wait_for(
        lambda s: re.search(r"^odd +\d+s  你好", s.text, re.MULTILINE) and "idle" not in s.text,
        "fewer columns",
    )
    assert_tidy(terminal.screen)
    terminal.resize(20, 5)
    terminal.wait_for(lambda s: s.lines[-2:-1] == ["1/6 done, 2 running"[:19]], "the smallest")
    assert_tidy(terminal.screen)
    terminal.resize(120, 30)
    terminal.wait_for(
        lambda s: is_busy(s) and "1 blocked" in s.text and "idle" in s.text, "more columns"
    )
    assert_tidy(terminal.screen)

    (root.work / "gate").touch()
    assert terminal.wait() == 1
    assert_calm(terminal)


def test_a_small_terminal_from_the_start(root: PlanRoot, start: Start) -> None:
    busy_plan(root)
    terminal = start(columns=20, rows=5)

    terminal.wait_for(lambda s: "1/6 done, 2 running" in s.text and "odd" in s.text, "the block")
    assert len([line for line in terminal.screen.lines if line]) <= 4

    (root.work / "gate").touch()
    assert terminal.wait() == 1
    assert_calm(terminal)


def test_no_color_is_honoured(root: PlanRoot, start: Start) -> None:
    busy_plan(root)
    terminal = start(env={"NO_COLOR": "1"})
    terminal.wait_for(is_busy, "the block")
    (root.work / "gate").touch()
    assert terminal.wait() == 1
    assert re.findall(rb"\x1b\[\d+m", terminal.raw) == []


def test_a_dumb_terminal_gets_plain_lines(root: PlanRoot, start: Start) -> None:
    busy_plan(root)
    terminal = start(env={"TERM": "dumb"})
    terminal.wait_for(lambda s: "succeeded quick" in s.text, "the lines")
    (root.work / "gate").touch()
    assert terminal.wait() == 1
    assert b"\x1b" not in terminal.raw
    assert "done, 2 running" not in terminal.screen.everything()


def test_a_terminal_stopped_with_ctrl_s_holds_up_nothing_and_misses_nothing(
    root: PlanRoot, start: Start
) -> None:
    many = [sh(f"task{number:02d}", "true", depends_on=["first"]) for number in range(40)]
    root.plan(sh("first", UNTIL_GATE), *many, max_parallel=8)
    terminal = start()
    terminal.wait_for(lambda s: "0/41 done, 1 running" in s.text, "the block")

    terminal.type("\x13")
    (root.work / "gate").touch()
    wait_until(lambda: "41 done, 0 failed" in root.log(), seconds=60, what="the end of the plan")
    assert set(root.states().values()) == {"done"}
    terminal.read()
    assert "task39" not in terminal.screen.everything()
    assert terminal.process.poll() is None
    terminal.type("\x11")

    assert terminal.wait() == 0
    everything = terminal.screen.everything()
    assert len(set(re.findall(r"succeeded (task\d\d)", everything))) == 40
    assert re.search(r"^TASK +AGENT", everything, re.MULTILINE)
    assert_calm(terminal)


def test_a_closed_terminal_ends_the_display_and_not_the_plan(root: PlanRoot, start: Start) -> None:
    busy_plan(root)
    terminal = start()
    terminal.wait_for(is_busy, "the block")

    os.close(terminal.master)
    (root.work / "gate").touch()

    assert terminal.process.wait(60) == 1
    assert "plan p: 4 done, 1 failed, 1 not run" in root.log()
    root.assert_nothing_left()


@pytest.mark.parametrize("times", [1, 2])
def test_after_ctrl_c_the_terminal_is_as_it_was(root: PlanRoot, start: Start, times: int) -> None:
    busy_plan(root)
    terminal = start()
    terminal.wait_for(is_busy, "the block")

    terminal.type("\x03")
    terminal.wait_for(lambda s: "interrupted: nothing new starts" in s.text, "the answer")
    if times == 2:
        terminal.type("\x03")
    else:
        (root.work / "gate").touch()

    assert terminal.wait() == 130
    assert "TASK" in terminal.screen.everything()
    assert_calm(terminal)
    root.assert_nothing_left()


def test_a_mistake_that_is_found_late_leaves_the_terminal_as_it_was(
    root: PlanRoot, start: Start
) -> None:
    busy_plan(root)
    first = root.start()
    wait_until(lambda: "started" in root.log(), what="the start")
    terminal = start()

    assert terminal.wait() == 1
    assert "is already run by pid" in terminal.screen.text
    assert_calm(terminal)
    (root.work / "gate").touch()
    first.wait(60)


@pytest.mark.skipif(shutil.which("bash") is None, reason="job control is tried with bash")
def test_after_ctrl_z_and_fg_the_block_is_drawn_below_what_the_shell_said(
    root: PlanRoot, start: Start
) -> None:
    busy_plan(root)
    terminal = start(command=["bash", "--norc", "-i"], env={"PS1": "READY ", "HISTFILE": ""})
    terminal.wait_for(lambda s: "READY" in s.text, "the prompt")
    terminal.screen.unknown.clear()  # bash asks for bracketed paste
    command = root.path / "command"
    command.write_text("exec " + " ".join(root.command()) + "\n")
    terminal.type(f"sh {command}\n")
    terminal.wait_for(is_busy, "the block")

    terminal.type("\x1a")
    terminal.wait_for(lambda s: s.text.rstrip().endswith("READY"), "the prompt after Ctrl-Z")
    assert "Stopped" in terminal.screen.text
    terminal.type("fg\n")
    terminal.wait_for(lambda s: shows_busy(below(s, "fg")), "a new block below what the shell said")
    assert len(re.findall(r"\d/6 done", below(terminal.screen, "fg"))) == 1
    assert "Stopped" in terminal.screen.everything()

    (root.work / "gate").touch()
    terminal.wait_for(lambda s: s.text.rstrip().endswith("READY"), "the end")
    terminal.type("exit\n")
    terminal.wait()
    assert terminal.screen.cursor_shown
    assert terminal.screen.wrapping


def below(screen: Screen, word: str) -> str:
    """What stands below the last line that ends in a word."""
    lines = screen.everything().split("\n")
    places = [number for number, line in enumerate(lines) if line.endswith(word)]
    return "\n".join(lines[places[-1] + 1 :]) if places else ""


def test_in_the_background_it_leaves_the_line_of_the_shell_alone(
    root: PlanRoot, start: Start
) -> None:
    busy_plan(root)
    terminal = start(command=["bash", "--norc", "-i"], env={"PS1": "READY ", "HISTFILE": ""})
    terminal.wait_for(lambda s: "READY" in s.text, "the prompt")
    terminal.screen.unknown.clear()
    command = root.path / "command"
    command.write_text("exec " + " ".join(root.command()) + "\n")
    terminal.type(f"stty tostop; sh {command} &\n")

    wait_until(lambda: "again (shell, attempt 3)" in root.log(), what="some time without a stop")
    (root.work / "gate").touch()
    wait_until(lambda: "4 done, 1 failed" in root.log(), seconds=60, what="its end")
    terminal.wait_for(lambda s: "TASK" in s.everything(), "the summary")
    assert b"2 running" not in terminal.raw
    terminal.type("exit\n")
    terminal.wait()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_in_tmux_it_follows_the_size_of_the_pane(root: PlanRoot) -> None:
    busy_plan(root)
    tmux = Tmux(root)
    try:
        tmux.run("new-session", "-d", "-x", "80", "-y", "24", *root.command())
        tmux.wait_for_block(
            80, r"^odd +shell .* idle .*你好(.*\n)+\[#.*\] 1/6 done, 2 running, 1 f"
        )
        tmux.resize(40, 12)
        tmux.wait_for_block(40, r"^odd +\d+s  你好(.*\n)+1/6 done, 2 running, 1 failed, 1 blo")
        tmux.resize(20, 5)
        tmux.wait_for_block(20, r"^odd +\d+s(.*\n)+1/6 done, 2 running$")
        tmux.resize(100, 30)
        tmux.wait_for_block(100, r"^odd +shell .* idle .*你好(.*\n)+\[#.*\] 1/6 done.* 1 blocked")
        (root.work / "gate").touch()
        wait_until(lambda: "4 done, 1 failed" in root.log(), seconds=60, what="the end")
    finally:
        tmux.close()


class Tmux:
    """A tmux server of this test's own."""

    def __init__(self, root: PlanRoot) -> None:
        self._socket = str(root.path / "tmux")
        self._env = root.environment({"LC_ALL": "C.UTF-8"})
        self._env.pop("TMUX", None)

    def run(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, "-f", os.devnull, "-u", *words],
            env=self._env,
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=30,
        )
        return done.stdout

    def screen(self) -> str:
        return self.run("capture-pane", "-p")

    def resize(self, columns: int, rows: int) -> None:
        self.run("resize-window", "-x", str(columns), "-y", str(rows))

    def wait_for_block(self, columns: int, pattern: str) -> None:
        """Wait until the pane shows that, and one block only, no line of which is broken."""

        def is_so() -> bool:
            text = self.screen().rstrip()
            lines = text.split("\n")
            own = [line for line in lines if re.match(r"(odd|other)\S* ", line)]
            return (
                re.search(pattern, text, re.MULTILINE) is not None
                and len(re.findall(r"\d/6 done", text)) == 1
                and "/6 done" in lines[-1]
                and len(own) == 2
                and all(width(line) < columns for line in own)
            )

        try:
            wait_until(is_so, what="the block in the pane")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen()}") from None

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True)


def test_attach_is_the_same_view_from_another_process(root: PlanRoot, start: Start) -> None:
    busy_plan(root)
    plan = root.start()
    wait_until(lambda: "succeeded quick" in root.log(), what="the start")

    terminal = start("--attach")
    terminal.wait_for(is_busy, "the block")
    assert_tidy(terminal.screen)
    assert "started   odd (shell)" in terminal.screen.text
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert "the plan goes on without being watched" in terminal.screen.text
    assert_calm(terminal)

    again = start("--attach")
    again.wait_for(is_busy, "the block")
    (root.work / "gate").touch()
    assert again.wait() == plan.wait(60) == 1
    assert "TASK" in again.screen.everything()
    assert_calm(again)
