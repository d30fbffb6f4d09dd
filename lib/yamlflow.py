"""The reader's cursor, and what may stand inside brackets: flow collections and quotes.

The cursor walks over the text once, by offset; the block reader of
lib/yamlread.py is built on it. Raised are YamlError for what is wrong, and
Beyond for what this reader leaves to PyYAML.
"""

from __future__ import annotations

from lib.errors import UserError
from lib.yamlscalar import decode_quoted, is_marker, resolve

MAX_DEPTH = 100
MAX_KEY = 1024  # characters; YAML's own limit for a key without "? "
GAP = " \t\n\0"  # what must follow the indicators "-", "?" and ":"
NEVER_PLAIN = ",[]{}#&*!|>'\"%@`\0"
_FLOW_GAP = GAP + ",[]{}"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    Path = tuple[str | int, ...]
    Lines = dict[Path, int]


class YamlError(UserError):
    """A text that is not YAML, or not YAML that can be accepted: `source:line: problem`."""

    def __init__(self, source: str, line: int, problem: str) -> None:
        problem = " ".join(problem.split())  # quoted from a text, which may hold line breaks
        super().__init__(f"{source}:{line}: {problem}")
        self.source = source
        self.line = line
        self.problem = problem


class Beyond(Exception):  # noqa: N818 - not an error: a change of reader
    """The text is outside the subset: `construct`, on line `line`."""

    def __init__(self, line: int, construct: str) -> None:
        super().__init__(construct)
        self.line = line
        self.construct = construct


class FlowReader:
    """A cursor over one text: quoted scalars and flow collections.

    With `lines`, the line of every key and item is recorded by its path.
    """

    __slots__ = (
        "begun", "bol", "column", "depth", "lines", "pos", "row", "size", "source", "text",
    )  # fmt: skip

    def __init__(self, text: str, source: str, lines: Lines | None = None) -> None:
        self.size = len(text)
        self.text = text + "\0"  # so that looking at the next character needs no check
        self.source = source
        self.lines = lines
        self.pos = self.bol = self.depth = 0
        self.row = 1
        self.column = -1
        self.begun = False

    def fail(self, problem: str, row: int = 0) -> NoReturn:
        raise YamlError(self.source, row or self.row, problem)

    def beyond(self, construct: str) -> NoReturn:
        raise Beyond(self.row, construct)

    def fail_tab(self) -> NoReturn:
        tab = self.text.find("\t", self.pos)
        if not self.text[self.bol : tab].strip(" "):
            self.fail("tab used for indentation; use spaces")
        self.fail("tab between values; use spaces")

    def mark(self, path: Path, name: object, row: int) -> Path:
        """Record that `name` in the collection at `path` starts on `row`; return its path."""
        if self.lines is None:
            return path
        path = (*path, name if isinstance(name, str | int) else str(name))
        self.lines[path] = row
        return path

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} deep")

    def line_end(self, pos: int) -> int:
        end = self.text.find("\n", pos)
        return self.size if end < 0 else end

    def next_line(self, end: int) -> None:
        self.pos = self.bol = end + 1
        self.row += 1

    def skip_spaces(self) -> str:
        """Skip spaces in the line; return the character after them."""
        text, pos = self.text, self.pos
        while text[pos] == " ":
            pos += 1
        self.pos = pos
        return text[pos]

    def skip_comment(self) -> None:
        if self.pos > self.bol and self.text[self.pos - 1] != " ":
            self.beyond("a comment without a space before it")
        self.pos = self.line_end(self.pos)

    def add_key(self, rows: dict[object, int], key: object, row: int) -> None:
        if key in rows:
            shown = repr(key)
            shown = shown if len(shown) <= 60 else shown[:60] + "…"
            self.fail(f"duplicate key {shown} (first on line {rows[key]})", row)
        rows[key] = row

    def fail_start(self, character: str) -> NoReturn:
        if character in ",]}":
            self.fail(f"{character!r} without a list or map that it belongs to; quote it")
        self.fail(f"a value cannot start with {character!r} unless it is quoted")

    def typed(self, text: str) -> object:
        if text in ("=", "<<"):
            self.beyond(f"the special word {text!r}")
        try:
            return resolve(text)
        except ValueError:
            self.fail("a number that cannot be read; quote it if it is text")

    def look_ahead(self) -> tuple[int, int, int]:
        """From a line's end, find the next text: its offset, its line's, the breaks between."""
        text, start, breaks = self.text, self.pos, 0
        bol = start
        while text[start] == "\n":
            breaks += 1
            bol = start = start + 1
            while text[start] == " ":
                start += 1
        return start, bol, breaks

    # -- quoted scalars

    def quoted_end(self) -> int:
        """Return the offset of the quote that closes the scalar at `pos`."""
        text, quote, at = self.text, self.text[self.pos], self.pos + 1
        end = text.find(quote, at)
        while end >= 0:
            if quote == "'":
                escape = end if text[end + 1] == "'" else -1
            else:  # bounded by `end`, so that many scalars cost one pass over the text
                escape = text.find("\\", at, end)
            if escape < 0:
                return end
            at = escape + 2
            if at > end:
                end = text.find(quote, at)
        return self.fail(f"{quote} is never closed")

    def quoted(self) -> str:
        """Read the quoted scalar at `pos`; `pos` is then behind it."""
        double = self.text[self.pos] == '"'
        end = self.quoted_end()
        raw = self.text[self.pos + 1 : end]
        try:
            result = decode_quoted(raw, double=double)
        except ValueError as problem:
            self.fail(str(problem))
        self.pos = end + 1
        if breaks := raw.count("\n"):
            self.row += breaks
            self.bol = end - len(raw) + raw.rindex("\n") + 1
        return result

    # -- flow context

    def flow(self, path: Path) -> object:
        """Read the flow collection at `pos`; `pos` is then behind it."""
        self.deeper()
        opener, row = self.text[self.pos], self.row
        self.pos += 1
        result = self.flow_list(path, row) if opener == "[" else self.flow_map(path, row)
        self.pos += 1
        self.depth -= 1
        return result

    def flow_list(self, path: Path, opened: int) -> list[object]:
        items: list[object] = []
        while (character := self.flow_seek("[", opened)) != "]":
            below = self.mark(path, len(items), self.row)
            items.append(self.flow_value(character, below))
            character = self.flow_seek("[", opened)
            if character == ":":
                self.beyond("a 'key: value' pair in a list without braces")
            self.flow_comma(character, "]")
        return items

    def flow_map(self, path: Path, opened: int) -> dict[object, object]:
        result: dict[object, object] = {}
        rows: dict[object, int] = {}
        while (character := self.flow_seek("{", opened)) != "}":
            start, row = self.pos, self.row
            if character in "[{":
                self.beyond("a list or map as a key")
            key = self.flow_value(character, ())
            self.add_key(rows, key, row)
            below = self.mark(path, key, row)
            character = self.flow_seek("{", opened)
            value = None
            if character == ":":
                if self.row != row or self.pos - start > MAX_KEY:
                    self.beyond("a key that is not on the line of its colon, or too long")
                self.pos += 1
                character = self.flow_seek("{", opened)
                if character not in ",}":
                    value = self.flow_value(character, below)
                    character = self.flow_seek("{", opened)
            result[key] = value
            self.flow_comma(character, "}")
        return result

    def flow_comma(self, character: str, closer: str) -> None:
        if character == ",":
            self.pos += 1
        elif character != closer:
            self.fail(f"expected ',' or {closer!r}; quote a text that has such signs in it")

    def flow_seek(self, opener: str, opened: int) -> str:
        """Move to the next token inside brackets and return its first character."""
        while True:
            character = self.skip_spaces()
            if character == "#":
                self.skip_comment()
                character = self.text[self.pos]
            if character == "\n":
                self.next_line(self.pos)
                continue
            if character == "\t":
                self.fail_tab()
            if character == "\0" or (self.pos == self.bol and is_marker(self.text, self.pos)):
                self.fail(f"{opener} is never closed", opened)
            return character

    def flow_value(self, character: str, path: Path) -> object:
        if character in "\"'":
            return self.quoted()
        if character in "[{":
            return self.flow(path)
        following = self.text[self.pos + 1]
        if character in "&*!?:" or (character == "-" and following in GAP):
            self.beyond("an anchor, alias, tag or indicator inside brackets")
        if character in NEVER_PLAIN:
            self.fail_start(character)
        return self.flow_plain()

    def flow_plain(self) -> object:
        text = self.text
        pieces = [self.flow_piece()]
        while text[self.pos] == "\n":
            start, bol, breaks = self.look_ahead()
            if text[start] in ",[]{}?#\0\t" or is_marker(text, bol):
                break
            if text[start] == ":" and text[start + 1] in _FLOW_GAP:
                break
            self.pos, self.bol, self.row = start, bol, self.row + breaks
            pieces += ["\n" * (breaks - 1) or " ", self.flow_piece()]
        return self.typed(pieces[0]) if len(pieces) == 1 else "".join(pieces)

    def flow_piece(self) -> str:
        """Read the plain text of this line, up to a sign that means something in brackets."""
        text, start = self.text, self.pos
        pos = start
        while True:
            character = text[pos]
            if character in ",[]{}?\n\0\t" or (character == "#" and text[pos - 1] == " "):
                break
            if character == ":" and text[pos + 1] in _FLOW_GAP:
                break
            pos += 1
        if character == "?":
            self.beyond("a plain '?' inside brackets")
        self.pos = pos
        return text[start:pos].rstrip(" ")
