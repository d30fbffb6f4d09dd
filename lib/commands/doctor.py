"""doctor: what this machine, its configuration and a plan still need, each with its cure."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Generator, Sequence

from lib import doctor, redact
from lib.cli import RUNS_DIR, Command, Option, Values, run
from lib.errors import EXIT_FAILED, EXIT_OK, EXIT_SIGNAL, UsageError

COMMAND = Command(
    "doctor",
    "say what is missing here, and how to mend it",
    about="""\
Each check is ok, note (works, but know this) or FAIL, says what was found, and
below it the cure.  Locks are really tried, with a file that has no name any
more; an agent's program is asked for its --version and nothing else, and nothing
is paid without --live.  With PLAN also: its faults, agents, prompts, folders
and checks; FAIL is then what keeps it from running.

--live calls agents, and THAT IS PAID: one prompt of a line to each agent with a
model that works here and is in the config or logged in (to any that --agent
names), four at a time, at most 2 minutes each, in a folder that is removed
afterwards.  It says whether it answered, how long it took, and what it cost.""",
    positionals=(("PLAN", "?", "a plan to check as well (default: none)"),),
    options=(
        Option("--root", metavar="DIR", help="where runs/ and MESSAGE-BUS.md are (default: $CONDUCTOR_ROOT, else the clone)"),
        RUNS_DIR,
        Option("--config", metavar="FILE", is_optional=True, help="the config (default, also without FILE: $CONDUCTOR_CONFIG, ./config.yaml, …)"),
        Option("--only", metavar="config", help="look at the config alone: each fault with its line; starts nothing"),
        Option("--agent", metavar="NAME", help="this agent alone: for every task of PLAN, or by itself"),
        Option("--live", help="call agents once each, which is paid: see above"),
        Option("--json", help="print one JSON object: checks (name, state, text, cure) and ok; with --live also live (a row for each call)"),
    ),
    examples=(
        "bin/doctor",
        "bin/doctor prompts/plan.yaml",
        "bin/doctor my-plan.yaml --agent claude --root /srv/work",
        "bin/doctor --only config --config my-config.yaml",
        "bin/doctor --live --agent claude",
        "bin/doctor --json | jq -r '.checks[] | select(.state == \"FAIL\") | .cure'",
    ),
    exit_codes="0 no FAIL (whatever optional is missing), 1 at least one FAIL, 2 wrong usage",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    # By an exception, so that the scratch files are removed on the way out.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _end)
    return run(COMMAND, report, arguments)


def _end(number: int, _frame: object) -> None:
    raise SystemExit(EXIT_SIGNAL + number)


def report(values: Values) -> int:
    checks = []
    calls: list[doctor.Call] | None = [] if values.flag("live") else None
    with contextlib.closing(_examine(values, calls)) as found:  # whatever interrupts it
        for check in found:
            checks.append(check)
            if not values.flag("json"):
                sys.stdout.write(check.lines())
                sys.stdout.flush()  # the next one may take seconds
    is_ok = all(check.state != doctor.FAIL for check in checks)
    if values.flag("json"):
        result: dict[str, object] = {"checks": [check.as_dict() for check in checks], "ok": is_ok}
        if calls is not None:
            result["live"] = redact.values([call.as_dict() for call in calls])
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(f"{doctor.summary(checks)}\n")
    return EXIT_OK if is_ok else EXIT_FAILED


def _examine(values: Values, calls: list[doctor.Call] | None) -> Generator[doctor.Check]:
    only = values.text("only")
    if only is None:
        yield from doctor.examine(
            plan_path=values.text("plan"),
            root_option=values.text("root"),
            runs_option=values.text("runs_dir"),
            config_option=values.text("config"),
            agent=values.text("agent"),
            calls=calls,
        )
    elif only != "config":
        raise UsageError("--only: what can be looked at alone is: config")
    elif values.text("plan") or calls is not None:
        raise UsageError("--only config looks at the config alone; leave out PLAN and --live")
    else:
        yield from doctor.examine_config(values.text("config"), values.text("agent"))
