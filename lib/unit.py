"""One line of runs of a task: an ordinary task has one, a review one for each of its agents."""

from __future__ import annotations

from lib import runs, verify
from lib.plan import Task


class Unit:
    """Where one line of runs stands in this start of the plan.

    `agents` are those that may do it, the first one first; of a review there
    is one for each unit, and nobody stands in for it.
    """

    __slots__ = (
        "_turn",
        "agents",
        "check",
        "failures",
        "fd",
        "held",
        "misfires",
        "name",
        "outcome",
        "retry_at",
        "run",
        "started",
        "stop_reason",
        "task",
        "told",
        "verdict",
    )

    def __init__(self, task: Task, name: str, agents: tuple[str, ...]) -> None:
        self.task = task
        self.name = name  # the task's id; `id@agent` in a review
        self.agents = agents
        self._turn = 0
        self.failures = 0  # attempts of this agent that failed since this start of the plan
        self.misfires = 0  # times that its supervisor ended before the agent began
        self.retry_at = 0.0  # monotonic
        self.run: runs.Run | None = None  # while one is under way
        self.fd = -1  # reports the end of the run's supervisor
        self.held = False  # the supervisor is another process's child: its lock is watched
        self.check: verify.Check | None = None
        self.started = 0.0  # monotonic
        self.outcome = ""  # state.DONE or state.FAILED once it is settled
        self.verdict = ""
        self.stop_reason = ""  # why the plan has it stopped, for good
        self.told = False  # its supervisor has been asked to stop

    @property
    def is_active(self) -> bool:
        return self.run is not None

    @property
    def path(self) -> str:
        """The folder of the run that is under way."""
        if self.run is None:
            raise LookupError(self.name)
        return self.run.path

    @property
    def agent(self) -> str:
        """Who does it now."""
        return self.agents[self._turn]

    @property
    def next_agent(self) -> str:
        """Who would stand in for the present agent; "" for nobody."""
        return self.agents[self._turn + 1] if self._turn + 1 < len(self.agents) else ""

    @property
    def is_last_try(self) -> bool:
        """Whether the task has failed if the attempt that is made now does."""
        return self.failures >= self.task.retries and not self.next_agent

    def fall_back(self) -> None:
        """Hand over to the next agent, whose attempts are counted anew."""
        self._turn += 1
        self.failures = self.misfires = 0

    def continue_with(self, agent: str) -> None:
        """Go on with the agent that an earlier start had come to, if it is still one of ours."""
        if agent in self.agents:
            self._turn = self.agents.index(agent)


def units_of(task: Task, agents: tuple[str, ...], quorum: int) -> list[Unit]:
    """The units of a task: of an ordinary one for all its agents, of a review one for each."""
    if not quorum:
        return [Unit(task, task.id, agents)] if agents else []
    units: list[Unit] = []
    for agent in agents:
        # The same agent twice, as with --agent, still needs a name for each.
        same = sum(unit.agent == agent for unit in units)
        name = f"{task.id}@{agent}" + (f".{same + 1}" if same else "")
        units.append(Unit(task, name, (agent,)))
    return units
