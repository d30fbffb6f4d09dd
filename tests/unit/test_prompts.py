"""The prompts that agents get: their form, their templates, and the edited ones that are kept."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path

import pytest

from lib.errors import UserError
from lib.plan import Plan, load_plan, plan_from_prompts
from lib.prompt_files import is_sealed, sealed
from lib.prompts import KEPT, UNCHANGED, WRITTEN, code_span, generate, plain_path, render

PLAN = """\
project: demo
roles:
  judge: {agents: [claude, gemini], quorum: 2}
stages:
  - id: build
    title: Build it
    tasks:
      - {id: storage, title: Storage layer, agent: shell, prompt: Make it.}
      - id: bus
        title: Message bus
        role: implementation
        depends_on: [storage]
        prompt: |

          ## Objective

          Make the bus.

      - id: gate
        role: judge
        depends_on: [bus]
        prompt: Judge the bus.
      - id: after
        agent: shell
        depends_on: [gate]
        prompt: Go on.
"""

GOLDEN = """\
# Message bus

**Task ID**: bus

- Project: demo
- Stage: build
- Role: implementation
- Root: `/root dir`
- Working folder: `{cwd}`
- Message bus: `/root dir/MESSAGE-BUS.md`
- Depends on: storage

These tasks are done. The answer of each is `output.md` in its newest run folder below \
`/root dir/runs`; their run ids stand in `/root dir/runs/demo/PLAN-STATE.yaml`.

- storage (Storage layer): run folder `run_*-storage`, prompt `/root dir/prompts/storage.md`

## Objective

Make the bus.

## Report

Work in the working folder. Tell the message bus what others need to know while you work; \
these commands find the bus and your task by themselves:

```text
'/tool kit/bin/bus-append' --type PROGRESS "what is done, and what comes next"
'/tool kit/bin/bus-append' --type FACT "what later tasks must know: a file, a figure, a command"
'/tool kit/bin/bus-append' --type DECISION "what you chose, and why"
'/tool kit/bin/bus-append' --type ERROR "what stops you, and what you tried"
```

Your final answer says what you did, what you checked, and what is left open.
"""

NASTY_PATHS = [
    "/tmp/plain",
    "/tmp/with space",
    "/tmp/back`tick",
    "/tmp/two``ticks",
    "/tmp/ends in tick`",
    "/tmp/ends in space ",
    "/tmp/new\nline\n\n# heading",
    "/tmp/quote'and\\slash\t",
    "/tmp/bytes\udcff\udcfe",
    "/tmp/\x1b[31mred",
    "/tmp/\u2028separator",
    "/tmp/grün",
    '/tmp/$(touch x)"; `id`',
]


def load(folder: Path, text: str = PLAN) -> Plan:
    (folder / "plan.yaml").write_text(text)
    return load_plan(str(folder / "plan.yaml"))


def rendered(
    plan: Plan, task_id: str, root: str = "/root dir", bin_dir: str = "/tool kit/bin"
) -> str:
    return render(
        plan,
        plan.tasks[task_id],
        root=root,
        bus_path=os.path.join(root, "MESSAGE-BUS.md"),
        prompts_dir=os.path.join(root, "prompts"),
        bin_dir=bin_dir,
    )


def made(plan: Plan, root: Path) -> dict[str, str]:
    """The state of each prompt after generating."""
    found = generate(plan, root=str(root), bus_path=str(root / "bus.md"), bin_dir="/bin")
    for prompt in found:
        data = Path(prompt.path).read_bytes()
        assert prompt.sha256 == hashlib.sha256(data).hexdigest()
    return {prompt.task_id: prompt.state for prompt in found}


def body_of(text: str) -> str:
    """A rendered prompt without its seal."""
    body, mark, rest = text.rpartition("<!-- generated ")
    assert mark
    assert rest.endswith(" -->\n")
    return body


# ---- the form ------------------------------------------------------------------------------


def test_a_prompt_has_heading_facts_body_and_report(tmp_path: Path) -> None:
    text = rendered(load(tmp_path), "bus")
    assert body_of(text) == GOLDEN.format(cwd=tmp_path)


def test_the_last_line_is_the_sha256_of_everything_above(tmp_path: Path) -> None:
    text = rendered(load(tmp_path), "bus")
    above = body_of(text)
    assert text == f"{above}<!-- generated {hashlib.sha256(above.encode()).hexdigest()} -->\n"
    assert is_sealed(text.encode())


def test_the_same_plan_gives_the_same_prompt(tmp_path: Path) -> None:
    assert rendered(load(tmp_path), "bus") == rendered(load(tmp_path), "bus")


def test_a_task_with_an_agent_names_it_in_place_of_a_role(tmp_path: Path) -> None:
    text = rendered(load(tmp_path), "storage")
    assert "\n- Agent: shell\n" in text
    assert "Role:" not in text
    assert "\n- Depends on: nothing\n\nMake it.\n\n## Report\n" in text


def test_only_a_review_is_asked_for_a_verdict(tmp_path: Path) -> None:
    plan = load(tmp_path)
    text = body_of(rendered(plan, "gate"))
    assert "```text\nVERDICT: APPROVE\nVERDICT: REJECT\n```\n" in text
    assert "2 or more approvals and no rejection" in text
    assert text.index("## Verdict") > text.index("## Report")
    assert "VERDICT" not in rendered(plan, "bus")


def test_what_follows_a_review_finds_the_runs_of_all_its_judges(tmp_path: Path) -> None:
    assert "- gate (gate): run folder `run_*-gate@*`, prompt " in rendered(load(tmp_path), "after")


def test_another_runs_folder_is_the_one_that_is_named(tmp_path: Path) -> None:
    plan = load(tmp_path)
    text = render(
        plan,
        plan.tasks["bus"],
        root="/r",
        bus_path="/r/b",
        prompts_dir="/r/prompts",
        bin_dir="/bin",
        runs_dir="/elsewhere",
    )
    assert "below `/elsewhere`" in text
    assert "`/elsewhere/demo/PLAN-STATE.yaml`" in text


def test_nothing_of_ours_is_taken_for_the_script_of_a_shell_task(tmp_path: Path) -> None:
    text = rendered(load(tmp_path), "storage")
    assert re.findall(r"^```(.*)$", text, re.MULTILINE) == ["text", ""]


def test_the_text_of_a_prompt_file_is_the_body(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_bytes("\ufeff\r\nDo $this for 5 €.\r\n\r\n".encode())
    plan = load(tmp_path, "stages: [{id: s, tasks: [{id: a, prompt_file: p.md}]}]")
    assert "\n\nDo $this for 5 €.\n\n## Report\n" in rendered(plan, "a")


def test_a_prompt_file_that_vanished_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("Do.\n")
    plan = load(tmp_path, "stages: [{id: s, tasks: [{id: a, prompt_file: p.md}]}]")
    (tmp_path / "p.md").unlink()
    with pytest.raises(UserError, match="does not exist; create it"):
        rendered(plan, "a")


# ---- templates -----------------------------------------------------------------------------


TEMPLATE_PLAN = """\
project: demo
stages:
  - id: s
    tasks:
      - {id: a, title: First, template: part, vars: {name: parser}, agent: shell}
"""


def test_a_template_is_filled_with_vars_and_what_the_plan_knows(tmp_path: Path) -> None:
    folder = tmp_path / "prompts" / "templates"
    folder.mkdir(parents=True)
    (folder / "part.md").write_text(
        "Write $name (${task_id}, $title) of $project/$stage as $role in $cwd.\n"
        "$root $bus $prompts $bin $$HOME\n"
    )
    text = rendered(load(tmp_path, TEMPLATE_PLAN), "a", root="/r")
    assert (
        f"\n\nWrite parser (a, First) of demo/s as shell in {tmp_path}.\n"
        "/r /r/MESSAGE-BUS.md /r/prompts /tool kit/bin $HOME\n\n## Report\n"
    ) in text


def test_a_template_beside_the_plan_is_found_after_that_of_its_prompts_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "part.md").write_text("second $name")
    plan = load(tmp_path, TEMPLATE_PLAN)
    assert "\nsecond parser\n" in rendered(plan, "a")
    (tmp_path / "prompts" / "templates").mkdir(parents=True)
    (tmp_path / "prompts" / "templates" / "part.md").write_text("first $name")
    assert "\nfirst parser\n" in rendered(plan, "a")


def test_a_placeholder_that_came_later_names_file_line_and_name(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    path = tmp_path / "templates" / "part.md"
    path.write_text("$name")
    plan = load(tmp_path, TEMPLATE_PLAN)
    path.write_text("$name\n\n$late\n")
    with pytest.raises(UserError) as caught:
        rendered(plan, "a")
    assert str(caught.value) == (
        f"{path}:3: placeholder $late is not filled; set it in vars, or write $$late for the text"
    )


def test_what_fills_a_template_is_not_filled_again(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "part.md").write_text("$name")
    plan = load(tmp_path, TEMPLATE_PLAN.replace("parser", '"$title $$"'))
    assert "\n$title $$\n" in rendered(plan, "a")


# ---- paths ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NASTY_PATHS)
def test_a_code_span_cannot_be_broken_by_a_path(path: str) -> None:
    span = code_span(path)
    fence, *runs, end = re.findall("`+", span)
    assert span.isprintable()
    assert fence == end
    assert fence not in runs
    inner = span[len(fence) : -len(fence)]
    if inner.startswith(" ") and inner.endswith(" "):
        inner = inner[1:-1]  # as CommonMark does
    assert inner == plain_path(path)


def unquoted(text: str) -> bytes:
    """What bash makes of `$'…'`, for the escapes that are used."""
    if not text.startswith("$'"):
        return text.encode()
    raw = text[2:-1].encode()
    return re.sub(
        rb"\\(x[0-9a-f]{2}|.)",
        lambda match: bytes.fromhex(match[1][1:].decode()) if len(match[1]) > 1 else match[1],
        raw,
    )


@pytest.mark.parametrize("path", NASTY_PATHS)
def test_a_path_in_plain_text_loses_nothing(path: str) -> None:
    assert unquoted(plain_path(path)) == os.fsencode(path)


@pytest.mark.parametrize("path", NASTY_PATHS)
def test_a_prompt_with_any_path_is_whole_utf8_and_keeps_its_lines(
    tmp_path: Path, path: str
) -> None:
    plan = load(tmp_path)
    plain = rendered(plan, "bus", root="/r", bin_dir="/b")
    nasty = rendered(plan, "bus", root=path, bin_dir=path)
    assert nasty.count("\n") == plain.count("\n")
    assert is_sealed(nasty.encode())
    (command,) = re.findall(r"^.*--type PROGRESS .*$", nasty, re.MULTILINE)
    if path.isprintable():
        assert shlex.split(command)[:3] == [f"{path}/bus-append", "--type", "PROGRESS"]
    else:
        assert command.startswith("$'")


# ---- generating ----------------------------------------------------------------------------


def test_generating_writes_one_prompt_a_task_in_plan_order(tmp_path: Path) -> None:
    plan = load(tmp_path)
    root = tmp_path / "root"
    states = made(plan, root)
    assert list(states.items()) == [(name, WRITTEN) for name in plan.tasks]
    assert sorted(os.listdir(root / "prompts")) == sorted(f"{name}.md" for name in plan.tasks)
    assert (root / "prompts" / "bus.md").read_text().startswith("# Message bus\n\n**Task ID**: bus")


def test_a_prompt_that_is_right_is_not_touched(tmp_path: Path) -> None:
    plan = load(tmp_path)
    made(plan, tmp_path)
    path = tmp_path / "prompts" / "bus.md"
    os.utime(path, ns=(1, 1))
    inode = path.stat().st_ino
    assert set(made(plan, tmp_path).values()) == {UNCHANGED}
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (1, inode)


def test_a_changed_plan_replaces_what_nobody_edited(tmp_path: Path) -> None:
    made(load(tmp_path), tmp_path)
    plan = load(tmp_path, PLAN.replace("Judge the bus.", "Judge it well."))
    states = made(plan, tmp_path)
    assert states.pop("gate") == WRITTEN
    assert set(states.values()) == {UNCHANGED}
    assert "Judge it well." in (tmp_path / "prompts" / "gate.md").read_text()


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("Make the bus", "Make the BUS"),
        lambda text: text + "one more line\n",
        lambda text: text + "\n",
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "written by a person\n",
        lambda text: "",
        lambda text: re.sub("generated .*", "generated 0 -->", text),
    ],
)
def test_an_edited_prompt_is_kept(tmp_path: Path, edit: object) -> None:
    plan = load(tmp_path)
    made(plan, tmp_path)
    path = tmp_path / "prompts" / "bus.md"
    assert callable(edit)
    edited = str(edit(path.read_text())).encode()
    path.write_bytes(edited)
    states = made(plan, tmp_path)
    assert states.pop("bus") == KEPT
    assert set(states.values()) == {UNCHANGED}
    assert path.read_bytes() == edited


def test_a_deleted_prompt_is_written_again(tmp_path: Path) -> None:
    plan = load(tmp_path)
    made(plan, tmp_path)
    (tmp_path / "prompts" / "bus.md").unlink()
    assert made(plan, tmp_path)["bus"] == WRITTEN


def test_a_prompt_that_is_its_own_source_is_kept_and_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts").mkdir()
    source = tmp_path / "prompts" / "a.md"
    monkeypatch.chdir(tmp_path)
    for text in ("Do.\n", sealed("# A\n")):
        source.write_text(text)
        assert made(plan_from_prompts("prompts/*.md", "shell"), tmp_path) == {"a": KEPT}
        assert source.read_text() == text


def test_a_folder_in_the_place_of_a_prompt_is_told(tmp_path: Path) -> None:
    (tmp_path / "prompts" / "bus.md").mkdir(parents=True)
    with pytest.raises(UserError, match="something else has its name; move it"):
        made(load(tmp_path), tmp_path)


def test_a_seal_holds_only_for_the_whole_file() -> None:
    data = sealed("text\n").encode()
    assert is_sealed(data)
    assert not is_sealed(b"x" + data)
    assert not is_sealed(data[1:])
    assert not is_sealed(data[:-1])
    assert not is_sealed(b"")
    assert is_sealed(sealed(data.decode()).encode())
