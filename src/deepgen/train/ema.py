"""A running average of the trained parameters, fp32, sharded as they are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from deepgen.train.parallel import local


class ShardedEma:
    """average ← decay·average + (1 − decay)·parameter after each update.

    Args:
        parameters: trained ones by name; DTensors are averaged part by part.
        decay: reached slowly: min(decay, (1 + updates) / (10 + updates)), so that the start is forgotten.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.parameters = dict(parameters)
        self.averages = {name: p.detach().clone().float() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages = [local(x) for x in self.averages.values()]
        values = [local(p.detach()).float() for p in self.parameters.values()]
        torch._foreach_lerp_(averages, values, 1 - decay)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The averages in the place of the parameters, for validation and export."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, parameter in self.parameters.items():
            mine, average = local(parameter.detach()), local(self.averages[name])
            held = mine.clone()
            mine.copy_(average)
            average.copy_(held)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "averages": dict(self.averages)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # The averages are filled in place.
        self.updates = int(state["updates"])
