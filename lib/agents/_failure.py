"""Of which class a failure is, and the sentence that tells its cause and its cure.

A backend says in which lines its program tells of an error, and what is special about
it. Which lines these are matters more than the words: an agent works on programs of
others, and what it says about their errors is not to be taken for its own. So a stream
that tells how it ended is believed, and what stands around it is not looked at.

Imported for a run that has failed, and for no other. Source, for the words: the issue
trackers of the programs, as named below and in _reset.py, and runs of them.
"""

from __future__ import annotations

import re
import time

from lib import ids, procs, redact
from lib.agents import _render, _reset, base

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Sign = tuple[str, str, str, str]  # class, pattern, what it is like, cure

MAX_LINES = 200
MAX_LINE = 4000
MAX_SAID = 8000  # characters on stdout that may stand in place of an answer

# What is said after the agent's name, and the cure, where a sign has none of its own.
_HEADS = {
    "not-installed": "could not be started",
    "login": "is not logged in",
    "quota": "is at its usage limit",
    "overload": "was not served: its service is overloaded or out of order",
    "crash": "crashed",
    "refusal": "was refused an answer by the policy of its model",
    "bad-request": "was sent something that its service does not take",
    "too-old": "does not know an option that it was started with",
    "no-session": "does not have the session that was to be resumed",
    "failed": "failed",
}
_CURES = {
    "not-installed": "install it",
    "login": "log in, or set its key",
    "quota": "use another agent or account, or try again later",
    "overload": "start it again later",
    "crash": "start it again; agent-stderr.txt has the details",
    "refusal": "word the prompt in another way, or use another model",
    "bad-request": "correct model: of the agent, or the prompt",
    "too-old": "update it",
    "no-session": "start it without --resume",
}

_NETWORK = "cannot reach its service"
_TO_NETWORK = "check the network, the proxy and base_url:, and start it again"
_MONEY = "is out of credit"
_TO_MONEY = "see to the account of its key, or use another agent or account"
_LONG = "was given more than its model can hold"
_TO_SHORTEN = "shorten the prompt, or make the task smaller"
_TO_MODEL = "correct model: of the agent"

# The first that fits a line tells what it is. Source: anthropics/claude-code issues 62851,
# 3028, 36648, openai/codex issues 6498, 39745, 19587, 10062, RunMaestro/Maestro pull 1043,
# google-gemini/gemini-cli issues 24808, 9009, 13004, decolua/9router issue 1106.
COMMON: tuple[Sign, ...] = (
    (
        "no-session",
        r"no conversation found|no rollout found|invalid session identifier"
        r"|no previous sessions found|requires a valid session|error resuming session",
        "",
        "",
    ),
    (
        "too-old",
        r"unknown (?:option|argument)s?\b|unrecognized (?:option|argument)s?\b|unexpected argument"
        r"|no such option|is invalid\. allowed choices|invalid value '[^']{1,60}' for '--",
        "",
        "",
    ),
    ("not-installed", r"native binary|missing optional dependency|cannot find module", "", ""),
    (
        "refusal",
        r"usage polic|content polic|flagged (?:as|for)|prohibited_content|content[_ ]filter"
        r"|blocked (?:by|due to) (?:the )?(?:safety|content|policy)",
        "",
        "",
    ),
    (
        "overload",
        r"no capacity available|model_capacity_exhausted|overloaded|high demand",
        "",
        "",
    ),
    (
        "bad-request",
        r"prompt is too long|context[_ ](?:window|length)|input token count|maximum context"
        r"|input is too long|request too large",
        _LONG,
        _TO_SHORTEN,
    ),
    (
        "bad-request",
        r"issue with the selected model|model_not_found|(?:unknown|invalid) model\b"
        r"|\bmodel\b.{0,80}(?:not found|not exist|is not supported|no longer available)",
        "was asked for a model that it does not have",
        _TO_MODEL,
    ),
    (
        "quota",
        r"usage[_ ]limit|hit your (?:[\w-]+ )?limit|limit (?:was |has been )?(?:reached|exceeded)"
        r"|rate[ _-]?limit|too many requests|resource_exhausted|(?:has been|is) exhausted|exhausted your (?:capacity|quota)"
        r"|quota will reset",
        "",
        "",
    ),
    (
        "quota",
        r"credit balance|out of credits?|insufficient_quota|spending limit|billing details"
        r"|available credits|current quota|purchase (?:more )?credits",
        _MONEY,
        _TO_MONEY,
    ),
    (
        "login",
        r"not logged in|run /login|api[_ -]key (?:not valid|is not valid|is invalid|expired)"
        r"|(?:invalid|incorrect|wrong|missing|no) (?:x-)?api[_ -]?key|api_key_invalid"
        r"|failed to authenticate|error authenticating|authentication[_ ](?:error|failed)"
        r"|unauthori[sz]ed|unauthenticated|missing environment variable|must specify the \w+ env"
        r"|token could not be refreshed|sign in again|oauth token (?:has )?(?:expired|revoked)"
        r"|invalid bearer token|invalid auth method|permission_denied",
        "",
        "",
    ),
    (
        "overload",
        r"econnrefused|econnreset|enotfound|etimedout|eai_again|fetch failed|getaddrinfo"
        r"|connection (?:refused|reset|error|timed out)|network error|unable to connect"
        r"|error sending request|dns error",
        _NETWORK,
        _TO_NETWORK,
    ),
    ("bad-request", r"bad request|invalid_request|invalid_argument|unprocessable", "", ""),
    (
        "overload",
        r"internal server error|bad gateway|service unavailable|gateway time-?out"
        r"|stream disconnected|server_error",
        "",
        "",
    ),
)
_CRASH = (
    r"panicked at|^panic\(|fatal error:.{0,100}(?:memory|allocation)|^Node\.js v\d|segmentation fault"
    r"|^\S{0,200}node:internal/|uncaughtexception|unhandled ?rejection"
)

_STATUS = (
    r"(?:api error:?|http(?: error)?|unexpected status|last status:?|status(?: code)?:?|rejected"
    r"|error code:?|code\\{0,3}\"\s?:)\s?\(?([45]\d\d)(?!\d)"
)

_FAULTS = range(400, 600)

# The names that streams have for errors. Source: claude 2.1.330, `error` of its own messages.
_NAMES = {
    "authentication_failed": "login",
    "oauth_org_not_allowed": "login",
    "rate_limit": "quota",
    "billing_error": "quota",
    "overloaded": "overload",
    "server_error": "overload",
    "model_not_found": "bad-request",
    "invalid_request": "bad-request",
}


class Program:
    """What is special about one program: its cures, and signs that are looked for first."""

    __slots__ = ("install", "login", "options", "signs", "source")

    def __init__(
        self,
        *,
        install: str = "",
        login: str = "",
        options: Sequence[str] = (),
        source: str = "args:",
        signs: Sequence[Sign] = (),
    ) -> None:
        self.install = install
        self.login = login
        # Those that the backend gives it; with a stream mode, these two are among them.
        self.options = (*options, "--model", "--resume") if options else ()
        self.source = source  # where the user gives it more
        self.signs = (*signs, *COMMON)


def as_told(ended: base.Ended) -> base.Failure | None:
    """The failure by the class and the words of the stream itself; None where it has no class."""
    kind, error = ended.outcome.fault_class, ended.outcome.error
    if kind not in base.ERROR_CLASSES or not error:
        return None
    return base.Failure(kind, error, _reset.sensible(ended.outcome.fault_reset or 0.0, time.time()))


def of_program(
    ended: base.Ended, program: Program, lines: Iterable[str], status: int | None = None
) -> base.Failure:
    """Why a program that asks a model failed.

    `lines` are those in which it may have told, `status` is an HTTP status that the
    exit code stands for. What its stream told goes before both.
    """
    told = _told(ended)
    status = ended.outcome.fault_status or status
    if not told and not status:
        fault = _not_begun(ended, program) or _by_signal(ended)
        if fault:
            return fault
    # The last lines first: what it died of comes last. Redacted before any cut: half a key is none.
    candidates = [told] if told else [line for line in lines if line.strip()]
    telling = [redact.text(line)[:MAX_LINE] for line in candidates[: -MAX_LINES - 1 : -1]]
    for line in telling:
        for sign in program.signs:
            if re.search(sign[1], line, re.IGNORECASE):
                return _failure(ended, program, sign, line, telling)
    line = _with_status(telling, status)
    found = status or _status_in(line)
    kind = of_status(found) or _NAMES.get(ended.outcome.fault_class or "", "")
    if kind:
        sign = (kind, "", *_status_words(found))
        return _failure(ended, program, sign, line or _telling(telling), telling)
    if told:
        return base.Failure("failed", f"{ended.agent} failed: {_said(told)}")
    crash = next((line for line in telling if re.search(_CRASH, line, re.IGNORECASE)), "")
    if crash:
        return _failure(ended, program, ("crash", "", "", ""), crash, telling)
    return base.Failure("failed", by_code(ended, _telling(telling)))


def _with_status(lines: Iterable[str], status: int | None) -> str:
    """The first line that tells this HTTP status, or any where there is none; "" for no such line."""
    return next(
        (line for line in lines if _status_in(line) in ({status} if status else _FAULTS)), ""
    )


def of_plain(ended: base.Ended) -> base.Failure:
    """Why something failed that asks no model: a script, say. Its words are its own affair."""
    return (
        _no_folder(ended)
        or _by_signal(ended)
        or base.Failure(
            "failed", ended.outcome.error or by_code(ended, _telling(reversed_lines(ended.stderr)))
        )
    )


def of_status(status: int | None) -> str:
    """The class of an HTTP status; "" for one that is no failure."""
    if status in (401, 403):
        return "login"
    if status in (402, 429):
        return "quota"
    if status is None or not 400 <= status < 600:
        return ""
    return "overload" if status >= 500 or status == 408 else "bad-request"


def _status_words(status: int | None) -> tuple[str, str]:
    if status == 402:
        return _MONEY, _TO_MONEY
    if status == 404:
        return "was asked for a model or address that there is not", f"{_TO_MODEL}, or base_url:"
    if status == 413:
        return _LONG, _TO_SHORTEN
    return "", ""


def reversed_lines(text: str) -> list[str]:
    """The lines that are not empty, the last one first."""
    return [line for line in reversed(text.split("\n")) if line.strip()][:MAX_LINES]


def plain_lines(ended: base.Ended) -> list[str]:
    """The lines of a program without a stream, or whose stream did not begin: stdout, then stderr.

    Of a stdout that is more than a few lines nothing: that was an answer, or the end of
    an event that is too long to be seen whole.
    """
    said = [line for line in ended.stdout.split("\n") if line.strip()]
    is_long = len(said) > 5 or len(ended.stdout) > MAX_SAID
    is_answer = is_long or any(_is_event(line) for line in said)
    return [*([] if is_answer else said), *ended.stderr.split("\n")]


def _is_event(line: str) -> bool:
    """Whether it is part of a stream, and not the one object that is printed in place of that."""
    bare = line.replace(" ", "")
    is_end = '"type":"result"' in bare and '"is_error":true' in bare
    return line.startswith("{") and not is_end


def by_code(ended: base.Ended, line: str) -> str:
    """The sentence for a failure of no known kind."""
    if ended.code == 0 and ended.outcome.error == base.EMPTY_ANSWER:
        return f"{ended.agent} gave an empty answer: start it again, or use another model"
    if ended.code == 0:
        look = "see transcript.md and agent-stderr.txt in its run folder, and start it again"
        return f"exit code 0, but {ended.agent} ended without a result: {look}"
    last = f": {line}" if line else ""
    return f"agent exited with code {ended.code}{last}"


# What readers say where the output tells nothing of its end.
_NO_END = r"no \S+ event|it printed no answer|no answer in .*"


def _told(ended: base.Ended) -> str:
    """What the stream told of its end; "" where it broke off."""
    error = ended.outcome.error or ""
    return "" if error == base.EMPTY_ANSWER or re.fullmatch(_NO_END, error) else error


def _by_signal(ended: base.Ended) -> base.Failure | None:
    number = (ended.code or 0) - 128
    if number not in procs.SIGNAL_NAMES:
        return None
    what, cure = f"ended by {procs.SIGNAL_NAMES[number]}", "start it again"
    if number == 9:
        what = f"{what} (out of memory?)"
        cure = "start fewer at once, or give it more memory"
    elif "heap out of memory" in ended.stderr:
        what = f"{what} (its JavaScript heap was full)"
        cure = "put NODE_OPTIONS: --max-old-space-size=8192 into env: of the agent"
    return base.Failure("crash", f"{what}: {cure}")


def _not_begun(ended: base.Ended, program: Program) -> base.Failure | None:
    """Where the shell that was to become the program could not, or found no interpreter for it."""
    fault = _no_folder(ended)
    if fault or ended.code not in (126, 127) or ended.stdout.strip():
        return fault
    line = _telling(reversed_lines(ended.stderr))
    return _failure(ended, program, ("not-installed", "", "", ""), line, [])


def _no_folder(ended: base.Ended) -> base.Failure | None:
    line = _telling(reversed_lines(ended.stderr))
    if ended.code != 126 or not re.match(r"\S{0,40}sh: .{0,20}cd: ", line):
        return None
    said = f"its working folder cannot be entered ({_said(line)})"
    return base.Failure(
        "bad-request", f"{ended.agent} was not started: {said}: make it, or name another"
    )


def _failure(
    ended: base.Ended, program: Program, sign: Sign, line: str, around: Sequence[str]
) -> base.Failure:
    kind, _, head, cure = sign
    if kind == "too-old":
        kind, head, cure = _option_fault(program, line, head, cure)
    reset = _reset_time(ended, line, around) if kind in ("quota", "overload") else 0.0
    if reset and head == _MONEY:
        head = cure = ""  # who tells when it ends does not wait for money
    head = head or _HEADS[kind]
    if kind == "login":
        cure = cure or _own_key(ended)  # a sign with a cure of its own is no wrong key
    cure = cure or _cure(kind, program)
    if reset and kind == "quota":
        cure = (
            f"wait until {ids.rfc3339(int(reset) * 10**9)[:19]}Z, or use another agent or account"
        )
    said = _said(line)
    repeats = said.lower().startswith("not logged in")
    quoted = f" ({said})" if said and not repeats else ""
    return base.Failure(kind, f"{ended.agent} {head}{quoted}: {cure}", reset)


def _own_key(ended: base.Ended) -> str:
    """The cure where the key that was refused came from the configuration; "" where it did not."""
    variable = ended.options.get("token_variable")
    if not variable:
        return ""
    return f"correct its token in the configuration, which it is given as {variable}"


def _cure(kind: str, program: Program) -> str:
    if kind == "login" and program.login:
        return program.login
    if kind in ("not-installed", "too-old") and program.install:
        return f"{_CURES[kind]}: {program.install}"
    return _CURES[kind]


def _option_fault(program: Program, line: str, head: str, cure: str) -> tuple[str, str, str]:
    """The program is too old for an option of ours, or the user's own is wrong."""
    for option in program.options:
        if re.search(rf"(?<![\w-])-{{0,2}}{re.escape(option.lstrip('-'))}(?![\w-])", line):
            if re.search("allowed choices|invalid value", line, re.IGNORECASE):
                # The value may be one that the user has written.
                own = f"{program.source} and unattended: of the agent"
                cure = f"{_cure('too-old', program)}; or correct {own}"
            return "too-old", head, cure
    cure = f"correct {program.source} of the agent"
    return "bad-request", "was given an option that it does not know", cure


def _reset_time(ended: base.Ended, line: str, around: Sequence[str]) -> float:
    now = time.time()
    exact = ended.outcome.fault_reset
    if exact:
        return _reset.sensible(exact, now)
    for text in (line, *around):
        found = _reset.told(text, ended.at, now)
        if found:
            return found
    return 0.0


def _status_in(line: str) -> int | None:
    match = re.search(_STATUS, line, re.IGNORECASE)
    return int(match[1]) if match else None


def _telling(lines: Iterable[str]) -> str:
    """The first of the lines that says something, for a person; "" where none does."""
    for line in lines:
        if re.search(r"\w{2}", line) and not re.match(r"\s+at |\s{2,}\S+: ", line):
            return _said(line)
    return ""


def _said(line: str) -> str:
    """What a line says, without the JSON and the names of levels around it."""
    found = [
        text.strip()
        for text in re.findall(r'(?:message|result)\\{0,7}"\s?:\s?\\{0,7}"([^"\\]+)', line)
    ]
    text = max(found, key=len, default="") or line
    text = re.sub(
        r"^(?:\S{10,40}Z )?(?:fatal |uncaught )?error:? ", "", text.strip(), flags=re.IGNORECASE
    )
    return _render.one_line(text, 200).rstrip(".:")
