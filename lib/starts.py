"""What is ready, and which of it may start: slots, pauses, pace, exclusive names, quotas."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lib.pacing import Agents
from lib.quota_watch import QuotaWatch
from lib.unit import Unit


class Starts:
    """Chooses from `ready`, units by name, which its owner fills and empties."""

    def __init__(
        self, ready: Mapping[str, Unit], agents: Agents, watch: QuotaWatch, max_parallel: int
    ) -> None:
        self._ready = ready
        self._agents = agents
        self._watch = watch
        self._max_parallel = max_parallel

    def startable(self, active: Mapping[str, Unit], now: float, clock: float) -> list[Unit]:
        """Those that may start beside the `active` ones, as many as there are slots.

        `now` is monotonic, `clock` the time of day.  Each is turned to the agent
        that may do it.
        """
        found: list[Unit] = []
        slots = self._max_parallel - len(active)
        paced: set[str] = set()
        tried: set[str] = set()
        holders = {other.task.exclusive: other.task for other in active.values()}
        for unit in self._ready.values():
            if len(found) >= slots:
                break
            task = unit.task
            is_free = not task.exclusive or holders.get(task.exclusive, task) is task
            if (
                not is_free
                or unit.retry_at > now
                or self._watch.choose(unit, clock, tried) is not None
                or self._agents.not_before(unit.agent) > now
                or self._agents.kind(unit.agent) in paced
            ):
                continue
            holders[task.exclusive] = task
            paced.add(self._agents.kind(unit.agent) or unit.name)
            tried.add(self._watch.tried_by(unit))
            found.append(unit)
        return found

    def next_moment(self, active: Mapping[str, Unit], now: float) -> float:
        """When one of them may start that may not yet, monotonic; infinity while no slot is free."""
        if len(active) >= self._max_parallel:
            return math.inf
        later = [
            at
            for unit in self._ready.values()
            if (at := max(unit.retry_at, self._agents.not_before(unit.agent))) > now
        ]
        return min(later, default=math.inf)
