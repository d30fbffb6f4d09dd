"""The embedded agent as a real process, read by the reader that its backend names."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from lib.agents import _offline_main, base, offline
from tests.helpers import clean_environment, wait_until


class Ended:
    """How a run of the embedded agent ended, and what its stream told."""

    def __init__(self, status: int, stdout: bytes, stderr: str) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        reader = offline.reader()
        self.transcript = reader.feed(stdout) + reader.finish()
        self.outcome = reader.outcome


def command(folder: Path, **more: object) -> list[str]:
    return offline.command(
        base.Launch(
            executable=None,
            prompt_path=str(folder / "prompt.md"),
            run_dir=str(folder),
            cwd=str(folder),
            session_id=more.get("session_id"),  # type: ignore[arg-type]
            options={"delay": more.get("delay", 0)},
        )
    )


def run(prompt: str, folder: Path, **variables: str) -> Ended:
    done = subprocess.run(
        command(folder, session_id="session-1"),
        input=prompt.encode(),
        capture_output=True,
        cwd=folder,
        env=clean_environment({"JRUN_RUN_FOLDER": str(folder), **variables}),
        timeout=60,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


def test_a_good_run_tells_success_session_usage_and_writes_its_answer(tmp_path: Path) -> None:
    ended = run("# Build it\nWith care.\n", tmp_path, JRUN_TASK_ID="build")

    answer = "The offline agent rehearsed build; nothing else was done."
    outcome = ended.outcome
    assert (ended.status, ended.stderr) == (0, "")
    assert (outcome.success, outcome.error, outcome.final_text) == (True, None, answer)
    assert (outcome.session_id, outcome.model) == ("session-1", "offline")
    assert (outcome.input_tokens, outcome.output_tokens, outcome.cost_usd) == (5, 9, 0)
    assert (outcome.tool_calls, outcome.open_tools, outcome.turns) == (3, 0, 4)
    assert (tmp_path / "output.md").read_text(encoding="utf-8") == answer + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["output.md"]
    assert ended.transcript.count(answer) == 1
    assert "▶ tool Bash: bus-append --type PROGRESS" in ended.transcript


def test_it_posts_progress_and_one_fact(tmp_path: Path) -> None:
    bus = tmp_path / "MESSAGE-BUS.md"
    ended = run("x", tmp_path, JRUN_MESSAGE_BUS=str(bus), JRUN_TASK_ID="t1")
    text = bus.read_text(encoding="utf-8")
    assert ended.outcome.success is True
    assert "✗" not in ended.transcript
    assert text.index("offline agent: began t1") < text.index("offline agent: finished t1")
    assert text.count("PROGRESS") == text.count("FACT") == 1


def test_a_bus_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    ended = run("x", tmp_path, JRUN_MESSAGE_BUS=str(tmp_path))
    assert ended.status == 0
    assert ended.outcome.success is True
    assert "    ✗ " in ended.transcript


def test_a_run_folder_that_is_gone_fails_nothing(tmp_path: Path) -> None:
    ended = run("x", tmp_path, JRUN_RUN_FOLDER=str(tmp_path / "gone"))
    assert ended.outcome.success is True
    assert "    ✗ " in ended.transcript


def test_without_a_run_folder_nothing_is_written(tmp_path: Path) -> None:
    assert run("x", tmp_path, JRUN_RUN_FOLDER="").outcome.success is True
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prompt", "last_line"),
    [
        ("Review. End with VERDICT: APPROVE or VERDICT: REJECT.\n", "VERDICT: APPROVE"),
        ("VERDICT: is wanted\noffline: reject\n", "VERDICT: REJECT"),
        ("offline: reject\n", "VERDICT: REJECT"),
        ("VERDICT: is wanted\noffline: no-verdict\n", "nothing else was done."),
        ("no such thing is wanted\n", "nothing else was done."),
    ],
)
def test_the_verdict_is_the_last_line_of_answer_and_output(
    prompt: str, last_line: str, tmp_path: Path
) -> None:
    answer = run(prompt, tmp_path).outcome.final_text or ""
    assert answer.split("\n")[-1].endswith(last_line)
    assert (tmp_path / "output.md").read_text(encoding="utf-8") == answer + "\n"


def test_an_empty_prompt_is_refused(tmp_path: Path) -> None:
    ended = run(" \n", tmp_path)
    assert (ended.status, ended.stdout) == (1, b"")
    assert ended.stderr == "offline agent: the prompt is empty\n"


def test_a_session_id_is_made_up_where_none_is_given(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path), input=b"x", capture_output=True, env=clean_environment(), check=True
    )
    assert len(Ended(0, done.stdout, "").outcome.session_id or "") == 36


def test_directives_are_obeyed_in_order(tmp_path: Path) -> None:
    ended = run(
        "offline: say one\noffline: touch a/b.txt\noffline: say two\noffline: sleep 0\n"
        "offline: stderr Grüße\noffline: exit 7\noffline: say never\n",
        tmp_path,
    )
    assert ended.status == 7
    assert ended.stderr == "Grüße\n"
    shown = ended.transcript
    assert shown.index("\none\n") < shown.index("▶ tool Write: a/b.txt") < shown.index("\ntwo\n")
    assert "never" not in shown
    assert (tmp_path / "a" / "b.txt").read_bytes() == b""
    assert ended.outcome.error == "the prompt told the offline agent to exit 7"
    assert not (tmp_path / "output.md").exists()


def test_exit_0_ends_well_and_at_once(tmp_path: Path) -> None:
    ended = run("offline: say a\noffline: exit 0\noffline: say b\n", tmp_path)
    assert ended.status == 0
    assert (ended.outcome.final_text or "").startswith("a\nThe offline agent")


def test_what_is_no_directive_is_passed_over_and_reported(tmp_path: Path) -> None:
    lines = ["offline: exit x", "offline: exit 256", "offline: sleep -1", "offline: sleep nan"]
    lines += ["offline: crash now", "offline: dance", "offline: say", "offline: exit  3"]
    quoted = ["> offline: crash", " offline: crash", "offline:crash", "Offline: crash"]
    ended = run("\n".join([*lines, *quoted]) + "\n", tmp_path)
    assert ended.outcome.success is True
    assert ended.stderr == "".join(f"offline agent: not a directive: {line!r}\n" for line in lines)


@pytest.mark.parametrize("path", ["../out.txt", "{above}/out.txt", ".", "link/out.txt"])
def test_touch_stays_below_the_working_folder(path: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "link").symlink_to(tmp_path)
    ended = run(f"offline: touch {path.format(above=tmp_path)}\n", work)
    assert ended.outcome.success is True
    assert "    ✗ this path is outside of the working folder\n" in ended.transcript
    assert [inner.name for inner in tmp_path.iterdir()] == ["work"]


def test_no_result_ends_with_0_and_no_success(tmp_path: Path) -> None:
    ended = run("offline: no-result\n", tmp_path)
    assert (ended.status, ended.outcome.success) == (0, False)
    assert ended.outcome.error == "no result event"
    assert not (tmp_path / "output.md").exists()


def test_an_empty_result_is_no_success(tmp_path: Path) -> None:
    ended = run("offline: empty\n", tmp_path)
    assert (ended.status, ended.outcome.success) == (0, False)
    assert ended.outcome.error == "the answer is empty"
    assert not (tmp_path / "output.md").exists()


def test_silent_says_nothing_at_all(tmp_path: Path) -> None:
    ended = run("offline: say a\noffline: silent\noffline: print-env PATH\n", tmp_path)
    assert (ended.status, ended.stdout, ended.stderr) == (0, b"", "")


def test_crash_dies_by_sigkill_after_what_it_said(tmp_path: Path) -> None:
    ended = run("offline: say last words\noffline: crash\n", tmp_path)
    assert ended.status == -signal.SIGKILL
    assert "last words" in ended.transcript


def test_a_flood_is_as_long_as_asked_for(tmp_path: Path) -> None:
    ended = run("offline: flood 3000\n", tmp_path)
    assert ended.transcript.count(" of 3000\n") == 3000
    assert ended.outcome.success is True


def test_the_value_of_a_variable_stands_in_the_answer(tmp_path: Path) -> None:
    value = 'sk-"ä\\secret'
    ended = run("offline: print-env MINE\noffline: print-env NONE\n", tmp_path, MINE=value)
    assert (ended.outcome.final_text or "").startswith(f"{value}\nNONE is not set\n")
    assert f"\n{value}\n" in ended.transcript


def test_the_value_of_a_variable_is_flushed_in_two_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = []

    class Recorded(_offline_main.Rehearsal):
        def write(self, data: bytes, *, flush: bool = True) -> None:
            assert flush
            pieces.append(data)

    monkeypatch.setenv("MINE", "A" * 10 + "B" * 10)
    Recorded("offline: print-env MINE\n", "s", 0).obey("print-env", "MINE")

    assert len(pieces) == 2
    assert pieces[0].endswith(b'"' + b"A" * 10)
    assert pieces[1].startswith(b"B" * 10 + b'"')
    assert pieces[1].endswith(b"\n")


def test_spawn_leaves_a_process_in_a_session_of_its_own(tmp_path: Path) -> None:
    ended = run("offline: spawn\n", tmp_path)
    answer = ended.outcome.final_text or ""
    pid = int(answer.removeprefix("left process ").split()[0])
    try:
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGKILL)
    assert ended.outcome.success is True


def test_a_hanging_agent_has_begun_and_says_no_more(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
    )
    with process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"offline: say hanging now\noffline: hang\n")
        process.stdin.close()
        reader = offline.reader()
        seen: list[str] = []

        def hangs() -> bool:
            assert process.stdout
            seen.append(reader.feed(os.read(process.stdout.fileno(), 1 << 16)))
            return "hanging now" in "".join(seen)

        try:
            wait_until(hangs, what="the agent's words")
            assert process.poll() is None
        finally:
            process.terminate()
        assert process.wait() == -signal.SIGTERM


@pytest.mark.parametrize("delay", ["0", "x", "-1", "nan", ""])
def test_the_delay_of_the_environment_is_taken_where_it_makes_sense(
    delay: str, tmp_path: Path
) -> None:
    argv = [part for part in command(tmp_path) if part not in ("--delay", "0.0")]
    done = subprocess.run(
        argv,
        input=b"x",
        capture_output=True,
        env=clean_environment({"CONDUCTOR_OFFLINE_DELAY": delay}),
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_agent_whose_output_nobody_reads_ends(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        command(tmp_path), input=b"x", stdout=write_end, stderr=subprocess.PIPE, timeout=60
    )
    os.close(write_end)
    assert done.stderr == b""
    assert done.returncode == 1
