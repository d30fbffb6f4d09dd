"""Two servers on one root: what both are asked for at once is done once, and told truly."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api_server import Server
from tests.helpers import wait_until
from tests.task_root import TaskRoot

PROMPT = "Create the file DONE when ready."


@pytest.fixture(params=[(), ("--max-root-tasks", "2")], ids=["all at once", "two at a time"])
def servers(tasks_root: TaskRoot, request: pytest.FixtureRequest) -> Iterator[list[Server]]:
    arguments = [*request.param, "--config", tasks_root.config_file]
    environment = tasks_root.environment()
    with (
        Server(tasks_root.path, *arguments, env=environment) as one,
        Server(tasks_root.path, *arguments, env=environment) as other,
    ):
        yield [one, other]


def test_a_start_that_both_are_asked_for_happens_once_and_is_told_truly(
    tasks_root: TaskRoot, servers: list[Server]
) -> None:
    wanted = [f"t{number}" for number in range(4)]

    def post(server: Server, task: str) -> tuple[int, str]:
        body = {"project_id": "p", "task_id": task, "agent_type": "offline", "prompt": PROMPT}
        reply = server.send("POST", "/api/v1/tasks", json=body)
        assert reply.status in (201, 409), reply.body
        return reply.status, reply.json.get("run_id", "")

    with ThreadPoolExecutor(8) as pool:
        asked = [(task, pool.submit(post, server, task)) for task in wanted for server in servers]
        answers = [(task, *given.result()) for task, given in asked]
    wait_until(
        lambda: all((tasks_root.runs / "p" / task / "DONE").exists() for task in wanted),
        seconds=60,
        what="the end of all tasks",
    )
    begun = {
        (task, run.name)
        for task in wanted
        for run in (tasks_root.runs / "p" / task / "runs").iterdir()
        if not run.name.startswith(".")
    }
    assert {(task, run) for task, status, run in answers if status == 201} == begun
    assert len(begun) == len(wanted)
    wait_until(lambda: len(tasks_root.processes()) == 2, what="the end of the loops")
