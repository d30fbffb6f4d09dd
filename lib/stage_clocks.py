"""How much time the stages of a plan have left: clocks that can stand still."""

from __future__ import annotations

import math
from collections.abc import Collection

from lib.plan import Plan


class StageClocks:
    """The ends of stages that have a timeout, monotonic, from the first start of their tasks."""

    def __init__(self, plan: Plan) -> None:
        self._timeouts = {stage.id: stage.timeout for stage in plan.stages if stage.timeout}
        self._ends: dict[str, float] = {}
        self._held: dict[str, float] = {}  # since when they stand still

    def start(self, stage_id: str, now: float) -> None:
        """Note that a task of the stage has been started; the first one counts."""
        if stage_id in self._timeouts:
            self._ends.setdefault(stage_id, now + self._timeouts[stage_id])

    def hold(self, stage_ids: Collection[str], now: float) -> None:
        """Have the clocks of these stages stand still from now on, and those of all others run."""
        for stage_id in [name for name in self._held if name not in stage_ids]:
            self._ends[stage_id] += now - self._held.pop(stage_id)
        for stage_id in stage_ids:
            if stage_id in self._ends:
                self._held.setdefault(stage_id, now)

    def take_ended(self, now: float) -> list[str]:
        """The stages whose time has run out, each once."""
        ended = [name for name, end in self._running() if now > end]
        self._ends.update(dict.fromkeys(ended, math.inf))
        return ended

    def next_end(self) -> float:
        """When the first of them runs out; infinity for none."""
        return min((end for _, end in self._running()), default=math.inf)

    def _running(self) -> list[tuple[str, float]]:
        return [(name, end) for name, end in self._ends.items() if name not in self._held]
