"""Waiting for quotas: who may start meanwhile, what is told of it, and when it is too long."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from lib import events, ids, quota, redact, runs
from lib.announcer import Announcer
from lib.pacing import Agents
from lib.quota import Closing, Quotas
from lib.textual import spoken
from lib.unit import Unit

HEADER_KEY = "closed"  # of the plan's state
LEAST_COUNTDOWN_SECONDS = 30.0  # left, from which on it is not told any more


class QuotaWatch:
    """The closed providers of a plan under way; `header` is that of its state, and keeps them.

    `max_wait` is the longest that the plan waits for one of them with nothing
    else to do, in seconds; 0 for not at all.
    """

    def __init__(
        self, header: dict[str, object], agents: Agents, announcer: Announcer, max_wait: float
    ) -> None:
        self._header = header
        self._agents = agents
        self._announcer = announcer
        self._max_wait = max_wait
        self._quotas = Quotas(header.get(HEADER_KEY))
        self._was_any = self._quotas.is_any
        self._looked = 0.0  # when the plan was last seen to have nothing else to do
        self._next_left = math.inf  # seconds left at which the wait is told again

    @property
    def was_any(self) -> bool:
        """Whether any provider was closed since the plan was started."""
        return self._was_any

    # -- what happens to runs

    def meet_limit(self, unit: Unit, run: runs.Run, why: str, now: float) -> None:
        """Close the provider of a unit whose run has met the limit."""
        key = self._agents.provider(unit.agent)
        was_closed = self._quotas.find(key) is not None
        reset = quota.seconds_of(run.text("reset_time"))
        ended = quota.seconds_of(run.text("end_time")) or now
        if not self._quotas.close(key, why, reset=reset, ended=ended, now=now):
            return
        self._was_any = True
        closing = self._quotas.find(key)
        assert closing is not None
        told = {
            "agent": key,
            "until": ids.rfc3339_of(closing.until),
            "reset": ids.rfc3339_of(closing.reset) if closing.reset else None,
            "why": closing.why,
        }
        until = "until" if closing.reset else "and told no reset, so it is tried again at"
        text = f"{key} is closed {until} {_when(closing, now)}: {closing.why}"
        if was_closed:  # it was tried in vain: the bus knows that it is closed
            self._announcer.tell(events.QUOTA_CLOSED, text, **told)
        else:
            self._announcer.declare("WARNING", events.QUOTA_CLOSED, text, **told)

    def begin(self, unit: Unit, now: float) -> None:
        """Note the start of a run, or that one was taken over."""
        self._quotas.begin(self._agents.provider(unit.agent), unit.name, now)

    def end(self, unit: Unit) -> None:
        """Note that a unit runs no more."""
        self._quotas.end(self._agents.provider(unit.agent), unit.name)

    def succeed(self, unit: Unit) -> None:
        """Note that a run of the unit's agent has succeeded."""
        key = self._agents.provider(unit.agent)
        if self._quotas.succeed(key, unit.name):
            self._tell_opened(key, f"{unit.name} has succeeded")

    # -- who may start

    def look(self, now: float) -> None:
        """Open what has reset by now, and keep in the header what has not."""
        for closing in self._quotas.due(now):
            self._tell_opened(closing.key, "its quota has reset")
        kept = self._quotas.as_dict()
        if kept:
            self._header[HEADER_KEY] = kept
        else:
            self._header.pop(HEADER_KEY, None)

    def _tell_opened(self, key: str, why: str) -> None:
        text = f"{key} is open again: {why}"
        self._announcer.declare("INFO", events.QUOTA_OPENED, text, agent=key)

    def choose(self, unit: Unit, now: float, taken: Collection[str] = ()) -> Closing | None:
        """Turn the unit to the first of its agents that may start now; else what it waits for.

        `taken` are providers that are tried by a run which starts at this moment.
        """
        if not self._was_any:
            return None
        found: list[Closing] = []
        preferred = unit.candidates[0]
        for agent in unit.candidates:
            key = self._agents.provider(agent)
            closing = self._quotas.find(key)
            if closing is None or not (closing.is_closed(now) or key in taken):
                unit.turn_to(agent)
                unit.stand_in_for = "" if agent == preferred else preferred
                return None
            found.append(closing)
        return min(found, key=lambda closing: closing.until)

    def tried_by(self, unit: Unit) -> str:
        """The provider that a start of this unit would try; "" for one that is open."""
        key = self._agents.provider(unit.agent)
        return key if self._quotas.find(key) else ""

    def tell_stand_in(self, unit: Unit) -> None:
        """Say that the unit is begun by another agent than its first, if it is."""
        closing = self._quotas.find(self._agents.provider(unit.stand_in_for))
        if not unit.stand_in_for or closing is None:
            return
        text = f"{unit.name}: {unit.agent} stands in for {unit.stand_in_for}: its quota is used up"
        named = {"task": unit.task.id, "unit": unit.name, "why": closing.why}
        who = {"agent": unit.agent, "instead_of": unit.stand_in_for}
        self._announcer.declare("DECISION", events.FALLBACK, text, **named, **who)

    def next_moment(self, now: float) -> float:
        """When the next provider may be used again; infinity for none."""
        return self._quotas.next_moment(now)

    # -- waiting with nothing else to do

    def wait(self, closings: Iterable[Closing], count: int, now: float) -> str:
        """Wait for one of these, with `count` tasks; returns why that is too long, "" if it is not."""
        blocking = list({closing.key: closing for closing in closings}.values())
        elapsed = max(0.0, now - self._looked) if self._looked else 0.0
        self._looked = now
        for closing in blocking:
            closing.waited += elapsed
        first = min(blocking, key=lambda closing: closing.until)
        if all(closing.until - now > self._max_wait - closing.waited for closing in blocking):
            return self._too_long(blocking, first)
        self._count_down(first, count, now)
        return ""

    def go_on(self) -> None:
        """Note that the plan has something else to do."""
        self._looked, self._next_left = 0.0, math.inf

    def _count_down(self, first: Closing, count: int, now: float) -> None:
        """Tell how long the wait still is: at its beginning, then each time that half of it is over."""
        left = first.until - now
        if left > self._next_left:
            return
        self._next_left = left / 2 if left / 2 >= LEAST_COUNTDOWN_SECONDS else -math.inf
        waits = "1 task waits" if count == 1 else f"{count} tasks wait"
        closed = "is closed until" if first.reset else "is tried again at"
        text = f"nothing else can run: {waits} for {first.key}, which {closed} "
        text += f"{_when(first, now)}; Ctrl-C ends the wait"
        fields = {"agent": first.key, "tasks": count, "seconds": round(left, 3)}
        self._announcer.tell(events.QUOTA_WAITING, text, **fields)

    def _too_long(self, blocking: list[Closing], first: Closing) -> str:
        """The sentence that a plan ends with."""
        names = " and ".join(f"{closing.key}'s" for closing in blocking)
        quotas = f"{names} quota is" if len(blocking) == 1 else f"{names} quotas are"
        when = quota.clock(first.until, 0.0)
        limit = ""
        if self._max_wait:
            limit = f", and the plan waits at most {spoken(self._max_wait)} (--max-wait)"
        if first.reset:
            text = f"stopped: {quotas} used up until {when}{limit}; start the plan again then"
        else:
            text = f"stopped: {quotas} used up, nobody knows until when{limit}; "
            text += f"start the plan again after {when}"
        return redact.one_line(text)


def _when(closing: Closing, now: float) -> str:
    """`02:01Z (in 72 min)`."""
    return f"{quota.clock(closing.until, now)} (in {spoken(closing.until - now + 0.999)})"
