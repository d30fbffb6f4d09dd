"""What a failed attempt leads to: whether its agent may try again, and after which pause."""

from __future__ import annotations

RETRY_SECONDS = 1.0  # before the first retry; doubled for each further one
RETRY_LIMIT_SECONDS = 60.0
OVERLOAD = "overload"
OVERLOAD_SECONDS = 30.0  # the same, of a service that has too much to do already
OVERLOAD_LIMIT_SECONDS = 900.0
# Classes of errors that the same agent meets again, however often it tries.
FUTILE = ("login", "not-installed", "bad-request")


def is_futile(error_class: str) -> bool:
    """Whether it is of no use that the agent which failed so tries again."""
    return error_class in FUTILE


def pause_seconds(error_class: str, failures: int) -> float:
    """How long to wait after so many failures of an agent, the last of them of that class."""
    first, most = RETRY_SECONDS, RETRY_LIMIT_SECONDS
    if error_class == OVERLOAD:
        first, most = OVERLOAD_SECONDS, OVERLOAD_LIMIT_SECONDS
    return float(min(most, first * 2 ** min(failures - 1, 16)))
