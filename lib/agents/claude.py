"""Claude Code (`claude -p`), its answer read from the stream-json it prints.

Source: `claude --help` and runs of 2.1.197 and 2.1.330.
"""

from __future__ import annotations

import os

from lib import redact
from lib.agents import _render, base
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTABLE: str | None = "claude"
INSTALL = "npm install -g @anthropic-ai/claude-code"
TOKEN_VARIABLES: tuple[str, ...] = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
)
PACED = True
STREAM = True
CHOOSES_SESSION = True

# Its own default of 10 makes a wrong key take 190 s to be told; 5 is some 20 s.
_MAX_RETRIES = "5"


def command(launch: base.Launch) -> list[str]:
    """The command line; the prompt comes on stdin."""
    # stream-json demands --verbose. --tools takes any number of values: an option must follow it.
    argv = [launch.executable or "claude", "-p", "--input-format", "text"]
    argv += ["--output-format", "stream-json", "--verbose"]
    argv += ["--tools", "default", "--permission-mode", "bypassPermissions"]
    if launch.model:
        argv += ["--model", _value("model", launch.model)]
    if launch.session_id:
        option = "--resume" if launch.resume else "--session-id"
        argv += [option, _value("session id", launch.session_id)]
    return argv


def _value(what: str, value: str) -> str:
    if value.startswith("-"):
        raise UserError(f"{what}: {_render.one_line(value, 60)}; it must not begin with a dash")
    return value


def environment(launch: base.Launch) -> dict[str, str | None]:
    """What to set and (None) unset in the agent's environment."""
    changes: dict[str, str | None] = dict.fromkeys(base.NESTED_SESSION_VARIABLES)
    changes["DISABLE_TELEMETRY"] = "1"
    changes["DISABLE_ERROR_REPORTING"] = "1"
    changes["DISABLE_AUTOUPDATER"] = "1"
    changes["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] = "1"
    if "CLAUDE_CODE_MAX_RETRIES" not in os.environ:
        changes["CLAUDE_CODE_MAX_RETRIES"] = _MAX_RETRIES
    base_url = launch.options.get("base_url")
    if isinstance(base_url, str) and base_url:
        changes["ANTHROPIC_BASE_URL"] = base_url
    # It tells claude that root may do anything here: a statement about the machine,
    # which only its owner can make.
    if launch.options.get("sandbox") is True:
        changes["IS_SANDBOX"] = "1"
    return changes


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """A reader of claude's stream-json."""
    return StreamReader()


class StreamReader(base.JsonLinesReader):
    """Understands stream-json, and any events that it does not know, by leaving them out."""

    def __init__(self) -> None:
        super().__init__()
        self._open_tools: set[str] = set()
        self._last_text = ""
        self._cost = 0.0
        self._ended = False

    def on_event(self, event: dict[str, object]) -> str:
        session_id = base.as_session_id(event.get("session_id"))
        self.outcome.session_id = session_id or self.outcome.session_id
        kind = event.get("type")
        if kind == "system":
            return self._on_system(event)
        if kind == "assistant":
            return self._on_assistant(event)
        if kind == "user":
            return self._on_user(event)
        if kind == "result":
            return self._on_result(event)
        return ""

    def on_end(self) -> str:
        if self._ended:
            return ""
        self.outcome.error = "no result event"
        return "■ ended without a result\n"

    def _on_system(self, event: dict[str, object]) -> str:
        session_id = self.outcome.session_id
        if event.get("subtype") == "init":
            self.outcome.model = self.outcome.model or base.as_name(event.get("model"))
            return f"▷ session {session_id or '?'}, model {self.outcome.model or '?'}\n"
        if event.get("subtype") == "api_retry":
            self.outcome.note = _retry(event)
            return f"↻ {self.outcome.note}\n"
        return ""

    def _on_assistant(self, event: dict[str, object]) -> str:
        message = base.as_dict(event.get("message"))
        nested = event.get("parent_tool_use_id") is not None  # a sub-agent speaks
        model = base.as_name(message.get("model"))
        if model and model != "<synthetic>" and not nested:
            self.outcome.model = model
        shown = []
        for item in base.as_list(message.get("content")):
            block = base.as_dict(item)
            if block.get("type") == "tool_use":
                shown.append(self._on_tool_use(block, nested=nested))
            elif block.get("type") == "text" and not nested:
                self._last_text = base.as_text(block.get("text"))
                shown.append(_paragraph(self._last_text))
        return "".join(shown)

    def _on_tool_use(self, block: dict[str, object], *, nested: bool) -> str:
        self.outcome.tool_calls += 1
        tool_id = base.as_text(block.get("id"))
        # One without an id can never be answered; the number bounds what a broken stream costs.
        if tool_id and len(self._open_tools) < 10_000:
            self._open_tools.add(tool_id)
        self.outcome.open_tools = len(self._open_tools)
        name = base.as_name(block.get("name")) or "?"
        who = "sub-agent's tool" if nested else "tool"
        return f"▶ {who} {name}: {_summary(base.as_dict(block.get('input')))}\n"

    def _on_user(self, event: dict[str, object]) -> str:
        nested = event.get("parent_tool_use_id") is not None
        content = base.as_dict(event.get("message")).get("content")
        shown = []
        for item in base.as_list(content):
            block = base.as_dict(item)
            if block.get("type") == "tool_result":
                self._open_tools.discard(base.as_text(block.get("tool_use_id")))
                if not nested:
                    shown.append(_tool_result(block))
            elif block.get("type") == "text" and not nested:
                shown.append(f"· {_render.one_line(base.as_text(block.get('text')))}\n")
        self.outcome.open_tools = len(self._open_tools)
        return "".join(shown)

    def _on_result(self, event: dict[str, object]) -> str:
        """Take the end of a turn; it is the last event, or the last of its kind counts."""
        self._ended = True
        self._open_tools.clear()
        self.outcome.open_tools = 0
        self._take_figures(event)
        answer = base.as_text(event.get("result"))
        fine = event.get("is_error") is False and event.get("subtype") == "success"
        self.outcome.success = fine and bool(answer.strip())
        self.outcome.final_text = answer if self.outcome.success else None
        self.outcome.error = None if self.outcome.success else _error(event, answer)
        shown = "" if answer == self._last_text or not fine else _paragraph(answer)
        return shown + self._summary_line(event)

    def _take_figures(self, event: dict[str, object]) -> None:
        outcome = self.outcome
        outcome.turns = base.as_count(event.get("num_turns"))
        usage = event.get("usage")
        if isinstance(usage, dict):
            outcome.cached_tokens = base.as_count(usage.get("cache_read_input_tokens")) or 0
            created = base.as_count(usage.get("cache_creation_input_tokens")) or 0
            fresh = base.as_count(usage.get("input_tokens")) or 0
            outcome.input_tokens = fresh + outcome.cached_tokens + created
            outcome.output_tokens = base.as_count(usage.get("output_tokens")) or 0
        # total_cost_usd is the session's, with all runs before this one when it was resumed.
        models = event.get("model_usage_since_last_result")
        if isinstance(models, dict):
            costs = [base.as_amount(base.as_dict(m).get("costUSD")) for m in models.values()]
            self._cost += sum(cost for cost in costs if cost)
            outcome.cost_usd = round(self._cost, 10)
        else:
            outcome.cost_usd = base.as_amount(event.get("total_cost_usd"))

    def _summary_line(self, event: dict[str, object]) -> str:
        outcome = self.outcome
        parts = ["done" if outcome.success else f"failed: {outcome.error}"]
        if outcome.turns is not None:
            parts.append("1 turn" if outcome.turns == 1 else f"{outcome.turns} turns")
        if outcome.input_tokens is not None:
            parts.append(f"{outcome.input_tokens} tokens in ({outcome.cached_tokens} cached)")
            parts.append(f"{outcome.output_tokens} out")
        if outcome.cost_usd is not None:
            parts.append(f"${outcome.cost_usd:.4f}")
        duration_ms = base.as_amount(event.get("duration_ms"))
        if duration_ms is not None:
            parts.append(f"{duration_ms / 1000:.1f} s")
        return f"■ {', '.join(parts)}\n"


def _paragraph(text: str) -> str:
    shown = redact.for_terminal(text).strip("\n")
    return f"\n{shown}\n\n" if shown else ""


def _retry(event: dict[str, object]) -> str:
    attempt = base.as_count(event.get("attempt"))
    last = base.as_count(event.get("max_retries"))
    status = base.as_count(event.get("error_status"))
    reason = base.as_name(event.get("error")) or "an error"
    return f"retry {attempt}/{last} after {reason if status is None else f'HTTP {status}'}"


def _error(event: dict[str, object], answer: str) -> str:
    """Why the run did not succeed: always something, on one line."""
    is_error, subtype = event.get("is_error"), base.as_text(event.get("subtype"))
    if is_error is False and subtype == "success":
        return "the answer is empty"
    errors = " ".join(base.as_text(error) for error in base.as_list(event.get("errors")))
    for text in (answer if is_error is True else "", errors, subtype.removeprefix("success")):
        if text.strip():
            return _render.one_line(text, 1000)
    return "the agent reported an error and gave no reason"


# What tells most about a call, of the inputs that the usual tools have.
_TELLING = ("command", "file_path", "path", "pattern", "url", "query", "description", "prompt")


def _summary(values: dict[str, object]) -> str:
    for key in (*_TELLING, *values):
        value = values.get(key)
        if isinstance(value, str) and value.strip():
            return _render.one_line(value)
    return _render.one_line(", ".join(values))


def _tool_result(block: dict[str, object]) -> str:
    content = block.get("content")
    if isinstance(content, list):
        texts = [base.as_text(base.as_dict(part).get("text")) for part in content]
        text = "\n".join(text for text in texts if text)
    else:
        text = base.as_text(content)
    mark = "✗ " if block.get("is_error") is True else ""
    return _render.indent(mark + (_render.shorten(text) or "(nothing)")) + "\n"
