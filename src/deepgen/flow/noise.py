"""Gaussian noise that is a pure function of its key, so that a picture can be redrawn alone, anywhere."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def key_generator(seed: int, role: str, step: int = 0) -> torch.Generator:
    """A CPU generator seeded by the SHA-256 of (seed, role, step).

    Hashing keeps neighbouring seeds, roles and steps independent, which seed + step would not.
    """
    digest = hashlib.sha256(f"deepgen noise 1/{seed}/{role}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def keyed_noise(shape: Sequence[int], seed: int, role: str, step: int = 0) -> Tensor:
    """Standard normal noise of this shape, fp32 on the CPU, the same for equal (shape, seed, role, step).

    Args:
        shape: of the result.
        seed: any integer.
        role: what the noise is for, such as "init" or "sde"; different roles are independent.
        step: the step of the sampler or the optimizer that draws it.
    """
    return torch.randn(tuple(shape), generator=key_generator(seed, role, step), dtype=torch.float32)
