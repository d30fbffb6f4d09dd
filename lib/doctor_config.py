"""config.yaml as the doctor sees it: every fault, what is written in vain, who can read secrets.

No value of a secret is shown; a token file is looked at from outside.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator

from lib import config, config_check, redact, runner
from lib.agents import base
from lib.doctor_base import FAIL, NOTE, OK, Check, from_error
from lib.errors import UserError


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


def token_checks(settings: config.Config, agent: str | None) -> Iterator[Check]:
    """The token files without a token: a FAIL for `agent`, a note for the others."""
    for name in settings.agents:
        try:
            settings.check_token(name)
        except UserError as error:
            yield from_error("config", FAIL if name == agent else NOTE, error)


def _config_checks(settings: config.Config) -> Iterator[Check]:
    names = ", ".join(settings.agents) or "none"
    yield Check("config", OK, f"{settings.path} (agents: {names})")
    for name, options in settings.agents.items():
        if options.get("token_file"):
            path = config.path_beside(settings.path, str(options["token_file"]))
            place = settings.place("agents", name, "token_file")
            yield from _secret_file_checks(f"{place}: {path}", path)
    key_file = base.as_text(base.as_dict(settings.data.get("api")).get("api_key_file"))
    if key_file:
        path = config.path_beside(settings.path, key_file)
        yield from _secret_file_checks(f"{settings.place('api', 'api_key_file')}: {path}", path)
    if _has_secret(settings):
        yield from _secret_file_checks(f"{settings.path}: has a secret in it and", settings.path)
    yield from _unused_checks(settings)
    yield from _default_agent_checks(settings)


def _secret_file_checks(what: str, path: str) -> Iterator[Check]:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return  # said where it is needed
    if mode & 0o077:
        text = f"{what} is open to others (mode {mode:o})"
        yield Check("config", NOTE, text, f"chmod 600 {shlex.quote(path)}")


def _has_secret(settings: config.Config) -> bool:
    """Whether a secret stands in the file itself."""
    written = settings.data
    entries = [base.as_dict(entry) for entry in base.as_dict(written.get("agents")).values()]
    values = {str(v) for entry in entries for v in base.as_dict(entry.get("env")).values()}
    return (
        any(entry.get("token") for entry in entries)
        or not values.isdisjoint(redact.known_tokens({}))  # config.load has named them
        or bool(base.as_dict(written.get("api")).get("api_key"))
        or bool(base.as_dict(written.get("webhook")).get("secret"))
    )


def _unused_checks(settings: config.Config) -> Iterator[Check]:
    """What an original's configuration may have and nothing here looks at."""
    unused = [keys for keys in config_check.UNUSED if keys in settings.lines]
    for keys in sorted(unused, key=lambda keys: settings.line(*keys)):
        text = f"{settings.place(*keys)}: {'.'.join(keys)} is not used yet"
        yield Check("config", NOTE, text)


def _default_agent_checks(settings: config.Config) -> Iterator[Check]:
    default = settings.defaults.get("agent")
    if default:
        try:
            runner.resolve_agent(settings, str(default))
        except UserError as error:
            text = f"{settings.place('defaults', 'agent')}: defaults.agent: {error}"
            yield from_error("config", FAIL, UserError(text))
