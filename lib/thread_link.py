"""TASK-THREAD-LINK.yaml: the message of another task's run that a task answers.

The file is the original's, which ignores it unless all four ids are there.
"""

from __future__ import annotations

import os

from lib import files, ids, yamlio
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lib.tasks import Task

NAME = "TASK-THREAD-LINK.yaml"
KEYS = ("project_id", "task_id", "run_id", "message_id")
_TYPE = "message_type"
_MAX_BYTES = 1 << 20


def read(task: Task) -> dict[str, str]:
    """project_id, task_id, run_id, message_id and, where it is known, message_type; {} for none."""
    try:
        text = files.read_regular(task.file(NAME), _MAX_BYTES).decode("utf-8", "replace")
        stored = yamlio.load_mapping(text, source=task.file(NAME))
    except (UserError, OSError):
        return {}  # a damaged link keeps nobody from the task
    found = {key: str(stored.get(f"parent_{key}") or "").strip() for key in (*KEYS, _TYPE)}
    if not all(found[key] for key in KEYS):
        return {}
    return {key: value for key, value in found.items() if value}


def write(task: Task, parent: dict[str, str]) -> None:
    """Put the link in place of what was there; the task folder exists."""
    fields = {f"parent_{key}": parent[key] for key in (*KEYS, _TYPE) if parent.get(key)}
    text = yamlio.dump({**fields, "linked_at": ids.rfc3339()})
    files.replace_file(os.path.join(task.path, NAME), text.encode(), 0o600)
