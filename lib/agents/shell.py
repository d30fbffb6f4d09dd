"""Runs the first fenced `sh`, `bash` or `shell` block of the prompt: a step without a model.

The script ends with the status of its last command; begin it with `set -e` to
stop at the first that fails.
"""

from __future__ import annotations

import os

from lib import agents
from lib.agents import base
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTABLE: str | None = None
INSTALL = "nothing to install: /bin/sh runs it"
TOKEN_VARIABLES: tuple[str, ...] = ()
PACED = False
STREAM = False
PREAMBLE = False  # a script block of the preamble would be the first
SETTINGS: dict[str, object] = {}

SCRIPT = "script.sh"  # in the run folder
_SHELL = "/bin/sh"


def command(launch: base.Launch) -> list[str]:
    """Write the script into the run folder; return the command line that runs it."""
    with open(launch.prompt_path, "rb", buffering=0) as file:
        prompt = file.read()
    language, script = _first_script(prompt, launch.prompt_path)
    path = os.path.join(os.path.abspath(launch.run_dir), SCRIPT)
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb"
    ) as file:
        file.write(script)
    bash = agents.find_executable("bash", os.environ.get("PATH")) if language == "bash" else None
    return [bash or _SHELL, path]


def check_prompt(path: str) -> None:
    """UserError when the prompt holds no script: known before a plan starts, not hours into it."""
    with open(path, "rb") as file:
        _first_script(file.read(), path)


def environment(launch: base.Launch) -> dict[str, str | None]:
    """Nothing to change but what an agent leaves behind in its tools' environment."""
    return dict.fromkeys(base.NESTED_SESSION_VARIABLES)


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """The output is what the commands print; tokens and cost are none."""
    reader = base.TextReader()
    outcome = reader.outcome  # no model is asked: that is known, and no figure to be missed
    outcome.input_tokens = outcome.output_tokens = 0
    outcome.cost_usd = 0.0
    return reader


def _first_script(prompt: bytes, path: str) -> tuple[str, bytes]:
    for language, line_number, lines in _fenced_blocks(prompt):
        if language not in ("sh", "bash", "shell"):
            continue
        if lines is None:
            raise UserError(
                f"sh block is not closed: {path}:{line_number}; "
                "end it with a line of the same fence"
            )
        if not b"".join(lines).strip():
            raise UserError(f"sh block is empty: {path}:{line_number}; put commands into it")
        return language, b"".join(line + b"\n" for line in lines)
    raise UserError(f"no sh block in prompt: {path}; put the commands between ```sh and ``` lines")


def _fenced_blocks(prompt: bytes) -> list[tuple[str, int, list[bytes] | None]]:
    """Each fenced block: first word of its info string, line number, lines (None: not closed).

    Source: CommonMark 0.31 section 4.5, but for its rule that a block without an end
    runs to the end of the document: what follows is no script.
    """
    blocks: list[tuple[str, int, list[bytes] | None]] = []
    fence, indentation, language, start = b"", 0, "", 0
    lines: list[bytes] = []
    for number, raw in enumerate(prompt.split(b"\n"), 1):
        line = raw.removesuffix(b"\r")
        if fence:
            if _closes(line, fence):
                blocks.append((language, start, lines))
                fence = b""
            else:
                lines.append(_unindented(line, indentation))
        elif opening := _opening(line):
            fence, indentation, language = opening
            start, lines = number, []
    if fence:
        blocks.append((language, start, None))
    return blocks


def _opening(line: bytes) -> tuple[bytes, int, str] | None:
    """The fence, its indentation and the language, where the line opens a block."""
    text = line.lstrip(b" ")
    mark = text[:1]
    info = text.lstrip(mark) if mark in (b"`", b"~") else text
    fence = text[: len(text) - len(info)]
    indentation = len(line) - len(text)
    if len(fence) < 3 or indentation > 3 or (mark == b"`" and b"`" in info):
        return None
    words = info.split()
    return fence, indentation, words[0].decode("utf-8", "replace").lower() if words else ""


def _closes(line: bytes, fence: bytes) -> bool:
    text = line.lstrip(b" ").rstrip(b" \t")
    indentation = len(line) - len(line.lstrip(b" "))
    return len(text) >= len(fence) and indentation <= 3 and not text.strip(fence[:1])


def _unindented(line: bytes, indentation: int) -> bytes:
    """The line without as many leading blanks as the opening fence had."""
    blanks = len(line) - len(line.lstrip(b" "))
    return line[min(blanks, indentation) :]


def failure(ended: base.Ended) -> base.Failure:
    """Of which class a failure is; it asks no model, so that it has few of them."""
    from lib.agents import _failure

    return _failure.of_plain(ended)
