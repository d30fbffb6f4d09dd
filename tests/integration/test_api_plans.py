"""Plans that really run, as the API shows them; and what the server counts of itself."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lib import situation, why
from lib.api.connection import Limits
from lib.api.wsgi_server import make_server
from lib.index import Index
from lib.monitor.plans import PlanView
from lib.plan import load_plan
from tests.api_app import App, faults
from tests.api_server import Server
from tests.helpers import wait_until
from tests.plan_root import PlanRoot, offline, sh

GATE = "while [ ! -e go ]; do sleep 0.05; done"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[PlanRoot]:
    made = PlanRoot(tmp_path / "root")
    yield made
    made.kill_everything()


def shown(app: App, address: str = "/api/v1/plans/p") -> Any:
    app.service.view.notice([])
    reply = app.get(address)
    assert (reply.status, faults(address, reply)) == (200, [])
    return reply.json


def of_tasks(app: App, key: str) -> dict[str, Any]:
    return {task["id"]: task[key] for task in shown(app)["tasks"]}


def test_the_sentences_of_a_plan_are_those_of_why_and_of_the_monitor(root: PlanRoot) -> None:
    root.plan(
        offline("good"),
        offline("bad", "exit 3"),
        offline("after-good", depends_on=["good"]),
        offline("after-bad", depends_on=["bad"]),
        offline("far", depends_on=["after-bad"]),
    )
    assert root.run("--keep-going").returncode == 1

    told = of_tasks(App(root.runs), "why")

    assert {name: root.why(name) for name in told} == told
    index = Index(str(root.runs))
    index.refresh()
    view = PlanView(index.plans["p"], str(root.runs))
    assert {name: view.sentence(name) for name in told} == told
    assert told["far"].startswith(
        "is blocked: it needs after-bad, and through it bad, which failed"
    )


def test_a_plan_is_shown_while_it_runs_and_when_it_has_ended(root: PlanRoot) -> None:
    stages = [
        {"id": "first", "tasks": [sh("waits", GATE), offline("quick")]},
        {"id": "second", "tasks": [offline("last", depends_on=["quick"])]},
    ]
    root.plan(stages=stages)
    process = root.start()
    app = App(root.runs)
    wait_until(
        lambda: (
            root.state_file.exists()
            and of_tasks(app, "state") == {"waits": "running", "quick": "done", "last": "pending"}
        ),
        what="the first stage",
    )

    during = shown(app)

    assert (during["state"], during["is_run"]) == ("running", True)
    assert [stage["state"] for stage in during["stages"]] == ["running", "pending"]
    [run] = during["tasks"][0]["runs"]
    assert (run["status"], run["ended"]) == ("running", None)
    expected = why.sentence(
        situation.look(load_plan(str(root.plan_file)), str(root.runs)), "last"
    ).partition(": ")[0]
    assert during["tasks"][2]["why"].startswith(f"{expected.partition('; ')[0]}; ")
    assert "waits is running" in during["tasks"][2]["why"]

    (root.work / "go").touch()
    assert process.wait(60) == 0
    after = shown(app)

    assert (after["state"], after["exit_code"], after["counts"]) == ("done", 0, {"done": 3})
    assert after["edges"] == [{"from": "quick", "to": "last"}]
    for task in after["tasks"]:
        [run] = task["runs"]
        assert (run["status"], run["exit_code"]) == ("completed", 0)
        assert run["run_id"] == root.run_folder(task["id"]).name
        assert after["timeline"]["start"] <= run["started"] <= run["ended"]
        assert run["ended"] <= after["timeline"]["end"]
    root.assert_nothing_left()


def test_a_plan_that_was_killed_is_gone_and_says_what_to_do(root: PlanRoot) -> None:
    root.plan(sh("a", GATE), sh("b", "true", depends_on=["a"]))
    process = root.start()
    app = App(root.runs)
    wait_until(
        lambda: root.state_file.exists() and of_tasks(app, "state").get("a") == "running",
        what="the first task",
    )
    process.send_signal(signal.SIGKILL)
    process.wait(60)

    # What it was just starting may have its lock for a moment longer.
    wait_until(lambda: shown(app)["state"] == "gone", what="the plan's being gone")
    assert "start the plan again" in of_tasks(app, "why")["b"]
    assert of_tasks(app, "why")["b"] == root.why("b")
    (root.work / "go").touch()
    assert root.run().returncode == 0
    assert shown(app)["state"] == "done"


def test_the_loop_of_a_task_is_shown_with_its_attempts_and_counted_once(root: PlanRoot) -> None:
    root.plan({"id": "a", "agent": "offline", "prompt": "Work.", "loop": True})
    assert root.run().returncode == 0
    app = App(root.runs)

    [task] = shown(app)["tasks"]

    kinds = [run["kind"] for run in task["runs"]]
    assert kinds == ["attempt", *["child"] * (len(kinds) - 1)]
    assert len(kinds) > 1
    total = shown(app, "/api/v1/totals")
    assert total["run_count"] == len(kinds)
    assert total["input_tokens"] == sum(run["input_tokens"] or 0 for run in task["runs"][1:]) or (
        total["input_tokens"] is None
    )


def test_the_server_counts_its_requests_its_messages_and_its_streams(root: PlanRoot) -> None:
    root.plan(offline("a"))
    assert root.run().returncode == 0
    with Server(root.path) as server:
        assert [plan["state"] for plan in server.get("/api/v1/plans").json["plans"]] == ["done"]
        assert server.get("/api/v1/search?q=a").json["total"] == 1
        assert server.get("/api/v1/nothing").status == 404
        server.send("POST", "/api/v1/messages", json={"project_id": "p", "body": "x"})

        def value(sample: str) -> float:
            lines = server.get("/metrics").text.split("\n")
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(sample))

        assert value('conductor_api_requests_total{method="GET",status="404"}') == 1
        assert value('conductor_api_requests_total{method="POST",status="201"}') == 1
        assert value("conductor_messagebus_appends_total") == 1
        assert value('conductor_plans{state="done"}') == 1
        assert value("conductor_sse_clients") == 0
        with server.open_stream("/api/v1/runs/stream/all") as stream:
            next(iter(stream))
            assert value("conductor_sse_clients") == 1
        wait_until(lambda: value("conductor_sse_clients") == 0, what="the client's leaving")
        assert value("conductor_streams_dropped_total") == 0
        assert server.get("/metrics").headers["content-type"].startswith("text/plain")
        assert server.send("POST", "/metrics").status == 405
        assert server.end()[0] == 0


@pytest.mark.parametrize("reads", [True, False])
def test_a_client_that_takes_nothing_more_is_counted_and_one_that_leaves_is_not(
    reads: bool,
) -> None:
    ended = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * (1 << 20)
        finally:
            ended.set()

    def answer(environ: object, start: Any) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/event-stream")])
        return endless()

    server = make_server("127.0.0.1", 0, answer, Limits(write_seconds=0.2 if not reads else 60))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(5) == b"HTTP/"
            if not reads:
                assert ended.wait(30)
        assert ended.wait(30)
        if not reads:
            wait_until(lambda: server.dropped == 1, what="the count")
    finally:
        server.close()
        thread.join(30)
    assert server.dropped == (0 if reads else 1)
