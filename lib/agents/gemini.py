"""Gemini CLI (`gemini`), its answer read from the stream-json it prints.

    agents:
      gemini:
        model: gemini-2.5-flash          # without one, a small model chooses, at each prompt
        base_url: http://127.0.0.1:8899  # without its /v1beta
        args: [--include-directories, ../other]  # further arguments
        unattended: [--approval-mode, auto_edit]  # in place of what lets it do all
        output: text  # plain text in place of events: no tokens

With base_url, ~/.gemini/settings.json must hold {"security": {"auth":
{"selectedType": "gemini-api-key"}}}: no variable can say that, and without it
gemini ends with 41. Vertex AI needs GOOGLE_API_KEY in `env:` of the agent; it is
not kept otherwise, since it would be taken in place of GEMINI_API_KEY.

Source: `gemini --help`, and runs of 0.61.0.
"""

from __future__ import annotations

import os

from lib import redact
from lib.agents import _render, base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTABLE: str | None = "gemini"
INSTALL = "npm install -g @google/gemini-cli"
TOKEN_VARIABLES: tuple[str, ...] = ("GEMINI_API_KEY",)
PACED = True
STREAM = True
CHOOSES_SESSION = True
RESUMES = True
SESSION_IN_CWD = True
STREAM_OPTIONS = ("--output-format", "--session-id", "--approval-mode", "--screen-reader")

SETTINGS = {
    "base_url": base.address,
    "args": list,
    "unattended": list,
    "output": base.OUTPUTS,
}
VERSION = r"(?m)^(\d+\.[\w.-]*)$"
TRIED = ("0.61.0", "0.61.0")
HOME_VARIABLE = "GEMINI_CLI_HOME"
LOGIN = "set GEMINI_API_KEY (GOOGLE_API_KEY is for Vertex AI only)"
# Its exit code is one of these modulo 256, where it was told one. Source: runs of 0.61.0.
_STATUSES = (400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504)
_NOISE = (
    *("YOLO mode", "Warning: True color", "Ripgrep", "Loaded cached", "Approval mode overridden"),
    "An unexpected critical error",
)

_UNATTENDED = ("--approval-mode", "yolo")
_OLD_UNATTENDED = ("--yolo",)
TEMPORARY = "tmp"  # in the run folder
_KEY_LOGIN = "gemini-api-key"


def command(launch: base.Launch) -> list[str]:
    """Make its temporary folder; return the command line. The prompt comes on stdin."""
    os.makedirs(_temporary_folder(launch), mode=0o700, exist_ok=True)
    options = launch.options
    argv = [launch.executable or "gemini"]
    if not launch.is_old:
        argv += ["--screen-reader", "true"]
    unattended = _OLD_UNATTENDED if launch.is_old else _UNATTENDED
    argv += base.words(options, "unattended", unattended)
    argv += base.words(options, "args")
    if not (launch.is_old or base.wants_text(options)):
        argv += ["--output-format", "stream-json"]
    if launch.model:
        argv += ["-m", base.argument("model", launch.model)]
    if launch.session_id:
        option = "--resume" if launch.resume else "--session-id"
        argv += [option, base.argument("session id", launch.session_id)]
    return argv


def environment(launch: base.Launch) -> dict[str, str | None]:
    """What to set and (None) unset in the agent's environment."""
    changes: dict[str, str | None] = dict.fromkeys(base.NESTED_SESSION_VARIABLES)
    changes["GEMINI_CLI_TRUST_WORKSPACE"] = "true"  # else it ends with 55
    # The process that it would start again as its child ignores SIGTERM on its behalf.
    changes["GEMINI_CLI_NO_RELAUNCH"] = "1"
    # An API error leaves a report there with the whole conversation.
    changes["TMPDIR"] = _temporary_folder(launch)
    base_url = launch.options.get("base_url")
    if isinstance(base_url, str) and base_url:
        changes["GOOGLE_GEMINI_BASE_URL"] = base_url
    return changes


def _temporary_folder(launch: base.Launch) -> str:
    return os.path.join(launch.run_dir, TEMPORARY)


def find_login(variables: Mapping[str, str]) -> tuple[str, str]:
    """What it seems to log in with ("" = nothing is seen), and what speaks against that."""
    for name in (*TOKEN_VARIABLES, "GOOGLE_GENAI_USE_VERTEXAI"):
        if variables.get(name):
            return f"{name} is set", ""
    path = _settings_path(variables, ".env")  # it reads its key from there, too
    if os.path.exists(path):
        return f"{path} is there", ""
    path = _settings_path(variables, "oauth_creds.json")
    if os.path.exists(path):
        return f"{path} is there", "Google serves such a login to companies only"
    return "", ""


def conditions(
    options: Mapping[str, object], variables: Mapping[str, str]
) -> list[tuple[str, str, str, str]]:
    """What must hold for it to work here: (what, "ok" | "note" | "FAIL", finding, cure)."""
    found = []
    if variables.get("GEMINI_CLI_TRUST_WORKSPACE") != "true":
        text = "gemini ends with 55 in a folder that it was not told to trust"
        cure = "take GEMINI_CLI_TRUST_WORKSPACE out of env: in config.yaml"
        found.append(("trust", "note", text, cure))
    if variables.get("GOOGLE_GEMINI_BASE_URL") and not _takes_keys(variables):
        text = f"with an address of its own it ends with 41 unless {_KEY_LOGIN} is selected"
        path = _settings_path(variables, "settings.json")
        setting = f'{{"security": {{"auth": {{"selectedType": "{_KEY_LOGIN}"}}}}}}'
        found.append(("address", "note", text, f"put into {path}: {setting}"))
    return found


def _takes_keys(variables: Mapping[str, str]) -> bool:
    """Whether its settings select a login by key; they may hold comments, and are no JSON then."""
    try:
        with open(_settings_path(variables, "settings.json"), "rb") as file:
            return f'"{_KEY_LOGIN}"'.encode() in file.read(1 << 20)
    except OSError:
        return False


def _settings_path(variables: Mapping[str, str], name: str) -> str:
    home = os.path.expanduser(variables.get(HOME_VARIABLE) or "~")
    return os.path.join(home, ".gemini", name)


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """A reader of gemini's stream-json, or of plain text."""
    return base.AnswerReader() if base.wants_text(options) else StreamReader()


class StreamReader(base.JsonLinesReader):
    """Understands gemini's stream-json, and leaves out events that it does not know.

    It tells neither cost nor turns.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []  # of the answer: what came after the last tool
        self._shown = 0  # how many of them
        self._answer_size = 0  # characters of all of it, kept or not

    def on_event(self, event: dict[str, object]) -> str:
        kind = event.get("type")
        if kind == "message":
            if event.get("role") == "assistant":
                self._add_piece(base.as_text(event.get("content")))
            return ""
        if kind == "init":
            self.outcome.session_id = base.as_session_id(event.get("session_id"))
            self.outcome.model = base.as_name(event.get("model"))
            return self.begin()
        if kind == "tool_use":
            return self._text_so_far(ends=True) + self._on_tool_use(event)
        if kind == "tool_result":
            return self._text_so_far(ends=True) + self._on_tool_result(event)
        if kind == "error":
            return self._text_so_far() + self._on_error(base.as_line(event.get("message")))
        if kind == "result":
            return self._text_so_far() + self._on_result(event)
        return ""

    def on_end(self) -> str:
        return self._text_so_far() + super().on_end()

    def _add_piece(self, piece: str) -> None:
        """Keep a piece of what may become the answer; one without end is kept up to 4 MiB."""
        self._answer_size += len(piece)
        if self._answer_size <= base.MAX_TEXT_BYTES:
            self._pieces.append(piece)

    def _answer(self) -> str:
        text = "".join(self._pieces)
        if self._answer_size == len(text):
            return text
        text = redact.before_gap(text)
        return f"{text}\n\n[… {self._answer_size - len(text)} characters left out …]"

    def _text_so_far(self, *, ends: bool = False) -> str:
        """The text not yet shown, as one paragraph; if it `ends`, it was not the answer."""
        text = "".join(self._pieces[self._shown :])
        if ends:
            self._pieces.clear()
            self._answer_size = 0
        self._shown = len(self._pieces)
        return _render.paragraph(text)

    def _on_tool_use(self, event: dict[str, object]) -> str:
        self.begin_tool(base.as_text(event.get("tool_id")))
        name = base.as_name(event.get("tool_name"))
        return _render.tool_call(name, base.as_dict(event.get("parameters")))

    def _on_tool_result(self, event: dict[str, object]) -> str:
        self.end_tool(base.as_text(event.get("tool_id")))
        failed = event.get("status") == "error"
        said = base.as_text(base.as_dict(event.get("error")).get("message"))
        return _render.tool_result(base.as_text(event.get("output")) or said, is_error=failed)

    def _on_error(self, text: str) -> str:
        """Note it: such as a loop that was detected. It is no fault where an answer follows."""
        self.outcome.note = text or self.outcome.note
        self.fault = text or self.fault
        return f"· {text}\n"

    def _on_result(self, event: dict[str, object]) -> str:
        stats = base.as_dict(event.get("stats"))
        self.outcome.input_tokens = base.as_count(stats.get("input_tokens"))
        self.outcome.cached_tokens = base.as_count(stats.get("cached"))
        self.outcome.output_tokens = _output(stats)
        models = base.as_dict(stats.get("models"))
        self.outcome.model = _model(models) or self.outcome.model
        self.outcome.usage_by_model = _usage(models)
        answer = self._answer()
        fault = "" if answer.strip() else self.fault
        if event.get("status") != "success":
            said = base.as_line(base.as_dict(event.get("error")).get("message"))
            fault = said or self.fault or base.NO_REASON
            self.outcome.fault_class = base.as_name(base.as_dict(event.get("error")).get("type"))
        self.settle(answer, fault)
        return self.summary(base.as_amount(stats.get("duration_ms")))


def _output(figures: dict[str, object]) -> int | None:
    """The tokens that are billed as output: its thinking is in the total alone."""
    into, out = (
        base.as_count(figures.get("input_tokens")),
        base.as_count(figures.get("output_tokens")),
    )
    total = base.as_count(figures.get("total_tokens"))
    if into is None or out is None or total is None:
        return out
    return max(out, total - into)


def _usage(models: dict[str, object]) -> dict[str, tuple[int, int, int]]:
    """The tokens of each model; {} where it does not tell all of them."""
    found = {}
    for name, value in list(models.items())[:100]:
        figures = base.as_dict(value)
        into, out = base.as_count(figures.get("input_tokens")), _output(figures)
        if into is None or out is None:
            return {}
        cached = base.as_count(figures.get("cached")) or 0
        found[base.as_name(name) or ""] = (into, cached, out)
    return found


def _model(models: dict[str, object]) -> str | None:
    """The one that wrote the most; of equals the last, for the one that only chooses comes first."""
    found, most = None, 1
    for name, figures in models.items():
        count = base.as_count(base.as_dict(figures).get("output_tokens")) or 0
        if count >= most:
            found, most = base.as_name(name), count
    return found


def failure(ended: base.Ended) -> base.Failure:
    """Of which class a failure is. Its stderr has notices in good runs, and stack traces in bad ones."""
    from lib.agents import _failure

    to_trust = "take GEMINI_CLI_TRUST_WORKSPACE out of env: of the agent"
    to_select = f'put "selectedType": "{_KEY_LOGIN}" into its settings.json (see bin/doctor)'
    to_allow = "raise maxSessionTurns in its settings.json, or make the task smaller"
    signs = (
        (
            "bad-request",
            "not running in a trusted directory",
            "does not trust its working folder",
            to_trust,
        ),
        ("bad-request", "no input provided via stdin", "was given an empty prompt", "write one"),
        (
            "bad-request",
            "max session turns|FatalTurnLimited",
            "has reached its limit of turns",
            to_allow,
        ),
        (
            "login",
            "invalid auth method",
            "does not take a key for an address of its own",
            to_select,
        ),
        (
            "bad-request",
            "session .{0,80}already exists",
            "has a session of that id",
            "start it again",
        ),
    )
    program = _failure.Program(install=INSTALL, login=LOGIN, options=STREAM_OPTIONS, signs=signs)
    status = next((n for n in _STATUSES if n % 256 == ended.code), None)
    lines = [line for line in _failure.plain_lines(ended) if not line.startswith(_NOISE)]
    if ended.code == 41:  # Source: FatalAuthenticationError of gemini-cli
        status = 401
    return _failure.of_program(ended, program, lines, status)
