"""What the checks of a storage share: findings, where things lie, what was seen of a run.

A *violation* is what should never be, *repair* is what the next command that
acts sets right, a *note* breaks no promise and is good to know.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from lib import paths, redact, runs

VIOLATION, REPAIR, NOTE = "violation", "repair", "note"
LIVE, ENDED, OPEN = "live", "ended", "open"  # OPEN: nobody can tell, or it waits for a repair


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found; `path` is absolute, every text as hostile as its source."""

    kind: str
    path: str
    what: str
    cure: str

    def line(self, root: str) -> str:
        """`FILE: what; what to do`, redacted, one line, safe to print."""
        mark = "" if self.kind == VIOLATION else f"{self.kind}: "
        return _harmless(f"{mark}{below(root, self.path)}: {self.what}; {self.cure}")

    def as_dict(self, root: str) -> dict[str, str]:
        fields = {"kind": self.kind, "file": below(root, self.path), "what": self.what}
        fields["cure"] = self.cure
        return {name: _harmless(text) for name, text in fields.items()}


def below(root: str, path: str) -> str:
    """The path as seen from the root where it lies below that, else whole."""
    inside = path.startswith(os.path.join(root, "")) or path == root
    return os.path.relpath(path, root) if inside else path


def _harmless(text: str) -> str:
    return " ".join(redact.for_terminal(redact.text(text)).split())


@dataclass(frozen=True, slots=True)
class Place:
    """The storage that is looked at; `bus` is the root's own."""

    root: str
    runs_dir: str
    bus: str


def place_of(root: str) -> Place:
    """A root of ours, or a storage root or runs folder by itself, which then has no `runs/`."""
    inner = os.path.join(root, "runs")
    runs_dir = inner if os.path.isdir(inner) else root
    return Place(root, runs_dir, os.path.join(root, paths.BUS_NAME))


@dataclass(slots=True)
class Seen:
    """What later checks need of a run that was looked at."""

    path: str
    condition: str  # LIVE, ENDED or OPEN
    is_ours: bool = False
    status: str = ""
    reason: str = ""
    token: str = ""
    supervisor_pid: int = 0
    bus: str = ""  # where its bus lies as seen from its folder; "" for none
    ended_ns: int = 0
    keeps_background: bool = False
    was_silenced: bool = False  # something could not be posted

    @property
    def run_id(self) -> str:
        return os.path.basename(self.path)


def bus_of(run: runs.Run) -> str:
    """The run's bus. Paths in a record are a record, not a map: a root may have been moved.

    So only the way from the recorded folder to the recorded bus counts.
    """
    bus, folder = run.text("bus"), os.path.dirname(run.text("prompt_path"))
    if not (os.path.isabs(bus) and os.path.isabs(folder)):
        return ""
    return os.path.normpath(os.path.join(run.path, os.path.relpath(bus, folder)))
