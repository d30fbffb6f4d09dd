"""What a person does in the page: starting, stopping, doing again; with real tasks, runs and plans."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api_server import Server
from tests.browser.conftest import Talkers
from tests.browser.page import Page
from tests.helpers import wait_until
from tests.plan_root import PlanRoot, sh
from tests.task_root import FINISH, TaskRoot

WAIT = "while [ ! -e go ]; do sleep 0.02; done"
TASK = {"project_id": "p", "task_id": "t"}


@pytest.fixture
def tasks_server(tasks_root: TaskRoot) -> Iterator[Server]:
    env = tasks_root.environment({"CONDUCTOR_CONFIG": str(tasks_root.config_file)})
    with Server(tasks_root.path, env=env) as made:
        yield made


def act(page: Page, name: str, *arguments: object) -> None:
    """Call an action of the page, as its buttons do; what it gives is `window.given` at last."""
    page.js(
        "window.given = null; const [name, ...rest] = arguments;"
        "import('/ui/js/actions.js').then(all => all[name](...rest)).then(given => window.given = given)",
        name,
        *arguments,
    )


def wait_for_given(page: Page, wanted: bool) -> None:
    wait_until(lambda: page.js("return window.given") is not None, what="the end of the action")
    assert page.js("return window.given") is wanted


def wait_for_agents(page: Page) -> None:
    names = "return [...document.querySelectorAll('select option')].map(each => each.value)"
    wait_until(lambda: "fake" in page.js(names), what="the agents")


def write(page: Page, label: str, text: str) -> None:
    """Into the field of that label, by the keyboard."""
    page.js(
        "const label = [...document.querySelectorAll('label')].find(l => l.innerText === arguments[0]);"
        "const field = document.getElementById(label.htmlFor); field.focus(); field.select?.()",
        label,
    )
    page.keys(*text)


def test_a_task_is_started_by_the_keyboard_alone(
    page: Page, tasks_root: TaskRoot, tasks_server: Server
) -> None:
    tasks_root.agent(FINISH)
    page.open(tasks_server, "#/start?project=new-one")
    page.wait_for(".hint", "There is no project new-one yet")
    wait_for_agents(page)
    page.js("document.querySelector('select').focus()")
    page.keys(*"fake")
    write(page, "What is to be done", "Fix the cart")
    page.wait_for(".will", "Starts fake on task-")
    page.wait_for(".will", "-fix-the-cart of new-one, in the folder of the task.")
    page.wait_for(".command", "bin/run-task --project new-one --task task-")
    write(page, "Task", "cart")
    page.wait_for(".will", "Starts fake on cart of new-one")
    page.keys("ENTER")
    wait_until(lambda: page.driver.current_url.endswith("#/p/new-one/t/cart"), what="the task")
    page.wait_for("#notices", "cart has begun.")
    folder = tasks_root.runs / "new-one" / "cart"
    wait_until((folder / "DONE").exists, what="its end")
    assert (folder / "TASK.md").read_text() == "Fix the cart\n"
    page.open(tasks_server, "#/start")
    wait_for_agents(page)
    assert page.js("return document.querySelector('textarea').value") == ""
    assert page.console() == []


def test_what_is_wrong_is_said_at_its_field_and_what_was_written_stays(
    page: Page, tasks_root: TaskRoot, tasks_server: Server
) -> None:
    assert tasks_root.run("--prompt", "x", "--max-restarts", "1").returncode == 1
    (tasks_root.runs / "p" / "t" / "DONE").touch()
    page.open(tasks_server, "#/start?project=..&task=a/b")
    wait_for_agents(page)
    page.click("Start")
    page.wait_for(".wrong", "It cannot begin with a dot or a dash.")
    page.wait_for(".wrong", "Say what is to be done.")
    page.wait_for(".wrong", "Only letters")
    assert page.js("return document.activeElement.value") == ".."
    page.open(tasks_server, "#/start?project=p&task=t")
    page.wait_for(".hint", "There is a task of that name")
    page.wait_for(".will", "in the folder that it had before")
    write(page, "What is to be done", "Again")
    write(page, "Working folder", "/nowhere/at/all")
    page.click("Start")
    page.wait_for(".wrong", "project_root does not exist")
    page.js("document.activeElement.value = ''")
    page.click("Start")
    page.wait_for(".wrong", "task is done; resume it first")
    page.driver.refresh()
    wait_for_agents(page)
    assert page.js("return document.querySelector('textarea').value") == "Again"


def test_a_server_that_starts_nothing_says_so_and_offers_the_command(
    page: Page, tasks_root: TaskRoot
) -> None:
    with Server(tasks_root.path, "--disable-task-start") as server:
        page.open(server, "#/start?project=p&task=t")
        page.wait_for(".problem", "--disable-task-start")
        page.wait_for(".command", f"--runs-dir {tasks_root.runs}")
        assert page.js(
            "return [...document.querySelectorAll('button')].find(b => b.innerText === 'Start').disabled"
        )
        act(page, "resumeTask", TASK)
        page.click("Start again")
        wait_for_given(page, wanted=False)
        page.wait_for("#notices", "Not done: task")


def test_a_run_is_stopped_when_that_was_meant(page: Page, server: Server, talkers: Talkers) -> None:
    talker = talkers.start()
    run = {"run_id": talker.run_id, "project_id": "demo", "task_id": "build"}
    page.open(server)
    act(page, "stopRun", run)
    page.wait_for("dialog", f"Stop the run {talker.run_id}?")
    page.wait_for("dialog", f"bin/stop-run {talker.run_id} --runs-dir")
    assert page.check_axe() == []
    page.keys("ENTER")  # the focus is on what changes nothing
    wait_for_given(page, wanted=False)
    page.wait_without("body", "Stop the run")
    assert server.get(f"/api/v1/runs/{talker.run_id}").json["status"] == "running"
    act(page, "stopRun", run)
    page.wait_for("dialog", "are told to end")
    page.click("Stop the run")
    wait_for_given(page, wanted=True)
    page.wait_for("#notices", "is being stopped")
    path = f"/api/v1/runs/{talker.run_id}"
    wait_until(lambda: server.get(path).json["status"] != "running", what="its end")
    act(page, "stopRun", run)
    page.click("Stop the run")
    wait_for_given(page, wanted=False)
    page.wait_for("#notices", "Not done: run already finished")


def test_a_task_is_cancelled_tried_again_and_started_again(
    page: Page, tasks_root: TaskRoot, tasks_server: Server
) -> None:
    gate = tasks_root.gate()
    tasks_root.agent(f"read -r _ <'{gate.path}'; {FINISH}")
    wish = {**TASK, "agent_type": "fake", "prompt": "x"}
    run_id = tasks_server.send("POST", "/api/v1/tasks", json=wish).json["run_id"]
    page.open(tasks_server)
    act(page, "stopRun", {**TASK, "run_id": run_id})
    page.wait_for("dialog", "The loop of the task t ends with it")
    page.keys("ESCAPE")
    wait_for_given(page, wanted=False)
    act(page, "cancelTask", TASK)
    page.wait_for("dialog", "It is marked as done, though it may not be")
    page.click("Cancel the task")
    wait_for_given(page, wanted=True)
    page.wait_for("#notices", "t is marked as done, and 1 run of it is being stopped.")
    done = tasks_root.runs / "p" / "t" / "DONE"
    assert done.exists()
    task = "/api/projects/p/tasks/t"
    wait_until(lambda: not tasks_server.get(task).json["live"], what="its end")

    def again(name: str, what: dict[str, str], words: str) -> None:
        act(page, name, what)
        page.click(words)
        wait_for_given(page, wanted=True)
        page.wait_for("#notices", "t has begun. See the run")
        gate.open()
        wait_until(lambda: not tasks_server.get(task).json["live"], what="its end")
        assert done.exists()

    again("resumeTask", TASK, "Start again")
    again("retryRun", {**TASK, "run_id": run_id}, "Try again")
    assert len(tasks_server.get(task).json["runs"]) == 3
    page.click("See the run")
    wait_until(lambda: "/t/t/r/" in page.driver.current_url, what="the run")


def test_two_clicks_ask_once_and_another_place_takes_the_question_back(
    page: Page, tasks_server: Server
) -> None:
    page.open(tasks_server)
    page.js(
        "import('/ui/js/actions.js').then(all => {"
        "all.cancelTask(arguments[0]); all.cancelTask(arguments[0])})",
        TASK,
    )
    page.wait_for("dialog", "Cancel the task t?")
    page.js("return fetch('/api/v1/status')")  # so long as a second one would take
    page.settle()
    assert page.js("return document.querySelectorAll('dialog').length") == 1
    page.js("location.hash = '#/projects'")
    page.wait_without("body", "Cancel the task t?")
    assert tasks_server.get("/api/projects/p/tasks/t").status == 404


def test_a_refusal_with_a_command_that_helps_shows_it(
    page: Page, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    talker.end()
    page.open(server)
    act(page, "retryRun", {"run_id": talker.run_id, "project_id": "demo", "task_id": "build"})
    page.click("Try again")
    page.wait_for("dialog", "start it again in a terminal")
    page.wait_for("dialog", f"--previous {talker.run_id}")
    page.click("Close")
    wait_for_given(page, wanted=False)


def test_a_plan_goes_on_is_stopped_and_tries_again_what_has_failed(
    page: Page, root: PlanRoot
) -> None:
    root.plan(sh("a", "[ -e mended ]"), sh("b", WAIT))
    with Server(root.path, env=root.environment()) as server:
        plan = "/api/v1/plans/p"
        assert root.run("--keep-going", "--only", "a").returncode == 1
        page.open(server)
        act(page, "startPlan", "p", {"only": ["b"]})
        page.wait_for("dialog", "Only b is run.")
        page.click("Start")
        wait_for_given(page, wanted=True)
        page.wait_for("#notices", "The plan of p has begun. See the plan")
        wait_until(lambda: server.get(plan).json["state"] == "running", what="the plan")
        act(page, "stopPlan", "p")
        page.wait_for("dialog", "Wait: the agents that run now work on to their end")
        page.keys("ENTER")
        wait_for_given(page, wanted=True)
        page.wait_for("#notices", "begins nothing more")
        (root.work / "go").touch()
        wait_until(lambda: server.get(plan).json["state"] != "running", what="its end")
        (root.work / "mended").touch()
        act(page, "startPlan", "p", {"retryFailed": True, "count": 1})
        page.wait_for(
            "dialog", "Only what has failed is tried again, and what was blocked by that (1 task)."
        )
        page.click("Try again")
        wait_for_given(page, wanted=True)
        wait_until(lambda: server.get(plan).json["state"] == "done", what="its end")
        act(page, "stopPlan", "p")
        page.click("Stop now")
        wait_for_given(page, wanted=False)
        page.wait_for("#notices", "Not done: the plan is not run")
        page.leave()
