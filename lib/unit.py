"""One line of runs of a task: an ordinary task has one, a review one for each of its agents."""

from __future__ import annotations

from lib import runs, verify
from lib.plan import Task


class Unit:
    """Where one line of runs stands in this start of the plan."""

    __slots__ = (
        "agent",
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

    def __init__(self, task: Task, name: str, agent: str) -> None:
        self.task = task
        self.name = name  # the task's id; `id@agent` in a review
        self.agent = agent
        self.failures = 0  # attempts that failed since this start of the plan
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


def units_of(task: Task, agents: tuple[str, ...], quorum: int) -> list[Unit]:
    """The units of a task: of an ordinary one its first agent, of a review all of them."""
    if not quorum:
        return [Unit(task, task.id, agents[0])] if agents else []
    units: list[Unit] = []
    for agent in agents:
        # The same agent twice, as with --agent, still needs a name for each.
        same = sum(unit.agent == agent for unit in units)
        units.append(Unit(task, f"{task.id}@{agent}" + (f".{same + 1}" if same else ""), agent))
    return units
