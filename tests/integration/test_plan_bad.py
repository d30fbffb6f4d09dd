"""Bad plans, bad places, bad moments: refused in one line each, and nothing is changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers import PYTHON, ROOT, wait_until
from tests.plan_root import PlanRoot, Record, sh

WAIT = "while [ ! -e gate ]; do sleep 0.05; done"


def task(task_id: str, more: str = "") -> str:
    return f"      - {{id: {task_id}, agent: shell, prompt: x{more}}}\n"


HEAD = "project: p\nstages:\n  - id: s\n    tasks:\n"

BAD_PLANS = {
    "a cycle": (HEAD + task("a", ", depends_on: [b]") + task("b", ", depends_on: [a]"), ["a", "b"]),
    "an unknown dependency": (HEAD + task("a", ", depends_on: [nobody]"), ["5", "nobody"]),
    "a duplicate id": (HEAD + task("a") + task("a"), ["6", "a"]),
    "a misspelt key": (HEAD + task("a", ", retrys: 2"), ["5", "retrys", "retries"]),
    "a tab": (HEAD + "\t" + task("a"), ["5", "tab"]),
    "two documents": (HEAD + task("a") + "---\nproject: q\n", ["document"]),
    "no tasks": ("project: p\nstages: []\n", ["2"]),
    "nothing at all": ("", []),
    "a project that is no name": (HEAD.replace("p", "A b", 1) + task("a"), []),
    "a task id that is a path": (HEAD + task("../a"), ["5"]),
    "a key of a loop without one": (HEAD + task("a", ", child_wait: 1m"), ["5", "child_wait", "loop: true"]),
    "a loop of no attempts": (HEAD + task("a", ", loop: true, max_restarts: 0"), ["5", "max_restarts"]),
    "a loop that is named like a file of the plan": (HEAD + task("plan.log", ", loop: true"), ["5", "plan.log"]),
    "a review that is a loop": (
        HEAD + "      - {id: a, role: review, prompt: x, loop: true}\n", ["5", "review", "quorum"]),
    "an agent that is the loop": (
        HEAD + "      - {id: a, agent: loop, prompt: x}\n", ["loop is no agent"]),
    "a NUL in a check": (HEAD + task("a", ', verify: ["a\\0b"]'), ["5"]),
    "a NUL in a variable": (HEAD + task("a", ', env: {A: "a\\0b"}'), ["5"]),
    "no UTF-8": (HEAD + task("a", ", title: \udcff"), []),
    "a pattern that is none": (HEAD + task("a", ", expect: {output: '['}"), ["5"]),
    "a later stage's task": (HEAD + task("a", ", depends_on: [b]")
        + "  - id: t\n    tasks:\n" + task("b"), ["5", "b"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PLANS)
def test_a_bad_plan_is_refused_with_file_and_line_and_nothing_is_written(
    root: PlanRoot, name: str
) -> None:
    text, words = BAD_PLANS[name]
    root.plan_file.write_bytes(text.encode("utf-8", "surrogateescape"))
    before = root.tree()

    done = root.run()

    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.split("\n")[:-1]
    assert lines
    for line in lines:
        assert line.startswith(f"run-all-tasks.py: {root.plan_file}:"), line
        assert line.removeprefix(f"run-all-tasks.py: {root.plan_file}:").partition(":")[0].isdigit()
    for word in words:
        assert word in done.stderr
    assert root.tree() == before
    assert sorted(path.name for path in root.path.iterdir()) == ["plan.yaml", "work"]


def test_every_fault_is_told_at_once(root: PlanRoot) -> None:
    root.plan_file.write_text(
        HEAD
        + task("a", ", depends_on: [x, y]")
        + task("a")
        + task("b", ", retrys: 1, verify: 3")
        + "maxparallel: 3\n"
    )

    done = root.run()

    assert done.returncode == 2
    assert len(done.stderr.split("\n")[:-1]) >= 5
    for word in ("x", "y", "retrys", "verify", "maxparallel"):
        assert word in done.stderr


def test_a_plan_that_is_not_there_is_named(root: PlanRoot) -> None:
    done = root.run(root.path / "none.yaml")

    assert done.returncode == 2
    assert done.stderr.startswith("run-all-tasks.py: ")
    assert "none.yaml" in done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_agents_are_named_before_anything_is_written(
    root: PlanRoot, tmp_path: Path
) -> None:
    root.plan(
        {"id": "a", "agent": "claude", "prompt": "x"},
        {"id": "b", "role": "judging", "prompt": "x"},
        roles={"judging": {"agents": ["claude", "shell"], "quorum": 2}},
    )
    before = root.tree()

    done = root.run(env={"PATH": str(tmp_path)})

    assert done.returncode == 3
    assert "claude is not installed: 1 task cannot run (a)" in done.stderr
    assert "2 of claude, shell" in done.stderr
    assert "to install claude: " in done.stderr
    assert "--agent offline" in done.stderr
    assert all(line.startswith("run-all-tasks.py: ") for line in done.stderr.split("\n")[:-1])
    assert root.tree() == before


def test_an_agent_that_nobody_knows_is_refused_with_its_task(root: PlanRoot) -> None:
    root.plan(sh("fine", "true"), {"id": "strange", "agent": "clade", "prompt": "x"})
    before = root.tree()

    done = root.run()

    assert done.returncode == 2
    assert f"{root.plan_file}:1: task strange: unknown agent: clade" in done.stderr
    assert done.stderr.count("\n") == 1
    assert root.tree() == before


def test_one_of_the_agents_of_a_role_being_unknown_is_a_mistake_too(root: PlanRoot) -> None:
    root.plan(
        {"id": "a", "role": "work", "prompt": "x"}, roles={"work": {"agents": ["clade", "shell"]}}
    )

    done = root.run()

    assert done.returncode == 2
    assert "task a (role work): unknown agent: clade" in done.stderr
    assert root.run("--agent", "clade").returncode == 2
    assert root.run("--agent", "shell", "--dry-run").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "nobody"],
        ["--max-parallel", "0"],
        ["--max-parallel", "many"],
        ["--prompts", "*.md"],
        ["plan.yaml", "--prompts", "*.md", "--agent", "shell"],
        ["plan.yaml", "second.yaml"],
        ["--no-such-option"],
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_two(
    root: PlanRoot, arguments: list[str]
) -> None:
    root.plan(sh("a", "true"))
    before = root.tree()
    if arguments[0] == "--prompts":
        command = [*PYTHON, str(ROOT / "run-all-tasks.py"), *arguments, "--root", str(root.path)]
        done = subprocess.run(
            command, cwd=root.path, env=root.environment(), capture_output=True, encoding="utf-8"
        )
    else:
        done = root.run(*arguments)

    assert done.returncode == 2
    assert done.stderr.startswith("run-all-tasks.py: ")
    assert done.stderr.count("\n") == 1
    assert root.tree() == before


# -- places


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_root_that_cannot_be_written_is_named(root: PlanRoot) -> None:
    root.plan(sh("a", "true"))
    root.path.chmod(0o500)
    try:
        done = root.run()
    finally:
        root.path.chmod(0o700)

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(root.path) in done.stderr


@pytest.mark.parametrize("taken", ["runs", "prompts", "runs/p"])
def test_a_file_where_a_folder_is_needed_is_named(root: PlanRoot, taken: str) -> None:
    root.plan(sh("a", "true"))
    (root.path / taken).parent.mkdir(exist_ok=True)
    (root.path / taken).write_text("in the way")

    done = root.run()

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(root.path / taken) in done.stderr
    assert root.lines("ran") == []


def test_too_little_disk_is_told_before_anything_starts(root: PlanRoot) -> None:
    root.plan(sh("a", "touch ran"))

    done = root.run(env={"CONDUCTOR_MIN_FREE_MB": str(10**9)})

    assert done.returncode == 1
    assert "disk is short" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (root.work / "ran").exists()


@pytest.mark.parametrize(
    "name", ["a b", 'it\'s "so"', "$(touch pwned) `id`", "new\nline", "--root", "日本", "%s {x}"]
)
def test_any_name_of_a_root_is_just_a_name(tmp_path: Path, name: str) -> None:
    root = PlanRoot(tmp_path / name)
    root.plan(
        sh("a", "pwd >where; exit 1", verify=["true"]),
        sh("b", "touch b", verify=['test -f "$PWD/b"'], expect={"files": ["b"]}),
    )

    done = root.run("--keep-going", "--max-parallel", "1")

    assert done.returncode == 1, done.stderr
    assert root.states() == {"a": "failed", "b": "done"}
    assert (root.work / "where").read_text() == f"{root.work}\n"
    assert not list(tmp_path.rglob("pwned"))
    issues = (root.path / "docs" / "dev" / "issues.md").read_text()
    assert issues.count("\n## ") == 1
    assert len(root.bus_lines("ERROR ")) == 1
    assert root.run("--dry-run").returncode == 0
    root.assert_nothing_left()


def test_hostile_output_and_stderr_reach_no_terminal_and_break_no_file(root: PlanRoot) -> None:
    evil = "printf '\\033[2J\\033]0;pwned\\007\\377\\n## not a heading\\n---\\n' "
    root.plan(sh("a", f"{evil}; {evil} >&2; exit 1"))

    done = root.run()

    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    issues = (root.path / "docs" / "dev" / "issues.md").read_text()
    assert "\x1b" not in issues
    assert issues.count("\n## ") == 1
    assert "\x1b" not in (root.runs / "p" / "plan.log").read_text()
    assert yaml.safe_load(root.state_file.read_text())["complete"] is True


# -- what only looks


def test_a_dry_run_writes_nothing_and_shows_the_schedule(root: PlanRoot) -> None:
    root.plan(
        stages=[
            {"id": "one", "tasks": [sh("a", "true"), sh("b", "true", depends_on=["a"])]},
            {"id": "two", "barrier": False, "tasks": [sh("c", "true")]},
        ]
    )
    before = root.tree()

    done = root.run("--dry-run", "--max-parallel", "3")

    assert done.returncode == 0
    for text in ("stage one", "wave 1", "wave 2", "after a", "shell", "at most 3 at once"):
        assert text in done.stdout
    assert "critical path (3 tasks): a -> b -> c" in done.stdout
    assert root.tree() == before
    assert sorted(path.name for path in root.path.iterdir()) == ["plan.yaml", "work"]


def test_a_dry_run_after_a_run_shows_what_is_done_and_changes_nothing(root: PlanRoot) -> None:
    root.plan(sh("a", "true"), sh("b", "exit 1"))
    assert root.run().returncode == 1
    before = root.tree()

    done = root.run("--dry-run")

    assert [line.split()[:2] for line in done.stdout.split("\n") if line.startswith("  ")] == [
        ["done", "a"],
        ["wave", "1"],
    ]
    assert root.tree() == before


def test_init_writes_a_plan_that_can_be_run(root: PlanRoot) -> None:
    new = root.path / "new.yaml"

    assert root.run("--init", str(new)).returncode == 0
    again = root.run("--init", str(new))

    assert again.returncode == 1
    assert "exists" in again.stderr
    done = root.run(new, "--agent", "offline", env={"CONDUCTOR_OFFLINE_DELAY": "0"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_folder_of_prompts_is_a_plan(root: PlanRoot) -> None:
    for name in ("First one.md", "second.md"):
        (root.work / name).write_text(f"```sh\ntouch '{name}.ran'\n```\n")
    command = [*PYTHON, str(ROOT / "run-all-tasks.py"), "--root", str(root.path)]

    done = subprocess.run(
        [*command, "--prompts", "*.md", "--agent", "shell"],
        cwd=root.work,
        env=root.environment(),
        capture_output=True,
        encoding="utf-8",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (root.work / "First one.md.ran").exists()
    assert (root.work / "second.md.ran").exists()
    assert (root.runs / "work" / "PLAN-STATE.yaml").exists()


# -- two at once, changed plans, damaged states


def test_the_second_orchestrator_of_a_plan_names_the_first_and_ends(root: PlanRoot) -> None:
    root.plan(sh("a", f"touch begun; {WAIT}"))
    first = root.start()
    wait_until((root.work / "begun").exists, what="the task")

    second = root.run()
    (root.work / "gate").touch()

    assert first.wait(60) == 0
    assert second.returncode == 1
    assert f"pid {first.pid}" in second.stderr
    assert second.stderr.count("\n") == 1


def test_two_plans_that_share_a_task_cannot_run_in_one_root_at_once(root: PlanRoot) -> None:
    other = root.path / "other.yaml"
    root.plan(sh("own", "true"), sh("shared", "true"), project="q")
    root.plan_file.rename(other)
    root.plan(sh("shared", f"touch begun; {WAIT}"))
    first = root.start()
    wait_until((root.work / "begun").exists, what="the task")

    refused = root.run(other)
    (root.work / "gate").touch()

    assert first.wait(60) == 0
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "shared" in refused.stderr
    assert " p " in refused.stderr
    assert root.run(other).returncode == 0


def test_of_two_plans_that_start_together_one_is_refused(root: PlanRoot) -> None:
    names = [root.path / "one.yaml", root.path / "two.yaml"]
    for name in names:
        root.plan(sh("shared", WAIT), project=name.stem)
        root.plan_file.rename(name)

    both = [root.start(name) for name in names]
    wait_until(lambda: any(plan.poll() is not None for plan in both), what="the refusal of one")
    (root.work / "gate").touch()

    assert sorted(plan.wait(60) for plan in both) == [0, 1]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_damaged_state_is_named_and_left_as_it_is_until_it_is_given_up(
    root: PlanRoot, share: float
) -> None:
    root.plan(sh("a", "echo x >>ran"))
    assert root.run().returncode == 0
    whole = root.state_file.read_bytes()
    cut = whole[: int(len(whole) * share)]
    root.state_file.write_bytes(cut)
    before = {name: data for name, data in root.tree().items() if "PLAN.lock" not in name}

    done = root.run()

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(root.state_file) in done.stderr
    assert "--fresh" in done.stderr
    after = {name: data for name, data in root.tree().items() if "PLAN.lock" not in name}
    assert after == before
    assert root.run("--fresh").returncode == 0
    assert root.lines("ran") == ["x", "x"]
    [aside] = root.state_file.parent.glob("PLAN-STATE.2*.yaml")
    assert aside.read_bytes() == cut


def test_starting_over_does_not_leave_a_living_run_behind(root: PlanRoot) -> None:
    root.plan(sh("a", f"touch begun; {WAIT}"))
    first = root.start()
    wait_until((root.work / "begun").exists, what="the task")
    first.kill()
    first.wait()

    refused = root.run("--fresh")

    assert refused.returncode == 1
    assert f"stop-run {root.attempts('a')[0]['run']}" in refused.stderr
    (root.work / "gate").touch()
    assert root.run().returncode == 0
    assert len(root.attempts("a")) == 1


def test_a_changed_plan_is_continued(root: PlanRoot) -> None:
    root.plan(sh("a", "echo a >>ran"), sh("old", "echo old >>ran"), sh("bad", "exit 1"))
    assert root.run("--max-parallel", "1").returncode == 1
    root.plan(sh("a", "echo changed >>ran"), sh("new", "echo new >>ran"), sh("bad", "true"))

    done = root.run()

    assert done.returncode == 0
    assert "changed since they were done, kept as done: a" in done.stdout
    assert "no longer in the plan: old" in done.stdout
    assert root.lines("ran") == ["a", "old", "new"]
    assert root.states() == {"a": "done", "new": "done", "bad": "done"}


def test_only_some_tasks_run_and_the_others_stay_as_they_are(root: PlanRoot) -> None:
    root.plan(
        sh("bad", "exit 1", critical=False),
        sh("a", "echo a >>ran"),
        sh("b", "echo b >>ran", depends_on=["a"]),
        sh("c", "echo c >>ran", depends_on=["bad"]),
    )
    unmet = root.run("--only", "b")
    assert unmet.returncode == 2
    assert "b needs a, which is not done" in unmet.stderr
    assert root.run("--only", "bad").returncode == 1

    assert root.run("--only", "a", "--only", "b").returncode == 0

    assert root.lines("ran") == ["a", "b"]
    assert root.states() == {"bad": "failed", "a": "done", "b": "done", "c": "pending"}
    assert root.run("--only", "c").returncode == 2
    assert root.run("--only", "b").returncode == 0
    assert root.lines("ran") == ["a", "b"]


def test_unmet_needs_refuse_a_fresh_start_before_the_old_state_is_moved(root: PlanRoot) -> None:
    root.plan(sh("a", "true"), sh("b", "true", depends_on=["a"]))
    assert root.run().returncode == 0
    before = root.state_file.read_bytes()

    assert root.run("--fresh", "--only", "b").returncode == 2
    assert root.state_file.read_bytes() == before


def test_a_plan_and_its_root_can_be_moved(root: PlanRoot, tmp_path: Path) -> None:
    root.plan(sh("a", "echo x >>ran"), sh("b", "[ -e fine ] || exit 1"))
    assert root.run().returncode == 1
    (root.work / "fine").touch()
    root.path.rename(tmp_path / "moved")
    root.path = tmp_path / "moved"
    moved = json.loads((root.path / "plan.yaml").read_text())
    moved["defaults"]["cwd"] = str(root.path / "work")
    root.plan_file = root.path / "plan.yaml"
    root.plan_file.write_text(json.dumps(moved))

    assert root.run().returncode == 0
    assert (root.path / "work" / "ran").read_text() == "x\n"


def test_prompts_are_written_and_nothing_starts_with_generate_prompts(root: PlanRoot) -> None:
    root.plan(sh("a", "touch started"))

    done = root.run("--generate-prompts")

    prompt = root.path / "prompts" / "a.md"
    assert (done.returncode, done.stdout) == (0, f"written   {prompt}\n")
    assert "touch started" in prompt.read_text()
    prompt.write_text("mine")
    assert root.run("--generate-prompts").stdout == f"kept      {prompt} (edited by hand)\n"
    assert prompt.read_text() == "mine"
    assert not root.runs.exists()
    assert not root.bus.exists()
    assert not (root.work / "started").exists()


def test_shell_tasks_without_commands_are_all_found_before_anything_runs(root: PlanRoot) -> None:
    root.plan(
        sh("good", "echo good >>ran"),
        {"id": "none", "agent": "shell", "prompt": "Just do it."},
        sh("empty", "", depends_on=["good"]),
    )

    done = root.run()

    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.split("\n")[:-1]
    assert [re.sub(r"^.*plan.yaml:\d+: ", "", line).split(":")[:2] for line in lines] == [
        ["task none", " no sh block in prompt"],
        ["task empty", " sh block is empty"],
    ]
    assert root.lines("ran") == []
    assert not root.state_file.exists()


def test_an_agent_that_is_a_key_alone_is_missing_without_one(root: PlanRoot) -> None:
    task: Record = {"id": "a", "role": "r", "prompt": "Work."}
    root.plan(task, roles={"r": {"agents": ["xai", "offline"]}})

    without = root.run("--dry-run")
    with_key = root.run("--dry-run", env={"XAI_API_KEY": "xai-not-a-real-key"})
    root.plan({"id": "a", "agent": "perplexity", "prompt": "Work."})
    alone = root.run()

    assert "wave 1  a  r  offline" in without.stdout
    assert "wave 1  a  r  xai" in with_key.stdout
    assert alone.returncode == 3
    assert "PERPLEXITY_API_KEY" in alone.stderr
