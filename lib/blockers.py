"""`docs/dev/issues.md` of a root: what stopped tasks, for the person who comes back to it."""

from __future__ import annotations

import os

from lib import files, ids, notices, paths, redact, runs

NAME = os.path.join("docs", "dev", "issues.md")
STDERR_LINES = 20
_HEADER = """\
# Blockers

Every task that failed for good leaves an entry here: when, which, why, where
to look, and the last lines that its agent wrote to stderr.  Entries are only
appended; delete what is settled.
"""


def add(root: str, project: str, task: str, agent: str, reason: str, run: runs.Run | None) -> None:
    """Append an entry; the file is made with its header on first use."""
    path = os.path.join(root, NAME)
    paths.make_folder(os.path.dirname(path))
    lines = [f"## {ids.rfc3339()[:19]}Z {project}/{task}", "", f"- reason: {reason}"]
    lines.append(f"- agent: {agent}")
    if run is not None:
        lines.append(f"- run: {redact.one_line(run.path)}")
        tail = notices.stderr_tail(run, STDERR_LINES)
        if tail:
            lines += [f"- last {len(tail)} lines of stderr:", ""]
            lines += [f"      {line}" for line in tail]
    start = "" if files.size(path) else _HEADER
    files.append_line(path, f"{start}\n" + "\n".join(lines))
