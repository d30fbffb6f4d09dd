"""Whether a program has refused to start for an option that its version does not have yet.

Source: what commander (claude 2.1.330), clap (codex 0.169.0) and yargs (gemini 0.61.0) print.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PHRASES = (
    "unknown option",  # error: unknown option '--session-id'
    "is invalid. allowed choices",  # error: option '--output-format <format>' argument …
    "unexpected argument",  # error: unexpected argument '--json' found
    "found argument",  # error: Found argument '--json' which wasn't expected
    "unknown argument",  # Unknown arguments: output-format, outputFormat
    "given:",  #   Argument: output-format, Given: "stream-json", Choices: "text", "json"
)


def refused_option(stderr: str, options: Sequence[str]) -> str:
    """The first of `options` that the program says it does not know; "" where it says no such thing."""
    for line in stderr.split("\n"):
        low = line.lower()
        if any(phrase in low for phrase in _PHRASES):
            spaced = "".join(c if c.isalnum() or c in "-_" else " " for c in line)
            said = {word.strip("-") for word in spaced.split()}
            for option in options:
                if option.strip("-") in said:
                    return option
    return ""
