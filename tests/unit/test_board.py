"""The board alone: what is released, blocked and counted, whatever the plan and the outcomes."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

import pytest

from lib import state
from lib.board import Board
from lib.plan import Expect, Plan, Stage, Task, requirements
from lib.state import TaskState


def task(task_id: str, stage: str, needs: Sequence[str] = (), critical: bool = True) -> Task:
    return Task(
        id=task_id,
        title=task_id,
        stage=stage,
        role=None,
        agent="shell",
        prompt="x",
        prompt_file=None,
        template=None,
        vars={},
        depends_on=tuple(needs),
        cwd="/",
        timeout=0.0,
        idle_timeout=0.0,
        retries=0,
        critical=critical,
        env={},
        exclusive=None,
        verify=(),
        verify_timeout=0.0,
        expect=Expect((), None),
        loop=False,
        line=1,
    )


def plan_of(*stages: tuple[bool, Mapping[str, Sequence[str]]], optional: str = "") -> Plan:
    """A plan of stages (barrier, {task: needs}); `optional` names those that are not critical."""
    made = []
    for number, (barrier, tasks) in enumerate(stages):
        name = f"stage{number}"
        members = tuple(task(i, name, needs, i not in optional) for i, needs in tasks.items())
        made.append(Stage(id=name, title=name, barrier=barrier, timeout=0.0, tasks=members, line=1))
    return Plan(
        path="/p.yaml",
        sha256="",
        project="p",
        title="p",
        max_parallel=16,
        start_interval=0.0,
        roles={},
        stages=tuple(made),
    )


def board_of(
    plan: Plan, done: Collection[str] = (), scope: Collection[str] | None = None, keep: bool = False
) -> Board:
    tasks = {task_id: TaskState() for task_id in plan.tasks}
    for task_id in done:
        tasks[task_id].state = state.DONE
    return Board(plan, tasks, plan.tasks if scope is None else scope, keep)


def states(board: Board) -> dict[str, str]:
    return {task_id: entry.state for task_id, entry in board.tasks.items()}


def test_a_task_is_released_when_the_last_of_its_needs_is_done() -> None:
    board = board_of(plan_of((True, {"a": [], "b": [], "c": ["a", "b"]})))

    assert board.released() == ["a", "b"]
    assert board.succeed("a") == []
    assert board.succeed("b") == ["c"]


def test_a_barrier_opens_when_the_last_task_of_its_stage_ends() -> None:
    board = board_of(plan_of((True, {"a": [], "b": []}), (True, {"c": []}), (True, {"d": []})))

    assert board.succeed("b") == []
    assert board.ended_stages == []
    assert board.succeed("a") == ["c"]
    assert board.ended_stages == ["stage0"]
    assert board.succeed("c") == ["d"]


def test_a_stage_without_a_barrier_is_passed_but_those_before_it_are_not() -> None:
    board = board_of(plan_of((True, {"a": []}), (False, {"b": []}), (True, {"c": ["b"], "d": []})))

    assert board.released() == ["a"]
    assert board.succeed("a") == ["b", "d"]
    assert board.succeed("b") == ["c"]


def test_what_needs_a_failed_task_is_blocked_with_the_name_of_what_it_needs() -> None:
    board = board_of(plan_of((True, {"a": [], "b": ["a"], "c": ["b"], "d": []})))

    board.fail("a", "it broke")

    assert states(board) == {"a": "failed", "b": "blocked", "c": "blocked", "d": "pending"}
    assert board.tasks["a"].why == "it broke"
    assert board.tasks["c"].why == "needs b, which did not succeed"
    assert board.failed_task == "a"


def test_a_stage_whose_tasks_failed_or_are_blocked_has_ended() -> None:
    plan = plan_of((True, {"a": [], "b": ["a"]}), (True, {"c": ["b"]}), (True, {"d": []}))
    board = board_of(plan, keep=True)

    assert board.fail("a", "x") == ["d"]
    assert board.ended_stages == ["stage0", "stage1"]
    assert not board.failed_task


def test_a_task_that_is_not_critical_stops_only_what_needs_it() -> None:
    board = board_of(plan_of((True, {"a": []}), (True, {"b": []}), optional="a"))

    assert board.fail("a", "x") == ["b"]
    assert not board.failed_task


def test_only_the_tasks_of_the_scope_are_released_and_counted() -> None:
    plan = plan_of((True, {"a": [], "b": []}), (True, {"c": ["a"], "d": []}))
    board = board_of(plan, done=["a"], scope=["c"])

    assert board.released() == ["c"]  # b, unfinished, is in no scope: its barrier is none now
    assert not board.is_complete()
    assert board.succeed("c") == []
    assert board.is_complete()
    assert board.count(state.DONE) == 1


def test_the_rest_is_explained_without_overwriting_a_better_reason() -> None:
    board = board_of(plan_of((True, {"a": [], "b": [], "c": ["a"]})))
    board.set("b", state.PENDING, "tried again after: it broke")
    board.fail("a", "x")

    board.explain_the_rest("not started: interrupted")

    assert board.tasks["b"].why == "tried again after: it broke"
    assert board.tasks["c"].why == "needs a, which did not succeed"


# -- any plan, any outcome


def random_plan(dice: random.Random) -> Plan:
    stages = []
    names: list[str] = []
    optional = []
    for _ in range(dice.randint(1, 6)):
        tasks = {}
        for _ in range(dice.randint(1, 6)):
            name = f"t{len(names)}"
            tasks[name] = dice.sample(names, min(len(names), dice.choice([0, 0, 1, 2, 3])))
            names.append(name)
            if dice.random() < 0.3:
                optional.append(name)
        stages.append((dice.random() < 0.6, tasks))
    return plan_of(*stages, optional=" ".join(f"{name} " for name in optional))


def random_scope(dice: random.Random, plan: Plan, done: Collection[str]) -> set[str]:
    """Some tasks, each with all it needs: what the command line makes sure of."""
    if dice.random() < 0.5:
        return set(plan.tasks)
    scope = {name for name in plan.tasks if dice.random() < 0.4}
    for task_id in reversed(list(plan.tasks)):
        if task_id in scope:
            scope.update(need for need in plan.tasks[task_id].depends_on if need not in done)
    return scope


@pytest.mark.parametrize("seed", range(100))
def test_any_plan_keeps_its_order_and_comes_to_an_end_that_adds_up(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311
    plan = random_plan(dice)
    done = {name for name in plan.tasks if dice.random() < 0.2}
    scope = random_scope(dice, plan, done)
    keep_going = dice.random() < 0.5
    board = board_of(plan, done, scope, keep_going)
    needs = {name: set(plan.tasks[name].depends_on) for name in plan.tasks}
    before = {name: requirements(plan, name) & scope - needs[name] for name in plan.tasks}
    ready = board.released()
    running: list[str] = []
    started: list[str] = []
    ended_stages: list[str] = []

    while running or (ready and not board.failed_task):
        if ready and not board.failed_task and (not running or dice.random() < 0.6):
            name = ready.pop(dice.randrange(len(ready)))
            assert name in scope
            assert name not in started
            assert all(board.tasks[need].state == state.DONE for need in needs[name])
            assert all(board.tasks[other].state in state.ENDED for other in before[name])
            board.set(name, state.RUNNING)
            started.append(name)
            running.append(name)
            continue
        name = running.pop(dice.randrange(len(running)))
        released = board.fail(name, "x") if dice.random() < 0.2 else board.succeed(name)
        assert len(set(released)) == len(released)
        assert not set(released) & {*ready, *running, *started}
        ready += released
        ended_stages += board.ended_stages
        board.ended_stages.clear()
        assert sorted(ready) == sorted(board.released())  # what was told step by step is all

    counts = {name: board.count(name) for name in (state.DONE, state.FAILED, state.BLOCKED)}
    counts[state.PENDING] = board.count(state.PENDING)
    assert sum(counts.values()) == len(scope)
    assert board.is_complete() == (counts[state.DONE] == len(scope))
    assert len(set(ended_stages)) == len(ended_stages)
    failed = {name for name in scope if board.tasks[name].state == state.FAILED}
    critical = {name for name in failed if plan.tasks[name].critical}
    assert bool(board.failed_task) == (bool(critical) and not keep_going)
    if not board.failed_task:
        assert counts[state.PENDING] == 0  # everything that could run has run
    for name in scope - done:
        lost = [need for need in needs[name] if board.tasks[need].state != state.DONE]
        if board.tasks[name].state == state.BLOCKED:
            assert lost
        if not board.failed_task and not lost:
            assert name in started
    assert all(board.tasks[name].state == state.PENDING for name in set(plan.tasks) - scope - done)
