"""What is kept of how a plan was started, and the command that is made of it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from lib import plan_again
from lib.cli import Values, parse
from lib.commands.run_all_tasks import COMMAND
from lib.errors import UserError

KNOWN = ["a", "b", "c"]
Header = dict[str, object]


def values(line: str) -> Values:
    return parse(COMMAND, shlex.split(line))


def header(line: str = "", earlier: Header | None = None, **more: object) -> Header:
    """The header of a start with this command line, in the root /r."""
    kept = plan_again.manner(values(line), "", earlier or {})
    places = {"root": "/r", "runs_dir": "/r/runs", "bus": "/r/MESSAGE-BUS.md"}
    return {"plan": "/r/plan.yaml", **places, **kept, "exit_code": 1, **more}


def words(found: Header, runs_dir: str = "/r/runs", **chosen: object) -> list[str]:
    return plan_again.start(found, runs_dir, KNOWN, **chosen).words  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--agent offline --keep-going --max-parallel 3",
        "--kill --max-wait 90s",
        "--no-wait --from-stage one --to-stage two",
        "--replay /recorded --speed 2.5 --agent -x",
    ],
)
def test_a_start_is_made_again_with_all_that_says_how_it_is_run(line: str) -> None:
    again = parse(COMMAND, words(header(line)))

    wanted = values(f"/r/plan.yaml --root /r {line}")
    assert vars(again) == vars(wanted)


def test_what_a_start_was_about_is_not_kept() -> None:
    told = header("--only a --fresh --redo-changed --retry-failed --detach --json")

    assert words(told) == ["/r/plan.yaml", "--root", "/r"]


def test_a_recording_is_named_from_wherever_the_next_start_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert words(header("--replay recorded"))[1:3] == ["--replay", str(tmp_path / "recorded")]


def test_a_start_of_single_tasks_leaves_the_stages_of_the_one_before_it() -> None:
    first = header("--to-stage one")
    second = header("--only b", first)

    assert words(second) == ["/r/plan.yaml", "--to-stage", "one", "--root", "/r"]
    assert words(second, only=["c"]) == ["/r/plan.yaml", "--only", "c", "--root", "/r"]
    assert "--to-stage" not in words(header("--agent x", second))


@pytest.mark.parametrize("code", [None, 75, 130])
def test_a_start_that_was_cut_short_goes_on_with_its_own_tasks(code: int | None) -> None:
    told = header("--to-stage one", scope=["c", "gone", "a"], exit_code=code)

    assert words(told) == ["/r/plan.yaml", "--only", "a,c", "--root", "/r"]
    assert "--only" not in words(told, retry_failed=True)


@pytest.mark.parametrize("code", [0, 1])
def test_after_one_that_came_to_its_end_all_is_started(code: int) -> None:
    assert words(header(scope=["a"], exit_code=code)) == ["/r/plan.yaml", "--root", "/r"]


def test_many_tasks_are_named_in_several_words() -> None:
    many = [f"task-{number}" for number in range(450)]

    found = parse(COMMAND, words(header(), only=many))

    assert ",".join(found.items("only")).split(",") == many
    assert len(found.items("only")) == 3


def test_a_runs_folder_elsewhere_is_named_by_variables() -> None:
    told = header(runs_dir="/other/runs", bus="/other/BUS.md")

    found = plan_again.start(told, "/other/runs", KNOWN)

    assert found.words == ["/r/plan.yaml"]
    assert found.line() == (
        "CONDUCTOR_ROOT=/r JRUN_RUNS_DIR=/other/runs JRUN_MESSAGE_BUS=/other/BUS.md "
        "./run-all-tasks.py /r/plan.yaml"
    )


def test_prompts_are_started_in_their_folder() -> None:
    told = header("--agent claude", plan="/r/x y/*.md", prompts_agent="claude", cwd="/r/x y")

    found = plan_again.start(told, "/r/runs", KNOWN)

    assert found.words[:2] == ["--prompts", "/r/x y/*.md"]
    assert found.line().startswith("cd '/r/x y' && /")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"options": None}, "how the plan was started is not noted in its state"),
        ({"plan": "--fresh"}, "the state of the plan does not tell its plan"),
        ({"cwd": ""}, "the state of the plan does not tell its cwd"),
        ({"root": 7}, "the state of the plan does not tell its root"),
        ({"plan": "/a\0b"}, "the state of the plan has under plan what no command line can have"),
        ({"options": {"agent": "\ud800"}}, "has under agent what no command line can have"),
        ({"runs_dir": "/copied/runs"}, "the plan was started in another runs folder, /copied/runs"),
    ],
)
def test_a_state_that_does_not_tell_enough_is_refused(change: Header, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        words({**header(), **change})
