"""Networks that look: what they are shown, and how often."""

import itertools
import random

from deepgen.train.seeing import again


def test_each_batch_is_used_when_it_comes_and_then_again_as_often_as_asked() -> None:
    shown = list(itertools.islice(again(iter(range(300)), 4, 8, random.Random(0)), 4 * 300))
    assert shown[::4] == list(range(300))
    assert all(number - 8 < shown[4 * number + i] <= number for number in range(300) for i in range(4))
