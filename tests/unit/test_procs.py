"""Which processes belong to a run, told from a process table that is made up."""

from __future__ import annotations

import os
import subprocess

import pytest

from lib import procs
from lib.procs import Process

ME = os.getpid()


class Table:
    """Processes as `members` sees them: pid -> (parent, group, session, JRUN_ID or "")."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[int, Process] = {}
        self.ids: dict[int, str] = {}
        monkeypatch.setattr(procs, "table", lambda: dict(self.rows))
        monkeypatch.setattr(
            procs, "run_ids", lambda pids: {p: self.ids[p] for p in pids if p in self.ids}
        )
        self.add(1, 0)
        self.add(ME, 1)

    def add(
        self, pid: int, parent: int, group: int = 0, run: str = "", *, session: int = 0,
        zombie: bool = False,
    ) -> None:  # fmt: skip
        self.rows[pid] = Process(pid, parent, group or pid, session or group or pid, "1", zombie)
        if run:
            self.ids[pid] = run

    def members(self, group: int = 0, spared: tuple[int, ...] = (), own: bool = False) -> list[int]:
        return sorted(p.pid for p in procs.members("run_a", group, spared, own_children=own))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return Table(monkeypatch)


def test_group_session_and_environment_make_a_member(table: Table) -> None:
    table.add(10_001, ME, 10_001)
    table.add(10_002, 10_001, 10_001)
    table.add(10_003, 1, 10_003, session=10_001)
    table.add(10_004, 1, run="run_a")
    table.add(10_005, 1, run="run_b")
    table.add(10_006, 1)
    assert table.members(group=10_001) == [10_001, 10_002, 10_003, 10_004]
    assert table.members() == [10_004]


def test_what_descends_from_a_member_is_one_however_it_detached(table: Table) -> None:
    table.add(10_001, 1, run="run_a")
    table.add(10_002, 10_001)
    table.add(10_003, 10_002)
    assert table.members() == [10_001, 10_002, 10_003]


def test_orphans_that_came_to_the_subreaper_are_members(table: Table) -> None:
    table.add(10_001, ME)
    table.add(10_002, 10_001)
    assert table.members() == []
    assert table.members(own=True) == [10_001, 10_002]


def test_a_child_run_is_no_member_nor_is_what_it_started(table: Table) -> None:
    table.add(10_001, 1, 10_001, "run_a")
    table.add(10_002, 10_001, 10_001, "run_a")  # the child run's supervisor
    table.add(10_003, 10_002, 10_003, "run_b")
    table.add(10_004, 10_003, 10_004)
    assert table.members(10_001, spared=(10_002,)) == [10_001]
    assert table.members(10_001) == [10_001, 10_002]


def test_neither_this_process_nor_its_ancestors_nor_zombies_are_members(table: Table) -> None:
    table.add(10_001, 1, run="run_a")
    table.rows[ME].ppid = 10_001
    table.ids[ME] = "run_a"
    table.add(10_002, 10_001, zombie=True)
    table.add(10_003, 10_001, run="run_a")
    assert table.members() == [10_003]


def test_a_process_table_with_a_loop_ends(table: Table) -> None:
    table.add(10_001, 10_002, run="run_a")
    table.add(10_002, 10_001)
    assert table.members() == [10_001, 10_002]


def test_a_stat_line_is_read_past_any_command_name() -> None:
    fields = b"S 11 12 13 " + b"0 " * 15 + b"77 0 0\n"
    process = procs._parse_stat(10, b"10 (a) R 1 (b) " + fields)
    shown = (process.pid, process.ppid, process.pgid, process.session, process.start)
    assert shown == (10, 11, 12, 13, "77")
    assert process.zombie is False
    assert procs._parse_stat(10, b"10 (x) " + fields.replace(b"S", b"Z", 1)).zombie is True


def test_this_process_is_alive_and_only_with_its_own_start() -> None:
    start = procs.start_time(ME)
    assert procs.is_alive(ME, start) is True
    assert procs.is_alive(ME, start + "0") is False
    assert procs.look_up(0) is None
    assert procs.look_up(-1) is None
    assert procs.start_time(2**22 + 1) == ""


def test_a_place_has_a_host_and_stays_the_same() -> None:
    assert procs.machine() is procs.machine()
    assert procs.machine()["host"] == os.uname().nodename


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3 << 8, 3), (15, 143), (9, 137)])
def test_a_wait_status_is_told_as_a_shell_does(status: int, code: int) -> None:
    assert procs.exit_code(status) == code


def test_ending_the_members_of_a_run_leaves_other_children_to_those_who_wait_for_them() -> None:
    other = subprocess.Popen(["sh", "-c", "exit 7"])
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    member = subprocess.Popen(["sleep", "60"])
    row = procs.look_up(member.pid)
    assert row is not None

    ended = procs.end_all(
        lambda: [row] if procs.is_alive(row.pid, row.start) else [], grace_seconds=1.0
    )

    assert ended == 1
    assert other.wait() == 7
    assert member.wait() < 0
