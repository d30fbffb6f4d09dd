"""Quotas in plans: providers that close and open again, with real processes and a made-up model.

What is here in place of a provider is a program that reads, from files of the
root, whether its limit is reached and until when.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers import wait_until
from tests.integration.test_plan_why import assert_documented, documented_fields
from tests.plan_root import PlanRoot, Record, sh
from tests.screen import Terminal

FAR_SECONDS = 3600
# `limit` holds what the provider says, `seconds` for how long from the first time on.
MODEL = r"""#!/bin/sh
cat >/dev/null
say() {
    printf '{"type":"system","subtype":"init","session_id":"s","model":"m"}\n'
    printf '{"type":"result","subtype":"success","is_error":%s,"result":"%s"}\n' "$@"
}
cd "{folder}" || exit 9
if [ -e limit ]; then
    [ -e until ] || { echo $(($(date +%s) + 1 + $(cat seconds))) >until.$$; mv until.$$ until; }
    if [ "$(date +%s)" -lt "$(cat until)" ]; then
        echo "$JRUN_TASK_ID limit" >>ran
        say true "$(sed "s/UNTIL/$(cat until)/" limit)"
        exit 1
    fi
fi
echo "$JRUN_TASK_ID begins" >>ran
while [ -e hold ]; do sleep 0.02; done
echo "$JRUN_TASK_ID ends" >>ran
say false 'Done.\n\nVERDICT: APPROVE'
"""


class Provider:
    """An agent of claude's kind with a login of its own, and what its program was asked."""

    def __init__(self, root: PlanRoot, name: str) -> None:
        self.name = name
        self.folder = root.path / f"provider-{name}"
        self.folder.mkdir()
        program = self.folder / "claude"
        program.write_text(MODEL.replace("{folder}", str(self.folder)))
        program.chmod(0o755)
        path = root.path / "config.yaml"
        config = yaml.safe_load(path.read_text()) if path.exists() else {"agents": {}}
        config["agents"][name] = {
            "type": "claude",
            "executable": str(program),
            "token": f"token-of-{name}-0123456789",
        }
        path.write_text(json.dumps(config))

    def close(self, seconds: int, *, told: bool = True) -> None:
        """Have it refuse for so long, from the first time that it is asked."""
        told_text = "Claude AI usage limit reached|UNTIL"
        self.refuse(told_text if told else "Claude usage limit reached.", seconds)

    def refuse(self, said: str, seconds: int = FAR_SECONDS) -> None:
        (self.folder / "seconds").write_text(str(seconds))
        (self.folder / "limit").write_text(said)

    def wait_for(self, gate: Path) -> None:
        """Have it do nothing before that file is there."""
        program = self.folder / "claude"
        held = f"cat >/dev/null\nwhile [ ! -e '{gate}' ]; do sleep 0.02; done\n"
        program.write_text(program.read_text().replace("cat >/dev/null\n", held, 1))

    def open(self) -> None:
        (self.folder / "limit").unlink()

    def hold(self) -> None:
        (self.folder / "hold").touch()

    def let_go(self) -> None:
        (self.folder / "hold").unlink()

    def asked(self) -> list[str]:
        """`TASK limit` for each run that was refused, `TASK begins` and `TASK ends` for the others."""
        path = self.folder / "ran"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def task(self, task_id: str, **keys: object) -> Record:
        return {"id": task_id, "agent": self.name, "prompt": "x", **keys}


@pytest.fixture
def other(root: PlanRoot) -> Provider:
    return Provider(root, "two")


@pytest.fixture
def agent(root: PlanRoot, other: Provider) -> Provider:
    return Provider(root, "one")


ENV = {"CONDUCTOR_QUOTA_MARGIN": "0"}  # no minute on top of a reset
SLOW = {"CONDUCTOR_QUOTA_MARGIN": "1"}  # and pauses of seconds instead of minutes


def closings(root: PlanRoot) -> Record:
    """The closed providers in the header of the state."""
    data: Record = yaml.safe_load(root.state_file.read_text()).get("closed", {})
    return data


def is_waiting(root: PlanRoot, *names: str) -> bool:
    try:
        return all(root.states()[name] == "waiting" for name in names)
    except (OSError, AssertionError, KeyError, TypeError, yaml.YAMLError):
        return False  # not written yet


def start_and_wait(root: PlanRoot, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the plan; returns when its task `a` waits."""
    plan = root.start(*arguments, env=ENV)
    wait_until(lambda: is_waiting(root, "a"), what="the task to wait")
    return plan


def events_of(text: str, kind: str) -> list[Record]:
    events: list[Record] = [json.loads(line) for line in text.split("\n") if line]
    return [event for event in events if event["event"] == kind]


def test_a_limit_closes_the_provider_for_all_its_tasks_until_the_reset_and_others_go_on(
    root: PlanRoot, agent: Provider
) -> None:
    agent.close(4)
    until = agent.folder / "until"
    root.plan(
        agent.task("a"),
        sh("s", f"[ $(date +%s) -lt $(cat {until}) ] && echo before >>ran || echo after >>ran"),
        agent.task("b"),
        max_parallel=1,
    )

    done = root.run(env=ENV)

    assert done.returncode == 0, done.stdout
    assert agent.asked()[0] == "a limit"
    assert sorted(agent.asked()[1:]) == ["a begins", "a ends", "b begins", "b ends"]
    assert root.lines("ran") == ["before"]
    assert [item["result"] for item in root.attempts("a")] == ["quota", "done"]
    assert [item["result"] for item in root.attempts("b")] == ["done"]
    assert closings(root) == {}
    assert "nothing else can run: 2 tasks wait for one, which is closed until " in done.stdout
    root.assert_nothing_left()


def test_meeting_a_limit_is_neither_a_failure_nor_a_try(root: PlanRoot, agent: Provider) -> None:
    agent.close(3)
    root.plan(agent.task("a", retries=0))

    done = root.run(env=ENV)

    assert done.returncode == 0
    assert root.bus_lines("ERROR ") == []
    assert not (root.path / "docs" / "dev" / "issues.md").exists()
    assert root.bus_lines("RETRY ")[0].startswith("RETRY task=a agent=one exit=1 ")
    assert len(root.bus_lines("one is closed until ")) == 1
    assert len(root.bus_lines("one is open again: its quota has reset")) == 1
    assert root.record("a")["attempt"] == "1"
    (row,) = [line for line in done.stdout.split("\n") if line.startswith("a  ")]
    assert row.split()[1:3] == ["one", "1"]


def test_the_next_agent_of_the_role_takes_over_and_does_later_tasks_too(
    root: PlanRoot, agent: Provider, other: Provider
) -> None:
    agent.close(FAR_SECONDS)
    root.plan(
        {"id": "a", "role": "build", "prompt": "x"},
        {"id": "b", "role": "build", "prompt": "x"},
        roles={"build": {"agents": ["one", "two"]}},
        max_parallel=1,
    )

    done = root.run(env=ENV)

    assert done.returncode == 0, done.stdout
    assert agent.asked() == ["a limit"]
    assert other.asked() == ["a begins", "a ends", "b begins", "b ends"] or other.asked() == [
        "b begins",
        "b ends",
        "a begins",
        "a ends",
    ]
    assert re.search(r"^a +two \(after one\) +1 ", done.stdout, re.MULTILINE)
    assert re.search(r"^b +two \(for one\) +1 ", done.stdout, re.MULTILINE)
    assert {line.partition(": two")[0] for line in root.bus_lines("")} >= {"a", "b"}
    assert len(root.bus_lines("a: two stands in for one: its quota is used up")) == 1
    assert root.attempts("b")[0]["instead_of"] == "one"


def test_when_all_agents_of_a_role_are_closed_the_first_to_open_does_it(
    root: PlanRoot, agent: Provider, other: Provider
) -> None:
    agent.close(FAR_SECONDS)
    other.close(1)
    root.plan(
        {"id": "a", "role": "build", "prompt": "x"}, roles={"build": {"agents": ["one", "two"]}}
    )

    done = root.run("--max-wait", "1m", env=ENV)

    assert done.returncode == 0, done.stdout
    assert agent.asked() == ["a limit"]
    assert other.asked() == ["a limit", "a begins", "a ends"]
    assert list(closings(root)) == ["one"]


def test_a_limit_that_a_task_of_another_start_meets_is_kept_for_the_next(
    root: PlanRoot, agent: Provider
) -> None:
    agent.close(FAR_SECONDS)
    gate = root.path / "gate"
    agent.wait_for(gate)
    root.plan(sh("x", f"while [ ! -e '{gate}' ]; do sleep 0.02; done"), agent.task("a"))
    first = root.start("--only", "a", env=ENV)
    wait_until((root.runs / "a.pid").exists, what="the run")
    first.kill()
    first.wait()
    second = root.start("--only", "x", env=ENV)
    wait_until((root.runs / "x.pid").exists, what="the other task")
    gate.touch()

    assert second.wait(60) == 0
    assert root.states() == {"x": "done", "a": "pending"}
    assert root.run("--no-wait", env=ENV).returncode == 75
    assert agent.asked() == ["a limit"]


def test_without_waiting_the_plan_ends_with_75_and_a_later_start_goes_on(
    root: PlanRoot, agent: Provider
) -> None:
    agent.close(FAR_SECONDS)
    root.plan(stages=[
        {"id": "x", "tasks": [agent.task("a"), sh("s", "echo s >>ran")]},
        {"id": "y", "tasks": [sh("t", "echo t >>ran")]},
    ])  # fmt: skip

    done = root.run("--no-wait", env=ENV)

    assert done.returncode == 75
    assert root.states() == {"a": "waiting", "s": "done", "t": "pending"}
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\dZ"
    assert re.search(
        rf"stopped: one's quota is used up until {moment}; start the plan again then", done.stdout
    )
    assert re.search(
        r"^a +one +- .* waits for one's quota, which resets at ", done.stdout, re.MULTILINE
    )
    assert "plan p: 1 done, 0 failed, 2 not run, 1 of them for a quota" in done.stdout
    assert re.fullmatch(
        rf"waits for one's quota, which resets at \S+ ?\S+Z \(in (59|60|61) min\): the plan is not "
        rf"running: it ended at \S+ \S+Z with exit code 75 \(one's quota is used up until "
        rf"{moment}\); start the plan again to go on",
        root.why("a"),
    )
    assert list(closings(root)) == ["one"]

    assert root.run("--no-wait", env=ENV).returncode == 75  # without asking the provider again
    assert agent.asked() == ["a limit"]
    agent.open()
    root.state_file.write_text(
        re.sub(r"(?m)^closed:.*\n(  .*\n)*", "", root.state_file.read_text())
    )
    assert root.run("--no-wait", env=ENV).returncode == 0
    assert root.lines("ran") == ["s", "t"]
    root.assert_nothing_left()


def test_a_reset_beyond_the_longest_wait_ends_the_plan_when_all_else_is_done(
    root: PlanRoot, agent: Provider
) -> None:
    agent.close(FAR_SECONDS)
    root.plan(agent.task("a"), sh("s", "echo s >>ran"))

    done = root.run("--max-wait", "15m", "--json", env=ENV)

    assert done.returncode == 75
    assert root.lines("ran") == ["s"]
    (closing,) = events_of(done.stdout, "closing")
    assert "the plan waits at most 15 min (--max-wait)" in str(closing["text"])
    (ended,) = events_of(done.stdout, "plan-ended")
    assert (ended["waiting"], ended["not_run"], ended["exit_code"]) == (1, 1, 75)
    assert root.run("--max-wait", "1h", "--no-wait").returncode == 2


def test_a_restarted_plan_goes_on_waiting(root: PlanRoot, agent: Provider) -> None:
    agent.close(4)
    root.plan(agent.task("a"))
    first = start_and_wait(root)
    first.kill()
    first.wait()
    assert list(closings(root)) == ["one"]

    second = root.start(env=ENV)

    assert second.wait(60) == 0
    assert agent.asked() == ["a limit", "a begins", "a ends"]
    assert len(root.bus_lines("one is closed until ")) == 1
    root.assert_nothing_left()


def test_a_limit_that_was_met_while_nobody_ran_the_plan_is_found(
    root: PlanRoot, agent: Provider
) -> None:
    gate = root.path / "gate"
    agent.wait_for(gate)
    agent.close(FAR_SECONDS)
    root.plan(agent.task("a"))
    first = root.start(env=ENV)
    wait_until((root.runs / "a.pid").exists, what="the run")
    first.kill()
    first.wait()
    gate.touch()
    wait_until(lambda: agent.asked() == ["a limit"], what="the limit")

    assert root.run("--no-wait", env=ENV).returncode == 75
    assert [item["result"] for item in root.attempts("a")] == ["quota"]
    assert agent.asked() == ["a limit"]


def test_who_waits_is_told_for_what_and_how_long_and_can_end_it(
    root: PlanRoot, agent: Provider
) -> None:
    agent.close(FAR_SECONDS)
    root.plan(agent.task("a"), sh("t", "true", depends_on=["a"]))
    plan = start_and_wait(root)

    waits = r"waits for one's quota, which resets at (\S+ )?\d\d:\d\dZ \(in (59|60|61) min\)"
    assert re.fullmatch(waits, root.why("a"))
    assert re.fullmatch(f"waits for a, which {waits}", root.why("t"))
    attached = subprocess.Popen(
        root.command("--attach", "--json"), env=root.environment(), stdout=subprocess.PIPE
    )
    assert attached.stdout is not None
    seen = json.loads(attached.stdout.readline())
    assert (seen["task"], seen["state"]) == ("a", "waiting")
    assert re.fullmatch(waits, seen["why"])
    plan.send_signal(signal.SIGINT)

    assert plan.wait(10) == 130
    attached.communicate(timeout=60)
    assert attached.returncode == 130
    assert root.states() == {"a": "waiting", "t": "pending"}
    assert "nothing else can run: 1 task waits for one, which is closed until " in root.log()
    root.assert_nothing_left()


def test_without_a_reset_one_task_tries_and_the_rest_follow_it(
    root: PlanRoot, agent: Provider
) -> None:
    agent.close(FAR_SECONDS, told=False)
    names = ["a", "b", "c"]
    root.plan(*map(agent.task, names), start_interval=0)
    plan = root.start(env=SLOW)
    wait_until(lambda: is_waiting(root, *names), what="all to wait")
    assert sorted(agent.asked()) == ["a limit", "b limit", "c limit"]
    agent.hold()
    agent.open()
    wait_until(lambda: len(agent.asked()) == 4, what="the one that tries")
    probe = agent.asked()[3].partition(" ")[0]
    others = [name for name in names if name != probe]
    expected = f"waits for one's quota, which {probe} tries first"
    wait_until(lambda: root.why(others[0]) == expected, what="the others to wait for it")

    assert len(agent.asked()) == 4
    agent.let_go()

    assert plan.wait(60) == 0
    assert agent.asked()[3:5] == [f"{probe} begins", f"{probe} ends"]
    closed = "one is closed and told no reset, so it is tried again at "
    assert len(root.bus_lines(closed)) == 1
    assert len(root.bus_lines(f"one is open again: {probe} has succeeded")) == 1


def test_an_overloaded_service_is_a_failure_that_is_tried_again_after_30_seconds(
    root: PlanRoot, agent: Provider
) -> None:
    agent.refuse("API Error: 529 overloaded_error: Overloaded")
    root.plan(agent.task("a", retries=1))
    plan = root.start("--json", env=ENV)
    printed = root.path / "printed"
    wait_until(lambda: '"retried"' in printed.read_text(), what="the failure")
    plan.send_signal(signal.SIGINT)

    assert plan.wait(10) == 130
    (event,) = events_of(printed.read_text(), "retried")
    assert event["delay_seconds"] == 30.0
    assert [item["result"] for item in root.attempts("a")] == ["failed"]


def test_an_agent_without_a_login_is_not_tried_again_but_the_next_one_is(
    root: PlanRoot, agent: Provider, other: Provider
) -> None:
    agent.refuse("Invalid API key · Please run /login")
    root.plan(
        {"id": "a", "role": "build", "prompt": "x", "retries": 3},
        agent.task("b", retries=3),
        roles={"build": {"agents": ["one", "two"]}},
    )

    done = root.run("--keep-going", env=ENV)

    assert done.returncode == 1
    assert root.record("b")["error_class"] == "login"
    assert sorted(agent.asked()) == ["a limit", "b limit"]
    assert other.asked() == ["a begins", "a ends"]
    assert root.states() == {"a": "done", "b": "failed"}
    assert [line.split()[1] for line in root.bus_lines("ERROR ")] == ["task=b"]


def test_the_time_of_a_stage_stands_still_while_it_only_waits(
    root: PlanRoot, agent: Provider
) -> None:
    agent.close(4)
    root.plan(stages=[{"id": "s", "timeout": "4s", "tasks": [agent.task("a")]}])

    done = root.run(env=ENV)

    assert done.returncode == 0, done.stdout
    assert agent.asked() == ["a limit", "a begins", "a ends"]


def test_a_judge_whose_provider_is_closed_is_waited_for(root: PlanRoot, agent: Provider) -> None:
    agent.close(FAR_SECONDS, told=False)
    root.plan(
        {"id": "gate", "role": "judging", "prompt": "x"},
        roles={"judging": {"agents": ["one", "two"], "quorum": 2}},
    )
    plan = root.start(env=SLOW)
    wait_until(lambda: is_waiting(root, "gate"), what="the review to wait")
    wait_until(lambda: "waits for the quota of one: " in root.why("gate@one"), what="its reason")
    agent.open()

    assert plan.wait(60) == 0
    results = [(item["unit"], item["result"]) for item in root.attempts("gate")]
    assert set(results) == {("gate@one", "done"), ("gate@one", "quota"), ("gate@two", "done")}


def test_a_screen_shows_one_line_for_all_that_wait_and_counts_down(
    root: PlanRoot, agent: Provider
) -> None:
    agent.close(FAR_SECONDS)
    root.plan(*map(agent.task, "abc"), max_parallel=1)
    environment = {**root.environment(ENV), "TERM": "xterm"}
    terminal = Terminal(root.command(), columns=110, cwd=root.path, env=environment)
    line = r"^a and 2 more: waits for one's quota, which resets at .* \(in (59|60|61) min\)$"
    try:
        terminal.wait_for(
            lambda seen: re.search(line, seen.text, re.MULTILINE), "the line of those"
        )
        terminal.wait_for(lambda seen: "0/3 done, 0 running, 3 waiting" in seen.text, "the bar")
        terminal.type("\x03")
        assert terminal.wait() == 130
    finally:
        terminal.close()


def test_the_events_of_a_quota_are_as_documented(root: PlanRoot, agent: Provider) -> None:
    agent.close(3)
    root.plan(agent.task("a"))

    done = root.run("--json", env=ENV)

    assert done.returncode == 0
    told = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    assert_documented(told, documented_fields())
    for kind in ("quota-closed", "quota-waiting", "quota-opened"):
        (event,) = events_of(done.stdout, kind)
        assert event["agent"] == "one"
