"""The verdicts of a review: whether it passed, and where each judge's reasons stand."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lib import runs
from lib.state import Attempt
from lib.unit import Unit

APPROVE, REJECT = "APPROVE", "REJECT"


def objection(units: Sequence[Unit], quorum: int) -> str:
    """Why the review did not pass, or "": enough approvals, and no rejection."""
    rejections = [unit.name for unit in units if unit.verdict == REJECT]
    if rejections:
        return f"rejected by {', '.join(rejections)}"
    approvals = sum(unit.verdict == APPROVE for unit in units)
    return f"{approvals} of {quorum} approvals" if approvals < quorum else ""


def report(
    task_id: str, units: Sequence[Unit], attempts: Sequence[Attempt], reason: str, runs_dir: str
) -> str:
    """The REVIEW message: the outcome, then each verdict and the file to read."""
    latest = {str(item["unit"]): str(item["run"]) for item in attempts}
    rows = []
    for unit in units:
        answer = "nothing"
        if unit.name in latest:
            answer = os.path.join(runs_dir, latest[unit.name], runs.OUTPUT)
        rows.append(f"{unit.name}: {unit.verdict or 'no verdict'}, see {answer}")
    return "\n".join([f"review {task_id}: {reason or 'passed'}", *rows])
