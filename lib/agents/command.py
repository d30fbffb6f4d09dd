"""Any other CLI: its command line stands in the configuration.

    agents:
      opencode:
        type: command
        command: [opencode, run, --auto, --file, "{prompt_file}"]
        output: text                        # or claude, for stream-json like claude's
        token_variables: [OPENAI_API_KEY]   # the secrets that it may keep

{prompt} {prompt_file} {cwd} {model} {session_id} are replaced inside the arguments;
any other brace stays. The prompt is on stdin too.
"""

from __future__ import annotations

import os

from lib.agents import _render, base, claude
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTABLE: str | None = None  # see executable()
INSTALL = "install the program that `command:` of this agent names, or correct the name"
TOKEN_VARIABLES: tuple[str, ...] = ()  # see token_variables()
PACED = True
STREAM = False
SETTINGS = {"command": list, "output": str, "token_variables": list}

_PLACEHOLDERS = ("prompt", "prompt_file", "cwd", "model", "session_id")
# Source: execve(2), MAX_ARG_STRLEN: 32 pages, the closing NUL among them.
_MAX_ARGUMENT_BYTES = 128 * 1024 - 1


def executable(options: Mapping[str, object]) -> str:
    """The program that the configured command starts; a name for PATH, or a path."""
    return _template(options)[0]


def token_variables(options: Mapping[str, object]) -> tuple[str, ...]:
    """The variables with secrets that the configuration lets this agent keep."""
    return tuple(_strings(options, "token_variables"))


def command(launch: base.Launch) -> list[str]:
    """The configured command line with its placeholders replaced."""
    template = _template(launch.options)
    first = launch.executable or template[0]
    return [first, *(_filled(argument, launch) for argument in template[1:])]


def environment(launch: base.Launch) -> dict[str, str | None]:
    """Nothing to change but what agents leave behind in their tools' environment."""
    return dict.fromkeys(base.NESTED_SESSION_VARIABLES)


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """What reads the kind of output that `output:` names."""
    kind = (options or {}).get("output", "text")
    if kind == "text":
        return base.TextReader()
    if kind == "claude":
        return claude.reader()
    shown = _render.one_line(str(kind), 60)
    raise UserError(f"unknown output of a command agent: {shown}; known: claude, text")


def _template(options: Mapping[str, object]) -> list[str]:
    template = _strings(options, "command")
    if not template or not template[0]:
        raise UserError(
            'command agent without a command; give it one: command: [program, "{prompt_file}"]'
        )
    return template


def _strings(options: Mapping[str, object], key: str) -> list[str]:
    values = options.get(key)
    if values is None:
        return []
    if not isinstance(values, list) or not all(_is_plain(value) for value in values):
        raise UserError(f'{key} of a command agent must be a list of strings: {key}: [one, "two"]')
    return [str(value) for value in values]


def _is_plain(value: object) -> bool:
    """Whether YAML made of it what was written; `yes` and 1.10 need quotes."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def _filled(argument: str, launch: base.Launch) -> str:
    """The argument with each placeholder replaced, once: what is put in is not looked at."""
    parts = []
    rest = argument
    while rest:
        before, brace, after = rest.partition("{")
        name, end, behind = after.partition("}")
        parts.append(before)
        if end and name in _PLACEHOLDERS:
            parts.append(_value(name, launch))
            rest = behind
        else:
            parts.append(brace)
            rest = after
    filled = "".join(parts)
    if len(os.fsencode(filled)) > _MAX_ARGUMENT_BYTES or "\0" in filled:
        raise UserError(
            f"prompt cannot be passed as an argument: {launch.prompt_path} has 128 KiB or more, "
            "or a NUL; use {prompt_file} in place of {prompt}, or stdin"
        )
    return filled


def _value(name: str, launch: base.Launch) -> str:
    if name == "prompt":
        with open(launch.prompt_path, "rb") as file:
            return os.fsdecode(file.read())
    if name == "session_id":
        return launch.session_id or _new_session_id()
    value = {"prompt_file": launch.prompt_path, "cwd": launch.cwd, "model": launch.model}[name]
    if not value:
        raise UserError(f"command uses {{{name}}}, and there is none; set {name}: or leave it out")
    return value


def _new_session_id() -> str:
    import uuid

    return str(uuid.uuid4())
