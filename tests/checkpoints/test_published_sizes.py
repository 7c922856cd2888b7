"""The published model's sizes: every name and shape of its files, built without memory for weights."""

import json
from pathlib import Path

import pytest
import torch

from deepgen.checkpoints.checkpoint import Checkpoint, Part
from deepgen.checkpoints.defaults import GenerationDefaults
from deepgen.checkpoints.tensors import Span, Stored, compare, rename
from deepgen.checkpoints.towers import vlm_name

PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text())
VALUES = {"connector": 432_449_532, "transformer": 2_469_663_936, "vae": 83_819_683, "vlm": 3_754_622_976}
NOWHERE = Path("published")


def stored(tower):
    """The published tensors of a tower, by our names; layers of one shape are one line of the list."""
    tensors = {}
    for name, shape, *layers in PUBLISHED["shapes"][tower]:
        for number in range(layers[0], layers[1] + 1) if layers else [0]:
            item = Stored(tuple(shape), (Span(NOWHERE, 0, torch.bfloat16, 0),))
            tensors[name.replace("*", str(number), 1)] = item
    return rename(tensors, vlm_name) if tower == "vlm" else tensors


@pytest.fixture(scope="module")
def checkpoint():
    parts = {name: Part(NOWHERE, stored(name), PUBLISHED["configs"].get(name)) for name in VALUES}
    return Checkpoint("diffusers", NOWHERE, parts, GenerationDefaults())


@pytest.fixture(scope="module")
def networks(checkpoint):
    return checkpoint.empty_networks().by_name()


@pytest.mark.parametrize("tower", VALUES)
def test_our_modules_have_every_published_name_and_shape(checkpoint, networks, tower):
    found = compare(networks[tower], checkpoint.parts[tower].tensors)
    assert not (found.missing or found.unexpected or found.misshapen)
    assert sum(item.numel for item in checkpoint.parts[tower].tensors.values()) == VALUES[tower]


def test_building_takes_no_memory_for_weights(networks):
    for network in networks.values():
        assert {p.device.type for p in network.parameters()} == {"meta"}
        assert all(b.is_meta or b.numel() < 100_000 for b in network.buffers())


def test_the_bridges_sizes_follow_from_its_tensors(networks):
    config = networks["connector"].config
    assert (config.num_fused_layers, config.num_heads, config.num_queries) == (6, 32, 128)
    assert config.intermediate_size == 11946


def test_the_weights_need_what_they_should(checkpoint):
    assert checkpoint.nbytes(torch.bfloat16) == 2 * sum(VALUES.values()) == 13_481_112_254
