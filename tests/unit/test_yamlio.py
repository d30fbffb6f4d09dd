"""What is written can be read by everybody; what is read means what PyYAML says it means."""

from __future__ import annotations

import enum
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib import yamlforeign, yamlio
from lib.errors import UserError
from lib.yamlflow import Beyond
from lib.yamlio import YamlError
from lib.yamlread import Reader
from lib.yamlscalar import join_surrogates, resolve

DATA = Path(__file__).resolve().parent.parent / "data" / "yaml"
SAMPLES = sorted(DATA.glob("*.yaml"))


class Reference(yaml.SafeLoader):
    """PyYAML as it is, but for times and base-60 numbers, which stay strings."""


Reference.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile(r"(?![^:]*:)" + pattern.pattern, pattern.flags))
        for tag, pattern in resolvers
        if not tag.endswith(":timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def reference(text: str) -> object:
    return yaml.load(text, Reference)  # noqa: S506 - a safe loader


def small(text: str, lines: dict[tuple[str | int, ...], int] | None = None) -> object:
    """Read with the small reader alone; Beyond where it hands over."""
    yamlio.refuse_characters(text, "s")
    return Reader(text, "s", lines).document()


def foreign(text: str, lines: dict[tuple[str | int, ...], int] | None = None) -> object:
    return yamlio.load_foreign(text, "s", lines=lines)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - repeatable on purpose


def error_of(text: str, read: Callable[[str], object] = yamlio.load) -> tuple[int, str]:
    with pytest.raises(YamlError) as caught:
        read(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value) == f"{caught.value.source}:{caught.value.line}: {caught.value.problem}"
    return caught.value.line, caught.value.problem


# -- writing


NASTY = [
    "", " ", "a", "yes", "No", "null", "~", "12", "0x1F", "1e3", "1.5", ".inf", "-", "- a", "? b",
    "a: b", "a #b", "# c", "'", '"', "\\", "\\n", "{}", "[a]", "&a", "*a", "!t", "|", ">", "%",
    "@", "`", "---", "...", "<<", "=", "2026-02-23", "12:30", "2026-02-23T20:48:59.123456789Z",
    " lead", "trail ", "a\nb", "a\n", "\n", "\r\n", "\t", "a\tb", "\0", "\x07", "\x1b", "\x7f",
    "\x80", "\x85", "\x9f", "\xa0", "\u00e9", "\u2028", "\u2029", "\ufeff", "\ufffd", "\ufffe", "\uffff",
    "\u200b", "\u4e2d\u6587", "\U0001f600", "\U0001fffe", "\U0010ffff", "\ue000", "e\u0301",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_quoted_text_is_json_and_yaml_for_every_character(text: str) -> None:
    quoted = yamlio.quote(text)
    assert json.loads(quoted) == text
    assert reference(f"k: {quoted}\n") == {"k": text}
    assert small(f"k: {quoted}\n") == {"k": text}


def test_quoting_every_character_of_the_first_plane_leaves_only_what_yaml_allows() -> None:
    text = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x10000))))
    quoted = yamlio.quote(text)
    assert "\n" not in quoted
    assert not yaml.reader.Reader.NON_PRINTABLE.search(quoted)
    assert not set("\x85\u2028\u2029\ufeff") & set(quoted)
    assert reference(quoted) == text == small(quoted)


def test_only_what_must_be_is_escaped() -> None:
    assert yamlio.quote("Grüße, 中文 😀") == '"Grüße, 中文 😀"'
    assert yamlio.quote("a\x85\u2028\ufeff\x7f\0") == '"a\\u0085\\u2028\\uFEFF\\u007F\\u0000"'


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a\ud800b", "a�b"),
        ("\udcff", "�"),
        ("\ude00\ud83d", "��"),
        ("x\ud83d", "x�"),
        ("\ud83d\ude00", "😀"),
        ("\udcff\n", "�\n"),
    ],
)
def test_lone_surrogates_are_replaced_and_pairs_joined(text: str, read: str) -> None:
    assert reference(yamlio.quote(text)) == read
    assert join_surrogates(text) == read


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (-3, "-3"),
        (0.25, "0.25"),
        (1e-07, "1.0e-07"),
        (1.5e300, "1.5e+300"),
        (1e16, "1.0e+16"),
        (float("-inf"), "-.inf"),
        ("x", '"x"'),
        ([1, "a", [None]], '[1, "a", [null]]'),
        ((1, 2), "[1, 2]"),
        ({"k": {"yes": 1}, "l": {}}, '{"k": {"yes": 1}, "l": {}}'),
        ([], "[]"),
    ],
)
def test_a_scalar_is_json_that_yaml_1_1_reads_alike(value: object, text: str) -> None:
    assert yamlio.scalar(value) == text
    read = reference(text)
    assert read == (list(value) if isinstance(value, tuple) else value)
    assert type(read) is (list if isinstance(value, tuple) else type(value))


def test_members_of_enums_are_written_by_value() -> None:
    class Colour(str, enum.Enum):  # noqa: UP042 - StrEnum would hide the trap
        RED = "red"

    class Code(enum.IntEnum):
        ONE = 1

    assert yamlio.dump({"a": Colour.RED, "b": Code.ONE, "c": [Colour.RED]}) == (
        'a: "red"\nb: 1\nc: ["red"]\n'
    )


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        yamlio.dump({"a": b"x"})
    with pytest.raises(TypeError, match="key"):
        yamlio.dump({(1, 2): "x"})
    with pytest.raises(UserError, match="1024"):
        yamlio.dump({"k" * 1025: 1})


@pytest.mark.parametrize("key", ["a", "run_id", "a-b", "a.b", "_x", "Yeast", "A1"])
def test_safe_keys_are_plain(key: str) -> None:
    assert yamlio.dump({key: 1}) == f"{key}: 1\n"


@pytest.mark.parametrize(
    "key",
    ["", "y", "N", "On", "NULL", "true", "1a", "1", "-a", ".inf", "a b", "a:", "é", "~", "<<"],
)
def test_other_keys_are_quoted(key: str) -> None:
    text = yamlio.dump({key: 1})
    assert text == f"{yamlio.quote(key)}: 1\n"
    assert reference(text) == {key: 1} == yamlio.load(text)


def test_depth_says_how_many_levels_are_lines() -> None:
    value = {
        "a": {"b": {"c": [1]}, "m": {}},
        "l": [{"id": "x", "deps": ["y"]}, [1, 2], {}, 3],
        "e": [],
    }
    assert yamlio.dump(value) == (
        'a: {"b": {"c": [1]}, "m": {}}\nl: [{"id": "x", "deps": ["y"]}, [1, 2], {}, 3]\ne: []\n'
    )
    assert yamlio.dump(value, depth=2) == (
        'a:\n  b: {"c": [1]}\n  m: {}\n'
        'l:\n  - {"id": "x", "deps": ["y"]}\n  - [1, 2]\n  - {}\n  - 3\ne: []\n'
    )
    assert yamlio.dump(value, depth=4) == (
        "a:\n  b:\n    c:\n      - 1\n  m: {}\n"
        'l:\n  - id: "x"\n    deps:\n      - "y"\n  - [1, 2]\n  - {}\n  - 3\ne: []\n'
    )
    assert yamlio.dump({}) == "{}\n"


def test_a_value_as_deep_as_may_be_written_can_be_read_and_a_deeper_one_is_refused() -> None:
    value: object = []
    for _ in range(98):
        value = [value]
    text = yamlio.dump({"k": value})
    assert yamlio.load_flat(text) == {"k": value} == small(text)
    with pytest.raises(UserError, match="100 deep"):
        yamlio.dump({"k": [value]})


def random_text(r: random.Random) -> str:
    if r.random() < 0.5:
        return r.choice(NASTY)
    alphabet = "ab:#-,[]{}'\"\\ \n\t&*!|>%@`?é\u2028\x85\x00\ufeff😀0.x_~="
    return "".join(r.choice(alphabet) for _ in range(r.randint(0, 12)))


def random_value(r: random.Random, depth: int) -> object:
    kind = r.random()
    if depth and kind < 0.2:
        return [random_value(r, depth - 1) for _ in range(r.randint(0, 4))]
    if depth and kind < 0.4:
        return random_map(r, depth - 1)
    if kind < 0.6:
        return r.choice(
            [None, True, False, 0, -1, 10**20, 1.0, -2.5e-300, 1e22, 5e-324, 0.1, float("inf")]
        )
    return r.randint(-(10**9), 10**9) if kind < 0.7 else random_text(r)


def random_map(r: random.Random, depth: int) -> dict[str, object]:
    names = ["id", "run_id", "a-b", "no", "x.y"]
    return {
        r.choice(names) if r.random() < 0.6 else random_text(r): random_value(r, depth)
        for _ in range(r.randint(0, 5))
    }


def test_what_is_dumped_is_read_back_by_pyyaml_and_by_every_reader_here() -> None:
    r = seeded(1)
    flat = 0
    for _ in range(700):
        value = random_map(r, 4)
        depth = r.randint(1, 5)
        text = yamlio.dump(value, depth=depth)
        expected = repr(value)
        assert repr(reference(text)) == expected, text
        assert repr(small(text)) == expected, text
        quick = yamlio.load_flat(text)
        assert quick is None or repr(quick) == expected, text
        flat += quick is not None
        if depth == 1 and value and all(map(yamlio._is_plain_key, value)):
            assert quick is not None, text
    assert flat > 50


# -- reading: the same as PyYAML


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_sample_files_are_read_without_pyyaml_and_as_pyyaml_does(path: Path) -> None:
    text = path.read_text()
    expected = reference(text)
    if path.name == "by-hand.yaml":  # the one place where PyYAML leaves half characters
        assert isinstance(expected, dict)
        expected["pair"] = "😀"
    assert repr(small(text)) == repr(expected)
    assert repr(yamlio.load(text)) == repr(expected)
    assert repr(yamlio.load("\ufeff" + text.replace("\n", "\r\n"))) == repr(expected)
    assert repr(foreign(text)) == repr(expected)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_lines_are_those_of_pyyaml(path: Path) -> None:
    text = path.read_text()
    ours: dict[tuple[str | int, ...], int] = {}
    theirs: dict[tuple[str | int, ...], int] = {}
    small(text, ours)
    foreign(text, theirs)
    # A dash alone on its line: here the item starts at the dash, there at its content.
    assert {path: line for path, line in ours.items() if theirs[path] - line not in (0, 1)} == {}
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("name", ["running", "completed", "failed"])
def test_records_of_the_original_take_the_quick_way(name: str) -> None:
    text = (DATA / f"run-info-{name}.yaml").read_text()
    record = yamlio.load_flat(text)
    assert record is not None
    assert record == reference(text)
    assert type(record["start_time"]) is str
    assert type(record["pid"]) is int


def test_every_key_and_item_of_a_plan_has_its_line() -> None:
    text = (DATA / "plan.yaml").read_text()
    lines: dict[tuple[str | int, ...], int] = {}
    plan = yamlio.load(text, lines=lines)
    assert plan == reference(text)
    rows = ["", *text.split("\n")]
    for path, line in lines.items():
        if path and isinstance(path[-1], str):
            assert f"{path[-1]}:" in rows[line], path
    task = ("stages", 0, "tasks", 0)
    assert lines[()] == lines[("project",)] == 1
    assert lines[("stages",)] + 1 == lines[("stages", 0)] == lines[("stages", 0, "id")]
    assert lines[task] == lines[(*task, "id")] == rows.index("      - id: build-01")
    assert lines[(*task, "prompt")] == rows.index(
        "        prompt: |              # exactly one of prompt, prompt_file, template"
    )
    assert lines[(*task, "verify", 0)] == lines[(*task, "verify")] + 1
    assert lines[(*task, "expect", "files", 0)] == lines[(*task, "expect")] + 1
    assert lines[("roles", "review", "agents", 2)] == lines[("roles", "review")]


def words(text: str) -> list[str]:
    return text.split()


PLAIN = words("""
    0 00 01 07 08 09 0_7 0_8 1 12 -1 +1 -0 +0 1_0 1__0 1_ _1 +_1 -_ + - 1- 0x 0x1f 0X1F 0xG -0x1F +0x1F 0x_1
    0b1 0b2 0b 0B1 -0b11 0o7 0o 010 -010 0b_1 1.5 1. .5 -.5 +.5 +1.5 -1.5 . .. ... 1.e3 1.0e3 1.0e+3 1.0E-3
    1.5e+ 1.5e+x 1e3 1e+3 .e+3 .5e+3 ._5 1._5 1_0.0_1 _1.0 1.2.3 1.5_ .5_ 0.0 -0.0 00.5 1.0e+400 1.e+3
    .inf .Inf .INF .iNF -.inf +.inf -.Inf .nan .NaN .NAN .Nan -.nan +.nan inf nan null Null NULL nULL ~ ~~
    true True TRUE tRUE false False FALSE yes Yes YES yEs no No NO on On ON off Off OFF y Y n N
    12:30 1:2:3 1:60 -1:30 1:2.5 190:20:30.15 0:0 2026-02-23 2026-2-3 2026-02-23T20:48:59.123Z 2026-02-23t1:2:3
    a - -a ?a :a a:b a#b a'b a"b é １２ ² 1２ x= == <= 1,000 10% a@b 1e 0.1e+1_0 0x1_F 0_ 0b0_1 0__ 9_9_ 1x
""")


@pytest.mark.parametrize("word", PLAIN)
def test_a_plain_word_means_what_it_means_to_pyyaml(word: str) -> None:
    try:
        expected = reference(f"k: {word}\n")
    except (yaml.YAMLError, ValueError):
        with pytest.raises((YamlError, Beyond)):
            small(f"k: {word}\n")
        return
    for text in (f"k: {word}\n", f"k:   {word}  # c", f"k:\n  {word}\n"):
        assert repr(small(text)) == repr(expected)
    assert repr(foreign(f"k: {word}\n")) == repr(expected)
    quick = yamlio.load_flat(f"k: {word}\n")
    assert quick is None or repr(quick) == repr(expected)


def test_random_number_like_words_mean_what_they_mean_to_pyyaml() -> None:
    r = seeded(2)
    resolvers = Reference.yaml_implicit_resolvers
    for _ in range(20000):
        word = "".join(r.choice("0011789._-+eExbaF") for _ in range(r.randint(1, 7)))
        tags = [tag for tag, rule in resolvers.get(word[0], []) if rule.match(word)]
        try:
            kind = {int: "int", float: "float", str: ""}[type(resolve(word))]
        except ValueError:
            assert not word.strip("+-0xb_"), word
            continue
        assert [tag.rpartition(":")[2] for tag in tags] == ([kind] if kind else []), word


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "# only a comment",
        "---\n",
        "---",
        "--- # comment\na: 1",
        "- a\n-\n- b",
        "a:\n- 1\n- 2\nb: 3",
        "a:\n- b:\n  - c\n- d",
        "  a: 1\n  b: 2",
        "- - - a\n    - b\n  - c\n- d",
        "-   a: 1\n    b: 2",
        "a:\n  b:\n    c:\nd:",
        "a:\n\n\n  b",
        "a: b\n  c\n\n\n  d\n",
        "a: b\n  - c",
        "a: b\n c # d",
        "top\nlevel\n text",
        "'top\n  level'",
        "a: 'x\n\n\n  y  \n z'",
        'a: "x\\\n   y\\ \n  z\\\\\n  w"',
        'a: "\n  b\n"',
        'a: "b  \n\n"',
        'a: "\\\n\n  b"',
        'a: "  \\  \n  b"',
        "a: ' x '",
        "\"a\": 1\n'b' : 2",
        "a b : 1",
        "1: a\nfalse: b\n~: c\n1.5: d",
        "a: |\n  x\n   y\n\n  z\n\nb: 1",
        "a: |-\n  x\n\n\nb: 1",
        "a: |+\n  x\n\n\nb: 1",
        "a: |+\n\n\nb: 1",
        "a: |\n\nb: 1",
        "a: |",
        "a: |\n  x",
        "a: |+\n  x",
        "a: |\n  x\n   ",
        "a: |\n  x\n  ",
        "a: |1\n x\n  y",
        "a: |2-\n   x\n   y",
        "a: |-2\n   x\n   y",
        "- |\n x\n- >\n y",
        "- a: |\n    x\n  b: 1",
        "a: |\n  \tx\n  y",
        "a: | # c\n  # not a comment\n # a comment\nb: 1",
        "a: >\n  x\n  y\n\n  z\n    w\n    v\n  u\n",
        "a: >-\n  x\n\n\n  y",
        "a: >+\n  x\n\n    y\n\n",
        "a: >\n\n  x",
        "a: >\n  \tx\n  y\n  z",
        "|\n x",
        "a:\n  |\n  x",
        "[a, 'b', \"c\", [d], {e: f}]",
        "a: [\n  1,\n  2, # two\n\n  3\n]\nb: 1",
        "a: {b: c, d: , e, 'f':g, \"h\": i,}",
        "a: {b: [1, {c: d}], e:}",
        "[a b, c:d, e-f, -g, -, http://x/]",
        "[a\n  b, c\n\n  d]",
        "{a: b\n  c, d: 'e\n  f'}",
        "[ ]",
        "{}",
        "{ a : b }",
        "a: [x]   # c",
        "[a # c\n, b]",
        "[a#b, c]",
        '"\\U0010FFFF\\uFFFF"',
        "a: b#c",
        "a: 'b' # c",
        "a: !",
    ],
)
def test_a_construct_means_what_it_means_to_pyyaml(text: str) -> None:
    if text == "a: !":
        assert yamlio.load(text) == reference(text)
        return
    assert repr(small(text)) == repr(reference(text))
    assert repr(yamlio.load(text)) == repr(reference(text))


PIECES = [
    "a", "b: ", "- ", "\n", "\n  ", "\n    ", " ", "  ", "'", '"', "{", "}", "[", "]", ", ", ": ", ":", "#",
    " # c", "|", "|-\n", ">\n", "|+\n", "x y", "12", "0x1F", "null", "yes", "1.5", "\\n", "\\", "\\\n", "\\ ",
    "---", "...", "\n---\n", "?", "- - ", "k: v\n", "- a\n", "key:\n", "~", "''", '"q"', "''\n", "é", "-", "%",
    "&a", "!!str ", "*a", "\t", "|2\n", ">-\n", "\n\n", "\n \n", "<<: ", "=", "0", "_", "+", "e+3", ".", "12:30",
    "2020-01-01", "@", "`", ",", "{a: b}", "[x, y]", "'it''s'", '"a\\tb"', "\r\n", "\r", "\x85", "\u2028",
]  # fmt: skip


def problem_of(text: str, expected: tuple[str, str]) -> str:
    try:
        value = yamlio.load(text)
    except YamlError as error:
        return str(error)
    assert ("value", repr(value)) == expected, text
    return ""


def check_against_pyyaml(text: str) -> str:
    """Assert that every reader here agrees with PyYAML on `text`; say what came out."""
    try:
        expected: tuple[str, str] = ("value", repr(reference(text)))
    except (yaml.YAMLError, ValueError) as error:
        expected = ("error", str(error))
    normal = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    try:
        outcome, value = "value", repr(small(normal))
        assert ("value", value) == expected, text
    except Beyond:
        outcome = "beyond"
    except YamlError as error:
        outcome = "error" if "duplicate" not in error.problem else "duplicate"
    if outcome == "error":
        assert expected[0] == "error", text
    quick = yamlio.load_flat(text)
    if quick is not None:
        assert outcome == "value", text
        assert ("value", repr(quick)) == expected, text
    problem = problem_of(text, expected)
    assert "\n" not in problem
    assert (
        not problem or expected[0] == "error" or "uplicate" in problem or "as a key" in problem
    ), (text, problem)
    return outcome


def test_a_soup_of_yaml_is_never_read_otherwise_than_by_pyyaml() -> None:
    r = seeded(3)
    outcomes: dict[str, int] = {}
    for _ in range(5000):
        text = "".join(r.choice(PIECES) for _ in range(r.randint(1, 14)))
        text = "k:\n  " + text if r.random() < 0.3 else text
        outcome = check_against_pyyaml(text)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert min(outcomes["value"], outcomes["error"], outcomes["beyond"]) > 500


def write_node(r: random.Random, depth: int, indent: int, *, compact: bool) -> list[str]:
    """Return lines of a random node; with `compact` the first stands behind a dash."""
    kind = r.random() if depth else 1.0
    pad = " " * indent
    rows: list[str] = []
    if kind < 0.4:
        for number in range(r.randint(1, 4)):
            key = (
                f"k{number}" if r.random() < 0.8 else r.choice([f"'q {number}'", f'"\\x4{number}"'])
            )
            rows += write_entry(r, depth, indent, f"{key}:")
    elif kind < 0.7:
        for _ in range(r.randint(1, 4)):
            if r.random() < 0.5:
                extra = r.randint(1, 3)
                node = write_node(r, depth - 1, indent + 1 + extra, compact=True)
                rows += [f"{pad}-{' ' * extra}{node[0].strip(' ')}", *node[1:]]
            else:
                rows += write_entry(r, depth, indent, "-")
    else:
        rows = [pad + write_scalar(r)]
    if not compact and r.random() < 0.2:
        rows.insert(0, r.choice(["", pad + "# comment", "  "]))
    return rows


def write_entry(r: random.Random, depth: int, indent: int, lead: str) -> list[str]:
    pad = " " * indent
    kind = r.random()
    if kind < 0.35:
        return [f"{pad}{lead} {write_scalar(r)}" + r.choice(["", " # c", "  "])]
    if kind < 0.5:
        block = [
            r.choice(
                ["", pad + "  ", pad + "  text", pad + "    more", pad + "  # no", pad + "  a: b"]
            )
            for _ in range(r.randint(0, 5))
        ]
        return [f"{pad}{lead} {r.choice('|>')}{r.choice(['', '-', '+', '2', '2-'])}", *block]
    if kind < 0.6:
        return [f"{pad}{lead} {r.choice(['word', 'two words'])}", pad + "  and more", ""]
    if kind < 0.65:
        return [f"{pad}{lead}"]
    return [f"{pad}{lead}", *write_node(r, depth - 1, indent + r.randint(1, 4), compact=False)]


def write_scalar(r: random.Random) -> str:
    kind = r.random()
    if kind < 0.5:
        return r.choice(PLAIN)
    if kind < 0.7:
        return yamlio.quote(random_text(r))
    if kind < 0.8:
        return "'" + r.choice(NASTY).replace("'", "''").replace("\n", "") + "'"
    items = ", ".join(r.choice(["a", "1", "'x'", "b c", "{d: e}", "[]", "f: g"]) for _ in range(3))
    return r.choice(["[%s]", "{%s}", "[ %s ]", "{k: [%s]}"]) % items


def mutate(r: random.Random, text: str) -> str:
    at = r.randint(0, len(text))
    kind = r.random()
    if kind < 0.4:
        return text[:at] + r.choice(PIECES) + text[at:]
    if kind < 0.7:
        return text[:at] + text[at + r.randint(1, 4) :]
    return text[:at] + r.choice(" :-#'\"\n[]{},&\t") + text[at + 1 :]


def test_random_documents_and_damaged_ones_are_never_read_otherwise_than_by_pyyaml() -> None:
    r = seeded(4)
    outcomes: dict[str, int] = {}
    for _ in range(1200):
        text = "\n".join(write_node(r, 3, r.choice([0, 0, 2]), compact=False)) + r.choice(
            ["", "\n"]
        )
        for candidate in (text, mutate(r, text), mutate(r, mutate(r, text))):
            outcome = check_against_pyyaml(candidate)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["value"] > 800


def test_lines_of_random_documents_are_those_of_pyyaml() -> None:
    r = seeded(5)
    compared = 0
    for _ in range(500):
        text = "\n".join(write_node(r, 3, 0, compact=True))
        ours: dict[tuple[str | int, ...], int] = {}
        theirs: dict[tuple[str | int, ...], int] = {}
        try:
            small(text, ours)
            foreign(text, theirs)
        except (YamlError, Beyond):
            continue
        items = [path for path in ours if path and isinstance(path[-1], int)]
        assert ours.keys() == theirs.keys()
        assert [p for p in ours if p not in items and ours[p] != theirs[p]] == [], text
        assert all(ours[path] <= theirs[path] for path in items)
        compared += len(ours)
    assert compared > 500


# -- errors


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\n\tb: 2", 2, "tab used for indentation; use spaces"),
        ("a:\n  \t- b", 2, "tab used for indentation; use spaces"),
        ("a:\tb", 1, "tab between"),
        ("a: b\tc", 1, "tab between"),
        ("a\tb: c", 1, "tab between"),
        ("a: [b,\n\tc]", 2, "tab used for indentation"),
        ("a: 1\nb: 2\n\na: 3", 4, "duplicate key 'a' (first on line 1)"),
        ("k:\n  - x: 1\n    'x': 2", 3, "duplicate key 'x' (first on line 2)"),
        ("{a: 1,\n a: 2}", 2, "duplicate key 'a' (first on line 1)"),
        ("k: &x 1\na: 1\nb:\n  c: 1\n  c: 2", 5, "duplicate key 'c' (first on line 4)"),
        ("a: 1\n---\nb: 2", 2, "a second document begins here; keep one"),
        ("a: &x 1\n---\nb: 2", 2, "a second document begins here; keep one"),
        ("---\n---\n", 2, "a second document begins here; keep one"),
        ("a: 1\nb: 'x\ny\n", 2, "' is never closed"),
        ('a: "x\\"\ny\n', 1, '" is never closed'),
        ("a: 1\nb: [1,\n 2\n", 2, "[ is never closed"),
        ("a: {b: [1]\n", 1, "{ is never closed"),
        ("a: [1\n---\n", 1, "[ is never closed"),
        ("a: 'x\n--- y'", 1, "inside quotes"),
        ("a: [1 2, b}", 1, "expected ',' or ']'"),
        ('a: ["x" "y"]', 1, "expected ',' or ']'"),
        ("a: [,]", 1, "','"),
        ("a: [@x]", 1, "cannot start with '@'"),
        ("a: b: c", 1, "a second ': '"),
        ("a: 1\n  b: 2", 2, "a second ': '"),
        ("a: 'b': c", 1, "a second ': '"),
        ("a: 'b' c", 1, "unexpected text after the value"),
        ("a: [b] c", 1, "unexpected text after the value"),
        ("a:\n    b: 1\n  c: 2", 3, "indented deeper"),
        ("a: 1\njust text", 2, "expected 'key: value'"),
        ("a: 1\n- b", 2, "list item"),
        ("- a\nb: 1", 2, "unexpected text"),
        ("- a\n  - b: 1", 2, "a second ': '"),
        ("a: - b", 1, "a list cannot begin on the line of its key"),
        ("a: @b", 1, "cannot start with '@'"),
        ("a: %b", 1, "cannot start with '%'"),
        ("a: }", 1, "'}' without"),
        ("a: 1\n@b: 2", 2, "'@' cannot start a key"),
        ("a: |x\n  b", 1, "after '|' or '>'"),
        ("a: |++\n  b", 1, "after '|' or '>'"),
        ("a: | b", 1, "begins on the line after"),
        ("a: |\n   x\n  y", 3, "indented deeper"),
        ('a: "\\q"', 1, "'\\q' is no escape"),
        ('a: "\\x4"', 1, "is no escape"),
        ('a: "\\u12_4"', 1, "is no escape"),
        ('a: "\\U00110000"', 1, "is no character"),
        ('a: "\\u00\\\n  41"', 1, "is no escape"),
        ("a: 0x_", 1, "a number that cannot be read"),
        ("a: " + "9" * 5000, 1, "a number that cannot be read"),
        ("a: 0x" + "f" * 5000, 1, "a number that cannot be read"),
        ("a: 1\nb: x\x07", 2, "U+0007"),
        ("a: 1\nb: \ud800", 2, "U+D800"),
        ("a: \x00", 1, "U+0000"),
        ("k" * 1025 + ": 1", 1, "a key of more than 1024 characters"),
        ("[" * 101, 1, "nested more than 100 deep"),
        ("- " * 101 + "a", 1, "nested more than 100 deep"),
        ("".join(" " * n + "k:\n" for n in range(150)), 101, "nested more than 100 deep"),
        ("{a: " * 200, 1, "nested more than 100 deep"),
        ("&a " + "[" * 100_000, 1, "nested more than 100 deep"),
        ("&a " + "[" * 120 + "]" * 120, 1, "nested more than 100 deep"),
        ("a: &x [*x]", 1, "nested more than 100 deep"),
        ("a: *nowhere", 1, "undefined alias"),
        ("a: 1\nb: !!bool maybe", 2, "does not fit its type"),
        ("a: !unknown b", 1, "could not determine a constructor"),
        ("? [a]\n: b", 1, "as a key"),
        ("a: =", 1, "could not determine"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x", 4, "duplicate key '<<'"),
    ],
)
def test_an_error_names_its_line_and_what_is_wrong(text: str, line: int, problem: str) -> None:
    found = error_of(text)
    assert found[0] == line
    assert problem in found[1]
    if not any(word in problem for word in ("uplicate", "nested", "greatest", "read")):
        with pytest.raises((yaml.YAMLError, ValueError, LookupError)):
            reference(text)


def test_an_error_names_its_source() -> None:
    with pytest.raises(YamlError, match=r"^plan\.yaml:1: ") as caught:
        yamlio.load("a: [", source="plan.yaml")
    assert (caught.value.source, caught.value.line) == ("plan.yaml", 1)
    assert isinstance(caught.value, UserError)


def test_a_key_of_the_greatest_length_is_read() -> None:
    text = yamlio.dump({"k" * 1024: 1})
    assert reference(text) == small(text) == yamlio.load_flat(text) == {"k" * 1024: 1}


def test_nesting_up_to_the_limit_is_read() -> None:
    for text in ("[" * 100 + "]" * 100, "- " * 100 + "a", "{a: " * 99 + "{}" + "}" * 99):
        assert small(text) == reference(text)


def test_aliases_cannot_multiply_without_bound() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    assert "aliases repeat" in error_of("\n".join(rows))[1]
    merges = ["a0: &a0 {k: 1}"]
    merges += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 20)]
    assert "aliases repeat" in error_of("\n".join(merges))[1]


def test_a_huge_text_is_not_given_to_pyyaml() -> None:
    assert "more than 1000000 characters" in error_of("a: &x " + "b" * 1_000_001)[1]


def test_long_scalars_and_many_keys_are_read() -> None:
    long = "x" * 1_000_000
    assert yamlio.load(yamlio.dump({"a": long})) == {"a": long}
    assert yamlio.load(yamlio.dump({"a": long + "\n"})) == {"a": long + "\n"}
    assert yamlio.load("a: |\n" + "  xyz\n" * 100_000) == {"a": "xyz\n" * 100_000}
    assert yamlio.load("a: '" + "''" * 300_000 + "'") == {"a": "'" * 300_000}
    keys = yamlio.load("".join(f"'k{n}': v\n" for n in range(20_000)))
    assert isinstance(keys, dict)
    assert len(keys) == 20_000


# -- the quick way, and mappings


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "a:", "a: ", "a:\n  b: 1", "a: 1\na: 2", "a: |", "a: 1 # c", "# c\na: 1", "a: b: c", "a: b ",
        "a: b:", "a:  b", "a: 1\n\nb: 2", "a: &x", "a: -", "a: - b", "a: @", "a: '", 'a: "', 'a: "b" c', "a: [1",
        "a: [1] x", "a: {b: 1, b: 2}", "a: 0x_", "a: =", "a: b\tc", "a: b\n  c", "yes: 1", "é: 1", "a: 1\r\n",
        'a: "\\q"', "a: \x07", "a: \x85", "---\na: 1", "1: a", "a: " + "[" * 200, "- a",
        "a: " + "[" * 100 + "]" * 100,
    ],
)  # fmt: skip
def test_the_quick_way_leaves_all_doubt_to_the_reader(text: str) -> None:
    assert yamlio.load_flat(text) is None


def test_the_quick_way_reads_what_go_and_dump_write() -> None:
    text = (
        "a: running\nb: 2026-11-22T19:51:10.33Z\nc: ''\nd: 'it''s'\ne: -1\nf: /home/u/x\ng: 0017\n"
        "h: \"a\\n\\\"b\\\"\"\ni: [1, \"x\", {\"y\": null}]\nj: no\nk: 2.1.50 (Claude Code)\nl: 1.5\n"
        "m: null\nr: {}\no: claude -p < /x/prompt.md\np: ''\nq: 12345678901234567890123\n"
    )  # fmt: skip
    assert repr(yamlio.load_flat(text)) == repr(reference(text))


def test_load_takes_the_quick_way_and_the_long_one_to_the_same_place() -> None:
    text = 'a: 1\nb: ["x"]\n'
    lines: dict[tuple[str | int, ...], int] = {}
    assert yamlio.load(text) == yamlio.load(text, lines=lines) == {"a": 1, "b": ["x"]}
    assert lines == {(): 1, ("a",): 1, ("b",): 2, ("b", 0): 2}


def test_a_mapping_is_demanded_with_text_for_keys() -> None:
    def read(text: str) -> object:
        return yamlio.load_mapping(text, source="x.yaml")

    assert read("a: 1") == {"a": 1}
    assert read("{}") == {}
    for text in ("", "- a", "word", "[]"):
        assert "key: value" in error_of(text, read)[1]
    assert error_of("a: 1\nyes: 2", read) == (2, "the key True is not a text; put it in quotes")
    assert error_of("a: 1\n\n1.5: 2", read)[0] == 3


# -- PyYAML


def test_beyond_the_subset_pyyaml_reads_under_the_same_promises() -> None:
    text = (
        "base: &base {a: 1, b: 2026-02-23}\nover:\n  <<: *base\n  b: 12:30\n"
        "times: [2026-02-23T20:48:59Z, !!timestamp 2026-02-23, 1:2.5]\nhalf: \"\\ud800\"\n"
        "? key\n: !!str 12\n"
    )  # fmt: skip
    with pytest.raises(Beyond):
        small(text)
    lines: dict[tuple[str | int, ...], int] = {}
    assert yamlio.load(text, lines=lines) == {
        "base": {"a": 1, "b": "2026-02-23"},
        "over": {"a": 1, "b": "12:30"},
        "times": ["2026-02-23T20:48:59Z", "2026-02-23", "1:2.5"],
        "half": "�",
        "key": "12",
    }
    assert lines[("over", "b")] == 4
    assert lines[("over", "a")] == 1
    assert lines[("times", 1)] == 5
    assert lines[("key",)] == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("%YAML 1.1\n---\na: 1", {"a": 1}),
        ("a: 1\n...\n", {"a": 1}),
        ("--- a", "a"),
        ("[a: b]", [{"a": "b"}]),
        ("=: 1", {"=": 1}),
        ("a: !!binary aGk=", {"a": b"hi"}),
        ("a: b\x85c: d", {"a": "b", "c": "d"}),
        ('"a"#c\n: b', None),
        ("a:\n|\n  b", {"a": "b"}),
        ("- # c\n|\n b", ["b"]),
        ("[a,#c\n b]", ["a", "b"]),
        ("# c\n&a", None),
        ("!!null ''", None),
    ],
)
def test_rare_constructs_come_from_pyyaml(text: str, value: object) -> None:
    if text.startswith('"a"#'):
        error_of(text)
        return
    with pytest.raises(Beyond):
        small(text)
    assert yamlio.load(text) == value


def test_errors_of_pyyaml_become_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert error_of("a: \x07", foreign) == (1, foreign_problem("a: \x07"))
    assert yamlforeign._translate(yaml.YAMLError("two\nlines"), "s", 7).line == 7

    def nothing(_name: str) -> Any:
        raise ImportError

    monkeypatch.setattr("importlib.import_module", nothing)
    with pytest.raises(
        UserError, match=r"^c\.yaml:2: an anchor needs PyYAML; install it"
    ) as caught:
        yamlio.load("a: 1\nb: &x 2", source="c.yaml")
    assert not isinstance(caught.value, YamlError)
    assert "\n" not in str(caught.value)


def foreign_problem(text: str) -> str:
    return error_of(text, foreign)[1]
