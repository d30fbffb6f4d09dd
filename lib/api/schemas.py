"""How the answers about projects, tasks, runs and messages look, for openapi.json."""

from __future__ import annotations

from collections.abc import Mapping

from lib.api.route import FLAG, NUMBER, TEXT, Query, Schema, ref

TIME: Schema = {"type": "string", "format": "date-time"}
AMOUNT: Schema = {"type": "number"}
TEXTS: Schema = {"type": "array", "items": TEXT}
COUNTS: Schema = {"type": "object", "additionalProperties": NUMBER}
_RUN_STATUS: Schema = {
    "type": "string",
    "description": "running, completed, failed or unknown; in records of others perhaps more.",
}

LIMIT = Query("limit", "Elements of the page: 50 when left out or senseless, 500 at most.")
OFFSET = Query("offset", "How many elements to leave out at the beginning.")


def listed(name: str) -> Schema:
    return {"type": "array", "items": ref(name)}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def thing(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object; it may have more keys than are named here."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


def request(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """The body of a request: it may have no other keys."""
    return {**thing(required, optional), "additionalProperties": False}


def wrapped(key: str, name: str) -> Schema:
    """An object that has but a list."""
    return thing({key: listed(name)})


def page(name: str) -> Schema:
    return thing(
        {
            "items": listed(name),
            "total": NUMBER,
            "limit": NUMBER,
            "offset": NUMBER,
            "has_more": FLAG,
        }
    )


_RUN_USAGE: Mapping[str, Schema] = {
    "agent_name": TEXT,
    "model": TEXT,
    "input_tokens": NUMBER,
    "cached_tokens": NUMBER,
    "output_tokens": NUMBER,
    "cost_usd": AMOUNT,
    "cost_estimated": FLAG,
}
RUN_SUMMARY_REQUIRED: Mapping[str, Schema] = {
    "id": TEXT,
    "run_id": TEXT,
    "agent": TEXT,
    "status": _RUN_STATUS,
    "process_ownership": {"type": "string", "enum": ["managed", "external"]},
    "exit_code": NUMBER,
    "start_time": TIME,
}
RUN_SUMMARY_OPTIONAL: Mapping[str, Schema] = {
    "agent_version": TEXT,
    "end_time": TIME,
    "parent_run_id": TEXT,
    "previous_run_id": TEXT,
    "error_summary": TEXT,
    "reason": TEXT,
    "files": listed("RunFile"),
    **_RUN_USAGE,
}
_V1_TASK: Mapping[str, Schema] = {
    "project_id": TEXT,
    "task_id": TEXT,
    "status": TEXT,
    "last_activity": TIME,
}

SCHEMAS: dict[str, Schema] = {
    "ProjectSummary": thing(
        {"id": TEXT, "last_activity": TIME, "task_count": NUMBER}, {"project_root": TEXT}
    ),
    "ProjectStats": thing(
        {
            "project_id": TEXT,
            **dict.fromkeys(
                (
                    "total_tasks",
                    "total_runs",
                    "running_runs",
                    "completed_runs",
                    "failed_runs",
                    "crashed_runs",
                    "message_bus_files",
                    "message_bus_total_bytes",
                ),
                NUMBER,
            ),
        }
    ),
    "ThreadParent": thing(
        {"project_id": TEXT, "task_id": TEXT, "run_id": TEXT, "message_id": TEXT},
        {"message_type": TEXT},
    ),
    "TaskItem": thing(
        {
            "id": TEXT,
            "project_id": TEXT,
            "status": TEXT,
            "last_activity": TIME,
            "done": FLAG,
            "run_count": NUMBER,
            "run_counts": COUNTS,
            "depends_on": or_null(TEXTS),
            "blocked_by": or_null(TEXTS),
            "thread_parent": or_null(ref("ThreadParent")),
        },
        {
            "queue_position": NUMBER,
            "last_run_status": TEXT,
            "last_run_exit_code": NUMBER,
            "last_run_output_size": NUMBER,
            "live": FLAG,
            "loop": TEXT,
        },
    ),
    "TaskDetail": thing(
        {
            "id": TEXT,
            "project_id": TEXT,
            "status": TEXT,
            "last_activity": TIME,
            "created_at": TIME,
            "done": FLAG,
            "state": {
                "type": "string",
                "enum": ["idle", "running", "done", "blocked", "queued"],
            },
            "runs": listed("RunSummary"),
        },
        {
            "queue_position": NUMBER,
            "depends_on": TEXTS,
            "blocked_by": TEXTS,
            "thread_parent": ref("ThreadParent"),
            "live": FLAG,
            "loop": TEXT,
        },
    ),
    "RunFile": thing({"name": TEXT, "label": TEXT}, {"size": NUMBER}),
    "RunSummary": thing(RUN_SUMMARY_REQUIRED, RUN_SUMMARY_OPTIONAL),
    "RunDetail": thing(
        {
            **RUN_SUMMARY_REQUIRED,
            "project_id": TEXT,
            "task_id": TEXT,
            "cwd": TEXT,
            "pid": NUMBER,
            "pgid": NUMBER,
            "commandline": TEXT,
            "version": NUMBER,
            "path": TEXT,
            "alive_by": {"type": "string", "enum": ["", "supervisor", "agent"]},
            "children": TEXTS,
        },
        RUN_SUMMARY_OPTIONAL,
    ),
    "FlatRun": thing(
        {
            "id": TEXT,
            "task_id": TEXT,
            "agent": TEXT,
            "status": _RUN_STATUS,
            "exit_code": NUMBER,
            "start_time": TIME,
        },
        {"end_time": TIME, "parent_run_id": TEXT, "previous_run_id": TEXT},
    ),
    "V1Run": thing(
        {
            "run_id": TEXT,
            "project_id": TEXT,
            "task_id": TEXT,
            "status": _RUN_STATUS,
            "start_time": TIME,
            "end_time": TIME,
        },
        {
            "process_ownership": TEXT,
            "exit_code": NUMBER,
            "agent_version": TEXT,
            "error_summary": TEXT,
        },
    ),
    "V1Task": thing(
        _V1_TASK,
        {
            "queue_position": NUMBER,
            "depends_on": TEXTS,
            "blocked_by": TEXTS,
            "runs": listed("V1Run"),
        },
    ),
    "FileContent": thing(
        {"name": TEXT, "content": TEXT, "modified": TIME, "size_bytes": NUMBER},
        {"truncated": FLAG},
    ),
    "Message": thing(
        {
            "msg_id": TEXT,
            "timestamp": TIME,
            "ts": TIME,
            "type": TEXT,
            "project_id": TEXT,
            "body": TEXT,
        },
        {
            "task_id": TEXT,
            "run_id": TEXT,
            "issue_id": TEXT,
            "parents": {
                "type": "array",
                "items": thing({"msg_id": TEXT, "kind": TEXT, "meta": or_null({"type": "object"})}),
            },
            "links": {
                "type": "array",
                "items": thing({"url": TEXT, "label": TEXT, "kind": TEXT}),
            },
            "meta": {"type": "object", "additionalProperties": TEXT},
            "truncated": FLAG,
        },
    ),
    "MessageList": thing({"messages": listed("Message")}, {"has_more": FLAG}),
}
