"""docs/agents.md: what it says of each backend is what the backend does."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from lib import agents
from lib.agents import base, gemini
from tests.helpers import ROOT, read_document

SECTIONS = (
    *("What each backend does", "Errors", "Sessions and resume", "Other programs", "Replay"),
    *("Tokens and cost", "Trying it with the real programs"),
)
DESCRIBED = ("claude", "codex", "gemini", "perplexity", "xai", "shell", "offline")
OPTIONS: tuple[dict[str, object], ...] = (
    {},
    {"base_url": "https://host"},
    {"sandbox": True},
    {"token": "abcdefgh1"},
    {"delay": 1},
    {"env": {"OPENAI_API_KEY": "abcdefgh1"}},
)
REQUESTS: tuple[dict[str, object], ...] = (
    {},
    {"model": "m"},
    {"session_id": "s"},
    {"session_id": "s", "resume": True},
    {"is_old": True},
)


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CLAUDE", "ANTHROPIC", "DISABLE_", "CODEX", "OPENAI", "GEMINI")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def section(name: str, mark: str = "##") -> str:
    _, found, rest = read_document("agents.md").partition(f"\n{mark} {name}\n")
    assert found, name
    return re.split(rf"\n#{{2,{len(mark)}}} ", rest)[0]


def launches(tmp_path: Path) -> list[base.Launch]:
    prompt = tmp_path / "prompt.md"
    prompt.write_text("```sh\ntrue\n```\n", encoding="utf-8")
    run_dir = str(tmp_path)
    return [
        base.Launch(
            executable=None, prompt_path=str(prompt), run_dir=run_dir, cwd=run_dir,
            options=options, **request,  # type: ignore[arg-type]
        )
        for options in OPTIONS
        for request in REQUESTS
    ]  # fmt: skip


def commands(type_name: str, tmp_path: Path) -> list[list[str]]:
    return [agents.load(type_name).command(launch) for launch in launches(tmp_path)]


def shown_words(type_name: str) -> list[str]:
    block = re.findall(r"```sh\n(.*?)```", section(type_name, "###"), re.DOTALL)[0]
    lines = [line.partition("  # ")[0] for line in block.split("\n")]
    return re.sub(r"[\[\]|\\]", " ", "\n".join(lines)).split()


def rows(type_name: str) -> list[tuple[list[str], str]]:
    """The variables of each row of its table, and what they are set to."""
    found = re.findall(r"(?m)^\| (`.*?`) \| (.*?) \|", section(type_name, "###"))
    return [(re.findall(r"`(\w+)`", names), wanted) for names, wanted in found]


@pytest.mark.parametrize("type_name", DESCRIBED)
def test_its_command_lines_have_the_options_that_the_page_names(
    type_name: str, tmp_path: Path
) -> None:
    used = {word for argv in commands(type_name, tmp_path) for word in argv if word[:1] == "-"}
    assert {word for word in shown_words(type_name) if word[:1] == "-"} == used


@pytest.mark.parametrize("type_name", DESCRIBED)
def test_every_word_of_its_plain_command_line_is_on_the_page(
    type_name: str, tmp_path: Path
) -> None:
    first, *words = commands(type_name, tmp_path)[0]
    shown = shown_words(type_name)
    assert os.path.basename(first).rstrip(".0123456789") == os.path.basename(shown[0]).rstrip("3")
    for word in words:
        path = os.path.relpath(word, ROOT) if word.startswith(str(ROOT)) else os.path.basename(word)
        assert {word, path} & set(shown) or word.startswith(("https://", "{")), word


@pytest.mark.parametrize("type_name", DESCRIBED)
def test_it_sets_and_takes_out_the_variables_that_the_page_names(
    type_name: str, tmp_path: Path
) -> None:
    backend = agents.load(type_name)
    done = [
        (name, value is not None)
        for launch in launches(tmp_path)
        for name, value in backend.environment(launch).items()
        if name not in base.NESTED_SESSION_VARIABLES
    ]
    told = [
        (name, not wanted.startswith("taken out")) for names, wanted in rows(type_name) for name in names
    ]  # fmt: skip
    assert set(told) == set(done)
    assert len(told) == len(set(told))


@pytest.mark.parametrize("type_name", DESCRIBED)
def test_a_value_that_the_page_gives_is_the_one_that_is_set(type_name: str, tmp_path: Path) -> None:
    backend = agents.load(type_name)
    for names, wanted in rows(type_name):
        value = wanted.partition(",")[0]
        if value.isalnum():
            found = [backend.environment(launch) for launch in launches(tmp_path)]
            assert {changes[name] for changes in found for name in names if name in changes} == {
                value
            }


@pytest.mark.parametrize("type_name", DESCRIBED)
def test_its_key_variables_are_on_the_page_in_their_order(type_name: str) -> None:
    told = re.findall(r"(?m)^Keys: ((?:`\w+`(?:, )?)*)", section(type_name, "###"))
    expected = ", ".join(f"`{name}`" for name in agents.load(type_name).TOKEN_VARIABLES)
    assert told == ([expected] if expected else [])


def test_what_every_agent_gets_is_on_the_page() -> None:
    text = section("What each backend does")
    for name in base.NESTED_SESSION_VARIABLES:
        assert f"`{name}`" in text
    assert f"`{gemini.TEMPORARY}` in the run folder" in text


def test_its_sections_are_those_of_its_list_in_their_order() -> None:
    page = read_document("agents.md")
    listed = re.findall(r"(?m)^\d\. \[(.*?)\]\(#(.*?)\)", page)
    assert [title for title, _ in listed] == list(SECTIONS)
    assert [anchor for _, anchor in listed] == [s.lower().replace(" ", "-") for s in SECTIONS]
    assert re.findall(r"(?m)^## (.*)$", page) == list(SECTIONS)


def test_each_backend_has_a_section() -> None:
    text = section("What each backend does")
    for type_name in agents.types():
        assert re.search(rf"(?m)^### .*\b{type_name}\b", text), type_name
