"""How a plan was started, kept in the header of its state, and the command that starts it so again.

What tells how a plan is run is kept: who does it, how wide, what a failure means,
up to which stage.  What a start was about is not (--only, --retry-failed, --fresh,
--redo-changed), but a start that was cut short goes on with its own tasks.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence

from lib import paths
from lib.cli import Values
from lib.errors import EXIT_INTERRUPTED, EXIT_QUOTA, UserError

STAGES = ("from_stage", "to_stage")
KEPT = (
    "agent", "replay", "speed", "max_parallel", "keep_going", "kill", "max_wait", "no_wait", *STAGES,
)  # fmt: skip
SCRIPT = "run-all-tasks.py"
_CUT_SHORT = (None, EXIT_INTERRUPTED, EXIT_QUOTA)  # exit codes of such a start
_IDS_EACH = 200  # ids in one word: the kernel takes 128 KiB


def manner(values: Values, config: str, earlier: Mapping[str, object]) -> dict[str, object]:
    """What the header shall tell of how this start was asked for.

    A start of single tasks goes by no stages, and leaves those of the `earlier` one as they were.
    """
    given = {name: getattr(values, name) for name in KEPT if values.is_given(name)}
    if "replay" in given:
        given["replay"] = os.path.abspath(os.path.expanduser(str(given["replay"])))
    kept = earlier.get("options")
    if values.is_given("only") and isinstance(kept, dict):
        given |= {name: kept[name] for name in STAGES if name in kept}
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = ""  # it was removed: nothing can be started there again
    return {"cwd": cwd, "config": config, "options": given}


class Start:
    """A start of run-all-tasks.py: its `words`, in which folder, and the variables it needs.

    Without `cwd` any folder will do.
    """

    def __init__(self, words: Sequence[str], cwd: str, variables: Mapping[str, str]) -> None:
        self.words = list(words)
        self.cwd = cwd
        self.variables = dict(variables)

    def line(self, script: str = "") -> str:
        """The same as a line for a shell."""
        there = f"cd {shlex.quote(self.cwd)} && " if "--prompts" in self.words else ""
        script = os.path.join(paths.TOOLKIT, SCRIPT) if there else f"./{SCRIPT}"
        before = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return there + " ".join([*before, shlex.join([script, *self.words])])


def start(
    header: Mapping[str, object],
    runs_dir: str,
    known: Collection[str],
    *,
    only: Sequence[str] = (),
    retry_failed: bool = False,
) -> Start:
    """What starts the plan of a state in that runs folder again, in the manner of its last start.

    `known` are the ids of its tasks.  UserError for a header that does not tell enough.
    """
    if not isinstance(header.get("options"), dict):
        raise UserError("how the plan was started is not noted in its state")
    chosen = list(only or ([] if retry_failed else _rest(header, known)))
    words = _source(header) + _manner(header, of_stages=not chosen)
    for at in range(0, len(chosen), _IDS_EACH):
        words += ["--only", ",".join(chosen[at : at + _IDS_EACH])]
    if retry_failed:
        words.append("--retry-failed")
    places, variables = _places(header, runs_dir)
    return Start([*words, *places], _text(header, "cwd"), variables)


def _source(header: Mapping[str, object]) -> list[str]:
    path, config = _text(header, "plan"), _text(header, "config")
    words = ["--prompts", path] if header.get("prompts_agent") else [path]
    return [*words, "--config", config] if config else words


def _manner(header: Mapping[str, object], *, of_stages: bool) -> list[str]:
    kept = header.get("options")
    words: list[str] = []
    for name in KEPT:
        value = kept.get(name) if isinstance(kept, dict) else None
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value not in (None, False, "") and (of_stages or name not in STAGES):
            words += [option, _checked(str(value), name)]
    return words


def _rest(header: Mapping[str, object], known: Collection[str]) -> list[str]:
    """The tasks of a start that was about some of them, and was cut short."""
    scope = header.get("scope")
    if not isinstance(scope, list) or header.get("exit_code") not in _CUT_SHORT:
        return []
    return [name for name in known if name in scope]


def _places(header: Mapping[str, object], runs_dir: str) -> tuple[list[str], dict[str, str]]:
    """Options and variables that lead to the same root, runs folder and bus."""
    root, runs, bus = _text(header, "root"), _text(header, "runs_dir"), _text(header, "bus")
    if os.path.realpath(runs) != os.path.realpath(runs_dir):
        raise UserError(f"the plan was started in another runs folder, {runs}")
    if runs == os.path.join(root, "runs") and bus == os.path.join(root, paths.BUS_NAME):
        return ["--root", root], {}
    return [], {"CONDUCTOR_ROOT": root, "JRUN_RUNS_DIR": runs, "JRUN_MESSAGE_BUS": bus}


def _text(header: Mapping[str, object], key: str) -> str:
    """A text of the header; all but `config` are absolute paths."""
    value = header.get(key)
    is_text = isinstance(value, str) and (value.startswith("/") or (key == "config" and not value))
    if not is_text:
        raise UserError(f"the state of the plan does not tell its {key}")
    return _checked(str(value), key)


def _checked(value: str, key: str) -> str:
    """`value`, which can be a word of a command line; a state is somebody's file."""
    try:
        value.encode()
    except UnicodeEncodeError:
        value = "\0"
    if "\0" in value:
        raise UserError(f"the state of the plan has under {key} what no command line can have")
    return value
