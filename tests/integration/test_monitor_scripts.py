"""What the monitor gives to scripts: --once, --json and --follow, of real runs and of hostile ones."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from lib import bus
from tests.agent_runs import Place
from tests.helpers import PYTHON, ROOT, read_document, run_script, wait_until
from tests.plan_root import PlanRoot, sh

SECRET = "ghp_" + "0123456789abcdef" * 2
SAMPLE = ROOT / "tests" / "data" / "storage" / "go-storage-sample.tar.gz"


def look(place: Place | PlanRoot, *arguments: str) -> str:
    """What the monitor prints; it ends well and says nothing else."""
    root = place.root if isinstance(place, Place) else place.path
    done = run_script("bin/monitor", "--root", root, *arguments, env=place.environment())
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def as_json(place: Place | PlanRoot, *arguments: str) -> dict[str, list[dict[str, object]]]:
    [line] = look(place, "--json", *arguments).split("\n")[:-1]
    assert line.isascii()
    found: dict[str, list[dict[str, object]]] = json.loads(line)
    return found


class Following:
    """`bin/monitor --follow`, and what it has printed so far."""

    def __init__(self, place: Place, *arguments: str) -> None:
        self.output = place.folder / "followed"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [*PYTHON, str(ROOT / "bin" / "monitor"), "--root", str(place.root), "--follow",
                 "--interval", "0.2", *arguments],
                env=place.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self.output.read_bytes().decode()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.text, seconds=30, what=f"{text!r} in what is followed")

    def close(self) -> None:
        self.process.terminate()
        assert self.process.wait(30) == -signal.SIGTERM


# -- once


def test_once_prints_everything_and_ends(root: PlanRoot) -> None:
    root.plan(sh("good", "true"), sh("bad", "echo oh no >&2; exit 3", critical=False))
    assert root.run().returncode == 1

    text = look(root, "--once")

    assert re.search(r"^\d\d:\d\d:\d\dZ  0 running, 2 runs, 1 problem  /", text)
    assert "\nproblems (1)\n  p/bad failed 0 s ago: agent exited with code 3: oh no\n" in text
    assert re.search(r"^ended \(2\)\n  p/(good|bad) +shell ", text, re.MULTILINE)
    assert re.search(
        r"^  p  \[#+!+\] 1/2 done, 1 failed, ended 20.* exit code 1$", text, re.MULTILINE
    )
    assert re.search(r"^  \d\d:\d\d:\d\d FACT +p: plan p: 1 done, 1 failed", text, re.MULTILINE)
    assert "\x1b" not in text


def test_a_root_without_anything_is_shown_as_such(place: Place) -> None:
    place.runs_dir.mkdir()
    assert re.fullmatch(r"\d\d:\d\d:\d\dZ  0 running, 0 runs  /.*\n", look(place, "--once"))
    found = as_json(place)
    assert [found[key] for key in ("problems", "runs", "tasks", "plans", "messages")] == [[]] * 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--once", "--json"], "choose one"),
        (["--interval", "0"], "at least 0.1 s"),
        (["-n", "-1"], "is below 0"),
    ],
)
def test_a_wrong_command_line_is_refused(place: Place, arguments: list[str], said: str) -> None:
    done = run_script("bin/monitor", "--root", place.root, *arguments)
    assert done.returncode == 2
    assert re.fullmatch(rf"monitor: .*{said}.*\n", done.stderr)


# -- JSON


def test_json_tells_runs_tasks_plans_and_messages(root: PlanRoot) -> None:
    root.plan(
        sh("good", "true"),
        sh("bad", "exit 3", critical=False),
        sh("behind", "true", depends_on=["bad"], critical=False),
    )
    assert root.run().returncode == 1

    found = as_json(root)

    assert {(run["task_id"], run["status"], run["exit_code"]) for run in found["runs"]} == {
        ("good", "completed", 0),
        ("bad", "failed", 3),
    }
    assert {task["task_id"]: task["status"] for task in found["tasks"]} == {
        "good": "completed",
        "bad": "failed",
    }
    [plan] = found["plans"]
    assert (plan["project_id"], plan["exit_code"], plan["is_run"]) == ("p", 1, False)
    assert plan["counts"] == {"done": 1, "failed": 1, "blocked": 1}
    tasks = plan["tasks"]
    assert isinstance(tasks, list)
    assert tasks[2]["why"].startswith("is blocked: it needs bad, which failed")
    [problem] = found["problems"]
    assert (problem["kind"], problem["task"]) == ("failed", "bad")
    assert found["messages"][0]["type"] == "FACT"
    assert found["runs"][0]["idle_seconds"] is None


def test_json_leaves_out_what_is_old_and_says_how_much(place: Place) -> None:
    for number in range(3):
        place.run("shell", ".", place.script(":"), "--task", f"t{number}")
    assert [run["task_id"] for run in as_json(place, "-n", "1")["runs"]] == ["t2"]
    found = as_json(place, "-n", "1")
    left_out: list[object] = [found["runs_left_out"], found["tasks_left_out"]]
    assert left_out == [2, 2]
    found = as_json(place, "-n", "0")
    assert len(found["runs"]) == len(found["tasks"]) == 3
    assert [run["task_id"] for run in as_json(place, "--task", "t1")["runs"]] == ["t1"]
    assert as_json(place, "--project", "other")["runs"] == []


def test_json_comes_again_and_again_with_an_interval(place: Place) -> None:
    place.runs_dir.mkdir()
    with subprocess.Popen(
        [*PYTHON, str(ROOT / "bin" / "monitor"), "--root", str(place.root), "--json",
         "--interval", "0.1"],
        env=place.environment(), stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
    assert len({line["time"] for line in lines}) == 3


def test_every_field_of_the_json_is_documented(root: PlanRoot) -> None:
    root.plan(sh("good", "true"), sh("bad", "exit 3", critical=False))
    root.run()
    page = read_document("monitor.md")
    found = as_json(root)
    keys = set(found) | {key for name in ("problems", "tasks", "plans") for key in found[name][0]}
    keys |= set(found["plans"][0]["tasks"][0])  # type: ignore[index]
    assert {key for key in keys if f"`{key}`" not in page} == set()


# -- follow


def test_follow_prints_the_new_lines_of_all_runs_each_behind_its_own(place: Place) -> None:
    first_gate, second_gate = place.gate("first"), place.gate("second")
    first = place.start(
        "shell", ".", place.script(f"echo before; read -r _ <{first_gate.path}; echo one; exit 4"),
        "--task", "a",
    )  # fmt: skip
    wait_until(lambda: "before" in (first.run_dir / "transcript.md").read_text(), what="a line")
    following = Following(place)
    following.wait_for(f"{first.run_id}: -- work/a (shell) is running\n")
    second = place.start(
        "shell", ".",
        place.script(f"echo two; read -r _ <{second_gate.path}; printf unfinished", "2.md"),
        "--task", "b",
    )  # fmt: skip
    following.wait_for(f"{second.run_id}: -- work/b (shell) started\n{second.run_id}: two\n")
    first_gate.open()
    following.wait_for(f"{first.run_id}: one\n")
    following.wait_for(f"{first.run_id}: -- failed: agent exited with code 4")
    second_gate.open()
    following.wait_for(f"{second.run_id}: unfinished\n{second.run_id}: -- completed\n")
    place.run("shell", ".", place.script("echo quick", "3.md"), "--task", "c")
    following.wait_for(": quick\n")
    following.wait_for(": -- completed\n")
    following.close()

    text = following.text
    assert ": before\n" not in text
    assert all(re.match(r"run_\S+: ", line) for line in text.split("\n")[:-1])
    assert text.count(": -- completed\n") == 2
    first.end()
    second.end()


def test_follow_makes_what_agents_say_harmless(place: Place) -> None:
    gate = place.gate("first")
    first = place.start("shell", ".", place.script(f"read -r _ <{gate.path}", "1.md"))
    following = Following(place)
    following.wait_for(f"{first.run_id}: -- ")  # it is at work: of what runs then, all is new
    long = "x" * 100_000
    (place.cwd / "long").write_text(long)
    place.run(
        "shell", ".",
        place.script(f"printf '\\033[2J\\007\\377\\n{SECRET}\\r\\n\\342\\200\\256rtl\\n'; cat long"),
        "--task", "odd",
    )  # fmt: skip
    following.wait_for("-odd: -- completed\n")
    following.close()
    gate.open()
    first.end()

    text = following.text
    assert SECRET not in text
    assert ": [REDACTED]\n" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert text.count("x") == 2000  # of a line in a transcript
    assert all(re.match(r"run_\S+: ", line) for line in text.split("\n")[:-1])


def test_tokens_of_the_configuration_are_redacted_too(place: Place) -> None:
    token = "quite-ordinary-words-only"
    (place.cwd / "said").write_text(token)
    place.run("shell", ".", place.script("cat said; cat said >&2; exit 1"), "--task", token)
    config = place.folder / "config.yaml"
    config.write_text(f"agents:\n  claude:\n    token: {token}\n")
    place.env["CONDUCTOR_CONFIG"] = str(config)
    for text in (look(place, "--once"), look(place, "--json")):
        assert "[REDACTED]" in text
        assert token not in text


def test_follow_ends_when_nobody_reads_it(place: Place) -> None:
    place.runs_dir.mkdir()
    process = subprocess.Popen(
        [*PYTHON, str(ROOT / "bin" / "monitor"), "--root", str(place.root), "--follow"],
        env=place.environment(), stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(30) == 128 + signal.SIGPIPE


# -- what others left


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and time of change of everything below a folder."""
    return {
        str(path): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.lstat().st_mtime_ns,
        )
        for path in folder.rglob("*")
    }


def test_a_root_of_the_original_is_shown_and_not_touched(tmp_path: Path) -> None:
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(tmp_path, filter="data")
    [storage] = [path.parent for path in tmp_path.rglob("*") if path.name == "runs"][:1] or [
        tmp_path
    ]
    runs_dir = storage.parent.parent
    before = tree(tmp_path)

    done = run_script("bin/monitor", "--runs-dir", runs_dir, "--json", "-n", "0")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert len(found["runs"]) >= 3
    assert found["tasks"]
    once = run_script("bin/monitor", "--runs-dir", runs_dir, "--once")
    assert (once.returncode, once.stderr) == (0, "")
    assert tree(tmp_path) == before


def test_hostile_names_and_files_harm_nothing(place: Place) -> None:
    done = place.run("shell", ".", place.script("echo fine"), "--task", "fine")
    assert done.returncode == 0
    names = ["run_\x1b[2Jx", "run_20260101-000000-1-a\nb", "run_\udcff\udcfe", f"run_{SECRET}"]
    for name in names:
        (place.runs_dir / name).mkdir()
    pipe = place.runs_dir / "run_20260101-000000-2-pipe"
    pipe.mkdir()
    for name in ("run-info.yaml", "transcript.md", "agent-stdout.txt"):
        os.mkfifo(pipe / name)
    link = place.runs_dir / "run_20260101-000000-3-link"
    link.mkdir()
    (link / "run-info.yaml").symlink_to("/etc/passwd")
    project = place.runs_dir / "proj\x1b]0;t\x07"
    project.mkdir()
    (project / "PLAN-STATE.yaml").write_text("version: 1\ntasks: [")
    (project / "PROJECT-MESSAGE-BUS.md").write_bytes(b"\xff\xfe---\nmsg_id: x\n\x1b[2J")
    bus.append(str(place.bus), body=f"\x1b[31m{SECRET} x\n---\nmsg_id: y", type_="IN\x1bFO")

    for text in (look(place, "--once"), look(place, "--json")):
        assert "fine" in text
        assert SECRET not in text
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    kinds = {problem["kind"] for problem in as_json(place)["problems"]}
    assert "unreadable" in kinds
