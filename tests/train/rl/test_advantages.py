"""Advantages against loops over groups in numpy, written from rl.md, section 7."""

import numpy as np
import pytest
import torch

from deepgen.train.rl.advantages import AdvantageConfig, compute_advantages

EPS = 1e-4


def rollout(groups=6, size=4, rewards=3, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(groups * size, rewards)) * [1, 3, 0.2] + [0, 5, 0.3]
    weights = np.tile([0.7, 0.1, 0.2], (groups * size, 1))
    return values, np.repeat(np.arange(groups), size), weights


def compute(values, groups, weights, **settings):
    tensors = (torch.tensor(x) for x in (values, groups, weights))
    return compute_advantages(*tensors, AdvantageConfig(**settings))


def gdpo(values, groups, weights, batch=True):
    total = np.zeros(len(values))
    for k in range(values.shape[1]):
        for g in np.unique(groups):
            rows = groups == g
            r = values[rows, k]
            total[rows] += weights[rows, k] * (r - r.mean()) / (r.std(ddof=1) + EPS)
    return (total - total.mean()) / (total.std(ddof=1) + EPS) if batch else total


@pytest.mark.parametrize("batch", [True, False])
def test_reward_wise_advantages_are_gdpo(batch):
    values, groups, weights = rollout()
    found = compute(values, groups, weights, batch_normalise=batch)
    np.testing.assert_allclose(found.values, gdpo(values, groups, weights, batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["group", "group_batch_std", "batch"])
def test_joint_advantages_are_those_of_the_weighted_sum(kind):
    values, groups, weights = rollout()
    total = (values * weights).sum(1)
    wanted = np.empty(len(total))
    for g in np.unique(groups):
        rows = groups == g
        mean = total.mean() if kind == "batch" else total[rows].mean()
        std = (total[rows] if kind == "group" else total).std(ddof=1)
        wanted[rows] = (total[rows] - mean) / (std + EPS)
    found = compute(values, groups, weights, kind=kind, batch_normalise=False)
    np.testing.assert_allclose(found.values, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["reward_wise", "group"])
def test_an_invalid_reward_changes_no_other_groups_advantage(kind):
    values, groups, weights = rollout()
    whole = compute(values, groups, weights, kind=kind, batch_normalise=False)
    values[5, 0] = np.nan
    some = compute(values, groups, weights, kind=kind, batch_normalise=False)
    others = torch.tensor(groups != 1)
    assert torch.equal(some.values[others], whole.values[others])
    assert not torch.equal(some.values[~others], whole.values[~others])


@pytest.mark.parametrize("kind", ["reward_wise", "group", "group_batch_std", "batch"])
@pytest.mark.parametrize("batch", [True, False])
def test_a_picture_without_rewards_is_as_if_it_had_not_been_drawn(kind, batch):
    values, groups, weights = rollout()
    values[5] = np.nan
    found = compute(values, groups, weights, kind=kind, batch_normalise=batch)
    rest = np.arange(len(values)) != 5
    without = compute(values[rest], groups[rest], weights[rest], kind=kind, batch_normalise=batch)
    assert not found.valid[5] and found.values[5].isnan()
    torch.testing.assert_close(found.values[rest], without.values, rtol=1e-12, atol=1e-12)


def test_a_missing_reward_is_no_bad_one():
    """A picture that is best in what is known of it stays best, with the weight that all its rewards have."""
    values, groups, weights = rollout(groups=1, size=4)
    values[:, :] = np.arange(4)[:, None]
    values[3, 0] = np.nan
    found = compute(values, groups, weights, batch_normalise=False)
    assert found.values.argmax() == 3
    scale = weights[0].sum() / weights[0, 1:].sum()
    r = values[:, 1]
    alone = (r[3] - r.mean()) / (r.std(ddof=1) + EPS)
    assert found.values[3].item() == pytest.approx(scale * alone * weights[0, 1:].sum(), rel=1e-9)


def test_groups_without_spread_are_counted_and_left_out_of_the_batch():
    values, groups, weights = rollout()
    values[groups == 2] = 1.5
    found = compute(values, groups, weights)
    assert found.flat.tolist() == (groups == 2).tolist()
    rest = groups != 2
    np.testing.assert_allclose(found.values[rest], gdpo(values[rest], groups[rest], weights[rest]), rtol=1e-9)
    assert (found.values[~rest] == 0).all()
    kept = compute(values, groups, weights, drop_zero_spread=False)
    np.testing.assert_allclose(kept.values, gdpo(values, groups, weights), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch", [True, False])
def test_a_group_whose_spread_is_far_below_epsilon_weighs_accordingly_less(batch):
    """Equal pictures but for the scale: without epsilon both groups would have the same advantages."""
    shape = np.random.default_rng(0).normal(size=4)
    spreads = np.repeat([1e-3, 10.0], 4)
    values = (np.tile(shape / shape.std(ddof=1), 2) * spreads)[:, None]
    groups, weights = np.repeat([0, 1], 4), np.ones((8, 1))
    quiet, loud = compute(values, groups, weights, batch_normalise=batch, epsilon=0.05).values.view(2, 4)
    share = (1e-3 / (1e-3 + 0.05)) / (10 / (10 + 0.05))
    torch.testing.assert_close(quiet, share * loud, rtol=1e-9, atol=1e-12)
    quiet, loud = compute(values, groups, weights, batch_normalise=batch).values.view(2, 4)
    assert (quiet / loud).min() > 0.9


def test_a_group_with_one_value_of_a_reward_has_none_of_it():
    values, groups, weights = rollout(rewards=3)
    values[0:3, 1] = np.nan
    with_one = compute(values, groups, weights, batch_normalise=False)
    values[3, 1] = np.nan
    without = compute(values, groups, weights, batch_normalise=False)
    assert torch.equal(with_one.values, without.values)


def test_weights_of_families_and_their_signs_count():
    values, groups, weights = rollout()
    weights[groups < 3, 2] = 0
    found = compute(values, groups, weights, batch_normalise=False)
    np.testing.assert_allclose(found.values, gdpo(values, groups, weights, False), rtol=1e-12, atol=1e-12)
    opposite = compute(values, groups, -weights, batch_normalise=False)
    torch.testing.assert_close(opposite.values, -found.values)


def test_advantages_are_clamped_and_said_to_be():
    values, groups, weights = rollout(groups=2, size=40)
    values[3] = 1e3
    found = compute(values, groups, weights, clamp=2.0)
    assert found.values.abs().max() == 2.0
    assert found.clamped.sum() == (found.values.abs() == 2.0).sum() > 0


def test_the_order_of_pictures_and_the_numbers_of_groups_mean_nothing():
    values, groups, weights = rollout()
    order = np.random.default_rng(1).permutation(len(values))
    found = compute(values, groups, weights)
    mixed = compute(values[order], groups[order] * 7 + 100, weights[order])
    torch.testing.assert_close(mixed.values, found.values[order], rtol=1e-10, atol=1e-12)
