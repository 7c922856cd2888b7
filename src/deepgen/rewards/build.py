"""Rewards from their configuration."""

import os
from collections import Counter
from collections.abc import Sequence

from deepgen.errors import ConfigError, InputError
from deepgen.rewards.config import RewardConfig
from deepgen.rewards.protocol import WeightedReward


def build_rewards(configs: Sequence[RewardConfig], device: str = "cpu") -> list[WeightedReward]:
    """The rewards in order, with their models on the device. One without any weight is not built.

    Raises ConfigError for two of one name; what building raises.
    """
    names = [config.name or config.kind for config in configs]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ConfigError(f"rewards: two are called {twice[0]!r}; give one of them another name")
    return [
        WeightedReward(config.build(name, device), config.weight, config.families)
        for name, config in zip(names, configs, strict=True)
        if config.weight != 0 and (config.families is None or any(config.families.values()))
    ]


def token_from(variable: str | None) -> str | None:
    """The secret in an environment variable; None where no variable is named. Raises InputError where it is empty."""
    if variable is None:
        return None
    token = os.environ.get(variable, "")
    if not token:
        raise InputError(f"environment variable {variable} holds no token")
    return token
