"""How large the gradient of each term of the loss is, without computing any of them twice."""

from collections.abc import Mapping

import torch
from torch import Tensor

from deepgen.train.optimizer import average_gradients, gradient_norm
from deepgen.train.parallel import Ranks


class GradientTerms:
    """Lays the gradient of one term after another aside, measures it, and puts their sum back.

    Args:
        trained: parameters by name.
        ranks: this process; every one must make the same calls.
    """

    def __init__(self, trained: Mapping[str, Tensor], ranks: Ranks) -> None:
        self.parameters, self.ranks = list(trained.values()), ranks
        self.norms: dict[str, float] = {}
        self._aside: list[dict[int, Tensor]] = []

    def close(self, name: str) -> None:
        """What has gathered since the last call is the gradient of this term."""
        average_gradients(self.parameters, self.ranks)
        self.norms[f"gradient_norm/{name}"] = float(gradient_norm(self.parameters))
        self._aside.append({i: p.grad for i, p in enumerate(self.parameters) if p.grad is not None})
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def restore(self) -> None:
        """The sum of all terms as the gradient."""
        for gradients in self._aside:
            for i, gradient in gradients.items():
                held = self.parameters[i].grad
                self.parameters[i].grad = gradient if held is None else held.add_(gradient)
        self._aside = []
