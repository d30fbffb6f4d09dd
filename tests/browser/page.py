"""The page as somebody in front of it sees it, and the agents behind it."""

from __future__ import annotations

import base64
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.agent_runs import Place
from tests.api_server import Server
from tests.helpers import ROOT, wait_until

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

KEY = "correct-horse-battery-staple"
NEEDED = ("chromium", "chromedriver")
STRANGER = "stranger.example"  # names that lead to this machine, as a stranger's may
REBOUND = "rebound.example"
_OPTIONS = (
    "--headless=new",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # in a container it is small
    "--no-first-run",
    "--no-proxy-server",
    f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1,MAP {REBOUND} 127.0.0.1",
)


def start_browser(profile: Path) -> WebDriver:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in (*_OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(word)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # it does not start for root otherwise
    options.binary_location = str(shutil.which(NEEDED[0]))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Chromium makes a socket in its temporary folder, whose path must have less than 108 bytes.
    service = Service(shutil.which(NEEDED[1]), env={**os.environ, "TMPDIR": "/tmp"})
    driver = webdriver.Chrome(options, service)
    driver.set_page_load_timeout(30)
    driver.set_script_timeout(30)
    return driver


AXE = ROOT / ".venv" / "js" / "node_modules" / "axe-core" / "axe.min.js"
_AXE_CALL = """
const done = arguments[arguments.length - 1];
axe.run({resultTypes: ["violations"]}).then(({violations}) => done(violations
  .filter(({impact}) => impact === "serious" || impact === "critical")
  .flatMap(({id, nodes}) => nodes.map(({target, failureSummary}) => `${id} ${target}: ${failureSummary}`))), String)
"""


class Page:
    """One tab; what is looked for is waited for."""

    def __init__(self, driver: WebDriver) -> None:
        self.driver = driver

    def reset(self) -> None:
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.size(1200, 900)
        self.scheme("light")
        self.console()

    def leave(self) -> None:
        """Let go of the server and its streams."""
        self.driver.get("about:blank")

    def open(self, server: Server, address: str = "") -> None:
        """A place of the page, such as `#/p/demo`; names in it are quoted already."""
        self.driver.get(
            "about:blank"
        )  # else only the place would change, in the page that is there
        self.go(f"http://127.0.0.1:{server.port}/ui/{address}")

    def go(self, address: str) -> None:
        self.driver.get(address)

    def size(self, width: int, height: int) -> None:
        """Of what is seen; a window of a desktop cannot be made as narrow as a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """light or dark."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def keys(self, *names: str) -> None:
        """Press keys, such as `j`, `ENTER`, `ESCAPE`, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        for name in names:
            ActionChains(self.driver).send_keys(getattr(Keys, name, name)).perform()

    def js(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str = "body") -> str:
        """What is to be read there now, of elements that are shown."""
        found: str = self.js(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter(element => element.checkVisibility())"  # innerText is there of hidden ones, too
            ".map(element => element.innerText).join('\\n')",
            selector,
        )
        return found

    def wait_for(self, selector: str, wanted: str) -> None:
        self._wait(lambda: wanted in self.text(selector), f"{wanted!r} in {selector}", selector)

    def wait_without(self, selector: str, unwanted: str) -> None:
        what = f"the end of {unwanted!r} in {selector}"
        self._wait(lambda: unwanted not in self.text(selector), what, selector)

    def _wait(self, condition: Callable[[], object], what: str, selector: str) -> None:
        try:
            wait_until(condition, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text(selector)}\n{self.console()}") from None

    def click(self, words: str) -> None:
        """A link or button by its words."""
        from selenium.webdriver.common.by import By

        path = f"//*[(self::a or self::button) and normalize-space()={words!r}]"
        wait_until(lambda: self.driver.find_elements(By.XPATH, path), what=f"{words!r}")
        self.driver.find_element(By.XPATH, path).click()

    def shoot(self, name: str, folder: Path) -> Path:
        """A picture of the whole page, not only of what is in the window."""
        height = self.js("return Math.min(8000, document.documentElement.scrollHeight)")
        width = self.js("return innerWidth")
        area = {"x": 0, "y": 0, "width": width, "height": max(height, 200), "scale": 1}
        options = {"captureBeyondViewport": True, "clip": area}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        path = folder / f"{name}.png"
        path.write_bytes(base64.b64decode(taken["data"]))
        return path

    def settle(self) -> None:
        """Wait until all that has been asked for is shown, and two pictures have been drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def check_axe(self) -> list[str]:
        """The serious faults that axe-core finds in what is shown, each with its place."""
        import pytest  # the bench uses the rest of this without it

        if not AXE.is_file():
            lack = f"no {AXE.name}; run make setup where npm is"
            must = os.environ.get("CONDUCTOR_BROWSER_TESTS") == "1"
            (pytest.fail if must else pytest.skip)(lack)
        self.js(AXE.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(_AXE_CALL)
        assert isinstance(found, list), found
        return found

    def hide(self, is_hidden: bool) -> None:
        """As when another tab comes before this one, or this one is seen again."""
        self.js(
            "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))",
            is_hidden,
        )

    def console(self) -> list[str]:
        """What the browser has complained about since: faults, refusals, violated policies."""
        entries: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [f"{entry['source']}: {entry['message']}" for entry in entries]


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[int]:
    """A web server of a test's own on this machine; its port."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class Talker:
    """A live run of the shell agent, which prints each line that it is told."""

    def __init__(self, place: Place, project: str, task: str) -> None:
        name = f"{project}-{task}-{len(list(place.cwd.iterdir()))}"
        path = place.cwd / f"{name}.fifo"
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR)
        loop = 'while IFS= read -r line; do [ "$line" = the-end ] && exit; printf "%s\\n" "$line"; done'
        prompt = place.script(f"{loop} <'{path}'", f"{name}.md")
        words = ["shell", ".", prompt.name, "--project", project, "--task", task]
        self._live = place.start(*words)
        self.run_id = self._live.run_id

    def say(self, *lines: str) -> None:
        os.write(self._fd, "".join(f"{line}\n" for line in lines).encode())

    def end(self) -> None:
        self.say("the-end")
        assert self._live.end()[0] == 0

    def close(self) -> None:
        os.close(self._fd)
