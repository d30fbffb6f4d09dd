"""The server and its page against strangers: those without the key, and pages of other origins."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.agent_runs import Place
from tests.api_server import Server
from tests.browser.conftest import Talkers
from tests.browser.page import KEY, REBOUND, STRANGER, Page, serving
from tests.stored_root import snapshot

ATTACK = (Path(__file__).parent / "attack.js").read_text(encoding="utf-8")
CALL = "const done = arguments[arguments.length - 1]; attack(...arguments).then(done, String)"
PATHS = ["/ui/", "/api/projects", "/api/v1/status", "/metrics"]
CHANGE = "/api/projects/demo/messages"
_LINK = re.compile(r"http://\S+/login\?token=[\w-]+")


def link_of(server: Server) -> str:
    """The link that lets a browser in, from the first line that the server printed."""
    found = _LINK.search(server.first_lines)
    assert found is not None, server.first_lines
    return found[0]


# ---- the key -----------------------------------------------------------------


def test_without_the_key_the_page_says_how_to_get_in_and_holds_nothing(
    page: Page, guarded: Server, talkers: Talkers
) -> None:
    talkers.start(project="secret-project").say("a secret line")
    page.open(guarded, "#/p/secret-project")
    page.wait_for("#locked", "This server asks for a key")
    page.wait_for("#connection", "no access")
    page.wait_for("#locked", f"127.0.0.1:{guarded.port}/api/v1/login-links")
    assert "secret" not in page.js("return document.body.textContent")
    assert page.text("main") == ""


def test_the_link_lets_a_browser_in_and_the_streams_work(
    page: Page, guarded: Server, talkers: Talkers
) -> None:
    page.open(guarded)
    page.wait_for("#locked", "This server asks for a key")
    page.go(link_of(guarded))
    page.wait_for("#connection", "live")
    talker = talkers.start()
    page.wait_for("main", "build")
    talker.say("hello")
    page.wait_for("main", "hello")
    page.open(guarded, f"#/r/{talker.run_id}?file=stdout")
    page.wait_for("main", "hello")
    assert page.js("return location.href").startswith(f"http://127.0.0.1:{guarded.port}/ui/#")
    assert "token=" not in page.js("return document.documentElement.outerHTML")
    assert page.js("return document.cookie") == ""  # no script can read it


def test_the_link_works_once(page: Page, guarded: Server) -> None:
    link = link_of(guarded)
    page.go(link)
    page.wait_for("#connection", "live")
    page.leave()
    page.reset()
    page.go(link)
    page.wait_for("body", "This link is spent")
    page.open(guarded)
    page.wait_for("#locked", "This server asks for a key")


def test_what_was_shown_goes_when_the_key_is_not_good_any_more(
    page: Page, place: Place, guarded: Server, talkers: Talkers
) -> None:
    talkers.start(project="secret-project").say("a secret line")
    page.go(link_of(guarded))
    page.wait_for("main", "a secret line")
    guarded.kill()
    port = str(guarded.port)
    with Server(place.root, "--port", port, env={"CONDUCTOR_API_KEY": KEY[::-1]}) as other:
        page.wait_for("#locked", "This server asks for a key")
        assert "secret" not in page.js("return document.documentElement.textContent")
        page.go(link_of(other))
        page.wait_for("main", "a secret line")


# ---- pages of other origins --------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    """A stranger's web server: a page with the attack in it, at every address."""

    def do_GET(self) -> None:
        body = f"<!doctype html><body><script>{ATTACK}</script>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def demo(place: Place) -> Place:
    """A place with an ended run of the project `demo`."""
    place.script("echo done")
    assert place.run("shell", ".", "--project", "demo", "--task", "build").returncode == 0
    return place


def attack(page: Page, target: str) -> list[str]:
    found: object = page.driver.execute_async_script(CALL, target, PATHS, CHANGE)
    assert isinstance(found, list), found
    return found


@pytest.mark.parametrize("name", [STRANGER, "127.0.0.1"])
@pytest.mark.parametrize("has_key", [False, True], ids=["open", "logged in"])
def test_a_page_of_another_origin_reads_and_changes_nothing(
    page: Page, demo: Place, name: str, has_key: bool
) -> None:
    """Also where the browser has the cookie, and sends it since both are on one host."""
    with Server(demo.root, env={"CONDUCTOR_API_KEY": KEY} if has_key else {}) as server:
        if has_key:
            page.go(link_of(server))
            page.wait_for("main", "demo")
        before = snapshot(demo.root)
        with serving(_Handler) as port:
            page.go(f"http://{name}:{port}/")
            assert attack(page, f"http://127.0.0.1:{server.port}") == []
            page.leave()
        assert server.end() == (0, "", "")  # whatever was under way is done now
        assert snapshot(demo.root) == before


@pytest.mark.parametrize("has_key", [False, True], ids=["open", "with a key"])
def test_a_name_that_was_pointed_at_this_machine_opens_nothing(
    page: Page, demo: Place, has_key: bool
) -> None:
    """To the browser this is one origin, so that only the server can tell."""
    with Server(demo.root, env={"CONDUCTOR_API_KEY": KEY} if has_key else {}) as server:
        before = snapshot(demo.root)
        page.driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
        page.go(f"http://{REBOUND}:{server.port}/ui/")
        page.js(f"{ATTACK}; window.attack = attack")
        found = attack(page, "")
        page.driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})
        refused = [text for text in found if "this server does not go by the name" in text]
        assert len(refused) > len(PATHS)
        assert [text for text in found if text not in refused] == []
        page.leave()
        assert server.end() == (0, "", "")
        assert snapshot(demo.root) == before


def test_the_same_page_reads_and_writes_where_its_origin_is_allowed(
    page: Page, demo: Place, tmp_path: Path
) -> None:
    """So the attack is one: it fails above for what the server does."""
    with serving(_Handler) as port:
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps({"api": {"cors_origins": [f"http://{STRANGER}:{port}"]}}))
        with Server(demo.root, env={"CONDUCTOR_CONFIG": str(config)}) as server:
            page.go(f"http://{STRANGER}:{port}/")
            read = "\n".join(attack(page, f"http://127.0.0.1:{server.port}"))
            page.leave()
    for word in ('"id":"demo"', "<!doctype html>", "stream: ", '"msg_id"'):
        assert word in read
    assert "of a stranger" in demo.bus.read_text()
