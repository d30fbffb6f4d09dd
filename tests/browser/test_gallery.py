"""Every view with a day's work in it, as phones and screens show it, in light and dark."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.api_server import Server
from tests.browser.fleet import HOSTILE, LONG_ID, Fleet
from tests.browser.page import Page

SIZES = {390: 844, 1280: 900, 1920: 1080}
SCHEMES = ("light", "dark")
# What is shown, by the name of its picture: the address behind /ui/, and words that it must show.
VIEWS = {
    "overview": ("#/", "claude-two"),
    "projects": ("#/projects", "website"),
    "project": ("#/p/checkout", "test-invoices"),
    "plan-stages": ("#/p/checkout/plan?tab=stages", "test-invoices"),
    "plan-graph": ("#/p/checkout/plan?tab=graph", "test-invoices"),
    "plan-timeline": ("#/p/checkout/plan?tab=timeline", "invoices"),
    "plan-task": ("#/p/checkout/plan?tab=stages&task=invoices", "after 2 attempts"),
    "plan-done": ("#/p/website/plan?tab=timeline", "publish"),
    "task": ("#/p/checkout/t/invoices", "exit"),
    "task-long": (f"#/p/by-hand/t/{LONG_ID}", "somebody"),
    "run-transcript": ("{run cart}", "Totals are rounded once"),
    "run-stdout": ("{run payments}?file=stdout", "waiting for the bank"),
    "run-failed": ("{run invoices}", "agent exited with code 3"),
    "runs": ("#/runs", "payments"),
    "messages": ("#/messages", "Which rounding"),
    "messages-project": ("#/p/checkout/messages", "per line was the bug"),
    "start": ("#/start", "Agent"),
    "nowhere": ("#/nowhere", "leads nowhere"),
}


def folder() -> Path | None:
    """Where the pictures are kept, if anywhere."""
    place = os.environ.get("CONDUCTOR_SCREENSHOTS")
    if not place:
        return None
    Path(place).mkdir(parents=True, exist_ok=True)
    return Path(place)


def address(fleet: Fleet, template: str) -> str:
    """`{run TASK}` becomes the address of the task's newest run."""
    if not template.startswith("{run "):
        return template
    task, _, rest = template.removeprefix("{run ").partition("}")
    return f"#/p/checkout/t/{task}/r/{fleet.newest_run(task)}{rest}"


@pytest.mark.parametrize("name", VIEWS)
def test_it_is_legible_at_every_width_and_axe_finds_no_serious_fault(
    page: Page, fleet: Fleet, fleet_server: Server, name: str, tmp_path: Path
) -> None:
    template, words = VIEWS[name]
    faults = []
    for width, height in SIZES.items():
        page.size(width, height)
        page.open(fleet_server, address(fleet, template))
        page.wait_for("main", words)
        page.wait_for("#connection", "live")
        for scheme in SCHEMES:
            page.scheme(scheme)
            page.settle()
            page.shoot(f"{name}-{width}-{scheme}", folder() or tmp_path)
            if width < max(SIZES):  # the widest shows the same as the one before
                faults += [f"{width} {scheme}: {fault}" for fault in page.check_axe()]
        assert page.js("return document.documentElement.scrollWidth") <= width, (
            f"{width} is too narrow"
        )
        assert page.js("return document.querySelectorAll('h1').length") >= 1
    assert faults == []
    assert page.js("return window.owned") is None
    assert page.console() == []


def test_hostile_names_have_places_too(page: Page, fleet_server: Server) -> None:
    page.open(fleet_server, "#/projects")
    page.wait_for("main", HOSTILE)
    page.click(HOSTILE)
    page.wait_for("h1", HOSTILE)
    assert page.js("return document.title").startswith(HOSTILE)
    assert page.js("return window.owned") is None
    assert page.js("return document.querySelectorAll('main img, iframe, body script').length") == 0
    assert page.console() == []
