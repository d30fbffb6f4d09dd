"""What the server starts, stops and removes: real processes, which need no server to go on."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib import bus, loop_record, tasks
from tests.agent_runs import is_alive, kill
from tests.api_server import Reply, Server
from tests.api_servers import Servers
from tests.helpers import run_script, wait_until
from tests.task_root import COUNT, FINISH, TaskRoot

SECRET = "s3cr3t-value-4711-of-the-request"


class Control(Servers[TaskRoot]):
    """A server on a root with the agent `fake`, and what is asked of it."""

    def __init__(self, root: TaskRoot) -> None:
        super().__init__(root, "--config", str(root.config_file))

    def task(self, name: str = "t") -> tasks.Task:
        return tasks.locate(str(self.root.runs), "p", name)

    def is_settled(self, name: str = "t") -> bool:
        """Whether the task's loop has ended, as its record says."""
        task = self.task(name)
        fields, _ = loop_record.read(task)
        return fields.get("state") in loop_record.ENDED and not loop_record.is_held(task)

    def await_settled(self, name: str = "t") -> dict[str, object]:
        wait_until(lambda: self.is_settled(name), what=f"the end of the loop of {name}")
        return loop_record.read(self.task(name))[0]

    def pids_of(self, script: str) -> list[int]:
        return [pid for pid, command in self.root.processes().items() if script in command]

    def queue(self) -> list[dict[str, Any]]:
        import yaml

        path = self.root.runs / ".conductor" / "root-queue.yaml"
        found: list[dict[str, Any]] = yaml.safe_load(path.read_text())["entries"]
        return found


@pytest.fixture
def control(tasks_root: TaskRoot) -> Iterator[Control]:
    made = Control(tasks_root)
    yield made
    made.close()


def wish(name: str = "t", **more: object) -> dict[str, object]:
    fields = {"project_id": "p", "task_id": name, "agent_type": "fake", "prompt": "Do it."}
    return {**fields, **more}


def start(server: Server, name: str = "t", **more: object) -> Reply:
    return server.send("POST", "/api/v1/tasks", json=wish(name, **more))


def task_page(server: Server, name: str = "t") -> Any:
    return server.get(f"/api/projects/p/tasks/{name}").json


# -- starting


def test_a_task_that_is_posted_runs_until_it_is_done(control: Control) -> None:
    control.root.agent(FINISH)
    server = control.serve()

    reply = start(server, prompt="Do it well.", project_root=str(control.root.work))

    assert reply.status == 201, reply.text
    run_id = reply.json["run_id"]
    assert reply.json == {
        "project_id": "p", "task_id": "t", "run_id": run_id, "status": "started",
    }  # fmt: skip
    assert control.await_settled()["state"] == "done"
    assert (control.root.folder / "TASK.md").read_text() == "Do it well.\n"
    assert control.root.info(run_id)["cwd"] == str(control.root.work)
    page = f"/api/v1/runs/{run_id}"
    wait_until(lambda: server.get(page).json["status"] == "completed", what="the end on its page")
    assert control.audit()[0]["run_id"] == run_id
    control.close()
    control.root.assert_settled()


def test_the_agent_knows_the_server_and_nothing_of_its_key(control: Control) -> None:
    control.root.agent(f'env >"$JRUN_TASK_FOLDER/env"; {FINISH}')
    key = "key-of-the-server-0123456789"
    server = control.serve(env={"CONDUCTOR_API_KEY": key, "JRUN_ID": "20260101-0000000000-1-1"})

    body = wish(config={"COLOUR": "blue"})
    reply = server.send("POST", "/api/v1/tasks", json=body, X_API_Key=key)

    assert reply.status == 201, reply.text
    control.await_settled()
    told = dict(
        line.split("=", 1)
        for line in (control.root.folder / "env").read_text().split("\n")
        if "=" in line
    )
    assert told["JRUN_CONDUCTOR_URL"] == f"http://127.0.0.1:{server.port}"
    assert told["COLOUR"] == "blue"
    assert told["JRUN_PARENT_ID"] == "", "the server itself is no run"
    assert key not in told.values()


def test_values_of_config_reach_the_agent_and_no_file_answer_or_command_line(
    control: Control,
) -> None:
    gate = control.root.gate()
    control.root.agent(
        f'[ "$MY_TOKEN" = {SECRET} ] && echo known; echo $$ >"$JRUN_TASK_FOLDER/pid"\n'
        f"read -r _ <'{gate.path}'; {FINISH}"
    )
    control.root.agent_file.chmod(0o600)
    told_by_script = control.root.agent_file.read_bytes()
    server = control.serve("--max-root-tasks", "1")

    reply = start(server, config={"MY_TOKEN": SECRET, "PLACE": "of no name that tells"})

    assert reply.status == 201, reply.text
    control.root.pids("pid", 1)
    assert SECRET not in reply.text
    lines = [command for command in control.root.processes().values() if SECRET in command]
    assert lines == []
    gate.open()
    control.await_settled()
    _, out, err = server.end()
    assert SECRET not in out + err
    found = [name for name, data in control.root.tree().items() if SECRET.encode() in data]
    assert SECRET.encode() in told_by_script
    assert found == ["agent.sh"]
    run_id = reply.json["run_id"]
    output = control.root.folder / "runs" / run_id / "agent-stdout.txt"
    assert output.read_text() == "known\n"
    assert control.audit()[0]["payload"]["config"] == {
        "MY_TOKEN": "[REDACTED]",
        "PLACE": "[REDACTED]",
    }


def test_a_killed_server_is_noticed_by_no_agent_and_the_next_one_stops_it(
    control: Control,
) -> None:
    gate = control.root.gate()
    control.root.agent(
        f"trap 'exit 0' TERM; echo $$ >\"$JRUN_TASK_FOLDER/pid\"; read -r _ <'{gate.path}'"
    )
    server = control.serve()
    run_id = start(server).json["run_id"]
    [agent] = control.root.pids("pid", 1)

    server.kill()

    assert is_alive(agent)
    assert loop_record.is_held(control.task())
    other = control.serve()
    page = task_page(other)
    assert [(run["id"], run["status"]) for run in page["runs"]] == [(run_id, "running")]
    stopped = other.send("POST", f"/api/v1/runs/{run_id}/stop")
    assert (stopped.status, stopped.json) == (202, {"status": "stopping"})
    fields = control.await_settled()
    assert fields["state"] == "stopped", "its loop does not begin another one"
    wait_until(lambda: not is_alive(agent), what="the end of the agent")
    again = other.send("POST", f"/api/projects/p/tasks/t/runs/{run_id}/stop")
    assert (again.status, again.error) == (409, ("CONFLICT", "run already finished"))
    control.assert_nothing_left()


def test_a_stop_goes_on_when_the_server_is_killed_at_once(control: Control) -> None:
    gate = control.root.gate()
    control.root.agent(
        f"trap '' TERM; echo $$ >\"$JRUN_TASK_FOLDER/pid\"; while :; do read -r _ <'{gate.path}'; done"
    )
    server = control.serve(env={"CONDUCTOR_STOP_GRACE": "2"})
    run_id = start(server).json["run_id"]
    [agent] = control.root.pids("pid", 1)

    path = f"/api/projects/p/tasks/t/runs/{run_id}/stop"
    assert server.send("POST", path).json["run_id"] == run_id
    assert server.send("POST", path).status == 202, "and a second one shortens no grace"
    stoppers = control.pids_of("bin/stop-run")
    assert stoppers
    assert {os.getsid(pid) for pid in stoppers} <= set(stoppers), "no Ctrl-C at the server ends it"
    server.kill()

    control.await_settled()
    assert not is_alive(agent)
    control.assert_nothing_left()


def test_of_two_that_post_a_task_at_once_one_starts_it(control: Control) -> None:
    gate = control.root.gate()
    control.root.agent(f"echo $$ >>\"$JRUN_TASK_FOLDER/pid\"; read -r _ <'{gate.path}'; {FINISH}")
    servers = [control.serve(), control.serve()]
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda server=server: replies.append(start(server)))
        for server in [*servers, *servers]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(reply.status for reply in replies) == [201, 409, 409, 409]
    [refused, *_] = [reply for reply in replies if reply.status == 409]
    assert refused.error == ("CONFLICT", "task is already running")
    assert len(control.root.pids("pid", 1)) == 1
    gate.open()
    control.await_settled()
    assert len(control.root.task_runs()) == 1


def test_a_task_whose_loop_was_killed_goes_on_with_its_agent(control: Control) -> None:
    gate = control.root.gate()
    control.root.agent(f"echo $$ >>\"$JRUN_TASK_FOLDER/pid\"; read -r _ <'{gate.path}'; {FINISH}")
    server = control.serve()
    start(server)
    [agent] = control.root.pids("pid", 1)
    holder = loop_record.holder(control.task())
    assert holder is not None
    kill(holder.pid)
    wait_until(lambda: not loop_record.is_held(control.task()), what="the end of the loop")

    reply = start(server, attach_mode="attach")

    assert (reply.status, reply.json["status"]) == (201, "started")
    gate.open()
    assert control.await_settled()["state"] == "done"
    assert control.root.pids("pid", 1) == [agent], "no second agent was started"


def test_what_run_task_refuses_leaves_nothing_behind(control: Control) -> None:
    server = control.serve()

    reply = start(server, "odd", agent_type="shell", prompt="no commands in here")

    assert reply.status == 400, reply.text
    assert reply.json["error"]["message"]
    assert not (control.root.runs / "p").exists()
    assert control.root.processes().keys() == {server.process.pid}


REFUSED: list[tuple[dict[str, object], int, str]] = [
    ({"project_id": ""}, 400, "project_id is required"),
    ({"project_id": "_audit"}, 400, "project_id: _audit is a name that the server uses itself"),
    ({"project_id": "run_20260101-000000-1"}, 400, "project_id"),
    ({"task_id": "../x"}, 400, "task_id must not contain path separators"),
    ({"task_id": "%2e%2e%2fx"}, 400, "task_id must not contain path separators"),
    ({"task_id": "a b"}, 400, "task_id: 'a b' cannot be the name of a folder"),
    ({"task_id": "-x"}, 400, "task_id: '-x' cannot be the name of a folder"),
    ({"agent_type": " "}, 400, "agent_type is required"),
    ({"agent_type": "nobody"}, 400, "unknown agent: nobody"),
    ({"agent_type": "../base"}, 400, "unknown agent"),
    ({"agent_type": "loop"}, 400, "loop is no agent"),
    ({"prompt": " \n"}, 400, "prompt is required"),
    ({"prompt": 7}, 400, "invalid json: prompt"),
    ({"prompt": "half \ud800"}, 400, "invalid json: prompt holds half a character"),
    ({"project_root": "/no/such"}, 400, "project_root does not exist"),
    ({"project_root": "here"}, 400, "project_root must be an absolute path"),
    ({"depends_on": ["t"]}, 400, "depends_on: the task t cannot wait for itself"),
    ({"depends_on": ["a/b"]}, 400, "depends_on: 'a/b' is no task id"),
    ({"depends_on": [1]}, 400, "invalid json: depends_on"),
    ({"attach_mode": "steal"}, 400, "attach_mode must be"),
    ({"config": {"LD_PRELOAD": "x.so"}}, 400, "config: LD_PRELOAD cannot be set"),
    ({"config": {"JRUN_ID": "x"}}, 400, "config: JRUN_ID cannot be set"),
    ({"config": {"CONDUCTOR_CONFIG": "x"}}, 400, "config: CONDUCTOR_CONFIG cannot be set"),
    ({"config": {"PYTHONPATH": "x"}}, 400, "config: PYTHONPATH cannot be set"),
    ({"config": {"PATH": "x"}}, 400, "config: PATH cannot be set"),
    ({"config": {"A=B": "x"}}, 400, "config: 'A=B' cannot be the name of a variable"),
    ({"config": {"A": 1}}, 400, "config: the value of A is no text"),
    ({"config": {"A": "x\0"}}, 400, "config: the value of A is too long, or holds a NUL"),
    ({"config": {"A": "x" * 100_000}}, 400, "config: the value of A is too long"),
    ({"config": {f"A{n}": "x" * 90_000 for n in range(3)}}, 400, "config: more than 256 KiB"),
    ({"depends_on": ["a,b," * 600]}, 400, "depends_on: more than 1000 tasks"),
    ({"process_import": {"pid": 1}}, 501, "process_import"),
    ({"thread_message_type": "USER_REQUEST"}, 400, "thread_message_type requires thread_parent"),
    ({"thread_parent": {"project_id": "p"}}, 400, "thread_parent.task_id is required"),
    ({"zzz": 1}, 400, 'invalid json: unknown field "zzz"'),
]  # fmt: skip


def test_what_cannot_be_started_is_refused_and_nothing_is_made(control: Control) -> None:
    server = control.serve()
    for fields, status, text in REFUSED:
        reply = server.send("POST", "/api/v1/tasks", json={**wish(), **fields})
        assert reply.status == status, (fields, reply.text)
        assert text in reply.error[1], (fields, reply.text)
    assert [path.name for path in control.root.runs.glob("*")] == []


def test_a_pure_monitor_starts_nothing(control: Control) -> None:
    server = control.serve("--disable-task-start")
    os.makedirs(control.task().path)
    Path(control.task().file("DONE")).touch()

    refused = ("FORBIDDEN", "task start is disabled on this server")
    assert start(server).error == refused
    resume = "/api/projects/p/tasks/t/resume"
    assert server.send("POST", f"{resume}?start=1").error == refused
    assert server.send("POST", resume).json["resumed"] is True


# -- dependencies, resuming, cancelling


def test_dependencies_are_kept_replaced_and_may_make_no_circle(control: Control) -> None:
    control.root.agent(FINISH)
    server = control.serve()

    first = start(server, "a", depends_on=["b, c", "b"])
    assert first.json["depends_on"] == ["b", "c"]
    circle = start(server, "b", depends_on=["a"])
    assert circle.status == 409
    assert circle.json["error"]["details"] == {"task_id": "b"}
    assert not (control.root.runs / "p" / "b").exists()
    assert server.send("DELETE", "/api/v1/tasks/a").json == {"stopped_runs": 0}
    control.await_settled("a")
    resume = "/api/projects/p/tasks/a/resume"
    wait_until(lambda: server.send("POST", resume).status == 200, what="the end of the stop")

    freed = start(server, "a", depends_on=[])

    assert "depends_on" not in freed.json
    assert control.await_settled("a")["state"] == "done"


def test_a_done_task_is_reopened_and_may_be_started_with_that(control: Control) -> None:
    control.root.agent(f'cat "$JRUN_RUN_FOLDER/prompt.md" >>"$JRUN_TASK_FOLDER/seen"; {FINISH}')
    server = control.serve()
    start(server)
    control.await_settled()
    path = "/api/projects/p/tasks/t/resume"

    assert start(server).error == ("CONFLICT", "task is done; resume it first")
    reply = server.send("POST", f"{path}?start=1")

    assert reply.status == 200, reply.text
    assert reply.json["status"] == "started"
    wait_until(lambda: len(control.root.task_runs()) == 2, what="a second run")
    assert control.await_settled()["state"] == "done"
    assert control.root.info(reply.json["run_id"])["status"] == "completed"
    assert "Earlier attempts" in (control.root.folder / "seen").read_text()
    assert len(list(control.root.folder.glob("DONE.*"))) == 1
    assert server.send("POST", path).json == {
        "project_id": "p", "task_id": "t", "resumed": True,
    }  # fmt: skip
    assert server.send("POST", path).status == 400
    assert server.send("POST", "/api/projects/p/tasks/none/resume").status == 404


def test_what_is_being_stopped_is_not_begun_anew(control: Control) -> None:
    gate = control.root.gate()
    control.root.agent(
        f"trap '' TERM; echo $$ >\"$JRUN_TASK_FOLDER/pid\"; while :; do read -r _ <'{gate.path}'; done"
    )
    server = control.serve(env={"CONDUCTOR_STOP_GRACE": "2"})
    start(server)
    control.root.pids("pid", 1)

    assert server.send("DELETE", "/api/v1/tasks/t").status == 202

    refused = ("CONFLICT", "task is still being stopped; try again")
    assert start(server).error == refused
    assert server.send("POST", "/api/projects/p/tasks/t/resume?start=1").error == refused
    assert control.await_settled()["state"] == "stopped"
    control.assert_nothing_left()


def test_what_is_resumed_at_its_first_start_is_told_so(control: Control) -> None:
    control.root.agent(f'cp "$JRUN_RUN_FOLDER/prompt.md" "$JRUN_TASK_FOLDER/seen"; {FINISH}')
    server = control.serve()

    assert start(server, attach_mode="resume", prompt="Go on.\n").status == 201

    control.await_settled()
    said = (control.root.folder / "seen").read_text()
    assert said.endswith("Go on.\n")
    assert "Earlier attempts have begun this work" in said


def test_a_cancelled_task_is_done_and_nothing_of_it_lives(control: Control) -> None:
    gate = control.root.gate()
    control.root.agent(f"echo $$ >\"$JRUN_TASK_FOLDER/pid\"; read -r _ <'{gate.path}'")
    server = control.serve()
    start(server)
    [agent] = control.root.pids("pid", 1)

    reply = server.send("DELETE", "/api/v1/tasks/t?project_id=p")

    assert (reply.status, reply.json) == (202, {"stopped_runs": 1})
    control.await_settled()
    assert (control.root.folder / "DONE").is_file()
    wait_until(lambda: not is_alive(agent), what="the end of the agent")
    assert server.send("DELETE", "/api/v1/tasks/none").status == 404
    control.assert_nothing_left()


def test_a_start_that_was_made_is_not_made_again_under_its_id(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f"{COUNT} [ $n -lt 2 ] || {FINISH}")
    run_id = "20260101-0000000000-4711-1"

    assert tasks_root.loop("--run-id", run_id).returncode == 0

    assert tasks_root.tries[0]["run"] == run_id
    assert len(tasks_root.tries) == 2, "the id is that of the first attempt alone"
    again = tasks_root.loop("--run-id", run_id)
    assert again.returncode == 1
    assert f"the run {run_id} has begun already" in again.stderr
    for bad in ("../x", "run_20260101-000000-1", "x"):
        assert tasks_root.loop("--run-id", bad).returncode == 2, bad


def test_who_stops_a_task_does_not_take_the_server_for_its_loop(tasks_root: TaskRoot) -> None:
    tasks_root.agent(FINISH)
    tasks_root.loop()
    record = loop_record.LoopRecord(tasks_root.task)
    record.lock(is_signed=False)
    try:
        assert loop_record.is_held(tasks_root.task)
        assert loop_record.holder(tasks_root.task) is None
    finally:
        record.close()


# -- the queue


def test_a_queue_goes_on_after_its_server_was_killed_and_starts_each_once(
    control: Control,
) -> None:
    gate = control.root.gate()
    control.root.agent(
        f"echo \"$JRUN_TASK_ID\" >>'{control.root.work}/begun'; read -r _ <'{gate.path}'; {FINISH}"
    )
    begun = control.root.work / "begun"
    server = control.serve("--max-root-tasks", "1")

    replies = [start(server, name).json for name in ("a", "b", "c")]

    assert [reply["status"] for reply in replies] == ["started", "queued", "queued"]
    assert [reply.get("queue_position") for reply in replies] == [None, 1, 2]
    assert task_page(server, "c")["queue_position"] == 2
    assert task_page(server, "c")["status"] == "queued"
    assert start(server, "c").error == ("CONFLICT", "task is already queued")
    assert start(server, "d", config={"A": "1"}).status == 409, "its values are kept in no file"
    wait_until(begun.exists, what="the first agent")
    server.kill()
    gate.open()
    control.await_settled("a")
    assert not loop_record.is_held(control.task("b"))

    control.serve("--max-root-tasks", "1")

    wait_until(lambda: begun.read_text().split() == ["a", "b"], what="the second agent")
    assert [entry["task"] for entry in control.queue() if entry["state"] == "queued"] == ["c"]
    gate.open()
    wait_until(lambda: begun.read_text().split() == ["a", "b", "c"], what="the third agent")
    gate.open()
    for name, reply in zip("abc", replies, strict=True):
        assert control.await_settled(name)["state"] == "done"
        names = os.listdir(control.task(name).runs_dir)
        assert names == [reply["run_id"]]
    wait_until(lambda: control.queue() == [], what="an empty queue")


@pytest.mark.parametrize("point", ["queue-starting", "queue-started"])
def test_a_server_killed_while_it_starts_a_task_starts_it_once(
    control: Control, point: str
) -> None:
    control.root.agent(f'echo "$JRUN_ID" >>"$JRUN_TASK_FOLDER/begun"; {FINISH}')
    fault = {
        "CONDUCTOR_FAULT": f"kill:{point}",
        "CONDUCTOR_FAULT_ONCE": str(control.root.path / "fault"),
    }
    server = control.serve("--max-root-tasks", "1", env=fault)

    with pytest.raises(OSError):  # noqa: PT011 - however the connection breaks
        start(server)
    server.process.wait(30)
    [entry] = control.queue()
    assert entry["state"] == "starting"
    control.serve("--max-root-tasks", "1", env=fault)

    assert control.await_settled()["state"] == "done"
    assert (control.root.folder / "begun").read_text().split() == [entry["run_id"]]
    wait_until(lambda: control.queue() == [], what="an empty queue")
    assert control.root.messages("ERROR") == []


def test_a_task_killed_with_its_server_is_not_started_without_its_config(
    control: Control,
) -> None:
    control.root.agent(FINISH)
    fault = {"CONDUCTOR_FAULT": "kill:queue-starting"}
    server = control.serve("--max-root-tasks", "1", env=fault)
    with pytest.raises(OSError):  # noqa: PT011 - however the connection breaks
        start(server, config={"MY_TOKEN": SECRET})
    server.process.wait(30)

    control.serve("--max-root-tasks", "1")

    wait_until(lambda: control.queue() == [], what="an empty queue")
    [body] = control.root.bodies("ERROR")
    assert "its `config` went with the server" in body
    assert control.root.task_runs() == []


def test_a_task_that_waits_for_another_takes_no_place(control: Control) -> None:
    gate = control.root.gate()
    control.root.agent(
        f"echo \"$JRUN_TASK_ID\" >>'{control.root.work}/begun'; read -r _ <'{gate.path}'; {FINISH}"
    )
    begun = control.root.work / "begun"
    server = control.serve("--max-root-tasks", "1")

    waiting = start(server, "late", depends_on=["early"])
    early = start(server, "early")

    assert (waiting.json["status"], early.json["status"]) == ("queued", "started")
    wait_until(begun.exists, what="the one that waits for nothing")
    gate.open()
    wait_until(lambda: begun.read_text().split() == ["early", "late"], what="both")
    gate.open()
    control.await_settled("late")


def test_a_queued_task_that_is_cancelled_is_never_started(control: Control) -> None:
    gate = control.root.gate()
    control.root.agent(f"read -r _ <'{gate.path}'; {FINISH}")
    server = control.serve("--max-root-tasks", "1")
    start(server, "a")
    start(server, "b")

    assert server.send("DELETE", "/api/v1/tasks/b").status == 202

    assert "queue_position" not in task_page(server, "b")
    gate.open()
    control.await_settled("a")
    wait_until(lambda: control.queue() == [], what="an empty queue")
    assert not (control.root.runs / "p" / "b" / "runs").exists()


def test_a_queued_task_outlasts_a_full_disk(control: Control) -> None:
    control.root.agent(FINISH)
    server = control.serve("--max-root-tasks", "1")
    start(server, "b", depends_on=["a"])
    server.kill()
    os.makedirs(control.task("a").path)
    Path(control.task("a").file("DONE")).touch()

    full = control.serve("--max-root-tasks", "1", env={"CONDUCTOR_MIN_FREE_MB": "999999999"})
    wait_until(lambda: control.queue()[0].get("tries", 0) > 1, what="a second try")
    assert task_page(full, "b")["queue_position"] == 1
    full.kill()
    control.serve("--max-root-tasks", "1")

    assert control.await_settled("b")["state"] == "done"
    warnings = [m.body for m in bus.read(control.task("b").bus) if "waits on" in m.body]
    assert len(warnings) == 1
    assert "disk is short" in warnings[0]


def finished(control: Control) -> None:
    """Make the task one that a loop has done."""
    os.makedirs(control.task().path)
    Path(control.task().file("DONE")).write_text("all of it")
    Path(control.task().file("TASK.md")).write_text("Do it.\n")
    Path(control.task().file("TASK-LOOP.yaml")).write_text(
        "version: 1\nstate: done\nagent: fake\nattempts: []\n"
    )


def test_a_done_task_that_cannot_be_started_again_stays_done(control: Control) -> None:
    control.root.agent(FINISH)
    finished(control)
    server = control.serve(env={"CONDUCTOR_MIN_FREE_MB": "999999999"})

    reply = server.send("POST", "/api/projects/p/tasks/t/resume?start=1")

    assert reply.status == 503, reply.text
    assert "disk is short" in reply.error[1]
    assert (control.root.folder / "DONE").read_text() == "all of it"
    assert list(control.root.folder.glob("DONE.*")) == []


def test_a_done_task_that_waits_to_be_started_again_is_done_no_more(control: Control) -> None:
    gate = control.root.gate()
    control.root.agent(f"[ \"$JRUN_TASK_ID\" = t ] || read -r _ <'{gate.path}'; {FINISH}")
    finished(control)
    server = control.serve("--max-root-tasks", "1")
    start(server, "other")

    reply = server.send("POST", "/api/projects/p/tasks/t/resume?start=1")

    assert (reply.status, reply.json["status"]) == (200, "queued"), reply.text
    assert not (control.root.folder / "DONE").exists()
    again = server.send("POST", "/api/projects/p/tasks/t/resume?start=1")
    assert again.error == ("CONFLICT", "task is already queued")
    gate.open()
    control.await_settled("other")
    wait_until((control.root.folder / "DONE").exists, what="the end of the task")
    assert control.await_settled()["state"] == "done"
    assert os.listdir(control.task().runs_dir) == [reply.json["run_id"]]
    assert len(list(control.root.folder.glob("DONE.*"))) == 1


def test_a_start_that_is_refused_teaches_the_server_no_secrets(control: Control) -> None:
    control.root.agent(FINISH)
    server = control.serve()
    os.makedirs(control.task("m").path)
    bus.append(control.task("m").bus, body=f"it is {SECRET} now", project="p", task="m", run="")
    page = "/api/projects/p/tasks/m/messages"

    body = {"agent_type": "shell", "prompt": "no commands in here"}
    assert start(server, config={"MY_TOKEN": SECRET}, **body).status == 400
    assert SECRET in server.get(page).text
    assert start(server, config={"MY_TOKEN": SECRET}).status == 201
    assert SECRET not in server.get(page).text
    control.await_settled()


# -- removing


def test_what_lives_is_not_removed_and_a_page_removes_nothing(control: Control) -> None:
    gate = control.root.gate()
    control.root.agent(f"echo $$ >\"$JRUN_TASK_FOLDER/pid\"; read -r _ <'{gate.path}'; {FINISH}")
    server = control.serve()
    run_id = start(server).json["run_id"]
    control.root.pids("pid", 1)
    run = f"/api/projects/p/tasks/t/runs/{run_id}"

    for path in (run, "/api/projects/p/tasks/t", "/api/projects/p"):
        assert server.send("DELETE", path).status == 409, path
        page = server.send("DELETE", path, X_Conductor_Client="web-ui")
        assert page.status == 403, path
        assert page.error[1].endswith("deletion is disabled in the web UI")
    missing = server.send("DELETE", run[:-1] + "x", X_Conductor_Client="web-ui")
    assert missing.error == ("NOT_FOUND", "run not found")
    gc = server.send("POST", "/api/projects/p/gc?older_than=0s")
    assert gc.json == {"deleted_runs": 0, "freed_bytes": 0, "dry_run": False}
    gate.open()
    control.await_settled()

    assert server.send("DELETE", run).status == 204
    assert server.get(run).status == 404
    assert (control.root.runs / "removed-runs.log").read_text().split()[1] == run_id
    assert server.send("DELETE", "/api/projects/p/tasks/t").status == 204
    assert server.get("/api/projects/p/tasks/t").status == 404
    assert not (control.root.runs / ".trash").exists()


def test_a_project_goes_with_all_that_runs_of_it_when_that_is_forced(control: Control) -> None:
    gate = control.root.gate()
    control.root.agent(f"echo $$ >\"$JRUN_TASK_FOLDER/pid\"; read -r _ <'{gate.path}'")
    server = control.serve()
    start(server)
    [agent] = control.root.pids("pid", 1)
    outside = control.root.work / "kept"
    outside.mkdir()
    (outside / "file").write_text("kept")
    (control.root.runs / "p" / "link").symlink_to(outside)

    reply = server.send("DELETE", "/api/projects/p?force=true")

    assert reply.status == 200, reply.text
    assert reply.json["deleted_tasks"] == 1
    assert reply.json["freed_bytes"] > 0
    assert not is_alive(agent)
    assert not (control.root.runs / "p").exists()
    assert (outside / "file").read_text() == "kept"
    assert server.send("DELETE", "/api/projects/p").status == 404
    control.assert_nothing_left()


def test_a_symbolic_link_is_neither_removed_through_nor_written_through(
    control: Control,
) -> None:
    outside = control.root.work / "outside"
    (outside / "t" / "runs").mkdir(parents=True)
    (outside / "t" / "DONE").touch()
    control.root.runs.mkdir()
    (control.root.runs / "linked").symlink_to(outside)
    server = control.serve()
    before = sorted(outside.rglob("*"))

    task = "/api/projects/linked/tasks/t"
    for method, path, body in (
        ("DELETE", "/api/projects/linked", None),
        ("DELETE", task, None),
        ("POST", f"{task}/resume", None),
        ("POST", f"{task}/messages", {"body": "x"}),
        ("POST", "/api/projects/linked/messages", {"body": "x"}),
        ("POST", "/api/v1/tasks", wish(project_id="linked", prompt="x")),
    ):
        reply = server.send(method, path, json=body)
        assert reply.status == 403, (method, path, reply.text)
    assert sorted(outside.rglob("*")) == before


def test_old_runs_go_and_what_is_needed_stays(control: Control) -> None:
    control.root.agent(FINISH)
    server = control.serve()
    start(server)
    control.await_settled()
    gc = "/api/projects/p/gc"

    for bad in ("1d", "x", "-1h", "h", "1", "99999999h"):
        assert server.send("POST", f"{gc}?older_than={bad}").status == 400, bad
    assert server.send("POST", gc).json["deleted_runs"] == 0, "they are not a week old"
    would = server.send("POST", f"{gc}?older_than=0h0m0.0s&dry_run=true").json
    assert (would["deleted_runs"], would["dry_run"], would["freed_bytes"] > 0) == (1, True, True)
    assert len(control.root.task_runs()) == 1
    assert server.send("POST", f"{gc}?older_than=0").json == {**would, "dry_run": False}
    assert control.root.task_runs() == []
    assert server.send("POST", "/api/projects/none/gc").status == 404


# -- posts, projects, threads, audit


def test_a_posted_message_stands_on_the_bus(control: Control) -> None:
    server = control.serve()

    first = server.send("POST", "/api/projects/p/messages", json={"body": "hello\n---\nyou"})
    second = server.send(
        "POST", "/api/projects/p/tasks/t/messages", json={"type": "QUESTION", "body": "?"}
    )
    v1 = {"project_id": "p", "task_id": "t", "run_id": "r1", "body": f"token={SECRET}"}
    third = server.send("POST", "/api/v1/messages", json=v1)

    assert [reply.status for reply in (first, second, third)] == [201, 201, 201]
    [message] = bus.read(control.task().project_bus)
    assert (message.msg_id, message.ts) == (first.json["msg_id"], first.json["timestamp"])
    assert (message.type, message.body, message.task_id) == ("USER", "hello\n---\nyou", "")
    found = list(bus.read(control.task().bus))
    assert [(m.type, m.run_id) for m in found] == [("QUESTION", ""), ("USER", "r1")]
    assert SECRET not in (control.root.folder / "TASK-MESSAGE-BUS.md").read_text()
    for body in ({"body": " "}, {}, {"body": "x", "run_id": "r"}, {"body": "x", "type": "a\nb"}):
        assert server.send("POST", "/api/projects/p/messages", json=body).status == 400, body
    assert server.send("POST", "/api/projects/_audit/messages", json={"body": "x"}).status == 400
    assert server.send("POST", "/api/v1/messages", json={"body": "x"}).error[1] == (
        "project_id is required"
    )
    assert server.send("POST", "/api/v1/messages", body=b'{"project_id":"p"}').status == 415
    lines = control.audit()
    assert [line["message_id"] for line in lines] == [
        reply.json["msg_id"] for reply in (first, second, third)
    ]
    assert SECRET not in json.dumps(lines)


def test_a_message_answers_others(control: Control) -> None:
    server = control.serve()
    task = "/api/projects/p/tasks/t/messages"
    asked = server.send("POST", task, json={"body": "?"}).json["msg_id"]
    for address, place in ((task, {}), ("/api/v1/messages", {"project_id": "p", "task_id": "t"})):
        wish = {**place, "body": "!", "parents": [asked, asked, " MSG-elsewhere "]}
        assert server.send("POST", address, json=wish).status == 201
    answers = list(bus.read(control.task().bus))[1:]
    assert [m.parents for m in answers] == [[{"msg_id": asked}, {"msg_id": "MSG-elsewhere"}]] * 2
    for parents in ("MSG-1", [1], [""], [" "], ["a\nb"], ["x" * 201], [f"{n}" for n in range(21)]):
        reply = server.send("POST", task, json={"body": "!", "parents": parents})
        assert reply.status == 400, parents
        assert "parents" in reply.error[1]
    assert len(list(bus.read(control.task().bus))) == 3


def test_a_project_is_made_whole_or_refused(control: Control) -> None:
    server = control.serve()
    wanted = {"project_id": "new", "project_root": str(control.root.work)}

    made = server.send("POST", "/api/projects", json=wanted)

    assert made.status == 201, made.text
    assert made.json == {
        "id": "new",
        "last_activity": "0001-01-01T00:00:00Z",
        "task_count": 0,
        "project_root": str(control.root.work),
    }
    assert server.get("/api/projects/new").json == made.json
    again = server.send("POST", "/api/projects", json=wanted)
    assert (again.status, again.json["error"]["details"]) == (409, {"project_id": "new"})
    for fields in (
        {"project_root": "work"},
        {"project_root": "/no/such/folder"},
        {"project_root": str(control.root.runs)},
        {"project_root": ""},
        {"project_id": "..", "project_root": "/usr"},
        {"project_id": ".conductor", "project_root": "/usr"},
    ):
        reply = server.send("POST", "/api/projects", json={**wanted, "project_id": "x", **fields})
        assert reply.status == 400, (fields, reply.text)


def question(control: Control, type_: str = "QUESTION", run: str = "r1") -> dict[str, str]:
    """A message on the bus of the task `asks`, as a thread_parent."""
    task = control.task("asks")
    os.makedirs(task.path, exist_ok=True)
    msg_id = bus.append(task.bus, type_=type_, body="?", project="p", task="asks", run=run)
    return {"project_id": "p", "task_id": "asks", "run_id": run, "message_id": msg_id}


def test_a_task_that_answers_a_message_is_linked_with_it(control: Control) -> None:
    control.root.agent(FINISH)
    server = control.serve()
    parent = question(control)

    reply = start(server, thread_parent=parent, prompt="The answer.")

    assert reply.status == 201, reply.text
    run_id = reply.json["run_id"]
    control.await_settled()
    assert control.root.info(run_id)["parent_run_id"] == "r1"
    page = task_page(server)
    assert page["thread_parent"] == {**parent, "message_type": "QUESTION"}
    [child] = [m for m in bus.read(control.task().bus) if m.type == "USER_REQUEST"]
    [source] = [m for m in bus.read(control.task("asks").bus) if m.type == "USER_REQUEST"]
    link = {f"thread_parent_{key}": value for key, value in parent.items()}
    link.update(thread_parent_message_type="QUESTION", thread_child_project_id="p")
    link.update(thread_child_task_id="t", thread_child_run_id=run_id)
    assert child.body == "The answer.\n"
    assert child.meta == {**link, "thread_direction": "child_task"}
    assert source.meta == {
        **link,
        "thread_direction": "source_task",
        "thread_child_message_id": child.msg_id,
        "thread_source_message_id": parent["message_id"],
    }
    ids = {key: parent[key] for key in ("project_id", "task_id", "run_id")}
    for message in (child, source):
        assert message.parents == [
            {"msg_id": parent["message_id"], "kind": "thread_answer", "meta": ids}
        ]


def test_a_thread_that_does_not_fit_its_message_is_refused(control: Control) -> None:
    server = control.serve()
    parent = question(control)

    for status, fields in (
        (404, {"task_id": "none"}),
        (404, {"message_id": "MSG-none"}),
        (400, {"run_id": "r2"}),
        (400, {"message_id": ""}),
        (400, {"more": "x"}),
        (400, {"message_id": question(control, run="")["message_id"]}),
    ):
        reply = start(server, thread_parent={**parent, **fields})
        assert reply.status == status, (fields, reply.text)
    told = start(server, thread_parent=question(control, "INFO"))
    assert told.status == 409
    assert told.json["error"]["details"] == {"allowed_parent_types": "QUESTION,FACT"}
    odd = start(server, thread_parent=parent, thread_message_type="ANSWER")
    assert odd.status == 400
    assert not control.root.folder.exists()


def test_a_storage_that_the_server_wrote_is_sound(control: Control) -> None:
    control.root.agent(FINISH)
    server = control.serve("--max-root-tasks", "2")
    start(server)
    server.send("POST", "/api/projects", json={"project_id": "n", "project_root": "/usr"})
    server.send("POST", "/api/projects/p/messages", json={"body": "x"})
    control.await_settled()

    checked = run_script(
        "bin/check-storage", str(control.root.path), env=control.root.environment()
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    for path in control.root.runs.rglob("*"):
        if path.is_file() and {".conductor", "_audit"} & set(path.parts):
            assert path.stat().st_mode & 0o777 == 0o600, path
