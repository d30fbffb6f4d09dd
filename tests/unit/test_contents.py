"""Large files of runs: made once for each change, few at a time, and kept within bounds."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from lib import redact
from lib.api import contents
from lib.api.contents import Contents
from lib.api.exchange import Refusal
from tests.api_app import App
from tests.stored_root import StoredRoot

SECONDS = 10.0
LARGE = "a line of a log\n" * 8000


class Maker:
    """Makes what a file holds, and counts how often."""

    def __init__(self, path: Path, text: str = LARGE) -> None:
        self.path = path
        self.count = 0
        self.write(text)

    def write(self, text: str, age_seconds: float = 60) -> None:
        self.path.write_text(text)
        seconds = time.time() - age_seconds
        os.utime(self.path, (seconds, seconds))

    def __call__(self) -> bytes:
        self.count += 1
        return self.path.read_bytes()

    def ask(self, kept: Contents) -> bytes:
        return kept.of(str(self.path), [str(self.path)], self)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "agent-stdout.txt")


def test_a_large_file_is_made_once_until_it_changes(maker: Maker) -> None:
    kept = Contents()
    assert {maker.ask(kept) for _ in range(3)} == {LARGE.encode()}
    assert maker.count == 1
    maker.write(LARGE + "more\n", 50)
    assert {maker.ask(kept) for _ in range(3)} == {f"{LARGE}more\n".encode()}
    assert maker.count == 2
    assert kept.of("another", [str(maker.path)], lambda: b"other") == b"other"


def test_it_is_made_again_when_a_token_becomes_known(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [1]
    monkeypatch.setattr(redact, "added", lambda: known[0])
    kept = Contents()
    maker.ask(kept)
    known[0] = 2
    maker.ask(kept)
    maker.ask(kept)
    assert maker.count == 2


def test_a_file_that_changes_just_now_is_not_kept(maker: Maker) -> None:
    kept = Contents()
    maker.write(LARGE, age_seconds=-60)
    maker.ask(kept)
    maker.ask(kept)
    assert maker.count == 2


def test_what_changes_while_it_is_read_is_not_kept(maker: Maker) -> None:
    kept = Contents()

    def make() -> bytes:
        data = maker()
        maker.write(LARGE.upper(), 50)
        return data

    assert kept.of(str(maker.path), [str(maker.path)], make) == LARGE.encode()
    assert maker.ask(kept) == LARGE.upper().encode()


def test_small_files_are_not_kept(tmp_path: Path) -> None:
    small = Maker(tmp_path / "small", "few\n")
    kept = Contents()
    small.ask(kept)
    small.ask(kept)
    assert small.count == 2


def test_the_ones_that_were_asked_for_last_stay_within_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "KEPT_BYTES", 2 * len(LARGE) + 10)
    kept = Contents()
    first, second, third = (Maker(tmp_path / name) for name in "abc")
    for maker in (first, second, first, third):
        maker.ask(kept)
    assert [maker.count for maker in (first, second, third)] == [1, 1, 1]
    for maker in (first, third, second):
        maker.ask(kept)
    assert [maker.count for maker in (first, second, third)] == [1, 2, 1]
    huge = Maker(tmp_path / "huge", LARGE * 3)
    huge.ask(kept)
    huge.ask(kept)
    assert huge.count == 2, "what is above the bound alone is not kept"


def test_few_are_made_at_once_and_the_others_wait_or_are_refused(
    tmp_path: Path, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "WAIT_SECONDS", 0.05)
    kept, go_on = Contents(), threading.Event()
    begun = threading.Semaphore(0)
    maker.ask(kept)

    def make() -> bytes:
        begun.release()
        assert go_on.wait(SECONDS)
        return b"made"

    paths = [str(Maker(tmp_path / str(number)).path) for number in range(contents.AT_ONCE + 1)]
    threads = [threading.Thread(target=kept.of, args=(path, [path], make)) for path in paths[:-1]]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            assert begun.acquire(timeout=SECONDS)
        with pytest.raises(Refusal, match="too many large files") as caught:
            kept.of(paths[-1], paths[-1:], make)
        assert caught.value.status == 503
        assert maker.ask(kept) == LARGE.encode(), "what is kept needs no place"
    finally:
        go_on.set()
        for thread in threads:
            thread.join(SECONDS)
    assert kept.of(paths[-1], paths[-1:], make) == b"made"


def test_one_that_fails_makes_room_for_others(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "WAIT_SECONDS", 0.0)
    kept = Contents()

    def fail() -> bytes:
        raise Refusal(404, "file not found: stdout")

    for _ in range(contents.AT_ONCE + 1):
        with pytest.raises(Refusal, match="file not found"):
            kept.of(str(maker.path), [str(maker.path)], fail)
    assert maker.ask(kept) == LARGE.encode()


@pytest.mark.parametrize("size", [100, len(LARGE)])
def test_the_file_of_a_run_is_told_as_it_is_now(tmp_path: Path, size: int) -> None:
    root = StoredRoot(tmp_path / "root")
    folder = root.task("build")
    run = root.run(folder, task_id="build")
    file = Maker(run / "agent-stdout.txt", LARGE[:size])
    app = App(root.runs_dir)
    address = f"/api/projects/demo/tasks/build/runs/{run.name}/file?name=stdout"
    for age_seconds, text in ((60, LARGE[:size]), (50, LARGE[:size].upper())):
        file.write(text, age_seconds)
        for _ in range(2):
            shown = app.ok(address)
            assert (shown["content"], shown["size_bytes"], shown["name"]) == (text, size, "stdout")
    secret = tmp_path / "secret"
    file.path.rename(secret)
    file.path.symlink_to(secret)
    assert app.get(address).status == 404
