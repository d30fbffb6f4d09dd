"""Waiting until a file changes: told by the kernel where it tells, else by looking.

Told takes well under a millisecond and costs nothing while idle. A look is
one stat; its pause grows from 5 to 100 ms while nothing happens. The kernel
tells nothing of what another machine writes to a shared file system, so a
told wait looks, too, twice a second.
"""

from __future__ import annotations

import os
import select
import time

from lib import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Source: inotify(7), <sys/inotify.h>
_MODIFY, _ATTRIB, _MOVED_TO, _CREATE, _DELETE_SELF, _MOVE_SELF = 0x2, 0x4, 0x80, 0x100, 0x400, 0x800
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
LOOK_SECONDS = (0.005, 0.1)  # first and longest pause between two looks
TOLD_SECONDS = 0.5


class Waiter:
    """Waits for changes of one file, which may be missing yet, or be replaced."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._seen = self._look()
        self._libc: Any = None
        self._fd = -1
        if not files.portable_only():
            self._start_notification()

    def wait(self, seconds: float, reader_fd: int = -1) -> bool:
        """True as soon as the file has changed since the last call, False after `seconds`.

        Also True when the reader of `reader_fd`, a pipe that this process
        writes to, has gone: the next write will tell.
        """
        limit = time.monotonic() + seconds
        pause = TOLD_SECONDS if self._fd >= 0 else LOOK_SECONDS[0]
        poll = select.poll()
        if self._fd >= 0:
            poll.register(self._fd, select.POLLIN)
        if reader_fd >= 0:
            poll.register(reader_fd, 0)  # errors only
        while True:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._watch_file()
                return True
            left = limit - time.monotonic()
            if left <= 0:
                return False
            events = poll.poll(max(1, int(min(left, pause) * 1000)))
            if any(fd == reader_fd for fd, _ in events):
                return True
            if events:
                self._drain()
            elif self._fd < 0:
                pause = min(LOOK_SECONDS[1], pause * 1.5)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self.path)
        except OSError:
            return 0, 0, 0
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _start_notification(self) -> None:
        """Use inotify if it can be had; its limits per user are small."""
        try:
            import ctypes

            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.inotify_init1(_NONBLOCK_CLOEXEC)
        except (ImportError, OSError, AttributeError):
            return
        if self._fd < 0 or not self._watch_folder():
            self.close()
            return
        self._watch_file()
        # What changed between the first look and the watch is found by the next look.

    def _watch_folder(self) -> bool:
        folder = os.fsencode(os.path.dirname(self.path))
        return bool(self._libc.inotify_add_watch(self._fd, folder, _CREATE | _MOVED_TO) >= 0)

    def _watch_file(self) -> None:
        """Watch what is at the path now; once more is no second watch (inotify(7))."""
        if self._fd < 0:
            return
        mask = _MODIFY | _ATTRIB | _DELETE_SELF | _MOVE_SELF
        self._libc.inotify_add_watch(self._fd, os.fsencode(self.path), mask)

    def _drain(self) -> None:
        try:
            while os.read(self._fd, 64 * 1024):
                pass
        except BlockingIOError:
            pass
