"""Plays a recorded run again, for no tokens: its output in its time, its answer, its exit code.

    agents:
      claude:
        type: replay
        recording: ~/recorded     # a run folder; or a root or runs folder, where the newest run of
                                  # the same task is taken, else the newest of the same agent name
        speed: 10                 # 1 = as it was, 0 = without waiting
        kind: claude              # whose output it is, where the recording does not tell
        fault: crash              # crash, flood, hang, login, overload, quota, silence
        fault_tasks: [build-02]   # only these tasks have it
        fault_runs: 1             # so many runs of a task have it; then it plays well
        fault_at: 0.5             # the share of the output that comes before it
        fault_reset: 2            # seconds after which a quota is open again
        flood_bytes: 67108864     # how much a flood is

The prompt is not looked at. A recording is never written to.
"""

from __future__ import annotations

import os
import sys

from lib import agents, files, ids, runs
from lib.agents import _render, base
from lib.errors import EXIT_USAGE, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    _Rank = tuple[bool, bool, bool, bool, int, str]

EXECUTABLE: str | None = None
INSTALL = "nothing to install: it plays the recorded run that `recording:` of the agent names"
TOKEN_VARIABLES: tuple[str, ...] = ()
PACED = False
STREAM = False  # as long as no recording says more
FAULTS = ("crash", "flood", "hang", "login", "overload", "quota", "silence")
SETTINGS = {
    "recording": str,
    "speed": (int, float),
    "kind": str,
    "fault": FAULTS,
    "fault_tasks": list,
    "fault_runs": int,
    "fault_at": (int, float),
    "fault_reset": (int, float),
    "flood_bytes": int,
}
REPLAY_OF = "replay_of"  # in a record: the id of the run that is played
FAULT = "replay_fault"  # in a record: what it does wrong on purpose

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_replay_main.py")
_MOST = {"speed": 1e6, "fault_runs": 1e6, "fault_at": 1.0, "fault_reset": 1e7, "flood_bytes": 1e12}


def settled(options: Mapping[str, object], run: runs.Run) -> dict[str, object]:
    """The options of this run: its own recording, whose output that is, and its fault, if any.

    Notes in the run's record what a process that adopts it needs.
    """
    record = run.record
    recording = find_recording(options, run.text("task_id"), run.agent)
    found = {key: value for key, value in options.items() if key != "fault"}
    found["recording"] = recording.path
    found["output"] = _kind(options, recording)
    record[REPLAY_OF] = recording.run_id
    told = {"model": base.as_name, "session_id": base.as_session_id}  # not by every stream
    for key, read in told.items():
        value = read(recording.record.get(key))
        if value:
            record.setdefault(key, value)
    if recording.record.get("resumed") is True:  # its figures are less than what its stream tells
        before = base.as_dict(recording.record.get("totals_before")) or None
        found.update(resume=True, totals_before=before)
        record.update(resumed=True, **({"totals_before": before} if before else {}))
    codes = base.as_list(recording.record.get("success_codes"))
    if codes:
        record["success_codes"] = [code for code in codes if base.as_count(code) is not None]
    fault = _fault(options, run)
    if fault:
        found["fault"] = record[FAULT] = fault
    return found


def options_of(recording: str, speed: str | None) -> dict[str, object]:
    """The settings of an agent that plays what is in a folder; `speed` as on a command line."""
    options: dict[str, object] = {"type": "replay", "recording": recording}
    if speed is not None:
        try:
            options["speed"] = float(speed)
            _number(options, "speed", 1)
        except (ValueError, UserError):
            raise UserError(
                f"--speed: {_render.one_line(speed, 60)} is no speed; give 10 for ten times as fast, "
                "or 0 to wait for nothing",
                EXIT_USAGE,
            ) from None
    return options


def command(launch: base.Launch) -> list[str]:
    """The command line that plays the recording which `settled` has found."""
    options = launch.options
    argv = [sys.executable, "-S", "-E", _PROGRAM, str(options.get("recording"))]
    argv += ["--kind", str(options.get("output") or "text")]
    argv += ["--speed", f"{_number(options, 'speed', 1):g}"]
    if options.get("fault"):
        fault = str(options["fault"])
        argv += ["--fault", fault]
        argv += ["--at", f"{_number(options, 'fault_at', 0.0 if fault == 'login' else 0.5):g}"]
        argv += ["--reset", f"{_number(options, 'fault_reset', 2):g}"]
        argv += ["--flood", f"{_number(options, 'flood_bytes', 64 << 20):.0f}"]
    return argv


def environment(launch: base.Launch) -> dict[str, str | None]:
    """Nothing to change."""
    return {}


def conditions(
    options: Mapping[str, object], variables: Mapping[str, str]
) -> list[tuple[str, str, str, str]]:
    """What must hold for it to work: (what, "ok" | "note" | "FAIL", finding, cure)."""
    if not options:
        return []  # nobody has configured one: it may still be for run-agent.py --replay
    named = base.as_text(options.get("recording"))
    try:
        recordings = Recordings(named)
    except UserError as error:
        text, _, cure = str(error).partition("; ")
        return [("recording", "FAIL", text, cure)]
    return [("recording", "ok", recordings.path, "")]


def reader(options: Mapping[str, object] | None = None) -> base.Reader:
    """What reads the output of the recorded agent."""
    backend, own = _recorded(options or {})
    found: base.Reader = backend.reader(own)
    return found


def failure(ended: base.Ended) -> base.Failure:
    """Of which class a failure is: as the backend of the recorded agent reads it."""
    from lib.agents import _failure

    backend, ended.options = _recorded(ended.options)
    if ended.outcome.fault_status and backend.__name__.endswith(".offline"):
        backend = agents.load("claude")  # as which it spoke: a service refuses the other nothing
    read = getattr(backend, "failure", _failure.of_plain)
    found: base.Failure = read(ended)
    return found


def _recorded(options: Mapping[str, object]) -> tuple[ModuleType, dict[str, object]]:
    """The backend of the recorded agent, and what its hooks are given.

    Option `output` tells it, as TYPE or TYPE:OUTPUT; `text` is that of any program.
    """
    type_name, _, output = str(options.get("output") or "text").partition(":")
    if type_name == "text":
        type_name, output = "command", "text"
    own = {key: value for key, value in options.items() if key != "output"}
    return agents.load(type_name), {**own, **({"output": output} if output else {})}


def find_recording(options: Mapping[str, object], task: str, name: str) -> runs.Run:
    """The run to play for this task and agent; UserError, in one line, where there is none."""
    return Recordings(base.as_text(options.get("recording"))).find(task, name)


class Recordings:
    """A run folder, or a folder with runs in it: a root, or a runs folder."""

    def __init__(self, named: str) -> None:
        if not named:
            raise UserError("a replay agent has no recording; give it one: recording: FOLDER")
        self.path = os.path.abspath(os.path.expanduser(named))
        self._shown = _render.one_line(self.path, 300)
        if not os.path.isdir(self.path):
            raise UserError(f"no recording {self._shown}; name a run folder, or a folder of runs")
        self._read: dict[str, runs.Run] = {}
        is_one = is_run_folder(self.path)
        self._all = [] if is_one else list(runs.folders(_runs_folder(self.path)))

    def find(self, task: str, name: str) -> runs.Run:
        """The one run, or that which fits best; UserError where none can be played."""
        if not self._all and is_run_folder(self.path):
            run = runs.read(self.path)
            fault = _why_unfit(run)
            if fault:
                raise UserError(f"{self._shown} cannot be replayed: {fault}")
            return run
        # The names of a plan's run folders tell the task: mostly, no others need be read.
        mark = f"-{ids.planned_task(task)}"
        for paths in ([p for p in self._all if mark in os.path.basename(p)], self._all):
            found, rank = self._best(paths, task, name)
            if found and (paths is self._all or all(rank[:4])):
                return found
        raise UserError(
            f"no recording in {self._shown}: neither an ended run of task {task} nor one of agent "
            f"{name}; name another folder"
        )

    def _best(self, paths: list[str], task: str, name: str) -> tuple[runs.Run | None, _Rank]:
        """The run that fits best: real before replayed, by task, by agent, then the newest."""
        best: runs.Run | None = None
        most: _Rank = (False, False, False, False, 0, "")
        for path in paths:
            run = self._look(path)
            recorded = run.text("task_id")
            is_task = ids.planned_task(recorded) == ids.planned_task(task)
            is_agent = run.agent == name
            if not (is_task or is_agent) or run.text(FAULT):
                continue
            is_real, started = run.text("agent") != "replay", run.time_ns("start_time") or 0
            rank = (is_real, is_task, recorded == task, is_agent, started, run.run_id)
            if rank > most and not _why_unfit(run):
                best, most = run, rank
        return best, most

    def _look(self, path: str) -> runs.Run:
        if path not in self._read:
            self._read[path] = runs.read(path)
        return self._read[path]


def is_run_folder(path: str) -> bool:
    """Whether that folder is a run's, and not one with runs in it."""
    return any(os.path.lexists(os.path.join(path, name)) for name in (runs.RECORD, runs.STDOUT))


def _runs_folder(path: str) -> str:
    below = os.path.join(path, "runs")
    has_own = any(name.startswith("run_") for name in files.names(path))
    return below if os.path.isdir(below) and not has_own else path


def _why_unfit(run: runs.Run) -> str:
    """Why a run cannot be played; "" for one that can. Looks at the files, and opens no other."""
    if run.problem:
        return run.problem
    if run.text("status") not in runs.ENDED:
        return "it has not ended" if run.record else f"it has no {runs.RECORD}"
    for name in (runs.STDOUT, runs.STDERR):
        try:
            os.close(files.open_regular(run.file(name)))
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


def _kind(options: Mapping[str, object], recording: runs.Run) -> str:
    """`TYPE`, or `TYPE:OUTPUT`: whose output it is, by the record, else by `kind:`."""
    type_name, output = recording.text("agent"), recording.text("output_kind")
    if type_name == "replay":
        label = output or "text"
    elif type_name in agents.known():
        label = f"{type_name}:{output}" if output else type_name
    else:
        label = base.as_text(options.get("kind"))
    known = label.partition(":")[0]
    if known not in (*agents.known(), "text") or known == "replay":
        raise UserError(
            f"{_render.one_line(recording.path, 300)} does not tell which agent it is of; "
            "say it with kind:, such as kind: claude"
        )
    return label


def _fault(options: Mapping[str, object], run: runs.Run) -> str:
    """What this run is to do wrong; "" for nothing."""
    fault = options.get("fault")
    if fault is None:
        return ""
    if fault not in FAULTS:
        shown = _render.one_line(str(fault), 60)
        raise UserError(f"unknown fault of a replay agent: {shown}; known: {', '.join(FAULTS)}")
    tasks = options.get("fault_tasks")
    task = run.text("task_id")
    if isinstance(tasks, list) and not {task, ids.planned_task(task)} & set(map(str, tasks)):
        return ""
    if options.get("fault_runs") is not None:
        allowed = _number(options, "fault_runs", 0)
        if _runs_with(str(fault), run) >= allowed:
            return ""
    return str(fault)


def _runs_with(fault: str, run: runs.Run) -> int:
    """How many other runs of the same task and agent have had that fault: the records tell."""
    same = ("project_id", "task_id", "agent", "agent_name")
    return sum(
        other.text(FAULT) == fault
        and other.run_id != run.run_id
        and all(other.text(key) == run.text(key) for key in same)
        and other.text("error_summary") != runs.NEVER_STARTED
        for other in runs.listing(os.path.dirname(run.path))
    )


def _number(options: Mapping[str, object], key: str, default: float) -> float:
    value = options.get(key)
    if value is None:
        return default
    amount = base.as_amount(value)
    if amount is None or amount > _MOST[key]:
        shown = _render.one_line(str(value), 60)
        raise UserError(f"{key} of a replay agent: {shown}; it must be from 0 to {_MOST[key]:g}")
    return amount
