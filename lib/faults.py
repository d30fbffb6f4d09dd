"""Named points in the core at which a test can kill or stop the process.

`CONDUCTOR_FAULT=kill:POINT[:N]` kills the process with SIGKILL when it comes
to POINT for the Nth time (default 1); `stop:POINT[:N]` stops it with SIGSTOP,
so that a test can look at, or change, what stands at that moment and then
continue it.  `CONDUCTOR_FAULT_IN=supervisor,orchestrator` limits that to
processes of those parts.  Without the variable a point costs one comparison.
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
    """Say which part of the toolkit this process now is."""
    global _part
    _part = name


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
    os.kill(os.getpid(), 9 if action == "kill" else 19 if os.uname().sysname == "Linux" else 17)
