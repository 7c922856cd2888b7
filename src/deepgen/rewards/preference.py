"""Pairwise preference: the pictures of a group meet in duels before a judge; the value is a share of duels won."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from deepgen.rewards.config import PreferenceConfig
from deepgen.rewards.judged import Answer, Asked, JudgeDesk
from deepgen.rewards.pairing import (
    Pair,
    all_pairs,
    anchor_pairs,
    expected_win_rates,
    points_of,
    swiss_round,
    swiss_rounds,
    win_rates,
)
from deepgen.rewards.protocol import Kind, RewardInput, Score, groups_of
from deepgen.rewards.templates import PREFERENCE, Outcome, fill, read_preference, read_template

POINTS: dict[Outcome, float] = {"first": 1.0, "second": 0.0, "tie": 0.5}
ANCHORS = 2
LEAST_PLAYED = 0.5
"""Share of its duels that must have been decided for a picture to have a value."""


@dataclass
class _Group:
    """The state of one group's duels; pictures by their number in the group."""

    inputs: list[RewardInput]
    rng: random.Random
    results: dict[Pair, float] = field(default_factory=dict)
    lost: dict[Pair, Answer] = field(default_factory=dict)

    @property
    def met(self) -> set[Pair]:
        return {*self.results, *self.lost}


@dataclass(frozen=True)
class _Duel:
    """One question: `first` is shown as Image 1."""

    group: _Group
    first: int
    second: int


class Preference:
    """Share of duels won in a full round; what it is expected to be, by fitted strengths, in a partial one.

    In [0, 1]; the mean of a group is 1/2. All duels of a round are asked at once, over all groups. Which pairs meet and
    in which order follows from the pictures alone, so that asking again asks the same and the cache answers. A reply
    that cannot be read, or a failed call, is no tie: the duel does not count, and a picture of which fewer than half of
    the duels count has no value; nor has one that is alone in its group.
    """

    kind: Kind = "groupwise"

    def __init__(self, name: str, config: PreferenceConfig) -> None:
        self.name = name
        self._config = config
        self._template = read_template(config.template, PREFERENCE)
        self._desk = JudgeDesk(name, config)

    def __call__(self, batch: Sequence[RewardInput]) -> list[Score]:
        places = groups_of(batch)
        groups = {name: _group([batch[place] for place in some]) for name, some in places.items()}
        for number in range(self._rounds(max(map(len, places.values()), default=0))):
            duels = [
                duel
                for group in groups.values()
                for pair in self._pairs(group, number)
                for duel in self._duels(group, pair)
            ]
            self._hold(duels)
        scores = [Score(None)] * len(batch)
        for name, some in places.items():
            for place, score in zip(some, self._scores(groups[name]), strict=True):
                scores[place] = score
        return scores

    def _rounds(self, largest: int) -> int:
        """Calls that have to wait for each other; only Swiss pairs depend on results."""
        if largest < 2:
            return 0
        return (self._config.rounds or swiss_rounds(largest)) if self._config.pairing == "swiss" else 1

    def _pairs(self, group: _Group, number: int) -> list[Pair]:
        count = len(group.inputs)
        if self._config.pairing == "all":
            return all_pairs(count)
        if self._config.pairing == "anchor":
            return anchor_pairs(count, self._config.rounds or ANCHORS, group.rng)
        if number >= (self._config.rounds or swiss_rounds(count)):
            return []
        return swiss_round(points_of(count, group.results), group.met, group.rng)

    def _duels(self, group: _Group, pair: Pair) -> list[_Duel]:
        straight, turned = _Duel(group, *pair), _Duel(group, *pair[::-1])
        if self._config.order == "both":
            return [straight, turned]
        if self._config.order == "random" and group.rng.random() < 0.5:
            return [turned]
        return [straight]

    def _hold(self, duels: Sequence[_Duel]) -> None:
        """Ask, and enter the results; a pair asked twice counts only if both answers can be used."""
        questions = [
            Asked(
                fill(self._template, duel.group.inputs[duel.first].prompt),
                tuple(duel.group.inputs[place].picture for place in (duel.first, duel.second)),
            )
            for duel in duels
        ]
        for duel, answer in zip(duels, self._desk.ask(questions, read_preference), strict=True):
            pair = (min(duel.first, duel.second), max(duel.first, duel.second))
            group = duel.group
            if answer.meaning is None or pair in group.lost:
                group.results.pop(pair, None)
                if pair not in group.lost or answer.failed:
                    group.lost[pair] = answer
                continue
            won = POINTS[answer.meaning]
            won = won if duel.first < duel.second else 1 - won
            group.results[pair] = (group.results[pair] + won) / 2 if pair in group.results else won

    def _scores(self, group: _Group) -> list[Score]:
        count = len(group.inputs)
        if count < 2:
            return [Score(None, "alone in its group: nothing to compare it with")] * count
        rates = (win_rates if self._config.pairing == "all" else expected_win_rates)(count, group.results)
        return [self._score(group, place, rate) for place, rate in enumerate(rates)]

    def _score(self, group: _Group, place: int, rate: float | None) -> Score:
        played = sum(place in pair for pair in group.results)
        lost = [answer for pair, answer in group.lost.items() if place in pair]
        if rate is not None and played >= LEAST_PLAYED * (played + len(lost)):
            return Score.of(rate)
        worst = next((answer for answer in lost if answer.failed), lost[0] if lost else Answer())
        return Score(None, worst.reason or "no opponent was left for it", worst.failed)


def _group(inputs: list[RewardInput]) -> _Group:
    """Its random draws follow from its pictures: chance must not fall on a place in the group."""
    digest = hashlib.sha256()
    for one in inputs:
        digest.update(one.picture.tobytes())
    return _Group(inputs, random.Random(digest.digest()))
