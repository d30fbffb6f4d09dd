"""The lines of the live view: problems, then what runs, then a bar; fitted to a screen.

Only text is made here, from a situation and the run folders; `printer` puts
it on the screen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from lib import estimate, ids, redact, state, usage, waits, why
from lib.activity import Activity, Watcher
from lib.printer import Line
from lib.situation import Situation
from lib.state import Attempt, TaskState
from lib.textual import amount, duration, fit, width

BAR_COLUMNS = 20
ROOM_FOR_EVENTS = 3  # rows that are left to what scrolls above, where there are enough
MIN_WIDTHS = {"agent": 40, "idle": 55, "cost": 70, "bar": 72}  # columns from which on it is shown
RECKON_SHARE = 100  # the time left is reckoned again after that many times what it took
RECKON_SECONDS = 1.0  # and not more often than that


class Frame:
    """Makes the block of lines for one situation after the other."""

    def __init__(self) -> None:
        self._watcher = Watcher("")
        self._left = ""
        self._next_reckoning = 0.0

    def lines(self, situation: Situation, columns: int, rows: int) -> list[Line]:
        """At most `rows - 1` lines, in cells for that width; whoever shows a line cuts it off."""
        if self._watcher.runs_dir != situation.runs_dir:
            self._watcher = Watcher(situation.runs_dir)
        active = active_runs(situation)
        self._watcher.forget_all_but([attempt for _, attempt in active])
        room = max(0, rows - 1 - min(ROOM_FOR_EVENTS, rows // 8))
        seen = [(name, attempt, self._watcher.look(attempt)) for name, attempt in active]
        scope = situation.scope()
        problems = self._problems(situation, scope, seen)
        most_problems = max(room - 1 - len(seen), (room - 1) // 3)
        shown = _at_most(problems, most_problems)
        running = [_Row(situation, *item, self._watcher) for item in seen]
        shown += _at_most(_table(running, columns - 1), room - 1 - len(shown))
        bar = self._bar(situation, scope, seen, columns - 1)
        return [*shown, (bar, "")][: max(0, rows - 1)]

    def _problems(
        self,
        situation: Situation,
        scope: list[str],
        seen: list[tuple[str, Attempt, Activity]],
    ) -> list[Line]:
        holds = [why.closing_cause(situation), situation.text("held")]
        found = [
            (f"nothing new starts: {redact.one_line(hold)}", "yellow") for hold in holds if hold
        ]
        waiting: list[Line] = []
        closed: dict[str, list[str]] = {}  # why -> who waits so
        now = time.time()
        explainer: why.Explainer | None = None
        for task_id in scope:
            entry = situation.tasks.get(task_id)
            if entry is None or entry.state == state.DONE:
                continue
            if entry.state == state.FAILED:
                found.append((f"{task_id} failed: {redact.one_line(entry.why)}", "red"))
            elif entry.state == state.WAITING:
                closed.setdefault(entry.why, []).append(task_id)
            elif waits.seconds_to_wait(entry, now):
                explainer = explainer or why.Explainer(situation, self._watcher)
                waiting.append((f"{task_id} {explainer.sentence(task_id)}", "yellow"))
        for names in closed.values():  # dozens may wait for one quota: a line for all of them
            explainer = explainer or why.Explainer(situation, self._watcher)
            more = f" and {len(names) - 1} more:" if len(names) > 1 else ""
            waiting.append((f"{names[0]}{more} {explainer.sentence(names[0])}", "yellow"))
        for name, _, activity in seen:
            if activity.is_silent and not activity.has_ended:
                found.append((f"{name} has been {why.silence(activity)}", "yellow"))
        return found + ([] if holds[0] else waiting)

    def _bar(
        self,
        situation: Situation,
        scope: list[str],
        seen: list[tuple[str, Attempt, Activity]],
        columns: int,
    ) -> str:
        counts = _count(situation, scope)
        total, done = len(scope), counts.get(state.DONE, 0)
        failed, blocked = counts.get(state.FAILED, 0), counts.get(state.BLOCKED, 0)
        waiting = counts.get(state.WAITING, 0)
        parts = [f"{done}/{total} done", f"{len(seen)} running"]
        parts += [f"{waiting} waiting"] if waiting else []
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{blocked} blocked"] if blocked else []
        left = self._time_left(situation)
        parts += [f"{left} left"] if left else []
        began = _began(situation)
        parts += [f"{age(time.time() - began)} so far"] if began else []
        spent = _spent(situation, scope, seen)
        parts += [spent] if spent else []
        text = ", ".join(parts)
        if columns < MIN_WIDTHS["bar"]:
            return text
        return f"{progress(done, failed + blocked, total)} {text}"

    def _time_left(self, situation: Situation) -> str:
        now = time.monotonic()
        if now >= self._next_reckoning:
            seconds = time_left(situation)
            self._left = "" if seconds is None else estimate.in_words(seconds)
            took = time.monotonic() - now
            self._next_reckoning = now + max(RECKON_SECONDS, RECKON_SHARE * took)
        return self._left


def progress(done: int, stuck: int, total: int) -> str:
    """`[######!!.....]`: how much is done, and how much cannot be."""
    bar = "#" * (BAR_COLUMNS * done // max(1, total))
    bar += "!" * -(-BAR_COLUMNS * stuck // max(1, total))
    return f"[{bar[:BAR_COLUMNS].ljust(BAR_COLUMNS, '.')}]"


def active_runs(situation: Situation) -> list[tuple[str, Attempt]]:
    """(unit, attempt) of what is under way or being verified, oldest first."""
    return [
        (str(attempt.get("unit") or task_id), attempt) for task_id, attempt in situation.running()
    ]


def time_left(situation: Situation) -> float | None:
    """Seconds until the plan has ended, as far as its ended tasks tell; None for unknown."""
    if situation.text("held"):
        return None
    seen = Progress(situation)
    is_closing = bool(situation.text("closing"))
    waiting = {} if is_closing else seen.waiting
    width_ = situation.header.get("max_parallel")
    most = width_ if isinstance(width_, int) else situation.plan.max_parallel
    return estimate.seconds_left(
        situation.plan,
        sample=seen.sample,
        running=seen.running,
        waiting=waiting,
        done=seen.done,
        width=most,
    )


class Progress:
    """How far a plan is: which tasks are done and what they took, which run, and which wait.

    `running` are those under way and for how many seconds already, `waiting` those of this
    start that have not begun, and how long they wait at least.
    """

    def __init__(self, situation: Situation) -> None:
        now = time.time()
        self.sample = estimate.Sample()
        self.running: dict[str, float] = {}
        self.waiting: dict[str, float] = {}
        self.done: list[str] = []
        scope = set(situation.scope())
        for task_id, entry in situation.tasks.items():
            task = situation.plan.tasks.get(task_id)
            if task is None:
                continue
            if entry.state == state.DONE:
                self.done.append(task_id)
                times = _durations(entry)
                if times:
                    self.sample.add(task, times[-1], sum(times))
            elif entry.state in (state.RUNNING, state.VERIFYING):
                starts = [_moment(item.get("started")) for item in entry.attempts[-1:]]
                self.running[task_id] = max(0.0, now - max(starts, default=now))
            elif entry.state in (state.PENDING, state.WAITING) and task_id in scope:
                self.waiting[task_id] = waits.seconds_to_wait(entry, now)


def _durations(entry: TaskState) -> list[float]:
    """Seconds of the attempts of a task that is done, the one that succeeded last."""
    ended = [
        (item.get("result") == "done", _moment(item.get("ended")) - _moment(item.get("started")))
        for item in entry.attempts
        if _moment(item.get("started")) and _moment(item.get("ended"))
    ]
    return [seconds for _, seconds in sorted(ended) if seconds >= 0]


def _moment(text: object) -> float:
    return (ids.parse_rfc3339(text) or 0) / ids.NANOSECONDS


def _began(situation: Situation) -> float:
    """When this start of the plan began: its process then signed the lock."""
    path = os.path.join(situation.runs_dir, situation.plan.project, state.LOCK_NAME)
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _count(situation: Situation, scope: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for task_id in scope:
        entry = situation.tasks.get(task_id)
        where = entry.state if entry else state.PENDING
        counts[where] = counts.get(where, 0) + 1
    return counts


class _Row:
    """The cells of one running task."""

    def __init__(
        self, situation: Situation, name: str, attempt: Attempt, now: Activity, watcher: Watcher
    ) -> None:
        self.name = redact.one_line(name)
        self.agent = now.agent
        self.elapsed = age(now.elapsed_seconds)
        self.idle = f"idle {age(now.silent_seconds)}"
        self.cost = usage_cell(now)
        self.last = watcher.last_line(attempt)
        self.colour = "yellow" if now.is_silent and not now.has_ended else ""
        if now.has_ended:
            entry = situation.tasks.get(ids.planned_task(name))
            is_verified = entry is not None and entry.state == state.VERIFYING
            self.idle = ""
            self.last = "is being verified" if is_verified else "has ended"


def _table(rows: list[_Row], columns: int) -> list[Line]:
    """One line for each row, in aligned cells, as many as the width allows."""
    if not rows:
        return []
    names = min(max(width(row.name) for row in rows), max(8, columns // 3))
    agents = min(max(width(row.agent) for row in rows), 10)
    costs = max(width(row.cost) for row in rows)
    lines = []
    for row in rows:
        cells = [fit(row.name, names), row.elapsed.rjust(6)]
        if columns >= MIN_WIDTHS["agent"]:
            cells.insert(1, fit(row.agent, agents))
        if columns >= MIN_WIDTHS["idle"]:
            cells.append(row.idle.ljust(11))
        if costs and columns >= MIN_WIDTHS["cost"]:
            cells.append(row.cost.rjust(costs))
        lines.append(("  ".join([*cells, row.last]), row.colour))
    return lines


def usage_cell(now: Activity) -> str:
    """`12.3k/450 $0.12`: tokens in and out, and what they cost; "" while nobody has told any."""
    parts = []
    if now.input_tokens is not None or now.output_tokens is not None:
        parts.append(f"{amount(now.input_tokens or 0)}/{amount(now.output_tokens or 0)}")
    if now.cost_usd is not None:
        parts.append(f"{usage.ESTIMATED if now.is_estimated else ''}${now.cost_usd:.2f}")
    return " ".join(parts)


def _spent(
    situation: Situation, scope: list[str], seen: list[tuple[str, Attempt, Activity]]
) -> str:
    """What the tasks of this start have cost so far, `+?` where some of it is unknown; "" for nothing."""
    live = {str(attempt.get("run")): now for _, attempt, now in seen}
    records: list[Mapping[str, object]] = []
    for task_id in scope:
        entry = situation.tasks.get(task_id)
        for attempt in entry.attempts if entry else []:
            now = live.get(str(attempt.get("run")))
            records.append(now.run.record if now else attempt)
    total = usage.Usage(records)
    if not total.cost_usd:
        return ""
    more = usage.AND_MORE if total.without_cost else ""
    return f"{usage.ESTIMATED if total.is_estimated else ''}${total.cost_usd:.2f}{more} spent"


def age(seconds: float) -> str:
    """`5s`, `3m07s`, `2h05m`."""
    return f"{max(0, int(seconds))}s" if seconds < 60 else duration(seconds)


def _at_most(lines: list[Line], most: int) -> list[Line]:
    """The first lines, the last of them saying how many there are more."""
    if len(lines) <= most or most <= 0:
        return lines[: max(0, most)]
    if most == 1:
        text, colour = lines[0]
        return [(f"(1 of {len(lines)}) {text}", colour)]
    return [*lines[: most - 1], (f"… and {len(lines) - most + 1} more", "")]
