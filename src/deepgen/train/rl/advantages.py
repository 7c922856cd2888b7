"""From rewards to advantages: pure functions of everything that all processes drew in one rollout.

N pictures, K rewards. A reward that is missing is NaN, and takes part in nothing: not in its group's mean, not in the
batch's, and it leaves the picture's other rewards as they are.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from deepgen.config import Config
from deepgen.errors import InputError

AdvantageKind = Literal["reward_wise", "group", "group_batch_std", "batch"]
LEAST_SPREAD = 1e-8
"""Rewards of a group that differ by no more are equal."""


class AdvantageConfig(Config):
    """How rewards become advantages; deviations are unbiased, `epsilon` is added to each.

    Attributes:
        kind: reward_wise: each reward is standardised in its group, then they are summed by weight (paper, eq. 2).
            group: the weighted sum is standardised in its group (GRPO). group_batch_std: less the group's mean, over
            the deviation of the batch. batch: standardised over the batch (REINFORCE++).
        batch_normalise: standardise the result over the batch; with reward_wise this is GDPO, as published.
        clamp: largest absolute value.
        epsilon: see above.
        drop_zero_spread: groups without any difference are left out of the batch's statistics and of training.
    """

    kind: AdvantageKind = "reward_wise"
    batch_normalise: bool = True
    clamp: float = Field(5.0, gt=0)
    epsilon: float = Field(1e-4, gt=0)
    drop_zero_spread: bool = True


@dataclass(frozen=True)
class Advantages:
    """What a rollout's pictures are worth; all [N].

    Attributes:
        values: fp64; NaN where there is none.
        valid: where there is one.
        flat: valid ones of groups in which nothing differs; their value is 0 where such groups are dropped.
        clamped: where the clamp took effect.
    """

    values: Tensor
    valid: Tensor
    flat: Tensor
    clamped: Tensor


def compute_advantages(
    rewards: Tensor, groups: Tensor, weights: Tensor, settings: AdvantageConfig
) -> Advantages:
    """Advantages of all pictures of a rollout.

    Where some of a picture's rewards are missing, the sum of the others is scaled up to the full weight, so that a
    missing reward is no bad one. A reward of which a group has fewer than two values is missing in that group.

    Args:
        rewards: [N, K], NaN where missing.
        groups: [N] int64, pictures of one prompt share a number.
        weights: [N, K] of each reward for each picture; 0 where it is not used. Their sign is a direction.
        settings: see there.

    Raises:
        InputError: shapes disagree.
    """
    if rewards.dim() != 2 or rewards.shape != weights.shape or groups.shape != rewards.shape[:1]:
        raise InputError(
            f"rewards {list(rewards.shape)}, weights {list(weights.shape)} and groups {list(groups.shape)} must be "
            "[N, K], [N, K] and [N]"
        )
    rewards, weights = rewards.double(), weights.double()
    _, groups = groups.unique(return_inverse=True)
    wanted = weights != 0
    known = rewards.isfinite() & wanted
    known &= _group_sum(known.double(), groups)[groups] >= 2
    values, valid = weighted_sum(rewards, known, weights)
    differs = values[:, None]
    if settings.kind == "reward_wise":
        means, stds = _group_moments(rewards, known, groups)
        values, valid = weighted_sum((rewards - means) / (stds + settings.epsilon), known, weights)
        differs = torch.where(known, rewards, torch.nan)
    else:
        # Sums of unlike rewards are not compared: here a picture has all that its group (or the batch) is judged by.
        judged = wanted if settings.kind == "batch" else (_group_sum(known.double(), groups) > 0)[groups]
        valid &= ~(judged & wanted & ~known).any(1)
        differs = torch.where(valid[:, None], differs, torch.nan)
        values = _standardised(values, valid, groups, settings)
    flat = valid & ~_spread(differs, groups)[groups].any(1)
    if settings.kind == "batch":
        flat = torch.zeros_like(flat)  # there a group without spread still differs from the others
    elif settings.drop_zero_spread:
        values = torch.where(flat, torch.zeros_like(values), values)
    used = valid & ~flat if settings.drop_zero_spread else valid
    if settings.batch_normalise and int(used.sum()) > 1:
        chosen = values[used]
        normal = (values - chosen.mean()) / (chosen.std() + settings.epsilon)
        values = torch.where(used, normal, values)
    clamped = valid & (values.abs() > settings.clamp)
    values = values.clamp(-settings.clamp, settings.clamp)
    return Advantages(torch.where(valid, values, torch.nan), valid, flat, clamped)


def _standardised(values: Tensor, valid: Tensor, groups: Tensor, settings: AdvantageConfig) -> Tensor:
    """The weighted sums [N], standardised as the kind says."""
    of_groups = _group_moments(values[:, None], valid[:, None], groups)
    means, stds = of_groups[0][:, 0], of_groups[1][:, 0]
    if settings.kind != "group":
        chosen = values[valid]
        stds = chosen.std() if len(chosen) > 1 else torch.zeros((), dtype=values.dtype)
        if settings.kind == "batch":
            means = chosen.mean()
    return (values - means) / (stds + settings.epsilon)


def weighted_sum(values: Tensor, known: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sums [N] of weight·value [N, K] over the known ones, each scaled up to all the weight that is wanted; and where
    [N] any is known."""
    total = torch.where(known, weights * values, 0).sum(1)
    wanted, held = weights.abs().sum(1), torch.where(known, weights.abs(), 0).sum(1)
    valid = held > 0
    return total * torch.where(valid, wanted / held.clamp_min(1e-300), 0), valid


def _group_sum(values: Tensor, groups: Tensor) -> Tensor:
    """Sums [groups, K] of values [N, K]."""
    count = int(groups.max()) + 1 if len(groups) else 0
    return torch.zeros(count, values.shape[1], dtype=values.dtype).index_add_(0, groups, values)


def _group_moments(values: Tensor, known: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased deviation, [N, K] each, of the known values of each picture's group."""
    count = _group_sum(known.double(), groups)
    means = (_group_sum(torch.where(known, values, 0), groups) / count.clamp_min(1))[groups]
    squares = torch.where(known, (values - means).square(), 0)
    variance = _group_sum(squares, groups) / (count - 1).clamp_min(1)
    return means, variance.sqrt()[groups]


def _spread(values: Tensor, groups: Tensor) -> Tensor:
    """Whether the values of each column differ within a group, [groups, K]; NaN are left out."""
    count = int(groups.max()) + 1 if len(groups) else 0
    places = groups[:, None].expand_as(values)
    known = values.isfinite()
    high = torch.full((count, values.shape[1]), -torch.inf, dtype=values.dtype)
    low = -high
    high.scatter_reduce_(0, places, torch.where(known, values, -torch.inf), "amax")
    low.scatter_reduce_(0, places, torch.where(known, values, torch.inf), "amin")
    return high - low > LEAST_SPREAD
