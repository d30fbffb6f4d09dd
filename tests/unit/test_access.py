"""Who may ask the server: host names, origins of pages, keys, cookies and links."""

from __future__ import annotations

import socket
import time

import pytest

from lib.api import access, login, routes
from lib.api.access import Access, Unauthorized
from lib.api.exchange import Refusal, Request
from lib.errors import UserError

KEY = "k3y-of-the-server"
HERE = "localhost:14355"
DATA = "/api/v1/tasks"


def ask(
    method: str = "GET", path: str = DATA, remote: str = "127.0.0.1", **headers: str
) -> Request:
    """A request to the server at this machine; `_` in the name of a header means `-`."""
    sent = {"host": HERE, **{name.replace("_", "-"): text for name, text in headers.items()}}
    return Request(method, path, headers=sent, remote=remote)


def status(rules: Access, request: Request) -> int:
    """200 for what may be answered, else the status of the refusal."""
    refusal = rules.check(request)
    return refusal.answer().status if refusal else 200


# -- the name of the server


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:14355",
        "LOCALHOST:80",
        "localhost.:80",
        "127.0.0.1:9",
        "127.8.9.1",
        "[::1]",
        "[::1]:14355",
        "[::ffff:127.0.0.1]:80",
    ],
)
def test_a_server_of_this_machine_answers_to_its_names_at_any_port(host: str) -> None:
    assert status(Access(), ask(host=host)) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:14355",
        "localhost.evil.example",
        "127.0.0.1.nip.example",
        "10.0.0.1",
        "[fe80::1]",
        "0.0.0.0",  # noqa: S104 - nothing is bound here
        "2130706433",
        "0x7f.1",
        "127.1",
        "::1",
        "localhost:",
        "localhost:99999",
        "localhost:8x",
        "a@localhost",
        "localhost/x",
        "localhost, evil",
        " ",
        "[::1",
        "localhost\xa0",
        "[localhost]",
        "①.0.0.1",
    ],
)
def test_a_server_of_this_machine_answers_to_no_other_name(host: str) -> None:
    refusal = Access().check(ask(host=host))

    assert refusal is not None
    assert refusal.status == 403
    assert "\n" not in str(refusal)


def test_a_public_server_answers_to_every_address_and_to_the_name_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Box.lan")
    rules = Access("0.0.0.0")  # noqa: S104 - nothing is bound here

    for host in ("10.1.2.3:80", "[2001:db8::1]", "127.0.0.1", "box.lan:1", "box", "box.local"):
        assert status(rules, ask(host=host)) == 200, host
    assert status(rules, ask(host="evil.example")) == 403


@pytest.mark.parametrize("bound", ["10.1.2.3", "2001:db8::1", "[2001:db8::1]"])
def test_a_server_at_one_address_answers_to_that_and_to_those_of_the_machine(bound: str) -> None:
    rules = Access(bound)
    own = bound if ":" not in bound else f"[{bound.strip('[]')}]"

    assert status(rules, ask(host=f"{own}:80")) == 200
    assert status(rules, ask(host="127.0.0.1:80")) == 200
    assert status(rules, ask(host="10.1.2.4:80")) == 403


def test_more_names_can_be_allowed_with_or_without_their_port() -> None:
    rules = Access(allowed_hosts=["Agents.example", "other.example:8080"])

    for host in ("agents.example", "agents.EXAMPLE:9", "other.example"):
        assert status(rules, ask(host=host)) == 200, host
    assert status(rules, ask(host="x.agents.example")) == 403


@pytest.mark.parametrize(
    ("remote", "origin", "expected"),
    [
        ("127.0.0.1", "", 200),
        ("::1", "", 200),
        ("10.0.0.9", "", 403),
        ("", "", 403),
        ("127.0.0.1", "http://localhost", 403),
    ],
)
def test_without_a_host_only_a_program_on_this_machine_may_ask(
    remote: str, origin: str, expected: int
) -> None:
    assert status(Access(), ask(host="", remote=remote, origin=origin)) == expected


def test_without_a_host_a_page_may_not_ask_even_if_it_is_listed() -> None:
    rules = Access(cors_origins=["http://localhost:3000"])

    assert status(rules, ask(host="", origin="http://localhost:3000")) == 403


# -- the page that asks


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (HERE, "http://localhost:14355"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("localhost", "https://localhost"),
        ("localhost:443", "https://localhost"),
        ("[::1]:14355", "http://[::1]:14355"),
        ("LocalHost:14355", "HTTP://localhost:14355"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_page_of_the_server_may_use_it(host: str, origin: str, method: str) -> None:
    request = ask(method, host=host, origin=origin, sec_fetch_site="same-origin")

    assert status(Access(), request) == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:3000",
        "https://localhost:14356",
        "localhost",
        "http://127.0.0.1:14355",
        "http://localhost:14355.evil.example",
        "http://localhost:14355/x",
        "file://",
        "http://x@localhost:14355",
        "chrome-extension://abc",
        "http://localhost:x",
        "*",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD", "BREW"])
def test_a_page_of_another_origin_may_not_use_it(origin: str, method: str) -> None:
    assert status(Access(), ask(method, origin=origin)) == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "unheard-of"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "navigate", ""])
def test_what_another_page_embeds_or_loads_in_the_dark_is_refused(site: str, mode: str) -> None:
    request = ask(sec_fetch_site=site, sec_fetch_mode=mode, sec_fetch_dest="image")

    assert status(Access(), request) == 403


@pytest.mark.parametrize(
    ("method", "path", "dest", "expected"),
    [
        ("GET", "/", "document", 200),
        ("GET", "/ui/", "document", 200),
        ("GET", "/login", "document", 200),
        ("GET", "/ui/", "iframe", 403),
        ("GET", "/ui/", "empty", 403),
        ("POST", "/ui/", "document", 403),
        ("GET", DATA, "document", 403),
        ("GET", "/api/v1/health", "document", 403),
        ("GET", "/metrics", "document", 403),
        ("GET", "/ui//../api/v1/tasks", "document", 403),
    ],
)
def test_a_link_from_elsewhere_leads_to_the_page_alone(
    method: str, path: str, dest: str, expected: int
) -> None:
    request = ask(
        method, path, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest=dest
    )

    assert status(Access(), request) == expected


def test_an_address_typed_by_a_person_is_answered() -> None:
    request = ask(sec_fetch_site="none", sec_fetch_mode="navigate", sec_fetch_dest="document")

    assert status(Access(), request) == 200


def test_a_listed_origin_may_ask_and_read() -> None:
    rules = Access(cors_origins=["http://localhost:3000/", "https://dash.example"])
    request = ask(origin="http://localhost:3000", sec_fetch_site="same-site")

    assert status(rules, request) == 200
    assert rules.cors_headers(request) == {
        "Access-Control-Allow-Origin": "http://localhost:3000",
        "Vary": "Origin",
        "Access-Control-Allow-Methods": "GET,POST,DELETE,OPTIONS",
        "Access-Control-Allow-Headers": "Content-Type, Authorization, X-Request-ID, "
        "X-Conductor-Client",
        "Access-Control-Expose-Headers": "X-Request-ID",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


@pytest.mark.parametrize("origin", ["", "null", "http://localhost:3001", "http://evil.example"])
def test_an_origin_that_is_not_listed_gets_no_headers(origin: str) -> None:
    assert Access(cors_origins=["http://localhost:3000"]).cors_headers(ask(origin=origin)) == {}


def test_every_origin_can_be_listed_only_with_a_key_which_is_asked_for() -> None:
    rules = Access(key=KEY, cors_origins=["*"])
    request = ask(origin="https://dash.example", sec_fetch_site="cross-site")

    assert rules.cors_headers(request)["Access-Control-Allow-Origin"] == "*"
    assert status(rules, request) == 401
    with pytest.raises(UserError, match="cors_origins"):
        Access(cors_origins=["*"])


def test_a_preflight_is_answered_before_all_rules() -> None:
    request = ask("OPTIONS", host="evil.example", origin="http://evil.example")

    assert status(Access(key=KEY), request) == 200
    assert Access(key=KEY).cors_headers(request) == {}


# -- the key


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY}"},
        {"x_api_key": KEY},
        {"authorization": "Basic eDp5", "x_api_key": KEY},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_key_in_a_header_lets_in(headers: dict[str, str], method: str) -> None:
    assert status(Access(key=KEY), ask(method, **headers)) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"x_api_key": ""},
        {"x_api_key": "ÿ"},
        {"cookie": f"conductor_14355={KEY}"},
    ],
)
def test_without_the_key_there_is_one_answer_in_its_own_shape(headers: dict[str, str]) -> None:
    refusal = Access(key=KEY).check(ask(**headers))

    assert isinstance(refusal, Unauthorized)
    answer = refusal.answer()
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="conductor"'
    assert answer.body == b'{"error":"unauthorized","message":"valid API key required"}\n'


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ui",
        "/ui/",
        "/ui/js/main.js",
        "/assets/x.js",
        "/logo.svg",
        "/login",
        "/metrics",
        "/healthz",
        "/api/v1/health",
        "/api/v1/version",
    ],
)
def test_the_page_and_the_signs_of_life_need_no_key(path: str) -> None:
    assert status(Access(key=KEY), ask(path=path)) == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/",
        "/api/projects",
        "/api/v1/health/",
        "/api/v1/healthy",
        "/api/openapi.json",
        "/ui/../api/v1/tasks",
        "//api/v1/tasks",
        "/ui//api",
        "/./../api",
    ],
)
def test_everything_else_needs_the_key(path: str) -> None:
    assert status(Access(key=KEY), ask(path=path)) == 401


def test_every_endpoint_that_is_not_open_needs_the_key() -> None:
    for route in routes.ROUTES:
        assert access.needs_key(route.path) != route.open_to_all, route.path


# -- the cookie


def session(rules: Access, **headers: str) -> str:
    """The Cookie header of a browser that has been let in."""
    return rules.cookie(ask(**headers)).partition(";")[0]


def test_the_cookie_lets_the_page_in_and_outlives_the_server() -> None:
    cookie = f"a=b; {session(Access(key=KEY))}; c"

    assert status(Access(key=KEY), ask(cookie=cookie)) == 200
    for headers in (
        {"origin": f"http://{HERE}"},
        {"origin": f"http://{HERE}", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "same-origin"},
    ):
        assert status(Access(key=KEY), ask("POST", cookie=cookie, **headers)) == 200, headers


def test_the_cookie_alone_changes_nothing() -> None:
    cookie = session(Access(key=KEY))

    for headers in ({}, {"sec_fetch_site": "none"}):
        for method in ("POST", "DELETE", "PUT"):
            assert status(Access(key=KEY), ask(method, cookie=cookie, **headers)) == 403


def test_another_key_ends_the_cookie() -> None:
    assert status(Access(key=KEY + "2"), ask(cookie=session(Access(key=KEY)))) == 401


def test_the_cookie_ends_after_its_days(monkeypatch: pytest.MonkeyPatch) -> None:
    rules, now = Access(key=KEY), time.time()
    cookie = session(rules)

    monkeypatch.setattr(time, "time", lambda: now + access.COOKIE_SECONDS - 2)
    assert status(rules, ask(cookie=cookie)) == 200
    monkeypatch.setattr(time, "time", lambda: now + access.COOKIE_SECONDS + 2)
    assert status(rules, ask(cookie=cookie)) == 401


def test_nothing_of_the_cookie_can_be_changed() -> None:
    rules = Access(key=KEY)
    name, _, value = session(rules).partition("=")
    expiry, _, code = value.partition(".")

    for changed in (
        f"{int(expiry) + 1}.{code}",
        f"0{expiry}.{code}",
        f"{expiry}.{code[:-1]}",
        f"{expiry}.",
        expiry,
        f"{expiry}.{code}x",
        f"{'9' * 5000}.{code}",
        f"\u0661.{code}",
    ):
        assert status(rules, ask(cookie=f"{name}={changed}")) == 401, changed[:100]


def test_servers_at_two_ports_of_a_machine_have_cookies_of_their_own() -> None:
    rules = Access(key=KEY)

    assert session(rules).startswith("conductor_14355=")
    assert session(rules, host="localhost:8080").startswith("conductor_8080=")
    assert session(rules, host="localhost").startswith("conductor_80=")
    assert status(rules, ask(cookie=session(rules, host="localhost:8080"))) == 401


def test_no_script_and_no_other_site_can_have_the_cookie() -> None:
    value = Access(key=KEY).cookie(ask())

    assert set(value.split("; ")[1:]) == {
        f"Max-Age={30 * 24 * 3600}", "Path=/", "HttpOnly", "SameSite=Strict",
    }  # fmt: skip
    assert KEY not in value


# -- links that let in once


class FakeService:
    """What the handlers of login take of a service."""

    def __init__(self, rules: Access) -> None:
        self.access = rules


def log_in(rules: Access, token: str, **headers: str) -> tuple[int, dict[str, str]]:
    request = ask(path="/login", **headers)
    request.query["token"] = token
    try:
        answer = login.log_in(FakeService(rules), request)  # type: ignore[arg-type]
    except Refusal as refusal:
        answer = refusal.answer()
    return answer.status, answer.headers


def test_a_link_lets_in_once() -> None:
    rules = Access(port=14355, key=KEY)
    base, _, token = login.page_url(rules).partition("/login?token=")

    found, headers = log_in(rules, token)

    assert base == "http://127.0.0.1:14355"
    assert len(token) >= 43
    assert (found, headers["Location"]) == (303, "/ui/")
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert status(rules, ask(cookie=cookie)) == 200
    assert log_in(rules, token)[0] == 410
    assert "Set-Cookie" not in log_in(rules, token)[1]
    assert log_in(rules, token, cookie=cookie)[0] == 303  # the page is loaded again


@pytest.mark.parametrize("token", ["", "x", "\ud800", "x" * 5000])
def test_no_other_token_lets_in(token: str) -> None:
    rules = Access(key=KEY)
    rules.links.make()

    assert log_in(rules, token)[0] == 410


def test_a_link_ends_after_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    rules, now = Access(key=KEY), time.monotonic()
    tokens = [rules.links.make() for _ in range(2)]

    monkeypatch.setattr(time, "monotonic", lambda: now + access.LINK_SECONDS - 1)
    assert log_in(rules, tokens[0])[0] == 303
    monkeypatch.setattr(time, "monotonic", lambda: now + access.LINK_SECONDS + 9)
    assert log_in(rules, tokens[1])[0] == 410


@pytest.mark.parametrize(
    "headers",
    [{"sec_purpose": "prefetch;prerender"}, {"purpose": "prefetch"}, {"x_moz": "prefetch"}],
)
def test_what_a_browser_fetches_in_advance_does_not_spend_a_link(headers: dict[str, str]) -> None:
    rules = Access(key=KEY)
    token = rules.links.make()

    assert log_in(rules, token, **headers)[0] == 403
    assert log_in(rules, token)[0] == 303


def test_of_many_links_the_oldest_end() -> None:
    rules = Access(key=KEY)
    tokens = [rules.links.make() for _ in range(101)]

    assert not rules.links.spend(tokens[0])
    assert all(rules.links.spend(token) for token in tokens[1:])


def test_without_a_key_the_link_just_leads_to_the_page() -> None:
    assert log_in(Access(), "anything")[0] == 303
    assert "Set-Cookie" not in log_in(Access(), "anything")[1]
    assert login.page_url(Access(port=5)) == "http://127.0.0.1:5/ui/"
    assert login.page_url(Access("::", 5)) == "http://localhost:5/ui/"
    assert login.page_url(Access("::1", 5)) == "http://[::1]:5/ui/"


def test_a_link_is_made_with_the_key_and_not_with_a_cookie() -> None:
    rules = Access(key=KEY)
    service = FakeService(rules)

    answer = login.make_link(service, ask("POST", x_api_key=KEY))  # type: ignore[arg-type]

    assert answer.status == 201
    assert isinstance(answer.body, bytes)
    assert answer.body.startswith(b'{"url":"http://localhost:14355/login?token=')
    with pytest.raises(Refusal) as refused:
        login.make_link(service, ask("POST", cookie=session(rules)))  # type: ignore[arg-type]
    assert refused.value.status == 403
    with pytest.raises(Refusal) as refused:
        login.make_link(FakeService(Access()), ask("POST"))  # type: ignore[arg-type]
    assert refused.value.status == 409


# -- what a page is not trusted with


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({"x_conductor_client": "Web-UI"}, True),
        ({"x_conductor_client": "cli"}, False),
        ({"sec_fetch_mode": "cors"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"origin": "null"}, True),
        ({"referer": "http://localhost/"}, True),
        ({"origin": " "}, False),
    ],
)
def test_a_page_is_told_from_a_program(headers: dict[str, str], expected: bool) -> None:
    assert access.is_from_page(ask("DELETE", **headers)) is expected
