"""Sessions of runs: named at once, gone on with, and what they used; programs that are too old."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from lib import procs, runs
from tests.agent_runs import Live, Place, check_settled, kill, wait_gone
from tests.agent_streams import lines_of, stream
from tests.helpers import run_script, wait_until

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
THREAD = "01a204ea-9f73-7b11-bb1c-bc1d52db8d5c"  # of codex/json-resume-first

# It keeps its arguments, a line for each start, and what stands in the record by then.
NOTE = """#!/bin/sh
[ "$1" = --version ] && {{ echo "{version}"; exit 0; }}
printf '%s ' "$@" >>args; echo >>args
cat "$JRUN_RUN_FOLDER/run-info.yaml" >record; cat >stdin
"""
SAYS = {"claude": "0.9.1 (Claude Code)", "codex": "codex-cli 0.9.1", "gemini": "0.9.1"}


def program(place: Place, name: str, text: str) -> None:
    place.program(name, NOTE.format(version=SAYS[name]) + text)


def replaying(place: Place, name: str, data: bytes) -> None:
    path = place.folder / f"{name}-stream"
    path.write_bytes(data)
    program(place, name, f"cat '{path}'\n")


def codex_turn(total: int) -> bytes:
    """A run of a thread that has used `total` times what its first run did."""
    return lines_of(
        {"type": "thread.started", "thread_id": THREAD},
        {"type": "turn.started"},
        {"type": "item.completed", "item": {"id": "i", "type": "agent_message", "text": "four"}},
        {
            "type": "turn.completed",
            "usage": {
                "input_tokens": 1200 * total,
                "cached_input_tokens": 400 * total,
                "output_tokens": 34 * total,
            },
        },
    )


def arguments(place: Place) -> list[list[str]]:
    """The arguments of each start, in their order."""
    return [line.split() for line in (place.cwd / "args").read_text().split("\n")[:-1]]


def counts(run: runs.Run) -> tuple[object, object, object]:
    return tuple(run.record.get(k) for k in ("input_tokens", "cached_tokens", "output_tokens"))  # type: ignore[return-value]


def run_again(place: Place, earlier: str, *words: str) -> runs.Run:
    """The run that goes on with that one's session."""
    known = {run.run_id for run in place.all_runs()}
    done = place.run("--resume", earlier, "--prompt", "go on", *words)
    assert done.returncode == 0, done.stderr
    [run] = [run for run in place.all_runs() if run.run_id not in known]
    return check_settled(place, run.path)


# -- named at once


@pytest.mark.parametrize("name", ["claude", "gemini"])
def test_a_session_is_named_and_recorded_before_the_agent_has_begun(
    place: Place, name: str
) -> None:
    replaying(place, name, b"")
    place.run(name, ".", "--prompt", "go")
    [words] = arguments(place)
    chosen = words[words.index("--session-id") + 1]
    assert f'session_id: "{chosen}"\n' in (place.cwd / "record").read_text()
    run = check_settled(place, place.only_run().path)
    assert run.text("session_id") == chosen  # its stream told none

    import re

    assert re.fullmatch(UUID, chosen)
    place.run(name, ".", "--prompt", "go")
    assert arguments(place)[1] != words


def test_the_session_that_codex_tells_is_recorded_at_once(place: Place) -> None:
    gate = place.gate()
    path = place.folder / "stream"
    path.write_bytes(codex_turn(1))
    program(place, "codex", f"head -n 1 '{path}'; read -r _ <'{gate.path}'; tail -n +2 '{path}'\n")
    live = place.start("codex", ".", "--prompt", "go")
    wait_until(lambda: live.run.text("session_id") == THREAD, what="the session in the record")
    assert live.run.text("status") == "running"
    gate.open()
    assert live.end()[0] == 0


# -- resumed


def test_codex_goes_on_and_each_run_has_used_what_it_used_itself(place: Place) -> None:
    replaying(place, "codex", stream("codex/json-resume-first"))
    assert place.run("codex", ".", "--prompt", "go", "--model", "m").returncode == 0
    first = place.only_run()
    assert counts(first) == (1200, 400, 34)
    assert "resumed" not in first.record

    replaying(place, "codex", codex_turn(3))
    second = run_again(place, first.run_id[4:])
    assert counts(second) == (2400, 800, 68)
    assert second.record["resumed"] is True
    shown = run_script("bin/show-run", second.run_id, "--root", str(place.root)).stdout
    assert f"{THREAD} (resumed)\n" in shown
    assert second.text("previous_run_id") == first.run_id
    assert second.record["totals_before"] == first.record["session_totals"]
    assert arguments(place)[1][-3:] == ["resume", THREAD, "-"]
    assert (place.cwd / "stdin").read_text().endswith("go on")

    # Of the first one again: what the second one used is not to be counted twice.
    replaying(place, "codex", codex_turn(4))
    third = run_again(place, first.path)
    assert counts(third) == (1200, 400, 34)

    replaying(place, "codex", codex_turn(2))  # less than before: it cannot be the whole session
    fourth = run_again(place, third.run_id)
    assert counts(fourth) == (None, None, None)


def test_figures_of_a_session_with_an_unknown_part_are_unknown_until_it_is_known_again(
    place: Place,
) -> None:
    replaying(place, "codex", codex_turn(1)[: codex_turn(1).index(b"\n") + 1])
    assert place.run("codex", ".", "--prompt", "go").returncode == 1
    first = place.only_run()
    assert first.text("session_id") == THREAD
    replaying(place, "codex", codex_turn(2))
    second = run_again(place, first.run_id)
    assert counts(second) == (None, None, None)
    assert "totals_before" not in second.record
    replaying(place, "codex", codex_turn(5))
    assert counts(run_again(place, second.run_id)) == (3600, 1200, 102)


def test_claude_and_gemini_go_on_in_the_folder_and_as_the_agent_of_the_run(place: Place) -> None:
    (place.cwd / "config.yaml").write_text("agents: {big: {type: claude, model: opus}}\n")
    replaying(place, "claude", stream("claude/v2.1.197-stream-plain"))
    other = place.folder / "other"
    other.mkdir()
    assert place.run("big", other, "--prompt", "go").returncode == 0
    first = place.only_run()
    assert first.record["cost_usd"] == 0.00505

    data = stream("claude/v2.1.197-stream-plain").replace(b"0.00505", b"0.00705")
    replaying(place, "claude", data)
    second = run_again(place, first.run_id)
    assert (second.text("agent_name"), second.text("cwd")) == ("big", str(other))
    assert second.record["cost_usd"] == 0.002
    words = (other / "args").read_text().split("\n")[1].split()
    assert words[-4:] == ["--model", "opus", "--resume", first.text("session_id")]

    replaying(place, "gemini", stream("gemini/stream-resume-first"))
    assert place.run("gemini", ".", "--prompt", "go").returncode == 0
    [of_gemini] = [run for run in place.all_runs() if run.text("agent") == "gemini"]
    again = run_again(place, of_gemini.run_id)
    assert arguments(place)[1][-2:] == ["--resume", of_gemini.text("session_id")]
    assert counts(again) == counts(of_gemini)


def test_a_run_whose_supervisor_was_killed_can_be_resumed(place: Place) -> None:
    replaying(place, "claude", stream("claude/v2.1.197-stream-plain"))
    done = place.run(
        "claude", ".", "--prompt", "go", env={"CONDUCTOR_FAULT": "kill:run-agent-ended"}
    )
    assert done.returncode == -signal.SIGKILL
    first = place.only_run()
    wait_gone(first.run_id)
    second = run_again(place, first.run_id)
    assert second.record["totals_before"] == runs.read(first.path).record["session_totals"]
    check_settled(place, first.path)


def resumed_and_waiting(place: Place) -> Live:
    replaying(place, "codex", codex_turn(1))
    assert place.run("codex", ".", "--prompt", "go").returncode == 0
    gate = place.gate()
    path = place.folder / "codex-stream"
    path.write_bytes(codex_turn(3))
    program(place, "codex", f"cat '{path}'; read -r _ <'{gate.path}'\n")
    return place.start("--resume", place.only_run().run_id, "--prompt", "go on")


def test_who_adopts_a_resumed_run_counts_its_figures_alone(place: Place) -> None:
    live = resumed_and_waiting(place)
    stdout = live.run_dir / "agent-stdout.txt"
    wait_until(lambda: stdout.stat().st_size == len(codex_turn(3)), what="the whole stream")
    kill(live.supervisor)
    live.end()
    place._gates[-1].open()
    wait_gone(live.run_id)
    place.act()
    run = check_settled(place, live.run_dir)
    assert run.text("status") == "completed"
    assert counts(run) == (2400, 800, 68)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["gemini"], "was a run of claude, and gemini cannot go on with its session"),
        (["claude", "."], ""),
        (["nobody"], "unknown agent"),
    ],
)
def test_another_agent_cannot_go_on(place: Place, words: list[str], error: str) -> None:
    for name in ("claude", "gemini"):
        replaying(place, name, stream(f"{name}/stream-resume-first"))
    assert place.run("claude", ".", "--prompt", "go").returncode == 0
    done = place.run("--resume", "run_", "--prompt", "x", *words)
    assert (done.returncode == 0) is not bool(error)
    assert_one_line(done.stderr, error)


def assert_one_line(stderr: str, text: str) -> None:
    assert text in stderr
    assert stderr.count("\n") == bool(text)


def test_what_cannot_be_resumed_is_said_in_one_line(place: Place) -> None:
    place.script("true")
    assert place.run("shell", ".", "prompt.md").returncode == 0
    shell = place.only_run().run_id
    assert place.run("offline", ".", "--prompt", "x").returncode == 0
    offline = next(r.run_id for r in place.all_runs() if r.text("agent") == "offline")
    replaying(place, "gemini", stream("gemini/stream-resume-first"))
    assert place.run("gemini", ".", "--prompt", "x").returncode == 0
    gemini = next(r.run_id for r in place.all_runs() if r.text("agent") == "gemini")
    count = len(place.all_runs())
    for words, error in (
        (["--resume", shell, "--prompt", "x"], "has no session to resume"),
        (["--resume", offline, "--prompt", "x"], "which cannot resume a session"),
        (["--resume", "nothing-like-it", "--prompt", "x"], "no run 'nothing-like-it'"),
        (["--resume", "run_", "--prompt", "x"], "names 3 runs"),
        (["--resume", gemini], "--resume needs a prompt"),
        (["--resume", gemini, "--prompt", "x", "--previous", "y"], "exclude each other"),
        (["--resume", gemini, "--prompt", "x", "--replay", "y"], "exclude each other"),
        (["--resume", gemini, "--prompt", "x", "gemini", "/"], "finds its session there only"),
    ):
        done = place.run(*words)
        assert done.returncode in (1, 2), words
        assert_one_line(done.stderr, error)
    assert len(place.all_runs()) == count


def test_a_session_that_is_at_work_is_left_alone(place: Place) -> None:
    live = resumed_and_waiting(place)
    first = next(run for run in place.all_runs() if run.run_id != live.run_id)
    for wanted in (live.run_id, first.run_id):
        done = place.run("--resume", wanted, "--prompt", "x")
        assert done.returncode == 1
        assert_one_line(done.stderr, f"{live.run_id} still runs")
    place._gates[-1].open()
    assert live.end()[0] == 0


def test_of_two_that_go_on_with_one_session_the_second_waits_until_the_first_is_seen(
    place: Place,
) -> None:
    replaying(place, "codex", codex_turn(1))
    assert place.run("codex", ".", "--prompt", "go").returncode == 0
    words = ("--resume", place.only_run().run_id, "--prompt", "x")
    first = place.popen(*words, env={"CONDUCTOR_FAULT": "stop:run-allocated"})
    wait_stopped(first.pid)  # it has looked, and nothing tells of it yet
    second = place.run(*words, env={"CONDUCTOR_LOCK_TIMEOUT": "0.1"})
    assert second.returncode == 1
    assert_one_line(second.stderr, "lock timeout: the start of another resumed run")
    kill(first.pid, signal.SIGCONT)
    first.communicate(timeout=60)
    assert first.returncode == 0
    run_again(place, words[1])  # it is let go of


# -- programs too old for their stream mode

OLD = {
    "claude": ("--output-format", "error: unknown option '--output-format'"),
    "codex": ("--json", "error: unexpected argument '--json' found"),
    "gemini": ("--session-id", "Unknown arguments: session-id, sessionId"),
}


def old_program(place: Place, name: str, then: str) -> None:
    option, error = OLD[name]
    refuse = f'case " $* " in *" {option} "*) echo "{error}" >&2; exit 1;; esac\n'
    program(place, name, refuse + then)


@pytest.mark.parametrize("name", sorted(OLD))
def test_a_program_too_old_for_its_stream_mode_runs_as_plain_text(either: Place, name: str) -> None:
    old_program(either, name, "echo working >&2; echo the answer\n")
    done = either.run(name, ".", "--prompt", "go")
    assert (done.returncode, done.stderr, done.stdout.count("PID=")) == (0, "", 1)

    run = check_settled(either, either.only_run().path)
    assert (run.text("status"), run.text("output_kind")) == ("completed", "text")
    assert run.text("agent_version") == "0.9.1"
    assert not {"session_id", "input_tokens", "cost_usd", "error_summary"} & set(run.record)
    [note] = either.messages(run.run_id, "WARNING")
    what = f"{name} 0.9.1 at {either.bin}/{name} is too old for its stream mode"
    assert what in note.body
    assert "update it: npm install -g" in note.body
    transcript = Path(run.file("transcript.md")).read_text()
    assert transcript.startswith(f"· {what}")
    assert transcript.endswith("\n\nthe answer\n")
    assert Path(run.file("output.md")).read_text() == "the answer\n"
    assert Path(run.file("agent-stderr.txt")).read_text() == "working\n"
    assert OLD[name][1] in Path(run.file("agent-stderr-1.txt")).read_text()
    first, second = arguments(either)
    assert OLD[name][0] in first
    assert not {OLD[name][0], "--session-id", "stream-json"} & set(second)
    assert (either.cwd / "stdin").read_text().endswith("go")


def test_a_program_is_started_again_once_and_its_failure_is_that_of_the_second_start(
    place: Place,
) -> None:
    old_program(place, "claude", "echo 'no way' >&2; exit 3\n")
    done = place.run("claude", ".", "--prompt", "go")
    assert done.returncode == 3
    run = check_settled(place, place.only_run().path)
    assert "no way" in run.text("error_summary")
    assert len(arguments(place)) == 2

    program(place, "claude", "echo \"error: unknown option '--tools'\" >&2; exit 1\n")
    done = place.run("claude", ".", "--prompt", "go")
    assert done.returncode == 1
    assert len(arguments(place)) == 4


@pytest.mark.parametrize(
    "text",
    [
        "echo begun; echo \"error: unknown option '--output-format'\" >&2; exit 1\n",
        "echo \"error: unknown option '--mine'\" >&2; exit 1\n",
        "echo \"error: unknown option '--output-format'\" >&2; kill -TERM $$\n",
        "echo \"error: unknown option '--output-format'\" >&2; exit 0\n",
    ],
)
def test_what_failed_for_another_reason_is_not_started_again(place: Place, text: str) -> None:
    program(place, "claude", text)
    assert place.run("claude", ".", "--prompt", "go").returncode != 0
    assert len(arguments(place)) == 1
    run = check_settled(place, place.only_run().path)
    assert place.messages(run.run_id, "WARNING") == []


def test_what_refuses_an_option_of_the_users_own_is_not_started_again(place: Place) -> None:
    own = "unattended: [--permission-mode, wrong]"
    (place.cwd / "config.yaml").write_text(f"agents: {{claude: {{{own}}}}}\n")
    said = "option '--permission-mode <mode>' argument 'wrong' is invalid. Allowed choices are a"
    program(place, "claude", f'echo "error: {said}" >&2; exit 1\n')
    assert place.run("claude", ".", "--prompt", "go").returncode == 1
    assert len(arguments(place)) == 1


@pytest.mark.parametrize(
    "harm",
    ["mkdir -p agent-stderr-1.txt/x", "rm .exit-code; mkdir -p .exit-code/x", "rm prompt.md"],
)
def test_a_program_that_cannot_be_started_again_has_ended_as_it_did(
    place: Place, harm: str
) -> None:
    old_program(place, "claude", "touch started-again\n")
    path = place.folder / "bin" / "claude"
    text = path.read_text()
    path.write_text(text.replace("\n", f'\n(cd "$JRUN_RUN_FOLDER"; {harm})\n', 1))
    done = place.run("claude", ".", "--prompt", "go")
    assert done.returncode == 1
    run = place.only_run()
    assert not (place.cwd / "started-again").exists()
    assert run.text("error_class") == "too-old"
    assert "too_old" not in run.record
    assert "output_kind" not in run.record
    for key in ("pid", "pgid", "session_id"):
        assert run.record.get(key), key
    assert "unknown option" in run.read_text(runs.STDERR, 1000)


def test_plain_text_by_choice_is_not_started_again(place: Place) -> None:
    (place.cwd / "config.yaml").write_text("agents: {claude: {output: text}}\n")
    program(place, "claude", "echo \"error: unknown option '--tools'\" >&2; exit 1\n")
    assert place.run("claude", ".", "--prompt", "go").returncode == 1
    assert len(arguments(place)) == 1


def test_plain_text_by_choice_needs_an_answer(place: Place) -> None:
    (place.cwd / "config.yaml").write_text("agents: {claude: {output: text}}\n")
    program(place, "claude", "[ ! -e ready ] || echo four\n")
    assert place.run("claude", ".", "--prompt", "go").returncode == 1
    assert "without a result" in place.only_run().text("error_summary")
    (place.cwd / "ready").touch()
    assert place.run("claude", ".", "--prompt", "go").returncode == 0


def test_a_run_that_is_stopped_between_its_two_starts_is_not_started_again(place: Place) -> None:
    old_program(place, "claude", "touch started-again\n")
    process = place.popen(
        "claude", ".", "--prompt", "go",
        env={"CONDUCTOR_FAULT": "stop:run-restart-cleared"},
    )  # fmt: skip
    wait_stopped(process.pid)
    kill(process.pid, signal.SIGTERM)
    kill(process.pid, signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    run = check_settled(place, place.only_run().path)
    assert run.record["stopped"] is True
    assert not (place.cwd / "started-again").exists()


def wait_stopped(pid: int) -> None:
    import os

    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


# -- and killed in the midst of that

AS_THE_FIRST_START_ENDED = ["replace-written", "replace-before-rename", "replace-renamed",
                            "run-restarted-as-text", "bus-locked:2", "bus-written:2"]  # fmt: skip
AS_IF_NEVER_STARTED = ["run-restart-cleared", "run-before-spawn:2", "run-spawned:2",
                       "run-pid-known:2", "extend-written:2"]  # fmt: skip


def run_killed_at(place: Place, point: str) -> runs.Run:
    old_program(place, "claude", "touch started-again; echo the answer\n")
    done = place.run("claude", ".", "--prompt", "go", env={"CONDUCTOR_FAULT": f"kill:{point}"})
    assert done.returncode == -signal.SIGKILL, f"{point} was not reached: {done.stderr}"
    run = place.only_run()
    wait_gone(run.run_id)
    assert runs.state(runs.read(run.path)).status == runs.FAILED
    place.act()
    return check_settled(place, run.path)


@pytest.mark.parametrize("point", AS_THE_FIRST_START_ENDED)
def test_killed_before_the_second_start_it_ended_as_the_first(place: Place, point: str) -> None:
    run = run_killed_at(place, point)
    assert (run.text("status"), run.number("exit_code")) == ("failed", 1)
    assert "--output-format" in run.text("error_summary")
    assert not (place.cwd / "started-again").exists()


@pytest.mark.parametrize("point", AS_IF_NEVER_STARTED)
def test_killed_at_the_second_start_it_was_never_started(place: Place, point: str) -> None:
    run = run_killed_at(place, point)
    assert (run.text("status"), run.number("exit_code")) == ("failed", -1)
    assert run.text("error_summary") == runs.NEVER_STARTED
    assert not (place.cwd / "started-again").exists()


@pytest.mark.parametrize("point", ["run-started:2", "run-agent-ended", "run-output-written",
                                   "run-ended", "run-announced"])  # fmt: skip
def test_killed_after_the_second_start_nothing_of_it_is_lost(place: Place, point: str) -> None:
    old_program(place, "claude", "echo the answer\n")
    done = place.run("claude", ".", "--prompt", "go", env={"CONDUCTOR_FAULT": f"kill:{point}"})
    assert done.returncode == -signal.SIGKILL
    run = place.only_run()
    wait_gone(run.run_id)
    place.act()
    run = check_settled(place, run.path)
    assert (run.text("status"), run.number("exit_code")) == ("completed", 0)
    assert Path(run.file("output.md")).read_text() == "the answer\n"
    transcript = Path(run.file("transcript.md")).read_text()
    assert transcript.startswith("· claude 0.9.1 at ")
    assert transcript.endswith("\n\nthe answer\n")


def test_a_second_start_that_lost_its_supervisor_is_adopted_as_plain_text(either: Place) -> None:
    gate = either.gate()
    old_program(either, "claude", f"echo one; read -r _ <'{gate.path}'; echo two\n")
    live = either.start("claude", ".", "--prompt", "go")
    stdout = live.run_dir / "agent-stdout.txt"
    wait_until(lambda: stdout.read_bytes() == b"one\n", what="the second agent's first word")
    wait_until(lambda: live.run.text("agent_start") != "", what="its pid in the record")
    assert procs.is_alive(live.run.number("pid"), live.run.text("agent_start"))
    kill(live.supervisor)
    live.end()
    gate.open()
    wait_gone(live.run_id)
    either.act()
    run = check_settled(either, live.run_dir)
    assert (run.text("status"), run.number("exit_code")) == ("completed", 0)
    assert Path(run.file("output.md")).read_text() == "one\ntwo\n"


def test_the_json_of_a_resumed_run_has_its_totals(place: Place) -> None:
    replaying(place, "codex", codex_turn(1))
    assert place.run("codex", ".", "--prompt", "go").returncode == 0
    first = place.only_run()
    replaying(place, "codex", codex_turn(2))
    done = place.run("--resume", first.run_id, "--prompt", "go", "--json")
    told = json.loads(done.stdout)
    assert told["session_totals"] == {
        "input_tokens": 2400,
        "cached_tokens": 800,
        "output_tokens": 68,
    }
    assert told["totals_before"] == first.record["session_totals"]
