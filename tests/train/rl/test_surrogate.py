"""The clipped surrogate and the KL, in float64 against their definitions."""

import numpy as np
import pytest
import torch

from deepgen.train.rl.surrogate import clipped_surrogate, velocity_kl


def rows(count=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    new, old, gained = (torch.randn(count, generator=generator, dtype=torch.float64) for _ in range(3))
    return new * 1e-3, old * 1e-3, gained


def test_the_surrogate_is_the_smaller_of_two_gains():
    new, old, gained = rows()
    found = clipped_surrogate(new, old, gained, (5e-4, 1e-3))
    ratio = np.exp(new.numpy() - old.numpy())
    gain = np.minimum(ratio * gained.numpy(), np.clip(ratio, 1 - 5e-4, 1 + 1e-3) * gained.numpy())
    np.testing.assert_allclose(found.policy, -gain, rtol=1e-12)


def test_rows_beyond_the_clip_range_have_no_gradient_and_are_counted():
    new, old, gained = rows()
    new.requires_grad_()
    found = clipped_surrogate(new, old, gained, (5e-4, 1e-3))
    found.policy.sum().backward()
    clipped = found.low | found.high
    assert torch.equal(new.grad == 0, clipped) and 0 < clipped.sum() < len(clipped)
    assert (found.low & (gained < 0)).sum() == found.low.sum() > 0
    kept = ~clipped
    torch.testing.assert_close(new.grad[kept], (-gained * found.ratio.detach())[kept])


def test_on_policy_the_ratio_is_one_and_the_gradient_that_of_the_log_probability():
    new, _, gained = rows()
    new.requires_grad_()
    found = clipped_surrogate(new, new.detach(), gained, (1e-4, 1e-4))
    found.policy.sum().backward()
    assert (found.ratio == 1).all() and not (found.low | found.high).any()
    torch.testing.assert_close(new.grad, -gained)


@pytest.mark.parametrize("weighting", ["published", "unweighted"])
def test_the_kl_is_the_mean_squared_velocity_difference_with_its_weight(weighting):
    generator = torch.Generator().manual_seed(0)
    v, other = (torch.randn(5, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    scale = torch.tensor([0.01, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    wanted = ((v - other) ** 2).numpy().reshape(5, -1).mean(1)
    if weighting == "published":
        wanted = wanted / (2 * scale.numpy() ** 2 + 1e-7)
    np.testing.assert_allclose(velocity_kl(v, other, scale, weighting), wanted, rtol=1e-12)


def test_the_kl_of_filled_up_rows_is_that_of_their_own_values():
    v, other = torch.randn(2, 6), torch.randn(2, 6)
    wide = [torch.nn.functional.pad(x, (0, 3)) for x in (v, other)]
    counts, scale = torch.tensor([6, 6]), torch.ones(2)
    torch.testing.assert_close(
        velocity_kl(*wide, scale, "unweighted", counts), velocity_kl(v, other, scale, "unweighted")
    )
