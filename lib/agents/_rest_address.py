"""Where a service is, and the connection to it: TLS as the system trusts it, through a proxy.

The proxy is what HTTPS_PROXY (or ALL_PROXY) says, and NO_PROXY does not. http.client knows
of neither, and is used all the same: urllib follows redirects, with the key in the request.
"""

from __future__ import annotations

import http.client
import os
import ssl
import urllib.parse

from lib.agents import _render
from lib.errors import EXIT_USAGE, UserError

CONNECT_SECONDS = 10.0


class Address:
    """Where a service is; UserError for what no key should be sent to."""

    __slots__ = ("host", "is_tls", "path", "port", "url")

    def __init__(self, url: str) -> None:
        self.url = _render.one_line(url, 200)
        parts = _split(url)
        if parts is None:
            raise self._fault("it must be https://HOST/PATH")
        self.host = parts.hostname or ""
        self.is_tls = parts.scheme == "https"
        if not self.is_tls and not _is_loopback(self.host):
            raise self._fault("http:// would show the key to everybody on its way")
        self.port = parts.port or (443 if self.is_tls else 80)
        self.path = parts.path or "/"

    def _fault(self, why: str) -> UserError:
        text = f"base_url leads to {self.url}: {why}; correct it in config.yaml"
        return UserError(text, EXIT_USAGE)

    @property
    def place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _split(url: str) -> urllib.parse.SplitResult | None:
    """The parts of an address; urlsplit itself would pass over line feeds."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # ValueError where it is no number
        (parts.hostname or "").encode("idna")  # UnicodeError, a ValueError, for an empty label
    except ValueError:
        return None
    return parts if parts.scheme in ("https", "http") and parts.hostname else None


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def connection_to(address: Address) -> http.client.HTTPConnection:
    """A connection that is to be made yet; TLS as the system trusts it, a proxy as HTTPS_PROXY says."""
    if not address.is_tls:
        return http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)
    proxy = _proxy_of(address)
    host, port = (proxy.hostname or "", proxy.port or 80) if proxy else (address.host, address.port)
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=context)
    if proxy:
        connection.set_tunnel(address.host, address.port, _proxy_headers(proxy))
    return connection


def _proxy_of(address: Address) -> urllib.parse.SplitResult | None:
    """The proxy for it; http.client knows of none by itself, urllib would follow redirects."""
    if not any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ):
        return None
    import urllib.request

    proxies = urllib.request.getproxies_environment()
    wanted = proxies.get("https") or proxies.get("all") or ""
    if not wanted or urllib.request.proxy_bypass(address.place):
        return None
    proxy = _split(wanted if "://" in wanted else f"http://{wanted}")
    if proxy is None or proxy.scheme != "http":
        raise UserError("HTTPS_PROXY must be http://host:port; correct it", EXIT_USAGE)
    return proxy


def _proxy_headers(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    import base64

    unquote = urllib.parse.unquote
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
