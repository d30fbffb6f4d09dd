"""The embedded agent: needs no key, no network and no package; see _offline_main.py."""

from __future__ import annotations

import os
import sys

from lib.agents import base, claude

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTABLE: str | None = None
INSTALL = "nothing to install: it is part of the toolkit"
TOKEN_VARIABLES: tuple[str, ...] = ()
PACED = False
STREAM = True
CHOOSES_SESSION = True
SETTINGS = {"delay": (int, float)}

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_offline_main.py")


def command(launch: base.Launch) -> list[str]:
    """The command line; option `delay`: how many seconds it pretends to work."""
    argv = [sys.executable, "-S", "-E", _PROGRAM]
    delay = base.as_amount(launch.options.get("delay"))
    if delay is not None:
        argv += ["--delay", str(delay)]
    if launch.session_id:
        argv += ["--session-id", launch.session_id]
    return argv


def environment(launch: base.Launch) -> dict[str, str | None]:
    """Nothing to change."""
    return {}


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """It speaks claude's stream format."""
    return claude.reader()


def failure(ended: base.Ended) -> base.Failure:
    """Of which class a failure is; it asks no model, so that it has few of them."""
    from lib.agents import _failure

    return _failure.of_plain(ended)
