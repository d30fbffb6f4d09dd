"""Times, run names, message ids, slugs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lib import ids

SECOND = 1_000_000_000


def test_a_time_is_utc_with_nine_digits_and_is_read_back() -> None:
    assert ids.rfc3339(0) == "1970-01-01T00:00:00.000000000Z"
    for nanoseconds in (0, 1, SECOND - 1, 1_771_880_939_123_456_789, 4_102_444_800 * SECOND):
        assert ids.parse_rfc3339(ids.rfc3339(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    "text",
    ["2026-02-23T20:48:59Z", "2024-02-29T00:00:00.5+02:00", "2000-12-31 23:59:59-11:30",
     "2026-02-23T20:48:59.123456Z", "1999-03-01T12:00:00"],
)  # fmt: skip
def test_other_writers_times_mean_what_python_takes_them_for(text: str) -> None:
    when = datetime.fromisoformat(text)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    micro = round(when.timestamp() * 10**6)
    assert ids.parse_rfc3339(text) == micro * 1000


@pytest.mark.parametrize(
    "text", ["", "0001-01-01T00:00:00Z", "soon", "2026-13-01T00:00:00Z", "2026-02-23", None, 7,
             "2026-02-23T20:48:59+2:00", "2026-02-23T20-48-59Z", "2026-02-23T20:48:59 UTC"],
)  # fmt: skip
def test_what_is_no_time_is_none(text: object) -> None:
    assert ids.parse_rfc3339(text) is None


def test_a_run_name_says_when_who_and_what() -> None:
    assert ids.run_name(0, 42) == "run_19700101-000000-42"
    assert ids.run_name(1_771_879_739.9, 42, "infra-x") == "run_20260223-204859-42-infra-x"


def test_message_ids_sort_by_time_and_never_repeat() -> None:
    times = (0, 1, SECOND - 1, SECOND, SECOND * 10**9)
    made = [ids.message_id(t) for t in times]
    assert made == sorted(made)
    assert len({ids.message_id(5) for _ in range(100)}) == 100
    assert ids.message_id(SECOND + 7).startswith("MSG-19700101-000001-000000007-PID")


@pytest.mark.parametrize(
    ("text", "slug"),
    [("My App", "my-app"), ("--a__b..c--", "a-b-c"), ("ÄÖ", "default"), ("", "default"),
     ("../../etc", "etc"), ("x" * 80, "x" * 64), ("a" * 63 + "-b", "a" * 63), ("9", "9")],
)  # fmt: skip
def test_a_slug_is_safe_short_and_never_empty(text: str, slug: str) -> None:
    assert ids.slug(text) == slug
    assert ids.is_safe(slug)


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "-x", "a/b", "a b", "a\n", "é", "x" * 129])
def test_what_could_leave_its_folder_is_not_safe(name: str) -> None:
    assert ids.is_safe(name) is False


def test_a_session_id_is_a_random_uuid_of_version_4() -> None:
    import uuid

    found = [ids.session_id() for _ in range(200)]
    assert len(set(found)) == 200
    for text in found:
        assert str(uuid.UUID(text)) == text
        assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (4, uuid.RFC_4122)
