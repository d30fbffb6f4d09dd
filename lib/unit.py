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
        "_failures",
        "_given_up",
        "_turn",
        "agents",
        "check",
        "fd",
        "held",
        "misfires",
        "name",
        "outcome",
        "retry_at",
        "run",
        "stand_in_for",
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
        self._given_up: set[int] = set()
        self._failures = [0] * len(agents)
        self.stand_in_for = ""  # the agent that would do it, were its provider not closed
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
    def candidates(self) -> tuple[str, ...]:
        """Who may do it still, the preferred one first."""
        left = [agent for n, agent in enumerate(self.agents) if n not in self._given_up]
        return tuple(left) or (self.agent,)

    @property
    def next_agent(self) -> str:
        """Who would take over from the present agent for good; "" for nobody."""
        others = [
            agent
            for n, agent in enumerate(self.agents)
            if n not in self._given_up and n != self._turn
        ]
        return others[0] if others else ""

    @property
    def failures(self) -> int:
        """Attempts of the present agent that failed since this start of the plan."""
        return self._failures[self._turn]

    @property
    def is_last_try(self) -> bool:
        """Whether the task has failed if the attempt that is made now does."""
        return self.failures >= self.task.retries and not self.next_agent

    def note_failure(self) -> None:
        """Count a failed attempt of the present agent."""
        self._failures[self._turn] += 1

    def give_up_agent(self) -> None:
        """Hand over to the next agent for good; its attempts count on their own."""
        self._given_up.add(self._turn)
        self.turn_to(self.candidates[0])

    def turn_to(self, agent: str) -> None:
        """Let that one of the candidates do it for now."""
        turn = self.agents.index(agent)
        if turn != self._turn:
            self._turn, self.misfires = turn, 0

    def continue_with(self, agent: str, *, stands_in: bool = False) -> None:
        """Go on with the agent that an earlier start had come to, if it is still one of ours.

        Those before it have used up their tries, unless it only `stands_in`.
        """
        if agent in self.agents:
            self.turn_to(agent)
            if not stands_in:
                self._given_up.update(range(self._turn))


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
