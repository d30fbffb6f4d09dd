"""The command backend: any CLI, from a template of its command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import agents, runs
from lib.agents import (
    _answer_file,
    _copilot,
    _opencode,
    _ready,
    base,
    claude,
    codex,
    command,
    gemini,
)
from lib.errors import UserError
from tests.agent_streams import assert_as_recorded, cases, read_all, stream


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


def test_a_missing_model_is_said_with_the_way_to_leave_it_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"command uses \{model\}, and there is none") as caught:
        command.command(launch(tmp_path, ["tool", "{model}"]))
    assert '[--model, "{model}"]' in str(caught.value)


def test_a_list_in_a_template_goes_where_its_value_is_missing(tmp_path: Path) -> None:
    template = ["tool", ["-m", "{model}"], "x", ["--in", "{cwd}"], ["--id={session_id}"], ["y"]]
    bare = command.command(launch(tmp_path, template))
    assert bare == ["/opt/tool", "x", "--in", "/the/cwd", "y"]
    full = command.command(launch(tmp_path, template, model="m1", session_id="s1"))
    assert full == ["/opt/tool", "-m", "m1", "x", "--in", "/the/cwd", "--id=s1", "y"]


@pytest.mark.parametrize("model", ["-x", "--yolo"])
def test_a_model_cannot_be_an_option(tmp_path: Path, model: str) -> None:
    with pytest.raises(UserError, match="must not begin with a dash"):
        command.command(launch(tmp_path, ["tool", ["-m", "{model}"]], model=model))


def test_a_prompt_cannot_be_an_option_unless_it_follows_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="prompt begins with a dash"):
        command.command(launch(tmp_path, ["tool", "{prompt}"], b"--yolo"))
    for before in ("-p", "--"):
        argv = command.command(launch(tmp_path, ["tool", before, "{prompt}"], b"--yolo"))
        assert argv == ["/opt/tool", before, "--yolo"]


def options_of(folder: Path, **options: object) -> base.Launch:
    found = launch(folder, options.get("command"))
    found.options = options
    return found


@pytest.mark.parametrize(
    ("template", "place", "argv", "on_stdin"),
    [
        (["tool"], None, [], True),
        (["tool", "{prompt}"], None, ["do it\n"], False),
        (["tool", ["-p", "{prompt}"]], None, ["-p", "do it\n"], False),
        (["tool", "--in={prompt_file}"], None, ["--in=FILE"], False),
        (["tool", "{prompt}", "{prompt_file}"], None, ["do it\n", "FILE"], False),
        (["tool", "{prompt_file}"], "stdin", ["FILE"], True),
        (["tool", "x"], "argument", ["x", "do it\n"], False),
        (["tool", "x"], "file", ["x", "FILE"], False),
        (["tool", "{prompt_file}"], "argument", ["FILE", "do it\n"], False),
        (["tool"], "stdin", [], True),
    ],
)
def test_the_prompt_is_in_one_place(
    tmp_path: Path, template: object, place: str | None, argv: list[str], on_stdin: bool
) -> None:
    made = options_of(tmp_path, command=template, prompt=place)
    file = str(tmp_path / "prompt.md")
    assert command.command(made)[1:] == [
        file if x == "FILE" else x.replace("FILE", file) for x in argv
    ]
    assert command.stdin(made) is on_stdin


def test_further_arguments_stand_behind_the_others_or_at_their_place(tmp_path: Path) -> None:
    more = {"args": ["--fast", "-C{cwd}"], "unattended": ["--yes"]}
    made = options_of(tmp_path, command=["tool", "{unattended}", "x"], **more)
    assert command.command(made)[1:] == ["--yes", "x", "--fast", "-C/the/cwd"]
    made = options_of(tmp_path, command=["tool", "{args}", "{unattended}", "x"], **more)
    assert command.command(made)[1:] == ["--fast", "-C/the/cwd", "--yes", "x"]
    made = options_of(tmp_path, command=["tool", "{args}"], prompt="argument", **more)
    assert command.command(made)[1:] == ["--fast", "-C/the/cwd", "do it\n"]
    made = options_of(tmp_path, command=["tool", "{unattended}"])
    assert command.command(made)[1:] == []


def test_a_session_is_gone_on_with_by_a_command_of_its_own(tmp_path: Path) -> None:
    options = {"command": ["tool", "{prompt}"], "resume": ["tool", "go-on", "{session_id}"]}
    assert agents.can_resume(command, options)
    assert not agents.can_resume(command, {"command": ["tool"]})
    made = options_of(tmp_path, **options)
    made.resume, made.session_id = True, "s1"
    assert command.command(made) == ["/opt/tool", "go-on", "s1"]
    assert command.stdin(made) is True
    made.options = {"command": ["tool"]}
    with pytest.raises(UserError, match="cannot be resumed: give it a resume:"):
        command.command(made)


def test_a_session_is_chosen_where_the_command_is_told_it() -> None:
    for word in ("{session_id}", "--id={session_id}"):
        assert agents.chooses_session(command, {"command": ["tool", word]})
    options = {"command": ["tool"], "resume": ["tool", "{session_id}"]}
    assert not agents.chooses_session(command, options)


def test_numbers_of_a_template_are_taken_as_written(tmp_path: Path) -> None:
    assert command.command(launch(tmp_path, ["tool", 8080])) == ["/opt/tool", "8080"]


@pytest.mark.parametrize("template", [None, [], [""]])
def test_no_command_is_said_with_an_example(template: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="command agent without a command; give it one: command:"):
        command.command(launch(tmp_path, template))
    with pytest.raises(UserError, match="without a command"):
        command.executable({})


@pytest.mark.parametrize(
    "template",
    ["tool arg", {"a": 1}, ["tool", True], ["tool", None], ["tool", []], ["tool", [["x"]]]],
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


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"command": [["tool"]]}, "must begin with its program"),
        ({"command": ["tool"], "resume": ["", "x"]}, "give it a resume:"),
        (
            {"command": ["tool"], "resume": ["other", "x"]},
            "begin with the program of command: tool",
        ),
        ({"command": ["tool"], "resume": [["tool"]]}, "resume of a command agent must begin with"),
        ({"command": ["tool"], "resume": "tool"}, "resume of a command agent must be a list"),
        ({"command": ["tool"], "prompt": "stdout"}, "unknown place for the prompt: stdout; known:"),
        ({"command": ["tool"], "output": "xml"}, "unknown output of a command agent: xml; known:"),
        ({"command": ["tool"], "output": "file"}, "output: file needs a name"),
        ({"command": ["tool"], "output": "file", "output_file": "{prompt}"}, "needs a name"),
        ({"command": ["tool"], "args": "x"}, "args of a command agent must be a list"),
        ({"command": ["tool"], "unattended": ["--yes"]}, "unattended has no place"),
        ({"command": ["tool"], "success_codes": []}, "success_codes must be a list of numbers"),
        ({"command": ["tool"], "success_codes": [256]}, "success_codes must be a list of numbers"),
        ({"command": ["tool"], "success_codes": [True]}, "success_codes must be a list of numbers"),
        ({"command": ["tool"], "success_codes": 3}, "success_codes must be a list of numbers"),
    ],
)
def test_settings_that_no_run_could_start_with_are_told_at_once(
    options: dict[str, object], fault: str
) -> None:
    with pytest.raises(UserError, match=fault) as caught:
        command.executable(options)
    assert "\n" not in str(caught.value)


KINDS = {
    "text": base.TextReader,
    "claude": claude.StreamReader,
    "codex": codex.StreamReader,
    "gemini": gemini.StreamReader,
    "copilot": _copilot.StreamReader,
    "opencode": _opencode.StreamReader,
    "last-line": base.TextReader,
    "file": base.TextReader,
}


def test_its_output_is_text_or_what_its_configuration_says() -> None:
    assert isinstance(command.reader(), base.TextReader)
    assert sorted(KINDS) == sorted(command.OUTPUTS)
    for kind, reader in KINDS.items():
        assert isinstance(command.reader({"output": kind}), reader)


@pytest.mark.parametrize("kind", ["claude", "codex", "gemini"])
def test_a_stream_that_another_backend_knows_is_read_as_there(kind: str) -> None:
    for case in cases(kind):
        outcome, _ = read_all(command.reader({"output": kind}), stream(str(case["file"])))
        assert_as_recorded(outcome, case)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (b"working\nThe answer is 4.\n", "The answer is 4."),
        (b"one\n  two \n\n \t\n", "  two "),
        (b"no newline", "no newline"),
        (b"a\xe2\x80\xa8b\n", "a\u2028b"),
        (b"x\n" * 3_000_000 + b"last\n", "last"),
    ],
)
def test_an_answer_can_be_the_last_line(text: bytes, answer: str) -> None:
    outcome, _ = read_all(command.reader({"output": "last-line"}), text)
    assert (outcome.final_text, outcome.success) == (answer, None)


@pytest.mark.parametrize("text", [b"", b"\n", b" \n\t\n"])
def test_no_line_at_all_is_no_success(text: bytes) -> None:
    outcome, _ = read_all(command.reader({"output": "last-line"}), text)
    assert (outcome.final_text, outcome.success, outcome.error) == (
        None,
        False,
        "the answer is empty",
    )


# -- answers in files


class Folders:
    """A working folder, a run, and an agent that is to leave its answer in `named`."""

    def __init__(self, folder: Path, named: str = "answer.md") -> None:
        self.cwd, self.run_dir = folder / "cwd", folder / "run"
        self.cwd.mkdir()
        self.run_dir.mkdir()
        self.run = runs.Run(str(self.run_dir), {"cwd": str(self.cwd), "session_id": "s1"})
        self.options = {"command": ["tool"], "output": "file", "output_file": named}

    def settle(self) -> base.Reader:
        """The reader of a process that has adopted the run."""
        settled = command.settled(self.options, self.run)
        assert {key: settled[key] for key in _answer_file.KEYS}.items() <= self.run.record.items()
        return command.reader({"output": "file", **self.run.record})

    def outcome(self, reader: base.Reader) -> base.Outcome:
        return read_all(reader, b"talk\n")[0]


@pytest.mark.parametrize(
    ("named", "where"),
    [
        ("answer.md", "cwd/answer.md"),
        ("new/deep/answer.md", "cwd/new/deep/answer.md"),
        ("{run_dir}/a.md", "run/a.md"),
        ("{cwd}/{session_id}.md", "cwd/s1.md"),
        ("x/../a.md", "cwd/a.md"),
    ],
)
def test_an_answer_can_be_in_a_file(tmp_path: Path, named: str, where: str) -> None:
    place = Folders(tmp_path, named)
    reader = place.settle()
    (tmp_path / where).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / where).write_text("four\n")
    outcome = place.outcome(reader)
    assert (outcome.final_text, outcome.success) == ("four\n", None)


@pytest.mark.parametrize(
    "named", ["/etc/passwd", "../x.md", "{run_dir}/../x", "", ".", "x/", "out/x"]
)
def test_a_file_elsewhere_is_refused_before_the_start(tmp_path: Path, named: str) -> None:
    place = Folders(tmp_path, named)
    (place.cwd / "out").symlink_to(tmp_path)
    with pytest.raises(UserError, match="output_file is not below the working folder"):
        place.settle()


def test_a_file_that_was_there_before_counts_once_it_has_changed(tmp_path: Path) -> None:
    place = Folders(tmp_path)
    path = place.cwd / "answer.md"
    path.write_text("old\n")
    reader = place.settle()
    outcome = place.outcome(reader)
    assert (outcome.final_text, outcome.success) == (None, False)
    assert str(outcome.note).endswith("answer.md: it is as it was before")

    reader = place.settle()
    path.write_text("new answer\n")
    assert place.outcome(reader).final_text == "new answer\n"

    reader = place.settle()
    path.unlink()
    assert str(place.outcome(reader).note).endswith(
        "it is no plain file that can be read (No such file or directory)"
    )


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\0\0\0"])
def test_an_empty_file_is_no_answer(tmp_path: Path, content: bytes) -> None:
    place = Folders(tmp_path)
    reader = place.settle()
    (place.cwd / "answer.md").write_bytes(content)
    outcome = place.outcome(reader)
    assert (outcome.success, str(outcome.note)[-11:]) == (False, "it is empty")


def test_what_is_no_plain_file_is_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not to be shown\n")
    path = tmp_path / "cwd" / "answer.md"
    place = Folders(tmp_path)
    makers: tuple[Callable[[], None], ...] = (
        lambda: path.symlink_to(secret),
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: path.symlink_to("/dev/zero"),
    )
    for make in makers:
        reader = place.settle()
        make()
        outcome = place.outcome(reader)
        assert (outcome.final_text, outcome.success) == (None, False)
        assert "it is no plain file" in str(outcome.note)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_a_folder_that_has_become_a_link_is_not_followed(tmp_path: Path) -> None:
    place = Folders(tmp_path, "sub/answer.md")
    (place.cwd / "sub").mkdir()
    reader = place.settle()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "answer.md").write_text("not to be shown\n")
    (place.cwd / "sub").rmdir()
    (place.cwd / "sub").symlink_to(elsewhere)
    outcome = place.outcome(reader)
    assert (outcome.final_text, outcome.success) == (None, False)
    assert "a folder on the way to it is a link now" in str(outcome.note)


def test_of_a_huge_file_the_beginning_is_read(tmp_path: Path) -> None:
    place = Folders(tmp_path)
    reader = place.settle()
    path = place.cwd / "answer.md"
    path.write_text("begin\n")
    os.truncate(path, 1 << 30)
    text = place.outcome(reader).final_text or ""
    assert text.startswith("begin\n")
    assert text.endswith(f"[cut here: the whole is in {path}]")
    assert len(text) < base.MAX_TEXT_BYTES + 1000


# -- failures


@pytest.mark.parametrize("kind", ["qwen", "copilot", "opencode", "llm"])
def test_a_failure_names_what_to_run_for_a_program_that_is_ready_made(kind: str) -> None:
    said = {
        "qwen": "No auth type is selected. Please configure an auth type",
        "copilot": "Error: No authentication information found.",
        "opencode": "Error: Incorrect API key provided: invalid api key",
        "llm": "Error: No key found - add one using 'llm keys set openai'",
    }
    ended = base.Ended(
        code=1, outcome=base.Outcome(), stderr=said[kind], options={"type": kind}, agent="mine"
    )
    failure = command.failure(ended)
    assert failure.kind == "login"
    assert str(_ready.READY[kind]["login"]) in failure.reason


@pytest.mark.parametrize(
    "said",
    [
        "Error: No session, task, or name matched '9'.",
        "No saved session found with ID 9. Run `qwen --resume` without an ID",
        "\x1b[91m\x1b[1mError: \x1b[0mSession not found",
    ],
)
def test_a_session_that_is_not_there_is_told_as_such(said: str) -> None:
    ended = base.Ended(code=1, outcome=base.Outcome(), stderr=said, agent="mine")
    assert command.failure(ended).kind == "no-session"


def test_exit_code_0_can_be_a_failure() -> None:
    options = {"success_codes": [3]}
    failure = command.failure(base.Ended(code=0, outcome=base.Outcome(), options=options))
    assert "exit code 0, and success_codes of the agent does not name that" in failure.reason


@pytest.mark.parametrize(("code", "kind"), [(1, "login"), (0, "failed")])
def test_a_missing_answer_is_the_reason_where_nothing_else_is(code: int, kind: str) -> None:
    outcome = base.Outcome()
    outcome.success, outcome.error, outcome.note = False, "the answer is empty", "no answer in x: y"
    stderr = "Error: invalid api key" if code else "working"
    ended = base.Ended(
        code=code, outcome=outcome, stderr=stderr, options={"output": "file"}, agent="mine"
    )
    failure = command.failure(ended)
    assert failure.kind == kind
    assert code or failure.reason == "mine failed: no answer in x: y"
