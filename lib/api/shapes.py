"""Runs as JSON objects: the summary of the project API, the flat run, and that of the v1 API.

The shapes are those of the original, whose clients read them; keys that only
ours have come behind them.  Every text is redacted here, once.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from lib import ids, redact, runs, usage
from lib.index_entries import RunEntry

# name of the file for clients, its label, and what it is called on disk
RUN_FILES = (
    ("output.md", "output", runs.OUTPUT),
    ("stdout", "stdout", runs.STDOUT),
    ("stderr", "stderr", runs.STDERR),
    ("prompt", "prompt", runs.PROMPT),
    ("transcript.md", "transcript", runs.TRANSCRIPT),
)
_USAGE = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd")
_MAX_CODE = 1 << 31
_MAX_WORDS = 2000  # characters of each text that a search looks through
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")

Shape = dict[str, object]
Key = tuple[str, str]  # project, task


def time_text(written: str, nanoseconds: int | None) -> str:
    """A time of a record as it is written there, put right where it is no UTC time of RFC 3339."""
    if nanoseconds is None:
        return ids.ZERO_TIME
    made = ids.rfc3339(nanoseconds)
    if not _TIME.fullmatch(made):
        return ids.ZERO_TIME  # of a year that RFC 3339 has no digits for
    return written if written[:19] == made[:19] and _TIME.fullmatch(written) else made


def start_time(entry: RunEntry) -> str:
    return time_text(entry.run.text("start_time"), entry.started_ns or None)


def end_time(entry: RunEntry) -> str:
    """The zero time for a run that lives, and where nobody knows when it ended."""
    return time_text(entry.run.text("end_time"), entry.ended_ns)


def activity(entry: RunEntry) -> tuple[int, str]:
    """When something last happened in it by its record, as ns since 1970 and as text."""
    if entry.ended_ns is not None:
        return entry.ended_ns, end_time(entry)
    return entry.started_ns, start_time(entry)


def exit_code(entry: RunEntry) -> int:
    """-1 where there is none, or none is known."""
    code = entry.state.exit_code
    if code is None or entry.state.status == runs.RUNNING or not -_MAX_CODE <= code < _MAX_CODE:
        return -1
    return int(code)


def error_summary(entry: RunEntry) -> str:
    said = entry.run.text("error_summary")
    is_fault = entry.state.status not in (runs.RUNNING, runs.COMPLETED)
    return said or (entry.state.reason if is_fault else "")


def is_shown(entry: RunEntry) -> bool:
    """False for a folder that waits for its start: nothing can be told of it yet."""
    return bool(entry.run.record or entry.run.problem or entry.is_live)


def redacted(fields: Shape) -> Shape:
    """Every text of it redacted.

    Nearly all of them hold no secret, and one look at all together costs a
    tenth of a look at each: nothing that is redacted goes over the end of a line.
    """
    together = "\n".join(_texts(fields))
    if redact.text(together) == together:
        return fields
    return {key: redact.values(value) for key, value in fields.items()}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def flat_run(key: Key, entry: RunEntry) -> Shape:
    """What the tree of the page needs of a run."""
    run = entry.run
    ended = entry.ended_ns is not None
    return redacted(
        {
            "id": run.run_id,
            "task_id": key[1],
            "agent": run.text("agent"),
            "status": entry.state.status,
            "exit_code": exit_code(entry),
            "start_time": start_time(entry),
            **known({"end_time": end_time(entry) if ended else "", **_links(entry)}),
        }
    )


def v1_run(key: Key, entry: RunEntry) -> Shape:
    code = exit_code(entry)
    return redacted(
        {
            "run_id": entry.run.run_id,
            "project_id": key[0],
            "task_id": key[1],
            "status": entry.state.status,
            "process_ownership": ownership(entry),
            "start_time": start_time(entry),
            "end_time": end_time(entry),
            **({"exit_code": code} if code else {}),
            **known(
                {
                    "agent_version": entry.run.text("agent_version"),
                    "error_summary": error_summary(entry),
                }
            ),
        }
    )


def summary(entry: RunEntry, *, with_files: bool) -> Shape:
    """RunSummary; `run_id` beside `id` is what the original's tools look for."""
    run, state = entry.run, entry.state
    error = error_summary(entry)
    fields: Shape = {
        "id": run.run_id,
        "run_id": run.run_id,
        "agent": run.text("agent"),
        **known({"agent_version": run.text("agent_version")}),
        "status": state.status,
        "process_ownership": ownership(entry),
        "exit_code": exit_code(entry),
        "start_time": start_time(entry),
        **known({"end_time": end_time(entry) if entry.ended_ns is not None else ""}),
        **known({**_links(entry), "error_summary": error}),
        **known({"reason": state.reason if state.reason != error else ""}),
        **known({name: run.text(name) for name in ("agent_name", "model")}),
        **_figures(run),
    }
    found = files_of(entry) if with_files else []
    return redacted({**fields, **({"files": found} if found else {})})


def found_run(key: Key, entry: RunEntry) -> Shape:
    """The summary, and where the run is."""
    place = redacted({"project_id": key[0], "task_id": key[1]})
    return {**summary(entry, with_files=False), **place}


def detail(key: Key, entry: RunEntry, children: list[str]) -> Shape:
    """The summary and all that the page shows of one run alone."""
    run = entry.run
    more = {
        "project_id": key[0],
        "task_id": key[1],
        "cwd": run.text("cwd"),
        "pid": run.number("pid"),
        "pgid": run.number("pgid"),
        "commandline": run.text("commandline"),
        "version": run.number("version"),
        "path": run.path,
        "alive_by": entry.state.holder,
        "children": children,
    }
    return {**summary(entry, with_files=True), **redacted({**more})}


def words(key: Key, entry: RunEntry) -> list[str]:
    """The texts by which a run is found: its ids, who did it, and what went wrong."""
    run = entry.run
    fields: Shape = {
        "run_id": run.run_id,
        "project_id": key[0],
        "task_id": key[1],
        **{name: run.text(name) for name in ("agent", "agent_name", "model")},
        "error_summary": error_summary(entry),
        "reason": entry.state.reason,
    }
    return [str(text)[:_MAX_WORDS] for text in redacted(known(fields)).values()]


def ownership(entry: RunEntry) -> str:
    return "external" if entry.run.text("process_ownership") == "external" else "managed"


def files_of(entry: RunEntry) -> list[Shape]:
    """Which of its files there are, and how large; no link counts as one."""
    found: list[Shape] = []
    for name, label, on_disk in RUN_FILES:
        size = size_of(entry.run.file(on_disk))
        if size is not None:
            found.append({"name": name, "label": label, **({"size": size} if size else {})})
    return found


def size_of(path: str) -> int | None:
    """Bytes in a regular file; None for anything else."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _links(entry: RunEntry) -> Shape:
    return {name: entry.run.text(name) for name in ("parent_run_id", "previous_run_id")}


def known(fields: Shape) -> Shape:
    """Without what is empty."""
    return {key: value for key, value in fields.items() if value}


def _figures(run: runs.Run) -> Shape:
    """Tokens and cost where the record tells them."""
    told = usage.Usage([run.record])
    found = {name: getattr(told, name) for name in _USAGE}
    known = {name: value for name, value in found.items() if value is not None}
    return {**known, **({"cost_estimated": True} if told.is_estimated else {})}
