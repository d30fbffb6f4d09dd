"""A root in which much is going on: what a person sees who opens the page in the middle of a day.

Real runs of two plans: one has come to its end, the other is held in the middle of its work, with
tasks that are done, at work, failed, blocked, and waiting for a quota.  Around them runs by hand,
names and lines that are hostile, and messages that answer each other.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from tests.agent_runs import Gate
from tests.helpers import run_script, wait_until
from tests.plan_root import PlanRoot, Record, sh

HOSTILE = "<img src=x onerror=window.owned=1>"
LONG_ID = "task-20261101-120000-a-task-whose-name-somebody-made-far-too-long-for-any-column"
STATUSES = ("running", "failed")
# Speaks claude's stream: says what it does, uses tools, and costs what the prompt says.
MODEL = r"""#!/usr/bin/env -S python3 -S -E
import json, sys

prompt = sys.stdin.read()
told = dict(line.split(": ", 1) for line in prompt.split("\n") if ": " in line)
cost = float(told.get("cost", "0.1"))


def say(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def speak(*content):
    used = {"input_tokens": 1200, "output_tokens": 80}
    message = {"id": "m", "role": "assistant", "model": "claude-opus-4-8", "content": content, "usage": used}
    say(type="assistant", message=message, session_id="s")


say(type="system", subtype="init", session_id="s", model="claude-opus-4-8", cwd=".", tools=["Bash", "Edit"])
if "quota" in told:
    say(type="result", subtype="success", is_error=True, session_id="s",
        result="Claude AI usage limit reached|" + told["quota"])
    sys.exit(1)
speak({"type": "text", "text": "I will look at the code first."})
for number, command in enumerate(["rg -n 'def total' src", "sed -n 1,40p src/cart.py", "pytest -q tests/test_cart.py"]):
    speak({"type": "tool_use", "id": f"t{number}", "name": "Bash", "input": {"command": command}})
    result = "src/cart.py:14: def total(self) -> Decimal:\n" * 3 + "3 passed in 0.21s"
    content = [{"type": "tool_result", "tool_use_id": f"t{number}", "content": result}]
    say(type="user", message={"role": "user", "content": content}, session_id="s")
if "hold" in told:
    speak({"type": "text", "text": "Rounding is done per line; now I change the total."})
    with open(told["hold"]) as gate:
        gate.readline()
answer = "# Totals are rounded once\n\nThe sum was rounded **per line**; now:\n\n" \
    "- `Cart.total` adds first, and rounds at the end\n- a test holds `0.1 + 0.2`\n\n" \
    "```python\ntotal = sum(line.amount for line in self.lines).quantize(CENT)\n```\n\nVERDICT: APPROVE\n"
speak({"type": "text", "text": answer})
usage = {"input_tokens": int(cost * 90000), "cache_read_input_tokens": int(cost * 400000), "output_tokens": int(cost * 9000)}
say(type="result", subtype="success", is_error=False, session_id="s", result=answer,
    total_cost_usd=cost, usage=usage, num_turns=5, duration_ms=4000)
"""


class Fleet:
    """Made by `begin()`; the live plan `checkout` waits until `finish()`."""

    def __init__(self, folder: Path) -> None:
        self.plan_root = PlanRoot(folder / "root")
        self.root = self.plan_root.path
        self.gate = Gate(folder / "gate")
        self._live: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        program = self.root / "claude"
        program.write_text(MODEL)
        program.chmod(0o755)
        agents = {
            name: {
                "type": "claude",
                "executable": str(program),
                "token": f"token-{name}-0123456789",
            }
            for name in ("claude", "claude-two")
        }
        (self.root / "config.yaml").write_text(json.dumps({"agents": agents}))
        self._run_the_past()
        self._start_the_present()
        self._post_messages()

    def finish(self) -> None:
        """Let go of what is held; the task that waits for a quota waits on."""
        self.gate.open(8)

    def close(self) -> None:
        self.plan_root.kill_everything()
        if self._live is not None:
            self._live.wait(60)
        self.gate.close()

    def newest_run(self, task: str) -> str:
        """Of a task of the live plan."""
        names = (path.name for path in self.plan_root.runs.glob(f"run_*-{task}"))
        return max(name for name in names if name.split("-", 3)[3] == task)

    # -- what is over

    def _run_the_past(self) -> None:
        names = ["survey", "outline", "draft", "images", "edit", "links", "publish"]
        tasks: list[Record] = [
            claude(name, 0.04 * (number + 1)) for number, name in enumerate(names)
        ]
        stages = [
            {"id": "plan", "title": "Plan", "tasks": tasks[:2]},
            {"id": "write", "title": "Write", "tasks": tasks[2:4]},
            {
                "id": "check",
                "title": "Check",
                "tasks": [{**task, "depends_on": ["draft"]} for task in tasks[4:6]],
            },
            {"id": "ship", "title": "Ship", "tasks": tasks[6:]},
        ]
        self.plan_root.plan_file = self.root / "website.yaml"
        self.plan_root.plan(project="website", title="New website", stages=stages)
        done = self.plan_root.run()
        assert done.returncode == 0, done.stderr
        prompt = self.plan_root.work / "prompt.md"
        prompt.write_text(
            f"```sh\necho '{HOSTILE}'; printf 'a\\033[31mred\\033[0m b\\n'; exit 3\n```\n"
        )
        words = ["shell", ".", "prompt.md", "--project", "by-hand", "--task", LONG_ID]
        run_script("run-agent.py", *words, "--root", str(self.root), cwd=self.plan_root.work)
        folder = self.plan_root.runs / HOSTILE / HOSTILE
        folder.mkdir(parents=True)
        (folder / "TASK.md").write_text("Do it.\n")

    # -- what goes on

    def _start_the_present(self) -> None:
        reset = str(int(time.time()) + 3 * 3600)
        build: list[Record] = [
            claude("cart", 0.61),
            claude("prices", 0.35),
            claude("totals", 0.48, hold=str(self.gate.path)),
            sh("payments", f"seq 40; echo 'waiting for the bank'; read -r _ <'{self.gate.path}'"),
            sh("invoices", "echo 'Error: no template for invoices'; exit 3", retries=1),
            {**claude("mails", 0.2, quota=reset), "agent": "claude-two"},
        ]
        test: list[Record] = [
            sh("test-cart", "echo 12 passed", depends_on=["cart", "prices"]),
            sh("test-invoices", "echo 4 passed", depends_on=["invoices"]),
            sh(
                "test-all",
                "echo 90 passed",
                depends_on=["totals", "payments"],
                title="The whole suite",
            ),
        ]
        stages = [
            {
                "id": "research",
                "title": "Research",
                "tasks": [claude("survey", 0.11), claude("risks", 0.09)],
            },
            {"id": "build", "title": "Build", "barrier": False, "tasks": build},
            {"id": "test", "title": "Test", "tasks": test},
            {"id": "ship", "title": "Ship", "tasks": [sh("release", "echo released")]},
        ]
        self.plan_root.plan_file = self.root / "plan.yaml"
        self.plan_root.plan(project="checkout", title="A checkout that adds up", stages=stages)
        self._live = self.plan_root.start("--keep-going")
        wait_until(self._is_held, what=f"the live plan to be held: {self._errors()}")

    def _errors(self) -> str:
        path = self.root / "errors"
        return path.read_text() if path.exists() else ""

    def _is_held(self) -> bool:
        """Whether all that can be done is done, and the rest waits for the gate."""
        listed = run_script(
            "bin/list-runs", "--json", "--project", "checkout", "--root", str(self.root)
        )
        rows = [json.loads(line) for line in listed.stdout.split("\n") if line]
        of = {
            status: {row["task_id"] for row in rows if row["status"] == status}
            for status in STATUSES
        }
        return of["running"] == {"totals", "payments"} and {"invoices", "mails"} <= of["failed"]

    def _post_messages(self) -> None:
        first = self._post("Which rounding do we want: per line, or once?", "QUESTION")
        second = self._post("Once, at the end; per line was the bug.", "DECISION", first)
        self._post("Then `Cart.total` is the only place.", "FACT", second)
        self._post(f"Seen in an order: {HOSTILE} <script>window.owned=1</script>", "ERROR")
        self._post(
            "Progress: 60 %\n" + "\n".join(f"- file {number} moved" for number in range(40)),
            "PROGRESS",
        )

    def _post(self, body: str, type_: str, parent: str = "") -> str:
        """Its id."""
        words = ["--root", str(self.root), "--project", "checkout", "--type", type_]
        words += ["--parent", parent] if parent else []
        done = run_script("bin/bus-append", *words, body)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[0]


def claude(task_id: str, cost: float, **told: str) -> Record:
    """A task of claude's kind that costs so much."""
    lines = [f"{name}: {value}" for name, value in {"cost": f"{cost:.2f}", **told}.items()]
    return {
        "id": task_id,
        "agent": "claude",
        "prompt": "\n".join(["Make the totals right.", *lines]),
    }


def environment(fleet: Fleet) -> dict[str, str]:
    """What the server needs to know of it."""
    return {"CONDUCTOR_CONFIG": str(fleet.root / "config.yaml"), "PATH": os.environ["PATH"]}
