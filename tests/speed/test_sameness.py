"""Digests that tell every change, and none that sharding makes."""

import pytest
import torch

from deepgen.speed.sameness import digest_of_all, tensors_digest
from deepgen.train.parallel import Ranks


@pytest.mark.parametrize("change", ["last bit", "exchange", "name", "sign of zero"])
def test_a_digest_of_tensors_tells_every_change(change):
    values = torch.linspace(-1, 1, 12).view(3, 4).clone()
    values[1, 1] = 0
    other = values.clone()
    if change == "last bit":
        other[2, 3] = torch.nextafter(other[2, 3], torch.tensor(2.0))
    elif change == "exchange":
        other[0, 0], other[2, 2] = values[2, 2], values[0, 0]
    elif change == "sign of zero":
        other[1, 1] = -0.0
    same = tensors_digest({"a": values.clone()}) == tensors_digest({"a": values})
    assert same and tensors_digest({"b" if change == "name" else "a": other}) != tensors_digest({"a": values})


def test_what_is_seen_twice_differs_from_what_is_seen_once_and_the_order_does_not_matter():
    assert digest_of_all(["x", "y"], Ranks()) == digest_of_all(["y", "x"], Ranks())
    assert digest_of_all(["x", "y"], Ranks()) != digest_of_all(["x", "y", "y"], Ranks())
