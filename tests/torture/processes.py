"""The processes of a round, found by a mark in their environment; nothing of lib/ is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

MARK = "TORTURE_MARK"


@dataclass(frozen=True)
class Row:
    """A living process: `command` is its command line."""

    pid: int
    ppid: int
    command: str


def marked(mark: str) -> dict[int, Row]:
    """Every living process whose environment has a mark that begins so."""
    return _from_proc(mark) if sys.platform == "linux" else _from_ps(mark)


def _from_proc(mark: str) -> dict[int, Row]:
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            if b"\0" + wanted not in b"\0" + _read(f"/proc/{name}/environ"):
                continue
            fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
            command = _read(f"/proc/{name}/cmdline").replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            found[int(name)] = Row(int(name), int(fields[1]), command)
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _from_ps(mark: str) -> dict[int, Row]:
    command = ["ps", "axeww", "-o", "pid=,ppid=,stat=,command="]
    text = subprocess.run(command, capture_output=True, check=False).stdout.decode(errors="replace")
    found = {}
    for line in text.split("\n"):
        fields = line.split(None, 3)
        if len(fields) == 4 and f" {MARK}={mark}" in fields[3] and fields[2][0] != "Z":
            pid = int(fields[0])
            if pid != os.getpid():
                found[pid] = Row(pid, int(fields[1]), fields[3])
    return found


def send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_all(mark: str) -> None:
    """SIGKILL to all of them, again until there is none."""
    while found := marked(mark):
        for pid in found:
            send(pid, signal.SIGKILL)
