"""Task folders as lists show them: how many runs, how the task stands, what it waits for."""

from __future__ import annotations

from lib import listing, redact
from lib.index import Index, TaskEntry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("PROJECT/TASK", "RUNS", "STATUS", "DONE", "BLOCKED_BY", "LAST")


def select(
    runs_dir: str,
    *,
    project: str | None = None,
    task: str | None = None,
    statuses: Sequence[str] = (),
    since: int | None = None,
    limit: int = 0,
) -> tuple[list[TaskEntry], int]:
    """The task folders asked for, the one where something happened last first, and how many more."""
    index = Index(runs_dir)
    index.refresh()
    found = [
        entry
        for entry in index.tasks.values()
        if entry.path
        and project in (None, entry.project)
        and task in (None, entry.task)
        and (not statuses or entry.status in statuses)
        and (since is None or entry.last_ns >= since)
    ]
    found.sort(key=lambda entry: (-entry.last_ns, entry.key))
    shown = found[:limit] if limit else found
    listing.know_tokens(item.run for entry in shown for item in entry.runs)
    return shown, len(found) - len(shown)


def cells(entry: TaskEntry) -> list[str]:
    """A row of the table, fit for a terminal."""
    texts = [
        f"{entry.project}/{entry.task}",
        str(len(entry.runs)),
        entry.status,
        "yes" if entry.done else "-",
        ", ".join(entry.blocked_by) or "-",
        listing.clock(entry.last_ns),
    ]
    return [redact.one_line(text) for text in texts]


def as_dict(entry: TaskEntry) -> dict[str, object]:
    """All that is known of a task, redacted."""
    newest = entry.runs[0] if entry.runs else None
    fields = {
        "project_id": entry.project,
        "task_id": entry.task,
        "runs": len(entry.runs),
        "status": entry.status,
        "done": entry.done,
        "depends_on": entry.depends_on,
        "blocked_by": entry.blocked_by,
        "latest_run": newest.run.run_id if newest else "",
        "exit_code": listing.known_code(newest.state) if newest else None,
        "is_live": entry.is_live,
        "loop": entry.loop_state,
        "last": listing.clock(entry.last_ns) if entry.last_ns else "",
        "path": entry.path,
    }
    return {key: redact.values(value) for key, value in fields.items()}
