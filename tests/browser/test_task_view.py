"""A task: its runs, what they have used, and what can be done with it."""

from __future__ import annotations

import shutil
from pathlib import Path

from lib import runs
from tests.agent_runs import Place
from tests.api_server import Server
from tests.browser.conftest import Talkers
from tests.browser.fleet import Fleet
from tests.browser.page import Page
from tests.helpers import run_script, wait_until

ROWS = "return [...document.querySelectorAll('.runs-table tbody tr')].map((row) => row.innerText)"
TASK = "task-20261101-120000-demo"


def loop(place: Place, script: str, *options: str) -> None:
    (place.cwd / "TASK.md").write_text(f"Words of the prompt: <b>hi</b>\n\n```sh\n{script}\n```\n")
    words = ["--project", "demo", "--task", TASK, "--agent", "shell", "--prompt-file", "TASK.md"]
    words += ["--restart-delay", "0", "--root", str(place.root), *options]
    run_script("bin/run-task", *words, cwd=place.cwd, env=place.environment())


def folder(place: Place) -> Path:
    return place.runs_dir / "demo" / TASK


def test_it_shows_the_runs_newest_first_with_why_they_failed(
    page: Page, place: Place, server: Server
) -> None:
    loop(place, "exit 4", "--max-restarts", "3")
    page.open(server, f"#/p/demo/t/{TASK}")
    page.wait_for(".runs-table", "failed")
    rows = page.js(ROWS)
    assert len(rows) == 3
    assert [row.split()[0] for row in rows] == sorted(
        (row.split()[0] for row in rows), reverse=True
    )
    assert all("exited with code 4" in row for row in rows)
    page.wait_for(".strip", "Loop\nfailed")
    page.driver.find_element("css selector", "details summary").click()
    page.wait_for(".prompt-text", "Words of the prompt: <b>hi</b>")
    page.keys("j")
    page.driver.switch_to.active_element.click()
    page.wait_for("h1", rows[0].split()[0])
    assert page.console() == []


def test_a_run_that_begins_and_ends_appears_by_itself(
    page: Page, server: Server, talkers: Talkers
) -> None:
    first = talkers.start()
    page.open(server, "#/p/demo/t/build")
    page.wait_for(".runs-table", first.run_id)
    first.end()
    page.wait_for(".runs-table .badge", "done")
    second = talkers.start()
    page.wait_for(".runs-table", second.run_id)
    wait_until(lambda: second.run_id in page.js(ROWS)[0], what="the newest on top")
    second.end()
    page.wait_without(".runs-table", "running")
    assert page.console() == []


def test_of_a_thousand_runs_the_last_are_shown_until_one_asks_for_more(
    page: Page, place: Place, server: Server
) -> None:
    loop(place, "exit 4", "--max-restarts", "1")
    [model] = (path for path in (folder(place) / "runs").iterdir() if path.name[0] != ".")
    record = (model / runs.RECORD).read_text()
    for number in range(1, 1001):
        name = f"{model.name[:-6]}{number + 100_000:06}-1"
        copy = model.with_name(name)
        copy.mkdir()
        text = record.replace(model.name, name) + "cost_usd: 0.5\n"
        (copy / runs.RECORD).write_text(text.replace("cost_usd: 0.0\n", ""))
    shutil.rmtree(model)
    server.kill()
    server.start()
    page.open(server, f"#/p/demo/t/{TASK}")
    page.wait_for(".strip", "Runs\n1,000")
    assert len(page.js(ROWS)) == 50
    page.click("Show 200 of 950 older")
    wait_until(lambda: len(page.js(ROWS)) == 250, what="200 more")
    page.wait_for(".strip", "$500.00")
    label = page.js("return document.querySelector('.used-chart svg').getAttribute('aria-label')")
    assert label.startswith("Cost over time: $500.00 after 1000 steps")
    assert page.console() == []


def test_a_task_that_is_done_can_be_reopened(page: Page, place: Place, server: Server) -> None:
    loop(place, f"touch '{folder(place)}/DONE'", "--max-restarts", "3")
    page.open(server, f"#/p/demo/t/{TASK}")
    page.wait_for(".heading .badge", "done")
    assert page.text(".heading .actions") == "Resume"
    page.click("Resume")
    page.wait_for("dialog", TASK)
    page.js("document.querySelector('dialog button.first').click()")
    wait_until(lambda: len(page.js(ROWS)) == 2, what="another run")
    page.wait_for(".heading .badge", "done")


def test_a_task_of_a_plan_leads_to_the_plan_and_tells_what_it_has_used(
    page: Page, fleet: Fleet, fleet_server: Server
) -> None:
    page.open(fleet_server, "#/p/checkout/t/invoices")
    page.wait_for(".why", "failed after 2 attempts")
    page.wait_for(".heading .actions", "Retry")
    page.wait_for(".strip", "Attempts\n2")
    page.click("See it in the plan")
    page.wait_for("main", "invoices")
    assert "/plan?task=invoices" in page.js("return location.hash")
    page.open(fleet_server, "#/p/checkout/t/release")
    page.wait_for("main", "No run yet.")
    page.driver.find_element("css selector", "details summary").click()
    page.wait_for(".prompt-text", "There is none yet.")
    assert page.console() == []  # nothing is asked for that is not there
