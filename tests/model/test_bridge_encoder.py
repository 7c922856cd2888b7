import pytest
import torch
import torch.nn.functional as F

from deepgen.errors import ConfigError
from deepgen.model.bridge import Bridge

CONFIG = {
    "vlm_hidden_size": 8,
    "num_fused_layers": 3,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_layers": 2,
    "num_heads": 4,
    "num_queries": 5,
    "pooled_dim": 6,
    "context_dim": 10,
}


@pytest.fixture(scope="module")
def bridge():
    torch.manual_seed(0)
    made = Bridge(**CONFIG)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.double().eval().requires_grad_(False)


def reference(weights, fused):
    """The published connector's arithmetic on one sample [L, n·D], from its tensors alone."""

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    x = linear(fused, "projector_1")
    for layer in ("connector.layers.0", "connector.layers.1"):
        normed = norm(x, f"{layer}.layer_norm1")
        q, k, v = (
            linear(normed, f"{layer}.self_attn.{n}_proj").view(-1, 4, 4).transpose(0, 1) for n in "qkv"
        )
        heads = (q @ k.transpose(1, 2) / 2).softmax(-1) @ v
        x = x + linear(heads.transpose(0, 1).reshape(-1, 16), f"{layer}.self_attn.out_proj")
        inner = F.gelu(linear(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1"), approximate="tanh")
        x = x + linear(inner, f"{layer}.mlp.fc2")
    return linear(x, "projector_3"), linear(x.mean(0), "projector_2")


def test_it_equals_a_float64_reference(bridge):
    fused = torch.randn(1, 7, 24, dtype=torch.float64)
    context, pooled = bridge(fused)
    expected_context, expected_pooled = reference(bridge.state_dict(), fused[0])
    assert torch.allclose(context[0], expected_context, atol=1e-10)
    assert torch.allclose(pooled[0], expected_pooled, atol=1e-10)


def test_ragged_samples_equal_themselves_alone(bridge):
    fused, lengths = torch.randn(3, 7, 24, dtype=torch.float64), torch.tensor([7, 3, 5])
    context, pooled = bridge(fused, lengths)
    for i, length in enumerate(lengths.tolist()):
        alone_context, alone_pooled = bridge(fused[i : i + 1, :length])
        assert torch.allclose(context[i, :length], alone_context[0], atol=1e-10)
        assert torch.allclose(pooled[i], alone_pooled[0], atol=1e-10)


def test_a_new_bridge_conditions_on_nothing():
    context, pooled = Bridge(**CONFIG)(torch.randn(2, 4, 24))
    assert context.abs().max() == 0 and pooled.abs().max() == 0


def test_without_fused_layers_one_state_comes_in():
    assert Bridge(**{**CONFIG, "num_fused_layers": 0}).projector_1.in_features == 8


def test_think_tokens_pass_gradients_to_the_parameter():
    made = Bridge(**CONFIG)
    made.think_tokens(torch.float32).sum().backward()
    assert torch.equal(made.meta_queries.grad, torch.ones(5, 8))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="not a multiple of num_heads 3"):
        Bridge(**{**CONFIG, "num_heads": 3})
