"""A judge of the picture world behind OpenAI's chat protocol: it compares two pictures by what a detector finds.

It stands in for a large model that looks at pictures, in tests and in small runs, and can be told to be as bad as
those: to fail, to be slow, to call things equal, and to prefer the picture that comes first.
"""

import hashlib
import random
import threading
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from deepgen.config import Config
from deepgen.errors import InputError
from deepgen.rewards.protocol import Picture, RewardInput, Score
from deepgen.rewards.service import Answer, Refused
from deepgen.rewards.templates import PREFERENCE, prompt_in, read_template
from deepgen.rewards.wire import decode_picture
from deepgen.rewards.world_detector import WorldDetector

Share = Annotated[float, Field(ge=0, le=1)]
MODEL = "world-preference"
KEPT = 4096
"""Pictures whose values are remembered."""


class WorldJudgeConfig(Config):
    """The judge's manner.

    path: of a detector; None: the shipped one, by which the evaluation judges. template: the file from which its
    clients make their questions, ours if None. error_share: of requests, half of them answered with status 503, half
    dropped. delay_seconds: before an answer. tie_margin: values that differ by no more are a tie. tie_share: of
    comparisons called a tie whatever is seen. position_bias: share of comparisons won by Image 1 whatever is seen.
    garbage_share: of answers that cannot be read. seed: of all these draws.
    """

    path: Path | None = None
    device: str = "cpu"
    template: Path | None = None
    error_share: Share = 0.0
    delay_seconds: Annotated[float, Field(ge=0)] = 0.0
    tie_margin: Annotated[float, Field(ge=0)] = 0.0
    tie_share: Share = 0.0
    position_bias: Share = 0.0
    garbage_share: Share = 0.0
    seed: int = 0


class WorldJudge:
    """Raises CheckpointError without a detector, InputError for a template without a place for the prompt."""

    def __init__(self, config: WorldJudgeConfig) -> None:
        self._config = config
        self._template = read_template(config.template, PREFERENCE)
        self._reward = WorldDetector(MODEL, config.path, config.device)
        self._rng = random.Random(config.seed)
        self._one_at_a_time = threading.Lock()
        self._known: dict[tuple[str, tuple[int, ...], bytes], Score] = {}

    def routes(self) -> dict[str, Answer]:
        """`POST /v1/chat/completions`, `GET /v1/models`, `GET /health`."""
        return {
            "POST /v1/chat/completions": self.complete,
            "GET /v1/models": lambda _: {"object": "list", "data": [{"id": MODEL, "object": "model"}]},
            "GET /health": lambda _: {"name": MODEL, "kind": "preference"},
        }

    def complete(self, body: Any) -> dict[str, Any]:
        """One chat completion. Raises InputError for what is no question of the template about two pictures."""
        text, pictures = read_question(body)
        prompt = prompt_in(self._template, text)
        if prompt is None:
            raise InputError("the text is not of this judge's template; serve it with template=FILE")
        if len(pictures) != 2:
            raise InputError(f"two pictures are compared, not {len(pictures)}")
        with self._one_at_a_time:
            fails, manner = self._rng.random(), self._rng.random()
        time.sleep(self._config.delay_seconds)
        if fails < self._config.error_share:
            drop = fails < self._config.error_share / 2
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "told to fail", drop)
        return _completion(self._answer(prompt, pictures, manner))

    def _answer(self, prompt: str, pictures: Sequence[Picture], manner: float) -> str:
        """manner: in [0, 1), decides whether it looks at all."""
        config = self._config
        for share, answer in (
            (config.garbage_share, "I would rather not say."),
            (config.tie_share, "<answer>Tie</answer>"),
            (config.position_bias, "<answer>Image 1 is better</answer>"),
        ):
            if manner < share:
                return answer
            manner -= share
        scores = self.scores(prompt, pictures)
        first, second = (score.value for score in scores)
        if first is None or second is None:
            reason = next(score.reason for score in scores if not score.valid)
            return f"I cannot see which is better: {reason}.\n<answer>Tie</answer>"
        said = f"Image 1 has {first:.3f} of what was asked, Image 2 {second:.3f}.\n"
        if abs(first - second) <= config.tie_margin:
            return said + "<answer>Tie</answer>"
        return said + f"<answer>Image {1 if first > second else 2} is better</answer>"

    def scores(self, prompt: str, pictures: Sequence[Picture]) -> list[Score]:
        """Of each picture, by the detector; without values where the prompt asks for nothing that it can see.

        A picture is looked at once, however many others it meets.
        """
        keys = [(prompt, picture.shape, hashlib.sha256(picture.tobytes()).digest()) for picture in pictures]
        with self._one_at_a_time:
            new = {key: one for key, one in zip(keys, pictures, strict=True) if key not in self._known}
            found = self._reward([RewardInput(picture, prompt, "") for picture in new.values()])
            self._known |= dict(zip(new, found, strict=True))
            scores = [self._known[key] for key in keys]
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]  # the oldest
        return scores


def read_question(body: Any) -> tuple[str, list[Picture]]:
    """All text and all pictures of a request's messages. Raises InputError."""
    messages = body.get("messages") if isinstance(body, Mapping) else None
    if not isinstance(messages, list) or not messages:
        raise InputError("messages are missing")
    texts: list[str] = []
    pictures: list[Picture] = []
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
            raise InputError("a message's content must be a text or a list of parts")
        for part in parts:
            if part.get("type") == "image_url":
                pictures.append(_picture(part.get("image_url")))
            else:
                texts.append(str(part.get("text", "")))
    return "\n".join(texts), pictures


def _picture(part: Any) -> Picture:
    url = part.get("url") if isinstance(part, Mapping) else None
    if not isinstance(url, str) or not url.startswith("data:"):
        raise InputError("pictures must be data URLs: this judge fetches nothing")
    return decode_picture(url.partition("base64,")[2])


def _completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-world",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }
