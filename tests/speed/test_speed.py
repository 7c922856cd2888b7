"""Measurements at tiny sizes, and the run over several processes."""

import json
import sys

import pytest

from deepgen.errors import InputError
from deepgen.speed.rollout import RolloutWork, measure_rollouts
from deepgen.speed.scaling import Host, ScalingPlan, plan_jobs, run_scaling, table
from deepgen.speed.training import Setting, Work, measure_training, measured_rate
from deepgen.train.parallel import ParallelConfig, Ranks


def plan(folder, **values):
    return ScalingPlan(folder / "scaling.json", "tiny", "cpu", **values)


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


def test_two_processes_train_together_and_the_table_says_so(tmp_path):
    said = []
    told, failures = run_scaling(plan(tmp_path, processes=(2,), parts=("sft",)), tmp_path, said.append)
    assert not failures, told
    (job,) = json.loads((tmp_path / "scaling.json").read_text())["jobs"]
    assert job["ended"] == "done" and set(job["rates"]) == {"sft t2i", "sft edit"} and job["facts"]["noise"]
    assert job["rates"]["sft t2i"]["collective_seconds"] > 0
    assert "sft edit                 2" in told and len(said) == 2


def test_a_part_that_fails_or_takes_too_long_stops_nothing_else(tmp_path):
    class Scripted(Host):
        def command(self, job):
            scripts = {"sft": "raise SystemExit('lost')", "rl": "import time; time.sleep(60)"}
            return [sys.executable, "-c", scripts.get(job.part, "pass")]

    jobs = plan_jobs(("sft", "resume", "rl", "draw"), (1, 2))
    host = Scripted(plan(tmp_path, part_seconds=3), tmp_path, [0, 1], lambda _: None)
    host.run(jobs)
    ended = {job.name: job.ended for job in jobs}
    assert "lost" in ended["sft-2"] and "sft-2 did not end well" in ended["resume-1"]
    assert ended["rl-2"].startswith("stopped after") and ended["draw-2"] == ended["draw-1"] == "done"
    assert host.free == [0, 1] and "sft-2: failed in process" in table(host.report(jobs))


def test_without_time_nothing_starts_and_impossible_wishes_are_refused(tmp_path):
    jobs = plan_jobs(("sft",), (1,))
    Host(plan(tmp_path, seconds=1), tmp_path, [0], lambda _: None).run(jobs)
    assert jobs[0].ended == "not started: no time left"
    with pytest.raises(InputError, match="unknown part 'sfx'"):
        run_scaling(plan(tmp_path, parts=("sfx",)), tmp_path, print)


def test_jobs_come_in_the_order_of_their_worth():
    names = [job.name for job in plan_jobs(("sft", "resume", "hsdp", "rl"), (1, 2, 4))]
    assert names == ["sft-4", "resume-2", "sft-2", "sft-1", "rl-4", "rl-2", "rl-1", "hsdp-4"]
