"""What each test of a real program gets: the program, a model that is none, a home of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lib import runs, yamlio
from lib.agents import base
from tests.agent_runs import Live, Place
from tests.agents import programs
from tests.agents.stub_models import Stub
from tests.helpers import wait_until

PROMPT = "Say what the stub says"
GEMINI_SETTINGS = {
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
    "general": {"enableAutoUpdate": False},
}
# What a user, or a program that the tests were started from, may have set.
LEFT_OUT = ("ANTHROPIC", "CLAUDE", "CODEX", "OPENAI", "GEMINI", "GOOGLE", "IS_SANDBOX")


class Trial:
    """One program in a place of its own, with nothing in reach but the stub."""

    def __init__(self, name: str, place: Place, stub: Stub) -> None:
        self.name = name
        self.place = place
        self.stub = stub
        self.token = f"sk-the-right-key-of-{name}-0001"
        self.config_path = place.folder / "config.yaml"
        self.configure()
        home = place.folder / "home"
        (home / ".gemini").mkdir(parents=True)
        (home / ".gemini" / "settings.json").write_text(json.dumps(GEMINI_SETTINGS))
        # What is not for 127.0.0.1 arrives at the stub, which notes and refuses it.
        proxies = dict.fromkeys(
            ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), stub.url
        )
        place.env.update(
            proxies,
            HOME=str(home),
            PATH=f"{programs.BIN}{os.pathsep}{os.environ['PATH']}",
            NO_PROXY="127.0.0.1,localhost",
            no_proxy="127.0.0.1,localhost",
        )

    def configure(self, **settings: object) -> None:
        """Write the config; claude runs as root here, where the tests do."""
        entry: dict[str, object] = {
            "base_url": f"{self.stub.url}/v1" if self.name == "codex" else self.stub.url,
            "token": self.token,
        }
        if self.name == "claude":
            entry["sandbox"] = True
        entry |= settings
        kept = {key: value for key, value in entry.items() if value is not None}
        self.config_path.write_text(yamlio.dump({"agents": {self.name: kept}}))

    def _arguments(self, *more: str) -> list[str]:
        return [self.name, ".", "--prompt", PROMPT, "--config", str(self.config_path), *more]

    def run(self, *more: str, env: Mapping[str, str] | None = None) -> tuple[int, str, runs.Run]:
        """(exit code, stderr, the run), of one that is stopped after 60 s unless `more` says."""
        return self.run_as([*self._arguments(), *more], env)

    def resume(self, run: runs.Run, prompt: str) -> tuple[int, str, runs.Run]:
        """The same of one that goes on with the session of an earlier run."""
        config = str(self.config_path)
        return self.run_as(["--resume", run.run_id, "--prompt", prompt, "--config", config])

    def run_as(
        self, arguments: list[str], env: Mapping[str, str] | None = None
    ) -> tuple[int, str, runs.Run]:
        limit = [] if "--timeout" in arguments else ["--timeout", "60s"]
        done = self.place.run(*arguments, *limit, env=env)
        told = dict(line.split("=", 1) for line in done.stdout.split("\n") if "=" in line)
        assert "RUN_DIR" in told, done.stderr
        return done.returncode, done.stderr, runs.read(told["RUN_DIR"])

    def start(self) -> Live:
        """A run that goes on."""
        return self.place.start(*self._arguments("--timeout", "100s"))

    def start_and_hold(self) -> Live:
        """A run whose agent waits for the model, until the stub's gate is set."""
        self.stub.gate.clear()
        live = self.start()
        wait_until(lambda: any(asked.body for asked in self.stub.asked), what="its first request")
        return live

    def command_line(self, live: Live) -> list[str]:
        """What the agent was started with."""
        return Path(f"/proc/{live.agent}/cmdline").read_text().split("\0")

    def answer_of(self, run: runs.Run) -> str:
        return Path(run.file(runs.OUTPUT)).read_text()

    @property
    def decoys(self) -> dict[str, str]:
        """A wrong value for every variable with a key."""
        return {name: f"decoy-{name.lower()}" for name in base.KNOWN_TOKEN_VARIABLES}


@pytest.fixture(params=list(programs.PACKAGES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trial(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """A program to try; without it the test is skipped."""
    reason = programs.lack(name)
    if reason:
        pytest.skip(reason)
    for variable in list(os.environ):
        if variable.startswith(LEFT_OUT):
            monkeypatch.delenv(variable)
    with Stub() as stub:
        made = Trial(name, place, stub)
        yield made
        strangers = [asked.path for asked in stub.asked if asked.method == "CONNECT"]
    assert strangers == [], "it asked others than the stub"
