"""The doctor's judgement, without a process: what is ok, what is a note, what is a FAIL."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from lib import agents, config, doctor, doctor_agents, doctor_base, doctor_places, redact, yamlio
from lib.doctor_base import FAIL, NOTE, OK, Answer, Check
from lib.doctor_places import FileSystem
from lib.errors import UserError

PLAN = """\
project: demo
stages:
  - id: one
    tasks:
      - {id: build, agent: claude, prompt: "Build it."}
"""


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("JRUN_", "CONDUCTOR_", "CLAUDE", "ANTHROPIC_", "GEMINI_", "IS_SAND")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(redact, "_extra", [])  # a config adds its tokens for ever
    monkeypatch.setattr(redact, "_own", None)


def install(folder: Path, name: str) -> Path:
    """An executable file on PATH; unit tests never start it."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def answers(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    monkeypatch.setattr(doctor_agents, "_ask_version", lambda program: answer)


def agent_checks(settings: config.Config, name: str, asked: bool = False) -> list[Check]:
    return list(doctor_agents.agent_checks(settings, name, is_asked_for=asked))


def with_agent(name: str, **options: object) -> config.Config:
    settings = config.Config()
    settings.agents[name] = {"type": name, **options}
    return settings


# -- checks


def test_a_check_is_one_harmless_line_without_secrets() -> None:
    check = Check("a\nb", FAIL, "said \x1b[31mred\x07 sk-ant-abcdef0123456789\n", "do\tit\u202e")
    line = check.line()
    assert line == "FAIL  a b: said ␛red␇ [REDACTED]; do it�"
    assert check.as_dict() == {
        "name": "a b",
        "state": "FAIL",
        "text": "said ␛red␇ [REDACTED]",
        "cure": "do it�",
    }


def test_the_last_line_counts() -> None:
    checks = [Check("a", OK, ""), Check("b", NOTE, ""), Check("c", FAIL, ""), Check("d", OK, "")]
    assert doctor.summary(checks) == "2 ok, 1 note, 1 FAIL"
    assert doctor.summary([]) == "0 ok, 0 notes, 0 FAIL"


def test_an_error_is_parted_into_what_and_cure() -> None:
    check = doctor_base.from_error("x", FAIL, UserError("it is broken: y; mend it; or not"))
    assert (check.text, check.cure) == ("it is broken: y", "mend it; or not")
    check = doctor_base.from_error("x", FAIL, OSError(28, "No space left on device", "/x"))
    assert check.text == "/x: No space left on device"


# -- the machine


@pytest.mark.parametrize(
    ("limits", "state", "cure"),
    [
        ((192, 192), OK, ""),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), OK, ""),
        ((191, 4096), FAIL, "ulimit -n 192"),
        ((100, resource.RLIM_INFINITY), FAIL, "ulimit -n 192"),
        (
            (100, 128),
            FAIL,
            "ulimit -n 128 and --max-parallel 8, or have the hard limit raised",
        ),
    ],
)
def test_sixteen_agents_need_192_open_files(
    limits: tuple[int, int], state: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    check = doctor._open_files_check(16)
    assert (check.state, check.cure) == (state, cure)


def test_a_missing_ps_is_a_fault_only_where_there_is_no_proc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = []
    for value in ("0", "1"):
        monkeypatch.setenv("CONDUCTOR_PORTABLE", value)
        states += [check.state for check in doctor._program_checks() if check.name == "ps"]
    assert states[1] == FAIL
    assert states[0] == (NOTE if os.path.exists("/proc/self") else FAIL)


def test_the_yaml_self_test_passes() -> None:
    assert doctor._yaml_check().state == OK


def test_a_broken_yaml_reader_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlio, "load", lambda text: {"a": "x: y"})
    assert doctor._yaml_check().state == FAIL


# -- places


MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:40 / /srv/my\\040work rw - nfs4 host:/export rw
41 27 0:41 / /srv rw - tmpfs tmpfs rw
42 40 0:42 / /srv/my\\040work rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", FileSystem("ext4", "/")),
        ("/srvx", FileSystem("ext4", "/")),
        ("/srv/other", FileSystem("tmpfs", "/srv")),
        ("/srv/my work/runs", FileSystem("xfs", "/srv/my work")),
    ],
)
def test_the_deepest_and_latest_mount_holds_a_path(path: str, found: FileSystem) -> None:
    assert doctor_places._mount_of(path, doctor_places._linux_mounts(MOUNTINFO)) == found


def test_mounts_as_the_bsds_print_them_are_understood() -> None:
    text = (
        "/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)\n"
        "devfs on /dev (devfs, local, nobrowse)\n"
        "//me@nas/share on /Volumes/my work (smbfs, nodev)\n"
        "map auto_home on /home (autofs)\n"
    )
    mounts = doctor_places._bsd_mounts(text)
    assert doctor_places._mount_of("/Volumes/my work/x", mounts).type == "smbfs"
    assert doctor_places._mount_of("/home/x", mounts).type == "autofs"
    assert doctor_places._mount_of("/etc", mounts).type == "apfs"


def test_folders_are_judged_by_what_stands_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)

    def judge(name: str) -> tuple[str, str]:
        check = doctor_places._folder_check("runs folder", str(tmp_path / name))
        return check.state, check.text.replace(str(tmp_path), "T") + "|" + check.cure[:5]

    assert judge("file") == (FAIL, "T/file is not a folder|move ")
    assert judge("file/runs") == (FAIL, "T/file is not a folder|move ")
    assert judge("dangling") == (FAIL, "T/dangling is not a folder|move ")
    assert judge("open") == (NOTE, "T/open can be written by everybody (mode 777)|chmod")
    assert judge("new/runs") == (OK, "T/new/runs is made in T when it is needed|")


def test_a_folder_that_cannot_be_written_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    check = doctor_places._folder_check("root", str(tmp_path))
    assert (check.state, check.text) == (FAIL, f"{tmp_path} cannot be written")


def test_a_short_disk_is_a_fault_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor_places._disk_check(str(tmp_path)).state == OK
    monkeypatch.setenv("CONDUCTOR_MIN_FREE_MB", str(1 << 40))
    check = doctor_places._disk_check(str(tmp_path))
    assert check.state == FAIL
    assert "CONDUCTOR_MIN_FREE_MB" in check.cure


# -- agents


@pytest.mark.parametrize(
    ("printed", "state", "judgement"),
    [
        ("2.1.197 (Claude Code)\n", OK, "tried"),
        ("2.1.250 (Claude Code)\n", OK, "tried"),
        ("2.1.330 (Claude Code)\n", OK, "tried"),
        ("2.1.331 (Claude Code)\n", OK, "newer than tried (2.1.330)"),
        ("10.0\n", OK, "newer than tried (2.1.330)"),
        ("2.1.99 (Claude Code)\n", NOTE, "older than tried (2.1.197)"),
    ],
)
def test_a_version_is_held_against_those_that_were_tried(
    printed: str, state: str, judgement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, Answer(printed, ""))
    check = doctor_agents._version_check(
        "agent claude", "/bin/claude", doctor_agents.CLIS["claude"]
    )
    assert (check.state, check.text.rpartition(": ")[2]) == (state, judgement)


@pytest.mark.parametrize(
    ("answer", "state", "text"),
    [
        (Answer("", "Segfault\nmore", "ended with 139", True), FAIL, "ended with 139: Segfault"),
        (Answer("", "", "did not answer within 10 s"), NOTE, "did not answer within 10 s"),
        (Answer("hello\n", ""), NOTE, "does not tell its version: hello"),
    ],
)
def test_a_program_without_a_version_is_told_as_what_it_is(
    answer: Answer, state: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, answer)
    check = doctor_agents._version_check("agent claude", "/b/claude", doctor_agents.CLIS["claude"])
    assert (check.state, check.text) == (state, f"/b/claude {text}")


def test_a_missing_program_is_a_note_unless_it_was_asked_for() -> None:
    for asked, state in ((False, NOTE), (True, FAIL)):
        checks = agent_checks(config.Config(), "claude", asked)
        assert [check.state for check in checks] == [state]
        assert "npm install -g @anthropic-ai/claude-code" in checks[0].cure


def test_claude_as_root_is_a_fault_until_the_machine_is_declared_a_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "claude")
    answers(monkeypatch, Answer("2.1.330\n", ""))
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def state(settings: config.Config) -> list[str]:
        checks = agent_checks(settings, "claude")
        return [check.state for check in checks if check.name == "agent claude as root"]

    assert state(config.Config()) == [FAIL]
    assert state(with_agent("claude", sandbox=True)) == [OK]
    assert state(with_agent("claude", env={"IS_SANDBOX": "1"})) == [OK]
    assert state(with_agent("claude", env={"IS_SANDBOX": "true"})) == [FAIL]  # claude wants a 1
    monkeypatch.setenv("CLAUDE_CODE_BUBBLEWRAP", "1")
    assert state(config.Config()) == [OK]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert state(config.Config()) == []


def test_a_login_is_told_by_a_key_a_token_or_the_mere_existence_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "claude")
    answers(monkeypatch, Answer("2.1.330\n", ""))

    def login(settings: config.Config | None = None) -> Check:
        checks = agent_checks(settings or config.Config(), "claude")
        return next(check for check in checks if check.name == "agent claude login")

    assert login().state == NOTE
    assert "/login" in login().cure
    (tmp_path / ".claude").mkdir()
    credentials = tmp_path / ".claude" / ".credentials.json"
    credentials.write_text("secret", encoding="utf-8")
    credentials.chmod(0)
    assert login().text == f"{credentials} is there"
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "other"))
    assert login().state == NOTE
    assert login(with_agent("claude", token="abcdef123456")).state == OK
    monkeypatch.setenv("ANTHROPIC_API_KEY", "abcdef123456")
    assert (login().state, login().text) == (OK, "ANTHROPIC_API_KEY is set")


def test_a_program_of_the_users_own_is_found_and_never_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = install(tmp_path, "helper")
    monkeypatch.setattr(doctor_agents, "output_of", None)  # whoever calls it fails
    settings = with_agent("helper", type="command", command=["helper"], token_variables=["X_KEY"])
    found, login = agent_checks(settings, "helper")
    assert (found.state, found.text) == (OK, f"{program} (not asked for its version)")
    assert (login.state, login.cure) == (NOTE, "set X_KEY")


def test_faulty_settings_of_an_agent_are_told(tmp_path: Path) -> None:
    install(tmp_path, "helper")
    (check,) = agent_checks(with_agent("helper", type="command"), "helper", True)
    assert (check.state, check.text) == (FAIL, "command agent without a command")
    settings = with_agent("helper", type="command", command=["helper"], output="xml")
    (check,) = agent_checks(settings, "helper", True)
    assert (check.state, check.text) == (FAIL, "unknown output of a command agent: xml")


def test_types_without_a_backend_are_told_in_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "types", lambda: ["claude", "codex", "offline"])
    checks = list(doctor_agents.summary_checks(config.Config(), ["claude", "offline"]))
    assert [check.state for check in checks] == [NOTE, NOTE]
    assert checks[0].text == "gemini, perplexity, xai: not supported in this version"
    assert "--agent offline" in checks[1].cure


def test_each_type_is_looked_at_once_and_by_its_name_in_the_config() -> None:
    settings = with_agent("mine", type="claude")
    names = doctor_agents.agent_names(settings)
    assert names[0] == "mine"
    assert "claude" not in names
    assert "command" not in names
    assert {"offline", "shell"} < set(names)


# -- the configuration


def config_checks(text: str) -> list[Check]:
    Path("config.yaml").write_text(text, encoding="utf-8")
    Path("config.yaml").chmod(0o644)
    return doctor_agents.read_config("config.yaml")[1]


def test_a_fault_of_the_config_is_told_with_its_line() -> None:
    (check,) = config_checks("agents:\n  claude: {}\nagent: 1\n")
    assert check.state == FAIL
    assert f"{Path.cwd()}/config.yaml:3: unknown key 'agent'" in check.text
    (check,) = config_checks("agents:\n  claude: {\n")
    assert check.state == FAIL
    assert "config.yaml:" in check.text


def test_a_config_that_was_named_and_is_missing_is_a_fault() -> None:
    _, (check,) = doctor_agents.read_config("nowhere.yaml")
    assert (check.state, check.cure) == (FAIL, "correct --config")


def test_defaults_that_cannot_work_are_told_with_their_lines() -> None:
    checks = config_checks("defaults:\n  agent: claude\n  timeout: soon\n  idle_timeout: 15m\n")
    faults = [check.text.replace(str(Path.cwd()), "") for check in checks if check.state == FAIL]
    assert faults == [
        "/config.yaml:2: defaults.agent: claude: the program 'claude' is not on PATH",
        "/config.yaml:3: defaults.timeout: 'soon' is no time",
    ]


def test_secrets_that_everybody_can_read_are_noted_and_not_shown(tmp_path: Path) -> None:
    token = tmp_path / "my key"
    token.write_text("correct-horse-1", encoding="utf-8")
    token.chmod(0o644)
    text = f"agents:\n  claude:\n    token_file: '{token}'\n  helper: {{type: claude, token: abcd-9876x}}\n"
    notes = [check for check in config_checks(text) if check.state == NOTE]
    assert [check.cure for check in notes] == [
        f"chmod 600 '{token}'",
        f"chmod 600 {tmp_path}/config.yaml",
    ]
    assert "config.yaml:2" in notes[0].text
    shown = "".join(check.line() for check in config_checks(text))
    assert "correct-horse-1" not in shown
    assert "abcd-9876x" not in shown
    token.chmod(0o600)
    assert [check.cure for check in config_checks(text) if check.state == NOTE] == [
        f"chmod 600 {tmp_path}/config.yaml"
    ]


# -- plans


def plan_checks(tmp_path: Path, text: str, agent: str | None = None) -> list[Check]:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    plan, faults = doctor._read_plan(str(path))
    if plan is None:
        return faults
    settings = config.Config()
    assigned, unknown = doctor._assign(plan, settings, agent)
    root = str(tmp_path)
    return [
        *doctor._assignment_checks(plan, assigned, unknown, settings),
        *doctor._task_checks(plan, root=root, runs_dir=root, bus_path=f"{root}/bus"),
    ]


def test_every_fault_of_a_plan_is_a_line(tmp_path: Path) -> None:
    text = PLAN.replace("prompt:", "promt:").replace("project:", "projekt:")
    checks = plan_checks(tmp_path, text)
    assert len(checks) > 1
    assert {check.state for check in checks} == {FAIL}
    assert all("plan.yaml:" in check.text for check in checks)
    (check,) = doctor._read_plan(str(tmp_path / "none.yaml"))[1]
    assert "no such plan" in check.text


def test_a_missing_agent_of_a_plan_is_a_fault_that_names_what_to_install(tmp_path: Path) -> None:
    check = next(check for check in plan_checks(tmp_path, PLAN) if check.state == FAIL)
    assert "claude is not installed" in check.text
    assert "npm install -g @anthropic-ai/claude-code" in check.cure
    assert "--agent offline" in check.cure


def test_an_agent_that_nobody_knows_is_a_fault_even_where_another_could_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "types", lambda: ["claude", "offline"])
    install(tmp_path, "claude")

    def faults(names: str) -> list[str]:
        roles = f"roles: {{builder: {{agents: [{names}]}}}}\nstages:"
        text = PLAN.replace("agent: claude", "role: builder").replace("stages:", roles)
        checks = plan_checks(tmp_path, text)
        return [check.text.partition("asks for ")[2] for check in checks if check.state == FAIL]

    assert faults("claude") == []
    assert faults("codex, claude") == ["codex, which is not supported in this version"]
    assert faults("claude, nobody") == ["nobody, which is neither a type nor in config.yaml"]


def test_a_plan_with_the_embedded_agent_has_no_fault(tmp_path: Path) -> None:
    checks = plan_checks(tmp_path, PLAN, "offline")
    assert [check.state for check in checks] == [OK] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.yaml"]


def test_a_template_that_vanished_and_a_closed_folder_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = tmp_path / "build.txt"
    prompt.write_text("Build it.", encoding="utf-8")
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.replace('prompt: "Build it."', "prompt_file: build.txt"), encoding="utf-8")
    plan, _ = doctor._read_plan(str(path))
    assert plan is not None
    prompt.unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    checks = doctor._task_checks(plan, root="/r", runs_dir="/r/runs", bus_path="/r/bus")
    assert [(check.name, check.state) for check in checks] == [
        ("plan prompts", FAIL),
        ("plan folders", FAIL),
    ]
