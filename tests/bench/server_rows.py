"""What the server costs, and how soon it tells: the rows of the bench that need web/server.py.

One server on a large root is measured once for all rows but the last two: its
start, its lists, then with clients of the stream of all runs.  The clients and
the agents are processes of their own; the notes say what the clients take, as
that is time which they, and not the server, are late.
"""

from __future__ import annotations

import functools
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from lib import packages
from tests.api_server import Server
from tests.bench import server_tree
from tests.bench.base import (
    ENVIRONMENT,
    FULL,
    HERE,
    MissingError,
    NotRunError,
    Result,
    Row,
    Size,
    processor_seconds,
    resident_bytes,
)  # fmt: skip
from tests.bench.server_tree import PROJECT, task_name

ALL_RUNS = "/api/v1/runs/stream/all"
CLIENT_PROCESSES = 2
LINES_A_SECOND = 8  # of each agent
ROUNDS_WARM = 15
CHANGES = "while a run changes"
_PROJECT = f"/api/projects/{PROJECT}"
_TASK = f"{_PROJECT}/tasks/{task_name(1)}"
LISTS = (
    "/api/projects",
    "/api/projects/home-dirs",
    f"{_PROJECT}/tasks",
    f"{_PROJECT}/tasks?limit=500",
    f"{_PROJECT}/tasks?status=failed&limit=500",
    f"{_PROJECT}/runs/flat",
    f"{_PROJECT}/runs/flat?active_only=1&selected_task_id={task_name(1)}&selected_task_limit=1",
    f"{_PROJECT}/stats",
    f"{_PROJECT}/messages?limit=500",
    _TASK,
    f"{_TASK}/runs",
    f"{_TASK}/messages?limit=500",
    "/api/v1/tasks",
    f"/api/v1/tasks/{task_name(1)}",
    "/api/v1/runs",
    "/api/v1/status",
    f"/api/v1/messages?project_id={PROJECT}",
    "/api/v1/overview",
    "/api/v1/plans",
    "/api/v1/search?q=claude&limit=500",
    "/api/v1/totals?by=task",
)


# -- processes


class Told:
    """A process that answers each line with a line of JSON; it ends with its stdin."""

    def __init__(self, script: str, *arguments: str | Path | int) -> None:
        words = [sys.executable, str(HERE / script), *map(str, arguments)]
        self._process = subprocess.Popen(
            words, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_until_ready(self) -> None:
        self._read()

    def ask(self, *words: str | Path | float) -> Any:
        self.tell(*words)
        return self.answer()

    def tell(self, *words: str | Path | float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        return json.loads(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise NotRunError(f"{self._process.args}: it has ended")  # type: ignore[str-bytes-safe]
        return line

    def __enter__(self) -> Told:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


class Clients:
    """All clients of one stream, in a few processes."""

    def __init__(self, stack: ExitStack, server: Server, path: str, count: int) -> None:
        shares = [count // CLIENT_PROCESSES + (n < count % CLIENT_PROCESSES)
                  for n in range(CLIENT_PROCESSES)]  # fmt: skip
        self._parts = [
            stack.enter_context(Told("server_clients.py", server.port, path, share))
            for share in shares
            if share
        ]
        for part in self._parts:
            part.wait_until_ready()

    def take(self, lines: int) -> Received:
        """What came since the last call, and each line of these `lines`, NotRunError if not."""
        for part in self._parts:
            part.tell("wait", lines)
        found = Received([part.answer() for part in self._parts])
        if set(found.lines) != {lines}:
            raise NotRunError(f"of {lines} lines clients got {sorted(set(found.lines))}")
        return found


class Received:
    def __init__(self, parts: list[dict[str, Any]]) -> None:
        self.seconds: list[float] = [age for part in parts for age in part["seconds"]]
        self.lines: list[int] = [count for part in parts for count in part["lines"]]
        self.processor = sum(part["processor"] for part in parts)
        self.begun: dict[str, list[int]] = {}
        for part in parts:
            for run, moments in part["begun"].items():
                self.begun.setdefault(run, []).extend(moments)


def p95(values: list[float]) -> float:
    return (
        statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    )


def spread(values: list[float]) -> str:
    p50, high, most = statistics.median(values), p95(values), max(values)
    return f"p50 {p50 * 1000:.1f}, p95 {high * 1000:.1f}, most {most * 1000:.1f} ms"


@contextmanager
def served(root: Path) -> Iterator[Server]:
    if packages.load("bottle") is None:
        raise MissingError("bottle is not installed")
    with Server(root) as server:
        yield server


def seconds_of(port: int, path: str) -> float:
    """From the connecting to the last byte of the answer."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise NotRunError(f"{path}: {answer.status}")
    finally:
        connection.close()
    return time.perf_counter() - began


# -- the server on a large root


class Session:
    """All that is measured at one server, in the order in which it happens."""

    def __init__(self, size: Size, root: Path) -> None:
        self.size = size
        self.root = root
        self.runs_dir = root / "runs"
        self.lists: dict[str, list[float]] = {}
        self.busy_lists: dict[str, list[float]] = {}
        self.start: list[float] = []
        self.idle: list[float] = []
        self.load: list[float] = []
        self.lines: list[float] = []
        self.new_runs: list[float] = []
        self.burst: list[float] = []
        self.notes: dict[str, list[str]] = {}
        server_tree.write_tree(self.runs_dir, size.many)
        for _ in range(size.batches):
            self._start()
        with ExitStack() as stack:
            self._measure(stack)

    def _start(self) -> None:
        began = time.perf_counter()
        with served(self.root) as server:
            seconds_of(server.port, "/api/projects")
            self.start.append(time.perf_counter() - began)

    def _measure(self, stack: ExitStack) -> None:
        server = stack.enter_context(served(self.root))
        seconds_of(server.port, "/api/projects")
        self.lists = self._ask_lists(server)
        clients = Clients(stack, server, ALL_RUNS, self.size.clients)
        self._idle(server)
        agents = stack.enter_context(Told("server_agents.py", self.runs_dir, self.size.writers))
        agents.wait_until_ready()
        clients.take(0)
        self._deliver(server, agents, clients)
        self._burst(server, agents, clients)
        self._announce(agents, clients)
        self._change(server, agents)
        self.memory = resident_bytes(server.process.pid) / 1e6  # whatever came before

    def _ask_lists(self, server: Server) -> dict[str, list[float]]:
        """Each list so many times, after once that does not count."""
        return {
            path: [seconds_of(server.port, path) for _ in range(self._rounds() + 1)][1:]
            for path in LISTS
        }

    def _rounds(self) -> int:
        return ROUNDS_WARM if self.size is FULL else 1

    def _idle(self, server: Server) -> None:
        time.sleep(self.size.watch_seconds / 5)  # what the coming of the clients costs
        for _ in range(self.size.batches):
            before = processor_seconds(server.process.pid)
            time.sleep(self.size.watch_seconds)
            self.idle.append(processor_seconds(server.process.pid) - before)

    def _deliver(self, server: Server, agents: Told, clients: Clients) -> None:
        seconds, pooled, took = self.size.watch_seconds, list[float](), 0.0
        written = 0
        for _ in range(self.size.batches):
            before = processor_seconds(server.process.pid)
            count = agents.ask("write", LINES_A_SECOND, seconds)
            self.load.append(processor_seconds(server.process.pid) - before)
            found = clients.take(count)
            self.lines.append(p95(found.seconds))
            pooled += found.seconds
            took += found.processor
            written += count
        part = took / (seconds * self.size.batches * CLIENT_PROCESSES)
        self.notes["lines"] = [
            f"{written} lines to {self.size.clients} clients: {spread(pooled)}; each of the "
            f"{CLIENT_PROCESSES} client processes takes {part:.0%} of a core"
        ]

    def _announce(self, agents: Told, clients: Clients) -> None:
        pooled = []
        for _ in range(self.size.batches):
            began = agents.ask("begin", max(2, self.size.posts // 5))
            time.sleep(1.0)
            found = clients.take(0)
            missing = [run for run in began
                       if len(found.begun.get(run, [])) != self.size.clients]  # fmt: skip
            if missing:
                raise NotRunError(f"not announced to all within a second: {missing}")
            ages = [(when - at) / 1e9 for run, at in began.items() for when in found.begun[run]]
            self.new_runs.append(p95(ages))
            pooled += ages
        self.notes["new runs"] = [f"to {self.size.clients} clients: {spread(pooled)}"]

    def _change(self, server: Server, agents: Told) -> None:
        """The lists once more, while what they tell changes: nothing can be kept for the next."""
        is_over = threading.Event()

        def change() -> None:
            while not is_over.is_set():
                agents.ask("change", 0.5)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            self.busy_lists = self._ask_lists(server)
        finally:
            is_over.set()
            thread.join()

    def _burst(self, server: Server, agents: Told, clients: Clients) -> None:
        before, took = processor_seconds(server.process.pid), 0.0
        for _ in range(self.size.batches):
            found = clients.take(agents.ask("burst", self.size.burst))
            self.burst.append(max(found.seconds))
            took += found.processor
        used = processor_seconds(server.process.pid) - before
        self.notes["burst"] = [
            f"processor time of a burst: server {used / self.size.batches:.1f} s, "
            f"clients {took / self.size.batches:.1f} s"
        ]


@functools.cache
def session(size: Size, folder: Path) -> Session:
    return Session(size, folder / "server")


def against(ours: list[float], limit: float, notes: list[str] | None = None) -> Result:
    return Result(ours, [limit] * len(ours), notes or [])


def start(size: Size, folder: Path) -> Result:
    return against(session(size, folder.parent).start, 3.0)


def lists(size: Size, folder: Path) -> Result:
    return _slowest(session(size, folder.parent).lists)


def busy_lists(size: Size, folder: Path) -> Result:
    return _slowest(session(size, folder.parent).busy_lists)


def _slowest(found: dict[str, list[float]]) -> Result:
    medians = {path: statistics.median(values) for path, values in found.items()}
    slowest = max(medians, key=lambda path: medians[path])
    notes = [f"{path} {median * 1000:.1f} ms" for path, median in medians.items()]
    return against(found[slowest], 0.05, [f"slowest: {slowest}", *notes])


def memory(size: Size, folder: Path) -> Result:
    return against([session(size, folder.parent).memory], 200.0)


def idle(size: Size, folder: Path) -> Result:
    return against(session(size, folder.parent).idle, size.watch_seconds)


def lines(size: Size, folder: Path) -> Result:
    found = session(size, folder.parent)
    return against(found.lines, 0.05, found.notes["lines"])


def load(size: Size, folder: Path) -> Result:
    return against(session(size, folder.parent).load, size.watch_seconds)


def new_runs(size: Size, folder: Path) -> Result:
    found = session(size, folder.parent)
    return against(found.new_runs, 0.25, found.notes["new runs"])


def burst(size: Size, folder: Path) -> Result:
    found = session(size, folder.parent)
    return against(found.burst, 1.0, found.notes["burst"])


# -- messages


def messages(size: Size, folder: Path) -> Result:
    """Of a long bus and of a short one in turn: what a message costs must not hang on that."""
    tree = folder / "root" / "runs" / PROJECT
    result, pooled = Result(), dict[str, list[float]]()
    with ExitStack() as stack:
        paths: dict[str, Path] = {}
        for task, count in (("long", size.burst), ("short", 10)):
            (tree / task).mkdir(parents=True)
            (tree / task / "TASK.md").write_text("Do it.\n")
            paths[task] = server_tree.write_bus(tree / task, count)
        server = stack.enter_context(served(folder / "root"))
        agents = stack.enter_context(Told("server_agents.py", tree.parent, 0))
        agents.wait_until_ready()
        streams = {
            task: Clients(stack, server, f"{_PROJECT}/tasks/{task}/messages/stream", size.clients)
            for task in paths
        }

        def late(task: str) -> float:
            found = streams[task].take(agents.ask("post", paths[task], size.posts))
            pooled.setdefault(task, []).extend(found.seconds)
            return p95(found.seconds)

        for _ in range(max(1, size.batches // 2)):
            result.ours.append(late("long"))
            result.theirs.append(late("short"))
    result.notes += [f"{task}: {spread(values)}" for task, values in pooled.items()]
    return result


# -- a request


_BARE_APP = """
from wsgiref.simple_server import WSGIRequestHandler, make_server

class Handler(WSGIRequestHandler):
    def log_message(self, *_):
        pass

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [b'{"status":"ok"}\\n']

server = make_server("127.0.0.1", 0, app, handler_class=Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def health(size: Size, folder: Path) -> Result:
    (folder / "root" / "runs").mkdir(parents=True)
    with served(folder / "root") as server, _bare_app() as port:
        result = Result()
        for _ in range(10 * size.starts):
            result.ours.append(seconds_of(server.port, "/api/v1/health"))
            result.theirs.append(seconds_of(port, "/"))
    return result


@contextmanager
def _bare_app() -> Iterator[int]:
    words = [sys.executable, "-S", "-E", "-c", _BARE_APP]
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


ROWS = (
    Row("server-start", "the server on 10,000 runs, start to first answer", "3 s", 1.0, start),
    Row("server-lists", "its slowest list, warm", "50 ms", 1.0, lists),
    Row("server-lists-busy", "the same while a run changes, 20 times a second", "50 ms", None,
        busy_lists),
    Row("server-idle", "50 clients of all its runs, nothing happening", "one core", 0.01, idle),
    Row("server-lines", "a line of one of 16 agents to 50 clients, p95", "50 ms", 1.0, lines),
    Row("server-load", "the server meanwhile", "one core", None, load),
    Row("server-new-run", "a new run's announcement to 50 clients, p95", "250 ms", 1.0, new_runs),
    Row("server-burst", "20,000 lines of one write, at all of 50 clients", "1 s", None, burst),
    Row("server-memory", "the server after all that", "200 MB", 1.0, memory, "MB"),
    Row("server-messages", "a message of a bus of 20,000 to 50 clients, p95",
        "the same, bus of 10", 1.5, messages),
    Row("server-health", "`/api/v1/health`", "bare wsgiref", None, health),
)  # fmt: skip
