"""A reader for the YAML that people and programs really write; no package needed.

It covers block maps and lists, plain and quoted scalars, `|` and `>` blocks,
flow collections and comments. The promise: whatever it accepts, it reads as
PyYAML's safe_load does, except that times and base-60 numbers stay strings,
escaped surrogate pairs are joined, and a repeated key is an error. Where the
outcome is in doubt it raises Beyond, and PyYAML decides.
"""

from __future__ import annotations

from lib.yamlflow import GAP, MAX_KEY, NEVER_PLAIN, FlowReader
from lib.yamlscalar import is_marker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from lib.yamlflow import Path


class Reader(FlowReader):
    """Reads one text; `document()` returns its value.

    Every method that reads a node leaves `pos` at the next token and `column`
    at its column (-1: end of text).
    """

    __slots__ = ()

    def seek(self) -> int:
        """Move to the next token of block context; return and keep its column."""
        while True:
            character = self.skip_spaces()
            if character == "#":
                self.skip_comment()
                character = self.text[self.pos]
            if character == "\0":
                self.column = -1
                return -1
            if character == "\n":
                self.next_line(self.pos)
                continue
            if character == "\t":
                self.fail_tab()
            if self.pos != self.bol or not self.at_boundary():
                self.column = self.pos - self.bol
                return self.column

    def at_boundary(self) -> bool:
        """Pass a leading `---`; any other boundary of a document is refused."""
        if self.text[self.pos] == "%":
            self.beyond("a directive (a line that starts with %)")
        if not is_marker(self.text, self.pos):
            return False
        if self.text[self.pos] == ".":
            self.beyond("the end marker '...'")
        if self.begun:
            self.fail("a second document begins here; keep one")
        self.begun = True
        self.pos += 3
        if self.skip_spaces() not in "\n#\0":
            self.beyond("a value on the line of '---'")
        return True

    # -- block context

    def document(self) -> object:
        """Return the value of the whole text; None where it holds none."""
        column = self.seek()
        if column < 0:
            return None
        self.begun = True
        if self.lines is not None:
            self.lines[()] = self.row
        value = self.block_node(column, -1, ())
        if self.column >= 0:
            self.refuse("unexpected text; is its indentation right?")
        return value

    def block_node(self, column: int, indent: int, path: Path) -> object:
        """Read the node at `pos`, which may be a map; scalars are bounded by `indent`."""
        character = self.text[self.pos]
        gap = self.text[self.pos + 1] in GAP
        if character == "-" and gap:
            return self.block_list(column, path)
        quoted = character in "\"'"
        plain = character not in NEVER_PLAIN and not (gap and character in "?:")
        if (quoted or plain) and self.find_colon() >= 0:
            return self.block_map(column, path)
        return self.value(indent, path)

    def block_list(self, column: int, path: Path) -> list[object]:
        self.deeper()
        items: list[object] = []
        while True:
            below = self.mark(path, len(items), self.row)
            self.pos += 1
            if self.skip_spaces() in "\n#\0":
                nested = self.seek()
                items.append(self.block_node(nested, column, below) if nested > column else None)
            else:
                self.seek()
                items.append(self.block_node(self.column, column, below))
            if self.column != column or not self.at_dash():
                break
        self.check_dedent(column)
        return items

    def at_dash(self) -> bool:
        return self.text[self.pos] == "-" and self.text[self.pos + 1] in GAP

    def check_dedent(self, column: int) -> None:
        self.depth -= 1
        if self.column > column:
            self.refuse("indented deeper than what it follows; line it up")

    def refuse(self, problem: str) -> NoReturn:
        if self.text[self.pos] in "|>":
            self.beyond("a block that begins at the column of its parent")
        self.fail(problem)

    def block_map(self, column: int, path: Path) -> dict[object, object]:
        self.deeper()
        result: dict[object, object] = {}
        rows: dict[object, int] = {}
        while True:
            row = self.row
            key = self.block_key()
            self.add_key(rows, key, row)
            result[key] = self.map_value(column, self.mark(path, key, row))
            if self.column != column:
                break
        self.check_dedent(column)
        return result

    def block_key(self) -> object:
        """Read a key and its colon."""
        text, start = self.text, self.pos
        character, gap = text[start], text[start + 1] in GAP
        if character in "&*!?:[{" and (gap or character not in "?:"):
            self.beyond("an anchor, alias, tag or collection as a key")
        if character == "-" and gap:
            self.fail("a list item where 'key: value' is expected; check the indentation")
        if character in NEVER_PLAIN and character not in "\"'":
            self.refuse(f"{character!r} cannot start a key; quote it")
        colon = self.find_colon()
        if colon < 0:
            self.fail("expected 'key: value'")
        if character in "\"'":
            key: object = self.quoted()
        else:
            if "\t" in text[start:colon]:
                self.fail_tab()
            key = self.typed(text[start:colon].rstrip(" "))
        self.pos = colon + 1
        return key

    def find_colon(self) -> int:
        """Return the offset of the colon that makes the text at `pos` a key, or -1."""
        text, start = self.text, self.pos
        if text[start] in "\"'":
            colon = self.quoted_end()
            if text.find("\n", start, colon) >= 0:
                return -1
            colon += 1
            while text[colon] == " ":
                colon += 1
            if text[colon] != ":" or text[colon + 1] not in GAP:
                return -1
        else:
            end = self.line_end(start)
            colon = text.find(":", start, end)
            while colon >= 0 and text[colon + 1] not in GAP:
                colon = text.find(":", colon + 1, end)
            if colon < 0 or text.find(" #", start, colon) >= 0:
                return -1
        if colon - start > MAX_KEY:
            self.fail(f"a key of more than {MAX_KEY} characters; shorten it")
        return colon

    def map_value(self, indent: int, path: Path) -> object:
        if self.skip_spaces() not in "\n#\0":
            if self.at_dash():
                self.fail("a list cannot begin on the line of its key; put it on the next")
            return self.value(indent, path)
        column = self.seek()
        if column > indent:
            return self.block_node(column, indent, path)
        if column == indent and self.at_dash():
            return self.block_list(column, path)
        return None

    def value(self, indent: int, path: Path) -> object:
        """Read a scalar or a flow collection, and what remains of its line."""
        character, gap = self.text[self.pos], self.text[self.pos + 1] in GAP
        result: object
        if character in "|>":
            return self.block_scalar(indent)
        if character in "\"'":
            result = self.quoted()
        elif character in "[{":
            result = self.flow(path)
        elif character in "&*!" or (gap and character in "?:"):
            self.beyond(
                {"&": "an anchor", "*": "an alias", "!": "a tag"}.get(character, "a '? ' key")
            )
        elif character in NEVER_PLAIN:
            self.fail_start(character)
        else:
            result = self.plain(indent)
        self.end_line(flow=character in "[{")
        self.seek()
        return result

    def end_line(self, *, flow: bool) -> None:
        """See to it that nothing but a comment follows in the line."""
        character = self.skip_spaces()
        if character in "\n\0#":
            return
        if character == "\t":
            self.fail_tab()
        if character != ":":
            self.fail("unexpected text after the value; quote the whole value or drop the rest")
        if flow:
            self.beyond("a list or map as a key")
        self.fail_nested_key()

    def fail_nested_key(self) -> NoReturn:
        self.fail("a second ': ' in one value; quote the value, or indent the lines of a map alike")

    def plain(self, indent: int) -> object:
        """Read a plain scalar; lines indented deeper than `indent` continue it."""
        text = self.text
        piece, ended = self.plain_piece()
        pieces = [piece]
        while not ended and text[self.pos] == "\n":
            start, bol, breaks = self.look_ahead()
            if text[start] in "#\0\t" or start - bol <= indent or is_marker(text, bol):
                break
            self.pos, self.bol, self.row = start, bol, self.row + breaks
            piece, ended = self.plain_piece()
            pieces += ["\n" * (breaks - 1) or " ", piece]
        return self.typed(piece) if len(pieces) == 1 else "".join(pieces)

    def plain_piece(self) -> tuple[str, bool]:
        """Read the plain text of this line; true where a comment ends the scalar."""
        text, start = self.text, self.pos
        end = self.line_end(start)
        comment = text.find(" #", start, end)
        piece = text[start : end if comment < 0 else comment].rstrip(" ")
        if "\t" in piece:
            self.fail_tab()
        if ": " in piece or piece[-1:] == ":":
            self.fail_nested_key()
        self.pos = start + len(piece) if comment >= 0 else end
        return piece, comment >= 0

    # -- block scalars

    def block_scalar(self, indent: int) -> str:
        """Read a `|` or `>` block whose parent stands at `indent`."""
        folded = self.text[self.pos] == ">"
        chomping, extra = self.block_header()
        width = max(indent + 1, 1)
        width = width + extra - 1 if extra else max(width, self.widest_lead())
        pieces: list[str] = []
        breaks, line_break, lead = self.block_breaks(width), "", True
        while (row := self.block_row(width)) is not None:
            if line_break:
                if not folded or lead or row[0] in " \t":
                    pieces.append(line_break)
                elif not breaks:
                    pieces.append(" ")
            pieces += ["\n" * breaks, row]
            lead = row[0] in " \t"
            line_break = self.take_break()
            breaks = self.block_breaks(width)
        if chomping != "-":
            pieces.append(line_break)
        if chomping == "+":
            pieces.append("\n" * breaks)
        self.seek()
        return "".join(pieces)

    def block_header(self) -> tuple[str, int]:
        """Read `|` or `>`, its indicators and comment; return chomping and indentation."""
        text, start = self.text, self.pos + 1
        end = start
        while text[end] in "+-123456789" and end < start + 2:
            end += 1
        indicators = text[start:end]
        chomping = indicators.strip("123456789")
        extra = indicators.strip("+-")
        self.pos = end
        if len(chomping) > 1 or len(extra) > 1 or text[end] not in " \n\0":
            self.fail("after '|' or '>' only + or -, one digit and a comment may follow")
        if self.skip_spaces() not in "#\n\0":
            self.fail("the text of a block begins on the line after '|' or '>'")
        self.pos = self.line_end(self.pos)
        self.take_break()
        return chomping, int(extra or 0)

    def take_break(self) -> str:
        """Pass the line break at `pos`, if the text does not end here, and return it."""
        if self.pos >= self.size:
            return ""
        self.next_line(self.pos)
        return "\n"

    def widest_lead(self) -> int:
        """Return the greatest number of leading spaces up to the first line with text."""
        text, widest, pos = self.text, 0, self.pos
        while True:
            bol = pos
            while text[pos] == " ":
                pos += 1
            widest = max(widest, pos - bol)
            if text[pos] != "\n":
                return widest
            pos += 1

    def block_breaks(self, width: int) -> int:
        """Pass the lines that are empty for a block of this width; return their number."""
        breaks = 0
        while True:
            end = self.line_end(self.pos)
            if end >= self.size or end - self.pos > width or self.text[self.pos : end].strip(" "):
                return breaks
            breaks += 1
            self.next_line(end)

    def block_row(self, width: int) -> str | None:
        """Return the text of this line behind its indentation; None where the block ends."""
        end = self.line_end(self.pos)
        begin = self.pos + width
        if begin >= end or self.text[self.pos : begin].strip(" "):
            return None
        self.pos = end
        return self.text[begin:end]
