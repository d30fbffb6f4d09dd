"""From a request to its answer: paths, methods, headers, and what may go wrong."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from lib.api import dispatch, sse, static
from lib.api.core import duration
from lib.api.dispatch import Application, clean_path
from lib.api.exchange import MAX_BODY, Answer, Refusal, Request
from lib.api.route import Route
from lib.api.service import Service
from lib.errors import LockTimeoutError


def echo(service: Service, request: Request) -> Answer:
    return Answer({"endpoint": request.endpoint, **request.params})


def fail(service: Service, request: Request) -> Answer:
    raise KeyError(f"sk-ant-api03-{'a1B2' * 8}\nsecond line")


def busy(service: Service, request: Request) -> Answer:
    raise LockTimeoutError("message bus locked for >10s by pid 7")


def full(service: Service, request: Request) -> Answer:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/secret")


def stream(service: Service, request: Request) -> Answer:
    def items() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        raise OSError("gone")

    return Answer(items(), kind="text/event-stream")


def route(method: str, path: str, handler: Any = echo) -> Route:
    return Route(method, path, handler, "For tests.", answers={200: ("Well.", None)})


TASK = "/api/projects/{project}/tasks/{task}"
ROUTES = (
    route("GET", "/healthz"),
    route("GET", "/api/v1/runs/{run}"),
    route("GET", "/api/projects"),
    route("GET", "/api/projects/home-dirs"),
    route("GET", "/api/projects/{project}"),
    route("GET", "/api/projects/{project}/tasks"),
    route("GET", TASK),
    route("DELETE", TASK),
    route("GET", TASK + "/runs"),
    route("GET", TASK + "/runs/stream", stream),
    route("GET", TASK + "/runs/{run}"),
    route("POST", TASK + "/runs/{run}/stop"),
    route("GET", "/fail", fail),
    route("GET", "/busy", busy),
    route("GET", "/full", full),
    route("GET", "/stream", stream),
)
P, T, R = "/api/projects/p", "/api/projects/p/tasks/t", "/api/projects/p/tasks/t/runs/r"


def application(**options: Any) -> Application:
    return Application(cast("Service", None), ROUTES, **options)


def ask(path: str, method: str = "GET", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return application().answer(Request(method, path, headers=named))


def body_of(answer: Answer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/api/projects", "/api/projects"),
        ("/api/projects/", "/api/projects"),
        (P, "/api/projects/{project}"),
        (P + "/", "/api/projects/{project}"),
        ("/api/projects/home-dirs", "/api/projects/home-dirs"),
        ("/api/projects/home-dirs/tasks", "/api/projects/{project}/tasks"),
        (T, TASK),
        (T + "/anything", TASK),
        (T + "/anything/at/all", TASK),
        (T + "/runs", TASK + "/runs"),
        (R, TASK + "/runs/{run}"),
        (R + "/anything", TASK + "/runs/{run}"),
        (R + "/anything/at/all", TASK + "/runs/{run}"),
        ("/api/v1/runs/r", "/api/v1/runs/{run}"),
    ],
)
def test_a_path_leads_to_its_endpoint(path: str, endpoint: str) -> None:
    answer = ask(path)
    assert (answer.status, body_of(answer).count(f'"{endpoint}"'.encode())) == (200, 1)


@pytest.mark.parametrize("path", ["/api/projects/p/nope", "/api/projects/p/nope/deep"])
def test_what_is_unknown_below_the_projects_is_said_in_json(path: str) -> None:
    answer = ask(path)
    assert answer.status == 404
    assert body_of(answer) == b'{"error":{"code":"NOT_FOUND","message":"not found"}}\n'


@pytest.mark.parametrize(
    "path",
    ["/api/v1/nope", "/api/v1/runs/", "/api/v1/runs/a/b", "/api", "/nope", "/ui/deep/link", "/\0"],
)
def test_what_is_unknown_elsewhere_is_said_in_plain_text(path: str) -> None:
    answer = ask(path)
    assert (answer.status, body_of(answer)) == (404, b"404 page not found\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_a_misspelt_address_does_not_delete_what_it_begins_with() -> None:
    assert ask(T, "DELETE").status == 200
    assert ask(T + "/anything", "DELETE").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "BREW"])
def test_another_method_is_refused_with_those_that_are_known(method: str) -> None:
    answer = ask("/api/v1/runs/r", method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, OPTIONS")
    assert body_of(answer) == (
        b'{"error":{"code":"METHOD_NOT_ALLOWED","message":"method not allowed"}}\n'
    )


def test_a_path_with_several_methods_names_them_all() -> None:
    assert ask(T, "PUT").headers["Allow"] == "DELETE, GET, OPTIONS"
    assert ask(R + "/stop").headers["Allow"] == "OPTIONS, POST"


def test_healthz_refuses_a_method_in_plain_text() -> None:
    answer = ask("/healthz", "POST")
    assert (answer.status, answer.headers["Content-Type"]) == (405, "text/plain; charset=utf-8")


def test_options_are_answered_everywhere_and_before_any_check() -> None:
    def check(request: Request) -> Refusal | None:
        raise AssertionError("asked")

    for path in ("/api/v1/runs/r", "/nope", "//x/.."):
        answer = application(check=check).answer(Request("OPTIONS", path))
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["X-Request-ID"]


def test_who_may_not_ask_is_refused_whatever_the_path() -> None:
    def check(request: Request) -> Refusal | None:
        return Refusal(403, "not you")

    for path in ("/api/v1/runs/r", "/nope", "//x", "/ui/"):
        assert application(check=check).answer(Request("GET", path)).status == 403


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("//", "/"),
        ("//a", "/a"),
        ("///a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b/", "/b/"),
        ("/../../etc", "/etc"),
        ("/a/..", "/"),
        ("/a...b/..c", "/a...b/..c"),
    ],
)
def test_a_path_is_cleaned(path: str, clean: str) -> None:
    assert clean_path(path) == clean


def test_a_path_that_is_not_clean_is_sent_to_the_clean_one_with_its_query() -> None:
    request = Request("GET", "//evil.example/a b/../<c>", query={"q": "1 2"})
    answer = application().answer(request)
    assert answer.status == 301
    assert answer.headers["Location"] == "/evil.example/%3Cc%3E?q=1+2"
    assert b"<c>" not in body_of(answer)


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "%252e%252e", "a\\b", "a%2fb", ".hidden", "a\nb", "x" * 201]
)
def test_an_id_that_could_be_a_path_reaches_no_handler(name: str) -> None:
    answer = ask(f"/api/v1/runs/{name}")
    if name == "%252e%252e":  # decoded once it is a name like any other
        assert answer.status == 200
        return
    assert answer.status in (301, 400)


def test_a_path_that_is_not_utf8_is_refused() -> None:
    assert ask("/api/v1/runs/\ufffd").status == 400


def test_the_id_of_a_request_comes_back_where_it_is_harmless() -> None:
    assert ask("/healthz", x_request_id=" mine-1 ").headers["X-Request-ID"] == "mine-1"
    for bad in ("", "a b", "x" * 129, "a\r\nSet-Cookie: b", "\u00fc"):
        given = ask("/healthz", x_request_id=bad).headers["X-Request-ID"]
        head, nanoseconds, random = given.split("-")
        assert (head, nanoseconds.isdigit(), len(random)) == ("req", True, 12)


def test_answers_and_pages_have_the_usual_headers() -> None:
    data, page = ask("/healthz").headers, ask("/ui").headers
    for headers in (data, page):
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert data["Content-Security-Policy"].startswith("default-src 'none'")
    assert page["Content-Security-Policy"].startswith("default-src 'self'")
    assert "unsafe" not in page["Content-Security-Policy"]
    assert data["Cache-Control"] == "no-store"


def test_a_bug_is_told_in_one_line_on_stderr_and_not_to_the_client(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = ask("/fail", x_request_id="req-7")
    assert answer.status == 500
    assert body_of(answer) == b'{"error":{"code":"INTERNAL","message":"internal error"}}\n'
    told = capsys.readouterr().err
    assert told.startswith("server.py: req-7: GET /fail: KeyError: ")
    assert told.count("\n") == 1
    assert "sk-ant" not in told


def test_a_lock_that_somebody_holds_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("/busy").status == 503
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_named_and_its_path_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask("/full")
    assert answer.status == 503
    assert b"it cannot be done now: No space left on device" in body_of(answer)
    assert b"secret" not in body_of(answer)
    assert "No space left on device" in capsys.readouterr().err


def test_a_stream_that_fails_ends_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask("/stream")
    assert not isinstance(answer.body, bytes)
    assert list(answer.body) == [b"data: 1\n\n"]
    assert "OSError: gone" in capsys.readouterr().err


def test_a_stream_whose_client_has_gone_is_closed() -> None:
    over: list[bool] = []

    def items() -> Iterator[bytes]:
        try:
            yield b"1"
            yield b"2"
        finally:
            over.append(True)

    def handler(service: Service, request: Request) -> Answer:
        return Answer(items())

    served = Application(cast("Service", None), [route("GET", "/s", handler)])
    body: Any = served.answer(Request("GET", "/s")).body
    assert next(iter(body)) == b"1"
    body.close()
    assert over == [True]


def test_a_stream_that_nobody_began_to_read_is_released() -> None:
    over: list[bool] = []

    def handler(service: Service, request: Request) -> Answer:
        return sse.answer(iter([b"1"]), release=lambda: over.append(True))

    served = Application(cast("Service", None), [route("GET", "/s", handler)])
    body: Any = served.answer(Request("GET", "/s")).body
    body.close()
    body.close()
    assert over == [True]


def test_a_body_that_is_too_long_is_malformed_json() -> None:
    def handler(service: Service, request: Request) -> Answer:
        return Answer(request.json_body({}))

    served = Application(cast("Service", None), [route("POST", "/s", handler)])
    request = Request(
        "POST",
        "/s",
        headers={"Content-Type": "application/json"},
        read_body=lambda: b" " * (MAX_BODY + 1),
    )
    answer = served.answer(request)
    assert (answer.status, b"invalid json: more than" in cast("bytes", answer.body)) == (400, True)


def test_every_answer_is_counted() -> None:
    counted: list[tuple[str, int]] = []
    served = application(count=lambda method, status: counted.append((method, status)))
    for method, path in (("GET", "/healthz"), ("POST", "/healthz"), ("GET", "/fail")):
        served.answer(Request(method, path))
    assert counted == [("GET", 200), ("POST", 405), ("GET", 500)]


def test_headers_for_another_origin_are_on_refusals_too() -> None:
    served = application(
        check=lambda request: Refusal(403, "not you"),
        cors_headers=lambda request: {"Vary": "Origin"},
    )
    assert served.answer(Request("GET", "/healthz")).headers["Vary"] == "Origin"


def test_two_routes_for_one_thing_are_a_bug() -> None:
    with pytest.raises(ValueError, match="two routes for GET /a"):
        dispatch.Router([route("GET", "/a"), route("GET", "/a")])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9, "0s"), (59.9, "59s"), (82, "1m22s"), (3603, "1h0m3s"), (90000, "25h0m0s")],
)
def test_the_uptime_is_written_as_the_original_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# ---- the files of the page ---------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = tmp_path / "ui"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<p>page</p>")
    (folder / "assets" / "app.js").write_text("let x;")
    (folder / "notes.md").write_text("not for the net")
    (folder / ".env.txt").write_text("not for the net")
    (tmp_path / "secret.txt").write_text("not for the net")
    os.symlink(tmp_path / "secret.txt", folder / "link.txt")
    os.symlink(tmp_path, folder / "way")
    os.mkfifo(folder / "pipe.txt")
    return folder


def fetch(page: Path, path: str, method: str = "GET", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return static.answer(Request(method, path, headers=named), str(page))


@pytest.mark.parametrize("path", ["/", "/ui/"])
def test_the_page_is_at_both_addresses(page: Path, path: str) -> None:
    answer = fetch(page, path)
    assert (answer.status, answer.body) == (200, b"<p>page</p>")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Last-Modified"].endswith(" GMT")


@pytest.mark.parametrize("path", ["/assets/app.js", "/ui/assets/app.js"])
def test_what_the_page_loads_is_beside_it(page: Path, path: str) -> None:
    answer = fetch(page, path)
    assert (answer.status, answer.headers["Content-Type"]) == (
        200,
        "text/javascript; charset=utf-8",
    )


@pytest.mark.parametrize(
    ("path", "location"), [("/ui", "/ui/"), ("/index.html", "./"), ("/ui/index.html", "./")]
)
def test_the_page_has_one_address_in_each_place(page: Path, path: str, location: str) -> None:
    answer = fetch(page, path)
    assert (answer.status, answer.headers["Location"]) == (301, location)


@pytest.mark.parametrize(
    "path",
    [
        "/assets", "/assets/", "/ui/assets/", "/notes.md", "/.env.txt", "/link.txt", "/pipe.txt",
        "/way/secret.txt", "/../secret.txt", "/ui/../secret.txt", "/ui//index.txt", "/a\0.txt",
        "/" + "x" * 300 + ".txt", "/ui/secret.txt",
    ],
)  # fmt: skip
def test_nothing_else_is_served(page: Path, path: str) -> None:
    answer = fetch(page, path)
    assert (answer.status, answer.body) == (404, b"404 page not found\n")


def test_a_page_that_the_browser_has_is_not_sent_again(page: Path) -> None:
    changed = fetch(page, "/").headers["Last-Modified"]
    assert fetch(page, "/", if_modified_since=changed).status == 304
    for since in ("", "nonsense", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 2999 00:00:00 GMT"):
        assert fetch(page, "/", if_modified_since=since).status == 200


def test_a_page_is_not_written_to(page: Path) -> None:
    answer = fetch(page, "/", "POST")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
