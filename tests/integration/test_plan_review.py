"""Reviews by several agents: who is counted, who is asked again, and what survives a kill."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.plan_root import PlanRoot, Record

WAIT = "while [ ! -e gate ]; do sleep 0.05; done"
APPROVE, REJECT = "echo VERDICT: APPROVE", "echo VERDICT: REJECT"
CRASH, SILENT = "echo went wrong >&2; exit 3", "echo I cannot tell"
NAMES = ("one", "two", "three")


def review(root: PlanRoot, *scripts: str, max_parallel: int = 16, **keys: object) -> None:
    """A plan of one review `r`; each judge notes in a file of its name that it was asked."""
    agents = {}
    for name, script in zip(NAMES, scripts, strict=False):
        program = root.path / f"judge-{name}"
        program.write_text(f"#!/bin/sh\ncat >/dev/null\necho x >>{name}\n{script}\n")
        program.chmod(0o755)
        agents[name] = {"type": "command", "command": [str(program)]}
    (root.path / "config.yaml").write_text(json.dumps({"agents": agents}))
    role = {"agents": list(agents), "quorum": 2}
    task: Record = {"id": "r", "role": "judging", "prompt": "Judge.", **keys}
    root.plan(task, roles={"judging": role}, max_parallel=max_parallel)


def asked(root: PlanRoot) -> tuple[int, ...]:
    """How many times each judge was asked."""
    return tuple(len(root.lines(name)) for name in NAMES)


def verdicts(root: PlanRoot) -> dict[str, tuple[str, Path]]:
    """What the last REVIEW on the bus says: of each judge its verdict, and where that stands."""
    text = root.bus.read_text().rpartition("\nreview r: ")[2]
    found = re.findall(r"(?m)^(r@\S+): (.+), see (.+)$", text)
    return {name: (verdict, Path(path)) for name, verdict, path in found}


def assert_counted(root: PlanRoot, reason: str) -> None:
    """The review has failed for that reason, or passed for none, and all places agree on it."""
    entry = root.state()["r"]
    assert (entry["state"], entry["why"]) == ("failed" if reason else "done", reason)
    assert f"\nreview r: {reason or 'passed'}\n" in root.bus.read_text()
    latest = {str(item["unit"]): item for item in root.attempts("r")}
    told = verdicts(root)
    assert set(told) == set(latest)
    for name, (verdict, path) in told.items():
        assert verdict == latest[name].get("verdict") or verdict == "no verdict"
        assert path == root.runs / str(latest[name]["run"]) / "output.md"
        assert path.is_file()


@pytest.mark.parametrize(
    ("scripts", "reason"),
    [
        ([APPROVE, f"{APPROVE}; echo P.S. not quite"], "1 of 2 approvals"),
        ([APPROVE, f"{APPROVE}; {REJECT}"], "rejected by r@two"),
        ([APPROVE, f"{REJECT}; {APPROVE}"], ""),
        ([APPROVE, "printf '  VERDICT: APPROVE \\r\\n\\n \\t\\n'"], ""),
        ([APPROVE, "echo verdict: approve"], "1 of 2 approvals"),
        ([APPROVE, "echo '**VERDICT: APPROVE**'"], "1 of 2 approvals"),
        ([APPROVE, f"{APPROVE}; exit 1"], "1 of 2 approvals"),
        ([APPROVE, "true"], "1 of 2 approvals"),
        ([APPROVE, "echo VERDICT: APPROVE >$JRUN_RUN_FOLDER/output.md; echo done"], ""),
        ([REJECT, REJECT], "rejected by r@one, r@two"),
        ([CRASH, CRASH], "0 of 2 approvals"),
        ([SILENT, SILENT], "0 of 2 approvals"),
        ([CRASH, REJECT], "rejected by r@two"),
        ([APPROVE, APPROVE, APPROVE], ""),
        ([APPROVE, CRASH, APPROVE], ""),
        ([APPROVE, APPROVE, SILENT], ""),
        ([APPROVE, REJECT, APPROVE], "rejected by r@two"),
        ([APPROVE, SILENT, CRASH], "1 of 2 approvals"),
    ],
)
def test_enough_must_approve_and_nobody_may_reject(
    root: PlanRoot, scripts: list[str], reason: str
) -> None:
    review(root, *scripts)

    done = root.run()

    assert done.returncode == (1 if reason else 0), done.stdout + done.stderr
    assert_counted(root, reason)
    assert asked(root)[: len(scripts)] == (1,) * len(scripts)
    root.assert_nothing_left()


def test_a_rejection_is_told_as_a_failure_even_where_another_judge_has_crashed(
    root: PlanRoot,
) -> None:
    review(root, CRASH, REJECT)

    assert root.run().returncode == 1
    errors = root.bus_lines("ERROR ")
    assert len(errors) == 2
    assert errors[0].startswith("ERROR task=r@one agent=one exit=3 ")
    assert errors[1] == "ERROR task=r agent=all exit=0: rejected by r@two"
    assert "rejected by r@two" in (root.path / "docs" / "dev" / "issues.md").read_text()


def test_a_judge_that_crashed_is_tried_again_and_the_other_is_not(root: PlanRoot) -> None:
    review(root, APPROVE, f"[ $(wc -l <two) -ge 2 ] || exit 3\n{APPROVE}", retries=1)

    done = root.run()

    assert done.returncode == 0, done.stdout
    assert asked(root) == (1, 2, 0)
    assert_counted(root, "")
    assert len(root.bus_lines("RETRY task=r@two ")) == 1
    assert root.bus_lines("ERROR ") == []
    assert not (root.path / "docs").exists()


def test_a_judge_without_a_verdict_is_not_tried_again_in_the_same_start(root: PlanRoot) -> None:
    review(root, APPROVE, SILENT, retries=3)

    assert root.run().returncode == 1
    assert asked(root) == (1, 1, 0)


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ([APPROVE, SILENT], (1, 2, 0)),
        ([SILENT, SILENT], (2, 2, 0)),
        ([CRASH, CRASH], (2, 2, 0)),
        ([APPROVE, CRASH, SILENT], (1, 2, 2)),
        ([APPROVE, REJECT, APPROVE], (2, 2, 2)),
        ([CRASH, REJECT, APPROVE], (2, 2, 2)),
    ],
)
def test_the_next_start_asks_those_who_have_not_approved_and_after_a_rejection_all(
    root: PlanRoot, first: list[str], again: tuple[int, ...]
) -> None:
    review(root, *(f"[ -e mended ] && exec {APPROVE}\n{script}" for script in first))
    assert root.run().returncode == 1
    (root.work / "mended").touch()

    done = root.run()

    assert done.returncode == 0, done.stdout + done.stderr
    assert asked(root) == again
    assert_counted(root, "")
    assert {verdict for verdict, _ in verdicts(root).values()} == {"APPROVE"}
    assert root.run().returncode == 0
    assert asked(root) == again
    root.assert_nothing_left()


def test_killed_in_the_middle_nobody_judges_twice(root: PlanRoot) -> None:
    # When it is killed one has judged, one is at work, and one has not begun.
    review(root, APPROVE, f"{WAIT}\n{APPROVE}", f"{WAIT}\n{APPROVE}", max_parallel=1)
    plan = root.start()
    wait_until(lambda: root.lines("two"), what="the second judge")
    plan.kill()
    plan.wait()
    assert asked(root) == (1, 1, 0)

    second = root.start()
    wait_until(lambda: "taken over" in (root.path / "printed").read_text(), what="the taking over")
    second.kill()
    second.wait()
    (root.work / "gate").touch()

    done = root.run()

    assert done.returncode == 0, done.stdout
    assert asked(root) == (1, 1, 1)
    assert_counted(root, "")
    assert len(root.attempts("r")) == 3
    root.assert_nothing_left()


def test_a_judge_that_rejects_while_nobody_watches_is_heard(root: PlanRoot) -> None:
    review(root, APPROVE, f"{WAIT}\n{REJECT}")
    plan = root.start()
    wait_until(lambda: asked(root) == (1, 1, 0), what="both judges")
    plan.kill()
    plan.wait()
    (root.work / "gate").touch()
    wait_until(lambda: not root.processes(), what="the end of both")

    assert root.run().returncode == 1
    assert asked(root) == (1, 1, 0)
    assert_counted(root, "rejected by r@two")


def test_interrupted_between_two_judges_the_next_start_asks_the_other_only(root: PlanRoot) -> None:
    review(root, f"{WAIT}\n{APPROVE}", APPROVE, max_parallel=1)
    plan = root.start()
    wait_until(lambda: root.lines("one"), what="the first judge")
    plan.send_signal(signal.SIGINT)
    wait_until(lambda: "interrupted" in (root.path / "printed").read_text(), what="its answer")
    (root.work / "gate").touch()

    assert plan.wait(60) == 130
    assert (root.states(), asked(root)) == ({"r": "pending"}, (1, 0, 0))
    assert "review r:" not in root.bus.read_text()
    assert root.run().returncode == 0
    assert asked(root) == (1, 1, 0)


def test_interrupted_twice_a_review_is_held_to_its_end_by_the_next_start(root: PlanRoot) -> None:
    review(root, APPROVE, f"[ -e again ] && exec {APPROVE}\nsleep 600")
    plan = root.start()
    wait_until(
        lambda: root.lines("two") and "succeeded r@one" in (root.path / "printed").read_text(),
        what="one verdict, and the other judge",
    )
    plan.send_signal(signal.SIGINT)
    plan.send_signal(signal.SIGTERM)

    assert plan.wait(60) == 130
    root.assert_nothing_left()
    (root.work / "again").touch()
    assert root.run().returncode == 0
    assert asked(root) == (1, 2, 0)
    assert_counted(root, "")


@pytest.mark.parametrize(
    "trick",
    [
        'rm "$JRUN_RUN_FOLDER/output.md"',
        'cd "$JRUN_RUN_FOLDER"; rm output.md; mkdir output.md',
        'cd "$JRUN_RUN_FOLDER"; rm output.md; mkfifo output.md',
        'cd "$JRUN_RUN_FOLDER"; mv output.md other; ln -s other output.md',
    ],
)
def test_an_answer_that_a_check_has_taken_away_is_no_verdict(root: PlanRoot, trick: str) -> None:
    review(root, APPROVE, APPROVE, verify=[trick])

    done = root.run()

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert root.state()["r"]["why"] == "0 of 2 approvals"
