"""What `bin/doctor --live` does: one tiny, paid call of each agent, as a run of its own.

Each is a run-agent.py in a root and a working folder that are gone afterwards, so that what
answers here is started, watched and stopped as in earnest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from lib import config, files, paths, redact, runs, spawner, usage
from lib.agents import base
from lib.doctor_base import FAIL, NOTE, OK, Check

PROMPT = "Use no tool and write no file: answer with the single word ready."
TIMEOUT_SECONDS, IDLE_SECONDS = 120, 60
GRACE_SECONDS = 5  # between SIGTERM and SIGKILL
MOST_AT_ONCE = 4
POLL_SECONDS = 0.05
MAX_ANSWER_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Call:
    """How one call went; figures that the agent does not tell are None."""

    agent: str
    reason: str  # why it failed; "" = it answered
    answer: str = ""
    error_class: str = ""
    seconds: float | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    cost_estimated: bool = False

    def as_dict(self) -> dict[str, object]:
        return {"ok": not self.reason, **asdict(self)}

    def check(self) -> Check:
        """In one sentence."""
        told = [f"after {self.seconds:.1f} s"] if self.seconds is not None else []
        told += [f"model {self.model}"] if self.model else []
        if self.input_tokens is not None and self.output_tokens is not None:
            told.append(f"{self.input_tokens} tokens in, {self.output_tokens} out")
        told.append(_cost(self.cost_usd, is_estimated=self.cost_estimated))
        said = f"failed: {self.reason}" if self.reason else f"answered {self.answer[:60]!r}"
        state = FAIL if self.reason else OK
        return Check(f"live {self.agent}", state, f"{said} ({', '.join(told)})")


def _cost(amount: float | None, *, is_estimated: bool) -> str:
    return "cost not told" if amount is None else usage.dollars(amount, is_estimated)


def total(calls: Sequence[Call], agent: str | None = None) -> Check:
    """How many answered, and what all of them cost; `agent` is the one that was named."""
    if not calls:
        cure = "name one with --agent; the checks above say what each of them lacks"
        if agent is not None:
            cure = f"mend what is said of {agent} above"
        return Check("live", NOTE, "no agent was called", cure)
    answered = sum(not call.reason for call in calls)
    known = [call.cost_usd for call in calls if call.cost_usd is not None]
    is_estimated = any(call.cost_estimated for call in calls)
    cost = _cost(sum(known) if known else None, is_estimated=is_estimated)
    silent = [call.agent for call in calls if call.cost_usd is None]
    more = f", and what {', '.join(silent)} cost, which is not told" if known and silent else ""
    state = OK if answered == len(calls) else FAIL
    return Check("live", state, f"{answered} of {len(calls)} answered: {cost} in all{more}")


def call_agents(settings: config.Config, names: Sequence[str]) -> Iterator[Call]:
    """Each call as it ends, four at a time; closed early, it stops what is still at work."""
    with tempfile.TemporaryDirectory(prefix="doctor-", ignore_cleanup_errors=True) as root:
        waiting = list(enumerate(names))
        working: dict[int, subprocess.Popen[bytes]] = {}
        try:
            while waiting or working:
                while waiting and len(working) < MOST_AT_ONCE:
                    number, name = waiting.pop(0)
                    working[number] = _start(settings, name, os.path.join(root, str(number)))
                ended = [
                    number for number, process in working.items() if process.poll() is not None
                ]
                for number in ended:
                    del working[number]
                    yield _call(names[number], os.path.join(root, str(number)))
                if not ended:
                    time.sleep(POLL_SECONDS)
        finally:
            _stop(list(working.values()))


def _start(settings: config.Config, name: str, folder: str) -> subprocess.Popen[bytes]:
    """run-agent.py with a root, a bus and a working folder below `folder`."""
    cwd = os.path.join(folder, "work")
    os.makedirs(cwd)
    command = [*spawner.interpreter(), os.path.join(paths.TOOLKIT, "run-agent.py")]
    command += ["--root", folder, "--runs-dir", os.path.join(folder, "runs")]
    command += ["--bus", os.path.join(folder, "MESSAGE-BUS.md"), "--project", "doctor"]
    command += ["--timeout", str(TIMEOUT_SECONDS), "--idle-timeout", str(IDLE_SECONDS)]
    command += ["--config", settings.path] if settings.path else []
    # Not those of a run inside which the doctor was started: this is no child of it.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JRUN_")}
    environment["CONDUCTOR_STOP_GRACE"] = str(GRACE_SECONDS)
    with (
        open(os.path.join(folder, "stdout"), "wb") as stdout,
        open(os.path.join(folder, "stderr"), "wb") as stderr,
    ):
        return subprocess.Popen(
            [*command, "--prompt", PROMPT, "--json", "--", name, cwd],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the doctor, which then stops it
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Have each run end its agent and all that it started; nothing interrupts that."""
    if not processes:
        return
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(GRACE_SECONDS + 10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call(name: str, folder: str) -> Call:
    """What the run in `folder`, which has ended, says of itself."""
    try:
        record = base.as_dict(json.loads(_read(folder, "stdout") or "null"))
    except ValueError:
        record = {}
    if not record:
        said = _read(folder, "stderr").strip().split("\n")[-1].removeprefix("run-agent.py: ")
        return Call(name, redact.one_line(said) or "run-agent.py ended without a word")
    reason = ""
    if record.get("status") != "completed":
        reason = redact.one_line(base.as_text(record.get("error_summary"))) or base.NO_REASON
    return Call(
        name,
        reason,
        answer="" if reason else _answer(base.as_text(record.get("output_path"))),
        error_class=base.as_text(record.get("error_class")),
        seconds=round(runs.Run("", record).seconds(), 3),
        model=base.as_name(record.get("model")),
        input_tokens=base.as_count(record.get("input_tokens")),
        output_tokens=base.as_count(record.get("output_tokens")),
        cost_usd=base.as_amount(record.get("cost_usd")),
        cost_estimated=record.get("cost_estimated") is True,
    )


def _read(folder: str, name: str) -> str:
    return files.read_text(os.path.join(folder, name), 1 << 20)


def _answer(path: str) -> str:
    try:
        data = files.read_regular(path, MAX_ANSWER_BYTES)
    except OSError:
        return ""
    return redact.one_line(data.decode("utf-8", "replace"), 200)
