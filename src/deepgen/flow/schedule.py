"""Noise levels of flow matching with a static shift, as SD3 and diffusers' FlowMatchEuler scheduler use them.

A base level b in (0, 1] becomes sigma = s·b / (1 + (s − 1)·b) (SD3, Esser et al. 2024, eq. 23); the network's
timestep is 1000·sigma.
"""

import numpy as np
import torch
from torch import Tensor

from deepgen.errors import InputError

NUM_TRAIN_TIMESTEPS = 1000


def shift_sigma(base: Tensor, shift: float) -> Tensor:
    """Map uniform base levels in [0, 1] to noise levels in [0, 1]; larger shifts spend more on noise."""
    return shift * base / (1 + (shift - 1) * base)


def train_sigma_table(shift: float, num_train_timesteps: int = NUM_TRAIN_TIMESTEPS) -> Tensor:
    """The noise levels [num_train_timesteps] fp32 that training draws from, from 1 downwards."""
    counts = torch.arange(num_train_timesteps, 0, -1, dtype=torch.float32)
    return shift_sigma(counts / num_train_timesteps, shift)


def sigmas(num_inference_steps: int, shift: float, num_train_timesteps: int = NUM_TRAIN_TIMESTEPS) -> Tensor:
    """The noise levels [num_inference_steps + 1] fp32 of a sampling run, from 1 down to 0.

    Equals diffusers' scheduler, whose end points are already shifted before the whole row is shifted (again):
    with shift 3 and 50 steps the last levels are 0.0669, 0.0089 and 0. The published model samples that way.

    Raises:
        InputError: num_inference_steps < 1, or shift <= 0.
    """
    if num_inference_steps < 1:
        raise InputError(f"num_inference_steps is {num_inference_steps}; it must be at least 1")
    if shift <= 0:
        raise InputError(f"shift is {shift}; it must be positive")
    table = train_sigma_table(shift, num_train_timesteps)
    ends = (table[0].item() * num_train_timesteps, table[-1].item() * num_train_timesteps)
    # float64 in between, because diffusers goes through numpy and equality to the last bit is wanted.
    base = torch.from_numpy(np.linspace(*ends, num_inference_steps)) / num_train_timesteps
    levels = shift_sigma(base, shift).to(torch.float32)
    return torch.cat([levels, torch.zeros(1)])


def timestep_of(sigma: Tensor) -> Tensor:
    """The network's time input, in [0, 1000], of noise levels in [0, 1]; any shape, fp32."""
    return sigma.to(torch.float32) * NUM_TRAIN_TIMESTEPS
