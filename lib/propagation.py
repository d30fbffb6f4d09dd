"""The one FACT by which a project learns that a task of it is done.

It is said once for each DONE, however often that is tried, by whomever: the
state file, and the meta data of what stands on the project's bus, tell that
it was.  Names and values are those of the original, whose tools then know of
ours, and the other way round.
"""

from __future__ import annotations

import hashlib
import os

from lib import bus, files, ids, runs, yamlio
from lib.errors import UserError
from lib.tasks import DONE, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lib.bus import Message

KIND = "task_completion_propagation"
STATE = "TASK-COMPLETE-FACT-PROPAGATION.yaml"
LOCK = "TASK-COMPLETE-FACT-PROPAGATION.lock"
LOCK_SECONDS = 5.0
MOST_FACTS = 20  # of the task, that the FACT names as its parents
SHOWN_FACTS = 5
_LINE_LIMIT = 160
_MAX_BYTES = 1 << 20


class Told:
    """What the project was told: the id of the message, its key, and whether that was just now."""

    __slots__ = ("is_new", "key", "msg_id")

    def __init__(self, msg_id: str, key: str, is_new: bool) -> None:
        self.msg_id = msg_id
        self.key = key
        self.is_new = is_new


class _Source:
    """What there is to tell of a task that is done."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.done_time = nano_time(os.lstat(task.file(DONE)).st_mtime_ns)
        names = runs.names_in(task.runs_dir)
        found = [runs.read(f"{task.runs_dir}/{name}") for name in names]
        self.run_ids = [name for name in names if os.path.isdir(f"{task.runs_dir}/{name}")]
        self.runs = [run for run in found if run.record]
        self.missing = sorted(set(self.run_ids) - {run.run_id for run in self.runs})
        self.facts: list[Message] = []
        self.last_event: Message | None = None
        newest = self.runs[-1].run_id if self.runs else ""
        for message in bus.read(task.bus):
            if message.type == "FACT":
                self.facts.append(message)
            elif message.type in ("RUN_STOP", "RUN_CRASH") and message.run_id == newest:
                self.last_event = message

    def count(self, status: str) -> int:
        return sum(run.text("status") == status for run in self.runs)


def propagate(task: Task) -> Told:
    """Tell the project's bus that the task is done, unless it has been told of this DONE.

    UserError or OSError where that cannot be; trying again later is safe.
    """
    lock = files.open_lock(task.file(LOCK))
    try:
        files.lock(lock, LOCK_SECONDS, f"the completion of task {task.task}")
        source = _Source(task)
        key = key_of(
            source.done_time, len(source.facts), source.run_ids, source.missing, source.runs
        )
        known = _known(task, source.done_time, key)
        if known is not None:
            _save(task, known, source.done_time)
            return known
        told_at = ids.rfc3339()
        msg_id = bus.append(
            task.project_bus,
            type_="FACT",
            body=_body(source, key, told_at),
            project=task.project,
            task=task.task,
            run=source.runs[-1].run_id if source.runs else "",
            parents=_parents(source),
            meta=_meta(source, key, told_at),
        )
        told = Told(msg_id, key, is_new=True)
        _save(task, told, source.done_time)
        return told
    finally:
        os.close(lock)


def key_of(
    done_time: str,
    facts: int,
    run_ids: Iterable[str],
    missing: Iterable[str],
    records: Iterable[runs.Run],
) -> str:
    """What makes one completion another than the next, as the original computes it."""
    parts = [done_time, f"fact_count={facts}"]
    parts += [f"run_id={name}" for name in run_ids]
    parts += [f"missing_run_info={name}" for name in missing]
    for run in records:
        start, end = (_time_of(run, key) for key in ("start_time", "end_time"))
        outcome = f"status={run.text('status')},exit={run.number('exit_code')}"
        parts.append(f"run={run.run_id},{outcome},start={start},end={end}")
    return hashlib.sha256("|".join(parts).encode("utf-8", "replace")).hexdigest()


def nano_time(nanoseconds: int) -> str:
    """RFC 3339 in UTC with as many digits of the second as say something, as Go writes it."""
    head, _, fraction = ids.rfc3339(nanoseconds).removesuffix("Z").partition(".")
    digits = fraction.rstrip("0")
    return f"{head}.{digits}Z" if digits else f"{head}Z"


def _time_of(run: runs.Run, key: str) -> str:
    moment = run.time_ns(key)
    return nano_time(moment) if moment is not None else ""


# -- whether it was told before


def _known(task: Task, done_time: str, key: str) -> Told | None:
    """What the project was told of this DONE, from the state file, else from its bus.

    The key changes with every run that ends later and every FACT that is
    posted later; the time of DONE changes with DONE alone.
    """
    state = _load(task)
    same_done = state.get("last_done_mtime") == done_time
    if state.get("last_propagation_key") == key or same_done:
        msg_id = str(state.get("last_project_message_id") or "")
        return Told(msg_id, str(state.get("last_propagation_key") or key), is_new=False)
    for message in bus.read(task.project_bus):
        meta = message.meta
        if message.type != "FACT" or meta.get("kind") != KIND:
            continue
        if meta.get("source_task_id", "") not in ("", task.task):
            continue
        is_same = meta.get("source_done_mtime") == done_time and meta.get("source_task_id")
        if meta.get("propagation_key") == key or is_same:
            return Told(message.msg_id, meta.get("propagation_key", key), is_new=False)
    return None


def _load(task: Task) -> dict[str, object]:
    path = task.file(STATE)
    try:
        text = files.read_regular(path, _MAX_BYTES).decode("utf-8", "replace")
        return {str(k): v for k, v in yamlio.load_mapping(text, source=path).items()}
    except FileNotFoundError:
        return {}
    except UserError:
        return {}  # the bus tells the same


def _save(task: Task, told: Told, done_time: str) -> None:
    state = {
        "version": 1,
        "last_propagation_key": told.key,
        "last_project_message_id": told.msg_id,
        "last_propagated_at": ids.rfc3339(),
        "last_done_mtime": done_time,
    }
    known = _load(task)
    if all(known.get(key) == state[key] for key in state if key != "last_propagated_at"):
        return
    files.replace_file(task.file(STATE), yamlio.dump(state).encode(), 0o600)


# -- what is told


def _parents(source: _Source) -> list[dict[str, object]]:
    event = source.last_event
    found: dict[str, dict[str, object]] = {}
    if event is not None:
        found[event.msg_id] = {"msg_id": event.msg_id, "kind": "source_run_event"}
    for fact in source.facts[-MOST_FACTS:]:
        found.setdefault(fact.msg_id, {"msg_id": fact.msg_id, "kind": "source_fact"})
    found.pop("", None)  # a message in the one-line form has no id
    return list(found.values())


def _meta(source: _Source, key: str, told_at: str) -> dict[str, str]:
    task = source.task
    newest = source.runs[-1] if source.runs else None
    meta = {
        "kind": KIND,
        "propagation_key": key,
        "source_project_id": task.project,
        "source_task_id": task.task,
        "source_task_dir": task.path,
        "source_task_bus_path": task.bus,
        "source_done_path": task.file(DONE),
        "source_done_mtime": source.done_time,
        "propagated_at": told_at,
        "run_count": str(len(source.runs)),
        "completed_run_count": str(source.count(runs.COMPLETED)),
        "failed_run_count": str(source.count(runs.FAILED)),
        "running_run_count": str(source.count(runs.RUNNING)),
        "task_fact_count": str(len(source.facts)),
        "source_run_ids": ",".join(source.run_ids),
        "missing_run_info_ids": ",".join(source.missing),
        "source_latest_run_id": newest.run_id if newest else "",
        "source_latest_status": newest.text("status") if newest else "",
        "source_output_path": newest.file(runs.OUTPUT) if newest else "",
        "source_run_info_path": newest.file(runs.RECORD) if newest else "",
        "latest_run_event_id": source.last_event.msg_id if source.last_event else "",
        "latest_run_event_type": source.last_event.type if source.last_event else "",
    }
    if newest:
        meta["source_latest_exit_code"] = str(newest.number("exit_code"))
        for name in ("start_time", "end_time"):
            if moment := _time_of(newest, name):
                meta[f"source_latest_{name}"] = moment
    if source.last_event:
        meta["latest_run_event_ts"] = source.last_event.ts
    return meta


def _body(source: _Source, key: str, told_at: str) -> str:
    task, newest = source.task, source.runs[-1] if source.runs else None
    lines = [
        f"task {task.task} is done",
        "",
        f"source_task_dir: {task.path}",
        f"source_done_mtime: {source.done_time}",
        f"propagated_at: {told_at}",
        f"propagation_key: {key}",
        "",
        "run_outcome_summary:",
        f"- runs: {len(source.runs)}",
        f"- completed: {source.count(runs.COMPLETED)}",
        f"- failed: {source.count(runs.FAILED)}",
        f"- running: {source.count(runs.RUNNING)}",
        f"- latest_run: {newest.run_id if newest else 'none'}",
        f"- latest_output: {newest.file(runs.OUTPUT) if newest else 'none'}",
        "",
        "task_fact_signals:",
        f"- facts: {len(source.facts)}",
    ]
    for fact in reversed(source.facts[-SHOWN_FACTS:]):
        first = fact.body.partition("\n")[0][:_LINE_LIMIT]
        lines.append(f"  - [{fact.ts}] {fact.msg_id} {first}")
    return "\n".join(lines)
