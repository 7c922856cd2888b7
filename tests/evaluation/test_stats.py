"""The bootstrap agrees with closed forms and with scipy, and knows that a prompt's seeds belong together."""

import math

import numpy as np
import pytest

from deepgen.errors import InputError
from deepgen.evaluation.stats import cluster_bootstrap


def test_the_interval_of_a_share_is_the_binomials() -> None:
    n, right = 400, 300
    interval = cluster_bootstrap([[1.0]] * right + [[0.0]] * (n - right))
    half = 1.96 * math.sqrt(0.75 * 0.25 / n)
    assert interval.mean == 0.75
    assert interval.low == pytest.approx(0.75 - half, abs=0.005)
    assert interval.high == pytest.approx(0.75 + half, abs=0.005)
    assert (interval.clusters, interval.values) == (n, n)


def test_it_agrees_with_scipys_percentile_bootstrap() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).exponential(size=80)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=2
    ).confidence_interval
    ours = cluster_bootstrap([[v] for v in values], resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_repeating_a_prompts_verdict_does_not_narrow_the_interval() -> None:
    values = np.random.default_rng(0).integers(0, 2, 100).astype(float)
    once = cluster_bootstrap([[v] for v in values])
    four_times = cluster_bootstrap([[v] * 4 for v in values])
    assert (once.low, once.high) == (four_times.low, four_times.high)
    assert four_times.values == 400
    apart = cluster_bootstrap([[v] for v in values for _ in range(4)])
    assert apart.high - apart.low == pytest.approx((once.high - once.low) / 2, rel=0.1)


def test_clusters_weigh_by_their_size() -> None:
    interval = cluster_bootstrap([[1.0], [0.0, 0.0, 0.0]])
    assert (interval.mean, interval.low, interval.high) == (0.25, 0.0, 1.0)


def test_equal_arguments_give_equal_intervals_and_other_seeds_others() -> None:
    clusters = [[float(i % 3 == 0)] for i in range(50)]
    assert cluster_bootstrap(clusters) == cluster_bootstrap(clusters)
    skewed = [[float(i) ** 3] for i in range(50)]
    assert cluster_bootstrap(skewed, seed=1) != cluster_bootstrap(skewed, seed=2)


def test_nothing_and_an_empty_cluster_are_refused() -> None:
    with pytest.raises(InputError):
        cluster_bootstrap([])
    with pytest.raises(InputError):
        cluster_bootstrap([[1.0], []])
