"""Is a bus what it should be: every record whole, in order, once; each run's end told once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lib import files, ids, paths
from lib.bus_parse import FENCE, Message, Parser
from lib.integrity_base import ENDED, NOTE, VIOLATION, Finding, Place, Seen

CHUNK_BYTES = 1 << 20
_MOST_OF_A_HEADER = 64 << 10
_ENDS = ("RUN_STOP", "RUN_CRASH")
_ID_TIME = 29  # characters of a message id up to its nanoseconds: what must grow
_LOOK = "look at that place of the file; messages before and behind it are not touched by that"


@dataclass(slots=True)
class Bus:
    """What was read of one bus and of what was rotated away from it."""

    path: str
    messages: int = 0
    began_ns: int = 0  # time of the first message, 0 = none
    starts: dict[str, int] = field(default_factory=dict)  # by run id
    ends: dict[str, int] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    parents: list[tuple[str, str, str]] = field(default_factory=list)  # file, child, parent
    findings: list[Finding] = field(default_factory=list)


def paths_of(place: Place, seen: Iterable[Seen]) -> list[str]:
    """Every bus of a storage: the root's, those of project and task folders, those of its runs."""
    found = {place.bus: None}
    task, project, _ = paths.BUS_NAMES
    for folder in _subfolders(place.runs_dir):
        found[os.path.join(folder, project)] = None
        found.update({os.path.join(inner, task): None for inner in _subfolders(folder)})
    inside = os.path.join(place.root, "")
    found.update({run.bus: None for run in seen if run.bus.startswith(inside)})
    return [path for path in found if os.path.lexists(path)]


def _subfolders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            names = [e.path for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(path for path in names if os.path.basename(path)[0] != ".")


def read(path: str) -> Bus:
    """All that is to be known of a bus, from its beginning to its end."""
    bus = Bus(path)
    folder, name = os.path.split(path)
    rotated = [
        n for n in os.listdir(folder) if n.startswith(f"{name}.") and n.endswith(".archived")
    ]
    for part in [*sorted(rotated), name]:
        _read_file(bus, os.path.join(folder, part))
    return bus


def _read_file(bus: Bus, path: str) -> None:
    try:
        fd = files.open_regular(path)
    except OSError as error:
        cure = "a message bus must be a regular file that can be read"
        bus.findings.append(Finding(VIOLATION, path, f"cannot be read: {error.strerror}", cure))
        return
    try:
        parser = Parser()
        checker = _Checker(bus, path, fd)
        for message in _messages(fd, parser):
            checker.take(message, parser.torn)
        checker.finish(parser)
    finally:
        os.close(fd)


def _messages(fd: int, parser: Parser) -> Iterator[Message]:
    position = 0
    while True:
        # As much as is pending, so that a huge body is joined a few times only.
        data = os.pread(fd, max(CHUNK_BYTES, len(parser.pending)), position)
        position += len(data)
        yield from parser.feed(data, at_end=not data)
        if not data:
            return


class _Checker:
    """One file of a bus, message by message."""

    def __init__(self, bus: Bus, path: str, fd: int) -> None:
        self._bus = bus
        self._path = path
        self._fd = fd
        self._last_id = ""
        self._torn = 0  # how many torn records have been judged

    def take(self, message: Message, torn: list[int]) -> None:
        bus = self._bus
        is_ours = self._is_ours(message.offset) if self._torn < len(torn) else False
        self._judge_torn(torn, message.offset, is_ours)
        bus.messages += 1
        bus.began_ns = bus.began_ns or ids.parse_rfc3339(message.ts) or 0
        self._check_id(message)
        for parent in message.parents:
            bus.parents.append((self._path, message.msg_id, str(parent.get("msg_id"))))
        if message.run_id:
            events = bus.ends if message.type in _ENDS else bus.starts
            if events is bus.ends or message.type == "RUN_START":
                events[message.run_id] = events.get(message.run_id, 0) + 1

    def _check_id(self, message: Message) -> None:
        msg_id = message.msg_id
        if msg_id.startswith("LEGACY-"):
            return
        if msg_id in self._bus.ids:
            self._wrong(f"message {msg_id} stands there twice, again at byte {message.offset}")
        self._bus.ids.add(msg_id)
        if not msg_id.startswith("MSG-"):
            return
        # The original makes its ids before it has the lock: only ours must grow.
        if msg_id[:_ID_TIME] <= self._last_id[:_ID_TIME] and self._is_ours(message.offset):
            what = f"message {msg_id} at byte {message.offset} is not above {self._last_id}"
            self._wrong(f"{what} before it")
        self._last_id = msg_id

    def _wrong(self, what: str) -> None:
        cure = "somebody edited the file or wrote past its lock; no reader is harmed"
        self._bus.findings.append(Finding(VIOLATION, self._path, what, cure))

    def _is_ours(self, offset: int) -> bool:
        return b"\nbody_bytes: " in os.pread(self._fd, _MOST_OF_A_HEADER, offset)

    def _judge_torn(self, torn: list[int], end: int, is_next_ours: bool) -> None:
        """Judge the torn records before `end`, where the next message or the file's end is."""
        while self._torn < len(torn) and torn[self._torn] < end:
            start = torn[self._torn]
            self._torn += 1
            stop = min([end, *torn[self._torn : self._torn + 1]])
            self._judge_record(start, os.pread(self._fd, stop - start, start), is_next_ours)

    def _judge_record(self, start: int, data: bytes, is_next_ours: bool) -> None:
        """A fence tells that its writer was killed; ours put one behind every torn record."""
        if is_next_ours and FENCE not in data and b"\nbody_bytes: " in data:
            what = f"the record at byte {start} is damaged: the file was edited or cut"
            self._bus.findings.append(Finding(VIOLATION, self._path, what, _LOOK))
            return
        what = f"the record at byte {start} is torn: its writer was killed, its id never printed"
        self._bus.findings.append(Finding(NOTE, self._path, what, "readers skip it; nothing to do"))

    def finish(self, parser: Parser) -> None:
        self._judge_torn(parser.torn, parser.base + len(parser.pending), False)
        if parser.pending.startswith(b"---\n"):
            what = f"the record at byte {parser.base} is not finished: being written, or torn"
            cure = "the next message is kept apart from it; nothing to do"
            self._bus.findings.append(Finding(NOTE, self._path, what, cure))


def examine_ends(buses: Iterable[Bus], seen: Iterable[Seen]) -> Iterator[Finding]:
    """Each run of ours that has ended says so on its bus, once; its start at most once."""
    by_path = {bus.path: bus for bus in buses}
    for run in seen:
        bus = by_path.get(run.bus)
        if bus is None or not run.is_ours:
            continue
        starts, ends = bus.starts.get(run.run_id, 0), bus.ends.get(run.run_id, 0)
        where = f"{run.run_id} has"
        if starts > 1:
            yield Finding(VIOLATION, bus.path, f"{where} {starts} RUN_START, not one", _LOOK)
        if ends > 1:
            what = f"{where} {ends} RUN_STOP or RUN_CRASH, not one"
            yield Finding(VIOLATION, bus.path, what, _LOOK)
        # A bus that begins after the run's end was cut since: nobody can tell.
        is_told = ends or run.was_silenced or not 0 < bus.began_ns <= run.ended_ns
        if run.condition == ENDED and not is_told:
            what = f"{where} ended, and neither RUN_STOP nor RUN_CRASH tells it"
            yield Finding(VIOLATION, bus.path, what, "its record tells how it ended")


def examine_parents(buses: Iterable[Bus]) -> Iterator[Finding]:
    """Parents that no bus of this storage holds."""
    known = set().union(*(bus.ids for bus in buses))
    for bus in buses:
        for path, child, parent in bus.parents:
            if parent not in known:
                what = f"{child} answers {parent}, which no bus here holds"
                yield Finding(NOTE, path, what, "it was rotated away, or stands in another root")
