"""What a plan says in text: the schedule before it runs, the summary after it."""

from __future__ import annotations

import os

from lib import redact, runs, state
from lib.plan import Plan, critical_path, waves
from lib.scheduler import Scheduler
from lib.state import TaskState
from lib.textual import duration, table


def schedule(plan: Plan, assigned: dict[str, tuple[str, ...]], done: set[str]) -> str:
    """What `--dry-run` shows: stages, waves, agents, critical path."""
    wave_of = {task_id: n for n, wave in enumerate(waves(plan), 1) for task_id in wave}
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
    widest = max((len(wave) for wave in waves(plan)), default=0)
    lines += [
        "",
        f"{len(plan.tasks)} tasks in {len(set(wave_of.values()))} waves, "
        f"the widest has {widest}; at most {plan.max_parallel} at once",
        f"critical path ({len(path)} tasks): {' -> '.join(path)}",
    ]
    return "\n".join(lines) + "\n"


def summary(scheduler: Scheduler) -> str:
    """The table at the end of a plan, its totals, and where to look."""
    rows = [["TASK", "AGENT", "TRIES", "TIME", "TOKENS IN/OUT", "COST", "RESULT"]]
    seconds_total = cost_total = 0.0
    tokens_total = 0
    cost_known = False
    for task_id, task in scheduler.plan.tasks.items():
        if task.id not in scheduler.board.scope:
            continue
        entry = scheduler.state.tasks[task_id]
        records = _records(scheduler, entry)
        seconds = sum(_seconds(run) for run in records)
        tokens = [run.number("input_tokens") + run.number("output_tokens") for run in records]
        costs = [cost for run in records if isinstance(cost := run.record.get("cost_usd"), float)]
        cost_known = cost_known or bool(costs)
        seconds_total += seconds
        cost_total += sum(costs)
        tokens_total += sum(tokens)
        rows.append(
            [
                task_id,
                "+".join(dict.fromkeys(str(item.get("agent")) for item in entry.attempts)) or "-",
                str(len(entry.attempts) or "-"),
                duration(seconds) if records else "-",
                _tokens(records),
                f"${sum(costs):.4f}" if costs else "-",
                _result(entry),
            ]
        )
    lines = table(rows)
    counts = [
        f"{scheduler.board.count(name)} {name}"
        for name in (state.DONE, state.FAILED, state.BLOCKED, state.PENDING)
        if scheduler.board.count(name)
    ]
    cost = f"${cost_total:.4f}" if cost_known else "unknown"
    lines += [
        "",
        f"{', '.join(counts)}; agents worked {duration(seconds_total)}, "
        f"{tokens_total} tokens, cost {cost}",
    ]
    lines += _where(scheduler)
    return "\n".join(redact.for_terminal(line) for line in lines) + "\n"


def _where(scheduler: Scheduler) -> list[str]:
    settings = scheduler.settings
    lines = [
        f"runs      {settings.runs_dir}",
        f"state     {scheduler.state.path}",
        f"messages  {settings.bus_path}",
    ]
    if scheduler.board.count(state.FAILED):
        lines.append(f"blockers  {os.path.join(settings.root, 'docs', 'dev', 'issues.md')}")
    return lines


def _records(scheduler: Scheduler, entry: TaskState) -> list[runs.Run]:
    folder = scheduler.settings.runs_dir
    return [runs.read(os.path.join(folder, str(item["run"]))) for item in entry.attempts]


def _seconds(run: runs.Run) -> float:
    start, end = run.time_ns("start_time"), run.time_ns("end_time")
    return (end - start) / 1e9 if start and end else 0.0


def _tokens(records: list[runs.Run]) -> str:
    known = [run for run in records if "output_tokens" in run.record]
    if not known:
        return "-"
    into = sum(run.number("input_tokens") for run in known)
    return f"{into}/{sum(run.number('output_tokens') for run in known)}"


def _result(entry: TaskState) -> str:
    if entry.state == state.DONE:
        return "done"
    name = "not run" if entry.state == state.PENDING and not entry.attempts else entry.state
    return f"{name}: {entry.why}" if entry.why else name
