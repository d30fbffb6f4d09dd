"""A task of a plan that says `loop: true`: the process that the plan starts is run-task itself.

For plans only: the scheduler puts it around the agent that does the work, and
says in the options which one that is. run-task --json prints one event a line
(docs/events.md); the runs that it starts are child runs of this one.
"""

from __future__ import annotations

import os
import sys

from lib import ids, paths, redact
from lib.agents import base
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lib.runs import Run

EXECUTABLE: str | None = None
INSTALL = "nothing to install: it is part of the toolkit"
TOKEN_VARIABLES: tuple[str, ...] = ()
PACED = False
STREAM = True
PREAMBLE = False  # the agent inside gets one of its own

_PLACES = (("project", "--project"), ("task", "--task"), ("agent", "--agent"))
_LIMITS = (
    ("runs_dir", "--runs-dir"),
    ("config", "--config"),
    ("idle_timeout", "--idle-timeout"),
    ("max_restarts", "--max-restarts"),
    ("child_wait", "--child-wait-timeout"),
)
_FIGURES = ("input_tokens", "cached_tokens", "output_tokens", "tool_calls")


def command(launch: base.Launch) -> list[str]:
    """The command line of the loop; what it is to run stands in the options."""
    options = launch.options
    if not all(options.get(key) for key, _ in _PLACES):
        raise UserError("the type loop is for plans (loop: true of a task); use bin/run-task")
    script = os.path.join(paths.TOOLKIT, "bin", "run-task")
    argv = [sys.executable, "-S", "-E", script, "--json", "--no-wait", "--resume-ended"]
    for key, option in (*_PLACES, *_LIMITS):
        value = options.get(key)
        if value is not None and value != "":
            argv += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    argv += ["--prompt-file", launch.prompt_path, "--cwd", launch.cwd, "--run-timeout", "0"]
    for name in base.as_list(options.get("env_names")):
        argv += ["--env", str(name)]  # its value comes by the environment, which no `ps` shows
    return argv


def environment(launch: base.Launch) -> dict[str, str | None]:
    """The tokens that the configuration takes from the environment: the loop reads that again.

    The agents inside get their own token and no other's, as ever.
    """
    is_token = base.is_config_token
    return {name: value for name, value in os.environ.items() if is_token(name)}


def token_variables(options: Mapping[str, object]) -> tuple[str, ...]:
    """All of them, as whose turn it is inside is the loop's business."""
    return tuple(map(str, base.as_list(options.get("secrets"))))


def stdin(launch: base.Launch) -> bool:
    """The prompt goes by its file."""
    return False


def settled(options: dict[str, object], run: Run) -> dict[str, object]:
    """Note in the record that its figures are those of its child runs."""
    run.record["includes_children"] = True
    return options


class LoopReader(base.JsonLinesReader):
    """Understands the events of run-task --json, and leaves out those that it does not know."""

    has_tools = False  # until an attempt tells of some

    def on_event(self, event: dict[str, object]) -> str:
        kind = event.get("event")
        text = base.as_line(event.get("text"))
        if kind == "alive":
            return ""
        if kind == "attempt-ended":
            self._take_figures(event)
            return f"■ {text}\n"
        if kind == "attempt-started":
            return f"\n▷ {text}\n"
        if kind == "waiting":
            self.outcome.note = text or self.outcome.note
            return f"↻ {text}\n"
        if kind == "result":
            return self._on_result(event)
        return f"· {text}\n" if text else ""

    def _take_figures(self, event: dict[str, object]) -> None:
        outcome, total = self.outcome, base.as_dict(event.get("total"))
        for key in _FIGURES:
            number = base.as_count(total.get(key))
            if number is not None:
                setattr(outcome, key, number)
        self.has_tools = self.has_tools or base.as_count(total.get("tool_calls")) is not None
        cost = base.as_amount(total.get("cost_usd"))
        outcome.cost_usd = outcome.cost_usd if cost is None else cost
        outcome.cost_estimated = total.get("cost_estimated") is True
        outcome.model = base.as_name(event.get("model")) or outcome.model

    def _on_result(self, event: dict[str, object]) -> str:
        outcome = self.outcome
        self._take_figures(event)
        answer, fault = base.as_text(event.get("answer")), ""
        if event.get("status") != "done":
            fault = base.as_line(event.get("why")) or base.NO_REASON
            outcome.fault_class = base.as_name(event.get("error_class"))
            reset = ids.parse_rfc3339(event.get("reset_time"))
            outcome.fault_reset = reset / ids.NANOSECONDS if reset else None
            outcome.stopped = event.get("status") == "stopped" and outcome.fault_class is None
        # What the agents said in between is in their own transcripts.
        shown = "" if fault else f"\n{redact.for_terminal(answer)}\n\n"
        self.settle(answer, fault)
        return shown + self.summary()


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """It understands the events of the loop."""
    return LoopReader()


def failure(ended: base.Ended) -> base.Failure:
    """Of which class a failure is: the loop knows it of its last attempt."""
    from lib.agents import _failure

    if ended.outcome.stopped and ended.outcome.error:
        return base.Failure("failed", ended.outcome.error)
    return _failure.as_told(ended) or _failure.of_plain(ended)
