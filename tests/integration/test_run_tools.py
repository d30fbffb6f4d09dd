"""list-runs, show-run and stop-run on real runs: trees of processes, killed supervisors, terminals."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import files, ids, procs, runs, yamlio
from tests.helpers import PYTHON, ROOT, clean_environment, run_script, wait_until

SAMPLE = ROOT / "tests" / "data" / "storage" / "go-storage-sample.tar.gz"
SECRET = "sk-ant-api03-abcdefghijklmnop"
LONG = 60  # seconds; nothing here takes so long
QUICK = {"CONDUCTOR_STOP_GRACE": "1"}
PATIENT = {"CONDUCTOR_STOP_GRACE": "30"}  # where a grace that ran out would be the failure

# Waits for the file `go`, then ends with the code in it.
WAITER = """
echo started
touch ready
while [ ! -s go ]; do sleep 0.02; done
echo ended
exit $(cat go)
"""
# A tree of everything that likes to survive: one that ignores SIGTERM, a tool
# in a session of its own, a daemon (orphaned, in a session of its own).
TREE = """
sh -c 'trap "" TERM; echo $$ >stubborn.pid; while :; do sleep 0.1; done' &
setsid sh -c 'echo $$ >session.pid; exec sleep 300' &
(setsid sh -c 'echo $$ >daemon.pid; exec sleep 300' >/dev/null 2>&1 &)
while [ ! -s stubborn.pid ] || [ ! -s session.pid ] || [ ! -s daemon.pid ]; do sleep 0.02; done
touch ready
wait
"""
TREE_PIDS = ("stubborn.pid", "session.pid", "daemon.pid")


class Started:
    """A run in the background: its supervisor, its folder, its agent's working folder."""

    def __init__(self, root: Path, name: str, script: str, env: dict[str, str]) -> None:
        self.cwd = root / "work" / name
        self.cwd.mkdir(parents=True)
        (self.cwd / "steps.md").write_text(f"```sh\n{script}\n```\n")
        self.supervisor = subprocess.Popen(
            [*PYTHON, str(ROOT / "run-agent.py"), "shell", str(self.cwd), str(self.cwd / "steps.md"),
             "--root", str(root), "--task", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment({**QUICK, **env}),
            text=True,
        )  # fmt: skip
        assert self.supervisor.stdout is not None
        self.run_id = self.supervisor.stdout.readline().strip().removeprefix("RUN_ID=")
        self.path = root / "runs" / self.run_id

    @property
    def record(self) -> runs.Run:
        return runs.read(str(self.path))

    def until_ready(self) -> Started:
        wait_until((self.cwd / "ready").exists, what=f"{self.run_id} is at work")
        # The agent is quicker than the record of its start times.
        wait_until(lambda: self.record.text("guard_start"), what="the agent is recorded")
        return self

    def let_end(self, code: int) -> None:
        files.replace_file(str(self.cwd / "go"), f"{code}\n".encode())

    def kill_supervisor(self) -> None:
        self.supervisor.kill()
        self.supervisor.wait()

    def wait(self) -> int:
        return self.supervisor.wait(timeout=LONG)

    def until_agent_ended(self) -> None:
        record = self.record
        wait_until(
            lambda: not runs.agent_lives(record) and not runs.guard_lives(record),
            what="agent and guard have ended",
        )

    def pid(self, name: str) -> int:
        return int((self.cwd / name).read_text())

    def clean_up(self) -> None:
        if self.supervisor.poll() is None:
            self.kill_supervisor()
        assert self.supervisor.stdout is not None
        self.supervisor.stdout.close()
        group = self.record.number("pgid")
        for process in procs.members(
            self.run_id, group if runs.guard_lives(self.record) else 0, ()
        ):
            procs.send(process, procs.SIGKILL)


class Box:
    """A root of its own, the runs started in it, and the tools applied to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._started: list[Started] = []

    def start(self, script: str, name: str = "job", env: dict[str, str] | None = None) -> Started:
        run = Started(self.root, name, script, env or {})
        self._started.append(run)
        return run

    def tool(
        self, name: str, *arguments: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return run_script(
            f"bin/{name}", *arguments, "--root", self.root, env={**QUICK, **(env or {})}
        )

    def listed(self, run_id: str) -> dict[str, object]:
        done = self.tool("list-runs", "--all", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        rows: list[dict[str, object]] = [json.loads(line) for line in done.stdout.splitlines()]
        return next(row for row in rows if row["run_id"] == run_id)

    def clean_up(self) -> None:
        for run in self._started:
            run.clean_up()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    box.clean_up()


def is_alive(pid: int) -> bool:
    return procs.is_alive(pid, "")


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Every file and folder with what a writer would change."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_mtime_ns, status.st_size, status.st_mode, status.st_ino)
    return found


def write_run(root: Path, name: str, **fields: object) -> Path:
    """A run that is recorded as running, with `fields` in its record, its lock and its mark."""
    path = root / "runs" / name
    path.mkdir(parents=True)
    record = {
        "run_id": name,
        "project_id": "demo",
        "task_id": "build",
        "agent": "shell",
        "start_time": runs.time_from_name(name),
        "end_time": ids.ZERO_TIME,
        "exit_code": -1,
        "status": "running",
        **procs.machine(),
        **fields,
    }
    (path / runs.RECORD).write_text(yamlio.dump(record))
    for empty in (runs.STDOUT, runs.STDERR, runs.LOCK):
        (path / empty).touch()
    if "pid" in fields:
        (path / runs.PID).write_text(f"{fields['pid']}\n")
    (root / "runs" / runs.ACTIVE).mkdir(exist_ok=True)
    (root / "runs" / runs.ACTIVE / name).touch()
    return path


# -- stop-run: nothing of the tree is left, nothing else is touched


@pytest.mark.parametrize("supervised", [True, False], ids=["supervisor alive", "supervisor killed"])
@pytest.mark.parametrize("portable", ["", "1"], ids=["native", "portable"])
def test_nothing_of_a_stopped_run_survives_and_a_lookalike_does(
    box: Box, supervised: bool, portable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_PORTABLE", portable)  # here too: start times are compared
    run = box.start(TREE, env={"CONDUCTOR_PORTABLE": portable}).until_ready()
    pids = [run.pid(name) for name in TREE_PIDS]
    lookalike = subprocess.Popen(
        ["sleep", "300"], env={**os.environ, "JRUN_ID": run.run_id + "1"}, start_new_session=True
    )
    try:
        if not supervised:
            run.kill_supervisor()
        assert all(map(is_alive, pids))

        done = box.tool("stop-run", run.run_id, env={"CONDUCTOR_PORTABLE": portable})

        assert (done.returncode, done.stdout) == (0, f"stopped {run.run_id}\n")
        assert [pid for pid in pids if is_alive(pid)] == []
        assert not runs.agent_lives(run.record)
        assert lookalike.poll() is None
    finally:
        lookalike.kill()
        lookalike.wait()
    record = run.record
    assert record.text("status") == "failed"
    assert record.text("error_summary").startswith("stopped by ")
    assert not (run.path / runs.LOCK).exists()
    bus = (box.root / "MESSAGE-BUS.md").read_text()
    assert [bus.count(f"type: {kind}\n") for kind in ("RUN_START", "RUN_CRASH")] == [1, 1]


def test_a_daemon_of_the_first_moment_does_not_outlive_its_run(box: Box) -> None:
    """It is orphaned before anybody could become the subreaper of its run, or soon after."""
    script = "(setsid sh -c 'echo $$ >daemon.pid; exec sleep 300' >/dev/null 2>&1 &)\n" + WAITER
    run = box.start(script).until_ready()
    wait_until(lambda: files.size(str(run.cwd / "daemon.pid")), what="the daemon lives")
    daemon = run.pid("daemon.pid")

    run.let_end(0)

    assert run.wait() == 0
    assert not is_alive(daemon)


def test_runs_are_stopped_side_by_side(box: Box) -> None:
    """Each ends only when it sees the other one stopped: one by one, the grace would run out."""
    script = """
    trap 'touch stopped; while [ ! -e ../OTHER/stopped ]; do sleep 0.02; done; exit 5' TERM
    touch ready
    while :; do sleep 0.02; done
    """
    for name, other in (("left", "right"), ("right", "left")):
        box.start(script.replace("OTHER", other), name, PATIENT)
    both = [run.until_ready() for run in box._started]

    done = box.tool("stop-run", "--all", env=PATIENT)

    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == sorted(f"stopped {run.run_id}" for run in both)
    assert [run.record.number("exit_code") for run in both] == [5, 5]


def test_an_ended_run_is_left_as_it_is(box: Box) -> None:
    run = box.start("echo hello")
    assert run.wait() == 0
    before = snapshot(box.root)

    done = box.tool("stop-run", run.run_id, run.run_id)

    assert (done.returncode, done.stdout) == (0, f"{run.run_id} had already ended\n")
    assert snapshot(box.root) == before


def test_an_unknown_run_stops_nothing(box: Box) -> None:
    run = box.start(WAITER).until_ready()

    done = box.tool("stop-run", run.run_id, "no-such-run")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("stop-run: no run 'no-such-run'")
    assert done.stderr.count("\n") == 1
    assert run.supervisor.poll() is None


def test_a_reused_pid_is_neither_alive_nor_signalled(box: Box) -> None:
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        fields = dict.fromkeys(("pid", "pgid", "supervisor_pid"), stranger.pid)
        starts = dict.fromkeys(("agent_start", "guard_start", "supervisor_start"), "1")
        name = "run_20260101-120000-1"
        write_run(box.root, name, **fields, **starts)

        listed = box.listed(name)
        assert (listed["status"], listed["exit_code"]) == ("failed", None)
        done = box.tool("stop-run", name)

        assert (done.returncode, done.stdout) == (0, f"{name} had already ended\n")
        assert stranger.poll() is None
        record = runs.read(str(box.root / "runs" / name))
        assert record.text("status") == "failed"
        assert "lost" in record.text("error_summary")
    finally:
        stranger.kill()
        stranger.wait()


def test_a_run_of_another_host_is_unknown_and_untouched(box: Box) -> None:
    name = "run_20260101-120000-1"
    write_run(box.root, name, host="elsewhere", pid=os.getpid(), supervisor_pid=os.getpid())
    before = snapshot(box.root)

    assert box.listed(name)["status"] == "unknown"
    done = box.tool("stop-run", name)
    of_all = box.tool("stop-run", "--all")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"stop-run: {name} cannot be stopped from here: ")
    assert (of_all.returncode, of_all.stdout) == (0, "")
    assert snapshot(box.root) == before


@pytest.mark.parametrize(
    "point", ["run-allocated", "run-recorded", "run-before-spawn", "run-spawned", "run-pid-known"]
)
def test_a_run_whose_supervisor_died_while_starting_can_be_stopped(box: Box, point: str) -> None:
    run = box.start(WAITER, env={"CONDUCTOR_FAULT": f"kill:{point}"})
    assert run.wait() == -signal.SIGKILL

    done = box.tool("stop-run", run.run_id)

    assert done.returncode == 0, done.stderr
    assert run.record.text("status") == "failed"
    assert procs.members(run.run_id, 0, ()) == []


@pytest.mark.parametrize("point", ["run-agent-ended", "run-output-written", "run-ended"])
def test_a_supervisor_that_dies_while_stopping_leaves_the_rest_to_stop_run(
    box: Box, point: str
) -> None:
    run = box.start(TREE, env={"CONDUCTOR_FAULT": f"kill:{point}"}).until_ready()
    pids = [run.pid(name) for name in TREE_PIDS]

    done = box.tool("stop-run", run.run_id)

    assert (done.returncode, done.stdout) == (0, f"stopped {run.run_id}\n")
    assert run.wait() == -signal.SIGKILL
    assert [pid for pid in pids if is_alive(pid)] == []
    assert run.record.text("status") == "failed"
    assert not (run.path / runs.LOCK).exists()
    assert (box.root / "MESSAGE-BUS.md").read_text().count("type: RUN_CRASH\n") == 1


def test_a_supervisor_that_is_not_ready_for_signals_yet_is_stopped_all_the_same(box: Box) -> None:
    run = box.start(WAITER, env={"CONDUCTOR_FAULT": "stop:run-recorded"})
    status = Path(f"/proc/{run.supervisor.pid}/status")
    if not status.exists():
        pytest.skip("only Linux tells of pending signals")
    wait_until(lambda: "T (stopped)" in status.read_text(), what="the supervisor stands still")

    stopped = box.tool("stop-run", run.run_id)  # which wakes whom it asks

    assert stopped.returncode == 0, stopped.stderr
    assert run.record.text("status") == "failed"
    assert procs.members(run.run_id, 0, ()) == []


def test_a_run_that_was_taken_over_is_stopped_by_its_new_supervisor(box: Box) -> None:
    run = box.start(WAITER).until_ready()
    run.kill_supervisor()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from lib import files, recovery, runs\n"
        "run = runs.read(sys.argv[2]); lock = files.open_lock(run.file(runs.LOCK))\n"
        "files.lock(lock, 5, 'run'); recovery.adopt(run, lock).run_to_end()\n"
    )
    adopter = subprocess.Popen(
        [*PYTHON, "-c", code, str(ROOT), str(run.path)], env=clean_environment(QUICK)
    )
    wait_until(
        lambda: run.record.number("supervisor_pid") == adopter.pid, what="the run is taken over"
    )

    done = box.tool("stop-run", run.run_id)

    assert (done.returncode, done.stdout) == (0, f"stopped {run.run_id}\n")
    assert adopter.wait(timeout=LONG) == 0
    assert run.record.text("error_summary") == "stopped by SIGTERM"


# -- list-runs: the true state, and nothing written


def test_the_true_state_is_told_from_start_to_end(box: Box) -> None:
    run = box.start(WAITER).until_ready()
    during = box.listed(run.run_id)
    assert (during["status"], during["alive_by"]) == ("running", "supervisor")
    assert during["exit_code"] is None

    run.let_end(3)
    assert run.wait() == 3

    after = box.listed(run.run_id)
    assert (after["status"], after["alive_by"], after["exit_code"]) == ("failed", "", 3)
    assert after["path"] == str(run.path)


@pytest.mark.parametrize(("code", "status"), [(0, "completed"), (7, "failed")])
def test_the_exit_code_outlives_the_supervisor(box: Box, code: int, status: str) -> None:
    run = box.start(WAITER).until_ready()
    run.kill_supervisor()

    table = box.tool("list-runs").stdout
    assert f"{run.run_id}  running*" in table
    assert table.splitlines()[-2].startswith("* its supervisor is gone")
    assert box.listed(run.run_id)["alive_by"] == "agent"

    run.let_end(code)
    run.until_agent_ended()
    listed = box.listed(run.run_id)

    assert (listed["status"], listed["exit_code"]) == (status, code)
    assert run.record.text("status") == "running"  # nobody has repaired it


def test_without_supervisor_and_guard_the_run_is_lost_but_not_running(box: Box) -> None:
    run = box.start(WAITER).until_ready()
    guard = procs.look_up(run.record.number("pgid"))
    run.kill_supervisor()
    assert guard is not None
    procs.send(guard, procs.SIGKILL)
    assert box.listed(run.run_id)["alive_by"] == "agent"

    run.let_end(0)
    run.until_agent_ended()
    listed = box.listed(run.run_id)

    assert (listed["status"], listed["exit_code"]) == ("failed", None)
    assert str(listed["reason"]).startswith("supervisor lost")


def test_looking_writes_nothing(box: Box) -> None:
    ended = box.start("echo hello", "ended")
    assert ended.wait() == 0
    orphaned = box.start(WAITER, "orphaned").until_ready()
    lost = box.start(WAITER, "lost").until_ready()
    quiet = box.start(WAITER, "quiet").until_ready()
    transcript = str(quiet.path / runs.TRANSCRIPT)
    wait_until(lambda: b"started" in files.read_tail(transcript, 100), what="it is quiet")
    for run in (orphaned, lost):
        run.kill_supervisor()
    lost.let_end(0)
    lost.until_agent_ended()
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(box.root / "runs", filter="data")
    legacy = box.root / "runs" / "run_20260101-120000-77"
    legacy.mkdir()
    (legacy / runs.CWD).write_text("RUN_ID=run_20260101-120000-77\nCWD=/src\nPID=77\n")
    before = snapshot(box.root)

    done = [box.tool("list-runs"), box.tool("list-runs", "--json", "--status", "failed")]
    done += [box.tool("show-run", run.run_id) for run in (ended, orphaned, lost, quiet)]
    done += [box.tool("show-run", legacy.name), box.tool("show-run", lost.run_id, "--follow")]

    assert [tool.returncode for tool in done] == [0] * len(done)
    assert snapshot(box.root) == before


def test_the_newest_come_first_and_the_rest_is_counted(box: Box) -> None:
    for n in range(55):
        write_run(box.root, f"run_20260101-1200{n:02d}-{n}", status="completed", exit_code=0)

    default = box.tool("list-runs")
    three = box.tool("list-runs", "-n3")

    assert len(default.stdout.splitlines()) == 52
    assert default.stdout.splitlines()[-1] == "50 runs: tokens unknown; cost unknown"
    ids_shown = [line.split()[0] for line in three.stdout.splitlines()]
    assert ids_shown[1:-1] == [f"run_20260101-1200{n}-{n}" for n in (54, 53, 52)]
    assert default.stderr == "list-runs: 5 older runs are not shown; -n 55 or --all shows them\n"
    assert len(box.tool("list-runs", "--all").stdout.splitlines()) == 57


@pytest.mark.parametrize("columns", [90, 170])
def test_a_terminal_gets_short_lines_with_every_reason_and_no_controls(
    box: Box, columns: int
) -> None:
    reason = f"\x1b]0;title\x07 {SECRET} " + "because " * 40
    name = "run_20260101-120000-1"
    write_run(box.root, name, status="failed", exit_code=1, error_summary=reason, task_id="a\rb")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    try:
        script = [sys.executable, "-S", "-E", str(ROOT / "bin/list-runs"), "--root", str(box.root)]
        subprocess.run(script, stdout=theirs, env=clean_environment(), check=True)
        shown = os.read(ours, 65536).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)
        os.close(theirs)

    header, *lines, _total = shown.removesuffix("\n").split("\n")
    assert (len(lines), header.split()[-1]) == ((2, "COST") if columns == 90 else (1, "REASON"))
    assert "because because" in lines[-1]
    assert (len(lines[-1]), lines[-1][-1]) == (columns, "…")
    assert "".join(lines).isprintable()
    in_a_pipe = box.tool("list-runs").stdout
    assert "because because" in in_a_pipe
    assert SECRET not in in_a_pipe
    assert in_a_pipe.replace("\n", "").isprintable()


# -- show-run


def test_a_run_is_shown_with_its_chain_and_what_it_wrote(box: Box) -> None:
    child = f'"{ROOT}/run-agent.py" shell . child.md --task child'
    run = box.start(f"echo out; echo 'token {SECRET}' >&2; {child} >/dev/null", "parent")
    (run.cwd / "child.md").write_text("```sh\nexit 0\n```\n")
    run.wait()

    text = box.tool("show-run", run.run_id).stdout
    facts = dict(line.split(maxsplit=1) for line in text.split("\n\n")[0].splitlines())

    assert facts["run"] == run.run_id
    assert facts["project/task"] == "parent/parent"
    assert facts["children"].endswith("-child")
    assert f"==> {run.path / runs.TRANSCRIPT} <==\nout\n" in text
    assert "token [REDACTED]\n" in text
    assert SECRET not in text
    shown_child = json.loads(box.tool("show-run", facts["children"], "--json").stdout)
    assert shown_child["parent_run_id"] == run.run_id


def test_one_file_is_shown_in_part_or_whole(box: Box) -> None:
    run = box.start("seq 1 100; printf 'no end \\033[31m'")
    run.wait()

    part = box.tool("show-run", "--file", "stdout", "-n", "2").stdout
    whole = box.tool("show-run", "--file", "stdout", "-n", "0").stdout
    record = box.tool("show-run", "--file", "record", "-n", "0").stdout

    assert part == "100\nno end \u241b\n"
    assert whole == "".join(f"{n}\n" for n in range(1, 101)) + "no end \u241b\n"
    assert yamlio.load_mapping(record, source="record")["run_id"] == run.run_id


class Following:
    """`show-run --follow` in the background, with what it has printed so far."""

    def __init__(self, box: Box, *arguments: str) -> None:
        self._output = box.root / "followed"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*PYTHON, str(ROOT / "bin/show-run"), "-f", *arguments, "--root", str(box.root)],
                stdout=output,
                stderr=subprocess.PIPE,
                env=clean_environment(),
                text=True,
            )

    @property
    def text(self) -> str:
        return self._output.read_text()

    def end(self) -> str:
        """Wait for its end; returns what it said on stderr."""
        try:
            return self.process.communicate(timeout=LONG)[1]
        finally:
            self.process.kill()
            self.process.wait()


@pytest.mark.parametrize(("code", "exit_code"), [(0, 0), (4, 1)])
def test_following_shows_all_up_to_the_end_and_tells_how_it_ended(
    box: Box, code: int, exit_code: int
) -> None:
    half = f"printf 'token {SECRET[:12]}'; touch half; while [ ! -e on ]; do sleep 0.02; done"
    run = box.start(f"{half}; echo {SECRET[12:]}\n{WAITER}")
    wait_until((run.cwd / "half").exists, what="half a token is written")
    following = Following(box, "--file", "stdout")
    try:
        (run.cwd / "on").touch()
        wait_until(lambda: following.text.endswith("started\n"), what="it follows")
        run.let_end(code)
    finally:
        errors = following.end()

    assert following.text == "token [REDACTED]\nstarted\nended\n"
    assert following.process.returncode == exit_code
    run.wait()
    reason = run.record.text("error_summary")
    assert errors == ("" if code == 0 else f"show-run: {run.run_id} failed: {reason}\n")


def test_ctrl_c_ends_following_and_not_the_run(box: Box) -> None:
    run = box.start(WAITER).until_ready()
    following = Following(box)
    try:
        wait_until(lambda: following.text == "started\n", what="it follows")
        following.process.send_signal(signal.SIGINT)
    finally:
        errors = following.end()

    assert (following.process.returncode, errors) == (-signal.SIGINT, "")
    assert box.listed(run.run_id)["status"] == "running"


# -- what all of them share


@pytest.mark.parametrize("tool", ["list-runs", "show-run", "stop-run"])
def test_help_and_wrong_usage(tool: str, tmp_path: Path) -> None:
    shown = run_script(f"bin/{tool}", "--help", cwd=tmp_path)
    wrong = run_script(f"bin/{tool}", "--no-such-option", cwd=tmp_path)

    assert (shown.returncode, shown.stderr) == (0, "")
    assert "examples:" in shown.stdout
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    assert wrong.stderr.startswith(f"{tool}: unknown option")


@pytest.mark.parametrize(
    "words",
    [
        ("list-runs", "--status", "sleeping"), ("list-runs", "--since", "yesterday"),
        ("list-runs", "-n", "-1"), ("show-run", "--file", "secrets"),
        ("show-run", "--json", "-f"), ("stop-run",), ("stop-run", "x", "--all"),
    ],
)  # fmt: skip
def test_a_senseless_value_is_wrong_usage(words: tuple[str, ...], box: Box) -> None:
    (box.root / "runs").mkdir()
    done = box.tool(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_an_empty_root_is_said_in_one_line(box: Box) -> None:
    (box.root / "runs").mkdir()
    listed, shown = box.tool("list-runs"), box.tool("show-run")
    assert (listed.returncode, listed.stdout, listed.stderr.count("\n")) == (0, "", 1)
    assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (1, "", 1)


@pytest.mark.parametrize("tool", ["list-runs --all --json", "show-run --file stdout -n 0"])
def test_a_reader_that_leaves_early_is_no_error(box: Box, tool: str) -> None:
    for n in range(200):
        write_run(box.root, f"run_20260101-1200{n % 60:02d}-{n}", status="completed")
    path = write_run(box.root, "run_20260101-120100-1", status="completed")
    (path / runs.STDOUT).write_text("line\n" * 100_000)
    name, *arguments = tool.split()
    script = [*PYTHON, str(ROOT / "bin" / name), *arguments, "--root", str(box.root)]
    if name == "show-run":
        script.append(path.name)
    with subprocess.Popen(
        script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment(), text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
