"""What tests share: bounded waiting, and starting the real scripts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# As the scripts are started; measuring coverage needs site-packages (`make coverage`).
PYTHON = [sys.executable, *os.environ.get("TEST_PYTHON_FLAGS", "-S -E").split()]


def wait_until(condition: Callable[[], object], *, seconds: float = 20, what: str) -> None:
    """Return as soon as `condition()` is true; fail naming `what` when it never is."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"waited {seconds:g} s in vain for: {what}")
        time.sleep(0.01)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would leak into a run under test."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JRUN_", "CONDUCTOR_")) and not name.endswith("_API_KEY")
    }
    environment.update(extra or {})
    return environment


def read_document(name: str) -> str:
    """A page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def run_script(
    name: str,
    *arguments: str | Path,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a script of the toolkit by its path from the root, and return how it ended."""
    text = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*PYTHON, str(ROOT / name), *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(env),
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        timeout=timeout,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")
    )
