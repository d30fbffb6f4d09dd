"""What a person sees of a plan: lines, their width, the time left, and how they reach a terminal."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pty
import select
import struct
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from lib import attach, estimate, events, files, frame, runs, state, view
from lib.activity import TAIL_BYTES, Watcher
from lib.events import Event
from lib.plan import Plan
from lib.printer import Line, Printer
from lib.textual import amount, cut, fit, shorten, spoken, width
from tests.screen import Screen
from tests.unit.test_board import plan_of
from tests.unit.test_why import Made, in_seconds, make

__all__ = ["make"]  # a fixture

WIDE = "你好"
FAMILY = "👨\u200d👩\u200d👧"
SECRET = "ghp_" + "0123456789abcdef" * 2

# -- text in columns


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("plain", 5),
        (WIDE, 4),
        ("e\u0301", 1),  # combining
        ("a\u200bb", 2),  # zero width
        ("🎉", 2),
        ("❤\ufe0f", 2),  # a narrow sign made an emoji
        ("\U0001f468\ufe0f", 2),
        ("ｶﾞ", 2),  # half width, with its mark
        ("한", 2),
        ("\u1112\u1161\u11ab", 2),  # the same, as vowels and consonants
        ("\u00ad", 1),
    ],
)
def test_the_columns_of_a_text_are_those_of_a_terminal(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize("text", ["x" * 9, WIDE * 3, f"a{FAMILY}b{WIDE}", "e\u0301" * 9])
def test_a_text_is_cut_and_filled_to_columns_and_never_longer(text: str) -> None:
    for columns in range(12):
        assert width(cut(text, columns)) <= columns
        assert width(shorten(text, columns)) <= columns
        assert width(fit(text, columns)) == columns
        assert text.startswith(cut(text, columns))
    assert shorten("abcdef", 4) == "abc…"
    assert shorten(WIDE, 3) == "你…"


def test_times_and_amounts_are_said_briefly() -> None:
    said = [spoken(seconds) for seconds in (-1, 0.9, 119, 120, 840, 7199, 7200, 12000, 200000)]
    assert said == [
        "0 s",
        "0 s",
        "119 s",
        "2 min",
        "14 min",
        "119 min",
        "2 h",
        "3 h 20 min",
        "2 days",
    ]
    assert [amount(n) for n in (0, 950, 12345, 123456, 4.5e6)] == [
        "0",
        "950",
        "12.3k",
        "123k",
        "4.5M",
    ]


# -- the time left


def left(plan: Plan, **options: object) -> float | None:
    """seconds_left with the seconds of done tasks as `done={task: seconds}`."""
    sample = estimate.Sample()
    done: Mapping[str, float] = options.pop("done", {})  # type: ignore[assignment]
    for task_id, seconds in done.items():
        sample.add(plan.tasks[task_id], seconds, seconds)
    given: dict[str, object] = {"sample": sample, "running": {}, "waiting": {}, "width": 16}
    given |= {"done": list(done), **options}
    return estimate.seconds_left(plan, **given)  # type: ignore[arg-type]


def tasks(*names: str) -> dict[str, list[str]]:
    return {name: [] for name in names}


def waiting(*names: str) -> dict[str, float]:
    return dict.fromkeys(names, 0.0)


def test_nothing_is_said_of_the_time_left_while_nothing_is_known() -> None:
    assert left(plan_of((True, tasks("a", "b"))), waiting=waiting("a", "b")) is None


def test_the_time_left_is_that_of_the_width() -> None:
    plan = plan_of((True, tasks(*"abcdefghi")))

    assert left(plan, done={"a": 10}, waiting=waiting(*"bcdefghi"), width=2) == 40
    assert left(plan, done={"a": 10}, waiting=waiting(*"bcdefghi"), width=16) == 10


def test_the_time_left_is_that_of_the_longest_chain() -> None:
    plan = plan_of((True, {"x": [], "a": [], "b": ["a"], "c": ["b"], "d": [], "e": []}))

    assert left(plan, done={"x": 10}, waiting=waiting(*"abcde")) == 30


def test_a_stage_is_waited_for_by_the_time_left() -> None:
    plan = plan_of(
        (True, tasks("x", "a")), (False, tasks("b")), (True, tasks("c")), (True, tasks("d"))
    )

    assert left(plan, done={"x": 10}, running={"a": 4}, waiting=waiting(*"bcd")) == 6 + 10 + 10


def test_tasks_that_differ_hold_one_another_up_by_the_longest() -> None:
    names = [f"t{number}" for number in range(40)]
    plan = plan_of((True, tasks("p", "q", "r", "s", *names)))
    seen = {"p": 10.0, "q": 10.0, "r": 10.0, "s": 100.0}

    assert left(plan, done=seen, waiting=waiting(*names), width=40) == 100
    half = left(plan, done=seen, waiting=waiting(*names), width=1)
    assert half is not None
    assert 0.8 < half / (40 * 32.5) < 1.2


def test_a_running_task_needs_what_those_needed_that_took_longer() -> None:
    plan = plan_of((True, tasks(*"abcd")))
    seen = {"a": 10.0, "b": 40.0, "c": 60.0}

    assert left(plan, done=seen, running={"d": 30.0}) == 20
    assert left(plan, done=seen, running={"d": 100.0}) == 25  # it outlasts all: a guess


def test_retries_and_back_off_are_part_of_the_time_left() -> None:
    plan = plan_of((True, tasks("a", "b")))
    sample = estimate.Sample()
    sample.add(plan.tasks["a"], 10, 25)

    assert left(plan, sample=sample, done={}, waiting={"b": 0.0}) == 25
    assert left(plan, sample=sample, done={}, waiting={"b": 60.0}) == 85


def test_a_task_that_waits_for_hours_holds_up_no_other_in_the_time_left() -> None:
    plan = plan_of((True, tasks(*"xabc")))

    assert left(plan, done={"x": 10}, waiting={"a": 3600.0, "b": 0.0, "c": 0.0}, width=1) == 3610


def test_a_kind_of_task_is_measured_by_its_like() -> None:
    plan = plan_of((True, tasks("a", "b", "c")))
    stage = plan.stages[0]
    other = dataclasses.replace(stage.tasks[1], agent="claude")
    plan = dataclasses.replace(
        plan, stages=(dataclasses.replace(stage, tasks=(stage.tasks[0], other, stage.tasks[2])),)
    )

    assert left(plan, done={"a": 1, "b": 500}, waiting=waiting("c")) == 1


def test_what_cannot_start_any_more_is_not_counted() -> None:
    plan = plan_of((True, {"a": [], "failed": [], "b": ["failed"], "c": []}), (True, tasks("d")))

    assert left(plan, done={"a": 10}, running={"c": 0.0}, waiting={}) == 10


def test_the_time_left_is_said_no_more_exactly_than_it_is_known() -> None:
    said = [estimate.in_words(s) for s in (0, 59, 61, 720, 1799, 5000, 9000, 86400, 300000)]
    assert said == [
        "less than a minute", "less than a minute", "about 1 min", "about 12 min",
        "about 30 min", "about 85 min", "about 2.5 h", "about 24 h", "about 3 days",
    ]  # fmt: skip


# -- the lines


def lines_of(made: Made, columns: int = 80, rows: int = 24) -> list[str]:
    return [
        cut(text, columns - 1) for text, _ in frame.Frame().lines(made.situation, columns, rows)
    ]


def busy(make: Callable[[Plan], Made]) -> Made:
    """Two run, one of them in silence; one failed, one is blocked, one waits, one is done."""
    names = {"alpha": [], "beta": [], "gone": [], "hurt": ["gone"], "later": [], "ok": []}
    made = make(plan_of((True, names), (True, tasks("end"))))
    folder = made.run(
        "alpha", age=200, silent=2, input_tokens=12345, output_tokens=678, cost_usd=0.25
    )
    (folder / runs.TRANSCRIPT).write_text(f"first\n{WIDE} {FAMILY} said\x1b[2J {SECRET}\n```\n\n")
    made.run("beta", age=1300, silent=840, idle_timeout=1800)
    made.put("gone", state.FAILED, "it broke")
    made.put("hurt", state.BLOCKED, "needs gone, which did not succeed")
    made.attempt("later", "failed")
    made.put("later", state.PENDING, "tried again after: it hurts", until=19.5)
    made.attempt("ok", "done", started=in_seconds(-130), ended=in_seconds(-10))
    made.put("ok", state.DONE)
    return made


def test_the_live_view_shows_problems_then_what_runs_then_a_bar(
    make: Callable[[Plan], Made],
) -> None:
    lines = lines_of(busy(make), 130)

    assert lines[:3] == [
        "gone failed: it broke",
        "beta has been silent for 14 min; its limit is 30 min",
        "later is tried again in 20 s, after: it hurts",
    ]
    assert lines[3].split() == ["beta", "claude", "21m40s", "idle", "14m00s"]
    alpha = ["alpha", "claude", "3m20s", "idle", "2s", "12.3k/678", "$0.25", WIDE, FAMILY]
    assert lines[4].split()[:10] == [*alpha, "said␛"]
    bar = "[##!!!!!!............] 1/7 done, 2 running, 1 failed, 1 blocked, about "
    assert lines[5].startswith(bar)
    assert lines[5].endswith(", $0.25+? spent")  # of the other attempts nobody knows
    assert SECRET not in "".join(lines)


@pytest.mark.parametrize(
    ("columns", "rows"), [(80, 24), (79, 5), (40, 12), (20, 5), (20, 3), (10, 2), (3, 1), (200, 60)]
)
def test_the_lines_fit_the_screen_whatever_its_size(
    make: Callable[[Plan], Made], columns: int, rows: int
) -> None:
    names = [f"task-{WIDE}-{number}" for number in range(30)]
    made = make(plan_of((True, tasks(*names))))
    for number, name in enumerate(names[:20]):
        made.run(name, age=1300, silent=840 * (number % 2), idle_timeout=1800)
    for name in names[20:]:
        made.put(name, state.FAILED, f"{WIDE} " * 50)

    found = frame.Frame().lines(made.situation, columns, rows)

    assert len(found) <= max(0, rows - 1)
    assert all("\n" not in text and "\t" not in text for text, _ in found)
    if rows >= 5:
        joined = "\n".join(text for text, _ in found)
        assert "0/30 done, 20 running, 10 failed" in joined
        assert "failed: " in joined
        assert "\ntask-" in joined  # at least one that runs
        assert ("… and " in joined) is (rows < 60)


def test_what_is_verified_or_has_ended_says_so(make: Callable[[Plan], Made]) -> None:
    made = make(plan_of((True, tasks("a", "b"))))
    made.run("a", held=False, status="completed")
    made.put("a", state.VERIFYING)
    made.run("b", held=False, status="failed")

    assert [line.split()[3:] for line in lines_of(made)[:2]] == [
        ["is", "being", "verified"],
        ["has", "ended"],
    ]


def test_why_nothing_new_starts_stands_on_top(make: Callable[[Plan], Made]) -> None:
    made = busy(make)
    made.header["closing"] = "nothing new starts: gone failed; waiting for 2 running"
    made.header["held"] = "disk is short"

    lines = lines_of(made)

    assert lines[:2] == ["nothing new starts: gone failed", "nothing new starts: disk is short"]
    assert not any(line.startswith("later") for line in lines)


def test_a_transcript_is_read_again_only_when_it_has_changed(
    make: Callable[[Plan], Made],
) -> None:
    made = make(plan_of((True, tasks("a"))))
    folder = made.run("a")
    path = folder / runs.TRANSCRIPT
    watcher = Watcher(str(made.runs_dir))
    attempt = made.tasks["a"].attempts[0]

    assert watcher.last_line(attempt) == ""
    path.write_text("one\n")
    assert watcher.last_line(attempt) == "one"
    path.write_text("one\ntwo\n")
    assert watcher.last_line(attempt) == "two"
    watcher.forget_all_but([])
    path.unlink()
    os.mkfifo(path)
    assert watcher.last_line(attempt) == ""  # and does not wait for a writer


def test_of_a_line_that_is_cut_by_the_window_nothing_is_shown(
    make: Callable[[Plan], Made],
) -> None:
    made = make(plan_of((True, tasks("a"))))
    folder = made.run("a")
    watcher = Watcher(str(made.runs_dir))
    attempt = made.tasks["a"].attempts[0]

    (folder / runs.TRANSCRIPT).write_text(SECRET + "x" * (TAIL_BYTES - 10))
    assert watcher.last_line(attempt) == ""
    (folder / runs.TRANSCRIPT).write_text(SECRET + "x" * (TAIL_BYTES - 20) + "\nwhole\n")
    assert watcher.last_line(attempt) == "whole"


# -- the way to the terminal


class Tty:
    """A pty without a process: what a Printer writes to it, and the screen that shows it."""

    def __init__(self, columns: int = 40, rows: int = 10) -> None:
        self.master, self.fd = pty.openpty()
        self.screen = Screen(columns, rows)
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(columns, rows)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> None:
        data = b""
        while select.select([self.master], [], [], 0)[0]:
            data += os.read(self.master, 65536)
        self.screen.feed(data.decode())

    def flush(self, printer: Printer) -> list[str]:
        """Have the printer write all it has, and return what the screen shows."""
        writer = threading.Thread(target=printer.flush)
        writer.start()
        while writer.is_alive():
            writer.join(0.01)
            self.read()
        self.read()
        return [line for line in self.screen.lines if line]

    def close(self) -> None:
        for fd in (self.master, self.fd):
            if fd >= 0:
                os.close(fd)
        self.master = -1


@pytest.fixture
def terminal() -> Iterator[Tty]:
    made = Tty()
    yield made
    made.close()


def plain(*texts: str) -> list[Line]:
    return [(text, "") for text in texts]


def test_a_block_is_rewritten_in_place_and_text_goes_above_it(terminal: Tty) -> None:
    printer = Printer(terminal.fd, live=True)

    printer.say("before")
    printer.show(plain("one", "two", "three"))
    assert terminal.flush(printer) == ["before", "one", "two", "three"]
    printer.show(plain("uno", "due"))
    assert terminal.flush(printer) == ["before", "uno", "due"]
    printer.say("news, and a line that is longer than the forty columns of this screen")
    shown = terminal.flush(printer)
    assert shown == [
        "before",
        "news, and a line that is longer than the",
        " forty columns of this screen",
        "uno",
        "due",
    ]
    printer.show([])
    assert terminal.flush(printer) == shown[:3]
    assert terminal.screen.unknown == []


def test_a_block_scrolls_with_the_text_above_it(terminal: Tty) -> None:
    printer = Printer(terminal.fd, live=True)
    for number in range(30):
        printer.say(f"line {number}")
        printer.show(plain("one", f"two {number}"))
        terminal.flush(printer)

    assert terminal.screen.lines == [*[f"line {n}" for n in range(23, 30)], "one", "two 29", ""]
    assert terminal.screen.history == [f"line {n}" for n in range(23)]


def test_no_line_wraps_whatever_is_in_it(terminal: Tty) -> None:
    printer = Printer(terminal.fd, live=True)
    texts = [
        "x" * 100,
        WIDE * 40,
        f"{FAMILY}" * 20,
        "e\u0301" * 60,
        "❤\ufe0f" * 30,
        "x" + WIDE * 40,
    ]

    printer.show(plain(*texts))
    shown = terminal.flush(printer)

    assert terminal.screen.wraps == 0
    assert len(shown) == len(texts)
    assert shown[1] == WIDE * 9 + "你"
    assert all(width(line) <= 39 for line in shown)


def test_the_modes_of_the_terminal_are_as_before_after_every_frame(terminal: Tty) -> None:
    printer = Printer(terminal.fd, live=True, colours=True)
    printer.say("alas", "red")
    printer.show([("bad", "red"), ("slow", "yellow"), ("fine", "")])
    terminal.flush(printer)

    screen = terminal.screen
    assert (screen.cursor_shown, screen.wrapping, screen.colour) == (True, True, "")
    assert [screen.colours[row] for row in range(4)] == ["31", "31", "33", ""]


def test_without_colours_there_are_none(terminal: Tty) -> None:
    printer = Printer(terminal.fd, live=True)
    printer.say("alas", "red")
    printer.show([("bad", "red")])
    assert terminal.flush(printer) == ["alas", "bad"]
    assert set(terminal.screen.colours.values()) == {""}


@pytest.mark.parametrize("size", [(20, 5), (15, 10), (80, 30), (39, 4)])
def test_after_a_resize_nothing_is_left_of_the_old_block(
    terminal: Tty, size: tuple[int, int]
) -> None:
    printer = Printer(terminal.fd, live=True)
    for number in range(6):
        printer.say(f"event {number}")
    printer.show(plain(*[f"{name} {'.' * 30} old" for name in "abc"]))
    terminal.flush(printer)

    terminal.resize(*size)
    printer.show(plain(*[f"{name} {'.' * 30} new" for name in "abc"]))
    shown = terminal.flush(printer)

    assert not any("old" in line for line in shown)
    assert [line[0] for line in shown[-3:]] == ["a", "b", "c"]
    assert all(line.startswith("event") for line in shown[:-3])
    assert terminal.screen.wraps == 0
    assert terminal.screen.unknown == []


def test_a_terminal_that_breaks_its_lines_anew_is_painted_anew(terminal: Tty) -> None:
    """As tmux and most others do it: the old block takes more rows than it was written with."""
    printer = Printer(terminal.fd, live=True)
    printer.say("event")
    printer.show(plain("a" * 35 + " old", "b" * 35 + " old"))
    terminal.flush(printer)
    terminal.resize(20, 10)
    terminal.screen.feed("\x1b[H\x1b[J" + "event\r\n" + ("x" * 20 + "\r\n" + "old\r\n") * 2)

    printer.show(plain("a new", "b new"))

    assert terminal.flush(printer) == ["event", "a new", "b new"]


def test_after_others_have_written_the_block_is_drawn_below(terminal: Tty) -> None:
    printer = Printer(terminal.fd, live=True)
    printer.show(plain("block"))
    terminal.flush(printer)
    os.write(terminal.fd, b"[1]+  Stopped\n$ fg\n")

    printer.lose()
    printer.show(plain("anew"))

    assert terminal.flush(printer) == ["block", "[1]+  Stopped", "$ fg", "anew"]


def test_a_terminal_that_takes_nothing_holds_up_nobody_and_loses_no_text(terminal: Tty) -> None:
    printer = Printer(terminal.fd, live=True)
    for number in range(1000):
        printer.say(f"event {number} {'x' * 30}")
        printer.show(plain(f"frame {number}"))
    assert printer.is_behind

    terminal.flush(printer)

    told = [line for line in [*terminal.screen.history, *terminal.screen.lines] if "event" in line]
    assert [int(line.split()[1]) for line in told] == list(range(1000))
    assert terminal.screen.lines[-2] == "frame 999"
    assert terminal.screen.unknown == []


def test_what_waits_for_a_stopped_terminal_is_bounded_and_the_gap_is_told(terminal: Tty) -> None:
    printer = Printer(terminal.fd)
    tty.setraw(terminal.fd)
    for _ in range(9):
        printer.say("x" * (1 << 20))
    writer = threading.Thread(target=printer.flush)
    writer.start()
    data = bytearray()
    while writer.is_alive() or select.select([terminal.master], [], [], 0)[0]:
        if select.select([terminal.master], [], [], 0.01)[0]:
            data += os.read(terminal.master, 65536)

    lines = data.decode().split("\n")
    gap = [line for line in lines if "not shown" in line]
    assert len(gap) == 1
    assert 4 <= len(lines) - 2 < 9  # 4 MiB, and what the thread took meanwhile
    assert int(gap[0].split()[1]) == 9 - (len(lines) - 2)


@pytest.mark.parametrize("how", ["pipe", "terminal"])
def test_a_display_that_is_gone_falls_silent(how: str) -> None:
    reader, writer = os.pipe() if how == "pipe" else pty.openpty()
    os.close(reader)
    printer = Printer(writer, live=how == "terminal")

    for number in range(100):
        printer.say(f"event {number}")
        printer.show(plain("block"))
    printer.flush()
    printer.say("more")
    printer.flush()

    assert os.fstat(writer).st_rdev == os.stat(os.devnull).st_rdev  # others may go on writing
    os.close(writer)


def test_a_pipe_that_somebody_made_non_blocking_gets_everything() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    printer = Printer(writer)
    printer.say("x" * 300_000)
    flusher = threading.Thread(target=printer.flush)
    flusher.start()
    taken = 0
    while taken < 300_001:
        taken += len(os.read(reader, 65536))
    flusher.join()
    assert taken == 300_001
    for fd in (reader, writer):
        os.close(fd)


# -- views


def read_all(fd: int) -> str:
    data = b""
    while part := os.read(fd, 65536):
        data += part
    os.close(fd)
    return data.decode()


def test_an_event_is_a_line_on_screen_and_a_dated_one_in_the_log(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    shown = view.View(str(tmp_path / "plan.log"), Printer(writer))
    event = Event(events.FAILED, f"FAILED a:\x1b[2J {SECRET}\nsecond", task="a")
    event.time = 1_800_000_000.7

    shown.event(event)
    shown.text("a table\n")
    shown.close()
    os.close(writer)

    line = "08:00:00 FAILED a:␛ [REDACTED] second"
    assert read_all(reader) == f"{line}\na table\n"
    assert (tmp_path / "plan.log").read_text() == f"2027-01-15 {line}\na table\n"


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    shown = view.View(str(tmp_path / "none" / "plan.log"), Printer(writer))
    shown.event(Event(events.NOTE, "hello"))
    shown.close()
    os.close(writer)
    assert read_all(reader).endswith(" hello\n")


def test_as_json_there_are_objects_and_nothing_else(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    shown = view.JsonView(str(tmp_path / "plan.log"), Printer(writer))
    shown.event(Event(events.STARTED, "started   a", task="a", agent="x\x9b\ud800\n", attempt=1))
    shown.text("a table\n")
    shown.close()
    os.close(writer)

    [line] = read_all(reader).split("\n")[:-1]
    assert json.loads(line)["event"] == "started"
    assert json.loads(line)["task"] == "a"
    assert line.isprintable()
    assert "started   a" in (tmp_path / "plan.log").read_text()


def test_a_view_without_a_log_writes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader, writer = os.pipe()
    shown = view.View("", Printer(writer))
    shown.event(Event(events.NOTE, "hello"))
    shown.close()
    os.close(writer)
    read_all(reader)
    assert list(tmp_path.iterdir()) == []


def test_every_event_kind_of_a_plan_is_documented() -> None:
    text = files.read_text(str(Path(__file__).parents[2] / "docs" / "events.md"))
    headings = {line.strip("# `") for line in text.split("\n") if line.startswith("### ")}
    assert headings == {*events.KINDS, attach.TASK, attach.PLAN}
