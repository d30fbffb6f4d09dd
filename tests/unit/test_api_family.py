"""What a run belongs to, and which agents there are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lib import runs, state
from lib.api import agent_list, family
from lib.plan import load_plan
from tests.api_app import App, faults
from tests.stored_root import RUNNING, StoredRoot, snapshot

SECRET = "ghp_" + "0123456789abcdef" * 2


@pytest.fixture
def root(tmp_path: Path) -> StoredRoot:
    return StoredRoot(tmp_path / "root")


def ok(root: StoredRoot, address: str) -> Any:
    app = App(root.runs_dir)
    reply = app.get(address)
    assert reply.status == 200, (address, reply.body[:300])
    assert faults(address, reply) == []
    return reply.json


def family_of(root: StoredRoot, run: str, query: str = "") -> Any:
    return ok(root, f"/api/v1/runs/{run}/family{query}")


def ids_of(links: list[dict[str, Any]]) -> list[str]:
    return [link["run_id"] for link in links]


def tree(links: list[dict[str, Any]]) -> dict[str, Any]:
    return {link["run_id"]: tree(link["children"]) for link in links}


def make(root: StoredRoot, task: Path, name: str, **fields: Any) -> Path:
    return root.run(task, name=name, project_id=task.parent.name, task_id=task.name, **fields)


def name_of(number: int) -> str:
    return f"20260101-{number:010d}-7-1"


def test_a_run_alone_has_itself(root: StoredRoot) -> None:
    task = root.task("build")
    used: dict[str, Any] = {"input_tokens": 7, "output_tokens": 2, "cost_usd": 0.5, "model": "m-1"}
    run = make(root, task, name_of(1), agent_version="1.2", **used)
    (run / runs.STDOUT).write_text("hello")
    (run / runs.OUTPUT).symlink_to("/etc/hostname")
    found = family_of(root, run.name)
    [link] = found.pop("chain")
    assert found == {
        "run_id": run.name, "project_id": "demo", "task_id": "build", "parents": [],
        "children": [], "more": False, "attempt": None, "plan_task": False,
        "files": [{"name": "stdout", "size": 5}], "signal": None, "exit_code": 0, "agent": "shell",
        "model": "m-1", "agent_version": "1.2", "reason": "", "quorum": None,
    }  # fmt: skip
    assert link["started"].startswith("2026-01-01T12:00:01")
    figures = [link[key] for key in ("cost_usd", "input_tokens", "output_tokens", "status")]
    assert figures == [0.5, 7, 2, "completed"]


def test_parents_children_and_the_chain_are_told_in_order(root: StoredRoot) -> None:
    task, other = root.task("build"), root.task("part")
    top, middle, first, second, third, leaf, late = (name_of(number) for number in range(1, 8))
    make(root, task, top)
    make(root, task, middle, parent_run_id=top)
    make(root, other, first, parent_run_id=middle)
    make(root, other, second, parent_run_id=middle, previous_run_id=first)
    make(root, other, third, parent_run_id=middle, previous_run_id=second)
    make(root, other, leaf, parent_run_id=second)
    make(root, other, late, parent_run_id=second)
    found = family_of(root, second)
    assert ids_of(found["parents"]) == [top, middle]
    assert ids_of(found["chain"]) == [first, second, third]
    assert tree(found["children"]) == {leaf: {}, late: {}}
    assert ids_of(found["children"]) == [leaf, late]
    assert found["attempt"] == {"number": 2, "of": 3}
    below: dict[str, Any] = {first: {}, second: {leaf: {}, late: {}}, third: {}}
    assert tree(family_of(root, top)["children"]) == {middle: below}


def test_records_that_lead_in_a_circle_end(root: StoredRoot) -> None:
    task = root.task("build")
    one, two, three = (name_of(number) for number in (1, 2, 3))
    make(root, task, one, parent_run_id=two, previous_run_id=two)
    make(root, task, two, parent_run_id=one, previous_run_id=one)
    make(root, task, three, parent_run_id=three, previous_run_id=three)
    found = family_of(root, one)
    assert (ids_of(found["parents"]), tree(found["children"])) == ([two], {two: {}})
    alone = family_of(root, three)
    assert (alone["parents"], ids_of(alone["chain"]), alone["children"]) == ([], [three], [])


def test_a_run_of_another_project_with_the_same_id_is_no_relative(root: StoredRoot) -> None:
    for project in ("a", "b"):
        task = root.task("build", project)
        make(root, task, name_of(1))
        child = name_of(2 if project == "a" else 3)
        make(root, root.task("part", project), child, parent_run_id=name_of(1))
    query = "?project_id=b&task_id=build"
    found = family_of(root, name_of(1), query)
    assert (found["project_id"], ids_of(found["children"])) == ("b", [name_of(3)])
    [parent] = family_of(root, name_of(2))["parents"]
    assert parent["project_id"] == "a"
    assert App(root.runs_dir).get(f"/api/v1/runs/{name_of(1)}/family").status == 409


def test_of_too_many_relatives_some_are_told(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "MOST_CHILDREN", 5)
    monkeypatch.setattr(family, "MOST_LEVELS", 2)
    monkeypatch.setattr(family, "MOST_IN_LINE", 3)
    task = root.task("build")
    names = [name_of(number) for number in range(10)]
    for before, name in zip(["", *names], names, strict=False):
        make(root, task, name, parent_run_id=before, previous_run_id=before)
    found = family_of(root, names[0])
    assert tree(found["children"]) == {names[1]: {names[2]: {}}}
    assert ids_of(found["chain"]) == names[:4]
    assert found["more"] is True
    assert ids_of(family_of(root, names[9])["parents"]) == names[6:9]
    for number in range(10, 18):
        make(root, task, name_of(number), parent_run_id=names[9])
    found = family_of(root, names[9])
    assert (len(found["children"]), found["more"]) == (5, True)


def test_a_long_line_of_descendants_can_be_told(root: StoredRoot) -> None:
    task = root.task("build")
    names = [name_of(number) for number in range(300)]
    for before, name in zip(["", *names], names, strict=False):
        make(root, task, name, parent_run_id=before)
    found = family_of(root, names[0])
    depth, children = 0, found["children"]
    while children:
        depth, children = depth + 1, children[0]["children"]
    assert (depth, found["more"]) == (family.MOST_LEVELS, True)


def test_how_a_run_ended_is_told(root: StoredRoot) -> None:
    task = root.task("build")
    killed = make(root, task, name_of(1), status="failed", exit_code=137, error_summary="is gone")
    chosen = make(root, task, name_of(2), status="failed", exit_code=3)
    fine = make(root, task, name_of(3), exit_code=143)
    lost = make(root, task, name_of(4), **RUNNING)
    told = [family_of(root, run.name) for run in (killed, chosen, fine, lost)]
    assert [(one["signal"], one["exit_code"]) for one in told] == [
        ("SIGKILL", 137), (None, 3), (None, 143), (None, None),
    ]  # fmt: skip
    assert told[0]["reason"] == "is gone"
    assert told[3]["reason"]


def test_no_secret_is_told_of_a_family(root: StoredRoot) -> None:
    task = root.task("build")
    make(root, task, name_of(1), status="failed", exit_code=1, error_summary=f"no {SECRET}")
    make(root, task, name_of(2), parent_run_id=name_of(1), model=SECRET)
    before = snapshot(root.path)
    assert SECRET not in json.dumps(family_of(root, name_of(2)))
    assert snapshot(root.path) == before


def attempt(unit: str, run: str, **keys: Any) -> state.Attempt:
    return {"unit": unit, "run": run, "agent": unit.partition("@")[2], "result": "done", **keys}


def test_a_run_of_a_plan_tells_its_attempt_and_its_quorum(root: StoredRoot) -> None:
    who = {"judges": {"agents": ["codex", "claude"], "quorum": 2}}
    tasks = [{"id": "look", "prompt": "x", "role": "judges"}]
    text = {"project": "p", "roles": who, "stages": [{"id": "one", "tasks": tasks}]}
    file = root.path / "plan.yaml"
    file.write_text(json.dumps(text))
    units = ["look@codex", "look@codex", "look@claude"]
    found = [root.run(project_id="p", task_id=name) for name in (*units, "look@claude")]
    plan = load_plan(str(file))
    kept = state.PlanState(str(root.runs_dir), "p")
    (root.runs_dir / "p").mkdir()
    entry = state.TaskState()
    verdicts = [None, "approve", "reject"]
    entry.attempts = [
        attempt(unit, run.name, **({"verdict": verdict} if verdict else {}))
        for unit, run, verdict in zip(units, found, verdicts, strict=False)
    ]
    kept.header = {"plan": plan.path, "plan_sha256": plan.sha256}
    kept.tasks = {"look": entry}
    kept.replace()
    kept.close()
    told = [family_of(root, run.name) for run in found]
    assert [one["plan_task"] for one in told] == [True] * 4
    assert [one["attempt"] for one in told] == [
        {"number": 1, "of": 2}, {"number": 2, "of": 2}, {"number": 1, "of": 1}, None,
    ]  # fmt: skip
    said = {"look@codex": "approve", "look@claude": "reject"}
    assert told[2]["quorum"] == {"needed": 2, "verdict": "reject", "verdicts": said}
    assert told[0]["quorum"]["verdict"] is None


def test_a_family_of_nobody_is_not_there(root: StoredRoot) -> None:
    app = App(root.runs_dir)
    for name, status in (("no-such", 404), (".x", 400), ("x" * 201, 400)):
        assert app.get(f"/api/v1/runs/{name}/family").status == status


# -- agents


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are looked for in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CONDUCTOR_CONFIG", str(tmp_path / "config.yaml"))
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    (tmp_path / "config.yaml").write_text("agents: {}\n")
    return folder


def agents(root: StoredRoot) -> dict[str, Any]:
    return {agent["name"]: agent for agent in ok(root, "/api/v1/agents")["agents"]}


def test_an_agent_is_ready_when_its_program_is_there(root: StoredRoot, programs: Path) -> None:
    before = agents(root)
    assert (before["claude"]["ready"], before["offline"]["ready"]) == (False, True)
    assert "not on PATH" in before["claude"]["problem"]
    assert (before["xai"]["ready"], "XAI_API_KEY" in before["xai"]["problem"]) == (False, True)
    assert not before.keys() & {"command", "replay", "loop"}
    (programs / "claude").write_text("#!/bin/sh\n")
    (programs / "claude").chmod(0o755)
    assert agents(root)["claude"] == {"name": "claude", "ready": True, "problem": ""}


def test_agents_of_the_config_are_listed_without_their_secrets(
    root: StoredRoot, programs: Path, tmp_path: Path
) -> None:
    entry = f"{{type: command, command: [my-agent], token: {SECRET}}}"
    (tmp_path / "config.yaml").write_text(f"agents:\n  helper: {entry}\n  {SECRET}: {entry}\n")
    found = agents(root)
    assert found["helper"]["ready"] is False
    assert "my-agent" in found["helper"]["problem"]
    assert SECRET not in json.dumps(found)


def test_a_config_that_cannot_be_used_lists_no_agents(
    root: StoredRoot, programs: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("agents: [\n")
    answer = ok(root, "/api/v1/agents")
    assert (answer["agents"], answer["can_start"]) == ([], False)
    assert "config.yaml" in answer["problem"]


def test_agents_are_looked_for_once_in_a_while(
    root: StoredRoot, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    look = agent_list._look

    def note(path: str) -> Any:
        looked.append(path)
        return look(path)

    monkeypatch.setattr(agent_list, "_look", note)
    app = App(root.runs_dir)
    for _ in range(3):
        assert app.ok("/api/v1/agents")["can_start"] is True
    assert len(looked) == 1
    app.service.settings.may_start_tasks = False
    assert app.ok("/api/v1/agents")["can_start"] is False
