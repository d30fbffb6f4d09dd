"""Who may ask: by which name the server is called, from which page, and with which key.

A browser sends what any page tells it to, to a server on this machine as well.
A page cannot forge these: `Host`, which is a foreign name when a foreign name has
been pointed at this machine (DNS rebinding), `Origin`, and the `Sec-Fetch-` headers.
Source: the Fetch and Fetch Metadata standards, RFC 9110 section 7.2, RFC 6265bis.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterable

from lib.api.exchange import Answer, Refusal, Request
from lib.errors import UserError

COOKIE_SECONDS = 30 * 24 * 3600
LINK_SECONDS = 600
OPEN_PATHS = ("/api/v1/health", "/api/v1/version")  # of those below /api/
_DATA_PATHS = ("/metrics", "/healthz")  # no key, but nothing for foreign pages either
_MOST_LINKS = 100
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://(\S+)")
_PORTS = {"http": 80, "https": 443}


class Unauthorized(Refusal):
    """No key, or a wrong one; its answer has a shape of its own."""

    def __init__(self) -> None:
        super().__init__(401, "valid API key required")

    def answer(self) -> Answer:
        return Answer(
            {"error": "unauthorized", "message": str(self)},
            401,
            {"WWW-Authenticate": 'Bearer realm="conductor"'},
        )


class Access:
    """The rules of one server, which is bound to `host` and `port`.

    Without a `key` everybody who reaches it may ask.  `allowed_hosts` are more
    names that it goes by, `cors_origins` pages elsewhere that may use it.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        key: str = "",
        allowed_hosts: Iterable[str] = (),
        cors_origins: Iterable[str] = (),
    ) -> None:
        self.host = host.lower().strip("[]")
        self.port = port
        self.key = key
        self.links = Links()
        self._bound = _ip(self.host)
        self._is_any = self.host in ("", "*") or (
            self._bound is not None and self._bound.is_unspecified
        )
        self._names = {_bare_name(name) for name in allowed_hosts} | self._own_names()
        self._origins = {origin.lower().rstrip("/") for origin in cors_origins}
        if "*" in self._origins and not key:
            raise UserError(
                "api.cors_origins: * would let every web page start agents; "
                "list the origins, or set an API key"
            )

    def check(self, request: Request) -> Refusal | None:
        """Why this request must not be answered; None if it may be."""
        if request.method == "OPTIONS":
            return None
        return self._check_host(request) or self._check_page(request) or self._check_key(request)

    def cors_headers(self, request: Request) -> dict[str, str]:
        """What lets a page of another origin that is listed read the answer."""
        origin = request.header("origin")
        if not self._is_listed(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": "*" if "*" in self._origins else origin,
            "Vary": "Origin",
            "Access-Control-Allow-Methods": "GET,POST,DELETE,OPTIONS",
            "Access-Control-Allow-Headers": "Content-Type, Authorization, X-Request-ID, "
            "X-Conductor-Client",
            "Access-Control-Expose-Headers": "X-Request-ID",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }

    # -- the name of the server

    def is_public(self) -> bool:
        """Whether other machines can reach it."""
        if self._bound is None:
            return self.host != "localhost"
        return not self._bound.is_loopback

    def _own_names(self) -> set[str]:
        names = {"localhost", self.host}
        if self.is_public():
            own = _bare_name(socket.gethostname())
            short = own.partition(".")[0]
            names |= {own, short, f"{short}.local"}
        return names - {"", "*"}

    def _check_host(self, request: Request) -> Refusal | None:
        host = request.header("host")
        if not host:  # HTTP/1.0, which no browser speaks
            remote = _ip(request.remote)
            if remote is not None and remote.is_loopback and not request.header("origin"):
                return None
            return Refusal(403, "a Host header is needed")
        parsed = _split(host)
        if parsed is not None and self._is_own(parsed[0]):
            return None
        return Refusal(
            403,
            f'this server does not go by the name "{host[:100]}"; '
            "start it with --allow-host NAME if it should",
        )

    def _is_own(self, name: str) -> bool:
        address = _ip(name.strip("[]"))
        if address is None:
            return name in self._names
        # A number cannot be pointed elsewhere, and so is no way in for a foreign page.
        return address.is_loopback or self._is_any or address == self._bound or name in self._names

    # -- the page that asks

    def _check_page(self, request: Request) -> Refusal | None:
        origin = request.header("origin")
        if self._is_listed(origin):
            return None
        if origin and not is_same_origin(request):
            return Refusal(403, f'a page of "{origin[:100]}" may not use this server')
        site = request.header("sec-fetch-site").lower()
        if site in ("", "none", "same-origin") or _opens_page(request):
            return None
        return Refusal(403, "a page of another origin may not use this server")

    def _is_listed(self, origin: str) -> bool:
        return bool(origin) and ("*" in self._origins or origin.lower() in self._origins)

    # -- the key

    def _check_key(self, request: Request) -> Refusal | None:
        if not self.key or not needs_key(request.path) or self.has_key(request):
            return None
        if not self.has_cookie(request):
            return Unauthorized()
        if request.method in ("GET", "HEAD") or _is_own_page(request):
            return None
        return Refusal(403, "with a cookie only the server's own page may change something")

    def has_key(self, request: Request) -> bool:
        """Whether a header has the key."""
        scheme, _, given = request.header("authorization").partition(" ")
        keys = [request.header("x-api-key")]
        if scheme.lower() == "bearer":
            keys.append(given.strip())
        return any(_is_same(given, self.key) for given in keys)

    def has_cookie(self, request: Request) -> bool:
        """Whether a cookie of ours is there: made with this key, and not expired."""
        name = self._cookie_name(request)
        for pair in request.header("cookie").split(";"):
            given, _, value = pair.strip().partition("=")
            expiry = value.partition(".")[0]
            if given != name or not re.fullmatch(r"[0-9]{1,12}", expiry):
                continue
            if _is_same(value, self._cookie_value(int(expiry))) and time.time() < int(expiry):
                return True
        return False

    def cookie(self, request: Request) -> str:
        """The value of a Set-Cookie header that lets a browser in.

        It outlives the server, and ends with the key.  Not `Secure`: the server speaks
        no TLS, and a browser would not send it to another machine over HTTP.
        """
        value = self._cookie_value(int(time.time()) + COOKIE_SECONDS)
        return (
            f"{self._cookie_name(request)}={value}; Max-Age={COOKIE_SECONDS}; Path=/; "
            "HttpOnly; SameSite=Strict"
        )

    def _cookie_name(self, request: Request) -> str:
        """With the port as the browser sees it: to cookies all ports of a host are one."""
        parsed = _split(request.header("host"))
        return f"conductor_{(parsed and parsed[1]) or 80}"

    def _cookie_value(self, expiry: int) -> str:
        text = f"conductor page until {expiry}".encode()
        return f"{expiry}.{hmac.new(self.key.encode(), text, hashlib.sha256).hexdigest()}"


class Links:
    """Tokens that let a browser in, once each and for ten minutes; only their hashes are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[bytes, float] = {}

    def make(self) -> str:
        """A new token; with too many of them, the oldest ends."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._ends) >= _MOST_LINKS:
                del self._ends[next(iter(self._ends))]
            self._ends[_hash(token)] = time.monotonic() + LINK_SECONDS
        return token

    def spend(self, token: str) -> bool:
        """Whether the token is good; it is not any more, then."""
        with self._lock:
            return time.monotonic() < self._ends.pop(_hash(token), 0.0)


def is_from_page(request: Request) -> bool:
    """Whether a browser's page asks, which is not trusted with what cannot be undone."""
    if request.header("x-conductor-client").strip().lower() == "web-ui":
        return True
    marks = ("sec-fetch-mode", "sec-fetch-site", "origin", "referer")
    return any(request.header(name).strip() for name in marks)


def needs_key(path: str) -> bool:
    """Whether a path leads to what the key guards: all below /api/, but whether it lives.

    The page itself holds nothing secret, and a browser loads it before it can have a key.
    """
    if "//" in path or ".." in path:
        return True
    return (path == "/api" or path.startswith("/api/")) and path not in OPEN_PATHS


def is_same_origin(request: Request) -> bool:
    """Whether `Origin` is the address by which the server is asked."""
    matched = _ORIGIN.fullmatch(request.header("origin").lower())
    host = _split(request.header("host"))
    if matched is None or host is None:
        return False
    origin = _split(matched[2])
    usual = _PORTS[matched[1]]
    return origin is not None and (origin[0], origin[1] or usual) == (host[0], host[1] or usual)


def _is_own_page(request: Request) -> bool:
    site = request.header("sec-fetch-site").lower()
    return is_same_origin(request) if request.header("origin") else site == "same-origin"


def _opens_page(request: Request) -> bool:
    """Whether somebody followed a link to the page from elsewhere, in a tab and not in a frame."""
    return (
        request.method == "GET"
        and request.header("sec-fetch-mode") == "navigate"
        and request.header("sec-fetch-dest") == "document"
        and not needs_key(request.path)
        and request.path not in OPEN_PATHS + _DATA_PATHS
    )


def _split(host: str) -> tuple[str, int | None] | None:
    """Name and port of a Host header, an IPv6 address in its brackets; None if it is none."""
    matched = _HOST.fullmatch(host)
    if matched is None or (matched[2] and int(matched[2]) > 65535):
        return None
    return matched[1].lower().removesuffix("."), int(matched[2]) if matched[2] else None


def _bare_name(name: str) -> str:
    parsed = _split(name.strip())
    return (parsed[0] if parsed else name.strip().lower()).strip("[]")


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_same(given: str, secret: str) -> bool:
    """Compared in a time that says nothing; a header is Latin-1 as WSGI has it."""
    return hmac.compare_digest(given.encode("latin-1", "replace"), secret.encode())


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
