"""Gemini CLI (`gemini`), its answer read from the stream-json it prints.

    agents:
      gemini:
        model: gemini-2.5-flash          # without one, a small model chooses, at each prompt
        base_url: http://127.0.0.1:8899  # without its /v1beta

With base_url, ~/.gemini/settings.json must hold {"security": {"auth":
{"selectedType": "gemini-api-key"}}}: no variable can say that, and without it
gemini ends with 41. Vertex AI needs GOOGLE_API_KEY in `env:` of the agent; it is
not kept otherwise, since it would be taken in place of GEMINI_API_KEY.

Source: `gemini --help`, and runs of 0.61.0.
"""

from __future__ import annotations

import os

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

SETTINGS = {"base_url": str}
VERSION = r"(?m)^(\d+\.[\w.-]*)$"
TRIED = ("0.61.0", "0.61.0")
HOME_VARIABLE = "GEMINI_CLI_HOME"
LOGIN = "set GEMINI_API_KEY (GOOGLE_API_KEY is for Vertex AI only)"

TEMPORARY = "tmp"  # in the run folder
_KEY_LOGIN = "gemini-api-key"


def command(launch: base.Launch) -> list[str]:
    """Make its temporary folder; return the command line. The prompt comes on stdin."""
    os.makedirs(_temporary_folder(launch), mode=0o700, exist_ok=True)
    argv = [launch.executable or "gemini", "--screen-reader", "true", "--approval-mode", "yolo"]
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
    """A reader of gemini's stream-json."""
    return StreamReader()


class StreamReader(base.JsonLinesReader):
    """Understands gemini's stream-json, and leaves out events that it does not know.

    It tells neither cost nor turns.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []  # of the answer: what came after the last tool
        self._shown = 0  # how many of them

    def on_event(self, event: dict[str, object]) -> str:
        kind = event.get("type")
        if kind == "message":
            if event.get("role") == "assistant":
                self._pieces.append(base.as_text(event.get("content")))
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

    def _text_so_far(self, *, ends: bool = False) -> str:
        """The text not yet shown, as one paragraph; if it `ends`, it was not the answer."""
        text = "".join(self._pieces[self._shown :])
        if ends:
            self._pieces.clear()
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
        self.outcome.output_tokens = base.as_count(stats.get("output_tokens"))
        self.outcome.model = _model(base.as_dict(stats.get("models"))) or self.outcome.model
        answer = "".join(self._pieces)
        fault = "" if answer.strip() else self.fault
        if event.get("status") != "success":
            said = base.as_line(base.as_dict(event.get("error")).get("message"))
            fault = said or self.fault or base.NO_REASON
        self.settle(answer, fault)
        return self.summary(base.as_amount(stats.get("duration_ms")))


def _model(models: dict[str, object]) -> str | None:
    """The one that wrote the most; of equals the last, for the one that only chooses comes first."""
    found, most = None, 1
    for name, figures in models.items():
        count = base.as_count(base.as_dict(figures).get("output_tokens")) or 0
        if count >= most:
            found, most = base.as_name(name), count
    return found
