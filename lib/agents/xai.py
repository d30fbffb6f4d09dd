"""xAI's Grok, over its chat completions.

    agents:
      xai:
        token_file: ~/.config/xai.key
        model: grok-4.3
        max_tokens: 4000
        parameters: {reasoning_effort: high}  # further fields of the request
        read_timeout: 600    # seconds of silence that are a failure

`base_url` names another server that speaks chat completions. It has no tools of
this machine: it cannot see or change files.

Source: docs.x.ai, chat completions and cost tracking; nothing here was tried with a key.
"""

from __future__ import annotations

from lib.agents import _rest, base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXECUTABLE: str | None = None
INSTALL = "nothing to install: it needs a key in XAI_API_KEY (see console.x.ai)"
TOKEN_VARIABLES: tuple[str, ...] = ("XAI_API_KEY",)
PACED = True
STREAM = True
PREAMBLE = False  # what stands in it are files and commands of this machine
SETTINGS = _rest.SETTINGS

BASE_URL = "https://api.x.ai"
MODEL = "grok-4.3"  # names are retired over time; grok-4 leads to this one since May 2026
SILENCE_SECONDS = 600.0  # a model that reasons may send nothing for minutes


def command(launch: base.Launch) -> list[str]:
    """The command line; the prompt comes on stdin."""
    model = base.argument("model", launch.model or MODEL)
    return _rest.command(
        "xai",
        launch,
        api="chat",
        url=_rest.endpoint(launch, BASE_URL, "/v1/chat/completions"),
        body={"model": model, **_rest.max_tokens(launch, "max_completion_tokens")},
        silence_seconds=SILENCE_SECONDS,
    )


def environment(launch: base.Launch) -> dict[str, str | None]:
    """What to set and (None) unset in the agent's environment."""
    return _rest.environment()


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """A reader of the events that the process prints."""
    return _rest.StreamReader()


def failure(ended: base.Ended) -> base.Failure:
    """Of which class a failure is, as the process that asked has told it."""
    return _rest.failure(ended, TOKEN_VARIABLES[0])
