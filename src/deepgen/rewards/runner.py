"""Rewards beside the rollout: computed in threads, asked again where they fail, and never mixed between steps."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from deepgen.errors import RewardError
from deepgen.rewards.config import RunnerConfig
from deepgen.rewards.protocol import (
    NOT_ASKED,
    RewardInput,
    RewardUnavailable,
    Score,
    WeightedReward,
    groups_of,
)
from deepgen.scorers.threads import in_thread

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ticket:
    """A batch handed in: the policy that drew it, by the number of updates before it, and a number of its own."""

    policy_step: int
    number: int


@dataclass
class Tally:
    """What happened to one reward: inputs asked for, valid values, final and failed Nones, values asked for again,
    seconds of scoring, summed over batches, and the longest time in which a batch was held up by its service."""

    asked: float = 0
    valid: float = 0
    missing: float = 0
    failed: float = 0
    retried: float = 0
    seconds: float = 0
    paused_seconds: float = 0


class RewardRunner:
    """Scores batches by every reward, in threads. A reward that waits for a server is asked for all batches at once;
    any other, whose model is in this process, for one batch at a time.

    Every ticket has its own results: a value that comes late is the value of the batch it was asked for or of none, so
    no update can see rewards of another policy's pictures. Call `close` at the end, or use it in `with`.
    """

    def __init__(self, rewards: Sequence[WeightedReward], config: RunnerConfig | None = None) -> None:
        self.rewards = list(rewards)
        self._config = config or RunnerConfig()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._tallies = {one.name: Tally() for one in self.rewards}
        self._turns: dict[str, AbstractContextManager[Any]] = {
            one.name: nullcontext() if one.waits else threading.Lock() for one in self.rewards
        }
        self._open: dict[Ticket, dict[str, Future[list[Score]]]] = {}
        self._number = 0
        self._newest = 0

    def submit(self, policy_step: int, batch: Sequence[RewardInput]) -> Ticket:
        """Begin to score; returns at once. All pictures of a group must be in one batch.

        policy_step: updates of the policy before it drew these pictures. Raises RewardError for an older policy than
        that of a batch before: pictures of the past are not to be trained on.
        """
        if policy_step < self._newest:
            raise RewardError(f"pictures of policy {policy_step} come after those of policy {self._newest}")
        self._newest = policy_step
        self._number += 1
        ticket = Ticket(policy_step, self._number)
        fixed = tuple(batch)
        self._open[ticket] = {one.name: in_thread(self._score, one, fixed) for one in self.rewards}
        return ticket

    def pending(self, tickets: Sequence[Ticket]) -> list[Future[list[Score]]]:
        """What `collect` of these waits for, to be waited for otherwise."""
        return [future for ticket in tickets for future in self._open[ticket].values()]

    def collect(self, ticket: Ticket) -> dict[str, list[Score]]:
        """Wait for a batch's scores: for each reward by name one Score an input, in order. Once for each ticket.

        Raises RewardError where a service stayed away for too long, where a reward cannot work at all, and for a
        ticket that is unknown or was collected before; whatever else a reward raises.
        """
        if ticket not in self._open:
            raise RewardError(
                f"batch {ticket.number} of policy {ticket.policy_step} is not waiting for rewards"
            )
        found = {name: future.result() for name, future in self._open[ticket].items()}
        del self._open[ticket]
        return found

    def take_tallies(self) -> dict[str, Tally]:
        """What happened to each reward, by name, since the last call."""
        with self._lock:
            taken, self._tallies = self._tallies, {one.name: Tally() for one in self.rewards}
        return taken

    def close(self) -> None:
        """Stop asking; batches still on their way are given up. A model in this process ends the batch it is at, for a
        process must not end while one computes; a call to a server is left to itself."""
        self._stop.set()
        here = [one.name for one in self.rewards if not one.waits]
        wait(found[name] for found in self._open.values() for name in here)

    def __enter__(self) -> "RewardRunner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _score(self, weighted: WeightedReward, batch: Sequence[RewardInput]) -> list[Score]:
        """One reward of one batch, with its retries; runs in a thread of its own."""
        attempt = _Attempt(weighted, batch, self._config, self._stop)
        with self._turns[weighted.name]:
            started = time.monotonic()
            try:
                attempt.run()
            finally:
                with self._lock:
                    attempt.count(self._tallies[weighted.name], time.monotonic() - started)
        return attempt.scores


@dataclass
class _Attempt:
    """One reward of one batch on its way."""

    weighted: WeightedReward
    batch: Sequence[RewardInput]
    config: RunnerConfig
    stop: threading.Event
    places: list[int] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    retried: int = 0
    paused_since: float | None = None

    def run(self) -> None:
        self.places = [place for place, one in enumerate(self.batch) if self.weighted.applies(one)]
        self.scores = [NOT_ASKED] * len(self.batch)
        deadline = time.monotonic() + self.config.deadline_seconds
        wait = self.config.first_wait_seconds
        asking = self.places
        while asking and not self.stop.is_set():
            self._ask(asking)
            failed = [place for place in self.places if self.scores[place].failed]
            if not failed:
                return
            if time.monotonic() + wait > deadline and self._is_settled(failed, deadline):
                return
            self.stop.wait(wait)
            wait = min(2 * wait, self.config.longest_wait_seconds)
            asking = self._again(failed)
            self.retried += len(asking)

    def _ask(self, places: Sequence[int]) -> None:
        found = _call(self.weighted, [self.batch[place] for place in places])
        for place, score in zip(places, found, strict=True):
            self.scores[place] = score

    def _again(self, failed: Sequence[int]) -> list[int]:
        """The inputs to ask for again: those that failed, with all of their groups where groups are compared."""
        if self.weighted.reward.kind == "pointwise":
            return list(failed)
        groups = groups_of(self.batch)
        wanted = {self.batch[place].group for place in failed}
        return sorted(
            place for group in wanted for place in groups[group] if self.weighted.applies(self.batch[place])
        )

    def _is_settled(self, failed: Sequence[int], deadline: float) -> bool:
        """After the deadline: True where few enough failed to go on without them; else the run is held up.

        Raises RewardError where that took too long.
        """
        share = len(failed) / len(self.places)
        if share <= self.config.pause_share:
            return True
        what = (
            f"reward {self.weighted.name}: {share:.0%} of its values failed: {self.scores[failed[0]].reason}"
        )
        now = time.monotonic()
        if self.paused_since is None:
            self.paused_since = now
            log.warning("%s; the run waits for it, up to %.0f s", what, self.config.pause_seconds)
        if now > deadline + self.config.pause_seconds:
            raise RewardError(f"{what}; start its service, and the run again, which goes on where it was")
        return False

    def count(self, tally: Tally, seconds: float) -> None:
        """Add what happened."""
        asked = [self.scores[place] for place in self.places] if self.scores else []
        tally.asked += len(asked)
        tally.valid += sum(score.valid for score in asked)
        tally.failed += sum(score.failed for score in asked)
        tally.missing += sum(not score.valid and not score.failed for score in asked)
        tally.retried += self.retried
        tally.seconds += seconds
        if self.paused_since is not None:
            tally.paused_seconds = max(tally.paused_seconds, time.monotonic() - self.paused_since)


def _call(weighted: WeightedReward, batch: list[RewardInput]) -> list[Score]:
    """One call of a reward. Raises RewardError where it breaks the protocol."""
    try:
        found = weighted.reward(batch)
    except RewardUnavailable as error:
        return [Score.failure(str(error))] * len(batch)
    if len(found) != len(batch):
        raise RewardError(f"reward {weighted.name} gave {len(found)} scores for {len(batch)} pictures")
    return found
