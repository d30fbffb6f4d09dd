"""Why a task does not run, or what it is doing: one sentence, true at this moment.

A sentence continues the name of its task ("waits for a, which is running: …"),
so that the sentence about one task can be part of that about another.  What
only waits for others is followed to what really runs, or really blocks.
Everything here reads and nothing writes.
"""

from __future__ import annotations

import difflib
import os
import shlex

from lib import files, ids, paths, redact, review, runs, state, verify
from lib.activity import TOOL_FACTOR, Activity, Watcher
from lib.errors import UsageError
from lib.plan import Plan, Task
from lib.situation import Situation
from lib.state import Attempt, TaskState
from lib.textual import spoken
from lib.waits import Waits, is_active, running, seconds_to_wait

VERIFY_TAIL_BYTES = 1 << 20
SENTENCE_LIMIT, REASON_LIMIT = 1000, 400  # characters
MOST_NAMES = 3
AGAIN = "start the plan again to go on"


def sentence(situation: Situation, task_id: str) -> str:
    """Why that task is not running, or what it is doing, in one redacted line.

    The task may also be named as one judge of a review (`gate@claude`).
    UsageError for a task that the plan does not have.
    """
    return Explainer(situation).sentence(task_id)


class Explainer:
    """Explains the tasks of one situation."""

    def __init__(self, situation: Situation, watcher: Watcher | None = None) -> None:
        self._situation = situation
        self._plan = situation.plan
        self._watcher = watcher or Watcher(situation.runs_dir)
        self._waits = Waits(situation, self._watcher)

    def sentence(self, task_id: str) -> str:
        """As `sentence` above."""
        name, _, judge = task_id.partition("@")
        if task_id in self._plan.tasks:
            text = self._phrase(task_id)
        elif judge and name in self._plan.tasks and self._plan.quorum_of(self._plan.tasks[name]):
            text = self._judge(name, task_id)
        else:
            raise _unknown(self._plan, task_id)
        return redact.one_line(text, SENTENCE_LIMIT)

    # -- what one task does

    def _phrase(self, task_id: str) -> str:
        entry = self._waits.entry(task_id)
        if entry.state == state.DONE:
            return self._done(task_id, entry)
        if entry.state == state.FAILED:
            return self._failed(entry)
        if entry.state == state.BLOCKED:
            return self._blocked(task_id, entry)
        if entry.state == state.SKIPPED:
            return f"is skipped: {entry.why}" if entry.why else "is skipped"
        if not self._situation.is_run:
            return self._left(task_id, entry)
        if is_active(entry):
            return self._active(task_id, entry)
        return self._idle(task_id, entry)

    def _done(self, task_id: str, entry: TaskState) -> str:
        good = [item for item in entry.attempts if item.get("result") == "done"]
        if not good:
            return "is done"
        last = max(good, key=lambda item: str(item.get("ended")))
        if self._plan.quorum_of(self._plan.tasks[task_id]):
            judges = ", ".join(_verdict_of(item) for item in good)
            return f"is done: the review passed at {_clock(last.get('ended'))} ({judges})"
        return f"is done: {_agent(last)} finished it at {_clock(last.get('ended'))} ({_run(last)})"

    def _failed(self, entry: TaskState) -> str:
        tries = entry.tries()
        why = redact.one_line(entry.why or "for a reason that was not noted", REASON_LIMIT)
        text = f"failed{f' after {tries} attempts' if tries > 1 else ''}: {why}"
        if tries:
            text += f"; look with: bin/show-run {_run(entry.attempts[-1])}{self._place()}"
        return text if self._situation.is_run else f"{text}; start the plan again to retry it"

    def _place(self) -> str:
        """The option by which a script finds these runs; "" where it needs none."""
        runs_dir = self._situation.runs_dir
        return "" if runs_dir == paths.runs_dir() else f" --runs-dir {shlex.quote(runs_dir)}"

    def _blocked(self, task_id: str, entry: TaskState) -> str:
        found = self._cause_of_block(task_id)
        if found is None:
            return f"is blocked: {entry.why}"
        first, root = found
        via = first if first == root else f"{first}, and through it {root}"
        return f"is blocked: it needs {via}, which {self._failed(self._waits.entry(root))}"

    def _cause_of_block(self, task_id: str) -> tuple[str, str] | None:
        """(what the task names, the failed task behind that)."""
        queue = [(need, need) for need in self._plan.tasks[task_id].depends_on]
        seen = set()
        for first, name in queue:  # which grows
            if name in seen:
                continue
            seen.add(name)
            there = self._waits.entry(name).state
            if there == state.FAILED:
                return first, name
            if there == state.BLOCKED:
                queue += [(first, need) for need in self._plan.tasks[name].depends_on]
        return None

    def _active(self, task_id: str, entry: TaskState) -> str:
        task = self._plan.tasks[task_id]
        if self._plan.quorum_of(task):
            return self._review(task, entry)
        attempt = running(entry)[-1]
        if entry.state == state.VERIFYING:
            return self._verifying(task, attempt)
        return self._at_work(attempt)

    def _at_work(self, attempt: Attempt) -> str:
        now = self._watcher.look(attempt)
        run = _run(attempt)
        holder = "" if now.has_ended else runs.state(now.run).holder
        if not holder:
            return f"has just ended ({now.agent}, {run}), and the plan is about to look at it"
        run += ", without its supervisor" if holder == "agent" else ""
        age = spoken(now.elapsed_seconds)
        if now.is_silent:
            return f"has been {silence(now)} ({now.agent}, running for {age}, {run})"
        most = f" of at most {spoken(now.total_limit)}" if now.total_limit else ""
        return (
            f"is running: {now.agent}, for {age}{most}, "
            f"last output {spoken(now.silent_seconds)} ago ({run})"
        )

    def _verifying(self, task: Task, attempt: Attempt) -> str:
        ended = ids.parse_rfc3339(attempt.get("ended"))
        since = f" for {spoken(self._waits.now - ended / ids.NANOSECONDS)}" if ended else ""
        limit = f"limit {spoken(task.verify_timeout)}, " if task.verify_timeout else ""
        command = _verify_command(task, os.path.join(self._situation.runs_dir, _run(attempt)))
        return f"is being verified{since}: {command} ({limit}{_run(attempt)})"

    def _review(self, task: Task, entry: TaskState) -> str:
        latest = {str(item.get("unit")): item for item in entry.attempts}
        done = [item for item in latest.values() if item.get("result") == "done"]
        active = [item for item in latest.values() if item.get("result") == "running"]
        failed = [name for name, item in latest.items() if item.get("result") == "failed"]
        parts = []
        if done:
            count = "1 judge is" if len(done) == 1 else f"{len(done)} judges are"
            parts.append(f"{count} done ({', '.join(map(_verdict_of, done))})")
        if failed:
            parts.append(f"{_some(failed)} failed so far")
        if active:
            first = str(active[0].get("unit"))
            more = f" (and {len(active) - 1} more)" if len(active) > 1 else ""
            parts.append(f"{first}{more} {self._judging(task, entry, active[0])}")
        quorum = self._plan.quorum_of(task)
        return f"is under review, {quorum} approvals are needed: {'; '.join(parts)}"

    def _judging(self, task: Task, entry: TaskState, attempt: Attempt) -> str:
        if attempt.get("ended") and task.verify:
            return self._verifying(task, attempt)
        return self._at_work(attempt)

    def _judge(self, task_id: str, unit: str) -> str:
        entry = self._waits.entry(task_id)
        own = [item for item in entry.attempts if item.get("unit") == unit]
        if own and own[-1].get("result") == "done":
            return f"is done: {_verdict_of(own[-1])} ({_run(own[-1])})"
        if own and own[-1].get("result") == "running" and self._situation.is_run:
            return self._judging(self._plan.tasks[task_id], entry, own[-1])
        if own and own[-1].get("result") == state.QUOTA and self._situation.is_run:
            return f"waits for the quota of {_agent(own[-1])}: {own[-1].get('why')}"
        failed = f"failed: {own[-1].get('why')}; " if own and own[-1].get("why") else ""
        return f"{failed}is part of {task_id}, which {self._phrase(task_id)}"

    # -- while nobody runs the plan

    def _left(self, task_id: str, entry: TaskState) -> str:
        """A task that is not settled, of a plan that nobody runs now."""
        for attempt in running(entry):
            path = os.path.join(self._situation.runs_dir, _run(attempt))
            if runs.state(runs.read(path)).holder:
                return (
                    f"still runs as {_run(attempt)} ({_agent(attempt)}) though the plan does not; "
                    "start the plan again and it is taken over"
                )
        tries = entry.tries()
        if running(entry):
            what = f"has ended as {_run(running(entry)[-1])}, and was not judged yet"
        elif entry.state == state.WAITING:
            what = self._waiting(entry)
        elif tries:
            reason = f" ({redact.one_line(entry.why, REASON_LIMIT)})" if entry.why else ""
            what = f"is not done after {tries} attempt{'s' if tries > 1 else ''}{reason}"
        elif task_id not in self._waits.scope:
            what = "was not part of the last start"
        else:
            what = "has not been started"
        return f"{what}: {_end_of_plan(self._situation)}; {AGAIN}"

    # -- while it waits

    def _idle(self, task_id: str, entry: TaskState) -> str:
        situation = self._situation
        if task_id not in self._waits.scope:
            count = f"{len(self._waits.scope)} of {len(self._plan.tasks)} tasks"
            return f"is not part of this start of the plan, which is for {count}"
        if situation.text("ended"):  # the lock is still held, or held again already
            return "is not started: the plan has just ended, or is being started again"
        if situation.text("closing"):
            cause = closing_cause(situation)
            what = "is not tried again" if entry.attempts else "is not started"
            return f"{what}: {cause}, and nothing new starts; {AGAIN} when it has ended"
        return self._waits_for_others(task_id) or self._waits_for_its_turn(task_id, entry)

    def _waits_for_its_turn(self, task_id: str, entry: TaskState) -> str:
        """Why a task that waits for no other one is not running."""
        if entry.state == state.WAITING:
            return self._waiting(entry)
        wait = seconds_to_wait(entry, self._waits.now)
        if wait:
            reason = f", {entry.why.removeprefix('tried again ')}" if entry.why else ""
            return f"is tried again in {spoken(wait + 0.999)}{reason}"
        if self._situation.text("held"):
            return f"waits: nothing new starts: {self._situation.text('held')}"
        task = self._plan.tasks[task_id]
        rival = self._waits.holder_of(task)
        if rival:
            held = f"waits for `exclusive: {task.exclusive}`, held by {rival}"
            return f"{held}, which {self._phrase(rival)}"
        active = self._waits.active_units
        most = self._situation.header.get("max_parallel")
        if isinstance(most, int) and active >= most:
            others = self._waits.ready_count - 1
            also = (
                f", and {others} more {'wait' if others > 1 else 'waits'} for one" if others else ""
            )
            return f"waits for a free slot: {active} of {most} run{also}"
        pause = self._plan.start_interval
        is_paced = pause and task.agent not in ("shell", "offline")
        spread = f"; starts of one agent are at least {pause:g} s apart" if is_paced else ""
        after = f" ({entry.why})" if entry.why else ""
        return f"is about to start{after}{spread}"

    def _waiting(self, entry: TaskState) -> str:
        """A task that waits for a quota, say, with the time that is left."""
        wait = seconds_to_wait(entry, self._waits.now)
        return f"{entry.why} (in {spoken(wait + 0.999)})" if wait else entry.why or "waits"

    def _waits_for_others(self, task_id: str) -> str:
        stage = self._waits.closed_stage(task_id)
        direct = self._waits.gate if stage else self._waits.open_needs(task_id)
        if not direct:
            return ""
        first, root = self._waits.gate_root if stage else self._waits.most_telling(direct)
        if stage:
            left = f"{len(direct)} of {len(stage.tasks)} tasks are left"
            return f"waits for the end of stage {stage.id} ({left}); {root} {self._phrase(root)}"
        more = f" (and {len(direct) - 1} more)" if len(direct) > 1 else ""
        via = f"{root}{more}" if first == root else f"{first}{more}, and through it for {root}"
        return f"waits for {via}, which {self._phrase(root)}"


# -- pieces that the live view says, too


def silence(now: Activity) -> str:
    """`silent for 14 min; its limit is 30 min`."""
    text = f"silent for {spoken(now.silent_seconds)}"
    if not now.idle_limit:
        return f"{text}; it has no limit"
    text += f"; its limit is {spoken(now.idle_limit)}"
    if now.silent_seconds < TOOL_FACTOR * now.soft_mark:
        return text
    return f"{text}, {TOOL_FACTOR} times that during a tool call"


def closing_cause(situation: Situation) -> str:
    """Why nothing new starts in this start of the plan; "" while something may.

    Not the sentence of the moment when it was decided, which says how many ran then.
    """
    told = situation.text("closing")
    if not told:
        return ""
    head = told.partition(";")[0]
    cause = head.partition(": ")[2] or head
    if head.startswith("interrupted:") or cause == "interrupted":
        return "the plan was interrupted"
    return cause


def _end_of_plan(situation: Situation) -> str:
    ended = situation.text("ended")
    if not ended:
        pid = situation.text("pid")
        who = f"the process that ran it (pid {pid}) is gone" if pid else "nobody runs it now"
        return f"the plan is not running: {who}"
    cause = closing_cause(situation)
    because = f" ({cause})" if cause else ""
    code = situation.text("exit_code")
    return f"the plan is not running: it ended at {_clock(ended)} with exit code {code}{because}"


def _run(attempt: Attempt) -> str:
    return os.path.basename(str(attempt.get("run") or "-"))


def _agent(attempt: Attempt) -> str:
    return str(attempt.get("agent") or "an agent")


def _verdict_of(attempt: Attempt) -> str:
    said = {review.APPROVE: "approved", review.REJECT: "rejected"}
    verdict = said.get(str(attempt.get("verdict")), "gave no verdict")
    return f"{attempt.get('unit')} {verdict}"


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _clock(moment: object) -> str:
    """`2026-02-23 20:48:59Z`."""
    text = str(moment)
    return f"{text[:10]} {text[11:19]}Z" if ids.parse_rfc3339(moment) else "an unknown time"


def _verify_command(task: Task, folder: str) -> str:
    """The check that runs now, as the report in the run folder tells."""
    if len(task.verify) == 1:
        return task.verify[0]
    try:
        tail = files.read_tail(os.path.join(folder, verify.REPORT), VERIFY_TAIL_BYTES)
    except OSError:
        tail = b""
    text = "\n" + tail.decode("utf-8", "replace")
    places = {text.rfind(f"\n$ {command}\n"): command for command in task.verify}
    last = max(places)
    return places[last] if last >= 0 else f"{len(task.verify)} checks"


def _unknown(plan: Plan, task_id: str) -> UsageError:
    near = difflib.get_close_matches(task_id, list(plan.tasks), MOST_NAMES, 0.5)
    near = near or [name for name in plan.tasks if task_id.lower() in name.lower()][:MOST_NAMES]
    cure = f"did you mean {' or '.join(near)}?" if near else "--dry-run lists them"
    return UsageError(f"no task {redact.one_line(task_id, 80)} in {plan.path}; {cure}")
