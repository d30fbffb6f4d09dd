"""Where lines begin: found without reading the file again, as it grows and when it is another."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lib.api import line_index
from lib.api.line_index import CleanPieces, LineIndex, LineIndexes, behind_line_end


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(data)
    return path


def some_text(chance: random.Random) -> bytes:
    parts = [b"a", b"\n", b"bb\n", b"\r\n", b"x" * 50, b"\xff\0"]
    return b"".join(chance.choices(parts, k=chance.randrange(150)))


@pytest.mark.parametrize("seed", range(40))
def test_every_question_is_answered_as_by_reading_it_all(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)  # noqa: S311
    data = some_text(chance)
    starts = [0, *(at + 1 for at, byte in enumerate(data) if byte == 10)]
    monkeypatch.setattr(line_index, "MOST_BLOCKS", chance.choice([4, 16, 10_000]))
    monkeypatch.setattr(line_index, "_NEAR_BYTES", chance.choice([1, 3, 4096]))
    monkeypatch.setattr(line_index, "_READ_BYTES", chance.choice([1, 7, 1 << 20]))
    index = LineIndex(block_bytes=chance.choice([1, 3, 8, 64]))
    with opened(written(tmp_path, data)) as fd:
        assert index.count(fd)
        assert (index.size, index.ends) == (len(data), len(starts) - 1)
        for offset in range(len(data) + 3):
            assert index.ends_before(fd, offset) == data[:offset].count(b"\n")
            behind = [start for start in starts if start >= offset]
            assert index.start_from(fd, offset) == (behind[0] if behind else starts[-1])
            assert index.start_before(fd, offset) == max(s for s in starts if s <= offset)
        for number in range(len(starts) + 2):
            assert index.start_of(fd, number) == starts[min(number, len(starts) - 1)]


def test_the_end_of_a_line_is_found_in_a_block_of_nothing_else() -> None:
    data = b"\n" * 100_000
    assert [behind_line_end(data, number) for number in (0, 1, 77_777, 100_000, 100_001)] == [
        0, 1, 77_777, 100_000, 100_000,
    ]  # fmt: skip


def test_a_file_that_grows_is_counted_on(tmp_path: Path) -> None:
    path = written(tmp_path, b"")
    kept = LineIndexes()
    data = b""
    first: LineIndex | None = None
    for piece in (b"", b"one", b"\n", b"two\nth", b"ree\n", b"x" * 300_000, b"\nend"):
        data += piece
        with path.open("ab") as file:
            file.write(piece)
        with opened(path) as fd:
            index = kept.of(str(path), fd)
            first = first or index
            assert index is first
            assert index.count(fd)
            assert (index.size, index.ends) == (len(data), data.count(b"\n"))


def test_what_is_known_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, b"line\n" * 100_000)
    kept = LineIndexes()
    with opened(path) as fd:
        kept.of(str(path), fd).count(fd)
    with path.open("ab") as file:
        file.write(b"more\n")
    taken: list[int] = []
    take = LineIndex._take

    def note(self: LineIndex, data: bytearray, got: int) -> None:
        taken.append(got)
        take(self, data, got)

    monkeypatch.setattr(LineIndex, "_take", note)
    with opened(path) as fd:
        index = kept.of(str(path), fd)
        index.count(fd)
    assert (taken, index.ends) == ([5], 100_001)


@pytest.mark.parametrize(
    "case",
    ["shorter", "empty", "another", "in the middle", "at the beginning", "and longer", "replaced"],
)
def test_what_is_another_file_by_now_is_counted_anew(case: str, tmp_path: Path) -> None:
    path = written(tmp_path, b"one\ntwo\n" * 100)
    kept = LineIndexes()
    with opened(path) as fd:
        kept.of(str(path), fd).count(fd)
    text = {
        "shorter": b"one\n",
        "another": b"x" * 800,
        "empty": b"",
        "in the middle": b"one\ntwo\n" * 40 + b"\n" * 160 + b"one\ntwo\n" * 40,
        "at the beginning": b"\n" * 400 + b"one\ntwo\n" * 60,
        "and longer": b"\n" * 900,
        "replaced": b"one\ntwo\n" * 100 + b"three",
    }[case]
    if case == "replaced":
        other = tmp_path / "other"
        other.write_bytes(text)
        other.replace(path)
    else:
        path.write_bytes(text)
        os.utime(path, ns=(1, 1))
    with opened(path) as fd:
        before = kept._known[str(path)]
        index = kept.of(str(path), fd)
        index.count(fd)
        assert (index.size, index.ends) == (len(text), text.count(b"\n"))
        assert index is not before


def test_a_file_that_is_cut_meanwhile_is_no_error(tmp_path: Path) -> None:
    path = written(tmp_path, b"line\n" * 50_000)
    with opened(path) as fd:
        index = LineIndex()
        index.count(fd)
        os.truncate(path, 7)
        for offset in (0, 3, 100_000, 250_000):
            for ask in (index.ends_before, index.start_from, index.start_before, index.start_of):
                assert 0 <= ask(fd, offset) <= 250_000
        assert not index.continues(fd)


def test_a_giant_file_is_counted_in_several_calls(tmp_path: Path) -> None:
    with opened(written(tmp_path, b"line\n" * 1000)) as fd:
        index = LineIndex()
        assert [index.count(fd, 2000) for _ in range(3)] == [False, False, True]
        assert (index.size, index.ends) == (5000, 1000)


def test_little_is_kept_of_however_large_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_index, "MOST_BLOCKS", 64)
    with opened(written(tmp_path, b"ab\n" * 100_000)) as fd:
        index = LineIndex(block_bytes=16)
        index.count(fd)
        assert len(index._before) <= 64
        assert [index.start_of(fd, number) for number in (1, 55_555, 99_999)] == [
            3,
            166_665,
            299_997,
        ]


def test_only_the_files_that_were_asked_for_last_are_kept(tmp_path: Path) -> None:
    kept = LineIndexes(kept_files=2)
    with opened(written(tmp_path, b"a\n")) as fd:
        first = kept.of("first", fd)
        first.count(fd)
        kept.of("second", fd).count(fd)
        assert kept.of("first", fd) is first
        kept.of("third", fd)
        assert list(kept._known) == ["first", "third"]


def test_a_piece_is_clean_only_as_long_as_no_more_is_secret() -> None:
    pieces = CleanPieces()
    pieces.note(3, 1, is_clean=True)
    assert [pieces.has(piece, 1) for piece in (2, 3, 4)] == [False, True, False]
    assert not pieces.has(3, 2)
    pieces.note(0, 2, is_clean=True)
    pieces.note(3, 1, is_clean=True)  # by who began before
    assert (pieces.has(0, 2), pieces.has(3, 2), pieces.has(3, 1)) == (True, False, False)
    pieces.note(0, 2, is_clean=False)
    assert not pieces.has(0, 2)
    pieces.note(1 << 40, 2, is_clean=True)
    assert not pieces.has(1 << 40, 2)
