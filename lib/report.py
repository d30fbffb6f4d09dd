"""What a plan says in text: the schedule before it runs, the summary after it."""

from __future__ import annotations

import os

from lib import blockers, redact, runs, state
from lib.plan import Plan, critical_path, waves
from lib.settings import Settings
from lib.situation import Situation
from lib.state import TaskState
from lib.textual import duration, table

_COUNTED = (state.DONE, state.FAILED, state.BLOCKED, state.PENDING, state.RUNNING)


def schedule(
    plan: Plan, assigned: dict[str, tuple[str, ...]], done: set[str], max_parallel: int
) -> str:
    """What `--dry-run` shows: stages, waves, agents, critical path."""
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
            rows.append([status, task.id, task.role or "", who, needs])
        lines += [f"  {line}" for line in table(rows)]
    path = critical_path(plan)
    widest = max(map(len, by_wave), default=0)
    lines += [
        "",
        f"{len(plan.tasks)} tasks in {len(by_wave)} waves, "
        f"the widest has {widest}; at most {max_parallel} at once",
        f"critical path ({len(path)} tasks): {' -> '.join(path)}",
    ]
    return "\n".join(lines) + "\n"


def schedule_fields(
    plan: Plan, assigned: dict[str, tuple[str, ...]], done: set[str], max_parallel: int
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
    """What became of a plan: each task of the last start with its runs, and the totals."""

    def __init__(self, situation: Situation, settings: Settings) -> None:
        self._situation = situation
        self._settings = settings
        self._records = {
            task_id: _records(settings.runs_dir, situation.tasks[task_id])
            for task_id in situation.scope()
            if task_id in situation.tasks
        }

    def table(self) -> str:
        """For people: a line for each task, the totals, and where to look."""
        rows = [["TASK", "AGENT", "TRIES", "TIME", "TOKENS IN/OUT", "COST", "RESULT"]]
        for task_id, records in self._records.items():
            entry = self._situation.tasks[task_id]
            rows.append(
                [
                    task_id,
                    _who(entry),
                    str(len(entry.attempts) or "-"),
                    duration(_seconds(records)) if records else "-",
                    _tokens(records),
                    _cost(records) or "-",
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
        if self._situation.count(state.FAILED):
            lines.append(f"blockers  {os.path.join(settings.root, blockers.NAME)}")
        return "\n".join(redact.for_terminal(line).replace("\n", " ") for line in lines) + "\n"

    def totals(self) -> str:
        """Counts, time, tokens and cost in one line."""
        records = self._all()
        counts = {name: self._situation.count(name) for name in _COUNTED}
        tokens = sum(run.number("input_tokens") + run.number("output_tokens") for run in records)
        return (
            f"{', '.join(f'{count} {name}' for name, count in counts.items() if count)}; "
            f"agents worked {duration(_seconds(records))}, "
            f"{tokens} tokens, cost {_cost(records) or 'unknown'}"
        )

    def fields(self) -> dict[str, object]:
        """For scripts: JSON values; null for what is not known."""
        return {
            "tasks": [self._task_fields(task_id) for task_id in self._records],
            **_sums(self._all()),
        }

    def _task_fields(self, task_id: str) -> dict[str, object]:
        entry = self._situation.tasks[task_id]
        return {
            "task": task_id,
            "state": entry.state,
            "why": entry.why,
            "agents": _doers(entry),
            "attempts": len(entry.attempts),
            **_sums(self._records[task_id]),
        }

    def _all(self) -> list[runs.Run]:
        return [run for records in self._records.values() for run in records]


def _sums(records: list[runs.Run]) -> dict[str, object]:
    known = [run for run in records if "output_tokens" in run.record]
    costs = _costs(records)
    return {
        "seconds": round(_seconds(records), 3),
        "input_tokens": sum(run.number("input_tokens") for run in known) if known else None,
        "output_tokens": sum(run.number("output_tokens") for run in known) if known else None,
        "cost_usd": round(sum(costs), 6) if costs else None,
    }


def _doers(entry: TaskState) -> list[str]:
    """The agents whose work counts: of those that succeeded, else of all that tried."""
    done = [str(item.get("agent")) for item in entry.attempts if item.get("result") == "done"]
    every = [str(item.get("agent")) for item in entry.attempts]
    return list(dict.fromkeys(done or every))


def _who(entry: TaskState) -> str:
    """Who did the task, and after whom: `claude (after codex)`; `a+b` for a review."""
    doers = _doers(entry)
    tried = dict.fromkeys(str(item.get("agent")) for item in entry.attempts)
    before = [name for name in tried if name not in doers]
    return ("+".join(doers) or "-") + (f" (after {', '.join(before)})" if before else "")


def _records(runs_dir: str, entry: TaskState) -> list[runs.Run]:
    return [runs.read(os.path.join(runs_dir, str(item["run"]))) for item in entry.attempts]


def _seconds(records: list[runs.Run]) -> float:
    return sum(run.seconds() for run in records)


def _tokens(records: list[runs.Run]) -> str:
    known = [run for run in records if "output_tokens" in run.record]
    if not known:
        return "-"
    into = sum(run.number("input_tokens") for run in known)
    return f"{into}/{sum(run.number('output_tokens') for run in known)}"


def _costs(records: list[runs.Run]) -> list[float]:
    costs = [run.record.get("cost_usd") for run in records]
    return [cost for cost in costs if isinstance(cost, int | float)]


def _cost(records: list[runs.Run]) -> str:
    """The sum of all costs that are known; "" when none is."""
    known = _costs(records)
    return f"${sum(known):.4f}" if known else ""


def _result(entry: TaskState) -> str:
    if entry.state == state.DONE:
        notes = [str(item["note"]) for item in entry.attempts if item.get("note")]
        return f"done, {notes[-1]}" if notes and entry.attempts[-1].get("note") else "done"
    name = "not run" if entry.state == state.PENDING and not entry.attempts else entry.state
    return f"{name}: {entry.why}" if entry.why else name
