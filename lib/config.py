"""`config.yaml`: agents by name, defaults, tokens.  Optional: everything works without it.

    agents:
      claude: {token_file: ~/.config/claude.token, model: sonnet}
      helper: {type: command, command: [my-agent, "{prompt_file}"]}
    defaults: {agent: claude, timeout: 2h, idle_timeout: 15m}

Looked for as `--config`, `$CONDUCTOR_CONFIG`, `./config.yaml`, beside the
scripts, `~/.config/conductor-loop/config.yaml`; the first that exists is read.
"""

from __future__ import annotations

import os

from lib import agents, files, paths, redact, yamlio
from lib.agents import base
from lib.errors import EXIT_USAGE, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SECTIONS = ("agents", "defaults", "api", "storage", "webhook")
_MAX_BYTES = 4 << 20


class Config:
    """What the configuration says; empty where there is none."""

    __slots__ = ("agents", "defaults", "path")

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.agents: dict[str, dict[str, object]] = {}
        self.defaults: dict[str, object] = {}

    def entry(self, name: str) -> dict[str, object]:
        """The settings of an agent: by its name, else the first of that type, else {}."""
        if name in self.agents:
            return self.agents[name]
        for options in self.agents.values():
            if options.get("type") == name:
                return options
        return {}


def locate(option: str | None = None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The file to read, or None; UserError when one that was named does not exist."""
    for source, named in (
        ("--config", option),
        ("CONDUCTOR_CONFIG", environ.get("CONDUCTOR_CONFIG")),
    ):
        if named:
            path = os.path.abspath(os.path.expanduser(named))
            if not os.path.isfile(path):
                raise UserError(f"no config file {path}; correct {source}", EXIT_USAGE)
            return path
    home = os.path.join("~", ".config", "conductor-loop", "config.yaml")
    for path in ("config.yaml", os.path.join(paths.TOOLKIT, "config.yaml"), home):
        path = os.path.abspath(os.path.expanduser(path))  # noqa: PLW2901 - the same place, spelt out
        if os.path.isfile(path):
            return path
    return None


def load(option: str | None = None) -> Config:
    """The configuration; its tokens are known to the redaction from here on."""
    path = locate(option)
    config = Config(path or "")
    if path is not None:
        try:
            _fill(config, path)
        except UserError:
            _hide_secrets(path)  # its text may quote the place of the fault
            raise
    for name in base.KNOWN_TOKEN_VARIABLES:
        if os.environ.get(name):
            redact.add_tokens([os.environ[name]])
    for options in config.agents.values():
        token = options.get("token")
        if isinstance(token, str):
            redact.add_tokens([token])
        variables = options.get("env")
        if isinstance(variables, dict):
            redact.add_tokens(redact.known_tokens({str(k): str(v) for k, v in variables.items()}))
    return config


def _fill(config: Config, path: str) -> None:
    """Read the file; the UserError of a faulty one has a line for each fault."""
    lines: dict[tuple[str | int, ...], int] = {}
    data = yamlio.load(files.read_text(path, _MAX_BYTES), source=path, lines=lines)
    if data is None:
        return
    if not isinstance(data, dict):
        raise UserError(f"{path}:1: not a mapping; begin with `agents:`", EXIT_USAGE)
    faults = []
    for key, value in data.items():
        place = f"{path}:{lines.get((key,), 1)}"
        if key not in _SECTIONS:
            known = ", ".join(_SECTIONS)
            faults.append(f"{place}: unknown key {key!r}; known: {known}")
        elif value is not None and not isinstance(value, dict):
            faults.append(f"{place}: {key} must be a mapping")
    config.defaults = base.as_dict(data.get("defaults"))
    for name, options in base.as_dict(data.get("agents")).items():
        place = f"{path}:{lines.get(('agents', name), 1)}"
        try:
            config.agents[str(name)] = _agent(str(name), options, place, os.path.dirname(path))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults), EXIT_USAGE)


def _hide_secrets(path: str) -> None:
    """Have redacted what stands behind the keys of secrets in a file that cannot be read."""
    import re

    for rest in re.findall(
        r"(?i)(?:token|key|secret|password)[\"']?\s*:(.*)", files.read_text(path, _MAX_BYTES)
    ):
        redact.add_tokens(re.split(r"[\s\"'*&!,:\[\]{}]+", rest))


def _agent(name: str, options: object, place: str, folder: str) -> dict[str, object]:
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise UserError(f"{place}: agent {name} must be a mapping of settings")
    entry = {str(key): value for key, value in options.items()}
    entry["type"] = str(entry.get("type") or name).lower()
    faults = []
    if entry["type"] not in agents.types():
        known = ", ".join(agents.types())
        faults.append(
            f"{place}: agent {name} has the unknown type {entry['type']!r}; known: {known}"
        )
    try:
        token = _token(name, entry, place, folder)
        if token:
            entry["token"] = token
    except UserError as error:
        faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    return entry


def _token(name: str, entry: Mapping[str, object], place: str, folder: str) -> str | None:
    """The agent's own token: from its variable, else from the file, else None."""
    written, token_file = entry.get("token"), entry.get("token_file")
    if not isinstance(written, str | None):
        raise UserError(
            f"{place}: token of agent {name} is read as a number or the like; put it in quotes"
        )
    if written:
        redact.add_tokens([written])  # also where the variable overrides it
    token = os.environ.get(_token_variable(name))
    if token:
        return token
    if written and token_file:
        raise UserError(f"{place}: agent {name} has token and token_file; keep one")
    return _read_token(str(token_file), folder, place, name) if token_file else written


def _token_variable(name: str) -> str:
    letters = "".join(c if c.isalnum() and c.isascii() else "_" for c in name.upper())
    return f"CONDUCTOR_AGENT_{letters}_TOKEN"


def _read_token(named: str, folder: str, place: str, name: str) -> str:
    path = os.path.join(folder, os.path.expanduser(named))
    try:
        token = files.read_text(path, 64 * 1024).strip()
    except OSError as error:
        raise UserError(
            f"{place}: token_file of agent {name}: {path}: {error.strerror}", EXIT_USAGE
        ) from None
    if not token:
        raise UserError(f"{place}: token_file of agent {name} is empty: {path}", EXIT_USAGE)
    return token
