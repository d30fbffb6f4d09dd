"""What opencode prints with `run --format json`.

Source: runs of 1.18.33; packages/opencode/src/cli/cmd/run.ts.
"""

from __future__ import annotations

from lib import redact
from lib.agents import _render, base


class StreamReader(base.JsonLinesReader):
    """Understands these events, and leaves out those that it does not know.

    The work goes in steps; one that ends for want of further tool calls is the
    end of the whole. Tokens and cost are each step's own, so those of a resumed
    session are of this run alone. The model is not told.
    """

    end_event = "step_finish"

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []  # of the step; without end they are kept up to 4 MiB
        self._answer_size = 0  # characters of all of them, kept or not
        self._steps = 0

    def on_event(self, event: dict[str, object]) -> str:
        shown = self._begin_session(event)
        kind, part = event.get("type"), base.as_dict(event.get("part"))
        if kind == "step_start":
            self._on_step_start()
        elif kind == "text":
            text = base.as_text(part.get("text"))
            self._add_text(text)
            shown += _render.paragraph(text)
        elif kind == "tool_use":
            shown += self._on_tool_use(part)
        elif kind == "step_finish":
            shown += self._on_step_finish(part)
        elif kind == "error":
            shown += self._on_error(base.as_dict(event.get("error")))
        return shown

    def _begin_session(self, event: dict[str, object]) -> str:
        if self.outcome.session_id:
            return ""
        self.outcome.session_id = base.as_session_id(event.get("sessionID"))
        return self.begin() if self.outcome.session_id else ""

    def _on_step_start(self) -> None:
        """A step that has begun is no success, whatever the one before it was."""
        self._ended = self.outcome.success = False
        self.outcome.final_text = self.outcome.error = None
        self._texts.clear()
        self._answer_size = 0

    def _add_text(self, text: str) -> None:
        self._answer_size += len(text)
        if self._answer_size <= base.MAX_TEXT_BYTES:
            self._texts.append(text)

    def _answer(self) -> str:
        text = "\n\n".join(text for text in self._texts if text.strip())
        if self._answer_size <= base.MAX_TEXT_BYTES:
            return text
        return f"{redact.before_gap(text)}\n\n[… the rest was left out …]"

    def _on_tool_use(self, part: dict[str, object]) -> str:
        """Take a call that has already been answered: it is not told of before."""
        state = base.as_dict(part.get("state"))
        call_id = base.as_text(part.get("callID"))
        self.begin_tool(call_id)
        self.end_tool(call_id)
        name = base.as_name(part.get("tool"))
        failed = state.get("status") == "error"
        result = base.as_text(state.get("error" if failed else "output"))
        call = _render.tool_call(name, base.as_dict(state.get("input")))
        return call + _render.tool_result(result, is_error=failed)

    def _on_step_finish(self, part: dict[str, object]) -> str:
        self._steps += 1
        self.outcome.turns = self._steps
        self._add_figures(base.as_dict(part.get("tokens")), base.as_amount(part.get("cost")))
        reason = base.as_name(part.get("reason"))
        if reason in ("tool-calls", "unknown"):  # it goes on after these
            return ""
        is_whole = reason in ("stop", "other")
        fault = self.fault if is_whole else f"its answer was cut short: {reason}"
        self.settle(self._answer(), fault)
        return self.summary()

    def _add_figures(self, tokens: dict[str, object], cost: float | None) -> None:
        outcome, cache = self.outcome, base.as_dict(tokens.get("cache"))
        count = {
            name: base.as_count(tokens.get(name)) or 0 for name in ("input", "output", "reasoning")
        }
        cached = base.as_count(cache.get("read")) or 0
        if tokens:  # its input is without what came out of a cache or went into it
            written = base.as_count(cache.get("write")) or 0
            outcome.input_tokens = (outcome.input_tokens or 0) + count["input"] + cached + written
            outcome.cached_tokens = (outcome.cached_tokens or 0) + cached
            output = count["output"] + count["reasoning"]
            outcome.output_tokens = (outcome.output_tokens or 0) + output
        if cost:  # 0 is told of a model whose price it does not know, too
            outcome.cost_usd = round((outcome.cost_usd or 0.0) + cost, 10)

    def _on_error(self, error: dict[str, object]) -> str:
        """Take an error of the session: it ends with 1, even where something follows."""
        data = base.as_dict(error.get("data"))
        name = base.as_name(error.get("name"))
        self.fault = base.as_line(data.get("message")) or name or base.NO_REASON
        self.outcome.fault_class = name
        self.outcome.fault_status = base.as_count(data.get("statusCode"))
        self.settle("", self.fault)
        return self.summary()
