"""The audit log: what a line holds, what it never holds, and that it stays of bounded size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib.api import audit
from lib.api.exchange import Request
from lib.api.service import Service, Settings
from lib.config import Config

TOKEN = "sk-ant-" + "a1b2c3d4" * 4


def service_of(tmp_path: Path) -> Service:
    return Service(str(tmp_path), Config(), Settings())


def request() -> Request:
    made = Request("POST", "/api/v1/tasks", remote="127.0.0.1", request_id="req-1")
    made.endpoint = "/api/v1/tasks"
    return made


def lines(tmp_path: Path) -> list[dict[str, object]]:
    text = (tmp_path / "_audit" / "form-submissions.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_a_line_tells_who_asked_for_what(tmp_path: Path) -> None:
    audit.record(service_of(tmp_path), request(), {"a": 1}, project="p", task="t")

    [line] = lines(tmp_path)
    assert line.pop("timestamp")
    assert line == {
        "request_id": "req-1",
        "correlation_id": "req-1",
        "method": "POST",
        "path": "/api/v1/tasks",
        "endpoint": "POST /api/v1/tasks",
        "remote_addr": "127.0.0.1",
        "project_id": "p",
        "task_id": "t",
        "payload": {"a": 1},
    }
    assert (tmp_path / "_audit").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "_audit" / "form-submissions.jsonl").stat().st_mode & 0o777 == 0o600


def test_what_is_secret_by_its_key_or_its_look_is_replaced() -> None:
    payload = {
        "Api-Key": "short",
        "nested": [{"refresh_token": ["x"], "said": f"use {TOKEN} now"}],
        "config": {"COLOUR": "blue"},
        "half": "x" * (audit.TEXT_LIMIT - 5) + " " + TOKEN,
        "line": "two\nlines \ud800",
        "empty_token": "",
    }

    cleaned = audit.clean(payload)

    assert isinstance(cleaned, dict)
    assert cleaned["Api-Key"] == "[REDACTED]"
    assert cleaned["nested"] == [{"refresh_token": "[REDACTED]", "said": "use [REDACTED] now"}]
    assert cleaned["config"] == {"COLOUR": "[REDACTED]"}
    assert cleaned["half"] == "x" * (audit.TEXT_LIMIT - 5) + " [RED" + audit.CUT
    assert cleaned["line"] == "two\nlines ?"
    assert cleaned["empty_token"] == ""


def test_it_is_put_aside_when_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 1000)
    for number in range(20):
        audit.record(service_of(tmp_path), request(), {"number": number})

    names = sorted(path.name for path in (tmp_path / "_audit").iterdir())
    assert names == ["form-submissions.jsonl", "form-submissions.jsonl.1"]
    assert all(path.stat().st_size <= 1000 for path in (tmp_path / "_audit").iterdir())
    assert lines(tmp_path)[-1]["payload"] == {"number": 19}


def test_trouble_with_it_is_told_and_keeps_nobody_from_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "_audit").write_text("a file in its place")

    audit.record(service_of(tmp_path), request())

    assert "the audit log cannot be written" in capsys.readouterr().err


def test_no_link_is_followed_to_write_it(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "_audit").symlink_to(tmp_path / "outside")
    audit.record(service_of(tmp_path), request())
    assert list((tmp_path / "outside").iterdir()) == []

    (tmp_path / "_audit").unlink()
    (tmp_path / "_audit").mkdir()
    (tmp_path / "_audit" / "form-submissions.jsonl").symlink_to(tmp_path / "elsewhere")

    audit.record(service_of(tmp_path), request())

    assert not (tmp_path / "elsewhere").exists()
