"""bus-append and bus-tail as their users start them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lib import bus
from tests.helpers import PYTHON, ROOT, clean_environment, run_script, wait_until

DATA = ROOT / "tests" / "data" / "bus"


def append(path: Path, *arguments: str, **more: object) -> str:
    done = run_script("bin/bus-append", "--bus", path, *arguments, **more)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def tail(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_script("bin/bus-tail", *arguments)


def json_tail(*arguments: str | Path) -> list[dict[str, object]]:
    done = tail("--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "MESSAGE-BUS.md"


# -- bus-append


def test_the_printed_id_is_that_of_the_message(path: Path) -> None:
    first = append(path, "hello")
    second = append(
        path, "--type", "FACT", "--project", "p", "--task", "t", "--run", "r", "--parent", first,
        "--parent", "MSG-x", "--meta", "a=b=c", "--meta", "d=", "--no-fsync", "--", "--dashes",
    )  # fmt: skip
    messages = list(bus.read(str(path)))
    assert [m.msg_id for m in messages] == [first, second]
    message = messages[1]
    assert (message.type, message.project_id, message.task_id, message.run_id) == (
        "FACT", "p", "t", "r",
    )  # fmt: skip
    assert [parent["msg_id"] for parent in message.parents] == [first, "MSG-x"]
    assert message.meta == {"a": "b=c", "d": ""}
    assert message.body == "--dashes"


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_the_body_comes_from_standard_input_byte_for_byte(path: Path, arguments: list[str]) -> None:
    body = "---\nlines\r\n\n---\n日本\n"
    append(path, *arguments, stdin=body)
    assert next(bus.read(str(path))).body == body


def test_bytes_that_are_no_text_are_replaced_and_mentioned(path: Path) -> None:
    done = run_script("bin/bus-append", "--bus", path, stdin=b"a\xffb\x00c")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert "U+FFFD" in done.stderr
    assert next(bus.read(str(path))).body == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--type", "", "x"], 2, "--type has an empty value"),
        (["--type", " ", "x"], 1, "type"),
        (["--meta", "novalue", "x"], 2, "KEY=VALUE"),
        (["two", "words"], 2, "unexpected"),
        (["--bus", "/nonexistent/folder/MESSAGE-BUS.md", "x"], 1, "no folder"),
        (["--project", "../x", "x"], 2, "--project"),
    ],
)
def test_a_mistake_is_one_line(path: Path, arguments: list[str], code: int, text: str) -> None:
    env = {"CONDUCTOR_ROOT": str(path.parent)}
    done = run_script("bin/bus-append", *arguments, env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith("bus-append: ")
    assert text in done.stderr
    assert not path.exists()


def test_the_bus_is_found_in_the_documented_order(tmp_path: Path) -> None:
    root, other, work = tmp_path / "root", tmp_path / "other", tmp_path / "work"
    task = root / "runs" / "demo" / "t1"
    inside = work / "deep" / "er"
    for folder in (task, other, inside):
        folder.mkdir(parents=True)
    (work / "MESSAGE-BUS.md").touch()
    in_root = {"CONDUCTOR_ROOT": str(root)}
    in_run = {**in_root, "JRUN_MESSAGE_BUS": str(other / "run-bus.md")}
    for arguments, env, expected in (
        (["--bus", str(other / "x.md"), "--root", str(root)], in_run, other / "x.md"),
        (["--root", str(other), "--project", "demo"], in_run, other / "MESSAGE-BUS.md"),
        (["--project", "demo"], in_run, other / "run-bus.md"),
        (["--project", "demo"], in_root, root / "runs/demo/PROJECT-MESSAGE-BUS.md"),
        (["--project", "demo", "--task", "t1"], in_root, task / "TASK-MESSAGE-BUS.md"),
        (["--project", "demo", "--task", "none"], in_root, root / "MESSAGE-BUS.md"),
        ([], in_root, root / "MESSAGE-BUS.md"),
        ([], {}, work / "MESSAGE-BUS.md"),
    ):
        before = len(list(bus.read(str(expected))))
        done = run_script("bin/bus-append", *arguments, "x", cwd=inside, env=env)
        assert done.returncode == 0, done.stderr
        assert bool(done.stderr) is ("none" in arguments)
        assert len(list(bus.read(str(expected)))) == before + 1, arguments
        assert bus.last(str(expected), 1)[0].msg_id == done.stdout.strip()


def test_a_held_lock_ends_in_the_documented_line_that_names_the_holder(path: Path) -> None:
    append(path, "first")
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = run_script("bin/bus-append", "--bus", path, "--lock-timeout", "0.2", "x")
        other = run_script(
            "bin/bus-append", "--bus", path, "x", env={"CONDUCTOR_LOCK_TIMEOUT": "0.1"}
        )
    assert done.returncode == other.returncode == 1
    assert done.stderr.startswith(
        f"bus-append: lock timeout: message bus locked for >0.2s by pid {os.getpid()} ("
    )
    assert "locked for >0.1s" in other.stderr
    assert [m.body for m in bus.read(str(path))] == ["first"]


def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("x\n")
    path.symlink_to(tmp_path / "target")
    for script in ("bin/bus-append", "bin/bus-tail"):
        done = run_script(script, "--bus", path, *(["x"] if "append" in script else []))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "symbolic link" in done.stderr
    assert (tmp_path / "target").read_text() == "x\n"


def test_appending_imports_nothing_that_is_slow(path: Path) -> None:
    append(path, "first")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from lib.commands.bus_append import main\n"
        "assert main(['--bus', sys.argv[2], '--type', 'FACT', 'task-1: tokens: 1234']) == 0\n"
        "slow = {'re', 'json', 'enum', 'signal', 'typing', 'dataclasses', 'pathlib', 'subprocess',"
        " 'functools', 'contextlib', 'lib.yamlio', 'lib.bus_parse'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    bare = [sys.executable, "-S", "-E", "-c", script]
    done = subprocess.run(
        [*bare, str(ROOT), str(path)], env=clean_environment(), capture_output=True
    )
    assert done.returncode == 0, done.stderr


# -- bus-tail


def test_messages_are_shown_one_under_the_other(path: Path) -> None:
    append(path, "--type", "FACT", "--task", "t", "--run", "r", "one\ntwo\n")
    append(path, "three")
    lines = tail(path).stdout.split("\n")
    first = next(bus.read(str(path)))
    when = f"{first.ts[:10]} {first.ts[11:19]}"
    assert lines[0] == f"{when} FACT  t/r: one"
    assert lines[1] == "    two"
    assert lines[2].endswith(" INFO  three")


def test_n_counts_the_messages_that_pass_the_filters(path: Path) -> None:
    for number in range(60):
        kind = "ERROR" if number % 20 == 0 else "INFO"
        task = "a" if number % 2 else "b"
        bus.append(str(path), type_=kind, task=task, body=f"message {number} {'x' * 2000}")
    for arguments, expected in (
        (["-n", "2"], [58, 59]),
        (["-n", "2", "--type", "error,fact"], [20, 40]),
        (["-n", "1", "--task", "a"], [59]),
        (["--grep", "^message 1?7 "], [7, 17]),
        (["-n", "0"], []),
        (["--type", "nothing"], []),
    ):
        found = json_tail(*arguments, path)
        assert [int(str(m["body"]).split()[1]) for m in found] == expected
    assert len(json_tail(path)) == 20
    assert len(json_tail("-n", "-1", path)) == 60


def test_since_shows_what_follows_a_message(path: Path) -> None:
    posted = [bus.append(str(path), body=str(number)) for number in range(30)]
    assert [m["msg_id"] for m in json_tail("--since", posted[3], path)] == posted[4:]
    assert [m["msg_id"] for m in json_tail("--since", posted[3], "-n", "2", path)] == posted[-2:]
    done = tail("--since", "MSG-unknown", path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "no message MSG-unknown" in done.stderr


def test_json_has_all_fields_and_keeps_the_body_exact(path: Path) -> None:
    body = "\x1b[31m\x9b \u202e 日本 \U000e0001 \r\n---\n"
    msg_id = append(path, "--meta", "k=v", "--parent", "MSG-1", stdin=body)
    done = tail("--json", path)
    assert not any(
        ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c == "\u202e" for c in done.stdout[:-1]
    )
    assert "日本" in done.stdout
    message = json.loads(done.stdout)
    assert list(message) == [
        "msg_id", "ts", "type", "project_id", "task_id", "run_id", "parents", "meta", "body",
    ]  # fmt: skip
    assert (message["msg_id"], message["body"], message["meta"]) == (msg_id, body, {"k": "v"})


def test_the_terminal_gets_no_control_characters_and_no_tokens(path: Path) -> None:
    token = "ghp_" + "0123456789" * 3
    path.write_text(
        f"[2026-01-01 00:00:00] FACT: \x1b]0;title\x07 \x1b[2J \r {token}\n"
        '---\nmsg_id: MSG-1\nts: "2026-01-01T00:00:00Z"\ntype: "a\\nb\\e[1m"\n---\nx\x08y\n'
    )
    for arguments in (["--json"], []):
        out = tail(*arguments, path).stdout
        assert not any(ord(c) < 0x20 and c != "\n" for c in out)
        assert token not in out
        assert "[REDACTED]" in out
    assert len(tail(path).stdout.split("\n")) == 3


def test_a_foreign_bus_is_shown_whole() -> None:
    for name in ("foreign-project.md", "foreign-task.md"):
        ids = [
            line.removeprefix("msg_id: ")
            for line in (DATA / name).read_text().split("\n")
            if line.startswith("msg_id: ")
        ]
        assert [m["msg_id"] for m in json_tail("-n", "-1", DATA / name)] == ids


def test_a_torn_record_is_mentioned_once(path: Path) -> None:
    for body in ("one", "two" * 100, "three", "four" * 100, "five"):
        if body in ("three", "five"):
            os.truncate(path, path.stat().st_size - 50)
        append(path, body)
    done = tail(path)
    assert done.stderr.count("\n") == 1
    assert "2 unfinished" in done.stderr
    assert [m["body"] for m in json_tail(path)] == ["one", "three", "five"]


def test_a_missing_bus_is_one_line_and_exit_code_1(path: Path) -> None:
    done = tail(path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "no bus at" in done.stderr


def test_a_wrong_expression_is_a_usage_error(path: Path) -> None:
    path.touch()
    assert tail("--grep", "(", path).returncode == 2


# -- following


class Following:
    """A running `bus-tail -f`, whose lines are collected."""

    def __init__(self, path: Path, *arguments: str, portable: bool = False) -> None:
        env = clean_environment({"CONDUCTOR_PORTABLE": "1"} if portable else {})
        self.process = subprocess.Popen(
            [*PYTHON, str(ROOT / "bin/bus-tail"), "-f", "--json", *arguments, str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True,
        )  # fmt: skip
        self.bodies: list[str] = []
        self.reader = threading.Thread(target=self.collect)
        self.reader.start()

    def collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.bodies.append(json.loads(line)["body"])

    def expect(self, *bodies: str) -> None:
        wait_until(lambda: self.bodies == list(bodies), what=f"{bodies}, not {self.bodies}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self.reader.join()
        assert self.process.stderr is not None
        assert self.process.stderr.read() == ""
        self.process.stderr.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture(params=[False, True], ids=["notified", "portable"])
def portable(request: pytest.FixtureRequest) -> bool:
    assert isinstance(request.param, bool)
    return request.param


def test_following_shows_appends_rotation_truncation_and_ends_with_ctrl_c(
    path: Path, portable: bool
) -> None:
    for number in range(3):
        bus.append(str(path), body=f"old {number}")
    following = Following(path, "-n", "1", portable=portable)
    following.expect("old 2")
    append(path, "new")
    following.expect("old 2", "new")
    path.rename(path.parent / "archived")
    append(path, "rotated")
    following.expect("old 2", "new", "rotated")
    os.truncate(path, 0)
    append(path, "cut")
    following.expect("old 2", "new", "rotated", "cut")
    assert following.stop() == -signal.SIGINT


def test_following_waits_for_a_missing_bus(path: Path, portable: bool) -> None:
    following = Following(path, "--type", "FACT", portable=portable)
    append(path, "--type", "INFO", "not this")
    append(path, "--type", "FACT", "this")
    following.expect("this")
    assert following.stop() == -signal.SIGINT


def test_a_closed_pipe_ends_it_silently(path: Path) -> None:
    for number in range(2000):
        bus.append(str(path), body=f"{number} {'x' * 200}", durable=False)
    for option in ("-n-1", "-f"):
        script = f'{PYTHON[0]} -S -E {ROOT}/bin/bus-tail {option} "$1"; echo "$?" >&2'
        done = subprocess.run(
            ["sh", "-c", f"({script}) | head -n 1", "sh", str(path)],
            capture_output=True, text=True, env=clean_environment(), timeout=60,
        )  # fmt: skip
        assert done.stdout.count("\n") == 1
        assert done.stderr == "141\n"


# -- the tracked page in a clone


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"]
    env = {k: v for k, v in clean_environment().items() if not k.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *names, "-C", str(folder), *arguments], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_traffic_in_a_clone_is_no_change_for_git(tmp_path: Path) -> None:
    upstream, clone = tmp_path / "upstream", tmp_path / "clone"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("bin", "lib"):
        shutil.copytree(ROOT / name, upstream / name, ignore=ignored)
    page = (ROOT / "MESSAGE-BUS.md").read_text().partition("\n## Messages\n")[0]
    (upstream / "MESSAGE-BUS.md").write_text(page + "\n\n## Messages\n")
    (upstream / ".gitignore").write_text("__pycache__/\n")
    git(upstream, "init", "-q")
    git(upstream, "add", "-A")
    git(upstream, "commit", "-qm", "first")
    git(tmp_path, "clone", "-q", str(upstream), str(clone))
    for number in range(3):
        done = subprocess.run(
            [*PYTHON, str(clone / "bin/bus-append"), f"message {number}"],
            cwd=clone, env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert len(list(bus.read(str(clone / "MESSAGE-BUS.md")))) == 3
    assert git(clone, "status", "--porcelain") == ""
    (upstream / "new.txt").write_text("unrelated\n")
    git(upstream, "add", "-A")
    git(upstream, "commit", "-qm", "second")
    git(clone, "pull", "-q", "--ff-only")
    assert (clone / "new.txt").exists()
    assert git(clone, "status", "--porcelain") == ""
    assert len(list(bus.read(str(clone / "MESSAGE-BUS.md")))) == 3
