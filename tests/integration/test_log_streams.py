"""Log streams: every line, in its order, once, whatever happens to client and server."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path

import pytest

from lib import config, ids, runs
from lib.api import feeds, hub, log_streams
from lib.api.exchange import Request
from lib.api.route import Handler
from lib.api.service import Service, Settings
from tests.api_server import Server
from tests.helpers import wait_until
from tests.log_fleet import Client, Fleet, write_at_random
from tests.stored_root import write_record

SECONDS = 40.0
LEAST_CONNECTIONS = 300  # in each of four cases
ALL = "/api/v1/runs/stream/all"
TASK = "/api/projects/demo/tasks/build/runs/stream"
HANDLERS: dict[str, Handler] = {
    "run": log_streams.stream_run,
    "task": log_streams.stream_task,
    "all": log_streams.stream_all,
}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path / "root") as fleet:
        yield fleet


def new_service(fleet: Fleet, **settings: float) -> Service:
    shown = Settings(**{"heartbeat_seconds": 0.05, **settings})  # type: ignore[arg-type]
    service = Service(str(fleet.runs_dir), config.Config(), shown)
    service.hub.start()
    return service


@contextmanager
def serving(fleet: Fleet, **settings: float) -> Iterator[Service]:
    service = new_service(fleet, **settings)
    try:
        yield service
    finally:
        service.hub.close()


@contextmanager
def connected(
    service: Service, kind: str, last_id: str = "", *, run: str = "", task: str = "build"
) -> Iterator[Iterator[bytes]]:
    """The pieces of a stream; the client has gone at the end of the `with`."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    request = Request("GET", "/", headers=headers)
    request.params = {"project": "demo", "task": task, "run": run}
    body = HANDLERS[kind](service, request).body
    try:
        yield body  # type: ignore[misc]
    finally:
        body.close()  # type: ignore[union-attr]


def read_until(client: Client, body: Iterator[bytes], condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < limit, client.statuses
        client.feed(next(body))


# -- what a stream tells


def test_a_run_stream_begins_at_the_end_and_tells_how_the_run_stands(
    fleet: Fleet, mode: str
) -> None:
    run = fleet.start()
    run.write("stdout", 3)
    client = Client()
    client.seen[run.id, "stdout"] = 3  # these do not come
    with serving(fleet) as service, connected(service, "run", run=run.id) as body:
        assert next(body) == b"event: heartbeat\ndata: {}\n\n"  # at once, with the headers
        read_until(client, body, lambda: client.last_id == "s=3;e=0")
        assert client.statuses == {run.id: ["running"]}
        run.write("stdout", 2)
        run.write("stderr")
        read_until(client, body, lambda: client.has_all([run]))
        run.write_unfinished()
        run.end()
        read_until(client, body, lambda: len(client.statuses[run.id]) == 2)
        assert client.has_all([run])
        assert client.last_id == "s=6;e=1"
        assert client.statuses[run.id] == ["running", "completed"]
        assert next(body) == b"event: heartbeat\ndata: {}\n\n"  # it stays open


def test_a_finished_run_gives_all_its_lines_to_who_asks_for_them(fleet: Fleet) -> None:
    run = fleet.start()
    run.write("stdout", 2500)
    run.write("stderr", 10)
    run.write_unfinished()
    run.end()
    with serving(fleet) as service:
        client = Client("s=0;e=0")
        with connected(service, "run", client.last_id, run=run.id) as body:
            read_until(client, body, lambda: run.id in client.statuses)
        assert client.has_all([run])
        assert client.last_id == "s=2501;e=10"
        again = Client()
        with connected(service, "run", client.last_id, run=run.id) as body:
            read_until(again, body, lambda: run.id in again.statuses)
        assert again.seen == {}
        fresh = Client()
        with connected(service, "run", run=run.id) as body:
            read_until(fresh, body, lambda: run.id in fresh.statuses)
        assert fresh.seen == {}


@pytest.mark.parametrize("kind", HANDLERS)
def test_whatever_is_written_once_the_head_is_there_comes_to_a_further_client(
    fleet: Fleet, kind: str
) -> None:
    run = fleet.start()
    run.write("stdout", 3)
    first, further = Client(), Client()
    first.seen[run.id, "stdout"] = further.seen[run.id, "stdout"] = 3
    with serving(fleet) as service, connected(service, kind, run=run.id) as body:
        read_until(first, body, lambda: bool(first.last_id))
        with connected(service, kind, run=run.id) as other:
            further.feed(next(other))
            run.write("stdout", 2)
            read_until(first, body, lambda: first.has_all([run]))  # so the feed has read them
            run.write("stderr")
            read_until(further, other, lambda: further.has_all([run]))


@pytest.mark.parametrize("kind", HANDLERS)
def test_whatever_is_written_once_the_head_is_there_comes_to_the_first_clients(
    fleet: Fleet, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However quick the feed is to read on, and however many come before it has counted."""
    run = fleet.start()
    run.write("stdout", 3)
    count, counted = feeds.Feed.prepare, []

    def count_and_be_slow(feed: feeds.Feed) -> feeds.Snapshot:
        start = count(feed)
        counted.append(feed)
        wait_until(lambda: feed.signal.count > 0, what="the feed reads on")
        return start

    monkeypatch.setattr(feeds.Feed, "prepare", count_and_be_slow)
    with (
        serving(fleet) as service,
        connected(service, kind, run=run.id) as body,
        connected(service, kind, run=run.id) as other,
    ):
        clients = [(Client(), body), (Client(), other)]
        for client, pieces in clients:
            client.seen[run.id, "stdout"] = 3
            client.feed(next(pieces))
        assert counted == []  # a head does not wait for that
        run.write("stdout", 2)
        for client, pieces in clients:
            read_until(client, pieces, lambda c=client: c.has_all([run]))  # type: ignore[misc]


def test_a_new_run_is_announced_and_its_first_line_delivered(
    fleet: Fleet, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a task has nothing yet but its folder."""
    monkeypatch.setattr(hub, "REST_SECONDS", 0.0)
    task = fleet.task("later")
    for name in ("all", "task"):
        with serving(fleet) as service, connected(service, name, task="later") as body:
            client = Client()
            read_until(client, body, lambda c=client: bool(c.last_id))  # type: ignore[misc]
            run = fleet.start(task)
            run.write("stdout", 5)
            read_until(client, body, lambda c=client, r=run: c.has_all([r]))  # type: ignore[misc]
            assert client.statuses[run.id] == ["running"]


def test_a_run_that_was_over_when_it_was_met_is_delivered_as_a_whole(fleet: Fleet) -> None:
    with serving(fleet) as service, connected(service, "all") as body:
        client = Client()
        read_until(client, body, lambda: bool(client.last_id))
        with service.view.lock:  # as long, the hub sees nothing
            run = fleet.start()
            run.write("stdout", 7)
            run.write_unfinished()
            run.end()
        read_until(client, body, lambda: run.id in client.statuses)
        assert client.has_all([run])


def test_a_run_that_ended_before_a_client_came_is_not_delivered_when_the_hub_hears_of_it(
    fleet: Fleet,
) -> None:
    kept = fleet.start()
    client = Client()
    with serving(fleet) as service, ExitStack() as connections:
        wait_until(lambda: service.hub.known, what="the first look")
        with service.view.lock:  # as long, the hub sees nothing
            run = fleet.start()
            run.write("stdout", 7)
            run.end()
            service.view.refresh()
            body = connections.enter_context(connected(service, "all"))
            client.feed(next(body))
        wait_until(lambda: str(run.path) in service.hub.known, what="the hub's look")
        read_until(client, body, lambda: bool(client.last_id))
        kept.write("stdout", 2)
        read_until(client, body, lambda: client.has_all([kept]))
        kept.end()
        read_until(client, body, lambda: "completed" in client.statuses[kept.id])
        assert (run.id, "stdout") not in client.seen


def test_a_run_of_long_ago_that_turns_up_is_but_named(fleet: Fleet) -> None:
    with serving(fleet) as service, connected(service, "all") as body:
        client = Client()
        read_until(client, body, lambda: bool(client.last_id))
        old = fleet.path / "old"
        old.mkdir()
        write_record(old, run_id="20260101-1200990000-7-99")
        (old / runs.STDOUT).write_text("out 1\n")
        old.rename(fleet.runs_dir / "20260101-1200990000-7-99")
        read_until(client, body, lambda: "20260101-1200990000-7-99" in client.statuses)
        assert client.seen == {}


def test_a_client_that_comes_is_told_of_the_newest_runs_only(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_streams, "MOST_STATUSES", 3)
    ended = [fleet.run(fleet.folder).name for _ in range(5)]
    live = fleet.start()
    with serving(fleet) as service:
        for kind in ("all", "task"):
            client = Client()
            with connected(service, kind) as body:
                read_until(client, body, lambda c=client: bool(c.last_id))  # type: ignore[misc]
            assert set(client.statuses) >= {live.id, ended[-1]}
            assert ended[0] not in client.statuses


def test_of_a_task_only_its_own_runs_are_told(fleet: Fleet) -> None:
    mine, other = fleet.start(), fleet.start(fleet.task("other"))
    flat = fleet.begin(fleet.runs_dir / "run_20260101-130000-7")
    with serving(fleet) as service, connected(service, "task") as body:
        client = Client()
        read_until(client, body, lambda: bool(client.last_id))
        other.write("stdout", 2)
        flat.write("stdout", 3)
        mine.write("stdout", 2)
        read_until(client, body, lambda: client.has_all([mine, flat]))
        assert other.id not in client.statuses
        assert (other.id, "stdout") not in client.seen


def test_who_has_gone_leaves_nothing_behind(fleet: Fleet) -> None:
    run = fleet.start()
    with serving(fleet) as service:
        for kind in HANDLERS:
            with connected(service, kind, run=run.id):
                assert service.hub.members == 1
            with connected(service, kind, run=run.id) as body:
                next(body)
                next(body)
            assert service.hub.members == 0


# -- nothing lost, nothing twice


def follow(
    services: list[Service], kind: str, client: Client, chance: random.Random, run: str,
    begun: threading.Barrier, is_complete: Callable[[], bool], failed: list[BaseException],
) -> int:  # fmt: skip
    """Be cut off at random bytes until all has come; the count of connections."""
    count = 0
    limit = time.monotonic() + SECONDS
    try:
        while not is_complete() and time.monotonic() < limit:
            count += 1
            left = chance.choice([chance.randrange(3000), chance.randrange(3000, 20_000)])
            service = services[-1]
            with connected(service, kind, client.last_id, run=run) as body:
                for data in body:
                    client.feed(data if count == 1 else data[:left])
                    left -= len(data)
                    if count == 1 and client.last_id and client.events > 1:
                        begun.wait(SECONDS)
                        break
                    if count > 1 and (left <= 0 or is_complete()):
                        break
            client.cut()
    except BaseException as error:
        failed.append(error)
        begun.abort()
        raise
    return count


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("seed", [1, 2])
def test_cut_off_a_thousand_times_no_line_is_lost_and_none_comes_twice(
    fleet: Fleet, mode: str, seed: int
) -> None:
    """A thousand in all: with two seeds, told by the kernel and not."""
    chance = random.Random(seed)  # noqa: S311
    first = fleet.start()
    fleet.start()
    services = [new_service(fleet)]
    clients = {"run": Client("s=0;e=0"), "task": Client(), "all": Client()}
    begun, written = threading.Barrier(len(clients) + 1), threading.Event()
    counts: list[int] = []
    failed: list[BaseException] = []

    def start(kind: str, client: Client) -> threading.Thread:
        def is_complete() -> bool:
            wanted = [first] if kind == "run" else fleet.live
            return bool(failed) or (written.is_set() and client.has_all(wanted))

        def run() -> None:
            random_cuts = random.Random(f"{seed}{kind}")  # noqa: S311
            counts.append(
                follow(services, kind, client, random_cuts, first.id, begun, is_complete, failed)
            )

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [start(kind, client) for kind, client in clients.items()]
    begun.wait(SECONDS)
    for _ in range(3):  # of servers, one after the other
        write_at_random(fleet, chance, 150)
        services.append(new_service(fleet))
        services[-2].hub.close()
    written.set()
    for thread in threads:
        thread.join(SECONDS)
    services[-1].hub.close()
    assert failed == []
    assert [client.missing(fleet.live) for kind, client in clients.items() if kind != "run"] == [
        [], []
    ]  # fmt: skip
    assert clients["run"].has_all([first])
    assert sum(counts) >= LEAST_CONNECTIONS


def test_what_ended_while_nobody_was_there_is_brought_up_in_its_order(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that ended long before the client is back, each cut at every event."""
    kept = fleet.start()
    client = Client()
    with serving(fleet) as service, connected(service, "all") as body:
        kept.write("stdout", 2)
        read_until(client, body, lambda: client.has_all([kept]) or bool(client.last_id))
        read_until(client, body, lambda: client.has_all([kept]))
    began_ns = time.time_ns()
    for number in range(4):
        run = fleet.start()
        run.write("stdout", 4)
        ended_ns = began_ns + number * 60 * ids.NANOSECONDS
        run.write_record(status="failed", exit_code=1, end_time=ids.rfc3339(ended_ns))
        run.close()
    kept.write("stdout", 3)
    later = began_ns + 3600 * ids.NANOSECONDS
    monkeypatch.setattr(time, "time_ns", lambda: later)
    with serving(fleet) as service:
        for _ in range(40):
            if client.has_all(fleet.live):
                break
            with connected(service, "all", client.last_id) as body:
                before = dict(client.seen)
                for data in islice(body, 12):
                    for piece in data.split(b"\n\n")[:-1]:
                        if client.seen == before:
                            client.feed(piece + b"\n\n")
                    if client.seen != before:
                        break
        assert client.missing(fleet.live) == []
        last = Client()
        with connected(service, "all", client.last_id) as body:
            read_until(last, body, lambda: last.events > len(fleet.live) + 5)
        assert last.seen == {}


def test_a_quiet_run_whose_supervisor_dies_while_others_are_brought_up_is_not_taken_for_sent(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended, as its files tell, long before the time in the ids of what is brought up."""
    kept = fleet.start()
    client = Client()
    with serving(fleet) as service, connected(service, "all") as body:
        read_until(client, body, lambda: bool(client.last_id))
        kept.write("stdout", 2)
        read_until(client, body, lambda: client.has_all([kept]))
    began_ns = time.time_ns()
    quiet = fleet.start()
    quiet.write("stdout", 3)
    ended = [fleet.start() for _ in range(2)]
    for minutes, run in enumerate(ended, 2):
        run.write("stdout", 4)
        run.write_record(end_time=ids.rfc3339(began_ns + minutes * 60 * ids.NANOSECONDS))
        run.close()
    monkeypatch.setattr(time, "time_ns", lambda: began_ns + 3600 * ids.NANOSECONDS)
    with serving(fleet) as service:
        with connected(service, "all", client.last_id) as body:
            read_until(client, body, lambda: (ended[1].id, "stdout") in client.seen)
        assert (quiet.id, "stdout") not in client.seen
        quiet.close()
        wait_until(lambda: service.hub.known[str(quiet.path)].is_over, what="its death")
        with connected(service, "all", client.last_id) as body:
            read_until(client, body, lambda: client.has_all(fleet.live))


def test_a_client_that_is_slow_reads_the_files_and_misses_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "KEPT_BYTES", 8 * 20_000)
    run, other = fleet.start(), fleet.start()
    with serving(fleet) as service, connected(service, "all") as slow:
        behind, quick = Client(), Client()
        read_until(behind, slow, lambda: bool(behind.last_id))
        with connected(service, "all") as body:
            read_until(quick, body, lambda: bool(quick.last_id))
            for _ in range(20):
                run.write("stdout", 300)
                other.write("stderr", 30)
                read_until(quick, body, lambda: quick.has_all([run, other]))
        read_until(behind, slow, lambda: behind.has_all([run, other]))


def test_no_token_of_an_agent_is_told(fleet: Fleet) -> None:
    run = fleet.start()
    token = "ghp_" + "a1B2" * 9
    with serving(fleet) as service, connected(service, "run", run=run.id) as body:
        for _ in range(3):
            next(body)
        run.write_raw("stdout", f"my {token[:20]}".encode())
        run.write_raw("stdout", f"{token[20:]}\n".encode())
        data = next(data for data in body if b"event: log" in data)
        assert b'"line":"my [REDACTED]"' in data


# -- over HTTP


class Connection:
    """A stream over a socket of its own."""

    def __init__(self, server: Server, path: str, last_id: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)
        cursor = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{cursor}\r\n"
        self.socket.sendall(head.encode())

    def body(self) -> Iterator[bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(65536)
            assert piece, "no answer"
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head
        yield rest
        while data := self.socket.recv(65536):
            yield data

    def close(self) -> None:
        self.socket.close()


def test_two_hundred_clients_get_every_line_while_one_takes_nothing(fleet: Fleet) -> None:
    run = fleet.start()
    with Server(fleet.path) as server:
        paths = [ALL, TASK, f"/api/v1/runs/{run.id}/stream"]
        stalled = [Connection(server, path) for path in paths]
        clients = [(Client(), Connection(server, paths[n % 3])) for n in range(200)]
        bodies = [connection.body() for _, connection in clients]
        for (client, _), body in zip(clients, bodies, strict=True):
            read_until(client, body, lambda c=client: bool(c.last_id))  # type: ignore[misc]
        for _ in range(5):
            run.write("stdout", 20)
            run.write("stderr", 2)
        for (client, connection), body in zip(clients, bodies, strict=True):
            read_until(client, body, lambda c=client: c.has_all([run]))  # type: ignore[misc]
            connection.close()
        for connection in stalled:
            connection.close()


def test_a_burst_of_twenty_thousand_lines_arrives_whole(fleet: Fleet) -> None:
    run = fleet.start()
    with Server(fleet.path) as server:
        stalled = Connection(server, ALL)
        for path in (ALL, f"/api/v1/runs/{run.id}/stream"):
            client, connection = Client(), Connection(server, path)
            body = connection.body()
            client.seen[run.id, "stdout"] = run.counts["stdout"]
            read_until(client, body, lambda c=client: bool(c.last_id))  # type: ignore[misc]
            run.write("stdout", 20_000)
            read_until(client, body, lambda c=client: c.has_all([run]))  # type: ignore[misc]
            connection.close()
        stalled.close()


def test_a_server_that_was_killed_and_started_anew_goes_on_where_it_was(fleet: Fleet) -> None:
    chance = random.Random(5)  # noqa: S311
    run = fleet.start()
    client = Client()
    with Server(fleet.path) as server:
        for _ in range(3):
            connection = Connection(server, ALL, client.last_id)
            body, before = connection.body(), client.events
            read_until(client, body, lambda n=before: client.events >= n + 3)  # type: ignore[misc]
            write_at_random(fleet, chance, 15)
            server.kill()
            for data in _whatever(body):
                client.feed(data)
            client.cut()
            connection.close()
            write_at_random(fleet, chance, 15)
            server.start()
        connection = Connection(server, ALL, client.last_id)
        read_until(client, connection.body(), lambda: client.has_all(fleet.live))
        connection.close()
        assert run in fleet.live


def _whatever(body: Iterator[bytes]) -> Iterator[bytes]:
    """What is left of a connection whose other end has died."""
    try:
        yield from body
    except ConnectionError:
        return


def test_refusals_are_what_the_original_says(fleet: Fleet, tmp_path: Path) -> None:
    run = fleet.start()
    settings = tmp_path / "config.yaml"
    settings.write_text("api:\n  sse:\n    max_clients_per_run: 1\n    heartbeat_interval_s: 1\n")
    with Server(fleet.path, "--config", settings) as server:
        assert server.get("/api/v1/runs/nope/stream").error == ("NOT_FOUND", "run not found")
        missing = server.get("/api/projects/demo/tasks/nope/runs/stream")
        assert missing.error == ("NOT_FOUND", "task not found")
        path = f"/api/v1/runs/{run.id}/stream"
        first = Connection(server, path)
        next(first.body())
        assert server.get(path).status == 429
        first.close()
        wait_until(lambda: _is_free(server, path), what="the place of the one who left")
        with server.open_stream(ALL) as stream:
            assert stream.status == 200
            assert stream.headers["content-type"] == "text/event-stream"
            assert stream.headers["cache-control"] == "no-cache"
            assert stream.headers["x-accel-buffering"] == "no"


def _is_free(server: Server, path: str) -> bool:
    connection = Connection(server, path)
    with closing(connection):
        return b" 200 " in connection.socket.recv(100)
