"""run-task: attempts until DONE, what ends a loop, what it waits for, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from lib import loop_record, loop_watch, runs, tasks
from lib.spawner import Spawner
from tests.agent_runs import Place, is_alive, kill
from tests.helpers import ROOT, run_script, wait_until
from tests.task_root import (
    BUS_APPEND,
    COUNT,
    FINISH,
    QUICK,
    RUN_AGENT,
    TaskRoot,
    kill_loop,
)

PREAMBLE_END = "\n---\n\n"


def own_part(prompt: str) -> str:
    """What stands behind the preamble."""
    return prompt.split(PREAMBLE_END, 1)[1]


# -- attempts


def test_a_chain_of_five_attempts_is_linked_by_the_run_before(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f'{COUNT} echo "try $n"; [ $n -lt 5 ] || {FINISH}; exit $((n % 2))')

    done = tasks_root.loop()

    assert done.returncode == 0, done.stdout + done.stderr
    records = tasks_root.try_records()
    ids = [record["run_id"] for record in records]
    assert [record.get("previous_run_id") for record in records] == [None, *ids[:4]]
    assert [record["exit_code"] for record in records] == [1, 0, 1, 0, 1]
    assert ids == sorted(str(name) for name in ids)
    assert len(tasks_root.bodies("WARNING")) == 2, "the fifth failed, too, but the task is done"
    assert [body.split()[3] for body in tasks_root.bodies("INFO")[:5]] == list("12345")
    assert tasks_root.loop_record["state"] == "done"
    assert len(tasks_root.facts()) == 1
    assert tasks_root.error_lines() == []
    tasks_root.assert_settled()


@pytest.mark.parametrize("arguments", [[], ["--prompt", "something else"]])
def test_a_prompt_that_nobody_writes_is_not_waited_for(
    tasks_root: TaskRoot, arguments: list[str]
) -> None:
    tasks_root.agent(FINISH)
    tasks_root.folder.mkdir(parents=True)
    os.mkfifo(tasks_root.folder / "TASK.md")

    done = tasks_root.loop(*arguments)

    assert done.returncode in (1, 2)
    assert "TASK.md" in done.stderr
    assert tasks_root.task_runs() == []


def test_attempts_that_are_used_up_end_it_with_one_error_line(tasks_root: TaskRoot) -> None:
    tasks_root.agent("echo no >&2; exit 3")

    done = tasks_root.loop("--max-restarts", "3")

    assert done.returncode == 1
    assert [attempt["exit_code"] for attempt in tasks_root.tries] == [3, 3, 3]
    [line] = tasks_root.error_lines()
    assert line.startswith("ERROR task=t agent=fake exit=3 run=")
    assert "restarts exhausted: 3 attempts" in line
    assert len(tasks_root.bodies("ERROR")) == 1
    assert (tasks_root.loop_record["state"], tasks_root.loop_record["exit_code"]) == ("failed", 1)
    assert tasks_root.facts() == []
    tasks_root.assert_settled()


def test_no_attempt_at_all_may_be_asked_for(tasks_root: TaskRoot) -> None:
    done = tasks_root.loop("--max-restarts", "0")
    assert done.returncode == 1
    assert (tasks_root.tries, tasks_root.task_runs()) == ([], [])


def test_a_success_without_done_is_followed_by_another_attempt(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f"{COUNT} [ $n = 1 ] || {FINISH}")

    done = tasks_root.loop()

    assert done.returncode == 0, done.stdout + done.stderr
    assert [attempt["result"] for attempt in tasks_root.tries] == ["done", "done"]
    assert tasks_root.bodies("WARNING") == []


def test_later_attempts_are_told_to_go_on_and_the_prompt_stays(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f"{COUNT} [ $n = 1 ] || {FINISH}")

    assert tasks_root.loop().returncode == 0

    folders = [tasks_root.folder / "runs" / str(attempt["run"]) for attempt in tasks_root.tries]
    first, second = (own_part((folder / "prompt.md").read_text()) for folder in folders)
    assert first == "Do it.\n"
    assert second.endswith("\n\nDo it.\n")
    assert second.startswith("Earlier attempts")
    assert (tasks_root.folder / "TASK.md").read_text() == "Do it.\n"


def test_the_prompt_of_an_existing_task_is_never_overwritten(tasks_root: TaskRoot) -> None:
    tasks_root.agent("exit 1")
    tasks_root.loop("--max-restarts", "1")
    tasks_root.agent(FINISH)

    done = tasks_root.run("--prompt", "Something else.", *QUICK)

    assert done.returncode == 0
    assert "TASK.md says something else" in done.stdout
    assert (tasks_root.folder / "TASK.md").read_text() == "Do it.\n"
    last = tasks_root.folder / "runs" / str(tasks_root.tries[-1]["run"]) / "prompt.md"
    assert last.read_text().endswith("\n\nSomething else.\n")


def test_a_task_without_an_id_gets_one_that_tools_of_the_original_accept(
    tasks_root: TaskRoot,
) -> None:
    (tasks_root.path / "Write docs.md").write_text("Write them.")
    command = tasks_root.command("--prompt-file", tasks_root.path / "Write docs.md")
    at = command.index("--task")
    del command[at : at + 2]
    tasks_root.agent(FINISH)

    done = run_script(
        "bin/run-task", *command[command.index("--prompt-file") :], env=tasks_root.environment()
    )

    assert done.returncode == 0, done.stderr
    name = done.stdout.split("\n")[0].removeprefix("TASK_ID=")
    assert name.startswith("task-2")
    assert name.endswith("-write-docs")
    assert (tasks_root.runs / "p" / name / "DONE").exists()


def test_done_that_is_a_folder_ends_the_loop_with_a_sentence(tasks_root: TaskRoot) -> None:
    tasks_root.agent('mkdir "$JRUN_TASK_FOLDER/DONE"')
    done = tasks_root.loop()
    assert done.returncode == 1
    assert "is a folder" in tasks_root.error_lines()[0]


def test_an_agent_knows_where_it_is(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f'env | grep ^JRUN_ | sort >"$JRUN_TASK_FOLDER/seen"; pwd; {FINISH}')

    assert tasks_root.loop("--env", "JRUN_EXTRA=1").returncode == 0

    folder, [run] = tasks_root.folder, tasks_root.task_runs()
    assert (folder / "seen").read_text().split("\n")[:-1] == [
        "JRUN_EXTRA=1",
        f"JRUN_ID={run.run_id}",
        f"JRUN_MESSAGE_BUS={folder}/TASK-MESSAGE-BUS.md",
        "JRUN_PARENT_ID=",
        "JRUN_PROJECT_ID=p",
        f"JRUN_RUNS_DIR={folder}/runs",
        f"JRUN_RUN_FOLDER={run.path}",
        f"JRUN_TASK_FOLDER={folder}",
        "JRUN_TASK_ID=t",
    ]
    assert Path(run.file("agent-stdout.txt")).read_text() == f"{folder}\n"


OBEDIENT = """\
import os, subprocess, sys
prompt = sys.stdin.read()
if os.environ["JRUN_PARENT_ID"]:
    print("part done")
    raise SystemExit
for name in ("part-1.md", "part-2.md"):
    with open(name, "w") as file:
        file.write("Do a part.")
lines = [line[4:] for line in prompt.split("\\n") if line.startswith("    ")]
script = "set -e\\n" + "\\n".join(lines)
raise SystemExit(subprocess.run(["sh", "-c", script]).returncode)
"""


@pytest.mark.parametrize("folder", ["plain", "with 'odd' name"])
def test_all_that_an_agent_is_told_to_call_works(tmp_path: Path, folder: str) -> None:
    root = TaskRoot(tmp_path / folder)
    (root.path / "agent.py").write_text(OBEDIENT)
    root.agent(f'''printf '%s\\n' "$prompt" | python3 "{root.path}/agent.py"''')
    try:
        done = root.loop("--max-restarts", "1")

        assert done.returncode == 0, done.stdout + done.stderr
        [attempt] = root.tries
        posted = [m.type for m in root.messages("", root.task.bus) if m.run_id == attempt["run"]]
        kinds = ["PROGRESS", "FACT", "DECISION", "ERROR"]
        assert [kind for kind in posted if not kind.startswith("RUN_")] == kinds
        children = root.children()
        assert [run.text("parent_run_id") for run in children] == [attempt["run"]] * 2
        assert [run.read_text("output.md", 99) for run in children] == ["part done\n"] * 2
        assert {run.text("task_id") for run in children} == {"t"}
        root.assert_settled()
    finally:
        root.close()


def test_the_embedded_agent_finishes_a_task(tasks_root: TaskRoot) -> None:
    done = tasks_root.loop("--agent", "offline", "--max-restarts", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wrote" not in done.stderr
    assert len(tasks_root.facts()) == 1


def test_a_finished_task_is_not_done_again_and_told_of_once(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f"echo x >>count; {FINISH}")
    assert tasks_root.loop().returncode == 0

    for _ in range(2):
        run_script(
            "bin/bus-append", "--bus", tasks_root.task.bus, "--type", "FACT", "late"
        )  # with which the key of the original changes
        assert tasks_root.loop().returncode == 0

    assert (tasks_root.folder / "count").read_text() == "x\n"
    assert len(tasks_root.tries) == 1
    assert len(tasks_root.facts()) == 1


def test_the_project_is_told_once_though_the_state_of_that_is_lost(tasks_root: TaskRoot) -> None:
    tasks_root.agent(FINISH)
    assert tasks_root.loop().returncode == 0
    (tasks_root.folder / "TASK-COMPLETE-FACT-PROPAGATION.yaml").unlink()

    assert tasks_root.loop().returncode == 0

    assert len(tasks_root.facts()) == 1
    assert (tasks_root.folder / "TASK-COMPLETE-FACT-PROPAGATION.yaml").exists()


def test_a_project_bus_that_cannot_be_written_does_not_make_the_task_fail(
    tasks_root: TaskRoot,
) -> None:
    (tasks_root.runs / "p" / "PROJECT-MESSAGE-BUS.md").mkdir(parents=True)
    tasks_root.agent(FINISH)

    assert tasks_root.loop().returncode == 0

    assert "could not be told" in tasks_root.bodies("ERROR")[0]
    assert tasks_root.loop_record["state"] == "done"


# -- what stops it at once


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--agent", "nobody"), 2, "nobody"),
        (("--agent", "missing"), 127, "not on PATH"),
        (("--agent", "shell"), 2, "no sh block"),
        (("--depends-on", "t"), 2, "cannot wait for itself"),
        (("--depends-on", "../x"), 2, "no task id"),
        (("--cwd", "/nowhere"), 1, "not a folder"),
        (("--task", "../t"), 2, "--task"),
        (("--project", "run_x"), 2, "looks like a run"),
        (("--prompt-file", "x"), 2, "exclude each other"),
    ],
)
def test_a_mistake_of_the_caller_stops_it_before_any_attempt(
    tasks_root: TaskRoot, arguments: tuple[str, ...], code: int, said: str
) -> None:
    config = json.loads(tasks_root.config_file.read_text())
    config["agents"]["missing"] = {"type": "command", "command": ["no-such-program"]}
    tasks_root.config_file.write_text(json.dumps(config))

    done = tasks_root.loop(*arguments)

    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert tasks_root.task_runs() == []


def test_a_task_without_any_prompt_is_refused(tasks_root: TaskRoot) -> None:
    done = tasks_root.run()
    assert (done.returncode, tasks_root.folder.exists()) == (2, False)
    assert "no prompt" in done.stderr


def test_an_agent_whose_program_vanishes_stops_it_at_once(tasks_root: TaskRoot) -> None:
    program = tasks_root.path / "prog"
    program.write_text('#!/bin/sh\nrm "$0"\nexit 1\n')
    program.chmod(0o755)
    config = {"agents": {"fake": {"type": "command", "command": [str(program)]}}}
    tasks_root.config_file.write_text(json.dumps(config))

    done = tasks_root.loop()

    assert done.returncode == 127
    assert len(tasks_root.tries) == 1
    assert len(tasks_root.error_lines()) == 1


def test_a_damaged_record_is_said_and_nothing_starts(tasks_root: TaskRoot) -> None:
    tasks_root.agent("exit 1")
    tasks_root.loop("--max-restarts", "1")
    (tasks_root.folder / "TASK-LOOP.yaml").write_text("attempts: 3\n")
    done = tasks_root.loop()
    assert done.returncode == 1
    assert "damaged record of a loop" in done.stderr
    assert len(tasks_root.task_runs()) == 1


def test_a_second_loop_of_one_task_is_told_who_has_it(tasks_root: TaskRoot) -> None:
    gate = tasks_root.gate()
    tasks_root.agent(f"read -r _ <'{gate.path}'; {FINISH}")
    first = tasks_root.begin()
    wait_until(tasks_root.task_runs, what="the first attempt")

    second = tasks_root.loop()

    assert second.returncode == 1
    assert f"already run by pid {first.pid} (" in second.stderr
    gate.open()
    assert first.wait(60) == 0
    assert len(tasks_root.tries) == 1


# -- going on


def test_a_loop_that_was_killed_takes_over_its_agent(tasks_root: TaskRoot) -> None:
    gate = tasks_root.gate()
    tasks_root.agent(f"{COUNT} read -r _ <'{gate.path}'; {FINISH}; exit 4")
    first = tasks_root.begin()
    wait_until((tasks_root.folder / "count").exists, what="the agent")
    kill_loop(first)

    second = tasks_root.begin()
    wait_until(lambda: "taken over" in (tasks_root.path / "printed").read_text(), what="it")
    gate.open()

    assert second.wait(60) == 0
    assert [attempt["exit_code"] for attempt in tasks_root.tries] == [4]
    assert (tasks_root.folder / "count").read_text() == "1\n"
    assert len(tasks_root.facts()) == 1
    tasks_root.assert_settled()


def test_so_it_does_when_the_supervisor_was_killed_too(tasks_root: TaskRoot) -> None:
    gate = tasks_root.gate()
    tasks_root.agent(f"{COUNT} read -r _ <'{gate.path}'; {FINISH}; exit 4")
    first = tasks_root.begin()
    wait_until((tasks_root.folder / "count").exists, what="the agent")
    kill_loop(first)
    [run] = tasks_root.task_runs()
    wait_until(lambda: runs.read(run.path).number("pid"), what="its pid")
    kill(runs.read(run.path).number("supervisor_pid"))

    second = tasks_root.begin()
    wait_until(lambda: "has one again" in (tasks_root.path / "printed").read_text(), what="it")
    gate.open()

    assert second.wait(60) == 0
    assert [attempt["exit_code"] for attempt in tasks_root.tries] == [4]
    tasks_root.assert_settled()


def test_an_agent_that_no_record_tells_of_is_taken_over_all_the_same(
    tasks_root: TaskRoot,
) -> None:
    gate = tasks_root.gate()
    tasks_root.agent(f"{COUNT} read -r _ <'{gate.path}'; {FINISH}")
    kill_loop_after_start(tasks_root)
    (tasks_root.folder / "TASK-LOOP.yaml").unlink()

    second = tasks_root.begin()
    wait_until(lambda: "taken over" in (tasks_root.path / "printed").read_text(), what="it")
    gate.open()

    assert second.wait(60) == 0
    assert (tasks_root.folder / "count").read_text() == "1\n"


def kill_loop_after_start(root: TaskRoot) -> None:
    first = root.begin()
    wait_until((root.folder / "count").exists, what="the agent")
    kill_loop(first)


def test_a_start_that_names_the_task_alone_goes_on_as_before(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f"{COUNT} pwd; [ $n = 1 ] && exit 1; {FINISH}")
    tasks_root.loop("--max-restarts", "1", "--cwd", tasks_root.work, "--model", "m")
    words = ["--project", "p", "--task", "t", "--root", str(tasks_root.path)]
    words += ["--config", str(tasks_root.config_file)]

    done = run_script("bin/run-task", *words, env=tasks_root.environment())

    assert done.returncode == 0, done.stdout + done.stderr
    outputs = [run.read_text("output.md", 999) for run in tasks_root.task_runs()]
    assert outputs == [f"{tasks_root.work}\n"] * 2
    assert [record["model"] for record in tasks_root.try_records()] == ["m", "m"]


def test_a_killed_loop_counts_its_attempts_on_and_an_ended_one_anew(tasks_root: TaskRoot) -> None:
    gate = tasks_root.gate()
    tasks_root.agent(f"{COUNT} [ $n != 2 ] || read -r _ <'{gate.path}'; exit 1")
    first = tasks_root.begin("--max-restarts", "3")
    count = tasks_root.folder / "count"
    wait_until(lambda: count.exists() and count.read_text() == "2\n", what="the second attempt")
    kill_loop(first)
    gate.open()

    assert tasks_root.loop("--max-restarts", "3").returncode == 1
    assert len(tasks_root.tries) == 3
    assert tasks_root.loop("--max-restarts", "2").returncode == 1
    assert len(tasks_root.tries) == 5
    assert len(tasks_root.error_lines()) == 2


def test_a_run_of_another_machine_is_not_run_again_beside_it(tasks_root: TaskRoot) -> None:
    tasks_root.agent("exit 1")
    tasks_root.loop("--max-restarts", "1")
    [run] = tasks_root.task_runs()
    for key, value in {"status": "running", "host": "elsewhere", "exit_code": -1}.items():
        run.record[key] = value
    run.record["end_time"] = "0001-01-01T00:00:00Z"
    runs.write_record(run)
    record = loop_record.LoopRecord(tasks_root.task)
    record.load()
    record.attempts[0]["result"] = "running"
    record.fields["state"] = "running"
    record.save()

    for _ in range(2):
        done = tasks_root.loop()
        assert done.returncode == 1
        assert "recorded on elsewhere" in done.stdout
    assert len(tasks_root.task_runs()) == 1


def test_a_reopened_task_is_not_ended_by_its_old_done(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f"{COUNT} {FINISH}")
    assert tasks_root.loop().returncode == 0

    done = tasks_root.run("--resume", *QUICK)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tasks_root.folder / "count").read_text() == "2\n"
    assert len([name for name in os.listdir(tasks_root.folder) if name.startswith("DONE")]) == 2
    last = tasks_root.tries[-1]
    assert tasks_root.info(str(last["run"]))["previous_run_id"] == tasks_root.tries[0]["run"]
    prompt = (tasks_root.folder / "runs" / str(last["run"]) / "prompt.md").read_text()
    assert own_part(prompt).startswith("Earlier attempts")
    assert len(tasks_root.facts()) == 2, "it was completed twice"


def test_reopening_needs_a_task_that_is_there(tasks_root: TaskRoot) -> None:
    done = tasks_root.run("--resume")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no task t in project p" in done.stderr


CLAUDE = """#!/bin/sh
cat >/dev/null
echo "$*" >>"$JRUN_TASK_FOLDER/calls"
[ "$(wc -l <"$JRUN_TASK_FOLDER/calls")" -lt 3 ] || touch "$JRUN_TASK_FOLDER/DONE"
echo '{"type": "system", "subtype": "init", "session_id": "11111111-2222-4333-8444-555555555555", "model": "m"}'
echo '{"type": "result", "subtype": "success", "is_error": false, "result": "so far"}'
"""


def make_claude(root: TaskRoot, script: str) -> dict[str, str]:
    """The environment in which `claude` is that script."""
    folder = root.path / "bin"
    folder.mkdir()
    (folder / "claude").write_text(script)
    (folder / "claude").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "CONDUCTOR_QUOTA_MARGIN": "0"}


@pytest.mark.parametrize("wanted", [True, False])
def test_an_attempt_can_go_on_with_the_session_of_the_one_before(
    tasks_root: TaskRoot, wanted: bool
) -> None:
    env = make_claude(tasks_root, CLAUDE)
    options = ["--resume-session"] if wanted else []

    done = tasks_root.loop("--agent", "claude", *options, env=env)

    assert done.returncode == 0, done.stdout + done.stderr
    calls = (tasks_root.folder / "calls").read_text().split("\n")[:-1]
    resumed = ["--resume 11111111-2222-4333-8444-555555555555" in call for call in calls]
    assert resumed == [False, wanted, wanted]


# Fails in the second call, which is the first that names a session, as one does that lost it.
FORGETFUL = CLAUDE.replace(
    "[ ",
    """if [ "$(wc -l <"$JRUN_TASK_FOLDER/calls")" -eq 2 ]; then
    echo "No conversation found with session ID: 11111111-2222-4333-8444-555555555555" >&2
    exit 1
fi
[ """,
    1,
)


def test_an_attempt_whose_session_is_lost_is_followed_by_one_with_a_new_session(
    tasks_root: TaskRoot,
) -> None:
    env = make_claude(tasks_root, FORGETFUL)

    done = tasks_root.loop("--agent", "claude", "--resume-session", env=env)

    assert done.returncode == 0, done.stdout + done.stderr
    calls = (tasks_root.folder / "calls").read_text().split("\n")[:-1]
    assert ["--resume" in call.split() for call in calls] == [False, True, False]
    classes = [info.get("error_class") for info in tasks_root.try_records()]
    assert classes == [None, "no-session", None]


# -- what its program says that it lacks

REFUSED = """#!/bin/sh
cat >/dev/null
cd "$JRUN_TASK_FOLDER" || exit 9
echo call >>calls
say() {
    printf '{"type":"system","subtype":"init","session_id":"s","model":"m"}\\n'
    printf '{"type":"result","subtype":"success","is_error":%s,"result":"%s"}\\n' "$@"
}
"""
NO_LOGIN = "say true 'Invalid API key - Please run /login'; exit 1\n"
LIMIT = """\
[ -e until ] || echo $(($(date +%s) + SECONDS)) >until
if [ "$(date +%s)" -lt "$(cat until)" ]; then
    say true "Claude AI usage limit reached|$(cat until)"; exit 1
fi
touch DONE
say false 'Done.'
"""


def calls_of(root: TaskRoot) -> int:
    return (root.folder / "calls").read_text().count("call")


def test_an_agent_that_is_not_logged_in_is_not_asked_again(tasks_root: TaskRoot) -> None:
    env = make_claude(tasks_root, REFUSED + NO_LOGIN)

    done = tasks_root.loop("--agent", "claude", env=env)

    assert done.returncode == 1, done.stdout + done.stderr
    assert calls_of(tasks_root) == 1
    [line] = tasks_root.error_lines()
    assert "not logged in" in line
    assert [info["error_class"] for info in tasks_root.try_records()] == ["login"]


def test_a_loop_waits_until_the_limit_of_its_agent_is_reset_and_does_not_count_that(
    tasks_root: TaskRoot,
) -> None:
    env = make_claude(tasks_root, REFUSED + LIMIT.replace("SECONDS", "2"))

    done = tasks_root.loop("--agent", "claude", "--max-restarts", "1", env=env)

    assert done.returncode == 0, done.stdout + done.stderr
    assert calls_of(tasks_root) == 2
    assert [attempt["result"] for attempt in tasks_root.tries] == ["quota", "done"]
    assert [text for text in tasks_root.bodies("WARNING") if "waits for the quota" in text]
    assert tasks_root.error_lines() == []


def test_one_that_may_not_wait_for_that_says_when_to_come_again(tasks_root: TaskRoot) -> None:
    env = make_claude(tasks_root, REFUSED + LIMIT.replace("SECONDS", "3600"))

    done = tasks_root.loop("--agent", "claude", "--no-wait", env=env)

    assert done.returncode == 75, done.stdout + done.stderr
    assert calls_of(tasks_root) == 1
    assert tasks_root.loop_record["state"] == "stopped"
    assert "start it again then" in str(tasks_root.loop_record["why"])
    assert tasks_root.error_lines() == []


# -- dependencies


def test_a_task_waits_until_what_it_depends_on_is_done(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f'echo "$JRUN_TASK_ID" >>"{tasks_root.path}/order"; {FINISH}')
    waiting = tasks_root.begin("--depends-on", "a,b", "--depends-on", "a")
    wait_until(
        lambda: (
            (tasks_root.folder / "TASK-LOOP.yaml").exists()
            and tasks_root.loop_record["state"] == "blocked"
        ),
        what="the blocked task",
    )
    assert tasks_root.loop_record["why"] == "blocked by a, b"
    assert tasks.dependencies(tasks_root.task) == ["a", "b"]

    for name in "ab":
        assert tasks_root.loop("--task", name).returncode == 0

    assert waiting.wait(60) == 0
    assert (tasks_root.path / "order").read_text().split() == ["a", "b", "t"]
    assert tasks_root.bodies("PROGRESS")[0] == "blocked by a, b"
    assert tasks_root.bodies("FACT")[0] == "dependencies satisfied: a, b"
    tasks_root.assert_settled()


def test_a_task_between_two_attempts_is_not_taken_for_done(tasks_root: TaskRoot) -> None:
    tasks_root.agent("true")
    tasks_root.loop("--task", "a", "--max-restarts", "1")
    assert tasks.blocked_by(tasks.Task(str(tasks_root.folder))) == []

    waiting = tasks_root.begin("--depends-on", "a", "--timeout", "1s")

    assert waiting.wait(60) == 124
    assert tasks_root.task_runs()[0].text("task_id") == "a"
    assert tasks_root.tries == []


def test_tasks_that_would_wait_for_each_other_are_refused(tasks_root: TaskRoot) -> None:
    tasks_root.agent(FINISH)
    tasks_root.loop("--task", "a")
    tasks_root.loop("--task", "b", "--depends-on", "a")

    done = tasks_root.loop("--task", "a", "--depends-on", "b")

    assert done.returncode == 2
    assert "a -> b -> a is a circle" in done.stderr


# -- stopping


def test_a_signal_stops_the_agent_and_the_loop(tasks_root: TaskRoot) -> None:
    tasks_root.agent('echo $$ >>"$JRUN_TASK_FOLDER/pids"; sleep 600 & wait')
    loop = tasks_root.begin()
    pids = tasks_root.pids("pids", 1)
    loop.send_signal(signal.SIGTERM)

    assert loop.wait(60) == 143
    tasks_root.assert_dead(pids)
    assert (tasks_root.loop_record["state"], len(tasks_root.tries)) == ("stopped", 1)
    assert tasks_root.error_lines() == []
    tasks_root.assert_settled()


def test_a_closed_terminal_ends_nothing(tasks_root: TaskRoot) -> None:
    gate = tasks_root.gate()
    tasks_root.agent(f"{COUNT} read -r _ <'{gate.path}'; {FINISH}")
    loop = tasks_root.begin()
    wait_until((tasks_root.folder / "count").exists, what="the agent")
    loop.send_signal(signal.SIGHUP)
    gate.open()
    assert loop.wait(60) == 0


def test_a_run_that_a_person_stopped_ends_the_loop_and_a_new_start_goes_on(
    tasks_root: TaskRoot,
) -> None:
    tasks_root.agent(
        f'{COUNT} [ $n = 2 ] && {FINISH} && exit; touch "$JRUN_TASK_FOLDER/up"; sleep 600'
    )
    loop = tasks_root.begin()
    wait_until((tasks_root.folder / "up").exists, what="the agent")
    [run] = tasks_root.task_runs()

    stopped = tasks_root.stop_task(run.run_id)

    assert stopped.returncode == 0, stopped.stderr
    assert loop.wait(60) == 130
    assert tasks_root.loop_record["state"] == "stopped"
    assert tasks_root.loop().returncode == 0
    assert len(tasks_root.tries) == 2
    tasks_root.assert_settled()


def test_stop_run_stops_a_task_and_its_loop(tasks_root: TaskRoot) -> None:
    tasks_root.agent('echo $$ >>"$JRUN_TASK_FOLDER/pids"; sleep 600 & wait')
    loop = tasks_root.begin()
    pids = tasks_root.pids("pids", 1)

    stopped = tasks_root.stop_task()

    assert (stopped.returncode, stopped.stdout) == (0, "stopped t\n")
    assert loop.wait(60) == 143
    tasks_root.assert_dead(pids)
    assert tasks_root.stop_task().stdout == "t was not running\n"
    tasks_root.assert_settled()


def test_stop_run_stops_what_lives_of_a_task_whose_loop_was_killed(tasks_root: TaskRoot) -> None:
    tasks_root.agent(
        f'{COUNT} echo $$ >>"$JRUN_TASK_FOLDER/pids"; [ $n = 2 ] && {FINISH} || sleep 600'
    )
    loop = tasks_root.begin()
    pids = tasks_root.pids("pids", 1)
    kill_loop(loop)
    assert is_alive(pids[0])

    stopped = tasks_root.stop_task()

    assert (stopped.returncode, stopped.stdout) == (0, "stopped t\n")
    tasks_root.assert_dead(pids)
    assert tasks_root.loop_record["state"] == "stopped"
    assert tasks_root.loop().returncode == 0, "the task can be gone on with"
    tasks_root.assert_settled()


def test_a_loop_that_does_not_answer_is_stopped_all_the_same(tasks_root: TaskRoot) -> None:
    tasks_root.agent('echo $$ >>"$JRUN_TASK_FOLDER/pids"; sleep 600')
    loop = tasks_root.begin()
    pids = tasks_root.pids("pids", 1)
    loop.send_signal(signal.SIGSTOP)
    assert tasks_root.stop_task().returncode == 0
    assert loop.wait(60) == 143
    tasks_root.assert_dead(pids)


def test_only_a_task_that_is_there_can_be_stopped(tasks_root: TaskRoot) -> None:
    tasks_root.runs.mkdir()
    assert tasks_root.stop_task("--project", "p", "--task", "t").returncode == 1
    assert tasks_root.stop_task("--project", "p").returncode == 2
    assert tasks_root.stop_task("--project", "p", "--task", "t", "--all").returncode == 2


def test_the_time_of_the_whole_loop_ends_it(tasks_root: TaskRoot) -> None:
    tasks_root.agent('echo $$ >>"$JRUN_TASK_FOLDER/pids"; sleep 600')
    done = tasks_root.loop("--timeout", "1s")
    assert done.returncode == 124
    tasks_root.assert_dead(tasks_root.pids("pids", 1))
    [line] = tasks_root.error_lines()
    assert "timed out after 1 s in all" in line
    tasks_root.assert_settled()


@pytest.mark.parametrize("option", ["--idle-timeout", "--run-timeout"])
def test_a_limit_of_an_attempt_is_followed_by_another_attempt(
    tasks_root: TaskRoot, option: str
) -> None:
    tasks_root.agent(f"{COUNT} [ $n = 2 ] && {FINISH} && exit; sleep 600")
    done = tasks_root.loop(option, "1s")
    assert done.returncode == 0, done.stdout
    reason = str(tasks_root.tries[0]["why"])
    assert option.replace("run-", "") in reason or "idle" in reason
    assert "in the plan" not in reason


# -- in the background, and inside a run


def test_a_detached_loop_goes_on_and_writes_to_its_log(tasks_root: TaskRoot) -> None:
    gate = tasks_root.gate()
    tasks_root.agent(f"{COUNT} read -r _ <'{gate.path}'; {FINISH}")

    begun = tasks_root.loop("--detach")

    assert begun.returncode == 0, begun.stderr
    told = dict(line.split("=", 1) for line in begun.stdout.split("\n")[:3])
    pid = int(told["PID"])
    wait_until((tasks_root.folder / "count").exists, what="the agent")
    assert tasks_root.loop_record["pid"] == pid
    assert os.getsid(pid) == pid
    gate.open()
    wait_until(lambda: tasks_root.loop_record["state"] == "done", what="the end of the task")
    wait_until(lambda: not is_alive(pid), what="the end of the loop")
    assert "task t is done" in (tasks_root.folder / "loop.log").read_text()
    tasks_root.assert_settled()


def test_a_task_that_is_started_inside_a_run_lies_beside_that_ones_and_is_its_child(
    tasks_root: TaskRoot,
) -> None:
    inner = f"'{ROOT}/bin/run-task' --task inner --agent fake --prompt 'Inner work.'"
    tasks_root.agent(
        f'if [ "$JRUN_TASK_ID" = inner ]; then {FINISH}; exit; fi; {inner} && {FINISH}'
    )

    done = tasks_root.loop("--max-restarts", "1")

    assert done.returncode == 0, done.stdout + done.stderr
    [outer] = tasks_root.tries
    inner_runs = [run for run in tasks_root.task_runs() if run.text("task_id") == "inner"]
    assert [run.text("parent_run_id") for run in inner_runs] == [outer["run"]]
    assert (tasks_root.runs / "p" / "inner" / "DONE").exists()
    assert len(tasks_root.facts()) == 2
    tasks_root.assert_settled()


def start_nested(root: TaskRoot) -> None:
    """The agent of `t` starts a loop for `inner` in the background, and ends."""
    inner = f"'{ROOT}/bin/run-task' --task inner --agent fake --prompt x --detach"
    root.agent(
        f"""\
if [ "$JRUN_TASK_ID" = inner ]; then
    {COUNT}
    echo $$ >>"$JRUN_TASK_FOLDER/pids"
    [ $n = 1 ] || {{ {FINISH}; exit; }}
    read -r _ <'{root.path}/gate'; exit 0
fi
{inner} >/dev/null; [ -e hold ] && sleep 600; {FINISH}"""
    )


def test_a_loop_that_an_agent_left_in_the_background_is_not_swept_up(
    tasks_root: TaskRoot,
) -> None:
    gate = tasks_root.gate()
    start_nested(tasks_root)
    done = tasks_root.loop("--child-wait-timeout", "0s")
    assert done.returncode == 0, done.stdout + done.stderr
    inner = tasks_root.runs / "p" / "inner"
    wait_until((inner / "pids").exists, what="the agent of the inner task")
    gate.open()
    wait_until((inner / "DONE").exists, what="the end of the inner task")
    wait_until(lambda: len(tasks_root.facts()) == 2, what="the second completion")
    tasks_root.assert_settled()


def test_nor_is_one_that_has_hardly_begun(tasks_root: TaskRoot) -> None:
    inner = f"exec '{ROOT}/bin/run-task' --task inner --agent fake --prompt x"
    (tasks_root.path / "slow-run-task.sh").write_text(f"sleep 0.7\n{inner} >/dev/null 2>&1\n")
    start = f"setsid sh '{tasks_root.path}/slow-run-task.sh' &"
    tasks_root.agent(f'[ "$JRUN_TASK_ID" = inner ] || {start}\n{FINISH}')
    assert tasks_root.loop("--child-wait-timeout", "0s").returncode == 0
    wait_until(lambda: len(tasks_root.facts()) == 2, what="the end of the inner task")
    tasks_root.assert_settled()


def test_it_is_stopped_with_the_run_that_it_was_started_in(tasks_root: TaskRoot) -> None:
    tasks_root.gate()
    start_nested(tasks_root)
    tasks_root.folder.mkdir(parents=True)
    (tasks_root.folder / "hold").touch()
    loop = tasks_root.begin()
    inner = tasks_root.runs / "p" / "inner"
    pids = inner / "pids"
    wait_until(lambda: pids.exists() and pids.read_text(), what="the agent of the inner task")

    loop.send_signal(signal.SIGTERM)

    assert loop.wait(60) == 143
    wait_until(lambda: not is_alive(int(pids.read_text())), what="the end of the inner agent")
    record = inner / "TASK-LOOP.yaml"
    wait_until(lambda: 'state: "stopped"' in record.read_text(), what="the end of the inner loop")
    tasks_root.assert_settled()


def test_runs_of_tasks_are_listed_and_found_like_others(tasks_root: TaskRoot) -> None:
    tasks_root.agent(
        f'{COUNT} [ $n = 2 ] && {FINISH}; {RUN_AGENT} shell . "{tasks_root.path}/c.md"'
    )
    (tasks_root.path / "c.md").write_text("```sh\n'" + str(ROOT) + "/bin/list-runs'\n```\n")
    assert tasks_root.loop().returncode == 0

    listed = run_script("bin/list-runs", "--root", tasks_root.path, "--json", "--task", "t")

    rows = [json.loads(line) for line in listed.stdout.split("\n") if line]
    rows = rows[0] if rows and isinstance(rows[0], list) else rows
    assert len(rows) == 4
    assert {(row["project_id"], row["task_id"]) for row in rows} == {("p", "t")}
    seen = [run.read_text("output.md", 9999) for run in tasks_root.children()]
    assert str(tasks_root.tries[0]["run"]) in seen[0], "a run sees the runs of its task"
    shown = run_script("bin/show-run", "--root", tasks_root.path, str(tasks_root.tries[1]["run"]))
    assert shown.returncode == 0, shown.stderr


def test_any_command_that_acts_records_the_end_of_a_run_in_a_task(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f"{COUNT} sleep 600")
    kill_loop_after_start(tasks_root)
    tasks_root.kill_everything()
    [run] = tasks_root.task_runs()
    assert run.text("status") == "running"

    (tasks_root.path / "act.md").write_text("```sh\n:\n```\n")
    acted = run_script(
        "run-agent.py", "shell", tasks_root.path, tasks_root.path / "act.md",
        "--root", tasks_root.path, env=tasks_root.environment(),
    )  # fmt: skip

    assert acted.returncode == 0, acted.stderr
    assert runs.read(run.path).text("status") == "failed"


def test_a_supervisor_that_does_not_stop_its_run_is_killed_and_another_does(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.script("touch ready; trap '' TERM; while :; do sleep 600; done")
    env = {"CONDUCTOR_FAULT": "stop:run-stopping", "CONDUCTOR_STOP_GRACE": "0.1"}
    live = place.start("shell", ".", "prompt.md", env=env)
    wait_until((place.cwd / "ready").exists, what="the agent")
    monkeypatch.setenv("CONDUCTOR_STOP_GRACE", "0.1")
    monkeypatch.setattr(loop_watch, "STOP_PATIENCE_SECONDS", 0.5)
    told: list[str] = []
    spawner = Spawner(str(ROOT))
    watch = loop_watch.Watch(spawner, str(live.run_dir), told.append)
    watch.stop()
    found: list[runs.Run] = []

    def has_ended() -> bool:
        watch.stop()
        found.extend((watch.look() or ())[:1])
        return bool(found)

    wait_until(has_ended, what="the end of the run")
    spawner.close()
    watch.close()
    assert any("was killed" in text for text in told)
    assert any("has one again" in text for text in told)
    assert found[0].number("exit_code") == 137
    assert live.process.wait(60) == -signal.SIGKILL


def test_a_run_that_was_never_begun_does_not_count(tasks_root: TaskRoot) -> None:
    tasks_root.agent(FINISH)
    fault = {
        "CONDUCTOR_FAULT": "kill:run-allocated",
        "CONDUCTOR_FAULT_IN": "supervisor",
        "CONDUCTOR_FAULT_ONCE": str(tasks_root.path / "once"),
    }
    done = tasks_root.loop("--max-restarts", "1", env=fault)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tasks_root.path / "once").exists()
    assert len(tasks_root.tries) == 1


def test_a_supervisor_that_can_never_begin_ends_it_in_the_end(tasks_root: TaskRoot) -> None:
    fault = {"CONDUCTOR_FAULT": "kill:run-allocated", "CONDUCTOR_FAULT_IN": "supervisor"}
    done = tasks_root.loop("--max-restarts", "2", env=fault)
    assert done.returncode == 1
    assert len(tasks_root.tries) == 2
    assert not (tasks_root.folder / "count").exists()


def test_what_agents_post_meanwhile_stays_whole(tasks_root: TaskRoot) -> None:
    tasks_root.agent(f"{BUS_APPEND} --type FACT 'seen'; {FINISH}")
    assert tasks_root.loop().returncode == 0
    [fact] = tasks_root.facts()
    assert fact.meta["task_fact_count"] == "1"
    assert [parent["kind"] for parent in fact.parents] == ["source_run_event", "source_fact"]
