"""A root with a task folder, for tests that run tasks in loops with real processes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from lib import bus, propagation, runs, tasks
from lib.bus_parse import Message
from tests.agent_runs import Gate, is_alive
from tests.helpers import PYTHON, ROOT, run_script, wait_until
from tests.plan_root import PlanRoot, Record

SCRIPT = str(ROOT / "bin" / "run-task")
RUN_AGENT = f"'{ROOT}/run-agent.py'"
BUS_APPEND = f"'{ROOT}/bin/bus-append'"
FINISH = 'touch "$JRUN_TASK_FOLDER/DONE"'
# Counts the attempts in the variable n; children are told by their own prompts what to do.
COUNT = """\
n=$(cat "$JRUN_TASK_FOLDER/count" 2>/dev/null || echo 0); n=$((n+1))
echo $n >"$JRUN_TASK_FOLDER/count"
"""
QUICK = ("--restart-delay", "0.01")


class TaskRoot(PlanRoot):
    """The task `t` of project `p`, whose agent is a shell script."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.config_file = path / "config.yaml"
        self.agent_file = path / "agent.sh"
        self._gates: list[Gate] = []
        self._loops: list[subprocess.Popen[bytes]] = []
        self.extra_env: dict[str, str] = {}
        agent = {"type": "command", "command": ["sh", str(self.agent_file)]}
        self.config_file.write_text(json.dumps({"agents": {"fake": agent}}) + "\n")
        self.agent("true")

    def agent(self, script: str) -> None:
        """What the agent `fake` does; its prompt is in $prompt."""
        self.agent_file.write_text(f"prompt=$(cat)\n{script}\n")

    def gate(self, name: str = "gate") -> Gate:
        gate = Gate(self.path / name)
        self._gates.append(gate)
        return gate

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return super().environment({**self.extra_env, **(extra or {})})

    def command(self, *arguments: str | Path) -> list[str]:
        words = [str(word) for word in arguments]
        defaults = {"--project": "p", "--task": "t", "--agent": "fake"}
        for name, value in defaults.items():
            if name not in words:
                words += [name, value]
        places = ["--root", str(self.path), "--config", str(self.config_file)]
        return [*PYTHON, SCRIPT, *words, *places]

    def begin(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the loop of a task that has something to do."""
        process = self.start("--prompt", "Do it.", *QUICK, *arguments, env=env)
        self._loops.append(process)
        return process

    def loop(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        return self.run("--prompt", "Do it.", *QUICK, *arguments, env=env)

    def stop_task(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        named = arguments or ("--project", "p", "--task", "t")
        places = ["--root", str(self.path)]
        return run_script("bin/stop-run", *named, *places, env=self.environment())

    def close(self) -> None:
        for process in self._loops:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.kill_everything()
        for gate in self._gates:
            gate.close()

    # -- what is there

    @property
    def task(self) -> tasks.Task:
        return tasks.locate(str(self.runs), "p", "t")

    @property
    def folder(self) -> Path:
        return self.runs / "p" / "t"

    @property
    def loop_record(self) -> Record:
        data: Record = yaml.safe_load((self.folder / "TASK-LOOP.yaml").read_text())
        return data

    @property
    def tries(self) -> list[Record]:
        """The attempts as the loop has noted them."""
        found: list[Record] = self.loop_record["attempts"]  # type: ignore[assignment]
        return found

    def try_records(self) -> list[Record]:
        """run-info.yaml of every attempt."""
        return [self.info(str(attempt["run"])) for attempt in self.tries]

    def info(self, run_id: str) -> Record:
        data: Record = yaml.safe_load((self.folder / "runs" / run_id / "run-info.yaml").read_text())
        return data

    def task_runs(self) -> list[runs.Run]:
        return sorted(runs.listing(str(self.runs)), key=lambda run: run.run_id)

    def children(self) -> list[runs.Run]:
        return [run for run in self.task_runs() if run.text("parent_run_id")]

    def messages(self, type_: str = "", path: str | None = None) -> list[Message]:
        """The messages of the loop itself, or of another bus."""
        found = list(bus.read(path or self.task.bus))
        own = found if path else [message for message in found if not message.run_id]
        return [message for message in own if not type_ or message.type == type_]

    def bodies(self, type_: str) -> list[str]:
        return [message.body for message in self.messages(type_)]

    def facts(self) -> list[Message]:
        """By which the project was told that the task is done."""
        found = self.messages("FACT", self.task.project_bus)
        return [message for message in found if message.meta.get("kind") == propagation.KIND]

    def error_lines(self) -> list[str]:
        """What `grep '^ERROR '` finds on the task's bus."""
        lines = (self.folder / "TASK-MESSAGE-BUS.md").read_text().split("\n")
        return [line for line in lines if line.startswith("ERROR ")]

    def pids(self, name: str, count: int) -> list[int]:
        """The pids that agents wrote into a file of the task folder, once there are so many."""
        path = self.folder / name
        wait_until(
            lambda: path.exists() and len(path.read_text().split()) >= count,
            what=f"{count} pids in {name}",
        )
        return [int(word) for word in path.read_text().split()]

    def assert_dead(self, pids: list[int]) -> None:
        assert [pid for pid in pids if is_alive(pid)] == []

    def assert_settled(self) -> None:
        """All that must hold of a task whose loop has ended and that nothing lives of."""
        for run in self.task_runs():
            assert run.text("status") in runs.ENDED, run.record
            assert isinstance(run.record["exit_code"], int)
        self.assert_nothing_left()
        checked = run_script("bin/check-storage", str(self.path), env=self.environment())
        assert checked.returncode == 0, checked.stdout + checked.stderr


def kill_loop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
