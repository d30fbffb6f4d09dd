"""A bus as one log over its archives, read on from any place in bounded memory.

A place is (inode, offset): what ends at or before it has been read.  Where
there was no file yet it is (0, ns since 1970): the beginning of the first file
that was written later.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator

from lib import bus, files, ids
from lib.bus_parse import Message, Parser, sync
from lib.errors import UserError

Place = tuple[int, int]

PIECE_BYTES = 1 << 20
MOST_ARCHIVES = 20  # the newest, in which an id is looked for
RECENT_BYTES = 8 << 20  # so far back at most the newest messages are looked for
_WINDOW_BYTES = 64 << 10
_MAX_ID = 200
_ID_LINE = b"\nmsg_id:"
SKEW_NS = 60 * ids.NANOSECONDS  # so far the ids of messages may be out of order: writers wait


class Reader:
    """One open file of a log, read from an offset on."""

    __slots__ = ("_parser", "_seen", "fd", "inode")

    def __init__(self, fd: int, offset: int) -> None:
        status = os.fstat(fd)
        self.fd = fd
        self.inode = status.st_ino
        self._parser = Parser(offset if offset <= status.st_size else 0)  # else it was cut
        self._seen = (-1, -1)

    def take(self) -> tuple[list[Message], bool]:
        """New messages of about a MiB of the file, and whether its end was reached."""
        status = os.fstat(self.fd)
        seen = (status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return [], True
        if status.st_size < self._parser.base:
            self._parser = Parser(0)
        parser = self._parser
        found: list[Message] = []
        start = parser.base
        while True:
            # As much as is pending, so that a huge body is joined a few times only.
            at = parser.base + len(parser.pending)
            data = os.pread(self.fd, max(PIECE_BYTES, len(parser.pending)), at)
            found += parser.feed(data, at_end=not data)
            parser.torn.clear()
            if not data:
                parser.drop_pending()  # it is read again, since it may be taken back
                self._seen = seen
                return found, True
            if found and at + len(data) - start >= PIECE_BYTES:
                return found, False

    def close(self) -> None:
        os.close(self.fd)


class Walk:
    """The messages of a bus behind a place, across rotations, each once.

    The file may be missing yet, be a link (then it is as if missing), be cut
    (then it is read from its beginning) or be replaced (then the old one is
    read to its end first).
    """

    def __init__(self, path: str, place: Place, is_reachable: Callable[[], bool]) -> None:
        self.path = path
        self.place = place
        self._is_reachable = is_reachable
        self._reader: Reader | None = None

    def take(self) -> tuple[list[Message], bool]:
        """Some of what is new, all in one file, and whether there is no more for now."""
        if self._reader is None:
            self._reader = open_at(self.path, self.place) if self._is_reachable() else None
            if self._reader is None:
                return [], True
            if self._reader.inode != self.place[0]:
                self.place = (self._reader.inode, 0)
        found, is_end = self._take(self._reader)
        if found or not is_end or files.inode(self.path) == self._reader.inode:
            return found, is_end and not found
        following = self._following(self._reader.inode)
        if following is None:
            return [], True
        found, is_end = self._take(self._reader)  # what came before it was put aside
        if found or not is_end:
            following.close()
            return found, False
        self._reader.close()
        self._reader, self.place = following, (following.inode, 0)
        return [], False

    def _take(self, reader: Reader) -> tuple[list[Message], bool]:
        found, is_end = reader.take()
        if found:
            self.place = (reader.inode, found[-1].end)
        return found, is_end

    def _following(self, inode: int) -> Reader | None:
        """What came after the file of that inode: the next archive, else the present file."""
        if not self._is_reachable():
            return None
        later: list[str] = []
        for archive in archives(self.path):
            if files.inode(archive) == inode:
                break
            later.append(archive)
        else:
            later.clear()  # it is in none of them: it was removed, or put elsewhere
        for path in [*reversed(later), self.path]:
            reader = _open(path, 0)
            if reader is not None:
                return reader
        return None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def open_at(path: str, place: Place) -> Reader | None:
    """The file of that place, at the path or put aside; the present one where it is gone.

    None while there is no file there, or something that is none.
    """
    inode, offset = place
    if not inode:
        return _open_first(path, offset)
    reader = _open(path, offset)
    if reader is None or reader.inode == inode:
        return reader
    reader.close()
    for archive in archives(path):  # listed after the look at the path: a rotation is not missed
        if files.inode(archive) == inode:
            return _open(archive, offset)
    return _open(path, 0)


def _open_first(path: str, since_ns: int) -> Reader | None:
    """The first file that was written since then; most often there is but the present one."""
    reader = _open(path, 0)
    for archive in archives(path):  # the newest first
        try:
            is_older = os.lstat(archive).st_mtime_ns < since_ns
        except OSError:
            continue
        if is_older:
            break
        older = _open(archive, 0)
        if older is not None:
            if reader is not None:
                reader.close()
            reader = older
    return reader


def nowhere() -> Place:
    """The place before all that will be written to a bus that is missing."""
    return 0, time.time_ns() - files.CLOCK_NS


def _open(path: str, offset: int) -> Reader | None:
    try:
        fd = bus.open_to_read(path)
    except (UserError, OSError):
        return None
    return None if fd is None else Reader(fd, offset)


def archives(path: str) -> list[str]:
    """The files of a bus that were put aside, the newest first."""
    folder, name = os.path.split(path)
    found = [
        other
        for other in files.names(folder)
        if other.startswith(f"{name}.") and other.endswith(bus.ARCHIVED)
    ]
    return [os.path.join(folder, other) for other in reversed(found)][:MOST_ARCHIVES]


# -- places


def newest(path: str, count: int, admits: Callable[[Message], bool]) -> tuple[list[Message], Place]:
    """Messages up to the last, among them the last `count` admitted ones; the place behind them.

    Of a large file, and with few that are admitted, only as many as its last 8 MiB hold.
    """

    def enough(found: list[Message]) -> bool:
        return _is_far_back(found) or (len(found) >= count and sum(map(admits, found)) >= count)

    found, inode = _recent(path, enough)
    return found, _behind(inode, found)


def newer_than(path: str, msg_id: str) -> tuple[Place, str]:
    """The place before the first of the newest messages whose id is greater, and the id before it."""

    def enough(found: list[Message]) -> bool:
        return _is_far_back(found) or (bool(found) and found[0].msg_id <= msg_id)

    found, inode = _recent(path, enough)
    for index, message in enumerate(found):
        if message.msg_id > msg_id:
            return (inode, message.offset), found[index - 1].msg_id if index else ""
    return _behind(inode, found), found[-1].msg_id if found else ""


def _behind(inode: int, found: list[Message]) -> Place:
    return (inode, found[-1].end if found else 0) if inode else nowhere()


def _is_far_back(found: list[Message]) -> bool:
    return bool(found) and found[-1].end - found[0].offset >= RECENT_BYTES


def _recent(path: str, enough: Callable[[list[Message]], bool]) -> tuple[list[Message], int]:
    """Of one and the same file; ([], 0) for none."""
    while True:
        inode = files.inode(path)
        try:
            found = bus.recent(path, enough)
        except (UserError, OSError):
            return [], 0
        if inode == files.inode(path):
            return found, inode


def place_behind(path: str, msg_id: str) -> Place | None:
    """The place behind the message of that id, in the file or in one put aside; None for none."""
    if not msg_id or len(msg_id) > _MAX_ID:
        return None
    for candidate in (path, *archives(path)):
        reader = _open(candidate, 0)
        if reader is None:
            continue
        try:
            end = _end_of(reader.fd, msg_id)
        finally:
            reader.close()
        if end is not None:
            return reader.inode, end
    return None


def _end_of(fd: int, msg_id: str) -> int | None:
    """Where the last message of that id ends, or None.

    The text is searched, from the end on: to parse it all would cost seconds.
    What is plainly older than the id, by the times in ids, is not looked at.
    """
    if msg_id.startswith("LEGACY-"):
        return _end_of_legacy(fd, msg_id)
    moment = bus.nanoseconds_of(msg_id)
    if moment is not None and _time_at(fd, 0, moment) > moment + SKEW_NS:
        return None  # all of it was written later
    start = os.fstat(fd).st_size
    while start > 0:
        piece_end, start = start, max(0, start - PIECE_BYTES)
        for at in reversed(_lines_of_id(fd, msg_id, start, piece_end)):
            end = _end_at(fd, msg_id, at)
            if end is not None:
                return end
        if moment is not None and _time_at(fd, start, moment) < moment - SKEW_NS:
            return None
    return None


def _end_at(fd: int, msg_id: str, at: int) -> int | None:
    """The end of the message whose header names the id at that offset; None for a quotation."""
    for message in _messages(fd, _in_step_before(fd, at)):
        if message.end > at:
            is_it = message.msg_id == msg_id and message.offset <= at
            return message.end if is_it else None
    return None


def _end_of_legacy(fd: int, msg_id: str) -> int | None:
    """The same of a one-line message, whose id does not stand in the file but tells its place."""
    kind, _, number = msg_id.removeprefix("LEGACY-").partition("-")
    if not (number.isascii() and number.isdigit()):
        return None
    start = _in_step_before(fd, int(number)) if kind == "BYTE" else 0
    for message in _messages(fd, start):
        if message.msg_id == msg_id:
            return message.end
        # Lines are counted only above the first message of more than one.
        if message.offset > int(number) if kind == "BYTE" else not _is_line(message):
            return None
    return None


def _is_line(message: Message) -> bool:
    return message.msg_id.startswith("LEGACY-LINE-")


def _time_at(fd: int, start: int, unknown: int) -> int:
    """The time in the first id behind `start` that has one, ns since 1970; else `unknown`."""
    data = os.pread(fd, bus.FIRST_WINDOW, start)
    place = sync(data) if start else 0
    if place is None:
        return unknown
    found = Parser(start + place).feed(data[place:], at_end=False)
    times = (bus.nanoseconds_of(message.msg_id) for message in found)
    return next((moment for moment in times if moment is not None), unknown)


def _lines_of_id(fd: int, msg_id: str, start: int, end: int) -> list[int]:
    """Where lines begin, within these offsets, that name the id; one may quote it in some body."""
    count = end - start + 2 * _MAX_ID + 64
    data = os.pread(fd, count + 1, start - 1) if start else b"\n" + os.pread(fd, count, 0)
    name = re.escape(msg_id.encode("utf-8", "replace"))
    line = re.compile(rb"\nmsg_id:[ \t]*[\"']?%s[\"']?[ \t\r]*$" % name, re.MULTILINE)
    found: list[int] = []
    at = data.find(_ID_LINE)  # which is ten times as fast as the pattern alone
    while 0 <= at < end - start:
        if line.match(data, at):
            found.append(start + at)
        at = data.find(_ID_LINE, at + 1)
    return found


def _in_step_before(fd: int, at: int) -> int:
    """An offset from which a parser is surely in step with the file, before `at`."""
    window = _WINDOW_BYTES
    while window < at:
        start = at - window
        data = os.pread(fd, window, start)
        place = sync(data)
        if place is not None:
            return start + place
        window *= 4
    return 0


def behind(path: str, place: Place, is_reachable: Callable[[], bool]) -> list[Message]:
    """All messages of a bus behind a place, the oldest first."""
    walk = Walk(path, place, is_reachable)
    found: list[Message] = []
    is_end = False
    try:
        while not is_end:
            some, is_end = walk.take()
            found += some
    finally:
        walk.close()
    return found


def _messages(fd: int, offset: int) -> Iterator[Message]:
    parser = Parser(offset)
    while True:
        at = parser.base + len(parser.pending)
        data = os.pread(fd, max(_WINDOW_BYTES, len(parser.pending)), at)
        yield from parser.feed(data, at_end=not data)
        if not data:
            return
