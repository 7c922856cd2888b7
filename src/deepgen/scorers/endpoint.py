"""One call to an endpoint that speaks OpenAI's chat protocol, and what its answer means."""

import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from deepgen.errors import InputError
from deepgen.scorers.calls import JudgeCall, JudgeProfile
from deepgen.scorers.encode import data_url
from deepgen.scorers.replies import Reply, token_limit

FILTER_WORDS = ("content_filter", "content_policy", "responsibleai", "safety", "moderation", "jailbreak")
"""In the error of a request that a content filter turned away."""
FATAL = frozenset({401, 402, 403, 404})
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class Transient(Exception):
    """A failure that may pass. wait: seconds that the server asked for, None where it did not."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Rejected(Exception):
    """The server will not answer this request. fatal: nor any other: a wrong key, model or address."""

    def __init__(self, reason: str, fatal: bool) -> None:
        super().__init__(reason)
        self.fatal = fatal


@dataclass(frozen=True)
class Endpoint:
    """url: up to and with /v1, or the full address of `chat/completions`. timeout_seconds: of one call."""

    url: str
    key: str | None = None
    timeout_seconds: float = 300.0

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise InputError(f"judge's address {self.url!r} must be like http://localhost:8000/v1")

    @property
    def address(self) -> str:
        base = self.url.rstrip("/")
        path = urlsplit(base).path
        return base if path.endswith("/chat/completions") else f"{base}/chat/completions"


def messages(call: JudgeCall, profile: JudgeProfile) -> list[dict[str, Any]]:
    """The protocol's messages for a call in the profile's manner. Raises DataError for unreadable pictures."""
    text = call.text
    found: list[dict[str, Any]] = []
    if call.system and profile.system == "message":
        found.append({"role": "system", "content": [{"type": "text", "text": call.system}]})
    elif call.system:
        text = f"{call.system}\n{text}"
    pictures: list[dict[str, Any]] = []
    for image in call.images:
        part = {"url": data_url(image, profile.image)}
        if profile.image.detail is not None:
            part["detail"] = profile.image.detail
        pictures.append({"type": "image_url", "image_url": part})
    words = [{"type": "text", "text": text}]
    content = [*words, *pictures] if profile.order == "text-first" else [*pictures, *words]
    return [*found, {"role": "user", "content": content}]


def request_body(call: JudgeCall, profile: JudgeProfile, attempt: int) -> dict[str, Any]:
    """The JSON of one request."""
    body: dict[str, Any] = {"model": profile.model, "messages": messages(call, profile)}
    if profile.temperature is not None:
        body["temperature"] = profile.temperature
    if (limit := token_limit(profile, attempt)) is not None:
        body["max_tokens"] = limit
    return body | dict(profile.extra)


def send(endpoint: Endpoint, body: dict[str, Any]) -> Reply:
    """One request. Raises Transient where trying again may help, Rejected where it cannot."""
    headers = {"Content-Type": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
        if (urlsplit(endpoint.url).hostname or "").endswith(".azure.com"):
            headers["api-key"] = endpoint.key
    request = urllib.request.Request(endpoint.address, json.dumps(body).encode(), headers)
    started = time.monotonic()
    try:
        with _opener(endpoint).open(request, timeout=endpoint.timeout_seconds) as response:
            content = response.read()
    except urllib.error.HTTPError as error:
        return _refusal_of(error)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise Transient(f"{type(error).__name__}: {reason}") from error
    return read_completion(content, time.monotonic() - started)


def _opener(endpoint: Endpoint) -> urllib.request.OpenerDirector:
    """Proxies of the environment are for the world outside, not for a server on this machine."""
    if urlsplit(endpoint.url).hostname in ("localhost", "127.0.0.1", "::1"):
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def read_completion(content: bytes, seconds: float) -> Reply:
    """The reply in a body of status 200. Raises Transient for a body that is none, as broken gateways send."""
    try:
        data = json.loads(content)
        choice = data["choices"][0]
        message = choice["message"]
        text, declined = message.get("content"), message.get("refusal")
        model = str(data.get("model") or "")
        usage = {k: v for k, v in (data.get("usage") or {}).items() if isinstance(v, int)}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Transient(f"a body that is no chat completion: {content[:80]!r}") from error
    if declined or choice.get("finish_reason") == "content_filter":
        return Reply("refused", str(declined or text or "content filter"), model, usage, seconds)
    if isinstance(text, list):
        text = "".join(part.get("text", "") for part in text if isinstance(part, dict))
    return Reply("ok", text or "", model, usage, seconds, choice.get("finish_reason") == "length")


def _refusal_of(error: urllib.error.HTTPError) -> Reply:
    """A refused Reply for a content filter's error; raises what any other error is."""
    with error:
        try:
            content = error.read().decode("utf-8", "replace")
        except (http.client.HTTPException, OSError):
            content = ""
    said = " ".join(content.split())[:300]
    if error.code in (400, 403, 422, 451) and any(word in content.lower() for word in FILTER_WORDS):
        return Reply("refused", said)
    reason = f"HTTP {error.code}: {said or error.reason}"
    if "insufficient_quota" in content:
        raise Rejected(reason, fatal=True)
    if error.code in RETRIED:
        raise Transient(reason, retry_after(error.headers.get("Retry-After")))
    raise Rejected(reason, error.code in FATAL)


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks to wait: a number, or a date; None where it says neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
