"""The real agent programs: which versions are tried, where they are, how to get them.

    python3 -m tests.agents.programs

installs with npm what tests/agents/package.json names, into a folder of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT

FOLDER = ROOT / ".agents"
BIN = FOLDER / "node_modules" / ".bin"
PACKAGES = {
    "claude": "@anthropic-ai/claude-code",
    "codex": "@openai/codex",
    "gemini": "@google/gemini-cli",
}
_WANTED = Path(__file__).with_name("package.json")
_READY = FOLDER / ".ready"  # a copy of it, once all that it names has been installed
# npm of late holds back what packages want to run; of these one does not work without.
_INSTALL_SCRIPT = FOLDER / "node_modules" / PACKAGES["claude"] / "install.cjs"


def versions() -> dict[str, str]:
    """{name: the version that is tried}."""
    wanted = json.loads(_WANTED.read_text())["dependencies"]
    return {name: wanted[package] for name, package in PACKAGES.items()}


def lack(name: str) -> str:
    """What is missing to try it: "" if nothing is."""
    if shutil.which("node") is None:
        return "node is not on PATH"
    if not _READY.exists() or not (BIN / name).exists():
        return f"{name} is not in {FOLDER.name}/: make test-agents, with npm and a network"
    if _READY.read_bytes() != _WANTED.read_bytes():
        return f"{name} in {FOLDER.name}/ may be of another version: make test-agents"
    return ""


def install() -> int:
    """Install the programs with npm, if they are not there; its exit code."""
    if not any(lack(name) for name in PACKAGES):
        return 0
    if shutil.which("npm") is None:
        print("npm is not on PATH: nothing is installed", file=sys.stderr)
        return 1
    print(f"installing {versions()} into {FOLDER}, some 900 MB", flush=True)
    FOLDER.mkdir(exist_ok=True)
    _READY.unlink(missing_ok=True)
    shutil.copy(_WANTED, FOLDER)
    npm = "npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel error"
    for command in (npm.split(), ["node", _INSTALL_SCRIPT.name]):
        folder = FOLDER if command[0] == "npm" else _INSTALL_SCRIPT.parent
        code = subprocess.run(command, cwd=folder, timeout=1800).returncode
        if code:
            return code
    shutil.copy(_WANTED, _READY)
    return 0


if __name__ == "__main__":
    sys.exit(install())
