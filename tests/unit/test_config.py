"""config.yaml: where it is looked for, what it may hold, what is told when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib import config, paths, redact
from lib.errors import EXIT_USAGE, UserError


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No config of this machine is in reach, and no token stays known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(paths, "TOOLKIT", str(tmp_path / "toolkit"))
    monkeypatch.setattr(redact, "_extra", [])
    monkeypatch.setattr(redact, "_own", None)
    monkeypatch.delenv("CONDUCTOR_CONFIG", raising=False)


def write(path: Path, text: str = "defaults: {}\n") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_without_a_file_everything_is_empty() -> None:
    loaded = config.load()
    assert (loaded.path, loaded.agents, loaded.defaults) == ("", {}, {})
    assert loaded.entry("claude") == {}


def test_the_first_place_that_has_a_file_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = write(tmp_path / "home/.config/conductor-loop/config.yaml")
    assert config.locate() == home
    beside = write(tmp_path / "toolkit/config.yaml")
    assert config.locate() == beside
    here = write(tmp_path / "config.yaml")
    assert config.locate() == here
    variable = write(tmp_path / "variable.yaml")
    monkeypatch.setenv("CONDUCTOR_CONFIG", variable)
    assert config.locate(environ={"CONDUCTOR_CONFIG": variable}) == variable
    option = write(tmp_path / "option.yaml")
    assert config.locate(option, {"CONDUCTOR_CONFIG": variable}) == option


@pytest.mark.parametrize(("option", "variable"), [("none.yaml", ""), (None, "none.yaml")])
def test_a_named_file_must_exist(tmp_path: Path, option: str | None, variable: str) -> None:
    with pytest.raises(UserError) as caught:
        config.locate(option, {"CONDUCTOR_CONFIG": variable})
    assert str(caught.value).startswith(f"no config file {tmp_path}/none.yaml; correct ")
    assert caught.value.exit_code == EXIT_USAGE


def test_an_agent_is_found_by_name_or_by_type(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config.yaml",
        "agents:\n  claude: {model: sonnet}\n  helper: {type: Shell, x: 1}\n  empty:\n"
        "    type: offline\ndefaults: {agent: helper, timeout: 2h}\n",
    )
    loaded = config.load(path)
    assert loaded.entry("claude") == {"model": "sonnet", "type": "claude"}
    assert loaded.entry("helper") == loaded.entry("shell") == {"type": "shell", "x": 1}
    assert loaded.defaults == {"agent": "helper", "timeout": "2h"}


def test_a_token_comes_from_the_file_its_own_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "secret/claude.token", " from-file-12345 \n")
    path = write(
        tmp_path / "config.yaml",
        "agents:\n  claude: {token_file: secret/claude.token}\n  shell: {token: '12345678901'}\n"
        "  my-off.line: {type: offline, token: replaced}\n",
    )
    monkeypatch.setenv("CONDUCTOR_AGENT_MY_OFF_LINE_TOKEN", "from-environment-1")
    loaded = config.load(path)
    assert loaded.entry("claude")["token"] == "from-file-12345"
    assert loaded.entry("shell")["token"] == "12345678901"
    assert loaded.entry("my-off.line")["token"] == "from-environment-1"
    text = "from-file-12345 12345678901 from-environment-1"
    assert redact.text(text) == "[REDACTED] [REDACTED] [REDACTED]"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n", ":1: not a mapping; begin with `agents:`"),
        ("agents:\nagent: x\n", ":2: unknown key 'agent'; known: agents, defaults"),
        ("defaults: 7\n", ":1: defaults must be a mapping"),
        ("agents:\n  x: {type: nothing}\n", ":2: agent x has the unknown type 'nothing'; known: "),
        ("agents:\n  shell: 7\n", ":2: agent shell must be a mapping"),
        ("agents:\n  shell: {token: a, token_file: b}\n", ":2: agent shell has token and token_file"),
        ("agents:\n  shell: {token: 12345678}\n", ":2: token of agent shell is read as a number"),
        ("agents:\n  shell: {token_file: none}\n", ":2: token_file of agent shell: "),
        ("agents:\n  shell: {token_file: empty}\n", ":2: token_file of agent shell is empty: "),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_file_and_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "empty").write_text(" \n")
    path = write(tmp_path / "config.yaml", text)
    with pytest.raises(UserError) as caught:
        config.load(path)
    assert str(caught.value).startswith(path + told)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("text", ["", "# only this\n", "agents:\n"])
def test_a_file_may_be_empty(tmp_path: Path, text: str) -> None:
    loaded = config.load(write(tmp_path / "config.yaml", text))
    assert (loaded.agents, loaded.defaults) == ({}, {})


def test_a_written_token_is_redacted_also_where_a_variable_overrides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("agents: {claude: {token: the-written-one-4711}}\n")
    path.chmod(0o600)
    monkeypatch.setenv("CONDUCTOR_AGENT_CLAUDE_TOKEN", "the-other-one-4712")

    assert config.load(str(path)).entry("claude")["token"] == "the-other-one-4712"

    shown = redact.text("the-written-one-4711 and the-other-one-4712")
    assert "471" not in shown
