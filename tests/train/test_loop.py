import subprocess
import sys

import pytest
import torch
from torch import nn

from deepgen.config import load_config
from deepgen.errors import ConfigError
from deepgen.train.loop import Ema, LoopConfig, Progress, apply_update, make_optimizer


def config(**changes):
    return LoopConfig(**{"steps": 100, "learning_rate": 1.0, "warmup_steps": 10, "cooldown": 0.5, **changes})


def test_the_rate_warms_up_stays_and_cools_down():
    rates = [Progress(config(), step).learning_rate() for step in (0, 4, 30, 75, 100)]
    assert rates == pytest.approx([0.1, 0.5, 1.0, 0.5, 0.0])


def test_a_resumed_run_continues_its_wall_clock_schedule():
    progress = Progress(config(steps=None, budget_minutes=10), step=50, elapsed=540)
    assert progress.fraction == pytest.approx(0.9, abs=1e-3)


def test_a_run_has_exactly_one_length():
    with pytest.raises(ConfigError, match="exactly one of steps and budget_minutes"):
        load_config(LoopConfig, {"steps": 1, "budget_minutes": 1, "learning_rate": 1})


def test_updates_stop_after_the_given_steps():
    assert list(Progress(config(steps=7)).updates("test")) == list(range(7))


CLOCKS = """
import sys, time
import torch.distributed as dist
from deepgen.train.loop import LoopConfig, Progress
dist.init_process_group("gloo")
progress = Progress(LoopConfig(budget_minutes=0.02, learning_rate=1.0), elapsed=0.3 * dist.get_rank())
for step in progress.updates("test"):
    time.sleep(0.02 * (1 + dist.get_rank()))
with open(f"{sys.argv[1]}/{dist.get_rank()}", "w") as file:
    file.write(f"{progress.step} {progress.elapsed}")
dist.destroy_process_group()
"""


def test_processes_that_prepared_for_different_times_stop_at_the_same_update(tmp_path):
    script = tmp_path / "clocks.py"
    script.write_text(CLOCKS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, script, tmp_path], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / rank).read_text() for rank in "01")
    assert first == second and int(first.split()[0]) > 1


def test_a_requested_stop_ends_the_run_early():
    progress = Progress(config())
    for step in progress.updates("test"):
        if step == 3:
            progress.request_stop()
    assert progress.step == 4


def test_the_average_follows_the_parameters_and_swaps_back():
    layer = nn.Linear(2, 2)
    ema = Ema(layer, 0.5)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1
    ema.update()
    after = layer.weight.detach().clone()
    ema.swap()
    assert torch.allclose(layer.weight, before + 0.9 * (after - before) + 0, atol=0.5)
    assert not torch.equal(layer.weight, after)
    ema.swap()
    assert torch.equal(layer.weight, after)


def test_a_non_finite_gradient_never_moves_the_weights():
    layer = nn.Linear(2, 1)
    optimizer = make_optimizer([layer], config())
    before = layer.weight.detach().clone()
    layer(torch.full((1, 2), float("nan"))).sum().backward()
    apply_update(optimizer, Progress(config()))
    assert torch.equal(layer.weight, before)


def test_what_is_done_meanwhile_comes_before_the_step_and_does_not_change_it():
    layer = nn.Linear(2, 1)
    optimizer = make_optimizer([layer], config())
    before, seen = layer.weight.detach().clone(), []
    layer(torch.ones(1, 2)).sum().backward()
    apply_update(optimizer, Progress(config()), meanwhile=lambda: seen.append(layer.weight.detach().clone()))
    assert torch.equal(seen[0], before) and not torch.equal(layer.weight, before)


def test_only_matrices_decay():
    groups = make_optimizer([nn.Linear(2, 2)], config(weight_decay=0.1)).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.1), (1, 0.0)]
