"""The scores of a rollout as tensors over all processes, and what is told of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deepgen.rewards import Score, WeightedReward
from deepgen.rewards.protocol import Picture
from deepgen.rewards.runner import Tally
from deepgen.train.parallel import Ranks, all_gather_rows
from deepgen.train.rl.advantages import Advantages, weighted_sum
from deepgen.train.rl.rollout import Drawn

SMALL = 16
"""Side at which pictures are compared."""


@dataclass(frozen=True)
class ScoreTable:
    """Everything that all processes drew in one rollout, in the rollout's order; N pictures, on the CPU in fp64.

    Attributes:
        rewards: [N, K], NaN where missing.
        weights: [N, K], 0 where a reward is not used.
        held_out: [N, H], NaN where missing.
        groups: [N], the prompts' numbers in the run.
        families: [N], places in the list of families.
        diversity: [N], of each picture's group.
        mine: [n], the place here of each row of this process.
    """

    rewards: Tensor
    weights: Tensor
    held_out: Tensor
    groups: Tensor
    families: Tensor
    diversity: Tensor
    mine: Tensor

    @property
    def totals(self) -> Tensor:
        """[N]: the weighted sum of a picture's rewards, where some are missing that of the others scaled up to the full
        weight, as for advantages; NaN where it has none."""
        sums, valid = weighted_sum(self.rewards, self.rewards.isfinite(), self.weights)
        return torch.where(valid, sums, torch.nan)


def gather_scores(
    drawn: Drawn,
    scores: Mapping[str, Sequence[Score]],
    rewards: Sequence[WeightedReward],
    held_out: Sequence[str],
    families: Sequence[str],
    ranks: Ranks,
) -> ScoreTable:
    """The table of all processes. Collective."""
    own = [drawn.groups[i].group for i in drawn.owner]
    columns = [
        *([_value(s) for s in scores[one.name]] for one in rewards),
        *([one.weight_for(group.prompt.family) for group in own] for one in rewards),
        *([_value(s) for s in scores[name]] for name in held_out),
        drawn.numbers,
        [group.number for group in own],
        [families.index(group.prompt.family) for group in own],
        _diversity(drawn.pictures, drawn.owner),
    ]
    local = torch.tensor(columns, dtype=torch.float64).T.contiguous()
    table = all_gather_rows(local.to(ranks.device), ranks).cpu()
    table = table[table[:, -4].argsort()]
    count = len(rewards)
    return ScoreTable(
        table[:, :count],
        table[:, count : 2 * count],
        table[:, 2 * count : 2 * count + len(held_out)],
        table[:, -3].long(),
        table[:, -2].long(),
        table[:, -1],
        torch.tensor(drawn.numbers),
    )


def _value(score: Score) -> float:
    return float("nan") if score.value is None else score.value


def _diversity(pictures: Sequence[Picture], owner: Sequence[int]) -> list[float]:
    """Of each picture's group: the mean deviation over its pictures of their values in [0, 1], seen small."""
    found: dict[int, float] = {}
    for group in dict.fromkeys(owner):
        rows = [_small(p) for p, o in zip(pictures, owner, strict=True) if o == group]
        found[group] = float(np.stack(rows).std(0).mean())
    return [found[group] for group in owner]


def _small(picture: Picture) -> NDArray[np.float32]:
    """The picture at SMALL × SMALL, in [0, 1]."""
    small = Image.fromarray(picture).resize((SMALL, SMALL), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / np.float32(255)


def describe(
    table: ScoreTable,
    advantages: Advantages,
    names: Sequence[str],
    held_out: Sequence[str],
    families: Sequence[str],
) -> dict[str, float]:
    """What is written of a rollout's scores: means where there is a value, deviations within groups, shares."""
    record = {
        "reward/mean": _mean(table.totals),
        "diversity": _mean(table.diversity),
        "advantage/std": float(advantages.values[advantages.valid].std(correction=0)),
        "advantage/invalid": float((~advantages.valid).double().mean()),
        "advantage/zero_spread": _share(advantages.flat, advantages.valid),
        "advantage/clamped": _share(advantages.clamped, advantages.valid),
    }
    for k, name in enumerate(names):
        used = table.weights[:, k] != 0
        values = table.rewards[used, k]
        record[f"reward/{name}"] = _mean(values)
        record[f"reward_spread/{name}"] = _within(values, table.groups[used])
    for k, name in enumerate(held_out):
        record[f"held_out/{name}"] = _mean(table.held_out[:, k])
    if len(families) > 1:
        for k, family in enumerate(families):
            record[f"reward_of/{family}"] = _mean(table.totals[table.families == k])
    return {name: value for name, value in record.items() if value == value}


def describe_tallies(tallies: Mapping[str, Tally], ranks: Ranks) -> dict[str, float]:
    """`reward_WHAT/NAME` over all processes: sums, the longest pause, and `valid_share` of what was asked (1 where
    nothing was). Collective."""
    own = torch.tensor([[list(vars(one).values()) for one in tallies.values()]], dtype=torch.float64)
    rows = all_gather_rows(own.to(ranks.device), ranks).cpu()
    record: dict[str, float] = {}
    for name, sums, most in zip(tallies, rows.sum(0).tolist(), rows.amax(0).tolist(), strict=True):
        told = vars(Tally(*sums)) | {"paused_seconds": Tally(*most).paused_seconds}
        valid, asked = told.pop("valid"), told["asked"]
        told["valid_share"] = valid / asked if asked else 1.0
        record |= {f"reward_{key}/{name}": value for key, value in told.items()}
    return record


def _mean(values: Tensor) -> float:
    known = values[values.isfinite()]
    return float(known.mean()) if len(known) else float("nan")


def _share(part: Tensor, whole: Tensor) -> float:
    count = int(whole.sum())
    return float((part & whole).sum()) / count if count else float("nan")


def _within(values: Tensor, groups: Tensor) -> float:
    """The mean deviation within groups of two or more values."""
    known = values.isfinite()
    stds = [values[known & (groups == g)] for g in groups.unique()]
    found = [float(x.std()) for x in stds if len(x) > 1]
    return sum(found) / len(found) if found else float("nan")
