"""Places in a bus and its archives: found by the id of a message, without reading it all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lib import bus, ids
from lib.api import bus_log, buses
from lib.api.bus_log import Place
from lib.errors import UserError

HOUR_NS = 3600 * ids.NANOSECONDS


def record(msg_id: str, body: str = "text") -> str:
    return (
        f"\n---\nmsg_id: {msg_id}\nts: {ids.rfc3339()}\ntype: INFO\nproject_id: demo\n"
        f"task_id: build\nbody_bytes: {len(body.encode())}\n---\n{body}\n"
    )


def write(path: Path, first_ns: int, count: int, body: str = "text") -> list[str]:
    """A bus with a message in each second."""
    made = [ids.message_id(first_ns + at * ids.NANOSECONDS) for at in range(count)]
    path.write_text("# Bus\n\n" + "".join(record(msg_id, body) for msg_id in made))
    return made


class Reads:
    """How many bytes are read of files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total = 0
        self._pread = os.pread
        monkeypatch.setattr(os, "pread", self._read)

    def _read(self, fd: int, count: int, offset: int) -> bytes:
        data = self._pread(fd, count, offset)
        self.total += len(data)
        return data


def naive(paths: list[Path], msg_id: str) -> Place | None:
    """The same by reading it all."""
    for path in paths:
        ends = [message.end for message in bus.read(str(path)) if message.msg_id == msg_id]
        if ends:
            return path.stat().st_ino, ends[-1]
    return None


def rotated(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{ids.stamp(1_700_000_000 + number)}{bus.ARCHIVED}")


@pytest.mark.parametrize("piece", [997, 4096, bus_log.PIECE_BYTES])
def test_each_message_is_found_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    path = tmp_path / "TASK-MESSAGE-BUS.md"
    old, now = rotated(path, 1), time.time_ns()
    made = write(old, now - 2 * HOUR_NS, 10)
    line = "[2026-01-01T00:00:00Z] FACT: a line\n"
    text = line * 3
    for at in range(60):
        msg_id = ids.message_id(now - HOUR_NS + at * 20 * ids.NANOSECONDS)
        quoted = made[at * 7 % len(made)]
        text += record(msg_id, f"{'x' * (at * 37 % 300)}\nmsg_id: {quoted}\n{line}end")
        made.append(msg_id)
        text += line if at % 20 == 0 else ""
    path.write_text(text)
    legacy = [m.msg_id for m in bus.read(str(path)) if m.msg_id.startswith("LEGACY-")]
    assert [name[:11] for name in legacy] == ["LEGACY-LINE"] * 3 + ["LEGACY-BYTE"] * 3
    in_a_body = text.index(line, text.index("msg_id: "))
    unknown = [
        "MSG-gone", "a", "LEGACY-LINE-000000099", "LEGACY-BYTE-000000000099", "LEGACY-BYTE-",
        "LEGACY-LINE-\u0663", "LEGACY-", f"LEGACY-BYTE-{in_a_body:012d}", "half \ud800 of it",
        *(ids.message_id(now - hours * HOUR_NS + 7) for hours in (0, 1, 9)),
    ]  # fmt: skip
    monkeypatch.setattr(bus_log, "PIECE_BYTES", piece)
    places = [bus_log.place_behind(str(path), msg_id) for msg_id in made + legacy + unknown]
    assert places == [naive([path, old], msg_id) for msg_id in made + legacy] + [None] * len(
        unknown
    )


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_header_at_the_border_of_two_pieces_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    path = tmp_path / "TASK-MESSAGE-BUS.md"
    made = write(path, time.time_ns() - HOUR_NS, 20)
    data = path.read_bytes()
    for msg_id in made[5:10]:
        at = data.index(f"msg_id: {msg_id}".encode())
        monkeypatch.setattr(bus_log, "PIECE_BYTES", len(data) - at + shift)
        assert bus_log.place_behind(str(path), msg_id) == naive([path], msg_id)


def test_an_id_that_is_not_there_costs_a_little_of_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "TASK-MESSAGE-BUS.md"
    now, day_ns = time.time_ns(), 24 * HOUR_NS
    for days in range(1, 6):
        write(rotated(path, -days), now - days * day_ns, 1000, "x" * 1000)
    write(path, now - HOUR_NS, 1000, "x" * 1000)
    monkeypatch.setattr(bus_log, "PIECE_BYTES", 64 << 10)
    size = path.stat().st_size
    reads = Reads(monkeypatch)
    for behind_ns in (0, HOUR_NS * 5, day_ns * 2 - HOUR_NS, day_ns * 9):
        reads.total = 0
        assert bus_log.place_behind(str(path), ids.message_id(now - behind_ns)) is None
        assert reads.total < size, "six files of which little is read"


def test_the_last_message_is_found_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "TASK-MESSAGE-BUS.md"
    made = write(path, time.time_ns() - HOUR_NS, 1000, "x" * 1000)
    monkeypatch.setattr(bus_log, "PIECE_BYTES", 64 << 10)
    reads = Reads(monkeypatch)
    assert bus_log.place_behind(str(path), made[-1]) == (path.stat().st_ino, path.stat().st_size)
    assert reads.total < path.stat().st_size / 2


def test_files_whose_times_tell_nothing_are_searched_all_the_same(tmp_path: Path) -> None:
    """The clock was set back: ids went on from the later time, and the file has an earlier one."""
    path = tmp_path / "TASK-MESSAGE-BUS.md"
    old = rotated(path, 1)
    made = write(old, time.time_ns(), 10)
    write(path, time.time_ns() + 20 * ids.NANOSECONDS, 3)
    os.utime(old, (1_000_000_000, 1_000_000_000))
    assert bus_log.place_behind(str(path), made[4]) == naive([old], made[4])


def test_messages_that_came_out_of_order_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers of others make the id first, and wait for the lock then."""
    monkeypatch.setattr(bus_log, "PIECE_BYTES", 4096)
    path = tmp_path / "TASK-MESSAGE-BUS.md"
    made = write(path, time.time_ns() - HOUR_NS, 200)
    path.write_text("".join(map(record, made[100:130] + made[70:100] + made[130:])))
    for msg_id in made[70:130]:
        assert bus_log.place_behind(str(path), msg_id) == naive([path], msg_id)


def test_behind_an_id_of_an_archive_are_those_of_all_files_and_buses(tmp_path: Path) -> None:
    own, other = tmp_path / "TASK-MESSAGE-BUS.md", tmp_path / "MESSAGE-BUS.md"
    start = time.time_ns() - HOUR_NS
    first = write(rotated(own, 1), start, 10)
    second = write(own, start + 100 * ids.NANOSECONDS, 10)
    beside = write(other, start - 5 * ids.NANOSECONDS, 10)
    sources = [buses.Bus(str(own)), buses.Bus(str(other), "demo")]

    found = {message.msg_id for message in buses.after(sources, first[2])}

    assert found == {*first[3:], *second, *(name for name in beside if name > first[2])}
    with pytest.raises(UserError, match="message id not found"):
        buses.after(sources, "MSG-gone")


def test_an_unknown_id_in_two_buses_is_not_looked_for_by_parsing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = tmp_path / "TASK-MESSAGE-BUS.md", tmp_path / "MESSAGE-BUS.md"
    for path in (own, other):
        write(path, time.time_ns() - HOUR_NS, 500, "x" * 1000)
    monkeypatch.setattr(bus_log, "PIECE_BYTES", 64 << 10)
    reads = Reads(monkeypatch)
    with pytest.raises(UserError, match="message id not found"):
        buses.after([buses.Bus(str(own)), buses.Bus(str(other))], ids.message_id(time.time_ns()))
    assert reads.total < own.stat().st_size
