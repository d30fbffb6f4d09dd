"""Command lines from the configuration: words, and lists of words that go together."""

from __future__ import annotations

import os

from lib.agents import base
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Template = list[str | list[str]]

_PLACEHOLDERS = ("prompt", "prompt_file", "cwd", "run_dir", "model", "session_id")
# Source: execve(2), MAX_ARG_STRLEN: 32 pages, the closing NUL among them.
_MAX_ARGUMENT_BYTES = 128 * 1024 - 1


def read(options: Mapping[str, object], key: str) -> Template:
    """The command line under `key`, "command" or "resume", its program first.

    It has `args` and `unattended` where they belong, and a place for a prompt that
    needs one; its placeholders are not yet replaced.
    """
    template = _written(options, key)
    place, found = prompt_place(options, key), words(template)
    if place == "argument" and not has(found, "prompt"):
        template.append("{prompt}")
    if place == "file" and not has(found, "prompt_file"):
        template.append("{prompt_file}")
    return template


def prompt_place(options: Mapping[str, object], key: str) -> str:
    """Where the prompt goes, "stdin", "argument" or "file": as configured, else as the command tells."""
    found = words(_written(options, key))
    told = "argument" if has(found, "prompt") else "file" if has(found, "prompt_file") else "stdin"
    return str(options.get("prompt") or told)


def _written(options: Mapping[str, object], key: str) -> Template:
    items = parse(options, key)
    if not items or not items[0]:
        if key == "resume":
            raise UserError("it cannot be resumed: give it a resume: [program, ...]")
        raise UserError(
            'command agent without a command; give it one: command: [program, "{prompt_file}"]'
        )
    if not isinstance(items[0], str):
        raise UserError(f"{key} of a command agent must begin with its program, not with a list")
    if "{args}" not in items:
        items.append("{args}")
    template: Template = []
    for item in items:
        if item in ("{args}", "{unattended}"):
            template += parse(options, str(item)[1:-1])
        else:
            template.append(item)
    return template


def parse(options: Mapping[str, object], key: str, *, has_groups: bool = True) -> Template:
    """What the configuration has under `key`: words, and groups of words."""
    values = options.get(key)
    if values is None:
        return []
    items = values if isinstance(values, list) else [None]
    if not all(base.is_word(item) or (has_groups and _is_group(item)) for item in items):
        raise UserError(f'{key} of a command agent must be a list of strings: {key}: [one, "two"]')
    return [[str(word) for word in x] if isinstance(x, list) else str(x) for x in items]


def _is_group(item: object) -> bool:
    return isinstance(item, list) and bool(item) and all(map(base.is_word, item))


def words(template: Template) -> list[str]:
    """All words, of the groups too."""
    return [word for item in template for word in ([item] if isinstance(item, str) else item)]


def has(found: list[str], name: str) -> bool:
    """Whether a placeholder is in one of the words."""
    return any(f"{{{name}}}" in word for word in found)


def names(found: list[str]) -> set[str]:
    """The placeholders in the words."""
    return {name for word in found for _, name in _parts(word) if name}


def _parts(argument: str) -> Iterator[tuple[str, str]]:
    """What the argument is made of: a text, and the name of the placeholder behind it or ""."""
    text = ""
    while argument:
        before, brace, after = argument.partition("{")
        name, end, behind = after.partition("}")
        if end and name in _PLACEHOLDERS:
            yield text + before, name
            text, argument = "", behind
        else:
            text, argument = text + before + brace, after
    yield text, ""


def fill(argument: str, launch: base.Launch, before: str = "-") -> str:
    """The argument with each placeholder replaced, once: what is put in is not looked at.

    `before` is the argument in front of it: a prompt that follows no option must
    not look like one.
    """
    filled = ""
    for text, name in _parts(argument):
        put_in = value(name, launch) if name else ""
        if name and not put_in:
            raise UserError(
                f"command uses {{{name}}}, and there is none; set {name}:, or write it as a list "
                f'that can be left out: [--{name}, "{{{name}}}"]'
            )
        filled += text + put_in
    if len(os.fsencode(filled)) > _MAX_ARGUMENT_BYTES or "\0" in filled:
        raise UserError(
            f"prompt cannot be passed as an argument: {launch.prompt_path} has 128 KiB or more, "
            "or a NUL; use {prompt_file} in place of {prompt}, or stdin"
        )
    if argument.startswith("{prompt}") and filled.startswith("-") and not before.startswith("-"):
        raise UserError(
            "prompt begins with a dash, and the program would take it for an option; "
            "put -- before {prompt} in the command, or use {prompt_file} or stdin"
        )
    return filled


def value(name: str, launch: base.Launch) -> str:
    """What is put in for a placeholder; "" where there is nothing."""
    if name == "prompt":
        with open(launch.prompt_path, "rb") as file:
            return os.fsdecode(file.read())
    if name in ("model", "session_id"):
        return base.argument(name.replace("_", " "), getattr(launch, name) or "")
    paths = {"prompt_file": launch.prompt_path, "cwd": launch.cwd, "run_dir": launch.run_dir}
    return paths[name]
