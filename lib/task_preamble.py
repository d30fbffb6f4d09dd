"""What an agent that works on a task is told before its prompt: where it is, and what it may call.

Every command in it is meant to be called exactly as it stands there.
"""

from __future__ import annotations

import os

from lib import paths, runs
from lib.tasks import DONE, NOTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lib.runner import Request

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%")

RESTART = (
    "Earlier attempts have begun this work: look first at what they left (the files, the notes, "
    "the message bus), then go on from there with what is described below."
)


def text(run: runs.Run, request: Request) -> bytes:
    """The preamble, with the rule that ends it."""
    folder, url = request.task_folder, os.environ.get("JRUN_CONDUCTOR_URL")
    variables = {
        "JRUN_TASK_FOLDER": folder,
        "JRUN_RUN_FOLDER": run.path,
        "JRUN_PROJECT_ID": request.project,
        "JRUN_TASK_ID": request.task,
        "JRUN_ID": run.run_id,
        **({"JRUN_PARENT_ID": request.parent} if request.parent else {}),
        "JRUN_MESSAGE_BUS": request.bus,
        **({"JRUN_CONDUCTOR_URL": url} if url else {}),
    }
    lines = [f"{name}={value}".replace("\n", "\\n") for name, value in variables.items()]
    filled = _TEXT.format(
        output=_shown(run.file(runs.OUTPUT)),
        notes=_shown(f"{folder}/{NOTES}"),
        append=quoted(os.path.join(paths.TOOLKIT, "bin", "bus-append")),
        tail=quoted(os.path.join(paths.TOOLKIT, "bin", "bus-tail")),
        run_agent=quoted(os.path.join(paths.TOOLKIT, "run-agent.py")),
        agent=quoted(request.agent),
        done=quoted(f"{folder}/{DONE}"),
    )
    whole = "\n".join(lines) + "\n" + filled + "\n---\n\n"
    return whole.encode("utf-8", "surrogateescape")


def quoted(word: str) -> str:
    """One word of a shell's command line.  (shlex costs the import of re.)"""
    if word and _PLAIN.issuperset(word):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _shown(path: str) -> str:
    return path.replace("\n", "\\n")


_TEXT = """\
Write your final answer to {output}
Keep notes for whoever goes on with this task after you in {notes}

## Message bus

People and other agents follow this task on its message bus. Post short messages while you work:

    {append} --type PROGRESS "what is done, and what comes next"
    {append} --type FACT "what others must know: a file, a figure, a command"
    {append} --type DECISION "what you chose, and why"
    {append} --type ERROR "what stops you, and what you tried"

Other types are REVIEW, QUESTION and INFO. The variables above are set in your environment, so no
option is needed. What was posted before you came:

    {tail} -n 20

## Child runs

Work that splits into independent parts is done faster by several agents. Write a prompt file for each
part, start one child run for each, all at once, wait for them, and put their results together:

    {run_agent} {agent} . part-1.md &
    {run_agent} {agent} . part-2.md &
    wait

The words behind the script are the agent, its working folder and the prompt file. A child run is
recorded as yours by itself. It prints RUN_DIR=, the folder in which its answer is in output.md,
and ends with the exit code of its agent.

## Completion

When all of the work below is finished and checked, and only then, say so with

    touch {done}

Without that file you, or another agent, will be started again to go on with the work.
"""
