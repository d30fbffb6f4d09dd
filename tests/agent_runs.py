"""What the tests of single runs share: a place to run in, live runs, and what must hold after them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import IO

from lib import bus, ids, runs
from lib.bus_parse import Message
from tests.helpers import PYTHON, ROOT, clean_environment, run_script, wait_until

CAPTURES = ROOT / "tests" / "data" / "agent-streams" / "claude"
END_TYPES = ("RUN_STOP", "RUN_CRASH")


class Gate:
    """A FIFO at which an agent waits: `read -r _ <PATH` in a script returns after `open`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDWR)

    def open(self, times: int = 1) -> None:
        os.write(self._fd, b"\n" * times)

    def close(self) -> None:
        os.close(self._fd)


class Live:
    """A run-agent.py at work; what it prints first has been read."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None
        self.head = [line.decode().rstrip("\n") for line in _lines(process.stdout, 3)]
        told = dict(line.split("=", 1) for line in self.head)
        self.run_id = told.get("RUN_ID", "")
        self.run_dir = Path(told.get("RUN_DIR", ""))
        self.agent = int(told.get("PID", "0"))

    @property
    def supervisor(self) -> int:
        return self.process.pid

    @property
    def guard(self) -> int:
        return self.run.number("pgid")

    @property
    def run(self) -> runs.Run:
        return runs.read(str(self.run_dir))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, timeout: float = 60) -> tuple[int, str, str]:
        """(exit code, the rest of stdout, stderr), once it has ended by itself."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out.decode(), err.decode()


def _lines(stream: IO[bytes], count: int) -> Iterator[bytes]:
    for _ in range(count):
        line = stream.readline()
        if not line:
            return
        yield line


class Place:
    """A root, a working folder, and every process that was started from here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.cwd = folder / "work"
        self.bin = folder / "bin"
        for path in (self.root, self.cwd, self.bin):
            path.mkdir(parents=True)
        self.env: dict[str, str] = {}
        self._gates: list[Gate] = []
        self._live: list[subprocess.Popen[bytes]] = []

    @property
    def runs_dir(self) -> Path:
        return self.root / "runs"

    @property
    def bus(self) -> Path:
        return self.root / "MESSAGE-BUS.md"

    def script(self, text: str, name: str = "prompt.md") -> Path:
        """A prompt whose shell block is `text`."""
        path = self.cwd / name
        path.write_text(f"# Do it\n\n```sh\n{text}\n```\n")
        return path

    def program(self, name: str, text: str) -> Path:
        """An executable on the PATH of the runs from here."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def gate(self, name: str = "gate") -> Gate:
        gate = Gate(self.cwd / name)
        self._gates.append(gate)
        return gate

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return clean_environment({"PATH": path, **self.env, **(env or {})})

    def run(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        rooted: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """run-agent.py from start to end."""
        options = ["--root", str(self.root)] if rooted else []
        return run_script(
            "run-agent.py",
            *arguments,
            *options,
            cwd=cwd or self.cwd,
            env=self.environment(env),
        )

    def popen(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, prefix: str = ""
    ) -> subprocess.Popen[bytes]:
        words = [*PYTHON, str(ROOT / "run-agent.py"), *map(str, arguments)]
        process = subprocess.Popen(
            [*prefix.split(), *words, "--root", str(self.root)],
            cwd=self.cwd,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._live.append(process)
        return process

    def start(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, prefix: str = ""
    ) -> Live:
        """run-agent.py, once its agent has been started."""
        return Live(self.popen(*arguments, env=env, prefix=prefix))

    def end_without_supervisor(self, live: Live) -> None:
        """Kill its supervisor once the agent has made `ready`; the agent waits for `go`, and ends."""
        wait_until((self.cwd / "ready").exists, what="the agent is at work")
        wait_until(lambda: live.run.text("guard_start"), what="it is recorded")
        os.kill(live.supervisor, signal.SIGKILL)
        live.end()
        (self.cwd / "go").touch()
        wait_gone(live.run_id)

    def all_runs(self) -> list[runs.Run]:
        return sorted(runs.listing(str(self.runs_dir)), key=lambda run: run.run_id)

    def only_run(self) -> runs.Run:
        [run] = self.all_runs()
        return run

    def act(self) -> None:
        """What repairs: any command that acts on this root."""
        self.script(":", "act.md")
        done = self.run("shell", ".", "act.md", "--task", "act")
        assert done.returncode == 0, done.stderr

    def messages(self, run_id: str, *types: str) -> list[Message]:
        found = bus.read(str(self.bus)) if self.bus.exists() else []
        return [m for m in found if m.run_id == run_id and (not types or m.type in types)]

    def close(self) -> None:
        for process in self._live:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for run in self.all_runs() if self.runs_dir.exists() else []:
            end_processes(run.run_id)
        for gate in self._gates:
            gate.close()


def processes_of(run_id: str) -> list[int]:
    """Every living process that was started with this JRUN_ID; looked up without lib/procs.py."""
    wanted = b"\0JRUN_ID=" + os.fsencode(run_id) + b"\0"
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if wanted in b"\0" + Path(f"/proc/{name}/environ").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
    return found


def end_processes(run_id: str) -> None:
    while left := processes_of(run_id):
        for pid in left:
            kill(pid)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    assert pid > 1
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def wait_gone(run_id: str) -> None:
    wait_until(lambda: not processes_of(run_id), what=f"the end of all processes of {run_id}")


def is_alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def check_settled(place: Place, path: Path | str, *, spared: Container[int] = ()) -> runs.Run:
    """All that must hold of a run which has ended, however it did; returns it."""
    run = runs.read(str(path))
    folder = Path(path)
    names = {entry.name for entry in folder.iterdir()}
    assert run.text("status") in runs.ENDED, (run.record, names)
    assert runs.state(run).status == run.text("status")
    assert ids.parse_rfc3339(run.record["end_time"]) is not None
    assert {"output.md", "transcript.md", "run-info.yaml", "agent-stdout.txt"} <= names
    assert not {"pid.txt", ".lock", ".exit-code"} & names
    assert not [name for name in names if name.endswith(".tmp")]
    assert not (folder.parent / ".active" / run.run_id).exists()
    assert [pid for pid in processes_of(run.run_id) if pid not in spared] == []
    if run.text("bus"):  # else it was killed before it had a record
        assert len(place.messages(run.run_id, *END_TYPES)) == 1, "one end on the bus"
        assert len(place.messages(run.run_id, "RUN_START")) <= 1
        lines = (folder / "cwd.txt").read_text().split("\n")
        assert [x for x in lines if x.startswith("EXIT_CODE=")] == [
            f"EXIT_CODE={run.number('exit_code')}"
        ]
    return run
