"""Codex CLI (`codex exec`), its answer read from the events it prints with --json.

    agents:
      codex:
        base_url: http://127.0.0.1:8899/v1  # with its /v1
        args: [-c, model_reasoning_effort="high"]  # further arguments
        unattended: [--sandbox, workspace-write]  # in place of the switch that lets it do all
        output: text  # plain text in place of events: no tokens

It takes its key from CODEX_API_KEY or from `codex login`; where there is
neither, OPENAI_API_KEY, which it does not look at itself, is passed on as that.
Its plugins are off: with them it asks api.github.com at each start. It cannot
be told a session id before the start, and tells it with its first event.

Source: `codex exec --help`, and runs of 0.169.0.
"""

from __future__ import annotations

import os

from lib import files
from lib.agents import _render, base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTABLE: str | None = "codex"
INSTALL = "npm install -g @openai/codex"
# A model provider of the user's own config.toml may well name the second one.
TOKEN_VARIABLES: tuple[str, ...] = ("CODEX_API_KEY", "OPENAI_API_KEY")
PACED = True
STREAM = True
RESUMES = True
STREAM_OPTIONS = ("--json", "--skip-git-repo-check")

SETTINGS = {
    "base_url": base.address,
    "args": list,
    "unattended": list,
    "output": base.OUTPUTS,
}
VERSION = r"codex\S* (\d[\w.-]*)"
TRIED = ("0.169.0", "0.169.0")
HOME_VARIABLE = "CODEX_HOME"
LOGIN = "run codex login, or set CODEX_API_KEY"

_UNATTENDED = ("--dangerously-bypass-approvals-and-sandbox",)
# `--disable plugins` would do as well, but is an error to a version that has none.
_QUIET = (
    "features.plugins=false",
    "check_for_update_on_startup=false",
    "analytics.enabled=false",
    "feedback.enabled=false",
)


def command(launch: base.Launch) -> list[str]:
    """The command line; the prompt comes on stdin."""
    options = launch.options
    argv = [launch.executable or "codex", "exec", *base.words(options, "unattended", _UNATTENDED)]
    # Some options take any number of values: another option must follow them.
    argv += base.words(options, "args")
    if not launch.is_old:
        argv += ["--skip-git-repo-check"]
    if not (launch.is_old or base.wants_text(options)):
        argv += ["--json"]
    for setting in _QUIET:
        argv += ["-c", setting]
    base_url = options.get("base_url")
    if isinstance(base_url, str) and base_url:
        argv += ["-c", f"openai_base_url={_toml_string(base_url)}"]
    if launch.model:
        argv += ["-m", base.argument("model", launch.model)]
    if launch.resume and launch.session_id:
        # Behind `resume` it would not take all of the options.
        argv += ["resume", base.argument("session id", launch.session_id)]
    return [*argv, "-"]


def _toml_string(text: str) -> str:
    """Source: TOML 1.0, basic strings."""
    plain = [c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text]
    return f'"{"".join(plain)}"'


def environment(launch: base.Launch) -> dict[str, str | None]:
    """What to set and (None) unset in the agent's environment."""
    changes: dict[str, str | None] = dict.fromkeys(base.NESTED_SESSION_VARIABLES)
    changes["RUST_LOG"] = "off"  # else good runs have ERROR lines on stderr
    if launch.options.get("token"):
        changes["OPENAI_API_KEY"] = None
    key = _key_for_others(launch.options)
    if key:
        changes["CODEX_API_KEY"] = key
    return changes


def _key_for_others(options: Mapping[str, object]) -> str | None:
    """OPENAI_API_KEY, if there is nothing else to log in with."""
    variables = {**os.environ, **base.as_dict(options.get("env"))}
    if options.get("token") or variables.get("CODEX_API_KEY"):
        return None
    # A key goes before a login, and what the login pays for is not to be paid twice.
    if os.path.exists(_login_path(variables)):
        return None
    return str(variables.get("OPENAI_API_KEY") or "") or None


def settings_folder(variables: Mapping[str, object]) -> str:
    """Where its login and its config.toml are."""
    return os.path.expanduser(str(variables.get(HOME_VARIABLE) or "~/.codex"))


def _login_path(variables: Mapping[str, object]) -> str:
    return os.path.join(settings_folder(variables), "auth.json")


def model_argument(options: Mapping[str, object]) -> str:
    """The model that `args:` of the configuration name; "" for none."""
    words = base.words(options, "args")
    found = ""
    for word, following in zip(words, (*words[1:], ""), strict=False):
        if word in ("-m", "--model"):
            found = following
        elif word.startswith("--model="):
            found = word.removeprefix("--model=")
        elif word in ("-c", "--config") and following.partition("=")[0].strip() == "model":
            found = following.partition("=")[2].strip().strip("\"'")
    return found


def configured_model(folder: str) -> str:
    """The model that the config.toml of its settings folder names; "" where it names none.

    Source: docs/config.md of codex: `model`, which that of the chosen `profile` replaces.
    """
    import tomllib

    try:
        text = files.read_regular(os.path.join(folder, "config.toml"), 1 << 20)
        settings = tomllib.loads(text.decode())
    except (OSError, ValueError, RecursionError):
        return ""
    profile = base.as_dict(settings.get("profiles")).get(base.as_text(settings.get("profile")))
    model = base.as_dict(profile).get("model") or settings.get("model")
    return base.as_name(model) or ""


def find_login(variables: Mapping[str, str]) -> tuple[str, str]:
    """What it seems to log in with ("" = nothing is seen), and what speaks against that."""
    if variables.get("CODEX_API_KEY"):
        return "CODEX_API_KEY is set", ""
    path = _login_path(variables)
    if os.path.exists(path):
        return f"{path} is there", ""
    return ("OPENAI_API_KEY is set", "") if variables.get("OPENAI_API_KEY") else ("", "")


def conditions(
    options: Mapping[str, object], variables: Mapping[str, str]
) -> list[tuple[str, str, str, str]]:
    """What must hold for it to work here: (what, "ok" | "note" | "FAIL", finding, cure).

    Neither root nor a folder that is untrusted, or no repository, stops it
    with the options of `command`.
    """
    if options.get("base_url") or not variables.get("OPENAI_BASE_URL"):
        return []
    text = "codex ignores OPENAI_BASE_URL: its requests go to the real service"
    return [("address", "note", text, "put the address into base_url: of codex in config.yaml")]


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """A reader of the events, or of plain text.

    Option `resume` says that they are of a resumed session, and `totals_before` what
    that had used until then.
    """
    options = options or {}
    if base.wants_text(options):
        return base.AnswerReader()
    return StreamReader(base.used_before(options))


# What its usage is called, here and there.
_FIGURES = {
    "input_tokens": "input_tokens",
    "cached_tokens": "cached_input_tokens",
    "output_tokens": "output_tokens",
}


class StreamReader(base.JsonLinesReader):
    """Understands the events of `codex exec --json`, and leaves out those it does not know.

    They tell neither model nor cost. Their tokens are the session's: those of this
    run are what is more than `before`, and unknown where that is.
    """

    end_event = "turn.completed"

    def __init__(self, before: object = base.NOTHING_USED) -> None:
        super().__init__()
        self._before = before
        self._turns = self.outcome.turns = 0
        self._answer = ""

    def on_event(self, event: dict[str, object]) -> str:
        kind = event.get("type")
        if kind in ("item.started", "item.updated", "item.completed"):
            return self._on_item(base.as_dict(event.get("item")), kind == "item.completed")
        if kind == "thread.started":
            self.outcome.session_id = base.as_session_id(event.get("thread_id"))
            return self.begin()
        if kind == "turn.started":
            return self._on_turn_started()
        if kind == "error":
            return self._on_error(base.as_line(event.get("message")))
        if kind == "turn.failed":
            said = base.as_line(base.as_dict(event.get("error")).get("message"))
            self.settle("", said or self.fault or base.NO_REASON)
            return self.summary()
        if kind == "turn.completed":
            return self._on_turn_completed(base.as_dict(event.get("usage")))
        return ""

    def _on_turn_started(self) -> str:
        """A turn that has begun is no success, whatever the one before it was."""
        self._ended = self.outcome.success = False
        self.outcome.final_text = self.outcome.error = None
        self._answer = self.fault = ""
        return ""

    def _on_error(self, text: str) -> str:
        """Note it: only `turn.failed` tells that it was not overcome."""
        self.outcome.note = text or self.outcome.note
        if text.startswith("Reconnecting"):
            return f"↻ {text}\n"
        self.fault = text or self.fault
        return f"· {text}\n"

    def _on_turn_completed(self, usage: dict[str, object]) -> str:
        self._turns += 1
        outcome = self.outcome
        outcome.turns = self._turns
        totals = outcome.take_session_usage(usage, _FIGURES, self._before)
        outcome.session_totals = totals or None
        self.settle(self._answer)
        return self.summary()

    def _on_item(self, item: dict[str, object], is_done: bool) -> str:
        kind = item.get("type")
        if kind in _TOOLS:
            return self._on_tool(item, is_done)
        if kind == "agent_message" and is_done:
            self._answer = base.as_text(item.get("text"))
            return _render.paragraph(self._answer)
        if kind == "error" and is_done:  # a warning, such as of a model it does not know
            return f"· {base.as_line(item.get('message'))}\n"
        return ""

    def _on_tool(self, item: dict[str, object], is_done: bool) -> str:
        tool_id = base.as_text(item.get("id"))
        shown = ""
        if tool_id not in self._open_tools:  # some kinds have no item.started
            self.begin_tool(tool_id)
            shown = _tool_call(item)
        if is_done:
            self.end_tool(tool_id)
            shown += _tool_result(item)
        return shown


# Source: codex-rs/exec/src/exec_events.rs.
_TOOLS = ("command_execution", "file_change", "mcp_tool_call", "collab_tool_call", "web_search")


def _tool_call(item: dict[str, object]) -> str:
    kind, tool = base.as_name(item.get("type")), base.as_name(item.get("tool"))
    if kind == "mcp_tool_call":
        name = f"{base.as_name(item.get('server')) or '?'}.{tool or '?'}"
        return _render.tool_call(name, base.as_dict(item.get("arguments")))
    if kind == "file_change":
        changes = [base.as_dict(change) for change in base.as_list(item.get("changes"))]
        words = [f"{base.as_text(c.get('kind'))} {base.as_text(c.get('path'))}" for c in changes]
        return _render.tool_call(kind, {"path": ", ".join(words)})
    return _render.tool_call(tool or kind, item)


def _tool_result(item: dict[str, object]) -> str:
    failed = item.get("status") in ("failed", "declined") or bool(
        base.as_count(item.get("exit_code"))
    )
    output = base.as_text(item.get("aggregated_output"))
    result = base.joined_texts(base.as_dict(item.get("result")).get("content"))
    text = output or result or base.as_text(base.as_dict(item.get("error")).get("message"))
    # Of file changes and searches there is nothing to show.
    is_silent = item.get("type") in ("file_change", "web_search", "collab_tool_call")
    return "" if is_silent and not failed else _render.tool_result(text, is_error=failed)


def failure(ended: base.Ended) -> base.Failure:
    """Of which class a failure is. Its stderr in text mode has prompt and answer in it, too."""
    from lib.agents import _failure

    signs = (
        (
            "login",
            "missing environment variable",
            "has no key for its provider",
            "set the variable that its config.toml names",
        ),
        ("bad-request", "no prompt provided", "was given an empty prompt", "write one"),
        (
            "bad-request",
            "not inside a trusted directory",
            "does not trust its working folder",
            "take unattended: out of the agent's settings, or make a git repository",
        ),
        (
            "bad-request",
            r"no such file or directory \(os error 2\)",
            "found no such folder or file",
            "correct the working folder, and args: of the agent",
        ),
    )
    lines = _failure.plain_lines(ended)
    is_cut = len(ended.stderr) > base.TAIL_BYTES // 2 and ended.options.get("output") == "text"
    if is_cut or any(line.startswith("OpenAI Codex v") for line in lines):
        own = ("ERROR", "Error", "error:", "thread '")
        lines = [line for line in lines if line.startswith(own)]
    program = _failure.Program(install=INSTALL, login=LOGIN, options=STREAM_OPTIONS, signs=signs)
    return _failure.of_program(ended, program, lines)
