"""Whole plans of replayed agents: all five kinds at work, with what goes wrong in real nights."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.helpers import ROOT
from tests.plan_root import PlanRoot, Record, offline, sh
from tests.recordings import answering, record

KINDS = ("claude", "codex", "gemini", "perplexity", "xai")
ANSWER = "I have done it.\n\nVERDICT: APPROVE"
ROLES = {
    "implementation": {"agents": ["codex", "claude"]},
    "research": {"agents": ["gemini", "perplexity"], "alternate": True},
    "documentation": {"agents": ["claude"]},
    "testing": {"agents": ["perplexity", "xai"], "alternate": True},
    "review": {"agents": ["claude", "gemini", "xai"], "quorum": 2},
}
FAULTS: Mapping[str, Mapping[str, object]] = {
    "claude": {"fault": "quota", "fault_tasks": ["docs-user"], "fault_reset": 2},
    "codex": {"fault": "crash", "fault_tasks": ["infra-storage"]},
    "gemini": {"fault": "hang", "fault_tasks": ["bootstrap-04"], "fault_at": 0.55},
    "perplexity": {"fault": "login", "fault_tasks": ["test-docker"]},
    "xai": {"fault": "flood", "fault_tasks": ["test-integration"], "flood_bytes": 3_000_000},
}
CODEX_MODEL = "gpt-5-codex"


def recordings(folder: Path) -> Path:
    """A run of each kind of agent, and an earlier one of a task."""
    for kind in KINDS:
        model = CODEX_MODEL if kind == "codex" else ""  # the others tell it themselves
        record(folder / f"run_{kind}", agent=kind, stdout=answering(kind, ANSWER), model=model)
    record(
        folder / "run_one-api-rest",
        agent="codex",
        task_id="api-rest",
        stdout=answering("codex", "The interface is there."),
        model=CODEX_MODEL,
        start_time="2026-11-22T19:00:00Z",
    )
    return folder


def default_plan(root: PlanRoot) -> int:
    """A copy of the default plan whose roles are shared by all kinds; says how many tasks it has."""
    shutil.copytree(ROOT / "prompts", root.path / "prompts")
    root.plan_file = root.path / "prompts" / "plan.yaml"
    plan = yaml.safe_load(root.plan_file.read_text())
    plan.update(project="p", roles=ROLES)
    tasks = [task for stage in plan["stages"] for task in stage["tasks"]]
    for task in tasks:
        if task["id"] == "bootstrap-04":
            task["idle_timeout"] = "6s"
    root.plan_file.write_text(yaml.safe_dump(plan, sort_keys=False))
    return len(tasks)


def rows_of(printed: str) -> dict[str, list[str]]:
    """The rows of the summary by task: agent, tries, time, tokens, cost, result."""
    head, _, rest = printed.partition("\nTASK ")
    assert head
    lines = rest.split("\n\n")[0].split("\n")[1:]
    cells = [re.split(r"  +", line.rstrip()) for line in lines]
    return {row[0]: row[1:] for row in cells}


def rehearse(root: PlanRoot) -> dict[str, list[str]]:
    """Run the default plan with every fault; the rows of its summary."""
    count = default_plan(root)
    folder = recordings(root.path / "recorded")
    entry = {"type": "replay", "recording": str(folder), "speed": 0, "fault_runs": 1}
    agents = {kind: {**entry, **FAULTS[kind]} for kind in KINDS}
    config = root.path / "config.yaml"
    config.write_text(yaml.safe_dump({"agents": agents}))
    done = root.run("--config", config, env={"CONDUCTOR_QUOTA_MARGIN": "0"})
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(done.stdout)
    assert len(rows) == count
    assert f"{count} done;" in done.stdout
    return rows


def test_the_default_plan_survives_every_fault_and_its_summary_tells_who_did_what(
    root: PlanRoot,
) -> None:
    rows = rehearse(root)
    assert {row[-1].partition(",")[0] for row in rows.values()} == {"done"}
    # Who: the first of its role, but for those in whose place another had to be taken.
    assert rows["infra-storage"][:2] == ["codex", "2"]
    assert rows["bootstrap-04"][:2] == ["gemini", "2"]
    assert rows["test-integration"][:2] == ["xai", "1"]
    assert rows["test-docker"][:2] == ["xai (after perplexity)", "2"]
    assert rows["docs-user"][0] == "claude"
    assert rows["review-infra"][:2] == ["claude+gemini+xai", "3"]
    ordinary = set(rows) - {"infra-storage", "bootstrap-04", "test-docker", "docs-user"}
    assert {rows[task][1] for task in ordinary if not task.startswith("review-")} == {"1"}
    # How long, and at what cost: known of every task.
    for row in rows.values():
        assert re.fullmatch(r"[\d.]+ ?(s|min|m|h).*", row[2]), row
        # "+?": a try that broke off told nothing of what it took.
        assert re.fullmatch(r"\d+/\d+(\+\?)?", row[3]), row
        assert re.fullmatch(r"~?\$\d+\.\d+(\+\?)?", row[4]), row
    unknown = {task for task, row in rows.items() if row[4].endswith("?")}
    assert unknown <= {"infra-storage", "bootstrap-04", "test-docker", "docs-user"}
    assert rows["test-integration"][4] == "$0.2500"
    whole = root.run_folder("api-rest") / "output.md"
    assert whole.read_text() == "The interface is there.\n"  # what its own task once answered
    root.assert_nothing_left()

    # What the records tell of each fault.
    def ends(task: str) -> list[object]:
        return [
            root.record(task, n).get("error_class", "") for n in range(len(root.attempts(task)))
        ]

    assert ends("infra-storage") == ["crash", ""]
    assert ends("bootstrap-04") == ["silence", ""]
    assert ends("test-docker") == ["login", ""]
    assert ends("test-integration") == [""]
    assert (root.run_folder("test-integration") / "agent-stdout.txt").stat().st_size > 3_000_000
    assert ends("docs-user") == ["quota", ""]
    first, second = (root.record("docs-user", number) for number in (0, 1))
    assert str(second["start_time"]) >= str(first["reset_time"])  # it waited for its provider


# -- --replay: every agent of a plan is played


def test_a_plan_is_replayed_from_the_folder_of_an_earlier_one(root: PlanRoot) -> None:
    said: Record = {"id": "b", "agent": "offline", "prompt": "Work.\noffline: say hello"}
    tasks: list[Record] = [
        sh("a", "echo from-the-shell; echo made >>made"),
        {**said, "depends_on": ["a"]},
    ]
    root.plan(*tasks, offline("r", "say so"))
    assert root.run(env={"CONDUCTOR_OFFLINE_DELAY": "0"}).returncode == 0

    again = PlanRoot(root.path / "again")
    again.mark = root.mark
    checked: list[Record] = [{**task, "verify": ["echo checked >>checked"]} for task in tasks]
    again.plan(*checked, offline("new"))
    done = again.run("--replay", root.path, "--speed", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert again.lines("made") == []  # nothing is done but what is printed
    assert again.lines("checked") == ["checked", "checked"]  # checks are real
    assert {name: row[0] for name, row in rows_of(done.stdout).items()} == {
        "a": "shell", "b": "offline", "new": "offline",
    }  # fmt: skip
    for task in ("a", "b"):
        before, now = root.run_folder(task), again.run_folder(task)
        assert again.record(task)["replay_of"] == before.name
        for name in ("agent-stdout.txt", "output.md", "transcript.md"):
            assert (now / name).read_bytes() == (before / name).read_bytes()
    assert again.record("a")["agent_name"] == "shell"
    assert again.record("new")["replay_of"] in {root.run_folder(task).name for task in ("b", "r")}
    again.assert_nothing_left()


def test_faults_of_the_config_go_with_a_replayed_plan(root: PlanRoot) -> None:
    folder = recordings(root.path / "recorded")
    config = root.path / "config.yaml"
    agents = {
        "codex": {"type": "replay", "recording": "/gone", "fault": "crash", "fault_runs": 1},
        "gemini": {"token": "no-token-of-ours-1234567890", "model": "other"},
    }
    config.write_text(yaml.safe_dump({"agents": agents}))
    root.plan(
        {"id": "a", "agent": "codex", "prompt": "Work.", "retries": 1},
        {"id": "b", "agent": "gemini", "prompt": "Work."},
    )
    done = root.run("--replay", folder, "--speed", "0", "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(root.attempts("a")) == 2
    assert root.record("a", 0)["error_class"] == "crash"


def test_an_agent_that_takes_the_place_of_all_is_replayed_too(root: PlanRoot) -> None:
    folder = recordings(root.path / "recorded")
    root.plan({"id": "a", "agent": "claude", "prompt": "Work."})
    done = root.run("--replay", folder, "--speed", "0", "--agent", "xai")
    assert done.returncode == 0, done.stdout + done.stderr
    assert root.record("a")["replay_of"] == "run_xai"


def test_a_plan_without_its_recordings_does_not_begin(root: PlanRoot) -> None:
    tasks: list[Record] = [{"id": name, "agent": "claude", "prompt": "Work."} for name in "abc"]
    root.plan(*tasks)
    for folder, text in [
        (root.work, "neither an ended run of task a nor one of agent claude"),
        (root.path / "none", "no recording"),
    ]:
        done = root.run("--replay", folder)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
        assert text in done.stderr
        assert "2 other tasks have none" in done.stderr
    assert not root.runs.exists()


def test_wrong_use_of_replay_is_refused(root: PlanRoot) -> None:
    root.plan({"id": "a", "agent": "claude", "prompt": "Work."})
    for arguments in (["--speed", "2"], ["--replay", root.work, "--speed", "fast"]):
        done = root.run(*map(str, arguments))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "--speed" in done.stderr
    done = root.run("--replay", root.work, "--attach")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_dry_run_of_a_replayed_plan_names_the_agents_of_the_plan(root: PlanRoot) -> None:
    root.plan({"id": "a", "agent": "claude", "prompt": "Work."})
    done = root.run("--replay", recordings(root.path / "recorded"), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    [stage] = json.loads(done.stdout)["stages"]
    assert stage["tasks"][0]["agents"] == ["claude"]
