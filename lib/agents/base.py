"""What every agent backend shares: what it is told, what it tells, how its output is read.

A backend is one file of this folder with

    EXECUTABLE       name to look up on PATH, or None
    INSTALL          how to get it, one line
    TOKEN_VARIABLES  the only secrets its process gets; a configured token goes into the first
    PACED            whether starts of it are spread in time (remote models: yes)
    STREAM           whether its output is a stream of events (else plain text)
    command(launch), environment(launch), reader(options)

and, where they apply, CHOOSES_SESSION = True or chooses_session(options) (the session
id can be passed before the start), RESUMES = True or resumes(options) (a session can be
gone on with), SESSION_IN_CWD = True (in the working folder where it began, only),
STREAM_OPTIONS (those of its options that a version may be too old for: see
Launch.is_old), PREAMBLE = False (the prompt is to come without the toolkit's preamble),
check_prompt(path) (UserError for one that it can do nothing with), executable(options)
and token_variables(options) in place of the constants, stdin(launch) (whether the prompt is
there; otherwise it is empty), settled(options, run) (the options
of this one run, asked for before anything is made of them), failure(ended) (of which class
a failure is, from exit code, output and stderr; the one place that knows).

SETTINGS has its own keys in config.yaml and the kinds of their values (lib/config_check.py
says what a kind is); without it all keys are let through.

For bin/doctor, where they apply: VERSION (a pattern of what `--version` prints) with
TRIED (the oldest and the newest that was tried), HOME_VARIABLE (moves its settings),
LOGIN and REPAIR (cures), find_login(variables) and conditions(options, variables).
"""

from __future__ import annotations

import time

from lib import redact
from lib.agents import _render
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LINE_BYTES = 16 << 20
MAX_TEXT_BYTES = 4 << 20

NO_REASON = "the agent reported an error and gave no reason"

# Every variable that gives access to a model, or to this toolkit's own server.
KNOWN_TOKEN_VARIABLES = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "OPENAI_API_KEY",
    "CODEX_API_KEY",
    "OPENAI_ORG_ID",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "PERPLEXITY_API_KEY",
    "XAI_API_KEY",
    "AMP_API_KEY",
    "COPILOT_GITHUB_TOKEN",
    "COPILOT_PROVIDER_API_KEY",
    "COPILOT_PROVIDER_BEARER_TOKEN",
    "CURSOR_API_KEY",
    "DASHSCOPE_API_KEY",
    "DEEPSEEK_API_KEY",
    "GROQ_API_KEY",
    "MISTRAL_API_KEY",
    "OPENCODE_API_KEY",
    "OPENROUTER_API_KEY",
    "CONDUCTOR_API_KEY",
)

# What an agent leaves in the environment of its tools; one that is started there
# must not take itself for a part of that session.
NESTED_SESSION_VARIABLES = (
    "CLAUDECODE",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_SSE_PORT",
    "CLAUDE_AGENT_SDK_VERSION",
)


class Launch:
    """What a backend needs to know to build a command; paths are absolute."""

    __slots__ = (
        "cwd",
        "executable",
        "is_old",
        "model",
        "options",
        "prompt_path",
        "resume",
        "run_dir",
        "session_id",
    )

    def __init__(
        self,
        *,
        executable: str | None,
        prompt_path: str,
        run_dir: str,
        cwd: str,
        model: str | None = None,
        session_id: str | None = None,
        resume: bool = False,
        is_old: bool = False,
        options: Mapping[str, object] | None = None,
    ) -> None:
        self.executable = executable
        self.prompt_path = prompt_path
        self.run_dir = run_dir
        self.cwd = cwd
        self.model = model
        self.session_id = session_id
        self.resume = resume
        self.is_old = is_old  # it has refused one of STREAM_OPTIONS: plain text, by the oldest ones
        self.options: dict[str, object] = dict(options or {})


def is_config_token(name: str) -> bool:
    """Whether a variable replaces the token of an agent of the configuration."""
    return name.startswith("CONDUCTOR_AGENT_") and name.endswith("_TOKEN")


# The figures of a session that has not begun.
NOTHING_USED = dict.fromkeys(("input_tokens", "cached_tokens", "output_tokens", "cost_usd"), 0)


def used_before(options: Mapping[str, object]) -> object:
    """What the session of a reader with these options had used before; None where nobody knows."""
    return options.get("totals_before") if options.get("resume") is True else NOTHING_USED


def argument(what: str, value: str) -> str:
    """The value, if a command line can hold it where `what` is expected; else UserError."""
    if value.startswith("-"):
        raise UserError(f"{what}: {_render.one_line(value, 60)}; it must not begin with a dash")
    return value


EMPTY_ANSWER = "the answer is empty"  # an error of a Reader

OUTPUTS = ("stream", "text")  # what `output:` of an agent with a stream mode may say


def address(value: object) -> str:
    """What a setting must be in place of this value, where an address is wanted; "" = nothing."""
    text = as_text(value)
    is_one = text.startswith(("http://", "https://")) and " " not in text and text.isprintable()
    # Passwords and keys stand behind these, and it may be shown on a command line.
    is_bare = not set(text) & set("@?#")
    return "" if is_one and is_bare else "an address, such as https://host, and no more than that"


def words(
    options: Mapping[str, object], key: str, default: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The arguments that the configuration gives under `key`; UserError for what are none."""
    values = options.get(key)
    if values is None:
        return default
    if not isinstance(values, list) or not all(map(is_word, values)):
        agent = _render.one_line(str(options.get("type") or "an agent"), 60)
        raise UserError(
            f'{key} of {agent} must be a list of strings; write {key}: [--option, "value"]'
        )
    return tuple(map(str, values))


def is_word(value: object) -> bool:
    """Whether YAML made of it what was written; `yes` and 1.10 need quotes."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def wants_text(options: Mapping[str, object] | None) -> bool:
    """Whether `output:` of an agent with a stream mode asks for plain text in its place."""
    kind = (options or {}).get("output") or "stream"
    if kind not in OUTPUTS:
        agent = (options or {}).get("type") or "the agent"
        raise UserError(
            f"unknown output of {_render.one_line(str(agent), 60)}: "
            f"{_render.one_line(str(kind), 60)}; known: stream, text"
        )
    return kind == "text"


class Outcome:
    """What a stream told so far; final after `Reader.finish`."""

    __slots__ = (
        "cached_tokens",
        "cost_estimated",
        "cost_usd",
        "error",
        "fault_class",
        "fault_reset",
        "fault_status",
        "final_text",
        "input_tokens",
        "model",
        "note",
        "open_tools",
        "output_tokens",
        "session_id",
        "session_totals",
        "stopped",
        "success",
        "tool_calls",
        "turns",
        "usage_by_model",
    )

    def __init__(self) -> None:
        self.final_text: str | None = None  # as the agent gave it: control characters and all
        self.success: bool | None = None  # None: this kind of output does not tell
        self.error: str | None = None  # one line
        self.fault_class: str | None = None  # the name that the stream has for the error
        self.fault_status: int | None = None  # its HTTP status
        self.fault_reset: float | None = None  # when a limit ends, seconds since the epoch
        self.session_id: str | None = None
        self.model: str | None = None
        self.input_tokens: int | None = None  # those read from a cache are among them
        self.cached_tokens: int | None = None
        self.output_tokens: int | None = None
        self.usage_by_model: dict[str, tuple[int, int, int]] = {}  # in, cached, out; if it tells
        self.turns: int | None = None
        self.cost_usd: float | None = None  # of this run alone, where the stream tells
        self.cost_estimated = False  # from list prices, by who tells it
        self.stopped = False  # it says that a person has stopped it: no failure of its own
        self.session_totals: dict[str, object] | None = None  # of its session up to its end
        self.tool_calls = 0
        self.open_tools = 0  # begun and not yet answered
        self.note: str | None = None  # the last transient trouble

    def take_session_usage(
        self, usage: Mapping[str, object], keys: Mapping[str, str], before: object
    ) -> dict[str, object]:
        """Take the tokens of this run from a `usage` of its session; return the totals it tells.

        `keys` has the name in `usage` for each name of ours, `before` is that of `since`.
        """
        totals = {name: as_count(usage.get(key)) for name, key in keys.items()}
        for name, total in totals.items():
            used = since(total, before, name)
            setattr(self, name, None if used is None else int(used))
        return {name: total for name, total in totals.items() if total is not None}


ERROR_CLASSES = (
    "not-installed",
    "login",
    "quota",
    "overload",
    "timeout",
    "silence",
    "crash",
    "refusal",
    "bad-request",
    "too-old",
    "no-session",
    "lost",
    "failed",
)
TAIL_BYTES = 64 << 10  # of stdout and of stderr, from which a failure is read


class Ended:
    """A run that failed: its exit code (None: unknown) and the end of what it wrote.

    `at` is when it wrote last, in seconds since the epoch: what "in 5 minutes" counts from.
    """

    __slots__ = ("agent", "at", "code", "options", "outcome", "stderr", "stdout")

    def __init__(
        self,
        *,
        code: int | None,
        outcome: Outcome,
        stdout: str = "",
        stderr: str = "",
        options: Mapping[str, object] | None = None,
        agent: str = "the agent",
        at: float = 0.0,
    ) -> None:
        self.code = code
        self.outcome = outcome
        self.stdout = stdout
        self.stderr = stderr
        self.options: dict[str, object] = dict(options or {})
        self.agent = agent
        self.at = at or time.time()


class Failure:
    """Why a run failed: its class, one sentence with cause and cure, and the end of a limit.

    `reset` is in seconds since the epoch; 0 where nobody told it.
    """

    __slots__ = ("kind", "reason", "reset")

    def __init__(self, kind: str, reason: str, reset: float = 0.0) -> None:
        self.kind = kind
        self.reason = reason
        self.reset = reset


class Reader:
    """Reads an agent's stdout while it grows; any bytes, cut anywhere, never an error.

    What `feed` and `finish` return, joined, does not depend on how the bytes were cut
    (but for escape sequences in a line of text above 64 KiB).
    """

    understood = False  # whether `outcome.success` can be trusted to tell
    has_tools = True  # whether an answer without a tool call is worth a remark

    def __init__(self) -> None:
        self.outcome = Outcome()

    def feed(self, data: bytes) -> str:
        """Take the next bytes; return what to append to transcript.md (may be "")."""
        raise NotImplementedError

    def finish(self) -> str:
        """Take the end of the file; return the rest of the transcript."""
        raise NotImplementedError


class TextReader(Reader):
    """Plain text: the transcript is the text made harmless, the answer is the text as it came.

    Of an answer above 4 MiB the first and the last half of that are kept.
    """

    def __init__(self) -> None:
        super().__init__()
        import codecs

        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> str:
        self._keep(data)
        text = self._held + self._decoder.decode(data)
        cut = _render.unfinished_at(text)
        self._held = text[cut:]
        return redact.for_terminal(text[:cut])

    def finish(self) -> str:
        rest = self._held + self._decoder.decode(b"", True)
        self._held = ""
        self.outcome.final_text = self._kept() or None
        return redact.for_terminal(rest)

    def _keep(self, data: bytes) -> None:
        half = MAX_TEXT_BYTES // 2
        self._size += len(data)
        room = half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * half:  # not at each call: moving the tail costs its length
            del self._tail[:-half]

    def _kept(self) -> str:
        head, tail = self._head, self._tail[-(MAX_TEXT_BYTES // 2) :]
        if self._size == len(head) + len(tail):
            return (head + tail).decode("utf-8", "replace")
        # Cut between lines, or words: redaction does not know half a token.
        first, last = head[: head.rfind(b"\n") + 1], tail[tail.find(b"\n") + 1 :]
        if not first:
            first = head[: len(redact.before_gap(head.decode("latin-1")))]
        if b"\n" not in tail:
            last = tail[len(tail) - len(redact.behind_gap(tail.decode("latin-1"))) :]
        left_out = self._size - len(first) - len(last)
        note = f"\n[… {left_out} bytes left out …]\n\n".encode()
        return (first + note + last).decode("utf-8", "replace")


class AnswerReader(TextReader):
    """Plain text of an agent with a stream mode that is not used: no answer is no success.

    The line feed at its end is the program's, and no part of the answer.
    """

    def finish(self) -> str:
        shown = super().finish()
        answer = (self.outcome.final_text or "").removesuffix("\n")
        self.outcome.final_text = answer or None
        if not answer.strip():
            self.outcome.success = False
        return shown


class JsonLinesReader(Reader):
    """One JSON object a line; a subclass says in `on_event` what each means.

    A line that is no object is shown as a note. A line above 16 MiB is skipped
    with a note, and never held in memory.
    """

    understood = True
    end_event = "result"  # without it there is no success

    def __init__(self) -> None:
        super().__init__()
        self.outcome.success = False
        self.fault = ""  # the last error that the stream told of, should it end there
        self._ended = False
        self._open_tools: set[str] = set()
        self._parts: list[bytes] = []
        self._size = 0

    def on_event(self, event: dict[str, object]) -> str:
        """Take one event; return its lines of the transcript."""
        raise NotImplementedError

    def on_end(self) -> str:
        """Take the end of the stream; return the last lines of the transcript."""
        if self._ended:
            return ""
        self.outcome.error = self.fault or f"no {self.end_event} event"
        return "■ ended without a result\n"

    def begin(self) -> str:
        """The line for the start of a session."""
        model = f", model {self.outcome.model}" if self.outcome.model else ""
        return f"▷ session {self.outcome.session_id or '?'}{model}\n"

    def begin_tool(self, tool_id: str) -> None:
        """Count a call; it is open until it is answered, or the run is settled."""
        self.outcome.tool_calls += 1
        # One without an id can never be answered; the numbers bound what a broken stream costs.
        if 0 < len(tool_id) <= 1000 and len(self._open_tools) < 10_000:
            self._open_tools.add(tool_id)
        self.outcome.open_tools = len(self._open_tools)

    def end_tool(self, tool_id: str) -> None:
        """Take the answer to a call."""
        self._open_tools.discard(tool_id)
        self.outcome.open_tools = len(self._open_tools)

    def settle(self, answer: str, fault: str = "") -> None:
        """Take the end of the work: a success if there is no fault, and an answer."""
        self._ended = True
        self._open_tools.clear()
        outcome = self.outcome
        outcome.open_tools = 0
        outcome.success = not fault and bool(answer.strip())
        outcome.final_text = answer if outcome.success else None
        outcome.error = None if outcome.success else fault or EMPTY_ANSWER

    def summary(self, duration_ms: float | None = None) -> str:
        """The last line: how it ended, and what it took."""
        outcome = self.outcome
        parts = ["done" if outcome.success else f"failed: {outcome.error}"]
        if outcome.turns:
            parts.append("1 turn" if outcome.turns == 1 else f"{outcome.turns} turns")
        if outcome.input_tokens is not None:
            parts.append(f"{outcome.input_tokens} tokens in ({outcome.cached_tokens or 0} cached)")
        if outcome.output_tokens is not None:
            parts.append(f"{outcome.output_tokens} out")
        if outcome.cost_usd is not None:
            parts.append(f"${outcome.cost_usd:.4f}")
        if duration_ms is not None:
            parts.append(f"{duration_ms / 1000:.1f} s")
        return f"■ {', '.join(parts)}\n"

    def feed(self, data: bytes) -> str:
        # bytes.split on "\n" alone: agents write U+2028 unescaped inside their strings.
        first, *others = data.split(b"\n")
        self._add(first)
        shown = []
        for part in others:
            shown.append(self._take_line())
            self._add(part)
        return "".join(shown)

    def finish(self) -> str:
        return self._take_line() + self.on_end()

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > MAX_LINE_BYTES:
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def _take_line(self) -> str:
        line, size = b"".join(self._parts), self._size
        self._parts.clear()
        self._size = 0
        if size > MAX_LINE_BYTES:
            return f"· a line of {size} bytes was skipped\n"
        text = line.decode("utf-8", "replace").strip()
        if not text:
            return ""
        event = _parse_object(text)
        if event is None:
            return f"· {_render.one_line(text, 500)}\n"
        return self.on_event(event)


def _parse_object(text: str) -> dict[str, object] | None:
    if not text.startswith("{"):
        return None
    import json

    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):  # RecursionError: "[[[[…" of any depth is valid JSON
        return None
    return value if isinstance(value, dict) else None


# What came out of JSON is of any type until one of these has looked at it.


def as_dict(value: object) -> dict[str, object]:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """The value where it is a string (one that UTF-8 can write), else ""."""
    return _render.encodable(value) if isinstance(value, str) else ""


def as_count(value: object) -> int | None:
    """The value where it is a sensible number of things, else None."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15:
        return value
    return None


def as_amount(value: object) -> float | None:
    """The value where it is a sensible amount (no NaN, not below 0), else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
        return float(value)
    return None


def since(total: float | None, before: object, key: str) -> float | None:
    """What was added to a total since `before` told it; None where that cannot be known.

    `before` is the mapping of an earlier run's totals, or None where they are unknown.
    """
    earlier = as_amount(as_dict(before).get(key))
    if total is None or earlier is None or total < earlier:
        return None
    return total - earlier


def as_session_id(value: object) -> str | None:
    """The value where it may stand as an argument on a later command line, else None."""
    text = as_text(value)
    plain = text.isascii() and text.replace("-", "").replace("_", "").isalnum()
    return text if plain and len(text) <= 200 and not text.startswith("-") else None


def joined_texts(content: object) -> str:
    """The text of a result's content: a string, or a list of blocks of which some have text."""
    texts = [as_text(as_dict(part).get("text")) for part in as_list(content)]
    return as_text(content) or "\n".join(text for text in texts if text)


def as_line(value: object) -> str:
    """The value where it is a string, on one line; "" for anything else."""
    return _render.one_line(as_text(value), 1000)


def as_name(value: object) -> str | None:
    """The value as a short name on one line (a model's, a tool's), else None."""
    return _render.one_line(as_text(value), 100) or None
