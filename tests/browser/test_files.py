"""What the page is made of; no browser is needed to look at that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import ROOT

FOLDER = ROOT / "web" / "static"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
# By these, text becomes something that runs.
_UNSAFE = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser"
    r"|\beval\b|new Function|setAttribute\(\"on|javascript:"
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_no_script_makes_text_into_markup(path: Path) -> None:
    assert _UNSAFE.findall(path.read_text(encoding="utf-8")) == []


def test_the_page_has_no_inline_script_or_style_and_nothing_from_elsewhere() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html) == []
    for path in FILES:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"(?m)^\s*//.*|\s//\s.*$", "", text), path.name


def test_every_file_that_is_named_is_there_and_every_file_is_used() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r'(?:src|href)="([\w./-]+\.\w+)"', html)) - {"/api/openapi.json"}
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        named |= {
            (path.parent / name).resolve().relative_to(FOLDER).as_posix()
            for name in re.findall(r'(?:from |import |import\()"(\.[^"]+)"', text)
        }
    assert named | {"index.html"} == {path.relative_to(FOLDER).as_posix() for path in FILES}


def test_the_scripts_use_what_the_page_has() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([\w-]+)"', html)
    used = {
        name
        for path in SCRIPTS
        for name in re.findall(r'byId\("([\w-]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert len(ids) == len(set(ids))
    assert used <= set(ids)
