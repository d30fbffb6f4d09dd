"""The agent backends: each file of this folder is one, found by its name.

There is no table to keep: a new file is a new type. `base` and names that begin
with "_" are what the backends share. Some more types need no file of their own:
_ready.py has the settings with which the `command` backend starts these programs.
"""

from __future__ import annotations

import os

from lib.errors import EXIT_USAGE, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

_NAMELESS = ("command", "replay")  # types that are nothing without settings
INTERNAL = ("loop",)  # types that nobody can ask for by name: plans put them around an agent
_HERE = os.path.dirname(os.path.abspath(__file__))
_loaded: dict[str, ModuleType] = {}
_configured_variables: list[str] = []


def types() -> list[str]:
    """The names of all agent types with a file of their own that can be asked for, sorted."""
    stems = [name[:-3] for name in os.listdir(_HERE) if name.endswith(".py")]
    hidden = ("base", *INTERNAL)
    return sorted(stem for stem in stems if stem not in hidden and not stem.startswith((".", "_")))


def known() -> list[str]:
    """The names of all agent types, sorted."""
    from lib.agents import _ready

    return sorted({*types(), *_ready.READY})


def load(type_name: str) -> ModuleType:
    """The backend of that type; only its own module is imported."""
    if type_name in _loaded:
        return _loaded[type_name]
    if type_name not in types() and type_name not in INTERNAL:
        from lib.agents import _ready, _render

        if type_name in _ready.READY:
            return load("command")
        name = _render.one_line(type_name, 60)
        names = ", ".join(other for other in known() if other not in _NAMELESS)
        text = f"unknown agent: {name}; known: {names}, and those in config.yaml"
        raise UserError(text, EXIT_USAGE)
    module: ModuleType = __import__(f"lib.agents.{type_name}", fromlist=["command"])
    _loaded[type_name] = module
    return module


def complete(written: Mapping[str, object], type_name: str) -> dict[str, object]:
    """The settings of an agent of that type: as they are written, and what is ready-made for it."""
    if type_name in types():
        return dict(written)
    from lib.agents import _ready

    return _ready.complete(type_name, written)


def install_hint(backend: ModuleType, options: Mapping[str, object]) -> str:
    """How to get the program of an agent, on one line."""
    return str(options.get("install") or backend.INSTALL)


def find(
    backend: ModuleType, path_env: str | None, options: Mapping[str, object] | None = None
) -> str | None:
    """The absolute path of the program that the backend starts; None: none found, or none needed.

    Which of the two it is, `executable_name` tells.
    """
    name = executable_name(backend, options)
    return find_executable(name, path_env) if name else None


def executable_name(backend: ModuleType, options: Mapping[str, object] | None = None) -> str | None:
    """The program that must be on PATH for this backend, or None where it needs none."""
    if hasattr(backend, "executable"):
        name: str | None = backend.executable(options or {})
    else:
        name = backend.EXECUTABLE
    return name


def chooses_session(backend: ModuleType, options: Mapping[str, object]) -> bool:
    """Whether the agent can be told the id of its session before it begins."""
    if hasattr(backend, "chooses_session"):
        return bool(backend.chooses_session(options))
    return bool(getattr(backend, "CHOOSES_SESSION", False))


def can_resume(backend: ModuleType, options: Mapping[str, object]) -> bool:
    """Whether the agent can go on with the session of an earlier run."""
    if hasattr(backend, "resumes"):
        return bool(backend.resumes(options))
    return bool(getattr(backend, "RESUMES", False))


def find_executable(name: str, path_env: str | None) -> str | None:
    """The absolute path of a program, looked up as a shell would; None when there is none.

    But for one thing: an empty entry of PATH is skipped. It means the working folder, and
    an agent works in folders whose files are not ours.
    """
    if "/" in name:
        return _executable(os.path.abspath(name))
    for folder in (path_env or os.defpath).split(os.pathsep):
        path = _executable(os.path.join(os.path.abspath(folder), name)) if folder else None
        if path:
            return path
    return None


def _executable(path: str) -> str | None:
    return path if os.path.isfile(path) and os.access(path, os.X_OK) else None


def all_token_variables() -> list[str]:
    """Every variable that is known to hold the secret of some agent, or of the server."""
    from lib.agents import base

    return [*base.KNOWN_TOKEN_VARIABLES, *_configured_variables]


def add_token_variables(names: Iterable[str]) -> None:
    """These hold secrets too, from now on (those that a configuration lets its agents keep)."""
    known = all_token_variables()
    _configured_variables.extend(name for name in names if name not in known)
