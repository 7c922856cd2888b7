"""Asking a judge many questions at once, and telling what it did not answer from what cannot be used."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepgen.errors import JudgeError, RewardError
from deepgen.rewards.build import token_from
from deepgen.rewards.config import JudgeSettings
from deepgen.rewards.protocol import Picture
from deepgen.rewards.simple import jpeg
from deepgen.scorers.calls import JudgeCall, JudgeImage, JudgeProfile
from deepgen.scorers.endpoint import Endpoint, Rejected
from deepgen.scorers.judge import JudgeClient, Patience, Question, ask_all, without_thinking
from deepgen.scorers.replies import Reply, ReplyCache, call_key

Parse = Callable[[str], Any]
"""What a reply means; None where it cannot be used."""


@dataclass(frozen=True)
class Asked:
    """A question and its pictures."""

    text: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Answer:
    """What a reply means, or None; `failed`: there is no reply now, and there may be one later."""

    meaning: Any = None
    failed: bool = False
    reason: str = ""


class JudgeDesk:
    """A judge, its cache, and the files of the pictures that it is shown."""

    def __init__(self, name: str, settings: JudgeSettings) -> None:
        limits = () if settings.max_tokens is None else (settings.max_tokens,)
        self._profile = JudgeProfile(
            name,
            settings.model,
            order="images-first",
            temperature=settings.temperature,
            max_tokens=limits,
            extra=settings.extra,
            thinking="strip",
        )
        endpoint = Endpoint(settings.url, token_from(settings.token_env), settings.call_seconds)
        patience = Patience(settings.patience_seconds, 0.5, 10.0)
        self._client = JudgeClient(self._profile, endpoint, settings.concurrency, patience)
        self._settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="deepgen-judge-")
        self._cache = ReplyCache(settings.cache or Path(self._folder.name) / "replies.sqlite")

    def ask(self, questions: Sequence[Asked], parse: Parse) -> list[Answer]:
        """An answer for each question, asked all at once; equal questions are asked once, known ones not at all.

        Several threads may ask; `concurrency` is that of all of them.

        Raises RewardError where the judge turns all requests away: for a wrong key, model or address.
        """
        with tempfile.TemporaryDirectory(dir=self._folder.name) as name:
            files: dict[int, JudgeImage] = {}
            calls = [self._call(one, Path(name), files) for one in questions]

            def usable(reply: Reply) -> bool:
                return parse(without_thinking(reply, self._profile)) is not None

            gone = ""
            try:
                wanted = [Question(call, usable) for call in calls]
                ask_all(wanted, self._client, self._cache, self._settings.attempts, _silent)
            except JudgeError as error:
                if isinstance(error.__cause__, Rejected):
                    raise RewardError(str(error)) from error
                gone = str(error)
            return [self._answer(call, parse, gone) for call in calls]

    def _call(self, one: Asked, folder: Path, files: dict[int, JudgeImage]) -> JudgeCall:
        """A picture is encoded once, however many questions show it."""
        for picture in one.pictures:
            if id(picture) not in files:
                content = jpeg(picture, self._settings.jpeg_quality)
                path = folder / f"{hashlib.sha256(content).hexdigest()}.jpg"
                path.write_bytes(content)
                files[id(picture)] = JudgeImage(path)
        return JudgeCall("reward", one.text, tuple(files[id(picture)] for picture in one.pictures))

    def _answer(self, call: JudgeCall, parse: Parse, gone: str) -> Answer:
        reason = ""
        for attempt in range(self._settings.attempts):
            key = call_key(call, self._profile, attempt)
            reply = self._cache.get(key)
            if reply is None:
                return Answer(None, True, gone or self._cache.failure(key) or "the judge did not answer")
            if reply.status == "refused":
                return Answer(None, False, f"the judge refused: {reply.text[:80]}")
            meaning = parse(without_thinking(reply, self._profile))
            if meaning is not None:
                return Answer(meaning)
            reason = f"the judge's reply cannot be read: {reply.text[-80:]!r}"
        return Answer(None, False, reason)


def _silent(done: int, total: int) -> None:
    """The runner's metrics tell what happens."""
