"""How a plan is run this time: places, width, and what a failure means."""

from __future__ import annotations

import os

from lib import paths, prompts
from lib.plan import Plan


class Settings:
    """What the caller of a plan chose."""

    def __init__(
        self,
        *,
        root: str,
        runs_dir: str,
        bus_path: str,
        max_parallel: int,
        keep_going: bool = False,
        kill: bool = False,
        redo_changed: bool = False,
        parent: str = "",
        prompts_agent: str = "",
        max_wait: float = 0.0,
    ) -> None:
        self.root = root
        self.runs_dir = runs_dir
        self.bus_path = bus_path
        self.max_parallel = max_parallel
        self.keep_going = keep_going
        self.kill = kill  # a critical failure stops what runs
        self.redo_changed = redo_changed  # what is done and has changed since is done again
        self.prompts_agent = prompts_agent  # of a plan made of prompt files on the fly
        self.max_wait = max_wait  # seconds of waiting for a quota with nothing else to do
        self.manner: dict[str, object] = {}  # for who starts it again: plan_again.manner
        self.parent = parent  # the run inside which the plan was started

    def generate_prompts(self, plan: Plan) -> list[prompts.Generated]:
        """Write the prompt of every task of the plan below the root."""
        return prompts.generate(
            plan,
            root=self.root,
            bus_path=self.bus_path,
            bin_dir=os.path.join(paths.TOOLKIT, "bin"),
            runs_dir=self.runs_dir,
        )
