"""bus-append: post one message to a bus and print its id."""

from __future__ import annotations

import os
import sys

from lib import bus, cli, ids, paths
from lib.errors import EXIT_OK, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = cli.Command(
    "bus-append",
    "post one message to a bus and print its id",
    options=[
        cli.Option("--type", metavar="TYPE", default="INFO", help="type of the message (INFO)"),
        cli.Option("--bus", metavar="PATH", help="the bus file; created if its folder is there"),
        cli.Option("--root", metavar="DIR", help="post to the MESSAGE-BUS.md of this root"),
        cli.Option("--project", metavar="ID", help="project of the message, or of the bus"),
        cli.Option("--task", metavar="ID", help="task of the message, or of the bus"),
        cli.Option("--run", metavar="ID", help="run of the message"),
        cli.Option(
            "--parent", metavar="MSG_ID", many=True, help="answers this message; repeatable"
        ),
        cli.Option("--meta", metavar="K=V", many=True, help="a key and its value; repeatable"),
        cli.Option("--no-fsync", help="do not wait for the disk"),
        cli.Option(
            "--lock-timeout", metavar="TIME", kind="seconds", help="wait for the lock (10s)"
        ),
    ],
    positionals=[("BODY", "?", "text of the message; - or nothing: standard input")],
    about="""\
Customary types: FACT PROGRESS DECISION REVIEW ERROR QUESTION INFO USER.

The bus is, the first of these that applies: --bus; that of --root;
$JRUN_MESSAGE_BUS; that of the folder of --project and --task below the runs
folder, where there is such a folder; that of $CONDUCTOR_ROOT; the nearest
TASK-MESSAGE-BUS.md, PROJECT-MESSAGE-BUS.md or MESSAGE-BUS.md in the current
folder or above it; that of the default root. Ids that are not given come from
$JRUN_PROJECT_ID, $JRUN_TASK_ID and $JRUN_ID, else from the place of the bus.

When the id is printed, the message is on the disk. Token values are replaced
by [REDACTED]; NUL and what is not UTF-8 by U+FFFD, with a note on stderr.
The lock is waited for as long as --lock-timeout or $CONDUCTOR_LOCK_TIMEOUT says.""",
    examples=[
        'bin/bus-append --type FACT "storage: 24 tests pass"',
        "bin/bus-append --type QUESTION --task infra-storage - < question.md",
    ],
)


def main(argv: Sequence[str] | None = None) -> int:
    code = cli.run(COMMAND, _post, argv)
    if argv is None:
        # Everything is flushed. Taking the interpreter apart would cost 2 ms more, as much as
        # everything done here, and each agent pays that for each message.
        os._exit(code)
    return code


def _post(values: cli.Values) -> int:
    meta = dict([_pair(text) for text in values.items("meta")])
    body = _body(values.text("body"))
    msg_id = bus.append(
        _path(values),
        type_=values.text("type") or "",
        body=body,
        project=values.text("project"),
        task=values.text("task"),
        run=values.text("run"),
        parents=values.items("parent"),
        meta=meta,
        lock_seconds=values.seconds("lock_timeout"),
        durable=not values.flag("no_fsync"),
    )
    sys.stdout.write(msg_id + "\n")
    return EXIT_OK


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and key) or len(key) > 128:
        raise UsageError(f"--meta: {text[:40]!r} is not KEY=VALUE")
    return key, value


def _body(given: str | None) -> str:
    if given is None and os.isatty(0):
        raise UsageError("BODY is missing; give a text, or - to read standard input")
    if given is None or given == "-":
        data = _read_stdin()
        body = data.decode("utf-8", "replace")
        damaged = "\ufffd" in body and "\ufffd".encode() not in data
    else:
        body = given
        damaged = not given.isascii() and any("\ud800" <= c <= "\udfff" for c in given)
    if damaged or "\0" in body:
        sys.stderr.write("bus-append: the body is not plain UTF-8; what is not became U+FFFD\n")
    return body


def _read_stdin() -> bytes:
    pieces = []
    while piece := os.read(0, 1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def _path(values: cli.Values) -> str:
    option, root = values.text("bus"), values.text("root")
    if option or root or os.environ.get("JRUN_MESSAGE_BUS"):
        return paths.bus_path(root, option)
    wanted = _scope_bus(values.text("project"), values.text("task"))
    if wanted and os.path.isdir(os.path.dirname(wanted)):
        return wanted
    path = nearest_bus()
    if wanted:
        folder = os.path.dirname(wanted)
        sys.stderr.write(f"bus-append: there is no folder {folder}; posted to {path}\n")
    return path


def nearest_bus() -> str:
    """The bus where neither an option nor a run names one."""
    if not os.environ.get("CONDUCTOR_ROOT") and (found := paths.discover_bus(os.getcwd())):
        return found
    return paths.bus_path()


def _scope_bus(project: str | None, task: str | None) -> str | None:
    """The bus that --project and --task name, whether it is there or not."""
    for option, name in (("--project", project), ("--task", task)):
        if name and not ids.is_safe(name):
            raise UsageError(f"{option}: {name!r} cannot be the name of a folder")
    if not project:
        return None
    folder = os.path.join(paths.runs_dir(), project)
    if task:
        return os.path.join(folder, task, bus.TASK_BUS)
    return os.path.join(folder, bus.PROJECT_BUS)
