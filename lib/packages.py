"""Packages from outside, found also by scripts that start without site-packages."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load(name: str) -> Any:
    """The package, looked for beyond a bare sys.path too; None where it is missing."""
    import importlib

    for extend in (None, _add_site_packages, _add_own_environment):
        if extend is not None:
            extend()
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _add_site_packages() -> None:
    if sys.flags.no_site:
        import site

        site.main()


def _add_own_environment() -> None:
    import glob

    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    pattern = os.path.join(glob.escape(root), ".venv/lib/python3*/site-packages")
    sys.path.extend(path for path in sorted(glob.glob(pattern)) if path not in sys.path)
