"""Recorded runs for tests of replays: run folders made of captured streams."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from lib import runs
from lib.agents import base
from tests import agent_streams

Record = dict[str, object]

STREAMS = {
    "claude": "claude/stream-tool",
    "codex": "codex/json-tool",
    "gemini": "gemini/stream-tool",
}


def record(
    folder: Path,
    *,
    agent: str = "claude",
    stdout: bytes = b"",
    stderr: bytes = b"",
    output: bytes | None = None,
    timing: str = "",
    **keys: object,
) -> Path:
    """A run folder as a run leaves it; `keys` go into its record."""
    folder.mkdir(parents=True)
    told: Record = {
        "version": 1,
        "run_id": folder.name,
        "project_id": "p",
        "task_id": "recorded",
        "agent": agent,
        "pid": 0,
        "pgid": 0,
        "start_time": "2026-11-22T20:00:00Z",
        "end_time": "2026-11-22T20:00:04Z",
        "exit_code": 0,
        "status": "completed",
        "agent_version": "",
        **keys,
    }
    (folder / runs.RECORD).write_text(yaml.safe_dump(told, sort_keys=False))
    (folder / runs.STDOUT).write_bytes(stdout)
    (folder / runs.STDERR).write_bytes(stderr)
    (folder / runs.PROMPT).write_text("What was asked.\n")
    if output is not None:
        (folder / runs.OUTPUT).write_bytes(output)
    if timing:
        (folder / runs.TIMING).write_text(timing)
    return folder


def answering(agent: str, answer: str) -> bytes:
    """What an agent of that kind prints when it works well and answers so."""
    if agent in ("perplexity", "xai"):
        usage = {"input_tokens": 900, "output_tokens": 60, "cost_usd": 0.25}
        start = {"type": "start", "service": agent, "model": f"{agent}-model"}
        pieces = [{"type": "text", "text": f"{line}\n"} for line in answer.split("\n")]
        result = {"type": "result", "status": "success", "text": answer, "usage": usage}
        return agent_streams.lines_of(start, *pieces, result)
    lines = agent_streams.stream(STREAMS[agent]).decode().split("\n")
    events = [json.loads(line) for line in lines if line]
    return agent_streams.lines_of(*(_answered(agent, event, answer) for event in events))


def _answered(agent: str, event: Record, answer: str) -> Record:
    """The event with another answer in it, where that stands."""
    item = base.as_dict(event.get("item"))
    if agent == "claude" and event.get("type") == "result":
        return {**event, "result": answer}
    if agent == "codex" and item.get("type") == "agent_message":
        return {**event, "item": {**item, "text": answer}}
    if agent == "gemini" and event.get("type") == "message" and event.get("role") == "assistant":
        return {**event, "content": answer}
    return event


def facts_of(folder: Path) -> Mapping[str, object]:
    """What a replay must have in common with what it replays."""
    run = runs.read(str(folder))
    keys = ("status", "exit_code", "error_summary", "error_class", "model", "session_id")
    figures = ("input_tokens", "cached_tokens", "output_tokens", "cost_usd", "turns", "tool_calls")
    names = (runs.STDOUT, runs.STDERR, runs.TRANSCRIPT, runs.OUTPUT)
    return {
        **{key: run.record.get(key) for key in (*keys, *figures)},
        **{name: (folder / name).read_bytes() for name in names},
    }
