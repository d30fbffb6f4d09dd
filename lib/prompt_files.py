"""The files that prompts are made of: sources, templates, and the seal of a generated one.

A generated prompt ends with a line that holds the SHA-256 of all above it.
While that line is right nobody has edited the file, and it may be replaced.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from string import Template as StringTemplate

from lib import paths
from lib.checked import shown
from lib.errors import UserError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of a template
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
STANDARD_VARIABLES = (
    "task_id", "title", "project", "stage", "role", "cwd", "root", "bus", "prompts", "bin",
)  # fmt: skip
_SEAL = re.compile(rb"<!-- generated ([0-9a-f]{64}) -->\n")
_SEAL_LENGTH = 84


def read_source(path: str) -> str:
    """The text of a prompt file or template; UserError when it cannot serve as one."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would block the reader
            raise UserError(f"{shown(path)} is not a file; name a file with the prompt in it")
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise UserError(f"{shown(path)} does not exist; create it, or correct the path") from None
    except OSError as error:
        raise UserError(
            f"{shown(path)} cannot be read: {error.strerror}; mend that, or name another file"
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown(path)} is not UTF-8 (line {line}); convert it") from None
    if not text.strip():
        raise UserError(f"{shown(path)} is empty; write the prompt into it")
    return text


@dataclass(frozen=True, slots=True)
class Template:
    """A template: its placeholders and its stray dollar signs, with their lines."""

    path: str
    text: str
    placeholders: tuple[tuple[str, int], ...]
    stray: tuple[int, ...]


def template_folders(plan_path: str) -> tuple[str, ...]:
    """Where the templates of a plan are looked for, in this order."""
    folder = os.path.dirname(os.path.abspath(plan_path))
    return (
        os.path.join(folder, "prompts", "templates"),
        os.path.join(folder, "templates"),  # a plan that lies in prompts/ itself
        os.path.join(paths.TOOLKIT, "prompts", "templates"),
    )


def read_template(name: str, folders: tuple[str, ...]) -> Template:
    """The first `NAME.md` of `folders`; UserError when there is none or it cannot be read."""
    candidates = [os.path.join(folder, f"{name}.md") for folder in folders]
    path = next((path for path in candidates if os.path.exists(path)), None)
    if path is None:
        places = ", ".join(shown(candidate) for candidate in candidates)
        raise UserError(f"template {shown(name)} does not exist; create one of {places}")
    text = read_source(path)
    placeholders: list[tuple[str, int]] = []
    stray: list[int] = []
    line, counted = 1, 0
    for match in StringTemplate.pattern.finditer(text):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        name_here = match["named"] or match["braced"]
        if name_here:
            placeholders.append((name_here, line))
        elif match["escaped"] is None:
            stray.append(line)
    return Template(path, text, tuple(placeholders), tuple(stray))


def template_faults(template: Template, variables: Collection[str]) -> list[tuple[int, str]]:
    """Line and text of everything that keeps a template from being filled with `variables`."""
    unfilled: dict[str, int] = {}
    for name, line in template.placeholders:
        if name not in variables:
            unfilled.setdefault(name, line)
    faults = [
        (line, f"placeholder ${name} is not filled; set it in vars, or write $${name} for the text")
        for name, line in unfilled.items()
    ]
    faults += [(line, "a $ without a name; write $$ for the sign") for line in template.stray]
    return sorted(faults)


def fill(template: Template, values: Mapping[str, str]) -> str:
    """The text of a template with its placeholders filled; UserError when one is left."""
    faults = template_faults(template, values)
    if faults:
        line, what = faults[0]
        raise UserError(f"{shown(template.path)}:{line}: {what}")
    return StringTemplate(template.text).substitute(values)


def sealed(text: str) -> str:
    """`text`, which ends in a newline, and below it the line that vouches for it."""
    return f"{text}<!-- generated {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_sealed(data: bytes) -> bool:
    """True for a file that `sealed` made and nobody has changed since."""
    match = _SEAL.fullmatch(data[-_SEAL_LENGTH:])
    if match is None:
        return False
    return hashlib.sha256(data[:-_SEAL_LENGTH]).hexdigest().encode() == match[1]
