"""--why and --attach: a plan that runs, seen from other processes, at each of its moments."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest

from lib import attach, situation, why
from lib.plan import load_plan
from tests.helpers import read_document, wait_until
from tests.plan_root import PlanRoot, Record, offline, sh

RUN = r"\(run_\S+\)"


def until(name: str) -> str:
    """A script that waits until the test touches that file."""
    return f"while [ ! -e {name} ]; do sleep 0.05; done"


class Onlooker:
    """Asks about every task of a plan, from this process, which does not run it."""

    def __init__(self, root: PlanRoot) -> None:
        self._plan = load_plan(str(root.plan_file))
        self._runs = str(root.runs)

    def all(self) -> dict[str, str]:
        explainer = why.Explainer(situation.look(self._plan, self._runs))
        return {task_id: explainer.sentence(task_id) for task_id in self._plan.tasks}

    def expect(self, **patterns: str) -> None:
        """Wait until every task says what it should: the patterns must match from the start."""
        assert set(patterns) == set(self._plan.tasks)
        last: dict[str, str] = {}

        def is_so() -> bool:
            last.update(self.all())
            return all(re.match(pattern, last[name]) for name, pattern in patterns.items())

        try:
            wait_until(is_so, what="the sentences")
        except AssertionError:
            wrong = [n for n, pattern in patterns.items() if not re.match(pattern, last[n])]
            told = "\n".join(f"{n}: {last[n]}\n   not {patterns[n]}" for n in wrong)
            raise AssertionError(told) from None


def judges(root: PlanRoot, **scripts: str) -> dict[str, object]:
    """Agents of the plan's root that run a script each, as a role with a quorum of two."""
    agents = {}
    for name, script in scripts.items():
        program = root.path / f"judge-{name}"
        program.write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
        program.chmod(0o755)
        agents[name] = {"type": "command", "command": [str(program)]}
    (root.path / "config.yaml").write_text(json.dumps({"agents": agents}))
    return {"judging": {"agents": list(agents), "quorum": 2}}


def test_why_is_right_for_every_task_at_every_moment(root: PlanRoot) -> None:
    """Waits, gates, exclusions, silence, retries, checks, a review, failures, and the end."""
    roles = judges(
        root,
        one="echo VERDICT: APPROVE",
        two=f"{until('judge')}; echo VERDICT: APPROVE",
    )
    first: list[Record] = [
        sh("a", until("a"), timeout="1h"),
        sh("b", "true", depends_on=["a"]),
        sh("c", "true", depends_on=["b"]),
        sh("db1", until("db1"), exclusive="db"),
        sh("db2", until("db2"), exclusive="db"),
        sh("still", until("still"), idle_timeout=24),  # silent from 8 s on
        sh("slot", until("slot")),
        sh("flaky", "[ -e flaky ]", retries=9),
        sh("checked", "true", verify=[until("checked")], verify_timeout="10m", depends_on=["c"]),
    ]
    second: list[Record] = [
        sh("bad", f"{until('bad')}; exit 3", critical=False),
        sh("after-bad", "true", depends_on=["bad"], critical=False),
        sh("after-that", "true", depends_on=["after-bad"], critical=False),
        {"id": "review", "role": "judging", "prompt": "Judge.", "depends_on": ["bad2"]},
        sh("bad2", "true"),
        sh("worst", f"{until('worst')}; exit 4", depends_on=["review"]),
        sh("last", until("last"), depends_on=["review"]),
        sh("never", "true", depends_on=["last"]),
    ]
    stages: list[Record] = [
        {"id": "first", "tasks": first},
        {"id": "second", "tasks": second},
    ]
    root.plan(stages=stages, roles=roles, max_parallel=3, defaults={"timeout": 0})
    plan = root.start()
    wait_until(root.state_file.exists, what="the state")
    see = Onlooker(root)

    # Three run, one of them in silence; the rest waits for them in every way.
    running = rf"is running: shell, for \d+ s, last output \d+ s ago {RUN}"
    a_runs = rf"is running: shell, for \d+ s of at most 60 min, last output \d+ s ago {RUN}"
    silence = r"has been silent for \d+ s; its limit is 24 s \(shell, running for \d+ s, run_\S+\)"
    end_of_first = rf"waits for the end of stage first \(9 of 9 tasks are left\); still {silence}$"
    second_waits = {str(task["id"]).replace("-", "_"): end_of_first for task in second}
    expect(
        see,
        a=rf"{a_runs}$",
        b=rf"waits for a, which {a_runs}$",
        c=rf"waits for b, and through it for a, which {a_runs}$",
        db1=rf"{running}$",
        db2=rf"waits for `exclusive: db`, held by db1, which {running}$",
        still=rf"{silence}$",
        slot=r"waits for a free slot: 3 of 3 run, and 1 more waits for one$",
        flaky=r"waits for a free slot: 3 of 3 run, and 1 more waits for one$",
        checked=rf"waits for c, and through it for a, which {a_runs}$",
        **second_waits,
    )
    said = root.why("db2")
    assert re.match(rf"waits for `exclusive: db`, held by db1, which {running}$", said), said

    # The silent one ends; what had no slot runs; the flaky one fails again and again.
    (root.work / "still").touch()
    (root.work / "a").touch()
    done = r"is done: shell finished it at \S+ \S+Z \(run_\S+\)$"
    backing_off = r"is tried again in \d+ s, after: agent exited with code 1"
    checking = r"is being verified for \d+ s: while \[ ! -e checked \].* \(limit 10 min, run_\S+\)$"
    (root.work / "db1").touch()
    (root.work / "slot").touch()
    left = r"waits for the end of stage first \(3 of 9 tasks are left\); flaky "
    expect(
        see,
        a=done,
        b=done,
        c=done,
        db1=done,
        db2=rf"{running}$",
        still=done,
        slot=done,
        flaky=backing_off,
        checked=checking,
        **dict.fromkeys(second_waits, left + backing_off),
    )

    # The first stage ends; in the second one fails that is not critical, and one judge waits.
    for name in ("db2", "flaky", "checked", "bad"):
        (root.work / name).touch()
    first_done = {str(task["id"]): done for task in first}
    failed = r"failed: agent exited with code 3; look with: bin/show-run run_\S+ --runs-dir \S+$"
    judging = (
        r"is under review, 2 approvals are needed: 1 judge is done \(review@one approved\); "
        r"review@two is running: two, for \d+ s, last output \d+ s ago \(run_\S+\)$"
    )
    for_review = rf"waits for review, which {judging}"
    expect(
        see,
        **first_done,
        bad=failed,
        after_bad=rf"is blocked: it needs bad, which {failed}",
        after_that=rf"is blocked: it needs after-bad, and through it bad, which {failed}",
        bad2=done,
        review=judging,
        worst=for_review,
        last=for_review,
        never=rf"waits for last, and through it for review, which {judging}",
    )
    assert re.match(r"is done: review@one approved", root.why("review@one"))
    assert re.match(r"is running: two, for ", root.why("review@two"))

    # A critical one fails: the last one goes on, and nothing new starts.
    (root.work / "judge").touch()
    (root.work / "worst").touch()
    reviewed = (
        r"is done: the review passed at \S+ \S+Z \(review@one approved, review@two approved\)$"
    )
    worst = r"failed: agent exited with code 4; look with: bin/show-run run_\S+ --runs-dir [^\s;]+"
    blocked = {
        "bad": failed,
        "after_bad": rf"is blocked: it needs bad, which {failed}",
        "after_that": rf"is blocked: it needs after-bad, and through it bad, which {failed}",
    }
    closing = "is not started: worst failed, and nothing new starts; start the plan again to go on"
    settled = {**first_done, "bad2": done, "review": reviewed}
    expect(
        see,
        **settled,
        **blocked,
        worst=rf"{worst}$",
        last=rf"{running}$",
        never=rf"{closing} when it has ended$",
    )

    # It has ended.
    (root.work / "last").touch()
    assert plan.wait(60) == 1
    again = "; start the plan again to retry it$"
    ended = (
        r"has not been started: the plan is not running: it ended at \S+ \S+Z "
        r"with exit code 1 \(worst failed\); start the plan again to go on$"
    )
    expect(
        see,
        **settled,
        **{name: pattern.rstrip("$") + again for name, pattern in blocked.items()},
        worst=worst + again,
        last=done,
        never=ended,
    )
    root.assert_nothing_left()


def expect(see: Onlooker, **patterns: str) -> None:
    see.expect(**{name.replace("_", "-"): pattern for name, pattern in patterns.items()})


def test_of_a_plan_that_was_killed_why_tells_what_still_runs(root: PlanRoot) -> None:
    root.plan(sh("a", until("gate")), sh("b", "true", depends_on=["a"]))
    plan = root.start()
    wait_until(lambda: root.runs.joinpath("a.pid").exists(), what="the agent")
    plan.kill()
    plan.wait()
    before = root.tree()

    taken = "start the plan again and it is taken over"
    assert re.match(
        rf"still runs as run_\S+ \(shell\) though the plan does not; {taken}", root.why("a")
    )
    gone = rf"the process that ran it \(pid {plan.pid}\) is gone; start the plan again to go on"
    assert re.match(rf"has not been started: the plan is not running: {gone}", root.why("b"))
    assert root.tree() == before

    (root.work / "gate").touch()
    assert root.run().returncode == 0
    assert root.why("b").startswith("is done: shell finished it at ")


def test_of_a_start_for_some_tasks_why_tells_which_are_not_part_of_it(root: PlanRoot) -> None:
    root.plan(sh("a", until("gate")), sh("b", "true"))
    plan = root.start("--only", "a")
    wait_until(lambda: root.runs.joinpath("a.pid").exists(), what="the agent")

    expected = "is not part of this start of the plan, which is for 1 of 2 tasks"
    assert root.why("b") == expected
    (root.work / "gate").touch()
    assert plan.wait(60) == 0


def test_while_it_is_interrupted_why_tells_that(root: PlanRoot) -> None:
    root.plan(sh("a", until("gate")), sh("b", "true", depends_on=["a"]))
    plan = root.start()
    wait_until(lambda: root.runs.joinpath("a.pid").exists(), what="the agent")
    plan.send_signal(signal.SIGINT)
    wait_until(lambda: "nothing new starts" in root.log(), what="the interrupt")

    assert re.match("is running: shell", root.why("a"))
    wait_until(
        lambda: root.why("b").startswith("is not started: the plan was interrupted, and nothing"),
        what="the sentence",
    )
    (root.work / "gate").touch()
    assert plan.wait(60) == 130


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--why", "aa"], "no task aa in .*plan.yaml; did you mean a\\?"),
        (["--why", "\x1b[2Jx"], "no task ␛x in .*plan.yaml; --dry-run lists them"),
    ],
)
def test_an_unknown_task_is_a_wrong_usage(root: PlanRoot, arguments: list[str], said: str) -> None:
    root.plan(sh("a", "true"))
    assert root.run().returncode == 0

    asked = root.run(*arguments)

    assert asked.returncode == 2
    assert re.search(said, asked.stderr), asked.stderr
    assert "\x1b" not in asked.stderr


# -- --json


def test_json_has_only_documented_kinds_and_fields(root: PlanRoot) -> None:
    """A plan with about every kind of event: each line is an object, as docs/events.md says."""
    documented = documented_fields()
    roles = judges(root, one="echo VERDICT: APPROVE", two="echo VERDICT: REJECT")
    tasks: list[Record] = [
        sh("ok", "true", verify=["true"]),
        offline("words"),
        sh("flaky", "[ -e flaky ] || { touch flaky; exit 3; }", retries=1),
        sh("bad", "exit 3", critical=False),
        {"id": "review", "role": "judging", "prompt": "Judge.", "critical": False},
        sh("next", "true", depends_on=["bad"], critical=False),
        sh("worst", "exit 4", depends_on=["ok", "words", "flaky"]),
        sh("never", "true", depends_on=["worst"]),
    ]
    root.plan(*tasks, roles=roles)

    ended = root.run("--json")

    assert ended.returncode == 1
    assert ended.stderr == ""
    told = [json.loads(line) for line in ended.stdout.split("\n")[:-1]]
    assert_documented(told, documented)
    kinds = {str(item["event"]) for item in told}
    wanted = (
        "plan-started started succeeded verifying retried failed stage-ended closing plan-ended"
    )
    assert {*wanted.split(), "summary"} <= kinds
    assert told[-1]["event"] == "summary"
    assert {task["task"] for task in told[-1]["tasks"]} == {str(task["id"]) for task in tasks}


def documented_fields() -> dict[str, set[str]]:
    """The fields of every kind in docs/events.md."""
    found: dict[str, set[str]] = {}
    for section in read_document("events.md").split("\n### ")[1:]:
        kind = section.split("`")[1]
        line = next(line for line in section.split("\n") if line.startswith("Fields: "))
        found[kind] = set(re.findall(r"`(\w+)`", line)) | {"time", "event", "text"}
        example = section.partition("```json\n")[2].partition("\n```")[0]
        assert set(json.loads(example)) <= found[kind], kind
        assert json.loads(example)["event"] == kind
    return found


def assert_documented(told: list[dict[str, object]], documented: dict[str, set[str]]) -> None:
    for item in told:
        kind = str(item["event"])
        assert set(item) <= documented[kind], item
        assert {"time", "event", "text"} <= set(item)


# -- --attach


def attached(root: PlanRoot, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        root.command(*arguments, "--attach"),
        env=root.environment(),
        cwd=root.path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_attach_shows_the_last_lines_then_new_ones_and_ends_with_the_plan(root: PlanRoot) -> None:
    quick = [sh(f"quick{number}", "true") for number in range(10)]
    root.plan(*quick, sh("a", until("gate")), sh("b", "exit 3", depends_on=["a"]))
    plan = root.start()
    wait_until(lambda: root.log().count("succeeded quick") == 10, what="the quick ones")
    before = root.log().split("\n")[-11:-1]

    watching = attached(root)
    shown = [first_line(watching).rstrip("\n") for _ in range(10)]
    (root.work / "gate").touch()
    out, _ = watching.communicate(timeout=60)

    assert plan.wait(60) == 1
    assert watching.returncode == 1
    assert shown == before
    assert "succeeded a" in out
    assert "FAILED    b: agent exited with code 3" in out
    assert re.search(r"\nTASK +AGENT .*\n(.*\n)*b +shell .*failed: agent exited with code 3\n", out)
    assert "\x1b" not in out


def test_attach_as_json_tells_every_state_and_then_what_changes(root: PlanRoot) -> None:
    root.plan(sh("a", until("gate")), sh("b", "true", depends_on=["a"]))
    plan = root.start()
    wait_until(lambda: root.runs.joinpath("a.pid").exists(), what="the agent")

    watching = attached(root, "--json")
    told = [json.loads(first_line(watching)) for _ in range(3)]
    assert [(item["event"], item.get("task"), item.get("state")) for item in told] == [
        ("task", "a", "running"),
        ("task", "b", "pending"),
        ("plan", None, None),
    ]
    assert told[0]["agent"] == "shell"
    assert told[0]["run"].endswith("-a")
    assert told[1]["why"].startswith("waits for a, which is running: shell")
    assert told[2]["ended"] is None
    (root.work / "gate").touch()
    out, _ = watching.communicate(timeout=60)

    assert plan.wait(60) == watching.returncode == 0
    more = [json.loads(line) for line in out.split("\n")[:-1]]
    assert_documented([*told, *more], documented_fields())
    last = {item.get("task"): item for item in more}
    assert [last[name]["state"] for name in ("a", "b")] == ["done", "done"]
    assert last[None]["exit_code"] == 0
    assert last[None]["ended"]


def test_ctrl_c_ends_the_looking_only(root: PlanRoot) -> None:
    root.plan(sh("a", until("gate")))
    plan = root.start()
    wait_until(lambda: "started" in root.log(), what="the start")

    watching = attached(root)
    first_line(watching)
    watching.send_signal(signal.SIGINT)
    out, _ = watching.communicate(timeout=60)

    assert watching.returncode == 130
    assert f"the plan goes on without being watched (pid {plan.pid})" in out
    assert plan.poll() is None
    (root.work / "gate").touch()
    assert plan.wait(60) == 0


def test_who_looks_on_is_told_that_the_process_of_the_plan_is_gone(root: PlanRoot) -> None:
    root.plan(sh("a", until("gate")))
    plan = root.start()
    wait_until(lambda: "started" in root.log(), what="the start")

    watching = attached(root)
    first_line(watching)
    plan.kill()
    plan.wait()
    out, _ = watching.communicate(timeout=60)

    assert watching.returncode == 1
    assert out.split("\n")[-2].endswith(f" {attach.GONE}")


def test_attached_to_a_plan_that_nobody_runs_one_line_says_how_it_ended(root: PlanRoot) -> None:
    root.plan(sh("a", "true"), sh("b", "exit 3"))
    never = root.run("--attach")
    assert never.returncode == 1
    assert "was never started" in never.stderr

    root.run()
    before = root.tree()
    asked = root.run("--attach")

    assert asked.returncode == 1
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d nobody runs this plan now: it ended at \S+Z with exit code 1 \(b failed\), "
        r"1 of 2 tasks are done; start it again to go on\n",
        asked.stdout,
    )
    assert root.tree() == before
