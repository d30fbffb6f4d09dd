"""HTML out of elements.  Text is text: there is no way to put markup in as a string.

What comes from agents, plans and file names may be anything.  So every text
and every value of an attribute is redacted, made harmless (control and
bidirectional characters become signs) and escaped here, and only tags and
attributes that this module lists can be written: none of them runs a script,
or fetches anything.
"""

from __future__ import annotations

from lib import redact

Value = str | int | float | None

VOID = frozenset(["meta"])  # without an end
LEAVES = frozenset(["rect", "line", "use", "path"])  # of SVG: closed at once
TAGS = VOID | LEAVES | frozenset([
    "html", "head", "title", "style", "body", "header", "main", "footer", "section",
    "h1", "h2", "h3", "p", "ul", "ol", "li", "div", "span", "strong", "small", "code", "a",
    "details", "summary", "table", "thead", "tbody", "tr", "th", "td",
    "svg", "symbol", "defs", "g", "text",
])  # fmt: skip
ATTRIBUTES = frozenset([
    "aria-hidden", "charset", "class", "content", "d", "height", "href", "http-equiv", "id",
    "lang", "name", "scope", "title", "viewBox", "width", "x", "x1", "x2", "y", "y1", "y2",
])  # fmt: skip


class Element:
    """A tag with its attributes and what is in it."""

    __slots__ = ("_attributes", "_children", "_tag")

    def __init__(
        self, tag: str, children: tuple[Element | str | int | None, ...], values: dict[str, Value]
    ) -> None:
        if tag not in TAGS:
            raise ValueError(f"<{tag}> is no tag of a page")
        for name, value in values.items():
            if name not in ATTRIBUTES:
                raise ValueError(f"{name} is no attribute of a page")
            if name == "href" and not str(value).startswith("#"):
                raise ValueError(f"a page leads to no other place such as {value}")
        self._tag = tag
        self._children = children
        self._attributes = values

    def write(self, out: list[str]) -> None:
        """Add the text of it, in pieces."""
        tag = self._tag
        out.append(f"<{tag}")
        for name, value in self._attributes.items():
            if value is not None:
                out.append(f' {name}="{_quoted(value)}"')
        if tag in LEAVES:
            out.append("/>")
            return
        out.append(">")
        if tag in VOID:
            return
        for child in self._children:
            if isinstance(child, Element):
                child.write(out)
            elif child is not None:
                out.append(_style(str(child)) if tag == "style" else escape(str(child)))
        out.append(f"</{tag}>")


def element(tag: str, *children: Element | str | int | None, **attributes: Value) -> Element:
    """An element; `class_` stands for `class`, `aria_label` for `aria-label`.

    None as a child or as a value of an attribute is left out.
    """
    values = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    return Element(tag, children, values)


def document(*children: Element) -> bytes:
    """A whole page of a head and a body."""
    root = element("html", *children, lang="en")
    out = ["<!doctype html>\n"]
    root.write(out)
    return ("".join(out) + "\n").encode("utf-8", "replace")


def escape(text: str) -> str:
    """Text as it stands in a page: redacted, harmless, escaped."""
    if len(text) >= redact.MIN_TOKEN:
        text = redact.text(text)
    text = redact.for_terminal(text)
    if "<" in text or "&" in text or ">" in text:
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text


def _quoted(value: str | int | float) -> str:
    if not isinstance(value, str):
        return f"{value:g}"
    return escape(value).replace('"', "&quot;").replace("\n", "&#10;")


def _style(text: str) -> str:
    """A style sheet of ours, as it is: nothing in it may end it, or lead out of the page."""
    if "<" in text or "url(" in text or "@import" in text:
        raise ValueError("a style sheet of a page holds neither markup nor addresses")
    return text
