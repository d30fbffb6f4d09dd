"""stop-run: end runs with everything they started, and record that."""

from __future__ import annotations

import os
import sys
import time

from lib import config, listing, procs, recovery, redact, runs, supervisor
from lib.cli import ROOT, RUNS_DIR, Command, Option, Values, run, say
from lib.errors import EXIT_BUG, EXIT_FAILED, EXIT_OK, EXIT_SIGNAL, UsageError, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_AT_ONCE = 16
POLL_SECONDS = 0.02
PATIENT_SECONDS = 2.0  # then it is said what the wait is for

COMMAND = Command(
    "stop-run",
    "stop runs and everything they started",
    about="""\
Each run's whole tree gets SIGTERM, and what is left after the grace
($CONDUCTOR_STOP_GRACE, 30 s) SIGKILL: also what went into a session of its own,
and also where the run's supervisor was killed before.  A run that was recorded
on another machine is left alone.""",
    positionals=(("RUN", "*", "any unique part of a run's id, or its folder"),),
    options=(
        Option("--all", help="every run of the runs folder that is running here"),
        Option(
            "--project", metavar="ID", help="with --task: a task's loop, and all that runs of it"
        ),
        Option("--task", metavar="ID", help="the task of --project to stop"),
        ROOT,
        RUNS_DIR,
    ),
    examples=(
        "bin/stop-run infra-storage",
        "bin/stop-run 20260223-204859-4711 20260223-204901-4720",
        "bin/stop-run --all",
        "bin/stop-run --project shop --task task-20260223-204500-cart",
    ),
    exit_codes="0 each has ended, now or before; 1 one could not be stopped, or no such run; "
    "2 wrong usage",
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(COMMAND, stop_run, arguments)


def stop_run(values: Values) -> int:
    names = values.items("run")
    if values.is_given("project") or values.is_given("task"):
        return _stop_task(values)
    if bool(names) == values.flag("all"):
        raise UsageError("name a RUN or more, or --all, but not both; see --help")
    config.know_tokens()  # a run that is taken over is rendered anew, and redacted here
    folder = listing.runs_folder(values.text("root"), values.text("runs_dir"))
    recovery.repair_all(folder)
    if names:
        chosen = [listing.find(folder, name) for name in names]  # all known before any is stopped
    else:
        rows, _ = listing.select(folder, listing.Wanted(statuses=[runs.RUNNING]))
        chosen = [row.run for row in rows]
        if not chosen:
            COMMAND.tell("no run is running")
    return _stop_all({record.path: record for record in chosen})


def _stop_task(values: Values) -> int:
    """End a task's loop, then what lives of it; start run-task again to go on."""
    from lib import loop_control, tasks

    project, name = values.text("project"), values.text("task")
    if not (project and name) or values.items("run") or values.flag("all"):
        raise UsageError("--project and --task together name one task to stop, and nothing else")
    config.know_tokens()  # a run that is taken over is rendered anew, and redacted here
    folder = listing.runs_folder(values.text("root"), values.text("runs_dir"))
    task = tasks.locate(folder, project, name)
    if not os.path.isdir(task.path):
        raise UserError(f"no task {name} of project {project} in {redact.for_terminal(folder)}")
    was_alive, problems = loop_control.stop(task)
    for problem in problems:
        COMMAND.tell(problem)
    sys.stdout.write(f"stopped {name}\n" if was_alive else f"{name} was not running\n")
    return EXIT_FAILED if problems else EXIT_OK


def _stop_all(chosen: dict[str, runs.Run]) -> int:
    """Stop them side by side, each in a process of its own.

    Not in threads: taking over a run needs signal handlers, and orphans that
    come to one process only.
    """
    waiting, working = list(chosen.values()), dict[int, runs.Run]()
    code, began, told = EXIT_OK, time.monotonic(), False
    while waiting or working:
        while waiting and len(working) < MOST_AT_ONCE:
            record = waiting.pop(0)
            working[_fork(record)] = record
        for pid in list(working):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = max(code, _judge(working.pop(pid), status))
        if working and not told and time.monotonic() - began > PATIENT_SECONDS:
            told = True
            grace = supervisor.stop_grace()
            COMMAND.tell(
                f"waiting for {len(working)} to end; SIGKILL follows after {grace:g} s of grace"
            )
        time.sleep(POLL_SECONDS if working else 0)
    return code


def _fork(record: runs.Run) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = EXIT_BUG
    try:
        code = _stop(record)
    except KeyboardInterrupt:
        code = EXIT_SIGNAL + procs.SIGINT
    except UserError as error:
        COMMAND.tell(str(error))
        code = EXIT_FAILED
    except OSError as error:
        COMMAND.tell(f"{record.run_id}: {error}")
        code = EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - the outermost frame of this process
        COMMAND.tell(f"{record.run_id}: bug: {type(error).__name__}: {error}")
    finally:
        os._exit(code)  # without what the parent would do at its exit
    return code


def _stop(record: runs.Run) -> int:
    how = recovery.stop(record.path)
    name = redact.one_line(record.run_id)
    say(f"stopped {name}\n" if how == "stopped" else f"{name} had already ended\n")
    return EXIT_OK


def _judge(record: runs.Run, status: int) -> int:
    """The exit code for what became of one; a bug or a signal has said nothing yet."""
    code = os.waitstatus_to_exitcode(status)
    if code not in (EXIT_OK, EXIT_FAILED):
        COMMAND.tell(f"{record.run_id}: stopping it was cut off ({code}); run stop-run again")
    return EXIT_OK if code == EXIT_OK else EXIT_FAILED
