"""A WSGI server for the open world: a thread for each connection, and a limit to everything.

Each connection carries one request.  What a stream of events yields goes out at
once; a client that takes nothing, or that has gone, ends it.  The application
finds `conductor.raw_path` (the path with its escapes) and `conductor.gone` (an
Event: the client has left) in its environ.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING
from wsgiref.handlers import SimpleHandler

from lib.api import console, listeners
from lib.api.connection import Connection, Limits, Watch, refusal_bytes
from lib.api.exchange import Refusal
from lib.api.http_head import Head

if TYPE_CHECKING:
    from wsgiref.headers import Headers
    from wsgiref.types import WSGIApplication

ACCEPTED_AT_ONCE = 64
FULL_SECONDS = 0.1  # without a free descriptor
TELL_SECONDS = 1.0  # at most one line in so many
_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BUSY = refusal_bytes(Refusal(503, "too many connections; try again"))
_BROKEN = refusal_bytes(Refusal(500, "internal error"))


def make_server(
    host: str,
    port: int,
    app: WSGIApplication,
    limits: Limits | None = None,
    tell: Callable[[str], None] | None = None,
) -> WsgiServer:
    """A server that listens at all addresses of `host`; OSError when one of them cannot be had.

    Port 0 takes a free one.  "" and "::" are every address, of IPv4 too.  `tell`
    is given a line for what goes wrong; without it they go to stderr.
    """
    return WsgiServer(listeners.listen(host, port), app, limits or Limits(), tell or console.tell)


class WsgiServer:
    """Listening from the start; `serve_forever` answers until `stop` or `close`."""

    def __init__(
        self,
        listening: list[socket.socket],
        app: WSGIApplication,
        limits: Limits,
        tell: Callable[[str], None],
    ) -> None:
        self.app = app
        self.limits = limits
        self.host, self.port = listening[0].getsockname()[:2]
        self._listeners = {listener.fileno(): listener for listener in listening}
        self._most = min(limits.connections, listeners.affordable_connections())
        self._tell_line = tell
        self._told = 0.0
        self._changed = threading.Condition()  # guards what follows; a signal handler may hold it
        self._connections: set[Connection] = set()
        self._for_watch: deque[tuple[bool, Connection]] = deque()  # begins or ends
        self._is_polling = False
        self._is_stopping = False
        self._is_closed = False
        self.dropped = 0  # clients that took nothing more
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def serve_forever(self) -> None:
        """Accept until told to stop; then close the listening sockets."""
        poll = select.poll()
        watch = Watch(poll)
        with self._changed:
            if self._is_stopping:
                return self._close_listeners()
            for fd in (*self._listeners, self._wake_read):
                poll.register(fd, select.POLLIN)
            self._is_polling = True
        try:
            while not self._is_stopping:
                for fd, events in poll.poll():
                    if fd in self._listeners:
                        self._accept(self._listeners[fd])
                    elif fd == self._wake_read:
                        self._take_wakes(watch)
                    else:
                        watch.look(fd, events)
        finally:
            self._end_polling(watch)

    def stop(self) -> None:
        """Let `serve_forever` return; from any thread or signal handler."""
        self._is_stopping = True
        self._wake()

    def close(self, seconds: float = 5.0) -> int:
        """Stop, wait for requests under way at most so long, and cut off the others: how many.

        Streams must be told to end by whoever feeds them, before.
        """
        self.stop()
        limit = time.monotonic() + seconds
        with self._changed:
            self._close_listeners()
            for connection in self._connections:
                if not connection.has_request:
                    connection.lose()
            self._wait_until_empty(limit)
            late = list(self._connections)
            for connection in late:
                connection.lose()
            self._wait_until_empty(time.monotonic() + 0.5)
            self._is_closed = True
            self._close_wakes()
        return len(late)

    # -- of one connection, by its own thread

    def _serve(self, connection: Connection) -> None:
        try:
            self._answer(connection)
        except Refusal as refusal:
            _send_refusal(connection, refusal)
        except OSError:
            pass  # the client has gone
        except Exception as error:  # noqa: BLE001 - the outermost frame of the thread
            self.tell(error)
        finally:
            connection.finish()
            self._end(connection)

    def _answer(self, connection: Connection) -> None:
        head = connection.read_head()
        if head is not None:
            _Handler(self, connection, head).run(self.app)

    def _end(self, connection: Connection) -> None:
        with self._changed:
            self._connections.discard(connection)
            self.dropped += connection.was_stuck
            # The poll may know its descriptor, which must not mean another connection meanwhile.
            if self._is_polling:
                self._for_watch.append((False, connection))
                self._wake()
            else:
                connection.close()
            self._changed.notify_all()

    def watch(self, connection: Connection) -> None:
        """Notice when this client leaves, though nothing is being sent to it."""
        with self._changed:
            self._for_watch.append((True, connection))
            self._wake()

    def tell(self, error: BaseException) -> None:
        """Name a fault in one line; of a flood of them, some."""
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._tell_line(f"{type(error).__name__}: {error}")

    # -- of the thread that polls

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                client, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _FULL:
                    self.tell(error)
                    time.sleep(FULL_SECONDS)  # else the poll would say at once that one waits
                return  # or that client has gone already
            self._begin(client, address)

    def _begin(self, client: socket.socket, address: tuple[object, ...]) -> None:
        if self._is_full():
            return _turn_away(client)
        try:
            connection = Connection(client, address, self.limits)
        except OSError:
            return client.close()  # it has gone: macOS refuses the options then
        with self._changed:
            self._connections.add(connection)
        try:
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except RuntimeError as error:  # the system has no thread for it
            self.tell(error)
            with self._changed:
                self._connections.discard(connection)
            return _turn_away(client)

    def _is_full(self) -> bool:
        """Not by those that have gone, and whose streams will notice at their next heartbeat."""
        if len(self._connections) < self._most:
            return False
        with self._changed:
            live = sum(not connection.gone.is_set() for connection in self._connections)
            return live >= self._most or len(self._connections) >= 2 * self._most

    def _take_wakes(self, watch: Watch) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
        while self._for_watch:
            begins, connection = self._for_watch.popleft()
            if begins:
                watch.add(connection)
            else:
                watch.remove(connection)
                connection.close()

    def _end_polling(self, watch: Watch) -> None:
        with self._changed:
            self._is_polling = False
            self._take_wakes(watch)
            self._close_listeners()
            self._close_wakes()

    # -- of all

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except OSError:
            pass  # full: it wakes anyway; or closed: nobody sleeps

    def _wait_until_empty(self, limit: float) -> None:
        while self._connections and (left := limit - time.monotonic()) > 0:
            self._changed.wait(left)

    def _close_listeners(self) -> None:
        for listener in self._listeners.values():
            listener.close()

    def _close_wakes(self) -> None:
        if self._is_closed and not self._is_polling:
            for fd in {self._wake_read, self._wake_write} - {-1}:
                os.close(fd)
            self._wake_read = self._wake_write = -1


class _Handler(SimpleHandler):
    """Between a connection and the application; each item of the answer is one write."""

    http_version = "1.1"
    server_software = None
    wsgi_run_once = False
    os_environ: dict[str, str] = {}  # noqa: RUF012 - not this process's, which holds secrets
    headers: Headers
    status: str

    def __init__(self, server: WsgiServer, connection: Connection, head: Head) -> None:
        environ = _environ(server, connection, head)
        body = connection.body(head)
        super().__init__(body, body, sys.stderr, environ, multithread=True)  # type: ignore[arg-type]
        self._server = server
        self._connection = connection
        self._pieces: list[bytes] = []
        self._has_sent = False
        self._is_stream = False

    def cleanup_headers(self) -> None:
        super().cleanup_headers()
        self.headers["Connection"] = "close"
        if self.status[:3] in ("204", "304"):
            del self.headers["Content-Length"]

    def send_headers(self) -> None:
        super().send_headers()
        self._is_stream = (self.headers["Content-Type"] or "").startswith("text/event-stream")

    def _write(self, data: bytes) -> None:
        self._pieces.append(data)

    def _flush(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._has_sent = True
        self._connection.send(data)
        if self._is_stream:  # not before its head is out: a probe writes into it
            self._is_stream = False
            self._server.watch(self._connection)

    def finish_content(self) -> None:
        super().finish_content()
        if self._pieces:  # the head of an answer without a body
            self._flush()

    def handle_error(self) -> None:
        error = sys.exc_info()[1]
        assert error is not None
        if self._has_sent:
            self._server.tell(error)  # it breaks off: what has been sent cannot be unsaid
        elif isinstance(error, Refusal):
            self._connection.refuse(refusal_bytes(error))
        else:
            self._server.tell(error)
            self._connection.refuse(_BROKEN)


def _environ(server: WsgiServer, connection: Connection, head: Head) -> dict[str, object]:
    environ: dict[str, object] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": head.path,
        "QUERY_STRING": head.query,
        "SERVER_NAME": server.host,
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": head.version,
        "REMOTE_ADDR": connection.remote,
        "CONTENT_TYPE": head.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(head.body_bytes) if "content-length" in head.headers else "",
        "conductor.raw_path": head.target.partition("?")[0],
        "conductor.gone": connection.gone,
    }
    for name, value in head.headers.items():
        if name not in ("content-type", "content-length"):
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ


def _send_refusal(connection: Connection, refusal: Refusal) -> None:
    try:
        connection.refuse(refusal_bytes(refusal))
    except OSError:
        pass  # nobody is there to hear it


def _turn_away(client: socket.socket) -> None:
    """Say that there is no room, without a thread and without waiting."""
    try:
        client.setblocking(False)
        client.send(_BUSY)
        client.shutdown(socket.SHUT_WR)
        client.recv(64 * 1024)  # closed with this unread, the answer might be lost
    except OSError:
        pass  # it has gone, or has sent nothing yet
    client.close()
