"""bin/doctor as a user runs it: on this machine, with programs of agents that are scripts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib import doctor_agents, doctor_base, doctor_places, procs
from lib.doctor_base import FAIL, NOTE, OK
from tests.helpers import PYTHON, ROOT, clean_environment, run_script, wait_until

TOKEN = "sk-ant-0123456789abcdef"
CLAUDE = "echo '2.1.330 (Claude Code)'"


class Machine:
    """A home, a PATH and a root of their own, all below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.bin, self.root = folder / "home", folder / "bin", folder / "root"
        self.temporary, self.cwd = folder / "tmp", folder / "cwd"
        for path in (self.home, self.bin, self.root, self.temporary, self.cwd):
            path.mkdir()
        for name in ("ps", "git"):
            found = shutil.which(name)
            if found:
                (self.bin / name).symlink_to(found)

    def install(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def environment(self, **variables: str) -> dict[str, str]:
        unwanted = (
            "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "IS_SANDBOX",
            "CLAUDE_CODE_BUBBLEWRAP",
        )  # fmt: skip
        return {
            "HOME": str(self.home),
            "PATH": str(self.bin),
            "TMPDIR": str(self.temporary),
            **dict.fromkeys(unwanted, ""),
            **variables,
        }

    def doctor(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_script(
            "bin/doctor",
            *arguments,
            "--root",
            self.root,
            cwd=self.cwd,
            env=self.environment(**variables),
        )

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_without_any_agent_is_well_and_told_of_the_embedded_one(machine: Machine) -> None:
    before = machine.files()
    done = machine.doctor()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.rstrip("\n").split("\n")
    assert all(line[:6] in ("ok    ", "note  ") for line in lines[:-1])
    assert lines[-1].endswith(" notes, 0 FAIL")
    assert "note  agent claude: the program 'claude' is not on PATH; install it: npm" in done.stdout
    assert "--agent offline" in done.stdout
    assert "locks: a second process was refused until the first was killed" in done.stdout
    assert "ok    rename and fsync" in done.stdout
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
        "text": f"{machine.bin}/claude, 2.1.330: tried",
        "cure": "",
    }
    assert by_name["agent claude login"]["text"] == "ANTHROPIC_API_KEY is set"
    assert TOKEN not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="claude refuses root only")
def test_claude_as_root_fails_the_check_unless_a_plan_does_without_it(machine: Machine) -> None:
    machine.install("claude", CLAUDE)
    assert machine.doctor().returncode == 1
    plan = machine.cwd / "plan.yaml"
    plan.write_text(
        "project: x\nstages: [{id: s, tasks: [{id: t, agent: offline, prompt: Hello}]}]\n",
        encoding="utf-8",
    )
    done = machine.doctor("plan.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "note  agent claude as root" in done.stdout


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


def test_what_a_broken_program_says_is_shown_without_secrets_and_escapes(machine: Machine) -> None:
    machine.install(
        "claude", "printf '\\033[2J said hunter2-hunter2 %s\\n' " + TOKEN + " >&2; exit 3"
    )
    config = machine.cwd / "config.yaml"
    config.write_text("agents: {claude: {token: hunter2-hunter2}}\n", encoding="utf-8")
    done = machine.doctor("--config", "config.yaml")
    assert done.returncode == 1
    shown = f"FAIL  agent claude: {machine.bin}/claude ended with 3: ␛ said [REDACTED] [REDACTED];"
    assert shown in done.stdout
    assert "hunter2" not in done.stdout
    assert "\x1b" not in done.stdout


def test_what_a_program_leaves_behind_is_ended(machine: Machine, tmp_path: Path) -> None:
    machine.install("claude", f'sleep 600 >&- 2>&- & echo $! >"{tmp_path}/pid"\n{CLAUDE}')
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
    machine.install("claude", "exec sleep 600")
    monkeypatch.setattr(doctor_agents, "VERSION_SECONDS", 0.3)
    program = str(machine.bin / "claude")
    check = doctor_agents._version_check("claude", program, doctor_agents.CLIS["claude"])
    assert (check.state, check.text) == (NOTE, f"{program} did not answer within 0.3 s")


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
        "fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX)\n"
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


def test_the_scratch_files_are_removed_when_it_is_ended_in_the_midst(machine: Machine) -> None:
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
        assert [path.name[:8] for path in machine.root.iterdir()] == [".doctor-"]
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert list(machine.root.iterdir()) == []


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
    done = machine.doctor(str(ROOT / "prompts/plan.yaml"))
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.split("\n") if "role testing needs" in line]
    assert line.startswith("FAIL  plan agents: ")
    assert "npm install -g @anthropic-ai/claude-code" in line
    assert line.endswith("--agent offline")


def test_an_agent_that_was_asked_for_and_is_not_here_fails(machine: Machine) -> None:
    done = machine.doctor("--agent", "claude")
    assert done.returncode == 1
    assert "agent shell" not in done.stdout
    assert "FAIL  agent nobody: unknown agent: nobody" in machine.doctor("--agent", "nobody").stdout


def test_make_doctor_runs_it(machine: Machine) -> None:
    done = subprocess.run(
        ["make", "-s", "doctor", f"PYTHON={sys.executable}", f"ARGS=--root {machine.root}"],
        cwd=ROOT,
        env=clean_environment({"HOME": str(machine.home)}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"runs folder: {machine.root}/runs is made in" in done.stdout
    assert list(machine.root.iterdir()) == []
