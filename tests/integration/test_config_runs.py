"""config.yaml in real runs: what is wrong in it starts nothing, and secrets reach only their agent."""

from __future__ import annotations

from pathlib import Path

from tests.agent_runs import Place
from tests.helpers import clean_environment, run_script
from tests.plan_root import PlanRoot, sh

FAULTY = """\
agents:
  claude:
    tokn_file: /somewhere
  mine: {type: command, comand: [x], token: correct-horse-1}
defaults: {timeout: soon}
"""
FAULTS = (
    (3, "unknown key 'tokn_file' of agent claude (did you mean token_file?); known: "),
    (4, "unknown key 'comand' of agent mine (did you mean command?); known: "),
    (5, "timeout of defaults must be a time, such as 90s, 15m or 2h"),
)
KEPT = "MY_CREDENTIAL"


def test_a_faulty_config_is_told_alike_by_all_and_starts_nothing(root: PlanRoot) -> None:
    path = root.path / "config.yaml"
    path.write_text(FAULTY)
    root.plan(sh("a", "touch done"))
    before = sorted(root.path.rglob("*"))
    options = ("--config", path, "--root", root.path)
    commands = {
        "run-agent.py": ("shell", root.work, "--prompt", "```sh\ntouch done\n```"),
        "run-all-tasks.py": (root.plan_file,),
    }
    for script, arguments in commands.items():
        done = run_script(script, *arguments, *options, cwd=root.work)
        assert (done.returncode, done.stdout) == (2, ""), script
        lines = done.stderr.rstrip("\n").split("\n")
        for line, (number, text) in zip(lines, FAULTS, strict=True):
            assert line.startswith(f"{script}: {path}:{number}: {text}")
        assert "horse" not in done.stderr
    done = run_script("bin/doctor", "--only", "config", *options, cwd=root.work)
    assert done.returncode == 1
    text = " ".join(done.stdout.split())
    for number, said in FAULTS:
        assert f"FAIL config: {path}:{number}: {said.partition('; ')[0]}" in text
    assert "horse" not in done.stdout
    assert sorted(root.path.rglob("*")) == before


def test_a_file_that_is_no_yaml_is_wrong_usage_like_any_other_fault(place: Place) -> None:
    (place.cwd / "config.yaml").write_text("agents:\n\tshell: {}\n")
    done = place.run("shell", ".", place.script("true"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "config.yaml:2: tab used for indentation" in done.stderr


def test_a_missing_token_file_stops_only_the_agent_that_it_is_for(place: Place) -> None:
    config = place.cwd / "config.yaml"
    config.write_text("agents:\n  shell: {}\n  grok: {type: xai, token_file: none.key}\n")
    prompt = place.script("true")
    done = place.run("shell", ".", prompt)
    assert (done.returncode, done.stderr) == (0, "")
    done = place.run("grok", ".", prompt)
    assert (done.returncode, done.stdout) == (2, "")
    told = (
        f"run-agent.py: {config}:3: token_file of agent grok: {place.cwd}/none.key cannot be read"
    )
    assert done.stderr.startswith(told)
    assert len(place.all_runs()) == 1


def test_a_plan_whose_agent_has_no_token_in_its_file_starts_nothing(root: PlanRoot) -> None:
    config = root.path / "config.yaml"
    config.write_text("agents: {grok: {type: xai, token_file: none.key}}\n")
    root.plan(sh("a", "touch done"), {"id": "b", "agent": "grok", "prompt": "Hello"})
    done = root.run()
    assert done.returncode == 2
    assert f"{config}:1: token_file of agent grok: " in done.stderr
    assert not (root.work / "done").exists()
    assert root.run("--agent", "offline").returncode == 0


def test_a_variable_that_one_agent_may_keep_reaches_no_other_and_no_check(
    root: PlanRoot, tmp_path: Path
) -> None:
    program = tmp_path / "mine"
    program.write_text(f"#!/bin/sh\necho \"${KEPT}\" >'{root.work}/mine'\n")
    program.chmod(0o755)
    (root.path / "config.yaml").write_text(
        f"agents: {{mine: {{type: command, command: [{program}], token_variables: [{KEPT}]}}}}\n"
    )
    checks = [f"echo \"check:${KEPT}\" >>'{root.work}/checks'"]
    root.plan(
        sh("a", f"echo \"shell:${KEPT}\" >'{root.work}/shell'", verify=checks),
        {"id": "b", "agent": "mine", "prompt": "Hello", "verify": checks},
    )
    environment = {KEPT: "correct-horse-5"}
    done = root.run(env=environment)
    assert done.returncode == 0, done.stdout
    assert (root.work / "mine").read_text() == "correct-horse-5\n"
    assert (root.work / "shell").read_text() == "shell:\n"
    assert (root.work / "checks").read_text() == "check:\ncheck:\n"
    (root.work / "prompt.md").write_text(f'```sh\necho "single:${KEPT}" >single\n```\n')
    done = run_script(
        *("run-agent.py", "shell", root.work, root.work / "prompt.md", "--root", root.path),
        cwd=root.path,
        env=clean_environment(environment),
    )
    assert done.returncode == 0, done.stderr
    assert (root.work / "single").read_text() == "single:\n"


def test_a_program_that_tells_its_version_gets_no_secret_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "claude"
    program.write_text(
        f'#!/bin/sh\necho "2.1.330 (Claude Code)"; echo "${KEPT}" >\'{tmp_path}/seen\'\n'
    )
    program.chmod(0o755)
    (tmp_path / "config.yaml").write_text(
        f"agents: {{mine: {{type: command, command: [x], token_variables: [{KEPT}]}}}}\n"
    )
    done = run_script(
        *("bin/doctor", "--agent", "claude", "--root", tmp_path),
        cwd=tmp_path,
        env={"PATH": f"{folder}:/usr/bin:/bin", KEPT: "correct-horse-5", "IS_SANDBOX": "1"},
    )
    assert "2.1.330" in done.stdout
    assert (tmp_path / "seen").read_text() == "\n"
