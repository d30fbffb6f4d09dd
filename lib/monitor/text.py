"""The lines of the monitor's lists: cells of runs, plans, problems and messages.

A `Row` makes its text when it is drawn: of a long list only what is on the
screen.  Whoever shows a line cuts it to the screen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from lib import bus_parse, frame, redact, state
from lib.monitor.facts import Facts, Problem, RunView, first_line, reason_of
from lib.monitor.plans import PlanView
from lib.printer import Line
from lib.textual import fit, shorten, width

NAME_SHARE, LEAST_NAME, MOST_AGENT = 3, 8, 10  # a name takes at most a third of the columns
MIN_COLUMNS = {"agent": 40, "idle": 55, "usage": 70}  # from which on it is shown
WIDE = 10_000  # columns where nothing is to be cut
TASK_COLOURS = {state.FAILED: "red", state.BLOCKED: "red", state.WAITING: "yellow"}
ENDED_COLOURS = {"failed": "red", "unknown": "yellow"}


class Row:
    """A line that can be selected: what it is, what a filter finds it by, and how it reads.

    `run` is the folder of the run that Enter reads, `message` what it reads
    else; both may be missing.
    """

    __slots__ = ("_made", "_make", "colour", "key", "message", "run", "words")

    def __init__(
        self,
        key: str,
        words: str,
        make: Callable[[], str],
        *,
        colour: str = "",
        run: str = "",
        message: bus_parse.Message | None = None,
    ) -> None:
        self.key = key
        self.words = words
        self.colour = colour
        self.run = run
        self.message = message
        self._make = make
        self._made: str | None = None

    @property
    def text(self) -> str:
        if self._made is None:
            self._made = self._make()
        return self._made


def problem_rows(facts: Facts) -> list[Row]:
    """A row for each problem, the most urgent first."""
    return [_problem_row(problem) for problem in facts.problems]


def _problem_row(problem: Problem) -> Row:
    run = problem.entry.path if problem.entry else ""
    return Row(problem.key, problem.words, lambda: problem.text, colour=problem.colour, run=run)


def run_rows(views: Iterable[RunView], columns: int) -> list[Row]:
    """A row for each run, in aligned cells, as many as the width allows."""
    shown = list(views)
    longest = max((width(view.name) for view in shown), default=0)
    name_columns = min(longest, max(LEAST_NAME, columns // NAME_SHARE))
    agent_columns = min(max((width(view.agent) for view in shown), default=0), MOST_AGENT)
    usage_columns = max((width(view.usage) for view in shown), default=0)

    def line(view: RunView) -> str:
        cells = [_shorten_middle(view.name, name_columns), frame.age(view.seconds).rjust(6)]
        if columns >= MIN_COLUMNS["agent"]:
            cells.insert(1, fit(view.agent, agent_columns))
        if columns >= MIN_COLUMNS["idle"]:
            cells.append(_idle(view).ljust(11))
        if usage_columns and columns >= MIN_COLUMNS["usage"]:
            cells.append(view.usage.rjust(usage_columns))
        return "  ".join([*cells, _last(view)])

    return [
        Row(view.key, view.words, partial(line, view), colour=_colour(view), run=view.key)
        for view in shown
    ]


def _shorten_middle(name: str, columns: int) -> str:
    """The task tells more than the project: of `project/task` the end is kept longest."""
    if width(name) <= columns:
        return fit(name, columns)
    project, slash, task = name.partition("/")
    room = columns - width(task) - 1
    return fit(f"{shorten(project, room)}/{task}" if slash and room > 2 else task or name, columns)


def _idle(view: RunView) -> str:
    if view.activity is None:
        return view.entry.state.status
    return (
        "ending" if view.activity.has_ended else f"idle {frame.age(view.activity.silent_seconds)}"
    )


def _last(view: RunView) -> str:
    if view.activity is not None:
        return view.last
    return reason_of(view.entry) if view.entry.state.status != "completed" else ""


def _colour(view: RunView) -> str:
    now = view.activity
    if now is None:
        return ENDED_COLOURS.get(view.entry.state.status, "dim")
    is_odd = (now.is_silent and not now.has_ended) or view.entry.state.holder == "agent"
    return "yellow" if is_odd else ""


def plan_rows(plans: list[PlanView], *, with_tasks: bool) -> list[Row]:
    """A row for each plan, and what its tasks wait for: all of them, or the first that waits."""
    heads = [
        Row(f"plan {plan.project}", plan.project, plan.line, colour=_plan_colour(plan))
        for plan in plans
    ]
    if not with_tasks:
        waiting = [(plan, plan.first_waiting()) for plan in plans if plan.entry.is_run]
        return heads + [_task_row(plan, task_id) for plan, task_id in waiting if task_id]
    rows: list[Row] = []
    for plan, head in zip(plans, heads, strict=True):
        rows += [head, *(_task_row(plan, task_id) for task_id in plan.unsettled())]
    return rows


def _plan_colour(plan: PlanView) -> str:
    if plan.entry.problem or plan.is_cut_off:
        return "red"
    return "" if plan.entry.is_run else "dim"


def _task_row(plan: PlanView, task_id: str) -> Row:
    name = redact.one_line(f"{plan.project}/{task_id}")
    where = plan.task(task_id).state
    return Row(
        f"task {plan.project}/{task_id}",
        f"{name} {where}",
        lambda: f"  {name} {plan.sentence(task_id)}",
        colour=TASK_COLOURS.get(where, ""),
        run=plan.run_of(task_id),
    )


def message_rows(messages: Iterable[bus_parse.Message]) -> list[Row]:
    """A row for each message."""
    return [_message_row(message) for message in messages]


def _message_row(message: bus_parse.Message) -> Row:
    def line() -> str:
        who = "/".join(part for part in (message.project_id, message.task_id) if part)
        head = f"{message.ts[11:19]} {message.type:<8} {who + ': ' if who else ''}"
        return redact.one_line(head) + " " + first_line(message)

    words = f"{message.type} {message.project_id}/{message.task_id} {message.run_id} "
    return Row(
        f"message {message.msg_id}",
        words + message.body[:1000],
        line,
        colour="red" if message.type in ("ERROR", "RUN_CRASH") else "",
        message=message,
    )


def head_line(facts: Facts, place: str) -> str:
    """What stands above all: counts, cost, the root, the time."""
    failed = len(facts.problems)
    parts = [f"{len(facts.live)} running", f"{facts.run_count} runs"]
    parts += [f"{failed} problem{'s' if failed > 1 else ''}"] if failed else []
    if facts.cost_usd is not None:
        parts.append(f"{'~' if facts.is_estimated else ''}${facts.cost_usd:.2f}")
    clock = time.strftime("%H:%M:%SZ", time.gmtime(facts.time))
    return f"{clock}  {', '.join(parts)}  {redact.one_line(place)}"


def message_lines(message: bus_parse.Message) -> list[str]:
    """A whole message, to be read."""
    who = "/".join(part for part in (message.project_id, message.task_id, message.run_id) if part)
    head = redact.one_line(f"{message.ts}  {message.type}  {who}")
    body = redact.for_terminal(redact.text(message.body)).rstrip("\n")
    return [head, redact.one_line(message.msg_id), "", *body.split("\n")]


def once(facts: Facts, place: str, limit: int, columns: int) -> list[Line]:
    """Everything on one page: all that runs, and of what is over the newest `limit` (0 = all)."""
    most = limit or None
    parts = [
        ("problems", problem_rows(facts)),
        ("running", run_rows(facts.live, columns)),
        ("ended", run_rows(facts.ended[:most], columns)),
        ("plans", plan_rows(facts.plans, with_tasks=True)),
        ("messages", message_rows(facts.messages[:most])),
    ]
    lines: list[Line] = [(head_line(facts, place), "bold")]
    for title, rows in parts:
        if rows:
            lines += [("", ""), (f"{title} ({len(rows)})", "bold")]
            lines += [(f"  {row.text}", row.colour) for row in rows]
    return lines
