"""How a task's loop is run this time: who works, with which prompt, and within which limits."""

from __future__ import annotations


class Settings:
    """What the caller of a loop chose; limits in seconds, 0 = none."""

    def __init__(
        self,
        *,
        agent: str,
        prompt: bytes,
        cwd: str,
        max_restarts: int = 100,
        restart_delay: float = 1.0,
        child_wait: float = 300.0,
        timeout: float = 0.0,
        run_timeout: float = 0.0,
        idle_timeout: float = 0.0,
        max_wait: float = 6 * 3600.0,
        model: str | None = None,
        parent: str = "",
        env: dict[str, str] | None = None,
        resume_session: bool = False,
        next_run: str = "",
    ) -> None:
        self.agent = agent
        self.prompt = prompt
        self.cwd = cwd
        self.max_restarts = max_restarts  # attempts in all
        self.restart_delay = restart_delay
        self.child_wait = child_wait
        self.timeout = timeout  # of the whole loop
        self.run_timeout = run_timeout
        self.idle_timeout = idle_timeout
        self.max_wait = max_wait  # for a quota
        self.model = model
        self.parent = parent  # the run inside which the loop was started
        self.env = env or {}
        self.resume_session = resume_session
        self.next_run = next_run  # the name of the next attempt's run folder, where it is free
