"""run-all-tasks.py: run a plan, up to 16 agents at once, and go on where an earlier start stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lib import (
    agents,
    bus,
    config,
    faults,
    files,
    paths,
    plan_init,
    report,
    runner,
    runs,
    state,
    view,
)
from lib.cli import Command, Option, Values, run
from lib.errors import EXIT_FAILED, EXIT_OK, EXIT_PREFLIGHT, UsageError, UserError
from lib.plan import Assignments, Plan, assign_agents, load_plan, plan_from_prompts
from lib.scheduler import Scheduler, Settings
from lib.spawner import Spawner
from lib.state import PlanState

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
    assigned = assign_agents(plan, _is_available(configuration), values.text("agent"))
    if values.flag("dry_run"):
        return _show_schedule(plan, assigned, settings)
    _refuse_missing(assigned, scope, configuration)
    paths.make_folder(settings.runs_dir)
    runner.check_space(settings.runs_dir)
    plan_state = PlanState(settings.runs_dir, plan.project)
    plan_state.open()
    try:
        _refuse_same_ids(plan, settings.runs_dir)
        display = view.make(os.path.join(plan_state.folder, state.LOG_NAME))
        if values.flag("fresh"):
            _start_over(plan_state, settings.runs_dir, display)
        _check_needs(plan, scope, plan_state)
        return _run(plan, assigned, plan_state, settings, configuration, scope, display)
    finally:
        plan_state.close()


def _run(
    plan: Plan,
    assigned: Assignments,
    plan_state: PlanState,
    settings: Settings,
    configuration: config.Config,
    scope: frozenset[str],
    display: view.View,
) -> int:
    for decision in assigned.decisions:
        display.event(decision)
        bus.append(settings.bus_path, type_="DECISION", body=decision, project=plan.project)
    spawner = Spawner(paths.TOOLKIT)
    scheduler = Scheduler(
        plan,
        assigned.agents,
        plan_state,
        settings,
        configuration,
        spawner,
        scope=scope,
        on_event=display.event,
        on_tick=display.tick,
    )
    try:
        code = scheduler.run()
    finally:
        spawner.close()
        display.close()
    display.text("\n" + report.summary(scheduler))
    return code


def _write_example(path: str) -> int:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise UserError(f"{path} exists; name a file that does not") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(plan_init.INIT_PLAN)
    sys.stdout.write(f"wrote {path}; look at it, then: run-all-tasks.py {path} --dry-run\n")
    return EXIT_OK


def _plan(values: Values, root: str) -> Plan:
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


class _is_available:  # noqa: N801 - used as a function that remembers the configuration
    def __init__(self, configuration: config.Config) -> None:
        self._configuration = configuration

    def __call__(self, agent: str) -> bool:
        try:
            runner.resolve_agent(self._configuration, agent)
        except UserError as error:
            if error.exit_code == UsageError.exit_code:
                raise
            return False
        return True


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
    sys.stdout.write(report.schedule(plan, assigned.agents, done))
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
    for entry in plan_state.tasks.values():
        for attempt in entry.attempts:
            path = os.path.join(runs_dir, str(attempt.get("run")))
            if attempt.get("result") == "running" and runs.state(runs.read(path)).holder:
                raise UserError(
                    f"{attempt['run']} of the earlier start still runs; stop it first: "
                    f"stop-run {attempt['run']}",
                    EXIT_FAILED,
                )
    aside = plan_state.set_aside()
    if aside:
        display.event(f"starting over; the old state is {aside}")
