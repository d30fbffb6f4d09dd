"""What the agents that are a web service share: the process that asks it, and its output.

The service is asked by a process of its own (_rest_main.py), so that limits, stopping
and raw files are those of any agent. It gets the prompt on stdin, the key in its
environment, and prints one event a line:

    {"type": "start", "service": "xai", "model": "grok-4.3"}
    {"type": "wait", "message": "HTTP 429: slow down; try 2 of 5 in 4 s"}
    {"type": "search", "queries": ["file locks"]}
    {"type": "alive"}                        the service works, and has nothing to show
    {"type": "text", "text": "A lock is"}    a piece of the answer
    {"type": "result", "status": "success", "text": "A lock is …", "model": …, "usage": …}
    {"type": "result", "status": "error", "error": "one sentence", "error_class": "quota",
     "http_status": 429, "reset": 1795417200.5}  (the time at which a limit ends)

`usage` has input_tokens, cached_tokens, output_tokens and cost_usd, as far as they
are told.
"""

from __future__ import annotations

import os
import sys

from lib import redact
from lib.agents import _render, base
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import UnionType

SETTINGS: dict[str, object] = {
    "base_url": base.address,
    "max_tokens": int,
    "parameters": dict,
    "read_timeout": (int, float),
}

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_rest_main.py")


def command(
    service: str,
    launch: base.Launch,
    *,
    api: str,
    url: str,
    body: Mapping[str, object],
    silence_seconds: float,
) -> list[str]:
    """The command line that sends `body` and the prompt to `url`.

    `parameters:` of the configuration goes into the body, before what is there;
    `read_timeout:` replaces `silence_seconds`.
    """
    import json

    parameters = _option(launch, "parameters", dict, "a mapping, such as {temperature: 0.2}")
    silence = base.as_amount(_option(launch, "read_timeout", int | float, "seconds"))
    try:
        written = json.dumps({**body, **(base.as_dict(parameters))}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"parameters of {service} cannot be sent: {error}; put them in quotes"
        ) from None
    return [
        *(sys.executable, "-S", "-E", _PROGRAM),
        *("--service", service, "--api", api, "--url", url, "--body", written),
        *("--silence", f"{silence or silence_seconds:g}"),
    ]


def environment() -> dict[str, str | None]:
    """Nothing to change but what agents leave behind in their tools' environment."""
    return dict.fromkeys(base.NESTED_SESSION_VARIABLES)


def endpoint(launch: base.Launch, default: str, path: str) -> str:
    """Where to send a request: `base_url:` of the configuration, else `default`, and `path`.

    The former may have the path already, or its /v1.
    """
    wanted = _option(launch, "base_url", str, "an address, such as https://host/v1")
    address = base.as_text(wanted or default).rstrip("/")
    if set(address) & set(
        "@?#"
    ):  # where passwords and keys stand; it is shown, and on a command line
        raise UserError("base_url must have no user, query or fragment; a key goes into token_file")
    if address.endswith(path.removeprefix("/v1")):
        return address
    return address + (path.removeprefix("/v1") if address.endswith("/v1") else path)


def max_tokens(launch: base.Launch, name: str) -> dict[str, object]:
    """`max_tokens:` of the configuration under the name that the service has for it."""
    wanted = _option(launch, "max_tokens", int, "a whole number")
    return {name: wanted} if wanted else {}


def _option(launch: base.Launch, key: str, kind: type | UnionType, what: str) -> object:
    """A setting of the right type, or None; a number is no truth value, and above 0."""
    value = launch.options.get(key)
    if value is None:
        return None
    is_fit = isinstance(value, kind) and not isinstance(value, bool)
    if not is_fit or (isinstance(value, int | float) and not 0 < value < 1e9):
        shown = _render.one_line(str(value), 60)
        raise UserError(f"{key}: {shown} cannot be; it must be {what}")
    return value


class StreamReader(base.JsonLinesReader):
    """Understands the events above, and leaves out those that it does not know."""

    has_tools = False

    def __init__(self) -> None:
        super().__init__()
        self._held = ""  # the begin of an escape sequence whose end is to come
        self._is_in_text = False

    def on_event(self, event: dict[str, object]) -> str:
        kind = event.get("type")
        if kind == "text":
            return self._on_text(base.as_text(event.get("text")))
        if kind == "start":
            self.outcome.model = base.as_name(event.get("model"))
            asked = [("model", self.outcome.model), ("preset", base.as_name(event.get("preset")))]
            words = [base.as_name(event.get("service")) or "?"]
            words += [f"{key} {name}" for key, name in asked if name]
            return f"▷ {', '.join(words)}\n"
        if kind == "wait":
            self.outcome.note = base.as_line(event.get("message")) or self.outcome.note
            return self._end_text() + f"↻ {self.outcome.note or 'waits'}\n"
        if kind == "search":
            return self._end_text() + self._on_search(base.as_list(event.get("queries")))
        if kind == "result":
            return self._end_text() + self._on_result(event)
        return ""

    def on_end(self) -> str:
        return self._end_text() + super().on_end()

    def _on_text(self, piece: str) -> str:
        """The piece, fit to be shown: pieces end anywhere."""
        lead = "" if self._is_in_text or not piece else "\n"
        self._is_in_text = self._is_in_text or bool(piece)
        text = self._held + piece
        cut = _render.unfinished_at(text)
        self._held = text[cut:]
        return lead + redact.for_terminal(text[:cut])

    def _end_text(self) -> str:
        if not self._is_in_text:
            return ""
        rest, self._held, self._is_in_text = self._held, "", False
        return redact.for_terminal(rest) + "\n\n"

    def _on_search(self, queries: list[object]) -> str:
        shown = ""
        for query in queries[:20]:
            self.begin_tool("")
            shown += _render.tool_call("web_search", {"query": base.as_text(query)})
        return shown

    def _on_result(self, event: dict[str, object]) -> str:
        usage = base.as_dict(event.get("usage"))
        outcome = self.outcome
        outcome.model = base.as_name(event.get("model")) or outcome.model
        outcome.input_tokens = base.as_count(usage.get("input_tokens"))
        outcome.cached_tokens = base.as_count(usage.get("cached_tokens"))
        outcome.output_tokens = base.as_count(usage.get("output_tokens"))
        outcome.cost_usd = base.as_amount(usage.get("cost_usd"))
        fault = ""
        if event.get("status") != "success":
            fault = base.as_line(event.get("error")) or base.NO_REASON
            outcome.fault_class = base.as_name(event.get("error_class"))
            outcome.fault_status = base.as_count(event.get("http_status"))
            outcome.fault_reset = base.as_amount(event.get("reset"))
        self.settle(base.as_text(event.get("text")), fault)
        warning = base.as_line(event.get("warning"))
        outcome.note = warning or outcome.note
        return (f"· {warning}\n" if warning else "") + self.summary()


def failure(ended: base.Ended, key_variable: str) -> base.Failure:
    """Of which class a failure is: the process that asked knows it, and its sentence has the cure."""
    from lib.agents import _failure

    login = f"set {key_variable}, or token_file: of the agent in config.yaml"
    return _failure.as_told(ended) or _failure.of_program(
        ended, _failure.Program(login=login), _failure.plain_lines(ended)
    )
