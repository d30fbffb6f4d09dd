"""Files that survive a crash: atomic replacement, bounded locks, reading from the end.

Durability rule: data is fsynced before the rename that shows it, and the
folder after it, so that a power cut leaves the old content or the new one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time

from lib import faults
from lib.errors import LockTimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_F_FULLFSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_LINUX = sys.platform == "linux"
# A kill or a reader cannot come between the bytes of a write that stays in the
# first page of a file: its size changes once, when all of it is there.
ONE_WRITE_BYTES = 4096
CLOCK_NS = 20_000_000  # so far the times of files are behind the clock at most
LOCK_POLL_SECONDS = (0.0005, 0.01)  # first and longest pause between two tries


def portable_only() -> bool:
    """True where the Linux-only paths must not be used (also forced, for tests)."""
    return not _LINUX or os.environ.get("CONDUCTOR_PORTABLE") == "1"


def sync(fd: int) -> None:
    """Force what was written to `fd` to the medium (macOS: through the drive's cache too)."""
    if _F_FULLFSYNC is not None:
        try:
            fcntl.fcntl(fd, _F_FULLFSYNC)
            return
        except OSError:
            pass  # not every file system there has it; fsync is what remains
    os.fsync(fd)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however often the system takes only a part."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def create_file(path: str, data: bytes, mode: int, durable: bool = True) -> bool:
    """Make a new file hold exactly `data`; False, with nothing done, where that cannot be had.

    That is where there is a file already, and where one write might be cut.
    Its name becomes durable with the folder.  A crash leaves no file, an
    empty one or the whole, and so does a full disk.
    """
    if len(data) > ONE_WRITE_BYTES:
        return False
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        return False
    try:
        faults.point("create-opened")
        if data:
            _write_once(fd, data, 0)
            faults.point("create-written")
            if durable:
                sync(fd)
    finally:
        os.close(fd)
    return True


def extend_file(path: str, data: bytes) -> bool:
    """Add `data` to a file so that a crash leaves all of it there, or nothing.

    False, with nothing done, where one write might be cut.  Not durable.
    """
    fd = open_regular(path, os.O_WRONLY | os.O_APPEND)
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
        if size + len(data) > ONE_WRITE_BYTES:
            return False
        _write_once(fd, data, size)
    finally:
        os.close(fd)
    faults.point("extend-written")
    return True


def _write_once(fd: int, data: bytes, size: int) -> None:
    if os.write(fd, data) < len(data):
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def replace_file(
    path: str, data: bytes, mode: int = 0o644, durable: bool = True, name_durable: bool = True
) -> None:
    """Make `path` hold exactly `data`, or leave it as it was.

    Durable on return unless `durable` is false; without `name_durable` the
    caller makes another name of the same folder durable afterwards.  A crash
    may leave a file `.NAME.PID.tmp` beside it, never a part of the data under
    the name itself.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            if not durable:
                _allocate(fd, len(data))
            write_all(fd, data)
            faults.point("replace-written")
            if durable:
                sync(fd)
        finally:
            os.close(fd)
        faults.point("replace-before-rename")
        os.rename(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    faults.point("replace-renamed")
    if durable and name_durable:
        sync_folder(folder)


def _allocate(fd: int, size: int) -> None:
    """Give a file its blocks before it is written.

    ext4 flushes a file without blocks as soon as it replaces another one
    (mount option auto_da_alloc), and its own replacement waits for that.
    """
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            pass  # not every file system can; the write will tell what is wrong


def remove(path: str) -> bool:
    """Remove a file; False when there was none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def names(folder: str) -> list[str]:
    """What is in a folder, sorted; [] for one that cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def remove_temporaries(folder: str) -> None:
    """Remove what a killed `replace_file` left in a folder that nobody else writes now."""
    for name in os.listdir(folder):
        if name.startswith(".") and name.endswith(".tmp"):
            remove(os.path.join(folder, name))


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file; OSError for a link, a FIFO and the like.

    For what an agent may have put something else in the place of: opening a
    FIFO would wait for its other end.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd


def read_regular(path: str, limit: int) -> bytes:
    """The first `limit` bytes of a regular file; OSError for anything else.

    Without the buffers of `open`, which cost more than what is read from small files.
    """
    fd = open_regular(path)
    try:
        parts = []
        while limit > 0 and (part := os.read(fd, min(limit, 1 << 20))):
            parts.append(part)
            limit -= len(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def read_text(path: str, limit: int | None = None) -> str:
    """The file as UTF-8 with replacement; at most `limit` bytes of it."""
    with open(path, "rb") as file:
        return file.read(-1 if limit is None else limit).decode("utf-8", "replace")


def read_tail(path: str, size: int) -> bytes:
    """The last `size` bytes of a file, or all of a shorter one; b"" when it does not exist."""
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            return file.read(size)
    except FileNotFoundError:
        return b""


def last_lines(path: str, count: int, window: int = 64 * 1024) -> list[str]:
    """The last `count` lines of a file, from its last `window` bytes."""
    lines = read_tail(path, window).decode("utf-8", "replace").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return lines[-count:] if count > 0 else []


def size(path: str) -> int:
    """Bytes in a file; 0 when it does not exist."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def signature(path: str) -> tuple[int, int, int] | None:
    """Inode, size and mtime (ns), of which one is another when a file has grown or was replaced.

    None for no file.  No link is followed.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def is_regular(path: str) -> bool:
    """True for a regular file; a link to one is none."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def inode(path: str) -> int:
    """The inode number behind a path; 0 when there is none."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def try_lock(fd: int, shared: bool = False) -> bool:
    """Take the flock of an open file now, or say False.

    flock belongs to the open file description: a fork shares it, closing
    another descriptor of the file does not drop it, the kernel drops it with
    the last holder.  (POSIX record locks do none of that.)
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        raise
    faults.point("locked")
    return True


def lock(fd: int, seconds: float, what: str) -> None:
    """Take the exclusive flock of an open file within `seconds`, or raise LockTimeoutError.

    The message begins `lock timeout: WHAT locked for >Ns` and names the
    holder where the system tells.
    """
    pause, longest = LOCK_POLL_SECONDS
    limit = time.monotonic() + seconds
    while not try_lock(fd):
        if time.monotonic() >= limit:
            holder = lock_holder(fd)
            by = f" by {holder}" if holder else ""
            raise LockTimeoutError(
                f"lock timeout: {what} locked for >{seconds:g}s{by}; "
                "end that process, or wait for it and try again"
            )
        time.sleep(pause)
        pause = min(longest, pause * 2)


def lock_holder(fd: int) -> str:
    """`pid 4711 (python3 …)` of who holds the flock of this file; "" where nobody tells.

    Source: proc_locks(5).
    """
    status = os.fstat(fd)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = read_text("/proc/locks").split("\n")
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == wanted:
            return f"pid {fields[4]}{command_of(fields[4])}"
    return ""


def command_of(pid: str) -> str:
    """` (python3 …)`: the command line of a process, printable; "" where the system does not tell."""
    try:
        command = read_text(f"/proc/{pid}/cmdline", 200).replace("\0", " ").strip()
    except OSError:
        return ""
    printable = "".join(c for c in command if c.isprintable())
    return f" ({printable})" if printable else ""


def open_lock(path: str) -> int:
    """A descriptor of the lock file at `path`, which is created when it is missing."""
    return open_regular(path, os.O_RDWR | os.O_CREAT)


def is_locked(path: str) -> bool:
    """True while somebody holds the exclusive flock of the file; writes nothing."""
    try:
        fd = open_regular(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd, shared=True)
    finally:
        os.close(fd)


def append_line(path: str, line: str) -> None:
    """Append one line to a small log file; one write, so that lines do not mix."""
    fd = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        write_all(fd, line.encode("utf-8", "replace") + b"\n")
    finally:
        os.close(fd)


def free_bytes(path: str) -> int:
    """Bytes that this user may still write on the file system of `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def walk_up(start: str) -> Iterator[str]:
    """`start` and every folder above it, the nearest first."""
    path = os.path.abspath(start)
    while True:
        yield path
        parent = os.path.dirname(path)
        if parent == path:
            return
        path = parent


def wait_for(condition: Callable[[], bool], seconds: float, poll_seconds: float = 0.05) -> bool:
    """Poll `condition` until it is true or `seconds` have passed; says which."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= limit:
            return False
        time.sleep(poll_seconds)
    return True
