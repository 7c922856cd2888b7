"""The clipped surrogate and the KL to a reference: pure functions of rows, one row a picture at one step."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

KlWeighting = Literal["published", "unweighted"]


@dataclass(frozen=True)
class Surrogate:
    """Of each row [B], with gradients: `policy` = max(−A·r, −A·clip(r)); `ratio` r; and where clipping acts.

    Attributes:
        low: the ratio is below its range and the advantage negative, so that the row has no gradient.
        high: it is above, and the advantage positive.
    """

    policy: Tensor
    ratio: Tensor
    low: Tensor
    high: Tensor


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip: tuple[float, float]
) -> Surrogate:
    """PPO's clipped objective (paper, eq. 3), negated: to be minimised.

    Args:
        log_prob: of the policy as it is, with a gradient.
        old_log_prob: of the policy that the ratio is taken to; its gradient is not wanted.
        advantages: no gradient.
        clip: how far the ratio may fall below 1, and rise above it, and still have a gradient.
    """
    ratio = (log_prob - old_log_prob.detach()).exp()
    bounded = ratio.clamp(1 - clip[0], 1 + clip[1])
    policy = torch.maximum(-advantages * ratio, -advantages * bounded)
    held = ratio.detach()
    low = (held < 1 - clip[0]) & (advantages < 0)
    high = (held > 1 + clip[1]) & (advantages > 0)
    return Surrogate(policy, ratio, low, high)


def velocity_kl(
    velocity: Tensor,
    reference: Tensor,
    scale: Tensor,
    weighting: KlWeighting,
    counts: Tensor | None = None,
) -> Tensor:
    """Mean squared difference of velocities [B]: unweighted (paper, eq. 4), or over 2·s² + 1e-7 as published.

    The published weight grows without bound towards low noise: of 50 steps, the last five carry 99% of it.

    Args:
        velocity, reference: [B, …].
        scale: s [B], of the step's `Transition`.
        weighting: see above.
        counts: real elements of each row, as in `Transition.log_prob`.
    """
    squares = (velocity - reference.detach()).square().flatten(1).sum(1)
    square = squares / (velocity[0].numel() if counts is None else counts)
    return square if weighting == "unweighted" else square / (2 * scale.square() + 1e-7)
