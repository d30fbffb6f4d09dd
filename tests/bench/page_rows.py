"""How the page feels with a large root: the rows of the bench that need a browser.

One Chromium looks at one server for all rows.  Its long tasks are what it says itself
(PerformanceObserver, from 50 ms on); its memory is that of the process that runs the page, with
what it shares with other processes of the browser.
"""

from __future__ import annotations

import functools
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lib import ids, packages, runs, yamlio
from tests.bench import server_tree
from tests.bench.base import FULL, MissingError, NotRunError, Result, Row, Size
from tests.bench.server_rows import against, served
from tests.browser.page import NEEDED, Page, start_browser
from tests.stored_root import NOON

LOG_LINES = 200_000
SECONDS = 30.0
_WATCH = """
window.longest = 0;
new PerformanceObserver((list) => {
  for (const {duration} of list.getEntries()) window.longest = Math.max(window.longest, duration);
}).observe({type: "longtask", buffered: true});
"""
_STALL = """
setTimeout(() => {
  const began = performance.now();
  while (performance.now() < began + 80);
});
"""
_SCROLL = """
const done = arguments[0];
const boxes = [document.scrollingElement, ...document.querySelectorAll("main, main *")];
const box = boxes.reduce((one, other) =>
  other.scrollHeight - other.clientHeight > one.scrollHeight - one.clientHeight ? other : one);
let step = 0;
const turn = () => {
  if (step > 120) return done(box.scrollHeight);
  box.scrollTop = (box.scrollHeight * (step % 60)) / 60;
  step += 1;
  requestAnimationFrame(turn);
};
turn();
"""


class Session:
    """All that is measured in one browser, in the order in which it happens."""

    def __init__(self, size: Size, folder: Path) -> None:
        for name in NEEDED:
            if shutil.which(name) is None:
                raise MissingError(f"{name} is not installed")
        if packages.load("selenium") is None:
            raise MissingError("selenium is not installed; run make setup")
        self.size = size
        self.paints: list[float] = []
        self.longest: list[float] = []
        self.opens: list[float] = []
        self.memory: list[float] = []
        root = folder / "page"
        server_tree.write_tree(root / "runs", size.many)
        self._run = write_long_run(root / "runs", LOG_LINES if size is FULL else 2000)
        with ExitStack() as stack:
            self._server = stack.enter_context(served(root))
            self._profile = folder / "profile"
            driver = start_browser(self._profile)
            stack.callback(driver.quit)
            self._page = Page(driver)
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
            for _ in range(size.batches):
                self._measure()

    def _measure(self) -> None:
        page = self._page
        self.paints.append(
            max(self._open("#/", "main h2"), self._open("#/runs", "main [data-row]"))
        )
        page.js(_STALL)
        self._until(lambda: page.js("return window.longest") >= 80)  # it does tell of long tasks
        page.js("window.longest = 0")
        page.driver.execute_async_script(_SCROLL)
        for text in ("work", "claude", "failed", ""):
            field = page.driver.find_element("css selector", "[data-search]")
            field.clear()
            field.send_keys(text or " ")
            self._until(
                lambda: page.js("return document.querySelectorAll('main [data-row]').length")
            )
        time.sleep(0.5)  # the browser tells of a long task after it
        self.longest.append(page.js("return window.longest") / 1000)
        address = f"#/r/{self._run}?file=stdout"
        self.opens.append(self._open(address, "", "the last line of all"))
        self.memory.append(self._renderer_bytes() / 1e6)

    def _open(self, address: str, selector: str, words: str = "") -> float:
        """Seconds from the request for the page until that is shown, by its own clock."""
        self._page.open(self._server, address)

        def shown() -> Any:
            return self._page.js(
                "const found = arguments[0] ? document.querySelector(arguments[0])"
                " : document.querySelector('main');"
                "return found && found.textContent.includes(arguments[1]) ? performance.now() : 0",
                selector,
                words,
            )

        return float(self._until(shown)) / 1000

    def _until(self, found: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + SECONDS
        while not (value := found()):
            if time.monotonic() > deadline:
                raise NotRunError(f"the page does not show it: {self._page.text('main')[:200]}")
        return value

    def _renderer_bytes(self) -> float:
        """In memory of the process of the tab: the largest of this browser that render."""
        done = subprocess.run(["ps", "-eww", "-o", "rss=,args="], capture_output=True, text=True)
        lines = [line for line in done.stdout.split("\n") if str(self._profile) in line]
        sizes = [int(line.split()[0]) for line in lines if "--type=renderer" in line]
        if not sizes:
            raise MissingError("ps does not tell")
        return max(sizes) * 1024


def write_long_run(runs_dir: Path, lines: int) -> str:
    """A run by hand that has printed so much; its id."""
    name = f"run_{ids.stamp(NOON)}-1-long"
    folder = runs_dir / name
    folder.mkdir()
    moment = ids.rfc3339(NOON * ids.NANOSECONDS)
    record: dict[str, object] = {
        "version": 1, "run_id": name, "project_id": "long", "task_id": "long", "agent": "shell",
        "pid": 99999, "pgid": 99999, "start_time": moment, "end_time": moment, "exit_code": 0,
        "status": runs.COMPLETED, "cwd": "/src/demo", "commandline": "sh",
    }  # fmt: skip
    (folder / runs.RECORD).write_text(yamlio.dump(record))
    with (folder / runs.STDOUT).open("w") as file:
        for number in range(1, lines):
            file.write(
                f"{number:7d} a line of a log of a usual length, with a path /src/demo/{number}.py\n"
            )
        file.write("the last line of all\n")
    return name


@functools.cache
def session(size: Size, folder: Path) -> Session:
    return Session(size, folder / "page")


def paint(size: Size, folder: Path) -> Result:
    return against(session(size, folder.parent).paints, 1.5)


def long_task(size: Size, folder: Path) -> Result:
    found = session(size, folder.parent).longest
    return against(found, 0.1, ["0 ms: no task took 50 ms or more"])


def open_log(size: Size, folder: Path) -> Result:
    return against(session(size, folder.parent).opens, 1.0)


def memory(size: Size, folder: Path) -> Result:
    found = session(size, folder.parent).memory
    return against([statistics.median(found)], 300)


ROWS = (
    Row("page-paint", "overview and list of 10,000 runs, until shown", "1.5 s", 1.0, paint),
    Row("page-long-task", "its longest task while one scrolls and filters", "100 ms", 1.0,
        long_task),
    Row("page-log", "a log of 200,000 lines, until its end is shown", "1 s", 1.0, open_log),
    Row("page-memory", "the process of the tab with that log", "300 MB", 1.0, memory, "MB"),
)  # fmt: skip
