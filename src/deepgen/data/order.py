"""Orders that are pure functions of a position: nothing is stored, so any process can start anywhere."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

_MASK = (1 << 64) - 1
_ROUNDS = 4
_GRAIN = 1 << 40
# Odd, so prime to _GRAIN, and near _GRAIN / golden ratio: multiples of it fill [0, _GRAIN) as evenly as can be.
_STEP = 679535556991


def hash_of(*parts: str | int) -> int:
    """64 bits that depend on all parts; the same in every process and release."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def unit(*parts: str | int) -> float:
    """A number in [0, 1) from `hash_of`."""
    return (hash_of(*parts) >> 11) / (1 << 53)


def _mix(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def permuted(place: int, count: int, key: int) -> int:
    """The `place`-th element of a permutation of range(count) chosen by `key`.

    A Feistel network over the next power of four, walked until the result is inside (at most 4 walks on average),
    so that a shuffle of 35 M samples takes no memory.
    """
    half = max(((count - 1).bit_length() + 1) // 2, 1)
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mix(key ^ (right * _ROUNDS + turn + 1)) & low)
        place = left << half | right
        if place < count:
            return place


def floor_sum(count: int, modulus: int, factor: int, offset: int) -> int:
    """Sum of floor((factor·i + offset) / modulus) over i in range(count), in O(log modulus) steps."""
    total = 0
    total += count * (count - 1) // 2 * (factor // modulus) + count * (offset // modulus)
    factor, offset = factor % modulus, offset % modulus
    last = factor * count + offset
    if last < modulus:
        return total
    return total + floor_sum(last // modulus, factor, modulus, last % modulus)


class Interleave:
    """An endless sequence over several streams, in which each comes as often as its weight says, evenly spread.

    Position p belongs to the stream whose share of [0, 1) holds frac(p · φ); how often that stream came before is a
    sum of floors, so that no history is needed.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        """weights: positive, of any sum."""
        total = sum(weights)
        bounds = [round(part / total * _GRAIN) for part in accumulate(weights)]
        self._bounds = [0, *bounds[:-1], _GRAIN]

    def at(self, position: int) -> tuple[int, int]:
        """(stream, how many earlier positions were that stream's)."""
        stream = bisect_right(self._bounds, position * _STEP % _GRAIN) - 1
        return stream, self._before(position, self._bounds[stream + 1]) - self._before(
            position, self._bounds[stream]
        )

    @staticmethod
    def _before(position: int, bound: int) -> int:
        """How many p < position have p · step mod grain < bound."""
        whole = floor_sum(position, _GRAIN, _STEP, 0)
        return whole - floor_sum(position, _GRAIN, _STEP, -bound)


class ShuffledOrder:
    """An endless sequence of indices, a new permutation each time round.

    Where samples lie in groups on disk (shards, row groups), the groups are shuffled, and samples are shuffled
    within `together` neighbouring groups: reading stays local, and neighbours in a shard do not meet again and again.
    """

    def __init__(self, groups: Sequence[int], key: int, together: int = 16) -> None:
        """groups: number of samples in each, in the order of their indices."""
        self.groups = tuple(groups)
        self.count = sum(groups)
        self.key = key
        self.together = together
        self._starts = [0, *accumulate(groups)]

    def at(self, position: int) -> int:
        """The index at a position."""
        turn, place = divmod(position, self.count)
        key = hash_of(self.key, turn)
        if len(self.groups) == 1:
            return permuted(place, self.count, key)
        order, ends = self._layout(turn)
        bundle = bisect_right(ends, place)
        start = ends[bundle - 1] if bundle else 0
        place = permuted(place - start, ends[bundle] - start, hash_of(key, bundle))
        for group in order[bundle * self.together : (bundle + 1) * self.together]:
            if place < self.groups[group]:
                return self._starts[group] + place
            place -= self.groups[group]
        raise AssertionError("a place lies in one of its bundle's groups")

    def _layout(self, turn: int) -> tuple[list[int], list[int]]:
        return _layout(self.groups, hash_of(self.key, turn), self.together)


@lru_cache(maxsize=64)
def _layout(groups: tuple[int, ...], key: int, together: int) -> tuple[list[int], list[int]]:
    """(groups in shuffled order, where each bundle of `together` groups ends)."""
    order = [permuted(i, len(groups), key) for i in range(len(groups))]
    bundles = [order[i : i + together] for i in range(0, len(order), together)]
    return order, list(accumulate(sum(groups[g] for g in bundle) for bundle in bundles))
