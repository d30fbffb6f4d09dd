"""bin/doctor --live: one call of each agent, with programs that are scripts and a service on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import doctor_live, procs
from lib.config import Config, load
from tests.agent_streams import STREAMS
from tests.helpers import PYTHON, ROOT, clean_environment, wait_until
from tests.machine import Machine
from tests.rest_service import Service, recorded, stream

KEY = "xai-0123456789abcdefTESTKEY"
CLAUDE = "2.1.330 (Claude Code)"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def plays(version: str, capture: str, code: int = 0) -> str:
    """A program that tells its version, and answers a prompt with what was captured."""
    file = STREAMS / f"{capture}.stdout"
    return f'if [ "$1" = --version ]; then echo "{version}"; else cat >/dev/null; cat "{file}"; exit {code}; fi'


def config(machine: Machine, text: str) -> None:
    (machine.cwd / "config.yaml").write_text(text, encoding="utf-8")
    (machine.cwd / "config.yaml").chmod(0o600)


def live_lines(text: str) -> list[str]:
    """The checks of the calls, each as one line."""
    joined = text.replace("\n      ", " ")
    return [line for line in joined.split("\n") if line[6:].startswith("live")]


def test_each_model_that_works_is_called_once_and_says_what_it_took(machine: Machine) -> None:
    machine.install("claude", plays(CLAUDE, "claude/stream-plain"))
    machine.install("codex", plays("codex-cli 0.169.0", "codex/json-plain"))
    config(machine, "agents: {claude: {sandbox: true, token: abcdefgh1}}\n")
    before = machine.files()
    done = machine.doctor("--live", CODEX_API_KEY="abcdefgh2")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    claude, codex, total = sorted(live_lines(done.stdout), key=lambda line: "answered:" in line)
    if "codex" in claude:
        claude, codex = codex, claude
    assert claude.startswith(
        "ok    live claude: answered 'STUB-ANSWER for What is two plus two?' ("
    )
    assert "model claude-opus-5-5, 1200 tokens in, 34 out, $0.0040)" in claude
    assert codex.startswith("ok    live codex: answered 'STUB-ANSWER for What")
    assert "1200 tokens in, 34 out, " in codex
    assert total.startswith("ok    live: 2 of 2 answered: ")
    assert machine.files() == before


def test_one_that_fails_is_told_with_its_reason(machine: Machine) -> None:
    machine.install("claude", plays(CLAUDE, "claude/stream-401-noretry", 1))
    config(machine, "agents: {claude: {sandbox: true}}\n")
    done = machine.doctor("--live", "--agent", "claude")
    assert (done.returncode, done.stderr) == (1, "")
    call, total = live_lines(done.stdout)
    assert call.startswith("FAIL  live claude: failed: ")
    assert "ANTHROPIC_API_KEY" in call or "Failed to authenticate" in call
    assert total.startswith("FAIL  live: 0 of 1 answered: ")
    assert list(machine.temporary.iterdir()) == []


def test_the_json_has_a_row_for_each_call(machine: Machine) -> None:
    with Service(stream(recorded("xai-stream.sse"))) as service:
        config(
            machine, f"agents: {{grok: {{type: xai, token: {KEY}, base_url: '{service.url}'}}}}\n"
        )
        done = machine.doctor("--live", "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    result = json.loads(done.stdout)
    (row,) = result["live"]
    assert (row["agent"], row["ok"], row["reason"]) == ("grok", True, "")
    assert (row["input_tokens"] > 0, row["output_tokens"] > 0) == (True, True)
    assert row["seconds"] >= 0
    assert row["answer"].startswith("STUB-ANSWER")
    assert [check["state"] for check in result["checks"] if check["name"].startswith("live")] == [
        *("ok", "ok"),
    ]
    (asked,) = service.asked
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert doctor_live.PROMPT in json.dumps(asked.body)
    assert KEY not in done.stdout


def test_an_agent_without_a_model_is_called_only_by_its_name(machine: Machine) -> None:
    done = machine.doctor("--live")
    (line,) = live_lines(done.stdout)
    assert (done.returncode, line[:28]) == (0, "note  live: no agent was cal")
    config(machine, "agents: {offline: {}, shell: {}}\n")
    assert "no agent was called" in machine.doctor("--live").stdout
    done = machine.doctor("--live", "--agent", "nobody")
    assert "no agent was called\n      cure: mend what is said of nobody above\n" in done.stdout
    done = machine.doctor("--live", "--agent", "offline")
    assert done.returncode == 0
    assert len(live_lines(done.stdout)) == 2


def test_a_model_that_is_not_logged_in_is_called_only_where_somebody_wants_it(
    machine: Machine,
) -> None:
    machine.install("codex", plays("codex-cli 0.169.0", "codex/json-plain"))
    assert "live codex" not in machine.doctor("--live").stdout
    assert "live codex" in machine.doctor("--live", "--agent", "codex").stdout
    config(machine, "agents: {codex: {}}\n")
    assert "live codex" in machine.doctor("--live").stdout


def test_a_call_is_no_part_of_the_run_in_which_the_doctor_was_started(machine: Machine) -> None:
    machine.install("helper", f'env >"{machine.home}/env"; pwd >"{machine.home}/pwd"; echo ready')
    config(machine, "agents: {helper: {type: command, command: [helper]}}\n")
    outside = machine.folder / "outside"
    done = machine.doctor(
        *("--live", "--agent", "helper"),
        JRUN_ID="run_20260101-000000-1",
        JRUN_RUNS_DIR=str(outside),
        JRUN_RUN_FOLDER=str(outside),
        JRUN_MESSAGE_BUS=str(outside / "bus"),
        JRUN_PROJECT_ID="x",
    )
    assert done.returncode == 0, done.stdout
    assert not outside.exists()
    environment = (machine.home / "env").read_text(encoding="utf-8").split("\n")
    assert "JRUN_PARENT_ID=" in environment
    cwd = (machine.home / "pwd").read_text(encoding="utf-8").strip()
    assert cwd.startswith(str(machine.temporary))
    assert list(machine.temporary.iterdir()) == []


class Waiting:
    """A doctor that has called two agents, h0 and h1, of which h0 ends at `gate` and h1 never."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.gate = folder / "gate"
        os.mkfifo(self.gate)
        self._pids = folder / "pids"
        self._pids.mkdir()
        mark = f'echo $$ >"{folder}/$$"; mv "{folder}/$$" "{self._pids}/$$"'
        machine.install("first", f'{mark}; read -r _ <"{self.gate}"; echo ready')
        machine.install("never", f"{mark}; exec sleep 600")
        entries = "h0: {type: command, command: [first]}, h1: {type: command, command: [never]}"
        config(machine, f"agents: {{{entries}}}\n")
        self.process = subprocess.Popen(
            [*PYTHON, str(ROOT / "bin/doctor"), "--live", "--root", str(machine.root)],
            cwd=machine.cwd,
            env=clean_environment(machine.environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        """Return once both agents are at work."""
        wait_until(lambda: len(list(self._pids.iterdir())) == 2, seconds=60, what="both agents")

    def end(self) -> list[int]:
        """End what is left of it; returns the agents that were."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        pids = [int(path.name) for path in self._pids.iterdir()]
        left = [pid for pid in pids if procs.start_time(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left


@pytest.fixture
def waiting(machine: Machine, tmp_path: Path) -> Iterator[Waiting]:
    made = Waiting(machine, tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_doctor_stops_its_agents_and_leaves_nothing(
    machine: Machine, waiting: Waiting, number: signal.Signals
) -> None:
    waiting.wait()
    waiting.process.send_signal(number)
    ended = -number if number == signal.SIGINT else 128 + number
    assert waiting.process.wait(60) == ended
    assert waiting.end() == []
    assert list(machine.temporary.iterdir()) == []


def test_a_doctor_to_whom_nobody_listens_any_more_stops_its_agents_too(
    machine: Machine, waiting: Waiting
) -> None:
    waiting.wait()
    assert waiting.process.stdout is not None
    waiting.process.stdout.close()
    waiting.gate.write_text("\n")  # its line cannot be printed
    assert waiting.process.wait(60) == 128 + signal.SIGPIPE
    assert waiting.end() == []
    assert list(machine.temporary.iterdir()) == []


@pytest.mark.parametrize("limit", ["TIMEOUT_SECONDS", "IDLE_SECONDS"])
def test_one_that_never_answers_is_given_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    config(machine, "agents: {never: {type: command, command: [sleep, '600']}}\n")
    monkeypatch.setattr(doctor_live, limit, 1)
    monkeypatch.setenv("TMPDIR", str(machine.temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    settings = load(str(machine.cwd / "config.yaml"))
    (call,) = doctor_live.call_agents(settings, ["never"])
    assert (call.reason != "", call.answer, call.cost_usd) == (True, "", None)
    assert call.error_class in ("timeout", "silence")
    assert call.check().state == "FAIL"
    assert list(machine.temporary.iterdir()) == []


def test_four_at_a_time_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    at_work: list[str] = []
    most = 0

    class Process:
        def __init__(self, name: str) -> None:
            self.name, self.asked = name, 0
            at_work.append(name)

        def poll(self) -> int | None:
            self.asked += 1
            if self.asked < 2:
                return None
            at_work.remove(self.name)
            return 0

    def start(settings: Config, name: str, folder: str) -> Process:
        nonlocal most
        process = Process(name)
        most = max(most, len(at_work))
        return process

    monkeypatch.setattr(doctor_live, "_start", start)
    monkeypatch.setattr(doctor_live, "_call", lambda name, folder: doctor_live.Call(name, ""))
    monkeypatch.setattr(doctor_live, "POLL_SECONDS", 0)
    names = [f"a{n}" for n in range(9)]
    assert sorted(call.agent for call in doctor_live.call_agents(Config(), names)) == names
    assert most == 4


def test_what_the_calls_cost_is_never_more_certain_than_they_tell() -> None:
    def said(*calls: doctor_live.Call) -> str:
        return doctor_live.total(calls).text

    call = doctor_live.Call
    assert said(call("a", "", cost_usd=0.5), call("b", "", cost_usd=0.25, cost_estimated=True)) == (
        "2 of 2 answered: ~$0.7500 in all"
    )
    assert said(call("a", "", cost_usd=0.5), call("b", "no")) == (
        "1 of 2 answered: $0.5000 in all, and what b cost, which is not told"
    )
    assert said(call("a", "")) == "1 of 1 answered: cost not told in all"


def test_the_configuration_alone_is_checked_without_starting_anything(machine: Machine) -> None:
    machine.install("claude", f'touch "{machine.home}/started"')
    config(machine, "agents:\n  claude: {tokn: x}\n  codex: {sandbox: true}\n")
    for arguments in (["--config", "config.yaml"], ["--config"], []):
        done = machine.doctor("--only", "config", *arguments)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.count("FAIL  config:") == 2
        assert "0 ok, 0 notes, 2 FAIL" in done.stdout
    assert not (machine.home / "started").exists()
    for wrong in (["--only", "agents"], ["--only", "config", "--live"], ["--only", "config", "p"]):
        done = machine.doctor(*wrong)
        assert (done.returncode, done.stdout) == (2, "")


def test_help_says_that_it_is_paid() -> None:
    done = subprocess.run(
        [*PYTHON, str(ROOT / "bin/doctor"), "--help"], capture_output=True, text=True, timeout=60
    )
    assert "PAID" in done.stdout
