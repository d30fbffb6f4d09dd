"""The shared core of Conductor Loop; imports the standard library only.

Modules stand in layers and import downwards only; tests/unit/test_layers.py
holds the order.
"""

import sys

VERSION = "0.1.0"

if sys.version_info < (3, 11):  # noqa: UP036 - said here, in a sentence, and not by a SyntaxError
    raise SystemExit(
        "conductor-loop needs Python 3.11 or newer, and this is "
        f"{sys.version_info[0]}.{sys.version_info[1]} ({sys.executable})"
    )
