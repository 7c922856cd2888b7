"""Runs of the smoke configuration of reinforcement, in folders of their own."""

import pytest

from deepgen.train.metrics import read_metrics


@pytest.fixture
def rl_smoke(tmp_path):
    """Makes the configuration with overrides."""
    from deepgen.config import load_config
    from deepgen.train.rl.config import RLConfig

    def make(*overrides: str, folder: str = "run") -> RLConfig:
        return load_config(RLConfig, "train/rl_smoke", [f"output_dir={tmp_path / folder}", *overrides])

    return make


@pytest.fixture
def records():
    """The records of a run's metrics."""

    def read(config):
        return read_metrics(config.output_dir / "metrics.jsonl")

    return read
