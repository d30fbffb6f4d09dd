"""docs/agents.md: each configuration that it shows is one, and what it says of ready-made agents holds."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml

from lib import agents, config
from lib.agents import _ready, base, command
from tests.helpers import read_document

PAGE = read_document("agents.md")
SHOWN = re.findall(r"(?ms)^```yaml\n(.*?)^```", PAGE)
INDENTED = re.findall(r"(?m)^    agents:\n(?:^     .*\n)+", PAGE)
OWN_SECTION = PAGE.partition("\n## Other programs\n")[2].partition("\n## ")[0]
BLOCKS = [block for block in SHOWN if block in OWN_SECTION]
ENTRIES = [
    (name, number)
    for number, block in enumerate(BLOCKS)
    for name in yaml.safe_load(block).get("agents", {})
]
OTHERS = ("amp", "aider", "cursor", "goose", "antigravity", "ollama")


@pytest.fixture(autouse=True)
def token_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with the token files that the page names."""
    folder = tmp_path / ".config"
    folder.mkdir()
    for name in re.findall(r"~/\.config/([\w.-]+)", PAGE):
        (folder / name).write_text("abcdefgh12345678\n")
    monkeypatch.setenv("HOME", str(tmp_path))


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return config.load(str(path))


def launch(folder: Path, options: dict[str, object], **more: object) -> base.Launch:
    prompt = folder / "prompt.md"
    prompt.write_text("Do it.\n")
    model = options.get("model")
    return base.Launch(
        executable=None, prompt_path=str(prompt), run_dir=str(folder), cwd="/cwd",
        model=str(model) if model else None, session_id="s1", options=options, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_page_has_an_entry_for_each_program_that_it_lists() -> None:
    assert set(OTHERS) <= {name for name, _ in ENTRIES}


@pytest.mark.parametrize(("name", "number"), ENTRIES, ids=[name for name, _ in ENTRIES])
def test_each_entry_of_the_page_makes_a_command_line(
    tmp_path: Path, name: str, number: int
) -> None:
    settings = load(tmp_path, BLOCKS[number])
    options = settings.entry(name)
    backend = agents.load(str(options["type"]))
    argv = backend.command(launch(tmp_path, options))
    written = base.as_list(options["command"])
    assert argv[0] == written[0] == agents.executable_name(backend, options)
    assert all(isinstance(word, str) and word for word in argv)
    assert not [word for word in argv if re.search(r"\{\w+\}", word)]
    text = " ".join(argv)
    in_argv = "Do it.\n" in argv or str(tmp_path / "prompt.md") in argv
    assert in_argv is not command.stdin(launch(tmp_path, options))
    assert ("{prompt}" in str(written)) is ("Do it.\n" in text)
    if options.get("model"):
        assert str(options["model"]) in argv
    assert isinstance(backend.reader(options), base.Reader)
    assert set(backend.token_variables(options)) <= set(agents.all_token_variables())
    assert backend.environment(launch(tmp_path, options)) is not None


@pytest.mark.parametrize("text", [*SHOWN, *map(textwrap.dedent, INDENTED)])
def test_each_configuration_of_the_page_can_be_loaded(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)


@pytest.mark.parametrize("name", _ready.READY)
def test_what_the_page_says_of_a_ready_made_agent_is_so(tmp_path: Path, name: str) -> None:
    row = re.search(rf"(?m)^\| `{name}` \| `(.*?)` \| (.*?) \|", PAGE)
    assert row
    options = agents.complete({}, name)
    options["model"] = "PROVIDER/MODEL" if name == "opencode" else "MODEL"
    made = command.command(launch(tmp_path, options))
    assert re.sub(r"\bID\b", "s1", re.sub(r"[\[\]]", "", row[1])).split() == made
    assert command.stdin(launch(tmp_path, options))
    for variable, value in base.as_dict(options.get("env")).items():
        assert f"`{variable}={value}`" in row[2]
    assert ("`preamble: false`" in row[2]) is (options.get("preamble") is False)


@pytest.mark.parametrize("name", _ready.READY)
def test_a_ready_made_agent_is_a_command_agent_as_one_could_write_it(name: str) -> None:
    entry = dict(_ready.READY[name])
    own = {*command.SETTINGS, "env", "preamble", "login"}
    assert entry.keys() <= own
    assert "\n" not in str(entry["install"])
    assert command.executable(entry) == name
    keys = command.token_variables(entry)
    assert set(keys) <= set(base.KNOWN_TOKEN_VARIABLES)
    assert len(set(keys)) == len(keys)
    assert command.resumes(entry) is (name != "llm")


def test_every_key_of_a_command_agent_is_on_the_page() -> None:
    _, _, text = PAGE.partition("\n### A command of your own\n")
    keys = re.findall(r"(?m)^\| (`.*?`) \|", text.partition("\n### ")[0])
    named = {name for cell in keys for name in re.findall(r"`(\w+)`", cell)}
    assert named == {*command.SETTINGS, "env"}
    for kind in (*command.OUTPUTS, *command.PLACES):
        assert f"`{kind}`" in text or f"`output: {kind}`" in text
