"""run-agent.py from start to end: what it prints, what it records, what the agent is given."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lib import files, ids, runs
from lib.errors import EXIT_NOT_FOUND, EXIT_USAGE
from tests.agent_runs import (
    CAPTURES,
    Live,
    Place,
    check_settled,
    end_processes,
    is_alive,
    kill,
    processes_of,
    wait_gone,
)
from tests.helpers import PYTHON, ROOT, wait_until

FIRST_KEYS = [
    "version", "run_id", "project_id", "task_id", "agent", "process_ownership", "pid", "pgid",
    "start_time", "end_time", "exit_code", "status", "cwd", "prompt_path", "output_path",
    "stdout_path", "stderr_path",
]  # fmt: skip
FILES = {
    "prompt.md", "agent-stdout.txt", "agent-stderr.txt", "transcript.md", "output.md",
    "cwd.txt", "run-info.yaml",
}  # fmt: skip
TOKEN = "tok-4f9a8b7c6d5e4f3a2b1c0d9e"


def fake_claude(place: Place, capture: str = "stream-plain", code: int = 0) -> None:
    """A `claude` that notes what it was given and replays a recorded stream."""
    place.program(
        "claude",
        "#!/bin/sh\nenv >claude-env\ncat >claude-stdin\nprintf '%s\\n' \"$@\" >claude-args\n"
        f"cat '{CAPTURES / capture}.stdout'\nexit {code}\n",
    )


def record_of(run: runs.Run) -> dict[str, object]:
    return run.record


# -- what is printed and recorded -----------------------------------------------


@pytest.mark.parametrize("agent", ["shell", "offline", "claude"])
def test_a_run_prints_its_place_and_leaves_all_of_its_files(either: Place, agent: str) -> None:
    fake_claude(either)
    either.script("echo done")
    done = either.run(agent, ".", "prompt.md")

    assert (done.returncode, done.stderr) == (0, "")
    keys = [line.split("=")[0] for line in done.stdout.split("\n")[:-1]]
    assert keys == ["RUN_ID", "RUN_DIR", "PID"]
    run = check_settled(either, either.only_run().path)
    folder = Path(run.path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    extra = {"script.sh"} if agent == "shell" else set()
    names = {path.name for path in folder.iterdir()}
    assert names - {"timing.txt"} == FILES | extra  # which is there if it took a second
    assert [key for key in run.record if key in FIRST_KEYS] == FIRST_KEYS
    assert (run.text("status"), run.number("exit_code")) == ("completed", 0)
    assert "error_summary" not in run.record
    start, end = run.time_ns("start_time"), run.time_ns("end_time")
    assert start is not None
    assert end is not None
    assert start <= end
    assert str(run.record["end_time"]).endswith("Z")
    assert (folder / "output.md").read_text().strip()


def test_cwd_txt_says_in_key_value_lines_what_ran_and_how_it_ended(place: Place) -> None:
    place.script("exit 7")
    done = place.run("shell", ".", "prompt.md")
    run = check_settled(place, place.only_run().path)
    pairs = dict(x.split("=", 1) for x in Path(run.file("cwd.txt")).read_text().split("\n") if x)

    assert done.returncode == 7
    assert list(pairs) == [
        "RUN_ID", "CWD", "AGENT", "CMD", "PROMPT", "STDOUT", "STDERR", "PID", "EXIT_CODE",
    ]  # fmt: skip
    assert (pairs["RUN_ID"], pairs["CWD"], pairs["AGENT"]) == (run.run_id, str(place.cwd), "shell")
    assert (pairs["PID"], pairs["EXIT_CODE"]) == (run.text("pid"), "7")
    assert (run.text("status"), run.number("exit_code")) == ("failed", 7)
    assert run.text("error_summary") == "agent exited with code 7"
    [crash] = place.messages(run.run_id, "RUN_CRASH")
    first = f"ERROR task=prompt agent=shell exit=7 run={run.run_id}: agent exited with code 7"
    assert crash.body.split("\n")[0] == first


def test_the_record_of_a_live_run_has_its_pid_and_no_end(either: Place) -> None:
    gate = either.gate()
    either.script(f"read -r _ <'{gate.path}'; echo through")
    live = either.start("shell", ".", "prompt.md", "--follow")
    run = live.run

    assert [line.split("=")[0] for line in live.head] == ["RUN_ID", "RUN_DIR", "PID"]
    assert (run.text("status"), run.number("exit_code")) == ("running", -1)
    assert (run.record["end_time"], run.number("pid")) == (ids.ZERO_TIME, live.agent)
    assert (live.run_dir / "pid.txt").read_text() == f"{live.agent}\n"
    assert runs.state(run).holder == "supervisor"
    assert files.is_locked(run.file(runs.LOCK))
    assert os.getpgid(live.agent) == os.getsid(live.agent) == run.number("pgid")
    gate.open()
    assert live.end() == (0, "through\n", "")
    check_settled(either, live.run_dir)


def test_run_start_comes_before_what_the_agent_posts_or_not_at_all_late(place: Place) -> None:
    done = place.run("offline", ".", "--prompt", "say hello")
    assert done.returncode == 0, done.stderr
    run = place.only_run()
    types = [message.type for message in place.messages(run.run_id)]
    assert sorted(types) == ["FACT", "PROGRESS", "RUN_START", "RUN_STOP"]
    assert types[-1] == "RUN_STOP"


def test_the_options_reach_record_and_agent(place: Place) -> None:
    place.script('env; echo "second=$SECOND"')
    bus, runs_dir = place.folder / "other-bus.md", place.folder / "other runs"
    done = place.run(
        "shell", ".", "prompt.md", "--project", "proj", "--task", "infra-x",
        "--parent", "run_a", "--previous", "run_b", "--env", "FIRST=1", "--env", "SECOND=a=b c",
        "--runs-dir", runs_dir, "--bus", bus, "--model", "small", "--timeout", "90s",
        "--idle-timeout=15m",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [run] = runs.listing(str(runs_dir))
    output = Path(run.file("output.md")).read_text()

    assert run.run_id.endswith("-infra-x")
    wanted = {
        "project_id": "proj", "task_id": "infra-x", "parent_run_id": "run_a",
        "previous_run_id": "run_b", "model": "small", "timeout": 90.0, "idle_timeout": 900.0,
    }  # fmt: skip
    assert {key: run.record[key] for key in wanted} == wanted
    variables = dict(line.split("=", 1) for line in output.split("\n") if "=" in line)
    assert variables["JRUN_ID"] == run.run_id
    assert variables["JRUN_PARENT_ID"] == "run_a"
    assert (variables["JRUN_PROJECT_ID"], variables["JRUN_TASK_ID"]) == ("proj", "infra-x")
    assert variables["JRUN_RUNS_DIR"] == str(runs_dir)
    assert variables["JRUN_RUN_FOLDER"] == run.path
    assert variables["JRUN_MESSAGE_BUS"] == str(bus)
    assert (variables["FIRST"], variables["second"]) == ("1", "a=b c")
    assert "RUN_STOP" in bus.read_text()
    assert not place.bus.exists()


def test_agent_folder_and_prompt_have_defaults(place: Place) -> None:
    place.script("pwd")
    config = place.folder / "config.yaml"
    config.write_text("defaults: {agent: shell}\n")
    done = place.run("--config", config)
    assert done.returncode == 0, done.stderr
    run = place.only_run()
    assert (run.text("agent"), run.text("cwd")) == ("shell", str(place.cwd))
    assert (run.text("project_id"), run.text("task_id")) == ("work", "prompt")
    assert Path(run.file("output.md")).read_text() == f"{place.cwd}\n"


def test_without_a_config_the_first_agent_on_path_is_taken(place: Place) -> None:
    fake_claude(place)
    place.script("unused")
    tools = {"PATH": f"{place.bin}:/usr/bin:/bin"}
    done = place.run(env=tools)
    assert done.returncode == 0, done.stderr
    assert place.only_run().text("agent") == "claude"


def test_json_prints_the_record_as_one_object_and_nothing_else(place: Place) -> None:
    place.script("echo hello; exit 3")
    done = place.run("shell", ".", "prompt.md", "--json")
    assert (done.returncode, done.stderr) == (3, "")
    assert json.loads(done.stdout) == place.only_run().record


def test_a_prompt_may_be_given_as_text(place: Place) -> None:
    done = place.run("shell", ".", "--prompt", "```sh\necho from text\n```\n", "--follow")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[3:] == ["from text", ""]


# -- a real agent's stream ----------------------------------------------------------


def test_claude_gets_the_prompt_on_stdin_and_its_stream_becomes_answer_and_figures(
    place: Place,
) -> None:
    fake_claude(place, "stream-tool")
    (place.cwd / "prompt.md").write_text("What is two plus two?")
    done = place.run("claude", ".", "prompt.md", "--follow")
    run = check_settled(place, place.only_run().path)

    assert done.returncode == 0, done.stderr
    assert (place.cwd / "claude-stdin").read_bytes() == Path(run.file("prompt.md")).read_bytes()
    assert Path(run.file("prompt.md")).read_text().endswith("\n---\n\nWhat is two plus two?")
    assert run.record["input_tokens"]
    assert run.record["session_id"]
    assert run.record["tool_calls"] == 1
    answer = Path(run.file("output.md")).read_text().strip()
    assert answer.startswith("STUB-ANSWER")
    transcript = Path(run.file("transcript.md")).read_text()
    assert answer in transcript
    assert done.stdout.endswith(transcript)
    capture = (CAPTURES / "stream-tool.stdout").read_bytes()
    assert Path(run.file("agent-stdout.txt")).read_bytes() == capture


@pytest.mark.parametrize("capture", ["stream-sigterm", "stream-401", "stream-max-budget"])
def test_exit_code_0_without_success_in_the_stream_is_a_failure(place: Place, capture: str) -> None:
    fake_claude(place, capture)
    done = place.run("claude", ".", "--prompt", "go")
    run = check_settled(place, place.only_run().path)
    assert done.returncode == 1
    assert (run.text("status"), run.number("exit_code")) == ("failed", 0)
    assert "EXIT_CODE=0\n" in Path(run.file("cwd.txt")).read_text()
    assert run.text("error_summary")
    assert done.stderr == f"run-agent.py: {run.text('error_summary')}\n"


def test_an_agent_gets_its_own_tokens_only_and_no_session_of_its_starter(place: Place) -> None:
    fake_claude(place)
    own = {"ANTHROPIC_API_KEY": "a-key-123456", "ANTHROPIC_AUTH_TOKEN": "a-token-123456"}
    foreign = {
        name: f"{name.lower()}-secret-1"
        for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "XAI_API_KEY", "PERPLEXITY_API_KEY",
                     "CONDUCTOR_API_KEY", "CONDUCTOR_AGENT_GEMINI_TOKEN")
    }  # fmt: skip
    nested = {"CLAUDECODE": "1", "CLAUDE_CODE_ENTRYPOINT": "cli"}
    done = place.run("claude", ".", "--prompt", "go", env={**own, **foreign, **nested})
    assert done.returncode == 0, done.stderr
    text = (place.cwd / "claude-env").read_text()
    variables = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
    assert own.items() <= variables.items()
    assert not {*foreign, *nested} & set(variables)
    assert not [value for value in foreign.values() if value in text]


# -- secrets ----------------------------------------------------------------------------


def test_a_token_is_nowhere_but_in_the_raw_output(place: Place) -> None:
    other = "cfg-9z8y7x6w5v4u3t2s1r"
    config = place.folder / "config.yaml"
    config.write_text(f"agents: {{shell: {{token: {other}}}}}\n")
    gate = place.gate()
    halves = [(t[:9], t[9:]) for t in (TOKEN, other)]
    text = "".join(
        f"printf '%s' 'begin {a}'; read -r _ <'{gate.path}'; printf '%s end\\n' '{b}'\n"
        f"echo 'error {a}{b}' >&2\n"
        for a, b in halves
    )
    place.script(
        text
        + f"'{ROOT}/bin/bus-append' 'posted {TOKEN}' >/dev/null; echo 'own {TOKEN}' >\"$JRUN_RUN_FOLDER/output.md\"; echo 'last {TOKEN}' >&2; exit 9"
    )
    live = place.start(
        "shell", ".", "prompt.md", "--follow", "--config", str(config), env={"MY_TOKEN": TOKEN}
    )
    stdout = live.run_dir / "agent-stdout.txt"
    for first, _ in halves:  # it is there, and may be shown, before the second one comes
        wait_until(lambda half=first: stdout.read_text().endswith(half), what="half a token")  # type: ignore[misc]
        gate.open()
    code, out, err = live.end()
    run = check_settled(place, live.run_dir)

    assert code == 9
    assert (live.run_dir / "output.md").read_text() == "own [REDACTED]\n"
    assert out.count("begin [REDACTED] end\n") == 2
    assert err == "run-agent.py: agent exited with code 9: last [REDACTED]\n"
    for token in (TOKEN, other):
        assert token in (live.run_dir / "agent-stdout.txt").read_text()
        inputs = ("agent-stdout.txt", "agent-stderr.txt", "prompt.md", "script.sh")
        for path in [*live.run_dir.iterdir(), place.bus]:
            if path.name not in inputs:
                assert token not in path.read_text(), path.name
        assert token not in out + err + json.dumps(run.record)


def test_a_token_given_for_this_run_alone_is_redacted_too(place: Place) -> None:
    place.script('echo "$SPECIAL_API_KEY"')
    done = place.run(
        "shell", ".", "prompt.md", "--follow", "--env", f"SPECIAL_API_KEY={TOKEN}"
    )  # fmt: skip
    run = place.only_run()
    assert done.stdout.endswith("[REDACTED]\n")
    assert Path(run.file("output.md")).read_text() == "[REDACTED]\n"


# -- child runs -------------------------------------------------------------------------


def test_a_run_started_by_an_agent_is_its_child_without_any_flag(place: Place) -> None:
    place.script("echo child", "child.md")
    place.script(f"'{ROOT}/run-agent.py' shell . child.md")
    done = place.run("shell", ".", "prompt.md")
    assert done.returncode == 0, done.stderr
    parent, child = sorted(place.all_runs(), key=lambda run: "parent_run_id" in run.record)
    assert child.text("parent_run_id") == parent.run_id
    assert Path(child.path).parent == Path(parent.path).parent
    for run in (parent, child):
        assert check_settled(place, run.path).text("status") == "completed"


@pytest.mark.parametrize("how", ["", "setsid", "nohup"])
def test_a_child_run_in_the_background_outlives_its_parent(either: Place, how: str) -> None:
    gate = either.gate()
    either.script(f"read -r _ <'{gate.path}'; echo child done", "child.md")
    either.script(f"{how} '{ROOT}/run-agent.py' shell . child.md >/dev/null 2>&1 &")
    done = either.run("shell", ".", "prompt.md", "--task", "parent")
    assert done.returncode == 0, done.stderr

    def child() -> runs.Run | None:
        return next((r for r in either.all_runs() if "parent_run_id" in r.record), None)

    wait_until(lambda: (run := child()) and run.number("pid"), what="the child run")
    parent = next(r for r in either.all_runs() if r.text("task_id") == "parent")
    run = child()
    assert run is not None
    check_settled(either, parent.path, spared=[run.number("supervisor_pid")])
    assert runs.state(run).holder == "supervisor"
    gate.open()
    wait_gone(run.run_id)
    wait_until(lambda: runs.read(run.path).text("status") != "running", what="the child's end")
    wait_until(lambda: not Path(run.file(runs.LOCK)).exists(), what="the child's marks to go")
    assert check_settled(either, run.path).text("status") == "completed"


# -- what an agent leaves behind, and other strange agents -----------------------------


LEFT_BEHIND = """
setsid sleep 600 &
(setsid sh -c 'trap "" TERM; echo $$ >stubborn; while :; do sleep 600; done' &)
while [ ! -s stubborn ]; do sleep 0.01; done
"""


def test_what_an_agent_leaves_behind_is_ended_with_it(either: Place) -> None:
    either.script(LEFT_BEHIND)
    done = either.run("shell", ".", "prompt.md")
    assert done.returncode == 0, done.stderr
    check_settled(either, either.only_run().path)


def test_keep_background_lets_it_live_even_if_it_writes_for_ever(place: Place) -> None:
    place.script("setsid sh -c 'while :; do echo more; done' & echo $! >background")
    done = place.run("shell", ".", "prompt.md", "--keep-background")
    run = place.only_run()
    left = int((place.cwd / "background").read_text())
    try:
        assert done.returncode == 0, done.stderr
        assert run.text("status") == "completed"
        assert is_alive(left)
    finally:
        kill(left)
    wait_gone(run.run_id)


def test_an_agent_that_makes_a_folder_of_its_output_still_gets_one(place: Place) -> None:
    place.script(
        'mkdir -p "$JRUN_RUN_FOLDER/output.md/x"; rm "$JRUN_RUN_FOLDER/agent-stdout.txt"; echo no'
    )
    done = place.run("shell", ".", "prompt.md")
    run = place.only_run()
    assert done.returncode == 0, done.stderr
    assert run.text("status") == "completed"
    assert Path(run.file("output.md")).read_text() == "no\n"


def test_a_starter_that_ignores_sigchld_loses_no_exit_code(place: Place) -> None:
    place.script("sh -c 'exit 4'; exit $?")
    ignore = f"import os,signal,sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); \
os.execv({sys.executable!r}, sys.argv[1:])".replace(" ", "\t")
    process = subprocess.run(
        [sys.executable, "-c", ignore.replace("\t", " "), *PYTHON, str(ROOT / "run-agent.py"),
         "shell", ".", "prompt.md", "--root", str(place.root)],
        cwd=place.cwd, env=place.environment(), capture_output=True, timeout=60,
    )  # fmt: skip
    assert process.returncode == 4, process.stderr
    assert check_settled(place, place.only_run().path).number("exit_code") == 4


def test_children_that_the_process_had_before_are_not_the_run_s(place: Place) -> None:
    place.script("setsid sleep 600 &")
    words = " ".join(f"'{word}'" for word in [*PYTHON, str(ROOT / "run-agent.py")])
    shell = f"sleep 600 & echo $! >bystander; exec {words} shell . prompt.md --root '{place.root}'"
    done = subprocess.run(
        ["/bin/sh", "-c", shell], cwd=place.cwd, env=place.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    bystander = int((place.cwd / "bystander").read_text())
    try:
        assert done.returncode == 0
        check_settled(place, place.only_run().path)
        assert is_alive(bystander)
    finally:
        kill(bystander)


def test_a_run_goes_on_when_nobody_reads_what_it_prints(place: Place) -> None:
    gate = place.gate()
    place.script(f"read -r _ <'{gate.path}'; echo to nobody; exit 6")
    live = place.start("shell", ".", "prompt.md", "--follow")
    assert live.process.stdout is not None
    live.process.stdout.close()
    gate.open()
    assert live.process.wait(60) == 6
    assert check_settled(place, live.run_dir).number("exit_code") == 6


@pytest.mark.parametrize("closed", [">&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_end_up_in_the_run_s_files(place: Place, closed: str) -> None:
    place.script("echo fine")
    words = " ".join(f"'{word}'" for word in [*PYTHON, str(ROOT / "run-agent.py")])
    done = subprocess.run(
        ["/bin/sh", "-c", f"{words} shell . prompt.md --follow --root '{place.root}' {closed}"],
        cwd=place.cwd, env=place.environment(), capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    run = check_settled(place, place.only_run().path)
    for name in ("output.md", "transcript.md", "agent-stdout.txt"):
        assert Path(run.file(name)).read_text() == "fine\n"


# -- wrong input ------------------------------------------------------------------------


def wrong(place: Place, name: str) -> tuple[list[str], int, list[str]]:
    """Arguments, the exit code, and what the one line must hold: the thing and the cure."""
    cwd = place.cwd
    (cwd / "empty.md").write_text(" \n")
    (cwd / "latin.md").write_bytes(b"caf\xe9")
    (cwd / "folder.md").mkdir()
    (place.folder / "a-file").write_text("")
    good = str(place.script(":", "good.md"))
    return {
        "no prompt": (["shell", "."], 1, [str(cwd / "prompt.md"), "write it"]),
        "folder": (["shell", ".", "folder.md"], 1, ["folder.md", "name the file"]),
        "empty": (["shell", ".", "empty.md"], 1, ["empty.md", "write what"]),
        "not utf-8": (["shell", ".", "latin.md"], 1, ["latin.md", "byte 3", "iconv"]),
        "unknown agent": (["nobody", ".", good], EXIT_USAGE, ["nobody", "known:", "shell"]),
        "no program": (["claude", ".", good], EXIT_NOT_FOUND, ["claude", "install it", "npm"]),
        "no folder": (["shell", "missing", good], 1, [str(cwd / "missing"), "make it"]),
        "both prompts": (["shell", ".", good, "--prompt", "x"], EXIT_USAGE, ["--prompt", "keep one"]),
        "bad time": (["shell", ".", good, "--timeout", "soon"], EXIT_USAGE, ["--timeout", "15m"]),
        "bad id": (["shell", ".", good, "--task", "../x"], EXIT_USAGE, ["--task", "use letters"]),
        "bad env": (["shell", ".", good, "--env", "X"], EXIT_USAGE, ["--env", "KEY=VALUE"]),
        "runs is a file": (
            ["shell", ".", good, "--runs-dir", str(place.folder / "a-file")],
            1,
            ["a-file", "name another place"],
        ),
        "no config": (["shell", ".", good, "--config", "none.yaml"], EXIT_USAGE, ["none.yaml"]),
    }[name]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["no prompt", "folder", "empty", "not utf-8", "unknown agent", "no program", "no folder",
     "both prompts", "bad time", "bad id", "bad env", "runs is a file", "no config"],
)  # fmt: skip
def test_wrong_input_is_told_in_one_line_and_leaves_no_run(place: Place, name: str) -> None:
    arguments, code, texts = wrong(place, name)
    done = place.run(*arguments, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("run-agent.py: ")
    assert done.stderr.count("\n") == 1
    for text in texts:
        assert text in done.stderr
    assert place.all_runs() == []


def test_a_nearly_full_disk_starts_nothing(place: Place) -> None:
    place.script(":")
    done = place.run("shell", ".", "prompt.md", env={"CONDUCTOR_MIN_FREE_MB": "999999999"})
    assert done.returncode == 1
    assert done.stderr.startswith("run-agent.py: disk is short: ")
    assert "CONDUCTOR_MIN_FREE_MB" in done.stderr
    assert place.all_runs() == []


def test_a_disk_that_takes_no_byte_leaves_no_run_folder(place: Place) -> None:
    place.script("touch started")

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = subprocess.run(
        [*PYTHON, str(ROOT / "run-agent.py"), "shell", ".", "prompt.md", "--root", str(place.root)],
        cwd=place.cwd, env=place.environment(), capture_output=True, timeout=60, preexec_fn=full,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.decode() == "run-agent.py: File too large\n"
    assert not (place.cwd / "started").exists()
    assert list(place.runs_dir.glob("run_*")) == []
    assert runs.marked(str(place.runs_dir)) == []


def test_a_runs_folder_that_cannot_be_written_is_named(place: Place) -> None:
    place.script(":")
    place.runs_dir.mkdir()
    place.runs_dir.chmod(0o555)

    def obey_modes() -> None:
        """Root may write anywhere: give that right up, for what is executed now."""
        cap_dac_override, pr_capbset_drop = 1, 24
        ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0)

    done = subprocess.run(
        [*PYTHON, str(ROOT / "run-agent.py"), "shell", ".", "prompt.md", "--root", str(place.root)],
        cwd=place.cwd, env=place.environment(), capture_output=True, timeout=60,
        preexec_fn=obey_modes,
    )  # fmt: skip
    place.runs_dir.chmod(0o755)
    text = done.stderr.decode()
    assert done.returncode == 1
    assert text.startswith(f"run-agent.py: cannot make a run folder in {place.runs_dir}: ")
    assert "--runs-dir" in text
    assert text.count("\n") == 1
    assert place.all_runs() == []


def test_names_with_spaces_quotes_line_breaks_and_substitutions_work(tmp_path: Path) -> None:
    odd = "a b'c\"d\n$(touch pwned)`touch pwned`;é %41"
    place = Place(tmp_path / odd)
    prompt = place.script("pwd >where; echo fine", f"{odd}.md".replace("/", ""))
    done = place.run("shell", place.cwd, prompt, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = check_settled(place, place.only_run().path)
    assert run.text("cwd") == str(place.cwd)
    assert (place.cwd / "where").read_text() == f"{place.cwd}\n"
    assert Path(run.file("output.md")).read_text() == "fine\n"
    assert not list(tmp_path.rglob("pwned"))
    assert done.stdout.count("\n") >= 3


def test_a_child_run_in_a_folder_with_a_line_break_is_found_again(tmp_path: Path) -> None:
    place = Place(tmp_path / "line\nbreak\tand 100%")
    place.script("echo child", "child.md")
    place.script(f"'{ROOT}/run-agent.py' shell . child.md")
    done = place.run("shell", ".", "prompt.md")
    assert done.returncode == 0, done.stderr
    parent, child = sorted(place.all_runs(), key=lambda run: "parent_run_id" in run.record)
    assert [path for _, _, path in runs.children(parent)] == [child.path]


def test_helpers_find_processes_by_their_run(place: Place) -> None:
    """The check for left-over processes is itself able to see one."""
    gate = place.gate()
    place.script(f"read -r _ <'{gate.path}'")
    live: Live = place.start("shell", ".", "prompt.md")
    assert {live.agent, live.guard} <= set(processes_of(live.run_id))
    end_processes(live.run_id)
    live.end()


def test_an_agent_that_puts_a_pipe_in_the_place_of_a_file_ends_like_any_other(place: Place) -> None:
    script = 'cd "$JRUN_RUN_FOLDER"; rm cwd.txt; mkfifo cwd.txt output.md; echo done'

    done = place.run("shell", ".", "--prompt", f"```sh\n{script}\n```")

    assert done.returncode == 0, done.stderr
    path = Path(place.only_run().path)
    assert (path / "transcript.md").read_text() == "done\n"
    assert (path / "output.md").read_text() == "done\n"


def test_a_nul_in_the_configured_environment_is_a_mistake_and_no_bug(place: Place) -> None:
    config = place.folder / "nul.yaml"
    config.write_text('agents:\n  shell: {env: {A: "x\\0y"}}\n')

    done = place.run("shell", ".", "--prompt", "```sh\ntrue\n```", "--config", str(config))

    assert done.returncode == 1
    assert "agent shell cannot be passed on" in done.stderr
    assert "bug" not in done.stderr
    assert place.only_run().text("status") == runs.FAILED


def test_the_exit_code_tells_also_when_nobody_reads_what_is_printed(place: Place) -> None:
    place.script("exit 3")
    with place.popen("shell", ".", "prompt.md") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()

        assert process.wait() == 3
