"""A run: how it stands and why, where it comes from, what it has started, and what can be done."""

from __future__ import annotations

import pytest

from tests.agent_runs import Place
from tests.api_server import Server
from tests.browser.conftest import Talkers
from tests.browser.fleet import Fleet
from tests.browser.page import Page
from tests.helpers import PYTHON, ROOT, run_script, wait_until

FACTS = """
return Object.fromEntries([...document.querySelectorAll('.strip > div')].map((fact) =>
  [fact.children[0].textContent, fact.children[1].textContent]))
"""


def started(place: Place, script: str, task: str = "build", code: int = 0) -> str:
    """The id of a run of this script that has ended."""
    place.script(script)
    done = place.run("shell", ".", "prompt.md", "--project", "demo", "--task", task)
    assert done.returncode == code, done.stderr
    return next(run.run_id for run in place.all_runs() if run.text("task_id") == task)


def test_it_says_how_the_run_ended_and_why_and_has_its_files(
    page: Page, place: Place, server: Server
) -> None:
    run = started(place, "echo built; echo oops >&2; kill -9 $$", code=137)
    page.open(server, f"#/p/demo/t/build/r/{run}")
    page.wait_for("h1", run)
    page.wait_for(".badge", "failed")
    page.wait_for(".why", "SIGKILL")
    facts = page.js(FACTS)
    assert facts["Exit code"] == "137, SIGKILL"
    assert facts["Agent"] == "shell"
    assert facts["Started"].endswith("ago")
    tabs = page.text(".log .tabs").split("\n")
    assert "stdout\n6 B" in "\n".join(tabs) or "stdout 6 B" in " ".join(tabs)
    page.js(
        "[...document.querySelectorAll('.log .tabs a')].find((a) => /stderr/.test(a.textContent)).click()"
    )
    page.wait_for(".log-text", "oops")
    assert "file=stderr" in page.js("return location.hash")
    page.driver.back()
    page.wait_for(".log-text", "built")
    assert str(place.cwd) in page.text(".run-aside .facts")
    assert f"bin/show-run {run}" in page.text(".advice")
    raw = page.js("return document.querySelector('.log-toggles a').getAttribute('href')")
    assert "name=" in raw
    assert server.get(raw).status == 200
    assert page.console() == []


def test_a_run_is_found_by_its_id_alone(page: Page, place: Place, server: Server) -> None:
    run = started(place, "echo hello")
    page.open(server, f"#/r/{run}")
    page.wait_for(".log-text", "hello")
    page.wait_for(".trail", "build")
    page.wait_for(".last-messages", "RUN_STOP")
    page.open(server, "#/r/run_20200101-000000-1-nowhere")
    page.wait_for(".problem", "run not found")


def test_the_attempts_of_a_loop_lead_to_each_other(
    page: Page, place: Place, server: Server
) -> None:
    task = "task-20261101-120000-restarts"
    (place.cwd / "TASK.md").write_text("```sh\necho again; exit 4\n```\n")
    words = ["--project", "demo", "--task", task, "--agent", "shell", "--prompt-file", "TASK.md"]
    words += ["--max-restarts", "3", "--restart-delay", "0", "--root", str(place.root)]
    run_script("bin/run-task", *words, cwd=place.cwd, env=place.environment())
    folder = place.runs_dir / "demo" / task / "runs"
    _, second, third = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
    page.open(server, f"#/p/demo/t/{task}/r/{second}")
    page.wait_for(".run-aside", "This is run 2 of 3.")
    assert page.js(FACTS)["Attempt"] == "2 of 3"
    assert page.text(".chain [aria-current=page]") == "Run 2"
    page.click("Run 3")
    page.wait_for("h1", third)
    page.wait_for(".run-aside", "This is run 3 of 3.")
    page.keys("ESCAPE")
    page.wait_for("h1", task)
    assert page.console() == []


def test_what_a_run_has_started_is_a_tree_that_leads_down_and_up(
    page: Page, place: Place, server: Server
) -> None:
    agent = " ".join([*PYTHON, str(ROOT / "run-agent.py"), "shell", "."])
    place.script("echo low", "low.md")
    place.script(f"{agent} low.md --task grandchild", "middle.md")
    run = started(place, f"{agent} middle.md --task child; {agent} low.md --task sibling", "top")
    page.open(server, f"#/p/demo/t/top/r/{run}")
    page.wait_for(".run-aside", "3 runs")
    page.wait_for(".tree .tree", "grandchild")
    page.click("grandchild")
    page.wait_for("h1", "grandchild")
    page.wait_for(".run-aside", "Started by")
    assert page.text(".chain .run-link a").split("\n") == ["top", "child"]
    page.click("top")
    page.wait_for("h1", run)
    assert page.console() == []


def test_a_live_run_is_stopped_once_that_was_confirmed(
    page: Page, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    talker.say("at work")
    page.open(server, f"#/p/demo/t/build/r/{talker.run_id}")
    page.wait_for(".badge", "running")
    page.wait_for(".actions", "Stop")
    assert "Retry" not in page.text(".heading .actions")
    page.click("Stop")
    page.wait_for("dialog", "Stop the run")
    page.click("Leave it")
    page.wait_for(".badge", "running")
    page.click("Stop")
    page.click("Stop the run")
    page.wait_for(".badge", "failed")
    page.wait_for(".heading .actions", "Retry")
    assert page.console() == []


def test_what_a_run_of_a_plan_has_used_is_told(
    page: Page, fleet: Fleet, fleet_server: Server
) -> None:
    run = max(path.name for path in fleet.plan_root.runs.glob("run_*-prices"))
    page.open(fleet_server, f"#/p/checkout/t/prices/r/{run}")
    page.wait_for(".block", "Totals are rounded once")
    facts = page.js(FACTS)
    assert facts["Agent"] == "claude"
    assert facts["Model"].startswith("claude-opus")
    assert facts["Attempt"].startswith("1 of ")
    assert facts["Cost"] == "$0.35"
    assert facts["Cached"] == "140.0 k"
    assert page.js("return document.querySelectorAll('.block-call').length") == 3
    assert page.console() == []


def test_messages_and_state_change_without_a_reload(
    page: Page, place: Place, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    page.open(server, f"#/p/demo/t/build/r/{talker.run_id}")
    page.wait_for(".badge", "running")
    words = ["--root", str(place.root), "--project", "demo", "--task", "build", "posted <b>now</b>"]
    assert run_script("bin/bus-append", *words, env=place.environment()).returncode == 0
    page.wait_for(".last-messages", "posted <b>now</b>")
    talker.end()
    page.wait_for(".badge", "done")
    wait_until(lambda: page.js(FACTS).get("Exit code") == "0", what="the exit code")
    assert page.console() == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(
    page: Page, place: Place, server: Server, width: int
) -> None:
    run = started(place, f"printf '%s\\n' {'w' * 3000}")
    page.size(width, 844)
    page.open(server, f"#/p/demo/t/build/r/{run}?file=stdout")
    page.wait_for(".log-text", "wwww")
    assert page.js("return document.documentElement.scrollWidth") <= width
