"""Programs that need no more than their name: `./run-agent.py opencode`, or `type: opencode`.

Each is the `command` backend (lib/agents/command.py) with its options filled in.
What the user writes for an agent wins, key by key; of `env`, variable by variable.
A `command:` of one's own replaces all that belongs to the command line.

Source: `--help` and runs of qwen-code 0.15.10, GitHub Copilot CLI 1.0.102,
opencode 1.18.33 and llm 0.36.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# A program that speaks to any provider may keep the keys of all of them. A `token:`
# goes into the first one.
_PROVIDERS = [
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "OPENROUTER_API_KEY",
    "DEEPSEEK_API_KEY",
    "GROQ_API_KEY",
    "MISTRAL_API_KEY",
    "XAI_API_KEY",
]

_COPILOT = ["copilot", "{unattended}", "--output-format", "json", ["--model", "{model}"]]
_OPENCODE = ["opencode", "run", "{unattended}", "--format", "json", ["--model", "{model}"]]
_QWEN = ["qwen", "{unattended}", "--output-format", "stream-json", ["--model", "{model}"]]

READY: Mapping[str, Mapping[str, object]] = {
    "copilot": {
        "command": [*_COPILOT, "--session-id", "{session_id}"],
        "resume": [*_COPILOT, "--resume={session_id}"],
        # It could not write output.md without the second: that is not in its working folder.
        "unattended": ["--allow-all-tools", "--allow-all-paths", "--no-ask-user"],
        "output": "copilot",
        "env": {"COPILOT_AUTO_UPDATE": "false"},
        "token_variables": [
            "COPILOT_GITHUB_TOKEN",
            "COPILOT_PROVIDER_API_KEY",
            "COPILOT_PROVIDER_BEARER_TOKEN",
        ],
        "install": "npm install -g @github/copilot (see https://docs.github.com/copilot)",
        "login": "run copilot login, or set COPILOT_GITHUB_TOKEN",
    },
    "llm": {
        "command": ["llm", ["--model", "{model}"]],
        "output": "text",
        "preamble": False,  # it has no tools: it could neither post nor write a file
        "token_variables": _PROVIDERS,
        "install": "pipx install llm (see https://llm.datasette.io)",
        "login": "run llm keys set openai, or set OPENAI_API_KEY; other models are plugins of it",
    },
    "opencode": {
        "command": _OPENCODE,
        "resume": [*_OPENCODE, "--session", "{session_id}"],
        "unattended": ["--auto"],
        "output": "opencode",
        "env": {"OPENCODE_DISABLE_AUTOUPDATE": "1"},
        "token_variables": ["OPENCODE_API_KEY", *_PROVIDERS],
        "install": "npm install -g opencode-ai (see https://opencode.ai/docs)",
        "login": "run opencode auth login, or set the key of the model's provider",
    },
    "qwen": {
        "command": [*_QWEN, "--session-id", "{session_id}"],
        "resume": [*_QWEN, "--resume", "{session_id}"],
        "unattended": ["--approval-mode", "yolo"],
        "output": "claude",  # whose format it speaks, but for what _qwen.py mends
        # Else it starts itself again as its child, and takes a second longer.
        "env": {"QWEN_CODE_NO_RELAUNCH": "true"},
        "token_variables": ["OPENAI_API_KEY", "DASHSCOPE_API_KEY"],
        "install": "npm install -g @qwen-code/qwen-code (see https://qwenlm.github.io/qwen-code-docs)",
        "login": "run qwen auth, or set OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_MODEL",
    },
}

# What belongs to the command line, and goes with it.
_OF_COMMAND = ("resume", "prompt", "output", "output_file", "success_codes", "unattended")


def complete(kind: str, written: Mapping[str, object]) -> dict[str, object]:
    """The settings of an agent of that type with what is ready-made filled in."""
    if kind not in READY:
        return dict(written)
    ready = dict(READY[kind])
    if written.get("command"):
        for key in _OF_COMMAND:
            ready.pop(key, None)
    settings = {**ready, **written, "type": kind}
    env, own = ready.get("env"), written.get("env")
    if isinstance(env, dict) and isinstance(own, dict):
        settings["env"] = {**env, **own}
    return settings
