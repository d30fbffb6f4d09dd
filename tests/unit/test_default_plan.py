"""The plan that the toolkit brings along, its prompts, the templates and their README."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import prompts
from lib.plan import Plan, Task, load_plan, requirements
from lib.plan_rules import DEFAULT_ROLES, KEYS
from lib.prompt_files import STANDARD_VARIABLES, Template, read_template
from tests.helpers import ROOT

PROMPTS = ROOT / "prompts"
PLAN = PROMPTS / "plan.yaml"
README = PROMPTS / "README.md"

STAGES = {
    "bootstrap": ["bootstrap-01", "bootstrap-02", "bootstrap-03", "bootstrap-04"],
    "infra": ["infra-storage", "infra-config", "infra-messagebus"],
    "agents": [
        "agent-protocol",
        "agent-claude",
        "agent-codex",
        "agent-gemini",
        "agent-perplexity",
        "agent-xai",
    ],
    "runner": ["runner-process", "runner-ralph", "runner-orchestration"],
    "api": ["api-rest", "api-sse", "ui-frontend"],
    "testing": [
        "test-unit",
        "test-integration",
        "test-docker",
        "test-performance",
        "test-acceptance",
    ],
    "documentation": ["docs-user", "docs-dev", "docs-examples"],
}
GATES = [f"review-{stage}" for stage in STAGES]
TASK_IDS = [task for stage, tasks in STAGES.items() for task in [*tasks, f"review-{stage}"]]
WAITS_FOR = {
    "infra-messagebus": ("infra-storage",),
    **dict.fromkeys(STAGES["agents"][1:], ("agent-protocol",)),
    "runner-ralph": ("runner-process",),
    "runner-orchestration": ("runner-ralph",),
    "test-performance": ("test-integration",),
    "test-acceptance": ("test-integration",),
}
SECTIONS = [
    "Objective",
    "Context",
    "Required actions",
    "Success criteria",
    "References",
    "What to log",
]
TEMPLATES = ["implementation", "research", "review"]
MACHINE_PATH = re.compile(r"/(?:home|Users|root|work|opt|srv|mnt|tmp|var)/|[A-Z]:\\")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan(str(PLAN))


@pytest.fixture(params=TASK_IDS)
def body(request: pytest.FixtureRequest) -> str:
    return read_body(request.param)


def read_body(task_id: str) -> str:
    return (PROMPTS / "tasks" / f"{task_id}.md").read_text(encoding="utf-8")


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.+)$", text, re.MULTILINE)


def examples() -> list[str]:
    return re.findall(r"^````yaml\n(.*?)^````$", README.read_text(), re.MULTILINE | re.DOTALL)


def load_example(number: int, folder: Path) -> Plan:
    path = folder / "plan.yaml"
    path.write_text(examples()[number], encoding="utf-8")
    return load_plan(str(path))


def rendered(plan: Plan, task: Task, folder: Path) -> str:
    return prompts.render(
        plan,
        task,
        root=str(folder),
        bus_path=str(folder / "MESSAGE-BUS.md"),
        prompts_dir=str(folder / "prompts"),
        bin_dir=str(ROOT / "bin"),
    )


# ---- the plan ----------------------------------------------------------------


def test_the_thirty_four_tasks_stand_in_the_order_of_the_guide(plan: Plan) -> None:
    assert list(plan.tasks) == TASK_IDS
    assert len(plan.tasks) == 34


def test_each_of_the_seven_stages_has_its_tasks_and_one_gate_at_the_end(plan: Plan) -> None:
    assert [(stage.id, [task.id for task in stage.tasks]) for stage in plan.stages] == [
        (stage, [*tasks, f"review-{stage}"]) for stage, tasks in STAGES.items()
    ]
    assert all(stage.barrier for stage in plan.stages)


def test_a_task_waits_within_its_stage_for_what_it_builds_on_and_for_nothing_else(
    plan: Plan,
) -> None:
    for task in plan.tasks.values():
        if task.id not in GATES:
            assert task.depends_on == WAITS_FOR.get(task.id, ()), task.id


def test_a_gate_waits_for_every_task_of_its_stage(plan: Plan) -> None:
    for stage, tasks in STAGES.items():
        assert plan.tasks[f"review-{stage}"].depends_on == tuple(tasks)


def test_the_gates_and_only_they_are_judged_by_two_agents(plan: Plan) -> None:
    assert [task.id for task in plan.tasks.values() if plan.quorum_of(task)] == GATES
    assert {plan.quorum_of(plan.tasks[gate]) for gate in GATES} == {2}


def test_each_task_has_the_role_that_fits_its_work(plan: Plan) -> None:
    by_role: dict[str | None, list[str]] = {}
    for task in plan.tasks.values():
        by_role.setdefault(task.role, []).append(task.id)
    assert by_role.pop("review") == GATES
    assert by_role.pop("research") == ["bootstrap-04"]
    assert by_role.pop("documentation") == ["bootstrap-02", *STAGES["documentation"]]
    assert by_role.pop("testing") == STAGES["testing"]
    assert list(by_role) == ["implementation"]


def test_the_roles_of_the_plan_are_the_built_in_ones(plan: Plan) -> None:
    assert plan.roles == DEFAULT_ROLES


def test_every_task_works_in_the_folder_that_holds_the_prompts_and_is_limited_in_time(
    plan: Plan,
) -> None:
    for task in plan.tasks.values():
        assert task.cwd == str(ROOT)
        assert 3600 <= task.timeout <= 7200
        assert task.idle_timeout == 900


def test_nothing_in_the_plan_asks_for_more_than_the_offline_agent_can_give(plan: Plan) -> None:
    for task in plan.tasks.values():
        assert not task.verify
        assert not task.expect.files
        assert task.expect.output is None


def test_every_task_has_a_title_of_its_own(plan: Plan) -> None:
    titles = [task.title for task in plan.tasks.values()]
    assert len(set(titles)) == len(titles)
    assert not set(titles) & set(plan.tasks)


# ---- its prompts -------------------------------------------------------------


def test_every_task_has_the_prompt_file_of_its_name_and_there_is_no_other(plan: Plan) -> None:
    named = {task_id: str(PROMPTS / "tasks" / f"{task_id}.md") for task_id in TASK_IDS}
    assert {task.id: task.prompt_file for task in plan.tasks.values()} == named
    assert sorted(path.stem for path in (PROMPTS / "tasks").iterdir()) == sorted(TASK_IDS)


def test_a_prompt_begins_with_its_objective_since_the_heading_is_generated(body: str) -> None:
    assert body.startswith("## Objective\n")
    assert not re.search(r"^# ", body, re.MULTILINE)
    assert not re.search(r"^\*\*Task ID\*\*", body, re.MULTILINE)


def test_a_prompt_has_every_section_in_order(body: str) -> None:
    assert [heading for heading in headings(body) if heading in SECTIONS] == SECTIONS


def test_a_prompt_is_complete_without_being_endless(body: str) -> None:
    assert len(body) > 1500
    assert 40 <= body.count("\n") <= 90


def test_a_prompt_has_numbered_actions_and_success_that_can_be_checked(body: str) -> None:
    actions, criteria = (
        body.split(f"## {start}\n")[1].split("\n## ")[0]
        for start in ("Required actions", "Success criteria")
    )
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", actions, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 6
    assert len(re.findall(r"^- ", criteria, re.MULTILINE)) >= 3


def test_a_prompt_says_what_to_post_and_where_blockers_go(body: str) -> None:
    logging = body.split("## What to log\n")[1]
    for kind in ("PROGRESS", "FACT", "ERROR"):
        assert kind in logging
    assert "docs/dev/issues.md" in body


@pytest.mark.parametrize("task_id", TASK_IDS)
def test_success_needs_green_tests_no_new_warning_and_an_approving_review(task_id: str) -> None:
    criteria = read_body(task_id).split("## Success criteria\n")[1].split("\n## ")[0]
    assert re.search(r"\btests?\b|suite", criteria, re.IGNORECASE)
    assert "warning" in criteria
    if task_id not in GATES:
        assert "review" in criteria
        assert "approve" in criteria


def test_a_prompt_names_no_place_outside_the_repository(body: str) -> None:
    assert not MACHINE_PATH.search(body)
    assert not re.search(r"github\.com|localhost:|~/(?!\.config)", body)


def test_a_prompt_holds_no_directive_that_the_offline_agent_would_obey(body: str) -> None:
    assert not re.search(r"^offline: ", body, re.MULTILINE)


def test_no_two_prompts_are_alike() -> None:
    paragraphs: dict[str, str] = {}
    for task_id in TASK_IDS:
        for paragraph in read_body(task_id).split("\n\n"):
            if len(paragraph) > 200:
                other = paragraphs.setdefault(paragraph, task_id)
                assert other == task_id, f"{task_id} repeats a paragraph of {other}"
    assert len({read_body(task_id) for task_id in TASK_IDS}) == len(TASK_IDS)


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_has_checklists_and_the_rule_of_the_verdict(gate: str) -> None:
    text = read_body(gate)
    assert "last non-blank line of `output.md`" in text.replace("\n", " ")
    assert "\n    VERDICT: APPROVE\n    VERDICT: REJECT\n" in text
    assert text.count("- [ ] ") >= 5


def test_a_generated_prompt_has_no_heading_twice(plan: Plan, tmp_path: Path) -> None:
    for task in plan.tasks.values():
        found = headings(rendered(plan, task, tmp_path))
        assert len(set(found)) == len(found), task.id


# ---- the templates -----------------------------------------------------------


def own_placeholders(template: Template) -> set[str]:
    return {name for name, _ in template.placeholders} - set(STANDARD_VARIABLES)


def read_named_template(name: str) -> Template:
    return read_template(name, (str(PROMPTS / "templates"),))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_a_body_with_the_same_sections_as_the_prompts(name: str) -> None:
    template = read_named_template(name)
    assert not template.stray
    assert template.text.startswith("## Objective\n")
    assert [heading for heading in headings(template.text) if heading in SECTIONS] == SECTIONS


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_readme_lists_the_variables_of_a_template(name: str) -> None:
    table = README.read_text().split("## Templates\n")[1]
    row = re.search(rf"^\| `{name}` \| [^|]+ \| (.+) \|$", table, re.MULTILINE)
    assert row is not None
    assert set(re.findall(r"`(\w+)`", row[1])) == own_placeholders(read_named_template(name))


def test_there_is_no_template_that_the_readme_does_not_show() -> None:
    assert sorted(path.stem for path in (PROMPTS / "templates").iterdir()) == sorted(TEMPLATES)


# ---- the README --------------------------------------------------------------


def test_the_example_of_the_readme_is_a_plan_of_five_tasks_for_the_shell_agent(
    tmp_path: Path,
) -> None:
    plan = load_example(0, tmp_path)
    assert len(plan.tasks) == 5
    assert {task.agent for task in plan.tasks.values()} == {"shell"}
    for task in plan.tasks.values():
        assert re.search(r"^```sh\n.+^```$", task.prompt or "", re.MULTILINE | re.DOTALL)
    assert requirements(plan, "check-report") >= {"write-report", "count-lines", "count-words"}


def test_the_example_with_templates_loads_and_leaves_no_placeholder(tmp_path: Path) -> None:
    plan = load_example(1, tmp_path)
    assert [task.template for task in plan.tasks.values()] == [
        "research",
        "implementation",
        "review",
    ]
    for task in plan.tasks.values():
        assert "$" not in rendered(plan, task, tmp_path)


def documented_keys() -> Iterator[str]:
    for cell in re.findall(r"^\| (`[^|]+?) \|", README.read_text(), re.MULTILINE):
        yield from re.findall(r"`\$?(\w+)`", cell)


def test_the_readme_explains_every_key_of_a_plan() -> None:
    keys = {key for part in KEYS.values() for key in part}
    missing = keys - set(documented_keys()) - {"path", "changed"}
    assert not missing
    assert "{path: report.md, changed: true}" in README.read_text()


def test_the_readme_explains_every_placeholder_and_every_built_in_role() -> None:
    documented = set(documented_keys())
    assert documented >= set(STANDARD_VARIABLES)
    assert documented >= set(DEFAULT_ROLES)
