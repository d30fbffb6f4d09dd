"""A token of the configuration, printed by its agent in any way, is in nothing that is kept or shown.

Raw output is the exception: it is what the agent wrote, byte by byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import runs
from lib.supervisor import CHUNK_BYTES
from tests.agent_runs import Place, processes_of
from tests.helpers import run_script, wait_until
from tests.plan_root import PlanRoot

# It looks like no token: who does not know it cannot find it.
TOKEN = "quiet-brown-fox-jumps-over-lazy-dog"
FIRST, SECOND = TOKEN[:17], TOKEN[17:]
RAW = {"agent-stdout.txt", "agent-stderr.txt", "prompt.md"}
VARIABLE = "FANCY_CREDENTIAL"  # nor does its name tell

# Waits until the supervisor has read what was written so far, then goes on.
PRELUDE = f"""#!/usr/bin/env python3
import json, os, sys, time
token = os.environ[{VARIABLE!r}]
first, second = token[:17], token[17:]
folder = os.environ["JRUN_RUN_FOLDER"]
def write(fd, text):
    data = text.encode()
    while data:
        data = data[os.write(fd, data):]
def until_shown(mark):
    while mark not in open(os.path.join(folder, "transcript.md")).read():
        time.sleep(0.01)
def event(**fields):
    return json.dumps(fields) + "\\n"
def said(*blocks):
    return event(type="assistant", message={{"content": list(blocks)}})
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def configure(place: Place, script: str, **settings: object) -> None:
    """An agent `leaky` that runs the script; nothing but its config knows the token."""
    place.program("leaky", PRELUDE + script)
    entry = {"type": "command", "command": ["leaky"], "token": TOKEN, "token_variables": [VARIABLE]}
    path = place.folder / "mine.yaml"
    path.write_text(json.dumps({"agents": {"leaky": {**entry, **settings}}}) + "\n")
    (place.cwd / "prompt.md").write_text("Do it.\n")
    place.env["CONDUCTOR_CONFIG"] = str(path)


def tool(place: Place, *words: str) -> str:
    """What a script prints to somebody who has not named the config."""
    name, *arguments = words
    env = {name: value for name, value in place.environment().items() if name != "CONDUCTOR_CONFIG"}
    done = run_script(f"bin/{name}", *arguments, "--root", str(place.root), env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def everything_shown(place: Place) -> str:
    """What anybody can have shown of the runs of a root."""
    asked = [["list-runs"], ["list-runs", "--json"], ["bus-tail", "-n", "1000"]]
    for run in place.all_runs():
        asked += [["show-run", run.run_id], ["show-run", run.run_id, "--json"]]
        names = ["stdout", "stderr", "transcript", "record"]
        names += ["output"] if os.path.exists(run.file(runs.OUTPUT)) else []
        asked += [["show-run", run.run_id, "--file", name, "-n", "0"] for name in names]
    return "\n".join([tool(place, *words) for words in asked])


def kept(root: Path) -> dict[str, str]:
    """Every file below a root that is not raw output."""
    return {
        str(path.relative_to(root)): path.read_bytes().decode("utf-8", "replace")
        for path in root.rglob("*")
        if path.is_file() and path.name not in RAW
    }


def assert_nowhere(*texts: str) -> None:
    for text in texts:
        assert TOKEN not in text


def assert_not_kept(root: Path) -> None:
    found = [name for name, text in kept(root).items() if TOKEN in text]
    assert found == []


def command_lines() -> str:
    """Those of all processes, as `ps` shows them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(lines)


HALVES = """
sys.stdin.read()
write(1, "filler\\n" * 1000 + "mark\\n" + first)
write(2, "filler\\n" * 1000 + first)
until_shown("mark")
write(1, second + " behind\\n")
write(2, second + " behind\\n")
open("ready", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
with open(os.path.join(folder, "output.md"), "w") as file:
    file.write("my answer is " + token + "\\n")
sys.exit(3)
"""


def test_a_token_in_two_halves_is_in_no_file_on_no_bus_and_on_no_screen(place: Place) -> None:
    configure(place, HALVES)
    live = place.start("leaky", ".", "--task", "t", "--follow")
    wait_until((place.cwd / "ready").exists, what="the agent has written")
    assert_nowhere(command_lines(), everything_shown(place))
    (place.cwd / "go").touch()

    code, out, err = live.end()

    assert code == 3, err
    folder = live.run_dir
    assert TOKEN in (folder / "agent-stdout.txt").read_text()
    assert TOKEN in (folder / "agent-stderr.txt").read_text()
    assert (folder / "output.md").read_text() == "my answer is [REDACTED]\n"
    assert "[REDACTED] behind" in (folder / "transcript.md").read_text()
    assert "[REDACTED] behind" in place.bus.read_text()
    assert "[REDACTED] behind" in out
    assert {"run-info.yaml", "cwd.txt"} <= {path.name for path in folder.iterdir()}
    assert_not_kept(place.root)
    shown = everything_shown(place)
    assert_nowhere(out, err, shown)
    assert "[REDACTED] behind" in shown


STREAM = """
sys.stdin.read()
write(1, event(type="system", subtype="init", session_id=token, model=token))
write(1, said({"type": "text", "text": "mark"}) + '{"type": "assistant", "message": {"content": '
    + '[{"type": "text", "text": "it is ' + first)
until_shown("mark")
write(1, second + ' indeed"}]}}\\n')
write(1, said({"type": "text", "text": first}, {"type": "text", "text": second}))
write(1, said({"type": "tool_use", "id": token, "name": token, "input": {"command": "echo " + token}}))
write(1, event(type="user", message={"content": [
    {"type": "tool_result", "tool_use_id": token, "content": ("w " * 3000) + token + (" w" * 3000)},
    {"type": "tool_result", "tool_use_id": token, "content": "the result is " + token}]}))
write(1, "no event: " + token + "\\n")
write(1, event(type="system", subtype="api_retry", attempt=1, max_retries=2, error=token))
open("ready", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
write(1, event(type="result", subtype="success", is_error=False, result="so: " + token, session_id=token))
"""


def test_a_token_in_a_stream_of_events_is_in_none_of_its_texts_and_names(place: Place) -> None:
    configure(place, STREAM, output="claude")
    live = place.start("leaky", ".", "--task", "t", "--follow")
    wait_until((place.cwd / "ready").exists, what="the agent has written")
    wait_until(lambda: live.run.text("session_id"), what="the session is recorded")
    assert_not_kept(place.root)
    (place.cwd / "go").touch()

    code, out, err = live.end()

    assert code == 0, err
    transcript = (live.run_dir / "transcript.md").read_text()
    for text in ("it is [REDACTED] indeed", "the result is [REDACTED]", "· no event: [REDACTED]"):
        assert text in transcript
    assert (live.run_dir / "output.md").read_text() == "so: [REDACTED]\n"
    assert live.run.text("session_id") == live.run.text("model") == "[REDACTED]"
    assert_not_kept(place.root)
    assert_nowhere(out, err, everything_shown(place))


BORDER = f"""
sys.stdin.read()
open("ready", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
for fd in (1, 2):
    filler = ("filler " * 10 + "\\n") * 20000
    write(fd, filler[: {CHUNK_BYTES} - len(first) - 1] + "\\n" + first + second + " behind\\n")
"""


def test_a_token_across_two_reads_of_a_repair_that_does_not_know_it_is_redacted(
    place: Place,
) -> None:
    configure(place, BORDER)
    live = place.start("leaky", ".", "--task", "t")
    place.end_without_supervisor(live)
    place.env.pop("CONDUCTOR_CONFIG")  # what repairs was never told of the config

    place.act()

    assert runs.read(str(live.run_dir)).text("status") == runs.COMPLETED
    raw = (live.run_dir / "agent-stdout.txt").read_text()
    assert raw.index(SECOND) == CHUNK_BYTES
    for name in ("transcript.md", "output.md"):
        assert (live.run_dir / name).read_text().endswith("[REDACTED] behind\n")
    assert_not_kept(place.root)
    assert_nowhere(everything_shown(place))
    assert not processes_of(live.run_id)


FAILS = """
sys.stdin.read()
write(1, "I say " + token + "\\n")
write(2, "filler\\n" * 100 + first)
time.sleep(0.05)
write(2, second + "\\n")
sys.exit(9)
"""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_token_is_not_in_what_a_plan_prints_and_keeps(tmp_path: Path, options: list[str]) -> None:
    place, root = Place(tmp_path / "place"), PlanRoot(tmp_path / "root")
    configure(place, FAILS)
    (root.work / "secret").write_text(TOKEN)
    check = "printf 'half %s' quiet-brown-fox-j; sleep 0.05; echo umps-over-lazy-dog; cat secret; exit 5"
    root.plan(
        {"id": "a", "agent": "leaky", "prompt": "Do it.\n"},
        {"id": "b", "agent": "shell", "prompt": "```sh\ncat secret\n```\n", "verify": [check]},
    )

    done = root.run(*options, env=place.environment())

    assert done.returncode == 1, done.stderr
    assert_nowhere(done.stdout, done.stderr, root.log())
    issues = (root.path / "docs" / "dev" / "issues.md").read_text()
    assert "[REDACTED]" in issues
    [report] = root.runs.glob("run_*/verify.txt")
    assert report.read_text().endswith("half [REDACTED]\n[REDACTED]")
    place.root = root.path
    shown = tool(place, "show-run", report.parent.name, "--file", "verify", "-n", "0")
    assert shown == report.read_text() + "\n"
    files = kept(root.path)
    allowed = {"plan.yaml", "work/secret"}
    found = {name for name, text in files.items() if TOKEN in text}
    assert found <= allowed, found
    assert any(name.endswith("PLAN-STATE.yaml") for name in files)
    place.close()
