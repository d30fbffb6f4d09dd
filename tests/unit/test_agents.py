"""The folder of backends: what it lists, what it loads, how a program is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib import agents
from lib.agents import base
from lib.errors import EXIT_USAGE, UserError
from tests.helpers import ROOT


def program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(mode)
    return path


def test_each_file_of_the_folder_is_a_type_but_for_the_shared_ones() -> None:
    folder = ROOT / "lib" / "agents"
    stems = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert agents.types() == sorted(stems - {"base", *agents.INTERNAL})
    assert {"claude", "command", "offline", "shell"} <= set(agents.types())


@pytest.mark.parametrize("name", [*agents.types(), *agents.INTERNAL])
def test_every_backend_has_what_the_runner_asks_for(name: str) -> None:
    backend = agents.load(name)
    assert backend.EXECUTABLE is None or isinstance(backend.EXECUTABLE, str)
    assert isinstance(backend.INSTALL, str)
    assert "\n" not in backend.INSTALL
    assert isinstance(backend.PACED, bool)
    assert isinstance(backend.STREAM, bool)
    assert callable(backend.command)
    assert callable(backend.environment)
    reader = backend.reader()
    assert isinstance(reader, base.Reader)
    assert reader.understood is backend.STREAM
    assert reader.outcome.success is (False if backend.STREAM else None)
    assert set(backend.TOKEN_VARIABLES) <= set(agents.all_token_variables())


@pytest.mark.parametrize("name", ["gpt", "base", "_render", "", "../errors", "a\nb", "__init__"])
def test_an_unknown_agent_is_a_usage_error_that_names_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown agent: .*; known: .*claude, .*shell") as caught:
        agents.load(name)
    assert caught.value.exit_code == EXIT_USAGE
    assert "\n" not in str(caught.value)
    told = str(caught.value).partition("; known: ")[2]
    assert not {"command", "replay"} & set(told.split(", "))  # which mean nothing by themselves


def test_tokens_of_every_model_and_of_the_server_are_known() -> None:
    known = agents.all_token_variables()
    assert len(set(known)) == len(known)
    for name in ("OPENAI_API_KEY", "XAI_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "CONDUCTOR_API_KEY"):
        assert name in known


def test_a_program_is_found_in_the_order_of_path(tmp_path: Path) -> None:
    first = program(tmp_path / "one" / "claude")
    program(tmp_path / "two" / "claude")
    path = f"{tmp_path}/none:{tmp_path}/one:{tmp_path}/two"
    assert agents.find(agents.load("claude"), path) == str(first)
    assert agents.find(agents.load("claude"), f"{tmp_path}/none") is None
    assert agents.find(agents.load("shell"), path) is None


def test_what_cannot_be_run_is_not_found(tmp_path: Path) -> None:
    program(tmp_path / "one" / "tool", mode=0o644)
    (tmp_path / "two" / "tool").mkdir(parents=True)
    path = f"{tmp_path}/one:{tmp_path}/two"
    assert agents.find_executable("tool", path) is None
    good = program(tmp_path / "three" / "tool")
    assert agents.find_executable("tool", f"{path}:{tmp_path}/three") == str(good)


def test_an_empty_entry_of_path_does_not_mean_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "tool")
    monkeypatch.chdir(tmp_path)
    assert agents.find_executable("tool", ":/nowhere:") is None
    assert agents.find_executable("tool", ".") == str(tmp_path / "tool")
    assert agents.find_executable("./tool", "/nowhere") == str(tmp_path / "tool")


def test_without_a_path_the_systems_default_is_searched() -> None:
    assert os.path.isabs(agents.find_executable("sh", None) or "")


def test_loading_a_backend_imports_no_other_and_nothing_heavy() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from lib import agents; "
        "agents.load('claude').reader(); print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code, ROOT], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert not modules & {"re", "json", "shutil", "typing", "enum", "pathlib", "dataclasses"}
    assert not modules & {"lib.agents.shell", "lib.agents.command", "lib.agents.offline"}
