"""What is seen of the trained rows, summed on the device and read once a rollout."""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from deepgen.train.parallel import Ranks


@dataclass
class Measures:
    """Means and largest values over rows of all processes. Every process must take in the same names."""

    ranks: Ranks
    sums: dict[str, Tensor] = field(default_factory=dict)
    highs: dict[str, Tensor] = field(default_factory=dict)

    def add(self, counts: Tensor, **values: Tensor) -> None:
        """Values [B] of rows, weighted by counts [B]."""
        for name, value in values.items():
            taken = torch.where(counts > 0, value.detach().double() * counts, 0.0)
            pair = torch.stack([taken.sum(), counts.double().sum()])
            self.sums[name] = self.sums[name] + pair if name in self.sums else pair

    def highest(self, counts: Tensor, **values: Tensor) -> None:
        """The same for largest values; rows of count 0 are left out."""
        for name, value in values.items():
            most = torch.where(counts > 0, value.detach().double(), -torch.inf).max()
            self.highs[name] = torch.maximum(self.highs[name], most) if name in self.highs else most

    def read(self) -> dict[str, float]:
        """By name; what no row had is left out. Collective."""
        found: dict[str, float] = {}
        if self.sums:
            sums = torch.stack(list(self.sums.values()))
            if self.ranks.world_size > 1:
                dist.all_reduce(sums)
            means = zip(self.sums, sums.tolist(), strict=True)
            found |= {name: total / count for name, (total, count) in means if count}
        if self.highs:
            highs = torch.stack(list(self.highs.values()))
            if self.ranks.world_size > 1:
                dist.all_reduce(highs, dist.ReduceOp.MAX)
            most = zip(self.highs, highs.tolist(), strict=True)
            found |= {name: value for name, value in most if value > -float("inf")}
        return found
