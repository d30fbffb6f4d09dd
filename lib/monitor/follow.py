"""The new lines of all agents, each behind the name of its run.

What is read is written at once, and a reader that is slow is waited for: the
files themselves are the only buffer.
"""

from __future__ import annotations

import os
import select
import sys
import time

from lib import redact, runs, shown
from lib.errors import UserError
from lib.index_entries import RunEntry
from lib.monitor.facts import Observer, name_of, reason_of

COPY_SECONDS = 0.2
LOOK_SHARE = 8  # between two looks for runs at least that many times what one took
STDOUT = 1


class Feed:
    """The output of one run: its transcript, else (a run of the original) its stdout."""

    def __init__(self, entry: RunEntry, *, from_now: bool) -> None:
        self.entry = entry
        self._name = redact.one_line(entry.run.run_id)
        self._is_broken = False
        self._growing: shown.Growing | None = None
        self._from_now = from_now

    def copy(self) -> None:
        """Print what is new."""
        if self._is_broken:
            return
        try:
            if self._growing is None:
                self._growing = self._open()
            if self._growing is not None:
                self._growing.copy(self._print)
        except UserError as error:
            self._is_broken = True
            self.say(f"({error})")

    def _open(self) -> shown.Growing | None:
        record = self.entry.run.record
        is_original = bool(record.get("pid")) and not record.get("supervisor_pid")
        names = [runs.TRANSCRIPT, runs.STDOUT] if is_original else [runs.TRANSCRIPT]
        for name in names:
            path = self.entry.run.file(name)
            if os.path.lexists(path):
                growing = shown.Growing(path)
                if self._from_now:
                    growing.begin(0)
                return growing
        self._from_now = False  # what comes later is all new
        return None

    def finish(self) -> None:
        """Print what is left of an unfinished line."""
        if self._growing is not None and not self._is_broken:
            self._print(self._growing.finish())

    def _print(self, text: str) -> None:
        text = text.removesuffix("\n")
        if text:
            head = f"{self._name}: "
            sys.stdout.write(head + text.replace("\n", f"\n{head}") + "\n")

    def say(self, text: str) -> None:
        sys.stdout.write(f"{self._name}: -- {redact.one_line(text)}\n")


class Follower:
    """Keeps a feed for each run that lives."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._feeds: dict[str, Feed] = {}
        self._known: set[str] = set()
        self._is_first = True

    def look(self) -> None:
        """Take in which runs there are now: new ones join, also those that have ended already."""
        index = self._observer.index
        for path in sorted(index.refresh().runs):
            entry = index.runs.get(path)
            if entry is None:
                self._known.discard(path)
            elif self._observer.admits(entry.project, entry.task):
                is_new = path not in self._known and not self._is_first
                self._known.add(path)
                if path not in self._feeds and (is_new or entry.is_live):
                    self._join(entry)
        self._is_first = False

    def _join(self, entry: RunEntry) -> None:
        feed = self._feeds[entry.path] = Feed(entry, from_now=self._is_first)
        agent = f" ({entry.agent})" if entry.agent else ""
        feed.say(f"{name_of(entry)}{agent} {'is running' if self._is_first else 'started'}")

    def copy(self) -> None:
        """Print what is new, and the end of what has ended."""
        for path, feed in list(self._feeds.items()):
            is_over = not feed.entry.is_live  # as of the look: all it wrote before that is there
            feed.copy()
            if is_over:
                feed.finish()
                status = feed.entry.state.status
                reason = "" if status == runs.COMPLETED else reason_of(feed.entry)
                feed.say(f"{status}{': ' if reason else ''}{reason}")
                del self._feeds[path]
        sys.stdout.flush()


def follow(observer: Observer, interval_seconds: float) -> int:
    """Print new lines until somebody ends this; BrokenPipeError when nobody reads them any more."""
    follower = Follower(observer)
    poll = select.poll()
    poll.register(STDOUT, 0)  # errors only
    next_look = 0.0
    while True:
        began = time.monotonic()
        if began >= next_look:
            follower.look()
            took = time.monotonic() - began
            next_look = began + max(interval_seconds, LOOK_SHARE * took)
        follower.copy()
        events = poll.poll(int(COPY_SECONDS * 1000))
        if any(found & (select.POLLERR | select.POLLNVAL) for _, found in events):
            raise BrokenPipeError
