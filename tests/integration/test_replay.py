"""Recorded runs that are played again, as real processes: the same in all that can be compared."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import yaml

from lib import ids, recovery, runs, timing
from tests.agent_runs import CAPTURES, Place, check_settled, kill, wait_gone
from tests.helpers import run_script, wait_until
from tests.recordings import STREAMS, answering, facts_of, record
from tests.rest_service import Service, recorded, stream

DATA = CAPTURES.parent


def config(place: Place, **agents: object) -> Path:
    path = place.folder / "config.yaml"
    path.write_text(yaml.safe_dump({"agents": agents}))
    return path


def play(place: Place, agent: str, *arguments: str | Path) -> runs.Run:
    """Run an agent of the config once more; its run, the newest."""
    before = {run.path for run in place.all_runs()} if place.runs_dir.exists() else set()
    prompt = () if "--replay" in arguments else ("--prompt", "Do it.")
    path = place.folder / "config.yaml"
    given = ("--config", path) if path.exists() else ()
    place.run(agent, ".", *prompt, *given, *arguments)
    [new] = [run for run in place.all_runs() if run.path not in before]
    return check_settled(place, new.path)


def replayed(place: Place, run: runs.Run) -> runs.Run:
    name = run.text("agent_name") or run.text("agent")
    return play(place, name, "--replay", run.run_id, "--speed", "0")


def assert_alike(run: runs.Run, again: runs.Run) -> None:
    assert facts_of(Path(again.path)) == facts_of(Path(run.path))
    assert again.text("agent") == "replay"
    assert again.text("replay_of") == run.run_id
    assert again.text("task_id") == run.text("task_id")
    assert Path(again.file(runs.PROMPT)).read_bytes() == Path(run.file(runs.PROMPT)).read_bytes()


# -- what was recorded comes again


@pytest.mark.parametrize(
    ("capture", "code"),
    [
        ("claude/stream-tool", 0),
        ("claude/stream-429", 1),
        ("claude/stream-tool", 1),
        ("claude/stream-sigterm", 143),
        ("codex/json-tool", 0),
        ("codex/json-401", 1),
        ("gemini/stream-tool", 0),
        ("gemini/stream-401", 145),
    ],
)
def test_a_replay_of_a_cli_has_its_transcript_answer_figures_and_exit_code(
    place: Place, capture: str, code: int
) -> None:
    agent = capture.partition("/")[0]
    place.env["CODEX_HOME"] = str(place.folder)
    text = f"cat >/dev/null; cat '{DATA / capture}.stdout'; echo some noise >&2; exit {code}"
    place.program(agent, f"#!/bin/sh\n{text}\n")
    run = play(place, agent)
    assert run.number("exit_code") == code
    if not code:
        assert (run.text("status"), run.number("tool_calls")) == ("completed", 1)
        assert run.number("output_tokens") > 0
    assert_alike(run, replayed(place, run))


@pytest.mark.parametrize("agent", ["claude", "codex", "gemini"])
def test_a_replay_of_plain_text_is_read_as_that(place: Place, agent: str) -> None:
    place.env["CODEX_HOME"] = str(place.folder)
    place.program(agent, "#!/bin/sh\ncat >/dev/null\necho 'the answer'\n")
    config(place, **{agent: {"output": "text"}})
    run = play(place, agent)
    assert Path(run.file(runs.OUTPUT)).read_text() == "the answer\n"
    assert_alike(run, replayed(place, run))


@pytest.mark.parametrize("agent", ["perplexity", "xai"])
def test_a_replay_of_a_web_service_asks_nobody(place: Place, agent: str) -> None:
    name = {"perplexity": "perplexity-agent-stream.sse", "xai": "xai-stream.sse"}[agent]
    place.env[f"{agent.upper()}_API_KEY"] = "key-0123456789abcdefTEST"
    with Service(stream(recorded(name))) as service:
        config(place, **{agent: {"base_url": service.url}})
        run = play(place, agent)
    assert run.text("status") == "completed", run.record
    assert run.number("output_tokens") > 0
    assert_alike(run, replayed(place, run))


@pytest.mark.parametrize(
    "script",
    [
        "echo one; echo two >&2",
        "printf 'no line end'; exit 3",
        "printf 'an answer of its own' >\"$JRUN_RUN_FOLDER/output.md\"; echo noise",
        "printf '\\377\\000\\033[31m bytes'",
        "echo bye; kill -9 $$",
        "kill -s SEGV $$",
        ":",
    ],
)
def test_a_replay_of_a_script_writes_the_same_bytes_and_ends_the_same_way(
    place: Place, script: str
) -> None:
    place.script(script)
    done = place.run("shell", ".", "prompt.md")
    run = check_settled(place, place.only_run().path)
    again = replayed(place, run)
    assert facts_of(Path(again.path)) == facts_of(Path(run.path))
    assert again.number("exit_code") == run.number("exit_code") == done.returncode


def test_a_replay_can_be_replayed(place: Place) -> None:
    run = play(place, "offline")
    again = replayed(place, run)
    third = play(place, "offline", "--replay", again.path, "--speed", "0")
    assert facts_of(Path(third.path)) == facts_of(Path(run.path))
    assert third.text("replay_of") == again.run_id


def test_a_resumed_run_is_replayed_with_the_figures_of_the_run_alone(place: Place) -> None:
    before = {"input_tokens": 1000, "cached_tokens": 300, "output_tokens": 30}
    data = (DATA / "codex/json-plain.stdout").read_bytes()
    folder = place.folder / "recorded"
    record(folder, agent="codex", stdout=data, resumed=True, totals_before=before)
    run = play(place, "codex", "--replay", folder, "--speed", "0")
    assert (run.number("input_tokens"), run.number("output_tokens")) == (200, 4)


# -- its time


def test_a_run_of_more_than_a_second_leaves_its_timing_and_a_replay_keeps_it(place: Place) -> None:
    until_seen = 'until grep -q one "$JRUN_RUN_FOLDER/transcript.md"; do sleep 0.02; done'
    place.script(f"echo one; {until_seen}; sleep 0.2; echo two >&2; echo three; sleep 1")
    place.run("shell", ".", "prompt.md")
    run = place.only_run()
    written = ((4, 0), (4, 4), (10, 4))
    points = timing.parse(Path(run.file(runs.TIMING)).read_text())
    assert (points[0][1:], points[-1][1:]) == (written[0], written[-1])
    assert {point[1:] for point in points} <= set(written)
    assert points[-1][0] >= 1.2

    again = play(place, "shell", "--replay", run.run_id)
    points = timing.parse(Path(again.file(runs.TIMING)).read_text())
    assert {point[1:] for point in points} <= set(written)
    assert points[-1][0] >= 1.2
    assert Path(again.file(runs.STDERR)).read_text() == "two\n"


def test_without_a_timing_its_lines_come_spread_over_the_time_it_took(place: Place) -> None:
    folder = record(place.folder / "recorded", agent="shell", stdout=b"1\n2\n3\n4\n")  # in 4 s
    run = play(place, "shell", "--replay", folder, "--speed", "3")
    points = timing.parse(Path(run.file(runs.TIMING)).read_text())
    assert {out for _, out, _ in points} <= {2, 4, 6, 8}  # whole lines, as many as were seen
    assert points[-1][0] >= 4 / 3


def test_a_recording_is_only_looked_at(place: Place) -> None:
    folder = record(
        place.folder / "recorded",
        stdout=answering("claude", "Yes."),
        output=b"its own\n",
        timing="0.1 10 0\n0.2 20 0\n",
    )

    def tree() -> dict[str, tuple[int, bytes]]:
        found = sorted(folder.iterdir())
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in [*found] if p.is_file()}

    before = tree(), folder.stat().st_mtime_ns
    run = play(place, "claude", "--replay", folder, "--speed", "0")
    assert (tree(), folder.stat().st_mtime_ns) == before
    assert Path(run.file(runs.OUTPUT)).read_bytes() == b"its own\n"


# -- what cannot be played


@pytest.mark.parametrize("damage", ["missing", "link", "fifo"])
def test_what_cannot_be_played_is_one_line_before_anything_is_made(
    place: Place, damage: str
) -> None:
    folder = record(place.folder / "recorded")
    stdout = folder / runs.STDOUT
    stdout.unlink()
    if damage == "link":
        stdout.symlink_to(folder / runs.PROMPT)
    elif damage == "fifo":
        os.mkfifo(stdout)
    done = place.run("--replay", folder)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"{folder} cannot be replayed: {runs.STDOUT}" in done.stderr
    assert not place.runs_dir.exists()


def test_wrong_names_and_options_are_one_line(place: Place) -> None:
    place.runs_dir.mkdir(parents=True)
    for arguments, code, text in [
        (["--replay", "nothing"], 1, "no run 'nothing'"),
        (["--speed", "2"], 2, "--speed belongs to --replay"),
        (["--replay", "x", "--resume", "y", "--prompt", "z"], 2, "exclude each other"),
    ]:
        done = place.run(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), arguments
        assert text in done.stderr


def test_in_a_config_a_recording_is_beside_it_and_its_fault_is_recorded(place: Place) -> None:
    config(place, mine={"type": "replay", "recording": "recorded/runs", "speed": 0})
    run = play(place, "mine")
    assert (run.text("status"), run.text("error_class")) == ("failed", "bad-request")
    assert f"no recording {place.folder}/recorded/runs" in run.text("error_summary")
    record(place.folder / "recorded" / "runs" / "run_1", agent_name="mine", agent="shell")
    assert play(place, "mine").text("status") == "completed"


# -- what goes wrong on purpose


def faulty(place: Place, fault: str, agent: str = "claude", **more: object) -> None:
    data = answering(agent, "The answer.")
    folder = record(place.folder / "recorded", agent=agent, stdout=data, stderr=b"noise\n")
    entry = {"type": "replay", "recording": str(folder), "speed": 0, "fault": fault, **more}
    config(place, mine=entry)


@pytest.mark.parametrize(
    ("fault", "code", "error_class"),
    [("crash", 137, "crash"), ("login", 1, "login"), ("overload", 1, "overload")],
)
def test_the_first_run_has_the_fault_and_the_next_one_plays_well(
    place: Place, fault: str, code: int, error_class: str
) -> None:
    faulty(place, fault, fault_runs=1)
    run = play(place, "mine")
    assert (run.number("exit_code"), run.text("error_class")) == (code, error_class)
    assert run.text("replay_fault") == fault
    shown = run_script("bin/show-run", run.run_id, "--root", place.root).stdout
    assert "replay of         recorded\n" in shown
    assert f"wrong on purpose  {fault}\n" in shown
    again = play(place, "mine")
    assert (again.text("status"), again.text("replay_fault")) == ("completed", "")
    assert Path(again.file(runs.OUTPUT)).read_text() == "The answer.\n"


@pytest.mark.parametrize("agent", ["claude", "codex", "gemini", "perplexity", "xai"])
def test_a_quota_is_told_with_its_reset_as_that_agent_tells_it(place: Place, agent: str) -> None:
    faulty(place, "quota", agent, fault_reset=3600)
    run = play(place, "mine")
    assert (run.text("status"), run.text("error_class")) == ("failed", "quota")
    ahead = (run.time_ns("reset_time") or 0) - (run.time_ns("end_time") or 0)
    assert 3400 < ahead / ids.NANOSECONDS < 3700
    played = Path(run.file(runs.STDOUT)).read_bytes().split(b"\n")
    said = answering(agent, "The answer.").split(b"\n")
    assert played[0] == said[0]
    assert said[-2] not in played


@pytest.mark.parametrize(("fault", "played"), [("hang", True), ("silence", False)])
def test_what_hangs_is_stopped_for_its_silence(place: Place, fault: str, played: bool) -> None:
    faulty(place, fault, fault_at=0.9)
    # What plays first has to be there before it is silent for too long.
    run = play(place, "mine", "--idle-timeout", "4s" if played else "1s")
    assert (run.text("status"), run.text("error_class")) == ("failed", "silence")
    assert (Path(run.file(runs.STDOUT)).stat().st_size > 0) is played


def test_a_flood_is_survived_and_what_follows_it_counts(place: Place) -> None:
    faulty(place, "flood", flood_bytes=3_000_000)
    run = play(place, "mine")
    assert (run.text("status"), run.text("replay_fault")) == ("completed", "flood")
    assert Path(run.file(runs.OUTPUT)).read_text() == "The answer.\n"
    whole = len(answering("claude", "The answer."))
    assert Path(run.file(runs.STDOUT)).stat().st_size == whole + 3_000_000


# -- when its supervisor is killed


@pytest.mark.parametrize("agent", STREAMS)
def test_a_replay_whose_supervisor_was_killed_is_read_as_what_it_is(
    either: Place, agent: str
) -> None:
    folder = record(either.folder / "recorded", agent=agent, stdout=answering(agent, "Yes."))
    whole = play(either, agent, "--replay", folder, "--speed", "0", "--task", "whole")
    either.env["CONDUCTOR_FAULT"] = "kill:run-agent-ended"
    done = either.run(agent, "--replay", folder, "--speed", "0", "--task", "cut")
    assert done.returncode == -signal.SIGKILL, done.stderr
    del either.env["CONDUCTOR_FAULT"]
    [cut] = [run for run in either.all_runs() if run.text("task_id") == "cut"]
    assert cut.text("status") == "running"
    assert recovery.repair(cut.path) is True
    cut = check_settled(either, cut.path)
    assert (cut.text("status"), cut.text("agent_name")) == ("completed", agent)
    assert facts_of(Path(cut.path)) == facts_of(Path(whole.path))


def test_a_replay_that_lives_on_is_taken_over_with_its_reader_and_ends_at_once(
    either: Place,
) -> None:
    faulty(either, "hang", fault_at=1)
    live = either.start("mine", ".", "--prompt", "x", "--config", either.folder / "config.yaml")
    wait_until(lambda: live.run.text("session_id"), what="the session in the record")
    kill(live.supervisor)
    live.end()
    assert runs.state(live.run).holder == "agent"
    done = run_script("bin/stop-run", live.run_id, "--root", either.root, env=either.environment())
    assert done.returncode == 0, done.stderr
    wait_gone(live.run_id)
    run = check_settled(either, live.run_dir)
    assert run.number("exit_code") == 128 + signal.SIGTERM
    assert run.number("tool_calls") == 1
    assert "▶ tool Bash" in Path(run.file(runs.TRANSCRIPT)).read_text()
