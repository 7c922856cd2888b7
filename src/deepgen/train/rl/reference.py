"""The policy that the KL holds the trained one to: the same networks with other trained values."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from deepgen.errors import ConfigError
from deepgen.model.deepgen import DeepGenModel
from deepgen.train.ema import ShardedEma


class Reference(Protocol):
    """Puts the reference in the policy's place while inside; no gradients are wanted there."""

    @contextmanager
    def applied(self) -> Iterator[None]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class FrozenCopy(ShardedEma):
    """The trained parameters as they were at the start; an average that takes nothing in. Part of the saved state."""

    def __init__(self, trained: Mapping[str, Tensor]) -> None:
        super().__init__(trained, decay=1.0)


class AdaptersOff:
    """The model without its adapters; keeps nothing.

    Raises:
        ConfigError: something else is trained too.
    """

    def __init__(self, model: DeepGenModel, trained: Mapping[str, Tensor]) -> None:
        others = [name for name in trained if ".lora_" not in name]
        if others:
            raise ConfigError(
                f"loss.reference is adapters_off, but {others[0]} is trained too; set it to copy"
            )
        self.layers = [m for m in model.modules() if isinstance(m, LoraLayer)]

    @contextmanager
    def applied(self) -> Iterator[None]:
        held = [dict(layer.scaling) for layer in self.layers]
        for layer in self.layers:
            layer.scaling.update(dict.fromkeys(layer.scaling, 0.0))
        try:
            with torch.no_grad():
                yield
        finally:
            for layer, scaling in zip(self.layers, held, strict=True):
                layer.scaling.update(scaling)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""
