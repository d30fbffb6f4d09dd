"""The tasks of a plan as JSON: how each stands, what it waits for, and its runs.

Everything in a state is somebody's file: what is no number or time there is not told.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from lib import ids, plan_order, state
from lib.api import shapes
from lib.api.exchange import encode
from lib.api.shapes import Shape
from lib.runs import RUNNING
from lib.usage import Usage

if TYPE_CHECKING:
    from lib.index import Index
    from lib.index_entries import PlanEntry, RunEntry
    from lib.monitor.plans import PlanView
    from lib.plan import Plan, Task
    from lib.state import Attempt, TaskState

ATTEMPT, CHILD = "attempt", "child"  # a run of the plan; one that a loop in it has started
PROMPTS_STAGE = "all"  # of a plan that was made of prompt files on the fly
_MAX_SECONDS = 1e10


class Links:
    """The tasks of a plan in its order, and what they need, as far as that is known."""

    def __init__(self, entry: PlanEntry, plan: Plan | None, scope: Iterable[str]) -> None:
        self._entry = entry
        self._plan = plan
        self.ids = list(plan.tasks if plan else entry.tasks)
        self.scope = frozenset(scope)

    def task(self, name: str) -> Task | None:
        return self._plan.tasks[name] if self._plan else None

    def needs(self, name: str) -> Sequence[str]:
        return self._plan.tasks[name].depends_on if self._plan else ()

    def open_needs(self, name: str) -> list[str]:
        """What it waits for still, or cannot go on without."""
        where = self._entry.tasks
        if name in where and where[name].state in (state.DONE, state.FAILED, state.SKIPPED):
            return []
        needs = self.needs(name)
        return [need for need in needs if need not in where or where[need].state != state.DONE]

    def asked(self, name: str) -> list[str]:
        """The agents that the plan names for it, in order of preference."""
        task = self.task(name)
        if task is None or self._plan is None:
            agent = self._entry.header.get("prompts_agent")
            return [str(agent)] if agent else []
        if task.role is not None:
            return list(self._plan.roles[task.role].agents)
        return [task.agent or ""]

    def wave(self, name: str) -> int | None:
        """How many tasks one behind the other it waits for, at most; None where nothing tells."""
        return self._wave_of.get(name)

    @cached_property
    def _wave_of(self) -> dict[str, int]:
        found = plan_order.waves(self._plan) if self._plan else []
        return {name: number for number, names in enumerate(found) for name in names}

    def quorum(self, name: str) -> int:
        task = self.task(name)
        return self._plan.quorum_of(task) if self._plan and task else 0


class Part:
    """A task as JSON but for its sentence, and from when to when its runs went."""

    def __init__(self, made_of: tuple[object, ...], shape: Shape, runs: list[Shape]) -> None:
        self.made_of = made_of
        self._json = encode(shapes.redacted(shape))
        self.starts = [str(run["started"]) for run in runs if run["started"]]
        self.ends = [str(run["ended"]) for run in runs if run["ended"]]
        self.is_running = any(run["status"] == RUNNING for run in runs)

    def json(self, sentence: str) -> bytes:
        return self._json[:-1] + b',"why":' + encode(sentence) + b"}"


class Parts:
    """The tasks of a plan; what was made of one stands until something of it has changed.

    What time alone changes is its sentence.
    """

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}

    def make(self, index: Index, view: PlanView, links: Links, tokens: int) -> dict[str, Part]:
        """All of them; `tokens` is another number when more texts are secret than before."""
        made: dict[str, Part] = {}
        for name in links.ids:
            made_of = (tokens, *_made_of(index, view, links, name))
            known = self._parts.get(name)
            if known is None or known.made_of != made_of:
                known = _part(index, view, links, name, made_of)
            made[name] = known
        self._parts = made
        return made


def _made_of(index: Index, view: PlanView, links: Links, name: str) -> tuple[object, ...]:
    """Two of these are equal when nothing has changed between; of runs the states are made anew."""
    entry = view.task(name)
    task = index.tasks.get((view.project, name))
    states = [run.state for run in task.runs] if task else []
    known = [_run_of(index, item) for item in entry.attempts]
    states += [run.state for run in known if run]
    about = (entry.state, entry.until, entry.attempts, links.open_needs(name), name in links.scope)
    return (view.plan, *about, states)


def _run_of(index: Index, item: Attempt) -> RunEntry | None:
    return index.runs.get(f"{index.runs_dir}/{run_id(item)}")


def run_id(item: Attempt) -> str:
    return os.path.basename(str(item.get("run") or ""))


def _part(
    index: Index, view: PlanView, links: Links, name: str, made_of: tuple[object, ...]
) -> Part:
    entry, task = view.task(name), links.task(name)
    runs = [_attempt(index, item) for item in entry.attempts]
    runs += _children(index, view.project, name, {str(run["run_id"]) for run in runs})
    quorum = links.quorum(name)
    judged = [item for item in runs if item["verdict"]] if quorum else []
    shape: Shape = {
        "id": name,
        "title": task.title if task else "",
        "stage": task.stage if task else stage_without_plan(view.entry),
        "role": task.role if task else None,
        "in_scope": name in links.scope,
        "state": entry.state,
        "until": moment(entry.until),
        "attempts": entry.tries(),
        "agents_asked": links.asked(name),
        "agents_used": _used_agents(entry),
        "wave": links.wave(name),
        "depends_on": list(links.needs(name)),
        "blocked_by": links.open_needs(name),
        "quorum": quorum,
        "verdicts": {str(item["unit"]): item["verdict"] for item in judged},
        "runs": sorted(runs, key=lambda run: str(run["started"] or "~")),
        **use_of(entry.attempts),
    }
    return Part(made_of, shape, runs)


def _used_agents(entry: TaskState) -> list[str]:
    """Those whose work counts: of the attempts that succeeded, else of all."""
    good = [item for item in entry.attempts if item.get("result") == "done"]
    return list(dict.fromkeys(str(item.get("agent") or "") for item in good or entry.attempts))


def _attempt(index: Index, item: Attempt) -> Shape:
    known = _run_of(index, item)
    is_open = item.get("result") == "running"
    ended = moment(item.get("ended"))
    return {
        "run_id": run_id(item),
        "kind": ATTEMPT,
        "unit": str(item.get("unit") or ""),
        "agent": str(item.get("agent") or ""),
        "instead_of": text(item.get("instead_of")),
        "result": str(item.get("result") or ""),
        "status": known.state.status if known else None,
        "started": moment(item.get("started")),
        "ended": ended or (shapes.end_time(known) if known and known.ended_ns else None),
        "seconds": seconds(item.get("seconds")),
        "exit_code": whole(item.get("exit_code")),
        "verdict": text(item.get("verdict")),
        "why": text(item.get("why")),
        "note": text(item.get("note")),
        **_figures(known.run.record if known and is_open else item),
    }


def _children(index: Index, project: str, name: str, parents: set[str]) -> list[Shape]:
    """The runs that the loop of a task has started; they are in the figures of its own run."""
    task = index.tasks.get((project, name))
    found = task.runs if task else []
    return [_child(run, name) for run in found if run.run.text("parent_run_id") in parents]


def _child(run: RunEntry, name: str) -> Shape:
    has_ended = run.ended_ns is not None
    return {
        "run_id": run.run.run_id,
        "kind": CHILD,
        "unit": name,
        "agent": run.agent,
        "instead_of": None,
        "result": run.state.status,
        "status": run.state.status,
        "started": shapes.start_time(run) if run.started_ns else None,
        "ended": shapes.end_time(run) if has_ended else None,
        "seconds": seconds(run.run.seconds()) if has_ended else None,
        "exit_code": whole(run.state.exit_code) if has_ended else None,
        "verdict": None,
        "why": text(shapes.error_summary(run)),
        "note": None,
        **_figures(run.run.record),
    }


def stage_without_plan(entry: PlanEntry) -> str:
    return PROMPTS_STAGE if entry.header.get("prompts_agent") else ""


# -- values


def _figures(record: Mapping[str, object]) -> Shape:
    used = Usage([record])
    names = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd")
    return {**{name: getattr(used, name) for name in names}, "cost_estimated": used.is_estimated}


def moment(value: object) -> str | None:
    """A time as it is written; None for what is none, such as the zero time."""
    told = shapes.time_text(str(value), ids.parse_rfc3339(value))
    return None if told == ids.ZERO_TIME else told


def seconds(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return round(value, 3) if is_number and 0 <= value < _MAX_SECONDS else None  # type: ignore[operator, call-overload]


def whole(value: object) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and -(1 << 31) <= value < 1 << 31 else None  # type: ignore[operator, return-value]


def text(value: object) -> str | None:
    return str(value) if value else None


def use_of(attempts: Sequence[Attempt]) -> Shape:
    """What attempts took together; null for what none of them tells."""
    spent = sum(seconds(item.get("seconds")) or 0.0 for item in attempts)
    return {"seconds": round(spent, 3), **Usage(attempts).fields()}
