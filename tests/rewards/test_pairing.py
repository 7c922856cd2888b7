"""Which pictures meet, and what their duels say."""

import random

import numpy as np
import pytest

from deepgen.rewards.pairing import (
    all_pairs,
    anchor_pairs,
    expected_win_rates,
    points_of,
    swiss_round,
    swiss_rounds,
    win_rates,
)


def swiss(truth, rounds, seed=0):
    """A Swiss tournament in which the stronger always wins."""
    rng, results = random.Random(seed), {}
    for _ in range(rounds):
        pairs = swiss_round(points_of(len(truth), results), set(results), rng)
        results |= {(a, b): float(truth[a] > truth[b]) for a, b in pairs}
    return results


def test_a_group_of_eight_needs_28_duels_or_12_or_13():
    assert len(all_pairs(8)) == 28
    assert swiss_rounds(8) == 3 and len(swiss(range(8), 3)) == 12
    assert len(anchor_pairs(8, 2, random.Random(0))) == 13
    assert anchor_pairs(2, 5, random.Random(0)) == [(0, 1)]


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_nobody_meets_twice_and_everybody_plays(count):
    rng, met = random.Random(1), set()
    for _ in range(swiss_rounds(count)):
        pairs = swiss_round([0.0] * count, met, rng)
        assert not met & set(pairs)
        places = [place for pair in pairs for place in pair]
        assert len(places) == len(set(places)) >= count - 1 - len(met) // count * 2
        met |= set(pairs)
    assert {place for pair in met for place in pair} == set(range(count))


def test_win_rates_are_shares_of_duels():
    results = {(0, 1): 1.0, (0, 2): 0.5, (1, 2): 0.0}
    assert win_rates(4, results) == [0.75, 0.0, 0.75, None]


def test_expected_win_rates_have_the_mean_of_a_full_round_and_name_who_never_played():
    results = swiss([3, 1, 4, 1.5, 9, 2, 6, 5], 3)
    rates = expected_win_rates(8, results)
    assert np.mean(rates) == pytest.approx(0.5)
    assert expected_win_rates(3, {(0, 1): 1.0})[2] is None
    assert expected_win_rates(2, {(0, 1): 0.5}) == pytest.approx([0.5, 0.5])


def test_strengths_solve_the_likelihoods_equation():
    results = swiss([3, 1, 4, 1.5, 9, 2, 6, 5], 3)
    rates = np.array(expected_win_rates(8, results), dtype=float)
    turned = expected_win_rates(8, {pair: 1 - won for pair, won in results.items()})
    assert rates == pytest.approx(1 - np.array(turned, dtype=float))


def test_twelve_swiss_duels_tell_more_than_thirteen_against_anchors():
    agreement = {"swiss": [], "anchor": []}
    for seed in range(60):
        truth = random.Random(seed).sample(range(100), 8)
        found = {"swiss": swiss(truth, 3, seed)}
        anchors = anchor_pairs(8, 2, random.Random(seed))
        found["anchor"] = {(a, b): float(truth[a] > truth[b]) for a, b in anchors}
        ranks = np.argsort(np.argsort(truth))
        for name, results in found.items():
            agreement[name].append(np.corrcoef(expected_win_rates(8, results), ranks)[0, 1])
    assert np.mean(agreement["swiss"]) > np.mean(agreement["anchor"]) > 0.8
    assert np.mean(agreement["swiss"]) > 0.9
