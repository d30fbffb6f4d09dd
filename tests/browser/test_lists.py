"""Long lists: of all that there is only what is in sight is in the page, and all of it is reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent_runs import Place
from tests.api_server import Server
from tests.bench.server_tree import PROJECT, RUNS_OF_A_TASK, task_name, write_tree
from tests.browser.conftest import Talkers
from tests.browser.fleet import HOSTILE, Fleet
from tests.browser.page import Page
from tests.helpers import wait_until

TASKS = 60
RUNS = TASKS * RUNS_OF_A_TASK
MOST_ROWS = 60  # a window of 900 pixels has 25 of them
FIRST_IN_SIGHT = """
const bottom = document.querySelector(".virtual .top").getBoundingClientRect().bottom;
return [...document.querySelectorAll(".rows .row")].find((row) => row.getBoundingClientRect().top >= bottom)
  ?.querySelector("a").textContent
"""
# So slow that the keys come to rows that have not been loaded yet.
SLOW = """
const really = window.fetch;
window.fetch = (...words) => new Promise((resolve) => setTimeout(resolve, 300)).then(() => really(...words));
"""
# Presses a key again and again until the focus is in the last (or first) row.
PRESS = """
const [key, wanted, done] = arguments;
const place = () => document.activeElement.closest(".row")?.getAttribute("aria-rowindex");
let [pressed, most] = [0, 0];
const press = () => {
  for (let number = 0; number < 25 && place() !== wanted; number += 1) {
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    pressed += 1;
    most = Math.max(most, document.querySelectorAll(".rows .row").length);
  }
  if (place() === wanted || pressed > 5000) done([place(), pressed, most]);
  else requestAnimationFrame(press);
};
press();
"""


@pytest.fixture
def many(place: Place) -> Path:
    """Tasks with runs that ended long ago."""
    place.runs_dir.mkdir(exist_ok=True)
    write_tree(place.runs_dir, TASKS)
    return place.runs_dir


def rows(page: Page) -> int:
    found: int = page.js("return document.querySelectorAll('.rows .row').length")
    return found


def row_texts(page: Page, selector: str) -> list[str]:
    found: list[str] = page.js(
        "return [...document.querySelectorAll(arguments[0])].map((cell) => cell.textContent)",
        f".rows {selector}",
    )
    return found


def test_of_many_runs_those_in_sight_are_in_the_page(
    page: Page, many: Path, server: Server
) -> None:
    page.open(server, "#/runs")
    page.wait_for(".total", f"{RUNS:,}")
    page.wait_for(".rows", task_name(TASKS - 1))
    assert 0 < rows(page) < MOST_ROWS
    table = "return document.querySelector('[role=table]').getAttribute('aria-rowcount')"
    assert page.js(table) == str(RUNS + 1)
    page.js("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for(".rows", task_name(0))
    last = "return [...document.querySelectorAll('.rows .row')].at(-1).ariaRowIndex"
    wait_until(lambda: page.js(last) == str(RUNS + 1), what="the last row")
    assert rows(page) < MOST_ROWS
    middle = RUNS // 2
    page.js("scrollTo(0, document.documentElement.scrollHeight / 2)")
    page.wait_for(".rows", task_name(middle // RUNS_OF_A_TASK))
    indexes = page.js(
        "return [...document.querySelectorAll('.rows .row')].map((row) => Number(row.ariaRowIndex))"
    )
    assert indexes == list(range(indexes[0], indexes[0] + len(indexes)))
    assert page.console() == []


def test_j_and_k_go_through_all_of_them(page: Page, many: Path, server: Server) -> None:
    page.open(server, "#/runs")
    page.wait_for(".rows", task_name(TASKS - 1))
    page.js(SLOW)
    page.keys("j")
    where, pressed, most = page.driver.execute_async_script(PRESS, "j", str(RUNS + 1))
    assert where == str(RUNS + 1)
    assert pressed == RUNS - 1  # none was left out, and none needed two
    assert most < 2 * MOST_ROWS
    wait_until(
        lambda: page.js("return document.activeElement.getAttribute('href') ?? ''").startswith(
            f"#/p/{PROJECT}/t/{task_name(0)}/r/"
        ),
        what="the focus on the link of the last run",
    )
    assert page.js(
        "const box = document.activeElement.getBoundingClientRect();"
        "return box.top > 0 && box.bottom <= innerHeight"
    )
    back = str(RUNS + 1 - 100)
    where, pressed, _ = page.driver.execute_async_script(PRESS, "k", back)
    assert (where, pressed) == (back, 100)


def test_the_row_with_the_focus_stays_in_the_page_while_one_scrolls(
    page: Page, many: Path, server: Server
) -> None:
    page.open(server, "#/runs")
    page.wait_for(".rows", task_name(TASKS - 1))
    page.keys("j", "j", "j")
    href = page.js("return document.activeElement.href")
    page.js("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for(".rows", task_name(0))
    assert page.js("return document.activeElement.href") == href
    page.keys("j")
    assert page.js("return document.activeElement.closest('.row').ariaRowIndex") == "5"
    assert page.js("return document.activeElement.getBoundingClientRect().top") > 0


def test_what_is_new_moves_nothing_that_somebody_looks_at(
    page: Page, many: Path, server: Server, talkers: Talkers
) -> None:
    page.open(server, "#/runs")
    page.wait_for(".rows", task_name(TASKS - 1))
    page.wait_for("#connection", "live")
    page.js("scrollTo(0, 12000)")
    page.settle()
    page.wait_for(".rows", task_name(TASKS - 1 - 12000 // 36 // RUNS_OF_A_TASK))
    before = page.js(FIRST_IN_SIGHT)
    talker = talkers.start(task="new-one")
    page.wait_for(".total", f"{RUNS + 1:,}")
    assert page.js(FIRST_IN_SIGHT) == before
    page.js("scrollTo(0, 0)")
    page.wait_for(".rows", "new-one")
    assert talker.run_id in row_texts(page, ".run")[0]
    page.wait_for(".rows .state", "running")
    talker.end()
    page.wait_without(".rows .state", "running")
    assert page.console() == []


def test_words_and_states_choose_runs_and_stand_in_the_address(
    page: Page, many: Path, server: Server
) -> None:
    page.open(server, "#/runs")
    page.wait_for(".total", f"{RUNS:,}")
    entries = page.js("return history.length")
    page.keys("/", *f"{PROJECT} {task_name(7)}")
    page.wait_for(".total", str(RUNS_OF_A_TASK))
    wait_until(lambda: rows(page) == RUNS_OF_A_TASK, what="the runs of one task")
    assert all(text.startswith(task_name(7)) for text in row_texts(page, ".task"))
    page.click("Failed")
    wait_until(lambda: 0 < rows(page) < RUNS_OF_A_TASK, what="those of them that failed")
    assert set(row_texts(page, ".state")) == {"failed"}
    address = page.js("return location.hash")
    assert address == f"#/runs?q={PROJECT}+{task_name(7)}&status=failed"
    assert page.js("return history.length") == entries
    page.open(server, address)
    page.wait_for(".rows", task_name(7))
    assert page.js("return document.querySelector('[data-search]').value").endswith(task_name(7))
    assert page.text(".choice [aria-pressed=true]") == "Failed"
    page.click("Runs")  # as at first
    page.wait_for(".total", f"{RUNS:,}")
    assert page.js("return document.querySelector('[data-search]').value") == ""
    page.keys("/", *"no such words")
    page.wait_for(".empty", "No run in this state has all these words.")
    assert page.console() == []


def test_the_tasks_of_a_project_are_chosen_by_words_and_states(
    page: Page, many: Path, server: Server
) -> None:
    page.open(server, f"#/p/{PROJECT}")
    page.wait_for("h2", str(TASKS))
    page.wait_for(".used", f"{RUNS:,} runs")
    page.keys("/", *"00001")
    page.wait_for(".total", "11")
    wait_until(lambda: rows(page) == 11, what="the tasks of these words")
    page.click("Failed")
    wait_until(lambda: 0 < rows(page) < 11, what="those of them that failed")
    assert set(row_texts(page, ".state")) == {"failed"}
    assert page.js("return location.hash") == f"#/p/{PROJECT}?q=00001&status=failed"
    page.js("document.querySelector('.rows .act button').click()")
    page.wait_for("dialog", "again?")
    page.keys("ESCAPE")
    page.click(row_texts(page, ".task")[0].strip())
    page.wait_for("h1", "00001")
    assert page.console() == []


def test_a_task_of_a_plan_has_its_sentence_and_no_button_while_the_plan_is_run(
    page: Page, fleet: Fleet, fleet_server: Server
) -> None:
    page.open(fleet_server, "#/p/checkout")
    page.wait_for(".rows", "quota")
    page.wait_for(".plan-card", "A checkout that adds up")
    page.wait_for(".rows", "failed after 2 attempts")
    assert page.text(".rows .act").strip() == ""
    page.click("A checkout that adds up")
    wait_until(lambda: page.js("return location.hash") == "#/p/checkout/plan", what="the plan")


def test_projects_tell_their_plan_and_are_chosen_by_words(
    page: Page, fleet: Fleet, fleet_server: Server
) -> None:
    page.open(fleet_server, "#/projects")
    page.wait_for(".rows", "website")
    assert HOSTILE in row_texts(page, ".project")
    assert "7 of 7" in page.text(".rows .plan")
    page.keys("/", *"web")
    wait_until(lambda: row_texts(page, ".project") == ["website"], what="the project of that word")
    assert page.js("return location.hash") == "#/projects?q=web"
    assert page.js("return window.owned") is None
    assert page.console() == []


def test_on_a_phone_a_row_is_a_card_that_leads_to_its_run(
    page: Page, many: Path, server: Server
) -> None:
    page.size(390, 844)
    page.open(server, "#/runs")
    page.wait_for(".rows", task_name(TASKS - 1))
    page.settle()
    heights = page.js(
        "return [...document.querySelectorAll('.rows .row')].slice(0, 3).map((row) => row.getBoundingClientRect())"
        ".map(({top, height}) => [top, height])"
    )
    assert heights[0][1] >= 80
    assert heights[1][0] - heights[0][0] == pytest.approx(heights[0][1])
    assert page.js("return document.documentElement.scrollWidth") <= 390
    run = row_texts(page, ".run")[0]
    page.js(
        "const {left, top} = document.querySelector('.rows .row .agent').getBoundingClientRect();"
        "document.elementFromPoint(left + 5, top + 5).click()"
    )
    wait_until(lambda: page.js("return location.hash").endswith(f"/r/{run}"), what="the run")


def test_a_row_that_is_gone_leaves_the_focus_to_the_one_in_its_place(
    page: Page, many: Path, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start(task="first")
    other = talkers.start(task="second")
    page.open(server, "#/runs?status=running")
    page.wait_for(".rows", "second")
    page.wait_for("#connection", "live")
    page.keys("j")
    assert other.run_id in page.js("return document.activeElement.textContent")
    other.end()
    page.wait_without(".rows", "second")
    assert talker.run_id in page.js("return document.activeElement.textContent")
    talker.end()
    page.wait_for(".empty", "No run in this state")
