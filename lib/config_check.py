"""What config.yaml may say: every key, the kind of its value, and what is wrong, all of it.

A kind is a type, a tuple of types or of words, a mapping with kinds of its own,
or a function that returns what a value has to be instead ("" = it is that).
Backends give the kinds of their own keys in SETTINGS.  No value is ever quoted
here: it may be a secret.
"""

from __future__ import annotations

from lib import agents
from lib.agents import base
from lib.cli import parse_seconds, suggestion
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    Fault = tuple[tuple[str | int, ...], str]  # the keys that lead to it, and a sentence


def _seconds(value: object) -> str:
    """A duration, as on the command line."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            parse_seconds(str(value))
        except ValueError:
            pass
        else:
            return ""
    return "a time, such as 90s, 15m or 2h"


def _variables(value: object) -> str:
    """Names and texts: YAML would have made something else of `yes` and `1.10`."""
    if not isinstance(value, dict):
        return "a mapping of names and values"
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            return "a mapping whose names are texts without ="
        if text is not None and (isinstance(text, bool) or not isinstance(text, str | int)):
            return f"a mapping of texts; put the value of {name} in quotes"
    return ""


def _port(value: object) -> str:
    is_port = _is_of(value, int) and isinstance(value, int) and value <= 65535
    return "" if is_port else "a number from 0 to 65535"


def _secret(value: object) -> str:
    if not isinstance(value, str):
        return "a text; put it in quotes"
    return "" if value.isprintable() and not value.count(" ") else "one line without blanks"


AGENT: Mapping[str, object] = {  # of every agent
    "type": str,
    "model": (str, int, float),
    "token": _secret,
    "token_file": str,
    "env": _variables,
    "executable": str,
    "preamble": bool,
}
_DEFAULTS: Mapping[str, object] = {
    "agent": str,
    "timeout": _seconds,
    "idle_timeout": _seconds,
    "max_concurrent_root_tasks": int,
    "max_concurrent_runs": int,
    "diversification": {
        "enabled": bool,
        "strategy": ("round-robin", "weighted"),
        "agents": list,
        "weights": list,
        "fallback_on_failure": bool,
    },
}
_API: Mapping[str, object] = {  # of the server
    "host": str,
    "port": _port,
    "cors_origins": list,
    "allowed_hosts": list,
    "auth_enabled": bool,
    "api_key": _secret,
    "api_key_file": str,
    "sse": {
        "poll_interval_ms": int,
        "discovery_interval_ms": int,
        "heartbeat_interval_s": int,
        "max_clients_per_run": int,
    },
}
SECTIONS: Mapping[str, object] = {
    "agents": dict,
    "defaults": _DEFAULTS,
    "prices": dict,
    "api": _API,
    "storage": {"runs_dir": str, "extra_roots": list},
    "webhook": {"url": str, "events": list, "secret": _secret, "timeout": (str, int)},
}
# What the original has and nothing here uses: accepted, so that its files can be read.
UNUSED: tuple[tuple[str, ...], ...] = (
    ("defaults", "max_concurrent_runs"),
    ("defaults", "diversification"),
    ("api", "sse", "poll_interval_ms"),
    ("api", "sse", "discovery_interval_ms"),
    ("storage", "extra_roots"),
    ("webhook",),
)


def faults(data: object) -> list[Fault]:
    """Everything that is wrong with what was read from the file."""
    if not isinstance(data, dict):
        return [((), "not a mapping; begin with `agents:`")]
    found = _key_faults(data, SECTIONS, (), "")
    for name, options in _entries(data.get("agents")).items():
        found += _agent_faults(name, options)
    default = _entries(data.get("defaults")).get("agent")
    if isinstance(default, str) and not (
        default in _entries(data.get("agents")) or _is_type(default)
    ):
        text = f"agent of defaults: {default!r} is neither an agent here nor a type"
        found.append((("defaults", "agent"), f"{text}; known: {', '.join(agents.known())}"))
    api = _entries(data.get("api"))
    if api.get("api_key") and api.get("api_key_file"):
        found.append((("api", "api_key_file"), "api has a key and a file with a key; keep one"))
    if isinstance(data.get("prices"), dict):
        from lib import prices

        found += [(("prices", *keys), text) for keys, text in prices.faults(data["prices"])]
    return found


def _entries(section: object) -> dict[object, object]:
    return section if isinstance(section, dict) else {}


def _key_faults(
    mapping: Mapping[object, object],
    kinds: Mapping[str, object],
    keys: tuple[str | int, ...],
    whose: str,
) -> list[Fault]:
    """Keys that are not among `kinds`, and values of another kind; `whose` such as " of api"."""
    found: list[Fault] = []
    for key, value in mapping.items():
        path = (*keys, key if isinstance(key, str | int) else str(key))
        kind = kinds.get(key) if isinstance(key, str) else None
        if kind is None:
            near = suggestion(str(key), [*kinds])
            known = ", ".join(sorted(kinds))
            found.append((path, f"unknown key {key!r}{whose}{near}; known: {known}"))
        elif isinstance(kind, dict) and isinstance(value, dict):
            found += _key_faults(value, kind, path, f" of {'.'.join(map(str, path))}")
        elif wanted := wrong(value, kind):
            found.append((path, f"{key}{whose} must be {wanted}"))
    return found


def wrong(value: object, kind: object) -> str:
    """What a value must be instead, in words; "" for one of that kind, and for none at all."""
    if value is None:
        return ""
    if callable(kind) and not isinstance(kind, type):
        return str(kind(value))
    kinds = kind if isinstance(kind, tuple) else (dict if isinstance(kind, dict) else kind,)
    if isinstance(kinds[0], str):
        return "" if value in kinds else f"one of: {', '.join(map(str, kinds))}"
    if any(_is_of(value, one) for one in kinds):
        return ""
    wanted = " or ".join(_WORDS[one] for one in kinds if one is not int or float not in kinds)
    return f"{wanted}; put it in quotes" if kinds == (str,) and _is_scalar(value) else wanted


_WORDS: Mapping[object, str] = {
    bool: "true or false, without quotes",
    dict: "a mapping",
    float: "a number, 0 or more",
    int: "a whole number, 0 or more",
    list: "a list of texts, such as [one, two]",
    str: "a text",
}


def _is_of(value: object, kind: object) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float or kind is int:
        return isinstance(value, int if kind is int else int | float) and 0 <= value < 1e15
    if isinstance(value, list):
        return kind is list and all(_is_item(item) for item in value)
    return isinstance(value, kind) if isinstance(kind, type) else False


def _is_item(value: object) -> bool:
    """Whether it is a word, or a list of such."""
    if isinstance(value, list):
        return all(_is_item(item) for item in value)
    return base.is_word(value)


def _is_scalar(value: object) -> bool:
    return not isinstance(value, dict | list)


def _agent_faults(name: object, options: object) -> list[Fault]:
    keys = ("agents", name if isinstance(name, str | int) else str(name))
    if not isinstance(name, str):
        return [(keys, f"agent {name!r} must be a text; put it in quotes")]
    if options is None:
        options = {}
    if not isinstance(options, dict):
        return [(keys, f"agent {name} must be a mapping of settings")]
    whose = f" of agent {name}"
    found: list[Fault] = []
    if options.get("token") and options.get("token_file"):
        found.append(((*keys, "token_file"), f"agent {name} has token and token_file; keep one"))
    kind = options.get("type") or name
    type_name = str(kind).lower()
    if not _is_type(type_name):
        known = ", ".join(agents.known())
        at = (*keys, "type") if "type" in options else keys
        found.append((at, f"agent {name} has the unknown type {kind!r}; known: {known}"))
        return found + _key_faults(_common(options), AGENT, keys, whose)
    if type_name == name and _common(options) == options:
        # Its backend has no say: not loaded, which takes as long as all the rest.
        return found + _key_faults(options, AGENT, keys, whose)
    backend = agents.load(type_name)
    if not hasattr(backend, "SETTINGS"):  # it does not tell which it knows
        return found + _key_faults(_common(options), AGENT, keys, whose)
    found += _key_faults(options, {**AGENT, **backend.SETTINGS}, keys, whose)
    return found or _refusals(backend, options, keys, name)


def _is_type(name: str) -> bool:
    return name in agents.types() or name in agents.known()  # the latter costs an import


def _common(options: Mapping[object, object]) -> dict[object, object]:
    return {key: value for key, value in options.items() if key in AGENT}


def _refusals(
    backend: ModuleType, options: Mapping[str, object], keys: tuple[str | int, ...], name: str
) -> list[Fault]:
    """What the backend itself refuses, once each setting is of its kind."""
    try:
        settings = agents.complete(options, str(options.get("type") or name).lower())
        agents.executable_name(backend, settings)
        backend.reader(settings)
    except UserError as error:
        return [(keys, f"agent {name}: {error}")]
    return []
