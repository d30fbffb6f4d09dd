"""Whether a plan could run here: its faults, agents, prompts, folders and checks.

Nothing of it is run; the shell is asked whether it understands a check, and
does not execute it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from lib import agents, config, paths, prompts
from lib.doctor_base import FAIL, NOTE, OK, VERSION_SECONDS, Check, from_error
from lib.errors import UserError
from lib.plan import Assignments, Missing, Plan, PlanError, Task, load_plan

MOST_NAMED = 3  # tasks that a sentence names


def read_plan(path: str | None) -> tuple[Plan | None, list[Check]]:
    """The plan, and each of its faults; None where there is none that could run."""
    if path is None:
        return None, []
    try:
        return load_plan(path), []
    except PlanError as error:
        return None, [from_error("plan", FAIL, UserError(fault)) for fault in error.faults]


def plan_checks(plan: Plan, *, root: str, runs_dir: str, bus_path: str) -> Iterator[Check]:
    """What does not depend on agents."""
    size = f"{len(plan.stages)} stages, {len(plan.tasks)} tasks"
    yield Check("plan", OK, f"{plan.path} ({size})")
    yield from _prompt_checks(plan, root=root, runs_dir=runs_dir, bus_path=bus_path)
    yield from _folder_checks(plan)
    yield from _verify_checks(plan)


def assignment_checks(
    plan: Plan,
    assigned: Assignments,
    unknown: Sequence[str],
    settings: config.Config,
    faulty: Mapping[str, Check],
) -> Iterator[Check]:
    """Whether every task has an agent; `faulty` are those that are here and cannot work."""
    found = [
        *(_unknown_check(plan, name) for name in unknown),
        *(_missing_check(plan, missing, settings) for missing in assigned.missing),
        *_faulty_checks(plan, assigned, faulty),
    ]
    yield from found
    for decision in assigned.decisions:
        yield Check("plan agents", NOTE, decision)
    if not found:
        names = sorted({name for row in assigned.agents.values() for name in row})
        yield Check("plan agents", OK, f"every task has one: {', '.join(names)}")


def _place(plan: Plan, task: Task) -> str:
    return f"{plan.path}:{task.line}: task {task.id}"


def _unknown_check(plan: Plan, name: str) -> Check:
    # run-all-tasks.py refuses such a plan, even where another could stand in.
    roles = {role.name for role in plan.roles.values() if name in role.agents}
    tasks = [t for t in plan.tasks.values() if t.agent == name or t.role in roles]
    text = f"{_place(plan, tasks[0])} asks for {name}, which is neither a type nor in config.yaml"
    cure = "take another agent, define it in config.yaml, or use --agent for every task"
    return Check("plan agents", FAIL, text, cure)


def _missing_check(plan: Plan, missing: Missing, settings: config.Config) -> Check:
    """With the installation of as many agents as are needed, in the plan's order."""
    task = plan.tasks[missing.tasks[0]]
    here = len(plan.roles[task.role].agents) - len(missing.agents) if task.role else 0
    needed = max(1, plan.quorum_of(task) - here)
    cures = [_install(settings, name) for name in missing.agents[:needed]]
    return Check(
        "plan agents", FAIL, missing.why, f"{'; '.join(cures)}; or rehearse it with --agent offline"
    )


def _install(settings: config.Config, name: str) -> str:
    try:
        options = settings.entry(name)
        backend = agents.load(str(options.get("type") or name))
    except UserError:
        return f"put {name} into config.yaml, or correct the name"
    return agents.install_hint(backend, options)


def _faulty_checks(
    plan: Plan, assigned: Assignments, faulty: Mapping[str, Check]
) -> Iterator[Check]:
    """The tasks for which too few agents are left without those that cannot work."""
    stuck: dict[tuple[str, ...], list[str]] = {}
    for task_id, row in assigned.agents.items():
        failing = tuple(sorted({name for name in row if name in faulty}))
        working = [name for name in row if name not in faulty]
        if failing and len(working) < max(1, plan.quorum_of(plan.tasks[task_id])):
            stuck.setdefault(failing, []).append(task_id)
    for names, tasks in stuck.items():
        named = ", ".join(tasks[:MOST_NAMED]) + (", …" if len(tasks) > MOST_NAMED else "")
        count = "1 task" if len(tasks) == 1 else f"{len(tasks)} tasks"
        text = f"{' and '.join(names)} cannot work here: {count} cannot run ({named})"
        cures = dict.fromkeys(faulty[name].cure for name in names if faulty[name].cure)
        yield Check("plan agents", FAIL, text, "; ".join(cures))


def _prompt_checks(plan: Plan, *, root: str, runs_dir: str, bus_path: str) -> Iterator[Check]:
    faults = []
    for task in plan.tasks.values():
        try:
            prompts.render(
                plan,
                task,
                root=root,
                bus_path=bus_path,
                prompts_dir=os.path.join(root, "prompts"),
                bin_dir=os.path.join(paths.TOOLKIT, "bin"),
                runs_dir=runs_dir,
            )
        except UserError as error:
            faults.append(from_error("plan prompts", FAIL, error))
    yield from faults or [Check("plan prompts", OK, f"{len(plan.tasks)} can be written")]


def _folder_checks(plan: Plan) -> Iterator[Check]:
    folders = dict.fromkeys(task.cwd for task in plan.tasks.values())
    closed = [path for path in folders if not os.access(path, os.W_OK | os.X_OK)]
    for path in closed:
        cure = f"chmod u+rwx {shlex.quote(path)} as its owner, or change cwd in the plan"
        yield Check("plan folders", FAIL, f"{path} cannot be written", cure)
    if not closed:
        yield Check("plan folders", OK, "every working folder can be written")


def _verify_checks(plan: Plan) -> Iterator[Check]:
    """Commands that the shell does not even understand: they would fail whatever an agent did."""
    first = {command: task for task in plan.tasks.values() for command in reversed(task.verify)}
    faults = []
    for command, task in first.items():
        problem = _syntax_fault(command)
        if problem:
            text = f"{_place(plan, task)}: verify: {problem}"
            faults.append(Check("plan checks", FAIL, text, f"correct it: {command[:200]}"))
    yield from faults
    if first and not faults:
        yield Check("plan checks", OK, f"sh understands every verify command ({len(first)})")


def _syntax_fault(command: str) -> str:
    """What sh says of a command that it reads and, told by -n, does not execute; "" = nothing."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-n", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            timeout=VERSION_SECONDS,
            check=False,
        )
    except ValueError:
        return "it holds a NUL"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"sh cannot read it: {error}"
    said = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
    return said or f"sh ended with {done.returncode}" if done.returncode else ""
