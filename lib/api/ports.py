"""Finding a port to listen at, and who has one that is taken."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Callable
from typing import TypeVar

from lib import files, procs, redact
from lib.errors import UserError

TRIES = 100
_LISTENING = "0A"  # in /proc/net/tcp
Server = TypeVar("Server")


def listen(make: Callable[[int], Server], port: int, *, is_fixed: bool) -> Server:
    """What `make` makes of the first port from `port` on that is free.

    UserError where that one is taken and no other will do, or where 100 are.
    """
    last = port if is_fixed or not port else min(port + TRIES - 1, 65535)
    for number in range(port, last + 1):
        try:
            return make(number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                text = (
                    f"cannot listen at port {number}: {error.strerror}; choose another with --port"
                )
                raise UserError(text) from None
    if port != last:
        raise UserError(f"all ports from {port} to {last} are taken; choose another with --port")
    who = holder(port)
    by = f" by {who}" if who else ""
    raise UserError(f"port {port} is taken{by}; stop that, or choose another with --port")


def holder(port: int) -> str:
    """`pid 123 (python3 web/server.py)`: who listens at the port; "" where that cannot be told."""
    if files.portable_only():
        return ""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not wanted:
        return ""
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(path) in wanted:
                pid = int(path.split("/")[2])
                command = redact.one_line(redact.text(procs.command_line(pid).strip()), 100)
                return f"pid {pid} ({command})"
        except OSError:
            continue  # another user's, or gone
    return ""


def _inodes(port: int) -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as table:
                rows = [line.split() for line in table]
        except OSError:
            continue  # not Linux, or without IPv6
        found |= {
            row[9]
            for row in rows[1:]
            if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port
        }
    return found - {"0"}
