"""What stands between a supervisor and its agent: a few lines of sh, which outlive the supervisor."""

from __future__ import annotations

import os

from lib import faults, files, procs, runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DESCRIPTORS = 5  # stdin, stdout, stderr, 3: the pid comes out, 4: the word comes in

# The guard leads the session, so the group has a leader as long as the agent
# lives; its traps are reset in the agent (POSIX: caught signals, unlike ignored
# ones, return to the default).
# The process that will be the agent tells its pid (on 3) and waits for a word
# (on 4) before it becomes that: the supervisor gives it once the pid is on
# disk.  When that was killed before, nobody can give it any more, so that a run
# without a pid in its record has no agent, and will never have one.  The exit
# code is one write of the shell itself into a file that has its room already,
# for a full disk; its line feed tells that it is whole.  (A rename takes a
# process of its own, mv, and as long as the rest of the guard.)
# $0 = run folder, $1 = working folder, then the agent's command line.
_FRAME = r"""trap : HUP INT QUIT TERM USR1 USR2
{agent}
code=$?
[ -e "$0/pid.txt" ] && echo $code 1<>"$0/.exit-code"
exit $code
"""
_AGENT = r"""cd "$2" || exit 126
    unset OLDPWD
    trap "" PIPE; echo $1 >"$0/pid.txt" && { echo $1 >&3; } 2>/dev/null &&
        read -r go <&4 && trap - PIPE && shift 2 && exec "$@" 3>&- 4<&-
    rm -f "$0/pid.txt"; exit 125"""
# A shell tells its own pid, but a part of it in a process of its own tells the
# whole one's.  Linux says it without the cost of another shell.
SCRIPT = _FRAME.replace("{agent}", f"""/bin/sh -c 'set -- $$ "$@"\n    {_AGENT}' "$0" "$@\"""")
SCRIPT_LINUX = _FRAME.replace(
    "{agent}",
    f"""(\n    cd -P /proc/self && set -- "${{PWD##*/}}" "$@" || exit 126\n    {_AGENT}\n)""",
)


def start(
    run: runs.Run, stdin: str, cwd: str, command: list[str], variables: Mapping[str, str]
) -> tuple[int, int, int]:
    """Start the guard of a run.

    Returns its pid, the end of a pipe that tells the agent's pid and then the guard's
    end, and the end of another one, on which a line lets the agent begin.
    ValueError for a command or variables that no process can be given.
    """
    prompt = os.open(stdin, os.O_RDONLY | os.O_CLOEXEC)
    append = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    stdout = os.open(run.file(runs.STDOUT), append, 0o600)
    stderr = os.open(run.file(runs.STDERR), append, 0o600)
    write_new(run.file(runs.EXIT_CODE), b" " * 8)
    pipe, pid_end = os.pipe()
    word_end, word = os.pipe()
    # dup2 onto its own number would leave close-on-exec set: move such a
    # descriptor out of the way of the target numbers first.
    sources = [_above_targets(fd) for fd in (prompt, stdout, stderr, pid_end, word_end)]
    faults.point("run-before-spawn")
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _script(), run.path, cwd, *command],
            dict(variables),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(sources)
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=procs.RESET_SIGNALS,
        )
    except BaseException:
        os.close(pipe)
        os.close(word)
        raise
    finally:
        for fd in sources:
            os.close(fd)
    faults.point("run-spawned")
    return pid, pipe, word


def _script() -> str:
    try:
        # After `unshare --pid` alone, /proc is that of another pid namespace.
        is_ours = not files.portable_only() and os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        is_ours = False
    return SCRIPT_LINUX if is_ours else SCRIPT


def _above_targets(fd: int) -> int:
    if fd >= DESCRIPTORS:
        return fd
    import fcntl

    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, DESCRIPTORS)
    os.close(fd)
    return moved


def write_new(path: str, data: bytes) -> None:
    """Write a file from its beginning, in place: nobody reads it yet."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        files.write_all(fd, data)
    finally:
        os.close(fd)
