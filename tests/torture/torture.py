#!/usr/bin/env python3
"""Kill the toolkit's processes at named points and at random, and check what must hold.

    make torture [SEED=N] [ROUNDS=N | ROUND=N] [SECONDS=N] [JOBS=N]
    python3 tests/torture/torture.py [--seed N] [--rounds N | --round N] [--seconds N] [--jobs N]

Each round plays a scene in a temporary root of its own: a small plan or tasks
in loops that are started again after every kill, a few single runs, a busy
bus, or all of them.
Processes are killed or stopped at fault points of the core, and at moments
that are counted in changes of the storage.  Then everything is started once
more in peace, and checked: by the code of bin/check-storage, and by a ledger
that the agents keep, which knows nothing of the toolkit.

What repeats with a seed: all that is drawn (scene, points, parts, moments), to
the last digit.  What does not: how the kernel interleaves the processes.  A
failing round therefore usually fails again within a few tries; its folder is
kept.  Exit codes: 0 no violation, 1 violations, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.torture import checks, processes
from tests.torture.round import Round

DEFAULT_SECONDS = 300.0
ROUND_SECONDS = 600.0  # after which a round itself counts as hung


def main() -> int:
    options = parse()
    if options.folder:
        return play_one(options.seed, options.round, Path(options.folder), options.mark)
    # An end by SIGTERM (make, CI) must clean up as well as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    return Torture(options).run()


def parse() -> argparse.Namespace:
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 10**6, help="default: a new one"
    )
    parser.add_argument("--rounds", type=int, help="so many; default: as many as the time allows")
    parser.add_argument("--round", type=int, help="this one alone, and keep its folder")
    parser.add_argument("--seconds", type=float, help="begin no round after that (300)")
    parser.add_argument("--jobs", type=int, default=2, help="rounds at once (2)")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--mark", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def play_one(seed: int, number: int, folder: Path, mark: str) -> int:
    """A round in this process; prints one JSON object: problems, kills."""
    round_ = Round(f"{seed}:{number}", folder, mark)
    began = time.monotonic()
    round_.play()
    round_.settle()
    round_.await_silence()
    problems = checks.examine(round_)
    seconds = round(time.monotonic() - began, 2)
    result = {"problems": problems, "kills": round_.log.count(), "seconds": seconds}
    result["log"] = [vars(kill) for kill in round_.log.kills]
    (folder / "result.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0


class Torture:
    """All rounds, some at once, each in a process of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.seed: int = options.seed
        self.base = Path(tempfile.mkdtemp(prefix="conductor-torture-"))
        self.session = self.base.name
        self.kills: Counter[str] = Counter()
        self.played = self.failed = self.violations = 0
        self._working: dict[int, tuple[subprocess.Popen[bytes], float]] = {}

    def run(self) -> int:
        self._say(f"torture: seed {self.seed}")
        code = 0
        try:
            self._play_all()
        except (KeyboardInterrupt, SystemExit) as end:
            self._say("torture: interrupted; cleaning up")
            code = 128 + (signal.SIGTERM if isinstance(end, SystemExit) else signal.SIGINT)
        finally:
            self._clean()
        self._summarise()
        return code or (1 if self.failed else 0)

    def _play_all(self) -> None:
        options = self.options
        first = 0 if options.round is None else options.round
        count = 1 if options.round is not None else options.rounds
        seconds = options.seconds or (DEFAULT_SECONDS if count is None else float("inf"))
        limit = time.monotonic() + seconds
        number = first
        while True:
            is_over = time.monotonic() > limit or (count is not None and number >= first + count)
            if is_over and not self._working:
                return
            if not is_over and len(self._working) < max(1, options.jobs):
                self._begin(number)
                number += 1
            self._reap()
            time.sleep(0.02)

    def _begin(self, number: int) -> None:
        folder = self.base / str(number)
        folder.mkdir()
        mark = f"{self.session}.{number}."
        command = [
            sys.executable, str(Path(__file__).resolve()), "--seed", str(self.seed),
            "--round", str(number), "--folder", str(folder), "--mark", mark,
        ]  # fmt: skip
        with (folder / "harness").open("wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self._working[number] = (process, time.monotonic())

    def _reap(self) -> None:
        for number, (process, began) in list(self._working.items()):
            if process.poll() is None and time.monotonic() - began > ROUND_SECONDS:
                process.kill()
                process.wait()
            if process.poll() is not None:
                del self._working[number]
                self._judge(number)

    def _judge(self, number: int) -> None:
        folder = self.base / str(number)
        processes.end_all(f"{self.session}.{number}.")
        try:
            result = json.loads((folder / "result.json").read_text())
        except (OSError, ValueError):
            lines = (folder / "harness").read_text(errors="replace").strip().split("\n")
            result = {"problems": [f"the round did not end: {lines[-1]}"], "kills": {}}
        self.played += 1
        self.kills.update(result["kills"])
        problems = result["problems"]
        if problems:
            self.failed += 1
            self.violations += len(problems)
            self._say(f"round {number} FAILED: {problems[0]}")
            for problem in problems[1:5]:
                self._say(f"    {problem}")
            self._say(f"    kept: {folder}")
            self._say(f"    again: make torture SEED={self.seed} ROUND={number}")
        elif self.options.round is not None:
            self._say(f"round {number}: no violation; {result['seconds']} s, kept: {folder}")
        else:
            shutil.rmtree(folder)

    def _clean(self) -> None:
        """End everything of this session; remove what no failing round needs."""
        for process, _ in self._working.values():
            process.kill()
            process.wait()
        processes.end_all(f"{self.session}.")
        for number in self._working:
            shutil.rmtree(self.base / str(number), ignore_errors=True)
        if not any(self.base.iterdir()):
            self.base.rmdir()

    def _summarise(self) -> None:
        points = {k: n for k, n in self.kills.items() if " SIG" not in k and "stop-run" not in k}
        others = {k: n for k, n in self.kills.items() if k not in points}
        self._say(
            f"torture: seed {self.seed}: {self.played} rounds, {self.kills.total()} kills and "
            f"stops, {self.violations} violations in {self.failed} rounds"
        )
        for title, counts in (("at named points", points), ("at random", others)):
            rows = [f"{name} {count}" for name, count in sorted(counts.items())]
            self._say(f"{title}: {', '.join(rows) or 'none'}")

    def _say(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
