"""The page in a real browser, before a real server and real runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from lib import ids
from tests.agent_runs import Place
from tests.api_server import Server
from tests.browser.conftest import Talkers
from tests.browser.page import Page, serving
from tests.helpers import run_script, wait_until

HOSTILE = "<img src=x onerror=window.owned=1>"
SCRIPT = "</script><script>window.owned=1</script>"
ESCAPES = "a\x1b[31mred\x1b]0;owned\x07 b\u2028c\u202ed"


def post(place: Place, body: str, *options: str) -> None:
    words = ("--root", str(place.root), "--project", "demo", *options, body)
    done = run_script("bin/bus-append", *words, env=place.environment())
    assert done.returncode == 0, done.stderr


def test_it_shows_projects_tasks_and_the_runs_of_a_task(
    page: Page, place: Place, server: Server
) -> None:
    place.script("echo built; exit 3")
    code, run = place.run("shell", ".", "--project", "demo", "--task", "build").returncode, ""
    assert code == 3
    run = place.only_run().run_id
    page.open(server)
    page.wait_for("#projects", "demo")
    page.wait_for("#live", "Nothing runs.")
    page.click("demo")
    page.wait_for("#tasks", "build")
    page.wait_for("#tasks", "failed")
    page.click("build")
    page.wait_for("#runs", run)
    page.wait_for("#runs", "failed, exit code 3")
    page.click(run)
    page.wait_for("#run dl", "failed, exit code 3")
    page.click("stdout")
    page.wait_for("#log", "built")
    page.wait_for("#log-state", "run failed")
    page.click("prompt")
    page.wait_for("#log", "echo built; exit 3")
    assert "built\n" not in page.text("#log")
    page.driver.back()
    page.wait_for("#trail", "demo / build")
    assert page.console() == []


def test_what_an_agent_prints_appears_in_its_log_and_as_its_last_line(
    page: Page, server: Server, talkers: Talkers
) -> None:
    page.open(server)
    page.wait_for("#state", "live")
    talker = talkers.start()  # it begins while the page is open
    page.wait_for("#live", "demo / build")
    talker.say("first words")
    page.wait_for("#live td.last", "first words")
    page.click("demo / build")
    page.wait_for("#runs", "running")
    page.click(talker.run_id)
    page.click("stdout")
    page.wait_for("#log", "first words")
    talker.say("more", "and more")
    page.wait_for("#log", "first words\nmore\nand more")
    talker.end()
    page.wait_for("#log-state", "run completed")
    page.wait_for("#run dl", "completed")
    page.wait_for("#runs", "completed")
    assert page.text("#log").count("first words") == 1
    assert page.console() == []


def test_messages_appear_as_they_are_posted_and_once(
    page: Page, place: Place, server: Server
) -> None:
    place.script("true")
    assert place.run("shell", ".", "--project", "demo", "--task", "build").returncode == 0
    post(place, "before the page came")
    page.open(server, "demo")
    page.wait_for("#messages", "before the page came")
    post(place, "while it looks on")
    page.wait_for("#messages", "while it looks on")
    text = page.text("#messages")
    assert text.index("while it looks on") < text.index("before the page came")
    assert text.count("before the page came") == text.count("while it looks on") == 1
    assert page.console() == []


def test_it_goes_on_after_the_server_was_killed_and_started_again(
    page: Page, place: Place, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    page.open(server, "demo", "build", talker.run_id)
    page.click("stdout")
    talker.say("before")
    page.wait_for("#log", "before")
    server.kill()
    page.wait_for("#state", "lost")
    talker.say("meanwhile")
    other = talkers.start(task="begun-meanwhile")
    post(place, "posted meanwhile", "--task", "build")
    server.start()
    page.wait_for("#state", "live")
    page.wait_for("#log", "before\nmeanwhile")
    talker.say("after")
    page.wait_for("#log", "before\nmeanwhile\nafter")
    assert page.text("#log").split() == ["before", "meanwhile", "after"]
    page.wait_for("#messages", "posted meanwhile")
    assert page.text("#messages").count("posted meanwhile") == 1
    page.click("demo")
    page.wait_for("#tasks", "begun-meanwhile")
    page.wait_for("#live", "demo / begun-meanwhile")
    other.end()
    page.wait_without("#live", "begun-meanwhile")


def test_it_goes_on_after_a_proxy_has_refused_its_streams(
    page: Page, server: Server, talkers: Talkers
) -> None:
    """To a browser such an answer is the end of a stream."""
    talker = talkers.start()
    page.open(server, "demo", "build", talker.run_id)
    page.click("stdout")
    talker.say("before")
    page.wait_for("#log", "before")
    server.kill()
    with refusing(server.port) as refused:
        talker.say("meanwhile")
        wait_until(
            lambda: all(any(word in path for path in refused) for word in STREAMS),
            what="the refusal of all streams",
        )
    server.start()
    page.wait_for("#log", "before\nmeanwhile")
    assert page.text("#log").split() == ["before", "meanwhile"]
    page.wait_for("#state", "live")


STREAMS = ("/runs/stream/all", "/messages/stream", "/stream?resume=1")


@contextmanager
def refusing(port: int) -> Iterator[list[str]]:
    """A server that has but 503 for everybody; the paths that it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler, port):
        yield paths


def test_a_tab_that_nobody_sees_lets_go_of_its_streams_and_misses_nothing(
    page: Page, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    page.open(server, "demo", "build", talker.run_id)
    page.click("stdout")
    talker.say("before")
    page.wait_for("#log", "before")
    page.hide(True)
    talker.say("meanwhile")
    talker.end()
    assert page.text("#log") == "before\n"
    page.hide(False)
    page.wait_for("#log-state", "run completed")
    assert page.text("#log").split() == ["before", "meanwhile"]


def test_hostile_names_and_lines_stay_text(
    page: Page, place: Place, server: Server, talkers: Talkers
) -> None:
    for folder in (place.runs_dir / HOSTILE / HOSTILE, place.runs_dir / "demo" / HOSTILE):
        folder.mkdir(parents=True)
        (folder / "TASK.md").write_text("Do it.\n")
    talker = talkers.start()
    talker.say(HOSTILE, SCRIPT, ESCAPES)
    post(place, f"{HOSTILE}{SCRIPT}{ESCAPES}", "--type", "FACT")
    page.open(server, "demo")
    page.wait_for("#projects", HOSTILE)
    page.wait_for("#tasks", HOSTILE)
    page.wait_for("#messages", HOSTILE + SCRIPT)
    page.wait_for("#live td.last", "red")
    page.click("demo / build")
    page.click(talker.run_id)
    page.click("stdout")
    page.wait_for("#log", f"{HOSTILE}\n{SCRIPT}\na␛[31mred␛]0;owned␇ b")
    assert page.js("return window.owned") is None
    assert page.js("return document.querySelectorAll('img, iframe, body script').length") == 0
    assert not set("\x1b\x07\u202e") & set(page.js("return document.documentElement.textContent"))
    page.click(HOSTILE)
    page.wait_for("#trail", HOSTILE)
    page.click(HOSTILE)
    page.wait_for("#tasks", HOSTILE)
    assert page.js("return decodeURIComponent(location.hash)") == f"#/{HOSTILE}"
    assert page.js("return document.title") == f"{HOSTILE} – Conductor Loop"
    assert page.js("return window.owned") is None
    assert page.console() == []


def test_it_can_be_used_with_the_keyboard_alone(page: Page, place: Place, server: Server) -> None:
    from selenium.webdriver.common.keys import Keys

    place.script("true")
    assert place.run("shell", ".", "--project", "demo", "--task", "build").returncode == 0
    page.open(server)
    page.wait_for("#projects", "demo")
    for wanted in ("demo", "build", place.only_run().run_id, "stderr"):
        page.wait_for("body", wanted)
        for _ in range(40):
            page.driver.switch_to.active_element.send_keys(Keys.TAB)
            if page.js("return document.activeElement.textContent") == wanted:
                break
        page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait_for("#log-state", "the file is empty")
    assert page.js("return document.activeElement.textContent") == "stderr"


def test_the_focus_stays_when_lists_change(page: Page, server: Server, talkers: Talkers) -> None:
    talkers.start(task="one")
    page.open(server, "demo")
    page.wait_for("#tasks", "one")
    page.js("document.querySelector('#tasks a').focus()")
    talkers.start(task="two")
    page.wait_for("#tasks", "two")
    assert page.js("return document.activeElement.textContent") == "one"


def test_it_fits_on_a_narrow_screen_and_has_a_dark_face(
    page: Page, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start(task="a-task-with-a-name-that-is-" + "very-" * 15 + "long")
    talker.say("x" * 500)
    page.open(server, "demo")
    page.wait_for("#live td.last", "xxx")
    metrics = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    grounds = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        grounds.append(page.js("return getComputedStyle(document.body).backgroundColor"))
        assert page.js("return document.documentElement.scrollWidth") <= 360
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 22)"]


def test_many_tasks_come_in_pages(page: Page, place: Place, server: Server) -> None:
    for number in range(150):
        folder = place.runs_dir / "demo" / f"task-{ids.stamp(1_767_268_800 + number)}-t"
        folder.mkdir(parents=True)
        (folder / "TASK.md").write_text("Do it.\n")
    page.open(server, "demo")
    page.wait_for("#extent", "1 to 100 of 150")
    page.click("Older")
    page.wait_for("#extent", "101 to 150 of 150")
    assert page.js("return document.querySelectorAll('#tasks tbody tr').length") == 50
    page.click("Newer")
    page.wait_for("#extent", "1 to 100 of 150")
    assert page.console() == []


def test_a_large_log_shows_its_end_and_does_not_fill_the_browser(
    page: Page, place: Place, server: Server
) -> None:
    place.script("yes | head -c 1000000; echo the last one")
    assert place.run("shell", ".", "--project", "demo", "--task", "build").returncode == 0
    page.open(server, "demo", "build", place.only_run().run_id)
    page.click("stdout")
    page.wait_for("#log-state", "run completed; this is the end of the file")
    lines = page.js("return document.getElementById('log').textContent").split("\n")
    assert lines[-3:] == ["y", "the last one", ""]
    assert 5000 <= len(lines) <= 10_001
