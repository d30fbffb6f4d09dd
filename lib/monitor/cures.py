"""The command that helps with a problem: one line for a terminal, in the folder of the toolkit.

Every word of it may come from a name that somebody else has chosen.
"""

from __future__ import annotations

import os
import shlex

from lib import plan_again, redact
from lib.errors import UserError
from lib.index_entries import PlanEntry, RunEntry

RUN_ALL, RUN_TASK = "./run-all-tasks.py", "bin/run-task"
SHOW_RUN, STOP_RUN = "bin/show-run", "bin/stop-run"
CHECK, DOCTOR = "bin/check-storage", "bin/doctor"


class Cures:
    """Commands for what lies in one runs folder; "" where none can be given that is sure to fit."""

    def __init__(self, runs_dir: str) -> None:
        root, name = os.path.split(runs_dir)
        self._runs_dir = runs_dir
        self._is_of_root = name == "runs"
        self._place = ["--root", root] if self._is_of_root else ["--runs-dir", runs_dir]

    def plan(self, entry: PlanEntry, *, retry_failed: bool = False) -> str:
        """Go on with a plan in the manner of its last start; not with one whose file is gone."""
        path, agent = entry.header.get("plan"), entry.header.get("prompts_agent")
        if not isinstance(path, str) or not (agent or os.path.isfile(path)):
            return ""
        try:
            again = plan_again.start(
                entry.header, self._runs_dir, entry.tasks, retry_failed=retry_failed
            )
        except UserError:  # as of a state that an earlier version wrote
            if agent or not self._is_of_root or not os.path.isabs(path):
                return ""
            options = ["--retry-failed"] if retry_failed else []
            return line([RUN_ALL, path, *options, *self._place])
        return shown(again.line())

    def task(self, project: str, task: str, *options: str) -> str:
        """Go on with a task that has a folder."""
        return line([RUN_TASK, "--project", project, "--task", task, *options, *self._place])

    def show(self, entry: RunEntry) -> str:
        return self._of_run(SHOW_RUN, entry)

    def stop(self, entry: RunEntry) -> str:
        return self._of_run(STOP_RUN, entry)

    def _of_run(self, script: str, entry: RunEntry) -> str:
        name = entry.run.run_id
        return line([script, *self._place, *(["--"] if name.startswith("-") else []), name])

    def check(self) -> str:
        """Look over everything that is kept."""
        return line([CHECK, *self._place])

    def doctor(self) -> str:
        """Say what this machine lacks, such as room on the disk."""
        return line([DOCTOR, *self._place])


def line(words: list[str]) -> str:
    return shown(shlex.join(words))


def shown(command: str) -> str:
    """The same; "" where it cannot be shown as it is.

    A secret would have to be taken out, and what a terminal obeys made visible:
    either way it were another command.
    """
    return command if redact.text(command) == command and command.isprintable() else ""
