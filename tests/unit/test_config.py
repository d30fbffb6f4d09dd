"""config.yaml: where it is looked for, what it may hold, what is told when it is wrong."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lib import agents, config, config_check, paths, redact, runner
from lib.errors import EXIT_USAGE, UserError
from tests.helpers import PYTHON, ROOT, clean_environment


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
        "agents:\n  claude: {model: sonnet}\n  helper: {type: Shell, model: x}\n  empty:\n"
        "    type: offline\ndefaults: {agent: helper, timeout: 2h}\n",
    )
    loaded = config.load(path)
    assert loaded.entry("claude") == {"model": "sonnet", "type": "claude"}
    assert loaded.entry("helper") == loaded.entry("shell") == {"type": "shell", "model": "x"}
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
        ("agents:\nagent: x\n", ":2: unknown key 'agent' (did you mean agents?); known: agents, "),
        ("agents: 7\n", ":1: agents must be a mapping"),
        ("defaults: 7\n", ":1: defaults must be a mapping"),
        ("agents:\n  x: {type: nothing}\n", ":2: agent x has the unknown type 'nothing'; known: "),
        ("agents:\n  shell: 7\n", ":2: agent shell must be a mapping"),
        ("agents:\n  shell: {token: a, token_file: b}\n", ":2: agent shell has token and token_file"),
        ("agents:\n  shell: {token: 12345678}\n", ":2: token of agent shell must be a text; put it in quotes"),
        ("agents:\n  shell: {token: a b}\n", ":2: token of agent shell must be one line without blanks"),
        ("agents:\n  7: {}\n", ":2: agent 7 must be a text; put it in quotes"),
        ("agents:\n  claude:\n    tokn_file: x\n", ":3: unknown key 'tokn_file' of agent claude (did you mean token_file?); known: args, "),
        ("agents:\n  shell: {base_url: x}\n", ":2: unknown key 'base_url' of agent shell; known: env, "),
        ("agents:\n  claude: {sandbox: 'true'}\n", ":2: sandbox of agent claude must be true or false, without quotes"),
        ("agents:\n  claude: {sandbox: 1}\n", ":2: sandbox of agent claude must be true or false, without quotes"),
        ("agents:\n  claude: {env: [A]}\n", ":2: env of agent claude must be a mapping of names and values"),
        ("agents:\n  claude:\n    env:\n      A: yes\n", ":3: env of agent claude must be a mapping of texts; put the value of A in quotes"),
        ("agents:\n  claude: {env: {'A=B': c}}\n", ":2: env of agent claude must be a mapping whose names are texts without ="),
        ("agents:\n  claude: {model: [x]}\n", ":2: model of agent claude must be a text or a number, 0 or more"),
        ("agents:\n  codex: {base_url: 7}\n", ":2: base_url of agent codex must be an address, such as https://host"),
        ("agents:\n  codex: {base_url: 'https://me:horse@host'}\n", ":2: base_url of agent codex must be an address, such as https://host"),
        ("agents:\n  xai: {base_url: host/v1}\n", ":2: base_url of agent xai must be an address, such as https://host"),
        ("agents:\n  gemini: {output: json}\n", ":2: output of agent gemini must be one of: stream, text"),
        ("defaults:\n  agent: cluade\n", ":2: agent of defaults: 'cluade' is neither an agent here nor a type; known: claude, "),
        ("agents:\n  codex: {args: [yes]}\n", ":2: args of agent codex must be a list of texts, such as [one, two]"),
        ("agents:\n  offline: {delay: -1}\n", ":2: delay of agent offline must be a number, 0 or more"),
        ("agents:\n  perplexity: {api: rest}\n", ":2: api of agent perplexity must be one of: agent, chat"),
        ("agents:\n  x: {type: command}\n", ":2: agent x: command agent without a command; "),
        ("agents:\n  x: {type: command, command: [a], output: xml}\n", ":2: output of agent x must be one of: text, claude, codex, "),
        ("defaults:\n  timout: 2h\n", ":2: unknown key 'timout' of defaults (did you mean timeout?); known: agent, "),
        ("defaults:\n  timeout: soon\n", ":2: timeout of defaults must be a time, such as 90s, 15m or 2h"),
        ("defaults:\n  diversification: {strategy: best}\n", ":2: strategy of defaults.diversification must be one of: round-robin, weighted"),
        ("api:\n  port: 65536\n", ":2: port of api must be a number from 0 to 65535"),
        ("api:\n  sse: {max_clients_per_run: -1}\n", ":2: max_clients_per_run of api.sse must be a whole number, 0 or more"),
        ("storage: {extra_roots: /x}\n", ":1: extra_roots of storage must be a list of texts, such as [one, two]"),
        ("prices:\n  gpt: {input: 1}\n", ":2: prices: gpt lacks output"),
        ("webhook: {secret: a b}\n", ":1: secret of webhook must be one line without blanks"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_file_and_line(tmp_path: Path, text: str, told: str) -> None:
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


def test_all_faults_are_told_at_once_in_the_order_of_their_lines_and_show_no_value(
    tmp_path: Path,
) -> None:
    path = write(
        tmp_path / "config.yaml",
        "webhook: {secret: 12345678}\nagents:\n  claude:\n    tokn: correct-horse-1\n"
        "    token: [correct-horse-2]\n    env: {X: [correct-horse-3]}\n  nobody: {}\n"
        "api: {prt: 1}\ndefaults:\n  agents: {}\n  timeout: correct-horse-4\n",
    )
    with pytest.raises(UserError) as caught:
        config.load(path)
    lines = str(caught.value).split("\n")
    assert [line.removeprefix(path).split(":")[1] for line in lines] == [
        *("1", "4", "5", "6", "7", "8", "10", "11"),
    ]
    assert "horse" not in str(caught.value)
    assert "12345678" not in str(caught.value)


def test_a_configuration_of_the_original_can_be_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config.yaml",
        """\
agents:
  codex: {type: codex, token: abcdefgh1, base_url: https://gateway.example.org, model: x}
  grok: {type: XAI, token_file: ~/grok.token, base_url: https://gateway.example.org}
defaults:
  agent: codex
  timeout: 300
  max_concurrent_runs: 4
  max_concurrent_root_tasks: 2
  diversification:
    enabled: true
    strategy: weighted
    agents: [codex, grok]
    weights: [2, 1]
    fallback_on_failure: false
api:
  host: 0.0.0.0
  port: 14355
  cors_origins: [https://page.example.org]
  auth_enabled: true
  api_key: abcdefgh2
  sse: {poll_interval_ms: 500, discovery_interval_ms: 1000, heartbeat_interval_s: 30, max_clients_per_run: 10}
storage: {runs_dir: ./runs, extra_roots: [~/more]}
webhook: {url: https://hook.example.org/x, events: [run_stop], secret: abcdefgh3, timeout: 10s}
""",
    )
    loaded = config.load(path)
    assert loaded.entry("xai")["type"] == "xai"
    assert redact.text("abcdefgh1 abcdefgh2 abcdefgh3") == "[REDACTED] [REDACTED] [REDACTED]"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "{file} cannot be read: No such file or directory"),
        (b" \n", "{file} is empty"),
        (b"one\ntwo\n", "{file} holds more than a token"),
        (b"one two", "{file} holds more than a token"),
        (b"one\0", "{file} holds more than a token"),
        (b"x" * 9000, "{file} holds more than a token"),  # its end would be cut off
    ],
)
def test_a_token_file_without_a_token_stops_its_own_agent_alone(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "xai.key"
    if content is not None:
        file.write_bytes(content)
    path = write(
        tmp_path / "config.yaml",
        "agents:\n  offline: {}\n  grok: {type: xai, token_file: xai.key}\n",
    )
    loaded = config.load(path)
    assert runner.resolve_agent(loaded, "offline")[0] == "offline"
    for name in ("grok", "xai"):
        with pytest.raises(UserError) as caught:
            runner.resolve_agent(loaded, name)
        told = f"{path}:3: token_file of agent grok: {reason.format(file=file)}; "
        assert str(caught.value).startswith(told)
        assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_a_token_file_is_a_file_and_waits_for_nobody(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "xai.key"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero")
    loaded = config.load(write(tmp_path / "config.yaml", "agents: {xai: {token_file: xai.key}}\n"))
    assert "xai.key cannot be read: " in loaded.token_faults["xai"]


def test_a_token_file_of_an_impossible_name_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "config.yaml", 'agents: {xai: {token_file: "x/\\0"}}\n')
    with pytest.raises(UserError, match="is no name of a file"):
        runner.resolve_agent(config.load(path), "xai")


def test_a_file_that_is_too_large_is_refused_and_not_cut_off(tmp_path: Path) -> None:
    filler = "# filler\n" * (4 << 20 >> 3)
    path = write(tmp_path / "config.yaml", f"{filler}defaults: {{agent: shell}}\n")
    with pytest.raises(UserError, match="is larger than 4 MiB"):
        config.load(path)


def test_a_token_file_may_be_a_link_and_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"\xef\xbb\xbftoken-1234\r\n")
    (tmp_path / "xai.key").symlink_to("real")
    loaded = config.load(write(tmp_path / "config.yaml", "agents: {xai: {token_file: xai.key}}\n"))
    assert loaded.entry("xai")["token"] == "token-1234"


def test_a_token_that_was_put_where_its_file_is_named_is_not_shown(tmp_path: Path) -> None:
    loaded = config.load(
        write(tmp_path / "config.yaml", "agents: {xai: {token_file: correct-horse}}\n")
    )
    with pytest.raises(UserError) as caught:
        loaded.check_token("xai")
    assert "horse" not in str(caught.value)


def test_a_variable_replaces_a_token_file_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_AGENT_XAI_TOKEN", "from-environment-1")
    loaded = config.load(write(tmp_path / "config.yaml", "agents: {xai: {token_file: none}}\n"))
    loaded.check_token("xai")
    assert loaded.entry("xai")["token"] == "from-environment-1"


def test_a_variable_gives_a_token_to_an_agent_that_is_in_no_config(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONDUCTOR_AGENT_XAI_TOKEN", "from-environment-1")
    loaded = config.load()
    assert loaded.entry("xai") == {"token": "from-environment-1"}
    assert redact.text("from-environment-1") == "[REDACTED]"
    assert loaded.entry("claude") == {}


def test_variables_that_an_agent_may_keep_are_secrets_to_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_configured_variables", [])
    monkeypatch.setenv("MY_CREDENTIAL", "correct-horse-5")
    config.load(
        write(
            tmp_path / "config.yaml",
            "agents: {x: {type: command, command: [x], token_variables: [MY_CREDENTIAL]}}\n",
        )
    )
    assert agents.all_token_variables()[-1] == "MY_CREDENTIAL"
    assert redact.text("correct-horse-5") == "[REDACTED]"
    assert "MY_CREDENTIAL" in runner.Request(agent="claude").token_variables


def test_every_setting_of_every_backend_has_a_kind_that_the_check_knows() -> None:
    for name in agents.types():
        settings = agents.load(name).SETTINGS
        assert not set(settings) & set(config_check.AGENT), name
        for key, kind in settings.items():
            assert isinstance(config_check.wrong(object(), kind), str), (name, key)
            assert config_check.wrong(object(), kind), (name, key)


def test_no_start_without_a_config_reads_what_checks_one() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from lib import config; config.load()\n"
        "print('lib.config_check' in sys.modules)"
    )
    done = subprocess.run(
        [*PYTHON, "-c", code, str(ROOT)], capture_output=True, text=True, env=clean_environment()
    )
    assert done.stdout == "False\n", done.stderr
