"""The bus under many writers, kill -9 and a full disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib import bus
from tests import original_bus
from tests.helpers import PYTHON, ROOT, clean_environment, run_script, wait_until

BODIES = [
    "plain",
    "---\n",
    "a\n---\nmsg_id: MSG-x\ntype: y\n---\nb",
    "title: x\nitems:\n  - 1\n",
    "```sh\ntrue\n```\n",
    "CR LF\r\n---\r\n",
    "emoji 👩‍💻 日本語",
    "",
]

# Appends number after number, each id printed after its append returned.
WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from lib import bus
path, name, count, size, durable = sys.argv[2], sys.argv[3], *map(int, sys.argv[4:7])
bodies = eval(sys.stdin.read())
for number in range(count):
    body = f"{name} {number} {bodies[number % len(bodies)]}" + "x" * size
    sys.stdout.write(f"{bus.append(path, body=body, durable=bool(durable))} {number}\\n")
    sys.stdout.flush()
"""


def start_writer(
    path: Path, name: str, count: int, *, size: int = 0, durable: bool = False, fault: str = ""
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*PYTHON, "-c", WRITER, str(ROOT), str(path), name, str(count), str(size), str(int(durable))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=clean_environment({"CONDUCTOR_FAULT": fault} if fault else {}),
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(repr(BODIES))
    process.stdin.close()
    process.stdin = None
    return process


def expected_body(name: str, number: int, size: int = 0) -> str:
    return f"{name} {number} {BODIES[number % len(BODIES)]}" + "x" * size


@pytest.mark.slow
def test_16_writers_lose_mix_and_disorder_nothing(tmp_path: Path) -> None:
    path = tmp_path / "MESSAGE-BUS.md"
    huge = "y\n---\n" * (8 * 1024 * 1024 // 6)
    writers = {f"w{n}": start_writer(path, f"w{n}", 500) for n in range(16)}
    wait_until(lambda: path.exists() and path.stat().st_size > 100_000, what="some messages")
    huge_id = run_script("bin/bus-append", "--bus", path, "-", stdin=huge).stdout.strip()
    printed: dict[str, tuple[str, int]] = {}
    for name, writer in writers.items():
        out, _ = writer.communicate(timeout=300)
        assert writer.returncode == 0
        for line in out.split("\n")[:-1]:
            msg_id, number = line.split()
            printed[msg_id] = (name, int(number))
    assert len(printed) == 8000
    torn: list[int] = []
    messages = list(bus.read(str(path), torn=torn))
    assert torn == []
    ids = [message.msg_id for message in messages]
    assert ids == sorted(set(ids))
    assert set(ids) == {*printed, huge_id}
    for message in messages:
        if message.msg_id == huge_id:
            assert message.body == huge
        else:
            assert message.body == expected_body(*printed[message.msg_id])
    found = [msg_id for msg_id, _, _ in original_bus_ids(path)]
    assert found == ids


def original_bus_ids(path: Path) -> list[tuple[str, str, str]]:
    """As the original's reader sees the file; its headers are all of one simple form here."""
    return original_bus.read(path.read_bytes().replace(b"y\n ---\n" * 1000, b""))


def test_kill_9_of_writers_loses_no_printed_message(tmp_path: Path) -> None:
    path = tmp_path / "MESSAGE-BUS.md"
    chance = random.Random(4)  # noqa: S311
    printed: dict[str, str] = {}
    for rain in range(12):
        writers = [
            start_writer(path, f"w{rain}-{n}", 10**6, size=20_000, durable=n == 0) for n in range(4)
        ]
        start = path.stat().st_size if path.exists() else 0
        limit = start + chance.randrange(50_000, 600_000)
        wait_until(lambda limit=limit: path.exists() and path.stat().st_size > limit, what="growth")  # type: ignore[misc]
        for writer in writers:
            writer.kill()
        for n, writer in enumerate(writers):
            out, _ = writer.communicate()
            assert writer.returncode == -signal.SIGKILL
            for line in out.split("\n")[:-1]:
                msg_id, number = line.split()
                printed[msg_id] = expected_body(f"w{rain}-{n}", int(number), 20_000)
    last = bus.append(str(path), body="after the rain")
    messages = {message.msg_id: message.body for message in bus.read(str(path))}
    assert printed
    for msg_id, body in printed.items():
        assert messages[msg_id] == body
    assert list(messages) == sorted(messages)
    assert list(messages)[-1] == last


@pytest.mark.parametrize(
    ("point", "is_there"),
    [("bus-locked", False), ("bus-before-write", False), ("bus-written", True),
     ("bus-before-sync", True), ("bus-done", True)],
)  # fmt: skip
def test_a_writer_killed_at_any_point_leaves_a_usable_bus(
    tmp_path: Path, point: str, is_there: bool
) -> None:
    path = tmp_path / "MESSAGE-BUS.md"
    first = bus.append(str(path), body="first")
    writer = start_writer(path, "w", 1, durable=True, fault=f"kill:{point}")
    assert writer.communicate(timeout=60)[0] == ""
    assert writer.returncode == -signal.SIGKILL
    last = bus.append(str(path), body="last", lock_seconds=5)
    expected = ["first", *([expected_body("w", 0)] if is_there else []), "last"]
    torn: list[int] = []
    messages = list(bus.read(str(path), torn=torn))
    assert [message.body for message in messages] == expected
    assert [messages[0].msg_id, messages[-1].msg_id] == [first, last]
    assert torn == []


def test_a_writer_stopped_with_the_lock_keeps_others_out_only_for_their_timeout(
    tmp_path: Path,
) -> None:
    path = tmp_path / "MESSAGE-BUS.md"
    bus.append(str(path), body="first")
    writer = start_writer(path, "w", 1, fault="stop:bus-before-write")
    try:
        os.waitpid(writer.pid, os.WUNTRACED)
        done = run_script("bin/bus-append", "--bus", path, "--lock-timeout", "0.3", "x")
        assert done.returncode == 1
        assert f"locked for >0.3s by pid {writer.pid} (" in done.stderr
    finally:
        os.kill(writer.pid, signal.SIGCONT)
        writer.communicate(timeout=60)
    assert [m.body for m in bus.read(str(path))] == ["first", expected_body("w", 0)]


def test_a_full_disk_is_one_line_and_leaves_the_bus_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "MESSAGE-BUS.md"
    bus.append(str(path), body="first")
    before = path.read_bytes()
    script = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)\n"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(len(before) + 5000), *PYTHON,
         str(ROOT / "bin/bus-append"), "--bus", str(path), "-"],
        input=b"x" * 100_000, capture_output=True, env=clean_environment(),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"bus-append: cannot write to the message bus: ")
    assert done.stderr.count(b"\n") == 1
    assert path.read_bytes() == before
    bus.append(str(path), body="second")
    assert [m.body for m in bus.read(str(path))] == ["first", "second"]


def test_a_bus_that_is_rotated_while_a_writer_waits_gets_the_message(tmp_path: Path) -> None:
    path = tmp_path / "MESSAGE-BUS.md"
    bus.append(str(path), body="old")
    holder = start_writer(path, "holder", 1, fault="stop:bus-before-write")
    os.waitpid(holder.pid, os.WUNTRACED)
    waiting = start_writer(path, "waiting", 1)
    try:
        wait_until(lambda: has_open(waiting.pid, path), what="the second writer at the lock")
        path.rename(tmp_path / "archived")
    finally:
        os.kill(holder.pid, signal.SIGCONT)
        holder.communicate(timeout=60)
    waiting.communicate(timeout=60)
    assert [m.body for m in bus.read(str(path))] == [expected_body("waiting", 0)]
    assert [m.body for m in bus.read(str(tmp_path / "archived"))] == [
        "old", expected_body("holder", 0),
    ]  # fmt: skip


def has_open(pid: int, path: Path) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{name}") == str(path) for name in os.listdir(folder))
    except OSError:
        return False
