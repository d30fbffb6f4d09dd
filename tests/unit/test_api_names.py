"""Which ids of clients are refused, and what senseless numbers count as."""

from __future__ import annotations

import pytest

from lib.api import names
from lib.api.exchange import Refusal


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "task_id is required"),
        ("  ", "task_id is required"),
        ("a/b", "task_id must not contain path separators"),
        ("a\\b", "task_id must not contain path separators"),
        ("..", "task_id must not contain path separators"),
        ("a..b", "task_id must not contain path separators"),
        ("%2e%2e", "task_id must not contain path separators"),
        ("a%2fb", "task_id must not contain path separators"),
        ("a%5Cb", "task_id must not contain path separators"),
        ("a\0b", "task_id must not contain control characters"),
        ("a%00b", "task_id must not contain control characters"),
        ("a\nb", "task_id must not contain control characters"),
        ("a\udc80", "task_id must not contain control characters"),
        (".", "task_id must not start with a dot"),
        (".git", "task_id must not start with a dot"),
        ("x" * 201, "task_id is longer than 200 characters"),
    ],
)
def test_an_id_that_is_no_name_of_a_folder_is_refused(value: str, message: str) -> None:
    with pytest.raises(Refusal) as refused:
        names.check("task", value)
    assert (refused.value.status, str(refused.value)) == (400, message)


@pytest.mark.parametrize(
    "value", ["task-20260101-000001-x", "Bad_ID", "über", "a b", "100%", "[x]*", "x" * 200, "@"]
)
def test_any_other_name_is_taken_as_it_is(value: str) -> None:
    assert names.check("project", value) == value


@pytest.mark.parametrize(
    ("limit", "offset", "expected"),
    [
        ("", "", (50, 0)),
        ("7", "3", (7, 3)),
        ("0", "-1", (50, 0)),
        ("x", "1.5", (50, 0)),
        ("9999", "+2", (500, 2)),
        ("٣", "１", (50, 0)),
        ("9" * 5000, "1_0", (50, 0)),
    ],
)
def test_a_page_of_senseless_numbers_is_the_first_one(
    limit: str, offset: str, expected: tuple[int, int]
) -> None:
    assert names.page_of({"limit": limit, "offset": offset}) == expected
