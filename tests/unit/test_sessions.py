"""Which session of an earlier run can be gone on with, and what it had used until then."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib import procs, recovery, runner, runs, sessions, yamlio
from lib.agents import base
from lib.errors import UserError

TOTALS = {"input_tokens": 100, "cached_tokens": 0, "output_tokens": 7}


def recorded(folder: Path, number: int, **values: object) -> runs.Run:
    """A run that began in that second, and has ended unless its `status` says another thing."""
    name = f"run_20260101-0000{number:02d}-1"
    record = {
        "run_id": name,
        "agent": "codex",
        "start_time": f"2026-01-01T00:00:{number:02d}Z",
        "status": "completed",
        "exit_code": 0,
        "cwd": str(folder),
        "session_id": "s-1",
        **procs.machine(),
        **values,
    }
    path = folder / name
    path.mkdir()
    (path / "run-info.yaml").write_text(yamlio.dump(record))
    return runs.read(str(path))


def test_the_totals_are_those_of_the_last_run_in_the_session(tmp_path: Path) -> None:
    first = recorded(tmp_path, 1, session_totals=TOTALS)
    assert sessions.totals_of(str(tmp_path), first) == TOTALS
    recorded(tmp_path, 2, session_id="s-2", session_totals={"input_tokens": 1})
    recorded(tmp_path, 3, agent="claude", session_totals={"input_tokens": 2})
    assert sessions.totals_of(str(tmp_path), first) == TOTALS
    third = recorded(tmp_path, 4, session_totals={**TOTALS, "input_tokens": 300})
    for run in (first, third):
        assert sessions.totals_of(str(tmp_path), run) == {**TOTALS, "input_tokens": 300}
    recorded(tmp_path, 5, status="failed")  # nobody knows what that one used
    assert sessions.totals_of(str(tmp_path), first) is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, None),
        ("100", None),
        ({}, None),
        ({"input_tokens": "7", "output_tokens": -1, "cached_tokens": True, "x": 1}, None),
        ({"cost_usd": 0.5, "input_tokens": None}, {"cost_usd": 0.5}),
    ],
)
def test_totals_that_make_no_sense_are_unknown(
    tmp_path: Path, told: object, expected: object
) -> None:
    run = recorded(tmp_path, 1, session_totals=told)
    assert sessions.totals_of(str(tmp_path), run) == expected


def test_a_run_without_a_session_that_could_be_named_is_refused(tmp_path: Path) -> None:
    for number, session in enumerate(["", None, "--help", "a b", "x" * 201], 1):
        run = recorded(tmp_path, number, session_id=session)
        with pytest.raises(UserError, match="has no session to resume"):
            sessions.find(str(tmp_path), run.run_id)
    assert sessions.find(str(tmp_path), recorded(tmp_path, 9).run_id).text("session_id") == "s-1"


def test_a_run_of_elsewhere_is_refused(tmp_path: Path) -> None:
    run = recorded(tmp_path, 1, status="running", host="elsewhere", exit_code=-1)
    with pytest.raises(UserError, match=r"cannot be resumed: .*elsewhere"):
        sessions.find(str(tmp_path), run.run_id)


def test_only_the_same_kind_of_agent_goes_on(tmp_path: Path) -> None:
    run = recorded(tmp_path, 1, agent_name="small")
    here = str(tmp_path)
    sessions.check(run, "small", "codex", {}, here)
    sessions.check(run, "codex", "codex", {}, "/")
    with pytest.raises(UserError, match="was a run of small, and claude cannot go on"):
        sessions.check(run, "claude", "claude", {}, here)


def test_only_the_same_program_goes_on(tmp_path: Path) -> None:
    run = recorded(tmp_path, 1, agent="command", agent_name="one")
    options = {"command": ["one"], "resume": ["one", "{session_id}"]}
    sessions.check(run, "one", "command", options, "/")
    with pytest.raises(UserError, match="was a run of one, and other cannot go on"):
        sessions.check(run, "other", "command", options, "/")
    with pytest.raises(UserError, match="was a run of one, which cannot resume a session"):
        sessions.check(run, "one", "command", {"command": ["one"]}, "/")


def test_the_session_of_gemini_is_found_in_its_folder_only(tmp_path: Path) -> None:
    run = recorded(tmp_path, 1, agent="gemini")
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    sessions.check(run, "gemini", "gemini", {}, str(link))
    with pytest.raises(UserError, match="finds its session there only; leave out CWD"):
        sessions.check(run, "gemini", "gemini", {}, "/")


def test_a_request_goes_to_another_process_with_its_session() -> None:
    given = runner.Request(type="codex", resume=True, session_id="s", totals_before=TOTALS)
    import marshal

    again = runner.Request(**marshal.loads(marshal.dumps(given.as_dict())))  # noqa: S302 - ours
    assert (again.resume, again.session_id, again.totals_before) == (True, "s", TOTALS)
    record = runner.new_record(runs.Run("/r/run_1", {}), again)
    assert (record["resumed"], record["totals_before"]) == (True, TOTALS)
    fresh = runner.new_record(runs.Run("/r/run_1", {}), runner.Request(type="codex"))
    assert not {"resumed", "totals_before", "session_id"} & set(fresh)


@pytest.mark.parametrize("before", [TOTALS, None])
def test_an_adopters_reader_knows_what_the_first_ones_did(before: dict[str, object] | None) -> None:
    stream = b'{"type":"turn.completed","usage":{"input_tokens":150,"output_tokens":9}}\n'
    request = runner.Request(type="codex", resume=True, session_id="s", totals_before=before)
    run = runs.Run("/r/run_1", runner.new_record(runs.Run("/r/run_1", {}), request))
    found: list[base.Outcome] = []
    for options in (runner.reader_options(request), None):
        from lib.agents import codex

        reader = codex.reader(options) if options else recovery._reader_of(run)
        reader.feed(stream)
        found.append(reader.outcome)
    assert [outcome.input_tokens for outcome in found] == [50 if before else None] * 2
    assert [outcome.output_tokens for outcome in found] == [2 if before else None] * 2


@pytest.mark.parametrize("name", ["claude", "codex", "gemini"])
def test_an_adopter_reads_plain_text_where_the_first_one_did(name: str) -> None:
    run = runs.Run("/r/run_1", {"agent": name, "output_kind": "text"})
    assert isinstance(recovery._reader_of(run), base.AnswerReader)
    run.record.pop("output_kind")
    assert isinstance(recovery._reader_of(run), base.JsonLinesReader)
