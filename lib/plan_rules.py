"""What a plan file may say: its keys, its defaults, and which names are allowed in it."""

from __future__ import annotations

import re
import warnings

from lib import ids
from lib.checked import describe, shown
from lib.plan_records import Role

_SHARED = (
    "cwd", "timeout", "idle_timeout", "retries", "critical", "env", "verify_timeout",
)  # fmt: skip
LOOP_KEYS = ("max_restarts", "child_wait")  # beside `loop: true` only
PROMPT_SOURCES = ("prompt", "prompt_file", "template")
KEYS: dict[str, tuple[str, ...]] = {  # every key of a plan file, by where it may stand
    "plan": (
        "project", "title", "max_parallel", "start_interval", "defaults", "roles", "stages",
    ),
    "defaults": _SHARED,
    "role": ("agents", "alternate", "quorum"),
    "stage": ("id", "title", "barrier", "timeout", "tasks"),
    "task": (
        "id", "title", "role", "agent", *PROMPT_SOURCES, "vars", "depends_on", *_SHARED,
        "exclusive", "verify", "expect", "loop", *LOOP_KEYS,
    ),
    "expect": ("files", "output"),
    "expected file": ("path", "changed"),
}  # fmt: skip

DEFAULT_ROLE = "implementation"
DEFAULT_ROLES = {
    role.name: role
    for role in (
        Role("implementation", ("codex", "claude"), alternate=False, quorum=0),
        Role("research", ("claude", "gemini"), alternate=True, quorum=0),
        Role("documentation", ("claude", "gemini"), alternate=False, quorum=0),
        Role("testing", ("codex", "claude"), alternate=False, quorum=0),
        Role("review", ("claude", "gemini", "codex"), alternate=False, quorum=2),
    )
}
MAX_PARALLEL = 16
START_INTERVAL_SECONDS = 0.2
TIMEOUT_SECONDS = 3600.0
IDLE_TIMEOUT_SECONDS = 900.0
VERIFY_TIMEOUT_SECONDS = 600.0
RETRIES = 1

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ID_LENGTH = 128
_NAME_LENGTH = 64  # an agent becomes part of a folder name, behind the task id
_PROJECT = re.compile(r"[a-z0-9][a-z0-9-]*")
_PROJECT_LENGTH = 64


def id_fault(name: str) -> str | None:
    """Why a text cannot be the id of a stage or task; None when it can."""
    if "@" in name:
        return f"id {shown(name, 60)} holds @, which names the runs of a review; leave it out"
    if _ID.fullmatch(name) and len(name) <= _ID_LENGTH:
        return None
    return (
        f"id {shown(name, 60)} is not usable; take letters, digits, . _ and -, "
        f"at most {_ID_LENGTH}, the first one a letter or digit"
    )


def loop_fault(name: str) -> str | None:
    """Why a task of that id can have no task folder, as a loop needs it; None when it can."""
    if name.startswith("PLAN-") or name == "plan.log":
        return f"a loop needs a folder named {name}, where the plan has a file; choose another id"
    return None


def project_fault(project: str) -> str | None:
    """Why a text cannot be the name of a project; None when it can."""
    if _PROJECT.fullmatch(project) and len(project) <= _PROJECT_LENGTH:
        return None
    return (
        f"project {describe(project)} is not usable; take a-z, 0-9 and -, "
        f"at most {_PROJECT_LENGTH}, such as {ids.slug(project)}"
    )


def name_fault(kind: str, name: str) -> str | None:
    """Why a text cannot be the name of an agent or a role; None when it can."""
    if _ID.fullmatch(name) and len(name) <= _NAME_LENGTH:
        return None
    return (
        f"{describe(name)} is no name for {kind}; take letters, digits, . _ and -, "
        f"at most {_NAME_LENGTH}"
    )


def pattern_fault(pattern: str) -> str | None:
    """Why a text is no regular expression; None when it is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a pattern that Python may read otherwise one day
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            return shown(str(error), 200)
    return None
