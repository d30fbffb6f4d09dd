"""bin/report and the page that a plan leaves, by running both."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.helpers import run_script, wait_until
from tests.plan_root import PlanRoot, sh


@pytest.fixture
def root(tmp_path: Path) -> PlanRoot:
    return PlanRoot(tmp_path)


def page_of(root: PlanRoot) -> Path:
    return root.runs / "p" / "status.html"


def title(page: Path | str) -> str:
    text = page if isinstance(page, str) else page.read_text()
    return text.partition("<title>")[2].partition("</title>")[0]


# -- at the end of a plan


def test_a_plan_leaves_its_page_and_says_where(root: PlanRoot) -> None:
    root.plan(sh("a", "true"), sh("b", "true", depends_on=["a"]))

    done = root.run()

    assert done.returncode == 0
    assert done.stdout.split("\n")[-2] == f"page      {page_of(root)}"
    assert title(page_of(root)) == "done: p 2/2"
    assert f"page      {page_of(root)}" in root.log()
    root.assert_nothing_left()


def test_a_plan_that_failed_leaves_one_too_with_what_to_do(root: PlanRoot) -> None:
    root.plan(sh("a", "echo '<b>gone</b>' >&2; exit 3"), sh("b", "true", depends_on=["a"]))

    done = root.run()

    assert done.returncode == 1
    assert f"page      {page_of(root)}" in done.stdout
    assert title(page_of(root)) == "failed: p 0/2"
    text = page_of(root).read_text()
    assert "--retry-failed" in text
    assert "needs a, which did not succeed" in text


def test_a_plan_that_was_interrupted_leaves_one_too(root: PlanRoot) -> None:
    root.plan(sh("a", "touch began; while [ ! -e go ]; do sleep 0.01; done"), sh("b", "true"))
    plan = root.start("--max-parallel", "1")
    wait_until((root.work / "began").exists, what="the first task")

    plan.send_signal(signal.SIGINT)
    wait_until(lambda: "interrupted" in root.log(), what="the answer to Ctrl-C")
    (root.work / "go").touch()

    assert plan.wait(60) == 130
    assert title(page_of(root)) == "interrupted: p 1/2"
    root.assert_nothing_left()


def test_the_next_start_replaces_the_page(root: PlanRoot) -> None:
    root.plan(sh("a", "test -e ready"))
    assert root.run().returncode == 1
    assert title(page_of(root)) == "failed: p 0/1"
    (root.work / "ready").touch()

    assert root.run().returncode == 0

    assert title(page_of(root)) == "done: p 1/1"


@pytest.mark.parametrize(("script", "code"), [("true", 0), ("exit 1", 1)])
def test_a_page_that_cannot_be_written_is_one_line_and_changes_no_result(
    root: PlanRoot, script: str, code: int
) -> None:
    root.plan(sh("a", script))
    (page_of(root) / "in-the-way").mkdir(parents=True)

    done = root.run()

    assert (done.returncode, done.stderr) == (code, "")
    warnings = [line for line in done.stdout.split("\n") if "status page" in line]
    assert len(warnings) == 1
    assert "the status page was not written: Is a directory; try: bin/report p" in warnings[0]
    assert "page      " not in done.stdout
    root.assert_nothing_left()


def test_scripts_are_told_where_the_page_is(root: PlanRoot) -> None:
    root.plan(sh("a", "true"))

    events = [json.loads(line) for line in root.run("--json").stdout.split("\n") if line]

    assert events[-1]["event"] == "summary"
    assert events[-1]["status_page"] == str(page_of(root))


def test_other_scripts_take_no_notice_of_the_page(root: PlanRoot) -> None:
    root.plan(sh("a", "true"))
    root.run()
    run_script("bin/report", "--root", root.path)

    checked = run_script("bin/check-storage", root.path)
    assert (checked.returncode, checked.stderr) == (0, "")
    cleaned = run_script("bin/clean-runs", "--root", root.path, "--keep", "0", "--yes")
    assert cleaned.returncode == 0
    assert page_of(root).exists()
    assert (root.runs / "status.html").exists()
    listed = run_script("bin/list-runs", "--tasks", "--root", root.path)
    assert "status.html" not in listed.stdout
    assert run_script("bin/monitor", "--once", "--root", root.path).returncode == 0
    assert "nobody runs this plan" in root.run("--attach").stdout


# -- bin/report


def test_it_writes_the_page_of_a_plan_under_way_and_prints_its_path(root: PlanRoot) -> None:
    root.plan(sh("a", "touch began; while [ ! -e go ]; do sleep 0.01; done"))
    plan = root.start()
    wait_until((root.work / "began").exists, what="the task")

    done = run_script("bin/report", "p", "--root", root.path)

    (root.work / "go").touch()
    assert plan.wait(60) == 0
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{page_of(root)}\n", "")
    assert title(page_of(root)) == "done: p 1/1"  # that of the end, by now


def test_on_stdout_it_writes_nothing_else(root: PlanRoot) -> None:
    root.plan(sh("a", "true"))
    root.run()
    before = root.tree()

    done = run_script("bin/report", "p", "--root", root.path, "--output", "-")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("<!doctype html>\n<html")
    assert done.stdout.endswith("</html>\n")
    assert title(done.stdout) == "done: p 1/1"
    assert root.tree() == before


def test_the_whole_root_has_a_page_of_its_own(root: PlanRoot) -> None:
    root.plan(sh("a", "true"))
    root.run()

    done = run_script("bin/report", "--root", root.path)

    assert done.stdout == f"{root.runs / 'status.html'}\n"
    assert "All plans and tasks" in (root.runs / "status.html").read_text()


def test_it_goes_where_somebody_wants_it(root: PlanRoot, tmp_path: Path) -> None:
    root.plan(sh("a", "true"))
    root.run()
    link, target = tmp_path / "link.html", tmp_path / "real.html"
    target.write_text("old")
    link.symlink_to(target)

    done = run_script("bin/report", "p", "--root", root.path, "-o", link)
    assert done.stdout == f"{link}\n"
    assert link.is_symlink()
    assert title(target) == "done: p 1/1"

    assert run_script("bin/report", "--root", root.path, "-o", "/dev/null").returncode == 0
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["q"], "no project q in "),
        (["../p"], "no project ../p in "),
        (["p", "--output", "."], ". is a folder; name a file in it"),
        (["p", "--output", "/nowhere/page.html"], "No such file or directory"),
        (["--root", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    root: PlanRoot, arguments: list[str], told: str
) -> None:
    root.plan(sh("a", "true"))
    root.run()
    before = root.tree()

    place = [] if "--root" in arguments else ["--root", str(root.path)]
    done = run_script("bin/report", *arguments, *place)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("report: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert root.tree() == before


def test_a_run_of_a_project_without_a_folder_needs_a_place(root: PlanRoot) -> None:
    run_script(
        "run-agent.py", "offline", root.work, "--prompt", "x", "--project", "solo", "--runs-dir",
        root.runs, "--bus", root.bus,
    )  # fmt: skip

    refused = run_script("bin/report", "solo", "--runs-dir", root.runs)
    shown = run_script("bin/report", "solo", "--runs-dir", root.runs, "--output", "-")

    assert refused.returncode == 1
    assert "name an --output" in refused.stderr
    assert not (root.runs / "solo").exists()
    assert title(shown.stdout) == "nothing runs: solo"
