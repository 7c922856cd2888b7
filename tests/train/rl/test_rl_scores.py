"""What is told of a rollout's scores, from tables written out here."""

import math

import pytest
import torch

from deepgen.train.rl.advantages import AdvantageConfig, compute_advantages
from deepgen.train.rl.scores import ScoreTable, describe

NONE = math.nan


def table():
    """Two pictures each of things, of words and of a prompt without rewards; by detector, CLIP, reader. The detector
    says nothing of prompts of words alone, and CLIP failed on one of the things."""
    rewards = [[1.0, 0.3, NONE], [0.5, NONE, NONE]] + [[NONE, 0.2, 0.9], [NONE, 0.4, 0.5]] + [[NONE] * 3] * 2
    weights = [[0.7, 0.3, 0.0]] * 2 + [[0.2, 0.1, 0.7]] * 2 + [[0.7, 0.3, 0.0]] * 2
    rows = torch.arange(6)
    groups = torch.tensor([0, 0, 1, 1, 2, 2])
    matrices = [torch.tensor(x, dtype=torch.float64) for x in (rewards, weights)]
    empty = torch.zeros(6, 0, dtype=torch.float64)
    families = torch.tensor([0, 0, 1, 1, 0, 0])
    return ScoreTable(*matrices, empty, groups, families, torch.zeros(6, dtype=torch.float64), rows)


def test_the_sum_of_a_pictures_other_rewards_stands_for_all_of_them():
    words = [(0.1 * 0.2 + 0.7 * 0.9) / 0.8, (0.1 * 0.4 + 0.7 * 0.5) / 0.8]
    wanted = torch.tensor([0.7 * 1.0 + 0.3 * 0.3, 0.5, *words, NONE, NONE], dtype=torch.float64)
    torch.testing.assert_close(table().totals, wanted, rtol=1e-12, atol=0, equal_nan=True)


def test_a_family_whose_prompts_have_no_value_of_one_reward_is_told_of_all_the_same():
    held = table()
    gained = compute_advantages(held.rewards, held.groups, held.weights, AdvantageConfig())
    told = describe(held, gained, ["detector", "clip", "reader"], [], ["things", "words"])
    words = ((0.1 * 0.2 + 0.7 * 0.9) + (0.1 * 0.4 + 0.7 * 0.5)) / 0.8
    assert told["reward_of/words"] == pytest.approx(words / 2, rel=1e-12)
    assert told["reward_of/things"] == pytest.approx((0.79 + 0.5) / 2, rel=1e-12)
    assert told["reward/mean"] == pytest.approx((0.79 + 0.5 + words) / 4, rel=1e-12)
    assert told["reward/detector"] == 0.75 and told["reward/reader"] == pytest.approx(0.7)
