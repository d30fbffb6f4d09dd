"""The frame of the page: the connection, places, keys, hostile text; before a real server and runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.agent_runs import Place
from tests.api_server import Server
from tests.browser.conftest import Talkers
from tests.browser.page import Page, serving
from tests.helpers import run_script, wait_until

HOSTILE = "<img src=x onerror=window.owned=1>"
SCRIPT = "</script><script>window.owned=1</script>"
ESCAPES = "a\x1b[31mred\x1b]0;owned\x07 b\u2028c\u202ed"
# By each of these a text would run if it became markup.
INJECT = """
const script = document.createElement("script");
script.textContent = "window.owned = 1";
document.body.append(script);
const holder = document.createElement("div");
holder.innerHTML = "<img src=x onerror='window.owned=2'><a href='javascript:window.owned=3'>x</a>";
document.body.append(holder);
holder.querySelector("a").click();
"""


def post(place: Place, body: str, *options: str) -> None:
    words = ("--root", str(place.root), "--project", "demo", *options, body)
    done = run_script("bin/bus-append", *words, env=place.environment())
    assert done.returncode == 0, done.stderr


def test_what_an_agent_prints_appears_beside_its_name(
    page: Page, server: Server, talkers: Talkers
) -> None:
    page.open(server)
    page.wait_for("#connection", "live")
    talker = talkers.start()  # it begins while the page is open
    page.wait_for("main", "build")
    talker.say("first words")
    page.wait_for("main", "first words")
    talker.say("other words")
    page.wait_for("main", "other words")
    page.wait_without("main", "first words")
    talker.end()
    page.wait_without("main", "other words")
    assert page.console() == []


def test_it_goes_on_after_the_server_was_killed_and_started_again(
    page: Page, place: Place, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    page.open(server)
    talker.say("before")
    page.wait_for("main", "before")
    server.kill()
    page.wait_for("#connection", "retrying")
    talker.say("meanwhile")
    talkers.start(task="begun-meanwhile").say("hello")
    server.start()
    page.wait_for("#connection", "live")
    page.wait_for("main", "meanwhile")
    page.wait_for("main", "begun-meanwhile")
    talker.say("after")
    page.wait_for("main", "after")


def test_it_goes_on_after_a_proxy_has_refused_its_stream(
    page: Page, server: Server, talkers: Talkers
) -> None:
    """To a browser such an answer is the end of a stream."""
    talker = talkers.start()
    page.open(server)
    talker.say("before")
    page.wait_for("main", "before")
    server.kill()
    with refusing(server.port) as refused:
        talker.say("meanwhile")
        wait_until(lambda: "/api/v1/events" in refused, what="the refusal of the stream")
    server.start()
    page.wait_for("main", "meanwhile")
    page.wait_for("#connection", "live")


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


def test_a_tab_that_nobody_sees_lets_go_of_its_stream_and_misses_nothing(
    page: Page, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    page.open(server)
    talker.say("before")
    page.wait_for("main", "before")
    page.hide(True)
    page.wait_for("#connection", "closed")
    wait_until(lambda: streams_of(server) == 0, what="the end of the stream")
    talker.say("meanwhile")
    page.hide(False)
    page.wait_for("#connection", "live")
    page.wait_for("main", "meanwhile")


def streams_of(server: Server) -> int:
    """How many streams the server feeds now."""
    lines = server.get("/metrics").text.split("\n")
    return sum(
        int(float(line.split()[-1])) for line in lines if line.startswith("conductor_sse_clients")
    )


def test_one_stream_is_enough_for_every_view(page: Page, server: Server, talkers: Talkers) -> None:
    talker = talkers.start()
    page.open(server)
    page.wait_for("#connection", "live")
    run = f"#/p/demo/t/build/r/{talker.run_id}"
    for place in ("#/p/demo", "#/p/demo/t/build", f"{run}?file=stdout", "#/messages", "#/"):
        page.js("location.hash = arguments[0]", place)
        page.wait_for("main", "demo")
        assert streams_of(server) == 1


def test_no_request_leaves_the_server_that_serves_it(
    page: Page, server: Server, talkers: Talkers
) -> None:
    talkers.start().say("see http://example.com/picture.png")
    page.open(server)
    page.wait_for("main", "example.com")
    asked = page.js("return performance.getEntriesByType('resource').map(({name}) => name)")
    assert asked
    assert [name for name in asked if not name.startswith(f"http://127.0.0.1:{server.port}/")] == []


def test_hostile_lines_stay_text(
    page: Page, place: Place, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    post(place, f"{HOSTILE}{SCRIPT}{ESCAPES}", "--type", "FACT")
    for line in (HOSTILE, SCRIPT, ESCAPES):
        talker.say(line)
        for address in ("", f"#/p/demo/t/build/r/{talker.run_id}?file=stdout"):
            page.open(server, address)
            page.wait_for("main", "red" if line == ESCAPES else line)
    page.open(server, "#/messages")
    page.wait_for("main", HOSTILE + SCRIPT)
    assert page.js("return window.owned") is None
    assert page.js("return document.querySelectorAll('main img, iframe, body script').length") == 0
    assert not set("\x1b\x07\u202e") & set(page.js("return document.documentElement.textContent"))
    assert page.console() == []


def test_even_markup_that_gets_into_the_page_runs_nothing(page: Page, server: Server) -> None:
    page.open(server)
    page.wait_for("#connection", "live")
    page.js(INJECT)
    said: list[str] = []

    def is_refused() -> bool:
        said.extend(line for line in page.console() if "Content Security Policy" in line)
        return len(said) >= 3

    wait_until(is_refused, what="the browser to have refused all three")
    assert page.js("return window.owned") is None


def test_a_place_that_is_none_leads_back(page: Page, server: Server) -> None:
    for address in ("#/nowhere", "#/p/%E0%A4%A", "#/p/a/b/c"):
        page.open(server, address)
        page.wait_for("main", "The address leads nowhere")
    page.click("To the overview")
    page.wait_without("main", "leads nowhere")
    page.open(server, "#/p/not-there")
    page.wait_for("main [role=alert]", "not found")


def test_the_keys_are_told_and_lead_from_row_to_row(
    page: Page, server: Server, talkers: Talkers
) -> None:
    for task in ("one", "two"):
        talkers.start(task=task)
    page.open(server, "#/p/demo")
    page.wait_for("main", "two")
    page.keys("?")
    page.wait_for("dialog", "next row")
    page.keys("ESCAPE")
    page.wait_without("body", "next row")
    page.keys("j")
    first = page.js("return document.activeElement.closest('[data-row]').innerText")
    page.keys("j")
    second = page.js("return document.activeElement.closest('[data-row]').innerText")
    assert first != second
    page.keys("k", "ENTER")
    page.wait_for("h1", "one" if "one" in first else "two")
    page.keys("ESCAPE")
    page.wait_for("h1", "demo")


def test_the_focus_stays_when_a_list_changes(page: Page, server: Server, talkers: Talkers) -> None:
    talkers.start(task="one")
    page.open(server, "#/p/demo")
    page.wait_for("main", "one")
    page.keys("j")
    before = page.js("return document.activeElement.textContent")
    talkers.start(task="two")
    page.wait_for("main", "two")
    assert page.js("return document.activeElement.textContent") == before


def test_the_link_past_the_navigation_leaves_the_place_as_it_is(
    page: Page, server: Server, talkers: Talkers
) -> None:
    talkers.start()
    page.open(server, "#/p/demo")
    page.wait_for("main", "build")
    page.keys("TAB", "ENTER")
    assert page.js("return document.activeElement.id") == "main"
    assert page.js("return location.hash") == "#/p/demo"


def test_who_turns_back_before_a_view_is_there_sees_the_one_that_was_left_marked(
    page: Page, server: Server
) -> None:
    page.open(server, "#/runs")
    page.wait_for("h1", "Runs")
    page.js("location.hash = '#/messages'")
    page.js("location.hash = '#/runs'")
    page.wait_for("nav [aria-current]", "Runs")
    page.settle()
    assert page.text("nav [aria-current]") == "Runs"
    assert page.text("h1") == "Runs"


def test_items_of_the_same_name_do_not_pile_up(page: Page, server: Server) -> None:
    page.open(server)
    found = page.driver.execute_async_script(
        """
        const done = arguments[0];
        import("/ui/js/dom.js").then(({h, syncChildren}) => {
          const list = h("ul");
          for (let round = 0; round < 3; round += 1) {
            syncChildren(list, ["a", "b", "a"], String, (name) => h("li", {}, name));
          }
          done([...list.children].map((item) => item.textContent));
        });
        """
    )
    assert found == ["a", "b", "a"]
