"""The root, its runs folder, and whether their file system keeps what the toolkit relies on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shlex
import stat
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from lib import files, runner
from lib.doctor_base import (
    FAIL,
    NOTE,
    OK,
    VERSION_SECONDS,
    Check,
    from_error,
    output_of,
    without_tokens,
)
from lib.errors import UserError

LOCK_SECONDS = 10.0  # for another process to start and to take a lock
RELEASE_SECONDS = 10.0  # for a lock to be free after its holder was killed
NETWORK_TYPES = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "9p",
    "afs", "fuse.sshfs", "fuse.glusterfs", "virtiofs",
)  # fmt: skip


def place_checks(root: str, runs_dir: str, bus_path: str) -> Iterator[Check]:
    yield _folder_check("root", root)
    yield from _bus_checks(bus_path)
    check = _folder_check("runs folder", runs_dir)
    yield check
    if check.state != FAIL:
        yield from _file_system_checks(_nearest(runs_dir))


def _bus_checks(path: str) -> list[Check]:
    """Nothing of a bus that is not there, or that can be written."""
    if not os.path.lexists(path):
        return []
    if os.path.islink(path) or not os.path.isfile(path):
        return [Check("bus", FAIL, f"{path} is not a regular file", "move it away")]
    if not os.access(path, os.R_OK | os.W_OK):
        cure = f"chmod u+rw {shlex.quote(path)} as its owner"
        return [Check("bus", FAIL, f"{path} cannot be written", cure)]
    return []


def _nearest(path: str) -> str:
    """The path itself, or the nearest thing above it that exists."""
    return next(place for place in files.walk_up(path) if os.path.lexists(place))


def _folder_check(name: str, path: str) -> Check:
    """Whether the folder can be written, or be made where it is missing."""
    place = _nearest(path)
    other = "name another place with --root"
    if not os.path.isdir(place):
        return Check(name, FAIL, f"{place} is not a folder", f"move it away, or {other}")
    if not os.access(place, os.W_OK | os.X_OK):
        cure = f"chmod u+rwx {shlex.quote(place)} as its owner, or {other}"
        return Check(name, FAIL, f"{place} cannot be written", cure)
    if place != path:
        return Check(name, OK, f"{path} (made when it is needed)")
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & stat.S_IWOTH:
        text = f"{path} can be written by everybody (mode {mode:o})"
        return Check(name, NOTE, text, f"chmod o-w {shlex.quote(path)}")
    return Check(name, OK, f"{path} (writable)")


def _file_system_checks(place: str) -> list[Check]:
    where = file_system(place)
    try:
        with _trial_file(place) as (ours, theirs):
            check = _lock_check(ours, theirs, place, where)
    except OSError as error:
        text = f"{place} on {where.text} takes no files: {error.strerror or error}"
        return [Check("file system", FAIL, text, "name another place with --root")]
    return [check, _disk_check(place)]


@contextlib.contextmanager
def _trial_file(place: str) -> Generator[tuple[BinaryIO, BinaryIO], None, None]:
    """One file in `place`, opened twice: for two holders of its lock.

    It has lost its name before anything is tried, so that nothing stays behind, whoever
    is killed.
    """
    fd, path = tempfile.mkstemp(prefix=".doctor-", dir=place)
    with open(fd, "r+b", buffering=0) as ours:
        try:
            theirs = open(path, "r+b", buffering=0)
        finally:
            os.unlink(path)
        with theirs:
            files.write_all(fd, b"trial")
            files.sync(fd)
            yield ours, theirs


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a path lies on; `type` is "" where the system does not tell."""

    type: str
    mounted_at: str

    @property
    def text(self) -> str:
        return f"{self.type} (mounted at {self.mounted_at})" if self.type else "its file system"


def file_system(path: str) -> FileSystem:
    """The file system of an existing path."""
    try:
        mounts = _linux_mounts(files.read_text("/proc/self/mountinfo"))
    except OSError:
        mounts = _bsd_mounts(output_of(["mount"], os.environ, VERSION_SECONDS).stdout)
    return _mount_of(os.path.realpath(path), mounts)


def _mount_of(path: str, mounts: Sequence[FileSystem]) -> FileSystem:
    """The mount that holds a real path: the deepest, and of several on one point the last."""
    best = FileSystem("", "")
    for mount in mounts:
        folder = mount.mounted_at.rstrip("/")
        is_above = path == folder or path.startswith(f"{folder}/")
        if is_above and len(mount.mounted_at) >= len(best.mounted_at):
            best = mount
    return best


def _linux_mounts(text: str) -> list[FileSystem]:
    """Source: proc_pid_mountinfo(5); blanks in a path are written \\040."""
    mounts = []
    for line in text.split("\n"):
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if dash and len(fields) > 4:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
            mounts.append(FileSystem(after.split(" ")[0], point))
    return mounts


def _bsd_mounts(text: str) -> list[FileSystem]:
    """Lines of mount(8) on macOS and the BSDs: `/dev/disk1s1 on /Volumes/x (apfs, local)`."""
    found = re.findall(r"(?m)^.+? on (/.*) \(([^,)]+)[^)]*\)$", text)
    return [FileSystem(type_, point) for point, type_ in found]


# The other process takes the lock, says so, and keeps it until it is killed (or we are gone).
HOLDER = """
import fcntl, os, sys
fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
os.write(1, b"locked")
os.read(0, 1)
"""


def _lock_check(ours: BinaryIO, theirs: BinaryIO, place: str, where: FileSystem) -> Check:
    """Two processes: what one holds the other must not get, and must get when it is killed."""
    try:
        fault = _lock_fault(ours, theirs)
    except OSError as error:
        fault = f"the system says {error.strerror or error}"
    if fault:
        text = f"{place} on {where.text} does not honour locks: {fault}"
        cure = "put the root on a local disk with --root DIR, or mount this one with locks"
        return Check("locks", FAIL, text, cure)
    text = f"two processes kept each other out, on {where.text}"
    if where.type in NETWORK_TYPES:
        cure = "use the root from one machine at a time, unless you know that locks reach further"
        return Check("locks", NOTE, f"{text}; tried from this machine alone", cure)
    return Check("locks", OK, text)


def _lock_fault(ours: BinaryIO, theirs: BinaryIO) -> str:
    """What is wrong with locks here, "" when they work; closes `theirs`."""
    if not files.try_lock(ours.fileno()):
        return "a lock that nobody holds was refused"
    fcntl.flock(ours, fcntl.LOCK_UN)
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", HOLDER, str(theirs.fileno())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=without_tokens(os.environ),
        pass_fds=[theirs.fileno()],
    ) as holder:
        theirs.close()  # else it would keep the lock after the other process, too
        try:
            return _holder_fault(ours.fileno(), holder)
        finally:
            holder.kill()


def _holder_fault(ours: int, holder: subprocess.Popen[bytes]) -> str:
    assert holder.stdout is not None
    if not select.select([holder.stdout], [], [], LOCK_SECONDS)[0]:
        return f"another process did not get one within {LOCK_SECONDS:g} s"
    if holder.stdout.read(6) != b"locked":
        return "a lock that was let go was not given to another process"
    if files.try_lock(ours):
        return "two processes held the same one at once"
    holder.kill()
    holder.wait()
    if not files.wait_for(lambda: files.try_lock(ours), RELEASE_SECONDS, 0.01):
        return f"it was still held {RELEASE_SECONDS:g} s after its holder was killed"
    return ""


def _disk_check(place: str) -> Check:
    try:
        runner.check_space(place)
    except UserError as error:
        return from_error("disk", FAIL, error)
    said = os.environ.get("CONDUCTOR_MIN_FREE_MB", "")
    floor = f"{said or runner.DEFAULT_FREE_MB} MB (CONDUCTOR_MIN_FREE_MB)"
    found = f"{files.free_bytes(place) >> 20} MB free"
    try:
        int(said or 0)
    except ValueError:
        text = f"{found}; CONDUCTOR_MIN_FREE_MB={said} is no number and not used"
        return Check("disk", NOTE, text, f"set a number of MB, such as {runner.DEFAULT_FREE_MB}")
    return Check("disk", OK, f"{found}, the floor is {floor}")
