"""Rewards: a small protocol, the rewards, services that run them elsewhere, and the runner beside a rollout."""

from deepgen.rewards.build import build_rewards
from deepgen.rewards.config import RewardConfig, RunnerConfig
from deepgen.rewards.protocol import (
    NOT_ASKED,
    Reward,
    RewardInput,
    RewardUnavailable,
    Score,
    WeightedReward,
)
from deepgen.rewards.runner import RewardRunner, Ticket

__all__ = [
    "NOT_ASKED",
    "Reward",
    "RewardConfig",
    "RewardInput",
    "RewardRunner",
    "RewardUnavailable",
    "RunnerConfig",
    "Score",
    "Ticket",
    "WeightedReward",
    "build_rewards",
]
