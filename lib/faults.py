"""Named points in the core at which a test can kill or stop the process.

`CONDUCTOR_FAULT=kill:POINT[:N]` kills the process with SIGKILL when it comes
to POINT for the Nth time (default 1); `stop:POINT[:N]` stops it with SIGSTOP,
so that a test can look at, or change, what stands at that moment and then
continue it.  `CONDUCTOR_FAULT_IN=supervisor,orchestrator` limits that to
processes of those parts.  `CONDUCTOR_FAULT_ONCE=FILE` lets it happen once in
all of them: who comes there makes the file, with a line `kill POINT PART PID`,
and who finds it made goes on.  Without the first variable a point costs one
comparison.
"""

from __future__ import annotations

import os

_plan: tuple[str, str, int] | None = None
_part = "script"


def _parse(text: str) -> tuple[str, str, int] | None:
    fields = text.split(":")
    if len(fields) < 2 or fields[0] not in ("kill", "stop"):
        return None
    count = int(fields[2]) if len(fields) > 2 and fields[2].isdigit() else 1
    return fields[0], fields[1], count


_plan = _parse(os.environ.get("CONDUCTOR_FAULT", ""))


def enter_part(name: str) -> None:
    """Say which part of the toolkit this process now is; what is planned for it begins anew."""
    global _part, _plan
    _part = name
    _plan = _parse(os.environ.get("CONDUCTOR_FAULT", ""))


def point(name: str) -> None:
    """Be killed or stopped here when the environment says so; else do nothing."""
    global _plan
    if _plan is None:
        return
    action, wanted, count = _plan
    parts = os.environ.get("CONDUCTOR_FAULT_IN")
    if wanted != name or (parts and _part not in parts.split(",")):
        return
    if count > 1:
        _plan = (action, wanted, count - 1)
        return
    _plan = None
    once = os.environ.get("CONDUCTOR_FAULT_ONCE")
    if once and not _claim(once, f"{action} {name} {_part} {os.getpid()}\n"):
        return
    os.kill(os.getpid(), 9 if action == "kill" else 19 if os.uname().sysname == "Linux" else 17)


def _claim(path: str, line: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    os.write(fd, line.encode())
    os.close(fd)
    return True
