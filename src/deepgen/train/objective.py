"""The velocity objective of flow matching: what one training step compares."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepgen.flow.path import interpolate, table_index, velocity_target
from deepgen.flow.schedule import timestep_of, train_sigma_table
from deepgen.model.deepgen import Conditioning, DeepGenModel


@dataclass(frozen=True)
class NoisyBatch:
    """What the network sees and should answer; pictures may differ in size.

    Attributes:
        latents: noisy latents [C, h, w] fp32, one a sample.
        timestep: [B] in [0, 1000].
        targets: velocities [C, h, w] fp32, one a sample.
    """

    latents: list[Tensor]
    timestep: Tensor
    targets: list[Tensor]


def noisy_batch(clean: Sequence[Tensor], noise: Sequence[Tensor], sigma: Tensor) -> NoisyBatch:
    """Noisy latents and velocity targets at the noise levels sigma [B] in [0, 1]."""
    levels = sigma.to(clean[0].device, non_blocking=True)
    pairs = list(zip(clean, noise, levels, strict=True))
    return NoisyBatch(
        latents=[interpolate(x, n, s) for x, n, s in pairs],
        timestep=timestep_of(sigma),
        targets=[velocity_target(x, n) for x, n, _ in pairs],
    )


def uniform_sigmas(uniform: Tensor, shift: float) -> Tensor:
    """Noise levels [B] of uniform draws u [B] in [0, 1): entry floor(1000·u) of the shifted table."""
    table = train_sigma_table(shift)
    return table[table_index(uniform.cpu(), len(table))]


def velocity_loss(velocities: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean squared error of each sample's velocity, fp32 [B]; pictures count the same whatever their size."""
    return torch.stack(
        [(v.float() - t.float()).square().mean() for v, t in zip(velocities, targets, strict=True)]
    )


def training_loss(
    model: DeepGenModel,
    conditioning: Conditioning,
    batch: NoisyBatch,
    references: Sequence[Sequence[Tensor]] | None = None,
) -> Tensor:
    """Loss of each sample [B]: the published objective, with weight 1 at every noise level.

    Args:
        model: with gradients where they are wanted.
        conditioning: B rows.
        batch: from `noisy_batch`.
        references: for each sample its clean reference latents [C, h, w].
    """
    velocities = model.velocity(batch.latents, batch.timestep, conditioning, references)
    return velocity_loss(list(velocities), batch.targets)
