"""run-all-tasks.py: run a plan, up to 16 agents at once, and go on where an earlier start stopped."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Sequence

from lib import (
    agents,
    config,
    faults,
    files,
    paths,
    plan_init,
    prompts,
    redact,
    report,
    runner,
    runs,
    state,
    view,
)
from lib.cli import Command, Option, Values, run
from lib.errors import EXIT_OK, EXIT_PREFLIGHT, UsageError, UserError
from lib.plan import Assignments, Plan, assign_agents, load_plan, plan_from_prompts
from lib.scheduler import Scheduler, Settings
from lib.spawner import Spawner
from lib.state import PlanState

START_LOCK_NAME = ".start.lock"  # in the runs folder
START_LOCK_SECONDS = 60.0

COMMAND = Command(
    "run-all-tasks.py",
    "run a plan of tasks, many agents at once",
    about="""\
Runs every task of PLAN.yaml in the order of its stages and dependencies, each
through one run of its agent, and records all of it below the root: runs/,
MESSAGE-BUS.md, prompts/, docs/dev/issues.md.  Start it again after anything:
what is done stays done, what still runs is taken over, the rest is tried again.
Ctrl-C once waits for the running agents, twice stops them.""",
    positionals=(("PLAN", "?", "the plan (default: prompts/plan.yaml of the root, else of the toolkit)"),),
    options=(
        Option("--agent", metavar="NAME", help="this agent for every task; 'offline' rehearses the plan"),
        Option("--dry-run", help="show stages, waves, agents and critical path; start nothing"),
        Option("--generate-prompts", help="write the tasks' prompts below ROOT/prompts; start nothing"),
        Option("--only", metavar="ID,…", many=True, help="run these tasks only; may be repeated"),
        Option("--prompts", metavar="GLOB", help="in place of a plan: a task for each prompt file; needs --agent"),
        Option("--max-parallel", metavar="N", kind="int", help="at most N agents at once (default: the plan's, 16)"),
        Option("--keep-going", help="after a failure run everything that does not depend on it"),
        Option("--fresh", help="start over; the old state is kept beside the new one"),
        Option("--init", metavar="FILE", help="write a commented example plan to FILE and exit"),
        Option("--root", metavar="DIR", help="where everything is written (default: $CONDUCTOR_ROOT, else the clone)"),
        Option("--config", metavar="FILE", help="the config (default: $CONDUCTOR_CONFIG, ./config.yaml, …)"),
    ),
    examples=(
        "./run-all-tasks.py --agent offline",
        "./run-all-tasks.py my-plan.yaml --root . --max-parallel 4",
        "./run-all-tasks.py --prompts 'todo/*.md' --agent claude --dry-run",
        "./run-all-tasks.py --init my-plan.yaml",
    ),
    exit_codes="0 all done, 1 a task failed, 2 wrong usage or a bad plan, 3 an agent is missing, "
    "130 interrupted",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    faults.enter_part("orchestrator")
    return run(COMMAND, run_all_tasks, arguments)


def run_all_tasks(values: Values) -> int:
    if values.text("init"):
        return _write_example(str(values.text("init")))
    root = paths.root(values.text("root"))
    plan = _plan(values, root)
    settings = _settings(values, root, plan)
    configuration = config.load(values.text("config"))
    scope = _scope(values, plan)
    assigned = _assign(plan, configuration, values.text("agent"))
    if values.flag("generate_prompts"):
        return _write_prompts(plan, settings)
    if values.flag("dry_run"):
        return _show_schedule(plan, assigned, settings)
    _refuse_missing(assigned, scope, configuration)
    paths.make_folder(settings.runs_dir)
    runner.check_space(settings.runs_dir)
    plan_state = PlanState(settings.runs_dir, plan.project)
    display = view.make(os.path.join(plan_state.folder, state.LOG_NAME))
    try:
        with _one_start_at_a_time(settings.runs_dir):
            plan_state.lock()
            _refuse_same_ids(plan, settings.runs_dir)
            _load_state(values, plan, scope, plan_state, display)
            scheduler = Scheduler(
                plan,
                assigned.agents,
                plan_state,
                settings,
                configuration,
                Spawner(paths.TOOLKIT),
                scope=scope,
                on_event=display.event,
                on_tick=display.tick,
            )
            plan_state.save()
        code = scheduler.run(assigned.decisions)
        display.text("\n" + report.summary(plan, scheduler.board, settings))
    finally:
        display.close()
        plan_state.close()
    return code


@contextlib.contextmanager
def _one_start_at_a_time(runs_dir: str) -> Generator[None, None, None]:
    """Of two plans that begin together in one root, the second sees the tasks of the first."""
    lock = files.open_lock(os.path.join(runs_dir, START_LOCK_NAME))
    try:
        files.lock(lock, START_LOCK_SECONDS, "the start of another plan in this root")
        yield
    finally:
        os.close(lock)


def _load_state(
    values: Values, plan: Plan, scope: frozenset[str], plan_state: PlanState, display: view.View
) -> None:
    fresh = values.flag("fresh")
    if not fresh:
        plan_state.load()
    _check_needs(plan, scope, plan_state)
    if fresh:
        _start_over(plan_state, os.path.dirname(plan_state.folder), display)


def _write_example(path: str) -> int:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise UserError(f"{path} exists; name a file that does not") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(plan_init.INIT_PLAN)
    sys.stdout.write(f"wrote {path}; look at it, then: run-all-tasks.py {path} --dry-run\n")
    return EXIT_OK


def _write_prompts(plan: Plan, settings: Settings) -> int:
    for prompt in settings.generate_prompts(plan):
        kept = " (edited by hand)" if prompt.state == prompts.KEPT else ""
        sys.stdout.write(f"{prompt.state:<9} {redact.for_terminal(prompt.path)}{kept}\n")
    return EXIT_OK


def _plan(values: Values, root: str) -> Plan:
    plan = _read_plan(values, root)
    for task in plan.tasks.values():
        if task.loop:
            raise UsageError(
                f"{plan.path}:{task.line}: task {task.id}: loop: true is not supported yet; "
                "leave it out, and let `retries` and `verify` repeat the work"
            )
    return plan


def _read_plan(values: Values, root: str) -> Plan:
    pattern = values.text("prompts")
    if pattern:
        if values.text("plan"):
            raise UsageError("PLAN and --prompts exclude each other; keep one")
        agent = values.text("agent")
        if not agent:
            raise UsageError("--prompts needs --agent, for example --agent claude")
        return plan_from_prompts(pattern, agent)
    path = values.text("plan")
    if path is None:
        path = os.path.join(root, "prompts", "plan.yaml")
        if not os.path.exists(path):
            path = os.path.join(paths.TOOLKIT, "prompts", "plan.yaml")
    return load_plan(path)


def _settings(values: Values, root: str, plan: Plan) -> Settings:
    # A plan that is started inside a run has a root of its own: the JRUN_*
    # of that run say where that run's messages go, not this plan's.
    own = root if values.text("root") or os.environ.get("JRUN_ID") else None
    most = values.number("max_parallel")
    if most is not None and not 1 <= most <= 256:
        raise UsageError(f"--max-parallel: {most} is not between 1 and 256")
    return Settings(
        root=root,
        runs_dir=paths.runs_dir(own),
        bus_path=paths.bus_path(own),
        max_parallel=most or plan.max_parallel,
        keep_going=values.flag("keep_going"),
        parent=os.environ.get("JRUN_ID", ""),
    )


def _scope(values: Values, plan: Plan) -> frozenset[str]:
    named = [name.strip() for item in values.items("only") for name in item.split(",")]
    wanted = [name for name in named if name]
    if not wanted:
        return frozenset(plan.tasks)
    unknown = [name for name in wanted if name not in plan.tasks]
    if unknown:
        raise UsageError(f"--only: no task {unknown[0]!r} in {plan.path}; --dry-run lists them")
    return frozenset(wanted)


def _check_needs(plan: Plan, scope: frozenset[str], plan_state: PlanState) -> None:
    for task_id in plan.tasks:
        for need in plan.tasks[task_id].depends_on if task_id in scope else ():
            entry = plan_state.tasks.get(need)
            if need not in scope and (entry is None or entry.state != state.DONE):
                raise UsageError(f"--only: {task_id} needs {need}, which is not done; name it too")


def _assign(plan: Plan, configuration: config.Config, override: str | None) -> Assignments:
    """Who does what; an agent that nobody knows is a mistake in the plan."""
    unknown: dict[str, str] = {}

    def is_available(agent: str) -> bool:
        try:
            runner.resolve_agent(configuration, agent)
        except UserError as error:
            if error.exit_code == UsageError.exit_code:
                unknown[agent] = str(error)
            return False
        return True

    assigned = assign_agents(plan, is_available, override)
    if override in unknown:
        raise UsageError(f"--agent: {unknown[override]}")
    lines = []
    for agent, problem in unknown.items():
        role_names = {role.name for role in plan.roles.values() if agent in role.agents}
        asking = [t for t in plan.tasks.values() if t.agent == agent or t.role in role_names]
        task = asking[0]
        role = f" (role {task.role})" if task.role else ""
        lines.append(f"{plan.path}:{task.line}: task {task.id}{role}: {problem}")
    if lines:
        raise UsageError("\n".join(lines))
    return assigned


def _refuse_missing(
    assigned: Assignments, scope: frozenset[str], configuration: config.Config
) -> None:
    problems = [item for item in assigned.missing if scope & set(item.tasks)]
    if not problems:
        return
    lines = [item.why for item in problems]
    names = dict.fromkeys(agent for item in problems for agent in item.agents)
    for name in names:
        type_name = str(configuration.entry(name).get("type") or name)
        lines.append(f"to install {name}: {agents.load(type_name).INSTALL}")
    lines.append("or rehearse the whole plan without any: --agent offline")
    raise UserError("\n".join(lines), EXIT_PREFLIGHT)


def _show_schedule(plan: Plan, assigned: Assignments, settings: Settings) -> int:
    path = os.path.join(settings.runs_dir, plan.project, state.STATE_NAME)
    done: set[str] = set()
    if os.path.exists(path):
        done = {name for name, entry in state.read(path).items() if entry.state == state.DONE}
    sys.stdout.write(report.schedule(plan, assigned.agents, done, settings.max_parallel))
    for sentence in [*assigned.decisions, *[item.why for item in assigned.missing]]:
        sys.stdout.write(f"note: {sentence}\n")
    return EXIT_PREFLIGHT if assigned.missing else EXIT_OK


def _refuse_same_ids(plan: Plan, runs_dir: str) -> None:
    """Two plans at once in one root must not share a task id: it names files of both."""
    for name in sorted(os.listdir(runs_dir)):
        folder = os.path.join(runs_dir, name)
        lock = os.path.join(folder, state.LOCK_NAME)
        if name == plan.project or not os.path.isfile(lock) or not files.is_locked(lock):
            continue
        try:
            tasks = state.read(os.path.join(folder, state.STATE_NAME))
        except (UserError, OSError):
            continue
        shared = [task_id for task_id in plan.tasks if task_id in tasks]
        if shared:
            raise UserError(
                f"task {shared[0]} is also one of the plan {name} that runs in this root now; "
                "rename it, wait, or use another --root"
            )


def _start_over(plan_state: PlanState, runs_dir: str, display: view.View) -> None:
    # Not asked of the state: --fresh is also the cure for a damaged one.
    for run_id in runs.marked(runs_dir):
        run = runs.read(os.path.join(runs_dir, run_id))
        is_ours = run.text("project_id") == plan_state.project and run.text("attempt_token")
        if (is_ours or not run.record) and runs.state(run).holder:
            raise UserError(f"{run_id} of the earlier start still runs; stop it: stop-run {run_id}")
    aside = plan_state.set_aside()
    if aside:
        display.event(f"starting over; the old state is {aside}")
