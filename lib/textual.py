"""Text in terminal columns: durations, aligned tables, and what fits into a line."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GAP = "  "
_ZERO_WIDTH = ("Mn", "Me", "Cf")  # marks on the character before, joiners and the like
_EMOJI_STYLE = "\ufe0f"  # variation selector 16


def duration(seconds: float) -> str:
    """`4.2s`, `3m07s`, `2h05m`: short, and still readable at any size."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def spoken(seconds: float) -> str:
    """`20 s`, `14 min`, `3 h 20 min`, `2 days`: a time as a sentence says it, rounded down."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 2 * 3600:
        return f"{whole // 60} min"
    if whole < 48 * 3600:
        rest = whole % 3600 // 60
        return f"{whole // 3600} h" + (f" {rest} min" if rest else "")
    return f"{whole // 86400} days"


def amount(number: float) -> str:
    """`950`, `12.3k`, `4.5M`: a count in at most five columns."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            scaled = number / factor
            return f"{scaled:.1f}{letter}" if scaled < 100 else f"{scaled:.0f}{letter}"
    return f"{number:.0f}"


def table(rows: Sequence[Sequence[str]], columns: int | None = None) -> list[str]:
    """Rows in aligned columns; the last one is shortened so that a line takes at most `columns`.

    The others are never shortened: ids are there to be copied.
    """
    if not rows:
        return []
    widths = [max(width(row[n]) for row in rows) for n in range(len(rows[0]) - 1)]
    room = None if columns is None else max(1, columns - sum(widths) - len(GAP) * len(widths))
    lines = []
    for row in rows:
        cells = [text + " " * (size - width(text)) for text, size in zip(row, widths, strict=False)]
        last = row[-1] if room is None else shorten(row[-1], room)
        lines.append(GAP.join([*cells, last]).rstrip())
    return lines


def width(text: str) -> int:
    """Terminal columns that `text` takes."""
    return len(text) if text.isascii() else sum(_widths(text))


def cut(text: str, columns: int) -> str:
    """The beginning of `text` that fits into so many terminal columns."""
    if text.isascii():
        return text[: max(0, columns)]
    taken = 0
    for index, columns_of_it in enumerate(_widths(text)):
        taken += columns_of_it
        if taken > columns:
            return text[:index]
    return text


def shorten(text: str, columns: int) -> str:
    """`text`, or its beginning and `…`, in at most so many terminal columns."""
    if width(text) <= columns:
        return text
    return cut(text, columns - 1) + "…" if columns > 0 else ""


def fit(text: str, columns: int) -> str:
    """`text` in exactly so many terminal columns: shortened, or filled with blanks."""
    short = shorten(text, columns)
    return short + " " * (columns - width(short))


def _widths(text: str) -> Iterator[int]:
    """The columns of each character; of a sequence that is shown as one, rather too many.

    Terminals differ in what they make of joined emoji; a line that is cut too
    early does no harm, one that is too long wraps.
    """
    import unicodedata

    last = 0
    for character in text:
        if character < "\u0300":
            last = 1
        elif character == _EMOJI_STYLE:  # makes the one before it two columns wide
            last = 1 if last == 1 else 0
        elif "\u1160" <= character <= "\u11ff" or unicodedata.category(character) in _ZERO_WIDTH:
            last = 0  # those are the vowels and finals of a Hangul syllable
        else:
            last = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        yield last
