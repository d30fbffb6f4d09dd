"""What this machine, its configuration and a plan still need, each with its cure.

`examine` looks and changes nothing: what has to be tried is tried in a scratch
folder that is removed again.  Behind it lie the checks of places
(doctor_places) and of agents (doctor_agents).
"""

from __future__ import annotations

import glob
import importlib.machinery
import os
import resource
import shlex
import site
import sys
from collections.abc import Iterator, Sequence

from lib import agents, config, files, paths, prompts, runner, yamlio
from lib.doctor_agents import (
    PLANNED_TYPES,
    agent_checks,
    agent_names,
    read_config,
    summary_checks,
)
from lib.doctor_base import FAIL, NOTE, OK, Check, from_error
from lib.doctor_places import place_checks
from lib.errors import EXIT_USAGE, UserError
from lib.plan import Assignments, Plan, PlanError, assign_agents, load_plan
from lib.plan_rules import MAX_PARALLEL

DESCRIPTORS_PER_AGENT, DESCRIPTORS_BESIDE = 8, 64

__all__ = ["FAIL", "NOTE", "OK", "Check", "examine", "summary"]


def examine(
    *,
    plan_path: str | None = None,
    root_option: str | None = None,
    runs_option: str | None = None,
    config_option: str | None = None,
    agent: str | None = None,
) -> Iterator[Check]:
    """Every check in turn, each as soon as it is made.

    `agent` is the only one looked at, and does every task of the plan; without
    it all are, and a fault of one that the plan does not use is a note.
    """
    root = paths.root(root_option)
    runs_dir = paths.runs_dir(root_option, runs_option)
    plan, plan_faults = _read_plan(plan_path)
    yield from _python_checks()
    yield from _program_checks()
    yield from _terminal_checks()
    yield _open_files_check(plan.max_parallel if plan else MAX_PARALLEL)
    yield from place_checks(root, runs_dir)
    settings, config_checks = read_config(config_option)
    yield from config_checks
    assigned: Assignments | None = None
    unknown: list[str] = []
    if plan:
        assigned, unknown = _assign(plan, settings, agent)
    if agent is not None:
        yield from agent_checks(settings, agent, is_asked_for=True)
    else:
        used = {name for row in assigned.agents.values() for name in row} if assigned else None
        yield from _all_agents_checks(settings, used)
    yield from plan_faults
    if plan and assigned:
        yield from _assignment_checks(plan, assigned, unknown, settings)
        bus = paths.bus_path(root_option)
        yield from _task_checks(plan, root=root, runs_dir=runs_dir, bus_path=bus)


def _all_agents_checks(settings: config.Config, used: set[str] | None) -> Iterator[Check]:
    """Every agent; a fault of one that the plan does not use (None: no plan) is a note."""
    names = agent_names(settings)
    for name in names:
        for check in agent_checks(settings, name, is_asked_for=False):
            is_softened = used is not None and name not in used and check.state == FAIL
            yield Check(check.name, NOTE, check.text, check.cure) if is_softened else check
    yield from summary_checks(settings, names)


def summary(checks: Sequence[Check]) -> str:
    """`12 ok, 2 notes, 1 FAIL`."""
    count = {state: sum(check.state == state for check in checks) for state in (OK, NOTE, FAIL)}
    notes = "1 note" if count[NOTE] == 1 else f"{count[NOTE]} notes"
    return f"{count[OK]} ok, {notes}, {count[FAIL]} FAIL"


# -- Python and programs


def _python_checks() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))  # lib/__init__.py refuses an older one
    yield Check("python", OK, f"{version}, {sys.executable}")
    yield _yaml_check()
    try:
        yamlio.load_foreign("a: &x 1\nb: *x\n", "self-test")
        yield Check("PyYAML", OK, "here, for unusual YAML")
    except UserError:
        yield Check(
            "PyYAML",
            NOTE,
            "missing; only unusual YAML needs it",
            "make setup, or python3 -m pip install PyYAML",
        )
    if _package_is_here("bottle"):
        yield Check("bottle", OK, "here, for the server")
    else:
        text = "missing; only the server needs it"
        yield Check("bottle", NOTE, text, "make setup, or python3 -m pip install bottle")


def _yaml_check() -> Check:
    text = 'a: "x: y"  # why\nb:\n  - 1\n  - [two, {c: null}]\nd: |\n  text\n'
    wanted: dict[str, object] = {"a": "x: y", "b": [1, ["two", {"c": None}]], "d": "text\n"}
    cure = "the toolkit is damaged: compare it with git status, or clone it anew"
    try:
        if yamlio.load(text) == wanted and yamlio.load(yamlio.dump(wanted, depth=2)) == wanted:
            return Check("yaml", OK, "the reader and the writer pass their self-test")
    except UserError as error:
        return Check("yaml", FAIL, str(error), cure)
    return Check("yaml", FAIL, "the reader or the writer fails its self-test", cure)


def _package_is_here(name: str) -> bool:
    """Whether Python finds a package, beyond a bare sys.path too; it is not imported."""
    own = glob.glob(os.path.join(glob.escape(paths.TOOLKIT), ".venv/lib/python3*/site-packages"))
    places = [*sys.path, *site.getsitepackages(), site.getusersitepackages(), *own]
    return importlib.machinery.PathFinder.find_spec(name, places) is not None


def _program_checks() -> Iterator[Check]:
    missing = [path for path in ("/bin/sh", "/bin/mv", "/bin/rm") if not os.access(path, os.X_OK)]
    if missing:
        cure = "install them there; every agent is started through them"
        yield Check("system", FAIL, f"missing: {', '.join(missing)}", cure)
    else:
        yield Check("system", OK, "/bin/sh, /bin/mv and /bin/rm are here")
    search_path = os.environ.get("PATH")
    ps = agents.find_executable("ps", search_path)
    if ps:
        yield Check("ps", OK, ps)
    else:
        state = FAIL if files.portable_only() else NOTE
        text = "not on PATH; processes are looked up with it where there is no /proc"
        yield Check("ps", state, text, "install it (Debian: apt-get install procps)")
    git = agents.find_executable("git", search_path)
    if git:
        yield Check("git", OK, git)
    else:
        yield Check("git", NOTE, "not on PATH; many agents and tasks use it", "install git")


def _terminal_checks() -> Iterator[Check]:
    encoding = (getattr(sys.stdout, "encoding", None) or "unknown").lower()
    if encoding.replace("-", "") != "utf8":
        text = f"prints as {encoding}: other characters are shown as escapes"
        yield Check("encoding", NOTE, text, "use a UTF-8 locale, such as LC_ALL=C.UTF-8")
    if not sys.stdout.isatty():
        yield Check("terminal", OK, "none here: output is plain lines")
        return
    name = os.environ.get("TERM", "")
    size = os.get_terminal_size(sys.stdout.fileno())
    found = f"{size.columns} x {size.lines}, {encoding}, TERM={name}"
    if name in ("", "dumb"):
        yield Check("terminal", NOTE, f"{found}: cannot redraw lines", "set TERM, as in TERM=xterm")
    elif 0 < size.columns < 80:
        yield Check("terminal", NOTE, f"{found}: lines are cut", "80 columns show them better")
    else:
        yield Check("terminal", OK, found)


def _open_files_check(max_parallel: int) -> Check:
    need = max_parallel * DESCRIPTORS_PER_AGENT + DESCRIPTORS_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        shown = "no limit" if soft == resource.RLIM_INFINITY else f"limit {soft}"
        return Check("open files", OK, f"{shown}, about {need} needed for {max_parallel} at once")
    text = f"limit {soft}, but {max_parallel} agents at once need about {need}"
    if hard == resource.RLIM_INFINITY or hard >= need:
        return Check("open files", FAIL, text, f"ulimit -n {need}")
    fitting = max(1, (hard - DESCRIPTORS_BESIDE) // DESCRIPTORS_PER_AGENT)
    cure = f"ulimit -n {hard} and --max-parallel {fitting}, or have the hard limit raised"
    return Check("open files", FAIL, text, cure)


# -- a plan


def _read_plan(path: str | None) -> tuple[Plan | None, list[Check]]:
    if path is None:
        return None, []
    try:
        return load_plan(path), []
    except PlanError as error:
        return None, [from_error("plan", FAIL, UserError(fault)) for fault in error.faults]


def _assign(
    plan: Plan, settings: config.Config, override: str | None
) -> tuple[Assignments, list[str]]:
    """Who does what, and the agents that the plan names and nobody knows."""
    unknown: list[str] = []

    def is_here(name: str) -> bool:
        try:
            runner.resolve_agent(settings, name)
        except UserError as error:
            if error.exit_code == EXIT_USAGE and override is None:
                unknown.append(name)
            return False
        return True

    return assign_agents(plan, is_here, override), unknown


def _assignment_checks(
    plan: Plan, assigned: Assignments, unknown: Sequence[str], settings: config.Config
) -> Iterator[Check]:
    size = f"stages: {len(plan.stages)}, tasks: {len(plan.tasks)}"
    yield Check("plan", OK, f"{plan.path}; {size}")
    for name in unknown:  # run-all-tasks.py refuses such a plan, even where another could stand in
        roles = {role.name for role in plan.roles.values() if name in role.agents}
        tasks = [t for t in plan.tasks.values() if t.agent == name or t.role in roles]
        where = f"{plan.path}:{tasks[0].line}: task {tasks[0].id} asks for {name}"
        is_planned = name in PLANNED_TYPES
        why = "not supported in this version" if is_planned else "neither a type nor in config.yaml"
        cure = "take another agent, define it in config.yaml, or use --agent for every task"
        yield Check("plan agents", FAIL, f"{where}, which is {why}", cure)
    for missing in assigned.missing:
        cures = [_install(settings, name) for name in missing.agents]
        cures.append("or rehearse the plan without any: --agent offline")
        yield Check("plan agents", FAIL, missing.why, "; ".join(cures))
    for decision in assigned.decisions:
        yield Check("plan agents", NOTE, decision)
    if not assigned.missing and not unknown:
        names = sorted({name for row in assigned.agents.values() for name in row})
        yield Check("plan agents", OK, f"every task has one: {', '.join(names)}")


def _install(settings: config.Config, name: str) -> str:
    try:
        backend = agents.load(str(settings.entry(name).get("type") or name))
    except UserError:
        if name in PLANNED_TYPES:
            return f"{name} is not supported in this version"
        return f"put {name} into config.yaml, or correct the name"
    return f"to install {name}: {backend.INSTALL}"


def _task_checks(plan: Plan, *, root: str, runs_dir: str, bus_path: str) -> Iterator[Check]:
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
    folders = dict.fromkeys(task.cwd for task in plan.tasks.values())
    closed = [path for path in folders if not os.access(path, os.W_OK | os.X_OK)]
    for path in closed:
        cure = f"chmod u+rwx {shlex.quote(path)} as its owner, or change cwd in the plan"
        yield Check("plan folders", FAIL, f"{path} cannot be written", cure)
    if not closed:
        yield Check("plan folders", OK, "every working folder can be written")
