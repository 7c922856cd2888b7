import pytest
import torch
import torch.nn.functional as F

from deepgen.model.attention import attention, known_full, masked_by_channels, ragged_layout


def naive(query, key, value, valid):
    """Softmax attention in float64 over the valid keys only."""
    query, key, value = query.double(), key.double(), value.double()
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return scores.masked_fill(~valid[:, None, None, :], float("-inf")).softmax(-1) @ value


def test_ragged_parts_equal_a_float64_reference():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 9, 8).unbind()
    layout = ragged_layout([(5, torch.tensor([5, 2])), (4, torch.tensor([1, 4]))], query)
    valid = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1, 1, 1, 1]]).bool()
    assert torch.equal(layout.mask[:, 0, 0], valid)
    result = attention(query, key, value, layout)
    assert torch.allclose(result.double(), naive(query, key, value, valid), atol=1e-6)


def test_a_part_without_lengths_counts_as_full():
    query = torch.randn(2, 4, 5, 8)
    layout = ragged_layout([(3, None), (2, torch.tensor([1, 2]))], query)
    assert layout.mask[:, 0, 0].tolist() == [[True] * 4 + [False], [True] * 5]


def test_without_lengths_there_is_no_mask():
    query = torch.randn(1, 2, 3, 8)
    assert ragged_layout([(3, None)], query) is None
    assert torch.equal(attention(query, query, query), F.scaled_dot_product_attention(query, query, query))


def test_only_lengths_on_the_cpu_are_looked_at():
    assert known_full(None, 4)
    assert known_full(torch.tensor([4, 4]), 4)
    assert not known_full(torch.tensor([4, 3]), 4)
    assert not known_full(torch.tensor([4, 4], device="meta"), 4)


@pytest.mark.gpu
def test_the_variable_length_kernel_equals_the_masked_one():
    torch.manual_seed(0)
    shape = (3, 2, 4, 48, 64)
    query, key, value = torch.randn(shape, device="cuda", dtype=torch.bfloat16).requires_grad_().unbind()
    lengths = [(32, torch.tensor([32, 7])), (16, torch.tensor([3, 16]))]
    layout = ragged_layout(lengths, query)
    assert layout.packing is not None
    packed = attention(query, key, value, layout)
    masked = attention(query, key, value, layout._replace(packing=None))
    real = layout.mask[:, :, 0, :, None]
    assert torch.allclose(packed * real, masked * real, atol=2e-2)
    grads = [
        torch.autograd.grad((x * real).float().square().sum(), key, retain_graph=True)[0]
        for x in (packed, masked)
    ]
    assert torch.allclose(grads[0] * real, grads[1] * real, atol=5e-2, rtol=5e-2)


def test_masking_by_channels_equals_a_float64_reference():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 9, 8).unbind()
    valid = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1, 1, 1, 1]]).bool()
    result = masked_by_channels(query, key, value, valid[:, None, None])
    assert torch.allclose(result.double(), naive(query, key, value, valid), atol=1e-6)
