"""Which providers are closed: a quota that is used up is a state with an end, and no failure.

Pure bookkeeping: every moment is told by the caller, in seconds since the
epoch, so that it holds for a machine that slept meanwhile.  A provider is
named by a key: agents with one key use up one quota.

A provider that said when its quota resets is closed until a margin after that.
Of one that did not say, one task at a time tries whether it is open again, after
pauses that grow.  It is forgotten when a run of it has succeeded: until then
whatever it closes again counts as one wait.
"""

from __future__ import annotations

import math
import os
import time

from lib import ids, redact

ERROR_CLASS = "quota"  # of a run that met the limit
MARGIN_SECONDS = 60.0
MAX_WAIT_SECONDS = 6 * 3600.0  # that a plan or a loop waits with nothing else to do
UNKNOWN_RESET_SECONDS = 900.0  # for which a loop waits where no reset is told
MOST_MARGINS = 15  # that a pause is long, of one that does not say when it resets
MOST_BACKOFFS = 8  # after which the pauses grow no more
WHY_LIMIT = 200  # characters
_DAY_SECONDS = 86400
_MOST_SECONDS = 16 * _DAY_SECONDS  # no closing is longer, with the longest margin either


def margin() -> float:
    """Seconds after a reset in which nothing starts yet ($CONDUCTOR_QUOTA_MARGIN, 60)."""
    try:
        seconds = float(os.environ["CONDUCTOR_QUOTA_MARGIN"])
    except (KeyError, ValueError):
        return MARGIN_SECONDS
    return seconds if 0 <= seconds <= _DAY_SECONDS else MARGIN_SECONDS


def max_wait(given: float | None, is_refused: bool) -> float:
    """The longest wait with nothing else to do, in seconds, of --max-wait and --no-wait."""
    return 0.0 if is_refused else MAX_WAIT_SECONDS if given is None else given


def next_try(reset: float, now: float) -> float:
    """When a provider may be asked again that is closed until `reset`, 0 for one that did not say.

    All in seconds since the epoch.
    """
    return max(now, reset + margin()) if reset else now + UNKNOWN_RESET_SECONDS


class Closing:
    """A provider that is closed, or was and has not succeeded since.

    `until` is when it may be used again; `reset` what it said itself, 0 for
    nothing.
    """

    __slots__ = ("backoffs", "is_open", "key", "probe", "reset", "until", "waited", "why")

    def __init__(self, key: str) -> None:
        self.key = key
        self.why = ""
        self.until = self.reset = 0.0
        self.is_open = False  # its time has come, and all may start
        self.probe = ""  # who tries whether it is open again
        self.backoffs = 0
        self.waited = 0.0  # seconds in which the plan had nothing else to do

    def is_closed(self, now: float) -> bool:
        """Whether nothing of it may start now; else one task, or all when it `is_open`."""
        return not self.is_open and (now < self.until or bool(self.probe))

    def sentence(self, now: float) -> str:
        """What a task of it does: `waits for claude's quota, which resets at 02:00Z`."""
        if self.probe and now >= self.until:
            return f"waits for {self.key}'s quota, which {self.probe} tries first"
        if self.reset:
            return f"waits for {self.key}'s quota, which resets at {clock(self.reset, now)}"
        return f"waits for {self.key}'s quota, which is tried again at {clock(self.until, now)}"


class Quotas:
    """The providers of a plan that are closed, by their keys.

    `saved` is what another process left of them with `as_dict`.
    """

    def __init__(self, saved: object = None) -> None:
        self._closings: dict[str, Closing] = {}
        for key, value in saved.items() if isinstance(saved, dict) else ():
            closing = _restored(str(key), value)
            if closing is not None:
                self._closings[closing.key] = closing

    @property
    def is_any(self) -> bool:
        """Whether any provider is closed, or tried."""
        return any(not closing.is_open for closing in self._closings.values())

    def find(self, key: str) -> Closing | None:
        """The closing of a provider; None for one that is open."""
        closing = self._closings.get(key)
        return None if closing is None or closing.is_open else closing

    def close(self, key: str, why: str, *, reset: float, ended: float, now: float) -> bool:
        """Note that a run has met the limit when it `ended`; True when that is news.

        The other runs of a closed provider will meet it, too: that is no news.
        """
        told = reset + margin() if reset > 0 else 0.0
        if ended < told <= now:
            return False  # it has been found late: the limit is over
        closing = self._closings.setdefault(key, Closing(key))
        if not closing.is_open and now < closing.until:
            if told > closing.until or (told > now and not closing.reset):
                closing.until, closing.reset = told, reset
            return False
        closing.is_open, closing.probe = False, ""
        closing.why = redact.one_line(why, WHY_LIMIT)
        if told > now:
            closing.until, closing.reset = told, reset
        else:
            closing.until, closing.reset = now + _pause(closing.backoffs), 0.0
            closing.backoffs = min(closing.backoffs + 1, MOST_BACKOFFS)
        return True

    def due(self, now: float) -> list[Closing]:
        """Those whose reset has come; they are open from here on.

        One that is closed for longer than any limit lasts, by a clock that was wrong then or
        is now, may be tried.
        """
        for closing in self._closings.values():
            if closing.until > now + _MOST_SECONDS:
                closing.until, closing.reset = now, 0.0
        found = [
            closing
            for closing in self._closings.values()
            if closing.reset and not closing.is_open and now >= closing.until
        ]
        for closing in found:
            closing.is_open = True
        return found

    def begin(self, key: str, name: str, now: float) -> None:
        """Note the start of a run; where nobody knows whether it is open, that run tries it."""
        closing = self.find(key)
        if closing is not None and not closing.is_closed(now):
            closing.probe = name

    def end(self, key: str, name: str) -> None:
        """Note the end of a run, whatever that was; the next one may try then."""
        closing = self.find(key)
        if closing is not None and closing.probe == name:
            closing.probe = ""

    def succeed(self, key: str, name: str) -> bool:
        """Note a run that succeeded; True when that has opened its provider."""
        closing = self._closings.get(key)
        if closing is None or not (closing.is_open or closing.probe == name):
            return False  # it began before the provider was closed, which proves nothing
        del self._closings[key]
        return not closing.is_open

    def next_moment(self, now: float) -> float:
        """When the next of them may be used again; infinity for none."""
        later = [closing.until for closing in self._closings.values() if closing.until > now]
        return min(later, default=math.inf)

    def as_dict(self) -> dict[str, object]:
        """What is to be kept of it, as JSON values."""
        return {
            closing.key: {
                "until": ids.rfc3339_of(closing.until),
                **({"reset": ids.rfc3339_of(closing.reset)} if closing.reset else {}),
                **({"backoffs": closing.backoffs} if closing.backoffs else {}),
                "why": closing.why,
            }
            for closing in self._closings.values()
            if not closing.is_open
        }


def _pause(backoffs: int) -> float:
    return max(margin(), 1.0) * min(MOST_MARGINS, 1 << backoffs)


def _restored(key: str, value: object) -> Closing | None:
    """A closing that was kept; None for what says nothing, or was meant otherwise."""
    saved = value if isinstance(value, dict) else {}
    until = seconds_of(saved.get("until"))
    if not until:
        return None
    closing = Closing(redact.one_line(key, WHY_LIMIT))
    closing.until, closing.reset = until, seconds_of(saved.get("reset"))
    closing.why = redact.one_line(str(saved.get("why") or ""), WHY_LIMIT)
    backoffs = saved.get("backoffs")
    closing.backoffs = min(max(0, backoffs), MOST_BACKOFFS) if isinstance(backoffs, int) else 0
    return closing


def seconds_of(moment: object) -> float:
    """A moment of RFC 3339 in seconds since the epoch; 0.0 for anything else."""
    nanoseconds = ids.parse_rfc3339(moment)
    return nanoseconds / ids.NANOSECONDS if nanoseconds and nanoseconds > 0 else 0.0


def clock(moment: float, now: float) -> str:
    """`02:00Z`, on another day than today `2026-02-24 02:00Z`; never too early."""
    whole = math.ceil(moment / 60) * 60
    is_today = whole // _DAY_SECONDS == now // _DAY_SECONDS
    return time.strftime("%H:%MZ" if is_today else "%Y-%m-%d %H:%MZ", time.gmtime(whole))
