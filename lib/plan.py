"""A plan: stages of tasks, who does them, and what waits for what.

This is the door to everything about plans; behind it lie the records
(plan_records), what a plan file may say (plan_rules) and its reader
(plan_file), the order of tasks (plan_order), the choice of agents (plan_agents).
"""

from __future__ import annotations

import glob
import hashlib
import os

from lib import ids, prompt_files
from lib.checked import shown
from lib.errors import UserError
from lib.plan_agents import Assignments, Missing, assign_agents
from lib.plan_file import load_plan
from lib.plan_order import Dependencies, critical_path, depends, requirements, waves
from lib.plan_records import Expect, ExpectedFile, Plan, PlanError, Role, Stage, Task
from lib.plan_rules import (
    DEFAULT_ROLES,
    IDLE_TIMEOUT_SECONDS,
    MAX_PARALLEL,
    RETRIES,
    START_INTERVAL_SECONDS,
    TIMEOUT_SECONDS,
    VERIFY_TIMEOUT_SECONDS,
    name_fault,
    project_fault,
)

__all__ = [
    "Assignments",
    "Dependencies",
    "Expect",
    "ExpectedFile",
    "Missing",
    "Plan",
    "PlanError",
    "Role",
    "Stage",
    "Task",
    "assign_agents",
    "critical_path",
    "depends",
    "load_plan",
    "plan_from_prompts",
    "requirements",
    "waves",
]

_STAGE = "all"


def plan_from_prompts(pattern: str, agent: str, project: str | None = None) -> Plan:
    """A plan of one stage with a task for each file that matches `pattern`, in sorted order.

    The tasks work in the current folder, after which the project is named
    unless one is given.  A prompt that an earlier start of the same pattern
    generated beside its source is not taken for one more task.
    Raises PlanError when nothing matches or a file is no usable prompt.
    """
    folder = os.getcwd()
    source = os.path.normpath(os.path.join(folder, pattern))
    faults = []
    if (wrong := name_fault("an agent", agent)) is not None:
        faults.append(f"{shown(source)}:1: {wrong}")
    if project is None:
        project = ids.slug(os.path.basename(folder))
    elif (wrong := project_fault(project)) is not None:
        faults.append(f"{shown(source)}:1: {wrong}")
    texts: dict[str, str] = {}
    for path in _sources(source):
        try:
            texts[path] = prompt_files.read_source(path)
        except UserError as error:
            faults.append(f"{shown(path)}:1: {error}")
    if not texts and not faults:
        faults.append(f"{shown(source)}:1: no prompt file matches; correct the pattern")
    if faults:
        raise PlanError(faults)
    tasks = tuple(
        _prompt_task(task_id, path, agent, folder) for task_id, path in _with_ids(list(texts))
    )
    stage = Stage(id=_STAGE, title=_STAGE, barrier=True, timeout=0.0, tasks=tasks, line=1)
    return Plan(
        path=source,
        sha256=hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest(),
        project=project,
        title=project,
        max_parallel=MAX_PARALLEL,
        start_interval=START_INTERVAL_SECONDS,
        roles=dict(DEFAULT_ROLES),
        stages=(stage,),
    )


def _sources(pattern: str) -> list[str]:
    """The prompt files of a pattern, without those that were generated from another of them."""
    found = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern, recursive=True))
    found = [path for path in found if os.path.isfile(path)]
    generated = {path for path in found if _is_generated(path)}
    made = {
        os.path.join(os.path.dirname(path), f"{task_id}.md")
        for task_id, path in _with_ids([path for path in found if path not in generated])
    }
    return [path for path in found if path not in generated or path not in made]


def _is_generated(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return prompt_files.is_sealed(file.read())
    except OSError:
        return False  # whoever reads it as a prompt will say so


def _with_ids(paths: list[str]) -> list[tuple[str, str]]:
    """An id for each file: the slug of its stem, with a number behind it where that is taken."""
    taken = {_STAGE}
    numbers: dict[str, int] = {}
    named = []
    for path in paths:
        stem = task_id = ids.slug(os.path.splitext(os.path.basename(path))[0])
        while task_id in taken:
            numbers[stem] = numbers.get(stem, 1) + 1
            task_id = f"{stem}-{numbers[stem]}"
        taken.add(task_id)
        named.append((task_id, path))
    return named


def _prompt_task(task_id: str, path: str, agent: str, folder: str) -> Task:
    return Task(
        id=task_id,
        title=shown(os.path.splitext(os.path.basename(path))[0]),
        stage=_STAGE,
        role=None,
        agent=agent,
        prompt=None,
        prompt_file=path,
        template=None,
        vars={},
        depends_on=(),
        cwd=folder,
        timeout=TIMEOUT_SECONDS,
        idle_timeout=IDLE_TIMEOUT_SECONDS,
        retries=RETRIES,
        critical=True,
        env={},
        exclusive=None,
        verify=(),
        verify_timeout=VERIFY_TIMEOUT_SECONDS,
        expect=Expect((), None),
        loop=False,
        line=1,
    )
