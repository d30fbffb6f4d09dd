"""A page out of what the model says: problems first, then the plan, the time, runs, messages."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from lib import VERSION, estimate
from lib.status_page import pieces, plan_sections, states, style, svg
from lib.status_page.html import Element, document, element
from lib.status_page.records import (
    MessagePart,
    Page,
    PlanPart,
    ProblemPart,
    RunPart,
    TaskPart,
)

FIRST_PROBLEMS = 12  # that are shown at once
POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # also where somebody serves the file


def render(page: Page) -> bytes:
    """The whole file."""
    kind, title = _title(page)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        element("style", style.sheet()),
    )
    parts = [_head(page, kind), _problems(page), *_plans(page)]
    parts += [_runs(page), _tasks(page), _messages(page), _foot(page)]
    main = element("main", *(part for part in parts if part is not None))
    return document(head, element("body", svg.symbols(), main))


def _title(page: Page) -> tuple[str, str]:
    if page.plan is not None:
        plan = page.plan
        done = plan.counts.get(states.DONE, 0)
        return plan.kind, f"{plan.word}: {plan.project} {done}/{plan.total}"
    kind = _kind_of_all(page)
    running = f"{page.live_total} running" if page.live_total else "nothing runs"
    failed = page.counts.get(states.FAILED, 0)
    also = f", {failed} failed" if failed else ""
    return kind, f"{running}{also}: {page.project or page.place}"


def _kind_of_all(page: Page) -> str:
    if page.live_total:
        return states.RUNNING
    order = (states.FAILED, states.BLOCKED, states.QUOTA, states.WAITING, states.DONE)
    return next((kind for kind in order if page.counts.get(kind)), states.PENDING)


# -- the status line


def _head(page: Page, kind: str) -> Element:
    plan = page.plan
    if plan is None:
        words = {states.RUNNING: "running", states.PENDING: "idle"}
        name = page.project or "All plans and tasks"
        where = page.place
        figures = _figures_of_all(page)
        counts, total = page.counts, sum(page.counts.values())
        return element(
            "header",
            element("p", f"runs in {where}", class_="place"),
            element("h1", pieces.badge(kind, words.get(kind, kind)), name),
            svg.share_bar(counts, states.COUNTED) if total else None,
            _counts(counts),
            figures,
        )
    name = plan.title or plan.project
    also = f"project {plan.project}" + (f", plan {plan.plan_path}" if plan.plan_path else "")
    return element(
        "header",
        element("p", also, class_="place"),
        element("h1", pieces.badge(plan.kind, plan.word), name),
        svg.share_bar(plan.counts, states.COUNTED),
        _counts(plan.counts),
        _figures(plan),
        element("p", plan.why, class_="note") if plan.why else None,
    )


def _counts(counts: Mapping[str, int]) -> Element:
    found = [
        element("li", pieces.badge(kind, f"{counts[kind]} {kind}"))
        for kind in (*states.COUNTED, states.STOPPED, states.UNKNOWN)
        if counts.get(kind)
    ]
    return element("ul", *found, class_="counts")


def _figures(plan: PlanPart) -> Element:
    done = plan.counts.get(states.DONE, 0)
    left = plan.seconds_left
    pairs = [
        ("tasks done", f"{done} of {plan.total}"),
        ("elapsed", pieces.lasted(plan.seconds)),
        ("left", None if left is None else estimate.in_words(left)),
        ("agents worked", pieces.lasted(plan.worked_seconds)),
        ("tokens in / out", pieces.tokens(plan.usage)),
        ("cost", pieces.cost(plan.usage)),
        ("started", pieces.moment(plan.started)),
        ("ended", pieces.moment(plan.ended) if plan.ended else None),
    ]
    return _pairs(pairs)


def _figures_of_all(page: Page) -> Element:
    pairs = [
        ("runs live", str(page.live_total)),
        ("runs in all", str(page.run_total)),
        ("plans", str(page.plan_total) if page.plan_total else None),
        ("elapsed", pieces.lasted(page.seconds)),
        ("left", None if page.seconds_left is None else estimate.in_words(page.seconds_left)),
        ("tokens in / out, last 24 h", pieces.tokens(page.usage)),
        ("cost, last 24 h", pieces.cost(page.usage)),
    ]
    return _pairs(pairs)


def _pairs(pairs: Sequence[tuple[str, str | None]]) -> Element:
    items = [
        element("li", element("span", name), " ", element("strong", value))
        for name, value in pairs
        if value is not None
    ]
    return element("ul", *items, class_="figures")


# -- problems


def _problems(page: Page) -> Element:
    if not page.problems:
        return element("section", pieces.heading("Problems"), element("p", "None.", class_="quiet"))
    items = [_problem(problem) for problem in page.problems[:FIRST_PROBLEMS]]
    others = [_problem(problem) for problem in page.problems[FIRST_PROBLEMS:]]
    folded = None
    if others:
        summary = element("summary", f"{len(others)} more")
        folded = element("details", summary, element("ol", *others, class_="problems"))
    more = pieces.more(page.problem_total - len(page.problems), "bin/monitor shows all")
    return element(
        "section",
        pieces.heading("Problems", str(page.problem_total)),
        element("ol", *items, class_="problems"),
        folded,
        more,
    )


def _problem(problem: ProblemPart) -> Element:
    kind = states.FAILED if problem.is_bad else states.WAITING
    since = f" since {pieces.moment(problem.since)}" if problem.since else ""
    return element(
        "li",
        pieces.badge(kind, problem.kind),
        " ",
        problem.text,
        element("span", since, class_="quiet small") if since else None,
        element("code", problem.command) if problem.command else None,
        class_=kind,
    )


# -- plans


def _plans(page: Page) -> list[Element | None]:
    if page.plan is not None:
        return [plan_sections.stages(page.plan), plan_sections.timeline(page.plan, "grid")]
    if not page.plans:
        return []
    parts: list[Element | None] = [_plan_list(page)]
    for number, plan in enumerate(page.plans):
        if plan.columns:
            parts.append(
                element(
                    "section",
                    element(
                        "h2", pieces.badge(plan.kind, plan.word), " ", plan.title or plan.project,
                        element("small", plan.project), id=f"plan-{number}",
                    ),
                    element("p", plan.why, class_="note") if plan.why else None,
                    plan_sections.stages(plan, is_nested=True),
                    plan_sections.timeline(plan, f"grid-{number}", is_nested=True),
                )
            )  # fmt: skip
    return parts


def _plan_list(page: Page) -> Element:
    rows = [_plan_row(plan, number) for number, plan in enumerate(page.plans)]
    names = ("plan", "", "done", "failed", "elapsed", "tokens in / out", "cost", "last")
    return element(
        "section",
        pieces.heading("Plans", str(page.plan_total)),
        pieces.table("rows list", names, rows, numbers=(2, 3, 4, 5, 6, 7)),
        pieces.more(page.plan_total - len(rows), "the newest are shown"),
    )


def _plan_row(plan: PlanPart, number: int) -> Element:
    stuck = [(kind, plan.counts.get(kind, 0)) for kind in (states.FAILED, states.BLOCKED)]
    told = ", ".join(f"{number} {kind}" for kind, number in stuck if number)
    name: Element | str = plan.project
    if plan.columns:
        name = element("a", plan.project, href=f"#plan-{number}")
    return element(
        "tr",
        element("th", name, element("div", plan.title, class_="quiet small"), scope="row"),
        element(
            "td", pieces.badge(plan.kind, plan.word), svg.share_bar(plan.counts, states.COUNTED)
        ),
        element("td", f"{plan.counts.get(states.DONE, 0)}/{plan.total}", class_="num"),
        element("td", told or pieces.NOTHING, class_="num"),
        element("td", pieces.lasted(plan.seconds), class_="num"),
        element("td", pieces.tokens(plan.usage), class_="num wide"),
        element("td", pieces.cost(plan.usage), class_="num"),
        element("td", pieces.moment(plan.ended or plan.started), class_="num wide"),
    )


# -- runs, tasks, messages


def _runs(page: Page) -> Element | None:
    shown = [*page.live, *page.ended]
    if not shown:
        return None
    names = ("run of", "", "agent", "started", "time", "tokens, cost", "last line, or how it ended")
    rest = page.run_total - len(shown)
    return element(
        "section",
        pieces.heading("Runs", f"{page.live_total} live, the newest of {page.run_total}"),
        pieces.table("rows", names, [_run_row(run) for run in shown], numbers=(3, 4, 5)),
        pieces.more(rest, "bin/list-runs shows all"),
    )


def _run_row(run: RunPart) -> Element:
    return element(
        "tr",
        element(
            "th", run.name, element("div", run.run, class_="quiet small mono wide"), scope="row"
        ),
        element("td", pieces.badge(run.kind, run.word)),
        element("td", run.agent, class_="agent"),
        element("td", pieces.moment(run.started), class_="num wide"),
        element("td", pieces.lasted(run.seconds), class_="num"),
        element("td", run.usage, class_="num"),
        element("td", run.last, class_="last quiet"),
    )


def _tasks(page: Page) -> Element | None:
    if not page.tasks:
        return None
    names = ("task", "", "runs", "last", "why")
    rows = [_task_row(task) for task in page.tasks]
    return element(
        "section",
        pieces.heading("Tasks outside of plans", str(page.task_total)),
        pieces.table("rows", names, rows, numbers=(2, 3)),
        pieces.more(page.task_total - len(rows), "bin/list-runs --tasks shows all"),
    )


def _task_row(task: TaskPart) -> Element:
    return element(
        "tr",
        element("th", task.name, scope="row"),
        element("td", pieces.badge(task.kind, task.word)),
        element("td", f"{task.runs} run{'' if task.runs == 1 else 's'}", class_="num"),
        element("td", pieces.moment(task.last), class_="num"),
        element("td", task.why, class_="last quiet"),
    )


def _messages(page: Page) -> Element | None:
    if not page.messages:
        return None
    rows = [_message_row(message) for message in page.messages]
    names = ("time", "type", "of", "message")
    return element(
        "section",
        pieces.heading("Messages", "the newest first"),
        pieces.table("rows messages", names, rows),
    )


def _message_row(message: MessagePart) -> Element:
    is_bad = message.type in ("ERROR", "RUN_CRASH")
    day, clock = message.time[:10], message.time[11:19]
    return element(
        "tr",
        element("td", f"{day} {clock}", class_="clock"),
        element("td", message.type, class_=f"type {'failed kind' if is_bad else ''}".strip()),
        element("td", message.who, class_="quiet"),
        element("td", message.text, class_="last"),
    )


def _foot(page: Page) -> Element:
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(page.made))
    text = f"Made {made} by Conductor Loop {VERSION} from {page.place}. All times are UTC."
    return element("footer", element("p", text), element("p", "It is not brought up to date."))
