"""The configuration and its agents: is each here, which version, is it logged in, may it work.

Nothing is paid and no secret is read: a program is asked for its `--version`
with no token, a credentials file is looked for and never opened.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from lib import agents, config, files, runner, yamlio
from lib.agents import base
from lib.cli import parse_seconds
from lib.doctor_base import (
    FAIL,
    NOTE,
    OK,
    VERSION_SECONDS,
    Answer,
    Check,
    from_error,
    output_of,
    without_tokens,
)
from lib.errors import UserError

PLANNED_TYPES = ("codex", "gemini", "perplexity", "xai")  # said to be missing while they are

# Neither reports nor updates of a program that is only asked for its version.
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GEMINI_CLI_NO_RELAUNCH": "1",
    "GEMINI_TELEMETRY_ENABLED": "false",
}


# -- the configuration


def read_config(option: str | None) -> tuple[config.Config, list[Check]]:
    """The configuration and what is wrong with it; an empty one where it cannot be read."""
    try:
        settings = config.load(option)
        if not settings.path:
            return settings, [Check("config", OK, "none, and none is needed")]
        return settings, _config_checks(settings)
    except OSError as error:
        return config.Config(), [from_error("config", FAIL, error)]
    except UserError as error:
        faults = [UserError(line) for line in str(error).split("\n")]
        return config.Config(), [from_error("config", FAIL, fault) for fault in faults]


def _config_checks(settings: config.Config) -> list[Check]:
    lines: dict[tuple[str | int, ...], int] = {}
    data = yamlio.load(files.read_text(settings.path), source=settings.path, lines=lines)

    def place(*keys: str) -> str:
        return f"{settings.path}:{lines.get(keys, 1)}"

    names = ", ".join(settings.agents) or "none"
    found = [Check("config", OK, f"{settings.path}; agents in it: {names}")]
    written = base.as_dict(base.as_dict(data).get("agents"))
    for name, options in settings.agents.items():
        token_file = options.get("token_file")
        if token_file:
            path = os.path.expanduser(str(token_file))
            path = os.path.join(os.path.dirname(settings.path), path)
            found += _secret_file_checks(f"{place('agents', name)}: the token file", path)
        if base.as_dict(written.get(name)).get("token"):
            what = f"{place('agents', name)}: this file, with a token in it,"
            found += _secret_file_checks(what, settings.path)
    default = settings.defaults.get("agent")
    if default:
        try:
            runner.resolve_agent(settings, str(default))
        except UserError as error:
            text = f"{place('defaults', 'agent')}: defaults.agent: {error}"
            found.append(from_error("config", FAIL, UserError(text)))
    for key in ("timeout", "idle_timeout"):
        value = settings.defaults.get(key)
        try:
            parse_seconds("0" if value is None else str(value))
        except ValueError:
            text = f"{place('defaults', key)}: defaults.{key}: {value!r} is no time"
            found.append(Check("config", FAIL, text, "write 90s, 15m or 2h"))
    return found


def _secret_file_checks(what: str, path: str) -> list[Check]:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return []  # it is not used: the token is in the environment
    if not mode & stat.S_IROTH:
        return []
    text = f"{what} can be read by everybody: {path}"
    return [Check("config", NOTE, text, f"chmod 600 {shlex.quote(path)}")]


# -- agents


@dataclass(frozen=True, slots=True)
class Cli:
    """What is known of an agent's program: versions tried, where its login lies, how to log in."""

    oldest: tuple[int, ...]
    newest: tuple[int, ...]
    home: str  # variable that moves its settings
    default_home: str
    credentials: str  # below that
    login: str


CLIS = {
    "claude": Cli(
        oldest=(2, 1, 197),
        newest=(2, 1, 330),
        home="CLAUDE_CONFIG_DIR",
        default_home="~/.claude",
        credentials=".credentials.json",
        login="run claude and type /login, or set ANTHROPIC_API_KEY",
    ),
    "codex": Cli(
        oldest=(0, 169, 0),
        newest=(0, 169, 0),
        home="CODEX_HOME",
        default_home="~/.codex",
        credentials="auth.json",
        login="run codex login, or set CODEX_API_KEY or OPENAI_API_KEY",
    ),
    "gemini": Cli(
        oldest=(0, 61, 0),
        newest=(0, 61, 0),
        home="GEMINI_CLI_HOME",
        default_home="~",
        credentials=".gemini/oauth_creds.json",
        login="set GEMINI_API_KEY",
    ),
}


def agent_names(settings: config.Config) -> list[str]:
    """The agents of the configuration, and each type that none of them is of."""
    configured = {str(options.get("type")) for options in settings.agents.values()}
    names = [*settings.agents]
    for type_name in agents.types():
        if type_name not in configured and type_name not in names and type_name != "command":
            names.append(type_name)
    return names


def is_available(settings: config.Config, name: str) -> bool:
    try:
        runner.resolve_agent(settings, name)
    except UserError:
        return False
    return True


def agent_checks(settings: config.Config, name: str, *, is_asked_for: bool) -> Iterator[Check]:
    label = f"agent {name}"
    try:
        type_name, options, program = runner.resolve_agent(settings, name)
        backend = agents.load(type_name)
        variables = _variables(backend, options)
        keys = _token_variables(backend, options)
        backend.reader(options)
    except UserError as error:
        text = str(error).removeprefix(f"{name}: ")
        yield from_error(label, FAIL if is_asked_for else NOTE, UserError(text))
        return
    if program is None:
        yield Check(label, OK, "speaks to its service itself" if keys else "part of the toolkit")
    elif type_name in CLIS:
        yield _version_check(label, program, CLIS[type_name])
    else:
        # A program that does not know --version might take it for the start of its work.
        yield Check(label, OK, f"{program} (not asked for its version)")
    if keys:
        yield _login_check(f"{label} login", type_name, keys, options, variables)
    if type_name == "claude":
        yield from _root_user_checks(f"{label} as root", name, variables)
    if type_name == "gemini" and variables.get("GEMINI_CLI_TRUST_WORKSPACE") != "true":
        text = "gemini ends with 55 in a folder that it was not told to trust"
        yield Check(f"{label} trust", NOTE, text, "export GEMINI_CLI_TRUST_WORKSPACE=true")


def _variables(backend: ModuleType, options: Mapping[str, object]) -> dict[str, str]:
    """The environment that a run of this agent gets, as far as it matters here."""
    nowhere = base.Launch(executable=None, prompt_path="", run_dir="", cwd="", options=options)
    result = dict(os.environ)
    for changes in (backend.environment(nowhere), base.as_dict(options.get("env"))):
        for name, value in changes.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = str(value)
    return result


def _token_variables(backend: ModuleType, options: Mapping[str, object]) -> tuple[str, ...]:
    if hasattr(backend, "token_variables"):
        return tuple(backend.token_variables(options))
    return tuple(backend.TOKEN_VARIABLES)


def _version_check(label: str, program: str, cli: Cli) -> Check:
    try:
        answer = _ask_version(program)
    except OSError as error:  # no temporary folder
        return from_error(label, FAIL, error)
    match = re.search(r"\d+(?:\.\d+)+", answer.stdout)
    if answer.fault or match is None:
        said = (answer.stderr.strip() or answer.stdout.strip()).split("\n")[0][:200]
        fault = answer.fault or "does not tell its version"
        text = f"{program} {fault}{': ' if said else ''}{said}"
        state = FAIL if answer.is_broken else NOTE
        return Check(label, state, text, f"run it by hand: {shlex.quote(program)} --version")
    version = tuple(int(part[:9]) for part in match[0].split("."))
    oldest, newest = (".".join(map(str, part)) for part in (cli.oldest, cli.newest))
    if version < cli.oldest:
        text = f"{program}, {match[0]}: older than tried ({oldest})"
        return Check(label, NOTE, text, "update it, should its runs fail")
    how = f"newer than tried ({newest})" if version > cli.newest else "tried"
    return Check(label, OK, f"{program}, {match[0]}: {how}")


def _ask_version(program: str) -> Answer:
    """`program --version` with no token, in a home of its own, that is gone afterwards."""
    # What a program of another session still writes there must not become our error.
    with tempfile.TemporaryDirectory(prefix="doctor-", ignore_cleanup_errors=True) as home:
        environment = {**without_tokens(os.environ), **QUIET, "TMPDIR": home}
        environment.update({cli.home: home for cli in CLIS.values()})
        return output_of([program, "--version"], environment, VERSION_SECONDS, cwd=home)


def _login_check(
    label: str,
    type_name: str,
    keys: Sequence[str],
    options: Mapping[str, object],
    variables: Mapping[str, str],
) -> Check:
    """Whether there is something to log in with; only a paid call could tell that it is valid."""
    if options.get("token"):
        return Check(label, OK, "has a token of its own (config or CONDUCTOR_AGENT_…_TOKEN)")
    present = [name for name in keys if variables.get(name)]
    if present:
        return Check(label, OK, f"{present[0]} is set")
    cli = CLIS.get(type_name)
    if cli is None:
        return Check(label, NOTE, "no key for it is set", f"set {' or '.join(keys)}")
    home = os.path.expanduser(variables.get(cli.home) or cli.default_home)
    path = os.path.join(home, cli.credentials)
    if os.path.exists(path):
        return Check(label, OK, f"{path} is there")
    # On macOS claude keeps its login in the keychain.
    return Check(label, NOTE, f"no sign of one: no key is set, and there is no {path}", cli.login)


def _root_user_checks(label: str, name: str, variables: Mapping[str, str]) -> Iterator[Check]:
    if os.geteuid() != 0:
        return
    for variable in ("IS_SANDBOX", "CLAUDE_CODE_BUBBLEWRAP"):
        if variables.get(variable) == "1":
            yield Check(label, OK, f"{variable}=1 says that this machine may be damaged")
            return
    cure = (
        f"run as another user, or, where this machine may be damaged, put sandbox: true into "
        f"{name} in config.yaml, or export IS_SANDBOX=1"
    )
    yield Check(label, FAIL, "as root it refuses to run unattended", cure)


def summary_checks(settings: config.Config, names: Sequence[str]) -> Iterator[Check]:
    unsupported = [name for name in PLANNED_TYPES if name not in (*agents.types(), *names)]
    if unsupported:
        text = f"{', '.join(unsupported)}: not supported in this version"
        yield Check("agents", NOTE, text, "type: command in config.yaml runs any other program")
    if not any(is_available(settings, name) and _is_model(settings, name) for name in names):
        cure = "make demo, or run-all-tasks.py --agent offline"
        yield Check("agents", NOTE, "no program of a model is here; the embedded agent works", cure)


def _is_model(settings: config.Config, name: str) -> bool:
    backend = agents.load(str(settings.entry(name).get("type") or name))
    return bool(backend.PACED)
