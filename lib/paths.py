"""Where things lie: the toolkit itself, the root, its runs folder and its bus.

The root holds everything that a plan or a run writes: `runs/`,
`MESSAGE-BUS.md`, generated `prompts/`, `docs/dev/issues.md`.
"""

from __future__ import annotations

import os

from lib import files
from lib.errors import UserError

TOOLKIT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
BUS_NAME = "MESSAGE-BUS.md"
BUS_NAMES = ("TASK-MESSAGE-BUS.md", "PROJECT-MESSAGE-BUS.md", BUS_NAME)
INSTALLED_MARKER = "INSTALLED"  # `make install` writes it: such a toolkit keeps no state of its own


def root(option: str | None = None) -> str:
    """The root as an absolute path: `option`, else `$CONDUCTOR_ROOT`, else the clone.

    For an installed toolkit the last step is the top of the git work tree
    that the current folder stands in, else the current folder.
    """
    chosen = option or os.environ.get("CONDUCTOR_ROOT")
    if chosen:
        return os.path.abspath(os.path.expanduser(chosen))
    if not os.path.exists(os.path.join(TOOLKIT, INSTALLED_MARKER)):
        return TOOLKIT
    for folder in files.walk_up(os.getcwd()):
        if os.path.exists(os.path.join(folder, ".git")):
            return folder
    return os.getcwd()


def runs_dir(root_option: str | None = None, runs_option: str | None = None) -> str:
    """The runs folder: `runs_option`, an explicit root's, `$JRUN_RUNS_DIR`, the default root's."""
    if runs_option:
        return os.path.abspath(os.path.expanduser(runs_option))
    inherited = os.environ.get("JRUN_RUNS_DIR")
    if inherited and not root_option:
        return os.path.abspath(inherited)
    return os.path.join(root(root_option), "runs")


def bus_path(root_option: str | None = None, bus_option: str | None = None) -> str:
    """The bus of a root: `bus_option`, an explicit root's, `$JRUN_MESSAGE_BUS`, the default's."""
    if bus_option:
        return os.path.abspath(os.path.expanduser(bus_option))
    inherited = os.environ.get("JRUN_MESSAGE_BUS")
    if inherited and not root_option:
        return os.path.abspath(inherited)
    return os.path.join(root(root_option), BUS_NAME)


def discover_bus(start: str) -> str | None:
    """The nearest bus file at or above `start`: a task's before a project's before a root's."""
    for folder in files.walk_up(start):
        for name in BUS_NAMES:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                return path
    return None


def make_folder(path: str, mode: int = 0o755) -> None:
    """Make a folder and those above it, or say in one line why that cannot be."""
    try:
        os.makedirs(path, mode, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {path}: {error.strerror}; "
            "free it, or name another place with --root"
        ) from None
