"""What a run wrote as events: the same lines, whoever reads them, when, and from where."""

from __future__ import annotations

import base64
import json
import os
import random
from pathlib import Path

import pytest

from lib import redact, runs
from lib.api import cursors
from lib.api.cursors import Cursor
from lib.api.run_logs import CUT, MAX_LINE, Place, RunLog

TOKEN = "ghp_" + "a1B2" * 9
KEY = [
    b"-----BEGIN RSA PRIVATE KEY-----", *[b"MIIEpAIBAAKCAQEA7bq9" * 3] * 4,
    b"-----END RSA PRIVATE KEY-----",
]  # fmt: skip
Line = tuple[str, str, str]  # id, stream, line


def log_of(folder: Path) -> RunLog:
    return RunLog(str(folder), "demo", "build")


def lines_in(data: bytes) -> list[Line]:
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        fields = dict(row.split(": ", 1) for row in block.split("\n"))
        assert fields["event"] == "log"
        value = json.loads(fields["data"])
        found.append((fields["id"], value["stream"], value["line"]))
    return found


def rest(folder: Path, place: Place = (0, 0), until: Place | None = None) -> list[Line]:
    log = log_of(folder)
    log.start_at(place)
    return lines_in(b"".join(log.rest("", until)))


def odd_output(chance: random.Random, count: int) -> bytes:
    """Lines of all kinds that an agent may write, one of them too long."""
    kinds: list[list[bytes]] = [
        [b"plain"], [b""], [b"with carriage return\r"], [b"progress 1\rprogress 2"],
        [b"\xff\xfe broken \xe2\x82"], ["ümläut \u2028 🎉".encode()], [b"token " + TOKEN.encode()],
        KEY, [b"a" * 5000], [b'{"type":"assistant"}'], [b"\x1b[31mred\x1b[0m"],
    ]  # fmt: skip
    rows = [row for _ in range(count) for row in chance.choice(kinds)]
    rows.insert(len(rows) // 2, b"word " * (MAX_LINE // 4))
    return b"\n".join(rows) + b"\n"


def test_what_a_line_says_does_not_hang_on_where_the_reader_begins(tmp_path: Path) -> None:
    chance = random.Random(6)  # noqa: S311
    (tmp_path / runs.STDOUT).write_bytes(odd_output(chance, 400))
    (tmp_path / runs.STDERR).write_bytes(odd_output(chance, 60))
    whole = rest(tmp_path)
    assert [line[0] for line in whole[:2]] == ["s=1;e=0", "s=2;e=0"]
    total = sum(line[1] == "stdout" for line in whole)
    errors = len(whole) - total
    assert total == (tmp_path / runs.STDOUT).read_bytes().count(b"\n")
    for _ in range(60):
        s, e = chance.randrange(total + 1), chance.randrange(errors + 1)
        found = rest(tmp_path, (s, e))
        assert [line[1:] for line in found] == [
            line[1:] for line in [*whole[s:total], *whole[total + e :]]
        ]
        assert [line[0] for line in found if line[1] == "stdout"] == [
            f"s={n};e={e}" for n in range(s + 1, total + 1)
        ]


def test_a_secret_is_in_no_line(tmp_path: Path) -> None:
    (tmp_path / runs.STDOUT).write_bytes(b"\n".join([b"a", *KEY, b"b " + TOKEN.encode(), b""]))
    told = [line for _, _, line in rest(tmp_path)]
    assert told == ["a", *[redact.MARK] * len(KEY), f"b {redact.MARK}"]
    for place in range(1, len(KEY)):  # from inside of the key
        assert [line for _, _, line in rest(tmp_path, (place, 0))] == told[place:]


def test_how_the_writes_were_cut_makes_no_difference(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311
    data = odd_output(chance, 80)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / runs.STDOUT).write_bytes(data)
    (tmp_path / "live").mkdir()
    log, found, at = log_of(tmp_path / "live"), b"", 0
    while at < len(data):
        size = chance.choice([1, 7, 300, 4000, 90_000])
        with (tmp_path / "live" / runs.STDOUT).open("ab") as file:
            file.write(data[at : at + size])
        at += size
        found += log.take("")
    while more := log.take(""):
        found += more
    assert lines_in(found) == rest(tmp_path / "whole")


def test_an_overlong_line_is_cut_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / runs.STDOUT).write_bytes(b"x y " * MAX_LINE + b"\nnext\n")
    (_, _, first), (_, _, second) = rest(tmp_path)
    assert first.endswith(CUT)
    assert len(first) <= MAX_LINE + len(CUT)
    assert second == "next"


def test_a_last_line_without_an_end_counts_when_the_run_is_over(tmp_path: Path) -> None:
    (tmp_path / runs.STDOUT).write_bytes(b"one\ntwo")
    log = log_of(tmp_path)
    assert [line for _, _, line in lines_in(log.take(""))] == ["one"]
    assert log.take("") == b""
    assert lines_in(log.take("", unfinished=True)) == [("s=2;e=0", "stdout", "two")]
    assert rest(tmp_path, (2, 0)) == []  # a client that has got it does not get it again


def test_nothing_behind_the_wanted_place_is_told(tmp_path: Path) -> None:
    (tmp_path / runs.STDOUT).write_bytes(b"1\n2\n3\n")
    (tmp_path / runs.STDERR).write_bytes(b"1\n2\n")
    found = [(place, line) for place, _, line in rest(tmp_path, (0, 0), (2, 1))]
    assert found == [("s=1;e=0", "1"), ("s=2;e=0", "2"), ("s=2;e=1", "1")]


def test_what_was_written_before_is_skipped_by_whole_lines(tmp_path: Path) -> None:
    (tmp_path / runs.STDOUT).write_bytes(b"old\nhalf")
    log = log_of(tmp_path)
    sizes = log.sizes()
    with (tmp_path / runs.STDOUT).open("ab") as file:
        file.write(b" a line\nnew\n")
    log.skip_to_end(sizes)
    assert lines_in(log.take("")) == [
        ("s=2;e=0", "stdout", "half a line"),
        ("s=3;e=0", "stdout", "new"),
    ]


def test_a_file_that_was_cut_is_read_from_its_beginning(tmp_path: Path) -> None:
    (tmp_path / runs.STDOUT).write_bytes(b"one\ntwo\n")
    log = log_of(tmp_path)
    assert len(lines_in(log.take(""))) == 2
    (tmp_path / runs.STDOUT).write_bytes(b"new\n")
    assert log.has_more()
    assert lines_in(log.take("")) == [("s=1;e=0", "stdout", "new")]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody else\n")
    os.symlink(tmp_path / "secret", tmp_path / runs.STDOUT)
    assert rest(tmp_path) == []


# -- cursors


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s=5;e=2", (5, 2)), ("stdout:5, err=2", (5, 2)), ("e=2|s=5", (5, 2)), ("7", (7, 7)),
        ("s=0;e=0", (0, 0)), ("s=5;e=2;v=AAAA", (5, 2)), ("nonsense", None), ("s=-1", None),
        ("", None), ("s=" + "9" * 40, None), ("²", None),
    ],
)  # fmt: skip
def test_a_place_is_read_as_the_original_reads_it(text: str, place: Place | None) -> None:
    assert cursors.place_of(text) == place


def test_a_cursor_comes_back_from_an_id_as_it_was() -> None:
    keys = [cursors.key_of("/root/runs", f"/root/runs/demo/t/runs/{n}") for n in range(300)]
    places = {key: (n * n * n, n % 7) for n, key in enumerate(keys)}
    cursor = Cursor(places, 1_800_000_000_123_456_789)
    found = cursors.read(f"s=9;e=4{cursor.suffix(keys[5])}")
    assert found is not None
    assert found.time_ns == cursor.time_ns
    assert found.places == {**places, keys[5]: (9, 4)}
    assert keys[0] == cursors.key_of("/moved", "/moved/demo/t/runs/0")


def test_no_id_that_a_client_makes_up_is_more_than_useless() -> None:
    chance = random.Random(3)  # noqa: S311
    for _ in range(500):
        raw = chance.randbytes(chance.randrange(60))
        text = base64.urlsafe_b64encode(raw).decode()
        cursors.read(f"s=1;e=1;v={text}")
    for text in ("s=1;e=1;v=", "s=1;e=1;v=ä", "s=1;e=1;v=" + "A" * 9, ";v=AAAA", "v="):
        assert cursors.read(text) is None
    endless = base64.urlsafe_b64encode(b"\xff" * 400).decode()
    assert cursors.read(f"s=1;e=1;v={endless}") is None
