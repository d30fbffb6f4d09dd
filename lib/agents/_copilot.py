"""What GitHub Copilot CLI prints with `--output-format json`.

Source: runs of 1.0.102.
"""

from __future__ import annotations

from lib.agents import _render, base


class StreamReader(base.JsonLinesReader):
    """Understands these events, and leaves out those that it does not know.

    They tell neither tokens nor cost; its requests are paid for in a currency of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._answer = ""
        self._turns = 0

    def on_event(self, event: dict[str, object]) -> str:
        kind, data = event.get("type"), base.as_dict(event.get("data"))
        nested = data.get("parentToolCallId") is not None  # a sub-agent speaks
        if kind == "session.tools_updated":
            return self._on_model(data)
        if kind == "assistant.turn_start" and not nested:
            self._turns += 1
        elif kind == "assistant.message" and not nested:
            return self._on_message(data)
        elif kind == "tool.execution_start":
            return self._on_tool_start(data, nested=nested)
        elif kind == "tool.execution_complete":
            return self._on_tool_complete(data, nested=nested)
        elif kind == "model.call_failure" and not nested:
            return self._on_call_failure(data)
        elif kind == "session.error":
            return self._on_error(data)
        elif kind == "result":
            return self._on_result(event)
        return ""

    def _on_model(self, data: dict[str, object]) -> str:
        is_first = self.outcome.model is None
        self.outcome.model = base.as_name(data.get("model")) or self.outcome.model
        return f"▷ model {self.outcome.model}\n" if is_first and self.outcome.model else ""

    def _on_message(self, data: dict[str, object]) -> str:
        self.outcome.model = base.as_name(data.get("model")) or self.outcome.model
        text = base.as_text(data.get("content"))
        if text.strip():  # one that only asks for a tool has none
            self._answer = text
            self.fault = ""  # the call that had failed was tried again
        return _render.paragraph(text)

    def _on_tool_start(self, data: dict[str, object], *, nested: bool) -> str:
        self.begin_tool(base.as_text(data.get("toolCallId")))
        who = "sub-agent's tool" if nested else "tool"
        name = base.as_name(data.get("toolName"))
        return _render.tool_call(name, base.as_dict(data.get("arguments")), who)

    def _on_tool_complete(self, data: dict[str, object], *, nested: bool) -> str:
        self.end_tool(base.as_text(data.get("toolCallId")))
        if nested:
            return ""
        failed = data.get("success") is False
        said = base.as_text(base.as_dict(data.get("error")).get("message"))
        text = base.as_text(base.as_dict(data.get("result")).get("content"))
        return _render.tool_result(text or said, is_error=failed)

    def _on_call_failure(self, data: dict[str, object]) -> str:
        """Note it: it is tried again, and only `session.error` tells that this was in vain."""
        self.outcome.fault_status = base.as_count(data.get("statusCode"))
        text = base.as_line(data.get("errorMessage")) or base.NO_REASON
        self.outcome.note = text
        return f"↻ {text}\n"

    def _on_error(self, data: dict[str, object]) -> str:
        self.outcome.fault_class = base.as_name(data.get("errorType"))
        status = base.as_count(data.get("statusCode"))
        self.outcome.fault_status = status or self.outcome.fault_status
        self.fault = base.as_line(data.get("message")) or base.NO_REASON
        return f"· {self.fault}\n"

    def _on_result(self, event: dict[str, object]) -> str:
        outcome = self.outcome
        outcome.session_id = base.as_session_id(event.get("sessionId"))
        outcome.turns = self._turns
        code = base.as_count(event.get("exitCode"))
        failed = f"it ended with exit code {code}" if code else base.NO_REASON
        self.settle(self._answer, "" if code == 0 else self.fault or failed)
        if outcome.success:
            outcome.fault_status = outcome.fault_class = None
        return self.summary()
