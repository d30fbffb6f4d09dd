"""config.example.yaml: valid as it is and with every optional key, and complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lib import agents, config, config_check, paths, redact, yamlio
from lib.agents import base
from tests.helpers import ROOT

TEXT = (ROOT / "config.example.yaml").read_text(encoding="utf-8")
OPTIONAL = re.compile(r"^( *)# (?=[a-z][a-z_.-]*:( |$))", re.MULTILINE)
WHOLE = OPTIONAL.sub(r"\1", TEXT)  # every key in use


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "TOOLKIT", str(tmp_path))
    monkeypatch.setattr(redact, "_extra", [])
    monkeypatch.setattr(redact, "_own", None)
    monkeypatch.setattr(agents, "_configured_variables", [])


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(str(path))


def entries() -> dict[str, dict[str, object]]:
    found = base.as_dict(base.as_dict(yamlio.load(WHOLE))["agents"])
    return {name: base.as_dict(entry) for name, entry in found.items()}


def test_it_is_valid_and_needs_no_file_as_it_is(tmp_path: Path) -> None:
    loaded = load(tmp_path, TEXT)
    assert loaded.token_faults == {}
    assert sorted(loaded.agents) == ["claude", "codex", "gemini", "perplexity", "xai"]


def test_it_is_valid_with_every_optional_key(tmp_path: Path) -> None:
    loaded = load(tmp_path, WHOLE)
    assert {"mine", "opencode", "rehearsal", "reviewer"} < set(loaded.agents)
    assert loaded.defaults["agent"] == "claude"
    assert WHOLE.count("\n") == TEXT.count("\n")


def test_each_key_of_every_agent_is_in_it() -> None:
    used = {key for entry in entries().values() for key in entry}
    assert set(config_check.AGENT) <= used


@pytest.mark.parametrize("type_name", agents.types())
def test_each_key_of_a_backend_is_in_it(type_name: str) -> None:
    written = [
        entry for name, entry in entries().items() if str(entry.get("type") or name) == type_name
    ]
    used = {key for entry in written for key in entry} - set(config_check.AGENT)
    assert used == set(agents.load(type_name).SETTINGS)


def test_each_default_that_is_used_is_in_it() -> None:
    defaults = base.as_dict(base.as_dict(yamlio.load(WHOLE))["defaults"])
    known = base.as_dict(config_check.SECTIONS["defaults"])
    assert set(defaults) == set(known) - {keys[-1] for keys in config_check.UNUSED}


def test_each_setting_of_the_server_that_is_used_is_in_it() -> None:
    written = base.as_dict(base.as_dict(yamlio.load(WHOLE))["api"])
    known = base.as_dict(config_check.SECTIONS["api"])
    assert set(written) == set(known) - {"api_key"}  # beside api_key_file it is a fault
    unused = {keys[-1] for keys in config_check.UNUSED}
    assert set(base.as_dict(written["sse"])) == set(base.as_dict(known["sse"])) - unused


def test_each_key_is_explained_where_it_is_first_written() -> None:
    keys = re.findall(r"(?m)^    ([a-z_]+):(.*)$", WHOLE)
    for key, rest in dict(reversed(keys)).items():
        assert " # " in rest, key
