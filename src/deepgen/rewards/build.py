"""Rewards from their configuration."""

import os
from collections.abc import Sequence

from deepgen.errors import InputError
from deepgen.rewards.config import RewardConfig
from deepgen.rewards.protocol import WeightedReward


def build_rewards(configs: Sequence[RewardConfig], device: str = "cpu") -> list[WeightedReward]:
    """The rewards in order, with their models on the device. One without any weight is not built.

    Raises what building raises.
    """
    return [
        WeightedReward(
            config.build(config.called, device), config.weight, config.families, config.waits, config.ordered
        )
        for config in configs
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
