"""Terminals at the root of a plan, and tasks that are worth looking at in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.plan_root import PlanRoot, Record, sh
from tests.screen import Terminal

WIDE = "你好 🎉 e\u0301 👨\u200d👩\u200d👧"
SECRET = "ghp_" + "0123456789abcdef" * 2
UNTIL_GATE = "while [ ! -e gate ]; do sleep 0.05; done"
CONTROLS = "\\033[2J\\033[31m\\a\\033]0;title\\007"

Start = Callable[..., Terminal]


@contextmanager
def terminals(root: PlanRoot, program: Callable[..., list[str]]) -> Iterator[Start]:
    """Starts what `program` makes of its arguments, or a `command`, in a terminal of its own."""
    made: list[Terminal] = []

    def start(
        *arguments: str | Path,
        command: list[str] | None = None,
        env: Mapping[str, str] | None = None,
        columns: int = 80,
        rows: int = 24,
    ) -> Terminal:
        environment = root.environment({"TERM": "xterm"})
        environment.pop("NO_COLOR", None)
        environment.update(env or {})
        words = command or program(*arguments)
        made.append(Terminal(words, columns=columns, rows=rows, cwd=root.path, env=environment))
        return made[-1]

    try:
        yield start
    finally:
        for terminal in made:
            terminal.close()


def busy_tasks(broken: str, waiting: Record) -> list[Record]:
    """Two at work, one of which says odd things; one that fails by `broken`; three in other states."""
    odd = f"printf 'first\\n%s {CONTROLS}{SECRET}\\n' '{WIDE}'"
    return [
        sh("odd", f"{odd}; {UNTIL_GATE}"),
        sh("other-task", UNTIL_GATE),
        sh("broken", broken, critical=False),
        waiting,
        sh("again", "[ -e gate ]", retries=12),
        sh("quick", "true"),
    ]
