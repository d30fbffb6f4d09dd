"""The real server for tests: started on a free port, asked over HTTP, ended without a trace."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.helpers import PYTHON, ROOT, clean_environment

SECONDS = 30.0  # for any single step
_URL = re.compile(r"http://\S+?:(\d+)/")


class Reply:
    """An answer; header names in any case."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[str, str]:
        """(code, message) of a refusal."""
        error = self.json["error"]
        return error["code"], error["message"]


class Event:
    """One event of a stream; the comments of a stream are skipped."""

    def __init__(self, event_id: str, name: str, data: str) -> None:
        self.id = event_id
        self.name = name
        self.data = data

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    def __repr__(self) -> str:
        return f"Event({self.id!r}, {self.name!r}, {self.data!r})"


class Server:
    """web/server.py on a root, from `with` to its end; it has written its first line by then."""

    def __init__(
        self, root: Path | str, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.root = Path(root)
        place = () if {"--root", "--runs-dir"} & set(map(str, arguments)) else ("--root", root)
        port = () if "--port" in arguments else ("--port", "0")
        self._words = [str(word) for word in (*place, *port, *arguments)]
        self._env = env
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.first_lines = ""

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, at the same port as before if there was one."""
        words = list(self._words)
        if self.port:
            words[words.index("--port") + 1] = str(self.port)
        environment = clean_environment(self._env)
        environment.setdefault("CONDUCTOR_CONFIG", str(_empty_config(self.root)))
        self._process = subprocess.Popen(
            [*PYTHON, str(ROOT / "web" / "server.py"), *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.first_lines = self._process.stdout.readline()
        found = _URL.search(self.first_lines)
        if found is None:
            raise AssertionError(f"the server did not start: {self._process.communicate()}")
        self.port = int(found[1])

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """(exit code, the rest of stdout, stderr) after that signal."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err

    def kill(self) -> None:
        """End it without its knowing; once it has ended, nothing."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.communicate(timeout=SECONDS)

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, None, None, **headers)

    def send(
        self, method: str, path: str, json: object = None, body: bytes | None = None, **headers: str
    ) -> Reply:
        """The answer to a request; `_` in the name of a header means `-`."""
        connection = self._connect()
        try:
            _ask(connection, method, path, json, body, headers)
            return Reply(connection.getresponse())
        finally:
            connection.close()

    @contextmanager
    def open_stream(self, path: str, **headers: str) -> Iterator[Stream]:
        """A stream with its status and headers; closed at the end of the `with`."""
        connection = self._connect()
        try:
            _ask(connection, "GET", path, None, None, headers)
            with connection.getresponse() as response:  # the connection has given it its socket
                yield Stream(response)
        finally:
            connection.close()

    def stream(self, path: str, **headers: str) -> Iterator[Event]:
        """The events of a stream; the client leaves when the iterator is closed."""
        with self.open_stream(path, **headers) as stream:
            assert stream.status == 200, stream.status
            yield from stream

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)


class Stream:
    """Events as they arrive; TimeoutError when none does for long."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    def __iter__(self) -> Iterator[Event]:
        event_id, name, data = "", "", list[str]()
        while line := self._response.readline():
            field, _, value = line.decode().rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            if field == "id":
                event_id = value
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif line == b"\n" and data:
                yield Event(event_id, name, "\n".join(data))
                event_id, name, data = "", "", []


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    value: object,
    body: bytes | None,
    headers: Mapping[str, str],
) -> None:
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    if value is not None:
        body = json.dumps(value).encode()
        sent.setdefault("Content-Type", "application/json")
    connection.request(method, path, body, sent)


def _empty_config(root: Path) -> Path:
    """A configuration that says nothing: this machine's own must not matter."""
    path = root.parent / f"{root.name}.no-config.yaml"
    if not path.exists():
        path.write_text("")
    return path
