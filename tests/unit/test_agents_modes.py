"""What claude, codex and gemini have in common: sessions, plain text, and arguments of the user."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from lib import agents, runner, runs
from lib.agents import _too_old, base, claude, codex, command, gemini, offline, shell
from lib.errors import UserError
from tests.agent_streams import launch, lines_of, read_all, stream, texts

CLIS = (claude, codex, gemini)
BYPASS = ["--dangerously-bypass-approvals-and-sandbox"]


def words_of(backend: ModuleType, folder: Path, **changes: object) -> list[str]:
    argv: list[str] = backend.command(launch(run_dir=str(folder), **changes))
    return argv[1:]


def cost_of(outcome: base.Outcome) -> tuple[float | None, object]:
    return outcome.cost_usd, (outcome.session_totals or {}).get("cost_usd")


def result(**changes: object) -> bytes:
    event = {"type": "result", "subtype": "success", "is_error": False, "result": "four"}
    return lines_of({**event, **changes})


def read_resumed(before: object, *pieces: bytes) -> base.Outcome:
    reader = claude.reader({"resume": True, "totals_before": before})
    return read_all(reader, *pieces)[0]


# -- sessions


def test_who_can_be_told_a_session_before_the_start_and_who_can_go_on_with_one() -> None:
    def told(backend: ModuleType) -> tuple[bool, bool]:
        return agents.chooses_session(backend, {}), agents.can_resume(backend, {})

    assert [told(backend) for backend in CLIS] == [(True, True), (False, True), (True, True)]
    assert told(offline) == (True, False)
    assert told(shell) == (False, False)
    assert told(agents.load("perplexity")) == (False, False)


def test_a_backend_may_tell_by_its_options() -> None:
    backend = ModuleType("parrot")
    backend.chooses_session = lambda options: "template" in options  # type: ignore[attr-defined]
    backend.resumes = lambda options: "resume" in options  # type: ignore[attr-defined]
    assert agents.chooses_session(backend, {"template": 1})
    assert not agents.chooses_session(backend, {})
    assert agents.can_resume(backend, {"resume": 1})
    assert not agents.can_resume(backend, {})


# -- what a resumed run of claude used


def test_claude_tells_the_cost_of_this_run_or_of_the_session_which_is_set_off() -> None:
    data = stream("claude/stream-resume-first")
    assert cost_of(read_all(claude.reader(), data)[0]) == (0.00396, 0.00396)
    resumed = read_resumed({"cost_usd": 0.5}, data)
    assert cost_of(resumed) == (0.00396, 0.00396)  # it tells that of the run as such

    old = stream("claude/v2.1.197-stream-plain")  # which does not
    assert cost_of(read_all(claude.reader(), old)[0]) == (0.00505, 0.00505)
    assert cost_of(read_resumed({"cost_usd": 0.005}, old)) == (0.00005, 0.00505)


@pytest.mark.parametrize("before", [None, {}, {"cost_usd": "1"}, {"cost_usd": 0.006}, {"x": 1}])
def test_claudes_cost_is_unknown_rather_than_wrong(before: object) -> None:
    outcome = read_resumed(before, stream("claude/v2.1.197-stream-plain"))
    assert cost_of(outcome) == (None, 0.00505)
    assert outcome.success is True
    assert (outcome.input_tokens, outcome.output_tokens) == (1200, 34)  # always this run's


NO_USAGE = {"usage": {"input_tokens": 0, "output_tokens": 0}}
MODEL = {"inputTokens": 5, "cacheReadInputTokens": 3, "cacheCreationInputTokens": 2}
SESSION = {"modelUsage": {"a": {**MODEL, "outputTokens": 7}, "b": {"outputTokens": 1}, "c": 0}}


def counts(outcome: base.Outcome) -> tuple[int | None, int | None, int | None]:
    return outcome.input_tokens, outcome.cached_tokens, outcome.output_tokens


def test_tokens_that_claude_does_not_put_under_usage_are_those_of_the_models() -> None:
    assert counts(read_all(claude.reader(), result(**NO_USAGE, **SESSION))[0]) == (10, 3, 8)
    assert counts(read_all(claude.reader(), result(**SESSION))[0]) == (10, 3, 8)
    assert counts(read_all(claude.reader(), result(**NO_USAGE))[0]) == (0, 0, 0)
    assert counts(read_all(claude.reader(), result())[0]) == (None, None, None)
    some = {"usage": {"input_tokens": 1}}
    assert counts(read_all(claude.reader(), result(**some, **SESSION))[0]) == (1, 0, 0)


def test_tokens_of_the_models_are_of_the_session_unless_they_are_told_for_the_run() -> None:
    before = {"input_tokens": 4, "cached_tokens": 3, "output_tokens": 9}
    outcome = read_resumed(before, result(**NO_USAGE, **SESSION))
    assert counts(outcome) == (6, 0, None)
    assert counts(read_resumed(None, result(**NO_USAGE, **SESSION))) == (None, None, None)
    since = {"model_usage_since_last_result": {"a": {"inputTokens": 2, "outputTokens": 1}}}
    assert counts(read_resumed(None, result(**NO_USAGE, **SESSION, **since))) == (2, 0, 1)


def test_gemini_tells_the_figures_of_this_run_even_if_it_was_resumed() -> None:
    data = stream("gemini/stream-resume-first")
    fresh, _ = read_all(gemini.reader(), data)
    resumed, _ = read_all(gemini.reader({"resume": True, "totals_before": None}), data)
    assert counts(fresh) == counts(resumed)
    assert None not in counts(resumed)


# -- plain text


@pytest.mark.parametrize("backend", CLIS)
def test_output_text_is_plain_text(backend: ModuleType, tmp_path: Path) -> None:
    reader = backend.reader({"output": "text"})
    outcome, shown = read_all(reader, b"It is ", b"four.\n")
    assert (outcome.final_text, shown) == ("It is four.", "It is four.\n")
    assert (reader.understood, outcome.success) == (False, None)

    words = words_of(backend, tmp_path, options={"output": "text"})
    assert not {"--json", "--output-format", "stream-json", "--verbose"} & set(words)
    assert words_of(backend, tmp_path, options={"output": "stream"}) == words_of(backend, tmp_path)
    for use in (backend.reader, lambda options: words_of(backend, tmp_path, options=options)):
        with pytest.raises(UserError, match=r"unknown output of x: json; known: stream, text"):
            use({"type": "x", "output": "json"})


ANSWERS = [case for case in texts() if "expect" in case]


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: str(case["file"]))
def test_a_recorded_answer_in_plain_text_is_read_as_its_index_says(
    case: dict[str, object],
) -> None:
    outcome, _ = read_all(
        agents.load(str(case["cli"])).reader({"output": "text"}), stream(str(case["file"]))
    )
    assert {"final_text": outcome.final_text} == case["expect"]
    assert outcome.success is None


@pytest.mark.parametrize("backend", CLIS)
@pytest.mark.parametrize("said", [b"", b" \n\t\n"])
def test_plain_text_without_an_answer_is_no_success(backend: ModuleType, said: bytes) -> None:
    outcome, _ = read_all(backend.reader({"output": "text"}), said)
    assert outcome.success is False


def test_the_command_lines_for_plain_text(tmp_path: Path) -> None:
    text = {"output": "text"}
    assert words_of(claude, tmp_path, options=text, session_id="s") == [
        *["-p", "--tools", "default", "--permission-mode", "bypassPermissions"],
        *["--session-id", "s"],
    ]
    assert words_of(gemini, tmp_path, options=text, session_id="s") == [
        *["--screen-reader", "true", "--approval-mode", "yolo", "--session-id", "s"],
    ]
    words = words_of(codex, tmp_path, options=text)
    assert words == [word for word in words_of(codex, tmp_path) if word != "--json"]


# -- a program too old for its stream mode


@pytest.mark.parametrize("backend", CLIS)
def test_the_command_line_for_an_old_program_has_none_of_what_it_may_not_know(
    backend: ModuleType, tmp_path: Path
) -> None:
    words = words_of(backend, tmp_path, is_old=True, model="m")
    assert not set(backend.STREAM_OPTIONS) & set(words)
    assert "m" in words
    whole = words_of(backend, tmp_path, session_id="s")
    assert set(backend.STREAM_OPTIONS) <= {*whole, "--session-id"}


def test_the_command_lines_for_old_programs(tmp_path: Path) -> None:
    assert words_of(claude, tmp_path, is_old=True) == ["-p", "--dangerously-skip-permissions"]
    assert words_of(gemini, tmp_path, is_old=True) == ["--yolo"]
    assert words_of(codex, tmp_path, is_old=True)[:3] == ["exec", *BYPASS, "-c"]
    own = {"unattended": ["--mode", "x"], "args": ["-v"]}
    assert words_of(claude, tmp_path, is_old=True, options=own) == ["-p", "--mode", "x", "-v"]


@pytest.mark.parametrize(
    ("backend", "stderr", "option"),
    [
        (claude, "error: unknown option '--session-id'\n", "--session-id"),
        (claude, "error: unknown option '--output-format'", "--output-format"),
        (
            claude,
            "error: option '--output-format <format>' argument 'stream-json' is invalid. "
            "Allowed choices are text, json.\n",
            "--output-format",
        ),
        (claude, "warning\nerror: unknown option '--verbose'\n(Did you mean x?)\n", "--verbose"),
        (codex, "error: unexpected argument '--json' found\n\nUsage: codex exec\n", "--json"),
        (
            codex,
            "error: Found argument '--json' which wasn't expected, or isn't valid in this context",
            "--json",
        ),
        (gemini, "Unknown argument: session-id\nUsage: gemini [options]\n", "--session-id"),
        (gemini, "Unknown arguments: output-format, outputFormat\nUsage:\n", "--output-format"),
        (
            gemini,
            'Invalid values:\n  Argument: output-format, Given: "stream-json", Choices: "text"\n',
            "--output-format",
        ),
        # What else a program may say before it ends.
        (claude, "", ""),
        (claude, "error: unknown option '--frobnicate'\n", ""),
        (claude, "error: unknown option '--json'\n", ""),
        (claude, "No conversation found with session ID: --session-id\n", ""),
        (claude, "API Error: 400 --output-format\n", ""),
        (codex, "error: unexpected argument '--jsonl' found\n", ""),
        (codex, "error: the argument '--json' cannot be used twice\n", ""),
        (gemini, "Usage: --output-format  [choices: text]\nError: no key\n", ""),
        (gemini, "Unknown argument: resume\n", ""),
    ],
)
def test_which_option_a_program_refuses(backend: ModuleType, stderr: str, option: str) -> None:
    assert _too_old.refused_option(stderr, backend.STREAM_OPTIONS) == option


def test_only_a_stream_mode_that_is_used_can_be_one_that_a_program_is_too_old_for() -> None:
    def may(backend: ModuleType, **values: object) -> bool:
        return runner._may_be_too_old(runner.Request(**values), backend)

    assert all(may(backend) for backend in CLIS)
    assert not any(may(backend, options={"output": "text"}) for backend in CLIS)
    assert not any(may(backend, resume=True) for backend in CLIS)
    assert not any(may(backend) for backend in (shell, offline, command))


# -- further arguments


def test_args_go_before_what_must_stand_last(tmp_path: Path) -> None:
    options = {"args": ["--add-dir", "../x", 7]}
    more = {"options": options, "model": "m", "session_id": "s", "resume": True}
    assert words_of(claude, tmp_path, **more)[-7:] == [
        *["--add-dir", "../x", "7", "--model", "m", "--resume", "s"]
    ]
    words = words_of(codex, tmp_path, **more)
    assert words[:6] == ["exec", *BYPASS, "--add-dir", "../x", "7", "--skip-git-repo-check"]
    assert words[-5:] == ["-m", "m", "resume", "s", "-"]
    words = words_of(gemini, tmp_path, **more)
    assert words[2:9] == [
        *["--approval-mode", "yolo", "--add-dir", "../x", "7", "--output-format", "stream-json"]
    ]


@pytest.mark.parametrize("backend", CLIS)
def test_unattended_takes_the_place_of_what_lets_it_do_all(
    backend: ModuleType, tmp_path: Path
) -> None:
    usual = words_of(backend, tmp_path)
    asked = words_of(backend, tmp_path, options={"unattended": ["--ask", "me"]})
    none = words_of(backend, tmp_path, options={"unattended": []})
    flags = {*BYPASS, "--tools", "default", "--permission-mode", "bypassPermissions", "yolo"}
    assert flags & set(usual)
    assert not (flags | {"--approval-mode"}) & set(asked)
    assert [word for word in asked if word not in ("--ask", "me")] == none


@pytest.mark.parametrize("backend", CLIS)
@pytest.mark.parametrize("key", ["args", "unattended"])
@pytest.mark.parametrize("value", ["--all", {"a": 1}, [True], [None], [["x"]], 7, True])
def test_arguments_that_are_no_list_of_strings_are_one_line_of_error(
    backend: ModuleType, key: str, value: object, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"{key} of big must be a list of strings") as caught:
        words_of(backend, tmp_path, options={"type": "big", key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("unattended", "found"),
    [
        (None, ["FAIL"]),
        (["--dangerously-skip-permissions"], ["FAIL"]),
        (["--permission-mode", "bypassPermissions"], ["FAIL"]),
        (["--permission-mode", "dontAsk", "--allowedTools", "Bash"], []),
    ],
)
def test_claude_refuses_root_only_where_it_may_do_everything(
    unattended: list[str] | None, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    checks = claude.conditions({"unattended": unattended}, {})
    assert [state for _, state, _, _ in checks] == found


# -- environment


@pytest.mark.parametrize("backend", CLIS)
def test_the_users_own_variables_go_before_those_of_a_backend(
    backend: ModuleType, tmp_path: Path
) -> None:
    given = launch(run_dir=str(tmp_path), options={"base_url": "http://x", "sandbox": True})
    changes = {name: value for name, value in backend.environment(given).items() if value}
    assert changes
    request = runner.Request(
        type=backend.__name__.rpartition(".")[2],
        options={**given.options, "env": dict.fromkeys(changes, "configured")},
    )
    run = runs.Run(str(tmp_path), {})
    found = runner.environment(run, request, backend, given, {})
    assert {name: found[name] for name in changes} == dict.fromkeys(changes, "configured")

    request.options["env"] = dict.fromkeys(changes)
    assert not set(changes) & set(runner.environment(run, request, backend, given, {}))
    request.env = dict.fromkeys(changes, "from the command line")
    found = runner.environment(run, request, backend, given, {})
    assert {found[name] for name in changes} == {"from the command line"}


@pytest.mark.parametrize("name", sorted(claude._QUIET))
def test_what_keeps_claude_quiet_gives_way_to_what_is_exported(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in claude._QUIET:
        monkeypatch.delenv(known, raising=False)
    assert claude.environment(launch())[name] == claude._QUIET[name]
    monkeypatch.setenv(name, "")
    changes = claude.environment(launch())
    assert name not in changes
    assert set(claude._QUIET) - {name} <= set(changes)


def test_a_record_of_totals_is_one_that_can_be_written() -> None:
    outcome, _ = read_all(claude.reader(), stream("claude/stream-tool"))
    assert json.loads(json.dumps(outcome.session_totals)) == {
        "input_tokens": 2400,
        "cached_tokens": 800,
        "output_tokens": 68,
        "cost_usd": 0.00792,
    }
