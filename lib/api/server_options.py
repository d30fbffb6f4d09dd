"""How the server is set: by options, else by variables, else by config.yaml, else as is."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping

from lib import config, paths, redact
from lib.agents import base
from lib.api.access import Access
from lib.api.names import is_on
from lib.api.service import Settings
from lib.cli import Values
from lib.errors import EXIT_USAGE, UsageError, UserError

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 14355
MAX_PORT = 65535


class Options:
    """What `resolve` found out.

    `port_is_fixed` says that no other port will do, `access` who may ask.
    """

    def __init__(self, values: Values, environ: Mapping[str, str] = os.environ) -> None:
        self.config = config.load(values.text("config"))
        self._api = base.as_dict(self.config.data.get("api"))
        self.host = (
            values.text("host")
            or environ.get("CONDUCTOR_HOST")
            or base.as_text(self._api.get("host"))
            or DEFAULT_HOST
        )
        self.port, self.port_is_fixed = self._port(values, environ)
        self.runs_dir, self.bus_path = self._places(values, environ)
        self.key = self._key(values, environ)
        self.access = self._access(values)
        self.settings = self._settings(values, environ)
        if not self.key and not is_loopback(self.host):
            raise UserError(
                f"{self.host} can be reached from other machines, and there is no API key: set "
                f"one with --api-key-file FILE or CONDUCTOR_API_KEY, or use --host {DEFAULT_HOST}",
                EXIT_USAGE,
            )

    def _port(self, values: Values, environ: Mapping[str, str]) -> tuple[int, bool]:
        port = values.number("port")
        if port is not None:
            return _checked_port(str(port), "--port"), True
        if environ.get("CONDUCTOR_PORT"):
            return _checked_port(environ["CONDUCTOR_PORT"], "CONDUCTOR_PORT"), True
        written = self._api.get("port")
        return (written if isinstance(written, int) else DEFAULT_PORT), False

    def _places(self, values: Values, environ: Mapping[str, str]) -> tuple[str, str]:
        """(runs folder, bus of its root); the folder may still be missing, what is above may not."""
        root, runs_option = values.text("root"), values.text("runs_dir")
        written = base.as_text(base.as_dict(self.config.data.get("storage")).get("runs_dir"))
        is_told = root or runs_option or environ.get("CONDUCTOR_ROOT") or environ.get(_RUNS_DIR)
        if written and not is_told:
            runs_option = config.path_beside(self.config.path, written)
        folder = paths.runs_dir(root, runs_option)
        above = os.path.dirname(folder)
        if not os.path.isdir(above):
            text = f"no folder {redact.for_terminal(above)}; make it, or correct the place of runs"
            raise UserError(text, EXIT_USAGE)
        return folder, "" if runs_option else paths.bus_path(root)

    def _key(self, values: Values, environ: Mapping[str, str]) -> str:
        file = values.text("api_key_file")
        written_file = base.as_text(self._api.get("api_key_file"))
        if file:
            key = _read_key(os.path.abspath(os.path.expanduser(file)))
        elif environ.get("CONDUCTOR_API_KEY"):
            key = environ["CONDUCTOR_API_KEY"].strip()
        elif self._api.get("auth_enabled") is False:
            return ""
        elif written_file:
            key = _read_key(config.path_beside(self.config.path, written_file))
        else:
            key = base.as_text(self._api.get("api_key"))
            if not key and self._api.get("auth_enabled"):
                place = self.config.place("api", "auth_enabled")
                text = f"{place}: auth_enabled without a key; add api_key_file, or take it away"
                raise UserError(text, EXIT_USAGE)
        redact.add_tokens([key])
        if key and (len(key) < redact.MIN_TOKEN or not key.isascii() or not key.isprintable()):
            raise UserError(
                f"the API key must have {redact.MIN_TOKEN} ASCII characters or more; "
                "make one with: openssl rand -hex 32",
                EXIT_USAGE,
            )
        return key

    def _access(self, values: Values) -> Access:
        hosts = [
            *values.items("allow_host"),
            *map(str, base.as_list(self._api.get("allowed_hosts"))),
        ]
        origins = map(str, base.as_list(self._api.get("cors_origins")))
        try:
            return Access(self.host, self.port, self.key, hosts, origins)
        except UserError as error:
            error.exit_code = EXIT_USAGE
            raise

    def _settings(self, values: Values, environ: Mapping[str, str]) -> Settings:
        sse = base.as_dict(self._api.get("sse"))
        usual = Settings()
        limit = values.number("max_root_tasks")
        if limit is None:
            limit = _count(self.config.defaults.get("max_concurrent_root_tasks"))
        if limit < 0:
            raise UsageError(f"--max-root-tasks: {limit} is below 0; see --help")
        told = environ.get("CONDUCTOR_DISABLE_TASK_START", "")
        is_off = values.flag("disable_task_start") or is_on(told) or told.lower() == "y"
        return Settings(
            may_start_tasks=not is_off,
            max_root_tasks=limit,
            heartbeat_seconds=_count(sse.get("heartbeat_interval_s")) or usual.heartbeat_seconds,
            max_clients_per_run=_count(sse.get("max_clients_per_run")) or usual.max_clients_per_run,
        )


_RUNS_DIR = "JRUN_RUNS_DIR"


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _checked_port(text: str, source: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > MAX_PORT:
        raise UsageError(f"{source}: {text!r} is no port from 0 to {MAX_PORT}")
    return int(text)


def _read_key(path: str) -> str:
    try:
        return config.read_token_file(path)
    except UserError as error:
        text = f"the file of the API key {redact.for_terminal(path)} {error}"
        raise UserError(text, EXIT_USAGE) from None


def is_loopback(host: str) -> bool:
    """Whether that name or address is of this machine alone; UserError for one that is none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        text = f"--host: {redact.one_line(host)} is no name or address of this machine"
        raise UserError(text, EXIT_USAGE) from None
    return all(
        ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found
    )
