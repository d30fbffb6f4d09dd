"""What must hold after a round: found by check-storage's own code, and by the ledger without it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from lib import bus, integrity, integrity_base, loop_record, propagation, runs, state, tasks
from lib.bus_parse import Message
from lib.errors import UserError
from tests.torture.bodies import as_kept, body_of
from tests.torture.round import Round
from tests.torture.scenes import LoopScene

_HARMLESS = ("is torn", "which no bus here holds", "is not finished")


def examine(round_: Round) -> list[str]:
    """Every violation of a round that has settled, in words."""
    found = [*round_.log.problems]
    found += _storage(round_)
    found += _leftovers(round_)
    ledger = Ledger.read(round_.notes / "ledger")
    messages = list(bus.read(str(round_.bus)))
    posted = [*messages]
    for loop in round_.scene.loops:
        posted += bus.read(round_.task_of(loop).bus)
    found += _posts(ledger, {message.msg_id: message.body for message in posted})
    found += _readers(round_, [(message.msg_id, message.body) for message in messages])
    found += _ledger(round_, ledger)
    found += _ledger(round_, Ledger(_rows_of_offline(round_, messages)))
    found += _singles(round_, ledger)
    found += _outputs(round_)
    found += _plan(round_)
    for loop in round_.scene.loops:
        found += _loop(round_, loop, ledger)
    found += _bugs(round_)
    return found


def _storage(round_: Round) -> list[str]:
    report = integrity.examine(integrity_base.place_of(str(round_.root)), settle_seconds=0.2)
    return [
        finding.line(str(round_.root))
        for finding in report.findings
        if not any(text in finding.what for text in _HARMLESS)
    ]


def _leftovers(round_: Round) -> list[str]:
    """Nothing half-made anywhere in the root."""
    return [
        f"left behind: {os.path.relpath(os.path.join(folder, name), round_.root)}"
        for folder, _, names in os.walk(round_.root)
        for name in names
        if name.endswith(".tmp") or name == state.JOURNAL_NAME
    ]


# -- the ledger


@dataclass
class Ledger:
    """The lines of the round's ledger, in their order."""

    rows: list[list[str]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        if not path.exists():
            return cls()
        return cls([line.split(" ") for line in path.read_text().split("\n")[:-1]])

    def of(self, word: str) -> list[list[str]]:
        return [row[1:] for row in self.rows if row[0] == word]


def _posts(ledger: Ledger, messages: dict[str, str]) -> list[str]:
    found = []
    for msg_id, key in ledger.of("posted"):
        is_agent = key.count("/") == 2
        wanted = key if is_agent else as_kept(body_of(key))
        if msg_id not in messages:
            found.append(f"acknowledged and lost: {msg_id} ({key})")
        elif messages[msg_id] != wanted:
            found.append(f"acknowledged and changed: {msg_id} ({key})")
    return found


def _readers(round_: Round, whole: list[tuple[str, str]]) -> list[str]:
    """Who follows the bus sees every message, once, in the order of the file, as it is there."""
    hurt = {kill.pid for kill in round_.log.kills if kill.part == "reader"}
    found = []
    for path in round_.log.readers:
        lines = path.read_text().split("\n")
        seen = [json.loads(line) for line in lines[:-1]]
        shown = [(str(item["msg_id"]), str(item["body"])) for item in seen]
        if shown != whole[: len(shown)]:
            found.append(f"{path.name} has seen other messages than the bus holds")
        elif len(shown) < len(whole) and not hurt:
            found.append(f"{path.name} has seen {len(shown)} of {len(whole)} messages")
    return found


def _ledger(round_: Round, ledger: Ledger) -> list[str]:
    found = [f"two at once: {row}" for row in ledger.of("overlap")]
    started = [run for _, run, _ in ledger.of("start")]
    found += [f"started twice: {run}" for run in set(started) if started.count(run) > 1]
    verified = {str(task["id"]) for task in round_.scene.tasks if "verify" in task}
    verified |= {loop.task for loop in round_.scene.loops}  # an end with 0 is none without DONE
    excused = _excused(round_)
    paid: dict[str, str] = {}  # task -> its run that had succeeded
    ended: dict[str, str] = {}
    for word, task, run, *rest in ledger.rows:
        if word == "start":
            if task in paid and not task.endswith("-child"):
                found.append(f"paid for twice: {task} by {paid[task]} and by {run}")
        elif word == "end" and rest == ["0"]:
            ended[run] = task
            if task.partition("@")[0] not in verified and run not in excused:
                paid[task] = run
        elif word == "verified" and rest == ["0"] and run in ended and run not in excused:
            paid[task] = run
    return found


def _rows_of_offline(round_: Round, messages: list[Message]) -> list[list[str]]:
    """What the ledger would say of the embedded agent, which posts when it begins and finishes."""
    kinds = {str(task["id"]): task for task in round_.scene.tasks if task["kind"] == "offline"}
    rows = []
    for message in messages:
        task = kinds.get(message.task_id)
        if task and message.body.startswith("offline agent: began"):
            rows.append(["start", message.task_id, message.run_id, "0"])
        elif task and "verify" not in task and message.body.startswith("offline agent: finished"):
            rows.append(["end", message.task_id, message.run_id, "0"])
    return rows


def _excused(round_: Round) -> set[str]:
    """Runs whose success the harness itself may have taken away: it hit agent or guard, or had
    the run stopped."""
    excused = set()
    for kill in round_.log.kills:
        is_stop = kill.what in ("SIGTERM", "SIGINT", "stop-run")
        if kill.run_id and (kill.part in ("agent", "guard") or is_stop):
            excused.add(kill.run_id)
    return excused | round_.log.stopped


def _singles(round_: Round, ledger: Ledger) -> list[str]:
    """A single run that nobody harmed has its agent's code, on disk and as run-agent.py's own."""
    codes = {run: int(code) for _, run, code in ledger.of("end")}
    hit = {kill.run_id for kill in round_.log.kills if kill.run_id}
    # A signal may meet run-agent.py before it has a record that names the run: known by its pid.
    struck = {kill.pid for kill in round_.log.kills if kill.pid}
    by_id = {run.run_id: run for run in round_.all_runs()}
    killed = {k.pid for k in round_.log.kills if k.what == signal.SIGKILL.name}
    found = []
    for ended in round_.log.singles:
        run = by_id.get(ended.run_id)
        if run is None:
            if ended.run_id:
                found.append(f"{ended.run_id} was printed, and there is no such run")
            continue
        is_struck = bool(struck & {ended.pid, run.number("supervisor_pid")})
        if is_struck or run.run_id in hit or run.run_id in _excused(round_):
            continue
        if run.run_id in codes and run.number("exit_code") != codes[run.run_id]:
            found.append(f"{run.run_id}: recorded {run.text('exit_code')}, was {codes[run.run_id]}")
        if not ended.harmed and not killed and ended.code != ended.single.code:
            found.append(f"run-agent.py of {run.run_id} ended with {ended.code}")
    return found


def _outputs(round_: Round) -> list[str]:
    """The answer of a run of text is what its agent has printed, to the last byte."""
    found = []
    for run in round_.all_runs():
        if run.text("status") == runs.COMPLETED and run.text("agent") in ("shell", "command"):
            output = Path(run.file(runs.OUTPUT)).read_bytes()
            if output != Path(run.file(runs.STDOUT)).read_bytes():
                found.append(f"{run.run_id}: output.md is not what the agent printed")
    return found


def _plan(round_: Round) -> list[str]:
    if not round_.scene.tasks:
        return []
    try:
        tasks = state.read(str(round_.runs_dir / "p" / state.STATE_NAME))
    except (UserError, OSError) as error:
        return [f"the plan's state cannot be read: {error}"]
    return [f"task {name} is {e.state}: {e.why}" for name, e in tasks.items() if e.state != "done"]


# -- tasks in loops


def _loop(round_: Round, loop: LoopScene, ledger: Ledger) -> list[str]:
    """One task is done, told of once, and of none of its attempts anything was lost."""
    task = round_.task_of(loop)
    fields, attempts = loop_record.read(task)
    found = []
    if fields.get("state") != loop_record.DONE or not tasks.is_done(task):
        found.append(f"the loop of {loop.task} is {fields.get('state')}: {fields.get('why')}")
    told = [
        message.msg_id
        for message in bus.read(task.project_bus)
        if message.type == "FACT"
        and message.meta.get("kind") == propagation.KIND
        and message.meta.get("source_task_id") == loop.task
    ]
    if len(told) != 1:
        found.append(f"{len(told)} completions of {loop.task} on the project's bus: {told}")
    names = [str(attempt["run"]) for attempt in attempts]
    is_done = False
    for word, name, run, *_ in ledger.rows:
        if name == loop.task and word == "start":
            if run not in names:
                found.append(f"an attempt of {loop.task} was lost: {run}")
            if is_done:
                found.append(f"{run} was started though {loop.task} was done")
        is_done = is_done or (name == loop.task and word == "done")
    return [*found, *_chain(round_, task, names), *_codes(round_, loop, ledger)]


def _chain(round_: Round, task: tasks.Task, names: list[str]) -> list[str]:
    """Each attempt names the one before that was started as its previous run."""
    by_id = {run.run_id: run for run in round_.all_runs()}
    found, before = [], ""
    for name in names:
        run = by_id.get(name)
        if run is None or not run.record:
            found.append(f"attempt {name} of {task.task} has no record")
        elif run.text("error_summary") == runs.NEVER_STARTED:
            continue
        elif run.text("previous_run_id") != before:
            text = run.text("previous_run_id") or "none"
            found.append(f"attempt {name} follows {before or 'none'}, and its record says {text}")
        before = name
    return found


def _codes(round_: Round, loop: LoopScene, ledger: Ledger) -> list[str]:
    """The exit code of every agent that nobody harmed is in its record, whoever else was killed."""
    struck = {kill.pid for kill in round_.log.kills if kill.pid}
    excused = _excused(round_)
    by_id = {run.run_id: run for run in round_.all_runs()}
    found = []
    for task, name, code in ledger.of("end"):
        run = by_id.get(name)
        if task != loop.task or run is None or name in excused or run.number("pgid") in struck:
            continue
        if run.number("exit_code") != int(code):
            found.append(f"{name}: recorded {run.text('exit_code')}, was {code}")
    return found


# A SIGINT between the interpreter's own start and the statement of a script that takes SIGINT, in
# its line 7: frames of the interpreter (with no source line below them), and one of the script.
_BEFORE_THE_SCRIPT = re.compile(
    r"^Traceback \(most recent call last\):\n"
    r"(?:  File \"[^\"]+\", line [0-7], in <module>\n(?:    .+\n){0,2})?"
    r"(?:  File \"<frozen [^\"]+\", line \d+, in .+\n)*"
    r"KeyboardInterrupt\n",
    re.MULTILINE,
)


def _bugs(round_: Round) -> list[str]:
    """No traceback anywhere, and nothing that a script calls a bug of its own."""
    logs = [round_.notes / "errors", *(Path(r.file("supervisor.log")) for r in round_.all_runs())]
    found: dict[str, int] = defaultdict(int)
    for path in logs:
        text = path.read_text(errors="replace") if path.exists() else ""
        for line in bugs_in(text):
            found[f"{path.name} of {path.parent.name}: {line[:200]}"] += 1
    return list(found)


def bugs_in(text: str) -> list[str]:
    """The lines of an error output that tell of a fault of a script."""
    lines = _BEFORE_THE_SCRIPT.sub("", text).split("\n")
    return [line for line in lines if ": bug: " in line or "Traceback" in line or "Error:" in line]
