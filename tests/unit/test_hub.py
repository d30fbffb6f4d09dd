"""The hub: it tells of every change, with the kernel's help and without, and costs little."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lib import files
from lib.api import hub as hub_module
from lib.api import sse
from lib.api.feeds import Feed, Scope
from lib.api.hub import Hub, Signal
from lib.api.tree_watch import TreeWatch
from lib.api.view import View
from lib.index_entries import Changes
from tests.helpers import wait_until
from tests.stored_root import RUNNING, StoredRoot, held, write_record

SECONDS = 20.0


@contextmanager
def started(root: StoredRoot) -> Iterator[Hub]:
    hub = Hub(View(str(root.runs_dir)))
    hub.start()
    try:
        yield hub
    finally:
        hub.close()


@contextmanager
def started_by_hand(view: View) -> Iterator[Hub]:
    """A hub without its thread."""
    hub = Hub(view)
    try:
        yield hub
    finally:
        hub.close()


@pytest.fixture
def root(tmp_path: Path) -> StoredRoot:
    return StoredRoot(tmp_path / "root")


# -- files


def test_every_change_of_a_followed_file_is_told(root: StoredRoot, mode: str) -> None:
    path = root.path / "MESSAGE-BUS.md"
    with started(root) as hub:
        signal = hub.follow(str(path))
        for change in (
            lambda: path.write_text("it is there\n"),
            lambda: files.append_line(str(path), "more"),
            lambda: os.replace(_other(path), path),
            path.unlink,
            lambda: path.write_text("again\n"),
        ):
            seen = signal.count
            change()
            assert signal.wait(seen, SECONDS) > seen
            wait_until(lambda: _is_quiet(signal), what="the last of its echoes")
        hub.leave(str(path))


def _other(path: Path) -> Path:
    other = path.with_name("other")
    other.write_text("another file\n")
    return other


def _is_quiet(signal: Signal) -> bool:
    count = signal.count
    return signal.wait(count, 0.2) == count


def test_a_file_in_a_folder_that_is_not_there_yet_is_waited_for(
    root: StoredRoot, mode: str
) -> None:
    path = root.path / "later" / "file"
    with started(root) as hub:
        signal = hub.follow(str(path))
        path.parent.mkdir()
        path.write_text("x")
        assert signal.wait(0, SECONDS) > 0


def test_followers_of_a_file_share_a_signal_until_the_last_leaves(root: StoredRoot) -> None:
    with started(root) as hub:
        first = hub.follow("/nowhere/file")
        assert hub.follow("/nowhere/../nowhere/file") is first
        hub.leave("/nowhere/file")
        assert hub.follow("/nowhere/file") is first
        hub.leave("/nowhere/file")
        hub.leave("/nowhere/file")
        assert hub.follow("/nowhere/file") is not first


def test_when_the_hub_closes_nobody_waits_any_more(root: StoredRoot) -> None:
    with started(root) as hub:
        signal = hub.follow("/nowhere/file")
        waiting = [
            threading.Thread(target=signal.wait, args=(0, 600)),
            threading.Thread(target=hub.changes.wait, args=(-1, 600)),
        ]
        for thread in waiting:
            thread.start()
    for thread in waiting:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert hub.closing
    signal.wait(signal.count, 600)
    assert hub.follow("/nowhere/other").wait(0, 600) == 0


# -- runs


def test_it_knows_how_each_run_stands(root: StoredRoot, mode: str) -> None:
    task = root.task("build")
    done = root.run(task)
    live = root.run(task, **RUNNING)
    with held(live / ".lock"), started(root) as hub:
        wait_until(lambda: str(live) in hub.known, what="the first look")
        assert hub.known[str(done)] == ("completed", 0, False, True)
        assert hub.known[str(live)] == ("running", -1, True, False)
        seen = hub.changes.count
        write_record(live, status="failed", exit_code=3)
        assert hub.changes.wait(seen, SECONDS) > seen
        wait_until(lambda: hub.known[str(live)].status == "failed", what="its end")
        assert hub.known[str(live)] == ("failed", 3, False, True)
    assert set(hub.known) == {str(done), str(live)}


def test_a_run_is_over_when_its_supervisor_is_gone(root: StoredRoot, mode: str) -> None:
    live = root.run(root.task("build"), **RUNNING)
    with started(root) as hub:
        with held(live / ".lock"):
            wait_until(lambda: str(live) in hub.known, what="the first look")
        wait_until(lambda: hub.known[str(live)].is_over, what="nobody holds its lock")


def test_a_run_in_a_task_at_rest_is_seen_at_once(root: StoredRoot) -> None:
    """Else such a task is looked at every so many seconds only."""
    task = root.task("build")
    root.run(task)
    with started(root) as hub:
        wait_until(lambda: hub.known, what="the first look")
        wait_until(lambda: hub._watch.is_watched(str(task / "runs")), what="a watch")
        hub._view.rest(1e9)
        with hub._view.current(now=True) as index:
            assert index.tasks["demo", "build"].next_look > 0
        new = root.run(task, **RUNNING)
        wait_until(lambda: str(new) in hub.known, what="the new run")


def test_without_the_kernel_a_task_at_rest_is_looked_at_for_new_runs_as_long_as_somebody_follows(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_PORTABLE", "1")
    task, empty = root.task("build"), root.task("empty")
    old = root.run(task)
    view = View(str(root.runs_dir))
    view.rest(1e9)
    with started_by_hand(view) as hub:
        view.listen(hub._hear)
        hub._look()
        hub._look()
        with view.current() as index:
            assert all(entry.next_look for entry in index.tasks.values())
        first = root.run(task, **RUNNING)
        hub._look()
        assert set(hub.known) == {str(old)}
        hub._loaded.set()
        hub.join("all", lambda index: Feed(hub, str(root.runs_dir), Scope(), index))
        hub._look()
        assert set(hub.known) == {str(old), str(first)}
        second = root.run(empty, **RUNNING)
        hub._look()
        assert set(hub.known) == {str(old), str(first), str(second)}


def test_a_run_that_is_removed_is_forgotten(
    root: StoredRoot, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "REST_SECONDS", 0.0)
    run = root.run(root.task("build"))
    with started(root) as hub:
        wait_until(lambda: str(run) in hub.known, what="the first look")
        run.rename(root.path / "elsewhere")
        wait_until(lambda: not hub.known, what="it is gone")


def test_a_round_that_fails_is_told_and_not_the_last(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with started(root) as hub:
        wait_until(lambda: hub.looked_ns, what="the first look")

        def fail() -> None:
            monkeypatch.undo()
            raise MemoryError("of a test")

        monkeypatch.setattr(hub, "_look", fail)
        hub.wake()
        run = root.run(root.task("build"))
        wait_until(lambda: str(run) in hub.known, what="it goes on")
    assert "MemoryError: of a test" in capfd.readouterr().err


def test_a_look_that_was_kept_waiting_does_not_put_off_the_next(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the many clients that come at once and all want the view."""
    view = View(str(root.runs_dir))
    refresh = view.refresh

    def wait_and_refresh() -> Changes:
        threading.Event().wait(0.3)
        return refresh()

    monkeypatch.setattr(view, "refresh", wait_and_refresh)
    with started_by_hand(view) as hub:
        hub._look()  # which finds folders to watch
        hub._look()
        hub._plan_look()
        assert hub._next_look - hub._look_ended <= max(hub_module.REFRESH_SECONDS)


# -- the kernel's word


@pytest.mark.skipif(not os.path.exists("/proc/sys/fs/inotify"), reason="no inotify here")
class TestTreeWatch:
    def test_it_tells_the_folder_and_the_name(self, tmp_path: Path) -> None:
        watch = TreeWatch()
        assert watch.watch([str(tmp_path)]) == [str(tmp_path)]
        assert watch.watch([str(tmp_path)]) == []
        (tmp_path / "a").write_text("x")
        (tmp_path / os.fsdecode(b"\xff")).mkdir()
        assert watch.events() == [
            (str(tmp_path), "a"),
            (str(tmp_path), os.fsdecode(b"\xff")),
        ]
        assert watch.events() == []
        watch.close()

    def test_a_folder_that_was_moved_away_is_none_of_them_any_more(self, tmp_path: Path) -> None:
        old, inner = tmp_path / "old", tmp_path / "old" / "inner"
        inner.mkdir(parents=True)
        watch = TreeWatch()
        wanted = [str(tmp_path), str(old), str(inner)]
        watch.watch(wanted)
        old.rename(tmp_path / "new")
        watch.events()
        assert not watch.is_watched(str(old))
        assert not watch.is_watched(str(inner))
        inner.mkdir(parents=True)
        assert watch.watch(wanted) == [str(old), str(inner)]
        (tmp_path / "new" / "inner" / "x").write_text("")
        assert (str(inner), "x") not in (watch.events() or [])
        watch.close()

    def test_with_too_few_watches_it_says_that_it_does_not_tell_all(self, tmp_path: Path) -> None:
        folders = [tmp_path / str(n) for n in range(3)]
        for folder in folders:
            folder.mkdir()
        watch = TreeWatch(max_watches=2)
        assert len(watch.watch(map(str, folders))) == 2
        assert not watch.is_complete
        watch.watch(map(str, folders[1:]))
        assert watch.is_complete
        watch.watch([*map(str, folders[1:]), str(tmp_path / "not-there")])
        assert watch.is_complete
        watch.close()

    def test_it_takes_nothing_of_the_kernel_before_and_after_it_watches(
        self, tmp_path: Path
    ) -> None:
        watch = TreeWatch()
        assert watch.fd < 0
        watch.watch([str(tmp_path)])
        watch.close()
        assert watch.watch([str(tmp_path)]) == []
        assert watch.fd < 0

    def test_a_link_is_not_watched(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path)
        watch = TreeWatch()
        assert watch.watch([str(tmp_path / "link")]) == []
        watch.close()


# -- events


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (sse.event("x"), b"data: x\n\n"),
        (sse.event("a\nb\n", "n", "7"), b"id: 7\nevent: n\ndata: a\ndata: b\ndata: \n\n"),
        (sse.event(b"a\r\nb\rc"), b"data: a\ndata: b\ndata: c\n\n"),
        (sse.event("", id="a\r\nb\0"), b"id: ab\ndata: \n\n"),
        (sse.event("ü\ud800"), b"data: \xc3\xbc?\n\n"),
    ],
)
def test_an_event_is_what_a_client_reads_it_as(event: bytes, data: bytes) -> None:
    assert event == data


def test_a_stream_that_was_never_begun_is_given_back_too() -> None:
    given: list[int] = []
    body = sse.answer(iter([b"x"]), release=lambda: given.append(1)).body
    body.close()  # type: ignore[union-attr]
    body.close()  # type: ignore[union-attr]
    assert given == [1]
    ended = sse.answer(iter([b"x"]), release=lambda: given.append(2)).body
    assert list(ended) == [b"x"]
    assert given == [1, 2]
