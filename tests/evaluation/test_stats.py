"""Intervals and tests agree with closed forms, with enumerations, and with scipy where it is there."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepgen.errors import InputError
from deepgen.evaluation.benchmark import Record, Status, Summary, Unit, takes_of
from deepgen.evaluation.stats import bootstrap, detectable, mcnemar, paired_bootstrap


def records(values: Sequence[Sequence[float]], group: str = "g") -> list[Record]:
    """An item for each inner list, a picture for each value in it."""
    return [
        Record(f"{group}{item}", sample, group, Status.OK, (Unit("m", value),))
        for item, of in enumerate(values)
        for sample, value in enumerate(of)
    ]


def mean(some: Sequence[Record]) -> Summary:
    values = [record.units[0].value for record in some]
    return Summary({"m": sum(values) / len(values)}, {})


def macro(some: Sequence[Record]) -> Summary:
    groups: dict[str, list[float]] = {}
    for record in some:
        groups.setdefault(record.group, []).append(record.units[0].value)
    means = {group: {"m": sum(of) / len(of)} for group, of in groups.items()}
    return Summary({"m": sum(of["m"] for of in means.values()) / len(means)}, means)


def test_the_interval_of_a_share_is_the_binomials() -> None:
    n, right = 400, 300
    interval = bootstrap(records([[1.0]] * right + [[0.0]] * (n - right)), mean, 4000)["", "m"]
    error = math.sqrt(0.75 * 0.25 / n)
    assert interval.value == 0.75
    assert interval.low == pytest.approx(0.75 - 1.96 * error, abs=0.006)
    assert interval.high == pytest.approx(0.75 + 1.96 * error, abs=0.006)
    assert interval.error == pytest.approx(error, rel=0.05)


def test_the_error_is_the_one_of_all_possible_resamples() -> None:
    values = [0.0, 1.0, 5.0, 2.5]
    means = [sum(drawn) / 4 for drawn in itertools.product(values, repeat=4)]
    interval = bootstrap(records([[v] for v in values]), mean, 6000)["", "m"]
    assert interval.error == pytest.approx(float(np.std(means)), rel=0.04)
    assert interval.low == pytest.approx(float(np.quantile(means, 0.025)), abs=0.13)
    assert interval.high == pytest.approx(float(np.quantile(means, 0.975)), abs=0.13)


def test_it_agrees_with_scipys_percentile_bootstrap() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).exponential(size=60)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=2)
    ours = bootstrap(records([[v] for v in values]), mean, 5000)["", "m"]
    low, high = theirs.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.02)


def test_repeating_a_prompts_verdict_does_not_narrow_the_interval() -> None:
    values = np.random.default_rng(0).integers(0, 2, 100).astype(float)
    once = bootstrap(records([[v] for v in values]), mean)["", "m"]
    four_times = bootstrap(records([[v] * 4 for v in values]), mean)["", "m"]
    assert (once.low, once.high) == pytest.approx((four_times.low, four_times.high))
    apart = bootstrap(records([[v] for v in values for _ in range(4)]), mean)["", "m"]
    assert apart.high - apart.low == pytest.approx((once.high - once.low) / 2, rel=0.12)


def test_groups_are_drawn_apart_and_the_benchmarks_own_aggregate_runs_inside() -> None:
    """Group a is always right: no resample may change that, and the macro mean's error is half of b's."""
    some = records([[1.0]] * 5, "a") + records([[0.0], [1.0]] * 50, "b")
    found = bootstrap(some, macro)
    assert (found["a", "m"].low, found["a", "m"].high) == (1.0, 1.0)
    assert found["", "m"].value == 0.75
    assert found["", "m"].error == pytest.approx(found["b", "m"].error / 2)


def test_an_items_records_stay_together_in_order_of_sample() -> None:
    def share_of_items(some: Sequence[Record]) -> Summary:
        takes = takes_of(some)
        assert all([record.sample for record in take] == [0, 1, 2] for take in takes)
        return Summary({"m": sum(max(r.units[0].value for r in take) for take in takes) / len(takes)}, {})

    some = records([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert bootstrap(list(reversed(some)), share_of_items, 50)["", "m"].value == 0.5


def test_equal_arguments_give_equal_intervals_and_other_seeds_others() -> None:
    some = records([[float(i) ** 3] for i in range(30)])
    assert bootstrap(some, mean, 100) == bootstrap(some, mean, 100)
    assert bootstrap(some, mean, 100, seed=1) != bootstrap(some, mean, 100, seed=2)
    with pytest.raises(InputError):
        bootstrap([], mean)


def test_the_detectable_difference_is_the_textbooks() -> None:
    """Two proportions near 0.5 with 392 items each: a difference of 0.1 is found in 80% of cases (Fleiss 1981)."""
    error = math.sqrt(2 * 0.5 * 0.5 / 392)
    assert detectable(error) == pytest.approx(0.1, abs=0.001)
    one = bootstrap(records([[0.0], [1.0]] * 196), mean, 4000)["", "m"]
    assert one.detectable == pytest.approx(0.1, abs=0.005)


def test_the_power_that_it_promises_is_there() -> None:
    rng, error = np.random.default_rng(0), 0.03
    observed = rng.normal(detectable(error), error, 20_000)
    assert (np.abs(observed) > 1.959964 * error).mean() == pytest.approx(0.8, abs=0.01)


def test_pairing_cancels_what_makes_an_item_hard() -> None:
    hard = np.random.default_rng(3).normal(size=80)
    gain = np.random.default_rng(4).normal(0.05, 0.05, 80)
    a, b = records([[v] for v in hard]), records([[v] for v in hard + gain])
    paired = paired_bootstrap(a, b, mean)["", "m"]
    alone = bootstrap(a, mean)["", "m"]
    assert paired.value == pytest.approx(float(gain.mean()))
    assert (
        paired.error == pytest.approx(float(gain.std()) / math.sqrt(80), rel=0.08)
        and paired.error < alone.error / 5
    )
    assert paired.low > 0 and paired.p < 0.01


def test_pairs_use_only_what_both_runs_have() -> None:
    a, b = records([[1.0], [0.0], [1.0]]), records([[1.0], [1.0]])
    paired = paired_bootstrap(a, b, mean, 100)["", "m"]
    assert (paired.a, paired.b, paired.value) == (0.5, 1.0, 0.5)
    assert paired_bootstrap(a, a, mean, 100)["", "m"].p == 1.0
    with pytest.raises(InputError, match="no item in common"):
        paired_bootstrap(a, records([[1.0]], "elsewhere"), mean)


def enumerated(only_a: int, only_b: int) -> Fraction:
    """The two-sided p by writing out every way in which the pairs that differ could have fallen."""
    n, extreme = only_a + only_b, abs(only_a - only_b)
    ways = itertools.product((0, 1), repeat=n)
    return Fraction(sum(abs(2 * sum(way) - n) >= extreme for way in ways), 2**n)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_mcnemar_is_what_counting_every_outcome_gives(only_a: int, only_b: int, both: int) -> None:
    a = [True] * only_a + [False] * only_b + [True] * both
    b = [False] * only_a + [True] * only_b + [True] * both
    test = mcnemar(a, b)
    assert (test.only_a, test.only_b) == (only_a, only_b)
    assert test.p == pytest.approx(float(enumerated(only_a, only_b)))


def test_mcnemar_of_a_known_table() -> None:
    """39 against 48 solved of 360 with 25 and 16 that only one solves: by the binomial, p = 0.2110."""
    test = mcnemar([True] * 25 + [False] * 16, [False] * 25 + [True] * 16)
    assert test.p == pytest.approx(0.2110, abs=5e-4)
    with pytest.raises(InputError):
        mcnemar([True], [])
