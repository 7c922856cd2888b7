from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgen.data.order import Interleave, ShuffledOrder, floor_sum, hash_of, permuted, unit


@pytest.mark.parametrize("count", [1, 2, 3, 64, 1000])
def test_a_permutation_has_every_element_once_and_another_key_another_order(count: int) -> None:
    found = [permuted(i, count, 7) for i in range(count)]
    assert sorted(found) == list(range(count))
    if count > 3:
        assert found != [permuted(i, count, 8) for i in range(count)] != list(range(count))


@given(st.integers(0, 60), st.integers(1, 50), st.integers(0, 200), st.integers(-100, 100))
def test_the_sum_of_floors_is_what_adding_up_gives(n: int, m: int, a: int, b: int) -> None:
    assert floor_sum(n, m, a, b) == sum((a * i + b) // m for i in range(n))


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=5))
def test_streams_are_interleaved_by_weight_and_each_counts_its_own_positions(weights: list[float]) -> None:
    turns, seen = Interleave(weights), Counter()
    for position in range(400):
        stream, earlier = turns.at(position)
        assert earlier == seen[stream]
        seen[stream] += 1
    for stream, weight in enumerate(weights):
        assert abs(seen[stream] - 400 * weight / sum(weights)) <= 6


def test_each_round_is_another_permutation_of_the_whole_set() -> None:
    order = ShuffledOrder([7, 3, 5, 6], key=1, together=2)
    rounds = [[order.at(21 * turn + i) for i in range(21)] for turn in range(3)]
    assert all(sorted(one) == list(range(21)) for one in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_samples_that_come_together_lie_in_few_shards() -> None:
    order = ShuffledOrder([10] * 12, key=1, together=3)
    places = [order.at(i) for i in range(30)]
    assert len({place // 10 for place in places}) == 3
    assert places != sorted(places)


def test_hashes_tell_parts_apart_and_do_not_change() -> None:
    assert len({hash_of("ab", "c"), hash_of("a", "bc"), hash_of("1"), hash_of(1)}) == 4
    assert hash_of("order", 3) == 0x96998D4B685EC23C
    assert 0 <= unit("x", 1) < 1
