"""The streams of messages: what a client gets, and that nothing is lost or comes twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from pathlib import Path

import pytest

from lib import bus
from lib.api import bus_feeds, bus_log, buses
from lib.api.exchange import Refusal
from lib.api.message_streams import ROUTES
from lib.api.service import Service
from tests.api_server import Server
from tests.api_streams import Client, ask, service_on
from tests.stored_root import StoredRoot

TASK = "task-20260101-000001-one"
TASK_STREAM = f"/api/projects/demo/tasks/{TASK}/messages/stream"


@pytest.fixture
def stored(tmp_path: Path) -> StoredRoot:
    root = StoredRoot(tmp_path / "root")
    root.task(TASK)
    return root


def task_bus(stored: StoredRoot) -> str:
    return str(stored.runs_dir / "demo" / TASK / bus.TASK_BUS)


def post(path: str, body: str, **more: str) -> str:
    return bus.append(
        path, body=body, project=more.get("project", "demo"), task=more.get("task", TASK), run="",
        type_=more.get("type_", "INFO"), durable=False, environ={},
    )  # fmt: skip


def connect(
    service: Service, path: str = TASK_STREAM, query: str = "", last_id: str = ""
) -> Client:
    headers = {"Last_Event_ID": last_id} if last_id else {}
    return Client(ask(service, ROUTES, path, query=query, **headers))


def bodies(client: Client) -> list[str]:
    return [message["body"] for message in client.json("message")]


def test_a_client_gets_the_last_20_messages_and_then_each_new_one(stored: StoredRoot) -> None:
    ids = [post(task_bus(stored), f"m{i}") for i in range(30)]
    with service_on(stored.runs_dir) as service:
        client = connect(service)
        client.read()
        assert client.heartbeats == 1, "the head must go out at once"
        client.read_until(lambda: len(client.events) == 20)
        assert [event.id for event in client.events] == ids[10:]
        ids.append(post(task_bus(stored), "new", type_="FACT"))
        client.read_until(lambda: len(client.events) == 21)
        message = client.events[-1].json
        client.leave()
    assert message["msg_id"] == client.events[-1].id == ids[-1]
    assert (message["type"], message["project_id"], message["task_id"]) == ("FACT", "demo", TASK)
    assert message["body"] == "new"
    assert message["timestamp"].endswith("Z")


def test_parents_are_ids_and_secrets_are_hidden(
    stored: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = task_bus(stored)
    secret = "sk-ant-" + "a1B2" * 8
    Path(path).write_text(
        "---\nmsg_id: MSG-20260101-000000-000000001-PID00001-0001\nts: 2026-01-01T00:00:00Z\n"
        'type: FACT\nproject_id: demo\ntask_id: t\nrun_id: ""\n'
        "parents: [{msg_id: MSG-A, kind: thread_answer}]\n"
        f"links: [{{url: 'https://x/{secret}', label: l}}]\nmeta: {{k: '{secret}'}}\n"
        f"---\nsee {secret} there\nand\r\nthat\n"
    )
    with service_on(stored.runs_dir) as service:
        client = connect(service)
        client.read_until(lambda: client.events)
        client.leave()
    assert secret not in client.events[0].data
    message = client.events[0].json
    assert message["parents"] == ["MSG-A"]
    assert message["meta"] == {"k": "[REDACTED]"}
    assert message["links"][0]["label"] == "l"
    assert message["body"] == "see [REDACTED] there\nand\r\nthat"
    assert message["timestamp"] == "2026-01-01T00:00:00Z"


def test_without_a_project_there_is_no_stream(stored: StoredRoot) -> None:
    with service_on(stored.runs_dir) as service:
        with pytest.raises(Refusal, match="project_id is required") as refusal:
            ask(service, ROUTES, "/api/v1/messages/stream")
        assert refusal.value.status == 400
        with pytest.raises(Refusal, match="path separators"):
            ask(service, ROUTES, "/api/v1/messages/stream", query="project_id=demo&task_id=../x")
        client = connect(service, "/api/v1/messages/stream", f"project_id=demo&task_id={TASK}")
        post(task_bus(stored), "here")
        client.read_until(lambda: bodies(client) == ["here"])
        client.leave()


@pytest.mark.parametrize("how", ["header", "query"])
def test_with_an_id_it_goes_on_behind_that_message(stored: StoredRoot, how: str) -> None:
    ids = [post(task_bus(stored), f"m{i}") for i in range(60)]
    with service_on(stored.runs_dir) as service:
        if how == "header":
            client = connect(service, last_id=ids[9])
        else:
            client = connect(service, query=f"last_event_id={ids[9]}")
        client.read_until(lambda: len(client.events) == 50)
        client.leave()
    assert [event.id for event in client.events] == ids[10:]


def test_an_unknown_id_gives_the_last_20_again(stored: StoredRoot) -> None:
    ids = [post(task_bus(stored), f"m{i}") for i in range(25)]
    with service_on(stored.runs_dir) as service:
        for unknown in ("MSG-nope", "x" * 5000, "id with ; and %0A", ";;;", "é\0"):
            client = connect(service, last_id=unknown)
            client.read_until(lambda client=client: len(client.events) == 20)  # type: ignore[misc]
            client.leave()
            assert [event.id for event in client.events] == ids[5:]


def test_an_id_that_was_rotated_away_is_found_in_the_archives(stored: StoredRoot) -> None:
    path = task_bus(stored)
    ids = [post(path, f"a{i}") for i in range(10)]
    assert bus.rotate(path, 0)
    ids += [post(path, f"b{i}") for i in range(10)]
    assert bus.rotate(path, 0)
    ids += [post(path, f"c{i}") for i in range(10)]
    with service_on(stored.runs_dir) as service:
        client = connect(service, last_id=ids[3])
        client.read_until(lambda: len(client.events) == 26)
        client.leave()
    assert [event.id for event in client.events] == ids[4:]


def test_a_quotation_of_an_id_is_not_taken_for_the_message(stored: StoredRoot) -> None:
    path = task_bus(stored)
    ids = [post(path, f"m{i}") for i in range(3)]
    ids.append(post(path, f"he said\nmsg_id: {ids[1]}\nand more"))
    ids.append(post(path, "end"))
    with service_on(stored.runs_dir) as service:
        client = connect(service, last_id=ids[1])
        client.read_until(lambda: len(client.events) == 3)
        client.leave()
    assert [event.id for event in client.events] == ids[2:]


def test_a_bus_that_is_missing_is_waited_for(stored: StoredRoot) -> None:
    with service_on(stored.runs_dir) as service:
        clients = [connect(service), connect(service, "/api/projects/later/messages/stream")]
        for client in clients:
            client.read()
        post(task_bus(stored), "first")
        folder = stored.runs_dir / "later"
        folder.mkdir()
        bus.append(str(folder / bus.PROJECT_BUS), body="second", environ={})
        clients[0].read_until(lambda: bodies(clients[0]) == ["first"])
        clients[1].read_until(lambda: bodies(clients[1]) == ["second"])
        for client in clients:
            client.leave()


def test_a_bus_that_is_a_link_is_not_followed(stored: StoredRoot, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / TASK).mkdir(parents=True)
    for name in ("bus.md", bus.PROJECT_BUS, f"{TASK}/{bus.TASK_BUS}"):
        post(str(outside / name), "not for clients")
    os.symlink(outside / "bus.md", task_bus(stored))
    os.symlink(outside, stored.runs_dir / "linked")
    with service_on(stored.runs_dir, 0.05) as service:
        for path in (
            TASK_STREAM,
            "/api/projects/linked/messages/stream",
            f"/api/projects/linked/tasks/{TASK}/messages/stream",
        ):
            client = connect(service, path)
            client.read_until(lambda client=client: client.heartbeats == 3)  # type: ignore[misc]
            client.leave()
            assert client.events == []
        client = connect(service)
        client.read()
        os.unlink(task_bus(stored))
        post(task_bus(stored), "a file now")
        client.read_until(lambda: bodies(client) == ["a file now"])
        client.leave()


def test_flat_runs_are_heard_of_on_the_bus_of_the_root(stored: StoredRoot) -> None:
    stored.run(project_id="flat", task_id="build")
    root_bus = str(stored.path / bus.ROOT_BUS)
    for project, task in (("flat", "build"), ("other", "build"), ("flat", "test")):
        post(root_bus, f"{project}/{task}", project=project, task=task)
    with service_on(stored.runs_dir) as service:
        all_of_it = connect(service, "/api/projects/flat/messages/stream")
        all_of_it.read_until(lambda: len(all_of_it.events) == 2)
        one_task = connect(service, "/api/projects/flat/tasks/build/messages/stream")
        one_task.read_until(lambda: len(one_task.events) == 1)
        post(root_bus, "again", project="flat", task="build")
        all_of_it.read_until(lambda: len(all_of_it.events) == 3)
        one_task.read_until(lambda: len(one_task.events) == 2)
        all_of_it.leave()
        one_task.leave()
    assert bodies(all_of_it) == ["flat/build", "flat/test", "again"]
    assert bodies(one_task) == ["flat/build", "again"]
    assert all(event.id == event.json["msg_id"] for event in all_of_it.events)


def test_a_run_that_begins_to_use_the_root_bus_is_heard_by_who_waits(stored: StoredRoot) -> None:
    with service_on(stored.runs_dir, 0.05) as service:
        client = connect(service, "/api/projects/demo/messages/stream")
        client.read()
        stored.run(project_id="demo", task_id="flat")
        post(str(stored.path / bus.ROOT_BUS), "from the root")
        client.read_until(lambda: bodies(client) == ["from the root"])
        client.leave()


class Writer:
    """Posts to buses, and puts them aside now and then."""

    def __init__(self, paths: list[str], chance: random.Random) -> None:
        self.paths = paths
        self.chance = chance
        self.posted: list[str] = []  # bodies

    def write(self) -> None:
        for _ in range(self.chance.randrange(6)):
            path = self.chance.choice(self.paths)
            body = f"{len(self.posted)}" + " word" * self.chance.choice([0, 3, 40, 4000])
            post(path, body)
            self.posted.append(body)
        if self.chance.random() < 0.07:
            path = self.chance.choice(self.paths)
            if os.path.exists(path):
                bus.rotate(path, 0)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("has_two_buses", [False, True])
def test_reconnecting_at_any_moment_nothing_is_lost_and_nothing_comes_twice(
    stored: StoredRoot, seed: int, has_two_buses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut within events, across rotations and restarts of the server, with one bus and with two."""
    monkeypatch.setattr(bus_feeds, "KEPT_BYTES", 20_000)
    monkeypatch.setattr(bus_log, "PIECE_BYTES", 30_000)
    chance = random.Random(seed)  # noqa: S311
    paths = [task_bus(stored)]
    if has_two_buses:
        stored.run(project_id="demo", task_id=TASK)
        paths.append(str(stored.path / bus.ROOT_BUS))
    writer = Writer(paths, chance)
    last_id = post(paths[0], "start")
    got: list[str] = []
    for _ in range(4):
        with service_on(stored.runs_dir, 0.02) as service:
            for _ in range(15):
                client = connect(service, last_id=last_id)
                writer.write()
                for _ in range(chance.randrange(1, 12)):
                    if chance.random() < 0.3:
                        writer.write()
                    client.read()
                client.read(lambda piece: piece[: chance.randrange(len(piece) + 1)])
                client.leave()
                got += bodies(client)
                last_id = client.last_id or last_id
    with service_on(stored.runs_dir, 0.02) as service:
        client = connect(service, last_id=last_id)
        client.read_until(lambda: len(got) + len(client.events) >= len(writer.posted))
        client.read_until(lambda: client.heartbeats >= 4)
        client.leave()
        got += bodies(client)
    assert len(writer.posted) > 100
    if has_two_buses:
        assert sorted(got) == sorted(writer.posted)
    else:
        assert got == writer.posted


def test_50_clients_get_every_message_in_order_and_share_the_work(
    stored: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    original = bus_feeds.Item.__init__

    def count(self: bus_feeds.Item, message: bus.Message) -> None:
        made.append(1)
        original(self, message)

    path = task_bus(stored)
    monkeypatch.setattr(bus_feeds.Item, "__init__", count)
    with service_on(stored.runs_dir, 0.02) as service:
        clients = [connect(service) for _ in range(50)]
        for client in clients:
            client.read()
            client.read_until(lambda client=client: client.heartbeats == 2)  # type: ignore[misc]
        threads = [
            threading.Thread(target=c.read_until, args=[lambda c=c: len(c.events) == 80])
            for c in clients
        ]
        for thread in threads:
            thread.start()
        posted = [f"m{i}" for i in range(80)]
        for body in posted:
            post(path, body)
        for thread in threads:
            thread.join()
        for client in clients:
            client.leave()
    assert all(bodies(client) == posted for client in clients)
    assert len(made) < 50 * 80 / 10


def test_a_client_that_was_far_behind_is_in_step_again(
    stored: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_feeds, "KEPT_BYTES", 2000)
    path = task_bus(stored)
    with service_on(stored.runs_dir, 0.02) as service:
        slow, quick = connect(service), connect(service)
        for client in (slow, quick):
            client.read_until(lambda client=client: client.heartbeats == 2)  # type: ignore[misc]
        posted: list[str] = []
        for part in range(5):
            posted += [f"{part}-{i} " + "x" * 100 for i in range(50)]
            for body in posted[-50:]:
                post(path, body)
            if part % 2:
                bus.rotate(path, 0)
            quick.read_until(lambda: bodies(quick)[-1:] == posted[-1:])  # noqa: B023
        slow.read_until(lambda: len(slow.events) == len(posted))
        post(path, "last")
        for client in (slow, quick):
            client.read_until(lambda client=client: len(client.events) == len(posted) + 1)  # type: ignore[misc]
            client.leave()
    assert bodies(slow) == bodies(quick) == [*posted, "last"]


def test_a_bus_that_was_cut_is_read_from_its_beginning(stored: StoredRoot) -> None:
    path = task_bus(stored)
    post(path, "before " * 50)
    with service_on(stored.runs_dir) as service:
        client = connect(service)
        client.read_until(lambda: client.heartbeats == 2)
        os.truncate(path, 0)
        client.read_until(lambda: client.heartbeats == 3)
        post(path, "behind")
        client.read_until(lambda: len(client.events) == 2)
        client.leave()
    assert bodies(client)[-1] == "behind"


def test_a_huge_body_is_cut_and_hostile_fields_end_no_event(stored: StoredRoot) -> None:
    path = task_bus(stored)
    post(path, "word " * 200_000)
    with open(path, "ab") as file:
        file.write(
            b'\n---\nmsg_id: "A\\n\\nevent: evil\\ndata: x"\nts: never\ntype: "T\\r\\n"\nproject_id: p\n'
            b'task_id: ""\nrun_id: ""\n---\nb\xff\xfe\r\rx\n'
        )
    with service_on(stored.runs_dir) as service:
        client = connect(service)
        client.read_until(lambda: len(client.events) == 2)
        client.leave()
    huge, hostile = client.json("message")
    assert huge["truncated"] is True
    assert len(huge["body"]) == bus_feeds.MAX_BODY
    assert client.events[1].id == ""
    assert hostile["body"] == "b\ufffd\ufffd\r\rx"
    assert hostile["timestamp"].startswith("2")


def test_when_the_server_closes_all_streams_end_and_nothing_stays(stored: StoredRoot) -> None:
    with service_on(stored.runs_dir, 60) as service:
        post(task_bus(stored), "x")
        clients = [connect(service) for _ in range(3)]
        threads = [threading.Thread(target=client.read_to_end) for client in clients]
        for thread in threads:
            thread.start()
        never_read = connect(service)
        never_read.leave()
        service.hub.close()
        for thread in threads:
            thread.join(20)
        assert all(client.is_over for client in clients)
        assert service.bus_feeds._feeds == {}
    if os.path.isdir("/proc/self/fd"):
        assert not [path for path in opened() if str(stored.path) in path]


def opened() -> list[str]:
    """What this process has open."""
    paths = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of the listing itself
            paths.append(os.readlink(f"/proc/self/fd/{number}"))
    return paths


def test_lists_of_two_buses_are_in_the_order_of_time(stored: StoredRoot) -> None:
    stored.run(project_id="demo", task_id=TASK)
    paths = [task_bus(stored), str(stored.path / bus.ROOT_BUS)]
    ids = [post(paths[i % 2], f"m{i}") for i in range(10)]
    post(paths[1], "another's", task="other")
    with service_on(stored.runs_dir) as service:
        both = buses.buses_of(service, "demo", TASK)
        assert [m.msg_id for m in buses.last(both, 4)] == ids[6:]
        assert [m.msg_id for m in buses.after(both, ids[3])] == ids[4:]
        assert buses.path_to_post_to(service, "demo", TASK) == paths[0]
        assert buses.path_to_post_to(service, "demo", "other") == str(
            stored.runs_dir / "demo" / "other" / bus.TASK_BUS
        )


def test_over_http_a_client_reconnects_after_a_restart_of_the_server(stored: StoredRoot) -> None:
    ids = [post(task_bus(stored), f"m{i}") for i in range(5)]
    got: list[str] = []
    with Server(stored.path) as server:
        stream = server.stream(TASK_STREAM)
        while len(got) < 5:
            event = next(stream)
            if event.name == "message":
                got.append(event.id)
        server.kill()
        ids += [post(task_bus(stored), f"n{i}") for i in range(5)]
        server.start()
        stream = server.stream(TASK_STREAM, Last_Event_ID=got[-1])
        while len(got) < 10:
            event = next(stream)
            if event.name == "message":
                assert json.loads(event.data)["msg_id"] == event.id
                got.append(event.id)
        reply = server.get("/api/v1/messages/stream")
    assert got == ids
    assert reply.json == {"error": {"code": "BAD_REQUEST", "message": "project_id is required"}}
