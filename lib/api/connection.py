"""One connection of the server: reading with a deadline, writing to those who take it."""

from __future__ import annotations

import io
import os
import select
import socket
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from lib.api import http_head
from lib.api.exchange import Refusal
from lib.api.http_head import Head

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RECEIVE_BYTES = 64 * 1024
REST_BYTES = 8 << 20  # of a body that nobody wants; is read so that its sender sees the answer
LEAST_BYTES = (
    256 << 10
)  # taken in `write_seconds`: a byte now and then would hold a thread for ever
_SSE_COMMENT = b":\n\n"  # means nothing to a reader of an event stream
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 90_000}


class Limits:
    """What a client may take; seconds are the total of the step, not of each of its parts."""

    def __init__(
        self,
        *,
        head_seconds: float = 10.0,
        body_seconds: float = 30.0,
        write_seconds: float = 30.0,  # for a piece, and for each LEAST_BYTES of a large one more
        rest_seconds: float = 2.0,
        connections: int = 1024,
    ) -> None:
        self.head_seconds = head_seconds
        self.body_seconds = body_seconds
        self.write_seconds = write_seconds
        self.rest_seconds = rest_seconds
        self.connections = connections


class Connection:
    """A connected client.  It belongs to one thread, but for `lose` and `probe`.

    `gone` is set as soon as the client is known to have left; `was_stuck`: it took nothing more.
    """

    def __init__(self, client: socket.socket, address: tuple[object, ...], limits: Limits) -> None:
        self._socket = client
        self._limits = limits
        self._sending = threading.Lock()
        self._unread = 0  # bytes of the body that have not been read
        self._rest = b""  # what came with the head
        self.remote = str(address[0]).removeprefix("::ffff:")
        self.gone = threading.Event()
        self.was_stuck = False
        self.has_request = False
        _prepare(client)

    def fileno(self) -> int:
        return self._socket.fileno()

    # -- reading

    def read_head(self) -> Head | None:
        """The head of the request; None when nothing at all came, Refusal for a bad or slow one."""
        deadline = time.monotonic() + self._limits.head_seconds
        data = bytearray()
        end = 0
        while not end:
            try:
                piece = self._receive(RECEIVE_BYTES, deadline)
            except TimeoutError:
                if not data:
                    return None  # browsers connect in advance
                raise Refusal(408, "the request did not arrive in time") from None
            if not piece:
                if not data:
                    return None
                raise Refusal(400, "malformed request: it ended early")
            checked = len(data)
            data += piece
            end = http_head.find_end(data, checked)
        self.has_request = True
        head = http_head.parse(bytes(data[:end]))
        self._rest = bytes(data[end:])
        self._unread = head.body_bytes
        return head

    def body(self, head: Head) -> io.BufferedReader:
        """The body as a file that ends where it ends; reading it raises Refusal if it does not come."""
        is_awaited = "expect" in head.headers and head.version != "HTTP/1.0"
        return io.BufferedReader(_Body(self, is_awaited and not self._rest))

    def read_body(self, size: int, deadline: float) -> bytes:
        size = min(size, self._unread)
        if not size:
            return b""
        if self._rest:
            piece, self._rest = self._rest[:size], self._rest[size:]
        else:
            piece = self._receive_body(size, deadline)
        self._unread -= len(piece)
        return piece

    def _receive_body(self, size: int, deadline: float) -> bytes:
        try:
            piece = self._receive(size, deadline)
        except TimeoutError:
            raise Refusal(408, "the body did not arrive in time") from None
        except OSError:
            self.gone.set()
            piece = b""
        if not piece:
            raise Refusal(400, "malformed request: its body ended early")
        return piece

    def ask_for_body(self) -> None:
        try:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        except OSError:
            pass  # reading the body says it

    def body_deadline(self) -> float:
        return time.monotonic() + self._limits.body_seconds

    def _receive(self, size: int, deadline: float) -> bytes:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self._socket.settimeout(seconds)
        return self._socket.recv(size)

    # -- writing

    def send(self, data: bytes) -> None:
        """Hand all of `data` to the client; ConnectionAbortedError when it takes too little of it."""
        view = memoryview(data)
        deadline = time.monotonic() + self._limits.write_seconds * (1 + len(data) // LEAST_BYTES)
        try:
            with self._sending:
                view = view[self._send_at_once(view) :]
                while view:
                    self._socket.settimeout(self._seconds_to_take(deadline))
                    view = view[self._socket.send(view) :]
        except OSError as error:  # a reset, or a timeout
            self.was_stuck = isinstance(error, TimeoutError)
            self.gone.set()
            raise ConnectionAbortedError from None

    def _seconds_to_take(self, deadline: float) -> float:
        seconds = min(self._limits.write_seconds, deadline - time.monotonic())
        if seconds <= 0:
            raise TimeoutError
        return seconds

    def _send_at_once(self, view: memoryview) -> int:
        """How much the system takes without waiting: most often all, by a single call."""
        try:
            return os.write(self._socket.fileno(), view)  # has O_NONBLOCK, from `_prepare` on
        except BlockingIOError:
            return 0

    def refuse(self, answer: bytes) -> None:
        """Send the answer to a request that is not heard to its end."""
        self._unread = max(self._unread, 1)
        self.send(answer)

    def probe(self) -> None:
        """Find out whether a client that sends nothing more still listens to its event stream.

        To a closed socket as to one that is shut for sending alone, a FIN is all that
        comes from it.  What comes back to a byte tells them apart: nothing, or a reset.
        Called by another thread: a stream that is just sending finds out by itself.
        """
        if not self._sending.acquire(blocking=False):
            return
        try:
            os.write(self._socket.fileno(), _SSE_COMMENT)  # has O_NONBLOCK: its timeouts need it
        except BlockingIOError:
            pass  # full of what the client has not read: the timeout of the next item tells
        except OSError:
            self.lose()
        finally:
            self._sending.release()

    def hear(self) -> bool:
        """Throw away what a client sends into its answer; whether it may send more."""
        try:
            # recv would wait as long as the timeout of the socket says.
            return bool(os.read(self._socket.fileno(), RECEIVE_BYTES))
        except BlockingIOError:
            return True
        except OSError:
            self.lose()
            return False

    # -- ending

    def lose(self) -> None:
        """Give the client up: who writes to it gets an error, at once."""
        self.gone.set()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has been closed by its other end

    def finish(self) -> None:
        """Let the client see that this was all.

        Closing with bytes unread would send a reset, which can overtake the answer:
        they are read first, as long as their sender is quick and they are not many.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
            if self._unread and not self.gone.is_set():
                self._read_rest()
        except OSError:
            pass  # it has gone, in whatever way

    def _read_rest(self) -> None:
        deadline = time.monotonic() + self._limits.rest_seconds
        left = REST_BYTES
        while left > 0:
            piece = self._receive(RECEIVE_BYTES, deadline)
            if not piece:
                return
            left -= len(piece)

    def close(self) -> None:
        self.gone.set()
        self._socket.close()


class _Body(io.RawIOBase):
    """What is read of a connection's body."""

    def __init__(self, connection: Connection, is_awaited: bool) -> None:
        self._connection = connection
        self._is_awaited = is_awaited  # its sender waits to be asked for it
        self._deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        if self._is_awaited:
            self._is_awaited = False
            self._connection.ask_for_body()
        self._deadline = self._deadline or self._connection.body_deadline()
        piece = self._connection.read_body(len(view), self._deadline)
        view[: len(piece)] = piece
        return len(piece)


def _prepare(client: socket.socket) -> None:
    client.setblocking(False)  # each step sets a timeout of its own
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)  # macOS has other names for some
        if option is not None:
            client.setsockopt(socket.IPPROTO_TCP, option, value)


def refusal_bytes(refusal: Refusal) -> bytes:
    """A whole answer for those that no application hears of."""
    answer = refusal.answer()
    body = answer.body
    assert isinstance(body, bytes)
    headers = {
        **answer.headers,
        "X-Content-Type-Options": "nosniff",
        "X-Request-ID": f"req-{time.time_ns()}-{os.urandom(6).hex()}",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Watch:
    """Notices the clients of event streams that leave while nothing is said to them.

    Not safe for threads: it belongs to the one that polls.
    """

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._by_fd: dict[int, Connection] = {}

    def add(self, connection: Connection) -> None:
        self._by_fd[connection.fileno()] = connection
        self._poll.register(connection.fileno(), select.POLLIN)

    def remove(self, connection: Connection) -> None:
        if self._by_fd.pop(connection.fileno(), None) is not None:
            self._poll.unregister(connection.fileno())

    def look(self, fd: int, events: int) -> None:
        """Take in what poll said of a client."""
        connection = self._by_fd.get(fd)
        if connection is None:
            return
        if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
            self.remove(connection)
            connection.lose()
        elif not connection.hear():
            self._poll.modify(fd, 0)  # an end of input stays readable; a reset is told all the same
            connection.probe()
