"""The judge client: many questions to one judge, answered once each, whatever happens to the server meanwhile."""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Protocol

from deepgen.errors import JudgeError
from deepgen.scorers.calls import JudgeCall, JudgeProfile
from deepgen.scorers.endpoint import Endpoint, Rejected, Transient, request_body, send
from deepgen.scorers.replies import Reply, ReplyCache, call_key
from deepgen.scorers.threads import in_thread

Keep = Callable[[int, Reply], None]
"""Takes (place in the calls, reply) as they come, in any order, one at a time."""


class Scorer(Protocol):
    """Anything that answers calls: an endpoint, a detector, a reader, a program."""

    @property
    def profile(self) -> JudgeProfile: ...

    def answer(self, calls: Sequence[JudgeCall], attempt: int, keep: Keep) -> None:
        """Give every reply to `keep` as soon as it is there. Raises JudgeError where none can be had at all."""
        ...


@dataclass(frozen=True)
class Patience:
    """How failures are borne. A call is given up after `seconds` without an answer; pauses double from `first` to
    `longest` seconds, with up to a half added at random so that calls do not come back all at once."""

    seconds: float = 900.0
    first: float = 1.0
    longest: float = 60.0


class JudgeClient:
    """An OpenAI-compatible endpoint as a Scorer, `concurrency` calls at a time, whichever threads ask it."""

    def __init__(
        self,
        profile: JudgeProfile,
        endpoint: Endpoint,
        concurrency: int = 8,
        patience: Patience | None = None,
    ) -> None:
        self._profile = profile
        self._endpoint = endpoint
        self._concurrency = concurrency
        self._patience = patience or Patience()
        self._slots = threading.Semaphore(concurrency)
        self._one_at_a_time = threading.Lock()
        self._last_answer = -math.inf

    @property
    def profile(self) -> JudgeProfile:
        return self._profile

    def answer(self, calls: Sequence[JudgeCall], attempt: int, keep: Keep) -> None:
        """See Scorer. When it is stopped, by an interrupt or an error, what is on its way is still kept: it is paid.

        Raises JudgeError where the server rejects requests of this kind (key, model) or is gone.
        """
        stop = threading.Event()
        waiting = iter(enumerate(calls))
        running: set[Future[None]] = set()
        try:
            while True:
                # Only what can run at once is handed out, so that a stop leaves no queue behind.
                while len(running) < self._concurrency and (following := next(waiting, None)):
                    running.add(in_thread(self._answer, *following, attempt, keep, stop))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        finally:
            stop.set()
            wait(running)

    def _answer(self, place: int, call: JudgeCall, attempt: int, keep: Keep, stop: threading.Event) -> None:
        with self._slots:
            if stop.is_set():
                return
            reply = self._ask(call, attempt, stop)
        with self._one_at_a_time:
            keep(place, reply)

    def _ask(self, call: JudgeCall, attempt: int, stop: threading.Event) -> Reply:
        """One call with its retries; "failed" when patience runs out or the server rejects just this call.

        Raises JudgeError where the server rejects every call, or answered none for as long as patience lasts.
        """
        body = request_body(call, self._profile, attempt)
        started = time.monotonic()
        deadline = started + self._patience.seconds
        pause = self._patience.first
        while True:
            try:
                reply = send(self._endpoint, body)
                self._last_answer = time.monotonic()
                return reply
            except Transient as error:
                delay = error.wait if error.wait is not None else pause * random.uniform(1.0, 1.5)
                if stop.is_set():
                    return Reply("failed", str(error))
                if time.monotonic() + delay > deadline:
                    if self._last_answer < started:
                        raise JudgeError(
                            f"judge {self._profile.name} at {self._endpoint.url} has not answered for"
                            f" {self._patience.seconds:.0f} s: {error}; run it again to go on"
                        ) from error
                    return Reply("failed", str(error))
                stop.wait(delay)
                pause = min(2 * pause, self._patience.longest)
            except Rejected as error:
                if not error.fatal:
                    return Reply("failed", str(error))
                raise JudgeError(f"judge {self._profile.name} at {self._endpoint.url}: {error}") from error


@dataclass(frozen=True)
class Estimate:
    """What asking will take. known: calls that the cache answers. Tokens are rough: four letters, or `picture`
    tokens for a picture of a megapixel or less; output counts `max_tokens` or 300 a call at most."""

    calls: int
    known: int
    input_tokens: int
    output_tokens: int

    @property
    def new(self) -> int:
        return self.calls - self.known

    def cost(self, input_price: float, output_price: float) -> float:
        """Of the new calls, in the prices' currency; prices are for a million tokens."""
        return (self.input_tokens * input_price + self.output_tokens * output_price) / 1e6


PICTURE_TOKENS, REPLY_TOKENS = 765, 300


def estimate(calls: Sequence[JudgeCall], profile: JudgeProfile, cache: ReplyCache) -> Estimate:
    """What the first attempt at these calls would take; nothing is asked."""
    new = [call for call in calls if cache.get(call_key(call, profile, 0)) is None]
    letters = sum(len(call.system) + len(call.text) for call in new)
    pictures = sum(len(call.images) for call in new)
    limit = min(profile.max_tokens[0], REPLY_TOKENS) if profile.max_tokens else REPLY_TOKENS
    return Estimate(
        len(calls), len(calls) - len(new), letters // 4 + pictures * PICTURE_TOKENS, limit * len(new)
    )


@dataclass(frozen=True)
class Question:
    """A call, and whether a reply to it can be used; an unusable one is asked for again while attempts are left."""

    call: JudgeCall
    usable: Callable[[Reply], bool]


FAILURES_IN_A_ROW = 20
"""So many calls without an answer one after the other mean that the judge is gone, not that they are odd."""


def ask_all(
    questions: Sequence[Question],
    scorer: Scorer,
    cache: ReplyCache,
    attempts: int,
    progress: Callable[[int, int], None],
) -> int:
    """Have every question answered in the cache; returns how many stay without an answer.

    Equal calls are asked once. A reply is on disk before anything is made of it; a run that was stopped goes on
    where it was. Raises JudgeError where the judge cannot be used, DataError for unreadable pictures.
    """
    asking = _Asking(scorer.profile, cache, len(questions), progress)
    still = list(questions)
    for attempt in range(attempts):
        pending: dict[str, list[Question]] = {}
        asking.again = []
        for question in still:
            key = call_key(question.call, scorer.profile, attempt)
            reply = cache.get(key)
            if reply is None:
                pending.setdefault(key, []).append(question)
            else:
                asking.look_at([question], reply)
        asking.start(pending)
        if pending:
            scorer.answer([same[0].call for same in pending.values()], attempt, asking.keep)
        still = asking.again
    return asking.failed


@dataclass
class _Asking:
    """The state of `ask_all`."""

    profile: JudgeProfile
    cache: ReplyCache
    total: int
    progress: Callable[[int, int], None]
    failed: int = 0
    in_a_row: int = 0
    open: int = 0
    pending: list[tuple[str, list[Question]]] = field(default_factory=list)
    again: list[Question] = field(default_factory=list)

    def start(self, pending: dict[str, list[Question]]) -> None:
        self.pending = list(pending.items())
        self.open = sum(map(len, pending.values()))
        self.progress(self.total - self.open, self.total)

    def keep(self, place: int, reply: Reply) -> None:
        key, questions = self.pending[place]
        if reply.status == "failed":
            self.failed += len(questions)
            self.cache.put_failure(key, reply.text)
            self.in_a_row += 1
            if self.in_a_row >= FAILURES_IN_A_ROW:
                raise JudgeError(
                    f"judge {self.profile.name}: {self.in_a_row} calls in a row failed, the last with: {reply.text};"
                    " what was answered is kept, run it again to go on"
                )
        else:
            self.in_a_row = 0
            self.cache.put(key, reply, self.profile, questions[0].call)
            self.look_at(questions, reply)
        self.open -= len(questions)
        self.progress(self.total - self.open, self.total)

    def look_at(self, questions: Sequence[Question], reply: Reply) -> None:
        """Put those that cannot use the reply on the list of the next attempt."""
        self.again += [q for q in questions if reply.status == "ok" and not q.usable(reply)]


def without_thinking(reply: Reply, profile: JudgeProfile) -> str:
    """The text of a reply as the profile says it is parsed."""
    text = reply.text
    if profile.thinking == "strip":
        while "<think>" in text and "</think>" in text.partition("<think>")[2]:
            before, _, rest = text.partition("<think>")
            text = before + rest.partition("</think>")[2]
        return text.strip()
    if profile.thinking == "cut":
        _, tag, rest = text.rpartition("</think>")
        if tag:
            return rest.lstrip("\n")
        return "" if reply.truncated or "<think>" in text else text
    return text
