"""What the torture counts as a fault of a script, and what happens before there is one."""

from __future__ import annotations

import pytest

from tests.torture.checks import bugs_in

HEAD = "Traceback (most recent call last):\n"
FROZEN = '  File "<frozen importlib._bootstrap>", line 1176, in _find_and_load\n'
END = "KeyboardInterrupt\n"


def script(line: int, source: str = "") -> str:
    return f'  File "/a/run-agent.py", line {line}, in <module>\n' + (
        f"    {source}\n" * bool(source)
    )


@pytest.mark.parametrize(
    "text",
    [HEAD + END, HEAD + FROZEN + FROZEN + END, HEAD + script(0) + END,
     HEAD + script(4, "import _signal") + FROZEN + END, HEAD + script(7, "_signal.signal(…)") + END],
)  # fmt: skip
def test_an_interrupt_before_the_script_is_none_of_its_faults(text: str) -> None:
    assert bugs_in(f"stopped by SIGTERM\n{text}stopped by SIGINT\n") == []


@pytest.mark.parametrize(
    "text",
    [
        HEAD + script(9, "import os") + FROZEN + END,
        HEAD + script(14, "raise SystemExit(main())") + END,
        HEAD + script(4, "import _signal") + "ImportError: no\n",
        HEAD + FROZEN + '  File "/a/lib/runs.py", line 3, in read\n    return 1\n' + END,
        "run-agent.py: bug: it is one\n",
    ],
)
def test_whatever_comes_after_is(text: str) -> None:
    assert bugs_in(f"stopped by SIGTERM\n{text}")
