"""The message bus: append to it, read it, follow it. The format is in MESSAGE-BUS.md.

A message whose id `append` returned is whole in the file, and on the disk
unless `durable` was false. Messages stand in the order of their ids, since an
id is made under the lock and is never below the one before it, even when the
clock steps back. The lock is held for one write, never for the disk: fsync
comes after it, so that many writers share one flush.

An unfinished record (its writer was killed, the power failed) is closed by a
fence, a line that is an error inside a YAML header. Without it a reader that
goes by the delimiters alone would take our header for the rest of the torn one.

Readers take no lock and never see a half of a message: the header tells how
long the body is. They are in lib/bus_parse.py, which an append rarely needs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from lib import faults, files, ids, paths, redact
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lib.bus_parse import Message as Message
    from lib.bus_parse import Parser

    Parent = str | Mapping[str, object]

TASK_BUS, PROJECT_BUS, ROOT_BUS = paths.BUS_NAMES
ARCHIVED = ".archived"  # the end of the name of a bus that was rotated
LOCK_SECONDS = 10.0
FIRST_WINDOW = 16 * 1024  # bytes read from the end at first; twice as many each time after
_TAIL = 16 * 1024  # bytes in which the last message usually fits
_NOTE = b"""# Message bus

Written by `bin/bus-append`, read with `bin/bus-tail` (or tail and grep). What
stands between messages is free text; the format is explained in the
`MESSAGE-BUS.md` of the toolkit.
"""
_NOT_PLAIN = frozenset(["yes", "no", "on", "off", "true", "false", "null"])
_GIT_SECONDS = 5.0

# -- appending


def append(
    path: str,
    *,
    type_: str = "INFO",
    body: str,
    project: str | None = None,
    task: str | None = None,
    run: str | None = None,
    parents: Sequence[Parent] = (),
    meta: Mapping[str, str] | None = None,
    lock_seconds: float | None = None,
    durable: bool = True,
    environ: Mapping[str, str] | None = None,
) -> str:
    """Append one message and return its id; the file is created where it is missing.

    Ids left None come from `$JRUN_PROJECT_ID`, `$JRUN_TASK_ID`, `$JRUN_ID`,
    else from the place of the file. Body and meta values are redacted; NUL and
    lone surrogates become U+FFFD, else the body is kept byte for byte.
    `lock_seconds` defaults to `$CONDUCTOR_LOCK_TIMEOUT`, else 10.

    Raises UserError (an empty type, no such folder, not a regular file, disk
    full), LockTimeoutError. Unless it returns, nothing of the message stays.
    """
    tokens = None if environ is None else redact.known_tokens(environ)
    environ = os.environ if environ is None else environ
    if not type_.strip():
        raise UserError("the type of a message is empty; name one, such as INFO")
    path = os.path.abspath(path)
    if project is None:
        project = environ.get("JRUN_PROJECT_ID") or scope_of(path)[0]
    if task is None:
        task = environ.get("JRUN_TASK_ID") or scope_of(path)[1]
    stuffed = _encode_body(redact.text(body, tokens))
    fields = [
        f"type: {_plain(type_)}",
        f"project_id: {_plain(project)}",
        f"task_id: {_plain(task)}",
        f"run_id: {_plain(environ.get('JRUN_ID', '') if run is None else run)}",
    ]
    if parents:
        fields.append(f"parents: {_inline(_parent_list(parents))}")
    if meta:
        redacted = {key: redact.text(meta[key], tokens) for key in sorted(meta)}
        fields.append(f"meta: {_inline(redacted)}")
    fields.append(f"body_bytes: {len(stuffed)}\n---\n")
    rest = "\n".join(fields).encode() + stuffed + b"\n"
    return _write_message(path, rest, patience_seconds(lock_seconds, environ), durable)


def scope_of(path: str) -> tuple[str, str]:
    """Project and task that a bus belongs to by its place; "" where that tells nothing."""
    folder, name = os.path.split(os.path.abspath(path))
    if name == TASK_BUS:
        return os.path.basename(os.path.dirname(folder)), os.path.basename(folder)
    if name == PROJECT_BUS:
        return os.path.basename(folder), ""
    return ids.slug(os.path.basename(folder)), ""


def _encode_body(body: str) -> bytes:
    if "\0" in body:
        body = body.replace("\0", "\ufffd")
    try:
        data = body.encode()
    except UnicodeEncodeError:
        data = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in body).encode()
    if b"---" in data:
        from lib import bus_parse

        data = bus_parse.stuff(data)
    return data


def _plain(text: str) -> str:
    """A YAML scalar: plain where it is surely a text (`grep '^type: FACT'`), else quoted."""
    plain = len(text) > 1 and text[0].isalpha() and ids.is_safe(text)
    if plain and text.isascii() and text.lower() not in _NOT_PLAIN:
        return text
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'  # what yamlio.quote makes of it, without its import (1 ms)
    from lib import yamlio

    return yamlio.quote(text)


def _inline(value: object) -> str:
    from lib import yamlio

    return yamlio.scalar(value)


def _parent_list(parents: Sequence[Parent]) -> list[dict[str, object]]:
    return [{"msg_id": item} if isinstance(item, str) else dict(item) for item in parents]


def patience_seconds(given: float | None, environ: Mapping[str, str]) -> float:
    """How long a lock is waited for: as given, else as $CONDUCTOR_LOCK_TIMEOUT says, else 10."""
    text = environ.get("CONDUCTOR_LOCK_TIMEOUT")
    if given is not None or not text:
        return LOCK_SECONDS if given is None else given
    try:
        return max(0.0, float(text.removesuffix("s")))
    except ValueError:
        raise UserError(
            f"CONDUCTOR_LOCK_TIMEOUT: {text!r} is not a number of seconds; set one, such as 10"
        ) from None


def _write_message(path: str, rest: bytes, lock_seconds: float, durable: bool) -> str:
    fd = _open_locked(path, lock_seconds)
    try:
        msg_id, is_first = _write_locked(fd, path, rest)
        fcntl.flock(fd, fcntl.LOCK_UN)
        faults.point("bus-before-sync")
        if durable:
            files.sync(fd)
            if is_first:  # the name of a new file must be durable too
                files.sync_folder(os.path.dirname(path))
    finally:
        os.close(fd)
    faults.point("bus-done")
    return msg_id


def _open_locked(path: str, seconds: float) -> int:
    """The bus, open and locked; again when it was rotated away while we waited."""
    while True:
        fd = _open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            files.lock(fd, seconds, "message bus")
        except BaseException:
            os.close(fd)
            raise
        if _is_still(path, fd):
            faults.point("bus-locked")
            return fd
        os.close(fd)


def _is_still(path: str, fd: int) -> bool:
    try:
        there, here = os.lstat(path), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _open_regular(path: str, flags: int) -> int:
    """A descriptor of a bus file; a symlink or anything but a file is refused.

    O_NONBLOCK, since opening a FIFO would wait for its other end.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _open_error(path, flags, error) from None
    if os.fstat(fd).st_mode & 0o170000 != 0o100000:
        os.close(fd)
        raise UserError(f"not a regular file: {path}; a message bus must be one")
    return fd


def _open_error(path: str, flags: int, error: OSError) -> Exception:
    if error.errno in (errno.ELOOP, errno.EMLINK) and os.path.islink(path):
        return UserError(f"the message bus is a symbolic link: {path}; name the file itself")
    if error.errno in (errno.EISDIR, errno.ENXIO, errno.EOPNOTSUPP):
        return UserError(f"not a regular file: {path}; a message bus must be one")
    if error.errno == errno.ENOENT:
        if not flags & os.O_CREAT:
            return error
        folder = os.path.dirname(path)
        return UserError(f"no folder for the message bus: {folder}; make it, or name another bus")
    return UserError(
        f"cannot open the message bus: {path}: {error.strerror}; check its permissions"
    )


def _write_locked(fd: int, path: str, rest: bytes) -> tuple[str, bool]:
    """Write separator and message with one write; (id, is it the first in the file)."""
    size = os.fstat(fd).st_size
    separator, last_id, is_first = _look_at_end(fd, size)
    if is_first and os.path.realpath(path) == os.path.join(paths.TOOLKIT, ROOT_BUS):
        _hide_from_git()
    now = time.time_ns()
    msg_id = ids.message_id(now)
    if msg_id[:29] <= last_id[:29]:  # up to the nanoseconds: the clock stepped back
        msg_id = ids.message_id((nanoseconds_of(last_id) or now) + 1)
    head = f"---\nmsg_id: {msg_id}\nts: {ids.rfc3339(now)}\n"
    faults.point("bus-before-write")
    _write_or_undo(fd, path, size, separator + head.encode() + rest)
    faults.point("bus-written")
    return msg_id, is_first


def _write_or_undo(fd: int, path: str, size: int, data: bytes) -> None:
    """All of `data`, or the file as it was: a part of it is cut off again under the lock."""
    written = 0
    try:
        while written < len(data):
            written += os.write(fd, memoryview(data)[written:] if written else data)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise UserError(
                f"cannot write to the message bus: {path}: {error.strerror}; "
                "nothing was posted; free some space and post again"
            ) from None
        raise
    finally:
        if written < len(data):
            os.ftruncate(fd, size)


def nanoseconds_of(msg_id: str) -> int | None:
    """The time in `MSG-YYYYMMDD-HHMMSS-NNNNNNNNN-…`; None in any other id."""
    date, clock, fraction = msg_id[4:12], msg_id[13:19], msg_id[20:29]
    if not (msg_id.startswith("MSG-") and (date + clock + fraction).isdigit()):
        return None
    day = f"{date[:4]}-{date[4:6]}-{date[6:]}T"
    return ids.parse_rfc3339(f"{day}{clock[:2]}:{clock[2:4]}:{clock[4:]}.{fraction}Z")


# -- rotating


def rotate(path: str, limit_bytes: int, lock_seconds: float = LOCK_SECONDS) -> str | None:
    """Put a bus that is larger than that aside, and begin a new one; returns where the old one is.

    No message is lost: it is done under the lock, and a writer that waited
    for it goes on with the new file, which begins with the text that stood
    above the first message. Where files can have two names there is a bus at
    every moment, else the next message makes it. None: it is not so large (any
    more). UserError, LockTimeoutError as of `append`.
    """
    if files.size(path) <= limit_bytes:
        return None
    fd = _open_locked(path, lock_seconds)
    try:
        status = os.fstat(fd)
        if status.st_size <= limit_bytes:
            return None
        archive, has_two_names = _archive_of(path, status)
        faults.point("bus-archived")
        if not has_two_names:
            return archive
        first = next(read(path), None)
        count = first.offset if first and first.offset <= _TAIL else 0
        files.replace_file(path, os.pread(fd, count, 0).rstrip(b"\n"), status.st_mode & 0o777)
        return archive
    finally:
        os.close(fd)


def _archive_of(path: str, status: os.stat_result) -> tuple[str, bool]:
    """Give the file its second name, unless a rotation that was killed has done so; (it, is it
    the second). Its only one where the file system has no second names."""
    folder, name = os.path.split(path)
    if status.st_nlink > 1:
        for other in files.names(folder):
            is_archive = other.startswith(f"{name}.") and other.endswith(ARCHIVED)
            if is_archive and files.inode(os.path.join(folder, other)) == status.st_ino:
                return os.path.join(folder, other), True
    seconds = time.time()
    while True:
        archive = f"{path}.{ids.stamp(seconds)}{ARCHIVED}"
        seconds += 1
        if os.path.lexists(archive):
            continue  # nobody else makes one while we hold the lock
        try:
            os.link(path, archive)
            return archive, True
        except OSError:
            os.rename(path, archive)
            return archive, False


# -- where the file ends


def _look_at_end(fd: int, size: int) -> tuple[bytes, str, bool]:
    """(what must stand before the next record, the last id of ours or "", is there no message)."""
    if size == 0:
        return _NOTE + b"\n", "", True
    last_id = _id_of_whole_last(os.pread(fd, _TAIL, max(0, size - _TAIL)))
    if last_id:
        return b"\n", last_id, False
    return _study_end(fd, size)


def _id_of_whole_last(tail: bytes) -> str:
    """The id of the last message where the file plainly ends with all of one of ours, else ""."""
    close = tail.rfind(b"\n---\n")
    start = tail.rfind(b"\n---\nmsg_id: MSG-", 0, max(0, close))
    header = tail[start + 5 : close + 1]
    if start < 0 or b"\n---\n" in header:
        return ""
    count = header[header.rfind(b"\nbody_bytes: ") + 13 : -1]
    if not count.isdigit() or close + 5 + int(count) + 1 != len(tail) or tail[-1] != 0x0A:
        return ""
    msg_id = header[8 : header.find(b"\n")].decode("ascii", "replace")
    return msg_id if nanoseconds_of(msg_id) is not None else ""


def _study_end(fd: int, size: int) -> tuple[bytes, str, bool]:
    """The same with the readers' own machine, for every other end of a file."""
    messages, parser = _from_end(fd, size, lambda found: any(_is_ours(m) for m in found))
    ours = [message.msg_id for message in messages if _is_ours(message)]
    fence = b"" if os.pread(fd, 1, size - 1) == b"\n" else b"\n"
    pending = parser.pending
    if pending.startswith(b"---") or pending in (b"-", b"--"):
        from lib.bus_parse import FENCE

        fence += FENCE + b"%d: the record above it was not finished\n" % size
    elif parser.loose:  # an `---` in free text, behind which some readers still wait for a header
        fence += b"@ a message begins below\n"
    return fence + b"\n", ours[-1] if ours else "", not messages


def _is_ours(message: Message) -> bool:
    return nanoseconds_of(message.msg_id) is not None


def _hide_from_git() -> None:
    """Keep the traffic on the tracked bus page out of `git status`; fails silently.

    Runs once in the life of a clone, before the first message. Not the last
    word: `git update-index --no-skip-worktree MESSAGE-BUS.md` undoes it.
    """
    if not os.path.exists(os.path.join(paths.TOOLKIT, ".git")):
        return
    arguments = ["git", "-C", paths.TOOLKIT, "update-index", "--skip-worktree", ROOT_BUS]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        pid = os.posix_spawnp("git", arguments, environment, file_actions=null)
        ended = files.wait_for(lambda: os.waitpid(pid, os.WNOHANG)[0] != 0, _GIT_SECONDS, 0.002)
        if not ended:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    except OSError:
        pass  # no git: then nobody asks it for its status either


# -- reading


def read(path: str, offset: int = 0, torn: list[int] | None = None) -> Iterator[Message]:
    """Every message from `offset` on: 0, or `offset` or `end` of a message seen before.

    A missing file is an empty bus. Memory is bounded by the longest message.
    Offsets of torn records are added to `torn`.
    """
    from lib.bus_parse import Parser

    fd = open_to_read(path)
    if fd is None:
        return
    try:
        parser = Parser(offset)
        position = offset
        while True:
            # As much as is pending, so that a huge body is joined a few times only.
            data = os.pread(fd, max(1 << 20, len(parser.pending)), position)
            position += len(data)
            yield from parser.feed(data, at_end=not data)
            if not data:
                break
        if torn is not None:
            torn.extend(parser.torn)
    finally:
        os.close(fd)


def last(path: str, n: int, torn: list[int] | None = None) -> list[Message]:
    """The last `n` messages, the oldest first: exactly those that `read` ends with.

    Costs what these messages are long, not what the file is.
    """
    return recent(path, lambda found: len(found) >= n, torn)[-n:] if n > 0 else []


def since(path: str, msg_id: str, torn: list[int] | None = None) -> list[Message]:
    """The messages behind the one of that id; raises UserError when there is no such."""
    found = recent(path, lambda some: any(m.msg_id == msg_id for m in some), torn)
    return after_id(found, msg_id, path)


def after_id(messages: list[Message], msg_id: str, path: str) -> list[Message]:
    """Those of `messages` behind the one of that id; raises UserError when it is not among them."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].msg_id == msg_id:
            return messages[index + 1 :]
    raise UserError(
        f"no message {msg_id} in {path}; `bus-tail --json` shows the ids that are there"
    )


def recent(
    path: str, enough: Callable[[list[Message]], bool], torn: list[int] | None = None
) -> list[Message]:
    """The end of what `read` gives, from so far back that `enough(messages)` is true, or all."""
    fd = open_to_read(path)
    if fd is None:
        return []
    try:
        messages, parser = _from_end(fd, os.fstat(fd).st_size, enough)
    finally:
        os.close(fd)
    if torn is not None:
        torn.extend(parser.torn)
    return messages


def open_to_read(path: str) -> int | None:
    """A descriptor of the bus; None while there is none, UserError for a link and the like."""
    try:
        return _open_regular(path, os.O_RDONLY)
    except FileNotFoundError:
        return None


def _from_end(
    fd: int, size: int, enough: Callable[[list[Message]], bool]
) -> tuple[list[Message], Parser]:
    """Messages at the end of a file, and the parser that stands behind them."""
    from lib.bus_parse import Parser, sync

    window = FIRST_WINDOW
    while window < size:
        data = _pread_all(fd, window, size - window)
        place = sync(data)
        if place is not None:
            parser = Parser(size - window + place)
            messages = parser.feed(data[place:], at_end=True)
            if enough(messages):
                return messages, parser
        window *= 2
    parser = Parser()
    return parser.feed(_pread_all(fd, size, 0), at_end=True), parser


def _pread_all(fd: int, count: int, position: int) -> bytes:
    data = os.pread(fd, count, position)
    while len(data) < count and (more := os.pread(fd, count - len(data), position + len(data))):
        data += more
    return data


class Follower:
    """New messages of a bus, as they come; the file may be missing yet, be rotated or be cut.

    Begins behind what the file holds now, or at `offset`. Only whole messages
    are delivered, each once. A replaced file is read to its end, then the new
    one from its beginning; a file that shrank below what was read, likewise.
    `torn` collects the offsets of torn records.
    """

    def __init__(self, path: str, offset: int | None = None) -> None:
        from lib.bus_parse import Parser

        self.path = os.path.abspath(path)
        self.torn: list[int] = []
        self._fd: int | None = None
        self._seen = (0, 0)  # size and time of the last look
        self._parser = Parser(offset or 0)
        self._settled = offset or 0  # the end of the last message that was delivered
        if offset is None:
            self.recent(lambda found: True)

    def recent(self, enough: Callable[[list[Message]], bool]) -> list[Message]:
        """What `recent` of the module gives; `poll` goes on behind it."""
        self._reopen()
        if self._fd is None:
            return []
        messages, self._parser = _from_end(self._fd, os.fstat(self._fd).st_size, enough)
        self._settled = messages[-1].end if messages else 0
        self._collect_torn()
        return messages

    def poll(self) -> list[Message]:
        """What is new since the last call."""
        found: list[Message] = []
        if self._fd is not None:
            found = self._read_new()
            if _is_still(self.path, self._fd):
                return found
            found += self._read_new()  # what came between the look at it and its renaming
        if self._reopen():
            found += self._read_new()
        return found

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _reopen(self) -> bool:
        """Open what is at the path; an old file stays open until there is a new one."""
        from lib.bus_parse import Parser

        fd = open_to_read(self.path)
        if fd is None:
            return False
        if self._fd is not None:
            os.close(self._fd)
            self._parser, self._settled = Parser(), 0
        self._fd, self._seen = fd, (0, 0)
        return True

    def _read_new(self) -> list[Message]:
        from lib.bus_parse import Parser

        assert self._fd is not None
        status = os.fstat(self._fd)
        seen = (status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return []
        self._seen = seen
        if status.st_size < self._parser.base:
            if status.st_size < self._settled:
                self._settled = 0
            # Else only a write was taken back by its writer, because the disk was full.
            self._parser = Parser(self._settled)
        # An unfinished record is read again each time, since it may be taken back.
        count = status.st_size - self._parser.base
        found = self._parser.feed(_pread_all(self._fd, count, self._parser.base), at_end=True)
        if found:
            self._settled = found[-1].end
        self._collect_torn()
        return found

    def _collect_torn(self) -> None:
        """And forget what is unfinished: it is read again."""
        self.torn += self._parser.torn
        self._parser.torn = []
        self._parser.drop_pending()
