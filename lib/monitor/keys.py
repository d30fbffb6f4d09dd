"""Keys out of the bytes that a terminal sends.

A key is its character, or one of the names in `NAMED`.  What is pasted comes
as one key `paste:TEXT`, so that a pasted text cannot press anything.
Source: ECMA-48 5.4 for the shape of sequences; xterm's ctlseqs for their meaning.
"""

from __future__ import annotations

import codecs

ESCAPE = "\x1b"
PASTE = "paste:"
_PASTE_BEGIN, _PASTE_END = "\x1b[200~", "\x1b[201~"
_PASTE_LIMIT = 4096  # characters; what is more is thrown away

_FINAL = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "Z": "backtab",
}
_NUMBERED = {
    "1": "home", "4": "end", "5": "pageup", "6": "pagedown", "7": "home", "8": "end",
}  # fmt: skip
_CONTROLS = {
    "\n": "enter", "\r": "enter", "\t": "tab", "\x7f": "backspace", "\x08": "backspace",
    "\x02": "pageup", "\x06": "pagedown", "\x0c": "redraw", "\x15": "clear",
}  # fmt: skip


class Decoder:
    """Collects bytes, however they are cut, and gives whole keys."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._pasted: str | None = None  # what has come of a paste that has not ended

    @property
    def is_waiting(self) -> bool:
        """Whether the beginning of a sequence is here, which may also be the Escape key alone."""
        return bool(self._text) and self._pasted is None

    def feed(self, data: bytes) -> list[str]:
        """The keys that are complete now."""
        self._text += self._utf8.decode(data)
        found = []
        while self._text:
            key = self._take()
            if key is None:
                break
            if key:
                found.append(key)
        return found

    def finish(self) -> list[str]:
        """Nothing follows for now: what stands there alone is the Escape key."""
        if not self.is_waiting:
            return []
        was_escape = self._text == ESCAPE
        self._text = ""
        return ["escape"] if was_escape else []

    def _take(self) -> str | None:
        """One key; "" for what is none, None while it is not complete."""
        if self._pasted is not None:
            return self._take_paste()
        first = self._text[0]
        if first != ESCAPE:
            self._text = self._text[1:]
            if first in _CONTROLS:
                return _CONTROLS[first]
            return first if first.isprintable() else ""
        if len(self._text) == 1:
            return None
        if self._text[1] == ESCAPE:
            self._text = self._text[1:]
            return "escape"
        if self._text[1] not in "[O":  # Alt and a key
            self._text = self._text[2:]
            return ""
        return self._take_sequence()

    def _take_sequence(self) -> str | None:
        at = 2
        while at < len(self._text) and " " <= self._text[at] <= "?":
            at += 1
        if at == len(self._text):
            return None if at < 32 else self._drop(at)
        sequence, final = self._text[: at + 1], self._text[at]
        if sequence == _PASTE_BEGIN:
            self._drop(at + 1)
            self._pasted = ""
            return ""
        self._drop(at + 1)
        if final == "~":
            return _NUMBERED.get(sequence[2:-1].partition(";")[0], "")
        return _FINAL.get(final, "")

    def _take_paste(self) -> str | None:
        assert self._pasted is not None
        end = self._text.find(_PASTE_END)
        if end < 0:
            keep = len(_PASTE_END) - 1  # the end itself may have come in part
            self._pasted = (self._pasted + self._text[:-keep])[:_PASTE_LIMIT]
            self._text = self._text[-keep:]
            return None
        pasted = (self._pasted + self._text[:end])[:_PASTE_LIMIT]
        self._drop(end + len(_PASTE_END))
        self._pasted = None
        return PASTE + pasted

    def _drop(self, count: int) -> str:
        self._text = self._text[count:]
        return ""
