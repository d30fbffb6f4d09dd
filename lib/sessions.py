"""The session of an earlier run: whether another run can go on with it, and what it has used.

Some agents tell figures of the session where those of the run are wanted.  What the
session had used before is in the record of the last run that went on with it, if that
run came to its end, and if nobody used the session elsewhere in between.
"""

from __future__ import annotations

import os

from lib import agents, bus, files, listing, recovery, redact, runs
from lib.agents import base
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lib.runner import Request

FIGURES = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd")
LOCK_NAME = ".resume.lock"  # in the runs folder


def find(runs_dir: str, wanted: str) -> runs.Run:
    """The ended run that `wanted` names, as show-run has it; UserError for one without a session."""
    run = listing.find(runs_dir, wanted)
    if runs.state(run).ended_unrecorded and recovery.repair(run.path):
        run = runs.read(run.path)
    state = runs.state(run)
    _refuse_running(run)
    if state.status == runs.UNKNOWN:
        raise UserError(f"{run.run_id} cannot be resumed: {redact.one_line(state.reason)}")
    if not base.as_session_id(run.record.get("session_id")):
        raise UserError(
            f"{run.run_id} has no session to resume: its agent has none, or told of none; "
            "start a new run"
        )
    return run


def lock(runs_dir: str) -> int:
    """The lock to hold from the look at a session until the run that goes on with it is recorded.

    Of two at the same moment the second sees the first at work. To be let go of by closing it.
    """
    held = files.open_lock(os.path.join(runs_dir, LOCK_NAME))
    files.lock(held, bus.patience_seconds(None, os.environ), "the start of another resumed run")
    return held


def _refuse_running(run: runs.Run) -> None:
    if runs.state(run).status == runs.RUNNING:
        raise UserError(
            f"{run.run_id} still runs, with its session; wait for its end, or stop it: "
            f"bin/stop-run {run.run_id}"
        )


def check(
    run: runs.Run, name: str, type_name: str, options: Mapping[str, object], cwd: str
) -> None:
    """UserError when that agent cannot go on with the session of `run` in `cwd`."""
    before = redact.one_line(run.agent)
    backend = agents.load(type_name)
    # Of one type, but of different programs, are agents whose command is configured.
    is_another = hasattr(backend, "executable") and name != before
    if type_name != run.text("agent") or is_another:
        raise UserError(
            f"{run.run_id} was a run of {before}, and {name} cannot go on with its session; "
            "leave out AGENT, or name one like that"
        )
    if not agents.can_resume(backend, options):
        raise UserError(
            f"{run.run_id} was a run of {before}, which cannot resume a session; start a new run"
        )
    there = run.text("cwd")
    is_elsewhere = os.path.realpath(there) != os.path.realpath(cwd)
    if is_elsewhere and getattr(backend, "SESSION_IN_CWD", False):
        raise UserError(
            f"{run.run_id} had the working folder {redact.one_line(there)}, and {before} finds "
            "its session there only; leave out CWD"
        )


def totals_of(runs_dir: str, run: runs.Run) -> dict[str, object] | None:
    """What the session of `run` has used until now; None where that is not known.

    UserError when another run is at work in it.
    """
    wanted = listing.Wanted(since=run.time_ns("start_time"))
    rows, _ = listing.select(runs_dir, wanted)
    same = [
        row.run
        for row in rows  # the newest first
        if row.run.text("session_id") == run.text("session_id")
        and row.run.text("agent") == run.text("agent")
    ]
    for other in same:
        _refuse_running(other)
    told = base.as_dict((same or [run])[0].record.get("session_totals"))
    return {key: told[key] for key in FIGURES if base.as_amount(told.get(key)) is not None} or None


def go_on_with(request: Request, earlier: runs.Run) -> bool:
    """Make the request one that goes on with the session of the earlier run; False where it cannot.

    Where the agent has no sessions, or it was another agent's run, a new one is begun.
    """
    session_id = base.as_session_id(earlier.record.get("session_id"))
    if session_id is None:
        return False
    try:
        check(earlier, request.agent, request.type, request.options, request.cwd)
        totals = totals_of(os.path.dirname(earlier.path), earlier)
    except UserError:
        return False
    request.session_id, request.resume, request.totals_before = session_id, True, totals
    return True
