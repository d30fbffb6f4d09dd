"""Runs that fail: their record says of which class, and the first line on the bus what mends it."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from lib import ids, runs
from tests.agent_runs import Place, check_settled, wait_gone
from tests.agent_streams import STREAMS
from tests.helpers import run_script, wait_until

SHORT_GRACE = {"CONDUCTOR_STOP_GRACE": "0.2"}


def speak(place: Place, name: str, code: int, stdout: str = "", stderr: str = "") -> None:
    """A program of that name which prints this, whatever it is asked, and ends with that code."""
    for stream, text in (("out", stdout), ("err", stderr)):
        (place.bin / f"{name}.{stream}").write_text(text)
    place.program(
        name,
        f'#!/bin/sh\ncat >/dev/null\ncat "{place.bin}/{name}.out"\n'
        f'cat "{place.bin}/{name}.err" >&2\nexit {code}\n',
    )


def recorded(name: str) -> str:
    return (STREAMS / name).read_text(encoding="utf-8")


def crash_of(place: Place, run: runs.Run) -> str:
    """The first line of the message that tells of the failure."""
    [message] = place.messages(run.run_id, "RUN_CRASH")
    return message.body.split("\n")[0]


def look(place: Place, tool: str, *arguments: str) -> str:
    done = run_script(f"bin/{tool}", *arguments, "--root", place.root, env=place.environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(place: Place, agent: str, *more: str, env: dict[str, str] | None = None) -> runs.Run:
    """A run of the agent, which fails; what holds of every failure of its own has been checked."""
    (place.cwd / "prompt.md").write_text("What is two plus two?\n")
    done = place.run(agent, ".", "prompt.md", *more, env=env)
    run = check_settled(place, place.only_run().path)
    code, reason = run.number("exit_code"), run.text("error_summary")
    assert done.returncode == code
    assert done.stderr == f"run-agent.py: {reason}\n"
    assert crash_of(place, run) == (
        f"ERROR task=prompt agent={agent} exit={code} run={run.run_id}: {reason}"
    )
    return run


def test_without_a_login_the_record_and_the_bus_name_the_key_and_the_command(place: Place) -> None:
    speak(place, "claude", 1, recorded("claude/stream-nokey.stdout"))
    run = ask(place, "claude")
    assert run.text("error_class") == "login"
    assert run.text("error_summary") == (
        "claude is not logged in: set ANTHROPIC_API_KEY, or run claude and type /login"
    )
    assert "reset_time" not in run.record


def test_a_refused_key_of_the_configuration_is_mended_there(place: Place) -> None:
    speak(place, "claude", 1, recorded("claude/stream-nokey.stdout"))
    config = place.root / "config.yaml"
    config.write_text("agents:\n  claude: {token: sk-never-shown-anywhere-1}\n")
    run = ask(place, "claude", "--config", str(config))
    assert run.text("error_summary") == (
        "claude is not logged in: correct its token in the configuration, "
        "which it is given as ANTHROPIC_API_KEY"
    )


def test_a_login_that_the_settings_of_gemini_rule_out_is_not_taken_for_a_wrong_key(
    place: Place,
) -> None:
    speak(place, "gemini", 41, stderr="Invalid auth method selected.\n")
    config = place.root / "config.yaml"
    config.write_text(
        "agents:\n  gemini: {token: never-shown-anywhere-1, base_url: 'http://127.0.0.1:9'}\n"
    )
    run = ask(place, "gemini", "--config", str(config))
    assert run.text("error_class") == "login"
    assert run.text("error_summary").endswith(
        ': put "selectedType": "gemini-api-key" into its settings.json (see bin/doctor)'
    )


@pytest.mark.parametrize(
    ("agent", "code", "capture"),
    [("codex", 1, "codex/json-401"), ("gemini", 145, "gemini/stream-401")],
)
def test_a_refused_key_is_a_login_for_every_program(
    place: Place, agent: str, code: int, capture: str
) -> None:
    speak(place, agent, code, recorded(f"{capture}.stdout"), recorded(f"{capture}.stderr"))
    run = ask(place, agent)
    assert (run.text("error_class"), run.number("exit_code")) == ("login", code)


def test_a_used_up_limit_is_recorded_with_its_end(place: Place) -> None:
    reset = int(time.time()) + 7200
    message = f"Claude AI usage limit reached|{reset}"
    result = {"type": "result", "subtype": "success", "is_error": True, "result": message}
    speak(place, "claude", 1, json.dumps(result) + "\n")
    run = ask(place, "claude")
    assert run.text("error_class") == "quota"
    assert ids.parse_rfc3339(run.record["reset_time"]) == reset * 10**9
    assert f"wait until {ids.rfc3339(reset * 10**9)[:19]}Z" in run.text("error_summary")
    shown = look(place, "show-run", run.run_id)
    assert re.search(r"error class +quota\n", shown)
    assert "limit until" in shown
    [line] = look(place, "list-runs", "--json").splitlines()
    assert json.loads(line)["error_class"] == "quota"


def test_a_limit_that_is_told_on_stderr_counts_from_when_it_was_told(place: Place) -> None:
    words = "ERROR: You've hit your usage limit. Try again in 2 hours 3 minutes."
    speak(place, "codex", 1, "", f"{words}\n")
    before = time.time()
    run = ask(place, "codex")
    reset = ids.parse_rfc3339(run.record["reset_time"])
    assert run.text("error_class") == "quota"
    assert reset
    assert before - 2 < reset / 1e9 - 7380 < time.time() + 2


def test_killed_before_it_could_tell_the_repair_finds_the_same_class(place: Place) -> None:
    speak(place, "claude", 1, recorded("claude/stream-401.stdout"))
    (place.cwd / "prompt.md").write_text("What is two plus two?\n")
    fault = {"CONDUCTOR_FAULT": "kill:run-agent-ended"}
    done = place.run("claude", ".", "prompt.md", env=fault)
    assert done.returncode == -signal.SIGKILL
    run = place.only_run()
    wait_gone(run.run_id)
    assert "error_class" not in run.record
    place.act()
    run = check_settled(place, run.path)
    assert run.text("error_class") == "login"
    assert "set ANTHROPIC_API_KEY" in crash_of(place, run)


def test_a_program_without_its_interpreter_is_not_installed(place: Place) -> None:
    place.program("claude", "#!/nonexistent/node\n")
    run = ask(place, "claude")
    assert (run.text("error_class"), run.number("exit_code")) == ("not-installed", 127)
    assert "npm install -g @anthropic-ai/claude-code" in run.text("error_summary")


def test_hostile_words_stay_one_redacted_line(place: Place) -> None:
    key = "sk-ant-" + "Zy9Xw8Vu" * 6
    text = f"\x1b]0;t\x07Not logged in {key}\r\u2028x" + "y" * 50_000
    speak(place, "claude", 1, "", f"{text}\n")
    run = ask(place, "claude")
    assert run.text("error_class") == "login"
    for shown in (run.text("error_summary"), crash_of(place, run)):
        assert key not in shown
        assert shown.isprintable()


@pytest.mark.parametrize(
    ("option", "kind"), [("--timeout", "timeout"), ("--idle-timeout", "silence")]
)
def test_a_run_stopped_by_its_limits_has_their_class(place: Place, option: str, kind: str) -> None:
    place.script("echo begun; sleep 600")
    place.run("shell", ".", "prompt.md", option, "0.3", env=SHORT_GRACE)
    run = check_settled(place, place.only_run().path)
    assert run.text("error_class") == kind
    assert "stopped" not in run.record


def test_a_run_stopped_by_a_person_has_no_class(place: Place) -> None:
    place.script("echo begun; sleep 600")
    live = place.start("shell", ".", "prompt.md", env=SHORT_GRACE)
    wait_until(lambda: bool((live.run_dir / "agent-stdout.txt").read_text()), what="its output")
    live.signal(signal.SIGTERM)
    live.end()
    run = check_settled(place, live.run_dir)
    assert run.record["stopped"] is True
    assert "error_class" not in run.record


def test_a_run_that_succeeded_or_has_lost_all_witnesses(place: Place) -> None:
    place.script("true")
    place.run("shell", ".", "prompt.md")
    run = check_settled(place, place.only_run().path)
    assert (run.text("status"), "error_class" in run.record) == ("completed", False)


def test_a_run_whose_agent_never_started_is_lost(place: Place) -> None:
    place.script("true")
    place.run("shell", ".", "prompt.md", env={"CONDUCTOR_FAULT": "kill:run-recorded"})
    run = place.only_run()
    wait_gone(run.run_id)
    place.act()
    run = check_settled(place, run.path)
    assert (run.text("error_summary"), run.text("error_class")) == (runs.NEVER_STARTED, "lost")


def test_a_run_that_cannot_be_begun_was_asked_for_in_vain(place: Place) -> None:
    (place.cwd / "prompt.md").write_text("no script in here\n")
    done = place.run("shell", ".", "prompt.md")
    run = place.only_run()
    assert done.returncode
    assert (run.text("status"), run.text("error_class")) == ("failed", "bad-request")
    assert Path(run.path).is_dir()
