"""Scalars of YAML as text: what a plain one means, how a quoted one is unfolded.

Pure functions below the reader. They read as PyYAML does, whose rules are
those of YAML 1.1, except that times and base-60 numbers stay strings.
"""

from __future__ import annotations

WORDS: dict[str, object] = {"": None, "~": None}
for _value, _names in ((None, "null"), (True, "true yes on"), (False, "false no off")):
    for _name in _names.split():
        WORDS[_name] = WORDS[_name.upper()] = WORDS[_name.capitalize()] = _value

_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "\t": "\t", "n": "\n", "v": "\v", "f": "\f",
    "r": "\r", "e": "\x1b", " ": " ", '"': '"', "\\": "\\", "/": "/", "N": "\x85",
    "_": "\xa0", "L": "\u2028", "P": "\u2029",
}  # fmt: skip
_ESCAPE_DIGITS = {"x": 2, "u": 4, "U": 8}
_MAX_DIGITS = 3000  # any base up to 16; Python itself stops at 4300 decimal digits
_HEX = frozenset("0123456789abcdefABCDEF")


def resolve(text: str) -> object:
    """Return the value of a plain scalar by the rules of YAML 1.1, as PyYAML has them.

    Raises ValueError for what looks like a number and cannot be one.
    """
    if text[:1] in "+-.0123456789" and text:
        return _number(text)
    return WORDS.get(text, text)


def _number(text: str) -> object:
    digits = text[1:] if text[0] in "+-" else text
    if digits.isdigit() and digits.isascii() and (digits[0] != "0" or digits == "0"):
        return int(text)
    if not digits or ":" in digits:
        return text
    if "." in digits:
        return _float(text, digits)
    if digits[0] == "0" and len(digits) > 1:
        return _based_integer(text, digits)
    # The first character decides: _1 is a word, 1_ and 1_000 are numbers.
    if digits[0] in "123456789" and not digits.strip("0123456789_"):
        return int(text.replace("_", ""))
    return text


def _based_integer(text: str, digits: str) -> object:
    allowed, base, body = "01234567_", 8, digits
    if digits[1] == "x":
        allowed, base, body = "0123456789abcdefABCDEF_", 16, digits[2:]
    elif digits[1] == "b":
        allowed, base, body = "01_", 2, digits[2:]
    if not body or body.strip(allowed):
        return text
    if len(body) > _MAX_DIGITS:
        raise ValueError("too long for Python to show as a decimal")
    number = int(body.replace("_", ""), base)
    return -number if text[0] == "-" else number


def _float(text: str, digits: str) -> object:
    if digits in (".inf", ".Inf", ".INF"):
        return float("-inf") if text[0] == "-" else float("inf")
    if text in (".nan", ".NaN", ".NAN"):
        return float("nan")
    mantissa, mark, exponent = digits.replace("E", "e").partition("e")
    if mark and (exponent[:1] not in ("+", "-") or not _all_digits(exponent[1:])):
        return text
    whole, _, fraction = mantissa.partition(".")
    if whole:
        numeric = whole[0] != "_" and not whole.strip("0123456789_")
    else:  # PyYAML takes .5 as a number, and -.5 as a word
        numeric = digits is text and fraction[:1] not in ("", "_")
    if not numeric or "." not in mantissa or fraction.strip("0123456789_"):
        return text
    return float(text.replace("_", ""))


def _all_digits(text: str) -> bool:
    return text.isdigit() and text.isascii()


def odd_characters(text: str) -> str:
    """Return the characters of `text` that YAML forbids or takes for line breaks of its own.

    str.isprintable() is the quick answer: it is false for each of them, and
    for a few that are fine, such as a no-break space.
    """
    if text.replace("\n", "").isprintable():
        return ""
    return "".join(sorted(character for character in set(text) if _is_odd(ord(character))))


def _is_odd(code: int) -> bool:
    if code < 0x20:
        return code not in (0x09, 0x0A)
    return (
        0x7F <= code < 0xA0
        or code in (0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF)
        or 0xD800 <= code < 0xE000
    )


def join_surrogates(text: str) -> str:
    """Return `text` with surrogate pairs joined and lone surrogates as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def is_marker(text: str, pos: int = 0) -> bool:
    """Say whether the line that begins at `pos` is `---` or `...`; `text` ends in NUL."""
    return text.startswith(("---", "..."), pos) and text[pos + 3] in " \t\n\0"


def decode_quoted(raw: str, *, double: bool) -> str:
    """Return the text of what stands between quotes.

    Raises ValueError for a wrong escape, and for a line that begins or ends a document.
    """
    if "\n" in raw:
        text = _fold(raw, double)
    else:
        text = _decode(raw, double)
    return join_surrogates(text) if double and "\\" in raw else text


def _decode(row: str, double: bool) -> str:
    if not double:
        return row.replace("''", "'")
    return _unescape(row) if "\\" in row else row


def _fold(raw: str, double: bool) -> str:
    """Join lines: one break is a space, n are n-1 breaks; an escaped break is nothing."""
    rows = raw.split("\n")
    last = len(rows) - 1
    content, joined = _trim_end(rows[0], double)
    pieces = [_decode(content, double)]
    blanks = 0
    for number, row in enumerate(rows[1:], 1):
        if is_marker(row + ("\n" if number < last else "x") + "\0"):
            raise ValueError("a document begins or ends inside quotes; is a closing quote missing?")
        content = row.lstrip(" \t")
        if not content and number < last:
            blanks += 1
            continue
        pieces.append("\n" * blanks if blanks or joined else " ")
        joined, blanks = False, 0
        if number < last:
            content, joined = _trim_end(content, double)
        pieces.append(_decode(content, double))
    return "".join(pieces)


def _trim_end(row: str, double: bool) -> tuple[str, bool]:
    """Drop the blanks that end `row`; true where its line break is escaped."""
    content = row.rstrip(" \t")
    if not double or (len(content) - len(content.rstrip("\\"))) % 2 == 0:
        return content, False
    if len(content) < len(row):  # the backslash escapes the first of the blanks
        return row[: len(content) + 1], False
    return content[:-1], True


def _unescape(raw: str) -> str:
    pieces: list[str] = []
    at = 0
    while (escape := raw.find("\\", at)) >= 0:
        pieces.append(raw[at:escape])
        code = raw[escape + 1]
        at = escape + 2
        if code in _ESCAPES:
            pieces.append(_ESCAPES[code])
            continue
        width = _ESCAPE_DIGITS.get(code, 0)
        digits = raw[at : at + width]
        if not width or len(digits) < width or not _HEX.issuperset(digits):
            raise ValueError(f"'\\{code}{digits}' is no escape; write \\\\ for a backslash")
        if (number := int(digits, 16)) > 0x10FFFF:
            raise ValueError(f"'\\{code}{digits}' is no character")
        pieces.append(chr(number))
        at += width
    pieces.append(raw[at:])
    return "".join(pieces)
