"""bin/doctor as a user runs it: on this machine, with programs of agents that are scripts."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib import doctor_agents, doctor_base, doctor_places, procs
from lib.agents import claude
from lib.doctor_base import FAIL, NOTE, OK
from tests.helpers import PYTHON, ROOT, clean_environment, wait_until
from tests.machine import Machine

TOKEN = "sk-ant-0123456789abcdef"
CLAUDE = "echo '2.1.330 (Claude Code)'"
DETACHED = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
CODEX = "echo 'codex-cli 0.169.0'"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_without_any_agent_is_well_and_told_of_the_embedded_one(machine: Machine) -> None:
    before = machine.files()
    done = machine.doctor()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.rstrip("\n").split("\n")
    assert all(line[:6] in ("ok    ", "note  ", "      ") for line in lines[:-1])
    assert lines[-1].endswith(" notes, 0 FAIL")
    told = "note  agent claude: the program 'claude' is not on PATH\n      cure: npm install -g "
    assert told in done.stdout
    assert "make demo" in done.stdout
    assert "ok    locks: two processes kept each other out" in done.stdout
    assert "ok    scripts: they start by themselves, as python3 -S -E" in done.stdout
    known = (str(machine.folder), str(ROOT), sys.executable)  # of any length
    assert [line for line in lines if len(line) > 80 and not any(p in line for p in known)] == []
    assert machine.files() == before


def test_the_json_is_one_object_of_the_same_checks(machine: Machine) -> None:
    machine.install("claude", CLAUDE)
    done = machine.doctor("--json", IS_SANDBOX="1", ANTHROPIC_API_KEY=TOKEN)
    result = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert result["ok"] is True
    assert done.returncode == 0
    assert all(sorted(check) == ["cure", "name", "state", "text"] for check in result["checks"])
    by_name = {check["name"]: check for check in result["checks"]}
    assert by_name["agent claude"] == {
        "name": "agent claude",
        "state": OK,
        "text": f"{machine.bin}/claude, 2.1.330",
        "cure": "",
    }
    assert by_name["agent claude login"]["text"] == "ANTHROPIC_API_KEY is set"
    assert TOKEN not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="claude refuses root only")
def test_claude_as_root_fails_what_needs_it(machine: Machine) -> None:
    machine.install("claude", CLAUDE)
    done = machine.doctor()
    assert (done.returncode, "note  agent claude as root" in done.stdout) == (0, True)
    assert machine.doctor(machine.plan("offline")).returncode == 0
    done = machine.doctor(machine.plan("claude"))
    assert (done.returncode, done.stderr) == (1, "")
    told = "FAIL  plan agents: claude cannot work here: 1 task cannot run (t)\n      cure: run as a"
    assert told in done.stdout
    assert machine.doctor("--agent", "claude").returncode == 1
    (machine.cwd / "config.yaml").write_text("agents: {claude: {sandbox: true}}\n", "utf-8")
    done = machine.doctor("plan.yaml")
    assert (done.returncode, "ok    agent claude as root" in done.stdout) == (0, True)


def test_scripts_that_cannot_start_by_themselves_are_told_with_the_python_that_is_found(
    machine: Machine,
) -> None:
    python = machine.bin / "python3"
    python.unlink()
    done = machine.doctor()
    assert done.returncode == 1
    assert "FAIL  scripts: " in done.stdout
    assert "(now: none)" in done.stdout.replace("\n       ", "")
    machine.install("python3", "echo 'conductor-loop needs Python 3.11 or newer' >&2; exit 1")
    done = machine.doctor()
    assert done.returncode == 1
    assert f"(now: {python})" in done.stdout.replace("\n       ", "")


@pytest.mark.parametrize("limit", [20, 40])
def test_too_few_open_files_fail_and_do_not_break_the_doctor(machine: Machine, limit: int) -> None:
    done = subprocess.run(
        [*PYTHON, str(ROOT / "bin/doctor"), "--root", str(machine.root), "--json"],
        cwd=machine.cwd,
        env=clean_environment(machine.environment()),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    )
    assert (done.returncode, done.stderr) == (1, "")
    failed = [check for check in json.loads(done.stdout)["checks"] if check["state"] == FAIL]
    assert [check["text"] for check in failed] == [f"limit {limit}; 16 agents at once need 56"]


@pytest.mark.parametrize(("name", "script"), [("claude", CLAUDE), ("codex", CODEX)])
def test_who_is_not_logged_in_is_told_how(machine: Machine, name: str, script: str) -> None:
    machine.install(name, script)
    done = machine.doctor("--agent", name, IS_SANDBOX="1")
    assert done.returncode == 0
    assert f"note  agent {name} login: no key and no login of it is seen here\n" in done.stdout
    assert "_API_KEY" in done.stdout


def test_a_program_is_asked_for_its_version_quietly_and_with_no_token(machine: Machine) -> None:
    machine.install(
        "claude",
        f'env >"{machine.home}/env"; echo "$#" "$@" >"{machine.home}/arguments"\n'
        f'pwd >"{machine.home}/pwd"; cat >"{machine.home}/stdin"\n'
        f'touch "${{CLAUDE_CONFIG_DIR:-$HOME}}/settings" "$TMPDIR/cache"; {CLAUDE}',
    )
    done = machine.doctor("--agent", "claude", IS_SANDBOX="1", ANTHROPIC_API_KEY=TOKEN)
    assert done.returncode == 0, done.stdout

    def told(name: str) -> str:
        return (machine.home / name).read_text(encoding="utf-8")

    assert told("arguments") == "1 --version\n"
    assert told("stdin") == ""
    assert told("pwd").strip() != str(machine.cwd)
    environment = told("env").split("\n")
    assert TOKEN not in told("env")
    assert "DISABLE_TELEMETRY=1" in environment
    assert "DISABLE_AUTOUPDATER=1" in environment
    assert list(machine.temporary.iterdir()) == []
    assert not (machine.home / "settings").exists()


def test_a_key_that_is_passed_on_under_another_name_is_not_given_for_a_version(
    machine: Machine,
) -> None:
    machine.install("codex", f'env >"{machine.home}/env"; {CODEX}')
    done = machine.doctor("--agent", "codex", OPENAI_API_KEY=TOKEN)
    assert "ok    agent codex login: OPENAI_API_KEY is set" in done.stdout
    assert TOKEN not in (machine.home / "env").read_text(encoding="utf-8")


def test_what_a_broken_program_says_is_shown_without_secrets_and_escapes(machine: Machine) -> None:
    machine.install(
        "claude", "printf '\\033[2J said hunter2-hunter2 %s\\n' " + TOKEN + " >&2; exit 3"
    )
    config = machine.cwd / "config.yaml"
    config.write_text("agents: {claude: {token: hunter2-hunter2}}\n", encoding="utf-8")
    done = machine.doctor("--config", "config.yaml")
    assert done.returncode == 0  # nobody asked for it
    text = " ".join(done.stdout.split())
    assert f"{machine.bin}/claude ended with 3: ␛ said [REDACTED] [REDACTED] cure: " in text
    assert "hunter2" not in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    "starter",
    ["sh -c 'echo $$; exec sleep 600'", f"{sys.executable} -c '{DETACHED}'"],
    ids=["in its session", "in a session of its own"],
)
def test_what_a_program_leaves_behind_is_ended(
    machine: Machine, tmp_path: Path, starter: str
) -> None:
    file = tmp_path / "pid"
    start_it = f'{starter} >"{file}" 2>&1 & while [ ! -s "{file}" ]; do :; done'
    machine.install("claude", f"{start_it}\n{CLAUDE}")
    done = machine.doctor("--agent", "claude", IS_SANDBOX="1")
    assert "2.1.330" in done.stdout
    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    start = procs.start_time(pid)
    try:
        wait_until(lambda: not procs.is_alive(pid, start), what="the end of what was left behind")
    finally:
        if start and procs.is_alive(pid, start):
            os.kill(pid, signal.SIGKILL)


def test_a_program_that_hangs_is_given_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.install("claude", "trap '' TERM; while :; do sleep 600; done")
    monkeypatch.setattr(doctor_agents, "VERSION_SECONDS", 0.3)
    program = str(machine.bin / "claude")
    check = doctor_agents._version_check("claude", program, claude)
    assert (check.state, check.text) == (NOTE, f"{program} did not answer within 0.3 s")


def test_a_program_that_prints_without_end_fills_no_disk(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.install("claude", "exec yes '\033]0;title\007 garbage'")
    monkeypatch.setattr(doctor_base, "MAX_FILE_BYTES", 1 << 20)
    answer = doctor_base.output_of([str(machine.bin / "claude")], os.environ, 60)
    assert (answer.is_broken, "File size" in answer.fault) == (True, True)
    assert len(answer.stdout) == 64 << 10


def test_a_program_that_cannot_be_started_is_a_fault(tmp_path: Path) -> None:
    answer = doctor_base.output_of([str(tmp_path / "none")], os.environ, 10)
    assert (answer.fault, answer.is_broken) == (
        "cannot be started: No such file or directory",
        True,
    )


# -- the file system


def lock_check(folder: Path) -> doctor_base.Check:
    checks = doctor_places._file_system_checks(str(folder))
    assert list(folder.iterdir()) == []
    return next(check for check in checks if check.name == "locks")


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lock_check(tmp_path).state == OK
    # As on such a file system: the other process believes that it has the lock.
    ignored = "import os; os.write(1, b'locked'); os.read(0, 1)"
    monkeypatch.setattr(doctor_places, "HOLDER", ignored)
    nowhere = doctor_places.FileSystem("nfs4", "/mnt/far")
    monkeypatch.setattr(doctor_places, "file_system", lambda path: nowhere)
    check = lock_check(tmp_path)
    assert check.state == FAIL
    assert check.text == (
        f"{tmp_path} on nfs4 (mounted at /mnt/far) does not honour locks: "
        "two processes held the same one at once"
    )
    assert "--root" in check.cure


def test_a_lock_that_outlives_its_killed_holder_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heir = (
        "import fcntl, os, sys\n"
        "fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX)\n"
        "if os.fork(): os.write(1, b'locked')\n"
        "os.read(0, 1)\n"  # both of them, until the doctor lets go of the pipe
    )
    monkeypatch.setattr(doctor_places, "HOLDER", heir)
    monkeypatch.setattr(doctor_places, "RELEASE_SECONDS", 0.2)
    check = lock_check(tmp_path)
    assert check.state == FAIL
    assert check.text.endswith("it was still held 0.2 s after its holder was killed")


def test_another_process_that_gets_no_lock_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_places, "HOLDER", "raise SystemExit(1)")
    assert lock_check(tmp_path).text.endswith("was not given to another process")


def test_locks_on_a_network_file_system_are_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = doctor_places.FileSystem("nfs4", "/mnt/far")
    monkeypatch.setattr(doctor_places, "file_system", lambda path: far)
    check = lock_check(tmp_path)
    assert (check.state, "tried from this machine alone" in check.text) == (NOTE, True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that takes no files")
def test_a_place_that_takes_no_files_is_a_fault_and_not_a_traceback(machine: Machine) -> None:
    done = machine.doctor("--runs-dir", "/proc/runs")
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAIL  file system: /proc on proc" in done.stdout or "/proc cannot be" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_in_the_root_when_it_is_ended_in_the_midst(
    machine: Machine, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [*PYTHON, str(ROOT / "bin/doctor"), "--root", str(machine.root)],
        cwd=machine.cwd,
        env=clean_environment(machine.environment(CONDUCTOR_FAULT="stop:locked")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        ended = -number if number == signal.SIGKILL else 128 + number
        assert process.wait(60) == ended
    finally:
        process.kill()
        process.wait()
    assert list(machine.root.iterdir()) == []
    assert list(machine.temporary.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write all")
def test_a_folder_that_is_read_only_is_a_fault_and_its_plan_cannot_run(machine: Machine) -> None:
    unprivileged = (
        [shutil.which("setpriv") or "", "--bounding-set", "-dac_override,-dac_read_search"]
        if os.geteuid() == 0
        else []
    )
    runs = machine.root / "runs"
    runs.mkdir()
    runs.chmod(0o555)
    try:
        done = subprocess.run(
            [*unprivileged, *PYTHON, str(ROOT / "bin/doctor"), machine.plan("offline"),
             "--root", str(machine.root)],
            cwd=machine.cwd,
            env=clean_environment(machine.environment()),
            capture_output=True,
            text=True,
            timeout=120,
        )  # fmt: skip
    finally:
        runs.chmod(0o755)
    assert (done.returncode, done.stderr) == (1, "")
    text = " ".join(done.stdout.split())
    assert f"FAIL runs folder: {runs} cannot be written cure: chmod u+rwx {runs}" in text


# -- plans


def test_a_plan_with_faults_fails_with_each_of_them(machine: Machine) -> None:
    plan = machine.cwd / "plan.yaml"
    plan.write_text(
        "project: x\nstages:\n  - id: s\n    tasks:\n"
        "      - {id: a, prompt: Hello, depends_on: [b]}\n      - {id: a, promt: Hello}\n",
        encoding="utf-8",
    )
    done = machine.doctor("plan.yaml")
    assert done.returncode == 1
    faults = [line for line in done.stdout.split("\n") if line.startswith("FAIL  plan: plan.yaml:")]
    assert len(faults) > 2


def test_the_default_plan_can_be_rehearsed_here(machine: Machine) -> None:
    before = machine.files()
    done = machine.doctor(str(ROOT / "prompts/plan.yaml"), "--agent", "offline")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok    plan agents: every task has one: offline" in done.stdout
    assert "ok    plan prompts: 34 can be written" in done.stdout
    assert machine.files() == before


def test_a_plan_whose_agents_are_missing_fails_and_says_what_to_install(machine: Machine) -> None:
    done = machine.doctor(str(ROOT / "prompts/plan.yaml"), "--json")
    assert done.returncode == 1
    checks = json.loads(done.stdout)["checks"]
    (check,) = [check for check in checks if "role testing needs" in check["text"]]
    assert (check["name"], check["state"]) == ("plan agents", FAIL)
    assert check["cure"] == "npm install -g @openai/codex; or rehearse it with --agent offline"


def test_a_plan_whose_checks_are_wrong_fails_with_their_line(machine: Machine) -> None:
    done = machine.doctor(machine.plan("offline", ", verify: ['if true']"))
    assert done.returncode == 1
    text = " ".join(done.stdout.split())
    assert "FAIL plan checks: " in text
    assert "plan.yaml:2: task t: verify: " in text


def test_a_faulty_config_is_told_whole_and_its_agents_are_not_guessed(machine: Machine) -> None:
    (machine.cwd / "config.yaml").write_text(
        "agent: x\nagents:\n  mine: {type: nobody, token: hunter2-hunter2}\n", encoding="utf-8"
    )
    done = machine.doctor(machine.plan("mine"))
    assert done.returncode == 1
    lines = done.stdout.split("\n")
    assert sum(line.startswith("FAIL  config:") for line in lines) == 2
    assert [line for line in lines if "plan agents" in line] == [
        "note  plan agents: not looked at while the config is at fault"
    ]
    assert "hunter2" not in done.stdout


def test_a_default_that_is_missing_fails_without_a_plan_and_stops_none(machine: Machine) -> None:
    (machine.cwd / "config.yaml").write_text("defaults: {agent: claude}\n", encoding="utf-8")
    assert machine.doctor().returncode == 1
    assert machine.doctor(machine.plan("offline")).returncode == 0


def test_an_agent_that_was_asked_for_and_is_not_here_fails(machine: Machine) -> None:
    done = machine.doctor("--agent", "claude")
    assert done.returncode == 1
    assert "agent shell" not in done.stdout
    assert "FAIL  agent nobody: unknown agent: nobody" in machine.doctor("--agent", "nobody").stdout


def test_a_wrong_option_is_a_wrong_usage(machine: Machine) -> None:
    done = machine.doctor("--plan", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("doctor: unknown option --plan")


def test_make_doctor_runs_it(machine: Machine) -> None:
    done = subprocess.run(
        ["make", "-s", "doctor", f"PYTHON={sys.executable}", f"ARGS=--root {machine.root}"],
        cwd=ROOT,
        env=clean_environment({"HOME": str(machine.home)}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"runs folder: {machine.root}/runs (made when" in " ".join(done.stdout.split())
    assert list(machine.root.iterdir()) == []
