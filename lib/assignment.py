"""Who does the tasks of a plan on this machine: its agents, looked up and given out."""

from __future__ import annotations

from lib import runner
from lib.config import Config
from lib.errors import EXIT_USAGE, UserError
from lib.plan import Assignments, Plan, assign_agents
from lib.plan_agents import NOT_INSTALLED


def assign(
    plan: Plan, config: Config, override: str | None = None
) -> tuple[Assignments, dict[str, str]]:
    """Who does what, and what is wrong with each agent that nobody knows."""
    unknown: dict[str, str] = {}

    def lack_of(agent: str) -> str:
        try:
            type_name, options, _ = runner.resolve_agent(config, agent)
        except UserError as error:
            if error.exit_code == EXIT_USAGE:
                unknown[agent] = str(error)
            return NOT_INSTALLED
        variable = runner.missing_key(type_name, options)
        return f"has no key (set {variable})" if variable else ""

    return assign_agents(plan, lack_of, override), unknown
