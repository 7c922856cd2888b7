"""A small HTTP service of JSON: for rewards, and for the judge of the picture world.

It needs nothing beyond Python, so that a reward can be served wherever it can be computed. It answers only requests
with its token, if it has one; without one it listens on the loopback alone, and takes bodies only as
`application/json`, which pages in a browser cannot send to another site unasked.
"""

import hmac
import ipaddress
import json
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from deepgen.errors import DeepGenError, InputError
from deepgen.rewards.protocol import Reward, RewardUnavailable
from deepgen.rewards.wire import input_from_json, score_to_json

MOST_BYTES = 1 << 28
IDLE_SECONDS = 60


class Refused(Exception):
    """A request that is answered with an error. drop: the connection is closed without an answer."""

    def __init__(self, status: HTTPStatus, message: str, drop: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.drop = drop


Answer = Callable[[Any], dict[str, Any]]
"""Takes the body's JSON (None for a GET), gives the reply's. May raise Refused or a DeepGenError."""


@dataclass(frozen=True)
class Address:
    """Where a service listens, and the token that requests must carry. Port 0: any that is free.

    Raises InputError for an address that others can reach without a token.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is None and not _is_loopback(self.host):
            raise InputError(
                f"{self.host} can be reached from elsewhere: give the service a token (--token-env)"
            )


class JsonService(ThreadingHTTPServer):
    """Routes ("GET /health") to answers, each request in a thread; `url` once it is made, `serve_forever` to run."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: Address, routes: Mapping[str, Answer]) -> None:
        self.routes = dict(routes)
        self.token = address.token
        try:
            super().__init__((address.host, address.port), _Handler)
        except OSError as error:
            raise InputError(f"cannot listen at {address.host}:{address.port} ({error.strerror})") from error

    def server_bind(self) -> None:
        """HTTPServer's own also looks up the machine's name, which takes seconds where no name server answers."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the service."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"


def reward_routes(reward: Reward) -> dict[str, Answer]:
    """The routes of a reward: `GET /health` → {"name", "kind"}, `POST /score` {"inputs": [...]} → {"scores": [...]}.

    One batch at a time: models are not called from two threads.
    """
    one_at_a_time = threading.Lock()

    def health(_: Any) -> dict[str, Any]:
        return {"name": reward.name, "kind": reward.kind}

    def score(body: Any) -> dict[str, Any]:
        rows = body.get("inputs") if isinstance(body, dict) else None
        if not isinstance(rows, list):
            raise InputError('the body must be {"inputs": [...]}')
        inputs = [input_from_json(row) for row in rows]
        with one_at_a_time:
            return {"scores": [score_to_json(score) for score in reward(inputs)]}

    return {"GET /health": health, "POST /score": score}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "deepgen"
    timeout = IDLE_SECONDS
    server: JsonService

    def do_GET(self) -> None:
        self._respond(lambda: None)

    def do_POST(self) -> None:
        self._respond(self._body)

    def log_message(self, *_: object) -> None:
        """Quiet: the client counts what fails."""

    def _respond(self, read: Callable[[], Any]) -> None:
        try:
            self._check_token()
            answer = self.server.routes.get(f"{self.command} {self.path.partition('?')[0]}")
            if answer is None:
                raise Refused(HTTPStatus.NOT_FOUND, f"no {self.command} {self.path}")
            status, reply = HTTPStatus.OK, answer(read())
        except Refused as error:
            if error.drop:
                self.close_connection = True
                return
            status, reply = error.status, _error(error)
        except InputError as error:
            status, reply = HTTPStatus.BAD_REQUEST, _error(error)
        except RewardUnavailable as error:
            status, reply = HTTPStatus.SERVICE_UNAVAILABLE, _error(error)
        except (DeepGenError, RuntimeError) as error:  # RuntimeError: of torch, such as out of memory
            status, reply = HTTPStatus.INTERNAL_SERVER_ERROR, _error(error)
        self._send(status, reply)

    def _check_token(self) -> None:
        token = self.server.token
        given = self.headers.get("Authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Refused(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")

    def _body(self) -> Any:
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if int(length) > MOST_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MOST_BYTES} bytes")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error

    def _send(self, status: HTTPStatus, reply: Mapping[str, Any]) -> None:
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status != HTTPStatus.OK:
            # What was not read of a refused body would be taken for the next request.
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def _error(error: Exception) -> dict[str, Any]:
    return {"error": {"message": str(error)}}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
