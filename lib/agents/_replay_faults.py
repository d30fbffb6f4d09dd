"""What agents of each kind print when a service refuses, and how they end then.

Source: captures of claude 2.1.330, codex 0.169.0 and gemini 0.61.0, their times
and ids left out; for the words of usage limits see _reset.py.
"""

from __future__ import annotations

import json
import time

STATUS = {"login": 401, "overload": 503, "quota": 429}


class Complaint:
    """What is written, and the exit code."""

    __slots__ = ("code", "stderr", "stdout")

    def __init__(self, code: int, stdout: str = "", stderr: str = "") -> None:
        self.code = code
        self.stdout = stdout.encode()
        self.stderr = stderr.encode()


def complaint(kind: str, fault: str, reset_seconds: float = 0.0) -> Complaint:
    """For output of `kind` (TYPE, or TYPE:OUTPUT); a quota is open again after so many seconds."""
    type_name, _, output = kind.partition(":")
    say = _SPEAKERS.get(type_name) or _SPEAKERS.get(output) or _plain
    return say(fault, max(1, round(reset_seconds)), output == "text")


def _claude(fault: str, seconds: int, is_text: bool) -> Complaint:
    texts = {
        "login": "Failed to authenticate. API Error: 401 invalid x-api-key",
        "overload": "API Error: 529 Overloaded",
        "quota": f"Claude AI usage limit reached|{int(time.time()) + seconds}",
    }
    names = {"login": "authentication_failed", "overload": "overloaded", "quota": "rate_limit"}
    text, status = texts[fault], 529 if fault == "overload" else STATUS[fault]
    if is_text:
        return Complaint(1, f"{text}\n")
    message = {"model": "<synthetic>", "role": "assistant"}
    content = [{"type": "text", "text": text}]
    said = {
        "type": "assistant",
        "message": {**message, "content": content},
        "parent_tool_use_id": None,
        "error": names[fault],
        "is_api_error_message": True,
        "api_error_status": status,
    }
    result = {
        "type": "result",
        "subtype": "success",
        "is_error": True,
        "api_error_status": status,
        "result": text,
        "num_turns": 1,
        "terminal_reason": "api_error",
        "total_cost_usd": 0,
    }
    return Complaint(1, _lines(said, result))


def _codex(fault: str, seconds: int, is_text: bool) -> Complaint:
    text = {
        "login": "unexpected status 401 Unauthorized: Incorrect API key provided",
        "overload": "unexpected status 503 Service Unavailable: the server is overloaded",
        "quota": "You've hit your usage limit. Upgrade your plan, "
        f"or try again in {seconds} seconds.",
    }[fault]
    if is_text:
        return Complaint(1, stderr=f"ERROR: {text}\n")
    error = {"type": "error", "message": text}
    return Complaint(1, _lines(error, {"type": "turn.failed", "error": {"message": text}}))


def _gemini(fault: str, seconds: int, is_text: bool) -> Complaint:
    status = STATUS[fault]
    message, name = {
        "login": ("API key not valid. Please pass a valid API key.", "UNAUTHENTICATED"),
        "overload": ("The model is overloaded. Please try again later.", "UNAVAILABLE"),
        "quota": (
            "You have exhausted your capacity on this model. "
            f"Your quota will reset after {seconds}s.",
            "RESOURCE_EXHAUSTED",
        ),
    }[fault]
    told = json.dumps({"error": {"code": status, "message": message, "status": name}})
    text = f"[API Error: {told}]"
    code = status % 256  # Source: its exit codes with --output-format stream-json
    if is_text:
        return Complaint(1, stderr=f"{text}\n")
    error = {"type": "unknown", "message": text}
    return Complaint(code, _lines({"type": "result", "status": "error", "error": error}))


def _service(fault: str, seconds: int, is_text: bool) -> Complaint:
    """The toolkit's own process in front of a web service (_rest_main.py)."""
    status, reset = STATUS[fault], time.time() + seconds
    text = {
        "login": "HTTP 401: the key is not valid; set another one",
        "overload": "HTTP 503: overloaded, 5 tries; start it again later",
        "quota": f"HTTP 429: too many requests, 5 tries; it says to try again in {seconds} s",
    }[fault]
    event = {"type": "result", "status": "error", "error": text, "error_class": fault}
    facts = {"http_status": status, **({"reset": reset} if fault == "quota" else {})}
    return Complaint(1, _lines({**event, **facts}))


def _plain(fault: str, seconds: int, is_text: bool) -> Complaint:
    text = {
        "login": "HTTP 401 Unauthorized: the API key is not valid",
        "overload": "HTTP 503 Service Unavailable: overloaded",
        "quota": f"HTTP 429 Too Many Requests: usage limit reached, try again in {seconds} seconds",
    }[fault]
    return Complaint(1, stderr=f"error: {text}\n")


_SPEAKERS = {
    "claude": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "offline": _claude,
    "perplexity": _service,
    "xai": _service,
}


def _lines(*events: object) -> str:
    return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events)
