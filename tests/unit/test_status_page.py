"""The page that shows how a plan stands: what it says, what it never does, how large it gets."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lib import files, ids, runs, state
from lib.commands import run_all_tasks
from lib.errors import UserError
from lib.index import Index
from lib.monitor.facts import FAILED, Observer, Problem
from lib.plan import load_plan
from lib.settings import Settings
from lib.situation import Situation
from lib.state import Attempt, TaskState
from lib.status_page import html, layout, model, states, store, style
from lib.status_page import page as page_module
from lib.status_page.html import element
from lib.status_page.layout import Scale
from lib.status_page.limits import GENEROUS
from tests.helpers import ROOT

SECRET = "ghp_" + "0123456789abcdef" * 2
EVIL = f"</style><script>alert(1)</script>\" onload='x' &amp; \x1b[31m\x07 \u202eevil {SECRET}"
HOUR = 3600.0


def text_at(seconds: float) -> str:
    return ids.rfc3339(int(seconds * 1e9))


class Shop:
    """A root with a plan made by hand; `lock` is held by this process while the plan is run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs_dir = path / "runs"
        self.runs_dir.mkdir()
        self.states: dict[str, TaskState] = {}
        self.stages: list[list[str]] = [[]]
        self.header: dict[str, object] = {}
        self.plan_file = path / "plan.yaml"
        self.locks: list[int] = []
        self._number = 0
        self.now = time.time()  # of this test: elapsed times count from it

    def task(
        self, name: str, where: str, *attempts: Attempt, why: str = "", until: str = ""
    ) -> None:
        entry = TaskState()
        entry.state, entry.why, entry.until, entry.attempts = where, why, until, list(attempts)
        self.states[name] = entry
        self.stages[-1].append(name)

    def stage(self) -> None:
        self.stages.append([])

    def attempt(
        self, unit: str, start: float, end: float | None, result: str, **more: object
    ) -> Attempt:
        """From and to so many seconds after the plan began, two hours ago, with a run folder."""
        self._number += 1
        began = self.now - 2 * HOUR + start
        run = runs.Run(str(self.runs_dir / ids.run_name(began, self._number, "r")), {})
        os.mkdir(run.path)
        is_bad = result in ("failed", "quota")
        run.record = {
            "run_id": run.run_id,
            "project_id": "shop",
            "task_id": unit,
            "agent": "claude",
            "start_time": text_at(began),
            "end_time": text_at(self.now - 2 * HOUR + (end or 0)),
            "exit_code": int(is_bad),
            "status": runs.FAILED if is_bad else runs.COMPLETED,
        }
        runs.write_record(run, durable=False)
        found: Attempt = {"unit": unit, "run": run.run_id, "agent": "claude", "result": result}
        found["started"] = text_at(began)
        if end is not None:
            found.update(ended=text_at(self.now - 2 * HOUR + end), seconds=end - start)
        return {**found, **more}

    def write(self, *, title: str = "The shop", is_run: bool = False, ended: bool = True) -> None:
        lines = ["project: shop", f"title: {title!r}", "stages:"]
        for number, names in enumerate(self.stages):
            lines += [f"  - id: s{number}", "    tasks:"]
            lines += [f"      - {{id: {name}, agent: claude, prompt: x}}" for name in names]
        self.plan_file.write_text("\n".join(lines) + "\n")
        plan = state.PlanState(str(self.runs_dir), "shop")
        plan.tasks = self.states
        end = {"ended": text_at(self.now - HOUR), "exit_code": 1} if ended and not is_run else {}
        plan.header = {
            "plan": str(self.plan_file),
            "plan_sha256": load_plan(str(self.plan_file)).sha256,
            "started": text_at(self.now - 2 * HOUR),
            "max_parallel": 4,
            **end,
            **self.header,
        }
        os.makedirs(plan.folder, exist_ok=True)
        plan.replace()
        plan.close()
        if is_run:
            self.hold()

    def hold(self) -> None:
        fd = files.open_lock(str(self.runs_dir / "shop" / state.LOCK_NAME))
        files.lock(fd, 1.0, "the plan")
        self.locks.append(fd)

    def page(self, project: str = "shop") -> Seen:
        index = Index(str(self.runs_dir), bus_path=str(self.path / "MESSAGE-BUS.md"))
        observer = Observer(index, project)
        return Seen(store.make(observer.look(), observer, project))

    def close(self) -> None:
        for fd in self.locks:
            os.close(fd)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


class Seen(HTMLParser):
    """A page as a strict reader sees it: it fails where tags are not balanced."""

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.data = data
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._blocks: list[tuple[str, list[str]]] = []  # (class, texts) of what is open
        self.found: list[tuple[str, str]] = []  # (class, text) of all elements with a class
        self.feed(data.decode("utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"an attribute of {tag} stands there twice"
        if tag not in html.VOID:
            self.open.append(tag)
            self._blocks.append((dict(attrs).get("class") or "", []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in html.LEAVES
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        kind, texts = self._blocks.pop()
        text = " ".join("".join(texts).split())
        if kind:
            self.found.append((kind, text))
        if self._blocks:
            self._blocks[-1][1].append(f" {text} ")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            return
        self.texts.append(data)
        if self._blocks:
            self._blocks[-1][1].append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def of_class(self, name: str) -> list[str]:
        return [text for kind, text in self.found if name in kind.split()]

    def card(self, task: str) -> str:
        (found,) = [text for text in self.of_class("card") if task in text.split()[:2]]
        return found


# -- the arithmetic


def test_time_runs_from_edge_to_edge_and_forwards() -> None:
    scale = Scale([(100, 200), (150, 400)])

    assert (scale.at(100), scale.at(250), scale.at(400)) == (0.0, 50.0, 100.0)
    assert (scale.at(-1e12), scale.at(1e12)) == (0.0, 100.0)
    assert scale.gaps() == []


def test_marks_stand_at_round_times() -> None:
    scale = Scale([(1000.0, 4700.0)])

    ticks = scale.ticks(6)

    assert [tick.seconds for tick in ticks] == [1800.0, 2700.0, 3600.0, 4500.0]
    assert all(tick.at == scale.at(tick.seconds) for tick in ticks)


def test_a_long_pause_is_drawn_short_and_said() -> None:
    scale = Scale([(0, 600), (600 + 86400, 1200 + 86400)])

    (gap,) = scale.gaps()

    assert gap.seconds == 86400
    assert gap.width < 6
    assert scale.at(600) == gap.at
    assert scale.bar(0, 600)[1] > 45


def test_a_short_pause_is_drawn_as_it_was() -> None:
    assert Scale([(0, 600), (650, 1200)]).gaps() == []


@pytest.mark.parametrize(
    "spans",
    [
        [],
        [(5.0, 5.0)],
        [(10.0, 1.0)],
        [(-6e10, -6e10), (0.0, 1.0), (2.5e11, 2.5e11)],
        [(float(n * n), n * n + 1.0) for n in range(200)],
    ],
)
def test_whatever_the_times_are_every_place_is_within_the_width(
    spans: list[tuple[float, float]],
) -> None:
    scale = Scale(spans)

    for start, end in spans:
        left, width = scale.bar(start, end)
        assert 0 <= left <= left + width <= 100.001
        assert width >= layout.LEAST_WIDTH
    ticks = scale.ticks(6)
    assert len(ticks) <= 12
    assert all(0 <= tick.at <= 100 for tick in ticks)
    assert len(scale.gaps()) <= layout.MOST_GAPS


def test_the_parts_of_a_bar_fill_it() -> None:
    found = layout.shares({"done": 3, "failed": 1, "other": 7}, ("failed", "done", "pending"))

    assert found == [("failed", 0.0, 25.0), ("done", 25.0, 75.0)]
    assert layout.shares({}, ("done",)) == []


# -- the elements


def written(*children: html.Element) -> str:
    return html.document(element("body", *children)).decode()


def test_text_and_values_stay_text_and_values() -> None:
    text = written(element("p", EVIL, title=EVIL))

    assert "<script" not in text
    assert text.count("<") == 7  # doctype, html, body and p, and their ends
    assert "onload='x' &amp;amp;" in text
    assert text.partition("</p>")[0].count('"') == 5  # two values, and one that is text
    assert SECRET not in text


def test_what_is_invisible_or_turns_text_round_becomes_a_sign() -> None:
    text = written(element("p", "a\0b\x1b[31mc\u202ed\u2066e\x85f\r\ng\ud800"))

    assert "a␀b␛c\ufffdd\ufffde\ufffdf\ng\ufffd" in text


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("script", {}),
        ("iframe", {}),
        ("img", {}),
        ("p", {"onclick": "x"}),
        ("p", {"style": "x"}),
        ("a", {"href": "https://example.com"}),
        ("a", {"href": "javascript:x"}),
        ("use", {"href": "//example.com/#a"}),
    ],
)
def test_nothing_can_be_written_that_acts_or_leads_away(tag: str, values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"of a page|a page leads"):
        element(tag, **values)


@pytest.mark.parametrize("text", ["</style><p>", "p { background: url(x) }", "@import 'x';"])
def test_a_style_sheet_cannot_lead_out_of_the_page(text: str) -> None:
    with pytest.raises(ValueError, match="style sheet"):
        written(element("style", text))


# -- the look


def luminance(colour: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_text_can_be_read_on_its_ground(colours: dict[str, str]) -> None:
    names = set(style.COLOURS.values())
    pairs = [(name, f"{name}-ground") for name in names]
    plain = ("text", "quiet", "link", *names)
    pairs += [(name, ground) for name in plain for ground in ("ground", "raised")]
    for text, ground in pairs:
        dark, light = sorted((luminance(colours[text]), luminance(colours[ground])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_the_colours_are_those_of_the_page_of_the_server() -> None:
    text = (ROOT / "web" / "static" / "css" / "tokens.css").read_text()
    light, _, dark = text.partition("@media (prefers-color-scheme: dark)")
    for part, colours in ((light, style.LIGHT), (dark, style.DARK)):
        known = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", part))
        assert colours == {name: known.get(name) for name in colours}


def test_every_state_has_a_sign_and_a_colour_of_its_own_name() -> None:
    assert set(states.SIGNS) == set(style.COLOURS) == set(states.KINDS)
    assert len(set(states.SIGNS.values())) == len(states.KINDS)


# -- the page


def busy(shop: Shop) -> None:
    """A plan under way, with about everything in it."""
    shop.task("schema", state.DONE, shop.attempt("schema", 0, 600, "done", cost_usd=1.5))
    first = shop.attempt("api", 0, 300, "failed", why="it broke")
    shop.task("api", state.DONE, first, shop.attempt("api", 330, 900, "done", cost_usd=0.5))
    shop.stage()
    soon = text_at(shop.now + HOUR)
    shop.task("worker", state.FAILED, shop.attempt("worker", 900, 1500, "failed"), why="3 failed")
    shop.task("web", state.RUNNING, shop.attempt("web", 900, None, "running"))
    met = shop.attempt("mobile", 900, 1000, "quota")
    shop.task("mobile", state.WAITING, met, why="waits for gemini's quota", until=soon)
    shop.task("search", state.PENDING, why="tried again after: overload", until=soon)
    shop.stage()
    shop.task("docs", state.BLOCKED, why="needs worker, which did not succeed")
    shop.task("deploy", state.PENDING)


def test_it_tells_each_task_by_a_word_with_its_time_and_why(shop: Shop) -> None:
    busy(shop)
    shop.write(is_run=True)

    page = shop.page()

    assert "done 10m00s" in page.card("schema")
    assert "claude, 2 tries" in page.card("api")
    assert "failed 10m00s claude 3 failed" in page.card("worker")
    assert "running" in page.card("web")
    assert "quota" in page.card("mobile")
    assert "waits for gemini's quota" in page.card("mobile")
    assert "waiting" in page.card("search")
    assert "blocked claude needs worker" in page.card("docs")
    assert "pending claude waits for" in page.card("deploy")
    assert page.of_class("counts") == [
        "2 done 1 running 1 waiting 1 quota 1 blocked 1 failed 1 pending"
    ]
    assert "tasks done 2 of 8 elapsed 2h00m" in page.of_class("figures")[0]
    assert "cost $2.00+?" in page.of_class("figures")[0]
    assert [text for kind, text in page.found if kind == "stage"][1].startswith("2 s1 0 of 4 done")


def test_problems_come_first_with_the_command_that_helps(shop: Shop) -> None:
    busy(shop)
    shop.write()

    page = shop.page()

    text = page.text
    assert text.index("Problems") < text.index("Stages") < text.index("Timeline")
    assert text.index("Timeline") < text.index("Runs")
    assert any("--retry-failed" in item for item in page.of_class("problems"))
    assert "shop/worker failed" in page.of_class("problems")[0]


def test_the_critical_path_is_marked_on_cards_and_lines(shop: Shop) -> None:
    busy(shop)
    shop.write()

    page = shop.page()

    assert "◆ api" in page.card("api")
    assert "◆" not in page.card("schema")
    assert "critical path" in page.text
    assert "api → web" in page.text
    lines = page.of_class("critical")
    assert [line.split()[1] for line in lines] == ["api", "web"]
    # underlined where it is drawn, and nowhere else
    drawn = [values for tag, values in page.tags if tag == "rect" and values["class"] == "critical"]
    assert len(drawn) == 2


def test_each_attempt_has_a_bar_and_one_that_failed_a_mark(shop: Shop) -> None:
    busy(shop)
    shop.write(is_run=True)

    page = shop.page()

    bars = [v["class"] for tag, v in page.tags if tag == "rect" and v.get("y") == "4"]
    assert sorted(map(str, bars)) == sorted(
        ["done", "failed", "done", "failed", "running", "quota"]
    )
    assert page.data.decode().count("✕</text>") == 2


def test_what_a_run_has_used_so_far_counts_already(shop: Shop) -> None:
    attempt = shop.attempt("a", 0, None, "running")
    run = runs.read(str(shop.runs_dir / str(attempt["run"])))
    runs.write_record(runs.Run(run.path, {**run.record, "cost_usd": 1.25}), durable=False)
    shop.task("a", state.RUNNING, attempt)
    shop.write(is_run=True)

    page = shop.page()

    assert "$1.25" in page.card("a")
    assert "cost $1.25" in page.of_class("figures")[0]


def test_two_judges_at_once_take_the_time_of_one(shop: Shop) -> None:
    judges = [shop.attempt(f"gate@{name}", 0, 60, "done") for name in ("claude", "gemini")]
    shop.task("gate", state.DONE, *judges)
    shop.write()

    assert "done 1m00s claude, 2 judges" in shop.page().card("gate")


@pytest.mark.parametrize(
    ("where", "code", "word"),
    [
        (state.DONE, 0, "done"),
        (state.FAILED, 1, "failed"),
        (state.PENDING, 130, "interrupted"),
        (state.WAITING, 75, "waits for a quota"),
    ],
)
def test_the_status_line_says_how_the_plan_ended(
    shop: Shop, where: str, code: int, word: str
) -> None:
    shop.task("a", where)
    shop.header["exit_code"] = code
    shop.write()

    page = shop.page()

    assert page.of_class("badge")[0] == word
    assert page.text.startswith(f"{word}: shop ")


def test_a_plan_whose_process_is_gone_is_cut_off(shop: Shop) -> None:
    shop.task("a", state.RUNNING, shop.attempt("a", 0, None, "running"))
    shop.write(ended=False)

    page = shop.page()

    assert page.of_class("badge")[0] == "cut off"
    assert "pending" in page.card("a")  # its run has ended: nothing is at work
    assert not page.of_class("running")
    assert [v["class"] for _, v in page.tags if v.get("y") == "4"] == ["done"]


def test_without_the_plan_file_the_state_is_shown(shop: Shop) -> None:
    busy(shop)
    shop.write(is_run=True)
    shop.plan_file.unlink()

    page = shop.page()

    assert "failed 10m00s claude 3 failed" in page.card("worker")
    assert "critical path" not in page.text
    assert "Timeline" in page.text


def test_a_damaged_state_is_a_problem_and_no_error(shop: Shop) -> None:
    (shop.runs_dir / "shop").mkdir()
    (shop.runs_dir / "shop" / state.STATE_NAME).write_text("tasks: [")

    page = shop.page()

    assert page.of_class("badge")[0] == "unreadable"
    assert "Problems 1" in page.text


def test_an_empty_root_has_a_page(shop: Shop) -> None:
    page = shop.page("")

    assert "All plans and tasks" in page.text
    assert "Problems None." in page.text


def test_the_page_of_a_root_has_all_plans_and_what_is_outside_of_them(shop: Shop) -> None:
    busy(shop)
    shop.write()
    other = shop.runs_dir / "ground" / "dig"
    other.mkdir(parents=True)
    (other / "TASK.md").write_text("Dig.\n")
    (other / "DONE").write_text("")

    page = shop.page("")

    assert "Plans 1" in page.text
    assert "shop The shop" in page.text
    assert page.card("worker")
    assert "ground/dig done" in page.text
    assert [text for text in page.texts if text == "schema"] != []


def test_nothing_hostile_gets_out_of_its_place(shop: Shop) -> None:
    busy(shop)
    evil = shop.attempt("web", 10, 20, "failed", agent=EVIL, why=EVIL, note=EVIL)
    evil["unit"] = EVIL
    shop.task("odd", state.FAILED, evil, why=EVIL)
    shop.header["closing"] = EVIL
    shop.write(title=EVIL.replace("\x1b", "").replace("\x07", "").replace("'", ""))
    shop.states[EVIL] = TaskState()
    shop.states[EVIL].state, shop.states[EVIL].why = EVIL, EVIL
    shop.write(title="x")
    run = runs.Run(str(shop.runs_dir / ids.run_name(shop.now - 50, 99, "evil")), {})
    os.mkdir(run.path)
    run.record = {
        "run_id": EVIL, "project_id": "shop", "task_id": EVIL, "agent": EVIL, "exit_code": 1,
        "status": runs.FAILED, "error_summary": EVIL, "start_time": text_at(shop.now - 50),
        "end_time": text_at(shop.now - 5),
    }  # fmt: skip
    runs.write_record(run, durable=False)
    posted = f"[2026-02-23 20:48:59] ERROR: {EVIL}\n"  # by somebody who redacts nothing
    (shop.path / "MESSAGE-BUS.md").write_text(posted)
    shop.plan_file.unlink()

    for page in (shop.page(), shop.page("")):
        text = page.data.decode()
        assert SECRET not in text
        assert "alert(1)" in page.text  # it is shown, as text
        assert not {tag for tag, _ in page.tags} & {"script", "img", "iframe", "link", "object"}
        names = {name for _, values in page.tags for name in values}
        assert names <= html.ATTRIBUTES | {"viewbox"}
        links = [values["href"] for _, values in page.tags if "href" in values]
        assert all(str(link).startswith("#") for link in links)
        assert "http" not in re.sub(r"http-equiv", "", text.partition("</head>")[0])
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
        assert "\ufffdevil" in page.text
        assert (
            "meta",
            {"http-equiv": "Content-Security-Policy", "content": page_module.POLICY},
        ) in page.tags


def test_a_command_is_shown_as_it_is_or_not_at_all() -> None:
    plain = Problem(FAILED, "it failed", ("p", "a"), command="bin/show-run 'a  b'")
    secret = Problem(FAILED, "it failed", ("p", "a"), command=f"bin/show-run {SECRET}")

    assert model.problem_part(plain, GENEROUS).command == ""  # two blanks would become one
    assert model.problem_part(secret, GENEROUS).command == ""
    plain = Problem(FAILED, "it failed", ("p", "a"), command="bin/show-run 'a b'")
    assert model.problem_part(plain, GENEROUS).command == "bin/show-run 'a b'"


def test_of_many_problems_the_first_are_shown_and_the_others_folded(shop: Shop) -> None:
    for number in range(30):
        shop.task(f"t{number}", state.FAILED, why="it broke")
    shop.write()

    page = shop.page()

    shown, folded = sorted(page.of_class("problems"), key=len)
    assert (shown.count("it broke"), folded.count("it broke")) == (12, 18)
    assert "18 more" in page.text


# -- how large it gets


def many(shop: Shop, count: int, where: str, why: str) -> None:
    for number in range(count):
        if not number % 500:
            shop.stage()
        start = shop.now - 2 * HOUR + number
        attempts: list[Attempt] = [
            {"unit": "u", "run": f"run_{number}_{n}", "agent": EVIL, "result": "failed",
             "started": text_at(start), "ended": text_at(start + 9), "why": why}
            for n in range(2)
        ]  # fmt: skip
        shop.task(f"task-{number:05d}", where, *attempts, why=why)
    shop.stages = [names for names in shop.stages if names]


def test_an_ordinary_plan_is_a_small_file(shop: Shop) -> None:
    many(shop, 34, state.FAILED, EVIL * 20)
    posted = "".join(f"[2026-02-23 20:48:{n % 60:02d}] ERROR: {EVIL * 9}\n" for n in range(500))
    (shop.path / "MESSAGE-BUS.md").write_text(posted)
    shop.write()

    page = shop.page()

    assert len(page.of_class("card")) == 34
    assert len(page.data) < 300_000


@pytest.mark.parametrize("where", [state.DONE, state.FAILED])
def test_a_large_plan_is_a_bounded_file_that_tells_what_it_leaves_out(
    shop: Shop, where: str
) -> None:
    many(shop, 5000, where, "<&>" * 40)
    shop.write()

    page = shop.page()

    assert len(page.data) < 5_000_000
    assert len(page.of_class("card")) == 5000
    assert "and 4800 more (the longest are shown)" in page.text


def test_where_even_that_is_too_much_the_rest_is_counted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.task("finished", state.DONE)
    many(shop, 300, state.FAILED, "<&>" * 400)
    shop.write()
    monkeypatch.setattr(store, "MOST_BYTES", 1000)
    least = dataclasses.replace(GENEROUS, cards=100)
    monkeypatch.setattr(store, "LEVELS", (GENEROUS, least))

    page = shop.page()

    assert len(page.of_class("card")) == 100
    assert "and 200 more (without a card)" in page.text
    assert "finished" not in page.of_class("task")  # what is done is left out first


# -- where it is put


def at_end(shop: Shop) -> Seen:
    path = str(shop.plan_file)
    seen = Situation(load_plan(path), {}, shop.states, str(shop.runs_dir), is_run=True)
    return Seen(Path(store.write_at_end(seen, str(shop.path / "MESSAGE-BUS.md"))).read_bytes())


def test_at_its_end_a_plan_is_shown_as_over_though_its_lock_is_held(shop: Shop) -> None:
    busy(shop)
    shop.write()
    shop.hold()

    page = at_end(shop)

    assert page.of_class("badge")[0] == "failed"
    assert page.text.startswith("failed: shop 2/8")


def test_at_its_end_only_its_own_runs_are_looked_at(shop: Shop) -> None:
    busy(shop)
    shop.write()
    other = runs.Run(str(shop.runs_dir / ids.run_name(shop.now, 77, "other")), {})
    os.mkdir(other.path)
    runs.write_record(runs.Run(other.path, {"project_id": "shop", "task_id": "o"}), durable=False)

    page = at_end(shop)

    assert other.run_id not in page.text
    assert other.run_id in shop.page().text


def test_what_stands_in_its_place_is_replaced_and_not_followed(shop: Shop) -> None:
    target = shop.path / "precious"
    target.write_text("mine")
    path = shop.runs_dir / store.NAME
    path.symlink_to(target)

    store.save(str(path), b"page")

    assert target.read_text() == "mine"
    assert (path.is_symlink(), path.read_bytes()) == (False, b"page")
    path.unlink()
    os.mkfifo(path)
    store.save(str(path), b"page")  # would wait for a reader
    assert path.read_bytes() == b"page"
    assert path.stat().st_mode & 0o077 == 0
    assert [item.name for item in shop.runs_dir.iterdir()] == [store.NAME]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (UserError(f"its state is damaged \x1b[2J{SECRET}"), "its state is damaged ␛[REDACTED]"),
        (RecursionError("too deep"), "bug: RecursionError: too deep"),
    ],
)
def test_whatever_goes_wrong_with_it_is_one_sentence(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, error: BaseException, told: str
) -> None:
    def fail(seen: Situation, bus_path: str) -> str:
        raise error

    shop.task("a", state.DONE)
    shop.write()
    monkeypatch.setattr(store, "write_at_end", fail)
    root = str(shop.path)
    settings = Settings(root=root, runs_dir=f"{root}/the runs", bus_path="", max_parallel=1)
    seen = Situation(load_plan(str(shop.plan_file)), {}, {}, "", is_run=True)

    path, problem = run_all_tasks.write_page(seen, settings)

    again = f"bin/report shop --runs-dir '{root}/the runs'"
    assert (path, problem) == ("", f"the status page was not written: {told}; try: {again}")
