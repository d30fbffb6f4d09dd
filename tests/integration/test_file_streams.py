"""The files of a run as they grow, and its transcript in pages and as it grows."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.api import file_streams, file_tail, transcripts
from lib.api.exchange import Refusal
from lib.api.file_tail import Tail
from lib.api.hub import Signal
from lib.api.service import Service
from tests.api_server import Server
from tests.api_streams import Client, ask, service_on
from tests.stored_root import RUNNING, StoredRoot, held, write_record

TASK = "task-20260101-000001-one"
SECRET = "sk-ant-" + "a1B2" * 8
KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "QUJD\n" * 40 + "-----END RSA PRIVATE KEY-----\n"


class Scene:
    """A run in a task folder, live until `end`."""

    def __init__(self, path: Path) -> None:
        self.root = StoredRoot(path)
        self.folder = self.root.run(self.root.task(TASK), task_id=TASK, **RUNNING)
        self._life = held(self.folder / ".lock")
        self._life.__enter__()
        self.is_live = True

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def stream(self) -> str:
        return f"/api/projects/demo/tasks/{TASK}/runs/{self.run_id}/stream"

    def write(self, data: bytes | str, name: str = "agent-stdout.txt") -> None:
        with open(self.folder / name, "ab") as file:
            file.write(data.encode() if isinstance(data, str) else data)

    def end(self, status: str = "completed") -> None:
        code = 0 if status == "completed" else 1
        write_record(self.folder, task_id=TASK, status=status, exit_code=code)
        self.let_go()

    def let_go(self) -> None:
        if self.is_live:
            self.is_live = False
            self._life.__exit__(None, None, None)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "root")
    yield made
    made.let_go()


def connect(
    service: Service, scene: Scene, path: str = "", query: str = "", last_id: str = ""
) -> Client:
    headers = {"Last_Event_ID": last_id} if last_id else {}
    routes = (*file_streams.ROUTES, *transcripts.ROUTES)
    return Client(ask(service, routes, path or scene.stream, query=query, **headers))


def test_a_file_comes_in_pieces_that_make_it_up_and_ends_with_the_run(scene: Scene) -> None:
    scene.write("one\ntwo\n")
    with service_on(scene.root.runs_dir) as service:
        client = connect(service, scene)
        client.read_until(lambda: client.text == "one\ntwo\n")
        scene.write("three\n")
        client.read_until(lambda: client.text == "one\ntwo\nthree\n")
        scene.write("fo")
        scene.write("ur")
        scene.end()
        client.read_to_end()
    assert client.text == "one\ntwo\nthree\nfour"
    assert [(event.name, event.data) for event in client.events[-1:]] == [("done", "run completed")]
    assert all(not event.id for event in client.events)
    assert client.heartbeats == 0


@pytest.mark.parametrize(
    ("status", "said"),
    [("completed", "run completed"), ("failed", "run failed"), ("", "run failed")],
)
def test_it_says_how_the_run_ended_also_when_nobody_recorded_it(
    scene: Scene, status: str, said: str
) -> None:
    scene.write("out\n")
    if status:
        scene.end(status)
    else:
        scene.let_go()
    with service_on(scene.root.runs_dir) as service:
        client = connect(service, scene)
        client.read_to_end()
    assert [(event.name, event.data) for event in client.events] == [("", "out\n"), ("done", said)]


def test_all_of_the_file_is_sent_though_nobody_told_that_it_has_grown(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service_on(scene.root.runs_dir) as service:
        monkeypatch.setattr(service.hub, "follow", lambda path: Signal())
        monkeypatch.setattr(service.hub, "leave", lambda path: None)
        client = connect(service, scene)
        client.read()
        scene.write("one\n")
        client.read_until(lambda: client.text == "one\n")
        client.read()  # a comment: all was read
        scene.write("two\n")
        scene.end()
        client.read_to_end()
    assert client.text == "one\ntwo\n"


def test_which_file_is_named_by_name(scene: Scene) -> None:
    names = {
        "stdout": "agent-stdout.txt",
        "stderr": "agent-stderr.txt",
        "prompt": "prompt.md",
        "output.md": "output.md",
        "transcript.md": "transcript.md",
    }
    for file in names.values():
        scene.write(file, file)
    scene.end()
    with service_on(scene.root.runs_dir) as service:
        for name, file in names.items():
            client = connect(service, scene, query=f"name={name}")
            client.read_to_end()
            assert client.text == file
        for name in ("run-info.yaml", "../x", "agent-stdout.txt"):
            with pytest.raises(Refusal, match="unknown file") as refusal:
                connect(service, scene, query=f"name={name}")
            assert refusal.value.status == 404


def test_a_missing_file_is_waited_for_and_a_missing_run_is_not(scene: Scene) -> None:
    with service_on(scene.root.runs_dir) as service:
        client = connect(service, scene, query="name=output.md")
        client.read()
        scene.write("late\n", "output.md")
        client.read_until(lambda: client.text == "late\n")
        client.leave()
        with pytest.raises(Refusal, match="run not found") as refusal:
            connect(service, scene, scene.stream.replace(scene.run_id, "nope"))
        assert refusal.value.status == 404


def test_two_runs_of_one_id_are_told_apart_by_project_and_task(scene: Scene) -> None:
    other = scene.root.run(scene.root.task("other"), name=scene.run_id, task_id="other")
    (other / "transcript.md").write_text("other\n")
    with service_on(scene.root.runs_dir) as service:
        client = connect(service, scene, scene.stream.replace(TASK, "other"), "name=transcript.md")
        client.read_to_end()
        assert client.text == "other\n"
        with pytest.raises(Refusal, match="duplicate") as refusal:
            connect(service, scene, f"/api/v1/runs/{scene.run_id}/transcript/stream")
        assert refusal.value.status == 409
        page = page_of(
            service, f"/api/v1/runs/{scene.run_id}/transcript", "project_id=demo&task_id=other"
        )
        assert page["content"] == "other\n"


def test_a_link_in_the_place_of_a_file_is_an_error(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("not for clients")
    (scene.folder / "agent-stdout.txt").symlink_to(tmp_path / "outside")
    (scene.folder / "transcript.md").symlink_to(tmp_path / "outside")
    os.mkfifo(scene.folder / "agent-stderr.txt")
    with service_on(scene.root.runs_dir) as service:
        for name in ("stdout", "stderr"):
            client = connect(service, scene, query=f"name={name}")
            client.read_to_end()
            assert [event.name for event in client.events] == ["error"]
            assert client.events[0].data.startswith("cannot read the file: ")
        with pytest.raises(Refusal) as refusal:
            ask(service, transcripts.ROUTES, f"/api/v1/runs/{scene.run_id}/transcript")
        assert refusal.value.status == 404


def test_characters_line_ends_and_secrets_survive_any_cut(scene: Scene) -> None:
    """Written byte by byte, a client gets what it would have got of the whole."""
    text = f"ä€😀\r\nprogress 1%\rprogress 2%\r\nkey {SECRET} end\n{KEY}x\xff".encode()
    text = text.replace("\xff".encode(), b"\xff\xfe\n\rlast")
    tail = Tail(str(scene.folder / "agent-stdout.txt"))
    shown = ""
    for at in range(len(text)):
        scene.write(text[at : at + 1])
        shown += tail.take()
        shown += tail.peek() if at % 7 == 0 else ""
    shown += tail.finish()
    assert shown == (
        "ä€😀\nprogress 1%\nprogress 2%\nkey [REDACTED] end\n[REDACTED]\nx\ufffd\ufffd\n\nlast"
    )


def test_words_of_an_unfinished_line_are_shown_and_no_half_of_a_secret(scene: Scene) -> None:
    with service_on(scene.root.runs_dir) as service:
        client = connect(service, scene)
        scene.write(f"password: one two sk-ant-{'a1B2' * 3}")
        client.read_until(lambda: client.text == "password: one two ")
        scene.write(f"{'a1B2' * 5} three Authorization: Bearer ")
        client.read_until(lambda: client.text.endswith("three Authorization: Bearer "))
        scene.write("abcdefgh12345678 x")
        client.read_until(lambda: client.text.endswith("Bearer [REDACTED] "))
        scene.write("\n")
        client.read_until(lambda: client.text.endswith("\n"))
        client.leave()
    expected = "password: one two [REDACTED] three Authorization: Bearer [REDACTED] x\n"
    assert client.text == expected


def test_of_a_large_file_a_client_gets_the_end_unless_it_asks_for_all(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_streams, "MOST_BYTES", 100_000)
    lines = [f"line {i} {'ä' * (i % 50)}\n" for i in range(5000)]
    scene.write("".join(lines[:2500]) + KEY + "".join(lines[2500:]))
    scene.end()
    with service_on(scene.root.runs_dir) as service:
        client = connect(service, scene)
        client.read_to_end()
        first, rest = client.text.split("\n", 1)
        assert first.endswith("bytes left out: this is the end of a large file …")
        assert "".join(lines).endswith(rest)
        assert 100_000 <= len(rest.encode()) < 117_000
        assert len(client.events) > 2, "no piece is larger than 64 KiB"
        whole = connect(service, scene, query="from=start")
        whole.read_to_end()
    assert whole.text == "".join(lines[:2500]) + "[REDACTED]\n" + "".join(lines[2500:])
    assert all(len(event.data.encode()) <= 1.5 * file_tail.PIECE_BYTES for event in whole.events)


def test_the_end_of_a_large_file_begins_with_no_part_of_a_private_key(scene: Scene) -> None:
    scene.write(("x" * 200 + "\n") * 100 + KEY + "y\n" * 10)
    size = (scene.folder / "agent-stdout.txt").stat().st_size
    for most in range(20, 400, 40):
        tail = Tail(str(scene.folder / "agent-stdout.txt"))
        assert tail.begin_near_end(most) > 0
        assert "QUJD" not in tail.take() + tail.finish()
    for offset in range(size - 300, size, 7):
        tail = Tail(str(scene.folder / "agent-stdout.txt"), (offset, 0))
        text = ""
        while piece := tail.take():
            text += piece
        assert "QUJD" not in text + tail.finish()


def test_a_cut_file_is_shown_from_its_beginning_and_a_transcript_goes_on(scene: Scene) -> None:
    for name in ("agent-stdout.txt", "transcript.md"):
        scene.write("first\nsecond\n", name)
    out = Tail(str(scene.folder / "agent-stdout.txt"))
    transcript = Tail(str(scene.folder / "transcript.md"), keeps_place=True)
    assert out.take() == transcript.take() == "first\nsecond\n"
    for name in ("agent-stdout.txt", "transcript.md"):
        os.truncate(scene.folder / name, 0)
        scene.write("first\n", name)
    assert out.take() == "first\n"
    assert transcript.take() == ""
    for name in ("agent-stdout.txt", "transcript.md"):
        scene.write("second\nthird\n", name)
    assert out.take() == "second\nthird\n"
    assert transcript.take() == "third\n"


def test_a_replaced_file_is_shown_from_its_beginning(scene: Scene) -> None:
    scene.write("old")
    tail = Tail(str(scene.folder / "agent-stdout.txt"))
    assert tail.take() == ""
    (scene.folder / "new").write_text("new\n")
    os.replace(scene.folder / "new", scene.folder / "agent-stdout.txt")
    assert tail.take() == "old"
    assert tail.take() == "new\n"


def write_randomly(scene: Scene, chance: random.Random, name: str) -> None:
    word = chance.choice(
        ["x", "ä€", f" {SECRET} ", "a\r\n", "b\n", "c\r", KEY, "d" * 3000, "e " * 90]
    )
    data = word.encode()
    cut = chance.randrange(len(data) + 1)
    scene.write(data[:cut], name)
    scene.write(data[cut:], name)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("is_transcript", [False, True])
def test_reconnecting_at_any_moment_the_pieces_make_up_the_file(
    scene: Scene, seed: int, is_transcript: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_tail, "PIECE_BYTES", 700)
    monkeypatch.setattr(file_streams, "PEEK_SECONDS", 0.002)
    monkeypatch.setattr(file_streams, "END_SECONDS", 0.01)
    chance = random.Random(seed)  # noqa: S311
    name = "transcript.md" if is_transcript else "agent-stdout.txt"
    path = f"/api/v1/runs/{scene.run_id}/transcript/stream" if is_transcript else scene.stream
    shown, last_id = "", ""

    def text_of(client: Client) -> str:
        if not is_transcript:
            return client.text
        return "".join(piece["text"] for piece in client.json("text"))

    for _ in range(3):
        with service_on(scene.root.runs_dir, 0.02) as service:
            for _ in range(20):
                client = connect(service, scene, path, "resume=1", last_id)
                for _ in range(chance.randrange(1, 6)):
                    write_randomly(scene, chance, name)
                    client.read()
                client.read(lambda piece: piece[: chance.randrange(len(piece) + 1)])
                client.leave()
                shown += text_of(client)
                last_id = client.last_id or last_id
    scene.end()
    with service_on(scene.root.runs_dir) as service:
        client = connect(service, scene, path, "resume=1", last_id)
        client.read_to_end()
        shown += text_of(client)
        whole = connect(service, scene, query=f"from=start&name={'transcript.md' * is_transcript}")
        whole.read_to_end()
    assert shown == whole.text
    assert "[REDACTED]" in shown
    assert SECRET not in shown
    assert "QUJD" not in shown


def test_an_id_that_is_no_place_of_the_file_begins_at_its_beginning(scene: Scene) -> None:
    scene.write(f"one {SECRET}\ntwo\n")
    scene.end()
    with service_on(scene.root.runs_dir) as service:
        for last_id in ("nonsense", "20", "999999", "-1", "1+x", "9" * 30):
            client = connect(service, scene, query="resume=1", last_id=last_id)
            client.read_to_end()
            assert client.text == "one [REDACTED]\ntwo\n"
        client = connect(service, scene, query=f"resume=1&last_event_id={len(SECRET) + 5}+2")
        client.read_to_end()
        assert client.text == "o\n"
        client = connect(service, scene, last_id="4")
        client.read_to_end()
        assert client.text.startswith("one"), "who did not ask for ids gets it all"


def test_50_clients_get_the_whole_file(scene: Scene) -> None:
    with service_on(scene.root.runs_dir) as service:
        clients = [connect(service, scene) for _ in range(50)]
        threads = [threading.Thread(target=client.read_to_end) for client in clients]
        for thread in threads:
            thread.start()
        lines = [f"line {i}\n" for i in range(300)]
        for line in lines:
            scene.write(line)
        scene.end()
        for thread in threads:
            thread.join(30)
    assert {client.text for client in clients} == {"".join(lines)}
    assert {client.events[-1].data for client in clients} == {"run completed"}


def test_a_run_that_is_removed_ends_its_stream(scene: Scene) -> None:
    with service_on(scene.root.runs_dir) as service:
        client = connect(service, scene)
        client.read()
        scene.let_go()
        os.rename(scene.folder, scene.root.path / "gone")
        client.read_to_end()
    assert client.events[-1].data == "run removed"


# -- transcripts


def test_a_transcript_comes_in_pages_of_whole_lines(scene: Scene) -> None:
    lines = [f"line {i} ä\n" for i in range(5000)]
    scene.write("".join(lines) + "unfinished", "transcript.md")
    address = f"/api/v1/runs/{scene.run_id}/transcript"
    with service_on(scene.root.runs_dir) as service:
        text, offset = "", 0
        while True:
            page = page_of(service, address, f"offset={offset}&limit=20000")
            assert page["offset"] == offset
            text += page["content"]
            if page["next_offset"] == offset:
                break
            assert len(page["content"].encode()) <= 20_000
            offset = page["next_offset"]
        assert text == "".join(lines)
        assert page["complete"] is False
        end = page_of(service, address, "offset=-100")
        assert text.endswith(end["content"])
        assert 60 < len(end["content"].encode()) <= 100
        stream = connect(service, scene, f"{address}/stream", f"last_event_id={offset}")
        scene.write(" no more\n", "transcript.md")
        stream.read_until(lambda: "".join(p["text"] for p in stream.json("text")).endswith("\n"))
        scene.end()
        stream.read_to_end()
        assert "".join(p["text"] for p in stream.json("text")) == "unfinished no more\n"
        assert stream.events[-1].data == "run completed"
        last = page_of(service, address, f"offset={offset}")
        assert (last["content"], last["complete"]) == ("unfinished no more\n", True)
        assert last["next_offset"] == last["size_bytes"]


def page_of(service: Service, address: str, query: str) -> Any:
    body = ask(service, transcripts.ROUTES, address, query=query).body
    assert isinstance(body, bytes)
    return json.loads(body)


def test_no_page_shows_a_part_of_a_secret(scene: Scene) -> None:
    scene.write(("a" * 200 + "\n") * 100 + KEY + f"and {SECRET}\n" + "b\n" * 10, "transcript.md")
    scene.end()
    size = (scene.folder / "transcript.md").stat().st_size
    with service_on(scene.root.runs_dir) as service:
        for offset in range(size - 350, size + 5, 3):
            page = page_of(service, f"/api/v1/runs/{scene.run_id}/transcript", f"offset={offset}")
            assert "QUJD" not in page["content"]
            assert "a1B2" not in page["content"]


def test_odd_numbers_are_refused_and_a_missing_transcript_is_told(scene: Scene) -> None:
    address = f"/api/v1/runs/{scene.run_id}/transcript"
    with service_on(scene.root.runs_dir) as service:
        with pytest.raises(Refusal, match="file not found") as refusal:
            page_of(service, address, "")
        assert refusal.value.status == 404
        scene.write("x\n", "transcript.md")
        for query in ("offset=x", "limit=1.5", "offset=" + "9" * 40):
            with pytest.raises(Refusal, match="must be a whole number") as refusal:
                page_of(service, address, query)
            assert refusal.value.status == 400
        assert page_of(service, address, "offset=999&limit=-5")["content"] == ""


def test_over_http_a_file_and_a_transcript_are_streamed_to_their_end(scene: Scene) -> None:
    scene.write("out\n")
    scene.write("said\n", "transcript.md")
    with Server(scene.root.path) as server:
        stream = server.stream(scene.stream)
        assert next(stream).data == "out\n"
        transcript = server.stream(f"/api/v1/runs/{scene.run_id}/transcript/stream")
        assert next(transcript).json == {"text": "said\n", "offset": 0, "next_offset": 5}
        scene.end()
        assert [(event.name, event.data) for event in stream] == [("done", "run completed")]
        assert [(event.name, event.data) for event in transcript] == [("done", "run completed")]
        assert server.get(f"/api/v1/runs/{scene.run_id}/transcript").json["content"] == "said\n"
