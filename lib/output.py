"""The answer of a run, output.md: the agent's own, else what its output tells."""

from __future__ import annotations

import os
import time

from lib import files, redact, runs

LIMIT_BYTES = 16 << 20


def write(run: runs.Run, answer: str | None) -> None:
    """Make output.md: the agent's own, else the answer of its stream, else a copy of stdout."""
    path = run.file(runs.OUTPUT)
    if os.path.isdir(path) and not os.path.islink(path):
        os.rename(path, f"{path}.{time.time_ns()}")  # a file cannot replace it
    if os.path.lexists(path):
        own = _own_output(path)
        if own is not None:
            clean = _redacted(own)
            if clean != own:
                files.replace_file(path, clean, 0o600)
            else:
                _flush(path)  # the agent does not, and the record will say that it is there
            return
    if answer is not None:
        data = answer.encode("utf-8", "replace")
    else:
        data = _head(run.file(runs.STDOUT))
        if len(data) > LIMIT_BYTES:
            data = _cut(data) + f"\n\n[cut here: the whole is in {runs.STDOUT}]\n".encode()
    if data and not data.endswith(b"\n"):
        data += b"\n"
    data = _redacted(data)
    # The record comes next, in the same folder: one flush of that does for both.
    if not files.create_file(path, data, 0o600):
        files.replace_file(path, data, 0o600, name_durable=False)


def _flush(path: str) -> None:
    fd = files.open_regular(path)
    try:
        files.sync(fd)
    finally:
        os.close(fd)


def _head(path: str) -> bytes:
    """The first bytes of a file, one more than the limit; b"" for what is none (a link, a FIFO)."""
    try:
        return files.read_regular(path, LIMIT_BYTES + 1)
    except OSError:
        return b""


def _cut(data: bytes) -> bytes:
    return data[: len(redact.before_gap(data[:LIMIT_BYTES].decode("latin-1")))]


def _own_output(path: str) -> bytes | None:
    """What the agent itself wrote as output.md; None for nothing."""
    data = _head(path)
    if len(data) > LIMIT_BYTES:
        data = _cut(data) + b"\n\n[cut here: larger than 16 MiB]\n"
        files.replace_file(path, data, 0o600)
    return data or None


def _redacted(data: bytes) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    return redact.text(text).encode("utf-8", "surrogateescape")
