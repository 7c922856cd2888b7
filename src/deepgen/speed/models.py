"""The models whose speed is measured."""

import torch

from deepgen.errors import InputError
from deepgen.model.deepgen import DeepGenModel
from deepgen.train.build import open_source
from deepgen.train.published import PUBLISHED_SIZES
from deepgen.train.run_config import ModelConfig
from deepgen.train.tiny import TINY

SIZES = {PUBLISHED_SIZES: 512, "nano": 256, TINY: 64}
"""Names of models, and the side in pixels of the pictures that each is measured with."""


def measured_model(sizes: str, device: torch.device) -> DeepGenModel:
    """The published networks with random weights, nano or the tiny model, on a device; equal on every process.

    Raises:
        InputError: another name.
    """
    if sizes not in SIZES:
        raise InputError(f"unknown sizes {sizes!r}; known: {', '.join(SIZES)}")
    torch.manual_seed(0)
    return open_source(ModelConfig(init_from=sizes), 0).load(device).to(device)
