"""What runs have used: tokens and cost, and how many of them ended how, together and by groups.

A loop's own record repeats the figures of its attempts: where these are known,
too, it counts as a run, and adds nothing to the sums.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from lib import ids
from lib.api import names, shapes
from lib.api.exchange import Answer, Refusal, Request, encode
from lib.api.route import FLAG, NUMBER, TEXT, Query, Route, Schema, ref
from lib.api.schemas import AMOUNT, COUNTS, listed, or_null, thing
from lib.api.shapes import Key, Shape
from lib.usage import Usage

if TYPE_CHECKING:
    from lib.api.facts import Facts, RunFacts
    from lib.api.service import Service
    from lib.index import Index

_DAY_NS = 86400 * ids.NANOSECONDS
UNKNOWN = "unknown"  # the group of runs that do not tell
KINDS = ("input_tokens", "cached_tokens", "output_tokens")


class Counted(NamedTuple):
    """A run, and whether its figures are those of others that are counted, too."""

    key: Key
    run: RunFacts
    is_sum: bool


class Totals:
    """Sums over runs: how many ended how, and what those used that are no sums themselves."""

    def __init__(self) -> None:
        self.runs: dict[str, int] = {}  # by status
        self.used = Usage([])

    def add(self, item: Counted) -> None:
        status = item.run.state.status
        self.runs[status] = self.runs.get(status, 0) + 1
        if not item.is_sum:
            self.used.add(item.run.usage)

    def take(self, other: Totals) -> None:
        """Add what another one has counted."""
        for status, number in other.runs.items():
            self.runs[status] = self.runs.get(status, 0) + number
        self.used.add(other.used)

    def fields(self) -> Shape:
        used = self.used
        return {
            "runs": self.runs,
            "run_count": sum(self.runs.values()),
            **{kind: getattr(used, kind) for kind in KINDS},
            "cost_usd": None if used.cost_usd is None else round(used.cost_usd, 6),
            "cost_estimated": used.is_estimated,
            "unknown_cost_runs": used.without_cost,
            "unknown_token_runs": used.without_tokens,
        }


def count(facts: Facts, index: Index, project: str = "", since_ns: int = 0) -> Iterator[Counted]:
    """The runs of a project, or of all, that began then or later; `facts` are prepared."""
    for key, entry in index.tasks.items():
        if project and key[0] != project:
            continue
        found = facts.of_task(entry).runs_of(key)
        found = [run for run in found if run.order[0] >= since_ns]
        is_told_twice = any(not run.is_sum for run in found)
        for run in found:
            yield Counted(key, run, run.is_sum and is_told_twice)


def show_totals(service: Service, request: Request) -> Answer:
    query = request.query
    project, by = query.get("project", ""), query.get("by", "")
    if by and by not in _GROUPS:
        raise Refusal(400, f"by must be one of {', '.join(_GROUPS)}")
    since_ns = names.moment("since", query.get("since", "")) or 0

    def make(index: Index) -> bytes:
        service.facts.prepare(index)
        found = list(count(service.facts, index, project, since_ns))
        return encode(_totals(found, by)) + b"\n"

    if since_ns:
        with service.view.current() as index:
            return Answer(make(index))
    return Answer(service.view.answer(("totals", project, by), make))


def _totals(found: list[Counted], by: str) -> Shape:
    total = Totals()
    groups: dict[tuple[str, ...], Totals] = {}
    group_of = _GROUPS[by] if by else _all
    for item in found:
        group = group_of(item)
        if group not in groups:
            groups[group] = Totals()
        groups[group].add(item)
    for part in groups.values():
        total.take(part)
    shown = [_group(by, group, groups[group].fields()) for group in sorted(groups)]
    return shapes.redacted({**total.fields(), **({"by": by, "groups": shown} if by else {})})


def _group(by: str, group: tuple[str, ...], fields: Shape) -> Shape:
    place = dict(zip(("project_id", "task_id"), group, strict=False))
    is_place = by in ("project", "task")
    return {"key": "/".join(group), **(place if is_place else {}), **fields}


def _all(item: Counted) -> tuple[str, ...]:
    return ()


def _day(item: Counted) -> tuple[str, ...]:
    started_ns = item.run.order[0]
    return (_day_text(started_ns // _DAY_NS) if started_ns else UNKNOWN,)


@functools.lru_cache(1000)
def _day_text(number: int) -> str:
    return shapes.time_text("", number * _DAY_NS)[:10]


_GROUPS: dict[str, Callable[[Counted], tuple[str, ...]]] = {
    "project": lambda item: (item.key[0],),
    "task": lambda item: item.key,
    "agent": lambda item: (item.run.entry.agent or UNKNOWN,),
    "model": lambda item: (item.run.entry.run.text("model") or UNKNOWN,),
    "day": _day,
}
_FIGURES: dict[str, Schema] = {
    "runs": COUNTS,
    "run_count": NUMBER,
    **dict.fromkeys(KINDS, or_null(NUMBER)),
    "cost_usd": or_null(AMOUNT),
    "cost_estimated": FLAG,
    "unknown_cost_runs": NUMBER,
    "unknown_token_runs": NUMBER,
}

SCHEMAS: dict[str, Schema] = {
    "Totals": thing(
        _FIGURES,
        {"by": {"type": "string", "enum": list(_GROUPS)}, "groups": listed("TotalsGroup")},
    ),
    "TotalsGroup": thing({"key": TEXT, **_FIGURES}, {"project_id": TEXT, "task_id": TEXT}),
}

ROUTES = (
    Route(
        "GET",
        "/api/v1/totals",
        show_totals,
        "How many runs ended how, and what they used: null for what none of them tells.",
        query=(
            Query("project", "Of this project alone."),
            Query("since", "Of runs that began then or later: 2h ago, a date, or RFC 3339."),
            Query(
                "by",
                "Also in groups: of the project, the task, the agent, the model, or the day (UTC).",
                {"type": "string", "enum": list(_GROUPS)},
            ),
        ),
        answers={
            200: ("The sums.", ref("Totals")),
            400: ("`since` is no time, or `by` no group.", ref("Error")),
        },
    ),
)
