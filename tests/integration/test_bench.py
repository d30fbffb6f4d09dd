"""`make bench` runs to its end; what it measures is nobody's business here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import ROOT, run_script

BENCH = "tests/bench/bench.py"
ROWS = (
    BENCH,
    "tests/bench/server_rows.py",
    "tests/bench/page_rows.py",
)  # in the order in which they are printed


def row_names() -> list[str]:
    text = "".join((ROOT / path).read_text() for path in ROWS)
    return re.findall(r'^    Row\("([^"]+)"', text, re.MULTILINE)


@pytest.mark.slow
def test_every_row_of_the_bench_runs_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = run_script(BENCH, "--quick", env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    printed = re.findall(r"^\| ([a-z0-9-]+) \|", done.stdout, re.MULTILINE)
    assert printed == ["row", *row_names()]
    assert "failed: " not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_missing_program_is_said_and_is_no_failure(tmp_path: Path) -> None:
    done = run_script(BENCH, "--quick", "--only", "plan-1", env={"PATH": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is not installed" in done.stdout


def test_a_row_that_fails_to_run_is_said_and_fails_the_bench(tmp_path: Path) -> None:
    for name in ("sh", "bash"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    broken = tmp_path / "xargs"
    broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    broken.chmod(0o755)
    done = run_script(BENCH, "--quick", "--only", "plan-1", env={"PATH": str(tmp_path)})
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(
        r"^\| plan-1 \|.*failed: exit code 3: .*no such luck", done.stdout, re.MULTILINE
    )
