"""Text of agents, made fit to be read in a terminal: harmless, short, on one line."""

from __future__ import annotations

from lib import redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Sequences end with their line (redact.for_terminal); one longer than this is shown in parts.
_MAX_HELD = 1 << 16


def encodable(text: str) -> str:
    """The text with each lone surrogate (JSON can hold them) as "?": UTF-8 can write it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def unfinished_at(text: str) -> int:
    """Where something begins that is made harmless only together with what follows.

    This is an escape sequence in the last line, or a \\r at the end; else it is the length.
    """
    line = text.rfind("\n") + 1
    found = [at for at in (text.find(escape, line) for escape in "\x1b\x9b\x9d") if at >= 0]
    at = min(found, default=len(text) - text.endswith("\r"))
    return at if len(text) - at <= _MAX_HELD else len(text)


def _safe(text: str) -> str:
    """The text without secrets and controls; redacted before any cut, for half a token is none."""
    return redact.for_terminal(redact.text(text))


def one_line(text: str, limit: int = 200) -> str:
    """The text safe to show, its white space single blanks, at most `limit` characters."""
    text = text if len(text) <= _MAX_HELD else redact.before_gap(text[:_MAX_HELD])
    line = " ".join(_safe(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def shorten(text: str, max_lines: int = 20, max_characters: int = 2000) -> str:
    """The first and last lines of the text, safe to show, with a note of what was left out."""
    lines = _safe(text).strip("\n").split("\n")
    if len(lines) > max_lines:
        head = max_lines * 2 // 3
        tail = max_lines - head - 1
        left_out = f"… {len(lines) - head - tail} lines left out …"
        lines = [*lines[:head], left_out, *lines[-tail:]]
    short = "\n".join(lines)
    if len(short) > max_characters:
        head = max_characters * 2 // 3
        tail = max_characters - head - 40
        left_out = f" … {len(short) - head - tail} characters left out … "
        short = short[:head] + left_out + short[-tail:]
    return short


def indent(text: str, by: str = "    ") -> str:
    """Each line moved to the right; an empty line stays empty."""
    return "\n".join(by + line if line else line for line in text.split("\n"))


# What transcripts are made of, the same for every stream.


def paragraph(text: str) -> str:
    """What the agent says, set off by empty lines; "" for nothing."""
    shown = redact.for_terminal(text).strip("\n")
    return f"\n{shown}\n\n" if shown else ""


# What tells most about a call, of the inputs that the usual tools have.
_TELLING = ("command", "file_path", "path", "pattern", "url", "query", "description", "prompt")


def tool_call(name: str | None, values: Mapping[str, object], who: str = "tool") -> str:
    """The line that tells of a tool call: the most telling one of its inputs."""
    for key in (*_TELLING, *values):
        value = values.get(key)
        if isinstance(value, str) and value.strip():
            break
    else:
        value = ", ".join(values)
    return f"▶ {who} {name or '?'}: {one_line(value)}\n"


def tool_result(text: str, *, is_error: bool) -> str:
    """What a tool gave back, shortened."""
    mark = "✗ " if is_error else ""
    return indent(mark + (shorten(text) or "(nothing)")) + "\n"
