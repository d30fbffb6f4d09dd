"""What every script shares: options, --help, --version, errors and exit codes.

A script declares a `Command`; parsing, usage, help and the text of a wrong
option come from that one table.  (argparse would cost 12 ms at each start,
more than the interpreter itself, and `bus-append` is called by every agent
for every message.)
"""

from __future__ import annotations

import errno
import os
import sys

from lib import VERSION
from lib.errors import EXIT_BUG, EXIT_FAILED, EXIT_OK, EXIT_SIGNAL, UsageError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIGINT, SIGPIPE = 2, 13


class Option:
    """One option: `names` such as ("-n", "--lines"), a metavar unless it is a switch.

    `kind` is "text", "int", "count" (0 or more), "seconds" (a duration), "switch";
    `many` collects the values of a repeated option in a list; one that
    `is_optional` may stand without its value, which is then "".
    """

    __slots__ = ("default", "dest", "help", "is_optional", "kind", "many", "metavar", "names")

    def __init__(
        self,
        *names: str,
        help: str,  # noqa: A002 - the word that everybody expects here
        metavar: str = "",
        kind: str = "",
        default: object = None,
        many: bool = False,
        is_optional: bool = False,
    ) -> None:
        self.names = names
        self.help = help
        self.metavar = metavar
        self.kind = kind or ("text" if metavar else "switch")
        self.default = [] if many else False if self.kind == "switch" else default
        self.many = many
        self.is_optional = is_optional
        self.dest = names[-1].lstrip("-").replace("-", "_")


class Command:
    """A script as its user sees it; `positionals` are (NAME, "?" | "1" | "*", help)."""

    __slots__ = ("about", "examples", "exit_codes", "name", "options", "positionals", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        *,
        options: Sequence[Option] = (),
        positionals: Sequence[tuple[str, str, str]] = (),
        about: str = "",
        examples: Sequence[str] = (),
        exit_codes: str = "0 done, 1 failed, 2 wrong usage",
    ) -> None:
        self.name = name
        self.summary = summary
        self.options = [*options, *COMMON]
        self.positionals = positionals
        self.about = about
        self.examples = examples
        self.exit_codes = exit_codes

    def tell(self, text: str) -> None:
        """Print a line for people on stderr, redacted, behind all that was printed before."""
        from lib import redact

        sys.stdout.flush()
        sys.stderr.write(f"{self.name}: {redact.one_line(text)}\n")
        sys.stderr.flush()


COMMON = (
    Option("--debug", help="show a traceback when something fails"),
    Option("--version", help="print the version and exit"),
    Option("-h", "--help", help="print this help and exit"),
)

# Of the scripts that look at runs; some of them can read those of the original, too.
ROOT = Option(
    "--root", metavar="DIR", help="where runs/ is (default: $CONDUCTOR_ROOT, else the clone)"
)
RUNS_DIR = Option(
    "--runs-dir",
    metavar="DIR",
    help="the runs folder (default: $JRUN_RUNS_DIR, else ROOT/runs)",
)
ANY_RUNS_DIR = Option(
    "--runs-dir",
    metavar="DIR",
    help="the runs folder, or a storage root of the Go original "
    "(default: $JRUN_RUNS_DIR, else ROOT/runs)",
)


class Values:
    """The parsed command line: an attribute for each option and positional."""

    def __init__(self, values: dict[str, object]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> object:  # for the type checker: every name may be there
        raise AttributeError(name)

    def text(self, name: str) -> str | None:
        value = self.__dict__[name]
        return value if isinstance(value, str) else None

    def number(self, name: str) -> int | None:
        value = self.__dict__[name]
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def seconds(self, name: str) -> float | None:
        value = self.__dict__[name]
        return float(value) if isinstance(value, int | float) else None

    def flag(self, name: str) -> bool:
        return self.__dict__[name] is True

    def is_given(self, name: str) -> bool:
        """Whether the option was on the command line; for those without a default."""
        return self.__dict__[name] not in (None, False, [])

    def items(self, name: str) -> list[str]:
        value = self.__dict__[name]
        return [str(item) for item in value] if isinstance(value, list) else []


def parse_seconds(text: str) -> float:
    """`90`, `1.5`, `90s`, `15m`, `2h`, `1d` in seconds; ValueError for anything else."""
    factor = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}.get(text[-1:], 0.0)
    number = float(text[:-1]) * factor if factor else float(text)
    if not 0 <= number < 1e10:
        raise ValueError(text)
    return number


def parse_variables(pairs: list[str]) -> dict[str, str]:
    """What `--env KEY=VALUE` sets; UsageError for what is no such pair."""
    result = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not (name.isidentifier() and name.isascii()) or "\0" in pair:
            raise UsageError(
                f"--env: {name!r} is not KEY=VALUE; a KEY is made of letters, digits, _"
            )
        result[name] = value
    return result


def parse(command: Command, arguments: Sequence[str]) -> Values:
    """The values of a command line; raises UsageError in one line for a wrong one."""
    by_name = {name: option for option in command.options for name in option.names}
    values: dict[str, object] = {
        option.dest: list(option.default) if isinstance(option.default, list) else option.default
        for option in command.options
    }
    words: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        if word == "--":
            words += queue
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, joined = _split_option(word, by_name)
        option = by_name.get(name)
        if option is None:
            raise UsageError(f"unknown option {word}{suggestion(name, list(by_name))}; see --help")
        if option.kind == "switch":
            if joined is not None:
                raise UsageError(f"{name} takes no value; see --help")
            values[option.dest] = True
            continue
        if joined is None:
            if option.is_optional and (not queue or queue[0].startswith("-")):
                values[option.dest] = ""
                continue
            if not queue:
                raise UsageError(f"{name} needs a value ({option.metavar}); see --help")
            joined = queue.pop(0)
        value = _convert(option, name, joined)
        collected = values[option.dest]
        if option.many and isinstance(collected, list):
            collected.append(value)
        else:
            values[option.dest] = value
    if not (values["help"] or values["version"]):
        _take_positionals(command, words, values)
    return Values(values)


def _split_option(word: str, by_name: dict[str, Option]) -> tuple[str, str | None]:
    if word.startswith("--"):
        name, equals, joined = word.partition("=")
        return name, joined if equals else None
    if word not in by_name and word[:2] in by_name and by_name[word[:2]].kind != "switch":
        return word[:2], word[2:]  # -n20
    return word, None


def suggestion(name: str, known: Sequence[str]) -> str:
    """` (did you mean NAME?)` for a misspelt name, else nothing."""
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _convert(option: Option, name: str, text: str) -> object:
    if not text:  # an unset variable of the caller, not a wish for the default
        raise UsageError(f"{name} has an empty value; give one, or leave {name} out")
    try:
        if option.kind == "seconds":
            return parse_seconds(text)
        if option.kind not in ("int", "count"):
            return text
        number = int(text)
    except ValueError:
        wanted = "a time such as 90s, 15m or 2h" if option.kind == "seconds" else "a whole number"
        raise UsageError(f"{name}: {text!r} is not {wanted}") from None
    if number < 0 and option.kind == "count":
        raise UsageError(f"{name}: {number} is below 0; see --help")
    return number


def _take_positionals(command: Command, words: list[str], values: dict[str, object]) -> None:
    rest = list(words)
    for name, count, _ in command.positionals:
        key = name.lower().replace("-", "_")
        if count == "*":
            values[key], rest = rest, []
        elif rest:
            values[key] = rest.pop(0)
        elif count == "1":
            raise UsageError(f"{name} is missing; see --help")
        else:
            values[key] = None
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}; see --help")


def usage(command: Command) -> str:
    """The usage line."""
    marks = {"?": "[{}]", "1": "{}", "*": "[{}...]"}
    words = [marks[count].format(name) for name, count, _ in command.positionals]
    return " ".join([f"usage: {command.name} [options]", *words])


def help_text(command: Command) -> str:
    """The whole help, as `--help` prints it."""
    import textwrap

    lines = [f"{command.name} - {command.summary}", "", usage(command)]
    if command.about:
        lines += ["", command.about.strip()]
    rows = [(name, text) for name, _, text in command.positionals]
    if rows:
        lines += ["", "arguments:"]
    options = [(_shown_option(option), option.help) for option in command.options]
    for index, (left, text) in enumerate(rows + options):
        if index == len(rows):
            lines += ["", "options:"]
        first, *further = textwrap.wrap(text, 70)
        if len(left) > 26:
            lines += [f"  {left}", " " * 30 + first]
        else:
            lines.append(f"  {left:<26}  {first}")
        lines += [" " * 30 + line for line in further]
    lines += ["", "examples:", *[f"  {example}" for example in command.examples]]
    lines += ["", f"exit codes: {command.exit_codes}"]
    return "\n".join(lines) + "\n"


def _shown_option(option: Option) -> str:
    value = f"[{option.metavar}]" if option.is_optional else option.metavar
    return f"{', '.join(option.names)} {value}".rstrip()


def run(
    command: Command, action: Callable[[Values], int], arguments: Sequence[str] | None = None
) -> int:
    """Parse, call `action`, and turn however it ends into an exit code.

    UserError and OSError become one line on stderr that starts with the
    script's name.  Ctrl-C ends the process by SIGINT, so that a calling shell
    stops too; a closed pipe (`… | head`) ends it silently with 141; anything
    else is a bug: one line, EXIT_BUG.  `--debug` shows the traceback.
    Without `arguments` the process ends here, with that exit code.
    """
    if arguments is not None:
        return _run(command, action, arguments)
    code = _run(command, action, sys.argv[1:])
    # A script ends here.  The interpreter would take everything apart first,
    # for 2 ms, as long as a bus-append has to work.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass  # it was said, or nobody is there to be told
    os._exit(code)


def _catch_interrupts() -> None:
    """Ctrl-C is an exception from here on; before, while modules load, it just ended the script."""
    import _signal

    if _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _run(command: Command, action: Callable[[Values], int], arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments
    _prepare_streams()
    try:
        _catch_interrupts()
        values = parse(command, arguments)
        if values.flag("help"):
            sys.stdout.write(help_text(command))
            code = EXIT_OK
        elif values.flag("version"):
            sys.stdout.write(f"{command.name} {VERSION}\n")
            code = EXIT_OK
        else:
            code = action(values)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush stdout once more at exit and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_SIGNAL + SIGPIPE
    except KeyboardInterrupt:
        _die_by_sigint()
        return EXIT_SIGNAL + SIGINT
    except UserError as error:
        code = _report(command, str(error), error.exit_code, debug)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where += "; free some space and start it again"
        code = _report(command, f"{error.strerror or error}{where}", EXIT_FAILED, debug)
    except Exception as error:  # noqa: BLE001 - the outermost frame: nothing is swallowed
        text = f"bug: {type(error).__name__}: {error}; run it again with --debug to see where"
        code = _report(command, text.replace("\n", " "), EXIT_BUG, debug)
    return code


def _prepare_streams() -> None:
    """Whatever a script was given as stdin, stdout and stderr, it can write to them.

    Where one is closed, the next file opened would take its number, and what
    is printed would go into that.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _report(command: Command, text: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    from lib import redact

    try:
        sys.stdout.flush()
    except OSError:
        pass  # a full disk or a dead terminal behind it: that must not silence the reason
    try:
        for line in redact.for_terminal(redact.text(text)).split("\n"):
            sys.stderr.write(f"{command.name}: {line}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody is there to read it; the exit code still tells
    return code


def say(text: str) -> None:
    """Print at once.  Nobody may be listening any more: the script goes on all the same."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:  # EPIPE; EIO of a closed terminal
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _die_by_sigint() -> None:
    import _signal

    try:
        sys.stdout.flush()
    except OSError:
        pass
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    os.kill(os.getpid(), _signal.SIGINT)
