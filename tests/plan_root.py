"""A root with a plan in it, for tests that run plans with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.helpers import PYTHON, ROOT, clean_environment, wait_until

Record = dict[str, object]
SCRIPT = str(ROOT / "run-all-tasks.py")


def sh(task_id: str, script: str, **keys: object) -> Record:
    """A task of the shell agent."""
    return {"id": task_id, "agent": "shell", "prompt": f"```sh\n{script}\n```\n", **keys}


def offline(task_id: str, *directives: str, **keys: object) -> Record:
    """A task of the embedded agent, which obeys `directives`."""
    lines = [f"offline: {line}" for line in directives]
    return {"id": task_id, "agent": "offline", "prompt": "\n".join(["Work.", *lines]), **keys}


class PlanRoot:
    """A root folder, the plan in it, and what running it left there.

    Everything that a plan starts inherits a mark in its environment, by which
    `assert_nothing_left` finds processes that should have ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / "work"
        self.runs = path / "runs"
        self.bus = path / "MESSAGE-BUS.md"
        self.plan_file = path / "plan.yaml"
        self.mark = uuid.uuid4().hex
        self.work.mkdir(parents=True)

    def plan(self, *tasks: Record, project: str = "p", **keys: object) -> None:
        """A plan of one stage, or of those in `stages`; defaults to quick, unlimited tasks."""
        stages = keys.pop("stages", None) or [{"id": "only", "tasks": list(tasks)}]
        defaults = {"cwd": str(self.work), "retries": 0}
        defaults.update(keys.pop("defaults", {}))  # type: ignore[call-overload]
        text = {"project": project, "defaults": defaults, **keys, "stages": stages}
        self.plan_file.write_text(json.dumps(text) + "\n")  # JSON is YAML

    def claude(self, answer: str) -> str:
        """Make a `claude` that answers so without using a tool; returns a PATH with it in front."""
        folder = self.path / "bin"
        folder.mkdir()
        lines = [
            {"type": "system", "subtype": "init", "session_id": "s", "model": "m"},
            {"type": "result", "subtype": "success", "is_error": False, "result": answer},
        ]
        printed = "\n".join(json.dumps(line) for line in lines)
        program = folder / "claude"
        program.write_text(f"#!/bin/sh\ncat >/dev/null\ncat <<'END'\n{printed}\nEND\n")
        program.chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return clean_environment(
            {"TEST_MARK": self.mark, "CONDUCTOR_STOP_GRACE": "5", **(extra or {})}
        )

    def command(self, *arguments: str | Path) -> list[str]:
        words = [str(word) for word in arguments]
        if not words or words[0].startswith("-"):
            words.insert(0, str(self.plan_file))
        return [*PYTHON, SCRIPT, *words, "--root", str(self.path)]

    def run(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the plan to its end; the first argument may name another plan file."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(env),
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=100,
            encoding="utf-8",
            errors="replace",
        )

    def start(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the plan; what it prints goes to the files `printed` and `errors` of the root."""
        with (self.path / "printed").open("ab") as out, (self.path / "errors").open("ab") as err:
            return subprocess.Popen(
                self.command(*arguments),
                env=self.environment(env),
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def why(self, task_id: str) -> str:
        """What `--why` answers about a task."""
        asked = self.run("--why", task_id)
        assert (asked.returncode, asked.stderr) == (0, "")
        return asked.stdout.rstrip("\n")

    # -- what is there afterwards

    def log(self) -> str:
        """The plan's log, "" before there is one."""
        path = self.runs / "p" / "plan.log"
        return path.read_text() if path.exists() else ""

    @property
    def state_file(self) -> Path:
        return self.runs / "p" / "PLAN-STATE.yaml"

    def state(self) -> dict[str, Record]:
        """The tasks of the plan's state, as PyYAML reads them."""
        data = yaml.safe_load(self.state_file.read_text())
        assert data["complete"] is True
        tasks: dict[str, Record] = data["tasks"]
        return tasks

    def states(self) -> dict[str, object]:
        return {task_id: task["state"] for task_id, task in self.state().items()}

    def attempts(self, task_id: str) -> list[Record]:
        found: list[Record] = self.state()[task_id]["attempts"]  # type: ignore[assignment]
        return found

    def run_folder(self, task_id: str, attempt: int = -1) -> Path:
        return self.runs / str(self.attempts(task_id)[attempt]["run"])

    def record(self, task_id: str, attempt: int = -1) -> Record:
        """run-info.yaml of one attempt of a task."""
        text = (self.run_folder(task_id, attempt) / "run-info.yaml").read_text()
        data: Record = yaml.safe_load(text)
        return data

    def bus_lines(self, start: str) -> list[str]:
        if not self.bus.exists():
            return []
        return [line for line in self.bus.read_text().split("\n") if line.startswith(start)]

    def lines(self, name: str) -> list[str]:
        """The lines of a file in the working folder to which tasks append."""
        path = self.work / name
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def tree(self) -> dict[str, bytes]:
        """Every file of the root by its path."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in self.path.rglob("*")
            if path.is_file() and path.name not in ("printed", "errors")
        }

    def processes(self) -> dict[int, str]:
        """The living processes that carry the mark: pid and command line."""
        wanted = f"TEST_MARK={self.mark}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(folder.name)] = command.decode(errors="replace")
            except OSError:
                continue
        return found

    def kill_everything(self) -> None:
        """End what a failed test left behind."""
        while found := self.processes():
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def assert_nothing_left(self) -> None:
        """No process, no mark of an unfinished run, no temporary file."""
        wait_until(lambda: not self.processes(), what=f"the end of {self.processes()}")
        left = [
            str(path.relative_to(self.path))
            for path in [*self.path.rglob("*"), *(self.runs / ".active").glob("*")]
            if path.name.endswith((".tmp", ".pid"))
            or path.name in ("pid.txt", ".exit-code", ".lock")
            or path.parent.name == ".active"
        ]
        assert left == []
