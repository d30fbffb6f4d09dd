"""What the agents of a round do: a little work, and a line in the ledger at its start and end.

    agent.py FOLDER work [steps=N] [fail=N] [code=N] [child=1] [post=N] [spawn=1] [lock=NAME]
                         [done=N] [leave=1]
    agent.py FOLDER verify [fail=N]

The ledger is on its own: it proves, without any file of the toolkit, what was
started how often, and what ran at the same time.  Each line is one write:

    start TASK RUN PID        an agent begins; overlap, if it is not alone
    end TASK RUN CODE         its last act before it exits with CODE
    verified TASK RUN CODE    a check of that run ended so
    posted ID TASK/RUN/N      bus-append has printed that id
    done TASK RUN 0           the Nth start of a task has made its DONE; those before end with CODE

That it is alone it knows from a flock that it holds until the kernel ends it.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

TOOLKIT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
TASK, RUN = os.environ.get("JRUN_TASK_ID", "?"), os.environ.get("JRUN_ID", "?")


def main(folder: str, act: str, options: dict[str, str]) -> int:
    if act == "verify":
        code = int(count(folder, "verified", TASK) < number(options, "fail"))
        note(folder, "verified", code)
        return code
    is_retry = count(folder, "start", TASK) >= number(options, "fail")
    names = [TASK, *([f"lock {options['lock']}"] if "lock" in options else [])]
    alone = [hold(folder, name) for name in names]
    note(folder, "start", os.getpid())
    if not all(alone):
        note(folder, "overlap", os.getpid())
    return work(folder, options, number(options, "code") if is_retry else 3)


def work(folder: str, options: dict[str, str], code: int) -> int:
    for step in range(number(options, "steps")):
        say(f"{RUN} step {step}")
        time.sleep(0.02)
    if "spawn" in options:
        start(["sleep", "600"], apart=True)
    for n in range(number(options, "post")):
        post(folder, n)
    if "child" in options:
        run_child(folder, f"{TASK}-child")
    if "leave" in options:
        run_child(folder, f"{RUN}-child", is_left=True)
    if "done" in options and count(folder, "start", TASK) >= number(options, "done"):
        code = finish(folder)
    say(f"{RUN} ends with {code}")
    say("VERDICT: APPROVE")
    note(folder, "end", code)
    return code


def number(options: dict[str, str], name: str) -> int:
    return int(options.get(name, 0))


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def note(folder: str, word: str, value: object) -> None:
    write(folder, f"{word} {TASK} {RUN} {value}\n")


def write(folder: str, line: str) -> None:
    fd = os.open(os.path.join(folder, "ledger"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, line.encode())
    os.close(fd)


def count(folder: str, word: str, task: str) -> int:
    try:
        with open(os.path.join(folder, "ledger"), encoding="utf-8") as file:
            return sum(line.startswith(f"{word} {task} ") for line in file)
    except FileNotFoundError:
        return 0


def hold(folder: str, name: str) -> bool:
    """Take a lock until this process ends; False when somebody else has it."""
    fd = os.open(os.path.join(folder, f"hold {name}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def post(folder: str, n: int) -> None:
    body = f"{TASK}/{RUN}/{n}"
    printed = output_of([os.path.join(TOOLKIT, "bin", "bus-append"), body])
    if printed.endswith("\n"):
        write(folder, f"posted {printed.strip()} {body}\n")


def finish(folder: str) -> int:
    """Mark the task as done."""
    path = os.path.join(os.environ["JRUN_TASK_FOLDER"], "DONE")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    note(folder, "done", 0)
    return 0


def run_child(folder: str, task: str, is_left: bool = False) -> None:
    me = f"{sys.executable} -S -E '{os.path.realpath(__file__)}' '{folder}' work steps=2"
    script = os.path.join(TOOLKIT, "run-agent.py")
    prompt = f"```sh\nexec {me}\n```"
    command = [script, "shell", ".", "--prompt", prompt, "--task", task]
    if is_left:
        start(command, apart=True)
    else:
        output_of(command)


def output_of(command: list[str]) -> str:
    read_end, write_end = os.pipe()
    pid = start(command, write_end)
    os.close(write_end)
    with open(read_end, encoding="utf-8", errors="replace") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def start(command: list[str], stdout: int = -1, apart: bool = False) -> int:
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)
    ]
    if stdout >= 0:
        actions[1] = (os.POSIX_SPAWN_DUP2, stdout, 1)
    return os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsid=apart)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2], dict(a.split("=", 1) for a in sys.argv[3:])))
