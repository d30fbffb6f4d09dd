"""A machine of its own for bin/doctor: what is on PATH, in HOME and in the root is what a test puts there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.helpers import run_script

PLAN = "project: x\nstages: [{{id: s, tasks: [{{id: t, agent: {agent}, prompt: Hello{more}}}]}}]\n"


class Machine:
    """A home, a PATH and a root of their own, all below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.bin, self.root = folder / "home", folder / "bin", folder / "root"
        self.temporary, self.cwd = folder / "tmp", folder / "cwd"
        for path in (self.home, self.bin, self.root, self.temporary, self.cwd):
            path.mkdir()
        for name in ("ps", "git", "rm"):
            found = shutil.which(name)
            if found:
                (self.bin / name).symlink_to(found)
        (self.bin / "python3").symlink_to(os.path.realpath(sys.executable))

    def install(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def environment(self, **variables: str) -> dict[str, str]:
        unwanted = (
            "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "IS_SANDBOX",
            "CLAUDE_CODE_BUBBLEWRAP", "CODEX_HOME", "GEMINI_CLI_HOME", "OPENAI_BASE_URL",
        )  # fmt: skip
        return {
            "HOME": str(self.home),
            "PATH": str(self.bin),
            "TMPDIR": str(self.temporary),
            **dict.fromkeys(unwanted, ""),
            **variables,
        }

    def doctor(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_script(
            "bin/doctor",
            *arguments,
            "--root",
            self.root,
            cwd=self.cwd,
            env=self.environment(**variables),
        )

    def plan(self, agent: str, more: str = "") -> str:
        path = self.cwd / "plan.yaml"
        path.write_text(PLAN.format(agent=agent, more=more), encoding="utf-8")
        return path.name

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))
