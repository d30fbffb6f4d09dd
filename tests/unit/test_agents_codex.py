"""The codex backend: its command line, its key, and what its events tell however they are cut."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from lib.agents import base, codex
from lib.errors import UserError
from tests.agent_streams import (
    assert_as_recorded,
    assert_damage_is_survived,
    assert_harmless,
    assert_no_success_before_its_end,
    assert_sound,
    assert_the_same_however_cut,
    cases,
    facts,
    launch,
    lines_of,
    mutations,
    read_all,
    stream,
)

CASES = cases("codex")
NAMES = [str(case["file"]) for case in CASES]
TYPICAL = ["codex/json-tool-preamble", "codex/json-unknown-model", "codex/json-401"]
FLAGS = [
    *["exec", "--dangerously-bypass-approvals-and-sandbox", "--skip-git-repo-check", "--json"],
    *["-c", "features.plugins=false", "-c", "check_for_update_on_startup=false"],
    *["-c", "analytics.enabled=false", "-c", "feedback.enabled=false"],
]


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine where codex has no key and no login; its home."""
    for name in ("CODEX_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CODEX_HOME", str(tmp_path))
    return tmp_path


def read(*pieces: bytes) -> tuple[base.Outcome, str]:
    return read_all(codex.reader(), *pieces)


def item(stage: str, kind: str, **values: object) -> dict[str, object]:
    return {"type": f"item.{stage}", "item": {"id": "i1", "type": kind, **values}}


def turn(answer: str = "four", **usage: object) -> list[dict[str, object]]:
    message = {"id": "m", "type": "agent_message", "text": answer}
    return [
        {"type": "turn.started"},
        {"type": "item.completed", "item": message},
        {"type": "turn.completed", "usage": usage},
    ]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_recorded_stream_is_read_as_its_index_says(case: dict[str, object]) -> None:
    outcome, _ = read(stream(str(case["file"])))
    assert_as_recorded(outcome, case)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_cut_anywhere_tells_the_same_and_no_success_before_its_end(name: str) -> None:
    assert_the_same_however_cut(codex.reader, stream(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_ends_anywhere_before_its_last_event_is_no_success(name: str) -> None:
    assert_no_success_before_its_end(codex.reader, stream(name))


def test_a_person_reads_texts_tools_warnings_and_usage_in_the_transcript() -> None:
    _, shown = read(stream("codex/json-unknown-model"))
    assert shown == (
        "▷ session 01a204d6-a910-70e3-93e9-3970a255f0e4\n"
        "· Model metadata for `stub-model` not found. Defaulting to fallback metadata; "
        "this can degrade performance and cause issues.\n"
        "▶ tool command_execution: /bin/bash -lc 'echo made-by-agent > made.txt && cat made.txt'\n"
        "    made-by-agent\n"
        "\nSTUB-ANSWER for What is two plus two? | tool: Chunk ID: 1ecefd\n"
        "Wall time: 0.0000 seconds\nProcess exited with code 0\n"
        "Original token count: 4\nOutput:\nmade-by-agent\n\n"
        "■ done, 1 turn, 2400 tokens in (800 cached), 68 out\n"
    )


def test_attempts_to_reconnect_are_notes() -> None:
    outcome, shown = read(stream("codex/json-500"))
    assert shown.count("↻ Reconnecting... ") == 5
    assert shown.endswith(
        "■ failed: We’re currently experiencing high demand, which may cause temporary errors.\n"
    )
    retry = {"type": "error", "message": "Reconnecting... 1/5 (503)"}
    outcome, shown = read(lines_of(retry, *turn()))
    assert (outcome.success, outcome.error) == (True, None)
    assert outcome.note == "Reconnecting... 1/5 (503)"


def test_the_last_message_is_the_answer() -> None:
    outcome, shown = read(stream("codex/json-tool-preamble"))
    assert "\nI will write a file first.\n" in shown
    assert str(outcome.final_text).startswith("STUB-ANSWER")


@pytest.mark.parametrize("answer", ["", " \n"])
def test_a_turn_without_an_answer_is_no_success(answer: str) -> None:
    outcome, _ = read(lines_of(*turn(answer)))
    assert (outcome.success, outcome.error) == (False, "the answer is empty")


def test_a_second_turn_decides_anew() -> None:
    first = turn("one", input_tokens=1, output_tokens=1)
    second = turn("two", input_tokens=3, output_tokens=4)
    outcome, _ = read(lines_of(*first, *second))
    assert (outcome.final_text, outcome.turns) == ("two", 2)
    assert (outcome.input_tokens, outcome.output_tokens) == (3, 4)  # of the whole session

    for events in ([second[0]], second[:2], [*second[:2], {"type": "turn.failed"}]):
        outcome, _ = read(lines_of(*first, *events))
        assert (outcome.success, outcome.final_text) == (False, None)
        assert outcome.error

    outcome, _ = read(lines_of(*first, second[0], second[2]))
    assert (outcome.success, outcome.error) == (False, "the answer is empty")


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([{"type": "turn.failed", "error": {"message": "no\n way"}}], "no way"),
        ([{"type": "turn.failed"}], base.NO_REASON),
        ([{"type": "error", "message": "broken"}, {"type": "turn.failed"}], "broken"),
        ([{"type": "error", "message": "broken"}], "broken"),
        ([{"type": "error", "message": "Reconnecting... 1/5 (x)"}], "no turn.completed event"),
        ([], "no turn.completed event"),
    ],
)
def test_the_best_known_reason_is_the_error(events: list[object], error: str) -> None:
    outcome, _ = read(lines_of({"type": "turn.started"}, *events))
    assert (outcome.success, outcome.error) == (False, error)


def test_a_tool_call_is_open_until_it_is_completed() -> None:
    reader = codex.reader()
    seen = []
    for line in stream("codex/json-tool").split(b"\n"):
        reader.feed(line + b"\n")
        seen.append((reader.outcome.tool_calls, reader.outcome.open_tools))
    assert seen[2:4] == [(1, 1), (1, 0)]


def test_a_call_that_the_turn_left_open_is_not_open_after_it() -> None:
    outcome, _ = read(lines_of(item("started", "web_search", query="x"), *turn()))
    assert (outcome.tool_calls, outcome.open_tools) == (1, 0)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (
            "command_execution",
            {"command": "false", "aggregated_output": "no", "exit_code": 1, "status": "failed"},
            "▶ tool command_execution: false\n    ✗ no\n",
        ),
        (
            "command_execution",
            {"command": "rm x", "aggregated_output": "", "status": "declined"},
            "▶ tool command_execution: rm x\n    ✗ (nothing)\n",
        ),
        (
            "file_change",
            {"changes": [{"path": "a.py", "kind": "add"}, {"path": "b", "kind": "delete"}]},
            "▶ tool file_change: add a.py, delete b\n",
        ),
        (
            "mcp_tool_call",
            {
                "server": "files",
                "tool": "find",
                "arguments": {"pattern": "*.c"},
                "result": {"content": [{"type": "text", "text": "a.c"}]},
            },
            "▶ tool files.find: *.c\n    a.c\n",
        ),
        (
            "mcp_tool_call",
            {"server": "s", "tool": "t", "error": {"message": "gone"}, "status": "failed"},
            "▶ tool s.t: \n    ✗ gone\n",
        ),
        ("collab_tool_call", {"tool": "wait", "prompt": "p"}, "▶ tool wait: p\n"),
        ("web_search", {"query": "what"}, "▶ tool web_search: what\n"),
        ("reasoning", {"text": "hm"}, ""),
        ("todo_list", {"items": [{"text": "a", "completed": True}]}, ""),
        ("something_new", {"text": "x"}, ""),
    ],
)
def test_items_of_each_kind_are_shown(kind: str, values: dict[str, object], expected: str) -> None:
    once = item("completed", kind, **values)
    thrice = [item("started", kind, **values), item("updated", kind, **values), once]
    assert codex.reader().feed(lines_of(once)) == expected
    assert codex.reader().feed(lines_of(*thrice)) == expected


def tokens(outcome: base.Outcome) -> tuple[int | None, int | None, int | None]:
    return outcome.input_tokens, outcome.cached_tokens, outcome.output_tokens


def test_a_resumed_session_has_used_what_this_run_added_to_it() -> None:
    first, _ = read(stream("codex/json-resume-first"))
    assert tokens(first) == (1200, 400, 34)
    assert first.session_totals == {"input_tokens": 1200, "cached_tokens": 400, "output_tokens": 34}

    more = turn(input_tokens=3700, cached_input_tokens=1400, output_tokens=80)
    options = {"resume": True, "totals_before": first.session_totals}
    second, shown = read_all(codex.reader(options), lines_of(*more))

    assert tokens(second) == (2500, 1000, 46)
    assert "2500 tokens in (1000 cached), 46 out" in shown
    assert second.session_totals == {
        "input_tokens": 3700,
        "cached_tokens": 1400,
        "output_tokens": 80,
    }


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (None, (None, None, None)),
        ({}, (None, None, None)),
        ("1200", (None, None, None)),
        ({"input_tokens": 1000, "output_tokens": True}, (200, None, None)),
        ({"input_tokens": 1201, "cached_tokens": 400, "output_tokens": -1}, (None, 0, None)),
    ],
)
def test_what_a_resumed_run_used_is_unknown_rather_than_wrong(
    before: object, expected: tuple[int | None, ...]
) -> None:
    data = stream("codex/json-resume-first")
    outcome, _ = read_all(codex.reader({"resume": True, "totals_before": before}), data)
    assert outcome.success is True
    assert tokens(outcome) == expected
    assert outcome.session_totals is not None


def test_totals_of_before_mean_nothing_to_a_run_that_resumes_nothing() -> None:
    data = stream("codex/json-resume-first")
    outcome, _ = read_all(codex.reader({"totals_before": {"input_tokens": 1000}}), data)
    assert tokens(outcome) == (1200, 400, 34)


def test_line_separators_of_unicode_do_not_cut_a_line() -> None:
    answer = "one\u2028two\u2029three\x85four"
    events = [json.dumps(event, ensure_ascii=False).encode() for event in turn(answer)]
    assert read(b"\n".join(events))[0].final_text == answer


def test_foreign_lines_are_notes_and_unknown_events_nothing() -> None:
    plain = stream("codex/json-plain")
    odd = b'Reading prompt...\n[]\n{}\n{"type":["x"]}\n{"type":"item.completed","item":7}\n'
    outcome, shown = read(odd + plain)
    assert facts(outcome) == facts(read(plain)[0])
    assert shown.startswith("· Reading prompt...\n· []\n▷ ")


def test_no_control_character_reaches_the_transcript() -> None:
    nasty = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\u202ee\x00f\rg\ud800h"
    kinds = ("agent_message", "error", *codex._TOOLS)
    values = {
        **dict.fromkeys(("text", "message", "command", "aggregated_output", "query"), nasty),
        **dict.fromkeys(("server", "tool", "prompt"), nasty),
        "arguments": {nasty: nasty},
        "changes": [{"path": nasty, "kind": nasty}],
        "result": {"content": [{"text": nasty}]},
        "status": "failed",
    }
    outcome, shown = read(
        lines_of(
            {"type": "thread.started", "thread_id": nasty},
            {"type": "error", "message": nasty},
            *(item("completed", kind, **values) for kind in kinds),
            {"type": "turn.failed", "error": {"message": nasty}},
        )
    )
    assert_harmless(shown)
    assert outcome.error
    assert_harmless(outcome.error)
    assert outcome.session_id is None


@pytest.mark.parametrize("name", TYPICAL)
def test_a_value_of_any_wrong_type_anywhere_is_survived(name: str) -> None:
    for events in mutations(stream(name)):
        outcome, shown = read(lines_of(*events))
        assert_harmless(shown)
        assert_sound(outcome)
        assert outcome.success is is_flawless(events)


def is_flawless(events: list[object]) -> bool:
    """Whether a turn was completed at the end, and there is a message since the last one began."""
    answer = ""
    for event in map(base.as_dict, events):
        message = base.as_dict(event.get("item"))
        if event.get("type") == "turn.started":
            answer = ""
        elif event.get("type") == "item.completed" and message.get("type") == "agent_message":
            answer = base.as_text(message.get("text"))
    return base.as_dict(events[-1]).get("type") == "turn.completed" and answer.strip() != ""


def test_damaged_bytes_never_raise_and_do_not_depend_on_how_they_are_cut() -> None:
    data = stream("codex/json-tool-preamble") + stream("codex/json-401")
    assert_damage_is_survived(codex.reader, data)


def test_the_command_line_is_the_measured_one() -> None:
    assert codex.command(launch()) == ["/opt/agent", *FLAGS, "-"]
    assert codex.command(launch(model="gpt-x")) == ["/opt/agent", *FLAGS, "-m", "gpt-x", "-"]


def test_a_session_is_resumed_with_all_options_before_it_and_never_chosen() -> None:
    resumed = codex.command(launch(session_id="id-1", resume=True, model="gpt-x"))
    assert resumed == ["/opt/agent", *FLAGS, "-m", "gpt-x", "resume", "id-1", "-"]
    assert codex.command(launch(session_id="id-1")) == ["/opt/agent", *FLAGS, "-"]
    assert codex.command(launch(resume=True)) == ["/opt/agent", *FLAGS, "-"]


@pytest.mark.parametrize(
    ("what", "changes"),
    [("model", {"model": "--help"}), ("session id", {"session_id": "-c", "resume": True})],
)
def test_a_value_that_looks_like_an_option_is_refused(
    what: str, changes: dict[str, object]
) -> None:
    with pytest.raises(UserError, match=f"{what}: .*; it must not begin with a dash"):
        codex.command(launch(**changes))


@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:8899/v1",
        'x"\nmodel="y',
        "a\\b\x00\x7f\t'é",
        "https://ü.example/\U0001f600",
    ],
)
def test_a_base_url_of_the_configuration_is_one_toml_string(base_url: str) -> None:
    argv = codex.command(launch(options={"base_url": base_url}))
    setting = argv[argv.index("feedback.enabled=false") + 2]
    assert tomllib.loads(setting) == {"openai_base_url": base_url}


def test_the_environment_hides_the_outer_session_and_keeps_quiet(no_login: Path) -> None:
    changes = codex.environment(launch())
    assert changes["CLAUDECODE"] is None
    assert changes["RUST_LOG"] == "off"
    assert "CODEX_API_KEY" not in changes


def test_a_key_for_others_is_passed_on_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch, no_login: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-outer")
    assert codex.environment(launch())["CODEX_API_KEY"] == "sk-outer"
    own = {"env": {"OPENAI_API_KEY": "sk-own"}}
    assert codex.environment(launch(options=own))["CODEX_API_KEY"] == "sk-own"
    assert "CODEX_API_KEY" not in codex.environment(launch(options={"token": "sk-configured"}))
    assert codex.environment(launch(options={"token": "sk-configured"}))["OPENAI_API_KEY"] is None


def test_a_key_for_others_never_stands_in_for_a_key_or_login_of_its_own(
    monkeypatch: pytest.MonkeyPatch, no_login: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-outer")
    (no_login / "auth.json").touch()
    assert "CODEX_API_KEY" not in codex.environment(launch())
    other = {"env": {"CODEX_HOME": str(no_login / "other")}}
    assert codex.environment(launch(options=other))["CODEX_API_KEY"] == "sk-outer"

    monkeypatch.setenv("CODEX_API_KEY", "sk-codex")
    assert "CODEX_API_KEY" not in codex.environment(launch(options=other))
