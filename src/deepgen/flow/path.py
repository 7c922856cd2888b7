"""The straight path of rectified flow between a picture and noise."""

import torch
from torch import Tensor

from deepgen.errors import InputError


def interpolate(clean: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """x_sigma = (1 − sigma)·clean + sigma·noise, in fp32; sigma broadcasts against clean."""
    sigma = torch.as_tensor(sigma, dtype=torch.float32, device=clean.device)
    return (1 - sigma) * clean.to(torch.float32) + sigma * noise.to(torch.float32)


def velocity_target(clean: Tensor, noise: Tensor) -> Tensor:
    """d x_sigma / d sigma = noise − clean, in fp32: what the network learns to predict."""
    return noise.to(torch.float32) - clean.to(torch.float32)


def clean_estimate(noisy: Tensor, velocity: Tensor, sigma: Tensor | float) -> Tensor:
    """The picture that a velocity points at: x_sigma − sigma·v, in fp32."""
    return noisy.to(torch.float32) - sigma * velocity.to(torch.float32)


def table_index(uniform: Tensor, size: int) -> Tensor:
    """Index floor(size·u), int64, of uniform draws u in [0, 1) in a table of noise levels.

    Raises:
        InputError: a draw lies outside [0, 1).
    """
    if uniform.numel() and not (float(uniform.min()) >= 0 and float(uniform.max()) < 1):
        raise InputError("uniform draws of a timestep must lie in [0, 1)")
    return (uniform * size).long().clamp_(max=size - 1)
