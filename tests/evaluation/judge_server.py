"""A real HTTP server on the loopback that speaks the chat protocol of OpenAI, kindly or not.

    server.reply = "yes"                                   every call gets this text
    server.reply = lambda request: "yes" if ... else "no"  or what a function makes of the Request
    server.script = [Status(429), Half("yes"), "no"]       these first, one a call, in order of arrival
    server.requests                                        everything that arrived
    server.answered                                        what was sent back whole
    server.kill(); server.restart()                        connections are cut; the port stays the same

Tests get it as the fixture `judge_server`.
"""

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """What arrived, and the parts that answers depend on: all texts joined, and the pictures' bytes in order."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def parts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for message in self.body["messages"]:
            content = message["content"]
            found += [{"type": "text", "text": content}] if isinstance(content, str) else content
        return found

    @property
    def text(self) -> str:
        return "\n".join(part["text"] for part in self.parts if part["type"] == "text")

    @property
    def images(self) -> list[bytes]:
        urls = [part["image_url"]["url"] for part in self.parts if part["type"] == "image_url"]
        return [base64.b64decode(url.partition("base64,")[2]) for url in urls]


@dataclass(frozen=True)
class Status:
    """An HTTP error."""

    code: int
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "error"


@dataclass(frozen=True)
class Half:
    """Promises a whole body and closes the connection in the middle of it."""

    text: str = "yes"


@dataclass(frozen=True)
class Slow:
    """Answers after some seconds."""

    seconds: float
    text: str = "yes"


@dataclass(frozen=True)
class Dropped:
    """Closes the connection without a word."""


@dataclass(frozen=True)
class Garbage:
    """Status 200 with a body that is not what the protocol says."""

    body: str = "<html>bad gateway</html>"


@dataclass(frozen=True)
class Refusal:
    """The model declines by the protocol's own field."""

    text: str = "I can't help with that."


@dataclass(frozen=True)
class Filtered:
    """The reply is cut by a content filter."""

    text: str = ""


@dataclass(frozen=True)
class Cut:
    """The reply reached the limit of tokens."""

    text: str = ""


Reply = str | Status | Half | Slow | Dropped | Garbage | Refusal | Filtered | Cut


class JudgeServer:
    """See the module. `url` is the base that clients are given."""

    def __init__(self) -> None:
        self.reply: Reply | Callable[[Request], Reply] = "yes"
        self.script: list[Reply] = []
        self.requests: list[Request] = []
        self.answered: list[Request] = []
        self.model = "served-model"
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self.port = 0
        self.restart()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def restart(self) -> None:
        """Listen again, on the port of before."""
        self._server = _Server(self, self.port)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """Stop listening and cut every open connection, as a killed process does."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut()
            self._server = None

    def answer(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            if self.script:
                return self.script.pop(0)
        return self.reply(request) if callable(self.reply) else self.reply


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, judge: JudgeServer, port: int) -> None:
        self.judge = judge
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def cut(self) -> None:
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that were cut are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("/chat/completions"):
            return self._send(404, b"{}")
        request = Request(body, dict(self.headers))
        reply = self.server.judge.answer(request)
        if isinstance(reply, Slow):
            time.sleep(reply.seconds)
            reply = reply.text
        if isinstance(reply, Dropped):
            return None
        if isinstance(reply, Status):
            error = {"error": {"message": reply.message, "code": reply.kind, "type": reply.kind}}
            return self._send(reply.code, json.dumps(error).encode(), reply.headers)
        if isinstance(reply, Garbage):
            return self._send(200, reply.body.encode())
        if isinstance(reply, Half):
            content = self._completion(reply.text)
            return self._send(200, content[: len(content) // 2], length=len(content))
        self._send(200, self._completion(reply))
        self.server.judge.answered.append(request)
        return None

    def _completion(self, reply: str | Refusal | Filtered | Cut) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": reply}
        finish = "stop"
        if isinstance(reply, Refusal):
            message |= {"content": None, "refusal": reply.text}
        elif isinstance(reply, Filtered | Cut):
            message["content"] = reply.text
            finish = "content_filter" if isinstance(reply, Filtered) else "length"
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": self.server.judge.model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
        return json.dumps(body).encode()

    def _send(
        self, code: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
