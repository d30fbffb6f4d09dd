"""The original's answers, recorded on a storage of its own: ours on the same storage are the same.

Keys may be added, none may be missing; values are equal but where a reason is
given here.  The run that lived while they were recorded lives here, too: some
process stands in for its agent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lib import ids
from tests.api_server import Event, Reply, Server

DATA = Path(__file__).parent.parent / "data"
SAMPLES = DATA / "go-api"
INDEX: list[dict[str, Any]] = json.loads((SAMPLES / "index.json").read_text())

SLOW = "web/task-20260101-000010-slow"
LIVE = "20261122-1951100000-22164-4"
LIVE_STDOUT = f"{SLOW}/runs/{LIVE}/agent-stdout.txt"
ENDED = "demo/task-20260101-000001-smoke/runs/20261122-1948110000-17495-1"

# The archive has whole seconds only; these are the times that the answers tell.
MODIFIED = {
    "demo/task-20260101-000001-smoke/TASK.md": "2026-11-22T19:48:11.818711074Z",
    "web/task-20260101-000011-dep/TASK.md": "2026-11-22T19:50:19.178715463Z",
    **{
        f"{ENDED}/{name}": "2026-11-22T19:48:11.827565675Z"
        for name in ("agent-stdout.txt", "agent-stderr.txt", "output.md")
    },
}
# What was sent: the recordings have the answers to it alone.
BODIES: dict[str, bytes] = {
    "odd-post-message-badjson.txt": b"{nope",
    "odd-post-message-empty.txt": b"{}",
    "odd-post-message-unknown-field.txt": b'{"project_id":"demo","body":"x","zzz":1}',
    "odd-post-task-bad-id.txt": (
        b'{"project_id":"demo","task_id":"../x","agent_type":"claude","prompt":"x"}'
    ),
    "odd-post-task-no-prompt.txt": (
        b'{"project_id":"demo","task_id":"task-20260101-000009-new","agent_type":"claude"}'
    ),
}
HEADERS = {"odd-ui-delete-run.txt": {"X_Conductor_Client": "web-ui"}}
# Values that another server, or another moment, gives of its own; the type is the same.
OWN_VALUES = {
    "01-healthz.txt": {".uptime"},
    "02-version.txt": {".version"},
    "03-status.txt": {".uptime_seconds", ".version"},
    "05-self-update.txt": {".active_runs_now"},  # 2 there, of which one had ended: 03 says 1
    # What is wrong with the JSON is said in the words of its parser.
    "odd-post-message-badjson.txt": {".error.message"},
    "odd-post-message-unknown-field.txt": {".error.message"},
}
OWN_PAGES = {"58-ui-root.txt", "59-ui.txt", "60-ui-slash.txt"}  # another page; a bare redirection


class Recorded:
    """A recorded answer: status, headers in lower case, body."""

    def __init__(self, name: str) -> None:
        text = (SAMPLES / name).read_text()
        head, _, self.body = text.partition("\n\n")
        asked, *lines = head.split("\n")
        _, brace, sent = asked.partition(" {")
        self.sent: dict[str, str] = json.loads("{" + sent) if brace else {}
        self.status = int(lines[0].split()[1]) if any(lines) else 0
        pairs = (line.split(": ", 1) for line in lines[1:] if line)
        self.headers = {name.lower(): value for name, value in pairs}

    def events(self) -> list[Event]:
        """The whole ones: the last was often cut."""
        found = []
        for block in self.body.split("\n\n")[:-1]:
            fields = [line.partition(": ") for line in block.split("\n") if ": " in line]
            data = [value for field, _, value in fields if field == "data"]
            by_name = {field: value for field, _, value in fields}
            if data:
                event = (by_name.get("id", ""), by_name.get("event", ""), "\n".join(data))
                found.append(Event(*event))
        return found


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A server on the storage as it was while they were recorded, with its one living run."""
    runs_dir = folder / "store"
    with tarfile.open(DATA / "storage" / "go-storage-sample.tar.gz") as archive:
        archive.extractall(runs_dir, filter="data")
    for name, time in MODIFIED.items():
        nanoseconds = ids.parse_rfc3339(time)
        assert nanoseconds
        os.utime(runs_dir / name, ns=(nanoseconds, nanoseconds))
    config = folder / "config.yaml"
    agents = (f"  {name}: {{type: {name}}}\n" for name in ("claude", "codex", "gemini"))
    config.write_text("agents:\n" + "".join(agents))
    with subprocess.Popen(
        [sys.executable, "-c", "input()"],
        env={**os.environ, "JRUN_ID": LIVE},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as agent:
        record = runs_dir / SLOW / "runs" / LIVE / "run-info.yaml"
        record.write_text(record.read_text().replace("23629", str(agent.pid)))
        with Server(folder, "--runs-dir", runs_dir, "--config", config) as started:
            yield started
        agent.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("recorded")) as started:
        yield started


def names(*, streams: bool) -> list[str]:
    return [entry["file"] for entry in INDEX if bool(entry.get("stream")) == streams]


def entry_of(name: str) -> dict[str, Any]:
    return next(entry for entry in INDEX if entry["file"] == name)


def test_every_recording_is_replayed() -> None:
    assert {path.name for path in SAMPLES.glob("*.txt")} == {entry["file"] for entry in INDEX}


@pytest.mark.parametrize("name", names(streams=False))
def test_an_answer_is_that_of_the_original(server: Server, name: str) -> None:
    entry, recorded = entry_of(name), Recorded(name)
    reply = ask(server, name, entry)
    assert reply.status == recorded.status == entry["status"], reply.body
    kind = recorded.headers.get("content-type", "")
    assert reply.headers.get("content-type", "").partition(";")[0] == kind.partition(";")[0]
    assert "x-request-id" in reply.headers
    if name in OWN_PAGES:
        assert reply.headers.get("location") == recorded.headers.get("location")
    elif kind == "application/json" and recorded.body.strip():
        assert reply.body.endswith(b"\n")
        check(reply.json, json.loads(recorded.body), OWN_VALUES.get(name, set()))
    else:
        assert reply.text.rstrip("\n") == recorded.body.rstrip("\n")


def ask(server: Server, name: str, entry: dict[str, Any]) -> Reply:
    headers = dict(HEADERS.get(name, {}))
    if entry["method"] == "POST":
        headers["Content_Type"] = "application/json"
    return server.send(entry["method"], entry["path"], body=BODIES.get(name), **headers)


def check(ours: Any, theirs: Any, own_values: set[str], at: str = "") -> None:
    """All that `theirs` has is in `ours`, with the same values."""
    assert is_like(ours, theirs), at
    if isinstance(theirs, dict):
        assert theirs.keys() <= ours.keys(), at
        for key, value in theirs.items():
            check(ours[key], value, own_values, f"{at}.{key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), at
        for number, value in enumerate(theirs):
            check(ours[number], value, own_values, f"{at}[{number}]")
    elif at in own_values:
        assert ours or not theirs or theirs == 2, at
    elif at.endswith(".body"):
        # Theirs ends in a line feed more as soon as another message follows.
        assert ours.removesuffix("\n") == theirs.removesuffix("\n"), at
    else:
        assert ours == theirs, at


def is_like(ours: Any, theirs: Any) -> bool:
    numbers = (int, float)
    if isinstance(theirs, numbers) and not isinstance(theirs, bool):
        return isinstance(ours, numbers) and not isinstance(ours, bool)
    return type(ours) is type(theirs)


# -- streams

SILENT = {"sse-run-finished.txt", "sse-task-runs.txt"}  # they kept even the headers back
ONE_TEXT = "sse-file-"  # chunks of a file, cut where they happened to be read


@pytest.mark.parametrize("name", names(streams=True))
def test_a_stream_is_that_of_the_original(server: Server, tmp_path: Path, name: str) -> None:
    if "live" not in name and name != "sse-runs-all.txt":
        replay(server, name)
        return
    with served(tmp_path) as own:  # its agent prints something
        replay(own, name)


def replay(server: Server, name: str) -> None:
    recorded = Recorded(name)
    headers = {key.replace("-", "_"): value for key, value in recorded.sent.items()}
    output = server.root / "store" / LIVE_STDOUT
    before, after = printed(recorded.events(), output)
    append(output, before)
    with server.open_stream(entry_of(name)["path"], **headers) as stream:
        assert stream.status == (recorded.status or 200)
        if stream.status != 200:
            return
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-cache"
        assert "x-request-id" in stream.headers
        if name not in SILENT:
            buffering = recorded.headers.get("x-accel-buffering")
            assert stream.headers.get("x-accel-buffering") == buffering
        expect = expect_text if name.startswith(ONE_TEXT) else expect_events
        expect(iter(stream), recorded.events(), lambda: append(output, after))


def printed(expected: list[Event], output: Path) -> tuple[list[str], list[str]]:
    """The lines that the agent printed after the storage was kept: before the stream, and in it."""
    stored = output.read_text().split("\n")[:-1]
    lines = [event.json["line"] for event in expected if event.name == "log"]
    if not lines:
        text = "".join(event.data for event in expected if not event.name)
        lines = text.split("\n")[:-1] if text.startswith("\n".join(stored)) else []
    new = [line for line in lines if tick_of(line) > tick_of(stored[-1])]
    if not new:
        return [], []
    first = max(tick_of(new[0]), 61)  # what was read at the beginning went up to the 60th
    skipped = [TICK % number for number in range(tick_of(stored[-1]) + 1, first)]
    return skipped, [line for line in new if tick_of(line) >= first]


TICK = '{"type":"assistant","message":{"content":[{"type":"text","text":"tick %d"}]}}'


def tick_of(line: str) -> int:
    number = line.rpartition('"tick ')[2].partition('"')[0]
    return int(number) if number.isdigit() else -1


def append(path: Path, lines: list[str]) -> None:
    """Once: the list is empty then."""
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))
    lines.clear()


def expect_events(stream: Iterator[Event], expected: list[Event], grow: Callable[[], None]) -> None:
    """Each of theirs comes: states in any order, all else in theirs."""
    states = [event for event in expected if event.name == "status"]
    others = [event for event in expected if event.name not in ("status", "heartbeat")]
    quiet = 0
    while states or others:
        event = next(stream)
        if event.name != "heartbeat":
            grow()  # the server knows by now where the stream begins
        quiet += event.name == "heartbeat"
        assert quiet < 5, (states, others)
        if event.name == "status":
            states = [state for state in states if not is_same(event, state)]
        elif event.name != "heartbeat":
            assert is_same(event, others[0]), (event, others[0])
            del others[0]


def is_same(ours: Event, theirs: Event) -> bool:
    if ours.name != theirs.name or not ours.id.startswith(theirs.id):
        return False
    own_values = {".timestamp"} if theirs.name == "log" else set()
    try:
        check(ours.json, theirs.json, own_values)
    except AssertionError:
        return False
    return True


def expect_text(stream: Iterator[Event], expected: list[Event], grow: Callable[[], None]) -> None:
    text = "".join(event.data for event in expected if not event.name)
    got = ""
    while len(got) < len(text):
        event = next(stream)
        grow()
        assert event.name == "", event
        got += event.data
    assert got == text
    for event in expected:
        if event.name == "done":
            ended = next(stream)
            assert (ended.name, ended.data) == ("done", event.data)
            assert list(stream) == []
