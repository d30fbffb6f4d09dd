"""PyYAML is found where it is, and its absence is told in one line, never passed over."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import PYTHON, ROOT, clean_environment

READ = """
import sys
sys.path.insert(0, sys.argv[1])
{before}
from lib import yamlio
from lib.errors import UserError
try:
    print(yamlio.load("a: &x 1\\nb: *x\\n", source="plan.yaml"))
except UserError as error:
    print(type(error).__name__, error)
"""


def read_alias(root: Path, before: str = "") -> str:
    """Return what a bare interpreter prints that reads an alias with the `lib` below `root`."""
    done = subprocess.run(
        [*PYTHON, "-c", READ.format(before=before), str(root)],
        cwd="/",
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


NO_SITE_PACKAGES = "import site; site.main = lambda: None"


def test_a_bare_interpreter_finds_pyyaml_in_its_site_packages() -> None:
    assert read_alias(ROOT) == "{'a': 1, 'b': 1}"


def test_a_clone_finds_pyyaml_in_its_own_environment(clone: Path) -> None:
    import yaml

    packages = clone / ".venv" / "lib" / "python3.99" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "yaml").symlink_to(Path(yaml.__file__).parent)
    assert read_alias(clone, NO_SITE_PACKAGES) == "{'a': 1, 'b': 1}"


def test_without_pyyaml_one_line_says_what_needs_it_and_how_to_get_it(clone: Path) -> None:
    line = read_alias(clone, NO_SITE_PACKAGES)
    assert line.startswith("UserError plan.yaml:1: an anchor needs PyYAML; install it (")
    assert "\n" not in line


def test_reading_and_writing_load_no_heavy_module() -> None:
    heavy = "re json enum typing collections functools yaml site importlib".split()  # noqa: SIM905
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from lib import yamlio\n"
        "text = yamlio.dump({'a': [1], 'b': 'x\\n'}); yamlio.load(text); yamlio.load('- a: |\\n   b')\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
