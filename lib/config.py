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

    from lib.yamlflow import Lines

_MAX_BYTES = 4 << 20
_known: dict[str, dict[str, object]] = {}  # by path: the files whose tokens are redacted


class Config:
    """What the configuration says; empty where there is none."""

    __slots__ = ("agents", "data", "defaults", "lines", "path", "seen", "token_faults")

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.agents: dict[str, dict[str, object]] = {}
        self.defaults: dict[str, object] = {}
        self.data: dict[str, object] = {}  # as it is written
        self.lines: Lines = {}  # where each key stands
        self.seen: dict[str, object] = {}  # the files it is from, each as it was before it was read
        self.token_faults: dict[str, str] = {}  # why the token file of an agent is of no use

    def entry(self, name: str) -> dict[str, object]:
        """The settings of an agent: by its name, else the first of that type, else what is
        ready-made for that type, else {}."""
        written = self.agents.get(self._name(name))
        if written is not None:
            return written
        token = os.environ.get(_token_variable(name))
        return agents.complete({"token": token} if token else {}, name)

    def put(self, name: str, entry: dict[str, object]) -> None:
        """Have an agent with these settings be the one of that name."""
        self.agents[name] = entry
        self.token_faults.pop(name, None)

    def _name(self, name: str) -> str:
        if name in self.agents:
            return name
        return next((n for n, entry in self.agents.items() if entry.get("type") == name), "")

    def limit(self, key: str, given: float | None) -> float:
        """A limit of a run in seconds: the given one, else the default written here, else 0."""
        from lib.cli import parse_seconds

        return parse_seconds(str(self.defaults.get(key) or 0)) if given is None else given

    def check_token(self, name: str) -> None:
        """UserError when the token file of that agent cannot be used; of others it may be missing."""
        fault = self.token_faults.get(self._name(name))
        if fault:
            raise UserError(fault, EXIT_USAGE)

    def place(self, *keys: str | int) -> str:
        """`FILE:LINE` of a key, or of the nearest one that leads to it."""
        return f"{self.path}:{self.line(*keys)}"

    def line(self, *keys: str | int) -> int:
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)


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
    """The configuration; its tokens are known to the redaction from here on.

    The UserError of a faulty one has a line for each fault.
    """
    path = locate(option)
    config = Config(path or "")
    if path is not None:
        config.seen[path] = _signature(path)
        try:
            _fill(config, path)
        except UserError as error:
            _hide_secrets(path)  # its text may quote the place of the fault
            error.exit_code = EXIT_USAGE
            raise
    for entry in config.agents.values():
        agents.add_token_variables(map(str, base.as_list(entry.get("token_variables"))))
    for name in agents.all_token_variables():
        if os.environ.get(name):
            redact.add_tokens([os.environ[name]])
    return config


def know_tokens(path: str = "") -> None:
    """Have the tokens of a configuration redacted, as far as it can be read.

    For who shows or ends runs that other processes started; `path` is what their record names.
    It is read again only when it, or a token file of it, has changed.
    """
    try:
        path = path or locate() or ""
        seen = _known.get(path)
        if not seen or any(_signature(name) != was for name, was in seen.items()):
            _known[path] = load(path or None).seen
    except (UserError, OSError):
        pass  # it has gone, or is faulty: what stands behind the names of secrets is known


def _signature(path: str) -> object:
    """What is another when a file has changed, also behind a link; None for no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _fill(config: Config, path: str) -> None:
    if os.stat(path).st_size > _MAX_BYTES:  # its end would be ignored without a word
        text = f"config file {path} is larger than {_MAX_BYTES >> 20} MiB; shorten it"
        raise UserError(text, EXIT_USAGE)
    text = files.read_text(path, _MAX_BYTES)
    data = yamlio.load(text, source=path, lines=config.lines)
    if data is None:
        return
    config.data = base.as_dict(data)
    config.defaults = base.as_dict(config.data.get("defaults"))
    for name, written in base.as_dict(config.data.get("agents")).items():
        config.agents[str(name)] = _agent(config, str(name), base.as_dict(written))
    for section, key in (("api", "api_key"), ("webhook", "secret")):
        redact.add_tokens([base.as_text(base.as_dict(config.data.get(section)).get(key))])
    from lib import config_check

    faults = sorted((config.line(*keys), text) for keys, text in config_check.faults(data))
    if faults:
        raise UserError("\n".join(f"{path}:{line}: {text}" for line, text in faults), EXIT_USAGE)


def _hide_secrets(path: str) -> None:
    """Have redacted what stands behind the keys of secrets in a file that cannot be read."""
    import re

    for rest in re.findall(
        r"(?i)(?:token|key|secret|password)[\"']?\s*:(.*)", files.read_text(path, _MAX_BYTES)
    ):
        redact.add_tokens(re.split(r"[\s\"'*&!,:\[\]{}]+", rest))


def _agent(config: Config, name: str, written: Mapping[str, object]) -> dict[str, object]:
    """The settings of an agent with its type and token; whatever it is, it has been redacted."""
    entry = {str(key): value for key, value in written.items()}
    entry["type"] = str(entry.get("type") or name).lower()
    variables = {str(k): str(v) for k, v in base.as_dict(entry.get("env")).items()}
    redact.add_tokens(redact.known_tokens(variables))
    redact.add_tokens([base.as_text(entry.get("token"))])  # also where the variable overrides it
    token = os.environ.get(_token_variable(name)) or entry.get("token")
    if not token and entry.get("token_file"):
        named = str(entry["token_file"])
        path = path_beside(config.path, named)
        config.seen[path] = _signature(path)
        try:
            token = read_token_file(path)
        except UserError as error:
            place = config.place("agents", name, "token_file")
            # What has neither may be the token itself, in the wrong place.
            shown = path if "/" in named or "." in named else "the file of that name"
            config.token_faults[name] = f"{place}: token_file of agent {name}: {shown} {error}"
    if token:
        entry["token"] = token
        redact.add_tokens([str(token)])
    if entry.get("recording"):  # of a replay agent
        entry["recording"] = path_beside(config.path, str(entry["recording"]))
    return agents.complete(entry, str(entry["type"]))


def _token_variable(name: str) -> str:
    letters = "".join(c if c.isalnum() and c.isascii() else "_" for c in name.upper())
    return f"CONDUCTOR_AGENT_{letters}_TOKEN"


def path_beside(config_path: str, named: str) -> str:
    """Where a file is that the config names: `~` is the home, a relative path begins beside it."""
    return os.path.join(os.path.dirname(config_path), os.path.expanduser(named))


def read_token_file(path: str) -> str:
    """The token in a file, without the white space around it; UserError when there is none."""
    if "\0" in path:
        raise UserError("is no name of a file: it holds a NUL; correct the name")
    try:
        data = files.read_regular(os.path.realpath(path), redact.MAX_TOKEN + 1)
    except OSError as error:
        text = f"cannot be read: {error.strerror}; write the token into it, or correct the name"
        raise UserError(text) from None
    token = data.decode("utf-8", "replace").lstrip("\ufeff").strip()
    if not token:
        raise UserError("is empty; write the token into it")
    if not token.isprintable() or " " in token or len(data) > redact.MAX_TOKEN:
        raise UserError("holds more than a token; leave nothing else in it")
    return token
