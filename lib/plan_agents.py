"""Which agents do which task: roles, fallbacks, alternation and review quorums.

Pure: what an agent lacks here is asked of the caller, once for each name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lib.plan_records import Plan, Role, Task

NOT_INSTALLED = "is not installed"
_MOST_NAMED = 5  # tasks that a sentence names before it only counts


@dataclass(frozen=True, slots=True)
class Missing:
    """Agents that are needed and not here: the tasks that cannot run, and why, in a sentence."""

    agents: tuple[str, ...]
    tasks: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Assignments:
    """For each task its agents.

    Ordinary task: the agents to try, the first one first.  Task with a quorum:
    every agent that judges it, each in a run of its own; with an override the
    same one as often as approvals are needed.  Empty where `missing` says so.
    """

    agents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)  # one sentence each, for the bus
    missing: list[Missing] = field(default_factory=list)


def assign_agents(
    plan: Plan, lack_of: Callable[[str], str], override: str | None = None
) -> Assignments:
    """Give every task its agents; `override` replaces them all.

    `lack_of` says why an agent cannot work here, as the rest of a sentence that
    begins with its name: `is not installed`; "" for one that can.
    """
    known = _Lacks(lack_of)
    result = Assignments(agents=dict.fromkeys(plan.tasks, ()))
    if override is not None:
        _assign_override(plan, result, override, known[override])
        return result
    by_role: dict[str, list[Task]] = {}
    by_agent: dict[str, list[Task]] = {}
    for task in plan.tasks.values():
        if task.agent is not None:
            by_agent.setdefault(task.agent, []).append(task)
        elif task.role is not None:
            by_role.setdefault(task.role, []).append(task)
    for agent, tasks in by_agent.items():
        if known[agent]:
            result.missing.append(_missing((agent,), tasks, f"{agent} {known[agent]}"))
        else:
            result.agents.update({task.id: (agent,) for task in tasks})
    for name, tasks in by_role.items():
        role = plan.roles[name]
        lacks = {agent: known[agent] for agent in role.agents}
        if role.quorum:
            _assign_quorum(result, role, lacks, tasks)
        else:
            _assign_role(result, role, lacks, tasks)
    return result


class _Lacks(dict[str, str]):
    """What agents lack, by name; each is asked of once."""

    def __init__(self, lack_of: Callable[[str], str]) -> None:
        super().__init__()
        self._lack_of = lack_of

    def __missing__(self, agent: str) -> str:
        self[agent] = self._lack_of(agent)
        return self[agent]


def _assign_override(plan: Plan, result: Assignments, agent: str, lack: str) -> None:
    tasks = list(plan.tasks.values())
    if lack:
        result.missing.append(_missing((agent,), tasks, f"{agent} {lack}"))
        return
    judged: dict[str, int] = {}
    for task in tasks:
        quorum = plan.quorum_of(task)
        result.agents[task.id] = (agent,) * max(1, quorum)
        if quorum and task.role is not None:
            judged[task.role] = judged.get(task.role, 0) + 1
    for name, count in judged.items():
        result.decisions.append(
            f"{plan.roles[name].quorum} separate runs of {agent} stand in for as many different "
            f"agents in each review: {_tasks(count)} of role {name}"
        )


def _assign_role(result: Assignments, role: Role, lacks: dict[str, str], tasks: list[Task]) -> None:
    present, absent = _present(lacks), _absent(lacks)
    if not present:
        why = f"role {role.name} needs {_one_of(role.agents)}, and {_none_is_here(lacks)}"
        result.missing.append(_missing(absent, tasks, why))
        return
    for number, task in enumerate(tasks):
        turn = number % len(present) if role.alternate else 0
        result.agents[task.id] = present[turn:] + present[:turn]
    if absent and (role.alternate or role.agents[0] in absent):
        # Of an ordinary role only the first matters: the others were mere fallbacks.
        skipped = absent if role.alternate else role.agents[: role.agents.index(present[0])]
        taking = present if role.alternate else present[:1]
        result.decisions.append(
            f"{_are_missing(skipped, lacks)}: {_tasks(len(tasks))} of role {role.name} "
            f"{'goes' if len(tasks) == 1 else 'go'} to {_and(taking)}"
        )


def _assign_quorum(
    result: Assignments, role: Role, lacks: dict[str, str], tasks: list[Task]
) -> None:
    present, absent = _present(lacks), _absent(lacks)
    if len(present) < role.quorum:
        wanted = f"{role.quorum} of {', '.join(role.agents)}"
        has = _none_is_here(lacks)
        if present and all(lacks[agent] == NOT_INSTALLED for agent in absent):
            has = f"only {_and(present)} {_is(present)} installed"
        why = f"role {role.name} needs {wanted}, and {has}"
        result.missing.append(_missing(absent, tasks, why))
        return
    result.agents.update({task.id: present for task in tasks})
    if absent:
        result.decisions.append(
            f"{_are_missing(absent, lacks)}: {_tasks(len(tasks))} of role {role.name} "
            f"{'is' if len(tasks) == 1 else 'are'} judged by {_and(present)}"
        )


def _missing(agents: tuple[str, ...], tasks: list[Task], why: str) -> Missing:
    names = [task.id for task in tasks]
    named = ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
    return Missing(agents, tuple(names), f"{why}: {_tasks(len(names))} cannot run ({named})")


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _and(names: tuple[str, ...]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _one_of(names: tuple[str, ...]) -> str:
    return f"one of {', '.join(names)}" if len(names) > 1 else names[0]


def _none_is_here(lacks: dict[str, str]) -> str:
    absent = _absent(lacks)
    if any(lacks[agent] != NOT_INSTALLED for agent in absent):
        return ", ".join(_lacking(absent, lacks))
    return f"{'none of them is' if len(lacks) > 1 else 'it is not'} installed"


def _is(names: tuple[str, ...]) -> str:
    return "are" if len(names) > 1 else "is"


def _present(lacks: dict[str, str]) -> tuple[str, ...]:
    return tuple(agent for agent, lack in lacks.items() if not lack)


def _absent(lacks: dict[str, str]) -> tuple[str, ...]:
    return tuple(agent for agent, lack in lacks.items() if lack)


def _are_missing(agents: tuple[str, ...], lacks: dict[str, str]) -> str:
    """`codex and gemini are not installed and xai has no key (set XAI_API_KEY)`."""
    return " and ".join(_lacking(agents, lacks))


def _lacking(agents: tuple[str, ...], lacks: dict[str, str]) -> list[str]:
    gone = tuple(agent for agent in agents if lacks[agent] == NOT_INSTALLED)
    parts = [f"{_and(gone)} {_is(gone)} not installed"] if gone else []
    return parts + [f"{name} {lacks[name]}" for name in agents if name not in gone]
