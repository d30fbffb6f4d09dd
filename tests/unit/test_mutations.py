"""The list of mutations, the code and the page about them stay in step."""

from __future__ import annotations

import ast

import pytest

from tests.helpers import ROOT
from tests.torture.mutation_list import MUTATIONS, Mutation
from tests.torture.mutations import table

NAMES = [mutation.name for mutation in MUTATIONS]


def test_every_mutation_has_a_name_of_its_own_and_a_test() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert [m.name for m in MUTATIONS if not m.tests or not m.why or m.old == m.new] == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=NAMES)
def test_the_step_stands_once_in_its_file_and_what_is_left_is_python(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1, f"correct {mutation.name} in mutation_list.py"
    ast.parse(text.replace(mutation.old, mutation.new))


def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_tests_that_are_named_exist() -> None:
    known: dict[str, set[str]] = {}
    for test in {test for mutation in MUTATIONS for test in mutation.tests}:
        path, _, name = test.partition("::")
        found = known.setdefault(path, functions(path))
        assert not name or name.partition("[")[0] in found, test


def test_the_page_has_the_table_of_the_list() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert table(MUTATIONS) in page, (
        "put the output of `python3 tests/torture/mutations.py --table` into the page"
    )
