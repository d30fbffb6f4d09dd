"""How a run has ended, from all that is known of it: whether it succeeded, else why it failed."""

from __future__ import annotations

import os

from lib import agents, files, redact, runs
from lib.agents import base
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from lib.agents.base import Outcome


def judge(
    code: int | None,
    outcome: Outcome,
    understood: bool,
    stop_reason: str,
    good_codes: Container[object] = (0,),
) -> str:
    """The status of a run that has ended, from all that is known of it.

    A good exit code proves nothing where the output is understood: there must be
    the event of success and an answer.  An unknown exit code is made good by
    those, and by nothing else.
    """
    proven = understood and outcome.success is True and bool(outcome.final_text)
    if code is None:
        is_good = proven and not stop_reason
    else:
        is_fine = proven or not (understood or stop_reason or outcome.success is False)
        is_good = code in good_codes and is_fine
    return runs.COMPLETED if is_good else runs.FAILED


def failure_of(run: runs.Run, code: int, outcome: Outcome) -> base.Failure:
    """Why the run's agent failed by itself, as its backend reads it."""
    from lib.agents import _failure

    options = {
        "output": run.text("output_kind") or None,
        "resume": run.record.get("resumed") is True,
        "type": run.text("agent"),
        "success_codes": run.record.get("success_codes"),
        "token_variable": run.text("token_variable"),
    }
    ended = base.Ended(
        code=code,
        outcome=outcome,
        stdout=_tail(run, runs.STDOUT),
        stderr=_tail(run, runs.STDERR),
        options=options,
        agent=redact.one_line(run.agent, 60),
        at=_last_written(run),
    )
    try:
        backend = agents.load(run.text("agent"))
        found: base.Failure = getattr(backend, "failure", _failure.of_plain)(ended)
    except UserError:  # of an agent that this version does not have, or settings that it refuses
        return _failure.of_plain(ended)
    return found


def _tail(run: runs.Run, name: str) -> str:
    try:
        data = files.read_tail(run.file(name), base.TAIL_BYTES)
    except OSError:
        return ""  # an agent may have put anything in its place
    text = data.decode("utf-8", "replace")
    if len(data) < base.TAIL_BYTES:
        return text
    # It may begin with half a key, which nobody would redact.
    return text.partition("\n")[2] or redact.behind_gap(text)


def _last_written(run: runs.Run) -> float:
    """When the agent wrote last, in seconds since the epoch; 0 where that cannot be known."""
    try:
        return max(os.stat(run.file(name)).st_mtime for name in (runs.STDOUT, runs.STDERR))
    except OSError:
        return 0.0
