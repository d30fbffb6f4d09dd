"""What the monitor shows at one moment: runs, problems, plans and messages, from the index.

Reads only.  What a look costs is what has changed, and a few calls for each
run that lives.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from functools import partial

from lib import files, frame, ids, listing, loop_record, redact, runs, state, waits, why
from lib.activity import Activity, last_line
from lib.bus_parse import Message
from lib.index import Index, TaskEntry
from lib.index_entries import Changes, RunEntry
from lib.monitor.cures import Cures
from lib.monitor.plans import GONE, PlanView
from lib.textual import spoken

LATELY_NS = 24 * 3600 * ids.NANOSECONDS  # so long a failure is a problem to be looked at
PAUSE_NS = 5 * ids.NANOSECONDS  # a loop that starts again sooner is not worth a mention
RECENT_RUNS = 50  # that have ended, and can still be selected
RECENT_MESSAGES = 100
LINE_SOURCES = (runs.TRANSCRIPT, runs.STDOUT)  # runs of the original have no transcript
BODY_LIMIT = 400  # characters of a message that a line of the list may be made of

# Kinds of problems, in the order in which they are shown.
HELD, CUT_OFF, LOOP_GONE, ORPHANED, SILENT, WAITING, FAILED, UNREADABLE, UNKNOWN = (
    "held", "plan stopped", "loop gone", "supervisor gone", "silent", "waiting", "failed",
    "unreadable", "unknown",
)  # fmt: skip
KINDS = (HELD, CUT_OFF, LOOP_GONE, ORPHANED, SILENT, WAITING, FAILED, UNREADABLE, UNKNOWN)
RED = (CUT_OFF, LOOP_GONE, FAILED)


class RunView:
    """A run with what it is doing now; `activity` is that of one that lives.

    `name`, `agent` and `usage` are cells, redacted and harmless; `last` is the
    last line of its transcript.
    """

    __slots__ = ("activity", "agent", "entry", "last", "name", "seconds", "usage")

    def __init__(self, entry: RunEntry, last: str = "") -> None:
        now = Activity({"agent": entry.agent}, entry.run)
        self.entry = entry
        self.activity = now if entry.is_live else None
        self.seconds = now.elapsed_seconds if entry.is_live else entry.run.seconds()
        self.name = name_of(entry)
        self.agent = redact.one_line(entry.agent) or "-"
        self.usage = frame.usage_cell(now)
        self.last = last

    @property
    def key(self) -> str:
        return self.entry.path

    @property
    def words(self) -> str:
        """What a filter looks at."""
        return f"{self.name} {self.entry.run.run_id} {self.agent} {self.entry.state.status}"


class Problem:
    """Something that somebody should look at; `entry` is the run that it is about, if any.

    `command` is what helps, a line for a terminal, or "".  Text and command are made when
    they are first asked for: thousands of runs may have failed, of which few are shown.
    """

    __slots__ = ("_command", "_text", "entry", "kind", "project", "task", "when_ns")

    def __init__(
        self,
        kind: str,
        text: str | Callable[[], str],
        place: tuple[str, str],
        entry: RunEntry | None = None,
        when_ns: int = 0,
        command: str | Callable[[], str] = "",
    ) -> None:
        self.kind = kind
        self.project, self.task = place
        self.entry = entry
        self.when_ns = when_ns
        self._text = redact.one_line(text) if isinstance(text, str) else text
        self._command = command

    @property
    def text(self) -> str:
        if not isinstance(self._text, str):
            self._text = redact.one_line(self._text())
        return self._text

    @property
    def command(self) -> str:
        if not isinstance(self._command, str):
            self._command = self._command()
        return self._command

    @property
    def colour(self) -> str:
        return "red" if self.kind in RED else "yellow"

    @property
    def key(self) -> str:
        return f"{self.kind} {self.entry.path if self.entry else f'{self.project}/{self.task}'}"

    @property
    def words(self) -> str:
        """What a filter looks at."""
        return f"{self.kind} {self.text} {self.entry.run.run_id if self.entry else ''}"


class Facts:
    """All of it; `cost_usd` is what is known of all runs together, None for nothing."""

    def __init__(self) -> None:
        self.time = 0.0  # when it was looked; 0 before the first time
        self.problems: list[Problem] = []
        self.live: list[RunView] = []
        self.ended: list[RunView] = []  # the newest of them
        self.plans: list[PlanView] = []
        self.messages: list[Message] = []  # the newest first
        self.run_count = 0
        self.cost_usd: float | None = None
        self.is_estimated = False


class Observer:
    """Makes the facts, again and again, of all that is below a root or of one project or task.

    `look` has the index refreshed.  Where somebody else does that, `take` is told
    what was found since the last time, from the first refresh on, and then
    `live`, `plans` and `problems` tell of this moment.
    """

    def __init__(self, index: Index, project: str = "", task: str = "") -> None:
        self.index = index
        self._cures = Cures(index.runs_dir)
        self._project = project
        self._task = task
        self._suspects: dict[str, RunEntry] = {}  # runs that failed lately, or are unknown
        self._ended: list[RunView] | None = None  # None: to be found again
        self._live: set[str] = set()
        self._plans: dict[str, PlanView] = {}
        self._lines: dict[str, tuple[object, str]] = {}  # by the path of a run that lives
        self._costs: dict[str, tuple[float, bool]] = {}
        self._messages: list[Message] | None = None

    def admits(self, project: str, task: str | None = None) -> bool:
        """Whether that is wanted; of a task None only its project matters."""
        right = not self._project or project == self._project
        return right and (task is None or not self._task or task == self._task)

    def look(self) -> Facts:
        """The facts of this moment."""
        self.take(self.index.refresh())
        return self.facts()

    def facts(self) -> Facts:
        """Those of what was taken in last."""
        found = Facts()
        found.time = time.time()
        found.live = self.live()
        live = {view.key for view in found.live}
        if live != self._live:
            self._live, self._ended = live, None
        found.ended = self._recent()
        found.plans = self.plans()
        found.problems = self.problems(found.live, found.plans)
        found.messages = self._recent_messages()
        found.run_count = len(self._costs)
        known = [cost for cost, _ in self._costs.values() if cost]
        found.cost_usd = sum(known) if known else None
        found.is_estimated = any(is_estimate for _, is_estimate in self._costs.values())
        return found

    def take(self, changes: Changes) -> None:
        """Take in what refreshes of the index have found changed."""
        present = changes.runs & self.index.runs.keys()
        listing.know_tokens(self.index.runs[path].run for path in present)
        for path in changes.runs:
            self._note_run(path)
        self._note_plans(changes.plans)
        if changes.buses:
            self._messages = None

    # -- runs

    def _note_run(self, path: str) -> None:
        entry = self.index.runs.get(path)
        is_wanted = entry is not None and self.admits(entry.project, entry.task)
        if entry is None or not is_wanted:
            self._suspects.pop(path, None)
            if self._costs.pop(path, None):
                self._ended = None
            return
        if path not in self._costs:
            self._ended = None
        is_sum = entry.run.record.get("includes_children") is True  # of runs that are here, too
        cost = None if is_sum else entry.run.record.get("cost_usd")
        is_number = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < 1e9
        is_estimate = entry.run.record.get("cost_estimated") is True
        self._costs[path] = (float(cost) if is_number else 0.0, is_estimate)  # type: ignore[arg-type]
        is_stopped = entry.run.record.get("stopped") is True  # by a person, who knows of it
        is_bad = entry.state.status in (runs.FAILED, runs.UNKNOWN) and not is_stopped
        if is_bad and not entry.is_live:
            self._suspects[path] = entry
        else:
            self._suspects.pop(path, None)

    def _recent(self) -> list[RunView]:
        if self._ended is None:
            entries = (
                entry
                for path, entry in self.index.runs.items()
                if path in self._costs and not entry.is_live
            )
            newest = heapq.nlargest(RECENT_RUNS, entries, key=RunEntry.order)
            self._ended = [RunView(entry) for entry in newest]
        return self._ended

    def live(self) -> list[RunView]:
        """The runs that live, the newest first."""
        entries = [entry for entry in self.index.live() if self.admits(entry.project, entry.task)]
        views = [RunView(entry, self._last_line(entry)) for entry in entries]
        paths = {entry.path for entry in entries}
        self._lines = {path: known for path, known in self._lines.items() if path in paths}
        return views

    def _last_line(self, entry: RunEntry) -> str:
        for name in LINE_SOURCES:
            path = entry.run.file(name)
            signature = files.signature(path)
            if signature is None:
                continue
            seen = signature, redact.added()  # a secret of it may have become known since
            known = self._lines.get(entry.path)
            if known is None or known[0] != seen:
                known = self._lines[entry.path] = (seen, last_line(path))
            return known[1]
        return ""

    # -- plans and buses

    def _note_plans(self, changed: set[str]) -> None:
        for project, entry in self.index.plans.items():
            if not self.admits(project):
                continue
            known = self._plans.get(project)
            if known is None or known.entry is not entry:
                self._plans[project] = PlanView(entry, self.index.runs_dir)
            elif project in changed or entry.is_run:
                known.refresh()
        for project in self._plans.keys() - self.index.plans.keys():
            del self._plans[project]

    def plan_of(self, project: str) -> PlanView | None:
        """The plan of a project, as of the last `take`."""
        return self._plans.get(project)

    def plans(self) -> list[PlanView]:
        """Those that are run first, then the newest."""
        plans = self._plans.values()
        return sorted(plans, key=lambda plan: (not plan.entry.is_run, -plan.changed_ns))

    def _recent_messages(self) -> list[Message]:
        if self._messages is None:
            wanted = self._project or self._task
            found = self.index.messages(RECENT_MESSAGES * (10 if wanted else 1))
            kept = [item for item in found if self.admits(item.project_id, item.task_id)]
            self._messages = kept[-RECENT_MESSAGES:][::-1]
        return self._messages

    # -- problems

    def problems(self, live: list[RunView], plans: list[PlanView]) -> list[Problem]:
        """What of all this somebody should look at, the most urgent first."""
        problems: list[Problem] = []
        settled: set[tuple[str, str]] = set()  # tasks of which their plan knows better
        for plan in plans:
            problems += self._problems_of(plan, settled)
        problems += self._problems_of_loops(settled)
        for view in live:
            problem = self._problem_of_live(view)
            problems += [problem] if problem else []
        problems += self._failures(settled)
        problems += self._unreadable_buses()
        order = {kind: number for number, kind in enumerate(KINDS)}
        return sorted(problems, key=lambda problem: (order[problem.kind], -problem.when_ns))

    def _problems_of(self, plan: PlanView, settled: set[tuple[str, str]]) -> list[Problem]:
        project = plan.project
        if plan.entry.problem:
            text = f"plan {project}: {plan.entry.problem}"
            return [Problem(UNREADABLE, text, (project, ""), command=self._cures.check)]
        found = []
        if not self._task:
            if hold := plan.hold():
                text = f"plan {project}: nothing new starts: {hold}"
                found.append(Problem(HELD, text, (project, ""), command=self._cures.doctor))
            if plan.is_cut_off and _is_recent(plan.changed_ns):
                text = f"plan {project}: {GONE}"
                cure = partial(self._cures.plan, plan.entry)
                found.append(Problem(CUT_OFF, text, (project, ""), command=cure))
        waiting: dict[str, list[str]] = {}  # dozens may wait for one quota: a line for all of them
        for task_id in plan.scope:
            entry = plan.task(task_id)
            is_failed = entry.state == state.FAILED
            if plan.entry.is_run or entry.state == state.DONE or is_failed:
                settled.add((project, task_id))
            if not self.admits(project, task_id):
                continue
            if is_failed:
                found += self._failed_task(plan, task_id)
            elif plan.entry.is_run and _waits(entry):
                waiting.setdefault(entry.why or task_id, []).append(task_id)
        for names in waiting.values():
            more = f" and {len(names) - 1} more:" if len(names) > 1 else ""
            text = f"{project}/{names[0]}{more} {plan.sentence(names[0])}"
            found.append(Problem(WAITING, text, (project, names[0])))  # time alone helps
        return found

    def _failed_task(self, plan: PlanView, task_id: str) -> list[Problem]:
        entry = plan.task(task_id)
        ended = entry.attempts[-1].get("ended") if entry.attempts else None
        when = ids.parse_rfc3339(ended) or plan.changed_ns
        if not (plan.entry.is_run or _is_recent(when)):
            return []
        reason = entry.why or "its reason was not noted"
        run = self.index.runs.get(plan.run_of(task_id))

        def text() -> str:
            return f"{plan.project}/{task_id} failed{_ago(when)}: {reason}"

        def cure() -> str:
            again = "" if plan.entry.is_run else self._cures.plan(plan.entry, retry_failed=True)
            return again or (self._cures.show(run) if run else "")

        return [Problem(FAILED, text, (plan.project, task_id), run, when, cure)]

    def _failures(self, settled: set[tuple[str, str]]) -> list[Problem]:
        found = []
        for path, entry in list(self._suspects.items()):
            key = (entry.project, entry.task)
            when = entry.ended_ns or entry.started_ns
            is_unreadable = bool(entry.run.problem)
            if not (_is_recent(when) or is_unreadable):
                del self._suspects[path]  # it does not become newer
                continue
            task = self.index.tasks.get(key)
            is_newest = task is None or not task.runs or task.runs[0] is entry
            if key in settled or not is_newest:
                continue
            kind = UNKNOWN if entry.state.status == runs.UNKNOWN else FAILED
            kind = UNREADABLE if is_unreadable else kind
            if kind == UNKNOWN and entry.state.reason == listing.NOT_STARTED:
                continue  # it waits for its turn
            text = partial(_failure, entry, kind, when)
            cure = self._cures.check if is_unreadable else partial(self._cures.show, entry)
            found.append(Problem(kind, text, key, entry, when, cure))
        return found

    def _problems_of_loops(self, settled: set[tuple[str, str]]) -> list[Problem]:
        found = []
        for key, task in self.index.tasks.items():
            if task.loop is None or not self.admits(*key):
                continue
            if task.loop_is_live or task.done or task.loop_state in loop_record.ENDED:
                settled.add(key)  # its loop knows better than its newest run
            plan = self.index.plans.get(key[0])
            if plan is not None and key[1] in plan.tasks:
                continue  # and the plan, whose loop it is, better than that
            kind = _kind_of_loop(task)
            if kind:
                run = task.runs[0] if task.runs else None
                text, cure = partial(_said_of_loop, task, kind), partial(self._go_on, task, kind)
                found.append(Problem(kind, text, key, run, task.last_ns, cure))
        return found

    def _go_on(self, task: TaskEntry, kind: str) -> str:
        """What helps a loop; one that waits goes on by itself."""
        if kind == WAITING:
            return ""
        return self._cures.task(*task.key, *(["--resume"] if kind == FAILED else []))

    def _problem_of_live(self, view: RunView) -> Problem | None:
        entry, now = view.entry, view.activity
        place = (entry.project, entry.task)
        name, cure = name_of(entry), partial(self._cures.stop, entry)
        if entry.state.holder == "agent":
            text = (
                f"{name} lives on without its supervisor; "
                "the next command that acts records its end"
            )
            return Problem(ORPHANED, text, place, entry, entry.started_ns, cure)
        if now is not None and now.is_silent and not now.has_ended:
            text = f"{name} has been {why.silence(now)}"
            return Problem(SILENT, text, place, entry, entry.started_ns, cure)
        return None

    def _unreadable_buses(self) -> list[Problem]:
        return [
            Problem(
                UNREADABLE,
                f"bus {bus.path}: {bus.problem}",
                (bus.project, bus.task),
                command=self._cures.check,
            )
            for bus in self.index.buses.values()
            if bus.problem and self.admits(bus.project, bus.task)
        ]


def name_of(entry: RunEntry) -> str:
    """`project/task`, or the run's own name while nothing else is known."""
    place = "/".join(part for part in (entry.project, entry.task) if part)
    return redact.one_line(place or entry.run.run_id)


def reason_of(entry: RunEntry) -> str:
    """Why it ended as it did, in one line."""
    code = listing.known_code(entry.state)
    return redact.one_line(entry.state.reason or ("" if code is None else f"exit code {code}"))


def first_line(message: Message) -> str:
    """The beginning of its body, harmless and redacted."""
    body = message.body.lstrip("\n")
    cut = body[:BODY_LIMIT]
    if len(body) > BODY_LIMIT and "\n" not in cut:  # of what is cut, redaction may know no token
        cut = cut[: cut.rfind(" ") + 1] + "…"
    return redact.one_line(cut.partition("\n")[0])


def _kind_of_loop(task: TaskEntry) -> str:
    """Of a task with a loop: which kind of problem it is, "" for none."""
    where = task.loop_state
    if not task.loop_is_live and where not in loop_record.ENDED:
        return LOOP_GONE
    if where == loop_record.FAILED and not task.done:
        return FAILED if _is_recent(_moment_of_loop(task, "ended") or task.last_ns) else ""
    until = _moment_of_loop(task, "until")
    pauses = where == loop_record.RESTARTING and until > time.time_ns() + PAUSE_NS
    return WAITING if pauses or where in (loop_record.BLOCKED, loop_record.CHILDREN) else ""


def _said_of_loop(task: TaskEntry, kind: str) -> str:
    name = f"{task.project}/{task.task}"
    why = str((task.loop or {}).get("why") or "")
    if kind == LOOP_GONE:
        return (
            f"{name}: the process that worked on it is gone while it was "
            f"{task.loop_state or 'at work'}; start run-task again to go on"
        )
    if kind == FAILED:
        when = _moment_of_loop(task, "ended") or task.last_ns
        return f"{name} failed{_ago(when)}: {why or 'its reason was not noted'}"
    return f"{name} is {task.loop_state}{': ' if why else ''}{why}"


def _moment_of_loop(task: TaskEntry, key: str) -> int:
    return ids.parse_rfc3339((task.loop or {}).get(key)) or 0


def _failure(entry: RunEntry, kind: str, when_ns: int) -> str:
    reason = reason_of(entry) or "for a reason that was not noted"
    if kind == FAILED:
        return f"{name_of(entry)} failed{_ago(when_ns)}: {reason}"
    return f"{name_of(entry)} is {kind}: {reason}"


def _ago(when_ns: int) -> str:
    seconds = (time.time_ns() - when_ns) / ids.NANOSECONDS
    return f" {spoken(seconds)} ago" if when_ns else ""


def _is_recent(when_ns: int) -> bool:
    return when_ns > time.time_ns() - LATELY_NS


def _waits(entry: state.TaskState) -> bool:
    return entry.state == state.WAITING or waits.seconds_to_wait(entry, time.time()) > 0
