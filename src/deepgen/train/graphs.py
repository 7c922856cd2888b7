"""Forward and backward passes replayed as CUDA graphs.

A small model's step is a thousand kernels of some 30 µs each: the host needs longer to launch them than the device to
run them. A graph launches them all at once.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

WARM_UPS = 3

Step = Callable[[Any, dict[str, Tensor]], tuple[Tensor, ...]]
"""Runs forward and backward on named tensors of some kind; returns values that need no gradient."""


class _Graph:
    """One recorded step: where it reads, where it writes, and the gradients that it leaves."""

    def __init__(
        self,
        step: Callable[[dict[str, Tensor]], tuple[Tensor, ...]],
        inputs: dict[str, Tensor],
        parameters: Sequence[Tensor],
        pool: Any,
    ) -> None:
        self.inputs = {name: value.clone() for name, value in inputs.items()}
        self.graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):  # compiles, and chooses algorithms: a recording may do neither
                step(self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        for parameter in parameters:
            parameter.grad = None
        # Other threads (the loader's, the collectives' watchdog) go on calling CUDA.
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
            self.outputs = step(self.inputs)
        self.gradients = [parameter.grad for parameter in parameters]

    def replay(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        for name, value in self.inputs.items():
            value.copy_(inputs[name])
        self.graph.replay()
        return tuple(value.clone() for value in self.outputs)


class Replayed:
    """A step that runs as a CUDA graph, one for each kind of inputs; the graphs share their memory.

    The step must not wait for the device, and its shapes may depend on the kind alone. Gradients are those of one step:
    they do not add up over calls, and the next call writes over them.

    Args:
        step: see `Step`.
        parameters: whose gradients it makes.
    """

    def __init__(self, step: Step, parameters: Sequence[Tensor]) -> None:
        self.step, self.parameters = step, parameters
        self._graphs: dict[Hashable, _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, kind: Hashable, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """What the step returns for these inputs; every parameter has its gradient after it."""
        if kind not in self._graphs:
            self._graphs[kind] = _Graph(partial(self.step, kind), inputs, self.parameters, self._pool)
        graph = self._graphs[kind]
        outputs = graph.replay(inputs)
        for parameter, gradient in zip(self.parameters, graph.gradients, strict=True):
            parameter.grad = gradient
        return outputs
