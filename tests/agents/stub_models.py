"""A model server that is none: it answers real agent programs with what it was told to say.

    with Stub(tool="echo hello") as stub:
        ...  # an agent whose base URL is stub.url, or stub.url + "/v1" for codex
        stub.asked  # what it sent

It speaks as much of three APIs as the programs need: Anthropic's messages (claude),
OpenAI's responses (codex) and Gemini's generateContent (gemini).  It listens on the
loopback interface only.  By hand, with a line of JSON for each request:

    python3 -m tests.agents.stub_models --port 8899 --tool 'date > made.txt'
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
Event = tuple[str, Json]  # its name ("" = none), and its data

INPUT_TOKENS, CACHED_TOKENS, OUTPUT_TOKENS = 1200, 400, 34  # of each request that is answered
LONGEST_SECONDS = 300  # that an answer is held back, whatever a test forgets

_TOKEN_HEADERS = ("x-api-key", "authorization", "x-goog-api-key")
_numbers = itertools.count(1)


def _shell_code(command: str) -> str:
    """The same call as a line of the JavaScript that codex has its models write."""
    return f"text(await tools.exec_command({json.dumps({'cmd': command})}));"


# The tool with which each program runs a command, and what it is called with;
# text, not an object, makes it a call of a custom tool.
SHELL_TOOLS: dict[str, Callable[[str], Json | str]] = {
    "Bash": lambda command: {"command": command, "description": "As the test wants it"},
    "exec": _shell_code,
    "exec_command": lambda command: {"cmd": command},
    "run_shell_command": lambda command: {"command": command},
}


class Asked:
    """One request, as it arrived; `status` is 0 until it is answered."""

    def __init__(self, method: str, path: str, tokens: dict[str, str], body: Json) -> None:
        self.method = method
        self.path = path.partition("?")[0]
        self.tokens = tokens  # {header: token}: the tests have none that is secret
        self.body = body
        self.status = 0
        self.streams = False
        self.texts: list[str] = []  # what the user said, from the first prompt on
        self.outputs: list[str] = []  # of tools
        self.tools: list[str] = []

    @property
    def wants_answer(self) -> bool:
        """Whether it is one of the agent's own, with its tools, and not for some side purpose."""
        return any(name in SHELL_TOOLS for name in self.tools)

    def line(self) -> str:
        """For a log; of tokens, the last four characters."""
        value = {
            "method": self.method,
            "path": self.path,
            "tokens": {name: f"…{token[-4:]}" for name, token in self.tokens.items()},
            "streams": self.streams,
            "prompt": (self.texts or [""])[-1][:60],
            "outputs": self.outputs,
            "status": self.status,
        }
        return json.dumps(value, ensure_ascii=False)


class Reply:
    """What the model says: a text, or a call of a tool."""

    def __init__(self, model: str, text: str, tool: str = "", command: str = "") -> None:
        self.model = model
        self.text = text
        self.tool = tool
        self.input = SHELL_TOOLS[tool](command) if tool else ""

    @property
    def pieces(self) -> list[str]:
        """The text as it is streamed."""
        middle = len(self.text) // 2
        return [self.text[:middle], self.text[middle:]]


def _new_id(kind: str) -> str:
    return f"{kind}_stub{next(_numbers):04d}"


def _texts(content: object) -> list[str]:
    """The texts in what may be a text, or a list of parts."""
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and "text" in part]


def _joined(content: object) -> str:
    return "".join(_texts(content)) or json.dumps(content, ensure_ascii=False)


def _example(schema: Json) -> Any:
    """Something that fits a JSON schema."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = str(schema.get("type", "object")).lower()
    if kind == "object":
        fields = schema.get("properties", {})
        return {name: _example(fields[name]) for name in fields}
    return {"array": [], "number": 1, "integer": 1, "boolean": False}.get(kind, "as asked")


class Messages:
    """Anthropic's messages."""

    def take(self, asked: Asked) -> None:
        asked.streams = asked.body.get("stream") is True
        asked.tools = [tool.get("name", "") for tool in asked.body.get("tools", [])]
        for message in asked.body.get("messages", []):
            if message.get("role") != "user":
                continue
            content = message.get("content")
            asked.texts += _texts(content)
            for part in content if isinstance(content, list) else []:
                if part.get("type") == "tool_result":
                    asked.outputs.append(_joined(part.get("content")))

    def model(self, asked: Asked) -> str:
        return str(asked.body.get("model"))

    def whole(self, reply: Reply) -> Json:
        block: Json = {"type": "text", "text": reply.text}
        if reply.tool:
            call = {"id": _new_id("toolu"), "name": reply.tool, "input": reply.input}
            block = {"type": "tool_use", **call}
        usage = {
            "input_tokens": INPUT_TOKENS - CACHED_TOKENS,
            "cache_read_input_tokens": CACHED_TOKENS,
            "cache_creation_input_tokens": 0,
            "output_tokens": OUTPUT_TOKENS,
        }
        return {
            "id": _new_id("msg"),
            "type": "message",
            "role": "assistant",
            "model": reply.model,
            "content": [block],
            "stop_reason": "tool_use" if reply.tool else "end_turn",
            "stop_sequence": None,
            "usage": usage,
        }

    def events(self, reply: Reply) -> Iterator[Event]:
        whole = self.whole(reply)
        [block] = whole["content"]
        empty = {**block, "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in reply.pieces]
        if reply.tool:
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(reply.input)}]
        end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        stages: list[Event] = [
            ("message_start", {"message": {**whole, "content": [], "stop_reason": None}}),
            ("content_block_start", {"index": 0, "content_block": empty}),
            *(("content_block_delta", {"index": 0, "delta": delta}) for delta in deltas),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": end, "usage": {"output_tokens": OUTPUT_TOKENS}}),
            ("message_stop", {}),
        ]
        for kind, data in stages:
            yield kind, {"type": kind, **data}

    def error(self, status: int, text: str) -> Json:
        kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
        kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": text}}


class Responses:
    """OpenAI's responses."""

    def take(self, asked: Asked) -> None:
        asked.streams = asked.body.get("stream") is True
        asked.tools = list(self._tool_names(asked.body.get("tools", [])))
        for item in asked.body.get("input", []):
            kind = str(item.get("type", ""))
            if kind.endswith("_call_output"):
                asked.outputs.append(_joined(item.get("output")))
            elif kind == "additional_tools":  # code mode hands them in here
                asked.tools += self._tool_names(item.get("tools", []))
            elif item.get("role") == "user":
                asked.texts += _texts(item.get("content"))

    def _tool_names(self, tools: list[Json]) -> Iterator[str]:
        for tool in tools:
            yield str(tool.get("name", ""))
            yield from self._tool_names(tool.get("tools", []))  # of a namespace

    def model(self, asked: Asked) -> str:
        return str(asked.body.get("model"))

    def _item(self, reply: Reply) -> Json:
        if not reply.tool:
            part = {"type": "output_text", "text": reply.text, "annotations": []}
            return {
                "type": "message",
                "id": _new_id("msg"),
                "role": "assistant",
                "status": "completed",
                "content": [part],
            }
        call = {"call_id": _new_id("call"), "name": reply.tool, "status": "completed"}
        if isinstance(reply.input, str):
            return {"type": "custom_tool_call", "id": _new_id("ctc"), **call, "input": reply.input}
        arguments = json.dumps(reply.input)
        return {"type": "function_call", "id": _new_id("fc"), **call, "arguments": arguments}

    def _response(self, reply: Reply, item: Json | None) -> Json:
        usage = {
            "input_tokens": INPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
            "output_tokens": OUTPUT_TOKENS,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }
        return {
            "id": _new_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "model": reply.model,
            "status": "completed" if item else "in_progress",
            "output": [item] if item else [],
            "usage": usage if item else None,
            "error": None,
        }

    def whole(self, reply: Reply) -> Json:
        return self._response(reply, self._item(reply))

    def events(self, reply: Reply) -> Iterator[Event]:
        item = self._item(reply)
        begun = {**item, "status": "in_progress"}
        field = {"message": "content", "function_call": "arguments"}.get(item["type"], "input")
        begun[field] = [] if field == "content" else ""
        stages: list[Event] = [
            ("response.created", {"response": self._response(reply, None)}),
            ("response.output_item.added", {"output_index": 0, "item": begun}),
        ]
        if not reply.tool:
            at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
            kind = "response.output_text.delta"
            stages += [(kind, {**at, "delta": piece}) for piece in reply.pieces]
        stages += [
            ("response.output_item.done", {"output_index": 0, "item": item}),
            ("response.completed", {"response": self._response(reply, item)}),
        ]
        for number, (kind, data) in enumerate(stages):
            yield kind, {"type": kind, "sequence_number": number, **data}

    def error(self, status: int, text: str) -> Json:
        codes = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
        code = codes.get(status, "server_error" if status >= 500 else "invalid_request")
        return {"error": {"message": text, "type": code, "code": code, "param": None}}


class Generate:
    """Gemini's generateContent."""

    def take(self, asked: Asked) -> None:
        asked.streams = ":stream" in asked.path
        for tool in asked.body.get("tools", []):
            asked.tools += [one.get("name", "") for one in tool.get("functionDeclarations", [])]
        for content in asked.body.get("contents", []):
            parts = content.get("parts", [])
            if content.get("role", "user") == "user":
                asked.texts += _texts(parts)
            results = [part["functionResponse"] for part in parts if "functionResponse" in part]
            for result in results:
                said = result.get("response", {})
                asked.outputs.append(str(said.get("output", said)))

    def model(self, asked: Asked) -> str:
        return asked.path.rpartition("/")[2].partition(":")[0]

    def whole(self, reply: Reply) -> Json:
        part: Json = {"text": reply.text}
        if reply.tool:
            part = {
                "functionCall": {"id": _new_id("call"), "name": reply.tool, "args": reply.input}
            }
        return {
            "candidates": [
                {"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
            ],
            "modelVersion": reply.model,
            "responseId": _new_id("response"),
            "usageMetadata": {
                "promptTokenCount": INPUT_TOKENS,
                "cachedContentTokenCount": CACHED_TOKENS,
                "candidatesTokenCount": OUTPUT_TOKENS,
                "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
            },
        }

    def events(self, reply: Reply) -> Iterator[Event]:
        if reply.tool:
            yield "", self.whole(reply)
            return
        *first, last = reply.pieces
        for piece in first:
            content = {"role": "model", "parts": [{"text": piece}]}
            yield "", {"candidates": [{"index": 0, "content": content}]}
        yield "", self.whole(Reply(reply.model, last))

    def error(self, status: int, text: str) -> Json:
        names = {401: "UNAUTHENTICATED", 429: "RESOURCE_EXHAUSTED"}
        name = names.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
        return {"error": {"code": status, "message": text, "status": name}}


Api = Messages | Responses | Generate


def _api(path: str) -> Api | None:
    """The one that answers at a path; None for what is no request to a model."""
    if path.endswith("/messages"):
        return Messages()
    if path.endswith("/responses"):
        return Responses()
    if path.endswith((":generateContent", ":streamGenerateContent")):
        return Generate()
    return None


class Stub:
    """The server; what it says may be changed while it runs.

    `tool` is a command that the agent is told to run once, before `answer`.  The first
    `failures` requests (None: all) get `status`, if that is not 0, with `retry_after`.
    With `token`, any other gets 401.  While `gate` is not set, no request to a model is
    answered.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        answer: str = "The stub has spoken.",
        tool: str = "",
        status: int = 0,
        failures: int | None = None,
        retry_after: str = "",
        delay_seconds: float = 0,
        token: str = "",
    ) -> None:
        self.answer = answer
        self.tool = tool
        self.status = status
        self.failures = failures
        self.retry_after = retry_after
        self.delay_seconds = delay_seconds
        self.token = token
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[Asked] = []
        self.log: Callable[[Asked], None] = lambda _: None
        self._lock = threading.Lock()
        self._failed = 0
        self._over = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.stub = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Stub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def answered(self) -> list[Asked]:
        """The agent's own requests, without those it makes for other purposes."""
        return [asked for asked in self.asked if asked.wants_answer and asked.status == 200]

    def take(self, asked: Asked, api: Api) -> tuple[int, Reply]:
        """Decide on the answer; waits for the gate and the delay."""
        self.gate.wait(LONGEST_SECONDS)
        self._over.wait(self.delay_seconds)
        with self._lock:
            status = self._fault(asked)
            tool = next((name for name in asked.tools if name in SHELL_TOOLS), "")
            command = ""
            if tool and not status:
                self.tool, command = "", self.tool
        text = self.answer
        form = asked.body.get("generationConfig", {}).get("responseJsonSchema")
        if form:  # gemini asks a small model first which one to take
            text = json.dumps(_example(form))
        return status or 200, Reply(api.model(asked), text, tool if command else "", command)

    def _fault(self, asked: Asked) -> int:
        if self.token and set(asked.tokens.values()) != {self.token}:
            return 401
        if self.status and (self.failures is None or self._failed < self.failures):
            self._failed += 1
            return self.status
        return 0


class _Server(ThreadingHTTPServer):
    stub: Stub
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that was killed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*_)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Leave stderr alone."""

    def do_POST(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_CONNECT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, self.path, self._tokens(), json.loads(body or b"{}"))
        api = _api(asked.path) if self.command == "POST" else None
        if api:
            api.take(asked)
        self.server.stub.asked.append(asked)
        try:
            self._answer(asked, api)
        finally:
            self.server.stub.log(asked)

    def _tokens(self) -> dict[str, str]:
        found = {name: self.headers.get(name, "") for name in _TOKEN_HEADERS}
        return {name: token.removeprefix("Bearer ") for name, token in found.items() if token}

    def _answer(self, asked: Asked, api: Api | None) -> None:
        if api is None:
            self._send_other(asked)
            return
        stub = self.server.stub
        asked.status, reply = stub.take(asked, api)
        if asked.status != 200:
            self._send(asked, api.error(asked.status, f"the stub says {asked.status}"))
        elif not asked.streams:
            self._send(asked, api.whole(reply))
        else:
            lines = []
            for name, data in api.events(reply):
                lines += [f"event: {name}\n" if name else "", f"data: {json.dumps(data)}\n\n"]
            self._send_bytes(asked, "".join(lines).encode(), "text/event-stream")

    def _send_other(self, asked: Asked) -> None:
        """Answer what asks no model to speak."""
        asked.status = 404
        if self.headers.get("Upgrade"):
            asked.status = 426  # codex would like a WebSocket, and takes this for a no
        elif asked.path.endswith(("/count_tokens", ":countTokens")) or asked.path == "/":
            asked.status = 200
        self._send(asked, {"input_tokens": INPUT_TOKENS, "totalTokens": INPUT_TOKENS})

    def _send(self, asked: Asked, value: Json) -> None:
        self._send_bytes(asked, json.dumps(value).encode(), "application/json")

    def _send_bytes(self, asked: Asked, data: bytes, kind: str) -> None:
        self.send_response(asked.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if asked.status != 200 and self.server.stub.retry_after:
            self.send_header("Retry-After", self.server.stub.retry_after)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A model server on 127.0.0.1 that is none.")
    parser.add_argument("--port", type=int, default=0, help="(default: a free one)")
    parser.add_argument("--answer", default="The stub has spoken.")
    parser.add_argument("--tool", default="", help="a command for the agent to run, once")
    parser.add_argument("--status", type=int, default=0, help="an HTTP status to fail with")
    parser.add_argument("--failures", type=int, help="how often (default: always)")
    parser.add_argument("--retry-after", default="", help="seconds, as a header of a failure")
    parser.add_argument("--delay-seconds", type=float, default=0, help="before each answer")
    parser.add_argument("--token", default="", help="the only one that is taken")
    with Stub(**vars(parser.parse_args())) as stub:
        stub.log = lambda asked: print(asked.line(), flush=True)
        print(stub.url, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
