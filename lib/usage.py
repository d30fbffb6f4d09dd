"""Tokens and cost of runs, alone or together: what nobody told is counted, and never taken for 0."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNKNOWN = "-"
AND_MORE = "+?"  # behind a sum that lacks what is not known
ESTIMATED = "~"  # before a cost that was reckoned from list prices
_LIMIT = 1e15


class Usage:
    """What runs used together, from their records, or what a plan's state repeats of these.

    A figure is None where none of them tells it; `without_tokens` and `without_cost`
    say how many do not.
    """

    __slots__ = (
        "cached_tokens",
        "cost_usd",
        "input_tokens",
        "is_estimated",
        "output_tokens",
        "runs",
        "without_cost",
        "without_tokens",
    )

    def __init__(self, records: Iterable[Mapping[str, object]]) -> None:
        records = list(records)
        self.runs = len(records)
        self.input_tokens = _whole(_sum(records, "input_tokens"))
        self.cached_tokens = _whole(_sum(records, "cached_tokens"))
        self.output_tokens = _whole(_sum(records, "output_tokens"))
        self.cost_usd = _sum(records, "cost_usd")
        self.is_estimated = any(record.get("cost_estimated") is True for record in records)
        self.without_cost = sum(_figure(record, "cost_usd") is None for record in records)
        self.without_tokens = sum(
            _figure(record, "input_tokens") is None or _figure(record, "output_tokens") is None
            for record in records
        )

    def add(self, other: Usage) -> None:
        """Take in what others used besides."""
        self.runs += other.runs
        self.input_tokens = _added(self.input_tokens, other.input_tokens)
        self.cached_tokens = _added(self.cached_tokens, other.cached_tokens)
        self.output_tokens = _added(self.output_tokens, other.output_tokens)
        if other.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + other.cost_usd
        self.is_estimated = self.is_estimated or other.is_estimated
        self.without_cost += other.without_cost
        self.without_tokens += other.without_tokens

    def tokens(self) -> str:
        """`1200/34`, in and out, for a cell of a table."""
        if self.input_tokens is None and self.output_tokens is None:
            return UNKNOWN
        both = [self.input_tokens, self.output_tokens]
        text = "/".join("?" if number is None else str(number) for number in both)
        return text + self._more(self.without_tokens)

    def cost(self) -> str:
        """`$0.0123`, `~$0.0123` where it was estimated, for a cell of a table."""
        if self.cost_usd is None:
            return UNKNOWN
        return dollars(self.cost_usd, self.is_estimated) + self._more(self.without_cost)

    def _more(self, missing: int) -> str:
        return AND_MORE if missing and self.runs > 1 else ""

    def cost_sentence(self) -> str:
        """`cost ~$1.2345 (unknown for 2 runs)`."""
        if self.cost_usd is None:
            return "cost unknown"
        return f"cost {dollars(self.cost_usd, self.is_estimated)}" + _lacking(self.without_cost)

    def tokens_sentence(self) -> str:
        """`1200 tokens in, 34 out (unknown for 2 runs)`."""
        if self.input_tokens is None and self.output_tokens is None:
            return "tokens unknown"
        into, out = self.input_tokens or 0, self.output_tokens or 0
        return f"{into} tokens in, {out} out" + _lacking(self.without_tokens)

    def total_sentence(self) -> str:
        """`1234 tokens (unknown for 2 runs)`."""
        if self.input_tokens is None and self.output_tokens is None:
            return "tokens unknown"
        total = (self.input_tokens or 0) + (self.output_tokens or 0)
        return f"{total} tokens" + _lacking(self.without_tokens)

    def fields(self) -> dict[str, object]:
        """For scripts: JSON values; null for what is not known."""
        return {
            "input_tokens": self.input_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": None if self.cost_usd is None else round(self.cost_usd, 6),
            "cost_estimated": self.is_estimated,
            "runs_without_tokens": self.without_tokens,
            "runs_without_cost": self.without_cost,
        }


def together(parts: Iterable[Usage]) -> Usage:
    """What these used together."""
    found = Usage([])
    for part in parts:
        found.add(part)
    return found


def _added(known: int | None, more: int | None) -> int | None:
    return known if more is None else (known or 0) + more


def each_once(records: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """The records without those whose figures are sums of others that are here, too."""
    records = list(records)
    sums = "includes_children"
    inside = {_task_of(record) for record in records if record.get(sums) is not True}
    return [r for r in records if r.get(sums) is not True or _task_of(r) not in inside]


def _task_of(record: Mapping[str, object]) -> tuple[object, object]:
    return str(record.get("project_id")), str(record.get("task_id"))


def dollars(amount: float, is_estimated: bool = False) -> str:
    """`$0.0123`, or `~$0.0123`."""
    return f"{ESTIMATED if is_estimated else ''}${amount:.4f}"


def count_runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _lacking(number: int) -> str:
    return f" (unknown for {count_runs(number)})" if number else ""


def _figure(record: Mapping[str, object], key: str) -> float | None:
    """A figure of a record, which an agent may have written over; None for what is none."""
    value = record.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value < _LIMIT else None  # type: ignore[operator, return-value]


def _sum(records: Iterable[Mapping[str, object]], key: str) -> float | None:
    known = [value for value in (_figure(record, key) for record in records) if value is not None]
    return sum(known) if known else None


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
