"""What is posted is what is read, whatever stands before, between and behind it."""

from __future__ import annotations

import errno
import os
import random
import time
from pathlib import Path

import pytest

from lib import bus, bus_parse, ids, paths
from lib.errors import UserError
from tests import original_bus

DATA = Path(__file__).parent.parent / "data" / "bus"

BODIES = [
    "hello",
    "",
    "\n",
    "ends with a line\n",
    "\n\n two blank lines around \n\n",
    "a\n---\nb",
    "---",
    "---\n---\n",
    " ---\n   ---\r\n---\r",
    "--- \n----\n- --",
    "title: x\nlist: [1, 2]\n---\nmsg_id: MSG-1\ntype: FACT\n---\nnot a message",
    "msg_id: MSG-20260101-000000-000000001-PID00001-0001\nts: 2026-01-01T00:00:00Z\ntype: FACT",
    "msg_id: x\nbody_bytes: 3",
    "[2026-02-04 23:01:15] FACT: no message of its own",
    "```sh\ncat <<EOF\n---\nEOF\n```",
    "CR LF\r\nlines\r\n",
    "\r",
    "emoji 👩‍💻 日本語 ünï \u2028 \ufeff \x1b[31m \t",
    "@ fence at byte 0: quoted",
    "# Heading\n\n- [ ] item\n",
    "x" * 100_000 + "\n---\n" + "y" * 100_000,
]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("JRUN_PROJECT_ID", "JRUN_TASK_ID", "JRUN_ID", "CONDUCTOR_LOCK_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    return str(tmp_path / "MESSAGE-BUS.md")


def dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same junk in each run


def post(path: str, body: str, **more: str) -> str:
    return bus.append(path, body=body, durable=False, **more)  # type: ignore[arg-type]


def bodies(path: str) -> list[str]:
    return [message.body for message in bus.read(path)]


def write(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


def content(path: str) -> bytes:
    return Path(path).read_bytes()


# -- round trip


def test_every_body_comes_back_byte_for_byte_and_in_order(path: str) -> None:
    posted = [post(path, body) for body in BODIES]
    messages = list(bus.read(path))
    assert [m.body for m in messages] == BODIES
    assert [m.msg_id for m in messages] == posted == sorted(posted)


def test_a_reader_that_goes_by_the_delimiters_stays_in_step(path: str) -> None:
    posted = [post(path, body, type_="FACT") for body in BODIES]
    found = original_bus.read(content(path))
    assert [(msg_id, kind) for msg_id, kind, _ in found] == [(msg_id, "FACT") for msg_id in posted]
    for (_, _, seen), body in zip(found, BODIES, strict=True):
        stuffed = bus_parse.stuff(body.encode()).decode()
        assert seen in (stuffed, stuffed + "\n")


def test_all_fields_of_a_message_come_back(path: str) -> None:
    first = post(path, "question", type_="QUESTION")
    bus.append(
        path,
        type_="an odd: type #1",
        body="answer",
        project="p",
        task='quo"te\n',
        run="yes",
        parents=[first, {"msg_id": "MSG-2", "kind": "reply", "meta": {"a": "b"}}],
        meta={"z": "ü — {x}: y\n", "a": ""},
        durable=False,
    )
    message = list(bus.read(path))[-1]
    assert message.type == "an odd: type #1"
    assert (message.project_id, message.task_id, message.run_id) == ("p", 'quo"te\n', "yes")
    assert message.parents == [
        {"msg_id": first},
        {"msg_id": "MSG-2", "kind": "reply", "meta": {"a": "b"}},
    ]
    assert message.meta == {"z": "ü — {x}: y\n", "a": ""}
    assert ids.parse_rfc3339(message.ts) is not None
    assert content(path)[message.offset : message.end].startswith(b"---\nmsg_id: ")
    assert list(message.as_dict())[-1] == "body"


def test_nul_and_lone_surrogates_become_replacement_characters(path: str) -> None:
    post(path, "a\0b\udc80c")
    assert bodies(path) == ["a\ufffdb\ufffdc"]


def test_secrets_are_taken_out_of_body_and_meta(path: str) -> None:
    environ = {"MY_TOKEN": "words-of-mine"}
    bus.append(path, body="x words-of-mine", meta={"k": "words-of-mine"}, environ=environ)
    assert b"words-of-mine" not in content(path)
    message = next(bus.read(path))
    assert (message.body, message.meta) == ("x [REDACTED]", {"k": "[REDACTED]"})


def test_ids_come_from_the_run_else_from_the_place_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "My Root" / "demo" / "t1"
    folder.mkdir(parents=True)
    for name, expected in (
        (folder / "TASK-MESSAGE-BUS.md", ("demo", "t1", "")),
        (folder.parent / "PROJECT-MESSAGE-BUS.md", ("demo", "", "")),
        (folder.parent.parent / "MESSAGE-BUS.md", ("my-root", "", "")),
    ):
        bus.append(str(name), body="x", durable=False, environ={})
        inside = {"JRUN_PROJECT_ID": "p", "JRUN_TASK_ID": "t", "JRUN_ID": "r"}
        bus.append(str(name), body="y", durable=False, environ=inside)
        bus.append(str(name), body="z", task="", durable=False, environ=inside)
        got = [(m.project_id, m.task_id, m.run_id) for m in bus.read(str(name))]
        assert got == [expected, ("p", "t", "r"), ("p", "", "r")]


def test_a_new_file_has_a_heading_and_mode_0644(path: str) -> None:
    mask = os.umask(0o022)
    try:
        post(path, "x")
    finally:
        os.umask(mask)
    assert os.stat(path).st_mode & 0o777 == 0o644
    assert content(path).startswith(b"# Message bus\n")


def test_ids_go_on_rising_when_the_clock_steps_back(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = post(path, "now")
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    later = [post(path, str(n)) for n in range(3)]
    assert sorted([first, *later]) == [first, *later]
    assert list(bus.read(path))[-1].ts.startswith("2023-11-14T22:13:20")


# -- refusals


def test_an_empty_type_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="type"):
        post(path, "x", type_=" ")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no folder.*{tmp_path}/none"):
        post(str(tmp_path / "none" / "MESSAGE-BUS.md"), "x")


@pytest.mark.parametrize("kind", ["symlink", "dangling", "folder", "fifo"])
def test_what_is_no_regular_file_is_refused(path: str, tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        target = tmp_path / "elsewhere"
        if kind == "symlink":
            target.write_text("untouched\n")
        os.symlink(target, path)
    with pytest.raises(UserError, match=r"symbolic link|regular file"):
        post(path, "x")
    with pytest.raises(UserError, match=r"symbolic link|regular file"):
        list(bus.read(path))
    if kind == "symlink":
        assert (tmp_path / "elsewhere").read_text() == "untouched\n"
    if kind == "dangling":
        assert not (tmp_path / "elsewhere").exists()


def test_a_wrong_lock_timeout_is_named(path: str) -> None:
    with pytest.raises(UserError, match="CONDUCTOR_LOCK_TIMEOUT"):
        bus.append(path, body="x", environ={"CONDUCTOR_LOCK_TIMEOUT": "soon"})


def test_a_short_write_leaves_the_file_as_it_was(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(path, "kept")
    before = content(path)
    real, calls = os.write, []

    def full_disk(fd: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(UserError, match="No space left"):
        post(path, "lost" * 100)
    monkeypatch.undo()
    assert len(calls) == 2
    assert content(path) == before
    post(path, "next")
    assert bodies(path) == ["kept", "next"]


# -- torn and damaged


def record_of(body: str, path: str) -> bytes:
    """The bytes that one append adds to a file which already holds a message."""
    before = len(content(path))
    post(path, body)
    return content(path)[before:]


@pytest.mark.parametrize(
    "body", ["torn body\nof two lines\n", "x\n---\ny", "msg_id: fake\nts: 1\ntype: F\n", ""]
)
@pytest.mark.parametrize("neighbour", ["ours", "foreign", "legacy"])
def test_a_record_torn_anywhere_hides_nothing_and_is_never_merged(
    path: str, body: str, neighbour: str
) -> None:
    before = {
        "ours": b"",
        "foreign": (DATA / "foreign-task.md").read_bytes(),
        "legacy": b"# Log\n[2026-01-01 00:00:00] FACT: old\n",
    }[neighbour]
    write(path, before)
    if neighbour != "foreign":
        post(path, "first")
    older = [(m.msg_id, m.body) for m in bus.read(path)]
    base = content(path)
    record = record_of(body, path)
    for cut in range(len(record)):
        write(path, base + record[:cut])
        new_id = post(path, "the next one", type_="DECISION")
        torn: list[int] = []
        messages = [(m.msg_id, m.body) for m in bus.read(path, torn=torn)]
        whole = cut == len(record) - 1  # only the framing newline is missing: nothing is lost
        if neighbour == "foreign" and cut == 1:  # a line more, and nobody can tell whose it is
            messages[-2] = (messages[-2][0], messages[-2][1][:-1])
        if whole:
            assert messages.pop(-2)[1] == body
        assert messages == [*older, (new_id, "the next one")], cut
        assert len(torn) == (0 if cut < 2 or whole else 1), cut
        assert bus.last(path, 1)[0].msg_id == new_id
        assert (new_id, "DECISION", "the next one") in original_bus.read(content(path)), cut
        assert bus.last(path, 2)[-1].body == "the next one"


def test_a_torn_record_at_the_end_is_silently_not_there_yet(path: str) -> None:
    post(path, "whole")
    base = content(path)
    record = record_of("in the making", path)
    for cut in range(len(record) - 1):
        write(path, base + record[:cut])
        torn: list[int] = []
        assert [m.body for m in bus.read(path, torn=torn)] == ["whole"], cut
        assert torn == []


def test_a_torn_record_before_a_marker_of_another_writer_is_skipped_and_reported(
    path: str,
) -> None:
    post(path, "first")
    base = content(path)
    record = record_of("torn body of some length", path)
    foreign = b"\n" + (DATA / "foreign-project.md").read_bytes()
    expected = [m.msg_id for m in bus.read(str(DATA / "foreign-project.md"))]
    for cut in range(6, len(record) - 2):
        write(path, base + record[:cut] + b"\n" + foreign)
        torn: list[int] = []
        found = [m.msg_id for m in bus.read(path, torn=torn)]
        assert found[1:] == expected, cut
        assert len(torn) <= 1


@pytest.mark.parametrize("seed", range(60))
def test_a_tail_of_random_bytes_hides_no_message(path: str, seed: int) -> None:
    chance = dice(seed)
    posted = [post(path, "one"), post(path, "two\n---\n")]
    junk = chance.randbytes(chance.randrange(8, 600))
    with open(path, "ab") as file:
        file.write(junk)
    assert [m.msg_id for m in bus.read(path)] == posted
    assert bodies(path) == ["one", "two\n---\n"]
    posted.append(post(path, "three"))
    assert [m.msg_id for m in bus.read(path)] == posted
    assert bodies(path) == ["one", "two\n---\n", "three"]
    assert posted[-1] in [msg_id for msg_id, _, _ in original_bus.read(content(path))]


@pytest.mark.parametrize(
    "tail", ["a", "a\nb", "-", "--", "---", "\n---", "---\n", "msg_id:", "[", "@"]
)
def test_a_tail_of_a_few_characters_hides_no_message(path: str, tail: str) -> None:
    posted = [post(path, "one"), post(path, "two")]
    with open(path, "a") as file:
        file.write(tail)
    assert [m.msg_id for m in bus.read(path)] == posted
    posted.append(post(path, "three"))
    assert [m.msg_id for m in bus.read(path)] == posted
    assert posted[-1] in [m[0] for m in original_bus.read(content(path))]


@pytest.mark.parametrize("seed", range(20))
def test_a_tail_of_random_bytes_hides_no_foreign_message(path: str, seed: int) -> None:
    data = (DATA / "foreign-task.md").read_bytes()
    write(path, data)
    expected = [m.msg_id for m in bus.read(path)]
    write(path, data + dice(seed).randbytes(300))
    assert [m.msg_id for m in bus.read(path)] == expected


@pytest.mark.parametrize(
    "tail", ["---\n", "---\nNote: a mapping\n", "---\nNote: no end", "---\n\n"]
)
def test_a_rule_in_free_text_costs_no_reader_the_next_message(path: str, tail: str) -> None:
    write(path, f"# Notes\n\n{tail}".encode())
    posted = [post(path, "one", type_="FACT"), post(path, "two", type_="FACT")]
    assert [m.msg_id for m in bus.read(path)] == posted
    assert [m[0] for m in original_bus.read(content(path))] == posted


def test_a_body_that_quotes_a_fence_is_a_body(path: str) -> None:
    post(path, "first")
    end = len(content(path))
    quoted = f"x\n@ fence at byte {end + 170}: quoted"
    post(path, quoted)
    post(path, "last")
    assert bodies(path) == ["first", quoted, "last"]


def test_a_hand_edited_body_is_read_by_its_delimiters(path: str) -> None:
    for body in ("one", "two", "three"):
        post(path, body)
    write(path, content(path).replace(b"\ntwo\n", b"\ntwo, and more\nby hand\n"))
    assert bodies(path) == ["one", "two, and more\nby hand", "three"]
    write(path, content(path).replace(b"\nthree\n", b"\nthree, and more\n"))
    assert bodies(path) == ["one", "two, and more\nby hand", "three, and more"]


def test_text_between_our_messages_is_free_and_one_line_messages_count(path: str) -> None:
    post(path, "one")
    with open(path, "a") as file:
        file.write("\n# A heading\n\n---\n\n[2026-02-04 23:01:15] FACT: by echo\nnothing\n")
    post(path, "two")
    with open(path, "a") as file:
        file.write("[2026-02-04 23:01:16] straight behind\n")
    post(path, "three")
    assert bodies(path) == ["one", "by echo", "two", "straight behind", "three"]
    assert [m.type for m in bus.read(path)] == ["INFO", "FACT", "INFO", "INFO", "INFO"]
    assert [m.body for m in bus.last(path, 4)] == bodies(path)[1:]
    assert "three" in [body for _, _, body in original_bus.read(content(path))]


# -- foreign files


def test_files_of_the_original_are_read_without_loss() -> None:
    for name in ("foreign-project.md", "foreign-task.md"):
        data = (DATA / name).read_bytes()
        expected = original_bus.read(data)
        found = list(bus.read(str(DATA / name)))
        assert [(m.msg_id, m.type) for m in found] == [(i, t) for i, t, _ in expected]
        for message, (_, _, body) in zip(found, expected, strict=True):
            assert body in (message.body, message.body + "\n")
    fact = next(bus.read(str(DATA / "foreign-project.md")))
    assert fact.parents == [
        {"msg_id": "MSG-20261122-194833-405127660-PID17920-0003", "kind": "source_run_event"}
    ]
    assert [link["kind"] for link in fact.links] == ["task_bus", "task_done", "run_info", "output"]
    assert fact.meta["completed_run_count"] == "1"


def test_a_file_in_the_manner_of_the_shell_original_is_read_without_loss() -> None:
    everything = list(bus.read(str(DATA / "shell-style.md")))
    assert [m.msg_id for m in everything[:3]] == [
        f"LEGACY-BYTE-{m.offset:012d}" for m in everything[:3]
    ]
    found = [
        (m.msg_id if m.msg_id[0] == "M" else "LEGACY", m.ts[:19], m.type, m.body)
        for m in everything
    ]
    assert found == [
        ("LEGACY", "2026-02-04T23:01:15", "FACT", "stage 0 started"),
        ("LEGACY", "2026-02-04T23:02:15", "INFO", "plain words without a type"),
        ("LEGACY", "2026-02-04T23:03:15", "PROGRESS", "2 of 4 tasks"),
        (
            "MSG-20260204-230415-000000001-PID00042-0001", "2026-02-04T23:04:15", "DECISION",
            "first line\n\n[2026-02-04 23:05:15] FACT: part of the body above, since its length"
            " is unknown",
        ),
        ("MSG-20260204-230615-000000001-PID00042-0002", "2026-02-04T23:06:15", "FACT", "done"),
    ]  # fmt: skip


def test_one_line_messages_before_the_first_marker_go_by_line_number(path: str) -> None:
    write(
        path,
        b"# x\n\n[2026-02-04 23:01:15] A: b\n[no time] x\n[2026-02-04 23:01:16] a b: c\n"
        b"[2026-02-04 23:01:17] FACT:\n[2026-02-04 23:01:18]\n[2026-02-04T23:01:19+01:00] x/Y-z_1: w\n",
    )
    assert [(m.msg_id[-3:], m.type, m.body, m.ts[11:19]) for m in bus.read(path)] == [
        ("003", "A", "b", "23:01:15"),
        ("005", "INFO", "a b: c", "23:01:16"),
        ("006", "FACT", "FACT:", "23:01:17"),
        ("008", "X/Y-Z_1", "w", "22:01:19"),
    ]


def test_an_unescaped_rule_in_a_foreign_body_costs_no_other_message(path: str) -> None:
    entry = (
        "---\nmsg_id: MSG-{0}\nts: 2026-02-04T23:04:15Z\ntype: FACT\nproject_id: p\n"
        'task_id: ""\nrun_id: ""\n---\n{1}\n'
    )
    for middle in ("a\n---\nplain tail", "x\n---\nk: v", "ends with\n---", 'x\n---\nmsg_id: ""'):
        data = [entry.format(n, body) for n, body in ((1, "one"), (2, middle), (3, "three"))]
        write(path, "\n".join(data).encode())
        assert [m.msg_id for m in bus.read(path)] == ["MSG-1", "MSG-2", "MSG-3"], middle
        assert bodies(path)[2] == "three"


def test_odd_headers_are_read_or_skipped(path: str) -> None:
    head = "---\nmsg_id: M{}\nts: 2026-02-04T23:04:15Z\ntype: FACT\nproject_id: p\n"
    write(
        path,
        (
            head.format(1) + "meta: {a: 1, b: true}\nparents: [A, '', B]\nunknown: [1]\n---\nx\n\n"
            + head.format(2) + "meta: {a: [1]}\n---\nx\n\n"
            + head.format(3) + "parents:\n  - {msg_id: C, kind: reply}\n  - {msg_id: ''}\n---\nx\n\n"
            + head.format(4) + "type: twice\n---\nx\n\n"
            + head.replace("M{}", '""') + "---\nx\n\n"
            + head.format(5) + "run_id: null\n---\nx\n"
        ).encode(),
    )  # fmt: skip
    found = {m.msg_id: m for m in bus.read(path)}
    assert list(found) == ["M1", "M3", "M5"]
    assert found["M1"].meta == {"a": "1", "b": "true"}
    assert found["M1"].parents == [{"msg_id": "A"}, {"msg_id": "B"}]
    assert found["M3"].parents == [{"msg_id": "C", "kind": "reply"}]
    assert found["M5"].run_id == ""


# -- reading a part


def adversarial(chance: random.Random) -> bytes:
    """Whole, foreign, torn and faked records and junk, in any order."""

    def ours(body: bytes, count: int | None = None) -> bytes:
        stuffed = bus_parse.stuff(body)
        size = len(stuffed) if count is None else count
        return (
            b"\n---\nmsg_id: MSG-20260101-000000-%09d-PID00001-0001\nts: 2026-01-01T00:00:00Z\n"
            b'type: FACT\nproject_id: p\ntask_id: ""\nrun_id: ""\nbody_bytes: %d\n---\n%s\n'
            % (chance.randrange(10**9), size, stuffed)
        )

    pieces = [b"# head\n"] if chance.random() < 0.5 else []
    for _ in range(chance.randrange(1, 14)):
        body = chance.choice(
            [
                b"", b"msg_id: x\nts: y\ntype: z\n", ours(b"fake")[1:], ours(b"fake")[5:],
                b"[2026-01-01 00:00:00] X: y\nz", b"text\n---\nmore\n",
                chance.randbytes(chance.randrange(30)), b"plain " * chance.randrange(30),
            ]
        )  # fmt: skip
        kind = chance.randrange(7)
        record = ours(body)
        if kind == 0:
            record = record.replace(b"body_bytes: %d\n" % len(bus_parse.stuff(body)), b"")
        elif kind == 1:
            record = record[: chance.randrange(len(record))] + chance.choice([b"", b"\n"])
        elif kind == 2:
            record = body
        elif kind == 3:
            record = ours(body, max(0, len(body) + chance.randrange(-3, 40)))
        pieces.append(record)
    return b"".join(pieces)


def fields(messages: list[bus_parse.Message]) -> list[tuple[object, ...]]:
    return [(m.msg_id, m.type, m.body, m.offset, m.end) for m in messages]


@pytest.mark.parametrize("seed", range(300))
def test_reading_from_the_end_or_in_pieces_gives_what_reading_all_gives(
    path: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "FIRST_WINDOW", 64)
    chance = dice(seed)
    data = adversarial(chance)
    write(path, data)
    everything = fields(list(bus.read(path)))
    for n in range(len(everything) + 2):
        assert fields(bus.last(path, n)) == (everything[-n:] if n else [])
    parser, found = bus_parse.Parser(), []
    position = 0
    while position < len(data):
        step = chance.randrange(1, 60)
        found += parser.feed(data[position : position + step], at_end=False)
        position += step
    found += parser.feed(b"", at_end=True)
    assert fields(found) == everything


def test_reading_goes_on_from_the_offset_and_the_end_of_a_message(path: str) -> None:
    for n in range(4):
        post(path, f"{n}\n---\n")
    second = list(bus.read(path))[1]
    assert [m.body[0] for m in bus.read(path, second.offset)] == ["1", "2", "3"]
    assert [m.body[0] for m in bus.read(path, second.end)] == ["2", "3"]


def test_the_last_messages_of_a_long_file_cost_a_short_read(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(2000):
        post(path, f"message {n}")
    read: list[int] = []
    real = os.pread

    def counting(fd: int, count: int, position: int) -> bytes:
        read.append(count)
        return real(fd, count, position)

    monkeypatch.setattr(os, "pread", counting)
    assert [m.body for m in bus.last(path, 3)] == [f"message {n}" for n in (1997, 1998, 1999)]
    assert sum(read) < 100_000 < os.path.getsize(path)


def test_since_gives_what_follows_and_refuses_an_unknown_id(path: str) -> None:
    posted = [post(path, str(n)) for n in range(5)]
    assert [m.msg_id for m in bus.since(path, posted[2])] == posted[3:]
    assert bus.since(path, posted[4]) == []
    with pytest.raises(UserError, match="no message MSG-none"):
        bus.since(path, "MSG-none")


def test_a_missing_file_is_an_empty_bus(path: str) -> None:
    assert list(bus.read(path)) == bus.last(path, 5) == []


# -- following


def test_a_follower_gives_each_message_once_and_never_a_half(path: str) -> None:
    follower = bus.Follower(path)
    assert follower.poll() == []
    post(path, "one")
    base = content(path)
    record = record_of("two\n---\n", path)
    write(path, base)
    assert [m.body for m in follower.poll()] == ["one"]
    for cut in range(1, len(record)):
        write(path, base + record[:cut])
        assert follower.poll() == []
    write(path, base + record)
    assert [m.body for m in follower.poll()] == ["two\n---\n"]
    assert follower.poll() == []
    follower.close()


def test_a_follower_begins_behind_what_is_there_or_where_it_is_told(path: str) -> None:
    post(path, "old")
    new, everything, recent = bus.Follower(path), bus.Follower(path, 0), bus.Follower(path, 0)
    assert [m.body for m in recent.recent(lambda found: len(found) >= 1)] == ["old"]
    post(path, "new")
    assert [m.body for m in new.poll()] == ["new"]
    assert [m.body for m in everything.poll()] == ["old", "new"]
    assert [m.body for m in recent.poll()] == ["new"]
    for follower in (new, everything, recent):
        follower.close()


def test_a_follower_survives_rotation_truncation_and_a_write_taken_back(path: str) -> None:
    follower = bus.Follower(path)
    post(path, "a")
    os.rename(path, path + ".archived")
    assert [m.body for m in follower.poll()] == []  # never seen by it: it was not opened yet
    os.rename(path + ".archived", path)
    assert [m.body for m in follower.poll()] == ["a"]
    post(path, "b")
    os.rename(path, path + ".archived")
    post(path, "c")
    assert [m.body for m in follower.poll()] == ["b", "c"]
    base = content(path)
    write(path, base + b"\n---\nmsg_id: MSG-half\nts: 2026")
    assert follower.poll() == []
    os.truncate(path, len(base))
    assert follower.poll() == []
    post(path, "d")
    assert [m.body for m in follower.poll()] == ["d"]
    os.truncate(path, 0)
    assert follower.poll() == []
    post(path, "e")
    assert [m.body for m in follower.poll()] == ["e"]
    follower.close()


def test_a_follower_collects_a_torn_record_once(path: str) -> None:
    follower = bus.Follower(path)
    post(path, "a")
    record = record_of("b" * 50, path)
    os.truncate(path, os.path.getsize(path) - 20)
    assert len(follower.poll()) == 1
    assert follower.torn == []
    post(path, "c")
    assert [m.body for m in follower.poll()] == ["c"]
    assert follower.poll() == []
    assert len(follower.torn) == 1
    assert record
    follower.close()


def test_the_page_that_explains_the_format_is_an_empty_bus() -> None:
    page = Path(paths.TOOLKIT) / "MESSAGE-BUS.md"
    explained = page.read_bytes().partition(b"\n## Messages\n")[0]
    parser = bus_parse.Parser()
    assert parser.feed(explained + b"\n", at_end=True) == []
    assert not parser.pending
    assert not parser.loose
