"""The command backend: any CLI, from a template of its command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib import agents
from lib.agents import base, claude, command
from lib.errors import UserError


def launch(folder: Path, template: object, prompt: bytes = b"do it\n", **more: str) -> base.Launch:
    path = folder / "prompt.md"
    path.write_bytes(prompt)
    return base.Launch(
        executable="/opt/tool",
        prompt_path=str(path),
        run_dir=str(folder),
        cwd="/the/cwd",
        model=more.get("model"),
        session_id=more.get("session_id"),
        options={"command": template},
    )


def test_placeholders_are_replaced_inside_the_arguments(tmp_path: Path) -> None:
    template = ["tool", "-m={model}", "{prompt_file}", "--in={cwd}:{session_id}", "{prompt}", "--"]
    argv = command.command(launch(tmp_path, template, model="m1", session_id="s1"))
    path = str(tmp_path / "prompt.md")
    assert argv == ["/opt/tool", "-m=m1", path, "--in=/the/cwd:s1", "do it\n", "--"]


def test_other_braces_stay(tmp_path: Path) -> None:
    others = [
        "{}",
        "{",
        "}",
        "{{cwd}}",
        '{"a": {"b": 1}}',
        "{CWD}",
        "{unknown}",
        "{0}",
        "a{cwd",
        "",
    ]
    argv = command.command(launch(tmp_path, ["tool", *others]))
    assert argv[1:] == [other.replace("{cwd}", "/the/cwd") for other in others]


def test_what_is_put_in_is_not_looked_at_again(tmp_path: Path) -> None:
    argv = command.command(launch(tmp_path, ["tool", "{prompt}"], b"{cwd} {model} $(x) `y`"))
    assert argv[1] == "{cwd} {model} $(x) `y`"


def test_any_bytes_of_a_prompt_pass_through(tmp_path: Path) -> None:
    import os

    argv = command.command(launch(tmp_path, ["tool", "{prompt}"], b"\xff\xc3\xa9\n"))
    assert os.fsencode(argv[1]) == b"\xff\xc3\xa9\n"


@pytest.mark.parametrize("prompt", [b"x" * 131_072, b"a\0b", "é".encode() * 65_536])
def test_a_prompt_that_cannot_be_an_argument_is_refused_with_the_cure(
    prompt: bytes, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"use \{prompt_file\} in place of \{prompt\}"):
        command.command(launch(tmp_path, ["tool", "{prompt}"], prompt))
    assert command.command(launch(tmp_path, ["tool", "{prompt_file}"], prompt))


def test_the_longest_argument_is_allowed(tmp_path: Path) -> None:
    argv = command.command(launch(tmp_path, ["tool", "{prompt}"], b"x" * 131_071))
    assert len(argv[1]) == 131_071


def test_a_missing_model_is_said_and_a_session_is_made_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"command uses \{model\}, and there is none"):
        command.command(launch(tmp_path, ["tool", "{model}"]))
    first, second = (
        command.command(launch(tmp_path, ["tool", "{session_id}"]))[1] for _ in range(2)
    )
    assert len(first) == 36
    assert first != second


def test_numbers_of_a_template_are_taken_as_written(tmp_path: Path) -> None:
    assert command.command(launch(tmp_path, ["tool", 8080])) == ["/opt/tool", "8080"]


@pytest.mark.parametrize("template", [None, [], [""]])
def test_no_command_is_said_with_an_example(template: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="command agent without a command; give it one: command:"):
        command.command(launch(tmp_path, template))
    with pytest.raises(UserError, match="without a command"):
        command.executable({})


@pytest.mark.parametrize(
    "template", ["tool arg", {"a": 1}, ["tool", True], ["tool", None], [["x"]]]
)
def test_a_command_must_be_a_list_of_strings(template: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="command of a command agent must be a list of strings"):
        command.command(launch(tmp_path, template))


def test_its_program_is_looked_up_on_path(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("", encoding="utf-8")
    tool.chmod(0o755)
    backend = agents.load("command")
    options = {"command": ["tool", "x"]}
    assert agents.executable_name(backend, options) == "tool"
    assert agents.find(backend, str(tmp_path), options) == str(tool)
    assert agents.find(backend, "/nowhere", options) is None


def test_it_keeps_the_tokens_that_its_configuration_names() -> None:
    assert command.token_variables({}) == ()
    options = {"token_variables": ["OPENAI_API_KEY"]}
    assert command.token_variables(options) == ("OPENAI_API_KEY",)
    with pytest.raises(UserError, match="token_variables of a command agent must be a list"):
        command.token_variables({"token_variables": "X"})


def test_its_output_is_text_or_what_its_configuration_says() -> None:
    assert isinstance(command.reader(), base.TextReader)
    assert isinstance(command.reader({"output": "text"}), base.TextReader)
    assert isinstance(command.reader({"output": "claude"}), claude.StreamReader)
    with pytest.raises(UserError, match="unknown output of a command agent: xml; known: claude"):
        command.reader({"output": "xml"})
