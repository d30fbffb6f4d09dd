"""YAML in and out: what the toolkit writes, and what it reads.

Written is a subset whose scalars and inline collections are JSON, one
`key: value` a line: valid for PyYAML and for Go's yaml.v3, and cheap to make.
Read is, in this order: that subset (`load_flat`), the YAML people write
(lib/yamlread.py), and through PyYAML all the rest. Whichever of them reads a
text, the result is the same.
"""

from __future__ import annotations

from lib.errors import UserError
from lib.yamlflow import MAX_DEPTH, MAX_KEY, Beyond, FlowReader, YamlError
from lib.yamlscalar import join_surrogates, odd_characters, resolve

__all__ = [
    "YamlError", "dump", "load", "load_flat", "load_foreign", "load_mapping", "quote", "scalar",
]  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lib.yamlflow import Lines

_JSON_WORDS = {"null": None, "true": True, "false": False}
_NOT_PLAIN_KEYS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])
_YAML_1_1_ONLY = frozenset("\x85\u2028\u2029\ufeff")  # line breaks there, text in YAML 1.2
_escapes: dict[int, str] = {}
_plain_keys: set[str] = set()  # some that were found so: the same ones are written all the time


# -- writing


def quote(text: str) -> str:
    """Return `text` as a double-quoted scalar that JSON and YAML read alike, on one line.

    What is not ASCII stays as it is, but for the characters that YAML readers
    refuse or take for line breaks. A lone surrogate becomes U+FFFD.
    """
    if text.isprintable() and '"' not in text and "\\" not in text:
        return '"' + text + '"'  # an f-string would show the name of an enum's member
    return '"' + join_surrogates(text).translate(_escapes or _fill_escapes()) + '"'


def _fill_escapes() -> dict[int, str]:
    codes = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF]
    table = {code: f"\\u{code:04X}" for code in codes}
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
    _escapes.update(table | {ord(key): text for key, text in short.items()})
    return _escapes


def scalar(value: object) -> str:
    """Return what stands behind `key: `, on one line: JSON (for inf and nan, YAML's words)."""
    if type(value) is str:
        return quote(value)
    return _inline(value, 1)


def _inline(value: object, depth: int) -> str:
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _float_text(value)
    if depth >= MAX_DEPTH:
        raise UserError(f"yaml: a value nested more than {MAX_DEPTH} deep; make it flatter")
    if isinstance(value, dict):
        pairs = [
            f"{_key_text(key, plain=False)}: {_inline(item, depth + 1)}"
            for key, item in value.items()
        ]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join([_inline(item, depth + 1) for item in value]) + "]"
    raise TypeError(f"yaml: no form for a value of type {type(value).__name__}")


def _float_text(value: float) -> str:
    text = float.__repr__(value)
    if text in ("inf", "-inf", "nan"):
        return text.replace("inf", ".inf").replace("nan", ".nan")
    # YAML 1.1 takes 1e-07 for a word, since it has no point.
    return text if "." in text else text.replace("e", ".0e")


def _key_text(key: object, *, plain: bool) -> str:
    if not isinstance(key, str):
        if isinstance(key, dict | list | tuple):
            raise TypeError("yaml: a key must be a scalar")
        return _inline(key, 1)
    is_plain = plain and _is_plain_key(key)
    text = key if is_plain else quote(key)
    if len(text) > MAX_KEY:
        raise UserError(f"yaml: a key of {len(text)} characters; YAML allows {MAX_KEY}")
    if is_plain and len(_plain_keys) < 200:
        _plain_keys.add(key)
    return text


def _is_plain_key(key: str) -> bool:
    """Say whether `key` needs no quotes in YAML 1.1 and 1.2."""
    return (
        (key.isidentifier() or key.replace("-", "a").replace(".", "a").isidentifier())
        and key[0] not in "-."
        and key.isascii()
        and key.lower() not in _NOT_PLAIN_KEYS
    )


def dump(mapping: Mapping[Any, object], *, depth: int = 1) -> str:
    """Return `mapping` as a YAML document, one key a line, in its own order.

    At depth 1 collections stand inline behind their key; every further depth
    writes one more level as indented lines.
    """
    if not mapping:
        return "{}\n"
    lines: list[str] = []
    _write_map(lines, mapping, depth, "", "")
    lines.append("")
    return "\n".join(lines)


def _write_map(
    lines: list[str], mapping: Mapping[Any, object], depth: int, first: str, indent: str
) -> None:
    """Append a line for each key; `first` stands before the first, `indent` before others."""
    lead = first
    for key, value in mapping.items():
        name = key if key in _plain_keys else _key_text(key, plain=True)
        if type(value) is str:
            lines.append(lead + name + ": " + quote(value))
        elif depth > 1 and value and isinstance(value, dict):
            lines.append(lead + name + ":")
            _write_map(lines, value, depth - 1, indent + "  ", indent + "  ")
        elif depth > 1 and value and isinstance(value, list | tuple):
            lines.append(lead + name + ":")
            for item in value:
                _write_item(lines, item, depth - 1, indent + "  ")
        else:
            lines.append(lead + name + ": " + scalar(value))
        lead = indent


def _write_item(lines: list[str], item: object, depth: int, indent: str) -> None:
    if depth > 1 and item and isinstance(item, dict):
        _write_map(lines, item, depth - 1, f"{indent}- ", f"{indent}  ")
    else:
        lines.append(f"{indent}- {scalar(item)}")


# -- reading


def load(text: str, *, source: str = "yaml", lines: Lines | None = None) -> object:
    """Return the value of the one YAML document in `text`; None where it is empty.

    `lines`, if given, gets the 1-based line of every key and item by its path,
    such as ("stages", 0, "id"). Raises YamlError, naming `source` and the
    line, and UserError where the text needs PyYAML and it is missing.
    """
    if lines is None and (flat := load_flat(text)) is not None:
        return flat
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found: Lines | None = None if lines is None else {}
    from lib.yamlread import Reader  # what run-agent.py writes and reads does not need it

    try:
        refuse_characters(text, source)
        value = Reader(text, source, found).document()
    except Beyond as beyond:
        return load_foreign(text, source, lines=lines, reason=(beyond.line, beyond.construct))
    if lines is not None and found is not None:
        lines.update(found)
    return value


def load_mapping(text: str, *, source: str) -> dict[str, object]:
    """Return the mapping that `text` holds; raises YamlError where it holds anything else."""
    value = load(text, source=source)
    if not isinstance(value, dict):
        raise YamlError(source, 1, "expected 'key: value' lines at the top of the file")
    for key in value:
        if not isinstance(key, str):
            problem = f"the key {key!r} is not a text; put it in quotes"
            raise YamlError(source, _line_of_key(text, key), problem)
    return value


def _line_of_key(text: str, key: object) -> int:
    lines: Lines = {}
    load(text, lines=lines)
    return lines.get((key if isinstance(key, int) else str(key),), 1)


def refuse_characters(text: str, source: str) -> None:
    """Raise YamlError at the first character that YAML does not allow.

    Raises Beyond for the line breaks that only YAML 1.1 knows.
    """
    odd = odd_characters(text)
    if not odd:
        return
    kinds = set(odd).difference(_YAML_1_1_ONLY) or set(odd)
    place = next(place for place, character in enumerate(text) if character in kinds)
    line, name = text.count("\n", 0, place) + 1, f"U+{ord(text[place]):04X}"
    if kinds.issubset(_YAML_1_1_ONLY):
        raise Beyond(line, f"the character {name}")
    problem = f"character {name} is not allowed; write it as an escape in quotes"
    raise YamlError(source, line, problem)


def load_flat(text: str) -> dict[str, object] | None:
    """Return the mapping in a text of `key: value` lines, quickly; None for any other text.

    Meant for what `dump` writes at depth 1; the plain values of other writers
    are read too, where no doubt is possible.
    """
    if odd_characters(text) or "\t" in text:
        return None
    result: dict[str, object] = {}
    rows = text.split("\n")
    if not rows[-1]:
        rows.pop()
    for row in rows:
        key, colon, value = row.partition(": ")
        if not colon or key in result:
            return None
        if key not in _plain_keys:
            if not _is_plain_key(key) or len(key) > MAX_KEY:
                return None
            if len(_plain_keys) < 200:
                _plain_keys.add(key)
        first = value[:1]
        if first == '"' and value[-1] == '"' and "\\" not in value and value.count('"') == 2:
            result[key] = value[1:-1]
        elif value.isdigit() and value.isascii() and first != "0" and len(value) < 20:
            result[key] = int(value)
        else:
            try:
                result[key] = _flat_value(value)
            except (Beyond, YamlError, ValueError):
                return None
    return result or None


def _flat_value(value: str) -> object:
    """Return the value behind a key; raises Beyond, YamlError or ValueError where in doubt."""
    if value in _JSON_WORDS:
        return _JSON_WORDS[value]
    first = value[:1]
    if first and first in "\"'[{":
        reader = FlowReader(value, "")
        reader.depth = 1  # the mapping around it
        result: object = reader.quoted() if first in "\"'" else reader.flow(())
        if reader.pos != len(value):
            raise Beyond(1, "text behind a value")
        return result
    if not first.isalnum() and first not in ("/", "-", "_", "."):
        raise Beyond(1, "an indicator")
    if value[:2] in ("-", "- ") or value[-1] in " :" or ": " in value or " #" in value:
        raise Beyond(1, "more than a plain value")
    return resolve(value)


def load_foreign(
    text: str,
    source: str,
    *,
    lines: Lines | None = None,
    reason: tuple[int, str] = (1, "this file"),
) -> object:
    """Read with PyYAML, under the promises of `load`; `reason` is the line and what needs it."""
    from lib import yamlforeign

    return yamlforeign.load(text, source, lines, reason)
