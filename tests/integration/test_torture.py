"""The torture harness itself: it repeats, cleans up, and finds what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import bus, loop_record, propagation, runs, tasks
from tests.helpers import ROOT, clean_environment, wait_until
from tests.torture import checks, processes
from tests.torture.bodies import body_of
from tests.torture.round import Kill, Round
from tests.torture.scenes import Draw, LoopScene, Scene, Single, Start, fault_points

SCRIPT = ROOT / "tests" / "torture" / "torture.py"
MARK = "torture-test"


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *arguments]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=clean_environment({"TMPDIR": str(folder)}),
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_few_rounds_find_nothing_and_leave_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "--seed", "7", "--rounds", "3")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("torture: seed 7\n")
    assert "torture: seed 7: 3 rounds, " in done.stdout
    assert ", 0 violations in 0 rounds\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    torture = subprocess.Popen(
        command("--seed", "8", "--rounds", "1000"),
        env=clean_environment({"TMPDIR": str(tmp_path)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    session = f"{MARK}-none"
    try:
        wait_until(lambda: list(tmp_path.glob("*/*/root/runs/run_*")), what="a run")
        session = next(tmp_path.iterdir()).name
        assert processes.marked(session) != {}
    finally:
        torture.send_signal(signal.SIGINT)
        out, err = torture.communicate(timeout=60)

    assert torture.returncode == 128 + signal.SIGINT, err
    assert b"interrupted" in out
    assert processes.marked(session) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_option_is_exit_code_2(tmp_path: Path) -> None:
    assert run(tmp_path, "--rounds", "many").returncode == 2


def test_a_seed_draws_the_same_scene_again_and_another_one_another() -> None:
    scenes = [Draw(f"5:{number}").scene() for number in range(40)]

    assert scenes == [Draw(f"5:{number}").scene() for number in range(40)]
    assert len({repr(scene) for scene in scenes}) == 40
    for kind in ("tasks", "singles", "writers", "loops"):
        assert any(getattr(scene, kind) for scene in scenes)


def test_fault_points_are_read_off_the_source() -> None:
    points = fault_points()

    assert {"state-saved", "run-ended", "bus-written", "spawner-fork", "locked"} <= set(points)
    assert points["state-saved"] == ("orchestrator",)
    assert points["loop-spawned"] == ("loop",)


def test_bodies_repeat_and_try_the_format() -> None:
    bodies = [body_of(f"w/{n}") for n in range(200)]

    assert bodies == [body_of(f"w/{n}") for n in range(200)]
    assert any("\n---\n" in body for body in bodies)
    assert max(map(len, bodies)) > 100_000


# -- what is done to a round that went well is found


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Round:
    """A small round without kills: a plan, a single run, a loop, a writer, a reader."""
    round_ = Round("1:0", tmp_path_factory.mktemp("round") / "0", f"{MARK}-{os.getpid()}.")
    round_.scene = Scene(
        tasks=[
            {"id": "t0", "kind": "shell", "work": "steps=1 post=1", "verify": 0},
            {"id": "t1", "kind": "review", "work": "", "depends_on": ["t0"]},
        ],
        singles=[Single("s0", "code=5", 5, None, None)],
        writers=[("w0", 5, None)],
        readers=1,
        loops=[LoopScene("l0", "post=1 done=2 code=5", [Start(None, [])], 0)],
    )
    round_.play()
    round_.settle()
    round_.await_silence()
    assert checks.examine(round_) == []
    return round_


def test_a_round_that_went_well_has_what_the_checks_look_at(played: Round) -> None:
    ledger = checks.Ledger.read(played.notes / "ledger")

    assert len(ledger.of("posted")) == 8
    ended = ["l0", "l0", "s0", "t0", "t1@one", "t1@two"]
    assert sorted(task for task, _, _ in ledger.of("end")) == ended
    assert len(ledger.of("done")) == 1
    assert [
        run.number("exit_code") for run in played.all_runs() if run.text("task_id") == "s0"
    ] == [5]


def lines_of(round_: Round) -> list[str]:
    return (round_.notes / "ledger").read_text().split("\n")[:-1]


def start_again(round_: Round) -> list[str]:
    return [*lines_of(round_), "start t0 run_x 1"]


def start_same_run(round_: Round) -> list[str]:
    lines = lines_of(round_)
    return [*lines, next(line for line in lines if line.startswith("start s0 "))]


def overlap(round_: Round) -> list[str]:
    return [*lines_of(round_), "overlap t0 run_x 1"]


def lose_a_post(round_: Round) -> list[str]:
    return [*lines_of(round_), "posted MSG-20260101-000000-000000000-PID00001-0001 w0/77"]


def change_a_post(round_: Round) -> list[str]:
    return [line.replace(" w0/3", " w0/4") for line in lines_of(round_)]


def other_code(round_: Round) -> list[str]:
    return [line[:-1] + "6" if line.startswith("end s0 ") else line for line in lines_of(round_)]


def start_after_done(round_: Round) -> list[str]:
    return [*lines_of(round_), "start l0 run_x 1"]


def other_attempt(round_: Round) -> list[str]:
    return [
        line[:-1] + "6" if line.startswith("end l0 ") and line.endswith(" 5") else line
        for line in lines_of(round_)
    ]


LEDGERS: dict[str, tuple[Callable[[Round], list[str]], str]] = {
    "again": (start_again, "paid for twice: t0"),
    "the same": (start_same_run, "started twice"),
    "overlap": (overlap, "two at once"),
    "lost": (lose_a_post, "acknowledged and lost"),
    "changed": (change_a_post, "acknowledged and changed"),
    "code": (other_code, "recorded 5, was 6"),
    "done": (start_after_done, "was started though l0 was done"),
    "attempt": (start_after_done, "an attempt of l0 was lost"),
    "loop's code": (other_attempt, "recorded 5, was 6"),
}


@pytest.mark.parametrize("name", LEDGERS)
def test_what_the_ledger_contradicts_is_found(played: Round, name: str) -> None:
    change, text = LEDGERS[name]
    path = played.notes / "ledger"
    before = path.read_text()
    path.write_text("\n".join(change(played)) + "\n")
    try:
        found = checks.examine(played)
    finally:
        path.write_text(before)

    assert [problem for problem in found if text in problem], found


def test_a_run_that_the_harness_hit_may_be_done_again(played: Round) -> None:
    lines = lines_of(played)
    run_id = next(line.split(" ")[2] for line in lines if line.startswith("end t0 "))
    path = played.notes / "ledger"
    path.write_text("\n".join([*lines, "start t0 run_x 1"]) + "\n")
    played.log.kills.append(Kill("agent", "SIGKILL", 1, run_id))
    try:
        assert checks.examine(played) == []
    finally:
        played.log.kills.clear()
        path.write_text("\n".join(lines) + "\n")


def test_what_is_wrong_in_the_root_is_found(played: Round) -> None:
    run = next(run for run in played.all_runs() if run.text("task_id") == "t0")
    for name, text in ((".x.1.tmp", "left behind"), (runs.LOCK, "left after the end")):
        path = Path(run.file(name))
        path.touch()
        found = checks.examine(played)
        path.unlink()
        assert [problem for problem in found if text in problem], found
    output = Path(run.file("output.md"))
    before = output.read_bytes()
    output.write_bytes(before + b"more\n")
    assert [p for p in checks.examine(played) if "is not what the agent printed" in p]
    output.write_bytes(before)


def test_what_is_wrong_with_a_loop_is_found(played: Round) -> None:
    task = played.task_of(played.scene.loops[0])
    _, attempts = loop_record.read(task)
    last = Path(task.runs_dir, str(attempts[-1]["run"]), runs.RECORD)
    first = str(attempts[0]["run"])
    for path, old, new, text in (
        (last, f'previous_run_id: "{first}"', 'previous_run_id: "other"', f"follows {first}"),
        (Path(task.file(tasks.LOOP)), '"exit_code": 5', '"exit_code": 7', "noted with exit code 7"),
        (
            Path(task.file(tasks.LOOP)),
            'state: "done"',
            'state: "failed"',
            "the loop of l0 is failed",
        ),
        (Path(task.project_bus), propagation.KIND, "other", "0 completions of l0"),
    ):
        before = path.read_bytes()
        assert old.encode() in before, before
        path.write_bytes(before.replace(old.encode(), new.encode()))
        found = checks.examine(played)
        path.write_bytes(before)
        assert [problem for problem in found if text in problem], found


def test_a_reader_that_missed_a_message_is_found(played: Round) -> None:
    [path] = played.log.readers
    before = path.read_text()
    lines = before.split("\n")
    path.write_text("\n".join([lines[0], *lines[2:]]))
    try:
        assert "has seen other messages" in str(checks.examine(played))
    finally:
        path.write_text(before)
    assert len(list(bus.read(str(played.bus)))) == len(lines) - 1


def test_a_process_that_lives_on_is_found(played: Round) -> None:
    environment = {**os.environ, processes.MARK: played.mark}
    sleeper = subprocess.Popen(["sleep", "600"], env=environment)
    try:
        assert sleeper.pid in processes.marked(played.mark)
    finally:
        processes.end_all(played.mark)
        sleeper.wait()

    assert processes.marked(played.mark) == {}
