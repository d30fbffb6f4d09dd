"""Files that survive a crash: replacing, locking, reading from the end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from lib import files
from lib.errors import LockTimeoutError


@pytest.mark.parametrize("durable", [True, False])
def test_a_replaced_file_holds_the_data_with_the_mode_and_leaves_nothing(
    tmp_path: Path, durable: bool
) -> None:
    path = tmp_path / "file"
    for data in (b"first", b"", b"x" * 100_000):
        files.replace_file(str(path), data, 0o600, durable)
        assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_replacement_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_fd: int, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(OSError, match="No space"):
        files.replace_file(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_created_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not files.create_file(str(path), b"x" * (files.ONE_WRITE_BYTES + 1), 0o600)
    assert not path.exists()
    assert files.create_file(str(path), b"first", 0o600)
    assert not files.create_file(str(path), b"second", 0o600)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"first", 0o600)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert not files.create_file(str(tmp_path / "link"), b"", 0o600)
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_a_file_is_extended_as_long_as_one_write_cannot_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 4000)
    assert files.extend_file(str(path), b"b" * 96)
    assert path.read_bytes() == b"a" * 4000 + b"b" * 96
    assert not files.extend_file(str(path), b"c")
    assert path.stat().st_size == 4096


def test_on_a_full_disk_no_part_of_a_write_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").write_bytes(b"old")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    with pytest.raises(OSError, match="No space"):
        files.extend_file(str(tmp_path / "old"), b"more than three")
    with pytest.raises(OSError, match="No space"):
        files.create_file(str(tmp_path / "new"), b"more than three", 0o600)
    assert (tmp_path / "old").read_bytes() == b"old"
    assert (tmp_path / "new").read_bytes() == b""


def test_a_write_that_takes_a_part_only_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    files.write_all(fd, b"0123456789")
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_only_temporary_files_of_ours_are_cleared(tmp_path: Path) -> None:
    for name in (".a.1.tmp", "b.tmp", ".c"):
        (tmp_path / name).touch()
    files.remove_temporaries(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".c", "b.tmp"]


def test_a_lock_keeps_others_out_until_it_is_closed_and_names_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    assert files.is_locked(path) is False
    first, second = files.open_lock(path), files.open_lock(path)
    try:
        files.lock(first, 1, "the thing")
        assert files.is_locked(path) is True
        assert files.try_lock(second) is False
        with pytest.raises(LockTimeoutError) as caught:
            files.lock(second, 0.01, "the thing")
        assert str(caught.value).startswith("lock timeout: the thing locked for >0.01s by pid ")
        assert str(os.getpid()) in str(caught.value)
    finally:
        os.close(first)
    assert files.try_lock(second) is True
    os.close(second)
    assert files.is_locked(path) is False


def test_looking_at_a_lock_makes_no_file(tmp_path: Path) -> None:
    assert files.is_locked(str(tmp_path / "none")) is False
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "count", "lines"),
    [
        (b"", 3, []),
        (b"one\n", 3, ["one"]),
        (b"one\ntwo\nthree", 2, ["two", "three"]),
        (b"a\xe2\x80\xa8b\n\n", 5, ["a\u2028b", ""]),
        (b"\xff\n", 1, ["\ufffd"]),
        (b"one\n", 0, []),
    ],
)
def test_the_last_lines_end_at_line_feeds_only(
    tmp_path: Path, data: bytes, count: int, lines: list[str]
) -> None:
    (tmp_path / "file").write_bytes(data)
    assert files.last_lines(str(tmp_path / "file"), count) == lines


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    assert (files.size(path), files.read_tail(path, 10), files.remove(path)) == (0, b"", False)


def test_the_tail_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert files.read_tail(str(tmp_path / "file"), 4) == b"6789"
    assert files.read_tail(str(tmp_path / "file"), 40) == b"0123456789"


def test_walking_up_ends_at_the_top() -> None:
    assert list(files.walk_up("/a/b")) == ["/a/b", "/a", "/"]


def test_waiting_says_whether_it_came_true() -> None:
    left = [False, False, True]
    assert files.wait_for(lambda: left.pop(0), 5, 0.001) is True
    assert files.wait_for(lambda: False, 0.01, 0.001) is False


@pytest.mark.parametrize("use", ["read_tail", "append_line", "is_locked", "open_lock"])
def test_a_pipe_in_the_place_of_a_file_blocks_nobody(tmp_path: Path, use: str) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    arguments = {"read_tail": (10,), "append_line": ("line",)}.get(use, ())

    with pytest.raises(OSError, match=r"not a regular file|No such device"):
        getattr(files, use)(pipe, *arguments)
