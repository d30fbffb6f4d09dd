"""A web service for tests: answers each request on the loopback interface as it was told to."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

STREAMS = Path(__file__).resolve().parent / "data" / "agent-streams" / "rest"
STALL = b"\0stall"  # in a reply: say nothing more until the test is over
RESET = b"\0reset"  # in a reply: break the connection off
GATE = b"\0gate"  # in a reply: wait until the test opens the gate

Reply = Sequence[bytes]


def recorded(name: str) -> bytes:
    return (STREAMS / name).read_bytes()


def head(status: int = 200, kind: str = "text/event-stream", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def stream(body: bytes, *rest: bytes) -> Reply:
    """A stream of events that ends with the connection."""
    return [head(), body, *rest]


def chunked(*pieces: bytes) -> Reply:
    """A stream in chunks, one for each piece: so a client reads them."""
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
    return [head(Transfer_Encoding="chunked"), b"".join(chunks) + b"0\r\n\r\n"]


def events(*values: object) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)


def said(status: int, body: object, **headers: str) -> Reply:
    """An answer, or an error, in JSON."""
    return [head(status, "application/json", **headers), json.dumps(body).encode()]


def piece(text: str, **more: object) -> dict[str, object]:
    """A chunk of chat completions."""
    return {"choices": [{"delta": {"content": text}, "finish_reason": None}], **more}


def last(reason: str = "stop", **more: object) -> dict[str, object]:
    return {"choices": [{"delta": {}, "finish_reason": reason}], **more}


class Asked:
    """One request, as it arrived."""

    def __init__(self, raw: bytes, body: bytes) -> None:
        first, *lines = raw.decode("latin-1").split("\r\n")
        self.method, self.path, _ = first.split(" ")
        pairs = [line.partition(": ") for line in lines if line]
        self.headers = {name.lower(): value for name, _, value in pairs}
        self.body: dict[str, object] = json.loads(body) if body else {}


class Service:
    """Answers the n-th request with the n-th reply, and all later ones with the last."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = replies
        self.reads_body = True
        self.asked: list[Asked] = []
        self.gate = threading.Event()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Service:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.gate.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._socket.close()
        for thread in self._threads:
            thread.join(30)

    def _begin(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                with self.wrap(connection) as wrapped:
                    self._answer(wrapped)
            except (OSError, ValueError, LookupError):
                pass  # the client has gone, or spoke TLS where nobody does

    def wrap(self, connection: socket.socket) -> socket.socket:
        return connection

    def _answer(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            raw = b""
            while (line := file.readline()) not in (b"\r\n", b""):
                raw += line
            if not raw:
                return
            asked = Asked(raw, b"")
            body = file.read(int(asked.headers["content-length"])) if self.reads_body else b""
        self.asked.append(Asked(raw, body))
        reply = self.replies[min(len(self.asked), len(self.replies)) - 1]
        for part in reply:
            if part == STALL:
                self._over.wait(60)
            elif part == GATE:
                self.gate.wait(60)
            elif part == RESET:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            else:
                connection.sendall(part)


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
