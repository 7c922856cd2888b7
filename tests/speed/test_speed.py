"""Measurements at tiny sizes."""

import pytest

from deepgen.speed.rollout import RolloutWork, measure_rollouts
from deepgen.speed.training import Setting, Work, measure_training, measured_rate
from deepgen.train.parallel import ParallelConfig, Ranks


def test_training_is_measured_for_each_task_and_told_where_its_time_goes():
    works = [Work("sft", task, 2, 64) for task in ("t2i", "edit")]
    setting = Setting(ParallelConfig(), warmup=0, repeats=1, profile=True)
    peak = measured_rate(setting.parallel, Ranks())
    found = list(measure_training("tiny", works, setting, Ranks(), peak))
    assert peak > 0 and [x.task for x in found] == ["t2i", "edit"]
    for x in found:
        assert x.images_per_second == pytest.approx(2 / x.seconds) and x.mfu > 0 and not x.failure
        assert "wall" in x.profile and "aten::mm" in x.profile


@pytest.mark.parametrize(("recipe", "passes"), [("rl/mr_grpo", 173), ("rl/mr_grpo_fast", 20)])
def test_a_rollout_of_each_recipe_is_measured_by_phases(tmp_path, recipe, passes):
    work = RolloutWork(recipe, "tiny", groups=1, group_size=2, at_once=2)
    found = measure_rollouts(work, tmp_path, ParallelConfig(), Ranks(), repeats=1)
    assert found.pictures == 2 and found.passes == pytest.approx(passes, abs=1)
    assert 0 < found.phases["rollout"] < found.seconds and found.phases["train"] > 0
    assert min(found.drawing_mfu, found.mfu) > 0 and found.collective_seconds == 0
