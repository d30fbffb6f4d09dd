"""What happens in a round: all of it drawn from the round's seed, before anything begins."""

from __future__ import annotations

import functools
import random
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

LIB = Path(__file__).resolve().parent.parent.parent / "lib"
_POINT = re.compile(r"faults\.point\(\s*\"([^\"]+)\"")
PARTS = ("orchestrator", "supervisor", "spawner", "script", "loop")
_USUAL = {  # where the points of a module are come to; of any other: everywhere
    "spawner": ("spawner", "supervisor"),
    "runner": ("supervisor",),
    "supervisor": ("supervisor", "orchestrator", "script", "loop"),
    "scheduler": ("orchestrator",),
    "state": ("orchestrator",),
    "verify": ("orchestrator",),
    "course": ("orchestrator",),
    "loop": ("loop",),
    "loop_watch": ("loop",),
    "run_task": ("loop",),
}
RUN_PARTS = ("supervisor", "supervisor", "supervisor", "guard", "agent")
PLAN_PARTS = (*RUN_PARTS, *("orchestrator",) * 4, "spawner")
LOOP_PARTS = (*RUN_PARTS, *("loop",) * 4, "spawner")
KILL, STOP, TERM, INT = signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT


@functools.cache
def fault_points() -> dict[str, tuple[str, ...]]:
    """Every fault point of the core and the parts that may come to it, read off the source."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(LIB.rglob("*.py")):
        for name in _POINT.findall(path.read_text()):
            found[name] = _USUAL.get(path.stem, ("orchestrator", "supervisor", "script", "loop"))
    return found


@dataclass(frozen=True)
class Fault:
    """One named kill (or stop) in whatever is started with it."""

    action: str
    point: str
    count: int
    part: str
    once: bool
    then: int  # what a stopped process gets: SIGCONT or SIGKILL
    rest: float  # seconds that it is stopped for


@dataclass(frozen=True)
class Strike:
    """A signal to one process of a part, after so many changes of the storage, and a little."""

    changes: int
    delay: float  # seconds
    part: str
    number: int
    pick: float  # which of those that there are
    rest: float  # seconds until SIGCONT


@dataclass(frozen=True)
class Start:
    """One start of the plan or of a loop, and what befalls it."""

    fault: Fault | None
    strikes: list[Strike]


@dataclass(frozen=True)
class Single:
    """One run-agent.py."""

    task: str
    script: str  # options of the agent
    code: int
    fault: Fault | None
    stop_after: int | None  # changes until stop-run


@dataclass(frozen=True)
class LoopScene:
    """A task in a loop, and how often that is started before it is left in peace."""

    task: str
    work: str  # options of the agent
    starts: list[Start]
    rivals: int  # of the first so many starts each has a second run-task beside it


@dataclass
class Scene:
    """A whole round."""

    tasks: list[dict[str, object]] = field(default_factory=list)
    max_parallel: int = 4
    starts: list[Start] = field(default_factory=list)
    singles: list[Single] = field(default_factory=list)
    single_strikes: list[Strike] = field(default_factory=list)
    loops: list[LoopScene] = field(default_factory=list)
    writers: list[tuple[str, int, Fault | None]] = field(default_factory=list)
    posters: int = 0  # processes bin/bus-append, one after the other, that are killed too
    readers: int = 0
    bus_strikes: list[Strike] = field(default_factory=list)
    portable: bool = False


class Draw:
    """Draws a scene; the same for the same seed and the same fault points."""

    def __init__(self, seed: str) -> None:
        self.dice = random.Random(seed)  # noqa: S311
        self.points = fault_points()

    def scene(self) -> Scene:
        dice = self.dice
        kind = dice.choices(["plan", "singles", "bus", "mix", "loops"], [5, 2, 1, 2, 4])[0]
        scene = Scene(portable=dice.random() < 0.06, readers=dice.randint(0, 2))
        if kind in ("plan", "mix"):
            self._draw_plan(scene)
        if kind in ("singles", "mix"):
            self._draw_singles(scene)
        if kind in ("bus", "mix"):
            self._draw_bus(scene)
        most = {"loops": 2, "mix": 1, "plan": 1}.get(kind, 0)
        least = int(kind == "loops")
        for n in range(dice.choice([least, least, most])):
            scene.loops.append(self._loop(f"l{n}"))
        return scene

    # -- plans

    def _draw_plan(self, scene: Scene) -> None:
        dice = self.dice
        scene.max_parallel = dice.choice([1, 2, 4, 8])
        for n in range(dice.randint(3, 8)):
            scene.tasks.append(self._task(f"t{n}", [str(task["id"]) for task in scene.tasks]))
        for _ in range(dice.randint(2, 7)):
            fault = self._fault(PARTS[:3]) if dice.random() < 0.5 else None
            strikes = [] if fault and dice.random() < 0.5 else self._strikes(3, PLAN_PARTS)
            if dice.random() < 0.8:  # else the plan would be done before it has suffered much
                strikes.append(self._strike(["orchestrator"], [KILL]))
            scene.starts.append(Start(fault, strikes))

    def _task(self, task_id: str, earlier: list[str]) -> dict[str, object]:
        dice = self.dice
        task: dict[str, object] = {"id": task_id, "work": self._work()}
        task["kind"] = dice.choices(["shell", "command", "offline", "review"], [6, 2, 1, 1])[0]
        needed = [name for name in earlier if dice.random() < 0.3]
        if needed:
            task["depends_on"] = needed
        if dice.random() < 0.3:
            task["retries"] = dice.randint(1, 2)
        if dice.random() < 0.35:
            task["verify"] = dice.choice([0, 0, 0, 1])  # how often it fails first
        if dice.random() < 0.2:
            task["exclusive"] = dice.choice(["x", "y"])
        return task

    def _work(self) -> str:
        dice = self.dice
        words = [f"steps={dice.choice([0, 1, 3, 6, 12, 20])}"]
        extra = {"fail=1": 0.07, "child=1": 0.08, "post=2": 0.15, "spawn=1": 0.08}
        words += [word for word, chance in extra.items() if dice.random() < chance]
        return " ".join(words)

    # -- single runs

    def _draw_singles(self, scene: Scene) -> None:
        dice = self.dice
        for n in range(dice.randint(1, 4)):
            code = dice.choice([0, 0, 0, 5])
            fault = self._fault(("supervisor",)) if dice.random() < 0.5 else None
            stop = dice.randint(1, 25) if dice.random() < 0.25 else None
            work = f"{self._work().replace('fail=1', '')} code={code}"
            scene.singles.append(Single(f"s{n}", work, code, fault, stop))
        scene.single_strikes = self._strikes(6, RUN_PARTS)

    # -- loops

    def _loop(self, task: str) -> LoopScene:
        dice = self.dice
        work = self._work().replace("fail=1", "")
        work += f" done={dice.randint(1, 7)} code={dice.choice([0, 0, 5])}"
        work += " leave=1" if dice.random() < 0.25 else ""
        starts = []
        for _ in range(dice.randint(1, 6)):
            fault = self._fault(("loop", "loop", "supervisor", "spawner"), loop=True)
            strikes = self._strikes(3, dice.choice([LOOP_PARTS, PARTS[4:]]))
            if dice.random() < 0.8:  # else the task would be done before it has suffered much
                strikes.append(self._strike(["loop"], [KILL]))
            chance = dice.random()
            starts.append(Start(fault if chance < 0.8 else None, strikes if chance > 0.6 else []))
        return LoopScene(task, work, starts, dice.choice([0, 0, 0, 2]))

    # -- the bus

    def _draw_bus(self, scene: Scene) -> None:
        dice = self.dice
        for n in range(dice.randint(2, 6)):
            fault = self._fault(("script",), "bus-") if dice.random() < 0.4 else None
            scene.writers.append((f"w{n}", dice.randint(5, 60), fault))
        scene.posters = dice.randint(0, 10)
        scene.readers = dice.randint(1, 3)
        parts = ["writer"] * 3 + ["reader"]
        scene.bus_strikes = [self._strike(parts, [KILL, KILL, STOP]) for _ in range(6)]

    # -- kills

    def _fault(self, parts: tuple[str, ...], prefix: str = "", loop: bool = False) -> Fault:
        dice = self.dice
        part = dice.choice(parts)
        points = [p for p, at in self.points.items() if part in at and p.startswith(prefix)]
        if loop and part == "loop" and dice.random() < 0.6:
            points = [p for p in points if p.startswith("loop-")]
        action = dice.choices(["kill", "stop"], [5, 1])[0]
        return Fault(
            action,
            dice.choice(points),
            dice.choice([1, 1, 1, 1, 2] if loop else [1, 1, 1, 2, 3, 4, 6]),
            part,
            action == "stop" or dice.random() < 0.8,
            dice.choice([signal.SIGCONT, KILL]),
            dice.uniform(0.0, 0.3),
        )

    def _strikes(self, most: int, parts: tuple[str, ...]) -> list[Strike]:
        numbers = [KILL] * 6 + [STOP, STOP, TERM, INT]
        return [self._strike(list(parts), numbers) for _ in range(self.dice.randint(1, most))]

    def _strike(self, parts: list[str], numbers: list[signal.Signals]) -> Strike:
        dice = self.dice
        changes = int(dice.triangular(0, 24, 1))
        number = int(dice.choice(numbers))
        part = dice.choice(parts)
        return Strike(
            changes, dice.uniform(0, 0.005), part, number, dice.random(), dice.uniform(0, 0.25)
        )
