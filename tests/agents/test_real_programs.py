"""The real claude, codex and gemini, run by this toolkit, against a model that is none."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lib import runs
from tests.agent_runs import check_settled, is_alive, kill, wait_gone
from tests.agents.conftest import PROMPT, Trial
from tests.agents.stub_models import CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS
from tests.helpers import run_script, wait_until

KEY_VARIABLES = {
    "claude": "ANTHROPIC_API_KEY",
    "codex": "CODEX_API_KEY",
    "gemini": "GEMINI_API_KEY",
}
FIGURES = {
    "input_tokens": INPUT_TOKENS,
    "cached_tokens": CACHED_TOKENS,
    "output_tokens": OUTPUT_TOKENS,
}
# In a session of its own, with a parent in the agent's: neither may be left.
ENDLESS_TOOL = """
import os, time
if os.fork() == 0:
    os.setsid()
    with open("tool.new", "w") as file:
        file.write(f"{os.getppid()} {os.getpid()}")
    os.rename("tool.new", "tool")
time.sleep(600)
"""


def requests_of(trial: Trial) -> int:
    """How many requests its figures are to be of: gemini's choice of a model is one."""
    return len(trial.stub.answered) + (trial.name == "gemini")


def test_an_answer_arrives_with_its_transcript_and_figures(trial: Trial) -> None:
    trial.stub.answer = "Ünlike any öther: 42"
    trial.stub.tool = "echo said-by-the-tool"
    code, err, run = trial.run()
    assert (code, err) == (0, "")
    check_settled(trial.place, run.path)
    assert trial.answer_of(run).strip() == "Ünlike any öther: 42"
    transcript = Path(run.file(runs.TRANSCRIPT)).read_text()
    called = transcript.index("▶ tool ")
    assert "echo said-by-the-tool" in transcript[called:].split("\n")[0]
    told = transcript.index("\n    said-by-the-tool\n", called)
    assert transcript.index("\nÜnlike any öther: 42\n") > told
    for key, each in FIGURES.items():
        assert run.number(key) == requests_of(trial) * each, key
    assert (run.text("status"), run.number("tool_calls")) == ("completed", 1)
    assert run.text("session_id")


@pytest.mark.parametrize("name", ["codex"])
def test_codex_gives_a_model_that_it_does_not_know_its_plain_tools(trial: Trial) -> None:
    trial.stub.tool = "echo made >made.txt"
    code, _, run = trial.run("--model", "stub-model")
    assert code == 0
    assert {asked.body["model"] for asked in trial.stub.answered} == {"stub-model"}
    assert "exec_command" in trial.stub.answered[0].tools
    assert (trial.place.cwd / "made.txt").read_text() == "made\n"
    assert run.text("model") == "stub-model"


def test_the_configured_key_arrives_and_the_agent_has_no_other(trial: Trial) -> None:
    trial.stub.tool = "env >env.txt"
    code, err, _ = trial.run(env=trial.decoys)
    assert (code, err) == (0, "")
    header = {"claude": "x-api-key", "codex": "authorization", "gemini": "x-goog-api-key"}
    for asked in trial.stub.asked:
        assert asked.tokens in ({}, {header[trial.name]: trial.token}), asked.line()
    variables = (trial.place.cwd / "env.txt").read_text().split("\n")
    assert f"{KEY_VARIABLES[trial.name]}={trial.token}" in variables
    assert [line for line in variables if "decoy-" in line] == []


def test_without_a_configured_key_that_of_the_environment_arrives(trial: Trial) -> None:
    trial.configure(token=None)
    keys = {"claude": "ANTHROPIC_API_KEY", "codex": "OPENAI_API_KEY", "gemini": "GEMINI_API_KEY"}
    others = {name: value for name, value in trial.decoys.items() if name in keys.values()}
    code, err, _ = trial.run(env=others)
    assert (code, err) == (0, "")
    arrived = {token for asked in trial.stub.asked for token in asked.tokens.values()}
    assert arrived == {f"decoy-{keys[trial.name].lower()}"}


def test_a_wrong_key_is_told_in_one_line_within_30_seconds(trial: Trial) -> None:
    trial.stub.token = "sk-another-key"
    code, err, run = trial.run("--timeout", "30s")
    assert code not in (0, 124), err
    check_settled(trial.place, run.path)
    [line] = err.strip().split("\n")
    assert KEY_VARIABLES[trial.name] in line
    assert line.endswith(run.text("error_summary"))
    assert run.text("error_class") == "login"
    assert trial.token not in line


def test_a_tool_works_in_the_working_folder(trial: Trial) -> None:
    trial.stub.tool = "pwd >where.txt"
    code, _, _ = trial.run()
    assert code == 0
    written = (trial.place.cwd / "where.txt").read_text().strip()
    assert os.path.realpath(written) == os.path.realpath(trial.place.cwd)


@pytest.mark.parametrize("victim", ["nobody", "supervisor"])
def test_stopping_leaves_nothing_of_a_tool_at_work(trial: Trial, victim: str) -> None:
    (trial.place.cwd / "endless.py").write_text(ENDLESS_TOOL)
    trial.stub.tool = "python3 endless.py"
    live = trial.start()
    told = trial.place.cwd / "tool"
    wait_until(told.exists, seconds=60, what="the tool")
    tool = [int(pid) for pid in told.read_text().split()]
    assert all(is_alive(pid) for pid in tool)
    if victim == "supervisor":
        kill(live.supervisor)
        wait_until(lambda: not runs.is_held(live.run), what="the end of the supervisor")
    done = run_script("bin/stop-run", live.run_id, "--root", trial.place.root)
    assert done.returncode == 0, done.stderr
    assert [pid for pid in tool if is_alive(pid)] == []
    live.end()
    run = check_settled(trial.place, live.run_dir)
    assert run.record["stopped"] is True
    assert run.text("status") == "failed"


def test_the_session_is_known_before_the_answer(trial: Trial) -> None:
    live = trial.start_and_hold()
    if trial.name != "codex":  # which cannot be told one before the start
        assert live.run.text("session_id") in trial.command_line(live)[1:-1]
    wait_until(lambda: live.run.text("session_id"), what="its session id")
    known = live.run.text("session_id")
    trial.stub.gate.set()
    code, _, err = live.end()
    assert code == 0, err
    assert live.run.text("session_id") == known


def test_a_resumed_session_goes_on_and_each_run_has_its_own_figures(trial: Trial) -> None:
    trial.stub.tool = "echo said-by-the-tool"
    code, err, run = trial.run()
    assert (code, err) == (0, "")
    for prompt in ("And then?", "And in the end?"):
        before, requests = run, requests_of(trial)
        trial.stub.answer = f"To {prompt}"
        trial.stub.asked.clear()
        code, err, run = trial.resume(before, prompt)
        assert (code, err) == (0, "")
        check_settled(trial.place, run.path)
        said = "\n".join(trial.stub.answered[0].texts)
        assert PROMPT in said[: said.index(prompt)]
        assert trial.stub.answered[0].outputs, "the tool's answer was forgotten"
        assert trial.answer_of(run).strip() == f"To {prompt}"
        assert run.text("session_id") == before.text("session_id")
        assert run.text("previous_run_id") == before.run_id
        for key, each in FIGURES.items():
            assert run.number(key) == requests_of(trial) * each, key
        if trial.name == "claude":
            cost = float(str(before.record["cost_usd"])) / requests * requests_of(trial)
            assert run.record["cost_usd"] == pytest.approx(cost)


def test_a_first_refusal_for_too_many_requests_is_overcome_or_told(trial: Trial) -> None:
    trial.stub.status, trial.stub.failures, trial.stub.retry_after = 429, 1, "1"
    code, err, run = trial.run()
    check_settled(trial.place, run.path)
    if code == 0:
        assert trial.answer_of(run).strip() == trial.stub.answer
    else:
        assert run.text("error_class") == "quota", err


def test_an_agent_outlives_its_supervisor_and_its_answer_is_kept(trial: Trial) -> None:
    live = trial.start_and_hold()
    kill(live.supervisor)
    assert live.end()[0] == -signal.SIGKILL
    trial.place.act()
    assert live.run.text("status") == "running"
    trial.stub.gate.set()
    wait_gone(live.run_id)
    trial.place.act()
    run = check_settled(trial.place, live.run_dir)
    assert (run.text("status"), run.number("exit_code")) == ("completed", 0)
    assert trial.answer_of(run).strip() == trial.stub.answer
    assert run.number("output_tokens") == requests_of(trial) * OUTPUT_TOKENS
    assert run.text("session_id")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
@pytest.mark.parametrize("name", ["claude"])
def test_claude_as_root_says_what_to_do(trial: Trial) -> None:
    trial.configure(sandbox=None)
    code, err, run = trial.run()
    assert code == 1
    [line] = err.strip().split("\n")
    assert "root" in line
    assert "sandbox: true" in line
    assert line.endswith(run.text("error_summary"))
    assert trial.stub.asked == []


@pytest.mark.parametrize("name", ["gemini"])
def test_gemini_works_in_a_folder_that_it_was_not_told_to_trust(trial: Trial) -> None:
    trial.configure(env={"GEMINI_CLI_TRUST_WORKSPACE": None})
    code, _, _ = trial.run()
    assert code == 55, "it trusts this folder by itself: the test shows nothing"
    trial.configure()
    code, err, run = trial.run()
    assert (code, err) == (0, "")
    assert trial.answer_of(run).strip() == trial.stub.answer


def test_the_prompt_arrives_whole(trial: Trial) -> None:
    code, _, run = trial.run()
    assert code == 0
    sent = Path(run.file(runs.PROMPT)).read_text().strip()
    assert sent.endswith(PROMPT)
    said = [text for text in trial.stub.answered[0].texts if PROMPT in text]
    assert [text.strip() for text in said] == [sent]
