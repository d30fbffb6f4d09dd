"""The one watcher of the server: it looks at files, and wakes the streams that wait for them.

One thread sleeps until the kernel tells of a change, or until it is time to
look all the same: locks that a dead process lets go, and what another machine
writes to a shared file system, nobody tells.  Then it has the index take in
what has changed, tells the members (lib/api/feeds.py) which runs that
concerns, has them read on, and wakes who follows a file.  What it costs hangs
on what changes, not on how many clients wait.

Locks are taken in this order: that of the view, that of the hub, a member's.
"""

from __future__ import annotations

import os
import select
import threading
import time
import traceback
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from lib import files, runs
from lib.api import shapes
from lib.api.tree_watch import TreeWatch
from lib.api.view import REST_SECONDS, View
from lib.index import Index
from lib.index_entries import Changes, RunEntry

GAP_SECONDS = 0.015  # between two rounds: what comes meanwhile is one piece of work
GAP_PER_WAITER = 0.0001  # each client that is woken takes so long of the one interpreter
POLL_SECONDS = 0.025  # between two looks at what is followed and nobody tells of
REFRESH_SECONDS = (0.05, 0.2, 1.0)  # told, followed where nobody tells, all the same
TOLD_REST_SECONDS = 20.0  # a thousand tasks at rest are looked at so often where the kernel tells
SHARE = 10  # taking in the index may take up one part of so many of the time,
SHARE_TOLD = 2  # or that where something has changed: somebody waits to hear of it
LOAD_SECONDS = 60.0  # for the first look at all runs
_OUTPUTS = frozenset([runs.STDOUT, runs.STDERR, runs.TRANSCRIPT, runs.OUTPUT, runs.TIMING])


class Signal:
    """A count that grows with every change, and a way to wait for that."""

    def __init__(self) -> None:
        self.count = 0
        self.waiters = 0
        self._is_closed = False
        self._condition = threading.Condition(threading.Lock())

    def add(self, more: int = 1) -> None:
        with self._condition:
            self.count += more
            self._condition.notify_all()

    def close(self) -> None:
        """Nobody waits any more, now or later."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()

    def wait(self, seen: int, seconds: float) -> int:
        """The count as soon as it is another than `seen`, or after `seconds`."""
        with self._condition:
            if self.count == seen and not self._is_closed:
                self.waiters += 1
                self._condition.wait(seconds)
                self.waiters -= 1
            return self.count


class Standing(NamedTuple):
    """What clients are told of a run, and whether anything more comes of it."""

    status: str
    exit_code: int
    is_live: bool
    is_over: bool


class Change(NamedTuple):
    """A run that stands otherwise than `before`; None: not known, or gone."""

    path: str
    key: shapes.Key
    before: Standing | None
    now: Standing | None
    ended_ns: int  # 0 as long as it has not


class Member(Protocol):
    """What reads for clients, in the thread of the hub.

    `due` is when it is to advance though nothing happens, on the monotonic
    clock; infinity for never.
    """

    clients: int
    signal: Signal
    due: float

    def note(self, found: Changes, index: Index) -> None:
        """What refreshes have found since the last look; under the view's lock, before `take`."""

    def take(self, changes: Sequence[Change], looked_ns: int, before_ns: int) -> None:
        """Runs have changed; under the hub's lock, together with `hub.known`.

        `looked_ns` and `before_ns` are when the looks at the index began that
        found them, and the one before.
        """

    def advance(self, touched: Collection[str] | None) -> bool:
        """Read on in these run folders, None: in all; True when more is there already."""

    def reads(self) -> bool:
        """Whether there is a file that it reads on."""


AnyMember = TypeVar("AnyMember", bound=Member)


class Hub:
    """See the text at the top; `known` has the standing of every run as members were told it."""

    def __init__(self, view: View) -> None:
        self.closing = False
        self.changes = Signal()
        self.lock = threading.Lock()
        self.known: dict[str, Standing] = {}
        self.looked_ns = 0  # wall clock: what `known` says is no older
        self._view = view
        self._watch = TreeWatch()
        self._members: dict[Hashable, Member] = {}
        self._followed: dict[str, _Followed] = {}
        self._heard = Changes()  # since the last look
        self._standings: dict[Standing, Standing] = {}  # each once: there are thousands of runs
        self._listings = -1
        self._must_sync = False  # which folders are watched
        self._is_told = True  # something has changed that the index should take in
        self._next_look = self._look_ended = self._look_seconds = self._worked_until = 0.0
        self._wake_reader = self._wake_writer = -1
        self._loaded = threading.Event()
        self._thread = threading.Thread(target=self._work, name="hub", daemon=True)

    # -- for other threads

    def start(self) -> None:
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._view.listen(self._hear)
        self._thread.start()

    def close(self) -> None:
        """Every stream ends, and the thread has ended on return."""
        self.closing = True
        self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(10)
        with self.lock:
            followed = [item.signal for item in self._followed.values()]
            signals = [self.changes, *followed, *(m.signal for m in self._members.values())]
        for signal in signals:
            signal.close()
        self._watch.close()

    def follow(self, path: str) -> Signal:
        """A signal that grows when the file at `path` changes, comes, goes or is replaced.

        The file itself is looked at, not what it links to.  Give each back with `leave`.
        """
        path = os.path.normpath(path)
        with self.lock:
            item = self._followed.get(path)
            if item is None:
                item = self._followed[path] = _Followed(path)
                if self.closing:
                    item.signal.close()
            item.users += 1
            self._must_sync = True
        self._wake()
        return item.signal

    def leave(self, path: str) -> None:
        path = os.path.normpath(path)
        with self.lock:
            item = self._followed[path]
            item.users -= 1
            if not item.users:
                del self._followed[path]
                self._must_sync = True

    def join(self, name: Hashable, make: Callable[[Index], AnyMember]) -> AnyMember:
        """The member of that name, made where there is none; give it back with `part`.

        Not before all runs are known: of one that is met later it is thought that it is new.
        """
        self._loaded.wait(LOAD_SECONDS)
        with self._view.current() as index, self.lock:
            member = self._members.get(name)
            if member is None:
                member = self._members[name] = make(index)
                if self.closing:
                    member.signal.close()
            member.clients += 1
            self._wake()
            return member  # type: ignore[return-value]  # a name is of one kind

    @property
    def members(self) -> int:
        return len(self._members)

    def part(self, name: Hashable) -> None:
        with self.lock:
            member = self._members[name]
            member.clients -= 1
            if not member.clients:
                del self._members[name]

    def clients(self, name: Hashable) -> int:
        """How many have joined the member of that name."""
        with self.lock:
            member = self._members.get(name)
            return member.clients if member else 0

    def wake(self) -> None:
        """Have all members look at their files."""
        with self.lock:
            self._must_sync = True
        self._wake()

    def _hear(self, changes: Changes) -> None:
        with self.lock:
            self._heard.add(changes)
        if threading.current_thread() is not self._thread:
            self._wake()
        self.changes.add()

    def _wake(self) -> None:
        try:
            os.write(self._wake_writer, b"x")
        except OSError:
            pass  # it is full, so it wakes; or there is no thread yet

    # -- the thread

    def _work(self) -> None:
        try:
            self._look()
        finally:
            self._loaded.set()
        has_more = False
        while not self.closing:
            try:
                has_more = self._round(*self._wait(has_more))
            except Exception:  # noqa: BLE001 - all streams hang on this thread: it says so, and goes on
                traceback.print_exc()
                time.sleep(1)
        os.close(self._wake_reader)

    def _wait(self, has_more: bool) -> tuple[set[str] | None, set[str]]:
        """Sleep until there is work: the run folders with new output, and the files that changed."""
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        if self._watch.fd >= 0:
            poll.register(self._watch.fd, select.POLLIN)
        seconds = 0.0 if has_more else self._idle_seconds()
        if poll.poll(max(0, seconds) * 1000) and not has_more:
            time.sleep(max(0, self._worked_until + self._gap() - time.monotonic()))
        try:
            while os.read(self._wake_reader, 4096):
                pass
        except BlockingIOError:
            pass
        return self._told()

    def _idle_seconds(self) -> float:
        with self.lock:
            due = min((member.due for member in self._members.values()), default=self._next_look)
        left = min(self._next_look, due) - time.monotonic()
        return (
            left if self._watch.is_complete or not self._is_followed() else min(left, POLL_SECONDS)
        )

    def _is_followed(self) -> bool:
        with self.lock:
            return bool(self._followed) or any(m.reads() for m in self._members.values())

    def _gap(self) -> float:
        """So long what happens is gathered; where nobody waits for it there is no hurry."""
        with self.lock:
            waiters = sum(member.signal.waiters for member in self._members.values())
            waiters += sum(item.signal.waiters for item in self._followed.values())
        if waiters or self.changes.waiters:
            return GAP_SECONDS + waiters * GAP_PER_WAITER
        return REFRESH_SECONDS[1]

    def _told(self) -> tuple[set[str] | None, set[str]]:
        """Sort what the kernel says; None for all run folders where it does not say all."""
        events = self._watch.events()
        if events is None:
            self._is_told = True
            with self._view.current() as index:
                index.notice_all()
            return None, set()
        outputs, changed, noticed = set(), set(), set()
        for folder, name in events:
            changed.add(f"{folder}/{name}")
            if name in _OUTPUTS:
                outputs.add(folder)
            else:
                noticed.add(folder)
        if noticed:
            self._view.notice(noticed)
            self._is_told = True
        return (outputs if self._watch.is_complete else None), changed

    def _round(self, touched: set[str] | None, changed: set[str]) -> bool:
        """Take in, tell, read on; True when some member has more to read at once."""
        now = time.monotonic()
        is_due = now >= self._next_look
        with self.lock:
            has_news = bool(self._heard) or self._must_sync
        if is_due or has_news:
            self._look()
            touched = None
        self._tell_followers(changed, all_of_them=is_due or touched is None)
        with self.lock:
            members = list(self._members.values())
        has_more = [member.advance(touched) for member in members]
        self._plan_look()
        self._worked_until = time.monotonic()
        return any(has_more)

    def _plan_look(self) -> None:
        """When the index is looked at next; the less often, the longer that takes."""
        told, followed, always = REFRESH_SECONDS
        pause = told if self._is_told else always
        if not self._is_told and not self._watch.is_complete and self._members:
            pause = followed
        share = SHARE_TOLD if self._is_told else SHARE
        self._next_look = self._look_ended + max(pause, share * self._look_seconds)

    def _look(self) -> None:
        """Take in what has changed below the root, and tell the members."""
        # Processor time: waiting for the view, or for other threads, costs nobody anything, and
        # a look that waited would put off the next one, with all that is new, many times as long.
        began, wall_ns = time.thread_time(), time.time_ns()
        self._is_told = False
        if self._members and not self._watch.is_complete:
            self._view.notice_runs()
        self._view.refresh()
        with self.lock:
            heard, self._heard = self._heard, Changes()
        with self._view.current() as index:
            changes = [change for path in heard.runs if (change := self._judge(index, path))]
            is_over = any(change.now is None or change.now.is_over for change in changes)
            self._sync_watches(index, is_over)
            with self.lock:
                members = list(self._members.values())
            for member in members:
                member.note(heard, index)
        with self.lock:
            self._take(changes, wall_ns)
        self._look_ended = time.monotonic()
        self._look_seconds = time.thread_time() - began

    def _take(self, changes: Sequence[Change], wall_ns: int) -> None:
        for path, _, _, now, _ in changes:
            if now is None:
                self.known.pop(path, None)
            else:
                self.known[path] = now
        before_ns, self.looked_ns = self.looked_ns, wall_ns
        for member in self._members.values():
            member.take(changes, wall_ns, before_ns)

    def _judge(self, index: Index, path: str) -> Change | None:
        entry = index.runs.get(path)
        before, now = self.known.get(path), None
        if entry is not None and shapes.is_shown(entry):
            if entry.is_live and not entry.run.record:
                return None  # it is being made, and cannot say yet whose it is
            now = standing_of(entry)
            now = self._standings.setdefault(now, now)
        if now == before:
            return None
        ended_ns = end_of(entry) if entry is not None and now is not None and now.is_over else 0
        return Change(path, index.key_of(path), before, now, ended_ns)

    def _sync_watches(self, index: Index, is_over: bool) -> None:
        """Watch what there is now; what began to be watched just now is looked at once more."""
        with self.lock:
            must_sync, self._must_sync = self._must_sync, False
            others = [os.path.dirname(path) for path in self._followed]
        if not (must_sync or is_over or index.listings != self._listings):
            return
        self._listings = index.listings
        begun = self._watch.watch([*index.folders(), *others])
        self._view.rest(TOLD_REST_SECONDS if self._watch.is_complete else REST_SECONDS)
        for folder in begun:
            index.notice(folder)
        self._is_told = self._is_told or bool(begun)

    def _tell_followers(self, changed: Iterable[str], *, all_of_them: bool) -> None:
        with self.lock:
            followed = dict(self._followed)
        if all_of_them or not self._watch.is_complete:
            changed = followed
        for path in changed:
            item = followed.get(path)
            if item is not None and item.has_changed():
                item.signal.add()


class _Followed:
    """A file that clients follow."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.users = 0
        self.signal = Signal()
        self._seen = files.signature(path)

    def has_changed(self) -> bool:
        seen, self._seen = self._seen, files.signature(self.path)
        return seen != self._seen


def standing_of(entry: RunEntry) -> Standing:
    status = entry.state.status
    is_over = not entry.is_live and status in runs.ENDED
    return Standing(status, shapes.exit_code(entry), entry.is_live, is_over)


def end_of(entry: RunEntry) -> int:
    """When a run that is over ended, ns since 1970: as recorded, else when it last wrote.

    A time that has not come yet is no record's word to be taken.
    """
    if entry.ended_ns is not None and entry.ended_ns <= time.time_ns():
        return entry.ended_ns
    times = [0]
    for name in (runs.STDOUT, runs.STDERR, runs.RECORD):
        try:
            times.append(os.lstat(entry.run.file(name)).st_mtime_ns)
        except OSError:
            pass
    return max(times)
