"""What schemathesis does to each request before it is sent; loaded by its command line.

Ids that it invents name nothing that exists: most of the requests get those of
something that is there.  Whatever is to be started is started with the embedded
agent: prompts are invented, too, and nobody else may obey them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import Any

import schemathesis

KNOWN: list[dict[str, str]] = json.loads(os.environ["FUZZ_KNOWN"])
START = "POST /api/v1/tasks"
MAKE = "POST /api/projects"
PLANS, PLANNED = "/api/v1/plans/{project}", "planned"
PLAN_START = f"POST {PLANS}/start"
RETRY = "POST /api/v1/runs/{run}/retry"  # by the agent of the run, which may be a real one
LINES, FIND = "GET /api/v1/runs/{run}/lines", "GET /api/v1/runs/{run}/find"
_calls: Counter[str] = Counter()  # of each operation; one worker asks, so that they are as before


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: Any, kwargs: dict[str, Any]) -> None:
    label = case.operation.label
    _calls[label] += 1
    number = _calls[label]
    known = KNOWN[number % len(KNOWN)]
    if label == RETRY:
        return
    if number % 4 == 1 or (number % 4 and not label.startswith("DELETE")):
        _name_what_is_there(label, case, known)
    if isinstance(case.body, dict):
        _mend(label, case.body, known, number)


def _name_what_is_there(label: str, case: Any, known: dict[str, str]) -> None:
    project = PLANNED if PLANS in label else known["project"]
    for name in case.path_parameters:
        case.path_parameters[name] = {**known, "project": project}[name]
    if label in (LINES, FIND):  # of whose parameters most exclude one another
        case.query.clear()
        case.query.update({"q": "one"} if label == FIND else {"end": "1"})
    if "project_id" in case.query:
        case.query["project_id"] = project
    if "name" in case.query:
        case.query["name"] = "stdout" if "{run}" in label else "TASK.md"


@schemathesis.hook
def after_call(context: schemathesis.HookContext, case: Any, response: Any) -> None:
    with open("answers", "a", encoding="utf-8") as stream:
        stream.write(f"{case.method} {case.operation.path} {response.status_code}\n")


def _mend(label: str, body: dict[str, Any], known: dict[str, str], number: int) -> None:
    """Let some of the bodies be good ones: invented ids and folders never are."""
    if label == START:
        body["agent_type"] = "offline"
    if not number % 4:
        return
    if label == PLAN_START:
        body.pop("only", None)
        body["retry_failed"] = False
    wanted = {"project_id": known["project"], "task_id": known["task"], "run_id": "r"}
    wanted |= {"project_root": "/", "type": "USER"}
    if number % 4 == 3:
        wanted |= {"body": "Read this.", "prompt": "Do it.", "attach_mode": ""}
    if label == MAKE:
        wanted["project_id"] = f"new-{number}"
    body.update({name: value for name, value in wanted.items() if name in body})
    if label == START:
        for name in ("config", "depends_on", "thread_parent", "thread_message_type"):
            body.pop(name, None)
