"""Live runs that a test writes by hand, and a client that checks every line it gets of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from lib import ids, runs
from tests.stored_root import NOON, RUNNING, StoredRoot, held, write_record


class LiveRun:
    """A run that lives until `end`; its line n of stdout is `out n`, of stderr `err n`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self.start_time = ids.rfc3339()
        self.counts = {"stdout": 0, "stderr": 0}
        self._files = {
            "stdout": open(path / runs.STDOUT, "ab", buffering=0),
            "stderr": open(path / runs.STDERR, "ab", buffering=0),
        }
        self._lock = ExitStack()
        self._lock.enter_context(held(path / runs.LOCK))

    def write(self, stream: str, count: int = 1) -> None:
        """So many lines, with one write."""
        first = self.counts[stream] + 1
        self.counts[stream] += count
        lines = [f"{stream[3:]} {n}\n" for n in range(first, first + count)]
        self._files[stream].write("".join(lines).encode())

    def write_raw(self, stream: str, data: bytes) -> None:
        self._files[stream].write(data)

    def write_unfinished(self) -> None:
        """A last line that no line feed will end."""
        self.counts["stdout"] += 1
        self._files["stdout"].write(f"out {self.counts['stdout']}".encode())

    def end(self) -> None:
        self.write_record(end_time=ids.rfc3339())
        self.close()

    def write_record(self, **fields: object) -> None:
        write_record(self.path, **{"start_time": self.start_time, **fields})

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._lock.close()


class Fleet(StoredRoot):
    """A root with live runs, which are closed at the end of the `with`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.live: list[LiveRun] = []
        self.folder = self.task("build")

    def start(self, task: Path | None = None) -> LiveRun:
        """A run in the folder of a task, `build` when none is named."""
        self._made += 1
        stamp = ids.stamp(NOON + self._made)
        path = (task or self.folder) / "runs" / f"{stamp}0000-7-{self._made}"
        return self.begin(path)

    def begin(self, path: Path) -> LiveRun:
        """A live run in that folder, which is made; as a supervisor does, its lock comes first."""
        path.mkdir(parents=True)
        run = LiveRun(path)
        self.live.append(run)
        run.write_record(**RUNNING)
        return run

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for run in self.live:
            run.close()


class Client:
    """Takes the bytes of a stream, cut off anywhere, and knows what it has seen.

    AssertionError for a line out of its order, twice, or with a gap before it.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.seen: dict[tuple[str, str], int] = {}  # lines by run and stream
        self.statuses: dict[str, list[str]] = {}
        self.events = 0
        self._held = b""

    def feed(self, data: bytes) -> None:
        *whole, self._held = (self._held + data).split(b"\n\n")
        for block in whole:
            self._take(block.decode())

    def cut(self) -> None:
        """The connection is gone: so is the event that had not come whole."""
        self._held = b""

    def _take(self, block: str) -> None:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        self.last_id = fields.get("id", self.last_id)
        self.events += 1
        data = json.loads(fields["data"])
        if fields["event"] == "status":
            self.statuses.setdefault(data["run_id"], []).append(data["status"])
        elif fields["event"] == "log":
            self._take_line(data["run_id"], data["stream"], data["line"])

    def _take_line(self, run: str, stream: str, line: str) -> None:
        word, number = line.split()
        before = self.seen.get((run, stream), 0)
        assert (word, int(number)) == (stream[3:], before + 1), (run, stream, line, before)
        self.seen[run, stream] = before + 1

    def has_all(self, found: Iterable[LiveRun]) -> bool:
        return all(
            self.seen.get((run.id, stream), 0) == count
            for run in found
            for stream, count in run.counts.items()
        )

    def missing(self, found: Iterable[LiveRun]) -> list[tuple[str, str, int, int]]:
        return [
            (run.id, stream, self.seen.get((run.id, stream), 0), count)
            for run in found
            for stream, count in run.counts.items()
            if self.seen.get((run.id, stream), 0) != count
        ]


def write_at_random(fleet: Fleet, chance: random.Random, steps: int, pause: float = 0.0) -> None:
    """Lines of live runs, with runs that end and others that begin in between."""
    import time

    for _ in range(steps):
        live = [run for run in fleet.live if not run._files["stdout"].closed]
        run = chance.choice(live)
        run.write(chance.choice(["stdout", "stdout", "stderr"]), chance.choice([1, 1, 1, 2, 7, 40]))
        if chance.random() < 0.03 and len(live) > 1:
            if chance.random() < 0.5:
                run.write_unfinished()
            run.end()
        if chance.random() < 0.04 and len(live) < 6:
            fleet.start()
        time.sleep(pause)
