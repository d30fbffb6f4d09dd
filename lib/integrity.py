"""Is a storage what it should be: every promise that can be read off its files, looked at.

Reads only.  The order matters in a storage that is in use: the states of
plans and loops first, then the runs, then the buses, then the processes; whatever one
claims must be true of what is read after it.  What still moved in between is
told from what is wrong by a second look: only what both looks find is said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lib import (
    cleaning,
    integrity_bus,
    integrity_plans,
    integrity_runs,
    integrity_tasks,
    procs,
    runs,
)
from lib.integrity_base import ENDED, LIVE, NOTE, REPAIR, VIOLATION, Finding, Place, Seen

SETTLE_SECONDS = 1.0  # between two looks


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found: violations first, notes last."""

    findings: list[Finding] = field(default_factory=list)
    runs: int = 0
    live: int = 0
    buses: int = 0
    messages: int = 0
    plans: int = 0

    @property
    def is_clean(self) -> bool:
        return all(finding.kind == NOTE for finding in self.findings)

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)


def examine(place: Place, settle_seconds: float = SETTLE_SECONDS) -> Report:
    """Look at a whole storage; twice where the first look finds something wrong."""
    report = _look(place)
    if report.is_clean:
        return report
    time.sleep(settle_seconds)
    again = _look(place)
    before = set(report.findings)
    again.findings = [item for item in again.findings if item.kind == NOTE or item in before]
    return again


def _look(place: Place) -> Report:
    plans = integrity_plans.read_all(place.runs_dir)
    loops = integrity_tasks.read_all(place.runs_dir)
    seen, findings = _look_at_runs(place)
    paths = integrity_bus.paths_of(place, seen)
    buses = [integrity_bus.read(path) for path in paths]
    flat = {run.run_id: run for run in seen if os.path.dirname(run.path) == place.runs_dir}
    removed = cleaning.removed(place.runs_dir)
    findings += integrity_plans.examine(plans, flat, removed)
    findings += integrity_tasks.examine(loops, {run.path: run for run in seen}, removed)
    findings += integrity_plans.examine_pid_files(place.runs_dir, plans, flat)
    for bus in buses:
        findings += bus.findings
    findings += integrity_bus.examine_ends(buses, seen)
    findings += integrity_bus.examine_parents(buses)
    findings += _leftovers(seen, integrity_plans.open_runs(plans))
    order = (VIOLATION, REPAIR, NOTE)
    return Report(
        findings=sorted(findings, key=lambda item: order.index(item.kind)),
        runs=len(seen),
        live=sum(run.condition == LIVE for run in seen),
        buses=len(buses),
        messages=sum(bus.messages for bus in buses),
        plans=len(plans),
    )


def _look_at_runs(place: Place) -> tuple[list[Seen], list[Finding]]:
    findings: list[Finding] = []
    everything: list[Seen] = []
    for path in sorted(runs.folders(place.runs_dir)):
        mark = os.path.join(os.path.dirname(path), runs.ACTIVE, os.path.basename(path))
        seen, wrong = _look_at(path, os.path.exists(mark))
        everything.append(seen)
        findings += wrong
    folders = [os.path.join(path, "runs") for path in runs.task_folders(place.runs_dir)]
    for folder in (place.runs_dir, *folders):
        findings += integrity_runs.examine_marks(folder, runs.marked(folder))
    return everything, findings


def _look_at(path: str, is_marked: bool) -> tuple[Seen, list[Finding]]:
    try:
        return integrity_runs.examine(path, is_marked)
    except OSError as error:  # one odd folder must not hide the others
        what, cure = f"cannot be looked at: {error.strerror}", "make it readable"
        return Seen(path, ""), [Finding(VIOLATION, path, what, cure)]


def _leftovers(seen: Iterable[Seen], under_check: set[str]) -> Iterator[Finding]:
    """Living processes that carry the id of a run which has ended."""
    ended = {run.run_id: run for run in seen if _ought_to_be_gone(run, under_check)}
    if not ended:
        return
    rows = procs.table()
    spared = {run.supervisor_pid for run in seen if run.condition == LIVE} | _own_line(rows)
    for pid, run_id in sorted(procs.run_ids(rows).items()):
        if run_id not in ended or pid in spared or rows[pid].zombie:
            continue
        run = runs.Run(ended[run_id].path, {})
        if pid in runs.child_supervisors(run):
            continue
        command = procs.command_line(pid)[:80].strip()
        what = f"process {pid} ({command}) lives on after its run has ended"
        yield Finding(VIOLATION, run.path, what, f"end it: kill {pid}")


def _ought_to_be_gone(run: Seen, under_check: set[str]) -> bool:
    is_ended = run.is_ours and run.condition == ENDED
    return is_ended and not run.keeps_background and run.run_id not in under_check


def _own_line(rows: dict[int, procs.Process]) -> set[int]:
    """This process and those above it: a check may be started from inside a run."""
    line: set[int] = set()
    pid = os.getpid()
    while pid in rows and pid not in line:
        line.add(pid)
        pid = rows[pid].ppid
    return line
