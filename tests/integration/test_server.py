"""web/server.py as a process: how it starts, what it says, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import VERSION, packages
from lib.api.routes import ROUTES
from lib.errors import UserError
from tests.api_server import Reply, Server
from tests.helpers import ROOT, clean_environment, run_script
from tests.stored_root import StoredRoot, snapshot
from web import server as script

SCRIPT = str(ROOT / "web" / "server.py")
KEY = "correct-horse-battery-staple"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    with Server(root) as made:
        yield made


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def start(root: Path, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A start that must fail."""
    config = root.parent / "none.yaml"
    config.touch()
    words = ["--root", root, *arguments] if "--runs-dir" not in arguments else arguments
    return run_script("web/server.py", *words, env={"CONDUCTOR_CONFIG": str(config), **env})


def told(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """(exit code, the one line that a start failed with)."""
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("server.py: ")
    return done.returncode, done.stderr.removeprefix("server.py: ").rstrip("\n")


# ---- what it answers ---------------------------------------------------------


def test_a_fresh_root_is_served_and_nothing_is_written(root: Path) -> None:
    with Server(root) as server:
        assert server.get("/api/v1/health").json == {"status": "ok"}
        assert server.get("/api/v1/version").json == {"version": VERSION}
        assert server.get("/healthz").json["status"] == "ok"
        status = server.get("/api/v1/status").json
        assert (status["active_runs_count"], status["running_tasks"]) == (0, [])
        assert status["configured_agents"] == []
        assert server.get("/api/projects").json == {"projects": []}
        assert server.end() == (0, "", "")
    assert list(root.iterdir()) == []


def test_the_first_line_says_where_the_page_is_and_how_to_stop(server: Server) -> None:
    assert server.first_lines == (
        f"serving {server.root}/runs at http://127.0.0.1:{server.port}/ui/; "
        "Ctrl-C ends the server, and no agent\n"
    )
    assert server.get("/ui/").headers["content-type"] == "text/html; charset=utf-8"


def readings() -> list[str]:
    return sorted(
        route.path
        for route in ROUTES
        if route.method == "GET" and route.kind != "text/event-stream"
    )


@pytest.mark.parametrize("known", [True, False])
def test_no_reading_fails_or_changes_anything(tmp_path: Path, known: bool) -> None:
    stored = StoredRoot(tmp_path / "root")
    task = stored.task("task-20260101-000001-a")
    run = stored.run(task)
    before = snapshot(stored.path)
    with Server(stored.path) as server:
        for template in readings():
            path = template.replace("{project}", "demo" if known else "nobody")
            path = path.replace("{task}", task.name).replace("{run}", run.name)
            reply = server.get(path)
            assert reply.status < 500, (path, reply.text)
            assert reply.headers["x-request-id"]
        assert server.end() == (0, "", "")
    assert snapshot(stored.path) == before


def test_requests_and_streams_are_counted(server: Server) -> None:
    def figure(name: str) -> str:
        lines = server.get("/metrics").text.split("\n")
        return next((line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")), "0")

    server.send("DELETE", "/api/v1/health")
    assert figure('conductor_api_requests_total{method="DELETE",status="405"}') == "1"
    with server.open_stream("/api/v1/runs/stream/all") as stream:
        assert next(iter(stream)).name == "heartbeat"
        assert figure("conductor_sse_clients") == "1"


def test_self_update_tells_its_idle_state_and_is_not_ported(server: Server) -> None:
    state = server.get("/api/v1/admin/self-update").json
    assert state["state"] == "idle"
    assert state["requested_at"] == "0001-01-01T00:00:00Z"
    reply = server.send("POST", "/api/v1/admin/self-update", {"binary_path": "/bin/sh"})
    assert (reply.status, reply.error[0]) == (501, "NOT_IMPLEMENTED")


def test_a_head_of_an_answer_and_an_empty_answer_arrive(server: Server) -> None:
    refused = server.send("HEAD", "/api/v1/health")
    assert (refused.status, refused.body, refused.headers["allow"]) == (405, b"", "GET, OPTIONS")
    page = server.send("HEAD", "/ui/")
    assert (page.status, page.body) == (200, b"")
    assert int(page.headers["content-length"]) > 0
    empty = server.send("OPTIONS", "/api/v1/tasks")
    assert (empty.status, empty.body) == (204, b"")
    assert "content-type" not in empty.headers


@pytest.mark.parametrize("path", ["/%ff", "/api/v1/runs/%c3%28", "/a%0ab", "/%00", "/%E2%80%A8"])
def test_an_odd_path_is_refused_as_any_other(server: Server, path: str) -> None:
    reply = server.get(path)
    assert reply.status in (400, 404)
    assert reply.headers["x-request-id"]


def test_status_says_that_nothing_is_started_here(root: Path) -> None:
    with Server(root, "--disable-task-start") as server:
        status = server.get("/api/v1/status").json
    assert status["may_start_tasks"] is False
    assert status["command_options"] == ["--runs-dir", str(root / "runs")]
    with Server(root, env={"CONDUCTOR_DISABLE_TASK_START": "y"}) as server:
        assert server.get("/api/v1/status").json["may_start_tasks"] is False


# ---- with a key --------------------------------------------------------------


def check_is_locked(server: Server, key: str = KEY) -> None:
    refused = server.get("/api/v1/status")
    assert refused.status == 401
    assert refused.json == {"error": "unauthorized", "message": "valid API key required"}
    assert refused.headers["www-authenticate"] == 'Bearer realm="conductor"'
    assert server.get("/api/v1/nope").status == 401
    assert server.get("/api/v1/health").status == 200
    assert server.get("/api/v1/status", X_API_Key=key).status == 200
    assert server.get("/api/v1/status", Authorization=f"Bearer {key}").status == 200


def test_a_key_of_the_environment_is_asked_for(root: Path) -> None:
    with Server(root, env={"CONDUCTOR_API_KEY": KEY}) as server:
        check_is_locked(server)
        assert KEY not in server.first_lines


def test_a_key_of_a_file_goes_before_that_of_the_environment(root: Path) -> None:
    file = root.parent / "key"
    file.write_text(f"{KEY}\n")
    env = {"CONDUCTOR_API_KEY": "another-key-of-no-use"}
    with Server(root, "--api-key-file", file, env=env) as server:
        check_is_locked(server)


@pytest.mark.parametrize(
    "text", [f"{{api_key: {KEY}}}", "{api_key_file: ../key, auth_enabled: true}"]
)
def test_a_key_of_the_configuration_is_asked_for(root: Path, text: str) -> None:
    (root.parent / "key").write_text(KEY)
    folder = root.parent / "settings"
    folder.mkdir()
    (folder / "config.yaml").write_text(f"api: {text}\n")
    with Server(root, "--config", folder / "config.yaml") as server:
        check_is_locked(server)


def test_the_link_that_is_printed_lets_a_browser_in_once(root: Path) -> None:
    with Server(root, env={"CONDUCTOR_API_KEY": KEY}) as server:
        link = server.first_lines.split(" at ")[1].split(";")[0]
        path = "/" + link.split("/", 3)[3]
        opened = server.get(path)
        assert (opened.status, opened.headers["location"]) == (303, "/ui/")
        cookie = opened.headers["set-cookie"].partition(";")[0]
        assert server.get("/api/v1/status", Cookie=cookie).status == 200
        assert server.get(path).status == 410


def test_auth_can_be_switched_off_where_a_key_is_written(root: Path) -> None:
    config = root.parent / "config.yaml"
    config.write_text(f"api: {{api_key: {KEY}, auth_enabled: false}}\n")
    with Server(root, "--config", config) as server:
        assert server.get("/api/v1/status").status == 200


# ---- starts that are refused -------------------------------------------------


def test_a_port_that_is_taken_is_told_with_its_holder(root: Path, taken: int) -> None:
    code, line = told(start(root, "--port", str(taken)))
    assert code == 1
    assert line.startswith(f"port {taken} is taken by pid {os.getpid()} (")
    assert line.endswith("; stop that, or choose another with --port")


def test_a_port_that_is_taken_is_told_where_nothing_tells_by_whom(root: Path, taken: int) -> None:
    done = start(root, "--port", str(taken), CONDUCTOR_PORTABLE="1")
    assert told(done) == (1, f"port {taken} is taken; stop that, or choose another with --port")


def test_a_port_of_the_environment_is_as_fixed(root: Path, taken: int) -> None:
    assert told(start(root, CONDUCTOR_PORT=str(taken)))[0] == 1


def test_a_port_of_the_configuration_gives_way_to_the_next(root: Path, taken: int) -> None:
    config = root.parent / "config.yaml"
    config.write_text(f"api: {{port: {taken}}}\n")
    words = [sys.executable, SCRIPT, "--root", str(root), "--config", str(config)]
    process = subprocess.Popen(words, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = int(line.split("127.0.0.1:")[1].split("/")[0])
        assert taken < port < taken + 100
        assert f"; port {taken} is taken; " in line
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_a_public_address_needs_a_key(root: Path, host: str) -> None:
    code, line = told(start(root, "--host", host, "--port", "0"))
    assert code == 2
    assert "there is no API key: set one with --api-key-file FILE" in line


def test_a_public_address_is_served_with_a_key(root: Path) -> None:
    with Server(root, "--host", "0.0.0.0", env={"CONDUCTOR_API_KEY": KEY}) as server:  # noqa: S104
        check_is_locked(server)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--api-key", KEY], 2, "--api-key: everybody on this machine can read a command line; use --api-key-file"),
        ([f"--api-key={KEY}"], 2, "--api-key: everybody on this machine can read a command line; use --api-key-file"),
        (["--api-key"], 2, "--api-key: everybody on this machine can read a command line; use --api-key-file"),
        (["--api-key-file", "/nope/key"], 2, "the file of the API key /nope/key cannot be read: "),
        (["--port", "65536"], 2, "--port: '65536' is no port from 0 to 65535"),
        (["--port", "-1"], 2, "--port: '-1' is no port from 0 to 65535"),
        (["--host", "no.such.host.invalid"], 2, "--host: no.such.host.invalid is no name or address of this"),
        (["--max-root-tasks", "-1"], 2, "--max-root-tasks: -1 is below 0"),
        (["--config", "/nope.yaml"], 2, "no config file /nope.yaml; correct --config"),
        (["--wsgi", "wsgirf"], 2, "--wsgi: Bottle knows no server 'wsgirf' (did you mean wsgiref?)"),
        (["--wsgi", "bjoern"], 2, "--wsgi bjoern: No module named 'bjoern'; install it, or leave out --wsgi"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(
    root: Path, words: list[str], code: int, line: str
) -> None:
    port = [] if "--port" in words else ["--port", "0"]
    found_code, found = told(start(root, *words, *port))
    assert (found_code, found[: len(line)]) == (code, line)
    assert KEY not in found
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("api: {prot: 1}\n", ":1: unknown key 'prot' of api (did you mean port?)"),
        ("api: {auth_enabled: true}\n", ":1: auth_enabled without a key; add api_key_file"),
        ("api: {cors_origins: ['*']}\n", "api.cors_origins: * would let every web page start agents"),
        ("api: {api_key: a, api_key_file: b}\n", ":1: api has a key and a file with a key; keep one"),
        ("api: {api_key: short}\n", "the API key must have 8 ASCII characters or more"),
        ("api: {host: 0.0.0.0}\n", "0.0.0.0 can be reached from other machines, and there is no API key"),
        ("api: [\n", ":"),
    ],
)  # fmt: skip
def test_a_broken_configuration_is_told_in_one_line(root: Path, text: str, line: str) -> None:
    config = root.parent / "broken.yaml"
    config.write_text(text)
    code, found = told(start(root, "--config", config))
    assert code == 2
    assert found.removeprefix(str(config)).startswith(line)


def test_a_misspelt_root_is_refused_and_not_made(root: Path) -> None:
    code, line = told(start(root, "--root", root / "no" / "where"))
    assert (code, "no folder" in line) == (2, True)
    assert list(root.iterdir()) == []


def test_a_missing_bottle_is_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "load", lambda name: None)
    with pytest.raises(UserError, match="needs the package bottle; install it with: make setup"):
        script.load_bottle()


# ---- places ------------------------------------------------------------------


def test_the_runs_folder_of_the_configuration_is_served(root: Path, tmp_path: Path) -> None:
    stored = StoredRoot(tmp_path / "elsewhere")
    stored.run(stored.task("task-20260101-000001-a"))
    config = tmp_path / "config.yaml"
    config.write_text("storage: {runs_dir: elsewhere/runs}\n")
    words = [sys.executable, SCRIPT, "--port", "0", "--config", str(config)]
    process = subprocess.Popen(words, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"serving {stored.runs_dir} at ")
    finally:
        process.kill()
        process.communicate()
    with Server(root, "--config", config) as server:
        assert server.get("/api/projects").json == {"projects": []}, "the option goes before it"


def test_a_storage_root_of_the_original_is_served(tmp_path: Path) -> None:
    stored = StoredRoot(tmp_path / "root")
    stored.run(stored.task("task-20260101-000001-a"))
    with Server(tmp_path, "--runs-dir", stored.runs_dir) as server:
        [project] = server.get("/api/projects").json["projects"]
        assert project["id"] == "demo"


# ---- ends --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_it_and_the_streams(root: Path, number: int, code: int) -> None:
    with Server(root) as server, server.open_stream("/api/v1/runs/stream/all") as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        assert server.end(number) == (code, "", "")
        assert [event for event in stream if event.name != "heartbeat"] == []


def test_after_kill_it_starts_again_at_the_same_port(root: Path) -> None:
    with Server(root) as server:
        port = server.port
        server.kill()
        server.start()
        assert server.port == port
        assert server.get("/api/v1/health").status == 200


# ---- other servers -----------------------------------------------------------


def test_a_server_of_bottles_list_gives_the_same_answers(root: Path) -> None:
    replies: list[list[Reply]] = []
    for words in ([], ["--wsgi", "wsgiref"]):
        with Server(root, *words) as server:
            paths = (
                "/api/v1/health",
                "/api/v1/nope",
                "/a//x",
                "/ui/",
                "/api/projects/p/nope",
                "/%ff",
            )
            replies.append([server.get(path) for path in paths])
            assert server.end() == (0, "", "")
    for ours, other in zip(*replies, strict=True):
        assert (ours.status, ours.body) == (other.status, other.body)
        dropped = {"date", "server", "connection", "x-request-id"}
        named = [
            {k: v for k, v in reply.headers.items() if k not in dropped} for reply in (ours, other)
        ]
        assert named[0] == named[1]


def test_make_serve_hands_its_arguments_on() -> None:
    words = ["make", "-s", "serve", "ARGS=--version", f"PYTHON={sys.executable}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"server.py {VERSION}\n")
