"""The audit log: what was asked of the server that changes something, a line of JSON for each.

RUNS_DIR/_audit/form-submissions.jsonl, as the original writes it.  It holds no
secret: values behind telling keys and what looks like a token are replaced.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lib import files, ids, redact
from lib.api.console import tell
from lib.api.exchange import Request

if TYPE_CHECKING:
    from lib.api.service import Service

FOLDER = "_audit"
NAME = "form-submissions.jsonl"
MAX_BYTES = 32 << 20  # then it is put aside, in place of the one before
TEXT_LIMIT = 4096  # characters of one text
CUT = "...[TRUNCATED]"
_SECRET_KEYS = (
    "token", "secret", "password", "passwd", "api_key", "apikey", "authorization", "auth",
    "cookie", "session", "private_key", "ssh_key", "access_key", "refresh_token",
)  # fmt: skip
_HIDDEN_VALUES = ("config",)  # the environment of an agent: names are told, values never
_lock = threading.Lock()


def record(
    service: Service,
    request: Request,
    payload: object = None,
    *,
    project: str = "",
    task: str = "",
    run: str = "",
    message: str = "",
) -> None:
    """Write down what was done for a request, durably; trouble with that is no trouble of the client."""
    entry: dict[str, object] = {
        "timestamp": ids.rfc3339(),
        "request_id": request.request_id,
        "correlation_id": request.request_id,
        "method": request.method,
        "path": request.path,
        "endpoint": f"{request.method} {request.endpoint or request.path}",
    }
    optional = {
        "remote_addr": request.remote,
        "project_id": project,
        "task_id": task,
        "run_id": run,
        "message_id": message,
        "payload": payload,
    }
    entry.update({key: value for key, value in optional.items() if value})
    line = json.dumps(clean(entry), ensure_ascii=True, allow_nan=False)
    try:
        with _lock:
            _append(os.path.join(service.runs_dir, FOLDER), line.encode() + b"\n")
    except OSError as error:
        text = f"the audit log cannot be written: {error.strerror or error}"
        tell(text)


def _append(folder: str, line: bytes) -> None:
    path = os.path.join(folder, NAME)
    os.makedirs(folder, 0o700, exist_ok=True)
    if os.path.islink(folder):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), folder)
    is_new = not os.path.lexists(path)
    if files.size(path) + len(line) > MAX_BYTES:
        os.replace(path, f"{path}.1")
        is_new = True
    fd = files.open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        files.write_all(fd, line)
        files.sync(fd)
    finally:
        os.close(fd)
    if is_new:
        files.sync_folder(folder)


def clean(value: object, key: str = "") -> object:
    """The value without secrets, its texts of bounded length."""
    if value is not None and value != "" and _is_secret(key):
        return redact.MARK
    if isinstance(value, Mapping):
        if key in _HIDDEN_VALUES:
            return {str(redact.values(str(name)[:100])): redact.MARK for name in value}
        return {
            str(redact.values(str(name))): clean(item, str(name)) for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item, key) for item in value]
    if isinstance(value, str):
        text = str(redact.values(value))  # before the cut: half a token is not known
        return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + CUT
    return redact.values(value)


def _is_secret(key: str) -> bool:
    plain = key.lower().replace("-", "_")
    return any(word in plain for word in _SECRET_KEYS)
