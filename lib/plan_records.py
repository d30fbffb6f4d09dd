"""What a plan is, once it has been read: plain records that nothing changes any more.

Paths are absolute, durations are seconds, and 0 seconds means no limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lib.errors import EXIT_USAGE, UserError

MAX_RESTARTS = 100
CHILD_WAIT_SECONDS = 300.0


class PlanError(UserError):
    """A plan that cannot be run; `faults` are all of them, each `file:line: what; cure`.

    As text: the faults, one on a line.
    """

    exit_code = EXIT_USAGE

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    path: str
    changed: bool  # must have been written during the run, not only exist


@dataclass(frozen=True, slots=True)
class Expect:
    files: tuple[ExpectedFile, ...]
    output: str | None  # pattern that must be found in output.md


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    agents: tuple[str, ...]  # in order of preference
    alternate: bool  # the order rotates from task to task
    quorum: int  # approvals that a task needs; 0 = an ordinary role


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work; of `role` and `agent` one is set, of the three prompt sources too."""

    id: str
    title: str
    stage: str  # the stage's id
    role: str | None
    agent: str | None
    prompt: str | None
    prompt_file: str | None
    template: str | None  # the name, without .md
    vars: dict[str, str]
    depends_on: tuple[str, ...]
    cwd: str
    timeout: float
    idle_timeout: float
    retries: int
    critical: bool
    env: dict[str, str]
    exclusive: str | None
    verify: tuple[str, ...]
    verify_timeout: float
    expect: Expect
    loop: bool
    line: int
    max_restarts: int = MAX_RESTARTS  # attempts of a loop in all
    child_wait: float = CHILD_WAIT_SECONDS  # of a loop that is done, for its child runs


@dataclass(frozen=True, slots=True)
class Stage:
    id: str
    title: str
    barrier: bool  # the stages after it wait for all of its tasks
    timeout: float
    tasks: tuple[Task, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Plan:
    path: str
    sha256: str  # of the file's bytes
    project: str
    title: str
    max_parallel: int
    start_interval: float
    roles: dict[str, Role]
    stages: tuple[Stage, ...]
    _tasks: dict[str, Task] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tasks = {task.id: task for stage in self.stages for task in stage.tasks}
        object.__setattr__(self, "_tasks", tasks)  # made once: it is asked for in loops

    @property
    def tasks(self) -> dict[str, Task]:
        """Every task by its id, in the order of the plan."""
        return self._tasks

    def quorum_of(self, task: Task) -> int:
        """How many approvals a task needs; 0 for one that is no review."""
        return self.roles[task.role].quorum if task.role is not None else 0
