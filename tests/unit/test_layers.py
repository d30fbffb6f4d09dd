"""Imports run one way, and what starts often imports little."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from lib import agents
from tests.helpers import ROOT

LIB = ROOT / "lib"

# The order in which the modules can be read; each imports from earlier ones only.
LAYERS = [
    "errors", "faults", "ids", "files", "wakeup", "watch", "redact", "shown", "textual", "events",
    "packages", "yamlscalar", "yamlflow", "yamlread", "yamlforeign", "yamlio",
    "prices", "transcript", "usage", "paths", "bus_parse", "bus", "procs", "runs", "tasks", "thread_link",
    "task_preamble", "timing",
    "agents._render", "agents._ready", "agents.base", "agents", "agents.*",
    "cli", "config_check", "config", "notices", "output", "judgement", "supervisor", "recovery",
    "guard", "runner", "spawner",
    "checked", "plan_records", "plan_rules", "plan_order", "plan_agents", "prompt_files",
    "plan_file", "plan_init", "plan", "assignment", "prompts", "state", "plan_scope", "situation", "settings",
    "board", "blockers", "verify", "unit", "quota", "announcer", "review", "continuation", "pacing",
    "retries", "stage_clocks", "quota_watch", "starts", "course", "plan_again",
    "activity", "estimate", "waits", "why", "printer", "frame", "plan_path", "view", "attach", "report", "scheduler",
    "listing", "sessions",
    "children", "propagation", "loop_record", "loop_announcer", "loop_settings", "loop_watch", "loop_control", "loop",
    "index_entries", "index", "task_listing", "standing", "cleaning",
    "monitor", "monitor.keys", "monitor.plans", "monitor.cures", "monitor.facts", "monitor.current", "monitor.text", "monitor.reader",
    "monitor.app", "monitor.frame", "monitor.painter", "monitor.screen", "monitor.follow",
    "monitor.report",
    "status_page", "status_page.limits", "status_page.layout", "status_page.html", "status_page.style",
    "status_page.records", "status_page.states", "status_page.plans", "status_page.model",
    "status_page.svg", "status_page.pieces", "status_page.plan_sections", "status_page.page",
    "status_page.store",
    "integrity_base", "integrity_runs", "integrity_bus", "integrity_plans",
    "integrity_tasks", "integrity", "doctor_base", "doctor_places", "doctor_config", "doctor_agents",
    "doctor_live", "doctor_plan", "doctor",
    "api", "api.exchange", "api.route", "api.names", "api.http_head", "api.connection", "api.wsgi",
    "api.ports", "api.access", "api.sse", "api.view", "api.bus_log", "api.buses", "api.bus_feeds", "api.contents",
    "api.shapes", "api.facts", "api.run_logs", "api.tree_watch", "api.hub", "api.cursors",
    "api.feeds", "api.last_lines", "api.event_feed", "api.console", "api.launch", "api.root_queue", "api.lookup", "api.schemas",
    "api.audit", "api.places", "api.threads", "api.static", "api.log_streams",
    "api.message_streams", "api.file_tail", "api.file_streams", "api.transcripts", "api.line_index", "api.line_text",
    "api.line_search", "api.run_lines", "api.listeners",
    "api.wsgi_server", "api.plan_tasks", "api.plan_shapes", "api.family", "api.agent_list", "api.control", "api.plan_control", "api.removal", "api.plans", "api.search",
    "api.totals", "api.metrics", "api.overview_state", "api.service", "api.overview", "api.events", "api.server_options", "api.core", "api.login",
    "api.projects", "api.run_pages", "api.flat", "api.run_files", "api.task_pages", "api.messages",
    "api.posts", "api.openapi", "api.routes", "api.dispatch",
    "commands", "commands.*",
]  # fmt: skip
HOT = [
    "errors", "faults", "ids", "files", "wakeup", "redact", "yamlscalar", "yamlflow", "yamlread",
    "yamlio", "paths", "bus", "procs", "runs", "agents", "agents._render", "agents._ready", "agents.base",
    *(f"agents.{name}" for name in agents.types()), "config", "config_check", "prices", "timing", "transcript",
    "notices", "output", "judgement", "supervisor", "recovery", "guard", "runner", "cli",
    "commands.run_agent", "commands.bus_append",
]  # fmt: skip
CHEAP = {"__future__", "os", "stat", "sys", "time", "errno", "fcntl", "select", "_signal"}
FOREIGN_YAML = ("yamlforeign", "yaml")  # the one module that imports a package, and which


def modules() -> dict[str, Path]:
    found = {}
    for path in LIB.rglob("*.py"):
        name = ".".join(path.relative_to(LIB).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    del found["__init__"]
    return found


MODULES = modules()


def layer(name: str) -> str:
    """A new backend or command is a new file, and no new layer."""
    package = f"{name.partition('.')[0]}.*"
    return package if name not in LAYERS and package in LAYERS else name


def is_for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_of(tree: ast.AST) -> set[str]:
    """Everything that is imported when the code runs, `lib.x` for modules of ours."""
    found: set[str] = set()
    queue = [tree]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.stmt) and is_for_types_only(node):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= imported_from(node)
        queue += ast.iter_child_nodes(node)
    return found


def imported_from(node: ast.ImportFrom) -> set[str]:
    base = node.module or ""
    if base == "lib":
        return {f"lib.{alias.name}" for alias in node.names if alias.name in MODULES}
    if base.startswith("lib."):
        inner = base.removeprefix("lib.")
        deeper = {f"{inner}.{alias.name}" for alias in node.names} & set(MODULES)
        return {f"lib.{name}" for name in deeper or {inner}}
    return {base}


def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


def ours(name: str) -> set[str]:
    used = imports_of(tree_of(name)) - {f"lib.{name}"}
    return {module.removeprefix("lib.") for module in used if module.startswith("lib.")}


def test_every_module_has_its_place() -> None:
    assert {layer(name) for name in MODULES} == set(LAYERS)
    assert len(LAYERS) == len(set(LAYERS))


@pytest.mark.parametrize("name", sorted(MODULES))
def test_it_imports_from_earlier_modules_only(name: str) -> None:
    own = LAYERS.index(layer(name))
    last = own if layer(name) == "agents.*" else own - 1  # backends may use one another
    assert {used for used in ours(name) if LAYERS.index(layer(used)) > last} == set()


def test_no_import_leads_back_to_where_it_began() -> None:
    def visit(name: str, line: tuple[str, ...]) -> None:
        assert name not in line, " -> ".join([*line, name])
        if name not in done:
            for used in ours(name):
                visit(used, (*line, name))
            done.add(name)

    done: set[str] = set()
    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(MODULES))
def test_it_needs_no_package(name: str) -> None:
    top = {used.partition(".")[0] for used in imports_of(tree_of(name))}
    allowed = {"lib", *sys.stdlib_module_names}
    if name == FOREIGN_YAML[0]:
        allowed.add(FOREIGN_YAML[1])
    assert top <= allowed


@pytest.mark.parametrize("name", HOT)
def test_what_starts_often_imports_little_at_its_top(name: str) -> None:
    top = ast.Module([node for node in tree_of(name).body if not is_def(node)], [])
    used = {used for used in imports_of(top) if not used.startswith("lib")}
    assert used <= CHEAP


def is_def(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef)


@pytest.mark.parametrize("script", ["run_agent", "bus_append"])
def test_a_hot_script_imports_hot_modules_only(script: str) -> None:
    seen, queue = set(), [f"commands.{script}"]
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            top = ast.Module([node for node in tree_of(name).body if not is_def(node)], [])
            queue += [
                used.removeprefix("lib.") for used in imports_of(top) if used.startswith("lib.")
            ]
    assert seen <= {*HOT, "commands"}
