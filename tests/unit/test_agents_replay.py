"""The replay backend: which recording it takes, whose output that is, when what is written, and faults."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lib import runs, timing
from lib.agents import _replay_faults, _replay_main, base, claude, codex, gemini, replay
from lib.errors import UserError
from tests import agent_streams
from tests.helpers import read_document
from tests.recordings import answering, record

KINDS = ["claude", "codex", "gemini", "perplexity", "xai", "offline", "command:text", "text"]
TEXT_KINDS = ["claude:text", "codex:text", "gemini:text", "command", "command:last-line"]
COMMAND_KINDS = ["command:claude", "command:codex", "command:gemini", "command:file", "qwen:claude"]
OTHER_KINDS = ["opencode:opencode", "copilot:copilot", "llm:text"]


def a_run(folder: Path, task: str = "build", agent: str = "claude", **keys: object) -> runs.Run:
    """The run that is to become a replay: its record as it is before the start."""
    path = folder / "new" / "run_20261123-000000-1"
    names = {"agent": "replay", "agent_name": agent, "task_id": task, "project_id": "p"}
    return runs.Run(str(path), {**names, **keys})


def fault_of(options: dict[str, object], run: runs.Run) -> str:
    with pytest.raises(UserError) as caught:
        replay.settled(options, run)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- which recording


def test_a_run_folder_is_played_whatever_task_and_agent_it_is_of(tmp_path: Path) -> None:
    folder = record(tmp_path / "run_1")
    assert replay.find_recording({"recording": str(folder)}, "any", "other").path == str(folder)


@pytest.mark.parametrize("below", ["runs", ".", "runs/p/t/runs"])
def test_in_a_folder_of_runs_the_task_counts_before_the_agent(tmp_path: Path, below: str) -> None:
    folder = tmp_path / below
    record(folder / "run_1", task_id="build", agent_name="codex", start_time="2026-11-22T01:00:00Z")
    record(folder / "run_2", task_id="other", agent_name="mine", start_time="2026-11-22T03:00:00Z")

    def found(task: str, name: str) -> str:
        return replay.find_recording({"recording": str(tmp_path)}, task, name).run_id

    assert found("build", "mine") == "run_1"
    assert found("unknown", "mine") == "run_2"
    with pytest.raises(UserError, match="neither an ended run of task unknown nor one of agent no"):
        found("unknown", "no")


def test_of_several_runs_of_a_task_the_newest_of_the_same_agent_is_played(tmp_path: Path) -> None:
    for number, (name, hour) in enumerate([("a", 1), ("a", 3), ("a", 2), ("b", 4)]):
        times: dict[str, Any] = {"start_time": f"2026-11-22T0{hour}:00:00Z"}
        record(tmp_path / f"run_{number}-build", task_id="build", agent_name=name, **times)
    at = {"recording": str(tmp_path)}
    assert replay.find_recording(at, "build", "a").run_id == "run_1-build"
    assert replay.find_recording(at, "build", "b").run_id == "run_3-build"
    assert replay.find_recording(at, "build", "c").run_id == "run_3-build"


def test_a_run_of_a_review_is_one_of_its_task_whoever_looked(tmp_path: Path) -> None:
    record(tmp_path / "run_1-r@a", task_id="r@a", agent_name="a", start_time="2026-11-22T01:00:00Z")
    record(tmp_path / "run_2-r@b", task_id="r@b", agent_name="b", start_time="2026-11-22T02:00:00Z")
    record(tmp_path / "run_3-x", task_id="x", agent_name="c", start_time="2026-11-22T03:00:00Z")
    at = {"recording": str(tmp_path)}
    assert replay.find_recording(at, "r@a", "a").run_id == "run_1-r@a"
    assert replay.find_recording(at, "r@c", "c").run_id == "run_2-r@b"
    run = a_run(tmp_path, "r@a")
    assert replay.settled({**at, "fault": "hang", "fault_tasks": ["r"]}, run)["fault"] == "hang"


def test_what_has_not_ended_or_was_wrong_on_purpose_is_no_recording(tmp_path: Path) -> None:
    good = record(tmp_path / "run_1", task_id="build")
    later: dict[str, Any] = {"task_id": "build", "start_time": "2026-11-23T00:00:00Z"}
    record(tmp_path / "run_2", **{**later, "status": "running"})
    record(tmp_path / "run_3", replay_fault="crash", **later)
    record(tmp_path / "run_4", agent="replay", output_kind="claude", **later)
    (tmp_path / "run_5").mkdir()
    assert replay.find_recording({"recording": str(tmp_path)}, "build", "x").path == str(good)


def test_a_replay_is_played_again_where_there_is_nothing_else(tmp_path: Path) -> None:
    folder = record(tmp_path / "run_1", agent="replay", output_kind="codex", task_id="build")
    found = replay.settled({"recording": str(tmp_path)}, a_run(tmp_path))
    assert (found["recording"], found["output"]) == (str(folder), "codex")


def test_what_is_no_recording_is_one_line_that_names_it(tmp_path: Path) -> None:
    missing = tmp_path / "no\nwhere"
    assert "no recording" in fault_of({"recording": str(missing)}, a_run(tmp_path))
    assert "recording: FOLDER" in fault_of({}, a_run(tmp_path))
    (tmp_path / "empty").mkdir()
    fault = fault_of({"recording": str(tmp_path / "empty")}, a_run(tmp_path))
    assert "task build" in fault
    assert "agent claude" in fault
    running = record(tmp_path / "running", status="running")
    assert "has not ended" in fault_of({"recording": str(running)}, a_run(tmp_path))


@pytest.mark.parametrize("name", [runs.STDOUT, runs.STDERR, runs.RECORD])
@pytest.mark.parametrize("damage", ["missing", "link", "fifo", "folder"])
def test_a_recording_with_something_else_in_place_of_a_file_is_refused_at_once(
    tmp_path: Path, name: str, damage: str
) -> None:
    folder = record(tmp_path / "run_1", stdout=b"x\n")
    place = folder / name
    secret = tmp_path / "secret"
    secret.write_text("secret: yes\n")
    place.unlink()
    if damage == "link":
        place.symlink_to(secret)
    elif damage == "fifo":
        os.mkfifo(place)
    elif damage == "folder":
        place.mkdir()
    assert "run_1 cannot be replayed: " in fault_of({"recording": str(folder)}, a_run(tmp_path))


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    folder = record(tmp_path / "run_1")
    (folder / runs.RECORD).write_bytes(b"\xff\xfe: [\n")
    assert "cannot be replayed" in fault_of({"recording": str(folder)}, a_run(tmp_path))


# -- whose output it is


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"agent": "claude"}, "claude"),
        ({"agent": "codex", "output_kind": "text"}, "codex:text"),
        ({"agent": "command", "output_kind": "claude"}, "command:claude"),
        ({"agent": "opencode", "output_kind": "opencode"}, "opencode:opencode"),
        ({"agent": "replay", "output_kind": "gemini"}, "gemini"),
        ({"agent": "unheard-of"}, "xai"),
        ({"agent": ""}, "xai"),
    ],
)
def test_the_record_tells_whose_output_it_is_and_else_the_option(
    tmp_path: Path, keys: dict[str, Any], kind: str
) -> None:
    folder = record(tmp_path / "run_1", **keys)
    run = a_run(tmp_path)
    found = replay.settled({"recording": str(folder), "kind": "xai"}, run)
    assert found["output"] == kind
    assert run.record["replay_of"] == "run_1"
    assert "replay_fault" not in run.record


@pytest.mark.parametrize("kind", [None, "replay", "no-such"])
def test_output_of_an_unknown_agent_is_refused(tmp_path: Path, kind: object) -> None:
    folder = record(tmp_path / "run_1", agent="unheard-of")
    options = {"recording": str(folder), "kind": kind}
    assert "say it with kind:" in fault_of(options, a_run(tmp_path))


@pytest.mark.parametrize(
    ("kind", "reader"),
    [
        ("claude", claude.StreamReader),
        ("offline", claude.StreamReader),
        ("command:claude", claude.StreamReader),
        ("codex", codex.StreamReader),
        ("gemini", gemini.StreamReader),
        ("text", base.TextReader),
        ("shell", base.TextReader),
    ],
)
def test_the_reader_is_that_of_the_recorded_agent(kind: str, reader: type[base.Reader]) -> None:
    assert isinstance(replay.reader({"output": kind}), reader)


def test_figures_of_a_resumed_session_stay_those_of_the_one_run(tmp_path: Path) -> None:
    before = {"input_tokens": 1000, "cached_tokens": 300, "output_tokens": 30}
    keys: dict[str, Any] = {"agent": "codex", "resumed": True, "totals_before": before}
    folder = record(tmp_path / "run_1", **keys)
    run = a_run(tmp_path)
    found = replay.settled({"recording": str(folder)}, run)
    data = agent_streams.stream("codex/json-plain")
    outcome, _ = agent_streams.read_all(replay.reader(found), data)
    assert (outcome.input_tokens, outcome.cached_tokens, outcome.output_tokens) == (200, 100, 4)
    assert (run.record["resumed"], run.record["totals_before"]) == (True, before)


def test_a_model_that_the_stream_does_not_tell_is_the_recorded_one(tmp_path: Path) -> None:
    folder = record(tmp_path / "run_1", agent="codex", model="gpt-x")
    run = a_run(tmp_path)
    replay.settled({"recording": str(folder)}, run)
    assert run.record["model"] == "gpt-x"


# -- the command line


def test_the_command_line_names_all_that_the_player_needs(tmp_path: Path) -> None:
    folder = record(tmp_path / "run_1")
    found = replay.settled({"recording": str(folder), "speed": 2.5}, a_run(tmp_path))
    argv = replay.command(agent_streams.launch(options=found))
    assert argv[:3] == [sys.executable, "-S", "-E"]
    assert argv[4:] == [str(folder), "--kind", "claude", "--speed", "2.5"]


@pytest.mark.parametrize("value", [-1, True, "2", float("nan"), float("inf"), 1e9])
def test_a_speed_that_is_none_is_refused(value: object) -> None:
    options = {"recording": "/r", "speed": value}
    with pytest.raises(UserError, match="speed of a replay agent"):
        replay.command(agent_streams.launch(options=options))


@pytest.mark.parametrize("text", ["x", "", "-1", "nan", "inf", "1e9"])
def test_a_speed_on_the_command_line_that_is_none_is_wrong_usage(text: str) -> None:
    with pytest.raises(UserError, match="--speed") as caught:
        replay.options_of("/r", text)
    assert caught.value.exit_code == 2


# -- faults


def test_a_fault_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    folder = record(tmp_path / "run_1")
    fault = fault_of({"recording": str(folder), "fault": "explode"}, a_run(tmp_path))
    assert "known: crash, flood" in fault


def test_only_the_first_runs_of_a_task_have_the_fault_and_the_records_count_them(
    tmp_path: Path,
) -> None:
    folder = record(tmp_path / "recorded" / "run_1")
    options: dict[str, object] = {"recording": str(folder), "fault": "crash", "fault_runs": 2}
    earlier: dict[str, Any] = {"agent": "replay", "agent_name": "claude", "task_id": "build"}
    new = tmp_path / "new"
    for number, (keys, expected) in enumerate(
        [
            ({"task_id": "other", "replay_fault": "crash"}, "crash"),
            ({"agent_name": "codex", "replay_fault": "crash"}, "crash"),
            ({"project_id": "q", "replay_fault": "crash"}, "crash"),
            ({"error_summary": runs.NEVER_STARTED, "replay_fault": "crash"}, "crash"),
            ({"replay_fault": "crash", "status": "failed"}, "crash"),
            ({"replay_fault": "hang"}, "crash"),
            ({"replay_fault": "crash", "status": "running"}, None),
        ]
    ):
        record(new / f"run_2026-{number}", **{**earlier, **keys})
        run = a_run(tmp_path)
        assert replay.settled(options, run).get("fault") == expected, keys
        assert run.record.get("replay_fault") == expected


def test_a_fault_can_be_of_some_tasks_only(tmp_path: Path) -> None:
    folder = record(tmp_path / "run_1")
    options: dict[str, object] = {"recording": str(folder), "fault": "hang", "fault_tasks": ["a"]}
    assert replay.settled(options, a_run(tmp_path, "a"))["fault"] == "hang"
    assert "fault" not in replay.settled(options, a_run(tmp_path, "b"))


@pytest.mark.parametrize("fault", ["login", "overload", "quota"])
@pytest.mark.parametrize("kind", [*KINDS, *TEXT_KINDS, *COMMAND_KINDS, *OTHER_KINDS])
def test_what_an_agent_says_of_a_refusal_is_read_as_that(kind: str, fault: str) -> None:
    said = _replay_faults.complaint(kind, fault, 90)
    options: dict[str, object] = {"output": kind}
    outcome, shown = agent_streams.read_all(replay.reader(options), said.stdout)
    agent_streams.assert_harmless(shown)
    told: dict[str, Any] = {"stdout": said.stdout.decode(), "stderr": said.stderr.decode()}
    ended = base.Ended(code=said.code, outcome=outcome, options=options, agent="mine", **told)
    failure = replay.failure(ended)
    assert (failure.kind, "\n" in failure.reason) == (fault, False)
    assert said.code != 0
    ahead = failure.reset - time.time() if failure.reset else None
    assert ahead is None if fault != "quota" else ahead is not None and 60 < ahead < 95


def test_a_refusal_behind_the_begin_of_a_stream_is_still_read_as_that() -> None:
    for name in ("claude/stream-tool", "codex/json-tool", "gemini/stream-tool"):
        kind = name.partition("/")[0]
        lines = agent_streams.stream(name).split(b"\n")
        begin = b"\n".join(lines[: len(lines) // 2]) + b"\n"
        said = _replay_faults.complaint(kind, "quota", 90)
        outcome, _ = agent_streams.read_all(replay.reader({"output": kind}), begin, said.stdout)
        ended = base.Ended(code=said.code, outcome=outcome, options={"output": kind})
        assert replay.failure(ended).kind == "quota"


# -- when what is written


def test_a_pause_that_no_sleep_can_last_is_slept_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise InterruptedError

    monkeypatch.setattr(time, "sleep", sleep)
    player = object.__new__(_replay_main.Player)
    player.started = time.monotonic()
    for seconds in (1e300, float("inf")):
        slept.clear()
        with pytest.raises(InterruptedError):
            player.follow([(seconds, 0, 0)])
        assert slept == [3600.0] * 3


def test_the_speed_divides_the_times_and_nothing_else() -> None:
    points = [(0.5, 10, 0), (3.0, 20, 5)]
    assert _replay_main.scaled(points, 1) == points
    assert _replay_main.scaled(points, 10) == [(0.05, 10, 0), (0.3, 20, 5)]
    assert _replay_main.scaled(points, 0) == [(0.0, 10, 0), (0.0, 20, 5)]


def test_without_a_timing_the_lines_are_spread_evenly_over_the_time_it_took() -> None:
    assert _replay_main.spread([[3, 6, 9, 12], [5, 10]], 8.0) == [
        (2.0, 3, 0),
        (4.0, 6, 0),
        (4.0, 6, 5),
        (6.0, 9, 5),
        (8.0, 12, 5),
        (8.0, 12, 10),
    ]
    assert _replay_main.spread([[], []], 8.0) == [(8.0, 0, 0)]


def test_the_lines_of_much_output_are_taken_together() -> None:
    assert _replay_main.line_ends(b"a\nbc\nd", 10) == [2, 5, 6]
    assert _replay_main.line_ends(b"", 10) == []
    ends = _replay_main.line_ends(b"x\n" * 1005, 10)
    assert len(ends) <= 10
    assert ends[-1] == 2010
    assert all(end % 2 == 0 for end in ends)


def test_a_timing_that_tells_of_more_or_less_than_there_is_is_bent_to_it() -> None:
    points = [(1.0, 10, 0), (2.0, 50, 9)]
    assert _replay_main.completed(points, 30, 4) == [(1.0, 10, 0), (2.0, 30, 4), (2.0, 30, 4)]
    assert _replay_main.completed(points, 80, 9)[-1] == (2.0, 80, 9)
    assert _replay_main.completed([], 80, 9) == [(0.0, 80, 9)]


def test_a_fault_divides_the_replay_where_so_much_is_written() -> None:
    points = [(1.0, 10, 0), (2.0, 20, 4), (3.0, 40, 8)]
    before, after = _replay_main.divided(points, (15, 2))
    assert before == [(1.0, 10, 0), (2.0, 15, 2)]
    assert after == [(2.0, 20, 4), (3.0, 40, 8)]
    assert _replay_main.divided(points, (0, 0))[0] == [(1.0, 0, 0)]
    assert _replay_main.divided(points, (40, 8)) == (points, [(3.0, 40, 8)])


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"exit_code": 0}, 0),
        ({"exit_code": 145, "status": "failed"}, 145),
        ({"exit_code": -1, "status": "completed"}, 0),
        ({"exit_code": -1, "status": "failed"}, 1),
        ({"exit_code": "x", "status": "failed"}, 1),
        ({"exit_code": 4711, "status": "failed"}, 1),
    ],
)
def test_the_exit_code_is_the_recorded_one(keys: dict[str, object], code: int) -> None:
    assert _replay_main.recorded_code(runs.Run("/r", keys)) == code


def test_a_helper_can_make_recordings_of_every_kind() -> None:
    for agent in ("claude", "codex", "gemini", "perplexity", "xai"):
        data = answering(agent, "So it is.\n\nVERDICT: APPROVE")
        outcome, _ = agent_streams.read_all(replay.reader({"output": agent}), data)
        assert outcome.success is True
        assert (outcome.final_text or "").endswith("VERDICT: APPROVE")


def test_what_a_hostile_record_tells_goes_no_further_than_it_may(tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "model": "a\nb\x1b[31m" + "x" * 1000,
        "session_id": "--evil",
        "resumed": True,
        "totals_before": ["x"],
        "success_codes": [{}, "1", 3, -1],
        "exit_code": [],
    }
    folder = record(tmp_path / "run_1", agent="codex", **odd)
    run = a_run(tmp_path)
    found = replay.settled({"recording": str(folder)}, run)
    assert found["totals_before"] is None
    assert "\n" not in str(run.record["model"])
    assert len(str(run.record["model"])) <= 200
    assert "session_id" not in run.record
    assert run.record["success_codes"] == [3]


def test_the_documentation_names_every_setting_and_every_fault() -> None:
    text = read_document("agents.md").partition("\n## Replay\n")[2].partition("\n## ")[0]
    assert [name for name in replay.SETTINGS if f"{name}:" not in text] == []
    rows = [line.split("`")[1] for line in text.split("\n") if line.startswith("| `")]
    assert [name for name in rows if name != "fault:"] == list(replay.FAULTS)
    assert f"at most {timing.MOST_POINTS:,} points" in text


def test_the_doctor_is_told_what_a_configured_replay_lacks(tmp_path: Path) -> None:
    assert replay.conditions({}, {}) == []
    missing = {"type": "replay", "recording": str(tmp_path / "none")}
    [(what, state, text, cure)] = replay.conditions(missing, {})
    assert (what, state, text) == ("recording", "FAIL", f"no recording {tmp_path}/none")
    assert cure
    [(_, state, _, _)] = replay.conditions({"recording": str(tmp_path)}, {})
    assert state == "ok"
