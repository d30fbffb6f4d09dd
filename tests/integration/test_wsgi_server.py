"""The connections of the server, with a small application behind them."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from lib.api import listeners, wsgi_server
from lib.api.connection import LEAST_BYTES, Connection, Limits
from lib.api.exchange import MAX_BODY, Refusal
from tests.helpers import wait_until

SECONDS = 30.0  # for any single step
QUICK = 0.2  # seconds: a limit that is to be run into
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
STREAM = GET % b"/stream"


class Stream:
    """An event stream that the test feeds."""

    def __init__(self, gone: threading.Event) -> None:
        self.gone = gone
        self.items: list[bytes] = [b": hello\n\n"]
        self.more = threading.Semaphore(1)
        self.is_closed = threading.Event()
        self.pause = threading.Event()

    def feed(self, item: bytes) -> None:
        self.items.append(item)
        self.more.release()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while not self.more.acquire(timeout=0.01):
            if self.gone.is_set() and not self.pause.is_set():
                raise StopIteration
        return self.items.pop(0)

    def close(self) -> None:
        self.is_closed.set()


class Flood:
    """An answer without an end."""

    def __init__(self) -> None:
        self.is_closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    def close(self) -> None:
        self.is_closed.set()


class Place:
    """A server in a thread; what it was asked, and what it said of itself."""

    def __init__(self, host: str = "127.0.0.1", **limits: Any) -> None:
        self.told: list[str] = []
        self.streams: list[Stream] = []
        self.flood = Flood()
        self.environ: dict[str, Any] = {}
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.server = wsgi_server.make_server(host, 0, self.app, Limits(**limits), self.told.append)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.clients: list[socket.socket] = []

    def app(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.environ = environ
        path = environ["PATH_INFO"]
        self.asked.set()
        if path == "/stream":
            start("200 OK", [("Content-Type", "text/event-stream")])
            self.streams.append(Stream(environ["conductor.gone"]))
            return self.streams[-1]
        if path == "/broken":
            raise ValueError("a secret\nin two lines")
        if path == "/none":
            start("204 No Content", [])
            return []
        start("200 OK", [("Content-Type", "text/plain")])
        if path == "/flood":
            return self.flood
        if path == "/half":
            return self.half()
        if path == "/slow":
            self.may_answer.wait(SECONDS)
        return [b"read %d\n" % len(environ["wsgi.input"].read(MAX_BODY + 1))]

    def half(self) -> Iterator[bytes]:
        yield b"half"
        raise ValueError("the other half")

    def connect(self) -> socket.socket:
        client = socket.create_connection((self.server.host, self.server.port), SECONDS)
        self.clients.append(client)
        return client

    def ask(self, *pieces: bytes) -> bytes:
        """The whole answer to what is sent."""
        client = self.connect()
        for piece in pieces:
            client.sendall(piece)
        return read_all(client)

    def open_stream(self) -> tuple[socket.socket, Stream]:
        client = self.connect()
        client.sendall(STREAM)
        assert b": hello\n\n" in read_until(client, b": hello\n\n")
        return client, self.streams[-1]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.may_answer.set()
        for stream in self.streams:
            stream.gone.set()  # the server leaves it to those who feed streams to end them
        self.server.close()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


def read_all(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


def read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = client.recv(1)
        assert piece, data
        data += piece
    return data


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[Place]:
    made = Place(head_seconds=QUICK, body_seconds=QUICK, write_seconds=QUICK, rest_seconds=QUICK)
    yield made
    made.close()


def status(answer: bytes) -> int:
    """The status of a whole answer, which must be a sound one."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    assert b"\r\nConnection: close" in head
    if b"Content-Length: " in head:
        assert int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]) == len(body)
    return int(head.split(b" ")[1])


# -- one request


def test_a_request_is_answered_and_the_connection_ends(place: Place) -> None:
    answer = place.ask(GET % b"/a%2Fb%ff?x=%20")

    assert status(answer) == 200
    assert answer.endswith(b"\r\n\r\nread 0\n")
    environ = place.environ
    assert environ["PATH_INFO"] == "/a/b\xff"
    assert environ["conductor.raw_path"] == "/a%2Fb%ff"
    assert environ["QUERY_STRING"] == "x=%20"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["HTTP_HOST"] == "x"


def test_the_application_sees_nothing_of_the_environment(place: Place) -> None:
    place.ask(GET % b"/")

    assert not set(os.environ) & set(place.environ)


def test_an_answer_without_a_body_says_no_length(place: Place) -> None:
    answer = place.ask(GET % b"/none")

    assert status(answer) == 204
    assert b"Content-Length" not in answer


def test_a_request_may_come_byte_by_byte(place: Place) -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"

    assert place.ask(*[bytes([byte]) for byte in request]).endswith(b"read 5\n")


def test_what_follows_the_body_is_not_taken_for_it(place: Place) -> None:
    answer = place.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok" + GET % b"/x")

    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"read 2\n")


def test_a_client_that_has_ended_its_sending_gets_its_answer(place: Place) -> None:
    client = place.connect()
    client.sendall(GET % b"/slow")
    client.shutdown(socket.SHUT_WR)
    assert place.asked.wait(SECONDS)

    place.may_answer.set()

    assert status(read_all(client)) == 200


def test_ipv6_is_spoken_where_there_is_any() -> None:
    if not listeners.has_ipv6():
        pytest.skip("this machine has no IPv6")
    place = Place("::")
    try:
        with socket.create_connection(("::1", place.server.port), SECONDS) as client:
            client.sendall(GET % b"/")
            assert status(read_all(client)) == 200
            assert place.environ["REMOTE_ADDR"] == "::1"
        with socket.create_connection(("127.0.0.1", place.server.port), SECONDS) as client:
            client.sendall(GET % b"/")
            assert status(read_all(client)) == 200
            assert place.environ["REMOTE_ADDR"] == "127.0.0.1"
    finally:
        place.close()


def test_a_taken_port_is_an_error(place: Place) -> None:
    with pytest.raises(OSError, match="in use") as failed:
        wsgi_server.make_server("127.0.0.1", place.server.port, place.app)
    assert failed.value.errno == errno.EADDRINUSE


# -- bodies


def test_a_client_is_asked_for_the_body_that_it_holds_back(place: Place) -> None:
    client = place.connect()
    client.sendall(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    client.sendall(b"hello")

    assert read_all(client).endswith(b"read 5\n")


def test_who_sends_too_much_before_reading_still_sees_the_answer(place: Place) -> None:
    size = 4 * MAX_BODY

    answer = place.ask(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size
    )

    assert answer.endswith(b"read %d\n" % (MAX_BODY + 1))


def test_a_body_that_nobody_reads_does_not_cost_the_answer(place: Place) -> None:
    answer = place.ask(
        b"GET /none HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n", b"x" * 3000000
    )

    assert status(answer) == 204


def test_a_body_that_ends_early_is_refused(place: Place) -> None:
    client = place.connect()
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhi")
    client.shutdown(socket.SHUT_WR)

    assert status(read_all(client)) == 400
    assert place.told == []


# -- clients that take their time


def trickle(client: socket.socket, piece: bytes) -> bytes:
    """The answer that comes while pieces are sent, each soon after the one before."""
    for _ in range(3000):
        if select.select([client], [], [], QUICK / 20)[0]:
            return read_all(client)
        client.sendall(piece)
    raise AssertionError("it was listened to all the time")


def test_a_head_has_so_long_in_all_and_not_for_each_byte(hasty: Place) -> None:
    client = hasty.connect()
    client.sendall(b"GET / HTTP/1.1\r\nX: ")

    assert status(trickle(client, b"a")) == 408
    assert not hasty.asked.is_set()


def test_a_body_has_so_long_in_all(hasty: Place) -> None:
    client = hasty.connect()
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")

    assert status(trickle(client, b"a")) == 408


def test_a_connection_without_a_request_ends_without_an_answer(hasty: Place) -> None:
    assert read_all(hasty.connect()) == b""


def test_who_takes_nothing_is_dropped(hasty: Place) -> None:
    client = hasty.connect()
    client.sendall(GET % b"/flood")

    assert hasty.flood.is_closed.wait(SECONDS)
    assert hasty.told == []


def test_who_takes_but_a_little_now_and_then_is_dropped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        # Small: else the kernel takes it all, or asks for none for long.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.connect(listener.getsockname())
        accepted, address = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        connection = Connection(accepted, address, Limits(write_seconds=QUICK))
        ended = threading.Event()

        def send() -> None:
            try:
                connection.send(b"x" * (LEAST_BYTES - 1))
            except ConnectionAbortedError:
                ended.set()

        sender = threading.Thread(target=send)
        sender.start()
        while sender.is_alive() and not ended.wait(QUICK / 20):
            assert client.recv(2048), "it is given up, not closed"
        sender.join(SECONDS)

        assert ended.is_set(), "it took all the time that it wanted"
        assert connection.was_stuck
        connection.close()


def test_who_never_stops_sending_is_cut_off(hasty: Place) -> None:
    client = hasty.connect()
    client.sendall(b"GET / HTTP/1.1\n")

    with pytest.raises(OSError, match=r"reset|pipe|abort"):
        client.sendall(b"x" * (64 << 20))


# -- streams


def test_each_item_of_a_stream_goes_out_at_once(place: Place) -> None:
    client, stream = place.open_stream()

    for item in (b"data: 1\n\n", b"data: 2\n\n"):
        stream.feed(item)
        assert read_until(client, b"\n\n") == item


def test_a_stream_learns_at_once_that_its_client_has_gone(place: Place) -> None:
    client, stream = place.open_stream()

    client.close()

    assert stream.is_closed.wait(SECONDS)
    assert stream.gone.is_set()
    assert place.told == []


def test_a_reset_ends_a_stream(place: Place) -> None:
    client, stream = place.open_stream()

    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()

    assert stream.is_closed.wait(SECONDS)


def test_a_client_that_only_listens_keeps_its_stream_until_it_goes(place: Place) -> None:
    client, stream = place.open_stream()

    client.shutdown(socket.SHUT_WR)
    assert read_until(client, b":\n\n") == b":\n\n"  # a comment that tells whether it is there
    stream.feed(b"data: 1\n\n")
    assert read_until(client, b"1\n\n") == b"data: 1\n\n"
    assert not stream.gone.is_set()
    client.close()
    stream.feed(b"data: 2\n\n")

    assert stream.is_closed.wait(SECONDS)


def test_what_a_client_says_into_its_stream_is_not_heard(place: Place) -> None:
    client, stream = place.open_stream()

    client.sendall(b"x" * 100_000)
    stream.feed(b"data: 1\n\n")

    assert read_until(client, b"1\n\n") == b"data: 1\n\n"


def test_a_thousand_streams_that_come_and_go_leave_nothing(place: Place) -> None:
    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    before = descriptors()
    for _ in range(40):
        clients = [place.connect() for _ in range(25)]
        for client in clients:
            client.sendall(STREAM)
        for client in clients:
            read_until(client, b"hello\n\n")
            client.close()
        place.clients.clear()

    wait_until(lambda: not place.server._connections, what="all streams to end")
    wait_until(lambda: descriptors() <= before, what="all sockets to be closed")
    assert all(stream.is_closed.is_set() for stream in place.streams)
    assert len(place.streams) == 1000


# -- too many, and faults


def test_over_the_limit_a_client_is_turned_away_until_there_is_room() -> None:
    place = Place(connections=3, head_seconds=SECONDS)
    try:
        waiting = [place.connect() for _ in range(3)]
        assert status(place.ask(GET % b"/")) == 503
        waiting.pop().close()
        wait_until(lambda: status(place.ask(GET % b"/")) == 200, what="room for one more")
    finally:
        place.close()


def test_streams_whose_clients_have_gone_take_nobody_s_place() -> None:
    place = Place(connections=2)
    try:
        for _ in range(2):
            client, stream = place.open_stream()
            stream.pause.set()  # it is not asked for anything until its next heartbeat
            client.close()
            assert stream.gone.wait(SECONDS)

        assert status(place.ask(GET % b"/")) == 200
    finally:
        for stream in place.streams:
            stream.pause.clear()
        place.close()


class FullOnce:
    """A listening socket when the process has no descriptor left, for a moment."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.is_full = True

    def accept(self) -> tuple[socket.socket, Any]:
        if self.is_full:
            self.is_full = False
            raise OSError(errno.EMFILE, "Too many open files")
        return self.listener.accept()

    def close(self) -> None:
        self.listener.close()


def test_without_a_free_descriptor_it_says_so_and_goes_on(place: Place) -> None:
    listening: dict[int, Any] = place.server._listeners
    for fd in listening:
        listening[fd] = FullOnce(listening[fd])

    assert status(place.ask(GET % b"/")) == 200

    assert place.told == ["OSError: [Errno 24] Too many open files"]


def test_without_a_free_thread_a_client_is_turned_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert status(place.ask(GET % b"/")) == 503

    assert status(place.ask(GET % b"/")) == 200


def test_a_fault_of_the_application_is_told_in_one_line_and_not_to_the_client(place: Place) -> None:
    answers = [place.ask(GET % b"/broken") for _ in range(20)]

    assert {status(answer) for answer in answers} == {500}
    assert b"secret" not in b"".join(answers)
    assert b'{"error":{"code":"INTERNAL"' in answers[0]
    assert len(place.told) < 20  # a flood of faults is no flood of lines
    assert place.told[0].startswith("ValueError: ")


def test_an_answer_that_breaks_off_is_not_mended(place: Place) -> None:
    answer = place.ask(GET % b"/half")

    assert answer.endswith(b"\r\n\r\nhalf")
    assert place.told == ["ValueError: the other half"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x00" * 100, 400),
        (b"GET /\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\n\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET /" + b"a" * 100_000, 414),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1_000_000, 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    ],
)
def test_what_is_no_request_is_refused_and_does_not_reach_the_application(
    place: Place, data: bytes, expected: int
) -> None:
    answer = place.ask(data)

    assert status(answer) == expected
    assert b'{"error":{"code":"' in answer
    assert b"\r\nX-Request-ID: req-" in answer
    assert not place.asked.is_set()
    assert place.told == []


# -- the end


def test_a_request_under_way_is_answered_before_the_server_ends(place: Place) -> None:
    client = place.connect()
    client.sendall(GET % b"/slow")
    assert place.asked.wait(SECONDS)
    place.server.stop()
    place.thread.join(SECONDS)
    with pytest.raises(ConnectionRefusedError):
        place.connect()

    place.may_answer.set()

    assert place.server.close(SECONDS) == 0
    assert status(read_all(client)) == 200


def test_what_does_not_end_is_cut_off(place: Place) -> None:
    client, stream = place.open_stream()

    assert place.server.close(0) == 1

    assert stream.is_closed.wait(SECONDS)
    assert read_all(client) == b""


def test_a_connection_without_a_request_does_not_hold_up_the_end() -> None:
    place = Place(head_seconds=1000)
    try:
        idle = place.connect()
        assert status(place.ask(GET % b"/")) == 200  # so the idle one has been accepted

        assert place.server.close(SECONDS) == 0

        assert read_all(idle) == b""
    finally:
        place.close()


def test_closing_before_serving_or_twice_does_no_harm() -> None:
    place = Place()
    place.close()
    place.close()

    server = wsgi_server.make_server("127.0.0.1", 0, place.app)
    assert server.close() == 0
    server.serve_forever()


def test_a_refusal_of_the_application_itself_is_answered() -> None:
    def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        raise Refusal(409, "not now")

    place = Place()
    place.server.app = app
    try:
        assert status(place.ask(GET % b"/")) == 409
        assert place.told == []
    finally:
        place.close()
