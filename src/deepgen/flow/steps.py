"""One step of a sampler: from a noise level to the next, given the velocity. All in fp32."""

import torch
from torch import Tensor


def euler_step(
    latents: Tensor, velocity: Tensor, sigma: Tensor | float, next_sigma: Tensor | float
) -> Tensor:
    """Deterministic Euler step of dx/dsigma = v: x + (next_sigma − sigma)·v.

    Args:
        latents: any shape; the result has it too, in fp32.
        velocity: the same shape.
        sigma, next_sigma: noise levels in [0, 1]; numbers, or tensors that broadcast.
    """
    return latents.to(torch.float32) + (next_sigma - sigma) * velocity.to(torch.float32)
