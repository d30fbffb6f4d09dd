"""What a plan says in text: the schedule before it runs, the summary after it."""

from __future__ import annotations

import os

from lib import blockers, redact, runs, state
from lib.board import Board
from lib.plan import Plan, critical_path, waves
from lib.scheduler import Settings
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


def summary(plan: Plan, board: Board, settings: Settings) -> str:
    """The table at the end of a plan, its totals, and where to look."""
    rows = [["TASK", "AGENT", "TRIES", "TIME", "TOKENS IN/OUT", "COST", "RESULT"]]
    all_records = []
    for task_id in plan.tasks:
        if task_id not in board.scope:
            continue
        entry = board.tasks[task_id]
        records = _records(settings.runs_dir, entry)
        all_records += records
        rows.append(
            [
                task_id,
                "+".join(dict.fromkeys(str(item.get("agent")) for item in entry.attempts)) or "-",
                str(len(entry.attempts) or "-"),
                duration(_seconds(records)) if records else "-",
                _tokens(records),
                _cost(records) or "-",
                _result(entry),
            ]
        )
    counts = {name: board.count(name) for name in _COUNTED}
    tokens = sum(run.number("input_tokens") + run.number("output_tokens") for run in all_records)
    lines = [
        *table(rows),
        "",
        f"{', '.join(f'{count} {name}' for name, count in counts.items() if count)}; "
        f"agents worked {duration(_seconds(all_records))}, "
        f"{tokens} tokens, cost {_cost(all_records) or 'unknown'}",
        f"runs      {settings.runs_dir}",
        f"state     {os.path.join(settings.runs_dir, plan.project, state.STATE_NAME)}",
        f"messages  {settings.bus_path}",
    ]
    if counts[state.FAILED]:
        lines.append(f"blockers  {os.path.join(settings.root, blockers.NAME)}")
    return "\n".join(redact.for_terminal(line).replace("\n", " ") for line in lines) + "\n"


def _records(runs_dir: str, entry: TaskState) -> list[runs.Run]:
    return [runs.read(os.path.join(runs_dir, str(item["run"]))) for item in entry.attempts]


def _seconds(records: list[runs.Run]) -> float:
    times = [(run.time_ns("start_time"), run.time_ns("end_time")) for run in records]
    return sum((end - start) / 1e9 for start, end in times if start and end)


def _tokens(records: list[runs.Run]) -> str:
    known = [run for run in records if "output_tokens" in run.record]
    if not known:
        return "-"
    into = sum(run.number("input_tokens") for run in known)
    return f"{into}/{sum(run.number('output_tokens') for run in known)}"


def _cost(records: list[runs.Run]) -> str:
    """The sum of all costs that are known; "" when none is."""
    costs = [run.record.get("cost_usd") for run in records]
    known = [cost for cost in costs if isinstance(cost, int | float)]
    return f"${sum(known):.4f}" if known else ""


def _result(entry: TaskState) -> str:
    if entry.state == state.DONE:
        return "done"
    name = "not run" if entry.state == state.PENDING and not entry.attempts else entry.state
    return f"{name}: {entry.why}" if entry.why else name
