"""Perplexity: answers with sources, over its Agent API.

    agents:
      perplexity:
        token_file: ~/.config/perplexity.key
        preset: low          # how much it searches: fast, low, medium, high
        model: perplexity/sonar  # in place of a preset: provider/name
        max_tokens: 4000
        parameters: {language_preference: en}  # further fields of the request
        read_timeout: 120    # seconds of silence that are a failure

With `api: chat` it speaks the older chat completions, which Perplexity itself has
ended and compatible servers have not; `base_url` names such a server. It has no
tools of this machine: it cannot see or change files.

Source: docs.perplexity.ai, "Create Agent Response"; nothing here was tried with a key.
"""

from __future__ import annotations

from lib.agents import _render, _rest, base
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTABLE: str | None = None
INSTALL = "nothing to install: it needs a key in PERPLEXITY_API_KEY (see docs.perplexity.ai)"
TOKEN_VARIABLES: tuple[str, ...] = ("PERPLEXITY_API_KEY",)
PACED = True
STREAM = True
PREAMBLE = False  # what stands in it are files and commands of this machine
SETTINGS = {**_rest.SETTINGS, "api": ("agent", "chat"), "preset": str}

BASE_URL = "https://api.perplexity.ai"
PRESET = "low"  # what Perplexity recommends in place of sonar-pro
CHAT_MODEL = "sonar-pro"
SILENCE_SECONDS = 120.0


def command(launch: base.Launch) -> list[str]:
    """The command line; the prompt comes on stdin."""
    api = launch.options.get("api") or "agent"
    if api == "agent":
        path, body = "/v1/agent", _agent_body(launch)
    elif api == "chat":
        path = "/chat/completions"
        model = base.argument("model", launch.model or CHAT_MODEL)
        body = {"model": model, **_rest.max_tokens(launch, "max_tokens")}
    else:
        shown = _render.one_line(str(api), 60)
        raise UserError(f"unknown api of a perplexity agent: {shown}; known: agent, chat")
    return _rest.command(
        "perplexity",
        launch,
        api=str(api),
        url=_rest.endpoint(launch, BASE_URL, path),
        body=body,
        silence_seconds=SILENCE_SECONDS,
    )


def _agent_body(launch: base.Launch) -> dict[str, object]:
    """A field that it does not know makes the Agent API refuse the request."""
    body: dict[str, object] = {}
    preset = launch.options.get("preset")
    if launch.model:
        body["model"] = base.argument("model", launch.model)
    if preset or not launch.model:
        body["preset"] = str(preset or PRESET)
    else:
        body["tools"] = [{"type": "web_search"}]  # a preset has it among its own
    return {**body, **_rest.max_tokens(launch, "max_output_tokens")}


def environment(launch: base.Launch) -> dict[str, str | None]:
    """What to set and (None) unset in the agent's environment."""
    return _rest.environment()


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """A reader of the events that the process prints."""
    return _rest.StreamReader()


def failure(ended: base.Ended) -> base.Failure:
    """Of which class a failure is, as the process that asked has told it."""
    return _rest.failure(ended, TOKEN_VARIABLES[0])
