import subprocess
import sys

import pytest

from deepgen.pipeline.pipeline import DeepGenPipeline
from deepgen.train.metrics import read_metrics
from deepgen.train.rl.stage import train_rl


@pytest.mark.parametrize("sign", [1, -1])
def test_the_reward_goes_where_its_sign_says(rl_smoke, records, sign):
    config = rl_smoke("steps=6", f"reward_sign={sign}")
    assert train_rl(config)
    rewards = [record["reward/mean"] for record in records(config)]
    assert len(rewards) == 6
    assert sign * (sum(rewards[-2:]) - sum(rewards[:2])) / 2 > 0.02
    assert records(config)[0]["mismatch/max"] <= 1e-6


def test_the_command_leaves_a_model_that_draws_and_curves(tmp_path):
    run = [sys.executable, "-m", "deepgen", "train", "rl_smoke", f"output_dir={tmp_path}", "steps=1"]
    subprocess.run(run, check=True, capture_output=True, timeout=120)
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1]
    pipeline = DeepGenPipeline.from_pretrained(str(tmp_path / "final"))
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a red ball", num_inference_steps=1).images[0].size == (64, 64)
    plot = [sys.executable, "-m", "deepgen", "plot", str(tmp_path)]
    shown = subprocess.run(plot, check=True, capture_output=True, text=True, timeout=120).stdout
    assert "reward/mean" in shown and (tmp_path / "curves.png").stat().st_size > 1000
