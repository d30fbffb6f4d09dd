"""config.yaml as the doctor sees it: every fault, what is written in vain, who can read secrets.

No value of a secret is shown; a token file is looked at from outside.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lib import agents, config, files, redact, runner, yamlio
from lib.agents import base
from lib.cli import parse_seconds, suggestion
from lib.doctor_base import FAIL, NOTE, OK, Check, from_error
from lib.errors import UserError

if TYPE_CHECKING:
    from lib.yamlflow import Lines

DEFAULTS = ("agent", "timeout", "idle_timeout")
SETTINGS: Mapping[str, type | tuple[type, ...]] = {  # of every agent
    "type": str,
    "model": (str, int, float),
    "token": str,
    "token_file": str,
    "env": dict,
    "executable": str,
    "preamble": bool,
}
KINDS = {dict: "a mapping", list: "a list", bool: "true or false, without quotes", str: "a text"}


def read_config(option: str | None) -> tuple[config.Config | None, list[Check]]:
    """The configuration, None where nothing can start with it, and what is to be said of it."""
    try:
        settings = config.load(option)
        if not settings.path:
            return settings, [Check("config", OK, "none, and none is needed")]
        return settings, list(_config_checks(settings))
    except OSError as error:
        return None, [from_error("config", FAIL, error)]
    except UserError as error:
        return None, [
            from_error("config", FAIL, UserError(line)) for line in str(error).split("\n")
        ]


class _Source:
    """The text of the configuration: what was written, and where."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lines: Lines = {}
        text = files.read_text(path)
        self.data = base.as_dict(yamlio.load(text, source=path, lines=self._lines))

    def place(self, *keys: str) -> str:
        return f"{self.path}:{self._lines.get(keys, 1)}"


def _config_checks(settings: config.Config) -> Iterator[Check]:
    source = _Source(settings.path)
    names = ", ".join(settings.agents) or "none"
    yield Check("config", OK, f"{settings.path} (agents: {names})")
    for name, options in settings.agents.items():
        yield from _settings_checks(source, name, options)
        yield from _token_file_checks(source, name, options)
    if _has_secret(source.data):
        yield from _secret_file_checks(f"{settings.path}: has a secret in it and", settings.path)
    yield from _defaults_checks(source, settings)


def _settings_checks(source: _Source, name: str, options: Mapping[str, object]) -> Iterator[Check]:
    """What is written for an agent and not used: keys nobody knows, values of a wrong kind."""
    own = getattr(agents.load(str(options.get("type"))), "SETTINGS", None)
    known = {**SETTINGS, **(own or {})}
    for key, value in options.items():
        place = source.place("agents", name, key)
        kind = known.get(key)
        if kind is None:
            if own is None:  # it does not tell which it knows
                continue
            text = f"{place}: {key} of agent {name} is not used{suggestion(key, list(known))}"
            yield Check("config", NOTE, text, "correct or remove it")
        elif value is not None and not _is_of(value, kind):
            wanted = KINDS.get(kind, "a number") if isinstance(kind, type) else "a text or number"
            text = f"{place}: {key} of agent {name} is not used as it is"
            yield Check("config", NOTE, text, f"make it {wanted}")


def _is_of(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _token_file_checks(
    source: _Source, name: str, options: Mapping[str, object]
) -> Iterator[Check]:
    token_file = options.get("token_file")
    if token_file:
        path = os.path.expanduser(str(token_file))
        path = os.path.join(os.path.dirname(source.path), path)
        place = source.place("agents", name, "token_file")
        yield from _secret_file_checks(f"{place}: {path}", path)


def _secret_file_checks(what: str, path: str) -> Iterator[Check]:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return  # it is not used: the token is in the environment
    if mode & 0o077:
        text = f"{what} is open to others (mode {mode:o})"
        yield Check("config", NOTE, text, f"chmod 600 {shlex.quote(path)}")


def _has_secret(data: Mapping[str, object]) -> bool:
    """Whether a secret stands in the file itself."""
    entries = [base.as_dict(entry) for entry in base.as_dict(data.get("agents")).values()]
    values = {str(v) for entry in entries for v in base.as_dict(entry.get("env")).values()}
    return (
        any(entry.get("token") for entry in entries)
        or not values.isdisjoint(redact.known_tokens({}))  # config.load has named them
        or bool(base.as_dict(data.get("api")).get("api_key"))
        or bool(base.as_dict(data.get("webhook")).get("secret"))
    )


def _defaults_checks(source: _Source, settings: config.Config) -> Iterator[Check]:
    for key in settings.defaults:
        if key not in DEFAULTS:
            near = suggestion(str(key), DEFAULTS)
            text = f"{source.place('defaults', str(key))}: defaults.{key} is not used{near}"
            yield Check("config", NOTE, text, "correct or remove it")
    default = settings.defaults.get("agent")
    if default:
        try:
            runner.resolve_agent(settings, str(default))
        except UserError as error:
            text = f"{source.place('defaults', 'agent')}: defaults.agent: {error}"
            yield from_error("config", FAIL, UserError(text))
    for key in ("timeout", "idle_timeout"):
        value = settings.defaults.get(key)
        try:
            parse_seconds("0" if value is None else str(value))
        except ValueError:
            text = f"{source.place('defaults', key)}: defaults.{key}: {value!r} is no time"
            yield Check("config", FAIL, text, "write 90s, 15m or 2h")
