"""The gradient of an update, in float64 against sums that are written out here."""

from dataclasses import replace

import pytest
import torch

from deepgen.data.loader import MixtureLoader
from deepgen.rewards import Score
from deepgen.rewards.simple import MeanBrightness
from deepgen.train.metrics import MetricsWriter
from deepgen.train.parallel import Ranks
from deepgen.train.rl.advantages import compute_advantages
from deepgen.train.rl.learner import Micro
from deepgen.train.rl.measures import Measures
from deepgen.train.rl.scores import gather_scores
from deepgen.train.rl.stage import RLRun
from deepgen.train.rl.surrogate import velocity_kl
from deepgen.train.rl.window import choose_window
from deepgen.train.supervised import Objective, batch_loss

SMALL = [
    *["group_size=4", "groups_per_rollout=4", "rollout_batch_size=8", "train_batch_size=5", "steps=1"],
    *["sampler.num_inference_steps=3", "window={placement: fixed, size: 2}", "area=1024"],
]
DATA = "{sets: [{name: a, format: world, task: t2i}], ratio: {t2i: 1}, area: 1024}"


@pytest.fixture(autouse=True)
def double(monkeypatch):
    """Float64 also where a run asks for fp32; only the estimate of the clean latents is rounded to that."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def open_run(config):
    run = RLRun(config, Ranks())
    run.model.double()
    return run


def gradients(run):
    """What has gathered, which is then forgotten."""
    found = {name: p.grad for name, p in run.trained.items() if p.grad is not None}
    run.optimizer.zero_grad(set_to_none=True)
    assert found and all(g.dtype == torch.float64 for g in found.values())
    return found


def first_update(config):
    """The gradient of the first update of a run, as it reaches the optimizer."""
    run, found = open_run(config), {}

    def catch():
        found.update(gradients(run))
        run.counters.step += 1
        return 0.0, 0.0

    run.apply_update = catch
    run.advance(MetricsWriter(config.output_dir, config.metrics, True, 0))
    run.close()
    return run, found


def near(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-7 * float(value.abs().max()))


@pytest.mark.parametrize("share", [0.25, 0.9])
def test_an_update_is_the_convex_mix_of_the_surrogate_and_the_supervised_loss(rl_smoke, share):
    sft = f"sft={{weight: {share}, batch_size: 1, global_batch_size: 3, workers: 0, data: {DATA}}}"
    _, alone = first_update(rl_smoke(*SMALL, folder="alone"))
    run, mixed = first_update(rl_smoke(*SMALL, sft, folder="mixed"))
    batches = iter(MixtureLoader(run.config.sft.data, 1, 0, 1, 0))
    objective = Objective(run.config.seed, run.defaults.shift, run.defaults.padding, "sft")
    losses = [batch_loss(run.model, next(batches), objective, [i]).losses for i in range(3)]
    torch.cat(losses).mean().backward()
    supervised = gradients(run)
    near(mixed, {name: (1 - share) * alone[name] + share * supervised[name] for name in supervised})


@pytest.mark.parametrize("drop", [True, False])
def test_groups_without_spread_count_in_the_kls_mean_only_where_they_are_trained(rl_smoke, monkeypatch, drop):
    """Two of four groups are flat: the surrogate is a mean over 16 pictures, the KL over the 8 or 16 in training."""
    score = MeanBrightness.__call__
    monkeypatch.setattr(
        MeanBrightness,
        "__call__",
        lambda self, batch: [
            Score.of(0.5) if int(one.group) < 2 else found
            for one, found in zip(batch, score(self, batch), strict=True)
        ],
    )
    config = rl_smoke(*SMALL, "loss.kl_weight=0.5", f"advantages.drop_zero_spread={str(drop).lower()}")
    run = open_run(config)
    with torch.no_grad():
        for parameter in run.trained.values():  # away from the reference
            parameter.add_(0.01 * torch.randn_like(parameter))
    window, measures = choose_window(config.window, 3, config.seed, 0), Measures(run.ranks)
    drawn, tickets = run._draw(window)
    drawn = replace(drawn, states={step: x.double() for step, x in drawn.states.items()})
    table = gather_scores(drawn, run._collect(tickets), run.rewards, [], run.prompts.families, run.ranks)
    gained = compute_advantages(table.rewards, table.groups, table.weights, config.advantages)
    task, parts = run._prepare(drawn, window, table, gained, measures)
    run._accumulate(task, parts[0], gained, None, measures)
    found = gradients(run)

    rows = [i for i in range(16) if not drop or drawn.groups[drawn.owner[i]].group.number >= 2]
    assert int(gained.flat.sum()) == 8 and parts[0] == rows
    for step in window.trained:
        passed = run.learner._forward(drawn, Micro(rows, [step] * len(rows), [1.0] * len(rows)))
        policy = -(task.advantages[rows] * passed.log_probs).sum() / 16
        kl = velocity_kl(passed.velocity, task.reference[step][rows], passed.move.scale, "unweighted").mean()
        ((policy + 0.5 * kl) / len(window.trained)).backward()
    near(found, gradients(run))
