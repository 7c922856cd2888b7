"""Uncertainty of a benchmark's numbers: everything of one item succeeds or fails together, so items are drawn."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from deepgen.errors import InputError
from deepgen.evaluation.benchmark import Record, Summary

Aggregate = Callable[[Sequence[Record]], Summary]
Key = tuple[str, str]
"""(group, metric) of a number; the group is "" overall."""

RESAMPLES = 2000
CONFIDENCE = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """A number, its percentile interval, and its standard error, both from the bootstrap."""

    value: float
    low: float
    high: float
    error: float

    @property
    def detectable(self) -> float:
        """The smallest true difference to an independent run with the same error that a test at 5% finds in 80%
        of cases: (z(0.975) + z(0.8)) · √2 · error (Cohen 1988, section 2.4, for two equal errors)."""
        return detectable(math.sqrt(2) * self.error)


def detectable(error: float) -> float:
    """The smallest true difference that a two-sided test at 5% finds in 80% of cases, from the difference's error."""
    normal = NormalDist()
    return (normal.inv_cdf((1 + CONFIDENCE) / 2) + normal.inv_cdf(POWER)) * error


def flatten(summary: Summary) -> dict[Key, float]:
    """All numbers of a summary by (group, metric)."""
    flat = {("", metric): value for metric, value in summary.overall.items()}
    return flat | {(g, metric): value for g, of in summary.groups.items() for metric, value in of.items()}


def clusters_of(records: Sequence[Record]) -> dict[str, list[list[Record]]]:
    """Group → its items → their records, by sample."""
    items: dict[str, dict[str, list[Record]]] = defaultdict(dict)
    for record in records:
        items[record.group].setdefault(record.item, []).append(record)
    return {
        group: [sorted(cluster, key=lambda record: record.sample) for cluster in of.values()]
        for group, of in items.items()
    }


def bootstrap(
    records: Sequence[Record], aggregate: Aggregate, resamples: int = RESAMPLES, seed: int = 0
) -> dict[Key, Interval]:
    """Every number of `aggregate(records)` with its 95% percentile interval (Efron & Tibshirani 1993, chapter 13).

    Each resample draws, in every group apart, as many items as the group has, with replacement, and runs the
    benchmark's own aggregate on all their records. Equal arguments give equal results.

    Raises InputError without records.
    """
    if not records:
        raise InputError("a bootstrap needs at least one record")
    clusters = list(clusters_of(records).values())
    rng = np.random.default_rng(seed)
    drawn: dict[Key, list[float]] = defaultdict(list)
    for _ in range(resamples):
        resample = [r for of in clusters for i in rng.integers(len(of), size=len(of)) for r in of[i]]
        for key, value in flatten(aggregate(resample)).items():
            drawn[key].append(value)
    values = flatten(aggregate([r for of in clusters for cluster in of for r in cluster]))
    return {key: _interval(value, drawn[key]) for key, value in values.items()}


def _interval(value: float, drawn: Sequence[float]) -> Interval:
    if not drawn:
        return Interval(value, math.nan, math.nan, math.nan)
    low, high = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(value, float(low), float(high), float(np.std(drawn)))


@dataclass(frozen=True)
class Difference:
    """B less A on the items that both have. p: two-sided, from the share of resamples beyond zero; at least
    1/resamples. detectable: see `detectable`, from the pairs' own error."""

    a: float
    b: float
    low: float
    high: float
    error: float
    p: float

    @property
    def value(self) -> float:
        return self.b - self.a

    @property
    def detectable(self) -> float:
        return detectable(self.error)


def paired_bootstrap(
    a: Sequence[Record],
    b: Sequence[Record],
    aggregate: Aggregate,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[Key, Difference]:
    """The difference of every number, with the same items drawn for both runs: what makes an item hard for both
    cancels out. Items that only one run has are left out.

    Raises InputError where the runs share no item.
    """
    first, second = _by_item(a), _by_item(b)
    shared = [item for item in first if item in second]
    if not shared:
        raise InputError("the two runs have no item in common")
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for item in shared:
        groups[item[0]].append(item)
    rng = np.random.default_rng(seed)
    drawn: dict[Key, list[float]] = defaultdict(list)
    for _ in range(resamples):
        chosen = [of[i] for of in groups.values() for i in rng.integers(len(of), size=len(of))]
        for key, difference in _differences(chosen, first, second, aggregate).items():
            drawn[key].append(difference[1] - difference[0])
    results = {}
    for key, (value_a, value_b) in _differences(shared, first, second, aggregate).items():
        spread = _interval(value_b - value_a, drawn[key])
        beyond = min(sum(d <= 0 for d in drawn[key]), sum(d >= 0 for d in drawn[key]))
        p = min(1.0, max(2 * beyond, 1) / len(drawn[key]))
        results[key] = Difference(value_a, value_b, spread.low, spread.high, spread.error, p)
    return results


def _by_item(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    clusters = clusters_of(records)
    return {(group, cluster[0].item): cluster for group, of in clusters.items() for cluster in of}


def _differences(
    items: Sequence[tuple[str, str]],
    first: Mapping[tuple[str, str], list[Record]],
    second: Mapping[tuple[str, str], list[Record]],
    aggregate: Aggregate,
) -> dict[Key, tuple[float, float]]:
    a = flatten(aggregate([record for item in items for record in first[item]]))
    b = flatten(aggregate([record for item in items for record in second[item]]))
    return {key: (value, b[key]) for key, value in a.items() if key in b}


@dataclass(frozen=True)
class McNemar:
    """only_a, only_b: pairs that only one run has right; p: exact and two-sided."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """The exact test on pairs of right and wrong (McNemar 1947; the binomial form of Edwards 1948): under equal
    chances the pairs that differ fall to either side like a fair coin. Raises InputError for unequal lengths."""
    if len(a) != len(b):
        raise InputError(f"McNemar's test pairs {len(a)} with {len(b)} verdicts")
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    n, least = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    return McNemar(only_a, only_b, min(1.0, 2 * tail))
