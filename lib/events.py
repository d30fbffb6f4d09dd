"""What a plan tells while it runs: one Event for everything worth a line.

People read its `text`; `--json` prints it whole, one object a line.  The kinds
and their fields are a promise to scripts, kept in docs/events.md.
"""

from __future__ import annotations

import json
import time

from lib import ids, redact

# How the plan as a whole goes.
PLAN_STARTED, PLAN_ENDED, STAGE_ENDED = "plan-started", "plan-ended", "stage-ended"
DETACHED, SUMMARY = "detached", "summary"
DECISION, NOTE, WARNING = "decision", "note", "warning"
CLOSING = "closing"  # nothing new starts: a failure, an interrupt
QUOTA_CLOSED, QUOTA_OPENED = "quota-closed", "quota-opened"
QUOTA_WAITING = "quota-waiting"  # nothing else is left to do
# How a task goes.
STARTED, SUCCEEDED, FAILED, RETRIED = "started", "succeeded", "failed", "retried"
TAKEN_OVER, STOPPED, VERIFYING, FALLBACK = "taken-over", "stopped", "verifying", "fallback"
KINDS = (
    PLAN_STARTED, PLAN_ENDED, STAGE_ENDED, DETACHED, SUMMARY, DECISION, NOTE, WARNING, CLOSING,
    QUOTA_CLOSED, QUOTA_OPENED, QUOTA_WAITING,
    STARTED, SUCCEEDED, FAILED, RETRIED, TAKEN_OVER, STOPPED, VERIFYING, FALLBACK,
)  # fmt: skip


class Event:
    """Something that happened: its kind, a line for people, and what a script wants to know.

    `fields` are JSON values; those about one run have task, unit, agent, run
    and attempt, the unit being `task` or, in a review, `task@agent`.
    """

    __slots__ = ("fields", "kind", "text", "time")

    def __init__(self, kind: str, text: str, **fields: object) -> None:
        self.kind = kind
        self.text = text
        self.fields = fields
        self.time = time.time()

    def line(self) -> str:
        """The text as one harmless line: redacted, without control characters."""
        return redact.for_terminal(redact.text(self.text)).replace("\n", " ")

    def as_json(self) -> str:
        """`{"time": RFC 3339, "event": KIND, "text": …, …}` on one line, redacted.

        In ASCII, so that nothing in it can reach a terminal as a control.
        """
        head = {"time": ids.rfc3339_of(self.time), "event": self.kind, "text": self.line()}
        whole = redact.values({**head, **self.fields})
        return json.dumps(whole).replace("\x7f", "\\u007f")
