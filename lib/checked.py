"""Data out of a YAML file, checked once at the border, with every fault collected.

`Faults` knows the line of each value and gathers all that is wrong; `Section`
is one mapping of the file, whose readers return a value of the right type or
note a fault and return the default, so that checking goes on to the end.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping

Place = tuple[str | int, ...]  # the keys and indices that lead to a value, from the top

LONGEST_SECONDS = 366 * 86400.0
_MOST_SUGGESTIONS = 20  # each one compares with every known name: too slow for thousands
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh]?)")
_FACTORS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def shown(text: str, longest: int = 1000) -> str:
    """`text` on one line, without control characters, fit for a message."""
    plain = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in text[: longest + 1]
    )
    return plain if len(plain) <= longest else plain[:longest] + "…"


def describe(value: object) -> str:
    """What a value of a YAML file is, in the words of its author; never long."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return shown(value, 60) or "an empty text"
        case float():
            return f"{value:g}"
        case int():
            return str(value) if abs(value) < 10**18 else "a huge number"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"


def seconds_of(value: object) -> float | None:
    """Seconds of `90`, `1.5`, "90s", "15m", "2h"; None for anything else, or beyond a year."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if 0 <= value <= LONGEST_SECONDS else None
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    seconds = float(match[1]) * _FACTORS[match[2]]
    return seconds if math.isfinite(seconds) and seconds <= LONGEST_SECONDS else None


def is_storable(text: str) -> bool:
    """True for text that a file name, a process and a UTF-8 file can all hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, from an escape in the YAML
        return False
    return "\0" not in text


class Faults:
    """What is wrong in one file; each fault as `file:line: what; cure`."""

    def __init__(self, source: str, lines: Mapping[Place, int]) -> None:
        self.source = source
        self._lines = lines
        self._found: list[tuple[int, str]] = []
        self._suggestions = 0

    def line(self, place: Place) -> int:
        """The line of a value, or of the nearest one around it."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)

    def add(self, place: Place, what: str) -> None:
        line = self.line(place)
        self._found.append((line, f"{shown(self.source)}:{line}: {what}"))

    def add_elsewhere(self, place: Place, source: str, line: int, what: str) -> None:
        """A fault in another file that the value at `place` names."""
        self._found.append((self.line(place), f"{shown(source)}:{line}: {what}"))

    def suggestion(self, word: str, known: Collection[str], otherwise: str) -> str:
        """`did you mean NAME?` for a misspelt word, else `otherwise`."""
        if self._suggestions < _MOST_SUGGESTIONS:
            self._suggestions += 1
            near = difflib.get_close_matches(word[:200], known, 1)
            if near:
                return f"did you mean {near[0]}?"
        return otherwise

    def texts(self) -> list[str]:
        """Every fault, in the order of the lines."""
        return [text for _, text in sorted(self._found, key=lambda fault: fault[0])]


class Section:
    """One mapping of the file; `name` is what messages call it."""

    def __init__(
        self, faults: Faults, place: Place, data: object, name: str, keys: Iterable[str] | None
    ) -> None:
        self.faults = faults
        self.place = place
        self.name = name
        self.data: dict[str, object] = {}
        self._is_mapping = data is None or isinstance(data, Mapping)
        if isinstance(data, Mapping):
            self._take(data, None if keys is None else list(keys))
        elif data is not None:
            faults.add(place, f"{name} must be a mapping (key: value), not {describe(data)}")

    def _take(self, data: Mapping[object, object], keys: list[str] | None) -> None:
        for key, value in data.items():
            if not isinstance(key, str):
                self.fault(key, f"the key {describe(key)} must be text; put it in quotes")
            elif keys is not None and key not in keys:
                known = f"known here: {', '.join(keys)}"
                cure = self.faults.suggestion(key, keys, known)
                self.fault(key, f"unknown key {shown(key, 60)}; {cure}")
            else:
                self.data[key] = value

    def fault(self, key: object, what: str) -> None:
        """Note a fault of one key; without that key in the file, of the section's first line."""
        step = key if isinstance(key, str | int) else str(key)
        self.faults.add((*self.place, step), f"{self.name}: {what}")

    def has(self, key: str) -> bool:
        return key in self.data

    def is_empty(self, key: str) -> bool:
        """True where a list is absent or empty; not where more than that is wrong."""
        return self._is_mapping and self.data.get(key) in (None, [])

    def text(self, key: str) -> str | None:
        """The text under `key`, never blank; None when it is absent or wrong."""
        if key not in self.data:
            return None
        return self.checked_text((key,), key, self.data[key])

    def checked_text(
        self, place: Place, name: str, value: object, *, blank: bool = False
    ) -> str | None:
        """`value` when it is text (not blank, unless allowed); else a fault and None."""
        wrong = None
        if isinstance(value, int | float):
            wrong = f"must be text, not {describe(value)}; put it in quotes"
        elif not isinstance(value, str):
            wrong = f"must be text, not {describe(value)}"
        elif not is_storable(value):
            wrong = "holds a NUL or half a surrogate pair; remove that character"
        elif not blank and not value.strip():
            wrong = "is empty; fill it in, or remove the key"
        else:
            return value
        self.faults.add((*self.place, *place), f"{self.name}: {name} {wrong}")
        return None

    def flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if isinstance(value, bool):
            return value
        self.fault(key, f"{key} must be true or false, not {describe(value)}")
        return default

    def number(self, key: str, default: int, least: int, most: int) -> int:
        value = self.data.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.fault(
            key, f"{key} must be a whole number from {least} to {most}, not {describe(value)}"
        )
        return default

    def seconds(self, key: str, default: float) -> float:
        value = self.data.get(key, default)
        seconds = seconds_of(value)
        if seconds is None:
            self.fault(
                key,
                f"{key} is no duration: {describe(value)}; "
                "write seconds or a time such as 90s, 15m, 1.5h",
            )
        return default if seconds is None else seconds

    def items(self, key: str) -> list[object]:
        """The list under `key`; empty when it is absent, empty or wrong."""
        value = self.data.get(key)
        if isinstance(value, list):
            return value
        if value is not None:
            item = describe(value) if isinstance(value, str) else "…"
            self.fault(key, f"{key} must be a list, not {describe(value)}; write {key}: [{item}]")
        return []

    def texts_at(self, key: str) -> list[tuple[Place, str]]:
        """The non-blank texts of the list under `key`, with their places; others are faults."""
        found = []
        for index, item in enumerate(self.items(key)):
            text = self.checked_text((key, index), f"{key}[{index}]", item)
            if text is not None:
                found.append(((*self.place, key, index), text))
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """The non-blank texts of the list under `key`; others are faults and left out."""
        return tuple(text for _, text in self.texts_at(key))

    def section(self, key: str, name: str, keys: Iterable[str] | None) -> Section:
        return Section(self.faults, (*self.place, key), self.data.get(key), name, keys)

    def settings(self, key: str, names: re.Pattern[str], example: str) -> dict[str, str]:
        """The mapping of names to texts under `key`; a text may be empty here."""
        part = self.section(key, f"{self.name}: {key}", None)
        found: dict[str, str] = {}
        for name, value in part.data.items():
            if not names.fullmatch(name):
                part.fault(name, f"{describe(name)} is no usable name; write it like {example}")
            text = part.checked_text((name,), shown(name, 60), value, blank=True)
            if text is not None:
                found[name] = text
        return found
