"""A reward computed by a service elsewhere."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from deepgen.errors import InputError, RewardError
from deepgen.rewards.build import token_from
from deepgen.rewards.config import RemoteConfig
from deepgen.rewards.protocol import Kind, RewardInput, RewardUnavailable, Score
from deepgen.rewards.wire import groups_kept_together, input_to_json, scores_from_json

FATAL = frozenset({400, 401, 403, 404, 405, 411, 413, 415})
"""Answers that will not change: a wrong address, token or request. Everything else may pass."""


class Remote:
    """Sends pictures to a service of `deepgen reward serve`, groups kept together.

    What the service does not answer for now has failed; raises RewardError where it rejects what it is sent, and where
    its name or kind is another: that is asked before each batch, for another service may have been started there.
    """

    def __init__(self, name: str, config: RemoteConfig) -> None:
        parts = urlsplit(config.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"reward {name}: url {config.url!r} must be like http://localhost:8100")
        self.name = name
        self.kind: Kind = "groupwise" if config.groupwise else "pointwise"
        self._config = config
        self._token = token_from(config.token_env)
        # Proxies of the environment are for the world outside, not for a server on this machine.
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        handlers = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(*handlers)

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        """Scores of a part that was answered are kept where a later one is not; nothing is sent after that."""
        self._require_service()
        scores = [Score.failure("not asked: a request before it failed")] * len(batch)
        for places in groups_kept_together(batch, self._config.at_once):
            try:
                reply = self._ask("/score", {"inputs": [input_to_json(batch[place]) for place in places]})
            except RewardUnavailable as error:
                for place in places:
                    scores[place] = Score.failure(str(error))
                break
            for place, score in zip(places, scores_from_json(reply, len(places)), strict=True):
                scores[place] = score
        return scores

    def _require_service(self) -> None:
        """Raises RewardError where another reward is served at the address."""
        told = self._ask("/health")
        if not isinstance(told, dict) or (told.get("name"), told.get("kind")) != (self.name, self.kind):
            raise RewardError(
                f"reward {self.name} at {self._config.url}: the service says that it is {json.dumps(told)[:120]}, not "
                f"{self.name!r}, {self.kind}; give both the same name (`deepgen reward serve KIND name=…`), and "
                "groupwise where it compares pictures"
            )

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON that the service answers; a GET without a body."""
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        address = f"{self._config.url.rstrip('/')}{path}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, content, headers)
        where = f"reward {self.name} at {self._config.url}"
        try:
            with self._opener.open(request, timeout=self._config.call_seconds) as response:
                return json.loads(self._read(response, where))
        except urllib.error.HTTPError as error:
            with error:
                said = " ".join(error.read(300).decode("utf-8", "replace").split())
            if error.code in FATAL:
                raise RewardError(f"{where}: HTTP {error.code}: {said}") from error
            raise RewardUnavailable(f"{where}: HTTP {error.code}: {said}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise RewardUnavailable(f"{where}: {type(error).__name__}: {reason}") from error

    def _read(self, response: http.client.HTTPResponse, where: str) -> bytes:
        """The body, in at most call_seconds: a timeout of sockets counts from each byte anew.

        Raises RewardUnavailable, also for a body that was cut off.
        """
        deadline = time.monotonic() + self._config.call_seconds
        content = bytearray()
        while part := response.read1(1 << 16):
            content += part
            if time.monotonic() > deadline:
                raise RewardUnavailable(f"{where}: has not answered in {self._config.call_seconds:g} s")
        return bytes(content)
