"""The plan file: read and checked whole, so that every fault is told at once.

`load_plan` returns a `Plan` that holds: unique ids, dependencies that exist
and run neither in a circle nor into a later stage, prompts and folders that
are there.  Whether the agents exist is asked later, when it is known which
agents may stand in (`lib.plan_agents`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from lib import ids, prompt_files, yamlio
from lib.checked import Faults, Place, Section, describe, shown
from lib.errors import UserError
from lib.plan_order import cycles
from lib.plan_records import (
    CHILD_WAIT_SECONDS,
    MAX_RESTARTS,
    Expect,
    ExpectedFile,
    Plan,
    PlanError,
    Role,
    Stage,
    Task,
)
from lib.plan_rules import (
    DEFAULT_ROLE,
    DEFAULT_ROLES,
    IDLE_TIMEOUT_SECONDS,
    KEYS,
    LOOP_KEYS,
    MAX_PARALLEL,
    PROMPT_SOURCES,
    RETRIES,
    START_INTERVAL_SECONDS,
    TIMEOUT_SECONDS,
    VERIFY_TIMEOUT_SECONDS,
    id_fault,
    loop_fault,
    name_fault,
    pattern_fault,
    project_fault,
)

_MOST_CYCLES = 20  # in one report


@dataclass(frozen=True, slots=True)
class _Shared:
    """The values of the keys that both `defaults` and a task may have."""

    cwd: str
    timeout: float
    idle_timeout: float
    retries: int
    critical: bool
    env: dict[str, str]
    verify_timeout: float


def load_plan(path: str) -> Plan:
    """The plan in a file; raises PlanError with every fault that it has."""
    data = _read(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _one_fault(path, line, "the plan is not UTF-8; convert it") from None
    lines: dict[Place, int] = {}
    try:
        content = yamlio.load(text, source=path, lines=lines)
    except UserError as error:  # says file and line itself
        raise PlanError([shown(str(error))]) from None
    if content is None:
        raise _one_fault(path, 1, "the plan is empty; begin one: ./run-all-tasks.py --init FILE")
    faults = Faults(path, lines)
    plan = _Reader(path, faults).plan(content, hashlib.sha256(data).hexdigest())
    found = faults.texts()
    if found:
        raise PlanError(found)
    return plan


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        what = "no such plan; correct the path, or begin one: ./run-all-tasks.py --init FILE"
    except IsADirectoryError:
        what = "the plan is a folder; name the file in it"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        what = f"the plan cannot be read: {getattr(error, 'strerror', None) or error}; mend that"
    raise _one_fault(path, 1, what)


def _one_fault(path: str, line: int | None, what: str) -> PlanError:
    return PlanError([f"{shown(path)}:{line or 1}: {what}"])


@dataclass(frozen=True, slots=True)
class _Needs:
    """What one task of the file depends on, and where it says so."""

    name: str  # of the task, in messages
    task_id: str  # "" where it has none
    stage_index: int
    named: dict[str, Place]


class _Reader:
    """Turns the data of one plan file into a Plan; what is wrong goes to `faults`."""

    def __init__(self, path: str, faults: Faults) -> None:
        self.path = os.path.abspath(path)
        self.folder = os.path.dirname(self.path)
        self.faults = faults
        self.roles = dict(DEFAULT_ROLES)
        self.where: dict[str, Place] = {}  # of each id, a stage's or a task's
        self.stage_of: dict[str, int] = {}  # of each task
        self.needs: list[_Needs] = []
        self.folders: dict[str, bool] = {}
        self.template_folders = prompt_files.template_folders(path)
        self.templates: dict[str, prompt_files.Template | str] = {}

    def plan(self, content: object, sha256: str) -> Plan:
        top = Section(self.faults, (), content, "the plan", KEYS["plan"])
        project = self._project(top)
        self.defaults = self._defaults(top.section("defaults", "defaults", KEYS["defaults"]))
        self._read_roles(top)
        stages = tuple(
            self._stage(place, item, index)
            for index, (place, item) in enumerate(self._mappings(top, "stages", "a stage"))
        )
        self._check_needs()
        return Plan(
            path=self.path,
            sha256=sha256,
            project=project,
            title=_one_line(top.text("title") or project),
            max_parallel=top.number("max_parallel", MAX_PARALLEL, 1, 256),
            start_interval=top.seconds("start_interval", START_INTERVAL_SECONDS),
            roles=self.roles,
            stages=stages,
        )

    def _project(self, top: Section) -> str:
        project = top.text("project")
        if project is None:
            return _default_project(self.path)
        wrong = project_fault(project)
        if wrong is not None:
            top.fault("project", wrong)
        return project

    # ---- what tasks share ----------------------------------------------------

    def _defaults(self, section: Section) -> _Shared:
        built_in = _Shared(
            cwd=self.folder,
            timeout=TIMEOUT_SECONDS,
            idle_timeout=IDLE_TIMEOUT_SECONDS,
            retries=RETRIES,
            critical=True,
            env={},
            verify_timeout=VERIFY_TIMEOUT_SECONDS,
        )
        return self._shared(section, built_in)

    def _shared(self, section: Section, above: _Shared) -> _Shared:
        """The keys that stand in `defaults` and in tasks, on top of what holds above them."""
        return _Shared(
            cwd=self._cwd(section, above.cwd),
            timeout=section.seconds("timeout", above.timeout),
            idle_timeout=section.seconds("idle_timeout", above.idle_timeout),
            retries=section.number("retries", above.retries, 0, 100),
            critical=section.flag("critical", above.critical),
            env={**above.env, **section.settings("env", prompt_files.VARIABLE, "MY_NAME")},
            verify_timeout=section.seconds("verify_timeout", above.verify_timeout),
        )

    def _cwd(self, section: Section, above: str) -> str:
        named = section.text("cwd")
        if named is None:
            return above
        path = self._absolute(self.folder, named)
        if path not in self.folders:
            self.folders[path] = os.path.isdir(path)
        if not self.folders[path]:
            section.fault("cwd", f"cwd {shown(path)} is no folder; make it, or correct the path")
        return path

    @staticmethod
    def _absolute(folder: str, path: str) -> str:
        return os.path.normpath(os.path.join(folder, path))

    def _read_roles(self, top: Section) -> None:
        part = top.section("roles", "roles", None)
        for name, data in part.data.items():
            role = Section(
                self.faults, ("roles", name), data, f"role {shown(name, 60)}", KEYS["role"]
            )
            wrong = name_fault("a role", name)
            if wrong is not None:
                part.fault(name, wrong)
            agents = self._agents(role)
            quorum = role.number("quorum", 0, 0, 64)
            if agents and quorum > len(agents):
                role.fault(
                    "quorum",
                    f"quorum {quorum} of {len(agents)} agents; name more agents, or lower it",
                )
            self.roles[name] = Role(name, agents, role.flag("alternate", False), quorum)

    def _agents(self, role: Section) -> tuple[str, ...]:
        agents: list[str] = []
        for place, agent in role.texts_at("agents"):
            wrong = name_fault("an agent", agent)
            if wrong is not None:
                self.faults.add(place, f"{role.name}: {wrong}")
            elif agent in agents:
                self.faults.add(place, f"{role.name}: agent {agent} is named twice; remove one")
            agents.append(agent)
        if role.is_empty("agents"):
            role.fault("agents", "no agents; add agents: [claude]")
        return tuple(agents)

    # ---- stages and tasks ----------------------------------------------------

    def _mappings(
        self, section: Section, key: str, what: str
    ) -> Iterator[tuple[Place, dict[object, object]]]:
        """The items of a list of stages or tasks, with their places."""
        if section.is_empty(key):
            section.fault(key, f"no {key}; {what} is the least that a plan needs here")
        for index, item in enumerate(section.items(key)):
            place = (*section.place, key, index)
            if isinstance(item, dict):
                yield place, item
            else:
                self.faults.add(
                    place,
                    f"{section.name}: {what} must be a mapping (id: …), not {describe(item)}",
                )

    def _stage(self, place: Place, data: dict[object, object], index: int) -> Stage:
        section = Section(self.faults, place, data, _name_of("stage", place, data), KEYS["stage"])
        stage_id = self._id(section)
        tasks = tuple(
            self._task(task_place, item, stage_id, index)
            for task_place, item in self._mappings(section, "tasks", "a task")
        )
        return Stage(
            id=stage_id,
            title=_one_line(section.text("title") or stage_id),
            barrier=section.flag("barrier", True),
            timeout=section.seconds("timeout", 0.0),
            tasks=tasks,
            line=self.faults.line(place),
        )

    def _id(self, section: Section) -> str:
        """The id of a stage or task; "" without one."""
        if not section.has("id"):
            section.fault("id", "no id; add id: with a name of its own")
            return ""
        found = section.text("id")
        if found is None:
            return ""
        place = (*section.place, "id")
        wrong = id_fault(found)
        if wrong is not None:
            section.fault("id", wrong)
        if found in self.where:
            line = self.faults.line(self.where[found])
            section.fault("id", f"id {shown(found, 60)} is taken at line {line}; choose another")
        else:
            self.where[found] = place
        return found

    def _task(self, place: Place, data: dict[object, object], stage: str, index: int) -> Task:
        section = Section(self.faults, place, data, _name_of("task", place, data), KEYS["task"])
        task_id = self._id(section)
        shared = self._shared(section, self.defaults)
        role, agent = self._worker(section)
        variables = section.settings("vars", prompt_files.VARIABLE, "my_name")
        prompt, prompt_file, template = self._prompt(section, variables)
        is_looped = self._loop(section, task_id, role)
        return Task(
            id=task_id,
            title=_one_line(section.text("title") or task_id),
            stage=stage,
            role=role,
            agent=agent,
            prompt=prompt,
            prompt_file=prompt_file,
            template=template,
            vars=variables,
            depends_on=self._depends_on(section, task_id, index),
            cwd=shared.cwd,
            timeout=shared.timeout,
            idle_timeout=shared.idle_timeout,
            retries=shared.retries,
            critical=shared.critical,
            env=shared.env,
            exclusive=section.text("exclusive"),
            verify=section.texts("verify"),
            verify_timeout=shared.verify_timeout,
            expect=self._expect(section, shared.cwd),
            loop=is_looped,
            line=self.faults.line(place),
            max_restarts=section.number("max_restarts", MAX_RESTARTS, 1, 10_000),
            child_wait=section.seconds("child_wait", CHILD_WAIT_SECONDS),
        )

    def _loop(self, section: Section, task_id: str, role: str | None) -> bool:
        """Whether the task is a loop; what cannot be one is a fault."""
        is_looped = section.flag("loop", False)
        for key in LOOP_KEYS:
            if section.has(key) and not is_looped:
                section.fault(key, f"{key} is for a loop only; remove it, or add loop: true")
        if not is_looped:
            return False
        wrong = loop_fault(task_id)
        if wrong is not None:
            section.fault("id", wrong)
        if role in self.roles and self.roles[role].quorum:
            section.fault("loop", f"role {role} has a quorum, and a review is no loop; remove one")
        return True

    def _worker(self, section: Section) -> tuple[str | None, str | None]:
        """The role or the agent of a task: one of them."""
        role, agent = section.text("role"), section.text("agent")
        if section.has("role") and section.has("agent"):
            later = [key for key in section.data if key in ("role", "agent")][1]
            section.fault(later, "role and agent are both set; keep one")
        wrong = None if agent is None else name_fault("an agent", agent)
        if wrong is not None:
            section.fault("agent", wrong)
        if role is not None and role not in self.roles:
            known = f"known are {', '.join(self.roles)}"
            cure = self.faults.suggestion(role, self.roles, known)
            section.fault("role", f"unknown role {shown(role, 60)}; {cure}")
        if role is None and agent is None:
            role = DEFAULT_ROLE
        return role, agent

    # ---- prompts -------------------------------------------------------------

    def _prompt(
        self, section: Section, variables: dict[str, str]
    ) -> tuple[str | None, str | None, str | None]:
        given = [key for key in section.data if key in PROMPT_SOURCES]
        if len(given) != 1:
            have = (
                f"both {' and '.join(given)}; keep one"
                if given
                else ("no prompt; add prompt, prompt_file or template")
            )
            section.fault(given[1] if given else "prompt", have)
        if variables and "template" not in given:
            section.fault("vars", "vars are for a template only; remove them, or use template")
        prompt, named, template = (section.text(key) for key in PROMPT_SOURCES)
        prompt_file = None if named is None else self._absolute(self.folder, named)
        if prompt_file is not None:
            try:
                prompt_files.read_source(prompt_file)
            except UserError as error:
                section.fault("prompt_file", f"prompt_file {error}")
        if template is not None:
            self._check_template(section, template, variables)
        return prompt, prompt_file, template

    def _check_template(self, section: Section, name: str, variables: dict[str, str]) -> None:
        for variable in variables:
            if variable in prompt_files.STANDARD_VARIABLES:
                section.faults.add(
                    (*section.place, "vars", variable),
                    f"{section.name}: vars.{variable} is always set by the plan; choose another name",
                )
        if name not in self.templates:
            self.templates[name] = self._read_template(name)
        template = self.templates[name]
        if isinstance(template, str):
            section.fault("template", template)
            return
        known = (*variables, *prompt_files.STANDARD_VARIABLES)
        for line, what in prompt_files.template_faults(template, known):
            self.faults.add_elsewhere(
                (*section.place, "template"), template.path, line, f"{section.name}: {what}"
            )

    def _read_template(self, name: str) -> prompt_files.Template | str:
        """The template, or what is wrong with it."""
        if not prompt_files.NAME.fullmatch(name):
            return f"template {shown(name, 60)} is no name; give the name of NAME.md without .md"
        try:
            return prompt_files.read_template(name, self.template_folders)
        except UserError as error:
            return str(error)

    # ---- what proves success -------------------------------------------------

    def _expect(self, task: Section, cwd: str) -> Expect:
        section = task.section("expect", f"{task.name}: expect", KEYS["expect"])
        pattern = section.text("output")
        if pattern is not None:
            wrong = pattern_fault(pattern)
            if wrong:
                section.fault("output", f"output is no regular expression: {wrong}; correct it")
        files = [
            self._expected_file(section, index, item, cwd)
            for index, item in enumerate(section.items("files"))
        ]
        return Expect(tuple(file for file in files if file is not None), pattern)

    def _expected_file(
        self, section: Section, index: int, item: object, cwd: str
    ) -> ExpectedFile | None:
        changed = False
        path: str | None
        if isinstance(item, dict):
            part = Section(
                self.faults,
                (*section.place, "files", index),
                item,
                f"{section.name}: files[{index}]",
                KEYS["expected file"],
            )
            path, changed = part.text("path"), part.flag("changed", False)
            if not part.has("path"):
                part.fault("path", "no path; add path: with the file's name")
        else:
            path = section.checked_text(("files", index), f"files[{index}]", item)
        return None if path is None else ExpectedFile(self._absolute(cwd, path), changed)

    # ---- dependencies --------------------------------------------------------

    def _depends_on(self, section: Section, task_id: str, stage_index: int) -> tuple[str, ...]:
        """The ids a task names, each once; they are checked when all ids are known."""
        named: dict[str, Place] = {}
        for place, needed in section.texts_at("depends_on"):
            named.setdefault(needed, place)
        self.needs.append(_Needs(section.name, task_id, stage_index, named))
        if task_id:
            self.stage_of.setdefault(task_id, stage_index)
        return tuple(named)

    def _check_needs(self) -> None:
        places: dict[str, dict[str, Place]] = {}
        for needs in self.needs:
            for needed, place in list(needs.named.items()):
                wrong = self._need_fault(needs, needed)
                if wrong is not None:
                    self.faults.add(place, f"{needs.name}: {wrong}")
                    del needs.named[needed]
            if needs.task_id:
                places.setdefault(needs.task_id, needs.named)
        usable = {task_id: tuple(named) for task_id, named in places.items()}
        for cycle in cycles(usable, _MOST_CYCLES):
            self.faults.add(
                places[cycle[0]][cycle[1]],
                f"tasks wait for each other: {' -> '.join(map(shown, cycle))}; "
                "remove one of these dependencies",
            )

    def _need_fault(self, needs: _Needs, needed: str) -> str | None:
        name = shown(needed, 60)
        if needed == needs.task_id:
            return "depends on itself; remove that"
        if needed not in self.stage_of:
            if needed in self.where:
                return f"depends on {name}, which is a stage; name tasks of it"
            cure = self.faults.suggestion(needed, self.stage_of, "correct it, or add that task")
            return f"depends on {name}, which does not exist; {cure}"
        if self.stage_of[needed] > needs.stage_index:
            return f"depends on {name}, which belongs to a later stage; move one of the two"
        return None


def _name_of(kind: str, place: Place, data: dict[object, object]) -> str:
    """What messages call a stage or task: by its id, else by its number in its list."""
    named = data.get("id")
    if isinstance(named, str) and named.strip():
        return f"{kind} {shown(named, 60)}"
    return f"{kind} number {int(str(place[-1])) + 1}"


def _one_line(text: str) -> str:
    return shown(" ".join(text.split()))


def _default_project(path: str) -> str:
    """A project for a plan that names none: from the file's name, or the folder's of plan.yaml."""
    stem = ids.slug(os.path.splitext(os.path.basename(path))[0])
    return ids.slug(os.path.basename(os.path.dirname(path))) if stem == "plan" else stem
