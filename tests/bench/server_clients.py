"""Clients for the bench of the server: many readers of one stream in one process.

    python3 tests/bench/server_clients.py PORT PATH CLIENTS

Says `ready` when all of them are in step with the stream.  After `wait LINES` on
stdin they read until each has that many lines more, or for a while; after
`tell` they answer with a line of JSON on what came since the last one:
`seconds`, the ages of lines when they came whole; `lines` by client; `begun`,
when each client heard first of a run, by its id; `processor`, what this took.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time

PATIENCE_SECONDS = 60.0
_STAMP = re.compile(rb"t=(\d{19});")  # a literal first: no client may be late by its own fault
_STATUS = re.compile(rb'event: status\ndata: \{"run_id":"([^"]+)"')


class Client:
    """One connection; an event counts when it is there as a whole."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        self.socket.setblocking(False)
        self.is_ready = False
        self.known: set[bytes] = set()
        self.rest = b""
        self.lines = 0
        self.wanted = 0

    def read(self, ages: list[float], begun: dict[bytes, list[int]]) -> None:
        data = self.socket.recv(1 << 18)
        now = time.time_ns()
        if not data:
            raise SystemExit("the server has closed a stream")
        whole, end, rest = data.rpartition(b"\n\n")
        if not end:
            self.rest += data
            return
        whole, self.rest = self.rest + whole, rest
        self.is_ready = self.is_ready or b"\nid: " in whole or whole.startswith(b"id: ")
        stamps = _STAMP.findall(whole)
        ages += [(now - int(stamp)) / 1e9 for stamp in stamps]
        self.lines += len(stamps)
        for run in _STATUS.findall(whole):
            if run not in self.known:
                self.known.add(run)
                begun.setdefault(run, []).append(now)


class Clients:
    def __init__(self, port: int, path: str, count: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.clients = [Client(port, path) for _ in range(count)]
        for client in self.clients:
            self.selector.register(client.socket, selectors.EVENT_READ, client)
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        self.forget()

    def forget(self) -> None:
        self.ages: list[float] = []
        self.begun: dict[bytes, list[int]] = {}
        self.processor = time.process_time()
        for client in self.clients:
            client.lines = client.wanted = 0

    def answer(self, line: str) -> None:
        name, *words = line.split()
        if name == "wait":
            for client in self.clients:
                client.wanted = int(words[0])
            self.read_until_all_have_theirs()
        print(json.dumps(self.told()), flush=True)
        self.forget()

    def told(self) -> dict[str, object]:
        return {
            "seconds": [round(age, 6) for age in self.ages],
            "lines": [client.lines for client in self.clients],
            "begun": {run.decode(): when for run, when in self.begun.items()},
            "processor": time.process_time() - self.processor,
        }

    def read_until_all_have_theirs(self) -> None:
        limit = time.monotonic() + PATIENCE_SECONDS
        while any(c.lines < c.wanted for c in self.clients) and time.monotonic() < limit:
            self.read_some(1.0)

    def read_some(self, seconds: float | None) -> bool:
        """True when there is something on stdin."""
        ready = [key.data for key, _ in self.selector.select(seconds)]
        for client in ready:
            if client is not None:
                client.read(self.ages, self.begun)
        return None in ready


def main() -> None:
    clients = Clients(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    while not all(client.is_ready for client in clients.clients):
        clients.read_some(None)
    clients.forget()
    print("ready", flush=True)
    while True:
        if clients.read_some(None):
            line = sys.stdin.readline()
            if not line:
                return
            clients.answer(line)


if __name__ == "__main__":
    main()
