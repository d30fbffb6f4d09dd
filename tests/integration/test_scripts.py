"""What every script has in common, by running each of them."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest

from lib import VERSION
from tests.helpers import PYTHON, ROOT, clean_environment

SCRIPTS = [
    path
    for path in (
        ROOT / "run-agent.py",
        ROOT / "run-all-tasks.py",
        ROOT / "web" / "server.py",
        *sorted((ROOT / "bin").iterdir()),
    )
    if path.is_file() and not path.name.startswith(".")
]
every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)


def run(command: list[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@every_script
def test_it_can_be_executed_and_starts_python_without_site(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text().split("\n")[0] == "#!/usr/bin/env -S python3 -S -E"


@every_script
def test_its_first_statement_takes_the_traceback_from_ctrl_c(script: Path) -> None:
    first, second, *_ = ast.parse(script.read_text()).body[1:]  # behind its docstring
    assert ast.unparse(first) == "import _signal"  # built in: no time passes
    assert "_signal.signal(_signal.SIGINT, _signal.SIG_DFL)" in ast.unparse(second)


@every_script
def test_help_works_from_anywhere_and_through_a_link(script: Path, tmp_path: Path) -> None:
    link = tmp_path / "another-name"
    link.symlink_to(script)
    done = run([link, "--help"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{script.name} - ")
    assert f"\nusage: {script.name} [options]" in done.stdout
    assert f"{script.name}" in done.stdout.partition("\nexamples:\n")[2]
    assert "\nexit codes: 0" in done.stdout or "exit codes:" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another-name"]


@every_script
def test_version_tells_name_and_version(script: Path, tmp_path: Path) -> None:
    done = run([*PYTHON, script, "--version"], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{script.name} {VERSION}\n", "")


@every_script
def test_an_unknown_option_is_one_line_and_exit_code_2(script: Path, tmp_path: Path) -> None:
    done = run([*PYTHON, script, "--no-such-option"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{script.name}: unknown option --no-such-option")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@every_script
def test_a_reader_that_goes_away_makes_no_noise(script: Path, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*PYTHON, str(script), "--help"],
        cwd=tmp_path, env=clean_environment(), stdin=subprocess.DEVNULL,
        stdout=write_end, stderr=subprocess.PIPE, timeout=60,
    )  # fmt: skip
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")
