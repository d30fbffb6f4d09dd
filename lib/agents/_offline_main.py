"""The embedded agent: reads a prompt on stdin and behaves like a good agent, for no tokens.

It prints claude's stream-json, posts one PROGRESS and one FACT to
$JRUN_MESSAGE_BUS, writes $JRUN_RUN_FOLDER/output.md (each where the variable is
set), makes $JRUN_TASK_FOLDER/DONE where the prompt asks for that file, and ends
with 0. Where the prompt asks for a "VERDICT:", the last line of
its answer is `VERDICT: APPROVE`. Its tokens are the words of prompt and answer;
its cost is 0. It works for 0.1 s, or --delay SECONDS, or $CONDUCTOR_OFFLINE_DELAY.

Prompt lines of the form `offline: WORD [ARG]`, from the first column, rehearse
what real agents do; they are obeyed in order, between PROGRESS and FACT:

    say TEXT        say it, in the answer too
    print-env NAME  say the variable's value, in the answer too; the value is
                    printed in two halves with a flush between
    stderr TEXT     write a line to stderr
    touch PATH      make a file below the working folder
    flood N         print N events
    sleep SECONDS   do nothing for so long
    spawn           leave a process behind, in a session of its own, for 10 minutes
    hang            do nothing for ever
    crash           die by SIGKILL
    exit N          end here: 0 as if all were done, else with an error and status N
    no-result       end with 0, but without a result event, FACT and output.md
    empty           end with 0 and an empty result, without FACT and output.md
    reject          VERDICT: REJECT, asked for or not
    no-verdict      no verdict, asked for or not
    not-done        no DONE, asked for or not
    silent          nothing on stdout, from the very beginning

A line that is none of these is reported on stderr and otherwise passed over.
"""

from __future__ import annotations

import os
import sys
import time

DEFAULT_DELAY_SECONDS = 0.1
MARK = "offline: "


def main(argv: list[str]) -> int:
    options = dict(zip(argv[::2], argv[1::2], strict=False))
    delay = options.get("--delay") or os.environ.get("CONDUCTOR_OFFLINE_DELAY") or ""
    seconds = _number(delay)
    prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    if not prompt.strip():
        sys.stderr.write("offline agent: the prompt is empty\n")
        return 1
    session_id = options.get("--session-id") or _new_session_id()
    return Rehearsal(
        prompt, session_id, DEFAULT_DELAY_SECONDS if seconds is None else seconds
    ).run()


class Rehearsal:
    """One run of the embedded agent."""

    def __init__(self, prompt: str, session_id: str, delay_seconds: float) -> None:
        self.prompt = prompt
        self.session_id = session_id
        self.delay_seconds = delay_seconds
        self.started = time.monotonic()
        self.directives = _directives(prompt)
        self.words = {word for word, _ in self.directives}
        self.task = os.environ.get("JRUN_TASK_ID") or "the task"
        self.said: list[str] = []
        self.tool_calls = 0

    def run(self) -> int:
        """Do everything; return the exit status."""
        self.emit(
            type="system",
            subtype="init",
            cwd=os.getcwd(),
            tools=["Bash", "Write"],
            model="offline",
            permissionMode="bypassPermissions",
        )
        self.speak(f"I am the offline agent; I rehearse {self.task}.")
        self.post("PROGRESS", f"offline agent: began {self.task}")
        time.sleep(self.delay_seconds / 2)
        for word, argument in self.directives:
            status = self.obey(word, argument)
            if status is not None:
                return status
        time.sleep(self.delay_seconds / 2)
        return self.end()

    def end(self) -> int:
        if "no-result" in self.words:
            return 0
        if "empty" in self.words:
            self.result("")
            return 0
        answer = self.answer()
        self.write_output(answer)
        self.mark_done()
        self.post("FACT", f"offline agent: finished {self.task}")
        self.speak(answer)
        self.result(answer)
        return 0

    def answer(self) -> str:
        lines = [*self.said, f"The offline agent rehearsed {self.task}; nothing else was done."]
        if "no-verdict" in self.words:
            pass
        elif "reject" in self.words:
            lines += ["", "VERDICT: REJECT"]
        elif "VERDICT:" in self.prompt:
            lines += ["", "VERDICT: APPROVE"]
        return "\n".join(lines)

    def obey(self, word: str, argument: str) -> int | None:
        """Do what a directive says; return a status where it ends the run."""
        if word == "say":
            self.said.append(argument)
            self.speak(argument)
        elif word == "print-env":
            self.print_variable(argument)
        elif word == "stderr":
            sys.stderr.write(argument + "\n")
            sys.stderr.flush()
        elif word == "touch":
            self.touch(argument)
        elif word == "flood":
            self.flood(int(argument))
        elif word == "sleep":
            time.sleep(_number(argument) or 0)
        elif word == "spawn":
            self.spawn()
        elif word == "hang":
            while True:
                time.sleep(3600)
        elif word == "crash":
            self.crash()
        elif word == "exit" and int(argument) == 0:
            return self.end()
        elif word == "exit":
            self.result(f"the prompt told the offline agent to exit {argument}", failed=True)
            return int(argument)
        return None  # the others change how it ends

    def print_variable(self, name: str) -> None:
        value = os.environ.get(name)
        if not value:
            self.said.append(f"{name} is not set")
            self.speak(self.said[-1])
            return
        self.said.append(value)
        line = self.line(**_assistant({"type": "text", "text": value}))
        written = line.find(_json(value)[1:-1])
        middle = written + len(_json(value)[1:-1]) // 2
        self.write(line[:middle])
        time.sleep(0.05)  # long enough for a reader to come by in between
        self.write(line[middle:])

    def touch(self, path: str) -> None:
        tool_id = self.use_tool("Write", file_path=path, content="")
        folder = os.path.realpath(os.getcwd())
        target = os.path.realpath(os.path.join(folder, path))
        if not target.startswith(os.path.join(folder, "")):
            self.tool_result(tool_id, "this path is outside of the working folder", failed=True)
            return
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "ab"):
                pass
        except OSError as error:
            self.tool_result(tool_id, str(error), failed=True)
        else:
            self.tool_result(tool_id, "done")

    def flood(self, count: int) -> None:
        for number in range(1, count + 1):
            text = f"line {number} of {count}"
            self.write(self.line(**_assistant({"type": "text", "text": text})), flush=False)
        self.write(b"")

    def spawn(self) -> None:
        import subprocess

        nowhere = subprocess.DEVNULL
        child = subprocess.Popen(
            ["sleep", "600"], start_new_session=True, stdin=nowhere, stdout=nowhere, stderr=nowhere
        )
        self.said.append(f"left process {child.pid} behind")
        self.speak(self.said[-1])

    def crash(self) -> None:
        import _signal

        os.kill(os.getpid(), _signal.SIGKILL)

    def post(self, type_: str, body: str) -> None:
        """Post to the bus, as a tool call; a bus that cannot be written spoils nothing."""
        tool_id = self.use_tool("Bash", command=f"bus-append --type {type_} '{body}'")
        path = os.environ.get("JRUN_MESSAGE_BUS")
        if not path:
            self.tool_result(tool_id, "JRUN_MESSAGE_BUS is not set: nothing posted")
            return
        from lib import bus
        from lib.errors import UserError

        try:
            self.tool_result(tool_id, bus.append(path, type_=type_, body=body))
        except (UserError, OSError, ValueError) as error:
            self.tool_result(tool_id, str(error), failed=True)

    def write_output(self, answer: str) -> None:
        from lib import files

        folder = os.environ.get("JRUN_RUN_FOLDER")
        if not folder:
            return
        path = os.path.join(folder, "output.md")
        tool_id = self.use_tool("Write", file_path=path, content=answer)
        try:
            files.replace_file(path, (answer + "\n").encode("utf-8", "replace"), durable=False)
        except OSError as error:
            self.tool_result(tool_id, str(error), failed=True)
        else:
            self.tool_result(tool_id, "done")

    def mark_done(self) -> None:
        """Make DONE in the task folder, if that is wanted: a child run is not asked for it."""
        folder = os.environ.get("JRUN_TASK_FOLDER")
        if not folder or f"{folder}/DONE" not in self.prompt or "not-done" in self.words:
            return
        tool_id = self.use_tool("Bash", command=f"touch {folder}/DONE")
        try:
            with open(os.path.join(folder, "DONE"), "ab"):
                pass
        except OSError as error:
            self.tool_result(tool_id, str(error), failed=True)
        else:
            self.tool_result(tool_id, "")

    def result(self, text: str, *, failed: bool = False) -> None:
        self.emit(
            type="result",
            subtype="success",
            is_error=failed,
            result=text,
            num_turns=self.tool_calls + 1,
            duration_ms=int((time.monotonic() - self.started) * 1000),
            total_cost_usd=0,
            usage={
                "input_tokens": len(self.prompt.split()),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": len(text.split()),
            },
        )

    def speak(self, text: str) -> None:
        self.emit(**_assistant({"type": "text", "text": text}))

    def use_tool(self, name: str, **values: str) -> str:
        self.tool_calls += 1
        tool_id = f"offline_{self.tool_calls}"
        self.emit(**_assistant({"type": "tool_use", "id": tool_id, "name": name, "input": values}))
        return tool_id

    def tool_result(self, tool_id: str, text: str, *, failed: bool = False) -> None:
        block = {
            "type": "tool_result",
            "tool_use_id": tool_id,
            "content": text,
            "is_error": failed,
        }
        self.emit(type="user", message={"role": "user", "content": [block]})

    def emit(self, **event: object) -> None:
        self.write(self.line(**event))

    def line(self, **event: object) -> bytes:
        return _json({**event, "session_id": self.session_id, "parent_tool_use_id": None}) + b"\n"

    def write(self, data: bytes, *, flush: bool = True) -> None:
        if "silent" in self.words:
            return
        sys.stdout.buffer.write(data)
        if flush:
            sys.stdout.buffer.flush()


def _assistant(block: dict[str, object]) -> dict[str, object]:
    message = {"role": "assistant", "model": "offline", "content": [block]}
    return {"type": "assistant", "message": message}


def _json(value: object) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _directives(prompt: str) -> list[tuple[str, str]]:
    """The directives of the prompt, in order, each with an argument that fits it."""
    found = []
    for line in prompt.split("\n"):
        if not line.startswith(MARK):
            continue
        word, _, argument = line.removeprefix(MARK).rstrip("\r").partition(" ")
        if _is_directive(word, argument):
            found.append((word, argument))
        else:
            sys.stderr.write(f"offline agent: not a directive: {line!r}\n")
    return found


def _is_directive(word: str, argument: str) -> bool:
    if word in ("say", "stderr", "touch", "print-env"):
        return bool(argument)
    if word in ("exit", "flood"):
        whole = argument.isascii() and argument.isdecimal() and len(argument) < 10
        return whole and (word == "flood" or int(argument) < 256)
    if word == "sleep":
        return _number(argument) is not None
    plain = (
        "spawn", "hang", "crash", "no-result", "empty", "reject", "no-verdict", "not-done", "silent",
    )  # fmt: skip
    return word in plain and not argument


def _number(text: str) -> float | None:
    """Seconds, at most a year of them; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 3.2e7 else None


def _new_session_id() -> str:
    import uuid

    return str(uuid.uuid4())


if __name__ == "__main__":
    # In place of this folder, whose files would hide modules of the same name.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        os._exit(1)  # the flush at exit would fail again
    sys.exit(status)
