"""What a hostile client, page or name does to the real server: nothing."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from lib.api.route import Route
from lib.api.routes import ROUTES
from tests.api_server import SECONDS, Server
from tests.stored_root import StoredRoot, snapshot

SECRET = "secret-outside-of-the-root"
TASK = "task-20260101-120000-build"
KEY = "0123456789abcdef-the-key"
EVIL = "http://evil.example"
# As they stand in an address; what is tried in a query is also tried raw in a body.
TRAVERSALS = [
    "..", ".", "%2e%2e", "%2E.", "%252e%252e", "..%2f..%2foutside", "%2e%2e%2f%2e%2e%2foutside",
    "..%252f..%252foutside", "..%5c..%5coutside", "..%255coutside", "%c0%ae%c0%ae%c0%afoutside",
    "....%2f%2foutside", "%2fetc%2fpasswd", "%252fetc%252fpasswd", "%00", "x%00", "x%00.txt",
    "x%2500", "x%0a", "x%0d%0ay", "%0a", "%20", "%7froot",
    "%ff%fe", "%e2%80%ae", "x" * 201, "x" * 4000,
    ".hidden", ".lock", ".active", "%2e%2e%00",
]  # fmt: skip
NAMES = [
    "linked-project", "linked-task", "linked-run", "~root", "~", "-rf", "--help", "*", "%3f",
    "%5b", "%5b!x%5d", "%7b%7d", "%24(id)", "%60id%60", "%24HOME", "%26%26%20id",
]  # fmt: skip
REFUSED = {301, 400, 403, 404, 405, 501}
BODIES = {
    "/api/v1/messages": {"project_id": "demo", "type": "FACT", "body": "x"},
    "/api/projects/{project}/messages": {"type": "FACT", "body": "x"},
    "/api/projects/{project}/tasks/{task}/messages": {"type": "FACT", "body": "x"},
}
HEARTBEAT = b"event: heartbeat\n"


class Attacked:
    """A server on a root beside which a secret lies, with links from the root to it."""

    def __init__(self, tmp: Path) -> None:
        self.outside = tmp / "outside"
        root = StoredRoot(tmp / "root")
        task = root.task(TASK)
        self.run = root.run(task, task_id=TASK)
        elsewhere = StoredRoot(tmp / "outside")
        foreign_task = elsewhere.task(TASK)
        foreign = elsewhere.run(foreign_task, task_id=TASK)
        for folder in (
            foreign,
            foreign_task,
            foreign_task.parent,
            elsewhere.runs_dir,
            tmp / "outside",
        ):
            for name in ("agent-stdout.txt", "output.md", "prompt.md", "TASK.md", "MESSAGE-BUS.md"):
                (folder / name).write_text(f"{SECRET}\n")
        links = {
            root.runs_dir / "linked-project": foreign_task.parent,
            root.runs_dir / "linked-run": foreign,
            task.parent / "linked-task": foreign_task,
            task / "runs" / "linked-run": foreign,
            task.parent / "PROJECT-MESSAGE-BUS.md": self.outside / "MESSAGE-BUS.md",
            task / "TASK-MESSAGE-BUS.md": self.outside / "MESSAGE-BUS.md",
            root.path / "MESSAGE-BUS.md": self.outside / "MESSAGE-BUS.md",
        }
        for name in (
            "agent-stdout.txt",
            "agent-stderr.txt",
            "output.md",
            "prompt.md",
            "transcript.md",
        ):
            links[self.run / name] = foreign / "agent-stdout.txt"
        for link, target in links.items():
            link.symlink_to(target)
        (task / "TASK.md").unlink()
        (task / "TASK.md").symlink_to(foreign_task / "TASK.md")
        root.settle()
        self.tmp = tmp
        self.runs_dir = root.runs_dir
        self.values = {"project": "demo", "task": TASK, "run": self.run.name}
        config = tmp / "config.yaml"
        config.write_text("api:\n  sse:\n    heartbeat_interval_s: 1\n")
        self.server = Server(root.path, "--config", config)

    def path(self, route: Route, **changed: str) -> str:
        """The address of an endpoint, for the run that there is but for what is changed."""
        return route.path.format(**{**self.values, **changed})

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """Status and answer to an address that is sent as it is; of a stream, what it has at first."""
        sent = {"Host": f"localhost:{self.server.port}", **headers}
        if body:
            sent |= {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in sent.items()]
        with self.connect() as client:
            client.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            return read_answer(client)

    def try_part(self, route: Route, part: str, value: str) -> tuple[int, bytes]:
        """Ask with that value in a part of the address, and with a body that would do."""
        body = BODIES.get(route.path) if route.method == "POST" else None
        text = json.dumps(body).encode() if body else b""
        return self.ask(route.method, self.path(route, **{part: value}), text)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), SECONDS)

    def is_well(self) -> bool:
        return self.ask("GET", "/api/v1/health")[0] == 200


def read_answer(client: socket.socket) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(client)
    try:
        response.begin()
        is_stream = response.headers.get_content_type() == "text/event-stream"
        return response.status, read_beginning(response) if is_stream else response.read()
    finally:
        response.close()


def read_beginning(stream: http.client.HTTPResponse) -> bytes:
    """All that a stream has to say before its second heartbeat."""
    data = b""
    while (line := stream.readline()) and not (line == HEARTBEAT and HEARTBEAT in data):
        data += line
    return data


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    made = Attacked(tmp_path_factory.mktemp("attacked"))
    before = snapshot(made.outside)
    with made.server:
        yield made
        assert made.is_well()
        code, _, said = made.server.end()
    assert code == 0
    assert "Traceback" not in said
    assert snapshot(made.outside) == before  # nothing that was done changed anything there


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


WITH_PARTS = [route for route in ROUTES if "{" in route.path]
WITH_QUERY = [route for route in ROUTES if route.query and route.kind != "text/event-stream"]


@pytest.mark.parametrize("route", WITH_PARTS, ids=name_of)
def test_no_part_of_an_address_leads_out_of_the_root(attacked: Attacked, route: Route) -> None:
    for part in re.findall(r"\{(\w+)\}", route.path):
        for value in [*TRAVERSALS, quote(str(attacked.outside), safe="")]:
            status, body = attacked.try_part(route, part, value)

            assert status in REFUSED, (part, value[:50], status, body[:300])
            assert SECRET.encode() not in body


@pytest.mark.parametrize("route", WITH_PARTS, ids=name_of)
def test_no_name_of_a_link_and_no_odd_name_leads_out_of_the_root(
    attacked: Attacked, route: Route
) -> None:
    before = snapshot(attacked.outside)
    for part in re.findall(r"\{(\w+)\}", route.path):
        is_stream = route.kind == "text/event-stream"  # which takes a second to read
        for value in [f"linked-{part}"] if is_stream else NAMES:
            status, body = attacked.try_part(route, part, value)

            assert status < 500 or status == 501, (part, value, status, body[:300])
            assert SECRET.encode() not in body
    assert snapshot(attacked.outside) == before
    assert not [name for name in os.listdir(attacked.runs_dir) if not re.match(r"[\w.]", name)]


@pytest.mark.parametrize("route", WITH_QUERY, ids=name_of)
def test_nothing_in_a_query_leads_out_of_the_root(attacked: Attacked, route: Route) -> None:
    none = {} if route.method == "GET" else dict.fromkeys(attacked.values, "none")  # not deleted
    for query in route.query:
        for value in [*TRAVERSALS, quote(str(attacked.outside / "MESSAGE-BUS.md"), safe="")]:
            status, body = attacked.ask(
                route.method, f"{attacked.path(route, **none)}?{query.name}={value}"
            )

            assert status < 500 or status == 501, (query.name, value[:50], status, body[:300])
            assert SECRET.encode() not in body


@pytest.mark.parametrize("route", [r for r in ROUTES if r.method == "GET"], ids=name_of)
def test_no_link_is_followed_out_of_the_root(attacked: Attacked, route: Route) -> None:
    names = ["agent-stdout.txt", "stdout", "output.md", "TASK.md"]
    takes_one = any(query.name == "name" for query in route.query)
    for name in [f"?name={name}" for name in names] if takes_one else [""]:
        status, body = attacked.ask("GET", attacked.path(route) + name)

        assert status < 500, (name, status, body[:300])
        assert SECRET.encode() not in body


@pytest.mark.parametrize("path", ["/", "/ui/", "/ui/js/", "/assets/", "/login/", "/api/v1/"])
@pytest.mark.parametrize("value", ["../server.py", "..%2fserver.py", "%2e%2e%2fserver.py"])
def test_no_address_of_the_page_leads_out_of_its_folder(
    attacked: Attacked, path: str, value: str
) -> None:
    status, body = attacked.ask("GET", path + value)

    assert status in REFUSED
    assert b"import" not in body


@pytest.mark.parametrize("route", [r for r in ROUTES if r.method != "OPTIONS"], ids=name_of)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80", "Origin": EVIL},
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
    ],
    ids=["rebound", "rebound page", "foreign page", "page without origin", "embedded"],
)
def test_a_foreign_page_can_read_and_change_nothing(
    attacked: Attacked, route: Route, headers: dict[str, str]
) -> None:
    before = snapshot(attacked.tmp)

    status, body = attacked.ask(route.method, attacked.path(route), b"{}", **headers)

    assert status == 403
    assert attacked.run.name.encode() not in body
    assert snapshot(attacked.tmp) == before


def test_a_form_of_a_page_without_an_origin_changes_nothing(attacked: Attacked) -> None:
    """As a browser too old to send Origin would post it."""
    for route in ROUTES:
        if route.body is not None:
            status, _ = attacked.ask(
                route.method,
                attacked.path(route),
                Content_Type="text/plain",
                Content_Length="0",
            )
            assert status in (403, 415), route.path


# -- too much


def memory_kib(attacked: Attacked) -> int:
    status = Path(f"/proc/{attacked.server.process.pid}/status")
    if not status.exists():
        pytest.skip("only Linux tells the most memory a process has had")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("target", ["/api/v1/tasks", "/api/v1/messages", "/nowhere"])
def test_a_body_of_a_gigabyte_is_not_taken(attacked: Attacked, target: str) -> None:
    before = memory_kib(attacked)
    sent = 0
    with attacked.connect() as client:
        client.sendall(
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 30}\r\n"
            "Content-Type: application/json\r\n\r\n".encode()
        )
        try:
            while sent < 1 << 30:
                sent += client.send(b" " * 65536)
        except OSError:
            pass  # it was cut off

    assert sent < 256 << 20
    assert memory_kib(attacked) - before < 32 * 1024
    assert attacked.is_well()


def test_a_million_headers_are_not_taken(attacked: Attacked) -> None:
    before = memory_kib(attacked)
    with attacked.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        try:
            client.sendall(b"X-Much: more\r\n" * 1_000_000)
        except OSError:
            pass  # it was cut off; what it said before can be read all the same
        assert client.recv(12) == b"HTTP/1.1 431"

    assert memory_kib(attacked) - before < 32 * 1024


def test_a_deep_body_is_no_fault(attacked: Attacked) -> None:
    for deep in (b"[" * 1_000_000, b'{"a":' * 200_000, b'{"prompt":' + b"[" * 500_000):
        status, body = attacked.ask("POST", "/api/v1/tasks", deep)
        assert status == 400
        assert b"invalid json" in body


def test_two_thousand_connections_at_once_are_answered_or_turned_away(
    attacked: Attacked,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2000
    limit = wanted + 500 if hard == resource.RLIM_INFINITY else min(hard, wanted + 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
    clients: list[socket.socket] = []
    try:
        clients += (attacked.connect() for _ in range(min(wanted, limit - 200)))
        answers = [answer_to(client) for client in clients]
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert set(answers) <= {b"HTTP/1.1 200", b"HTTP/1.1 503", b""}
    assert answers.count(b"HTTP/1.1 200") > 0
    assert attacked.is_well()


def answer_to(client: socket.socket) -> bytes:
    try:
        client.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return client.recv(12)
    except OSError:
        return b""


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x00" * 9999,
        b"\xff" * 99 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\n" * 9999,
        b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nHost: x\r\n\r\n",
    ],
)
def test_garbage_is_refused(attacked: Attacked, data: bytes) -> None:
    with attacked.connect() as client:
        client.sendall(data)
        assert client.recv(12) == b"HTTP/1.1 400"
    assert attacked.is_well()


def test_clients_that_leave_in_the_middle_do_no_harm(attacked: Attacked) -> None:
    request = b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345"
    for length in range(0, len(request), 3):
        with attacked.connect() as client:
            client.sendall(request[:length])
            if length % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    assert attacked.is_well()


# -- the key


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Server]:
    StoredRoot(tmp_path / "root").run()
    with Server(tmp_path / "root", env={"CONDUCTOR_API_KEY": KEY}) as server:
        yield server
        code, out, said = server.end()
    assert code == 0
    assert KEY not in server.first_lines + out + said
    assert "token=" not in out + said


def test_with_a_key_nothing_is_told_without_it(locked: Server) -> None:
    for route in ROUTES:
        path = route.path.format(project="demo", task=TASK, run="x")
        expected = 200 if route.open_to_all else 401
        if route.path != "/login":
            assert locked.send(route.method, path).status == expected, route.path
    assert locked.get("/api/v1/status", X_API_Key=KEY).status == 200
    assert locked.get("/api/v1/status", Authorization=f"Bearer {KEY}").status == 200


def test_the_printed_link_logs_a_browser_in_once(locked: Server) -> None:
    found = re.search(r"http://\S+(/login\?token=[\w-]+)", locked.first_lines)
    assert found is not None
    entered = locked.get(found[1])
    assert (entered.status, entered.headers["location"]) == (303, "/ui/")
    cookie = entered.headers["set-cookie"].partition(";")[0]
    origin = f"http://127.0.0.1:{locked.port}"

    assert locked.get(found[1]).status == 410
    assert locked.get("/api/v1/status", Cookie=cookie).status == 200
    with locked.open_stream("/api/v1/messages/stream", Cookie=cookie) as stream:
        assert stream.status != 401
    assert locked.send("POST", "/api/v1/tasks", {}, Cookie=cookie).status == 403
    assert locked.send("POST", "/api/v1/tasks", {}, Cookie=cookie, Origin=origin).status == 400
    assert locked.send("POST", "/api/v1/login-links", Cookie=cookie, Origin=origin).status == 403


def test_a_cookie_outlives_the_server_and_a_new_link_can_be_had(locked: Server) -> None:
    made = locked.send("POST", "/api/v1/login-links", X_API_Key=KEY)
    assert made.status == 201
    entered = locked.get(made.json["url"].partition(str(locked.port))[2])
    cookie = entered.headers["set-cookie"].partition(";")[0]

    locked.end()
    locked.start()

    assert locked.get("/api/v1/status", Cookie=cookie).status == 200
    assert locked.get("/api/v1/status", Cookie=cookie + "0").status == 401
