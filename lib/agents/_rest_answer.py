"""The answer in what a service sends, of either API.

An answer counts only once its end was told: with finish_reason or [DONE] in chat
completions, with response.completed in the Agent API. A stream that just stops
is a fault, however much came before.
"""

from __future__ import annotations

import json

from lib.agents import _render, base
from lib.agents._rest_stream import AnswerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ANSWER_CHARACTERS = 2 << 20  # JSON may take six bytes for one, and a line holds 16 MiB
MAX_SOURCES = 200
MAX_QUERIES = 200
DONE = "[DONE]"
_DOLLARS_PER_TICK = 1e-10  # Source: docs.x.ai, "Cost Tracking"


class Answer:
    """What was said so far; a subclass knows the API."""

    def __init__(self) -> None:
        self.model: str | None = None
        self.final = ""  # all of the text, where its end repeats it
        self.usage: dict[str, object] = {}
        self.warning = ""
        self.queries: list[str] = []  # that were searched for, each once; no more than are shown
        self.is_complete = False  # its end was told, and it was a good one
        self.is_over = False  # nothing more is to be expected
        self._sources: dict[int, tuple[str, str]] = {}  # number in the text: address and title
        self._pieces: list[str] = []
        self._size = 0

    def take(self, data: str) -> str:
        """Take the data of one event; return the piece of text in it. AnswerError: there is none."""
        if data.strip() == DONE:
            self._on_done()
            return ""
        try:
            event = json.loads(data, strict=False)
        except (ValueError, RecursionError):
            raise AnswerError(
                f"it sent an event that is no JSON: {_render.one_line(data, 80)}"
            ) from None
        piece = self._on_event(base.as_dict(event))
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > MAX_ANSWER_CHARACTERS:
            raise AnswerError("its answer is larger than any that makes sense")
        return piece

    def take_whole(self, data: str) -> str:
        """Take an answer that did not come as a stream, as `take` does; nothing follows it."""
        piece = self.take(data)
        self.is_over = True
        return piece

    def _on_done(self) -> None:
        self.is_over = True

    def _on_event(self, event: dict[str, object]) -> str:
        raise NotImplementedError

    def _note_model(self, value: object) -> None:
        self.model = base.as_name(value) or self.model

    def _note_usage(self, value: object) -> None:
        usage = _usage(base.as_dict(value))
        self.usage = usage or self.usage

    def _note_source(self, number: int | None, address: object, title: object = "") -> None:
        """Note a source once, under the number that the text has for it."""
        url = _render.one_line(base.as_text(address), 1000)
        if not url or len(self._sources) >= MAX_SOURCES:
            return
        if number is None or number in self._sources:
            if any(url == known for known, _ in self._sources.values()):
                return
            number = max(self._sources, default=0) + 1
        self._sources[number] = (url, _render.one_line(base.as_text(title), 200))

    def sources(self) -> str:
        """The numbered list of sources; "" where there are none."""
        rows = [
            f"{number}. {title}: {url}" if title else f"{number}. {url}"
            for number, (url, title) in sorted(self._sources.items())
        ]
        return "\n".join(["Sources:", "", *rows]) if rows else ""

    def with_sources(self) -> str:
        """The text and its sources; a verdict stays the last line."""
        text = (self.final or "".join(self._pieces)).strip("\n")
        sources = self.sources()
        if not sources or not text.strip():
            return text
        before, _, last = text.rstrip().rpartition("\n")
        if last.strip().startswith("VERDICT:"):
            return "\n\n".join(part for part in (before.rstrip(), sources, last) if part)
        return f"{text}\n\n{sources}"


class ChatAnswer(Answer):
    """Chat completions, streamed or whole."""

    def _on_done(self) -> None:
        self.is_complete = self.is_over = True

    def _on_event(self, event: dict[str, object]) -> str:
        if event.get("error"):
            raise AnswerError(f"it broke off with an error: {error_text(event) or 'of no kind'}")
        self._note_model(event.get("model"))
        self._note_usage(event.get("usage"))
        self._note_sources(event)
        choice = base.as_dict(next(iter(base.as_list(event.get("choices"))), None))
        piece = base.as_text(base.as_dict(choice.get("delta")).get("content"))
        if not piece:  # a whole answer, or all of it so far, as some streams repeat it
            so_far = base.as_text(base.as_dict(choice.get("message")).get("content"))
            piece = self._new_in(so_far) if so_far else ""
        self._on_finish(choice.get("finish_reason"))
        return piece

    def _new_in(self, so_far: str) -> str:
        text = "".join(self._pieces)
        return so_far[len(text) :] if so_far.startswith(text) else ""

    def _note_sources(self, event: dict[str, object]) -> None:
        """Each event repeats the list; the first entry is [1] in the text."""
        titles: dict[object, object] = {}
        results = [base.as_dict(row) for row in base.as_list(event.get("search_results"))]
        for row in results:
            titles[base.as_text(row.get("url"))] = row.get("title")
        addresses = base.as_list(event.get("citations")) or [row.get("url") for row in results]
        for number, address in enumerate(addresses, 1):
            self._note_source(number, address, titles.get(base.as_text(address)))

    def _on_finish(self, reason: object) -> None:
        if reason in ("content_filter", "error"):
            kind = "refusal" if reason == "content_filter" else "overload"
            raise AnswerError(f"it ended its answer with {reason}", kind)
        if reason == "length":
            self.warning = _CUT
        self.is_complete = self.is_complete or bool(base.as_text(reason))


class AgentAnswer(Answer):
    """Perplexity's Agent API, which streams what the Responses API does, and searches."""

    def __init__(self) -> None:
        super().__init__()
        self._item: object = None  # which item of the output the last piece was of

    def _on_event(self, event: dict[str, object]) -> str:
        kind = base.as_text(event.get("type"))
        response = base.as_dict(event.get("response"))
        if event.get("object") == "response":  # a whole answer
            kind, response = f"response.{event.get('status')}", event
        self._note_model(response.get("model"))
        self._note_usage(response.get("usage"))
        if kind == "response.output_text.delta":
            return self._on_text(event)
        if kind.startswith("response.output_item."):
            self._note_results(base.as_dict(event.get("item")))
        elif kind == "response.reasoning.search_results":
            self._note_results(event)
        elif kind == "response.reasoning.search_queries":
            self._note_queries(event)
        elif kind in ("response.completed", "response.incomplete"):
            return self._on_end(kind, response)
        elif kind in ("response.failed", "response.cancelled"):
            what = kind.removeprefix("response.")
            raise AnswerError(f"its answer {what}: {error_text(response) or 'no reason given'}")
        elif kind == "error" or (not kind and event.get("error")):
            raise AnswerError(f"it broke off with an error: {error_text(event) or 'of no kind'}")
        return ""

    def _on_text(self, event: dict[str, object]) -> str:
        piece = base.as_text(event.get("delta"))
        item = event.get("output_index")
        gap = "\n\n" if self._size and item != self._item else ""
        self._item = item
        return gap + piece if piece else ""

    def _note_results(self, item: dict[str, object]) -> None:
        for result in base.as_list(item.get("results")):
            row = base.as_dict(result)
            number = base.as_count(row.get("id")) or None
            self._note_source(number, row.get("url"), row.get("title"))
        if item.get("type") == "search_results":
            self._note_queries(item)

    def _note_queries(self, event: dict[str, object]) -> None:
        # Each event may repeat the list, or bring new ones without end.
        for value in base.as_list(event.get("queries"))[:MAX_QUERIES]:
            query = base.as_line(value)
            if query and query not in self.queries and len(self.queries) < MAX_QUERIES:
                self.queries.append(query)

    def _on_end(self, kind: str, response: dict[str, object]) -> str:
        status = base.as_text(response.get("status")) or kind.removeprefix("response.")
        reason = base.as_text(base.as_dict(response.get("incomplete_details")).get("reason"))
        if status == "incomplete" and reason == "max_output_tokens":
            self.warning = _CUT
        elif status != "completed":
            said = error_text(response) or reason
            raise AnswerError(
                f"its answer ended as {_render.one_line(status, 40)}: {said}".rstrip(": ")
            )
        texts = []
        for part in base.as_list(response.get("output")):
            item = base.as_dict(part)
            self._note_results(item)
            if item.get("type") == "message":
                texts.append(_message_text(item))
        self.final = "\n\n".join(text for text in texts if text)
        self.is_complete = self.is_over = True
        return "" if self._size else self.final


_CUT = "the answer was cut at its limit of tokens; max_tokens allows more"


def _message_text(item: dict[str, object]) -> str:
    parts = [base.as_dict(part) for part in base.as_list(item.get("content"))]
    return "".join(base.as_text(p.get("text")) for p in parts if p.get("type") == "output_text")


def _usage(usage: dict[str, object]) -> dict[str, object]:
    """Tokens and cost in the names of either API under the names of one."""

    def count(*names: str) -> int | None:
        return next((n for n in map(base.as_count, map(usage.get, names)) if n is not None), None)

    into, out = count("input_tokens", "prompt_tokens"), count("output_tokens", "completion_tokens")
    total = count("total_tokens")
    if into is not None and out is not None and total is not None:
        # xAI leaves the tokens of its reasoning out of the one, and has them in the other.
        out = max(out, total - into)
    details = usage.get("input_tokens_details") or usage.get("prompt_tokens_details")
    found = {
        "input_tokens": into,
        "cached_tokens": base.as_count(base.as_dict(details).get("cached_tokens")),
        "output_tokens": out,
        "cost_usd": _cost(usage),
    }
    return {name: value for name, value in found.items() if value is not None}


def _cost(usage: dict[str, object]) -> float | None:
    cost = base.as_dict(usage.get("cost"))
    if cost.get("currency", "USD") == "USD" and base.as_amount(cost.get("total_cost")) is not None:
        return base.as_amount(cost.get("total_cost"))
    ticks = base.as_count(usage.get("cost_in_usd_ticks"))
    return None if ticks is None else round(ticks * _DOLLARS_PER_TICK, 10)


def error_text(body: dict[str, object]) -> str:
    """What an error says, on one line; it has one of two shapes, or something like them.

    {"error": {"message": …, "type": …, "code": …}} and {"code": …, "error": "text"}.
    """
    inner = base.as_dict(body.get("error"))
    said = next(_lines(inner.get("message"), body.get("error"), body.get("message")), "")
    said = said or next(_lines(body.get("detail")), "")
    code = next(_lines(inner.get("code"), inner.get("type"), body.get("code")), "")
    return f"{said} ({code})" if said and code else said or code


def _lines(*values: object) -> Iterator[str]:
    for value in values:
        if isinstance(value, str) and value.strip():
            yield _render.one_line(base.as_text(value), 300)
