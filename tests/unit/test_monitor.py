"""The monitor without a terminal: keys, pages, lists, and what counts as a problem."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib import bus, files, ids, procs, runs, state, yamlio
from lib.index import Index
from lib.monitor import app as monitor_app
from lib.monitor import frame, keys, reader, text
from lib.monitor.app import App
from lib.monitor.facts import Observer
from lib.monitor.reader import Pager, RunReader
from lib.textual import width

SECRET = "ghp_" + "0123456789abcdef" * 2
WIDE = "你好 🎉 e\u0301"


class Fleet:
    """Run folders made by hand; live ones are held by this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = path / "runs"
        self.runs.mkdir(parents=True)
        self._locks: list[int] = []
        self.index = Index(str(self.runs))
        self.observer = Observer(self.index)

    def run(
        self, task: str, *, live: bool = False, status: str = runs.COMPLETED, age: float = 60,
        **keys: object,
    ) -> runs.Run:  # fmt: skip
        began = time.time() - age
        run = runs.Run(str(self.runs / f"{ids.run_name(began, 4711, task)}"), {})
        os.mkdir(run.path)
        is_open = live or status == runs.RUNNING
        run.record = {
            "run_id": run.run_id,
            "project_id": "p",
            "task_id": task,
            "agent": "shell",
            "start_time": ids.rfc3339(int(began * 1e9)),
            "end_time": ids.ZERO_TIME if is_open else ids.rfc3339(int((began + 5) * 1e9)),
            "exit_code": {runs.COMPLETED: 0, runs.FAILED: 3}.get(status, -1) if not live else -1,
            "status": runs.RUNNING if live else status,
            "supervisor_pid": os.getpid(),
            **procs.machine(),
            **keys,
        }
        self.write(run)
        self.say(run, "begin\n")
        if live:
            self._locks.append(runs.take_lock(run))
        return run

    def write(self, run: runs.Run) -> None:
        runs.write_record(run, durable=False)

    def say(self, run: runs.Run, said: str) -> None:
        for name in (runs.TRANSCRIPT, runs.STDOUT):
            with Path(run.file(name)).open("a") as file:
                file.write(said)

    def plan(self, *, is_run: bool = False, **tasks: state.TaskState) -> None:
        folder = self.runs / "p"
        folder.mkdir(exist_ok=True)
        plan = state.PlanState(str(self.runs), "p")
        plan.tasks = tasks
        plan.header = {"started": ids.rfc3339()}
        plan.replace()
        plan.close()
        if is_run:
            fd = files.open_lock(str(folder / state.LOCK_NAME))
            files.lock(fd, 1.0, "the plan")
            self._locks.append(fd)

    def kinds(self) -> list[tuple[str, str]]:
        return [(problem.kind, problem.task) for problem in self.observer.look().problems]

    def app(self) -> App:
        app = App(self.observer, str(self.runs))
        app.look()
        return app

    def close(self) -> None:
        for fd in self._locks:
            os.close(fd)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


def shown(app: App, columns: int = 80, rows: int = 24) -> str:
    return "\n".join(line for line, _ in frame.lines(app, columns, rows))


# -- keys


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"jk", ["j", "k"]),
        (b"\n\t\x7f", ["enter", "tab", "backspace"]),
        (b"\x1b[A\x1bOB\x1b[1;5C\x1b[Z", ["up", "down", "right", "backtab"]),
        (b"\x1b[5~\x1b[6;2~\x1b[H\x1bOF\x1b[4~", ["pageup", "pagedown", "home", "end", "end"]),
        ("é你".encode(), ["é", "你"]),
        (b"\x00\x01a\xffb", ["a", "\ufffd", "b"]),
        (b"\x1b[99;99X\x1bxq", ["q"]),
        (b"\x1b\x1b[A", ["escape", "up"]),
        (b"\x1b[200~sy\x1b[A\x1b[201~q", [keys.PASTE + "sy\x1b[A", "q"]),
    ],
)
def test_keys_come_out_of_bytes_however_they_are_cut(data: bytes, found: list[str]) -> None:
    assert keys.Decoder().feed(data) == found
    decoder = keys.Decoder()
    assert [key for byte in data for key in decoder.feed(bytes([byte]))] == found


def test_escape_alone_is_a_key_once_nothing_follows() -> None:
    decoder = keys.Decoder()
    assert decoder.feed(b"\x1b") == []
    assert decoder.is_waiting
    assert decoder.finish() == ["escape"]
    assert decoder.feed(b"[") == ["["]
    decoder.feed(b"\x1b[1")
    assert decoder.finish() == []
    assert decoder.feed(b"q") == ["q"]


def test_a_paste_that_never_ends_takes_no_memory() -> None:
    decoder = keys.Decoder()
    decoder.feed(b"\x1b[200~")
    for _ in range(100):
        assert decoder.feed(b"x" * 10_000) == []
    [key] = decoder.feed(b"\x1b[201~")
    assert len(key) < 5000


# -- pages


def page_of(pager: Pager) -> list[str]:
    return [row for row, _ in pager.rows()]


def test_long_lines_are_broken_to_the_screen_and_nothing_is_lost() -> None:
    pager = Pager("x")
    pager.fit(10, 5)
    lines = ["a" * 25, "", "你" * 12, "e\u0301" * 12, "\tx"]
    pager.add(lines)
    pager.fit(10, 50)
    assert all(width(row) <= 10 for row in page_of(pager))
    assert "".join(page_of(pager)) == "".join(lines).replace("\t", " " * 4)
    for columns in (1, 2, 3, 7):
        pager.fit(columns, 500)
        assert "".join(page_of(pager)) == "".join(lines).replace("\t", " " * 4)


def test_a_page_stays_where_one_reads_and_follows_only_when_asked() -> None:
    pager = Pager("x")
    pager.fit(20, 5)
    pager.add([str(number) for number in range(20)])
    assert page_of(pager) == ["0", "1", "2", "3", "4"]
    pager.end()
    pager.add(["20"])
    assert page_of(pager)[-1] == "20"
    pager.scroll(-1)
    pager.add(["21"])
    assert page_of(pager)[-1] == "19"
    pager.page(-1)
    assert page_of(pager) == ["11", "12", "13", "14", "15"]
    pager.fit(1, 5)  # each of two rows now
    assert page_of(pager) == ["1", "1", "1", "2", "1"]
    pager.home()
    assert pager.place().startswith("1-5 of ")


def test_searching_goes_round_and_marks_what_it_finds() -> None:
    pager = Pager("x")
    pager.fit(20, 3)
    pager.add([f"line {number}" for number in range(30)] + ["Needle", "end"])
    assert pager.search("LINE 1")
    assert pager.rows()[0] == ("line 1", True)
    assert pager.next_match(1)
    assert pager.rows()[0] == ("line 10", True)
    assert pager.next_match(-1)
    assert pager.next_match(-1)
    assert pager.rows()[0] == ("line 19", True)
    assert pager.search("needle")
    assert ("Needle", True) in pager.rows()
    assert pager.next_match(1)  # the only one
    assert ("Needle", True) in pager.rows()
    assert not pager.search("nowhere")


def test_of_a_long_file_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "KEPT_LINES", 100)
    pager = Pager("x")
    pager.fit(20, 5)
    pager.end()
    for start in range(0, 5000, 50):
        pager.add([str(number) for number in range(start, start + 50)])
        assert len(pager._lines) <= 126
        assert len(pager._rows) == len(pager._lines)
    assert page_of(pager) == ["4995", "4996", "4997", "4998", "4999"]
    assert pager.search("4990")
    assert page_of(pager)[0] == "4990"


def test_a_run_is_read_as_it_grows_to_its_unfinished_end(fleet: Fleet) -> None:
    run = fleet.run("talk", live=True)
    fleet.index.refresh()
    entry = fleet.index.runs[run.path]
    page = RunReader(entry)
    page.fit(80, 10)
    assert page_of(page) == ["begin"]
    fleet.say(run, f"one {SECRET}\n\x1b[2Jtwo")
    assert page.read()
    assert page_of(page) == ["begin", "one [REDACTED]"]
    assert not page.read()
    fleet.close()
    fleet._locks.clear()
    run.record.update(status=runs.COMPLETED, exit_code=0, end_time=ids.rfc3339())
    fleet.write(run)
    fleet.index.refresh()
    assert page.read()
    assert page_of(page) == ["begin", "one [REDACTED]", "\u241btwo"]
    page.turn(1)
    assert page.file_name == runs.STDERR
    assert page_of(page) == []


def test_what_grows_too_fast_is_read_at_its_end(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fleet.run("talk", live=True)
    fleet.index.refresh()
    page = RunReader(fleet.index.runs[run.path])
    page.fit(80, 4)
    monkeypatch.setattr(reader, "BEHIND_BYTES", 1000)
    fleet.say(run, "x" * 50 + "\n" + "y\n" * 200_000 + "end\n")
    assert page.read()
    assert page_of(page)[-1] == "end"
    assert reader.CUT_MARK in page._lines
    fleet.say(run, "and on\n")
    assert page.read()
    assert page_of(page)[-2:] == ["end", "and on"]


# -- the screen


@pytest.mark.parametrize("columns", [1, 5, 20, 40, 80, 200])
def test_every_size_of_screen_is_filled_and_not_more(fleet: Fleet, columns: int) -> None:
    for number in range(12):
        fleet.run(f"task-{number}-{WIDE[:2]}", live=number < 6, status=runs.FAILED)
    fleet.run("said", live=True)
    fleet.plan(is_run=True, a=state.TaskState(), b=state.TaskState())
    bus.append(str(fleet.path / "MESSAGE-BUS.md"), body=f"{WIDE}\x1b[2J\nmore", type_="INFO")
    app = fleet.app()
    for pressed in ("", "1", "3", "4", "h"):
        app.press(pressed)
        for rows in (1, 2, 3, 4, 5, 9, 12, 24, 60):
            lines = frame.lines(app, columns, rows)
            assert len(lines) == rows
            assert all(line.isprintable() for line, _ in lines)
            if rows >= 4 and pressed != "h":
                assert [style for _, style in lines].count("reverse") == 1, (rows, lines)


def test_the_list_with_the_focus_gets_the_room(fleet: Fleet) -> None:
    for number in range(40):
        fleet.run(f"bad-{number}", status=runs.FAILED, age=100 + number)
    app = fleet.app()
    assert shown(app).count(" failed ") < 30
    lists = frame.lines(app, 80, 24)
    app.press("1")
    problems = sum("agent" in line or "failed" in line for line, _ in frame.lines(app, 80, 24))
    assert problems > sum(" ago" in line for line, _ in lists)
    app.press("G")
    assert "> p/bad-39 failed" in shown(app)
    app.press("g")
    assert "> p/bad-0 failed" in shown(app)


def test_what_is_selected_stays_so_while_the_list_moves(fleet: Fleet) -> None:
    first = fleet.run("first", live=True, age=50)
    app = fleet.app()
    assert "> p/first" in shown(app)
    fleet.run("newer", live=True, age=30)
    app.look()
    assert "> p/newer" in shown(app)  # nobody has chosen a line yet
    app.press("j")
    assert "> p/first" in shown(app)
    fleet.run("second", live=True, age=10)
    app.look()
    assert "\n  p/second" in shown(app)
    assert "> p/first" in shown(app)
    app.press("s")
    assert app.stopping is not None
    assert app.question().startswith("stop p/first (shell, run_")
    assert app.press("y") == (monitor_app.STOP, first.path)
    app.press("s")
    assert app.press("n") is None
    assert app.stopping is None


@pytest.mark.parametrize("answer", ["n", "\n", "enter", "escape", "s", "q", keys.PASTE + "y"])
def test_anything_but_y_stops_nothing(fleet: Fleet, answer: str) -> None:
    fleet.run("first", live=True)
    app = fleet.app()
    app.press("s")
    assert app.press(answer) is None
    assert app.notice() == ("not stopped", "")


def test_names_of_runs_are_harmless_everywhere(fleet: Fleet) -> None:
    evil = f"a\x1b[2J\u202e{SECRET}"
    fleet.run("x", live=True, task_id=evil, project_id=evil, agent=evil)
    fleet.run("y", status=runs.FAILED, task_id=evil, agent=evil, error_summary=evil + "\nb")
    app = fleet.app()
    app.press("s")
    texts = [shown(app, 400, 50), app.question()]
    app.press("n")
    app.press("enter")
    texts += [shown(app, 400, 50)]
    texts += [line for line, _ in text.once(app.facts, evil, 0, text.WIDE)]
    for said in texts:
        assert SECRET not in said
        assert said.replace("\n", "").isprintable()


# -- problems


def test_a_failure_is_a_problem_until_the_task_runs_again(fleet: Fleet) -> None:
    fleet.run("a", status=runs.FAILED, age=90, error_summary="for a reason")
    assert fleet.kinds() == [("failed", "a")]
    [problem] = fleet.observer.look().problems
    assert problem.text == "p/a failed 85 s ago: for a reason"
    fleet.run("a", age=30)
    assert fleet.kinds() == []


def test_an_old_failure_is_none(fleet: Fleet) -> None:
    fleet.run("a", status=runs.FAILED, age=25 * 3600)
    assert fleet.kinds() == []


def test_a_run_that_a_person_stopped_is_none(fleet: Fleet) -> None:
    fleet.run("a", status=runs.FAILED, stopped=True, error_summary="stopped by SIGTERM")
    assert fleet.kinds() == []


def test_a_silent_agent_is_a_problem(fleet: Fleet) -> None:
    run = fleet.run("a", live=True, age=2000, silent_since=ids.rfc3339(time.time_ns() - 10**12))
    long_ago = time.time() - 1500
    for name in (runs.STDOUT, runs.TRANSCRIPT):
        os.utime(run.file(name), (long_ago, long_ago))
    assert fleet.kinds() == [("silent", "a")]


def test_what_another_machine_recorded_is_unknown(fleet: Fleet) -> None:
    fleet.run("a", status=runs.RUNNING, host="elsewhere")
    assert fleet.kinds() == [("unknown", "a")]


def test_an_unreadable_record_is_a_problem(fleet: Fleet) -> None:
    run = fleet.run("a")
    Path(run.file(runs.RECORD)).write_text("status: [")
    [(kind, _)] = fleet.kinds()
    assert kind == "unreadable"


def waiting(why: str, seconds: float) -> state.TaskState:
    entry = state.TaskState()
    entry.state, entry.why = state.WAITING, why
    entry.until = ids.rfc3339(time.time_ns() + int(seconds * 1e9))
    return entry


def test_many_tasks_that_wait_for_the_same_are_one_line(fleet: Fleet) -> None:
    fleet.plan(
        is_run=True, a=waiting("quota of x", 60), b=waiting("quota of x", 60), c=waiting("other", 9)
    )
    problems = fleet.observer.look().problems
    assert [(problem.kind, problem.task) for problem in problems] == [
        ("waiting", "a"), ("waiting", "c"),
    ]  # fmt: skip
    assert problems[0].text == "p/a and 1 more: is waiting: quota of x"


def test_a_plan_whose_process_is_gone_is_a_problem(fleet: Fleet) -> None:
    fleet.plan(a=state.TaskState())
    [problem] = fleet.observer.look().problems
    assert problem.kind == "plan stopped"
    assert "the process that ran it is gone; start it again" in problem.text


def test_what_a_running_plan_tries_again_is_none(fleet: Fleet) -> None:
    fleet.run("a", status=runs.FAILED)
    fleet.plan(is_run=True, a=state.TaskState())
    assert fleet.kinds() == []


def test_how_a_loop_stands_may_be_a_problem(fleet: Fleet) -> None:
    folder = fleet.runs / "p" / "task-1"
    folder.mkdir(parents=True)
    (folder / "TASK.md").write_text("do it")

    def note(where: str, **fields: object) -> None:
        record = {"version": 1, "state": where, **fields}
        files.replace_file(str(folder / "TASK-LOOP.yaml"), yamlio.dump(record).encode(), 0o600)

    def texts() -> list[str]:
        return [problem.text for problem in fleet.observer.look().problems]

    note("running")
    assert fleet.kinds() == [("loop gone", "task-1")]
    note("done")
    assert fleet.kinds() == []
    note("failed", why="restarts exhausted", ended=ids.rfc3339())
    assert texts() == ["p/task-1 failed 0 s ago: restarts exhausted"]
    fd = files.open_lock(str(folder / "LOOP.lock"))
    files.lock(fd, 1.0, "the loop")
    fleet._locks.append(fd)
    note("running")
    assert fleet.kinds() == []
    note("blocked", why="waits for task-0")
    assert texts() == ["p/task-1 is blocked: waits for task-0"]
    note("restarting", why="the last one failed", until=ids.rfc3339(time.time_ns() + 10**9))
    assert texts() == []
    note("restarting", why="quota", until=ids.rfc3339(time.time_ns() + 60 * 10**9))
    assert texts() == ["p/task-1 is restarting: quota"]


def test_one_project_or_task_can_be_looked_at_alone(fleet: Fleet) -> None:
    fleet.run("a", live=True)
    fleet.run("b", status=runs.FAILED, project_id="q")
    fleet.plan(a=state.TaskState())
    only: Callable[..., Observer] = lambda *names: Observer(Index(str(fleet.runs)), *names)  # noqa: E731
    assert [view.entry.task for view in only("p").look().live] == ["a"]
    assert [problem.kind for problem in only("p").look().problems] == ["plan stopped"]
    facts = only("q").look()
    assert (facts.live, [view.entry.task for view in facts.ended], facts.plans) == ([], ["b"], [])
    assert only("", "b").look().live == []


def test_a_look_at_what_rests_reads_no_file_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        fleet.run(f"task-{number}")
    live = fleet.run("live", live=True)
    app = fleet.app()
    old = time.time() - 10
    os.utime(fleet.runs, (old, old))
    app.look()
    app.look()
    opened: list[str] = []
    real = os.open

    def count(path: str, *arguments: int, **more: int) -> int:
        opened.append(os.path.basename(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", count)
    app.look()
    frame.lines(app, 80, 24)
    assert set(opened) <= {runs.LOCK}
    opened.clear()
    fleet.say(live, "news\n")
    opened.clear()
    app.look()
    assert "news" in shown(app)
    assert sorted(set(opened) - {runs.LOCK}) == [runs.TRANSCRIPT]
