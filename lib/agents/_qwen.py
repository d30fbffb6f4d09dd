"""Claude's stream-json as others speak it: what Qwen Code means by the same words.

Source: runs of 0.15.10.
"""

from __future__ import annotations

from lib.agents import base, claude

# What its usage is called, here and there.
_FIGURES = {
    "input_tokens": "input_tokens",
    "cached_tokens": "cache_read_input_tokens",
    "output_tokens": "output_tokens",
}

# All that it says where the service refused it, in an event that is one of success.
_API_ERROR = "[API Error:"


class StreamReader(claude.StreamReader):
    """Where a `usage` has `total_tokens`, it is of the session, and tokens that were read from
    a cache are part of its input."""

    def on_event(self, event: dict[str, object]) -> str:
        return super().on_event(_mended(event) if event.get("type") == "result" else event)

    def _take_figures(self, event: dict[str, object]) -> None:
        super()._take_figures(event)
        usage = base.as_dict(event.get("usage"))
        if base.as_count(usage.get("total_tokens")) is None:
            return
        told = self.outcome.take_session_usage(usage, _FIGURES, self._before)
        self.outcome.session_totals = {**(self.outcome.session_totals or {}), **told} or None


def _mended(event: dict[str, object]) -> dict[str, object]:
    """The result as claude would have written it: errors as such, and in their place."""
    text = base.as_text(event.get("result"))
    written = base.as_count(base.as_dict(event.get("usage")).get("output_tokens"))
    if text.startswith(_API_ERROR) and not written:
        first = text.removeprefix(_API_ERROR).split(maxsplit=1)[:1]
        status = int(first[0]) if first and len(first[0]) == 3 and first[0].isdecimal() else None
        return {**event, "is_error": True, "api_error_status": status}
    said = base.as_text(base.as_dict(event.get("error")).get("message"))
    return {**event, "errors": [said]} if said and not event.get("errors") else event
