"""Keeps a transcript readable, whatever an agent prints: no giant lines, no giant file.

Its raw output is never cut; a transcript is for people.  Text is shortened after
its redaction, which would not know half a token.
"""

from __future__ import annotations

MAX_LINE = 2_000  # characters of a line that are shown
MAX_TEXT = 8 << 20  # characters that are shown as they come
MAX_END = 64 << 10  # characters of what came last, shown when the run has ended
NOTE = "… this is long: the rest is in agent-stdout.txt, and its end comes here with the run's\n"


class Shortener:
    """Shortens text that arrives in pieces; the result does not depend on where they end.

    A line above 2,000 characters is cut, with a note of how many more it has.  After
    8 Mi characters nothing is let through but a note, until `finish` returns the last
    64 Ki of what followed, where a stream tells how it ended.
    """

    __slots__ = ("_column", "_end", "_is_full", "_room", "_size")

    def __init__(self) -> None:
        self._column = 0  # characters of the present line so far
        self._room = MAX_TEXT
        self._is_full = False
        self._size = 0  # characters that were held back
        self._end = ""  # the last of them

    def feed(self, text: str) -> str:
        first, *others = text.split("\n")
        parts = [self._in_line(first)]
        for part in others:
            parts += [self._end_line(), "\n", self._in_line(part)]
        return self._limit("".join(parts))

    def finish(self) -> str:
        """The rest: the end of what was held back, and before that how much is left out."""
        shown = self._limit(self._end_line())
        end, self._end = self._end, ""
        if self._size > MAX_END:
            end = end[-MAX_END:]
            end = end[end.find("\n") + 1 :]
            shown += f"… {self._size - len(end)} characters left out …\n"
        return shown + end

    def _in_line(self, part: str) -> str:
        room = max(0, MAX_LINE - self._column)
        self._column += len(part)
        return part[:room]

    def _end_line(self) -> str:
        over, self._column = self._column - MAX_LINE, 0
        return f"… {over} more characters" if over > 0 else ""

    def _limit(self, text: str) -> str:
        """What may be shown: whole lines, the last of which reaches the limit."""
        shown = ""
        if not self._is_full:
            end = text.find("\n", max(0, self._room - 1)) + 1
            if not end:
                self._room -= len(text)
                return text
            self._is_full = True
            shown, text = text[:end], text[end:]
        if text:
            shown += "" if self._size else NOTE
            self._size += len(text)
            self._end = (self._end + text)[-MAX_END:]
        return shown
