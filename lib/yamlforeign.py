"""YAML beyond the small reader, through PyYAML, which is imported only here.

Held to the promises of lib/yamlio.py: times stay strings, a repeated key is
an error, every error is one line with its place, and no text, however it
plays with aliases or nesting, costs more than its size warrants.
"""

from __future__ import annotations

from lib import packages
from lib.errors import UserError
from lib.yamlflow import MAX_DEPTH, YamlError
from lib.yamlscalar import join_surrogates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lib.yamlflow import Lines, Path

FOREIGN_LIMIT = 1_000_000  # characters; PyYAML reads some 100,000 a second
_REPEAT_LIMIT = 100_000  # values that aliases may add to a text


def load(text: str, source: str, lines: Lines | None, reason: tuple[int, str]) -> object:
    """Return the value of `text`; `reason` is the line and the construct that need PyYAML.

    Raises YamlError, and UserError where PyYAML is missing.
    """
    line, construct = reason
    yaml = packages.load("yaml")
    if yaml is None:
        raise UserError(
            f"{source}:{line}: {construct} needs PyYAML; install it (python3 -m pip install"
            " PyYAML) or write it more simply"
        )
    if len(text) > FOREIGN_LIMIT:
        problem = f"{construct} in a text of more than {FOREIGN_LIMIT} characters; write it simply"
        raise YamlError(source, line, problem)
    try:
        loader = _loader_class(yaml)(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Survey(loader, source, {} if lines is None else lines).visit(node, (), 1)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise _translate(error, source, line) from None
    except RecursionError:
        raise YamlError(source, line, f"nested more than {MAX_DEPTH} deep") from None
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        # What the constructors of PyYAML let through, such as `!!bool maybe`.
        raise YamlError(source, line, f"a value that does not fit its type ({error})") from None


def _loader_class(yaml: Any) -> Any:
    """Return PyYAML's safe loader, with plain scalars typed as lib/yamlread.py does."""
    prefix = "tag:yaml.org,2002:"

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def resolve(self, kind: object, value: Any, implicit: Any) -> Any:
            tag = super().resolve(kind, value, implicit)
            plain = kind is yaml.ScalarNode and implicit[0]
            base_60 = plain and ":" in value
            return prefix + "str" if base_60 or tag == prefix + "timestamp" else tag

        def construct_scalar(self, node: Any) -> Any:
            value = super().construct_scalar(node)
            return join_surrogates(value) if isinstance(value, str) else value

    Loader.add_constructor(prefix + "timestamp", yaml.SafeLoader.construct_yaml_str)
    return Loader


class _Survey:
    """Walks the nodes before they become values: lines, repeated keys, size, depth."""

    def __init__(self, loader: Any, source: str, lines: Lines) -> None:
        self.loader = loader
        self.source = source
        self.lines = lines
        self.seen: set[int] = set()
        self.repeats = 0

    def visit(self, node: Any, path: Path, depth: int) -> None:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if depth > MAX_DEPTH:
            self.fail(node, f"nested more than {MAX_DEPTH} deep")
        if id(node) in self.seen:
            self.repeats += 1
            if self.repeats > _REPEAT_LIMIT:
                self.fail(node, f"aliases repeat more than {_REPEAT_LIMIT} values")
        self.seen.add(id(node))
        if node.id == "sequence":
            for number, item in enumerate(node.value):
                self.visit(item, (*path, number), depth + 1)
        elif node.id == "mapping":
            self.visit_map(node, path, depth)

    def visit_map(self, node: Any, path: Path, depth: int) -> None:
        rows: dict[object, int] = {}
        merged: Any = None
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                # More than one would also cost PyYAML quadratic time.
                if merged is not None:
                    self.fail(key_node, "duplicate key '<<'; merge a list of maps instead")
                merged = value_node
            elif key_node.id == "scalar":
                if key_node.tag == "tag:yaml.org,2002:value":  # a plain "=", to PyYAML a text
                    key_node.tag = "tag:yaml.org,2002:str"
                key = self.loader.construct_object(key_node, deep=True)
                row = key_node.start_mark.line + 1
                if key in rows:
                    self.fail(key_node, f"duplicate key {key!r} (first on line {rows[key]})")
                rows[key] = row
                below = (*path, key if isinstance(key, str | int) else str(key))
                self.lines.setdefault(below, row)
                self.visit(value_node, below, depth + 1)
            else:
                self.fail(key_node, "a list or map as a key; use a text")
        # Last, so that a key of the map itself keeps its own line.
        if merged is not None:
            for node_of_keys in merged.value if merged.id == "sequence" else [merged]:
                self.visit(node_of_keys, path, depth + 1)

    def fail(self, node: Any, problem: str) -> None:
        raise YamlError(self.source, node.start_mark.line + 1, problem)


def _translate(error: Any, source: str, line: int) -> YamlError:
    """Return an error of PyYAML's as ours, on one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        line = mark.line + 1
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    if problem == "but found another document":
        problem = "a second document begins here; keep one"
    return YamlError(source, line, problem)
