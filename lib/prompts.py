"""The prompt of a task, as its agent gets it, and the folder of generated prompts.

A generated prompt is made of: a heading and the task's id; where everything
lies, by absolute path; the body that the plan names; what to report and how;
for a review the verdict that is asked for; and a seal, by which the next
generation knows whether a person has edited the file since.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from dataclasses import dataclass

from lib import files, paths, prompt_files
from lib.checked import shown
from lib.errors import UserError
from lib.plan_records import Plan, Task

WRITTEN = "written"
UNCHANGED = "unchanged"
KEPT = "kept"  # a person wrote or edited it: it is used as it is

_REPORTS = (
    ("PROGRESS", "what is done, and what comes next"),
    ("FACT", "what later tasks must know: a file, a figure, a command"),
    ("DECISION", "what you chose, and why"),
    ("ERROR", "what stops you, and what you tried"),
)


@dataclass(frozen=True, slots=True)
class Generated:
    """What became of the prompt of one task."""

    task_id: str
    path: str
    state: str  # WRITTEN, UNCHANGED or KEPT
    sha256: str  # of the file as it is now


def generate(
    plan: Plan, *, root: str, bus_path: str, bin_dir: str, runs_dir: str | None = None
) -> list[Generated]:
    """Write `<root>/prompts/<task_id>.md` for every task of a plan, in plan order.

    Each file is replaced whole.  One that is right already is not touched, and
    one that a person wrote or edited is kept.
    """
    prompts_dir = os.path.join(root, "prompts")
    paths.make_folder(prompts_dir)
    found = []
    for task in plan.tasks.values():
        text = render(
            plan,
            task,
            root=root,
            bus_path=bus_path,
            prompts_dir=prompts_dir,
            bin_dir=bin_dir,
            runs_dir=runs_dir,
        )
        found.append(_write(task, os.path.join(prompts_dir, f"{task.id}.md"), text.encode()))
    if any(prompt.state == WRITTEN for prompt in found):
        files.sync_folder(prompts_dir)
    return found


def _write(task: Task, path: str, wanted: bytes) -> Generated:
    present = _present(path)
    state = UNCHANGED
    if present is not None and (_is_source(task, path) or not prompt_files.is_sealed(present)):
        state, wanted = KEPT, present
    elif present != wanted:
        files.replace_file(path, wanted, name_durable=False)
        state = WRITTEN
    return Generated(task.id, path, state, hashlib.sha256(wanted).hexdigest())


def _is_source(task: Task, path: str) -> bool:
    """True where the plan itself names the file as the task's prompt: it must not feed on itself."""
    return task.prompt_file is not None and os.path.samefile(task.prompt_file, path)


def _present(path: str) -> bytes | None:
    """The bytes of the file that is there; None when there is none."""
    if not os.path.lexists(path):
        return None
    if not os.path.isfile(path):  # a pipe would block the reader
        raise UserError(
            f"the prompt {shown(path)} cannot be generated: something else has its name; move it"
        )
    with open(path, "rb") as file:
        return file.read()


def render(
    plan: Plan,
    task: Task,
    *,
    root: str,
    bus_path: str,
    prompts_dir: str,
    bin_dir: str,
    runs_dir: str | None = None,
) -> str:
    """The whole prompt of a task, sealed; the same for the same plan and places.

    `runs_dir` is `<root>/runs` unless given.  Raises UserError when a source
    has vanished since the plan was read, or a template has a placeholder that
    nothing fills.
    """
    values = _standard_values(plan, task, root, bus_path, prompts_dir, bin_dir)
    parts = [
        f"# {task.title}\n\n**Task ID**: {task.id}",
        _facts(plan, task, root, bus_path),
        _body(plan, task, values).strip("\r\n"),
        _report(bin_dir),
    ]
    if task.depends_on:
        parts.insert(2, _needs(plan, task, prompts_dir, runs_dir or os.path.join(root, "runs")))
    quorum = plan.quorum_of(task)
    if quorum:
        parts.append(_verdict(quorum))
    return prompt_files.sealed("\n\n".join(parts) + "\n")


def _facts(plan: Plan, task: Task, root: str, bus_path: str) -> str:
    worker = f"Role: {task.role}" if task.role is not None else f"Agent: {task.agent}"
    return "\n".join(
        [
            f"- Project: {plan.project}",
            f"- Stage: {task.stage}",
            f"- {worker}",
            f"- Root: {code_span(root)}",
            f"- Working folder: {code_span(task.cwd)}",
            f"- Message bus: {code_span(bus_path)}",
            f"- Depends on: {', '.join(task.depends_on) or 'nothing'}",
        ]
    )


def _needs(plan: Plan, task: Task, prompts_dir: str, runs_dir: str) -> str:
    """Where the results of the tasks are that this one builds on."""
    state = code_span(os.path.join(runs_dir, plan.project, "PLAN-STATE.yaml"))
    lines = [
        "These tasks are done. The answer of each is `output.md` in its newest run folder below "
        f"{code_span(runs_dir)}; their run ids stand in {state}.",
        "",
    ]
    for needed in task.depends_on:
        other = plan.tasks[needed]
        run = f"run_*-{needed}@*" if plan.quorum_of(other) else f"run_*-{needed}"
        prompt = code_span(os.path.join(prompts_dir, f"{needed}.md"))
        lines.append(f"- {needed} ({other.title}): run folder `{run}`, prompt {prompt}")
    return "\n".join(lines)


def _body(plan: Plan, task: Task, values: dict[str, str]) -> str:
    if task.prompt is not None:
        return task.prompt
    if task.prompt_file is not None:
        return prompt_files.read_source(task.prompt_file)
    folders = prompt_files.template_folders(plan.path)
    template = prompt_files.read_template(task.template or "", folders)
    return prompt_files.fill(template, {**task.vars, **values})


def _standard_values(
    plan: Plan, task: Task, root: str, bus_path: str, prompts_dir: str, bin_dir: str
) -> dict[str, str]:
    """The placeholders that every template may use."""
    values = {
        "task_id": task.id,
        "title": task.title,
        "project": plan.project,
        "stage": task.stage,
        "role": task.role or task.agent or "",
        "cwd": plain_path(task.cwd),
        "root": plain_path(root),
        "bus": plain_path(bus_path),
        "prompts": plain_path(prompts_dir),
        "bin": plain_path(bin_dir),
    }
    assert tuple(values) == prompt_files.STANDARD_VARIABLES
    return values


def _report(bin_dir: str) -> str:
    append = shell_word(os.path.join(bin_dir, "bus-append"))
    commands = "\n".join(f'{append} --type {kind} "{what}"' for kind, what in _REPORTS)
    # Not fenced as sh: of a prompt for the shell agent the first such block is run.
    return (
        "## Report\n\n"
        "Work in the working folder. Tell the message bus what others need to know while you "
        "work; these commands find the bus and your task by themselves:\n\n"
        f"{_fenced(commands)}\n\n"
        "Your final answer says what you did, what you checked, and what is left open."
    )


def _verdict(quorum: int) -> str:
    return (
        "## Verdict\n\n"
        f"This is a review that several agents do independently; it passes with {quorum} or more "
        "approvals and no rejection. The last line of your final answer (`output.md`) that is "
        "not blank must be one of these two, with nothing before or after it on the line:\n\n"
        "```text\nVERDICT: APPROVE\nVERDICT: REJECT\n```\n\n"
        "Anything else counts as no verdict."
    )


def plain_path(path: str) -> str:
    """A path as UTF-8 text of one line; with control characters or bytes that are no UTF-8 in
    the form `$'…'`, which bash and zsh read."""
    if path.isprintable():
        return path
    escaped = []
    for character in path:
        if character in "\\'":
            escaped.append("\\" + character)
        elif character.isprintable():
            escaped.append(character)
        else:
            escaped += [f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape")]
    return f"$'{''.join(escaped)}'"


def code_span(path: str) -> str:
    """A path as a Markdown code span that nothing in the path can end.

    Source: CommonMark 0.31, 6.1: a span ends at a run of as many backticks as began it, and
    one space is stripped from both ends when both have one.
    """
    text = plain_path(path)
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text[:1] in "` " or text[-1:] in "` " else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def shell_word(path: str) -> str:
    """A path as one word of a shell command on one line."""
    plain = plain_path(path)
    return shlex.quote(path) if plain == path else plain


def _fenced(text: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
