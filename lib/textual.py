"""Text in terminal columns: durations, aligned tables, and what fits into a line."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = "  "


def duration(seconds: float) -> str:
    """`4.2s`, `3m07s`, `2h05m`: short, and still readable at any size."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


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
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def cut(text: str, columns: int) -> str:
    """The beginning of `text` that fits into so many terminal columns."""
    if text.isascii():
        return text[: max(0, columns)]
    taken = 0
    for index, character in enumerate(text):
        taken += _character_width(character)
        if taken > columns:
            return text[:index]
    return text


def shorten(text: str, columns: int) -> str:
    """`text`, or its beginning and `…`, in at most so many terminal columns."""
    return text if width(text) <= columns else cut(text, columns - 1) + "…"


def _character_width(character: str) -> int:
    import unicodedata

    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
