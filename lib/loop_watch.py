"""Stays with one run of a loop until its end is on disk, whoever holds it, and stops it on demand."""

from __future__ import annotations

import os
import time

from lib import faults, files, procs, recovery, redact, runs, supervisor
from lib.errors import UserError
from lib.spawner import Spawner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_SECONDS = 1.0  # until a take-over or a repair is tried again
HELD_POLL_SECONDS = 0.1  # how often the lock of another process's run is looked at
TICK_SECONDS = 1.0
STOP_PATIENCE_SECONDS = 20.0  # beyond the grace, before a supervisor that will not end is killed


class Watch:
    """One run under way; `fd` reports the end of its supervisor, -1 while nothing does.

    `tell` gets a sentence about what goes wrong.
    """

    def __init__(
        self, spawner: Spawner, path: str, tell: Callable[[str], None], fd: int = -1
    ) -> None:
        self.path = path
        self.fd = fd
        self._spawner = spawner
        self._tell = tell
        self._look_at = 0.0  # monotonic; before which there is no use in looking
        self._said = ""
        self._stopping = False
        self._told = False  # its supervisor has been asked to stop
        self._kill_at = 0.0

    @property
    def run_id(self) -> str:
        return os.path.basename(self.path)

    def patience(self) -> float:
        """Seconds until there is something to look at that nobody reports."""
        if self._stopping or self.fd < 0:
            return HELD_POLL_SECONDS
        return TICK_SECONDS

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def look(self) -> tuple[runs.Run, runs.State] | None:
        """The run and its state once it has ended and that is recorded; None until then.

        To be called when `fd` reports, and now and then while it is -1.  An
        agent whose supervisor was killed is given another one.
        """
        if time.monotonic() < self._look_at:
            return None
        self.close()
        run = runs.read(self.path)
        now = runs.state(run)
        if now.holder == "agent":
            self._adopt()
            return None
        try:
            return recovery.find_end(run, now)
        except (UserError, OSError) as error:  # a full disk: looked at again until it is not
            self._say(f"{self.run_id}: its end cannot be recorded yet: {error}")
            self._look_at = time.monotonic() + RETRY_SECONDS
            return None

    def _adopt(self) -> None:
        self._told = False
        self._look_at = time.monotonic() + RETRY_SECONDS
        try:
            lock = files.open_lock(os.path.join(self.path, runs.LOCK))
            if not files.try_lock(lock):  # somebody was quicker
                os.close(lock)
                return
            faults.point("loop-before-adopt")
            order: dict[str, object] = {"adopt": True, "tokens": redact.known_tokens({})}
            self.fd = self._spawner.start(self.path, lock, order)
        except OSError as error:
            self._say(f"{self.run_id}: it cannot be taken over yet: {error.strerror}")
            return
        self._tell(f"{self.run_id}: its agent lived without a supervisor, and has one again")

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._tell(text)

    # -- stopping

    def stop(self, once_more: bool = False) -> None:
        """Stop the run with all it started; to be called again until it has ended.

        With `once_more` it is not given what is left of its grace.
        """
        if once_more or not self._stopping:
            self._told = False
        self._stopping = True
        self._kill_at = self._kill_at or self._limit()
        self._press()

    def _press(self) -> None:
        """Ask its supervisor to stop, if that has not had it; kill one that does not obey."""
        if not self._told:  # one that had not recorded itself yet has missed the first signal
            self._told = supervisor.signal_named(self.path, procs.SIGTERM)
        if time.monotonic() > self._kill_at:
            self._kill_at = self._limit()
            if supervisor.signal_named(self.path, procs.SIGKILL):
                self._tell(f"{self.run_id}: its supervisor did not stop it in time, and was killed")
            self._told = False

    def _limit(self) -> float:
        return time.monotonic() + supervisor.stop_grace() + STOP_PATIENCE_SECONDS
