"""bus-tail: the last messages of a bus, and those to come."""

from __future__ import annotations

import os
import sys

from lib import bus, cli, paths, redact
from lib.errors import EXIT_OK, UsageError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Filter = Callable[[bus.Message], bool]

COMMAND = cli.Command(
    "bus-tail",
    "show the last messages of a bus, and follow it",
    options=[
        cli.Option("-n", "--lines", metavar="N", kind="int", help="messages (20; -1: all)"),
        cli.Option("-f", "--follow", help="go on with new messages; wait for a missing bus"),
        cli.Option("--since", metavar="MSG_ID", help="only messages behind this one"),
        cli.Option("--type", metavar="A,B", help="only these types"),
        cli.Option("--task", metavar="ID", help="only this task"),
        cli.Option("--grep", metavar="RE", help="only bodies that match the regular expression"),
        cli.Option("--json", help="one JSON object a line: the header's fields and the body"),
        cli.Option("--bus", metavar="PATH", help="the bus file (or as the argument)"),
        cli.Option("--root", metavar="DIR", help="the MESSAGE-BUS.md of this root"),
    ],
    positionals=[("PATH", "?", "the bus file")],
    about="""\
Without a path: $JRUN_MESSAGE_BUS, else that of $CONDUCTOR_ROOT, else the
nearest TASK-MESSAGE-BUS.md, PROJECT-MESSAGE-BUS.md or MESSAGE-BUS.md in the
current folder or above it, else that of the default root. With filters, -n
counts the messages that pass. Times are UTC. Records that a killed writer left
unfinished are skipped and mentioned once on stderr.""",
    examples=[
        "bin/bus-tail -f --type ERROR,RUN_CRASH",
        "bin/bus-tail -n -1 --task infra-storage --json | jq -r .body",
    ],
    exit_codes="0 done, 1 no such bus or message, 2 wrong usage",
)
IDLE_SECONDS = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(COMMAND, _tail, argv)


def _tail(values: cli.Values) -> int:
    path = _path(values)
    following = values.flag("follow")
    show = _json_line if values.flag("json") else text_of
    passes = _filter(values)
    count = values.number("lines")
    since = values.text("since")
    if count is None:
        count = -1 if since else 20
    if not following and not os.path.lexists(path):
        raise UserError(f"no bus at {path}; `bin/bus-append` creates it, --follow waits for it")
    follower = bus.Follower(path, 0)
    for message in _first(follower, passes, count, since):
        sys.stdout.write(show(message))
    sys.stdout.flush()
    reported = _report_torn(follower, False)
    if following:
        _follow(follower, passes, show, reported)
    return EXIT_OK


def _first(
    follower: bus.Follower, passes: Filter, count: int, since: str | None
) -> list[bus.Message]:
    """The last `count` messages that pass, read from no further back than they need."""
    if since:
        found = follower.recent(lambda some: any(m.msg_id == since for m in some))
        found = bus.after_id(found, since, follower.path)
    else:
        found = follower.recent(
            lambda some: 0 <= count <= len(some) and count <= sum(map(passes, some))
        )
    found = [message for message in found if passes(message)]
    return found if count < 0 else found[len(found) - min(count, len(found)) :]


def _follow(
    follower: bus.Follower, passes: Filter, show: Callable[[bus.Message], str], reported: bool
) -> None:
    from lib.watch import Waiter

    waiter = Waiter(follower.path)
    while True:
        found = [show(message) for message in follower.poll() if passes(message)]
        if found:
            sys.stdout.write("".join(found))
            sys.stdout.flush()
        reported = _report_torn(follower, reported)
        if waiter.wait(IDLE_SECONDS, 1) and _reader_has_gone():
            raise BrokenPipeError


def _reader_has_gone() -> bool:
    import select

    poll = select.poll()
    poll.register(1, 0)
    return any(events & (select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))


def _report_torn(follower: bus.Follower, reported: bool) -> bool:
    if follower.torn and not reported:
        places = ", ".join(str(offset) for offset in follower.torn[:5])
        sys.stderr.write(
            f"bus-tail: skipped {len(follower.torn)} unfinished record(s) of a killed writer, "
            f"at byte {places}\n"
        )
    return reported or bool(follower.torn)


def _path(values: cli.Values) -> str:
    given = values.text("path") or values.text("bus")
    root = values.text("root")
    if given or root or os.environ.get("JRUN_MESSAGE_BUS") or os.environ.get("CONDUCTOR_ROOT"):
        return paths.bus_path(root, given)
    return paths.discover_bus(os.getcwd()) or paths.bus_path()


def _filter(values: cli.Values) -> Filter:
    types = values.text("type")
    wanted = {name.strip().upper() for name in types.split(",")} if types is not None else None
    task = values.text("task")
    pattern = values.text("grep")
    search: Callable[[str], object] | None = None
    if pattern is not None:
        import re

        try:
            search = re.compile(pattern, re.MULTILINE).search
        except re.error as error:
            raise UsageError(f"--grep: {pattern!r} is no regular expression: {error}") from None

    def passes(message: bus.Message) -> bool:
        return (
            (wanted is None or message.type.upper() in wanted)
            and (task is None or message.task_id == task)
            and (search is None or search(message.body) is not None)
        )

    return passes


def text_of(message: bus.Message) -> str:
    """`2026-02-23 19:17:10 FACT  task/run: body`, further lines indented, safe to print."""
    when = f"{message.ts[:10]} {message.ts[11:19]}"
    who = "/".join(part for part in (message.task_id, message.run_id) if part)
    head = f"{when} {message.type:<5} {who + ': ' if who else ''}".replace("\n", " ")
    first, *further = message.body.rstrip("\n").split("\n")
    lines = [head + first, *["    " + line if line else "" for line in further]]
    return redact.for_terminal(redact.text("\n".join(lines))) + "\n"


def _json_line(message: bus.Message) -> str:
    import json

    fields = message.as_dict()
    fields["body"] = redact.text(message.body)
    if message.meta:
        fields["meta"] = {key: redact.text(value) for key, value in message.meta.items()}
    text = json.dumps(fields, ensure_ascii=False)
    return (text if text.isprintable() else _escaped(text)) + "\n"


def _escaped(text: str) -> str:
    """JSON without raw C1 characters, overrides and the like: the same value, safe to print."""
    return "".join(
        c if c.isprintable() else "".join(f"\\u{unit:04x}" for unit in _units(c)) for c in text
    )


def _units(character: str) -> list[int]:
    code = ord(character)
    if code < 0x10000:
        return [code]
    code -= 0x10000
    return [0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF)]
