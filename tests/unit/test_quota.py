"""What closes a provider, until when, who may start meanwhile, and when a plan stops waiting."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from lib import events, ids, quota, retries, runs
from lib.config import Config
from lib.pacing import Agents
from lib.quota import Closing, Quotas
from lib.quota_watch import QuotaWatch
from lib.stage_clocks import StageClocks
from lib.starts import Starts
from lib.unit import Unit
from tests.unit.test_board import plan_of, task
from tests.unit.test_why import changed

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
HOUR = 3600.0


@pytest.fixture(autouse=True)
def own_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONDUCTOR_QUOTA_MARGIN", raising=False)


def closed(reset: float = 0.0, **others: float) -> Quotas:
    """claude has met its limit at NOW, and others where they say."""
    quotas = Quotas()
    for key, moment in {"claude": reset, **others}.items():
        quotas.close(key, "limit reached", reset=moment, ended=NOW, now=NOW)
    return quotas


def closing_of(quotas: Quotas, key: str = "claude") -> Closing:
    closing = quotas.find(key)
    assert closing is not None
    return closing


def meet_again(quotas: Quotas, now: float, reset: float = 0.0) -> bool:
    return quotas.close("claude", "limit reached", reset=reset, ended=now, now=now)


# -- the bookkeeping


def test_a_reset_that_was_told_closes_until_a_minute_after_it_and_opens_for_all() -> None:
    quotas = closed(NOW + HOUR)

    assert closing_of(quotas).until == NOW + HOUR + 60
    assert quotas.due(NOW + HOUR + 59) == []
    assert closing_of(quotas).is_closed(NOW + HOUR + 59)
    assert [closing.key for closing in quotas.due(NOW + HOUR + 60)] == ["claude"]
    assert quotas.find("claude") is None
    assert quotas.due(NOW + HOUR + 60) == []  # told once
    assert quotas.find("codex") is None


@pytest.mark.parametrize(
    ("value", "margin"), [("5", 5.0), ("0", 0.0), ("-1", 60.0), ("x", 60.0), ("nan", 60.0)]
)
def test_the_margin_is_set_by_a_variable(
    monkeypatch: pytest.MonkeyPatch, value: str, margin: float
) -> None:
    monkeypatch.setenv("CONDUCTOR_QUOTA_MARGIN", value)

    assert quota.margin() == margin
    assert closing_of(closed(NOW + HOUR)).until == NOW + HOUR + margin


def test_the_other_runs_that_meet_the_same_limit_are_no_news_and_the_latest_reset_counts() -> None:
    quotas = closed(NOW + HOUR)

    assert not meet_again(quotas, NOW + 1)
    assert not meet_again(quotas, NOW + 1, NOW + 2 * HOUR)
    assert not meet_again(quotas, NOW + 2, NOW + HOUR)

    assert closing_of(quotas).reset == NOW + 2 * HOUR
    silent = closed()
    assert not meet_again(silent, NOW + 1)
    assert closing_of(silent).until == NOW + 60
    assert not meet_again(silent, NOW + 2, NOW + 30)  # told at last
    assert (closing_of(silent).reset, closing_of(silent).until) == (NOW + 30, NOW + 90)


def test_without_a_reset_one_task_tries_after_pauses_that_double_up_to_15_minutes() -> None:
    quotas, now, pauses = closed(), NOW, []
    for number in range(7):
        closing = closing_of(quotas)
        pauses.append((closing.until - now) / 60)
        now = closing.until
        assert quotas.due(now) == []
        assert not closing.is_closed(now)
        quotas.begin("claude", f"t{number}", now)
        assert closing.is_closed(now)  # for all others
        assert meet_again(quotas, now)

    assert pauses == [1, 2, 4, 8, 15, 15, 15]


def test_the_rest_may_start_when_the_one_that_tries_has_succeeded() -> None:
    quotas = closed()
    quotas.begin("claude", "probe", NOW + 60)

    assert not quotas.succeed("claude", "another")  # it began before the limit was met
    assert quotas.find("claude") is not None
    assert quotas.succeed("claude", "probe")

    assert quotas.find("claude") is None
    assert meet_again(quotas, NOW + 100)
    assert closing_of(quotas).until == NOW + 160  # the pauses begin anew


def test_when_the_one_that_tries_fails_otherwise_another_one_may_try() -> None:
    quotas = closed()
    quotas.begin("claude", "probe", NOW + 60)

    quotas.end("claude", "another")
    assert closing_of(quotas).is_closed(NOW + 61)
    quotas.end("claude", "probe")

    assert not closing_of(quotas).is_closed(NOW + 61)


def test_a_run_that_is_taken_over_while_its_provider_is_closed_does_not_try_it() -> None:
    quotas = closed()
    quotas.begin("claude", "old", NOW + 1)

    assert not quotas.succeed("claude", "old")


def test_a_limit_that_is_over_when_it_is_found_closes_nothing() -> None:
    quotas = Quotas()

    over = quotas.close("claude", "", reset=NOW - HOUR, ended=NOW - 2 * HOUR, now=NOW)

    assert not over
    assert not quotas.is_any


def test_a_reset_in_the_past_is_as_good_as_none() -> None:
    quotas = closed(NOW - HOUR)

    assert closing_of(quotas).until == NOW + 60
    assert closing_of(quotas).reset == 0.0


def test_a_provider_that_meets_its_limit_again_goes_on_with_the_wait_it_had() -> None:
    quotas = closed(NOW + 10)
    closing_of(quotas).waited = 70.0
    quotas.due(NOW + 70)

    assert meet_again(quotas, NOW + 71, NOW + 100)
    assert closing_of(quotas).waited == 70.0
    quotas.due(NOW + 160)
    assert not quotas.succeed("claude", "a")  # it was open already
    assert meet_again(quotas, NOW + 171, NOW + 200)
    assert closing_of(quotas).waited == 0.0


def test_the_next_moment_is_that_of_the_provider_that_opens_first() -> None:
    quotas = closed(NOW + HOUR, codex=NOW + 10)

    assert quotas.next_moment(NOW) == NOW + 70
    assert quotas.next_moment(NOW + 71) == NOW + HOUR + 60
    assert Quotas().next_moment(NOW) == math.inf


def test_another_process_finds_what_was_closed() -> None:
    quotas = closed(NOW + HOUR, codex=0.0)

    again = Quotas(quotas.as_dict())

    assert again.as_dict() == quotas.as_dict()
    assert closing_of(again).until == NOW + HOUR + 60
    assert closing_of(again).why == "limit reached"
    assert meet_again(again, NOW + 2 * HOUR)
    late = closing_of(again, "codex")
    again.close("codex", "", reset=0, ended=late.until, now=late.until)
    assert closing_of(again, "codex").until == late.until
    assert (late.until - NOW) / 60 == 1 + 2  # the second pause


@pytest.mark.parametrize(
    "saved",
    [
        None,
        [],
        {"claude": None},
        {"claude": {}},
        {"claude": {"until": 5}},
        {"claude": {"until": "0001-01-01T00:00:00Z", "reset": "x", "backoffs": "many"}},
    ],
)
def test_a_header_that_says_nothing_of_use_closes_nothing(saved: object) -> None:
    assert not Quotas(saved).is_any


def test_a_kept_closing_is_taken_with_care() -> None:
    until = ids.rfc3339(int((NOW + 5) * 1e9))
    quotas = Quotas({"a\x1b[2J\nb": {"until": until, "why": ["x\n"], "backoffs": 10**9}})

    (key,) = quotas.as_dict()
    assert key.isprintable()
    assert meet_again(quotas, NOW)
    quotas.close(key, "", reset=0, ended=NOW + 6, now=NOW + 6)
    assert closing_of(quotas, key).until == NOW + 6 + 15 * 60


def test_a_closing_of_a_clock_that_was_wrong_is_tried_and_not_waited_for() -> None:
    quotas = closed(NOW + 7 * 24 * HOUR)
    assert quotas.due(NOW) == []
    assert closing_of(quotas).is_closed(NOW)

    year_ago = NOW - 365 * 24 * HOUR
    assert quotas.due(year_ago) == []
    assert not closing_of(quotas).is_closed(year_ago)
    quotas.begin("claude", "a", year_ago)  # one, and not all of them
    assert closing_of(quotas).is_closed(year_ago)


def test_a_sentence_says_for_what_a_task_waits() -> None:
    told, silent = closing_of(closed(NOW + HOUR)), closing_of(closed())

    assert told.sentence(NOW) == "waits for claude's quota, which resets at 09:00Z"
    assert silent.sentence(NOW) == "waits for claude's quota, which is tried again at 08:01Z"
    silent.probe = "build-02"
    assert silent.sentence(NOW + 60) == "waits for claude's quota, which build-02 tries first"
    assert quota.clock(NOW + 1, NOW) == "08:01Z"  # never too early
    assert quota.clock(NOW + 24 * HOUR, NOW) == "2027-01-16 08:00Z"


# -- whose quota it is


def agents_of(**entries: dict[str, object]) -> Agents:
    config = Config()
    config.agents = {name: {"type": name, **entry} for name, entry in entries.items()}
    return Agents(config, 0.0)


def test_agents_of_one_type_use_up_one_quota() -> None:
    agents = agents_of(claude={}, sonnet={"type": "claude", "model": "sonnet"})

    assert agents.provider("claude") == agents.provider("sonnet") == "claude"
    assert agents_of().provider("codex") == "codex"


def test_agents_that_log_in_otherwise_have_quotas_of_their_own() -> None:
    agents = agents_of(
        work={"type": "claude", "token": "a"},
        home={"type": "claude", "token": "b"},
        also={"type": "claude", "token": "b", "model": "sonnet"},
        key={"type": "claude", "token": "a", "env": {"ANTHROPIC_API_KEY": "c"}},
        proxy={"type": "claude", "token": "a", "base_url": "http://127.0.0.1:1"},
    )

    keys = [agents.provider(name) for name in ("work", "claude", "home", "also", "key", "proxy")]
    assert keys == ["work", "work", "home", "home", "key", "proxy"]


def test_an_agent_that_only_has_the_name_of_a_type_is_not_taken_for_it() -> None:
    agents = agents_of(claude={"type": "shell"}, real={"type": "claude"})

    assert [agents.provider(name) for name in ("claude", "real")] == ["claude", "real"]


def test_programs_that_only_the_configuration_knows_share_nothing() -> None:
    agents = agents_of(
        one={"type": "command", "command": ["true"]},
        two={"type": "command", "command": ["true"]},
        claude={"type": "shell"},
    )

    names = ("one", "two", "claude", "shell", "nobody")
    assert [agents.provider(name) for name in names] == list(names)


# -- waiting


class Told:
    """What a plan told: events as (kind, text), and those of them that went to the bus."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.posted: list[str] = []

    def tell(self, kind: str, text: str, **_: object) -> None:
        self.events.append((kind, text))

    def declare(self, type_: str, kind: str, text: str, **fields: object) -> None:
        self.tell(kind, text, **fields)
        self.posted.append(f"{type_} {text}")

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]


class Watched:
    """A watch over the quotas of claude and codex, and what it told."""

    def __init__(self, max_wait: float = 6 * HOUR, header: dict[str, object] | None = None) -> None:
        self.header = {} if header is None else header
        self.told = Told()
        self.agents = agents_of()
        self.watch = QuotaWatch(self.header, self.agents, self.told, max_wait)  # type: ignore[arg-type]

    def meet(self, unit: Unit, now: float = NOW, reset: float = 0.0) -> None:
        record: dict[str, object] = {"end_time": ids.rfc3339(int(now * 1e9))}
        if reset:
            record["reset_time"] = ids.rfc3339(int(reset * 1e9))
        self.watch.meet_limit(unit, runs.Run("/r", record), "limit reached", now)

    def wait(self, unit: Unit, now: float) -> str:
        self.watch.look(now)
        closing = self.watch.choose(unit, now)
        if closing is None:
            self.watch.go_on()
            return "open"
        return self.watch.wait([closing], 1, now)


def unit_of(*agents: str, task_id: str = "a") -> Unit:
    return Unit(task(task_id, "s"), task_id, agents or ("claude",))


def test_a_closing_and_an_opening_are_posted_once() -> None:
    watched, unit = Watched(), unit_of()
    watched.meet(unit, reset=NOW + HOUR)
    watched.meet(unit_of(task_id="b"), now=NOW + 1, reset=NOW + HOUR)
    watched.watch.look(NOW + 2)
    assert list(watched.header["closed"]) == ["claude"]  # type: ignore[call-overload]
    watched.watch.look(NOW + HOUR + 60)
    watched.watch.look(NOW + HOUR + 61)

    assert watched.told.posted == [
        "WARNING claude is closed until 09:01Z (in 61 min): limit reached",
        "INFO claude is open again: its quota has reset",
    ]
    assert "closed" not in watched.header


def test_trying_in_vain_is_told_and_not_posted_again() -> None:
    watched, unit = Watched(), unit_of()
    watched.meet(unit)
    watched.watch.begin(unit, NOW + 60)
    watched.meet(unit, now=NOW + 61)
    watched.watch.begin(unit, NOW + 200)
    watched.watch.succeed(unit)

    assert watched.told.kinds() == [events.QUOTA_CLOSED] * 2 + [events.QUOTA_OPENED]
    assert len(watched.told.posted) == 2


def test_a_unit_turns_to_the_first_of_its_agents_that_is_not_closed() -> None:
    watched, unit = Watched(), unit_of("codex", "claude")
    watched.meet(unit, reset=NOW + HOUR)

    assert watched.watch.choose(unit, NOW) is None
    assert (unit.agent, unit.stand_in_for) == ("claude", "codex")
    watched.meet(unit, reset=NOW + 2 * HOUR)
    closing = watched.watch.choose(unit, NOW)
    assert closing is not None
    assert closing.key == "codex"  # which opens first
    watched.watch.look(NOW + HOUR + 60)
    assert watched.watch.choose(unit, NOW + HOUR + 60) is None

    assert (unit.agent, unit.stand_in_for) == ("codex", "")


def test_one_unit_tries_and_another_that_may_takes_the_next_agent() -> None:
    watched = Watched()
    first, second = unit_of(), unit_of(task_id="b")
    third = unit_of("claude", "codex", task_id="c")
    watched.meet(first)
    ready = {unit.name: unit for unit in (first, second, third)}
    starts = Starts(ready, watched.agents, watched.watch, 16)

    assert starts.startable({}, 0.0, NOW + 59) == [third]
    assert third.agent == "codex"
    assert starts.startable({}, 0.0, NOW + 60) == [first, third]
    watched.watch.begin(first, NOW + 60)
    del ready["a"]
    assert starts.startable({}, 0.0, NOW + 61) == [third]
    watched.watch.end(first)
    assert starts.startable({}, 0.0, NOW + 62) == [second, third]


def test_a_wait_is_counted_down_ever_less_often() -> None:
    watched, unit = Watched(), unit_of()
    watched.meet(unit, reset=NOW + HOUR - 60)
    for second in range(int(HOUR)):
        assert watched.wait(unit, NOW + second) == ""
    assert watched.wait(unit, NOW + HOUR) == "open"

    told = [text for kind, text in watched.told.events if kind == events.QUOTA_WAITING]
    assert [text.partition("(in ")[2].partition(")")[0] for text in told] == [
        "60 min",
        "30 min",
        "15 min",
        "7 min",
        "3 min",
        "112 s",
        "56 s",
    ]
    assert told[0].startswith(
        "nothing else can run: 1 task waits for claude, which is closed until 09:00Z "
    )


def test_a_reset_beyond_the_longest_wait_ends_it_at_once_with_the_moment() -> None:
    watched, unit = Watched(max_wait=HOUR), unit_of()
    watched.meet(unit, reset=NOW + 24 * HOUR)

    assert watched.wait(unit, NOW) == (
        "stopped: claude's quota is used up until 2027-01-16 08:01Z, and the plan waits at most "
        "60 min (--max-wait); start the plan again then"
    )


def test_without_any_wait_the_plan_ends_as_soon_as_nothing_else_is_left() -> None:
    watched, unit = Watched(max_wait=0.0), unit_of()
    watched.meet(unit)

    assert watched.wait(unit, NOW + 1) == (
        "stopped: claude's quota is used up, nobody knows until when; "
        "start the plan again after 2027-01-15 08:01Z"
    )


def test_waits_without_success_in_between_add_up_until_they_are_too_long() -> None:
    watched, unit = Watched(max_wait=10 * 60), unit_of()
    watched.meet(unit)
    now, probes = NOW, 0
    while not (answer := watched.wait(unit, now)) or answer == "open":
        if answer == "open":
            probes += 1
            watched.watch.begin(unit, now)
            watched.watch.end(unit)
            watched.meet(unit, now=now)
        now += 1

    assert probes == 3  # after 1, 2 and 4 minutes; 8 more would be too long
    assert "at most 10 min" in answer


def test_time_in_which_there_was_something_else_to_do_is_no_wait() -> None:
    watched, unit = Watched(max_wait=HOUR), unit_of()
    watched.meet(unit, reset=NOW + 3 * HOUR)
    watched.watch.go_on()

    assert watched.wait(unit, NOW + 2.5 * HOUR) == ""


def test_a_machine_that_slept_past_the_reset_finds_it_open() -> None:
    watched, unit = Watched(max_wait=HOUR), unit_of()
    watched.meet(unit, reset=NOW + HOUR / 2)
    assert watched.wait(unit, NOW) == ""

    assert watched.wait(unit, NOW + 24 * HOUR) == "open"


def test_a_clock_that_is_set_back_does_not_shorten_the_patience() -> None:
    watched, unit = Watched(max_wait=HOUR), unit_of()
    watched.meet(unit, reset=NOW + HOUR / 2)

    assert watched.wait(unit, NOW) == ""
    assert watched.wait(unit, NOW - 60) == ""
    assert watched.wait(unit, NOW + 60) == ""


def test_a_start_finds_in_the_header_what_an_earlier_one_left() -> None:
    first, unit = Watched(), unit_of()
    first.meet(unit, reset=NOW + HOUR)
    first.watch.look(NOW)

    second = Watched(header=first.header)

    assert second.watch.was_any
    assert second.watch.choose(unit, NOW) is not None
    assert second.told.events == []


# -- failures, and the time of stages


def test_an_overloaded_service_is_given_more_time_and_what_cannot_help_is_not_tried() -> None:
    assert [retries.pause_seconds("", n) for n in (1, 2, 3, 9)] == [1, 2, 4, 60]
    assert [retries.pause_seconds("overload", n) for n in (1, 2, 3, 9)] == [30, 60, 120, 900]
    assert retries.pause_seconds("overload", 10**6) == 900
    futile = [name for name in ("login", "not-installed", "bad-request", "crash", "overload", "")
              if retries.is_futile(name)]  # fmt: skip
    assert futile == ["login", "not-installed", "bad-request"]


def test_the_clock_of_a_stage_begins_with_its_first_task_and_can_stand_still() -> None:
    plan = plan_of((True, {"a": []}), (True, {"b": []}))
    stages = [SimpleNamespace(id="s", timeout=10.0), SimpleNamespace(id="t", timeout=0.0)]
    clocks = StageClocks(SimpleNamespace(stages=stages))  # type: ignore[arg-type]
    assert StageClocks(plan).next_end() == math.inf
    for moment in (100.0, 105.0):
        clocks.start("s", moment)
        clocks.start("t", moment)

    clocks.hold({"s", "t"}, 106.0)
    clocks.hold({"s", "t"}, 108.0)
    assert clocks.next_end() == math.inf
    assert clocks.take_ended(500.0) == []
    clocks.hold(set(), 111.0)

    assert clocks.next_end() == 115.0
    assert clocks.take_ended(115.0) == []
    assert clocks.take_ended(115.1) == ["s"]
    assert clocks.take_ended(200.0) == []
    assert clocks.next_end() == math.inf


# -- the agents of a unit


def test_an_agent_that_waits_keeps_its_tries_and_one_that_gave_up_is_gone() -> None:
    plan = changed(plan_of((True, {"a": []})), a={"retries": 1})
    unit = Unit(plan.tasks["a"], "a", ("codex", "claude", "gemini"))
    unit.note_failure()
    unit.turn_to("claude")  # codex is closed

    assert (unit.failures, unit.next_agent) == (0, "codex")
    unit.note_failure()
    unit.give_up_agent()
    assert (unit.agent, unit.failures) == ("codex", 1)
    unit.give_up_agent()
    assert (unit.agent, unit.candidates, unit.next_agent) == ("gemini", ("gemini",), "")
    unit.note_failure()
    assert unit.is_last_try


def test_a_later_start_knows_whether_the_agent_it_finds_only_stood_in() -> None:
    for_good, for_now = unit_of("codex", "claude"), unit_of("codex", "claude")

    for_good.continue_with("claude")
    for_now.continue_with("claude", stands_in=True)

    assert (for_good.candidates, for_good.next_agent) == (("claude",), "")
    assert (for_now.candidates, for_now.next_agent) == (("codex", "claude"), "codex")
