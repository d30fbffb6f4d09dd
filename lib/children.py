"""The runs of a task folder that have not ended: attempts, and the child runs they started."""

from __future__ import annotations

import os

from lib import notices, recovery, runs
from lib.errors import UserError

MOST_AT_ONCE = 16
ROUNDS = 20  # of stopping what lives, and looking for what was started meanwhile
POLL_SECONDS = 0.02


class Family:
    """A task's runs; those that have ended are looked at once."""

    def __init__(self, runs_dir: str) -> None:
        self.runs_dir = runs_dir
        self.unreadable: list[str] = []  # ids of those that cannot be judged, as last looked at
        self._ended: set[str] = set()

    def living(self) -> list[runs.Run]:
        """The runs that live, the oldest first; ends that nobody has recorded are, on the way."""
        self.unreadable = []
        found = []
        for name in runs.names_in(self.runs_dir):
            if name not in self._ended:
                run = self._look(os.path.join(self.runs_dir, name))
                if run is not None:
                    found.append(run)
        return found

    def children(self) -> list[runs.Run]:
        """Those that live and were started inside another run.

        One that is being made has no record yet, and is waited for, too: an
        attempt that is being made is only while its loop does nothing else.
        """
        return [run for run in self.living() if run.text("parent_run_id") or not run.record]

    def _look(self, path: str) -> runs.Run | None:
        run = runs.read(path)
        now = runs.state(run)
        is_marked = os.path.exists(os.path.join(self.runs_dir, runs.ACTIVE, run.run_id))
        if now.holder:
            return run
        if now.ended_unrecorded and is_marked:
            try:
                recovery.repair(path)
            except (UserError, OSError) as error:
                notices.log(run, f"its end cannot be recorded: {error}")
        elif now.status == runs.UNKNOWN or not run.record:
            self.unreadable.append(run.run_id)
        else:
            self._ended.add(run.run_id)
        return None


def stop_all(runs_dir: str) -> list[str]:
    """Stop every living run of a task folder; what could not be stopped, in a line for each.

    First those that no other living one will stop: a second signal would
    take the grace away.  Each in a process of its own, as taking over a run
    needs signal handlers and orphans that come to one process only.
    """
    family = Family(runs_dir)
    problems: dict[str, str] = {}
    for _ in range(ROUNDS):
        living = [run for run in family.living() if run.run_id not in problems]
        ids = {run.run_id for run in living}
        first = [run for run in living if run.text("parent_run_id") not in ids] or living
        if not first:
            break
        for begin in range(0, len(first), MOST_AT_ONCE):
            _stop_some(first[begin : begin + MOST_AT_ONCE], problems)
    return list(problems.values())


def _stop_some(some: list[runs.Run], problems: dict[str, str]) -> None:
    working: dict[int, tuple[runs.Run, int]] = {}
    for run in some:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os._exit(_stop_one(run, write_end))
        os.close(write_end)
        working[pid] = run, read_end
    for pid, (run, read_end) in working.items():
        with open(read_end, "rb") as pipe:
            text = pipe.read().decode("utf-8", "replace")
        _, status = os.waitpid(pid, 0)
        if status:
            problems[run.run_id] = text or f"{run.run_id}: stopping it was cut off"


def _stop_one(run: runs.Run, told: int) -> int:
    try:
        recovery.stop(run.path)
    except (UserError, OSError) as error:
        os.write(told, str(error)[:2000].encode("utf-8", "replace"))
        return 1
    except BaseException as error:  # noqa: BLE001 - the outermost frame of this process
        os.write(told, f"{run.run_id}: bug: {type(error).__name__}: {error}"[:2000].encode())
        return 70
    return 0
