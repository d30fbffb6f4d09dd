"""All that openapi.json allows, and much that it does not, asked of the real server.

No answer may be a fault of the server, and none another than the description says:
its status, its type, its shape, its headers.  The requests are the same in each run;
`make fuzz` makes others, for as long as FUZZ_SECONDS.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.api import routes
from tests.api_server import Server
from tests.plan_root import PlanRoot, offline
from tests.stored_root import StoredRoot

HOOKS = Path(__file__).with_name("hooks.py")
STORAGE = Path(__file__).parent.parent / "data" / "storage" / "go-storage-sample.tar.gz"
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance", "response_headers_conformance", "unsupported_method",
    "allow_header_conformance",
)  # fmt: skip
SECONDS = os.environ.get("FUZZ_SECONDS", "")
SEED = os.environ.get("FUZZ_SEED", "1")
LONG = [
    "--max-examples", "300", "--max-time", SECONDS, "--seed", SEED, "--generation-database", "none",
]  # fmt: skip
LIMIT_SECONDS = 300 + float(SECONDS or 0)  # by then it has met something that does not end
SHORT = ["--max-examples", "4", "--generation-deterministic"]
OPERATIONS = {f"{route.method} {route.path}" for route in routes.ROUTES}
STREAMS = [route.path for route in routes.ROUTES if route.kind == "text/event-stream"]
# Streams do not end, and a self-update is refused with 501.
LEFT_OUT = f" ({'|'.join(map(re.escape, (*STREAMS, '/api/v1/admin/self-update')))})$"
CHANGES = r"^(DELETE .*|POST .*/(tasks|resume|start|stop|retry|gc))$"
# The description is fetched, but not as one of its own operations; a link is for a server with a key.
NEVER_DONE = {"GET /api/openapi.json", "POST /api/v1/login-links"}
# These need something that lives, or is done, just then.
MAY_BE_UNDONE = {
    "DELETE /api/v1/tasks/{task}",
    "POST /api/projects/{project}/tasks/{task}/resume",
    "POST /api/v1/plans/{project}/stop",
    "POST /api/v1/runs/{run}/retry",
    "POST /api/projects/{project}/tasks/{task}/runs/{run}/stop",
    "POST /api/v1/runs/{run}/stop",
}
DESCRIPTION = json.loads(routes.description())
ANSWERS = {path: DESCRIPTION["paths"][path]["get"]["responses"] for path in STREAMS}
HOSTILE = [
    {"project": name, "task": name, "run": name}
    for name in ("no-such", "a%5B0%5D*", "%C3%BC", "x" * 200, "x" * 201, "%252e%252e", "%00", "%FF")
]
LAST_IDS = (
    "", "0", "s=1;e=1", "s=99999999999999999999;e=-1", "MSG-no-such", "\xff\xfe", "x" * 4000,
)  # fmt: skip
QUERIES = (
    "project_id=ours-4", "project_id=ours-4&name=stdout&resume=1", "name=no-such", "from=start",
    "project_id=%00&task_id=..", "project_id=demo&last_event_id=%FF&name=&from=-1",
)  # fmt: skip


class Root:
    """A root with a little of everything, also of what is broken, and what stands in it."""

    def __init__(self, path: Path) -> None:
        stored = StoredRoot(path)
        self.plan = PlanRoot(path)  # whatever runs in it bears its mark
        self.plan.plan(offline("write"), offline("check", depends_on=["write"]), project="planned")
        done = self.plan.run()
        assert done.returncode == 0, done.stderr
        with tarfile.open(STORAGE) as archive:
            archive.extractall(self.plan.runs, filter="data")
        # In many projects: to delete some of them leaves others.
        names = [f"ours-{number}" for number in range(10)]
        folders = [stored.task(f"task-20260101-000000-{name}", name) for name in names]
        runs = [
            stored.run(folder, project_id=folder.parent.name, task_id=folder.name)
            for folder in folders * 2
        ]
        stored.run()
        _spoil(folders, runs)
        found = [*runs, *sorted(self.plan.runs.glob("*/*/runs/*-17495-*"))]
        self.known = [
            {"project": run.parts[-4], "task": run.parts[-3], "run": run.name} for run in found
        ]

    def serve(self, *arguments: str) -> Server:
        return Server(self.plan.path, *arguments, env=self.plan.environment())


def _spoil(folders: list[Path], runs: list[Path]) -> None:
    for run in runs:
        (run / "transcript.md").write_bytes(b"one\ntwo\xff\n")
    (folders[0] / "TASK-MESSAGE-BUS.md").write_bytes(b"---\nmsg_id: x\n\xff\n---\n")
    (folders[1] / "TASK-CONFIG.yaml").write_bytes(b"depends_on: [\n\xff")
    (folders[2] / "TASK.md").unlink()
    (folders[2] / "TASK.md").symlink_to("/etc/hostname")
    (runs[0] / "agent-stdout.txt").write_bytes(b"one\ntwo\xff\n")
    (runs[1] / "run-info.yaml").write_bytes(b"run_id: [\n\xff")
    (runs[2] / "run-info.yaml").write_bytes(b"")
    (runs[3] / "run-info.yaml").unlink()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path / "root")
    yield made
    made.plan.kill_everything()


def fuzz(root: Root, server: Server, *arguments: str) -> Counter[tuple[str, int]]:
    """How many answers of which status each operation gave; fails with what schemathesis found."""
    folder = root.plan.path.parent / "schemathesis"
    folder.mkdir()  # without a configuration; what is left behind lies here
    found = subprocess.run(
        [
            os.path.join(os.path.dirname(sys.executable), "schemathesis"),
            "run", f"http://127.0.0.1:{server.port}/api/openapi.json",
            "--checks", ",".join(CHECKS), "--continue-on-failure", "--no-shrink", "--no-color",
            "--request-timeout", "60", "--warnings", "off", *(LONG if SECONDS else SHORT), *arguments,
        ],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "FUZZ_KNOWN": json.dumps(root.known)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
    )  # fmt: skip
    assert server.get("/api/v1/health").status == 200
    assert found.returncode == 0, found.stdout
    assert server.end()[2] == ""
    lines = (folder / "answers").read_text().split("\n")[:-1]
    parts = (line.rpartition(" ") for line in lines)
    return Counter((operation, int(status)) for operation, _, status in parts)


def succeeded(counts: Counter[tuple[str, int]]) -> set[str]:
    return {operation for operation, status in counts if status < 400}


def test_whatever_is_asked_of_a_monitor_is_answered_as_described(root: Root) -> None:
    with root.serve("--disable-task-start") as server:
        counts = fuzz(root, server, "--exclude-name-regex", f"{LEFT_OUT}|{CHANGES}")
    asked = {name for name in OPERATIONS if not re.search(f"{LEFT_OUT}|{CHANGES}", name)}
    assert asked - succeeded(counts) <= NEVER_DONE, sorted(counts.items())
    assert root.plan.processes() == {}


def test_whatever_is_started_and_deleted_is_answered_as_described(root: Root) -> None:
    with root.serve() as server:
        counts = fuzz(root, server, "--include-name-regex", CHANGES)
    asked = {name for name in OPERATIONS if re.search(CHANGES, name)}
    assert asked - succeeded(counts) <= MAY_BE_UNDONE, sorted(counts.items())


def test_whatever_is_asked_of_streams_is_answered_as_described(root: Root) -> None:
    asked = [(path, known) for path in STREAMS for known in [*root.known[::6], *HOSTILE]]
    with root.serve() as server:
        for number, (path, known) in enumerate(asked):
            last_id = LAST_IDS[number % len(LAST_IDS)]
            address = "?".join([path.format(**known), QUERIES[number % len(QUERIES)]])
            with server.open_stream(address, Last_Event_ID=last_id) as stream:
                assert str(stream.status) in ANSWERS[path], (address, last_id, stream.status)
                assert stream.status < 500, (address, last_id)
                if stream.status == 200:
                    next(iter(stream))
        assert server.get("/api/v1/health").status == 200
        assert server.end()[2] == ""
