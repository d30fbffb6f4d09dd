"""The errors a user can mend, and every exit code in one place."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PREFLIGHT = 3
EXIT_BUG = 70
EXIT_QUOTA = 75
EXIT_TIMEOUT = 124
EXIT_INTERRUPTED = 130
EXIT_NOT_FOUND = 127
EXIT_SIGNAL = 128  # plus the number of the signal


class UserError(Exception):
    """Something the caller can mend: "what: which; how to mend it", one line.

    `exit_code` is what a script ends with when the error reaches its top.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(UserError):
    """A command line that cannot be understood."""

    exit_code = EXIT_USAGE


class LockTimeoutError(UserError):
    """Somebody else held a lock for longer than the caller would wait."""
