"""What the server tells who runs it."""

from __future__ import annotations

import sys

from lib import redact

MAX_TEXT = 1000  # characters


def tell(text: str) -> None:
    """One redacted line on stderr, which nothing that a client sent can break or forge."""
    try:
        sys.stderr.write(f"server.py: {redact.one_line(text, MAX_TEXT)}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody is there to read it
