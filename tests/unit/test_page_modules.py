"""The modules of the page that need no browser, tried by node where there is one."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.helpers import ROOT, clean_environment

TESTS = sorted((ROOT / "tests" / "js").glob("*.test.js"))


def test_node_finds_no_fault_in_them() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = map(int, version.lstrip("v").split(".")[:2])
    if (major, minor) < (20, 19):
        pytest.skip(f"node {version.strip()} takes no module of a package without a type")
    assert TESTS
    done = subprocess.run(
        [node, "--test", *map(str, TESTS)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
