#!/usr/bin/env python3
"""Take out one step of the core at a time; a test must fail each time.

    make mutations [ARGS="--only NAME"]
    python3 tests/torture/mutations.py [--only NAME ...] [--list] [--table]

Each lock, flush, rename, guard and step of taking over is there because
something goes wrong without it.  Here that is tried: for each mutation the
tree is copied to a temporary folder, the step is taken out of the copy, and
the tests that should notice are run there.  Before that they are run once on
an untouched copy, and must pass.  A test that hangs has noticed, too: it is
ended after --seconds.  --table prints the table of docs/reliability.md.

Exit codes: 0 every mutation was caught, 1 one survived or could not be tried,
2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.torture.mutation_list import MUTATIONS, Mutation

SECONDS = 90.0
NOT_COPIED = (
    *(".git", ".venv", ".agents", "runs", "coverage"),
    *(".mypy_cache", ".ruff_cache", ".pytest_cache"),
)


def main() -> int:
    options = parse()
    chosen = [m for m in MUTATIONS if not options.only or m.name in options.only]
    if options.list:
        for mutation in chosen:
            print(f"{mutation.name:32} {mutation.file}")
        return 0
    if options.table:
        print(table(chosen), end="")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return try_all(chosen, options.seconds)


def parse() -> argparse.Namespace:
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [mutation.name for mutation in MUTATIONS]
    parser.add_argument("--only", action="append", metavar="NAME", choices=names, default=[])
    parser.add_argument("--list", action="store_true", help="name them and exit")
    parser.add_argument("--table", action="store_true", help="print the table and exit")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for one of them (90)")
    return parser.parse_args()


def try_all(chosen: Sequence[Mutation], seconds: float) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutations.") as folder:
        tests = sorted({test for mutation in chosen for test in mutation.tests})
        copy = copy_tree(Path(folder) / "tree")
        code, output = run_tests(copy, tests, seconds * 10)
        if code != 0:
            print(f"{output}\nthese tests must pass before anything is taken out")
            return 1
        shutil.rmtree(copy)
        verdicts = [try_one(mutation, Path(folder), seconds) for mutation in chosen]
    caught = sum(verdicts)
    spent = time.monotonic() - began
    print(f"{len(chosen)} mutations: {caught} caught, {len(chosen) - caught} not; {spent:.0f} s")
    return 0 if caught == len(chosen) else 1


def try_one(mutation: Mutation, folder: Path, seconds: float) -> bool:
    """Whether a test fails without that step; says which."""
    copy = copy_tree(folder / "tree")  # as untouched: no name of its own changes a test
    try:
        problem = mutation.apply(copy)
        if problem:
            print(f"NOT TRIED {mutation.name}: {problem}", flush=True)
            return False
        code, output = run_tests(copy, mutation.tests, seconds)
    finally:
        shutil.rmtree(copy)
    if code == 1:
        print(f"caught    {mutation.name}: by {first_failure(output)}", flush=True)
    elif code is None:
        print(f"caught    {mutation.name}: hangs in {' or '.join(mutation.tests)}", flush=True)
    elif code == 0:
        print(f"SURVIVED  {mutation.name}: {mutation.file}: {mutation.why}", flush=True)
    else:
        print(f"{output}\nNOT TRIED {mutation.name}: its tests cannot be run", flush=True)
    return code in (1, None)


def copy_tree(target: Path) -> Path:
    """The tree without what is made in it; compiled files go along, else each start compiles."""
    shutil.copytree(ROOT, target, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (target / "runs").mkdir(exist_ok=True)
    return target


def run_tests(copy: Path, tests: Iterable[str], seconds: float) -> tuple[int | None, str]:
    """(pytest's exit code, its output); None when it had to be ended."""
    venv = ROOT / ".venv" / "bin" / "python"
    python = str(venv) if venv.exists() else sys.executable
    scratch = copy.parent / f"{copy.name}.tmp"
    process = subprocess.Popen(
        [python, "-m", "pytest", "-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider",
         f"--basetemp={scratch}", *tests],
        cwd=copy, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip
    code: int | None
    try:
        output, _ = process.communicate(timeout=seconds)
        code = process.returncode
    except subprocess.TimeoutExpired:
        output, code = "", None
    finally:
        end_all(process, copy.parent)
        shutil.rmtree(scratch, ignore_errors=True)
    return code, output


def environment() -> dict[str, str]:
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("JRUN_", "CONDUCTOR_"))}
    return {**clean, "PYTEST_ADDOPTS": "", "COLUMNS": "500"}  # wide enough for the reasons


def end_all(process: subprocess.Popen[str], folder: Path) -> None:
    """End the tests, and what a mutated core has left running: its folder is in their command."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # pytest then tears its fixtures down
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    wanted = str(folder).encode()
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes()
            place = os.readlink(f"/proc/{name}/cwd").encode()
            if wanted in command or place.startswith(wanted):
                os.kill(int(name), signal.SIGKILL)
        except OSError:
            continue


def first_failure(output: str) -> str:
    """`TEST: why` of the first test that failed."""
    found = re.search(r"(?m)^(?:FAILED|ERROR) (.+)$", output)
    test, _, why = (found[1] if found else "a test").partition(" - ")
    return f"{test}: {why}"[:300] if why else test


def table(mutations: Iterable[Mutation]) -> str:
    """The mutations as a Markdown table."""
    rows = ["| step | where | without it | shown by |", "|---|---|---|---|"]
    for mutation in mutations:
        names = ", ".join(f"`{test.rpartition('::')[2]}`" for test in mutation.tests)
        rows.append(f"| {mutation.name} | `{mutation.file}` | {mutation.why} | {names} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
