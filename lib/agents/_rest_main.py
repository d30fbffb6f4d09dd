"""The process that asks a web service: prompt on stdin, events on stdout (see _rest.py).

    _rest_main.py --service NAME --api chat|agent --url URL --body JSON --silence SECONDS

The key is in the variable that the backend NAME has for it. Errors are one sentence,
in the last event and on stderr, and the status 1; 2 before anything was sent, where
the configuration is to be mended. What was received before an error is on stdout.

SIGTERM and SIGINT are left to the kernel: they end it at once, even while it looks
up a name. The key never reaches an output, though the service may send it back.
"""

from __future__ import annotations

import os
import sys
import time

if __name__ == "__main__":
    # In place of this folder, whose files would hide modules of the same name.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import _signal
import http.client
import json

from lib import agents, files, redact
from lib.agents import _render, _rest_address, _rest_answer, _rest_http, _rest_stream, base
from lib.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ALIVE_SECONDS = 10.0
READ_BYTES = 64 << 10
APIS = {"agent": _rest_answer.AgentAnswer, "chat": _rest_answer.ChatAnswer}


def main(argv: list[str]) -> int:
    options = dict(zip(argv[::2], argv[1::2], strict=True))
    prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    return Conversation(options, lambda data: files.write_all(1, data)).run(prompt)


class Conversation:
    """One question and its answer; `write` takes what goes to stdout."""

    def __init__(
        self,
        options: dict[str, str],
        write: Callable[[bytes], object],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.service = options["--service"]
        self.is_agent_api = options["--api"] == "agent"
        self.url = options["--url"]
        self.body = base.as_dict(json.loads(options["--body"]))
        self.silence_seconds = float(options["--silence"])
        self.key_variable = str(agents.load(self.service).TOKEN_VARIABLES[0])
        self.answer: _rest_answer.Answer = APIS[options["--api"]]()
        self._write = write
        self._sleep = sleep
        self._last_sign = time.monotonic()
        self._told_queries = 0
        self._mask = Mask(os.environ.get(self.key_variable, "").strip())

    def run(self, prompt: str) -> int:
        """Ask, pass the answer on while it comes; return the exit status."""
        try:
            self._ask(prompt)
        except UserError as failure:
            self._flush()
            sentence = _render.one_line(f"{self.service}: {failure}", 1000)
            facts = {**_fault_facts(failure), **self._facts()}
            self._emit(type="result", status="error", error=sentence, **facts)
            sys.stderr.write(sentence + "\n")
            return failure.exit_code
        return EXIT_OK

    def _ask(self, prompt: str) -> None:
        request = self._request(prompt)
        asked = {name: self.body[name] for name in ("model", "preset") if name in self.body}
        self._emit(type="start", service=self.service, **asked)
        try:
            with request.send() as response:
                self._read(response)
        except TimeoutError:
            if not self.answer.is_complete:
                raise request.silence() from None
        except (OSError, http.client.HTTPException) as error:
            if not self.answer.is_complete:
                raise _broken(type(error).__name__) from None
        except _rest_stream.AnswerError as fault:
            raise _rest_stream.AskError(f"{fault}; {_CURES[fault.kind]}", fault.kind) from None
        finally:
            request.close()
        self._end()

    def _request(self, prompt: str) -> _rest_http.Request:
        key = os.environ.get(self.key_variable, "").strip()
        cure = f"set {self.key_variable}, or token_file: of the agent in config.yaml"
        if not key:
            fault = f"there is no key for it; {cure}"
            raise _rest_stream.AskError(fault, "login", exit_code=EXIT_USAGE)
        if not (key.isascii() and key.isprintable() and " " not in key):
            fault = f"its key has characters that no key has (two lines?); {cure}"
            raise _rest_stream.AskError(fault, "login", exit_code=EXIT_USAGE)
        if not prompt.strip():
            fault = "the prompt is empty; write what it shall do"
            raise _rest_stream.AskError(fault, "bad-request")
        asked: dict[str, object] = {"input": prompt}
        if not self.is_agent_api:
            asked = {"messages": [{"role": "user", "content": prompt}]}
        return _rest_http.Request(
            _rest_address.Address(self.url),
            {**self.body, **asked, "stream": True},
            key=key,
            key_variable=self.key_variable,
            silence_seconds=self.silence_seconds,
            say=self._say_wait,
            sleep=self._sleep,
        )

    def _say_wait(self, message: str) -> None:
        self._emit(type="wait", message=message)
        sys.stderr.write(_render.one_line(f"{self.service}: {message}", 1000) + "\n")
        sys.stderr.flush()

    # -- the answer

    def _read(self, response: http.client.HTTPResponse) -> None:
        kind = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        if kind == "application/json":  # it does not stream
            self._pass_on(self.answer.take_whole(_whole(response)))
            return
        if kind not in ("text/event-stream", ""):
            what = f"{self.url} answers with {_render.one_line(kind, 60)}, which is no answer"
            raise _rest_stream.AskError(f"{what}; correct base_url", "bad-request")
        events = _rest_stream.EventStream()
        while not self.answer.is_over:
            piece = response.read1(READ_BYTES)
            for data in events.feed(piece) if piece else events.finish():
                self._pass_on(self.answer.take(data))
                if self.answer.is_over:
                    return
            if not piece:
                return
            self._give_sign()

    def _pass_on(self, text: str) -> None:
        if queries := self.answer.queries[self._told_queries :]:
            self._emit(type="search", queries=queries)
            self._told_queries += len(queries)
        if text := self._mask.feed(text):
            self._emit(type="text", text=text)

    def _give_sign(self) -> None:
        """Show that the service is at work: one that reasons is not silent."""
        if time.monotonic() - self._last_sign > ALIVE_SECONDS:
            self._emit(type="alive")

    def _flush(self) -> None:
        if rest := self._mask.finish():
            self._emit(type="text", text=rest)

    def _end(self) -> None:
        answer = self.answer
        if not answer.is_complete:
            raise _broken("the stream ended")
        text = answer.with_sources()
        if not text.strip():
            fault = "its answer is empty; try again, or another model"
            raise _rest_stream.AskError(fault, "failed")
        self._flush()
        if sources := answer.sources():
            self._emit(type="text", text=f"\n\n{sources}")
        more = {"warning": answer.warning} if answer.warning else {}
        self._emit(type="result", status="success", text=text, **more, **self._facts())
        if answer.warning:
            sys.stderr.write(f"{self.service}: {answer.warning}\n")

    def _facts(self) -> dict[str, object]:
        facts = {"model": self.answer.model, "usage": self.answer.usage}
        return {name: value for name, value in facts.items() if value}

    def _emit(self, **event: object) -> None:
        line = json.dumps(redact.values(event), ensure_ascii=False)
        self._write(line.encode("utf-8", "replace") + b"\n")
        self._last_sign = time.monotonic()


_CURES = {"overload": "try again", "refusal": "word the prompt in another way"}


def _broken(why: str) -> UserError:
    fault = f"its answer broke off before its end ({why}); try again"
    return _rest_stream.AskError(fault, "overload")


def _fault_facts(failure: UserError) -> dict[str, object]:
    """What the last event tells of a failure beside its sentence."""
    if not isinstance(failure, _rest_stream.AskError):
        return {"error_class": "bad-request"}  # an address that is none, say
    facts = {"error_class": failure.kind, "http_status": failure.status, "reset": failure.reset}
    return {name: value for name, value in facts.items() if value}


def _whole(response: http.client.HTTPResponse) -> str:
    data = response.read(_rest_stream.MAX_EVENT_BYTES + 1)
    if len(data) > _rest_stream.MAX_EVENT_BYTES:
        raise _rest_stream.AnswerError(
            f"its answer is above {_rest_stream.MAX_EVENT_BYTES >> 20} MiB"
        )
    return data.decode("utf-8", "replace")


class Mask:
    """Text in pieces without the key, wherever the borders fall."""

    def __init__(self, key: str) -> None:
        self._key = key if len(key) >= redact.MIN_TOKEN else ""
        self._held = ""

    def feed(self, piece: str) -> str:
        """The text so far but for an end that may be the beginning of the key."""
        text = self._held + piece
        if self._key:
            text = text.replace(self._key, redact.MARK)
        cut = len(text) - self._begun(text)
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        rest, self._held = self._held, ""
        return rest

    def _begun(self, text: str) -> int:
        longest = min(len(self._key) - 1, len(text))
        return next((n for n in range(longest, 0, -1) if text.endswith(self._key[:n])), 0)


if __name__ == "__main__":
    for number in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_DFL)
    try:
        status = main(sys.argv[1:])
    except OSError as error:  # of stdout: a full disk, say
        sys.stderr.write(f"the answer cannot be written: {error.strerror}\n")
        status = EXIT_FAILED
    sys.exit(status)
