"""The files of a run by their lines: pages, matches and downloads of whatever an agent wrote."""

from __future__ import annotations

import os
import random
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lib import redact, runs
from lib.api import line_search, line_text, run_lines
from lib.api.exchange import Request
from lib.api.line_index import LineIndex
from lib.api.line_search import Wanted
from tests.api_app import App, faults
from tests.stored_root import RUNNING, THIS_MACHINE, StoredRoot, held, snapshot

SECRET = "ghp_" + "0123456789abcdef" * 2
KEY_LINES = [
    "-----BEGIN RSA PRIVATE KEY-----",
    *("MIIEpAIBAAKCAQEA" * 4 for _ in range(20)),
    "-----END RSA PRIVATE KEY-----",
]
KEY = "\n".join(KEY_LINES) + "\n"
PIECE = line_search.PIECE_BYTES


class Written:
    """A run whose stdout a test writes, and a server that is asked for it."""

    def __init__(self, path: Path, **fields: Any) -> None:
        self.root = StoredRoot(path / "root")
        self.folder = self.root.run(self.root.task("build"), **fields)
        self.path = self.folder / runs.STDOUT
        self.write(b"")
        self.app = App(self.root.runs_dir)
        self.address = f"/api/v1/runs/{self.folder.name}"

    def write(self, data: bytes) -> None:
        self.path.write_bytes(data)

    def _ok(self, what: str, query: dict[str, object]) -> Any:
        text = "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
        address = f"{self.address}/{what}?{text}"
        reply = self.app.get(address)
        assert reply.status == 200, (address, reply.body[:300])
        assert faults(address, reply) == []
        return reply.json

    def lines(self, **query: object) -> Any:
        return self._ok("lines", query)

    def find(self, q: str = "", **query: object) -> Any:
        return self._ok("find", {**({"q": q} if q else {}), **query})

    def found(self, q: str = "", **query: object) -> tuple[int, int, str] | None:
        found = self.find(q, **query)["found"]
        return (found["line"], found["offset"], found["text"]) if found else None

    def status(self, what: str) -> int:
        reply = self.app.get(f"{self.address}/{what}")
        assert faults(f"{self.address}/{what}", reply) == []
        return reply.status

    def raw(self, name: str = "stdout") -> tuple[bytes, dict[str, str]]:
        request = Request("GET", f"{self.address}/raw", query={"name": name})
        request.params["run"] = self.folder.name
        answer = run_lines.download(self.app.service, request)
        assert not isinstance(answer.body, bytes)
        return b"".join(answer.body), dict(answer.headers)


@pytest.fixture
def run(tmp_path: Path) -> Written:
    return Written(tmp_path)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Written]:
    written = Written(tmp_path, **RUNNING, **THIS_MACHINE, supervisor_pid=os.getpid())
    with held(written.folder / runs.LOCK):
        written.app = App(written.root.runs_dir)
        yield written


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search ends after some bytes, not after a time: that depends on the machine."""
    monkeypatch.setattr(line_search, "MOST_SECONDS", 1e9)


def some_lines(chance: random.Random, count: int) -> bytes:
    kinds = [
        b"",
        b"short",
        b"CR LF\r",
        b"a\rb",
        b"x" * 400,
        b"\xff\xfe\0",
        "grün 世界".encode(),
        b" ",
    ]
    data = b"\n".join(chance.choices(kinds, k=count))
    return data + chance.choice([b"", b"\n", b"\nend"])


def shown(data: bytes) -> list[str]:
    lines = data.decode("utf-8", "replace").split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


# -- pages


def test_lines_are_whole_and_have_their_numbers(run: Written) -> None:
    run.write(b"one\ntwo\r\nthree\n\nfive")
    assert run.lines() == {
        "name": "stdout", "size": 20, "offset": 0, "end": 20, "first_line": 1, "line_count": 5,
        "is_live": False, "lines": ["one", "two", "three", "", "five"], "cut": [],
    }  # fmt: skip
    assert run.lines(line=4)["lines"] == ["", "five"]
    assert (run.lines(offset=4)["lines"][0], run.lines(offset=5)["lines"][0]) == ("two", "three")
    assert (run.lines(offset=17)["lines"], run.lines(offset=99)["lines"]) == ([], [])
    assert run.lines(before=9)["lines"] == run.lines(before=11)["lines"] == ["one", "two"]
    last = run.lines(end=1, limit=1)
    assert (last["lines"], last["first_line"], last["offset"]) == (["five"], 5, 16)


def test_a_file_without_lines_has_none(run: Written) -> None:
    for query in ({}, {"offset": 0}, {"line": 1}, {"before": 0}, {"before": 7}, {"end": 1}):
        page = run.lines(**query)
        assert (page["lines"], page["offset"], page["end"]) == ([], 0, 0)
        assert (page["first_line"], page["line_count"]) == (1, 0)


@pytest.mark.parametrize("seed", range(6))
def test_pages_in_either_direction_are_the_whole_file(seed: int, run: Written) -> None:
    chance = random.Random(seed)  # noqa: S311
    data = some_lines(chance, chance.randrange(200))
    run.write(data)
    limit = chance.choice([1, 60, 1000, 1 << 20])
    found: list[str] = []
    at = 0
    while at < len(data):
        page = run.lines(offset=at, limit=limit)
        assert (page["offset"], page["first_line"]) == (at, len(found) + 1)
        assert len(page["lines"]) == 1 or page["end"] - at <= limit
        found += page["lines"]
        at = page["end"]
    assert found == shown(data)
    assert run.lines(offset=at)["lines"] == []

    back: list[str] = []
    at = len(data)
    while at > 0:
        page = run.lines(before=at, limit=limit)
        assert page["end"] == at
        assert page["first_line"] == len(found) - len(back) - len(page["lines"]) + 1
        back = page["lines"] + back
        at = page["offset"]
    assert back == found
    for number in chance.sample(range(1, len(found) + 2), min(5, len(found))):
        page = run.lines(line=number, limit=limit)
        assert (page["lines"][:1], page["first_line"]) == (found[number - 1 : number], number)


def test_the_line_that_is_being_written_waits_for_its_end(live: Written) -> None:
    live.write(b"one\ntwo")
    page = live.lines(end=1)
    assert (page["lines"], page["end"], page["line_count"], page["size"]) == (["one"], 4, 1, 7)
    assert page["is_live"] is True
    assert live.lines(offset=5)["end"] == 4
    live.write(b"one\ntwo\nthr")
    assert (live.lines(offset=4)["lines"], live.lines(offset=4)["first_line"]) == (["two"], 2)
    assert (live.find("two")["found"] is None, live.find("thr")["found"]) == (False, None)


@pytest.mark.parametrize(
    "query",
    [
        "offset=-1", "offset=NaN", "offset=1e3", "offset=9999999999999999999", "offset=%D9%A1",
        "line=0", "line=-3", "line=inf", "before=-1", "before=x", "limit=0", "limit=-5",
        "limit=1048577", "limit=nan", "end=2", "offset=1&line=2", "end=1&before=3",
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused(query: str, run: Written) -> None:
    assert run.status(f"lines?{query}") == 400


@pytest.mark.parametrize(
    "query",
    ["", "q=a&kind=error", "kind=warning", "q=a%0Ab", f"q={'x' * 1001}", "q=a&offset=-1",
     "q=a&offset=NaN", "q=a&backward=2"],
)  # fmt: skip
def test_a_search_that_makes_no_sense_is_refused(query: str, run: Written) -> None:
    assert run.status(f"find?{query}") == 400


def test_files_that_are_none_are_not_there(run: Written, tmp_path: Path) -> None:
    (run.folder / runs.STDERR).symlink_to("/etc/hostname")
    os.mkfifo(run.folder / runs.OUTPUT)
    (run.folder / runs.PROMPT).mkdir()
    for what in ("lines?", "find?q=a&", "raw?"):
        for name in ("stderr", "output.md", "prompt.md", "verify.txt", "no-such", "..", "%00"):
            assert run.status(f"{what}name={name}") == 404
        assert run.app.get(f"/api/v1/runs/no-such/{what}").status == 404


def test_every_file_of_a_run_can_be_asked_for(run: Written) -> None:
    for name, on_disk in run_lines.ON_DISK.items():
        (run.folder / on_disk).write_text(f"in {name}\n")
        page = run.lines(name=name)
        assert (page["name"], page["lines"]) == (name, [f"in {name}"])


def test_nothing_is_written(run: Written) -> None:
    run.write(b"one\ntwo\n")
    before = snapshot(run.root.path)
    run.lines()
    run.find("two")
    run.raw()
    assert snapshot(run.root.path) == before


def test_a_file_may_shrink_vanish_and_come_back_between_two_pages(run: Written) -> None:
    run.write(b"first\n" * 50_000)
    page = run.lines(line=40_000)
    run.write(b"other\nshort\n")
    again = run.lines(offset=page["end"])
    assert (again["lines"], again["end"], again["line_count"]) == ([], 12, 2)
    assert run.found("short") == (2, 6, "short")
    run.path.unlink()
    assert (run.status("lines"), run.status("find?q=a")) == (404, 404)
    run.write(b"new\n" * 3)
    assert (run.lines(end=1)["line_count"], run.found("other")) == (3, None)


@pytest.mark.parametrize("what", ["lines", "find"])
def test_a_file_that_is_cut_while_it_is_read_is_no_error(
    what: str, run: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write(b"some line\n" * 50_000)
    real = line_text.Extent

    def cut(*args: Any, **keys: Any) -> Any:
        extent = real(*args, **keys)
        os.truncate(run.path, 100_004)
        return extent

    monkeypatch.setattr(run_lines, "Extent", cut)
    if what == "lines":
        page = run.lines(offset=99_990)
        assert (page["lines"], page["end"]) == (["some line"], 100_000)
    else:
        assert run.find("nowhere") == {"found": None, "next": None}


# -- long lines


def test_of_a_long_line_the_beginning_is_shown(run: Written) -> None:
    run.write(b"a\n" + b"x" * 100_000 + b"\nb\n" + b"y" * 20_000 + b"\n")
    page = run.lines()
    assert [len(line) for line in page["lines"]] == [1, 20_000, 1, 20_000]
    assert (page["cut"], page["end"]) == ([1], page["size"])


def test_a_line_of_50_mb_costs_little_memory(run: Written) -> None:
    with run.path.open("wb") as file:
        file.write(b"before\n")
        for number in range(400):
            file.write(b"%5d " % number + b"z" * 131_066)
        file.write(b"\nafter\n")
    size = run.path.stat().st_size
    run.app.service.view.refresh()
    tracemalloc.start()
    page = run.lines(offset=7, limit=1000)
    found = run.found("after")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20
    assert (page["end"], page["cut"], len(page["lines"][0])) == (size - 6, [0], 20_000)
    assert (page["first_line"], page["line_count"]) == (2, 3)
    assert found == (3, size - 6, "after")
    assert run.lines(end=1, limit=100)["lines"] == ["after"]
    back = run.lines(before=size - 6, limit=100)
    assert (back["lines"], back["offset"]) == (page["lines"], 7)
    assert run.found("before", backward=1, offset=size - 6) == (1, 0, "before")
    assert (run.found("    3 z") or (0,))[0] == 2
    assert run.found("  300 z") is None  # too far inside a line to be looked at


def test_lines_that_follow_on_a_long_one_are_not_lost(run: Written) -> None:
    run.write(b"x" * 400_000 + b"\n" + b"next\n" * 100)
    page = run.lines(limit=1 << 20)
    assert (len(page["lines"]), page["cut"], page["lines"][-1]) == (101, [0], "next")


# -- secrets


def fragments(secret: str) -> list[str]:
    """Pieces of a secret, each long enough that it is not there by chance."""
    return [secret[at : at + 12] for at in range(0, len(secret) - 11, 4)]


def assert_hidden(text: str, secret: str = SECRET) -> None:
    for part in fragments(secret):
        assert part not in text


@pytest.mark.parametrize("border", [20_000, PIECE, 2 * PIECE])
def test_a_secret_is_hidden_wherever_the_borders_fall(border: int, run: Written) -> None:
    for before in (0, 5, 20, 36, 37):
        filler = b"w " * ((border - before) // 2)
        run.write(b"\n" + filler + SECRET.encode() + b" end\n" + SECRET.encode() + b"\nlast\n")
        for query in ({}, {"offset": 1}, {"end": 1}, {"before": border}, {"limit": 1}):
            assert_hidden("\n".join(run.lines(**query)["lines"]))
        assert_hidden(run.raw()[0].decode())
        for part in fragments(SECRET)[:: 1 if border == PIECE else 7]:
            assert run.find(part) == {"found": None, "next": None}
            assert run.find(part, backward=1) == {"found": None, "next": None}
        assert (run.found("last") or (0,))[0] == 4


def test_a_secret_in_an_endless_line_is_hidden_where_it_is_cut(run: Written) -> None:
    # Of half a token that is short, nobody could say that it is one.
    searched = PIECE + line_search.LINE_BYTES - 16
    for length in (65_500, 73_700, 294_900, searched):
        data = b"," * length + SECRET.encode() + b"," * 300_000
        run.write(data + b"\n" + data + b"\nlast\n")
        page = run.lines(limit=1)
        assert page["cut"] == [0]
        assert_hidden(page["lines"][0])
        for part in fragments(SECRET)[:1]:
            assert run.find(part) == {"found": None, "next": None}


def test_where_a_line_of_secrets_is_cut_no_half_of_one_is_shown(run: Written) -> None:
    token = b"ghp_" + b"0123456789" * 100
    read = line_text._BEGINNING_BYTES
    for shown_of_last in (4, 10, 16, 19):
        before = (read - shown_of_last) % (len(token) + 1)
        run.write(b"," * before + (token + b",") * 320 + b"\n")
        page = run.lines(limit=1)
        assert page["cut"] == [0]
        assert "ghp_" not in page["lines"][0]


def test_a_key_of_several_lines_leaves_the_numbers_of_lines_as_they_are(run: Written) -> None:
    data = "one\n" + KEY + "behind\n" + KEY.replace("\n", "\r\n") + "last\n"
    run.write(data.encode())
    lines = run.lines()["lines"]
    count = len(KEY_LINES)
    assert len(lines) == 2 * count + 3
    assert (lines[0], lines[count + 1], lines[-1]) == ("one", "behind", "last")
    assert lines[1 : count + 1] == [redact.MARK] + [""] * (count - 1)
    for number in range(1, len(lines) + 1):
        page = run.lines(line=number, limit=200)
        assert_hidden("\n".join(page["lines"]), KEY_LINES[3])
        assert (page["first_line"], page["lines"][0]) == (number, lines[number - 1])
    assert run.found("last") == (2 * count + 3, len(data) - 5, "last")
    assert run.found("behind", backward=1) == (count + 2, 4 + len(KEY), "behind")
    assert run.found(KEY_LINES[3][:16]) is None
    assert run.found(KEY_LINES[3][:16], offset=4 + len(KEY_LINES[0]) + 1) is None


def test_a_key_is_not_shown_where_a_piece_begins_inside_of_it(run: Written) -> None:
    for before in range(0, len(KEY), 263):
        filler = b"w" * 99 + b"\n"
        head = filler * (PIECE // 100 - 1)
        head += b"v" * (PIECE - len(head) - before - 1) + b"\n"
        run.write(head + KEY.encode() + filler * 2000 + b"last\n")
        assert run.found(KEY_LINES[3][:16]) is None
        assert run.found(KEY_LINES[3][:16], backward=1) is None
        assert run.found(KEY_LINES[3][:16], offset=PIECE) is None
        assert run.found("last", offset=PIECE) is not None


def test_a_search_sees_what_is_shown_and_nothing_else(run: Written) -> None:
    run.write(b"no\nhere: " + SECRET.encode() + b" it is\nno\n")
    for wanted in ("redacted", "[REDACTED] it", "here: [", "D] it"):
        assert run.found(wanted) == (2, 3, f"here: {redact.MARK} it is")
    for guess in ("ghp_", "here: g", "f it is", SECRET[:5]):
        assert run.find(guess) == {"found": None, "next": None}


def test_what_is_looked_at_does_not_depend_on_the_guess(
    run: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the time that an answer takes would tell whether a guess is right."""
    run.write((f"token {SECRET} and so on\n" + "plain text\n" * 20_000).encode() * 3)
    looked: list[int] = []
    lines = line_text.Redaction.lines

    def note(self: line_text.Redaction, data: bytes) -> list[str]:
        looked.append(len(data))
        return lines(self, data)

    monkeypatch.setattr(line_text.Redaction, "lines", note)
    seen = []
    for guess in ("nothing", "ghp_0123", "ghp_0124", "nothing"):
        looked.clear()
        assert run.find(guess) == {"found": None, "next": None}
        seen.append(list(looked))
    assert seen[1] == seen[2] == seen[3]
    assert 0 < sum(seen[1]) < sum(seen[0]) / 2  # what is clean was redacted once


def test_what_becomes_secret_later_is_not_found_any_more(run: Written) -> None:
    run.write(b"say OpenSesame99 now\n" + b"plain text\n" * 30_000)
    assert run.found("opensesame") == (1, 0, "say OpenSesame99 now")
    assert run.found("opensesame") is not None  # and now it is known to be clean
    before = redact._extra[:]
    redact.add_tokens(["OpenSesame99"])
    try:
        assert run.found("opensesame") is None
        assert run.found("[redacted] now") is not None
    finally:
        redact._extra[:] = before
        redact._note_change()


def test_a_clean_piece_that_is_written_over_shows_no_secret(run: Written) -> None:
    head = b"head\n" * 100
    data = head + b"plain text\n" * 30_000
    run.write(data)
    assert run.find("nothing")["found"] is None
    with run.path.open("r+b") as file:  # at both ends it is as it was
        file.seek(1001)
        file.write(SECRET.encode())
        file.seek(0, os.SEEK_END)
        file.write(b"more\n")
    for part in fragments(SECRET):
        assert run.found(part) is None
    assert (run.found("more") or (0,))[0] > 30_000


def test_the_search_is_limited_by_what_it_looks_through(
    run: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write(b"line of text\n" * 40_000 + b"needle\n" + b"line of text\n" * 40_000)
    monkeypatch.setattr(line_search, "MOST_BYTES", 100_000)
    size = run.path.stat().st_size
    for backward, start in ((0, 0), (1, size)):
        at, calls = start, 0
        answer = run.find("NEEDLE", offset=at, backward=backward)
        while answer["found"] is None:
            assert answer["next"] is not None
            assert 0 < abs(answer["next"] - at) <= 100_000 + 2 * PIECE
            at, calls = answer["next"], calls + 1
            answer = run.find("NEEDLE", offset=at, backward=backward)
        assert answer["found"] == {"line": 40_001, "offset": 520_000, "text": "needle"}
        assert calls >= 3


def test_a_search_that_takes_long_goes_on_with_the_next_call(
    run: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write(b"line of text\n" * 40_000)
    monkeypatch.setattr(line_search, "MOST_SECONDS", -1.0)
    assert run.find("needle")["next"] == -(-PIECE // 13) * 13
    assert 0 < run.find("needle", backward=1)["next"] < 520_000


# -- matches


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_those_of_reading_every_line(
    seed: int, run: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)  # noqa: S311
    monkeypatch.setattr(line_search, "PIECE_BYTES", chance.choice([16, 100, 1000]))
    data = some_lines(chance, 120)
    run.write(data)
    lines = shown(data)
    for wanted in ("SHORT", "ü", "x" * 300, "b", "\ufffd", "nowhere", "世", "end"):
        expected = [at for at, line in enumerate(lines, 1) if wanted.lower() in line.lower()]
        for _ in range(2):  # the second time, what is clean is known
            forward, at = [], 0
            while (answer := run.find(wanted, offset=at))["found"]:
                found = answer["found"]
                forward.append(found["line"])
                assert run.lines(offset=found["offset"], limit=1)["first_line"] == found["line"]
                assert answer["next"] > at
                at = answer["next"]
            backward, end = [], len(data)
            while (answer := run.find(wanted, offset=end, backward=1))["found"]:
                backward.append(answer["found"]["line"])
                assert answer["next"] < end or end == 0
                end = answer["next"]
            assert forward == expected == backward[::-1], wanted


def test_of_a_long_line_the_place_of_the_match_is_shown(run: Written) -> None:
    run.write(b"a" * 30_000 + b"NEEDLE" + b"b" * 30_000 + b"\n")
    found = run.found("needle")
    assert found is not None
    assert len(found[2]) == 300
    assert "aNEEDLEb" in found[2]


@pytest.mark.parametrize(
    "line",
    [
        "error: no such file", "TypeError: x is not callable", "Traceback (most recent call last):",
        "thread 'main' panicked at src/main.rs", "3 tests FAILED", "Killed", "FATAL: no memory",
        '{"type":"result","is_error":true}', "10 errors", "Permission denied", '"error":"too long"',
    ],
)  # fmt: skip
def test_what_tells_of_an_error_is_found(line: str, run: Written) -> None:
    run.write(f"all is well\n{line}\nfine\n".encode())
    assert run.found(kind="error") == (2, 12, line)
    assert run.found(kind="error", backward=1) == (2, 12, line)


@pytest.mark.parametrize(
    "line",
    ['{"is_error":false}', '{"error": null}', "0 errors, 0 failed", "no errors", "failed: 0",
     '"errors": []', "mirror", '"error":""'],
)  # fmt: skip
def test_what_tells_that_there_was_no_error_is_none(line: str) -> None:
    wanted = Wanted()
    assert wanted.find(wanted.fold(line.encode())) == -1


def test_no_match_of_what_tells_of_an_error_looks_through_all_that_follow() -> None:
    repeated = re.findall(rb"(?<![(\\])[*+]", line_search._ERROR.pattern)
    assert repeated == [], "a line of one word would be looked through as often as it has it"
    assert Wanted().find(b"error" * 200_000, last=True) == 999_995


# -- downloads


def test_a_download_is_the_whole_file_without_its_secrets(run: Written) -> None:
    data = (f"{'w ' * 40}\n" * 3000 + f"token {SECRET}\r\n" + KEY).encode() * 5 + b"\xff end"
    run.write(data)
    got, headers = run.raw()
    text = data.decode("utf-8", "replace")
    assert got.decode() == text.replace(SECRET, redact.MARK).replace(KEY, f"{redact.MARK}\n")
    assert headers["Content-Type"].startswith("text/plain")
    name = f"{run.folder.name}-stdout.txt"
    assert headers["Content-Disposition"] == f'attachment; filename="{name}"'


def test_a_download_of_a_live_run_leaves_out_what_is_half_written(live: Written) -> None:
    live.write(f"one\n{SECRET[:20]}".encode())
    assert live.raw()[0] == b"one\n"


def test_a_download_that_nobody_takes_leaves_no_file_open(run: Written) -> None:
    run.write(b"line\n" * 100_000)
    before = len(os.listdir("/dev/fd"))
    request = Request("GET", run.address, query={})
    request.params["run"] = run.folder.name
    for taken in (0, 1):
        body = run_lines.download(run.app.service, request).body
        assert not isinstance(body, bytes)
        for _ in range(taken):
            next(iter(body))
        body.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/dev/fd")) == before


def test_too_many_searches_at_once_are_put_off(
    run: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lines, "WAIT_SECONDS", 0.0)
    run.write(b"a\n")
    taken = [run.app.service.lines.searching() for _ in range(run_lines.AT_ONCE)]
    for place in taken:
        place.__enter__()
    assert run.status("find?q=a") == 503
    for place in taken:
        place.__exit__(None, None, None)
    assert run.status("find?q=a") == 200


def test_a_file_that_takes_too_long_to_count_is_put_off(
    run: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write(b"line\n" * 1000)
    count = LineIndex.count
    monkeypatch.setattr(LineIndex, "count", lambda index, fd: count(index, fd, 4000))
    assert [run.status("lines?end=1") for _ in range(2)] == [503, 200]
