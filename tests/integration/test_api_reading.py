"""Who reads through the API changes nothing, learns no secret, and is spared what is broken."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lib import bus, redact, runs
from lib.api import routes
from tests.api_app import App, faults
from tests.api_server import Server
from tests.stored_root import RUNNING, THIS_MACHINE, StoredRoot, held, snapshot

TOKEN = "sk-ant-api03-AbCdEfGh0123456789-AbCdEfGh0123456789"
OUTSIDE = "what lies outside of the storage"
STREAM = "text/event-stream"
LISTS = (
    "/api/projects",
    "/api/projects/demo",
    "/api/projects/demo/stats",
    "/api/projects/demo/tasks?limit=500",
    "/api/projects/demo/runs/flat",
    "/api/projects/demo/runs/flat?active_only=1",
    "/api/v1/runs",
    "/api/v1/tasks",
    "/api/projects/home-dirs",
    "/api/projects/demo/tasks/good",
    "/api/projects/demo/tasks/good/runs",
    "/api/projects/demo/tasks/good/messages",
    "/api/projects/demo/messages",
    "/api/v1/messages?project_id=demo",
)


@pytest.fixture
def root(tmp_path: Path) -> StoredRoot:
    """A project with a sound task, beside which others can be broken; and a place outside of it."""
    root = StoredRoot(tmp_path / "root")
    folder = root.task("good")
    sound_run(root, folder, "good")
    post(folder / "TASK-MESSAGE-BUS.md", "hello")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text(OUTSIDE)
    return root


def sound_run(root: StoredRoot, folder: Path | None, task: str, **fields: Any) -> Path:
    run = root.run(folder, task_id=task, cwd="/src/app", **fields)
    for name in (runs.STDOUT, runs.STDERR, runs.PROMPT, runs.OUTPUT, runs.TRANSCRIPT):
        (run / name).write_text(f"text of {name}\n")
    return run


def post(path: Path, body: str, **meta: str) -> str:
    return bus.append(str(path), body=body, project="demo", task="good", meta=meta, durable=False)


def addresses(project: str, task: str, run: str, *, streams: bool = False) -> Iterator[str]:
    """Each address that can be read there, also with the names of all files."""
    names = ("stdout", "stderr", "prompt", "output.md", "transcript.md", "TASK.md")
    for route in routes.ROUTES:
        if route.method != "GET" or (route.kind == STREAM) != streams or route.path == "/login":
            continue
        path = route.path.format(project=project, task=task, run=run)
        queries = {query.name for query in route.query}
        if "name" in queries:
            yield from (f"{path}?name={name}" for name in names)
        elif "project_id" in queries:
            yield f"{path}?project_id={project}&task_id={task}"
        else:
            yield path


# -- nothing is written


def test_reading_leaves_every_file_as_it_was(root: StoredRoot) -> None:
    machine = {**RUNNING, **THIS_MACHINE, "supervisor_pid": 2**22 - 7}
    dead = sound_run(root, root.runs_dir / "demo" / "good", "good", **machine)
    flat = sound_run(root, None, "flat", **machine)
    lives = sound_run(root, None, "lives", **{**machine, "supervisor_pid": os.getpid()})
    post(root.path / "MESSAGE-BUS.md", "of the root")
    with held(lives / runs.LOCK), Server(root.path) as server:
        before = snapshot(root.path)
        for project, task, run in (
            ("demo", "good", dead.name),
            ("demo", "flat", flat.name),
            ("demo", "lives", lives.name),
            ("none", "none", "none"),
        ):
            for address in addresses(project, task, run):
                assert server.get(address).status in (200, 400, 404), address
            for address in addresses(project, task, run, streams=True):
                with server.open_stream(address) as stream:
                    assert stream.status in (200, 400, 404), address
        assert snapshot(root.path) == before
        code, _, errors = server.end()
        assert (code, errors) == (0, "")


# -- nothing secret is told


def test_no_token_is_told_whatever_it_stands_in(root: StoredRoot, tmp_path: Path) -> None:
    named = "opaque-value-of-the-configuration"
    config = tmp_path / "other.yaml"
    config.write_text(f"agents:\n  mine:\n    type: claude\n    token: {named}\n")
    secret = f"{TOKEN} and {named}"
    folder = root.runs_dir / "demo" / "good"
    run = sound_run(
        root, folder, "good", config=str(config), agent_version=secret, model=secret,
        error_summary=secret, commandline=f"claude --token {TOKEN}", status="failed",
        exit_code=1,
    )  # fmt: skip
    for name in (runs.STDOUT, runs.STDERR, runs.PROMPT, runs.OUTPUT, runs.TRANSCRIPT):
        (run / name).write_text(f"before\n{secret}\n")
    (folder / "TASK.md").write_text(secret)
    raw = "\n---\nmsg_id: MSG-9\nts: 2026-01-01T12:00:00Z\ntype: {0}\nproject_id: demo\n"
    raw += "task_id: good\nrun_id: ''\nissue_id: {0}\nlinks:\n    - url: {0}\nmeta:\n    {0}: {0}\n"
    raw += "---\n{0}\n"
    with (folder / "TASK-MESSAGE-BUS.md").open("a") as file:
        file.write(raw.format(TOKEN))
        file.write(raw.format(named))
    app = App(root.runs_dir)
    marked = 0
    for address in addresses("demo", "good", run.name):
        reply = app.get(address)
        assert TOKEN.encode() not in reply.body, address
        assert named.encode() not in reply.body, address
        marked += redact.MARK.encode() in reply.body
    assert marked > 10


# -- what is broken hides only itself


def half_a_record(root: StoredRoot, folder: Path) -> None:
    record = root.run(folder) / "run-info.yaml"
    record.write_bytes(record.read_bytes()[: record.stat().st_size // 2] + b'"')


def binary_record(root: StoredRoot, folder: Path) -> None:
    (root.run(folder) / "run-info.yaml").write_bytes(bytes(range(256)) * 20)


def record_from_the_future(root: StoredRoot, folder: Path) -> None:
    time = "2999-12-31T23:59:59.999999999Z"
    root.run(folder, version=99, start_time=time, end_time=time, status="levitating", hue=[1, 2])


def record_of_wrong_types(root: StoredRoot, folder: Path) -> None:
    root.run(
        folder, run_id=[1], project_id={"a": 1}, task_id=7, agent=[], status=["failed"], pid="x",
        exit_code=10**40, start_time=5, end_time=[], cwd=9, prompt_path=[], parent_run_id={},
        agent_version=1.5, cost_usd=float("inf"), input_tokens=10**400, version="one",
    )  # fmt: skip


def list_for_a_record(root: StoredRoot, folder: Path) -> None:
    (root.run(folder) / "run-info.yaml").write_text("- a\n- b\n")


def record_that_is_a_fifo(root: StoredRoot, folder: Path) -> None:
    record = root.run(folder) / "run-info.yaml"
    record.unlink()
    os.mkfifo(record)


def record_that_is_a_folder(root: StoredRoot, folder: Path) -> None:
    record = root.run(folder) / "run-info.yaml"
    record.unlink()
    record.mkdir()


def record_that_is_a_link(root: StoredRoot, folder: Path) -> None:
    record = root.run(folder) / "run-info.yaml"
    record.rename(root.path.parent / "outside" / "run-info.yaml")
    record.symlink_to(root.path.parent / "outside" / "run-info.yaml")


def file_for_the_runs(root: StoredRoot, folder: Path) -> None:
    (folder / "runs").write_text("no folder")


def folder_that_nobody_may_read(root: StoredRoot, folder: Path) -> None:
    (root.run(folder).parent).chmod(0)


def bus_that_is_a_link(root: StoredRoot, folder: Path) -> None:
    (folder / "TASK-MESSAGE-BUS.md").symlink_to(root.path.parent / "outside" / "secret.txt")
    (root.runs_dir / "demo" / "PROJECT-MESSAGE-BUS.md").symlink_to(
        root.path.parent / "outside" / "secret.txt"
    )


def bus_of_noise(root: StoredRoot, folder: Path) -> None:
    (folder / "TASK-MESSAGE-BUS.md").write_bytes(b"---\nmsg_id: [\n---\n" + bytes(range(256)) * 50)


def outputs_that_are_links(root: StoredRoot, folder: Path) -> None:
    run = root.run(folder)
    for name in (runs.STDOUT, runs.OUTPUT, runs.PROMPT, runs.TRANSCRIPT):
        (run / name).symlink_to(root.path.parent / "outside" / "secret.txt")
    (folder / "TASK.md").unlink()
    (folder / "TASK.md").symlink_to(root.path.parent / "outside" / "secret.txt")


def outputs_that_are_fifos(root: StoredRoot, folder: Path) -> None:
    run = root.run(folder)
    for name in (runs.STDOUT, runs.OUTPUT):
        os.mkfifo(run / name)


def run_that_is_a_link(root: StoredRoot, folder: Path) -> None:
    run = root.run(folder)
    run.rename(root.path.parent / "outside" / "run")
    (root.path.parent / "outside" / "run" / runs.STDOUT).write_text(OUTSIDE)
    run.symlink_to(root.path.parent / "outside" / "run")


def task_that_is_a_link(root: StoredRoot, folder: Path) -> None:
    (root.run(folder) / runs.STDOUT).write_text(OUTSIDE)
    (folder / "TASK.md").write_text(OUTSIDE)
    folder.rename(root.path.parent / "outside" / "task")
    folder.symlink_to(root.path.parent / "outside" / "task")


def project_that_is_a_link(root: StoredRoot, folder: Path) -> None:
    other = root.task("build", "linked")
    (root.run(other) / runs.STDOUT).write_text(OUTSIDE)
    (other / "TASK.md").write_text(OUTSIDE)
    other.parent.rename(root.path.parent / "outside" / "linked")
    other.parent.symlink_to(root.path.parent / "outside" / "linked")


def broken_task_files(root: StoredRoot, folder: Path) -> None:
    root.run(folder)
    (folder / "TASK-CONFIG.yaml").write_text("depends_on: {a: [\n")
    (folder / "TASK-THREAD-LINK.yaml").write_bytes(b"\xff\xfe\0")
    (folder / "TASK-LOOP.yaml").write_text("- 1\n")
    (folder / "DONE").mkdir()


def broken_plan(root: StoredRoot, folder: Path) -> None:
    (root.runs_dir / "demo" / "PLAN-STATE.yaml").write_text("tasks: [")


def names_of_no_text(root: StoredRoot, folder: Path) -> None:
    odd = os.fsencode(folder.parent) + b"/odd\xff\n\x1b[31m"
    os.makedirs(odd + b"/runs/r\xfe")
    Path(os.fsdecode(odd + b"/TASK.md")).write_text("x")
    (Path(os.fsdecode(odd + b"/runs/r\xfe")) / "run-info.yaml").write_text(
        "status: failed\nstart_time: 2026-01-01T12:00:00Z\n"
    )


DAMAGES: list[Callable[[StoredRoot, Path], None]] = [
    half_a_record, binary_record, record_from_the_future, record_of_wrong_types,
    list_for_a_record, record_that_is_a_fifo, record_that_is_a_folder, record_that_is_a_link,
    file_for_the_runs, folder_that_nobody_may_read, bus_that_is_a_link, bus_of_noise,
    outputs_that_are_links, outputs_that_are_fifos, run_that_is_a_link, task_that_is_a_link,
    project_that_is_a_link, broken_task_files, broken_plan, names_of_no_text,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=[damage.__name__ for damage in DAMAGES])
def test_what_is_broken_hides_only_itself(
    root: StoredRoot, damage: Callable[[StoredRoot, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sound = App(root.runs_dir)
    before = {address: sound.ok(address) for address in LISTS}
    folder = root.task("bad")
    damage(root, folder)
    app = App(root.runs_dir)
    for address in LISTS:
        after = app.ok(address)
        assert faults(address, app.get(address)) == []
        assert missing(before[address], after) == [], address
    for project in ("demo", "linked"):
        for task in ("bad", "build"):
            names = {run["id"] for run in app.ok("/api/projects/demo/runs/flat")["runs"]}
            for run in {*names, *on_disk(folder)}:
                for address in addresses(project, task, run):
                    reply = app.get(address.replace("\n", "%0A").replace(" ", "%20"))
                    assert reply.status < 500, (address, reply.body)
                    assert faults(address, reply) == [], address
                    assert OUTSIDE.encode() not in reply.body, address
    assert capsys.readouterr().err == ""
    for path in root.runs_dir.rglob("*"):
        if not path.is_symlink() and path.is_dir():
            path.chmod(0o700)


def on_disk(folder: Path) -> list[str]:
    try:
        return os.listdir(folder / "runs")
    except OSError:
        return []


def missing(before: Any, after: Any) -> list[Any]:
    """The tasks, runs and messages of `before` that are no more in `after`."""
    if isinstance(before, dict):
        lists = [key for key, value in before.items() if isinstance(value, list)]
        return [item for key in lists for item in missing(before[key], after[key])]
    texts = [json.dumps(item, sort_keys=True) for item in after]
    wanted = [json.dumps(item, sort_keys=True) for item in before]
    return [item for item in wanted if item not in texts and '"task_count"' not in item]
