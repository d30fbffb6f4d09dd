"""What requests change, without a process: what is taken back, given back, or refused in time."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import bus, cleaning, ids, redact, tasks
from lib.api import console, control, launch, places, posts, removal, root_queue
from lib.api.exchange import MAX_BODY, Answer, Refusal, Request
from lib.api.hub import Signal
from lib.api.launch import Order
from lib.api.root_queue import RootQueue
from lib.api.service import Service, Settings
from lib.config import Config
from lib.errors import LockTimeoutError

SECONDS = 20.0  # for what comes at once


@pytest.fixture
def service(tmp_path: Path) -> Service:
    runs_dir = tmp_path / "runs"
    (runs_dir / "p" / "t").mkdir(parents=True)
    (runs_dir / "p" / "t" / tasks.PROMPT).write_text("Do it.\n")
    return Service(str(runs_dir), Config(""), Settings(max_root_tasks=1))


def task_of(service: Service) -> tasks.Task:
    return tasks.Task(os.path.join(service.runs_dir, "p", "t"))


def asked(method: str, body: object = None, **params: str) -> Request:
    data = json.dumps(body).encode()
    request = Request(
        method,
        "/",
        headers={"Content-Type": "application/json"},
        read_body=lambda: io.BytesIO(data).read(MAX_BODY + 1),
    )
    request.params = params
    return request


# -- the trash


def test_a_start_that_is_taken_back_empties_no_trash_under_a_removal(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "TRASH_LOCK_SECONDS", 0.0)
    trash = os.path.join(service.runs_dir, cleaning.TRASH)

    with cleaning.held_trash(service.runs_dir):
        control._take_back(service, task_of(service))
        assert len(os.listdir(trash)) == 1, (
            "who looks whether what it has renamed lives has it alone"
        )

    assert not os.path.exists(task_of(service).path)
    with places.trash(service):
        pass
    assert not os.path.exists(trash)


def test_a_task_in_which_a_run_began_just_then_gets_its_folder_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([False, True])
    monkeypatch.setattr(removal, "_has_living_runs", lambda task: next(looks))

    with pytest.raises(Refusal, match="task has running runs") as caught:
        removal.delete_task(service, asked("DELETE", project="p", task="t"))

    assert caught.value.status == 409
    assert Path(task_of(service).path, tasks.PROMPT).read_text() == "Do it.\n"


@pytest.mark.parametrize("params", [{"project": "p", "task": "t"}, {"project": "p"}])
def test_what_lives_is_never_left_in_the_trash_nor_taken_out_of_it_by_another(
    service: Service, monkeypatch: pytest.MonkeyPatch, params: dict[str, str]
) -> None:
    monkeypatch.setattr(cleaning, "TRASH_LOCK_SECONDS", 0.0)
    looked: list[str] = []

    def lives(task: tasks.Task) -> bool:
        looked.append(task.path)
        if len(looked) < 2:
            return False
        with pytest.raises(LockTimeoutError, match="the trash of the runs folder locked"):
            cleaning.empty_trash(service.runs_dir, ())  # as a clean-runs does meanwhile
        os.makedirs(task_of(service).path)  # and a task is begun in its place
        Path(task_of(service).path, "new").touch()
        return True

    monkeypatch.setattr(removal, "_has_living_runs", lives)
    delete = removal.delete_task if "task" in params else removal.delete_project

    with pytest.raises(Refusal, match=r"running runs; its folder was made again .* in \w+\.kept\."):
        delete(service, asked("DELETE", **params))

    assert cleaning.TRASH in looked[1]
    assert os.listdir(os.path.join(service.runs_dir, cleaning.TRASH)) == []
    assert os.listdir(task_of(service).path) == ["new"]
    [kept] = Path(service.runs_dir).glob("p/t.kept.*" if "task" in params else "p.kept.*/t")
    assert (kept / tasks.PROMPT).read_text() == "Do it.\n"


def test_a_name_of_many_bytes_can_be_put_into_the_trash(service: Service) -> None:
    path = os.path.join(service.runs_dir, "\u00fc" * 127)
    os.mkdir(path)

    aside = cleaning.discard(path, service.runs_dir)

    assert cleaning.give_back(aside, path) == path


def test_a_task_without_runs_is_removed(service: Service) -> None:
    answer = removal.delete_task(service, asked("DELETE", project="p", task="t"))

    assert answer.status == 204
    assert os.listdir(os.path.join(service.runs_dir, "p")) == []
    assert not os.path.exists(os.path.join(service.runs_dir, cleaning.TRASH))


# -- the queue


@pytest.mark.parametrize("text", ["entries: [\n", "- 1\n", "entries:\n\t- x: &a 1\n"])
def test_a_damaged_queue_is_neither_written_over_nor_a_fault_of_the_server(
    service: Service, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(service.runs_dir, root_queue.FOLDER, root_queue.NAME)
    path.parent.mkdir()
    path.write_text(text)

    assert service.queue.positions() == {}
    assert service.queue.positions() == {}
    assert capsys.readouterr().err.count("\n") == 1, "who runs the server is told, and once"
    with pytest.raises(Refusal, match="the queue of tasks cannot be read") as caught:
        service.queue.submit(Order("p", "t", "run-1"))
    assert caught.value.status == 503
    assert path.read_text() == text


def test_the_queue_goes_on_after_a_fault(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    looked_again = threading.Event()

    def positions(queue: RootQueue) -> dict[root_queue.Key, int]:
        if not told:
            raise RuntimeError("can't start new thread")
        looked_again.set()
        return {}

    monkeypatch.setattr(RootQueue, "positions", positions)
    monkeypatch.setattr(root_queue, "tell", told.append)
    monkeypatch.setattr(root_queue, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(root_queue, "REST_SECONDS", 0.01)
    monkeypatch.setattr(service.hub, "changes", Signal())
    service.queue.start()

    assert looked_again.wait(SECONDS)

    service.queue.close()
    assert told == ["the queue of tasks: RuntimeError: can't start new thread"]


class Starts:
    """In the place of what starts loops: it refuses, and notes which tasks it was asked for."""

    def __init__(self, status: int = 503) -> None:
        self.asked: list[str] = []
        self.status = status

    def start(self, order: Order) -> None:
        self.asked.append(order.task)
        if self.status:
            raise Refusal(self.status, "the disk is short")


def waiting(service: Service, *names: str, resume: bool = False) -> list[Order]:
    """Have these tasks wait in the queue, as an earlier server left them."""
    orders = [Order("p", name, f"20260101-0000000000-1-{name}", resume=resume) for name in names]
    for order in orders:
        os.makedirs(os.path.join(service.runs_dir, "p", order.task), exist_ok=True)
    with service.queue._held() as entries:
        entries += [root_queue.Entry(order, root_queue.QUEUED, ids.rfc3339()) for order in orders]
        service.queue._save(entries)
    return orders


def entries_of(service: Service) -> list[tuple[str, str, int]]:
    with service.queue._held() as entries:
        return [(entry.order.task, entry.state, entry.tries) for entry in entries]


def told_of(service: Service) -> list[str]:
    return [message.type for message in bus.read(task_of(service).bus)]


def test_a_task_that_waits_is_not_lost_to_what_passes_and_is_tried_again_after_a_pause(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts()
    monkeypatch.setattr(service, "launcher", starts)
    waiting(service, "t", "u")

    service.queue.schedule()

    assert starts.asked == ["t"], "what is short for one is short for the next"
    assert entries_of(service) == [("t", "queued", 1), ("u", "queued", 0)]
    service.queue.schedule()
    assert starts.asked == ["t", "u"], "one that rests holds nobody up"
    monkeypatch.setattr(root_queue, "PAUSE_SECONDS", 0.0)
    service.queue.schedule()
    assert entries_of(service) == [("t", "queued", 2), ("u", "queued", 1)]
    assert told_of(service) == ["WARNING"], "once, not each time"
    starts.status = 0
    service.queue.schedule()
    assert entries_of(service)[0] == ("t", "started", 2), "and it starts when it can"


def test_a_task_that_waits_and_that_run_task_refuses_is_told_of_and_forgotten(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "launcher", Starts(400))
    waiting(service, "t")

    service.queue.schedule()

    assert entries_of(service) == []
    assert told_of(service) == ["ERROR"]


@pytest.mark.parametrize(("resume", "left"), [(True, ["started"]), (False, [])])
def test_of_tasks_that_are_done_those_to_be_resumed_are_started(
    service: Service, monkeypatch: pytest.MonkeyPatch, resume: bool, left: list[str]
) -> None:
    monkeypatch.setattr(service, "launcher", Starts(0))
    waiting(service, "t", resume=resume)
    Path(task_of(service).file(tasks.DONE)).touch()

    service.queue.schedule()

    assert [state for _, state, _ in entries_of(service)] == left


def test_who_asks_is_told_of_what_passes_and_waits_for_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts()
    monkeypatch.setattr(service, "launcher", starts)
    waiting(service, "u")

    with pytest.raises(Refusal, match="the disk is short"):
        service.queue.submit(Order("p", "t", "20260101-0000000000-1-1"))

    assert starts.asked == ["u", "t"]
    assert entries_of(service) == [("u", "queued", 1)]


def test_pauses_grow_to_five_minutes_and_a_clock_that_is_set_back_makes_none() -> None:
    entry = root_queue.Entry(Order("p", "t", "r"), root_queue.QUEUED, "")

    def rests(seconds: float) -> bool:
        entry.tried = ids.rfc3339_of(time.time() - seconds)
        return entry.is_resting

    assert not rests(0), "it was never tried"
    for tries, pause in ((1, 2), (2, 4), (5, 32), (9, 300), (10_000, 300)):
        entry.tries = tries
        assert rests(pause - 1), tries
        assert not rests(pause + 1), tries
    assert not rests(-3600)
    entry.tried = "damaged"
    assert not entry.is_resting


# -- the secrets of requests


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Iterator[launch.PassingTokens]:
    monkeypatch.setattr(redact, "_passing", ())
    monkeypatch.setattr(redact, "_own", None)
    yield launch.PassingTokens()
    redact.set_passing_tokens(())


def token(number: int) -> str:
    return f"value-of-request-{number:04}-word"


def test_the_secrets_of_a_start_are_known_meanwhile_and_on_where_it_is_accepted(
    passing: launch.PassingTokens,
) -> None:
    with passing.tried({"MY_TOKEN": token(1), "PLACE": token(3)}):
        assert redact.text(f"{token(1)} {token(3)}") == f"{redact.MARK} {token(3)}"
    assert redact.text(token(1)) == token(1)

    with passing.tried({"MY_TOKEN": token(2)}) as keep:
        keep()
    assert redact.text(f"{token(1)} {token(2)}") == f"{token(1)} {redact.MARK}"


def test_only_the_newest_secrets_of_requests_stay_known_and_those_refused_push_out_none(
    passing: launch.PassingTokens,
) -> None:
    most = launch.MOST_KNOWN_TOKENS
    for number in range(most):
        with passing.tried({"MY_TOKEN": token(number)}) as keep:
            keep()
    with passing.tried({"MY_TOKEN": token(0)}) as keep:
        keep()
    with passing.tried({"MY_TOKEN": "\n".join(map(token, range(5000, 5100)))}):
        pass
    with passing.tried({"MY_TOKEN": token(9999)}) as keep:
        keep()

    assert len(redact._passing) == most
    assert {token(0), token(2), token(9999)} <= set(redact._passing), "what is sent again is new"
    assert token(1) not in redact._passing


def test_a_request_with_more_secrets_than_the_server_would_know_is_refused() -> None:
    lines = "\n".join(map(token, range(launch.MOST_TOKENS)))
    assert launch.check_variables({"MY_TOKEN": lines}) == {"MY_TOKEN": lines}
    with pytest.raises(Refusal, match="config: more than 100 secret values"):
        launch.check_variables({"MY_TOKEN": lines, "OTHER_SECRET": token(5000)})


# -- messages


def post(service: Service, **body: object) -> Answer:
    return posts.post_v1_message(service, asked("POST", {"project_id": "p", "body": "x", **body}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task_id": "/etc"}, "task_id must not contain path separators"),
        ({"task_id": ".."}, "task_id must not contain path separators"),
        ({"run_id": "a/b"}, "run_id must not contain path separators"),
        ({"body": "half \ud800 of it"}, "invalid json: body holds half a character"),
    ],
)
def test_a_message_with_what_it_may_not_name_or_hold_is_refused(
    service: Service, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(Refusal) as caught:
        post(service, **fields)
    assert (caught.value.status, str(caught.value)) == (400, message)
    assert sorted(os.listdir(service.runs_dir)) == ["p"]


# -- what the server tells


def test_what_is_told_is_redacted_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.tell(f"sk-ant-api03-{'a1B2' * 8}\nserver.py: forged")

    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "sk-ant" not in told
