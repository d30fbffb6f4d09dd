"""The overview: how far everything is, problems first, what runs, and where to go from here."""

from __future__ import annotations

from typing import Any

from tests.agent_runs import Place
from tests.api_server import Server
from tests.browser.conftest import Talkers
from tests.browser.fleet import HOSTILE, LONG_ID, Fleet
from tests.browser.page import Page
from tests.helpers import wait_until

COUNTS = """
return Object.fromEntries([...document.querySelectorAll(".counts li")].map((item) =>
  [item.dataset.status, Number(item.querySelector("strong").textContent)]))
"""


def told(server: Server) -> Any:
    return server.get("/api/v1/overview").json


def test_it_tells_what_the_server_knows_and_failures_first(
    page: Page, fleet: Fleet, fleet_server: Server
) -> None:
    page.open(fleet_server)
    page.wait_for(".counts", "failed")
    answer = told(fleet_server)
    assert page.js(COUNTS) == answer["counts"]
    assert page.text(".counts").split()[:2] == [str(answer["counts"]["failed"]), "failed"]
    label = page.js("return document.querySelector('.status-line .progress').ariaLabel")
    assert label.startswith(f"{answer['counts']['done']} of {answer['total']} tasks done")
    for name in ("Elapsed", "Left", "Tokens", "Cost", "Disk", "Last event"):
        assert name in page.text(".figures")
    assert f"+ {answer['usage']['runs_without_cost']} runs without cost" in page.text(".figures")
    assert page.js("return document.querySelectorAll('.problems > li').length") == len(
        answer["problems"]
    )
    assert LONG_ID in page.text(".problems")
    assert page.text(".agents tbody").count("checkout") == 2
    assert "waiting for the bank" in page.text(".agents .line")
    assert "A checkout that adds up" in page.text(".plans")
    assert HOSTILE in page.text(".recent")
    assert page.js("return window.owned") is None
    assert page.console() == []


def test_a_problem_has_the_command_that_helps_and_leads_to_its_run(
    page: Page, fleet: Fleet, fleet_server: Server
) -> None:
    page.open(fleet_server)
    page.wait_for(".problems", "checkout/invoices failed")
    problem = next(item for item in told(fleet_server)["problems"] if item["task_id"] == "invoices")
    assert problem["command"] in page.text(".problems .cure code")
    page.driver.execute_script(
        "[...document.querySelectorAll('.problems .sentence')]"
        ".find((link) => link.textContent.includes('invoices')).click()"
    )
    wait_until(
        lambda: page.js("return location.hash") == f"#/p/checkout/t/invoices/r/{problem['run_id']}",
        what="the place of the run",
    )


def test_a_failure_appears_by_itself_with_its_button(
    page: Page, place: Place, server: Server
) -> None:
    page.open(server)
    page.wait_for("main", "Nothing has been run here yet")
    page.wait_for("main", "./run-all-tasks.py --agent offline")
    assert page.text(".counts") == ""
    page.wait_for("#connection", "live")
    place.script("echo 'no such table'; exit 3")
    assert place.run("shell", ".", "--project", "demo", "--task", "build").returncode == 3
    page.wait_for(".problems", "demo/build failed")
    page.wait_for(".counts", "failed")
    page.wait_for(".recent", "demo")
    assert page.text("main").count("Nothing has been run here yet") == 0
    page.click("Retry")
    page.wait_for("dialog", "build again?")
    page.keys("ESCAPE")
    assert page.js("return location.hash") in ("", "#/")
    assert page.console() == []


def test_no_problem_takes_one_quiet_line(page: Page, place: Place, server: Server) -> None:
    place.script("true")
    assert place.run("shell", ".", "--project", "demo", "--task", "build").returncode == 0
    page.open(server)
    page.wait_for("main", "No problems")
    assert page.text(".problems") == ""
    page.wait_for("main", "No agent is at work")


def test_the_focus_stays_where_it_is_while_agents_come_and_go(
    page: Page, server: Server, talkers: Talkers
) -> None:
    first = talkers.start(task="first")
    page.open(server)
    page.wait_for(".agents", "first")
    page.wait_for("#connection", "live")
    page.js("document.querySelector('.agents tbody a').focus()")
    second = talkers.start(task="second")
    page.wait_for(".agents", "second")
    focused = "return document.activeElement.textContent"
    assert page.js(focused) == "first"
    second.say("a line of the second")
    page.wait_for(".agents", "a line of the second")
    second.end()
    page.wait_without(".agents", "second")
    assert page.js(focused) == "first"
    first.end()
    page.wait_for("main", "No agent is at work")
    assert page.console() == []


def test_times_go_on_though_nothing_happens(page: Page, server: Server, talkers: Talkers) -> None:
    talkers.start()
    page.open(server)
    page.wait_for(".agents .for", "s")
    selectors = (".agents tbody .for", ".agents tbody .silent", ".event time")
    before = [page.text(selector) for selector in selectors]

    def have_all_ticked() -> bool:
        return all(page.text(of) != then for of, then in zip(selectors, before, strict=True))

    wait_until(have_all_ticked, what="a tick of all times")
    assert page.console() == []


def test_everything_is_reached_by_j_and_enter(
    page: Page, fleet: Fleet, fleet_server: Server
) -> None:
    page.open(fleet_server)
    page.wait_for(".recent", "website")
    names = []
    rows = page.js("return [...document.querySelectorAll('[data-row]')].length")
    for _ in range(rows):
        page.keys("j")
        names.append(page.js("return document.activeElement.textContent"))
    assert len(set(names)) >= rows - 1  # a project may be called as its plan
    assert names[-1] == page.js(
        "return [...document.querySelectorAll('.recent tbody a')].at(-1).textContent"
    )
    page.keys("ENTER")
    page.wait_for("h1", names[-1])
