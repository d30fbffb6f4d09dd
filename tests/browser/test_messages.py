"""The messages view: threads, what is new, filters, and posting, before a real server and real buses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lib import bus
from tests.agent_runs import Place
from tests.api_server import Server
from tests.browser.page import Page
from tests.helpers import wait_until

TASK = "#/p/demo/t/build/messages"
HOSTILE = "<img src=x onerror=window.owned=1>"
SCRIPT = "</script><script>window.owned=1</script>"
ESCAPES = "a\x1b[31mred\x1b]0;owned\x07 b\u2028c\u202ed"


@pytest.fixture
def path(place: Place) -> Path:
    """The bus of the task `build` of the project `demo`."""
    folder = place.runs_dir / "demo" / "build"
    folder.mkdir(parents=True)
    (folder / "TASK.md").write_text("Do it.\n")
    return folder / "TASK-MESSAGE-BUS.md"


def post(path: Path, body: str, type_: str = "FACT", parents: Sequence[str] = ()) -> str:
    return bus.append(
        str(path), type_=type_, body=body, project="demo", task="build", run="",
        parents=list(parents), durable=False,
    )  # fmt: skip


def bodies(page: Page) -> list[str]:
    """What is shown, from the top, with two spaces before each for its depth."""
    found: list[str] = page.js(
        "return [...document.querySelectorAll('article')].map(each =>"
        " '  '.repeat(each.dataset.depth) + each.querySelector('.body').innerText)"
    )
    return found


def wait_for_bodies(page: Page, wanted: list[str]) -> None:
    wait_until(lambda: bodies(page) == wanted, what=f"{wanted} in place of {bodies(page)}")


def write(page: Page, text: str) -> None:
    page.js("document.activeElement.value = ''")
    page.keys(*text)


def press_ctrl_enter(page: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    chain = ActionChains(page.driver)
    chain.key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()


def test_messages_appear_as_they_are_posted_and_once(
    page: Page, path: Path, server: Server
) -> None:
    post(path, "before the page came")
    page.open(server, TASK)
    wait_for_bodies(page, ["before the page came"])
    post(path, "while it looks on")
    wait_for_bodies(page, ["while it looks on", "before the page came"])
    post(path.parent.parent / "PROJECT-MESSAGE-BUS.md", "of the project")
    page.open(server, "#/p/demo/messages")
    wait_for_bodies(page, ["of the project", "while it looks on", "before the page came"])
    page.open(server, "#/messages")
    wait_for_bodies(page, ["of the project", "while it looks on", "before the page came"])
    assert page.console() == []


def test_replies_stand_below_what_they_answer_and_fold(
    page: Page, path: Path, server: Server
) -> None:
    asked = post(path, "which way?", "QUESTION")
    post(path, "something else")
    said = post(path, "left", parents=[asked])
    for number in range(5):
        said = post(path, f"why {number}?", parents=[said])
    page.open(server, TASK)
    chain = [f"{'  ' * min(number + 2, 4)}why {number}?" for number in range(5)]
    wait_for_bodies(page, ["which way?", "  left", *chain, "something else"])
    page.click("Hide 6 replies")
    wait_for_bodies(page, ["which way?", "something else"])
    page.click("Show 6 replies")
    post(path, "right", parents=[asked])
    wait_for_bodies(page, ["which way?", "  left", *chain, "  right", "something else"])


def test_a_link_opens_one_message_with_its_thread_however_old_it_is(
    page: Page, path: Path, server: Server
) -> None:
    asked = post(path, "long ago")
    answer = post(path, "\n".join(f"line {n}" for n in range(50)), parents=[asked])
    for number in range(700):
        post(path, f"newer {number}")
    page.open(server, f"{TASK}?msg={answer}")
    page.wait_for("article[aria-current=true]", "line 49")
    assert page.js("return document.activeElement.matches('[aria-current=true]')") is True
    assert bodies(page)[-2] == "long ago"
    page.open(server, f"{TASK}?msg=MSG-gone")
    page.wait_for("#notices", "MSG-gone is not among the 702 messages")


def test_the_newest_come_first_and_older_ones_when_they_are_asked_for(
    page: Page, path: Path, server: Server
) -> None:
    for number in range(620):
        post(path, f"message {number}")
    page.open(server, TASK)
    page.wait_for(".count", "the newest 500 messages")
    assert bodies(page)[0] == "message 619"
    assert len(bodies(page)) < 200  # the rest comes as one scrolls
    page.js("document.querySelector('.older button').click()")
    page.wait_for(".count", "620 messages")
    page.wait_without(".count", "newest")
    post(path, "one more")
    wait_until(lambda: bodies(page)[0] == "one more", what="one more on top")
    page.wait_for(".count", "621 messages")

    def goes_down() -> bool:
        page.js("window.scrollTo(0, document.documentElement.scrollHeight)")
        return bodies(page)[-1] == "message 0"

    wait_until(goes_down, what="the first message at the end")


def test_nothing_moves_while_somebody_reads_further_down(
    page: Page, path: Path, server: Server
) -> None:
    asked = [post(path, f"message {number}") for number in range(80)]
    page.open(server, TASK)
    page.wait_for(".count", "80 messages")
    page.js("window.scrollTo(0, 900)")
    at = "return [scrollY, document.querySelectorAll('article')[20].getBoundingClientRect().top]"
    before = page.js(at)
    post(path, "new")
    post(path, "an answer", parents=[asked[79 - 20]])
    page.wait_for(".news", "2 new")
    assert page.js(at) == before
    assert "new" not in bodies(page)
    page.click("2 new")
    page.wait_without(".news", "new")
    assert bodies(page)[:3] == ["message 59", "  an answer", "new"]
    assert page.js("return scrollY") == 0


def test_a_reply_that_moves_its_thread_takes_the_focus_along(
    page: Page, path: Path, server: Server
) -> None:
    asked = post(path, "first")
    post(path, "second")
    page.open(server, TASK)
    wait_for_bodies(page, ["second", "first"])
    page.js("document.querySelectorAll('article')[1].focus()")
    post(path, "an answer", parents=[asked])
    wait_for_bodies(page, ["first", "  an answer", "second"])
    assert page.js("return document.activeElement.matches('article')") is True
    assert "first" in page.js("return document.activeElement.innerText")


def test_filters_stand_in_the_address_and_keep_what_is_answered(
    page: Page, path: Path, server: Server
) -> None:
    asked = post(path, "which rounding?", "QUESTION")
    post(path, "half up", "DECISION", parents=[asked])
    post(path, "tests pass")
    post(path, "run started", "RUN_START")
    page.open(server, TASK)
    page.wait_for(".count", "4 messages")
    page.keys("/", *"Half UP")
    wait_for_bodies(page, ["which rounding?", "  half up"])
    page.wait_for(".count", "1 of 4 messages")
    wait_until(lambda: "q=Half+UP" in page.driver.current_url, what="it in the address")
    post(path, "half of the work is done, and more is up to you")
    wait_for_bodies(
        page,
        ["half of the work is done, and more is up to you", "which rounding?", "  half up"],
    )
    page.driver.refresh()
    page.wait_for(".count", "2 of 5 messages")
    page.click("Without filter")
    page.wait_for(".count", "5 messages")
    page.open(server, f"{TASK}?type=-run")
    page.wait_for(".count", "4 of 5 messages")
    page.open(server, f"{TASK}?q=nowhere+at+all")
    page.wait_for(".none", "None of 5 messages fits.")
    page.open(server, "#/messages?from=demo/build&type=QUESTION")
    wait_for_bodies(page, ["which rounding?"])


def test_an_answer_is_posted_by_the_keyboard_alone(page: Page, path: Path, server: Server) -> None:
    asked = post(path, "which rounding?", "QUESTION")
    page.open(server, TASK)
    wait_for_bodies(page, ["which rounding?"])
    page.keys("j")  # to the message
    page.js("document.querySelector('article').focus()")
    page.keys("r")
    page.wait_for(".answered", "QUESTION: which rounding?")
    write(page, "half up")
    press_ctrl_enter(page)
    page.wait_for("article[aria-current=true]", "half up")
    assert bodies(page) == ["which rounding?", "  half up"]
    answer = list(bus.read(str(path)))[-1]
    assert (answer.type, answer.body, answer.parents) == ("ANSWER", "half up", [{"msg_id": asked}])
    assert page.console() == []


def test_what_is_wrong_is_said_at_its_field(page: Page, path: Path, server: Server) -> None:
    page.open(server, "#/messages")
    page.click("Post a message")
    page.click("Post")
    page.wait_for(".wrong", "Name a project.")
    page.wait_for(".wrong", "Write something.")
    write(page, "a/b")
    page.wait_without(".wrong", "Name a project.")
    page.keys("TAB")
    press_ctrl_enter(page)
    page.wait_for(".wrong", "Only letters")
    assert not path.exists()


def test_nothing_that_was_written_is_lost_while_the_server_is_away(
    page: Page, path: Path, server: Server
) -> None:
    post(path, "before")
    page.open(server, TASK)
    wait_for_bodies(page, ["before"])
    page.click("Post a message")
    write(page, "what I think")
    server.kill()
    press_ctrl_enter(page)
    page.wait_for(".post .problem", "The server does not answer.")
    post(path, "while it was away")
    server.start()
    wait_for_bodies(page, ["while it was away", "before"])
    page.driver.refresh()
    page.wait_for(".post", "Message")
    assert page.js("return document.querySelector('textarea').value") == "what I think"
    page.click("Post")
    wait_for_bodies(page, ["what I think", "while it was away", "before"])
    assert [m.body for m in bus.read(str(path))].count("what I think") == 1
    assert page.text(".post") == ""


def test_nothing_of_what_agents_write_is_taken_for_markup(
    page: Page, path: Path, server: Server
) -> None:
    post(path, f"{HOSTILE} {SCRIPT} {ESCAPES}", HOSTILE, parents=[SCRIPT, "../../x"])
    post(path, "x" * 100_000)
    post(path.parent.parent / "PROJECT-MESSAGE-BUS.md", "javascript:window.owned=1 http://a.b/c")
    page.size(390, 844)
    page.open(server, "#/messages")
    page.wait_for(".body", HOSTILE)
    page.wait_for(".body", "a\u241b[31mred\u241b]0;owned\u2407 b")
    assert "\u202e" not in page.text("main")
    page.click("Show all (100 kB)")
    page.wait_for(".body", "x" * 100_000)
    assert page.js("return document.documentElement.scrollWidth") <= 390
    links = page.js("return [...document.querySelectorAll('main a')].map(a => a.href)")
    assert all(link.startswith(f"http://127.0.0.1:{server.port}/ui/#/") for link in links)
    assert page.js("return window.owned") is None
    assert page.console() == []


@pytest.mark.parametrize("width", [390, 1280])
def test_no_serious_fault_is_found_by_axe(
    page: Page, path: Path, server: Server, width: int
) -> None:
    asked = post(path, "which rounding?", "QUESTION")
    post(path, "half up", "DECISION", parents=[asked])
    page.size(width, 844)
    page.open(server, TASK)
    wait_for_bodies(page, ["which rounding?", "  half up"])
    page.click("Post a message")
    page.click("Post")
    page.wait_for(".wrong", "Write something.")
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        page.settle()
        assert page.check_axe() == []
