"""Signals as data: collected while a loop works, and a descriptor that wakes its poll.

Python's own handlers run between two instructions of the main thread and a
poll is taken up again after them (PEP 475); the written byte is what ends it.
"""

from __future__ import annotations

import _signal  # the module `signal` wraps it into enums, and costs 5 ms at each start
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIGHUP, SIGINT, SIGTERM, SIGCHLD = _signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGCHLD


def hold(numbers: Iterable[int]) -> None:
    """Keep these signals waiting, in this process and those it forks, until `release`."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers)


def release(numbers: Iterable[int]) -> None:
    """Let these signals through, also those that wait."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, numbers)


def waiting(numbers: Iterable[int]) -> list[int]:
    """Those of these signals that have come to this process while they were held."""
    pending = _signal.sigpending()
    return [number for number in numbers if number in pending]


class Wakeup:
    """Catches `caught`, ignores `ignored`, until `close` puts everything back.

    A signal that was ignored before (nohup, `&` in a script) stays ignored, but for SIGTERM:
    an agent's deaf shell hands that on to the runs it starts, and those must end with theirs.
    `fd` is readable when a signal has come; `take` returns which.
    """

    def __init__(self, caught: Iterable[int], ignored: Iterable[int] = ()) -> None:
        self._pending: list[int] = []
        self.fd, self._write_end = os.pipe()
        for fd in (self.fd, self._write_end):
            os.set_blocking(fd, False)
        self._old_fd = _signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._old = {number: _signal.signal(number, _signal.SIG_IGN) for number in ignored}
        for number in caught:
            is_ignored = _signal.getsignal(number) == _signal.SIG_IGN and number != SIGTERM
            if number not in self._old and not is_ignored:
                self._old[number] = _signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        self._pending.append(number)

    def take(self) -> list[int]:
        """The signals that came since the last call, in their order."""
        try:
            while os.read(self.fd, 512):
                pass
        except BlockingIOError:
            pass
        taken, self._pending = self._pending, []
        return taken

    def close(self) -> None:
        for number, handler in self._old.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(self._old_fd)
        os.close(self.fd)
        os.close(self._write_end)
