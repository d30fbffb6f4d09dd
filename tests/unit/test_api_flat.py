"""Which runs the tree of the page gets: those that live or are selected, and what they hang on."""

from __future__ import annotations

from pathlib import Path

from lib import runs
from lib.api.facts import RunFacts
from lib.api.flat import Selection
from lib.index_entries import RunEntry
from tests.api_app import App
from tests.stored_root import StoredRoot


def run(
    name: str, task: str, at: int, *, parent: str = "", previous: str = "", lives: bool = False
) -> RunFacts:
    made = RunFacts.__new__(RunFacts)
    made.run_id, made.task, made.parent, made.previous = name, task, parent, previous
    made.activity_ns, made.order, made.is_active = at, (at, name), lives
    return made


def chosen(
    found: list[RunFacts], *, selected: str = "", limit: int = 0, only_active: bool = True
) -> set[str]:
    selection = Selection(found).choose(selected=selected, limit=limit, only_active=only_active)
    return {made.run_id for made in selection}


# plan -> build (started by p1), whose second attempt follows on the first; test was started by b2
TREE = [
    run("p1", "plan", 1),
    run("p2", "plan", 9),
    run("b1", "build", 2, parent="p1"),
    run("b2", "build", 3, previous="b1"),
    run("b3", "build", 8, parent="p2"),
    run("t1", "test", 4, parent="b2"),
    run("t2", "test", 5, previous="t1"),
    run("x1", "alone", 6),
    run("x2", "alone", 7),
]


def test_where_nothing_lives_each_task_has_its_last_run_and_its_anchor() -> None:
    # Of build b3 is both; t1 hangs on b2, and that on b1.
    assert chosen(TREE) == {"p1", "p2", "b1", "b2", "b3", "t1", "t2", "x2"}


def test_what_lives_comes_with_what_it_hangs_on_and_an_anchor_of_each_task() -> None:
    lives = [*TREE, run("x3", "alone", 10, lives=True)]
    # The anchors are b3 and t1, with those above them; x3 itself hangs on nothing.
    assert chosen(lives) == {"x3", "b3", "p2", "t1", "b2", "b1", "p1"}


def test_a_selected_task_alone_has_all_its_runs() -> None:
    found = chosen(TREE, selected="alone", only_active=False)
    assert found == {"x1", "x2"}


def test_of_a_selected_task_the_latest_runs_are_taken_with_their_ancestors() -> None:
    found = chosen(TREE, selected="test", limit=1)
    assert found == {"t2", "t1", "b2", "b1", "p1"}
    assert chosen(TREE, selected="alone", limit=1) == {"x2"}


def test_each_task_on_the_way_up_gets_an_anchor() -> None:
    tree = [
        run("p1", "plan", 1),
        run("b1", "build", 2, parent="p1"),
        run("b2", "build", 5),
        run("t1", "test", 6, parent="b2"),
        run("b3", "build", 9, parent="p1"),
    ]
    # b2 has no parent; b1 is the latest anchor of build that is not later than it.
    assert chosen(tree, selected="test", limit=1) == {"t1", "b2", "b1", "p1"}


def test_what_was_started_by_the_chosen_is_chosen() -> None:
    tree = [
        run("p1", "plan", 1, lives=True),
        run("b1", "build", 2, parent="p1"),
        run("c1", "build", 3, parent="b1"),
        run("o1", "other", 4),
    ]
    assert chosen(tree) == {"p1", "b1", "c1"}


def test_in_idleness_leaves_of_the_same_task_stay_out() -> None:
    tree = [
        run("p1", "plan", 5),
        run("leaf", "plan", 2, parent="p1"),
        run("knot", "plan", 3, parent="p1"),
        run("b1", "build", 4, parent="knot"),
    ]
    assert chosen(tree) == {"p1", "knot", "b1"}


def test_runs_that_hang_on_each_other_in_a_circle_or_on_nothing_end_no_search() -> None:
    tree = [
        run("a", "one", 1, parent="b", previous="a"),
        run("b", "two", 2, parent="a", previous="gone"),
    ]
    assert chosen(tree) == {"a", "b"}
    assert chosen(tree, selected="one", limit=1) == {"a", "b"}


def test_the_limit_is_a_number_or_refused(tmp_path: Path) -> None:
    root = StoredRoot(tmp_path / "root")
    for _ in range(3):
        root.run(root.runs_dir / "demo" / "build", task_id="build")
    app = App(root.runs_dir)
    address = "/api/projects/demo/runs/flat?selected_task_id=build&selected_task_limit="
    assert [len(app.ok(address + limit)["runs"]) for limit in ("", "0", "2", "9999")] == [
        3,
        3,
        2,
        3,
    ]
    for limit in ("-1", "x", "1.5"):
        assert app.get(address + limit).status == 400
    assert app.get("/api/projects/demo/runs/flat?selected_task_id=..").status == 400


def test_a_live_run_is_one_that_runs(tmp_path: Path) -> None:
    root = StoredRoot(tmp_path / "root")
    entry = RunEntry(str(root.run(task_id="build")), None)
    assert not RunFacts(("demo", "build"), entry).is_active
    entry.state = runs.State(runs.RUNNING)
    assert RunFacts(("demo", "build"), entry).is_active
