"""The kernel's word that something changed in one of many folders.

One inotify instance for all of them: a user has 128, and every program that
watches files needs one.  Where the kernel does not tell, or has no more
watches to give, `is_complete` is false, and who wants to know has to look.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from typing import Any

from lib import files

# Source: inotify(7), <sys/inotify.h>
_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_MOVE_SELF, _Q_OVERFLOW, _IGNORED, _ISDIR = 0x800, 0x4000, 0x8000, 0x40000000
_ONLYDIR, _DONT_FOLLOW = 0x01000000, 0x02000000
_MASK = (
    _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _MOVE_SELF
    | _ONLYDIR | _DONT_FOLLOW
)  # fmt: skip
_GONE = _MOVED_FROM | _DELETE
_HEAD = struct.Struct("iIII")  # wd, mask, cookie, length of the name
_READS = 32  # of 64 KiB at most before what they tell is worked on
MAX_WATCHES = 20_000  # each is about a kilobyte of the kernel's memory, of a limit per user


class TreeWatch:
    """Watches folders, not what is below them; `fd` becomes readable with an event, -1 for none.

    Nothing is taken of the kernel before the first `watch`.
    """

    def __init__(self, max_watches: int = MAX_WATCHES) -> None:
        self.fd = -1
        self.is_complete = False  # whether every folder asked for is watched
        self._max_watches = max_watches
        self._libc: Any = None
        self._paths: dict[int, str] = {}  # by watch descriptor
        self._watches: dict[str, int] = {}
        self._is_opened = False

    def _open(self) -> None:
        self._is_opened = True
        if files.portable_only():
            return
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, AttributeError):
            self.fd = -1

    def is_watched(self, folder: str) -> bool:
        return folder in self._watches

    def watch(self, wanted: Iterable[str]) -> list[str]:
        """Watch these folders and no others; those of which a watch began just now.

        What happened in one of them before that, nobody tells: look at it.
        """
        if not self._is_opened:
            self._open()
        if self.fd < 0:
            return []
        folders = set(wanted)
        for path in self._watches.keys() - folders:
            self._drop(path)
        missing = folders - self._watches.keys()
        begun = [path for path in sorted(missing) if self._add(path)]
        self.is_complete = all(path in self._watches or not os.path.isdir(path) for path in missing)
        return begun

    def _add(self, path: str) -> bool:
        if len(self._watches) >= self._max_watches:
            return False
        wd = self._libc.inotify_add_watch(self.fd, os.fsencode(path), _MASK)
        if wd < 0:
            return False
        if wd in self._paths:  # the same folder by another name: it was renamed a moment ago
            self._watches.pop(self._paths[wd], None)
        self._paths[wd] = path
        self._watches[path] = wd
        return True

    def _drop(self, path: str) -> None:
        wd = self._watches.pop(path, -1)
        if self._paths.get(wd) == path:
            del self._paths[wd]
            self._libc.inotify_rm_watch(self.fd, wd)

    def events(self) -> list[tuple[str, str]] | None:
        """What has happened: (folder, name in it or "" for itself); None when some was lost."""
        found: dict[tuple[str, str], None] = {}
        is_whole = True
        for _ in range(_READS):
            if not (data := self._read()):
                break
            at = 0
            while at < len(data):
                wd, mask, _, size = _HEAD.unpack_from(data, at)
                name = data[at + _HEAD.size : at + _HEAD.size + size].rstrip(b"\0")
                at += _HEAD.size + size
                if mask & _Q_OVERFLOW:
                    is_whole = False
                elif (path := self._paths.get(wd)) is not None:
                    self._forget_gone(path, os.fsdecode(name), wd, mask)
                    found[path, os.fsdecode(name)] = None
        return list(found) if is_whole else None

    def _read(self) -> bytes:
        try:
            return os.read(self.fd, 64 * 1024)
        except OSError:
            return b""

    def _forget_gone(self, path: str, name: str, wd: int, mask: int) -> None:
        """A folder that was moved away goes on telling, by a path where it lies no more."""
        if mask & _IGNORED:
            self._paths.pop(wd, None)
            if self._watches.get(path) == wd:
                del self._watches[path]
        elif mask & _MOVE_SELF:
            self._drop_below(path)
        elif mask & _ISDIR and mask & _GONE:
            self._drop_below(f"{path}/{name}")

    def _drop_below(self, top: str) -> None:
        for path in [path for path in self._watches if f"{path}/".startswith(f"{top}/")]:
            self._drop(path)

    def close(self) -> None:
        self._is_opened = True  # and not again
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
