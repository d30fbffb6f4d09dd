"""The doctor's judgement, without a process: what is ok, what is a note, what is a FAIL."""

from __future__ import annotations

import os
import resource
import types
from pathlib import Path

import pytest

from lib import (
    agents,
    assignment,
    config,
    doctor,
    doctor_agents,
    doctor_base,
    doctor_config,
    doctor_places,
    doctor_plan,
    redact,
    yamlio,
)
from lib.agents import claude, codex, gemini
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
        ours = ("JRUN_", "CONDUCTOR_", "CLAUDE", "ANTHROPIC_", "GEMINI_", "IS_SAND", "GOOGLE_")
        if name.startswith((*ours, "CODEX_", "OPENAI_")) or name.endswith("_API_KEY"):
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
    monkeypatch.setattr(doctor_agents, "_ask_version", lambda program, backend: answer)


def agent_checks(settings: config.Config, name: str) -> list[Check]:
    return list(doctor_agents.agent_checks(settings, name))


def found(settings: config.Config, name: str, what: str) -> tuple[str, str]:
    """State and text of one check of an agent; empty where there is none."""
    checks = agent_checks(settings, name)
    return next(((c.state, c.text) for c in checks if c.name == f"agent {name} {what}"), ("", ""))


def with_agent(name: str, **options: object) -> config.Config:
    settings = config.Config()
    settings.agents[name] = {"type": name, **options}
    return settings


# -- checks


def test_a_check_is_one_harmless_line_without_secrets() -> None:
    check = Check("a\nb", FAIL, "said \x1b[31mred\x07 sk-ant-abcdef0123456789\n", "do\tit\u202e")
    assert check.lines() == "FAIL  a b: said ␛red␇ [REDACTED]\n      cure: do it�\n"
    assert check.as_dict() == {
        "name": "a b",
        "state": "FAIL",
        "text": "said ␛red␇ [REDACTED]",
        "cure": "do it�",
    }


def test_what_is_printed_fits_80_columns_and_cuts_no_path() -> None:
    path = "/a-folder-with-a-name" * 5
    shown = Check("x", NOTE, "many words " * 40 + path, "more words " * 20).lines().split("\n")
    assert all(len(line) <= 80 for line in shown if path not in line)
    assert sum(path in line for line in shown) == 1
    assert shown[0].startswith("note  x: many words")
    assert all(line.startswith("      ") for line in shown[1:-1])


def test_a_check_of_any_size_is_cut() -> None:
    assert len(Check("x", OK, "y" * 1_000_000).text) == doctor_base.MAX_TEXT


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
        ((56, 56), OK, ""),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), OK, ""),
        ((55, 4096), FAIL, "ulimit -n 56"),
        ((40, resource.RLIM_INFINITY), FAIL, "ulimit -n 56"),
        ((32, 40), FAIL, "ulimit -n 40 and --max-parallel 8, or have the hard limit raised"),
    ],
)
def test_sixteen_agents_need_56_open_files(
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
    assert judge("new/runs") == (OK, "T/new/runs (made when it is needed)|")


def test_a_folder_that_cannot_be_written_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    check = doctor_places._folder_check("root", str(tmp_path))
    assert (check.state, check.text) == (FAIL, f"{tmp_path} cannot be written")


def test_a_bus_that_cannot_be_written_is_a_fault_before_it_is_written(tmp_path: Path) -> None:
    bus = tmp_path / "MESSAGE-BUS.md"
    assert doctor_places._bus_checks(str(bus)) == []
    bus.write_text("", encoding="utf-8")
    assert doctor_places._bus_checks(str(bus)) == []
    bus.unlink()
    bus.symlink_to("elsewhere")
    assert [check.state for check in doctor_places._bus_checks(str(bus))] == [FAIL]
    bus.unlink()
    bus.mkdir()
    assert [check.state for check in doctor_places._bus_checks(str(bus))] == [FAIL]


def test_a_short_disk_is_a_fault_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor_places._disk_check(str(tmp_path)).state == OK
    monkeypatch.setenv("CONDUCTOR_MIN_FREE_MB", str(1 << 40))
    check = doctor_places._disk_check(str(tmp_path))
    assert check.state == FAIL
    assert "CONDUCTOR_MIN_FREE_MB" in check.cure
    monkeypatch.setenv("CONDUCTOR_MIN_FREE_MB", "plenty")
    check = doctor_places._disk_check(str(tmp_path))
    assert (check.state, "plenty is no number and not used" in check.text) == (NOTE, True)


# -- agents


@pytest.mark.parametrize(
    ("printed", "state", "text"),
    [
        ("2.1.197 (Claude Code)\n", OK, "2.1.197"),
        ("Node.js v18.1.0 is old\n2.1.250 (Claude Code)\n", OK, "2.1.250"),
        ("2.1.330 (Claude Code)\n", OK, "2.1.330"),
        ("2.1.331 (Claude Code)\n", OK, "2.1.331 (tried up to 2.1.330)"),
        ("10.0-beta.1 (Claude Code)\n", OK, "10.0-beta.1 (tried up to 2.1.330)"),
        ("2.1.99 (Claude Code)\n", NOTE, "2.1.99: older than those tried, from 2.1.197"),
        ("1" * 60_000 + " (Claude Code)\n", OK, "1" * 40 + " (tried up to 2.1.330)"),
    ],
)
def test_a_version_is_held_against_those_that_were_tried(
    printed: str, state: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, Answer(printed, ""))
    check = doctor_agents._version_check("agent claude", "/b/claude", claude)
    assert (check.state, check.text) == (state, f"/b/claude, {text}")


def test_each_program_tells_its_version_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend, printed in ((codex, "codex-cli 0.169.0\n"), (gemini, "0.61.0\n")):
        answers(monkeypatch, Answer(printed, ""))
        check = doctor_agents._version_check("agent", "/b/x", backend)
        assert (check.state, check.text) == (OK, f"/b/x, {backend.TRIED[0]}")
        answers(monkeypatch, Answer("2.1.330 (Claude Code)\n", ""))  # not what it is taken for
        assert doctor_agents._version_check("agent", "/b/x", backend).state == NOTE


@pytest.mark.parametrize(
    ("answer", "state", "text"),
    [
        (Answer("", "Segfault\nmore", "ended with 139", True), FAIL, "ended with 139: Segfault"),
        (Answer("", "", "did not answer within 10 s"), NOTE, "did not answer within 10 s"),
        (Answer("hello\n", ""), NOTE, "does not tell its version: hello"),
        (Answer("1.2.3\n", ""), NOTE, "does not tell its version: 1.2.3"),
    ],
)
def test_a_program_without_a_version_is_told_as_what_it_is(
    answer: Answer, state: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, answer)
    check = doctor_agents._version_check("agent claude", "/b/claude", claude)
    assert (check.state, check.text) == (state, f"/b/claude {text}")
    assert ("node install.cjs" in check.cure) == answer.is_broken


def test_a_missing_program_is_told_with_its_installation() -> None:
    (check,) = agent_checks(config.Config(), "claude")
    assert (check.state, check.text) == (FAIL, "the program 'claude' is not on PATH")
    assert check.cure == "npm install -g @anthropic-ai/claude-code"


def test_a_service_without_its_key_is_a_fault_and_a_program_without_a_login_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "codex")
    answers(monkeypatch, Answer("codex-cli 0.169.0\n", ""))
    assert found(config.Config(), "codex", "login")[0] == NOTE
    backend = types.ModuleType("remote")
    vars(backend).update(vars(codex))
    del backend.__dict__["find_login"], backend.__dict__["TRIED"]
    monkeypatch.setattr(backend, "EXECUTABLE", None)
    monkeypatch.setattr(agents, "load", lambda name: backend)
    assert found(config.Config(), "remote", "login")[0] == FAIL
    monkeypatch.setenv("CODEX_API_KEY", "abcdef123456")
    assert found(config.Config(), "remote", "login") == (OK, "CODEX_API_KEY is set")


def test_claude_as_root_is_a_fault_until_the_machine_is_declared_a_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "claude")
    answers(monkeypatch, Answer("2.1.330\n", ""))
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def state(settings: config.Config) -> str:
        return found(settings, "claude", "as root")[0]

    assert state(config.Config()) == FAIL
    assert state(with_agent("claude", sandbox=True)) == OK
    assert state(with_agent("claude", sandbox="true")) == FAIL
    assert state(with_agent("claude", env={"IS_SANDBOX": "1"})) == OK
    wrong = found(with_agent("claude", env={"IS_SANDBOX": "true"}), "claude", "as root")
    assert wrong == (
        FAIL,
        "claude refuses to run unattended as root; IS_SANDBOX=true does not count, only 1 does",
    )
    monkeypatch.setenv("CLAUDE_CODE_BUBBLEWRAP", "1")
    assert state(config.Config()) == OK
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert state(config.Config()) == ""


def test_gemini_must_trust_the_folder_and_take_a_key_at_another_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "gemini")
    answers(monkeypatch, Answer("0.61.0\n", ""))
    assert found(config.Config(), "gemini", "trust") == ("", "")  # its backend says that it does
    settings = with_agent("gemini", env={"GEMINI_CLI_TRUST_WORKSPACE": "false"})
    assert found(settings, "gemini", "trust")[0] == NOTE
    assert found(config.Config(), "gemini", "address") == ("", "")
    settings = with_agent("gemini", base_url="http://127.0.0.1:1")
    assert found(settings, "gemini", "address")[0] == NOTE
    own = tmp_path / ".gemini/settings.json"
    own.parent.mkdir()
    own.write_text('{"security": {"auth": {"selectedType": "gemini-api-key"}}} // mine')
    assert found(settings, "gemini", "address") == ("", "")


def test_a_login_of_gemini_without_a_key_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "gemini")
    answers(monkeypatch, Answer("0.61.0\n", ""))
    monkeypatch.setenv("GOOGLE_API_KEY", "abcdef123456")  # for another service of theirs
    assert found(config.Config(), "gemini", "login")[0] == NOTE
    folder = tmp_path / "moved/.gemini"
    folder.mkdir(parents=True)
    (folder / "oauth_creds.json").write_text("secret", encoding="utf-8")
    monkeypatch.setenv("GEMINI_CLI_HOME", str(tmp_path / "moved"))
    state, text = found(config.Config(), "gemini", "login")
    assert (state, text.partition(", but: ")[0]) == (NOTE, f"{folder}/oauth_creds.json is there")
    (folder / ".env").write_text("GEMINI_API_KEY=x", encoding="utf-8")
    assert found(config.Config(), "gemini", "login")[0] == OK


def test_codex_is_told_by_what_it_will_log_in_with_and_where_it_will_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "codex")
    answers(monkeypatch, Answer("codex-cli 0.169.0\n", ""))
    monkeypatch.setenv("OPENAI_API_KEY", "abcdef123456")
    assert found(config.Config(), "codex", "login") == (OK, "OPENAI_API_KEY is set")
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex/auth.json").write_text("secret", encoding="utf-8")
    assert found(config.Config(), "codex", "login") == (OK, f"{tmp_path}/.codex/auth.json is there")
    settings = with_agent("codex", env={"CODEX_API_KEY": "abcdef123456"})
    assert found(settings, "codex", "login") == (OK, "CODEX_API_KEY is set")
    assert found(config.Config(), "codex", "address") == ("", "")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
    assert found(config.Config(), "codex", "address")[0] == NOTE
    settings = with_agent("codex", base_url="http://127.0.0.1:1/v1")
    assert found(settings, "codex", "address") == ("", "")


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
    program_check, login = agent_checks(settings, "helper")
    assert (program_check.state, program_check.text) == (
        OK,
        f"{program} (not asked for its version)",
    )
    assert (login.state, login.cure) == (NOTE, "set X_KEY")


def test_faulty_settings_of_an_agent_are_told(tmp_path: Path) -> None:
    install(tmp_path, "helper")
    (check,) = agent_checks(with_agent("helper", type="command"), "helper")
    assert (check.state, check.text) == (FAIL, "command agent without a command")
    settings = with_agent("helper", type="command", command=["helper"], output="xml")
    (check,) = agent_checks(settings, "helper")
    assert (check.state, check.text) == (FAIL, "unknown output of a command agent: xml")


def test_only_where_no_model_works_the_embedded_agent_is_recommended() -> None:
    (check,) = doctor_agents.summary_checks(config.Config(), ["offline", "shell"])
    assert (check.state, "make demo" in check.cure) == (NOTE, True)
    assert list(doctor_agents.summary_checks(config.Config(), ["offline", "claude"])) == []


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
    return doctor_config.read_config("config.yaml")[1]


def test_a_fault_of_the_config_is_told_with_its_line() -> None:
    (check,) = config_checks("agents:\n  claude: {}\nagent: 1\n")
    assert check.state == FAIL
    assert f"{Path.cwd()}/config.yaml:3: unknown key 'agent'" in check.text
    (check,) = config_checks("agents:\n  claude: {\n")
    assert check.state == FAIL
    assert "config.yaml:" in check.text


def test_a_config_that_was_named_and_is_missing_is_a_fault() -> None:
    _, (check,) = doctor_config.read_config("nowhere.yaml")
    assert (check.state, check.cure) == (FAIL, "correct --config")


def test_every_fault_of_a_config_is_told_at_once() -> None:
    checks = config_checks(
        "agent: 1\ndefaults: 7\nagents:\n  claude: {type: clod, token: 12345678}\n  codex: 5\n"
        "  gemini: {token: abcdefgh1, token_file: x}\n"
    )
    assert {check.state for check in checks} == {FAIL}
    lines = [check.text.partition("config.yaml:")[2].partition(":")[0] for check in checks]
    assert lines == ["1", "2", "4", "4", "5", "6"]
    assert not any("abcdefgh1" in check.lines() for check in checks)


@pytest.mark.parametrize(
    "token",
    [
        "*correct-horse",
        "@correct-horse",
        "!!int correct-horse",
        "{correct-horse: 1, correct-horse: 2}",
    ],
)
def test_a_token_is_not_shown_where_yaml_stumbles_over_it(token: str) -> None:
    for text in (
        f"agents:\n  claude:\n    token: {token}\n",
        f"agents: {{x: {{token: {token}}}}}\n",
    ):
        shown = "".join(check.lines() for check in config_checks(text))
        assert "config.yaml:" in shown
        assert "correct-horse" not in shown


def test_what_only_the_original_uses_is_noted_with_its_line() -> None:
    checks = config_checks(
        "agents: {}\napi: {port: 1, sse: {poll_interval_ms: 9}}\nstorage:\n  runs_dir: x\n"
        "  extra_roots: [y]\ndefaults:\n  timeout: 2h\n  max_concurrent_runs: 3\nwebhook: {}\n"
    )
    assert [check.state for check in checks] == [OK, NOTE, NOTE, NOTE, NOTE]
    assert [check.text.replace(str(Path.cwd()), "") for check in checks[1:]] == [
        "/config.yaml:2: api.sse.poll_interval_ms is not used yet",
        "/config.yaml:5: storage.extra_roots is not used yet",
        "/config.yaml:8: defaults.max_concurrent_runs is not used yet",
        "/config.yaml:9: webhook is not used yet",
    ]


def test_a_default_agent_that_cannot_work_is_told_with_its_line() -> None:
    checks = config_checks("defaults:\n  agent: claude\n  timeout: 2h\n")
    faults = [check.text.replace(str(Path.cwd()), "") for check in checks if check.state == FAIL]
    assert faults == [
        "/config.yaml:2: defaults.agent: claude: the program 'claude' is not on PATH",
    ]


def test_a_token_file_without_a_token_fails_the_agent_that_was_asked_for() -> None:
    Path("config.yaml").write_text("agents:\n  xai: {token_file: a.b}\n", encoding="utf-8")
    states = {name: [c.state for c in doctor.examine_config("config.yaml", name)] for name in
              ("xai", "claude", None)}  # fmt: skip
    assert states == {"xai": [OK, FAIL], "claude": [OK, NOTE], None: [OK, NOTE]}
    settings, _ = doctor_config.read_config("config.yaml")
    assert settings is not None
    (check,) = agent_checks(settings, "xai")
    assert (check.state, check.cure) == (FAIL, "write the token into it, or correct the name")
    assert f"{Path.cwd()}/config.yaml:2: token_file of agent xai: {Path.cwd()}/a.b " in check.text


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
    assert "config.yaml:3" in notes[0].text
    shown = "".join(check.lines() for check in config_checks(text))
    assert "correct-horse-1" not in shown
    assert "abcd-9876x" not in shown
    token.chmod(0o640)
    assert f"{token} is open to others (mode 640)" in config_checks(text)[1].text
    token.chmod(0o600)
    assert [check.cure for check in config_checks(text) if check.state == NOTE] == [
        f"chmod 600 {tmp_path}/config.yaml"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "agents: {x: {type: claude, env: {SOME_TOKEN: abcdefgh1}}}\n",
        "api: {api_key: abcdefgh1}\n",
        "webhook: {secret: abcdefgh1}\n",
    ],
)
def test_any_secret_in_the_config_makes_its_mode_matter(text: str) -> None:
    assert "has a secret in it" in config_checks(text)[1].text
    assert len(config_checks("agents: {x: {type: claude, env: {PLACE: abcdefgh2}}}\n")) == 1


# -- plans


def plan_checks(
    tmp_path: Path, text: str, agent: str | None = None, faulty: tuple[str, ...] = ()
) -> list[Check]:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    plan, faults = doctor_plan.read_plan(str(path))
    if plan is None:
        return faults
    settings = config.Config()
    assigned, unknown = assignment.assign(plan, settings, agent)
    root = str(tmp_path)
    broken = {name: Check(name, FAIL, "cannot", f"mend {name}") for name in faulty}
    return [
        *doctor_plan.plan_checks(plan, root=root, runs_dir=root, bus_path=f"{root}/bus"),
        *doctor_plan.assignment_checks(plan, assigned, list(unknown), settings, broken),
    ]


def failures(checks: list[Check]) -> list[tuple[str, str]]:
    return [(check.name, check.text) for check in checks if check.state == FAIL]


def test_every_fault_of_a_plan_is_a_line(tmp_path: Path) -> None:
    text = PLAN.replace("prompt:", "promt:").replace("project:", "projekt:")
    checks = plan_checks(tmp_path, text)
    assert len(checks) > 1
    assert {check.state for check in checks} == {FAIL}
    assert all("plan.yaml:" in check.text for check in checks)
    (check,) = doctor_plan.read_plan(str(tmp_path / "none.yaml"))[1]
    assert "no such plan" in check.text


def test_a_missing_agent_of_a_plan_is_a_fault_that_names_what_to_install(tmp_path: Path) -> None:
    check = next(check for check in plan_checks(tmp_path, PLAN) if check.state == FAIL)
    assert "claude is not installed" in check.text
    assert "npm install -g @anthropic-ai/claude-code" in check.cure
    assert "--agent offline" in check.cure


def test_an_agent_that_nobody_knows_is_a_fault_even_where_another_could_stand_in(
    tmp_path: Path,
) -> None:
    install(tmp_path, "claude")

    def faults(names: str) -> list[str]:
        roles = f"roles: {{builder: {{agents: [{names}]}}}}\nstages:"
        text = PLAN.replace("agent: claude", "role: builder").replace("stages:", roles)
        checks = plan_checks(tmp_path, text)
        return [check.text.partition("asks for ")[2] for check in checks if check.state == FAIL]

    assert faults("claude") == []
    assert faults("claude, nobody") == ["nobody, which is neither a type nor in config.yaml"]


def test_a_plan_with_the_embedded_agent_has_no_fault(tmp_path: Path) -> None:
    checks = plan_checks(tmp_path, PLAN, "offline")
    assert [check.state for check in checks] == [OK] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.yaml"]


def test_an_agent_that_cannot_work_is_a_fault_where_no_other_stands_in(tmp_path: Path) -> None:
    install(tmp_path, "claude")
    install(tmp_path, "codex")
    assert failures(plan_checks(tmp_path, PLAN)) == []
    assert failures(plan_checks(tmp_path, PLAN, faulty=("claude",))) == [
        ("plan agents", "claude cannot work here: 1 task cannot run (build)")
    ]
    either = PLAN.replace("agent: claude", "role: implementation")  # codex, else claude
    assert failures(plan_checks(tmp_path, either, faulty=("claude",))) == []
    assert failures(plan_checks(tmp_path, either, faulty=("codex",))) == []
    assert len(failures(plan_checks(tmp_path, either, faulty=("codex", "claude")))) == 1
    both = PLAN.replace("agent: claude", "role: review")
    assert failures(plan_checks(tmp_path, both)) == []
    assert failures(plan_checks(tmp_path, both, faulty=("codex",))) == [
        ("plan agents", "codex cannot work here: 1 task cannot run (build)")
    ]


def test_a_quorum_is_told_to_install_as_many_as_it_lacks(tmp_path: Path) -> None:
    text = PLAN.replace("agent: claude", "role: review")
    cures = [check.cure for check in plan_checks(tmp_path, text) if check.state == FAIL]
    assert len(cures) == 1
    assert cures[0].count("npm install") == 2
    install(tmp_path, "claude")
    cures = [check.cure for check in plan_checks(tmp_path, text) if check.state == FAIL]
    assert cures == ["npm install -g @google/gemini-cli; or rehearse it with --agent offline"]


def test_checks_that_the_shell_does_not_understand_are_faults_and_are_not_run(
    tmp_path: Path,
) -> None:
    trap = tmp_path / "trap"
    text = PLAN.replace(
        'prompt: "Build it."',
        f"prompt: x, verify: ['touch {trap}; test -f $(touch {trap})', 'if true; then', "
        "'echo \"x']",
    )
    faults = failures(plan_checks(tmp_path, text, "offline"))
    assert [name for name, _ in faults] == ["plan checks"] * 2
    assert all(f"{tmp_path}/plan.yaml:5: task build: verify: " in text for _, text in faults)
    assert not trap.exists()
    fine = PLAN.replace('prompt: "Build it."', "prompt: x, verify: [make, 'test -f a && ls']")
    assert "sh understands every verify command (2)" in [
        check.text for check in plan_checks(tmp_path, fine, "offline")
    ]


def test_what_the_plan_runner_refuses_is_refused_here_too(tmp_path: Path) -> None:
    text = PLAN.replace("prompt:", "max_restarts: 3, prompt:")
    faults = failures(plan_checks(tmp_path, text, "offline"))
    [(_, fault)] = faults
    assert f"{tmp_path}/plan.yaml:5: task build: max_restarts is for a loop only" in fault


def test_a_template_that_vanished_and_a_closed_folder_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = tmp_path / "build.txt"
    prompt.write_text("Build it.", encoding="utf-8")
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.replace('prompt: "Build it."', "prompt_file: build.txt"), encoding="utf-8")
    plan, _ = doctor_plan.read_plan(str(path))
    assert plan is not None
    prompt.unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    checks = doctor_plan.plan_checks(plan, root="/r", runs_dir="/r/runs", bus_path="/r/bus")
    assert [(check.name, check.state) for check in checks] == [
        ("plan", OK),
        ("plan prompts", FAIL),
        ("plan folders", FAIL),
    ]
