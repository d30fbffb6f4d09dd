"""The plan: what a plan file may say, every fault with its line, and what waits for what."""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lib import plan_init, plan_rules, yamlio
from lib.checked import Faults, Section, describe, seconds_of, shown
from lib.errors import EXIT_USAGE, UserError
from lib.plan import (
    Expect,
    ExpectedFile,
    Plan,
    PlanError,
    Role,
    Task,
    assign_agents,
    critical_path,
    depends,
    load_plan,
    plan_from_prompts,
    requirements,
    waves,
)
from lib.plan_order import cycles
from lib.prompt_files import sealed

LEAST = "stages: [{id: all, tasks: [{id: a, prompt: Do it.}]}]\n"


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[[str], Plan]:
    def load(text: str) -> Plan:
        path = tmp_path / "plan.yaml"
        path.write_text(text)
        return load_plan(str(path))

    return load


@pytest.fixture
def faults_of(tmp_path: Path) -> Callable[[str], list[str]]:
    """The faults of a plan, with the folder of the test left out of their paths."""

    def load(text: str | bytes) -> list[str]:
        path = tmp_path / "plan.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(PlanError) as caught:
            load_plan(str(path))
        return [fault.replace(f"{tmp_path}{os.sep}", "") for fault in caught.value.faults]

    return load


def only(plan: Plan) -> Task:
    (task,) = plan.tasks.values()
    return task


def repeatable(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - test data, no secret


def chain(*stages: str) -> str:
    """A plan in short: each stage is `id[!]: task task<need,need …`; `!` means no barrier."""
    lines = ["project: short", "stages:"]
    for stage in stages:
        name, _, tasks = stage.partition(":")
        lines.append(f"- id: {name.rstrip('!')}")
        lines.append(f"  barrier: {'false' if name.endswith('!') else 'true'}")
        lines.append("  tasks:")
        for word in tasks.split():
            task_id, _, needs = word.partition("<")
            lines.append(f"  - {{id: {task_id}, agent: shell, prompt: x, depends_on: [{needs}]}}")
    return "\n".join(lines) + "\n"


# ---- what a good plan becomes --------------------------------------------------------------


def test_the_least_plan_gets_every_default(plan_of: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = plan_of(LEAST)
    assert plan.path == str(tmp_path / "plan.yaml")
    assert plan.sha256 == hashlib.sha256(LEAST.encode()).hexdigest()
    assert (plan.max_parallel, plan.start_interval) == (16, 0.2)
    assert list(plan.roles) == ["implementation", "research", "documentation", "testing", "review"]
    assert plan.roles["research"].alternate
    assert plan.roles["review"] == Role("review", ("claude", "gemini", "codex"), False, 2)
    (stage,) = plan.stages
    assert (stage.id, stage.title, stage.barrier, stage.timeout) == ("all", "all", True, 0)
    assert only(plan) == Task(
        id="a",
        title="a",
        stage="all",
        role="implementation",
        agent=None,
        prompt="Do it.",
        prompt_file=None,
        template=None,
        vars={},
        depends_on=(),
        cwd=str(tmp_path),
        timeout=3600,
        idle_timeout=900,
        retries=1,
        critical=True,
        env={},
        exclusive=None,
        verify=(),
        verify_timeout=600,
        expect=Expect((), None),
        loop=False,
        line=1,
    )


def test_every_key_reaches_the_plan(plan_of: Callable[[str], Plan], tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "all.md").write_text("Everything.\n")
    plan = plan_of(
        """\
project: full-1
title: All   of
  it
max_parallel: 3
start_interval: 1.5s
defaults:
  cwd: work
  timeout: 2h
  idle_timeout: 0
  retries: 0
  critical: false
  verify_timeout: 30
  env: {A: "1", B: default}
roles:
  review: {agents: [claude, xai], quorum: 1, alternate: true}
stages:
  - id: one
    title: The first
    barrier: false
    timeout: 8h
    tasks:
      - {id: first, prompt: x, agent: shell}
      - id: second
        title: Second
        role: testing
        prompt_file: all.md
        depends_on: [first, first]
        cwd: .
        timeout: 90s
        idle_timeout: 1.5h
        retries: 4
        critical: true
        env: {B: own, EMPTY: ""}
        exclusive: checkout
        verify: [test -f x, "true"]
        verify_timeout: 5m
        expect: {files: [x, {path: sub/../y, changed: true}], output: "(?m)^OK"}
        loop: true
        max_restarts: 7
        child_wait: 1m
"""
    )
    assert (plan.project, plan.title) == ("full-1", "All of it")
    assert (plan.max_parallel, plan.start_interval) == (3, 1.5)
    assert plan.roles["review"] == Role("review", ("claude", "xai"), True, 1)
    assert len(plan.roles) == 5
    (stage,) = plan.stages
    assert (stage.title, stage.barrier, stage.timeout) == ("The first", False, 28800)
    first, second = stage.tasks
    assert (first.cwd, first.timeout, first.idle_timeout) == (str(tmp_path / "work"), 7200, 0)
    assert (first.retries, first.critical, first.verify_timeout) == (0, False, 30)
    assert (first.env, first.role, first.agent) == ({"A": "1", "B": "default"}, None, "shell")
    assert (second.cwd, second.timeout, second.idle_timeout) == (str(tmp_path), 90, 5400)
    assert (second.retries, second.critical, second.verify_timeout) == (4, True, 300)
    assert second.env == {"A": "1", "B": "own", "EMPTY": ""}
    assert (second.role, second.exclusive, second.loop) == ("testing", "checkout", True)
    assert (second.max_restarts, second.child_wait) == (7, 60)
    assert second.prompt_file == str(tmp_path / "all.md")
    assert second.depends_on == ("first",)
    assert second.verify == ("test -f x", "true")
    files = ExpectedFile(str(tmp_path / "x"), False), ExpectedFile(str(tmp_path / "y"), True)
    assert second.expect == Expect(files, "(?m)^OK")
    assert second.line == 23
    assert plan.quorum_of(second) == 0
    assert plan.quorum_of(first) == 0


@pytest.mark.parametrize(
    ("file", "project"),
    [("plan.yaml", "my-app"), ("Nightly Build.yaml", "nightly-build"), ("---.yml", "default")],
)
def test_a_plan_without_project_is_named_after_its_file_or_folder(
    tmp_path: Path, file: str, project: str
) -> None:
    folder = tmp_path / "My App"
    folder.mkdir()
    (folder / file).write_text(LEAST)
    assert load_plan(str(folder / file)).project == project


def test_a_relative_path_gives_absolute_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.yaml").write_text(LEAST)
    monkeypatch.chdir(tmp_path)
    plan = load_plan("p.yaml")
    assert plan.path == str(tmp_path / "p.yaml")
    assert only(plan).cwd == str(tmp_path)


def test_tasks_stand_in_the_order_of_the_plan(plan_of: Callable[[str], Plan]) -> None:
    plan = plan_of(chain("z: c b", "y: a"))
    assert list(plan.tasks) == ["c", "b", "a"]
    assert plan.tasks is plan.tasks  # made once, not at every look


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90.0),
        (0.2, 0.2),
        ("90", 90.0),
        ("90s", 90.0),
        ("15m", 900.0),
        ("2h", 7200.0),
        ("1.5h", 5400.0),
        ("0", 0.0),
        (-1, None),
        ("-1s", None),
        ("h", None),
        ("", None),
        ("1 h", None),
        ("1d", None),
        ("1h30m", None),
        ("١h", None),
        ("1_0", None),
        ("1e3", None),
        ("9" * 400 + "h", None),
        (10**400, None),
        (float("inf"), None),
        (float("nan"), None),
        (True, None),
        (None, None),
        ([1], None),
    ],
)
def test_durations(value: object, seconds: float | None) -> None:
    assert seconds_of(value) == seconds


# ---- faults --------------------------------------------------------------------------------


def task_with(line: str) -> str:
    """A plan whose only task has one more line: line 7."""
    return (
        "project: demo\n"
        "stages:\n"
        "  - id: all\n"
        "    tasks:\n"
        "      - id: a\n"
        f"        {'agent: shell' if line[:5] != 'agent' else 'title: Title'}\n"
        f"        {line}\n"
        f"{'' if line.startswith(('prompt', 'template')) else '        prompt: Do it.'}\n"
    )


NAMES = "take letters, digits, . _ and -, at most"
DURATION = "write seconds or a time such as 90s, 15m, 1.5h"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("tiemout: 3", "task a: unknown key tiemout; did you mean timeout?"),
        ("1: 3", "task a: the key 1 must be text; put it in quotes"),
        ("agent: 7", "task a: agent must be text, not 7; put it in quotes"),
        ("agent: a/b", f"task a: a/b is no name for an agent; {NAMES} 64"),
        ("title: [x]", "task a: title must be text, not a list"),
        ("title: ' '", "task a: title is empty; fill it in, or remove the key"),
        ("title:", "task a: title must be text, not nothing"),
        ('title: "\\0"', "task a: title holds a NUL or half a surrogate pair; remove that character"),
        ("role: implementation", "task a: role and agent are both set; keep one"),
        ("timeout: -1", f"task a: timeout is no duration: -1; {DURATION}"),
        ("timeout: 1 day", f"task a: timeout is no duration: 1 day; {DURATION}"),
        ("idle_timeout: true", f"task a: idle_timeout is no duration: true; {DURATION}"),
        ("verify_timeout: .inf", f"task a: verify_timeout is no duration: inf; {DURATION}"),
        ("retries: -1", "task a: retries must be a whole number from 0 to 100, not -1"),
        ("retries: 1.5", "task a: retries must be a whole number from 0 to 100, not 1.5"),
        ("retries: true", "task a: retries must be a whole number from 0 to 100, not true"),
        ("critical: 1", "task a: critical must be true or false, not 1"),
        ("loop: 'yes'", "task a: loop must be true or false, not yes"),
        ("depends_on: a-b", "task a: depends_on must be a list, not a-b; write depends_on: [a-b]"),
        ("depends_on: [3]", "task a: depends_on[0] must be text, not 3; put it in quotes"),
        ("depends_on: [a]", "task a: depends on itself; remove that"),
        ("depends_on: [all]", "task a: depends on all, which is a stage; name tasks of it"),
        (
            "depends_on: [zzz]",
            "task a: depends on zzz, which does not exist; correct it, or add that task",
        ),
        ("cwd: nowhere", "task a: cwd nowhere is no folder; make it, or correct the path"),
        ("cwd: plan.yaml", "task a: cwd plan.yaml is no folder; make it, or correct the path"),
        ("env: [A]", "task a: env must be a mapping (key: value), not a list"),
        ("env: {A: 1}", "task a: env: A must be text, not 1; put it in quotes"),
        ("env: {A-B: x}", "task a: env: A-B is no usable name; write it like MY_NAME"),
        ("vars: {x: y}", "task a: vars are for a template only; remove them, or use template"),
        ("exclusive: ''", "task a: exclusive is empty; fill it in, or remove the key"),
        ("verify: make", "task a: verify must be a list, not make; write verify: [make]"),
        ("verify: [make, ' ']", "task a: verify[1] is empty; fill it in, or remove the key"),
        ("expect: x", "task a: expect must be a mapping (key: value), not x"),
        ("expect: {file: [x]}", "task a: expect: unknown key file; did you mean files?"),
        ("expect: {files: x}", "task a: expect: files must be a list, not x; write files: [x]"),
        ("expect: {files: [1]}", "task a: expect: files[0] must be text, not 1; put it in quotes"),
        (
            "expect: {files: [{changed: true}]}",
            "task a: expect: files[0]: no path; add path: with the file's name",
        ),
        (
            "expect: {output: '('}",
            "task a: expect: output is no regular expression: "
            "missing ), unterminated subpattern at position 0; correct it",
        ),
        ("prompt_file: no.md", "task a: prompt_file no.md does not exist; create it, or correct the path"),
        ("prompt_file: .", "task a: prompt_file {folder} is not a file; name a file with the prompt in it"),
        ("prompt: ' '", "task a: prompt is empty; fill it in, or remove the key"),
        ("prompt: [x]", "task a: prompt must be text, not a list"),
        ("template: ../x", "task a: template ../x is no name; give the name of NAME.md without .md"),
    ],
)  # fmt: skip
def test_a_fault_of_a_task_is_told_with_its_line(
    faults_of: Callable[[str], list[str]], tmp_path: Path, line: str, fault: str
) -> None:
    found = faults_of(task_with(line))
    assert found == [f"plan.yaml:7: {fault}".replace("{folder}", str(tmp_path))]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- a\n", "1: the plan must be a mapping (key: value), not a list"),
        ("stages: 7\n", "1: the plan: stages must be a list, not 7; write stages: […]"),
        ("project: p\nstages: []\n", "2: the plan: no stages; a stage is the least that a plan needs here"),
        ("project: p\n", "1: the plan: no stages; a stage is the least that a plan needs here"),
        ("stages:\n- all\n", "2: the plan: a stage must be a mapping (id: …), not all"),
        ("stages:\n- id: s\n", "2: stage s: no tasks; a task is the least that a plan needs here"),
        ("stages:\n- id: s\n  tasks:\n  - x\n", "4: stage s: a task must be a mapping (id: …), not x"),
        ("projekt: p\n" + LEAST, "1: the plan: unknown key projekt; did you mean project?"),
        (
            "xyz: p\n" + LEAST,
            "1: the plan: unknown key xyz; known here: project, title, max_parallel, "
            "start_interval, defaults, roles, stages",
        ),
        (
            "project: My App\n" + LEAST,
            "1: the plan: project My App is not usable; take a-z, 0-9 and -, at most 64, "
            "such as my-app",
        ),
        ("max_parallel: 0\n" + LEAST, "1: the plan: max_parallel must be a whole number from 1 to 256, not 0"),
        ("max_parallel: 257\n" + LEAST, "1: the plan: max_parallel must be a whole number from 1 to 256, not 257"),
        ("start_interval: x\n" + LEAST, f"1: the plan: start_interval is no duration: x; {DURATION}"),
        ("defaults:\n  role: x\n" + LEAST, "2: defaults: unknown key role; known here: cwd, timeout, "
         "idle_timeout, retries, critical, env, verify_timeout"),
        ("defaults:\n  cwd: no\n" + LEAST, "2: defaults: cwd must be text, not false; put it in quotes"),
        ("defaults:\n  cwd: gone\n" + LEAST, "2: defaults: cwd gone is no folder; make it, or correct the path"),
        ("roles: []\n" + LEAST, "1: roles must be a mapping (key: value), not a list"),
        ("roles:\n  r: {}\n" + LEAST, "2: role r: no agents; add agents: [claude]"),
        ("roles:\n  r:\n" + LEAST, "2: role r: no agents; add agents: [claude]"),
        ("roles:\n  r: claude\n" + LEAST, "2: role r must be a mapping (key: value), not claude"),
        ("roles:\n  r: {agents: [a, a]}\n" + LEAST, "2: role r: agent a is named twice; remove one"),
        ("roles:\n  r: {agents: [a b]}\n" + LEAST, f"2: role r: a b is no name for an agent; {NAMES} 64"),
        ("roles:\n  a b: {agents: [x]}\n" + LEAST, f"2: roles: a b is no name for a role; {NAMES} 64"),
        (
            "roles:\n  r:\n    agents: [a, b]\n    quorum: 3\n" + LEAST,
            "4: role r: quorum 3 of 2 agents; name more agents, or lower it",
        ),
        ("stages:\n- tasks: [{id: a, prompt: x}]\n", "2: stage number 1: no id; add id: with a name of its own"),
        (
            "stages:\n- id: s\n  tasks:\n  - prompt: x\n",
            "4: task number 1: no id; add id: with a name of its own",
        ),
        (
            "stages:\n- id: s\n  tasks:\n  - id: 01\n    prompt: x\n",
            "4: task number 1: id must be text, not 1; put it in quotes",
        ),
        (
            "stages:\n- id: s\n  tasks:\n  - id: a@b\n    prompt: x\n",
            "4: task a@b: id a@b holds @, which names the runs of a review; leave it out",
        ),
        (
            "stages:\n- id: s\n  tasks:\n  - prompt: x\n    id: -a\n",
            f"5: task -a: id -a is not usable; {NAMES} 128, the first one a letter or digit",
        ),
        (
            "stages:\n- id: s\n  tasks:\n  - id: s\n    prompt: x\n",
            "4: task s: id s is taken at line 2; choose another",
        ),
        ("stages:\n- id: s\n  tasks:\n  - id: a\n", "4: task a: no prompt; add prompt, prompt_file or template"),
        (
            "stages:\n- id: s\n  tasks:\n  - id: a\n    prompt: x\n    template: y\n",
            "6: task a: both prompt and template; keep one",
        ),
        (
            "stages:\n- id: s\n  tasks:\n  - id: a\n    prompt: x\n    role: tester\n",
            "6: task a: unknown role tester; did you mean testing?",
        ),
        (
            "stages:\n- id: s\n  barrier: 1\n  tasks: [{id: a, prompt: x}]\n",
            "3: stage s: barrier must be true or false, not 1",
        ),
        (
            "stages:\n- id: s\n  timeout: soon\n  tasks: [{id: a, prompt: x}]\n",
            f"3: stage s: timeout is no duration: soon; {DURATION}",
        ),
    ],
)  # fmt: skip
def test_a_fault_above_the_tasks_is_told_with_its_line(
    faults_of: Callable[[str], list[str]], text: str, fault: str
) -> None:
    faults = [found for found in faults_of(text) if "template y" not in found]
    assert faults == [f"plan.yaml:{fault}"]


def test_an_id_of_128_characters_is_the_longest(
    plan_of: Callable[[str], Plan], faults_of: Callable[[str], list[str]]
) -> None:
    text = LEAST.replace("id: a,", f"id: {'a' * 128},")
    assert len(only(plan_of(text)).id) == 128
    (fault,) = faults_of(text.replace("aaa", "aaaa", 1))
    assert fault.startswith("plan.yaml:1: task aaaa")
    assert "at most 128" in fault


def test_every_fault_is_told_at_once_in_the_order_of_the_lines(
    faults_of: Callable[[str], list[str]],
) -> None:
    assert faults_of(
        """\
project: Demo App
max_paralel: 4
stages:
  - id: one
    tasks:
      - id: a
        prompt: x
        depends_on: [later, storrage]
      - id: storage
        role: nobody
        prompt_file: missing.md
        timeout: soon
  - id: two
    tasks:
      - id: later
        prompt: x
      - id: a
        prompt: x
        depends_on: [gone]
"""
    ) == [
        "plan.yaml:1: the plan: project Demo App is not usable; take a-z, 0-9 and -, at most 64, "
        "such as demo-app",
        "plan.yaml:2: the plan: unknown key max_paralel; did you mean max_parallel?",
        "plan.yaml:8: task a: depends on later, which belongs to a later stage; move one of the two",
        "plan.yaml:8: task a: depends on storrage, which does not exist; did you mean storage?",
        "plan.yaml:10: task storage: unknown role nobody; known are implementation, research, "
        "documentation, testing, review",
        "plan.yaml:11: task storage: prompt_file missing.md does not exist; create it, or correct "
        "the path",
        f"plan.yaml:12: task storage: timeout is no duration: soon; {DURATION}",
        "plan.yaml:17: task a: id a is taken at line 6; choose another",
        "plan.yaml:19: task a: depends on gone, which does not exist; correct it, or add that task",
    ]


def test_a_plan_error_is_a_user_error_that_ends_a_script_with_2(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("a: 1\nb: 2\n" + LEAST)
    with pytest.raises(UserError) as caught:
        load_plan(str(tmp_path / "p.yaml"))
    assert isinstance(caught.value, PlanError)
    assert caught.value.exit_code == EXIT_USAGE
    assert len(caught.value.faults) == 2
    assert str(caught.value).split("\n") == caught.value.faults


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "plan.yaml:1: the plan is empty; begin one: ./run-all-tasks.py --init FILE"),
        (
            b"# nothing\n",
            "plan.yaml:1: the plan is empty; begin one: ./run-all-tasks.py --init FILE",
        ),
        (b"a: b\nc: \xff\n", "plan.yaml:2: the plan is not UTF-8; convert it"),
        (b"a:\n\tb: c\n", "plan.yaml:2: "),
        (b"a: b\n---\na: c\n", "plan.yaml:2: "),
        (b"a: b\na: c\n", "plan.yaml:2: "),
        (b"a: [\n", "plan.yaml:"),
        (b"a: \x00\n", "plan.yaml:1: "),
    ],
)
def test_what_is_no_yaml_is_one_fault(
    faults_of: Callable[[bytes], list[str]], data: bytes, fault: str
) -> None:
    (found,) = faults_of(data)
    assert found.startswith(fault)
    assert "\n" not in found


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"\xef\xbb\xbf" + LEAST.encode())
    assert list(load_plan(str(tmp_path / "p.yaml")).tasks) == ["a"]


def test_a_plan_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    cases = {
        str(tmp_path): "the plan is a folder; name the file in it",
        str(tmp_path / "none.yaml"): "no such plan; correct the path, or begin one: "
        "./run-all-tasks.py --init FILE",
        str(tmp_path / "a\0b"): "the plan cannot be read: embedded null byte; mend that",
        str(tmp_path / ("x" * 300)): "the plan cannot be read: File name too long; mend that",
    }
    for path, what in cases.items():
        with pytest.raises(PlanError) as caught:
            load_plan(path)
        assert caught.value.faults == [f"{shown(path)}:1: {what}"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty; write the prompt into it"),
        (b" \n\t\n", "is empty; write the prompt into it"),
        (b"fine\n\xff\n", "is not UTF-8 (line 2); convert it"),
    ],
)
def test_a_prompt_file_that_is_no_prompt_is_a_fault(
    faults_of: Callable[[str], list[str]], tmp_path: Path, data: bytes, what: str
) -> None:
    (tmp_path / "p.md").write_bytes(data)
    assert faults_of(task_with("prompt_file: p.md")) == [
        f"plan.yaml:7: task a: prompt_file p.md {what}"
    ]


def test_a_pipe_as_prompt_file_does_not_block(
    faults_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "p.md")
    (fault,) = faults_of(task_with("prompt_file: p.md"))
    assert fault.startswith("plan.yaml:7: task a: prompt_file p.md is not a file")


def test_a_path_with_control_characters_is_shown_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        load_plan(str(tmp_path / "a\n\x1b[31mb.yaml"))
    (fault,) = caught.value.faults
    assert "a\\n\\x1b[31mb.yaml:1: no such plan" in fault


# ---- templates -----------------------------------------------------------------------------


def write_template(folder: Path, text: str) -> Path:
    path = folder / "prompts" / "templates" / "part.md"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


TEMPLATE_TASK = "template: part\n        vars: {name: parser}"


def test_a_filled_template_is_no_fault(plan_of: Callable[[str], Plan], tmp_path: Path) -> None:
    write_template(tmp_path, "$name ${name} $$5 $task_id $title $project $stage $role $cwd $root\n"
                             "$bus $prompts $bin\n")  # fmt: skip
    task = only(plan_of(task_with(TEMPLATE_TASK)))
    assert (task.template, task.vars) == ("part", {"name": "parser"})


def test_an_unfilled_placeholder_names_file_line_and_placeholder(
    faults_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    write_template(tmp_path, "$name\n$5 for ${other}\n\n$$x $Other $other\n")
    cure = "is not filled; set it in vars, or write $$"
    assert faults_of(task_with(TEMPLATE_TASK)) == [
        "prompts/templates/part.md:2: task a: a $ without a name; write $$ for the sign",
        f"prompts/templates/part.md:2: task a: placeholder $other {cure}other for the text",
        f"prompts/templates/part.md:4: task a: placeholder $Other {cure}Other for the text",
    ]


def test_a_missing_template_names_where_it_was_looked_for(
    faults_of: Callable[[str], list[str]],
) -> None:
    (fault,) = faults_of(task_with("template: nowhere"))
    assert fault.startswith(
        "plan.yaml:7: task a: template nowhere does not exist; create one of "
        "prompts/templates/nowhere.md, templates/nowhere.md, "
    )


def test_an_empty_template_is_a_fault(
    faults_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    write_template(tmp_path, "\n")
    (fault,) = faults_of(task_with("template: part"))
    assert fault == (
        "plan.yaml:7: task a: prompts/templates/part.md is empty; write the prompt into it"
    )


def test_vars_may_not_hide_what_the_plan_sets(
    faults_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    write_template(tmp_path, "$title")
    assert faults_of(task_with("template: part\n        vars:\n          title: x")) == [
        "plan.yaml:9: task a: vars.title is always set by the plan; choose another name"
    ]


# ---- cycles --------------------------------------------------------------------------------


def test_a_cycle_is_named_in_full(faults_of: Callable[[str], list[str]]) -> None:
    text = chain("s: x a<c b<a c<x,b d<c")
    assert faults_of(text) == [
        "plan.yaml:7: tasks wait for each other: a -> c -> b -> a; remove one of these dependencies"
    ]


def test_every_cycle_that_must_be_cut_is_named(faults_of: Callable[[str], list[str]]) -> None:
    found = faults_of(chain("s: a<b b<a,c c<b d<e e<d"))
    assert [re.findall(r"\S+ -> [^;]*", fault) for fault in found] == [
        ["a -> b -> a"], ["b -> c -> b"], ["d -> e -> d"],
    ]  # fmt: skip


def test_cutting_the_named_edges_leaves_no_cycle() -> None:
    chance = repeatable(5)
    for _ in range(300):
        size = chance.randrange(2, 9)
        needs = {
            str(node): tuple(str(n) for n in range(size) if n != node and chance.random() < 0.25)
            for node in range(size)
        }
        for cycle in cycles(needs, 10_000):
            assert cycle[0] == cycle[-1]
            assert len(set(cycle)) == len(cycle) - 1
            for here, there in itertools.pairwise(cycle):
                assert there in needs[here]
        cut = {(cycle[-2], cycle[-1]) for cycle in cycles(needs, 10_000)}
        left = {
            node: tuple(other for other in others if (node, other) not in cut)
            for node, others in needs.items()
        }
        assert cycles(left, 1) == []


def test_a_long_cycle_needs_no_recursion(faults_of: Callable[[str], list[str]]) -> None:
    names = [f"t{number}" for number in range(3000)]
    words = [f"{name}<{names[index - 1]}" for index, name in enumerate(names)]
    (fault,) = faults_of(chain("s: " + " ".join(words)))
    assert fault.count(" -> ") == 3000


# ---- order ---------------------------------------------------------------------------------


def test_waves_follow_barriers_and_dependencies(plan_of: Callable[[str], Plan]) -> None:
    plan = plan_of(chain("one: a b<a c", "two!: d e<d", "three: f", "four: g"))
    assert waves(plan) == [["a", "c"], ["b"], ["d", "f"], ["e", "g"]]


def test_a_stage_without_barrier_is_not_waited_for(plan_of: Callable[[str], Plan]) -> None:
    plan = plan_of(chain("one: a b", "two!: c d", "three: e<d", "four: f"))
    assert requirements(plan, "a") == frozenset()
    assert requirements(plan, "c") == {"a", "b"}
    assert requirements(plan, "e") == {"a", "b", "d"}
    assert requirements(plan, "f") == {"a", "b", "e"}


def test_depends_holds_a_barrier_as_one_number(plan_of: Callable[[str], Plan]) -> None:
    links = depends(plan_of(chain("one: a b<a", "two!: c<a", "three!: d", "four: e", "five: f")))
    assert links.gate == (-1, 0, 0, 0, 3)
    assert links.needs == {"a": (), "b": ("a",), "c": ("a",), "d": (), "e": (), "f": ()}
    assert links.needed_by["a"] == ("b", "c")
    assert links.stage_of == {"a": 0, "b": 0, "c": 1, "d": 2, "e": 3, "f": 4}


def test_the_gates_allow_exactly_what_requirements_allow(plan_of: Callable[[str], Plan]) -> None:
    chance = repeatable(11)
    for _ in range(60):
        stages, known = [], list[str]()
        for number in range(chance.randrange(1, 5)):
            words = []
            for index in range(chance.randrange(1, 4)):
                needs = [name for name in known if chance.random() < 0.2]
                words.append(f"t{number}-{index}<{','.join(needs)}")
                known.append(f"t{number}-{index}")
            stages.append(f"s{number}{chance.choice('! ').strip()}: {' '.join(words)}")
        plan = plan_of(chain(*stages))
        links, done = depends(plan), set[str]()
        while len(done) < len(plan.tasks):
            ready = {name for name in plan.tasks if requirements(plan, name) <= done}
            finished = {
                index
                for index, stage in enumerate(plan.stages)
                if all(task.id in done for task in stage.tasks)
            } | {-1}
            assert ready == {
                name
                for name in plan.tasks
                if done.issuperset(links.needs[name])
                and links.gate[links.stage_of[name]] in finished
            }
            done.add(chance.choice(sorted(ready - done)))


def test_the_critical_path_is_the_longest_chain(plan_of: Callable[[str], Plan]) -> None:
    plan = plan_of(chain("one: a b c<b", "two!: d e<d", "three: f g<a,f"))
    assert critical_path(plan) == ["b", "c", "d", "e"]
    assert critical_path(plan, {"g": 5}) == ["b", "c", "f", "g"]
    assert critical_path(plan, {"a": 9, "f": 3}) == ["a", "f", "g"]


def test_the_critical_path_has_as_many_tasks_as_there_are_waves(
    plan_of: Callable[[str], Plan],
) -> None:
    plan = plan_of(chain("one: a b<a c", "two!: d e<d", "three: f", "four: g h<g,c"))
    path = critical_path(plan)
    assert len(path) == len(waves(plan))
    for before, after in itertools.pairwise(path):
        assert before in requirements(plan, after)


def test_ten_thousand_tasks_behind_a_barrier_cost_no_pairs(tmp_path: Path) -> None:
    first = " ".join(f"a{number}" for number in range(10_000))
    second = " ".join(f"b{number}<a{number}" for number in range(10_000))
    (tmp_path / "p.yaml").write_text(chain(f"one: {first}", f"two: {second}", "three: end"))
    plan = load_plan(str(tmp_path / "p.yaml"))
    links = depends(plan)
    assert [len(wave) for wave in waves(plan)] == [10_000, 10_000, 1]
    assert critical_path(plan) == ["a0", "b0", "end"]
    assert sum(map(len, links.needs.values())) == 10_000
    assert len(requirements(plan, "end")) == 20_000
    assert not assign_agents(plan, lambda agent: "").missing


def test_a_chain_of_ten_thousand_tasks_needs_no_recursion(tmp_path: Path) -> None:
    words = ["t0"] + [f"t{number}<t{number - 1}" for number in range(1, 10_000)]
    (tmp_path / "p.yaml").write_text(chain("all: " + " ".join(words)))
    plan = load_plan(str(tmp_path / "p.yaml"))
    assert len(waves(plan)) == 10_000
    assert len(critical_path(plan)) == 10_000


# ---- agents --------------------------------------------------------------------------------


ROLES = """\
roles:
  build: {agents: [codex, claude]}
  search: {agents: [claude, gemini], alternate: true}
  judge: {agents: [claude, gemini, codex], quorum: 2}
stages:
  - id: s
    tasks:
      - {id: b1, role: build, prompt: x}
      - {id: s1, role: search, prompt: x}
      - {id: b2, role: build, prompt: x}
      - {id: s2, role: search, prompt: x}
      - {id: s3, role: search, prompt: x}
      - {id: j1, role: judge, prompt: x}
      - {id: own, agent: xai, prompt: x}
"""


def here(*names: str, **others: str) -> Callable[[str], str]:
    return lambda agent: "" if agent in names else others.get(agent, "is not installed")


def test_roles_give_agents_in_order_in_turn_and_all_at_once(
    plan_of: Callable[[str], Plan],
) -> None:
    result = assign_agents(plan_of(ROLES), here("codex", "claude", "gemini", "xai"), None)
    assert result.agents == {
        "b1": ("codex", "claude"),
        "s1": ("claude", "gemini"),
        "b2": ("codex", "claude"),
        "s2": ("gemini", "claude"),
        "s3": ("claude", "gemini"),
        "j1": ("claude", "gemini", "codex"),
        "own": ("xai",),
    }
    assert list(result.agents) == ["b1", "s1", "b2", "s2", "s3", "j1", "own"]
    assert (result.decisions, result.missing) == ([], [])


def test_a_missing_agent_falls_to_the_next_and_the_decision_says_so(
    plan_of: Callable[[str], Plan],
) -> None:
    result = assign_agents(plan_of(ROLES), here("claude", "gemini", "xai"))
    assert result.agents["b1"] == ("claude",)
    assert result.agents["j1"] == ("claude", "gemini")
    assert result.decisions == [
        "codex is not installed: 2 tasks of role build go to claude",
        "codex is not installed: 1 task of role judge is judged by claude and gemini",
    ]
    assert result.missing == []


def test_a_missing_fallback_is_no_decision_but_a_missing_turn_is(
    plan_of: Callable[[str], Plan],
) -> None:
    result = assign_agents(plan_of(ROLES), here("codex", "claude", "xai"))
    assert result.decisions == [
        "gemini is not installed: 3 tasks of role search go to claude",
        "gemini is not installed: 1 task of role judge is judged by claude and codex",
    ]
    assert assign_agents(plan_of(ROLES), here("codex", "gemini", "xai")).decisions[0] == (
        "claude is not installed: 3 tasks of role search go to gemini"
    )


def test_what_is_missing_names_agents_and_tasks(plan_of: Callable[[str], Plan]) -> None:
    result = assign_agents(plan_of(ROLES), here("gemini"))
    assert [(gap.agents, gap.tasks) for gap in result.missing] == [
        (("xai",), ("own",)),
        (("codex", "claude"), ("b1", "b2")),
        (("claude", "codex"), ("j1",)),
    ]
    assert [gap.why for gap in result.missing] == [
        "xai is not installed: 1 task cannot run (own)",
        "role build needs one of codex, claude, and none of them is installed: "
        "2 tasks cannot run (b1, b2)",
        "role judge needs 2 of claude, gemini, codex, and only gemini is installed: "
        "1 task cannot run (j1)",
    ]
    assert (result.agents["b1"], result.agents["s2"]) == ((), ("gemini",))


def test_an_agent_without_its_key_is_told_apart_from_one_that_is_not_installed(
    plan_of: Callable[[str], Plan],
) -> None:
    keyless = {"xai": "has no key (set XAI_API_KEY)", "claude": "has no key (set KEY)"}
    result = assign_agents(plan_of(ROLES), here("gemini", **keyless))
    assert [gap.why for gap in result.missing] == [
        "xai has no key (set XAI_API_KEY): 1 task cannot run (own)",
        "role build needs one of codex, claude, and codex is not installed, "
        "claude has no key (set KEY): 2 tasks cannot run (b1, b2)",
        "role judge needs 2 of claude, gemini, codex, and codex is not installed, "
        "claude has no key (set KEY): 1 task cannot run (j1)",
    ]
    assert result.decisions == ["claude has no key (set KEY): 3 tasks of role search go to gemini"]


def test_each_agent_is_looked_up_once_and_only_where_it_is_needed(
    plan_of: Callable[[str], Plan],
) -> None:
    asked = []

    def lack_of(agent: str) -> str:
        asked.append(agent)
        return ""

    assign_agents(plan_of(ROLES), lack_of)
    assert sorted(asked) == ["claude", "codex", "gemini", "xai"]
    asked.clear()
    assign_agents(plan_of(LEAST), lack_of)
    assert asked == ["codex", "claude"]


def test_an_override_takes_every_task_and_judges_in_separate_runs(
    plan_of: Callable[[str], Plan],
) -> None:
    result = assign_agents(plan_of(ROLES), here("offline"), "offline")
    assert result.agents.pop("j1") == ("offline", "offline")
    assert set(result.agents.values()) == {("offline",)}
    assert result.decisions == [
        "2 separate runs of offline stand in for as many different agents in each review: "
        "1 task of role judge"
    ]
    assert result.missing == []


def test_an_override_that_is_missing_names_all_tasks(plan_of: Callable[[str], Plan]) -> None:
    result = assign_agents(plan_of(ROLES), here(), "claude")
    (gap,) = result.missing
    assert gap.agents == ("claude",)
    assert len(gap.tasks) == 7
    assert gap.why == ("claude is not installed: 7 tasks cannot run (b1, s1, b2, s2, s3, …)")


# ---- a plan made of prompt files -----------------------------------------------------------


@pytest.fixture
def prompt_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "My App"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_each_prompt_file_becomes_a_task_in_sorted_order(prompt_folder: Path) -> None:
    for name in ("b.md", "A Task.md", "c.txt", "all.md"):
        (prompt_folder / name).write_text("Do.\n")
    (prompt_folder / "d.md").mkdir()
    plan = plan_from_prompts("*.md", "claude")
    assert plan.project == "my-app"
    (stage,) = plan.stages
    assert stage.id == "all"
    assert list(plan.tasks) == ["a-task", "all-2", "b"]
    task = plan.tasks["a-task"]
    assert (task.title, task.agent, task.role) == ("A Task", "claude", None)
    assert (task.prompt_file, task.cwd) == (str(prompt_folder / "A Task.md"), str(prompt_folder))
    assert (task.timeout, task.retries) == (3600, 1)


def test_files_of_one_name_get_ids_of_their_own(prompt_folder: Path) -> None:
    for number in range(3):
        (prompt_folder / str(number)).mkdir()
        (prompt_folder / str(number) / "prompt.md").write_text("Do.\n")
    (prompt_folder / "prompt-2.md").write_text("Do.\n")
    plan = plan_from_prompts("**/*.md", "shell", "own-name")
    assert plan.project == "own-name"
    assert list(plan.tasks) == ["prompt", "prompt-2", "prompt-3", "prompt-2-2"]


def test_a_prompt_generated_from_another_is_no_task_of_its_own(prompt_folder: Path) -> None:
    (prompt_folder / "My Task.md").write_text("Do.\n")
    plan = plan_from_prompts("*.md", "shell")
    (prompt_folder / "my-task.md").write_text(sealed("# generated\n"))
    assert plan_from_prompts("*.md", "shell") == plan
    (prompt_folder / "My Task.md").unlink()
    assert list(plan_from_prompts("*.md", "shell").tasks) == ["my-task"]


def test_the_hash_follows_the_text_of_the_prompts(prompt_folder: Path) -> None:
    (prompt_folder / "a.md").write_text("Do.\n")
    before = plan_from_prompts("*.md", "shell").sha256
    assert plan_from_prompts("a.md", "shell").sha256 == before
    (prompt_folder / "a.md").write_text("Do it.\n")
    assert plan_from_prompts("*.md", "shell").sha256 != before


def test_a_pattern_that_is_a_file_is_that_file(prompt_folder: Path) -> None:
    (prompt_folder / "a[1].md").write_text("Do.\n")
    assert list(plan_from_prompts("a[1].md", "shell").tasks) == ["a-1"]


def test_what_is_wrong_with_prompt_files_is_told_at_once(prompt_folder: Path) -> None:
    (prompt_folder / "a.md").write_text("")
    (prompt_folder / "b.md").write_bytes(b"\xff")
    with pytest.raises(PlanError) as caught:
        plan_from_prompts("*.md", "a b", "X")
    faults = [fault.replace(f"{prompt_folder}{os.sep}", "") for fault in caught.value.faults]
    assert faults == [
        f"*.md:1: a b is no name for an agent; {NAMES} 64",
        "*.md:1: project X is not usable; take a-z, 0-9 and -, at most 64, such as x",
        "a.md:1: a.md is empty; write the prompt into it",
        "b.md:1: b.md is not UTF-8 (line 1); convert it",
    ]


def test_a_pattern_without_match_is_a_fault(prompt_folder: Path) -> None:
    with pytest.raises(PlanError, match="no prompt file matches; correct the pattern"):
        plan_from_prompts("*.md", "shell")


# ---- the plan that --init writes -----------------------------------------------------------


def test_the_initial_plan_loads_in_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "my-plan.yaml").write_text(plan_init.INIT_PLAN)
    plan = load_plan(str(tmp_path / "my-plan.yaml"))
    assert len(plan.stages) == 3
    assert len(waves(plan)) == 3
    assert re.search(plan.tasks["list-files"].expect.output or "", "x")


def test_the_initial_plan_mentions_every_key_there_is() -> None:
    words = set(re.findall(r"[a-z_]+(?=:)", plan_init.INIT_PLAN))
    assert {key for keys in plan_rules.KEYS.values() for key in keys} <= words


def test_the_initial_plan_tells_the_true_defaults(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(plan_init.INIT_PLAN)
    plan = load_plan(str(path))
    path.write_text(LEAST)
    least = load_plan(str(path))
    assert (plan.max_parallel, plan.start_interval) == (least.max_parallel, least.start_interval)
    ours, theirs = plan.tasks["check-folder"], only(least)
    for key in ("timeout", "idle_timeout", "retries", "critical", "verify_timeout", "cwd"):
        assert getattr(ours, key) == getattr(theirs, key)
    assert {f"{role}" for role in plan_rules.DEFAULT_ROLES} <= set(
        re.findall(r"[a-z]+", plan_init.INIT_PLAN)
    )


# ---- hostile input -------------------------------------------------------------------------

GOOD: dict[object, object] = {
    "project": "demo",
    "title": "T",
    "max_parallel": 3,
    "start_interval": "0.2s",
    "defaults": {"cwd": ".", "timeout": "1h", "env": {"A": "b"}, "retries": 1, "critical": True},
    "roles": {"r": {"agents": ["claude", "codex"], "alternate": True, "quorum": 2}},
    "stages": [
        {
            "id": "one",
            "barrier": True,
            "timeout": 5,
            "tasks": [
                {"id": "a", "role": "r", "prompt": "x", "verify": ["true"], "exclusive": "e"},
                {"id": "b", "agent": "shell", "prompt": "x", "depends_on": ["a"], "loop": True},
            ],
        },
        {
            "id": "two",
            "tasks": [
                {
                    "id": "c",
                    "prompt": "x",
                    "depends_on": ["a", "b"],
                    "expect": {"files": ["f", {"path": "g", "changed": True}], "output": "x"},
                }
            ],
        },
    ],
}

ODD: list[object] = [
    None, True, False, 0, -1, 7, 10**30, 0.5, float("nan"), float("inf"), "", " ", "x", "a", "two",
    "\x1b[31m", "a\nb", "\ud800", "a\0b", "é" * 300, "x" * 5000, "[", "../..", "@", "~",
    [], [[]], [None], ["a", "a"], [{}], {}, {"id": None}, {"id": {"x": 1}}, {None: 1}, {7: {}},
    {"": ""}, {"\ud800": "\0"}, {True: [1]},
]  # fmt: skip


def every_container(data: object) -> list[dict[object, object] | list[object]]:
    if isinstance(data, dict):
        return [data, *(part for item in data.values() for part in every_container(item))]
    if isinstance(data, list):
        return [data, *(part for item in data for part in every_container(item))]
    return []


def spoil(data: object, chance: random.Random) -> None:
    """Replace, add, remove or repeat something at a random place."""
    container = chance.choice(every_container(data))
    odd = copy.deepcopy(chance.choice(ODD))
    if isinstance(container, dict):
        key = chance.choice([*container, "id", "extra", "timeout", 3])
        if chance.random() < 0.2:
            container.pop(key, None)
        else:
            container[key] = odd
    elif container and chance.random() < 0.6:
        container[chance.randrange(len(container))] = odd
    else:
        container.append(copy.deepcopy(chance.choice([odd, *container])))


def plan_or_faults(path: str) -> Plan | list[str]:
    try:
        return load_plan(path)
    except PlanError as error:
        return error.faults


@pytest.mark.parametrize("seed", range(8))
def test_no_data_brings_anything_but_a_plan_or_a_plan_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = repeatable(seed)
    path = str(tmp_path / "plan.yaml")
    Path(path).write_text("x")
    outcomes = set[type]()
    for _ in range(250):
        data = copy.deepcopy(GOOD)
        for _ in range(chance.randrange(4)):
            spoil(data, chance)
        monkeypatch.setattr(yamlio, "load", lambda *args, data=data, **options: data)
        loaded = plan_or_faults(path)
        outcomes.add(type(loaded))
        if isinstance(loaded, Plan):
            assert sum(map(len, waves(loaded))) == len(loaded.tasks)
            assert critical_path(loaded)
            assign_agents(loaded, lambda agent: "gone" * (agent == "codex"))
            repr(loaded).encode()
            continue
        assert loaded
        for fault in loaded:
            assert fault.startswith(f"{path}:")
            assert fault.isprintable()
            assert len(fault) < 3000
    assert outcomes == {Plan, list}


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_bring_anything_but_a_plan_or_a_plan_error(tmp_path: Path, seed: int) -> None:
    chance = repeatable(seed)
    path = tmp_path / "plan.yaml"
    good = plan_init.INIT_PLAN.encode()
    for _ in range(100):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(3)] = bytes(
                chance.choice(b"\t\n :-[]{}\"'#&*!|>%@\x00\xff09az") for _ in range(2)
            )
        path.write_bytes(data)
        loaded = plan_or_faults(str(path))
        assert isinstance(loaded, Plan) or all(fault.isprintable() for fault in loaded)


def test_a_suggestion_is_not_looked_for_without_end() -> None:
    faults = Faults("p", {})
    section = Section(faults, (), {f"titel{n}": 1 for n in range(50)}, "the plan", ["title"])
    assert section.data == {}
    texts = faults.texts()
    assert len(texts) == 50
    assert sum("did you mean title?" in text for text in texts) == 20


def test_a_fault_describes_values_briefly() -> None:
    assert describe("x" * 100) == "x" * 60 + "…"
    assert describe(10**30) == "a huge number"
    assert describe({"a": 1}) == "a mapping"
    assert describe(1.0) == "1"
    assert describe(b"x") == "a bytes"
