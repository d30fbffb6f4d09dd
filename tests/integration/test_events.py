"""The stream of events: every change is told once and soon, and live runs with their last lines."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lib import bus, config, ids, runs, state
from lib.api import event_feed, events, last_lines
from lib.api.event_feed import EventFeed
from lib.api.exchange import Request
from lib.api.service import Service, Settings
from lib.index_entries import Changes
from tests.api_server import Server
from tests.helpers import wait_until
from tests.log_fleet import Fleet, LiveRun
from tests.stored_root import StoredRoot, snapshot

SECONDS = 40.0
PATH = "/api/v1/events"
SECRET = "ghp_" + "0123456789abcdef" * 2
HEARTBEAT = b"event: heartbeat\ndata: {}\n\n"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path / "root") as fleet:
        yield fleet


@contextmanager
def serving(fleet: Fleet) -> Iterator[Service]:
    settings = Settings(heartbeat_seconds=0.05)
    service = Service(str(fleet.runs_dir), config.Config(), settings)
    service.hub.start()
    try:
        yield service
    finally:
        service.hub.close()


class Listener:
    """A client: what it has been told since it came."""

    def __init__(self, body: Iterator[bytes]) -> None:
        self._body = body
        self.events: list[tuple[str, Any]] = []

    def read(self) -> None:
        """The next piece, which holds whole events."""
        *whole, rest = next(self._body).split(b"\n\n")
        assert rest == b""
        for block in whole:
            name, data = block.split(b"\n")
            assert data.startswith(b"data: ")
            self.events.append((name.decode().removeprefix("event: "), json.loads(data[6:])))

    def read_until(self, condition: Callable[[], object]) -> None:
        limit = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < limit, self.events
            self.read()

    def told(self, name: str) -> list[Any]:
        return [data for event, data in self.events if event == name]

    def named(self, key: str) -> list[Any]:
        """All that changes have named, in their order."""
        return [item for change in self.told("change") for item in change[key]]

    def line(self, run: LiveRun) -> str | None:
        """The last line of a run that came."""
        found = [data[run.id]["line"] for data in self.told("lines") if run.id in data]
        return found[-1] if found else None

    def wait_for_line(self, run: LiveRun, text: str) -> None:
        self.read_until(lambda: self.line(run) == text)

    def wait_for_name(self, key: str, name: object) -> None:
        self.read_until(lambda: name in self.named(key))

    def wait_for_size(self, run: LiveRun, size: int) -> None:
        self.read_until(lambda: size in self._sizes(run))

    def _sizes(self, run: LiveRun) -> list[int]:
        told = [data[run.id] for data in self.told("lines") if run.id in data]
        return [item["sizes"]["stdout"] for item in told]

    def be_quiet(self) -> None:
        """Read until all that has happened so far has been told."""
        self.read_until(lambda: [name for name, _ in self.events[-20:]] == ["heartbeat"] * 20)
        self.events.clear()


@contextmanager
def listening(service: Service) -> Iterator[Listener]:
    body = events.stream_events(service, Request("GET", PATH)).body
    try:
        yield Listener(body)  # type: ignore[arg-type]
    finally:
        body.close()  # type: ignore[union-attr]


def noted_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of which a last line is read from here on."""
    read: list[str] = []
    real = last_lines.last_whole_line

    def note(path: str) -> str:
        read.append(path)
        return real(path)

    monkeypatch.setattr(last_lines, "last_whole_line", note)
    return read


def look_twice(service: Service) -> None:
    count = service.view.refreshes
    wait_until(lambda: service.view.refreshes > count + 1, what="a look at all runs")


# -- what is told


def test_a_heartbeat_comes_first_and_then_the_lines_of_all_that_live(
    fleet: Fleet, mode: str
) -> None:
    first, second = fleet.start(), fleet.start()
    first.write("stdout", 3)
    second.write("stderr", 1)
    over = fleet.start()
    over.end()
    with serving(fleet) as service, listening(service) as client:
        client.read()
        assert [name for name, _ in client.events] == ["heartbeat", "lines"]
        assert client.events[0][1] == {}
        lines = client.events[1][1]
        assert set(lines) == {first.id, second.id}
        assert lines[first.id] == {
            "line": "out 3", "sizes": {"transcript.md": 0, "stdout": 18, "stderr": 0},
        }  # fmt: skip
        assert lines[second.id]["line"] == ""  # of stderr there are sizes alone
        assert lines[second.id]["sizes"]["stderr"] == 6


def test_an_empty_root_has_a_heartbeat_alone(fleet: Fleet, mode: str) -> None:
    with serving(fleet) as service, listening(service) as client:
        for _ in range(3):
            client.read()
        assert client.events == [("heartbeat", {})] * 3


def test_a_run_is_told_of_when_it_begins_and_when_it_ends(fleet: Fleet, mode: str) -> None:
    with serving(fleet) as service, listening(service) as client:
        client.read()
        run = fleet.start()
        client.read_until(lambda: run.id in client.named("runs"))
        assert "demo" in client.named("projects")
        client.be_quiet()
        run.end()
        client.read_until(lambda: run.id in client.named("runs"))
        assert all(change["more"] is False for change in client.told("change"))


def test_a_run_that_only_writes_changes_nothing_but_its_lines(fleet: Fleet, mode: str) -> None:
    run = fleet.start()
    with serving(fleet) as service, listening(service) as client:
        client.be_quiet()
        for number in range(1, 6):
            run.write("stdout")
            client.wait_for_line(run, f"out {number}")
        look_twice(service)
        client.read()
        assert client.told("change") == []


def test_a_new_record_of_a_run_that_lives_is_a_change(fleet: Fleet, mode: str) -> None:
    run = fleet.start()
    with serving(fleet) as service, listening(service) as client:
        client.be_quiet()
        run.write_record(status="running", exit_code=-1, end_time=ids.ZERO_TIME, cost_usd=0.5)
        client.read_until(lambda: run.id in client.named("runs"))


def test_the_lines_of_a_run_that_begins_later_come_too(fleet: Fleet, mode: str) -> None:
    with serving(fleet) as service, listening(service) as client:
        client.read()
        run = fleet.start()
        run.write("stdout", 2)
        client.read_until(lambda: client.line(run) == "out 2")
        (run.path / runs.TRANSCRIPT).write_bytes(b"it thinks\n")
        client.read_until(lambda: client.line(run) == "it thinks")


def test_messages_plans_and_tasks_are_told_of(fleet: Fleet, mode: str) -> None:
    task = fleet.task("other", "shop")
    with serving(fleet) as service, listening(service) as client:
        client.be_quiet()
        for folder, name, place in (
            (task, "TASK-MESSAGE-BUS.md", ("shop", "other")),
            (task.parent, "PROJECT-MESSAGE-BUS.md", ("shop", "")),
            (fleet.path, "MESSAGE-BUS.md", ("", "")),
        ):
            bus.append(str(folder / name), type_="FACT", body="x", environ={})
            wanted = dict(zip(("project_id", "task_id"), place, strict=True))
            client.wait_for_name("buses", wanted)
        client.be_quiet()
        (task / "DONE").touch()
        client.read_until(lambda: client.named("projects") == ["shop"])
        client.be_quiet()
        plan = state.PlanState(str(fleet.runs_dir), "shop")
        plan.header, plan.tasks = {"started": ids.rfc3339()}, {"a": state.TaskState()}
        plan.replace()
        plan.close()
        client.read_until(lambda: client.named("plans") == ["shop"])


def test_what_is_removed_is_told_of(fleet: Fleet, mode: str) -> None:
    old = fleet.run(fleet.folder)
    with serving(fleet) as service, listening(service) as client:
        client.be_quiet()
        shutil.rmtree(old)
        client.read_until(lambda: old.name in client.named("runs"))


def test_of_many_changes_a_hundred_are_named(fleet: Fleet, tmp_path: Path, mode: str) -> None:
    aside = StoredRoot(tmp_path / "aside")
    task = aside.task("many", "later")
    for _ in range(150):
        aside.run(task, project_id="later", task_id="many")
    with serving(fleet) as service, listening(service) as client:
        client.be_quiet()
        task.parent.rename(fleet.runs_dir / "later")
        client.read_until(lambda: any(change["more"] for change in client.told("change")))
        assert max(len(change["runs"]) for change in client.told("change")) == 100


# -- hostile


def test_of_hostile_lines_nothing_gets_through(fleet: Fleet, mode: str) -> None:
    run = fleet.start()
    with serving(fleet) as service, listening(service) as client:
        client.read()
        for raw, shown in (
            (b"plain\n", "plain"),
            (f"key {SECRET}\n".encode(), "key [REDACTED]"),
            (b"\x1b[2Jcleared\x07\n", "\u241bcleared\u2407"),
            (b"event: change\ndata: {}\r\n\nnext\n", "next"),
            (b"caf\xe9 \xff\n", "caf\ufffd \ufffd"),
            (b"x" * 1000 + b"\n", "x" * 299 + "\u2026"),
            (b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n", "[REDACTED]"),
            (b"-----END PRIVATE KEY-----\n\xe2\x80\xaeturned\n", "\ufffdturned"),
            (b"half of ghp_0123", "\ufffdturned"),  # no whole line yet
            (b"456789abcdef0123456789abcdef\nend\n", "end"),
        ):
            run.write_raw("stdout", raw)
            size = (run.path / runs.STDOUT).stat().st_size
            client.wait_for_size(run, size)
            assert client.line(run) == shown
        assert SECRET not in json.dumps(client.events)


def test_a_link_in_the_place_of_an_output_is_not_followed(fleet: Fleet, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("somebody's secret\n")
    run = fleet.start()
    (run.path / runs.TRANSCRIPT).symlink_to(other)
    with serving(fleet) as service, listening(service) as client:
        client.read()
        shown = client.told("lines")[0][run.id]
        assert (shown["line"], shown["sizes"]["transcript.md"]) == ("", 0)


def test_a_secret_in_a_name_is_taken_out(fleet: Fleet, mode: str) -> None:
    with serving(fleet) as service, listening(service) as client:
        client.read()
        task = fleet.task(SECRET, SECRET)
        run = fleet.begin(task / "runs" / f"20260101-1200000000-7-{SECRET}")
        run.write("stdout")
        client.read_until(lambda: client.told("lines") and client.told("change"))
        assert SECRET not in json.dumps(client.events)


def test_a_config_that_a_run_names_makes_its_tokens_known(fleet: Fleet, tmp_path: Path) -> None:
    settings = tmp_path / "its-config.yaml"
    settings.write_text("agents:\n  mine:\n    type: claude\n    token: quite-plain-looking-word\n")
    run = fleet.start()
    run.write_record(status="running", exit_code=-1, end_time=ids.ZERO_TIME, config=str(settings))
    run.write_raw("stdout", b"it says quite-plain-looking-word\n")
    with serving(fleet) as service, listening(service) as client:
        client.read()
        assert client.line(run) == "it says [REDACTED]"


# -- coming, going, falling behind


def test_who_comes_anew_gets_all_lines_and_no_old_changes(fleet: Fleet, mode: str) -> None:
    run = fleet.start()
    with serving(fleet) as service:
        with listening(service) as client:
            client.read()
            other = fleet.start()
            client.read_until(lambda: other.id in client.named("runs"))
        run.write("stdout", 7)
        with listening(service) as client:
            client.read()
            assert client.line(run) == "out 7"
            client.be_quiet()
            assert other.id not in client.named("runs")


def test_who_has_seen_the_heartbeat_is_told_of_all_that_happens_then(
    fleet: Fleet, mode: str
) -> None:
    with serving(fleet) as service:
        for _ in range(10):
            with listening(service) as client:
                client.read()
                run = fleet.start()
                client.wait_for_name("runs", run.id)


def test_nothing_is_read_while_nobody_listens(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fleet.start()
    read = noted_reads(monkeypatch)
    with serving(fleet) as service:
        with listening(service) as client:
            client.read()
        assert service.hub.members == 0
        look_twice(service)  # what was under way for it is over
        read.clear()
        run.write("stdout")
        look_twice(service)
        assert read == []


def test_what_many_clients_are_told_is_made_once(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fleet.start()
    read = noted_reads(monkeypatch)
    with serving(fleet) as service, listening(service) as one, listening(service) as two:
        one.read()
        two.read()
        assert len(read) == 1
        read.clear()
        run.write("stdout")
        for client in (one, two):
            client.wait_for_line(run, "out 1")
        assert len(read) == 1
        assert service.hub.clients("events") == 2


def test_when_the_server_ends_the_stream_does(fleet: Fleet) -> None:
    with serving(fleet) as service, listening(service) as client:
        client.read()
        service.hub.close()
        for _ in range(3):  # what was on its way may still come
            try:
                client.read()
            except StopIteration:
                return
        pytest.fail("it goes on")


# -- the feed by itself


@contextmanager
def fed(fleet: Fleet) -> Iterator[tuple[EventFeed, Callable[[], tuple[bytes, int]]]]:
    """A feed whose time is the test's: what it sends after a look, behind where it was."""
    service = Service(str(fleet.runs_dir), config.Config(), Settings())
    found = Changes()
    service.view.listen(found.add)
    with service.view.current() as index:
        feed = EventFeed(str(fleet.runs_dir), service.facts, index)
    place = 0

    def forget() -> None:
        for names in (found.runs, found.tasks, found.plans, found.buses):
            names.clear()

    forget()  # what there was before

    def look() -> tuple[bytes, int]:
        nonlocal place
        service.view.notice([str(fleet.folder)])
        with service.view.current() as index:
            feed.note(found, index)
        forget()
        feed.advance(None)
        data, place = feed.since(place)
        return data, place

    yield feed, look


def test_changes_are_gathered_until_the_next_event_is_due(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with fed(fleet) as (feed, look):
        look()
        now += 10
        assert feed.due == math.inf  # nobody has to wake for nothing
        first = fleet.run(fleet.folder)
        assert look()[0] == b""  # what belongs together comes together
        assert feed.due == pytest.approx(now + event_feed.GATHER_SECONDS)
        second = fleet.run(fleet.folder)
        now = feed.due
        told = look()[0].decode()
        assert first.name in told
        assert second.name in told
        third = fleet.run(fleet.folder)
        sent, now = now, now + 0.1
        assert look()[0] == b""
        assert feed.due == pytest.approx(sent + event_feed.CHANGE_SECONDS)
        now = feed.due
        assert third.name in look()[0].decode()
        assert feed.due == math.inf


def test_lines_come_only_so_often(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    run = fleet.start()
    with fed(fleet) as (feed, look):
        look()
        now += 10
        look()
        now += 10
        run.write("stdout")
        assert b"out 1" in look()[0]
        run.write("stdout")
        now += 0.1
        assert look()[0] == b""
        assert feed.due == pytest.approx(now - 0.1 + event_feed.LINES_SECONDS)
        now = feed.due
        assert b"out 2" in look()[0]


def test_output_that_the_kernel_tells_of_is_read_without_a_look_at_all_runs(fleet: Fleet) -> None:
    run, other = fleet.start(), fleet.start()
    with fed(fleet) as (feed, _):
        feed.advance(set())
        _, place = feed.begin()
        run.write("stdout")
        feed.advance({str(other.path)})
        assert feed.since(place) == (b"", place)
        feed._next_lines = 0.0
        feed.advance({str(run.path)})
        assert b"out 1" in feed.since(place)[0]


def test_the_hub_wakes_when_an_event_is_due(fleet: Fleet) -> None:
    service = Service(str(fleet.runs_dir), config.Config(), Settings())
    hub = service.hub
    with fed(fleet) as (feed, _):
        hub._members["events"] = feed
        hub._next_look = time.monotonic() + 1000
        assert hub._idle_seconds() > 900
        feed.due = time.monotonic() + 10
        assert hub._idle_seconds() <= 10


def test_a_client_that_has_fallen_behind_is_told_that_all_may_be_new(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    run = fleet.start()
    with fed(fleet) as (feed, look):
        _, before = feed.begin()
        for _ in range(2 * event_feed.KEPT_BLOCKS):
            now += 1
            run.write("stdout")
            look()
        data, place = feed.since(before)
        assert json.loads(data.split(b"\n")[1][6:])["more"] is True
        assert f"out {2 * event_feed.KEPT_BLOCKS}".encode() in data
        assert data.count(b"\n\n") == 2
        assert feed.since(place) == (b"", place)


# -- the real server


def test_after_a_restart_of_the_server_all_is_told_anew(fleet: Fleet) -> None:
    run = fleet.start()
    run.write("stdout")
    before = snapshot(fleet.runs_dir)
    with Server(fleet.path) as server:
        for _ in range(2):
            stream = server.stream(PATH, Last_Event_ID="MSG-whatever")
            assert next(stream).name == "heartbeat"
            lines = next(stream)
            assert (lines.name, lines.id) == ("lines", "")
            assert lines.json[run.id]["line"] == "out 1"
            assert snapshot(fleet.runs_dir) == before  # looking writes nothing
            assert server.end()[::2] == (0, "")
            assert list(stream) == []
            server.start()
        assert next(server.stream(PATH)).name == "heartbeat"


def test_a_client_that_takes_nothing_delays_no_other(fleet: Fleet) -> None:
    run = fleet.start()
    with Server(fleet.path) as server, server.open_stream(PATH) as stuck:
        assert stuck.status == 200
        stream = server.stream(PATH)
        assert next(stream).name == "heartbeat"
        for number in range(1, 6):
            run.write("stdout")
            wanted = f"out {number}"
            assert any(
                event.name == "lines" and event.json.get(run.id, {}).get("line") == wanted
                for event in stream
            )
