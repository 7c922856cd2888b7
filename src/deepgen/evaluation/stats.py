"""Uncertainty of scores: the bootstrap over prompts, each a cluster of its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepgen.errors import InputError


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile interval, with how many clusters and values they rest on."""

    mean: float
    low: float
    high: float
    clusters: int
    values: int


def cluster_bootstrap(
    clusters: Sequence[Sequence[float]], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of all values and its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    Whole clusters are drawn with replacement, because the pictures of one prompt succeed or fail together:
    single values would make the interval too narrow. Equal arguments give equal results.

    Raises InputError for no clusters or an empty one.
    """
    if not clusters or not all(len(cluster) for cluster in clusters):
        raise InputError("a bootstrap needs at least one cluster, and a value in each")
    sums = np.array([sum(cluster) for cluster in clusters], dtype=np.float64)
    sizes = np.array([len(cluster) for cluster in clusters], dtype=np.float64)
    rng = np.random.default_rng(seed)
    # How often each cluster is drawn is multinomial: drawing that directly needs no table of indices.
    times = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), size=resamples)
    means = (times @ sums) / (times @ sizes)
    low, high = np.quantile(means, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high), len(clusters), int(sizes.sum()))
