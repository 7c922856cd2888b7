"""A step replayed as a CUDA graph is the step."""

import pytest
import torch
from torch import nn

from deepgen.train.graphs import Replayed


@pytest.mark.gpu
def test_a_replayed_step_gives_the_losses_and_gradients_of_the_step_itself():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).cuda()
    parameters = list(layer.parameters())

    def step(kind, inputs):
        loss = (layer(inputs["x"]) * inputs["scale"]).square().mean()
        loss.backward()
        return (loss.detach(),)

    replayed = Replayed(step, parameters)
    for kind, rows in (("small", 3), ("large", 7), ("small", 3), ("large", 7)):
        inputs = {"x": torch.randn(rows, 8, device="cuda"), "scale": torch.rand((), device="cuda")}
        (loss,) = replayed(kind, inputs)
        gradients = [p.grad.clone() for p in parameters]
        layer.zero_grad(set_to_none=True)
        (expected,) = step(kind, inputs)
        assert torch.allclose(loss, expected)
        for mine, parameter in zip(gradients, parameters, strict=True):
            assert torch.allclose(mine, parameter.grad, atol=1e-6)
        with torch.no_grad():
            parameters[0].add_(0.1)  # the graph reads the weights where they are
        layer.zero_grad(set_to_none=True)
