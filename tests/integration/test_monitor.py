"""The monitor on real terminals, with real plans and agents: what it shows, its keys, its ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib import bus, runs
from lib.monitor.painter import ENTER
from lib.textual import width
from tests.agent_runs import Place
from tests.helpers import PYTHON, ROOT, wait_until
from tests.plan_root import PlanRoot, sh
from tests.plan_terminals import SECRET, UNTIL_GATE, WIDE, Start, busy_tasks, terminals
from tests.screen import Screen, Terminal
from tests.task_root import TaskRoot

MONITOR = [*PYTHON, str(ROOT / "bin" / "monitor")]
UNTIL_GATE_2 = UNTIL_GATE.replace("gate", "gate2")
KEYS_LINE = "h help  q quit"


@pytest.fixture
def start(root: PlanRoot) -> Iterator[Start]:
    """Starts the monitor for the root, or another command, in a terminal of its own."""
    with terminals(
        root, lambda *words: [*MONITOR, "--root", str(root.path), *map(str, words)]
    ) as start_one:
        yield start_one


def busy_plan(root: PlanRoot) -> subprocess.Popen[bytes]:
    """A plan at work: two agents, one of which says odd things; a failure; two that wait."""
    later = sh("later", "true", depends_on=["odd"])
    root.plan(*busy_tasks("echo too bad >&2; exit 3", later))
    plan = root.start()
    wait_until(
        lambda: all(
            word in root.log()
            for word in ("succeeded quick", "FAILED    broken", "failed    again")
        ),
        what="the plan at work",
    )
    transcript = root.run_folder("odd") / "transcript.md"
    wait_until(lambda: "你好" in transcript.read_text(), what="what odd says")
    return plan


def finish(root: PlanRoot, plan: subprocess.Popen[bytes]) -> None:
    (root.work / "gate").touch()
    assert plan.wait(60) == 1
    root.assert_nothing_left()


def is_busy(screen: Screen) -> bool:
    text = screen.text
    return (
        "p/broken failed" in text
        and re.search(r"p/odd +shell .*你好", text) is not None
        and "2 running" in text
        and screen.lines[-1].startswith(KEYS_LINE)
    )


def assert_tidy(screen: Screen) -> None:
    """Each list once, nothing too wide, the keys at the bottom, the cursor out of the way."""
    assert all(width(line) < screen.columns for line in screen.lines)
    titles = re.findall(r"^-- (\d) ", screen.text, re.MULTILINE)
    assert titles == sorted(set(titles))
    assert screen.lines[-1].startswith(KEYS_LINE[: screen.columns - 1])
    assert (screen.is_other, screen.cursor_shown, screen.wraps) == (True, False, 0)
    assert screen.unknown == []


def assert_restored(terminal: Terminal) -> None:
    """The terminal is as it was before."""
    screen = terminal.screen
    assert (screen.is_other, screen.marks_pastes) == (False, False)
    assert (screen.cursor_shown, screen.wrapping, screen.colour) == (True, True, "")
    assert terminal.current_settings() == terminal.settings
    assert screen.unknown == []


def quit_it(terminal: Terminal) -> None:
    terminal.type("q")
    assert terminal.wait() == 0
    assert_restored(terminal)
    assert terminal.screen.text.strip() == ""


# -- what is on the screen


def test_at_80_columns_problems_stand_first_and_everything_has_a_line(
    root: PlanRoot, start: Start
) -> None:
    plan = busy_plan(root)
    terminal = start()

    terminal.wait_for(is_busy, "the screen")
    wait_text = "p/again is tried again in "
    terminal.wait_for(lambda s: wait_text in s.text, "the task that waits")
    screen = terminal.screen
    assert_tidy(screen)
    titles = re.findall(r"^-- \d (\w+)", screen.text, re.MULTILINE)
    assert titles == ["Problems", "Runs", "Plans", "Messages"]
    assert re.search(
        r"^  p/broken failed \d+ s ago: agent exited with code 3: too bad",
        screen.text,
        re.MULTILINE,
    )
    assert re.search(r"^[> ] p/other-task +shell +\d+s  idle \d+s", screen.text, re.MULTILINE)
    assert re.search(
        r"^  p  \[###!!!+\.+\] 1/6 done, 2 running, 1 failed", screen.text, re.MULTILINE
    )
    assert "waits for odd, which is running" in screen.text
    assert re.search(r"^  \d\d:\d\d:\d\d RUN_START p/", screen.text, re.MULTILINE)
    assert SECRET not in terminal.raw.decode()
    assert "␛[RE" in screen.text  # "[REDACTED]", as far as there is room
    assert b"title" not in terminal.raw.replace(b"\xe2\x90\x9b", b"")
    failed = next(n for n, line in enumerate(screen.lines) if "p/broken failed" in line)
    assert "31" in screen.colours[failed] or screen.colours[failed] == ""

    quit_it(terminal)
    finish(root, plan)


@pytest.mark.parametrize("size", [(200, 60), (40, 12), (20, 5), (8, 2), (3, 1)])
def test_it_starts_and_ends_on_a_screen_of_any_size(
    root: PlanRoot, start: Start, size: tuple[int, int]
) -> None:
    columns, rows = size
    plan = busy_plan(root)
    terminal = start(columns=columns, rows=rows)

    end = KEYS_LINE[: columns - 1]
    terminal.wait_for(lambda s: s.lines[-1].startswith(end.rstrip()), "the keys")
    if columns >= 40:
        terminal.wait_for(lambda s: "你好" in s.text, "what odd says")
    if rows >= 5:
        assert_tidy(terminal.screen)
        assert "p/odd" in terminal.screen.text
    if rows == 60:
        assert terminal.screen.text.count("RUN_START") >= 5
        assert "which is running: shell, for" in terminal.screen.text

    quit_it(terminal)
    finish(root, plan)


def test_it_follows_the_size_of_the_terminal(root: PlanRoot, start: Start) -> None:
    plan = busy_plan(root)
    terminal = start()
    terminal.wait_for(is_busy, "the screen")

    terminal.resize(40, 10)
    terminal.wait_for(
        lambda s: s.lines[-1] == "h help  q quit  Enter read  s stop  f f" and "你好" in s.text,
        "fewer columns",
    )
    assert_tidy(terminal.screen)
    terminal.resize(200, 60)
    terminal.wait_for(lambda s: is_busy(s) and "-- 4 Messages" in s.text, "more of both")
    assert_tidy(terminal.screen)
    terminal.resize(80, 24)
    terminal.wait_for(lambda s: is_busy(s) and "-- 3 Plans" in s.text, "as before")
    assert_tidy(terminal.screen)

    quit_it(terminal)
    finish(root, plan)


def test_it_shows_what_begins_and_what_ends(root: PlanRoot, start: Start) -> None:
    terminal = start()
    assert terminal.wait() == 1
    assert "no runs folder" in terminal.screen.text
    root.runs.mkdir()
    terminal = start()
    terminal.wait_for(lambda s: "0 running, 0 runs" in s.text, "an empty root")

    plan = busy_plan(root)
    terminal.wait_for(is_busy, "the plan")
    again = start("--interval", "1000d")
    again.wait_for(is_busy, "one look")
    quit_it(again)
    (root.work / "gate").touch()
    terminal.wait_for(lambda s: "0 running" in s.lines[0] and "5/6 done" in s.text, "its end")
    assert "ended 20" in terminal.screen.text
    assert plan.wait(60) == 1
    quit_it(terminal)
    root.assert_nothing_left()


# -- keys


def selected(screen: Screen) -> str:
    [line] = [line for line in screen.lines if line.startswith("> ")]
    return line


def test_keys_choose_a_list_and_a_line(root: PlanRoot, start: Start) -> None:
    plan = busy_plan(root)
    terminal = start()
    terminal.wait_for(is_busy, "the screen")

    before = selected(terminal.screen).split()[1]
    assert before in ("p/odd", "p/other-task")
    terminal.type("j")
    terminal.wait_for(lambda s: selected(s).split()[1] != before, "the next line")
    terminal.type("\x1b[A")
    terminal.wait_for(lambda s: selected(s).split()[1] == before, "the line before")
    terminal.type("\x1b[6~")
    terminal.wait_for(lambda s: selected(s).split()[1] not in ("p/odd", "p/other-task"), "further")
    terminal.type("g")
    terminal.wait_for(lambda s: selected(s).split()[1] == before, "the first")
    terminal.type("1")
    terminal.wait_for(lambda s: re.match(r"> p/(again|broken) ", selected(s)), "problems")
    terminal.type("\t\t")
    terminal.wait_for(lambda s: selected(s).startswith("> p  ["), "plans")
    assert re.search(r"^    p/later waits for odd", terminal.screen.text, re.MULTILINE)
    terminal.type("4")
    terminal.wait_for(lambda s: re.match(r"> \d\d:\d\d:\d\d ", selected(s)), "messages")

    quit_it(terminal)
    finish(root, plan)


def test_a_filter_leaves_what_holds_a_text(root: PlanRoot, start: Start) -> None:
    plan = busy_plan(root)
    terminal = start()
    terminal.wait_for(is_busy, "the screen")

    terminal.type("fother-tx\x7fask")
    terminal.wait_for(lambda s: s.lines[-1] == "filter: other-task_", "what is typed")
    terminal.type("\n")
    terminal.wait_for(lambda s: "p/odd" not in s.text and "p/other-task" in s.text, "one run")
    assert terminal.screen.lines[-1].startswith("filter: other-task (Esc: none)")
    terminal.type("\x1b")
    terminal.wait_for(is_busy, "everything")

    quit_it(terminal)
    finish(root, plan)


def test_help_names_the_keys(root: PlanRoot, start: Start) -> None:
    root.runs.mkdir()
    terminal = start()
    terminal.wait_for(lambda s: KEYS_LINE in s.text, "the screen")

    terminal.type("h")
    terminal.wait_for(lambda s: "stop the selected run" in s.text and "reset" in s.text, "the help")
    terminal.type("q")
    terminal.wait_for(lambda s: "-- 2 Runs" in s.text, "the lists again")
    terminal.type("?")
    terminal.wait_for(lambda s: "stop the selected run" in s.text, "the help")
    terminal.type("\x1b")
    terminal.wait_for(lambda s: "-- 2 Runs" in s.text, "the lists again")
    quit_it(terminal)


def test_a_transcript_is_read_followed_and_searched(root: PlanRoot, start: Start) -> None:
    root.plan(
        sh(
            "talk",
            f"seq -f 'line %g' 300; echo '{WIDE}'; {UNTIL_GATE}; echo the last; {UNTIL_GATE_2}",
        )
    )
    plan = root.start()
    wait_until(root.runs.exists, what="the runs folder")
    terminal = start()
    terminal.wait_for(lambda s: re.search("p/talk .*你好", s.text), "the run")

    terminal.type("\n")
    terminal.wait_for(lambda s: "following" in s.lines[0] and "line 300" in s.text, "its end")
    assert "transcript.md  running" in terminal.screen.lines[0]
    terminal.type("g")
    terminal.wait_for(lambda s: s.lines[1] == "line 1", "its beginning")
    terminal.type(" ")
    terminal.wait_for(lambda s: s.lines[1] == "line 22", "a page further")
    terminal.type("/LINE 15\n")
    terminal.wait_for(lambda s: s.lines[1] == "line 150", "what was searched")
    assert terminal.screen.colours[1] == "33"
    terminal.type("n")
    terminal.wait_for(lambda s: s.lines[1] == "line 151", "the next")
    terminal.type("NN")
    terminal.wait_for(lambda s: s.lines[1] == "line 15", "the one before, and before that")
    terminal.type("/nowhere\n")
    terminal.wait_for(lambda s: s.lines[-1] == "nothing found: nowhere", "that it is not there")
    terminal.type("G")
    terminal.wait_for(lambda s: "line 300" in s.text, "the end")
    (root.work / "gate").touch()
    terminal.wait_for(lambda s: "the last" in s.text, "what came")
    terminal.type("\t")
    terminal.wait_for(lambda s: "agent-stderr.txt" in s.lines[0], "another file")
    terminal.resize(40, 12)
    terminal.wait_for(lambda s: s.lines[-1].startswith("Esc back"), "a smaller screen")
    (root.work / "gate2").touch()
    assert plan.wait(60) == 0
    terminal.type("\x1b")
    terminal.wait_for(lambda s: "1 ended" in s.text, "the lists")
    quit_it(terminal)


def test_a_message_is_read_whole(root: PlanRoot, start: Start) -> None:
    root.runs.mkdir()
    body = f"first\n\n{WIDE} \x1b[2J {SECRET}\nlast line"
    bus.append(str(root.bus), body=body, type_="DECISION", project="p", task="t")
    terminal = start()
    terminal.wait_for(lambda s: "DECISION p/t: first" in s.text, "the message")

    terminal.type("4\n")
    terminal.wait_for(lambda s: "last line" in s.text and "你好" in s.text, "all of it")
    assert "[REDACTED]" in terminal.screen.text
    assert SECRET not in terminal.raw.decode()
    terminal.type("q")
    terminal.wait_for(lambda s: "-- 2 Runs" in s.text, "the lists again")
    quit_it(terminal)


def test_a_run_is_stopped_after_a_question_only(place: Place, start: Start) -> None:
    live = place.start("shell", ".", place.script("echo at work; sleep 600"), "--task", "slow")
    terminal = start("--root", place.root)
    terminal.wait_for(lambda s: re.search("slow +shell", s.text), "the run")

    terminal.type("s")
    terminal.wait_for(
        lambda s: s.lines[-1].startswith("stop work/slow (shell, run_"), "the question"
    )
    terminal.type("n")
    terminal.wait_for(lambda s: s.lines[-1] == "not stopped", "the answer")
    terminal.type("\x1b[200~sy\x1b[201~")
    terminal.wait_for(lambda s: "pasted" in s.lines[-1], "that a paste presses nothing")
    assert live.process.poll() is None

    terminal.type("sy")
    terminal.wait_for(lambda s: s.lines[-1] == f"stopped {live.run_id}", "that it was stopped")
    terminal.wait_for(lambda s: "0 running, 1 ended" in s.text, "its end")
    code, _, _ = live.end()
    assert code == 128 + signal.SIGTERM
    assert live.run.text("status") == runs.FAILED
    terminal.type("s")
    terminal.wait_for(lambda s: s.lines[-1] == f"{live.run_id} has ended already", "no question")
    quit_it(terminal)


def test_stopping_a_run_ends_its_loop(tasks_root: TaskRoot) -> None:
    tasks_root.agent("echo round and round; sleep 600")
    loop = tasks_root.begin()
    wait_until(tasks_root.runs.exists, what="the runs folder")
    words = [*MONITOR, "--root", str(tasks_root.path)]
    env = tasks_root.environment({"TERM": "xterm"})
    terminal = Terminal(words, cwd=tasks_root.path, env=env)
    try:
        terminal.wait_for(lambda s: re.search("p/t +fake .*round and round", s.text), "the run")
        terminal.type("sy")
        terminal.wait_for(lambda s: "0 running, 1 runs" in s.text, "its end")
        assert loop.wait(60) == 130
        quit_it(terminal)
    finally:
        terminal.close()
    assert tasks_root.loop_record["state"] == "stopped"
    tasks_root.assert_settled()


# -- ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was(
    root: PlanRoot, start: Start, number: signal.Signals
) -> None:
    root.runs.mkdir()
    terminal = start()
    terminal.wait_for(lambda s: KEYS_LINE in s.text, "the screen")

    terminal.process.send_signal(number)

    assert terminal.wait() == 128 + number
    assert_restored(terminal)


def test_ctrl_c_ends_it_and_leaves_the_terminal_as_it_was(root: PlanRoot, start: Start) -> None:
    root.runs.mkdir()
    terminal = start()
    terminal.wait_for(lambda s: KEYS_LINE in s.text, "the screen")

    terminal.type("\x03")

    assert terminal.wait() == -signal.SIGINT
    assert_restored(terminal)


def test_a_bug_is_told_on_a_terminal_as_it_was(root: PlanRoot, start: Start) -> None:
    root.runs.mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from lib.commands import monitor\n"
        "from lib.monitor import frame\n"
        "real = frame.lines\n"
        "def lines(app, columns, rows):\n"
        "    if app.pager: raise ValueError('oh no')\n"
        "    return real(app, columns, rows)\n"
        "frame.lines = lines\n"
        "sys.argv[1:] = ['--root', '.']\n"
        "monitor.main()\n"
    )
    terminal = start(command=[*PYTHON, "-c", code])
    terminal.wait_for(lambda s: KEYS_LINE in s.text, "the screen")

    terminal.type("h")

    assert terminal.wait() == 70
    assert "monitor: bug: ValueError: oh no" in terminal.screen.text
    assert_restored(terminal)


def test_a_closed_terminal_ends_it(root: PlanRoot, start: Start) -> None:
    root.runs.mkdir()
    terminal = start()
    terminal.wait_for(lambda s: KEYS_LINE in s.text, "the screen")

    os.close(terminal.master)
    os.close(terminal._slave)

    assert terminal.process.wait(30) == 128 + signal.SIGHUP
    terminal.master = terminal._slave = -1


def is_cooked(terminal: Terminal) -> bool:
    settings = terminal.current_settings()
    assert isinstance(settings, list)
    return bool(settings[3] & termios.ICANON and settings[3] & termios.ECHO)


@pytest.fixture
def shell(root: PlanRoot, start: Start) -> Terminal:
    """An interactive shell in a terminal, with the monitor in front."""
    root.runs.mkdir()
    terminal = start(command=["sh", "-i"], env={"PS1": "ready> ", "ENV": ""})
    terminal.wait_for(lambda s: "ready>" in s.text, "the shell")
    terminal.type(f"{' '.join(MONITOR)} --root .; echo code=$?\n")
    terminal.wait_for(lambda s: s.is_other and KEYS_LINE in s.text, "the screen")
    return terminal


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(shell: Terminal) -> None:
    assert not is_cooked(shell)
    shell.type("\x1a")
    shell.wait_for(lambda s: not s.is_other and s.lines[-1] != KEYS_LINE, "the shell")
    wait_until(lambda: is_cooked(shell), what="the modes of the shell")
    assert (shell.screen.cursor_shown, shell.screen.marks_pastes) == (True, False)
    shell.type("echo in''between\n")
    shell.wait_for(lambda s: "inbetween" in s.text, "what the shell does")

    shell.type("fg\n")
    shell.wait_for(lambda s: s.is_other and "0 running, 0 runs" in s.text, "the screen again")
    assert "inbetween" not in shell.screen.text
    shell.type("q")
    shell.wait_for(lambda s: not s.is_other and "ready>" in s.text, "the shell")
    wait_until(lambda: is_cooked(shell), what="the modes of the shell")
    shell.type("exit\n")
    shell.wait()


def test_while_it_is_stopped_it_can_be_ended(shell: Terminal, root: PlanRoot) -> None:
    def monitors() -> list[str]:
        return [words for words in root.processes().values() if "bin/monitor" in words]

    shell.type("\x1a")
    shell.wait_for(lambda s: not s.is_other and "code=" in s.text, "the shell")
    assert len(monitors()) == 1
    shell.type("kill %1; kill -CONT %1\n")
    wait_until(lambda: not monitors(), what="its end")
    shell.type("echo still''here\n")
    shell.wait_for(lambda s: "stillhere" in s.text, "the shell")
    assert is_cooked(shell)
    assert not shell.screen.is_other
    shell.type("exit\nexit\n")  # the first may say that there was a stopped job
    shell.wait()


def test_a_terminal_stopped_with_ctrl_s_holds_up_neither_keys_nor_the_end(
    root: PlanRoot, start: Start
) -> None:
    root.runs.mkdir()
    terminal = start()
    terminal.wait_for(lambda s: KEYS_LINE in s.text, "the screen")

    terminal.type("\x13")
    for number in range(50):
        bus.append(str(root.bus), body=f"message {number}", project="p")
    terminal.type("h4")
    terminal.read(0.3)
    assert "message 49" not in terminal.screen.text
    assert terminal.process.poll() is None
    terminal.type("\x11")
    terminal.wait_for(lambda s: "stop the selected run" in s.text, "what was pressed meanwhile")
    terminal.type("q")
    terminal.wait_for(lambda s: "message 49" in s.text, "what came meanwhile")
    terminal.type("\x13")
    terminal.type("q")
    assert terminal.wait() == 0
    assert_restored(terminal)


# -- without a terminal, and odd ones


def run_monitor(root: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    from tests.helpers import run_script

    return run_script("bin/monitor", "--root", root, *arguments, env=env)


def test_a_dumb_terminal_gets_the_lines_of_once(root: PlanRoot, start: Start) -> None:
    plan = busy_plan(root)
    terminal = start(env={"TERM": "dumb"})

    assert terminal.wait() == 0
    everything = terminal.screen.everything()
    assert "p/broken failed" in everything
    assert b"\x1b" not in terminal.raw
    finish(root, plan)


def test_without_colours_the_selected_line_is_still_marked(root: PlanRoot, start: Start) -> None:
    plan = busy_plan(root)
    terminal = start(env={"NO_COLOR": "1"})
    terminal.wait_for(is_busy, "the screen")

    assert selected(terminal.screen)
    assert b"\x1b[31m" not in terminal.raw
    assert b"\x1b[33m" not in terminal.raw
    assert ENTER.encode() in terminal.raw
    quit_it(terminal)
    finish(root, plan)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_in_tmux_it_follows_the_size_of_the_pane_and_ends_tidily(root: PlanRoot) -> None:
    plan = busy_plan(root)
    env = root.environment({"LC_ALL": "C.UTF-8"})
    env.pop("TMUX", None)
    words = ["tmux", "-S", str(root.path / "tmux"), "-f", os.devnull, "-u"]

    def tmux(*arguments: str) -> str:
        done = subprocess.run(
            [*words, *arguments], env=env, capture_output=True, encoding="utf-8", timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shows(pattern: str) -> Callable[[], object]:
        return lambda: re.search(pattern, tmux("capture-pane", "-p"), re.MULTILINE)

    try:
        tmux("new-session", "-d", "-x", "80", "-y", "24", "env", "PS1=ready> ", "sh", "-i")
        wait_until(shows("ready>"), what="the shell")
        tmux("send-keys", f"{' '.join(MONITOR)} --root {root.path}", "Enter")
        wait_until(shows(r"^[> ] p/odd +shell .* idle .*你好"), what="the screen")
        tmux("resize-window", "-x", "40", "-y", "12")
        wait_until(shows(r"^h help  q quit  Enter read  s stop  f f\n*\Z"), what="a smaller one")
        tmux("resize-window", "-x", "150", "-y", "40")
        wait_until(shows(r"^  p  \[###.*\n(.*\n)*-- 4 Messages"), what="a larger one")
        lines = tmux("capture-pane", "-p").split("\n")
        assert all(width(line) < 150 for line in lines)
        tmux("send-keys", "q")
        wait_until(shows(r"^ready> *\n*\Z"), what="the shell again")
        assert "Problems" not in tmux("capture-pane", "-p")
    finally:
        subprocess.run([*words, "kill-server"], env=env, capture_output=True)
    finish(root, plan)
