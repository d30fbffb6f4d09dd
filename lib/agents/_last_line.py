"""An answer that is the last line of what a program prints."""

from __future__ import annotations

from lib.agents import base


class LastLineReader(base.TextReader):
    """Plain text of which the last line that is not blank is the answer; none is no success."""

    def finish(self) -> str:
        shown = super().finish()
        lines = (self.outcome.final_text or "").split("\n")
        self.outcome.final_text = next((line for line in reversed(lines) if line.strip()), None)
        if self.outcome.final_text is None:
            self.outcome.success = False
            self.outcome.error = base.EMPTY_ANSWER
        return shown
