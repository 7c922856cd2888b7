"""Which pictures of a group meet, and what their duels say of each. Pure functions of numbers."""

import math
import random
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]
Results = Mapping[Pair, float]
"""For a pair (i, j) with i < j: 1 where i won, 0 where j did, 0.5 for a tie."""

PRIOR = 0.5
"""Weight of the prior: of strengths around 0, as that many squares. Keeps a picture that won all duels finite."""


def all_pairs(count: int) -> list[Pair]:
    """Every pair once."""
    return list(combinations(range(count), 2))


def anchor_pairs(count: int, anchors: int, rng: random.Random) -> list[Pair]:
    """Everybody against each of `anchors` pictures drawn at random."""
    chosen = rng.sample(range(count), min(anchors, count))
    return sorted({(min(a, b), max(a, b)) for a in chosen for b in range(count) if a != b})


def swiss_rounds(count: int) -> int:
    """⌈log₂ count⌉: as many as it takes until one picture alone has won all of its duels."""
    return math.ceil(math.log2(count))


def swiss_round(points: Sequence[float], met: set[Pair], rng: random.Random) -> list[Pair]:
    """The pairs of one more round: neighbours in points who have not met; ties in points are broken at random.

    A picture for which nobody is left has no duel in this round.
    """
    rest = sorted(range(len(points)), key=lambda place: (-points[place], rng.random()))
    pairs = []
    while rest:
        one = rest.pop(0)
        other = next((two for two in rest if (min(one, two), max(one, two)) not in met), None)
        if other is not None:
            rest.remove(other)
            pairs.append((min(one, other), max(one, other)))
    return pairs


def points_of(count: int, results: Results) -> list[float]:
    """Duels won, a tie as half."""
    points = [0.0] * count
    for (first, second), won in results.items():
        points[first] += won
        points[second] += 1 - won
    return points


def win_rates(count: int, results: Results) -> list[float | None]:
    """The share of its duels that each has won; None for one that had none."""
    duels = [0] * count
    for pair in results:
        for place in pair:
            duels[place] += 1
    points = points_of(count, results)
    return [won / played if played else None for won, played in zip(points, duels, strict=True)]


def expected_win_rates(count: int, results: Results) -> list[float | None]:
    """The share that each would win against all others, by strengths fitted to the duels that took place; None for one
    that had none. The group's mean is 1/2.

    Bradley and Terry 1952: P(i beats j) = 1/(1 + exp(s_j − s_i)); s maximises the likelihood with a normal prior, by
    Newton's steps. Unlike shares of duels won, it counts whom one has met, as it must when not all pairs met.
    """
    strengths = np.zeros(count)
    wins = np.zeros((count, count))
    for (first, second), won in results.items():
        wins[first, second] += won
        wins[second, first] += 1 - won
    played = wins + wins.T
    for _ in range(20):
        chance = _chances(strengths)
        gradient = (wins - played * chance).sum(axis=1) - PRIOR * strengths
        weight = played * chance * (1 - chance)
        curvature = np.diag(weight.sum(axis=1) + PRIOR) - weight
        step = np.linalg.solve(curvature, gradient)
        strengths = strengths + step
        if np.abs(step).max() < 1e-9:
            break
    chance = _chances(strengths)
    rates = (chance.sum(axis=1) - 0.5) / (count - 1)
    return [float(rate) if any(row) else None for rate, row in zip(rates, played, strict=True)]


def _chances(strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
