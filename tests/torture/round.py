"""One round: a scene in a root of its own, its kills, and then everything once more in peace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lib import runs, tasks
from tests.helpers import PYTHON, ROOT, clean_environment
from tests.torture import processes
from tests.torture.scenes import Draw, Fault, LoopScene, Scene, Single, Start, Strike

AGENT = Path(__file__).resolve().parent / "agent.py"
WRITER = Path(__file__).resolve().parent / "writer.py"
LONGEST_SECONDS = 90.0  # that anything may take before it counts as hung
QUIET_SECONDS = 0.7  # without a change, after which a strike no longer waits for one
MOST_STARTS = 8  # in peace, until the plan must be done
PROJECT = "q"  # of the tasks in loops
INTERRUPTS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Kill:
    """A signal that was sent at random, or a named fault that came about."""

    part: str
    what: str  # SIGKILL ..., or the point
    pid: int = 0
    run_id: str = ""


@dataclass
class Ended:
    """How a run-agent.py of the scene ended, and what it had printed."""

    single: Single
    code: int
    run_id: str
    harmed: bool
    pid: int


@dataclass
class Log:
    """What the checks need to know of what was done, and the problems that were met."""

    kills: list[Kill] = field(default_factory=list)
    singles: list[Ended] = field(default_factory=list)
    readers: list[Path] = field(default_factory=list)
    stopped: set[str] = field(default_factory=set)  # runs that lived when a plan was to stop them
    problems: list[str] = field(default_factory=list)

    def count(self) -> Counter[str]:
        return Counter(f"{kill.part} {kill.what}" for kill in self.kills)


class Round:
    """The root of a round and everything that is started in it."""

    def __init__(self, seed: str, folder: Path, mark: str) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.work = folder / "work"
        self.notes = folder / "notes"  # the ledger and what the harness itself keeps
        self.runs_dir = self.root / "runs"
        self.bus = self.root / "MESSAGE-BUS.md"
        self.mark = mark
        self.scene: Scene = Draw(seed).scene()
        self.log = Log()
        self._claims = 0
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._readers: list[subprocess.Popen[bytes]] = []
        self._orchestrator = 0
        self._interrupted: set[int] = set()
        self._singles: set[int] = set()
        self._writers: set[int] = set()
        self._loops: dict[int, str] = {}  # pid of a run-task -> its task folder
        for path in (self.root, self.work, self.notes):
            path.mkdir(parents=True)

    # -- starting things

    def environment(self, fault: Fault | None = None) -> dict[str, str]:
        extra = {processes.MARK: self.mark, "CONDUCTOR_STOP_GRACE": "2"}
        extra["CONDUCTOR_OFFLINE_DELAY"] = "0.02"
        if self.scene.portable:
            extra["CONDUCTOR_PORTABLE"] = "1"
        if fault:
            extra["CONDUCTOR_FAULT"] = f"{fault.action}:{fault.point}:{fault.count}"
            extra["CONDUCTOR_FAULT_IN"] = fault.part
            if fault.once:
                with self._lock:
                    self._claims += 1
                    claim = self.notes / f"fault-{self._claims}"
                extra["CONDUCTOR_FAULT_ONCE"] = str(claim)
        return clean_environment(extra)

    def start(
        self, *words: str | Path, fault: Fault | None = None, out: str = "printed"
    ) -> subprocess.Popen[bytes]:
        """Start a script of the toolkit; what it prints goes to files of the notes."""
        environment = self.environment(fault)
        with (self.notes / out).open("ab") as stdout, (self.notes / "errors").open("ab") as stderr:
            process = subprocess.Popen(
                [*PYTHON, *map(str, words)],
                cwd=self.work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        claim = environment.get("CONDUCTOR_FAULT_ONCE")
        if fault and claim:
            follow = threading.Thread(
                target=self._follow_fault, args=(fault, Path(claim), process), daemon=True
            )
            follow.start()
        return process

    def _follow_fault(self, fault: Fault, claim: Path, process: subprocess.Popen[bytes]) -> None:
        """Notice that a named fault has come about; let what was stopped go on, or kill it."""
        line = ""
        while not line.endswith("\n"):
            if self._is_over.wait(0.005 if process.poll() is None else 0.05):
                return  # until then what it has started may still come to the point
            line = claim.read_text() if claim.exists() else ""
        words = line.split()
        pid = int(words[3])
        self.log.kills.append(Kill(words[2], f"{words[0]} {words[1]}", pid))
        if fault.action == "stop":
            time.sleep(fault.rest)
            processes.send(pid, fault.then)

    def wait(self, process: subprocess.Popen[bytes], what: str) -> int:
        """Its exit code; a process that will not end is a problem, and is ended."""
        try:
            return process.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self.problem(f"{what} hung for {LONGEST_SECONDS:g} s")
            process.kill()
            return process.wait()

    def problem(self, text: str) -> None:
        with self._lock:
            self.log.problems.append(text)

    # -- the scene

    def play(self) -> None:
        """Everything that the scene holds, at once; kills included."""
        scene = self.scene
        self._write_config()
        self._write_plan()
        for n in range(scene.readers):
            self._start_reader(n)
        acts: list[Callable[[], None]] = []
        if scene.starts:
            acts.append(self._play_plan)
        if scene.singles:
            acts.append(self._play_singles)
        acts += [lambda loop=loop: self._play_loop(loop) for loop in scene.loops]  # type: ignore[misc]
        if scene.writers or scene.posters:
            acts.append(self._play_bus)
        threads = [threading.Thread(target=self._guarded, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - a thread's error must not get lost
            self.problem(f"the harness: {type(error).__name__}: {error}")

    def _start_reader(self, n: int) -> None:
        path = self.notes / f"reader-{n}"
        words = (ROOT / "bin" / "bus-tail", "--json", "-f", "-n", "-1", self.bus)
        self._readers.append(self.start(*words, out=path.name))
        self.log.readers.append(path)

    def _write_config(self) -> None:
        me = [sys.executable, "-S", "-E", str(AGENT), str(self.notes), "work"]
        other = ["/bin/sh", "-c", "exec $0 $*", *me, "steps=1"]
        agents: dict[str, dict[str, object]] = {
            "one": {"type": "shell"},
            "two": {"type": "shell"},
            "other": {"type": "command", "command": other},
        }
        for loop in self.scene.loops:
            agents[loop.task] = {"type": "command", "command": [*me, *loop.work.split()]}
        (self.folder / "config.yaml").write_text(json.dumps({"agents": agents}) + "\n")

    # -- the plan

    def _write_plan(self) -> None:
        if not self.scene.tasks:
            return
        plan = {
            "project": "p",
            "max_parallel": self.scene.max_parallel,
            "start_interval": 0,
            "defaults": {"cwd": str(self.work), "retries": 0, "critical": False},
            "roles": {"judging": {"agents": ["one", "two"], "quorum": 2}},
            "stages": [{"id": "only", "tasks": [self._task(task) for task in self.scene.tasks]}],
        }
        (self.folder / "plan.yaml").write_text(json.dumps(plan) + "\n")

    def _task(self, drawn: dict[str, object]) -> dict[str, object]:
        task = {k: v for k, v in drawn.items() if k not in ("work", "kind", "verify", "exclusive")}
        kind, work = drawn["kind"], str(drawn["work"])
        if drawn.get("exclusive"):
            task["exclusive"] = drawn["exclusive"]
            if kind == "shell":
                work += f" lock={drawn['exclusive']}"
        task["prompt"] = f"```sh\nexec {self._agent()} work {work}\n```\n"
        if kind == "review":
            task["role"] = "judging"
        else:
            task["agent"] = {"command": "other"}.get(str(kind), kind)
        if kind == "offline":
            task["prompt"] = "Work.\n"
        if "verify" in drawn:
            task["verify"] = [f"{self._agent()} verify fail={drawn['verify']}"]
        return task

    def _agent(self) -> str:
        return f"{sys.executable} -S -E '{AGENT}' '{self.notes}'"

    def _start_plan(self, fault: Fault | None = None) -> subprocess.Popen[bytes]:
        folder = self.folder
        return self.start(
            ROOT / "run-all-tasks.py", folder / "plan.yaml", "--root", self.root,
            "--config", folder / "config.yaml", fault=fault,
        )  # fmt: skip

    def _play_plan(self) -> None:
        for start in self.scene.starts:
            process = self._start_plan(start.fault)
            self._orchestrator = process.pid
            self._strike_all(start.strikes, lambda p=process: p.poll() is None)  # type: ignore[misc]
            self._stop_in_time(start, process, "orchestrator")
            self.wait(process, "run-all-tasks.py")
            self._orchestrator = 0

    def _stop_in_time(self, start: Start, process: subprocess.Popen[bytes], part: str) -> None:
        """Do not wait for ever where every supervisor is killed at one point."""
        if start.fault and not start.fault.once:
            try:
                process.wait(3.0)
            except subprocess.TimeoutExpired:
                self.log.kills.append(Kill(part, "SIGKILL", process.pid))
                process.kill()

    # -- loops

    def task_of(self, loop: LoopScene) -> tasks.Task:
        return tasks.locate(str(self.runs_dir), PROJECT, loop.task)

    def _start_loop(self, loop: LoopScene, fault: Fault | None = None) -> subprocess.Popen[bytes]:
        return self.start(
            ROOT / "bin" / "run-task", "--project", PROJECT, "--task", loop.task,
            "--agent", loop.task, "--prompt", "Work.", "--restart-delay", "0.02",
            "--child-wait-timeout", "60", "--root", self.root,
            "--config", self.folder / "config.yaml", fault=fault, out=f"loop-{loop.task}",
        )  # fmt: skip

    def _play_loop(self, loop: LoopScene) -> None:
        for n, start in enumerate(loop.starts):
            process = self._start_loop(loop, start.fault)
            beside = [self._start_loop(loop)] if n < loop.rivals else []
            for one in (process, *beside):
                self._loops[one.pid] = self.task_of(loop).path
            self._strike_all(start.strikes, lambda p=process: p.poll() is None)  # type: ignore[misc]
            self._stop_in_time(start, process, "loop")
            for one in (process, *beside):
                self.wait(one, f"run-task of {loop.task}")
                del self._loops[one.pid]

    # -- single runs

    def _play_singles(self) -> None:
        threads = [
            threading.Thread(target=self._guarded, args=(lambda s=single: self._play_single(s),))
            for single in self.scene.singles
        ]
        for thread in threads:
            thread.start()
        self._strike_all(self.scene.single_strikes, lambda: any(t.is_alive() for t in threads))
        for thread in threads:
            thread.join()

    def _play_single(self, single: Single) -> None:
        prompt = f"```sh\nexec {self._agent()} work {single.script}\n```"
        out = f"single-{single.task}"
        process = self.start(
            ROOT / "run-agent.py", "shell", ".", "--prompt", prompt, "--task", single.task,
            "--root", self.root, fault=single.fault, out=out,
        )  # fmt: skip
        with self._lock:
            self._singles.add(process.pid)
        if single.stop_after is not None:
            self._await_changes(single.stop_after, lambda: process.poll() is None)
            self._stop_run(single, out)
        code = self.wait(process, f"run-agent.py of {single.task}")
        printed = (self.notes / out).read_text()
        run_id = printed.partition("RUN_ID=")[2].partition("\n")[0]
        harmed = single.fault is not None or single.stop_after is not None
        with self._lock:
            self._singles.discard(process.pid)
            self.log.singles.append(Ended(single, code, run_id, harmed, process.pid))

    def _stop_run(self, single: Single, out: str) -> None:
        printed = (self.notes / out).read_text()
        run_id = printed.partition("RUN_ID=")[2].partition("\n")[0]
        if run_id:
            self.log.kills.append(Kill("run", "stop-run", 0, run_id))
            stop = self.start(ROOT / "bin" / "stop-run", run_id, "--root", self.root)
            self.wait(stop, "stop-run")

    # -- the bus

    def _play_bus(self) -> None:
        posting = threading.Thread(target=self._guarded, args=(self._post_one_by_one,))
        posting.start()
        writers = []
        for name, count, fault in self.scene.writers:
            words = (WRITER, self.bus, self.notes, name, str(count))
            writers.append(self.start(*words, fault=fault))
            with self._lock:
                self._writers.add(writers[-1].pid)
        self._strike_all(self.scene.bus_strikes, lambda: any(w.poll() is None for w in writers))
        for writer in writers:
            self.wait(writer, "a writer")
            self._writers.discard(writer.pid)
        posting.join()

    def _post_one_by_one(self) -> None:
        """bin/bus-append itself; every third one is killed after a moment that is its own."""
        from tests.torture.agent import write
        from tests.torture.bodies import body_of

        for n in range(self.scene.posters):
            key = f"poster/{n}"
            process = subprocess.Popen(
                [*PYTHON, ROOT / "bin" / "bus-append", "--bus", self.bus, "-"],
                env=self.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            if n % 3 == 2:
                timer = threading.Timer(0.004 * n, process.kill)
                timer.start()
            out, _ = process.communicate(body_of(key).encode("utf-8", "surrogatepass"))
            if out.endswith(b"\n"):
                write(str(self.notes), f"posted {out.decode().strip()} {key}\n")

    # -- strikes

    def _strike_all(self, strikes: list[Strike], goes_on: Callable[[], bool]) -> None:
        for strike in strikes:
            if not self._await_changes(strike.changes, goes_on):
                return
            time.sleep(strike.delay)
            self._strike(strike)

    def _await_changes(self, count: int, goes_on: Callable[[], bool]) -> bool:
        """Wait for so many changes of the storage; False when there is nothing left to strike."""
        seen = self._signature()
        changed = time.monotonic()
        while count > 0 and goes_on():
            time.sleep(0.0005)
            now = self._signature()
            if now != seen:
                seen, count, changed = now, count - 1, time.monotonic()
            elif time.monotonic() - changed > QUIET_SECONDS:
                break
        return goes_on()

    def _signature(self) -> tuple[int, ...]:
        paths = (
            self.bus, self.notes / "ledger", self.runs_dir, self.runs_dir / runs.ACTIVE,
            self.runs_dir / "p", self.runs_dir / "p" / "PLAN-STATE.journal",
            *(
                path / name
                for path in (self.runs_dir / PROJECT / loop.task for loop in self.scene.loops)
                for name in (tasks.LOOP, "runs", Path("runs", runs.ACTIVE), "TASK-MESSAGE-BUS.md")
            ),
        )  # fmt: skip
        result = []
        for path in paths:
            try:
                status = os.stat(path)
            except OSError:
                continue
            result += [status.st_size, status.st_mtime_ns]
        return tuple(result)

    def _strike(self, strike: Strike) -> None:
        targets = self._targets(strike.part)
        if not targets:
            return
        pid, run_id = targets[int(strike.pick * len(targets))]
        if pid == self._orchestrator and strike.number in INTERRUPTS:
            self._interrupt(pid, strike)
            return
        name = signal.Signals(strike.number).name
        send = self._send_stop if strike.number in INTERRUPTS else processes.send
        if not send(pid, strike.number):
            return
        self.log.kills.append(Kill(strike.part, name, pid, run_id))
        if strike.number == signal.SIGSTOP:
            time.sleep(strike.rest)
            processes.send(pid, signal.SIGCONT)

    def _interrupt(self, pid: int, strike: Strike) -> None:
        """Once: the plan waits for its agents.  Half of the time twice: it stops them."""
        self.log.kills.append(Kill("orchestrator", signal.Signals(strike.number).name, pid))
        if pid in self._interrupted:
            self._send_stop(pid, strike.number)
            return
        self._interrupted.add(pid)
        processes.send(pid, strike.number)
        if strike.pick < 0.5:
            time.sleep(strike.rest)
            self._send_stop(pid, strike.number)

    def _send_stop(self, pid: int, number: int) -> bool:
        """A signal that stops runs; which of them it meets, nobody can tell to the millisecond."""
        before = self._unended(pid)
        is_sent = processes.send(pid, number)
        self.log.stopped |= before | self._unended(pid)
        return is_sent

    def _unended(self, pid: int) -> set[str]:
        """The runs that have not ended, of one supervisor or, for an orchestrator, all."""
        return {
            run.run_id
            for run in self.all_runs()
            if run.text("status") not in runs.ENDED
            and (
                pid in self._interrupted
                or run.number("supervisor_pid") == pid
                or run.path.startswith(os.path.join(self._loops.get(pid, "//"), ""))
            )
        }

    def _targets(self, part: str) -> list[tuple[int, str]]:
        """The living processes of a part, with the run that each belongs to where that is known."""
        rows = processes.marked(self.mark)
        if part in ("guard", "agent"):
            key = "pgid" if part == "guard" else "pid"
            live = [run for run in self.all_runs() if run.text("status") == runs.RUNNING]
            found = {run.number(key): run.run_id for run in live}
        elif part == "orchestrator":
            found = {self._orchestrator: ""}
        elif part == "loop":
            found = dict.fromkeys(list(self._loops), "")
        elif part in ("writer", "reader"):
            pids = self._writers if part == "writer" else {r.pid for r in self._readers}
            found = dict.fromkeys(pids, "")
        else:
            found = self._supervisors(rows, part)
        return sorted((pid, run_id) for pid, run_id in found.items() if pid in rows)

    def _supervisors(self, rows: dict[int, processes.Row], part: str) -> dict[int, str]:
        known = {run.number("supervisor_pid"): run.run_id for run in self.all_runs()}
        forks = [row for row in rows.values() if "conductor-supervisor" in row.command]
        starters = {self._orchestrator, *list(self._loops)}
        spawners = {row.pid for row in forks if row.ppid in starters}
        if part == "spawner":
            return dict.fromkeys(spawners, "")
        pids = self._singles | {row.pid for row in forks} - spawners
        return {pid: known.get(pid, "") for pid in pids}

    def all_runs(self) -> list[runs.Run]:
        return sorted(runs.listing(str(self.runs_dir)), key=lambda run: run.run_id)

    # -- and then in peace

    def settle(self) -> None:
        """Start everything again, without kills, until it is over."""
        for pid in processes.marked(self.mark):
            processes.send(pid, signal.SIGCONT)
        if self.scene.tasks:
            self._finish_plan()
        for loop in self.scene.loops:
            self._finish_loop(loop)
        self._finish_runs()
        for reader in self._readers:
            self._catch_up(reader)

    def _finish_plan(self) -> None:
        for _ in range(MOST_STARTS):
            if self.wait(self._start_plan(), "run-all-tasks.py, undisturbed,") == 0:
                return
        self.problem(f"the plan is not done after {MOST_STARTS} undisturbed starts")

    def _finish_loop(self, loop: LoopScene) -> None:
        for _ in range(MOST_STARTS):
            if self.wait(self._start_loop(loop), "run-task, undisturbed,") == 0:
                return
        self.problem(f"{loop.task} is not done after {MOST_STARTS} undisturbed starts")

    def _marked(self) -> list[str]:
        folders = [self.task_of(loop).runs_dir for loop in self.scene.loops]
        return [name for path in (str(self.runs_dir), *folders) for name in runs.marked(path)]

    def _finish_runs(self) -> None:
        """Have every run repaired that needs it; agents that still live come to their end."""
        limit = time.monotonic() + LONGEST_SECONDS
        while True:
            act = self.start(
                ROOT / "run-agent.py", "shell", ".", "--prompt", "```sh\ntrue\n```",
                "--task", "act", "--root", self.root,
            )  # fmt: skip
            if self.wait(act, "run-agent.py, undisturbed,") != 0:
                self.problem("an undisturbed run-agent.py failed")
            left = self._marked()
            if not left:
                return
            if time.monotonic() > limit:
                self.problem(f"runs that never end: {', '.join(left)}")
                return
            time.sleep(0.1)

    def _catch_up(self, reader: subprocess.Popen[bytes]) -> None:
        """Let a reader show all that there is, then end it."""
        path = self.log.readers[self._readers.index(reader)]
        size, since = -1, time.monotonic()
        while reader.poll() is None and time.monotonic() - since < 0.3:
            if path.stat().st_size != size:
                size, since = path.stat().st_size, time.monotonic()
            time.sleep(0.02)
        reader.kill()
        reader.wait()

    def await_silence(self) -> None:
        """Wait until no process of the round lives; those that do not end are a problem."""
        limit = time.monotonic() + 15.0
        while (left := processes.marked(self.mark)) and time.monotonic() < limit:
            time.sleep(0.02)
        self._is_over.set()
        for row in left.values():
            self.problem(f"process {row.pid} lives on: {row.command[:120]}")
