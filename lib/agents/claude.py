"""Claude Code (`claude -p`), its answer read from the stream-json it prints.

    agents:
      claude:
        base_url: http://127.0.0.1:8899  # without a /v1
        sandbox: true  # root may do anything on this machine
        args: [--max-turns, 50]  # further arguments
        unattended: [--permission-mode, acceptEdits]  # in place of what lets it do all
        output: text  # plain text in place of events: neither tokens nor cost

Source: `claude --help` and runs of 2.1.197 and 2.1.330.
"""

from __future__ import annotations

import os

from lib.agents import _render, base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTABLE: str | None = "claude"
INSTALL = "npm install -g @anthropic-ai/claude-code"
TOKEN_VARIABLES: tuple[str, ...] = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
)
PACED = True
STREAM = True
CHOOSES_SESSION = True
RESUMES = True
STREAM_OPTIONS = (
    *("--output-format", "--verbose", "--session-id", "--input-format"),
    *("--tools", "--permission-mode"),
)

SETTINGS = {
    "base_url": base.address,
    "sandbox": bool,
    "args": list,
    "unattended": list,
    "output": base.OUTPUTS,
}
VERSION = r"(\d[\w.-]*) \(Claude Code\)"
TRIED = ("2.1.197", "2.1.330")
HOME_VARIABLE = "CLAUDE_CONFIG_DIR"
LOGIN = "set ANTHROPIC_API_KEY, or run claude and type /login"
# Source: npm 11 with 2.1.330; its program is a placeholder until then.
REPAIR = "where npm held back its install script: node install.cjs in its package folder"

_UNATTENDED = ("--tools", "default", "--permission-mode", "bypassPermissions")
_OLD_UNATTENDED = ("--dangerously-skip-permissions",)
# Unless the user has exported something else.
_QUIET = {
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    # With its own default of 10 a wrong key takes 190 s to be told, with 4 some 20 s.
    "CLAUDE_CODE_MAX_RETRIES": "4",
}


def command(launch: base.Launch) -> list[str]:
    """The command line; the prompt comes on stdin."""
    options = launch.options
    unattended = _OLD_UNATTENDED if launch.is_old else _UNATTENDED
    argv = [launch.executable or "claude", "-p"]
    if not (launch.is_old or base.wants_text(options)):  # stream-json demands --verbose
        argv += ["--input-format", "text", "--output-format", "stream-json", "--verbose"]
    # --tools takes any number of values: an option, and no word, must follow it.
    argv += base.words(options, "unattended", unattended)
    argv += base.words(options, "args")
    if launch.model:
        argv += ["--model", base.argument("model", launch.model)]
    if launch.session_id:
        option = "--resume" if launch.resume else "--session-id"
        argv += [option, base.argument("session id", launch.session_id)]
    return argv


def environment(launch: base.Launch) -> dict[str, str | None]:
    """What to set and (None) unset in the agent's environment."""
    changes: dict[str, str | None] = dict.fromkeys(base.NESTED_SESSION_VARIABLES)
    changes.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    if launch.options.get("token"):  # else it sends both: a token goes beside a key, not before it
        changes.update(dict.fromkeys(TOKEN_VARIABLES[1:]))
    base_url = launch.options.get("base_url")
    if isinstance(base_url, str) and base_url:
        changes["ANTHROPIC_BASE_URL"] = base_url
    # It tells claude that root may do anything here: a statement about the machine,
    # which only its owner can make.
    if launch.options.get("sandbox") is True:
        changes["IS_SANDBOX"] = "1"
    return changes


def find_login(variables: Mapping[str, str]) -> tuple[str, str]:
    """What it seems to log in with ("" = nothing is seen), and what speaks against that."""
    for name in (*TOKEN_VARIABLES, "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"):
        if variables.get(name):
            return f"{name} is set", ""
    home = os.path.expanduser(variables.get(HOME_VARIABLE) or "~/.claude")
    path = os.path.join(home, ".credentials.json")  # on macOS it may be in the keychain instead
    return (f"{path} is there", "") if os.path.exists(path) else ("", "")


def conditions(
    options: Mapping[str, object], variables: Mapping[str, str]
) -> list[tuple[str, str, str, str]]:
    """What must hold for it to work here: (what, "ok" | "note" | "FAIL", finding, cure)."""
    unattended = base.words(options, "unattended", _UNATTENDED)
    if os.geteuid() != 0 or not {"bypassPermissions", *_OLD_UNATTENDED} & set(unattended):
        return []
    for name in ("IS_SANDBOX", "CLAUDE_CODE_BUBBLEWRAP"):
        if variables.get(name) == "1":
            return [("as root", "ok", f"{name}=1 says that this machine may be damaged", "")]
    said = variables.get("IS_SANDBOX")
    but = f"; IS_SANDBOX={said} does not count, only 1 does" if said else ""
    cure = "run as a user; or, on a machine made for it: sandbox: true in config.yaml"
    return [("as root", "FAIL", f"claude refuses to run unattended as root{but}", cure)]


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """A reader of claude's stream-json, or of plain text; options as codex.reader has them."""
    options = options or {}
    if base.wants_text(options):
        return base.AnswerReader()
    return StreamReader(base.used_before(options))


class StreamReader(base.JsonLinesReader):
    """Understands stream-json, and any events that it does not know, by leaving them out.

    Where only totals of the session are told, what this run used is what is more than
    `before`, and unknown where that is.
    """

    def __init__(self, before: object = base.NOTHING_USED) -> None:
        super().__init__()
        self._before = before
        self._last_text = ""
        self._cost = 0.0

    def on_event(self, event: dict[str, object]) -> str:
        session_id = base.as_session_id(event.get("session_id"))
        self.outcome.session_id = session_id or self.outcome.session_id
        kind = event.get("type")
        if kind == "system":
            return self._on_system(event)
        if kind == "assistant":
            return self._on_assistant(event)
        if kind == "user":
            return self._on_user(event)
        if kind == "result":
            return self._on_result(event)
        if kind == "rate_limit_event":
            self._note_limit(base.as_dict(event.get("rate_limit_info")))
        return ""

    def _note_limit(self, limit: dict[str, object]) -> None:
        """Source: claude-agent-sdk, SDKRateLimitInfo; it comes with a login, not with a key."""
        resets_at = base.as_amount(limit.get("resetsAt"))
        self.outcome.fault_reset = resets_at if limit.get("status") == "rejected" else None

    def _on_system(self, event: dict[str, object]) -> str:
        if event.get("subtype") == "init":
            self.outcome.model = self.outcome.model or base.as_name(event.get("model"))
            return self.begin()
        if event.get("subtype") == "api_retry":
            self.outcome.note = _retry(event)
            return f"↻ {self.outcome.note}\n"
        return ""

    def _on_assistant(self, event: dict[str, object]) -> str:
        message = base.as_dict(event.get("message"))
        nested = event.get("parent_tool_use_id") is not None  # a sub-agent speaks
        model = base.as_name(message.get("model"))
        if model == "<synthetic>" and not nested:  # an error, in the program's own words
            self.outcome.fault_class = base.as_name(event.get("error"))
        if model and model != "<synthetic>" and not nested:
            self.outcome.model = model
        shown = []
        for item in base.as_list(message.get("content")):
            block = base.as_dict(item)
            if block.get("type") == "tool_use":
                shown.append(self._on_tool_use(block, nested=nested))
            elif block.get("type") == "text" and not nested:
                self._last_text = base.as_text(block.get("text"))
                shown.append(_render.paragraph(self._last_text))
        return "".join(shown)

    def _on_tool_use(self, block: dict[str, object], *, nested: bool) -> str:
        self.begin_tool(base.as_text(block.get("id")))
        who = "sub-agent's tool" if nested else "tool"
        name = base.as_name(block.get("name"))
        return _render.tool_call(name, base.as_dict(block.get("input")), who)

    def _on_user(self, event: dict[str, object]) -> str:
        nested = event.get("parent_tool_use_id") is not None
        content = base.as_dict(event.get("message")).get("content")
        shown = []
        for item in base.as_list(content):
            block = base.as_dict(item)
            if block.get("type") == "tool_result":
                self.end_tool(base.as_text(block.get("tool_use_id")))
                if not nested:
                    shown.append(_tool_result(block))
            elif block.get("type") == "text" and not nested:
                shown.append(f"· {_render.one_line(base.as_text(block.get('text')))}\n")
        return "".join(shown)

    def _on_result(self, event: dict[str, object]) -> str:
        """Take the end of a turn; it is the last event, or the last of its kind counts."""
        self._take_figures(event)
        answer = base.as_text(event.get("result"))
        fine = event.get("is_error") is False and event.get("subtype") == "success"
        self.outcome.fault_status = base.as_count(event.get("api_error_status"))
        self.settle(answer, "" if fine else _fault(event, answer))
        shown = "" if answer == self._last_text or not fine else _render.paragraph(answer)
        return shown + self.summary(base.as_amount(event.get("duration_ms")))

    def _take_figures(self, event: dict[str, object]) -> None:
        outcome = self.outcome
        outcome.turns = base.as_count(event.get("num_turns"))
        # These two are the session's, with all runs before this one when it was resumed.
        cost = base.as_amount(event.get("total_cost_usd"))
        totals = _tokens_of_models(event.get("modelUsage"))
        since = event.get("model_usage_since_last_result")
        tokens = _tokens(event.get("usage"))
        if not any(tokens.values()):  # so after an exceeded budget
            tokens = self._tokens_since(since, totals) or tokens
        for name, count in tokens.items():
            setattr(outcome, name, count)
        if isinstance(since, dict):
            costs = [base.as_amount(base.as_dict(m).get("costUSD")) for m in since.values()]
            self._cost += sum(cost for cost in costs if cost)
            outcome.cost_usd = round(self._cost, 10)
        else:
            used = base.since(cost, self._before, "cost_usd")
            outcome.cost_usd = None if used is None else round(used, 10)
        told: dict[str, object] = {**totals, **({} if cost is None else {"cost_usd": cost})}
        outcome.session_totals = told or None

    def _tokens_since(self, since: object, totals: dict[str, int]) -> dict[str, int | None]:
        """The tokens of this run, {} where nothing is told."""
        if isinstance(since, dict):
            return {**_tokens_of_models(since)}
        used = {name: base.since(total, self._before, name) for name, total in totals.items()}
        return {name: None if count is None else int(count) for name, count in used.items()}


def _tokens(usage: object) -> dict[str, int | None]:
    """What a `usage` tells; those that went into the cache, or came out of it, are input too."""
    if not isinstance(usage, dict):
        return {}
    cached = base.as_count(usage.get("cache_read_input_tokens")) or 0
    created = base.as_count(usage.get("cache_creation_input_tokens")) or 0
    fresh = base.as_count(usage.get("input_tokens")) or 0
    output = base.as_count(usage.get("output_tokens")) or 0
    return {
        "input_tokens": fresh + cached + created,
        "cached_tokens": cached,
        "output_tokens": output,
    }


def _tokens_of_models(models: object) -> dict[str, int]:
    """The sums over a `modelUsage`; {} for anything else."""
    if not isinstance(models, dict):
        return {}
    sums = dict.fromkeys(("input_tokens", "cached_tokens", "output_tokens"), 0)
    for usage in map(base.as_dict, models.values()):
        cached = base.as_count(usage.get("cacheReadInputTokens")) or 0
        created = base.as_count(usage.get("cacheCreationInputTokens")) or 0
        fresh = base.as_count(usage.get("inputTokens")) or 0
        sums["input_tokens"] += fresh + cached + created
        sums["cached_tokens"] += cached
        sums["output_tokens"] += base.as_count(usage.get("outputTokens")) or 0
    return sums


def _retry(event: dict[str, object]) -> str:
    attempt = base.as_count(event.get("attempt"))
    last = base.as_count(event.get("max_retries"))
    status = base.as_count(event.get("error_status"))
    reason = base.as_name(event.get("error")) or "an error"
    return f"retry {attempt}/{last} after {reason if status is None else f'HTTP {status}'}"


def _fault(event: dict[str, object], answer: str) -> str:
    """Why the run did not succeed: always something, on one line."""
    errors = " ".join(base.as_text(error) for error in base.as_list(event.get("errors")))
    said = answer if event.get("is_error") is True else ""
    subtype = base.as_text(event.get("subtype")).removeprefix("success")
    return base.as_line(said) or base.as_line(errors) or base.as_line(subtype) or base.NO_REASON


def _tool_result(block: dict[str, object]) -> str:
    text = base.joined_texts(block.get("content"))
    return _render.tool_result(text, is_error=block.get("is_error") is True)


def failure(ended: base.Ended) -> base.Failure:
    """Of which class a failure is. In text mode its errors are on stdout, in place of the answer."""
    from lib.agents import _failure

    to_run_as_user = "run as a user; or, on a machine made for it, put sandbox: true in config.yaml"
    more = "allow more in args: of the agent, or make the task smaller"
    signs = (
        (
            "bad-request",
            "cannot be used with root",
            "does not run unattended as root",
            to_run_as_user,
        ),
        ("bad-request", "input must be provided", "was given an empty prompt", "write one"),
        (
            "bad-request",
            r"max(?:imum)?(?: number of)? turns|error_max_turns",
            "has reached its limit of turns",
            more,
        ),
        (
            "bad-request",
            r"maximum budget|usd budget|error_max_budget",
            "has reached its limit of cost",
            more,
        ),
        (
            "bad-request",
            "session id .{0,80}already in use",
            "has a session of that id",
            "start it again",
        ),
        ("not-installed", "native binary", "", REPAIR),
    )
    program = _failure.Program(install=INSTALL, login=LOGIN, options=STREAM_OPTIONS, signs=signs)
    return _failure.of_program(ended, program, _failure.plain_lines(ended))
