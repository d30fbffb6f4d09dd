"""One request to a service, tried again while it is busy.

What is tried again is what most likely cost nothing: no connection, or one that ended
without a word, and a status of 429 or 5xx. Once an answer has begun nothing is, and
neither after a silence: the service may be at work, and be paid for it.
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import time

from lib import ids
from lib.agents import _render, _rest_address, _rest_answer, base
from lib.agents._rest_stream import AskError
from lib.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TRIES = 5
QUICK_SECONDS = 5.0  # in which a connection that ends was refused, and nothing was begun
MAX_WAIT_SECONDS = 300.0  # in all, between tries
MAX_PAUSE_SECONDS = 32.0  # where the service tells none
ERROR_BYTES = 64 << 10


class _BusyError(Exception):
    """A try that failed and may be repeated: what happened, the cure, when the service says so."""

    def __init__(
        self,
        what: str,
        cure: str,
        pause_seconds: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.cure = cure
        self.pause_seconds = pause_seconds
        self.status = status


class Request:
    """What to ask, of whom; `say` is told of each wait, `sleep` waits."""

    def __init__(
        self,
        address: _rest_address.Address,
        body: Mapping[str, object],
        *,
        key: str,
        key_variable: str,
        silence_seconds: float,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = address
        self.body = body
        self.key = key
        self.key_variable = key_variable
        self.silence_seconds = silence_seconds
        self.say = say
        self.sleep = sleep
        self._connection: http.client.HTTPConnection | None = None

    def send(self) -> http.client.HTTPResponse:
        """The response of the service, of status 200 and not read yet; else UserError."""
        data = json.dumps(self.body, ensure_ascii=False).encode("utf-8", "replace")
        waited = 0.0
        for number in range(1, TRIES + 1):
            try:
                return self._try(data)
            except _BusyError as busy:
                pause = _pause(number, busy.pause_seconds)
                if number == TRIES or waited + pause > MAX_WAIT_SECONDS:
                    raise _given_up(busy, number) from None
                self.say(f"{busy.what}; try {number + 1} of {TRIES} in {pause:.3g} s")
                self.sleep(pause)
                waited += pause
        raise AssertionError("the last try returns or raises")

    def _try(self, data: bytes) -> http.client.HTTPResponse:
        self.close()
        self._connection = connection = _rest_address.connection_to(self.address)
        is_connected = False  # a TLS that is not shaken hands on is no connection
        asked = time.monotonic()
        try:
            connection.connect()
            is_connected, asked = True, time.monotonic()
            connection.sock.settimeout(self.silence_seconds)
            response = self._ask(connection, data)
        except ssl.SSLCertVerificationError as error:
            raise self._distrust(error) from None
        except (OSError, http.client.HTTPException) as error:
            is_late = is_connected and time.monotonic() - asked > QUICK_SECONDS
            raise self._no_response(error, is_connected=is_connected, is_late=is_late) from None
        if response.status == http.HTTPStatus.OK:
            return response
        raise self._refusal(response)

    def close(self) -> None:
        """Let go of the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()

    def _ask(self, connection: http.client.HTTPConnection, data: bytes) -> http.client.HTTPResponse:
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "User-Agent": "conductor-loop",
        }
        try:
            connection.request("POST", self.address.path, data, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have answered before it closed: too large a prompt, say
        return connection.getresponse()

    def _no_response(self, error: Exception, *, is_connected: bool, is_late: bool) -> Exception:
        if is_connected and isinstance(error, TimeoutError):
            return self.silence()
        if is_late and isinstance(error, OSError):  # it may be at work on it, and be paid for it
            what = f"{self.address.place} closed the connection without an answer"
            what = f"{what}: {_reason(error)}; it may have been at work: start it again"
            return AskError(what, "overload")
        if isinstance(error, OSError):
            what = f"no connection to {self.address.place}: {_reason(error)}"
            return _BusyError(what, "check the network, HTTPS_PROXY and base_url")
        what = f"{self.address.place} does not speak HTTP: {_reason(error)}"
        return AskError(f"{what}; correct base_url", "bad-request")

    def _distrust(self, error: ssl.SSLCertVerificationError) -> UserError:
        what = f"the certificate of {self.address.place} is not to be trusted"
        why = _render.one_line(error.verify_message, 200)
        cure = "correct base_url, or name its authority in SSL_CERT_FILE"
        return AskError(f"{what}: {why}; {cure}", "bad-request")

    def silence(self) -> UserError:
        what = f"{self.address.place} said nothing for {self.silence_seconds:g} s"
        return AskError(f"{what}; read_timeout: in config.yaml allows more", "silence")

    def _refusal(self, response: http.client.HTTPResponse) -> Exception:
        """What a status other than 200 means."""
        status = response.status
        said = _error_of(response)
        what = f"HTTP {status}: {said or _render.one_line(response.reason, 100) or 'no reason'}"
        if 300 <= status < 400:
            to = _render.one_line(response.getheader("Location") or "nowhere", 200)
            what = f"HTTP {status} leads to {to}: no key goes there; correct base_url"
            return AskError(what, "bad-request", status=status)
        if _is_about_money(status, said):
            cure = "is out of credit or at its limit: see to it at the service"
            what = f"{what}; the account of {self.key_variable} {cure}"
            return AskError(what, "quota", status=status)
        if status in (401, 403) or (status == 400 and "api key" in said.lower()):
            cure = f"set {self.key_variable}, or token_file: in config.yaml, to a valid key"
            return AskError(f"{what}; {cure}", "login", status=status)
        if status == 404:
            cure = f"correct {self._model()}, or base_url ({self.address.url})"
            return AskError(f"{what}; {cure}", "bad-request", status=status)
        if status == 429 or status >= 500:
            cure = "start fewer at once, or try again later" if status == 429 else "try again later"
            return _BusyError(what, cure, _retry_after(response.getheader("Retry-After")), status)
        cure = f"correct {self._model()}, or parameters: in config.yaml"
        return AskError(f"{what}; {cure}", "bad-request", status=status)

    def _model(self) -> str:
        for name in ("model", "preset"):
            if self.body.get(name):
                return f"{name}: {_render.one_line(str(self.body[name]), 80)}"
        return "model"


def _given_up(busy: _BusyError, tries: int) -> AskError:
    tried = f", after {tries} tries" if tries > 1 else ""
    kind = "quota" if busy.status == 429 else "overload"
    if not busy.pause_seconds:
        return AskError(f"{busy.what}{tried}; {busy.cure}", kind, status=busy.status)
    reset = time.time() + busy.pause_seconds
    when = ids.rfc3339_of(reset)
    cure = f"it says to try again in {busy.pause_seconds:.0f} s, at {when}"
    return AskError(f"{busy.what}{tried}; {cure}", kind, status=busy.status, reset=reset)


def _pause(number: int, told: float | None) -> float:
    """Seconds to the next try; a random part keeps those apart that were refused together."""
    chance = random.random()  # noqa: S311 - it only spreads tries
    if told is not None:
        return told * (1 + chance / 10)
    return min(2.0 ** (number - 1), MAX_PAUSE_SECONDS) * (1 + chance / 2)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header tells, as a number or as a date; None for neither."""
    text = (value or "").strip()
    try:
        seconds = float(text) if text[:1].isdigit() else _seconds_until(text)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), 1e7)


def _seconds_until(date: str) -> float:
    import email.utils

    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


def _is_about_money(status: int, said: str) -> bool:
    """xAI tells of an empty account with 429 or 403, and no wait would mend it."""
    words = ("credit", "spending limit", "insufficient_quota", "exceeded your current quota")
    refused = status in (400, 401, 403, 429) and any(word in said.lower() for word in words)
    return status == 402 or refused


def _error_of(response: http.client.HTTPResponse) -> str:
    try:
        text = response.read(ERROR_BYTES).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
    try:
        body = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return "" if text.startswith("<") else _render.one_line(text, 300)
    return _rest_answer.error_text(base.as_dict(body)) or _render.one_line(text, 300)


def _reason(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return _render.one_line(str(said), 200)
