"""Messages of buses as lists: the newest, those behind a cursor, and never more than fits."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest

from lib import bus, ids
from lib.api import buses, messages
from lib.bus_parse import Message
from tests.api_app import App, faults
from tests.stored_root import StoredRoot

TASK = "/api/projects/demo/tasks/build/messages"


@pytest.fixture
def root(tmp_path: Path) -> StoredRoot:
    return StoredRoot(tmp_path / "root")


def post(
    folder: Path, name: str, count: int, project: str = "demo", task: str = "build"
) -> list[str]:
    return [post_one(folder / name, f"message {number}", project, task) for number in range(count)]


def post_one(path: Path, body: str, project: str = "demo", task: str = "build") -> str:
    return bus.append(str(path), body=body, project=project, task=task, durable=False)


@pytest.fixture
def posted(root: StoredRoot) -> list[str]:
    return post(root.task("build"), "TASK-MESSAGE-BUS.md", 6)


def shown(app: App, address: str) -> list[str]:
    return [message["msg_id"] for message in app.ok(address)["messages"]]


def test_a_list_has_the_newest_or_what_is_behind_a_cursor(
    root: StoredRoot, posted: list[str]
) -> None:
    app = App(root.runs_dir)
    assert shown(app, TASK) == posted
    assert shown(app, f"{TASK}?limit=2") == posted[-2:]
    assert shown(app, f"{TASK}?since={posted[2]}") == posted[3:]
    assert shown(app, f"{TASK}?since={posted[2]}&limit=2") == posted[4:]
    assert shown(app, f"{TASK}?since={posted[-1]}") == []
    assert shown(app, f"{TASK}?limit=-3&offset=1") == posted
    v1 = "/api/v1/messages?project_id=demo&task_id=build"
    assert shown(app, f"{v1}&after={posted[0]}") == posted[1:]


def test_an_unknown_cursor_is_refused_in_the_words_that_the_page_knows(
    root: StoredRoot, posted: list[str]
) -> None:
    app = App(root.runs_dir)
    for address in (
        f"{TASK}?since=MSG-gone",
        "/api/v1/messages?project_id=demo&task_id=build&after=MSG-gone",
    ):
        reply = app.get(address)
        assert (reply.status, reply.json["error"]["message"]) == (404, "message id not found")


def test_a_bus_that_is_not_there_has_no_messages(root: StoredRoot) -> None:
    root.task("build")
    app = App(root.runs_dir)
    assert app.ok(TASK) == {"messages": []}
    assert app.ok(f"{TASK}?since=MSG-1") == {"messages": []}
    assert app.ok("/api/projects/none/messages") == {"messages": []}
    assert app.get("/api/v1/messages").status == 400
    assert app.get("/api/v1/messages?project_id=demo&task_id=..").status == 400


def test_a_long_list_is_cut_and_says_so(
    root: StoredRoot, posted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGES", 3)
    app = App(root.runs_dir)
    newest = app.ok(TASK)
    assert [message["msg_id"] for message in newest["messages"]] == posted[-3:]
    assert newest["has_more"] is True
    # Behind a cursor the oldest come first: a client that goes on misses none.
    behind = app.ok(f"{TASK}?since={posted[0]}")
    assert [message["msg_id"] for message in behind["messages"]] == posted[1:4]
    assert behind["has_more"] is True
    assert "has_more" not in app.ok(f"{TASK}?since={posted[3]}")
    assert shown(app, f"{TASK}?limit=500") == posted[-3:]


def test_huge_messages_are_cut_and_do_not_make_a_huge_answer(
    root: StoredRoot, posted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root.runs_dir / "demo" / "build" / "TASK-MESSAGE-BUS.md"
    huge = [post_one(path, "word " * 100_000) for _ in range(3)]
    monkeypatch.setattr(messages, "MAX_TOTAL", 600_000)
    answer = App(root.runs_dir).ok(TASK)
    assert [message["msg_id"] for message in answer["messages"]] == huge[1:]
    assert answer["has_more"] is True
    assert all(message["truncated"] for message in answer["messages"])
    assert 250_000 < len(answer["messages"][0]["body"]) <= 256 * 1024
    behind = App(root.runs_dir).ok(f"{TASK}?since={posted[-1]}")
    assert [message["msg_id"] for message in behind["messages"]] == huge[:2]


def test_all_that_a_message_has_is_told_under_both_names(root: StoredRoot) -> None:
    path = root.task("build") / "TASK-MESSAGE-BUS.md"
    first = post_one(path, "begin")
    with path.open("a") as file:
        file.write(
            "\n---\nmsg_id: MSG-2\nts: 2026-01-01T12:00:00.5Z\ntype: FACT\nproject_id: demo\n"
            f"task_id: build\nrun_id: r1\nparents:\n    - msg_id: {first}\n      kind: answer\n"
            "links:\n    - url: file:x\n      label: x\n      kind: output\n"
            "meta:\n    key: value\n---\ndone\n"
        )
    message = App(root.runs_dir).ok(TASK)["messages"][1]
    assert message["ts"] == message["timestamp"] == "2026-01-01T12:00:00.5Z"
    assert message["parents"] == [
        {"msg_id": first, "kind": "answer", "meta": None, "MsgID": first, "Kind": "answer",
         "Meta": None}
    ]  # fmt: skip
    assert message["links"] == [
        {"url": "file:x", "label": "x", "kind": "output", "URL": "file:x", "Label": "x",
         "Kind": "output"}
    ]  # fmt: skip
    assert (message["run_id"], message["meta"]) == ("r1", {"key": "value"})
    assert "issue_id" not in message


def test_flat_runs_report_on_the_bus_of_the_root(root: StoredRoot) -> None:
    root.run(project_id="plan", task_id="build")
    ours = post(root.path, "MESSAGE-BUS.md", 2, "plan")
    other = post(root.path, "MESSAGE-BUS.md", 1, "plan", "test")
    post(root.path, "MESSAGE-BUS.md", 1, "else")
    app = App(root.runs_dir)
    assert shown(app, "/api/projects/plan/messages") == ours + other
    assert shown(app, "/api/projects/plan/tasks/build/messages") == ours


def test_a_cursor_is_good_where_its_message_has_been_put_aside(
    root: StoredRoot, posted: list[str]
) -> None:
    folder = root.runs_dir / "demo" / "build"
    bus.rotate(str(folder / "TASK-MESSAGE-BUS.md"), 1)
    later = post(folder, "TASK-MESSAGE-BUS.md", 3)
    app = App(root.runs_dir)
    assert shown(app, f"{TASK}?since={posted[4]}") == [posted[5], *later]
    assert shown(app, f"{TASK}?since={posted[4]}&limit=2") == later[1:]
    assert shown(app, f"{TASK}?since={posted[4]}&limit=500") == [posted[5], *later]
    assert shown(app, TASK) == later


def test_a_cursor_far_back_costs_what_is_asked_for(
    root: StoredRoot, posted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    post_one(root.runs_dir / "demo" / "build" / "TASK-MESSAGE-BUS.md", "word " * 40_000)
    posted += post(root.runs_dir / "demo" / "build", "TASK-MESSAGE-BUS.md", 2)
    monkeypatch.setattr("lib.api.bus_log.Walk.take", lambda self: pytest.fail("all of it is read"))
    app = App(root.runs_dir)
    assert shown(app, f"{TASK}?since={posted[0]}&limit=2") == posted[-2:]


def test_a_long_bus_is_parsed_again_only_when_it_has_changed(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, path = App(root.runs_dir), root.task("build") / "TASK-MESSAGE-BUS.md"
    ids = [post_one(path, "x" * 4000) for _ in range(40)]
    os.utime(path, (1_700_000_000, 1_700_000_000))
    parsed: list[object] = []
    recent = bus.recent

    def counted(*given: Any) -> list[Message]:
        parsed.append(given)
        return recent(*given)

    monkeypatch.setattr(bus, "recent", counted)
    assert [shown(app, f"{TASK}?limit=5") for _ in range(3)] == [ids[-5:]] * 3
    assert len(parsed) == 1
    assert shown(app, f"{TASK}?limit=6") == ids[-6:]  # another question
    ids.append(post_one(path, "the newest"))
    assert shown(app, f"{TASK}?limit=5") == ids[-5:]


RECENT = "/api/v1/messages/recent"


def test_the_newest_of_all_buses_come_in_the_order_of_their_times(root: StoredRoot) -> None:
    folders = [root.task("build"), root.task("test"), root.runs_dir / "demo"]
    names = ["TASK-MESSAGE-BUS.md", "TASK-MESSAGE-BUS.md", "PROJECT-MESSAGE-BUS.md"]
    posted = [
        post_one(folders[number % 3] / names[number % 3], f"message {number}", task="")
        for number in range(9)
    ]
    posted.append(post_one(root.path / "MESSAGE-BUS.md", "to all", project="plan", task="unit"))
    app = App(root.runs_dir)
    assert shown(app, RECENT) == posted
    answer = app.ok(f"{RECENT}?limit=4")
    assert [message["msg_id"] for message in answer["messages"]] == posted[-4:]
    assert answer["has_more"] is True
    assert "has_more" not in app.ok(RECENT)
    assert faults(RECENT, app.get(RECENT)) == []


def test_of_many_buses_only_those_with_something_new_are_read(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [root.task(f"t{number}") / "TASK-MESSAGE-BUS.md" for number in range(50)]
    for number, path in enumerate(old):
        post_one(path, "long ago")
        os.utime(path, (1000 + number, 1000 + number))
    new = post(root.task("build"), "TASK-MESSAGE-BUS.md", 5)
    app = App(root.runs_dir)
    read: list[str] = []
    last = buses.last

    def noted(some: list[buses.Bus], count: int) -> list[Message]:
        read.extend(item.path for item in some)
        return last(some, count)

    monkeypatch.setattr(buses, "last", noted)
    assert shown(app, f"{RECENT}?limit=3") == new[-3:]
    assert len(read) == 1


def test_a_bus_whose_time_is_a_tick_behind_the_clock_is_not_left_out(root: StoredRoot) -> None:
    paths = [root.task(name) / "TASK-MESSAGE-BUS.md" for name in ("build", "test")]
    before = [post_one(paths[0], "before") for _ in range(2)]
    newest = post_one(paths[1], "newest")
    [*_, last] = bus.read(str(paths[0]))
    behind_ns = (ids.parse_rfc3339(last.ts) or 0) - 4_000_000
    os.utime(paths[1], ns=(behind_ns, behind_ns))
    app = App(root.runs_dir)
    assert shown(app, f"{RECENT}?limit=1") == [newest]
    with app.service.view.current() as index:
        assert [message.msg_id for message in index.messages(2)] == [before[1], newest]


def test_of_many_buses_no_more_is_held_than_is_told(
    root: StoredRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files may all be newer than what stands in them, as after a copy."""
    paths = [root.task(f"t{number}") / "TASK-MESSAGE-BUS.md" for number in range(12)]
    posted = [post_one(path, "x" * 1000) for path in paths for _ in range(5)]
    for path in paths:
        os.utime(path, (1 << 32, 1 << 32))
    app, last = App(root.runs_dir), buses.last
    held: list[int] = []

    def noted(some: list[buses.Bus], count: int) -> list[Message]:
        gc.collect()
        held.append(sum(type(item) is Message for item in gc.get_objects()))
        return last(some, count)

    monkeypatch.setattr(buses, "last", noted)
    assert shown(app, f"{RECENT}?limit=5") == posted[-5:]
    assert len(held) == 12
    assert max(held) - held[0] < 15


def test_what_says_nothing_of_its_place_gets_that_of_its_bus(root: StoredRoot) -> None:
    (root.task("build") / "TASK-MESSAGE-BUS.md").write_text("[2026-01-02 03:04:05] FACT: by hand\n")
    (root.path / "MESSAGE-BUS.md").write_text("[2026-01-02 03:04:06] FACT: nowhere\n")
    task, nowhere = App(root.runs_dir).ok(RECENT)["messages"]
    assert (task["project_id"], task["task_id"], task["body"]) == ("demo", "build", "by hand")
    assert (nowhere["project_id"], nowhere.get("task_id")) == ("", None)


def test_a_bus_behind_a_link_is_not_read(root: StoredRoot, tmp_path: Path) -> None:
    root.task("build")
    away = tmp_path / "away.md"
    post_one(away, "secret")
    os.symlink(away, root.runs_dir / "demo" / "build" / "TASK-MESSAGE-BUS.md")
    assert App(root.runs_dir).ok(RECENT) == {"messages": []}


def test_the_newest_of_a_project_are_those_of_its_tasks_and_plan_too(root: StoredRoot) -> None:
    root.run(project_id="demo", task_id="flat")
    folders = [root.task("build"), root.runs_dir / "demo"]
    other = post_one(root.task("x", "other") / "TASK-MESSAGE-BUS.md", "other", "other", "x")
    posted = [
        post_one(folders[0] / "TASK-MESSAGE-BUS.md", "of a task"),
        post_one(folders[1] / "PROJECT-MESSAGE-BUS.md", "of the project", task=""),
        post_one(root.path / "MESSAGE-BUS.md", "of a flat run", task="flat"),
    ]
    elsewhere = post_one(root.path / "MESSAGE-BUS.md", "elsewhere", project="plan", task="unit")
    of_no_flat_run = post_one(root.path / "MESSAGE-BUS.md", "on the root's", "other", "x")
    app = App(root.runs_dir)
    assert shown(app, f"{RECENT}?project_id=demo") == posted
    assert shown(app, f"{RECENT}?project_id=demo&limit=1") == posted[-1:]
    assert shown(app, f"{RECENT}?project_id=other") == [other]
    assert shown(app, RECENT)[-2:] == [elsewhere, of_no_flat_run]
    assert app.ok(f"{RECENT}?project_id=none") == {"messages": []}
    assert app.get(f"{RECENT}?project_id=..").status == 400
