"""What a plan says in text: the schedule before it runs, the summary after it."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from lib import blockers, redact, state, usage
from lib.plan import Plan, critical_path, waves
from lib.settings import Settings
from lib.situation import Situation
from lib.state import Attempt, TaskState
from lib.textual import duration, table

_COUNTED = (
    state.DONE,
    state.FAILED,
    state.BLOCKED,
    state.WAITING,
    state.PENDING,
    state.RUNNING,
)


def schedule(
    plan: Plan,
    assigned: dict[str, tuple[str, ...]],
    done: Collection[str],
    scope: Collection[str],
    max_parallel: int,
) -> str:
    """What `--dry-run` shows: stages, waves, agents, critical path; what is not of this start."""
    by_wave = waves(plan)
    wave_of = {task_id: n for n, wave in enumerate(by_wave, 1) for task_id in wave}
    lines = [f"plan {plan.project}: {plan.title}", f"file {plan.path}"]
    for stage in plan.stages:
        mark = "" if stage.barrier else " (no barrier)"
        lines += ["", f"stage {stage.id}: {stage.title}{mark}"]
        rows = []
        for task in stage.tasks:
            names = assigned.get(task.id) or ("none",)
            quorum = plan.quorum_of(task)
            who = " + ".join(names) if quorum else names[0]
            needs = f"after {', '.join(task.depends_on)}" if task.depends_on else ""
            status = "done" if task.id in done else f"wave {wave_of[task.id]}"
            status = status if task.id in scope or task.id in done else "not now"
            rows.append([status, task.id, task.role or "", who, needs])
        lines += [f"  {line}" for line in table(rows)]
    path = critical_path(plan)
    widest = max(map(len, by_wave), default=0)
    lines += [
        "",
        f"{_count(len(plan.tasks), 'task')} in {_count(len(by_wave), 'wave')}, "
        f"the widest has {widest}; at most {max_parallel} at once",
        f"critical path ({_count(len(path), 'task')}): {' -> '.join(path)}",
    ]
    return "\n".join(lines) + "\n"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def schedule_fields(
    plan: Plan,
    assigned: dict[str, tuple[str, ...]],
    done: Collection[str],
    scope: Collection[str],
    max_parallel: int,
) -> dict[str, object]:
    """The same for scripts: JSON values."""
    wave_of = {task_id: n for n, wave in enumerate(waves(plan), 1) for task_id in wave}
    stages = [
        {
            "id": stage.id,
            "title": stage.title,
            "barrier": stage.barrier,
            "tasks": [
                {
                    "id": task.id,
                    "wave": wave_of[task.id],
                    "done": task.id in done,
                    "chosen": task.id in scope,
                    "role": task.role,
                    "agents": list(assigned.get(task.id, ())),
                    "quorum": plan.quorum_of(task),
                    "depends_on": list(task.depends_on),
                }
                for task in stage.tasks
            ],
        }
        for stage in plan.stages
    ]
    return {
        "project": plan.project,
        "plan": plan.path,
        "max_parallel": max_parallel,
        "stages": stages,
        "critical_path": critical_path(plan),
    }


class Summary:
    """What became of a plan: each task of the last start with its runs, and the totals.

    `page` is the path of the page that shows it, if there is one.
    """

    def __init__(self, situation: Situation, settings: Settings, page: str = "") -> None:
        self._situation = situation
        self._settings = settings
        self._page = page
        self._entries = {
            task_id: situation.tasks[task_id]
            for task_id in situation.scope()
            if task_id in situation.tasks
        }

    def table(self) -> str:
        """For people: a line for each task, the totals, and where to look."""
        rows = [["TASK", "AGENT", "TRIES", "TIME", "TOKENS IN/OUT", "COST", "RESULT"]]
        for task_id, entry in self._entries.items():
            used = _Use(entry.attempts)
            rows.append(
                [
                    task_id,
                    who(entry),
                    str(entry.tries() or "-"),
                    duration(used.seconds) if entry.attempts else "-",
                    used.usage.tokens(),
                    used.usage.cost(),
                    _result(entry),
                ]
            )
        settings, project = self._settings, self._situation.plan.project
        lines = [
            *table(rows),
            "",
            self.totals(),
            f"runs      {settings.runs_dir}",
            f"state     {os.path.join(settings.runs_dir, project, state.STATE_NAME)}",
            f"messages  {settings.bus_path}",
        ]
        if self._page:
            lines.append(f"page      {self._page}")
        if self._situation.count(state.FAILED):
            lines.append(f"blockers  {os.path.join(settings.root, blockers.NAME)}")
        return "\n".join(redact.for_terminal(line).replace("\n", " ") for line in lines) + "\n"

    def totals(self) -> str:
        """Counts, time, tokens and cost in one line."""
        used = self._all()
        counts = {name: self._situation.count(name) for name in _COUNTED}
        return (
            f"{', '.join(f'{count} {name}' for name, count in counts.items() if count)}; "
            f"agents worked {duration(used.seconds)}, "
            f"{used.usage.total_sentence()}, {used.usage.cost_sentence()}"
        )

    def fields(self) -> dict[str, object]:
        """For scripts: JSON values; null for what is not known."""
        rows = [
            {
                "task": task_id,
                "state": entry.state,
                "why": entry.why,
                "agents": _doers(entry),
                "attempts": entry.tries(),
                **_Use(entry.attempts).fields(),
            }
            for task_id, entry in self._entries.items()
        ]
        return {"tasks": rows, **self._all().fields()}

    def _all(self) -> _Use:
        return _Use([item for entry in self._entries.values() for item in entry.attempts])


class _Use:
    """What attempts took together."""

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        times = [item.get("seconds") for item in attempts]
        self.seconds = sum(time for time in times if isinstance(time, int | float))
        self.usage = usage.Usage(attempts)

    def fields(self) -> dict[str, object]:
        return {"seconds": round(self.seconds, 3), **self.usage.fields()}


def _doers(entry: TaskState) -> list[str]:
    """The agents whose work counts: of those that succeeded, else of all that tried."""
    done = [str(item.get("agent")) for item in entry.attempts if item.get("result") == "done"]
    every = [str(item.get("agent")) for item in entry.attempts]
    return list(dict.fromkeys(done or every))


def who(entry: TaskState) -> str:
    """Who did the task, and after whom: `claude (after codex)`; `a+b` for a review.

    `claude (for codex)` where the other one was not even tried: its provider was closed.
    """
    doers = _doers(entry)
    tried = dict.fromkeys(str(item.get("agent")) for item in entry.attempts)
    before = [name for name in tried if name not in doers]
    spared = dict.fromkeys(str(item.get("instead_of") or "") for item in entry.attempts)
    closed = [name for name in spared if name and name not in tried]
    notes = [f"after {', '.join(before)}"] if before else []
    notes += [f"for {', '.join(closed)}"] if closed else []
    return ("+".join(doers) or "-") + (f" ({'; '.join(notes)})" if notes else "")


def _result(entry: TaskState) -> str:
    if entry.state == state.DONE:
        note = entry.attempts[-1].get("note") if entry.attempts else ""
        return f"done, {note}" if note else "done"
    if entry.state == state.WAITING:
        return entry.why or entry.state
    name, why = entry.state, entry.why
    if name == state.PENDING and not entry.attempts:
        name, why = "not run", why.removeprefix("not started: ")
    elif name == state.PENDING and why.startswith("tried again after: "):
        name, _, why = why.partition(" after: ")
        name = f"not done, {name} by the next start"
    return f"{name}: {why}" if why else name
