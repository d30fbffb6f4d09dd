"""What the class of a failure means for the next attempt of a loop."""

from __future__ import annotations

NO_SESSION, QUOTA, OVERLOAD = "no-session", "quota", "overload"
# Classes of errors that the same agent meets again, however often it tries.
FUTILE = ("login", "not-installed", "bad-request")
OVERLOAD_SECONDS = 30.0  # before the next attempt at a service with too much to do; then doubled
OVERLOAD_LIMIT_SECONDS = 900.0
MARGIN_SECONDS = 60.0  # after the reset of a quota
UNKNOWN_RESET_SECONDS = 900.0  # of a limit that does not say when it resets


def is_futile(error_class: str) -> bool:
    """Whether it is of no use that the agent which failed so tries again."""
    return error_class in FUTILE


def pause_seconds(overloads: int, restart_delay: float) -> float:
    """How long to wait before the next attempt; `overloads`: failures of that class in a row."""
    if not overloads:
        return restart_delay
    back_off = OVERLOAD_SECONDS * 2 ** min(overloads - 1, 16)
    return float(max(restart_delay, min(OVERLOAD_LIMIT_SECONDS, back_off)))


def quota_until(reset: float, now: float) -> float:
    """When a provider may be asked again that closed until `reset`, 0 for one that did not say.

    Both, and the result, in seconds since the epoch.
    """
    return max(now, reset + MARGIN_SECONDS) if reset else now + UNKNOWN_RESET_SECONDS
