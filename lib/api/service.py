"""What the handlers share: where the runs are, what is known of them, and how the server is set."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lib.api.access import Access
from lib.api.agent_list import AgentList
from lib.api.bus_feeds import Feeds
from lib.api.contents import Contents
from lib.api.facts import Facts
from lib.api.metrics import Counters
from lib.api.overview_state import Overview
from lib.api.plans import Plans
from lib.api.run_lines import RunLines
from lib.api.view import View

if TYPE_CHECKING:
    from lib.api.hub import Hub
    from lib.config import Config


class Settings:
    """How the server was started; seconds and counts as the config names them."""

    def __init__(
        self,
        *,
        may_start_tasks: bool = True,
        max_root_tasks: int = 0,
        heartbeat_seconds: float = 15.0,
        max_clients_per_run: int = 1000,
    ) -> None:
        self.may_start_tasks = may_start_tasks
        self.max_root_tasks = max_root_tasks  # 0 = no limit
        self.heartbeat_seconds = heartbeat_seconds
        self.max_clients_per_run = max_clients_per_run


class Service:
    """One for the whole server, shared by all its threads."""

    def __init__(
        self, runs_dir: str, config: Config, settings: Settings, bus_path: str = ""
    ) -> None:
        from lib.api.hub import Hub
        from lib.api.launch import Launcher
        from lib.api.root_queue import RootQueue

        self.runs_dir = runs_dir
        self.config = config
        self.settings = settings
        self.view = View(runs_dir, bus_path)
        self.facts = Facts(self.view)
        self.plans = Plans()
        self.overview = Overview(self.view, self.facts)
        self.counters = Counters()
        self.hub: Hub = Hub(self.view)
        self.bus_feeds = Feeds()
        self.contents = Contents()
        self.lines = RunLines()
        self.agents = AgentList(config.path)
        self.url = ""  # of this server, for the agents that it starts
        self.launcher = Launcher(self)
        self.queue = RootQueue(self)  # its `start` comes after that of the hub
        self.access = Access()  # who may ask; the server puts the rules of its address and key here
        self.started = time.monotonic()

    def uptime_seconds(self) -> float:
        return time.monotonic() - self.started
