"""The files of a run: any length, as they grow, searched, linked, and never more than text."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from lib import runs
from tests.agent_runs import Place
from tests.api_server import Server
from tests.browser.conftest import Talkers
from tests.browser.page import Page
from tests.helpers import wait_until

LINES = 200_000
LAST = "return [...document.querySelectorAll('.log-line .log-text')].at(-1)?.innerText"
# The lines that lie within the box, from their first to their last pixel.
SEEN = """
const box = document.querySelector(".log-box")?.getBoundingClientRect() ?? {};
return [...document.querySelectorAll('.log-line')].filter((row) => {
  const {top, bottom} = row.getBoundingClientRect();
  return top >= box.top - 1 && bottom <= box.bottom + 1;
}).map((row) => Number(row.dataset.line));
"""
MARKED = "return document.querySelector('.log-line[aria-current]')?.innerText"
HOSTILE = [
    "<img src=x onerror=window.owned=1>",
    "</script><script>window.owned=1</script>",
    "a\x1b[31mred\x1b[0m \x1b]0;owned\x07b \u202edlrow\u202c c\u2028d",
    "x" * 100_000,
    "[x](javascript:window.owned=1) [y](https://example.org/ok)",
]


def made_run(place: Place, text: str, name: str = runs.STDOUT, task: str = "build") -> str:
    """The address of a run that has ended, one of whose files holds this."""
    place.script("true")
    assert place.run("shell", ".", "prompt.md", "--project", "demo", "--task", task).returncode == 0
    run = next(run for run in place.all_runs() if run.text("task_id") == task)
    Path(run.file(name)).write_text(text)
    return f"#/p/demo/t/{task}/r/{run.run_id}"


def numbered(count: int) -> str:
    return "".join(f"this is line {number}\n" for number in range(1, count + 1))


def wait_seen(page: Page, line: int) -> None:
    wait_until(lambda: line in page.js(SEEN), what=f"line {line} to be seen: {page.js(SEEN)}")


OPEN_LONG = "const more = document.querySelector('.log-more'); more?.click(); return Boolean(more)"


def _has_grown(page: Page, size: str) -> bool:
    return page.text(".log .tabs") != size


def test_a_file_of_200000_lines_opens_at_its_end_and_only_what_is_seen_is_in_the_page(
    page: Page, place: Place, server: Server
) -> None:
    address = made_run(place, numbered(LINES))
    page.open(server, f"{address}?file=stdout")
    page.wait_for(".log-state", "of 200,000")
    wait_seen(page, LINES)
    assert page.js(LAST) == f"this is line {LINES}"
    page.js("document.querySelector('.log-box').focus()")
    page.keys("HOME")
    wait_seen(page, 1)
    page.wait_for(".log-text", "this is line 1\n")
    page.js("const box = document.querySelector('.log-box'); box.scrollTop = box.scrollHeight / 2")
    page.wait_for(".log-text", "this is line 100000")
    assert page.js("return document.querySelectorAll('.log-line').length") < 150
    page.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    page.driver.execute_cdp_cmd("Performance.enable", {})
    metrics = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    heap = next(item["value"] for item in metrics if item["name"] == "JSHeapUsedSize")
    assert heap < 100e6
    assert page.console() == []


def test_a_line_has_a_link_that_leads_back_to_it(page: Page, place: Place, server: Server) -> None:
    address = made_run(place, numbered(5000))
    page.open(server, f"{address}?file=stdout&line=1234")
    wait_seen(page, 1234)
    assert page.js(MARKED) == "1234\nthis is line 1234"
    page.js("document.querySelector('.log-line[data-line=\"1236\"] a').click()")
    wait_until(lambda: page.js(MARKED) == "1236\nthis is line 1236", what="the mark")
    assert page.js("return location.hash") == f"{address}?file=stdout&line=1236"
    field = page.driver.find_element("css selector", ".log-line-field")
    field.send_keys("4000\n")
    wait_seen(page, 4000)
    page.driver.back()
    wait_seen(page, 1236)
    wait_until(lambda: page.js(MARKED) == "1236\nthis is line 1236", what="the mark")
    assert page.console() == []


def test_its_end_stays_in_sight_until_one_scrolls_up(
    page: Page, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    talker.say(*(f"early {number}" for number in range(200)))
    page.open(server, f"#/p/demo/t/build/r/{talker.run_id}?file=stdout")
    page.wait_for(".log-text", "early 199")
    page.wait_for(".log-state", "following")
    talker.say("later 1", "later 2")
    page.wait_for(".log-text", "later 2")
    wait_seen(page, 202)
    page.js("document.querySelector('.log-box').scrollTop -= 100")
    page.wait_for(".log-state", "paused")
    top = page.js("return document.querySelector('.log-box').scrollTop")
    talker.say("unseen 1", "unseen 2", "unseen 3")
    page.wait_for(".log-news", "3 new lines")
    assert page.js("return document.querySelector('.log-box').scrollTop") == top
    page.js("document.querySelector('.log-news').click()")
    wait_seen(page, 205)
    page.wait_for(".log-state", "following")
    page.wait_without(".log-place", "new line")
    talker.end()
    page.wait_for(".badge", "done")
    page.wait_without(".log-state", "following")
    assert page.console() == []


def test_it_goes_on_where_it_was_after_the_server_was_killed(
    page: Page, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    talker.say("before")
    page.open(server, f"#/r/{talker.run_id}?file=stdout")
    page.wait_for(".log-text", "before")
    server.kill()
    page.wait_for("#connection", "lost")
    talker.say("meanwhile")
    server.start()
    page.wait_for("#connection", "live")
    page.wait_for(".log-text", "meanwhile")
    talker.say("after")
    page.wait_for(".log-text", "after")
    assert page.text(".log-text").split() == ["before", "meanwhile", "after"]
    talker.end()


def test_words_are_found_forward_and_backward_and_marked(
    page: Page, place: Place, server: Server
) -> None:
    lines = [f"line {number}{' NEEDLE here' * (number % 1000 == 0)}" for number in range(1, 5001)]
    address = made_run(place, "\n".join(lines) + "\n")
    page.open(server, f"{address}?file=stdout&line=1500")
    wait_seen(page, 1500)
    page.js("document.activeElement.blur()")
    page.keys("/")
    field = page.driver.switch_to.active_element
    assert field.accessible_name == "Search in the file"
    field.send_keys("needle\n")
    page.wait_for(".log-found", "line 2,000")
    wait_seen(page, 2000)
    assert page.text(".log-line mark") == "NEEDLE"
    assert page.js("return location.hash").endswith("line=2000")
    page.keys("ENTER")
    page.wait_for(".log-found", "line 3,000")
    from selenium.webdriver.common.keys import Keys  # there is no selenium where these are skipped

    field.send_keys(Keys.SHIFT, Keys.ENTER)
    page.wait_for(".log-found", "line 2,000")
    field.send_keys(Keys.SHIFT, Keys.ENTER)
    page.wait_for(".log-found", "line 1,000")
    field.send_keys(Keys.SHIFT, Keys.ENTER)
    page.wait_for(".log-found", "line 5,000, from the other end")
    field.send_keys(" nowhere\n")
    page.wait_for(".log-found", "no match")
    assert page.console() == []


def test_the_next_error_is_a_key_away(page: Page, place: Place, server: Server) -> None:
    lines = ["fine", "0 errors", *["fine"] * 500, "Error: it broke", *["fine"] * 500]
    address = made_run(place, "\n".join([*lines, "Traceback (most recent call last):", "x"]))
    page.open(server, f"{address}?file=stdout&line=1")
    wait_seen(page, 1)
    page.keys("e")
    wait_until(lambda: page.js(MARKED) == "503\nError: it broke", what="the first error")
    page.keys("e")
    wait_until(lambda: "Traceback" in (page.js(MARKED) or ""), what="the second")
    page.keys("E")
    wait_until(lambda: page.js(MARKED) == "503\nError: it broke", what="the first again")
    wait_seen(page, 503)
    assert page.console() == []


@pytest.mark.parametrize("how", ["as lines", "wrapped", "readable", "with codes"])
def test_hostile_text_is_shown_as_text(page: Page, place: Place, server: Server, how: str) -> None:
    name = runs.TRANSCRIPT if how == "readable" else runs.STDOUT
    address = made_run(place, "\n\n".join(HOSTILE) + "\n", name)
    file = "transcript.md" if how == "readable" else "stdout"
    page.open(server, f"{address}?file={file}&line=1")
    page.wait_for(".log-box", HOSTILE[0])
    words = {"wrapped": "Wrap", "readable": "Readable", "with codes": "Codes"}.get(how)
    if words:
        page.click(words)
        page.wait_for(".log-toggles [aria-pressed=true]", words)
        page.js("document.querySelector('.log-box').focus()")
        page.keys("HOME")
    page.wait_for(".log-box", HOSTILE[1])
    page.wait_for(".log-box", "␛[31mred" if how == "with codes" else "ared ")
    assert "\u202e" not in page.js("return document.querySelector('.log-box').textContent")
    page.js("document.querySelector('.log-box').focus()")
    page.keys("END")
    page.wait_for(".log-box", "y (example.org)" if how == "readable" else "[y](https:")
    hrefs = page.js(
        "return [...document.querySelectorAll('.log-text a, .block a')].map((a) => a.href)"
    )
    assert hrefs == (["https://example.org/ok"] if how == "readable" else [])
    assert page.js("return document.querySelectorAll('.log-box img, .log-box script').length") == 0
    assert page.js("return document.documentElement.scrollWidth <= innerWidth")
    if how != "readable":
        wait_until(lambda: page.js(OPEN_LONG), what="the button of the long line")
        page.wait_for("dialog h2", "Line 7")
        page.wait_for("dialog", "the raw file has all of it")
        page.keys("ESCAPE")
    assert page.js("return window.owned") is None
    assert page.console() == []


def test_wrapped_lines_keep_their_numbers_and_the_end_in_sight(
    page: Page, place: Place, server: Server
) -> None:
    lines = [f"{number} " + "word " * (number % 90) for number in range(1, 20_001)]
    address = made_run(place, "\n".join(lines) + "\n")
    page.open(server, f"{address}?file=stdout")
    wait_seen(page, 20_000)
    page.click("Wrap")
    page.wait_for(".log-wrapped .log-number", "20000")
    wait_seen(page, 20_000)
    assert page.js(
        "const box = document.querySelector('.log-box'); return box.scrollWidth <= box.clientWidth"
    )
    for _ in range(30):  # up, through what has to be asked for
        page.js("document.querySelector('.log-box').scrollTop = 0")
        page.settle()
    wait_until(lambda: page.js(SEEN)[0] < 15_000, what="lines from before")
    seen = page.js(SEEN)
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert page.js("return document.querySelectorAll('.log-line').length") < 6000
    page.js("document.querySelector('.log-box').focus()")
    page.keys("HOME")
    wait_seen(page, 1)
    page.keys("END")
    wait_seen(page, 20_000)
    assert page.console() == []


def test_a_transcript_is_read_with_its_tool_calls_folded(
    page: Page, place: Place, server: Server
) -> None:
    text = (
        "▷ session 1, model m\n\n# What I do\n\nI **look** at `a.c`, see [here](https://example.org/x).\n\n"
        "▶ tool Bash: ls -l\n    a.c\n    b.c\n▶ tool Edit: a.c\n    ✗ not found\n\n"
        "- one\n- two\n\n```c\nint <b>x</b>;\n```\n\n■ done, 4 turns\n"
    )
    address = made_run(place, text, runs.TRANSCRIPT)
    page.open(server, f"{address}?file=transcript.md")
    page.click("Readable")
    page.wait_for(".block-heading h3", "What I do")
    assert page.text(".block-paragraph strong") == "look"
    assert page.text(".block-paragraph code") == "a.c"
    link = "document.querySelector('.block a')"
    assert page.js(f"return [{link}.rel, {link}.target]") == ["noreferrer noopener", "_blank"]
    assert page.text(".block-list li") == "one\ntwo"
    assert page.text(".block-code pre") == "int <b>x</b>;"
    assert "b.c" not in page.text(".log-box")
    page.driver.find_element("css selector", ".block-call summary").click()
    page.wait_for(".block-call pre", "a.c\nb.c")
    assert "failed" in page.text(".block-call summary")
    page.click("Readable")
    page.wait_for(".log-line", "# What I do")
    page.click("Readable")
    page.wait_for(".block-heading", "What I do")
    assert page.console() == []


def test_a_long_transcript_is_bounded_in_the_page_and_can_be_read_from_end_to_beginning(
    page: Page, place: Place, server: Server
) -> None:
    steps = (
        f"\nStep {number}.\n\n▶ tool Bash: ls {number}\n    file {number}\n"
        for number in range(1, 20_001)
    )
    address = made_run(place, "".join(steps), runs.TRANSCRIPT)
    page.open(server, f"{address}?file=transcript.md")
    page.click("Readable")
    page.wait_for(".block", "Step 20000.")
    for _ in range(20):
        page.js("document.querySelector('.log-box').scrollTop = 0")
        page.settle()
    wait_until(lambda: "Step 20000." not in page.text(".block"), what="the end to leave the page")
    assert page.js("return document.querySelectorAll('.block').length") < 4000
    page.js("document.querySelector('.log-box').focus()")
    page.keys("HOME")
    page.wait_for(".block", "Step 1.\n")
    page.open(server, f"{address}?file=transcript.md&line=50004")
    page.wait_for(".log-box", "10001")
    assert page.console() == []


def test_a_file_that_has_gone_or_is_empty_says_so(page: Page, place: Place, server: Server) -> None:
    address = made_run(place, "")
    page.open(server, f"{address}?file=stdout")
    page.wait_for(".log-empty", "The file is empty.")
    page.open(server, f"{address}?file=verify.txt")
    page.wait_for(".log-empty", "file not found")


def test_a_file_that_does_not_grow_is_not_asked_for_while_another_one_does(
    page: Page, server: Server, talkers: Talkers
) -> None:
    talker = talkers.start()
    talker.say("first")
    page.open(server, f"#/p/demo/t/build/r/{talker.run_id}?file=prompt.md")
    page.wait_for(".log-readable", "IFS")
    page.click("Readable")  # of a transcript only what is known to be new is asked for
    page.wait_for(".log-rows", "IFS")
    asked = (
        "return performance.getEntriesByType('resource')"
        ".filter(({name}) => name.includes('/lines') && name.includes('prompt.md')).length"
    )
    before = page.js(asked)
    assert before
    for number in range(4):
        size = page.text(".log .tabs")
        talker.say(f"{number}" * 1000)
        wait_until(partial(_has_grown, page, size), what="a tab to grow")
    assert page.js(asked) == before
    talker.end()


def test_what_could_not_be_read_while_the_server_was_away_is_read_when_it_is_back(
    page: Page, place: Place, server: Server
) -> None:
    page.open(server, f"{made_run(place, numbered(50))}?file=stdout")
    wait_seen(page, 50)
    server.kill()
    page.wait_for("#connection", "retrying")
    page.keys("e")
    page.wait_for(".log-place", "The server does not answer.")
    assert page.text(".log-found") == ""
    server.start()
    page.wait_without(".log-place", "The server does not answer.")
    wait_seen(page, 50)
