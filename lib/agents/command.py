"""Any other CLI: its command line stands in the configuration.

    agents:
      mine:
        type: command
        command: [my-agent, run, [--model, "{model}"]]  # a list in it goes where its value is missing
        prompt: stdin                       # or argument, or file: where the prompt goes
        output: text                        # or claude, codex, gemini, copilot, opencode (their
                                            # streams), last-line, file
        output_file: answer.md              # for file: below the working folder, or {run_dir}
        success_codes: [0, 3]               # exit codes that are no failure
        resume: [my-agent, run, --session, "{session_id}"]  # in place of command with --resume
        args: [--fast]                      # further arguments, behind the others or at {args}
        unattended: [--yes]                 # what stands at {unattended} in the command
        token_variables: [OPENAI_API_KEY]   # the secrets that it may keep; the first gets the token
        install: pipx install my-agent      # said where the program is missing

{prompt} {prompt_file} {cwd} {run_dir} {model} {session_id} are replaced inside the
arguments; any other brace stays. Without `prompt:` a command with {prompt} takes it as
an argument, one with {prompt_file} as a file, any other on stdin. With it, what the
command has no place for becomes its last argument. Only a prompt on stdin is there:
otherwise stdin is empty, for programs that would wait for its end.

The types of _ready.py are of this kind too, with their settings filled in.
"""

from __future__ import annotations

from lib import agents
from lib.agents import _ready, _render, _template, base
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lib import runs

EXECUTABLE: str | None = None  # see executable()
INSTALL = "install the program that `command:` of this agent names, or correct the name"
TOKEN_VARIABLES: tuple[str, ...] = ()  # see token_variables()
PACED = True
STREAM = False
PLACES = ("stdin", "argument", "file")
OUTPUTS = ("text", "claude", "codex", "copilot", "file", "gemini", "last-line", "opencode")
SETTINGS = {
    "command": list,
    "resume": list,
    "args": list,
    "unattended": list,
    "prompt": PLACES,
    "output": OUTPUTS,
    "output_file": str,
    "success_codes": list,
    "token_variables": list,
    "install": str,
}

_LAST_LINES = 20  # of an unknown program, in which an error may be its own


def executable(options: Mapping[str, object]) -> str:
    """The program that the configured command starts; a name for PATH, or a path.

    UserError for settings that no run could be started with.
    """
    _check(options)
    return str(_template.read(options, "command")[0])


def token_variables(options: Mapping[str, object]) -> tuple[str, ...]:
    """The variables with secrets that the configuration lets this agent keep."""
    return tuple(map(str, _template.parse(options, "token_variables", has_groups=False)))


def chooses_session(options: Mapping[str, object]) -> bool:
    """Whether the command is told an id for its new session."""
    return _template.has(_template.words(_template.read(options, "command")), "session_id")


def resumes(options: Mapping[str, object]) -> bool:
    """Whether there is a command that goes on with a session."""
    return bool(options.get("resume"))


def settled(options: Mapping[str, object], run: runs.Run) -> dict[str, object]:
    """The options of this run. Its record gets what an adopting process needs of them."""
    found = dict(options)
    codes = success_codes(options)
    if codes != [0]:
        run.record["success_codes"] = codes
    if options.get("output") == "file":
        from lib.agents import _answer_file

        place = base.Launch(
            executable=None,
            prompt_path="",
            run_dir=run.path,
            cwd=run.text("cwd"),
            model=run.text("model"),
            session_id=run.text("session_id"),
        )
        path = _template.fill(str(options.get("output_file")), place)
        found.update(_answer_file.before(path, place.cwd, place.run_dir))
        run.record.update({key: found[key] for key in _answer_file.KEYS})
    return found


def command(launch: base.Launch) -> list[str]:
    """The configured command line with its placeholders replaced."""
    template = _template.read(launch.options, "resume" if launch.resume else "command")
    argv = [launch.executable or str(template[0])]
    for item in template[1:]:
        if isinstance(item, str):
            argv.append(_template.fill(item, launch, argv[-1]))
        elif all(_template.value(name, launch) for name in _template.names(item)):
            argv += [_template.fill(word, launch) for word in item]
    return argv


def stdin(launch: base.Launch) -> bool:
    """Whether the prompt is on stdin; otherwise that is empty."""
    key = "resume" if launch.resume else "command"
    return _template.prompt_place(launch.options, key) == "stdin"


def environment(launch: base.Launch) -> dict[str, str | None]:
    """Nothing to change but what agents leave behind in their tools' environment."""
    return dict.fromkeys(base.NESTED_SESSION_VARIABLES)


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """What reads the kind of output that `output:` names; options as codex.reader has them."""
    options = options or {}
    kind = options.get("output") or "text"
    if kind == "text":
        return base.TextReader()
    if kind == "last-line":
        from lib.agents import _last_line

        return _last_line.LastLineReader()
    if kind == "file" and not options.get("output_file"):  # of a recording: it is not there
        return base.TextReader()
    if kind == "file":
        from lib.agents import _answer_file

        return _answer_file.FileReader(options)
    if kind == "opencode":
        from lib.agents import _opencode

        return _opencode.StreamReader()
    if kind == "copilot":
        from lib.agents import _copilot

        return _copilot.StreamReader()
    if kind == "claude":
        from lib.agents import _qwen

        return _qwen.StreamReader(base.used_before(options))
    if kind in ("codex", "gemini"):
        own = {key: options[key] for key in ("resume", "totals_before") if key in options}
        told: base.Reader = agents.load(str(kind)).reader(own)
        return told
    shown = _render.one_line(str(kind), 60)
    raise UserError(f"unknown output of a command agent: {shown}; known: {', '.join(OUTPUTS)}")


def success_codes(options: Mapping[str, object]) -> list[int]:
    """The exit codes that are no failure."""
    codes = options.get("success_codes")
    if codes is None:
        return [0]
    if isinstance(codes, list) and codes and all(_is_code(code) for code in codes):
        return list(codes)
    raise UserError("success_codes must be a list of numbers from 0 to 255: success_codes: [0, 3]")


def _is_code(code: object) -> bool:
    return isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= 255


def _check(options: Mapping[str, object]) -> None:
    """UserError for settings that do not go together."""
    program = _template.read(options, "command")[0]
    if options.get("resume") and _template.read(options, "resume")[0] != program:
        raise UserError(f"resume must begin with the program of command: {program}")
    success_codes(options)
    reader({"output": options.get("output")})
    if options.get("prompt") not in (None, *PLACES):
        shown = _render.one_line(str(options["prompt"]), 60)
        raise UserError(f"unknown place for the prompt: {shown}; known: {', '.join(PLACES)}")
    if options.get("output") == "file":
        named = options.get("output_file")
        if not isinstance(named, str) or _template.names([named]) & {"prompt", "prompt_file"}:
            raise UserError("output: file needs a name for it; write output_file: answer.md")
    if options.get("unattended") and "{unattended}" not in _template.words(
        _template.parse(options, "command")
    ):
        raise UserError('unattended has no place in the command; write "{unattended}" there')


def failure(ended: base.Ended) -> base.Failure:
    """Of which class a failure is, by the words that most programs have for it."""
    from lib.agents import _failure

    if ended.code == 0 and 0 not in success_codes(ended.options):
        said = "ended with exit code 0, and success_codes of the agent does not name that"
        return base.Failure("failed", f"{ended.agent} {said}: correct one of them")
    ready = _ready.READY.get(str(ended.options.get("type")), {})
    login = "log it in, or give it its key with token: and token_variables: of the agent"
    program = _failure.Program(
        install=str(ready.get("install") or INSTALL),
        login=str(ready.get("login") or login),
        source="command:",
        signs=_SIGNS,
    )
    failure = _failure.of_program(ended, program, _failure.plain_lines(ended)[-_LAST_LINES:])
    is_fine = ended.code in success_codes(ended.options)
    if failure.kind == "failed" and is_fine and ended.options.get("output") == "file":
        said = ended.outcome.note or "it left no answer"
        return base.Failure("failed", f"{ended.agent} failed: {said}")
    return failure


# Source: copilot 1.0.102, opencode 1.18.33, qwen 0.15.10, llm 0.36.
_SIGNS = (
    ("login", "no authentication information found|no auth type is selected|no key found", "", ""),
    (
        "no-session",
        "no session, task, or name matched|no saved session found|session not found",
        "",
        "",
    ),
)
