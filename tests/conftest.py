"""Fixtures that several files of tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plan_root import PlanRoot


@pytest.fixture
def root(tmp_path: Path) -> Iterator[PlanRoot]:
    """A root for a plan; what a failing test left running in it is ended."""
    made = PlanRoot(tmp_path / "root")
    yield made
    made.kill_everything()
