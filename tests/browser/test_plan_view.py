"""The view of a plan in a real browser, while real agents work on it and when they have ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_runs import Gate
from tests.api_server import Server
from tests.browser.fleet import HOSTILE
from tests.browser.page import Page
from tests.helpers import ROOT, wait_until
from tests.plan_root import PlanRoot, Record, offline, sh

DEFAULT_PLAN = ROOT / "prompts" / "plan.yaml"
CARDS = (
    "return Object.fromEntries([...document.querySelectorAll('.task-card')]"
    ".map(card => [card.dataset.task, card.dataset.status]))"
)


@pytest.fixture
def watcher(root: PlanRoot) -> Iterator[Server]:
    with Server(root.path) as made:
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path / "gate")
    try:
        yield made
    finally:
        made.close()


def held(task_id: str, gate: Gate, **keys: object) -> Record:
    """A task that works until the gate is opened."""
    return sh(task_id, f"read -r _ <'{gate.path}'", **keys)


def statuses(page: Page) -> dict[str, str]:
    """The state of each task that has a card."""
    found: dict[str, str] = page.js(CARDS)
    return found


def wait_for_cards(page: Page, **wanted: str) -> None:
    def has_come() -> bool:
        shown = statuses(page)
        return all(shown.get(name) == status for name, status in wanted.items())

    # Sooner than a plan that is run is asked for again without any event.
    wait_until(has_come, seconds=10, what=f"{wanted} on the page")


def has_focus(page: Page, selector: str) -> bool:
    """Whether the focus is there, or within."""
    return bool(page.js("return !!document.activeElement.closest(arguments[0])", selector))


def test_a_plan_of_34_tasks_is_shown_as_it_runs_to_its_end_also_through_a_restart_of_the_server(
    page: Page, root: PlanRoot, watcher: Server
) -> None:
    plan = root.start(str(DEFAULT_PLAN), "--agent", "offline", env={"CONDUCTOR_OFFLINE_DELAY": "1"})
    state_file = root.runs / "conductor-loop" / "PLAN-STATE.yaml"
    wait_until(state_file.exists, what="the plan has begun")
    page.open(watcher, "#/p/conductor-loop/plan")
    page.wait_for(".plan-top .badge", "running")
    page.js("window.same = true")
    wait_until(lambda: len(statuses(page)) == 34, what="a card for each task")
    wait_until(lambda: "running" in statuses(page).values(), what="one that is running")
    watcher.kill()
    page.wait_for("#connection", "retrying")
    assert plan.poll() is None, "it ended before the server was killed"
    watcher.start()
    page.wait_for("#connection", "live")
    assert plan.wait(100) == 0
    page.wait_for(".plan-top .badge", "done")
    page.wait_for(".plan-counts", "34 done")
    assert set(statuses(page).values()) == {"done"}
    assert page.js("return window.same") is True, "the page was loaded again"


def test_each_change_of_a_state_is_shown_in_place_with_its_reason(
    page: Page, root: PlanRoot, watcher: Server, gate: Gate
) -> None:
    root.plan(
        held("first", gate),
        sh("broken", "echo 'no such table' >&2; exit 3", critical=False),
        sh("behind", ":", depends_on=["broken"]),
        sh("later", ":", depends_on=["first"]),
    )
    plan = root.start("--keep-going")
    wait_until(root.state_file.exists, what="the plan has begun")
    page.open(watcher, "#/p/p/plan")
    wait_for_cards(page, first="running", broken="failed", behind="blocked", later="pending")
    page.wait_for("[data-task=later] .card-why", "waits for first")
    page.wait_for("[data-task=behind] .card-why", "needs broken")
    page.js("document.querySelector('[data-task=first]').focus()")
    gate.open(1)
    wait_for_cards(page, first="done", later="done")
    assert has_focus(page, "[data-task=first]"), "an update has taken the focus"
    assert plan.wait(30) == 1
    page.wait_for(".plan-top", "Retry failed")
    page.wait_for(".plan-counts", "1 blocked")
    assert page.console() == []


def test_the_graph_has_what_is_needed_before_what_needs_it(
    page: Page, root: PlanRoot, watcher: Server
) -> None:
    root.plan(
        stages=[
            {"id": "one", "title": "One", "tasks": [sh("a", ":"), sh("b", ":", depends_on=["a"])]},
            {"id": "two", "title": "Two", "tasks": [sh("c", ":")]},
        ]
    )
    assert root.run().returncode == 0
    page.open(watcher, "#/p/p/plan?tab=graph")
    nodes = "return document.querySelectorAll('.node[data-status=done]').length"
    wait_until(lambda: page.js(nodes) == 3, what="the graph")
    xs: dict[str, float] = page.js(
        "return Object.fromEntries([...document.querySelectorAll('.node')]"
        ".map(node => [node.dataset.task, node.getBoundingClientRect().x]))"
    )
    assert xs["a"] < xs["b"] < xs["c"]
    assert page.js("return document.querySelectorAll('.graph .edge:not(.barred)').length") == 1
    assert "Two" in page.js("return document.querySelector('.graph').textContent")
    page.keys("j", "j")
    wait_until(lambda: has_focus(page, ".node[data-task=b]"), what="the focus")
    lit = page.js(
        "return [...document.querySelectorAll('.node.lit')].map(node => node.dataset.task)"
    )
    assert sorted(lit) == ["a", "b"]
    page.keys("ENTER")
    page.wait_for(".task-panel", "Needs")
    assert page.text(".task-panel h2") == "b"


def test_the_timeline_has_a_bar_for_each_attempt_that_grows_while_it_runs(
    page: Page, root: PlanRoot, watcher: Server, gate: Gate
) -> None:
    root.plan(
        sh("twice", "[ -e tried ] || { touch tried; exit 1; }", retries=1),
        held("long", gate, depends_on=["twice"]),
        sh("never", ":", depends_on=["long"]),
    )
    plan = root.start()
    wait_until(root.state_file.exists, what="the plan has begun")
    page.open(watcher, "#/p/p/plan?tab=timeline")
    page.wait_for(".labels", "long")
    count = (
        "return document.querySelectorAll('.bars .bar[data-status=' + arguments[0] + ']').length"
    )
    wait_until(lambda: page.js(count, "running") == 1, what="a bar that grows")
    assert page.js(count, "failed") == 1
    assert page.js(count, "done") == 1
    share = (
        "const box = document.querySelector('.bar[data-status=running] .fill').getBBox();"
        "return box.width / document.querySelector('.bars').getBBox().width"
    )
    before = page.js(share)
    wait_until(lambda: page.js(share) > before, what="a longer bar")
    assert "now" in page.js("return document.querySelector('.axis').textContent")
    gate.open(1)
    assert plan.wait(30) == 0
    wait_until(lambda: page.js(count, "done") == 3, what="all bars")
    page.click("As a table")
    page.wait_for(".plan-content table", "never")
    attempts: str = page.js(
        "const row = document.querySelector('.plan-content tbody [data-task=twice]').closest('tr');"
        "return row.children[6].textContent"
    )
    assert attempts == "2"
    assert page.console() == []


def test_a_task_opens_in_place_by_the_keyboard_and_gives_the_focus_back(
    page: Page, root: PlanRoot, watcher: Server
) -> None:
    root.plan(
        sh("base", "echo hello"),
        sh("top", "echo 'it broke' >&2; exit 4", depends_on=["base"], title="The top"),
        sh("roof", ":", depends_on=["top"]),
    )
    assert root.run().returncode == 1
    page.open(watcher, "#/p/p/plan")
    wait_for_cards(page, base="done", top="failed")
    page.keys("j", "j", "ENTER")
    page.wait_for(".task-panel h2", "top")
    wait_until(lambda: has_focus(page, ".task-panel"), what="the focus in the task")
    assert page.js("return location.hash").endswith("task=top")
    panel = page.text(".task-panel")
    for words in ("The top", "failed", "base", "roof", "Open task", "Messages", "Retry"):
        assert words in panel, words
    run = page.js("return document.querySelector('.task-panel tbody a').hash")
    assert run.endswith(root.attempts("top")[-1]["run"])
    page.keys("ESCAPE")
    wait_until(lambda: has_focus(page, ".task-card[data-task=top]"), what="the focus where it was")
    assert page.text(".task-panel") == ""
    page.open(watcher, "#/p/p/plan?tab=graph&task=roof")
    page.wait_for(".task-panel", "top, which failed")
    page.size(390, 844)
    page.wait_for(".task-panel h2", "roof")
    assert page.js("return document.querySelector('.plan-main').inert"), (
        "what it covers can be reached"
    )
    assert page.js("return document.documentElement.scrollWidth") <= 390


def test_what_is_asked_for_by_text_or_state_stands_in_the_address(
    page: Page, root: PlanRoot, watcher: Server
) -> None:
    root.plan(sh("build-a", ":"), sh("build-b", "exit 1", critical=False), sh("check", ":"))
    root.run("--keep-going")
    page.open(watcher, "#/p/p/plan")
    wait_until(lambda: len(statuses(page)) == 3, what="all")
    page.keys("/", "b", "u", "i")
    wait_until(lambda: sorted(statuses(page)) == ["build-a", "build-b"], what="the filter")
    assert "q=bui" in page.js("return location.hash")
    page.keys("ESCAPE")
    page.click("1 failed")
    wait_until(lambda: sorted(statuses(page)) == ["build-b"], what="the state")
    page.click("Timeline")
    page.wait_for(".labels", "build-b")
    assert "build-a" not in page.text(".labels")
    page.driver.back()
    wait_until(lambda: sorted(statuses(page)) == ["build-b"], what="the place before")


def test_hostile_titles_and_reasons_are_text(page: Page, root: PlanRoot, watcher: Server) -> None:
    root.plan(
        offline("bad", f"say {HOSTILE}", "exit 3", title=HOSTILE, critical=False),
        sh("good", ":", title="a\u202eb </script><script>window.owned=1</script>" + "x" * 3000),
        title=HOSTILE,
    )
    root.run("--keep-going")
    for tab in ("stages", "graph", "timeline"):
        page.open(watcher, f"#/p/p/plan?tab={tab}&task=bad")
        page.wait_for("h1", HOSTILE)
        page.wait_for(".task-panel", HOSTILE)
        page.wait_for(".plan-content", "good")
        assert page.js("return document.documentElement.scrollWidth") <= 1200
    assert page.js("return window.owned") is None
    assert page.js("return document.querySelectorAll('main img, main script').length") == 0
    assert page.console() == []


def test_a_plan_of_thousands_is_bounded_in_the_page_and_can_be_read_to_its_end(
    page: Page, root: PlanRoot, watcher: Server
) -> None:
    tasks = [
        sh(f"t{number:04}", ":", depends_on=["t0000"] if number else []) for number in range(1500)
    ]
    tasks[0]["prompt"] = "```sh\nexit 1\n```\n"
    root.plan(*tasks)
    assert root.run().returncode == 1
    page.open(watcher, "#/p/p/plan?tab=graph")
    page.wait_for(".plan-content", "A graph of 1,500 tasks cannot be read")
    page.wait_for(".plan-content", "t0001")
    cards = len(statuses(page))
    assert 100 < cards < 1000
    assert statuses(page)["t0000"] == "failed", "what needs a look is left out"
    page.click(f"{1500 - cards:,} more")
    wait_until(lambda: len(statuses(page)) > cards, what="more of them")
    page.open(watcher, "#/p/p/plan?tab=timeline")
    page.wait_for(".labels", "t0003")
    assert page.js("return document.querySelectorAll('.labels > li').length") < 100
    page.js("const box = document.querySelector('.timeline-box'); box.scrollTop = box.scrollHeight")
    page.wait_for(".labels", "t1499")
    assert page.js("return document.querySelectorAll('.labels > li').length") < 100


def test_a_project_without_a_plan_says_how_to_begin_one(
    page: Page, root: PlanRoot, watcher: Server
) -> None:
    page.open(watcher, "#/p/none/plan")
    page.wait_for("[role=alert]", "has no plan")
    page.wait_for("[role=alert]", "./run-all-tasks.py")
    root.plan(sh("a", ":"), project="none")
    root.run()
    page.wait_for(".plan-counts", "1 done")  # it has come meanwhile
    assert "has no plan" not in page.text()


def test_who_types_a_filter_and_goes_elsewhere_at_once_stays_there(
    page: Page, fleet_server: Server
) -> None:
    page.open(fleet_server, "#/p/checkout/plan?task=test-all")
    page.wait_for(".task-panel", "totals")
    page.click("Graph")
    node = "return document.querySelectorAll('.graph [data-task=totals]').length"
    wait_until(lambda: page.js(node) == 1, what="the graph")
    # What it needs opens in the tab that is shown, not in that in which the list was made.
    assert "tab=graph" in page.js("return document.querySelector('.panel-links a').hash")
    place = page.driver.execute_async_script(
        """
        const field = document.querySelector("[data-search]");
        field.value = "totals";
        field.dispatchEvent(new Event("input"));
        location.hash = "#/p/checkout";
        setTimeout(arguments[0], 600, "");
        """
    )
    assert place == ""
    assert page.js("return location.hash") == "#/p/checkout"
