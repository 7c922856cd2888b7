"""The untouched region against a definition written out in loops."""

import math

import numpy as np
import pytest

from deepgen.rewards import RewardInput
from deepgen.rewards.edit_region import EditRegion, untouched

rng = np.random.default_rng(0)
SOURCE = rng.integers(0, 256, (48, 64, 3), np.uint8)
TARGET = SOURCE.copy()
TARGET[4:10, 30:40] = 255 - TARGET[4:10, 30:40]


def slow_untouched(source, target):
    """Blur by 5×5 means with repeated edges, compare, and keep what has no change within 8 pixels."""
    height, width, _ = source.shape
    changed = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            rows = [min(max(y + d, 0), height - 1) for d in range(-2, 3)]
            columns = [min(max(x + d, 0), width - 1) for d in range(-2, 3)]
            means = [picture[np.ix_(rows, columns)].mean(axis=(0, 1)) for picture in (source, target)]
            changed[y, x] = (np.abs(means[0] - means[1]) > 4 + 1e-9).any()
    kept = np.ones((height, width), bool)
    for y, x in np.argwhere(changed):
        kept[max(y - 8, 0) : y + 9, max(x - 8, 0) : x + 9] = False
    return kept


def score(result, source=SOURCE, target=TARGET):
    references = () if source is None else (source,)
    return EditRegion()([RewardInput(result, "p", "g", references, target=target)])[0]


def test_the_region_is_what_the_definition_says():
    expected = slow_untouched(SOURCE, TARGET)
    assert 0 < expected.sum() < expected.size
    assert (untouched(SOURCE, TARGET) == expected).all()


def test_a_difference_of_four_steps_is_the_same_and_of_five_is_not(kit):
    assert untouched(kit.flat(100, 32), kit.flat(104, 32)).all()
    assert not untouched(kit.flat(100, 32), kit.flat(105, 32)).any()


def test_the_value_falls_with_the_error_inside_the_region_alone():
    inside = TARGET.copy()
    inside[4:10, 30:40] = 0
    assert score(inside).value == score(SOURCE).value == 1
    kept = slow_untouched(SOURCE, TARGET)
    noisy = np.clip(TARGET.astype(int) + rng.integers(-20, 21, TARGET.shape), 0, 255).astype(np.uint8)
    error = ((noisy[kept] / 255 - SOURCE[kept] / 255) ** 2).mean()
    assert score(noisy).value == pytest.approx(math.exp(-200 * error))
    assert 0.1 < score(noisy).value < 0.9


def test_without_a_region_there_is_no_value():
    everything = 255 - SOURCE
    for invalid in (
        score(SOURCE, target=None),
        score(SOURCE, source=None),
        score(SOURCE, target=everything),
        score(SOURCE[:, :32]),
    ):
        assert invalid.value is None and invalid.reason and not invalid.failed


def test_pictures_of_another_size_but_the_same_shape_are_brought_to_the_results():
    big = np.kron(SOURCE, np.ones((2, 2, 1), np.uint8))
    big_target = np.kron(TARGET, np.ones((2, 2, 1), np.uint8))
    assert score(SOURCE, source=big, target=big_target).value > 0.3


def test_of_several_references_the_last_is_the_source():
    one = RewardInput(SOURCE, "p", "g", (255 - SOURCE, SOURCE), target=TARGET)
    assert EditRegion()([one])[0].value == 1
