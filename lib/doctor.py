"""What this machine, its configuration and a plan still need, each with its cure.

`examine` looks and changes nothing: what has to be tried is tried with a file
that has lost its name already.  Behind it lie the checks of places
(doctor_places), of the configuration (doctor_config), of agents (doctor_agents;
with a real call: doctor_live) and of a plan (doctor_plan).

FAIL is said of what refuses: the toolkit itself, an agent that was asked for, a
plan that could not run.  All else that is missing is a note.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Iterator, Sequence

from lib import VERSION, agents, config, files, paths, yamlio
from lib.assignment import assign
from lib.doctor_agents import agent_checks, agent_names, may_be_called, summary_checks
from lib.doctor_base import FAIL, NOTE, OK, VERSION_SECONDS, Check, output_of
from lib.doctor_config import read_config, token_checks
from lib.doctor_live import Call, call_agents, total
from lib.doctor_places import place_checks
from lib.doctor_plan import assignment_checks, plan_checks, read_plan
from lib.errors import UserError
from lib.plan import Plan
from lib.plan_rules import MAX_PARALLEL

# Measured: 11, and 1 for each run at once; a start takes some more for a moment.
DESCRIPTORS_PER_AGENT, DESCRIPTORS_BESIDE = 2, 24

__all__ = ["FAIL", "NOTE", "OK", "Call", "Check", "examine", "examine_config", "summary"]


def examine(
    *,
    plan_path: str | None = None,
    root_option: str | None = None,
    runs_option: str | None = None,
    config_option: str | None = None,
    agent: str | None = None,
    calls: list[Call] | None = None,
) -> Iterator[Check]:
    """Every check in turn, each as soon as it is made.

    `agent` is the only one looked at, and does every task of the plan; without
    it all are looked at.  Where `calls` is given, agents are really called, which
    is paid, and each call is put into it.
    """
    root = paths.root(root_option)
    runs_dir = paths.runs_dir(root_option, runs_option)
    bus_path = paths.bus_path(root_option)
    plan, plan_faults = read_plan(plan_path)
    yield from _python_checks()
    yield from _program_checks()
    yield from _terminal_checks()
    yield _open_files_check(plan.max_parallel if plan else MAX_PARALLEL)
    yield from place_checks(root, runs_dir, bus_path)
    settings, config_checks = read_config(config_option)
    for check in config_checks:  # a default that is wrong stops no plan
        yield _softened(check) if plan_path and settings else check
    faulty: dict[str, Check] = {}
    callable_names: list[str] = []
    yield from _agents_checks(settings or config.Config(), agent, faulty, callable_names)
    yield from plan_faults
    if plan:
        yield from plan_checks(plan, root=root, runs_dir=runs_dir, bus_path=bus_path)
        yield from _plan_agents_checks(plan, settings, agent, faulty)
    if calls is not None and settings is not None:
        for call in call_agents(settings, callable_names):
            calls.append(call)
            yield call.check()
        yield total(calls, agent)


def examine_config(config_option: str | None, agent: str | None = None) -> Iterator[Check]:
    """The checks of the configuration alone: nothing is started, and nothing tried."""
    settings, checks = read_config(config_option)
    yield from checks
    if settings is not None:
        yield from token_checks(settings, agent)


def _softened(check: Check) -> Check:
    return Check(check.name, NOTE, check.text, check.cure) if check.state == FAIL else check


def _agents_checks(
    settings: config.Config,
    agent: str | None,
    faulty: dict[str, Check],
    callable_names: list[str],
) -> Iterator[Check]:
    """The agent that was asked for, or every one.

    Those that cannot work are put into `faulty`, those that a live call may
    be made of into `callable_names`.
    """
    if agent is not None:
        checks = list(agent_checks(settings, agent))
        yield from checks
        if all(check.state != FAIL for check in checks):
            callable_names.append(agent)
        return
    names = agent_names(settings)
    for name in names:
        checks = []
        for check in agent_checks(settings, name):
            checks.append(check)
            if check.state == FAIL:
                faulty.setdefault(name, check)
            yield _softened(check)
        if may_be_called(settings, name, checks):
            callable_names.append(name)
    yield from summary_checks(settings, [name for name in names if name not in faulty])


def _plan_agents_checks(
    plan: Plan, settings: config.Config | None, agent: str | None, faulty: dict[str, Check]
) -> Iterator[Check]:
    if settings is None:
        yield Check("plan agents", NOTE, "not looked at while the config is at fault")
        return
    assigned, unknown = assign(plan, settings, agent)
    named = [] if agent else list(unknown)  # one that takes all tasks was looked at already
    yield from assignment_checks(plan, assigned, named, settings, faulty)


def summary(checks: Sequence[Check]) -> str:
    """`12 ok, 2 notes, 1 FAIL`."""
    count = {state: sum(check.state == state for check in checks) for state in (OK, NOTE, FAIL)}
    notes = "1 note" if count[NOTE] == 1 else f"{count[NOTE]} notes"
    return f"{count[OK]} ok, {notes}, {count[FAIL]} FAIL"


# -- Python and programs


def _python_checks() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))  # lib/__init__.py refuses an older one
    yield Check("python", OK, f"{version} ({sys.executable})")
    yield _scripts_check()
    yield _yaml_check()
    try:
        yamlio.load_foreign("a: &x 1\nb: *x\n", "self-test")
        yield Check("PyYAML", OK, "here; only unusual YAML needs it")
    except UserError:
        text = "missing; only YAML with anchors, tags and the like needs it"
        yield Check("PyYAML", NOTE, text, "make setup, or python3 -m pip install PyYAML")


def _scripts_check() -> Check:
    """Whether a script starts as agents start it: by itself, through `env -S python3 -S -E`."""
    script = os.path.join(paths.TOOLKIT, "bin", "bus-append")
    answer = output_of([script, "--version"], os.environ, VERSION_SECONDS)
    if not answer.fault and answer.stdout == f"bus-append {VERSION}\n":
        return Check("scripts", OK, "they start by themselves, as python3 -S -E")
    said = (answer.stderr.strip() or answer.stdout.strip()).split("\n")[0]
    text = f"{script} {answer.fault or 'is not what starts'}{': ' if said else ''}{said}"
    if not os.access(script, os.X_OK):
        return Check("scripts", FAIL, text, "chmod +x *.py bin/* in the toolkit's folder")
    found = shutil.which("python3") or "none"
    cure = f"have python3 3.11 or newer first on PATH (now: {found}), and an env that knows -S"
    return Check("scripts", FAIL, text, cure)


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


def _program_checks() -> Iterator[Check]:
    if not os.access("/bin/sh", os.X_OK):
        cure = "install it there; every agent is started through it"
        yield Check("sh", FAIL, "/bin/sh is missing", cure)
    search_path = os.environ.get("PATH")
    if not agents.find_executable("rm", search_path):
        yield Check("rm", FAIL, "not on PATH; each start of an agent needs it", "correct PATH")
    ps = agents.find_executable("ps", search_path)
    if ps:
        yield Check("ps", OK, ps)
    else:
        state = FAIL if files.portable_only() else NOTE
        text = "not on PATH; it is needed where there is no /proc"
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
    shown = f"{size.columns} x {size.lines}" if size.columns else "size not told, taken as 80 x 24"
    found = f"{shown}, {encoding}, TERM={name}"
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
        return Check("open files", OK, f"{shown}; {max_parallel} agents at once need {need}")
    text = f"limit {soft}; {max_parallel} agents at once need {need}"
    if hard == resource.RLIM_INFINITY or hard >= need:
        return Check("open files", FAIL, text, f"ulimit -n {need}")
    fitting = max(1, (hard - DESCRIPTORS_BESIDE) // DESCRIPTORS_PER_AGENT)
    cure = f"ulimit -n {hard} and --max-parallel {fitting}, or have the hard limit raised"
    return Check("open files", FAIL, text, cure)
