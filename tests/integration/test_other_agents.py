"""Any other program as an agent: by its name alone, or by what config.yaml says of it.

The programs are scripts on PATH that note what they were given and print what the real ones did.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from lib import runs
from lib.agents import _ready
from lib.errors import EXIT_NOT_FOUND, EXIT_USAGE
from tests.agent_runs import Place, check_settled, kill, wait_gone
from tests.agent_streams import STREAMS
from tests.helpers import PYTHON, ROOT, clean_environment, run_script, wait_until
from tests.machine import Machine
from tests.plan_root import PlanRoot

NOTE = "env >given-env\ncat >given-stdin\nprintf '%s\\n' \"$@\" >given-args\n"
PROMPT = "What is two plus two?\n"


def program(place: Place, name: str, capture: str, code: int = 0) -> None:
    """A program of that name that prints a recorded output."""
    path = STREAMS / f"{capture}.stdout"
    place.program(name, f"#!/bin/sh\n{NOTE}cat '{path}'\nexit {code}\n")


def configure(place: Place, **agents: Mapping[str, object]) -> None:
    (place.cwd / "config.yaml").write_text(json.dumps({"agents": agents}))  # JSON is YAML


def tool(place: Place, script: str, **options: object) -> None:
    """An agent `mine` that is a shell script; what it has for `command` is put behind it."""
    more = options.pop("command", [])
    assert isinstance(more, list)
    place.program("my-tool", f"#!/bin/sh\n{script}\n")
    configure(place, mine={"type": "command", "command": ["my-tool", *more], **options})


def ask(
    place: Place, agent: str = "mine", *more: str, env: dict[str, str] | None = None
) -> runs.Run:
    """A run of the agent that has succeeded."""
    done = place.run(agent, ".", "--prompt", PROMPT, *more, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    run_dir = dict(line.split("=", 1) for line in done.stdout.split("\n")[:3])["RUN_DIR"]
    run = check_settled(place, run_dir)
    assert run.text("status") == "completed"
    return run


def fail(place: Place, agent: str = "mine") -> tuple[int, runs.Run]:
    """The exit code and the run of the agent, which has failed with one line on stderr."""
    done = place.run(agent, ".", "--prompt", PROMPT)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    run = check_settled(place, place.only_run().path)
    assert run.text("error_summary") in done.stderr
    return done.returncode, run


def given(place: Place, what: str) -> str:
    return (place.cwd / f"given-{what}").read_text()


def answer(run: runs.Run) -> str:
    return Path(run.file("output.md")).read_text()


# -- programs that need no more than their name

READY = {
    "qwen": (
        "qwen/stream-tool-preamble",
        ["--approval-mode", "yolo", "--output-format", "stream-json", "--session-id", "ID"],
        "QWEN_CODE_NO_RELAUNCH=true",
    ),
    "opencode": (
        "opencode/json-tool",
        ["run", "--auto", "--format", "json"],
        "OPENCODE_DISABLE_AUTOUPDATE=1",
    ),
    "copilot": (
        "copilot/json-tool",
        [*_ready.READY["copilot"]["unattended"], "--output-format", "json", "--session-id", "ID"],  # type: ignore[misc]
        "COPILOT_AUTO_UPDATE=false",
    ),
    "llm": ("llm/text-plain", [""], ""),
}
FIGURES = {"qwen": (2400, 800, 68), "opencode": (2400, 800, 68)}
OTHERS_KEY = {"qwen": "XAI_API_KEY", "copilot": "OPENAI_API_KEY"}


def test_each_program_that_is_ready_made_is_tried_here() -> None:
    assert READY.keys() == _ready.READY.keys()


@pytest.mark.parametrize("name", READY)
def test_a_known_program_needs_no_configuration(place: Place, name: str) -> None:
    capture, arguments, variable = READY[name]
    program(place, name, capture)
    own = str(_ready.READY[name]["token_variables"][0])  # type: ignore[index]
    other = OTHERS_KEY.get(name, "CURSOR_API_KEY")
    run = ask(place, name, env={own: "tok-own-123456789", other: "tok-other-123456789"})

    assert (run.text("agent"), "agent_name" in run.record) == (name, False)
    assert "STUB-ANSWER for" in answer(run)
    assert run.text("session_id") or name == "llm"
    figures = tuple(run.record.get(f"{key}_tokens") for key in ("input", "cached", "output"))
    assert figures == FIGURES.get(name, (None, None, None))
    expected = [run.text("session_id") if word == "ID" else word for word in arguments]
    if capture.startswith(("qwen", "copilot")):  # the recorded stream tells another one
        expected[-1] = given(place, "args").split("\n")[-2]
    assert given(place, "args").split("\n")[:-1] == expected
    assert given(place, "stdin") == Path(run.file("prompt.md")).read_text()
    environment = given(place, "env").split("\n")
    assert variable in environment or not variable
    assert f"{own}=tok-own-123456789" in environment
    assert not [line for line in environment if line.startswith(f"{other}=")]
    has_preamble = "JRUN_RUN_FOLDER=" in given(place, "stdin")
    assert has_preamble is (name != "llm")


@pytest.mark.parametrize("name", ["qwen", "copilot"])
def test_its_session_is_in_the_record_before_it_tells_one(place: Place, name: str) -> None:
    record = 'cat "$JRUN_RUN_FOLDER/run-info.yaml" >given-record'
    place.program(name, f"#!/bin/sh\n{NOTE}{record}\nexit 1\n")
    _, run = fail(place, name)
    session = given(place, "args").split("\n")[-2]
    assert len(session) == 36
    assert f'session_id: "{session}"' in given(place, "record")
    assert run.text("session_id") == session


@pytest.mark.parametrize("where", ["option", "name", "type"])
def test_a_model_is_passed_on_to_a_known_program(place: Place, where: str) -> None:
    program(place, "opencode", "opencode/json-tool")
    configure(
        place,
        **({"opencode": {"model": "a/b", "env": {"MORE": "1"}}} if where == "name" else {}),
        **({"mine": {"type": "opencode", "model": "a/b"}} if where == "type" else {}),
    )
    more = ["--model", "a/b"] if where == "option" else []
    run = ask(place, "mine" if where == "type" else "opencode", *more)
    assert given(place, "args").split("\n")[-3:] == ["--model", "a/b", ""]
    environment = given(place, "env").split("\n")
    assert "OPENCODE_DISABLE_AUTOUPDATE=1" in environment
    assert ("MORE=1" in environment) is (where == "name")
    assert (run.text("agent"), run.text("model")) == ("opencode", "a/b")
    assert run.text("agent_name") == ("mine" if where == "type" else "")


def test_what_the_user_writes_of_a_known_program_wins(place: Place) -> None:
    program(place, "opencode", "opencode/json-tool")
    env = {"OPENCODE_DISABLE_AUTOUPDATE": None, "MORE": "1"}
    own = {"unattended": [], "args": ["--agent", "build"], "env": env, "preamble": False}
    configure(place, opencode={**own, "token": "tok-own-123456789", "token_variables": ["A_KEY"]})
    ask(place, "opencode", env={"OPENAI_API_KEY": "tok-other-123456789"})
    arguments = given(place, "args").split("\n")[:-1]
    assert arguments == ["run", "--format", "json", "--agent", "build"]
    environment = given(place, "env").split("\n")
    assert {"MORE=1", "A_KEY=tok-own-123456789"} <= set(environment)
    assert not [x for x in environment if x.startswith(("OPENCODE_DISABLE", "OPENAI_API_KEY"))]
    assert given(place, "stdin") == PROMPT


def test_with_a_command_of_ones_own_the_rest_of_the_command_line_is_ones_own(place: Place) -> None:
    program(place, "other", "llm/text-plain")
    configure(place, opencode={"command": ["other", "{model}"], "model": "m"})
    run = ask(place, "opencode")
    assert given(place, "args") == "m\n"
    assert answer(run) == "STUB-ANSWER for What is two plus two?\n"
    assert "OPENCODE_DISABLE_AUTOUPDATE=1" in given(place, "env").split("\n")


@pytest.mark.parametrize("name", READY)
def test_a_known_program_that_is_missing_is_told_with_its_installation(
    place: Place, name: str
) -> None:
    done = place.run(name, ".", "--prompt", PROMPT, env={"PATH": f"{place.bin}:/usr/bin:/bin"})
    assert done.returncode == EXIT_NOT_FOUND
    assert done.stderr.count("\n") == 1
    assert f"install it: {_ready.READY[name]['install']}" in done.stderr
    assert not list(place.root.iterdir())


def test_a_program_of_ones_own_that_is_missing_is_told_with_its_installation(place: Place) -> None:
    own = {"type": "command", "command": ["no-such-tool"], "install": "pipx install no-such-tool"}
    configure(place, mine=own)
    done = place.run("mine", ".", "--prompt", PROMPT)
    assert done.returncode == EXIT_NOT_FOUND
    assert done.stderr.endswith("is not on PATH; install it: pipx install no-such-tool\n")


def test_an_unknown_agent_is_told_with_all_that_are_known(place: Place) -> None:
    done = place.run("opncode", ".", "--prompt", PROMPT)
    assert done.returncode == EXIT_USAGE
    for name in (*READY, "claude", "those in config.yaml"):
        assert name in done.stderr.partition("known: ")[2]


@pytest.mark.parametrize(
    ("name", "capture", "code", "says"),
    [
        ("qwen", "qwen/stream-401", 0, "invalid API key"),
        ("qwen", "qwen/stream-nokey", 1, "No auth type is selected"),
        ("opencode", "opencode/json-401", 1, "invalid API key"),
        ("copilot", "copilot/json-401", 1, "Authentication failed"),
    ],
)
def test_a_wrong_key_is_a_failure_of_its_class(
    place: Place, name: str, capture: str, code: int, says: str
) -> None:
    program(place, name, capture, code)
    _, run = fail(place, name)
    assert (run.number("exit_code"), run.text("error_class")) == (code, "login")
    assert says in run.text("error_summary")
    assert run.text("error_summary").endswith(str(_ready.READY[name]["login"]))


@pytest.mark.parametrize(
    ("name", "capture", "last"),
    [
        ("qwen", "qwen/stream-tool-preamble", ["--resume", "ID"]),
        ("opencode", "opencode/json-tool", ["--session", "ID"]),
        ("copilot", "copilot/json-tool", ["--resume=ID"]),
    ],
)
def test_a_session_of_a_known_program_can_be_resumed(
    place: Place, name: str, capture: str, last: list[str]
) -> None:
    program(place, name, capture)
    first = ask(place, name)
    if name == "qwen":
        program(place, name, "qwen/stream-resumed")
    session = first.text("session_id")
    done = place.run("--resume", first.run_id, "--prompt", "And three?")
    assert (done.returncode, done.stderr) == (0, "")
    [run] = [run for run in place.all_runs() if run.run_id != first.run_id]
    words = given(place, "args").split("\n")[:-1]
    assert words[-len(last) :] == [word.replace("ID", session) for word in last]
    assert run.record["resumed"] is True
    if name == "qwen":
        assert run.record["input_tokens"] == 2400, "of this run, not of the session"


# -- commands from the configuration


def test_exit_codes_that_are_no_failure(place: Place) -> None:
    tool(place, "echo four; exit 3", success_codes=[0, 3])
    run = ask(place)
    assert (run.number("exit_code"), run.record["success_codes"]) == (3, [0, 3])
    assert "error_summary" not in run.record
    [stop] = place.messages(run.run_id, "RUN_STOP")
    assert stop.body.startswith("run stopped with code 3\n")
    looked = run_script("bin/check-storage", place.root, cwd=place.cwd)
    assert looked.returncode == 0, looked.stdout


def test_exit_code_0_that_is_a_failure(place: Place) -> None:
    tool(place, "echo four", success_codes=[3])
    code, run = fail(place)
    assert (code, run.number("exit_code"), run.text("status")) == (1, 0, "failed")
    assert "success_codes of the agent does not name that" in run.text("error_summary")


@pytest.mark.parametrize("code", [0, 3, 4])
def test_who_adopts_a_run_knows_its_exit_codes_and_its_file(place: Place, code: int) -> None:
    gate = place.gate()
    script = f": >begun; read -r _ <'{gate.path}'; echo four >out/answer.md; exit {code}"
    options = {"output": "file", "output_file": "out/answer.md", "success_codes": [0, 3]}
    (place.cwd / "out").mkdir()
    (place.cwd / "out" / "answer.md").write_text("old\n")
    tool(place, script, **options)
    live = place.start("mine", ".", "--prompt", PROMPT)
    wait_until((place.cwd / "begun").exists, what="the agent's start")
    kill(live.supervisor)
    live.process.wait()
    gate.open()
    wait_gone(live.run_id)
    seen = runs.state(live.run)
    assert (seen.status, seen.exit_code) == ("failed" if code == 4 else "completed", code)
    place.act()
    run = check_settled(place, live.run_dir)
    assert run.number("exit_code") == code
    assert run.text("status") == ("failed" if code == 4 else "completed")
    assert answer(run) == "four\n"


def test_the_name_of_a_file_can_be_one_that_no_other_run_has(place: Place) -> None:
    tool(
        place,
        'echo "four for $1" >"$1.md"',
        command=["{session_id}"],
        output="file",
        output_file="{session_id}.md",
    )
    for _ in range(2):
        run = ask(place)
        assert answer(run) == f"four for {run.text('session_id')}\n"
        assert run.text("output_file") == f"{place.cwd}/{run.text('session_id')}.md"


def test_an_answer_from_a_file_of_a_huge_size_is_cut(place: Place) -> None:
    script = 'echo four >"$JRUN_RUN_FOLDER/a.md"; truncate -s 1G "$JRUN_RUN_FOLDER/a.md"'
    tool(place, script, output="file", output_file="{run_dir}/a.md")
    run = ask(place)
    assert answer(run).startswith("four\n")
    assert Path(run.file("output.md")).stat().st_size < 5 << 20


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo talk", "it was not written"),
        ("mkfifo answer.md", "it is no plain file"),
        ("ln -s /etc/passwd answer.md", "it is no plain file"),
        ("truncate -s 1G answer.md", "it is empty"),
    ],
)
def test_without_an_answer_in_its_file_it_has_failed(place: Place, script: str, why: str) -> None:
    tool(place, script, output="file", output_file="answer.md")
    code, run = fail(place)
    assert (code, run.number("exit_code"), run.text("error_class")) == (1, 0, "failed")
    assert why in run.text("error_summary")
    assert "root:" not in answer(run)


def test_a_file_elsewhere_is_refused(place: Place) -> None:
    tool(place, "echo talk", output="file", output_file="/etc/passwd")
    done = place.run("mine", ".", "--prompt", PROMPT)
    assert done.returncode == 1
    assert "output_file is not below the working folder: /etc/passwd" in done.stderr
    check_settled(place, place.only_run().path)


def test_the_last_line_can_be_the_answer(place: Place) -> None:
    tool(place, "echo thinking; echo four; echo", output="last-line")
    run = ask(place)
    assert answer(run) == "four\n"
    assert Path(run.file("transcript.md")).read_text() == "thinking\nfour\n\n"


def test_a_variable_can_be_set_and_unset(place: Place) -> None:
    tool(place, NOTE, env={"SET_BY_USER": "1", "HTTP_PROXY": None})
    ask(place, env={"HTTP_PROXY": "http://proxy:3128", "KEPT": "yes"})
    environment = given(place, "env").split("\n")
    assert {"SET_BY_USER=1", "KEPT=yes"} <= set(environment)
    assert not [line for line in environment if line.startswith("HTTP_PROXY=")]


@pytest.mark.parametrize("place_of_prompt", ["argument", "file"])
def test_where_the_prompt_is_not_on_stdin_that_is_empty(place: Place, place_of_prompt: str) -> None:
    tool(place, f'{NOTE}cat "$1"', prompt=place_of_prompt, preamble=False)
    if place_of_prompt == "argument":
        tool(place, NOTE, prompt=place_of_prompt, preamble=False)
    run = ask(place)
    assert given(place, "stdin") == ""
    assert run.text("commandline").endswith(" < /dev/null")
    word = run.file("prompt.md") if place_of_prompt == "file" else PROMPT
    assert given(place, "args") == f"{word}\n"


def test_a_large_prompt_goes_through_a_file_and_not_through_an_argument(place: Place) -> None:
    text = "Count these: " + "x" * 200_000
    (place.cwd / "prompt.md").write_text(text)
    tool(place, 'tail -c 200013 "$1"', command=["{prompt_file}"])
    done = place.run("mine", ".")
    assert (done.returncode, done.stderr) == (0, "")
    assert answer(place.only_run()).rstrip("\n") == text

    tool(place, "echo never", command=["{prompt}"])
    done = place.run("mine", ".")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "has 128 KiB or more, or a NUL; use {prompt_file} in place of {prompt}" in done.stderr


# -- the doctor, and plans


def test_the_doctor_tells_of_known_programs_that_are_here_or_configured(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.install("opencode", "echo 1")
    machine.install("llm", "echo 1")
    (machine.cwd / "config.yaml").write_text("agents: {qwen: {model: m}, mine: {type: llm}}\n")
    done = machine.doctor("--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["agent opencode"]["state"] == checks["agent mine"]["state"] == "ok"
    assert str(_ready.READY["qwen"]["install"]) in checks["agent qwen"]["cure"]
    assert "agent copilot" not in checks
    assert "agent llm" not in checks, "mine is one"
    assert checks["agent opencode login"]["cure"] == _ready.READY["opencode"]["login"]


def test_a_plan_can_ask_for_a_known_program(tmp_path: Path) -> None:
    root = PlanRoot(tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "opencode"
    path.write_text(f"#!/bin/sh\ncat >/dev/null\ncat '{STREAMS / 'opencode/json-tool.stdout'}'\n")
    path.chmod(0o755)
    root.plan({"id": "a", "agent": "opencode", "prompt": "Do it."})
    done = root.run(env={"PATH": f"{folder}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert root.states() == {"a": "done"}
    [run] = runs.listing(str(root.runs))
    assert run.text("agent") == "opencode"


def test_a_plan_without_a_known_program_says_how_to_install_it(tmp_path: Path) -> None:
    root = PlanRoot(tmp_path)
    root.plan({"id": "a", "agent": "opencode", "prompt": "Do it."})
    done = root.run(env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 3
    assert f"to install opencode: {_ready.READY['opencode']['install']}" in done.stderr


# -- a new backend

PARROT = '''
"""Says the prompt again."""

from __future__ import annotations

from lib.agents import base

EXECUTABLE = "cat"
INSTALL = "it is part of every system"
TOKEN_VARIABLES: tuple[str, ...] = ()
PACED = False
STREAM = False


def command(launch):
    return [launch.executable]


def environment(launch):
    return {}


def reader(options=None):
    return base.TextReader()
'''


def test_a_new_backend_is_one_new_file(tmp_path: Path) -> None:
    toolkit = tmp_path / "toolkit"
    for name in ("bin", "lib", "prompts"):
        shutil.copytree(ROOT / name, toolkit / name)
    for name in ("run-agent.py", "run-all-tasks.py"):
        shutil.copy2(ROOT / name, toolkit / name)
    (toolkit / "lib" / "agents" / "parrot.py").write_text(PARROT)
    work = tmp_path / "work"
    work.mkdir()

    def call(name: str, *arguments: str) -> tuple[int, str]:
        command = [*PYTHON, str(toolkit / name), *arguments, "--root", str(tmp_path / "root")]
        done = subprocess.run(
            command,
            cwd=work,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )
        return done.returncode, done.stdout + done.stderr

    code, told = call("run-agent.py", "parrot", ".", "--prompt", "Polly wants a cracker")
    assert code == 0, told
    run_dir = dict(line.split("=", 1) for line in told.split("\n")[:3])["RUN_DIR"]
    assert "Polly wants a cracker" in (Path(run_dir) / "output.md").read_text()
    assert ", parrot, " in call("run-agent.py", "parot", ".", "--prompt", "x")[1]
    assert "ok    agent parrot: " in call("bin/doctor")[1]
    plan = {
        "project": "p",
        "defaults": {"cwd": str(work)},
        "stages": [{"id": "s", "tasks": [{"id": "t", "agent": "parrot", "prompt": "Hello"}]}],
    }
    (work / "plan.yaml").write_text(json.dumps(plan))
    code, told = call("run-all-tasks.py", "plan.yaml")
    assert code == 0, told
