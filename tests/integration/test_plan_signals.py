"""A running plan under signals, closed and stalled terminals, and pipes that nobody reads."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.helpers import wait_until
from tests.plan_root import PlanRoot, Record, sh

WAIT = "while [ ! -e gate ]; do sleep 0.05; done"
RAN = 'echo "$JRUN_TASK_ID" >>ran'
STUBBORN = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 600' & sleep 600"
CTRL_C, CTRL_Q, CTRL_S, CTRL_Z = "\x03", "\x11", "\x13", "\x1a"


class Terminal:
    """A program on a terminal of its own, whose other end is read while a test waits."""

    def __init__(self, root: PlanRoot, command: list[str]) -> None:
        environment = root.environment({"TERM": "xterm", "COLUMNS": "80", "LINES": "24"})
        self.shown = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(root.path)
            os.execve(command[0], command, environment)
        os.set_blocking(self._fd, False)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def read(self) -> None:
        try:
            while part := os.read(self._fd, 65536):
                self.shown += part.decode(errors="replace")
        except OSError:  # nothing there now, or nobody has it open any more
            pass

    def wait(self, condition: Callable[[], object], what: str) -> None:
        def met() -> object:
            self.read()
            return condition()

        try:
            wait_until(met, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.shown}") from None

    def exit_code(self) -> int:
        """How the program ended, once it has."""
        status = [0, 0]

        def has_ended() -> bool:
            status[:] = os.waitpid(self.pid, os.WNOHANG)
            return status[0] != 0

        self.wait(has_ended, "the end of what runs in the terminal")
        self.pid = 0
        return os.waitstatus_to_exitcode(status[1])

    def close(self) -> None:
        """Hang up: SIGHUP, and then EIO for whoever writes."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def end(self) -> None:
        self.close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def open_terminal(root: PlanRoot) -> Iterator[Callable[[list[str]], Terminal]]:
    made: list[Terminal] = []

    def start(command: list[str]) -> Terminal:
        made.append(Terminal(root, command))
        return made[-1]

    yield start
    for terminal in made:
        terminal.end()


Opener = Callable[[list[str]], Terminal]


def beneath_a_shell(root: PlanRoot) -> list[str]:
    """The plan as one of two processes in the foreground; `pid` and `code` are left in the root."""
    script = 'trap : INT TERM; sh -c \'echo $$ >pid; exec "$@"\' sh "$@"; echo $? >code'
    return ["/bin/sh", "-c", script, "sh", *root.command()]


def code(root: PlanRoot) -> int:
    """What the plan ended with, once the shell above it has noted that."""
    path = root.path / "code"
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), what="the exit code")
    return int(path.read_text())


def printed(root: PlanRoot) -> str:
    return (root.path / "printed").read_text()


def log(root: PlanRoot) -> str:
    path = root.runs / "p" / "plan.log"
    return path.read_text() if path.exists() else ""


def process_state(pid: int) -> str:
    """The letter of its state in the process table: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_state(pid) == "T", what="the stop")


def records(root: PlanRoot) -> dict[str, Record]:
    """Every run's record by its task: from the run folders, not from the plan's state."""
    found = {}
    for path in root.runs.glob("run_*/run-info.yaml"):
        data: Record = yaml.safe_load(path.read_text())
        found[str(data["task_id"])] = data
    return found


# -- Ctrl-C and SIGTERM


def test_ctrl_c_once_lets_the_running_end_and_the_next_start_does_the_rest(
    root: PlanRoot, open_terminal: Opener
) -> None:
    root.plan(
        *[sh(name, f"{RAN}; {WAIT}; {RAN}") for name in ("a", "b")],
        sh("c", RAN, depends_on=["a"]),
        sh("d", RAN),
        max_parallel=2,
    )
    terminal = open_terminal(beneath_a_shell(root))
    terminal.wait(lambda: len(root.lines("ran")) == 2, "both agents")

    terminal.type(CTRL_C)
    terminal.wait(lambda: "waiting for 2 running" in terminal.shown, "its answer")
    (root.work / "gate").touch()
    terminal.exit_code()

    assert code(root) == 130
    assert root.states() == {"a": "done", "b": "done", "c": "pending", "d": "pending"}
    assert sorted(root.lines("ran")) == ["a", "a", "b", "b"]
    root.assert_nothing_left()
    assert root.run().returncode == 0
    assert sorted(root.lines("ran")) == ["a", "a", "b", "b", "c", "d"]


@pytest.mark.parametrize("how", ["keys", "signal"])
def test_asked_twice_it_stops_the_agents_with_all_below_them(
    root: PlanRoot, open_terminal: Opener, how: str
) -> None:
    task = f"{RAN}; [ -e again ] && exit 0; {STUBBORN}"
    root.plan(sh("a", task, retries=2), sh("b", task), sh("c", RAN), max_parallel=2)
    terminal = open_terminal(beneath_a_shell(root))
    terminal.wait(lambda: len(root.lines("ran")) == 2, "both agents")
    pid = int((root.path / "pid").read_text())

    for answer in ("waiting for 2 running", "stopping 2 running"):
        if how == "keys":
            terminal.type(CTRL_C)
        else:
            os.kill(pid, signal.SIGTERM)
        terminal.wait(lambda: answer in terminal.shown, answer)  # noqa: B023
    # A third time: the rest of the grace, 5 s here, is given up.
    os.kill(pid, signal.SIGINT)
    terminal.exit_code()

    assert code(root) == 130
    root.assert_nothing_left()
    assert root.states() == {"a": "pending", "b": "pending", "c": "pending"}
    assert not (root.path / "docs").exists()
    (root.work / "again").touch()
    assert root.run().returncode == 0
    assert sorted(root.lines("ran")) == ["a", "a", "b", "b", "c"]


def test_asked_a_third_time_the_agents_get_no_more_grace(root: PlanRoot) -> None:
    root.plan(sh("a", f"{RAN}; {STUBBORN}"))
    plan = root.start(env={"CONDUCTOR_STOP_GRACE": "600"})
    wait_until(lambda: root.lines("ran"), what="the agent")

    for answer in ("interrupted", "stopping 1 running", "stopping 1 running"):
        seen = printed(root).count(answer)
        plan.send_signal(signal.SIGINT)
        wait_until(lambda: printed(root).count(answer) > seen, what=answer)  # noqa: B023

    assert plan.wait(60) == 130
    root.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_anything_runs_ends_it_and_leaves_nothing_to_mend(
    root: PlanRoot, number: signal.Signals
) -> None:
    root.plan(sh("a", RAN), sh("b", RAN))
    fault = {"CONDUCTOR_FAULT": "stop:locked", "CONDUCTOR_FAULT_IN": "orchestrator"}
    plan = root.start(env=fault)
    wait_until(lambda: process_state(plan.pid) == "T", what="its first lock")

    plan.send_signal(number)
    plan.send_signal(signal.SIGCONT)

    assert plan.wait(60) in (130, 128 + number, -number)
    assert "Traceback" not in (root.path / "errors").read_text()
    assert root.lines("ran") == []
    assert root.run().returncode == 0
    assert sorted(root.lines("ran")) == ["a", "b"]
    root.assert_nothing_left()


def test_a_failure_after_the_interrupt_is_one_and_is_tried_again_by_the_next_start(
    root: PlanRoot,
) -> None:
    root.plan(sh("a", f"{RAN}; {WAIT}; [ -e mended ]"), sh("b", RAN), max_parallel=1)
    plan = root.start()
    wait_until(lambda: root.lines("ran"), what="the agent")
    plan.send_signal(signal.SIGINT)
    wait_until(lambda: "interrupted" in printed(root), what="its answer")
    (root.work / "gate").touch()

    assert plan.wait(60) == 130
    assert root.states() == {"a": "failed", "b": "pending"}
    (root.work / "mended").touch()
    assert root.run().returncode == 0
    assert root.lines("ran") == ["a", "a", "b"]


# -- SIGSTOP


def test_stopped_while_its_agents_end_it_goes_on_where_they_are(root: PlanRoot) -> None:
    root.plan(
        sh("a", f"{RAN}; {WAIT}", timeout=600, idle_timeout=600),
        sh("b", f"{RAN}; {WAIT}; exit 7", critical=False),
        sh("c", f"{RAN}; {WAIT}"),
        sh("d", RAN, depends_on=["a", "c"]),
    )
    plan = root.start()
    supervisors = [root.runs / f"{name}.pid" for name in "abc"]
    wait_until(lambda: len(root.lines("ran")) == 3, what="the agents")
    wait_until(lambda: all(path.exists() for path in supervisors), what="their supervisors")
    stop(plan.pid)
    os.kill(int((root.runs / "c.pid").read_text()), signal.SIGKILL)  # one loses its supervisor

    (root.work / "gate").touch()
    exit_code = root.runs / str(records(root)["c"]["run_id"]) / ".exit-code"
    wait_until(
        lambda: (
            [records(root)[name]["status"] for name in "ab"] == ["completed", "failed"]
            and exit_code.read_text().strip() == "0"
            and not supervisors[0].exists()
        ),
        what="the end of the agents",
    )
    assert process_state(plan.pid) == "T"
    plan.send_signal(signal.SIGCONT)

    assert plan.wait(60) == 1
    assert root.states() == {"a": "done", "b": "failed", "c": "done", "d": "done"}
    assert sorted(root.lines("ran")) == ["a", "b", "c", "d"]
    assert [len(root.attempts(name)) for name in "abcd"] == [1, 1, 1, 1]
    assert [root.attempts(name)[0]["exit_code"] for name in "abcd"] == [0, 7, 0, 0]
    assert len(root.bus_lines("ERROR ")) == 1
    root.assert_nothing_left()


def test_a_check_that_ended_in_time_is_no_timeout_however_late_it_is_looked_at(
    root: PlanRoot,
) -> None:
    check = f"echo x >>checks; {WAIT}; echo y >>checks"
    root.plan(sh("a", RAN, verify=[check], verify_timeout=2))
    plan = root.start()
    wait_until(lambda: root.lines("checks"), what="the check")
    late = time.monotonic() + 2.5
    stop(plan.pid)
    (root.work / "gate").touch()
    wait_until(lambda: len(root.lines("checks")) == 2, what="the end of the check")
    wait_until(lambda: time.monotonic() > late, what="the end of its time")
    plan.send_signal(signal.SIGCONT)

    assert plan.wait(60) == 0
    assert root.lines("checks") == ["x", "y"]
    assert root.lines("ran") == ["a"]


def test_a_stage_that_has_ended_cannot_run_out_of_time_any_more(root: PlanRoot) -> None:
    root.plan(
        stages=[
            {"id": "one", "timeout": 1, "tasks": [sh("a", RAN)]},
            {"id": "two", "tasks": [sh("b", f"{RAN}; {WAIT}")]},
        ]
    )
    plan = root.start()
    wait_until(lambda: root.lines("ran") == ["a", "b"], what="the second stage")
    late = time.monotonic() + 2  # longer than the first may take, and than it is looked at
    wait_until(lambda: time.monotonic() > late, what="the end of the first stage's time")
    (root.work / "gate").touch()

    assert plan.wait(60) == 0
    assert "run out" not in printed(root)
    assert "run out" not in root.bus.read_text()


def test_a_stopped_agent_is_a_silent_one_and_is_ended_with_all_below_it(root: PlanRoot) -> None:
    frozen = "setsid sh -c 'kill -STOP $$; sleep 600' & kill -STOP $$; sleep 600"
    root.plan(sh("a", f"{RAN}; [ -e again ] && exit 0; touch again; {frozen}", idle_timeout=1))

    # A stopped process takes no SIGTERM: with this grace it is not the SIGKILL that ends it.
    assert root.run(env={"CONDUCTOR_STOP_GRACE": "600"}).returncode == 1
    assert "silent for 1 s: idle timeout" in str(root.state()["a"]["why"])
    assert "silent for 1 s" in root.bus_lines("ERROR ")[0]
    root.assert_nothing_left()
    assert root.run().returncode == 0


def test_a_stopped_agent_that_goes_on_in_time_has_missed_nothing(root: PlanRoot) -> None:
    root.plan(sh("a", f"echo $$ >>ran; {WAIT}; exit 0", idle_timeout=600))
    plan = root.start()
    wait_until(lambda: root.lines("ran"), what="the agent")
    agent = int(root.lines("ran")[0])
    stop(agent)
    (root.work / "gate").touch()
    os.kill(agent, signal.SIGCONT)

    assert plan.wait(60) == 0
    assert len(root.attempts("a")) == 1


# -- Ctrl-Z


def interactive_shell(root: PlanRoot, open_terminal: Opener) -> Terminal:
    """A shell with job control, in which `sh plan.sh` runs the plan and leaves its pid in `pid`."""
    words = " ".join(f"'{word}'" for word in root.command())
    (root.path / "plan.sh").write_text(f"echo $$ >pid\nexec {words}\n")
    return open_terminal(["/bin/sh", "-i"])


@pytest.mark.parametrize("resume", ["fg", "bg"])
def test_ctrl_z_stops_the_plan_alone_and_the_shell_lets_it_go_on(
    root: PlanRoot, open_terminal: Opener, resume: str
) -> None:
    root.plan(sh("a", f"{RAN}; {WAIT}; {RAN}"), sh("b", RAN, depends_on=["a"]))
    terminal = interactive_shell(root, open_terminal)
    terminal.type("sh plan.sh\n")
    terminal.wait(lambda: root.lines("ran"), "the agent")
    pid = int((root.path / "pid").read_text())

    terminal.type(CTRL_Z)
    terminal.wait(lambda: process_state(pid) == "T", "the stop")
    (root.work / "gate").touch()
    terminal.wait(lambda: records(root)["a"]["status"] == "completed", "the end of the agent")
    assert root.lines("ran") == ["a", "a"]
    terminal.type(f"{resume}\n")
    terminal.wait(lambda: "2 done, 0 failed" in log(root), "the end of the plan")
    terminal.type("wait; echo $? >code; exit\n")
    terminal.exit_code()

    assert code(root) == 0
    assert root.lines("ran") == ["a", "a", "b"]
    assert "2 done, 0 failed" in terminal.shown
    root.assert_nothing_left()


def test_a_plan_that_was_stopped_survives_the_end_of_its_terminal(
    root: PlanRoot, open_terminal: Opener
) -> None:
    root.plan(sh("a", f"{RAN}; {WAIT}"), sh("b", RAN, depends_on=["a"]))
    terminal = interactive_shell(root, open_terminal)
    terminal.type("sh plan.sh\n")
    terminal.wait(lambda: root.lines("ran"), "the agent")
    pid = int((root.path / "pid").read_text())
    terminal.type(CTRL_Z)
    terminal.wait(lambda: process_state(pid) == "T", "the stop")

    terminal.close()  # the kernel sends SIGHUP and SIGCONT to what is stopped there
    (root.work / "gate").touch()

    wait_until(lambda: "2 done, 0 failed" in log(root), what="the end of the plan")
    root.assert_nothing_left()


# -- closed


def test_a_closed_terminal_ends_its_shell_and_the_plan_goes_on_and_logs_everything(
    root: PlanRoot, open_terminal: Opener
) -> None:
    root.plan(
        sh("a", f"{RAN}; {WAIT}"),
        sh("b", f"{RAN}; echo oh no >&2; exit 3", depends_on=["a"]),
        sh("c", RAN, depends_on=["a"]),
        defaults={"critical": False},
    )
    terminal = interactive_shell(root, open_terminal)
    terminal.type("sh plan.sh\n")
    terminal.wait(lambda: root.lines("ran"), "the agent")
    pid = int((root.path / "pid").read_text())

    terminal.close()
    wait_until(lambda: os.waitpid(terminal.pid, os.WNOHANG)[0], what="the end of the shell")
    terminal.pid = 0
    (root.work / "gate").touch()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the end of the plan")

    assert root.states() == {"a": "done", "b": "failed", "c": "done"}
    text = log(root)
    for event in ("started   a", "succeeded a", "started   b", "FAILED    b", "succeeded c"):
        assert event in text
    assert "2 done, 1 failed, 0 not run" in text
    root.assert_nothing_left()
    assert root.run().returncode == 1  # and it can be taken up, lock and all
    assert sorted(root.lines("ran")) == ["a", "b", "b", "c"]


def test_a_reader_that_leaves_after_one_line_leaves_the_plan_at_work(root: PlanRoot) -> None:
    root.plan(sh("a", f"{RAN}; {WAIT}"), *[sh(f"t{n}", RAN, depends_on=["a"]) for n in range(5)])
    words = " ".join(f"'{word}'" for word in root.command())
    pipe = subprocess.Popen(
        ["sh", "-c", f"{{ {words} 2>&1; echo $? >code; }} | head -n 1 >first; touch read"],
        cwd=root.path,
        env=root.environment(),
        stdin=subprocess.DEVNULL,
    )
    wait_until(lambda: root.lines("ran"), what="the agent")
    (root.work / "gate").touch()

    assert pipe.wait(60) == 0
    assert code(root) == 0
    assert (root.path / "first").read_text().count("\n") == 1
    assert sorted(root.lines("ran")) == ["a", "t0", "t1", "t2", "t3", "t4"]
    assert "6 done, 0 failed" in log(root)
    root.assert_nothing_left()


# -- stalled


def test_a_reader_that_does_not_read_holds_up_nothing(root: PlanRoot) -> None:
    names = [f"{'long-name-' * 6}{number}" for number in range(40)]
    root.plan(*[sh(name, RAN) for name in names])
    plan = subprocess.Popen(
        root.command(), env=root.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert plan.stdout is not None
    fcntl.fcntl(plan.stdout, fcntl.F_SETPIPE_SZ, 4096)  # far less than there is to tell

    try:
        wait_until(lambda: "40 done, 0 failed" in log(root), what="the end of the plan")
    finally:
        plan.communicate(timeout=60)  # now it is read
    assert plan.returncode == 0
    assert sorted(root.lines("ran")) == sorted(names)


def test_a_terminal_that_was_stopped_with_ctrl_s_holds_up_nothing(
    root: PlanRoot, open_terminal: Opener
) -> None:
    root.plan(sh("a", f"{RAN}; {WAIT}"), sh("b", RAN, depends_on=["a"]))
    terminal = open_terminal(beneath_a_shell(root))
    terminal.wait(lambda: root.lines("ran"), "the agent")

    terminal.type(CTRL_S)
    (root.work / "gate").touch()
    try:
        terminal.wait(lambda: "2 done, 0 failed" in log(root), "the end of the plan")
    finally:
        terminal.type(CTRL_Q)
        terminal.exit_code()  # now it is shown
    assert code(root) == 0
