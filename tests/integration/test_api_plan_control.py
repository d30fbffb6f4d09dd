"""Plans that the server starts and stops, and runs that are done again: with real processes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib import files, procs, state
from tests.agent_runs import is_alive
from tests.api_server import SECONDS, Reply, Server
from tests.api_servers import Servers
from tests.helpers import run_script, wait_until
from tests.plan_root import PlanRoot, Record, sh
from tests.recordings import answering, record
from tests.task_root import FINISH, TaskRoot

RAN = 'echo "$JRUN_TASK_ID" >>ran'
WAIT = "while [ ! -e go ]; do sleep 0.02; done"
UNTIL_MENDED = f"{RAN}; [ -e mended ]"


class Control(Servers[PlanRoot]):
    """Servers on a root with a plan, and what is asked of them."""

    @property
    def folder(self) -> str:
        return str(self.root.runs / "p")

    @property
    def is_run(self) -> bool:
        return state.is_run(self.folder)

    def header(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.root.state_file.read_text())
        return found

    def change_header(self, **keys: object) -> None:
        """Have the state, which is at rest, say something else."""
        kept = state.PlanState(str(self.root.runs), "p")
        kept.lock()
        kept.load()
        kept.header.update(keys)
        kept.finish()
        kept.close()

    def await_end(self) -> None:
        wait_until(lambda: not self.is_run, what="the end of the plan")

    def await_lines(self, *names: str) -> None:
        wait_until(lambda: self.root.lines("ran") == list(names), what=f"{names} in ran")


@pytest.fixture
def control(root: PlanRoot) -> Iterator[Control]:
    made = Control(root)
    yield made
    made.close()


@pytest.fixture
def looped(tasks_root: TaskRoot) -> Iterator[Control]:
    made = Control(tasks_root)
    yield made
    made.close()


def start(server: Server, **body: object) -> Reply:
    return server.send("POST", "/api/v1/plans/p/start", json=body)


def stop(server: Server, **body: object) -> Reply:
    return server.send("POST", "/api/v1/plans/p/stop", json=body)


def retry(server: Server, run_id: str) -> Reply:
    return server.send("POST", f"/api/v1/runs/{run_id}/retry", json={})


def assert_refused(reply: Reply, status: int, *parts: str) -> None:
    assert reply.status == status, reply.text
    for part in parts:
        assert part in reply.error[1]


# -- starting


def test_a_plan_is_started_again_in_the_manner_of_its_last_start(control: Control) -> None:
    root = control.root
    config = root.path / "agents.yaml"
    config.write_text(json.dumps({"agents": {"mine": {"type": "shell"}}}))
    agents = {"agent": "claude"}  # which is not there
    root.plan(sh("a", UNTIL_MENDED) | agents, sh("b", RAN) | agents, sh("c", RAN, depends_on=["a"]))
    manner = ["--agent", "mine", "--keep-going", "--max-parallel", "1", "--config", str(config)]
    nowhere = {"PATH": "/usr/bin:/bin"}
    assert root.run(*manner, env=nowhere).returncode == 1
    root.work.joinpath("mended").touch()
    server = control.serve(env=nowhere)

    reply = start(server)

    assert reply.status == 202, reply.text
    words = [str(root.plan_file), "--config", str(config), *manner[:2], *manner[3:5], manner[2]]
    said = shlex.split(reply.json["command"])
    assert said[:2] == ["./run-all-tasks.py", str(root.plan_file)]
    assert sorted(said[1:]) == sorted([*words, "--root", str(root.path)])
    control.await_end()
    assert root.states() == {"a": "done", "b": "done", "c": "done"}
    assert root.lines("ran") == ["a", "b", "a", "c"]
    assert [attempt["agent"] for attempt in root.attempts("a")] == ["mine", "mine"]
    header = control.header()
    assert (header["max_parallel"], header["keep_going"], header["exit_code"]) == (1, True, 0)
    assert header["options"] == {"agent": "mine", "max_parallel": 1, "keep_going": True}
    [entry] = control.audit()
    assert (entry["endpoint"], entry["project_id"]) == (
        "POST /api/v1/plans/{project}/start",
        "p",
    )
    control.assert_nothing_left()


def test_a_plan_that_was_started_survives_the_server_and_has_a_session_of_its_own(
    control: Control,
) -> None:
    root = control.root
    root.plan(sh("a", RAN), sh("b", f"{RAN}; {WAIT}", depends_on=["a"]))
    assert root.run("--only", "a").returncode == 0
    server = control.serve()

    pid = start(server).json["pid"]

    assert os.getsid(pid) == pid != os.getsid(server.process.pid)
    holder = state.holder(control.folder)
    assert holder is not None
    assert holder.pid == pid
    control.await_lines("a", "b")
    server.end(signal.SIGKILL)
    (root.work / "go").touch()
    control.await_end()
    assert root.states() == {"a": "done", "b": "done"}
    assert control.header()["config"] == "", "that of the server is not the plan's"
    control.assert_nothing_left()


def test_of_two_starts_at_once_one_wins_and_the_other_is_refused(control: Control) -> None:
    root = control.root
    root.plan(sh("a", f"{RAN}; {WAIT}"), sh("b", f"{RAN}; exit 1", critical=False))
    (root.work / "go").touch()
    assert root.run().returncode == 1
    (root.work / "go").unlink()
    (root.work / "ran").unlink()
    control.change_header(exit_code=1)
    root.plan(sh("a", f"{RAN}; {WAIT}"), sh("b", f"{RAN}; {WAIT}", critical=False))
    servers = [control.serve(), control.serve()]
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda server=one: replies.append(start(server)))
        for one in servers * 2
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(reply.status for reply in replies) == [202, 409, 409, 409]
    for reply in replies:
        assert (
            reply.status == 202
            or "already run" in reply.error[1]
            or "run already" in reply.error[1]
        )
    control.await_lines("b")
    assert len([pid for pid, line in root.processes().items() if "run-all-tasks" in line]) == 1
    (root.work / "go").touch()
    control.await_end()
    assert root.lines("ran") == ["b"]
    control.assert_nothing_left()


def test_a_plan_that_is_run_in_a_terminal_is_not_started_beside_it(control: Control) -> None:
    control.root.plan(sh("a", f"{RAN}; {WAIT}"))
    process = control.root.start()
    control.await_lines("a")

    assert_refused(start(control.serve()), 409, "the plan is run already")

    (control.root.work / "go").touch()
    assert process.wait(SECONDS) == 0


def test_only_what_failed_or_was_chosen_is_done(control: Control) -> None:
    root = control.root
    root.plan(*[sh(name, UNTIL_MENDED, critical=False) for name in "abc"])
    assert root.run().returncode == 1
    (root.work / "ran").unlink()
    (root.work / "mended").touch()
    server = control.serve()

    assert start(server, only=["b"]).status == 202
    control.await_end()
    assert root.lines("ran") == ["b"]
    assert start(server, retry_failed=True).status == 202
    control.await_end()
    assert sorted(root.lines("ran")) == ["a", "b", "c"]

    assert_refused(start(server, retry_failed=True), 409, "nothing has failed")
    assert_refused(start(server, only=["a", "nobody"]), 400, "the plan has no task nobody")
    assert_refused(start(server, only=["a,b"]), 400)
    assert_refused(start(server, only=[1]), 400)
    assert_refused(start(server, only=["a"] * 1001), 400, "more than 1000")
    assert_refused(start(server, only=["a"], retry_failed=True), 400)
    assert_refused(server.send("POST", "/api/v1/plans/q/start", json={}), 404, "plan not found")


def test_a_start_that_was_cut_short_goes_on_with_what_it_was_about(control: Control) -> None:
    root = control.root
    root.plan(*[sh(name, f"{RAN}; {WAIT}") for name in "ab"], max_parallel=1)
    process = root.start("--only", "b")
    control.await_lines("b")
    process.kill()
    process.wait(SECONDS)
    (root.work / "go").touch()
    server = control.serve()

    assert start(server).status == 202
    control.await_end()
    assert (root.lines("ran"), control.header()["exit_code"]) == (["b"], 0)
    assert start(server).status == 202
    control.await_end()
    assert root.lines("ran") == ["b", "a"]


# -- what cannot be started


def test_a_plan_file_that_is_gone_or_wrong_or_of_another_project_is_refused(
    control: Control,
) -> None:
    root = control.root
    root.plan(sh("a", RAN))
    assert root.run().returncode == 0
    server = control.serve()
    good = root.plan_file.read_text()

    root.plan_file.unlink()
    assert_refused(start(server), 409, "the plan file is gone", str(root.plan_file))
    root.plan_file.mkdir()
    assert_refused(start(server), 409, "the plan file is gone")
    root.plan_file.rmdir()
    os.mkfifo(root.plan_file)
    assert_refused(start(server), 409, "the plan file is gone")
    root.plan_file.unlink()
    root.plan_file.write_text("project: p\nstages: 7\nmore: 1\n")
    assert_refused(start(server), 409, f"{root.plan_file}:", "and 1 more")
    root.plan_file.write_text(good.replace('"project": "p"', '"project": "other"'))
    assert_refused(start(server), 409, "that of another project now, other")
    assert root.lines("ran") == ["a"]
    assert not control.is_run


def test_a_plan_that_has_changed_is_gone_on_with_and_that_is_said(control: Control) -> None:
    root = control.root
    root.plan(sh("a", RAN), sh("old", RAN, depends_on=["a"]))
    assert root.run().returncode == 0
    server = control.serve()
    assert "note" not in start(server).json
    control.await_end()

    root.plan(sh("a", f"{RAN}; true"), sh("new", RAN))
    reply = start(server, only=["new"])

    assert reply.status == 202
    assert "the plan file has changed since the last start" in reply.json["note"]
    control.await_end()
    assert root.states() == {"a": "done", "new": "done"}
    assert root.lines("ran") == ["a", "old", "new"]


def test_why_a_plan_cannot_begin_is_the_answer(control: Control) -> None:
    root = control.root
    root.plan(sh("a", UNTIL_MENDED), sh("b", "true", depends_on=["a"]))
    assert root.run().returncode == 1
    server = control.serve(env={"PATH": "/usr/bin:/bin"})

    assert_refused(start(server, only=["b"]), 409, "b needs a, which is not done; choose it too")
    root.plan(sh("a", "true") | {"agent": "claude"})
    reply = start(server)
    assert_refused(reply, 409, "claude", "to install claude", "--agent offline")
    assert "run-all-tasks.py:" not in reply.error[1]
    assert not (root.runs / "_audit").exists()


def test_a_state_that_does_not_say_how_it_was_started_is_refused_with_a_command(
    control: Control,
) -> None:
    control.root.plan(sh("a", RAN))
    assert control.root.run().returncode == 0
    control.change_header(options=None)

    reply = start(control.serve())

    assert_refused(reply, 409, "how the plan was started is not noted in its state", "terminal")
    assert reply.json["error"]["details"]["command"] == shlex.join(
        ["./run-all-tasks.py", str(control.root.plan_file), "--root", str(control.root.path)]
    )


def test_what_a_state_says_is_never_taken_for_an_option(control: Control) -> None:
    root = control.root
    root.plan(sh("a", RAN))
    assert root.run().returncode == 0
    server = control.serve()

    control.change_header(options={"agent": "--fresh", "evil": True, "max_parallel": "--fresh"})
    assert_refused(start(server), 409, "--max-parallel: '--fresh' is not a whole number")
    control.change_header(options={"agent": "--fresh"})
    assert_refused(start(server), 409, "--agent: unknown agent: --fresh")
    control.change_header(options={}, plan="--init")
    assert_refused(start(server), 409, "the plan file is gone: --init")
    control.change_header(plan="/a\0b")
    assert_refused(start(server), 409, "the plan file is gone")
    assert root.lines("ran") == ["a"]
    assert not list(root.runs.glob("p/PLAN-STATE.2*"))


def test_a_state_that_lies_elsewhere_is_refused(control: Control) -> None:
    root = control.root
    root.plan(sh("a", RAN))
    assert root.run().returncode == 0
    elsewhere = root.path / "elsewhere"
    (root.runs / "p").rename(elsewhere)
    (root.runs / "p").symlink_to(elsewhere)
    server = control.serve()

    assert start(server).status == stop(server).status == 403


def test_a_monitor_stops_plans_and_starts_none(control: Control) -> None:
    root = control.root
    root.plan(sh("a", f"{RAN}; {WAIT}"))
    process = root.start()
    control.await_lines("a")
    server = control.serve("--disable-task-start")

    assert_refused(start(server), 403, "disabled")
    run_id = str(root.attempts("a")[0]["run"])
    assert_refused(retry(server, run_id), 403, "disabled")
    assert stop(server, now=True).status == 202
    assert process.wait(SECONDS) == 130


# -- prompts and recordings


def test_prompts_are_started_in_the_folder_that_they_were_started_in(control: Control) -> None:
    root = control.root
    folder = root.path / "p"
    folder.mkdir()
    (folder / "one.md").write_text(f"```sh\n{RAN}; [ -e mended ]\n```\n")
    words = root.command("--prompts", "*.md", "--agent", "shell")
    words.remove(str(root.plan_file))
    at_first = subprocess.run(words, env=root.environment(), cwd=folder, capture_output=True)
    assert at_first.returncode == 1, at_first.stderr
    (folder / "mended").touch()
    (folder / "two.md").write_text(f"```sh\n{RAN}\n```\n")
    server = control.serve()

    assert_refused(start(server, only=["two"]), 400)
    reply = start(server)

    assert reply.status == 202, reply.text
    assert reply.json["command"].startswith(f"cd {folder} && ")
    control.await_end()
    assert root.states() == {"one": "done", "two": "done"}
    assert sorted((folder / "ran").read_text().split()) == ["one", "one", "one", "two"]
    folder.rename(root.path / "q")
    reply = start(server)
    assert_refused(reply, 409, "the folder that the plan was started in is gone")
    assert "--prompts" in reply.json["error"]["details"]["command"]


def test_a_replayed_plan_is_replayed_again_and_no_agent_is_started(control: Control) -> None:
    root = control.root
    folder = root.path / "recorded"
    record(folder / "run_claude", stdout=answering("claude", "Done."))
    task: Record = {"id": "a", "agent": "claude", "prompt": "x", "verify": ["test -e mended"]}
    root.plan(task)
    nowhere = {"PATH": "/usr/bin:/bin"}
    done = root.run("--replay", folder, "--speed", "0", env=nowhere)
    assert done.returncode == 1, done.stderr
    (root.work / "mended").touch()

    reply = start(control.serve(env=nowhere))

    assert reply.status == 202, reply.text
    control.await_end()
    assert root.states() == {"a": "done"}
    assert root.record("a")["replay_of"] == root.record("a", 0)["replay_of"]


# -- stopping


def test_a_stop_waits_for_the_agents_however_often_it_is_asked_for(control: Control) -> None:
    root = control.root
    root.plan(sh("a", f"{RAN}; {WAIT}"), sh("b", RAN, depends_on=["a"]))
    process = root.start()
    control.await_lines("a")
    server = control.serve()

    replies = []
    for _ in range(3):
        replies.append(stop(server))
        wait_until(lambda: "nothing new starts" in root.log(), what="the answer to the first")
    assert [reply.status for reply in replies] == [202, 202, 202]
    assert replies[0].json == {
        "project_id": "p", "command": f"kill -USR1 {process.pid}", "pid": process.pid,
    }  # fmt: skip
    assert control.is_run
    (root.work / "go").touch()

    assert process.wait(SECONDS) == 130
    assert root.states() == {"a": "done", "b": "pending"}
    assert root.log().count("interrupted: nothing new starts") == 1
    assert_refused(stop(server), 409, "the plan is not run")
    assert_refused(server.send("POST", "/api/v1/plans/q/stop", json={}), 404, "plan not found")
    assert [entry["payload"] for entry in control.audit() if "payload" in entry] == []
    assert len(control.audit()) == 3
    control.assert_nothing_left()


@pytest.mark.parametrize("is_asked_before", [False, True])
def test_a_stop_at_once_ends_the_agents_within_their_grace(
    control: Control, is_asked_before: bool
) -> None:
    root = control.root
    tidy = f"trap 'echo tidies >>ran; {WAIT}; echo tidied >>ran; exit 0' TERM"
    root.plan(sh("a", f"{tidy}; {RAN}; {WAIT}"), sh("b", RAN, depends_on=["a"]))
    process = root.start()
    control.await_lines("a")
    server = control.serve()
    if is_asked_before:
        assert stop(server).status == 202

    reply = stop(server, now=True)

    assert reply.status == 202
    assert reply.json["command"] == f"kill -USR2 {process.pid}"
    control.await_lines("a", "tidies")
    assert stop(server, now=True).status == 202, "and that takes nothing of the grace away"
    (root.work / "go").touch()
    assert process.wait(SECONDS) == 130
    assert root.lines("ran") == ["a", "tidies", "tidied"]
    assert root.log().count("stopping 1 running") == 1
    assert root.states() == {"a": "pending", "b": "pending"}
    control.assert_nothing_left()


@pytest.mark.parametrize("portable", ["", "1"])
def test_a_detached_plan_and_one_that_was_suspended_are_stopped(
    control: Control, portable: str
) -> None:
    root = control.root
    root.plan(sh("a", f"{RAN}; {WAIT}"))
    env = {"CONDUCTOR_PORTABLE": portable}
    begun = json.loads(root.run("--detach", "--json", env=env).stdout)
    control.await_lines("a")
    os.kill(begun["pid"], signal.SIGSTOP)

    reply = stop(control.serve(env=env), now=True)

    assert reply.json["pid"] == begun["pid"]
    control.await_end()
    assert root.states() == {"a": "pending"}
    control.assert_nothing_left()


def test_a_stop_that_comes_while_a_plan_begins_is_not_lost(control: Control) -> None:
    root = control.root
    root.plan(sh("a", RAN))
    fault = {"CONDUCTOR_FAULT": "stop:state-replaced", "CONDUCTOR_FAULT_IN": "orchestrator"}
    process = root.start("--detach", env=fault)
    wait_until(lambda: is_stopped(process.pid), what="the moment before it goes on alone")

    assert stop(control.serve()).status == 202

    assert process.wait(SECONDS) == 0
    control.await_end()
    assert control.header()["exit_code"] == 130
    assert root.lines("ran") == []
    control.assert_nothing_left()


def is_stopped(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("line", ["{pid} 1\t{host}\t{namespace}", "{pid}", "", "x" * 5000])
def test_no_process_is_signalled_that_does_not_hold_the_plan(control: Control, line: str) -> None:
    root = control.root
    root.plan(sh("a", RAN))
    assert root.run().returncode == 0
    server = control.serve()
    with subprocess.Popen(["sleep", "600"], env=root.environment()) as innocent:
        here = procs.machine()
        text = line.format(pid=innocent.pid, host=here["host"], namespace=here["pid_namespace"])
        lock = files.open_lock(os.path.join(control.folder, state.LOCK_NAME))
        assert files.try_lock(lock)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{text}\n".encode(), 0)

        reply = stop(server, now=True)

        assert_refused(reply, 409, "it cannot be known which process runs the plan")
        assert is_alive(innocent.pid)
        os.close(lock)
        innocent.kill()


def test_a_pid_that_is_left_in_the_lock_of_a_plan_at_rest_is_not_signalled(
    control: Control,
) -> None:
    control.root.plan(sh("a", RAN))
    assert control.root.run().returncode == 0
    lock = Path(control.folder, state.LOCK_NAME)
    lock.write_text(procs.own_line())

    assert_refused(stop(control.serve(), now=True), 409, "the plan is not run")


# -- again


def test_a_run_of_a_plan_is_done_again_by_its_plan_alone(control: Control) -> None:
    root = control.root
    root.plan(*[sh(name, UNTIL_MENDED, critical=False) for name in "ab"], sh("c", RAN))
    assert root.run("--agent", "shell").returncode == 1
    (root.work / "ran").unlink()
    (root.work / "mended").touch()
    server = control.serve()

    reply = retry(server, str(root.attempts("a")[0]["run"]))

    assert reply.status == 202, reply.text
    assert (reply.json["project_id"], reply.json["task_id"]) == ("p", "a")
    assert "--only a" in reply.json["command"]
    control.await_end()
    assert root.states() == {"a": "done", "b": "failed", "c": "done"}
    assert root.lines("ran") == ["a"]
    assert len(root.attempts("a")) == 2
    assert_refused(retry(server, str(root.attempts("c")[0]["run"])), 409, "the task is done")
    [entry] = control.audit()
    assert (entry["project_id"], entry["task_id"]) == ("p", "a")
    control.assert_nothing_left()


def test_a_run_of_a_review_is_done_again_by_the_plan_of_that(control: Control) -> None:
    root = control.root
    review = {key: value for key, value in sh("a", "exit 1").items() if key != "agent"}
    judging = {"agents": ["shell"], "quorum": 1}
    root.plan({**review, "role": "judging"}, roles={"judging": judging})
    assert root.run().returncode == 1
    [attempt] = root.attempts("a")
    assert str(attempt["run"]).endswith("-a@shell")

    reply = retry(control.serve(), str(attempt["run"]))

    assert reply.status == 202, reply.text
    assert (reply.json["project_id"], reply.json["task_id"]) == ("p", "a")
    control.await_end()
    assert len(root.attempts("a")) == 2
    control.assert_nothing_left()


def test_a_run_is_not_done_again_while_it_or_its_plan_is_at_work(control: Control) -> None:
    root = control.root
    root.plan(sh("a", "exit 1", critical=False), sh("b", f"{RAN}; {WAIT}", depends_on=[]))
    process = root.start("--keep-going")
    control.await_lines("b")
    wait_until(lambda: "FAILED    a" in root.log(), what="the failure of a")
    server = control.serve()
    found = {run["task_id"]: run["run_id"] for run in server.get("/api/v1/runs").json["runs"]}

    assert_refused(retry(server, found["b"]), 409, "the run is still at work")
    assert_refused(retry(server, found["a"]), 409, "the plan is run already")
    assert_refused(retry(server, "no-such-run"), 404)

    (root.work / "go").touch()
    assert process.wait(SECONDS) == 1


def test_a_run_of_a_task_folder_is_done_again_by_its_loop(looped: Control) -> None:
    root = looped.root
    assert isinstance(root, TaskRoot)
    root.agent("exit 3")
    assert root.loop("--max-restarts", "1").returncode == 1
    root.agent(f"cp TASK.md prompt; {FINISH}")
    server = looped.serve("--config", str(root.config_file))
    first = str(root.tries[0]["run"])

    reply = retry(server, first)

    assert reply.status == 202, reply.text
    assert reply.json["task_id"] == "t"
    assert reply.json["command"].startswith("bin/run-task --project p --task t")
    wait_until(lambda: root.loop_record["state"] == "done", what="the end of the loop")
    assert [attempt["run"] for attempt in root.tries] == [first, reply.json["run_id"]]
    assert root.info(reply.json["run_id"])["agent_name"] == "fake"
    assert (root.folder / "prompt").read_text() == "Do it.\n"
    # And once more, now that it is done.
    again = retry(server, reply.json["run_id"])
    assert again.status == 202, again.text
    wait_until(lambda: len(root.tries) == 3, what="the third attempt")
    wait_until(lambda: root.loop_record["state"] == "done", what="the end of the loop")
    assert [entry["run_id"] for entry in looped.audit()] == [
        reply.json["run_id"], again.json["run_id"],
    ]  # fmt: skip
    looped.close()
    root.assert_settled()


def test_a_single_run_is_refused_with_the_command_that_does_the_same(control: Control) -> None:
    root = control.root
    (root.path / "prompt.md").write_text(f"```sh\n{RAN}\n```\n")
    places = ["--root", str(root.path), "--task", "alone"]
    done = run_script("run-agent.py", "shell", root.work, root.path / "prompt.md", *places)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.split("\n")[0].removeprefix("RUN_ID=")

    reply = retry(control.serve(), run_id)

    assert_refused(reply, 409, "belongs to no plan and no task folder")
    words = shlex.split(reply.json["error"]["details"]["command"])
    again = run_script(words[0].removeprefix("./"), *words[1:])
    assert again.returncode == 0, again.stderr
    assert root.lines("ran") == ["alone", "alone"]


def test_a_body_that_is_none_of_these_is_refused(control: Control) -> None:
    root = control.root
    root.plan(sh("a", RAN))
    assert root.run().returncode == 0
    server = control.serve()
    run_id = str(root.attempts("a")[0]["run"])
    addresses = ["/api/v1/plans/p/start", "/api/v1/plans/p/stop", f"/api/v1/runs/{run_id}/retry"]

    for address in addresses:
        assert server.send("POST", address, json={"more": 1}).status == 400
        assert server.send("POST", address, body=b"{}").status == 415
        assert server.send("POST", address, json=[]).status == 400
    foreign = "http://evil.example"
    assert {server.send("POST", it, json={}, Origin=foreign).status for it in addresses} == {403}
    assert start(server, retry_failed=1).status == stop(server, now="yes").status == 400
    assert root.lines("ran") == ["a"]
