"""The shell backend: which block of a prompt is the script."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib.agents import base, shell
from lib.errors import UserError


def script_of(prompt: str | bytes, folder: Path) -> tuple[list[str], bytes]:
    path = folder / "prompt.md"
    path.write_bytes(prompt.encode() if isinstance(prompt, str) else prompt)
    launch = base.Launch(
        executable=None, prompt_path=str(path), run_dir=str(folder), cwd=str(folder)
    )
    argv = shell.command(launch)
    assert argv[1] == str(folder / "script.sh")
    return argv, Path(argv[1]).read_bytes()


@pytest.mark.parametrize(
    ("prompt", "script"),
    [
        ("Do it:\n\n```sh\nmake\n\nmake test\n```\nafter\n", "make\n\nmake test\n"),
        ("```shell\na\n```\n```sh\nb\n```", "a\n"),
        ("```\nplain\n```\n```python\npy\n```\n```sh\nb\n```\n", "b\n"),
        ("~~~sh\na ``` b\n```\n~~~\n", "a ``` b\n```\n"),
        ("````sh\n```\ninner\n```\n````\n", "```\ninner\n```\n"),
        ("````markdown\n```sh\nexample\n```\n````\n```sh\nreal\n```\n", "real\n"),
        ("```text\n~~~sh\nexample\n~~~\n```\n\n~~~ sh\nreal\n~~~\n", "real\n"),
        ("```sh title=x\na\n```   \n", "a\n"),
        ("``` Sh\na\n```\t\n", "a\n"),
        ("```sh\na\n`````\nb\n", "a\n"),
        ("```sh\na\n``\n``` x\n    ```\n~~~\n```\n", "a\n``\n``` x\n    ```\n~~~\n"),
        ("  ```sh\n    a\n  b\nc\n  ```\n", "  a\nb\nc\n"),
        ("    ```sh\n    indented code\n    ```\n```sh\nreal\n```\n", "real\n"),
        ("``` ```sh\nno fence\n```\n", None),
        ("```sh`x\nno fence\n", None),
        ("```sh\r\na\r\nb\r\n```\r\n", "a\nb\n"),
        ("```sh\na\u2028b\x0bc\n```", "a\u2028b\x0bc\n"),
    ],
    ids=range(17),
)
def test_the_first_shell_block_is_the_script(
    prompt: str, script: str | None, tmp_path: Path
) -> None:
    if script is None:
        with pytest.raises(UserError, match="no sh block"):
            script_of(prompt, tmp_path)
    else:
        assert script_of(prompt, tmp_path) == (
            ["/bin/sh", str(tmp_path / "script.sh")],
            script.encode(),
        )


def test_bytes_of_any_kind_reach_the_script(tmp_path: Path) -> None:
    line = bytes(set(range(256)) - {10, 13})
    _, script = script_of(b"\xff\n```sh\n" + line + b"\n```\n", tmp_path)
    assert script == line + b"\n"


def test_a_bash_block_runs_in_bash_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bash = tmp_path / "bin" / "bash"
    bash.parent.mkdir()
    bash.write_text("", encoding="utf-8")
    bash.chmod(0o755)
    prompt = "```bash\necho\n```\n"
    monkeypatch.setenv("PATH", str(bash.parent))
    assert script_of(prompt, tmp_path)[0][0] == str(bash)
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert script_of(prompt, tmp_path)[0][0] == "/bin/sh"


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("only words", "no sh block in prompt: .*prompt.md; put the commands between"),
        ("", "no sh block"),
        ("```python\npy\n```\n", "no sh block"),
        ("x\n```sh\nrm x\n", "sh block is not closed: .*prompt.md:2; end it"),
        ("````sh\nrm x\n```\n", "not closed"),
        ("```sh\n \n```\n", "sh block is empty: .*prompt.md:1; put"),
    ],
)
def test_a_prompt_without_a_whole_script_is_refused(
    prompt: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=complaint):
        script_of(prompt, tmp_path)
    assert not (tmp_path / "script.sh").exists()


def test_it_gets_no_token_and_is_not_paced() -> None:
    assert shell.TOKEN_VARIABLES == ()
    assert shell.PACED is False
    assert isinstance(shell.reader(), base.TextReader)
