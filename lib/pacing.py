"""What holds starts back though a slot is free: time between two of one agent CLI, and a full disk."""

from __future__ import annotations

import os
import random
import time

from lib import agents, runner
from lib.config import Config
from lib.errors import UserError
from lib.prompts import Generated

JITTER = 0.5  # up to that share of the interval is added at random
FAULT_SECONDS = 10.0  # until a start is tried again that could not be written down
HOLD_SECONDS = 3600.0  # after which a plan that can start nothing, and runs nothing, gives up


class Agents:
    """The agents of a plan by name: what each is, when the next may start, whose quota it uses."""

    def __init__(self, config: Config, interval_seconds: float) -> None:
        self._config = config
        self.config_path = config.path
        self._interval = interval_seconds
        self._known: dict[str, tuple[str, dict[str, object], str | None]] = {}
        self._paced: dict[str, str] = {}  # name -> type of one that is paced, else ""
        self._next_start: dict[str, float] = {}  # by type; monotonic
        self._providers: dict[str, str] = {}

    def resolve(self, name: str) -> tuple[str, dict[str, object], str | None]:
        """(type, settings, executable); UserError as of runner.resolve_agent."""
        if name not in self._known:
            self._known[name] = runner.resolve_agent(self._config, name)
        return self._known[name]

    def prompt_fault(self, name: str, prompt: Generated) -> str:
        """Why the agent can do nothing with this prompt; "" for one that it can try."""
        check = getattr(agents.load(self.resolve(name)[0]), "check_prompt", None)
        try:
            if check is not None:
                check(prompt.path)
        except UserError as error:
            return str(error)
        return ""

    def not_before(self, name: str) -> float:
        """The monotonic moment at which the next one of that kind may start."""
        return self._next_start.get(self.kind(name), 0.0)

    def started(self, name: str, now: float) -> None:
        """Note a start."""
        kind = self.kind(name)
        if kind:
            jitter = 1 + random.random() * JITTER  # noqa: S311 - it only spreads starts
            self._next_start[kind] = now + self._interval * jitter

    def kind(self, name: str) -> str:
        """What its starts are paced with: the type of the agent; "" for one that is not paced."""
        if name not in self._paced:
            try:
                kind = self.resolve(name)[0]
                is_paced = bool(self._interval) and agents.load(kind).PACED
            except UserError:  # its program has vanished: the start itself will say so
                return ""
            self._paced[name] = kind if is_paced else ""
        return self._paced[name]

    def provider(self, name: str) -> str:
        """Whose quota it uses up: its type; of a type with several logins the agent with that one.

        That is the first of them in the configuration.  What has no login that
        we know of shares nothing: there it is the name.
        """
        if name not in self._providers:
            self._providers[name] = self._find_provider(name)
        return self._providers[name]

    def _find_provider(self, name: str) -> str:
        own = self._login(name)
        if own is None:
            return name
        logins = {other: self._login(other) for other in self._config.agents}
        alike = [other for other, login in logins.items() if login == own]
        others = [login for login in logins.values() if login and login[0] == own[0]]
        has_rivals = any(login != own for login in [*others, self._login(own[0])])
        return (alike[0] if alike else name) if has_rivals else own[0]

    def _login(self, name: str) -> tuple[str, list[object]] | None:
        """All that tells one login of a type from another; None for an agent without one."""
        options = self._config.entry(name)
        kind = str(options.get("type") or name)
        try:
            backend = agents.load(kind)
        except UserError:
            return None
        if not backend.TOKEN_VARIABLES:  # a program that only the configuration knows
            return None
        variables = options.get("env")
        set_here = variables if isinstance(variables, dict) else {}
        names = (*backend.TOKEN_VARIABLES, getattr(backend, "HOME_VARIABLE", ""))
        own = [options.get("token"), options.get("base_url"), *map(set_here.get, names)]
        return kind, own


class Hold:
    """Why nothing new may start at the moment: a disk that is too full to record it.

    `reason` is a sentence, "" while all is well.
    """

    def __init__(self, folder: str) -> None:
        self.reason = ""
        self._folder = folder
        self._next_look = self._since = 0.0  # monotonic
        self._let_go = float("-inf")

    def look(self) -> bool:
        """Look at the disk; True when the answer has changed."""
        if time.monotonic() < self._next_look:
            return False
        try:
            runner.check_space(self._folder)
        except UserError as error:
            return self._set(str(error))
        return self._set("")

    def note(self, reason: str) -> bool:
        """Hold for a write that failed though the disk has room (a quota); True when that is news."""
        return self._set(reason, FAULT_SECONDS)

    def _set(self, reason: str, pause_seconds: float = 0.0) -> bool:
        now = time.monotonic()
        self._next_look = now + pause_seconds
        is_news = bool(reason) != bool(self.reason)
        if is_news and not reason:
            self._let_go = now
        elif is_news and now - self._let_go > FAULT_SECONDS:
            self._since = now  # else it never really ended
        self.reason = reason
        return is_news

    def is_hopeless(self) -> bool:
        """Whether it has lasted for as long as a plan waits ($CONDUCTOR_HOLD_SECONDS, 3600)."""
        try:
            patience = float(os.environ["CONDUCTOR_HOLD_SECONDS"])
        except (KeyError, ValueError):
            patience = HOLD_SECONDS
        return bool(self.reason) and time.monotonic() - self._since > patience
