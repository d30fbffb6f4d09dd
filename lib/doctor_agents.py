"""The agents: is each here, which version, is it logged in, may it work.

Nothing is paid and no secret is read: a program is asked for its `--version`
with no token, a credentials file is looked for and never opened.  What is
special about an agent its backend says (lib/agents/base.py).
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

from lib import agents, config, runner
from lib.agents import base
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

# Neither reports nor updates of a program that is only asked for its version.
QUIET = {"DO_NOT_TRACK": "1", "GEMINI_TELEMETRY_ENABLED": "false"}


def agent_names(settings: config.Config) -> list[str]:
    """The agents of the configuration, and each type that none of them is of.

    Of the types that are ready-made only those whose program is here.
    """
    configured = {str(options.get("type")) for options in settings.agents.values()}
    names = [*settings.agents]
    for type_name in agents.types():
        if type_name not in configured and type_name not in names and type_name != "command":
            names.append(type_name)
    for type_name in sorted({*agents.known()} - {*agents.types()}):
        program = agents.executable_name(agents.load(type_name), agents.complete({}, type_name))
        is_here = program and agents.find_executable(program, os.environ.get("PATH"))
        if is_here and type_name not in configured and type_name not in names:
            names.append(type_name)
    return names


def agent_checks(settings: config.Config, name: str) -> Iterator[Check]:
    """All that is to be said of one agent; FAIL is what it cannot work with."""
    label = f"agent {name}"
    try:
        type_name, options, program = runner.resolve_agent(settings, name)
        backend = agents.load(type_name)
        keys = _token_variables(backend, options)
        backend.reader(options)
    except UserError as error:
        text = str(error).removeprefix(f"{name}: ")
        yield from_error(label, FAIL, UserError(text))
        return
    if program is None:
        yield Check(label, OK, "needs no program" if keys else "part of the toolkit")
    elif hasattr(backend, "TRIED"):
        yield _version_check(label, program, backend)
    else:
        # A program that does not know --version might take it for the start of its work.
        yield Check(label, OK, f"{program} (not asked for its version)")
    variables = _with(os.environ, base.as_dict(options.get("env")))
    if keys:
        check = _login_check(f"{label} login", backend, keys, options, variables)
        # A program may have a login that is not seen; without one, there is but the key.
        is_fatal = program is None and check.state == NOTE
        yield Check(check.name, FAIL, check.text, check.cure) if is_fatal else check
    if hasattr(backend, "conditions"):
        variables = _with(os.environ, _changes(backend, options), options.get("env"))
        for what, state, text, cure in backend.conditions(options, variables):
            yield Check(f"{label} {what}", state, text, cure)


def _with(*layers: object) -> dict[str, str]:
    """Variables, each layer over the one before it; None takes one away."""
    result: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.items() if isinstance(layer, Mapping) else ():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = str(value)
    return result


def _changes(backend: ModuleType, options: Mapping[str, object]) -> dict[str, str | None]:
    nowhere = base.Launch(executable=None, prompt_path="", run_dir="", cwd="", options=options)
    changes: dict[str, str | None] = backend.environment(nowhere)
    return changes


def _token_variables(backend: ModuleType, options: Mapping[str, object]) -> tuple[str, ...]:
    if hasattr(backend, "token_variables"):
        return tuple(backend.token_variables(options))
    return tuple(backend.TOKEN_VARIABLES)


def _version_check(label: str, program: str, backend: ModuleType) -> Check:
    try:
        answer = _ask_version(program, backend)
    except OSError as error:  # no temporary folder
        return from_error(label, FAIL, error)
    match = re.search(backend.VERSION, answer.stdout)
    if answer.fault or match is None:
        said = (answer.stderr.strip() or answer.stdout.strip()).split("\n")[0][:200]
        text = f"{program} {answer.fault or 'does not tell its version'}"
        cure = f"see what it says: {shlex.quote(program)} --version"
        if answer.is_broken and hasattr(backend, "REPAIR"):
            cure = f"{cure}; {backend.REPAIR}"
        state = FAIL if answer.is_broken else NOTE
        return Check(label, state, f"{text}{': ' if said else ''}{said}", cure)
    version, (oldest, newest) = match[1][:40], backend.TRIED
    if _numbers(version) < _numbers(oldest):
        text = f"{program}, {version}: older than those tried, from {oldest}"
        return Check(label, NOTE, text, "update it, should its runs fail")
    is_newer = _numbers(version) > _numbers(newest)
    return Check(label, OK, f"{program}, {version}{f' (tried up to {newest})' if is_newer else ''}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part[:9]) for part in re.findall(r"[0-9]+", version)[:3])


def _ask_version(program: str, backend: ModuleType) -> Answer:
    """`program --version` with no token, in a home of its own, that is gone afterwards."""
    # What a program of another session still writes there must not become our error.
    with tempfile.TemporaryDirectory(prefix="doctor-", ignore_cleanup_errors=True) as home:
        own = {backend.HOME_VARIABLE: home, "TMPDIR": home}
        environment = _with(os.environ, QUIET, _changes(backend, {}), own)
        return output_of(
            [program, "--version"], without_tokens(environment), VERSION_SECONDS, cwd=home
        )


def _login_check(
    label: str,
    backend: ModuleType,
    keys: Sequence[str],
    options: Mapping[str, object],
    variables: Mapping[str, str],
) -> Check:
    """Whether there is something to log in with; only a paid call could tell that it is valid."""
    if options.get("token"):
        return Check(label, OK, "a token of its own, from the config or its variable")
    present = [name for name in keys if variables.get(name)]
    sign, doubt = f"{present[0]} is set" if present else "", ""
    if hasattr(backend, "find_login"):
        sign, doubt = backend.find_login(variables)
    cure = str(options.get("login") or getattr(backend, "LOGIN", f"set {' or '.join(keys)}"))
    if sign and not doubt:
        return Check(label, OK, sign)
    text = f"{sign}, but: {doubt}" if sign else "no key and no login of it is seen here"
    return Check(label, NOTE, text, cure)


def may_be_called(settings: config.Config, name: str, checks: Sequence[Check]) -> bool:
    """Whether a live call is to be made of an agent that nobody named: a model, and usable.

    One that is in no configuration must be logged in, as far as that can be seen.
    """
    if any(check.state == FAIL for check in checks) or not _is_model(settings, name):
        return False
    login = [check.state for check in checks if check.name == f"agent {name} login"]
    return name in settings.agents or login == [OK]


def summary_checks(settings: config.Config, working: Sequence[str]) -> Iterator[Check]:
    """Nothing where a model is among the agents that work."""
    if not any(_is_model(settings, name) for name in working):
        cure = "install one of them; make demo shows the toolkit without any"
        yield Check("agents", NOTE, "no agent with a model works here", cure)


def _is_model(settings: config.Config, name: str) -> bool:
    backend = agents.load(str(settings.entry(name).get("type") or name))
    return bool(backend.PACED)
