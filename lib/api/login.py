"""How a browser gets in where a key is needed: by a link that works once and leaves a cookie."""

from __future__ import annotations

from lib.api.access import LINK_SECONDS, Access
from lib.api.exchange import Answer, Refusal, Request
from lib.api.route import TEXT, Query, Route, Schema, ref
from lib.api.service import Service

PAGE = "/ui/"
# A page that is fetched before anybody has asked for it must not spend the link.
_FORETHOUGHT = ("sec-purpose", "purpose", "x-purpose", "x-moz")
_SPENT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>This link is spent</title>
<h1>This link is spent</h1>
<p>A link to log in works once, and for ten minutes.</p>
<p>Get a new one: start the server again, which prints one, or on its machine run</p>
<pre>curl -X POST -H "Authorization: Bearer $CONDUCTOR_API_KEY" {base}/api/v1/login-links</pre>
</html>
"""


def page_url(access: Access) -> str:
    """The address of the page for whoever started the server; with a key it logs in, once."""
    return _link(access, base_url(access)) if access.key else base_url(access) + PAGE


def base_url(access: Access, request: Request | None = None) -> str:
    """Where the server is: as the client calls it, or as this machine does."""
    host = request.header("host") if request else ""
    if not host:
        name = access.host
        if name in ("", "*", "0.0.0.0", "::"):  # noqa: S104 - every address, this one too
            name = "localhost"
        host = f"[{name}]:{access.port}" if ":" in name else f"{name}:{access.port}"
    return f"http://{host}"


def _link(access: Access, base: str) -> str:
    return f"{base}/login?token={access.links.make()}"


def log_in(service: Service, request: Request) -> Answer:
    access = service.access
    if any(request.header(name) for name in _FORETHOUGHT):
        raise Refusal(403, "a link to log in is not fetched in advance")
    if not access.key or access.has_cookie(request):
        return Answer(b"", 303, {"Location": PAGE}, kind="text/html; charset=utf-8")
    if not access.links.spend(request.query.get("token", "")):
        text = _SPENT.format(base=base_url(access))
        return Answer(text.encode(), 410, kind="text/html; charset=utf-8")
    headers = {"Location": PAGE, "Set-Cookie": access.cookie(request)}
    return Answer(b"", 303, headers, kind="text/html; charset=utf-8")


def make_link(service: Service, request: Request) -> Answer:
    access = service.access
    if not access.key:
        raise Refusal(409, "this server has no API key, and its page needs no login")
    if not access.has_key(request):  # a cookie must not make more of itself
        raise Refusal(403, "a link to log in is made with the API key in a header")
    url = _link(access, base_url(access, request))
    return Answer({"url": url, "valid_seconds": LINK_SECONDS}, 201)


SCHEMAS: dict[str, Schema] = {
    "LoginLink": {
        "type": "object",
        "required": ["url", "valid_seconds"],
        "properties": {"url": TEXT, "valid_seconds": {"type": "integer"}},
    },
}

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/login",
        log_in,
        "Logs a browser in by a link that works once: sets a cookie, and leads to the page.",
        query=[Query("token", "The token of the link.")],
        answers={
            303: ("The way to the page.", TEXT),
            410: ("The link is spent; a page that says how to get another.", TEXT),
        },
        kind="text/html",
        open_to_all=True,
    ),
    Route(
        "POST",
        "/api/v1/login-links",
        make_link,
        "A new link that logs a browser in, for ten minutes and once.",
        answers={
            201: ("The link.", ref("LoginLink")),
            403: ("Only with the key in a header.", ref("Error")),
            409: ("The server has no key.", ref("Error")),
        },
    ),
)
