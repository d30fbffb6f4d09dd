"""/metrics: figures in the text format of Prometheus, for anybody, so without names of projects.

Those of the original come first.  Its `_total` of runs are task loops, of which
it knows since its start; so are ours, whoever ran them.
Source: prometheus.io, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from lib import VERSION, files, ids, listing, loop_record
from lib.api import plan_shapes, totals
from lib.api.exchange import Answer, Request
from lib.api.route import TEXT, Route, Schema
from lib.api.sse import Batches

if TYPE_CHECKING:
    from lib.api.service import Service
    from lib.index import Index, TaskEntry

KIND = "text/plain; version=0.0.4; charset=utf-8"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OTHER = "other"  # stands for all methods that clients have made up
GAUGE, COUNTER, SUMMARY = "gauge", "counter", "summary"
Labels = Mapping[str, str]
Sample = tuple[Labels, float]


class Counters:
    """What only the server itself can count; by all its threads."""

    def __init__(self) -> None:
        self.started_ns = time.time_ns()
        self.dropped: Callable[[], int] = int  # clients cut off: put here by who does that
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = {}
        self._posts = self._streams = 0
        self._ended: set[tuple[object, ...]] = set()  # loops that ended since the start

    def count_request(self, method: str, status: int) -> None:
        key = (method if method in METHODS else OTHER, status)
        with self._lock:
            self._requests[key] = self._requests.get(key, 0) + 1

    def count_post(self) -> None:
        """A message has been put onto a bus."""
        with self._lock:
            self._posts += 1

    def watch_stream(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The same, counted among the streams as long as it lasts."""
        self._add_stream(1)
        return Batches(body, lambda: self._add_stream(-1))

    def _add_stream(self, number: int) -> None:
        with self._lock:
            self._streams += number

    @property
    def requests(self) -> dict[tuple[str, int], int]:
        with self._lock:
            return dict(self._requests)

    @property
    def posts(self) -> int:
        return self._posts

    @property
    def streams(self) -> int:
        return self._streams

    def ended_loops(self, tasks: Iterable[TaskEntry], state: str) -> int:
        """How many loops came to that end since the start, also of tasks that are gone since.

        Of several ends of one task between two calls the last one counts.
        """
        with self._lock:
            for task in tasks:
                loop = task.loop or {}
                ended = ids.parse_rfc3339(loop.get("ended")) or 0
                if task.loop_state in loop_record.ENDED and ended >= self.started_ns:
                    self._ended.add((*task.key, ended, task.loop_state))
            return sum(item[-1] == state for item in self._ended)


class Page:
    """The text in the making."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, kind: str, about: str, *samples: Sample) -> None:
        """A metric of that kind; `name` is without the prefix."""
        self._head(name, kind, about)
        for labels, value in samples:
            self._sample(name, labels, value)

    def add_summary(self, name: str, about: str, total: float, count: int) -> None:
        self._head(name, SUMMARY, about)
        self._sample(f"{name}_sum", {}, total)
        self._sample(f"{name}_count", {}, count)

    def _head(self, name: str, kind: str, about: str) -> None:
        self._lines += [f"# HELP conductor_{name} {about}", f"# TYPE conductor_{name} {kind}"]

    def _sample(self, name: str, labels: Labels, value: float) -> None:
        told = ",".join(f'{key}="{escape(text)}"' for key, text in labels.items())
        self._lines.append(f"conductor_{name}{f'{{{told}}}' if told else ''} {value!r}")

    def data(self) -> bytes:
        return ("\n".join(self._lines) + "\n").encode("utf-8", "replace")


def escape(text: str) -> str:
    """The text of a label between its quotes."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def show_metrics(service: Service, request: Request) -> Answer:
    own, server = Page(), Page()
    _add_own(own, service)
    stored = service.view.answer("metrics", lambda index: _stored(service, index))
    _add_server(server, service)
    return Answer(own.data() + stored + server.data(), kind=KIND)


def _stored(service: Service, index: Index) -> bytes:
    """What hangs on the index alone: made once for each change, as anybody may ask for it."""
    page = Page()
    _add_loops(page, service, index)
    _add_storage(page, service, index)
    return page.data()


def _add_own(page: Page, service: Service) -> None:
    """What the original tells of itself."""
    counters = service.counters
    page.add("uptime_seconds", GAUGE, "Since the server started.", ({}, service.uptime_seconds()))
    about = "Messages that this server has put onto buses."
    page.add("messagebus_appends_total", COUNTER, about, ({}, counters.posts))
    queued = len(service.queue.positions())
    page.add("queued_runs_total", GAUGE, "Tasks that wait for a free place.", ({}, queued))
    requests = sorted(counters.requests.items())
    page.add(
        "api_requests_total", COUNTER, "Requests that were answered.",
        *(({"method": method, "status": str(status)}, n) for (method, status), n in requests),
    )  # fmt: skip


def _add_loops(page: Page, service: Service, index: Index) -> None:
    """What the original tells of its loops."""
    tasks = index.tasks.values()
    active = sum(task.loop_is_live for task in tasks)
    page.add("active_runs_total", GAUGE, "Task loops that are at work.", ({}, active))
    for name, state, about in (
        ("completed_runs_total", loop_record.DONE, "Task loops that ended with their task done."),
        ("failed_runs_total", loop_record.FAILED, "Task loops that ended without success."),
    ):
        number = service.counters.ended_loops(tasks, state)
        page.add(name, COUNTER, about, ({}, number))


def _add_storage(page: Page, service: Service, index: Index) -> None:
    """What the files tell; it falls when runs are cleaned away, so these are gauges."""
    service.facts.prepare(index)
    total = totals.Totals()
    for item in totals.count(service.facts, index):
        total.add(item)
    by_status = {status: total.runs.get(status, 0) for status in listing.STATUSES}
    plans = dict.fromkeys(plan_shapes.STATES, 0)
    for entry in index.plans.values():
        plans[plan_shapes.state_of(entry)] += 1
    page.add("runs", GAUGE, "Runs by status.", *_by("status", by_status))
    page.add("live_runs", GAUGE, "Runs whose supervisor or agent lives.", ({}, len(index.live())))
    page.add("tasks", GAUGE, "Tasks.", ({}, len(index.tasks)))
    page.add("plans", GAUGE, "Plans by state.", *_by("state", plans))
    tokens = {kind.removesuffix("_tokens"): getattr(total.used, kind) or 0 for kind in totals.KINDS}
    page.add("tokens", GAUGE, "Tokens that runs have told.", *_by("kind", tokens))
    page.add(
        "cost_usd", GAUGE, "What runs cost, as far as known.", ({}, total.used.cost_usd or 0.0)
    )
    about = "Runs whose cost is not known."
    page.add("unknown_cost_runs", GAUGE, about, ({}, total.used.without_cost))


def _add_server(page: Page, service: Service) -> None:
    counters, view = service.counters, service.view
    page.add("sse_clients", GAUGE, "Clients that follow a stream.", ({}, counters.streams))
    about = "Clients that were cut off because they took nothing any more."
    page.add("streams_dropped_total", COUNTER, about, ({}, counters.dropped()))
    about = "Looks at the storage for what has changed."
    page.add_summary("index_refresh_seconds", about, view.refresh_seconds, view.refreshes)
    page.add("resident_memory_bytes", GAUGE, "Memory of the server.", ({}, resident_bytes()))
    build = {"version": VERSION, "python": platform.python_version()}
    page.add("build_info", GAUGE, "Always 1; the labels tell.", (build, 1))


def _by(label: str, numbers: Mapping[str, int]) -> list[Sample]:
    return [({label: key}, number) for key, number in numbers.items()]


def resident_bytes(*, is_portable: bool | None = None) -> int:
    """Memory of this process that is in use now; where no file tells, the most that there has been."""
    if not (files.portable_only() if is_portable is None else is_portable):
        try:
            with open("/proc/self/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            pass  # a system that has no such file
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


SCHEMAS: dict[str, Schema] = {}

ROUTES = (
    Route(
        "GET",
        "/metrics",
        show_metrics,
        "Figures for Prometheus.",
        answers={200: ("Text format 0.0.4.", TEXT)},
        kind="text/plain",
        open_to_all=True,
    ),
)
