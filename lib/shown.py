"""What a person is shown of a file in a run folder: redacted, and harmless to a terminal.

An agent may have put anything in the place of such a file. Opened is a
regular file only, and never through a link: a named pipe would block for
ever, and a link could show what is not the run's.
"""

from __future__ import annotations

import codecs
import os
import stat

from lib import redact
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_BYTES = 1 << 20
WINDOW_BYTES = (64 << 10, 4 << 20)  # looked at for the last lines: at first, and at most
MARGIN_BYTES = 16 << 10  # read before the first line shown: a private key is not longer


def open_regular(path: str) -> int | None:
    """A descriptor to read the file; None when there is none yet; UserError for anything else."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{redact.for_terminal(path)} is not shown: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UserError(f"{redact.for_terminal(path)} is not shown: it is no regular file")
    return fd


def tail(path: str, count: int) -> list[str]:
    """The last `count` lines; of more than 4 MiB without a line break only the end."""
    growing = Growing(path)
    text = growing.begin(count) + growing.finish()
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines[-count:]


class Growing:
    """A file as it grows: each piece redacted, wherever the writer's pieces end.

    The file may be missing yet. One that is replaced by another is shown from
    its beginning; one that is cut (a transcript that a new supervisor renders
    anew) goes on where it stood.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._restart(None)

    def _restart(self, identity: tuple[int, int] | None) -> None:
        self._identity = identity
        self._position = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._redaction = redact.Stream()

    def begin(self, count: int) -> str:
        """At least the last `count` whole lines; whoever shows them cuts off what is more."""
        fd = open_regular(self.path)
        if fd is None:
            return ""
        try:
            status = os.fstat(fd)
            self._restart((status.st_dev, status.st_ino))
            start, whole = _window(fd, status.st_size, count)
            self._position = start
            text = self._read(fd, status.st_size)
        finally:
            os.close(fd)
        return text if whole else text[MARGIN_BYTES:]

    def copy(self, write: Callable[[str], object]) -> None:
        """Write all that is new."""
        fd = open_regular(self.path)
        if fd is None:
            return
        try:
            status = os.fstat(fd)
            identity = (status.st_dev, status.st_ino)
            if self._identity != identity:
                write(self.finish())
                self._restart(identity)
            while self._position < status.st_size:
                end = min(status.st_size, self._position + CHUNK_BYTES)
                write(self._read(fd, end))
        finally:
            os.close(fd)

    def finish(self) -> str:
        """What was kept back of an unfinished last line."""
        rest = self._redaction.feed(self._decoder.decode(b"", True)) + self._redaction.finish()
        return redact.for_terminal(rest)

    def _read(self, fd: int, end: int) -> str:
        data = b""
        while self._position < end:
            part = os.pread(fd, end - self._position, self._position)
            if not part:
                self._position = end  # cut in this moment
                break
            self._position += len(part)
            data += part
        return redact.for_terminal(self._redaction.feed(self._decoder.decode(data)))


def _window(fd: int, size: int, count: int) -> tuple[int, bool]:
    """Where to begin to read for the last `count` lines, and whether that holds them whole."""
    window, most = WINDOW_BYTES
    while True:
        start = max(0, size - window)
        if start == 0:
            return 0, True
        data = os.pread(fd, window, start)
        if data.count(b"\n", MARGIN_BYTES) > count:
            return start, True
        if window >= most:
            return start, False
        window *= 4
