"""Messages of buses as lists: the newest, those behind a cursor, and never more than fits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lib import bus
from lib.api import messages
from lib.bus_parse import Message
from tests.api_app import App
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
