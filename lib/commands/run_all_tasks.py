"""run-all-tasks.py: run a plan, up to 16 agents at once, and go on where an earlier start stopped."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Generator, Sequence

from lib import (
    agents,
    assignment,
    attach,
    config,
    events,
    faults,
    files,
    paths,
    plan_again,
    plan_init,
    plan_scope,
    prompts,
    quota,
    redact,
    report,
    runner,
    runs,
    situation,
    state,
    view,
    wakeup,
    why,
)
from lib.agents import replay
from lib.cli import Command, Option, Values, run
from lib.errors import EXIT_OK, EXIT_PREFLIGHT, UsageError, UserError
from lib.events import Event
from lib.plan import Assignments, Plan, load_plan, plan_from_prompts
from lib.scheduler import Scheduler
from lib.settings import Settings
from lib.spawner import Spawner
from lib.state import CLOSE, STOP, PlanState

START_LOCK_NAME = ".start.lock"  # in the runs folder
START_LOCK_SECONDS = 60.0
RECORD_SECONDS = 5.0  # in which a run that is begun has its record

COMMAND = Command(
    "run-all-tasks.py",
    "run a plan of tasks, many agents at once",
    about="""\
Runs every task of PLAN.yaml in the order of its stages and dependencies, each
through one run of its agent, and records all of it below the root: runs/,
MESSAGE-BUS.md, prompts/, docs/dev/issues.md.  Start it again after anything:
what is done stays done, what still runs is taken over, the rest is tried again.
Ctrl-C once waits for the running agents, twice stops them; a closed terminal
changes nothing: the plan goes on and writes to runs/PROJECT/plan.log.""",
    positionals=(("PLAN", "?", "the plan (default: prompts/plan.yaml of the root, else of the toolkit)"),),
    options=(
        Option("--agent", metavar="NAME", help="this agent for every task; 'offline' rehearses the plan"),
        Option("--replay", metavar="FOLDER", help="play each task's recorded run again, for no tokens: a root, or a runs folder"),
        Option("--speed", metavar="N", help="with --replay: N times as fast (default: 1); 0 = without waiting"),
        Option("--dry-run", help="show stages, waves, agents and critical path; start nothing"),
        Option("--generate-prompts", help="write the tasks' prompts below ROOT/prompts; start nothing"),
        Option("--only", metavar="ID,…", many=True, help="run these tasks only; may be repeated"),
        Option("--from-stage", metavar="STAGE", help="run this stage and the later ones only"),
        Option("--to-stage", metavar="STAGE", help="run this stage and the earlier ones only"),
        Option("--retry-failed", help="run only what failed, and what was blocked by that"),
        Option("--redo-changed", help="do again what is done and whose prompt, agent or checks have changed since"),
        Option("--prompts", metavar="GLOB", help="in place of a plan: a task for each prompt file; needs --agent"),
        Option("--max-parallel", metavar="N", kind="int", help="at most N agents at once (default: the plan's, 16)"),
        Option("--keep-going", help="after a failure run everything that does not depend on it"),
        Option("--kill", help="after a critical failure stop the running agents, too"),
        Option("--max-wait", metavar="TIME", kind="seconds", help="wait at most that long for a quota when nothing else is left to do (default: 6h)"),
        Option("--no-wait", help="do not wait for a quota: exit 75 as soon as nothing else is left to do"),
        Option("--fresh", help="start over; the old state is kept beside the new one"),
        Option("--detach", help="once it has begun, go on in the background; the terminal may be closed"),
        Option("--attach", help="show the plan that runs in this root until it ends; Ctrl-C leaves it alone"),
        Option("--why", metavar="TASK", help="say in one sentence why a task is not running, or what it does"),
        Option("--json", help="one JSON object a line in place of text (docs/events.md)"),
        Option("--init", metavar="FILE", help="write a commented example plan to FILE and exit"),
        Option("--root", metavar="DIR", help="where everything is written (default: $CONDUCTOR_ROOT, else the clone)"),
        Option("--config", metavar="FILE", help="the config (default: $CONDUCTOR_CONFIG, ./config.yaml, …)"),
    ),
    examples=(
        "./run-all-tasks.py --agent offline",
        "./run-all-tasks.py my-plan.yaml --root . --max-parallel 4",
        "./run-all-tasks.py --prompts 'todo/*.md' --agent claude --dry-run",
        "./run-all-tasks.py my-plan.yaml --detach   # later: ./run-all-tasks.py --attach",
        "./run-all-tasks.py my-plan.yaml --why build-02",
        "./run-all-tasks.py my-plan.yaml --replay ~/recorded --speed 60 --root /tmp/rehearsal",
        "./run-all-tasks.py --init my-plan.yaml",
    ),
    exit_codes="0 all done, 1 a task failed, 2 wrong usage or a bad plan, 3 an agent is missing, "
    "75 what is left waits for a quota: start it again later, 130 interrupted",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    faults.enter_part("orchestrator")
    return run(COMMAND, run_all_tasks, arguments)


def run_all_tasks(values: Values) -> int:
    _refuse_contradictions(values)
    if values.text("init"):
        return _write_example(str(values.text("init")))
    root = paths.root(values.text("root"))
    if values.flag("attach") or values.text("why"):
        return _look(values, root)
    plan = _plan(values, root)
    settings = _settings(values, root, plan)
    configuration = config.load(values.text("config"))
    _take_recordings(values, plan, configuration)
    scope = plan_scope.choose(plan, _choice(values), settings.runs_dir)
    assigned = _assign(plan, configuration, values.text("agent"))
    if values.flag("generate_prompts"):
        return _write_prompts(plan, settings)
    if values.flag("dry_run"):
        return _show_schedule(values, plan, assigned, settings, scope)
    _refuse_missing(assigned, scope, configuration)
    _refuse_unrecorded(assigned, scope, configuration)
    paths.make_folder(settings.runs_dir)
    runner.check_space(settings.runs_dir)
    plan_state = PlanState(settings.runs_dir, plan.project)
    log_path = os.path.join(plan_state.folder, state.LOG_NAME)
    display = view.make(log_path, json=values.flag("json"), live=not values.flag("detach"))
    wakeup.hold((CLOSE, STOP))  # whoever sees the lock may send one
    try:
        with _one_start_at_a_time(settings.runs_dir):
            plan_state.lock()
            _refuse_same_ids(plan, settings.runs_dir)
            if values.flag("fresh"):
                settings.generate_prompts(plan)  # what is wrong with one is said before
            _load_state(values, plan, scope, plan_state, display)
            settings.manner = plan_again.manner(values, configuration.path, plan_state.header)
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
            plan_state.replace()
        display.flush()
        if values.flag("detach") and not _detach(plan_state, log_path, values):
            return EXIT_OK
        code = scheduler.run(assigned.decisions)
        page, problem = write_page(scheduler.situation(), settings)
        summary = report.Summary(scheduler.situation(), settings, page)
        if values.flag("json"):
            fields = {**summary.fields(), "status_page": page or None}
            display.event(Event(events.SUMMARY, summary.totals(), **fields))
        display.text("\n" + summary.table())
        if problem:
            display.event(Event(events.WARNING, problem))
    finally:
        display.close()
        plan_state.close()
    return code


def write_page(seen: situation.Situation, settings: Settings) -> tuple[str, str]:
    """(path, "") of the page that shows how the plan stands now, or ("", why there is none).

    Whatever keeps it from being written: what became of the plan stays as it is.
    """
    try:
        from lib.status_page import store  # not loaded before the plan has ended

        return store.write_at_end(seen, settings.bus_path), ""
    except KeyboardInterrupt:
        cause = "interrupted"
    except UserError as error:
        cause = str(error)
    except OSError as error:
        cause = error.strerror or str(error)
    except Exception as error:  # noqa: BLE001 - told here, and where bin/report is asked again
        cause = f"bug: {type(error).__name__}: {error}"
    names = (seen.plan.project, "--runs-dir", settings.runs_dir)
    again = f"bin/report {shlex.join(names)}"
    return "", f"the status page was not written: {redact.one_line(cause)}; try: {again}"


def _page_of(plan: Plan, settings: Settings) -> str:
    """The path of its page, once there is one."""
    from lib.status_page import store

    path = store.path_of(settings.runs_dir, plan.project)
    return path if files.is_regular(path) else ""


def _refuse_contradictions(values: Values) -> None:
    """One start does one thing; UsageError when two are asked for."""
    modes = ("init", "generate-prompts", "dry-run", "why", "attach", "detach")
    rivals = [modes, ("keep-going", "kill"), ("attach", "fresh"), ("why", "fresh")]
    rivals += [("max-wait", "no-wait"), ("attach", "replay"), ("why", "replay")]
    for names in rivals:
        asked = [name for name in names if values.is_given(name.replace("-", "_"))]
        if len(asked) > 1:
            raise UsageError(f"--{asked[0]} and --{asked[1]} exclude each other; keep one")


def _look(values: Values, root: str) -> int:
    """Answer --why and --attach: from the files, whoever runs the plan."""
    plan, runs_dir = _plan_to_look_at(values, root)
    task_id = values.text("why")
    if task_id:
        seen = situation.look(plan, runs_dir)
        sentence = why.sentence(seen, task_id)
        if values.flag("json"):
            where = seen.tasks[task_id].state if task_id in seen.tasks else state.PENDING
            answer = {"task": task_id, "state": where, "why": redact.text(sentence)}
            sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write(redact.for_terminal(redact.text(sentence)) + "\n")
        return EXIT_OK
    settings = _settings(values, root, plan)
    return attach.follow(
        plan,
        runs_dir,
        lambda seen: report.Summary(seen, settings, _page_of(plan, settings)).table(),
        json=values.flag("json"),
    )


def _plan_to_look_at(values: Values, root: str) -> tuple[Plan, str]:
    """The plan that is named, else the one that runs in this root now, else the one that ran last."""
    runs_dir = paths.runs_dir(_own_root(values, root))
    if values.text("plan") or values.text("prompts"):
        return _plan(values, root), runs_dir
    folders = _plan_folders(runs_dir)
    running = [folder for folder in folders if state.is_run(folder)]
    if len(running) > 1:
        names = ", ".join(_plan_of(folder).path for folder in running)
        raise UsageError(f"{len(running)} plans run in {root}; name one of them: {names}")
    if not folders:
        return _plan(values, root), runs_dir
    return _plan_of((running or folders)[0]), runs_dir


def _plan_of(folder: str) -> Plan:
    """The plan whose state is in that folder, read again from where it came from."""
    plan_state = PlanState(*os.path.split(folder))
    plan_state.load()
    path, agent = str(plan_state.header.get("plan")), plan_state.header.get("prompts_agent")
    if agent:
        return plan_from_prompts(path, str(agent), plan_state.project)
    return load_plan(path)


def _plan_folders(runs_dir: str) -> list[str]:
    """The state folders of a runs folder, the one that was written last first."""
    names = [name for name in files.names(runs_dir) if not name.startswith("run_")]
    folders = [os.path.join(runs_dir, name) for name in names]
    times = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            times[folder] = os.stat(os.path.join(folder, state.STATE_NAME)).st_mtime_ns
    return sorted(times, key=lambda folder: -times[folder])


def _detach(plan_state: PlanState, log_path: str, values: Values) -> bool:
    """Go on in a process of its own session; False in the one that the terminal waits for."""
    sys.stdout.flush()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    log = files.open_regular(log_path, flags)  # what keeps it from being written is said now
    ready, is_ready = os.pipe()
    pid = os.fork()
    if pid:
        os.close(is_ready)
        os.read(ready, 1)  # until the lock names the other process, or that has ended
        for number in wakeup.waiting((CLOSE, STOP)):
            os.kill(pid, number)  # meant for the plan, and sent while this process had it
        root = values.text("root")
        place = f" --root {shlex.quote(root)}" if root else ""
        text = (
            f"the plan goes on as pid {pid} and writes to {log_path}\n"
            f"see it: ./run-all-tasks.py --attach{place}; "
            f"stop it: kill {pid} (waits for the running agents), twice: stops them"
        )
        event = Event(events.DETACHED, text, pid=pid, log=log_path)
        sys.stdout.write((event.as_json() if values.flag("json") else text) + "\n")
        return False
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for source, target in ((null, 0), (null, 1), (log, 2)):
        os.dup2(source, target)
    plan_state.header["pid"] = os.getpid()
    plan_state.sign_lock()
    os.close(is_ready)
    os.close(ready)
    return True


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
    if fresh or not os.path.exists(plan_state.path):
        _refuse_living_runs(plan_state)
    plan_scope.check_needs(plan, scope, plan_state.tasks)
    if fresh:
        _start_over(plan_state, display)


def _write_example(path: str) -> int:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise UserError(f"{path} exists; name a file that does not") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(plan_init.INIT_PLAN)
    sys.stdout.write(f"wrote {path}; look at it, then: ./run-all-tasks.py {path} --dry-run\n")
    return EXIT_OK


def _write_prompts(plan: Plan, settings: Settings) -> int:
    for prompt in settings.generate_prompts(plan):
        kept = " (edited by hand)" if prompt.state == prompts.KEPT else ""
        sys.stdout.write(f"{prompt.state:<9} {redact.for_terminal(prompt.path)}{kept}\n")
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
    own = _own_root(values, root)
    most = values.number("max_parallel")
    if most is not None and not 1 <= most <= 256:
        raise UsageError(f"--max-parallel: {most} is not between 1 and 256")
    return Settings(
        root=root,
        runs_dir=paths.runs_dir(own),
        bus_path=paths.bus_path(own),
        max_parallel=most or plan.max_parallel,
        keep_going=values.flag("keep_going"),
        kill=values.flag("kill"),
        redo_changed=values.flag("redo_changed"),
        parent=os.environ.get("JRUN_ID", ""),
        prompts_agent=str(values.text("agent")) if values.text("prompts") else "",
        max_wait=quota.max_wait(values.seconds("max_wait"), values.flag("no_wait")),
    )


def _take_recordings(values: Values, plan: Plan, configuration: config.Config) -> None:
    """With --replay: every agent of the plan plays what one of its name, or its task, once did.

    One that is a replay already keeps its other settings: what goes wrong on purpose.
    """
    folder, speed = values.text("replay"), values.text("speed")
    if folder is None:
        if speed is not None:
            raise UsageError("--speed belongs to --replay, which is missing")
        return
    options = replay.options_of(os.path.abspath(os.path.expanduser(folder)), speed)
    names = {name for role in plan.roles.values() for name in role.agents}
    names |= {task.agent for task in plan.tasks.values() if task.agent}
    for name in names | {values.text("agent") or "replay"}:
        own = configuration.agents.get(name, {})
        configuration.put(name, {**(own if own.get("type") == "replay" else {}), **options})


def _refuse_unrecorded(
    assigned: Assignments, scope: frozenset[str], configuration: config.Config
) -> None:
    """UserError when a replay agent would have nothing to play: said now, not hours into the plan."""
    faults: dict[str, str] = {}  # by task
    known: dict[str, replay.Recordings] = {}
    pairs = [(task_id, name) for task_id in sorted(scope) for name in assigned.agents[task_id]]
    for task_id, name in pairs:
        options = configuration.entry(name)
        if (options.get("type") or name) == "replay":
            folder = str(options.get("recording") or "")
            try:
                if folder not in known:
                    known[folder] = replay.Recordings(folder)
                known[folder].find(task_id, name)
            except UserError as error:
                faults.setdefault(task_id, f"task {task_id}: {error}")
    if faults:
        others = f"; {len(faults) - 1} other tasks have none, either" if len(faults) > 1 else ""
        raise UserError(f"{next(iter(faults.values()))}{others}", EXIT_PREFLIGHT)


def _own_root(values: Values, root: str) -> str | None:
    # A plan that is started inside a run has a root of its own: the JRUN_*
    # of that run say where that run's messages go, not this plan's.
    return root if values.text("root") or os.environ.get("JRUN_ID") else None


def _choice(values: Values) -> plan_scope.Choice:
    named = [name.strip() for item in values.items("only") for name in item.split(",")]
    only = tuple(name for name in named if name)
    if named and not only:
        raise UsageError("--only names no task; give ids, with commas between them")
    return plan_scope.Choice(
        only=only,
        from_stage=values.text("from_stage") or "",
        to_stage=values.text("to_stage") or "",
        retry_failed=values.flag("retry_failed"),
    )


def _assign(plan: Plan, configuration: config.Config, override: str | None) -> Assignments:
    """Who does what; an agent that nobody knows is a mistake in the plan."""
    assigned, unknown = assignment.assign(plan, configuration, override)
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
        options = configuration.entry(name)
        backend = agents.load(str(options.get("type") or name))
        verb = "install" if agents.executable_name(backend, options) else "use"
        lines.append(f"to {verb} {name}: {agents.install_hint(backend, options)}")
    lines.append("or rehearse the whole plan without any: --agent offline")
    raise UserError("\n".join(lines), EXIT_PREFLIGHT)


def _show_schedule(
    values: Values,
    plan: Plan,
    assigned: Assignments,
    settings: Settings,
    scope: frozenset[str],
) -> int:
    path = os.path.join(settings.runs_dir, plan.project, state.STATE_NAME)
    done: set[str] = set()
    if os.path.exists(path) and not values.flag("fresh"):
        done = {name for name, entry in state.read(path).items() if entry.state == state.DONE}
    notes = [*assigned.decisions, *[item.why for item in assigned.missing]]
    if values.flag("json"):
        fields = report.schedule_fields(plan, assigned.agents, done, scope, settings.max_parallel)
        sys.stdout.write(json.dumps({**fields, "notes": notes}, ensure_ascii=False) + "\n")
    else:
        text = report.schedule(plan, assigned.agents, done, scope, settings.max_parallel)
        sys.stdout.write(text)
        sys.stdout.write("".join(f"note: {sentence}\n" for sentence in notes))
    return EXIT_PREFLIGHT if assigned.missing else EXIT_OK


def _refuse_same_ids(plan: Plan, runs_dir: str) -> None:
    """Two plans at once in one root must not share a task id: it names files of both."""
    for folder in _plan_folders(runs_dir):
        name = os.path.basename(folder)
        if name == plan.project or not state.is_run(folder):
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


def _refuse_living_runs(plan_state: PlanState) -> None:
    """UserError when runs of the plan still live that no state would tell of any more."""
    runs_dir = os.path.dirname(plan_state.folder)
    # Not asked of the state: --fresh is also the cure for a damaged one.
    for run_id in runs.marked(runs_dir):
        run = _once_recorded(os.path.join(runs_dir, run_id))
        is_ours = run.text("project_id") == plan_state.project and run.text("attempt_token")
        if (is_ours or not run.record) and runs.state(run).holder:
            raise UserError(
                f"{run_id} of the earlier start still runs; stop it: bin/stop-run {run_id}"
            )


def _once_recorded(path: str) -> runs.Run:
    """The run, when it has a record or nobody holds it: another plan may begin it at this moment."""
    run = runs.Run(path, {})
    files.wait_for(lambda: bool(runs.read(path).record) or not runs.is_held(run), RECORD_SECONDS)
    return runs.read(path)


def _start_over(plan_state: PlanState, display: view.View) -> None:
    aside = plan_state.set_aside()
    if aside:
        text = f"starting over; the old state is {aside}"
        display.event(Event(events.NOTE, text, path=aside))
