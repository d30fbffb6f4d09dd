"""What the runs that live have written last, and how much: read once for all who want to see it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lib import files, redact, runs
from lib.api import shapes
from lib.api.shapes import Shape
from lib.index_entries import RunEntry

SOURCES = (runs.TRANSCRIPT, runs.STDOUT)  # runs of the original have no transcript
SIZES = (
    ("transcript.md", runs.TRANSCRIPT),
    ("stdout", runs.STDOUT),
    ("stderr", runs.STDERR),
)
MAX_LINE = 300  # characters
_TAIL_BYTES = 8192


class LastLines:
    """By path of run; whoever uses it sees to it that one thread does at a time."""

    def __init__(self) -> None:
        self._runs: dict[str, _Last] = {}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def keep(self, entries: Iterable[RunEntry]) -> None:
        """Know these runs, and no others."""
        known = self._runs
        self._runs = {e.path: known.get(e.path) or _Last(e.run) for e in entries}

    def changed(self, touched: Collection[str] | None) -> dict[str, Shape]:
        """By id the runs that have written since the last call; None: look at all of them."""
        paths = self._runs.keys() if touched is None else self._runs.keys() & touched
        return self._shapes(path for path in paths if self._runs[path].has_changed())

    def all(self) -> dict[str, Shape]:
        """Every run as it is now; what `changed` has not told yet, it will."""
        return self._shapes(self._runs)

    def _shapes(self, paths: Iterable[str]) -> dict[str, Shape]:
        return {self._runs[path].run_id: self._runs[path].shape() for path in paths}


class _Last:
    """What is known of one run; its line is read again when the file, or what is secret, has changed."""

    def __init__(self, run: runs.Run) -> None:
        self.run_id = str(redact.values(run.run_id))
        self._files = [(name, run.file(on_disk)) for name, on_disk in SIZES]
        self._sources = [run.file(name) for name in SOURCES]
        self._told: object = None
        self._read_as: object = None
        self._line = ""

    def has_changed(self) -> bool:
        seen = [files.signature(path) for _, path in self._files]
        has_changed = seen != self._told and any(seen)
        self._told = seen
        return has_changed

    def shape(self) -> Shape:
        sizes: Shape = {name: shapes.size_of(path) or 0 for name, path in self._files}
        return {"line": self._last_line(), "sizes": sizes}

    def _last_line(self) -> str:
        for path in self._sources:
            signature = files.signature(path)
            if signature is not None:
                seen = path, signature, redact.added()
                if seen != self._read_as:
                    self._read_as, self._line = seen, last_whole_line(path)
                return self._line
        return ""


def last_whole_line(path: str) -> str:
    """The last line with a line feed behind it that says anything, harmless and redacted.

    Of a line that has no end yet, or whose beginning is too far away, redaction
    might not know a token again.
    """
    try:
        data = files.read_tail(path, _TAIL_BYTES)
    except OSError:
        return ""
    start = data.find(b"\n") + 1 if len(data) == _TAIL_BYTES else 0
    text = redact.text(data[start : data.rfind(b"\n") + 1].decode("utf-8", "replace"))
    for line in reversed(text.split("\n")):
        if any(character.isalnum() for character in line):
            return redact.one_line(line, MAX_LINE)
    return ""
